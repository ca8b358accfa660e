// Tensors that are read one by one and become something else on the way: several threads read
// pieces and turn them where they belong.
#ifndef LADE_GPU_TURNS_H
#define LADE_GPU_TURNS_H

#include "workers/gpu/transform.h"

typedef struct {
    lade_transform_t how;
    int fd;
    const char *name; // of the file, for errors
    uint64_t from;    // bytes from the start of the file
    uint64_t to;      // bytes from the start of the data
} lade_turn_t;

// Fills data. warm: bytes of it whose pages are there already. done: bytes that step is told beside
// those read here; else as lade_reader_read.
lade_code_t lade_turns_run(const lade_turn_t *turns, size_t count, uint8_t *data, uint64_t warm,
                           size_t threads, uint64_t done, bool (*step)(void *arg, uint64_t bytes),
                           void *arg, lade_error_t *error);

#endif
