"""Checkpoints become folders of diffusers: the same numbers under the other names, once, whatever happens meanwhile."""
import hashlib
import json
import os
import subprocess
import threading

from lib import checkpoints, weights
from lib.checks import nothing_temporary
from lib.skip import Skip
from lib.world import BUILD, ROOT, LadeError, World, sanitizer_environment

LIMIT_S = 180
FILES = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors", ".": "diffusion_pytorch_model.safetensors",
         "text_encoder": "model.safetensors", "text_encoder_2": "model.safetensors"}


def started(*names, **settings):
    if not checkpoints.numpy:
        raise Skip("no numpy")
    world = World(settings)
    world.start(*(names or ("broker", "install")))
    return world


def installed(world, path, **config):
    job = world.install(path, config=config)
    assert job["status"] == "completed", job["error"]
    return job["config_out"]


def config_of(folder, *path):
    with open(os.path.join(folder, *path), encoding="utf-8") as file:
        return json.load(file)


def check(folder, path, entries):
    """Every tensor of every part: name, type, shape and bytes; and back again."""
    parts = checkpoints.expected(path, entries)
    for part, tensors in parts.items():
        got = weights.read_safetensors(os.path.join(folder, part, FILES[part]))
        assert sorted(got) == sorted(tensors), sorted(set(got) ^ set(tensors))[:10]
        for name, wanted in tensors.items():
            assert got[name] == wanted, (part, name, got[name][:2], wanted[:2])
    source = weights.read_safetensors(path)
    back = checkpoints.restored(folder, entries, {part: FILES[part] for part in parts})
    assert {name: source[name] for name in back} == back
    return parts


def check_kind(entries, base, kind, seed=7, torch=None, told=False, **config):
    """Installs, converts and compares; answers the record and the folder's configs. told: the user says what it is."""
    config.update({"base": base, "type": kind, "format": "checkpoint"} if told else {})
    with started() as world:
        path = checkpoints.write(os.path.join(world.folder, "in", "model.safetensors"), entries, seed)
        given = path
        if torch:
            given = checkpoints.write_torch(os.path.join(world.folder, "in", "model.ckpt"), path, **torch)
        record = installed(world, given, **config)
        assert (record["base"], record["type"], record["format"]) == (base, kind, "checkpoint"), record
        dest = os.path.join(world.folder, "out")
        assert world.call("install", "convert", key=record["key"], dest=dest) == dest
        parts = check(dest, path, entries)
        nothing_temporary(world)
        configs = {name: config_of(dest, name) for name in sorted(
            os.path.relpath(os.path.join(above, one), dest) for above, _, all_ in os.walk(dest) for one in all_ if one.endswith(".json"))}
        assert set(os.path.normpath(os.path.join(part, "config.json")) for part in parts) <= set(configs)
        again = installed(world, dest, name="again")  # lade takes it for what diffusers would
        assert (again["base"], again["type"], again["format"]) == (base, kind, "diffusers"), again
        return record, configs


def test_sd_1():
    record, configs = check_kind(checkpoints.checkpoint("sd-1"), "sd-1", "main")
    unet, scheduler, text = configs["unet/config.json"], configs["scheduler/scheduler_config.json"], configs["text_encoder/config.json"]
    assert unet["block_out_channels"] == [16, 32, 64, 64] and unet["attention_head_dim"] == 8
    assert unet["cross_attention_dim"] == 768 and unet["in_channels"] == 4 and not unet["use_linear_projection"]
    assert scheduler["prediction_type"] == record["prediction_type"] == "epsilon" and scheduler["beta_schedule"] == "scaled_linear"
    assert (scheduler["beta_start"], scheduler["beta_end"]) == (0.00085, 0.012)
    assert text["num_hidden_layers"] == 12 and text["hidden_act"] == "quick_gelu" and text["vocab_size"] == 96
    assert configs["vae/config.json"]["scaling_factor"] == 0.18215
    assert configs["model_index.json"]["_class_name"] == "StableDiffusionPipeline"
    assert configs["tokenizer/tokenizer_config.json"]["model_max_length"] == 77


