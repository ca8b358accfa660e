"""Models that only the caller can tell, with what he says."""
from catalogue.case import Case, REFUSED, kind, one
from catalogue.encoders import CLIP, GEMMA, QWEN3, model_folder, whole_clip
from catalogue.lora import KOHYA, TE_XL, lora_kohya
from catalogue.onnx import ONNX, graphs
from catalogue.pid import PID, file_of
from catalogue.vae import TAESD, WAN, tiny_folder, wan_vae_file
from catalogue.wan import WAN as WAN_MAIN
from networks.wan import wan

CASES = {
    'given-prompt-enhancer': Case('enhancer/', model_folder('qwen3_4b', 'Qwen3ForCausalLM', 'qwen3', tokenizer=''),
                                  kind('prompt_enhancer', 'any', 'diffusers'), QWEN3, {'type': 'prompt_enhancer'}),
    'given-text-llm': Case('gemma-to-write/', model_folder('gemma2_2b', 'Gemma2ForCausalLM', 'gemma2', tokenizer=''),
                           kind('text_llm', 'any', 'diffusers'), GEMMA, {'type': 'text_llm'}),
    'given-clip-embed': Case('clip-to-embed/', whole_clip, kind('clip_embed', 'any', 'diffusers', variant='large'), CLIP, {'type': 'clip_embed'}),
    'given-clip-vision': Case('clip-to-see/', whole_clip, kind('clip_vision', 'any', 'diffusers'), CLIP, {'type': 'clip_vision'}),
    'given-wan-t2v': Case('t2v-of-22.safetensors', one(wan, 't2v_a14b'), kind('main', 'wan', 'checkpoint', variant='t2v_a14b', expert='none'),
                          WAN_MAIN, {'variant': 't2v_a14b'}),
    'given-pid': Case('pid-model-d.safetensors', file_of(16), kind('pid_decoder', 'qwen-image', 'checkpoint', variant='res2kto4k_sr4x'),
                      PID, {'base': 'qwen-image'}),
    'given-pid-wrong': Case('pid-model-e.safetensors', file_of(4), REFUSED, PID, {'base': 'flux'}),
    'given-video-vae': Case('vae16-given.safetensors', wan_vae_file(16, True), kind('vae', 'anima', 'checkpoint'), WAN, {'base': 'anima'}),
    'given-tiny': Case('tiny-given/', tiny_folder(16), kind('vae', 'sd-3', 'diffusers'), TAESD, {'base': 'sd-3'}),
    'given-onnx': Case('onnx-given/', graphs(768, 4, text=False), kind('onnx', 'sd-1', 'onnx', variant='normal'), ONNX, {'base': 'sd-1'}),
    'given-te1': Case('te1-given.safetensors', lora_kohya('sdxl', TE_XL[:1], with_unet=False), kind('lora', 'sdxl', 'lycoris'), KOHYA,
                      {'base': 'sdxl'}),
}
