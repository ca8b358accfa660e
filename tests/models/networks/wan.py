"""Wan's transformer and autoencoder, in Wan's own naming and that of diffusers."""
from networks.net import Net

# (hidden, feed forward, blocks, channels in, channels out)
WAN = {'t2v_a14b': (5120, 13824, 40, 16, 16), 'i2v_a14b': (5120, 13824, 40, 36, 16), 'ti2v_5b': (3072, 14336, 30, 48, 48),
       't2v_1.3b': (1536, 8960, 30, 16, 16)}


def wan(size, small=False, dtype='F16', image=False):
    """image: the branch for an image's CLIP features, which Wan 2.1 has."""
    net, (h, hidden, blocks, into, out) = Net(dtype), WAN[size]
    net.add('patch_embedding.weight', h, into, 1, 2, 2)
    net.add('patch_embedding.bias', h)
    net.linear('text_embedding.0', h, 4096)
    net.linear('text_embedding.2', h, h)
    net.linear('time_embedding.0', h, 256)
    net.linear('time_embedding.2', h, h)
    net.linear('time_projection.1', 6 * h, h)
    for i in range(2 if small else blocks):
        block = 'blocks.%d' % i
        for attention in ('self_attn', 'cross_attn'):
            for part in 'qkvo':
                net.linear('%s.%s.%s' % (block, attention, part), h, h)
            net.add('%s.%s.norm_q.weight' % (block, attention), h)
            net.add('%s.%s.norm_k.weight' % (block, attention), h)
        if image:
            net.linear(block + '.cross_attn.k_img', h, h)
            net.linear(block + '.cross_attn.v_img', h, h)
        net.linear(block + '.ffn.0', hidden, h)
        net.linear(block + '.ffn.2', h, hidden)
        net.norm(block + '.norm3', h)
        net.add(block + '.modulation', 1, 6, h)
    if image:
        net.norm('img_emb.proj.0', 1280)
        net.linear('img_emb.proj.1', 1280, 1280)
        net.linear('img_emb.proj.3', h, 1280)
        net.norm('img_emb.proj.4', h)
    net.linear('head.head', 4 * out, h)
    net.add('head.modulation', 1, 2, h)
    return net


def wan_diffusers(size, small=False):
    net, (h, hidden, blocks, into, out) = Net('BF16'), WAN[size]
    net.add('patch_embedding.weight', h, into, 1, 2, 2)
    net.add('patch_embedding.bias', h)
    for name, width in (('text_embedder', 4096), ('time_embedder', 256)):
        net.linear('condition_embedder.%s.linear_1' % name, h, width)
        net.linear('condition_embedder.%s.linear_2' % name, h, h)
    net.linear('condition_embedder.time_proj', 6 * h, h)
    for i in range(2 if small else blocks):
        block = 'blocks.%d' % i
        for attention in ('attn1', 'attn2'):
            for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
                net.linear('%s.%s.%s' % (block, attention, part), h, h)
            net.add('%s.%s.norm_q.weight' % (block, attention), h)
            net.add('%s.%s.norm_k.weight' % (block, attention), h)
        net.linear(block + '.ffn.net.0.proj', hidden, h)
        net.linear(block + '.ffn.net.2', h, hidden)
        net.norm(block + '.norm2', h)
        net.add(block + '.scale_shift_table', 1, 6, h)
    net.linear('proj_out', 4 * out, h)
    net.add('scale_shift_table', 1, 2, h)
    return net


def conv3(net, name, out, into, *kernel):
    net.add(name + '.weight', out, into, *(kernel or (3, 3, 3)))
    net.add(name + '.bias', out)


class _Names:
    """Where the parts of a block are in each naming."""

    def __init__(self, own):
        self.norm1, self.conv1, self.norm2, self.conv2, self.shortcut = (
            ('residual.0', 'residual.2', 'residual.3', 'residual.6', 'shortcut') if own else
            ('norm1', 'conv1', 'norm2', 'conv2', 'conv_shortcut'))


def residual(net, name, into, out, names):
    net.add('%s.%s.gamma' % (name, names.norm1), into, 1, 1, 1)
    conv3(net, '%s.%s' % (name, names.conv1), out, into)
    net.add('%s.%s.gamma' % (name, names.norm2), out, 1, 1, 1)
    conv3(net, '%s.%s' % (name, names.conv2), out, out)
    if into != out:
        conv3(net, '%s.%s' % (name, names.shortcut), out, into, 1, 1, 1)


def attention(net, name, width):
    net.add(name + '.norm.gamma', width, 1, 1)
    net.conv(name + '.to_qkv', 3 * width, width, 1)
    net.conv(name + '.proj', width, width, 1)


