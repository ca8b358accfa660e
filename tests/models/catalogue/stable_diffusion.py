"""Stable Diffusion 1.x, 2.x, SDXL and its refiner: single files and diffusers folders."""
from catalogue.case import Case
from networks.clip import clip, open_clip
from networks.latent_diffusion import VAE_CONFIG, unet, vae_diffusers, vae_ldm
from networks.lora import kohya, unet_modules
from networks.net import Net
from writers import Scalar

LDM = 'CompVis/stable-diffusion, Stability-AI/stablediffusion and generative-models: openaimodel.py, model.py (autoencoder)'
DIFFUSERS = 'huggingface/diffusers: unet_2d_condition.py, pipelines/stable_diffusion; the published model_index.json'


def checkpoint(base, variant='normal', step=None, extra=None):
    def make(small):
        net = Net().include('model.diffusion_model.', unet(base, variant, small).ldm())
        net.include('first_stage_model.', vae_ldm())
        if base == 'sd-1':
            net.include('cond_stage_model.transformer.', clip(small=small))
        elif base == 'sd-2':
            net.include('cond_stage_model.model.', open_clip(small=small))
        elif base == 'sdxl':
            net.include('conditioner.embedders.0.transformer.', clip(small=small))
            net.include('conditioner.embedders.1.model.', open_clip(1280, 32, small))
        else:
            net.include('conditioner.embedders.0.model.', open_clip(1280, 32, small))
        if base in ('sd-1', 'sd-2'):
            for name in ('betas', 'alphas_cumprod', 'sqrt_alphas_cumprod'):
                net[name] = ('F32', (1000,))
            net['model_ema.decay'] = ('F32', ())
        if step:
            net['global_step'] = Scalar(step)
        if extra:
            extra(net)
        return {'': (net, {'format': 'pt'})}
    return make


SCHEDULER = {'_class_name': 'PNDMScheduler', 'num_train_timesteps': 1000, 'beta_start': 0.00085,
             'beta_end': 0.012, 'beta_schedule': 'scaled_linear'}


def pipeline(base, variant='normal', prediction='epsilon', label='', name=None):
    """A diffusers folder. label is put before .safetensors: '.fp16'."""
    def make(small):
        shape = unet(base, variant, small)
        xl = base.startswith('sdxl')
        index = {'_class_name': name, '_diffusers_version': '0.21.0',
                 'scheduler': ['diffusers', 'PNDMScheduler'], 'unet': ['diffusers', 'UNet2DConditionModel'],
                 'vae': ['diffusers', 'AutoencoderKL']}
        files = {'model_index.json': index,
                 'scheduler/scheduler_config.json': dict(SCHEDULER, prediction_type=prediction),
                 'unet/config.json': shape.config(),
                 'unet/diffusion_pytorch_model%s.safetensors' % label: shape.diffusers(),
                 'vae/config.json': dict(VAE_CONFIG, scaling_factor=0.13025 if xl else 0.18215,
                                         sample_size=1024 if xl else 512),
                 'vae/diffusion_pytorch_model%s.safetensors' % label: vae_diffusers()}
        encoders = {'sd-1': {'': (768, 12)}, 'sd-2': {'': (1024, 23)}, 'sdxl': {'': (768, 12), '_2': (1280, 32)},
                    'sdxl-refiner': {'_2': (1280, 32)}}[base]
        for tail, (width, layers) in encoders.items():
            kind = 'CLIPTextModelWithProjection' if tail else 'CLIPTextModel'
            index['text_encoder' + tail] = ['transformers', kind]
            index['tokenizer' + tail] = ['transformers', 'CLIPTokenizer']
            files['text_encoder%s/config.json' % tail] = {
                'architectures': [kind], 'model_type': 'clip_text_model', 'hidden_size': width,
                'num_hidden_layers': layers}
            files['text_encoder%s/model%s.safetensors' % (tail, label)] = clip(width, layers, small, bool(tail))
            files['tokenizer%s/tokenizer_config.json' % tail] = {'tokenizer_class': 'CLIPTokenizer'}
            files['tokenizer%s/vocab.json' % tail] = {'<|startoftext|>': 0, '<|endoftext|>': 1}
            files['tokenizer%s/merges.txt' % tail] = b'#version: 0.2\n'
        if base == 'sdxl-refiner':
            index['text_encoder'] = index['tokenizer'] = [None, None]
        return files
    return make



def merged_lora(net):
    kohya(net, 'lora_unet_', unet_modules('sd-1', True))


def main(base, format, variant='normal', prediction='epsilon', **more):
    return dict({'type': 'main', 'base': base, 'format': format, 'variant': variant,
                 'prediction_type': prediction}, **more)


SD, SD_INPAINT = 'StableDiffusionPipeline', 'StableDiffusionInpaintPipeline'
XL, XL_INPAINT, XL_IMAGE = ('StableDiffusionXLPipeline', 'StableDiffusionXLInpaintPipeline',
                            'StableDiffusionXLImg2ImgPipeline')

