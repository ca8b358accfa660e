"""The download queue as its specification has it: names, events and their order, priorities, waiting, pruning, partial files."""
import os
import time

from lib import weights
from lib.downloads import KIB, MIB, check_same, completed, ended, is_paused, moving, on_disk, submit, write_file
from lib.world import LadeError, World

LIMIT_S = 120
SETTINGS = {"download.slots": 64}

# What a server calls the file, the URL's last part, and the name it gets: the URL's where the server's will not do.
NAMES = [
    (None, "x.bin", "x.bin"),
    (None, "x.bin?z=1&y=/../w", "x.bin"),
    (None, "with%20blank.bin", "with blank.bin"),
    (None, "na%C3%AFve.bin", "naïve.bin"),
    ('attachment; filename="foo.safetensors"', "x.bin", "foo.safetensors"),
    ("attachment; filename*=UTF-8''na%C3%AFve.bin", "x.bin", "naïve.bin"),
    ('attachment; filename="plain.bin"; filename*=UTF-8\'\'better.bin', "x.bin", "better.bin"),
    *((f'attachment; filename="{name}"', "x.bin", "x.bin") for name in (
        "../evil", "..", ".", "", "/evil", "/etc/passwd", "sub/evil", "..\\evil", "sub\\\\evil", "C:\\evil", "a\x01b", "a\x7fb",
        "y" * 300)),
    ("attachment; filename*=UTF-8''..%2Fevil", "x.bin", "x.bin"),
    ("attachment; filename*=UTF-8''a%00b", "x.bin", "x.bin"),
    ("attachment", "x.bin", "x.bin"),
    ("complete; nonsense=\"", "x.bin", "x.bin"),
]


def test_names():
    """Each in a folder of its own, in which nothing else comes up, nor beside it."""
    with World(SETTINGS) as world:
        world.start("broker", "download")
        path = write_file(world.hub.file("x.bin"), 3000)
        jobs = []
        for number, (said, last, expected) in enumerate(NAMES):
            key = f"n{number}"
            plain = {"with%20blank.bin": "with blank.bin", "na%C3%AFve.bin": "naïve.bin"}.get(last, "x.bin")
            os.makedirs(world.hub.file(key))
            os.link(path, world.hub.file(f"{key}/{plain}"))
            if said is not None:
                world.hub.faults({"path": f"/files/{key}/*", "action": "headers", "headers": {"Content-Disposition": said}})
            jobs.append(submit(world, f"{world.hub.url}/files/{key}/{last}", os.path.join(world.folder, "out", key, "in"))["id"])
        wrong = []
        for number, (said, last, expected) in enumerate(NAMES):
            folder = os.path.join(world.folder, "out", f"n{number}")
            job = completed(world, jobs[number])
            if on_disk(os.path.join(folder, "in")) != ([expected], []) or os.listdir(folder) != ["in"]:
                wrong.append(f"{said!r}, {last}: {on_disk(os.path.join(folder, 'in'))} {os.listdir(folder)}, not {expected}")
            elif job["download_path"] != os.path.join(folder, "in", expected):
                wrong.append(f"{said!r}, {last}: download_path {job['download_path']}")
        assert not wrong, "\n".join(wrong)
        assert sorted(os.listdir(os.path.join(world.folder, "out"))) == sorted(f"n{number}" for number in range(len(NAMES)))


def test_names_nobody_can_use():
    """No name in the URL and none from the server, or a forced one that leads elsewhere: an error, and no file."""
    with World(SETTINGS) as world:
        world.start("broker", "download")
        write_file(world.hub.file("a/b"), 100)
        folder = os.path.join(world.folder, "out")
        for url, args in ((f"{world.hub.url}/files/a%2Fb", {}), (f"{world.hub.url}/files/a/..%2Fb", {}), (f"{world.hub.url}/", {}),
                          (f"{world.hub.url}/files/a/b", {"filename": "../b"}), (f"{world.hub.url}/files/a/b", {"filename": "c/b"}),
                          (f"{world.hub.url}/files/a/b", {"filename": ".."})):
            try:
                job = ended(world, submit(world, url, folder, **args)["id"])
                code = job["error_type"]
            except LadeError as error:
                code = error.code
            assert code in ("ValueError", "not_found"), (url, args, code)
            assert on_disk(folder) == ([], []), on_disk(folder)
        forced = submit(world, f"{world.hub.url}/files/a/b", folder, filename="mine.bin")
        assert completed(world, forced["id"])["download_path"] == os.path.join(folder, "mine.bin")


