"""CLIP text models in the naming of transformers and of OpenCLIP."""
from networks.net import Net


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
