// How a limit of the whole farm is split among those who use it. Pure arithmetic, no state.
#ifndef LADE_SPLIT_H
#define LADE_SPLIT_H

#include <stddef.h>
#include <stdint.h>

// The at-th of so many jobs' part of a limit of connections: as even as can be, the first ones get
// what is over, and nobody less than 1 (so with more jobs than connections the parts are more than
// the limit).
int64_t lade_split_connections(int64_t limit, size_t jobs, size_t at);

typedef struct {
    int64_t weight; // how many transfers it stands for; at least 1
    int64_t demand; // bytes a second it would use; below 0: more than it gets
    int64_t share;  // what it may use: the result
} lade_part_of_rate_t;

// Splits bytes a second by weight. Who demands less than its part gets its demand, and the others
// share what it leaves. If all demand less, what is over is given out as well, so that the shares
// always add up to the total; but nobody gets less than 1, since 0 is no limit.
void lade_split_rate(int64_t total, lade_part_of_rate_t *parts, size_t count);

// What a user demands that was given a share and was seen to use a rate: below 0 (more) if it used
// nearly all, else somewhat more than it used, so that it can grow.
int64_t lade_split_demand(int64_t share, int64_t rate);

#endif
