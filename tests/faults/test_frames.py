"""Malformed frames to both sockets never stop the broker, nor disturb anybody else."""
import os
import random

import msgpack
import zmq

from lib.world import SANITIZED, LadeError, World

LIMIT_S = 180
HEADS = {"clients": b"MDPC02", "workers": b"LADEW1"}
OPS = {
    "store": "add_model update_model del_model get_model exists search_by_path search_by_name search_by_tag search_by_hash search_by_key list_models all_models "
             "model_info_by_name version",
    "jobs": "submit get list cancel pause start retry purge wait why",
    "install": "heuristic_import import_model list_jobs get_job_by_id get_job_by_source cancel_job prune_jobs wait_for_job "
               "wait_for_installs unregister delete register_path install_path unconditionally_delete download_and_cache list_cache clear_cache convert "
               "scan_directory sync_to_config verify metadata",
    "download": "create_download_job submit_download_job list_jobs id_to_job start_job pause_job cancel_job start_all_jobs "
                "pause_all_jobs cancel_all_jobs prune_jobs wait_for_job join",
    "load": "load_model_by_key load_model_by_attr load_model_by_config lock unlock unload cache_stats",
    "events": "since snapshot",
    "broker": "status workers metrics gates set backup check",
}
ARGS = ("id ids key config path name base type tags source kind spec priority token requires gates start timeout_s limit "
        "offset seq prefixes gate closed_for_s job destination destdir filename sha256 size lease submodel parent status all "
        "lock pid ttl_s context access_token inplace wait").split()
ODD = (None, True, False, 0, -1, 1, 2**63 - 1, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"), -1e308, "", "x", "../..",
       "a" * 5000, "\u0000", "\ud7ff", b"", b"\xff\xfe", [], [[]], {}, {"a": {}}, [None] * 50, {"": ""}, "ipc://x",
       [1, "a", None, {}], {"type": 1, "base": [], "name": {}})


def raw(world, name):
    made = zmq.Context.instance().socket(zmq.DEALER)
    made.linger = 0
    made.connect(world.endpoint(name))
    world.sockets.append(made)
    return made


def still_there(world, broker):
    assert broker.alive, broker.tail()
    assert world.call("store", "version") == "3.2"
    assert world.call("broker", "status")["version"]


def nested(depth):
    return b"\x91" * depth + b"\xc0"


def deep_map(depth):
    return b"\x81\xa1a" * depth + b"\xc0"


def garbage(rng):
    """One message: frames of the right form with something wrong in them, or of no form at all."""
    body = rng.choice((
        lambda: rng.randbytes(rng.randrange(300)),
        lambda: nested(rng.choice((17, 1000, 100000))),
        lambda: deep_map(rng.choice((17, 1000, 50000))),
        lambda: b"\xdf\xff\xff\xff\xff",             # a map that says it has four thousand million members
        lambda: b"\xdd\x7f\xff\xff\xff" + b"\x01" * 20,
        lambda: b"\xdb\xff\xff\xff\xff" + b"a" * 50,
        lambda: b"\xc1",
        lambda: b"",
        lambda: msgpack.packb({"id": 1, "op": "status", "args": {}})[:rng.randrange(1, 18)],
        lambda: msgpack.packb({"id": 1, "op": "status", "args": {}}) + b"more",
        lambda: msgpack.packb(rng.choice(ODD)),
        lambda: msgpack.packb({"id": rng.choice(ODD), "op": rng.choice(ODD), "args": rng.choice(ODD)}),
        lambda: msgpack.packb({1: 2, None: 3}),
    ))()
    return rng.choice((
        lambda head: [b"", head, bytes([rng.randrange(256)]), rng.randbytes(rng.randrange(20)), body],
        lambda head: [b"", head, b"\x01", rng.choice((b"store", b"jobs", b"broker", b"mmi.service", b"mmi.x", b"")), body],
        lambda head: [b"", head, bytes([rng.randrange(1, 14)]), body],
        lambda head: [b"", head, b"\x01", body],
        lambda head: [b"", head],
        lambda head: [b""],
        lambda head: [b"", b"", b"", b""],
        lambda head: [head, b"\x01", b"store", body],
        lambda head: [b"", rng.randbytes(6), b"\x01", b"store", body],
        lambda head: [b"", head, b"\x01", b"store", body] + [b"x"] * rng.randrange(1, 200),
        lambda head: [rng.randbytes(rng.randrange(50)) for _ in range(rng.randrange(1, 8))],
    ))


