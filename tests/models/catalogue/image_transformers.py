"""SD 3, Qwen-Image, Z-Image, Krea 2, Anima, CogView4, ERNIE-Image and Ideogram 4."""
from catalogue.case import Case, REFUSED, kind, one, tensors
from catalogue.flux import quantised
from catalogue.pipelines import SCHEDULER, pipeline
from networks.dit import (anima, cogview4, cosmos, ernie_image, ideogram4, krea, lumina2, qwen_image, sd3, sd3_diffusers,
                          z_image)
from networks.quantised import sdnq

SD3 = 'Stability-AI/sd3.5: mmditx.py, sd3_infer.py (depths)'
SD3_DIFFUSERS = 'huggingface/diffusers: transformer_sd3.py, pipelines/stable_diffusion_3'
QWEN = 'huggingface/diffusers: transformer_qwenimage.py, pipelines/qwenimage'
COMFY = 'comfyanonymous/ComfyUI: supported_models.py, model_detection.py'
Z = 'huggingface/diffusers: transformer_z_image.py, pipelines/z_image'
Z_FILE = 'Tongyi-MAI/Z-Image: src/zimage/transformer.py; ' + COMFY
KREA = 'huggingface/diffusers: transformer_krea2.py, pipelines/krea2'
KREA_OWN = 'invoke-ai/InvokeAI: model_loaders/krea2.py (the names it converts), over ' + KREA
ANIMA = 'invoke-ai/InvokeAI: backend/anima/anima_transformer.py, model_loaders/anima.py'
SDNQ = 'Disty0/sdnq: quantizer.py, over ' + Z
MDM = 'model.diffusion_model.'
SIZE = {'width': 1024, 'height': 1024}
TURBO, BASE = dict(SIZE, steps=9, cfg_scale=1.0), dict(SIZE, steps=50, cfg_scale=4.0)
KREA_TURBO, KREA_BASE = dict(SIZE, steps=8, cfg_scale=1.0), dict(SIZE, steps=28, cfg_scale=5.5)
QWEN_SETTINGS = dict(SIZE, steps=40, cfg_scale=4.0)
SD3_PARTS = {'text_encoder': 'CLIPTextModelWithProjection', 'text_encoder_2': 'CLIPTextModelWithProjection',
             'text_encoder_3': 'T5EncoderModel', 'tokenizer': 'CLIPTokenizer', 'tokenizer_2': 'CLIPTokenizer',
             'tokenizer_3': 'T5TokenizerFast', 'vae': 'AutoencoderKL'}
Z_PARTS = {'text_encoder': 'Qwen3Model', 'tokenizer': 'Qwen2Tokenizer', 'vae': 'AutoencoderKL'}
QWEN_PARTS = {'text_encoder': 'Qwen2_5_VLForConditionalGeneration', 'tokenizer': 'Qwen2Tokenizer', 'vae': 'AutoencoderKLQwenImage'}


def main(base, format, variant=None, **more):
    return kind('main', base, format, variant=variant, **more)


def qwen_folder(class_name):
    return pipeline(class_name, qwen_image, {'in_channels': 64}, QWEN_PARTS, transformer_class='QwenImageTransformer2DModel')


def z_folder(scheduler, build=z_image, config=None, extra=None):
    return pipeline('ZImagePipeline', build, config or {'dim': 3840}, Z_PARTS, scheduler, extra=extra,
                    transformer_class='ZImageTransformer2DModel')


def krea_folder(index):
    return pipeline('Krea2Pipeline', krea, {'num_layers': 28},
                    {'text_encoder': 'Qwen3VLModel', 'tokenizer': 'Qwen2TokenizerFast', 'vae': 'AutoencoderKLQwenImage'},
                    index=index, transformer_class='Krea2Transformer2DModel')


def edit_marked(small):
    """A mark that converters leave in files of editing models."""
    net = qwen_image(small)
    net.add('__index_timestep_zero__', 1)
    return {'': net}


