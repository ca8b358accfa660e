"""Wan 2.2 and what looks like it."""
from catalogue.case import Case, REFUSED, kind, one
from catalogue.pipelines import part, pipeline
from networks.wan import wan, wan_diffusers

WAN = 'Wan-Video/Wan2.2: wan/modules/model.py, wan/configs'
WAN21 = 'Wan-Video/Wan2.1: wan/modules/model.py, wan/configs'
COMFY = 'comfyanonymous/ComfyUI: model_detection.py, over ' + WAN
DIFFUSERS = 'huggingface/diffusers: transformer_wan.py, pipelines/wan'
A14B = {'width': 1024, 'height': 1024, 'steps': 40, 'cfg_scale': 4.0}
B5 = {'width': 1024, 'height': 1024, 'steps': 30, 'cfg_scale': 5.0}
MDM = 'model.diffusion_model.'


def main(format, variant, **more):
    return kind('main', 'wan', format, variant=variant, **more)


def folder(class_name, size, channels, z_dim, dual, ratio=None, **config):
    def more(small):
        files = {'vae/config.json': {'_class_name': 'AutoencoderKLWan', 'z_dim': z_dim}}
        if dual:
            files.update(part('', 'transformer_2', 'WanTransformer3DModel', {'in_channels': channels}, wan_diffusers(size, small)))
        return files
    index = {'boundary_ratio': ratio}
    if dual:
        index['transformer_2'] = ['diffusers', 'WanTransformer3DModel']
    return pipeline(class_name, lambda small: wan_diffusers(size, small), dict({'in_channels': channels}, **config),
                    {'text_encoder': 'UMT5EncoderModel', 'tokenizer': 'T5TokenizerFast', 'vae': 'AutoencoderKLWan'},
                    index=index, extra=more, transformer_class='WanTransformer3DModel')


def with_marker(name, *shape, size='t2v_a14b'):
    def make(small):
        net = wan(size, small)
        net.add(name, *shape)
        return {'': net}
    return make


CASES = {
    'wan-t2v-high': Case('Wan2_2-T2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ.safetensors', one(wan, 't2v_a14b'),
                         main('checkpoint', 't2v_a14b', expert='high', default_settings=A14B), WAN),
    'wan-t2v-low': Case('wan2.2_t2v_low_noise_14B_fp16.safetensors', one(wan, 't2v_a14b', prefix=MDM),
                        main('checkpoint', 't2v_a14b', expert='low'), COMFY),
    'wan-t2v-no-expert': Case('Wan2.2-A14B-merge.safetensors', one(wan, 't2v_a14b'), main('checkpoint', 't2v_a14b', expert='none'), WAN),
    'wan-t2v-by-metadata': Case('renamed.safetensors', one(wan, 't2v_a14b', metadata={'model_type': 'Wan22-T2V-A14B-low'}),
                                main('checkpoint', 't2v_a14b', expert='low'), WAN),
    'wan-i2v-high': Case('wan2.2_i2v_high_noise_14B_fp16.safetensors', one(wan, 'i2v_a14b'), main('checkpoint', 'i2v_a14b', expert='high'), WAN),
    'wan-i2v-low': Case('x_low_noise.safetensors', one(wan_diffusers, 'i2v_a14b'), main('checkpoint', 'i2v_a14b', expert='low'), DIFFUSERS),
    'wan-5b': Case('wan2.2_ti2v_5B_fp16.safetensors', one(wan, 'ti2v_5b'),
                   main('checkpoint', 'ti2v_5b', expert='none', default_settings=B5), WAN),
    'wan-5b-low': Case('x_low.safetensors', one(wan, 'ti2v_5b'), main('checkpoint', 'ti2v_5b', expert='none'), WAN),
    'wan-t2v-diffusers': Case('Wan2.2-T2V-A14B-Diffusers/', folder('WanPipeline', 't2v_a14b', 16, 16, True, 0.875),
                              main('diffusers', 't2v_a14b', has_dual_expert=True, boundary_ratio=0.875, default_settings=A14B), DIFFUSERS),
    'wan-i2v-diffusers': Case('Wan2.2-I2V-A14B-Diffusers/', folder('WanImageToVideoPipeline', 'i2v_a14b', 36, 16, True, 0.9),
                              main('diffusers', 'i2v_a14b', has_dual_expert=True, boundary_ratio=0.9), DIFFUSERS),
    'wan-5b-diffusers': Case('Wan2.2-TI2V-5B-Diffusers/', folder('WanPipeline', 'ti2v_5b', 48, 48, False),
                             main('diffusers', 'ti2v_5b', has_dual_expert=False, boundary_ratio=None, default_settings=B5), DIFFUSERS),
    # what is not Wan 2.2, or cannot be told from 2.1
    'bad-wan-21-or-22': Case('t2v-14b.safetensors', one(wan, 't2v_a14b'), REFUSED, WAN21),
    'bad-wan21': Case('wan2.1_t2v_14B_fp16.safetensors', one(wan, 't2v_a14b'), REFUSED, WAN21),
    'bad-wan21-1.3b': Case('wan_t2v_1.3B_fp16.safetensors', one(wan, 't2v_1.3b'), REFUSED, WAN21),
    'bad-wan21-i2v': Case('i2v_480p_14B_fp16.safetensors', one(wan, 'i2v_a14b', image=True), REFUSED, WAN21),
    'bad-wan21-diffusers': Case('Wan2.1-T2V-14B-Diffusers/', folder('WanPipeline', 't2v_a14b', 16, 16, False), REFUSED, DIFFUSERS),
    'bad-wan-vace': Case('wan2.2_vace_high_noise.safetensors', with_marker('vace_blocks.0.before_proj.weight', 5120, 5120), REFUSED,
                         'ali-vilab/VACE: vace/models/wan/modules/model.py'),
    'bad-wan-animate': Case('Wan2.2-Animate-14B.safetensors', with_marker('motion_encoder.dec.direction.weight', 512, 20, size='i2v_a14b'),
                            REFUSED, 'Wan-Video/Wan2.2: wan/modules/animate/model_animate.py'),
    'bad-wan-s2v': Case('wan2.2_s2v_14B.safetensors', with_marker('casual_audio_encoder.weights', 1, 25, 1, 1), REFUSED,
                        'Wan-Video/Wan2.2: wan/modules/s2v/model_s2v.py'),
    'bad-wan-camera': Case('wan2.2_fun_camera_high_noise.safetensors', with_marker('control_adapter.conv.weight', 5120, 24, 2, 2), REFUSED,
                           'aigc-apps/VideoX-Fun: videox_fun/models/wan_transformer3d.py'),
}
