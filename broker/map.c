// Open addressing with linear probing; a deletion moves the slots behind it back, so there are no
// tombstones.
#include "broker/map.h"

#include <czmq.h>
#include <sys/random.h>

typedef struct {
    uint64_t hash;
    const void *key;
    size_t len;
    void *value; // NULL: the slot is free
} s_slot_t;

struct lade_map {
    s_slot_t *slots;
    size_t cap; // a power of two
    size_t size;
    uint64_t seed;
};

enum { S_FIRST_CAP = 16 };

lade_map_t *
lade_map_new(void)
{
    lade_map_t *self = zmalloc(sizeof *self);
    self->cap = S_FIRST_CAP;
    self->slots = zmalloc(self->cap * sizeof *self->slots);
    if (getrandom(&self->seed, sizeof self->seed, GRND_NONBLOCK) != sizeof self->seed)
        self->seed = (uint64_t)(uintptr_t)self ^ (uint64_t)zclock_usecs();
    return self;
}

static uint64_t
s_mix(uint64_t value)
{
    value ^= value >> 32;
    value *= 0xd6e8feb86659fd93u;
    value ^= value >> 32;
    value *= 0xd6e8feb86659fd93u;
    return value ^ value >> 32;
}

uint64_t
lade_map_hash(const void *key, size_t len, uint64_t seed)
{
    const unsigned char *bytes = key;
    uint64_t hash = seed ^ len * 0x9e3779b97f4a7c15u;
    for (; len >= 8; len -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = s_mix(hash ^ word);
    }
    if (len) {
        uint64_t word = 0;
        memcpy(&word, bytes, len);
        hash = s_mix(hash ^ word);
    }
    return hash;
}

// The slot that has the key, or the free one where it belongs.
static size_t
s_find(const lade_map_t *self, uint64_t hash, const void *key, size_t len)
{
    size_t at = hash & (self->cap - 1);
    while (self->slots[at].value && (self->slots[at].hash != hash || self->slots[at].len != len ||
                                     memcmp(self->slots[at].key, key, len) != 0))
        at = (at + 1) & (self->cap - 1);
    return at;
}

void *
lade_map_get(const lade_map_t *self, const void *key, size_t len)
{
    return self->slots[s_find(self, lade_map_hash(key, len, self->seed), key, len)].value;
}

static void
s_grow(lade_map_t *self)
{
    s_slot_t *old = self->slots;
    size_t old_cap = self->cap;
    self->cap *= 2;
    self->slots = zmalloc(self->cap * sizeof *self->slots);
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].value)
            self->slots[s_find(self, old[i].hash, old[i].key, old[i].len)] = old[i];
    free(old);
}

void
lade_map_put(lade_map_t *self, const void *key, size_t len, void *value)
{
    assert(value);
    if (self->size * 4 >= self->cap * 3)
        s_grow(self);
    uint64_t hash = lade_map_hash(key, len, self->seed);
    s_slot_t *slot = &self->slots[s_find(self, hash, key, len)];
    self->size += !slot->value;
    *slot = (s_slot_t){hash, key, len, value};
}

void *
lade_map_del(lade_map_t *self, const void *key, size_t len)
{
    size_t mask = self->cap - 1;
    size_t hole = s_find(self, lade_map_hash(key, len, self->seed), key, len);
    void *value = self->slots[hole].value;
    if (!value)
        return NULL;
    self->size--;
    for (size_t at = (hole + 1) & mask; self->slots[at].value; at = (at + 1) & mask) {
        // A slot may move into the hole if the hole is not before the place its hash wants.
        if (((at - self->slots[at].hash) & mask) >= ((at - hole) & mask)) {
            self->slots[hole] = self->slots[at];
            hole = at;
        }
    }
    self->slots[hole] = (s_slot_t){0};
    return value;
}

size_t
lade_map_size(const lade_map_t *self)
{
    return self->size;
}

void *
lade_map_next(const lade_map_t *self, size_t *at)
{
    while (*at < self->cap) {
        void *value = self->slots[(*at)++].value;
        if (value)
            return value;
    }
    return NULL;
}

void
lade_map_destroy(lade_map_t **self_p)
{
    if (!*self_p)
        return;
    free((*self_p)->slots);
    free(*self_p);
    *self_p = NULL;
}
