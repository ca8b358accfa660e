// Converted copies: made once, found again, evicted.
#include "workers/install/convert_job.h"

#include "common/converted.h"
#include "common/log.h"
#include "common/path.h"
#include "common/point.h"
#include "common/wire.h"
#include "workers/install/convert.h"
#include "workers/install/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    S_LOCKS = 64,
    S_SPARED_S = 60,   // a copy that was asked for just now is not evicted
    S_AWAITED_S = 540, // nor one that a load waits for, so much longer
    S_LOOK_NS = 50000000,
    S_MAX_NOTE = 1 << 20,
};

// ---------------------------------------------------------------------------------------------------
// One conversion of a model at a time

// A fixed number of lock files for all keys: two keys of one file wait for each other, which does
// no harm.
static int
s_open_lock(const lade_config_t *config, const char *key, lade_error_t *error)
{
    char name[24], *root = lade_converted_root(config->models_dir);
    unsigned sum = 0;
    for (const char *at = key; *at; at++)
        sum = sum * 31 + (unsigned char)*at;
    snprintf(name, sizeof name, ".lock_%02u", sum % S_LOCKS);
    char *path = lade_path_join(root, name);
    int fd = -1;
    if (!lade_path_mkdirs(root, 0755, error) &&
        (fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) < 0)
        lade_error_errno(error, errno, "cannot open %s", path);
    free(path);
    free(root);
    return fd;
}

// Waits for the lock as long as the job is to go on.
static lade_code_t
s_lock(const lade_stage_t *job, int fd, lade_error_t *error)
{
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return lade_error_errno(error, errno, "cannot lock the cache of converted models");
        lade_code_t code = lade_stage_check(job, error);
        if (code)
            return code;
        nanosleep(&(struct timespec){.tv_nsec = S_LOOK_NS}, NULL);
    }
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Room

typedef struct {
    char *path;
    char key[256];
    int64_t bytes;
    double used;
    json_t *note; // NULL: it is no copy
} s_copy_t;

static void
s_look(const char *root, const char *key, s_copy_t *copy)
{
    *copy = (s_copy_t){.path = lade_path_join(root, key)};
    snprintf(copy->key, sizeof copy->key, "%s", key);
    char *path = lade_path_join(copy->path, ".entry"), *text = NULL;
    struct stat st;
    if (stat(path, &st) == 0)
        copy->used = (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9;
    if (!lade_path_read(path, S_MAX_NOTE, &text, NULL, NULL))
        copy->note = json_loads(text, 0, NULL);
    copy->bytes = lade_json_int(copy->note, "bytes", 0);
    free(text);
    free(path);
}

static int
s_by_use(const void *a, const void *b)
{
    double x = ((const s_copy_t *)a)->used, y = ((const s_copy_t *)b)->used;
    return (x > y) - (x < y);
}

// All copies, the one not asked for longest first.
static s_copy_t *
s_list(const lade_config_t *config, size_t *count_p)
{
    char *root = lade_converted_root(config->models_dir);
    DIR *dir = opendir(root);
    s_copy_t *copies = NULL;
    size_t count = 0;
    for (struct dirent *at; dir && (at = readdir(dir));) {
        if (at->d_name[0] == '.')
            continue;
        copies = realloc(copies, (count + 1) * sizeof *copies);
        if (!copies)
            abort();
        s_look(root, at->d_name, &copies[count++]);
    }
    if (dir)
        closedir(dir);
    free(root);
    if (count)
        qsort(copies, count, sizeof *copies, s_by_use);
    *count_p = count;
    return copies;
}

static void
s_free_list(s_copy_t *copies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_decref(copies[i].note);
        free(copies[i].path);
    }
    free(copies);
}

// Takes a copy out of the cache; not one that is being read.
static bool
s_evict(const lade_config_t *config, const s_copy_t *copy)
{
    lade_error_t error = {0};
    int fd = -1;
    lade_code_t code = lade_converted_claim(config->models_dir, copy->key, &fd, &error);
    LADE_POINT("rename a converted copy away");
    if (!code && (code = lade_place_discard(config->models_dir, copy->path, &error)))
        lade_log(LADE_LOG_WARNING, "convert", "%s", error.message);
    if (fd >= 0)
        close(fd);
    if (!code)
        lade_log(LADE_LOG_INFO, "convert", "the converted copy of %s made room", copy->key);
    return !code;
}

