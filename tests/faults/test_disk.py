"""A full disk: errors that say so, nothing half-written, and it goes on when there is room again."""
import os

from lib import weights
from lib.apart import mount, on_small_disk, resize
from lib.checks import no_leftovers
from lib.world import LadeError, World

LIMIT_S = 120


def fill(folder):
    """Takes what is free; answers the file that has it."""
    path = os.path.join(folder, "ballast")
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass
    return path


def waits_for_space(world, number):
    """What a job says that waits for room on the disk; the part of an install that does speaks for it."""
    job = world.call("jobs", "get", id=number)
    for one in [job, *(world.call("jobs", "get", id=child) for child in job.get("children") or [])]:
        if one["error_type"] == "no_space" and one["status"] == "enqueued":
            return world.call("jobs", "why", id=one["id"])["why"] + " " + one["error"]
    assert job["status"] in ("enqueued", "running", "waiting"), job
    return None


@on_small_disk
def test_full_disk_of_the_models():
    """Downloads and copies wait for room, use up no attempt, and go on by themselves when there is some."""
    with World({"broker.max_attempts": 2}) as world:
        path = weights.lora(world.hub.file("x.safetensors"), 1, rank=128)
        local = weights.lora(os.path.join(world.folder, "y.safetensors"), 2, rank=128)
        mount(world.models_dir, "1m")
        world.up()
        jobs = {}
        for source in (f"{world.hub.url}/files/x.safetensors", local):
            jobs[source] = world.call("install", "heuristic_import", source=source)["id"]
            words = world.eventually(lambda: waits_for_space(world, jobs[source]), 30)
            assert "space" in words, words
        assert world.call("store", "all_models") == []
        resize(world.models_dir, "16m")
        for source, original in zip(jobs, (path, local)):
            job = world.call("install", "wait_for_job", id=jobs[source], timeout_s=60)
            assert job["status"] == "completed", (job["error_type"], job["error"])
            assert weights.sha256(world.record_path(job["config_out"])) == weights.sha256(original)
        no_leftovers(world, world.call("store", "all_models"))


@on_small_disk
def test_full_disk_of_the_keyspace():
    """Requests are refused with no_space, reading goes on; with room again so does everything, nothing acknowledged is lost."""
    with World({"broker.max_queue": 1000000}) as world:
        mount(world.data, "8m")
        world.configure()
        broker = world.start("broker")
        client = world.client()
        taken, refused = [client.call("jobs", "submit", kind="nothing", source=f"before {number}")["id"] for number in range(20)], None
        ballast = fill(world.data)
        for number in range(20000):
            try:
                taken.append(client.call("jobs", "submit", kind="nothing", source=f"s{number}", spec={"text": "x" * 500})["id"])
            except LadeError as error:
                refused = error
                break
        assert refused and refused.code == "no_space", refused
        assert broker.alive
        assert client.call("jobs", "get", id=taken[0])["id"] == taken[0]
        assert client.call("store", "all_models") == []
        os.unlink(ballast)
        job = client.call("jobs", "submit", kind="nothing", source="after")
        taken.append(job["id"])
        broker.stop()
        world.processes.remove(broker)
        world.start("broker")
        kept = {job["id"] for job in world.call("jobs", "list", limit=100000)}
        assert set(taken) <= kept, sorted(set(taken) - kept)[:5]


def found_by_doctor(world):
    """What `lade doctor` says of indexes and records."""
    report = world.lade_json("doctor", status=None)
    return {name: count for name, count in report["counts"].items() if name.startswith(("index_", "count_", "record_"))}


@on_small_disk
def test_full_disk_of_the_records():
    """Adds, changes, removals and many at once are refused whole; what was acknowledged is there, indexes agree, also after kill -9."""
    with World() as world:
        mount(world.data, "16m")
        world.configure()
        broker = world.start("broker")
        client = world.client()

        def config(number):
            return {"name": f"n{number}", "type": "lora", "base": "sd-1", "format": "lycoris", "path": f"p{number}", "tags": ["a", f"t{number % 9}"],
                    "description": "x" * 3000}

        there = {(record := client.call("store", "add_model", config=config(number)))["key"]: record for number in range(200)}
        ballast = fill(world.data)
        refused = set()
        for number in range(1000, 9000):
            try:
                record = client.call("store", "add_model", config=config(number))
                there[record["key"]] = record
            except LadeError as error:
                refused.add(error.code)
                break
        assert refused == {"no_space"} and broker.alive, refused
        keys = list(there)
        for number in range(3):
            for op, args in (("import_models", {"models": [config(20000 + number * 2000 + one) for one in range(1500)]}),
                             ("update_model", {"key": keys[number], "config": {"description": "y" * 60000, "tags": ["changed"]}}),
                             ("del_model", {"key": keys[number + 5]})):
                try:
                    answer = client.call("store", op, **args)
                except LadeError as error:
                    assert error.code == "no_space", (op, error)
                    continue
                # a little room may be left for what is small: then it is done whole
                assert op != "import_models", answer
                there[keys[number]] = answer if op == "update_model" else there[keys[number]]
                if op == "del_model":
                    del there[keys[number + 5]]
        assert world.call("broker", "status")["models"] == len(there)
        broker.kill()
        os.unlink(ballast)
        broker = world.start("broker")
        client = world.client()
        back = {}
        while page := client.call("store", "all_models", limit=500, offset=len(back)):
            back.update((record["key"], record) for record in page)
        assert back == there, (set(back) ^ set(there), [key for key in there if back.get(key) != there[key]][:3])
        assert found_by_doctor(world) == {}
        said = client.call("store", "import_models", models=[config(50000 + one) for one in range(200)])
        assert said["added"] == 200 and found_by_doctor(world) == {}
