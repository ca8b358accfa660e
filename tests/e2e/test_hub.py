"""Hub repositories: revisions and the commit they are pinned to, what a refusal says, metadata, and what is fetched twice: nothing."""
import json
import os
import urllib.request

from lib import samples, weights
from lib.checks import check_completed, check_fields, check_files, ended_event, no_leftovers, watch_install
from lib.world import QUICK, LadeError, World

LIMIT_S = 180


def commit_of(world, repo, revision="main"):
    """What the hub says a revision's commit is."""
    url = f"{world.hub.url}/api/models/{repo}/revision/{revision.replace('/', '%2F')}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return json.load(answer)["sha"]


def failed(world, source, code, *words, **args):
    """The install ends with this code, a sentence with these words, nothing recorded and nothing left."""
    job, _ = watch_install(world, source, **args)
    assert (job["status"], job["error_type"]) == ("error", code), (source, args, job["status"], job["error_type"], job["error"])
    missing = [word for word in words if word not in job["error"]]
    assert not missing, (source, missing, job["error"])
    assert world.call("store", "all_models") == []
    no_leftovers(world, [])
    return job


def test_a_revision_is_pinned_to_its_commit():
    """A branch, a tag, a commit, a pull request's ref; as text, as a map, as a page. The record has source and commit."""
    with World({"install.precision": "float32"}) as world:
        for number, revision in enumerate((None, "v1.0", "feature/x", "refs/pr/1")):
            folder = world.hub.repo("artist/many", revision and revision.replace("/", "%2F"))
            weights.embedding(os.path.join(folder, "learned_embeds.safetensors"), number)
            samples.vae(os.path.join(folder, "sub"), seed=10 + number)
        world.up()
        first = commit_of(world, "artist/many", "v1.0")
        file = "learned_embeds.safetensors"
        page = f"{world.hub.url}/artist/many/tree"
        forms = [
            (f"artist/many::{file}", None, "main"), (f"artist/many@v1.0::{file}", None, "v1.0"),
            (f"artist/many@{first}:fp16:{file}", None, "v1.0"), (f"artist/many@feature/x::{file}", None, "feature/x"),
            (f"artist/many@refs/pr/1::{file}", None, "refs/pr/1"),
            (f"artist/many@v1.0::{file}", {"type": "hf", "repo_id": "artist/many", "revision": "v1.0", "subfolder": file}, "v1.0"),
            (f"{page}/v1.0/sub", None, "v1.0"), (f"{page}/refs%2Fpr%2F1/sub", None, "refs/pr/1"),
            (f"{page}/refs/pr/1/sub", None, "refs/pr/1"),
        ]
        for number, (source, map_form, revision) in enumerate(forms):
            world.hub.log(reset=True)
            config = {"name": f"model {number}"}
            if map_form:
                job = world.call("install", "import_model", source=map_form, config=config, on_equal="copy")
                job = world.call("install", "wait_for_job", id=job["id"])
            else:
                job = world.install(source, config=config, on_equal="copy")
            assert job["status"] == "completed", (source, job["error_type"], job["error"])
            commit = commit_of(world, "artist/many", revision)
            check_fields(job["config_out"], source=source, source_revision=commit)
            resolved = {entry["path"].split("/")[4] for entry in world.hub.log(path="*/resolve/*")["requests"]}
            assert resolved == {commit}, (source, resolved)
            wanted = os.path.join(world.hub.repo("artist/many", None if revision == "main" else revision.replace("/", "%2F")),
                                  "sub" if "/sub" in source else file)
            check_files(world, job["config_out"], wanted)


