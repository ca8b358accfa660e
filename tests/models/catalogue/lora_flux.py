"""LoRAs for FLUX.1 and FLUX.2 in the dialects of their trainers."""
from catalogue.case import Case, REFUSED, kind
from networks.containers import Torch
from networks.flux import chroma, flux, flux2, flux2_diffusers, flux_diffusers
from networks.lora import (PEFT_HALVES, PEFT_NAMED, adapt, full, layers, loha, lokr, lokr_both, pair, t5_modules,
                           text_modules)
from networks.net import Net

KOHYA = 'kohya-ss/sd-scripts: networks/lora_flux.py'
LYCORIS = 'KohakuBlueleaf/LyCORIS: modules, over black-forest-labs/flux: model.py'
AITOOLKIT = 'ostris/ai-toolkit: models/flux, over black-forest-labs/flux: model.py'
PEFT = 'huggingface/diffusers: loaders/lora_pipeline.py, over transformer_flux.py and transformer_flux2.py'
BFL = 'huggingface/peft: tuners/lora, lokr, over black-forest-labs/flux: model.py'
ONETRAINER = 'Nerogar/OneTrainer: modelSaver/flux; invoke-ai/InvokeAI: flux_onetrainer_lora_conversion_utils.py'
XLABS = 'XLabs-AI/x-flux: src/flux/modules/layers.py'
CONTROL = 'black-forest-labs/flux: model.py (FluxLoraWrapper)'
SIMPLETUNER = 'bghira/SimpleTuner: LyCORIS over transformer_flux.py'
BLOCKS = ('double_blocks', 'single_blocks')
SHARED = ('stream_modulation',)
TRANSFORMER = ('transformer_blocks',)
AITOOLKIT_MARK = {'software': '{"name": "ai-toolkit", "repo": "https://github.com/ostris/ai-toolkit", "version": "0.1.0"}', 'format': 'pt'}
KOHYA_MARK = {'ss_network_module': 'networks.lora_flux', 'ss_base_model_version': 'flux1', 'ss_network_dim': '4', 'ss_network_alpha': '1'}


def of(base, **more):
    return kind('lora', base, 'lycoris', **more)


def bfl(small, size=None):
    """FLUX.1, or FLUX.2 of a size, in black-forest-labs' naming."""
    return flux2(size, small) if size else flux(small)


def diffusers(small, size=None):
    return flux2_diffusers(size, small) if size else flux_diffusers(small)


def file(build, parts, prefix, join='.', make=pair, size=None, metadata=None, text=(), **options):
    """text: (prefix, layers) pairs of text encoders, always in kohya's style."""
    def case(small):
        net = adapt(layers(build(small, size), *parts), prefix, join, make, **options)
        for head, found in text:
            adapt(found(), head, '_', pair, net)
        return {'': (net, metadata)}
    return case


def kohya(parts=BLOCKS, make=pair, size=None, metadata=None, **options):
    return file(bfl, parts, 'lora_unet_', '_', make, size, metadata, **options)


def peft(parts, prefix, size=None, metadata=None, names=PEFT_HALVES):
    return file(diffusers, parts, prefix, size=size, metadata=metadata, **names)


def te1():
    return text_modules(768, True)


def onetrainer_bfl(small):
    """Fused layers in parts: q, k and v, and a single block's MLP."""
    net = Net('BF16')
    for name, out, into in layers(flux(small), *BLOCKS):
        name = 'transformer.' + name
        widths = [3072] * 3 if name.endswith('.qkv') else [3072] * 3 + [12288] if name.endswith('.linear1') else None
        if widths:
            for i, width in enumerate(widths):
                pair(net, '%s.%d' % (name, i), width, into)
        else:
            pair(net, name, out, into)
    return {'': net}


def xlabs(small):
    net = Net('BF16')
    for i in range(2 if small else 19):
        for stream in '12':
            pair(net, 'double_blocks.%d.processor.qkv_lora%s' % (i, stream), 9216, 3072, 16, ('.down.weight', '.up.weight'), False)
            pair(net, 'double_blocks.%d.processor.proj_lora%s' % (i, stream), 3072, 3072, 16, ('.down.weight', '.up.weight'), False)
    return {'': net}


