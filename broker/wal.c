// The write-ahead log of the keyspace.
#include "broker/wal.h"

#include "common/hash.h"
#include "common/path.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { S_SECTOR = 512, S_CHECK = 16 };

typedef struct {
    char magic[4];
    uint32_t len;
    uint64_t generation;
    uint64_t number;
    uint8_t check[S_CHECK]; // of what is before it and of the batch
} s_head_t;
_Static_assert(sizeof(s_head_t) == 40, "the head of a record has holes");

static const char s_magic[4] = "LWAL";

struct lade_wal {
    int fd;
    size_t bytes; // of the file
    uint64_t generation;
    uint64_t number; // of the next record
    size_t at;       // where it goes
    bool failed;     // an append failed: what the log holds there is not known
    char *record;    // room for one
    size_t room;
};

static size_t
s_padded(size_t len)
{
    return (sizeof(s_head_t) + len + S_SECTOR - 1) / S_SECTOR * S_SECTOR;
}

// Room for a record of that size; what is added is zeros.
static lade_code_t
s_reserve(lade_wal_t *self, size_t size, lade_error_t *error)
{
    if (size <= self->room)
        return LADE_OK;
    char *record = realloc(self->record, size);
    if (!record)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a batch of %zu bytes", size);
    self->record = record;
    self->room = size;
    return LADE_OK;
}

static void
s_check(const s_head_t *head, char *record, size_t len, uint8_t check[S_CHECK])
{
    // The head without its check, right before the batch.
    enum { S_BEFORE = offsetof(s_head_t, check) };
    char *from = record + sizeof *head - S_BEFORE;
    char kept[S_BEFORE];
    memcpy(kept, from, S_BEFORE);
    memcpy(from, head, S_BEFORE);
    lade_hash_murmur3(from, S_BEFORE + len, check);
    memcpy(from, kept, S_BEFORE);
}

// ---------------------------------------------------------------------------------------------------
// Opening

// Writes all blocks once, under another name until they are durable.
static lade_code_t
s_make(const char *path, size_t bytes, lade_error_t *error)
{
    char *zeros = calloc(1, bytes);
    if (!zeros)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to make %s", path);
    lade_code_t code = lade_path_write(path, zeros, bytes, 0600, error);
    free(zeros);
    return code;
}

