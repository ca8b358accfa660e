// The registry and the loaders that ship.
#include "workers/gpu/loaders.h"

#include "common/formats/json_file.h"
#include "common/path.h"
#include "common/record.h"
#include "common/wire.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { S_PART_TAIL = 20 }; // "-00001-of-00003.gguf"

typedef lade_code_t s_files_t(const lade_loader_request_t *, lade_files_t *, lade_error_t *);
static s_files_t s_weights, s_pipeline, s_whole_or_pipeline, s_transformer, s_encoder, s_onnx,
    s_external;

static const char s_text[] = "text_encoder tokenizer", s_text_2[] = "text_encoder_2 tokenizer_2";

const lade_loader_t lade_loaders_host[] =
    {
        // clang-format off
    // base           type                        format                what to read          its parts
    {"any",           "main",                     "diffusers",          s_pipeline,           NULL},
    {"any",           "main",                     "checkpoint",         s_transformer,        "transformer"},
    {"sd-1",          "main",                     "checkpoint",         s_weights,            NULL},
    {"sd-2",          "main",                     "checkpoint",         s_weights,            NULL},
    {"sdxl",          "main",                     "checkpoint",         s_weights,            NULL},
    {"sdxl-refiner",  "main",                     "checkpoint",         s_weights,            NULL},
    {"any",           "main",                     "bnb_quantized_nf4b", s_transformer,        "transformer"},
    {"any",           "main",                     "gguf_quantized",     s_transformer,        "transformer"},
    {"any",           "main",                     "sdnq_quantized",     s_whole_or_pipeline,  "transformer"},
    {"any",           "onnx",                     "onnx",               s_onnx,               NULL},
    {"any",           "onnx",                     "olive",              s_onnx,               NULL},
    {"any",           "vae",                      "diffusers",          s_weights,            NULL},
    {"any",           "vae",                      "checkpoint",         s_weights,            NULL},
    {"any",           "controlnet",               "diffusers",          s_weights,            NULL},
    {"any",           "controlnet",               "checkpoint",         s_weights,            NULL},
    {"any",           "lora",                     "diffusers",          s_weights,            NULL},
    {"any",           "lora",                     "lycoris",            s_weights,            NULL},
    {"any",           "lora",                     "omi",                s_weights,            NULL},
    {"any",           "control_lora",             "diffusers",          s_weights,            NULL},
    {"any",           "control_lora",             "lycoris",            s_weights,            NULL},
    {"any",           "embedding",                "embedding_file",     s_weights,            NULL},
    {"any",           "embedding",                "embedding_folder",   s_weights,            NULL},
    {"any",           "ip_adapter",               "invokeai",           s_weights,            NULL},
    {"any",           "ip_adapter",               "checkpoint",         s_weights,            NULL},
    {"any",           "clip_vision",              "diffusers",          s_weights,            NULL},
    {"any",           "t2i_adapter",              "diffusers",          s_weights,            NULL},
    {"any",           "siglip",                   "diffusers",          s_weights,            NULL},
    {"any",           "llava_onevision",          "diffusers",          s_weights,            NULL},
    {"any",           "prompt_enhancer",          "diffusers",          s_weights,            NULL},
    {"any",           "text_llm",                 "diffusers",          s_weights,            NULL},
    {"any",           "flux_redux",               "checkpoint",         s_weights,            NULL},
    {"any",           "pid_decoder",              "checkpoint",         s_weights,            NULL},
    {"any",           "spandrel_image_to_image",  "checkpoint",         s_weights,            NULL},
    {"any",           "clip_embed",               "diffusers",          s_encoder,            s_text},
    {"any",           "t5_encoder",               "t5_encoder",         s_encoder,            s_text_2},
    {"any",           "t5_encoder",               "bnb_quantized_int8b",s_encoder,            s_text_2},
    {"any",           "t5_encoder",               "gguf_quantized",     s_encoder,            s_text_2},
    {"any",           "t5_encoder",               "sdnq_quantized",     s_encoder,            s_text_2},
    {"any",           "qwen3_encoder",            "qwen3_encoder",      s_encoder,            s_text},
    {"any",           "qwen3_encoder",            "checkpoint",         s_encoder,            s_text},
    {"any",           "qwen3_encoder",            "gguf_quantized",     s_encoder,            s_text},
    {"any",           "qwen3_encoder",            "sdnq_quantized",     s_encoder,            s_text},
    {"any",           "qwen_vl_encoder",          "qwen_vl_encoder",    s_encoder,            s_text},
    {"any",           "qwen_vl_encoder",          "checkpoint",         s_encoder,            s_text},
    {"any",           "qwen3_vl_encoder",         "qwen3_vl_encoder",   s_encoder,            s_text},
    {"any",           "qwen3_vl_encoder",         "checkpoint",         s_encoder,            s_text},
    {"any",           "mistral_encoder",          "mistral_encoder",    s_encoder,            s_text},
    {"any",           "mistral_encoder",          "checkpoint",         s_encoder,            s_text},
    {"any",           "mistral_encoder",          "gguf_quantized",     s_encoder,            s_text},
    {"any",           "wan_t5_encoder",           "wan_t5_encoder",     s_encoder,            s_text},
    {"any",           "gemma2_encoder",           "gemma2_encoder",     s_encoder,            s_text},
    {"any",           "gemma2_encoder",           "gguf_quantized",     s_encoder,            s_text},
    {"any",           "external_image_generator", "external_api",       s_external,           NULL},
    {"any",           "path",                     "path",               s_weights,            NULL}, // of no record
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
                          "no loader is registered for base=%s, type=%s, format=%s; if it is "
                          "something else, correct the record",
                          base, type, format);
}

