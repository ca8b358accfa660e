#!/usr/bin/python3
"""The power fails in the middle of a download: what was not yet durable is gone, and the file comes out whole.

    tests/faults/test_power_loss.py [--seed N] [--losses N] [--mb N]

The worker runs with a library (power.c) that notes what it made durable. At random moments it is killed, and its folder
becomes what a disk may then hold: names and contents as they were synced, or newer ones. Nothing but the journal beside the
partial file says what is good in it, for the download has no digest to check by. The seed is printed.
"""
import argparse
import os
import random
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from lib.downloads import MIB, check_same, on_disk, submit, write_file  # noqa: E402
from lib.world import BUILD, SANITIZED, World  # noqa: E402

LIMIT_S = 180


class Disk:
    """The folder of the downloads, and what would be left of it."""

    def __init__(self, world):
        self.folder, self.mirror = os.path.join(world.folder, "out"), os.path.join(world.folder, "durable")
        self.aside = os.path.join(world.folder, "aside")
        for folder in (self.folder, self.mirror, self.aside):
            os.makedirs(folder)
        library = os.path.join(world.folder, "power.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library, os.path.join(HERE, "power.c"), "-ldl"], check=True)
        self.within = ["env", f"LADE_POWER_ROOT={self.folder}", f"LADE_POWER_MIRROR={self.mirror}", f"LD_PRELOAD={library}"]

    def now(self):
        return {entry.name: entry.inode() for entry in os.scandir(self.folder)}

    def durable_names(self):
        try:
            with open(os.path.join(self.mirror, f"d.{os.stat(self.folder).st_ino}"), encoding="utf-8") as file:
                return {name: int(inode) for inode, _, name in (line.rstrip("\n").partition(" ") for line in file)}
        except FileNotFoundError:
            return {}

    def lose(self, new_names, new_contents):
        """After the kill. new_names: the renames since the last sync have reached the disk all the same; new_contents: so have
        the bytes."""
        names = self.now() if new_names else self.durable_names()
        kept = {}
        for name, inode in self.now().items():
            kept[inode] = os.path.join(self.aside, str(inode))
            if not os.path.exists(kept[inode]):  # it may have two names
                os.link(os.path.join(self.folder, name), kept[inode])
            os.unlink(os.path.join(self.folder, name))
        for name, inode in names.items():
            path = kept.setdefault(inode, os.path.join(self.aside, str(inode)))
            if not new_contents or not os.path.exists(path):
                self.restore(path, os.path.join(self.mirror, f"f.{inode}"))
            os.link(path, os.path.join(self.folder, name))
        for name in os.listdir(self.aside):
            os.unlink(os.path.join(self.aside, name))

    def restore(self, path, noted):
        """Into the same inode, as on a disk; what was never synced is empty."""
        data, info = b"", None
        if os.path.exists(noted):
            info = os.stat(noted)
            with open(noted, "rb") as file:
                data = file.read()
        with open(path, "wb") as file:
            file.write(data)
        if info:
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def launch(world, disk):
    return world.spawn("download", [*disk.within, os.path.join(BUILD, "lade-download"), "--data", world.data])


def soak(seed, losses, mb):
    rng = random.Random(seed)
    print(f"seed {seed}: {losses} losses of power, {mb} MiB", flush=True)
    settings = {"download.checkpoint_mb": 1, "broker.beat_ms": 100, "broker.retry_base_ms": 20, "broker.retry_max_ms": 100,
                "broker.max_deaths": 1000, "broker.max_attempts": 1000, "download.slots": 1}
    with World(settings) as world:
        disk, pause = Disk(world), threading.Event()
        size = mb * MIB + rng.randrange(MIB)
        path = write_file(world.hub.file("x.bin"), size, seed)
        world.hub.settings(rate=size / (losses * 0.3))
        world.start("broker")
        worker = launch(world, disk)
        world.wait_ready({"download"})
        number = submit(world, f"{world.hub.url}/files/x.bin", disk.folder)["id"]
        for turn in range(losses + 1):
            # The last one comes right after the job's end: what was said to be there has to be there.
            if turn == losses:
                world.hub.settings(rate=0)
                job = world.call("download", "wait_for_job", id=number, timeout_s=60)
                assert job["status"] == "completed", f"seed {seed}: {job['error_type']} {job['error']}"
            else:
                pause.wait(rng.uniform(0.1, 0.7))
            worker.kill()
            ended = world.call("download", "id_to_job", id=number)["status"] == "completed"
            disk.lose(rng.random() < 0.4 and not ended, rng.random() < 0.3 and not ended)
            if ended:
                break
            worker = launch(world, disk)
        shown, hidden = on_disk(disk.folder)
        # That the journal is gone need not be durable when the job ends; it harms nobody.
        assert shown == ["x.bin"] and not [name for name in hidden if not name.endswith(".journal")], f"seed {seed}: {shown} {hidden}"
        try:
            check_same(os.path.join(disk.folder, "x.bin"), path)
        except AssertionError as problem:
            raise AssertionError(f"seed {seed}: after {turn} losses: {problem}") from None
        sent = world.hub.totals()["bytes"]
        print(f"seed {seed}: {turn} losses, the origin sent {sent / size:.2f} times the size", flush=True)
        assert sent < size + (losses + 1) * 24 * MIB, f"seed {seed}: {sent} bytes were sent for {size}"


def test_power_fails_at_random_moments():
    """Nothing the journal claims is ever missing, and what was reported done is on the disk."""
    if SANITIZED:
        print("the sanitizers want to be loaded first: the plain programs are tested")
        return
    soak(int(os.environ.get("LADE_SEED", random.randrange(1 << 30))), int(os.environ.get("LADE_LOSSES", "12")), 48)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--losses", type=int, default=50)
    parser.add_argument("--mb", type=int, default=256)
    args = parser.parse_args()
    soak(args.seed, args.losses, args.mb)


if __name__ == "__main__":
    main()
