"""The wire as an outsider sees it: Python, pyzmq and msgpack, nothing of ours."""
import json
import os
import subprocess

import msgpack

from lib import samples
from lib.checks import check_fields, names_of
from lib.world import ROOT, Follower, World

LIMIT_S = 120


def test_outsider_installs_a_model():
    """The program an outsider would write: installs from the hub, follows the events, reads the record."""
    with World() as world:
        samples.pipeline(world.hub.repo("artist/tiny"))
        world.up()
        done = subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/wire/outsider.py"), "--data", world.data,
                               "artist/tiny"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                              check=False)
        assert done.returncode == 0, done.stdout
        record = json.loads(done.stdout[done.stdout.index("\n{") + 1:])
        check_fields(record, type="main", base="sd-1", format="diffusers", source="artist/tiny")
        order = [name for name in ("model_install_downloading", "model_install_running", "model_record_added",
                                   "model_install_completed") if name + "/" in done.stdout]
        places = [done.stdout.index(name + "/") for name in order]
        assert len(order) == 4 and places == sorted(places), done.stdout


def test_outsider_searches_edits_and_deletes():
    """A model's whole life over the bare wire, with what broker/README.md says and nothing else."""
    with World() as world:
        source = samples.checkpoint(os.path.join(world.folder, "style.safetensors"))
        world.up()
        done = subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/wire/outsider.py"), "--data", world.data, "--life",
                               source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout
        record, after = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("\n{") + 1:])
        said = done.stdout[done.stdout.index("\n{") + 1 + after:].strip().splitlines()
        assert said == [f"by name: ['{record['key']}']", f"edited: seen by a stranger, version {record['version'] + 1}",
                        "late edit: stale_record", f"by tag: ['{record['key']}']", "deleted: completed, exists: False",
                        "get: UnknownModel"], said
        assert not os.path.exists(os.path.join(world.data, "models", record["path"])), "its files went with it"
        assert os.path.exists(source), "what it was copied from stays"


def test_a_kind_is_whatever_a_worker_says_it_serves():
    with World() as world:
        world.start("broker")
        job = world.call("jobs", "submit", kind="paint", source="wall", spec={"colour": "green", "api_token": "secret"})
        why = world.call("jobs", "why", id=job["id"])
        assert why["gates"][0]["gate"] == "worker:paint", why
        worker = world.worker("paint", "sand")
        worker.hello()
        held = worker.job()
        assert (held["kind"], held["source"], held["stage"], held["spec"]["colour"]) == ("paint", "wall", 0, "green")
        assert held["spec"]["api_token"] == "secret", "the worker sees the token"
        assert world.call("jobs", "get", id=job["id"])["spec"]["api_token"] == "***", "nobody else does"
        worker.progress(held, 1, 2)
        worker.done(held, {"coats": 2})
        worker.settle()
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=10)
        assert ended["status"] == "completed" and ended["result"] == {"coats": 2}
        (described,) = world.call("broker", "workers")
        assert described["name"] == worker.name and sorted(described["kinds"]) == ["paint", "sand"]


def test_await_makes_workflows():
    """A parent that waits for two children is dispatched again with its state and their results."""
    with World() as world:
        world.start("broker")
        worker = world.worker("paint", "sand", slots=3)
        worker.hello()
        parent = world.call("jobs", "submit", kind="paint", source="wall", priority=3)
        held = worker.job()
        worker.await_jobs(held, {"layer": 1}, [{"kind": "sand", "source": "left", "spec": {}},
                                               {"kind": "sand", "source": "right", "spec": {}}])
        children = [worker.job(), worker.job()]
        assert [child["source"] for child in children] == ["left", "right"]
        assert world.call("jobs", "get", id=parent["id"])["status"] == "waiting"
        worker.done(children[1], {"dust": 2})
        worker.fail(children[0], "io_error", "the sander is broken")
        again = worker.job()
        assert again["id"] == parent["id"] and again["stage"] == 1 and again["state"] == {"layer": 1}
        left, right = again["children"]
        assert (left["source"], left["status"], left["error_type"]) == ("left", "error", "io_error")
        assert (right["source"], right["status"], right["result"]) == ("right", "completed", {"dust": 2})
        worker.done(again)
        worker.settle()


