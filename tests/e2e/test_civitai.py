"""Civitai: pages, versions and download addresses become one verified file and a record that knows what the page says."""
import json
import os
import time

from lib import weights
from lib.checks import check_completed, check_fields, check_files, no_leftovers, watch_install
from lib.world import QUICK, World

LIMIT_S = 180
DETAIL = {
    "name": "Detail Tweaker LoRA", "creator": "CyberAIchemist", "tags": ["concept", "enhancer"], "nsfw": False,
    "description": "<p>For <strong>enhancing</strong> &amp; diminishing detail.</p><p>Caf\u00e9.</p>",
    "allowNoCredit": False, "allowCommercialUse": ["Image", "Rent"], "allowDerivatives": True, "allowDifferentLicense": False,
    "versions": [
        {"id": 62833, "name": "v1.0", "baseModel": "SD 1.5", "trainedWords": ["detail", "more detail"], "files": [
            {"name": "training.zip", "type": "Training Data", "primary": False, "metadata": {"format": "Other"}},
            {"name": "add_detail.safetensors", "primary": True},
            {"name": "add_detail_small.safetensors", "type": "Pruned Model", "primary": False,
             "metadata": {"size": "pruned", "fp": "fp16"}}]},
        {"id": 12345, "name": "beta", "files": [{"name": "old.safetensors"}]},
    ],
}


def make(world, number, page, seed=1):
    """A model of Civitai; its weight files are LoRAs. Answers the folder of its files."""
    folder = world.hub.repo(f"civitai/{number}")
    for version in page["versions"]:
        for at, told in enumerate(version["files"]):
            path = os.path.join(folder, told["name"])
            if path.endswith(".safetensors"):
                weights.lora(path, seed + 10 * at + version["id"] % 7)
            else:
                with open(path, "wb") as file:
                    file.write(b"not a model " * 50)
    with open(f"{folder}.json", "w", encoding="utf-8") as file:
        json.dump({"civitai": page}, file)
    return folder


def civitai(world, **settings):
    """The address of the site, which the configuration names."""
    where = world.hub.origin(name="civitai")["url"]
    world.configure(**{**QUICK, "civitai.endpoint": where, **settings})
    return where


def failed(world, source, code, *words, **args):
    job = world.install(source, **args)
    assert (job["status"], job["error_type"]) == ("error", code), (source, job["status"], job["error_type"], job["error"])
    missing = [word for word in words if word not in job["error"]]
    assert not missing, (source, missing, job["error"])
    assert world.call("store", "all_models") == []
    no_leftovers(world, [])


def test_a_page_is_its_primary_file_and_what_it_says():
    with World() as world:
        where = civitai(world)
        folder = make(world, 58390, DETAIL)
        world.up()
        source = "https://civitai.com/models/58390/detail-tweaker-lora-lora"
        job, seen = watch_install(world, source)
        record = check_completed(job, seen, downloads=True)
        check_fields(record, type="lora", base="sd-1", name="Detail Tweaker LoRA - v1.0", source=source, source_type="url",
                     author="CyberAIchemist", trigger_phrases=["detail", "more detail"],
                     description="For enhancing & diminishing detail.\nCaf\u00e9.",
                     license="credit needed; commercial use: Image, Rent; derivatives: under the same license",
                     cover_image=f"{where}/images/62833.jpeg",
                     tags=["concept", "enhancer", "base_model:SD 1.5", "creator:CyberAIchemist", "allow:derivatives",
                           "allow:commercial_use:Image", "allow:commercial_use:Rent"])
        check_files(world, record, os.path.join(folder, "add_detail.safetensors"))
        answer = record["source_api_response"]
        answer = json.loads(answer) if isinstance(answer, str) else answer
        assert answer["version"]["id"] == 62833 and answer["model"]["id"] == 58390
        assert [one["key"] for one in world.call("store", "search_by_tag", tags=["creator:CyberAIchemist", "enhancer"])] == \
            [record["key"]]
        no_leftovers(world, [record])
        asked = [entry["path"] for entry in world.hub.log(path="/api/*")["requests"]]
        assert asked == ["/api/v1/models/58390", "/api/download/models/62833"], asked


