#include "workers/download/ranges.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

// Puts with in the place of the count items from at.
static void
s_splice(lade_ranges_t *self, size_t at, size_t count, const lade_range_t *with, size_t more)
{
    size_t left = self->count - at - count;
    if (self->count - count + more > self->room) {
        self->room = (self->count + more) * 2;
        self->items = realloc(self->items, self->room * sizeof *self->items);
        if (!self->items)
            abort();
    }
    if (left)
        memmove(self->items + at + more, self->items + at + count, left * sizeof *self->items);
    if (more)
        memcpy(self->items + at, with, more * sizeof *with);
    self->count += more - count;
}

// The items that overlap or touch from..to: first and how many.
static size_t
s_touching(const lade_ranges_t *self, int64_t from, int64_t to, size_t *first_p)
{
    size_t first = 0, count = 0;
    while (first < self->count && self->items[first].to < from)
        first++;
    while (first + count < self->count && self->items[first + count].from <= to)
        count++;
    *first_p = first;
    return count;
}

static int64_t
s_sum(const lade_range_t *items, size_t count)
{
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += items[i].to - items[i].from;
    return sum;
}

void
lade_ranges_add(lade_ranges_t *self, int64_t from, int64_t to)
{
    assert(from >= 0);
    if (from >= to)
        return;
    size_t first, count = s_touching(self, from, to, &first);
    lade_range_t whole = {from, to};
    if (count) {
        const lade_range_t *begin = &self->items[first], *end = &self->items[first + count - 1];
        whole.from = begin->from < from ? begin->from : from;
        whole.to = end->to > to ? end->to : to;
        self->bytes -= s_sum(begin, count);
    }
    self->bytes += whole.to - whole.from;
    s_splice(self, first, count, &whole, 1);
}

void
lade_ranges_remove(lade_ranges_t *self, int64_t from, int64_t to)
{
    if (from >= to)
        return;
    size_t first, count = s_touching(self, from, to, &first), more = 0;
    if (!count)
        return;
    const lade_range_t begin = self->items[first], end = self->items[first + count - 1];
    lade_range_t rest[2];
    if (begin.from < from)
        rest[more++] = (lade_range_t){begin.from, begin.to < from ? begin.to : from};
    if (end.to > to)
        rest[more++] = (lade_range_t){end.from > to ? end.from : to, end.to};
    self->bytes += s_sum(rest, more) - s_sum(self->items + first, count);
    s_splice(self, first, count, rest, more);
}

int64_t
lade_ranges_gap(const lade_ranges_t *self, int64_t at)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->items[i].from <= at && at < self->items[i].to)
            return self->items[i].to;
    return at;
}

int64_t
lade_ranges_next(const lade_ranges_t *self, int64_t at)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->items[i].to > at)
            return self->items[i].from > at ? self->items[i].from : at;
    return INT64_MAX;
}

int64_t
lade_ranges_end(const lade_ranges_t *self)
{
    return self->count ? self->items[self->count - 1].to : 0;
}

lade_ranges_t
lade_ranges_copy(const lade_ranges_t *self)
{
    lade_ranges_t copy = {0};
    s_splice(&copy, 0, 0, self->items, self->count);
    copy.bytes = self->bytes;
    return copy;
}

void
lade_ranges_free(lade_ranges_t *self)
{
    free(self->items);
    *self = (lade_ranges_t){0};
}
