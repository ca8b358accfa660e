"""`lade doctor`: what is wrong is named with what to do; what is right is not; --fix only does what loses nothing."""
import os
import shutil
import socket
import time

from lib import weights
from lib.world import World

LIMIT_S = 120
TAKES_S = {"nobody_answers": 16}


def age(path, seconds=7200):
    when = time.time() - seconds
    os.utime(path, (when, when))


def checks(report, severity=None):
    return sorted((finding["check"], os.path.basename(finding["where"])) for finding in report["findings"]
                  if severity is None and finding["severity"] != "note" or finding["severity"] == severity)


def put(path, size=100):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(bytes(size))
    return path


def test_nothing_is_wrong():
    """A farm in order: exit status 0, and what it looked at is told."""
    with World() as world:
        world.up()
        world.install(weights.lora(os.path.join(world.folder, "a.safetensors"), 1))
        world.install(weights.lora(os.path.join(world.folder, "b.safetensors"), 2), inplace=True)
        report = world.lade_json("doctor")
        assert report["ok"] and report["findings"] == [] and report["models"] == 2, report
        assert report["keyspace"]["map_bytes"] >= report["keyspace"]["bytes"] > 0 and report["keyspace"]["schema"] >= 1, report
        assert {disk["path"] for disk in report["disks"]} == {world.data, world.models_dir}, report
        text = world.lade("doctor").stdout
        assert "nothing is wrong" in text and "models 2" in text, text


def test_files_and_records():
    """Missing, unavailable, of another size, without a record: told apart; doctor and --fix touch none of them."""
    with World() as world:
        world.start("broker", "install")
        kept = world.install(weights.lora(os.path.join(world.folder, "kept.safetensors"), 1))["config_out"]
        gone = world.install(weights.lora(os.path.join(world.folder, "gone.safetensors"), 2))["config_out"]
        cut = world.install(weights.lora(os.path.join(world.folder, "cut.safetensors"), 3))["config_out"]
        drive = os.path.join(world.folder, "drive")
        os.makedirs(os.path.join(drive, "x"))
        away = world.install(weights.lora(os.path.join(drive, "x", "away.safetensors"), 4), inplace=True)["config_out"]
        world.call("store", "add_model", key="nowhere", config={"name": "n", "type": "vae", "base": "sdxl", "format": "diffusers",
                                                                   "path": "/mnt/no such drive/models/n"})
        shutil.rmtree(os.path.join(drive, "x"))  # what is left of a drive that is not mounted: an empty folder
        os.unlink(world.record_path(gone))
        with open(world.record_path(cut), "ab") as out:
            out.write(b"more")
        orphan = put(os.path.join(world.models_dir, "sd-1", "lora", "lost", "model.safetensors"), 1234)
        alone = put(os.path.join(world.models_dir, "beside.ckpt"), 10)
        put(os.path.join(world.models_dir, "README.txt"))
        put(os.path.join(world.models_dir, "sd-1", "lora", "notes", "notes.txt"))
        put(os.path.join(world.models_dir, ".hidden", "x.safetensors"))
        records = world.call("store", "all_models")
        for arguments in ((), ("--fix",), ()):
            report = world.lade_json("doctor", *arguments, status=1)
            found = {(finding["check"], finding["where"]): finding for finding in report["findings"] if finding["severity"] != "note"}
            assert set(found) == {("file_missing", world.record_path(gone)), ("size_differs", world.record_path(cut)),
                                  ("file_unavailable", away["path"]), ("file_unavailable", "/mnt/no such drive/models/n"),
                                  ("orphan", os.path.dirname(orphan)), ("orphan", alone)}, found
            assert found["file_missing", world.record_path(gone)]["key"] == gone["key"]
            assert found["orphan", os.path.dirname(orphan)]["bytes"] == 1234
            assert all(finding["todo"] and finding["what"] and not finding["fixable"] for finding in found.values()), found
            assert report["fixed"] == [] and not report["ok"], report
        assert os.path.exists(orphan) and os.path.exists(alone) and world.call("store", "all_models") == records
        assert os.path.exists(world.record_path(kept))
        text = world.lade("doctor", status=1).stdout
        assert "gone" in text and "lade rm --keep-files" in text and "nothing is wrong" not in text, text


