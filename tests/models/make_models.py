#!/usr/bin/python3
"""Makes model files and folders that are true in their headers: real tensor names, real shapes, no weights.

    make_models.py OUTDIR [NAME...] [--small] [--random] [--expected FILE]
    make_models.py --list

Without names every model is made. Tensor data is a hole in the file (a 7 GB checkpoint costs a few hundred KB of
disk), or with --random some numbers that are the same each time. --small shrinks the networks and keeps the shapes that
tell what a model is. --expected writes what identification has to say of each as JSON, {path: {field: value}}, with
{"error": CODE} for what has to be refused.

Names and shapes are laid out from the architectures: the latent diffusion U-Net and autoencoder in the original
("ldm") and the diffusers naming, CLIP text models in the transformers and OpenCLIP naming.
"""
import argparse
import json
import os
import random
import struct
import sys
import zlib

SIZES = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I64': 8, 'I32': 4, 'U8': 1}


# ---------------------------------------------------------------------------------------------------
# Safetensors

class Scalar:
    """A tensor of one integer whose value matters."""

    def __init__(self, value):
        self.value = value


def product(shape):
    n = 1
    for dim in shape:
        n *= dim
    return n


def numbers(dtype, count, seed):
    """count small numbers of dtype as bytes: a block of 4096, repeated."""
    rng = random.Random(seed)
    block = min(count, 4096)
    if dtype in ('F64', 'F32', 'F16'):
        code = {'F64': 'd', 'F32': 'f', 'F16': 'e'}[dtype]
        data = struct.pack('<%d%s' % (block, code), *(rng.uniform(0.01, 1) for _ in range(block)))
    elif dtype == 'BF16':
        data = b''.join(struct.pack('<f', rng.uniform(0.01, 1))[2:] for _ in range(block))
    else:
        data = b''.join(rng.randrange(1, 100).to_bytes(SIZES[dtype], 'little') for _ in range(block))
    size = count * SIZES[dtype]
    return (data * (size // max(len(data), 1) + 1))[:size]


def write_safetensors(path, tensors, metadata=None, fill=False, order=sorted):
    """tensors: {name: (dtype, shape) or Scalar}. fill: numbers instead of a hole."""
    header, at = {}, 0
    if metadata:
        header['__metadata__'] = metadata
    for name in order(tensors):
        spec = tensors[name]
        dtype, shape = ('I64', []) if isinstance(spec, Scalar) else spec
        end = at + product(shape) * SIZES[dtype]
        header[name] = {'dtype': dtype, 'shape': list(shape), 'data_offsets': [at, end]}
        at = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as out:
        out.write(struct.pack('<Q', len(text)) + text)
        start = out.tell()
        for name, spec in tensors.items():
            begin = start + header[name]['data_offsets'][0]
            if isinstance(spec, Scalar):
                out.seek(begin)
                out.write(struct.pack('<q', spec.value))
            elif fill:
                out.seek(begin)
                out.write(numbers(spec[0], product(spec[1]), zlib.crc32(name.encode())))
        out.truncate(start + at)


# ---------------------------------------------------------------------------------------------------
# Pieces of networks. Each adds to a dict of name -> (dtype, shape); `d` is the dtype.

class Net(dict):
    def __init__(self, dtype='F16'):
        super().__init__()
        self.dtype = dtype

    def add(self, name, *shape):
        self[name] = (self.dtype, shape)

    def linear(self, name, out, into, bias=True):
        self.add(name + '.weight', out, into)
        if bias:
            self.add(name + '.bias', out)

    def conv(self, name, out, into, k=3):
        self.add(name + '.weight', out, into, k, k)
        self.add(name + '.bias', out)

    def norm(self, name, width):
        self.add(name + '.weight', width)
        self.add(name + '.bias', width)

    def include(self, prefix, other):
        for name, spec in other.items():
            self[prefix + name] = spec
        return self


def spatial_transformer(net, name, width, context, depth, linear):
    net.norm(name + '.norm', width)
    for proj in ('proj_in', 'proj_out'):
        if linear:
            net.linear('%s.%s' % (name, proj), width, width)
        else:
            net.conv('%s.%s' % (name, proj), width, width, 1)
    for i in range(depth):
        block = '%s.transformer_blocks.%d' % (name, i)
        for attn, into in (('attn1', width), ('attn2', context)):
            net.linear('%s.%s.to_q' % (block, attn), width, width, bias=False)
            net.linear('%s.%s.to_k' % (block, attn), width, into, bias=False)
            net.linear('%s.%s.to_v' % (block, attn), width, into, bias=False)
            net.linear('%s.%s.to_out.0' % (block, attn), width, width)
        net.linear(block + '.ff.net.0.proj', 8 * width, width)
        net.linear(block + '.ff.net.2', width, 4 * width)
        for norm in ('norm1', 'norm2', 'norm3'):
            net.norm('%s.%s' % (block, norm), width)


def ldm_resnet(net, name, into, out, time):
    net.norm(name + '.in_layers.0', into)
    net.conv(name + '.in_layers.2', out, into)
    net.linear(name + '.emb_layers.1', out, time)
    net.norm(name + '.out_layers.0', out)
    net.conv(name + '.out_layers.3', out, out)
    if into != out:
        net.conv(name + '.skip_connection', out, into, 1)


def diffusers_resnet(net, name, into, out, time):
    net.norm(name + '.norm1', into)
    net.conv(name + '.conv1', out, into)
    if time:
        net.linear(name + '.time_emb_proj', out, time)
    net.norm(name + '.norm2', out)
    net.conv(name + '.conv2', out, out)
    if into != out:
        net.conv(name + '.conv_shortcut', out, into, 1)


class Unet:
    """The shape of one U-Net, laid out in either naming."""

    def __init__(self, context, channels=320, mult=(1, 2, 4, 4), depth=(1, 1, 1, 0), middle=1, label=0,
                 into=4, linear=False):
        self.context, self.channels, self.mult, self.depth = context, channels, mult, depth
        self.middle, self.label, self.into, self.linear = middle, label, into, linear

    def small(self):
        return Unet(self.context, 8, self.mult, tuple(min(d, 3) for d in self.depth), 1, self.label and 16,
                    self.into, self.linear)

    def attend(self, net, name, width, depth):
        spatial_transformer(net, name, width, self.context, depth, self.linear)

    def ldm_down(self, net):
        """time_embed to middle_block: the half a ControlNet copies. Returns (widths of the skips, the last width)."""
        c, time = self.channels, 4 * self.channels
        net.linear('time_embed.0', time, c)
        net.linear('time_embed.2', time, time)
        if self.label:
            net.linear('label_emb.0.0', time, self.label)
            net.linear('label_emb.0.2', time, time)
        net.conv('input_blocks.0.0', c, self.into)
        skips, width, index = [c], c, 1
        for level, mult in enumerate(self.mult):
            for _ in range(2):
                ldm_resnet(net, 'input_blocks.%d.0' % index, width, mult * c, time)
                width = mult * c
                if self.depth[level]:
                    self.attend(net, 'input_blocks.%d.1' % index, width, self.depth[level])
                skips.append(width)
                index += 1
            if level + 1 < len(self.mult):
                net.conv('input_blocks.%d.0.op' % index, width, width)
                skips.append(width)
                index += 1
        ldm_resnet(net, 'middle_block.0', width, width, time)
        self.attend(net, 'middle_block.1', width, self.middle)
        ldm_resnet(net, 'middle_block.2', width, width, time)
        return skips, width

    def ldm(self, dtype='F16'):
        net, c = Net(dtype), self.channels
        skips, width = self.ldm_down(net)
        index = 0
        for level in reversed(range(len(self.mult))):
            for i in range(3):
                ldm_resnet(net, 'output_blocks.%d.0' % index, width + skips.pop(), self.mult[level] * c, 4 * c)
                width, at = self.mult[level] * c, 1
                if self.depth[level]:
                    self.attend(net, 'output_blocks.%d.1' % index, width, self.depth[level])
                    at = 2
                if level and i == 2:
                    net.conv('output_blocks.%d.%d.conv' % (index, at), width, width)
                index += 1
        net.norm('out.0', c)
        net.conv('out.2', 4, c)
        return net

    def diffusers_down(self, net):
        c, time = self.channels, 4 * self.channels
        net.conv('conv_in', c, self.into)
        net.linear('time_embedding.linear_1', time, c)
        net.linear('time_embedding.linear_2', time, time)
        if self.label:
            net.linear('add_embedding.linear_1', time, self.label)
            net.linear('add_embedding.linear_2', time, time)
        skips, width = [c], c
        for level, mult in enumerate(self.mult):
            block = 'down_blocks.%d' % level
            for i in range(2):
                diffusers_resnet(net, '%s.resnets.%d' % (block, i), width, mult * c, time)
                width = mult * c
                if self.depth[level]:
                    self.attend(net, '%s.attentions.%d' % (block, i), width, self.depth[level])
                skips.append(width)
            if level + 1 < len(self.mult):
                net.conv(block + '.downsamplers.0.conv', width, width)
                skips.append(width)
        diffusers_resnet(net, 'mid_block.resnets.0', width, width, time)
        self.attend(net, 'mid_block.attentions.0', width, self.middle)
        diffusers_resnet(net, 'mid_block.resnets.1', width, width, time)
        return skips, width

    def diffusers(self, dtype='F16'):
        net, c = Net(dtype), self.channels
        skips, width = self.diffusers_down(net)
        for up, level in enumerate(reversed(range(len(self.mult)))):
            block = 'up_blocks.%d' % up
            for i in range(3):
                diffusers_resnet(net, '%s.resnets.%d' % (block, i), width + skips.pop(), self.mult[level] * c, 4 * c)
                width = self.mult[level] * c
                if self.depth[level]:
                    self.attend(net, '%s.attentions.%d' % (block, i), width, self.depth[level])
            if level:
                net.conv(block + '.upsamplers.0.conv', width, width)
        net.norm('conv_norm_out', c)
        net.conv('conv_out', 4, c)
        return net

    def config(self):
        with_attention = [bool(d) for d in self.depth]
        return {'_class_name': 'UNet2DConditionModel', '_diffusers_version': '0.21.0', 'in_channels': self.into,
                'out_channels': 4, 'cross_attention_dim': self.context, 'layers_per_block': 2, 'sample_size': 64,
                'block_out_channels': [m * self.channels for m in self.mult],
                'use_linear_projection': self.linear,
                'down_block_types': ['CrossAttnDownBlock2D' if a else 'DownBlock2D' for a in with_attention],
                'up_block_types': ['CrossAttnUpBlock2D' if a else 'UpBlock2D' for a in with_attention[::-1]]}


UNETS = {
    'sd-1': Unet(768),
    'sd-2': Unet(1024, linear=True),
    'sdxl': Unet(2048, mult=(1, 2, 4), depth=(0, 2, 10), middle=10, label=2816, linear=True),
    'sdxl-refiner': Unet(1280, channels=384, depth=(0, 4, 4, 0), middle=4, label=2560, linear=True),
}
INTO = {'normal': 4, 'inpaint': 9, 'depth': 5}


def unet(base, variant='normal', small=False):
    shape = UNETS[base].small() if small else UNETS[base]
    return Unet(shape.context, shape.channels, shape.mult, shape.depth, shape.middle, shape.label, INTO[variant],
                shape.linear)


def controlnet_ldm(base, small):
    shape, net = unet(base, 'normal', small), Net()
    skips, width = shape.ldm_down(net)
    for i, skip in enumerate(skips):
        net.conv('zero_convs.%d.0' % i, skip, skip, 1)
    net.conv('middle_block_out.0', width, width, 1)
    widths = [3, 16, 16, 32, 32, 96, 96, 256, shape.channels]
    for i in range(8):
        net.conv('input_hint_block.%d' % (2 * i), widths[i + 1], widths[i])
    return Net().include('control_model.', net)


def controlnet_diffusers(base, small):
    shape, net = unet(base, 'normal', small), Net()
    skips, width = shape.diffusers_down(net)
    for i, skip in enumerate(skips):
        net.conv('controlnet_down_blocks.%d' % i, skip, skip, 1)
    net.conv('controlnet_mid_block', width, width, 1)
    net.conv('controlnet_cond_embedding.conv_in', 16, 3)
    for i, (into, out) in enumerate(((16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256))):
        net.conv('controlnet_cond_embedding.blocks.%d' % i, out, into)
    net.conv('controlnet_cond_embedding.conv_out', shape.channels, 256)
    return net


def vae_resnet_ldm(net, name, into, out):
    net.norm(name + '.norm1', into)
    net.conv(name + '.conv1', out, into)
    net.norm(name + '.norm2', out)
    net.conv(name + '.conv2', out, out)
    if into != out:
        net.conv(name + '.nin_shortcut', out, into, 1)


def vae_ldm(small, latent=4, dtype='F16'):
    net, c = Net(dtype), 8 if small else 128
    widths = [c, 2 * c, 4 * c, 4 * c]

    def middle(side):
        vae_resnet_ldm(net, side + '.mid.block_1', widths[-1], widths[-1])
        net.norm(side + '.mid.attn_1.norm', widths[-1])
        for part in ('q', 'k', 'v', 'proj_out'):
            net.conv('%s.mid.attn_1.%s' % (side, part), widths[-1], widths[-1], 1)
        vae_resnet_ldm(net, side + '.mid.block_2', widths[-1], widths[-1])

    net.conv('encoder.conv_in', c, 3)
    width = c
    for level, out in enumerate(widths):
        for i in range(2):
            vae_resnet_ldm(net, 'encoder.down.%d.block.%d' % (level, i), width, out)
            width = out
        if level < 3:
            net.conv('encoder.down.%d.downsample.conv' % level, width, width)
    middle('encoder')
    net.norm('encoder.norm_out', width)
    net.conv('encoder.conv_out', 2 * latent, width)
    net.conv('decoder.conv_in', width, latent)
    middle('decoder')
    for level in reversed(range(4)):
        for i in range(3):
            vae_resnet_ldm(net, 'decoder.up.%d.block.%d' % (level, i), width, widths[level])
            width = widths[level]
        if level:
            net.conv('decoder.up.%d.upsample.conv' % level, width, width)
    net.norm('decoder.norm_out', width)
    net.conv('decoder.conv_out', 3, width)
    net.conv('quant_conv', 2 * latent, 2 * latent, 1)
    net.conv('post_quant_conv', latent, latent, 1)
    return net


def vae_diffusers(small, latent=4):
    net, c = Net(), 8 if small else 128
    widths = [c, 2 * c, 4 * c, 4 * c]

    def middle(side):
        for i in range(2):
            diffusers_resnet(net, '%s.mid_block.resnets.%d' % (side, i), widths[-1], widths[-1], 0)
        net.norm(side + '.mid_block.attentions.0.group_norm', widths[-1])
        for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
            net.linear('%s.mid_block.attentions.0.%s' % (side, part), widths[-1], widths[-1])

    net.conv('encoder.conv_in', c, 3)
    width = c
    for level, out in enumerate(widths):
        for i in range(2):
            diffusers_resnet(net, 'encoder.down_blocks.%d.resnets.%d' % (level, i), width, out, 0)
            width = out
        if level < 3:
            net.conv('encoder.down_blocks.%d.downsamplers.0.conv' % level, width, width)
    middle('encoder')
    net.norm('encoder.conv_norm_out', width)
    net.conv('encoder.conv_out', 2 * latent, width)
    net.conv('decoder.conv_in', width, latent)
    middle('decoder')
    for up, level in enumerate(reversed(range(4))):
        for i in range(3):
            diffusers_resnet(net, 'decoder.up_blocks.%d.resnets.%d' % (up, i), width, widths[level], 0)
            width = widths[level]
        if level:
            net.conv('decoder.up_blocks.%d.upsamplers.0.conv' % up, width, width)
    net.norm('decoder.conv_norm_out', width)
    net.conv('decoder.conv_out', 3, width)
    net.conv('quant_conv', 2 * latent, 2 * latent, 1)
    net.conv('post_quant_conv', latent, latent, 1)
    return net


def clip(width=768, layers=12, small=False, projection=False):
    """A CLIP text model in the naming of transformers."""
    net, vocabulary = Net(), 49408
    if small:
        width, layers, vocabulary = 32, 1, 64
    net.add('text_model.embeddings.token_embedding.weight', vocabulary, width)
    net.add('text_model.embeddings.position_embedding.weight', 77, width)
    for i in range(layers):
        layer = 'text_model.encoder.layers.%d' % i
        for part in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
            net.linear('%s.self_attn.%s' % (layer, part), width, width)
        net.linear(layer + '.mlp.fc1', 4 * width, width)
        net.linear(layer + '.mlp.fc2', width, 4 * width)
        net.norm(layer + '.layer_norm1', width)
        net.norm(layer + '.layer_norm2', width)
    net.norm('text_model.final_layer_norm', width)
    if projection:
        net.add('text_projection.weight', width, width)
    return net


def open_clip(width=1024, layers=24, small=False):
    """A CLIP text model in the naming of OpenCLIP."""
    net, vocabulary = Net(), 49408
    if small:
        width, layers, vocabulary = 32, 1, 64
    net.add('positional_embedding', 77, width)
    net.add('text_projection', width, width)
    net.add('logit_scale')
    net.add('token_embedding.weight', vocabulary, width)
    for i in range(layers):
        layer = 'transformer.resblocks.%d' % i
        net.add(layer + '.attn.in_proj_weight', 3 * width, width)
        net.add(layer + '.attn.in_proj_bias', 3 * width)
        net.linear(layer + '.attn.out_proj', width, width)
        net.linear(layer + '.mlp.c_fc', 4 * width, width)
        net.linear(layer + '.mlp.c_proj', width, 4 * width)
        net.norm(layer + '.ln_1', width)
        net.norm(layer + '.ln_2', width)
    net.norm('ln_final', width)
    return net


# ---------------------------------------------------------------------------------------------------
# Whole models. Each maker returns {relative path: Net, (Net, metadata), dict (JSON) or bytes}.

def checkpoint(base, variant='normal', step=None, extra=None):
    def make(small):
        net = Net().include('model.diffusion_model.', unet(base, variant, small).ldm())
        net.include('first_stage_model.', vae_ldm(small))
        if base == 'sd-1':
            net.include('cond_stage_model.transformer.', clip(small=small))
        elif base == 'sd-2':
            net.include('cond_stage_model.model.', open_clip(small=small))
        elif base == 'sdxl':
            net.include('conditioner.embedders.0.transformer.', clip(small=small))
            net.include('conditioner.embedders.1.model.', open_clip(1280, 32, small))
        else:
            net.include('conditioner.embedders.0.model.', open_clip(1280, 32, small))
        if base in ('sd-1', 'sd-2'):
            for name in ('betas', 'alphas_cumprod', 'sqrt_alphas_cumprod'):
                net[name] = ('F32', (1000,))
            net['model_ema.decay'] = ('F32', ())
        if step:
            net['global_step'] = Scalar(step)
        if extra:
            extra(net)
        return {'': (net, {'format': 'pt'})}
    return make


SCHEDULER = {'_class_name': 'PNDMScheduler', 'num_train_timesteps': 1000, 'beta_start': 0.00085,
             'beta_end': 0.012, 'beta_schedule': 'scaled_linear'}
VAE_CONFIG = {'_class_name': 'AutoencoderKL', 'latent_channels': 4, 'in_channels': 3, 'out_channels': 3}


def pipeline(base, variant='normal', prediction='epsilon', label='', name=None):
    """A diffusers folder. label is put before .safetensors: '.fp16'."""
    def make(small):
        shape = unet(base, variant, small)
        xl = base.startswith('sdxl')
        index = {'_class_name': name, '_diffusers_version': '0.21.0',
                 'scheduler': ['diffusers', 'PNDMScheduler'], 'unet': ['diffusers', 'UNet2DConditionModel'],
                 'vae': ['diffusers', 'AutoencoderKL']}
        files = {'model_index.json': index,
                 'scheduler/scheduler_config.json': dict(SCHEDULER, prediction_type=prediction),
                 'unet/config.json': shape.config(),
                 'unet/diffusion_pytorch_model%s.safetensors' % label: shape.diffusers(),
                 'vae/config.json': dict(VAE_CONFIG, scaling_factor=0.13025 if xl else 0.18215,
                                         sample_size=1024 if xl else 512),
                 'vae/diffusion_pytorch_model%s.safetensors' % label: vae_diffusers(small)}
        encoders = {'sd-1': {'': (768, 12)}, 'sd-2': {'': (1024, 23)}, 'sdxl': {'': (768, 12), '_2': (1280, 32)},
                    'sdxl-refiner': {'_2': (1280, 32)}}[base]
        for tail, (width, layers) in encoders.items():
            kind = 'CLIPTextModelWithProjection' if tail else 'CLIPTextModel'
            index['text_encoder' + tail] = ['transformers', kind]
            index['tokenizer' + tail] = ['transformers', 'CLIPTokenizer']
            files['text_encoder%s/config.json' % tail] = {
                'architectures': [kind], 'model_type': 'clip_text_model', 'hidden_size': width,
                'num_hidden_layers': layers}
            files['text_encoder%s/model%s.safetensors' % (tail, label)] = clip(width, layers, small, bool(tail))
            files['tokenizer%s/tokenizer_config.json' % tail] = {'tokenizer_class': 'CLIPTokenizer'}
            files['tokenizer%s/vocab.json' % tail] = {'<|startoftext|>': 0, '<|endoftext|>': 1}
            files['tokenizer%s/merges.txt' % tail] = b'#version: 0.2\n'
        if base == 'sdxl-refiner':
            index['text_encoder'] = index['tokenizer'] = [None, None]
        return files
    return make


def vae_file(latent=4):
    return lambda small: {'': (vae_ldm(small, latent), {'format': 'pt'})}


def vae_folder(config, label=''):
    def make(small):
        return {'config.json': dict(VAE_CONFIG, **config),
                'diffusion_pytorch_model%s.safetensors' % label: vae_diffusers(small)}
    return make


def controlnet_folder(base, label=''):
    def make(small):
        config = unet(base, 'normal', small).config()
        config['_class_name'] = 'ControlNetModel'
        return {'config.json': config,
                'diffusion_pytorch_model%s.safetensors' % label: controlnet_diffusers(base, small)}
    return make


LINEARS = ('to_q', 'to_k', 'to_v', 'to_out.0', 'ff.net.0.proj', 'ff.net.2')
TE_LINEARS = ('q_proj', 'k_proj', 'v_proj', 'out_proj', 'fc1', 'fc2')


def modules(net, tails, part=''):
    """(name without .weight, out, in) of the linear layers a LoRA changes."""
    for name, (_, shape) in net.items():
        if name.endswith('.weight') and len(shape) == 2 and name[:-7].endswith(tails) and part in name:
            yield name[:-7], shape[0], shape[1]


def unet_modules(base, small, ldm=False, part='transformer_blocks'):
    shape = unet(base, 'normal', small)
    return modules(shape.ldm() if ldm else shape.diffusers(), LINEARS, part)


def text_modules(width, small):
    """Text widths tell what a LoRA is for, so small ones have fewer layers and their real width."""
    return modules(clip(width, 1 if small else {768: 12, 1024: 23, 1280: 32}[width]), TE_LINEARS)


def kohya(net, prefix, found, rank=4):
    for name, out, into in found:
        name = prefix + name.replace('.', '_')
        net[name + '.alpha'] = (net.dtype, ())
        net.add(name + '.lora_down.weight', rank, into)
        net.add(name + '.lora_up.weight', out, rank)


def peft(net, prefix, found, rank=4):
    for name, out, into in found:
        net.add('%s%s.lora_A.weight' % (prefix, name), rank, into)
        net.add('%s%s.lora_B.weight' % (prefix, name), out, rank)


def lora_kohya(base, text=(), with_unet=True, part='transformer_blocks'):
    """text: (prefix, width) pairs."""
    def make(small):
        net = Net()
        if with_unet:
            kohya(net, 'lora_unet_', unet_modules(base, small, base == 'sdxl', part))
        for prefix, width in text:
            kohya(net, prefix, text_modules(width, small))
        return {'': (net, {'ss_network_module': 'networks.lora', 'ss_network_dim': '4'})}
    return make


def lora_lycoris(kind):
    def make(small):
        net = Net()
        for name, out, into in unet_modules('sd-1', small):
            name = 'lora_unet_' + name.replace('.', '_')
            net[name + '.alpha'] = (net.dtype, ())
            if kind == 'loha':
                for half in ('w1', 'w2'):
                    net.add('%s.hada_%s_a' % (name, half), out, 4)
                    net.add('%s.hada_%s_b' % (name, half), 4, into)
            else:
                net.add(name + '.lokr_w1', 4, 4)
                net.add(name + '.lokr_w2_a', out // 4, 2)
                net.add(name + '.lokr_w2_b', 2, into // 4)
        return {'': net}
    return make


def lora_peft(base, text=(), with_unet=True, file=''):
    def make(small):
        net = Net()
        if with_unet:
            peft(net, 'unet.', unet_modules(base, small))
        for prefix, width in text:
            peft(net, prefix, text_modules(width, small))
        return {file: (net, {'format': 'pt'})}
    return make


def lora_old_diffusers(small):
    net = Net()
    for name, out, into in unet_modules('sd-1', small, part='.attn'):
        name = name.replace('.to_out.0', '.to_out')
        head, tail = name.rsplit('.', 1)
        net.add('unet.%s.processor.%s_lora.down.weight' % (head, tail), 4, into)
        net.add('unet.%s.processor.%s_lora.up.weight' % (head, tail), out, 4)
    return {'': net}


def tensors(spec, metadata=None, file=''):
    return lambda small: {file: (dict(spec), metadata)}


def flux(small):
    net, width = Net('BF16'), 32 if small else 3072
    for i in range(19):
        net.linear('double_blocks.%d.img_attn.proj' % i, width, width)
        net.add('double_blocks.%d.img_attn.norm.key_norm.scale' % i, 128)
    net.linear('img_in', width, 64)
    net.linear('txt_in', width, 4096)
    return {'': net}


def flux_lora(small):
    net = Net('BF16')
    for i in range(19):
        for part in ('img_attn_proj', 'img_attn_qkv', 'txt_attn_proj'):
            kohya(net, 'lora_unet_', [('double_blocks_%d_%s' % (i, part), 3072, 3072)])
    kohya(net, 'lora_te1_', text_modules(768, True))
    return {'': net}


def llm(small):
    net = Net('BF16')
    width = 64 if small else 2048
    net.add('model.embed_tokens.weight', 256, width)
    for i in range(4):
        for part in ('q_proj', 'k_proj', 'v_proj', 'o_proj'):
            net.linear('model.layers.%d.self_attn.%s' % (i, part), width, width, bias=False)
    return {'config.json': {'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'hidden_size': width},
            'tokenizer.json': {}, 'model.safetensors': net}


def merged_lora(net):
    kohya(net, 'lora_unet_', unet_modules('sd-1', True))


def truncated(small):
    return {'': b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}'.ljust(72) + b'\0\0'}


# ---------------------------------------------------------------------------------------------------
# The catalogue: file name (without / a file, with / a folder), maker, what identification has to say.

def main(base, format, variant='normal', prediction='epsilon', **more):
    return dict({'type': 'main', 'base': base, 'format': format, 'variant': variant,
                 'prediction_type': prediction}, **more)


def kind(type, base, format, **more):
    return dict({'type': type, 'base': base, 'format': format}, **more)


REFUSED = {'error': 'InvalidModelConfig'}
SD, SD_INPAINT = 'StableDiffusionPipeline', 'StableDiffusionInpaintPipeline'
XL, XL_INPAINT, XL_IMAGE = ('StableDiffusionXLPipeline', 'StableDiffusionXLInpaintPipeline',
                            'StableDiffusionXLImg2ImgPipeline')
TE_1, TE_2, TE_XL = ('lora_te_', 768), ('lora_te_', 1024), (('lora_te1_', 768), ('lora_te2_', 1280))
PEFT_XL = (('text_encoder.', 768), ('text_encoder_2.', 1280))

MODELS = {
    # single-file checkpoints
    'sd-1': ('sd-1.safetensors', checkpoint('sd-1'), main('sd-1', 'checkpoint')),
    'sd-1-inpaint': ('sd-1-inpaint.safetensors', checkpoint('sd-1', 'inpaint'),
                     main('sd-1', 'checkpoint', 'inpaint')),
    'sd-1-merged-lora': ('sd-1-merged.safetensors', checkpoint('sd-1', extra=merged_lora),
                         main('sd-1', 'checkpoint')),
    'sd-2': ('sd-2.safetensors', checkpoint('sd-2'), main('sd-2', 'checkpoint', prediction='v_prediction')),
    'sd-2-v': ('sd-2-v.safetensors', checkpoint('sd-2', step=110000),
               main('sd-2', 'checkpoint', prediction='v_prediction')),
    'sd-2-eps': ('sd-2-eps.safetensors', checkpoint('sd-2', step=220000), main('sd-2', 'checkpoint')),
    'sd-2-inpaint': ('sd-2-inpaint.safetensors', checkpoint('sd-2', 'inpaint', 220000),
                     main('sd-2', 'checkpoint', 'inpaint')),
    'sd-2-depth': ('sd-2-depth.safetensors', checkpoint('sd-2', 'depth', 220000),
                   main('sd-2', 'checkpoint', 'depth')),
    'sdxl': ('sdxl.safetensors', checkpoint('sdxl'), main('sdxl', 'checkpoint')),
    'sdxl-inpaint': ('sdxl-inpaint.safetensors', checkpoint('sdxl', 'inpaint'),
                     main('sdxl', 'checkpoint', 'inpaint')),
    'sdxl-refiner': ('sdxl-refiner.safetensors', checkpoint('sdxl-refiner'), main('sdxl-refiner', 'checkpoint')),
    # diffusers folders
    'sd-1-diffusers': ('sd-1-diffusers/', pipeline('sd-1', name=SD),
                       main('sd-1', 'diffusers', repo_variant='', upcast_attention=False)),
    'sd-1-inpaint-diffusers': ('dreamshaper-8-inpainting/', pipeline('sd-1', 'inpaint', label='.fp16', name=SD_INPAINT),
                               main('sd-1', 'diffusers', 'inpaint', repo_variant='fp16')),
    'lcm-diffusers': ('lcm-dreamshaper/', pipeline('sd-1', name='LatentConsistencyModelPipeline'),
                      main('sd-1', 'diffusers')),
    'sd-2-diffusers': ('sd-2-diffusers/', pipeline('sd-2', prediction='v_prediction', name=SD),
                       main('sd-2', 'diffusers', prediction='v_prediction', upcast_attention=True)),
    'sd-2-eps-diffusers': ('sd-2-base-diffusers/', pipeline('sd-2', name=SD),
                           main('sd-2', 'diffusers', upcast_attention=False)),
    'sd-2-depth-diffusers': ('sd-2-depth-diffusers/', pipeline('sd-2', 'depth', name=SD),
                             main('sd-2', 'diffusers', 'depth')),
    'sdxl-diffusers': ('sdxl-diffusers/', pipeline('sdxl', name=XL), main('sdxl', 'diffusers', repo_variant='')),
    'sdxl-turbo': ('sdxl-turbo/', pipeline('sdxl', label='.fp16', name=XL),
                   main('sdxl', 'diffusers', repo_variant='fp16')),
    'sdxl-inpaint-diffusers': ('sdxl-inpaint-diffusers/', pipeline('sdxl', 'inpaint', name=XL_INPAINT),
                               main('sdxl', 'diffusers', 'inpaint')),
    'sdxl-refiner-diffusers': ('sdxl-refiner-diffusers/', pipeline('sdxl-refiner', name=XL_IMAGE),
                               main('sdxl-refiner', 'diffusers')),
    # autoencoders
    'vae': ('vae-ft-mse-840000.safetensors', vae_file(), kind('vae', 'sd-1', 'checkpoint')),
    'vae-sdxl': ('sdxl_vae.safetensors', vae_file(), kind('vae', 'sdxl', 'checkpoint')),
    'vae-sd2': ('sd2-768-vae.safetensors', vae_file(), kind('vae', 'sd-2', 'checkpoint')),
    'vae-flux': ('ae.safetensors', vae_file(16), kind('vae', 'flux', 'checkpoint')),
    'vae-diffusers': ('sd-vae-ft-mse/', vae_folder({'scaling_factor': 0.18215, 'sample_size': 256}),
                      kind('vae', 'sd-1', 'diffusers')),
    'vae-sdxl-diffusers': ('fixed-vae/', vae_folder({'scaling_factor': 0.13025, 'sample_size': 1024}),
                           kind('vae', 'sdxl', 'diffusers')),
    'taesd': ('taesd/', vae_folder({'_class_name': 'AutoencoderTiny'}), kind('vae', 'sd-1', 'diffusers')),
    'taesdxl': ('taesdxl-fp16/', vae_folder({'_class_name': 'AutoencoderTiny'}, '.fp16'),
                kind('vae', 'sdxl', 'diffusers', repo_variant='fp16')),
    # ControlNets
    'controlnet-sd1': ('control_v11p_sd15_canny.safetensors',
                       lambda small: {'': controlnet_ldm('sd-1', small)}, kind('controlnet', 'sd-1', 'checkpoint')),
    'controlnet-sd2': ('control_v11p_sd21_depth.safetensors',
                       lambda small: {'': controlnet_ldm('sd-2', small)}, kind('controlnet', 'sd-2', 'checkpoint')),
    'controlnet-sdxl': ('controlnet-xl-canny.safetensors',
                        lambda small: {'': controlnet_diffusers('sdxl', small)},
                        kind('controlnet', 'sdxl', 'checkpoint')),
    'controlnet-sd1-diffusers-file': ('some_pose_model.safetensors',
                                      lambda small: {'': controlnet_diffusers('sd-1', small)},
                                      kind('controlnet', 'sd-1', 'checkpoint')),
    'controlnet-diffusers': ('control_v11p_sd15_softedge/', controlnet_folder('sd-1'),
                             kind('controlnet', 'sd-1', 'diffusers', repo_variant='')),
    'controlnet-sdxl-diffusers': ('controlnet-canny-sdxl/', controlnet_folder('sdxl', '.fp16'),
                                  kind('controlnet', 'sdxl', 'diffusers', repo_variant='fp16')),
    # LoRAs
    'lora': ('lora-sd1.safetensors', lora_kohya('sd-1', (TE_1,)), kind('lora', 'sd-1', 'lycoris')),
    'lora-sd2': ('lora-sd2.safetensors', lora_kohya('sd-2', (TE_2,)), kind('lora', 'sd-2', 'lycoris')),
    'lora-sdxl': ('lora-sdxl.safetensors', lora_kohya('sdxl', TE_XL), kind('lora', 'sdxl', 'lycoris')),
    'lora-sdxl-te': ('lora-sdxl-te.safetensors', lora_kohya('sdxl', TE_XL, with_unet=False),
                     kind('lora', 'sdxl', 'lycoris')),
    'lora-sd1-te': ('lora-sd1-te.safetensors', lora_kohya('sd-1', (TE_1,), with_unet=False),
                    kind('lora', 'sd-1', 'lycoris')),
    'lora-slider': ('slider.safetensors', lora_kohya('sdxl', part='.attn1.'), kind('lora', 'sdxl', 'lycoris')),
    'loha': ('loha.safetensors', lora_lycoris('loha'), kind('lora', 'sd-1', 'lycoris')),
    'lokr': ('lokr.safetensors', lora_lycoris('lokr'), kind('lora', 'sd-1', 'lycoris')),
    'lora-peft': ('lora-peft-sd1.safetensors', lora_peft('sd-1', (('text_encoder.', 768),)),
                  kind('lora', 'sd-1', 'lycoris')),
    'lora-peft-sdxl': ('lora-peft-sdxl/', lora_peft('sdxl', PEFT_XL, file='pytorch_lora_weights.safetensors'),
                       kind('lora', 'sdxl', 'diffusers')),
    'lora-peft-te': ('lora-peft-te/',
                     lora_peft('sdxl', PEFT_XL, with_unet=False, file='pytorch_lora_weights.safetensors'),
                     kind('lora', 'sdxl', 'diffusers')),
    'lora-old-diffusers': ('old-lora.safetensors', lora_old_diffusers, kind('lora', 'sd-1', 'lycoris')),
    # textual inversions
    'ti': ('ti-sd1.safetensors', tensors({'emb_params': ('F32', (2, 768))}),
           kind('embedding', 'sd-1', 'embedding_file')),
    'ti-sdxl': ('ti-sdxl.safetensors', tensors({'clip_g': ('F32', (2, 1280)), 'clip_l': ('F32', (2, 768))}),
                kind('embedding', 'sdxl', 'embedding_file')),
    'ti-sd2': ('ti-sd2.safetensors', tensors({'<cat-toy>': ('F32', (1024,))}),
               kind('embedding', 'sd-2', 'embedding_file')),
    'ti-folder': ('ti-folder/', tensors({'<cat-toy>': ('F32', (1, 768))}, file='learned_embeds.safetensors'),
                  kind('embedding', 'sd-1', 'embedding_folder')),
    # what has to be refused
    'bad-empty': ('empty.safetensors', lambda small: {'': b''}, {'error': 'corrupt'}),
    'bad-truncated': ('truncated.safetensors', truncated, {'error': 'corrupt'}),
    'bad-no-tensors': ('no-tensors.safetensors', tensors({}), REFUSED),
    'bad-random': ('random.safetensors', tensors({'weight': ('F32', (10, 768)), 'bias': ('F32', (10,))}), REFUSED),
    'bad-one-matrix': ('matrix.safetensors', tensors({'fc.weight': ('F32', (1000, 768))}), REFUSED),
    'bad-width': ('odd.safetensors', tensors({'emb_params': ('F32', (2, 512))}), REFUSED),
    'bad-text-encoder': ('clip.safetensors', lambda small: {'': clip(small=small)}, REFUSED),
    'bad-te1-only': ('te1.safetensors', lora_kohya('sdxl', TE_XL[:1], with_unet=False), REFUSED),
    'bad-flux': ('flux1-dev.safetensors', flux, REFUSED),
    'bad-flux-lora': ('flux-lora.safetensors', flux_lora, REFUSED),
    'bad-llm': ('some-llm/', llm, REFUSED),
    'bad-pickle': ('model.ckpt', lambda small: {'': b'PK\3\4' + bytes(60)}, REFUSED),
    'bad-page': ('page.safetensors', lambda small: {'': b'<!DOCTYPE html><html></html>'}, {'error': 'not_a_model'}),
    'bad-folder': ('holiday/', lambda small: {'readme.txt': b'no model'}, REFUSED),
}


def write_part(path, content, fill):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if isinstance(content, bytes):
        with open(path, 'wb') as out:
            out.write(content)
    elif path.endswith('.json'):
        with open(path, 'w') as out:
            json.dump(content, out, indent=2)
    else:
        net, metadata = content if isinstance(content, tuple) else (content, None)
        write_safetensors(path, net, metadata, fill)


def make(outdir, name, small=False, fill=False):
    """Makes one model; returns its path."""
    path, maker, _ = MODELS[name]
    whole = os.path.join(outdir, path)
    for part, content in maker(small).items():
        write_part(whole + part, content, fill)
    return whole.rstrip('/')


def run(args):
    if args.list:
        for name, (path, _, expected) in MODELS.items():
            print('%-30s %-40s %s' % (name, path, ' '.join(str(v) for v in expected.values())))
        return 0
    unknown = [name for name in args.names if name not in MODELS]
    if unknown or not args.outdir:
        print('make_models.py: ' + ('no such model: %s (--list shows all)' % ', '.join(unknown) if unknown
                                    else 'give a folder to write to'), file=sys.stderr)
        return 2
    expected = {}
    for name in args.names or MODELS:
        path = make(args.outdir, name, args.small, args.random)
        expected[path] = MODELS[name][2]
    if args.expected:
        with open(args.expected, 'w') as out:
            json.dump(expected, out, indent=1)
    return 0


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('outdir', nargs='?', metavar='OUTDIR')
    parser.add_argument('names', nargs='*', metavar='NAME')
    parser.add_argument('--list', action='store_true', help='show what can be made')
    parser.add_argument('--small', action='store_true', help='small networks with the telling shapes')
    parser.add_argument('--random', action='store_true', help='numbers instead of holes')
    parser.add_argument('--expected', metavar='FILE', help='write what identification has to say')
    sys.exit(run(parser.parse_args()))
