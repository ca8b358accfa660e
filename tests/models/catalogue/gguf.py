"""Models quantised as GGUF."""
from catalogue.case import Case, REFUSED, kind
from networks.dit import anima, ernie_image, ideogram4, krea, qwen_image, sd3, z_image
from networks.flux import flux, flux2
from networks.language import decoder_gguf, t5_gguf
from networks.latent_diffusion import unet
from networks.net import Net
from networks.quantised import gguf
from networks.wan import wan

CITY96 = 'city96/ComfyUI-GGUF: tools/convert.py (names stay), over '
BFL = CITY96 + 'black-forest-labs/flux and flux2: model.py'
SD_CPP = 'leejet/stable-diffusion.cpp: model.cpp (names stay), over CompVis/stable-diffusion: openaimodel.py'
LLAMA = 'ggml-org/llama.cpp: gguf-py/gguf/tensor_mapping.py, constants.py'
WAN = 'city96/ComfyUI-GGUF: tools/fix_5d_tensors.py (five dimensions stay), over Wan-Video/Wan2.2: wan/modules/model.py'
WAN21 = WAN.replace('2.2', '2.1')
DIT = CITY96 + 'huggingface/diffusers: models/transformers'


def main(base, variant=None, **more):
    return kind('main', base, 'gguf_quantized', variant=variant, **more)


def made(build, *args, architecture='', prefix='', metadata=None, **options):
    def make(small):
        net = build(*args, small=small, **options)
        quantised = gguf(Net().include(prefix, net), architecture or build.__name__)
        quantised.metadata.update(metadata or {})
        return {'': quantised}
    return make


def language(kind, architecture, **metadata):
    return lambda small: {'': gguf(decoder_gguf(kind), architecture, **metadata)}


def t5(vocabulary=32128, architecture='t5encoder'):
    return lambda small: {'': gguf(t5_gguf(small, vocabulary), architecture)}


def sd(base, variant='normal'):
    return lambda small: {'': gguf(Net().include('model.diffusion_model.', unet(base, variant, small).ldm()), 'sd')}