def test_sd_1_inpaint():
    _, configs = check_kind(checkpoints.checkpoint("sd-1", channels=9), "sd-1", "main")
    assert configs["model_index.json"]["_class_name"] == "StableDiffusionInpaintPipeline"
    assert configs["unet/config.json"]["in_channels"] == 9 and configs["unet/config.json"]["out_channels"] == 4


def test_sd_1_with_averages():
    check_kind(checkpoints.averaged(checkpoints.checkpoint("sd-1")), "sd-1", "main")


def test_sd_2():
    record, configs = check_kind(checkpoints.checkpoint("sd-2", width=64), "sd-2", "main")
    unet = configs["unet/config.json"]
    assert record["prediction_type"] == "v_prediction" == configs["scheduler/scheduler_config.json"]["prediction_type"]
    assert unet["upcast_attention"] is True and unet["use_linear_projection"] is True and unet["sample_size"] == 96
    assert unet["attention_head_dim"] == [1, 2, 4, 4]
    assert configs["text_encoder/config.json"]["num_hidden_layers"] == 23, "the last layer but one is what counts"


def test_sd_2_of_another_prediction():
    _, configs = check_kind(checkpoints.checkpoint("sd-2"), "sd-2", "main", prediction_type="epsilon", upcast_attention=True)
    unet = configs["unet/config.json"]
    assert configs["scheduler/scheduler_config.json"]["prediction_type"] == "epsilon"
    assert unet["upcast_attention"] is True and unet["sample_size"] == 64


def test_sd_2_inpaint():
    _, configs = check_kind(checkpoints.checkpoint("sd-2", channels=9), "sd-2", "main")
    assert configs["model_index.json"]["_class_name"] == "StableDiffusionInpaintPipeline"
    assert configs["unet/config.json"]["in_channels"] == 9 and configs["unet/config.json"]["out_channels"] == 4


def test_sd_2_depth():
    """The network that looks for depth is another model: it is left out."""
    entries = checkpoints.checkpoint("sd-2", channels=5) + [
        checkpoints.Entry(f"depth_model.model.{name}", shape, []) for name, shape in (
            ("pretrained.model.cls_token", (1, 1, 12)), ("scratch.layer1_rn.weight", (8, 8, 3, 3)))]
    record, configs = check_kind(entries, "sd-2", "main")
    index, unet = configs["model_index.json"], configs["unet/config.json"]
    assert record["variant"] == "depth" and unet["in_channels"] == 5 and unet["out_channels"] == 4
    assert index["_class_name"] == "StableDiffusionDepth2ImgPipeline" and index["depth_estimator"] == [None, None]


def test_sdxl():
    _, configs = check_kind(checkpoints.checkpoint("sdxl"), "sdxl", "main")
    unet, second = configs["unet/config.json"], configs["text_encoder_2/config.json"]
    assert unet["transformer_layers_per_block"] == [1, 2, 10] and unet["projection_class_embeddings_input_dim"] == 2816
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    assert second["architectures"] == ["CLIPTextModelWithProjection"] and second["num_hidden_layers"] == 32
    assert second["projection_dim"] == 24 and configs["vae/config.json"]["scaling_factor"] == 0.13025
    assert configs["model_index.json"]["_class_name"] == "StableDiffusionXLPipeline"


def test_sdxl_inpaint():
    _, configs = check_kind(checkpoints.checkpoint("sdxl", channels=9, width=8), "sdxl", "main")
    assert configs["model_index.json"]["_class_name"] == "StableDiffusionXLInpaintPipeline"


def test_sdxl_refiner():
    _, configs = check_kind(checkpoints.checkpoint("sdxl-refiner"), "sdxl-refiner", "main")
    unet, index = configs["unet/config.json"], configs["model_index.json"]
    assert unet["transformer_layers_per_block"] == 4 and unet["projection_class_embeddings_input_dim"] == 2560
    assert index["_class_name"] == "StableDiffusionXLImg2ImgPipeline" and index["text_encoder"] == [None, None]


