"""The same file by torch and safetensors: peers.py FILE ROUNDS writes rows of a Markdown table."""
import os
import statistics
import sys
import time

try:
    import torch
except ImportError as error:
    print(f"| torch | not run: {error} |")
    sys.exit(0)
if not torch.cuda.is_available():
    print("| torch | not run: it sees no device |")
    sys.exit(0)


def timed(load, size, rounds):
    seconds = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        tensors = load()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        del tensors
    return size / statistics.median(seconds[1:]) * 1e-9


def main(path, rounds):
    size = os.path.getsize(path)
    torch.zeros(1, device="cuda")
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        print(f"| safetensors.torch.load_file | not run: {error} |")
    else:
        print(f'| safetensors.torch.load_file(device="cuda") | {timed(lambda: load_file(path, device="cuda"), size, rounds):.2f} |')
    other = path + ".pt"
    count, each = divmod(size, 512 * 228 * 9 * 4)[0], (512, 228, 3, 3)
    torch.save({f"blocks.{i}.conv.weight": torch.full(each, float(i)) for i in range(count)}, other)
    try:
        for mapped in (False, True):
            speed = timed(lambda m=mapped: torch.load(other, map_location="cuda", mmap=m, weights_only=True), os.path.getsize(other), rounds)
            print(f'| torch.load(map_location="cuda", mmap={mapped}) | {speed:.2f} |')
    finally:
        os.unlink(other)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
