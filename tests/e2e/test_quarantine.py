"""A model that would run code when loaded: refused, or installed into quarantine when asked for, and not loaded from there."""
import os
import struct
import sys
import zipfile

from lib.world import ROOT, World

sys.path.insert(0, os.path.join(ROOT, "tests", "safety"))
import malicious

EMBEDDING = malicious.glob("torch._utils", "_rebuild_tensor_v2") + malicious.tuple_of(
    b"(" + malicious.text("storage") + malicious.glob("torch", "FloatStorage") + malicious.text("0") + malicious.text("cpu")
    + b"J" + struct.pack("<i", 4 * 768) + b"tQ", b"K\x00", b"(K\x04M\x00\x03t", b"(M\x00\x03K\x01t", b"\x89",
    malicious.call("collections", "OrderedDict")) + b"R"


def embedding(path, payload=b""):
    """A textual inversion of the web UI, with a payload beside it."""
    tree = (b"}(" + malicious.text("string_to_token") + b"}" + malicious.text("*") + b"M\x09\x01s" + malicious.text("string_to_param") + b"}"
            + malicious.text("*") + EMBEDDING + b"s" + malicious.text("name") + malicious.text("style"))
    tree += (malicious.text("step") + payload if payload else malicious.text("step") + b"K\x05") + b"u"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", malicious.whole(tree))
        out.writestr("archive/data/0", bytes(4 * 4 * 768))
        out.writestr("archive/version", "3\n")
    return path


def test_unsafe_is_refused_or_kept_in_quarantine():
    with World() as world:
        world.up()
        path = embedding(os.path.join(world.folder, "style.pt"), malicious.SYSTEM)
        done = world.lade("install", path, status=1)
        assert "unsafe_file" in done.stderr or "os.system would be called" in done.stderr, done.stderr
        job = world.call("install", "heuristic_import", source=path)
        job = world.call("install", "wait_for_job", id=job["id"], timeout_s=60)
        assert (job["status"], job["error_type"]) == ("error", "unsafe_file"), job
        assert "os.system would be called" in job["error"] and world.call("store", "all_models") == []
        world.lade("install", path, "--dry-run", status=1)
        world.lade("install", path, "--quarantine", status=0)
        [record] = world.call("store", "all_models")
        assert record["quarantined"] is True and record["type"] == "embedding", record
        assert [finding["name"] for finding in record["unsafe"] if finding["what"] == "call"] == ["os.system"], record["unsafe"]
        done = world.lade("load", record["key"], status=1)
        assert "quarantine" in done.stderr, done.stderr
        found = world.lade_json("probe", path)
        assert found["type"] == "embedding" and {finding["name"] for finding in found["unsafe"]} == {"os.system"}, found


def test_one_file_of_a_folder_is_enough():
    with World() as world:
        folder = os.path.join(world.folder, "style")
        os.makedirs(os.path.join(folder, "notes"))
        embedding(os.path.join(folder, "learned_embeds.bin"))
        assert world.lade_json("probe", folder)["unsafe"] is None
        with open(os.path.join(folder, "notes", "readme.txt"), "wb") as out:
            out.write(malicious.whole(malicious.SYSTEM))
        found = world.lade_json("probe", folder)
        assert {finding["where"].split(":")[0] for finding in found["unsafe"]} == {"notes/readme.txt"}, found
        world.up()
        done = world.lade("install", folder, status=1)
        assert "notes/readme.txt" in done.stderr, done.stderr
        assert world.call("store", "all_models") == []


def test_safe_is_not():
    with World() as world:
        world.up()
        path = embedding(os.path.join(world.folder, "style.pt"))
        world.lade("install", path, status=0)
        [record] = world.call("store", "all_models")
        assert "quarantined" not in record and "unsafe" not in record, record
        assert world.lade_json("probe", path)["unsafe"] is None


def test_a_scan_passes_over_what_is_unsafe():
    with World() as world:
        world.up()
        folder = os.path.join(world.folder, "models-to-scan")
        os.makedirs(folder)
        embedding(os.path.join(folder, "good.pt"))
        embedding(os.path.join(folder, "bad.pt"), malicious.SYSTEM)
        result = world.lade_json("scan", folder)
        assert [os.path.basename(model["path"]) for model in result["added"]] == ["good.pt"], result
        assert [(os.path.basename(model["path"]), model["error_type"]) for model in result["failed"]] == [("bad.pt", "unsafe_file")], result