def test_vae():
    _, configs = check_kind(checkpoints.vae(".", prefix=""), "sd-1", "vae")
    assert configs["config.json"]["_class_name"] == "AutoencoderKL" and configs["config.json"]["block_out_channels"] == [8, 16, 32, 32]


def test_vae_of_a_trainer():
    """With what the trainer had beside it, and under the name it has in a checkpoint."""
    entries = checkpoints.vae(".") + [checkpoints.Entry(f"first_stage_model.{name}", shape, [], "F32") for name, shape in (
        ("loss.discriminator.main.0.weight", (8, 3, 4, 4)), ("loss.logvar", ()),
        ("model_ema.decay", ()), ("model_ema.encoderconv_inweight", (8, 3, 3, 3)))]
    check_kind(entries, "sd-1", "vae", told=True)
    bare = [checkpoints.Entry(entry.name[len("first_stage_model."):], entry.shape, entry.becomes, entry.dtype) for entry in entries]
    check_kind(bare, "sd-1", "vae")


def test_controlnets():
    for base in ("sd-1", "sd-2", "sdxl"):
        _, configs = check_kind(checkpoints.controlnet(base), base, "controlnet")
        config = configs["config.json"]
        assert config["_class_name"] == "ControlNetModel" and config["conditioning_embedding_out_channels"] == [16, 32, 96, 256]
        assert config["cross_attention_dim"] == {"sd-1": 768, "sd-2": 1024, "sdxl": 2048}[base]


def test_slim_controlnets():
    """Attention on no level, on the last one alone, in the middle alone, or one of no layers; in either naming."""
    for seeing, types, middle, layers in (
            (((0, 0, 0), None), "DownBlock2D DownBlock2D DownBlock2D", "UNetMidBlock2D", [1, 1, 1]),
            (((0, 0, 1), 1), "DownBlock2D DownBlock2D CrossAttnDownBlock2D", "UNetMidBlock2DCrossAttn", [1, 1, 1]),
            (((0, 2, 0), 3), "DownBlock2D CrossAttnDownBlock2D DownBlock2D", "UNetMidBlock2DCrossAttn", [1, 2, 3]),
            (((0, 0, 0), 0), "DownBlock2D DownBlock2D DownBlock2D", "UNetMidBlock2DCrossAttn", [1, 1, 0])):
        entries = checkpoints.controlnet("sdxl", width=8, seeing=seeing)
        for given in (entries, checkpoints.named(entries)):
            _, configs = check_kind(given, "sdxl", "controlnet", told=True)
            config = configs["config.json"]
            assert config["down_block_types"] == types.split() and config["mid_block_type"] == middle, config
            assert config["transformer_layers_per_block"] == layers and config["cross_attention_dim"] == 2048, config


def torch_there():
    try:
        import torch  # noqa: F401
    except ImportError:
        raise Skip("no torch") from None


def test_pickled():
    """torch's files, of both times, wrapped and not, averages among them."""
    torch_there()
    check_kind(checkpoints.averaged(checkpoints.checkpoint("sd-1")), "sd-1", "main", torch={})
    check_kind(checkpoints.checkpoint("sdxl", width=8), "sdxl", "main", torch={"wrapped": False})
    check_kind(checkpoints.vae(".", prefix=""), "sd-1", "vae", torch={"legacy": True})
    check_kind(checkpoints.controlnet("sd-1"), "sd-1", "controlnet", torch={"legacy": True, "wrapped": False})


def test_pickled_views():
    """Tensors that torch saved as parts of larger ones, transposed or with channels last: they come out contiguous."""
    torch_there()
    check_kind(checkpoints.averaged(checkpoints.checkpoint("sd-2")), "sd-2", "main", torch={"views": True})
    check_kind(checkpoints.checkpoint("sdxl-refiner", width=8), "sdxl-refiner", "main", torch={"views": True, "wrapped": False})
    check_kind(checkpoints.vae(".", prefix=""), "sd-1", "vae", torch={"views": True, "legacy": True})
    check_kind(checkpoints.named(checkpoints.controlnet("sd-1")), "sd-1", "controlnet", torch={"views": True})