def test_a_stage_may_ask_for_records():
    """What AWAIT asks is answered when the next stage begins, with what is known then."""
    with World() as world:
        world.start("broker")
        client, worker = world.client(), world.worker("paint", "sand", slots=2)
        worker.hello()
        record = {"name": "one", "type": "lora", "base": "sd-1", "format": "lycoris", "hash": "blake3:1",
                  "path": "sd-1/lora/one.safetensors", "source": "x", "source_type": "path", "file_size": 7}
        client.call("jobs", "submit", kind="paint", source="wall")
        worker.await_jobs(worker.job(), {"layer": 1}, [{"kind": "sand", "source": "left", "spec": {}}], [
            {"op": "known_paths", "paths": ["/data/none.ckpt", "sd-1/lora/one.safetensors"]},
            {"op": "records", "limit": 5, "fields": ["name"]}, {"op": "by_hash", "hash": "blake3:1"}, {"op": "nonsense"}])
        child = worker.job()
        added = client.call("store", "add_model", config=record)  # after the question, before its answer
        worker.done(child)
        known, page, same, nonsense = worker.job()["answers"]
        assert known == [None, added["key"]]
        assert page == {"records": [{"name": "one"}], "next": None}
        assert same == [{name: added[name] for name in ("key", "name", "type", "base", "path", "hash", "file_size", "source")}]
        assert nonsense["error"]["code"] == "bad_request", nonsense


def test_effects_are_applied_with_the_end_of_the_job_or_not_at_all():
    with World() as world:
        world.start("broker")
        worker = world.worker("paint")
        worker.hello()
        client = world.client()
        record = {"key": "ab" * 16, "name": "one", "type": "lora", "base": "sd-1", "format": "lycoris",
                  "path": "sd-1/lora/one.safetensors", "hash": "x", "source": "x", "source_type": "path"}
        first = client.call("jobs", "submit", kind="paint", source="1")
        worker.done(worker.job(), {}, [{"op": "put_model", "model": record}])
        assert client.call("jobs", "wait", id=first["id"], timeout_s=10)["status"] == "completed"
        assert client.call("store", "get_model", key=record["key"])["name"] == "one"
        second = client.call("jobs", "submit", kind="paint", source="2")
        other = {**record, "key": "cd" * 16, "path": "sd-1/lora/two.safetensors"}
        worker.done(worker.job(), {}, [{"op": "put_model", "model": other}, {"op": "put_model", "model": record}])
        ended = client.call("jobs", "wait", id=second["id"], timeout_s=10)
        assert (ended["status"], ended["error_type"]) == ("error", "DuplicateModel"), ended
        assert [one["key"] for one in client.call("store", "all_models")] == [record["key"]]


def test_priorities_then_first_come():
    with World() as world:
        world.start("broker")
        client = world.client()
        for priority, name in ((10, "a"), (10, "b"), (5, "c"), (20, "d"), (1, "e")):
            client.call("jobs", "submit", kind="paint", source=name, priority=priority)
        worker = world.worker("paint")
        worker.hello()
        order = []
        for _ in range(5):
            held = worker.job()
            order.append(held["source"])
            worker.done(held)
        worker.settle()
        assert order == ["e", "c", "a", "b", "d"], order


def test_retryable_failures_are_tried_again():
    with World({"broker.max_attempts": 3}) as world:
        world.start("broker")
        worker = world.worker("paint")
        worker.hello()
        job = world.call("jobs", "submit", kind="paint", source="wall")
        for failures in range(3):
            held = worker.job()
            assert held["failures"] == failures, held
            worker.fail(held, "network", "the paint did not come")
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=10)
        assert (ended["status"], ended["error_type"], ended["failures"]) == ("error", "network", 3), ended
        held = None
        world.call("jobs", "retry", id=job["id"])
        held = worker.job()
        assert held["id"] == job["id"] and held["failures"] == 0
        worker.fail(held, "not_found", "there is no such paint")
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=10)
        assert (ended["status"], ended["error_type"]) == ("error", "not_found"), "a permanent failure is not retried"


def test_gates_hold_jobs_back():
    with World() as world:
        world.start("broker")
        client = world.client()
        client.call("broker", "set", gate="host:shop", limit=1)
        for number in range(2):
            client.call("jobs", "submit", kind="paint", source=str(number), gates=["host:shop"])
        worker = world.worker("paint", slots=5)
        worker.hello()
        held = worker.job()
        assert worker.receive(0.5) is None, "the gate lets one through"
        other = client.call("jobs", "list", status="enqueued")
        why = client.call("jobs", "why", id=other[0]["id"])
        assert why["gates"][0]["gate"] == "host:shop" and why["why"], why
        client.call("broker", "set", gate="host:shop", closed_for_s=0.5)
        worker.done(held)
        assert worker.receive(0.3) is None, "the gate is closed"
        assert worker.job(10)["attempt"] == 1, "waiting at a gate uses up nothing"