def test_a_branch_that_moves_meanwhile_is_not_mixed():
    """Half of the files are there when the branch gets another commit: the rest are of the first one too."""
    with World() as world:
        before = samples.pipeline(world.hub.repo("artist/moves", "one"), seed=1)
        samples.pipeline(world.hub.repo("artist/moves", "two"), seed=50)
        world.hub.repo("artist/moves")
        world.hub.repo_settings("artist/moves", main="one")
        world.up()
        world.hub.faults({"path": "*/unet/*.safetensors", "origin": "cdn", "action": "stall", "bytes": 1000, "count": 1})
        events = world.events()
        events.ready()
        job = world.call("install", "heuristic_import", source="artist/moves")
        events.until(lambda event: event["event"] == "download_completed", 60)
        world.hub.repo_settings("artist/moves", main="two")
        world.hub.clear()
        ended = world.call("install", "wait_for_job", id=job["id"])
        assert ended["status"] == "completed", (ended["error_type"], ended["error"])
        check_files(world, ended["config_out"], before)
        assert ended["config_out"]["source_revision"] == commit_of(world, "artist/moves", "one")


def test_each_refusal_says_what_to_do():
    """Gated, private and missing repositories, revisions and files: for nobody, a stranger's token and a good one."""
    with World({"broker.max_attempts": 1}) as world:
        for name in ("open", "gated", "private"):
            weights.embedding(os.path.join(world.hub.repo(f"org/{name}"), "x.safetensors"), 1)
            weights.embedding(os.path.join(world.hub.repo(f"org/{name}"), "sub", "model.safetensors"), 2)
        world.hub.repo_settings("org/gated", gated="auto")
        world.hub.repo_settings("org/private", private=True)
        world.up()
        failed(world, "org/gated::x.safetensors", "license_gate", "accept its terms", "org/gated", "--token")
        failed(world, "org/gated::x.safetensors", "license_gate", "gated", access_token="hf_nobody")
        failed(world, "org/gated::x.safetensors", "auth_denied", "does not accept the token", access_token="hf_unknown")
        failed(world, "org/private::x.safetensors", "UnknownMetadata", "private", "--token")
        failed(world, "org/private::x.safetensors", "UnknownMetadata", "an account that may see it", access_token="hf_nobody")
        failed(world, "org/none", "UnknownMetadata", "'org/none' not found", "check the spelling")
        failed(world, "org/open@v9::x.safetensors", "unknown_revision", "no revision 'v9'", "a branch, a tag, a commit")
        failed(world, f"org/open@{'0' * 40}::x.safetensors", "unknown_revision", "0" * 40)
        failed(world, "org/open::missing.safetensors", "not_found", "no such file or folder", "REPO::FILE", "x.safetensors")
        failed(world, "org/open::nowhere/at/all", "not_found", "no such file or folder")
        failed(world, "org/open:onnx", "InvalidModelConfig", "No downloadable files found", "onnx variant")
        failed(world, "org/open@main/..", "ValueError", "no revision")
        failed(world, "org/open@", "ValueError", "no revision")
        for name, token in (("gated", "hf_good"), ("private", "hf_good"), ("open", None)):
            job = world.install(f"org/{name}::x.safetensors", config={"name": name}, access_token=token, on_equal="copy")
            assert job["status"] == "completed", (name, job["error_type"], job["error"])


def test_a_token_by_pattern_is_for_the_list_too():
    """remote_api_tokens open a private repository: its list as well as its files, and not the CDN."""
    with World() as world:
        repo = samples.pipeline(world.hub.repo("org/private"))
        world.hub.repo_settings("org/private", private=True, gated="auto")
        world.configure(**{**QUICK, "remote_api_tokens": [{"url_regex": f"^{world.hub.url}/", "token": "hf_good"}]})
        world.up()
        job, seen = watch_install(world, "org/private")
        check_files(world, check_completed(job, seen, downloads=True), repo)
        log = world.hub.log()
        assert log["totals"]["cdn_authorization"] == 0 and "hf_good" not in repr(job) + repr(seen)


def test_a_missing_variant_falls_back():
    with World() as world:
        repo = samples.pipeline(world.hub.repo("artist/plain"))
        world.up()
        job, seen = watch_install(world, "artist/plain:fp16")
        check_files(world, check_completed(job, seen, downloads=True), repo)
        assert [entry["status"] for entry in world.hub.log(path="/api/models/*")["requests"]] == [404, 200], \
            "first the revision of that name"


