#include "workers/download/block.h"

#include <assert.h>
#include <czmq.h>

struct lade_blocks {
    lade_block_t *spare;
    size_t limit, lent, spares;
};

lade_blocks_t *
lade_blocks_new(size_t limit)
{
    lade_blocks_t *self = zmalloc(sizeof *self);
    self->limit = limit;
    return self;
}

static lade_block_t *
s_make(void)
{
    lade_block_t *block = zmalloc(sizeof *block);
    block->data = aligned_alloc(LADE_BLOCK_ALIGN, LADE_BLOCK_BYTES);
    if (!block->data) {
        free(block);
        return NULL;
    }
    return block;
}

static void
s_free(lade_block_t *block)
{
    free(block->data);
    free(block);
}

lade_block_t *
lade_blocks_get(lade_blocks_t *self, bool need)
{
    if (lade_blocks_full(self) && !need)
        return NULL;
    lade_block_t *block = self->spare;
    if (block) {
        self->spare = block->next;
        self->spares--;
    } else {
        block = s_make();
    }
    if (!block)
        return NULL;
    self->lent++;
    *block = (lade_block_t){.data = block->data};
    return block;
}

void
lade_blocks_put(lade_blocks_t *self, lade_block_t *block)
{
    assert(self->lent && !block->writing && !block->hashing);
    self->lent--;
    if (self->lent + self->spares >= self->limit) {
        s_free(block);
        return;
    }
    block->next = self->spare;
    self->spare = block;
    self->spares++;
}

bool
lade_blocks_full(const lade_blocks_t *self)
{
    return self->lent >= self->limit;
}

void
lade_blocks_destroy(lade_blocks_t **self_p)
{
    lade_blocks_t *self = *self_p;
    if (!self)
        return;
    assert(self->lent == 0);
    for (lade_block_t *block; (block = self->spare);) {
        self->spare = block->next;
        s_free(block);
    }
    free(self);
    *self_p = NULL;
}
