// A batch of a scan: some models at once, one transaction for their records.
#include "workers/install/scan.h"

#include "common/hash.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/install.h"

#include <string.h>
#include <sys/stat.h>

typedef struct {
    const lade_stage_t *job;
    json_t *lost;                             // records whose files are gone; those found leave it
    json_t *relinked, *left, *added, *failed; // of the result
    json_t *effects;
    int64_t bytes, total;
    bool dry;
} s_batch_t;

static void
s_fail(s_batch_t *self, const char *path, const lade_error_t *error)
{
    json_array_append_new(self->failed,
                          lade_scan_failure(path, lade_code_name(error->code), error->message));
}

static lade_code_t
s_register(s_batch_t *self, const char *path, lade_error_t *error)
{
    static const char *const told[] = {"key", "path", "name", "type", "base", "format"};
    json_t *record = NULL;
    struct stat st;
    bool file = self->job->refused && stat(path, &st) == 0 && S_ISREG(st.st_mode);
    if (file && lade_refused_find(self->job->refused, path, &st, error))
        return error->code;
    lade_code_t code = lade_install_describe(self->job, path, &record, error);
    if (code && file)
        lade_refused_add(self->job->refused, path, &st, error);
    if (code)
        return code;
    json_t *model = json_object();
    for (size_t i = self->dry; i < sizeof told / sizeof *told; i++) // what is not made has no key
        if (json_object_get(record, told[i]))
            json_object_set(model, told[i], json_object_get(record, told[i]));
    json_array_append_new(self->added, model);
    json_array_append_new(self->effects, json_pack("{s:s, s:O, s:b}", "op", "put_model", "model",
                                                   record, "tolerant", 1));
    json_decref(record);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Files that turned up elsewhere

static bool
s_same_name(const json_t *record, const char *path)
{
    char *own = lade_path_name(lade_json_text(record, "path", "")), *name = lade_path_name(path);
    bool same = strcmp(own, name) == 0;
    free(own);
    free(name);
    return same;
}

// Which of the lost records has the content at path; one with its file name before others. The
// hash is taken once for each algorithm.
static lade_code_t
s_find(const s_batch_t *self, const char *path, size_t *at_p, lade_error_t *error)
{
    char known[16] = "", name[16], *hash = NULL;
    lade_code_t code = LADE_OK;
    int64_t bytes = lade_path_size(path);
    *at_p = SIZE_MAX;
    for (size_t i = 0; i < json_array_size(self->lost) && !code; i++) {
        const json_t *record = json_array_get(self->lost, i);
        const char *wanted = lade_json_text(record, "hash", "");
        if (lade_json_int(record, "file_size", -1) != bytes ||
            !lade_hash_algorithm(wanted, name, sizeof name))
            continue;
        if (strcmp(known, name) != 0) {
            free(hash);
            hash = NULL;
            code = lade_hash_path(path, name, lade_stage_stopped, (void *)self->job, &hash, error);
            strcpy(known, name);
        }
        if (!code && strcmp(hash, wanted) == 0 && (*at_p == SIZE_MAX || s_same_name(record, path)))
            *at_p = i;
    }
    free(hash);
    return code;
}

static lade_code_t
s_relink(s_batch_t *self, const char *path, lade_error_t *error)
{
    size_t at;
    lade_code_t code = s_find(self, path, &at, error);
    if (code)
        return code;
    if (at == SIZE_MAX) {
        json_array_append_new(self->left, json_stringn_nocheck(path, strlen(path)));
        return LADE_OK;
    }
    json_t *record = json_array_get(self->lost, at), *found = json_object();
    json_object_set(found, "key", json_object_get(record, "key"));
    json_object_set(found, "name", json_object_get(record, "name"));
    json_object_set(found, "from", json_object_get(record, "path"));
    lade_stage_set_text(found, "path", path);
    json_array_append_new(self->effects,
                          json_pack("{s:s, s:O, s:{s:O}, s:b}", "op", "update_model", "key",
                                    json_object_get(found, "key"), "changes", "path",
                                    json_object_get(found, "path"), "tolerant", 1));
    json_array_append_new(self->relinked, found);
    json_array_remove(self->lost, at);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------

lade_code_t
lade_batch_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *paths = json_object_get(job->spec, "batch");
    json_t *lost = json_object_get(job->spec, "lost");
    s_batch_t self = {.job = job,
                      .lost = lost ? json_copy(lost) : NULL,
                      .relinked = json_array(),
                      .left = json_array(),
                      .added = json_array(),
                      .failed = json_array(),
                      .effects = json_array(),
                      .total = lade_json_int(job->spec, "size", 0),
                      .dry = lade_json_bool(job->spec, "dry_run", false)};
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < json_array_size(paths) && !code; i++) {
        const char *path = json_string_value(json_array_get(paths, i));
        lade_error_t problem = {0};
        code = lade_stage_check(job, error);
        if (code || !path)
            break;
        job->progress(job->arg, self.bytes, self.total, "identifying", path);
        lade_code_t failed =
            self.lost ? s_relink(&self, path, &problem) : s_register(&self, path, &problem);
        if (failed == LADE_CANCELLED)
            code = lade_stage_check(job, error);
        else if (failed)
            s_fail(&self, path, &problem);
        int64_t bytes = self.total ? lade_path_size(path) : 0;
        self.bytes += bytes > 0 ? bytes : 0;
    }
    if (!code) {
        answer->result =
            json_pack("{s:O, s:O, s:O, s:O, s:I}", "relinked", self.relinked, "left", self.left,
                      "added", self.added, "failed", self.failed, "bytes", (json_int_t)self.bytes);
        answer->effects = self.dry ? NULL : json_incref(self.effects);
    }
    json_t *values[] = {self.lost, self.relinked, self.left, self.added, self.failed, self.effects};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        json_decref(values[i]);
    return code;
}
