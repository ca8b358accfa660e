"""Textual inversions."""
from catalogue.case import Case, kind, tensors

SOURCE = 'AUTOMATIC1111/stable-diffusion-webui: textual_inversion.py; huggingface/diffusers: loaders/textual_inversion.py'

CASES = {
    'ti': Case('ti-sd1.safetensors', tensors({'emb_params': ('F32', (2, 768))}),
               kind('embedding', 'sd-1', 'embedding_file'), SOURCE),
    'ti-sdxl': Case('ti-sdxl.safetensors', tensors({'clip_g': ('F32', (2, 1280)), 'clip_l': ('F32', (2, 768))}),
                    kind('embedding', 'sdxl', 'embedding_file'), SOURCE),
    'ti-sd2': Case('ti-sd2.safetensors', tensors({'<cat-toy>': ('F32', (1024,))}),
                   kind('embedding', 'sd-2', 'embedding_file'), SOURCE),
    'ti-folder': Case('ti-folder/', tensors({'<cat-toy>': ('F32', (1, 768))}, file='learned_embeds.safetensors'),
                      kind('embedding', 'sd-1', 'embedding_folder'), SOURCE),
}