def control(small):
    net = Net('BF16')
    for name, (_, shape) in flux(small, channels=128).items():
        if name.endswith('.scale'):
            net.add(name, *shape)
        elif name.endswith('.weight'):
            net.add(name[:-7] + '.lora_A.weight', 128, shape[1])
            net.add(name[:-7] + '.lora_B.weight', shape[0], 128)
            net.add(name[:-7] + '.lora_B.bias', shape[0])
    return {'': net}


def texts(*pairs, metadata=None):
    def make(small):
        net = Net('F16')
        for prefix, found in pairs:
            adapt(found(), prefix, '_', pair, net)
        return {'': (net, metadata)}
    return make


def folder(make, name='pytorch_lora_weights.safetensors'):
    return lambda small: {name: make(small)['']}


def folder_bin(make):
    return lambda small: {'pytorch_lora_weights.bin': Torch(dict(make(small)[''][0]))}


def omi(small):
    net = adapt(layers(flux(small), *BLOCKS), 'transformer.')
    return {'': (net, {'modelspec.sai_model_spec': '1.0.0', 'ot_branch': 'omi_format', 'modelspec.architecture': 'Flux.1-dev/lora'})}


def hunyuan_video(small):
    """The same blocks as FLUX.1's under other names."""
    net = Net('BF16')
    for name, out, into in layers(flux(small), *BLOCKS):
        name = name.replace('_mod.lin', '_mod.linear').replace('modulation.lin', 'modulation.linear').replace('_mlp.0', '_mlp.fc1').replace('_mlp.2', '_mlp.fc2')
        pair(net, 'lora_unet_' + name.replace('.', '_').replace('_img_attn_', '_img_attn_'), out, into)
    return {'': net}


def chroma_lora(small):
    return {'': adapt(layers(chroma(small), *BLOCKS, 'distilled_guidance_layer'), 'lora_unet_', '_')}


ATTENTION = ('img_attn', 'txt_attn')
JOINT = ('.attn.',)

