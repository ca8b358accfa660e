"""ControlNets of transformers, IP-Adapters, T2I adapters, Redux."""
from catalogue.case import Case, REFUSED, kind
from networks import adapters
from networks.containers import Torch
from networks.latent_diffusion import controlnet_diffusers, unet
from networks.net import Net

XLABS = 'XLabs-AI/x-flux: src/flux/controlnet.py, modules/layers.py'
DIFFUSERS = 'huggingface/diffusers: controlnet_flux.py, controlnet_sd3.py, controlnet_qwenimage.py'
UNION = 'huggingface/diffusers: controlnet_union.py; xinsir6/ControlNetPlus'
FUN = 'aigc-apps/VideoX-Fun: z_image_transformer2d_control.py'
LLLITE = 'kohya-ss/sd-scripts: networks/control_net_lllite.py, control_net_lllite_anima.py'
STABILITY = 'Stability-AI/control-lora; comfyanonymous/ComfyUI: comfy/controlnet.py'
TENCENT = 'tencent-ailab/IP-Adapter: ip_adapter/ip_adapter.py, resampler.py'
T2I = 'TencentARC/T2I-Adapter: ldm/modules/encoders/adapter.py; huggingface/diffusers: models/adapter.py'
REDUX = 'black-forest-labs/flux: modules/image_embedders.py'


def of(build, *args, metadata=None, **options):
    return lambda small: {'': (build(*args, **options), metadata)}


def controlnet(base, format='checkpoint', **more):
    return kind('controlnet', base, format, **more)


def folder(class_name, build, label='', **config):
    def make(small):
        return {'config.json': dict({'_class_name': class_name}, **config), 'diffusion_pytorch_model%s.safetensors' % label: build()}
    return make


def unet_folder(base, class_name='ControlNetModel', **more):
    def make(small):
        config = dict(unet(base, 'normal', small).config(), _class_name=class_name, **more)
        return {'config.json': config, 'diffusion_pytorch_model.safetensors': controlnet_diffusers(base, small)}
    return make


def union(small):
    net = controlnet_diffusers('sdxl', small)
    net.add('task_embedding', 8, 320)
    net.linear('control_add_embedding.linear_1', 1280, 2048)
    net.linear('control_add_embedding.linear_2', 1280, 1280)
    net.linear('spatial_ch_projs', 320, 320)
    net.linear('transformer_layes.0.attn.out_proj', 320, 320)
    return {'': net}


def without_attention(small):
    """The slimmed ControlNets of SDXL."""
    net = Net()
    net.update((n, s) for n, s in controlnet_diffusers('sdxl', False).items() if '.attentions.' not in n)
    return {'': net}


def nested(net):
    """The two dicts of tencent's .bin files."""
    tree = {'image_proj': {}, 'ip_adapter': {}}
    for name, spec in net.items():
        head, tail = name.split('.', 1)
        tree[head][tail] = spec
    return Torch(tree)


def bin_of(base):
    return lambda small: {'': nested(adapters.ip_adapter(base))}


def invokeai(base, note=b'InvokeAI/ip_adapter_sd_image_encoder\n'):
    def make(small):
        made = {'ip_adapter.bin': nested(adapters.ip_adapter(base))}
        if note is not None:
            made['image_encoder.txt'] = note
        return made
    return make


def ip(base, format='checkpoint', **more):
    return kind('ip_adapter', base, format, **more)


def t2i(adapter_type, **more):
    return folder('T2IAdapter', adapters.t2i_diffusers, '.fp16', **(dict(more, adapter_type=adapter_type) if adapter_type else more))


def almost_redux(small):
    net = adapters.redux()
    net.add('redux_norm.weight', 4096)
    return {'': net}