def test_every_kind_of_address():
    """Which version and file are meant: the plan of each says it, with size and sha256."""
    with World() as world:
        where = civitai(world)
        folder = make(world, 58390, DETAIL)
        world.up()
        download = f"{where}/api/download/models/62833"
        rows = [
            (f"{where}/models/58390", "add_detail.safetensors"), (f"{where}/models/58390?modelVersionId=12345", "old.safetensors"),
            (f"{where}/models/58390/slug?foo=1&modelVersionId=62833#x", "add_detail.safetensors"),
            (f"{where}/model-versions/12345", "old.safetensors"), (f"{where}/api/v1/models/58390", "add_detail.safetensors"),
            (f"{where}/api/v1/model-versions/62833", "add_detail.safetensors"), (download, "add_detail.safetensors"),
            (f"{download}?type=Pruned%20Model&format=SafeTensor&size=pruned&fp=fp16", "add_detail_small.safetensors"),
            (f"{download}?type=Training+Data", "training.zip"), ("https://www.civitai.com/models/58390", "add_detail.safetensors"),
        ]
        for source, name in rows:
            plan = world.lade_json("install", source, "--dry-run")
            path = os.path.join(folder, name)
            assert [(file["path"], file["size"], file["sha256"]) for file in plan["files"]] == \
                [(name, os.path.getsize(path), weights.sha256(path))], (source, plan)
            assert plan["files"][0]["url"].startswith(f"{where}/api/download/models/"), plan
        assert world.hub.log(path="/api/download/*")["requests"] == [], "a dry run fetches nothing"
        job, seen = watch_install(world, rows[7][0])
        record = check_completed(job, seen, downloads=True)
        check_files(world, record, os.path.join(folder, "add_detail_small.safetensors"))
        check_fields(record, author="CyberAIchemist", name="Detail Tweaker LoRA - v1.0")


def test_what_cannot_be_had_says_why():
    soon = time.strftime("%Y-%m-%dT00:00:00.000Z", time.gmtime(time.time() + 5 * 86400))
    pages = {
        1: {"name": "Early", "versions": [{"id": 10, "availability": "EarlyAccess", "earlyAccessEndsAt": soon, "bought": ["cv_good"],
                                           "files": [{"name": "a.safetensors"}]}]},
        2: {"name": "Login", "versions": [{"id": 20, "login": "401", "files": [{"name": "a.safetensors"}]}]},
        3: {"name": "Page", "versions": [{"id": 30, "login": "page", "files": [{"name": "a.safetensors"}]}]},
        4: {"name": "Wrong", "versions": [{"id": 40, "files": [{"name": "a.safetensors", "sha256": "0" * 64}]}]},
        5: {"name": "Danger", "versions": [{"id": 50, "files": [{"name": "a.safetensors", "scan": "Danger"}]}]},
        6: {"name": "Data", "versions": [{"id": 60, "files": [{"name": "a.zip", "type": "Training Data", "primary": False}]}]},
        7: {"name": "None", "versions": []},
        8: {"name": "Size", "versions": [{"id": 80, "files": [{"name": "a.safetensors", "size": 4096}]}]},
        9: {"name": "../../Up", "versions": [{"id": 90, "name": "", "files": [{"name": "a.safetensors"}]}]},
    }
    with World() as world:
        where = civitai(world, **{"broker.max_attempts": 1})
        for number, page in pages.items():
            make(world, number, page, seed=number)
        world.up()
        login = ("/user/account", "--token", "CIVITAI_API_TOKEN")
        failed(world, f"{where}/models/1", "auth_required", "early access until", soon[:10], *login)
        failed(world, f"{where}/models/1", "auth_denied", "has bought it", *login, access_token="cv_other")
        failed(world, f"{where}/models/2", "auth_required", *login)
        failed(world, f"{where}/models/3", "auth_required", *login)
        failed(world, f"{where}/models/2", "auth_denied", *login, access_token="cv_unknown")
        failed(world, f"{where}/models/4", "digest_mismatch")
        failed(world, f"{where}/models/5", "unsafe_file", "dangerous")
        failed(world, f"{where}/models/6", "not_found", "no file", "a.zip (Training Data)")
        failed(world, f"{where}/models/7", "UnknownMetadata", "no published version")
        failed(world, f"{where}/models/8", "size_mismatch")
        failed(world, f"{where}/models/4711", "UnknownMetadata", "no model 4711")
        failed(world, f"{where}/model-versions/4711", "UnknownMetadata", "no model version 4711")
        failed(world, f"{where}/models/2?modelVersionId=4711", "UnknownMetadata", "no version 4711", "the newest is 20")
        failed(world, f"{where}/api/download/models/20?format=GGUF", "not_found", "format=GGUF", "a.safetensors")
        world.hub.faults({"path": "/api/v1/models/2", "action": "html"})
        failed(world, f"{where}/models/2", "corrupt", "with a page")
        job = world.install(f"{where}/models/9")
        assert job["status"] == "completed" and job["config_out"]["path"].startswith("sd-1/lora/"), (job["error"], job["config_out"])


