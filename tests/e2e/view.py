#!/usr/bin/python3
"""A pipeline's process: view.py CLIENT-FOLDER DATA OUT OPTIONS loads a model with client/python/lade.py and writes its
tensors as numpy has them to OUT (.npz); prints what it says of them as one line of JSON.

OPTIONS is JSON: what Client.load takes, and "with_torch": true to compare torch's views and DLPack with numpy's.
"""
import json
import sys

import numpy

sys.path.insert(0, sys.argv[1])

import lade  # noqa: E402


def compare_torch(model):
    """How many tensors torch sees as numpy does."""
    import torch
    same = 0
    for name, tensor in model.tensors.items():
        if tensor.dtype.startswith("F8"):
            continue
        seen = model.torch(name)
        assert seen.data_ptr() == tensor.address or not tensor.size, f"{name} was copied"
        if tensor.dtype == "BF16":
            assert (seen.view(torch.int16).numpy() == model.numpy(name).view("int16")).all(), name
        elif seen.dtype.is_floating_point or tensor.dtype in ("I64", "I32", "U8", "BOOL"):
            assert numpy.array_equal(seen.numpy(), model.numpy(name), equal_nan=seen.dtype.is_floating_point), name
            assert seen.stride() == tensor.strides or seen.numel() < 2, (name, seen.stride(), tensor.strides)
        if tensor.size and hasattr(torch, "from_dlpack"):
            again = torch.from_dlpack(tensor)
            assert again.data_ptr() == tensor.address and again.dtype == seen.dtype and again.shape == seen.shape, name
            del again
        same += 1
    return same


def main():
    _, _, data, out, options = sys.argv
    options = json.loads(options)
    with_torch = options.pop("with_torch", False)
    with lade.Client(data=data) as client:
        try:
            with client.load(**options, timeout_s=60) as model:
                arrays = model.state_dict(numpy=True)
                for name, array in arrays.items():
                    assert array.size == 0 or not array.flags.writeable
                    assert array.size == 0 or array.__array_interface__["data"][0] == model[name].address, f"{name} was copied"
                numpy.savez(out, **{name.replace("/", "|"): array for name, array in arrays.items()})
                print(json.dumps({
                    "precision": model.precision, "location": model.location, "metadata": model.metadata, "bytes": model.bytes,
                    "key": model.config["key"], "torch": compare_torch(model) if with_torch else None,
                    "tensors": {name: [t.dtype, t.shape, t.strides, t.address % 64] for name, t in model.tensors.items()}}))
            try:
                model.numpy(next(iter(arrays), ""))
                print("a model that is unlocked still answers", file=sys.stderr)
                sys.exit(1)
            except ValueError:
                pass
        except lade.LadeError as error:
            print(json.dumps({"code": error.code, "message": str(error)}))


if __name__ == "__main__":
    main()
