"""Every format that is loaded, seen by a pipeline's process through client/python/lade.py, beside numpy's reading of it.

The files are small and made here; what becomes of their numbers is computed here too, from the formats' definitions.
"""
import json
import os
import re
import struct
import subprocess
import sys

from lib import weights
from lib.skip import Skip
from lib.world import BUILD, ROOT, LadeError, World

try:
    import numpy as np
    from lib import ggml, torchfile
except ImportError:
    np = None

LIMIT_S = 180
EVEN = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "U8": "u1", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}


def sanitizer_environment():
    needs = subprocess.run(["ldd", os.path.join(BUILD, "liblade.so.0")], stdout=subprocess.PIPE, text=True, check=False)
    for line in needs.stdout.splitlines():
        if "libasan" in line:
            return {"LD_PRELOAD": line.split("=>")[1].split()[0], "ASAN_OPTIONS": "detect_leaks=0"}
    return {}


class Seen:
    """What a process that loads a model sees of it: arrays by name, and what lade says of them."""

    def __init__(self, world, **options):
        out = os.path.join(world.folder, "seen.npz")
        env = {**world.environment(), "LADE_LIBRARY": os.path.join(BUILD, "liblade.so.0"), **sanitizer_environment()}
        done = subprocess.run([sys.executable, os.path.join(ROOT, "tests/e2e/view.py"), os.path.join(ROOT, "client/python"),
                               world.data, out, json.dumps(options)], env=env, stdout=subprocess.PIPE, timeout=90, check=False)
        assert done.returncode == 0, (done.returncode, done.stdout)
        self.said = json.loads(done.stdout)
        self.arrays = {}
        if "tensors" in self.said:
            with np.load(out) as file:
                self.arrays = {name.replace("|", "/"): file[name] for name in file.files}

    def dtypes(self):
        return {name: tensor[0] for name, tensor in self.said["tensors"].items()}


def world():
    if np is None:
        raise Skip("python3-numpy is not installed")
    return World()


def record(w, path, kind, format="checkpoint", base="sd-1", **more):
    """A record for files as they are, whatever they hold."""
    return w.call("store", "add_model", config={"name": os.path.basename(path), "type": kind, "format": format, "base": base,
                                                "path": path, **more})["key"]


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, array of its bits)}."""
    header, at = {}, 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, array in tensors.values():
            file.write(array.tobytes())
    return path


def bf16(values):
    """float32 to the bits of the nearest BF16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7fc0), rounded)


def e4m3(bits):
    size, exponent, fraction = bits & 0x7f, (bits >> 3 & 15).astype(int), (bits & 7).astype(np.float64)
    value = np.where(exponent > 0, np.ldexp(8 + fraction, exponent - 10), np.ldexp(fraction, -9))
    return np.where(size == 0x7f, np.nan, value) * np.where(bits & 0x80, -1, 1)


def as_floats(dtype, array):
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype == "F8_E5M2":
        return (array.astype(np.uint16) << 8).view(np.float16).astype(np.float64)
    return e4m3(array) if dtype == "F8_E4M3" else array.astype(np.float64)


def assert_same(name, seen, wanted, wanted_bits=None):
    """Equal numbers; of BF16 (bits) equal bits, but for those that are no numbers."""
    assert seen.shape == wanted.shape, (seen.shape, wanted.shape)
    if seen.dtype == np.uint16 and wanted_bits is not None:
        same = (seen == wanted_bits) | (np.isnan(wanted) & ((seen & 0x7fff) > 0x7f80))
        assert same.all(), (name, np.argwhere(~same)[:5], seen[~same][:5], wanted[~same][:5])
    else:
        np.testing.assert_array_equal(seen, wanted)


