// Filling up: the modest first, in the order of demand by weight, then the others by weight.
#include "broker/split.h"

#include <czmq.h>

int64_t
lade_split_connections(int64_t limit, size_t jobs, size_t at)
{
    int64_t count = jobs ? (int64_t)jobs : 1, part = limit / count;
    part += (int64_t)at < limit % count;
    return part > 1 ? part : 1;
}

static double
s_per_weight(const lade_part_of_rate_t *part)
{
    return part->demand < 0 ? INFINITY : (double)part->demand / (double)part->weight;
}

static int
s_compare(const void *a, const void *b)
{
    double left = s_per_weight(*(lade_part_of_rate_t *const *)a),
           right = s_per_weight(*(lade_part_of_rate_t *const *)b);
    return (left > right) - (left < right);
}

static int64_t
s_part(int64_t total, int64_t weight, int64_t weights)
{
    return (int64_t)((double)total * ((double)weight / (double)weights));
}

// Gives those from `at` on what is left, by weight. The last gets what rounding leaves.
static void
s_give_out(int64_t left, lade_part_of_rate_t **order, size_t at, size_t count)
{
    int64_t weights = 0;
    for (size_t i = at; i < count; i++)
        weights += order[i]->weight;
    for (size_t i = at; i < count; i++) {
        int64_t part = i + 1 == count ? left : s_part(left, order[i]->weight, weights);
        order[i]->share += part;
        left -= part;
        weights -= order[i]->weight;
    }
}

void
lade_split_rate(int64_t total, lade_part_of_rate_t *parts, size_t count)
{
    lade_part_of_rate_t **order = zmalloc((count + 1) * sizeof *order);
    int64_t weights = 0, left = total;
    for (size_t i = 0; i < count; i++) {
        order[i] = &parts[i];
        parts[i].share = 0;
        weights += parts[i].weight;
    }
    qsort(order, count, sizeof *order, s_compare);
    size_t modest = 0;
    while (modest < count && order[modest]->demand >= 0 &&
           order[modest]->demand <= s_part(left, order[modest]->weight, weights)) {
        order[modest]->share = order[modest]->demand;
        left -= order[modest]->demand;
        weights -= order[modest++]->weight;
    }
    s_give_out(left, order, modest < count ? modest : 0, count);
    for (size_t i = 0; i < count; i++)
        parts[i].share = parts[i].share > 0 ? parts[i].share : 1;
    free(order);
}

int64_t
lade_split_demand(int64_t share, int64_t rate)
{
    enum { S_LEAST = 64 << 10 }; // bytes a second; who stands still must be able to begin
    if ((double)rate >= 0.9 * (double)share)
        return -1;
    int64_t demand = rate + rate / 4;
    return demand > S_LEAST ? demand : S_LEAST;
}
