"""The seed's installer through liblade: every method, as a C program calls them."""
import ctypes
import json
import os
import shutil
import subprocess
import threading

from lib import checkpoints, samples, weights
from lib.skip import Skip
from lib.world import BUILD, SANITIZED, World

LIMIT_S = 120


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 512)]


class Installer:
    """lade_installer_* with Python values; a refusal is raised with its code's name."""

    def __init__(self, world):
        if SANITIZED:
            raise Skip("a library with a sanitizer in it is not for other programs")
        self.lib = ctypes.CDLL(os.path.join(BUILD, "liblade.so"))
        self.lib.lade_code_name.restype = ctypes.c_char_p
        self.lade = ctypes.c_void_p()
        error = Error()
        code = self.lib.lade_open(None, world.data.encode(), None, ctypes.byref(self.lade), ctypes.byref(error))
        assert code == 0, error.message

    def call(self, name, *args, out=("text",)):
        """out: what is given back, as text, JSON ("json") or a number; an error is raised."""
        error, made = Error(), [ctypes.c_size_t() if kind == "size" else ctypes.c_char_p() for kind in out]
        given = [arg.encode() if isinstance(arg, str) else ctypes.c_double(arg) if isinstance(arg, float)
                 else ctypes.c_int64(arg) if isinstance(arg, int) else arg for arg in args]
        code = getattr(self.lib, "lade_installer_" + name)(self.lade, *given, *map(ctypes.byref, made), ctypes.byref(error))
        if code:
            raise ValueError(self.lib.lade_code_name(code).decode(), error.message.decode())
        values = [json.loads(one.value) if kind == "json" else one.value.decode() if kind == "text" else one.value
                  for kind, one in zip(out, made)]
        return values[0] if len(values) == 1 else values

    def refused(self, code, name, *args, **more):
        try:
            self.call(name, *args, **more)
        except ValueError as error:
            assert error.args[0] == code, error.args
            return error.args[1]
        raise AssertionError(f"{name}{args} was not refused")


def test_every_method():
    with World() as world:
        path = weights.embedding(os.path.join(world.folder, "ti.safetensors"), 1)
        other = samples.pipeline(os.path.join(world.folder, "pipe"))
        weights.lora(world.hub.file("style.safetensors"), 3)
        source = f"{world.hub.url}/files/style.safetensors"
        world.start("broker", "download", "install")
        lade = Installer(world)
        key = lade.call("register_path", path, '{"name": "mine", "key": "xyzzy"}', 30.0)
        record = world.call("store", "get_model", key=key)
        assert key == "xyzzy" and record["name"] == "mine" and record["path"] == path
        assert lade.refused("DuplicateModel", "register_path", path, None, 30.0)
        placed = lade.call("install_path", other, None, 30.0)
        assert world.call("store", "get_model", key=placed)["path"] == "sd-1/main/pipe"
        job = lade.call("heuristic_import", source, None, out=("json",))
        ended = lade.call("wait_for_job", job["id"], 30.0, out=("json",))
        assert ended["status"] == "completed", ended
        assert lade.call("get_job_by_id", job["id"], out=("json",))["config_out"] == ended["config_out"]
        assert [one["id"] for one in lade.call("get_job_by_source", source, out=("json",))] == [job["id"]]
        bad = lade.call("import_model", json.dumps({"type": "url", "url": f"{world.hub.url}/files/missing"}), None, out=("json",))
        by_source, jobs = lade.call("wait_for_installs", 30.0, out=("json", "json"))
        assert by_source[source]["status"] == "completed" and by_source[bad["source"]]["status"] == "error"
        assert len(jobs) == len(lade.call("list_jobs", out=("json",))) == 5
        lade.call("cancel_job", bad["id"], out=())  # what has ended stays as it is
        cached = lade.call("download_and_cache", source, None, 30.0)
        assert os.path.isfile(cached)
        assert lade.call("prune_jobs", out=("size",)) == 5 and lade.call("list_jobs", out=("json",)) == []
        lade.refused("UnknownJobID", "get_job_by_id", job["id"], out=("json",))
        # delete spares what is elsewhere; unregister spares all; unconditionally_delete spares nothing.
        lade.call("delete", key, 30.0, out=())
        assert os.path.exists(path)
        inside = world.record_path(ended["config_out"])
        lade.call("unregister", ended["config_out"]["key"], out=())
        assert os.path.exists(inside)
        key = lade.call("register_path", path, None, 30.0)
        lade.call("unconditionally_delete", key, 30.0, out=())
        assert not os.path.exists(path)
        lade.call("delete", placed, 30.0, out=())
        assert not os.path.exists(os.path.join(world.models_dir, "sd-1/main/pipe"))
        for name in ("delete", "unconditionally_delete"):
            lade.refused("UnknownModel", name, placed, 30.0, out=())
        lade.refused("UnknownModel", "unregister", placed, out=())


