"""Checkpoints in the naming of the original code, and what diffusers calls the same weights.

Both are built at once, block by block, by walking through the networks as their two constructors do: the original appends
modules to a list and counts them, diffusers nests levels. Widths are small, blocks and names are the real ones.

    entries = checkpoint("sdxl")
    write(path, entries, seed=1)
    expected(path, entries)   {part: {name: (dtype, shape, bytes)}}
"""
import os
import pickle

from lib import weights

try:
    import numpy
except ImportError:
    numpy = None


class Entry:
    """A tensor of the original, and [(part, name in diffusers, what is done to it)]; none: it is left out."""

    def __init__(self, name, shape, becomes, dtype="F16"):
        self.name, self.shape, self.becomes, self.dtype = name, tuple(shape), becomes, dtype


def _pair(out, part, old, new, weight, bias=True, done="same", prefix=""):
    """weight and bias of one module."""
    out.append(Entry(f"{prefix}{old}.weight", weight, [(part, f"{new}.weight", done)]))
    if bias:
        out.append(Entry(f"{prefix}{old}.bias", weight[:1], [(part, f"{new}.bias", "same")]))


# ------------------------------------------------------------------------------------------------
# U-Net

def _resnet(out, part, prefix, old, new, inner, outer, time):
    def add(first, second, weight):
        _pair(out, part, f"{old}.{first}", f"{new}.{second}", weight, prefix=prefix)
    add("in_layers.0", "norm1", (inner,))
    add("in_layers.2", "conv1", (outer, inner, 3, 3))
    add("emb_layers.1", "time_emb_proj", (outer, time))
    add("out_layers.0", "norm2", (outer,))
    add("out_layers.3", "conv2", (outer, outer, 3, 3))
    if inner != outer:
        add("skip_connection", "conv_shortcut", (outer, inner, 1, 1))


def _attention(out, part, prefix, old, new, width, context, depth, linear):
    point = (width, width) if linear else (width, width, 1, 1)

    def add(name, weight, bias=True):
        _pair(out, part, f"{old}.{name}", f"{new}.{name}", weight, bias, prefix=prefix)
    add("norm", (width,))
    add("proj_in", point)
    for layer in range(depth):
        at = f"transformer_blocks.{layer}"
        for number, seen in ((1, width), (2, context)):
            add(f"{at}.attn{number}.to_q", (width, width), False)
            add(f"{at}.attn{number}.to_k", (width, seen), False)
            add(f"{at}.attn{number}.to_v", (width, seen), False)
            add(f"{at}.attn{number}.to_out.0", (width, width))
        add(f"{at}.ff.net.0.proj", (width * 8, width))
        add(f"{at}.ff.net.2", (width, width * 4))
        for number in (1, 2, 3):
            add(f"{at}.norm{number}", (width,))
    add("proj_out", point)


UNETS = {  # multiples of the width, depth of the attention at each level (0: none) and in the middle, text width, extra
    "sd-1": ((1, 2, 4, 4), (1, 1, 1, 0), 1, 768, None),
    "sd-2": ((1, 2, 4, 4), (1, 1, 1, 0), 1, 1024, None),
    "sdxl": ((1, 2, 4), (0, 2, 10), 10, 2048, 2816),
    "sdxl-refiner": ((1, 2, 4, 4), (0, 4, 4, 0), 4, 1280, 2560),
}


def _way_down(out, part, prefix, base, channels, width, seeing=None):
    """Both networks begin like that; answers what was appended, as widths, for the way up. seeing: other depths, of the
    levels and of the middle; None in the middle: no attention, and one resnet alone."""
    multiples, depths, middle, context, extra = UNETS[base]
    depths, middle = seeing or (depths, middle)
    time, linear = width * 4, base != "sd-1"
    for old, new, inner in (("time_embed.0", "time_embedding.linear_1", width), ("time_embed.2", "time_embedding.linear_2", time)):
        _pair(out, part, old, new, (time, inner), prefix=prefix)
    if extra:
        _pair(out, part, "label_emb.0.0", "add_embedding.linear_1", (time, extra), prefix=prefix)
        _pair(out, part, "label_emb.0.2", "add_embedding.linear_2", (time, time), prefix=prefix)
    _pair(out, part, "input_blocks.0.0", "conv_in", (width, channels, 3, 3), prefix=prefix)
    appended, now = [width], width
    for level, (times, depth) in enumerate(zip(multiples, depths)):
        for number in range(2):
            block = f"input_blocks.{len(appended)}"
            _resnet(out, part, prefix, f"{block}.0", f"down_blocks.{level}.resnets.{number}", now, width * times, time)
            now = width * times
            if depth:
                _attention(out, part, prefix, f"{block}.1", f"down_blocks.{level}.attentions.{number}", now, context, depth, linear)
            appended.append(now)
        if level + 1 < len(multiples):
            _pair(out, part, f"input_blocks.{len(appended)}.0.op", f"down_blocks.{level}.downsamplers.0.conv", (now, now, 3, 3),
                  prefix=prefix)
            appended.append(now)
    _resnet(out, part, prefix, "middle_block.0", "mid_block.resnets.0", now, now, time)
    if middle is not None:
        _attention(out, part, prefix, "middle_block.1", "mid_block.attentions.0", now, context, middle, linear)
        _resnet(out, part, prefix, "middle_block.2", "mid_block.resnets.1", now, now, time)
    return appended


