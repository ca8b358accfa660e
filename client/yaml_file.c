// The file database: records as YAML that people edit, and back.
//
//     __metadata__:
//       version: "3.2"
//
//     KEY:
//       name: …
#include "client/transfer.h"
#include "common/record.h"
#include "common/wire.h"
#include "common/yaml.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define S_HEADER "__metadata__"
#define S_VERSION "3.2"
#define S_ABOUT                                                                                    \
    "# Model records of lade, one below its key. `lade import-yaml` takes them up; it says what "  \
    "is\n"                                                                                         \
    "# wrong with a line, and changes nothing unless all of it is right.\n"

// ---------------------------------------------------------------------------------------------------
// Out

// What people look for comes first, what lade keeps for itself last; between them by name.
static const char *const s_first[] = {"name",
                                      "type",
                                      "base",
                                      "bases",
                                      "format",
                                      "variant",
                                      "description",
                                      "path",
                                      "prediction_type",
                                      "repo_variant",
                                      "tags",
                                      "trigger_phrases",
                                      "default_settings",
                                      "source",
                                      "source_type",
                                      "source_url",
                                      "hash",
                                      "file_size"};
static const char *const s_last[] = {"source_api_response", "submodels", "created_at", "updated_at",
                                     "version"};
enum { S_FIRST = sizeof s_first / sizeof *s_first, S_LAST = sizeof s_last / sizeof *s_last };

static size_t
s_rank(const char *key)
{
    for (size_t i = 0; i < S_FIRST; i++)
        if (strcmp(s_first[i], key) == 0)
            return i;
    for (size_t i = 0; i < S_LAST; i++)
        if (strcmp(s_last[i], key) == 0)
            return S_FIRST + 1 + i;
    return S_FIRST;
}

static int
s_order(const void *a, const void *b)
{
    const char *one = *(const char *const *)a, *other = *(const char *const *)b;
    size_t first = s_rank(one), second = s_rank(other);
    return first != second ? (first < second ? -1 : 1) : strcmp(one, other);
}

static json_t *
s_sorted(const json_t *record)
{
    size_t count = 0, size = json_object_size(record);
    const char **keys = malloc((size + 1) * sizeof *keys), *key;
    json_t *value, *sorted = json_object();
    if (!keys)
        abort();
    json_object_foreach((json_t *)record, key, value) if (strcmp(key, "key") != 0) keys[count++] =
        key;
    qsort(keys, count, sizeof *keys, s_order);
    for (size_t i = 0; i < count; i++)
        json_object_set_nocheck(sorted, keys[i], json_object_get(record, keys[i]));
    free(keys);
    return sorted;
}

static lade_code_t
s_write_one(const char *key, json_t *value, lade_buf_t *text, lade_error_t *error)
{
    json_t *map = json_object();
    json_object_set_new_nocheck(map, key, value);
    lade_code_t code = lade_yaml_write(map, text, error);
    json_decref(map);
    return code ? lade_error_wrap(error, "model %s", key) : LADE_OK;
}

