// How a model is wanted in memory: its numbers, their order, where. The words of a load's
// arguments.
#ifndef LADE_WANT_H
#define LADE_WANT_H

#include "common/error.h"
#include "common/formats/dtype.h"

#include <stdbool.h>

enum { LADE_WANT_MAX_DEVICE = 32 };

typedef struct {
    bool cast;          // floating point to dtype; else as stored
    lade_dtype_t dtype; // F32, F16 or BF16
    bool channels_last;
    char device[LADE_WANT_MAX_DEVICE]; // "cpu", or "cuda:N"
} lade_want_t;

// Reads what a caller wrote; NULL and "" are the presets: as stored, on the host. dtype: "stored",
// "fp32", "fp16", "bf16", or torch's names for them; layout: "stored", "channels_last"; device:
// "cpu", "cuda" (the first one), "cuda:N". LADE_VALUE_ERROR names what it takes.
lade_code_t lade_want_read(const char *dtype, const char *layout, const char *device,
                           lade_want_t *want, lade_error_t *error);

#endif
