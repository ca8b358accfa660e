"""Small key sets that the original code was run on: what tells and nothing else. Where it is wrong, what is right."""
from catalogue.case import Case, REFUSED, kind
from networks.net import Net
from networks.containers import Gguf

RUN = 'invoke-ai/InvokeAI 4.2.9 and its newest: run on these key sets'
MDM = 'model.diffusion_model.'
FLUX = 'double_blocks.0.img_attn.norm.key_norm.scale 128; img_in.weight 3072,%d'
WAN = 'patch_embedding.weight %d,%d,1,2,2; text_embedding.0.weight %d,4096; blocks.0.self_attn.q.weight %d,%d'
QWEN = 'txt_in.weight 3072,3584; txt_norm.weight 3584; img_in.weight 3072,64'
VAE5 = 'decoder.conv_in.weight 512,%d,3,3,3; decoder.mid_block.x 1'
LM = 'model.layers.0.x 4; model.embed_tokens.weight %d,%d'


def keys(spec):
    """A file of "name shape; name shape"."""
    def make(small):
        net = Net('F32')
        for entry in spec.split(';'):
            name, shape = entry.split()
            net.add(name, *(int(dim) for dim in shape.split(',')))
        return {'': net}
    return make


def as_gguf(spec, architecture='flux', **metadata):
    def make(small):
        net = Net('F32')
        for name, (dtype, shape) in keys(spec)(small)[''].items():
            net[name] = (dtype, shape)
        return {'': Gguf(net, dict({'general.architecture': architecture}, **metadata))}
    return make


def wan(dim, channels):
    return WAN % (dim, channels, dim, dim, dim)


def main(base, variant=None, format='checkpoint', **more):
    return kind('main', base, format, variant=variant, **more)


