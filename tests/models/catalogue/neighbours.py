"""Models lade has no family for and that look like some it has: they are refused, not taken for those."""
from catalogue.case import Case, REFUSED, one
from networks.flux import flux, query_key_norms
from networks.latent_diffusion import unet, vae_ldm
from networks.net import Net
from networks.wan import conv3

SVD = 'Stability-AI/generative-models: video_model.py, configs/inference/svd.yaml'


def stable(base, into, extra=None, prefix='model.diffusion_model.'):
    """Stable Diffusion's U-Net with other channels in."""
    def make(small):
        shape = unet(base, 'normal', small)
        shape.into = into
        net = shape.ldm()
        if extra:
            extra(net)
        return {'': Net().include(prefix, net)}
    return make


def temporal(net):
    for block in (1, 2, 4, 5):
        net.add('input_blocks.%d.1.time_stack.0.attn2.to_k.weight' % block, 320, 1024)
        net.add('input_blocks.%d.1.time_mixer.mix_factor' % block, 1)


def hunyuan_video(small=False):
    net, h = Net('BF16'), 3072
    net.add('img_in.proj.weight', h, 16, 1, 2, 2)
    net.add('img_in.proj.bias', h)
    net.linear('txt_in.input_embedder', h, 4096)
    for i in range(2):
        block = 'txt_in.individual_token_refiner.blocks.%d' % i
        net.linear(block + '.self_attn_qkv', 3 * h, h)
        net.linear(block + '.mlp.fc1', 4 * h, h)
    for name, into in (('time_in', 256), ('vector_in', 768), ('guidance_in', 256)):
        net.linear(name + '.in_layer', h, into)
        net.linear(name + '.out_layer', h, h)
    for i in range(2 if small else 20):
        for side in ('img', 'txt'):
            block = 'double_blocks.%d.%s' % (i, side)
            net.linear(block + '_attn.qkv', 3 * h, h)
            query_key_norms(net, block + '_attn.norm')
            net.linear(block + '_mlp.0', 4 * h, h)
    net.linear('final_layer.linear', 64, h)
    return net


def hidream(small=False):
    net, h = Net('BF16'), 2560
    net.linear('x_embedder.proj', h, 64)
    for i in range(2 if small else 16):
        block = 'double_stream_blocks.%d.block' % i
        for part in ('to_q', 'to_k', 'to_v', 'to_out', 'to_q_t', 'to_k_t', 'to_v_t', 'to_out_t'):
            net.linear('%s.attn1.%s' % (block, part), h, h)
        net.linear(block + '.ff_i.gate', 4, h, False)
    net.linear('caption_projection.0.linear', h, 4096, False)
    net.linear('final_layer.linear', 64, h)
    return net


def pixart(small=False):
    net, h = Net(), 1152
    net.conv('x_embedder.proj', h, 4, 2)
    net.linear('t_embedder.mlp.0', h, 256)
    net.linear('y_embedder.y_proj.fc1', h, 4096)
    for i in range(2 if small else 28):
        net.linear('blocks.%d.attn.qkv' % i, 3 * h, h)
        net.linear('blocks.%d.cross_attn.q_linear' % i, h, h)
        net.linear('blocks.%d.cross_attn.kv_linear' % i, 2 * h, h)
        net.add('blocks.%d.scale_shift_table' % i, 6, h)
    net.linear('final_layer.linear', 32, h)
    return net


def aura_flow(small=False):
    net, h = Net(), 3072
    net.linear('init_x_linear', h, 16)
    net.linear('cond_seq_linear', h, 2048, False)
    for i in range(4):
        for part in ('w1q', 'w1k', 'w1v', 'w1o', 'w2q', 'w2k', 'w2v', 'w2o'):
            net.linear('double_layers.%d.attn.%s' % (i, part), h, h, False)
    net.linear('final_linear', 16, h, False)
    return net


def ltx(small=False):
    net, h = Net('BF16'), 2048
    net.linear('patchify_proj', h, 128)
    net.linear('caption_projection.linear_1', h, 4096)
    for i in range(2 if small else 28):
        for attention in ('attn1', 'attn2'):
            for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
                net.linear('transformer_blocks.%d.%s.%s' % (i, attention, part), h, h)
        net.add('transformer_blocks.%d.scale_shift_table' % i, 6, h)
    net.linear('proj_out', 128, h)
    return net


def mochi(small=False):
    net, h = Net('BF16'), 3072
    net.conv('x_embedder.proj', h, 12, 2)
    net.linear('t5_yproj', 1536, 4096)
    for i in range(2 if small else 48):
        net.linear('blocks.%d.attn.qkv_x' % i, 3 * h, h, False)
        net.linear('blocks.%d.attn.qkv_y' % i, 3 * h, 1536, False)
        net.linear('blocks.%d.mlp_x.w1' % i, 16384, h, False)
    net.linear('final_layer.linear', 48, h)
    return net


def cascade(small=False):
    net, h = Net('BF16'), 2048
    net.linear('clip_img_mapper', h * 4, 768)
    net.linear('clip_txt_mapper', h, 1280)
    net.linear('clip_txt_pooled_mapper', h * 4, 1280)
    for i in range(4):
        net.conv('down_blocks.0.%d.depthwise' % i, h, 1)
    return net


def cogvideox_vae(small=False):
    net = Net()
    conv3(net, 'encoder.conv_in.conv', 128, 3)
    conv3(net, 'decoder.conv_in.conv', 512, 16)
    conv3(net, 'decoder.mid_block.resnets.0.norm1.conv_y.conv', 512, 16, 1, 1, 1)
    return net


