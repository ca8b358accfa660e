"""Text and image encoders, and language models."""
from catalogue.case import Case, REFUSED, kind
from catalogue.pipelines import shards, stand_in
from networks.clip import clip
from networks.language import clip_vision, config, decoder, t5, visual_qwen2, visual_qwen3
from networks.quantised import int8, sdnq

CLIP = 'huggingface/transformers: modeling_clip.py; the published config.json'
T5 = 'huggingface/transformers: modeling_t5.py, modeling_umt5.py'
BNB = 'bitsandbytes: nn/modules.py (Linear8bitLt), over ' + T5
SDNQ = 'Disty0/sdnq: quantizer.py, over huggingface/transformers'
QWEN3 = 'huggingface/transformers: modeling_qwen3.py; the published config.json'
QWEN_VL = 'huggingface/transformers: modeling_qwen2_5_vl.py'
QWEN3_VL = 'huggingface/transformers: modeling_qwen3_vl.py'
MISTRAL = 'huggingface/transformers: modeling_mistral.py, modeling_mistral3.py; the published config.json'
GEMMA = 'huggingface/transformers: modeling_gemma2.py'
TOKENIZER = {'tokenizer.json': {}, 'tokenizer_config.json': {}}
T5_CONFIG = {'architectures': ['T5EncoderModel'], 'model_type': 't5', 'd_model': 4096, 'vocab_size': 32128}
UMT5_CONFIG = {'architectures': ['UMT5EncoderModel'], 'model_type': 'umt5', 'd_model': 4096, 'vocab_size': 256384}


def embed(variant):
    return kind('clip_embed', 'any', 'diffusers', variant=variant)


def encoder(type, format, **more):
    return kind(type, 'any', format, **more)


def clip_folder(class_name, width, layers, folder='', **more):
    def make(small):
        return {folder + 'config.json': dict({'architectures': [class_name], 'hidden_size': width, 'num_hidden_layers': layers}, **more),
                folder + 'model.safetensors': clip(width, layers, small, 'Projection' in class_name)}
    return make


def vision_folder(class_name, **more):
    return lambda small: {'config.json': dict({'architectures': [class_name], 'hidden_size': 1280}, **more),
                          'model.safetensors': clip_vision(small)}


def plain_folder(class_name, **more):
    return lambda small: {'config.json': dict({'architectures': [class_name]}, **more), 'model.safetensors': stand_in(small)}


def whole_clip(small):
    net = clip(768, 12, small).include('', clip_vision(small, 1024, 24))
    return {'config.json': {'architectures': ['CLIPModel'], 'projection_dim': 768, 'text_config': {'hidden_size': 768},
                            'vision_config': {'hidden_size': 1024}}, 'model.safetensors': net}


def pipeline_part(small):
    """A pipeline of no known class, whose text encoder is CLIP's: it is no CLIP."""
    return dict(clip_folder('CLIPTextModel', 768, 12, 'text_encoder/')(small),
                **{'model_index.json': {'_class_name': 'SomePipeline', 'text_encoder': ['transformers', 'CLIPTextModel']}})


def pipeline_without_index(small):
    """A pipeline whose download broke off before its index: none of its parts is what the folder is."""
    files = clip_folder('CLIPTextModel', 768, 12, 'text_encoder/')(small)
    files['unet/config.json'] = {'_class_name': 'UNet2DConditionModel', 'cross_attention_dim': 768}
    files.update(t5_folder(T5_CONFIG, t5)(small))
    return files


def t5_folder(config, build, count=2, folder='text_encoder_2/', extra=None):
    def make(small):
        files = {folder + 'config.json': config}
        net = build(small)
        files.update(shards(folder, net, count) if count > 1 else {folder + 'model.safetensors': net})
        files['tokenizer_2/tokenizer_config.json'] = {'tokenizer_class': 'T5Tokenizer'}
        files.update(extra or {})
        return files
    return make


def model_folder(size, class_name, model_type, folder='', tokenizer=None, count=1, build=None, **more):
    """A decoder with its config; tokenizer: the folder its files are in, None for none."""
    def make(small):
        net = build(small) if build else decoder(size, small)
        files = {folder + 'config.json': dict(config(size, class_name, model_type), **more)}
        files.update(shards(folder, net, count) if count > 1 else {folder + 'model.safetensors': net})
        if tokenizer is not None:
            files.update({tokenizer + name: content for name, content in TOKENIZER.items()})
        return files
    return make


