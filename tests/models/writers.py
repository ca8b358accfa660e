"""Writers of weight files that are true in their headers; tensor data is a hole in the file."""
import collections
import io
import json
import pickle
import random
import struct
import sys
import types
import zipfile
import zlib

SIZES = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'F8_E4M3': 1, 'F8_E5M2': 1, 'I64': 8, 'I32': 4, 'I8': 1, 'U8': 1}


class Scalar:
    """A tensor of one integer whose value matters."""

    def __init__(self, value):
        self.value = value


def product(shape):
    n = 1
    for dim in shape:
        n *= dim
    return n


def numbers(dtype, count, seed):
    """count small numbers of dtype as bytes: a block of 4096, repeated."""
    rng = random.Random(seed)
    block = min(count, 4096)
    if dtype in ('F64', 'F32', 'F16'):
        code = {'F64': 'd', 'F32': 'f', 'F16': 'e'}[dtype]
        data = struct.pack('<%d%s' % (block, code), *(rng.uniform(0.01, 1) for _ in range(block)))
    elif dtype == 'BF16':
        data = b''.join(struct.pack('<f', rng.uniform(0.01, 1))[2:] for _ in range(block))
    else:
        data = b''.join(rng.randrange(1, 100).to_bytes(SIZES[dtype], 'little') for _ in range(block))
    size = count * SIZES[dtype]
    return (data * (size // max(len(data), 1) + 1))[:size]


def write_safetensors(path, tensors, metadata=None, fill=False, order=sorted):
    """tensors: {name: (dtype, shape) or Scalar}. fill: numbers instead of a hole."""
    header, at = {}, 0
    if metadata:
        header['__metadata__'] = metadata
    for name in order(tensors):
        spec = tensors[name]
        dtype, shape = ('I64', []) if isinstance(spec, Scalar) else spec
        end = at + product(shape) * SIZES[dtype]
        header[name] = {'dtype': dtype, 'shape': list(shape), 'data_offsets': [at, end]}
        at = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as out:
        out.write(struct.pack('<Q', len(text)) + text)
        start = out.tell()
        for name, spec in tensors.items():
            begin = start + header[name]['data_offsets'][0]
            if isinstance(spec, Scalar):
                out.seek(begin)
                out.write(struct.pack('<q', spec.value))
            elif fill:
                out.seek(begin)
                out.write(numbers(spec[0], product(spec[1]), zlib.crc32(name.encode())))
        out.truncate(start + at)


# ---------------------------------------------------------------------------------------------------
# GGUF, version 3

GGML = {'F32': (0, 1, 4), 'F16': (1, 1, 2), 'Q8_0': (8, 32, 34), 'Q4_K': (12, 256, 144)}  # type, elements and bytes of a block
GGUF_STRING, GGUF_U32, ALIGNMENT = 8, 4, 32


def gguf_text(text):
    data = text.encode()
    return struct.pack('<Q', len(data)) + data


def write_gguf(path, tensors, metadata, order=sorted):
    """metadata: texts and whole numbers. Dimensions are written last one first, as GGML counts them."""
    head = struct.pack('<4sIQQ', b'GGUF', 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += gguf_text(key)
        head += (struct.pack('<I', GGUF_STRING) + gguf_text(value) if isinstance(value, str)
                 else struct.pack('<II', GGUF_U32, value))
    at, infos = 0, []
    for name in order(tensors):
        dtype, shape = tensors[name]
        number, block, size = GGML[dtype]
        infos.append(gguf_text(name) + struct.pack('<I', len(shape)) +
                     b''.join(struct.pack('<Q', dim) for dim in reversed(shape)) + struct.pack('<IQ', number, at))
        at += product(shape) // block * size
        at += -at % ALIGNMENT
    head += b''.join(infos)
    head += b'\0' * (-len(head) % ALIGNMENT)
    with open(path, 'wb') as out:
        out.write(head)
        out.truncate(len(head) + at)


# ---------------------------------------------------------------------------------------------------
# torch's zip checkpoints: a pickle of dicts whose tensors all show the same few numbers, as expand() makes them

STORAGES = {'F32': 'FloatStorage', 'F16': 'HalfStorage', 'BF16': 'BFloat16Storage', 'I64': 'LongStorage'}


class Tensor:
    def __init__(self, dtype, shape):
        self.dtype, self.shape = dtype, shape


class Storage:
    def __init__(self, dtype):
        self.dtype = dtype


def global_of(module, name):
    """What pickles as the global module.name without that being there."""
    for end in [i for i, letter in enumerate(module + '.') if letter == '.']:
        sys.modules.setdefault(module[:end], types.ModuleType(module[:end]))
    if not hasattr(sys.modules[module], name):
        setattr(sys.modules[module], name, type(name, (), {'__module__': module}))
    return getattr(sys.modules[module], name)


class TorchPickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            kind = global_of('torch', STORAGES[thing.dtype])
            return ('storage', kind, str(sorted(STORAGES).index(thing.dtype)), 'cpu', 1)
        return None

    def reducer_override(self, thing):
        if isinstance(thing, Tensor):
            args = (Storage(thing.dtype), 0, tuple(thing.shape), (0,) * len(thing.shape), False, collections.OrderedDict())
            return (global_of('torch._utils', '_rebuild_tensor_v2'), args)
        return NotImplemented


def write_torch(path, tree, order=sorted):
    """tree: dicts of dicts, texts, numbers and (dtype, shape)."""
    def whole(node):
        if isinstance(node, dict):
            return {name: whole(node[name]) for name in (order(node) if all(isinstance(n, str) for n in node) else node)}
        return Tensor(*node) if isinstance(node, tuple) else node
    data = io.BytesIO()
    TorchPickler(data, protocol=2).dump(whole(tree))
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as out:
        out.writestr('archive/data.pkl', data.getvalue())
        out.writestr('archive/byteorder', 'little')
        for number, dtype in enumerate(sorted(STORAGES)):
            out.writestr('archive/data/%d' % number, bytes(SIZES[dtype]))
        out.writestr('archive/version', '3\n')


# ---------------------------------------------------------------------------------------------------
# ONNX: one protobuf message

def varint(value):
    out = b''
    while value > 0x7f:
        out, value = out + bytes([value & 0x7f | 0x80]), value >> 7
    return out + bytes([value])


def field(number, value):
    """A number, a text or the bytes of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def port(name, shape):
    """An input or output of 32 bit floats; a dimension is a number or a name."""
    dims = b''.join(field(1, field(2 if isinstance(dim, str) else 1, dim)) for dim in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def write_onnx(path, inputs, outputs):
    """A graph that hands its first input on. inputs, outputs: {name: shape}."""
    node = field(1, next(iter(inputs))) + field(2, next(iter(outputs))) + field(4, 'Identity')
    graph = field(1, node) + field(2, 'main')
    graph += b''.join(field(11, port(*entry)) for entry in inputs.items())
    graph += b''.join(field(12, port(*entry)) for entry in outputs.items())
    with open(path, 'wb') as out:
        out.write(field(1, 8) + field(2, 'pytorch') + field(7, graph) + field(8, field(1, '') + field(2, 14)))
