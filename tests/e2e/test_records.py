"""Model records through the wire: the store's methods, their errors, orders and pages, editors at the same time."""
import os
import re
import subprocess
import threading

from lib.world import BUILD, LadeError, World

LIMIT_S = 180
HERE = os.path.dirname(os.path.abspath(__file__))


def record(name, path=None, **fields):
    base = {"name": name, "type": "main", "base": "sd-1", "format": "diffusers", "path": path or f"/models/{name}"}
    return {**base, **fields}


def refused(code, words, call, *args, **more):
    try:
        got = call(*args, **more)
    except LadeError as error:
        assert error.code == code and words in error.message, (error.code, error.message)
        return error
    raise AssertionError(f"{args} {more} answered {got}")


def keys(records):
    return [one["key"] for one in records]


class Store:
    """The store's ops as methods: store.add_model(key=…)."""

    def __init__(self, world):
        self.client = world.client()

    def __getattr__(self, op):
        return lambda **args: self.client.call("store", op, **args)


def with_store(test):
    def run():
        with World() as world:
            world.start("broker")
            test(world, Store(world))
    run.__name__ = test.__name__
    return run


@with_store
def test_one_record_from_added_to_removed(world, store):
    config = record("old name", model_type="embedding", model_format="embedding_file", hash="h:1", newer={"a": [None, 1]})
    for alias in ("type", "format"):
        del config[alias]
    added = store.add_model(key="key1", config=config)
    assert added["type"] == "embedding" and added["format"] == "embedding_file" and added["version"] == 1
    assert store.get_model(key="key1") == added and store.exists(key="key1") and not store.exists(key="key2")
    refused("DuplicateModel", "key 'key1'", store.add_model, key="key1", config=record("x"))
    refused("DuplicateModel", "(key key1)", store.add_model, config=record("x", path="/models//old name/"))
    assert store.update_model(key="key1", config={"name": "new name"})["name"] == "new name"
    refused("UnknownModel", "unknown_key", store.update_model, key="unknown_key", config={})
    refused("InvalidModelConfig", "upcast_attention: models of class embedding.embedding_file", store.update_model,
            key="key1", config={"upcast_attention": True})
    became = store.update_model(key="key1", config={"type": "lora", "format": "lycoris", "base": "sdxl"})
    assert (became["type"], became["format"], became["base"]) == ("lora", "lycoris", "sdxl")
    assert became["newer"] == {"a": [None, 1]} and became["version"] == 3 and became["created_at"] == added["created_at"]
    assert store.version() == "3.2"
    assert store.del_model(key="key1") is None
    refused("UnknownModel", "key1", store.get_model, key="key1")
    refused("UnknownModel", "key1", store.del_model, key="key1")
    made = store.add_model(config=record("keyless"))
    assert len(made["key"]) == 32


@with_store
def test_what_is_wrong_is_named(world, store):
    for config, words in (
            ({"name": "x"}, "type: missing"), (record("x", type="mainn"), 'type: "mainn" does not do; it takes one of onnx'),
            (record("x", format="lycoris"), "format: lycoris does not do for a model of type main; it takes one of diffusers"),
            (record("x", variant="huge"), "normal, inpaint, depth"),
            (record("x", path="../x"), "path: "), (record("x", default_settings={"width": 100}), "multiple of 8"),
            (record("x", type="lora", format="lycoris", default_settings={"weight_min": 1, "weight_max": 1}), "weight_min: 1")):
        refused("InvalidModelConfig", words, store.add_model, config=config)
    refused("ValueError", "config", store.add_model, key="x")
    refused("ValueError", "order_by: 'age'", store.all_models, order_by="age")
    refused("ValueError", "direction: 'up'", store.all_models, direction="up")
    refused("ValueError", "base: there is no 'sd-9'; it takes one of any, sd-1", store.search_by_name, base="sd-9")
    refused("ValueError", "tags", store.search_by_tag, tags=[])
    refused("ValueError", "tags", store.search_by_tag, tags=["a", 1])
    refused("ValueError", "per_page", store.list_models, per_page=0)
    refused("ValueError", "hash", store.search_by_hash)
    assert store.all_models() == []


