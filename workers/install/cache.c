// The cache of fetched files.
#include "workers/install/cache.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/describe.h"
#include "workers/install/fetch.h"
#include "workers/install/place.h"
#include "workers/install/resolve.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { S_DIGEST = 32, S_SPARED_S = 60, S_MAX_ENTRY = 16 << 20 };

// ---------------------------------------------------------------------------------------------------
// Entries

static char *
s_root(const lade_config_t *config)
{
    return lade_path_join(config->models_dir, ".cache");
}

// What is fetched for a source depends on two settings besides.
static void
s_digest(const lade_stage_t *job, const char *purpose, const char *source, char text[S_DIGEST + 1])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char *whole;
    if (asprintf(&whole, "%s\n%s\n%s\n%s", purpose, source, job->config->hub_endpoint,
                 job->config->precision) < 0 ||
        !EVP_Digest(whole, strlen(whole), digest, NULL, EVP_sha256(), NULL))
        abort();
    for (size_t i = 0; i < S_DIGEST / 2; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    free(whole);
}

static char *
s_entry(const lade_config_t *config, const char *digest)
{
    char *root = s_root(config), *entry = lade_path_join(root, digest);
    free(root);
    return entry;
}

// Who looks for an entry and who evicts one exclude each other. -1 with an error.
static int
s_lock(const lade_config_t *config, lade_error_t *error)
{
    char *root = s_root(config), *path = lade_path_join(root, ".lock");
    int fd = -1;
    if (!lade_path_mkdirs(root, 0755, error)) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0 || flock(fd, LOCK_EX) != 0)
            lade_error_errno(error, errno, "cannot lock %s", path);
    }
    free(path);
    free(root);
    return fd;
}

// What is known of an entry: {"source", "name", "bytes", …}; NULL if it is none.
static json_t *
s_read(const char *entry)
{
    char *path = lade_path_join(entry, ".entry"), *text = NULL;
    json_t *about = NULL;
    if (!lade_path_read(path, S_MAX_ENTRY, &text, NULL, NULL))
        about = json_loads(text, 0, NULL);
    free(text);
    free(path);
    if (json_is_object(about))
        return about;
    json_decref(about);
    return NULL;
}

static double
s_used(const char *entry)
{
    char *path = lade_path_join(entry, ".entry");
    struct stat st;
    double used =
        stat(path, &st) == 0 ? (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9 : 0;
    free(path);
    return used;
}

// Was asked for now. The file system keeps it, without a wait for the disk.
static void
s_touch(const char *entry)
{
    char *path = lade_path_join(entry, ".entry");
    struct timespec now[2]; // exact, as the file system's own is not
    clock_gettime(CLOCK_REALTIME, &now[0]);
    now[1] = now[0];
    utimensat(AT_FDCWD, path, now, 0);
    free(path);
}

// ---------------------------------------------------------------------------------------------------
// Looking and making room

// The answer if the source is in the cache.
static bool
s_hit(const lade_stage_t *job, const char *digest, bool fetched, lade_answer_t *answer)
{
    int lock = s_lock(job->config, NULL);
    char *entry = s_entry(job->config, digest);
    json_t *about = s_read(entry);
    if (about) {
        char *path = lade_path_join(entry, lade_json_text(about, "name", ""));
        s_touch(entry);
        answer->result =
            json_pack("{s:o, s:I, s:b}", "path", json_string_nocheck(path), "bytes",
                      (json_int_t)lade_json_int(about, "bytes", 0), "cached", !fetched);
        free(path);
    }
    json_decref(about);
    free(entry);
    if (lock >= 0)
        close(lock);
    return answer->result != NULL;
}

typedef struct {
    char *entry;
    json_t *about;
    double used;
} s_known_t;

static int
s_compare(const void *a, const void *b)
{
    double x = ((const s_known_t *)a)->used, y = ((const s_known_t *)b)->used;
    return (x > y) - (x < y);
}

// All entries, the one not asked for longest first.
static s_known_t *
s_list(const lade_config_t *config, size_t *count_p)
{
    char *root = s_root(config);
    DIR *dir = opendir(root);
    s_known_t *known = NULL;
    size_t count = 0;
    for (struct dirent *at; dir && (at = readdir(dir));) {
        if (strlen(at->d_name) != S_DIGEST || strspn(at->d_name, "0123456789abcdef") != S_DIGEST)
            continue;
        char *entry = lade_path_join(root, at->d_name);
        known = realloc(known, (count + 1) * sizeof *known);
        if (!known)
            abort();
        known[count++] = (s_known_t){entry, s_read(entry), s_used(entry)};
    }
    if (dir)
        closedir(dir);
    free(root);
    if (count)
        qsort(known, count, sizeof *known, s_compare);
    *count_p = count;
    return known;
}

static void
s_free_list(s_known_t *known, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(known[i].entry);
        json_decref(known[i].about);
    }
    free(known);
}

