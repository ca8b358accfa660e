"""Which files of a repository are the model: what `lade install --dry-run --json` plans, against the test hub.

Each row says what is asked for, what has to be planned (paths in the repository, tests/lib/layouts.py has the words), and why.
"""
import os

from lib import weights
from lib.layouts import CLIP, EXAMPLES, REPOS, D, expand
from lib.world import World

LIMIT_S = 240
SDXL, SD15 = "stabilityai/stable-diffusion-xl-base-1.0", "stable-diffusion-v1-5/stable-diffusion-v1-5"
INPAINTING, FLUX = "stable-diffusion-v1-5/stable-diffusion-inpainting", "black-forest-labs/FLUX.1-dev"
SD3, WAN, QWEN = "stabilityai/stable-diffusion-3-medium-diffusers", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Qwen/Qwen-Image-Edit"
SDXL_TEXTS = f"model_index.json scheduler/scheduler_config.json tokenizer/{CLIP} tokenizer_2/{CLIP}"
SDXL_PARTS = "{text_encoder,text_encoder_2,unet,vae,vae_1_0}/config.json"
SD15_TEXTS = (f"model_index.json feature_extractor/preprocessor_config.json scheduler/scheduler_config.json tokenizer/{CLIP} "
              "{safety_checker,text_encoder,unet,vae}/config.json")
T5_TOKENS = "{special_tokens_map.json,spiece.model,tokenizer.json,tokenizer_config.json}"

# The expected-result rules of the original's tables, on the real list of SDXL base and SD 1.5.
TABLES = [
    (SDXL, f"{SDXL_TEXTS} {SDXL_PARTS} {{text_encoder,text_encoder_2}}/model.safetensors {{unet,vae,vae_1_0}}/{D}.safetensors",
     "one unlabelled safetensors a folder; the lone config.json of vae_decoder and vae_encoder go; no loose checkpoints"),
    (f"{SDXL}:fp16", f"{SDXL_TEXTS} {SDXL_PARTS} {{text_encoder,text_encoder_2}}/model.fp16.safetensors "
     f"{{unet,vae,vae_1_0}}/{D}.fp16.safetensors", "the same folders, labelled"),
    (f"{SDXL}:fp32", f"{SDXL_TEXTS} {SDXL_PARTS} {{text_encoder,text_encoder_2}}/model.safetensors "
     f"{{unet,vae,vae_1_0}}/{D}.safetensors", "nothing is labelled fp32: the unlabelled files are"),
    (f"{SDXL}:onnx", f"{SDXL_TEXTS} {{text_encoder,text_encoder_2,unet,vae_decoder,vae_encoder}}/{{config.json,model.onnx}} "
     "{text_encoder_2,unet}/model.onnx_data", "onnx and its data; vae and vae_1_0 have none and vanish"),
    (f"{SDXL}:openvino", f"{SDXL_TEXTS} {{text_encoder,text_encoder_2,unet,vae_decoder,vae_encoder}}/config.json "
     "{text_encoder,text_encoder_2,unet,vae_decoder,vae_encoder}/openvino_model.{bin,xml}", "bin and xml together"),
    (f"{SDXL}:flax", f"{SDXL_TEXTS} {{text_encoder,text_encoder_2,unet,vae}}/config.json "
     "{text_encoder,text_encoder_2}/flax_model.msgpack {unet,vae}/diffusion_flax_model.msgpack", "flax; what has none vanishes"),
    (f"{SD15}:fp16", f"{SD15_TEXTS} {{safety_checker,text_encoder}}/model.fp16.safetensors {{unet,vae}}/{D}.fp16.safetensors",
     "safetensors before bin, fp16 before plain"),
    (f"{SD15}:fp32", f"{SD15_TEXTS} {{safety_checker,text_encoder}}/model.safetensors {{unet,vae}}/{D}.safetensors",
     "non_ema is labelled with what nobody asked for"),
]

