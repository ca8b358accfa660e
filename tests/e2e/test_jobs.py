"""Pause, resume, cancel, and what is still there after a restart."""
import os

from lib import samples, weights
from lib.checks import check_completed, check_fields, check_files, ended_event, names_of, no_leftovers, watch_install
from lib.world import World

LIMIT_S = 120
RATE = 400000


def big_lora(path, seed=1):
    """About 2 MB: five seconds at RATE."""
    return weights.lora(path, seed, rank=128)


def is_event(name, number=None):
    return lambda event: event["event"] == name and number in (None, event["id"])


def moving(number, least=1):
    """A download that has at least so many bytes."""
    return lambda event: event["event"] == "download_running" and event["id"] == number and event["bytes"] >= least


def start_slow_install(world, source):
    """An install whose download is under way; answers the job, its one child and the subscription."""
    world.hub.settings(throttle=RATE)
    events = world.events()
    events.ready()
    job = world.call("install", "heuristic_import", source=source)
    seen = events.until(lambda event: event["event"] == "download_running" and event["bytes"] > 100000, 30)
    return job, seen[-1]["id"], events, seen


def test_pause_and_resume_an_install():
    """Paused it stands still; resumed it goes on where it was, and fetches no byte twice but a few."""
    with World() as world:
        path = big_lora(world.hub.file("x.safetensors"))
        world.up()
        job, child, events, _ = start_slow_install(world, f"{world.hub.url}/files/x.safetensors")
        world.call("jobs", "pause", id=job["id"])
        seen = events.until(is_event("download_paused", child), 20)
        assert world.call("download", "id_to_job", id=child)["status"] == "paused"
        assert world.call("install", "get_job_by_id", id=job["id"])["status"] == "paused"
        world.hub.settings(throttle=0)
        world.call("jobs", "start", id=job["id"])
        seen = events.until(ended_event(job), 60)
        ended = world.call("install", "wait_for_job", id=job["id"], timeout_s=30)
        assert ended["status"] == "completed", (ended["status"], ended["error"])
        assert names_of(seen, child, "download_")[-2:] == ["download_running", "download_completed"]
        check_files(world, ended["config_out"], path)
        served = world.hub.log()["totals"]["bytes"]
        assert served < 1.7 * os.path.getsize(path), (served, os.path.getsize(path))
        no_leftovers(world, [ended["config_out"]])


def test_pause_and_resume_with_the_download_service():
    with World() as world:
        path = big_lora(world.hub.file("x.safetensors"))
        world.up()
        world.hub.settings(throttle=RATE)
        events = world.events()
        events.ready()
        destination = os.path.join(world.folder, "out", "y.safetensors")
        job = world.call("download", "create_download_job", source=f"{world.hub.url}/files/x.safetensors",
                         destination=destination, start=False)
        assert job["status"] == "idle"
        world.call("download", "start_job", id=job["id"])
        events.until(moving(job["id"], 100000), 30)
        world.call("download", "pause_job", id=job["id"])
        events.until(is_event("download_paused", job["id"]), 20)
        assert not os.path.exists(destination), "nothing has the final name yet"
        world.hub.settings(throttle=0)
        world.call("download", "start_job", id=job["id"])
        events.until(is_event("download_completed", job["id"]), 60)
        assert weights.sha256(destination) == weights.sha256(path)
        assert sorted(os.listdir(os.path.dirname(destination))) == ["y.safetensors"]


def test_cancel_a_paused_download_leaves_nothing():
    """Nobody holds a paused job, so nobody is told to stop; what it had fetched goes all the same."""
    with World() as world:
        big_lora(world.hub.file("x.safetensors"))
        world.up()
        world.hub.settings(throttle=RATE)
        events = world.events()
        events.ready()
        folder = os.path.join(world.folder, "out")
        for place in ({"destination": os.path.join(folder, "y.safetensors")}, {"destdir": folder}):
            job = world.call("download", "create_download_job", source=f"{world.hub.url}/files/x.safetensors", **place)
            events.until(moving(job["id"], 100000), 30)
            world.call("download", "pause_job", id=job["id"])
            events.until(is_event("download_paused", job["id"]), 20)
            # Paused at once; the worker has let go when its slot is free.
            world.eventually(lambda: any(name.endswith(".journal") for name in os.listdir(folder)), 20)
            world.call("download", "cancel_job", id=job["id"])
            world.eventually(lambda: os.listdir(folder) == [], 20)


def test_cancel_a_paused_install_leaves_nothing():
    with World() as world:
        big_lora(world.hub.file("x.safetensors"))
        world.up()
        job, child, events, _ = start_slow_install(world, f"{world.hub.url}/files/x.safetensors")
        world.call("jobs", "pause", id=job["id"])
        events.until(is_event("download_paused", child), 20)
        assert f"tmpinstall_{job['id']}" in os.listdir(world.models_dir)
        world.call("jobs", "cancel", id=job["id"])
        world.eventually(lambda: not [name for name in os.listdir(world.models_dir) if name.startswith("tmp")], 20)


