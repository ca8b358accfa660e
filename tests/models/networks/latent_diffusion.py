"""The latent diffusion U-Net and autoencoder, in the original ("ldm") and the diffusers naming, and the ControlNet, which
copies the U-Net's first half."""
from networks.net import Net

VAE_CONFIG = {'_class_name': 'AutoencoderKL', 'latent_channels': 4, 'in_channels': 3, 'out_channels': 3}


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


VAE_WIDTHS = (128, 256, 512, 512)


def vae_ldm(latent=4, dtype='F16', widths=VAE_WIDTHS):
    net, c = Net(dtype), widths[0]

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
    if latent != 16:  # those of FLUX.1, SD 3 and CogView4 go without
        net.conv('quant_conv', 2 * latent, 2 * latent, 1)
        net.conv('post_quant_conv', latent, latent, 1)
    return net


def vae_diffusers(latent=4, widths=VAE_WIDTHS):
    net, c = Net(), widths[0]

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
    if latent != 16:  # those of FLUX.1, SD 3 and CogView4 go without
        net.conv('quant_conv', 2 * latent, 2 * latent, 1)
        net.conv('post_quant_conv', latent, latent, 1)
    return net
