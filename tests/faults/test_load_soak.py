"""Random load, lock, unlock, kill and evict steps of eight clients, the loader killed among them.

LADE_SOAK_STEPS (150) says how many, LADE_SEED which. Whatever dies when: what a client sees is what is in the file, what it holds is
not evicted, and in the end no lease, segment, descriptor or mapping is left.
"""
import hashlib
import json
import os
import random
import subprocess

from lib import weights
from lib.world import ROOT, World

LIMIT_S = 900
STEPS = int(os.environ.get("LADE_SOAK_STEPS", "150"))
CLIENTS, MODELS, MODEL_MB, CACHE_MB = 8, 10, 3, 20
SETTINGS = {"broker.beat_ms": 100, "log_level": "info", "load.cache_mb": CACHE_MB}


class Peer:
    """One client process and what it holds: {number: (key, id)}."""

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


def traces(pid):
    """Descriptors of a process, and its mappings of segments."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        mapped = sum("memfd:lade" in line for line in file)
    return len(os.listdir(f"/proc/{pid}/fd")), mapped


class Soak:
    def __init__(self, world, seed):
        self.world, self.random = world, random.Random(seed)
        world.start("broker")
        self.keeper = world.start("keeper")
        self.gpu = world.start("gpu")
        self.expected, self.counts = {}, {}
        self.locked = set()  # keys that may be locked in this turn
        for number in range(MODELS):
            path = os.path.join(world.folder, f"m{number}.safetensors")
            weights.write_safetensors(path, {f"decoder.{n}.weight": ("F16", (512, 1024)) for n in range(MODEL_MB)}, seed=number)
            config = {"name": f"m{number}", "base": "sd-1", "type": "vae", "format": "checkpoint", "path": path}
            key = world.call("store", "add_model", config=config)["key"]
            self.expected[key] = {name: hashlib.sha256(entry[2]).hexdigest()
                                  for name, entry in weights.read_safetensors(path).items()}
        self.settle()
        self.before = {"keeper": traces(self.keeper.pid), "gpu": traces(self.gpu.pid)}
        self.peers = [Peer(world) for _ in range(CLIENTS)]

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def settle(self):
        """Until the broker knows one load worker, the living one, and that has said how it is."""

        def only():
            stats = self.world.call("load", "cache_stats")
            return len(stats) == 1 and f":{self.gpu.pid}-" in next(iter(stats)) and all(stats.values())

        self.world.eventually(only)

    def restart(self):
        self.gpu.kill()
        self.gpu = self.world.start("gpu")
        self.settle()

    def judge(self, peer, word, what, answer):
        if word == "free":
            del peer.held[what]
            return
        if answer.get("error") == "no_memory":  # with all that may have been locked it must really not fit
            assert len(self.locked | {what}) * MODEL_MB >= CACHE_MB - MODEL_MB, (answer, self.locked)
            self.count("no room")
            return
        assert "error" not in answer, answer
        key = what if word == "load" else peer.held[what][0]
        assert answer["key"] == key and answer["sums"] == self.expected[key], (word, what, "not what is in the file")
        assert answer["generation"] == (answer["id"] if word == "load" else peer.held[what][1])
        if word == "load":
            peer.held[answer["number"]] = (key, answer["id"])

    def turn(self):
        """Some clients do something at once; now and then the loader dies meanwhile."""
        asked = []
        for peer in self.random.sample(self.peers, self.random.randint(1, CLIENTS)):
            number = self.random.choice(list(peer.held)) if peer.held else None
            words = ["load"] * (2 if len(peer.held) < 2 else 0) + (["check", "free", "free"] if peer.held else [])
            word = self.random.choice(words)
            what = self.random.choice(list(self.expected)) if word == "load" else number
            peer.send(word, what)
            self.count(word)
            asked.append((peer, word, what))
        self.locked |= {key for peer in self.peers for key, _ in peer.held.values()}
        self.locked |= {what for _, word, what in asked if word == "load"}
        if self.random.random() < 0.06:
            self.count("loader killed at work")
            self.restart()
        for peer, word, what in asked:
            self.judge(peer, word, what, peer.receive())
        self.locked = set()
        return len(asked)

    def evict(self):
        """Whatever may go goes; what is held is still there, by the name it had."""
        self.count("evict")
        self.world.call("load", "unload")
        for peer in self.peers:
            for key, segment in peer.held.values():
                answer = self.world.call("load", "load_model_by_key", key=key)
                assert answer["segment"]["id"] == segment, "what was locked was evicted"

    def step(self):
        chance = self.random.random()
        if chance < 0.1:
            self.evict()
        elif chance < 0.2:
            self.count("client killed")
            peer = self.random.choice(self.peers)
            self.locked |= {key for key, _ in peer.held.values()}  # its connections go when the loader sees it
            peer.kill()
            peer.start()
        elif chance < 0.24:
            self.count("loader killed")
            self.restart()
        else:
            return self.turn()
        return 1

    def end(self):
        for peer in self.peers:
            peer.kill()

        def idle():
            (stats,) = self.world.call("load", "cache_stats").values()
            return stats and stats["leases"] == 0 and not any(one["locks"] for one in stats["models"])

        self.world.eventually(idle)
        self.world.call("load", "unload")

        def empty():
            (stats,) = self.world.call("load", "cache_stats").values()
            return stats if stats and not stats["models"] and not stats["bytes"] else None

        stats = self.world.eventually(empty)
        assert stats["high_watermark"] <= stats["limit_bytes"] and stats["pool_bytes"] <= stats["limit_bytes"], stats
        self.restart()  # the pool's pages are its own: without them it is as it was when it was new
        assert traces(self.gpu.pid)[1] == 0
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
