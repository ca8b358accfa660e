"""kill -9 of the load worker, of the keeper, of both: models stay, who looks at them goes on, nothing is left for ever."""
import os
import signal
import time

from e2e.test_load import Holder, expected
from lib import weights
from lib.world import World

LIMIT_S = 180
SETTINGS = {"broker.beat_ms": 100, "log_level": "info"}


def model(world, name, seed, mb=12):
    """A file of mb MiB with its record: (key, path)."""
    path = os.path.join(world.folder, f"{name}.safetensors")
    weights.write_safetensors(path, {f"decoder.up.{number}.weight": ("F16", (512, 1024)) for number in range(mb)}, seed=seed)
    config = {"name": name, "base": "sd-1", "type": "vae", "format": "checkpoint", "path": path}
    return world.call("store", "add_model", config=config)["key"], path


def stats_of(world, gpu, wanted, timeout_s=60):
    """cache_stats of that worker once they are as wanted."""

    def ask():
        for name, stats in world.call("load", "cache_stats").items():
            if f":{gpu.pid}-" in name and stats and wanted(stats):
                return stats
        return None

    return world.eventually(ask, timeout_s)


def segments(pid):
    """Segments that a process has descriptors of: their inodes."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "memfd:lade" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                found.add(os.stat(f"/proc/{pid}/fd/{fd}").st_ino)
        except FileNotFoundError:
            pass
    return found


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def same_sums(holder, path):
    return holder.memory()["sums"] == {name: entry[2] for name, entry in expected(path).items()}


def test_a_crash_of_the_loader_is_not_noticed():
    """What was read is served by the next worker without reading; who is attached goes on, and holds its model there too."""
    with World(SETTINGS) as world:
        world.start("broker")
        keeper, gpu = world.start("keeper"), world.start("gpu")
        key, path = model(world, "first", 1)
        other, _ = model(world, "second", 2)
        before = descriptors(keeper.pid)
        holder = Holder(world, key)
        world.call("load", "load_model_by_key", key=other)
        world.eventually(lambda: len(segments(keeper.pid)) == 2)
        kept = segments(keeper.pid)
        gpu.kill()
        assert same_sums(holder, path)
        again = world.start("gpu")
        stats = stats_of(world, again, lambda stats: len(stats["models"]) == 2)
        assert stats["misses"] == 0 and stats["leases"] == 1, stats
        assert stats["keeper"]["connected"] and stats["keeper"]["taken"] == 3, stats["keeper"]
        assert segments(again.pid) == kept == segments(keeper.pid)
        second = Holder(world, key)
        assert second.seen["tensors"] == expected(path)
        assert stats_of(world, again, lambda stats: stats["hits"] == 1)["misses"] == 0
        second.end()
        assert world.call("load", "unload")["unloaded"] == 1, "only what nobody looks at"
        assert same_sums(holder, path)
        holder.kill()
        stats_of(world, again, lambda stats: stats["leases"] == 0)
        assert world.call("load", "unload")["unloaded"] == 1
        world.eventually(lambda: not segments(keeper.pid) and not segments(again.pid))
        assert descriptors(keeper.pid) <= before + 1, "its connections have been given back"


def test_crash_after_crash():
    """The same connection is handed on from worker to worker."""
    with World(SETTINGS) as world:
        world.start("broker", "keeper")
        gpu = world.start("gpu")
        key, path = model(world, "first", 1)
        holder = Holder(world, key)
        for _ in range(4):
            gpu.kill()
            gpu = world.start("gpu")
            assert stats_of(world, gpu, lambda stats: stats["leases"] == 1)["misses"] == 0
            world.eventually(lambda: len(world.call("load", "cache_stats")) == 1)  # the broker knows who died
            assert world.call("load", "unload")["unloaded"] == 0
        assert same_sums(holder, path)
        holder.end()
        stats_of(world, gpu, lambda stats: stats["leases"] == 0)


def test_files_that_changed_are_read_again():
    with World(SETTINGS) as world:
        world.start("broker", "keeper")
        gpu = world.start("gpu")
        key, path = model(world, "first", 1)
        holder = Holder(world, key)
        gpu.kill()
        was = expected(path)
        os.unlink(path)
        weights.write_safetensors(path, {f"decoder.up.{number}.weight": ("F16", (512, 1024)) for number in range(12)}, seed=9)
        gpu = world.start("gpu")
        second = Holder(world, key)
        assert second.seen["tensors"] == expected(path) != was
        assert stats_of(world, gpu, lambda stats: stats["misses"] == 1)
        assert holder.memory()["sums"] == {name: entry[2] for name, entry in was.items()}, "what it sees is not taken away"
        holder.end()
        second.end()


def test_a_keeper_that_died_is_told_anew():
    with World(SETTINGS) as world:
        world.start("broker")
        keeper, gpu = world.start("keeper"), world.start("gpu")
        key, path = model(world, "first", 1)
        holder = Holder(world, key)
        keeper.kill()
        stats = stats_of(world, gpu, lambda stats: not stats["keeper"]["connected"])
        assert stats["keeper"]["why"], stats
        assert same_sums(holder, path)
        keeper = world.start("keeper")
        world.eventually(lambda: segments(keeper.pid))
        gpu.kill()
        gpu = world.start("gpu")
        assert stats_of(world, gpu, lambda stats: stats["leases"] == 1)["misses"] == 0
        holder.end()
        stats_of(world, gpu, lambda stats: stats["leases"] == 0)


def test_a_keeper_that_comes_later_is_told_at_once():
    """What was read before there was a keeper is handed over when it listens, not at the next beat; and again to the next keeper."""
    with World({**SETTINGS, "broker.beat_ms": 20000}) as world:
        world.start("broker")
        gpu = world.start("gpu")
        key, path = model(world, "first", 1)
        holder = Holder(world, key)
        (segment,) = segments(gpu.pid)
        keeper = None
        for _ in range(3):
            if keeper:
                keeper.kill()
            keeper, began = world.launch("keeper"), time.monotonic()
            world.eventually(lambda: segments(keeper.pid) == {segment})
            assert time.monotonic() - began < 10, "it was told at a beat"
        gpu.kill()
        assert segments(keeper.pid) == {segment}
        keeper.line("2 descriptors of it are kept")
        gpu = world.launch("gpu")
        gpu.line("1 models of 12591104 bytes and 1 connections of a worker that is gone are taken over")
        assert segments(gpu.pid) == {segment} and same_sums(holder, path)
        holder.end()


def test_a_keeper_that_hangs_stops_nobody():
    with World(SETTINGS) as world:
        world.start("broker")
        keeper, gpu = world.start("keeper"), world.start("gpu")
        keeper.signal(signal.SIGSTOP)
        keys = [model(world, f"m{number}", number, 2) for number in range(3)]
        for key, path in keys:
            holder = Holder(world, key)
            assert holder.seen["tensors"] == expected(path)
            holder.end()
        keeper.signal(signal.SIGCONT)
        world.eventually(lambda: segments(keeper.pid) == segments(gpu.pid))


def test_both_killed_leave_nothing():
    """Memory goes with the last process that has it; the next start is as the first."""
    with World(SETTINGS) as world:
        world.start("broker")
        keeper, gpu = world.start("keeper"), world.start("gpu")
        key, path = model(world, "first", 1)
        holder = Holder(world, key)
        (inode,) = segments(keeper.pid)
        gpu.kill()
        keeper.kill()
        assert same_sums(holder, path)
        world.start("keeper")
        gpu = world.start("gpu")
        stats = stats_of(world, gpu, lambda stats: stats["keeper"]["connected"])
        assert not stats["models"] and not stats["leases"], stats
        holder.end()
        holders = [pid for pid in os.listdir("/proc") if pid.isdigit() and inode in segments_or_none(pid)]
        assert not holders, holders


def segments_or_none(pid):
    try:
        return segments(pid)
    except OSError:
        return set()


def test_what_nobody_takes_is_let_go():
    with World({**SETTINGS, "load.keep_s": 1}) as world:
        world.start("broker")
        keeper, gpu = world.start("keeper"), world.start("gpu")
        key, _ = model(world, "first", 1)
        world.call("load", "load_model_by_key", key=key)
        world.eventually(lambda: segments(keeper.pid))
        gpu.kill()
        keeper.line("nobody took what")
        assert not segments(keeper.pid)


def test_an_orderly_end_keeps_nothing():
    with World(SETTINGS) as world:
        world.start("broker")
        keeper, gpu = world.start("keeper"), world.start("gpu")
        key, _ = model(world, "first", 1)
        world.call("load", "load_model_by_key", key=key)
        world.eventually(lambda: segments(keeper.pid))
        gpu.stop()
        world.eventually(lambda: not segments(keeper.pid))


def test_up_runs_a_keeper():
    """Under `lade up` a killed worker is started again, and has its models."""
    with World(SETTINGS) as world:
        up = world.up()
        world.eventually(lambda: [stats for stats in world.call("load", "cache_stats").values()
                                  if stats and stats["keeper"]["connected"]])  # they start at once, and in any order
        key, path = model(world, "first", 1)
        holder = Holder(world, key)
        (name,) = world.call("load", "cache_stats")
        os.kill(int(name.rsplit(":", 1)[1].split("-")[0]), signal.SIGKILL)

        def taken():
            return [stats for other, stats in world.call("load", "cache_stats").items()
                    if other != name and stats and stats["keeper"]["taken"] == 2 and stats["leases"] == 1]

        assert world.eventually(taken)
        assert same_sums(holder, path)
        holder.end()
        assert up.alive


def test_without_a_keeper():
    """load.keep_s 0: nothing is kept, and a crash costs a read."""
    with World({**SETTINGS, "load.keep_s": 0}) as world:
        world.start("broker")
        gpu = world.start("gpu")
        key, path = model(world, "first", 1)
        holder = Holder(world, key)
        assert stats_of(world, gpu, lambda stats: stats["models"])["keeper"] is None
        gpu.kill()
        assert same_sums(holder, path)
        gpu = world.start("gpu")
        again = Holder(world, key)
        assert again.seen["tensors"] == expected(path)
        assert stats_of(world, gpu, lambda stats: stats["misses"] == 1)
        holder.end()
        again.end()


def test_unload_and_unlock_of_a_worker_that_died():
    """Asked before the broker knows of its death: answered when it does, though no worker of that name ever comes back."""
    with World(SETTINGS) as world:
        world.start("broker")
        gpu = world.start("gpu")
        key, _ = model(world, "first", 1)
        lease = world.call("load", "lock", key=key)["lease"]
        client = world.client()
        events = world.events("worker_lost/", "job_requeued/", "broker_beat/")
        events.ready()
        gpu.kill()
        asked = [client.send("load", "unload"), client.send("load", "unload", key=key), client.send("load", "unlock", lease=lease)]
        assert [client.receive(number, 60) for number in asked] == [{"unloaded": 0}, {"unloaded": 0}, None]
        seen = events.until(lambda event: event["event"] == "worker_lost")
        assert not [event for event in seen if event["event"] == "job_requeued"]
        assert client.call("load", "unlock", lease=lease) is None and client.call("load", "unload") == {"unloaded": 0}
        world.start("gpu")
        assert not [job for job in world.call("jobs", "list") if job["status"] in ("enqueued", "running")]
