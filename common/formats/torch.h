// torch's files: zip checkpoints, the pickles in a row of before 1.6, tar files of 0.1, and plain
// pickles with tensors in them. Nothing in them is run (pickle.h).
#ifndef LADE_TORCH_H
#define LADE_TORCH_H

#include "common/formats/pickle.h"
#include "common/formats/tensors.h"

bool lade_torch_zip_is(const uint8_t *head, size_t len, uint64_t size);
bool lade_torch_pickle_is(const uint8_t *head, size_t len, uint64_t size);
bool lade_torch_tar_is(const uint8_t *head, size_t len, uint64_t size);

// Each adds the tensors of an open file to the list, with what is beside them as values and what is
// not safe as findings. LADE_CORRUPT, LADE_TOO_LARGE over a ceiling, LADE_NOT_A_MODEL for a zip
// archive that is not torch's. A file with findings whose pickle then makes no sense is a list
// with what was read up to there.
lade_code_t lade_torch_zip_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                                lade_error_t *error);
lade_code_t lade_torch_pickle_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                                   lade_error_t *error);
lade_code_t lade_torch_tar_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                                lade_error_t *error);

// For the parts of the reader: what a storage's id in the pickle stands for.
typedef struct {
    lade_dtype_t dtype;
    lade_layout_kind_t layout; // DENSE or PACKED
    uint64_t offset;           // where its bytes are in the file
    uint64_t size;             // bytes it has
    uint64_t packed;           // bytes it takes there, if PACKED
} lade_storage_t;

// A tensor as its file places it in a storage.
typedef struct {
    lade_storage_t storage;
    uint64_t from; // elements before its first
    uint8_t rank;
    uint64_t shape[LADE_TENSOR_MAX_RANK], strides[LADE_TENSOR_MAX_RANK]; // strides in elements
} lade_torch_tensor_t;

// How a kind of file finds what its pickle only names; LADE_CORRUPT with the reason.
typedef struct {
    void *arg;

    // A storage by its object: a persistent id, or a call.
    lade_code_t (*storage)(void *arg, const lade_object_t *object, lade_storage_t *storage,
                           lade_error_t *error);

    // A tensor by its persistent id; NULL if such ids are storages.
    lade_code_t (*tensor)(void *arg, const lade_object_t *object, lade_torch_tensor_t *tensor,
                          lade_error_t *error);
} lade_torch_finder_t;

// Adds what the tree of objects holds to the list: tensors of file, and values.
lade_code_t lade_torch_list(lade_tensors_t *self, lade_object_t *root, uint32_t file,
                            const lade_torch_finder_t *finder, lade_error_t *error);

// An error in a file with findings: they are the answer, and the list has what was read.
lade_code_t lade_torch_judge(lade_tensors_t *self, lade_code_t code, const lade_error_t *error);

#endif
