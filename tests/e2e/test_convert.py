"""Checkpoints become folders of diffusers: the same numbers under the other names, once, whatever happens meanwhile."""
import os

from lib import checkpoints, weights
from lib.checks import nothing_temporary
from lib.conversions import cached, check, config_of, installed, started
from lib.skip import Skip
from lib.world import LadeError

LIMIT_S = 180
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


def test_a_view_that_is_far_more_than_its_file():
    torch_there()
    import torch
    with started() as world:
        path = checkpoints.write(os.path.join(world.folder, "in", "vae.safetensors"), checkpoints.vae(".", prefix=""), 3)
        tensors = checkpoints.torch_tensors(path)
        tensors["decoder.conv_out.bias"] = torch.zeros(1, dtype=torch.float16).expand(1 << 38)
        given = os.path.join(world.folder, "in", "vae.ckpt")
        torch.save(tensors, given)
        record = installed(world, given)
        try:
            world.call("install", "convert", key=record["key"])
            raise AssertionError("converted")
        except LadeError as error:
            assert error.code == "too_large" and "repeat the same numbers" in str(error), (error.code, str(error))
        assert cached(world) == []
        nothing_temporary(world)


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
        assert cached(world) == []
        nothing_temporary(world)