lade_code_t
lade_wal_open(const char *folder, size_t bytes, lade_wal_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    char *path = lade_path_join(folder, "wal");
    struct stat st;
    lade_code_t code = LADE_OK;
    if (stat(path, &st) != 0)
        code = errno == ENOENT ? s_make(path, bytes, error)
                               : lade_error_errno(error, errno, "cannot look at %s", path);
    int fd = code ? -1 : open(path, O_RDWR | O_DSYNC | O_CLOEXEC);
    if (!code && (fd < 0 || fstat(fd, &st) != 0))
        code = lade_error_errno(error, errno, "cannot open %s", path);
    lade_wal_t *self = code ? NULL : calloc(1, sizeof *self);
    if (!code && !self)
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory for the log of the keyspace");
    free(path);
    if (code) {
        if (fd >= 0)
            close(fd);
        return code;
    }
    self->fd = fd;
    self->bytes = (size_t)st.st_size;
    *self_p = self;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Replaying

// Reads len bytes; false if they are not all there.
static lade_code_t
s_read(const lade_wal_t *self, size_t at, void *bytes, size_t len, bool *whole_p,
       lade_error_t *error)
{
    size_t done = 0;
    while (done < len) {
        ssize_t got = pread(self->fd, (char *)bytes + done, len - done, (off_t)(at + done));
        if (got < 0 && errno != EINTR)
            return lade_error_errno(error, errno, "cannot read the log of the keyspace");
        if (got == 0)
            break;
        done += got > 0 ? (size_t)got : 0;
    }
    *whole_p = done == len;
    return LADE_OK;
}

// The record where the next one would go. *whole_p is false where the log ends: what is there is of
// another generation, or was torn by a power cut before anybody was told of it.
static lade_code_t
s_next(lade_wal_t *self, s_head_t *head, bool *whole_p, lade_error_t *error)
{
    lade_code_t code = s_read(self, self->at, head, sizeof *head, whole_p, error);
    if (code || !*whole_p)
        return code;
    size_t len = le32toh(head->len);
    *whole_p = memcmp(head->magic, s_magic, sizeof s_magic) == 0 &&
               le64toh(head->generation) == self->generation &&
               le64toh(head->number) == self->number && len <= self->bytes &&
               s_padded(len) <= self->bytes - self->at;
    if (!*whole_p)
        return LADE_OK;
    code = s_reserve(self, s_padded(len), error);
    if (!code)
        code = s_read(self, self->at, self->record, sizeof *head + len, whole_p, error);
    if (code || !*whole_p)
        return code;
    uint8_t check[S_CHECK];
    s_check(head, self->record, len, check);
    *whole_p = memcmp(check, head->check, S_CHECK) == 0;
    return LADE_OK;
}

lade_code_t
lade_wal_replay(lade_wal_t *self, uint64_t generation, uint64_t most,
                lade_code_t (*apply)(void *arg, const void *batch, size_t len, lade_error_t *error),
                void *arg, lade_error_t *error)
{
    bool failed = self->failed;
    lade_wal_restart(self, generation);
    self->failed = failed; // nothing is appended after what may or may not be there
    while (self->number < most) {
        s_head_t head;
        bool whole;
        lade_code_t code = s_next(self, &head, &whole, error);
        if (code || !whole)
            return code;
        size_t len = le32toh(head.len);
        code = apply(arg, self->record + sizeof head, len, error);
        if (code)
            return code;
        self->at += s_padded(len);
        self->number++;
    }
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Appending

void
lade_wal_restart(lade_wal_t *self, uint64_t generation)
{
    self->generation = generation;
    self->number = 0;
    self->at = 0;
    self->failed = false;
}

size_t
lade_wal_bytes(const lade_wal_t *self)
{
    return self->bytes;
}

void
lade_wal_grow(lade_wal_t *self, size_t bytes)
{
    char *zeros = bytes > self->bytes ? calloc(1, bytes - self->bytes) : NULL;
    if (!zeros)
        return;
    size_t done = 0, more = bytes - self->bytes;
    while (done < more) {
        ssize_t len = pwrite(self->fd, zeros + done, more - done, (off_t)(self->bytes + done));
        if (len <= 0)
            break;
        done += (size_t)len;
    }
    free(zeros);
    if (done == more)
        self->bytes = bytes;
    else if (ftruncate(self->fd, (off_t)self->bytes) != 0)
        return; // longer than it is taken for, which harms nobody
}

bool
lade_wal_fits(const lade_wal_t *self, size_t len)
{
    return !self->failed && len <= self->bytes && s_padded(len) <= self->bytes - self->at;
}

lade_code_t
lade_wal_append(lade_wal_t *self, const void *batch, size_t len, lade_error_t *error)
{
    s_head_t head = {.len = htole32((uint32_t)len),
                     .generation = htole64(self->generation),
                     .number = htole64(self->number)};
    memcpy(head.magic, s_magic, sizeof s_magic);
    size_t size = s_padded(len);
    lade_code_t code = s_reserve(self, size, error);
    if (code)
        return code;
    memcpy(self->record + sizeof head, batch, len);
    memset(self->record + sizeof head + len, 0, size - sizeof head - len);
    s_check(&head, self->record, len, head.check);
    memcpy(self->record, &head, sizeof head);
    // O_DSYNC: it is on disk when this returns.
    ssize_t put = pwrite(self->fd, self->record, size, (off_t)self->at);
    if (put != (ssize_t)size) {
        self->failed = true;
        return lade_error_errno(error, put < 0 ? errno : EIO,
                                "cannot write the log of the keyspace");
    }
    self->at += size;
    self->number++;
    return LADE_OK;
}

uint64_t
lade_wal_generation(const lade_wal_t *self)
{
    return self->generation;
}

uint64_t
lade_wal_count(const lade_wal_t *self)
{
    return self->number;
}

void
lade_wal_close(lade_wal_t **self_p)
{
    lade_wal_t *self = *self_p;
    if (!self)
        return;
    close(self->fd);
    free(self->record);
    free(self);
    *self_p = NULL;
}
