#!/usr/bin/python3
"""A pipeline's process that holds views longer than models: lifetimes.py CLIENT-FOLDER DATA KEY SUBMODEL.

KEY is a pipeline whose SUBMODEL has tensors "a.weight" (F32, 4 x 6) and "f8.weight" (F8_E4M3, 8).
"""
import ctypes
import os
import sys
import threading

ABSENT = os.environ.get("ABSENT", "").split()  # modules that are not there
sys.modules.update(dict.fromkeys(filter(None, ABSENT)))
sys.path.insert(0, sys.argv[1])

import lade  # noqa: E402


def freed(client):
    """How many models nobody has locked; who lets go is noticed by the worker a moment later."""
    return client.call("load", "unload")["unloaded"]


def assert_freed(client):
    for _ in range(3000):
        if freed(client):
            return
        client.call("broker", "status")
    raise AssertionError("the model is locked still")


def refuses(error, words, what, *args, **options):
    try:
        what(*args, **options)
    except error as raised:
        assert words in str(raised), raised
        return raised
    raise AssertionError(f"{words}: not refused")


def check_without_numpy(client, wanted):
    with client.load(**wanted) as model:
        values = model["a.weight"].raw().cast("f")
        assert values.readonly and len(values) == 24 and values[0] == 0.5
        assert list(model) == list(model.tensors) == list(dict(model)) and "a.weight" in model and len(model) == 2
        refuses(ImportError, "numpy", model.numpy, "a.weight")
        refuses(ImportError, "torch", model.torch, "a.weight")
    assert values[23] == 0.5 + 23, "a view is good as long as it lives"
    assert freed(client) == 0
    del values
    assert_freed(client)


def check_lifetimes(client, wanted):
    import numpy
    with client.load(**wanted) as model:
        tensor = model["a.weight"]
        part = tensor.numpy()[1:, ::2]
    refuses(ValueError, "unlocked", tensor.numpy)
    refuses(ValueError, "unlocked", lambda: model.config)
    assert "unlocked" in repr(model)
    assert freed(client) == 0 and (part == 0.5 + numpy.arange(24).reshape(4, 6)[1:, ::2]).all()
    refuses(ValueError, "read-only", part.__setitem__, 0, 0)
    refuses(ValueError, "WRITEABLE", setattr, part.flags, "writeable", True)
    del part
    assert_freed(client)
    # Nobody says that it is over: neither the model nor the client it came from is there.
    other = lade.Client(data=sys.argv[2])
    view = other.load(**wanted)["a.weight"].numpy()
    other.close()
    assert freed(client) == 0 and view[3, 5] == 23.5
    thread = threading.Thread(target=lambda keep: keep.clear(), args=([view],))
    del view
    thread.start()
    thread.join()
    del thread
    assert_freed(client)


class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8),
                ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Versioned(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32 * 2), ("context", ctypes.c_void_p), ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
                ("flags", ctypes.c_uint64), ("tensor", DLTensor)]


def opened(capsule):
    """The address of what a versioned capsule holds, as a consumer takes it over, and that."""
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    for function in (api.PyCapsule_GetPointer, api.PyCapsule_SetName):
        function.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, b"dltensor_versioned")
    api.PyCapsule_SetName(capsule, b"used_dltensor_versioned")
    return address, Versioned.from_address(address)


def check_dlpack(client, wanted):
    """The protocol as its page has it: old and versioned capsules, taken and left lying."""
    import numpy
    with client.load(**wanted) as model:
        tensor, small = model["a.weight"], model["f8.weight"]
        assert tensor.__dlpack_device__() == (1, 0)
        again = numpy.from_dlpack(tensor)
        assert again.ctypes.data == tensor.address and not again.flags.writeable and again[0, 0] == 0.5
        address, managed = opened(tensor.__dlpack__(stream=None, max_version=(1, 7), dl_device=(1, 0), copy=False))
        seen = managed.tensor
        assert tuple(managed.version) == (1, 1) and managed.flags == 1, "read-only"
        assert (seen.data, tuple(seen.device), seen.ndim, seen.code, seen.bits, seen.lanes) == (tensor.address, (1, 0), 2, 2, 32, 1)
        assert (seen.shape[:2], seen.strides[:2], seen.byte_offset) == ([4, 6], [6, 1], 0)
        lying = tensor.__dlpack__(), tensor.__dlpack__(max_version=(1, 0))
        refuses(BufferError, "F8_E4M3", small.__dlpack__)
        taken, eight = opened(small.__dlpack__(max_version=(1, 1)))
        assert (eight.tensor.code, eight.tensor.bits) == (10, 8)
        eight.deleter(taken)
        refuses(BufferError, "copy", tensor.__dlpack__, copy=True)
        refuses(BufferError, "where it is", tensor.__dlpack__, dl_device=(2, 0))
    for view in ("lying", "again", "managed"):  # each keeps it locked by itself
        assert freed(client) == 0, view
        if view == "lying":
            del lying
        elif view == "again":
            del again
        else:
            managed.deleter(address)
    assert_freed(client)


def check_torch(client, wanted):
    import torch
    with client.load(**wanted) as model:
        tensor = model.torch("a.weight")
        shared = torch.from_dlpack(model["a.weight"])[2]
        assert tensor.data_ptr() == model["a.weight"].address and shared[0] == 12.5
        if not hasattr(torch, "float8_e4m3fn"):
            refuses(TypeError, "dtype='fp16'", model.torch, "f8.weight")
        else:
            assert model.torch("f8.weight").to(torch.float32)[1] == 1
    tensor = tensor[3]
    assert freed(client) == 0 and tensor[5] == 23.5
    del tensor
    assert freed(client) == 0
    del shared
    assert_freed(client)


def check_options(client, wanted):
    told = []
    with client.load(**wanted, progress=lambda *numbers: told.append(numbers), context={}) as model:
        assert os.path.exists(os.path.join(model.path, "config.json")), model.path
        assert "2 tensors" in repr(model) and "a.weight F32 [4, 6]" in repr(model["a.weight"])
        refuses(KeyError, "b.weight", model.numpy, "b.weight")
    assert all(0 <= done <= total or not total for done, total in told), told
    assert_freed(client)
    refuses(TypeError, "one of key", client.load)
    refuses(TypeError, "one of key", client.load, "x", name="y")
    raised = refuses(lade.LadeError, "submodel is mandatory", client.load, wanted["key"])
    assert raised.code == "ValueError"


def main():
    _, _, data, key, submodel = sys.argv
    wanted = {"key": key, "submodel": submodel}
    with lade.Client(data=data) as client:
        if ABSENT:
            check_without_numpy(client, wanted)
            return
        check_options(client, wanted)
        check_lifetimes(client, wanted)
        check_dlpack(client, wanted)
        try:
            import torch  # noqa: F401
        except ImportError:
            return
        check_torch(client, wanted)


if __name__ == "__main__":
    main()