def kill_in_the_middle(world, victim):
    """Two of the files are there and two stand still when a worker is killed; another goes on. Answers the record."""
    repo = samples.pipeline(world.hub.repo("artist/long"))
    world.hub.faults({"path": "*/unet/*", "origin": "cdn", "action": "stall", "bytes": 70000},
                     {"path": "*/vae/*", "origin": "cdn", "action": "stall", "bytes": 70000})
    events = world.events()
    events.ready()
    job = world.call("install", "heuristic_import", source="artist/long")
    done = set()
    while len(done) < len(weights.tree(repo)) - 2:
        event = events.until(lambda event: event["event"] in ("download_completed", "model_install_error"), 60)[-1]
        assert event["event"] == "download_completed", event
        done.add(event["source"])
    victim.kill()
    world.hub.clear()
    world.start(victim.name)
    events.until(ended_event(job), 90)
    job = world.call("install", "wait_for_job", id=job["id"])
    assert job["status"] == "completed", (job["error_type"], job["error"])
    check_files(world, job["config_out"], repo)
    no_leftovers(world, [job["config_out"]])
    again = {url: 1 for url in done if len(world.hub.log(path=url[len(world.hub.url):])["requests"]) != 1}
    assert not again, f"fetched again: {sorted(again)}"
    assert len(world.hub.log(path="/api/models/*")["requests"]) == 2, "the list was asked for once (with and without fp16)"


def test_a_download_worker_killed_in_the_middle():
    with World({"broker.lease_beats": 2, "download.stall_s": 20}) as world:
        world.hub.repo("artist/long")
        _, download, _ = world.start("broker", "download", "install")
        kill_in_the_middle(world, download)


def test_an_install_worker_killed_in_the_middle():
    with World({"broker.lease_beats": 2, "download.stall_s": 20}) as world:
        world.hub.repo("artist/long")
        _, _, install = world.start("broker", "download", "install")
        kill_in_the_middle(world, install)


def test_a_lost_file_is_fetched_again_alone():
    """What vanishes from the temporary folder between download and placing is asked for again, and nothing else."""
    with World({"broker.max_attempts": 1}) as world:
        repo = samples.pipeline(world.hub.repo("artist/lost"))
        world.start("broker", "download")
        installer = world.start("install")
        world.hub.faults({"path": "*/unet/*", "origin": "cdn", "action": "stall", "bytes": 70000, "count": 1})
        events = world.events()
        events.ready()
        job = world.call("install", "heuristic_import", source="artist/lost")
        events.until(lambda event: event["event"] == "download_completed" and event["source"].endswith("vocab.json"), 60)
        installer.kill()
        os.unlink(os.path.join(world.models_dir, f"tmpinstall_{job['id']}", "lost", "tokenizer", "vocab.json"))
        world.hub.clear()
        world.start("install")
        events.until(ended_event(job), 90)
        job = world.call("install", "wait_for_job", id=job["id"])
        assert job["status"] == "completed", (job["error_type"], job["error"])
        check_files(world, job["config_out"], repo)
        asked = [entry["path"] for entry in world.hub.log(path="*/resolve/*")["requests"]]
        twice = sorted({os.path.basename(path) for path in asked if asked.count(path) > 1} - {"diffusion_pytorch_model.safetensors"})
        assert twice == ["vocab.json"], twice


