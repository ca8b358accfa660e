// What a model at a path is.
#include "workers/install/describe.h"

#include "common/formats/safety.h"
#include "common/hash.h"
#include "common/path.h"
#include "common/record.h"
#include "common/wire.h"

#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

bool
lade_describe_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

lade_code_t
lade_describe_refuse_page(const char *path, lade_error_t *error)
{
    char head[512] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, head, sizeof head - 1) : -1;
    if (fd >= 0)
        close(fd);
    const char *at = head;
    if (len > 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
        at += 3;
    at += strspn(at, " \t\r\n");
    if (strncasecmp(at, "<!doctype html", 14) != 0 && strncasecmp(at, "<html", 5) != 0)
        return LADE_OK;
    char *name = lade_path_name(path);
    lade_error_set(error, LADE_NOT_A_MODEL,
                   "%s is an HTML page, not a model; this happens when an access token is required "
                   "to download "
                   "(--token), or when the URL is that of a page instead of its download link",
                   name);
    free(name);
    return LADE_NOT_A_MODEL;
}

// What nobody but the one who installs it knows.
static bool
s_take_told(const char *path, const json_t *overrides, json_t **found_p)
{
    static const char *const needed[] = {"type", "base", "format"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!lade_json_text(overrides, needed[i], NULL))
            return false;
    char *name = lade_path_name(path), *dot = strrchr(name, '.');
    if (dot && dot > name && lade_describe_is_file(path))
        *dot = '\0';
    *found_p = json_object();
    lade_stage_set_text(*found_p, "name", name);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        lade_stage_set_text(*found_p, needed[i], lade_json_text(overrides, needed[i], NULL));
    lade_stage_set_text(*found_p, "identified_by", "told by who installed it");
    free(name);
    return true;
}

lade_code_t
lade_describe_identify(const lade_stage_t *job, const char *path, const json_t *overrides,
                       json_t **found_p, lade_error_t *error)
{
    *found_p = NULL;
    bool quarantine = lade_json_bool(overrides, "quarantined", false);
    char words[400];
    lade_code_t code = job->identify(job->rules, path, overrides, found_p, error);
    if ((code == LADE_INVALID_MODEL_CONFIG || code == LADE_NOT_A_MODEL ||
         (code == LADE_UNSAFE_FILE && quarantine)) &&
        s_take_told(path, overrides, found_p))
        return LADE_OK;
    if (code == LADE_UNSAFE_FILE && quarantine)
        return lade_error_wrap(error, "it is no model lade knows: to keep it in quarantine all the "
                                      "same, give its type, base and format");
    const json_t *unsafe = code ? NULL : json_object_get(*found_p, "unsafe");
    if (unsafe && !quarantine) {
        code = lade_error_set(error, LADE_UNSAFE_FILE,
                              "it would run code when loaded: %s; --quarantine installs it all "
                              "the same, to be loaded only where allow_unsafe names it",
                              lade_safety_words(unsafe, words, sizeof words));
        json_decref(*found_p);
        *found_p = NULL;
    }
    return code;
}

lade_code_t
lade_describe_hash(const lade_stage_t *job, const char *path, const json_t *overrides,
                   char **hash_p, lade_error_t *error)
{
    *hash_p = NULL;
    if (json_object_get(overrides, "hash"))
        return LADE_OK;
    lade_code_t code =
        lade_hash_path(path, job->config->hash, lade_stage_stopped, (void *)job, hash_p, error);
    if (!code && *hash_p && !**hash_p) {
        free(*hash_p);
        *hash_p = NULL;
    }
    return code;
}

// What the source says of the model, as far as a model of its class can have it.
static void
s_add_told(json_t *record, const json_t *state)
{
    static const char *const told[] = {
        "name", "tags", "description", "author", "license", "trigger_phrases", "cover_image"};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        json_t *value = json_object_get(state, told[i]);
        if (!value)
            continue;
        json_t *before = json_incref(json_object_get(record, told[i]));
        json_object_set(record, told[i], value);
        if (lade_record_check(record, NULL) && before)
            json_object_set(record, told[i], before);
        else if (lade_record_check(record, NULL))
            json_object_del(record, told[i]);
        json_decref(before);
    }
}

lade_code_t
lade_describe(const lade_stage_t *job, const char *path, const json_t *state, json_t **record_p,
              char **hash_p, lade_error_t *error)
{
    static const char *const copied[] = {"source", "source_type", "source_revision",
                                         "source_api_response"};
    json_t *overrides = NULL, *record = NULL;
    *record_p = NULL;
    *hash_p = NULL;
    lade_code_t code = lade_stage_overrides(job, &overrides, error);
    if (!code)
        code = lade_describe_identify(job, path, overrides, &record, error);
    if (!code)
        code = lade_describe_hash(job, path, overrides, hash_p, error);
    if (!code) {
        char key[33];
        lade_record_new_key(key);
        lade_stage_set_text(record, "key", lade_json_text(overrides, "key", key));
        lade_stage_set_text(record, "path", path);
        lade_stage_set_text(record, "hash", *hash_p);
        json_object_set_new(record, "file_size", json_integer(lade_path_size(path)));
        for (size_t i = 0; i < sizeof copied / sizeof *copied; i++)
            if (json_object_get(state, copied[i]))
                json_object_set(record, copied[i], json_object_get(state, copied[i]));
        s_add_told(record, state);
        code = lade_record_apply(record, overrides, record_p, error);
    }
    json_decref(record);
    json_decref(overrides);
    return code;
}

void
lade_describe_done(const json_t *record, const char *path, lade_answer_t *answer)
{
    json_t *result = json_object();
    int64_t bytes = lade_path_size(path);
    lade_stage_set_text(result, "key", lade_json_text(record, "key", ""));
    lade_stage_set_text(result, "local_path", path);
    json_object_set_new(result, "bytes", json_integer(bytes));
    json_object_set_new(result, "total_bytes", json_integer(bytes));
    json_object_set(result, "config_out", (json_t *)record);
    answer->result = result;
    answer->effects = json_pack("[{s:s, s:O}]", "op", "put_model", "model", record);
}
