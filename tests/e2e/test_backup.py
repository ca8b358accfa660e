"""`lade backup` of a broker that is busy, and `lade restore`: all that was acknowledged is in it, and nothing else is touched."""
import os
import shutil
import threading

from lib.apart import mount, on_small_disk
from lib.world import LadeError, World

LIMIT_S = 180


def config(number, **more):
    return {"name": f"model {number:05d}", "type": "lora", "base": "sd-1", "format": "lycoris", "path": f"sd-1/lora/{number}.safetensors",
            "hash": f"h{number % 50}", "source": f"source {number % 20}", "tags": [f"tag {number % 7}", "all"], **more}


class Writers:
    """Submit jobs and add, change and remove records all the time; `acknowledged` is what they know to be there."""

    def __init__(self, world, count=3):
        self.world, self.stopped, self.failed = world, threading.Event(), []
        self.records, self.jobs, self.lock, self.written = {}, {}, threading.Lock(), 0
        self.moving = threading.Condition(self.lock)
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self, number):
        client = self.world.client()
        try:
            at = number * 100000
            while not self.stopped.is_set():
                at += 1
                record = client.call("store", "add_model", config=config(at))
                job = client.call("jobs", "submit", kind="nothing", source=f"job {at}")
                if at % 5 == 0:
                    record = client.call("store", "update_model", key=record["key"], config={"tags": ["changed"], "name": f"changed {at}"})
                with self.lock:
                    self.records[record["key"]] = record
                    self.jobs[job["id"]] = job["source"]
                    self.written += 1
                    self.moving.notify_all()
        except Exception as error:  # noqa: BLE001
            self.failed.append(error)
            with self.lock:
                self.moving.notify_all()

    def snapshot(self):
        with self.lock:
            return dict(self.records), dict(self.jobs)

    def more(self, count):
        """Waits until they have written that many more."""
        with self.lock:
            until = self.written + count
            assert self.moving.wait_for(lambda: self.failed or self.written >= until, 60), "the writers stand still"
        assert not self.failed, self.failed

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        assert not self.failed, self.failed


def check_whole(world, records, jobs):
    """Everything acknowledged is there, and the indexes agree with the records."""
    there = {}
    while page := world.call("store", "all_models", limit=1000, offset=len(there)):
        there.update((record["key"], record) for record in page)
    for key, record in records.items():
        assert there[key]["path"] == record["path"] and there[key]["version"] >= record["version"], (there.get(key), record)
    for number, source in jobs.items():
        assert world.call("jobs", "get", id=number)["source"] == source
    return there


def check_indexes(world, there):
    client = world.client()
    tags = {}
    for record in there.values():
        for tag in record["tags"]:
            tags.setdefault(tag, set()).add(record["key"])
    for tag, keys in tags.items():
        found = set()
        while page := client.call("store", "search_by_tag", tags=[tag], limit=1000, offset=len(found)):
            found |= {record["key"] for record in page}
        assert found == keys, tag
    for record in list(there.values())[::7]:
        assert client.call("store", "search_by_path", path=record["path"])["key"] == record["key"]
        assert [one["key"] for one in client.call("store", "search_by_name", name=record["name"])] == [record["key"]]


def test_backup_of_a_busy_broker():
    """Three writers, two backups; each restored elsewhere has all that was acknowledged before it began."""
    with World() as world:
        world.start("broker")
        writers = Writers(world)
        backups = []
        for number in (1, 2):
            writers.more(120)
            records, jobs = writers.snapshot()
            file = os.path.join(world.folder, f"backup {number}")
            said = world.lade_json("backup", file)
            assert said["path"] == file and said["bytes"] == os.path.getsize(file) and said["models"] >= len(records), said
            assert os.stat(file).st_mode & 0o777 == 0o600
            backups.append((file, records, jobs))
        writers.more(50)
        writers.stop()
        assert sorted(os.listdir(world.folder)) == ["backup 1", "backup 2", "d", "home", "log"]
        for file, records, jobs in backups:
            with World() as other:
                said = other.lade_json("restore", file)
                assert said["data"] == other.data and said["aside"] is None, said
                assert sorted(os.listdir(other.data)) == ["keyspace", "lade.yaml"]
                other.start("broker")
                there = check_whole(other, records, jobs)
                assert len(there) == said["models"]
                check_indexes(other, there)
                # numbers given out after the backup are not given out again
                assert other.call("jobs", "submit", kind="nothing", source="new")["id"] > max(writers.jobs)
                assert other.call("broker", "status")["epoch"] > world.call("broker", "status")["epoch"]


