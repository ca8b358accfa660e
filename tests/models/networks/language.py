"""Text encoders and language models, in the naming of transformers and of llama.cpp."""
from networks.net import Net


class Decoder:
    """The shape of a decoder: width, layers, heads' widths, feed forward, vocabulary."""

    def __init__(self, width, layers, queries, keys, hidden, vocabulary, norms=False, biases=False, gemma=False):
        self.width, self.layers, self.queries, self.keys, self.hidden = width, layers, queries, keys, hidden
        self.vocabulary, self.norms, self.biases, self.gemma = vocabulary, norms, biases, gemma


DECODERS = {
    'qwen3_06b': Decoder(1024, 28, 2048, 1024, 3072, 151936, norms=True),
    'qwen3_4b': Decoder(2560, 36, 4096, 1024, 9728, 151936, norms=True),
    'qwen3_8b': Decoder(4096, 36, 4096, 1024, 12288, 151936, norms=True),
    'qwen3_14b': Decoder(5120, 40, 5120, 1024, 17408, 151936, norms=True),
    'qwen2_vl_7b': Decoder(3584, 28, 3584, 512, 18944, 152064, biases=True),
    'llama3_8b': Decoder(4096, 32, 4096, 1024, 14336, 128256),
    'mistral_7b': Decoder(4096, 32, 4096, 1024, 14336, 32000),
    'mistral3_24b': Decoder(5120, 40, 4096, 1024, 32768, 131072),
    'cow_mistral3_small': Decoder(5120, 30, 4096, 1024, 32768, 131072),
    'gemma2_2b': Decoder(2304, 26, 2048, 1024, 9216, 256000, gemma=True),
    'gemma3_4b': Decoder(2560, 34, 2048, 1024, 10240, 262208, norms=True, gemma=True),
}


def decoder(kind, small=False, prefix='model.', head=False):
    """In the naming of transformers. small: fewer tensors a layer; every layer stays, as their number tells."""
    net, d = Net('BF16'), DECODERS[kind]
    net.add(prefix + 'embed_tokens.weight', d.vocabulary, d.width)
    for i in range(d.layers):
        layer = '%slayers.%d' % (prefix, i)
        net.linear(layer + '.self_attn.q_proj', d.queries, d.width, d.biases)
        if d.norms:
            net.add(layer + '.self_attn.q_norm.weight', 128)
            net.add(layer + '.self_attn.k_norm.weight', 128)
        if d.gemma:
            net.add(layer + '.pre_feedforward_layernorm.weight', d.width)
            net.add(layer + '.post_feedforward_layernorm.weight', d.width)
        if small:
            continue
        net.linear(layer + '.self_attn.k_proj', d.keys, d.width, d.biases)
        net.linear(layer + '.self_attn.v_proj', d.keys, d.width, d.biases)
        net.linear(layer + '.self_attn.o_proj', d.width, d.queries, False)
        net.linear(layer + '.mlp.gate_proj', d.hidden, d.width, False)
        net.linear(layer + '.mlp.up_proj', d.hidden, d.width, False)
        net.linear(layer + '.mlp.down_proj', d.width, d.hidden, False)
        net.add(layer + '.input_layernorm.weight', d.width)
        net.add(layer + '.post_attention_layernorm.weight', d.width)
    net.add(prefix + 'norm.weight', d.width)
    if head:
        net.add('lm_head.weight', d.vocabulary, d.width)
    return net


def decoder_gguf(kind):
    """In the naming of llama.cpp."""
    net, d = Net(), DECODERS[kind]
    net.add('token_embd.weight', d.vocabulary, d.width)
    for i in range(d.layers):
        block = 'blk.%d' % i
        for part, out, into in (('attn_q', d.queries, d.width), ('attn_k', d.keys, d.width), ('attn_v', d.keys, d.width),
                                ('attn_output', d.width, d.queries), ('ffn_gate', d.hidden, d.width),
                                ('ffn_up', d.hidden, d.width), ('ffn_down', d.width, d.hidden)):
            net.linear('%s.%s' % (block, part), out, into, d.biases and part in ('attn_q', 'attn_k', 'attn_v'))
        net.add(block + '.attn_norm.weight', d.width)
        net.add(block + '.ffn_norm.weight', d.width)
        if d.norms:
            net.add(block + '.attn_q_norm.weight', 128)
            net.add(block + '.attn_k_norm.weight', 128)
        if d.gemma:
            net.add(block + '.post_attention_norm.weight', d.width)
            net.add(block + '.post_ffw_norm.weight', d.width)
    net.add('output_norm.weight', d.width)
    return net


def config(kind, name, model_type):
    d = DECODERS[kind]
    return {'architectures': [name], 'model_type': model_type, 'hidden_size': d.width, 'num_hidden_layers': d.layers,
            'intermediate_size': d.hidden, 'vocab_size': d.vocabulary}


