// Cutting parts into pieces.
#include "workers/gpu/reader_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_GAP = 64 << 10, // bytes between two parts that are rather read than begun anew; a part of so
                      // many that need not be turned is read by itself
};

void
lade_reader_pieces_open(lade_reader_pieces_t *self, const lade_reader_part_t *parts, size_t count)
{
    *self = (lade_reader_pieces_t){.parts = parts, .count = count, .direct = -1, .direct_of = -1};
    self->opened = calloc(count + 1, sizeof *self->opened);
    pthread_mutex_init(&self->lock, NULL);
}

void
lade_reader_pieces_close(lade_reader_pieces_t *self)
{
    for (size_t i = 0; i < self->opened_count; i++)
        close(self->opened[i]);
    free(self->opened);
    pthread_mutex_destroy(&self->lock);
}

bool
lade_reader_lies_alike(const lade_reader_part_t *part)
{
    return !part->turn && ((uintptr_t)part->to - part->from) % LADE_READER_PAGE == 0;
}

// True if less than an eighth of a file is in the page cache. Then none of it is read from there: a
// read of a page that the kernel has marked (behind the header, say) sets off its reading ahead,
// which brings what is to come into the cache, piece after piece, and all would be read from there.
static bool
s_is_cold(int fd)
{
    struct stat status;
    uint64_t cached;
    return !fstat(fd, &status) && lade_reader_cached(fd, 0, (uint64_t)status.st_size, &cached) &&
           cached < (uint64_t)status.st_size / 8;
}

// Opens the file of the part the pieces are now of for direct reads, if it is worth it. Files whose
// file system has none are read through the page cache.
static void
s_open_direct(lade_reader_pieces_t *self)
{
    const lade_reader_part_t *part = &self->parts[self->part];
    if (part->fd == self->direct_of)
        return;
    char path[64];
    self->direct = -1;
    self->direct_of = part->fd;
    if (lade_reader_engine() == LADE_READER_BUFFERED || !self->opened)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", part->fd);
    self->direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY);
    self->cold = self->direct >= 0 && s_is_cold(part->fd);
    if (self->direct >= 0) {
        self->opened[self->opened_count++] = self->direct;
        // The odd bytes at a part's ends must not have the kernel read ahead what we read
        // ourselves.
        posix_fadvise(part->fd, 0, 0, POSIX_FADV_RANDOM);
    } else if (errno == EINVAL)
        lade_reader_without(LADE_READER_THREADS, LADE_LOG_WARNING, part->name, errno);
}

// Moves on by so many bytes of the part.
static void
s_advance(lade_reader_pieces_t *self, uint64_t len)
{
    self->offset += len;
    while (self->part < self->count && self->offset == self->parts[self->part].len) {
        self->part++;
        self->offset = 0;
    }
}

static bool
s_stands_alone(const lade_reader_part_t *part)
{
    return !part->turn && (lade_reader_lies_alike(part) || part->len >= S_GAP);
}

// A piece of one part. It ends at a multiple of its size in the file, so that none but the first
// and last of a part straddles a block.
static void
s_cut(lade_reader_pieces_t *self, lade_reader_piece_t *piece)
{
    const lade_reader_part_t *part = piece->part;
    uint64_t size = lade_reader_lies_alike(part) ? LADE_READER_PIECE : LADE_READER_STAGE;
    uint64_t len = size - piece->at % size, left = part->len - self->offset;
    piece->len = len < left ? len : left;
    piece->last = piece->offset + piece->len;
    piece->parts = 1;
    s_advance(self, piece->len);
}

// Bytes of the part the pieces are now of that still go into a piece; 0: none.
static uint64_t
s_share(const lade_reader_pieces_t *self, const lade_reader_piece_t *piece)
{
    const lade_reader_part_t *part = &self->parts[self->part];
    uint64_t at = part->from + self->offset, left = part->len - self->offset;
    uint64_t unit = part->unit > 1 ? part->unit : 1;
    if (piece->parts &&
        (part->fd != piece->part->fd || s_stands_alone(part) || at < piece->at ||
         at > piece->at + piece->len + S_GAP || at - piece->at >= LADE_READER_STAGE))
        return 0;
    uint64_t room = LADE_READER_STAGE - (at - piece->at);
    uint64_t share = left <= room ? left : room / unit * unit;
    return share || piece->parts ? share : left < unit ? left : unit; // alone in a longer stage
}

// A piece of neighbours in a file.
static void
s_gather(lade_reader_pieces_t *self, lade_reader_piece_t *piece)
{
    for (uint64_t share; self->part < self->count && (share = s_share(self, piece));) {
        const lade_reader_part_t *part = &self->parts[self->part];
        uint64_t end = part->from + self->offset + share;
        piece->len = end - piece->at > piece->len ? end - piece->at : piece->len;
        piece->last = self->offset + share;
        piece->parts = (size_t)(part - piece->part) + 1; // with those of no bytes between
        s_advance(self, share);
    }
}

bool
lade_reader_pieces_take(lade_reader_pieces_t *self, lade_reader_piece_t *piece)
{
    pthread_mutex_lock(&self->lock);
    s_advance(self, 0); // over parts of no bytes
    bool there = self->part < self->count;
    if (there) {
        const lade_reader_part_t *part = &self->parts[self->part];
        s_open_direct(self);
        *piece = (lade_reader_piece_t){.part = part,
                                       .offset = self->offset,
                                       .at = part->from + self->offset,
                                       .direct = self->direct,
                                       .cold = self->cold};
        (s_stands_alone(part) ? s_cut : s_gather)(self, piece);
    }
    pthread_mutex_unlock(&self->lock);
    return there;
}