def middle(net, side, width, own):
    names = _Names(own)
    at = (['middle.0', 'middle.1', 'middle.2'] if own
          else ['mid_block.resnets.0', 'mid_block.attentions.0', 'mid_block.resnets.1'])
    residual(net, '%s.%s' % (side, at[0]), width, width, names)
    attention(net, '%s.%s' % (side, at[1]), width)
    residual(net, '%s.%s' % (side, at[2]), width, width, names)


def wan_vae(latent=16, own=False, dtype='F32'):
    """The autoencoder of Wan 2.1 (16 channels, also Qwen-Image's), or that of Wan 2.2 5B (48)."""
    net, image = Net(dtype), 3 if latent == 16 else 12
    down, up = ((96, 192, 384, 384), (384, 384, 192, 96)) if latent == 16 else ((160, 320, 640, 640), (1024, 1024, 512, 256))
    conv3(net, 'encoder.conv1' if own else 'encoder.conv_in', down[0], image)
    (encode_flat if latent == 16 else encode_nested)(net, down, own)
    middle(net, 'encoder', down[-1], own)
    net.add('encoder.head.0.gamma' if own else 'encoder.norm_out.gamma', down[-1], 1, 1, 1)
    conv3(net, 'encoder.head.2' if own else 'encoder.conv_out', 2 * latent, down[-1])
    conv3(net, 'conv1' if own else 'quant_conv', 2 * latent, 2 * latent, 1, 1, 1)
    conv3(net, 'conv2' if own else 'post_quant_conv', latent, latent, 1, 1, 1)
    conv3(net, 'decoder.conv1' if own else 'decoder.conv_in', up[0], latent)
    middle(net, 'decoder', up[0], own)
    (decode_flat if latent == 16 else decode_nested)(net, up, own)
    net.add('decoder.head.0.gamma' if own else 'decoder.norm_out.gamma', up[-1], 1, 1, 1)
    conv3(net, 'decoder.head.2' if own else 'decoder.conv_out', image, up[-1])
    return net


def encode_flat(net, widths, own):
    """Wan 2.1: all blocks in one list."""
    down, width, at = ('encoder.downsamples' if own else 'encoder.down_blocks'), widths[0], 0
    for level, out in enumerate(widths):
        for _ in range(2):
            residual(net, '%s.%d' % (down, at), width, out, _Names(own))
            width, at = out, at + 1
        if level < 3:
            net.conv('%s.%d.resample.1' % (down, at), width, width)
            if level:
                conv3(net, '%s.%d.time_conv' % (down, at), width, width, 3, 1, 1)
            at += 1


def decode_flat(net, widths, own):
    width, at = widths[0], 0
    for level, out in enumerate(widths):
        for i in range(3):
            name = 'decoder.upsamples.%d' % at if own else 'decoder.up_blocks.%d.resnets.%d' % (level, i)
            residual(net, name, width, out, _Names(own))
            width, at = out, at + 1
        if level < 3:
            name = 'decoder.upsamples.%d' % at if own else 'decoder.up_blocks.%d.upsamplers.0' % level
            net.conv(name + '.resample.1', width // 2, width)
            if level < 2:
                conv3(net, name + '.time_conv', 2 * width, width, 3, 1, 1)
            width, at = width // 2, at + 1


def encode_nested(net, widths, own):
    """Wan 2.2: a list of blocks for each level."""
    width = widths[0]
    for level, out in enumerate(widths):
        block = 'encoder.downsamples.%d.downsamples' % level if own else 'encoder.down_blocks.%d.resnets' % level
        for i in range(2):
            residual(net, '%s.%d' % (block, i), width, out, _Names(own))
            width = out
        if level < 3:
            name = block + '.2' if own else 'encoder.down_blocks.%d.downsampler' % level
            net.conv(name + '.resample.1', width, width)
            if level:
                conv3(net, name + '.time_conv', width, width, 3, 1, 1)


def decode_nested(net, widths, own):
    width = widths[0]
    for level, out in enumerate(widths):
        block = 'decoder.upsamples.%d.upsamples' % level if own else 'decoder.up_blocks.%d.resnets' % level
        for i in range(3):
            residual(net, '%s.%d' % (block, i), width, out, _Names(own))
            width = out
        if level < 3:
            name = block + '.3' if own else 'decoder.up_blocks.%d.upsampler' % level
            net.conv(name + '.resample.1', width, width)
            if level < 2:
                conv3(net, name + '.time_conv', 2 * width, width, 3, 1, 1)
