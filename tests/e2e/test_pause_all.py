"""`lade pause --all` and `lade resume --all` with many transfers running: nothing starts from zero, and the order is kept."""
import os

from lib.downloads import KIB, MIB, check_same, completed, on_disk, served, span_of, submit, write_file
from lib.world import World

LIMIT_S = 180
TAKES_S = {"fifty_transfers_paused_and_resumed": 25}
TRANSFERS, WORKERS = 50, 4
SLOTS = 13  # of each: all run at once, and each of them has a connection (download.connections is 16)
SIZES = (600 * KIB, 2 * MIB, 6 * MIB)  # of one range and of several
COME = 150 * KIB  # of each before the pause; what a request brings ends soon after


def workers_idle(world):
    return all(worker["busy"] == 0 for worker in world.call("broker", "workers"))


def jobs_of(world, ids):
    found = {job["id"]: job for job in world.call("download", "list_jobs", limit=1000)}
    return [found[number] for number in ids]


def begin(world):
    """All transfers, each of a priority of its own, in the middle."""
    for number in range(TRANSFERS):
        write_file(world.hub.file(f"{number}/x.bin"), SIZES[number % len(SIZES)], number)
    world.hub.faults({"path": "/files/*", "action": "stall", "bytes": COME + 10000})
    world.start("broker", *["download"] * WORKERS)
    world.eventually(lambda: len(world.call("broker", "workers")) == WORKERS)
    ids = [submit(world, f"{world.hub.url}/files/{number}/x.bin", os.path.join(world.folder, "out", str(number)),
                  priority=number * 7 % TRANSFERS)["id"] for number in range(TRANSFERS)]
    world.eventually(lambda: all(job["bytes"] >= COME for job in jobs_of(world, ids)), 60)
    assert {job["status"] for job in jobs_of(world, ids)} == {"running"}
    return ids


def check_resumed(world, number):
    """Nothing was asked for from its start after the pause."""
    requests = world.hub.log(path=f"/files/{number}/*")["requests"]
    spans = [span_of(entry) for entry in requests]
    assert requests and all(span and span[0] > 0 for span in spans), f"file {number}: {spans}"
    return served(requests)


def test_fifty_transfers_paused_and_resumed():
    with World({"download.slots": SLOTS, "download.stall_s": 20}) as world:
        ids = begin(world)
        world.lade("pause", "--all")
        assert {job["status"] for job in jobs_of(world, ids)} == {"paused"}
        world.eventually(lambda: workers_idle(world), 30)
        before = world.hub.log(reset=True)
        assert before["totals"]["open"] == 0, "a transfer goes on though its job is paused"
        paused = {job["id"]: job for job in jobs_of(world, ids)}
        for number in range(TRANSFERS):
            shown, hidden = on_disk(os.path.join(world.folder, "out", str(number)))
            assert not shown and hidden, (shown, hidden)

        world.hub.clear()
        world.lade("resume", "--all")
        jobs = [completed(world, number) for number in ids]
        again = sum(check_resumed(world, number) for number in range(TRANSFERS))
        total = sum(SIZES[number % len(SIZES)] for number in range(TRANSFERS))
        assert before["totals"]["bytes"] + again < 1.1 * total, (before["totals"]["bytes"], again, total)
        for number, job in enumerate(jobs):
            check_same(job["download_path"], world.hub.file(f"{number}/x.bin"))
            assert job["failures"] == 0 and job["deaths"] == 0, job
            assert job["job_sequence"] > paused[job["id"]]["job_sequence"]
        order = [job["priority"] for job in sorted(jobs, key=lambda job: job["job_sequence"])]
        assert order == sorted(order), f"they went on in the order of priorities {order}"


def test_what_waits_goes_on_by_priority():
    """With fewer slots than transfers: what is resumed runs lowest priority first, then first come."""
    with World({"download.slots": 2}) as world:
        write_file(world.hub.file("x.bin"), 300 * KIB)
        world.hub.faults({"path": "/files/*", "action": "stall", "bytes": 100 * KIB})
        world.start("broker", "download")
        ids = [submit(world, f"{world.hub.url}/files/x.bin", os.path.join(world.folder, "out", str(number)),
                      priority=priority)["id"] for number, priority in enumerate((10, 3, 10, 7, 1, 10, 3))]
        world.eventually(lambda: [job["status"] for job in jobs_of(world, ids)].count("running") == 2)
        world.lade("pause", "--all")
        world.eventually(lambda: workers_idle(world), 30)
        world.hub.clear()
        world.lade("resume", "--all")
        jobs = [completed(world, number) for number in ids]
        order = [(job["priority"], job["id"]) for job in sorted(jobs, key=lambda job: job["job_sequence"])]
        assert order == sorted(order), order
