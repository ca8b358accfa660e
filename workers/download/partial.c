// Partial files.
//
// Order of the syncs. A checkpoint: bytes (fdatasync), then the journal (written beside, fsync,
// rename, folder fsync). So after a power loss the journal names only bytes that are there.
// Publishing: bytes, journal that says "publishing, inode N", rename, folder fsync, journal
// removed. A crash before the rename leaves a complete partial, which the next attempt publishes;
// after it, the final name is inode N and the next attempt knows that it was us.
#include "workers/download/partial.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"

#include <assert.h>
#include <czmq.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_MAX_JOURNAL = 64 << 10,
    S_MAX_BASE = 180, // of 255 bytes a name can have; the rest is for our dots and numbers
    S_READ_BYTES = 1 << 20,
};

struct lade_partial {
    char *folder;
    char *prefix;  // of the names of all attempts' partials
    char *part;    // name in the folder
    char *journal; // its name
    char *path;    // of the partial
    char *journal_path;
    char source[65];
    int64_t attempt;
    int fd;
    int64_t bytes;
    EVP_MD_CTX *hash;
};

// ---------------------------------------------------------------------------------------------------
// The journal

static char *
s_dup(const char *text)
{
    return text ? strdup(text) : NULL;
}

lade_journal_t
lade_journal_copy(const lade_journal_t *self)
{
    lade_journal_t copy = *self;
    copy.source = s_dup(self->source);
    copy.etag = s_dup(self->etag);
    copy.last_modified = s_dup(self->last_modified);
    copy.content_type = s_dup(self->content_type);
    copy.name = s_dup(self->name);
    copy.part = s_dup(self->part);
    copy.sha256 = s_dup(self->sha256);
    return copy;
}

void
lade_journal_free(lade_journal_t *self)
{
    char *texts[] = {self->source, self->etag, self->last_modified, self->content_type,
                     self->name,   self->part, self->sha256};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    *self = (lade_journal_t){.total = -1};
}

static void
s_hex(const unsigned char *bytes, size_t len, char *hex)
{
    for (size_t i = 0; i < len; i++)
        sprintf(hex + i * 2, "%02x", bytes[i]);
}

static void
s_digest_text(const char *text, char hex[65])
{
    unsigned char digest[32];
    EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL);
    s_hex(digest, sizeof digest, hex);
}

// Reads the journal; false if there is none or it is none.
static bool
s_journal_read(const char *path, lade_journal_t *journal)
{
    char *text = NULL;
    size_t len = 0;
    if (lade_path_read(path, S_MAX_JOURNAL, &text, &len, NULL))
        return false;
    json_t *map = json_loadb(text, len, 0, NULL);
    free(text);
    const char *part = lade_json_text(map, "part", NULL),
               *source = lade_json_text(map, "source", NULL);
    const char *name = lade_json_text(map, "name", NULL);
    bool good = lade_json_int(map, "version", 0) == 1 && part &&
                !lade_path_check_name(part, NULL) && source &&
                (!name || !lade_path_check_name(name, NULL));
    if (good)
        *journal = (lade_journal_t){
            .source = strdup(source),
            .part = strdup(part),
            .name = s_dup(name),
            .etag = s_dup(lade_json_text(map, "etag", NULL)),
            .last_modified = s_dup(lade_json_text(map, "last_modified", NULL)),
            .content_type = s_dup(lade_json_text(map, "content_type", NULL)),
            .sha256 = s_dup(lade_json_text(map, "sha256", NULL)),
            .total = lade_json_int(map, "total", -1),
            .bytes = lade_json_int(map, "bytes", 0),
            .attempt = lade_json_int(map, "attempt", 0),
            .publishing = lade_json_bool(map, "publishing", false),
            .inode = (uint64_t)lade_json_int(map, "inode", 0),
            .device = (uint64_t)lade_json_int(map, "device", 0),
            .mtime_ns = lade_json_int(map, "mtime_ns", 0),
        };
    else
        lade_log(LADE_LOG_WARNING, "download", "%s is no journal of ours; it is passed over", path);
    json_decref(map);
    return good;
}

