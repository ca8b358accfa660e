// Names, moves and removals below the models folder.
#include "workers/install/place.h"

#include "common/log.h"
#include "common/path.h"
#include "common/point.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { S_MAX_NAME = 200, S_MAX_NUMBER = 9999 };
static const char s_trash[] = "tmptrash_";

static char *s_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *
s_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    return text;
}

char *
lade_place_temp(const char *models_dir, int64_t job)
{
    return s_format("%s/tmpinstall_%" PRId64, models_dir, job);
}

// ---------------------------------------------------------------------------------------------------
// What is left of a job

static char *
s_hidden(const lade_config_t *config, int64_t job, const char *name)
{
    return s_format("%s/tmpinstall_%" PRId64 "/%s", config->models_dir, job, name);
}

// The broker, as nobody else calls it: a socket in a folder is one of this host.
static char *
s_owner(const lade_config_t *config)
{
    char host[256] = "";
    if (config->workers && strncmp(config->workers, "ipc:", 4) == 0)
        gethostname(host, sizeof host - 1);
    return s_format("%s %s", config->workers ? config->workers : "", host);
}

lade_code_t
lade_place_claim(const lade_config_t *config, int64_t job, lade_error_t *error)
{
    char *path = s_hidden(config, job, ".owner"), *owner = s_owner(config);
    char *folder = lade_path_folder(path);
    lade_code_t code = lade_path_mkdirs(folder, 0755, error);
    if (!code && access(path, F_OK) != 0)
        code = lade_path_write(path, owner, strlen(owner), 0644, error);
    free(folder);
    free(owner);
    free(path);
    return code;
}

lade_code_t
lade_place_mark(const lade_config_t *config, int64_t job, const char *to, uint64_t inode,
                lade_error_t *error)
{
    char *path = s_hidden(config, job, ".placed"), *text = s_format("%" PRIu64 " %s", inode, to);
    lade_code_t code = lade_place_claim(config, job, error);
    if (!code)
        code = lade_path_write(path, text, strlen(text), 0644, error);
    free(text);
    free(path);
    return code;
}

bool
lade_place_was_placed(const lade_config_t *config, int64_t job, const char *to)
{
    char *path = s_hidden(config, job, ".placed"), *text = NULL, *placed = NULL;
    uint64_t inode = 0;
    if (!lade_path_read(path, 16384, &text, NULL, NULL))
        inode = strtoull(text, &placed, 10);
    bool same = inode && *placed == ' ' && !strcmp(placed + 1, to) && lade_place_inode(to) == inode;
    free(text);
    free(path);
    return same;
}

lade_code_t
lade_place_note_part(const lade_config_t *config, int64_t job, const char *part,
                     lade_error_t *error)
{
    char *path = s_hidden(config, job, ".part");
    lade_code_t code = lade_place_claim(config, job, error);
    if (!code)
        code = lade_path_write(path, part, strlen(part), 0644, error);
    free(path);
    return code;
}

lade_code_t
lade_place_empty(const lade_config_t *config, int64_t job, lade_error_t *error)
{
    char *temp = lade_place_temp(config->models_dir, job);
    DIR *dir = opendir(temp);
    lade_code_t code = LADE_OK;
    for (struct dirent *entry; dir && !code && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        char *path = lade_path_join(temp, entry->d_name);
        code = lade_place_discard(config->models_dir, path, error);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(temp);
    return code;
}

static bool
s_is_owned(const lade_config_t *config, int64_t job)
{
    char *path = s_hidden(config, job, ".owner"), *owner = s_owner(config), *text = NULL;
    bool ours = !lade_path_read(path, 8192, &text, NULL, NULL) && strcmp(text, owner) == 0;
    free(text);
    free(owner);
    free(path);
    return ours;
}

json_t *
lade_place_owned(const lade_config_t *config)
{
    json_t *jobs = json_array();
    DIR *dir = opendir(config->models_dir);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int64_t job;
        int end = 0;
        if (sscanf(entry->d_name, "tmpinstall_%" SCNd64 "%n", &job, &end) == 1 && job > 0 &&
            !entry->d_name[end] && s_is_owned(config, job))
            json_array_append_new(jobs, json_integer(job));
    }
    if (dir)
        closedir(dir);
    return jobs;
}

