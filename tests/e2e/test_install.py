"""Each kind of source ends in the right record, with the right events."""
import os

from lib import samples, weights
from lib.checks import check_completed, check_fields, check_files, no_leftovers, watch_install
from lib.world import World

LIMIT_S = 120


def test_local_file_is_copied():
    with World() as world:
        path = samples.checkpoint(os.path.join(world.folder, "my model.safetensors"), "sd-1", "inpaint")
        world.up()
        job, seen = watch_install(world, path)
        record = check_completed(job, seen, downloads=False)
        check_fields(record, type="main", base="sd-1", format="checkpoint", variant="inpaint", prediction_type="epsilon",
                     name="my model", source=path, source_type="path")
        assert record["path"] == "sd-1/main/my model.safetensors", record["path"]
        check_files(world, record, path)
        assert os.path.exists(path), "the original is kept"
        no_leftovers(world, [record])


def test_local_diffusers_folder():
    with World() as world:
        folder = samples.pipeline(os.path.join(world.folder, "pipe"), "sdxl", prediction="v_prediction")
        world.up()
        job, seen = watch_install(world, folder)
        record = check_completed(job, seen, downloads=False)
        check_fields(record, type="main", base="sdxl", format="diffusers", variant="normal", name="pipe",
                     prediction_type="v_prediction", source_type="path")
        check_files(world, record, folder)
        no_leftovers(world, [record])


def test_local_in_place():
    with World() as world:
        path = weights.lora(os.path.join(world.folder, "style.safetensors"), 3)
        world.up()
        job, seen = watch_install(world, path, inplace=True)
        record = check_completed(job, seen, downloads=False)
        check_fields(record, type="lora", base="sd-1", format="lycoris", name="style", path=path, source=path)
        no_leftovers(world, [])


def test_url():
    with World() as world:
        path = weights.lora(world.hub.file("loras/fine style.safetensors"), 4, width=1024)
        world.up()
        source = f"{world.hub.url}/files/loras/fine%20style.safetensors"
        job, seen = watch_install(world, source)
        record = check_completed(job, seen, downloads=True)
        check_fields(record, type="lora", base="sd-2", format="lycoris", name="fine style", source=source, source_type="url")
        check_files(world, record, path)
        no_leftovers(world, [record])
        assert job["bytes"] == job["total_bytes"] == os.path.getsize(path)


def test_hub_repo():
    """The half-precision files of each folder, and nothing else the repository has."""
    with World() as world:
        repo = samples.pipeline(world.hub.repo("artist/tiny-sd"), labels=("", ".fp16"), extras=True)
        world.up()
        job, seen = watch_install(world, "artist/tiny-sd")
        record = check_completed(job, seen, downloads=True)
        check_fields(record, type="main", base="sd-1", format="diffusers", variant="normal", name="tiny-sd",
                     prediction_type="epsilon", source="artist/tiny-sd", source_type="hf_repo_id", repo_variant="fp16")
        wanted = {name: digest for name, digest in weights.tree(repo).items()
                  if name.split("/")[0] in ("model_index.json", "scheduler", "unet", "vae", "text_encoder", "tokenizer")
                  and (not name.endswith(".safetensors") or name.endswith(".fp16.safetensors"))}
        check_files(world, record, wanted)
        no_leftovers(world, [record])
        log = world.hub.log()
        assert log["totals"]["bytes"] < 2 * sum(os.path.getsize(os.path.join(repo, name)) for name in wanted) + 50000
        repeats = {path: entry for path, entry in log["paths"].items() if path.startswith("/lfs/") and entry["requests"] > 1}
        assert not repeats, repeats


def test_hub_repo_revision_of_a_variant():
    """`repo:fp16` asks for the revision of that name first."""
    with World() as world:
        samples.pipeline(world.hub.repo("artist/two"), seed=5)
        repo = samples.pipeline(world.hub.repo("artist/two", "fp16"), seed=9)
        world.up()
        job, seen = watch_install(world, "artist/two:fp16")
        record = check_completed(job, seen, downloads=True)
        check_fields(record, type="main", base="sd-1", format="diffusers", source="artist/two:fp16")
        check_files(world, record, repo)


def test_hub_subfolder():
    with World() as world:
        repo = samples.pipeline(world.hub.repo("artist/big"), "sdxl")
        world.up()
        job, seen = watch_install(world, "artist/big::vae")
        record = check_completed(job, seen, downloads=True)
        check_fields(record, type="vae", base="sdxl", format="diffusers", source="artist/big::vae", name="big_vae")
        check_files(world, record, os.path.join(repo, "vae"))
        no_leftovers(world, [record])


def test_hub_one_file():
    with World() as world:
        path = samples.checkpoint(os.path.join(world.hub.repo("artist/files"), "sub", "v2.safetensors"), "sd-2", "depth")
        weights.embedding(os.path.join(world.hub.repo("artist/files"), "other.safetensors"), 1)
        world.up()
        job, seen = watch_install(world, "artist/files::sub/v2.safetensors")
        record = check_completed(job, seen, downloads=True)
        check_fields(record, type="main", base="sd-2", format="checkpoint", variant="depth",
                     source="artist/files::sub/v2.safetensors", source_type="hf_repo_id", name="files_v2")
        check_files(world, record, path)


def test_overrides_are_kept():
    with World() as world:
        path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"), "sd-2")
        world.up()
        config = {"name": "renamed", "description": "of my own", "prediction_type": "epsilon"}
        job, seen = watch_install(world, path, config=config)
        record = check_completed(job, seen, downloads=False)
        check_fields(record, type="main", base="sd-2", **config)


def test_what_is_no_model_is_refused():
    """An error event, no record, no file left."""
    with World() as world:
        path = os.path.join(world.folder, "x.safetensors")
        with open(path, "wb") as file:
            file.write(b"I am no model at all" * 10)
        world.up()
        job, seen = watch_install(world, path)
        assert job["status"] == "error" and job["error_type"] in ("InvalidModelConfig", "corrupt", "too_large"), job
        assert job["error"] and seen[-1]["error"] == job["error"]
        assert world.call("store", "all_models") == []
        no_leftovers(world, [])


def test_same_model_twice():
    """The second install of a path that is recorded is refused, the first stays as it is."""
    with World() as world:
        path = weights.embedding(os.path.join(world.folder, "ti.safetensors"), 1)
        world.up()
        first = world.install(path)
        second = world.install(path)
        assert first["status"] == "completed", first["error"]
        assert second["status"] == "error" and second["error_type"] in ("DuplicateModel", "exists"), second
        records = world.call("store", "all_models")
        assert [record["key"] for record in records] == [first["config_out"]["key"]]
        check_files(world, records[0], path)
