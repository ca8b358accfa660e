"""The transformers of other image models: SD 3, Qwen-Image, Z-Image and Lumina 2, Krea 2, Anima, CogView4, ERNIE-Image,
Ideogram 4."""
from networks.flux import joint_attention, timestep_embedding
from networks.net import Net


def sd3(size='medium', small=False):
    """Stability's own naming. medium: 24 blocks of 1536; large: 38 of 2432."""
    depth, h = {'medium': (24, 1536), 'large': (38, 2432)}[size]
    net, depth = Net('F16'), 2 if small else depth
    net.add('pos_embed', 1, 192 * 192, h)
    net.conv('x_embedder.proj', h, 16, 2)
    net.linear('context_embedder', h, 4096)
    for name, into in (('y_embedder', 2048), ('t_embedder', 256)):
        net.linear(name + '.mlp.0', h, into)
        net.linear(name + '.mlp.2', h, h)
    for i in range(depth):
        for side in ('context_block', 'x_block'):
            block, last = 'joint_blocks.%d.%s' % (i, side), i == depth - 1 and side == 'context_block'
            net.linear(block + '.attn.qkv', 3 * h, h)
            net.linear(block + '.adaLN_modulation.1', (2 if last else 6) * h, h)
            if size == 'large':
                net.add(block + '.attn.ln_q.weight', 64)
                net.add(block + '.attn.ln_k.weight', 64)
            if not last:
                net.linear(block + '.attn.proj', h, h)
                net.linear(block + '.mlp.fc1', 4 * h, h)
                net.linear(block + '.mlp.fc2', h, 4 * h)
    net.linear('final_layer.linear', 64, h)
    net.linear('final_layer.adaLN_modulation.1', 2 * h, h)
    return net


