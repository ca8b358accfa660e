#!/usr/bin/python3
"""kill -9 at random moments of one large download: of the worker, of the broker, of both.

    tests/faults/test_download_kill.py [--seed N] [--kills N] [--mb N] [--checkpoint-mb N] [worker|broker|both...]

However often and whenever: the file is whole in the end, and the origin served it once, 1 % more at most, and one
checkpoint's interval for each attempt that ended early: because the worker died, or because it came too late for its
lease when the broker was back. The seed is printed. LADE_KILLS, LADE_KILL_MB and LADE_SEED are the
same for the tests of the suite.
"""
import argparse
import os
import random
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from lib import weights  # noqa: E402
from lib.downloads import MIB, on_disk, served, write_file  # noqa: E402
from lib.world import PATIENCE_S, SLOW, LadeError, World  # noqa: E402

LIMIT_S = 240
ACTIVE_S = 0.25  # of transfer between two kills, in the mean: how the origin's rate is chosen
VICTIMS = {"worker": ("download",), "broker": ("broker",), "both": ("download", "broker")}


class Transfer:
    """One job, its processes, and what the origin has sent."""

    def __init__(self, world, size):
        self.world, self.size = world, size
        self.pause = threading.Event()
        self.path = write_file(world.hub.file("x.safetensors"), size)
        self.folder = os.path.join(world.folder, "out")
        self.digest = weights.sha256(self.path)
        self.running = dict(zip(("broker", "download"), world.start("broker", "download")))

    def ask(self, service, op, **args):
        """Asks until a broker answers."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.world.call(service, op, timeout_s=2, **args)
            except LadeError as error:
                if error.code not in ("broker_unreachable", "Timeout") or time.monotonic() > until:
                    raise

    def submit(self):
        self.number = self.ask("download", "create_download_job", source=f"{self.world.hub.url}/files/x.safetensors",
                               destdir=self.folder, sha256=self.digest)["id"]

    def sent(self):
        return self.world.hub.totals()["bytes"]

    def wait_for(self, target):
        """Until the origin has sent so much; False if the job has ended before."""
        until = time.monotonic() + PATIENCE_S
        while self.sent() < target:
            if time.monotonic() > until:
                raise AssertionError(f"the transfer stands still at {self.sent()} of {target} bytes")
            self.pause.wait(0.01)
        return not os.path.exists(os.path.join(self.folder, "x.safetensors"))

    def kill(self, victims):
        for victim in victims:
            self.running[victim].kill()
        for victim in victims:
            self.running[victim] = self.world.launch(victim)

    def end(self):
        until = time.monotonic() + PATIENCE_S
        while (job := self.ask("jobs", "get", id=self.number))["status"] in ("enqueued", "running"):
            assert time.monotonic() < until, job
            self.pause.wait(0.05)
        return job


def soak(seed, kills, mb, checkpoint_mb, victims):
    rng = random.Random(seed)
    size = mb * MIB + rng.randrange(MIB)
    print(f"seed {seed}: {kills} kills of {' and '.join(victims)} in {size} bytes", flush=True)
    settings = {"download.checkpoint_mb": checkpoint_mb, "broker.beat_ms": 100, "broker.retry_base_ms": 20,
                "broker.retry_max_ms": 100, "broker.max_deaths": 1000, "broker.max_attempts": 1000}
    with World(settings) as world:
        transfer = Transfer(world, size)
        world.hub.settings(rate=size / (kills * ACTIVE_S))
        transfer.submit()
        done = 0
        for share in sorted(rng.uniform(0, 0.97) for _ in range(kills)):
            if rng.random() < 0.2 and done:
                transfer.pause.wait(rng.uniform(0, 0.4))  # while it takes up what is there, or the broker waits
            elif not transfer.wait_for(share * size):
                break
            transfer.pause.wait(rng.uniform(0, 0.05))
            transfer.kill(victims)
            done += 1
        world.hub.settings(rate=0)
        job = transfer.end()
        assert job["status"] == "completed", f"seed {seed}: {job['status']} {job['error_type']} {job['error']}"
        assert on_disk(transfer.folder) == (["x.safetensors"], []), f"seed {seed}: {on_disk(transfer.folder)}"
        assert weights.sha256(os.path.join(transfer.folder, "x.safetensors")) == transfer.digest, f"seed {seed}: digest"
        sent = served(world.hub.log(path="/files/*")["requests"])
        lost = job["attempt"] - 1
        # A slow reader leaves more in its sockets when it is killed, and that was sent too.
        allowed = 1.01 * size + min(lost, done) * checkpoint_mb * MIB * SLOW
        print(f"seed {seed}: {done} kills, the origin sent {sent / size:.3f} times the size, {allowed / size:.3f} allowed; "
              f"{job['attempt']} attempts", flush=True)
        assert sent <= allowed, f"seed {seed}: {sent} bytes were sent for {size}, {lost} attempts lost, {int(allowed)} allowed"
        assert "download" in victims or lost <= done / 4, f"seed {seed}: {lost} attempts were lost though the worker lived"
        assert done >= kills / 2, f"seed {seed}: only {done} of {kills} kills came in time"


def quick(victim):
    soak(int(os.environ.get("LADE_SEED", random.randrange(1 << 30))), int(os.environ.get("LADE_KILLS", "12")),
         int(os.environ.get("LADE_KILL_MB", "192")), 8, VICTIMS[victim])


def test_worker_killed_at_random_moments():
    """One download while its worker is killed again and again: what was checkpointed is not fetched twice."""
    quick("worker")


def test_broker_killed_at_random_moments():
    """The worker goes on meanwhile: nothing is fetched twice, but where it misses its lease."""
    quick("broker")


def test_both_killed_at_random_moments():
    quick("both")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--checkpoint-mb", type=int, default=8)
    parser.add_argument("victims", nargs="*", default=["worker", "broker"])
    args = parser.parse_args()
    for victim in args.victims:
        soak(args.seed, args.kills, args.mb, args.checkpoint_mb, VICTIMS[victim])


if __name__ == "__main__":
    main()
