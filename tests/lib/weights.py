"""Small weight files written by hand: safetensors with real names and shapes and seeded content."""
import hashlib
import json
import os
import random
import struct

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


def write_safetensors(path, tensors, metadata=None, seed=None, tail=b""):
    """tensors: {name: (dtype, shape)}. Content is seeded random bytes, or a hole (zeros) when seed is None."""
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape) in tensors.items():
        size = SIZES[dtype]
        for dim in shape:
            size *= dim
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if seed is None:
            file.truncate(8 + len(text) + at)
        else:
            source = random.Random(seed)
            left = at
            while left > 0:
                piece = source.randbytes(min(left, 1 << 20))
                file.write(piece)
                left -= len(piece)
        if tail:
            file.seek(0, os.SEEK_END)
            file.write(tail)
    return path


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}, the outsider's way."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], tuple(entry["shape"]), data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}


def embedding(path, seed, vectors=4, width=768):
    """A textual inversion, the smallest model there is (sd-1 at width 768, sd-2 at 1024)."""
    return write_safetensors(path, {"emb_params": ("F32", (vectors, width))}, seed=seed)


def lora(path, seed, rank=4, width=768):
    """A kohya LoRA of one text encoder layer and one attention block."""
    tensors = {}
    for name, inner, outer in (
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", width, width * 4),
        ("lora_te_text_model_encoder_layers_0_self_attn_k_proj", width, width),
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", width, 320),
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v", width, 320),
    ):
        tensors[f"{name}.alpha"] = ("F32", ())
        tensors[f"{name}.lora_down.weight"] = ("F16", (rank, inner))
        tensors[f"{name}.lora_up.weight"] = ("F16", (outer, rank))
    return write_safetensors(path, tensors, {"ss_network_module": "networks.lora"}, seed)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def tree(folder):
    """{relative path: sha256} of a file or folder; what goes while it is looked at is not there."""
    if os.path.isfile(folder):
        return {"": sha256(folder)}
    found = {}
    for above, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)
            try:
                found[os.path.relpath(path, folder)] = sha256(path)
            except FileNotFoundError:
                continue
    return found