def sd3_diffusers(small=False):
    net, h = Net('F16'), 1536
    net.add('pos_embed.pos_embed', 1, 192 * 192, h)
    net.conv('pos_embed.proj', h, 16, 2)
    net.linear('context_embedder', h, 4096)
    timestep_embedding(net, 'time_text_embed.timestep_embedder', h, 256)
    timestep_embedding(net, 'time_text_embed.text_embedder', h, 2048)
    depth = 2 if small else 24
    for i in range(depth):
        block, last = 'transformer_blocks.%d' % i, i == depth - 1
        for part in ('to_q', 'to_k', 'to_v', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_out.0', 'to_add_out'):
            if not last or part != 'to_add_out':
                net.linear('%s.attn.%s' % (block, part), h, h)
        for side in ('', '_context'):
            ends = last and side == '_context'  # nothing takes the text after the last block
            net.linear('%s.norm1%s.linear' % (block, side), (2 if ends else 6) * h, h)
            if not ends:
                net.linear('%s.ff%s.net.0.proj' % (block, side), 4 * h, h)
                net.linear('%s.ff%s.net.2' % (block, side), h, 4 * h)
    net.linear('norm_out.linear', 2 * h, h)
    net.linear('proj_out', 64, h)
    return net


def qwen_image(small=False, layered=False):
    net, h = Net('BF16'), 3072
    net.linear('img_in', h, 64)
    net.add('txt_norm.weight', 3584)
    net.linear('txt_in', h, 3584)
    timestep_embedding(net, 'time_text_embed.timestep_embedder', h, 256)
    if layered:
        net.add('time_text_embed.addition_t_embedding.weight', 2, h)
    for i in range(2 if small else 60):
        block = 'transformer_blocks.%d' % i
        joint_attention(net, block + '.attn', h)
        for side in ('img', 'txt'):
            net.linear('%s.%s_mod.1' % (block, side), 6 * h, h)
            net.linear('%s.%s_mlp.net.0.proj' % (block, side), 4 * h, h)
            net.linear('%s.%s_mlp.net.2' % (block, side), h, 4 * h)
    net.linear('norm_out.linear', 2 * h, h)
    net.linear('proj_out', 64, h)
    return net


def lumina_block(net, name, h, hidden, fused, modulated, condition):
    if fused:
        net.linear(name + '.attention.qkv', 3 * h, h, False)
        net.linear(name + '.attention.out', h, h, False)
        norms = ('q_norm', 'k_norm')
    else:
        for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
            net.linear('%s.attention.%s' % (name, part), h, h, False)
        norms = ('norm_q', 'norm_k')
    for norm in norms:
        net.add('%s.attention.%s.weight' % (name, norm), 128)
    net.linear(name + '.feed_forward.w1', hidden, h, False)
    net.linear(name + '.feed_forward.w2', h, hidden, False)
    net.linear(name + '.feed_forward.w3', hidden, h, False)
    for norm in ('attention_norm1', 'attention_norm2', 'ffn_norm1', 'ffn_norm2'):
        net.add('%s.%s.weight' % (name, norm), h)
    if modulated:
        net.linear(name + ('.adaLN_modulation.1' if condition > 256 else '.adaLN_modulation.0'), 4 * h, condition)


def z_image(small=False, fused=False, dtype='BF16'):
    """fused: the naming of the single files, else that of diffusers."""
    net, h = Net(dtype), 3840
    single = '' if fused else 'all_'
    patch = '' if fused else '.2-1'
    net.linear('%sx_embedder%s' % (single, patch), h, 64)
    net.linear('%sfinal_layer%s.linear' % (single, patch), 64, h)
    net.linear('%sfinal_layer%s.adaLN_modulation.1' % (single, patch), h, 256)
    net.add('cap_embedder.0.weight', 2560)
    net.linear('cap_embedder.1', h, 2560)
    net.linear('t_embedder.mlp.0', 1024, 256)
    net.linear('t_embedder.mlp.2', 256, 1024)
    net.add('x_pad_token', 1, h)
    net.add('cap_pad_token', 1, h)
    for group, count, modulated in (('context_refiner', 2, False), ('noise_refiner', 2, True),
                                    ('layers', 2 if small else 30, True)):
        for i in range(count):
            lumina_block(net, '%s.%d' % (group, i), h, 10240, fused, modulated, 256)
    return net


def lumina2(small=False):
    net, h = Net('BF16'), 2304
    net.linear('x_embedder', h, 64)
    net.add('cap_embedder.0.weight', 2304)
    net.linear('cap_embedder.1', h, 2304)
    net.linear('t_embedder.mlp.0', 1024, 256)
    net.linear('t_embedder.mlp.2', 1024, 1024)
    for group, count, modulated in (('context_refiner', 2, False), ('noise_refiner', 2, True),
                                    ('layers', 2 if small else 26, True)):
        for i in range(count):
            lumina_block(net, '%s.%d' % (group, i), h, 9216, True, modulated, 1024)
    net.linear('final_layer.linear', 64, h)
    net.linear('final_layer.adaLN_modulation.1', h, 1024)
    return net


def krea_attention(net, name, h, keys, head, own):
    parts = ('wq', 'wk', 'wv', 'gate', 'wo') if own else ('to_q', 'to_k', 'to_v', 'to_gate', 'to_out.0')
    for part, out in zip(parts, (h, keys, keys, h, h)):
        net.linear('%s.%s' % (name, part), out, h, False)
    for part in (('qknorm.qnorm.scale', 'qknorm.knorm.scale') if own else ('norm_q.weight', 'norm_k.weight')):
        net.add('%s.%s' % (name, part), head)


def krea_block(net, name, h, keys, head, hidden, own, modulated):
    krea_attention(net, name + '.attn', h, keys, head, own)
    mlp = '.mlp' if own else '.ff'
    net.linear(name + mlp + '.gate', hidden, h, False)
    net.linear(name + mlp + '.up', hidden, h, False)
    net.linear(name + mlp + '.down', h, hidden, False)
    net.add(name + ('.prenorm.scale' if own else '.norm1.weight'), h)
    net.add(name + ('.postnorm.scale' if own else '.norm2.weight'), h)
    if modulated:
        net.add(name + ('.mod.lin' if own else '.scale_shift_table'), 6, h)


def krea(small=False, own=False, dtype='BF16'):
    """own: Krea's naming, else that of diffusers."""
    net, h, text = Net(dtype), 6144, 2560
    fusion, blocks = ('txtfusion', 'blocks') if own else ('text_fusion', 'transformer_blocks')
    net.linear('first' if own else 'img_in', h, 64)
    net.linear('tmlp.0' if own else 'time_embed.linear_1', h, 256)
    net.linear('tmlp.2' if own else 'time_embed.linear_2', h, h)
    net.linear('tproj.1' if own else 'time_mod_proj', 6 * h, h)
    net.add('txtmlp.0.scale' if own else 'txt_in.norm.weight', text)
    net.linear('txtmlp.1' if own else 'txt_in.linear_1', h, text)
    net.linear('txtmlp.3' if own else 'txt_in.linear_2', h, h)
    net.linear(fusion + '.projector', 1, 12, False)
    for group in ('layerwise_blocks', 'refiner_blocks'):
        for i in range(2):
            krea_block(net, '%s.%s.%d' % (fusion, group, i), text, text, 128, 6912, own, False)
    for i in range(2 if small else 28):
        krea_block(net, '%s.%d' % (blocks, i), h, 1536, 128, 16384, own, True)
    net.linear('last.linear' if own else 'final_layer.linear', 64, h)
    net.add('last.norm.scale' if own else 'final_layer.norm.weight', h)
    net.add('last.modulation.lin' if own else 'final_layer.scale_shift_table', 2, h)
    return net


def cosmos(small=False):
    """Cosmos-Predict2 2B as Anima has it: 16 channels and a padding mask in patches of 2 x 2."""
    net, h = Net('BF16'), 2048
    net.linear('x_embedder.proj.1', h, 68, False)
    net.linear('t_embedder.1.linear_1', h, h, False)
    net.linear('t_embedder.1.linear_2', 3 * h, h, False)
    net.add('t_embedding_norm.weight', h)
    for i in range(2 if small else 28):
        block = 'blocks.%d' % i
        for attention, into in (('self_attn', h), ('cross_attn', 1024)):
            net.linear('%s.%s.q_proj' % (block, attention), h, h, False)
            net.linear('%s.%s.k_proj' % (block, attention), h, into, False)
            net.linear('%s.%s.v_proj' % (block, attention), h, into, False)
            net.linear('%s.%s.output_proj' % (block, attention), h, h, False)
            net.add('%s.%s.q_norm.weight' % (block, attention), 128)
            net.add('%s.%s.k_norm.weight' % (block, attention), 128)
        net.linear(block + '.mlp.layer1', 4 * h, h, False)
        net.linear(block + '.mlp.layer2', h, 4 * h, False)
        for part in ('self_attn', 'cross_attn', 'mlp'):
            net.linear('%s.adaln_modulation_%s.1' % (block, part), 256, h, False)
            net.linear('%s.adaln_modulation_%s.2' % (block, part), 3 * h, 256, False)
    net.linear('final_layer.linear', 64, h, False)
    net.linear('final_layer.adaln_modulation.1', 256, h, False)
    net.linear('final_layer.adaln_modulation.2', 2 * h, 256, False)
    return net


def anima(small=False):
    net, w = cosmos(small), 1024
    net.add('llm_adapter.embed.weight', 32128, w)
    for i in range(6):
        block = 'llm_adapter.blocks.%d' % i
        for attention in ('self_attn', 'cross_attn'):
            net.add('%s.norm_%s.weight' % (block, attention), w)
            for part in ('q_proj', 'k_proj', 'v_proj', 'o_proj'):
                net.linear('%s.%s.%s' % (block, attention, part), w, w, False)
            net.add('%s.%s.q_norm.weight' % (block, attention), 64)
            net.add('%s.%s.k_norm.weight' % (block, attention), 64)
        net.add(block + '.norm_mlp.weight', w)
        net.linear(block + '.mlp.0', 4 * w, w)
        net.linear(block + '.mlp.2', w, 4 * w)
    net.linear('llm_adapter.out_proj', w, w)
    net.add('llm_adapter.norm.weight', w)
    return net


def cogview4(small=False):
    net, h, time = Net('BF16'), 2560, 512
    net.linear('patch_embed.proj', h, 64)
    net.linear('patch_embed.text_proj', h, 4096)
    timestep_embedding(net, 'time_condition_embed.timestep_embedder', time, h)
    timestep_embedding(net, 'time_condition_embed.condition_embedder', time, 1536)
    for i in range(2 if small else 30):
        block = 'transformer_blocks.%d' % i
        net.linear(block + '.norm1.linear', 12 * h, time)
        for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
            net.linear('%s.attn1.%s' % (block, part), h, h)
        net.linear(block + '.ff.net.0.proj', 4 * h, h)
        net.linear(block + '.ff.net.2', h, 4 * h)
    net.linear('norm_out.linear', 2 * h, time)
    net.linear('proj_out', 64, h)
    return net


def ernie_image(small=False):
    net, h = Net('BF16'), 3072
    net.conv('x_embedder.proj', h, 128, 1)
    net.linear('text_proj', h, 2560, False)
    timestep_embedding(net, 'time_embedding', h, h)
    net.linear('adaLN_modulation.1', 6 * h, h)
    for i in range(2 if small else 24):
        layer = 'layers.%d' % i
        for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
            net.linear('%s.self_attention.%s' % (layer, part), h, h, False)
        net.add(layer + '.self_attention.norm_q.weight', 128)
        net.add(layer + '.self_attention.norm_k.weight', 128)
        net.linear(layer + '.mlp.gate_proj', 8192, h, False)
        net.linear(layer + '.mlp.up_proj', 8192, h, False)
        net.linear(layer + '.mlp.linear_fc2', h, 8192, False)
        net.add(layer + '.adaLN_sa_ln.weight', h)
        net.add(layer + '.adaLN_mlp_ln.weight', h)
    net.linear('final_norm.linear', 2 * h, h)
    net.linear('final_linear', 128, h)
    return net


def ideogram4(small=False):
    net, h, llm = Net('BF16'), 4608, 53248
    net.linear('input_proj', h, 128)
    net.add('llm_cond_norm.weight', llm)
    net.linear('llm_cond_proj', h, llm)
    net.linear('t_embedding.mlp_in', h, h)
    net.linear('t_embedding.mlp_out', h, h)
    net.linear('adaln_proj', 512, h)
    net.add('embed_image_indicator.weight', 2, h)
    for i in range(2 if small else 34):
        layer = 'layers.%d' % i
        for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
            net.linear('%s.attention.%s' % (layer, part), h, h, False)
        net.add(layer + '.attention.norm_q.weight', 256)
        net.add(layer + '.attention.norm_k.weight', 256)
        for part, out, into in (('w1', 12288, h), ('w2', h, 12288), ('w3', 12288, h)):
            net.linear('%s.feed_forward.%s' % (layer, part), out, into, False)
        for norm in ('attention_norm1', 'attention_norm2', 'ffn_norm1', 'ffn_norm2'):
            net.add('%s.%s.weight' % (layer, norm), h)
        net.linear(layer + '.adaln_modulation', 4 * h, 512)
    net.linear('final_layer.linear', 128, h)
    net.linear('final_layer.adaln_modulation', h, 512)
    return net
