// The ONNX reader: it may refuse a file, with a sentence, or give a list of tensors that lie inside
// it; quickly. The input is four bytes for the length of a hole at the end, then the file.
#include "tests/fuzz/open.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len >= 4)
        lade_fuzz_open(lade_fuzz_file(data, len), false);
    return 0;
}
