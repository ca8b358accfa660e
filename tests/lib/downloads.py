"""Downloads in tests: files to fetch, jobs of the download service, what lies on the disk, what the hub saw."""
import os
import random

from lib import weights

KIB, MIB = 1 << 10, 1 << 20


def write_file(path, size, seed=1):
    """Seeded bytes in which every 4 KiB tell where they belong, fast enough for a GiB: no piece fits at another's place."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    block = bytearray(random.Random(seed).randbytes(MIB))
    with open(path, "wb") as file:
        for at in range(0, size, MIB):
            for inner in range(0, MIB, 4096):
                block[inner:inner + 8] = (at + inner).to_bytes(8, "big")
            file.write(memoryview(block)[:min(MIB, size - at)])
    return path


def submit(world, url, folder, **args):
    """A job for a file below folder (created if missing); `filename` or the URL's name. A list of URLs is mirrors."""
    os.makedirs(folder, exist_ok=True)
    return world.call("download", "create_download_job", source=url, destdir=folder, **args)


def ended(world, number, timeout_s=60):
    return world.call("download", "wait_for_job", id=number, timeout_s=timeout_s)


def completed(world, number, timeout_s=60):
    job = ended(world, number, timeout_s)
    assert job["status"] == "completed", (job["status"], job["error_type"], job["error"])
    return job


def on_disk(folder):
    """(names anybody sees, hidden ones: partials and journals)."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [name for name in names if not name.startswith(".")], [name for name in names if name.startswith(".")]


def check_same(path, original):
    assert os.path.getsize(path) == os.path.getsize(original), (os.path.getsize(path), os.path.getsize(original))
    assert weights.sha256(path) == weights.sha256(original), f"{path} is not what was served"


def span_of(entry):
    """(first, last or None) of the range a logged request asked for; None if it asked for everything."""
    if entry["range"] is None:
        return None
    first, _, last = entry["range"].removeprefix("bytes=").partition("-")
    return int(first), int(last) if last else None


def served(requests):
    """Bytes of file bodies: those of 200 and 206, as many as went out."""
    return sum(entry["bytes"] for entry in requests if entry["status"] in (200, 206))


def is_paused(number):
    return lambda event: event["event"] == "download_paused" and event["id"] == number


def moving(number, least=1):
    """A download that has at least so many bytes."""
    return lambda event: event["event"] == "download_running" and event["id"] == number and event["bytes"] >= least
