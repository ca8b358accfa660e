"""download_and_cache: one fetch for a source, whole or absent, and the longest unasked goes first."""
import os
import threading
import time

from lib import samples, weights
from lib.checks import nothing_temporary
from lib.world import LadeError, World

LIMIT_S = 120


def start(**settings):
    world = World(settings)
    world.hub  # pylint: disable=pointless-statement
    return world


def cached(world, source, **args):
    return world.call("install", "download_and_cache", source=source, **args)


def requests(world):
    return world.hub.log()["totals"].get("requests", 0)


def listed(world):
    return world.call("install", "list_cache")["files"]


def test_a_url_and_a_folder_are_fetched_once():
    with start() as world:
        path = weights.lora(world.hub.file("style.safetensors"), 3)
        repo = samples.pipeline(world.hub.repo("artist/tiny"))
        world.start("broker", "download", "install")
        source = f"{world.hub.url}/files/style.safetensors"
        place = cached(world, source)
        assert place.startswith(os.path.join(world.models_dir, ".cache")) and os.path.basename(place) == "style.safetensors"
        assert weights.sha256(place) == weights.sha256(path)
        folder = cached(world, "artist/tiny:fp32")
        assert weights.tree(folder) == weights.tree(repo)
        world.hub.log(reset=True)
        assert cached(world, source) == place and cached(world, "artist/tiny:fp32") == folder
        assert not requests(world), "a hit asks nobody"
        assert world.call("store", "all_models") == [] and cached(world, path) == path
        found = [entry["source"] for entry in listed(world)]
        assert found == [source, "artist/tiny:fp32"], found
        nothing_temporary(world)
        assert world.call("install", "clear_cache", source=source)["cleared"] == 1
        assert not os.path.exists(place) and os.path.exists(folder)
        assert world.call("install", "clear_cache")["cleared"] == 1 and listed(world) == []


def test_two_at_once_are_one_fetch_and_a_timeout_leaves_it_running():
    with start() as world:
        path = weights.lora(world.hub.file("style.safetensors"), 3)
        world.start("broker", "download", "install")
        source = f"{world.hub.url}/files/style.safetensors"
        world.hub.settings(rate=os.path.getsize(path) // 2)
        try:
            cached(world, source, timeout_s=0.05)
            raise AssertionError("it was faster than that")
        except LadeError as error:
            assert error.code in ("Timeout", "broker_unreachable"), error.code
        got = []
        threads = [threading.Thread(target=lambda: got.append(cached(world, source))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(got) == 3 and len(set(got)) == 1, got
        assert len(world.call("jobs", "list", kind="download")) == 1


def test_the_longest_unasked_goes_first_and_nobody_of_the_last_minute():
    with start(**{"install.cache_mb": 1}) as world:
        sources = []
        for number in range(4):
            weights.write_safetensors(world.hub.file(f"m{number}.safetensors"), {"a": ("F32", (100, 1000))}, None, number)
            sources.append(f"{world.hub.url}/files/m{number}.safetensors")
        world.start("broker", "download", "install")
        places = [cached(world, source) for source in sources[:3]]
        assert all(map(os.path.exists, places)), "over the limit, but all asked for within the last minute"
        for age, place in zip((300, 500, 400), places):
            note = os.path.join(os.path.dirname(place), ".entry")
            os.utime(note, (time.time() - age, time.time() - age))
        assert cached(world, sources[1]) == places[1]  # asked for now
        places.append(cached(world, sources[3]))
        assert [os.path.exists(place) for place in places] == [False, True, False, True]
        assert cached(world, sources[0]) == places[0] and os.path.exists(places[0])


def test_failures_leave_nothing():
    with start() as world:
        with open(world.hub.file("page.safetensors"), "w", encoding="utf-8") as file:
            file.write("<!DOCTYPE html><html></html>")
        world.start("broker", "download", "install")
        for name, code in (("missing.safetensors", "not_found"), ("page.safetensors", "not_a_model")):
            try:
                cached(world, f"{world.hub.url}/files/{name}")
                raise AssertionError(f"{name} was fetched")
            except LadeError as error:
                assert error.code == code, (name, error.code)
        assert listed(world) == []
        nothing_temporary(world)


def test_what_cannot_be_identified_is_kept_for_one_who_knows():
    with start() as world:
        weights.write_safetensors(world.hub.file("odd.safetensors"), {"nobody.knows": ("F32", (4, 4))}, None, 1)
        world.start("broker", "download", "install")
        source = f"{world.hub.url}/files/odd.safetensors"
        job = world.install(source)
        assert job["status"] == "error" and job["error_type"] == "InvalidModelConfig" and "is kept" in job["error"], job
        assert listed(world)[0]["kept"] is True
        nothing_temporary(world)
        world.hub.log(reset=True)
        half = world.install(source, config={"type": "lora"})
        assert half["status"] == "error" and "is kept" in half["error"], half
        told = {"type": "lora", "base": "sd-1", "format": "lycoris", "name": "odd one"}
        job = world.install(source, config=told)
        assert job["status"] == "completed", job["error"]
        assert {name: job["config_out"][name] for name in told} == told
        assert weights.sha256(world.record_path(job["config_out"])) == weights.sha256(world.hub.file("odd.safetensors"))
        assert not requests(world), "no second download"
        assert listed(world) == []
        nothing_temporary(world)


def test_the_command():
    with start() as world:
        weights.lora(world.hub.file("style.safetensors"), 3)
        world.start("broker", "download", "install")
        source = f"{world.hub.url}/files/style.safetensors"
        place = world.lade("download", "--cache", source).stdout.strip()
        assert os.path.isfile(place), place
        assert source in world.lade("cache", "--files").stdout
        assert world.lade_json("cache", "--files")["files"][0]["path"] == place
        world.lade("cache", "--clear")
        assert not os.path.exists(place)