@with_store
def test_searches_find_what_has_all_that_is_asked(world, store):
    for key, name, kind, base, more in (
            ("k1", "dup", "main", "sd-2", {"hash": "CONFIG1HASH"}), ("k2", "dup", "main", "sdxl", {"hash": "CONFIG2HASH"}),
            ("k3", "dup", "vae", "sd-1", {"tags": ["text-to-image", "diffusers"]}),
            ("k4", "b", "main", "sd-1", {"tags": ["text-to-image", "diffusers", "community"]}),
            ("k5", "a", "main", "sd-1", {"tags": ["text-to-image", "checkpoint", "community"]})):
        store.add_model(key=key, config=record(name, f"/m/{key}", type=kind, base=base, **more))
    assert keys(store.search_by_name(name="dup")) == ["k1", "k2", "k3"]
    assert keys(store.search_by_name(name="dup", type="main")) == ["k1", "k2"]
    assert keys(store.search_by_name(base_model="sd-1", model_type="main")) == ["k5", "k4"]
    assert keys(store.search_by_name(name="dup", base="sd-1", type="vae")) == ["k3"]
    assert keys(store.search_by_name(type="vae")) == ["k3"]
    assert keys(store.search_by_name()) == keys(store.all_models()) == ["k5", "k4", "k1", "k2", "k3"]
    assert keys(store.search_by_hash(hash="CONFIG1HASH")) == ["k1"] and store.search_by_hash(hash="config1hash") == []
    assert keys(store.search_by_tag(tags=["text-to-image"])) == ["k5", "k4", "k3"]
    assert keys(store.search_by_tag(tags=["text-to-image", "diffusers"])) == ["k4", "k3"]
    assert keys(store.search_by_tag(tags=["community", "checkpoint"])) == ["k5"]
    store.update_model(key="k1", config={"tags": ["community"]})
    assert keys(store.search_by_tag(tags=["community"], base="sd-2")) == ["k1"]
    assert keys(store.search_by_key(key="k")) == ["k1", "k2", "k3", "k4", "k5"]
    assert store.search_by_path(path="/m//k2/")["key"] == "k2" and store.search_by_path(path="/m") is None
    assert store.model_info_by_name(name="dup", base="sdxl", type="main")["key"] == "k2"
    refused("DuplicateModel", "k1, k2", store.model_info_by_name, name="dup", type="main")
    refused("UnknownModel", "dup", store.model_info_by_name, name="dup", type="lora")
    refused("ValueError", "", world.client().call, "load", "load_model_by_attr", name="dup", type="main")


@with_store
def test_model_of_several_bases_is_found_under_each(world, store):
    one = store.add_model(key="k1", config={"name": "vae", "type": "vae", "format": "diffusers", "path": "/v",
                                            "bases": ["sd-1", "sd-2"]})
    assert one["base"] == "sd-1"
    store.add_model(key="k2", config=record("other", type="vae", base="sd-2"))
    for base, found in (("sd-1", ["k1"]), ("sd-2", ["k2", "k1"]), ("sdxl", []), ("any", [])):
        assert keys(store.search_by_name(base=base)) == found, base
        assert store.list_models(base=base)["total"] == len(found)
    assert store.list_models(type="vae")["total"] == len(store.all_models()) == 2
    assert store.model_info_by_name(name="vae", base="sd-2", type="vae")["base"] == "sd-1"
    changed = store.update_model(key="k1", config={"base": "sdxl"})
    assert changed["bases"] == ["sdxl", "sd-2"] and store.search_by_name(base="sd-1") == []
    changed = store.update_model(key="k1", config={"bases": ["sd-2", "sd-3"]})
    assert changed["base"] == "sd-2"


@with_store
def test_orders_and_pages(world, store):
    for name, size in (("alpha", 1000), ("beta", 2000), ("gamma", 500)):
        store.add_model(key=name, config=record(name, f"/{size}", file_size=size))
    for order, expected in (("name", "alpha beta gamma"), ("size", "gamma alpha beta"), ("created_at", "alpha beta gamma"),
                            ("path", "alpha beta gamma"), ("type", "alpha beta gamma"), (None, "alpha beta gamma")):
        assert keys(store.all_models(order_by=order)) == expected.split(), order
        assert keys(store.all_models(order_by=order, direction="desc")) == expected.split()[::-1], order
    store.update_model(key="alpha", config={"description": "d"})
    assert keys(store.all_models(order_by="updated_at")) == ["beta", "gamma", "alpha"]
    for i in range(20):
        store.add_model(key=f"v{i:02}", config=record(f"v{i}", type="vae"))
    page = store.list_models(page=1, per_page=10)
    assert (page["page"], page["pages"], page["per_page"], page["total"]) == (1, 3, 10, 23)
    seen = [key for number in range(3) for key in keys(store.list_models(page=number)["items"])]
    assert seen == keys(store.all_models()) and len(seen) == 23
    assert store.list_models(page=9)["items"] == [] and store.list_models(type="vae", per_page=7)["pages"] == 3
    first = store.list_models(per_page=1)["items"][0]
    assert first["description"] == "d" and first["tags"] == [] and first["type"] == "main" and first["path"] == "/1000"
    assert keys(store.all_models(limit=2, offset=1)) == ["beta", "gamma"]


@with_store
def test_editors_at_the_same_time_lose_nothing(world, store):
    store.add_model(key="k", config=record("m", count=0))
    refused("stale_record", "version is 1", store.update_model, key="k", version=7, config={"name": "late"})
    refused("stale_record", "version is 1", store.update_model, key="k", config={"name": "late", "version": 7})
    stale, failed = [], []

    def edit():
        try:
            mine = Store(world)
            for _ in range(25):
                while True:
                    read = mine.get_model(key="k")
                    try:
                        mine.update_model(key="k", version=read["version"], config={"count": read["count"] + 1})
                        break
                    except LadeError as error:
                        assert error.code == "stale_record", error.code
                        stale.append(1)
        except BaseException as error:  # told in the main thread
            failed.append(error)

    editors = [threading.Thread(target=edit) for _ in range(4)]
    for editor in editors:
        editor.start()
    for editor in editors:
        editor.join()
    assert not failed, failed
    last = store.get_model(key="k")
    assert last["count"] == 100 and last["version"] == 101, last


