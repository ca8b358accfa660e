// A checkpoint into a folder.
#include "workers/install/convert.h"

#include "common/formats/tensors.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/convert_config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_MAX_PARTS = 16,
    S_MAX_TIMES = 4,    // the file's bytes that a copy may have,
    S_SPARE = 64 << 20, // and so many more
};

typedef struct {
    const json_t *spec; // of the rules
    lade_convert_part_t part;
} s_part_t;

typedef struct {
    const lade_convert_rules_t *rules;
    const json_t *record, *kind;
    const char *from, *to;
    lade_tensors_t *list;
    bool *taken; // one for each tensor of the list
    struct stat was;
    int fds[1];
    s_part_t parts[S_MAX_PARTS];
    size_t count;
    uint64_t bytes, total_bytes;
    lade_convert_progress_t *progress;
    void *arg;
} s_run_t;

// ---------------------------------------------------------------------------------------------------
// What there is

static lade_code_t
s_open(s_run_t *self, lade_error_t *error)
{
    self->fds[0] = open(self->from, O_RDONLY | O_CLOEXEC);
    if (self->fds[0] < 0 || fstat(self->fds[0], &self->was) != 0)
        return errno == ENOENT
                   ? lade_error_set(error, LADE_MODEL_NOT_FOUND,
                                    "files for model '%s' not found at %s",
                                    lade_json_text(self->record, "name", "?"), self->from)
                   : lade_error_errno(error, errno, "cannot open %s", self->from);
    if (!S_ISREG(self->was.st_mode))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "%s is no checkpoint file",
                              self->from);
    posix_fadvise(self->fds[0], 0, 0, POSIX_FADV_SEQUENTIAL);
    lade_code_t code =
        lade_tensors_open_within(self->from, LADE_TENSORS_MOST_HEADER, &self->list, error);
    if (code)
        return code;
    const json_t *finding = json_array_get(lade_tensors_unsafe(self->list), 0);
    if (finding)
        return lade_error_set(error, LADE_UNSAFE_FILE, "%s is not converted: %s", self->from,
                              lade_json_text(finding, "message", "it is not safe"));
    if (lade_tensors_file_count(self->list) != 1)
        return lade_error_set(error, LADE_NOT_IMPLEMENTED, "%s is one file of several", self->from);
    self->taken = calloc(lade_tensors_count(self->list) + 1, sizeof *self->taken);
    if (!self->taken)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to convert with");
    return LADE_OK;
}

// A checkpoint that is replaced while it is read would give a mixture of two.
static lade_code_t
s_check_same(const s_run_t *self, lade_error_t *error)
{
    struct stat now;
    if (fstat(self->fds[0], &now) == 0 && now.st_size == self->was.st_size &&
        now.st_mtim.tv_sec == self->was.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == self->was.st_mtim.tv_nsec)
        return LADE_OK;
    return lade_error_set(error, LADE_CORRUPT, "%s was written to while it was converted",
                          self->from);
}

// ---------------------------------------------------------------------------------------------------
// Parts

static bool
s_has_prefix(const s_run_t *self, const char *prefix, const char *having)
{
    char name[LADE_CONVERT_MAX_NAME];
    size_t len = strlen(prefix);
    if (having)
        return snprintf(name, sizeof name, "%s%s", prefix, having) < (int)sizeof name &&
               lade_tensors_find(self->list, name);
    for (size_t i = 0; i < lade_tensors_count(self->list); i++)
        if (!strncmp(lade_tensors_get(self->list, i)->name, prefix, len))
            return true;
    return false;
}

// The prefix with which the part is in the checkpoint, NULL if it is not.
static const char *
s_find_prefix(const s_run_t *self, const json_t *spec)
{
    const json_t *prefix = json_object_get(spec, "prefix");
    const char *having = lade_json_text(spec, "having", NULL);
    if (json_is_string(prefix))
        return s_has_prefix(self, json_string_value(prefix), having) ? json_string_value(prefix)
                                                                     : NULL;
    for (size_t i = 0; i < json_array_size(prefix); i++) {
        const char *one = json_string_value(json_array_get(prefix, i));
        if (s_has_prefix(self, one, having))
            return one;
    }
    return NULL;
}