def mixed(seed=7):
    """Tensors of every type that is cast, with the ends of their ranges, and of one that is not."""
    rng = np.random.default_rng(seed)
    odd = np.array([0, -0., 1e-40, 65519, 65520, -65535, 3e38, np.inf, -np.inf, np.nan, 1 + 2 ** -11, 1 + 2 ** -8])
    wide = np.concatenate([odd, rng.normal(0, 100, 5000) * 10.0 ** rng.integers(-12, 12, 5000)])
    with np.errstate(over="ignore"):
        tensors = {"f64": ("F64", wide), "f32": ("F32", wide.astype("<f4")), "f16": ("F16", wide.astype("<f2")),
                   "bf16": ("BF16", bf16(wide.astype("<f4")))}
    every = np.arange(256, dtype=np.uint8)
    tensors.update({"f8.a": ("F8_E4M3", every), "f8.b": ("F8_E5M2", every), "ids": ("I64", np.arange(77)),
                    "conv.weight": ("F32", rng.normal(size=(8, 5, 3, 3)).astype("<f4")),
                    "conv.one": ("F16", rng.normal(size=(8, 4, 1, 1)).astype("<f2")),
                    "linear": ("F16", rng.normal(size=(6, 10)).astype("<f2")), "none": ("F32", np.zeros((0, 3), "<f4"))})
    return tensors


def test_casts_and_layouts_are_those_of_numpy():
    with world() as w:
        w.up()
        tensors = mixed()
        key = record(w, write_safetensors(os.path.join(w.folder, "x.safetensors"), tensors), "vae")
        stored = Seen(w, key=key, with_torch=has_torch())
        assert stored.said["location"] == "host"
        for name, (dtype, array) in tensors.items():
            assert stored.dtypes()[name] == dtype
            np.testing.assert_array_equal(stored.arrays[name], array)
        for dtype, name in (("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")):
            seen = Seen(w, key=key, dtype=dtype, layout="channels_last", with_torch=has_torch())
            assert seen.said["precision"] == {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}[dtype], seen.said
            for tensor, (was, array) in tensors.items():
                if was == "I64":
                    np.testing.assert_array_equal(seen.arrays[tensor], array)
                    continue
                assert seen.dtypes()[tensor] == name
                values = as_floats(was, array)
                with np.errstate(over="ignore"):
                    wanted = values.astype({"F16": "<f2", "F32": "<f4", "BF16": "<f4"}[name])
                bits = None
                if name == "BF16" and was == "F64":
                    continue  # rounded once: workers/gpu/transform_test.c, as numpy has no BF16
                if name == "BF16":
                    bits = bf16(wanted)
                assert_same(tensor, seen.arrays[tensor], wanted, bits)
            assert seen.said["tensors"]["conv.weight"][2] == [45, 1, 15, 5], seen.said["tensors"]["conv.weight"]
            assert seen.said["tensors"]["linear"][2] == [10, 1]


def has_torch():
    try:
        import torch  # noqa: F401
        return True
    except ImportError:
        return False


def test_checkpoints_of_torch():
    """zip and legacy: views are contiguous, what is shared is there once, what is at odd places is aligned."""
    with world() as w:
        w.up()
        rng = np.random.default_rng(3)
        base, other = rng.normal(size=(40, 30)).astype("<f4"), rng.normal(size=(12, 6, 3, 3)).astype("<f4")
        small = rng.normal(size=(7,)).astype("<f2")
        V = torchfile.View
        tree = {"a.weight": V(base), "tied.weight": V(base), "turned": V(base, (30, 40), (1, 30)),
                "cut": V(base, (3, 4), (60, 2), 35), "wide": V(small, (5, 7), (0, 1)), "small": V(small),
                "conv": V(other), "last": V(other.transpose(0, 2, 3, 1).copy(), (12, 6, 3, 3), (54, 1, 18, 6)),
                "ids": V(np.arange(9))}
        for write in (torchfile.write_zip, torchfile.write_legacy):
            for wrapped in (False, True):
                path = write(os.path.join(w.folder, f"{write.__name__}{wrapped}.ckpt"), {"state_dict": tree} if wrapped else tree)
                key = record(w, path, "vae")
                seen = Seen(w, key=key, with_torch=has_torch())
                assert set(seen.arrays) == set(tree), seen.arrays.keys()
                for name, view in tree.items():
                    np.testing.assert_array_equal(seen.arrays[name], view.array(), name)
                    strides = seen.said["tensors"][name][2]
                    assert strides == [int(np.prod(view.shape[i + 1:])) for i in range(len(view.shape))], (name, strides)
                    assert seen.said["tensors"][name][3] % 8 == 0, "aligned"
                half = Seen(w, key=key, dtype="fp16", layout="channels_last")
                for name, view in tree.items():
                    kind = view.storage.dtype if name == "ids" else "<f2"
                    np.testing.assert_array_equal(half.arrays[name], view.array().astype(kind), name)
                unique = sum(array.nbytes for name, array in half.arrays.items() if name != "tied.weight")
                assert half.said["bytes"] < unique + 4096 + len(tree) * 64 + 4096, "the tied weight is there once"


