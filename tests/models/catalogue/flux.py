"""FLUX.1 and FLUX.2."""
from catalogue.case import Case, REFUSED, kind, one
from catalogue.pipelines import pipeline
from networks.flux import chroma, flux, flux2, flux2_diffusers, flux_diffusers
from networks.net import Net
from networks.quantised import gguf, nf4, sdnq

BFL = 'black-forest-labs/flux: model.py, util.py (configs)'
BFL2 = 'black-forest-labs/flux2: model.py'
DIFFUSERS = 'huggingface/diffusers: transformer_flux.py, pipelines/flux'
DIFFUSERS2 = 'huggingface/diffusers: transformer_flux2.py, pipelines/flux2'
NF4 = 'bitsandbytes: functional.py (QuantState); lllyasviel/flux1-dev-bnb-nf4'
SDNQ = 'Disty0/sdnq: quantizer.py, over huggingface/diffusers'
CITY96 = 'city96/ComfyUI-GGUF: convert.py, over black-forest-labs/flux'
PARTS = {'text_encoder': 'CLIPTextModel', 'text_encoder_2': 'T5EncoderModel', 'tokenizer': 'CLIPTokenizer',
         'tokenizer_2': 'T5TokenizerFast', 'vae': 'AutoencoderKL'}
PARTS2 = {'text_encoder': 'Qwen3ForCausalLM', 'tokenizer': 'Qwen2TokenizerFast', 'vae': 'AutoencoderKLFlux2'}
MDM = 'model.diffusion_model.'


def main(format, variant, **more):
    return kind('main', 'flux', format, variant=variant, **more)


def main2(format, variant, **more):
    return kind('main', 'flux2', format, variant=variant, **more)


def quantised(quantise, build, *args, **options):
    """A file of a network that a quantiser went over."""
    def make(small):
        return {'': quantise(build(*args, small=small, **options))}
    return make


def as_gguf(build, *args, **options):
    return quantised(lambda net: gguf(net, 'flux', general__name='flux'), build, *args, **options)


def folder(class_name, channels, guidance, **options):
    return pipeline(class_name, lambda small: flux_diffusers(small, channels, guidance),
                    {'in_channels': channels, 'guidance_embeds': guidance, 'joint_attention_dim': 4096}, PARTS,
                    transformer_class='FluxTransformer2DModel', **options)


def folder2(class_name, size, width, **options):
    return pipeline(class_name, lambda small: flux2_diffusers(size, small), {'joint_attention_dim': width}, PARTS2,
                    transformer_class='Flux2Transformer2DModel', **options)


def transformer_only(small):
    return {'config.json': {'_class_name': 'FluxTransformer2DModel', 'in_channels': 64, 'guidance_embeds': False},
            'diffusion_pytorch_model.safetensors': flux_diffusers(small, guidance=False)}


def sdnq_folder(build, index, config, transformer_class, parts):
    return pipeline(index, lambda small: sdnq(build(small=small)), config, parts, transformer_class=transformer_class,
                    extra=lambda small: {'transformer/quantization_config.json': {'quant_method': 'sdnq', 'weights_dtype': 'int8'}})


def sdnq_folder_without_mark(small):
    files = sdnq_folder(lambda small: flux_diffusers(small, guidance=False), 'FluxPipeline',
                        {'in_channels': 64, 'guidance_embeds': False}, 'FluxTransformer2DModel', PARTS)(small)
    del files['transformer/quantization_config.json']
    return files


def truncated_flux2(small):
    return {'config.json': {'_class_name': 'Flux2Transformer2DModel', 'joint_attention_dim': 7680}}


def shard(small):
    """One of several shards: no network by itself."""
    net = Net('BF16')
    for name, spec in flux_diffusers(small).items():
        if name.startswith('single_transformer_blocks.'):
            net[name] = spec
    return {'': net}