def test_cancel_an_install():
    with World() as world:
        big_lora(world.hub.file("x.safetensors"))
        world.up()
        job, child, events, _ = start_slow_install(world, f"{world.hub.url}/files/x.safetensors")
        answer = world.call("install", "cancel_job", id=job["id"])
        assert answer["status"] == "cancelled"
        seen = events.until(ended_event(job), 20)
        assert seen[-1]["event"] == "model_install_cancelled"
        assert world.call("jobs", "get", id=child)["status"] == "cancelled"
        assert world.call("store", "all_models") == []
        world.hub.settings(throttle=0)
        # The same source again is a new job, not the cancelled one.
        again, seen = watch_install(world, f"{world.hub.url}/files/x.safetensors")
        assert again["id"] != job["id"]
        record = check_completed(again, seen, downloads=True)
        no_leftovers(world, [record])


def test_same_source_twice_at_once_is_one_job():
    with World() as world:
        big_lora(world.hub.file("x.safetensors"))
        world.up()
        source = f"{world.hub.url}/files/x.safetensors"
        job, _, events, _ = start_slow_install(world, source)
        assert world.call("install", "heuristic_import", source=source)["id"] == job["id"]
        world.hub.settings(throttle=0)
        assert events.until(ended_event(job), 60)[-1]["event"] == "model_install_completed"


def test_token_names_one_job_for_ever():
    with World() as world:
        path = weights.embedding(os.path.join(world.folder, "x.safetensors"), 1)
        world.up()
        first = world.call("install", "heuristic_import", source=path, token="mine")
        world.call("install", "wait_for_job", id=first["id"], timeout_s=30)
        again = world.call("install", "heuristic_import", source=path, token="mine")
        assert again["id"] == first["id"] and again["status"] == "completed"
        assert len(world.call("install", "list_jobs")) == 1


def test_restart_keeps_everything():
    """Records, ended jobs and the journal are there again; ids and seq go on."""
    with World() as world:
        path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"))
        process = world.up()
        job, seen = watch_install(world, path)
        record = check_completed(job, seen, downloads=False)
        before = world.call("broker", "status")
        process.stop()
        world.up()
        kept = world.call("store", "all_models")
        assert kept == [record], (kept, record)
        after = world.call("jobs", "get", id=job["id"])
        assert after["status"] == "completed"
        status = world.call("broker", "status")
        assert status["epoch"] != before["epoch"] and status["seq"] >= before["seq"]
        replay = world.call("events", "since", seq=0)["events"]
        assert [event["seq"] for event in replay] == list(range(1, len(replay) + 1))
        assert any(event["event"] == "model_install_completed" and event["id"] == job["id"] for event in replay)
        other, _ = watch_install(world, weights.embedding(os.path.join(world.folder, "y.safetensors"), 1))
        assert other["id"] > job["id"]
        check_fields(other["config_out"], type="embedding", base="sd-1", format="embedding_file")


def resumed(world, victim):
    """Kills a program in the middle of a download; after its restart the rest is fetched, not the whole."""
    path = big_lora(world.hub.file("x.safetensors"))
    processes = dict(zip(("broker", "download", "install"), world.start("broker", "download", "install")))
    job, _, _, _ = start_slow_install(world, f"{world.hub.url}/files/x.safetensors")
    processes[victim].kill()
    world.hub.settings(throttle=0)
    world.start(victim)
    ended = world.call("install", "wait_for_job", id=job["id"], timeout_s=60)
    assert ended["status"] == "completed", (ended["status"], ended["error_type"], ended["error"])
    check_files(world, ended["config_out"], path)
    no_leftovers(world, [ended["config_out"]])
    return world.hub.log()["totals"]["bytes"], os.path.getsize(path)


def test_download_goes_on_after_the_broker_was_killed():
    with World() as world:
        served, size = resumed(world, "broker")
        assert served < 1.7 * size, (served, size)


def test_download_goes_on_after_its_worker_was_killed():
    with World({"download.checkpoint_mb": 1}) as world:
        served, size = resumed(world, "download")
        assert served < 2.2 * size, (served, size)


def test_install_goes_on_after_its_worker_was_killed():
    with World() as world:
        served, size = resumed(world, "install")
        assert served < 1.7 * size, (served, size)


def test_worker_ended_in_order_gives_its_jobs_back():
    """SIGTERM of the one download worker: its job waits, and the next worker goes on with it; nobody is blamed."""
    with World() as world:
        path = big_lora(world.hub.file("x.safetensors"))
        _, download, _ = world.start("broker", "download", "install")
        job, child, _, _ = start_slow_install(world, f"{world.hub.url}/files/x.safetensors")
        download.stop()
        world.hub.settings(throttle=0)
        world.start("download")
        ended = world.call("install", "wait_for_job", id=job["id"], timeout_s=60)
        assert ended["status"] == "completed", (ended["status"], ended["error"])
        assert world.call("jobs", "get", id=child)["deaths"] == 0
        check_files(world, ended["config_out"], path)
