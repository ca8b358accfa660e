"""The hub library's cache, and installs that ask nobody."""
import os
import re
import shutil

from lib import hubcache, samples, weights
from lib.checks import check_completed, check_fields, check_files, no_leftovers, watch_install
from lib.skip import Skip
from lib.world import BUILD, DAEMONS, SANITIZED, World

LIMIT_S = 180
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_commit(world, repo):
    """The commit of main, as the plan of an install has it; then the log begins anew."""
    plan = world.lade_json("install", repo, "--dry-run")
    url = plan["files"][0].get("url")
    world.hub.log(reset=True)
    return re.search(r"/resolve/([0-9a-f]{40})/", url).group(1)


def requests(world):
    return [entry["path"] for entry in world.hub.log()["requests"]]


def cache_of(world):
    return os.path.join(world.home, ".cache", "huggingface", "hub")


def start_traced(world):
    """All daemons, the workers below strace; answers the logs of what sockets they made."""
    if not shutil.which("strace") or SANITIZED:
        raise Skip("there is no strace, or a sanitizer that does not work below it")
    world.start("broker")
    logs = []
    for name in ("download", "install"):
        logs.append(os.path.join(world.logs, f"{name}.strace"))
        world.spawn(name, ["strace", "-D", "-f", "-qq", "-e", "trace=socket,connect", "-o", logs[-1],
                           os.path.join(BUILD, DAEMONS[name]), "--data", world.data])
    world.wait_ready({"download", "install"})
    return logs


def test_offline_a_cached_repository_is_installed_without_a_socket():
    with World(env={"HF_HUB_OFFLINE": "1"}) as world:
        folder = samples.pipeline(os.path.join(world.folder, "made"), labels=("", ".fp16"))
        hubcache.fill(cache_of(world), "artist/cached", folder, COMMIT)
        before = weights.tree(cache_of(world))
        logs = start_traced(world)
        job, seen = watch_install(world, "artist/cached")
        record = check_completed(job, seen, downloads=True)
        check_fields(record, source="artist/cached", source_type="hf_repo_id", source_revision=COMMIT, repo_variant="fp16")
        placed = {name: digest for name, digest in weights.tree(folder).items()
                  if not name.endswith(".safetensors") or name.endswith(".fp16.safetensors")}
        check_files(world, record, placed)
        no_leftovers(world, [record])
        assert weights.tree(cache_of(world)) == before, "the cache is read and never written"
        inodes = {os.stat(os.path.join(above, name)).st_nlink for above, _, names in os.walk(world.record_path(record))
                  for name in names}
        assert inodes == {1}, "no file is one with the cache's"
        job = world.install("artist/elsewhere")
        assert (job["status"], job["error_type"]) == ("error", "offline"), job
        world.stop()
        opened = []
        for path in logs:
            with open(path, encoding="utf-8", errors="replace") as file:
                opened += [line for line in file if re.search(r"AF_INET|PF_INET", line)]
        assert not opened, opened[:5]


def test_offline_a_revision_one_file_and_a_folder():
    with World({"install.precision": "float32"}, env={"HF_HUB_OFFLINE": "1"}) as world:
        one = samples.pipeline(os.path.join(world.folder, "one"), seed=1)
        two = samples.pipeline(os.path.join(world.folder, "two"), seed=9)
        weights.embedding(os.path.join(one, "other.safetensors"), 3)
        hubcache.fill(cache_of(world), "artist/cached", one, COMMIT)
        hubcache.fill(cache_of(world), "artist/cached", two, COMMIT[::-1], ref="refs/pr/1")
        three = samples.pipeline(os.path.join(world.folder, "three"), seed=20)
        hubcache.fill(cache_of(world), "artist/fp16", three, COMMIT[::-1], ref="fp16")
        world.up()
        rows = [("artist/cached::other.safetensors", os.path.join(one, "other.safetensors"), COMMIT),
                ("artist/cached::vae", os.path.join(one, "vae"), COMMIT),
                ("artist/cached@refs/pr/1", two, COMMIT[::-1]),
                (f"artist/cached@{COMMIT[::-1]}::vae", os.path.join(two, "vae"), COMMIT[::-1]),
                ("artist/fp16:fp16", three, COMMIT[::-1])]
        for number, (source, wanted, commit) in enumerate(rows):
            job = world.install(source, config={"name": f"model {number}"})
            assert job["status"] == "completed", (source, job["error_type"], job["error"])
            check_fields(job["config_out"], source=source, source_revision=commit)
            check_files(world, job["config_out"], wanted)