static bool
s_is_planned(const s_run_t *self, const char *folder)
{
    for (size_t i = 0; i < self->count; i++)
        if (!strcmp(lade_json_text(self->parts[i].spec, "folder", ""), folder))
            return true;
    return false;
}

static lade_code_t
s_plan_part(s_run_t *self, const json_t *spec, const char *prefix, lade_error_t *error)
{
    const json_t *ema = json_object_get(self->kind, "ema");
    bool take = lade_json_bool(ema, "take", false);
    lade_convert_ema_t averaged = {take ? lade_json_text(ema, "prefix", NULL) : NULL,
                                   lade_json_text(ema, "of", "")};
    if (self->count == S_MAX_PARTS)
        return lade_error_set(error, LADE_CONFIG_ERROR, "a kind has too many parts");
    s_part_t *part = &self->parts[self->count++];
    part->spec = spec;
    lade_code_t code =
        lade_convert_part_add(&part->part, self->list, prefix,
                              lade_convert_rules_map(self->rules, lade_json_text(spec, "map", "")),
                              &averaged, self->taken, error);
    if (!code)
        code = lade_convert_part_close(&part->part, error);
    if (__builtin_add_overflow(self->total_bytes, part->part.bytes, &self->total_bytes))
        self->total_bytes = UINT64_MAX;
    return code;
}

// Views may repeat a number as often as they like, and names share the same bytes: a file of
// nothing could fill the disk.
static lade_code_t
s_check_size(const s_run_t *self, lade_error_t *error)
{
    uint64_t size = (uint64_t)self->was.st_size, most = 0;
    if (__builtin_mul_overflow(size, S_MAX_TIMES, &most) ||
        __builtin_add_overflow(most, S_SPARE, &most) || self->total_bytes <= most)
        return LADE_OK;
    return lade_error_set(error, LADE_TOO_LARGE,
                          "%s has %" PRIu64 " bytes and would become %" PRIu64
                          ": its tensors repeat the same numbers; save it anew with each by itself",
                          self->from, size, self->total_bytes);
}

// Of several ways to find a part the first that does counts.
static lade_code_t
s_plan(s_run_t *self, lade_error_t *error)
{
    const json_t *parts = json_object_get(self->kind, "parts");
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < json_array_size(parts) && !code; i++) {
        const json_t *spec = json_array_get(parts, i);
        const char *prefix = s_find_prefix(self, spec);
        if (prefix && !s_is_planned(self, lade_json_text(spec, "folder", "")))
            code = s_plan_part(self, spec, prefix, error);
    }
    for (size_t i = 0; i < json_array_size(parts) && !code; i++) {
        const char *folder = lade_json_text(json_array_get(parts, i), "folder", "");
        if (!s_is_planned(self, folder))
            code = lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                                  "%s has no %s that is known of base=%s, type=%s: the checkpoint "
                                  "is not whole, or its record says something else",
                                  self->from, strcmp(folder, ".") ? folder : "part",
                                  lade_json_text(self->record, "base", "?"),
                                  lade_json_text(self->record, "type", "?"));
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Writing

static bool
s_step(void *arg, uint64_t bytes)
{
    s_run_t *self = arg;
    self->bytes += bytes;
    return !self->progress || self->progress(self->arg, self->bytes, self->total_bytes);
}

static lade_code_t
s_write_config(const s_run_t *self, const lade_convert_part_t *part, const char *name,
               const char *path, lade_error_t *error)
{
    lade_convert_about_t about = {self->record, self->list, part,
                                  lade_convert_rules_words(self->rules)};
    json_t *value = NULL;
    lade_code_t code =
        lade_convert_config(&about, lade_convert_rules_config(self->rules, name), &value, error);
    if (code)
        return lade_error_wrap(error, "%s", name);
    char *text = json_dumps(value, JSON_INDENT(2));
    if (!text)
        abort();
    code = lade_path_write(path, text, strlen(text), 0644, error);
    free(text);
    json_decref(value);
    return code;
}

