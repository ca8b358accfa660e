// Partial files.
//
// Order of the syncs. A checkpoint: bytes (fdatasync), then the journal (written beside, fsync,
// rename, folder fsync). So after a power loss the journal names only bytes that are there.
// Publishing: bytes, journal that says "publishing, inode N", rename, folder fsync, journal
// removed. A crash before the rename leaves a complete partial, which the next attempt publishes;
// after it, the final name is inode N and the next attempt knows that it was us. A file that never
// had a journal (a small one) is published without: there are no kept bytes to lose then.
// Forgetting: the journal is removed and the folder synced before the bytes it tells of change.
#include "workers/download/partial.h"

#include "common/log.h"
#include "common/path.h"
#include "common/point.h"
#include "common/wire.h"
#include "workers/download/block.h"

#include <assert.h>
#include <czmq.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    S_MAX_JOURNAL = 64 << 10,
    S_MAX_BASE = 180,          // of 255 bytes a name can have; the rest is for our dots and numbers
    S_STEP_BYTES = 64 << 20,   // of space, for a file of unknown length
    S_SMALL_BYTES = 512 << 10, // less is written without asking for space first
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
    int fd, direct; // the same file, the latter past the page cache; -1 where that is not possible
    bool journaled; // the journal is on disk
    _Atomic int64_t reserved; // up to this byte
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
    copy.ranges = lade_ranges_copy(&self->ranges);
    return copy;
}

void
lade_journal_free(lade_journal_t *self)
{
    char *texts[] = {self->source, self->etag, self->last_modified, self->content_type,
                     self->name,   self->part, self->sha256};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    lade_ranges_free(&self->ranges);
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

// Reads [[from, to], ...]; false if it is none.
static bool
s_ranges_read(const json_t *list, lade_ranges_t *ranges)
{
    bool good = json_is_array(list);
    for (size_t i = 0; good && i < json_array_size(list); i++) {
        json_int_t from, to;
        good = json_unpack(json_array_get(list, i), "[I, I!]", &from, &to) == 0 && from >= 0 &&
               from < to && to <= INT64_MAX / 2;
        if (good)
            lade_ranges_add(ranges, from, to);
    }
    return good;
}

static json_t *
s_ranges_map(const lade_ranges_t *ranges)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ranges->count; i++)
        json_array_append_new(list, json_pack("[I, I]", (json_int_t)ranges->items[i].from,
                                              (json_int_t)ranges->items[i].to));
    return list;
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
    lade_ranges_t ranges = {0};
    bool good = lade_json_int(map, "version", 0) == 2 && part &&
                !lade_path_check_name(part, NULL) && source &&
                (!name || !lade_path_check_name(name, NULL)) &&
                s_ranges_read(json_object_get(map, "ranges"), &ranges);
    int64_t total = lade_json_int(map, "total", -1);
    good = good && total <= INT64_MAX / 2 && (total < 0 || lade_ranges_end(&ranges) <= total);
    if (good)
        *journal = (lade_journal_t){
            .source = strdup(source),
            .part = strdup(part),
            .name = s_dup(name),
            .etag = s_dup(lade_json_text(map, "etag", NULL)),
            .last_modified = s_dup(lade_json_text(map, "last_modified", NULL)),
            .content_type = s_dup(lade_json_text(map, "content_type", NULL)),
            .sha256 = s_dup(lade_json_text(map, "sha256", NULL)),
            .total = total < 0 ? -1 : total,
            .ranges = ranges,
            .attempt = lade_json_int(map, "attempt", 0),
            .publishing = lade_json_bool(map, "publishing", false),
            .inode = (uint64_t)lade_json_int(map, "inode", 0),
            .device = (uint64_t)lade_json_int(map, "device", 0),
            .mtime_ns = lade_json_int(map, "mtime_ns", 0),
        };
    else
        lade_ranges_free(&ranges);
    if (!good)
        lade_log(LADE_LOG_WARNING, "download", "%s is no journal of ours; it is passed over", path);
    json_decref(map);
    return good;
}