def test_offline_what_is_not_there_says_what_to_do():
    with World({"broker.max_attempts": 1}) as world:
        world.env["HF_HUB_OFFLINE"] = "1"
        url = world.hub.url
        folder = samples.pipeline(os.path.join(world.folder, "made"))
        cache = cache_of(world)
        hubcache.fill(cache, "artist/half", folder, COMMIT, only=lambda name: not name.startswith("vae/"))
        broken = hubcache.fill(cache, "artist/broken", folder, COMMIT)
        os.unlink(os.path.join(broken, "blobs", hubcache.digest(os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors"))))
        damaged = hubcache.fill(cache, "artist/damaged", folder, COMMIT)
        with open(os.path.join(damaged, "blobs", hubcache.digest(os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors"))),
                  "r+b") as file:
            file.seek(3000)
            file.write(b"rot")
        os.makedirs(os.path.join(cache, "models--artist--odd", "refs"))
        with open(os.path.join(cache, "models--artist--odd", "refs", "main"), "w", encoding="ascii") as file:
            file.write("../../../etc")
        world.up()
        for source, code, words in (
                ("artist/none", "offline", ("no artist/none", "HF_HUB_OFFLINE", "local path")),
                ("artist/odd", "offline", ("no artist/odd",)), ("artist/half@v2", "offline", ("no artist/half@v2",)),
                ("artist/half", "offline", ("vae", "is missing", "unset hub.offline")),
                ("artist/half:onnx", "offline", ("No downloadable files found",)),
                ("artist/broken", "offline", ("unet is missing",)),
                ("artist/damaged", "digest_mismatch", ("sha256",)),
                (f"{url}/artist/half/resolve/main/x.safetensors", "offline", ("is not fetched",))):
            job = world.install(source)
            assert (job["status"], job["error_type"]) == ("error", code), (source, job["error_type"], job["error"])
            assert all(word in job["error"] for word in words), (source, job["error"])
        assert requests(world) == [], requests(world)
        assert world.call("store", "all_models") == []
        no_leftovers(world, [])
        done = world.lade("install", "artist/none", status=1)
        assert "HF_HUB_OFFLINE" in done.stderr, done.stderr


def test_online_only_the_list_is_asked_for():
    """Every blob is there, of another commit: no file is fetched. HF_HOME says where."""
    with World() as world:
        world.env["HF_HOME"] = os.path.join(world.folder, "hf")
        folder = samples.pipeline(world.hub.repo("artist/both"))
        where = hubcache.fill(os.path.join(world.folder, "hf", "hub"), "artist/both", folder, COMMIT)
        world.up()
        plan = world.lade_json("install", "artist/both", "--dry-run")
        assert {file["url"].split(":")[0] for file in plan["files"]} == {"file"}, plan
        assert plan["files"][0]["url"].startswith(f"file://{where}/blobs/"), plan["files"][0]
        world.hub.log(reset=True)
        job, seen = watch_install(world, "artist/both")
        record = check_completed(job, seen, downloads=True)
        check_files(world, record, folder)
        assert set(requests(world)) == {"/api/models/artist/both", "/api/models/artist/both/revision/fp16"}, requests(world)
        assert record["source_api_response"] and record["source_revision"] != COMMIT


def test_online_what_the_cache_lacks_or_has_broken_is_fetched():
    """One blob is missing, one is cut short, one has rotted: those three, and nothing else, come from the hub."""
    with World({"hub.cache": "/nowhere"}) as world:
        world.configure(**{"hub.cache": os.path.join(world.folder, "cache"), "log_level": "info", "broker.beat_ms": 200})
        folder = samples.pipeline(world.hub.repo("artist/bad"))
        where = hubcache.fill(os.path.join(world.folder, "cache"), "artist/bad", folder, COMMIT)

        def blob(name):
            return os.path.join(where, "blobs", hubcache.digest(os.path.join(folder, name)))

        unet, vae = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
        os.unlink(blob("text_encoder/model.safetensors"))
        os.truncate(blob(vae), 500)
        for name in (unet, "tokenizer/vocab.json"):
            with open(blob(name), "r+b") as file:
                file.seek(5)
                file.write(b"?")
        world.up()
        world.hub.log(reset=True)
        job = world.install("artist/bad")
        assert job["status"] == "completed", (job["error_type"], job["error"])
        check_files(world, job["config_out"], folder)
        no_leftovers(world, [job["config_out"]])
        fetched = sorted(path.split("/", 5)[5] for path in requests(world) if "/resolve/" in path)
        assert fetched == ["text_encoder/model.safetensors", "tokenizer/vocab.json", unet, vae], fetched
        said = world.processes[-1].text()
        assert "is not what its name says" in said and "could not give" in said, "it is said in the log"


def test_a_pinned_commit_that_is_cached_whole_asks_nothing():
    with World({"install.precision": "float32"}) as world:
        folder = samples.pipeline(world.hub.repo("artist/pinned"))
        part = samples.pipeline(world.hub.repo("artist/part"), seed=30)
        world.up()
        commit = hub_commit(world, "artist/pinned")
        hubcache.fill(cache_of(world), "artist/pinned", folder, commit)
        other = hub_commit(world, "artist/part")
        hubcache.fill(cache_of(world), "artist/part", part, other, only=lambda name: not name.startswith("vae/"))
        job = world.install(f"artist/pinned@{commit}")
        assert job["status"] == "completed", (job["error_type"], job["error"])
        check_files(world, job["config_out"], folder)
        assert requests(world) == [], requests(world)
        job = world.install(f"artist/part@{other}", config={"name": "part"})
        assert job["status"] == "completed", (job["error_type"], job["error"])
        check_files(world, job["config_out"], part)
        fetched = sorted(path.split("/", 5)[5] for path in requests(world) if "/resolve/" in path)
        assert fetched == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"], fetched


def test_the_cache_can_be_left_alone():
    with World({"hub.cache": "none"}) as world:
        folder = samples.pipeline(world.hub.repo("artist/both"))
        hubcache.fill(cache_of(world), "artist/both", folder, COMMIT)
        world.up()
        plan = world.lade_json("install", "artist/both", "--dry-run")
        assert all(file["url"].startswith(world.hub.url) for file in plan["files"]), plan
