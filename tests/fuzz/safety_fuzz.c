// What would run code: any bytes are looked at as everything they could be, quickly, and findings
// are whole. The input is four bytes for the length of a hole at the end, then the file.
#include "common/formats/safety.h"
#include "tests/fuzz/open.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const members[] = {"what", "where", "name", "message"};
    char path[64];
    json_t *findings, *finding;
    size_t i;
    if (len < 4)
        return 0;
    int fd = lade_fuzz_file(data, len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int64_t start = lade_fuzz_now_ms();
    lade_fuzz_expect(lade_safety_check(path, &findings, NULL) == LADE_OK);
    lade_fuzz_expect(lade_fuzz_now_ms() - start < LADE_FUZZ_MAX_MS);
    json_array_foreach(findings, i, finding)
    {
        for (size_t j = 0; j < sizeof members / sizeof *members; j++)
            lade_fuzz_expect(json_is_string(json_object_get(finding, members[j])));
        lade_fuzz_expect(json_string_length(json_object_get(finding, "message")) > 0);
    }
    json_decref(findings);
    close(fd);
    return 0;
}
