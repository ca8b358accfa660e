"""What is no model that lade knows, or no model at all."""
from catalogue.case import Case, REFUSED, tensors
from networks.clip import clip
from networks.net import Net

OWN = 'made to be refused'
LLAMA = 'huggingface/transformers: modeling_llama.py'
CLIP = 'huggingface/transformers: modeling_clip.py'


def llm(small):
    net = Net('BF16')
    width = 64 if small else 2048
    net.add('model.embed_tokens.weight', 256, width)
    for i in range(4):
        for part in ('q_proj', 'k_proj', 'v_proj', 'o_proj'):
            net.linear('model.layers.%d.self_attn.%s' % (i, part), width, width, bias=False)
    return {'config.json': {'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'hidden_size': width},
            'tokenizer.json': {}, 'model.safetensors': net}


def truncated(small):
    return {'': b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}'.ljust(72) + b'\0\0'}


CASES = {
    'bad-empty': Case('empty.safetensors', lambda small: {'': b''}, {'error': 'corrupt'}, OWN),
    'bad-truncated': Case('truncated.safetensors', truncated, {'error': 'corrupt'}, OWN),
    'bad-no-tensors': Case('no-tensors.safetensors', tensors({}), REFUSED, OWN),
    'bad-random': Case('random.safetensors', tensors({'weight': ('F32', (10, 768)), 'bias': ('F32', (10,))}),
                       REFUSED, OWN),
    'bad-one-matrix': Case('matrix.safetensors', tensors({'fc.weight': ('F32', (1000, 768))}), REFUSED, OWN),
    'bad-width': Case('odd.safetensors', tensors({'emb_params': ('F32', (2, 512))}), REFUSED, OWN),
    'bad-text-encoder': Case('clip.safetensors', lambda small: {'': clip(small=small)}, REFUSED, CLIP),
    'bad-llm': Case('some-llm/', llm, REFUSED, LLAMA),
    'bad-pickle': Case('model.ckpt', lambda small: {'': b'PK\3\4' + bytes(60)}, {'error': 'corrupt'}, OWN),
    'bad-page': Case('page.safetensors', lambda small: {'': b'<!DOCTYPE html><html></html>'},
                     {'error': 'not_a_model'}, OWN),
    'bad-folder': Case('holiday/', lambda small: {'readme.txt': b'no model'}, REFUSED, OWN),
}