def test_backup_does_not_block_the_loop():
    """While a large keyspace is copied requests are answered, a second backup is refused, and progress is told."""
    with World({"broker.beat_ms": 50}) as world:
        world.start("broker")
        client = world.client()
        fill(client, 1200)
        file = os.path.join(world.folder, "b")
        numbers = [client.send("broker", "backup", path=file, partial=True), client.send("broker", "backup", path=file + "2"),
                   *(client.send("store", "exists", key="x") for _ in range(50))]
        for number in numbers[2:]:
            assert client.receive(number) is False
        assert numbers[0] not in client.answers, "the backup was quicker than 50 look-ups"
        refused = error_of(client.receive, numbers[1])
        assert refused.code == "busy" and "backup" in str(refused), refused
        told = []
        said = client.receive(numbers[0], partial=told.append)
        assert said["models"] == 1200 and said["bytes"] > 1200 * 60000, said
        assert all(0 <= one["done"] <= said["bytes"] and one["total"] > 1200 * 60000 for one in told), told
        assert not os.path.exists(file + "2")
        # the copy is compact: it is made of what is there, not of what was
        for record in client.call("store", "all_models", limit=150):
            client.call("store", "del_model", key=record["key"])
        assert client.call("broker", "backup", path=file + "2")["bytes"] < said["bytes"] - 140 * 60000


def fill(client, count):
    text, sent = "x" * 60000, []
    for number in range(count):
        sent.append(client.send("store", "add_model", config=config(number, description=text)))
        if len(sent) > 50:
            client.receive(sent.pop(0))
    for number in sent:
        client.receive(number)


def error_of(call, *args, **more):
    try:
        call(*args, **more)
    except LadeError as error:
        return error
    raise AssertionError("it was not refused")


def test_backup_that_is_cut_off_leaves_nothing():
    """kill -9 in the middle: the folder is as it was, and the keyspace whole."""
    with World({"broker.beat_ms": 50}) as world:
        broker = world.start("broker")
        fill(world.client(), 1200)
        folder = os.path.join(world.folder, "backups")
        os.mkdir(folder)
        client = world.client()
        number = client.send("broker", "backup", path=os.path.join(folder, "b"), partial=True)
        client.call("store", "exists", key="x")
        broker.kill()
        assert os.listdir(folder) in ([], ["b"]), os.listdir(folder)
        finished = os.listdir(folder) == ["b"]
        world.start("broker")
        assert world.call("broker", "status")["models"] == 1200
        if finished:  # it was quicker than the signal: then it is whole
            os.rename(os.path.join(folder, "b"), os.path.join(folder, "c"))
            with World() as other:
                assert other.lade_json("restore", os.path.join(folder, "c"))["models"] == 1200


def test_backup_refuses():
    """A name that is taken, a folder that is not there, a relative path on the wire: told, and nothing is written."""
    with World() as world:
        world.start("broker")
        world.call("store", "add_model", config=config(1))
        file = os.path.join(world.folder, "mine")
        with open(file, "w", encoding="ascii") as out:
            out.write("mine")
        done = world.lade("backup", file, status=1)
        assert "overwrite" in done.stderr, done.stderr
        assert open(file, encoding="ascii").read() == "mine"
        assert world.lade("backup", os.path.join(world.folder, "none", "b"), status=3).stderr
        assert error_of(world.call, "broker", "backup", path="b").code == "ValueError"
        assert sorted(os.listdir(world.folder)) == ["d", "home", "log", "mine"]
        assert world.lade_json("backup", file, "--overwrite")["models"] == 1
        done = world.lade("backup", file, "--overwrite")
        assert "1 models" in done.stdout, done.stdout
        assert sorted(os.listdir(world.folder)) == ["d", "home", "log", "mine"]


