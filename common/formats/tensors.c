// The one door to weight files: what a file is by its first bytes, and a folder's shards as one
// list.
#include "common/formats/tensors.h"

#include "common/formats/gguf.h"
#include "common/formats/json_file.h"
#include "common/formats/onnx.h"
#include "common/formats/safetensors.h"
#include "common/formats/tensor_list.h"
#include "common/formats/torch.h"
#include "common/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { S_HEAD = 512, S_MAX_INDEX = 64 << 20 }; // a tar file says so at byte 257

// The formats with a reader, most telling first.
static const struct {
    const char *name;
    const char *suffix; // that claims the format: its reader then says what is wrong, if none of
                        // them knows the content
    bool (*is)(const uint8_t *head, size_t len, uint64_t size);
    lade_code_t (*read)(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                        lade_error_t *error);
} s_formats[] = {
    {"gguf", ".gguf", lade_gguf_is, lade_gguf_read},
    {"safetensors", ".safetensors", lade_safetensors_is, lade_safetensors_read},
    {"torch", ".pth", lade_torch_zip_is, lade_torch_zip_read},
    {"pickle", ".tar", lade_torch_tar_is, lade_torch_tar_read}, // before pickles, as torch does
    {"pickle", ".ckpt", lade_torch_pickle_is, lade_torch_pickle_read},
    {"onnx", ".onnx", lade_onnx_is, lade_onnx_read},
};

// What else turns up under a model's name, to be named in the refusal.
static const struct {
    const char *magic;
    size_t len;
    lade_code_t code;
    const char *words;
} s_others[] = {
    // clang-format off
    {"version https:/",  15, LADE_NOT_A_MODEL,     "is a Git LFS pointer, not the file it stands for: fetch it with git lfs pull"},
    {"<!DOCTYPE",         9, LADE_NOT_A_MODEL,     "is a web page: the server wanted a log-in or the address is another"},
    {"<!doctype",         9, LADE_NOT_A_MODEL,     "is a web page: the server wanted a log-in or the address is another"},
    {"<html",             5, LADE_NOT_A_MODEL,     "is a web page: the server wanted a log-in or the address is another"},
    // clang-format on
};

static const char *
s_last(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool
s_ends(const char *text, const char *tail)
{
    size_t len = strlen(text), n = strlen(tail);
    return len >= n && strcmp(text + len - n, tail) == 0;
}

// ---------------------------------------------------------------------------------------------------
// One file

static lade_code_t
s_refuse(const char *path, const uint8_t *head, size_t len, lade_error_t *error)
{
    for (size_t i = 0; i < sizeof s_others / sizeof *s_others; i++)
        if (len >= s_others[i].len && memcmp(head, s_others[i].magic, s_others[i].len) == 0)
            return lade_error_set(error, s_others[i].code, "%s %s", s_last(path),
                                  s_others[i].words);
    return LADE_OK;
}

static lade_code_t
s_read_file(lade_tensors_t *self, int fd, const char *path, uint64_t size, lade_error_t *error)
{
    uint8_t head[S_HEAD];
    ssize_t got = pread(fd, head, sizeof head, 0);
    if (got < 0)
        return lade_error_errno(error, errno, "reading %s", path);
    size_t row = 0, rows = sizeof s_formats / sizeof *s_formats;
    while (row < rows && !s_formats[row].is(head, (size_t)got, size))
        row++;
    if (row == rows) {
        lade_code_t code = s_refuse(path, head, (size_t)got, error);
        for (row = 0; !code && row < rows && !s_ends(path, s_formats[row].suffix);)
            row++;
        if (!code && row == rows)
            code =
                lade_error_set(error, LADE_NOT_IMPLEMENTED,
                               "%s is in no format lade reads; safetensors it does", s_last(path));
        if (code)
            return code;
    }
    if (self->format && self->format != s_formats[row].name)
        return lade_error_set(error, LADE_CORRUPT, "%s is %s, the weights beside it are %s",
                              s_last(path), s_formats[row].name, self->format);
    self->format = s_formats[row].name;
    if (s_formats[row].read(self, fd, path, size, error))
        return lade_error_wrap(error, "%s", s_last(path));
    return LADE_OK;
}

static lade_code_t
s_add_path(lade_tensors_t *self, const char *path, lade_error_t *error)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe must not hold us
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    lade_code_t code;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        code = lade_error_set(error, LADE_IO_ERROR, "%s is no regular file", path);
    else
        code = s_read_file(self, fd, path, (uint64_t)st.st_size, error);
    close(fd);
    return code;
}

