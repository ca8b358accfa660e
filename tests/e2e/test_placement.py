"""Where a model's bytes go: shared where the file system can, moved across file systems only when the copy is recorded."""
import os
import shutil
import subprocess

from lib import weights
from lib.apart import apart, mount
from lib.checks import nothing_temporary
from lib.downloads import MIB
from lib.skip import Skip
from lib.world import QUICK, World

LIMIT_S = 120
SIZE = 64 * MIB


def model(path):
    """A LoRA of true names, made large by one tensor that is not empty on the disk."""
    return weights.write_safetensors(path, {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": ("F32", (4, 768)),
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": ("F32", (640, 4)),
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": ("F32", (SIZE // 4 // 1280, 1280)),
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": ("F32", (1280, SIZE // 4 // 1280)),
    }, {"format": "pt"}, 5)


def reflink_disk(folder, scratch):
    """A small xfs, whose files can share blocks, mounted at folder."""
    image = os.path.join(scratch, "disk.img")
    if not shutil.which("mkfs.xfs"):
        raise Skip("mkfs.xfs is not there (xfsprogs)")
    with open(image, "wb") as file:
        file.truncate(512 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    os.makedirs(folder, exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", image, folder], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Skip(f"no loop device can be mounted here: {done.stderr.strip()}")


def used(folder):
    os.sync()
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


@apart("-m")
def test_a_local_copy_shares_its_blocks():
    with World() as world:
        disk = os.path.join(world.folder, "disk")
        reflink_disk(disk, world.folder)
        path = model(os.path.join(disk, "style.safetensors"))
        world.models_dir = os.path.join(disk, "models")
        os.mkdir(world.models_dir)
        world.configure(**{**QUICK, "models_dir": world.models_dir})
        world.start("broker", "install")
        before, size = used(disk), os.path.getsize(path)
        job = world.install(path)
        assert job["status"] == "completed", job["error"]
        placed = world.record_path(job["config_out"])
        assert placed.startswith(world.models_dir) and os.stat(placed).st_ino != os.stat(path).st_ino, placed
        assert weights.sha256(placed) == weights.sha256(path)
        grown = used(disk) - before
        assert grown < size / 10, f"{grown} bytes more are in use for a copy of {size}"


@apart("-Urm", "-m")
def test_a_move_across_file_systems():
    """The source goes when the copy is whole, on the disk and recorded; not before."""
    with World() as world:
        away = os.path.join(world.folder, "away")
        mount(away, "200m")
        path = model(os.path.join(away, "style.safetensors"))
        digest = weights.sha256(path)
        world.start("broker", "install")
        job = world.install(path, move=True)
        assert job["status"] == "completed", job["error"]
        (discard,) = world.call("jobs", "list", kind="discard")
        ended = world.call("jobs", "wait", id=discard["id"], timeout_s=60)
        assert ended["status"] == "completed", ended
        assert not os.path.exists(path) and os.listdir(away) == []
        assert weights.sha256(world.record_path(job["config_out"])) == digest
        nothing_temporary(world)
