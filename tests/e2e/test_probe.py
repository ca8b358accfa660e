"""lade probe: why it says what it says (--explain), a site's own families, what files say of themselves."""
import base64
import json
import os

from lib import weights
from lib.checks import check_fields
from lib.world import World

LIMIT_S = 120

FAMILY = """about: what only this site has
rules:
  - name: cat-maker
    why: a whisker projection
    on: file
    when:
      - {key: {prefix: whisker., suffix: .weight}, axis: 0, is: [9, 18]}
      - not: {key: tail.weight}
    set: {type: lora, format: lycoris, base: sdxl}
"""
KOHYA = {
    "modelspec.title": "Cats of Ulthar", "modelspec.author": "Randolph C.", "modelspec.license": "CC-BY-4.0",
    "modelspec.description": "  Cats in the moonlight.  ", "modelspec.trigger_phrase": "ulthar cat, moonlit", "modelspec.tags": "cat, night, cat",
    "modelspec.resolution": "1024x1024", "modelspec.thumbnail": "data:image/jpeg;base64," + base64.b64encode(b"x" * 3000).decode(),
    "ss_network_module": "networks.lora", "ss_network_dim": "8", "ss_network_alpha": "4.0", "ss_sd_model_name": "sd_xl_base_1.0.safetensors",
    "ss_learning_rate": "1e-4", "ss_seed": "None", "ss_tag_frequency": json.dumps({"5_cats": {"cat": 9, "moon": 4}, "2_more": {"moon": 7, "dog": 1}}),
}
XL = {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": ("F16", (4, 2048)),
      "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_up.weight": ("F16", (640, 4))}


def test_explain_shows_the_rule_and_its_evidence():
    with World() as world:
        path = os.path.join(world.folder, "cats.safetensors")
        weights.write_safetensors(path, XL)
        report = world.lade_json("probe", path, "--explain")["explain"]
        (rule,) = report["fits"]
        assert rule["rule"] == "lora/kohya" and rule["held"] == rule["of"] and not report["nearest"], rule
        asked = [step for step in rule["steps"] if "asks" in step]
        assert all(step["holds"] for step in asked) and asked[0]["found"] in XL, asked
        (base,) = [step for step in rule["steps"] if step.get("sets") == "base"]
        assert base["to"] == "sdxl" and base["how"] == "told", base
        shown = world.lade("probe", path, "--explain").stdout
        assert "this one fits" in shown and "+ a name beginning with lora_unet_" in shown and "= base sdxl" in shown, shown
        assert "explain" not in world.lade_json("probe", path)


def test_explain_shows_the_nearest_when_none_fits():
    with World() as world:
        path = os.path.join(world.folder, "odd.safetensors")
        weights.write_safetensors(path, {name: (dtype, (shape[0], 777) if shape[1] == 2048 else shape) for name, (dtype, shape) in XL.items()})
        answer = world.lade_json("probe", path, "--explain", status=1)
        near = answer["explain"]["nearest"]
        assert not answer["explain"]["fits"] and near[0]["rule"] == "lora/kohya" and 0 < near[0]["held"] < near[0]["of"], near
        assert "base cannot be told" in near[0]["reason"] and len(near) <= 3, near
        done = world.lade("probe", path, "--explain", status=1)
        assert "nearest are" in done.stdout and "lora/kohya" in done.stdout, done


def test_a_guess_is_called_one():
    with World() as world:
        path = os.path.join(world.folder, "attention.safetensors")
        weights.write_safetensors(path, {f"transformer_blocks.0.attn.to_k.lora_{half}.weight": ("F16", shape) for half, shape in (("A", (4, 3072)), ("B", (3072, 4)))})
        (rule,) = world.lade_json("probe", path, "--explain")["explain"]["fits"]
        assert [(step["to"], step["how"]) for step in rule["steps"] if step.get("sets") == "base"] == [("qwen-image", "guessed")]
        given = world.lade_json("probe", path, "--explain", "--config", "base=flux")
        assert given["base"] == "flux"
        assert [step["how"] for step in given["explain"]["fits"][0]["steps"] if step.get("sets") == "base"] == ["given"]


def test_a_family_of_the_site_needs_no_build():
    with World() as world:
        folder, path = os.path.join(world.folder, "families"), os.path.join(world.folder, "tom.safetensors")
        os.mkdir(folder)
        weights.write_safetensors(path, {"whisker.0.weight": ("F16", (9, 4))})
        assert world.lade_json("probe", path, status=1)["error"]["code"] == "InvalidModelConfig"
        with open(os.path.join(folder, "cats.yaml"), "w", encoding="utf-8") as file:
            file.write(FAMILY)
        world.configure(families_dir=folder)
        found = world.lade_json("probe", path, "--explain")
        check_fields(found, type="lora", base="sdxl", identified_by="cats/cat-maker: a whisker projection")
        assert found["explain"]["fits"][0]["steps"][0]["found"] == "9, of whisker.0.weight"
        world.up()
        job = world.call("install", "wait_for_job", id=world.call("install", "heuristic_import", source=path)["id"], timeout_s=60)
        assert job["status"] == "completed", job
        check_fields(job["config_out"], type="lora", base="sdxl")