ROWS = [
    # file, keys, what it is
    ('v-flux.safetensors', keys(FLUX % 64), main('flux', 'schnell')),
    ('v-flux-guided.safetensors', keys(FLUX % 64 + '; guidance_in.out_layer.weight 3072,3072'), main('flux', 'dev')),
    ('v-flux-fill.safetensors', keys(FLUX % 384 + '; guidance_in.out_layer.weight 3072,3072'), main('flux', 'dev_fill')),
    ('v-flux-no-image.safetensors', keys('double_blocks.0.img_attn.norm.key_norm.scale 128'), REFUSED),
    ('v-flux.gguf', as_gguf(FLUX % 64), main('flux', 'schnell', 'gguf_quantized')),
    ('v-flux2.safetensors', keys(FLUX % 128 + '; txt_in.weight 3072,7680'), main('flux2', 'klein_4b')),
    ('v-flux2-base.safetensors', keys(FLUX % 128 + '; txt_in.weight 3072,7680'), main('flux2', 'klein_4b_base')),
    ('v-flux2-9b.safetensors', keys(FLUX % 128 + '; txt_in.weight 4096,12288'), main('flux2', 'klein_9b')),
    ('v-flux2-dev.safetensors', keys(FLUX % 128 + '; txt_in.weight 6144,15360'), main('flux2', 'dev')),
    ('v-flux2-odd.safetensors', keys(FLUX % 128 + '; txt_in.weight 6144,9000'), REFUSED),  # the original guesses Klein 4B
    ('v-flux2-sdnq.safetensors', keys('transformer_blocks.0.ff.linear_in.weight 18432,3072; transformer_blocks.0.ff.linear_in.scale 18432,1;'
                                      'context_embedder.weight 3072,7680'), main('flux2', 'klein_4b', 'sdnq_quantized')),
    ('v-z-image.safetensors', keys(MDM + 'cap_embedder.0.weight 2560'), main('z-image', 'turbo')),
    ('v-lumina.safetensors', keys(MDM + 'cap_embedder.0.weight 2304'), REFUSED),  # the original takes it for Z-Image
    ('v-Krea-2-Raw.safetensors', keys('text_fusion.projector.weight 1,12; img_in.weight 6144,64'), main('krea-2', 'krea2_base')),
    ('v-baseline-turbo.safetensors', keys('text_fusion.projector.weight 1,12; img_in.weight 6144,64'), main('krea-2', 'krea2_turbo')),
    ('v-qwen_image.safetensors', keys(QWEN), main('qwen-image', 'generate')),
    ('v-qwen_image_edit_2509.safetensors', keys(QWEN), main('qwen-image', 'edit')),
    ('v-qwen-unedited.safetensors', keys(QWEN), main('qwen-image', 'generate')),
    ('v-anima.safetensors', keys('net.llm_adapter.x 4; net.blocks.0.x 4'), main('anima')),
    ('v-wan-HIGH_fp8.safetensors', keys(wan(5120, 16)), main('wan', 't2v_a14b', expert='high')),
    ('v_x_low_noise.safetensors', keys(wan(5120, 36)), main('wan', 'i2v_a14b', expert='low')),
    ('v_x_low.safetensors', keys(wan(3072, 48)), main('wan', 'ti2v_5b', expert='none')),
    ('v_small.safetensors', keys(wan(1536, 16)), REFUSED),
    ('v-x.gguf', as_gguf(wan(5120, 16), 'wan'), REFUSED),
    ('v-Wan2.2-T2V-A14B-LowNoise-Q4.gguf', as_gguf(wan(5120, 16), 'wan'), main('wan', 't2v_a14b', 'gguf_quantized', expert='low')),
    ('v-flux_vae.safetensors', keys('decoder.conv_in.weight 512,16,3,3'), kind('vae', 'flux', 'checkpoint')),
    ('v-vae-32.safetensors', keys('decoder.conv_in.weight 512,32,3,3'), kind('vae', 'flux2', 'checkpoint')),
    ('v-qwen_image_vae.safetensors', keys(VAE5 % 16), kind('vae', 'qwen-image', 'checkpoint')),
    ('v-wan_vae.safetensors', keys(VAE5 % 16), kind('vae', 'wan', 'checkpoint', latent_channels=16)),
    ('v-vae48.safetensors', keys(VAE5 % 48), kind('vae', 'wan', 'checkpoint', latent_channels=48)),
    ('v-video-16.safetensors', keys(VAE5 % 16), REFUSED),  # one of three: the original takes it for Qwen-Image's
    ('v-t5.gguf', as_gguf('enc.blk.0.x 32; token_embd.weight 32128,4096', 't5encoder'), kind('t5_encoder', 'any', 'gguf_quantized')),
    ('v-qwen3.safetensors', keys(LM % (151936, 2560)), kind('qwen3_encoder', 'any', 'checkpoint', variant='qwen3_4b')),
    ('v-qwen3-8b.gguf', as_gguf('blk.0.x 32; token_embd.weight 151936,4096', 'qwen3'),
     kind('qwen3_encoder', 'any', 'gguf_quantized', variant='qwen3_8b')),
    ('v-llama.safetensors', keys(LM % (128256, 4096)), REFUSED),  # the original takes it for Qwen3 8B
    ('v-5120.safetensors', keys(LM % (32000, 5120)), REFUSED),
    ('v-gemma.safetensors', keys(LM % (151936, 2560) + '; model.layers.0.post_ffw_norm.weight 2560'), REFUSED),
    ('v-qwen3-sdnq.safetensors', keys(LM % (151936, 2560) + '; model.layers.0.self_attn.q_proj.weight 4096,2560;'
                                      'model.layers.0.self_attn.q_proj.scale 4096,1; model.layers.0.self_attn.q_norm.weight 128'),
     kind('qwen3_encoder', 'any', 'sdnq_quantized', variant='qwen3_4b')),
    ('v-qwen-vl.safetensors', keys(LM % (152064, 3584) + '; visual.blocks.0.x 4'), kind('qwen_vl_encoder', 'any', 'checkpoint')),
    ('v-qwen3-vl.safetensors', keys(LM % (151936, 2560) + '; model.layers.35.x 4; visual.blocks.0.x 4'),
     kind('qwen3_vl_encoder', 'any', 'checkpoint')),
    ('v-mistral.safetensors', keys(LM % (131072, 5120) + '; model.layers.29.x 4'),
     kind('mistral_encoder', 'any', 'checkpoint', variant='cow_mistral3_small')),
    ('v-mistral-31.safetensors', keys(LM % (131072, 5120) + '; model.layers.30.x 4'), REFUSED),
]
CASES = {'vector-' + file.rsplit('.', 1)[0]: Case(file, make, expected, RUN) for file, make, expected in ROWS}
