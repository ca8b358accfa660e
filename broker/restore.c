// Restoring: the file is looked at as a whole, its keyspace is made ready beside the one that is
// there, and then both exchange their names.
#include "broker/backup.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { S_TRAILER_BYTES = 256, S_PIECE = 1 << 20 };

// ---------------------------------------------------------------------------------------------------
// The file

static lade_code_t
s_read_trailer(const char *file, const char *text, uint64_t size, lade_backup_info_t *info,
               lade_error_t *error)
{
    *info = (lade_backup_info_t){0};
    int got = sscanf(text,
                     "lade backup 1\nschema %" SCNu64 "\nmodels %" SCNu64
                     "\ncreated %lf\nbytes %" SCNu64 "\nsha256 %64[0-9a-f]\n",
                     &info->schema, &info->models, &info->created, &info->bytes, info->sha256);
    if (got != 5 || strlen(info->sha256) != 64)
        return lade_error_set(
            error, LADE_CORRUPT,
            "%s is no backup of lade, or was cut short: its end does not say what "
            "it is",
            file);
    if (info->bytes != size - S_TRAILER_BYTES)
        return lade_error_set(error, LADE_CORRUPT,
                              "%s has %" PRIu64 " bytes and says it has %" PRIu64
                              ": it was changed after it was made",
                              file, size, info->bytes + S_TRAILER_BYTES);
    if (info->schema > LADE_STORE_SCHEMA)
        return lade_error_set(error, LADE_SCHEMA_TOO_NEW,
                              "%s has schema %" PRIu64
                              ", this lade knows up to %d; use the newer lade that wrote it",
                              file, info->schema, LADE_STORE_SCHEMA);
    return LADE_OK;
}

