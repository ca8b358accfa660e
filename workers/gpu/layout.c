// Planning a segment from the tensors' places in their files.
#include "workers/gpu/layout.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_ALIGN = 64,          // of tensors that are read by themselves: what vector instructions like
    S_MAX_GAPS = 1 << 20,  // bytes of a run that are no tensor's, beside a quarter
    S_MAX_VIEW = 64 << 20, // bytes from a view's first to its last, beside four times its own
};

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
s_precision(const lade_layout_t *self)
{
    uint64_t bytes[LADE_DTYPE_COUNT] = {0};
    size_t most = LADE_DTYPE_COUNT;
    for (size_t i = 0; i < self->placed_count; i++) {
        const lade_tensor_t *tensor = &self->placed[i];
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

// ---------------------------------------------------------------------------------------------------
// Runs and turns

static uint64_t
s_up(uint64_t at, uint64_t step)
{
    return at + (step - at % step) % step;
}

// What is known of a file while it is decided how it is read.
typedef struct {
    uint64_t from, end, bytes; // of the first tensor, of the last one's end; of all together
    bool apart;                // each tensor by itself
} s_file_t;

// A file is one run unless that would leave a tensor as it must not be, or read much for nothing.
static void
s_look_at_files(const lade_layout_t *self, const lade_transform_t *hows, s_file_t *files)
{
    for (size_t i = 0; i < self->count; i++)
        files[i].from = UINT64_MAX;
    for (size_t i = 0; i < self->placed_count; i++) {
        const lade_tensor_t *tensor = &self->placed[i];
        s_file_t *file = &files[tensor->file];
        uint64_t end = tensor->offset + tensor->size;
        size_t element = lade_dtype_block(tensor->dtype) == 1 ? lade_dtype_size(tensor->dtype) : 1;
        file->from = tensor->offset < file->from ? tensor->offset : file->from;
        file->end = end > file->end ? end : file->end;
        file->bytes += tensor->size;
        file->apart = file->apart || !lade_transform_is_plain(&hows[i]) || tensor->offset % element;
    }
    for (size_t i = 0; i < self->count; i++) {
        if (files[i].from == UINT64_MAX)
            files[i].from = 0;
        files[i].apart = files[i].apart || files[i].end - files[i].from >
                                               files[i].bytes + files[i].bytes / 4 + S_MAX_GAPS;
    }
}

// Where a run begins, from the start of the data; *at_p moves behind it.
static void
s_place_run(lade_layout_t *self, size_t index, const s_file_t *file, uint64_t *at_p)
{
    lade_reader_part_t *part = &self->parts[index];
    *at_p = s_up(*at_p, LADE_SEGMENT_PAGE);
    part->from = file->from / LADE_SEGMENT_PAGE * LADE_SEGMENT_PAGE;
    part->len = file->end > part->from ? file->end - part->from : 0;
    self->places[index] = *at_p;
    self->read_bytes += part->len;
    *at_p += part->len;
}

static int
s_by_place(const void *a, const void *b, void *arg)
{
    const lade_tensor_t *tensors = arg, *x = &tensors[*(const size_t *)a],
                        *y = &tensors[*(const size_t *)b];
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

// True if both become the same bytes of the same bytes, so that one is enough.
static bool
s_same_turn(const lade_turn_t *turn, const lade_transform_t *how, const lade_tensor_t *tensor,
            int fd)
{
    const lade_transform_t *was = &turn->how;
    return turn->fd == fd && turn->from == tensor->offset && was->in_bytes == how->in_bytes &&
           was->from == how->from && was->to == how->to && !was->strides && !how->strides &&
           was->channels_last == how->channels_last &&
           (!how->channels_last || !memcmp(was->shape, how->shape, sizeof how->shape));
}

// A tensor by itself. Its place is told in *tensor, which had its place in the file.
static lade_code_t
s_place_turn(lade_layout_t *self, const lade_transform_t *how, lade_tensor_t *tensor,
             uint64_t *at_p, lade_error_t *error)
{
    int fd = self->parts[tensor->file].fd;
    lade_turn_t *turn = self->turn_count ? &self->turns[self->turn_count - 1] : NULL;
    if (how->strides && how->in_bytes > how->out_bytes * 4 + S_MAX_VIEW)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "tensor %.200s is a view of %llu bytes in %llu: save it by itself",
                              tensor->name, (unsigned long long)how->out_bytes,
                              (unsigned long long)how->in_bytes);
    if (!turn || !s_same_turn(turn, how, tensor, fd)) {
        turn = &self->turns[self->turn_count++];
        *at_p = s_up(*at_p, S_ALIGN);
        *turn = (lade_turn_t){.how = *how,
                              .fd = fd,
                              .name = self->parts[tensor->file].name,
                              .from = tensor->offset,
                              .to = *at_p};
        *at_p += how->out_bytes;
        self->read_bytes += how->in_bytes;
    }
    tensor->offset = turn->to;
    return LADE_OK;
}

static void
s_become(lade_tensor_t *tensor, const lade_transform_t *how)
{
    tensor->dtype = how->to;
    tensor->size = how->out_bytes;
    tensor->strides = NULL;
    tensor->layout = how->channels_last ? LADE_LAYOUT_CHANNELS_LAST : LADE_LAYOUT_DENSE;
}

// Gives every tensor its place; *data_len_p is what all take, in whole pages. order and files are
// the caller's memory.
static lade_code_t
s_place(lade_layout_t *self, const lade_transform_t *hows, size_t *order, s_file_t *files,
        uint64_t *data_len_p, lade_error_t *error)
{
    uint64_t at = 0;
    size_t file = 0;
    lade_code_t code = LADE_OK;
    s_look_at_files(self, hows, files);
    for (size_t i = 0; i < self->placed_count; i++)
        order[i] = i;
    qsort_r(order, self->placed_count, sizeof *order, s_by_place, self->placed);
    for (size_t i = 0; !code && i < self->placed_count; i++) {
        lade_tensor_t *tensor = &self->placed[order[i]];
        for (; file <= tensor->file; file++)
            if (!files[file].apart)
                s_place_run(self, file, &files[file], &at);
        if (files[tensor->file].apart)
            code = s_place_turn(self, &hows[order[i]], tensor, &at, error);
        else
            tensor->offset += self->places[tensor->file] - self->parts[tensor->file].from;
        s_become(tensor, &hows[order[i]]);
        if (!code && at > s_max_bytes)
            code = lade_error_set(error, LADE_TOO_LARGE, "%s: over %llu bytes of weights",
                                  self->parts[tensor->file].name, (unsigned long long)s_max_bytes);
    }
    *data_len_p = s_up(at, LADE_SEGMENT_PAGE);
    return code;
}

// Finds out what becomes of every tensor, and places it.
static lade_code_t
s_plan_tensors(lade_layout_t *self, const lade_want_t *want, uint64_t *data_len_p,
               lade_error_t *error)
{
    size_t count = self->placed_count;
    lade_transform_t *hows = calloc(count + 1, sizeof *hows);
    size_t *order = calloc(count + 1, sizeof *order);
    s_file_t *files = calloc(self->count + 1, sizeof *files);
    self->turns = calloc(count + 1, sizeof *self->turns);
    lade_code_t code =
        hows && order && files && self->turns
            ? LADE_OK
            : lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu tensors", count);
    for (size_t i = 0; !code && i < count; i++)
        code = lade_transform_plan(&self->placed[i], want->cast ? want->dtype : LADE_DTYPE_COUNT,
                                   want->channels_last, &hows[i], error);
    if (!code)
        code = s_place(self, hows, order, files, data_len_p, error);
    free(hows);
    free(order);
    free(files);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Files

static lade_code_t
s_open_files(lade_layout_t *self, lade_error_t *error)
{
    size_t count = lade_tensors_file_count(self->tensors);
    self->parts = calloc(count, sizeof *self->parts);
    self->places = calloc(count, sizeof *self->places);
    if (!self->parts || !self->places)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu files", count);
    lade_code_t code = LADE_OK;
    for (; !code && self->count < count; self->count++)
        code = s_open_part(&self->parts[self->count], lade_tensors_file(self->tensors, self->count),
                           lade_tensors_file_size(self->tensors, self->count), error);
    return code;
}

// A copy of the list, to be given places in the segment.
static lade_code_t
s_copy_tensors(lade_layout_t *self, lade_error_t *error)
{
    self->placed_count = lade_tensors_count(self->tensors);
    self->placed = calloc(self->placed_count + 1, sizeof *self->placed);
    if (!self->placed)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu tensors",
                              self->placed_count);
    for (size_t i = 0; i < self->placed_count; i++)
        self->placed[i] = *lade_tensors_get(self->tensors, i);
    return LADE_OK;
}

// Whole files as tensors of bytes, called by their paths from the first one's folder.
static lade_code_t
s_take_files(lade_layout_t *self, lade_error_t *error)
{
    const char *first = lade_tensors_file(self->tensors, 0), *slash = strrchr(first, '/');
    size_t folder = slash ? (size_t)(slash - first) + 1 : 0;
    self->placed_count = lade_tensors_file_count(self->tensors);
    self->placed = calloc(self->placed_count, sizeof *self->placed);
    if (!self->placed)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu files", self->placed_count);
    for (size_t i = 0; i < self->placed_count; i++) {
        const char *path = lade_tensors_file(self->tensors, i);
        path += strncmp(path, first, folder) ? 0 : folder;
        uint64_t size = lade_tensors_file_size(self->tensors, i);
        self->placed[i] = (lade_tensor_t){.name = path,
                                          .name_len = strlen(path),
                                          .dtype = LADE_DTYPE_U8,
                                          .rank = 1,
                                          .shape = {size},
                                          .file = (uint32_t)i,
                                          .size = size};
    }
    return LADE_OK;
}

// The first finding is told; nothing in the file would be run, but who wrote it meant that.
static lade_code_t
s_check_safe(lade_layout_t *self, bool allow_unsafe, lade_error_t *error)
{
    const json_t *first = json_array_get(lade_tensors_unsafe(self->tensors), 0);
    self->unsafe = first != NULL;
    if (!first || allow_unsafe)
        return LADE_OK;
    return lade_error_set(
        error, LADE_UNSAFE_FILE,
        "%s is not loaded: %s; allow_unsafe with the model's key loads its tensors",
        lade_tensors_file(self->tensors, 0), json_string_value(json_object_get(first, "message")));
}

static lade_code_t
s_open(lade_layout_t *self, const char *key, const char *submodel, const lade_files_t *files,
       const lade_want_t *want, bool allow_unsafe, lade_error_t *error)
{
    uint64_t data_len = 0;
    lade_code_t code =
        lade_tensors_open_files_within((const char *const *)files->paths, files->count,
                                       LADE_TENSORS_MOST_HEADER, &self->tensors, error);
    if (!code)
        code = s_check_safe(self, allow_unsafe, error);
    if (!code)
        code = s_open_files(self, error);
    if (!code)
        code = strcmp(lade_tensors_format(self->tensors), "onnx") ? s_copy_tensors(self, error)
                                                                  : s_take_files(self, error);
    if (!code)
        code = s_plan_tensors(self, want, &data_len, error);
    if (!code)
        code = lade_segment_plan(key, submodel, self->placed, self->placed_count,
                                 lade_tensors_metadata(self->tensors), data_len, &self->head,
                                 &self->index, error);
    if (!code)
        self->precision = s_precision(self);
    return code;
}

lade_code_t
lade_layout_open(lade_layout_t *self, const char *key, const char *submodel,
                 const lade_files_t *files, const lade_want_t *want, bool allow_unsafe,
                 lade_error_t *error)
{
    *self = (lade_layout_t){.index = LADE_BUF(LADE_SEGMENT_MAX_INDEX), .precision = "none"};
    if (!files->count)
        return lade_segment_plan(key, submodel, NULL, 0, NULL, 0, &self->head, &self->index, error);
    lade_code_t code = s_open(self, key, submodel, files, want, allow_unsafe, error);
    if (code == LADE_NOT_FOUND) {
        lade_error_wrap(error, "a file of the model is gone");
        code = error->code = LADE_MODEL_NOT_FOUND;
    }
    return code;
}

// The runs, and the turns after them, as what is to be read into a region; NULL without memory.
static lade_reader_part_t *
s_parts(const lade_layout_t *self, const lade_region_t *region)
{
    uint8_t *data = region->bytes + self->head.data_at;
    uint64_t warm = region->warm > self->head.data_at ? region->warm - self->head.data_at : 0;
    lade_reader_part_t *parts = calloc(self->count + self->turn_count + 1, sizeof *parts);
    for (size_t i = 0; parts && i < self->count; i++) {
        parts[i] = self->parts[i];
        parts[i].to = data + self->places[i];
        parts[i].warm = warm > self->places[i] ? warm - self->places[i] : 0;
    }
    for (size_t i = 0; parts && i < self->turn_count; i++)
        parts[self->count + i] = lade_turn_part(&self->turns[i], data, warm);
    return parts;
}

lade_code_t
lade_layout_read(const lade_layout_t *self, lade_region_t *region, size_t threads,
                 bool (*step)(void *arg, uint64_t bytes), void *arg, lade_error_t *error)
{
    assert(region->size >= self->head.length);
    lade_code_t code = lade_memory_touch(region, self->head.data_at, error);
    if (code)
        return code;
    // Who looks at pages of an earlier model against all promises finds no segment there while this
    // one is read.
    memset(region->bytes, 0, sizeof self->head);
    lade_reader_part_t *parts = s_parts(self, region);
    code = parts
               ? lade_reader_read(parts, self->count + self->turn_count, threads, step, arg, error)
               : lade_error_set(error, LADE_NO_MEMORY, "no memory to read %zu tensors",
                                self->turn_count);
    free(parts);
    if (code)
        return code;
    lade_segment_head_t head = self->head;
    head.generation = region->generation;
    lade_segment_write(region->bytes, &head, &self->index);
    region->warm = head.length > region->warm ? head.length : region->warm;
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
    free(self->turns);
    free(self->placed);
    lade_tensors_destroy(&self->tensors);
    lade_buf_free(&self->index);
    self->parts = NULL;
    self->places = NULL;
    self->turns = NULL;
    self->placed = NULL;
    self->count = self->turn_count = self->placed_count = 0;
}
