// Files of conversions, read and checked.
#include "workers/install/convert_rules.h"

#include "common/path.h"
#include "common/wire.h"
#include "common/yaml.h"
#include "workers/install/convert_data.h"

#include <dirent.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_FILE = 4 << 20, S_DIGEST = 32 };

struct lade_convert_rules {
    json_t *words, *maps, *configs; // by name
    json_t *kinds;                  // an array
    json_t *names;                  // of the maps below, an array
    lade_convert_map_t **compiled;
    char digest[S_DIGEST + 1];
    EVP_MD_CTX *hash;
};

// ---------------------------------------------------------------------------------------------------
// Reading

static lade_code_t
s_take_named(json_t *into, const json_t *from, const char *what, lade_error_t *error)
{
    if (from && !json_is_object(from))
        return lade_error_set(error, LADE_CONFIG_ERROR, "%s: a map of names", what);
    json_object_update_missing(into, (json_t *)from);
    return LADE_OK;
}

static lade_code_t
s_take(lade_convert_rules_t *self, const json_t *file, lade_error_t *error)
{
    static const char *const known[] = {"about", "words", "maps", "configs", "kinds"};
    const char *key;
    json_t *value;
    if (!json_is_object(file))
        return lade_error_set(error, LADE_CONFIG_ERROR, "a map with words, maps, configs or kinds");
    json_object_foreach((json_t *)file, key, value)
    {
        size_t at = 0, count = sizeof known / sizeof *known;
        while (at < count && strcmp(known[at], key) != 0)
            at++;
        if (at == count)
            return lade_error_set(error, LADE_CONFIG_ERROR, "there is no '%.60s' in such a file",
                                  key);
    }
    const json_t *kinds = json_object_get(file, "kinds");
    if (kinds && !json_is_array(kinds))
        return lade_error_set(error, LADE_CONFIG_ERROR, "kinds: a list");
    json_array_extend(self->kinds, (json_t *)kinds);
    lade_code_t code = s_take_named(self->words, json_object_get(file, "words"), "words", error);
    if (!code)
        code = s_take_named(self->maps, json_object_get(file, "maps"), "maps", error);
    if (!code)
        code = s_take_named(self->configs, json_object_get(file, "configs"), "configs", error);
    return code;
}

static lade_code_t
s_read(lade_convert_rules_t *self, const char *name, const char *text, size_t len,
       lade_error_t *error)
{
    json_t *file = NULL;
    EVP_DigestUpdate(self->hash, text, len);
    lade_code_t code = lade_yaml_parse(name, text, len, &file, NULL, error);
    if (!code && (code = s_take(self, file, error)))
        lade_error_wrap(error, "%s", name);
    json_decref(file);
    return code ? error->code = LADE_CONFIG_ERROR : LADE_OK;
}

static int
s_is_rules(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return len > 5 && entry->d_name[0] != '.' && !strcmp(entry->d_name + len - 5, ".yaml");
}

static lade_code_t
s_read_site(lade_convert_rules_t *self, const char *folder, lade_error_t *error)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, s_is_rules, alphasort);
    lade_code_t code = LADE_OK;
    if (count < 0)
        return lade_error_set(error, LADE_CONFIG_ERROR, "convert_dir: %s cannot be read", folder);
    for (int i = 0; i < count; i++) {
        char *path = lade_path_join(folder, entries[i]->d_name), *text = NULL;
        size_t len = 0;
        if (!code)
            code = lade_path_read(path, S_MAX_FILE, &text, &len, error);
        if (!code)
            code = s_read(self, path, text, len, error);
        free(text);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return code ? error->code = LADE_CONFIG_ERROR : LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Checking

// A text, or a list of texts.
static bool
s_is_texts(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!json_is_string(json_array_get(value, i)))
            return false;
    return json_is_string(value) || json_array_size(value);
}

static lade_code_t
s_check_part(const lade_convert_rules_t *self, const json_t *part, lade_error_t *error)
{
    const char *map = lade_json_text(part, "map", ""), *folder = lade_json_text(part, "folder", "");
    const char *config = lade_json_text(part, "config", "");
    if (!lade_convert_rules_map(self, map))
        return lade_error_set(error, LADE_CONFIG_ERROR, "a part's map: there is none '%.60s'", map);
    if (!json_is_object(json_object_get(self->configs, config)))
        return lade_error_set(error, LADE_CONFIG_ERROR, "a part's config: there is none '%.60s'",
                              config);
    if (strcmp(folder, ".") != 0 && lade_path_check_name(folder, error))
        return error->code = LADE_CONFIG_ERROR;
    if (lade_path_check_name(lade_json_text(part, "file", ""), error))
        return error->code = LADE_CONFIG_ERROR;
    return s_is_texts(json_object_get(part, "prefix"))
               ? LADE_OK
               : lade_error_set(error, LADE_CONFIG_ERROR, "a part's prefix: a text or several");
}