// Bytes that the disk has too few for `more`.
static int64_t
s_missing(const lade_config_t *config, int64_t more)
{
    struct statvfs disk;
    if (!more || statvfs(config->models_dir, &disk) != 0)
        return 0;
    int64_t room = (int64_t)(disk.f_bavail * disk.f_frsize);
    return room < more ? more - room : 0;
}

// Removes copies until `more` bytes fit below the limit and on the disk. key (may be NULL) is not
// touched.
static void
s_make_room(const lade_config_t *config, int64_t more, const char *key, const char *digest)
{
    size_t count;
    s_copy_t *copies = s_list(config, &count);
    int64_t total = more, limit = config->convert_cache_mb << 20;
    for (size_t i = 0; i < count; i++)
        total += key && !strcmp(copies[i].key, key) ? 0 : copies[i].bytes;
    int64_t missing = s_missing(config, more);
    if (missing && total - missing < limit)
        limit = total - missing;
    for (size_t i = 0; i < count; i++) {
        bool other = digest && strcmp(lade_json_text(copies[i].note, "rules", ""), digest) != 0;
        bool spared = lade_now() - copies[i].used < S_SPARED_S;
        if ((key && !strcmp(copies[i].key, key)) || (!other && (spared || total <= limit)))
            continue;
        if (s_evict(config, &copies[i]))
            total -= copies[i].bytes;
    }
    s_free_list(copies, count);
}

void
lade_convert_job_trim(const lade_config_t *config, const lade_convert_rules_t *rules)
{
    s_make_room(config, 0, NULL, rules ? lade_convert_rules_digest(rules) : NULL);
}

void
lade_convert_job_forget(const lade_config_t *config, const char *key)
{
    if (lade_path_check_name(key, NULL) || key[0] == '.')
        return;
    char *entry = lade_converted_path(config->models_dir, key);
    lade_error_t error = {0};
    if (lade_place_discard(config->models_dir, entry, &error))
        lade_log(LADE_LOG_WARNING, "convert", "%s", error.message);
    free(entry);
}

// ---------------------------------------------------------------------------------------------------
// Converting

static bool
s_progress(void *arg, uint64_t bytes, uint64_t total_bytes)
{
    const lade_stage_t *job = arg;
    job->progress(job->arg, (int64_t)bytes, (int64_t)total_bytes, NULL, NULL);
    return !lade_stage_stopped((void *)job);
}

// Converts into a folder that is not there, and says in it what it was made from.
static lade_code_t
s_convert(const lade_stage_t *job, const json_t *record, const char *to, bool noted,
          int64_t *bytes_p, lade_error_t *error)
{
    char *from;
    lade_convert_report_t report;
    json_t *note = lade_converted_note(job->config->models_dir, record); // before it is read
    lade_code_t code = lade_converted_source(job->config->models_dir, record, &from, error);
    if (!code)
        code = lade_convert_run(job->conversions, record, from, to, s_progress, (void *)job,
                                &report, error);
    if (code == LADE_CANCELLED)
        code = lade_stage_check(job, error);
    if (code == LADE_NO_SPACE)
        lade_error_wrap(error,
                        "the converted copy of %s takes about %" PRId64 " MiB beside %s: make room "
                        "there, and it goes on by itself",
                        from, lade_path_size(from) >> 20, to);
    if (!code && report.ignored)
        lade_log(LADE_LOG_INFO, "convert",
                 "job %" PRId64 ": %" PRIu64 " tensors of %s belong to no part and stay behind",
                 job->id, report.ignored, from);
    if (!code)
        *bytes_p = lade_path_size(to);
    if (!code && noted) {
        json_object_set_new(note, "bytes", json_integer(*bytes_p));
        json_object_set_new(note, "rules",
                            json_string(lade_convert_rules_digest(job->conversions)));
        char *text = json_dumps(note, 0), *path = lade_path_join(to, ".entry");
        code = text ? lade_path_write(path, text, strlen(text), 0644, error)
                    : lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "the path is no UTF-8");
        free(path);
        free(text);
    }
    json_decref(note);
    free(from);
    return code;
}