// ---------------------------------------------------------------------------------------------------
// The loaders

static bool
s_is_folder(const char *path)
{
    struct stat status;
    return !stat(path, &status) && S_ISDIR(status.st_mode);
}

// Where a submodel is said to be: by the record, else below the model, under its own name. You free
// it.
static char *
s_part_path(const json_t *record, const char *path, const char *submodel)
{
    const json_t *parts = json_object_get(record, "submodels");
    const char *there = lade_json_text(json_object_get(parts, submodel), "path_or_prefix", "");
    if (*there == '/')
        return strdup(there);
    bool below = *there && !lade_path_check_relative(there, NULL);
    return lade_path_join(path, below ? there : submodel);
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

// A file, with the other parts of one in parts.
static lade_code_t
s_add_file(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    char *folder = lade_path_folder(request->path), *name = lade_path_name(request->path);
    unsigned part, count;
    int stem = 0, end = 0;
    const char *dash = strlen(name) > S_PART_TAIL ? name + strlen(name) - S_PART_TAIL : "";
    lade_code_t code = LADE_OK;
    if (sscanf(dash, "-%5u-of-%5u.gguf%n", &part, &count, &end) == 2 && end == S_PART_TAIL &&
        count && count <= LADE_FILES_MAX)
        stem = (int)(dash - name);
    for (unsigned i = 1; !code && stem && i <= count; i++) {
        char *sibling = NULL;
        if (asprintf(&sibling, "%.*s-%05u-of-%05u.gguf", stem, name, i, count) < 0)
            abort();
        code = lade_files_add(files, folder, sibling, error);
        free(sibling);
    }
    if (!stem)
        code = lade_files_add(files, folder, name, error);
    free(folder);
    free(name);
    return code;
}

static lade_code_t
s_add_path(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    return s_is_folder(request->path) ? s_add_folder(request, request->path, files, error)
                                      : s_add_file(request, files, error);
}

// A model of one part: a file, or the weights of a folder.
static lade_code_t
s_weights(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    if (request->submodel)
        return lade_error_set(
            error, LADE_VALUE_ERROR,
            "model '%s' is no pipeline folder and has no submodel '%s': load it without one",
            request->name, request->submodel);
    return s_add_path(request, files, error);
}

// True if the row's list of parts has the submodel asked for.
static bool
s_names_part(const lade_loader_request_t *request)
{
    size_t len = strlen(request->submodel);
    for (const char *at = request->parts; (at = strstr(at, request->submodel)); at += len)
        if ((at == request->parts || at[-1] == ' ') && (!at[len] || at[len] == ' '))
            return true;
    return false;
}

static lade_code_t
s_refuse_part(const lade_loader_request_t *request, lade_error_t *error)
{
    lade_buf_t list = LADE_BUF(300);
    for (const char *at = request->parts; *at; at += strspn(at, " ")) {
        int len = (int)strcspn(at, " ");
        lade_buf_addf(&list, NULL, "%s%.*s", list.len ? ", " : "", len, at);
        at += len;
    }
    lade_code_t code =
        request->submodel
            ? lade_error_set(error, LADE_VALUE_ERROR, "model '%s' has no submodel '%s'; it has: %s",
                             request->name, request->submodel, lade_buf_text(&list))
            : lade_error_set(error, LADE_VALUE_ERROR,
                             "model '%s' has parts: a submodel is mandatory, one of: %s",
                             request->name, lade_buf_text(&list));
    lade_buf_free(&list);
    return code;
}

// A file that is one part of a pipeline, the others being elsewhere: the part may be named.
static lade_code_t
s_transformer(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    if (request->submodel && !s_names_part(request))
        return s_refuse_part(request, error);
    return s_add_path(request, files, error);
}

// Serves nothing: somebody else runs it.
static lade_code_t
s_external(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    (void)files;
    return lade_error_set(error, LADE_VALUE_ERROR,
                          "model '%s' is an interface of the network: there is nothing to load",
                          request->name);
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
    char *folder = s_part_path(request->record, request->path, name);
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
    char *folder = s_part_path(request->record, request->path, request->submodel);
    lade_code_t code = s_has_no_weights(request->submodel)
                           ? lade_folder_weights(folder, request->variant, files, error)
                           : s_add_folder(request, folder, files, error);
    free(folder);
    return code;
}

// A pipeline folder: one part of it, which has to be named.
static lade_code_t
s_part(const lade_loader_request_t *request, s_files_t *add, lade_files_t *files,
       lade_error_t *error)
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
        code = known ? add(request, files, error) : s_refuse_submodel(request, index, error);
    }
    json_decref(index);
    return code;
}