def test_the_key_goes_to_the_site_alone():
    """Of the settings, of the environment, of a file, of the job: with the API and the download, and not with the CDN."""
    with World() as world:
        where = civitai(world)
        make(world, 1, {"name": "One", "versions": [{"id": 10, "availability": "EarlyAccess", "bought": ["cv_good"],
                                                     "files": [{"name": "a.safetensors"}]}]})
        secret = os.path.join(world.folder, "key")
        with open(secret, "w", encoding="ascii") as file:
            file.write("cv_good\n")
        ways = [({"civitai.token": "cv_good"}, {}, {}), ({"civitai.token_file": secret}, {}, {}),
                ({}, {"CIVITAI_API_TOKEN": "cv_good"}, {}), ({}, {}, {"access_token": "cv_good"})]
        for number, (settings, env, args) in enumerate(ways):
            world.configure(**{**QUICK, "civitai.endpoint": where, **settings})
            world.env = env
            world.start("broker", "download", "install")
            job = world.install(f"{where}/models/1", config={"name": f"model {number}", "hash": f"{number}"}, **args)
            assert job["status"] == "completed", (number, job["error_type"], job["error"])
            shown = repr(job) + repr(world.call("jobs", "list")) + repr(world.call("store", "all_models"))
            assert "cv_good" not in shown, number
            world.call("install", "delete", key=job["config_out"]["key"])
            for process in world.processes:
                assert "cv_good" not in process.text(), process.name
                if process.name != "hub":
                    process.stop()
        log = world.hub.log()["requests"]
        assert {entry["authorization"] for entry in log if entry["path"].startswith("/api/")} == {True}
        cdn = [entry for entry in log if entry["origin"] == "cdn"]
        assert len(cdn) == len(ways) and not any("cv_good" in repr(entry) for entry in cdn), cdn


def test_a_download_address_elsewhere_gets_no_key():
    """Whoever answers the API says where the file is; a key given with the job does not follow there."""
    with World() as world:
        where = civitai(world)
        make(world, 1, {"name": "One", "versions": [{"id": 10, "files": [{"name": "a.safetensors"}]}]})
        other = world.hub.origin(name="other")["url"]
        world.start("broker", "download", "install")
        # The answer names the other origin: the hub builds addresses from the Host it is asked by.
        world.hub.faults({"path": "/api/v1/models/1", "origin": "civitai", "action": "redirect", "location": f"{other}/api/v1/models/1"})
        job = world.install(f"{where}/models/1", access_token="cv_good")
        assert job["status"] == "completed", (job["error_type"], job["error"])
        strangers = [entry for entry in world.hub.log()["requests"] if entry["origin"] == "other"]
        assert len(strangers) == 2 and not any(entry["authorization"] for entry in strangers), strangers


def test_metadata_of_a_page():
    with World() as world:
        where = civitai(world)
        make(world, 58390, DETAIL)
        world.up()
        found = world.call("install", "metadata", id="58390")
        check_fields(found, type="civitai", id=58390, version_id=62833, name="Detail Tweaker LoRA", version_name="v1.0",
                     author="CyberAIchemist", base_model="SD 1.5", trigger_phrases=["detail", "more detail"], nsfw=False,
                     allow_no_credit=False, allow_commercial_use=["Image", "Rent"], allow_derivatives=True,
                     allow_different_license=False, cover_image=f"{where}/images/62833.jpeg",
                     last_modified="2024-03-05T10:11:12.131Z",
                     files=["training.zip", "add_detail.safetensors", "add_detail_small.safetensors"])
        assert json.loads(found["api_response"])["model"]["creator"]["username"] == "CyberAIchemist"
        assert world.lade_json("metadata", f"{where}/models/58390") == found
        assert world.call("install", "metadata", id=58390) == found
        beta = world.lade_json("metadata", f"{where}/models/58390?modelVersionId=12345")
        check_fields(beta, version_id=12345, version_name="beta", author="CyberAIchemist")
        assert "no model 4711" in world.lade("metadata", "4711", status=3).stderr


def test_offline_civitai_is_not_asked():
    with World(env={"HF_HUB_OFFLINE": "1"}) as world:
        where = civitai(world)
        make(world, 58390, DETAIL)
        world.up()
        failed(world, f"{where}/models/58390", "offline", "unset it")
        assert world.hub.log()["requests"] == []
