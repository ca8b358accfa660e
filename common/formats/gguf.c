// The GGUF header, walked through a window: no count in it is an allocation, and what it claims is
// set against the bytes the file has before it is believed.
#include "common/formats/gguf.h"

#include "common/formats/tensor_list.h"
#include "common/formats/window.h"

#include <endian.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_MAX_RANK = 5,            // one more than ggml has: video models are converted as they are
    S_MAX_TEXT = 1 << 16,      // bytes of a text that is kept whole
    S_MAX_SHOWN = 1000,        // bytes of a longer one that are
    S_MAX_LIST = 64,           // elements of an array that is kept whole
    S_MAX_FIRST = 3,           // elements of a longer one that are
    S_MAX_DEPTH = 4,           // arrays in arrays
    S_MAX_ELEMENTS = 1 << 21,  // texts passed one by one, over all; an array in an array is four
    S_MAX_KEPT = 1 << 16,      // elements kept, over all
    S_MAX_KEPT_TEXT = 1 << 23, // bytes of text kept, over all
    S_ALIGNMENT = 32,
};

typedef struct {
    lade_window_t *window;
    lade_tensors_t *list;
    json_t *pairs;
    bool big;      // byte order
    bool narrow;   // version 1: counts and lengths have 32 bits
    size_t passed; // elements, against S_MAX_ELEMENTS
    size_t kept, kept_text;
    uint64_t alignment;
    lade_error_t *error;
} s_walk_t;

