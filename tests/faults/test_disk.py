"""A full disk: errors that say so, nothing half-written, and it goes on when there is room again."""
import os
import subprocess
import sys

from lib import weights
from lib.checks import no_leftovers
from lib.skip import Skip
from lib.world import HERE, LadeError, World

LIMIT_S = 120
INSIDE = "LADE_TEST_INSIDE"


def on_small_disk(function):
    """Runs a test again in a namespace of its own, where it may mount a small file system."""

    def run():
        if os.environ.get(INSIDE):
            return function()
        # As somebody in a user namespace; where that is closed (a chroot), as root itself.
        for unshare in (["unshare", "-Urm"], ["unshare", "-m"]):
            if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                break
        else:
            raise Skip("this system lets nobody make namespaces (unshare -Urm)")
        tests = os.path.dirname(HERE)
        done = subprocess.run([*unshare, sys.executable, os.path.join(tests, "run"), "--one",
                               os.path.join(tests, "faults", "test_disk.py"), function.__name__],
                              env={**os.environ, INSIDE: "1"}, check=False)
        assert done.returncode == 0, "see above"

    return run


def mount(folder, size):
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder], check=True)


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
        subprocess.run(["mount", "-o", "remount,size=16m", world.models_dir], check=True)
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
