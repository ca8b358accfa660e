"""LoRAs for the other transformers: SD 3, Qwen-Image, Z-Image, Krea 2, Wan, Anima."""
from catalogue.case import Case, REFUSED, kind
from catalogue.lora_flux import folder, te1, texts
from networks.dit import anima, krea, lumina2, qwen_image, sd3, sd3_diffusers, z_image
from networks.lora import PEFT_HALVES, adapt, full, layers, loha, lokr, lokr_both, pair, t5_modules, text_modules
from networks.net import Net
from networks.wan import wan, wan_diffusers

SD3 = 'kohya-ss/sd-scripts: networks/lora_sd3.py, over Stability-AI/sd3.5: mmditx.py'
SD3_PEFT = 'huggingface/diffusers: loaders/lora_pipeline.py, over transformer_sd3.py'
QWEN = 'kohya-ss/musubi-tuner: networks/lora_qwen_image.py, over transformer_qwenimage.py'
QWEN_PEFT = 'huggingface/diffusers: loaders/lora_pipeline.py, over transformer_qwenimage.py'
Z_KOHYA = 'kohya-ss/musubi-tuner: networks/lora_zimage.py; KohakuBlueleaf/LyCORIS'
Z_PEFT = 'ostris/ai-toolkit and huggingface/diffusers, over transformer_z_image.py'
KREA = 'huggingface/diffusers: transformer_krea2.py; invoke-ai/InvokeAI: krea2_lora_constants.py'
WAN = 'kohya-ss/musubi-tuner: networks/lora_wan.py, over Wan-Video/Wan2.2: wan/modules/model.py'
WAN_PEFT = 'ostris/ai-toolkit and huggingface/diffusers: transformer_wan.py'
ANIMA = 'kohya-ss/sd-scripts: networks/lora_anima.py, over NVlabs Cosmos-Predict2: minimal_v4_dit.py'
HALVES = {'halves': ('.lora_down.weight', '.lora_up.weight'), 'alpha': True}


def of(base, format='lycoris', **more):
    return kind('lora', base, format, **more)


def file(build, parts, prefix, join='.', make=pair, metadata=None, also=None, **options):
    """build(small) is the network; also(net) adds to what was made."""
    def case(small):
        net = adapt(layers(build(small), *parts), prefix, join, make, **options)
        if also:
            also(net)
        return {'': (net, metadata)}
    return case


def kohya(build, *parts, make=pair, **options):
    return file(build, parts, 'lora_unet_', '_', make, **options)


def peft(build, *parts, prefix='diffusion_model.', **options):
    return file(build, parts, prefix, **dict(PEFT_HALVES, **options))


def medium(small):
    return sd3('medium', small)


def large(small):
    return sd3('large', small)


def of_wan(variant):
    return lambda small: wan(variant, small)


def of_wan_diffusers(variant):
    return lambda small: wan_diffusers(variant, small)


def krea_own(small):
    return krea(small, own=True)


def qwen_attention(small):
    """Only the attention, but of blocks that FLUX.1 has not."""
    net = Net()
    for i in (0, 1, 19, 59):
        for part in ('to_q', 'to_k', 'to_v', 'to_out.0', 'add_k_proj'):
            net.linear('transformer_blocks.%d.attn.%s' % (i, part), 3072, 3072, False)
    return net


def te2():
    return text_modules(1280, True)


def qwen3(net):
    """The text encoder of Anima, a Qwen3 of 0.6B."""
    for part in ('q_proj', 'k_proj', 'v_proj'):
        pair(net, 'lora_te_layers_0_self_attn_' + part, 2048 if part == 'q_proj' else 1024, 1024)


def with_patches(net):
    net.add('diffusion_model.patch_embedding.weight', 5120, 16, 1, 2, 2)
    net.add('diffusion_model.text_embedding.0.weight', 5120, 4096)


def without_one_half(net):
    del net['transformer.transformer_blocks.0.attn.to_q.lora_B.weight']


def doubled(build):
    """The double underscore of a prefix that ends with one."""
    return file(build, ('attention', 'feed_forward'), 'lora_unet__', '_')