CASES = {
    'sd3-medium': Case('sd3_medium.safetensors', one(sd3, prefix=MDM), main('sd-3', 'checkpoint'), SD3),
    'sd3-large': Case('sd3.5_large.safetensors', one(sd3, 'large', prefix=MDM), main('sd-3', 'checkpoint'), SD3),
    'sd3-diffusers': Case('stable-diffusion-3-medium-diffusers/', pipeline('StableDiffusion3Pipeline', sd3_diffusers, {'in_channels': 16},
                          SD3_PARTS, transformer_class='SD3Transformer2DModel'), main('sd-3', 'diffusers', repo_variant=''), SD3_DIFFUSERS),
    # Qwen-Image
    'qwen-image': Case('qwen_image_bf16.safetensors', one(qwen_image),
                       main('qwen-image', 'checkpoint', 'generate', default_settings=QWEN_SETTINGS), COMFY + ' over ' + QWEN),
    'qwen-image-prefixed': Case('qwen-image-merge.safetensors', one(qwen_image, prefix=MDM), main('qwen-image', 'checkpoint', 'generate'), COMFY),
    'qwen-image-edit': Case('qwen_image_edit_2509_bf16.safetensors', one(qwen_image), main('qwen-image', 'checkpoint', 'edit'), COMFY),
    'qwen-image-unedited': Case('qwen-image-unedited.safetensors', one(qwen_image), main('qwen-image', 'checkpoint', 'generate'), COMFY),
    'qwen-image-edit-marked': Case('qwen-image-2511.safetensors', edit_marked, main('qwen-image', 'checkpoint', 'edit'), COMFY),
    'qwen-image-diffusers': Case('Qwen-Image/', qwen_folder('QwenImagePipeline'),
                                 main('qwen-image', 'diffusers', 'generate', default_settings=QWEN_SETTINGS), QWEN),
    'qwen-image-edit-diffusers': Case('Qwen-Image-Edit-2509/', qwen_folder('QwenImageEditPlusPipeline'),
                                      main('qwen-image', 'diffusers', 'edit'), QWEN),
    'bad-qwen-image-layered': Case('qwen_image_layered.safetensors', one(qwen_image, layered=True), REFUSED, QWEN),
    # Z-Image
    'z-image-turbo': Case('z_image_turbo_bf16.safetensors', one(z_image, fused=True),
                          main('z-image', 'checkpoint', 'turbo', default_settings=TURBO), Z_FILE),
    'z-image-base': Case('z-image-base-bf16.safetensors', one(z_image, fused=True, prefix=MDM),
                         main('z-image', 'checkpoint', 'zbase', default_settings=BASE), Z_FILE),
    'z-image-transformer': Case('z-image-turbo-transformer.safetensors', one(z_image), main('z-image', 'checkpoint', 'turbo'), Z),
    'z-image-sdnq': Case('z-image-turbo-sdnq.safetensors', quantised(sdnq, z_image), main('z-image', 'sdnq_quantized', 'turbo'), SDNQ),
    'z-image-base-sdnq': Case('z-image-base-sdnq.safetensors', quantised(sdnq, z_image), main('z-image', 'sdnq_quantized', 'zbase'), SDNQ),
    'z-image-diffusers': Case('Z-Image-Turbo/', z_folder(SCHEDULER), main('z-image', 'diffusers', 'turbo', default_settings=TURBO), Z),
    'z-image-diffusers-base': Case('Z-Image/', z_folder(dict(SCHEDULER, shift=6.0)),
                                   main('z-image', 'diffusers', 'zbase', default_settings=BASE), Z),
    'z-image-sdnq-folder': Case('Z-Image-Turbo-SDNQ/', z_folder(SCHEDULER, lambda small: sdnq(z_image(small)),
                                {'quantization_config': {'quant_method': 'sdnq'}}), main('z-image', 'sdnq_quantized', 'turbo'), SDNQ),
    'z-image-sdnq-folder-base': Case('Z-Image-SDNQ/', z_folder(dict(SCHEDULER, shift=6.0), lambda small: sdnq(z_image(small))),
                                     main('z-image', 'sdnq_quantized', 'zbase'), SDNQ),
    'bad-lumina2': Case('lumina_2_model.safetensors', one(lumina2), REFUSED, 'Alpha-VLLM/Lumina-Image-2.0: models/model.py'),
    'bad-z-image-no-scheduler': Case('Z-Image-half/', z_folder(None), REFUSED, Z),
    # Krea 2
    'krea2': Case('krea2_turbo_bf16.safetensors', one(krea), main('krea-2', 'checkpoint', 'krea2_turbo', default_settings=KREA_TURBO), KREA),
    'krea2-base': Case('Krea-2-Raw.safetensors', one(krea, own=True),
                       main('krea-2', 'checkpoint', 'krea2_base', default_settings=KREA_BASE), KREA_OWN),
    'krea2-baseline': Case('baseline-turbo.safetensors', one(krea, own=True, prefix=MDM), main('krea-2', 'checkpoint', 'krea2_turbo'), KREA_OWN),
    'krea2-diffusers': Case('Krea-2-Turbo/', krea_folder({'is_distilled': True}),
                            main('krea-2', 'diffusers', 'krea2_turbo', default_settings=KREA_TURBO), KREA),
    'krea2-diffusers-base': Case('Krea-2/', krea_folder({}), main('krea-2', 'diffusers', 'krea2_base', default_settings=KREA_BASE), KREA),
    # Anima
    'anima': Case('anima-preview.safetensors', one(anima, prefix='net.'),
                  main('anima', 'checkpoint', default_settings=dict(SIZE, steps=35, cfg_scale=4.5)), ANIMA),
    'anima-bare': Case('anima-bare.safetensors', one(anima), main('anima', 'checkpoint'), ANIMA),
    'anima-bundled': Case('anima-merge.safetensors', one(anima, prefix=MDM), main('anima', 'checkpoint'), ANIMA),
    'bad-cosmos': Case('cosmos-predict2-2b.safetensors', one(cosmos, prefix='net.'), REFUSED,
                       'nvidia-cosmos/cosmos-predict2: networks/minimal_v4_dit.py'),
    # the others
    'cogview4-diffusers': Case('CogView4-6B/', pipeline('CogView4Pipeline', cogview4, {'in_channels': 16},
                               {'text_encoder': 'GlmModel', 'tokenizer': 'PreTrainedTokenizerFast', 'vae': 'AutoencoderKL'},
                               transformer_class='CogView4Transformer2DModel'), main('cogview4', 'diffusers', default_settings=None),
                               'huggingface/diffusers: transformer_cogview4.py, pipelines/cogview4'),
    'ernie-image-diffusers': Case('ERNIE-Image/', pipeline('ErnieImagePipeline', ernie_image, {'hidden_size': 3072},
                                  {'text_encoder': 'Mistral3Model', 'tokenizer': 'LlamaTokenizerFast', 'vae': 'AutoencoderKLFlux2'},
                                  transformer_class='ErnieImageTransformer2DModel'),
                                  main('ernie-image', 'diffusers', default_settings=dict(SIZE, steps=50, cfg_scale=4.0)),
                                  'huggingface/diffusers: transformer_ernie_image.py, pipelines/ernie_image'),
    'ernie-image-turbo-diffusers': Case('ERNIE-Image-Turbo/', pipeline('ErnieImagePipeline', ernie_image, {'hidden_size': 3072},
                                        {'vae': 'AutoencoderKLFlux2'}, transformer_class='ErnieImageTransformer2DModel'),
                                        main('ernie-image', 'diffusers', default_settings=dict(SIZE, steps=8, cfg_scale=1.0)),
                                        'huggingface/diffusers: transformer_ernie_image.py, pipelines/ernie_image'),
    'ernie-image': Case('ernie-image.safetensors', one(ernie_image), main('ernie-image', 'checkpoint'),
                        'huggingface/diffusers: transformer_ernie_image.py'),
    'ideogram-4-diffusers': Case('ideogram-4/', pipeline('Ideogram4Pipeline', ideogram4, {'in_channels': 128},
                                 {'text_encoder': 'Qwen3VLModel', 'tokenizer': 'Qwen2TokenizerFast', 'vae': 'AutoencoderKLFlux2'},
                                 transformer_class='Ideogram4Transformer2DModel'),
                                 main('ideogram-4', 'diffusers', default_settings=dict(SIZE, steps=48, cfg_scale=7.0)),
                                 'huggingface/diffusers: transformer_ideogram4.py, pipelines/ideogram4'),
    'ideogram-4': Case('ideogram4.safetensors', one(ideogram4), main('ideogram-4', 'checkpoint'),
                       'huggingface/diffusers: transformer_ideogram4.py'),
    'bad-cond-stage': Case('cond-stage.safetensors', tensors({'cond_stage_model.x': ('F32', (4, 4))}), REFUSED, 'made to be refused'),
}
