"""Stable Diffusion as ONNX graphs."""
from catalogue.case import Case, REFUSED, kind
from networks.containers import Onnx

ONNX = 'huggingface/diffusers: scripts/convert_stable_diffusion_checkpoint_to_onnx.py, pipeline_onnx_stable_diffusion.py'
OPTIMUM = 'huggingface/optimum-onnx: exporters/onnx/model_configs.py (UNetOnnxConfig), onnxruntime/modeling_diffusion.py'
OLIVE = 'microsoft/Olive: examples/stable_diffusion, olive/model/handler (model_config.json)'
WIDTHS = {'sd-1': 768, 'sd-2': 1024, 'sdxl': 2048, 'sdxl-refiner': 1280}
INTO = {'normal': 4, 'inpaint': 9, 'depth': 5}


def graphs(width, into, class_name='OnnxStableDiffusionPipeline', configs=False, text=True, prediction=None, files=None):
    def make(small):
        unet = {'sample': ('batch', into, 'height', 'width'), 'timestep': ('batch',),
                'encoder_hidden_states': ('batch', 'sequence', width if text else 'width')}
        made = {'model_index.json': {'_class_name': class_name, 'unet': ['diffusers', 'OnnxRuntimeModel'],
                                     'scheduler': ['diffusers', 'PNDMScheduler']},
                'unet/model.onnx': Onnx(unet, {'out_sample': ('batch', 4, 'height', 'width')}),
                'vae_decoder/model.onnx': Onnx({'latent_sample': ('batch', 4, 'height', 'width')},
                                               {'sample': ('batch', 3, 'height', 'width')}),
                'text_encoder/model.onnx': Onnx({'input_ids': ('batch', 'sequence')},
                                                {'last_hidden_state': ('batch', 'sequence', width)}),
                'scheduler/scheduler_config.json': {'_class_name': 'PNDMScheduler'}}
        if prediction:
            made['scheduler/scheduler_config.json']['prediction_type'] = prediction
        if configs:
            made['unet/config.json'] = {'_class_name': 'UNet2DConditionModel', 'cross_attention_dim': width, 'in_channels': into}
        made.update(files or {})
        return made
    return make


def onnx(base, variant, format='onnx', prediction='epsilon', **more):
    return kind('onnx', base, format, variant=variant, prediction_type=prediction, **more)


CASES = {
    'onnx-v': Case('stable-diffusion-2-1-onnx/', graphs(1024, 4, prediction='v_prediction'),
                   onnx('sd-2', 'normal', prediction='v_prediction'), ONNX),
    'onnx-by-config': Case('sd15-onnx-config/', graphs(768, 4, 'ORTStableDiffusionPipeline', True, text=False), onnx('sd-1', 'normal'), OPTIMUM),
    'bad-onnx-width': Case('sd-onnx-unnamed/', graphs(768, 4, text=False), REFUSED, ONNX),
    'bad-onnx-graph': Case('unet.onnx', lambda small: {'': graphs(768, 4)(small)['unet/model.onnx']}, REFUSED, ONNX),
}

for base, variants in (('sd-1', ('normal', 'inpaint')), ('sd-2', ('normal', 'inpaint', 'depth')), ('sdxl', ('normal', 'inpaint')),
                       ('sdxl-refiner', ('normal', 'inpaint'))):
    for variant in variants:
        CASES['onnx-%s-%s' % (base, variant)] = Case('%s-%s-onnx/' % (base, variant), graphs(WIDTHS[base], INTO[variant]),
                                                     onnx(base, variant, repo_variant='onnx'), ONNX)
        CASES['olive-%s-%s' % (base, variant)] = Case(
            '%s-%s-olive/' % (base, variant), graphs(WIDTHS[base], INTO[variant],
            files={'unet/model_config.json': {'type': 'ONNXModel', 'config': {'model_path': 'model.onnx'}}}),
            onnx(base, variant, 'olive'), OLIVE)