def test_restore_refuses():
    """What is no backup, cut short, changed, newer, or of a running broker: told which, and the keyspace is as it was."""
    with World() as world:
        broker = world.start("broker")
        world.call("store", "add_model", config=config(1))
        file = os.path.join(world.folder, "b")
        world.lade("backup", file)
        whole = open(file, "rb").read()
        at = whole.rindex(b"schema ")

        def variant(name, content):
            path = os.path.join(world.folder, name)
            with open(path, "wb") as out:
                out.write(content)
            return path

        assert "running" in world.lade("restore", file, "--force", status=1).stderr
        broker.stop()
        before = {name: open(os.path.join(world.data, "keyspace", name), "rb").read() for name in os.listdir(os.path.join(world.data, "keyspace"))}
        done = world.lade("restore", file, status=1)
        assert "--force" in done.stderr, done.stderr
        for name, content, code, words in (
                ("empty", b"", "corrupt", "no backup"),
                ("text", b"hello " * 1000, "corrupt", "no backup"),
                ("short", whole[:len(whole) // 2], "corrupt", "no backup"),
                ("short end", whole[:-1], "corrupt", "no backup"),
                ("hole", whole[:8192] + whole[12288:], "corrupt", "changed after"),
                ("rotten", whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:], "corrupt", "sha256"),
                ("newer", whole[:at] + b"schema 9" + whole[at + len("schema 1"):], "schema_too_new", "newer"),
                ("sqlite", b"SQLite format 3\0" + bytes(4096), "corrupt", "no backup"),
                ("keyspace", before["data.mdb"], "corrupt", "no backup")):
            error = world.lade_json("restore", variant(name, content), "--force", status=1)["error"]
            assert error["code"] == code and words in error["message"], (name, error)
        assert world.lade_json("restore", os.path.join(world.folder, "none"), status=3)["error"]["code"] == "not_found"
        after = {name: open(os.path.join(world.data, "keyspace", name), "rb").read() for name in os.listdir(os.path.join(world.data, "keyspace"))}
        assert before == after and not [name for name in os.listdir(world.data) if name.startswith("keyspace.")], os.listdir(world.data)


def test_restore_keeps_aside():
    """With --force the old keyspace is kept, whole, and can be put back."""
    with World() as world:
        broker = world.start("broker")
        first = world.call("store", "add_model", config=config(1))
        file = os.path.join(world.folder, "b")
        world.lade("backup", file)
        second = world.call("store", "add_model", config=config(2))
        broker.stop()
        said = world.lade_json("restore", file, "--force")
        assert os.path.dirname(said["aside"]) == world.data and os.path.isdir(said["aside"]), said
        broker = world.start("broker")
        assert [record["key"] for record in world.call("store", "all_models")] == [first["key"]]
        broker.stop()
        shutil.rmtree(os.path.join(world.data, "keyspace"))
        os.rename(said["aside"], os.path.join(world.data, "keyspace"))
        world.start("broker")
        assert {record["key"] for record in world.call("store", "all_models")} == {first["key"], second["key"]}


def test_backup_has_no_secrets():
    """The token of a job that waits is in no byte of the backup; after a restore the job is there and says what it lacks."""
    with World() as world:
        world.start("broker")
        token = "hf_" + "verysecret" * 3
        job = world.call("download", "create_download_job", source="http://127.0.0.1:1/x", destdir=world.folder, filename="x",
                         access_token=token, start=False)
        file = os.path.join(world.folder, "b")
        world.lade("backup", file)
        assert token.encode() not in open(file, "rb").read()
        with World() as other:
            other.lade("restore", file)
            other.start("broker")
            assert other.call("download", "id_to_job", id=job["id"])["status"] == "idle"


@on_small_disk
def test_backup_on_a_full_disk():
    """no_space, nothing is left there, the broker goes on."""
    with World() as world:
        small = os.path.join(world.folder, "small")
        mount(small, "1m")
        broker = world.start("broker")
        fill(world.client(), 100)
        error = error_of(world.call, "broker", "backup", path=os.path.join(small, "b"))
        assert error.code == "no_space", error
        assert os.listdir(small) == [] and broker.alive
        assert world.call("broker", "backup", path=os.path.join(world.folder, "b"))["models"] == 100
