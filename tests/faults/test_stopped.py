"""A worker that was thought dead and comes back changes nothing (SIGSTOP past its lease, then SIGCONT)."""
import os
import signal

from lib import weights
from lib.checks import check_files, ended_event, no_leftovers
from lib.world import World

LIMIT_S = 120
SETTINGS = {"broker.beat_ms": 100, "broker.lease_beats": 3, "broker.retry_base_ms": 20}


def stamp(path):
    info = os.stat(path)
    return info.st_ino, info.st_size, info.st_mtime_ns, weights.sha256(path)


def by_worker(world, processes):
    """{name the broker knows it by: process}"""
    pids = {process.pid: process for process in processes}
    return {worker["name"]: pids[worker["pid"]] for worker in world.call("broker", "workers") if worker["pid"] in pids}


def gone(events, worker):
    events.until(lambda event: event["event"] == "worker_lost" and event["id"] == worker, 30)


def back(events, worker):
    events.until(lambda event: event["event"] == "worker_joined" and event["id"] == worker, 30)


def test_stopped_download_worker_changes_nothing():
    with World(SETTINGS) as world:
        path = weights.lora(world.hub.file("x.safetensors"), 1, rank=128)
        world.start("broker", "download", "install")
        world.hub.settings(throttle=300000)
        events = world.events()
        events.ready()
        job = world.call("install", "heuristic_import", source=f"{world.hub.url}/files/x.safetensors")
        child = events.until(lambda event: event["event"] == "download_running" and event["bytes"] > 50000)[-1]["id"]
        names = by_worker(world, world.processes)
        stopped = names[world.call("jobs", "get", id=child)["worker"]]
        (worker,) = (name for name, process in names.items() if process is stopped)
        stopped.signal(signal.SIGSTOP)
        gone(events, worker)
        other = world.launch("download")
        world.hub.settings(throttle=0)
        events.until(ended_event(job), 60)
        ended = world.call("install", "wait_for_job", id=job["id"], timeout_s=30)
        assert ended["status"] == "completed", (ended["status"], ended["error"])
        placed = world.record_path(ended["config_out"])
        before = stamp(placed)
        assert other.alive
        stopped.signal(signal.SIGCONT)
        back(events, worker)
        # One whole job through the one that came back: what it had to say about the old one is said.
        weights.lora(world.hub.file("y.safetensors"), 2)
        other.stop()
        again = world.install(f"{world.hub.url}/files/y.safetensors")
        assert again["status"] == "completed", again["error"]
        assert stamp(placed) == before
        check_files(world, ended["config_out"], path)
        assert world.call("jobs", "get", id=child)["status"] == "completed"
        records = world.call("store", "all_models")
        assert len(records) == 2, records
        no_leftovers(world, records)


def test_stopped_install_worker_changes_nothing():
    """It is stopped while it places a file; another worker installs the same; the first one's end is refused."""
    with World(SETTINGS) as world:
        path = weights.write_safetensors(os.path.join(world.folder, "big.safetensors"), {
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": ("F16", (4, 768)),
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": ("F16", (4, 768)),
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": ("F32", (20000, 4096))}, seed=1)
        _, _, install = world.start("broker", "download", "install")
        (worker,) = by_worker(world, [install])
        events = world.events()
        events.ready()
        job = world.call("install", "heuristic_import", source=path)
        events.until(lambda event: event["event"] == "model_install_running" and event["id"] == job["id"])
        install.signal(signal.SIGSTOP)
        gone(events, worker)
        world.launch("install")
        events.until(ended_event(job), 60)
        ended = world.call("install", "wait_for_job", id=job["id"], timeout_s=30)
        assert ended["status"] == "completed", (ended["status"], ended["error_type"], ended["error"])
        placed = world.record_path(ended["config_out"])
        before = stamp(placed)
        install.signal(signal.SIGCONT)
        back(events, worker)
        seen = events.until(lambda event: event["event"] == "broker_beat")
        for _ in range(5):
            seen += events.until(lambda event: event["event"] == "broker_beat")
        assert not [event for event in seen if event["event"].startswith("model_record")], seen
        assert stamp(placed) == before
        check_files(world, ended["config_out"], path)
        assert len(world.call("store", "all_models")) == 1
        install.stop()
        no_leftovers(world, [ended["config_out"]])


def test_late_report_is_refused_and_counted():
    """A worker of the test's own says DONE, with effects, after its job was given to another and ended."""
    with World(SETTINGS) as world:
        world.start("broker")
        events = world.events()
        events.ready()
        late, other = world.worker("paint"), world.worker("paint")
        late.hello()
        job = world.call("jobs", "submit", kind="paint", source="wall")
        held = late.job()
        # Silence: no beat until the lease is over.
        gone(events, late.name)
        other.hello()
        taken = other.job()
        assert taken["id"] == held["id"] == job["id"] and taken["attempt"] == held["attempt"] + 1
        other.done(taken, {"colour": "green"})
        other.settle()
        record = {"key": "ab" * 16, "name": "late", "type": "lora", "base": "sd-1", "format": "lycoris", "path": "sd-1/lora/l",
                  "hash": "x", "source": "x", "source_type": "path"}
        late.progress(held, 5, 10)
        late.done(held, {"colour": "red"}, [{"op": "put_model", "model": record}])
        late.settle()
        ended = world.call("jobs", "get", id=job["id"])
        assert (ended["status"], ended["result"], ended["attempt"]) == ("completed", {"colour": "green"}, taken["attempt"])
        assert ended["deaths"] == 1, ended
        assert world.call("store", "all_models") == []
        assert world.call("broker", "metrics")["stale_reports"] >= 1


def test_worker_that_dies_under_a_job_three_times_makes_it_dead():
    """Kept, listed, not served again until somebody retries it."""
    with World(SETTINGS) as world:
        world.start("broker")
        events = world.events()
        events.ready()
        job = world.call("jobs", "submit", kind="paint", source="wall")
        for _ in range(3):
            worker = world.worker("paint")
            worker.hello()
            assert worker.job()["id"] == job["id"]
            gone(events, worker.name)
        dead = world.call("jobs", "get", id=job["id"])
        assert dead["status"] == "dead" and dead["deaths"] == 3, dead
        assert [one["id"] for one in world.call("jobs", "list", status="dead")] == [job["id"]]
        worker = world.worker("paint")
        worker.hello()
        other = world.call("jobs", "submit", kind="paint", source="door")
        assert worker.job()["id"] == other["id"], "a dead job is not served"
        worker.done(worker.held[other["id"]])
        world.call("jobs", "retry", id=job["id"])
        assert worker.job()["id"] == job["id"]