// Over the limit, what was not asked for longest goes.
static void
s_make_room(const lade_config_t *config)
{
    if (config->file_cache_mb <= 0)
        return;
    int lock = s_lock(config, NULL);
    size_t count;
    s_known_t *known = s_list(config, &count);
    int64_t total = 0, limit = config->file_cache_mb << 20;
    for (size_t i = 0; i < count; i++)
        total += lade_json_int(known[i].about, "bytes", 0);
    for (size_t i = 0; i < count && total > limit; i++) {
        lade_error_t error = {0};
        if (lade_now() - known[i].used < S_SPARED_S)
            continue;
        if (lade_place_discard(config->models_dir, known[i].entry, &error))
            lade_log(LADE_LOG_WARNING, "cache", "%s", error.message);
        else
            total -= lade_json_int(known[i].about, "bytes", 0);
    }
    s_free_list(known, count);
    if (lock >= 0)
        close(lock);
}

// ---------------------------------------------------------------------------------------------------
// Publishing

// The one thing in a folder that is not hidden; you free it. NULL if there is none.
static char *
s_child(const char *folder)
{
    DIR *dir = opendir(folder);
    char *child = NULL;
    for (struct dirent *at; dir && !child && (at = readdir(dir));)
        if (at->d_name[0] != '.')
            child = lade_path_join(folder, at->d_name);
    if (dir)
        closedir(dir);
    return child;
}

static char *
s_making(const lade_stage_t *job)
{
    char *temp = lade_stage_temp(job), *making = lade_path_join(temp, "entry");
    free(temp);
    return making;
}

