// Equal content.
#include "workers/install/equal.h"

#include "common/path.h"
#include "common/wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

json_t *
lade_equal_ask(const lade_stage_t *job, const char *hash)
{
    if (!hash || strcmp(lade_json_text(job->spec, "on_equal", "refuse"), "copy") == 0)
        return NULL;
    return json_pack("[{s:s, s:s}]", "op", "by_hash", "hash", hash);
}

json_t *
lade_equal_ask_source(const lade_stage_t *job, const char *source)
{
    if (strcmp(lade_json_text(job->spec, "on_equal", "refuse"), "refuse") != 0)
        return NULL;
    return json_pack("[{s:s, s:o}]", "op", "by_source", "source", json_string_nocheck(source));
}

// Where the record's files are.
static char *
s_place(const lade_stage_t *job, const json_t *record)
{
    const char *path = lade_json_text(record, "path", "");
    return *path == '/' ? strdup(path) : lade_path_join(job->config->models_dir, path);
}

const json_t *
lade_equal_find(const lade_stage_t *job, const char *field, const char *value)
{
    const json_t *records = json_array_get(job->answers, 0);
    for (size_t i = 0; json_is_array(records) && i < json_array_size(records); i++) {
        const json_t *record = json_array_get(records, i);
        char *path = s_place(job, record);
        struct stat st;
        // An index may cut long values; the hash tells the size.
        bool there =
            value && strcmp(lade_json_text(record, field, ""), value) == 0 && stat(path, &st) == 0;
        free(path);
        if (there)
            return record;
    }
    return NULL;
}

bool
lade_equal_links(const lade_stage_t *job)
{
    return strcmp(lade_json_text(job->spec, "on_equal", ""), "link") == 0 &&
           !lade_json_bool(job->spec, "inplace", false);
}

lade_code_t
lade_equal_refuse(const lade_stage_t *job, const json_t *record, lade_answer_t *answer,
                  lade_error_t *error)
{
    char *path = s_place(job, record);
    const char *key = lade_json_text(record, "key", "");
    answer->result = json_object();
    lade_stage_set_text(answer->result, "key", key);
    lade_stage_set_text(answer->result, "local_path", path);
    lade_error_set(
        error, LADE_DUPLICATE_MODEL,
        "this model is installed already: %.100s (%s) at %.200s; on_equal (`lade install "
        "--again`) `link` makes a second record of the same bytes, `copy` a second copy",
        lade_json_text(record, "name", ""), key, path);
    free(path);
    return LADE_DUPLICATE_MODEL;
}

// ---------------------------------------------------------------------------------------------------
// Comparing

enum { S_PIECE = 1 << 20, S_MAX_DEPTH = 64 };

typedef struct {
    const lade_stage_t *job;
    bool same;
    int depth;
} s_compare_t;

static lade_code_t
s_compare_bytes(s_compare_t *self, int a, int b, const char *path, lade_error_t *error)
{
    char *pieces = malloc(2 * S_PIECE);
    lade_code_t code = pieces ? LADE_OK : lade_error_set(error, LADE_NO_MEMORY, "no memory");
    for (off_t at = 0; !code && self->same;) {
        ssize_t got = pread(a, pieces, S_PIECE, at);
        if (got < 0) {
            code = lade_error_errno(error, errno, "cannot read %s", path);
            break;
        }
        ssize_t other = 0;
        for (ssize_t more = 1; other < got && more > 0; other += more > 0 ? more : 0)
            more = pread(b, pieces + S_PIECE + other, (size_t)(got - other), at + other);
        self->same = other == got && memcmp(pieces, pieces + S_PIECE, (size_t)got) == 0;
        if (got == 0)
            break;
        at += got;
        code = lade_stage_check(self->job, error);
    }
    free(pieces);
    return code;
}

static lade_code_t
s_compare_files(s_compare_t *self, const char *a, const char *b, lade_error_t *error)
{
    int fd_a = open(a, O_RDONLY | O_CLOEXEC), fd_b = open(b, O_RDONLY | O_CLOEXEC);
    struct stat st_a, st_b;
    lade_code_t code = LADE_OK;
    if (fd_a < 0 || fd_b < 0 || fstat(fd_a, &st_a) != 0 || fstat(fd_b, &st_b) != 0)
        code = lade_error_errno(error, errno, "cannot read %s", fd_a < 0 ? a : b);
    else if (st_a.st_size != st_b.st_size)
        self->same = false;
    else if (st_a.st_dev != st_b.st_dev || st_a.st_ino != st_b.st_ino)
        code = s_compare_bytes(self, fd_a, fd_b, a, error);
    if (fd_a >= 0)
        close(fd_a);
    if (fd_b >= 0)
        close(fd_b);
    return code;
}

static lade_code_t s_compare(s_compare_t *self, const char *a, const char *b, lade_error_t *error);

// Everything of folder a that counts is in folder b, and the same.
static lade_code_t
s_compare_folders(s_compare_t *self, const char *a, const char *b, lade_error_t *error)
{
    DIR *dir = opendir(a);
    if (!dir)
        return lade_error_errno(error, errno, "cannot read the folder %s", a);
    lade_code_t code = LADE_OK;
    for (struct dirent *entry; !code && self->same && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *in_a = lade_path_join(a, entry->d_name), *in_b = lade_path_join(b, entry->d_name);
        code = s_compare(self, in_a, in_b, error);
        free(in_a);
        free(in_b);
    }
    closedir(dir);
    return code;
}

static lade_code_t
s_compare(s_compare_t *self, const char *a, const char *b, lade_error_t *error)
{
    struct stat st_a, st_b;
    if (stat(a, &st_a) != 0 || (!S_ISREG(st_a.st_mode) && !S_ISDIR(st_a.st_mode)))
        return LADE_OK; // no part of a model: the copy has none either
    if (stat(b, &st_b) != 0 || (st_a.st_mode & S_IFMT) != (st_b.st_mode & S_IFMT) ||
        self->depth > S_MAX_DEPTH) {
        self->same = false;
        return LADE_OK;
    }
    if (S_ISREG(st_a.st_mode))
        return s_compare_files(self, a, b, error);
    struct stat link;
    if (self->depth && lstat(a, &link) == 0 && S_ISLNK(link.st_mode))
        return LADE_OK; // links to folders are not copied
    self->depth++;
    lade_code_t code = s_compare_folders(self, a, b, error);
    self->depth--;
    return code;
}

lade_code_t
lade_equal_compare(const lade_stage_t *job, const char *a, const char *b, bool *same_p,
                   lade_error_t *error)
{
    s_compare_t compare = {job, lade_path_size(a) == lade_path_size(b), 0};
    lade_code_t code = compare.same ? s_compare(&compare, a, b, error) : LADE_OK;
    *same_p = !code && compare.same;
    return code;
}

lade_code_t
lade_equal_link(const lade_stage_t *job, const json_t *record, const char *like, const char *to,
                lade_error_t *error)
{
    char *from = s_place(job, record), *folder = lade_path_folder(to);
    bool same = false;
    lade_code_t code = lade_equal_compare(job, like, from, &same, error);
    if (!code && !same)
        code = lade_error_set(error, LADE_NOT_FOUND, "%s and %s differ", like, from);
    if (!code)
        code = lade_path_mkdirs(folder, 0755, error);
    if (!code)
        code = lade_path_link(from, to, NULL, NULL, error);
    free(folder);
    free(from);
    return code;
}
