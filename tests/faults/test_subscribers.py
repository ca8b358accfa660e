"""Subscribers that come late, lose events or stand still."""
import os
import signal
import subprocess
import sys
import time

from lib import weights
from lib.checks import check_order
from lib.world import ROOT, SANITIZED, Follower, World

LIMIT_S = 180


def churn(client, count, window=200):
    """Submits and cancels jobs that nobody serves: two journaled events each. Answers the slowest answer's seconds."""
    slowest, waiting = 0.0, []
    for number in range(count):
        waiting.append((time.monotonic(), client.send("jobs", "submit", kind="nothing", source=f"s{number}")))
        if len(waiting) == window or number == count - 1:
            jobs = []
            for began, request in waiting:
                jobs.append(client.receive(request, 60)["id"])
                slowest = max(slowest, time.monotonic() - began)
            client.call("jobs", "cancel", ids=jobs, timeout_s=60)
            waiting = []
    return slowest


def newest(client):
    return client.call("broker", "status")["seq"]


def test_late_subscriber_sees_all_there_was():
    with World() as world:
        path = weights.embedding(os.path.join(world.folder, "x.safetensors"), 1)
        world.up()
        early = world.events()
        early.ready()
        # What was before the first event the early one saw.
        client = world.client()
        job = world.install(path)
        churn(client, 300)
        last = newest(client)
        seen = early.until(lambda event: event["seq"] >= last and not event.get("progress"), 30)
        check_order(seen)
        live = {event["seq"]: event for event in seen if not event.get("progress") and event["event"] != "broker_beat"}
        late = Follower(client, world.events())
        got = []
        for event in late.follow(30):
            got.append(event)
            if event["seq"] >= last:
                break
        assert [event["seq"] for event in got] == list(range(1, last + 1))
        for event in got:
            if event["seq"] in live:
                same = {key: value for key, value in live[event["seq"]].items() if key != "topic"}
                assert same == event, (same, event)
        assert any(event["event"] == "model_install_completed" and event["id"] == job["id"] for event in got)


def test_subscriber_that_lost_events_catches_up():
    """It reads nothing while far more happens than its queues hold."""
    with World() as world:
        world.start("broker")
        client = world.client()
        events = world.events()
        events.ready()
        follower = Follower(client, events, since=newest(client))
        first = follower.seq
        churn(client, 40000)
        last = newest(client)
        assert last >= first + 80000
        got = []
        for event in follower.follow(60):
            got.append(event["seq"])
            if event["seq"] >= last:
                break
        assert got == list(range(first + 1, last + 1)), (len(got), first, last)


def test_journal_that_is_too_short_says_so():
    with World({"broker.journal_events": 200}) as world:
        world.start("broker")
        client = world.client()
        churn(client, 2000)
        try:
            client.call("events", "since", seq=0)
        except Exception as error:  # LadeError of the wire
            assert getattr(error, "code", None) == "too_old", error
        else:
            raise AssertionError("the journal claims to go back to the beginning")
        snapshot = client.call("events", "snapshot")
        assert client.call("events", "since", seq=snapshot["seq"])["events"] == []


SUBSCRIBER = """
import sys; sys.path.insert(0, sys.argv[2])
from outsider import Events
events = Events(sys.argv[1]); events.ready(); print("ready", flush=True)
while True: events.receive(60)
"""


def test_stopped_subscriber_costs_nothing():
    """Neither memory of the broker without end, nor time of the others."""
    with World({"broker.journal_events": 20000, "broker.keep_ended": 1000}) as world:
        broker = world.start("broker")
        client = world.client()
        healthy = world.events("job_", "broker_beat")
        churn(client, 30000)
        before_kb, pace = broker.memory_kb(), churn(client, 5000)
        stopped = subprocess.Popen([sys.executable, "-c", SUBSCRIBER, world.endpoint("events"),
                                    os.path.join(ROOT, "tests/wire")], stdout=subprocess.PIPE)
        assert stopped.stdout.readline()
        stopped.send_signal(signal.SIGSTOP)
        try:
            slowest = churn(client, 60000)
            after_kb = broker.memory_kb()
            # The others: once it has read what waited for it, an event is with a subscriber that reads at once.
            last = newest(client)
            healthy.until(lambda event: event["seq"] >= last, 30)
            began = time.monotonic()
            job = client.call("jobs", "submit", kind="nothing")
            healthy.until(lambda event: event["event"] == "job_enqueued" and event["id"] == job["id"], 5)
            delay = time.monotonic() - began
        finally:
            stopped.kill()
            stopped.wait()
        assert SANITIZED or after_kb - before_kb < 48 * 1024, f"{before_kb} KiB before, {after_kb} KiB after 120000 events"
        assert delay < 1, delay
        assert slowest < max(1.0, 5 * pace), (slowest, pace)
