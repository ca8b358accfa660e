"""Models on devices; and machines that have none: plug-in absent, broken, of another build, without a driver."""
import ctypes
import json
import os
import subprocess

from e2e.test_load import Holder, cached, expected, installed, sanitizer_environment
from lib import samples
from lib.skip import Skip
from lib.world import BUILD, ROOT, LadeError, World

LIMIT_S = 180
PLUGINS = os.path.join(BUILD, "tests/plugins")


def none(world, words):
    """Host loads go on; that there is no device is said once, with the reason, and to who asks for one."""
    path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"))
    world.up()
    key = installed(world, path)["key"]
    for _ in range(2):
        try:
            world.call("load", "load_model_by_key", key=key, device="cuda:0")
            raise AssertionError("there is a device")
        except LadeError as error:
            assert error.code == "no_vram" and words in str(error), error
    holder = Holder(world, key)
    assert holder.seen["tensors"] == expected(path)
    holder.end()
    assert words in cached(world, 1)["no_device"]
    (gpu,) = [process for process in world.processes if process.name in ("gpu", "up")][:1]
    said = [line for line in gpu.text().splitlines() if "no CUDA device" in line]
    assert len(said) == 1 and words in said[0], said
    shown = world.lade("workers").stdout
    assert "no device" in shown and words[:20] in shown, shown


def test_without_a_plug_in():
    with World({"log_level": "info"}, {"LADE_PLUGINS": ROOT}) as world:
        none(world, "lade-gpu-cuda.so is not installed")


def test_a_plug_in_of_another_build():
    with World({"log_level": "info"}, {"LADE_PLUGINS": os.path.join(PLUGINS, "other")}) as world:
        none(world, "is of version 4711")


def test_a_plug_in_that_is_none():
    with World({"log_level": "info"}) as world:
        with open(os.path.join(world.folder, "lade-gpu-cuda.so"), "w", encoding="utf-8") as file:
            file.write("no ELF")
        world.env["LADE_PLUGINS"] = world.folder
        none(world, "cannot open")


def test_a_plug_in_without_driver():
    if not os.path.exists(os.path.join(BUILD, "lade-gpu-cuda.so")):
        raise Skip("no nvcc where this was built")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        raise Skip("there is a driver here")
    with World({"log_level": "info"}) as world:
        none(world, "no NVIDIA driver is installed")


def test_a_driver_without_devices():
    with World({"log_level": "info"}, {"LADE_PLUGINS": os.path.join(PLUGINS, "fake"), "LADE_FAKE_DEVICES": "0"}) as world:
        none(world, "the fake driver sees no device")


class Consumer:
    """tests/e2e/devices.py as a process."""

    def __init__(self, world, key, device):
        env = {**world.environment(), **sanitizer_environment(), "LADE_LIBRARY": os.path.join(BUILD, "liblade.so.0")}
        self.popen = subprocess.Popen(["/usr/bin/python3", os.path.join(ROOT, "tests/e2e/devices.py"), world.data, key, device],
                                      env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.popen.stdout.readline()
        assert line, f"the consumer ended with status {self.popen.wait()}"
        self.seen = json.loads(line)

    def kill(self):
        self.popen.kill()
        self.popen.wait()


def test_devices():
    """The tests' stand-in for devices, through the whole farm: two consumers, one killed, room, a lost device."""
    with World({"log_level": "info", "load.working_mb": 1}, {"LADE_PLUGINS": os.path.join(PLUGINS, "fake")}) as world:
        lost = world.env["LADE_FAKE_LOST"] = os.path.join(world.folder, "lost")
        path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"))
        world.up()
        key = installed(world, path)["key"]
        consumers = [Consumer(world, key, "cuda:1") for _ in range(2)]
        for consumer in consumers:
            assert consumer.seen == {"location": "cuda:1", "tensors": expected(path)}

        def leases(count):
            (stats,) = world.call("load", "cache_stats").values()
            return stats if stats and stats["leases"] == count else None

        stats = world.eventually(lambda: leases(2))
        names = [(device["name"], device["bytes"] > 0) for device in stats["devices"]]
        assert names == [("cuda:0", False), ("cuda:1", True)], stats["devices"]
        shown = world.lade("workers").stdout
        assert "cuda:1" in shown and "Fake 1" in shown, shown
        assert world.call("load", "unload")["unloaded"] == 0
        for consumer in consumers:
            consumer.kill()
        world.eventually(lambda: leases(0))
        assert world.call("load", "unload")["unloaded"] == 1
        with open(lost, "w", encoding="utf-8"):
            pass
        try:
            world.call("load", "load_model_by_key", key=key, device="cuda:0")
            raise AssertionError("a lost device took a model")
        except LadeError as error:
            assert error.code == "io_error" and "lost" in str(error), error
        holder = Holder(world, key)
        assert holder.seen["tensors"] == expected(path)
        holder.end()


def refusal(world, key, device):
    try:
        world.call("load", "load_model_by_key", key=key, device=device)
    except LadeError as error:
        return error
    return None


def test_a_lost_device_that_comes_back():
    """The worker asks for it in another process, and starts anew with it once nobody holds what would go: host memory stays."""
    with World({"log_level": "info", "load.working_mb": 1}, {"LADE_PLUGINS": os.path.join(PLUGINS, "fake")}) as world:
        lost = world.env["LADE_FAKE_LOST"] = os.path.join(world.folder, "lost")
        path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"))
        world.start("broker", "keeper", "install")
        gpu = world.start("gpu")
        key = installed(world, path)["key"]
        holder, consumer = Holder(world, key), Consumer(world, key, "cuda:1")
        world.call("load", "load_model_by_key", key=key, device="cuda:0")
        (before,) = world.call("load", "cache_stats")
        with open(lost, "w", encoding="utf-8"):
            pass
        error = refusal(world, key, "cuda:0")
        assert error.code == "io_error" and "cuda:0 is lost" in str(error), error
        gpu.line("cuda:0 is not back: the device fell off the bus")
        os.unlink(lost)

        def error_now(words=""):
            error = refusal(world, key, "cuda:0")
            assert error is None or error.code == "io_error", error
            return error is None if not words else error and words in str(error)

        world.eventually(lambda: error_now("was lost and is back"))
        assert (before,) == tuple(world.call("load", "cache_stats")), "it ended under its consumer"
        consumer.kill()
        gpu.line("this worker starts anew")
        world.eventually(error_now)
        stats = world.eventually(lambda: [stats for name, stats in world.call("load", "cache_stats").items()
                                          if name != before and stats and stats["devices"][0]["bytes"]])[0]
        assert not any(device["lost"] for device in stats["devices"]), stats["devices"]
        assert stats["keeper"]["taken"] == 2 and stats["misses"] == 1, "the model in host memory was read again"
        assert holder.memory()["sums"] == {name: entry[2] for name, entry in expected(path).items()}
        holder.end()
        assert gpu.alive and f":{gpu.pid}-" in before, "it is the same process all the time"