# The worked examples; None: nothing can be selected.
WORKED = [
    ("o/A", f"model_index.json {{unet,vae}}/config.json {{unet,vae}}/{D}.safetensors", "1: plain weights"),
    ("o/A:fp16", f"model_index.json {{unet,vae}}/config.json unet/{D}.fp16.safetensors vae/{D}.safetensors",
     "2: vae has no fp16, so it comes as it is"),
    ("o/A:onnx", None, "3: there is no onnx"),
    ("o/A:fp16:vae", f"vae/config.json vae/{D}.safetensors", "4: a folder"),
    ("o/A::M-pruned.safetensors", "M-pruned.safetensors", "5: one file, whatever the rules say"),
    ("o/Shards", "config.json model-{1..2|5}-of-00002.safetensors model.safetensors.index.json", "6: all shards"),
    ("o/Shards:fp16", "config.json model-{1..2|5}-of-00002.safetensors model.safetensors.index.json", "6: all shards"),
    ("o/After:fp16", "config.json model-{1..2|5}-of-00002.fp16.safetensors", "7: the label behind the counter counts"),
    ("o/After", "config.json model-{1..2|5}-of-00002.safetensors", "7: and leaves the plain ones whole"),
    ("o/Before:fp16", "config.json model.fp16-{1..2|5}-of-00002.safetensors", "8: the label before the counter"),
    ("o/Before", "config.json model-{1..2|5}-of-00002.safetensors", "8: weights are not taken twice"),
    ("o/Bin", EXAMPLES["o/Bin"], "9: bin gives way only to safetensors beside it"),
    ("o/Lora", "pytorch_lora_weights.safetensors", "10: safetensors only"),
    ("o/Lora:fp16", "pytorch_lora_weights.safetensors", "10: any weights variant"),
    ("o/Ti", None, "11: a loose file has to be named"),
    ("o/Ti::learned_embeds-steps-1000.safetensors", "learned_embeds-steps-1000.safetensors", "11: as it is here"),
    ("o/Gguf", "config.json model-Q4.gguf", "12: the only weights there are"),
    ("o/Gguf::model-Q4.gguf", "model-Q4.gguf", "12: by its name"),
    ("o/Z::text_encoder+tokenizer", "text_encoder/{config.json,model.safetensors} tokenizer/{merges.txt,vocab.json}", "13: two folders"),
]

