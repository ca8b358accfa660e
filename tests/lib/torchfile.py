"""torch's files with real content, written without torch: views of numpy arrays as tensors, zip and legacy."""
import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class View:
    """A tensor: shape and strides (in elements) on a storage from an element on."""

    def __init__(self, storage, shape=None, strides=None, at=0):
        self.storage, self.at = storage, at
        self.shape = storage.shape if shape is None else tuple(shape)
        dense = [int(np.prod(self.shape[i + 1:])) for i in range(len(self.shape))]
        self.strides = tuple(dense if strides is None else strides)

    def array(self):
        flat = self.storage.reshape(-1)[self.at:]
        return np.lib.stride_tricks.as_strided(flat, self.shape, [s * flat.itemsize for s in self.strides]).copy()


class _Storage:
    def __init__(self, array):
        self.array = array


def _named(module, name):
    """What pickles as module.name without that being there."""
    for end in [i for i, letter in enumerate(module + ".") if letter == "."]:
        sys.modules.setdefault(module[:end], types.ModuleType(module[:end]))
    if not hasattr(sys.modules[module], name):
        setattr(sys.modules[module], name, type(name, (), {"__module__": module}))
    return getattr(sys.modules[module], name)


class _Pickler(pickle.Pickler):
    def __init__(self, file, view):
        super().__init__(file, protocol=2)
        self.storages, self.view = [], view

    def key(self, array):
        for number, known in enumerate(self.storages):
            if known is array:
                return str(number)
        self.storages.append(array)
        return str(len(self.storages) - 1)

    def persistent_id(self, thing):
        if not isinstance(thing, _Storage):
            return None
        flat = thing.array
        kind = _named("torch", KINDS[flat.dtype.name])
        return ("storage", kind, self.key(flat), "cpu", flat.size, *([None] if self.view else []))

    def reducer_override(self, thing):
        if not isinstance(thing, View):
            return NotImplemented
        args = (_Storage(thing.storage), thing.at, thing.shape, thing.strides, False, collections.OrderedDict())
        return (_named("torch._utils", "_rebuild_tensor_v2"), args)


def write_zip(path, tree):
    data = io.BytesIO()
    pickler = _Pickler(data, False)
    pickler.dump(tree)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        out.writestr("archive/data.pkl", data.getvalue())
        for number, array in enumerate(pickler.storages):
            out.writestr(f"archive/data/{number}", array.tobytes())
        out.writestr("archive/version", "3\n")
    return path


def write_legacy(path, tree):
    with open(path, "wb") as out:
        pickle.dump(0x1950a86a20f9469cfc6c, out, protocol=2)
        pickle.dump(1001, out, protocol=2)
        pickle.dump({"protocol_version": 1001, "little_endian": True,
                     "type_sizes": {"short": 2, "int": 4, "long": 4}}, out, protocol=2)
        pickler = _Pickler(out, True)
        pickler.dump(tree)
        pickle.dump([str(number) for number in range(len(pickler.storages))], out, protocol=2)
        for array in pickler.storages:
            out.write(struct.pack("<q", array.size) + array.tobytes())
    return path