// Moves what was fetched into a folder of its own, with what is known of it, and that to its name.
// Another one that is there already is as good. about is taken.
static lade_code_t
s_publish(const lade_stage_t *job, const char *digest, const char *from, json_t *about,
          lade_error_t *error)
{
    char *making = s_making(job), *name = lade_path_name(from);
    char *to = lade_path_join(making, name), *note = lade_path_join(making, ".entry");
    char *entry = s_entry(job->config, digest), *root = s_root(job->config);
    lade_stage_set_text(about, "name", name);
    json_object_set_new(about, "bytes", json_integer(lade_path_size(from)));
    char *text = json_dumps(about, 0);
    lade_code_t code = lade_path_sync_tree(from, error);
    if (!code)
        code = lade_path_mkdirs(making, 0755, error);
    if (!code && strcmp(from, to) != 0)
        code = lade_path_publish(from, to, error);
    if (!code)
        code = lade_path_write(note, text ? text : "{}", strlen(text ? text : "{}"), 0644, error);
    if (!code)
        code = lade_path_mkdirs(root, 0755, error);
    if (!code)
        code = lade_path_publish(making, entry, error);
    if (code == LADE_EXISTS)
        code = LADE_OK;
    json_decref(about);
    free(text);
    free(root);
    free(entry);
    free(note);
    free(to);
    free(name);
    free(making);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// What an install could not identify

lade_code_t
lade_cache_keep(const lade_stage_t *job, const char *from, lade_error_t *error)
{
    char digest[S_DIGEST + 1];
    const char *source = lade_json_text(job->state, "source", "");
    char *temp = lade_stage_temp(job);
    s_digest(job, "kept", source, digest);
    json_t *about =
        json_pack("{s:s, s:O, s:s}", "source", source, "state", job->state, "temp", temp);
    char *entry = s_entry(job->config, digest);
    lade_place_discard(job->config->models_dir, entry, NULL); // of an earlier try
    lade_code_t code = s_publish(job, digest, from, about, error);
    if (!code)
        s_make_room(job->config);
    free(entry);
    free(temp);
    return code;
}

// The state as it is for files that lie in another job's folder now.
static json_t *
s_moved_state(const json_t *about, const char *temp, const char *path)
{
    json_t *state = json_deep_copy(json_object_get(about, "state"));
    json_t *files = json_object_get(state, "files");
    const char *old = lade_json_text(about, "temp", "");
    for (size_t i = 0; i < json_array_size(files); i++) {
        json_t *file = json_array_get(files, i);
        const char *place = lade_json_text(file, "destination", NULL);
        char *moved = place && lade_path_inside(old, place)
                          ? lade_path_join(temp, place + strlen(old) + 1)
                          : strdup(path); // the one file whose name the server chose
        lade_stage_set_text(file, "destination", moved);
        json_object_del(file, "destdir");
        free(moved);
    }
    if (json_object_get(state, "from"))
        lade_stage_set_text(state, "from", path);
    json_object_set_new(state, "rounds", json_integer(1));
    return state;
}

bool
lade_cache_take(const lade_stage_t *job, const char *source, lade_answer_t *answer)
{
    if (lade_json_bool(job->spec, "dry_run", false))
        return false;
    char digest[S_DIGEST + 1];
    s_digest(job, "kept", source, digest);
    char *entry = s_entry(job->config, digest), *temp = lade_stage_temp(job);
    json_t *about = s_read(entry);
    char *kept = lade_path_join(temp, ".kept");
    char *path = lade_path_join(temp, lade_json_text(about, "name", "-"));
    char *inside = lade_path_join(kept, lade_json_text(about, "name", "-"));
    bool taken = about && !lade_path_check_name(lade_json_text(about, "name", ""), NULL) &&
                 rename(entry, kept) == 0 && !lade_path_publish(inside, path, NULL);
    if (taken) {
        lade_place_discard(job->config->models_dir, kept, NULL);
        answer->waits = true;
        answer->state = s_moved_state(about, temp, path);
        answer->jobs = json_array();
        lade_log(LADE_LOG_INFO, "install", "job %" PRId64 ": what was fetched before is used",
                 job->id);
    }
    json_decref(about);
    free(inside);
    free(path);
    free(kept);
    free(temp);
    free(entry);
    return taken;
}

// ---------------------------------------------------------------------------------------------------
// The job

static lade_code_t
s_list_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    (void)error;
    size_t count;
    s_known_t *known = s_list(job->config, &count);
    json_t *files = json_array();
    for (size_t i = 0; i < count; i++) {
        char *path = lade_path_join(known[i].entry, lade_json_text(known[i].about, "name", ""));
        json_t *file = json_object();
        lade_stage_set_text(file, "source", lade_json_text(known[i].about, "source", ""));
        lade_stage_set_text(file, "path", path);
        json_object_set_new(file, "bytes", json_integer(lade_json_int(known[i].about, "bytes", 0)));
        json_object_set_new(file, "used", json_real(known[i].used));
        json_object_set_new(file, "kept", json_boolean(json_object_get(known[i].about, "state")));
        json_array_append_new(files, file);
        free(path);
    }
    s_free_list(known, count);
    answer->result = json_pack("{s:o, s:I}", "files", files, "limit_bytes",
                               (json_int_t)job->config->file_cache_mb << 20);
    return LADE_OK;
}

