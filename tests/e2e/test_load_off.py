"""Loading without what makes it fast: io_uring, direct reads, huge pages, devices, a keeper. Everything works and says why."""
import os

from e2e.test_load import Holder, cached, expected
from lib import weights
from lib.world import World

LIMIT_S = 180

# Settings; what cache_stats has to say of reads and pages (None: whatever this machine has); words that stand once in the log.
ROWS = {
    "nothing": ({}, None, None, []),
    "no io_uring": ({"load.io": "threads"}, ("threads", "no io_uring: load.io is threads"), None, ["no io_uring: load.io is threads"]),
    "no direct reads": ({"load.io": "buffered"}, ("buffered", "no direct reads: load.io is buffered"), None,
                        ["no direct reads: load.io is buffered"]),
    "no huge pages": ({"load.huge": "off"}, None, ("plain", "load.huge is off"), ["no huge pages: load.huge is off"]),
    "all of it": ({"load.io": "buffered", "load.huge": "off", "load.pool_mb": 1, "load.read_threads": 1},
                  ("buffered", "no direct reads: load.io is buffered"), ("plain", "load.huge is off"),
                  ["no direct reads: load.io is buffered", "no huge pages: load.huge is off"]),
}


def cool(path):
    """Out of the page cache, where it can be."""
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def large(path):
    """A model of 40 MiB, so that several pieces are under way."""
    tensors = {f"decoder.up.{number}.weight": ("F16", (1024, 2048)) for number in range(10)}
    return weights.write_safetensors(path, tensors, seed=1)


def check(name):
    settings, io, huge, said = ROWS[name]
    with World({**settings, "log_level": "info"}) as world:
        world.start("broker")
        gpu = world.start("gpu")
        path = large(os.path.join(world.folder, "large.safetensors"))
        config = {"name": "large", "base": "sd-1", "type": "vae", "format": "checkpoint", "path": path}
        key = world.call("store", "add_model", config=config)["key"]
        for _ in range(2):
            cool(path)
            holder = Holder(world, key)
            assert holder.seen["tensors"] == expected(path), name
            holder.end()
            world.eventually(lambda: world.call("load", "unload")["unloaded"] == 1)
        stats = cached(world, 0, misses=2)
        if io:
            assert (stats["io"]["engine"], stats["io"]["why"]) == io, stats["io"]
        if huge:
            assert (stats["huge"]["pages"], stats["huge"]["why"]) == huge, stats["huge"]
        assert stats["io"]["engine"] == "uring" or stats["io"]["why"], stats["io"]
        assert stats["huge"]["pages"] != "plain" or stats["huge"]["why"], stats["huge"]
        read = stats["io"]["direct_bytes"] + stats["io"]["cached_bytes"]
        assert read >= 2 * (40 << 20), stats["io"]
        if stats["io"]["engine"] == "buffered":
            assert stats["io"]["direct_bytes"] == 0, stats["io"]
        for words in said:
            told = [line for line in gpu.text().splitlines() if words in line]
            assert len(told) == 1, (words, told)


def test_with_everything_this_machine_has():
    check("nothing")


def test_without_io_uring():
    check("no io_uring")


def test_without_direct_reads():
    check("no direct reads")


def test_without_huge_pages():
    check("no huge pages")


def test_without_any_of_it():
    check("all of it")
