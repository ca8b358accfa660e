// torch's files: zip checkpoints, the pickles in a row of before 1.6, and plain
// pickles with tensors in them. Nothing in them is run (pickle.h).
#ifndef LADE_TORCH_H
#define LADE_TORCH_H

#include "common/formats/pickle.h"
#include "common/formats/tensors.h"

bool lade_torch_zip_is(const uint8_t *head, size_t len, uint64_t size);
bool lade_torch_pickle_is(const uint8_t *head, size_t len, uint64_t size);

// Each adds the tensors of an open file to the list, with what is beside them as values and what is
// not safe as findings. LADE_CORRUPT, LADE_TOO_LARGE over a ceiling, LADE_NOT_A_MODEL for a zip
// archive that is not torch's. A file with findings whose pickle then makes no sense is a list
// with what was read up to there.
lade_code_t lade_torch_zip_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                                lade_error_t *error);
lade_code_t lade_torch_pickle_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                                   lade_error_t *error);

// For the parts of the reader: what a storage's id in the pickle stands for.
typedef struct {
    lade_dtype_t dtype;
    lade_layout_kind_t layout; // DENSE or PACKED
    uint64_t offset, size;     // bytes in the file
} lade_storage_t;

// Finds a storage by its object (a persistent id, or a call); LADE_CORRUPT with the reason.
typedef lade_code_t lade_torch_find_t(void *arg, const lade_object_t *storage,
                                      lade_storage_t *storage_p, lade_error_t *error);

// Adds what the tree of objects holds to the list: tensors of file, and values.
lade_code_t lade_torch_list(lade_tensors_t *self, lade_object_t *root, uint32_t file,
                            lade_torch_find_t *find, void *arg, lade_error_t *error);

#endif
