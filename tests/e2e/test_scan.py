"""Scans: what is below a folder becomes records, each once, whatever is bad, known or killed meanwhile."""
import ctypes
import json
import os
import shutil

from lib import samples, weights
from lib.skip import Skip
from lib.world import BUILD, SANITIZED, LadeError, World

LIMIT_S = 180


def make_tree(root):
    """Models of several kinds, what is none, and what is passed over; answers the models' paths."""
    models = [weights.lora(os.path.join(root, "loras", "style.safetensors"), 1),
              weights.embedding(os.path.join(root, "deep", "er", "still", "emb.safetensors"), 2),
              samples.checkpoint(os.path.join(root, "main", "big.safetensors"), "sd-1", "inpaint"),
              samples.pipeline(os.path.join(root, "pipes", "pipe"), "sdxl")]
    weights.lora(os.path.join(root, ".hidden", "a.safetensors"), 3)
    weights.lora(os.path.join(root, "lost+found", "a.safetensors"), 4)
    with open(os.path.join(root, "loras", "readme.txt"), "w", encoding="utf-8") as file:
        file.write("nothing")
    with open(os.path.join(root, "deep", "broken.safetensors"), "wb") as file:
        file.write(b"\xff" * 100)
    os.symlink(root, os.path.join(root, "deep", "round"))
    os.symlink(models[0], os.path.join(root, "again.safetensors"))
    return models


def scanned(world, **args):
    """The ended job of a scan."""
    job = world.call("install", "scan_directory", wait=False, **args)
    ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
    assert ended["status"] == "completed", ended
    return ended


def paths_of(world):
    return {world.record_path(record): record for record in world.call("store", "all_models")}


def test_models_below_a_folder_are_registered():
    with World() as world:
        root = os.path.join(world.folder, "t r\u00e9e")
        models = make_tree(root)
        world.start("broker", "install")
        keys = world.call("install", "scan_directory", scan_dir=root, timeout_s=60)
        records = paths_of(world)
        assert sorted(records) == sorted(models), sorted(records)
        assert sorted(keys) == sorted(record["key"] for record in records.values())
        kinds = {path: (record["type"], record["base"], record["format"]) for path, record in records.items()}
        assert kinds[models[0]] == ("lora", "sd-1", "lycoris") and kinds[models[3]] == ("main", "sdxl", "diffusers"), kinds
        for path, record in records.items():
            assert (record["source"], record["source_type"]) == (path, "path") and record["hash"].startswith("imohash:")
        # The second time all of them are known; what is none is told again.
        result = scanned(world, scan_dir=root)["result"]
        assert (result["keys"], result["found"], result["known"]) == ([], 5, 4), result
        (bad,) = result["failed"]
        assert bad["path"].endswith("deep/broken.safetensors") and bad["error_type"] in ("corrupt", "not_a_model"), bad
        assert bad["error"], bad
        # A model that is new is the only one that is added.
        one = weights.lora(os.path.join(root, "loras", "new.safetensors"), 9)
        (key,) = world.call("install", "scan_directory", scan_dir=root + "/", timeout_s=60)
        assert world.call("store", "get_model", key=key)["path"] == one


def test_scan_with_install_copies():
    with World() as world:
        root = os.path.join(world.folder, "tree")
        models = make_tree(root)
        before = weights.tree(root)
        world.start("broker", "install")
        keys = world.call("install", "scan_directory", scan_dir=root, install=True, timeout_s=60)
        records = world.call("store", "all_models")
        assert sorted(keys) == sorted(record["key"] for record in records)
        assert {record["source"] for record in records} == set(models)
        for record in records:
            assert not os.path.isabs(record["path"]), record["path"]
            assert weights.tree(world.record_path(record)) == weights.tree(record["source"])
        assert weights.tree(root) == before, "nothing was moved"
        # Known by their source, not copied again.
        result = scanned(world, scan_dir=root, install=True)["result"]
        assert (result["keys"], result["known"], result["failed_count"]) == ([], 4, 1), result
        # The copies are the models folder's own and are no second time registered.
        result = scanned(world, scan_dir=world.models_dir)["result"]
        assert (result["keys"], result["known"]) == ([], 4), result


def test_bad_requests_say_what_to_do():
    with World() as world:
        path = weights.lora(os.path.join(world.folder, "one.safetensors"), 1)
        world.start("broker", "install")
        for scan_dir, install, code, words in (
                ("relative", False, "ValueError", "absolute"), ("/no/such/folder", False, "not_found", "/no/such/folder"),
                (path, False, "ValueError", "no folder"), (world.models_dir, True, "ValueError", "without --install")):
            try:
                world.call("install", "scan_directory", scan_dir=scan_dir, install=install, timeout_s=30)
                raise AssertionError(f"{scan_dir} was scanned")
            except LadeError as error:
                assert error.code == code and words in error.message, (error.code, error.message)
        done = world.lade("scan", "/no/such/folder", status=3)
        assert "/no/such/folder" in done.stderr


