// Planning a segment from the tensors' places in their files.
#include "workers/gpu/layout.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t s_max_bytes =
    1ull << 46; // of a segment; so that sums of checked sizes cannot overflow

static const char *const s_precisions[] = {
    // clang-format off
    [LADE_DTYPE_BOOL]    = "bool",        [LADE_DTYPE_U8]      = "uint8",   [LADE_DTYPE_I8]   = "int8",
    [LADE_DTYPE_F8_E5M2] = "float8_e5m2", [LADE_DTYPE_F8_E4M3] = "float8_e4m3",
    [LADE_DTYPE_I16]     = "int16",       [LADE_DTYPE_U16]     = "uint16",
    [LADE_DTYPE_F16]     = "float16",     [LADE_DTYPE_BF16]    = "bfloat16",
    [LADE_DTYPE_I32]     = "int32",       [LADE_DTYPE_U32]     = "uint32",  [LADE_DTYPE_F32]  = "float32",
    [LADE_DTYPE_I64]     = "int64",       [LADE_DTYPE_U64]     = "uint64",  [LADE_DTYPE_F64]  = "float64",
    // clang-format on
};
// What a model's weights mostly are: the name torch has for it, else the format's own.
static const char *
s_precision_name(lade_dtype_t dtype)
{
    size_t rows = sizeof s_precisions / sizeof *s_precisions;
    return dtype < rows && s_precisions[dtype] ? s_precisions[dtype] : lade_dtype_name(dtype);
}

static const char *
s_precision(const lade_tensors_t *tensors)
{
    uint64_t bytes[LADE_DTYPE_COUNT] = {0};
    size_t most = LADE_DTYPE_COUNT;
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        bytes[tensor->dtype] += tensor->size;
        if (most == LADE_DTYPE_COUNT || bytes[tensor->dtype] > bytes[most])
            most = tensor->dtype;
    }
    return most < LADE_DTYPE_COUNT ? s_precision_name(most) : "none";
}

// Opens a file of the list again, to read its weights; it has to be as it was when its header was
// read.
static lade_code_t
s_open_part(lade_reader_part_t *part, const char *path, uint64_t size, lade_error_t *error)
{
    struct stat status;
    part->name = path;
    part->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (part->fd < 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    if (fstat(part->fd, &status) || !S_ISREG(status.st_mode) || (uint64_t)status.st_size != size)
        return lade_error_set(error, LADE_CORRUPT, "%s changed while it was opened: load it again",
                              path);
    return LADE_OK;
}

// From the first tensor of each file to the end of its last.
static void
s_find_runs(const lade_tensors_t *tensors, lade_reader_part_t *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        parts[i].from = UINT64_MAX;
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        lade_reader_part_t *part = &parts[tensor->file];
        uint64_t end = tensor->offset + tensor->size;
        part->from = tensor->offset < part->from ? tensor->offset : part->from;
        part->len = end > part->len ? end : part->len; // the end, till below
    }
    for (size_t i = 0; i < count; i++) {
        parts[i].from =
            parts[i].from == UINT64_MAX ? 0 : parts[i].from / LADE_SEGMENT_PAGE * LADE_SEGMENT_PAGE;
        parts[i].len -= parts[i].len ? parts[i].from : 0;
    }
}

// Where each part begins, from the start of the data; *data_len_p is their sum in whole pages.
static lade_code_t
s_place(const lade_reader_part_t *parts, size_t count, uint64_t *places, uint64_t *data_len_p,
        lade_error_t *error)
{
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        places[i] = at;
        if (parts[i].len > s_max_bytes || (at += parts[i].len) > s_max_bytes)
            return lade_error_set(error, LADE_TOO_LARGE, "%s: over %llu bytes of weights",
                                  parts[i].name, (unsigned long long)s_max_bytes);
        at += (LADE_SEGMENT_PAGE - at % LADE_SEGMENT_PAGE) % LADE_SEGMENT_PAGE;
    }
    *data_len_p = at;
    return LADE_OK;
}

// Packs the index, with the tensors where they will be.
static lade_code_t
s_plan(lade_layout_t *self, const char *key, const char *submodel, const lade_tensors_t *tensors,
       lade_error_t *error)
{
    size_t count = lade_tensors_count(tensors);
    uint64_t data_len = 0;
    lade_tensor_t *moved = calloc(count + 1, sizeof *moved);
    lade_code_t code =
        moved ? s_place(self->parts, self->count, self->places, &data_len, error)
              : lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu tensors", count);
    for (size_t i = 0; !code && i < count; i++) {
        moved[i] = *lade_tensors_get(tensors, i);
        moved[i].offset += self->places[moved[i].file] - self->parts[moved[i].file].from;
    }
    if (!code)
        code = lade_segment_plan(key, submodel, moved, count, lade_tensors_metadata(tensors),
                                 data_len, &self->head, &self->index, error);
    free(moved);
    return code;
}

