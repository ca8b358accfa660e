"""GGML's blocks as numpy sees them: made at random, and dequantised element by element from the format's definition."""
import numpy as np

# type: (its number in GGUF, elements and bytes of a block, where its half-precision scales are)
TYPES = {"Q4_0": (2, 32, 18, (0,)), "Q4_1": (3, 32, 20, (0, 2)), "Q5_0": (6, 32, 22, (0,)), "Q5_1": (7, 32, 24, (0, 2)),
         "Q8_0": (8, 32, 34, (0,)), "Q8_1": (9, 32, 36, (0, 2)), "Q2_K": (10, 256, 84, (80, 82)), "Q3_K": (11, 256, 110, (108,)),
         "Q4_K": (12, 256, 144, (0, 2)), "Q5_K": (13, 256, 176, (0, 2)), "Q6_K": (14, 256, 210, (208,)),
         "Q8_K": (15, 256, 292, ()), "IQ4_NL": (20, 32, 18, (0,)), "IQ4_XS": (23, 256, 136, (0,)), "MXFP4": (39, 32, 17, ()),
         "F32": (0, 1, 4, ()), "F16": (1, 1, 2, (0,)), "BF16": (30, 1, 2, ())}
UNEVEN = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
F4 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def blocks(name, count, seed):
    """count blocks of random bytes whose scales are usual numbers."""
    _, _, size, scales = TYPES[name]
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (count, size), np.uint8)
    for at in scales:
        made[:, at:at + 2] = rng.uniform(-2, 2, (count, 1)).astype("<f2").view(np.uint8)
    if name in ("Q8_K", "F32"):
        made[:, :4] = rng.uniform(-2, 2, (count, 1)).astype("<f4").view(np.uint8)
    if name == "BF16":
        made[:] = rng.uniform(-2, 2, (count, 1)).astype("<f4").view(np.uint8)[:, 2:]
    if name == "MXFP4":
        made[:, 0] = rng.integers(96, 160, count)
    return made


def half(b, at):
    return b[:, at:at + 2].copy().view("<f2").astype(np.float32)


def nibbles(b):
    """The low halves, then the high ones."""
    return np.concatenate([b & 15, b >> 4], axis=1).astype(np.int32)


def bits(b):
    """The bits of little-endian words, from the lowest."""
    return np.unpackbits(b, axis=1, bitorder="little").astype(np.int32)


def scales_of_3(b):
    words = b[:, 96:108].copy().view("<u4").astype(np.uint64)
    first, second, third = words[:, 0], words[:, 1], words[:, 2]
    low, two = 0x0f0f0f0f, 0x03030303
    out = [(first & low) | ((third & two) << 4), (second & low) | ((third >> 2 & two) << 4),
           (first >> 4 & low) | ((third >> 4 & two) << 4), (second >> 4 & low) | ((third >> 6 & two) << 4)]
    return np.stack(out, 1).astype("<u4").view(np.uint8).astype(np.int32) - 32


def scales_of_4(b):
    """Eight pairs (scale, minimum) of six bits: [..., 0:4] in the low six bits, the others split."""
    q = b[:, 4:16].astype(np.int32)
    scale = np.concatenate([q[:, 0:4] & 63, (q[:, 8:12] & 15) | (q[:, 0:4] >> 6) << 4], 1)
    least = np.concatenate([q[:, 4:8] & 63, q[:, 8:12] >> 4 | (q[:, 4:8] >> 6) << 4], 1)
    return scale.astype(np.float32), least.astype(np.float32)


def dequantise(name, b):
    """[blocks, elements] as float32."""
    f = np.float32
    if name in ("F32", "F16"):
        return b.copy().view({"F32": "<f4", "F16": "<f2"}[name]).astype(f)
    if name == "BF16":
        return (b.copy().view("<u2").astype(np.uint32) << 16).view(f)
    if name == "Q4_0":
        return (nibbles(b[:, 2:]) - 8).astype(f) * half(b, 0)
    if name == "Q4_1":
        return nibbles(b[:, 4:]).astype(f) * half(b, 0) + half(b, 2)
    if name == "Q5_0":
        return (nibbles(b[:, 6:]) + 16 * bits(b[:, 2:6]) - 16).astype(f) * half(b, 0)
    if name == "Q5_1":
        return (nibbles(b[:, 8:]) + 16 * bits(b[:, 4:8])).astype(f) * half(b, 0) + half(b, 2)
    if name in ("Q8_0", "Q8_1"):
        return b[:, 2 if name == "Q8_0" else 4:].view(np.int8).astype(f) * half(b, 0)
    if name == "Q8_K":
        return b[:, :4].copy().view("<f4") * b[:, 4:260].view(np.int8).astype(f)
    if name == "IQ4_NL":
        return half(b, 0) * UNEVEN[nibbles(b[:, 2:])]
    if name == "MXFP4":
        return np.ldexp(f(1), b[:, :1].astype(np.int32) - 127).astype(f) * F4[nibbles(b[:, 1:])]
    i = np.arange(256)
    n, r, l = i // 128, i % 128 // 32, i % 32
    if name == "Q2_K":
        q = (b[:, 16 + n * 32 + l] >> (2 * r) & 3).astype(f)
        s = b[:, n * 8 + r * 2 + l // 16]
        return (half(b, 80) * (s & 15).astype(f)) * q - half(b, 82) * (s >> 4).astype(f)
    if name == "Q3_K":
        q = (b[:, 32 + n * 32 + l] >> (2 * r) & 3).astype(np.int32) - 4 * (1 - (b[:, l] >> (n * 4 + r) & 1).astype(np.int32))
        return (half(b, 108) * scales_of_3(b)[:, n * 8 + r * 2 + l // 16].astype(f)) * q.astype(f)
    if name in ("Q4_K", "Q5_K"):
        scale, least = scales_of_4(b)
        start = 16 if name == "Q4_K" else 48
        j, high = i // 64, i % 64 // 32
        q = (b[:, start + j * 32 + l] >> (4 * high) & 15).astype(np.int32)
        if name == "Q5_K":
            q = q + 16 * (b[:, 16 + l] >> (2 * j + high) & 1)
        s, m = scale[:, 2 * j + high], least[:, 2 * j + high]
        return (half(b, 0) * s) * q.astype(f) - half(b, 2) * m
    if name == "Q6_K":
        low = b[:, n * 64 + l + 32 * (r % 2)] >> (4 * (r // 2)) & 15
        q = (low | (b[:, 128 + n * 32 + l] >> (2 * r) & 3) << 4).astype(np.int32) - 32
        s = b[:, 192 + n * 8 + l // 16 + 2 * r].view(np.int8)
        return (half(b, 208) * s.astype(f)) * q.astype(f)
    if name == "IQ4_XS":
        g, j = i // 32, i % 32
        high = b[:, 2:4].copy().view("<u2").astype(np.int32)
        s = (b[:, 4 + g // 2] >> (4 * (g % 2)) & 15).astype(np.int32) | (high >> (2 * g) & 3) << 4
        q = b[:, 8 + g * 16 + j % 16] >> (4 * (j // 16)) & 15
        return (half(b, 0) * (s - 32).astype(f)) * UNEVEN[q]
    raise KeyError(name)
