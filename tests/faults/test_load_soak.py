"""Random load, lock, unlock, kill and evict steps of eight clients, loader and keeper killed among them, files replaced.

LADE_SOAK_STEPS (150) says how many, LADE_SEED which. Whatever dies when: what a client sees is what is in the file, in the dtype
and layout it asked for, what it holds is not evicted, and in the end no lease, segment, descriptor or mapping is left.
"""
import hashlib
import json
import os
import random
import subprocess

import numpy

from lib.world import ROOT, World

LIMIT_S = 900
STEPS = int(os.environ.get("LADE_SOAK_STEPS", "150"))
CLIENTS, MODELS, CACHE_MB = 8, 10, 32
SETTINGS = {"broker.beat_ms": 100, "log_level": "info", "load.cache_mb": CACHE_MB}
WAYS = ({}, {}, {"dtype": "fp32"}, {"dtype": "bf16"}, {"layout": "channels_last"}, {"dtype": "fp16", "layout": "channels_last"})
SLACK = 2 << 20  # heads, indexes and whole pages of what is locked


# ---------------------------------------------------------------------------------------------------
# What is in a file, and what has to come out of it


def make_tensors(seed):
    """{name: array}: numbers, none of them without end or no number, so that every cast has one right answer."""
    source = numpy.random.default_rng(seed)
    half = {"decoder.conv.weight": (64, 32, 8, 8), "decoder.0.weight": (512, 1024), "decoder.1.weight": (512, 1024)}
    made = {name: source.standard_normal(shape, dtype=numpy.float32).astype(numpy.float16) for name, shape in half.items()}
    made["decoder.norm.weight"] = source.standard_normal(4096, dtype=numpy.float32)
    return made


def write_model(path, tensors):
    """Under its name when it is whole: a load meanwhile finds one file or the other."""
    header, at = {}, 0
    for name, array in tensors.items():
        dtype = {"float16": "F16", "float32": "F32"}[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    with open(path + ".new", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))
    os.replace(path + ".new", path)


def cast(array, dtype):
    """(dtype's name in the index, bytes)."""
    if dtype == "bf16":
        bits = array.astype(numpy.float32).view(numpy.uint32)
        return "BF16", ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16).tobytes()
    if dtype:
        array = array.astype({"fp32": numpy.float32, "fp16": numpy.float16}[dtype])
    return {"float16": "F16", "float32": "F32"}[array.dtype.name], array.tobytes()


def wanted_of(tensors, how):
    """({name: [dtype, sum]}, bytes)."""
    sums, size = {}, 0
    for name, array in tensors.items():
        if how.get("layout") and array.ndim == 4:
            array = array.transpose(0, 2, 3, 1)
        dtype, data = cast(numpy.ascontiguousarray(array), how.get("dtype"))
        sums[name] = [dtype, hashlib.sha256(data).hexdigest()]
        size += len(data)
    return sums, size


class Model:
    """A record and its file, which is replaced now and then: `version` counts that."""

    def __init__(self, world, number):
        self.path = os.path.join(world.folder, f"m{number}.safetensors")
        self.number, self.version, self.versions = number, 0, {}
        self.write()
        config = {"name": f"m{number}", "base": "sd-1", "type": "vae", "format": "checkpoint", "path": self.path}
        self.key = world.call("store", "add_model", config=config)["key"]

    def write(self):
        self.version += 1
        tensors = make_tensors(self.number * 1000 + self.version)
        write_model(self.path, tensors)
        self.versions[self.version] = [wanted_of(tensors, how) for how in WAYS]

    def wanted(self, version, way):
        return self.versions[version][way]


# ---------------------------------------------------------------------------------------------------
# Clients


class Held:
    """What a client holds: a model as it was then, in one of the WAYS."""

    def __init__(self, model, way, life, attached):
        self.model, self.version, self.way, self.life, self.attached = model, model.version, way, life, attached
        self.id = self.inode = None

    @property
    def size(self):
        return self.model.wanted(self.version, self.way)[1]

    @property
    def what(self):
        return self.model.key, self.version, self.way