CASES = {
    'sd3-lora-kohya': Case('sd3-kohya.safetensors', kohya(medium, 'joint_blocks'), of('sd-3'), SD3),
    'sd3-lora-kohya-large': Case('sd35-large-kohya.safetensors', kohya(large, 'joint_blocks'), of('sd-3'), SD3),
    'sd3-lora-own': Case('sd3-own.safetensors', peft(medium, 'joint_blocks'), of('sd-3'), SD3),
    'sd3-lora-diffusers': Case('sd3-diffusers.safetensors', peft(sd3_diffusers, '.attn.', prefix='transformer.'), of('sd-3'), SD3_PEFT),
    'sd3-lora-onetrainer': Case('sd3-onetrainer.safetensors', file(sd3_diffusers, ('.attn.', '.ff'), 'lora_transformer_', '_'), of('sd-3'), 'Nerogar/OneTrainer: modelSaver/stableDiffusion3'),
    'sd3-lora-text': Case('sd3-text.safetensors', texts(('lora_te1_', te1), ('lora_te2_', te2), ('lora_te3_', t5_modules)), of('sd-3'), SD3),
    'sd3-lora-folder': Case('sd3-lora-folder/', folder(peft(sd3_diffusers, '.attn.', prefix='transformer.')), of('sd-3', 'diffusers'), SD3_PEFT),
    'qwen-lora-kohya': Case('qwen-kohya.safetensors', kohya(qwen_image, 'transformer_blocks'), of('qwen-image', dialect='kohya'), QWEN),
    'qwen-lora-diffusers': Case('qwen-diffusers.safetensors', peft(qwen_image, 'transformer_blocks', prefix='transformer.'), of('qwen-image'), QWEN_PEFT),
    'qwen-lora-bare': Case('Qwen-Image-Lightning-8steps.safetensors', file(qwen_image, ('transformer_blocks',), '', **HALVES), of('qwen-image'), QWEN_PEFT),
    'qwen-lora-comfy': Case('qwen-comfy.safetensors', peft(qwen_image, 'transformer_blocks'), of('qwen-image'), 'ostris/ai-toolkit, over transformer_qwenimage.py'),
    'qwen-lora-attention': Case('qwen-attention.safetensors', peft(qwen_attention, prefix='transformer.'), of('qwen-image'), QWEN_PEFT),
    'qwen-lokr': Case('qwen-lokr.safetensors', kohya(qwen_image, 'transformer_blocks', make=lokr), of('qwen-image'), 'KohakuBlueleaf/LyCORIS: modules/lokr.py'),
    'qwen-lokr-both': Case('qwen-lokr-both.safetensors', file(qwen_image, ('transformer_blocks',), '', make=lokr_both), of('qwen-image'), 'KohakuBlueleaf/LyCORIS: modules/lokr.py'),
    'qwen-lora-folder': Case('qwen-lora-folder/', folder(peft(qwen_image, 'transformer_blocks', prefix='transformer.')), of('qwen-image', 'diffusers'), QWEN_PEFT),
    'given-flux-attention': Case('flux-joint-attention.safetensors', peft(lambda small: Net().include('', {n: s for n, s in qwen_attention(small).items() if 'blocks.0.' in n}), prefix='transformer.'),
                                 of('flux'), QWEN_PEFT, {'base': 'flux'}),
    'z-image-lora-lycoris': Case('z-lycoris.safetensors', doubled(z_image), of('z-image', dialect='kohya'), Z_KOHYA),
    'z-image-lora-kohya': Case('z-kohya.safetensors', kohya(lambda small: z_image(small, True), 'attention', 'feed_forward'), of('z-image'), Z_KOHYA),
    'z-image-lora-peft': Case('z-peft.safetensors', peft(z_image, 'attention', 'feed_forward'), of('z-image'), Z_PEFT),
    'z-image-lora-diffusers': Case('z-diffusers.safetensors', peft(z_image, 'layers.', prefix='transformer.'), of('z-image'), Z_PEFT),
    'z-image-lora-base-model': Case('z-base-model.safetensors', peft(z_image, 'layers.', prefix='base_model.model.transformer.'), of('z-image'), Z_PEFT),
    'z-image-lokr': Case('z-lokr.safetensors', file(z_image, ('attention',), 'diffusion_model.', make=lokr), of('z-image'), 'KohakuBlueleaf/LyCORIS: modules/lokr.py'),
    'z-image-lora-folder': Case('z-lora-folder/', folder(peft(z_image, 'attention', prefix='transformer.')), of('z-image', 'diffusers'), Z_PEFT),
    'bad-lumina-lora': Case('lumina-lora.safetensors', kohya(lumina2, 'layers.'), REFUSED, 'kohya-ss/sd-scripts: networks/lora_lumina.py'),
    'krea-lora-kohya': Case('krea-kohya.safetensors', kohya(krea_own, 'blocks.'), of('krea-2', dialect='kohya'), KREA),
    'krea-lora-own': Case('krea-own.safetensors', peft(krea_own, 'blocks.'), of('krea-2', dialect='peft'), KREA),
    'krea-lora-diffusers': Case('krea-diffusers.safetensors', peft(krea, 'transformer_blocks', 'text_fusion', prefix='transformer.'), of('krea-2', dialect='diffusers'), KREA),
    'krea-lora-attention': Case('krea-attention.safetensors', peft(krea, '.attn.to_q', '.attn.to_k', prefix='transformer.'), of('krea-2'), KREA),
    'krea-lora-fusion': Case('krea-fusion.safetensors', peft(krea, 'text_fusion', prefix='transformer.'), of('krea-2'), KREA),
    'krea-lokr': Case('krea-lokr.safetensors', kohya(krea_own, 'blocks.', make=lokr), of('krea-2'), 'KohakuBlueleaf/LyCORIS: modules/lokr.py'),
    'krea-lora-folder': Case('krea-lora-folder/', folder(peft(krea, 'transformer_blocks', prefix='transformer.')), of('krea-2', 'diffusers'), KREA),
    'bad-krea-orphan': Case('krea-orphan.safetensors', peft(krea, 'transformer_blocks', 'text_fusion', prefix='transformer.', also=without_one_half), REFUSED, KREA),
    'wan-lora-kohya-high': Case('wan22_t2v_high_noise_style.safetensors', kohya(of_wan('t2v_a14b'), 'blocks.'), of('wan', variant='a14b', expert='high', dialect='kohya'), WAN),
    'wan-lora-kohya-5b': Case('wan22_5b_low.safetensors', kohya(of_wan('ti2v_5b'), 'blocks.'), of('wan', variant='5b', expert=None), WAN),
    'wan-lora-peft-low': Case('Wan2.2-LowNoise-lora.safetensors', peft(of_wan('t2v_a14b'), 'blocks.'), of('wan', variant='a14b', expert='low', dialect='peft'), WAN_PEFT),
    'wan-lora-both': Case('wan-lora-both.safetensors', peft(of_wan('i2v_a14b'), 'self_attn', 'cross_attn'), of('wan', variant='a14b', expert=None), WAN_PEFT),
    'wan-lora-diffusers': Case('wan-diffusers.safetensors', peft(of_wan_diffusers('t2v_a14b'), 'blocks.', prefix='transformer.'), of('wan', variant='a14b'), WAN_PEFT),
    'wan-lora-bare': Case('wan-bare.safetensors', peft(of_wan('ti2v_5b'), 'blocks.', prefix=''), of('wan', variant='5b'), WAN_PEFT),
    'wan-lora-feed-forward': Case('wan-ffn.safetensors', kohya(of_wan('t2v_a14b'), '.ffn.'), of('wan', variant='a14b'), WAN),
    'wan-lora-bundle': Case('wan-with-patches.safetensors', peft(of_wan('t2v_a14b'), 'blocks.', also=with_patches), of('wan', variant='a14b'), WAN_PEFT),
    'wan-lora-small': Case('wan-1.3b-lora.safetensors', peft(of_wan('t2v_1.3b'), 'self_attn'),
                           of('wan', variant=None), WAN_PEFT),
    'wan-loha': Case('wan-loha.safetensors', kohya(of_wan('t2v_a14b'), 'self_attn', make=loha), of('wan', variant='a14b'), 'KohakuBlueleaf/LyCORIS: modules/loha.py'),
    'wan-lokr': Case('wan-lokr.safetensors', file(of_wan('ti2v_5b'), ('self_attn',), 'diffusion_model.', make=lokr), of('wan', variant='5b'), 'KohakuBlueleaf/LyCORIS: modules/lokr.py'),
    'wan-full': Case('wan-full.safetensors', file(of_wan('t2v_a14b'), ('self_attn',), 'diffusion_model.', make=full), of('wan', variant='a14b'), 'KohakuBlueleaf/LyCORIS: modules/full.py'),
    'wan-lora-folder': Case('wan-lora-folder/', folder(peft(of_wan_diffusers('t2v_a14b'), 'blocks.', prefix='transformer.')), of('wan', 'diffusers', variant='a14b'), WAN_PEFT),
    'wan-lora-folder-5b': Case('wan-lora-folder-5b/', folder(peft(of_wan_diffusers('ti2v_5b'), 'blocks.', prefix='transformer.')), of('wan', 'diffusers', variant='5b'), WAN_PEFT),
    'anima-lora-kohya': Case('anima-kohya.safetensors', kohya(anima, 'blocks.'), of('anima', dialect='kohya'), ANIMA),
    'anima-lora-kohya-te': Case('anima-kohya-te.safetensors', kohya(anima, 'cross_attn', also=qwen3), of('anima'), ANIMA),
    'anima-lora-peft': Case('anima-peft.safetensors', peft(anima, 'blocks.'), of('anima', dialect='peft'), ANIMA),
    'anima-lora-transformer': Case('anima-transformer.safetensors', peft(anima, 'blocks.', prefix='transformer.'), of('anima'), ANIMA),
    'anima-lokr': Case('anima-lokr.safetensors', file(anima, ('self_attn',), 'diffusion_model.', make=lokr),
                       of('anima'), 'KohakuBlueleaf/LyCORIS: modules/lokr.py'),
    'anima-lora-folder': Case('anima-lora-folder/', folder(peft(anima, 'blocks.', prefix='transformer.')), of('anima', 'diffusers'), ANIMA),
}
