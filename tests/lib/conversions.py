"""What tests of conversions share: models to convert, and whether the folder is what it should be."""
import json
import os

from lib import checkpoints, weights
from lib.skip import Skip
from lib.world import World

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


def cached(world):
    folder = os.path.join(world.models_dir, ".convert_cache")
    return sorted(name for name in os.listdir(folder) if name[0] != ".") if os.path.isdir(folder) else []


def conversions(world):
    """Jobs of the kind that did something."""
    return [job for job in world.call("jobs", "list", kind="convert") if (job["result"] or {}).get("converted")]


def small(world, name="model.safetensors", seed=5):
    entries = checkpoints.vae(".", prefix="")
    return entries, checkpoints.write(os.path.join(world.folder, "in", name), entries, seed)
