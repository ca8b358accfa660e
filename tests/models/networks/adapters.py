"""ControlNets of transformers, IP-Adapters, T2I adapters and the like."""
from networks.flux import flux, flux_diffusers
from networks.dit import lumina_block, qwen_image, sd3_diffusers
from networks.latent_diffusion import unet
from networks.net import Net


def some(net, *prefixes):
    made = Net(net.dtype)
    made.update((name, spec) for name, spec in net.items() if name.startswith(prefixes))
    return made


def flux_xlabs():
    """Two double blocks behind what embeds the picture."""
    net = flux(channels=64, double=2, single=0)
    net = some(net, 'img_in', 'txt_in', 'time_in', 'vector_in', 'guidance_in', 'double_blocks')
    for i in range(2):
        net.linear('controlnet_blocks.%d' % i, 3072, 3072)
    widths = [3] + [16] * 8
    for i in range(8):
        net.conv('input_hint_block.%d' % (2 * i), widths[i + 1], widths[i])
    net.linear('pos_embed_input', 3072, 64)
    return net


def flux_instantx(modes=0, double=5, single=10, small=False):
    net = flux_diffusers(True)
    if small:
        double, single = 2, 2
    made = Net('BF16').include('', {n: s for n, s in net.items() if not n.startswith(('transformer_blocks', 'single_transformer_blocks', 'norm_out', 'proj_out'))})
    for blocks, count, output in (('transformer_blocks', double, 'controlnet_blocks'), ('single_transformer_blocks', single, 'controlnet_single_blocks')):
        for i in range(count):
            made.include('', {n.replace(blocks + '.0.', '%s.%d.' % (blocks, i)): s for n, s in net.items() if n.startswith(blocks + '.0.')})
            made.linear('%s.%d' % (output, i), 3072, 3072)
    made.linear('controlnet_x_embedder', 3072, 64)
    if modes:
        made.add('controlnet_mode_embedder.weight', modes, 3072)
    return made


def sd3_controlnet(small=False):
    net = some(sd3_diffusers(True), 'pos_embed', 'context_embedder', 'time_text_embed', 'transformer_blocks')
    for i in range(2):
        net.linear('controlnet_blocks.%d' % i, 1536, 1536)
    net.conv('pos_embed_input.proj', 1536, 17, 2)
    return net


def qwen_controlnet():
    net = some(qwen_image(True), 'img_in', 'txt_in', 'txt_norm', 'time_text_embed', 'transformer_blocks')
    for i in range(2):
        net.linear('controlnet_blocks.%d' % i, 3072, 3072)
    net.linear('controlnet_x_embedder', 3072, 64)
    return net


def z_image_control(layers=6, refiner=0, channels=16):
    net = Net('BF16')
    net.linear('control_all_x_embedder.2-1', 3840, 4 * channels)
    for group, count in (('control_layers', layers), ('control_noise_refiner', refiner)):
        for i in range(count):
            lumina_block(net, '%s.%d' % (group, i), 3840, 10240, False, True, 256)
            net.linear('%s.%d.after_proj' % (group, i), 3840, 3840)
            if i == 0:
                net.linear('%s.%d.before_proj' % (group, i), 3840, 3840)
    return net


def lllite_anima(channels=3, blocks=28):
    net = Net('BF16')
    trunk = 'lllite_conditioning1.'
    for i, (out, into, k) in enumerate(((32, channels, 4), (32, 32, 3), (64, 32, 4)), 1):
        net.conv('%sconv%d' % (trunk, i), out, into, k)
        net.norm('%snorm%d' % (trunk, i), out)
    net.conv(trunk + 'proj', 32, 64, 1)
    net.norm(trunk + 'out_norm', 32)
    for i in range(blocks):
        for part in ('self_attn_q_proj', 'self_attn_k_proj', 'self_attn_v_proj', 'cross_attn_q_proj'):
            name = 'lllite_dit_blocks_%d_%s' % (i, part)
            net.linear(name + '.down', 64, 2048)
            net.linear(name + '.mid', 64, 96)
            net.linear(name + '.cond_to_film', 128, 32)
            net.linear(name + '.up', 2048, 64)
            net.add(name + '.depth_embed', 32)
    return net


def lllite_sdxl():
    """kohya's first LLLite, a whole network for each layer."""
    net = Net()
    for i in range(10):
        name = 'lllite_unet_middle_block_1_transformer_blocks_%d_attn1_to_q' % i
        net.conv(name + '.conditioning1.0', 16, 3, 4)
        net.linear(name + '.down.0', 64, 1280)
        net.linear(name + '.mid.0', 64, 96)
        net.linear(name + '.up.0', 1280, 64)
    return net


