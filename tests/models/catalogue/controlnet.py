"""ControlNets."""
from catalogue.case import Case, kind
from networks.latent_diffusion import controlnet_diffusers, controlnet_ldm, unet

LDM = 'lllyasviel/ControlNet: cldm/cldm.py'
DIFFUSERS = 'huggingface/diffusers: controlnet.py'


def controlnet_folder(base, label=''):
    def make(small):
        config = unet(base, 'normal', small).config()
        config['_class_name'] = 'ControlNetModel'
        return {'config.json': config,
                'diffusion_pytorch_model%s.safetensors' % label: controlnet_diffusers(base, small)}
    return make

CASES = {
    'controlnet-sd1': Case('control_v11p_sd15_canny.safetensors', lambda small: {'': controlnet_ldm('sd-1', small)},
                           kind('controlnet', 'sd-1', 'checkpoint'), LDM),
    'controlnet-sd2': Case('control_v11p_sd21_depth.safetensors', lambda small: {'': controlnet_ldm('sd-2', small)},
                           kind('controlnet', 'sd-2', 'checkpoint'), LDM),
    'controlnet-sdxl': Case('controlnet-xl-canny.safetensors', lambda small: {'': controlnet_diffusers('sdxl', small)},
                            kind('controlnet', 'sdxl', 'checkpoint'), LDM),
    'controlnet-sd1-diffusers-file': Case('some_pose_model.safetensors',
                                          lambda small: {'': controlnet_diffusers('sd-1', small)},
                                          kind('controlnet', 'sd-1', 'checkpoint'), DIFFUSERS),
    'controlnet-diffusers': Case('control_v11p_sd15_softedge/', controlnet_folder('sd-1'),
                                 kind('controlnet', 'sd-1', 'diffusers', repo_variant=''), DIFFUSERS),
    'controlnet-sdxl-diffusers': Case('controlnet-canny-sdxl/', controlnet_folder('sdxl', '.fp16'),
                                      kind('controlnet', 'sdxl', 'diffusers', repo_variant='fp16'), DIFFUSERS),
}

CASES['controlnet-sd2-diffusers'] = Case('controlnet-sd21-canny-diffusers/', controlnet_folder('sd-2'),
                                         kind('controlnet', 'sd-2', 'diffusers'), DIFFUSERS)