def test_random_frames_to_both_sockets():
    seed = int(os.environ.get("LADE_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    with World() as world:
        broker = world.start("broker")
        for _ in range(10):
            for name, head in HEADS.items():
                made = raw(world, name)
                for _ in range(300):
                    made.send_multipart(garbage(rng)(head))
                    while made.poll(0):
                        made.recv_multipart()
            still_there(world, broker)
        assert world.call("store", "all_models") == []


def test_every_op_with_odd_arguments():
    """Each answers, and the answer to what is wrong is an error of the closed list."""
    with World() as world:
        broker = world.start("broker")
        client = world.client()
        rng = random.Random(1)
        sent = []
        for service, ops in OPS.items():
            for op in ops.split():
                if op in ("wait", "wait_for_job", "wait_for_installs", "join") or (service == "load" and op != "unlock"):
                    continue
                for name in ARGS:
                    for value in rng.sample(ODD, 4):
                        sent.append((service, op, {name: value}, client.send(service, op, **{name: value})))
                for _ in range(10):
                    args = {name: rng.choice(ODD) for name in rng.sample(ARGS, 6)}
                    sent.append((service, op, args, client.send(service, op, **args)))
        client.call("jobs", "cancel", all=True)  # what waits for a job is answered as well
        for service, op, args, number in sent:
            try:
                client.receive(number, 60)
            except LadeError as error:
                assert error.code not in ("broker_unreachable", "internal"), (service, op, args, error)
                assert error.message, (service, op, args)
        still_there(world, broker)
        world.call("jobs", "cancel", all=True)
        process = broker
        process.stop()
        world.processes.remove(process)
        still_there(world, world.start("broker"))


def test_unknown_services_and_ops_are_answered():
    with World() as world:
        world.start("broker")
        client = world.client()
        assert client.serves("store") and not client.serves("nothing")
        for service, op, code in (("nothing", "get", "unknown_service"), ("store", "nothing", "unknown_op")):
            try:
                client.call(service, op)
            except LadeError as error:
                assert error.code == code, error
            else:
                raise AssertionError(f"{service}.{op} was answered")


def test_too_large_message():
    """Over the ceiling: the sender is dropped or told so; others notice nothing."""
    with World({"broker.max_message_bytes": 65536}) as world:
        broker = world.start("broker")
        before = broker.memory_kb()
        for name, head in HEADS.items():
            made = raw(world, name)
            made.send_multipart([b"", head, b"\x01", b"store", b"\xdb\x10\x00\x00\x00" + b"a" * (64 << 20)])
            made.poll(500)
        still_there(world, broker)
        assert SANITIZED or broker.memory_kb() - before < 100 * 1024, "the broker kept what it refused"
        # A little over is answered, far over ends the connection.
        try:
            world.client().call("store", "add_model", timeout_s=5, config={"name": "a" * 65536})
        except LadeError as error:
            assert error.code == "too_large" and "max_message_bytes" in error.message, error
        else:
            raise AssertionError("a body over the ceiling was taken")


def test_worker_frames_that_lie():
    """Reports about jobs that are not its own, in words no worker says."""
    with World({"broker.beat_ms": 100}) as world:
        broker = world.start("broker")
        liar, honest = world.worker("paint"), world.worker("paint")
        honest.hello()
        job = world.call("jobs", "submit", kind="paint", source="wall")
        held = honest.job()
        liar.hello()
        for attempt in (held["attempt"], held["attempt"] + 1, -1, 2**63, "x", None):
            for command in range(1, 14):
                liar.send(bytes([command]), n=1, id=held["id"], attempt=attempt, result={"colour": "red"}, jobs=[held["id"]],
                          name=honest.name, kinds=["paint"], slots=2**40, effects=[{"op": "del_model", "key": None}],
                          code="x", message=5, state=3, gate="host:x", closed_for_s=-1)
        still_there(world, broker)
        honest.done(held, {"colour": "green"})
        honest.settle()
        ended = world.call("jobs", "get", id=job["id"])
        assert ended["status"] in ("completed", "enqueued", "running", "waiting"), ended
        assert (ended.get("result") or {}).get("colour") != "red", "a report of a worker that does not hold the job was believed"


def test_more_requests_than_are_taken_in_at_once_are_all_answered():
    """While a peer waits until it is read again, its silence is not taken for a dead link, however short the beats."""
    with World({"broker.beat_ms": 50}) as world:
        world.start("broker")
        client, text = world.client(), "x" * 60000
        for turn in range(2):
            sent = [client.send("store", "add_model", config={"name": "n", "type": "lora", "base": "sd-1", "format": "lycoris",
                                                              "path": f"{turn}/{number}", "description": text})
                    for number in range(1500)]
            for number in sent:
                client.receive(number, 60)


def test_full_queue_says_so():
    with World({"broker.max_queue": 50}) as world:
        world.start("broker")
        client = world.client()
        jobs = [client.call("jobs", "submit", kind="nothing", source=f"s{number}")["id"] for number in range(50)]
        for _ in range(3):
            try:
                client.call("jobs", "submit", kind="nothing", source="one more")
            except LadeError as error:
                assert error.code == "queue_full", error
            else:
                raise AssertionError("the fifty-first job was taken")
        client.call("jobs", "cancel", id=jobs[0])
        assert client.call("jobs", "submit", kind="nothing", source="one more")["id"]


def test_many_clients_come_and_go():
    """Two thousand connections, each asks and leaves, some without reading their answer."""
    with World() as world:
        broker = world.start("broker")
        world.call("broker", "status")
        before = broker.memory_kb()
        for number in range(2000):
            made = zmq.Context.instance().socket(zmq.DEALER)
            made.linger = 0
            made.connect(world.endpoint("clients"))
            made.send_multipart([b"", b"MDPC02", b"\x01", b"store", msgpack.packb({"id": 1, "op": "version", "args": {}})])
            if number % 2:
                assert made.poll(5000)
            made.close()
        still_there(world, broker)
        assert SANITIZED or broker.memory_kb() - before < 64 * 1024
