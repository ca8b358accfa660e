#!/usr/bin/python3
"""Checkpoints as common trainers write them, made by torch: nothing in them runs code, and lade has to say so.

    tests/safety/benign.py DIR        writes them, and tensors.json: what torch finds in each

Needs python3-torch. Classes of trainers that are not installed here are made under their own names, with the state
theirs have: a pickle holds names and state, not the classes.
"""
import argparse
import collections
import io
import json
import os
import pathlib
import pickle
import struct
import sys
import tarfile
import types

import numpy as np
import torch

torch.manual_seed(0)


def borrowed(module, name, bases=(object,), **members):
    """A class that pickles as module.name."""
    made = type(name, bases, dict(members, __module__=module))
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        part = ".".join(parts[:i])
        if part not in sys.modules:
            sys.modules[part] = types.ModuleType(part)
    setattr(sys.modules[module], name, made)
    return made


def net(width=4):
    return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 2, bias=False))


def trained():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=10)
    for _ in range(2):
        model(torch.rand(3, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def unet(prefix="model.diffusion_model."):
    return {prefix + key: value for key, value in net().state_dict().items()}


# ---------------------------------------------------------------------------------------------------

def stable_diffusion():
    """v1-5-pruned.ckpt and its kin, by the trainer of latent diffusion on lightning 1.4."""
    checkpoint = borrowed("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    model, optimizer, _ = trained()
    return {
        "epoch": 0, "global_step": 840000, "pytorch-lightning_version": "1.4.2",
        "state_dict": collections.OrderedDict(unet(), **{"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1)}),
        "callbacks": {checkpoint: {"monitor": "val/loss_simple_ema", "best_model_score": np.float64(0.1), "best_model_path": "",
                                   "current_score": None, "dirpath": "/x/checkpoints", "kth_value": torch.tensor(1.0)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [1e-4], "last_epoch": 840000, "_step_count": 840001, "lr_lambdas": [None]}],
    }


def lightning():
    """lightning 2 with hyper-parameters as AttributeDict, loops and callbacks by text."""
    attributes = borrowed("lightning.fabric.utilities.data", "AttributeDict", (dict,))
    model, optimizer, scheduler = trained()
    return {
        "epoch": 3, "global_step": 1200, "pytorch-lightning_version": "2.1.0", "state_dict": model.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4, "completed": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.5), "best_k_models": {}}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs", "hyper_parameters": attributes(lr=1e-4, layers=[1, 2], path=pathlib.PosixPath("/x")),
        "MixedPrecision": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 10},
    }


def omegaconf():
    """hyper-parameters as omegaconf keeps them."""
    metadata = borrowed("omegaconf.base", "ContainerMetadata")
    dictionary = borrowed("omegaconf.dictconfig", "DictConfig")
    node = borrowed("omegaconf.nodes", "AnyNode")
    inner = borrowed("omegaconf.base", "Metadata")
    import typing
    meta, value, plain = metadata(), node(), inner()
    meta.__dict__.update(ref_type=typing.Any, object_type=dict, optional=True, key=None, flags={}, element_type=typing.Any)
    plain.__dict__.update(ref_type=typing.Any, object_type=None, optional=True, key="lr")
    value.__dict__.update(_metadata=plain, _parent=None, _val=1e-4)
    config = dictionary()
    config.__dict__.update(_metadata=meta, _parent=None, _content={"lr": value})
    value._parent = config
    return {"state_dict": net().state_dict(), "hyper_parameters": {"config": config}}


def ema():
    """An average beside the weights (torch_ema, k-diffusion's train.py)."""
    model, optimizer, _ = trained()
    return {"model": model.state_dict(), "model_ema": {key: value * 0.9 for key, value in model.state_dict().items()},
            "opt": optimizer.state_dict(), "sched": {"last_epoch": 1}, "ema_sched": {"inv_gamma": 1.0}, "epoch": 3, "step": 12,
            "ema": {"decay": 0.995, "num_updates": 10, "shadow_params": list(model.state_dict().values())[:2]}, "demo_gen": torch.get_rng_state()}


def a1111_embedding():
    """Textual inversion of the web UI."""
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.rand(4, 768)}, "name": "my-style", "step": 5000,
            "sd_checkpoint": "81761151", "sd_checkpoint_name": "v1-5-pruned-emaonly"}


