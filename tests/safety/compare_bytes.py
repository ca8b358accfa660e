#!/usr/bin/python3
"""Reads `lade probe --tensors --json FILE` from standard input and compares the bytes of each dense tensor with what
torch loads from FILE. Prints how many were compared."""
import json
import pickle
import sys

import torch


def main():
    listed = json.load(sys.stdin)
    if sys.argv[1].endswith(".pkl"):
        with open(sys.argv[1], "rb") as file:
            loaded = pickle.load(file)
    else:
        loaded = torch.load(sys.argv[1])
    compared = 0
    with open(sys.argv[1], "rb") as file:
        for tensor in listed["tensors"]:
            value = loaded[tensor["name"]]
            if tensor["layout"] != "dense" or value.numel() == 0:
                continue
            file.seek(tensor["offset"])
            data = file.read(tensor["size"])
            there = torch.frombuffer(bytearray(data), dtype=value.dtype).reshape(value.shape)
            if not torch.equal(there, value):
                sys.exit(f"{tensor['name']}: {there} at {tensor['offset']}, torch has {value}")
            compared += 1
    print(compared)


if __name__ == "__main__":
    main()