CASES = {
    'controlnet-flux-xlabs': Case('flux-canny-controlnet-v3.safetensors', of(adapters.flux_xlabs), controlnet('flux'), XLABS),
    'controlnet-flux-instantx': Case('flux-instantx-canny.safetensors', of(adapters.flux_instantx), controlnet('flux'), DIFFUSERS),
    'controlnet-flux-union': Case('flux-union.safetensors', of(adapters.flux_instantx, modes=10), controlnet('flux'), DIFFUSERS),
    'controlnet-flux-folder': Case('flux-controlnet-folder/', folder('FluxControlNetModel', adapters.flux_instantx, num_layers=5), controlnet('flux', 'diffusers', repo_variant=''), DIFFUSERS),
    'controlnet-sd3': Case('sd3-controlnet.safetensors', of(adapters.sd3_controlnet), controlnet('sd-3'), DIFFUSERS),
    'controlnet-sd3-folder': Case('sd3-controlnet-folder/', folder('SD3ControlNetModel', adapters.sd3_controlnet), controlnet('sd-3', 'diffusers'), DIFFUSERS),
    'controlnet-qwen': Case('qwen-controlnet-union.safetensors', of(adapters.qwen_controlnet), controlnet('qwen-image'), DIFFUSERS),
    'controlnet-qwen-folder': Case('qwen-controlnet-folder/', folder('QwenImageControlNetModel', adapters.qwen_controlnet), controlnet('qwen-image', 'diffusers'), DIFFUSERS),
    'controlnet-z-image': Case('Z-Image-Turbo-Fun-Controlnet-Union.safetensors', of(adapters.z_image_control), controlnet('z-image'), FUN),
    'controlnet-z-image-2': Case('Z-Image-Turbo-Fun-Controlnet-Union-2.1.safetensors', of(adapters.z_image_control, 15, 2, 33), controlnet('z-image'), FUN),
    'controlnet-anima': Case('anima-lllite.safetensors', of(adapters.lllite_anima), controlnet('anima', cond_in_channels=3), LLLITE),
    'controlnet-anima-inpaint': Case('anima-lllite-inpaint.safetensors', of(adapters.lllite_anima, 4), controlnet('anima', cond_in_channels=4), LLLITE),
    'controlnet-anima-told': Case('anima-lllite-told.safetensors', of(adapters.lllite_anima, 4, metadata={'lllite.cond_in_channels': '4', 'lllite.version': '2'}),
                                  controlnet('anima', cond_in_channels=4), LLLITE),
    'controlnet-sdxl-union': Case('controlnet-union-sdxl-promax.safetensors', union, controlnet('sdxl'), UNION),
    'controlnet-sdxl-slim': Case('controlnet-sdxl-slim.safetensors', without_attention, controlnet('sdxl'), 'huggingface/diffusers: controlnet-canny-sdxl-1.0-small'),
    'controlnet-sdxl-union-folder': Case('union-folder/', unet_folder('sdxl', 'ControlNetUnionModel'), controlnet('sdxl', 'diffusers'), UNION),
    'controlnet-sd2-folder': Case('controlnet-sd21-folder/', unet_folder('sd-2'), controlnet('sd-2', 'diffusers'), 'huggingface/diffusers: controlnet.py'),
    'controlnet-sd1-pth': Case('control_sd15_openpose.pth', lambda small: {'': Torch(dict(controlnet_diffusers('sd-1', small)))}, controlnet('sd-1'), 'huggingface/diffusers: controlnet.py'),
    'control-lora-sdxl': Case('control-lora-canny-rank256.safetensors', lambda small: {'': adapters.control_lora(small)}, kind('control_lora', 'sdxl', 'lycoris'), STABILITY),
    'bad-lllite-sdxl': Case('lllite-sdxl.safetensors', of(adapters.lllite_sdxl), REFUSED, LLLITE),
    'bad-controlnet-width': Case('controlnet-odd/', folder('ControlNetModel', Net, cross_attention_dim=512), REFUSED, 'made to be refused'),
    'ip-adapter-sd1': Case('ip-adapter_sd15.safetensors', of(adapters.ip_adapter, 'sd-1'), ip('sd-1'), TENCENT),
    'ip-adapter-sd1-plus': Case('ip-adapter-plus_sd15.safetensors', of(adapters.ip_adapter, 'sd-1', True), ip('sd-1'), TENCENT),
    'ip-adapter-sd1-full': Case('ip-adapter-full-face_sd15.safetensors', of(adapters.ip_adapter, 'sd-1', False, True), ip('sd-1'), TENCENT),
    'ip-adapter-sd2': Case('ip-adapter_sd21.safetensors', of(adapters.ip_adapter, 'sd-2'), ip('sd-2'), TENCENT),
    'ip-adapter-sdxl': Case('ip-adapter_sdxl.safetensors', of(adapters.ip_adapter, 'sdxl', encoder=1280), ip('sdxl'), TENCENT),
    'ip-adapter-sdxl-plus': Case('ip-adapter-plus_sdxl_vit-h.safetensors', of(adapters.ip_adapter, 'sdxl', True), ip('sdxl'), TENCENT),
    'ip-adapter-sd1-bin': Case('ip-adapter_sd15_light.bin', bin_of('sd-1'), ip('sd-1'), TENCENT),
    'ip-adapter-sdxl-bin': Case('ip-adapter_sdxl_vit-h.bin', bin_of('sdxl'), ip('sdxl'), TENCENT),
    'ip-adapter-flux': Case('flux-ip-adapter.safetensors', of(adapters.ip_adapter_flux), ip('flux'), XLABS),
    'ip-adapter-flux-2': Case('flux-ip-adapter-v2.safetensors', of(adapters.ip_adapter_flux, 16), ip('flux'), XLABS),
    'ip-adapter-invokeai': Case('ip_adapter_sd15/', invokeai('sd-1'), ip('sd-1', 'invokeai', image_encoder_model_id='InvokeAI/ip_adapter_sd_image_encoder'), 'invoke-ai/InvokeAI: ip_adapter.py'),
    'ip-adapter-invokeai-sd2': Case('ip_adapter_sd21/', invokeai('sd-2'), ip('sd-2', 'invokeai'), 'invoke-ai/InvokeAI: ip_adapter.py'),
    'ip-adapter-invokeai-sdxl': Case('ip_adapter_sdxl/', invokeai('sdxl', b'InvokeAI/ip_adapter_sdxl_image_encoder  \r\nmore\n'),
                                     ip('sdxl', 'invokeai', image_encoder_model_id='InvokeAI/ip_adapter_sdxl_image_encoder'), 'invoke-ai/InvokeAI: ip_adapter.py'),
    'bad-ip-adapter-note': Case('ip_adapter_without_note/', invokeai('sd-1', None), REFUSED, 'invoke-ai/InvokeAI: ip_adapter.py'),
    't2i-sdxl': Case('t2i-adapter-canny-sdxl/', t2i('full_adapter_xl'), kind('t2i_adapter', 'sdxl', 'diffusers', repo_variant='fp16'), T2I),
    't2i-sd1': Case('t2iadapter_canny_sd15v2/', t2i('full_adapter'), kind('t2i_adapter', 'sd-1', 'diffusers'), T2I),
    't2i-sd1-light': Case('t2iadapter_color_sd14v1/', t2i('light_adapter'), kind('t2i_adapter', 'sd-1', 'diffusers'), T2I),
    'bad-t2i-untold': Case('t2i-untold/', t2i(None), REFUSED, T2I),
    'bad-t2i-file': Case('t2iadapter_canny_sd14v1.safetensors', of(adapters.t2i_adapter), REFUSED, T2I),
    'flux-redux': Case('flux1-redux-dev.safetensors', of(adapters.redux), kind('flux_redux', 'flux', 'checkpoint'), REDUX),
    'bad-redux': Case('redux-and-more.safetensors', almost_redux, REFUSED, REDUX),
}
