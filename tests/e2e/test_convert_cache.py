"""Converted copies: made once, found again, made anew, evicted; whatever is killed, removed or full meanwhile."""
import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import threading
import time

from lib import checkpoints, weights
from lib.apart import mount, on_small_disk, resize
from lib.checks import nothing_temporary
from lib.conversions import FILES, cached, check, config_of, conversions, installed, small, started
from lib.world import BUILD, ROOT, LadeError, sanitizer_environment

LIMIT_S = 180
TAKES_S = {"nothing_is_kept_where_that_is_said": 20}


def test_once_until_something_changes():
    with started() as world:
        entries, path = small(world)
        record = installed(world, path)
        key = record["key"]
        place = world.call("install", "convert", key=key)
        assert place == os.path.join(world.models_dir, ".convert_cache", key)
        check(place, path, entries)
        before = os.stat(os.path.join(place, "config.json")).st_ino
        assert world.call("install", "convert", key=key) == place and len(conversions(world)) == 1
        assert world.lade("convert", key).stdout.strip() == place and len(conversions(world)) == 1
        assert world.lade_json("convert", record["name"]) == {"key": key, "path": place}
        world.call("store", "update_model", key=key, config={"base": "sdxl"})
        assert world.call("install", "convert", key=key) == place and len(conversions(world)) == 2
        assert config_of(place, "config.json")["scaling_factor"] == 0.13025, "the edit counts"
        assert os.stat(os.path.join(place, "config.json")).st_ino != before
        os.utime(world.record_path(record), (1, 1))  # another file, however old
        world.call("install", "convert", key=key)
        assert len(conversions(world)) == 3
        os.unlink(os.path.join(place, "config.json"))  # the sign that it is whole
        world.call("install", "convert", key=key)
        assert len(conversions(world)) == 4
        synced = world.call("install", "sync_to_config")
        assert not synced["added"] and not synced["failed"], synced  # a copy is no model of its own
        world.call("install", "unconditionally_delete", key=key)
        assert cached(world) == [], "the copy goes with the model"
        nothing_temporary(world)