CASES = {
    'flux-dev-gguf': Case('flux1-dev-Q4_K_S.gguf', made(flux), main('flux', 'dev', config_path='flux-dev', name='flux1-dev-Q4_K_S.gguf'), BFL),
    'flux-schnell-gguf': Case('flux1-schnell-Q4_K_S.gguf', made(flux, guidance=False), main('flux', 'schnell'), BFL),
    'flux-fill-gguf': Case('flux1-fill-dev-Q4_K_S.gguf', made(flux, channels=384), main('flux', 'dev_fill'), BFL),
    'flux2-dev-gguf': Case('flux2-dev-Q4_K_M.gguf', made(flux2, 'dev', architecture='flux'), main('flux2', 'dev'), BFL),
    'flux2-klein-4b-gguf': Case('flux-2-klein-4b-Q4.gguf', made(flux2, 'klein_4b', architecture='flux'), main('flux2', 'klein_4b'), BFL),
    'flux2-klein-4b-base-gguf': Case('flux-2-klein-base-4b-Q4.gguf', made(flux2, 'klein_4b', architecture='flux'), main('flux2', 'klein_4b_base'), BFL),
    'flux2-klein-9b-gguf': Case('flux-2-klein-9b-Q4.gguf', made(flux2, 'klein_9b', architecture='flux'), main('flux2', 'klein_9b'), BFL),
    'flux2-klein-9b-base-gguf': Case('flux-2-klein-base-9b-Q4.gguf', made(flux2, 'klein_9b', architecture='flux'), main('flux2', 'klein_9b_base'), BFL),
    'sd3-gguf': Case('sd3.5_large-Q4_K.gguf', made(sd3, 'large'), main('sd-3'), CITY96 + 'Stability-AI/sd3.5: mmditx.py'),
    'qwen-image-gguf': Case('qwen-image-Q4_K_M.gguf', made(qwen_image), main('qwen-image', 'generate'), DIT),
    'qwen-image-edit-gguf': Case('Qwen-Image-Edit-2509-Q4_K_M.gguf', made(qwen_image), main('qwen-image', 'edit'), DIT),
    'z-image-gguf': Case('z_image_turbo-Q4_K.gguf', made(z_image, architecture='lumina2', fused=True), main('z-image', 'turbo'), DIT),
    'z-image-base-gguf': Case('z-image-base-Q4_K.gguf', made(z_image, architecture='lumina2', fused=True), main('z-image', 'zbase'), DIT),
    'krea2-gguf': Case('krea2-turbo-Q4_K.gguf', made(krea, own=True), main('krea-2', 'krea2_turbo'), DIT),
    'krea2-base-gguf': Case('Krea-2-Raw-Q4_K.gguf', made(krea), main('krea-2', 'krea2_base'), DIT),
    'anima-gguf': Case('anima-Q4_K.gguf', made(anima), main('anima'), CITY96 + 'invoke-ai/InvokeAI: anima_transformer.py'),
    'ernie-image-gguf': Case('ernie-image-Q4_K.gguf', made(ernie_image), main('ernie-image'), DIT),
    'ideogram-4-gguf': Case('ideogram4-Q4_K.gguf', made(ideogram4), main('ideogram-4'), DIT),
    'wan-t2v-gguf': Case('Wan2.2-T2V-A14B-LowNoise-Q4_K_M.gguf', made(wan, 't2v_a14b'), main('wan', 't2v_a14b', expert='low'),
                         WAN),
    'wan-i2v-gguf': Case('wan2.2_i2v_high_noise_14B_Q4_K_S.gguf', made(wan, 'i2v_a14b'), main('wan', 'i2v_a14b', expert='high'),
                         WAN),
    'wan-5b-gguf': Case('Wan2.2-TI2V-5B-Q4_K_M.gguf', made(wan, 'ti2v_5b'), main('wan', 'ti2v_5b', expert='none'),
                        WAN),
    'wan-t2v-gguf-named-inside': Case('renamed-Q4.gguf', made(wan, 't2v_a14b', metadata={'general.name': 'Wan2.2 T2V A14B HighNoise'}),
                                      main('wan', 't2v_a14b', expert='high'), WAN),
    'bad-wan-gguf': Case('x.gguf', made(wan, 't2v_a14b'), REFUSED, WAN21),
    'bad-wan21-gguf': Case('renamed-21.gguf', made(wan, 't2v_a14b', metadata={'general.name': 'Wan2.1 T2V 14B'}), REFUSED,
                           WAN21),
    't5-gguf': Case('t5-v1_1-xxl-encoder-Q8_0.gguf', t5(), kind('t5_encoder', 'any', 'gguf_quantized'), LLAMA),
    'bad-umt5-gguf': Case('umt5-xxl-encoder-Q8_0.gguf', t5(256384), REFUSED, LLAMA),
    'gemma2-gguf': Case('gemma-2-2b-it-Q4_K_M.gguf', language('gemma2_2b', 'gemma2', gemma2__embedding_length=2304, gemma2__block_count=26),
                        kind('gemma2_encoder', 'any', 'gguf_quantized'), LLAMA),
    'bad-gemma2-9b-gguf': Case('gemma-2-9b-it-Q4_K_M.gguf', language('gemma2_2b', 'gemma2', gemma2__embedding_length=3584), REFUSED, LLAMA),
    'bad-gemma3-gguf': Case('gemma-3-4b-it-Q4_K_M.gguf', language('gemma3_4b', 'gemma3', gemma3__embedding_length=2560), REFUSED, LLAMA),
    'bad-llama3-gguf': Case('llama-3-8b-Q4_K_M.gguf', language('llama3_8b', 'llama'), REFUSED, LLAMA),
    'bad-qwen3-14b-gguf': Case('qwen3-14b-Q4_K_M.gguf', language('qwen3_14b', 'qwen3'), REFUSED, LLAMA),
}

for size in ('06b', '4b', '8b'):
    CASES['qwen3-%s-gguf' % size] = Case('qwen3-%s-Q4_K_M.gguf' % size, language('qwen3_' + size, 'qwen3'),
                                         kind('qwen3_encoder', 'any', 'gguf_quantized', variant='qwen3_' + size), LLAMA)
for size in ('mistral3_24b', 'cow_mistral3_small'):
    CASES[size.replace('_', '-') + '-gguf'] = Case(size + '-Q4_K_M.gguf', language(size, 'llama'),
                                                   kind('mistral_encoder', 'any', 'gguf_quantized', variant=size), LLAMA)
for base, variants in (('sd-1', ('normal', 'inpaint')), ('sd-2', ('normal', 'inpaint', 'depth')), ('sdxl', ('normal', 'inpaint')),
                       ('sdxl-refiner', ('normal', 'inpaint'))):
    for variant in variants:
        CASES['%s-%s-gguf' % (base, variant)] = Case('%s-%s-q8_0.gguf' % (base, variant), sd(base, variant), main(base, variant), SD_CPP)
