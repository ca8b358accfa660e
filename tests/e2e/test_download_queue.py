"""The download queue of the seed, behaviour by behaviour, through a C program that uses liblade."""
import os
import re
import subprocess

from lib import weights
from lib.world import BUILD, ROOT, LadeError, World

LIMIT_S = 120
RATE = 400000
HERE = os.path.dirname(os.path.abspath(__file__))


def sanitizers():
    """What the library was built with, which a program that uses it needs too."""
    with open(os.path.join(BUILD, "liblade.so.0"), "rb") as file:
        library = file.read()
    found = [name for name, symbol in (("address", b"__asan_init"), ("thread", b"__tsan_init"),
                                       ("undefined", b"__ubsan_handle")) if symbol in library]
    return [f"-fsanitize={','.join(found)}"] if found else []


class Failed(Exception):
    def __init__(self, code, words):
        super().__init__(f"{code}: {words}")
        self.code, self.words = code, words


class Queue:
    """queue_driver.c: its queues by number; told is what its handlers were told since the last look."""

    def __init__(self, world):
        program = os.path.join(world.folder, "driver")
        subprocess.run(["cc", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", *sanitizers(), "-I", ROOT, "-o", program,
                        os.path.join(HERE, "queue_driver.c"), "-L", BUILD, "-llade", f"-Wl,-rpath,{BUILD}"], check=True)
        self.popen = subprocess.Popen([program, world.data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      env=world.environment())
        self.told = []
        world.sockets.append(self)

    def __call__(self, op, *args, queue=0, **options):
        words = [str(queue), op, *map(str, args)]
        for name, value in options.items():
            words += [f"{name}={one}" for one in (value if isinstance(value, list) else [value])]
        self.popen.stdin.write(" ".join(words) + "\n")
        self.popen.stdin.flush()
        for line in self.popen.stdout:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "told":
                who, number, status, bytes_, total = rest.split()
                self.told.append((who, int(number), status, int(bytes_), int(total)))
            elif kind == "error":
                code, _, words = rest.partition(" ")
                raise Failed(code, words)
            else:
                return rest
        raise AssertionError(f"the program ended with status {self.popen.wait()}")

    def job(self, op, *args, **options):
        """The fields an op answers."""
        text = self(op, *args, **options)
        number, status = text.split()[:2]
        fields = dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", text))
        return {**fields, "id": int(number), "status": status}

    def statuses(self, number, who="queue"):
        """What was told of a job, each status once in a row; and forgets it."""
        found = []
        for one in self.told:
            if one[0] == who and one[1] == number and found[-1:] != [one[2]]:
                found.append(one[2])
        self.told = [one for one in self.told if not (one[0] == who and one[1] == number)]
        return found

    def until(self, wanted, limit=600):
        for _ in range(limit):
            if wanted():
                return
            self("run", 0.05)
        raise AssertionError(f"it did not come: {self.told[-5:]}")

    def close(self):
        self.popen.stdin.close()
        self.popen.wait(20)
        self.popen.stdout.close()


def refused(code, call, *args, **options):
    try:
        call(*args, **options)
    except (Failed, LadeError) as error:
        assert error.code == code, (error.code, str(error))
        return str(error)
    raise AssertionError(f"{code} was expected")


def big(world, name="x.bin", size=2000000, seed=1):
    return weights.write_safetensors(world.hub.file(name), {"a": ("U8", (size,))}, seed=seed)


def url(world, name="x.bin"):
    return f"{world.hub.url}/files/{name}"


def out(world, *names):
    return os.path.join(world.folder, "out", *names)


def moving(queue, number, least=100000):
    queue.until(lambda: any(one[1] == number and one[2] == "running" and one[3] >= least for one in queue.told))


def test_fields_and_handlers_of_a_download():
    """enqueued once, running several times, completed once; the job's own handler before the queue's; times and sequence."""
    with World() as world:
        path = big(world)
        world.start("broker", "download")
        queue = Queue(world)
        world.hub.settings(throttle=2 * RATE)
        job = queue.job("create", source=url(world), destdir=out(world), filename="y.bin")
        assert job["status"] == "enqueued" and job["priority"] == "10" and job["destination"] == out(world, "y.bin"), job
        number = job["id"]
        ended = queue.job("wait", number, 60)
        size = os.path.getsize(path)
        assert ended["status"] == "completed" and ended["path"] == out(world, "y.bin"), ended
        assert int(ended["bytes"]) == int(ended["total"]) == size
        assert 0 < float(ended["started"]) <= float(ended["ended"]) and int(ended["sequence"]) >= 1
        calls = [one for one in queue.told if one[1] == number]
        assert [one[0] for one in calls] == ["own", "queue"] * (len(calls) // 2), calls
        mine = [one for one in calls if one[0] == "queue"]
        running = [one for one in mine if one[2] == "running"]
        assert [one[2] for one in mine] == ["enqueued"] + ["running"] * len(running) + ["completed"], mine
        assert len(running) >= 8 and all(one[4] in (0, size) for one in running), running
        assert [one[3] for one in running] == sorted(one[3] for one in running)
        assert weights.sha256(out(world, "y.bin")) == weights.sha256(path)


def test_idle_until_started():
    with World() as world:
        big(world)
        world.start("broker", "download")
        queue = Queue(world)
        number = queue.job("create", source=url(world), destdir=out(world), start=0)["id"]
        queue("run", 0.3)
        assert queue("list") == f"{number}:idle" and not queue.told
        refused("Timeout", queue, "wait", number, 0.2)
        queue("join", 5)  # what is idle is not waited for
        queue("start", number)
        queue("join", 60)
        assert queue.statuses(number) == ["enqueued", "running", "completed"]
        assert os.listdir(out(world)) == ["x.bin"]


def test_pause_and_start_go_on_where_it_was():
    with World() as world:
        path = big(world)
        world.start("broker", "download")
        queue = Queue(world)
        world.hub.settings(throttle=RATE)
        number = queue.job("create", source=url(world), destdir=out(world))["id"]
        moving(queue, number, 400000)
        assert queue.job("pause", number)["status"] == "paused"
        refused("ValueError", queue, "pause", number)
        queue("join", 5)
        world.hub.settings(throttle=0)
        queue("start", number)
        queue("wait", number, 60)
        assert queue.statuses(number) == ["enqueued", "running", "paused", "enqueued", "running", "completed"]
        assert world.hub.log()["totals"]["bytes"] < 1.7 * os.path.getsize(path)
        assert weights.sha256(out(world, "x.bin")) == weights.sha256(path)


def test_cancel_and_cancel_from_a_handler():
    with World() as world:
        for name in ("x.bin", "y.bin"):
            big(world, name)
        world.start("broker", "download")
        queue = Queue(world)
        world.hub.settings(throttle=RATE)
        first = queue.job("create", source=url(world), destdir=out(world))["id"]
        moving(queue, first)
        assert queue.job("cancel", first)["status"] == "cancelled"
        second = queue.job("create", source=url(world, "y.bin"), destdir=out(world))["id"]
        queue("cancels", second)
        assert queue.job("wait", second, 30)["status"] == "cancelled"
        for number in (first, second):
            assert queue.statuses(number)[-2:] == ["running", "cancelled"]
        world.eventually(lambda: os.listdir(out(world)) == [], 20)
        assert queue.job("cancel", first)["status"] == "cancelled"  # what has ended stays as it is


def test_handlers_can_be_cleared():
    with World() as world:
        big(world)
        world.start("broker", "download")
        queue = Queue(world)
        number = queue.job("create", source=url(world), destdir=out(world), start=0)["id"]
        queue("clear", number)
        queue("start", number)
        queue("join", 60)
        assert queue.statuses(number, "own") == [] and queue.statuses(number)[-1] == "completed"


def test_an_error_is_told_with_its_type_and_leaves_nothing():
    with World() as world:
        world.hub.file("x")
        world.start("broker", "download")
        queue = Queue(world)
        job = queue.job("create", source=url(world, "missing"), destdir=out(world))
        ended = queue.job("wait", job["id"], 30)
        assert ended["status"] == "error" and ended["error_type"] == "not_found" and ended["error"], ended
        assert float(ended["ended"]) > 0 and queue.statuses(job["id"])[-1] == "error"


def partials(world):
    return [name for name in os.listdir(out(world)) if name.endswith(".part")] if os.path.isdir(out(world)) else []


def failing(world, queue, **more):
    """A slow download whose digest will be wrong, under way."""
    big(world)
    world.hub.settings(throttle=RATE)
    job = queue.job("create", source=url(world), destdir=out(world), sha256="0" * 64, **more)
    moving(queue, job["id"])
    return job["id"]


def test_partial_downloads_of_a_failure_go():
    with World() as world:
        world.hub.file("x")
        world.start("broker", "download")
        queue = Queue(world)
        number = failing(world, queue)
        world.hub.settings(throttle=0)
        ended = queue.job("wait", number, 60)
        assert ended["error_type"] == "digest_mismatch" and ended["preserves"] == "0", ended
        world.eventually(lambda: partials(world) == [], 20)


def test_preserve_partial_downloads_changes_before_it_runs():
    """Queued behind a closed gate it is changed; the worker that gets the job later keeps to it."""
    with World() as world:
        world.hub.file("x")
        world.start("broker", "download")
        queue = Queue(world)
        big(world)
        world.call("broker", "set", gate="host:127.0.0.1", closed_for_s=60)
        number = queue.job("create", source=url(world), destdir=out(world), sha256="0" * 64)["id"]
        assert queue.job("preserve", number, 1)["preserves"] == "1"
        assert world.call("download", "id_to_job", id=number)["preserve_partial_downloads"] is True
        world.call("broker", "set", gate="host:127.0.0.1", closed_for_s=0)
        ended = queue.job("wait", number, 60)
        assert ended["error_type"] == "digest_mismatch", ended
        assert partials(world), os.listdir(out(world))
        refused("ValueError", queue, "preserve", number, 0)


def test_preserve_partial_downloads_changes_while_it_runs():
    with World() as world:
        world.hub.file("x")
        world.start("broker", "download")
        queue = Queue(world)
        number = failing(world, queue)
        queue("preserve", number, 1)
        world.hub.settings(throttle=0)
        assert queue.job("wait", number, 60)["error_type"] == "digest_mismatch"
        assert partials(world), os.listdir(out(world))


def test_lower_priorities_run_first_then_first_come():
    with World({"download.slots": 1}) as world:
        for i in range(5):
            big(world, f"{i}.bin", 1000, i)
        world.start("broker", "download")
        queue = Queue(world)
        made = [queue.job("create", source=url(world, f"{i}.bin"), destdir=out(world), priority=priority, start=0)
                for i, priority in enumerate((10, 10, 5, 20, 15))]
        queue("priority", made[4]["id"], 1)
        queue("start_all")
        queue("join", 60)
        order = sorted(made, key=lambda job: int(queue.job("find", job["id"])["sequence"]))
        assert [made.index(job) for job in order] == [4, 2, 0, 1, 3], order


def test_priority_changes_while_it_waits_at_a_gate():
    with World({"download.slots": 1}) as world:
        for i in range(3):
            big(world, f"{i}.bin", 1000, i)
        world.start("broker", "download")
        queue = Queue(world)
        world.call("broker", "set", gate="host:127.0.0.1", closed_for_s=60)
        made = [queue.job("create", source=url(world, f"{i}.bin"), destdir=out(world)) for i in range(3)]
        queue("priority", made[2]["id"], -1)
        world.call("broker", "set", gate="host:127.0.0.1", closed_for_s=0)
        queue("join", 60)
        order = sorted(range(3), key=lambda i: int(queue.job("find", made[i]["id"])["sequence"]))
        assert order == [2, 0, 1], order


def test_all_jobs_of_one_queue_and_no_other():
    """Two queues and a job of nobody's: all, list, join and prune know their own."""
    with World() as world:
        for i in range(4):
            big(world, f"{i}.bin", seed=i)
        world.start("broker", "download")
        queue = Queue(world)
        world.hub.settings(throttle=RATE)
        mine = [queue.job("create", source=url(world, f"{i}.bin"), destdir=out(world))["id"] for i in range(2)]
        other = queue.job("create", source=url(world, "2.bin"), destdir=out(world), queue=1)["id"]
        nobodys = world.call("download", "create_download_job", source=url(world, "3.bin"), destdir=out(world))["id"]
        for number in mine:
            moving(queue, number)
        queue("pause_all")
        assert queue("list") == " ".join(f"{number}:paused" for number in mine)
        assert queue("list", queue=1).split(":")[0] == str(other)
        assert world.call("jobs", "get", id=other)["status"] != "paused"
        refused("UnknownJobID", queue, "pause", other)
        refused("UnknownJobID", queue, "find", nobodys)
        refused("UnknownJobID", queue, "adopt", 9999)
        assert queue.job("adopt", nobodys, queue=2)["id"] == nobodys
        queue("cancel_all", queue=1)
        world.hub.settings(throttle=0)
        queue("start_all")
        queue("join", 60)
        queue("join", 60, queue=2)
        assert queue("list") == " ".join(f"{number}:completed" for number in mine)
        assert queue("list", queue=1) == f"{other}:cancelled"
        assert queue("prune") == "2" and queue("list") == ""
        refused("UnknownJobID", queue, "find", mine[0])
        left = [job["id"] for job in world.call("download", "list_jobs")]
        assert left == [other, nobodys], left


def test_equal_downloads_are_one_job():
    with World() as world:
        big(world)
        world.start("broker", "download")
        queue = Queue(world)
        first = queue.job("create", source=url(world), destdir=out(world), start=0)
        again = queue.job("create", source=url(world), destdir=out(world), queue=1)
        assert first["id"] == again["id"]


def test_places_and_names():
    """An existing folder as destination, a new file, a forced name, and content-disposition."""
    with World() as world:
        path = big(world, size=1000)
        world.start("broker", "download")
        queue = Queue(world)
        os.makedirs(out(world, "there"))
        places = [({"destination": out(world, "there")}, out(world, "there", "x.bin")),
                  ({"destination": out(world, "new", "file.bin")}, out(world, "new", "file.bin")),
                  ({"destdir": out(world, "dir"), "filename": "z.bin"}, out(world, "dir", "z.bin"))]
        for place, expected in places:
            number = queue.job("create", source=url(world), **place)["id"]
            ended = queue.job("wait", number, 30)
            assert ended["status"] == "completed" and ended["path"] == expected, ended
            assert weights.sha256(expected) == weights.sha256(path)


def test_local_paths_and_mirrors():
    with World() as world:
        path = big(world, size=1000)
        digest = weights.sha256(path)
        world.start("broker", "download")
        queue = Queue(world)
        moved = os.path.join(world.folder, "moved.bin")
        os.link(path, moved)
        number = queue.job("create", source=moved, destdir=out(world))["id"]
        assert queue.job("wait", number, 30)["status"] == "completed"
        assert not os.path.exists(moved) and weights.sha256(out(world, "moved.bin")) == digest
        number = queue.job("create", source=f"file://{path}", destdir=out(world))["id"]
        assert queue.job("wait", number, 30)["status"] == "completed" and os.path.exists(path)
        number = queue.job("create", source=url(world, "none"), mirror=[url(world)], destdir=out(world), filename="m.bin")["id"]
        assert queue.job("wait", number, 30)["status"] == "completed", queue.job("find", number)


def test_a_token_can_be_given_and_not_be_read():
    with World() as world:
        big(world, size=1000)
        world.start("broker", "download")
        queue = Queue(world)
        job = queue.job("create", source=url(world), destdir=out(world), token="s3cret", start=0)
        assert "s3cret" not in str(job)
        assert "s3cret" not in str(world.call("download", "list_jobs"))


def test_a_broker_that_restarts_loses_nothing():
    with World() as world:
        path = big(world)
        broker, _ = world.start("broker", "download")
        queue = Queue(world)
        world.hub.settings(throttle=RATE)
        number = queue.job("create", source=url(world), destdir=out(world))["id"]
        moving(queue, number)
        broker.kill()
        world.hub.settings(throttle=0)
        world.start("broker")
        assert queue.job("wait", number, 60)["status"] == "completed"
        assert queue.statuses(number)[-1] == "completed"
        assert weights.sha256(out(world, "x.bin")) == weights.sha256(path)


# ---------------------------------------------------------------------------------------------------
# Several files in one job


def three(world, size=2000000):
    """Three files below one folder, as `file=` words, and where they come from."""
    paths = {"a.bin": big(world, "a.bin", size, 1), "unet/b.bin": big(world, "b.bin", size, 2), "vae/c.bin": big(world, "c.bin", size, 3)}
    words = [f"{name},{os.path.getsize(path)},{url(world, os.path.basename(name))}" for name, path in paths.items()]
    return paths, words


def test_several_files_in_one_job():
    """One job: its total is known before the first byte, bytes add up, parts show, and what is there is what was meant."""
    with World() as world:
        paths, words = three(world)
        world.start("broker", "download")
        queue = Queue(world)
        world.hub.settings(throttle=2 * RATE)
        total = sum(os.path.getsize(path) for path in paths.values())
        number = queue.job("create", file=words, destdir=out(world))["id"]
        moving(queue, number, 500000)
        job = world.call("download", "id_to_job", id=number)
        assert job["status"] == "running" and job["total_bytes"] == total and job["download_path"] == out(world), job
        parts = job["progress"]["parts"]
        assert [part["local_path"] for part in parts] == [out(world, name) for name in paths], parts
        assert all(part["total_bytes"] for part in parts), parts
        world.hub.settings(throttle=0)
        ended = queue.job("wait", number, 60)
        assert ended["status"] == "completed" and int(ended["bytes"]) == int(ended["total"]) == total, ended
        told = [one for one in queue.told if one[0] == "queue" and one[1] == number and one[2] == "running"]
        assert all(one[4] == total for one in told[1:]), told[:3]
        assert queue.statuses(number) == ["enqueued", "running", "completed"]
        assert weights.tree(out(world)) == {name: weights.sha256(path) for name, path in paths.items()}
        result = world.call("jobs", "get", id=number)["result"]
        assert [part["path"] for part in result["parts"]] == [out(world, name) for name in paths], result
        assert queue("prune") == "1" and world.call("download", "list_jobs") == []  # with its parts


def test_several_files_are_paused_resumed_and_cancelled_together():
    with World() as world:
        paths, words = three(world)
        world.start("broker", "download")
        queue = Queue(world)
        world.hub.settings(throttle=RATE)
        number = queue.job("create", file=words, destdir=out(world))["id"]
        moving(queue, number, 300000)
        queue("pause", number)
        children = world.call("jobs", "list", parent=number)
        assert {child["status"] for child in children} == {"paused"}, children
        queue("start", number)
        queue.told.clear()
        moving(queue, number, 300000)
        queue("cancel", number)
        assert {child["status"] for child in world.call("jobs", "list", parent=number)} == {"cancelled"}
        world.eventually(lambda: weights.tree(out(world)) == {}, 20)


def test_a_failed_part_ends_the_job_and_a_retry_fetches_what_is_missing():
    with World() as world:
        paths, words = three(world)
        world.start("broker", "download")
        queue = Queue(world)
        world.hub.faults({"path": "*/a.bin", "action": "drip", "bytes_per_s": 200000},
                         {"path": "*/c.bin", "action": "status", "status": 404, "skip": 0})
        world.call("broker", "status")
        number = queue.job("create", file=words, destdir=out(world))["id"]
        ended = queue.job("wait", number, 60)
        assert ended["status"] == "error" and ended["error_type"] == "not_found", ended
        parts = {child["source"][-5]: child for child in world.call("jobs", "list", parent=number)}
        assert parts["c"]["status"] == "error" and parts["a"]["status"] == "cancelled", parts
        assert ended["error"] == parts["c"]["error"], (ended, parts["c"])
        world.eventually(lambda: not os.path.exists(out(world, "a.bin")), 20)
        world.hub.clear()
        done = parts["b"]["status"] == "completed"
        world.hub.log(reset=True)
        world.call("jobs", "retry", id=number)
        assert queue.job("wait", number, 60)["status"] == "completed"
        assert weights.tree(out(world)) == {name: weights.sha256(path) for name, path in paths.items()}
        asked = str(world.hub.log())
        assert not done or "/b.bin" not in asked, "a part that was there was fetched again"


def test_what_several_files_may_not_be():
    with World() as world:
        world.start("broker")
        ask = lambda **args: world.call("download", "create_download_job", **{"destdir": "/tmp/nowhere", **args})  # noqa: E731
        good = {"url": "http://127.0.0.1:1/a", "path": "a"}
        for path in ("/a", "../a", "a/../../b", "", "a//b", ".", "..", "a\\b", "C:a", "a/", "x" * 300, "a\nb"):
            said = refused("ValueError", ask, files=[good, {"url": good["url"], "path": path}])
            assert "only relative download paths accepted" in said and "files[1]" in said, (path, said)
        for wrong in ([], [1], [{"path": "a"}], [{"url": "ftp://x/a", "path": "a"}], [good, good], [{**good, "size": -1}],
                      [{**good, "sha256": 5}], [{**good, "url": "http://user:word@x/a"}], "a", {}):
            refused("ValueError", ask, files=wrong)
        for more in ({"filename": "x"}, {"sha256": "0" * 64}, {"size": 5}, {"destination": "/tmp/x"}, {"destdir": "relative"},
                     {"destdir": None}, {"source": ["http://x/a"]}):
            refused("ValueError", ask, files=[good], **more)
        assert world.call("download", "list_jobs") == []
        # Equal ones are one job, others are not.
        first = ask(files=[good], start=False)
        assert ask(files=[good])["id"] == first["id"]
        assert ask(files=[{**good, "path": "b"}], start=False)["id"] != first["id"]
        assert ask(source=good["url"], start=False)["id"] != first["id"]


def test_updates_that_make_no_sense():
    with World() as world:
        world.start("broker")
        job = world.call("download", "create_download_job", source="http://127.0.0.1:1/a", destdir="/tmp/nowhere", start=False)
        ask = lambda **args: world.call("download", "update_download_job", **args)  # noqa: E731
        refused("UnknownJobID", ask, id=99, priority=1)
        refused("ValueError", ask, id=job["id"])
        refused("ValueError", ask, id=job["id"], priority="high")
        refused("ValueError", ask, id=job["id"], preserve_partial_downloads=1)
        changed = ask(id=job["id"], priority=3, preserve_partial_downloads=True)
        assert changed["priority"] == 3 and changed["preserve_partial_downloads"] is True
        world.call("download", "cancel_job", id=job["id"])
        refused("ValueError", ask, id=job["id"], priority=1)
