// The registry and the loaders that ship.
#include "workers/gpu/loaders.h"

#include "common/formats/json_file.h"
#include "common/path.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static lade_code_t s_weights(const lade_loader_request_t *, lade_files_t *, lade_error_t *);
static lade_code_t s_pipeline(const lade_loader_request_t *, lade_files_t *, lade_error_t *);

const lade_loader_t lade_loaders_host[] = {
    // clang-format off
    // base   type          format              what to read
    {"any",   "main",       "diffusers",        s_pipeline},
    {"any",   "main",       "checkpoint",       s_weights},
    {"any",   "vae",        "diffusers",        s_weights},
    {"any",   "vae",        "checkpoint",       s_weights},
    {"any",   "controlnet", "diffusers",        s_weights},
    {"any",   "controlnet", "checkpoint",       s_weights},
    {"any",   "lora",       "diffusers",        s_weights},
    {"any",   "lora",       "lycoris",          s_weights},
    {"any",   "embedding",  "embedding_file",   s_weights},
    {"any",   "embedding",  "embedding_folder", s_weights},
    {0},
    // clang-format on
};

struct lade_loaders {
    const lade_loader_t *rows;
};

static bool
s_is_row(const lade_loader_t *row, const char *base, const char *type, const char *format)
{
    return !strcmp(row->base, base) && !strcmp(row->type, type) && !strcmp(row->format, format);
}

lade_code_t
lade_loaders_new(const lade_loader_t *rows, lade_loaders_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    for (const lade_loader_t *row = rows; row->base; row++)
        for (const lade_loader_t *other = rows; other < row; other++)
            if (s_is_row(other, row->base, row->type, row->format))
                return lade_error_set(error, LADE_CONFIG_ERROR,
                                      "two loaders are registered for base=%s, type=%s, format=%s",
                                      row->base, row->type, row->format);
    lade_loaders_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->rows = rows;
    *self_p = self;
    return LADE_OK;
}

void
lade_loaders_destroy(lade_loaders_t **self_p)
{
    free(*self_p);
    *self_p = NULL;
}

lade_code_t
lade_loaders_find(const lade_loaders_t *self, const char *base, const char *type,
                  const char *format, const lade_loader_t **row_p, lade_error_t *error)
{
    const char *bases[] = {base, "any"};
    for (size_t i = 0; i < 2; i++)
        for (const lade_loader_t *row = self->rows; row->base; row++)
            if (s_is_row(row, bases[i], type, format)) {
                *row_p = row;
                return LADE_OK;
            }
    return lade_error_set(error, LADE_NOT_IMPLEMENTED,
                          "no loader is registered for base=%s, type=%s, format=%s", base, type,
                          format);
}

// ---------------------------------------------------------------------------------------------------
// The loaders

static bool
s_is_folder(const char *path)
{
    struct stat status;
    return !stat(path, &status) && S_ISDIR(status.st_mode);
}

static lade_code_t
s_add_folder(const lade_loader_request_t *request, const char *folder, lade_files_t *files,
             lade_error_t *error)
{
    lade_code_t code = lade_folder_weights(folder, request->variant, files, error);
    if (!code && !files->count)
        code = lade_error_set(error, LADE_MODEL_NOT_FOUND,
                              "files for model '%s' not found: %s holds no weights", request->name,
                              folder);
    return code;
}

// A model of one part: a file, or the weights of a folder.
static lade_code_t
s_weights(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    if (request->submodel)
        return lade_error_set(
            error, LADE_VALUE_ERROR,
            "model '%s' is no pipeline folder and has no submodel '%s': load it whole",
            request->name, request->submodel);
    if (s_is_folder(request->path))
        return s_add_folder(request, request->path, files, error);
    char *folder = lade_path_folder(request->path), *name = lade_path_name(request->path);
    lade_code_t code = lade_files_add(files, folder, name, error);
    free(folder);
    free(name);
    return code;
}

// True for an entry of model_index.json that is a part: ["library", "class"], not [null, null],
// with its folder there.
static bool
s_is_part(const lade_loader_request_t *request, const char *name, const json_t *entry)
{
    if (name[0] == '_' || !json_is_string(json_array_get(entry, 0)) ||
        !json_is_string(json_array_get(entry, 1)))
        return false;
    if (lade_path_check_name(name, NULL))
        return false;
    char *folder = lade_path_join(request->path, name);
    bool there = s_is_folder(folder);
    free(folder);
    return there;
}