def used(folder):
    """Bytes on the disk below a folder, each inode once."""
    inodes = {}
    for above, _, names in os.walk(folder):
        for name in names:
            try:
                st = os.lstat(os.path.join(above, name))
                inodes[st.st_ino] = st.st_blocks * 512
            except OSError:
                pass
    return sum(inodes.values())


def test_no_second_copy():
    """While it is installed, never more than the model's size and a little lies below the models folder."""
    with World() as world:
        mib = 1 << 20
        path = world.hub.file("big.safetensors")
        weights.write_safetensors(path, {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": ("F32", (24, mib // 4))}, None, 1)
        size = os.path.getsize(path)
        world.start("broker", "download", "install")
        told = {"type": "lora", "base": "sd-1", "format": "lycoris"}
        for source, args in ((f"{world.hub.url}/files/big.safetensors", {}), (path, {"on_equal": "copy"})):
            most, over = [0], threading.Event()

            def watch():
                while not over.wait(0.001):
                    most[0] = max(most[0], used(world.models_dir))  # pylint: disable=cell-var-from-loop

            watcher = threading.Thread(target=watch)
            watcher.start()
            job = world.install(source, config=told, **args)
            over.set()
            watcher.join()
            assert job["status"] == "completed", job["error"]
            assert size <= used(world.models_dir) and most[0] <= size + 2 * mib, (most, size)
            deleted = world.call("install", "delete", key=job["config_out"]["key"])
            world.call("jobs", "wait", id=deleted["id"], timeout_s=30)


def test_in_place_on_a_read_only_mount():
    with World() as world:
        there, mount = os.path.join(world.folder, "there"), os.path.join(world.folder, "ro")
        os.makedirs(mount)
        weights.lora(os.path.join(there, "style.safetensors"), 3)
        if not shutil.which("mount") or subprocess.run(["mount", "--bind", there, mount], check=False, capture_output=True).returncode:
            raise Skip("no file system can be mounted here")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", mount], check=True)
            world.start("broker", "download", "install")
            path = os.path.join(mount, "style.safetensors")
            job = world.install(path, inplace=True)
            assert job["status"] == "completed" and job["config_out"]["path"] == path, job
            assert world.install(path, move=True, on_equal="copy")["status"] == "error", "it cannot be moved away"
            deleted = world.call("install", "delete", key=job["config_out"]["key"])
            assert world.call("jobs", "wait", id=deleted["id"], timeout_s=30)["status"] == "completed"
            assert os.listdir(mount) == ["style.safetensors"]
        finally:
            subprocess.run(["umount", mount], check=False)


def test_a_checkpoint_is_converted():
    with World() as world:
        path = checkpoints.write(os.path.join(world.folder, "in", "vae.safetensors"), checkpoints.vae(".", prefix=""), 4)
        world.start("broker", "install")
        lade = Installer(world)
        key = lade.call("install_path", path, None, 30.0)
        place = lade.call("convert", key, None, 30.0)
        assert place == os.path.join(world.models_dir, ".convert_cache", key) and os.path.exists(os.path.join(place, "config.json"))
        dest = os.path.join(world.folder, "there")
        assert lade.call("convert", key, dest, 30.0) == dest and weights.tree(dest).items() <= weights.tree(place).items()
        assert dest in lade.refused("exists", "convert", key, dest, 30.0)
        assert lade.refused("ValueError", "convert", key, "there", 30.0)
        other = lade.call("install_path", weights.embedding(os.path.join(world.folder, "ti.safetensors"), 1), None, 30.0)
        assert "type=embedding" in lade.refused("NotImplemented", "convert", other, None, 30.0)