def file_of(size, **options):
    return lambda small: {'': decoder(size, small, **options)}


def vl_file(size, visual, language='model.', tower=''):
    return lambda small: {'': decoder(size, small, language).include(tower, visual(small))}


def vl_folder(size, class_name, folder, tokenizer, count=1, missing=None, **more):
    def make(small):
        net = decoder(size, small, 'model.language_model.').include('model.', visual_qwen3(small))
        files = {folder + 'config.json': dict({'architectures': [class_name], 'model_type': 'qwen3_vl',
                 'text_config': config(size, 'Qwen3VLTextModel', 'qwen3_vl_text')}, **more)}
        files.update(shards(folder, net, count) if count > 1 else {folder + 'model.safetensors': net})
        files.update({tokenizer + name: content for name, content in TOKENIZER.items()})
        if missing:
            del files[folder + missing]
        return files
    return make


def one_shard(small):
    """The first of two files: by its names alone a whole encoder."""
    return {'': shards('', decoder('qwen3_4b', small))['model-00001-of-00002.safetensors']}


CASES = {
    # CLIP and its kin
    'clip-large': Case('clip-vit-large-patch14-text/', clip_folder('CLIPTextModel', 768, 12), embed('large'), CLIP),
    'clip-large-nested': Case('clip-nested/', clip_folder('CLIPTextModel', 768, 12, 'text_encoder/'), embed('large'), CLIP),
    'clip-gigantic': Case('clip-vit-bigg-text/', clip_folder('CLIPTextModelWithProjection', 1280, 32), embed('gigantic'), CLIP),
    'clip-vision': Case('ip_adapter_sd_image_encoder/', vision_folder('CLIPVisionModelWithProjection'),
                        encoder('clip_vision', 'diffusers'), CLIP),
    'clip-vision-model': Case('clip-vision-only/', vision_folder('CLIPVisionModel'), encoder('clip_vision', 'diffusers'), CLIP),
    'siglip': Case('siglip-so400m-patch14-384/', plain_folder('SiglipModel'), encoder('siglip', 'diffusers'),
                   'huggingface/transformers: modeling_siglip.py'),
    'llava-onevision': Case('llava-onevision-qwen2-0.5b/', plain_folder('LlavaOnevisionForConditionalGeneration'),
                            encoder('llava_onevision', 'diffusers'), 'huggingface/transformers: modeling_llava_onevision.py'),
    'bad-clip-odd': Case('clip-odd/', clip_folder('CLIPTextModel', 1024, 23), REFUSED, CLIP),
    'bad-clip-both': Case('clip-vit-large-patch14/', whole_clip, REFUSED, CLIP),
    'bad-clip-in-pipeline': Case('some-pipeline/', pipeline_part, REFUSED, CLIP),
    'bad-pipeline-without-index': Case('half-a-pipeline/', pipeline_without_index, REFUSED, CLIP),
    # T5
    't5': Case('t5-v1_1-xxl/', t5_folder(T5_CONFIG, t5), encoder('t5_encoder', 't5_encoder'), T5),
    't5-one-file': Case('t5-one-file/', t5_folder(T5_CONFIG, t5, 1), encoder('t5_encoder', 't5_encoder'), T5),
    't5-alone': Case('t5-alone/', t5_folder(T5_CONFIG, t5, 1, ''), encoder('t5_encoder', 't5_encoder'), T5),
    't5-int8': Case('t5_bnb_int8/', t5_folder(T5_CONFIG, lambda small: int8(t5(small)), 1),
                    encoder('t5_encoder', 'bnb_quantized_int8b'), BNB),
    't5-sdnq': Case('t5-sdnq/', t5_folder(T5_CONFIG, lambda small: sdnq(t5(small)), 1), encoder('t5_encoder', 'sdnq_quantized'), SDNQ),
    't5-sdnq-marked': Case('t5-sdnq-marked/', t5_folder(T5_CONFIG, lambda small: sdnq(t5(small)), 2, '',
                           {'quantization_config.json': {'quant_method': 'sdnq'}}), encoder('t5_encoder', 'sdnq_quantized'), SDNQ),
    'wan-t5': Case('umt5-xxl/', t5_folder(UMT5_CONFIG, lambda small: t5(small, 256384, True), 2, ''),
                   encoder('wan_t5_encoder', 'wan_t5_encoder'), T5),
    'wan-t5-nested': Case('wan-t5/', t5_folder(UMT5_CONFIG, lambda small: t5(small, 256384, True), 2, 'text_encoder/'),
                          encoder('wan_t5_encoder', 'wan_t5_encoder'), T5),
    'bad-t5-no-weights': Case('t5-empty/', lambda small: {'text_encoder_2/config.json': T5_CONFIG}, REFUSED, T5),
    'bad-t5-file': Case('t5xxl_fp16.safetensors', lambda small: {'': t5(small)}, REFUSED, T5),
    # Qwen3
    'qwen3-4b-file': Case('qwen_3_4b.safetensors', file_of('qwen3_4b'), encoder('qwen3_encoder', 'checkpoint', variant='qwen3_4b'), QWEN3),
    'qwen3-06b-file': Case('qwen_3_06b_base.safetensors', file_of('qwen3_06b'), encoder('qwen3_encoder', 'checkpoint', variant='qwen3_06b'), QWEN3),
    'qwen3-8b-file': Case('qwen_3_8b.safetensors', file_of('qwen3_8b', head=True), encoder('qwen3_encoder', 'checkpoint', variant='qwen3_8b'), QWEN3),
    'bad-qwen3-shard': Case('qwen3-00001-of-00002.safetensors', one_shard, REFUSED, QWEN3),
    'qwen3-only-shard': Case('qwen3-00001-of-00001.safetensors', file_of('qwen3_4b'), encoder('qwen3_encoder', 'checkpoint', variant='qwen3_4b'), QWEN3),
    'bad-llama3-8b': Case('llama-3-8b.safetensors', file_of('llama3_8b'), REFUSED, 'huggingface/transformers: modeling_llama.py'),
    'bad-mistral-7b': Case('mistral-7b.safetensors', file_of('mistral_7b'), REFUSED, MISTRAL),
    'bad-qwen3-14b': Case('qwen3-14b.safetensors', file_of('qwen3_14b'), REFUSED, QWEN3),
    'bad-gemma3-4b': Case('gemma-3-4b.safetensors', file_of('gemma3_4b'), REFUSED, 'huggingface/transformers: modeling_gemma3.py'),
    'bad-qwen3-pipeline': Case('qwen3-transformer/', lambda small: dict(model_folder('qwen3_4b', 'Qwen3ForCausalLM', 'qwen3', 'text_encoder/')(small),
                               **{'transformer/config.json': {'_class_name': 'Unheard'}}), REFUSED, QWEN3),
    # vision and language
    'qwen-vl': Case('qwen2.5-vl-encoder/', lambda small: dict(model_folder('qwen2_vl_7b', 'Qwen2_5_VLForConditionalGeneration', 'qwen2_5_vl',
                    'text_encoder/', 'tokenizer/', 2)(small)), encoder('qwen_vl_encoder', 'qwen_vl_encoder'), QWEN_VL),
    'qwen-vl-file': Case('qwen_2.5_vl_7b.safetensors', vl_file('qwen2_vl_7b', visual_qwen2), encoder('qwen_vl_encoder', 'checkpoint'), QWEN_VL),
    'qwen3-vl': Case('Qwen3-VL-4B-Instruct/', vl_folder('qwen3_4b', 'Qwen3VLForConditionalGeneration', '', '', 2),
                     encoder('qwen3_vl_encoder', 'qwen3_vl_encoder'), QWEN3_VL),
    'qwen3-vl-nested': Case('krea-text-encoder/', vl_folder('qwen3_4b', 'Qwen3VLModel', 'text_encoder/', 'tokenizer/'),
                            encoder('qwen3_vl_encoder', 'qwen3_vl_encoder'), QWEN3_VL),
    'qwen3-vl-file': Case('qwen3_vl_4b.safetensors', vl_file('qwen3_4b', visual_qwen3, 'model.language_model.', 'model.'),
                          encoder('qwen3_vl_encoder', 'checkpoint'), QWEN3_VL),
    'qwen3-vl-file-bare': Case('qwen3_vl_4b_comfy.safetensors', vl_file('qwen3_4b', visual_qwen3), encoder('qwen3_vl_encoder', 'checkpoint'),
                               'comfyanonymous/ComfyUI: text_encoders (names), over ' + QWEN3_VL),
    'bad-qwen3-vl-shard-missing': Case('Qwen3-VL-half/', vl_folder('qwen3_4b', 'Qwen3VLModel', '', '', 2, 'model-00002-of-00002.safetensors'),
                                       REFUSED, QWEN3_VL),
    'bad-qwen3-vl-8b': Case('Qwen3-VL-8B/', vl_folder('qwen3_8b', 'Qwen3VLModel', '', ''), REFUSED, QWEN3_VL),
    # Mistral, Gemma, others
    'mistral': Case('Mistral-Small-3.2-24B/', model_folder('mistral3_24b', 'Mistral3ForConditionalGeneration', 'mistral3', tokenizer='', count=2),
                    encoder('mistral_encoder', 'mistral_encoder', variant='mistral3_24b'), MISTRAL),
    'mistral-causal': Case('mistral-small-causal/', model_folder('mistral3_24b', 'MistralForCausalLM', 'mistral', tokenizer=''),
                           encoder('mistral_encoder', 'mistral_encoder', variant='mistral3_24b'), MISTRAL),
    'mistral-cow': Case('cow-mistral3-small/', model_folder('cow_mistral3_small', 'MistralModel', 'mistral', 'text_encoder/', 'tokenizer/'),
                        encoder('mistral_encoder', 'mistral_encoder', variant='cow_mistral3_small'), MISTRAL),
    'mistral-file': Case('mistral_3_small_flux2_bf16.safetensors', file_of('mistral3_24b'),
                         encoder('mistral_encoder', 'checkpoint', variant='mistral3_24b'), MISTRAL),
    'mistral-cow-file': Case('cow_mistral3_small.safetensors', file_of('cow_mistral3_small', prefix='text_encoder.model.'),
                             encoder('mistral_encoder', 'checkpoint', variant='cow_mistral3_small'), MISTRAL),
    'gemma2': Case('gemma-2-2b-it/', model_folder('gemma2_2b', 'Gemma2ForCausalLM', 'gemma2', tokenizer='', count=2),
                   encoder('gemma2_encoder', 'gemma2_encoder'), GEMMA),
    'text-llm': Case('Llama-3-8B/', model_folder('llama3_8b', 'LlamaForCausalLM', 'llama', tokenizer='', count=2),
                     encoder('text_llm', 'diffusers'), 'huggingface/transformers: modeling_llama.py'),
    'text-llm-qwen3': Case('Qwen3-4B/', model_folder('qwen3_4b', 'Qwen3ForCausalLM', 'qwen3', tokenizer=''),
                           encoder('text_llm', 'diffusers'), QWEN3),
    'text-llm-gemma2': Case('gemma-2-9b-it/', model_folder('gemma2_2b', 'Gemma2ForCausalLM', 'gemma2', tokenizer='', hidden_size=3584),
                            encoder('text_llm', 'diffusers'), GEMMA),
    'bad-llm-no-tokenizer': Case('llama-no-tokenizer/', model_folder('llama3_8b', 'LlamaForCausalLM', 'llama'), REFUSED,
                                 'huggingface/transformers: modeling_llama.py'),
}

