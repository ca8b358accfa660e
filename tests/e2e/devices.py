#!/usr/bin/python3
"""A process that has a model on a device: devices.py DATA KEY DEVICE. Prints what it sees, holds it until its input ends."""
import hashlib
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../client/python"))

import lade  # noqa: E402


def main(data, key, device):
    with lade.Client(data=data) as client, client.load(key, device=device) as model:
        seen = {name: [tensor.dtype, list(tensor.shape), hashlib.sha256(tensor.raw()).hexdigest()]
                for name, tensor in model.tensors.items()}
        print(json.dumps({"location": model.location, "tensors": seen}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
