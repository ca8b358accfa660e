// A part of a converted model: which tensors of a checkpoint it is made of, under which names, and
// how they come into its file.
#ifndef LADE_CONVERT_PART_H
#define LADE_CONVERT_PART_H

#include "common/formats/view.h"
#include "workers/install/convert_map.h"

#include <stdint.h>

typedef struct {
    char *name;
    const lade_tensor_t *from; // the list's
    lade_view_t view;          // its shape, and how its elements lie in the source
    bool dense;                // as they are to be; of blocks the view has only the shape
    uint64_t offset;           // of its first element in the source's file
    uint64_t bytes;            // it will have
} lade_convert_tensor_t;

typedef struct {
    lade_convert_tensor_t *tensors;
    size_t count, cap;
    uint64_t bytes; // of all
} lade_convert_part_t;

// Averaged weights that a checkpoint may have beside the others: those of OF… are called PREFIX…
// without dots. NULL, NULL: they are not taken.
typedef struct {
    const char *prefix, *of;
} lade_convert_ema_t;

// Adds all tensors of list whose names begin with prefix, as the map names the rest, and marks them
// in taken (one for each of the list). LADE_INVALID_MODEL_CONFIG for a tensor that the map has
// nothing for, or that has no shape for what it says; LADE_NOT_IMPLEMENTED for one that is sparse,
// compressed in its file or of a type that safetensors has not. A view becomes contiguous.
lade_code_t lade_convert_part_add(lade_convert_part_t *self, const lade_tensors_t *list,
                                  const char *prefix, const lade_convert_map_t *map,
                                  const lade_convert_ema_t *ema, bool *taken, lade_error_t *error);

// To be called after the last add: sorts by name. LADE_INVALID_MODEL_CONFIG if two have one name.
lade_code_t lade_convert_part_close(lade_convert_part_t *self, lade_error_t *error);

// NULL if there is none of that name.
const lade_convert_tensor_t *lade_convert_part_find(const lade_convert_part_t *self,
                                                    const char *name);

// Told the bytes written since the last call; false stops.
typedef bool lade_convert_step_t(void *arg, uint64_t bytes);

// Writes the part's tensors, in the order of the source, as a safetensors file, from fds (one for
// each file of the list); syncs it. At most some 32 MiB of memory.
lade_code_t lade_convert_part_write(const lade_convert_part_t *self, const int *fds,
                                    const char *path, lade_convert_step_t *step, void *arg,
                                    lade_error_t *error);

void lade_convert_part_free(lade_convert_part_t *self);

#endif