// Removes what the job placed, if it is still that. Who places holds the folder's lock meanwhile.
static lade_code_t
s_unplace(const lade_config_t *config, const char *placed, double since, lade_error_t *error)
{
    char *text = NULL, *to = NULL;
    struct stat st;
    lade_code_t code = LADE_OK;
    bool there = stat(placed, &st) == 0 && !lade_path_read(placed, 16384, &text, NULL, NULL);
    uint64_t inode = there ? strtoull(text, &to, 10) : 0;
    if (inode && *to == ' ' && (double)st.st_mtim.tv_sec <= since &&
        lade_path_inside(config->models_dir, to + 1) && lade_place_inode(to + 1) == inode)
        code = lade_place_discard(config->models_dir, to + 1, error);
    free(text);
    return code;
}

// Only what has the name of a part of that job.
static lade_code_t
s_remove_part(const lade_config_t *config, int64_t job, lade_error_t *error)
{
    char *path = s_hidden(config, job, ".part"), *part = NULL, *end = s_format("-%" PRId64, job);
    lade_code_t code = LADE_OK;
    if (!lade_path_read(path, 16384, &part, NULL, NULL)) {
        const char *name = strrchr(part, '/');
        size_t len = strlen(part), end_len = strlen(end);
        if (*part == '/' && name[1] == '.' && len > end_len && !strcmp(part + len - end_len, end))
            code = lade_path_remove(part, error);
    }
    free(end);
    free(part);
    free(path);
    return code;
}