def test_named_as_diffusers_does():
    """VAEs and ControlNets are also found as single files in the other naming."""
    for entries, base, kind in ((checkpoints.vae(".", prefix=""), "sd-1", "vae"), (checkpoints.controlnet("sd-1"), "sd-1", "controlnet"),
                                (checkpoints.controlnet("sd-2"), "sd-2", "controlnet"), (checkpoints.controlnet("sdxl"), "sdxl", "controlnet")):
        check_kind(checkpoints.named(entries), base, kind)


# ------------------------------------------------------------------------------------------------
# What is wrong with a file is told

def test_what_cannot_be_converted():
    with started() as world:
        def refused(name, entries, code, words, **config):
            path = checkpoints.write(os.path.join(world.folder, "in", name), entries, 3)
            record = installed(world, path, name=name, **config)
            try:
                world.call("install", "convert", key=record["key"])
                raise AssertionError("converted")
            except LadeError as error:
                assert error.code == code and words in str(error), (error.code, str(error))
            return record
        whole = checkpoints.checkpoint("sd-1")
        refused("a.safetensors", [entry for entry in whole if "first_stage" not in entry.name], "InvalidModelConfig", "vae")
        refused("b.safetensors", whole + [checkpoints.Entry("model.diffusion_model.input_blocks.1.0.adapter.weight", (4,), [])],
                "InvalidModelConfig", "adapter")
        refused("c.safetensors", [entry for entry in whole if "middle_block.1.transformer" not in entry.name],
                "InvalidModelConfig", "not whole")
        refused("d.safetensors", checkpoints.checkpoint("sd-1", channels=5), "NotImplemented", "variant=depth",
                **{"type": "main", "base": "sd-1", "format": "checkpoint", "variant": "depth"})
        record = installed(world, weights.lora(os.path.join(world.folder, "in", "l.safetensors"), 1))
        try:
            world.call("install", "convert", key=record["key"])
            raise AssertionError("converted")
        except LadeError as error:
            assert error.code == "NotImplemented" and "type=lora" in str(error), str(error)
        try:
            world.call("install", "convert", key="nobody")
            raise AssertionError("converted")
        except LadeError as error:
            assert error.code == "UnknownModel", error.code
        assert not [name for name in os.listdir(os.path.join(world.models_dir, ".convert_cache")) if name[0] != "."]
        nothing_temporary(world)


# ------------------------------------------------------------------------------------------------
# The cache

def cached(world):
    folder = os.path.join(world.models_dir, ".convert_cache")
    return sorted(name for name in os.listdir(folder) if name[0] != ".") if os.path.isdir(folder) else []


def conversions(world):
    """Jobs of the kind that did something."""
    return [job for job in world.call("jobs", "list", kind="convert") if (job["result"] or {}).get("converted")]


def small(world, name="model.safetensors", seed=5):
    entries = checkpoints.vae(".", prefix="")
    return entries, checkpoints.write(os.path.join(world.folder, "in", name), entries, seed)


def test_once_until_something_changes():
    with started() as world:
        entries, path = small(world)
        record = installed(world, path)
        key = record["key"]
        place = world.call("install", "convert", key=key)
        assert place == os.path.join(world.models_dir, ".convert_cache", key)
        check(place, path, entries)
        before = os.stat(os.path.join(place, "config.json")).st_ino
        assert world.call("install", "convert", key=key) == place and len(conversions(world)) == 1
        assert world.lade("convert", key).stdout.strip() == place and len(conversions(world)) == 1
        assert world.lade_json("convert", record["name"]) == {"key": key, "path": place}
        world.call("store", "update_model", key=key, config={"base": "sdxl"})
        assert world.call("install", "convert", key=key) == place and len(conversions(world)) == 2
        assert config_of(place, "config.json")["scaling_factor"] == 0.13025, "the edit counts"
        assert os.stat(os.path.join(place, "config.json")).st_ino != before
        os.utime(world.record_path(record), (1, 1))  # another file, however old
        world.call("install", "convert", key=key)
        assert len(conversions(world)) == 3
        os.unlink(os.path.join(place, "config.json"))  # the sign that it is whole
        world.call("install", "convert", key=key)
        assert len(conversions(world)) == 4
        synced = world.call("install", "sync_to_config")
        assert not synced["added"] and not synced["failed"], synced  # a copy is no model of its own
        world.call("install", "unconditionally_delete", key=key)
        assert cached(world) == [], "the copy goes with the model"
        nothing_temporary(world)


