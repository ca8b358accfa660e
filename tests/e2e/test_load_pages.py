"""Loading on huge pages of both kinds, and without what a kernel may refuse. System settings are changed for a moment (root only)."""
import os
import sys

from e2e.test_load import Holder, cached, expected
from e2e.test_load_off import cool, large
from lib import without
from lib.skip import Skip
from lib.system import settings
from lib.world import BUILD, HERE, World

LIMIT_S = 180
RESERVED = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
TRANSPARENT = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
MODEL_KB = 40 << 10


def start(world, *ways):
    """A load worker on a kernel without these."""
    if not ways:
        return world.start("gpu")
    if not without.can():
        raise Skip("no filter is known for this machine's system calls")
    gpu = world.spawn("gpu", [sys.executable, os.path.join(HERE, "without.py"), ",".join(ways), os.path.join(BUILD, "lade-gpu"),
                              "--data", world.data])
    world.wait_ready({"load"})
    return gpu


def add(world, name="large"):
    path = large(os.path.join(world.folder, f"{name}.safetensors"))
    config = {"name": name, "base": "sd-1", "type": "vae", "format": "checkpoint", "path": path}
    cool(path)
    return world.call("store", "add_model", config=config)["key"], path


def look(world, key, path):
    holder = Holder(world, key)
    assert holder.seen["tensors"] == expected(path)
    return holder


def of_mappings(pid, field):
    """Kilobytes of this field of smaps, of all segments."""
    total, segment = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if "-" in line.split(" ", 1)[0]:
                segment = "memfd:lade" in line or "anon_hugepage" in line
            elif segment and line.startswith(field + ":"):
                total += int(line.split()[1])
    return total


def said_once(gpu, words):
    told = [line for line in gpu.text().splitlines() if words in line]
    assert len(told) == 1, (words, gpu.tail())


def test_transparent_huge_pages():
    """The system makes them for shared memory when asked: segments are of them, here and for who looks."""
    with settings({TRANSPARENT: "advise", RESERVED: 0}), World({"load.cache_mb": 200}) as world:
        world.start("broker")
        gpu = start(world)
        key, path = add(world)
        holder = look(world, key, path)
        stats = cached(world, 1)
        assert stats["huge"] == {"pages": "transparent", "why": None, "reserved_bytes": 0}, stats["huge"]
        assert "no huge pages" not in gpu.text()
        huge = of_mappings(gpu.pid, "ShmemPmdMapped")
        print(f"{huge} of {MODEL_KB} KiB on huge pages here, {of_mappings(holder.popen.pid, 'ShmemPmdMapped')} there")
        assert huge >= MODEL_KB * 3 // 4, huge
        holder.end()
        other, other_path = add(world, "other")  # on the pages of the first, when it is gone
        world.eventually(lambda: world.call("load", "unload")["unloaded"] == 1)
        look(world, other, other_path).end()


def test_reserved_huge_pages():
    with settings({RESERVED: 100}), World({"load.cache_mb": 200}) as world:
        world.start("broker", "keeper")
        gpu = start(world)
        key, path = add(world)
        holder = look(world, key, path)
        stats = cached(world, 1)
        assert stats["huge"]["pages"] == "reserved" and stats["huge"]["why"] is None, stats["huge"]
        assert stats["huge"]["reserved_bytes"] >= MODEL_KB << 10, stats["huge"]
        assert of_mappings(gpu.pid, "Shared_Hugetlb") + of_mappings(gpu.pid, "Private_Hugetlb") >= MODEL_KB
        gpu.kill()
        gpu = start(world)  # has what the keeper held
        assert holder.memory()["sums"] == {name: entry[2] for name, entry in expected(path).items()}
        second = look(world, key, path)
        assert world.eventually(lambda: [one for name, one in world.call("load", "cache_stats").items()
                                         if f":{gpu.pid}-" in name and one and one["hits"]])[0]["misses"] == 0
        holder.end()
        second.end()
        world.eventually(lambda: world.call("load", "unload")["unloaded"] == 1)
        assert of_mappings(gpu.pid, "Shared_Hugetlb") == 0, "another's pages are no pool"


def test_too_few_reserved_huge_pages():
    """The first that does not fit says so, once; it is of plain pages, or of what the system makes."""
    with settings({RESERVED: 4}), World({"load.cache_mb": 200, "log_level": "info"}) as world:
        world.start("broker")
        gpu = start(world)
        for key, path in (add(world), add(world, "other")):
            look(world, key, path).end()
        assert "too few" in cached(world, 2)["huge"]["why"]
        said_once(gpu, "too few reserved ones are left (vm.nr_hugepages)")


def test_reserved_huge_pages_that_are_refused():
    """A container whose filter, or a kernel that, gives no memfd of huge pages."""
    with settings({RESERVED: 30}), World({"load.cache_mb": 200, "log_level": "info"}) as world:
        world.start("broker")
        gpu = start(world, "huge_memfd")
        for key, path in (add(world), add(world, "other")):
            look(world, key, path).end()
        stats = cached(world, 2)["huge"]
        assert stats["pages"] != "reserved" and "Invalid argument" in stats["why"], stats
        said_once(gpu, "no huge pages:")


def without_io_uring(way, words):
    with World({"log_level": "info"}) as world:
        world.start("broker")
        gpu = start(world, way)
        for key, path in (add(world), add(world, "other")):
            look(world, key, path).end()
        stats = cached(world, 2)["io"]
        assert stats["engine"] in ("threads", "buffered") and words in stats["why"], stats
        said_once(gpu, "no io_uring")


def test_a_kernel_without_io_uring():
    without_io_uring("io_uring", "Function not implemented")


def test_a_system_that_allows_no_io_uring():
    without_io_uring("io_uring_allowed", "Operation not permitted")
