// An InvokeAI installation: where its things are, its models.yaml, its database, and what becomes
// of each model. Everything in it is only read.
#include "client/sqlite.h"
#include "client/transfer.h"
#include "common/hash.h"
#include "common/identify/identify.h"
#include "common/path.h"
#include "common/record.h"
#include "common/wire.h"
#include "common/yaml.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    char *root;
    char *models_dir, *database, *models_yaml, *configs; // absolute
    const lade_config_t *config;
    json_t *entries; // {"name", "path", "from", "outcome", "key"?, "error"?}, one for each model
    json_t *models;  // records to hand over
    json_t *places;  // of each, its entry
} s_import_t;

// ---------------------------------------------------------------------------------------------------
// invokeai.yaml: flat, or in sections below InvokeAI

static const char *
s_setting(const json_t *map, const char *name, int depth)
{
    const char *key, *found = json_string_value(json_object_get(map, name));
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        if (!found && depth < 2 && json_is_object(value))
            found = s_setting(value, name, depth + 1);
    }
    return found;
}

static char *
s_below(const char *root, const char *path)
{
    return *path == '/' ? strdup(path) : lade_path_join(root, path);
}

static char *
s_place(const s_import_t *self, const json_t *settings, const char *name, const char *preset,
        const char *file)
{
    const char *set = s_setting(settings, name, 0);
    char *place = s_below(self->root, set && *set ? set : preset);
    if (!file)
        return place;
    char *whole = lade_path_join(place, file);
    free(place);
    return whole;
}

static lade_code_t
s_find(s_import_t *self, lade_error_t *error)
{
    json_t *settings = NULL;
    char *file = lade_path_join(self->root, "invokeai.yaml");
    lade_code_t code =
        access(file, F_OK) == 0 ? lade_yaml_read(file, &settings, NULL, error) : LADE_OK;
    self->models_dir = s_place(self, settings, "models_dir", "models", NULL);
    self->database = s_place(self, settings, "db_dir", "databases", "invokeai.db");
    self->models_yaml = s_place(self, settings, "conf_path", "configs/models.yaml", NULL);
    self->configs = s_place(self, settings, "legacy_conf_dir", "configs", NULL);
    if (!code && access(self->database, F_OK) != 0 && access(self->models_yaml, F_OK) != 0)
        code = lade_error_set(error, LADE_NOT_FOUND,
                              "%s is no InvokeAI installation: there is neither %s nor %s",
                              self->root, self->database, self->models_yaml);
    json_decref(settings);
    free(file);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// What becomes of a model

static json_t *
s_text(const char *text)
{
    return text ? json_stringn_nocheck(text, strlen(text)) : json_null();
}

static json_t *
s_new_entry(s_import_t *self, const char *from, const char *name, const char *path)
{
    json_t *entry =
        json_pack("{s:o, s:o, s:s}", "name", s_text(name), "path", s_text(path), "from", from);
    json_array_append_new(self->entries, entry);
    return entry;
}

static void
s_fail(json_t *entry, const lade_error_t *why)
{
    json_object_set_new(entry, "outcome", json_string("failed"));
    json_object_set_new(entry, "error",
                        json_pack("{s:s, s:o}", "code", lade_code_name(why->code), "message",
                                  s_text(why->message)));
}

static void
s_hand_over(s_import_t *self, json_t *entry, json_t *record)
{
    json_array_append_new(self->models, record);
    json_array_append(self->places, entry);
}

// A path of theirs as an absolute one: below the models folder, or as files of version 3 have it,
// below the root. NULL if nothing is there.
static char *
s_there(const s_import_t *self, const char *path)
{
    const char *const folders[] = {self->models_dir, self->root};
    for (size_t i = 0; i < 2; i++) {
        char *whole = s_below(folders[i], path);
        if (access(whole, F_OK) == 0)
            return whole;
        free(whole);
    }
    return NULL;
}

// Configuration files are named from the root, or from the folder of theirs.
static void
s_place_config(const s_import_t *self, json_t *record)
{
    const char *path = json_string_value(json_object_get(record, "config_path"));
    const char *const folders[] = {self->root, self->configs};
    for (size_t i = 0; path && *path && *path != '/' && i < 2; i++) {
        char *whole = lade_path_join(folders[i], path);
        if (access(whole, F_OK) == 0) {
            json_object_set_new(record, "config_path", s_text(whole));
            path = NULL;
        }
        free(whole);
    }
}

static void
s_drop_nulls(json_t *map)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(map, next, key, value) if (json_is_null(value))
        json_object_del(map, key);
}