def events_of(world, number):
    events = world.call("events", "since", seq=0, limit=100000, prefixes=["download_"])["events"]
    return [event for event in events if event["id"] == number]


def test_events_in_their_order():
    """enqueued once, running and its progress, one end; the numbers fit; a 404 is one error and nothing on the disk."""
    with World(SETTINGS) as world:
        world.start("broker", "download")
        for name, size in (("empty.bin", 0), ("small.bin", 100), ("large.bin", 10 * MIB)):
            write_file(world.hub.file(name), size)
        world.hub.faults({"path": "/files/unknown.bin", "action": "ignore_range",
                          "headers": {"Content-Length": None, "Connection": "close"}})
        os.link(world.hub.file("small.bin"), world.hub.file("unknown.bin"))
        events = world.events("")
        events.ready()
        for name in ("empty.bin", "small.bin", "large.bin", "unknown.bin", "none.bin"):
            folder = os.path.join(world.folder, "out", name)
            job = submit(world, f"{world.hub.url}/files/{name}", folder)
            final = "download_error" if name == "none.bin" else "download_completed"
            seen = [event for event in events.until(lambda event: event["event"] == final and event["id"] == job["id"], 30)
                    if event["id"] == job["id"]]
            names = [event["event"] for event in seen]
            assert names[0] == "download_enqueued" and names.count("download_enqueued") == 1 and names[-1] == final, names
            assert set(names[1:-1]) <= {"download_running"}, names
            times = [event["timestamp"] for event in seen]
            assert times == sorted(times)
            assert len(names) <= 2 + 110, f"{len(names)} events of one transfer"
            if name == "none.bin":
                assert seen[-1]["error_type"] == "not_found" and on_disk(folder) == ([], []), seen[-1]
                continue
            size = os.path.getsize(world.hub.file(name))
            running = [event for event in seen if event["event"] == "download_running"]
            assert running and all(event["total_bytes"] in (0, size) and event["bytes"] <= size for event in running), running
            assert [event["bytes"] for event in running] == sorted(event["bytes"] for event in running), running
            assert seen[-1]["bytes"] == seen[-1]["total_bytes"] == size, seen[-1]
            assert seen[-1]["download_path"] == os.path.join(folder, name)
            check_same(seen[-1]["download_path"], world.hub.file(name))


def test_lower_priorities_first_then_first_come():
    with World({"download.slots": 1}) as world:
        write_file(world.hub.file("x.bin"), 1000)
        world.start("broker")
        ids = [submit(world, f"{world.hub.url}/files/x.bin", os.path.join(world.folder, "out", str(number)), priority=priority)["id"]
               for number, priority in enumerate((10, 10, 5, 20, 1, 5))]
        world.start("download")
        jobs = sorted((completed(world, number) for number in ids), key=lambda job: job["job_sequence"])
        order = [ids.index(job["id"]) for job in jobs]
        assert order == [4, 2, 5, 0, 1, 3], order


def test_submitted_and_not_started():
    """It stays idle, is listed, may be started or cancelled; pruning spares what lives."""
    with World(SETTINGS) as world:
        write_file(world.hub.file("x.bin"), 1000)
        world.start("broker", "download")
        url = f"{world.hub.url}/files/x.bin"
        idle = submit(world, url, os.path.join(world.folder, "a"), start=False)
        other = submit(world, url, os.path.join(world.folder, "b"), start=False)
        completed(world, submit(world, url, os.path.join(world.folder, "c"))["id"])
        assert idle["status"] == "idle" and world.hub.totals()["requests"] > 0
        assert len(world.call("download", "list_jobs")) == 3
        assert world.call("download", "prune_jobs")["purged"] == 1
        assert sorted(job["id"] for job in world.call("download", "list_jobs")) == sorted((idle["id"], other["id"]))
        world.call("download", "cancel_job", id=other["id"])
        world.call("download", "start_all_jobs")
        completed(world, idle["id"])
        assert world.call("download", "id_to_job", id=other["id"])["status"] == "cancelled"
        assert world.call("download", "prune_jobs")["purged"] == 2