static void
s_done(const char *path, int64_t bytes, bool converted, lade_answer_t *answer)
{
    answer->result = json_object();
    lade_stage_set_text(answer->result, "path", path);
    json_object_set_new(answer->result, "bytes", json_integer(bytes));
    json_object_set_new(answer->result, "converted", json_boolean(converted));
}

// Takes the old copy away once nobody reads it any more.
static lade_code_t
s_retire(const lade_stage_t *job, const char *key, const char *entry, lade_error_t *error)
{
    const char *models_dir = job->config->models_dir;
    int fd;
    lade_code_t code;
    while ((code = lade_converted_claim(models_dir, key, &fd, error)) == LADE_BUSY) {
        code = lade_stage_check(job, error);
        if (code)
            return code;
        nanosleep(&(struct timespec){.tv_nsec = S_LOOK_NS}, NULL);
    }
    LADE_POINT("rename the old converted copy away");
    if (!code)
        code = lade_place_discard(models_dir, entry, error);
    if (fd >= 0)
        close(fd);
    return code;
}

// Makes the copy of a key, whose lock is held, in the job's own folder, and puts it in the old
// one's place.
static lade_code_t
s_renew(const lade_stage_t *job, const json_t *record, const char *entry, int64_t *bytes_p,
        lade_error_t *error)
{
    const lade_config_t *config = job->config;
    char *copy = lade_stage_copy(job), *source = NULL;
    lade_code_t code = lade_converted_source(config->models_dir, record, &source, error);
    if (!code)
        s_make_room(config, lade_path_size(source), lade_json_text(record, "key", ""), NULL);
    lade_stage_remove_copies(job);
    if (!code)
        code = lade_place_claim(config, job->id, error);
    LADE_POINT("convert");
    if (!code)
        code = s_convert(job, record, copy, true, bytes_p, error);
    if (!code)
        code = lade_stage_check(job, error);
    if (!code)
        code = s_retire(job, lade_json_text(record, "key", ""), entry, error);
    LADE_POINT("rename the converted copy");
    if (!code)
        code = lade_path_publish(copy, entry, error);
    LADE_POINT("converted");
    lade_stage_remove_copies(job);
    free(source);
    free(copy);
    return code;
}

static lade_code_t
s_into_cache(const lade_stage_t *job, const json_t *record, lade_answer_t *answer,
             lade_error_t *error)
{
    const lade_config_t *config = job->config;
    const char *key = lade_json_text(record, "key", "");
    json_t *note = NULL;
    int fd = s_open_lock(config, key, error);
    if (fd < 0)
        return error->code;
    lade_code_t code = s_lock(job, fd, error);
    char *entry = lade_converted_path(config->models_dir, key);
    bool fresh =
        !code && lade_converted_is_fresh(config->models_dir, record, &note) &&
        !strcmp(lade_json_text(note, "rules", ""), lade_convert_rules_digest(job->conversions));
    int64_t bytes = lade_json_int(note, "bytes", 0);
    if (!code && !fresh)
        code = s_renew(job, record, entry, &bytes, error);
    if (!code) {
        bool awaited = lade_json_bool(job->spec, "awaited", false);
        lade_converted_touch(config->models_dir, key, awaited ? S_AWAITED_S : 0);
        s_done(entry, bytes, !fresh, answer);
        answer->effects = json_pack("[{s:s, s:s}]", "op", "need_model", "key", key);
        answer->undo = json_pack("{s:s}", "step", "undo");
    }
    free(entry);
    json_decref(note);
    close(fd);
    return code;
}