static json_t *
s_journal_map(const lade_partial_t *self, const lade_journal_t *journal)
{
    return json_pack(
        "{s:i, s:s, s:s, s:s*, s:s*, s:s*, s:s*, s:s*, s:I, s:o, s:I, s:b, s:I, s:I, s:I}",
        "version", 2, "source", self->source, "part", self->part, "etag", journal->etag,
        "last_modified", journal->last_modified, "content_type", journal->content_type, "name",
        journal->name, "sha256", journal->sha256, "total", (json_int_t)journal->total, "ranges",
        s_ranges_map(&journal->ranges), "attempt", (json_int_t)self->attempt, "publishing",
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
s_journal_write(lade_partial_t *self, const lade_journal_t *journal, lade_error_t *error)
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
    self->journaled |= code == LADE_OK;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Bytes

// Reads exactly len bytes; LADE_CORRUPT if the file ends before.
static lade_code_t
s_read(int fd, int64_t at, void *bytes, size_t len, const char *path, lade_error_t *error)
{
    for (char *to = bytes; len;) {
        ssize_t got = pread(fd, to, len, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lade_error_errno(error, errno, "cannot read %s", path);
        if (got == 0)
            return lade_error_set(error, LADE_CORRUPT, "%s ended at byte %" PRId64, path, at);
        to += got;
        at += got;
        len -= (size_t)got;
    }
    return LADE_OK;
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

// Checks that what was taken over can hold what the journal vouches for, and makes the journal
// ours.
static lade_code_t
s_claim(lade_partial_t *self, const lade_journal_t *journal, lade_error_t *error)
{
    struct stat st;
    if (fstat(self->fd, &st) != 0 || !S_ISREG(st.st_mode) ||
        st.st_size < lade_ranges_end(&journal->ranges))
        return lade_error_set(error, LADE_CORRUPT, "%s is shorter than its journal says",
                              self->path);
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
    return code;
}

static lade_code_t
s_create(lade_partial_t *self, lade_error_t *error)
{
    if (self->fd >= 0)
        close(self->fd);
    enum { S_NEW = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW };
    self->journaled = false;
    self->fd = open(self->path, S_NEW, 0666);
    if (self->fd < 0 && errno == EEXIST && unlink(self->path) == 0)
        self->fd = open(self->path, S_NEW, 0666);
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
    if (!journal->publishing || !journal->name || !journal->sha256)
        return false;
    char *final = lade_path_join(self->folder, journal->name);
    struct stat st;
    bool same = lstat(final, &st) == 0 && S_ISREG(st.st_mode) &&
                (uint64_t)st.st_ino == journal->inode && (uint64_t)st.st_dev == journal->device &&
                st.st_size == journal->total && s_mtime_ns(&st) == journal->mtime_ns;
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
    self->fd = self->direct = -1;
    self->attempt = where->attempt;
    self->folder = strdup(where->folder);
    s_digest_text(where->source, self->source);
    int len = s_base_len(where->base);
    if (!self->folder ||
        asprintf(&self->prefix, ".%.*s.%" PRId64 "-", len, where->base, where->id) < 0 ||
        asprintf(&self->part, "%s%" PRId64 ".part", self->prefix, where->attempt) < 0 ||
        asprintf(&self->journal, ".%.*s.%" PRId64 ".journal", len, where->base, where->id) < 0)
        abort();
    self->path = lade_path_join(self->folder, self->part);
    self->journal_path = lade_path_join(self->folder, self->journal);
    return self;
}

// Reads the journal of an earlier attempt of this job, if there is one worth having.
static bool
s_is_continued(const lade_partial_t *self, lade_journal_t *journal)
{
    return access(self->journal_path, F_OK) == 0 && s_journal_read(self->journal_path, journal) &&
           strcmp(journal->source, self->source) == 0 &&
           // Nobody's journal makes us write into a file that is no partial of this job.
           strncmp(journal->part, self->prefix, strlen(self->prefix)) == 0 &&
           (journal->ranges.bytes > 0 || journal->publishing);
}

lade_code_t
lade_partial_open(lade_partial_t **self_p, const lade_partial_where_t *where,
                  lade_journal_t *journal, lade_error_t *error)
{
    lade_partial_t *self = s_new(where);
    lade_error_t why = {0};
    *self_p = NULL;
    *journal = (lade_journal_t){.total = -1};
    bool ours = s_is_continued(self, journal);
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
        if (access(self->journal_path, F_OK) == 0)
            unlink(self->journal_path);
        code = s_create(self, &why);
    }
    journal->publishing = false;
    if (!code) {
        s_sweep(self);
        self->direct = open(self->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_DIRECT);
    }
    if (code && error)
        *error = why;
    if (code && code != LADE_CANCELLED)
        lade_partial_close(&self);
    *self_p = self;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Space

static bool
s_has_space(const lade_partial_t *self, int64_t more)
{
    struct statvfs fs;
    return fstatvfs(self->fd, &fs) != 0 ||
           (int64_t)fs.f_bavail >= more / (int64_t)(fs.f_frsize ? fs.f_frsize : 1);
}

static lade_code_t
s_no_space(const lade_partial_t *self, int64_t more, lade_error_t *error)
{
    return lade_error_set(error, LADE_NO_SPACE,
                          "no room for %" PRId64
                          " more bytes in %s; make room, it goes on by itself",
                          more, self->folder);
}

lade_code_t
lade_partial_reserve(lade_partial_t *self, int64_t total, lade_error_t *error)
{
    struct stat st;
    if (fstat(self->fd, &st) != 0)
        return lade_error_errno(error, errno, "cannot look at %s", self->path);
    int64_t more = total - (int64_t)st.st_blocks * 512;
    if (more > 0 && !s_has_space(self, more))
        return s_no_space(self, more, error);
    int failed = total > 0 && fallocate(self->fd, 0, 0, total) != 0 ? errno : 0;
    if (failed == ENOSPC || failed == EDQUOT) {
        if (ftruncate(self->fd, st.st_size) != 0) // gives back what it got before the end
            return lade_error_errno(error, errno, "cannot cut %s", self->path);
        return s_no_space(self, more, error);
    }
    atomic_store(&self->reserved,
                 failed ? INT64_MAX : total); // no promise to be had: none is asked again
    return LADE_OK;
}

// A file of unknown length takes its space in steps. What cannot be had shows when it is written.
static void
s_reserve_step(lade_partial_t *self, int64_t end)
{
    int64_t reserved = atomic_load(&self->reserved);
    if (end <= reserved ||
        !atomic_compare_exchange_strong(&self->reserved, &reserved, end + S_STEP_BYTES))
        return;
    if (fallocate(self->fd, FALLOC_FL_KEEP_SIZE, reserved, end + S_STEP_BYTES - reserved) != 0 &&
        errno != ENOSPC)
        atomic_store(&self->reserved, INT64_MAX);
}

char *
lade_partial_volume(const char *folder)
{
    char *at = realpath(folder, NULL);
    struct stat here, above;
    if (!at || lstat(at, &here) != 0) {
        free(at);
        return strdup("/");
    }
    while (strcmp(at, "/") != 0) {
        char *up = lade_path_folder(at);
        bool mount = lstat(up, &above) != 0 || above.st_dev != here.st_dev;
        if (mount) {
            free(up);
            break;
        }
        free(at);
        at = up;
    }
    return at;
}

// ---------------------------------------------------------------------------------------------------
// Writing

static bool
s_is_aligned(const void *bytes, int64_t at, size_t len)
{
    return ((uintptr_t)bytes | (uint64_t)at | len) % LADE_BLOCK_ALIGN == 0;
}

lade_code_t
lade_partial_write(lade_partial_t *self, int64_t at, const void *bytes, size_t len,
                   lade_error_t *error)
{
    bool direct = self->direct >= 0 && len && s_is_aligned(bytes, at, len);
    if (len > S_SMALL_BYTES)
        s_reserve_step(self, at + (int64_t)len);
    for (const char *from = bytes; len;) {
        ssize_t done = pwrite(direct ? self->direct : self->fd, from, len, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && direct &&
            errno == EINVAL) { // this file system wants more alignment than ours
            direct = false;
            continue;
        }
        if (done < 0)
            return lade_error_errno(error, errno, "cannot write %s", self->path);
        from += done;
        at += done;
        len -= (size_t)done;
        direct = direct && s_is_aligned(from, at, len);
    }
    return LADE_OK;
}

lade_code_t
lade_partial_read(lade_partial_t *self, int64_t at, void *bytes, size_t len, lade_error_t *error)
{
    return s_read(self->fd, at, bytes, len, self->path, error);
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
    self->journaled = false;
    atomic_store(&self->reserved, 0);
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

// Makes the bytes durable, if the file is still ours.
static lade_code_t
s_sync(const lade_partial_t *self, lade_error_t *error)
{
    LADE_POINT("partial sync");
    if (fdatasync(self->fd) != 0)
        return lade_error_errno(error, errno, "cannot sync %s", self->path);
    LADE_POINT("partial synced");
    if (!s_is_ours(self))
        return lade_error_set(error, LADE_STALE_LEASE, "%s is gone: a later attempt took it over",
                              self->path);
    return LADE_OK;
}

lade_code_t
lade_partial_checkpoint(lade_partial_t *self, const lade_journal_t *journal, lade_error_t *error)
{
    lade_code_t code = s_sync(self, error);
    return code ? code : s_journal_write(self, journal, error);
}

// Notes in the journal that this inode is about to get its final name.
static lade_code_t
s_announce(lade_partial_t *self, lade_journal_t *journal, lade_error_t *error)
{
    struct stat st;
    if (fstat(self->fd, &st) != 0)
        return lade_error_errno(error, errno, "cannot look at %s", self->path);
    journal->inode = (uint64_t)st.st_ino;
    journal->device = (uint64_t)st.st_dev;
    journal->mtime_ns = s_mtime_ns(&st);
    journal->publishing = true;
    return s_journal_write(self, journal, error);
}

lade_code_t
lade_partial_publish(lade_partial_t *self, lade_journal_t *journal, lade_error_t *error)
{
    assert(journal->name && journal->sha256);
    // Cuts off what was reserved beyond the end.
    if (atomic_load(&self->reserved) && ftruncate(self->fd, journal->total) != 0)
        return lade_error_errno(error, errno, "cannot cut %s", self->path);
    lade_code_t code = s_sync(self, error);
    if (!code && self->journaled)
        code = s_announce(self, journal, error);
    if (code)
        return code;
    char *final = lade_path_join(self->folder, journal->name);
    code = lade_path_publish(self->path, final, error);
    free(final);
    if (!code && self->journaled)
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
    if (self->direct >= 0)
        close(self->direct);
    free(self->folder);
    free(self->prefix);
    free(self->journal);
    free(self->part);
    free(self->path);
    free(self->journal_path);
    free(self);
    *self_p = NULL;
}
