// What the fuzzers of weight files share: an input as a file, and what is true of every list.
#ifndef LADE_FUZZ_OPEN_H
#define LADE_FUZZ_OPEN_H

#include "common/formats/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { LADE_FUZZ_MAX_HOLE = 1 << 30, LADE_FUZZ_MAX_MS = 100 };

static inline void
lade_fuzz_expect(bool holds)
{
    if (!holds)
        abort();
}

static inline int64_t
lade_fuzz_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Each tensor lies within its file with the bytes of its shape (a packed ONNX tensor may have
// others), and is found by its name.
static inline void
lade_fuzz_check(const lade_tensors_t *tensors, bool exact)
{
    lade_fuzz_expect(json_is_object(lade_tensors_metadata(tensors)) &&
                     json_is_array(lade_tensors_unsafe(tensors)));
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        uint64_t bytes = 0;
        lade_fuzz_expect(tensor->dtype < LADE_DTYPE_COUNT && tensor->rank <= LADE_TENSOR_MAX_RANK &&
                         tensor->file < lade_tensors_file_count(tensors));
        uint64_t size = lade_tensors_file_size(tensors, tensor->file);
        lade_fuzz_expect(tensor->offset <= size && tensor->size <= size - tensor->offset);
        lade_fuzz_expect(lade_dtype_bytes(tensor->dtype, tensor->shape, tensor->rank, &bytes));
        lade_fuzz_expect(!exact || bytes == tensor->size);
        lade_fuzz_expect(strlen(tensor->name) <= tensor->name_len);
        lade_fuzz_expect(lade_tensors_find(tensors, tensor->name) != NULL);
    }
}

// Opens what is in a memory file, which is closed.
static inline void
lade_fuzz_open(int fd, bool exact)
{
    char path[64];
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int64_t start = lade_fuzz_now_ms();
    lade_code_t code = lade_tensors_open(path, &tensors, &error);
    lade_fuzz_expect(lade_fuzz_now_ms() - start < LADE_FUZZ_MAX_MS);
    lade_fuzz_expect((code == LADE_OK) == (tensors != NULL));
    if (code)
        lade_fuzz_expect(error.code == code && *error.message);
    else
        lade_fuzz_check(tensors, exact);
    lade_tensors_destroy(&tensors);
    close(fd);
}

// A file of these bytes and a hole after them: the input's first four bytes say how long it is, so
// that weights cost the fuzzer nothing.
static inline int
lade_fuzz_file(const uint8_t *data, size_t len)
{
    uint32_t hole;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    memcpy(&hole, data, 4);
    if (fd < 0 || write(fd, data + 4, len - 4) != (ssize_t)(len - 4) ||
        ftruncate(fd, (off_t)(len - 4 + hole % LADE_FUZZ_MAX_HOLE)) != 0)
        abort();
    return fd;
}

#endif