lade_code_t
lade_tensors_open_files_within(const char *const *paths, size_t count, uint64_t max_header,
                               lade_tensors_t **self_p, lade_error_t *error)
{
    lade_error_t spare = {0};
    error = error ? error : &spare;
    *self_p = NULL;
    lade_tensors_t *self = calloc(1, sizeof *self);
    if (!self || !(self->metadata = json_object()) || !(self->values = json_object()) ||
        !(self->unsafe = json_array())) {
        lade_tensors_destroy(&self);
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to read weights");
    }
    self->max_header = max_header;
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < count; i++)
        code = s_add_path(self, paths[i], error);
    if (code)
        lade_tensors_destroy(&self);
    *self_p = self;
    return code;
}

lade_code_t
lade_tensors_open_files(const char *const *paths, size_t count, lade_tensors_t **self_p,
                        lade_error_t *error)
{
    return lade_tensors_open_files_within(paths, count, LADE_TENSORS_HEADER, self_p, error);
}

// ---------------------------------------------------------------------------------------------------
// A folder

typedef struct {
    char **names; // owned
    size_t count;
} s_names_t;

static void
s_names_free(s_names_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->names[i]);
    free(self->names);
    *self = (s_names_t){0};
}

static lade_code_t
s_names_add(s_names_t *self, char *name, lade_error_t *error)
{
    char **names = NULL;
    if (name && self->count < LADE_TENSORS_MAX_FILES)
        names = realloc(self->names, (self->count + 1) * sizeof *names);
    if (!names) {
        free(name);
        if (self->count == LADE_TENSORS_MAX_FILES)
            return lade_error_set(error, LADE_TOO_LARGE, "more than %d weight files",
                                  LADE_TENSORS_MAX_FILES);
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to list weight files");
    }
    self->names = names;
    names[self->count++] = name;
    return LADE_OK;
}

static int
s_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool
s_has(const s_names_t *self, const char *name)
{
    return self->count && bsearch(&name, self->names, self->count, sizeof *self->names, s_by_name);
}

// The weight files of a folder have one of these suffixes, the first of which there is any: a hub's
// folder often has the same weights again as pickles.
static const char *const s_suffixes[] = {".safetensors", ".gguf", ".bin", ".pt",
                                         ".pth",         ".ckpt", ".onnx"};
enum { S_SUFFIXES = sizeof s_suffixes / sizeof *s_suffixes };

// What a trainer leaves beside weights, and is none.
static const char *const s_not_weights[] = {"training_args.", "optimizer.",    "scheduler.",
                                            "rng_state",      "random_states", "scaler."};

static bool
s_is_weight(const char *name)
{
    for (size_t i = 0; i < sizeof s_not_weights / sizeof *s_not_weights; i++)
        if (strncmp(name, s_not_weights[i], strlen(s_not_weights[i])) == 0 &&
            !s_ends(name, ".safetensors"))
            return false;
    for (size_t i = 0; i < S_SUFFIXES; i++)
        if (s_ends(name, s_suffixes[i]))
            return true;
    return s_ends(name, ".index.json");
}

// The names of weight files and indexes directly in a folder, sorted.
static lade_code_t
s_list(const char *folder, s_names_t *names, lade_error_t *error)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return lade_error_errno(error, errno, "cannot read %s", folder);
    lade_code_t code = LADE_OK;
    for (struct dirent *entry; !code && (entry = readdir(dir));)
        if (entry->d_name[0] != '.' && s_is_weight(entry->d_name))
            code = s_names_add(names, strdup(entry->d_name), error);
    closedir(dir);
    if (!code && names->count)
        qsort(names->names, names->count, sizeof *names->names, s_by_name);
    return code;
}

