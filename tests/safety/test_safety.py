"""Files that would run code are told by their content; what common trainers write is not taken for one."""
import json
import os
import subprocess
import sys

from lib.skip import Skip
from lib.world import ROOT, World

sys.path.insert(0, os.path.join(ROOT, "tests", "safety"))
import malicious

LIMIT_S = 240

# What a trick is told as, where nothing in the file would run and the trick is all there is to find.
TOLD_AS = {
    "zip-names-differ-benign": "zip_headers", "zip-wrong-checksum-benign": "zip_checksum", "zip-encrypted-flag-benign": "zip_encrypted",
    "zip-encrypted-flag-in-directory": "zip_encrypted", "zip-encrypted-flag-in-header": "zip_headers", "zip-strong-encryption": "zip_encrypted",
    "zip-masked-headers": "zip_encrypted", "zip-method-unknown": "zip_method", "zip-size-lies": "zip_headers", "zip-size-absurd": "zip_sizes",
    "zip-prepended": "zip_around", "zip-appended": "zip_around", "zip-gap-between-members": "zip_gap", "zip-hidden-local-member": "zip_gap",
    "zip-overlapping": "zip_overlap", "zip-several-disks": "zip_disks", "zip-member-on-another-disk": "zip_disks", "zip-leads-out": "zip_name",
    "zip-absolute": "zip_name", "zip-backslash": "zip_name", "zip-twice-by-case": "zip_twice", "zip-twice": "zip_twice",
    "zip-fewer-than-there-are": "zip_headers", "zip-torchscript": "code", "zip-package": "code", "zip-zip64-lies": "zip_headers",
    "zip-behind-a-picture": "zip_hidden", "zip-deflate-longer-than-said": "zip_sizes", "zip-two-folders": "pickle",
    "tar-that-begins-as-a-pickle-benign": "tar_hidden", "tar-extended-name-benign": "tar_headers", "npy-objects": "objects",
    "7z-as-weights": "packed", "stream-seventh-pickle": "trailing", "stream-cut-after-reduce": "broken", "way-extension-1": "extension",
    "way-set-on-a-tensor": "misuse",
}


def check(world, folder, *options, status):
    return json.loads(world.lade("scan", "--check", folder, "--json", *options, status=status).stdout)


def test_every_construction_is_flagged():
    with World() as world:
        folder = os.path.join(world.folder, "malicious")
        made = malicious.write(folder)
        assert len(made) >= 60, len(made)
        answer = check(world, folder, status=1)
        found = {}
        for file in answer["unsafe"]:
            construction = os.path.join(folder, os.path.relpath(file["path"], folder).split(os.sep)[0])
            found.setdefault(construction, []).extend(file["unsafe"])
        missed = [name for name, path in made.items() if path not in found]
        assert not missed, f"{len(missed)} of {len(made)} not flagged: {missed}"
        assert answer["failed"] == [] and answer["unsafe_count"] == len(answer["unsafe"])
        assert TOLD_AS.keys() <= made.keys(), TOLD_AS.keys() - made.keys()
        # what would be called has its name, not only a mark
        for name, path in made.items():
            if name.startswith("call-"):
                wanted = name.split("-", 2)[2]
                assert any(finding["what"] == "call" and finding["name"] == wanted for finding in found[path]), (name, found[path])
            if name in TOLD_AS:
                assert TOLD_AS[name] in {finding["what"] for finding in found[path]}, (name, found[path])
            for finding in found[path]:
                assert finding["message"] and set(finding) == {"what", "where", "name", "message"}, finding


def test_one_file_at_a_time_and_by_people():
    with World() as world:
        folder = os.path.join(world.folder, "m")
        made = malicious.write(folder)
        path = os.path.join(made["name-pickle-safetensors"], "model.safetensors")
        done = world.lade("scan", "--check", path, status=1)
        assert "os.system would be called" in done.stdout and "1 file looked at, 1 of them unsafe" in done.stderr
        done = world.lade("probe", path, "--json", status=1)
        assert json.loads(done.stdout)["error"]["code"] == "unsafe_file", done.stdout
        listed = json.loads(world.lade("probe", "--tensors", path, "--json", status=0).stdout)
        assert {finding["name"] for finding in listed["unsafe"]} == {"os.system"}, listed


def benign(world):
    """The files of benign.py, and what torch finds in each."""
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import torch, numpy"], stderr=subprocess.DEVNULL, check=False).returncode:
        raise Skip("python3-torch is missing: scripts/setup installs it")
    folder = os.path.join(world.folder, "benign")
    subprocess.run([python, "-W", "ignore", os.path.join(ROOT, "tests/safety/benign.py"), folder], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "tensors.json"), encoding="utf-8") as file:
        return folder, json.load(file)


def test_what_trainers_write_is_not_flagged_and_lists_what_torch_finds():
    with World() as world:
        folder, expected = benign(world)
        answer = check(world, folder, status=0)
        assert answer["unsafe"] == [] and answer["files"] == len(expected) + 1, answer["unsafe"][:5]
        wrong = []
        for path, tensors in expected.items():
            listed = json.loads(world.lade("probe", "--tensors", path, "--json", status=0).stdout)
            got = {tensor["name"]: [tensor["dtype"], tensor["shape"], tensor["layout"]] for tensor in listed["tensors"]}
            if ".plain" in path:  # bytes within bytes: where they lie is not asked for
                got = {name: row[:2] for name, row in got.items()}
                tensors = {name: row[:2] for name, row in tensors.items()}
            if got != tensors:
                names = [name for name in {*got, *tensors} if got.get(name) != tensors.get(name)]
                wrong.append((os.path.basename(path), [(name, got.get(name), tensors.get(name)) for name in names[:3]]))
        assert not wrong, "\n".join(map(str, wrong[:10]))


def test_bytes_are_where_the_list_says():
    """What is dense has its values at its offset: read there, it is what torch loads."""
    with World() as world:
        folder, expected = benign(world)
        script = os.path.join(ROOT, "tests/safety/compare_bytes.py")
        for kind in ("zip", "legacy", "plain4"):
            name = f"views.{kind}.{'pkl' if kind == 'plain4' else 'pt'}"
            path = os.path.join(folder, name)
            listed = world.lade("probe", "--tensors", path, "--json", status=0).stdout
            done = subprocess.run(["/usr/bin/python3", "-W", "ignore", script, path], input=listed, text=True, capture_output=True, check=False)
            assert done.returncode == 0 and int(done.stdout) >= 8, (name, done.stdout, done.stderr)
