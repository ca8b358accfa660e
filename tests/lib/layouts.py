"""The files of real repositories (some pictures, notebooks and voices are left out), and made up ones that show one rule each.

A text of paths with {a,b} for several; expand() makes the list of it.
"""
import itertools
import re


def expand(text):
    """The paths of a text: words, {a,b} in them standing for each of a and b, {1..3|5} for 00001 to 00003."""
    paths = []
    for word in text.split():
        word = re.sub(r"\{(\d+)\.\.(\d+)\|(\d+)\}", lambda match: "{" + ",".join(
            str(number).zfill(int(match[3])) for number in range(int(match[1]), int(match[2]) + 1)) + "}", word)
        parts = re.split(r"\{([^}]*)\}", word)
        choices = [part.split(",") if at % 2 else [part] for at, part in enumerate(parts)]
        paths += ["".join(choice) for choice in itertools.product(*choices)]
    return paths


CLIP = "{merges.txt,special_tokens_map.json,tokenizer_config.json,vocab.json}"
PAGE = ".gitattributes README.md"
D = "diffusion_pytorch_model"

REPOS = {
    "stabilityai/stable-diffusion-xl-base-1.0": f"""{PAGE} 01.png LICENSE.md comparison.png pipeline.png model_index.json
        scheduler/scheduler_config.json sd_xl_base_1.0.safetensors sd_xl_base_1.0_0.9vae.safetensors
        sd_xl_offset_example-lora_1.0.safetensors
        text_encoder/{{config.json,flax_model.msgpack,model.fp16.safetensors,model.onnx,model.safetensors}}
        text_encoder/openvino_model.{{bin,xml}} text_encoder_2/openvino_model.{{bin,xml}} unet/openvino_model.{{bin,xml}}
        text_encoder_2/{{config.json,flax_model.msgpack,model.fp16.safetensors,model.onnx,model.onnx_data,model.safetensors}}
        tokenizer/{CLIP} tokenizer_2/{CLIP} unet/{{config.json,diffusion_flax_model.msgpack,model.onnx,model.onnx_data}}
        unet/{D}{{.fp16,}}.safetensors vae/{{config.json,diffusion_flax_model.msgpack}} vae/{D}{{.fp16,}}.safetensors
        vae_1_0/config.json vae_1_0/{D}{{.fp16,}}.safetensors
        vae_decoder/{{config.json,model.onnx,openvino_model.bin,openvino_model.xml}}
        vae_encoder/{{config.json,model.onnx,openvino_model.bin,openvino_model.xml}}""",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": f"""{PAGE} feature_extractor/preprocessor_config.json model_index.json
        safety_checker/{{config.json,model.fp16.safetensors,model.safetensors,pytorch_model.bin,pytorch_model.fp16.bin}}
        scheduler/scheduler_config.json
        text_encoder/{{config.json,model.fp16.safetensors,model.safetensors,pytorch_model.bin,pytorch_model.fp16.bin}}
        tokenizer/{CLIP} unet/config.json unet/{D}.{{bin,fp16.bin,fp16.safetensors,non_ema.bin,non_ema.safetensors,safetensors}}
        v1-5-pruned{{-emaonly,}}.{{ckpt,safetensors}} v1-inference.yaml
        vae/config.json vae/{D}.{{bin,fp16.bin,fp16.safetensors,safetensors}}""",
    "stable-diffusion-v1-5/stable-diffusion-inpainting": f"""{PAGE} config.json feature_extractor/preprocessor_config.json
        model_index.json scheduler/scheduler_config.json sd-v1-5-inpainting.ckpt tokenizer/{CLIP}
        safety_checker/{{config.json,model.fp16.safetensors,pytorch_model.bin,pytorch_model.fp16.bin}}
        text_encoder/{{config.json,model.fp16.safetensors,pytorch_model.bin,pytorch_model.fp16.bin}}
        unet/config.json unet/{D}.{{bin,fp16.bin,fp16.safetensors}} vae/config.json vae/{D}.{{bin,fp16.bin,fp16.safetensors}}""",
    "stabilityai/sdxl-turbo": f"""{PAGE} LICENSE.md image_quality_one_step.png model_index.json output_tile.jpg
        prompt_alignment_one_step.png scheduler/scheduler_config.json sd_xl_turbo_1.0{{,_fp16}}.safetensors
        text_encoder/{{config.json,model.fp16.safetensors,model.safetensors}} tokenizer/{CLIP} tokenizer_2/{CLIP}
        text_encoder_2/{{config.json,model.fp16.safetensors,model.safetensors}} unet/config.json unet/{D}{{.fp16,}}.safetensors
        vae/config.json vae/{D}{{.fp16,}}.safetensors""",
    "black-forest-labs/FLUX.1-dev": f"""{PAGE} LICENSE.md ae.safetensors dev_grid.jpg flux1-dev.safetensors model_index.json
        scheduler/scheduler_config.json text_encoder/{{config.json,model.safetensors}} tokenizer/{CLIP}
        text_encoder_2/{{config.json,model.safetensors.index.json}} text_encoder_2/model-{{1..2|5}}-of-00002.safetensors
        tokenizer_2/{{special_tokens_map.json,spiece.model,tokenizer.json,tokenizer_config.json}}
        transformer/config.json transformer/{D}.safetensors.index.json transformer/{D}-{{1..3|5}}-of-00003.safetensors
        vae/config.json vae/{D}.safetensors""",
    "stabilityai/stable-diffusion-3-medium-diffusers": f"""{PAGE} LICENSE.md model_index.json sd3demo.jpg
        scheduler/scheduler_config.json text_encoder/{{config.json,model.fp16.safetensors,model.safetensors}}
        text_encoder_2/{{config.json,model.fp16.safetensors,model.safetensors}}
        text_encoder_3/{{config.json,model.safetensors.index.json,model.safetensors.index.fp16.json}}
        text_encoder_3/model{{,.fp16}}-{{1..2|5}}-of-00002.safetensors tokenizer/{CLIP} tokenizer_2/{CLIP}
        tokenizer_3/{{special_tokens_map.json,spiece.model,tokenizer.json,tokenizer_config.json}}
        transformer/config.json transformer/{D}.safetensors vae/config.json vae/{D}.safetensors""",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": f"""{PAGE}
        assets/{{comp_effic.png,data_for_diff_stage.jpg,i2v_res.png,logo.png,t2v_res.jpg,vben_1.3b_vs_sota.png,vben_vs_sota.png}}
        assets/video_{{dit_arch,vae_res}}.jpg examples/i2v_input.JPG model_index.json scheduler/scheduler_config.json
        text_encoder/{{config.json,model.safetensors.index.json}} text_encoder/model-{{1..5|5}}-of-00005.safetensors
        tokenizer/{{special_tokens_map.json,spiece.model,tokenizer.json,tokenizer_config.json}}
        transformer/{{config.json,{D}.safetensors.index.json}} transformer/{D}-{{1..2|5}}-of-00002.safetensors
        vae/config.json vae/{D}.safetensors""",
    "Qwen/Qwen-Image-Edit": f"""{PAGE} model_index.json scheduler/scheduler_config.json
        processor/{{added_tokens.json,chat_template.jinja,merges.txt,preprocessor_config.json,special_tokens_map.json}}
        processor/{{tokenizer.json,tokenizer_config.json,video_preprocessor_config.json,vocab.json}}
        text_encoder/{{config.json,generation_config.json,model.safetensors.index.json}}
        text_encoder/model-{{1..4|5}}-of-00004.safetensors
        tokenizer/{{added_tokens.json,chat_template.jinja,merges.txt,special_tokens_map.json,tokenizer_config.json,vocab.json}}
        transformer/{{config.json,{D}.safetensors.index.json}} transformer/{D}-{{1..9|5}}-of-00009.safetensors
        vae/config.json vae/{D}.safetensors""",
    "Qwen/Qwen2.5-VL-3B-Instruct": f"""{PAGE} LICENSE chat_template.json config.json generation_config.json merges.txt
        model-{{1..2|5}}-of-00002.safetensors model.safetensors.index.json preprocessor_config.json tokenizer.json
        tokenizer_config.json vocab.json""",
    "deepset/roberta-base-squad2": f"""{PAGE} config.json flax_model.msgpack merges.txt model.safetensors pytorch_model.bin
        rust_model.ot special_tokens_map.json tf_model.h5 tokenizer_config.json vocab.json""",
    "QuantStack/Wan2.1_14B_VACE-GGUF": f"""{PAGE} vace_v2v_example_workflow.json
        Wan2.1_14B_VACE-{{BF16,F16,Q3_K_S,Q4_0,Q4_1,Q4_K_M,Q4_K_S,Q5_0,Q5_1,Q5_K_M,Q5_K_S,Q6_K,Q8_0}}.gguf""",
    "hexgrad/Kokoro-82M": f"""{PAGE} DONATE.md EVAL.md SAMPLES.md VOICES.md config.json kokoro-v1_0.pth samples/HEARME.wav
        voices/af_{{alloy,bella,heart,nova}}.pt""",
    "lllyasviel/control_v11p_sd15_canny": f"""{PAGE} config.json control_net_canny.py {D}.bin {D}.fp16.bin
        {D}.fp16.safetensors {D}.safetensors images/{{bird,control}}.png sd.png""",
    "TencentARC/t2i-adapter-canny-sdxl-1.0": f"""{PAGE} config.json {D}.fp16.safetensors {D}.safetensors""",
    "h94/IP-Adapter": f"""{PAGE} fig1.png models/image_encoder/{{config.json,model.safetensors,pytorch_model.bin}}
        models/ip-adapter{{,-full-face,-plus-face,-plus}}_sd15.{{bin,safetensors}}
        models/ip-adapter_sd15_{{light,light_v11,vit-G}}.bin
        sdxl_models/image_encoder/{{config.json,model.safetensors,pytorch_model.bin}}
        sdxl_models/ip-adapter{{,-plus-face,-plus}}_sdxl_vit-h.{{bin,safetensors}} sdxl_models/ip-adapter_sdxl.{{bin,safetensors}}""",
    "latent-consistency/lcm-lora-sdxl": f"""{PAGE} pytorch_lora_weights.safetensors""",
}

# Repositories made up to show one rule each.
EXAMPLES = {
    "o/A": f"""README.md model_index.json M-pruned.safetensors unet/config.json
        unet/{D}{{,.fp16}}.{{bin,safetensors}} vae/config.json vae/{D}.safetensors""",
    "o/Shards": "config.json model-{1..2|5}-of-00002.safetensors model.safetensors.index.json",
    "o/After": "config.json model-{1..2|5}-of-00002{.fp16,}.safetensors",
    "o/Before": "config.json model{.fp16,}-{1..2|5}-of-00002.safetensors",
    "o/Bin": "a/{config.json,pytorch_model.bin} b/{config.json,model.safetensors} c/{config.json,pytorch_model.bin}",
    "o/Lora": "pytorch_lora_weights.{bin,safetensors}",
    "o/Ti": "learned_embeds-steps-1000.safetensors",
    "o/Gguf": "config.json model-Q4.gguf",
    "o/Z": "text_encoder/{config.json,model.safetensors} tokenizer/{merges.txt,vocab.json} unet/{config.json,model.safetensors}",
}
