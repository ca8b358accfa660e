// The named predicates over the tensors of adapters: sums and products of their widths.
#include "common/identify/adapter.h"
#include "common/identify/predicates_read.h"

#include <stdlib.h>
#include <string.h>

static bool
s_begins(const char *text, const char *head)
{
    return strncmp(text, head, strlen(head)) == 0;
}

static bool
s_ends(const char *text, const char *tail)
{
    size_t len = strlen(text), n = strlen(tail);
    return len >= n && strcmp(text + len - n, tail) == 0;
}

// ---------------------------------------------------------------------------------------------------
// LoRA

// The width that all telling tensors of this kind agree on; 0 if none tells or they differ.
static uint64_t
s_agreed_width(const lade_tensors_t *tensors, const char *prefix, const char *const *parts)
{
    uint64_t agreed = 0;
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        bool fits = false;
        for (size_t j = 0; parts[j] && !fits && s_begins(tensor->name, prefix); j++)
            fits = strstr(tensor->name, parts[j]) != NULL;
        uint64_t width = fits ? lade_adapter_width(tensors, tensor, false) : 0;
        if (width && agreed && width != agreed)
            return 0;
        agreed = width ? width : agreed;
    }
    return agreed;
}

static json_t *
s_width(uint64_t width)
{
    return width && width < INT64_MAX ? json_integer((json_int_t)width) : NULL;
}

json_t *
lade_predicate_lora_unet_width(lade_subject_t *subject)
{
    static const char *const parts[] = {"_attn2_to_k.", "_attn2_to_v.", NULL};
    return s_width(s_agreed_width(subject->tensors, "lora_unet_", parts));
}

json_t *
lade_predicate_lora_time_width(lade_subject_t *subject)
{
    static const char *const parts[] = {"time_emb_proj.lora_down", NULL};
    return s_width(s_agreed_width(subject->tensors, "lora_unet_", parts));
}

// One encoder's width; of the two encoders of SDXL the sum, as its U-Net gets both side by side.
json_t *
lade_predicate_lora_text_width(lade_subject_t *subject)
{
    static const char *const parts[] = {"_self_attn_", NULL};
    uint64_t only = s_agreed_width(subject->tensors, "lora_te_", parts);
    uint64_t first = s_agreed_width(subject->tensors, "lora_te1_", parts);
    uint64_t second = s_agreed_width(subject->tensors, "lora_te2_", parts);
    return only ? s_width(only) : second ? s_width(first + second) : NULL;
}

json_t *
lade_predicate_orphan(lade_subject_t *subject)
{
    const lade_tensor_t *orphan = lade_adapter_orphan(subject->tensors);
    return orphan ? json_stringn_nocheck(orphan->name, orphan->name_len) : NULL;
}

// ---------------------------------------------------------------------------------------------------
// Textual inversion: a few vectors for the words of a text encoder

enum { S_MAX_VECTORS = 1024, S_MAX_EMBEDDINGS = 9 };

static uint64_t
s_vector_width(const lade_tensor_t *tensor)
{
    bool number = tensor->dtype == LADE_DTYPE_F16 || tensor->dtype == LADE_DTYPE_BF16 ||
                  tensor->dtype == LADE_DTYPE_F32 || tensor->dtype == LADE_DTYPE_F64;
    bool vectors = tensor->rank == 1 || (tensor->rank == 2 && tensor->shape[0] >= 1 &&
                                         tensor->shape[0] <= S_MAX_VECTORS);
    // ".weight" and ".bias" are parts of a network, not words
    if (!number || !vectors || s_ends(tensor->name, "weight") || s_ends(tensor->name, "bias"))
        return 0;
    return tensor->shape[tensor->rank - 1];
}

json_t *
lade_predicate_embedding_width(lade_subject_t *subject)
{
    size_t count = lade_tensors_count(subject->tensors);
    uint64_t agreed = 0;
    if (count > S_MAX_EMBEDDINGS)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        uint64_t width = s_vector_width(lade_tensors_get(subject->tensors, i));
        if (width == 0 || (agreed && width != agreed))
            return NULL;
        agreed = width;
    }
    return s_width(agreed);
}