def test_two_jobs_of_one_url():
    """Two destinations are two jobs, and both files come."""
    with World(SETTINGS) as world:
        path = write_file(world.hub.file("x.bin"), 5 * MIB)
        world.start("broker", "download")
        ids = [submit(world, f"{world.hub.url}/files/x.bin", os.path.join(world.folder, name))["id"] for name in ("a", "b")]
        assert ids[0] != ids[1]
        for number in ids:
            check_same(completed(world, number)["download_path"], path)


def test_a_name_that_is_taken():
    """Another file is never replaced; the same one, known by its digest, is as good as fetched."""
    with World(SETTINGS) as world:
        path = write_file(world.hub.file("x.bin"), 5 * MIB)
        world.start("broker", "download")
        for name, seed, size, args, outcome in (
            ("other", 2, 5 * MIB, {}, "exists"), ("shorter", 1, 4 * MIB, {}, "exists"),
            ("other with digest", 2, 5 * MIB, {"sha256": weights.sha256(path)}, "exists"),
            ("same with digest", 1, 5 * MIB, {"sha256": weights.sha256(path), "filename": "x.bin"}, "completed"),
        ):
            folder = os.path.join(world.folder, name)
            there = write_file(os.path.join(folder, "x.bin"), size, seed)
            before = weights.sha256(there)
            world.hub.log(reset=True)
            job = ended(world, submit(world, f"{world.hub.url}/files/x.bin", folder, **args)["id"])
            assert outcome in (job["status"], job["error_type"]), (name, job["status"], job["error_type"], job["error"])
            assert weights.sha256(there) == before and on_disk(folder) == (["x.bin"], []), name
            if outcome == "completed":
                assert world.hub.totals()["bytes"] == 0, "it was fetched though it was there"


def test_what_becomes_of_a_partial_file():
    """Cancelled: removed. Paused: kept. An error another try would not mend: removed, or kept where that was asked for."""
    with World({**SETTINGS, "download.stall_s": 20}) as world:
        write_file(world.hub.file("x.bin"), 6 * MIB)
        world.start("broker", "download")
        url = f"{world.hub.url}/files/x.bin"
        events = world.events("download_")
        world.hub.faults({"path": "/files/*", "action": "stall", "bytes": 300 * KIB})

        def begun(name, **args):
            job = submit(world, url, os.path.join(world.folder, name), start=False, **args)
            world.call("download", "start_job", id=job["id"])
            events.until(moving(job["id"], 1), 30)
            return job["id"], os.path.join(world.folder, name)

        number, folder = begun("cancelled")
        assert on_disk(folder)[1], "no partial beside the final name"
        world.call("download", "cancel_job", id=number)
        world.eventually(lambda: on_disk(folder) == ([], []), 20)

        number, folder = begun("paused")
        world.call("download", "pause_job", id=number)
        events.until(is_paused(number), 20)
        world.eventually(lambda: len(on_disk(folder)[1]) >= 2, 20)
        world.call("download", "cancel_job", id=number)
        world.eventually(lambda: on_disk(folder) == ([], []), 20)

        world.hub.clear()
        for name, args, kept in (("failed", {}, False), ("preserved", {"preserve_partial_downloads": True}, True)):
            folder = os.path.join(world.folder, name)
            job = ended(world, submit(world, url, folder, sha256="0" * 64, **args)["id"])
            assert job["error_type"] == "digest_mismatch", job
            shown, hidden = on_disk(folder)
            assert not shown and bool(hidden) == kept, (name, shown, hidden)


def test_waiting_and_joining():
    with World(SETTINGS) as world:
        write_file(world.hub.file("x.bin"), 300 * KIB)
        world.start("broker", "download")
        world.hub.settings(throttle=200 * KIB)
        number = submit(world, f"{world.hub.url}/files/x.bin", os.path.join(world.folder, "out"))["id"]
        client = world.client()
        began = time.monotonic()
        try:
            client.receive(client.send("download", "wait_for_job", id=number, timeout_s=0.3), 20)
            raise AssertionError("it did not wait")
        except LadeError as error:
            assert error.code == "Timeout" and 0.2 < time.monotonic() - began < 1.2, error
        client.receive(client.send("download", "join", timeout_s=30), 40)
        assert world.call("download", "id_to_job", id=number)["status"] == "completed"