def gguf_text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def write_gguf(path, tensors):
    """tensors: {name: (type, shape, its blocks)}."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 1)
    head += gguf_text("general.architecture") + struct.pack("<I", 8) + gguf_text("flux")
    at, infos, data = 0, b"", b""
    for name, (kind, shape, blocks) in tensors.items():
        infos += gguf_text(name) + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", dim) for dim in reversed(shape)) + struct.pack("<IQ", ggml.TYPES[kind][0], len(data))
        data += blocks.tobytes()
        data += b"\0" * (-len(data) % 32)
    head += infos
    head += b"\0" * (-len(head) % 32)
    with open(path, "wb") as file:
        file.write(head + data)
    return path


def test_blocks_of_gguf():
    """Raw blocks with their type as stored; on request numbers, as computed from the format's definition."""
    with world() as w:
        w.up()
        tensors = {}
        for seed, (kind, (_, block, _, _)) in enumerate(ggml.TYPES.items()):
            tensors[kind] = (kind, [6, 5 * block], ggml.blocks(kind, 30, seed))
        key = record(w, write_gguf(os.path.join(w.folder, "x.gguf"), tensors), "main", "gguf_quantized", "flux")
        stored = Seen(w, key=key, submodel="transformer")
        for name, (kind, shape, blocks) in tensors.items():
            assert stored.said["tensors"][name][:2] == [kind, shape]
            assert stored.arrays[name].tobytes() == blocks.tobytes(), name
        assert stored.said["metadata"]["general.architecture"] == "flux"
        for dtype in ("fp32", "fp16", "bf16"):
            seen = Seen(w, key=key, dtype=dtype)
            for name, (kind, shape, blocks) in tensors.items():
                wanted = ggml.dequantise(kind, blocks).reshape(shape)
                if dtype == "fp16":
                    with np.errstate(over="ignore"):
                        wanted = wanted.astype("<f2")
                assert_same(name, seen.arrays[name], wanted, bf16(wanted) if dtype == "bf16" else None)