def test_models_folder_that_is_away():
    """An empty models folder is a drive that is away, not a hundred deleted models."""
    with World() as world:
        world.start("broker", "install")
        world.install(weights.lora(os.path.join(world.folder, "a.safetensors"), 1))
        os.rename(world.models_dir, world.models_dir + ".away")
        os.mkdir(world.models_dir)
        report = world.lade_json("doctor", status=1)
        assert checks(report) == [("file_unavailable", checks(report)[0][1])], report
        os.rmdir(world.models_dir)
        report = world.lade_json("doctor", status=1)
        assert {name for name, _ in checks(report)} == {"file_unavailable", "folder_unreachable"}, report
        os.rename(world.models_dir + ".away", world.models_dir)
        assert world.lade_json("doctor")["ok"]


def test_leftovers():
    """Temporary files of jobs that are over are found and, with --fix, removed; those of jobs that may go on, and young ones, stay."""
    with World() as world:
        world.start("broker")
        live = world.call("jobs", "submit", kind="nothing", source="x", start=False)["id"]
        failed = world.call("jobs", "submit", kind="nothing", source="y")["id"]
        world.call("jobs", "cancel", id=failed)
        old = [put(os.path.join(world.models_dir, "tmpinstall_987654", "a", "x.safetensors")),
               put(os.path.join(world.models_dir, "sd-1", "lora", ".x.safetensors.987654-2.part")),
               put(os.path.join(world.models_dir, "sd-1", "lora", "deep", "er", ".x.987654.journal")),
               put(os.path.join(world.data, "keyspace.restore-1", "data.mdb"))]
        kept = [put(os.path.join(world.models_dir, f"tmpinstall_{live}", "x.safetensors")),
                put(os.path.join(world.models_dir, f".x.{failed}-1.part")),
                put(os.path.join(world.models_dir, "tmpinstall_mine", "x")),
                put(os.path.join(world.models_dir, ".x.part")),
                put(os.path.join(world.models_dir, ".987654.config"))]
        for path in old + kept:
            age(path)
            age(os.path.dirname(path))
        for number in (987654, live):
            age(os.path.join(world.models_dir, f"tmpinstall_{number}"))
        kept.append(put(os.path.join(world.models_dir, ".young.987654-1.part")))
        report = world.lade_json("doctor", status=1)
        names = {".x.safetensors.987654-2.part", ".x.987654.journal", "tmpinstall_987654", "keyspace.restore-1"}
        assert {name for check, name in checks(report) if check == "leftover"} == names, report
        assert all(os.path.exists(path) for path in old + kept)
        report = world.lade_json("doctor", "--fix", status=None)
        assert len(report["fixed"]) == 4 and all("removed" in said for said in report["fixed"]), report
        assert not [check for check, _ in checks(report) if check == "leftover"], report
        assert not any(os.path.exists(path) for path in old) and all(os.path.exists(path) for path in kept)
        assert not os.path.exists(os.path.join(world.models_dir, "tmpinstall_987654"))


def test_nobody_answers():
    """Why nobody answers is told apart: never started, killed, stopped, no such host, refused, keys."""
    with World() as world:
        def why(*arguments, status=4):
            report = world.lade_json("doctor", *arguments, status=status, timeout_s=60)
            assert not report["ok"] and report["findings"], report
            assert all(finding["todo"] for finding in report["findings"]), report
            return report["findings"][0]["check"]

        assert why() == "broker_not_started"
        broker = world.start("broker")
        broker.kill()
        assert why() == "broker_not_running"
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            world.configure(insecure=True)
            assert why("--broker", f"tcp://127.0.0.1:{port}") == "broker_not_running"
            listener.listen()
            assert why("--broker", f"tcp://127.0.0.1:{port}") == "keys_refused"
        assert why("--broker", "tcp://no-such-host.invalid:1234") in ("host_unknown", "settings")
        world.configure(**{"curve.key": os.path.join(world.folder, "none"), "curve.server": os.path.join(world.folder, "none.pub")})
        assert why("--broker", "tcp://127.0.0.1:1", status=2) in ("curve_key", "settings")


def test_versions_and_settings():
    """A worker of another version, tokens in a file that others may read: warned of."""
    with World({"broker.beat_ms": 20000}) as world:
        world.start("broker")
        worker = world.worker("install")
        worker.hello()
        client = world.client()
        while not client.call("broker", "workers"):
            pass
        path = os.path.join(world.data, "lade.yaml")
        world.configure(**{"hub.token": "hf_secret"})
        os.chmod(path, 0o644)
        report = world.lade_json("doctor", status=1)
        assert checks(report) == [("settings_open", "lade.yaml"), ("version", worker.name)], report
        assert "hf_secret" not in str(report)
        os.chmod(path, 0o600)
        assert checks(world.lade_json("doctor", status=1)) == [("version", worker.name)]
