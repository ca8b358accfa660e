// Any bytes as a safetensors file: a precise error or a list of tensors that all lie inside the
// file, quickly.
//
// First byte even: the rest is the whole file. Odd: the rest is the JSON of its header; the length
// before it is made to fit, and the file is as long as the highest data offset says (a hole, so it
// costs nothing).
#include "common/formats/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { S_MAX_BODY = 1 << 30 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

// The highest number that follows a comma in the header: data_offsets are [begin,end].
static uint64_t
s_body_bytes(const uint8_t *json, size_t len)
{
    uint64_t highest = 0;
    for (size_t i = 0; i + 1 < len; i++) {
        uint64_t number = 0;
        for (size_t at = i + 1; json[i] == ',' && at < len && json[at] >= '0' && json[at] <= '9' &&
                                number < S_MAX_BODY;
             at++)
            number = number * 10 + (json[at] - '0');
        if (number > highest && number <= S_MAX_BODY)
            highest = number;
    }
    return highest;
}

static int
s_file(const uint8_t *data, size_t len)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    bool header_only = data[0] & 1;
    uint64_t json = len - 1;
    if (header_only && write(fd, &json, sizeof json) != sizeof json)
        abort();
    if (write(fd, data + 1, len - 1) != (ssize_t)(len - 1))
        abort();
    if (header_only &&
        ftruncate(fd, (off_t)(sizeof json + json + s_body_bytes(data + 1, len - 1))) != 0)
        abort();
    return fd;
}

static void
s_expect(bool true_of_every_list)
{
    if (!true_of_every_list)
        abort();
}

static void
s_check(const lade_tensors_t *tensors)
{
    uint64_t size = lade_tensors_file_size(tensors, 0);
    s_expect(lade_tensors_file_count(tensors) == 1 &&
             json_is_object(lade_tensors_metadata(tensors)));
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        uint64_t bytes = 0;
        s_expect(tensor->dtype < LADE_DTYPE_COUNT && tensor->rank <= LADE_TENSOR_MAX_RANK &&
                 tensor->file == 0);
        s_expect(tensor->offset <= size && tensor->size <= size - tensor->offset);
        s_expect(lade_dtype_bytes(tensor->dtype, tensor->shape, tensor->rank, &bytes));
        s_expect(bytes == tensor->size && strlen(tensor->name) <= tensor->name_len);
        s_expect(lade_tensors_find(tensors, tensor->name) != NULL);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    int fd = s_file(data, len);
    char path[64];
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    lade_code_t code = lade_tensors_open(path, &tensors, &error);
    s_expect((code == LADE_OK) == (tensors != NULL));
    if (code)
        s_expect(error.code == code && *error.message);
    else
        s_check(tensors);
    lade_tensors_destroy(&tensors);
    close(fd);
    return 0;
}