lade_code_t
lade_place_end(const lade_config_t *config, int64_t job, bool completed, double since,
               lade_error_t *error)
{
    char *temp = lade_place_temp(config->models_dir, job);
    char *placed = s_hidden(config, job, ".placed");
    lade_code_t code = completed ? LADE_OK : s_unplace(config, placed, since, error);
    if (!code)
        code = s_remove_part(config, job, error);
    if (!code)
        code = lade_place_discard(config->models_dir, temp, error);
    free(placed);
    free(temp);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Names

// Bytes of the UTF-8 character at text, 0 if there is none.
static size_t
s_character(const unsigned char *text)
{
    size_t len = text[0] < 0x80    ? 1
                 : text[0] >= 0xf0 ? 4
                 : text[0] >= 0xe0 ? 3
                 : text[0] >= 0xc2 ? 2
                                   : 0;
    for (size_t i = 1; i < len; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

char *
lade_place_safe_name(const char *name)
{
    char *safe = malloc(S_MAX_NAME + 8), *out = safe;
    for (const unsigned char *at = (const unsigned char *)name; *at && out - safe < S_MAX_NAME;) {
        size_t len = s_character(at);
        bool bad = len == 0 || *at < ' ' || *at == 0x7f || strchr("/\\:", *at) ||
                   (out == safe && strchr(". ", *at));
        if (bad)
            *out++ = '_';
        else
            out = (char *)memcpy(out, at, len) + len;
        at += len ? len : 1;
    }
    while (out > safe && out[-1] == ' ')
        out--;
    *out = '\0';
    if (lade_path_check_name(safe, NULL))
        strcpy(safe, "model");
    return safe;
}

// Where a file name's suffix begins: the last dot with one to twelve letters or digits after it.
static const char *
s_suffix(const char *name)
{
    const char *dot = strrchr(name, '.'), *end = name + strlen(name);
    if (!dot || dot == name || end - dot < 2 || end - dot > 13)
        return end;
    for (const char *at = dot + 1; *at; at++)
        if (strchr(" _-()[]", *at))
            return end;
    return dot;
}

char *
lade_place_file_name(const char *name, const char *source, bool is_file)
{
    char *own = lade_path_name(source);
    if (!name || !*name) {
        char *safe = lade_place_safe_name(own);
        free(own);
        return safe;
    }
    const char *suffix = is_file ? s_suffix(own) : "";
    size_t len = strlen(name), suffix_len = strlen(suffix);
    bool there = len > suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
    char *stem = strndup(name, there ? len - suffix_len : len);
    char *safe = lade_place_safe_name(stem);
    char *whole = s_format("%s%s", safe, suffix);
    free(own);
    free(stem);
    free(safe);
    return whole;
}

lade_code_t
lade_place_choose(const char *models_dir, const char *base, const char *type, const char *name,
                  bool is_file, char **relative_p, lade_error_t *error)
{
    *relative_p = NULL;
    char *folder = s_format("%s/%s/%s", models_dir, base, type);
    lade_code_t code = lade_path_mkdirs(folder, 0755, error);
    free(folder);
    const char *suffix = is_file ? s_suffix(name) : name + strlen(name);
    for (int number = 0; !code && number <= S_MAX_NUMBER; number++) {
        char count[16] = "";
        if (number > 0)
            snprintf(count, sizeof count, "_%02d", number);
        char *relative =
            s_format("%s/%s/%.*s%s%s", base, type, (int)(suffix - name), name, count, suffix);
        char *whole = lade_path_join(models_dir, relative);
        struct stat st;
        bool is_free = lstat(whole, &st) != 0 && errno == ENOENT;
        free(whole);
        if (is_free) {
            *relative_p = relative;
            return LADE_OK;
        }
        free(relative);
    }
    return code ? code
                : lade_error_set(error, LADE_EXISTS,
                                 "%s/%s/%s and its %d successors exist; give another name", base,
                                 type, name, S_MAX_NUMBER);
}

// ---------------------------------------------------------------------------------------------------
// Moves

uint64_t
lade_place_inode(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

lade_code_t
lade_place_publish(const char *from, const char *to, uint64_t inode, lade_error_t *error)
{
    lade_code_t code = lade_path_publish(from, to, error);
    if (!code)
        return LADE_OK;
    bool gone = lade_place_inode(from) == 0;
    if (gone && inode && lade_place_inode(to) == inode) {
        // An earlier attempt moved it; what it may not have come to is the sync.
        char *folder = lade_path_folder(to);
        code = lade_path_sync_folder(folder, error);
        free(folder);
        return code;
    }
    if (gone)
        return lade_error_set(error, LADE_NOT_FOUND, "%s is gone before it could be moved to %s",
                              from, to);
    return code;
}

lade_code_t
lade_place_withdraw(const char *from, const char *to, uint64_t inode, lade_error_t *error)
{
    if (!inode || lade_place_inode(to) != inode)
        return LADE_OK;
    char *folder = lade_path_folder(from);
    lade_code_t code = lade_path_mkdirs(folder, 0755, error);
    free(folder);
    return code ? code : lade_path_publish(to, from, error);
}

// ---------------------------------------------------------------------------------------------------
// Removals

lade_code_t
lade_place_discard(const char *models_dir, const char *path, lade_error_t *error)
{
    uint64_t nonce = 0;
    if (getrandom(&nonce, sizeof nonce, 0) != sizeof nonce)
        nonce = (uint64_t)getpid();
    char *trash = s_format("%s/%s%016" PRIx64, models_dir, s_trash, nonce);
    lade_code_t code = LADE_OK;
    LADE_POINT("discard");
    bool moved = rename(path, trash) == 0;
    int why = errno;
    LADE_POINT("discarded");
    errno = why;
    if (moved)
        code = lade_path_remove(trash, error);
    else if (errno != ENOENT && errno != ENOTDIR)
        code = lade_error_errno(error, errno, "cannot remove %s", path);
    free(trash);
    return code;
}

void
lade_place_sweep(const char *models_dir)
{
    DIR *dir = opendir(models_dir);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, s_trash, strlen(s_trash)) != 0)
            continue;
        char *path = lade_path_join(models_dir, entry->d_name);
        lade_error_t error = {0};
        if (lade_path_remove(path, &error))
            lade_log(LADE_LOG_WARNING, "sweep", "%s", error.message);
        free(path);
    }
    if (dir)
        closedir(dir);
}