def unet(base, channels=4, width=16, prefix="model.diffusion_model."):
    out, part = [], "unet"
    multiples, depths, _, context, _ = UNETS[base]
    appended = _way_down(out, part, prefix, base, channels, width)
    now, block = appended[-1], 0
    for up, level in enumerate(reversed(range(len(multiples)))):
        for number in range(3):
            _resnet(out, part, prefix, f"output_blocks.{block}.0", f"up_blocks.{up}.resnets.{number}", now + appended.pop(),
                    width * multiples[level], width * 4)
            now, inside = width * multiples[level], 1
            if depths[level]:
                _attention(out, part, prefix, f"output_blocks.{block}.1", f"up_blocks.{up}.attentions.{number}", now, context,
                           depths[level], base != "sd-1")
                inside = 2
            if level and number == 2:
                _pair(out, part, f"output_blocks.{block}.{inside}.conv", f"up_blocks.{up}.upsamplers.0.conv", (now, now, 3, 3),
                      prefix=prefix)
            block += 1
    _pair(out, part, "out.0", "conv_norm_out", (now,), prefix=prefix)
    _pair(out, part, "out.2", "conv_out", (4, now, 3, 3), prefix=prefix)
    return out


def controlnet(base, width=16, prefix="control_model.", seeing=None):
    out, part = [], "."
    appended = _way_down(out, part, prefix, base, 4, width, seeing)
    for number, now in enumerate(appended):
        _pair(out, part, f"zero_convs.{number}.0", f"controlnet_down_blocks.{number}", (now, now, 1, 1), prefix=prefix)
    _pair(out, part, "middle_block_out.0", "controlnet_mid_block", (appended[-1], appended[-1], 1, 1), prefix=prefix)
    hints = (3, 16, 16, 32, 32, 96, 96, 256)  # each followed by an activation, which has no weights but a number
    for number, (inner, outer) in enumerate(zip(hints, hints[1:])):
        new = "conv_in" if not number else f"blocks.{number - 1}"
        _pair(out, part, f"input_hint_block.{2 * number}", f"controlnet_cond_embedding.{new}", (outer, inner, 3, 3), prefix=prefix)
    _pair(out, part, "input_hint_block.14", "controlnet_cond_embedding.conv_out", (width, 256, 3, 3), prefix=prefix)
    return out


# ------------------------------------------------------------------------------------------------
# Autoencoder

def _vae_resnet(out, part, prefix, old, new, inner, outer):
    def add(name, second, weight):
        _pair(out, part, f"{old}.{name}", f"{new}.{second}", weight, prefix=prefix)
    add("norm1", "norm1", (inner,))
    add("conv1", "conv1", (outer, inner, 3, 3))
    add("norm2", "norm2", (outer,))
    add("conv2", "conv2", (outer, outer, 3, 3))
    if inner != outer:
        add("nin_shortcut", "conv_shortcut", (outer, inner, 1, 1))


def _vae_middle(out, part, prefix, half, width):
    old, new = f"{half}.mid", f"{half}.mid_block"
    _vae_resnet(out, part, prefix, f"{old}.block_1", f"{new}.resnets.0", width, width)
    _pair(out, part, f"{old}.attn_1.norm", f"{new}.attentions.0.group_norm", (width,), prefix=prefix)
    for first, second in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
        _pair(out, part, f"{old}.attn_1.{first}", f"{new}.attentions.0.{second}", (width, width, 1, 1), done="matrix", prefix=prefix)
    _vae_resnet(out, part, prefix, f"{old}.block_2", f"{new}.resnets.1", width, width)


