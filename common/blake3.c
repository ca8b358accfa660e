// BLAKE3 in plain C, by its specification: chunks of 1 KiB, a binary tree over them.
#include "common/blake3.h"

#include <endian.h>
#include <string.h>

enum {
    S_BLOCK = 64,
    S_CHUNK = 1024,
    S_CHUNK_START = 1, // flags
    S_CHUNK_END = 2,
    S_PARENT = 4,
    S_ROOT = 8,
};

static const uint32_t s_start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static uint32_t
s_rotate(uint32_t x, int bits)
{
    return x >> bits | x << (32 - bits);
}

static void
s_mix(uint32_t *v, int a, int b, int c, int d, uint32_t x, uint32_t y)
{
    v[a] += v[b] + x;
    v[d] = s_rotate(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = s_rotate(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = s_rotate(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = s_rotate(v[b] ^ v[c], 7);
}

// Which word of the message a round takes where the one before took word i.
static const uint8_t s_order[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};

// One block of a node into its value.
static void
s_compress(uint32_t value[8], const uint8_t block[S_BLOCK], uint32_t len, uint64_t chunk,
           uint32_t flags)
{
    uint32_t m[16], next[16], v[16];
    memcpy(m, block, S_BLOCK);
    for (int i = 0; i < 16; i++)
        m[i] = le32toh(m[i]);
    memcpy(v, value, 8 * sizeof *v);
    memcpy(v + 8, s_start, 4 * sizeof *v);
    v[12] = (uint32_t)chunk;
    v[13] = (uint32_t)(chunk >> 32);
    v[14] = len;
    v[15] = flags;
    for (int round = 0; round < 7; round++) {
        for (int i = 0; i < 4; i++) // columns, then diagonals
            s_mix(v, i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1]);
        for (int i = 0; i < 4; i++)
            s_mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i],
                  m[9 + 2 * i]);
        for (int i = 0; i < 16; i++)
            next[i] = m[s_order[i]];
        memcpy(m, next, sizeof m);
    }
    for (int i = 0; i < 8; i++)
        value[i] = v[i] ^ v[8 + i];
}

static void
s_chunk(const uint8_t *data, size_t len, uint64_t number, uint32_t root, uint32_t value[8])
{
    memcpy(value, s_start, sizeof s_start);
    uint32_t flags = S_CHUNK_START;
    size_t left = len;
    for (; left > S_BLOCK; left -= S_BLOCK, data += S_BLOCK, flags = 0)
        s_compress(value, data, S_BLOCK, number, flags);
    uint8_t last[S_BLOCK] = {0};
    if (left)
        memcpy(last, data, left);
    s_compress(value, last, (uint32_t)left, number, flags | S_CHUNK_END | root);
}

// The left of a tree has as many chunks as the greatest power of two that leaves some for the
// right.
static void
s_tree(const uint8_t *data, size_t len, uint64_t number, uint32_t root, uint32_t value[8])
{
    if (len <= S_CHUNK) {
        s_chunk(data, len, number, root, value);
        return;
    }
    size_t left = S_CHUNK;
    while (2 * left < len)
        left *= 2;
    uint32_t children[16];
    s_tree(data, left, number, 0, children);
    s_tree(data + left, len - left, number + left / S_CHUNK, 0, children + 8);
    for (int i = 0; i < 16; i++)
        children[i] = htole32(children[i]);
    memcpy(value, s_start, sizeof s_start);
    s_compress(value, (const uint8_t *)children, S_BLOCK, 0, S_PARENT | root);
}

void
lade_blake3(const void *data, size_t len, uint8_t out[32])
{
    uint32_t value[8];
    s_tree(data, len, 0, S_ROOT, value);
    for (int i = 0; i < 8; i++)
        value[i] = htole32(value[i]);
    memcpy(out, value, sizeof value);
}