def visual_qwen2(small=False):
    net, h = Net('BF16'), 1280
    net.add('visual.patch_embed.proj.weight', h, 3, 2, 14, 14)
    for i in range(2 if small else 32):
        block = 'visual.blocks.%d' % i
        net.linear(block + '.attn.qkv', 3 * h, h)
        net.linear(block + '.attn.proj', h, h)
        net.linear(block + '.mlp.gate_proj', 3420, h)
        net.linear(block + '.mlp.up_proj', 3420, h)
        net.linear(block + '.mlp.down_proj', h, 3420)
        net.add(block + '.norm1.weight', h)
        net.add(block + '.norm2.weight', h)
    net.add('visual.merger.ln_q.weight', h)
    net.linear('visual.merger.mlp.0', 4 * h, 4 * h)
    net.linear('visual.merger.mlp.2', 3584, 4 * h)
    return net


def visual_qwen3(small=False):
    net, h = Net('BF16'), 1024
    net.add('visual.patch_embed.proj.weight', h, 3, 2, 16, 16)
    net.add('visual.patch_embed.proj.bias', h)
    net.add('visual.pos_embed.weight', 2304, h)
    for i in range(2 if small else 24):
        block = 'visual.blocks.%d' % i
        net.linear(block + '.attn.qkv', 3 * h, h)
        net.linear(block + '.attn.proj', h, h)
        net.linear(block + '.mlp.linear_fc1', 4096, h)
        net.linear(block + '.mlp.linear_fc2', h, 4096)
        net.norm(block + '.norm1', h)
        net.norm(block + '.norm2', h)
    for merger, width in [('visual.merger', h)] + [('visual.deepstack_merger_list.%d' % i, 4 * h) for i in range(3)]:
        net.norm(merger + '.norm', width)
        net.linear(merger + '.linear_fc1', 4 * h, 4 * h)
        net.linear(merger + '.linear_fc2', 2560, 4 * h)
    return net


def t5(small=False, vocabulary=32128, each_bias=False):
    """The encoder of T5 1.1 XXL; of umT5 XXL with its vocabulary and a position bias in each block."""
    net, w, hidden = Net('BF16'), 4096, 10240
    net.add('shared.weight', vocabulary, w)
    for i in range(2 if small else 24):
        block = 'encoder.block.%d.layer' % i
        for part in 'qkvo':
            net.linear('%s.0.SelfAttention.%s' % (block, part), w, w, False)
        if i == 0 or each_bias:
            net.add(block + '.0.SelfAttention.relative_attention_bias.weight', 32, 64)
        net.add(block + '.0.layer_norm.weight', w)
        net.linear(block + '.1.DenseReluDense.wi_0', hidden, w, False)
        net.linear(block + '.1.DenseReluDense.wi_1', hidden, w, False)
        net.linear(block + '.1.DenseReluDense.wo', w, hidden, False)
        net.add(block + '.1.layer_norm.weight', w)
    net.add('encoder.final_layer_norm.weight', w)
    return net


def t5_gguf(small=False, vocabulary=32128):
    net, w, hidden = Net(), 4096, 10240
    net.add('token_embd.weight', vocabulary, w)
    for i in range(2 if small else 24):
        block = 'enc.blk.%d' % i
        for part in 'qkvo':
            net.linear('%s.attn_%s' % (block, part), w, w, False)
        net.add(block + '.attn_norm.weight', w)
        net.linear(block + '.ffn_gate', hidden, w, False)
        net.linear(block + '.ffn_up', hidden, w, False)
        net.linear(block + '.ffn_down', w, hidden, False)
        net.add(block + '.ffn_norm.weight', w)
    net.add('enc.blk.0.attn_rel_b.weight', 32, 64)
    net.add('enc.output_norm.weight', w)
    return net


def clip_vision(small=False, width=1280, layers=32, patch=14):
    net = Net('F16')
    net.add('vision_model.embeddings.class_embedding', width)
    net.add('vision_model.embeddings.patch_embedding.weight', width, 3, patch, patch)
    net.add('vision_model.embeddings.position_embedding.weight', (224 // patch) ** 2 + 1, width)
    net.norm('vision_model.pre_layrnorm', width)
    for i in range(1 if small else layers):
        layer = 'vision_model.encoder.layers.%d' % i
        for part in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
            net.linear('%s.self_attn.%s' % (layer, part), width, width)
        net.linear(layer + '.mlp.fc1', 4 * width, width)
        net.linear(layer + '.mlp.fc2', width, 4 * width)
        net.norm(layer + '.layer_norm1', width)
        net.norm(layer + '.layer_norm2', width)
    net.norm('vision_model.post_layernorm', width)
    net.add('visual_projection.weight', 1024, width)
    return net