def hunyuan_vae(small=False):
    net = Net()
    conv3(net, 'encoder.conv_in.conv', 128, 3)
    conv3(net, 'decoder.conv_in.conv', 512, 16)
    conv3(net, 'decoder.mid_block.resnets.0.conv1.conv', 512, 512)
    return net


def deep_compression(latent):
    def make(small):
        net = Net()
        net.conv('encoder.conv_in', 128, 3)
        net.conv('encoder.conv_out', latent, 1024)
        net.conv('decoder.conv_in', 1024, latent)
        net.conv('decoder.conv_out', 3, 128)
        return {'': net}
    return make


def vector_quantised(small=False):
    net = vae_ldm(4)
    net.add('quantize.embedding.weight', 16384, 4)
    return net


def magvit(small=False):
    net = Net()
    conv3(net, 'encoder.conv_in', 128, 3)
    conv3(net, 'decoder.conv_in', 512, 16)
    conv3(net, 'decoder.mid_block.convs.0.conv1', 512, 512)
    net.norm('decoder.conv_norm_out', 128)
    return net


def omni_gen(small=False):
    net, h = Net('BF16'), 3072
    net.conv('x_embedder.proj', h, 4, 2)
    net.conv('input_x_embedder.proj', h, 4, 2)
    net.add('llm.embed_tokens.weight', 32064, h)
    for i in range(2 if small else 32):
        net.linear('llm.layers.%d.self_attn.qkv_proj' % i, 3 * h, h, False)
    return net


def folder(class_name, **files):
    return lambda small: dict({'model_index.json': {'_class_name': class_name}, 'unet/config.json': {'cross_attention_dim': 768, 'in_channels': 4}},
                              **files)


CASES = {
    'bad-svd': Case('svd_xt.safetensors', stable('sd-2', 8, temporal), REFUSED, SVD),
    'bad-instruct-pix2pix': Case('instruct-pix2pix.safetensors', stable('sd-1', 8), REFUSED, 'timothybrooks/instruct-pix2pix: configs/generate.yaml'),
    'bad-x4-upscaler': Case('x4-upscaler-ema.safetensors', stable('sd-2', 7), REFUSED,
                            'Stability-AI/stablediffusion: configs/stable-diffusion/x4-upscaling.yaml'),
    'bad-unet-alone': Case('sd15-unet-only.safetensors', stable('sd-1', 4, prefix=''), REFUSED, 'CompVis/stable-diffusion: openaimodel.py'),
    'bad-hunyuan-video': Case('hunyuan_video_720.safetensors', one(hunyuan_video), REFUSED, 'Tencent-Hunyuan/HunyuanVideo: hyvideo/modules/models.py'),
    'bad-hidream': Case('hidream_i1_dev.safetensors', one(hidream), REFUSED, 'HiDream-ai/HiDream-I1: transformer_hidream_image.py'),
    'bad-pixart': Case('PixArt-XL-2.safetensors', one(pixart), REFUSED, 'PixArt-alpha/PixArt-sigma: diffusion/model/nets/PixArt.py'),
    'bad-aura-flow': Case('aura_flow_0.3.safetensors', one(aura_flow), REFUSED, 'cloneofsimo/lavenderflow: mmdit (names)'),
    'bad-ltx': Case('ltxv-2b.safetensors', one(ltx, prefix='model.diffusion_model.'), REFUSED, 'Lightricks/LTX-Video: transformer3d.py'),
    'bad-mochi': Case('mochi_preview.safetensors', one(mochi), REFUSED, 'genmoai/mochi: asymm_models_joint.py'),
    'bad-cascade': Case('stage_c.safetensors', one(cascade), REFUSED, 'Stability-AI/StableCascade: modules/stage_c.py'),
    'bad-omnigen': Case('omnigen.safetensors', one(omni_gen), REFUSED, 'VectorSpaceLab/OmniGen: model.py'),
    'bad-flux-odd-channels': Case('flex2.safetensors', one(flux, channels=196), REFUSED, 'ostris/Flex.2-preview: its config.json'),
    'bad-cogvideox-vae': Case('cogvideox_vae.safetensors', one(cogvideox_vae), REFUSED, 'huggingface/diffusers: autoencoder_kl_cogvideox.py'),
    'bad-hunyuan-vae': Case('hunyuan_video_vae.safetensors', one(hunyuan_vae), REFUSED, 'huggingface/diffusers: autoencoder_kl_hunyuan_video.py'),
    'bad-dc-ae-32': Case('dc-ae-f32c32.safetensors', deep_compression(32), REFUSED, 'mit-han-lab/efficientvit: models/efficientvit/dc_ae.py'),
    'bad-dc-ae-128': Case('dc-ae-f64c128.safetensors', deep_compression(128), REFUSED, 'mit-han-lab/efficientvit: models/efficientvit/dc_ae.py'),
    'bad-vq-model': Case('vq-f8-vae.safetensors', one(vector_quantised), REFUSED, 'CompVis/latent-diffusion: ldm/models/autoencoder.py (VQModel)'),
    'bad-magvit-vae': Case('easyanimate_wan_vae.safetensors', one(magvit), REFUSED, 'huggingface/diffusers: autoencoder_kl_magvit.py'),
    'bad-kandinsky-folder': Case('kandinsky-2-2/', folder('KandinskyV22Pipeline'), REFUSED, 'huggingface/diffusers: pipelines/kandinsky2_2'),
    'bad-controlnet-pipeline': Case('sd-controlnet-pipeline/', folder('StableDiffusionControlNetPipeline'), REFUSED,
                                    'huggingface/diffusers: pipelines/controlnet'),
}