static lade_code_t
s_clear_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const char *only = lade_json_text(job->spec, "source", NULL);
    int lock = s_lock(job->config, error);
    size_t count = 0, cleared = 0;
    int64_t bytes = 0;
    lade_code_t code = lock < 0 ? error->code : LADE_OK;
    s_known_t *known = code ? NULL : s_list(job->config, &count);
    for (size_t i = 0; i < count && !code; i++) {
        if (only && strcmp(lade_json_text(known[i].about, "source", ""), only) != 0)
            continue;
        code = lade_place_discard(job->config->models_dir, known[i].entry, error);
        cleared += !code;
        bytes += code ? 0 : lade_json_int(known[i].about, "bytes", 0);
    }
    s_free_list(known, count);
    if (lock >= 0)
        close(lock);
    if (!code)
        answer->result =
            json_pack("{s:I, s:I}", "cleared", (json_int_t)cleared, "bytes", (json_int_t)bytes);
    return code;
}

// From the source: in the cache, on this machine anyway, or to be fetched.
static lade_code_t
s_begin(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    lade_source_t source = {0};
    char digest[S_DIGEST + 1];
    lade_code_t code = lade_resolve_source(job, &source, error);
    if (!code && source.kind == LADE_SOURCE_LOCAL) {
        answer->result = json_pack("{s:o, s:I, s:b}", "path", json_string_nocheck(source.path),
                                   "bytes", (json_int_t)lade_path_size(source.path), "cached", 1);
    } else if (!code) {
        s_digest(job, "fetched", source.text, digest);
        if (!s_hit(job, digest, false, answer)) {
            code = lade_place_claim(job->config, job->id, error);
            if (!code)
                code = lade_resolve_remote(job, &source, answer, error);
            if (!code && answer->state)
                lade_stage_set_text(answer->state, "digest", digest);
        }
    }
    lade_source_free(&source);
    return code;
}

static lade_code_t
s_fetched(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const char *digest = lade_json_text(job->state, "digest", "");
    char *making = s_making(job), *from = s_child(making); // an attempt before this came so far
    lade_code_t code = LADE_OK;
    bool there = !from && s_hit(job, digest, true, answer);
    if (!there && !from)
        code = lade_fetch_check(job, &from, answer, error);
    if (!code && from && lade_describe_is_file(from))
        code = lade_describe_refuse_page(from, error);
    if (!code && from)
        code = s_publish(job, digest, from,
                         json_pack("{s:s}", "source", lade_json_text(job->state, "source", "")),
                         error);
    if (!code && from) {
        s_make_room(job->config);
        if (!s_hit(job, digest, true, answer))
            code = lade_error_set(error, LADE_IO_ERROR, "the cache entry is gone already");
    }
    free(from);
    free(making);
    return code;
}

lade_code_t
lade_cache_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    static const struct {
        const char *op, *step;
        lade_code_t (*run)(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);
    } rows[] = {{"list", "", s_list_step},
                {"clear", "", s_clear_step},
                {"fetch", "", s_begin},
                {"fetch", "fetch", s_fetched}};
    const char *op = lade_json_text(job->spec, "op", "fetch"),
               *step = lade_json_text(job->state, "step", "");
    size_t row = 0, count = sizeof rows / sizeof *rows;
    while (row < count && (strcmp(rows[row].op, op) != 0 || strcmp(rows[row].step, step) != 0))
        row++;
    lade_code_t code = lade_stage_check(job, error);
    if (!code)
        code = row < count
                   ? rows[row].run(job, answer, error)
                   : lade_error_set(error, LADE_VALUE_ERROR, "op: takes fetch, list, clear");
    bool again =
        code == LADE_PAUSED || job->stop(job->arg) == LADE_STOP_STALE ||
        (lade_code_retry(code) && !answer->final && job->failures + 1 < job->config->max_attempts);
    if ((code && !again) || (!code && !answer->waits))
        lade_place_end(job->config, job->id, true, 0, NULL);
    return code;
}