// Every one of these returns LADE_OK or the code in *error.
static lade_code_t s_fail(s_walk_t *walk, lade_code_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static lade_code_t
s_fail(s_walk_t *walk, lade_code_t code, const char *format, ...)
{
    char words[300];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    return lade_error_set(walk->error, code, "%s (at byte %llu)", words,
                          (unsigned long long)walk->window->at);
}

// ---------------------------------------------------------------------------------------------------
// Numbers and texts

static lade_code_t
s_u32(s_walk_t *walk, uint32_t *value_p)
{
    *value_p = 0;
    const uint8_t *bytes = lade_window_take(walk->window, 4, walk->error);
    if (!bytes)
        return walk->error->code;
    memcpy(value_p, bytes, 4);
    *value_p = walk->big ? be32toh(*value_p) : le32toh(*value_p);
    return LADE_OK;
}

static lade_code_t
s_u64(s_walk_t *walk, uint64_t *value_p)
{
    *value_p = 0;
    const uint8_t *bytes = lade_window_take(walk->window, 8, walk->error);
    if (!bytes)
        return walk->error->code;
    memcpy(value_p, bytes, 8);
    *value_p = walk->big ? be64toh(*value_p) : le64toh(*value_p);
    return LADE_OK;
}

// A count, length or dimension.
static lade_code_t
s_count(s_walk_t *walk, uint64_t *value_p)
{
    uint32_t narrow;
    if (!walk->narrow)
        return s_u64(walk, value_p);
    lade_code_t code = s_u32(walk, &narrow);
    *value_p = narrow;
    return code;
}

static uint64_t
s_left(const s_walk_t *walk)
{
    return walk->window->end - walk->window->at;
}

// The length of a sequence whose elements take at least so many bytes.
static lade_code_t
s_length(s_walk_t *walk, const char *what, uint64_t least, uint64_t *value_p)
{
    lade_code_t code = s_count(walk, value_p);
    if (!code && *value_p > s_left(walk) / least)
        return s_fail(walk, LADE_CORRUPT, "it has %llu %s, for which %llu bytes are too few",
                      (unsigned long long)*value_p, what, (unsigned long long)s_left(walk));
    return code;
}

// The name of a key or tensor. It stands until the next read.
static lade_code_t
s_name(s_walk_t *walk, const char **text_p, size_t *len_p)
{
    uint64_t len;
    lade_code_t code = s_length(walk, "bytes in a name", 1, &len);
    if (code)
        return code;
    if (len > LADE_TENSORS_MAX_NAME)
        return s_fail(walk, LADE_TOO_LARGE, "a name of %llu bytes, %d are the most",
                      (unsigned long long)len, LADE_TENSORS_MAX_NAME);
    const char *text = (const char *)lade_window_take(walk->window, (size_t)len, walk->error);
    if (!text)
        return walk->error->code;
    json_t *valid = memchr(text, '\0', (size_t)len) ? NULL : json_stringn(text, (size_t)len);
    json_decref(valid);
    if (!valid || len == 0)
        return s_fail(walk, LADE_CORRUPT, "a name is %s", len ? "no UTF-8 text" : "empty");
    *text_p = text;
    *len_p = (size_t)len;
    return LADE_OK;
}

// Text as JSON; what is not UTF-8 becomes '?'.
static json_t *
s_json_text(const char *text, size_t len)
{
    json_t *value = json_stringn(text, len);
    if (value)
        return value;
    char *copy = malloc(len + 1);
    for (size_t i = 0; copy && i < len; i++)
        copy[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
    value = copy ? json_stringn(copy, len) : NULL;
    free(copy);
    return value;
}

// ---------------------------------------------------------------------------------------------------
// Values

typedef enum {
    S_U8,
    S_I8,
    S_U16,
    S_I16,
    S_U32,
    S_I32,
    S_F32,
    S_BOOL,
    S_TEXT,
    S_ARRAY,
    S_U64,
    S_I64,
    S_F64,
    S_TYPES
} s_type_t;

static lade_code_t s_text(s_walk_t *walk, int depth, json_t **value_p);
static lade_code_t s_array(s_walk_t *walk, int depth, json_t **value_p);

static const struct {
    const char *name;
    uint8_t size; // 0: as long as it says
    lade_code_t (*read)(s_walk_t *walk, int depth, json_t **value_p);
} s_types[] = {
    // clang-format off
    [S_U8]    = {"uint8",   1, NULL},
    [S_I8]    = {"int8",    1, NULL},
    [S_U16]   = {"uint16",  2, NULL},
    [S_I16]   = {"int16",   2, NULL},
    [S_U32]   = {"uint32",  4, NULL},
    [S_I32]   = {"int32",   4, NULL},
    [S_F32]   = {"float32", 4, NULL},
    [S_BOOL]  = {"bool",    1, NULL},
    [S_TEXT]  = {"text",    0, s_text},
    [S_ARRAY] = {"array",   0, s_array},
    [S_U64]   = {"uint64",  8, NULL},
    [S_I64]   = {"int64",   8, NULL},
    [S_F64]   = {"float64", 8, NULL},
    // clang-format on
};
_Static_assert(sizeof s_types / sizeof *s_types == S_TYPES, "a type has no row");

static json_t *
s_json_real(double value)
{
    return isfinite(value) ? json_real(value)
                           : json_string(isnan(value) ? "nan"
                                         : value < 0  ? "-inf"
                                                      : "inf");
}

static json_t *
s_json_number(s_type_t type, uint64_t bits)
{
    float narrow;
    double wide;
    uint32_t low = (uint32_t)bits;
    memcpy(&narrow, &low, sizeof narrow);
    memcpy(&wide, &bits, sizeof wide);
    switch (type) {
    case S_I8:
        return json_integer((int8_t)bits);
    case S_I16:
        return json_integer((int16_t)bits);
    case S_I32:
        return json_integer((int32_t)bits);
    case S_F32:
        return s_json_real((double)narrow);
    case S_F64:
        return s_json_real(wide);
    case S_BOOL:
        return json_boolean(bits);
    case S_U64:
        return bits > INT64_MAX ? json_real((double)bits) : json_integer((json_int_t)bits);
    default:
        return json_integer((json_int_t)bits);
    }
}

static lade_code_t
s_number(s_walk_t *walk, s_type_t type, json_t **value_p)
{
    size_t size = s_types[type].size;
    const uint8_t *bytes = lade_window_take(walk->window, size, walk->error);
    uint64_t bits = 0;
    if (!bytes)
        return walk->error->code;
    for (size_t i = 0; i < size; i++)
        bits |= (uint64_t)bytes[walk->big ? size - 1 - i : i] << 8 * i;
    if (type == S_BOOL && bits > 1)
        return s_fail(walk, LADE_CORRUPT, "a bool is %llu", (unsigned long long)bits);
    if (value_p)
        *value_p = s_json_number(type, bits);
    return LADE_OK;
}

// value_p may be NULL, here and below: then the value is passed.
static lade_code_t
s_text(s_walk_t *walk, int depth, json_t **value_p)
{
    (void)depth;
    uint64_t len;
    lade_code_t code = s_length(walk, "bytes in a text", 1, &len);
    if (code || !value_p)
        return code ? code : lade_window_skip(walk->window, len, walk->error);
    bool whole = len <= S_MAX_SHOWN || (len <= S_MAX_TEXT && walk->kept_text < S_MAX_KEPT_TEXT);
    size_t kept = whole ? (size_t)len : S_MAX_SHOWN;
    walk->kept_text += kept;
    const char *text = (const char *)lade_window_take(walk->window, kept, walk->error);
    if (!text)
        return walk->error->code;
    *value_p = s_json_text(text, kept);
    if (kept < len)
        *value_p = json_pack("{sI so}", "bytes", (json_int_t)len, "first", *value_p);
    return lade_window_skip(walk->window, len - kept, walk->error);
}

static lade_code_t
s_value(s_walk_t *walk, s_type_t type, int depth, json_t **value_p)
{
    return s_types[type].read ? s_types[type].read(walk, depth, value_p)
                              : s_number(walk, type, value_p);
}

static lade_code_t
s_type(s_walk_t *walk, s_type_t *type_p)
{
    uint32_t type;
    lade_code_t code = s_u32(walk, &type);
    *type_p = S_U8;
    if (!code && type >= S_TYPES)
        return s_fail(walk, LADE_CORRUPT, "a value has the type %u, the last there is is %d", type,
                      S_TYPES - 1);
    *type_p = (s_type_t)type;
    return code;
}

// The bytes an element takes at least.
static uint64_t
s_least(const s_walk_t *walk, s_type_t type)
{
    uint64_t length = walk->narrow ? 4 : 8;
    return type == S_TEXT ? length : type == S_ARRAY ? 4 + length : s_types[type].size;
}

static lade_code_t
s_elements(s_walk_t *walk, s_type_t type, uint64_t count, uint64_t kept, int depth, json_t *list)
{
    lade_code_t code = LADE_OK;
    uint64_t i = 0;
    for (; !code && i < kept; i++) {
        json_t *value = NULL;
        code = s_value(walk, type, depth, &value);
        json_array_append_new(list, value);
    }
    if (code || i == count)
        return code;
    if (s_types[type].size)
        return lade_window_skip(walk->window, (count - i) * s_types[type].size, walk->error);
    uint64_t passed = count - i < S_MAX_ELEMENTS ? count - i : S_MAX_ELEMENTS;
    walk->passed += passed * (type == S_ARRAY ? 4 : 1);
    if (walk->passed >= S_MAX_ELEMENTS)
        return s_fail(walk, LADE_TOO_LARGE, "its arrays hold more than %d texts and arrays",
                      S_MAX_ELEMENTS);
    for (; !code && i < count; i++)
        code = s_value(walk, type, depth, NULL);
    return code;
}

static lade_code_t
s_array(s_walk_t *walk, int depth, json_t **value_p)
{
    s_type_t type;
    uint64_t count;
    if (depth == S_MAX_DEPTH)
        return s_fail(walk, LADE_TOO_LARGE, "arrays in arrays, %d deep are the most", S_MAX_DEPTH);
    lade_code_t code = s_type(walk, &type);
    if (!code)
        code = s_length(walk, "elements in an array", s_least(walk, type), &count);
    if (code)
        return code;
    uint64_t kept = count <= S_MAX_LIST ? count : S_MAX_FIRST;
    if (!value_p || walk->kept + kept > S_MAX_KEPT)
        kept = 0;
    walk->kept += kept;
    json_t *list = json_array();
    code = s_elements(walk, type, count, kept, depth + 1, list);
    if (!value_p || code)
        json_decref(list);
    else if (kept == count)
        *value_p = list;
    else
        *value_p = json_pack("{sI ss so}", "count", (json_int_t)count, "type", s_types[type].name,
                             "first", list);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Pairs

static lade_code_t
s_pair(s_walk_t *walk)
{
    const char *name;
    char key[LADE_TENSORS_MAX_NAME + 1], shown[80];
    size_t len;
    s_type_t type;
    json_t *value = NULL;
    lade_code_t code = s_name(walk, &name, &len);
    if (code)
        return code;
    memcpy(key, name, len);
    key[len] = '\0';
    lade_tensor_list_show(key, shown);
    if (json_object_get(walk->pairs, key))
        return s_fail(walk, LADE_CORRUPT, "the key %s is there twice", shown);
    code = s_type(walk, &type);
    if (!code)
        code = s_value(walk, type, 0, &value);
    if (code) {
        json_decref(value);
        return lade_error_wrap(walk->error, "key %s", shown);
    }
    if (strcmp(key, "general.alignment") == 0) {
        if (type != S_U32) {
            json_decref(value);
            return s_fail(walk, LADE_CORRUPT, "general.alignment is %s, not uint32",
                          s_types[type].name);
        }
        walk->alignment = (uint64_t)json_integer_value(value);
    }
    if (!value || json_object_set_new(walk->pairs, key, value))
        return s_fail(walk, LADE_NO_MEMORY, "no memory for the key %s", shown);
    return LADE_OK;
}

static lade_code_t
s_pairs(s_walk_t *walk, uint64_t count)
{
    if (count > LADE_TENSORS_MAX_VALUES)
        return s_fail(walk, LADE_TOO_LARGE, "it has %llu pairs, %d are the most",
                      (unsigned long long)count, LADE_TENSORS_MAX_VALUES);
    lade_code_t code = LADE_OK;
    for (uint64_t i = 0; !code && i < count; i++)
        code = s_pair(walk);
    if (!code && (walk->alignment == 0 || walk->alignment & (walk->alignment - 1)))
        return s_fail(walk, LADE_CORRUPT, "general.alignment is %llu, no power of two",
                      (unsigned long long)walk->alignment);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Tensors

enum { S_GONE = LADE_DTYPE_COUNT, S_TENSOR_TYPES = 43 };

// GGML's numbers of types; those it took away again have none.
static const uint8_t s_tensor_types[S_TENSOR_TYPES] = {
    // clang-format off
    LADE_DTYPE_F32,     LADE_DTYPE_F16,    LADE_DTYPE_Q4_0,    LADE_DTYPE_Q4_1,    S_GONE,
    S_GONE,             LADE_DTYPE_Q5_0,   LADE_DTYPE_Q5_1,    LADE_DTYPE_Q8_0,    LADE_DTYPE_Q8_1,
    LADE_DTYPE_Q2_K,    LADE_DTYPE_Q3_K,   LADE_DTYPE_Q4_K,    LADE_DTYPE_Q5_K,    LADE_DTYPE_Q6_K,
    LADE_DTYPE_Q8_K,    LADE_DTYPE_IQ2_XXS, LADE_DTYPE_IQ2_XS, LADE_DTYPE_IQ3_XXS, LADE_DTYPE_IQ1_S,
    LADE_DTYPE_IQ4_NL,  LADE_DTYPE_IQ3_S,  LADE_DTYPE_IQ2_S,   LADE_DTYPE_IQ4_XS,  LADE_DTYPE_I8,
    LADE_DTYPE_I16,     LADE_DTYPE_I32,    LADE_DTYPE_I64,     LADE_DTYPE_F64,     LADE_DTYPE_IQ1_M,
    LADE_DTYPE_BF16,    S_GONE,            S_GONE,             S_GONE,             LADE_DTYPE_TQ1_0,
    LADE_DTYPE_TQ2_0,   S_GONE,            S_GONE,             S_GONE,             LADE_DTYPE_MXFP4,
    LADE_DTYPE_NVFP4,   LADE_DTYPE_Q1_0,   LADE_DTYPE_Q2_0,
    // clang-format on
};

static lade_code_t
s_shape(s_walk_t *walk, lade_tensor_t *tensor, const char *shown)
{
    uint32_t rank;
    lade_code_t code = s_u32(walk, &rank);
    if (!code && rank > S_MAX_RANK)
        return s_fail(walk, LADE_CORRUPT, "tensor %s has %u dimensions, %d are the most", shown,
                      rank, S_MAX_RANK);
    tensor->rank = (uint8_t)rank;
    for (uint32_t i = 0; !code && i < rank; i++) {
        code = s_count(walk, &tensor->shape[rank - 1 - i]);
        if (!code && tensor->shape[rank - 1 - i] == 0)
            return s_fail(walk, LADE_CORRUPT, "tensor %s has a dimension of 0", shown);
    }
    return code;
}

static lade_code_t
s_tensor_type(s_walk_t *walk, lade_tensor_t *tensor, const char *shown)
{
    uint32_t type;
    lade_code_t code = s_u32(walk, &type);
    if (!code && (type >= S_TENSOR_TYPES || s_tensor_types[type] == S_GONE))
        return s_fail(walk, LADE_NOT_IMPLEMENTED, "tensor %s has the GGML type %u, which %s", shown,
                      type, type < S_TENSOR_TYPES ? "was taken out of GGML" : "lade does not know");
    if (!code)
        tensor->dtype = (lade_dtype_t)s_tensor_types[type];
    return code;
}

static lade_code_t
s_place(s_walk_t *walk, lade_tensor_t *tensor, const char *shown)
{
    uint64_t end;
    lade_code_t code = s_u64(walk, &tensor->offset);
    if (code)
        return code;
    if (!lade_tensor_list_bytes(tensor, &tensor->size))
        return s_fail(walk, LADE_CORRUPT,
                      "the shape of tensor %s overflows, or is no whole number of %s blocks", shown,
                      lade_dtype_name(tensor->dtype));
    if (tensor->offset % walk->alignment)
        return s_fail(walk, LADE_CORRUPT, "tensor %s begins at %llu, no multiple of %llu", shown,
                      (unsigned long long)tensor->offset, (unsigned long long)walk->alignment);
    if (__builtin_add_overflow(tensor->offset, tensor->size, &end) || end > walk->window->end)
        return s_fail(walk, LADE_CORRUPT, "tensor %s ends beyond the file", shown);
    return LADE_OK;
}

static lade_code_t
s_tensor(s_walk_t *walk, uint32_t file)
{
    lade_tensor_t tensor = {.file = file};
    const char *name;
    char shown[80];
    lade_code_t code = s_name(walk, &name, &tensor.name_len);
    if (!code && !(tensor.name = lade_tensor_list_keep(walk->list, name, tensor.name_len)))
        return s_fail(walk, LADE_NO_MEMORY, "no memory for names");
    if (!code)
        code = s_shape(walk, &tensor, lade_tensor_list_show(tensor.name, shown));
    if (!code)
        code = s_tensor_type(walk, &tensor, shown);
    if (!code)
        code = s_place(walk, &tensor, shown);
    return code ? code : lade_tensor_list_add(walk->list, &tensor, walk->error);
}

static uint64_t
s_aligned(const s_walk_t *walk, uint64_t at)
{
    return (at + walk->alignment - 1) / walk->alignment * walk->alignment;
}

// The tensors' places counted from the end of the header are now known to be in the file or not.
static lade_code_t
s_move(s_walk_t *walk, size_t first)
{
    lade_tensors_t *list = walk->list;
    uint64_t start = s_aligned(walk, walk->window->at), size = walk->window->end;
    char shown[80];
    for (size_t i = first; i < list->count; i++) {
        lade_tensor_t *tensor = &list->items[i];
        if (start > size || tensor->offset + tensor->size > size - start)
            return lade_error_set(walk->error, LADE_CORRUPT,
                                  "tensor %s ends at %llu of %llu bytes: it is cut short, or its "
                                  "header is wrong",
                                  lade_tensor_list_show(tensor->name, shown),
                                  (unsigned long long)(start + tensor->offset + tensor->size),
                                  (unsigned long long)size);
        tensor->offset += start;
    }
    if (list->count == first)
        return LADE_OK; // a vocabulary alone
    return lade_tensor_list_check_layout(list, first, start, size, walk->alignment - 1,
                                         walk->error);
}

// ---------------------------------------------------------------------------------------------------

static lade_code_t
s_version(s_walk_t *walk)
{
    uint32_t version = 0;
    const uint8_t *magic = lade_window_take(walk->window, 4, walk->error);
    if (magic && memcmp(magic, "GGUF", 4) != 0)
        return s_fail(walk, LADE_CORRUPT, "it does not begin with GGUF");
    lade_code_t code = magic ? s_u32(walk, &version) : walk->error->code;
    walk->big = !code && (version & 0xffff) == 0 && version != 0;
    version = walk->big ? __builtin_bswap32(version) : version;
    walk->narrow = version == 1;
    if (code)
        return code;
    if (version == 0 || (walk->big && version < 3))
        return s_fail(walk, LADE_CORRUPT, "there is no version %u of GGUF%s", version,
                      walk->big ? " with the highest byte first" : "");
    if (version > 3)
        return s_fail(walk, LADE_NOT_IMPLEMENTED, "version %u of GGUF; lade reads 1 to 3", version);
    json_object_set_new(walk->pairs, "gguf.version", json_integer((json_int_t)version));
    return LADE_OK;
}

static lade_code_t
s_header(s_walk_t *walk, uint32_t file)
{
    uint64_t tensors = 0, pairs = 0, length;
    lade_code_t code = s_version(walk);
    length = walk->narrow ? 4 : 8;
    if (!code)
        code = s_length(walk, "tensors", length + 4 + 4 + 8, &tensors);
    if (!code)
        code = s_length(walk, "pairs", length + 4 + 1, &pairs);
    if (!code && tensors > LADE_TENSORS_MAX)
        return s_fail(walk, LADE_TOO_LARGE, "it has %llu tensors, %d are the most",
                      (unsigned long long)tensors, LADE_TENSORS_MAX);
    if (!code)
        code = s_pairs(walk, pairs);
    size_t first = walk->list->count;
    for (uint64_t i = 0; !code && i < tensors; i++)
        code = s_tensor(walk, file);
    return code ? code : s_move(walk, first);
}

bool
lade_gguf_is(const uint8_t *head, size_t len, uint64_t size)
{
    (void)size;
    return len >= 4 && memcmp(head, "GGUF", 4) == 0;
}

lade_code_t
lade_gguf_read(lade_tensors_t *self, int fd, const char *path, uint64_t size, lade_error_t *error)
{
    lade_error_t spare = {0};
    uint32_t file;
    error = error ? error : &spare;
    *error = (lade_error_t){0};
    s_walk_t walk = {.list = self, .alignment = S_ALIGNMENT, .error = error};
    lade_code_t code = lade_tensor_list_add_file(self, path, size, NULL, &file, error);
    if (!code && !(walk.window = lade_window_new(fd, size, self->max_header, error)))
        code = error->code;
    walk.pairs = json_object();
    if (!code)
        code = s_header(&walk, file);
    if (!code)
        json_object_update_missing(self->metadata, walk.pairs);
    json_decref(walk.pairs);
    free(walk.window);
    return code;
}