CASES = {
    'flux-lora-kohya': Case('flux-kohya.safetensors', kohya(metadata=KOHYA_MARK), of('flux', dialect='kohya', variant=None), KOHYA),
    'flux-lora-kohya-te1': Case('flux-kohya-te1.safetensors', kohya(text=[('lora_te1_', te1)]), of('flux'), KOHYA),
    'flux-lora-kohya-te3': Case('flux-kohya-te3.safetensors', kohya(text=[('lora_te1_', te1), ('lora_te3_', t5_modules)]), of('flux'), KOHYA),
    'flux-lora-kohya-attention': Case('flux-kohya-attention.safetensors', kohya(ATTENTION), of('flux'), KOHYA),
    'flux-lora-kohya-single': Case('flux-kohya-single.safetensors', kohya(('linear1', 'linear2')), of('flux'), KOHYA),
    'flux-lora-kohya-dora': Case('flux-kohya-dora.safetensors', kohya(dora=True), of('flux'), LYCORIS),
    'flux-loha': Case('flux-loha.safetensors', kohya(make=loha), of('flux'), LYCORIS),
    'flux-lokr': Case('flux-lokr.safetensors', kohya(make=lokr), of('flux'), LYCORIS),
    'flux-lokr-both': Case('flux-lokr-both.safetensors', kohya(make=lokr_both), of('flux'), LYCORIS),
    'flux-full': Case('flux-full.safetensors', kohya(make=full), of('flux'), LYCORIS),
    'flux-lora-aitoolkit': Case('flux-aitoolkit.safetensors', file(bfl, BLOCKS, 'diffusion_model.', metadata=AITOOLKIT_MARK, **PEFT_HALVES),
                                of('flux', dialect='aitoolkit'), AITOOLKIT),
    'flux-lora-aitoolkit-bare': Case('flux-aitoolkit-bare.safetensors', file(bfl, BLOCKS, 'diffusion_model.', **PEFT_HALVES),
                                     of('flux', dialect='aitoolkit'), AITOOLKIT),
    'flux-lora-bfl-peft': Case('flux-bfl-peft.safetensors', file(bfl, BLOCKS, 'diffusion_model.', metadata={'format': 'pt'}, **PEFT_HALVES),
                               of('flux', dialect='bfl_peft'), BFL),
    'flux-lora-bfl-base-model': Case('flux-bfl-base-model.safetensors', file(bfl, BLOCKS, 'base_model.model.', **PEFT_HALVES),
                                     of('flux', dialect='bfl_peft'), BFL),
    'flux-lokr-bfl': Case('flux-bfl-lokr.safetensors', file(bfl, BLOCKS, 'diffusion_model.', make=lokr), of('flux', dialect='bfl_peft'), BFL),
    'flux-lora-diffusers': Case('flux-diffusers.safetensors', peft(TRANSFORMER, 'transformer.'), of('flux', dialect='diffusers'), PEFT),
    'flux-lora-diffusers-base-model': Case('flux-diffusers-base-model.safetensors', peft(TRANSFORMER, 'base_model.model.'), of('flux'), PEFT),
    'flux-lora-diffusers-named': Case('flux-diffusers-named.safetensors', peft(TRANSFORMER, 'base_model.model.', names=PEFT_NAMED), of('flux'), PEFT),
    'flux-lora-diffusers-attention': Case('flux-diffusers-attention.safetensors', peft(JOINT, 'transformer.'), of('flux'), PEFT),
    'flux-lora-diffusers-double': Case('flux-diffusers-double.safetensors', peft(('.ff.', '.ff_context.', '.norm1'), 'transformer.'), of('flux'), PEFT),
    'flux-lora-onetrainer': Case('flux-onetrainer.safetensors', file(diffusers, TRANSFORMER, 'lora_transformer_', '_', text=[('lora_te1_', te1), ('lora_te2_', t5_modules)]),
                                 of('flux', dialect='onetrainer'), ONETRAINER),
    'flux-lora-onetrainer-dora': Case('flux-onetrainer-dora.safetensors', file(diffusers, TRANSFORMER, 'lora_transformer_', '_', dora=True), of('flux'), ONETRAINER),
    'flux-lora-onetrainer-bfl': Case('flux-onetrainer-bfl.safetensors', onetrainer_bfl, of('flux', dialect='onetrainer_bfl'), ONETRAINER),
    'flux-lora-lycoris': Case('flux-simpletuner.safetensors', file(diffusers, TRANSFORMER, 'lycoris_', '_', lokr), of('flux', dialect='lycoris'), SIMPLETUNER),
    'flux-lora-xlabs': Case('flux-xlabs.safetensors', xlabs, of('flux', dialect='xlabs'), XLABS),
    'flux-control-lora': Case('flux1-canny-dev-lora.safetensors', control, kind('control_lora', 'flux', 'lycoris'), CONTROL),
    'flux-lora-text': Case('flux-text.safetensors', texts(('lora_te1_', te1), ('lora_te3_', t5_modules)), of('flux'), KOHYA),
    'flux-lora-te1-told': Case('flux-te1.safetensors', texts(('lora_te1_', te1), metadata=KOHYA_MARK), of('flux'), KOHYA),
    'flux-lora-t5-told': Case('flux-t5.safetensors', texts(('lora_te3_', t5_modules), metadata={'modelspec.architecture': 'flux-1-dev/lora'}), of('flux'), KOHYA),
    'flux-lora-omi': Case('flux-omi.safetensors', omi, kind('lora', 'flux', 'omi'), 'Nerogar/OneTrainer: modelSaver (omi_format)'),
    'flux-lora-folder': Case('flux-lora-folder/', folder(peft(TRANSFORMER, 'transformer.')), kind('lora', 'flux', 'diffusers'), PEFT),
    'flux-lora-folder-bin': Case('flux-lora-folder-bin/', folder_bin(peft(TRANSFORMER, 'transformer.')), kind('lora', 'flux', 'diffusers'), PEFT),
    'flux2-lora-kohya-4b': Case('klein4-kohya.safetensors', kohya(size='klein_4b'), of('flux2', variant='klein_4b'), KOHYA),
    'flux2-lora-kohya-9b': Case('klein9-kohya.safetensors', kohya(ATTENTION, size='klein_9b'), of('flux2', variant='klein_9b'), KOHYA),
    'flux2-lora-kohya-dev': Case('flux2-dev-kohya.safetensors', kohya(size='dev'), of('flux2', variant='dev'), KOHYA),
    'flux2-lora-kohya-shared': Case('klein4-kohya-shared.safetensors', kohya(ATTENTION + SHARED, size='klein_4b'), of('flux2', variant='klein_4b'), KOHYA),
    'flux2-lora-kohya-told': Case('klein4-kohya-told.safetensors', kohya(('img_attn',), size='klein_4b', metadata={'modelspec.architecture': 'flux-2-klein/lora'}),
                                  of('flux2', variant='klein_4b') , KOHYA),
    'flux2-lokr-kohya': Case('klein9-lokr.safetensors', kohya(make=lokr, size='klein_9b'), of('flux2', variant='klein_9b'), LYCORIS),
    'flux2-lora-aitoolkit-4b': Case('klein4-aitoolkit.safetensors', file(bfl, BLOCKS, 'diffusion_model.', size='klein_4b', metadata=AITOOLKIT_MARK, **PEFT_HALVES),
                                    of('flux2', variant='klein_4b', dialect='aitoolkit'), AITOOLKIT),
    'flux2-lora-aitoolkit-dev': Case('flux2-dev-aitoolkit.safetensors', file(bfl, BLOCKS, 'diffusion_model.', size='dev', **PEFT_HALVES),
                                     of('flux2', variant='dev'), AITOOLKIT),
    'flux2-lokr-bfl-4b': Case('klein4-bfl-lokr.safetensors', file(bfl, ('img_mlp',), 'diffusion_model.', make=lokr, size='klein_4b'), of('flux2', variant='klein_4b'), BFL),
    'flux2-lokr-bfl-text': Case('klein4-bfl-text.safetensors', file(bfl, ('txt_in', 'img_attn'), 'diffusion_model.', make=lokr, size='klein_4b'),
                                of('flux2', variant='klein_4b'), BFL),
    'flux2-lokr-bfl-9b': Case('klein9-bfl-lokr.safetensors', file(bfl, ('img_attn.proj',), 'diffusion_model.', make=lokr, size='klein_9b'), of('flux2', variant='klein_9b'), BFL),
    'flux2-lora-diffusers-4b': Case('klein4-diffusers.safetensors', peft(TRANSFORMER, 'transformer.', 'klein_4b'), of('flux2', variant='klein_4b'), PEFT),
    'flux2-lora-diffusers-9b': Case('klein9-diffusers.safetensors', peft(JOINT, 'transformer.', 'klein_9b'), of('flux2', variant='klein_9b'), PEFT),
    'flux2-lora-diffusers-dev': Case('flux2-dev-diffusers.safetensors', peft(TRANSFORMER, '', 'dev'), of('flux2', variant='dev'), PEFT),
    'flux2-lora-diffusers-double': Case('klein4-double.safetensors', peft(('.ff.', '.ff_context.'), 'transformer.', 'klein_4b'), of('flux2', variant='klein_4b'), PEFT),
    'flux2-lora-folder-4b': Case('klein4-folder/', folder(peft(TRANSFORMER, 'transformer.', 'klein_4b')), kind('lora', 'flux2', 'diffusers', variant='klein_4b'), PEFT),
    'flux2-lora-folder-9b': Case('klein9-folder/', folder(peft(TRANSFORMER, 'transformer.', 'klein_9b')), kind('lora', 'flux2', 'diffusers', variant='klein_9b'), PEFT),
    'flux2-lora-folder-dev': Case('flux2-dev-folder/', folder(peft(TRANSFORMER, 'transformer.', 'dev')), kind('lora', 'flux2', 'diffusers', variant='dev'), PEFT),
    'given-klein': Case('klein4-img-attention.safetensors', kohya(('img_attn',), size='klein_4b'), of('flux2', variant='klein_4b'), KOHYA, {'base': 'flux2'}),
    'given-flux-te1': Case('te1-of-flux.safetensors', texts(('lora_te1_', te1)), of('flux'), KOHYA, {'base': 'flux'}),
    'bad-t5-lora': Case('t5-lora.safetensors', texts(('lora_te3_', t5_modules)), REFUSED, KOHYA),
    'bad-hunyuan-video-lora': Case('hunyuan-video.safetensors', hunyuan_video, REFUSED, 'kohya-ss/musubi-tuner: networks/lora.py (HunyuanVideo)'),
    'bad-chroma-lora': Case('chroma-lora.safetensors', chroma_lora, REFUSED, 'kohya-ss/sd-scripts: library/chroma_models.py'),
}
