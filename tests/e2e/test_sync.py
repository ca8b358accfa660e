"""Records and files brought into agreement, and neither destroyed."""
import os
import shutil

from lib import samples, weights
from lib.world import World

LIMIT_S = 120


def synced(world, **args):
    return world.call("install", "sync_to_config", timeout_s=60, **args)


def keys(records):
    return sorted(record["key"] for record in records)


def listed(world):
    return keys(world.call("store", "all_models"))


def registered(world, root, count, seed=0):
    """Models in place below root; answers {path: key}."""
    paths = [weights.embedding(os.path.join(root, f"m{i}.safetensors"), seed + i, vectors=1 + i) for i in range(count)]
    world.call("install", "scan_directory", scan_dir=root, timeout_s=60)
    records = {record["path"]: record["key"] for record in world.call("store", "all_models")}
    return {path: records[path] for path in paths}


def test_what_is_new_is_registered():
    with World() as world:
        drop = os.path.join(world.folder, "drop")
        world.configure(**{"install.autoimport_dir": drop, "broker.beat_ms": 200, "broker.retry_base_ms": 50})
        world.start("broker", "install")
        inside = weights.lora(os.path.join(world.models_dir, "sd-1", "lora", "in.safetensors"), 1)
        outside = weights.lora(os.path.join(drop, "some", "out.safetensors"), 2)
        weights.lora(os.path.join(world.models_dir, "tmpinstall_99", "half.safetensors"), 3)
        weights.lora(os.path.join(world.models_dir, ".cache", "cached.safetensors"), 4)
        planned = synced(world, dry_run=True)
        assert len(planned["added"]) == 2 and listed(world) == [], planned
        result = synced(world)
        assert sorted(model["path"] for model in result["added"]) == sorted([outside, "sd-1/lora/in.safetensors"]), result
        assert os.path.exists(inside) and os.path.exists(outside), "in place"
        assert [result[name] for name in ("missing", "unavailable", "relinked", "unregistered", "failed")] == [[]] * 5, result
        assert synced(world)["added"] == []


def test_missing_is_told_and_goes_only_when_asked():
    with World() as world:
        world.start("broker", "install")
        own = registered(world, os.path.join(world.folder, "own"), 6)
        gone = sorted(own)[0]
        os.unlink(gone)
        for _ in range(2):
            result = synced(world)
            assert keys(result["missing"]) == [own[gone]] and result["unavailable"] == [] and result["unregistered"] == []
            assert result["missing"][0]["path"] == gone and result["missing"][0]["name"] == "m0", result["missing"]
            assert len(listed(world)) == 6
        planned = synced(world, unregister=True, dry_run=True)
        assert keys(planned["unregistered"]) == [own[gone]] and len(listed(world)) == 6
        events = world.events("model_record_deleted/")
        result = synced(world, unregister=True)
        assert keys(result["unregistered"]) == [own[gone]] and listed(world) == sorted(set(own.values()) - {own[gone]})
        assert events.receive(30)["key"] == own[gone]


def test_a_drive_that_is_away_wipes_no_records():
    with World() as world:
        world.start("broker", "install")
        drive, home = os.path.join(world.folder, "drive"), os.path.join(world.folder, "home")
        away, here = registered(world, drive, 4), registered(world, home, 4, seed=50)
        os.rename(drive, drive + "-away")
        os.mkdir(drive)  # a mount point without its drive
        result = synced(world, unregister=True)
        assert keys(result["unavailable"]) == sorted(away.values()) and result["missing"] == [], result
        assert "is its drive mounted" in result["unavailable"][0]["reason"], result["unavailable"]
        assert result["unregistered"] == [] and listed(world) == sorted([*away.values(), *here.values()])
        # Something lies there now, but not the models: most of what was there went at once.
        with open(os.path.join(drive, "note.txt"), "w", encoding="utf-8") as file:
            file.write("plug the drive in")
        result = synced(world, unregister=True)
        assert keys(result["unavailable"]) == sorted(away.values()) and result["unregistered"] == [], result
        assert "went at once" in result["unavailable"][0]["reason"], result["unavailable"]
        shutil.rmtree(drive)
        os.rename(drive + "-away", drive)
        result = synced(world, unregister=True)
        assert result["unavailable"] == result["missing"] == [] and len(listed(world)) == 8, result


