"""Installed files are read again: what went bad is told, file by file, and nothing is touched."""
import json
import os

from lib import samples, weights
from lib.checks import nothing_temporary
from lib.world import LadeError, World

LIMIT_S = 120


def verified(world, **args):
    return world.call("install", "verify", timeout_s=60, **args)


def flip(path, at, keep_time=True):
    """One bit of a file, as a disk does it: without a trace."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def big(path, seed):
    """A LoRA of some 200 KiB: samples do not see all of it."""
    return weights.lora(path, seed, rank=16)


def installed(world, path, **args):
    job = world.install(path, **args)
    assert job["status"] == "completed", job
    return job["config_out"]


def problems(result):
    return sorted((one["problem"], os.path.basename(one["file"])) for one in result["bad"])


def test_samples_are_no_proof_until_a_digest_is_recorded():
    with World() as world:
        world.start("broker", "install")
        record = installed(world, big(os.path.join(world.folder, "style.safetensors"), 1))
        path = world.record_path(record)
        result = verified(world)
        assert (result["checked"], result["ok"], result["bad"], result["bytes"]) == (1, 1, [], os.path.getsize(path)), result
        assert result["unverified"][0]["key"] == record["key"] and "samples" in result["unverified"][0]["reason"]
        assert "files" not in world.call("store", "get_model", key=record["key"]), "nothing is written unless asked"
        middle = 60000  # between two samples
        flip(path, middle)
        assert verified(world)["bad"] == [], "samples do not see it"
        flip(path, middle)
        result = verified(world, record=True)
        assert result["recorded"] == [record["key"]] and result["unverified"] == [], result
        stored = world.call("store", "get_model", key=record["key"])
        assert stored["files"] == [{"path": "style.safetensors", "size": os.path.getsize(path), "sha256": weights.sha256(path)}]
        result = verified(world)
        assert (result["ok"], result["unverified"], result["bad"]) == (1, [], []), result
        flip(path, middle)
        (bad,) = verified(world)["bad"]
        assert (bad["problem"], bad["file"], bad["key"]) == ("digest", path, record["key"]), bad
        assert bad["expected"] == stored["files"][0]["sha256"] and bad["found"] == weights.sha256(path)
        assert "bit rot" in bad["words"], bad
        flip(path, middle + 1, keep_time=False)
        (bad,) = verified(world, keys=[record["key"]])["bad"]
        assert "was written to at" in bad["words"] and "bit rot" not in bad["words"], bad


def test_missing_cut_off_and_sampled():
    with World() as world:
        world.start("broker", "install")
        records = [installed(world, big(os.path.join(world.folder, f"m{i}.safetensors"), i)) for i in range(4)]
        paths = [world.record_path(record) for record in records]
        os.unlink(paths[0])
        os.truncate(paths[1], os.path.getsize(paths[1]) - 1)
        flip(paths[2], 100)  # in the first sample
        result = verified(world)
        assert problems(result) == [("missing", "m0.safetensors"), ("samples", "m2.safetensors"), ("size", "m1.safetensors")]
        assert (result["checked"], result["ok"], len(result["unverified"])) == (4, 1, 1), result
        size = next(one for one in result["bad"] if one["problem"] == "size")
        assert size["expected"] == size["found"] + 1 and "cut off" in size["words"], size
        # A bad model's digest is not recorded as its right one.
        assert verified(world, record=True)["recorded"] == [records[3]["key"]]


def test_every_file_of_a_folder():
    with World({"install.hash": "sha256"}) as world:
        world.start("broker", "install")
        record = installed(world, samples.pipeline(os.path.join(world.folder, "pipe")))
        folder = world.record_path(record)
        result = verified(world)
        assert (result["ok"], result["unverified"], result["bad"]) == (1, [], []), "all bytes are in the model's own hash"
        unet = os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors")
        flip(unet, os.path.getsize(unet) - 5)
        (bad,) = verified(world)["bad"]
        assert bad["problem"] == "hash" and bad["expected"] == record["hash"], bad
        flip(unet, os.path.getsize(unet) - 5)


def test_recorded_folders_name_the_file():
    with World() as world:
        world.start("broker", "install")
        record = installed(world, samples.pipeline(os.path.join(world.folder, "pipe")))
        folder = world.record_path(record)
        assert verified(world, record=True)["recorded"] == [record["key"]]
        files = {one["path"]: one for one in world.call("store", "get_model", key=record["key"])["files"]}
        assert {path: one["sha256"] for path, one in files.items()} == weights.tree(folder)
        assert verified(world)["bad"] == []
        flip(os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors"), 70000)
        flip(os.path.join(folder, "vae", "config.json"), 3)
        os.unlink(os.path.join(folder, "tokenizer", "merges.txt"))
        with open(os.path.join(folder, "scheduler", "scheduler_config.json"), "a", encoding="utf-8") as file:
            file.write("\n")
        assert problems(verified(world)) == [("digest", "config.json"), ("digest", "diffusion_pytorch_model.safetensors"),
                                             ("missing", "merges.txt"), ("size", "scheduler_config.json")]


def test_digests_the_hub_told():
    with World() as world:
        repo = world.hub.repo("artist/tiny")
        samples.pipeline(repo, labels=("", ".fp16"))
        world.start("broker", "download", "install")
        record = installed(world, "artist/tiny")
        result = verified(world)
        assert (result["ok"], result["bad"], result["unverified"]) == (1, [], []), result
        flip(os.path.join(world.record_path(record), "unet", "diffusion_pytorch_model.fp16.safetensors"), 50000)
        (bad,) = verified(world)["bad"]
        assert bad["problem"] == "digest" and bad["file"].endswith("unet/diffusion_pytorch_model.fp16.safetensors"), bad


def test_command():
    with World() as world:
        world.start("broker", "install")
        records = [installed(world, big(os.path.join(world.folder, f"m{i}.safetensors"), i)) for i in range(3)]
        nothing_temporary(world)
        before = weights.tree(world.models_dir)
        done = world.lade("verify")
        assert done.stdout.count("unverified") == 3 and "3 models" in done.stderr and "--record" in done.stderr, (done.stdout, done.stderr)
        done = world.lade("verify", "--record")
        assert done.stdout == "" and "sha256 of 3 models" in done.stderr, (done.stdout, done.stderr)
        path = world.record_path(records[1])
        flip(path, 60000)
        done = world.lade("verify", status=1)
        assert f"digest  {records[1]['key']}  {path}: its bytes are not those that were installed" in done.stdout, done.stdout
        assert "1 of the files" in done.stderr, done.stderr
        assert world.lade_json("verify", records[0]["key"][:10], "m2")["checked"] == 2
        result = json.loads(world.lade("verify", "m1", "--json", status=1).stdout)
        assert (result["bad_count"], result["bad"][0]["name"]) == (1, "m1"), result
        flip(path, 60000)
        assert weights.tree(world.models_dir) == before, "read-only"
        assert "no model" in world.lade("verify", "nothing", status=3).stderr
        try:
            verified(world, keys=[records[0]["key"], "0" * 32])
            raise AssertionError("an unknown key was verified")
        except LadeError as error:
            assert error.code == "UnknownModel", error


def test_pause_and_kill_go_on_where_they_were():
    with World({"broker.max_deaths": 20, "broker.lease_beats": 2}) as world:
        root, count = os.path.join(world.folder, "many"), 40
        for i in range(count):
            weights.embedding(os.path.join(root, f"{i:03}.safetensors"), None, vectors=10000 + i)  # 30 MB, holes
        world.start("broker")
        worker = world.start("install")
        assert len(world.call("install", "scan_directory", scan_dir=root, timeout_s=60)) == count
        job = world.call("install", "verify", record=True, wait=False)
        world.eventually(lambda: world.call("jobs", "get", id=job["id"])["stage"] >= 2)
        worker.kill()
        world.start("install")
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
        assert ended["status"] == "completed", ended
        result = ended["result"]
        assert (result["checked"], result["files"], result["bad"], len(result["recorded"])) == (count, count, [], count), result
        assert result["bytes"] == sum(os.path.getsize(os.path.join(root, name)) for name in os.listdir(root))
