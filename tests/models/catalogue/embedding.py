"""Textual inversions."""
from catalogue.case import Case, REFUSED, kind, tensors
from networks.containers import Torch

SOURCE = 'AUTOMATIC1111/stable-diffusion-webui: textual_inversion.py; huggingface/diffusers: loaders/textual_inversion.py'
FIRST = 'rinongal/textual_inversion: embedding_manager.py'
XL = 'kohya-ss/sd-scripts: sdxl_train_textual_inversion.py'
ADVANCED = 'huggingface/diffusers: examples/advanced_diffusion_training'


def of(base, format='embedding_file'):
    return kind('embedding', base, format)


def first(width, **beside):
    """The first form: vectors by the word they stand for, beside the word's number and how it was trained."""
    return lambda small: {'': Torch(dict({'string_to_token': {'*': 265}, 'string_to_param': {'*': ('F32', (3, width))}, 'name': 'style', 'step': 5000}, **beside))}


def pickled(tree, file=''):
    return lambda small: {file: Torch(tree)}


CASES = {
    'ti': Case('ti-sd1.safetensors', tensors({'emb_params': ('F32', (2, 768))}), of('sd-1'), SOURCE),
    'ti-emb-sd2': Case('ti-emb-sd2.safetensors', tensors({'emb_params': ('F16', (8, 1024))}), of('sd-2'), SOURCE),
    'ti-emb-sdxl': Case('ti-emb-sdxl.safetensors', tensors({'emb_params': ('F16', (8, 1280))}), of('sdxl'), SOURCE),
    'ti-sdxl': Case('ti-sdxl.safetensors', tensors({'clip_g': ('F32', (2, 1280)), 'clip_l': ('F32', (2, 768))}), of('sdxl'), XL),
    'ti-sdxl-encoders': Case('ti-sdxl-encoders.safetensors', tensors({'text_encoders_0': ('F16', (2, 768)), 'text_encoders_1': ('F16', (2, 1280))}), of('sdxl'), ADVANCED),
    'ti-flux': Case('ti-flux.safetensors', tensors({'clip_l': ('F16', (2, 768)), 't5': ('F16', (2, 4096))}), of('flux'), ADVANCED),
    'ti-sd2': Case('ti-sd2.safetensors', tensors({'<cat-toy>': ('F32', (1024,))}), of('sd-2'), SOURCE),
    'ti-words': Case('ti-words.safetensors', tensors({'<cat>': ('F32', (1, 768)), '<dog>': ('F32', (4, 768))}), of('sd-1'), SOURCE),
    'ti-pt': Case('style.pt', first(768), of('sd-1'), FIRST),
    'ti-pt-sd2': Case('style-sd2.pt', first(1024, sd_checkpoint='abc'), of('sd-2'), FIRST),
    'ti-pt-in-disguise': Case('style-pickle.safetensors', first(768), of('sd-1'), FIRST),
    'ti-bin': Case('learned.bin', pickled({'<cat-toy>': ('F32', (768,))}), of('sd-1'), SOURCE),
    'ti-folder': Case('ti-folder/', tensors({'<cat-toy>': ('F32', (1, 768))}, file='learned_embeds.safetensors'), of('sd-1', 'embedding_folder'), SOURCE),
    'ti-folder-bin': Case('ti-folder-bin/', pickled({'<cat-toy>': ('F32', (1, 1024))}, 'learned_embeds.bin'), of('sd-2', 'embedding_folder'), SOURCE),
    'ti-folder-sdxl': Case('ti-folder-sdxl/', tensors({'clip_g': ('F32', (2, 1280)), 'clip_l': ('F32', (2, 768))}, file='learned_embeds.safetensors'), of('sdxl', 'embedding_folder'), XL),
    'ti-folder-flux': Case('ti-folder-flux/', tensors({'clip_l': ('F16', (2, 768)), 't5': ('F16', (2, 4096))}, file='learned_embeds.safetensors'), of('flux', 'embedding_folder'), ADVANCED),
    'bad-ti-width': Case('style-odd.pt', first(640), REFUSED, FIRST),
    'bad-ti-mixed': Case('ti-mixed.safetensors', tensors({'a': ('F32', (1, 768)), 'b': ('F32', (1, 1024))}), REFUSED, SOURCE),
}