def test_terms_reach_a_worker_that_understands_them():
    """A limit of a host is shared as connections: raised at once, lowered when the worker says so."""
    with World() as world:
        world.start("broker")
        world.call("broker", "set", gate="host:shop", limit=3)
        world.call("broker", "set", bytes_per_s=9000)
        one, two = (world.worker("download", terms=True) for _ in range(2))
        one.hello()
        first = world.call("jobs", "submit", kind="download", source="http://shop/1", spec={"bytes_per_s": 500})["id"]
        held = one.job()
        assert (held["connections"], held["bytes_per_s"], one.bytes_per_s) == (3, 500, 9000), held
        two.hello()
        second = world.call("jobs", "submit", kind="download", source="http://shop/2")["id"]
        one.terms_of(held, lambda: held["connections"] == 2)
        assert "3 of 3 connections are in use by 1 job" in world.call("jobs", "why", id=second)["why"]
        assert two.receive(0.3) is None, "the third connection is still the first worker's"
        one.confirm(held)
        other = two.job()
        assert (other["connections"], two.bytes_per_s) == (1, 4500), other
        one.terms_of(held, lambda: one.bytes_per_s == 4500)
        world.call("broker", "set", gate="host:shop", closed_for_s=30)
        one.terms_of(held, lambda: 25 < held["hold_s"] <= 30)
        world.call("broker", "set", job=first, bytes_per_s=0)
        one.terms_of(held, lambda: not held["bytes_per_s"])
        one.done(held)
        two.terms_of(other, lambda: other["connections"] == 3 and two.bytes_per_s == 9000)


def test_follower_sees_a_broker_restart():
    with World() as world:
        broker = world.start("broker")
        client = world.client()
        follower = Follower(client, world.events())
        client.call("jobs", "submit", kind="nothing", source="before")
        stream = follower.follow(60)
        first = next(event for event in stream if event["event"] == "job_enqueued")
        broker.kill()
        world.start("broker")
        world.call("jobs", "submit", kind="nothing", source="after")
        second = next(event for event in stream if event["event"] == "job_enqueued")
        assert second["source"] == "after" and second["seq"] > first["seq"] and second["epoch"] != first["epoch"]


def test_text_that_is_no_utf8_hurts_nobody():
    """A strict reader of msgpack (this one) sees '?' for it; the worker gets what was submitted."""
    source = b"caf\xe9"

    def submit(client, kind):
        number = next(client.ids)
        body = msgpack.packb({"id": number, "op": "submit", "args": {"kind": kind, "source": source}}, use_bin_type=False)
        client.socket.send_multipart([b"", b"MDPC02", b"\x01", b"jobs", body])
        return client.receive(number)

    with World() as world:
        world.start("broker")
        client, events = world.client(), world.events("job_", "worker_", "broker_beat")
        events.ready()
        assert submit(client, "k")["source"] == "caf?"
        assert [job["source"] for job in client.call("jobs", "list")] == ["caf?"]
        worker = world.worker("k", name="w\udce9".encode(errors="surrogateescape"))
        worker.send = lambda command, **body: worker.socket.send_multipart(
            [b"", b"LADEW1", command, msgpack.packb(body, use_bin_type=False)])
        worker.hello()
        assert events.until(lambda event: event["event"] == "worker_joined")[-1]["topic"] == "worker_joined/w?/"
        assert [worker["name"] for worker in client.call("broker", "workers")] == ["w?"]
        _, _, command, body = worker.socket.recv_multipart()
        while command != b"\x0a":
            _, _, command, body = worker.socket.recv_multipart()
        assert source in body


def test_cancel_reaches_the_worker():
    with World() as world:
        world.start("broker")
        worker = world.worker("paint")
        worker.hello()
        job = world.call("jobs", "submit", kind="paint", source="wall")
        held = worker.job()
        assert world.call("jobs", "cancel", id=job["id"])
        command, body = worker.receive(10)
        assert command == b"\x0b" and (body["id"], body["attempt"]) == (job["id"], held["attempt"])
        worker.fail(held, "cancelled", "as asked")
        worker.settle()
        assert world.call("jobs", "get", id=job["id"])["status"] == "cancelled"


