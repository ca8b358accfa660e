"""The hub library's cache as it lies on a disk: blobs by digest, snapshots of links, refs."""
import hashlib
import os
import shutil

from lib import weights

LARGE = (".safetensors", ".bin", ".gguf", ".model")


def digest(path):
    """What the hub calls the file: the sha256 of large ones, git's object of others."""
    if path.endswith(LARGE):
        return weights.sha256(path)
    with open(path, "rb") as file:
        data = file.read()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def fill(cache, repo, folder, commit, ref="main", only=None):
    """Puts the files of a folder into the cache as a snapshot. only: says whether a path is in it. Answers the repository's folder."""
    where = os.path.join(cache, "models--" + repo.replace("/", "--"))
    for part in ("refs", "blobs", os.path.join("snapshots", commit)):
        os.makedirs(os.path.join(where, part), exist_ok=True)
    if ref:
        path = os.path.join(where, "refs", ref)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(commit)
    for name in weights.tree(folder):
        if only and not only(name):
            continue
        path, link = os.path.join(folder, name), os.path.join(where, "snapshots", commit, name)
        blob = os.path.join(where, "blobs", digest(path))
        shutil.copyfile(path, blob)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.relpath(blob, os.path.dirname(link)), link)
    return where
