// What the tensors of adapters tell of the layers they change.
#include "common/identify/adapter.h"

#include <string.h>

// How a tensor tells the width of its layer.
typedef enum {
    S_DOWN,      // [rank, in]
    S_UP,        // [out, rank]
    S_FULL,      // [out, in]
    S_BIAS,      // [out]
    S_KRONECKER, // a factor of a Kronecker product
    S_SCALE,     // one number for each input (IA3)
} s_role_t;

// The ends of the names adapters have: kohya, LyCORIS, PEFT, diffusers, XLabs.
static const struct {
    const char *tail;
    s_role_t role;
    const char *partner; // the tail of what makes it whole, or NULL
} s_tails[] = {
    {".lora_down.weight", S_DOWN, ".lora_up.weight"},
    {".lora_up.weight", S_UP, ".lora_down.weight"},
    {".lora_A.weight", S_DOWN, ".lora_B.weight"},
    {".lora_B.weight", S_UP, ".lora_A.weight"},
    {".lora_A.default.weight", S_DOWN, ".lora_B.default.weight"},
    {".lora_B.default.weight", S_UP, ".lora_A.default.weight"},
    {".down.weight", S_DOWN, ".up.weight"},
    {".up.weight", S_UP, ".down.weight"},
    {".hada_w1_a", S_UP, ".hada_w1_b"},
    {".hada_w1_b", S_DOWN, ".hada_w1_a"},
    {".hada_w2_a", S_UP, ".hada_w2_b"},
    {".hada_w2_b", S_DOWN, ".hada_w2_a"},
    {".lokr_w1", S_KRONECKER, NULL},
    {".lokr_w1_a", S_KRONECKER, ".lokr_w1_b"},
    {".lokr_w1_b", S_KRONECKER, ".lokr_w1_a"},
    {".lokr_w2", S_KRONECKER, NULL},
    {".lokr_w2_a", S_KRONECKER, ".lokr_w2_b"},
    {".lokr_w2_b", S_KRONECKER, ".lokr_w2_a"},
    {".diff", S_FULL, NULL},
    {".diff_b", S_BIAS, NULL},
    {".weight", S_SCALE, NULL}, // last: the others end with it too
};
enum { S_TAILS = sizeof s_tails / sizeof *s_tails };

// The row of a name; S_TAILS for none. *module_len_p is what comes before the tail.
static size_t
s_tail(const lade_tensor_t *tensor, size_t *module_len_p)
{
    size_t row = 0;
    for (; row < S_TAILS; row++) {
        size_t len = strlen(s_tails[row].tail);
        if (tensor->name_len > len &&
            strcmp(tensor->name + tensor->name_len - len, s_tails[row].tail) == 0) {
            *module_len_p = tensor->name_len - len;
            break;
        }
    }
    return row;
}

static const lade_tensor_t *
s_part(const lade_tensors_t *tensors, const char *name, size_t module_len, const char *tail)
{
    char key[1200];
    if (module_len + strlen(tail) >= sizeof key)
        return NULL;
    memcpy(key, name, module_len);
    strcpy(key + module_len, tail);
    return lade_tensors_find(tensors, key);
}

static uint64_t
s_dim(const lade_tensor_t *tensor, size_t axis)
{
    return tensor && axis < tensor->rank ? tensor->shape[axis] : 0;
}

// The widths of both factors multiply; either may itself be a product of a and b.
static uint64_t
s_kronecker(const lade_tensors_t *tensors, const char *name, size_t module_len, bool output)
{
    static const char *const tails[2][3] = {{".lokr_w1", ".lokr_w1_b", ".lokr_w1_a"},
                                            {".lokr_w2", ".lokr_w2_b", ".lokr_w2_a"}};
    uint64_t width = 1;
    for (size_t i = 0; i < 2; i++) {
        const lade_tensor_t *factor = s_part(tensors, name, module_len, tails[i][0]);
        if (!factor)
            factor = s_part(tensors, name, module_len, tails[i][output ? 2 : 1]);
        if (__builtin_mul_overflow(width, s_dim(factor, output ? 0 : 1), &width))
            return 0;
    }
    return width;
}

// IA3 has as many numbers as its layer gives, or takes in a feed forward. Both are one in a text
// encoder's attention, which is where it tells.
static uint64_t
s_scale(const lade_tensor_t *tensor)
{
    bool row = tensor->rank == 1 || (tensor->rank == 2 && tensor->shape[0] == 1);
    bool column = tensor->rank == 2 && tensor->shape[1] == 1;
    if (strncmp(tensor->name, "lora_te", 7) != 0 || !strstr(tensor->name, "_self_attn_"))
        return 0;
    return row ? tensor->shape[tensor->rank - 1] : column ? tensor->shape[0] : 0;
}

uint64_t
lade_adapter_width(const lade_tensors_t *tensors, const lade_tensor_t *tensor, bool output)
{
    size_t module_len = 0, row = s_tail(tensor, &module_len);
    if (row == S_TAILS)
        return 0;
    switch (s_tails[row].role) {
    case S_DOWN:
        return output ? 0 : s_dim(tensor, 1);
    case S_UP:
        return output ? s_dim(tensor, 0) : 0;
    case S_FULL:
        return s_dim(tensor, output ? 0 : 1);
    case S_BIAS:
        return output ? s_dim(tensor, 0) : 0;
    case S_KRONECKER:
        return s_kronecker(tensors, tensor->name, module_len, output);
    case S_SCALE:
        return output ? 0 : s_scale(tensor);
    }
    return 0;
}

const lade_tensor_t *
lade_adapter_orphan(const lade_tensors_t *tensors)
{
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        size_t module_len = 0, row = s_tail(tensor, &module_len);
        if (row < S_TAILS && s_tails[row].partner &&
            !s_part(tensors, tensor->name, module_len, s_tails[row].partner))
            return tensor;
    }
    return NULL;
}
