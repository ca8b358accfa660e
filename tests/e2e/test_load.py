"""A model in memory: one segment, used by processes other than the one that filled it."""
import hashlib
import json
import os
import subprocess

from lib import samples, weights
from lib.world import BUILD, ROOT, LadeError, World, sanitizer_environment

LIMIT_S = 120


class Holder:
    """tests/e2e/attach.py as a process."""

    def __init__(self, world, key, submodel=None):
        argv = ["/usr/bin/python3", os.path.join(ROOT, "tests/e2e/attach.py"), os.path.join(BUILD, "liblade.so.0"), world.data,
                key, *([submodel] if submodel else [])]
        env = world.environment()
        env.update(sanitizer_environment())
        self.popen = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.popen.stdout.readline()
        assert line, f"the holder ended with status {self.popen.wait()}"
        self.seen = json.loads(line)

    def memory(self):
        self.popen.stdin.write("read\n")
        self.popen.stdin.flush()
        return json.loads(self.popen.stdout.readline())

    def end(self):
        self.popen.stdin.close()
        assert self.popen.wait(30) == 0

    def kill(self):
        self.popen.kill()
        self.popen.wait()


def expected(path):
    return {name: [dtype, list(shape), hashlib.sha256(data).hexdigest()]
            for name, (dtype, shape, data) in weights.read_safetensors(path).items()}


def installed(world, source):
    job = world.install(source)
    assert job["status"] == "completed", job["error"]
    return job["config_out"]


def cached(world, models, misses=0):
    """What the load worker has; it tells with its beats."""

    def wanted():
        (stats,) = world.call("load", "cache_stats").values()
        return stats if stats and len(stats["models"]) == models and stats["misses"] >= misses else None

    return world.eventually(wanted, 10)


def test_two_processes_share_one_segment():
    with World() as world:
        path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"))
        world.up()
        events = world.events("model_load_", "broker_beat")
        events.ready()
        record = installed(world, path)
        first = Holder(world, record["key"])
        names = [event["event"] for event in events.until(lambda event: event["event"] == "model_load_completed")
                 if event["event"] != "broker_beat"]
        assert names == ["model_load_started", "model_load_completed"], names
        second = Holder(world, record["key"])
        for holder in (first, second):
            assert holder.seen["tensors"] == expected(path)
            assert holder.seen["access"].startswith("r--"), holder.seen["access"]
            assert holder.seen["config"]["key"] == record["key"]
        for holder in (first, second):
            memory = holder.memory()
            assert memory["private_kb"] <= 64 < memory["shared_kb"], memory
        assert len(cached(world, 1)["models"]) == 1
        first.end()
        second.end()


def test_by_key_by_attributes_and_by_config():
    """Three ways to say which; what cannot be told apart is refused."""
    with World() as world:
        folder = os.path.join(world.folder, "one")
        world.up()
        record = installed(world, samples.pipeline(folder))
        wanted = {"submodel": "vae"}
        by_key = world.call("load", "load_model_by_key", key=record["key"], **wanted)
        by_attr = world.call("load", "load_model_by_attr", name=record["name"], base=record["base"], type="main", **wanted)
        by_config = world.call("load", "load_model_by_config", config=record, **wanted)
        assert by_key["config"]["key"] == record["key"] and by_key["submodel"] == "vae"
        assert by_key["segment"]["id"] == by_attr["segment"]["id"] == by_config["segment"]["id"], "one segment"
        for args, code in (({"name": "nobody", "base": "sd-1", "type": "main"}, "UnknownModel"),):
            refuses(world, code, "load", "load_model_by_attr", **args, **wanted)
        world.call("store", "add_model", config={**record, "key": None, "path": "sd-1/main/another", "version": None})
        refuses(world, "ValueError", "load", "load_model_by_attr", name=record["name"], base=record["base"], type="main", **wanted)
        refuses(world, "UnknownModel", "load", "load_model_by_config", config={**record, "key": "0" * 32}, **wanted)


def refuses(world, code, service, op, **args):
    try:
        answer = world.call(service, op, **args)
    except LadeError as error:
        assert error.code == code, error
        return
    raise AssertionError(f"{op} was not refused: {answer}")


def test_submodels_of_a_folder():
    with World() as world:
        folder = samples.pipeline(os.path.join(world.folder, "pipe"))
        world.up()
        record = installed(world, folder)
        for submodel, file in (("unet", "unet/diffusion_pytorch_model.safetensors"),
                               ("vae", "vae/diffusion_pytorch_model.safetensors"),
                               ("text_encoder", "text_encoder/model.safetensors")):
            holder = Holder(world, record["key"], submodel)
            assert holder.seen["tensors"] == expected(os.path.join(folder, file)), submodel
            holder.end()


def test_lock_holds_and_dies_with_its_process():
    """What is locked is not unloaded; the end of the process, even by kill -9, unlocks."""
    with World() as world:
        path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"))
        world.up()
        record = installed(world, path)
        holder = Holder(world, record["key"])
        assert world.call("load", "unload")["unloaded"] == 0
        assert world.eventually(lambda: cached(world, 1)["models"][0]["locked_by"] == [holder.popen.pid], 20)
        assert f"pid {holder.popen.pid}" in world.lade("cache").stdout
        holder.kill()
        assert world.eventually(lambda: world.call("load", "unload")["unloaded"] == 1, 20)


def test_the_settings_say_what_a_load_does_not():
    """The precision and the device that are wanted, as the service is set up with; a load that names its own has that."""
    with World({"load.precision": "bf16"}) as world:
        path = weights.lora(os.path.join(world.folder, "x.safetensors"), 1)
        world.up()
        events = world.events("model_load_", "broker_beat")
        events.ready()
        key = installed(world, path)["key"]
        assert world.call("load", "load_model_by_key", key=key)["precision"] == "bfloat16"
        told = events.until(lambda event: event["event"] == "model_load_completed")
        assert [event["precision"] for event in told if event["event"] != "broker_beat"] == ["bfloat16"] * 2, told
        assert world.lade_json("load", key, "--dtype", "stored", "--device", "cpu")["precision"] == "float16"
        said = world.lade("config", status=2, env={"LADE_LOAD_DEVICE": "tpu"}).stderr
        assert "load.device" in said.lower().replace("_", ".") and "cpu, cuda, cuda:N" in said, said


def test_least_recently_used_model_goes_first():
    with World({"load.cache_mb": 3}) as world:
        world.up()
        records = []
        for number in range(3):
            path = samples.checkpoint(os.path.join(world.folder, f"m{number}.safetensors"), seed=number)
            records.append(installed(world, path))
        for number in (0, 1, 0, 2):
            world.call("load", "load_model_by_key", key=records[number]["key"])
        stats = cached(world, 2, misses=3)
        keys = [model["key"] for model in stats["models"]]
        assert sorted(keys) == sorted([records[0]["key"], records[2]["key"]]), (keys, stats)
        assert stats["bytes"] <= stats["limit_bytes"] == 3 << 20, stats


def test_errors_say_what_is_wrong():
    with World() as world:
        path = weights.lora(os.path.join(world.folder, "x.safetensors"), 1)
        world.up()
        record = installed(world, path)

        def refused(code, **args):
            try:
                world.call("load", "load_model_by_key", **args)
            except LadeError as error:
                assert error.code == code, (error.code, error.message)
                return
            raise AssertionError(f"{args} was loaded")

        refused("UnknownModel", key="0" * 32)
        os.unlink(world.record_path(record))
        refused("ModelNotFound", key=record["key"])
