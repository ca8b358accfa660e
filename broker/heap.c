// The heap of ready jobs, waiting jobs and deadlines.
#include "broker/heap.h"

#include <assert.h>
#include <czmq.h>

static uint32_t *
s_place(const lade_heap_t *self, void *item)
{
    return (uint32_t *)((char *)item + self->place);
}

static void
s_set(lade_heap_t *self, size_t at, void *item)
{
    self->items[at] = item;
    *s_place(self, item) = (uint32_t)at + 1;
}

static void
s_up(lade_heap_t *self, size_t at, void *item)
{
    while (at > 0 && self->less(item, self->items[(at - 1) / 2])) {
        s_set(self, at, self->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    s_set(self, at, item);
}

static void
s_down(lade_heap_t *self, size_t at, void *item)
{
    while (true) {
        size_t child = at * 2 + 1;
        if (child >= self->len)
            break;
        if (child + 1 < self->len && self->less(self->items[child + 1], self->items[child]))
            child++;
        if (!self->less(self->items[child], item))
            break;
        s_set(self, at, self->items[child]);
        at = child;
    }
    s_set(self, at, item);
}

void
lade_heap_add(lade_heap_t *self, void *item)
{
    assert(*s_place(self, item) == 0);
    if (self->len == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 16;
        self->items = realloc(self->items, self->cap * sizeof *self->items);
        if (!self->items)
            abort();
    }
    self->len++;
    s_up(self, self->len - 1, item);
}

void *
lade_heap_top(const lade_heap_t *self)
{
    return self->len ? self->items[0] : NULL;
}

void *
lade_heap_pop(lade_heap_t *self)
{
    void *top = lade_heap_top(self);
    if (top)
        lade_heap_del(self, top);
    return top;
}

void
lade_heap_del(lade_heap_t *self, void *item)
{
    uint32_t *place = s_place(self, item);
    if (*place == 0)
        return;
    size_t at = *place - 1;
    assert(at < self->len && self->items[at] == item);
    *place = 0;
    void *last = self->items[--self->len];
    if (last == item)
        return;
    if (at > 0 && self->less(last, self->items[(at - 1) / 2]))
        s_up(self, at, last);
    else
        s_down(self, at, last);
}

void
lade_heap_free(lade_heap_t *self)
{
    free(self->items);
    self->items = NULL;
    self->len = self->cap = 0;
}