def test_two_at_once_are_one_conversion():
    with started(**{"install.slots": 4}) as world:
        entries = checkpoints.checkpoint("sd-1", width=32)
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        key, places = installed(world, path)["key"], []
        threads = [threading.Thread(target=lambda: places.append(world.call("install", "convert", key=key))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(places) == 4 and len(set(places)) == 1 and len(conversions(world)) == 1


def test_the_longest_unasked_makes_room():
    with started(**{"install.convert_cache_mb": 1}) as world:
        keys = []
        for number in range(4):
            _, path = small(world, f"m{number}.safetensors", number)
            keys.append(installed(world, path)["key"])
        for key in keys[:3]:
            world.call("install", "convert", key=key)
        assert cached(world) == sorted(keys[:3]), "nobody of the last minute goes"
        for number, key in enumerate(keys[:3]):
            os.utime(os.path.join(world.models_dir, ".convert_cache", key, ".entry"), (1000 + number, 1000 + number))
        world.call("install", "convert", key=keys[0])  # asked for again
        assert len(conversions(world)) == 3
        world.call("install", "convert", key=keys[3])
        left = cached(world)
        assert keys[0] in left and keys[3] in left and keys[1] not in left, left


def test_nothing_is_kept_where_that_is_said():
    with started(**{"install.convert_cache_mb": 0}) as world:
        _, path = small(world)
        key = installed(world, path)["key"]
        place = world.call("install", "convert", key=key)
        assert os.path.isdir(place)
        os.utime(os.path.join(place, ".entry"), (1000, 1000))
        world.eventually(lambda: not os.path.exists(place))


def test_a_site_has_its_own():
    """A folder of conversions comes before the shipped ones: here one that leaves averages alone."""
    with started() as world:
        entries = checkpoints.averaged(checkpoints.checkpoint("sd-1"))
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        key = installed(world, path)["key"]
        place = world.call("install", "convert", key=key)
        check(place, path, entries)
        site = os.path.join(world.folder, "site")
        os.makedirs(site)
        with open(os.path.join(ROOT, "configs/convert/stable-diffusion.yaml"), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(site, "ours.yaml"), "w", encoding="utf-8") as file:
            file.write(text.replace("take: true", "take: false"))
        world.stop()
        world.configure(**{"convert_dir": site, "broker.beat_ms": 200})
        world.start("broker", "install")
        world.call("install", "convert", key=key)
        plain = checkpoints.checkpoint("sd-1")
        source = weights.read_safetensors(path)
        got = weights.read_safetensors(os.path.join(place, "unet", FILES["unet"]))
        assert got["conv_in.weight"] == source["model.diffusion_model.input_blocks.0.0.weight"]
        assert sorted(got) == sorted(name for entry in plain for part, name, _ in entry.becomes if part == "unet")
        with open(os.path.join(site, "ours.yaml"), "a", encoding="utf-8") as file:
            file.write("\nmaps:\n  mine:\n    - a.{n}: b.{m}\n")
        world.stop()
        process = world.launch("install")
        process.line("'b.{m}' cannot be made from 'a.{n}'")
        process.popen.wait(30)
        process.killed = True


# ------------------------------------------------------------------------------------------------
# Kills

def big(world, seed=2):
    """Some 200 MB: long enough to be stopped in."""
    entries = checkpoints.checkpoint("sd-1", width=96)
    return entries, checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, seed)


def stopped_in_the_middle(world):
    """A running conversion whose worker stands still: (its job, the worker)."""
    def writes():
        for above, _, names in os.walk(world.models_dir):
            if "copy_" in above and FILES["unet"] in names:
                return True
        return False
    job = world.call("install", "convert", wait=False, key=world.key)
    while not writes():
        status = world.call("jobs", "get", id=job["id"])["status"]
        assert status not in ("completed", "error"), status
    return job


def test_kill_9_in_the_middle():
    with started("broker", **{"broker.beat_ms": 100}) as world:
        worker = world.start("install")
        entries, path = big(world)
        world.key = installed(world, path)["key"]
        job = stopped_in_the_middle(world)
        worker.kill()
        assert cached(world) == [], "nothing half-done has its name"
        world.start("install")
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
        assert ended["status"] == "completed" and ended["attempt"] >= 2, ended
        check(ended["result"]["path"], path, entries)
        world.eventually(lambda: not [name for name in os.listdir(world.models_dir) if name.startswith("tmp")])


def test_cancel_in_the_middle():
    with started() as world:
        _, path = big(world)
        world.key = installed(world, path)["key"]
        job = stopped_in_the_middle(world)
        world.call("jobs", "cancel", id=job["id"])
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
        assert ended["status"] == "cancelled", ended
        world.eventually(lambda: not [name for name in os.listdir(world.models_dir) if name.startswith("tmp")])
        assert cached(world) == []


# ------------------------------------------------------------------------------------------------
# Loading

def digests(tensors):
    return {name: [dtype, list(shape), hashlib.sha256(data).hexdigest()] for name, (dtype, shape, data) in tensors.items()}


def held(world, key, submodel=None):
    """The tensors of a loaded model as another process sees them."""
    env = {**world.environment(), **sanitizer_environment()}
    done = subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/e2e/attach.py"), os.path.join(BUILD, "liblade.so.0"), world.data, key,
                           *([submodel] if submodel else [])], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[0])["tensors"]


