"""The transformers of FLUX.1 and FLUX.2, in the naming of black-forest-labs and of diffusers."""
from networks.net import Net

# (hidden, double blocks, single blocks, text width, has guidance)
FLUX2 = {'klein_4b': (3072, 5, 20, 7680, False), 'klein_9b': (4096, 8, 24, 12288, False), 'dev': (6144, 8, 48, 15360, True)}


def mlp_embedder(net, name, hidden, into, bias=True):
    net.linear(name + '.in_layer', hidden, into, bias)
    net.linear(name + '.out_layer', hidden, hidden, bias)


def query_key_norms(net, name):
    net.add(name + '.query_norm.scale', 128)
    net.add(name + '.key_norm.scale', 128)


def flux(small=False, channels=64, guidance=True, dtype='BF16', double=19, single=38):
    net, h = Net(dtype), 3072
    if small:
        double = single = 2
    net.linear('img_in', h, channels)
    net.linear('txt_in', h, 4096)
    mlp_embedder(net, 'time_in', h, 256)
    mlp_embedder(net, 'vector_in', h, 768)
    if guidance:
        mlp_embedder(net, 'guidance_in', h, 256)
    for i in range(double):
        for side in ('img', 'txt'):
            block = 'double_blocks.%d.%s' % (i, side)
            net.linear(block + '_mod.lin', 6 * h, h)
            net.linear(block + '_attn.qkv', 3 * h, h)
            query_key_norms(net, block + '_attn.norm')
            net.linear(block + '_attn.proj', h, h)
            net.linear(block + '_mlp.0', 4 * h, h)
            net.linear(block + '_mlp.2', h, 4 * h)
    for i in range(single):
        block = 'single_blocks.%d' % i
        net.linear(block + '.linear1', 7 * h, h)
        net.linear(block + '.linear2', h, 5 * h)
        query_key_norms(net, block + '.norm')
        net.linear(block + '.modulation.lin', 3 * h, h)
    net.linear('final_layer.linear', 64, h)
    net.linear('final_layer.adaLN_modulation.1', 2 * h, h)
    return net


def chroma(small=False):
    """FLUX.1 with a network that approximates the modulations in place of the embedders."""
    net = Net('BF16')
    for name, spec in flux(small, guidance=False).items():
        if not name.startswith(('time_in.', 'vector_in.')) and '_mod.' not in name and '.modulation.' not in name:
            net[name] = spec
    net.linear('distilled_guidance_layer.in_proj', 5120, 64)
    for i in range(5):
        net.linear('distilled_guidance_layer.layers.%d.in_layer' % i, 5120, 5120)
        net.linear('distilled_guidance_layer.layers.%d.out_layer' % i, 5120, 5120)
        net.add('distilled_guidance_layer.norms.%d.scale' % i, 5120)
    net.linear('distilled_guidance_layer.out_proj', 3072, 5120)
    return net