// "model.fp16.safetensors" beside "model.safetensors" is the same model in another precision.
static bool
s_is_variant(const s_names_t *names, const char *name, const char *suffix)
{
    char plain[512];
    size_t stem = strlen(name) - strlen(suffix);
    const char *dot = memrchr(name, '.', stem);
    if (!dot || strlen(name) + strlen(suffix) >= sizeof plain)
        return false;
    size_t len = (size_t)(dot - name);
    memcpy(plain, name, len);
    strcpy(plain + len, suffix);
    return s_has(names, plain);
}

// The shards an index names, each once. Its names come from outside, so none may lead out of the
// folder.
static lade_code_t
s_from_index(const char *folder, const char *index, const json_t *map, s_names_t *files,
             lade_error_t *error)
{
    const char *name;
    json_t *value, *seen = json_object();
    lade_code_t code = LADE_OK;
    json_object_foreach((json_t *)map, name, value)
    {
        const char *file = json_string_value(value);
        if (!file || lade_path_check_name(file, NULL)) {
            code = lade_error_set(error, LADE_CORRUPT,
                                  "%s: weight_map has to map names to files beside it", index);
            break;
        }
        if (json_object_get(seen, file))
            continue;
        json_object_set_new(seen, file, json_true());
        code = s_names_add(files, lade_path_join(folder, file), error);
        if (code)
            break;
    }
    json_decref(seen);
    if (!code && files->count == 0)
        code = lade_error_set(error, LADE_CORRUPT, "%s: weight_map is empty", index);
    if (!code)
        qsort(files->names, files->count, sizeof *files->names, s_by_name);
    return code;
}

// Every tensor the index names has to be in the shard it names.
static lade_code_t
s_check_index(const lade_tensors_t *self, const char *index, const json_t *map, lade_error_t *error)
{
    const char *name;
    json_t *value;
    char shown[80];
    json_object_foreach((json_t *)map, name, value)
    {
        const lade_tensor_t *tensor = lade_tensors_find(self, name);
        if (!tensor ||
            strcmp(s_last(self->files[tensor->file].path), json_string_value(value)) != 0)
            return lade_error_set(error, LADE_CORRUPT, "%s names tensor %s, which %s does not hold",
                                  index, lade_tensor_list_show(name, shown),
                                  json_string_value(value));
    }
    return LADE_OK;
}

static lade_code_t
s_open_all(const s_names_t *files, uint64_t max_header, lade_tensors_t **self_p,
           lade_error_t *error)
{
    return lade_tensors_open_files_within((const char *const *)files->names, files->count,
                                          max_header, self_p, error);
}

static lade_code_t
s_open_index(const char *folder, const char *index, uint64_t max_header, lade_tensors_t **self_p,
             lade_error_t *error)
{
    json_t *root = NULL;
    s_names_t files = {0};
    char *path = lade_path_join(folder, index);
    lade_code_t code = lade_json_file_read(path, S_MAX_INDEX, &root, error);
    const json_t *map = json_object_get(root, "weight_map");
    if (!code && !json_is_object(map))
        code = lade_error_set(error, LADE_CORRUPT, "%s has no weight_map", index);
    if (!code)
        code = s_from_index(folder, index, map, &files, error);
    if (!code)
        code = s_open_all(&files, max_header, self_p, error);
    if (!code && (code = s_check_index(*self_p, index, map, error)))
        lade_tensors_destroy(self_p);
    free(path);
    json_decref(root);
    s_names_free(&files);
    return code;
}

static lade_code_t
s_open_names(const char *folder, const s_names_t *names, const char *suffix, uint64_t max_header,
             lade_tensors_t **self_p, lade_error_t *error)
{
    s_names_t files = {0};
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < names->count; i++)
        if (s_ends(names->names[i], suffix) && !s_is_variant(names, names->names[i], suffix))
            code = s_names_add(&files, lade_path_join(folder, names->names[i]), error);
    if (!code)
        code = s_open_all(&files, max_header, self_p, error);
    s_names_free(&files);
    return code;
}