def original_embedding():
    """Textual inversion's own embedding manager: a ParameterDict."""
    return {"string_to_token": {"*": torch.tensor(265)},
            "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.rand(2, 768))})}


def diffusers_embedding():
    return {"<cat-toy>": torch.nn.Parameter(torch.rand(768))}


def hypernetwork():
    """Of the web UI: layers by the width of what they change, keys that are integers."""
    layers = [{"linear.0.weight": torch.rand(8, 4), "linear.0.bias": torch.rand(8)} for _ in range(2)]
    return {"step": 100, "name": "hyper", 768: layers, 320: layers, "layer_structure": [1, 2, 1], "activation_func": "linear",
            "is_layer_norm": False, "use_dropout": False, "sd_checkpoint": None, "optional_info": None, "dropout_structure": None,
            "optimizer_name": "AdamW"}


def kohya():
    """A LoRA saved as .ckpt or .pt."""
    part = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q."
    return {part + "lora_down.weight": torch.rand(4, 32).half(), part + "lora_up.weight": torch.rand(32, 4).half(), part + "alpha": torch.tensor(4.0)}


def esrgan():
    return {"params_ema": unet("conv_first."), "params": unet("conv_first.")}


def old_esrgan():
    return collections.OrderedDict(unet("model."))


def diffusers_bin():
    return net().state_dict()


def open_clip():
    """With module. of DataParallel and a GradScaler."""
    model, optimizer, _ = trained()
    return {"epoch": 32, "name": "ViT-B-32", "state_dict": {"module." + key: value for key, value in model.state_dict().items()},
            "optimizer": optimizer.state_dict(), "scaler": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "_growth_tracker": 3}}


def namespace():
    """With the command line that made it (fairseq, MAE, SAM, many others)."""
    return {"model": net().state_dict(), "args": argparse.Namespace(lr=1e-3, betas=(0.9, 0.999), device=torch.device("cpu"), dtype=torch.float16,
                                                                    size=torch.Size([1, 2]), flags={"a", "b"}, data=b"\x00\xff")}


def rng_states():
    """accelerate's random_states_0.pkl."""
    return {"step": 1, "random_state": (3, tuple(range(20)), None), "numpy_random_seed": np.random.get_state(), "torch_manual_seed": torch.get_rng_state()}


def numpy_values():
    return {"mean": np.float32(0.5), "count": np.int64(7), "flag": np.bool_(True), "table": np.arange(6.0).reshape(2, 3),
            "names": np.array(["a", "b"]), "weights": torch.rand(2)}


def quantised():
    model = torch.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(4, 4)), dtype=torch.qint8)
    per_channel = torch.quantize_per_channel(torch.rand(3, 3), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 0, 0]), 0, torch.quint8)
    return collections.OrderedDict(model.state_dict(), extra=torch.quantize_per_tensor(torch.rand(3), 0.1, 2, torch.quint8), channels=per_channel,
                                   accumulator=torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint32))


def views():
    """Storages that are shared, views, strides, and types."""
    base = torch.arange(60.0)
    return {"whole": base, "part": base[10:20], "second": base[20:], "columns": base.view(6, 10).t(), "every": base[::7], "wide": base[:1].expand(5, 6),
            "same": base, "empty": torch.zeros(0, 3), "scalar": torch.tensor(3), "half": torch.rand(3).half(), "bfloat": torch.rand(3).bfloat16(),
            "bool": torch.tensor([True, False]), "byte": torch.ones(3, dtype=torch.uint8), "complex": torch.zeros(2, dtype=torch.complex64),
            "double": torch.rand(2).double(), "short": torch.ones(2, dtype=torch.int16), "meta": torch.zeros(4, 4, device="meta"),
            "sparse": torch.eye(4).to_sparse(), "rows": torch.eye(4).to_sparse_csr(), "parameter": torch.nn.Parameter(torch.rand(2, 2))}


def strided():
    return {name: value for name, value in views().items() if name not in ("meta", "sparse", "rows", "parameter", "empty", "bool")}


def nested():
    inner = {"encoder": {"layers": [net().state_dict(), {"deep": {"deeper": (torch.rand(2), [torch.rand(3)])}}]}, 3: torch.rand(1), "none": None}
    return {"generator": inner, "discriminator": inner["encoder"], "iteration": 10}


def training_arguments():
    """training_args.bin of transformers."""
    import enum
    strategy = borrowed("transformers.trainer_utils", "IntervalStrategy", (str, enum.Enum)) if False else None
    arguments = borrowed("transformers.training_args", "TrainingArguments")()
    arguments.__dict__.update(output_dir="out", lr=1e-5, save_strategy=strategy, report_to=["none"])
    return arguments


def controlnet():
    return {"control_model." + key: value for key, value in net().state_dict().items()} | {"global_step": 100}


def deepspeed():
    """mp_rank_00_model_states.pt"""
    model, _, scheduler = trained()
    return {"module": model.state_dict(), "buffer_names": [], "optimizer": None, "param_shapes": [collections.OrderedDict(
        (key, value.shape) for key, value in model.named_parameters())], "lr_scheduler": scheduler.state_dict(), "sparse_tensor_module_names": set(),
        "dp_world_size": 8, "mp_world_size": 1, "ds_version": "0.12.3", "rng": torch.get_rng_state()}


