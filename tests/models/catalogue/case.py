"""A case of the catalogue, and what several modules say of their cases.

`file` is a file's name, or a folder's that ends with "/". `make(small)` returns what is written: {path within the folder, or
'' for a file: Net, (Net, metadata), Gguf, Torch, Onnx (networks/containers.py), dict (JSON) or bytes}. `expected` are fields
that identification has to find (None: it must not), or {'error': CODE}. `source` says where the names of tensors and their
shapes come from; `given` what the caller says of it.
"""
from collections import namedtuple

Case = namedtuple('Case', 'file make expected source given', defaults=[None])

REFUSED = {'error': 'InvalidModelConfig'}


def kind(type, base, format, **more):
    return dict({'type': type, 'base': base, 'format': format}, **more)


def one(build, *args, metadata=None, prefix='', **options):
    """A file of one network: build(*args, small=…), under a prefix."""
    def make(small):
        net = build(*args, small=small, **options)
        net = net.__class__(net.dtype).include(prefix, net) if prefix else net
        return {'': (net, metadata) if metadata else net}
    return make


def tensors(spec, metadata=None, file=''):
    return lambda small: {file: (dict(spec), metadata)}