// Reads the content; copies it to out if that is no less than 0.
static lade_code_t
s_read_content(const char *file, int fd, int out, const lade_backup_info_t *info,
               lade_error_t *error)
{
    char *piece = malloc(S_PIECE), text[65] = "";
    uint8_t digest[EVP_MAX_MD_SIZE] = {0};
    EVP_MD_CTX *sha256 = EVP_MD_CTX_new();
    if (!piece || !sha256 || EVP_DigestInit_ex(sha256, EVP_sha256(), NULL) != 1)
        abort();
    lade_code_t code = LADE_OK;
    for (uint64_t at = 0; !code && at < info->bytes;) {
        size_t want = info->bytes - at < S_PIECE ? (size_t)(info->bytes - at) : S_PIECE;
        ssize_t len = pread(fd, piece, want, (off_t)at);
        if (len <= 0)
            code = lade_error_errno(error, len < 0 ? errno : EIO, "cannot read %s", file);
        else if (out >= 0 && pwrite(out, piece, (size_t)len, (off_t)at) != len)
            code = lade_error_errno(error, errno ? errno : EIO, "cannot write the keyspace");
        else
            EVP_DigestUpdate(sha256, piece, (size_t)len);
        at += code ? 0 : (uint64_t)len;
    }
    EVP_DigestFinal_ex(sha256, digest, NULL);
    for (size_t i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    if (!code && strcmp(text, info->sha256) != 0)
        code = lade_error_set(
            error, LADE_CORRUPT,
            "%s is not what was written: its sha256 is another; take another copy", file);
    EVP_MD_CTX_free(sha256);
    free(piece);
    return code;
}

static lade_code_t
s_open_file(const char *file, int *fd_p, lade_backup_info_t *info, lade_error_t *error)
{
    char trailer[S_TRAILER_BYTES + 1] = "";
    struct stat stat;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    *fd_p = -1;
    if (fd < 0 || fstat(fd, &stat) != 0) {
        lade_code_t code = lade_error_errno(error, errno, "cannot read the backup %s", file);
        if (fd >= 0)
            close(fd);
        return code;
    }
    bool fits =
        S_ISREG(stat.st_mode) && stat.st_size > S_TRAILER_BYTES &&
        pread(fd, trailer, S_TRAILER_BYTES, stat.st_size - S_TRAILER_BYTES) == S_TRAILER_BYTES;
    lade_code_t code =
        s_read_trailer(file, fits ? trailer : "", (uint64_t)stat.st_size, info, error);
    if (code)
        close(fd);
    else
        *fd_p = fd;
    return code;
}

lade_code_t
lade_backup_check(const char *file, lade_backup_info_t *info, lade_error_t *error)
{
    int fd;
    lade_code_t code = s_open_file(file, &fd, info, error);
    if (!code) {
        code = s_read_content(file, fd, -1, info, error);
        close(fd);
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The keyspace

// Holds the lock of a keyspace that is there. *fd_p is -1 if there is none.
static lade_code_t
s_lock(const char *keyspace, bool force, int *fd_p, lade_error_t *error)
{
    *fd_p = -1;
    char *lock = lade_path_join(keyspace, "owner"), *data = lade_path_join(keyspace, "data.mdb");
    struct stat stat;
    lade_code_t code = LADE_OK;
    *fd_p = open(lock, O_RDWR | O_CLOEXEC);
    if (*fd_p >= 0 && flock(*fd_p, LOCK_EX | LOCK_NB) != 0)
        code = lade_error_set(error, LADE_BUSY,
                              "a broker is running on %s: stop it first (lade status shows it)",
                              keyspace);
    else if (!force && lstat(data, &stat) == 0)
        code =
            lade_error_set(error, LADE_EXISTS,
                           "there is a keyspace in %s already: with --force it is kept aside and "
                           "the backup takes its place",
                           keyspace);
    if (code && *fd_p >= 0) {
        close(*fd_p);
        *fd_p = -1;
    }
    free(lock);
    free(data);
    return code;
}

// What a broker did after the backup was made is not known to it, and workers may still be at it:
// the numbers it gave out then are not given out again.
static lade_code_t
s_step_over(lade_store_t *store, lade_error_t *error)
{
    enum { S_STEP = 1000000 };
    uint64_t epoch = 0, job = 0, now = (uint64_t)time(NULL);
    lade_code_t code = lade_store_get_number(store, "epoch", &epoch, error);
    if (code && code != LADE_NOT_FOUND)
        return code;
    code = lade_store_get_number(store, "next_job", &job, error);
    if (code && code != LADE_NOT_FOUND)
        return code;
    code = lade_store_put_number(store, "epoch", epoch > now ? epoch : now, error);
    if (!code)
        code = lade_store_put_number(store, "next_job", (job ? job : 1) + S_STEP, error);
    return code ? code : lade_store_commit(store, error);
}

// Writes the content into a keyspace of its own and opens it once, which migrates an older schema.
static lade_code_t
s_make(const char *folder, const char *file, int fd, const lade_backup_info_t *info,
       lade_error_t *error)
{
    lade_store_t *store = NULL;
    char *path = lade_path_join(folder, "data.mdb");
    lade_code_t code = lade_path_mkdirs(folder, 0700, error);
    int out = code ? -1 : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (!code && out < 0)
        code = lade_error_errno(error, errno, "cannot write %s", path);
    if (!code)
        code = s_read_content(file, fd, out, info, error);
    if (!code && fsync(out) != 0)
        code = lade_error_errno(error, errno, "cannot write %s", path);
    if (out >= 0)
        close(out);
    if (!code)
        code = lade_store_open(folder, &store, error);
    if (!code)
        code = s_step_over(store, error);
    lade_store_close(&store);
    free(path);
    return code ? code : lade_path_sync_folder(folder, error);
}

static char *
s_aside(const char *keyspace)
{
    char when[32], *path;
    time_t now = time(NULL);
    struct tm tm;
    strftime(when, sizeof when, "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
    if (asprintf(&path, "%s.before-%s", keyspace, when) < 0)
        abort();
    for (int i = 2; access(path, F_OK) == 0; i++) {
        free(path);
        if (asprintf(&path, "%s.before-%s-%d", keyspace, when, i) < 0)
            abort();
    }
    return path;
}

// The new one gets the name in one step, so that there is always one of them.
static lade_code_t
s_take_place(const char *made, const char *keyspace, char **aside_p, lade_error_t *error)
{
    *aside_p = NULL;
    if (access(keyspace, F_OK) != 0)
        return lade_path_publish(made, keyspace, error);
    if (renameat2(AT_FDCWD, made, AT_FDCWD, keyspace, RENAME_EXCHANGE) != 0)
        return lade_error_errno(error, errno,
                                "cannot put the restored keyspace into the place of %s", keyspace);
    char *aside = s_aside(keyspace);
    if (rename(made, aside) != 0) {
        free(aside);
        aside = strdup(made);
    }
    *aside_p = aside;
    char *folder = lade_path_folder(keyspace);
    lade_code_t code = lade_path_sync_folder(folder, error);
    free(folder);
    return code;
}

lade_code_t
lade_backup_restore(const char *data, const char *file, bool force, lade_backup_info_t *info,
                    char **aside_p, lade_error_t *error)
{
    int fd, lock = -1;
    char *keyspace = lade_path_join(data, "keyspace"), *made = NULL;
    *aside_p = NULL;
    if (asprintf(&made, "%s.restore-%ld", keyspace, (long)getpid()) < 0)
        abort();
    lade_code_t code = s_open_file(file, &fd, info, error);
    if (!code)
        code = s_read_content(file, fd, -1, info, error);
    if (!code)
        code = lade_path_mkdirs(data, 0700, error);
    if (!code)
        code = s_lock(keyspace, force, &lock, error);
    if (!code) {
        code = s_make(made, file, fd, info, error);
        if (!code)
            code = s_take_place(made, keyspace, aside_p, error);
        if (code && !*aside_p) // else it may be what was there before
            lade_path_remove(made, NULL);
    }
    if (fd >= 0)
        close(fd);
    if (lock >= 0)
        close(lock);
    free(keyspace);
    free(made);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The program

int
lade_backup_main(int argc, char **argv)
{
    lade_config_t config = {0};
    lade_error_t error = {0};
    lade_backup_info_t info = {0};
    char *aside = NULL;
    const char *file = argv[2];
    bool force = argc > 3 && strcmp(argv[3], "--force") == 0;
    int exit_status = 0, taken = force ? 3 : 2;
    argv[taken] = argv[0];
    if (!lade_config_from_args(&config, "lade-broker", "Restores a backup of the keyspace.",
                               argc - taken, argv + taken, &exit_status)) {
        lade_config_free(&config);
        return exit_status;
    }
    lade_code_t code = lade_backup_restore(config.data, file, force, &info, &aside, &error);
    json_t *said = code ? json_pack("{s:{s:s, s:s}}", "error", "code", lade_code_name(code),
                                    "message", error.message)
                        : json_pack("{s:s, s:I, s:I, s:f, s:s?}", "data", config.data, "models",
                                    (json_int_t)info.models, "bytes", (json_int_t)info.bytes,
                                    "created", info.created, "aside", aside);
    char *text = json_dumps(said, 0);
    puts(text ? text : "{}");
    free(text);
    json_decref(said);
    free(aside);
    lade_config_free(&config);
    return code ? lade_code_exit(code) : 0;
}
