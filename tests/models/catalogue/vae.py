"""Autoencoders."""
from catalogue.case import Case, kind
from networks.latent_diffusion import VAE_CONFIG, vae_diffusers, vae_ldm

LDM = 'CompVis/stable-diffusion: ldm/modules/diffusionmodules/model.py (Encoder, Decoder)'
DIFFUSERS = 'huggingface/diffusers: autoencoder_kl.py, autoencoder_tiny.py and the published config.json'


def vae_file(latent=4):
    return lambda small: {'': (vae_ldm(small, latent), {'format': 'pt'})}


def vae_folder(config, label=''):
    def make(small):
        return {'config.json': dict(VAE_CONFIG, **config),
                'diffusion_pytorch_model%s.safetensors' % label: vae_diffusers(small)}
    return make

CASES = {
    'vae': Case('vae-ft-mse-840000.safetensors', vae_file(), kind('vae', 'sd-1', 'checkpoint'), LDM),
    'vae-sdxl': Case('sdxl_vae.safetensors', vae_file(), kind('vae', 'sdxl', 'checkpoint'), LDM),
    'vae-sd2': Case('sd2-768-vae.safetensors', vae_file(), kind('vae', 'sd-2', 'checkpoint'), LDM),
    'vae-flux': Case('ae.safetensors', vae_file(16), kind('vae', 'flux', 'checkpoint'), LDM),
    'vae-diffusers': Case('sd-vae-ft-mse/', vae_folder({'scaling_factor': 0.18215, 'sample_size': 256}),
                          kind('vae', 'sd-1', 'diffusers'), DIFFUSERS),
    'vae-sdxl-diffusers': Case('fixed-vae/', vae_folder({'scaling_factor': 0.13025, 'sample_size': 1024}),
                               kind('vae', 'sdxl', 'diffusers'), DIFFUSERS),
    'taesd': Case('taesd/', vae_folder({'_class_name': 'AutoencoderTiny'}),
                  kind('vae', 'sd-1', 'diffusers'), DIFFUSERS),
    'taesdxl': Case('taesdxl-fp16/', vae_folder({'_class_name': 'AutoencoderTiny'}, '.fp16'),
                    kind('vae', 'sdxl', 'diffusers', repo_variant='fp16'), DIFFUSERS),
}