@with_store
def test_what_others_wrote_survives_a_whole_record_sent_back(world, store):
    more = {"from_a_newer_lade": {"list": [1, {"deep": None}], "text": "ü"}, "another": [True]}
    read = store.add_model(key="k", config=record("m", **more))
    back = store.update_model(key="k", config={**read, "description": "edited"})
    assert back["from_a_newer_lade"] == more["from_a_newer_lade"] and back["another"] == [True]
    refused("stale_record", "version is 2", store.update_model, key="k", config={**read, "description": "again"})
    refused("DuplicateModel", "'/models/x'", lambda: (store.add_model(config=record("x")),
                                                      store.update_model(key="k", config={"path": "/models/x"})))
    assert store.get_model(key="k") == back
    assert store.update_model(key="k", config={"another": None}).get("another", "gone") == "gone"


@with_store
def test_records_are_there_after_a_kill(world, store):
    for i in range(50):
        store.add_model(key=f"k{i:02}", config=record(f"m{i}", tags=["all", f"t{i % 5}"]))
    store.update_model(key="k07", config={"name": "renamed", "bases": ["sd-1", "sdxl"]})
    store.del_model(key="k08")
    broker = world.processes[-1]
    broker.kill()
    world.start("broker")
    again = Store(world)
    assert again.list_models()["total"] == 49 and again.list_models(base="sdxl")["total"] == 1
    assert keys(again.search_by_name(name="renamed")) == ["k07"] and again.search_by_name(name="m8") == []
    assert len(again.search_by_tag(tags=["all", "t2"])) == 10


@with_store
def test_liblade_has_every_method(world, store):
    program = os.path.join(world.folder, "driver")
    with open(os.path.join(BUILD, "liblade.so.0"), "rb") as file:
        found = [name for name, mark in (("address", b"__asan_init"), ("thread", b"__tsan_init")) if mark in file.read()]
    subprocess.run(["cc", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", *[f"-fsanitize={name}" for name in found],
                    "-I", os.path.join(HERE, "..", ".."), "-o", program, os.path.join(HERE, "records_driver.c"), "-L", BUILD,
                    "-llade", f"-Wl,-rpath,{BUILD}"], check=True)
    done = subprocess.run([program, world.data], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                          env=world.environment(), check=False)
    assert done.returncode == 0 and done.stdout == "all of it\n", done


@with_store
def test_command_lists_finds_shows_and_edits(world, store):
    for i in range(25):
        store.add_model(key=f"{i:032x}", config=record(f"m{i:02}", f"/m/{i}", file_size=1000 - i, tags=["all", f"t{i % 5}"]))
    store.update_model(key=f"{3:032x}", config={"bases": ["sd-1", "sdxl"], "default_settings": {"steps": 20, "width": 512}})
    names = [f"m{i:02}" for i in range(25)]

    def listed(*args):
        return [one["name"] for one in world.lade_json(*args)]

    assert listed("ls") == names and listed("ls", "--reverse") == names[::-1]
    assert listed("ls", "--sort", "size") == names[::-1] and listed("ls", "--limit", "3") == names[:3]
    assert listed("ls", "--limit", "10", "--page", "3") == names[20:] and listed("ls", "--page", "2") == names[20:]
    assert "models 21 to 25 of 25" in world.lade("ls", "--page", "2").stderr
    assert listed("find", "--tag", "t2", "--tag", "all") == names[2::5] and listed("find", "--base", "sdxl") == ["m03"]
    assert listed("find", "--path", "/m/7") == ["m07"] and listed("find", "--path", "/m/7", "--base", "sdxl") == []
    assert "order_by: 'age'" in world.lade("ls", "--sort", "age", status=2).stderr
    assert "there is no 'sd9'" in world.lade("find", "--base", "sd9", status=2).stderr
    shown = world.lade("show", "m03").stdout
    assert re.search(r"^bases +sd-1, sdxl$", shown, re.M) and re.search(r"^default_settings +steps 20, width 512$", shown, re.M)
    assert re.search(r"^file_size +997 B$", shown, re.M) and shown.startswith("name "), shown
    edited = world.lade_json("edit", "m03", "--if-version", "2", 'tags=["new"]', "variant=inpaint")
    assert edited["version"] == 3 and edited["tags"] == ["new"] and edited["variant"] == "inpaint"
    late = world.lade("edit", "m03", "--if-version", "2", "name=late", status=1)
    assert "version is 3" in late.stderr and "read it again" in late.stderr
    assert "variant: \"huge\" does not do" in world.lade("edit", "m03", "variant=huge", status=1).stderr
    store.add_model(key="8f14e45f-ceea-467f-a8a5-9d3d1a2b3c4d", config=record("uuid"))
    assert world.lade_json("show", "8f14e45f-ceea")["name"] == world.lade_json("show", "8f14e45f-ceea-467f-a8a5-9d3d1a2b3c4d")["name"]