CASES = {
    'sd-1': Case('sd-1.safetensors', checkpoint('sd-1'), main('sd-1', 'checkpoint'), LDM),
    'sd-1-inpaint': Case('sd-1-inpaint.safetensors', checkpoint('sd-1', 'inpaint'),
                         main('sd-1', 'checkpoint', 'inpaint'), LDM),
    'sd-1-merged-lora': Case('sd-1-merged.safetensors', checkpoint('sd-1', extra=merged_lora),
                             main('sd-1', 'checkpoint'), LDM),
    'sd-2': Case('sd-2.safetensors', checkpoint('sd-2'), main('sd-2', 'checkpoint', prediction='v_prediction'), LDM),
    'sd-2-v': Case('sd-2-v.safetensors', checkpoint('sd-2', step=110000),
                   main('sd-2', 'checkpoint', prediction='v_prediction'), LDM),
    'sd-2-eps': Case('sd-2-eps.safetensors', checkpoint('sd-2', step=220000), main('sd-2', 'checkpoint'), LDM),
    'sd-2-inpaint': Case('sd-2-inpaint.safetensors', checkpoint('sd-2', 'inpaint', 220000),
                         main('sd-2', 'checkpoint', 'inpaint'), LDM),
    'sd-2-depth': Case('sd-2-depth.safetensors', checkpoint('sd-2', 'depth', 220000),
                       main('sd-2', 'checkpoint', 'depth'), LDM),
    'sdxl': Case('sdxl.safetensors', checkpoint('sdxl'), main('sdxl', 'checkpoint'), LDM),
    'sdxl-inpaint': Case('sdxl-inpaint.safetensors', checkpoint('sdxl', 'inpaint'),
                         main('sdxl', 'checkpoint', 'inpaint'), LDM),
    'sdxl-refiner': Case('sdxl-refiner.safetensors', checkpoint('sdxl-refiner'),
                         main('sdxl-refiner', 'checkpoint'), LDM),
    'sd-1-diffusers': Case('sd-1-diffusers/', pipeline('sd-1', name=SD),
                           main('sd-1', 'diffusers', repo_variant='', upcast_attention=False), DIFFUSERS),
    'sd-1-inpaint-diffusers': Case('dreamshaper-8-inpainting/',
                                   pipeline('sd-1', 'inpaint', label='.fp16', name=SD_INPAINT),
                                   main('sd-1', 'diffusers', 'inpaint', repo_variant='fp16'), DIFFUSERS),
    'lcm-diffusers': Case('lcm-dreamshaper/', pipeline('sd-1', name='LatentConsistencyModelPipeline'),
                          main('sd-1', 'diffusers'), DIFFUSERS),
    'sd-2-diffusers': Case('sd-2-diffusers/', pipeline('sd-2', prediction='v_prediction', name=SD),
                           main('sd-2', 'diffusers', prediction='v_prediction', upcast_attention=True), DIFFUSERS),
    'sd-2-eps-diffusers': Case('sd-2-base-diffusers/', pipeline('sd-2', name=SD),
                               main('sd-2', 'diffusers', upcast_attention=False), DIFFUSERS),
    'sd-2-depth-diffusers': Case('sd-2-depth-diffusers/', pipeline('sd-2', 'depth', name=SD),
                                 main('sd-2', 'diffusers', 'depth'), DIFFUSERS),
    'sdxl-diffusers': Case('sdxl-diffusers/', pipeline('sdxl', name=XL),
                           main('sdxl', 'diffusers', repo_variant=''), DIFFUSERS),
    'sdxl-turbo': Case('sdxl-turbo/', pipeline('sdxl', label='.fp16', name=XL),
                       main('sdxl', 'diffusers', repo_variant='fp16'), DIFFUSERS),
    'sdxl-inpaint-diffusers': Case('sdxl-inpaint-diffusers/', pipeline('sdxl', 'inpaint', name=XL_INPAINT),
                                   main('sdxl', 'diffusers', 'inpaint'), DIFFUSERS),
    'sdxl-refiner-diffusers': Case('sdxl-refiner-diffusers/', pipeline('sdxl-refiner', name=XL_IMAGE),
                                   main('sdxl-refiner', 'diffusers'), DIFFUSERS),
}

CASES.update({
    'sdxl-refiner-inpaint': Case('sdxl-refiner-inpaint.safetensors', checkpoint('sdxl-refiner', 'inpaint'),
                                 main('sdxl-refiner', 'checkpoint', 'inpaint'), LDM),
    'sd-2-inpaint-diffusers': Case('stable-diffusion-2-inpainting/', pipeline('sd-2', 'inpaint', name=SD_INPAINT),
                                   main('sd-2', 'diffusers', 'inpaint'), DIFFUSERS),
    'sdxl-refiner-inpaint-diffusers': Case('sdxl-refiner-inpaint-diffusers/', pipeline('sdxl-refiner', 'inpaint', name=XL_INPAINT),
                                           main('sdxl-refiner', 'diffusers', 'inpaint'), DIFFUSERS),
})
