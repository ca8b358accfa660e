"""Sources that are missing, closed or want a token."""
import os

from lib import samples, weights
from lib.checks import check_completed, no_leftovers, watch_install
from lib.world import World

LIMIT_S = 120


def failed(world, source, *codes, **args):
    job, _ = watch_install(world, source, **args)
    assert job["status"] == "error" and job["error_type"] in codes, (source, job["status"], job["error_type"], job["error"])
    assert job["error"]
    return job


def test_missing_things_say_so():
    with World() as world:
        weights.embedding(os.path.join(world.hub.repo("org/name"), "x.safetensors"), 1)
        world.up()
        failed(world, "org/none", "UnknownMetadata", "auth_required")
        failed(world, "org/name::none.safetensors", "not_found", "UnknownMetadata")
        failed(world, f"{world.hub.url}/files/none.safetensors", "not_found")
        failed(world, "org/name:onnx", "InvalidModelConfig", "ValueError", "UnknownMetadata")
        assert world.call("store", "all_models") == []
        no_leftovers(world, [])


def test_gated_repository():
    with World() as world:
        samples.pipeline(world.hub.repo("org/gated"))
        world.hub.repo_settings("org/gated", gated="auto")
        world.up()
        failed(world, "org/gated", "auth_required", "license_gate")
        failed(world, "org/gated", "license_gate", "auth_denied", access_token="hf_nobody")
        failed(world, "org/gated", "auth_denied", "auth_required", access_token="wrong")
        job, seen = watch_install(world, "org/gated", access_token="hf_good")
        check_completed(job, seen, downloads=True)
        assert world.hub.log()["totals"]["cdn_authorization"] == 0, "the token went to another origin"


def test_token_is_in_no_answer_event_or_log():
    with World() as world:
        samples.pipeline(world.hub.repo("org/private"))
        world.hub.repo_settings("org/private", private=True)
        world.up()
        job, seen = watch_install(world, "org/private", access_token="hf_good")
        check_completed(job, seen, downloads=True)
        shown = repr(job) + repr(seen) + repr(world.call("jobs", "list")) + repr(world.call("store", "all_models"))
        assert "hf_good" not in shown
        for process in world.processes:
            assert "hf_good" not in process.text(), process.name
        for above, _, names in os.walk(world.models_dir):
            for name in names:
                with open(os.path.join(above, name), "rb") as file:
                    assert b"hf_good" not in file.read(), name


def test_token_of_the_environment():
    with World(env={"HF_TOKEN": "hf_good"}) as world:
        samples.pipeline(world.hub.repo("org/private"))
        world.hub.repo_settings("org/private", private=True)
        world.up()
        job, seen = watch_install(world, "org/private")
        check_completed(job, seen, downloads=True)


def test_login_page_is_no_model():
    with World() as world:
        weights.embedding(world.hub.file("x.safetensors"), 1)
        world.hub.faults({"path": "/files/*", "action": "html"}, {"path": "/files/*", "method": "HEAD", "action": "html"})
        world.up()
        failed(world, f"{world.hub.url}/files/x.safetensors", "not_a_model", "InvalidModelConfig")
        no_leftovers(world, [])


def test_offline():
    with World(env={"HF_HUB_OFFLINE": "1"}) as world:
        samples.pipeline(world.hub.repo("org/name"))
        world.up()
        failed(world, "org/name", "offline")
        assert world.hub.log()["totals"]["requests"] == 0