CASES = {
    'flux-schnell': Case('flux1-schnell.safetensors', one(flux, guidance=False),
                         main('checkpoint', 'schnell', config_path='flux-schnell'), BFL),
    'flux-dev': Case('flux1-dev.safetensors', one(flux), main('checkpoint', 'dev', config_path='flux-dev'), BFL),
    'flux-dev-comfy': Case('flux-merge.safetensors', one(flux, prefix=MDM), main('checkpoint', 'dev'),
                           'comfyanonymous/ComfyUI: supported_models.py, over ' + BFL),
    'flux-fill': Case('flux1-fill-dev.safetensors', one(flux, channels=384), main('checkpoint', 'dev_fill'), BFL),
    'flux-kontext': Case('flux1-kontext-dev.safetensors', one(flux), main('checkpoint', 'dev'), BFL),
    'flux-depth': Case('flux1-depth-dev.safetensors', one(flux, channels=128), kind('main', 'flux', 'checkpoint', variant=None), BFL),
    'flux-lite': Case('flux.1-lite-8B.safetensors', one(flux, double=8), main('checkpoint', 'dev'),
                      'Freepik/flux.1-lite-8B: its README, over ' + BFL),
    'flux-transformer': Case('flux-transformer.safetensors', one(flux_diffusers), main('checkpoint', 'dev'), DIFFUSERS),
    'flux-nf4': Case('flux1-dev-bnb-nf4.safetensors', quantised(nf4, flux), main('bnb_quantized_nf4b', 'dev'), NF4),
    'flux-nf4-schnell': Case('flux1-schnell-nf4.safetensors', quantised(nf4, flux, guidance=False),
                             main('bnb_quantized_nf4b', 'schnell'), NF4),
    'flux-nf4-fill': Case('flux1-fill-nf4.safetensors', quantised(nf4, flux, channels=384),
                          main('bnb_quantized_nf4b', 'dev_fill'), NF4),
    'flux-sdnq': Case('flux1-dev-sdnq-int8.safetensors', quantised(sdnq, flux), main('sdnq_quantized', 'dev'), SDNQ),
    'flux-sdnq-schnell': Case('flux1-schnell-sdnq.safetensors', quantised(sdnq, flux_diffusers, guidance=False),
                              main('sdnq_quantized', 'schnell'), SDNQ),
    'flux-sdnq-fill': Case('flux1-fill-sdnq.safetensors', quantised(sdnq, flux, channels=384),
                           main('sdnq_quantized', 'dev_fill'), SDNQ),
    'flux-diffusers-schnell': Case('FLUX.1-schnell/', folder('FluxPipeline', 64, False), main('diffusers', 'schnell', repo_variant=''), DIFFUSERS),
    'flux-diffusers-dev': Case('FLUX.1-dev/', folder('FluxPipeline', 64, True), main('diffusers', 'dev'), DIFFUSERS),
    'flux-diffusers-fill': Case('FLUX.1-Fill-dev/', folder('FluxFillPipeline', 384, True), main('diffusers', 'dev_fill'), DIFFUSERS),
    'flux-diffusers-kontext': Case('FLUX.1-Kontext-dev/', folder('FluxKontextPipeline', 64, True), main('diffusers', 'dev'), DIFFUSERS),
    'flux-diffusers-fp16': Case('flux-fp16/', folder('FluxPipeline', 64, True, label='.fp16'),
                                main('diffusers', 'dev', repo_variant='fp16'), DIFFUSERS),
    'flux-diffusers-transformer': Case('flux-transformer-only/', transformer_only, main('diffusers', 'schnell'), DIFFUSERS),
    'flux-sdnq-folder': Case('FLUX.1-schnell-sdnq/', sdnq_folder(lambda small: flux_diffusers(small, guidance=False), 'FluxPipeline',
                             {'in_channels': 64, 'guidance_embeds': False}, 'FluxTransformer2DModel', PARTS),
                             main('sdnq_quantized', 'schnell'), SDNQ),
    'flux-sdnq-folder-unmarked': Case('flux-sdnq-unmarked/', sdnq_folder_without_mark, main('sdnq_quantized', 'schnell'), SDNQ),
    'flux-sdnq-folder-dev': Case('FLUX.1-dev-sdnq/', sdnq_folder(flux_diffusers, 'FluxPipeline', {'in_channels': 64, 'guidance_embeds': True},
                                 'FluxTransformer2DModel', PARTS), main('sdnq_quantized', 'dev'), SDNQ),
    # FLUX.2
    'flux2-dev': Case('flux2-dev.safetensors', one(flux2, 'dev'),
                      main2('checkpoint', 'dev', default_settings={'steps': 28, 'cfg_scale': 1.0, 'guidance': 3.5, 'width': 1024,
                                                                   'height': 1024}), BFL2),
    'flux2-klein-4b': Case('flux-2-klein-4b.safetensors', one(flux2, 'klein_4b'), main2('checkpoint', 'klein_4b'), BFL2),
    'flux2-klein-4b-base': Case('flux-2-klein-base-4b.safetensors', one(flux2, 'klein_4b'), main2('checkpoint', 'klein_4b_base'), BFL2),
    'flux2-klein-9b': Case('flux-2-klein-9b.safetensors', one(flux2, 'klein_9b', prefix=MDM), main2('checkpoint', 'klein_9b'), BFL2),
    'flux2-klein-9b-base': Case('flux-2-klein-base-9b-fp8.safetensors', one(flux2, 'klein_9b'), main2('checkpoint', 'klein_9b_base'), BFL2),
    'flux2-transformer': Case('flux2-transformer.safetensors', one(flux2_diffusers, 'klein_4b'), main2('checkpoint', 'klein_4b'), DIFFUSERS2),
    'flux2-diffusers-dev': Case('FLUX.2-dev/', folder2('Flux2Pipeline', 'dev', 15360), main2('diffusers', 'dev'), DIFFUSERS2),
    'flux2-diffusers-4b': Case('FLUX.2-klein-4B/', folder2('Flux2KleinPipeline', 'klein_4b', 7680), main2('diffusers', 'klein_4b'), DIFFUSERS2),
    'flux2-diffusers-4b-base': Case('FLUX.2-klein-base-4B/', folder2('Flux2KleinPipeline', 'klein_4b', 7680),
                                    main2('diffusers', 'klein_4b_base'), DIFFUSERS2),
    'flux2-diffusers-9b': Case('FLUX.2-klein-9B/', folder2('Flux2KleinPipeline', 'klein_9b', 12288), main2('diffusers', 'klein_9b'), DIFFUSERS2),
    'flux2-diffusers-9b-base': Case('FLUX.2-klein-base-9B/', folder2('Flux2KleinPipeline', 'klein_9b', 12288),
                                    main2('diffusers', 'klein_9b_base'), DIFFUSERS2),
    'bad-chroma': Case('chroma.safetensors', one(chroma), REFUSED, 'lodestone-rock/flow: chroma model'),
    'bad-flux2-config-only': Case('flux2-config/', truncated_flux2, REFUSED, DIFFUSERS2),
    'bad-flux-shard': Case('diffusion_pytorch_model-00002-of-00003.safetensors', shard, REFUSED, DIFFUSERS),
}

for size in ('klein_4b', 'klein_9b', 'dev'):
    width = {'klein_4b': 7680, 'klein_9b': 12288, 'dev': 15360}[size]
    bases = ('', '_base') if size != 'dev' else ('',)
    for base in bases:
        name = ('flux2_%s%s' % (size, base)).replace('_', '-')
        CASES[name + '-sdnq'] = Case(name + '-sdnq-int8.safetensors', quantised(sdnq, flux2_diffusers, size),
                                     main2('sdnq_quantized', size + base), SDNQ)
        CASES[name + '-sdnq-folder'] = Case(name + '-sdnq/', sdnq_folder(lambda small, size=size: flux2_diffusers(size, small),
                                            'Flux2Pipeline' if size == 'dev' else 'Flux2KleinPipeline',
                                            {'joint_attention_dim': width}, 'Flux2Transformer2DModel', PARTS2),
                                            main2('sdnq_quantized', size + base), SDNQ)