// The first name with this ending that is not another's variant; NULL if there is none.
static const char *
s_first(const s_names_t *names, const char *suffix, const char *more)
{
    char tail[64];
    snprintf(tail, sizeof tail, "%s%s", suffix, more);
    for (size_t i = 0; i < names->count; i++)
        if (s_ends(names->names[i], tail) && !s_is_variant(names, names->names[i], tail))
            return names->names[i];
    return NULL;
}

static lade_code_t
s_open_folder(const char *folder, uint64_t max_header, lade_tensors_t **self_p, lade_error_t *error)
{
    s_names_t names = {0};
    lade_code_t code = s_list(folder, &names, error);
    bool found = false;
    for (size_t i = 0; !code && !found && i < S_SUFFIXES; i++) {
        const char *index = s_first(&names, s_suffixes[i], ".index.json");
        found = index || s_first(&names, s_suffixes[i], "");
        if (found)
            code = index ? s_open_index(folder, index, max_header, self_p, error)
                         : s_open_names(folder, &names, s_suffixes[i], max_header, self_p, error);
    }
    if (!code && !found)
        code = lade_error_set(error, LADE_NOT_FOUND, "%s holds no weight files", folder);
    s_names_free(&names);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// A GGUF file in parts: NAME-00001-of-00003.gguf

enum { S_PART_TAIL = 20 }; // "-00001-of-00003.gguf"

// How many parts a file's name says there are, 0 if it is no such name.
static unsigned
s_parts(const char *path)
{
    unsigned part, count;
    int end = 0;
    size_t len = strlen(s_last(path));
    if (len <= S_PART_TAIL ||
        sscanf(path + strlen(path) - S_PART_TAIL, "-%5u-of-%5u.gguf%n", &part, &count, &end) != 2 ||
        end != S_PART_TAIL || part == 0 || part > count)
        return 0;
    return count;
}

// Names say which files belong together, what is in them whether they do.
static lade_code_t
s_check_parts(const lade_tensors_t *self, unsigned count, lade_error_t *error)
{
    const json_t *parts = json_object_get(self->metadata, "split.count");
    const json_t *tensors = json_object_get(self->metadata, "split.tensors.count");
    if (json_integer_value(parts) != (json_int_t)count)
        return lade_error_set(
            error, LADE_CORRUPT, "%s is one of %u parts by its name, of %lld by its split.count",
            s_last(self->files[0].path), count, (long long)json_integer_value(parts));
    if (tensors && json_integer_value(tensors) != (json_int_t)self->count)
        return lade_error_set(error, LADE_CORRUPT,
                              "the %u parts of %s hold %zu tensors, not the %lld of "
                              "split.tensors.count",
                              count, s_last(self->files[0].path), self->count,
                              (long long)json_integer_value(tensors));
    return LADE_OK;
}

static lade_code_t
s_open_parts(const char *path, unsigned count, uint64_t max_header, lade_tensors_t **self_p,
             lade_error_t *error)
{
    s_names_t files = {0};
    lade_code_t code = LADE_OK;
    int stem = (int)(strlen(path) - S_PART_TAIL);
    for (unsigned i = 1; !code && i <= count; i++) {
        char *name = NULL;
        if (asprintf(&name, "%.*s-%05u-of-%05u.gguf", stem, path, i, count) < 0)
            name = NULL;
        code = s_names_add(&files, name, error);
    }
    if (!code)
        code = s_open_all(&files, max_header, self_p, error);
    if (!code && (code = s_check_parts(*self_p, count, error)))
        lade_tensors_destroy(self_p);
    s_names_free(&files);
    return code;
}

lade_code_t
lade_tensors_open_within(const char *path, uint64_t max_header, lade_tensors_t **self_p,
                         lade_error_t *error)
{
    struct stat st;
    *self_p = NULL;
    if (stat(path, &st) != 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    if (S_ISDIR(st.st_mode))
        return s_open_folder(path, max_header, self_p, error);
    unsigned parts = s_parts(path);
    return parts > 1 ? s_open_parts(path, parts, max_header, self_p, error)
                     : lade_tensors_open_files_within(&path, 1, max_header, self_p, error);
}

lade_code_t
lade_tensors_open(const char *path, lade_tensors_t **self_p, lade_error_t *error)
{
    return lade_tensors_open_within(path, LADE_TENSORS_HEADER, self_p, error);
}
