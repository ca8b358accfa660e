"""Autoencoders."""
from catalogue.case import Case, REFUSED, kind
from networks.latent_diffusion import VAE_CONFIG, VAE_WIDTHS, vae_diffusers, vae_ldm
from networks.net import Net
from networks.wan import wan_vae

LDM = 'CompVis/stable-diffusion: ldm/modules/diffusionmodules/model.py (Encoder, Decoder)'
DIFFUSERS = 'huggingface/diffusers: autoencoder_kl.py, autoencoder_tiny.py and the published config.json'
WAN = 'Wan-Video/Wan2.1 and Wan2.2: wan/modules/vae.py (vae2_1.py, vae2_2.py)'
WAN_DIFFUSERS = 'huggingface/diffusers: autoencoder_kl_wan.py, autoencoder_kl_qwenimage.py'
CONVERT = 'huggingface/diffusers: scripts/convert_cogview4_to_diffusers.py (its vae_config)'
COGVIEW = (128, 512, 1024, 1024)
TAESD = 'madebyollin/taesd: taesd.py; huggingface/diffusers: autoencoder_tiny.py, vae.py'


def vae_file(latent=4):
    return lambda small: {'': (vae_ldm(latent), {'format': 'pt'})}


def vae_folder(config, label=''):
    def make(small):
        return {'config.json': dict(VAE_CONFIG, **config),
                'diffusion_pytorch_model%s.safetensors' % label:
                vae_diffusers(config.get('latent_channels', 4), config.get('block_out_channels', VAE_WIDTHS))}
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


def wan_vae_file(latent, own, file=''):
    return lambda small: {file: wan_vae(latent, own)}


def wan_vae_folder(class_name, latent, **config):
    return lambda small: {'config.json': dict({'_class_name': class_name}, **config),
                          'diffusion_pytorch_model.safetensors': wan_vae(latent)}


def flux2_vae(small):
    net = vae_ldm(32, 'BF16')
    for name in ('running_mean', 'running_var'):
        net.add('bn.' + name, 128)
    net['bn.num_batches_tracked'] = ('I64', ())
    return net


def flux2_folder(small):
    net = vae_diffusers(32)
    net.add('bn.running_mean', 128)
    net.add('bn.running_var', 128)
    net['bn.num_batches_tracked'] = ('I64', ())
    return {'config.json': {'_class_name': 'AutoencoderKLFlux2', 'latent_channels': 32}, 'diffusion_pytorch_model.safetensors': net}


def tiny(latent):
    """The tiny autoencoder: convolutions with blocks of three between them."""
    net, c = Net(), 64

    def block(name):
        for i in (0, 2, 4):
            net.conv('%s.conv.%d' % (name, i), c, c)
    net.conv('encoder.layers.0', c, 3)
    at = 1
    for level, blocks in enumerate((1, 3, 3, 3)):
        if level:
            net.add('encoder.layers.%d.weight' % at, c, c, 3, 3)
            at += 1
        for _ in range(blocks):
            block('encoder.layers.%d' % at)
            at += 1
    net.conv('encoder.layers.%d' % at, latent, c)
    net.conv('decoder.layers.0', c, latent)
    at = 2
    for level, blocks in enumerate((3, 3, 3, 1)):
        for _ in range(blocks):
            block('decoder.layers.%d' % at)
            at += 1
        if level < 3:
            net.add('decoder.layers.%d.weight' % (at + 1), c, c, 3, 3)
            at += 2
    net.conv('decoder.layers.%d' % at, 3, c)
    return net


def tiny_folder(latent, **config):
    return lambda small: {'config.json': dict({'_class_name': 'AutoencoderTiny', 'latent_channels': latent}, **config),
                          'diffusion_pytorch_model.safetensors': tiny(latent)}