static lade_code_t
s_pipeline(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    return s_part(request, s_add_submodel, files, error);
}

static bool
s_is_pipeline(const char *folder)
{
    char *path = lade_path_join(folder, "model_index.json");
    bool is = !access(path, F_OK);
    free(path);
    return is;
}

static lade_code_t
s_whole_or_pipeline(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    return s_is_pipeline(request->path) ? s_pipeline(request, files, error)
                                        : s_transformer(request, files, error);
}

// A text encoder and its tokenizer: a folder of both, a folder that is the encoder's, or its file.
static lade_code_t
s_encoder(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    if (!request->submodel || !s_names_part(request))
        return s_refuse_part(request, error);
    char *folder = s_part_path(request->record, request->path, request->submodel);
    bool apart = s_is_folder(folder);
    free(folder);
    if (apart)
        return s_add_submodel(request, files, error);
    return s_has_no_weights(request->submodel) ? LADE_OK : s_add_path(request, files, error);
}

// ---------------------------------------------------------------------------------------------------
// ONNX: a graph is taken as the file it is; what its weights are in besides, its reader knows.

// "model.onnx", else the first by name.
static lade_code_t
s_add_graph(const lade_loader_request_t *request, const char *folder, lade_files_t *files,
            lade_error_t *error)
{
    char best[256] = "";
    DIR *dir = opendir(folder);
    if (!dir)
        return lade_error_errno(error, errno, "cannot read %s", folder);
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);
        bool graph = len > 5 && !strcmp(entry->d_name + len - 5, ".onnx");
        bool first = !*best || !strcmp(entry->d_name, "model.onnx") ||
                     (strcmp(best, "model.onnx") && strcmp(entry->d_name, best) < 0);
        if (graph && first)
            snprintf(best, sizeof best, "%s", entry->d_name);
    }
    closedir(dir);
    return *best ? lade_files_add(files, folder, best, error)
                 : lade_error_set(error, LADE_MODEL_NOT_FOUND,
                                  "files for model '%s' not found: %s holds no .onnx file",
                                  request->name, folder);
}

static lade_code_t
s_add_onnx_part(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    if (s_has_no_weights(request->submodel))
        return LADE_OK;
    char *folder = s_part_path(request->record, request->path, request->submodel);
    lade_code_t code = s_add_graph(request, folder, files, error);
    free(folder);
    return code;
}

static lade_code_t
s_onnx(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    if (s_is_pipeline(request->path))
        return s_part(request, s_add_onnx_part, files, error);
    if (request->submodel)
        return s_weights(request, files, error);
    return s_is_folder(request->path) ? s_add_graph(request, request->path, files, error)
                                      : s_add_file(request, files, error);
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

// A submodel that the record places elsewhere, whatever the model itself is made of: a folder, or
// a file.
static lade_code_t
s_placed(const lade_loader_request_t *request, s_files_t *own, lade_files_t *files,
         lade_error_t *error)
{
    struct stat status;
    if (stat(request->path, &status))
        return lade_error_set(
            error, LADE_MODEL_NOT_FOUND,
            "files for model '%s' not found: its record says that its %s is at %s", request->name,
            request->submodel, request->path);
    if (s_has_no_weights(request->submodel))
        return LADE_OK;
    return own == s_onnx && S_ISDIR(status.st_mode)
               ? s_add_graph(request, request->path, files, error)
               : s_add_path(request, files, error);
}

// The variant of a submodel's files, where the record has one for it; else of all.
static const char *
s_variant(const json_t *record, const char *submodel)
{
    const json_t *part = json_object_get(json_object_get(record, "submodels"), submodel);
    const char *variant = submodel ? lade_json_text(part, "variant", NULL) : NULL;
    return variant && lade_enum_has(LADE_ENUM_REPO_VARIANT, variant)
               ? variant
               : lade_json_text(record, "repo_variant", "");
}

bool
lade_loaders_places(const json_t *record, const char *submodel)
{
    const json_t *part = json_object_get(json_object_get(record, "submodels"), submodel);
    return submodel && lade_json_text(part, "path_or_prefix", "")[0] == '/';
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
        lade_loader_request_t request = {name,       path,  submodel, s_variant(record, submodel),
                                         row->parts, record};
        bool placed = lade_loaders_places(record, submodel);
        char *part = placed ? s_part_path(record, path, submodel) : NULL;
        request.path = placed ? part : path;
        code = placed ? s_placed(&request, row->files, files, error)
                      : row->files(&request, files, error);
        free(part);
    }
    if (code)
        lade_files_free(files);
    free(path);
    return code;
}

char *
lade_loaders_path(const json_t *record, const char *submodel, const char *models_dir)
{
    char *path = NULL;
    if (s_resolve(lade_json_text(record, "path", ""), models_dir, &path, NULL) || !submodel)
        return path;
    char *part = s_part_path(record, path, submodel);
    bool there = lade_loaders_places(record, submodel) || s_is_folder(part);
    free(there ? path : part);
    return there ? part : path;
}