lade_code_t
lade_export_yaml(lade_t *self, char **text_p, lade_error_t *error)
{
    json_t *all = NULL;
    lade_buf_t text = LADE_BUF(LADE_YAML_MAX_BYTES);
    *text_p = NULL;
    lade_code_t code = lade_transfer_all(self, &all, error);
    if (!code)
        code = lade_buf_addf(&text, error, "%s", S_ABOUT);
    if (!code)
        code = s_write_one(S_HEADER, json_pack("{s:s}", "version", S_VERSION), &text, error);
    for (size_t i = 0; i < json_array_size(all) && !code; i++) {
        const json_t *record = json_array_get(all, i);
        code = lade_buf_add(&text, "\n", 1, error);
        if (!code)
            code = s_write_one(lade_json_text(record, "key", ""), s_sorted(record), &text, error);
    }
    json_decref(all);
    if (!code)
        *text_p = lade_buf_take(&text);
    lade_buf_free(&text);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// In

static lade_code_t
s_check_header(const char *file, const json_t *map, const json_t *lines, lade_error_t *error)
{
    const json_t *version = json_object_get(json_object_get(map, S_HEADER), "version");
    char text[32] = "";
    if (json_is_string(version))
        snprintf(text, sizeof text, "%s", json_string_value(version));
    else if (json_is_number(version))
        snprintf(text, sizeof text, "%g", json_number_value(version));
    if (strcmp(text, S_VERSION) == 0)
        return LADE_OK;
    if (!json_is_object(map) || !json_object_get(map, S_HEADER))
        return lade_error_set(error, LADE_CORRUPT,
                              "%s:1: this is no file of model records: it has no " S_HEADER
                              " with a version (`lade export-yaml` writes one)",
                              file);
    if (strncmp(text, "3.0", 3) == 0)
        return lade_error_set(
            error, LADE_CORRUPT,
            "%s:%" PRId64 ": this is a models.yaml of InvokeAI: `lade import-invokeai ROOT` reads "
            "it, with ROOT the folder above its configs",
            file, lade_yaml_line(lines, S_HEADER, "version"));
    return lade_error_set(error, LADE_CORRUPT,
                          "%s:%" PRId64 ": version '%s' of the file is not known, only " S_VERSION,
                          file, lade_yaml_line(lines, S_HEADER, "version"), text);
}

// The sentence about a field begins with its name.
static int64_t
s_line(const json_t *lines, const char *key, const char *message)
{
    char field[65];
    snprintf(field, sizeof field, "%.*s", (int)strcspn(message, ": "), message);
    return lade_yaml_line(lines, key, field);
}

static lade_code_t
s_check_record(const char *file, const json_t *lines, const char *key, json_t *record,
               lade_error_t *error)
{
    if (!json_is_object(record))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "%s:%" PRId64 ": model %.80s: a map of fields is needed", file,
                              lade_yaml_line(lines, key, NULL), key);
    const char *inner = json_string_value(json_object_get(record, "key"));
    if (json_object_get(record, "key") && (!inner || strcmp(inner, key) != 0))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "%s:%" PRId64
                              ": model %.80s: its key stands above it; it has no other",
                              file, lade_yaml_line(lines, key, "key"), key);
    json_t *checked = json_deep_copy(record);
    const char *name;
    json_t *value;
    void *next;
    json_object_set_new(checked, "key", json_string(key));
    lade_record_canonical(checked);
    json_object_foreach_safe(checked, next, name, value) if (json_is_null(value))
        json_object_del(checked, name);
    lade_code_t code = lade_record_check(checked, error);
    json_decref(checked);
    if (code) {
        int64_t line = s_line(lines, key, error->message);
        lade_error_wrap(error, "%s:%" PRId64 ": model %.80s", file, line, key);
    }
    return code;
}

static lade_code_t
s_read(const char *file, json_t **models_p, json_t **lines_p, lade_error_t *error)
{
    json_t *map = NULL, *models = json_array(), *value;
    const char *key;
    lade_code_t code = lade_yaml_read(file, &map, lines_p, error);
    const char *name = strcmp(file, "-") == 0 ? "standard input" : file;
    if (!code)
        code = s_check_header(name, map, *lines_p, error);
    json_object_foreach(map, key, value)
    {
        if (code || strcmp(key, S_HEADER) == 0)
            continue;
        code = s_check_record(name, *lines_p, key, value, error);
        json_t *model = code ? NULL : json_deep_copy(value);
        if (code)
            continue;
        json_object_set_new(model, "key", json_string(key));
        json_array_append_new(models, model);
    }
    json_decref(map);
    if (code) {
        json_decref(models);
        models = NULL;
    }
    *models_p = models;
    return code;
}

// What a dry run found: the first that failed, with its line.
static lade_code_t
s_first_failed(const char *file, const json_t *said, const json_t *lines, lade_error_t *error)
{
    const json_t *list = json_object_get(said, "models");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i), *why = json_object_get(one, "error");
        const char *key = lade_json_text(one, "key", "");
        if (!why)
            continue;
        int64_t failed = lade_json_int(said, "failed", 0);
        char more[64] = "";
        if (failed > 1)
            snprintf(more, sizeof more, " (and %" PRId64 " more)", failed - 1);
        return lade_error_set(error, lade_code_find(lade_json_text(why, "code", "")),
                              "%s:%" PRId64 ": %s%s; nothing was imported",
                              strcmp(file, "-") == 0 ? "standard input" : file,
                              lade_yaml_line(lines, key, NULL),
                              lade_json_text(why, "message", "it is refused"), more);
    }
    return LADE_OK;
}

lade_code_t
lade_import_yaml(lade_t *self, const char *file, const char *on_conflict, bool parts, bool dry_run,
                 char **result_p, lade_error_t *error)
{
    json_t *models = NULL, *lines = NULL, *said = NULL;
    if (result_p)
        *result_p = NULL;
    lade_code_t code = s_read(file, &models, &lines, error);
    // What is wrong is found out with its line first; the second call is all or nothing by itself.
    if (!code)
        code = lade_transfer_import(self, models, on_conflict ? on_conflict : "fail", true, true,
                                    parts, &said, error);
    if (!code)
        code = s_first_failed(file, said, lines, error);
    if (!code && !dry_run) {
        json_decref(said);
        said = NULL;
        code = lade_transfer_import(self, models, on_conflict ? on_conflict : "fail", false, false,
                                    parts, &said, error);
    }
    if (!code && result_p)
        *result_p = lade_request_text(said);
    json_decref(models);
    json_decref(lines);
    json_decref(said);
    return code;
}