CASES.update({
    'vae-sd3': Case('sd3_vae.safetensors', vae_file(16), kind('vae', 'sd-3', 'checkpoint'), 'Stability-AI/sd3.5: sd3_impls.py (SDVAE)'),
    'vae-flux-diffusers': Case('flux-vae/', vae_folder({'scaling_factor': 0.3611, 'latent_channels': 16}),
                               kind('vae', 'flux', 'diffusers'), DIFFUSERS),
    'vae-sd3-diffusers': Case('some-vae/', vae_folder({'scaling_factor': 1.5305, 'latent_channels': 16}),
                              kind('vae', 'sd-3', 'diffusers'), DIFFUSERS),
    'vae-flux2': Case('flux2-vae.safetensors', lambda small: {'': flux2_vae(small)}, kind('vae', 'flux2', 'checkpoint'),
                      'black-forest-labs/flux2: autoencoder.py'),
    'vae-flux2-diffusers': Case('FLUX.2-vae/', flux2_folder, kind('vae', 'flux2', 'diffusers', latent_channels=None),
                                'huggingface/diffusers: autoencoder_kl_flux2.py'),
    'vae-wan-16': Case('wan_2.1_vae.safetensors', wan_vae_file(16, True), kind('vae', 'wan', 'checkpoint', latent_channels=16), WAN),
    'vae-wan-48': Case('some_video_vae.safetensors', wan_vae_file(48, True), kind('vae', 'wan', 'checkpoint', latent_channels=48), WAN),
    'vae-wan-16-diffusers-file': Case('wan_vae.safetensors', wan_vae_file(16, False),
                                      kind('vae', 'wan', 'checkpoint', latent_channels=16), WAN_DIFFUSERS),
    'vae-wan-48-diffusers-file': Case('video48.safetensors', wan_vae_file(48, False),
                                      kind('vae', 'wan', 'checkpoint', latent_channels=48), WAN_DIFFUSERS),
    'vae-qwen-image': Case('qwen_image_vae.safetensors', wan_vae_file(16, True),
                           kind('vae', 'qwen-image', 'checkpoint', latent_channels=None), WAN),
    'vae-qwen-image-diffusers-file': Case('qwen-image-vae-diffusers.safetensors', wan_vae_file(16, False),
                                          kind('vae', 'qwen-image', 'checkpoint'), WAN_DIFFUSERS),
    'vae-anima': Case('anima_vae.safetensors', wan_vae_file(16, True), kind('vae', 'anima', 'checkpoint'), WAN),
    'vae-wan-16-diffusers': Case('wan-vae/', wan_vae_folder('AutoencoderKLWan', 16, z_dim=16),
                                 kind('vae', 'wan', 'diffusers', latent_channels=16), WAN_DIFFUSERS),
    'vae-wan-48-diffusers': Case('wan22-vae/', wan_vae_folder('AutoencoderKLWan', 48, z_dim=48),
                                 kind('vae', 'wan', 'diffusers', latent_channels=48), WAN_DIFFUSERS),
    'vae-qwen-image-diffusers': Case('qwen-vae/', wan_vae_folder('AutoencoderKLQwenImage', 16, z_dim=16),
                                     kind('vae', 'qwen-image', 'diffusers', latent_channels=None), WAN_DIFFUSERS),
    'taesd-file': Case('taesd.safetensors', lambda small: {'': tiny(4)}, kind('vae', 'sd-1', 'checkpoint'), TAESD),
    'taesdxl-file': Case('taesdxl.safetensors', lambda small: {'': tiny(4)}, kind('vae', 'sdxl', 'checkpoint'), TAESD),
    'taef1-file': Case('taef1.safetensors', lambda small: {'': tiny(16)}, kind('vae', 'flux', 'checkpoint'), TAESD),
    'taesd3-file': Case('taesd3.safetensors', lambda small: {'': tiny(16)}, kind('vae', 'sd-3', 'checkpoint'), TAESD),
    'taef1': Case('taef1/', tiny_folder(16), kind('vae', 'flux', 'diffusers'), TAESD),
    'taesd3': Case('taesd3/', tiny_folder(16), kind('vae', 'sd-3', 'diffusers'), TAESD),
    'vae-cogview4': Case('imagekl_ch16.safetensors', lambda small: {'': vae_ldm(16, 'BF16', COGVIEW)}, kind('vae', 'cogview4', 'checkpoint'), CONVERT),
    'vae-cogview4-diffusers': Case('cogview4-vae/', vae_folder({'latent_channels': 16, 'scaling_factor': 1.0, 'block_out_channels': COGVIEW}),
                                   kind('vae', 'cogview4', 'diffusers'), CONVERT),
    'bad-tiny-16': Case('tiny/', tiny_folder(16), REFUSED, TAESD),
    'bad-tiny-16-file': Case('tiny16.safetensors', lambda small: {'': tiny(16)}, REFUSED, TAESD),
    'bad-video-vae': Case('vae16.safetensors', wan_vae_file(16, True), REFUSED, WAN),
    'bad-video-vae-diffusers': Case('video-vae.safetensors', wan_vae_file(16, False), REFUSED, WAN_DIFFUSERS),
})
