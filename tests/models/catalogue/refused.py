"""What is no model that lade knows, or no model at all."""
from catalogue.case import Case, REFUSED, tensors
from networks.clip import clip
from networks.net import Net

OWN = 'made to be refused'
CLIP = 'huggingface/transformers: modeling_clip.py'


def general(config):
    """A folder of many things, as somebody's home has them, with a config.json that is no model's."""
    def make(small):
        files = {'notes-%02d.txt' % i: b'a note' for i in range(51)}
        files['config.json'] = config
        return files
    return make


def many_models(small):
    """A folder of unrelated models, each a file: it is none itself."""
    return {'%s.safetensors' % name: Net().include('', {'emb_params': ('F32', (1, 768))}) for name in ('a', 'b')}


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
    'bad-home': Case('home/', general({'name': 'my settings', 'model_type': 'pickup truck'}), REFUSED, OWN),
    'bad-home-list': Case('home-list/', general([1, 2, 3]), REFUSED, OWN),
    'bad-home-class': Case('home-class/', general({'_class_name': 'set_seed', 'architectures': ['AutoTokenizer']}), REFUSED, OWN),
    'bad-home-abstract': Case('home-abstract/', general({'_class_name': 'DiffusionPipeline'}), REFUSED, OWN),
    'bad-many-models': Case('many/', many_models, REFUSED, OWN),
    'bad-empty-index': Case('empty-index/', lambda small: {'model_index.json': {}}, REFUSED, OWN),
    'bad-pickle': Case('model.ckpt', lambda small: {'': b'PK\3\4' + bytes(60)}, {'error': 'corrupt'}, OWN),
    'bad-page': Case('page.safetensors', lambda small: {'': b'<!DOCTYPE html><html></html>'},
                     {'error': 'not_a_model'}, OWN),
    'bad-folder': Case('holiday/', lambda small: {'readme.txt': b'no model'}, REFUSED, OWN),
}
