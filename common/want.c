// The words, a row each.
#include "common/want.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *word;
    bool cast;
    lade_dtype_t dtype;
} s_dtypes[] = {
    {"stored", false, 0},
    {"fp32", true, LADE_DTYPE_F32},
    {"fp16", true, LADE_DTYPE_F16},
    {"bf16", true, LADE_DTYPE_BF16},
    {"float32", true, LADE_DTYPE_F32},
    {"float16", true, LADE_DTYPE_F16},
    {"bfloat16", true, LADE_DTYPE_BF16},
};

static lade_code_t
s_read_dtype(const char *word, lade_want_t *want, lade_error_t *error)
{
    for (size_t i = 0; i < sizeof s_dtypes / sizeof *s_dtypes; i++)
        if (!strcmp(s_dtypes[i].word, word)) {
            want->cast = s_dtypes[i].cast;
            want->dtype = s_dtypes[i].dtype;
            return LADE_OK;
        }
    return lade_error_set(error, LADE_VALUE_ERROR,
                          "dtype: '%.100s' is none of stored, fp32, fp16, bf16", word);
}

static lade_code_t
s_read_layout(const char *word, lade_want_t *want, lade_error_t *error)
{
    want->channels_last = !strcmp(word, "channels_last");
    return want->channels_last || !strcmp(word, "stored")
               ? LADE_OK
               : lade_error_set(error, LADE_VALUE_ERROR,
                                "layout: '%.100s' is neither stored nor channels_last", word);
}

static lade_code_t
s_read_device(const char *word, lade_want_t *want, lade_error_t *error)
{
    unsigned index = 0;
    int end = 0;
    if (!strcmp(word, "cpu")) {
        snprintf(want->device, sizeof want->device, "cpu");
        return LADE_OK;
    }
    bool numbered = sscanf(word, "cuda:%3u%n", &index, &end) == 1 && !word[end] && word[5] >= '0' &&
                    word[5] <= '9';
    if (!numbered && strcmp(word, "cuda"))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "device: '%.100s' is none of cpu, cuda, cuda:N", word);
    snprintf(want->device, sizeof want->device, "cuda:%u", index);
    return LADE_OK;
}

static const char *
s_or(const char *word, const char *preset)
{
    return word && *word ? word : preset;
}

lade_code_t
lade_want_read(const char *dtype, const char *layout, const char *device, lade_want_t *want,
               lade_error_t *error)
{
    *want = (lade_want_t){0};
    lade_code_t code = s_read_dtype(s_or(dtype, "stored"), want, error);
    if (!code)
        code = s_read_layout(s_or(layout, "stored"), want, error);
    if (!code)
        code = s_read_device(s_or(device, "cpu"), want, error);
    return code;
}
