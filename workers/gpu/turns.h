// Tensors that are read one by one and become something else on the way.
#ifndef LADE_GPU_TURNS_H
#define LADE_GPU_TURNS_H

#include "workers/gpu/reader.h"
#include "workers/gpu/transform.h"

typedef struct {
    lade_transform_t how;
    int fd;
    const char *name; // of the file, for errors
    uint64_t from;    // bytes from the start of the file
    uint64_t to;      // bytes from the start of the data
} lade_turn_t;

// The turn as a part for lade_reader_read that fills data, of which warm bytes have their pages
// already. It must stay where it is until that is done.
lade_reader_part_t lade_turn_part(const lade_turn_t *turn, uint8_t *data, uint64_t warm);

#endif