def test_an_empty_models_folder_wipes_no_records():
    with World() as world:
        world.start("broker", "install")
        for i in range(2):
            weights.lora(os.path.join(world.models_dir, "sd-1", "lora", f"{i}.safetensors"), i)
        assert len(synced(world)["added"]) == 2
        os.rename(world.models_dir, world.models_dir + "-away")
        for make in (False, True):
            if make:
                os.mkdir(world.models_dir)
            result = synced(world, unregister=True)
            assert len(result["unavailable"]) == 2 and result["missing"] == [] and len(listed(world)) == 2, result
            assert ("is empty" if make else "is gone") in result["unavailable"][0]["reason"], result
        os.rmdir(world.models_dir)
        os.rename(world.models_dir + "-away", world.models_dir)
        assert synced(world)["unavailable"] == []


def test_a_file_that_turned_up_elsewhere_is_relinked():
    with World() as world:
        world.configure(**{"install.autoimport_dir": os.path.join(world.folder, "drop"), "broker.beat_ms": 200})
        world.start("broker", "install")
        own = registered(world, os.path.join(world.folder, "own"), 6)
        pipe = samples.pipeline(os.path.join(world.folder, "own", "pipe"))
        (pipe_key,) = world.call("install", "scan_directory", scan_dir=os.path.dirname(pipe), timeout_s=60)
        moved = {sorted(own)[1]: os.path.join(world.folder, "drop", "new name.safetensors"),
                 sorted(own)[2]: os.path.join(world.models_dir, "sd-1", "embedding", "m2.safetensors"),
                 pipe: os.path.join(world.folder, "drop", "pipe")}
        for before, after in moved.items():
            os.makedirs(os.path.dirname(after), exist_ok=True)
            shutil.move(before, after)
        other = weights.embedding(os.path.join(world.folder, "drop", "other.safetensors"), 99, vectors=2)
        assert os.path.getsize(other) == os.path.getsize(moved[sorted(own)[1]]), "as large, and another"
        planned = synced(world, dry_run=True)
        assert len(planned["relinked"]) == 3 and world.call("store", "get_model", key=own[sorted(own)[1]])["path"] == sorted(own)[1]
        result = synced(world, unregister=True)
        assert {one["from"]: one["key"] for one in result["relinked"]} == {
            sorted(own)[1]: own[sorted(own)[1]], sorted(own)[2]: own[sorted(own)[2]], pipe: pipe_key}, result
        assert [model["path"] for model in result["added"]] == [other], result["added"]
        assert result["missing"] == result["unregistered"] == result["failed"] == [], result
        for before, key in [*own.items(), (pipe, pipe_key)]:
            record = world.call("store", "get_model", key=key)
            assert world.record_path(record) == moved.get(before, before), record
            assert record["name"] == ("pipe" if before == pipe else os.path.basename(before)[:-len(".safetensors")])
        assert synced(world)["relinked"] == []


def test_command():
    with World() as world:
        world.start("broker", "install")
        own = registered(world, os.path.join(world.folder, "own"), 5)
        gone = sorted(own)[0]
        os.unlink(gone)
        weights.lora(os.path.join(world.models_dir, "sd-1", "lora", "in.safetensors"), 77)
        done = world.lade("sync")
        lines = sorted(line.split()[0] for line in done.stdout.splitlines())
        assert lines == ["added", "missing"], done.stdout
        assert "1 added, 0 relinked, 1 missing, 0 unavailable" in done.stderr and "--unregister" in done.stderr, done.stderr
        assert keys(world.lade_json("sync", "--unregister", "--dry-run")["unregistered"]) == [own[gone]]
        assert len(listed(world)) == 6
        assert keys(world.lade_json("sync", "--unregister")["unregistered"]) == [own[gone]]
        assert len(listed(world)) == 5


def test_an_install_under_way_is_not_taken_for_a_stray():
    """What an install has placed a moment ago is its own, record or not."""
    with World() as world:
        world.start("broker", "install")
        other = world.worker("install", slots=1)
        world.call("jobs", "submit", kind="install", source="held by another worker",
                   requires={"name": other.name})
        other.hello()
        held = other.job()
        placed = weights.lora(os.path.join(world.models_dir, "sd-1", "lora", "placed.safetensors"), 5)
        result = synced(world)
        assert (result["added"], result["busy"]) == ([], 1), result
        assert "1 that came while an install runs" in world.lade("sync").stderr
        other.fail(held, "not_found", "it was only for show")
        other.settle()
        result = synced(world)
        assert [world.record_path(model) for model in result["added"]] == [placed] and result["busy"] == 0, result