MODELS = [stable_diffusion, lightning, omegaconf, ema, a1111_embedding, original_embedding, diffusers_embedding, hypernetwork, kohya, esrgan,
          old_esrgan, diffusers_bin, open_clip, namespace, rng_states, numpy_values, quantised, views, strided, nested, training_arguments, controlnet,
          deepspeed]


# ---------------------------------------------------------------------------------------------------
# What torch finds in it

WRAPPERS = ["state_dict", "params_ema", "params-ema", "params", "model", "module"]
TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32",
         torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64", torch.complex128: "C128",
         torch.qint8: "QI8", torch.quint8: "QU8", torch.qint32: "QI32"}


def layout(tensor):
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.device.type == "meta":
        return "none"
    return "dense" if tensor.is_contiguous() else "strided"


def walk(value, path, found):
    if isinstance(value, torch.Tensor):
        found.append((".".join(path), value))
    elif isinstance(value, torch.nn.ParameterDict):
        for key, inner in value.items():
            walk(inner, path + [str(key)], found)
    elif isinstance(value, dict):
        for i, (key, inner) in enumerate(value.items()):
            name = f"{key.__module__}.{key.__name__}" if isinstance(key, type) else str(key) if isinstance(key, (str, int)) else str(i)
            walk(inner, path + [name], found)
    elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        for i, inner in enumerate(value):
            walk(inner, path + [str(i)], found)
    elif isinstance(value, argparse.Namespace):
        walk(vars(value), path, found)


def tensors(root):
    """{name: [dtype, shape, layout, elements before it in its storage]}, in the order of lade's list."""
    found, skip = [], None
    own = isinstance(root, dict) and any(isinstance(value, torch.Tensor) for value in root.values())
    for i, key in enumerate(WRAPPERS):
        if isinstance(root, dict) and key in root and not (own and i > 2):
            inside = []
            walk(root[key], [], inside)
            if inside and not isinstance(root[key], torch.Tensor):
                found, skip = inside, key
                break
    walk({key: value for key, value in root.items() if key != skip} if isinstance(root, dict) else root, [], found)
    return {name: [TYPES[value.dtype], list(value.shape), layout(value)] for name, value in found}


def write_tar(root, path):
    """As torch 0.1 wrote it: storages, the tensors in them, and a pickle that names tensors by number."""
    tensors = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, torch.Tensor):
                return None
            tensors[id(value)] = value
            return str(id(value))

    out = io.BytesIO()
    Pickler(out, 2).dump(root)
    storages = {value.storage().data_ptr() or id(value): value.storage() for value in tensors.values()}
    stored = pickle.dumps(len(storages), 2)
    for key, storage in storages.items():
        # the class torch.FloatStorage, which pickles by its name
        stored += pickle.dumps((key, "cpu", getattr(torch, storage.pickle_storage_type())), 2)
        stored += struct.pack("<q", storage.size()) + bytes(storage.untyped())
    stored += pickle.dumps([], 2)
    listed = pickle.dumps(len(tensors), 2)
    for key, value in tensors.items():
        listed += pickle.dumps((key, value.storage().data_ptr() or id(value), torch.FloatTensor), 2)
        listed += struct.pack(f"<i4x{value.dim()}q{value.dim()}qq", value.dim(), *value.shape, *value.stride(), value.storage_offset())
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in (("sys_info", pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2)), ("storages", stored),
                           ("tensors", listed), ("pickle", out.getvalue())):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1500000000.25
            file.addfile(info, io.BytesIO(data))


def write(folder):
    """Every model as a zip archive, as pickles in a row, and as a plain pickle; {path: tensors}."""
    made = {}
    for model in MODELS:
        root = model()
        for kind, options in (("zip", {}), ("legacy", {"_use_new_zipfile_serialization": False}), ("zip4", {"pickle_protocol": 4}),
                              ("legacy4", {"_use_new_zipfile_serialization": False, "pickle_protocol": 4})):
            path = os.path.join(folder, f"{model.__name__}.{kind}.pt")
            torch.save(root, path, **options)
            made[path] = torch.load(path, map_location=lambda storage, _: storage)
        if model in (diffusers_bin, kohya, nested, strided):
            path = os.path.join(folder, f"{model.__name__}.tar.pt")
            write_tar(root, path)
            made[path] = torch.load(path)
        for protocol in range(2, 6):
            path = os.path.join(folder, f"{model.__name__}.plain{protocol}.pkl")
            with open(path, "wb") as out:
                pickle.dump({key: value for key, value in root.items() if key != "meta"} if isinstance(root, dict) else root, out, protocol)
            with open(path, "rb") as file:
                made[path] = pickle.load(file)
    return {path: tensors(root) for path, root in made.items()}


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    found = write(folder)
    with open(os.path.join(folder, "tensors.json"), "w", encoding="utf-8") as out:
        json.dump(found, out)
    print(len(found), "files of", len(MODELS), "models")


if __name__ == "__main__":
    main()