def vae(part="vae", width=8, prefix="first_stage_model."):
    out, multiples = [], (1, 2, 4, 4)
    _pair(out, part, "encoder.conv_in", "encoder.conv_in", (width, 3, 3, 3), prefix=prefix)
    now = width
    for level, times in enumerate(multiples):
        for number in range(2):
            _vae_resnet(out, part, prefix, f"encoder.down.{level}.block.{number}", f"encoder.down_blocks.{level}.resnets.{number}",
                        now, width * times)
            now = width * times
        if level < 3:
            _pair(out, part, f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv",
                  (now, now, 3, 3), prefix=prefix)
    _vae_middle(out, part, prefix, "encoder", now)
    _pair(out, part, "encoder.norm_out", "encoder.conv_norm_out", (now,), prefix=prefix)
    _pair(out, part, "encoder.conv_out", "encoder.conv_out", (8, now, 3, 3), prefix=prefix)
    _pair(out, part, "quant_conv", "quant_conv", (8, 8, 1, 1), prefix=prefix)
    _pair(out, part, "post_quant_conv", "post_quant_conv", (4, 4, 1, 1), prefix=prefix)
    _pair(out, part, "decoder.conv_in", "decoder.conv_in", (now, 4, 3, 3), prefix=prefix)
    _vae_middle(out, part, prefix, "decoder", now)
    for block, level in enumerate((3, 2, 1, 0)):  # the original keeps the levels' numbers, diffusers counts in order
        for number in range(3):
            _vae_resnet(out, part, prefix, f"decoder.up.{level}.block.{number}", f"decoder.up_blocks.{block}.resnets.{number}", now,
                        width * multiples[level])
            now = width * multiples[level]
        if level:
            _pair(out, part, f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{block}.upsamplers.0.conv", (now, now, 3, 3),
                  prefix=prefix)
    _pair(out, part, "decoder.norm_out", "decoder.conv_norm_out", (now,), prefix=prefix)
    _pair(out, part, "decoder.conv_out", "decoder.conv_out", (3, now, 3, 3), prefix=prefix)
    return out


# ------------------------------------------------------------------------------------------------
# Text encoders

def clip(prefix, layers=12, width=16, part="text_encoder"):
    """OpenAI's, whose names stay; the positions' numbers are made anew by who uses it."""
    out = [Entry(f"{prefix}text_model.embeddings.position_ids", (1, 77), [], "I64")]

    def add(name, weight, bias=True):
        _pair(out, part, f"text_model.{name}", f"text_model.{name}", weight, bias, prefix=prefix)
    add("embeddings.token_embedding", (96, width), False)
    add("embeddings.position_embedding", (77, width), False)
    for layer in range(layers):
        at = f"encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            add(f"{at}.self_attn.{name}", (width, width))
        add(f"{at}.layer_norm1", (width,))
        add(f"{at}.mlp.fc1", (width * 4, width))
        add(f"{at}.mlp.fc2", (width, width * 4))
        add(f"{at}.layer_norm2", (width,))
    add("final_layer_norm", (width,))
    return out


def open_clip(prefix, layers, used, projection, width=16, part="text_encoder"):
    """OpenCLIP's: `used` of the layers, and the projection or not."""
    def kept(name, done="same"):
        return [(part, f"text_model.{name}", done)]
    out = [Entry(f"{prefix}positional_embedding", (77, width), kept("embeddings.position_embedding.weight")),
           Entry(f"{prefix}token_embedding.weight", (96, width), kept("embeddings.token_embedding.weight")),
           Entry(f"{prefix}logit_scale", (), []),
           Entry(f"{prefix}text_projection", (width, width + 8), [(part, "text_projection.weight", "turned")] if projection else [])]
    for layer in range(layers):
        at, to = f"{prefix}transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        rows = []
        for kind, shape in (("weight", (width * 3, width)), ("bias", (width * 3,))):
            rows.append(Entry(f"{at}.attn.in_proj_{kind}", shape, [
                (part, f"text_model.{to}.self_attn.{name}_proj.{kind}", f"third {number}") for number, name in enumerate("qkv")]))
        for kind in ("weight", "bias"):
            for old, new, shape in (("attn.out_proj", "self_attn.out_proj", (width, width)), ("ln_1", "layer_norm1", (width,)),
                                    ("ln_2", "layer_norm2", (width,)), ("mlp.c_fc", "mlp.fc1", (width * 4, width)),
                                    ("mlp.c_proj", "mlp.fc2", (width, width * 4))):
                rows.append(Entry(f"{at}.{old}.{kind}", shape if kind == "weight" else shape[:1], kept(f"{to}.{new}.{kind}")))
        for row in rows:
            row.becomes = row.becomes if layer < used else []
        out += rows
    for kind in ("weight", "bias"):
        out.append(Entry(f"{prefix}ln_final.{kind}", (width,), kept(f"final_layer_norm.{kind}")))
    return out


# ------------------------------------------------------------------------------------------------