static lade_code_t
s_open_files(lade_layout_t *self, const lade_tensors_t *tensors, const lade_files_t *files,
             lade_error_t *error)
{
    assert(lade_tensors_file_count(tensors) == files->count);
    self->parts = calloc(files->count, sizeof *self->parts);
    self->places = calloc(files->count, sizeof *self->places);
    if (!self->parts || !self->places)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu files", files->count);
    lade_code_t code = LADE_OK;
    for (; !code && self->count < files->count; self->count++)
        code = s_open_part(&self->parts[self->count], files->paths[self->count],
                           lade_tensors_file_size(tensors, self->count), error);
    if (!code)
        s_find_runs(tensors, self->parts, self->count);
    return code;
}

// A segment is made of weights that lie in their files as they are used.
static lade_code_t
s_check_format(const lade_tensors_t *tensors, lade_error_t *error)
{
    const char *format = lade_tensors_format(tensors);
    if (json_array_size(lade_tensors_unsafe(tensors)))
        return lade_error_set(error, LADE_UNSAFE_FILE, "%s is not loaded: %s",
                              lade_tensors_file(tensors, 0),
                              json_string_value(json_object_get(
                                  json_array_get(lade_tensors_unsafe(tensors), 0), "message")));
    if (strcmp(format, "safetensors") != 0)
        return lade_error_set(error, LADE_NOT_IMPLEMENTED,
                              "%s is a %s file; of those lade loads only safetensors",
                              lade_tensors_file(tensors, 0), format);
    return LADE_OK;
}

lade_code_t
lade_layout_open(lade_layout_t *self, const char *key, const char *submodel,
                 const lade_files_t *files, lade_error_t *error)
{
    *self = (lade_layout_t){.index = LADE_BUF(LADE_SEGMENT_MAX_INDEX), .precision = "none"};
    if (!files->count)
        return lade_segment_plan(key, submodel, NULL, 0, NULL, 0, &self->head, &self->index, error);
    lade_tensors_t *tensors = NULL;
    lade_code_t code = lade_tensors_open_files_within(
        (const char *const *)files->paths, files->count, LADE_TENSORS_MOST_HEADER, &tensors, error);
    if (!code)
        code = s_check_format(tensors, error);
    if (!code)
        code = s_open_files(self, tensors, files, error);
    if (!code)
        code = s_plan(self, key, submodel, tensors, error);
    if (!code)
        self->precision = s_precision(tensors);
    lade_tensors_destroy(&tensors);
    if (code == LADE_NOT_FOUND) {
        lade_error_wrap(error, "a file of the model is gone");
        code = error->code = LADE_MODEL_NOT_FOUND;
    }
    return code;
}

lade_code_t
lade_layout_read(lade_layout_t *self, lade_region_t *region, size_t threads,
                 bool (*step)(void *arg, uint64_t bytes), void *arg, lade_error_t *error)
{
    assert(region->size >= self->head.length);
    for (size_t i = 0; i < self->count; i++) {
        uint64_t at = self->head.data_at + self->places[i];
        self->parts[i].to = region->bytes + at;
        self->parts[i].warm = region->warm > at ? region->warm - at : 0;
    }
    lade_code_t code = lade_memory_touch(region, self->head.data_at, error);
    if (code)
        return code;
    // Who looks at pages of an earlier model against all promises finds no segment there while this
    // one is read.
    memset(region->bytes, 0, sizeof self->head);
    code = lade_reader_read(self->parts, self->count, threads, step, arg, error);
    if (code)
        return code;
    self->head.generation = region->generation;
    lade_segment_write(region->bytes, &self->head, &self->index);
    region->warm = self->head.length > region->warm ? self->head.length : region->warm;
    return LADE_OK;
}

void
lade_layout_close(lade_layout_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->parts[i].fd >= 0)
            close(self->parts[i].fd);
    free(self->parts);
    free(self->places);
    lade_buf_free(&self->index);
    self->parts = NULL;
    self->places = NULL;
    self->count = 0;
}