// ---------------------------------------------------------------------------------------------------
// The database

// "2024-05-01 12:30:00.250", UTC, as seconds.
static void
s_set_time(json_t *record, const char *field, const char *text)
{
    struct tm tm = {0};
    char *rest = text ? strptime(text, "%Y-%m-%d %H:%M:%S", &tm) : NULL;
    if (rest)
        json_object_set_new(
            record, field,
            json_real((double)timegm(&tm) + (*rest == '.' ? strtod(rest, NULL) : 0)));
}

static json_t *
s_record_of_row(const s_import_t *self, const char *const *columns, json_t *config)
{
    json_t *record = json_deep_copy(config),
           *settings = json_object_get(record, "default_settings");
    if (columns[0])
        json_object_set_new(record, "key", s_text(columns[0]));
    json_object_del(record, "converted_at"); // said when theirs was converted
    s_drop_nulls(record);
    if (json_is_object(settings)) {
        s_drop_nulls(settings);
        if (!json_object_size(settings))
            json_object_del(record, "default_settings");
    }
    if (json_string_length(json_object_get(record, "source_url")) == 0)
        json_object_del(record, "source_url");
    s_place_config(self, record);
    s_set_time(record, "created_at", columns[2]);
    s_set_time(record, "updated_at", columns[3]);
    return record;
}

static bool
s_on_row(void *arg, const char *const *columns)
{
    s_import_t *self = arg;
    json_error_t where;
    lade_error_t why;
    json_t *config = columns[1] ? json_loads(columns[1], 0, &where) : NULL;
    const char *path = lade_json_text(config, "path", NULL);
    json_t *entry =
        s_new_entry(self, "invokeai.db", lade_json_text(config, "name", columns[0]), path);
    char *whole = path ? s_there(self, path) : NULL;
    if (!json_is_object(config) || !path)
        lade_error_set(&why, LADE_CORRUPT, "its row %.80s holds no record that can be read",
                       columns[0] ? columns[0] : "");
    else if (!whole)
        lade_error_set(&why, LADE_MODEL_NOT_FOUND, "there is nothing at %s", path);
    if (!whole) {
        s_fail(entry, &why);
    } else {
        json_t *record = s_record_of_row(self, columns, config);
        json_object_set_new(entry, "path", s_text(whole));
        json_object_set_new(record, "path", s_text(whole));
        s_hand_over(self, entry, record);
    }
    free(whole);
    json_decref(config);
    return true;
}

static bool
s_on_column(void *arg, const char *const *columns)
{
    const char *name = columns[1];
    unsigned *seen = arg;
    static const char *const names[] = {"id", "config", "created_at", "updated_at"};
    for (unsigned i = 0; name && i < 4; i++)
        if (strcmp(names[i], name) == 0)
            *seen |= 1u << i;
    return true;
}