def test_command():
    with World() as world:
        root = os.path.join(world.folder, "tree")
        models = make_tree(root)
        world.start("broker", "install")
        planned = world.lade_json("scan", root, "--dry-run")
        assert sorted(model["path"] for model in planned["added"]) == sorted(models) and planned["keys"] == []
        assert all("key" not in model for model in planned["added"]), planned
        assert world.call("store", "all_models") == [], "a dry run changes nothing"
        assert "4 would be added" in world.lade("scan", root, "--dry-run").stderr
        done = world.lade("scan", os.path.relpath(root))
        assert len(done.stdout.splitlines()) == 4 and all(path in done.stdout for path in models), done.stdout
        assert "broken.safetensors" in done.stderr and "5 found: 4 added, 0 known, 1 failed" in done.stderr, done.stderr
        assert sorted(paths_of(world)) == sorted(models)
        job = world.lade_json("scan", root, "--no-wait")
        assert job["kind"] == "scan" and world.call("jobs", "wait", id=job["id"], timeout_s=30)["status"] == "completed"


def test_a_file_in_a_registered_folder_is_its_model():
    """A folder without a mark is registered as a whole: its files are no models of their own."""
    with World() as world:
        folder = os.path.join(world.folder, "tree", "odd")
        weights.lora(os.path.join(folder, "a.safetensors"), 1)
        world.start("broker", "install")
        world.call("store", "add_model", config={
            "name": "odd", "type": "lora", "base": "sd-1", "format": "lycoris", "path": folder, "hash": "x", "source": folder,
            "source_type": "path"})
        result = scanned(world, scan_dir=os.path.dirname(folder))["result"]
        assert (result["found"], result["known"], result["keys"]) == (1, 1, []), result


def test_two_scans_at_once_add_each_model_once():
    with World({"install.slots": 4}) as world:
        root = os.path.join(world.folder, "tree")
        models = [weights.embedding(os.path.join(root, str(i % 7), f"{i}.safetensors"), i) for i in range(150)]
        world.start("broker", "install")
        jobs = [world.call("install", "scan_directory", scan_dir=root, wait=False, token=str(i)) for i in range(3)]
        results = [world.call("jobs", "wait", id=job["id"], timeout_s=60)["result"] for job in jobs]
        assert sum(len(result["keys"]) for result in results) == len(models), results
        assert all(result["failed"] == [] for result in results)
        assert all(result["known"] + len(result["keys"]) == len(models) for result in results)
        assert sorted(paths_of(world)) == sorted(models) and len(world.call("store", "all_models")) == len(models)


def test_cancel_ends_it():
    with World({"install.slots": 1}) as world:
        root = os.path.join(world.folder, "tree")
        for i in range(300):
            weights.embedding(os.path.join(root, f"{i}.safetensors"), i)
        world.start("broker", "install")
        events = world.events()
        events.ready()
        job = world.call("install", "scan_directory", scan_dir=root, wait=False)
        events.until(lambda event: event["event"] == "model_record_added")
        world.call("jobs", "cancel", id=job["id"])
        assert world.call("jobs", "get", id=job["id"])["status"] == "cancelled"
        assert not [child for child in world.call("jobs", "list", parent=job["id"])
                    if child["status"] in ("enqueued", "running", "waiting")]


def test_kill_9_of_worker_and_broker_in_the_middle():
    """It ends with every good model once, and the bad ones told."""
    with World({"install.slots": 2, "broker.lease_beats": 2, "broker.max_deaths": 20}) as world:
        root = os.path.join(world.folder, "tree")
        models = [weights.embedding(os.path.join(root, f"{i // 40:02}", f"{i:03}.safetensors"), i) for i in range(400)]
        for i in range(5):
            with open(os.path.join(root, f"bad-{i}.safetensors"), "wb") as file:
                file.write(b"\x00" * i * 10)
        broker, worker = world.start("broker"), world.start("install")
        events = world.events()
        events.ready()
        job = world.call("install", "scan_directory", scan_dir=root, wait=False)
        for victim in ("install", "broker", "install", "broker", "both"):
            seen = events.until(lambda event: event["event"] == "model_record_added" or
                                (event["event"] == "job_completed" and event["id"] == job["id"]), 60)
            if seen[-1]["event"] == "job_completed":
                break
            if victim in ("install", "both"):
                worker.kill()
            if victim in ("broker", "both"):
                broker.kill()
                broker = world.start("broker")
            if victim in ("install", "both"):
                worker = world.start("install")
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
        assert ended["status"] == "completed", ended
        assert sorted(paths_of(world)) == sorted(models)
        assert len(world.call("store", "all_models")) == len(models)
        result = ended["result"]
        assert len(result["keys"]) == len(set(result["keys"])) == len(models), len(result["keys"])
        assert sorted(os.path.basename(one["path"]) for one in result["failed"]) == [f"bad-{i}.safetensors" for i in range(5)]


