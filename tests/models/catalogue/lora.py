"""LoRAs for Stable Diffusion."""
from catalogue.case import Case, REFUSED, kind
from networks.containers import Torch
from networks.lora import adapt, full, ia3, kohya, loha, lokr, lokr_both, oft, pair, peft, text_modules, unet_modules
from networks.net import Net

KOHYA = 'kohya-ss/sd-scripts: networks/lora.py'
LYCORIS = 'KohakuBlueleaf/LyCORIS: modules/loha.py, lokr.py'
PEFT = 'huggingface/peft: tuners/lora; huggingface/diffusers: loaders/lora_pipeline.py'


def lora_kohya(base, text=(), with_unet=True, part='transformer_blocks'):
    """text: (prefix, width) pairs."""
    def make(small):
        net = Net()
        if with_unet:
            kohya(net, 'lora_unet_', unet_modules(base, small, base == 'sdxl', part))
        for prefix, width in text:
            kohya(net, prefix, text_modules(width, small))
        return {'': (net, {'ss_network_module': 'networks.lora', 'ss_network_dim': '4'})}
    return make


def lora_lycoris(kind):
    def make(small):
        net = Net()
        for name, out, into in unet_modules('sd-1', small):
            name = 'lora_unet_' + name.replace('.', '_')
            net[name + '.alpha'] = (net.dtype, ())
            if kind == 'loha':
                for half in ('w1', 'w2'):
                    net.add('%s.hada_%s_a' % (name, half), out, 4)
                    net.add('%s.hada_%s_b' % (name, half), 4, into)
            else:
                net.add(name + '.lokr_w1', 4, 4)
                net.add(name + '.lokr_w2_a', out // 4, 2)
                net.add(name + '.lokr_w2_b', 2, into // 4)
        return {'': net}
    return make


def lora_peft(base, text=(), with_unet=True, file=''):
    def make(small):
        net = Net()
        if with_unet:
            peft(net, 'unet.', unet_modules(base, small))
        for prefix, width in text:
            peft(net, prefix, text_modules(width, small))
        return {file: (net, {'format': 'pt'})}
    return make


def lora_old_diffusers(small):
    net = Net()
    for name, out, into in unet_modules('sd-1', small, part='.attn'):
        name = name.replace('.to_out.0', '.to_out')
        head, tail = name.rsplit('.', 1)
        net.add('unet.%s.processor.%s_lora.down.weight' % (head, tail), 4, into)
        net.add('unet.%s.processor.%s_lora.up.weight' % (head, tail), out, 4)
    return {'': net}


def lycoris(base, make, text=(), part='transformer_blocks', metadata=None, with_unet=True, **options):
    """One of LyCORIS' algorithms over a U-Net, text encoders beside it."""
    def case(small):
        net = Net()
        if with_unet:
            adapt(unet_modules(base, small, base == 'sdxl', part), 'lora_unet_', '_', make, net, **options)
        for prefix, width in text:
            adapt(text_modules(width, small), prefix, '_', make, net, **options)
        return {'': (net, metadata)}
    return case


def locon(small):
    """Convolutions and time embeddings too; these are as wide in SD 1 as in SDXL."""
    net = lora_kohya('sd-1', (TE_1,))(small)[''][0]
    for name, into in (('down_blocks_0_resnets_0', 320), ('down_blocks_1_resnets_0', 320)):
        net.add('lora_unet_%s_time_emb_proj.lora_down.weight' % name, 4, 1280)
        net.add('lora_unet_%s_time_emb_proj.lora_up.weight' % name, 320, 4)
        net.add('lora_unet_%s_conv1.lora_down.weight' % name, 4, into, 3, 3)
        net.add('lora_unet_%s_conv1.lora_up.weight' % name, 320, 4, 1, 1)
    return {'': net}


def omi_sdxl(small):
    net = adapt(unet_modules('sdxl', small, True), 'unet.', '.', pair)
    return {'': (net, {'modelspec.sai_model_spec': '1.0.0', 'ot_branch': 'omi_format',
                       'modelspec.architecture': 'stable-diffusion-xl-v1-base/lora'})}


def folder_bin(make):
    return lambda small: {'pytorch_lora_weights.bin': Torch(dict(list(make(small).values())[0][0]))}


TE_1, TE_2, TE_XL = ('lora_te_', 768), ('lora_te_', 1024), (('lora_te1_', 768), ('lora_te2_', 1280))
PEFT_XL = (('text_encoder.', 768), ('text_encoder_2.', 1280))

CASES = {
    'lora': Case('lora-sd1.safetensors', lora_kohya('sd-1', (TE_1,)), kind('lora', 'sd-1', 'lycoris'), KOHYA),
    'lora-sd2': Case('lora-sd2.safetensors', lora_kohya('sd-2', (TE_2,)), kind('lora', 'sd-2', 'lycoris'), KOHYA),
    'lora-sdxl': Case('lora-sdxl.safetensors', lora_kohya('sdxl', TE_XL), kind('lora', 'sdxl', 'lycoris'), KOHYA),
    'lora-sdxl-te': Case('lora-sdxl-te.safetensors', lora_kohya('sdxl', TE_XL, with_unet=False),
                         kind('lora', 'sdxl', 'lycoris'), KOHYA),
    'lora-sd1-te': Case('lora-sd1-te.safetensors', lora_kohya('sd-1', (TE_1,), with_unet=False),
                        kind('lora', 'sd-1', 'lycoris'), KOHYA),
    'lora-slider': Case('slider.safetensors', lora_kohya('sdxl', part='.attn1.'),
                        kind('lora', 'sdxl', 'lycoris'), KOHYA),
    'loha': Case('loha.safetensors', lora_lycoris('loha'), kind('lora', 'sd-1', 'lycoris'), LYCORIS),
    'lokr': Case('lokr.safetensors', lora_lycoris('lokr'), kind('lora', 'sd-1', 'lycoris'), LYCORIS),
    'lora-peft': Case('lora-peft-sd1.safetensors', lora_peft('sd-1', (('text_encoder.', 768),)),
                      kind('lora', 'sd-1', 'lycoris'), PEFT),
    'lora-peft-sdxl': Case('lora-peft-sdxl/', lora_peft('sdxl', PEFT_XL, file='pytorch_lora_weights.safetensors'),
                           kind('lora', 'sdxl', 'diffusers'), PEFT),
    'lora-peft-te': Case('lora-peft-te/',
                         lora_peft('sdxl', PEFT_XL, with_unet=False, file='pytorch_lora_weights.safetensors'),
                         kind('lora', 'sdxl', 'diffusers'), PEFT),
    'lora-old-diffusers': Case('old-lora.safetensors', lora_old_diffusers, kind('lora', 'sd-1', 'lycoris'), PEFT),
    'bad-te1-only': Case('te1.safetensors', lora_kohya('sdxl', TE_XL[:1], with_unet=False), REFUSED, KOHYA),
    'lora-sd1-locon': Case('locon.safetensors', locon, kind('lora', 'sd-1', 'lycoris'), LYCORIS),
    'lora-sd1-dora': Case('dora-sd1.safetensors', lycoris('sd-1', pair, dora=True), kind('lora', 'sd-1', 'lycoris'), LYCORIS),
    'lora-sd1-full': Case('full-sd1.safetensors', lycoris('sd-1', full), kind('lora', 'sd-1', 'lycoris'), LYCORIS),
    'lora-sd1-lokr-whole': Case('lokr-whole.safetensors', lycoris('sd-1', lokr), kind('lora', 'sd-1', 'lycoris'), LYCORIS),
    'lora-sd2-lokr-both': Case('lokr-both-sd2.safetensors', lycoris('sd-2', lokr_both), kind('lora', 'sd-2', 'lycoris'), LYCORIS),
    'lora-sd2-loha': Case('loha-sd2.safetensors', lycoris('sd-2', loha), kind('lora', 'sd-2', 'lycoris'), LYCORIS),
    'lora-sdxl-loha': Case('loha-sdxl.safetensors', lycoris('sdxl', loha, TE_XL), kind('lora', 'sdxl', 'lycoris'), LYCORIS),
    'lora-sdxl-lokr': Case('lokr-sdxl.safetensors', lycoris('sdxl', lokr), kind('lora', 'sdxl', 'lycoris'), LYCORIS),
    'ia3-sd1': Case('ia3-sd1.safetensors', lycoris('sd-1', ia3, (TE_1,)), kind('lora', 'sd-1', 'lycoris'), 'KohakuBlueleaf/LyCORIS: modules/ia3.py'),
    'ia3-sd1-te': Case('ia3-sd1-te.safetensors', lycoris('sd-1', ia3, (TE_1,), with_unet=False), kind('lora', 'sd-1', 'lycoris'), 'KohakuBlueleaf/LyCORIS: modules/ia3.py'),
    'ia3-sdxl': Case('ia3-sdxl.safetensors', lycoris('sdxl', ia3, TE_XL), kind('lora', 'sdxl', 'lycoris'), 'KohakuBlueleaf/LyCORIS: modules/ia3.py'),
    'lora-sd1-oft-told': Case('oft-sd1.safetensors', lycoris('sd-1', oft, metadata={'ss_base_model_version': 'sd_v1'}), kind('lora', 'sd-1', 'lycoris'), 'KohakuBlueleaf/LyCORIS: modules/diag_oft.py'),
    'lora-sdxl-oft': Case('oft-sdxl.safetensors', lycoris('sdxl', oft), kind('lora', 'sdxl', 'lycoris'), 'KohakuBlueleaf/LyCORIS: modules/diag_oft.py'),
    'lora-sd1-attn1-told': Case('attn1-sd1.safetensors', lycoris('sd-1', pair, part='.attn1.', metadata={'modelspec.architecture': 'stable-diffusion-v1/lora'}),
                                kind('lora', 'sd-1', 'lycoris'), KOHYA),
    'lora-sdxl-te1-told': Case('te1-told.safetensors', lycoris('sdxl', pair, TE_XL[:1], with_unet=False, metadata={'ss_base_model_version': 'sdxl_base_v1-0'}),
                               kind('lora', 'sdxl', 'lycoris'), KOHYA),
    'lora-sdxl-te2': Case('te2-only.safetensors', lycoris('sdxl', pair, TE_XL[1:], with_unet=False), kind('lora', 'sdxl', 'lycoris'), KOHYA),
    'lora-sd2-te': Case('lora-sd2-te.safetensors', lora_kohya('sd-2', (TE_2,), with_unet=False), kind('lora', 'sd-2', 'lycoris'), KOHYA),
    'lora-peft-sdxl-file': Case('lora-peft-sdxl.safetensors', lora_peft('sdxl', PEFT_XL), kind('lora', 'sdxl', 'lycoris', dialect='diffusers'), PEFT),
    'lora-peft-sd2': Case('lora-peft-sd2.safetensors', lora_peft('sd-2', (('text_encoder.', 1024),)), kind('lora', 'sd-2', 'lycoris'), PEFT),
    'lora-peft-sd1-folder': Case('lora-peft-sd1/', lora_peft('sd-1', file='pytorch_lora_weights.safetensors'), kind('lora', 'sd-1', 'diffusers'), PEFT),
    'lora-peft-sd2-folder': Case('lora-peft-sd2/', lora_peft('sd-2', file='pytorch_lora_weights.safetensors'), kind('lora', 'sd-2', 'diffusers'), PEFT),
    'lora-peft-bin-folder': Case('lora-peft-bin/', folder_bin(lora_peft('sd-1')), kind('lora', 'sd-1', 'diffusers'), PEFT),
    'lora-peft-both-folder': Case('lora-peft-both/', lambda small: dict(lora_peft('sd-1', file='pytorch_lora_weights.safetensors')(small), **folder_bin(lora_peft('sd-1'))(small)),
                                  kind('lora', 'sd-1', 'diffusers'), PEFT),
    'lora-omi-sdxl': Case('omi-sdxl.safetensors', omi_sdxl, kind('lora', 'sdxl', 'omi'), 'Nerogar/OneTrainer: modelSaver (omi_format)'),
    'given-attn1': Case('attn1-given.safetensors', lycoris('sd-2', pair, part='.attn1.'), kind('lora', 'sd-2', 'lycoris'), KOHYA, {'base': 'sd-2'}),
    'bad-attn1': Case('attn1.safetensors', lycoris('sd-1', pair, part='.attn1.'), REFUSED, KOHYA),
    'bad-peft-te': Case('peft-te.safetensors', lora_peft('sd-1', (('text_encoder.', 768),), with_unet=False), REFUSED, PEFT),
    'bad-oft': Case('oft.safetensors', lycoris('sd-1', oft), REFUSED, 'KohakuBlueleaf/LyCORIS: modules/diag_oft.py'),
}