static lade_code_t
s_check_kind(const lade_convert_rules_t *self, const json_t *kind, lade_error_t *error)
{
    const json_t *parts = json_object_get(kind, "parts"), *files = json_object_get(kind, "files");
    const json_t *variant = json_object_get(kind, "variant");
    if (!s_is_texts(json_object_get(kind, "type")) || !s_is_texts(json_object_get(kind, "base")) ||
        !json_array_size(parts) || (files && !json_is_object(files)) ||
        (variant && !s_is_texts(variant)))
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "a kind has type, base, parts, and may have variant, files and ema");
    const char *path;
    json_t *config;
    json_object_foreach((json_t *)files, path, config)
    {
        if (lade_path_check_relative(path, error))
            return error->code = LADE_CONFIG_ERROR;
        if (!json_is_string(config) ||
            !json_is_object(json_object_get(self->configs, json_string_value(config))))
            return lade_error_set(error, LADE_CONFIG_ERROR, "%s: it is none of the configs", path);
    }
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < json_array_size(parts) && !code; i++)
        code = s_check_part(self, json_array_get(parts, i), error);
    return code;
}

static lade_code_t
s_compile(lade_convert_rules_t *self, lade_error_t *error)
{
    const char *name;
    json_t *map;
    self->compiled = calloc(json_object_size(self->maps) + 1, sizeof *self->compiled);
    if (!self->compiled)
        abort();
    json_object_foreach(self->maps, name, map)
    {
        size_t at = json_array_size(self->names);
        lade_code_t code =
            lade_convert_map_new(self->maps, self->words, name, &self->compiled[at], error);
        if (code)
            return code;
        json_array_append_new(self->names, json_string(name));
    }
    for (size_t i = 0; i < json_array_size(self->kinds); i++)
        if (s_check_kind(self, json_array_get(self->kinds, i), error))
            return lade_error_wrap(error, "kind %zu", i + 1);
    return LADE_OK;
}

static void
s_finish_digest(lade_convert_rules_t *self)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (!EVP_DigestFinal_ex(self->hash, digest, NULL))
        abort();
    for (size_t i = 0; i < S_DIGEST / 2; i++)
        snprintf(self->digest + 2 * i, 3, "%02x", digest[i]);
}

lade_code_t
lade_convert_rules_new(const char *site_folder, lade_convert_rules_t **self_p, lade_error_t *error)
{
    lade_convert_rules_t *self = calloc(1, sizeof *self);
    *self_p = NULL;
    if (!self)
        abort();
    self->words = json_object();
    self->maps = json_object();
    self->configs = json_object();
    self->kinds = json_array();
    self->names = json_array();
    self->hash = EVP_MD_CTX_new();
    if (!self->hash || !EVP_DigestInit_ex(self->hash, EVP_sha256(), NULL))
        abort();
    lade_code_t code =
        site_folder && *site_folder ? s_read_site(self, site_folder, error) : LADE_OK;
    for (const lade_families_file_t *file = lade_convert_data; !code && file->name; file++)
        code = s_read(self, file->name, file->text, file->len, error);
    if (!code && (code = s_compile(self, error)))
        lade_error_wrap(error, "conversions");
    s_finish_digest(self);
    if (code)
        lade_convert_rules_destroy(&self);
    *self_p = self;
    return code;
}

// ---------------------------------------------------------------------------------------------------

static bool
s_has(const json_t *texts, const char *text)
{
    if (json_is_string(texts))
        return !strcmp(json_string_value(texts), text);
    for (size_t i = 0; i < json_array_size(texts); i++)
        if (!strcmp(json_string_value(json_array_get(texts, i)), text))
            return true;
    return false;
}

const json_t *
lade_convert_rules_find(const lade_convert_rules_t *self, const json_t *record)
{
    if (strcmp(lade_json_text(record, "format", ""), "checkpoint") != 0)
        return NULL;
    for (size_t i = 0; i < json_array_size(self->kinds); i++) {
        const json_t *kind = json_array_get(self->kinds, i),
                     *variant = json_object_get(kind, "variant");
        if (s_has(json_object_get(kind, "type"), lade_json_text(record, "type", "")) &&
            s_has(json_object_get(kind, "base"), lade_json_text(record, "base", "")) &&
            (!variant || s_has(variant, lade_json_text(record, "variant", "normal"))))
            return kind;
    }
    return NULL;
}

const lade_convert_map_t *
lade_convert_rules_map(const lade_convert_rules_t *self, const char *name)
{
    for (size_t i = 0; i < json_array_size(self->names); i++)
        if (!strcmp(json_string_value(json_array_get(self->names, i)), name))
            return self->compiled[i];
    return NULL;
}

const json_t *
lade_convert_rules_config(const lade_convert_rules_t *self, const char *name)
{
    return json_object_get(self->configs, name);
}

const json_t *
lade_convert_rules_words(const lade_convert_rules_t *self)
{
    return self->words;
}

const char *
lade_convert_rules_digest(const lade_convert_rules_t *self)
{
    return self->digest;
}

void
lade_convert_rules_destroy(lade_convert_rules_t **self_p)
{
    lade_convert_rules_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; self->compiled && self->compiled[i]; i++)
        lade_convert_map_destroy(&self->compiled[i]);
    free(self->compiled);
    json_decref(self->words);
    json_decref(self->maps);
    json_decref(self->configs);
    json_decref(self->kinds);
    json_decref(self->names);
    EVP_MD_CTX_free(self->hash);
    free(self);
    *self_p = NULL;
}
