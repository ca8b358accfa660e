"""PiD: a transformer over patches and one over pixels, steered by a projection of latents."""
from networks.net import Net


def pid(channels, hidden=512):
    net, h, text = Net('BF16'), 1536, 2304
    net.linear('pixel_embedder.proj', 16, 3)
    net.linear('s_embedder.proj', h, 768)
    net.linear('t_embedder.mlp.0', h, 256)
    net.linear('t_embedder.mlp.2', h, h)
    net.linear('y_embedder.proj', h, text)
    net.add('y_embedder.norm.weight', h)
    net.add('y_pos_embedding', 1, 300, h)
    for i in range(14):
        block = 'patch_blocks.%d' % i
        for side in 'xy':
            net.add('%s.norm_%s1.weight' % (block, side), h)
            net.add('%s.norm_%s2.weight' % (block, side), h)
            net.linear('%s.attn.qkv_%s' % (block, side), 3 * h, h, False)
            net.add('%s.attn.q_norm_%s.weight' % (block, side), 64)
            net.add('%s.attn.k_norm_%s.weight' % (block, side), 64)
            net.linear('%s.attn.proj_%s' % (block, side), h, h)
            for part, out, into in (('w1', 4096, h), ('w3', 4096, h), ('w2', h, 4096)):
                net.linear('%s.mlp_%s.%s' % (block, side, part), out, into, False)
        for side in ('img', 'txt'):
            net.linear('%s.adaLN_modulation_%s.0' % (block, side), 6 * h, h)
    for i in range(2):
        block, attention = 'pixel_blocks.%d' % i, 1152
        net.linear(block + '.compress_to_attn', attention, 4096)
        net.linear(block + '.expand_from_attn', 4096, attention)
        net.add(block + '.norm1.weight', 16)
        net.add(block + '.norm2.weight', 16)
        net.linear(block + '.attn.qkv', 3 * attention, attention, False)
        net.add(block + '.attn.q_norm.weight', 72)
        net.add(block + '.attn.k_norm.weight', 72)
        net.linear(block + '.attn.proj', attention, attention)
        net.linear(block + '.mlp.fc1', 64, 16)
        net.linear(block + '.mlp.fc2', 16, 64)
        net.linear(block + '.adaLN_modulation.0', 24576, h)
    net.add('final_layer.norm.weight', 16)
    net.linear('final_layer.linear', 3, 16)
    net.conv('lq_proj.latent_proj.0', hidden, channels)
    net.conv('lq_proj.latent_proj.2', hidden, hidden)
    for i in range(3, 7):
        block = 'lq_proj.latent_proj.%d.block' % i
        net.norm(block + '.0', hidden)
        net.conv(block + '.2', hidden, hidden)
        net.norm(block + '.3', hidden)
        net.conv(block + '.5', hidden, hidden)
    for i in range(7):
        net.linear('lq_proj.output_heads.%d' % i, h, hidden)
        net.linear('lq_proj.gate_modules.%d.content_proj' % i, h, 2 * h)
        net.add('lq_proj.gate_modules.%d.log_alpha' % i)
    return net