// The folder it is made in, beside where it is asked for, under a name that the next attempt knows.
static char *
s_part(const lade_stage_t *job, const char *folder, const char *name)
{
    char *part = NULL;
    if (asprintf(&part, "%s/.%.200s.converting-%" PRId64, folder, name, job->id) < 0)
        abort();
    return part;
}

static lade_code_t
s_make_folder(const lade_stage_t *job, const json_t *record, const char *part, const char *dest,
              int64_t *bytes_p, lade_error_t *error)
{
    lade_code_t code = lade_place_note_part(job->config, job->id, part, error);
    if (!code)
        code = lade_path_remove(part, error); // of an attempt that was killed
    LADE_POINT("convert");
    if (!code)
        code = s_convert(job, record, part, false, bytes_p, error);
    if (!code)
        code = lade_place_mark(job->config, job->id, dest, lade_place_inode(part), error);
    LADE_POINT("rename the converted folder");
    if (!code)
        code = lade_path_publish(part, dest, error);
    LADE_POINT("converted");
    return code;
}

static lade_code_t
s_into_folder(const lade_stage_t *job, const json_t *record, const char *dest,
              lade_answer_t *answer, lade_error_t *error)
{
    char *folder = lade_path_folder(dest), *name = lade_path_name(dest), *part = NULL;
    struct stat st;
    int64_t bytes = 0;
    lade_code_t code = LADE_OK;
    bool done = lade_place_was_placed(job->config, job->id, dest);
    if (*dest != '/' || strstr(dest, "/..") || lade_path_check_name(name, NULL))
        code = lade_error_set(error, LADE_VALUE_ERROR, "dest: an absolute path without ..");
    else if (!done && lstat(dest, &st) == 0)
        code = lade_error_set(error, LADE_EXISTS, "%s is there already; name a folder that is not",
                              dest);
    part = s_part(job, folder, name);
    if (!code && !done)
        code = lade_path_mkdirs(folder, 0755, error);
    if (!code && !done)
        code = s_make_folder(job, record, part, dest, &bytes, error);
    answer->waits = !code; // what says whose it is stays until the broker knows
    if (!code)
        answer->state = json_pack("{s:s, s:I}", "step", "placed", "bytes",
                                  (json_int_t)(done ? lade_path_size(dest) : bytes));
    else if (*dest == '/' && job->stop(job->arg) != LADE_STOP_STALE)
        lade_path_remove(part, NULL);
    free(part);
    free(name);
    free(folder);
    return code;
}

// The record went while its file was converted: so does the copy.
static lade_code_t
s_undo(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *refused = json_object_get(job->state, "refused");
    lade_convert_job_forget(job->config, lade_json_text(job->spec, "key", ""));
    answer->final = true;
    return lade_error_set(error, lade_code_find(lade_json_text(refused, "code", "")),
                          "the model was removed while it was converted: %s",
                          lade_json_text(refused, "message", "its record is gone"));
}

static lade_code_t
s_placed(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    (void)error;
    s_done(lade_json_text(job->spec, "dest", ""), lade_json_int(job->state, "bytes", 0), true,
           answer);
    return LADE_OK;
}

static lade_code_t
s_make(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *record = json_object_get(job->spec, "record");
    const char *key = lade_json_text(record, "key", ""),
               *dest = lade_json_text(job->spec, "dest", NULL);
    if (!json_is_object(record) || key[0] == '.' || lade_path_check_name(key, NULL))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "record: a conversion takes a record with its key");
    return dest ? s_into_folder(job, record, dest, answer, error)
                : s_into_cache(job, record, answer, error);
}

static const lade_step_t s_steps[] = {
    {"", s_make},
    {"placed", s_placed},
    {"undo", s_undo},
    {NULL, NULL},
};

lade_code_t
lade_convert_job_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    lade_code_t code = lade_stage_run(job, s_steps, answer, error);
    bool again = answer->waits || code == LADE_PAUSED || job->stop(job->arg) == LADE_STOP_STALE ||
                 (lade_code_retry(code) && job->failures + 1 < job->config->max_attempts);
    if (!again)
        lade_place_end(job->config, job->id, true, 0, NULL);
    return code;
}