// The sentence that refuses a submodel lists those that are there.
static lade_code_t
s_refuse_submodel(const lade_loader_request_t *request, json_t *index, lade_error_t *error)
{
    lade_buf_t list = LADE_BUF(300);
    const char *name;
    json_t *entry;
    json_object_foreach(index, name, entry) if (s_is_part(request, name, entry))(void)
        lade_buf_addf(&list, NULL, "%s%s", list.len ? ", " : "", name); // over the ceiling: cut
    lade_code_t code =
        request->submodel
            ? lade_error_set(error, LADE_VALUE_ERROR, "model '%s' has no submodel '%s'; it has: %s",
                             request->name, request->submodel, lade_buf_text(&list))
            : lade_error_set(error, LADE_VALUE_ERROR,
                             "model '%s' is a pipeline: a submodel is mandatory, one of: %s",
                             request->name, lade_buf_text(&list));
    lade_buf_free(&list);
    return code;
}

// Parts that are settings and vocabularies; they are loaded as segments without tensors.
static bool
s_has_no_weights(const char *submodel)
{
    static const char *const words[] = {"scheduler", "tokenizer", "extractor", "processor"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(submodel, words[i]))
            return true;
    return false;
}

static lade_code_t
s_add_submodel(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    char *folder = lade_path_join(request->path, request->submodel);
    lade_code_t code = s_has_no_weights(request->submodel)
                           ? lade_folder_weights(folder, request->variant, files, error)
                           : s_add_folder(request, folder, files, error);
    free(folder);
    return code;
}

// A pipeline folder: one part of it, which has to be named.
static lade_code_t
s_pipeline(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    json_t *index = NULL;
    char *path = lade_path_join(request->path, "model_index.json");
    lade_code_t code = lade_json_file_read(path, LADE_JSON_FILE_MAX_CONFIG, &index, error);
    free(path);
    if (code == LADE_NOT_FOUND)
        code = lade_error_set(error, LADE_MODEL_NOT_FOUND,
                              "files for model '%s' not found: no model_index.json at %s",
                              request->name, request->path);
    if (!code) {
        const char *name = request->submodel;
        bool known = name && s_is_part(request, name, json_object_get(index, name));
        code = known ? s_add_submodel(request, files, error)
                     : s_refuse_submodel(request, index, error);
    }
    json_decref(index);
    return code;
}

// ---------------------------------------------------------------------------------------------------

// The record's path as an absolute one; *path_p is yours.
static lade_code_t
s_resolve(const char *path, const char *models_dir, char **path_p, lade_error_t *error)
{
    *path_p = NULL;
    if (!*path)
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "path: the record has none");
    if (*path != '/' && lade_path_check_relative(path, error))
        return lade_error_wrap(error, "path");
    *path_p = *path == '/' ? strdup(path) : lade_path_join(models_dir, path);
    return *path_p ? LADE_OK : lade_error_set(error, LADE_NO_MEMORY, "no memory for a path");
}

lade_code_t
lade_loaders_files(const lade_loaders_t *self, const json_t *record, const char *submodel,
                   const char *models_dir, lade_files_t *files, lade_error_t *error)
{
    const lade_loader_t *row = NULL;
    struct stat status;
    char *path = NULL;
    lade_code_t code = lade_loaders_find(self, lade_json_text(record, "base", "?"),
                                         lade_json_text(record, "type", "?"),
                                         lade_json_text(record, "format", "?"), &row, error);
    if (!code)
        code = s_resolve(lade_json_text(record, "path", ""), models_dir, &path, error);
    const char *name = lade_json_text(record, "name", lade_json_text(record, "key", "?"));
    if (!code && stat(path, &status))
        code = lade_error_set(error, LADE_MODEL_NOT_FOUND, "files for model '%s' not found at %s",
                              name, path);
    if (!code) {
        lade_loader_request_t request = {name, path, submodel,
                                         lade_json_text(record, "repo_variant", "")};
        code = row->files(&request, files, error);
    }
    if (code)
        lade_files_free(files);
    free(path);
    return code;
}