def test_a_mistake_in_a_family_of_the_site_names_file_and_line():
    with World() as world:
        folder, path = os.path.join(world.folder, "families"), os.path.join(world.folder, "tom.safetensors")
        os.mkdir(folder)
        weights.write_safetensors(path, {"whisker.0.weight": ("F16", (9, 4))})
        world.configure(families_dir=folder)
        for line, wrong, words in ((7, FAMILY.replace("axis: 0", "take: width"), "take is rank, dtype, count, input or output, not 'width'"),
                                   (2, FAMILY.replace("rules:", "part: x\nrules:"), "knows no 'part'"),
                                   (9, FAMILY.replace("base: sdxl", "base: sd-9"), "'sd-9' is no base"),
                                   (8, FAMILY.replace("tail.weight}", "*nothing}"), "undefined alias")):
            with open(os.path.join(folder, "cats.yaml"), "w", encoding="utf-8") as file:
                file.write(wrong)
            done = world.lade("probe", path, status=None)
            assert done.returncode and f"cats.yaml:{line}: " in done.stderr and words in done.stderr, (line, done.stderr)


def test_what_a_file_says_of_itself_is_in_its_record():
    with World() as world:
        path = os.path.join(world.folder, "cats.safetensors")
        weights.write_safetensors(path, XL, KOHYA)
        with open(os.path.join(world.folder, "cats.json"), "w", encoding="utf-8") as file:
            json.dump({"description": "Cats!", "notes": "at night", "activation text": "ulthar cat, cat, , ulthar cat", "preferred weight": 0.8}, file)
        world.up()
        job = world.call("install", "wait_for_job", id=world.call("install", "heuristic_import", source=path, inplace=True)["id"], timeout_s=60)
        record = job["config_out"]
        check_fields(record, title="Cats of Ulthar", author="Randolph C.", license="CC-BY-4.0", description="Cats! | at night",
                     trigger_phrases=["ulthar cat", "cat"], tags=["cat", "night"], resolution="1024x1024", precision="fp16",
                     parameters=4 * 2048 + 640 * 4, dialect="kohya", default_settings={"weight": 0.8},
                     preview={"from": "modelspec.thumbnail", "media_type": "image/jpeg", "size": 3000})
        check_fields(record["training"], network_dim=8, network_alpha=4, base_model="sd_xl_base_1.0.safetensors", learning_rate=0.0001,
                     tags=["moon", "cat", "dog"])
        assert "seed" not in record["training"]
        shown = world.lade("show", record["key"]).stdout
        for words in ("Cats of Ulthar", "ulthar cat, cat", "network_dim 8", "from modelspec.thumbnail"):
            assert words in shown, (words, shown)


def test_texts_of_a_file_are_cut_to_what_a_record_takes():
    with World() as world:
        path = os.path.join(world.folder, "long.safetensors")
        weights.write_safetensors(path, XL, {"modelspec.title": "ä" * 4000, "modelspec.description": "b" * 200000, "modelspec.author": " \n ",
                                             "modelspec.tags": ",".join(f"t{i}" for i in range(5000)), "modelspec.thumbnail": "data:text/html;base64,AAAA",
                                             "ss_tag_frequency": "[1, {", "ss_network_dim": "9" * 400})
        world.up()
        job = world.call("install", "wait_for_job", id=world.call("install", "heuristic_import", source=path)["id"], timeout_s=60)
        assert job["status"] == "completed", job
        record = job["config_out"]
        assert record["title"] == "ä" * 256 and len(record["description"]) == 16384 and len(record["tags"]) == 100, record["title"]
        assert "author" not in record and "preview" not in record, record.keys()


def test_a_single_file_says_what_it_needs_beside_it():
    with World() as world:
        path = os.path.join(world.folder, "dev.safetensors")
        shapes = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64), "txt_in.weight": (3072, 4096),
                  "guidance_in.out_layer.weight": (3072, 3072)}
        weights.write_safetensors(path, {name: ("BF16", shape) for name, shape in shapes.items()})
        check_fields(world.lade_json("probe", path), requires=["clip_embed (large)", "t5_encoder", "vae (flux)"], precision="bf16", ema=False)
        shapes.update({"text_encoders.t5xxl.x": (4,), "vae.decoder.x": (4,), "model_ema.a": (2,), "model_ema.b": (2,), "model_ema.c": (2,)})
        weights.write_safetensors(path, {name: ("BF16", shape) for name, shape in shapes.items()})
        check_fields(world.lade_json("probe", path), requires=["clip_embed (large)"], ema=True)
