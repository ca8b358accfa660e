"""torch.load of a checkpoint of as many bytes as `load shapes` has, cold and warm: load_torch.py [MIB [ROUNDS [FOLDER]]]."""
import os
import resource
import statistics
import sys
import tempfile
import time

try:
    import torch
except ImportError:
    sys.exit(print("torch.load: python3-torch is not installed"))


def once(path, cold, **more):
    with open(path, "rb") as file:
        if cold:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(8 << 20):
                pass
    began, cpu = time.monotonic(), time.process_time()
    model = torch.load(path, **more)
    for tensor in model.values():
        tensor.view(torch.uint8)[::4096].sum()  # each page is looked at, as a mapped one is read only then
    return time.monotonic() - began, time.process_time() - cpu


def main():
    mb = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory(dir=sys.argv[3] if len(sys.argv) > 3 else "/tmp") as folder:
        path, gb = os.path.join(folder, "model.pt"), mb * 2**20 / 1e9
        torch.save({f"blocks.{n}.weight": torch.full((mb * 2**20 // 64,), n, dtype=torch.uint8) for n in range(64)}, path)
        mapped = torch.__version__ >= "2.1"
        for cold in (True, False):
            took = [once(path, cold, **({"mmap": True} if mapped else {})) for _ in range(rounds)]
            print(f"torch {torch.__version__} load{' (mmap)' if mapped else ''}, {'cold' if cold else 'warm'}: "
                  f"{gb / statistics.median(one[0] for one in took):.2f} GB/s, "
                  f"{statistics.median(one[1] for one in took) / gb:.2f} CPU s/GB, "
                  f"peak RSS - size {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - mb} MiB")


if __name__ == "__main__":
    main()
