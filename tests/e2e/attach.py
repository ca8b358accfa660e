#!/usr/bin/python3
"""A process that has a model loaded through liblade: attach.py LIBLADE DATA KEY [SUBMODEL].

Prints one line of JSON about what it sees, then holds the model until its standard input ends; "read" on it
touches every byte and prints the sizes of its mappings.
"""
import ctypes
import hashlib
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib.world import own_memory_kb  # noqa: E402


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 512)]


class Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("rank", ctypes.c_uint8),
                ("shape", ctypes.c_uint64 * 8), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t),
                ("strides", ctypes.c_uint64 * 8)]


def library(path):
    lade = ctypes.CDLL(path)
    lade.lade_model_tensor.restype = ctypes.c_bool
    lade.lade_model_tensor_count.restype = lade.lade_model_bytes.restype = ctypes.c_size_t
    lade.lade_model_config.restype = ctypes.c_char_p
    lade.lade_model_tensor.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    for name in ("lade_model_tensor_count", "lade_model_bytes", "lade_model_config"):
        getattr(lade, name).argtypes = [ctypes.c_void_p]
    lade.lade_load.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_double, ctypes.c_void_p,
                               ctypes.c_void_p]
    return lade


def tensors(lade, model):
    """(name, dtype, shape, address, size) of each."""
    found, one = [], Tensor()
    for index in range(lade.lade_model_tensor_count(model)):
        assert lade.lade_model_tensor(model, index, ctypes.byref(one))
        found.append((one.name.decode(), one.dtype.decode(), list(one.shape[:one.rank]), one.data, one.size))
    assert not lade.lade_model_tensor(model, len(found), ctypes.byref(one))
    return found


def mapping_of(address):
    """The line of smaps an address is in: its range."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if first <= address < last:
                return line.split()
    return None


def main():
    path, data, key = sys.argv[1:4]
    submodel = sys.argv[4].encode() if len(sys.argv) > 4 else None
    lade, error = library(path), Error()
    self, model = ctypes.c_void_p(), ctypes.c_void_p()
    if lade.lade_open(None, data.encode(), None, ctypes.byref(self), ctypes.byref(error)):
        sys.exit(error.message.decode())
    began = time.monotonic()
    if lade.lade_load(self, key.encode(), submodel, 60.0, ctypes.byref(model), ctypes.byref(error)):
        sys.exit(f"{error.code}: {error.message.decode()}")
    seconds = time.monotonic() - began
    found = tensors(lade, model)
    where = mapping_of(found[0][3])
    print(json.dumps({
        "seconds": seconds, "bytes": lade.lade_model_bytes(model), "mapping": where[-1], "access": where[1],
        "config": json.loads(lade.lade_model_config(model)),
        "tensors": {name: [dtype, shape, hashlib.sha256(ctypes.string_at(data, size)).hexdigest()]
                    for name, dtype, shape, data, size in found}}), flush=True)
    for line in sys.stdin:
        if line.strip() == "read":
            sums = {name: hashlib.sha256((ctypes.c_char * size).from_address(data)).hexdigest()
                    for name, _, _, data, size in found}
            private, shared = own_memory_kb(os.getpid(), where[-1])
            print(json.dumps({"private_kb": private, "shared_kb": shared, "sums": sums}), flush=True)
    lade.lade_unlock(ctypes.byref(model))
    lade.lade_close(ctypes.byref(self))


if __name__ == "__main__":
    main()