def test_a_part_of_a_checkpoint_is_loaded_from_its_copy():
    with started("broker", "install", "gpu") as world:
        entries = checkpoints.checkpoint("sd-1")
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        record = installed(world, path)
        parts = checkpoints.expected(path, entries)
        assert held(world, record["key"], "vae") == digests(parts["vae"])
        assert len(conversions(world)) == 1
        loads = world.call("jobs", "list", kind="load")
        assert [job["result"]["config"]["path"] for job in loads] == [record["path"]], loads
        assert held(world, record["key"], "unet") == digests(parts["unet"])
        assert len(world.call("jobs", "list", kind="convert")) == 1, "what is fresh is not even asked for"
        assert held(world, record["key"]) == digests(weights.read_safetensors(path)), "whole, it is as stored"
        try:
            world.call("load", "load_model_by_key", key=record["key"], submodel="safety_checker")
            raise AssertionError("loaded")
        except LadeError as error:
            assert error.code == "ValueError" and "it has:" in str(error), str(error)
        world.call("store", "update_model", key=record["key"], config={"prediction_type": "v_prediction"})
        world.call("load", "load_model_by_key", key=record["key"], submodel="scheduler")
        assert len(conversions(world)) == 2
        place = os.path.join(world.models_dir, ".convert_cache", record["key"])
        assert config_of(place, "scheduler", "scheduler_config.json")["prediction_type"] == "v_prediction"


def test_a_load_tells_why_the_conversion_failed():
    with started("broker", "install", "gpu") as world:
        entries = [entry for entry in checkpoints.checkpoint("sd-1") if "first_stage" not in entry.name]
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        record = installed(world, path)
        try:
            world.call("load", "load_model_by_key", key=record["key"], submodel="vae")
            raise AssertionError("loaded")
        except LadeError as error:
            assert error.code == "InvalidModelConfig" and "vae" in str(error), (error.code, str(error))
