// torch's checkpoints and pickles: any bytes are refused with a sentence, or give a list of tensors
// that lie inside the file, with findings for what would run; quickly. The input is four bytes for
// the length of a hole at the end, then the file.
#include "tests/fuzz/open.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len >= 4)
        lade_fuzz_open(lade_fuzz_file(data, len), false);
    return 0;
}