static lade_code_t
s_read_database(s_import_t *self, lade_error_t *error)
{
    lade_sqlite_t *db = NULL;
    unsigned columns = 0;
    char query[128];
    if (access(self->database, F_OK) != 0)
        return LADE_OK;
    lade_code_t code = lade_sqlite_open(self->database, &db, error);
    if (!code)
        code = lade_sqlite_each(db, "pragma table_info(models)", s_on_column, &columns, error);
    // Version 3 has a database without models; they are in models.yaml then.
    if (!code && (columns & 3) == 3) {
        snprintf(query, sizeof query, "select id, config, %s, %s from models order by id",
                 columns & 4 ? "created_at" : "null", columns & 8 ? "updated_at" : "null");
        code = lade_sqlite_each(db, query, s_on_row, self, error);
    }
    lade_sqlite_close(&db);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// models.yaml: stanzas BASE/TYPE/NAME

static void
s_set(json_t *record, const char *field, const json_t *stanza, const char *name)
{
    json_t *value = json_object_get(stanza, name);
    if (json_is_string(value) && json_string_length(value) && !json_object_get(record, field))
        json_object_set(record, field, value);
}

// What the files prove, else what the stanza says.
static lade_code_t
s_identify(const s_import_t *self, const lade_identify_t *rules, const char *path,
           const json_t *stanza, json_t *known, json_t **record_p, lade_error_t *error)
{
    lade_code_t code = lade_identify_path(rules, path, known, record_p, error);
    const char *format = lade_json_text(stanza, "model_format", NULL);
    if (code && format) {
        *record_p = json_deep_copy(known);
        json_object_set_new(*record_p, "format", json_string(format));
        if (code == LADE_UNSAFE_FILE)
            json_object_set_new(*record_p, "quarantined", json_true());
        code = LADE_OK;
    }
    if (code)
        return code;
    json_object_del(*record_p, "identified_by");
    if (json_object_get(*record_p, "unsafe"))
        json_object_set_new(*record_p, "quarantined", json_true());
    s_set(*record_p, "description", stanza, "description");
    s_set(*record_p, "config_path", stanza, "config");
    s_set(*record_p, "variant", stanza, "variant");
    s_set(*record_p, "vae", stanza, "vae");
    s_place_config(self, *record_p);
    return LADE_OK;
}

static void
s_add_hash(const s_import_t *self, const char *path, json_t *record)
{
    char *hash = NULL;
    // Reading all bytes of everything is asked for with `lade verify`.
    if (strcmp(self->config->hash, "imohash") == 0 &&
        lade_hash_path(path, self->config->hash, NULL, NULL, &hash, NULL) == LADE_OK && *hash)
        json_object_set_new(record, "hash", json_string(hash));
    free(hash);
}

static void
s_take_stanza(s_import_t *self, const lade_identify_t *rules, const char *title,
              const json_t *stanza)
{
    char base[64] = "", type[64] = "";
    int at = 0;
    lade_error_t why = {0};
    json_t *record = NULL;
    const char *path = lade_json_text(stanza, "path", NULL);
    bool fine =
        sscanf(title, "%63[^/]/%63[^/]/%n", base, type, &at) == 2 && at && title[at] && path;
    const char *name = fine ? title + at : title;
    json_t *entry = s_new_entry(self, "models.yaml", name, path);
    char *whole = fine ? s_there(self, path) : NULL;
    json_t *known = json_pack("{s:s, s:s, s:o}", "base", base, "type", type, "name", s_text(name));
    const char *description = lade_json_text(stanza, "description", NULL);
    if (description && *description)
        json_object_set_new(known, "description", s_text(description));
    if (!fine)
        lade_error_set(&why, LADE_CORRUPT, "a stanza is BASE/TYPE/NAME and has a path");
    else if (!whole)
        lade_error_set(&why, LADE_MODEL_NOT_FOUND, "there is nothing at %s", path);
    else
        s_identify(self, rules, whole, stanza, known, &record, &why);
    if (record) {
        json_object_set_new(entry, "path", s_text(whole));
        json_object_set_new(record, "path", s_text(whole));
        json_object_set_new(record, "source", s_text(whole));
        json_object_set_new(record, "source_type", json_string("path"));
        s_add_hash(self, whole, record);
        s_hand_over(self, entry, record);
    } else {
        s_fail(entry, &why);
    }
    json_decref(known);
    free(whole);
}

static lade_code_t
s_check_version(const s_import_t *self, const json_t *map, const json_t *lines, lade_error_t *error)
{
    const char *version =
        lade_json_text(json_object_get(map, "__metadata__"), "version", "not said");
    if (strcmp(version, "3.0.0") == 0)
        return LADE_OK;
    return lade_error_set(
        error, LADE_CORRUPT, "%s:%" PRId64 ": its version is %.40s; only 3.0.0 is known",
        self->models_yaml, lade_yaml_line(lines, "__metadata__", "version"), version);
}

static lade_code_t
s_read_models_yaml(s_import_t *self, lade_error_t *error)
{
    json_t *map = NULL, *lines = NULL, *stanza;
    lade_identify_t *rules = NULL;
    const char *title;
    if (access(self->models_yaml, F_OK) != 0)
        return LADE_OK;
    lade_code_t code = lade_yaml_read(self->models_yaml, &map, &lines, error);
    if (!code)
        code = s_check_version(self, map, lines, error);
    if (!code)
        code = lade_identify_by_config(self->config, &rules, error);
    json_object_foreach(map, title, stanza)
    {
        if (!code && strcmp(title, "__metadata__") != 0)
            s_take_stanza(self, rules, title, stanza);
    }
    lade_identify_destroy(&rules);
    json_decref(map);
    json_decref(lines);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// All together

// What the broker said of each.
static void
s_take_outcomes(s_import_t *self, const json_t *said)
{
    const json_t *list = json_object_get(said, "models");
    for (size_t i = 0; i < json_array_size(self->places); i++) {
        json_t *entry = json_array_get(self->places, i);
        const json_t *one = json_array_get(list, i);
        const char *outcome = lade_json_text(one, "outcome", "failed");
        bool added = strcmp(outcome, "added") == 0;
        json_object_set_new(entry, "outcome", json_string(added ? "taken" : outcome));
        if (json_object_get(one, "key"))
            json_object_set(entry, "key", json_object_get(one, "key"));
        if (json_object_get(one, "error"))
            json_object_set(entry, "error", json_object_get(one, "error"));
    }
}

static json_t *
s_report(const s_import_t *self)
{
    static const char *const outcomes[] = {"taken", "skipped", "failed"};
    json_t *report = json_pack("{s:o}", "root", s_text(self->root));
    for (size_t o = 0; o < 3; o++) {
        json_int_t count = 0;
        for (size_t i = 0; i < json_array_size(self->entries); i++)
            count += strcmp(lade_json_text(json_array_get(self->entries, i), "outcome", ""),
                            outcomes[o]) == 0;
        json_object_set_new(report, outcomes[o], json_integer(count));
    }
    json_object_set(report, "models", self->entries);
    return report;
}

static void
s_free(s_import_t *self)
{
    json_decref(self->entries);
    json_decref(self->models);
    json_decref(self->places);
    free(self->root);
    free(self->models_dir);
    free(self->database);
    free(self->models_yaml);
    free(self->configs);
}

lade_code_t
lade_import_invokeai(lade_t *self, const char *root, bool dry_run, char **result_p,
                     lade_error_t *error)
{
    s_import_t import = {.root = realpath(root, NULL),
                         .config = lade_request_config(self),
                         .entries = json_array(),
                         .models = json_array(),
                         .places = json_array()};
    json_t *said = NULL, *report;
    lade_code_t code = LADE_OK;
    if (result_p)
        *result_p = NULL;
    if (!import.root)
        code = lade_error_set(error, LADE_NOT_FOUND, "there is no folder %s", root);
    if (!code)
        code = s_find(&import, error);
    if (!code)
        code = s_read_database(&import, error);
    if (!code)
        code = s_read_models_yaml(&import, error);
    if (!code)
        code = lade_transfer_import(self, import.models, "skip", true, dry_run, true, &said, error);
    if (!code) {
        s_take_outcomes(&import, said);
        report = s_report(&import);
        if (result_p)
            *result_p = lade_request_text(report);
        json_decref(report);
    }
    json_decref(said);
    s_free(&import);
    return code;
}