def control_lora(small=False):
    """Stability's: the down half of SDXL's U-Net in two factors; small layers whole."""
    net, (whole, shape) = Net(), (Net(), unet('sdxl', 'normal', small))
    shape.ldm_down(whole)
    for name, (_, dims) in whole.items():
        if name.endswith('.weight') and len(dims) > 1 and min(dims[:2]) > 8:
            net.add(name[:-6] + 'up', dims[0], 64)
            net.add(name[:-6] + 'down', 64, *dims[1:])
        else:
            net.add(name, *dims)
    net.add('lora_controlnet')
    return net


def ip_adapter(base, plus=False, full=False, encoder=1024):
    """plus: a resampler in front; full: a projection of each patch."""
    net, (context, widths) = Net(), {'sd-1': (768, (320, 640, 1280, 1280, 640, 320)), 'sd-2': (1024, (320, 640, 1280, 1280, 640, 320)),
                                     'sdxl': (2048, (640, 1280, 1280, 1280, 640))}[base]
    if plus:
        net.add('image_proj.latents', 1, 16, 768)
        net.linear('image_proj.proj_in', 768, 1280)
        net.linear('image_proj.proj_out', context, 768)
        net.norm('image_proj.norm_out', context)
        for i in range(4):
            layer = 'image_proj.layers.%d' % i
            net.norm(layer + '.0.norm1', 768)
            net.norm(layer + '.0.norm2', 768)
            net.linear(layer + '.0.to_q', 768, 768, False)
            net.linear(layer + '.0.to_kv', 1536, 768, False)
            net.linear(layer + '.0.to_out', 768, 768, False)
            net.norm(layer + '.1.0', 768)
            net.linear(layer + '.1.1', 3072, 768, False)
            net.linear(layer + '.1.3', 768, 3072, False)
    elif full:
        net.linear('image_proj.proj.0', 1280, 1280)
        net.linear('image_proj.proj.2', context, 1280)
        net.norm('image_proj.proj.3', context)
    else:
        net.linear('image_proj.proj', 4 * context, encoder)
        net.norm('image_proj.norm', context)
    for i, width in enumerate(w for w in widths for _ in range(2)):
        for part in ('to_k_ip', 'to_v_ip'):
            net.add('ip_adapter.%d.%s.weight' % (2 * i + 1, part), width, context)
    return net


def ip_adapter_flux(tokens=4):
    net = Net('BF16')
    for i in range(19):
        for part in ('k', 'v'):
            net.linear('double_blocks.%d.processor.ip_adapter_double_stream_%s_proj' % (i, part), 3072, 4096)
    net.linear('ip_adapter_proj_model.proj', 4096 * tokens, 768)
    net.norm('ip_adapter_proj_model.norm', 4096)
    return net


def face_id():
    """Of faces: the projection beside LoRAs, which are for the U-Net."""
    net = ip_adapter('sd-1')
    for i in range(4):
        net.add('ip_adapter.%d.to_q_lora.down.weight' % (2 * i), 128, 320)
        net.add('ip_adapter.%d.to_q_lora.up.weight' % (2 * i), 320, 128)
    return net


def t2i_adapter():
    """TencentARC's own naming."""
    net = Net()
    net.conv('conv_in', 320, 64 * 3)
    for i, (width, into) in enumerate(((320, 320), (320, 320), (640, 320), (640, 640), (1280, 640), (1280, 1280), (1280, 1280), (1280, 1280))):
        net.conv('body.%d.block1' % i, width, width)
        net.conv('body.%d.block2' % i, width, width, 1)
        if width != into:
            net.conv('body.%d.in_conv' % i, width, into, 1)
    return net


def t2i_diffusers(channels=3, extra=64):
    net = Net()
    net.conv('adapter.conv_in', 320, channels * extra)
    for i, (width, into) in enumerate(((320, 320), (640, 320), (1280, 640), (1280, 1280))):
        if width != into:
            net.conv('adapter.body.%d.in_conv' % i, width, into, 1)
        for j in range(2):
            net.conv('adapter.body.%d.resnets.%d.block1' % (i, j), width, width)
            net.conv('adapter.body.%d.resnets.%d.block2' % (i, j), width, width, 1)
    return net


def redux():
    net = Net('BF16')
    net.linear('redux_up', 12288, 1152)
    net.linear('redux_down', 4096, 12288)
    return net