static lade_code_t
s_write_part(s_run_t *self, const s_part_t *part, lade_error_t *error)
{
    const char *name = lade_json_text(part->spec, "folder", "");
    char *folder = strcmp(name, ".") ? lade_path_join(self->to, name) : strdup(self->to);
    char *config = lade_path_join(folder, "config.json");
    char *weights = lade_path_join(folder, lade_json_text(part->spec, "file", ""));
    lade_code_t code = lade_path_mkdirs(folder, 0755, error);
    if (!code) // before the weights: what it says may be refused
        code = s_write_config(self, &part->part, lade_json_text(part->spec, "config", ""), config,
                              error);
    if (!code)
        code = lade_convert_part_write(&part->part, self->fds, weights, s_step, self, error);
    if (!code)
        code = lade_path_sync_folder(folder, error);
    free(weights);
    free(config);
    free(folder);
    return code;
}

static lade_code_t
s_write_files(const s_run_t *self, lade_error_t *error)
{
    const char *name;
    json_t *config;
    lade_code_t code = LADE_OK;
    json_object_foreach(json_object_get(self->kind, "files"), name, config)
    {
        char *path = lade_path_join(self->to, name), *folder = lade_path_folder(path);
        if (!code)
            code = lade_path_mkdirs(folder, 0755, error);
        if (!code)
            code = s_write_config(self, NULL, json_string_value(config), path, error);
        free(folder);
        free(path);
    }
    return code;
}

static lade_code_t
s_write(s_run_t *self, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    if (mkdir(self->to, 0755) != 0)
        return lade_error_errno(error, errno, "cannot create %s", self->to);
    for (size_t i = 0; i < self->count && !code; i++)
        code = s_write_part(self, &self->parts[i], error);
    if (!code)
        code = s_write_files(self, error);
    if (!code)
        code = s_check_same(self, error);
    return code;
}

// ---------------------------------------------------------------------------------------------------

static void
s_report(const s_run_t *self, lade_convert_report_t *report)
{
    report->bytes = self->total_bytes;
    for (size_t i = 0; i < self->count; i++)
        report->tensors += self->parts[i].part.count;
    for (size_t i = 0; i < lade_tensors_count(self->list); i++)
        report->ignored += !self->taken[i];
}

lade_code_t
lade_convert_run(const lade_convert_rules_t *rules, const json_t *record, const char *from,
                 const char *to, lade_convert_progress_t *progress, void *arg,
                 lade_convert_report_t *report, lade_error_t *error)
{
    s_run_t self = {.rules = rules,
                    .record = record,
                    .kind = lade_convert_rules_find(rules, record),
                    .from = from,
                    .to = to,
                    .fds = {-1},
                    .progress = progress,
                    .arg = arg};
    *report = (lade_convert_report_t){0};
    lade_code_t code = LADE_OK;
    if (!self.kind)
        code = lade_error_set(
            error, LADE_NOT_IMPLEMENTED,
            "no conversion is known for base=%s, type=%s, format=%s, variant=%s",
            lade_json_text(record, "base", "?"), lade_json_text(record, "type", "?"),
            lade_json_text(record, "format", "?"), lade_json_text(record, "variant", "normal"));
    if (!code)
        code = s_open(&self, error);
    if (!code)
        code = s_plan(&self, error);
    if (!code)
        code = s_check_size(&self, error);
    if (!code)
        code = s_write(&self, error);
    if (!code)
        s_report(&self, report);
    for (size_t i = 0; i < self.count; i++)
        lade_convert_part_free(&self.parts[i].part);
    if (self.fds[0] >= 0)
        close(self.fds[0]);
    lade_tensors_destroy(&self.list);
    free(self.taken);
    return code;
}
