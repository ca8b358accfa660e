"""Content that is installed already is noticed, wherever it comes from, and never duplicated silently."""
import os

from lib import samples, weights
from lib.checks import check_files, no_leftovers, nothing_temporary
from lib.world import LadeError, World

LIMIT_S = 120


def ready(world):
    world.start("broker", "download", "install")
    return weights.lora(os.path.join(world.folder, "style.safetensors"), 3)


def copy_of(path, name):
    made = os.path.join(os.path.dirname(path), name)
    with open(path, "rb") as source, open(made, "wb") as target:
        target.write(source.read())
    return made


def refused(job, record):
    assert job["status"] == "error" and job["error_type"] == "DuplicateModel", job
    assert record["key"] in job["error"] and record["name"] in job["error"], job["error"]
    assert job["result"]["key"] == record["key"], job["result"]


def records(world):
    return sorted(world.call("store", "all_models"), key=lambda record: record["path"])


def test_another_name_of_the_same_file():
    with World() as world:
        path = ready(world)
        first = world.install(path)["config_out"]
        other = copy_of(path, "other name.safetensors")
        for args in ({}, {"inplace": True}, {"move": True}, {"config": {"name": "mine"}}):
            refused(world.install(other, **args), first)
        assert os.path.exists(other), "a move that is refused leaves the source"
        world.call("store", "update_model", key=first["key"], config={"name": "renamed"})
        refused(world.install(other), {**first, "name": "renamed"})
        assert len(records(world)) == 1
        no_leftovers(world, records(world))
        nothing_temporary(world)


def test_link_shares_the_bytes():
    with World() as world:
        path = ready(world)
        first = world.install(path)["config_out"]
        other = copy_of(path, "other.safetensors")
        second = world.install(other, on_equal="link")
        assert second["status"] == "completed", second["error"]
        one, two = (os.stat(world.record_path(record)) for record in (first, second["config_out"]))
        assert one.st_ino == two.st_ino and one.st_nlink == 2
        assert second["config_out"]["key"] != first["key"] and second["config_out"]["source"] == other
        # Either may go without the other.
        job = world.call("install", "delete", key=first["key"])
        world.call("jobs", "wait", id=job["id"])
        check_files(world, second["config_out"], path)


def test_copy_asks_nobody():
    with World() as world:
        path = ready(world)
        first = world.install(path)["config_out"]
        second = world.install(path, on_equal="copy")
        assert second["status"] == "completed", second["error"]
        assert second["config_out"]["path"] == "sd-1/lora/style_01.safetensors"
        assert os.stat(world.record_path(first)).st_nlink == 1
        third = world.install(copy_of(path, "x.safetensors"), on_equal="copy", inplace=True)
        assert third["status"] == "completed", third["error"]
        no_leftovers(world, records(world))


def test_what_lies_at_a_url_is_noticed_after_the_fetch_and_its_source_before():
    with World() as world:
        path = weights.lora(world.hub.file("style.safetensors"), 3)
        world.start("broker", "download", "install")
        first = world.install(path)["config_out"]
        source = f"{world.hub.url}/files/style.safetensors"
        refused(world.install(source), first)
        second = world.install(source, on_equal="link")
        assert second["status"] == "completed", second["error"]
        assert os.stat(world.record_path(first)).st_ino == os.stat(world.record_path(second["config_out"])).st_ino
        world.hub.log(reset=True)
        refused(world.install(source), second["config_out"])
        assert not world.hub.log()["totals"].get("requests"), "a source that is installed is not fetched to find that out"
        no_leftovers(world, records(world))
        nothing_temporary(world)


def test_folders_and_a_record_whose_files_are_gone():
    with World() as world:
        world.start("broker", "download", "install")
        folder = samples.pipeline(os.path.join(world.folder, "pipe"), "sd-1")
        first = world.install(folder)["config_out"]
        refused(world.install(samples.pipeline(os.path.join(world.folder, "again"), "sd-1")), first)
        third = world.install(os.path.join(world.folder, "again"), on_equal="link")
        assert third["status"] == "completed", third["error"]
        check_files(world, third["config_out"], folder)
        os.rename(world.record_path(first), os.path.join(world.folder, "away"))
        os.rename(world.record_path(third["config_out"]), os.path.join(world.folder, "away too"))
        fourth = world.install(os.path.join(world.folder, "again"), config={"name": "fourth"})
        assert fourth["status"] == "completed", "what is not there is not equal"


def test_other_content_under_the_same_name_gets_a_name_of_its_own():
    with World() as world:
        path = ready(world)
        world.install(path)
        weights.lora(path, 4)
        second = world.install(path)
        assert second["status"] == "completed", second["error"]
        assert second["config_out"]["path"] == "sd-1/lora/style_01.safetensors"


def test_a_key_that_was_taken_meanwhile_leaves_no_files():
    """The record is refused after the files were placed: they are taken back."""
    with World() as world:
        path = ready(world)
        world.processes[2].signal(19)  # SIGSTOP: the install is submitted while the key is free
        job = world.call("install", "heuristic_import", source=path, config={"key": "mine"})
        world.call("store", "add_model", key="mine", config={
            "name": "m", "type": "vae", "base": "sd-1", "format": "checkpoint", "path": "/x", "hash": "h"})
        world.processes[2].signal(18)
        ended = world.call("install", "wait_for_job", id=job["id"], timeout_s=60)
        assert ended["status"] == "error" and ended["error_type"] == "DuplicateModel", ended
        no_leftovers(world, [])
        nothing_temporary(world)


def test_move():
    with World() as world:
        path = ready(world)
        inode = os.stat(path).st_ino
        job = world.install(path, move=True)
        assert job["status"] == "completed", job["error"]
        discard = world.call("jobs", "list", kind="discard")
        assert len(discard) == 1 and discard[0]["source"] == path, discard
        ended = world.call("jobs", "wait", id=discard[0]["id"], timeout_s=60)
        assert ended["status"] == "completed", ended
        assert not os.path.exists(path)
        placed = os.stat(world.record_path(job["config_out"]))
        assert placed.st_ino == inode and placed.st_nlink == 1, "on one file system no byte was copied"
        try:
            world.call("install", "heuristic_import", source=path, move=True, inplace=True)
            raise AssertionError("both were taken")
        except LadeError as error:
            assert error.code == "ValueError", error.code


def test_move_of_a_link_takes_the_link_only():
    with World() as world:
        path = ready(world)
        link = os.path.join(world.folder, "link.safetensors")
        os.symlink(path, link)
        job = world.install(link, move=True)
        assert job["status"] == "completed", job["error"]
        discard = world.call("jobs", "list", kind="discard")
        world.call("jobs", "wait", id=discard[0]["id"], timeout_s=60)
        assert not os.path.lexists(link) and os.path.exists(path)
        assert os.stat(path).st_nlink == 1, "what the link points to is nobody's but its owner's"
        check_files(world, job["config_out"], path)


def test_the_command():
    with World() as world:
        path = ready(world)
        other = copy_of(path, "other.safetensors")
        world.lade("install", path)
        said = world.lade("install", other, status=1).stderr
        assert "--again" in said and records(world)[0]["key"] in said, said
        world.lade("install", "--again", "link", "--move", other)
        assert not os.path.exists(other) and len(records(world)) == 2
        third = copy_of(path, "third.safetensors")
        link = os.path.join(world.folder, "link.safetensors")
        os.symlink(third, link)
        world.lade("install", "--again", "copy", "--move", link)
        assert os.path.exists(third) and not os.path.lexists(link)
        world.lade("install", "--again", "both", third, status=2)
