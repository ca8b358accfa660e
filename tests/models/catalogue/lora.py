"""LoRAs for Stable Diffusion."""
from catalogue.case import Case, REFUSED, kind
from networks.lora import kohya, peft, text_modules, unet_modules
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


def flux_lora(small):
    net = Net('BF16')
    for i in range(19):
        for part in ('img_attn_proj', 'img_attn_qkv', 'txt_attn_proj'):
            kohya(net, 'lora_unet_', [('double_blocks_%d_%s' % (i, part), 3072, 3072)])
    kohya(net, 'lora_te1_', text_modules(768, True))
    return {'': net}


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
    'bad-flux-lora': Case('flux-lora.safetensors', flux_lora, REFUSED, KOHYA),
}