def checkpoint(base, channels=4, width=16):
    """A whole one, and what trainers leave beside the weights."""
    texts = {
        "sd-1": lambda: clip("cond_stage_model.transformer."),
        "sd-2": lambda: open_clip("cond_stage_model.model.", 24, 23, False),
        "sdxl": lambda: clip("conditioner.embedders.0.transformer.")
        + open_clip("conditioner.embedders.1.model.", 32, 32, True, part="text_encoder_2"),
        "sdxl-refiner": lambda: open_clip("conditioner.embedders.0.model.", 32, 32, True, part="text_encoder_2"),
    }[base]()
    return [Entry("betas", (10,), [], "F32")] + unet(base, channels, width) + vae() + texts


def named(entries):
    """The same model as a file that is in diffusers' naming already."""
    return [Entry(name, entry.shape[:2] if how == "matrix" else entry.shape, [(part, name, "same")], entry.dtype)
            for entry in entries for part, name, how in entry.becomes]


def averaged(entries):
    """The same with averages of the U-Net's weights beside them: those are what is wanted."""
    extra, of = [], "model."
    for entry in entries:
        if entry.name.startswith(of):
            extra.append(Entry("model_ema." + entry.name[len(of):].replace(".", ""), entry.shape, entry.becomes, "F32"))
            entry.becomes = []
    return entries + extra


def write(path, entries, seed):
    return weights.write_safetensors(path, {entry.name: (entry.dtype, entry.shape) for entry in entries}, {"format": "pt"}, seed)


def _view(torch, tensor, number):
    """The same numbers, lying otherwise: by turns with channels last or transposed, as every other element of a larger
    storage, and as rows of a wider one."""
    if number % 3 == 0 and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if number % 3 == 0 and tensor.dim() == 2:
        return tensor.t().contiguous().t()
    if number % 3 == 1 and tensor.dim():
        wide = torch.zeros(*tensor.shape, 2, dtype=tensor.dtype)
        wide[..., 1] = tensor
        return wide[..., 1]
    if number % 3 == 2 and tensor.dim() >= 2:
        wide = torch.zeros(tensor.shape[0], tensor.shape[1] + 3, *tensor.shape[2:], dtype=tensor.dtype)
        wide[:, 2:-1] = tensor
        return wide[:, 2:-1]
    return tensor


def torch_tensors(source):
    """The tensors of a safetensors file."""
    import torch
    kinds = {"F16": numpy.float16, "F32": numpy.float32, "I64": numpy.int64}
    return {name: torch.from_numpy(numpy.frombuffer(data, kinds[dtype]).reshape(shape).copy())
            for name, (dtype, shape, data) in weights.read_safetensors(source).items()}


def write_torch(path, source, legacy=False, wrapped=True, views=False):
    """The tensors of a safetensors file as torch saves them."""
    import torch
    tensors = torch_tensors(source)
    if views:
        tensors = {name: _view(torch, tensor, number) for number, (name, tensor) in enumerate(tensors.items())}
        assert sum(not tensor.is_contiguous() for tensor in tensors.values()) > len(tensors) // 2
    torch.save({"state_dict": tensors, "global_step": 220000, "epoch": 3} if wrapped else tensors, path,
               _use_new_zipfile_serialization=not legacy, pickle_protocol=pickle.DEFAULT_PROTOCOL if not legacy else 2)
    return path


def _done(how, dtype, shape, data):
    rows = numpy.frombuffer(data, f"V{weights.SIZES[dtype]}").reshape(shape)
    if how == "matrix":
        rows = rows[:, :, 0, 0]
    elif how == "turned":
        rows = rows.transpose()
    elif how.startswith("third"):
        rows = numpy.split(rows, 3)[int(how[-1])]
    return dtype, rows.shape, rows.tobytes()


def expected(path, entries):
    source, parts = weights.read_safetensors(path), {}
    for entry in entries:
        for part, name, how in entry.becomes:
            found = parts.setdefault(part, {})
            assert name not in found, name
            found[name] = _done(how, *source[entry.name])
    return parts


def restored(folder, entries, files):
    """{name: (dtype, shape, bytes)} of the original, made from a converted folder."""
    parts = {part: weights.read_safetensors(os.path.join(folder, part, file)) for part, file in files.items()}
    back = {}
    for entry in entries:
        if entry.becomes:
            found = [parts[part][name] for part, name, _ in entry.becomes]
            data = b"".join(one[2] for one in found)
            if entry.becomes[0][2] == "turned":
                dtype, shape, _ = found[0]
                data = numpy.frombuffer(data, f"V{weights.SIZES[dtype]}").reshape(shape).transpose().tobytes()
            back[entry.name] = (found[0][0], entry.shape, data)
    return back