# Real repositories.
LAYOUTS = [
    (SD15, f"{SD15_TEXTS} {{safety_checker,text_encoder}}/model.safetensors {{unet,vae}}/{D}.safetensors",
     "the diffusers folders, and neither v1-5-pruned nor bin nor non_ema"),
    (f"{SD15}::v1-5-pruned-emaonly.safetensors", "v1-5-pruned-emaonly.safetensors", "the checkpoint, when it is what is meant"),
    (f"{SD15}::vae+text_encoder", f"vae/config.json vae/{D}.safetensors text_encoder/{{config.json,model.safetensors}}",
     "two folders, each with its best weights"),
    (INPAINTING, f"{SD15_TEXTS} config.json {{safety_checker,text_encoder}}/model.fp16.safetensors {{unet,vae}}/{D}.fp16.safetensors",
     "the only safetensors are fp16: the missing variant falls back to them; the config.json at the top has company there"),
    ("stabilityai/sdxl-turbo:fp16", f"{SDXL_TEXTS} {{text_encoder,text_encoder_2,unet,vae}}/config.json "
     f"{{text_encoder,text_encoder_2}}/model.fp16.safetensors {{unet,vae}}/{D}.fp16.safetensors", "fp16 and no loose checkpoint"),
    (FLUX, f"model_index.json scheduler/scheduler_config.json text_encoder/{{config.json,model.safetensors}} tokenizer/{CLIP} "
     "text_encoder_2/{config.json,model.safetensors.index.json} text_encoder_2/model-{1..2|5}-of-00002.safetensors "
     f"tokenizer_2/{T5_TOKENS} transformer/config.json transformer/{D}.safetensors.index.json "
     f"transformer/{D}-{{1..3|5}}-of-00003.safetensors vae/config.json vae/{D}.safetensors",
     "every shard with its index, spiece.model; not ae.safetensors and flux1-dev.safetensors"),
    (f"{FLUX}:fp16:transformer", f"transformer/config.json transformer/{D}.safetensors.index.json "
     f"transformer/{D}-{{1..3|5}}-of-00003.safetensors", "no fp16 there: the folder as it is"),
    (f"{SD3}:fp16", f"model_index.json scheduler/scheduler_config.json tokenizer/{CLIP} tokenizer_2/{CLIP} tokenizer_3/{T5_TOKENS} "
     "{text_encoder,text_encoder_2}/{config.json,model.fp16.safetensors} "
     "text_encoder_3/{config.json,model.safetensors.index.json,model.safetensors.index.fp16.json} "
     f"text_encoder_3/model.fp16-{{1..2|5}}-of-00002.safetensors {{transformer,vae}}/config.json {{transformer,vae}}/{D}.safetensors",
     "both fp16 shards of the T5, the transformer that has no fp16 as it is"),
    (SD3, f"model_index.json scheduler/scheduler_config.json tokenizer/{CLIP} tokenizer_2/{CLIP} tokenizer_3/{T5_TOKENS} "
     "{text_encoder,text_encoder_2}/{config.json,model.safetensors} "
     "text_encoder_3/{config.json,model.safetensors.index.json,model.safetensors.index.fp16.json} "
     f"text_encoder_3/model-{{1..2|5}}-of-00002.safetensors {{transformer,vae}}/config.json {{transformer,vae}}/{D}.safetensors",
     "and the plain ones alone without it"),
    (WAN, f"model_index.json scheduler/scheduler_config.json text_encoder/{{config.json,model.safetensors.index.json}} "
     f"text_encoder/model-{{1..5|5}}-of-00005.safetensors tokenizer/{T5_TOKENS} transformer/{{config.json,{D}.safetensors.index.json}} "
     f"transformer/{D}-{{1..2|5}}-of-00002.safetensors vae/config.json vae/{D}.safetensors", "none of the pictures and examples"),
    (QWEN, REPOS[QWEN].replace(".gitattributes", "").replace("README.md", ""), "all but the page: chat_template.jinja is part of it"),
    ("Qwen/Qwen2.5-VL-3B-Instruct", "chat_template.json config.json generation_config.json merges.txt "
     "model-{1..2|5}-of-00002.safetensors model.safetensors.index.json preprocessor_config.json tokenizer.json "
     "tokenizer_config.json vocab.json", "a transformers folder at the top of its repository"),
    ("deepset/roberta-base-squad2", "config.json merges.txt model.safetensors special_tokens_map.json tokenizer_config.json vocab.json",
     "one of five frameworks"),
    ("deepset/roberta-base-squad2:flax", "config.json flax_model.msgpack merges.txt special_tokens_map.json tokenizer_config.json "
     "vocab.json", "or the other"),
    ("QuantStack/Wan2.1_14B_VACE-GGUF", None, "thirteen sizes of one model, none of which is named like a model: say which"),
    ("QuantStack/Wan2.1_14B_VACE-GGUF::Wan2.1_14B_VACE-Q4_K_M.gguf", "Wan2.1_14B_VACE-Q4_K_M.gguf", "as it is here"),
    ("hexgrad/Kokoro-82M", None, "weights in a form no rule takes: not half a model either"),
    ("lllyasviel/control_v11p_sd15_canny:fp16", f"config.json {D}.fp16.safetensors", "of four weights the one that fits best"),
    ("lllyasviel/control_v11p_sd15_canny", f"config.json {D}.safetensors", "of four weights the one that fits best"),
    ("TencentARC/t2i-adapter-canny-sdxl-1.0:fp16", f"config.json {D}.fp16.safetensors", "an adapter in one folder"),
    ("h94/IP-Adapter::models/ip-adapter_sd15.safetensors", "models/ip-adapter_sd15.safetensors", "one adapter of many"),
    ("h94/IP-Adapter::models/image_encoder", "models/image_encoder/{config.json,model.safetensors}", "its encoder, once"),
    ("latent-consistency/lcm-lora-sdxl", "pytorch_lora_weights.safetensors", "a LoRA by its well-known name"),
]