static json_t *
s_journal_map(const lade_partial_t *self, const lade_journal_t *journal)
{
    return json_pack(
        "{s:i, s:s, s:s, s:s*, s:s*, s:s*, s:s*, s:s*, s:I, s:I, s:I, s:b, s:I, s:I, s:I}",
        "version", 1, "source", self->source, "part", self->part, "etag", journal->etag,
        "last_modified", journal->last_modified, "content_type", journal->content_type, "name",
        journal->name, "sha256", journal->sha256, "total", (json_int_t)journal->total, "bytes",
        (json_int_t)journal->bytes, "attempt", (json_int_t)self->attempt, "publishing",
        (int)journal->publishing, "inode", (json_int_t)journal->inode, "device",
        (json_int_t)journal->device, "mtime_ns", (json_int_t)journal->mtime_ns);
}

// Whether a later attempt has the journal. Two processes could both read and then both write; the
// later one's next checkpoint sets that right, and a journal that names a partial which is gone is
// only bytes fetched again.
static bool
s_overtaken(const lade_partial_t *self)
{
    lade_journal_t there = {0};
    bool later = access(self->journal_path, F_OK) == 0 &&
                 s_journal_read(self->journal_path, &there) && there.attempt > self->attempt &&
                 strcmp(there.source, self->source) == 0;
    lade_journal_free(&there);
    return later;
}

