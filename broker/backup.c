// Backing up: a copy into a file without a name, which gets one when it is whole and on disk.
#include "broker/backup.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define S_TRAILER                                                                                  \
    "lade backup 1\nschema %" PRIu64 "\nmodels %" PRIu64 "\ncreated %.3f\nbytes %" PRIu64          \
    "\nsha256 %s\n"
enum { S_TRAILER_BYTES = 256 };

// ---------------------------------------------------------------------------------------------------
// Digests

static void
s_digest_text(EVP_MD_CTX *digest, char text[65])
{
    uint8_t bytes[EVP_MAX_MD_SIZE] = {0};
    EVP_DigestFinal_ex(digest, bytes, NULL);
    for (size_t i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static EVP_MD_CTX *
s_digest_new(void)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    if (!digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
        abort();
    return digest;
}

// ---------------------------------------------------------------------------------------------------
// The copy

typedef struct {
    char *path;
    bool overwrite;
    // of run
    lade_chore_t *chore;
    int fd;
    char *temporary; // NULL: the file has no name yet
    EVP_MD_CTX *digest;
    uint64_t bytes;
    int failed; // errno of a write
} s_backup_t;

static void
s_free(void *state)
{
    s_backup_t *self = state;
    free(self->path);
    free(self->temporary);
    free(self);
}

static bool
s_write(s_backup_t *self, const char *bytes, size_t len)
{
    while (len) {
        ssize_t done = write(self->fd, bytes, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            self->failed = done < 0 ? errno : EIO;
            return false;
        }
        bytes += done;
        len -= (size_t)done;
    }
    return true;
}

static bool
s_take(void *arg, const void *bytes, size_t len)
{
    s_backup_t *self = arg;
    EVP_DigestUpdate(self->digest, bytes, len);
    self->bytes += len;
    atomic_store(&self->chore->done, (int64_t)self->bytes);
    return s_write(self, bytes, len) && !atomic_load(&self->chore->stop);
}

static lade_code_t
s_copy(s_backup_t *self, json_t **result_p, lade_error_t *error)
{
    lade_chore_t *chore = self->chore;
    uint64_t schema = 0, models = lade_store_count(chore->view, LADE_DB_MODELS);
    char trailer[S_TRAILER_BYTES + 1], sha256[65];
    double begun = lade_now();
    lade_code_t code = lade_store_get_number(chore->view, "schema", &schema, error);
    atomic_store(&chore->total, (int64_t)lade_store_copy_bytes(chore->view));
    if (!code)
        code = lade_store_copy(chore->view, s_take, self, error);
    s_digest_text(self->digest, sha256);
    memset(trailer, '\n', sizeof trailer);
    int len =
        snprintf(trailer, sizeof trailer, S_TRAILER, schema, models, begun, self->bytes, sha256);
    trailer[len] = '\n';
    if (!code)
        s_write(self, trailer, S_TRAILER_BYTES);
    if (self->failed || (!code && fsync(self->fd) != 0))
        return lade_error_errno(error, self->failed ? self->failed : errno,
                                "cannot write the backup %s", self->path);
    if (!code)
        *result_p = json_pack("{s:s, s:I, s:I, s:I, s:s, s:f}", "path", self->path, "bytes",
                              (json_int_t)(self->bytes + S_TRAILER_BYTES), "models",
                              (json_int_t)models, "schema", (json_int_t)schema, "sha256", sha256,
                              "seconds", lade_now() - begun);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The file: without a name until it is whole, so that whatever ends us leaves nothing

static lade_code_t
s_open(s_backup_t *self, lade_error_t *error)
{
    struct stat stat;
    if (!self->overwrite && lstat(self->path, &stat) == 0)
        return lade_error_set(error, LADE_EXISTS,
                              "%s is there already: choose another name, or ask to overwrite it",
                              self->path);
    char *folder = lade_path_folder(self->path);
    self->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (self->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        char *name = lade_path_name(self->path);
        if (asprintf(&self->temporary, "%s/.%s.%ld.lade-backup", folder, name, (long)getpid()) < 0)
            abort();
        free(name);
        self->fd = open(self->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    int failed = self->fd < 0 ? errno : 0;
    lade_code_t code =
        failed ? lade_error_errno(error, failed, "cannot write a backup in %s", folder) : LADE_OK;
    free(folder);
    return code;
}

// Gives a file without a name one that nobody else uses.
static lade_code_t
s_name(s_backup_t *self, lade_error_t *error)
{
    if (self->temporary)
        return LADE_OK;
    char from[64], *folder = lade_path_folder(self->path), *name = lade_path_name(self->path), *to;
    snprintf(from, sizeof from, "/proc/self/fd/%d", self->fd);
    if (asprintf(&to, "%s/.%s.%ld.lade-backup", folder, name, (long)getpid()) < 0)
        abort();
    free(folder);
    free(name);
    unlink(to);
    int failed = linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) ? errno : 0;
    self->temporary = failed ? NULL : to;
    if (!failed)
        return LADE_OK;
    free(to);
    return lade_error_errno(error, failed, "cannot give the backup its name %s", self->path);
}

static lade_code_t
s_publish(s_backup_t *self, lade_error_t *error)
{
    lade_code_t code = s_name(self, error);
    if (!code && !self->overwrite)
        code = lade_path_publish(self->temporary, self->path, error);
    else if (!code && rename(self->temporary, self->path) != 0)
        code = lade_error_errno(error, errno, "cannot give the backup its name %s", self->path);
    char *folder = lade_path_folder(self->path);
    if (!code)
        code = lade_path_sync_folder(folder, error);
    else if (self->temporary)
        unlink(self->temporary);
    free(folder);
    return code;
}

static lade_code_t
s_run(lade_chore_t *chore, json_t **result_p, lade_error_t *error)
{
    s_backup_t *self = chore->state;
    self->chore = chore;
    lade_code_t code = s_open(self, error);
    if (code)
        return code;
    self->digest = s_digest_new();
    code = s_copy(self, result_p, error);
    EVP_MD_CTX_free(self->digest);
    if (!code)
        code = s_publish(self, error);
    else if (self->temporary)
        unlink(self->temporary);
    close(self->fd);
    if (!code)
        lade_log(LADE_LOG_INFO, "keyspace", "backed up into %s, %" PRIu64 " bytes", self->path,
                 self->bytes + S_TRAILER_BYTES);
    return code;
}

static const lade_chore_kind_t s_kind = {.name = "a backup", .run = s_run, .free = s_free};

lade_code_t
lade_backup_call(lade_call_t *call, lade_error_t *error)
{
    char *path;
    lade_code_t code = lade_call_need_text(call, "path", &path, error);
    if (!code && *path != '/') {
        free(path);
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "path: an absolute one is needed, on the broker's host");
    }
    if (code)
        return code;
    s_backup_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->path = path;
    self->overwrite = lade_wire_bool(call->args, "overwrite", false);
    return lade_chores_start(call->broker->chores, call, &s_kind, self, error);
}