def test_the_hubs_words_are_kept():
    """The whole answer is in the record, and tags, description and license where people look for them."""
    with World() as world:
        samples.pipeline(world.hub.repo("artist/told"))
        world.hub.repo_settings("artist/told", tags=["diffusers", "anime", "license:openrail++"], author="artist",
                                cardData={"license": "openrail++", "description": "Paints cats."})
        world.up()
        job, seen = watch_install(world, "artist/told")
        record = check_completed(job, seen, downloads=True)
        check_fields(record, tags=["diffusers", "anime", "license:openrail++"], description="Paints cats.")
        answer = record["source_api_response"]
        answer = json.loads(answer) if isinstance(answer, str) else answer
        assert answer["id"] == "artist/told" and len(answer["siblings"]) == len(weights.tree(world.hub.repo("artist/told")))
        assert [one["key"] for one in world.call("store", "search_by_tag", tags=["anime"])] == [record["key"]]


def test_metadata_without_an_install():
    """By page and by id, on the wire and by the command; it is what from_json takes, and an unknown page is UnknownMetadata."""
    with World() as world:
        weights.embedding(os.path.join(world.hub.repo("org/name"), "sub", "x.safetensors"), 1)
        weights.embedding(os.path.join(world.hub.repo("org/name", "v1"), "y.safetensors"), 1)
        samples.pipeline(world.hub.repo("org/closed"))
        world.hub.repo_settings("org/closed", private=True)
        world.hub.repo_settings("org/name", tags=["a", "license:mit"], author="an org", cardData={"instance_prompt": "a sks dog"})
        world.up()
        page, commit = f"{world.hub.url}/org/name", commit_of(world, "org/name")
        found = world.call("install", "metadata", url=page)
        check_fields(found, type="huggingface", id="org/name", name="name", author="an org", tags=["a", "license:mit"],
                     tag_dict={"instance_prompt": "a sks dog"}, files=["sub/x.safetensors"], license="mit", revision=commit,
                     is_diffusers=False, ckpt_urls=[f"{page}/resolve/{commit}/sub/x.safetensors"], trigger_phrases=["a sks dog"])
        assert found["last_modified"].startswith("20") and json.loads(found["api_response"])["id"] == "org/name"
        same = [world.call("install", "metadata", id="org/name"), world.call("install", "metadata", id="org/name:fp16:sub"),
                world.call("install", "metadata", url=f"{page}/blob/main/sub/x.safetensors"), world.lade_json("metadata", page),
                world.lade_json("metadata", "org/name")]
        assert all(one == found for one in same), same
        for args in ({"id": "org/name@v1"}, {"url": f"{page}/tree/v1"}):
            assert world.call("install", "metadata", **args)["files"] == ["y.safetensors"], args
        assert world.call("install", "metadata", id="org/closed", access_token="hf_good")["is_diffusers"] is True
        for code, args in (("UnknownMetadata", {"id": "org/none"}), ("UnknownMetadata", {"id": "no repository"}),
                           ("UnknownMetadata", {"id": "org/closed"}), ("UnknownMetadata", {"url": "https://example.com/org/name"}),
                           ("UnknownMetadata", {"url": f"{world.hub.url}/org"}), ("unknown_revision", {"id": "org/name@v9"}),
                           ("ValueError", {}), ("ValueError", {"id": "a/b", "url": page}), ("ValueError", {"id": ""})):
            try:
                raise AssertionError((args, world.call("install", "metadata", **args)))
            except LadeError as error:
                assert error.code == code, (args, error.code, str(error))
        assert "does not look like" in world.lade("metadata", "https://example.com/x", status=3).stderr
        assert "an org" in world.lade("metadata", "org/name").stdout
        assert "hf_good" not in repr(world.call("jobs", "list")), "a token is in no listing"


def test_a_bad_revision_is_refused_by_the_command():
    with World({"broker.max_attempts": 1}) as world:
        weights.embedding(os.path.join(world.hub.repo("org/open"), "x.safetensors"), 1)
        world.up()
        done = world.lade("install", "org/open@v9", "--dry-run", status=3)
        assert "no revision 'v9'" in done.stderr, done.stderr
        try:
            world.call("install", "import_model", source={"type": "hf"})
            raise AssertionError("a map without a repository was taken")
        except LadeError as error:
            assert error.code == "ValueError", error