def make(world, repos):
    """The repositories at the hub, each file with a content of its own."""
    for repo, text in repos.items():
        folder = world.hub.repo(repo)
        for path in expand(text):
            whole = os.path.join(folder, path)
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            with open(whole, "w", encoding="utf-8") as file:
                file.write(f"{repo} {path}")


def check_plan(world, source, plan, wanted):
    """The planned files are the wanted ones, with the URL at the commit, the size, and the sha256 the hub has."""
    repo = source.split(":")[0]
    folder = world.hub.repo(repo)
    assert [file["path"] for file in plan["files"]] == sorted(expand(wanted)), (source, [file["path"] for file in plan["files"]])
    for file in plan["files"]:
        path = os.path.join(folder, file["path"])
        start, _, name = file["url"].partition("/resolve/")
        commit, _, name = name.partition("/")
        assert start == f"{world.hub.url}/{repo}" and len(commit) == 40 and name == file["path"], file
        assert file["size"] == os.path.getsize(path), file
        assert file["sha256"] in (None, weights.sha256(path)), file
        assert file["sha256"] or not path.endswith((".safetensors", ".bin", ".gguf", ".onnx")), file
    assert plan["bytes"] == sum(file["size"] for file in plan["files"])


def check_rows(rows, repos):
    with World({"install.precision": "float32", "broker.max_attempts": 1}) as world:
        make(world, repos)
        world.up()
        for source, wanted, why in rows:
            if wanted is None:
                done = world.lade("install", source, "--dry-run", "--json", status=1)
                assert "No downloadable files found" in done.stderr, (source, why, done.stderr)
                continue
            try:
                check_plan(world, source, world.lade_json("install", source, "--dry-run"), wanted)
            except AssertionError as problem:
                raise AssertionError(f"{source} ({why}): {problem}") from None
        assert world.hub.log(path="*/resolve/*")["requests"] == [], "a dry run fetches nothing"


def test_the_originals_tables():
    check_rows(TABLES, {repo: REPOS[repo] for repo in (SDXL, SD15)})


def test_the_worked_examples():
    check_rows(WORKED, EXAMPLES)


def test_real_repositories():
    check_rows(LAYOUTS, REPOS)


def test_the_precision_says_which_variant_is_meant():
    with World() as world:
        make(world, {SDXL: REPOS[SDXL]})
        world.up()
        check_plan(world, SDXL, world.lade_json("install", SDXL, "--dry-run"),
                   next(wanted for source, wanted, _ in TABLES if source == f"{SDXL}:fp16"))


def test_several_sources_are_several_plans():
    with World() as world:
        make(world, EXAMPLES)
        path = weights.embedding(os.path.join(world.folder, "ti.safetensors"), 1)
        world.up()
        plans = world.lade_json("install", "o/Lora", path, "--dry-run")
        assert [plan["kind"] for plan in plans] == ["hf", "local"], plans
        assert plans[1]["files"] == [{"path": path, "url": None, "size": os.path.getsize(path), "sha256": None}], plans[1]
        assert world.call("store", "all_models") == []
        world.eventually(lambda: os.listdir(world.models_dir) == [])
        shown = world.lade("install", "o/Lora", "--dry-run").stdout
        assert "pytorch_lora_weights.safetensors" in shown and "1 file" in shown, shown
