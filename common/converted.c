// Where converted copies are, and whether they still are copies.
#include "common/converted.h"

#include "common/path.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { S_MAX_NOTE = 1 << 20 };

char *
lade_converted_root(const char *models_dir)
{
    return lade_path_join(models_dir, ".convert_cache");
}

char *
lade_converted_path(const char *models_dir, const char *key)
{
    char *root = lade_converted_root(models_dir), *path = lade_path_join(root, key);
    free(root);
    return path;
}

const char *
lade_converted_sentinel(const json_t *record)
{
    return strcmp(lade_json_text(record, "type", ""), "main") == 0 ? "model_index.json"
                                                                   : "config.json";
}

lade_code_t
lade_converted_source(const char *models_dir, const json_t *record, char **path_p,
                      lade_error_t *error)
{
    const char *path = lade_json_text(record, "path", "");
    *path_p = NULL;
    if (!*path)
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "path: the record has none");
    if (*path != '/' && lade_path_check_relative(path, error)) {
        lade_error_wrap(error, "path");
        return error ? error->code = LADE_INVALID_MODEL_CONFIG : LADE_INVALID_MODEL_CONFIG;
    }
    *path_p = *path == '/' ? strdup(path) : lade_path_join(models_dir, path);
    return *path_p ? LADE_OK : lade_error_set(error, LADE_NO_MEMORY, "no memory for a path");
}

json_t *
lade_converted_note(const char *models_dir, const json_t *record)
{
    char *path;
    struct stat st;
    if (lade_converted_source(models_dir, record, &path, NULL))
        return NULL;
    bool there = stat(path, &st) == 0;
    free(path);
    if (!there)
        return NULL;
    json_t *note =
        json_pack("{s:I, s:I, s:I}", "size", (json_int_t)st.st_size, "mtime",
                  (json_int_t)st.st_mtim.tv_sec, "mtime_ns", (json_int_t)st.st_mtim.tv_nsec);
    json_object_set_new(note, "updated_at", json_real(lade_json_real(record, "updated_at", 0)));
    json_object_set(note, "path", json_object_get(record, "path"));
    return note;
}

// What the `.entry` of a copy says; NULL if it is none.
static json_t *
s_read(const char *entry)
{
    char *path = lade_path_join(entry, ".entry"), *text = NULL;
    json_t *note = NULL;
    if (!lade_path_read(path, S_MAX_NOTE, &text, NULL, NULL))
        note = json_loads(text, 0, NULL);
    free(text);
    free(path);
    if (json_is_object(note))
        return note;
    json_decref(note);
    return NULL;
}

static bool
s_is_there(const char *folder, const char *name)
{
    char *path = lade_path_join(folder, name);
    struct stat st;
    bool there = stat(path, &st) == 0;
    free(path);
    return there;
}

bool
lade_converted_is_fresh(const char *models_dir, const json_t *record, json_t **note_p)
{
    const char *key = lade_json_text(record, "key", "");
    if (note_p)
        *note_p = NULL;
    if (lade_path_check_name(key, NULL))
        return false;
    char *entry = lade_converted_path(models_dir, key);
    json_t *now = lade_converted_note(models_dir, record), *note = s_read(entry), *value;
    bool fresh = now && note && s_is_there(entry, lade_converted_sentinel(record));
    const char *name;
    json_object_foreach(now, name, value) fresh =
        fresh && json_equal(value, json_object_get(note, name));
    free(entry);
    json_decref(now);
    if (note_p)
        *note_p = note;
    else
        json_decref(note);
    return fresh;
}

static char *
s_note_path(const char *models_dir, const char *key)
{
    char *entry = lade_converted_path(models_dir, key), *path = lade_path_join(entry, ".entry");
    free(entry);
    return path;
}

void
lade_converted_touch(const char *models_dir, const char *key, double ahead_s)
{
    char *path = s_note_path(models_dir, key);
    struct timespec now[2]; // exact, as the file system's own is not
    clock_gettime(CLOCK_REALTIME, &now[0]);
    now[0].tv_sec += (time_t)ahead_s;
    now[1] = now[0];
    utimensat(AT_FDCWD, path, now, 0);
    free(path);
}

// The lock is on `.entry`, which goes with the copy: what was opened may be another copy's by the
// time it is locked.
static int
s_lock(const char *path, int how)
{
    struct stat held, there;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    bool locked = flock(fd, how | LOCK_NB) == 0;
    int why = locked ? ESTALE : errno;
    if (locked && fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_ino == there.st_ino &&
        held.st_dev == there.st_dev)
        return fd;
    close(fd);
    errno = why;
    return -1;
}

int
lade_converted_hold(const char *models_dir, const char *key)
{
    char *path = s_note_path(models_dir, key);
    int fd = s_lock(path, LOCK_SH);
    free(path);
    return fd;
}

lade_code_t
lade_converted_claim(const char *models_dir, const char *key, int *fd_p, lade_error_t *error)
{
    char *path = s_note_path(models_dir, key);
    *fd_p = s_lock(path, LOCK_EX);
    bool held = *fd_p < 0 && errno == EWOULDBLOCK;
    free(path);
    return held ? lade_error_set(error, LADE_BUSY, "the converted copy of %s is being read", key)
                : LADE_OK;
}
