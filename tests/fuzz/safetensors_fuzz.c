// Any bytes as a safetensors file: a precise error or a list of tensors that all lie inside the
// file, quickly.
//
// First byte even: the rest is the whole file. Odd: the rest is the JSON of its header; the length
// before it is made to fit, and the file is as long as the highest data offset says (a hole, so it
// costs nothing).
#include "tests/fuzz/open.h"

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

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len)
        lade_fuzz_open(s_file(data, len), true);
    return 0;
}