for size in ('06b', '4b', '8b'):
    variant, name = 'qwen3_' + size, 'Qwen3ForCausalLM'
    CASES['qwen3-%s' % size] = Case('qwen3-%s-encoder/' % size, model_folder(variant, name, 'qwen3', 'text_encoder/', 'tokenizer/',
                                    1 if size == '06b' else 2), encoder('qwen3_encoder', 'qwen3_encoder', variant=variant), QWEN3)
    CASES['qwen3-%s-sdnq' % size] = Case(
        'qwen3-%s-sdnq/' % size, model_folder(variant, name, 'qwen3', 'text_encoder/', 'tokenizer/',
        build=lambda small, variant=variant: sdnq(decoder(variant, small))),
        encoder('qwen3_encoder', 'sdnq_quantized', variant=variant), SDNQ)
    CASES['qwen3-%s-sdnq-file' % size] = Case(
        'qwen3-%s-sdnq.safetensors' % size, lambda small, variant=variant: {'': sdnq(decoder(variant, small))},
        encoder('qwen3_encoder', 'sdnq_quantized', variant=variant), SDNQ)
CASES['qwen3-alone'] = Case('qwen3-alone/', model_folder('qwen3_4b', 'Qwen3ForCausalLM', 'qwen3', count=2),
                            encoder('qwen3_encoder', 'qwen3_encoder', variant='qwen3_4b'), QWEN3)