def test_two_at_once_are_one_conversion():
    with started(**{"install.slots": 4}) as world:
        entries = checkpoints.checkpoint("sd-1", width=32)
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        key, places = installed(world, path)["key"], []
        threads = [threading.Thread(target=lambda: places.append(world.call("install", "convert", key=key))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(places) == 4 and len(set(places)) == 1 and len(conversions(world)) == 1


def test_the_longest_unasked_makes_room():
    with started(**{"install.convert_cache_mb": 1}) as world:
        keys = []
        for number in range(4):
            _, path = small(world, f"m{number}.safetensors", number)
            keys.append(installed(world, path)["key"])
        for key in keys[:3]:
            world.call("install", "convert", key=key)
        assert cached(world) == sorted(keys[:3]), "nobody of the last minute goes"
        for number, key in enumerate(keys[:3]):
            os.utime(os.path.join(world.models_dir, ".convert_cache", key, ".entry"), (1000 + number, 1000 + number))
        world.call("install", "convert", key=keys[0])  # asked for again
        assert len(conversions(world)) == 3
        world.call("install", "convert", key=keys[3])
        left = cached(world)
        assert keys[0] in left and keys[3] in left and keys[1] not in left, left


def test_nothing_is_kept_where_that_is_said():
    with started(**{"install.convert_cache_mb": 0}) as world:
        _, path = small(world)
        key = installed(world, path)["key"]
        place = world.call("install", "convert", key=key)
        assert os.path.isdir(place)
        os.utime(os.path.join(place, ".entry"), (1000, 1000))
        world.eventually(lambda: not os.path.exists(place))


def test_a_site_has_its_own():
    """A folder of conversions comes before the shipped ones: here one that leaves averages alone."""
    with started() as world:
        entries = checkpoints.averaged(checkpoints.checkpoint("sd-1"))
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        key = installed(world, path)["key"]
        place = world.call("install", "convert", key=key)
        check(place, path, entries)
        site = os.path.join(world.folder, "site")
        os.makedirs(site)
        with open(os.path.join(ROOT, "configs/convert/stable-diffusion.yaml"), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(site, "ours.yaml"), "w", encoding="utf-8") as file:
            file.write(text.replace("take: true", "take: false"))
        world.stop()
        world.configure(**{"convert_dir": site, "broker.beat_ms": 200})
        world.start("broker", "install")
        world.call("install", "convert", key=key)
        plain = checkpoints.checkpoint("sd-1")
        source = weights.read_safetensors(path)
        got = weights.read_safetensors(os.path.join(place, "unet", FILES["unet"]))
        assert got["conv_in.weight"] == source["model.diffusion_model.input_blocks.0.0.weight"]
        assert sorted(got) == sorted(name for entry in plain for part, name, _ in entry.becomes if part == "unet")
        with open(os.path.join(site, "ours.yaml"), "a", encoding="utf-8") as file:
            file.write("\nmaps:\n  mine:\n    - a.{n}: b.{m}\n")
        world.stop()
        process = world.launch("install")
        process.line("'b.{m}' cannot be made from 'a.{n}'")
        process.popen.wait(30)
        process.killed = True


# ------------------------------------------------------------------------------------------------
# Several at once

@contextlib.contextmanager
def nobody_converts(world):
    """While it lasts every conversion waits before it begins."""
    folder = os.path.join(world.models_dir, ".convert_cache")
    os.makedirs(folder, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for number in range(64):
            file = stack.enter_context(open(os.path.join(folder, f".lock_{number:02}"), "wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def reading(place):
    """As a load holds a copy while it reads it."""
    with open(os.path.join(place, ".entry"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def running(world, job):
    world.eventually(lambda: world.call("jobs", "get", id=job["id"])["status"] == "running")


def ended(world, job):
    return world.call("jobs", "wait", id=job["id"], timeout_s=60)


def test_clients_that_ask_at_once_get_one_job():
    with started() as world:
        _, path = small(world)
        key = installed(world, path)["key"]
        with nobody_converts(world):
            jobs = [world.call("install", "convert", wait=False, key=key) for _ in range(3)]
            assert len({job["id"] for job in jobs}) == 1, jobs
            running(world, jobs[0])
            world.call("store", "update_model", key=key, config={"base": "sdxl"})
            other = world.call("install", "convert", wait=False, key=key)
            assert other["id"] != jobs[0]["id"], "of the record as it was"
        place = ended(world, other)["result"]["path"]
        assert config_of(place, "config.json")["scaling_factor"] == 0.13025 and len(conversions(world)) == 2


def test_five_parts_at_once_are_one_conversion():
    """The loads of a pipeline: one of them converts, and those that wait for it take no slot."""
    parts = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
    with started("broker", "install", "gpu", **{"install.slots": 2}) as world:
        entries = checkpoints.checkpoint("sd-1")
        record = installed(world, checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2))
        loaded = {}

        def load(part):
            loaded[part] = world.call("load", "load_model_by_key", key=record["key"], submodel=part, timeout_s=60)
        threads = [threading.Thread(target=load, args=(part,)) for part in parts]
        with nobody_converts(world):
            for thread in threads:
                thread.start()
            world.eventually(lambda: len(world.call("jobs", "list", kind="convert")) == len(parts))
            jobs = world.eventually(lambda: [job for job in world.call("jobs", "list", kind="convert") if job["status"] == "running"])
            assert len(jobs) == 1, jobs
            waits = next(job for job in world.call("jobs", "list", kind="convert") if job["status"] == "enqueued")
            assert "only:convert:" in world.call("jobs", "why", id=waits["id"])["why"]
            installed(world, weights.lora(os.path.join(world.folder, "in", "l.safetensors"), 1))
        for thread in threads:
            thread.join(60)
        assert sorted(loaded) == sorted(parts) and len(conversions(world)) == 1, (loaded, conversions(world))
        assert not [gate for gate in world.call("broker", "gates") if gate["gate"].startswith("only:")], "gates that nobody is at go"


# ------------------------------------------------------------------------------------------------
# Who reads a copy, or waits for it, keeps it

def test_what_is_read_stays():
    with started(**{"install.convert_cache_mb": 1}) as world:
        keys = [installed(world, small(world, f"m{number}.safetensors", number)[1])["key"] for number in range(4)]
        places = [world.call("install", "convert", key=key) for key in keys[:3]]
        for number, place in enumerate(places):
            os.utime(os.path.join(place, ".entry"), (1000 + number, 1000 + number))
        with reading(places[0]):
            world.call("install", "convert", key=keys[3])
            left = cached(world)
            assert keys[0] in left and keys[1] not in left, left
        world.call("store", "update_model", key=keys[3], config={"base": "sdxl"})
        world.call("install", "convert", key=keys[3])
        left = cached(world)
        assert keys[3] in left and keys[0] not in left, left


def test_what_a_load_waits_for_stays():
    with started("broker", "install", **{"install.convert_cache_mb": 1}) as world:
        keys = [installed(world, small(world, f"m{number}.safetensors", number)[1])["key"] for number in range(4)]
        record = world.call("store", "get_model", key=keys[0])
        job = world.call("jobs", "submit", kind="convert", source=keys[0], spec={"key": keys[0], "record": record, "awaited": True})
        note = os.path.join(ended(world, job)["result"]["path"], ".entry")
        assert os.stat(note).st_mtime > time.time() + 300, "for minutes, whatever else is converted"
        for key in keys[1:]:
            place = world.call("install", "convert", key=key)
            os.utime(os.path.join(place, ".entry"), (1000, 1000))
        left = cached(world)
        assert keys[0] in left and keys[3] in left and len(left) < 4, left


def test_a_load_takes_what_it_waited_for():
    with started("broker", "install", "gpu") as world:
        entries = checkpoints.checkpoint("sd-1")
        key = installed(world, checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2))["key"]
        world.call("load", "load_model_by_key", key=key, submodel="vae")
        note = os.path.join(world.models_dir, ".convert_cache", key, ".entry")
        assert os.stat(note).st_mtime < time.time() + 1, "from then on it is as old as any other"


def test_a_new_copy_waits_for_who_reads_the_old_one():
    with started() as world:
        key = installed(world, small(world)[1])["key"]
        place = world.call("install", "convert", key=key)
        before = os.stat(place).st_ino
        world.call("store", "update_model", key=key, config={"base": "sdxl"})
        with reading(place):
            job = world.call("install", "convert", wait=False, key=key)
            world.eventually(lambda: made(world))
            assert os.stat(place).st_ino == before and world.call("jobs", "get", id=job["id"])["status"] == "running"
        assert ended(world, job)["status"] == "completed" and os.stat(place).st_ino != before
        nothing_temporary(world)


def made(world):
    """The copy that a job made and has not put in its place yet."""
    return [above for above, _, names in os.walk(world.models_dir) if "/copy_" in above and ".entry" in names]


# ------------------------------------------------------------------------------------------------
# A model that goes meanwhile

def check_gone(world, job):
    job = ended(world, job)
    assert job["status"] == "error" and job["error_type"] in ("UnknownModel", "ModelNotFound"), job
    assert cached(world) == []
    nothing_temporary(world)


def test_a_model_unregistered_before_it_is_converted():
    with started() as world:
        record = installed(world, small(world)[1])
        with nobody_converts(world):
            job = world.call("install", "convert", wait=False, key=record["key"])
            running(world, job)
            world.call("store", "del_model", key=record["key"])
        check_gone(world, job)
        assert "removed while it was converted" in world.call("jobs", "get", id=job["id"])["error"]
        assert os.path.exists(world.record_path(record))


def test_a_model_deleted_before_it_is_converted():
    with started() as world:
        key = installed(world, small(world)[1])["key"]
        with nobody_converts(world):
            job = world.call("install", "convert", wait=False, key=key)
            running(world, job)
            world.call("install", "unconditionally_delete", key=key)
        check_gone(world, job)


def test_a_model_deleted_when_its_copy_is_made():
    """Made and not yet in its place, as somebody reads the old one."""
    with started() as world:
        key = installed(world, small(world)[1])["key"]
        place = world.call("install", "convert", key=key)
        world.call("store", "update_model", key=key, config={"base": "sdxl"})
        with reading(place):
            job = world.call("install", "convert", wait=False, key=key)
            world.eventually(lambda: made(world))
            world.call("install", "unconditionally_delete", key=key)
            job = ended(world, job) if cached(world) else job
        check_gone(world, job)


# ------------------------------------------------------------------------------------------------
# A full disk

@on_small_disk
def test_no_room():
    """The disk is full: the job says so and waits; nothing half-done is left; with room it goes on by itself."""
    with started("broker", **{"broker.retry_base_ms": 100, "broker.retry_max_ms": 500}) as world:
        entries = checkpoints.checkpoint("sd-1", width=32)
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        size = os.path.getsize(path)
        mount(world.models_dir, f"{size * 3 // 2 // 1024}k")
        world.start("install")
        key = installed(world, path)["key"]
        job = world.call("install", "convert", wait=False, key=key)
        job = world.eventually(lambda: (found := world.call("jobs", "get", id=job["id"]))["error_type"] == "no_space" and found)
        assert job["failures"] == 0 and "make room" in job["error"] and world.models_dir in job["error"], job
        world.eventually(lambda: not [above for above, _, names in os.walk(world.models_dir) if set(names) & set(FILES.values())])
        assert cached(world) == []
        resize(world.models_dir, f"{size * 4 // 1024}k")
        done = ended(world, job)
        assert done["status"] == "completed" and done["failures"] == 0, done
        check(done["result"]["path"], path, entries)
        nothing_temporary(world)
        unmount(world)


@on_small_disk
def test_a_full_disk_takes_what_nobody_asks_for():
    with started("broker") as world:
        size = os.path.getsize(small(world)[1])
        mount(world.models_dir, f"{size * 7 // 2 // 1024}k")
        world.start("install")
        first, second = (installed(world, small(world, f"m{number}.safetensors", number)[1])["key"] for number in range(2))
        place = world.call("install", "convert", key=first)
        os.utime(os.path.join(place, ".entry"), (1000, 1000))
        world.call("install", "convert", key=second)
        assert cached(world) == [second], cached(world)
        unmount(world)


def unmount(world):
    world.stop()
    subprocess.run(["umount", world.models_dir], check=True)

# ------------------------------------------------------------------------------------------------
# Kills

def big(world, seed=2):
    """Some 200 MB: long enough to be stopped in."""
    entries = checkpoints.checkpoint("sd-1", width=96)
    return entries, checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, seed)


def stopped_in_the_middle(world):
    """A running conversion whose worker stands still: (its job, the worker)."""
    def writes():
        for above, _, names in os.walk(world.models_dir):
            if "copy_" in above and FILES["unet"] in names:
                return True
        return False
    job = world.call("install", "convert", wait=False, key=world.key)
    while not writes():
        status = world.call("jobs", "get", id=job["id"])["status"]
        assert status not in ("completed", "error"), status
    return job


def test_kill_9_in_the_middle():
    with started("broker", **{"broker.beat_ms": 100}) as world:
        worker = world.start("install")
        entries, path = big(world)
        world.key = installed(world, path)["key"]
        job = stopped_in_the_middle(world)
        worker.kill()
        assert cached(world) == [], "nothing half-done has its name"
        world.start("install")
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
        assert ended["status"] == "completed" and ended["attempt"] >= 2, ended
        check(ended["result"]["path"], path, entries)
        world.eventually(lambda: not [name for name in os.listdir(world.models_dir) if name.startswith("tmp")])


def test_cancel_in_the_middle():
    with started() as world:
        _, path = big(world)
        world.key = installed(world, path)["key"]
        job = stopped_in_the_middle(world)
        world.call("jobs", "cancel", id=job["id"])
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
        assert ended["status"] == "cancelled", ended
        world.eventually(lambda: not [name for name in os.listdir(world.models_dir) if name.startswith("tmp")])
        assert cached(world) == []


# ------------------------------------------------------------------------------------------------
# Loading

def digests(tensors):
    return {name: [dtype, list(shape), hashlib.sha256(data).hexdigest()] for name, (dtype, shape, data) in tensors.items()}


def held(world, key, submodel=None):
    """The tensors of a loaded model as another process sees them."""
    env = {**world.environment(), **sanitizer_environment()}
    done = subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/e2e/attach.py"), os.path.join(BUILD, "liblade.so.0"), world.data, key,
                           *([submodel] if submodel else [])], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[0])["tensors"]


def test_a_part_of_a_checkpoint_is_loaded_from_its_copy():
    with started("broker", "install", "gpu") as world:
        entries = checkpoints.checkpoint("sd-1")
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        record = installed(world, path)
        parts = checkpoints.expected(path, entries)
        assert held(world, record["key"], "vae") == digests(parts["vae"])
        assert len(conversions(world)) == 1
        loads = world.call("jobs", "list", kind="load")
        assert [job["result"]["config"]["path"] for job in loads] == [record["path"]], loads
        assert held(world, record["key"], "unet") == digests(parts["unet"])
        assert len(world.call("jobs", "list", kind="convert")) == 1, "what is fresh is not even asked for"
        assert held(world, record["key"]) == digests(weights.read_safetensors(path)), "whole, it is as stored"
        try:
            world.call("load", "load_model_by_key", key=record["key"], submodel="safety_checker")
            raise AssertionError("loaded")
        except LadeError as error:
            assert error.code == "ValueError" and "it has:" in str(error), str(error)
        world.call("store", "update_model", key=record["key"], config={"prediction_type": "v_prediction"})
        world.call("load", "load_model_by_key", key=record["key"], submodel="scheduler")
        assert len(conversions(world)) == 2
        place = os.path.join(world.models_dir, ".convert_cache", record["key"])
        assert config_of(place, "scheduler", "scheduler_config.json")["prediction_type"] == "v_prediction"


def test_a_part_that_its_record_places_elsewhere():
    """A better VAE for a checkpoint: it is loaded as it is, and nothing is converted."""
    with started("broker", "install", "gpu") as world:
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), checkpoints.checkpoint("sd-1"), 2)
        better = checkpoints.write(os.path.join(world.folder, "in", "vae.safetensors"), checkpoints.vae(".", prefix=""), 3)
        key = installed(world, path)["key"]
        world.call("store", "update_model", key=key, config={"submodels": {"vae": {"path_or_prefix": better}}})
        assert held(world, key, "vae") == digests(weights.read_safetensors(better))
        assert world.call("jobs", "list", kind="convert") == []


def test_a_load_tells_why_the_conversion_failed():
    with started("broker", "install", "gpu") as world:
        entries = [entry for entry in checkpoints.checkpoint("sd-1") if "first_stage" not in entry.name]
        path = checkpoints.write(os.path.join(world.folder, "in", "m.safetensors"), entries, 2)
        record = installed(world, path)
        try:
            world.call("load", "load_model_by_key", key=record["key"], submodel="vae")
            raise AssertionError("loaded")
        except LadeError as error:
            assert error.code == "InvalidModelConfig" and "vae" in str(error), (error.code, str(error))