def test_a_model_that_kills_its_worker_costs_only_itself():
    """A batch whose worker dies again and again is taken apart until the one model is found."""
    with World({"broker.max_deaths": 1}) as world:
        root = os.path.join(world.folder, "tree")
        models = [weights.embedding(os.path.join(root, f"{i}.safetensors"), i) for i in range(5)]
        world.start("broker")
        worker = world.worker("scan", slots=10)
        worker.hello()
        job = world.call("install", "scan_directory", scan_dir=root, wait=False)
        held = worker.job()
        assert held["id"] == job["id"]
        worker.await_jobs(held, {"step": "batch", "roots": [root], "found": 5, "more": False, "sent": [models]},
                          [{"kind": "scan", "source": models[0], "spec": {"batch": models}}])
        worker.fail(worker.job(), "worker_lost", "it died", retry=False)
        worker.settle()
        worker.bye()
        world.start("install")
        ended = world.call("jobs", "wait", id=job["id"], timeout_s=60)
        assert len(ended["result"]["keys"]) == 5 and ended["result"]["failed"] == [], ended
        singles = [child["spec"]["batch"] for child in world.call("jobs", "list", kind="scan") if "batch" in child["spec"]]
        assert sorted(map(len, singles)) == [1, 1, 1, 1, 1, 5], singles


def test_many_pages():
    """What does not fit into one message comes page by page."""
    with World({"broker.max_message_bytes": 65536}) as world:
        root = os.path.join(world.folder, "tree")
        models = [weights.embedding(os.path.join(root, "d" * 60, f"{i:03}.safetensors"), i, vectors=1) for i in range(120)]
        world.start("broker", "install")
        keys = world.call("install", "scan_directory", scan_dir=root, timeout_s=60)
        assert len(keys) == len(models) and sorted(paths_of(world)) == sorted(models)
        result = scanned(world, scan_dir=root)["result"]
        assert (result["found"], result["known"], result["keys"]) == (120, 120, []), json.dumps(result)[:300]
        shutil.rmtree(root)


def test_liblade():
    """scan_directory, sync_to_config and verify from a program that links liblade."""
    if SANITIZED:
        raise Skip("a sanitized library needs a sanitized program")
    lade = ctypes.CDLL(os.path.join(BUILD, "liblade.so.0"))
    with World() as world:
        root = os.path.join(world.folder, "tree")
        models = make_tree(root)
        world.start("broker", "install")
        client, error, text = ctypes.c_void_p(), ctypes.create_string_buffer(1 << 16), ctypes.c_char_p()
        wait = ctypes.c_double(60)
        assert lade.lade_open(None, world.data.encode(), None, ctypes.byref(client), error) == 0
        assert lade.lade_installer_scan_directory(client, root.encode(), False, wait, ctypes.byref(text), error) == 0, error.raw[:300]
        keys = json.loads(text.value)
        assert sorted(keys) == sorted(record["key"] for record in paths_of(world).values()) and len(keys) == len(models)
        assert lade.lade_installer_sync_to_config(client, False, True, wait, ctypes.byref(text), error) == 0, error.raw[:300]
        assert json.loads(text.value)["missing"] == []
        asked = (ctypes.c_char_p * 2)(keys[0].encode(), None)
        assert lade.lade_installer_verify(client, asked, False, wait, ctypes.byref(text), error) == 0, error.raw[:300]
        assert json.loads(text.value)["checked"] == 1
        assert lade.lade_installer_verify(client, None, False, wait, ctypes.byref(text), error) == 0, error.raw[:300]
        assert json.loads(text.value)["checked"] == len(models)
        assert lade.lade_installer_scan_directory(client, b"relative", False, wait, ctypes.byref(text), error) != 0
        lade.lade_close(ctypes.byref(client))


def read_bytes(process):
    with open(f"/proc/{process.pid}/io", encoding="ascii") as file:
        return int(file.readline().split()[1])


def test_a_second_scan_reads_no_file_data():
    """Neither of what is known nor of what was refused, as long as it has not changed."""
    with World({"log_level": "warning"}) as world:
        root = os.path.join(world.folder, "tree")
        for i in range(40):
            weights.lora(os.path.join(root, f"{i}.safetensors"), i)
        strange = {f"of.no.model.{i}.{'x' * 40}": ("F32", (1,)) for i in range(1000)}
        odd = [weights.write_safetensors(os.path.join(root, f"odd-{i}.safetensors"), strange, seed=i) for i in range(5)]
        world.start("broker")
        worker = world.start("install")
        read = []
        for _ in range(3):
            before = read_bytes(worker)
            result = scanned(world, scan_dir=root)["result"]
            assert (result["found"], result["failed_count"]) == (45, 5), result
            read.append(read_bytes(worker) - before)
            assert sorted(one["path"] for one in result["failed"]) == sorted(odd) and result["failed"][0]["error"], result
        assert read[0] > 40 * 48 * 1024, read
        assert max(read[1:]) < 16 * 1024, read
        weights.lora(odd[0], 77)  # it is a model now
        (key,) = world.call("install", "scan_directory", scan_dir=root, timeout_s=60)
        assert world.call("store", "get_model", key=key)["path"] == odd[0]
