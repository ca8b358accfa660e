"""Writers of weight files that are true in their headers; tensor data is a hole in the file."""
import json
import random
import struct
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
