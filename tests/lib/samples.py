#!/usr/bin/python3
"""Sample models with the files, names and settings of real ones and small tensors.

    tests/lib/samples.py DIR      writes the sample repository of scripts/quickstart into DIR
"""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib import weights  # noqa: E402

WIDTHS = {"sd-1": 768, "sd-2": 1024, "sdxl": 2048, "sdxl-refiner": 1280}
CLASSES = {"sd-1": "StableDiffusionPipeline", "sd-2": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline",
           "sdxl-refiner": "StableDiffusionXLImg2ImgPipeline"}
CHANNELS = {"normal": 4, "inpaint": 9, "depth": 5}


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)


def unet_tensors(width, channels, dtype, depth=64):
    tensors = {"conv_in.weight": (dtype, (depth, channels, 3, 3)), "conv_in.bias": (dtype, (depth,))}
    for block in range(2):
        at = f"down_blocks.{block}.attentions.0.transformer_blocks.0"
        for name, shape in (("attn1.to_q.weight", (depth, depth)), ("attn2.to_k.weight", (depth, width)),
                            ("attn2.to_v.weight", (depth, width)), ("norm1.weight", (depth,))):
            tensors[f"{at}.{name}"] = (dtype, shape)
    tensors["conv_out.weight"] = (dtype, (4, depth, 3, 3))
    return tensors


def vae_tensors(dtype):
    return {"encoder.conv_in.weight": (dtype, (32, 3, 3, 3)), "encoder.conv_in.bias": (dtype, (32,)),
            "decoder.conv_in.weight": (dtype, (32, 4, 3, 3)), "decoder.conv_out.weight": (dtype, (3, 32, 3, 3)),
            "quant_conv.weight": (dtype, (8, 8, 1, 1)), "post_quant_conv.weight": (dtype, (4, 4, 1, 1))}


def text_tensors(width, dtype):
    return {"text_model.embeddings.token_embedding.weight": (dtype, (256, width)),
            "text_model.embeddings.position_embedding.weight": (dtype, (77, width)),
            "text_model.encoder.layers.0.self_attn.k_proj.weight": (dtype, (width, width)),
            "text_model.final_layer_norm.weight": (dtype, (width,))}


def _both(folder, stem, tensors, seed, labels):
    """A weight file without a label in F32 and one with .fp16 in F16."""
    for label in labels:
        dtype = "F16" if label else "F32"
        weights.write_safetensors(os.path.join(folder, f"{stem}{label}.safetensors"), tensors(dtype), {"format": "pt"}, seed)


def pipeline(folder, base="sd-1", variant="normal", prediction="epsilon", seed=1, labels=("",), extras=False):
    """A diffusers folder. extras: what a hub repository has besides, and an install leaves out."""
    width, channels = WIDTHS[base], CHANNELS[variant]
    name = {"inpaint": "StableDiffusionInpaintPipeline"}.get(variant, CLASSES[base])
    write_json(os.path.join(folder, "model_index.json"), {
        "_class_name": name, "_diffusers_version": "0.27.0", "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None], "feature_extractor": [None, None]})
    write_json(os.path.join(folder, "scheduler", "scheduler_config.json"), {
        "_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "prediction_type": prediction})
    write_json(os.path.join(folder, "unet", "config.json"), {
        "_class_name": "UNet2DConditionModel", "cross_attention_dim": width, "in_channels": channels, "out_channels": 4,
        "sample_size": 64})
    _both(os.path.join(folder, "unet"), "diffusion_pytorch_model",
          lambda dtype: unet_tensors(width, channels, dtype), seed, labels)
    vae(os.path.join(folder, "vae"), base, seed + 1, labels)
    write_json(os.path.join(folder, "text_encoder", "config.json"), {
        "architectures": ["CLIPTextModel"], "hidden_size": width, "model_type": "clip_text_model"})
    _both(os.path.join(folder, "text_encoder"), "model", lambda dtype: text_tensors(128, dtype), seed + 2, labels)
    write_json(os.path.join(folder, "tokenizer", "vocab.json"), {"<|startoftext|>": 0, "<|endoftext|>": 1})
    write_json(os.path.join(folder, "tokenizer", "tokenizer_config.json"), {"tokenizer_class": "CLIPTokenizer"})
    with open(os.path.join(folder, "tokenizer", "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n")
    if extras:
        with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as file:
            file.write("---\nlicense: mit\n---\n")
        weights.write_safetensors(os.path.join(folder, "sample-pruned.safetensors"), checkpoint_tensors(base, variant))
        os.makedirs(os.path.join(folder, "vae_decoder"), exist_ok=True)
        with open(os.path.join(folder, "vae_decoder", "model.onnx"), "wb") as file:
            file.write(b"\x08\x07" + bytes(200))
    return folder


def vae(folder, base="sd-1", seed=1, labels=("",)):
    write_json(os.path.join(folder, "config.json"), {
        "_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [128, 256, 512, 512],
        "scaling_factor": 0.13025 if base.startswith("sdxl") else 0.18215,
        "sample_size": 1024 if base.startswith("sdxl") else 512})
    _both(folder, "diffusion_pytorch_model", vae_tensors, seed, labels)
    return folder


def checkpoint_tensors(base="sd-1", variant="normal"):
    """The tensors of a single-file checkpoint that tell what it is, with their real shapes."""
    width, channels = WIDTHS[base], CHANNELS[variant]
    block = "4.1" if base.startswith("sdxl") else "2.1"
    inner = {"sdxl": 640, "sdxl-refiner": 768}.get(base, 320)
    unet = "model.diffusion_model"
    tensors = {
        f"{unet}.input_blocks.0.0.weight": ("F16", (320, channels, 3, 3)),
        f"{unet}.input_blocks.0.0.bias": ("F16", (320,)),
        f"{unet}.input_blocks.{block}.transformer_blocks.0.attn2.to_k.weight": ("F16", (inner, width)),
        f"{unet}.input_blocks.{block}.transformer_blocks.0.attn2.to_v.weight": ("F16", (inner, width)),
        f"{unet}.out.2.weight": ("F16", (4, 320, 3, 3)),
        "first_stage_model.encoder.conv_in.weight": ("F16", (128, 3, 3, 3)),
        "first_stage_model.decoder.conv_in.weight": ("F16", (512, 4, 3, 3)),
    }
    if base == "sd-1":
        tensors["cond_stage_model.transformer.text_model.final_layer_norm.weight"] = ("F16", (768,))
    elif base == "sd-2":
        tensors["cond_stage_model.model.ln_final.weight"] = ("F16", (1024,))
    else:
        tensors["conditioner.embedders.0.model.ln_final.weight"] = ("F16", (1280,))
    return tensors


def checkpoint(path, base="sd-1", variant="normal", seed=1):
    return weights.write_safetensors(path, checkpoint_tensors(base, variant), {"format": "pt"}, seed)


def main():
    folder = sys.argv[1]
    pipeline(os.path.join(folder, "repos", "samples", "tiny-diffusion"), labels=("", ".fp16"), extras=True)


if __name__ == "__main__":
    main()