def joint_attention(net, name, h, bias=True):
    """Attention of image and text in the naming of diffusers."""
    for part in ('to_q', 'to_k', 'to_v', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_out.0', 'to_add_out'):
        net.linear('%s.%s' % (name, part), h, h, bias)
    for part in ('norm_q', 'norm_k', 'norm_added_q', 'norm_added_k'):
        net.add('%s.%s.weight' % (name, part), 128)


def timestep_embedding(net, name, h, into, bias=True):
    net.linear(name + '.linear_1', h, into, bias)
    net.linear(name + '.linear_2', h, h, bias)


def flux_diffusers(small=False, channels=64, guidance=True, dtype='BF16'):
    net, h = Net(dtype), 3072
    double, single = (2, 2) if small else (19, 38)
    net.linear('x_embedder', h, channels)
    net.linear('context_embedder', h, 4096)
    timestep_embedding(net, 'time_text_embed.timestep_embedder', h, 256)
    timestep_embedding(net, 'time_text_embed.text_embedder', h, 768)
    if guidance:
        timestep_embedding(net, 'time_text_embed.guidance_embedder', h, 256)
    for i in range(double):
        block = 'transformer_blocks.%d' % i
        for side in ('', '_context'):
            net.linear('%s.norm1%s.linear' % (block, side), 6 * h, h)
            net.linear('%s.ff%s.net.0.proj' % (block, side), 4 * h, h)
            net.linear('%s.ff%s.net.2' % (block, side), h, 4 * h)
        joint_attention(net, block + '.attn', h)
    for i in range(single):
        block = 'single_transformer_blocks.%d' % i
        net.linear(block + '.norm.linear', 3 * h, h)
        net.linear(block + '.proj_mlp', 4 * h, h)
        net.linear(block + '.proj_out', h, 5 * h)
        for part in ('to_q', 'to_k', 'to_v'):
            net.linear('%s.attn.%s' % (block, part), h, h)
        net.add(block + '.attn.norm_q.weight', 128)
        net.add(block + '.attn.norm_k.weight', 128)
    net.linear('norm_out.linear', 2 * h, h)
    net.linear('proj_out', 64, h)
    return net


def flux2(size, small=False, dtype='BF16'):
    net, (h, double, single, text, guidance) = Net(dtype), FLUX2[size]
    if small:
        double = single = 2
    net.linear('img_in', h, 128, False)
    net.linear('txt_in', h, text, False)
    mlp_embedder(net, 'time_in', h, 256, False)
    if guidance:
        mlp_embedder(net, 'guidance_in', h, 256, False)
    net.linear('double_stream_modulation_img.lin', 6 * h, h, False)
    net.linear('double_stream_modulation_txt.lin', 6 * h, h, False)
    net.linear('single_stream_modulation.lin', 3 * h, h, False)
    for i in range(double):
        for side in ('img', 'txt'):
            block = 'double_blocks.%d.%s' % (i, side)
            net.linear(block + '_attn.qkv', 3 * h, h, False)
            query_key_norms(net, block + '_attn.norm')
            net.linear(block + '_attn.proj', h, h, False)
            net.linear(block + '_mlp.0', 6 * h, h, False)
            net.linear(block + '_mlp.2', h, 3 * h, False)
    for i in range(single):
        block = 'single_blocks.%d' % i
        net.linear(block + '.linear1', 9 * h, h, False)
        net.linear(block + '.linear2', h, 4 * h, False)
        query_key_norms(net, block + '.norm')
    net.linear('final_layer.linear', 128, h, False)
    net.linear('final_layer.adaLN_modulation.1', 2 * h, h, False)
    return net


def flux2_diffusers(size, small=False, dtype='BF16'):
    net, (h, double, single, text, guidance) = Net(dtype), FLUX2[size]
    if small:
        double = single = 2
    net.linear('x_embedder', h, 128, False)
    net.linear('context_embedder', h, text, False)
    timestep_embedding(net, 'time_guidance_embed.timestep_embedder', h, 256, False)
    if guidance:
        timestep_embedding(net, 'time_guidance_embed.guidance_embedder', h, 256, False)
    net.linear('double_stream_modulation_img.linear', 6 * h, h, False)
    net.linear('double_stream_modulation_txt.linear', 6 * h, h, False)
    net.linear('single_stream_modulation.linear', 3 * h, h, False)
    for i in range(double):
        block = 'transformer_blocks.%d' % i
        joint_attention(net, block + '.attn', h, False)
        for part in ('ff', 'ff_context'):
            net.linear('%s.%s.linear_in' % (block, part), 6 * h, h, False)
            net.linear('%s.%s.linear_out' % (block, part), h, 3 * h, False)
    for i in range(single):
        block = 'single_transformer_blocks.%d.attn' % i
        net.linear(block + '.to_qkv_mlp_proj', 9 * h, h, False)
        net.linear(block + '.to_out', h, 4 * h, False)
        net.add(block + '.norm_q.weight', 128)
        net.add(block + '.norm_k.weight', 128)
    net.linear('norm_out.linear', 2 * h, h, False)
    net.linear('proj_out', 128, h, False)
    return net