class Peer:
    """One client process and what it holds: {number: Held}."""

    def __init__(self, world):
        self.world = world
        self.start()

    def start(self):
        self.held = {}
        argv = ["/usr/bin/python3", os.path.join(ROOT, "tests/faults/load_client.py"), self.world.endpoint("clients")]
        self.popen = subprocess.Popen(argv, env=self.world.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, word, what):
        self.popen.stdin.write(json.dumps([word, what]) + "\n")
        self.popen.stdin.flush()

    def receive(self):
        line = self.popen.stdout.readline()
        assert line, f"a client ended with status {self.popen.wait()}"
        return json.loads(line)

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        self.popen.stdout.close()


# ---------------------------------------------------------------------------------------------------
# What is left of segments


def traces(pid):
    """Descriptors of a process, and its mappings of segments."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        mapped = sum("memfd:lade" in line for line in file)
    return len(os.listdir(f"/proc/{pid}/fd")), mapped


def segments(pid):
    """{inode: bytes} of the segments that a process has descriptors of."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            if "memfd:lade" in os.readlink(path):
                status = os.stat(path)
                found[status.st_ino] = status.st_size
        except FileNotFoundError:
            pass
    return found


def who_has(inodes):
    """Processes that have or map one of these segments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                mapped = {int(line.split()[4]) for line in file if "memfd:lade" in line}
            if inodes & (mapped | set(segments(pid))):
                found.append(int(pid))
        except OSError:
            pass
    return found


# ---------------------------------------------------------------------------------------------------


class Soak:
    def __init__(self, world, seed):
        self.world, self.random = world, random.Random(seed)
        world.start("broker")
        self.keeper = world.start("keeper")
        self.gpu, self.life = world.start("gpu"), 1
        self.models = {model.key: model for model in (Model(world, number) for number in range(MODELS))}
        self.counts, self.inodes = {}, set()
        self.left = []  # [{what: size}]: what was let go of in each of the last turns; the loader may not have seen it yet
        self.settle()
        self.before = {"keeper": traces(self.keeper.pid), "gpu": traces(self.gpu.pid)}
        self.peers = [Peer(world) for _ in range(CLIENTS)]

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def all_held(self):
        return [held for peer in self.peers for held in peer.held.values()]

    def settle(self):
        """Until the broker knows one load worker, the living one, and that has said how it is."""

        def only():
            stats = self.world.call("load", "cache_stats")
            return len(stats) == 1 and f":{self.gpu.pid}-" in next(iter(stats)) and all(stats.values())

        self.world.eventually(only)

    def restart(self):
        self.gpu.kill()
        self.life += 1
        self.gpu = self.world.start("gpu")
        self.settle()

    def new_keeper(self):
        """It is told of all that is held; a loader that dies then has left it."""
        self.count("keeper killed")
        self.keeper.kill()
        self.keeper = self.world.start("keeper")
        held = {held.inode for held in self.all_held() if held.attached and held.version == held.model.version}
        self.world.eventually(lambda: held <= set(segments(self.keeper.pid)))

    # -----------------------------------------------------------------------------------------------

    def judge(self, peer, word, what, answer, locked):
        if answer.get("error") == "no_memory":  # with all that may have been locked it must really not fit
            assert sum(locked.values()) + SLACK > CACHE_MB << 20, (answer, locked)
            self.count("no room")
            return
        assert "error" not in answer, (word, answer)
        if word in ("free", "unlock"):
            self.left[-1].update({peer.held[what].what: peer.held[what].size})
            del peer.held[what]
            assert word == "free" or answer == {"answer": None}, answer
        elif word == "unload":
            assert 0 <= answer["unloaded"] <= len(WAYS) * 2, answer
        else:
            held = peer.held[what] if word == "check" else what
            if word != "check":
                held.id, held.inode = answer["id"], answer.get("inode")
                peer.held[answer["number"]] = held
            if word != "lease":
                wanted = held.model.wanted(held.version, held.way)[0]
                assert answer["key"] == held.model.key and answer["sums"] == wanted, (word, held.what, answer, wanted)
                assert answer["generation"] == held.id, (word, held.what, "another's pages")
                self.inodes.add(held.inode)

    def wish(self, peer):
        """(word, what is sent, what is judged)."""
        attached = [number for number, held in peer.held.items() if held.attached]
        leases = [number for number, held in peer.held.items() if not held.attached]
        words = (["load", "load", "lease"] if len(peer.held) < 2 else []) + (["check", "free", "free"] if attached else []) + \
            (["unlock"] * 2 if leases else []) + (["unload"] if self.random.random() < 0.3 else [])
        word = self.random.choice(words)
        if word in ("load", "lease"):
            model, way = self.random.choice(list(self.models.values())), self.random.randrange(len(WAYS))
            return word, [model.key, WAYS[way]], Held(model, way, self.life, word == "load")
        if word == "unload":
            key = self.random.choice(list(self.models))
            return word, key, key
        number = self.random.choice(leases if word == "unlock" else attached)
        return word, number, number

    def turn(self):
        """Some clients do something at once; now and then the loader dies meanwhile."""
        asked = []
        for peer in self.random.sample(self.peers, self.random.randint(1, CLIENTS)):
            word, what, judged = self.wish(peer)
            peer.send(word, what)
            self.count(word)
            asked.append((peer, word, judged))
        wished = [judged for _, _, judged in asked if isinstance(judged, Held)]
        locked = {held.what: held.size for held in self.all_held() + wished}
        for left in self.left:
            locked.update(left)
        self.left = self.left[-4:] + [{}]
        if self.random.random() < 0.06:
            self.count("loader killed at work")
            for held in wished:
                held.life = 0  # whichever had it: a lease may have died with it
            self.restart()
        for peer, word, judged in asked:
            self.judge(peer, word, judged, peer.receive(), locked)
        return len(asked)

    def evict(self):
        """Whatever may go goes; what is held is still there, by the name it had."""
        self.count("evict")
        self.world.call("load", "unload")
        for held in self.all_held():
            if held.version == held.model.version and (held.attached or held.life == self.life):
                answer = self.world.call("load", "load_model_by_key", key=held.model.key, **WAYS[held.way])
                assert answer["segment"]["id"] == held.id, (held.what, "what was locked was evicted")

    def kill_client(self):
        self.count("client killed")
        peer = self.random.choice(self.peers)
        self.left.append({held.what: held.size for held in peer.held.values()})  # they go when the loader sees it
        peer.kill()
        peer.start()

    def replace(self):
        self.count("file replaced")
        self.random.choice(list(self.models.values())).write()

    def kill_loader(self):
        self.count("loader killed")
        self.restart()

    def step(self):
        chance = self.random.random()
        for share, what in ((0.1, self.evict), (0.1, self.kill_client), (0.04, self.kill_loader), (0.03, self.replace),
                            (0.02, self.new_keeper)):
            if chance < share:
                what()
                return 1
            chance -= share
        return self.turn()

    # -----------------------------------------------------------------------------------------------

    def stats(self, wanted):
        def ask():
            (stats,) = self.world.call("load", "cache_stats").values()
            return stats if stats and wanted(stats) else None

        return self.world.eventually(ask)

    def end(self):
        for peer in self.peers:
            peer.kill()
        self.stats(lambda stats: stats["leases"] == 0 and not any(one["locks"] for one in stats["models"]))
        self.world.call("load", "unload")
        stats = self.stats(lambda stats: not stats["models"] and not stats["bytes"])
        assert stats["high_watermark"] <= stats["limit_bytes"] and stats["pool_bytes"] <= stats["limit_bytes"], stats
        self.world.eventually(lambda: not segments(self.keeper.pid))
        assert sum(segments(self.gpu.pid).values()) == stats["pool_bytes"], (segments(self.gpu.pid), stats)
        assert set(who_has(self.inodes)) <= {self.gpu.pid}, who_has(self.inodes)
        assert not [job for job in self.world.call("jobs", "list", limit=100000) if job["status"] in ("enqueued", "running", "waiting")]
        self.restart()  # the pool's pages are its own: without them it is as it was when it was new
        assert not who_has(self.inodes)
        for name, process in (("keeper", self.keeper), ("gpu", self.gpu)):
            assert traces(process.pid) == self.before[name], (name, traces(process.pid), self.before[name])


def test_random_steps():
    seed = int(os.environ.get("LADE_SEED") or random.randrange(1 << 30))
    print(f"seed {seed}, {STEPS} steps")
    with World(SETTINGS) as world:
        soak, done = Soak(world, seed), 0
        try:
            while done < STEPS:
                done += soak.step()
        finally:
            print(f"{done} steps: {soak.counts}")
            for peer in soak.peers:
                peer.popen.kill()
        soak.end()