static lade_code_t
s_journal_write(const lade_partial_t *self, const lade_journal_t *journal, lade_error_t *error)
{
    if (s_overtaken(self))
        return lade_error_set(error, LADE_STALE_LEASE, "a later attempt works on %s", self->path);
    json_t *map = s_journal_map(self, journal);
    char *text = map ? json_dumps(map, JSON_INDENT(1)) : NULL;
    json_decref(map);
    if (!text) // a header was no UTF-8; it is no use as a validator then
        return lade_error_set(error, LADE_CORRUPT, "cannot write the journal %s",
                              self->journal_path);
    lade_code_t code = lade_path_write(self->journal_path, text, strlen(text), 0600, error);
    free(text);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Bytes

static lade_code_t
s_hash_fd(int fd, int64_t bytes, EVP_MD_CTX *hash, const lade_partial_where_t *where,
          const char *path, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    char *block = malloc(S_READ_BYTES);
    if (!block)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to read %s", path);
    for (int64_t at = 0; at < bytes && !code;) {
        size_t want = bytes - at < S_READ_BYTES ? (size_t)(bytes - at) : S_READ_BYTES;
        ssize_t got = pread(fd, block, want, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            code = got < 0
                       ? lade_error_errno(error, errno, "cannot read %s", path)
                       : lade_error_set(error, LADE_CORRUPT, "%s ended at byte %" PRId64, path, at);
        else if (where->stop && where->stop(where->arg))
            code = lade_error_set(error, LADE_CANCELLED, "stopped while reading %s", path);
        else if (!EVP_DigestUpdate(hash, block, (size_t)got))
            code = lade_error_set(error, LADE_INTERNAL, "sha256 failed");
        else
            at += got;
    }
    free(block);
    return code;
}

static void
s_hash_begin(EVP_MD_CTX *hash)
{
    if (!EVP_DigestInit_ex(hash, EVP_sha256(), NULL))
        abort(); // an OpenSSL without sha256 is no machine to run on
}

static void
s_hash_end(const EVP_MD_CTX *hash, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    if (!copy || !EVP_MD_CTX_copy_ex(copy, hash) || !EVP_DigestFinal_ex(copy, digest, NULL))
        abort();
    EVP_MD_CTX_free(copy);
    s_hex(digest, 32, hex);
}

// ---------------------------------------------------------------------------------------------------
// Opening

// True if nobody else has the file open: the kernel grants a write lease only then. Held until
// s_let while we rename.
static bool
s_lease(int fd)
{
    // Should somebody open the file at this moment we are sent a signal; SIGURG is one that is
    // ignored by itself.
    return fcntl(fd, F_SETSIG, SIGURG) == 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
}

static void
s_let(int fd)
{
    fcntl(fd, F_SETLEASE, F_UNLCK);
}

static bool
s_poll_stop(void *arg, int64_t bytes)
{
    const lade_partial_where_t *where = arg;
    (void)bytes;
    return !where->stop || !where->stop(where->arg);
}

// Gives the file a second name, ours; where names cannot be shared it is moved.
static bool
s_rename(const char *old, const char *new)
{
    unlink(new);
    return link(old, new) == 0 || rename(old, new) == 0;
}

// Brings the partial at old under our name, into an inode only we can write to. The old name stays
// if it can: until the journal tells of the new one, a crash must find the bytes under the old.
static lade_code_t
s_take_over(lade_partial_t *self, const char *old, const lade_partial_where_t *where,
            lade_error_t *error)
{
    int fd = open(old, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot open %s", old);
    if (s_lease(fd)) {
        int failed = s_rename(old, self->path) ? 0 : errno;
        s_let(fd);
        if (failed) {
            close(fd);
            return lade_error_errno(error, failed, "cannot rename %s", old);
        }
        self->fd = fd;
        return LADE_OK;
    }
    close(fd);
    lade_path_remove(self->path, NULL);
    lade_code_t code = lade_path_copy(old, self->path, s_poll_stop, (void *)where, error);
    if (code)
        return code;
    self->fd = open(self->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return self->fd < 0 ? lade_error_errno(error, errno, "cannot open %s", self->path) : LADE_OK;
}

// Cuts what was taken over to what the journal vouches for, and makes the journal ours.
static lade_code_t
s_claim(lade_partial_t *self, const lade_journal_t *journal, lade_error_t *error)
{
    struct stat st;
    if (fstat(self->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < journal->bytes)
        return lade_error_set(error, LADE_CORRUPT, "%s is shorter than its journal says",
                              self->path);
    if (ftruncate(self->fd, journal->bytes) != 0)
        return lade_error_errno(error, errno, "cannot cut %s", self->path);
    lade_journal_t claim = *journal; // borrows its texts
    claim.publishing = false;
    return s_journal_write(self, &claim, error);
}

// A failure that says nothing against the kept bytes: they are for a later attempt, or one has
// them.
static bool
s_keeps(lade_code_t code)
{
    return code == LADE_NO_SPACE || code == LADE_NO_MEMORY || code == LADE_STALE_LEASE;
}

// Takes the bytes a journal tells of. LADE_CANCELLED if stopped. Of the other failures some keep
// the bytes where they were (s_keeps), the rest mean: begin anew.
static lade_code_t
s_adopt(lade_partial_t *self, const lade_partial_where_t *where, const lade_journal_t *journal,
        lade_error_t *error)
{
    char *old = lade_path_join(self->folder, journal->part);
    lade_code_t code = LADE_OK;
    if (strcmp(old, self->path) != 0)
        code = s_take_over(self, old, where, error);
    else if ((self->fd = open(old, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) < 0)
        code = lade_error_errno(error, errno, "cannot open %s", old);
    if (!code)
        code = s_claim(self, journal, error);
    if (s_keeps(code) && strcmp(old, self->path) != 0 && access(old, F_OK) == 0)
        unlink(self->path); // the second name, or what was copied before the disk was full
    free(old);
    if (!code)
        code = s_hash_fd(self->fd, journal->bytes, self->hash, where, self->path, error);
    if (!code)
        self->bytes = journal->bytes;
    return code;
}

static lade_code_t
s_create(lade_partial_t *self, lade_error_t *error)
{
    if (self->fd >= 0)
        close(self->fd);
    unlink(self->path);
    unlink(self->journal_path);
    s_hash_begin(self->hash);
    self->bytes = 0;
    self->fd = open(self->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    return self->fd < 0 ? lade_error_errno(error, errno, "cannot create %s", self->path) : LADE_OK;
}

// Whether a name is what an attempt before ours left: its partial, or a journal it was killed in
// writing.
static bool
s_is_leftover(const lade_partial_t *self, const char *name)
{
    size_t len = strlen(self->prefix);
    if (strncmp(name, self->journal, strlen(self->journal)) == 0)
        return strncmp(name + strlen(self->journal), ".tmp-", 5) == 0;
    if (strncmp(name, self->prefix, len) != 0)
        return false;
    char *end;
    long long attempt = strtoll(name + len, &end, 10);
    return strcmp(end, ".part") == 0 && attempt > 0 && attempt < self->attempt;
}

static void
s_sweep(const lade_partial_t *self)
{
    DIR *folder = self->attempt > 1 ? opendir(self->folder) : NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (s_is_leftover(self, entry->d_name))
            unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        closedir(folder);
}

// Whether somebody has one of the partials open, or it cannot be told.
static bool
s_is_in_use(const lade_partial_t *self)
{
    DIR *folder = opendir(self->folder);
    bool used = false;
    for (struct dirent *entry; folder && !used && (entry = readdir(folder));) {
        if (!s_is_leftover(self, entry->d_name) ||
            strncmp(entry->d_name, self->prefix, strlen(self->prefix)) != 0)
            continue;
        int fd = openat(dirfd(folder), entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        used = fd < 0 || !s_lease(fd);
        if (fd >= 0)
            close(fd); // the lease goes with it
    }
    if (folder)
        closedir(folder);
    return used;
}

static int64_t
s_mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static bool
s_is_published(const lade_partial_t *self, const lade_journal_t *journal)
{
    if (!journal->publishing || !journal->name)
        return false;
    char *final = lade_path_join(self->folder, journal->name);
    struct stat st;
    bool same = lstat(final, &st) == 0 && S_ISREG(st.st_mode) &&
                (uint64_t)st.st_ino == journal->inode && (uint64_t)st.st_dev == journal->device &&
                st.st_size == journal->bytes && s_mtime_ns(&st) == journal->mtime_ns;
    free(final);
    return same;
}

// The base, cut to what leaves room for our own parts, never within a UTF-8 character.
static int
s_base_len(const char *base)
{
    size_t len = strlen(base);
    if (len > S_MAX_BASE)
        for (len = S_MAX_BASE; len > 0 && ((unsigned char)base[len] & 0xc0) == 0x80;)
            len--;
    return (int)len;
}

static lade_partial_t *
s_new(const lade_partial_where_t *where)
{
    lade_partial_t *self = zmalloc(sizeof *self);
    self->fd = -1;
    self->attempt = where->attempt;
    self->folder = strdup(where->folder);
    self->hash = EVP_MD_CTX_new();
    s_digest_text(where->source, self->source);
    int len = s_base_len(where->base);
    if (!self->folder || !self->hash ||
        asprintf(&self->prefix, ".%.*s.%" PRId64 "-", len, where->base, where->id) < 0 ||
        asprintf(&self->part, "%s%" PRId64 ".part", self->prefix, where->attempt) < 0 ||
        asprintf(&self->journal, ".%.*s.%" PRId64 ".journal", len, where->base, where->id) < 0)
        abort();
    self->path = lade_path_join(self->folder, self->part);
    self->journal_path = lade_path_join(self->folder, self->journal);
    s_hash_begin(self->hash);
    return self;
}

lade_code_t
lade_partial_open(lade_partial_t **self_p, const lade_partial_where_t *where,
                  lade_journal_t *journal, lade_error_t *error)
{
    lade_partial_t *self = s_new(where);
    lade_error_t why = {0};
    *self_p = NULL;
    *journal = (lade_journal_t){.total = -1};
    bool ours = s_journal_read(self->journal_path, journal) &&
                strcmp(journal->source, self->source) == 0 &&
                (journal->bytes > 0 || journal->publishing);
    if (ours && journal->attempt > self->attempt) {
        lade_partial_close(&self);
        return lade_error_set(error, LADE_STALE_LEASE, "a later attempt works in %s",
                              where->folder);
    }
    if (ours && s_is_published(self, journal)) {
        s_sweep(self);
        unlink(self->journal_path);
        lade_partial_close(&self);
        return LADE_OK;
    }
    lade_code_t code = ours ? s_adopt(self, where, journal, &why) : LADE_NOT_FOUND;
    if (code && code != LADE_CANCELLED && !s_keeps(code)) {
        if (ours)
            lade_log(LADE_LOG_INFO, "download", "%s; beginning anew", why.message);
        lade_journal_free(journal);
        code = s_create(self, &why);
    }
    journal->publishing = false;
    if (!code)
        s_sweep(self);
    if (code && error)
        *error = why;
    if (code && code != LADE_CANCELLED)
        lade_partial_close(&self);
    *self_p = self;
    return code;
}

int64_t
lade_partial_bytes(const lade_partial_t *self)
{
    return self->bytes;
}

// ---------------------------------------------------------------------------------------------------
// Writing

lade_code_t
lade_partial_append(lade_partial_t *self, const void *bytes, size_t len, lade_error_t *error)
{
    const char *at = bytes;
    for (size_t left = len; left;) {
        ssize_t done = pwrite(self->fd, at, left, self->bytes);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return lade_error_errno(error, errno, "cannot write %s", self->path);
        if (!EVP_DigestUpdate(self->hash, at, (size_t)done))
            return lade_error_set(error, LADE_INTERNAL, "sha256 failed");
        self->bytes += done;
        at += done;
        left -= (size_t)done;
    }
    return LADE_OK;
}

lade_code_t
lade_partial_restart(lade_partial_t *self, lade_error_t *error)
{
    // The journal goes first: it must not tell of bytes that are about to change.
    if (!s_overtaken(self) && unlink(self->journal_path) == 0) {
        lade_code_t code = lade_path_sync_folder(self->folder, error);
        if (code)
            return code;
    }
    if (ftruncate(self->fd, 0) != 0)
        return lade_error_errno(error, errno, "cannot empty %s", self->path);
    self->bytes = 0;
    s_hash_begin(self->hash);
    return LADE_OK;
}

// Whether our name is still on our file. A later attempt takes it off, and may have ended and left
// nothing by now: a journal written then would stay for ever.
static bool
s_is_ours(const lade_partial_t *self)
{
    struct stat named, opened;
    return lstat(self->path, &named) == 0 && fstat(self->fd, &opened) == 0 &&
           named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

lade_code_t
lade_partial_checkpoint(lade_partial_t *self, const lade_journal_t *journal, lade_error_t *error)
{
    if (fdatasync(self->fd) != 0)
        return lade_error_errno(error, errno, "cannot sync %s", self->path);
    if (!s_is_ours(self))
        return lade_error_set(error, LADE_STALE_LEASE, "%s is gone: a later attempt took it over",
                              self->path);
    return s_journal_write(self, journal, error);
}

void
lade_partial_digest(const lade_partial_t *self, char hex[65])
{
    s_hash_end(self->hash, hex);
}

lade_code_t
lade_partial_publish(lade_partial_t *self, lade_journal_t *journal, lade_error_t *error)
{
    assert(journal->name);
    struct stat st;
    char hex[65];
    lade_partial_digest(self, hex);
    if (fstat(self->fd, &st) != 0)
        return lade_error_errno(error, errno, "cannot look at %s", self->path);
    free(journal->sha256);
    journal->sha256 = strdup(hex);
    journal->bytes = journal->total = self->bytes;
    journal->inode = (uint64_t)st.st_ino;
    journal->device = (uint64_t)st.st_dev;
    journal->mtime_ns = s_mtime_ns(&st);
    journal->publishing = true;
    lade_code_t code = lade_partial_checkpoint(self, journal, error);
    if (code)
        return code;
    char *final = lade_path_join(self->folder, journal->name);
    code = lade_path_publish(self->path, final, error);
    free(final);
    if (!code)
        unlink(self->journal_path);
    return code;
}

void
lade_partial_remove(lade_partial_t *self)
{
    unlink(self->path);
    s_sweep(self);
    if (!s_overtaken(self))
        unlink(self->journal_path);
}

void
lade_partial_discard(const lade_partial_where_t *where)
{
    lade_partial_where_t any = *where;
    any.attempt = INT64_MAX; // later than those that left something
    lade_partial_t *self = s_new(&any);
    lade_journal_t journal = {0};
    bool other =
        access(self->journal_path, F_OK) == 0 && (!s_journal_read(self->journal_path, &journal) ||
                                                  strcmp(journal.source, self->source) != 0);
    if (!other && !s_is_in_use(self)) {
        s_sweep(self);
        unlink(self->journal_path);
    }
    lade_journal_free(&journal);
    lade_partial_close(&self);
}

void
lade_partial_close(lade_partial_t **self_p)
{
    lade_partial_t *self = *self_p;
    if (!self)
        return;
    if (self->fd >= 0)
        close(self->fd);
    EVP_MD_CTX_free(self->hash);
    free(self->folder);
    free(self->prefix);
    free(self->journal);
    free(self->part);
    free(self->path);
    free(self->journal_path);
    free(self);
    *self_p = NULL;
}

lade_code_t
lade_partial_hash_file(const char *path, bool (*stop)(void *arg), void *arg, char hex[65],
                       lade_error_t *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        lade_code_t code = lade_error_errno(error, errno, "cannot open %s", path);
        if (fd >= 0)
            close(fd);
        return code;
    }
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    s_hash_begin(hash);
    lade_partial_where_t where = {.stop = stop, .arg = arg};
    lade_code_t code = s_hash_fd(fd, st.st_size, hash, &where, path, error);
    if (!code)
        s_hash_end(hash, hex);
    EVP_MD_CTX_free(hash);
    close(fd);
    return code;
}