def varint(value):
    out = b""
    while value > 0x7f:
        out, value = out + bytes([value & 0x7f | 0x80]), value >> 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def write_onnx(folder, outside):
    """A graph with a weight in it and one in a file beside it."""
    weight = np.arange(6, dtype="<f4")
    inside = field(1, 6) + field(2, 1) + field(8, "inside") + field(9, weight.tobytes())
    external = b"".join(field(13, field(1, key) + field(2, value))
                        for key, value in (("location", "weights.pb"), ("offset", "0"), ("length", str(len(outside)))))
    beside = field(1, len(outside) // 4) + field(2, 1) + field(8, "beside") + external + field(14, 1)
    graph = field(1, field(1, "x") + field(2, "y") + field(4, "Identity")) + field(2, "main")
    graph += field(5, inside) + field(5, beside)
    graph += field(11, field(1, "x") + field(2, field(1, field(1, 1) + field(2, field(1, field(1, 1))))))
    os.makedirs(folder, exist_ok=True)
    text = field(1, 8) + field(2, "pytorch") + field(7, graph) + field(8, field(1, "") + field(2, 14))
    for name, data in (("model.onnx", text), ("weights.pb", outside)):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    return text


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def test_graphs_of_onnx():
    with world() as w:
        w.up()
        outside = np.arange(1000, dtype="<f4").tobytes()
        folder = os.path.join(w.folder, "onnx")
        text = write_onnx(os.path.join(folder, "unet"), outside)
        write_json(os.path.join(folder, "model_index.json"), {"unet": ["diffusers", "OnnxRuntimeModel"]})
        key = record(w, folder, "onnx", "onnx")
        seen = Seen(w, key=key, submodel="unet", dtype="fp16")
        assert seen.arrays["model.onnx"].tobytes() == text and seen.arrays["weights.pb"].tobytes() == outside
        assert seen.dtypes() == {"model.onnx": "U8", "weights.pb": "U8"}
        assert seen.said["metadata"]["opset_import"] == {"ai.onnx": 14} and seen.said["metadata"]["producer_name"] == "pytorch", seen.said
        assert Seen(w, key=key).said["code"] == "ValueError"


def test_weights_beside_a_graph_that_change():
    """A graph that is as it was, whose weights are others: loaded anew; gone: told, though all of it is in the cache."""
    with world() as w:
        w.up()
        folder = os.path.join(w.folder, "onnx")
        beside = os.path.join(folder, "weights.pb")
        numbers = [np.full(1000, fill, dtype="<f4").tobytes() for fill in range(3)]
        write_onnx(folder, numbers[0])
        key = record(w, folder, "onnx", "onnx")

        def loads(wanted):
            seen = Seen(w, key=key)
            assert seen.arrays["weights.pb"].tobytes() == wanted
            (stats,) = w.call("load", "cache_stats").values()
            return stats["misses"]
        assert loads(numbers[0]) == 1 and loads(numbers[0]) == 1, "the same files are read once"
        with open(beside + ".new", "wb") as file:
            file.write(numbers[1])
        os.replace(beside + ".new", beside)
        assert loads(numbers[1]) == 2
        with open(beside, "r+b") as file:
            file.write(numbers[2])
        os.utime(beside, (1, 1))
        assert loads(numbers[2]) == 3
        os.unlink(beside)
        said = Seen(w, key=key).said
        assert said["code"] == "ModelNotFound" and "weights.pb" in said["message"], said


def test_each_kind_of_model():
    """(type, format, base, what there is, submodel, where its tensors come from)."""
    with world() as w:
        w.up()
        rng = np.random.default_rng(5)
        arrays = {"a.weight": rng.normal(size=(4, 6)).astype("<f4"), "b.weight": rng.normal(size=(3,)).astype("<f2")}
        st = {name: ("F32" if array.dtype == np.float32 else "F16", array) for name, array in arrays.items()}
        pt = {name: torchfile.View(array) for name, array in arrays.items()}
        nested = {"ip_adapter": {"1.to_k_ip.weight": pt["a.weight"]}, "image_proj": {"proj.weight": pt["b.weight"]}}
        nested_names = {"ip_adapter.1.to_k_ip.weight": "a.weight", "image_proj.proj.weight": "b.weight"}
        cases = [
            ("main", "diffusers", "sd-1", "unet/diffusion_pytorch_model.safetensors", "unet"),
            ("main", "diffusers", "sdxl", "vae/diffusion_pytorch_model.bin", "vae"),
            ("main", "diffusers", "flux", "transformer/diffusion_pytorch_model.safetensors", "transformer"),
            ("main", "checkpoint", "sd-1", ".safetensors", None), ("main", "checkpoint", "sd-2", ".ckpt", None),
            ("main", "checkpoint", "flux", ".safetensors", "transformer"),
            ("lora", "lycoris", "sd-1", ".safetensors", None), ("lora", "diffusers", "sdxl", "pytorch_lora_weights.bin", None),
            ("embedding", "embedding_file", "sd-1", ".pt", None),
            ("embedding", "embedding_folder", "sd-1", "learned_embeds.bin", None),
            ("controlnet", "diffusers", "sd-1", "diffusion_pytorch_model.safetensors", None),
            ("controlnet", "checkpoint", "sd-1", ".pth", None), ("vae", "diffusers", "sd-1", "diffusion_pytorch_model.bin", None),
            ("vae", "checkpoint", "sdxl", ".pt", None), ("clip_vision", "diffusers", "any", "model.safetensors", None),
            ("t2i_adapter", "diffusers", "sd-1", "diffusion_pytorch_model.safetensors", None),
            ("ip_adapter", "invokeai", "sd-1", "ip_adapter.bin", None), ("ip_adapter", "checkpoint", "sdxl", ".safetensors", None),
            ("t5_encoder", "t5_encoder", "any", "text_encoder_2/model.safetensors", "text_encoder_2"),
            ("clip_embed", "diffusers", "any", "text_encoder/model.safetensors", "text_encoder"),
            ("qwen3_encoder", "qwen3_encoder", "any", "text_encoder/pytorch_model.bin", "text_encoder"),
            ("spandrel_image_to_image", "checkpoint", "any", ".pth", None), ("flux_redux", "checkpoint", "flux", ".safetensors", None),
            ("control_lora", "lycoris", "flux", ".safetensors", None), ("siglip", "diffusers", "any", "model.safetensors", None),
            ("t5_encoder", "t5_encoder", "any", "text_encoder_2/model-0000%d-of-00002.safetensors", "text_encoder_2"),
            ("main", "diffusers", "sdxl", "unet/diffusion_pytorch_model-0000%d-of-00002.bin", "unet"),
            ("clip_vision", "diffusers", "any", "model.fp16-0000%d-of-00002.safetensors", None),
        ]
        for number, (kind, format, base, there, submodel) in enumerate(cases):
            alone = there.startswith(".")
            path = os.path.join(w.folder, f"m{number}{there if alone else ''}")
            file = path if alone else os.path.join(path, there)
            os.makedirs(os.path.dirname(file), exist_ok=True)
            wanted = {name: name for name in arrays}
            if "%d" in there:  # a tensor in each shard
                for shard, name in enumerate(arrays, 1):
                    if there.endswith(".bin"):
                        torchfile.write_zip(file % shard, {name: pt[name]})
                    else:
                        write_safetensors(file % shard, {name: st[name]})
            elif there.endswith(".safetensors"):
                write_safetensors(file, st)
            elif format == "invokeai":
                wanted = nested_names
                torchfile.write_zip(file, nested)
            else:
                (torchfile.write_legacy if number % 2 else torchfile.write_zip)(file, pt)
            if format == "diffusers" and kind == "main":
                write_json(os.path.join(path, "model_index.json"), {submodel: ["diffusers", "X"]})
            more = {"image_encoder_model_id": "ip_adapter_sd_image_encoder"} if format == "invokeai" else {}
            seen = Seen(w, key=record(w, path, kind, format, base, **more), **({"submodel": submodel} if submodel else {}))
            assert set(seen.arrays) == set(wanted), (kind, format, seen.said)
            for name, source in wanted.items():
                np.testing.assert_array_equal(seen.arrays[name], arrays[source], f"{kind}.{format}")


# What the issue of loading names, as identification makes records of it.
IDENTIFIED = ("lora", "lora-peft-sdxl", "ti", "ti-folder-sdxl", "controlnet-sd1", "controlnet-diffusers", "ip-adapter-sd1-bin",
              "clip-vision", "vae-pt", "sd-1-ckpt", "ti-pt", "sd-1-normal-gguf", "onnx-sd-1-normal")


def whole(record):
    """What of a record of one part is loaded; of a pipeline one part."""
    return {"submodel": "unet"} if record["type"] in ("main", "onnx") and record["format"] not in ("checkpoint", "gguf_quantized") else {}


def test_what_identification_finds_is_loaded():
    """Models with real names and shapes: put on disk, found by a scan, and each tensor as this program reads it."""
    with world() as w:
        there = os.path.join(w.folder, "m")
        subprocess.run([sys.executable, os.path.join(ROOT, "tests/models/make_models.py"), "--small", "--random", there, *IDENTIFIED],
                       check=True)
        w.up()
        keys = w.call("install", "scan_directory", scan_dir=there)
        records = [w.call("store", "get_model", key=key) for key in keys]
        assert len(records) == len(IDENTIFIED), [record["path"] for record in records]
        compared = 0
        for one in records:
            seen = Seen(w, key=one["key"], **whole(one))
            assert seen.said.get("tensors"), (one["path"], seen.said)
            files = [os.path.join(at, name) for at, _, names in os.walk(one["path"]) for name in names] or [one["path"]]
            for file in (name for name in files if name.endswith(".safetensors")):
                for name, (dtype, shape, data) in weights.read_safetensors(file).items():
                    assert seen.said["tensors"][name][:2] == [dtype, list(shape)], (file, name)
                    assert seen.arrays[name].tobytes() == data, (file, name)
                    compared += 1
        assert compared > 500, compared


def test_every_kind_that_is_identified_has_a_loader():
    """(base, type, format) of all models in tests/models/catalogue, beside the rows of workers/gpu/loaders.c."""
    sys.path.insert(0, os.path.join(ROOT, "tests/models"))
    import catalogue
    with open(os.path.join(ROOT, "workers/gpu/loaders.c"), encoding="utf-8") as file:
        rows = set(re.findall(r'\{"([\w.-]+)",\s*"([\w-]+)",\s*"([\w-]+)",\s*s_\w+', file.read()))
    assert len(rows) > 50, rows
    known = [case.expected for case in catalogue.read().values() if "type" in case.expected]
    assert len(known) > 400
    for model in known:
        of = model["type"], model["format"]
        assert (model["base"], *of) in rows or ("any", *of) in rows, model


def test_by_name_and_by_config_and_what_is_refused():
    with world() as w:
        w.up()
        path = write_safetensors(os.path.join(w.folder, "x.safetensors"), mixed())
        key = record(w, path, "vae")
        config = w.call("store", "get_model", key=key)
        assert Seen(w, config=config).said["key"] == key
        assert Seen(w, name="x.safetensors", base="sd-1", type="vae").said["key"] == key
        for options, code, words in (
            ({"key": "0" * 32}, "UnknownModel", ""), ({"name": "y"}, "UnknownModel", ""),
            ({"key": key, "submodel": "unet"}, "ValueError", "no submodel"),
            ({"key": key, "dtype": "int8"}, "ValueError", "stored, fp32, fp16, bf16"),
            ({"key": key, "layout": "last"}, "ValueError", "channels_last"),
            ({"key": key, "device": "tpu"}, "ValueError", "cpu, cuda, cuda:N"),
            ({"config": {"key": "1" * 32}}, "UnknownModel", ""), ({"config": {}}, "ValueError", "its key"),
            ({"key": key, "context": [1]}, "ValueError", "JSON object"),
        ):
            said = Seen(w, **options).said
            assert said.get("code") == code and words in said["message"], (options, said)


def test_what_no_record_tells_of():
    """A path, a folder, and a source that is fetched once."""
    with world() as w:
        w.up()
        array = np.arange(40, dtype="<f4").reshape(5, 8)
        path = write_safetensors(os.path.join(w.folder, "f", "model.safetensors"), {"w": ("F32", array)})
        for options in ({"path": path, "dtype": "fp16"}, {"path": os.path.dirname(path), "dtype": "fp16"}):
            seen = Seen(w, **options)
            assert seen.said["key"] == options["path"] and seen.dtypes() == {"w": "F16"}, seen.said
            np.testing.assert_array_equal(seen.arrays["w"], array)
        for options, code in (({"path": "f/model.safetensors"}, "ValueError"), ({"path": path + "x"}, "ModelNotFound"),
                              ({"path": path, "submodel": "vae"}, "ValueError")):
            assert Seen(w, **options).said["code"] == code, options
        write_safetensors(w.hub.file("remote.safetensors"), {"w": ("F32", array)})
        first, second = (Seen(w, source=f"{w.hub.url}/files/remote.safetensors") for _ in range(2))
        np.testing.assert_array_equal(first.arrays["w"], array)
        assert first.said["key"] == second.said["key"] and os.path.isabs(first.said["key"])


def test_what_would_run_code_is_loaded_only_by_name():
    """A pickle that calls a function: refused, and with allow_unsafe its tensors come, nothing is run, the events tell."""
    with world() as w:
        w.up()
        mark = os.path.join(w.folder, "it-ran")

        class Evil:
            def __reduce__(self):
                return (os.mkdir, (mark,))

        array = np.arange(12, dtype="<f4")
        path = torchfile.write_zip(os.path.join(w.folder, "evil.ckpt"), {"w": torchfile.View(array), "x": Evil()})
        key = record(w, path, "vae")
        events = w.events("model_load_", "broker_beat")
        events.ready()
        said = Seen(w, key=key).said
        assert said["code"] == "unsafe_file" and "allow_unsafe" in said["message"], said
        assert Seen(w, key=key, allow_unsafe="another").said["code"] == "unsafe_file"
        seen = Seen(w, key=key, allow_unsafe=key, context={"queue_id": "q1"})
        np.testing.assert_array_equal(seen.arrays["w"], array)
        told = events.until(lambda event: event["event"] == "model_load_completed")
        assert told[-1]["allow_unsafe"] == key and told[-1]["queue_id"] == "q1", told[-1]
        assert told[-1]["precision"] == "float32" and told[-1]["location"] == "host" and told[-1]["model_key"] == key
        assert Seen(w, key=key).said["code"] == "unsafe_file", "it is in the cache, and still refused"
        assert not os.path.exists(mark)
        safe = torchfile.write_zip(os.path.join(w.folder, "kept.ckpt"), {"w": torchfile.View(array)})
        key = record(w, safe, "vae", quarantined=True)
        assert Seen(w, key=key).said["code"] == "unsafe_file"
        np.testing.assert_array_equal(Seen(w, key=key, allow_unsafe=key).arrays["w"], array)


def test_the_command_shows_what_was_asked_for():
    with world() as w:
        w.up()
        path = write_safetensors(os.path.join(w.folder, "x.safetensors"), mixed())
        key = record(w, path, "vae")
        loaded = w.lade_json("load", key, "--dtype", "bf16", "--layout", "channels_last", "--device", "cpu")
        assert (loaded["precision"], loaded["layout"], loaded["device"]) == ("bfloat16", "channels_last", "cpu"), loaded
        assert {t["dtype"] for t in loaded["tensors"]} == {"BF16", "I64"}
        assert "bfloat16, channels last," in w.lade("load", key, "--dtype", "bf16", "--layout", "channels_last").stdout
        shown = w.eventually(lambda: (text := w.lade("cache").stdout).count("bfloat16") and text, 20)
        assert "bfloat16, channels last" in shown and " 1 models, " in shown and "x.safetensors" in shown, shown
        (stats,) = w.call("load", "cache_stats").values()
        assert stats["in_cache"] == 1 and list(stats["loaded_model_sizes"]) == ["sd-1:vae:x.safetensors"], stats
        w.lade("load", key, "--dtype", "int4", status=2)
        try:
            w.call("load", "load_model_by_key", key=key, dtype="int4")
            raise AssertionError("int4 was taken")
        except LadeError as error:
            assert error.code == "ValueError", error


def test_the_command_takes_paths_names_and_attributes():
    """`lade load` of a file without a record, of a name with its type, and what it says of parts without weights and of doubt."""
    with world() as w:
        w.up()
        path = write_safetensors(os.path.join(w.folder, "x.safetensors"), {"w": ("F32", np.arange(4, dtype="<f4"))})
        loaded = w.lade_json("load", path)
        assert loaded["key"] == loaded["path"] == path and loaded["tensors"][0]["name"] == "w", loaded
        assert "(1 tensor, " in w.lade("load", path).stdout
        assert "no file or folder ./nix" in w.lade("load", "./nix", status=3).stderr
        keys = [record(w, path, "vae", name="twin"), record(w, os.path.join(w.folder, "y"), "lora", "lycoris", name="twin")]
        said = w.lade("load", "twin", status=1).stderr
        assert all(words in said for words in (*keys, "vae/sd-1/checkpoint", "lora/sd-1/lycoris")), said
        assert w.lade_json("load", "twin", "--type", "vae")["key"] == keys[0]
        assert "the type main" in w.lade("load", "twin", "--type", "main", "--base", "sd-1", status=3).stderr
        folder = os.path.join(w.folder, "p")
        write_json(os.path.join(folder, "model_index.json"), {"tokenizer": ["transformers", "CLIPTokenizer"]})
        write_json(os.path.join(folder, "tokenizer", "vocab.json"), {})
        said = w.lade("load", record(w, folder, "main", "diffusers"), "--submodel", "tokenizer").stdout
        assert said == f"p/tokenizer: it has no weights; its files are at {folder}/tokenizer\n", said
