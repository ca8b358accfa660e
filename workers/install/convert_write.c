// A part's tensors into a safetensors file, streaming.
#include "workers/install/convert_part.h"

#include "common/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_PIECE = 8 << 20,  // bytes between two looks at whether to stop
    S_STRIP = 16 << 20, // bytes of a view made contiguous at once
    S_FLUSH = 64 << 20, // bytes after which the system is asked to begin writing them
    S_MAX_HEADER = 64 << 20,
};

typedef struct {
    int fd;
    const char *path;
    const int *fds;
    char *buffer; // S_PIECE bytes, made when the system cannot copy by itself
    bool by_hand;
    uint64_t at;      // where the next byte goes
    uint64_t flushed; // up to where the system was asked to write
    lade_convert_step_t *step;
    void *arg;
} s_file_t;

// ---------------------------------------------------------------------------------------------------
// Bytes

static lade_code_t
s_put(s_file_t *self, const void *bytes, size_t len, lade_error_t *error)
{
    for (const char *at = bytes; len;) {
        ssize_t n = pwrite(self->fd, at, len, (off_t)self->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return lade_error_errno(error, n ? errno : EIO, "cannot write %s", self->path);
        at += n;
        len -= (size_t)n;
        self->at += (uint64_t)n;
    }
    return LADE_OK;
}

static lade_code_t
s_get(int fd, void *bytes, size_t len, uint64_t offset, lade_error_t *error)
{
    for (char *at = bytes; len;) {
        ssize_t n = pread(fd, at, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lade_error_errno(error, errno, "cannot read the checkpoint");
        if (!n)
            return lade_error_set(error, LADE_CORRUPT, "the checkpoint was cut while it was read");
        at += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return LADE_OK;
}

// Tells how far it is, and lets the disk begin: a sync at the end then has little left to wait for.
static lade_code_t
s_step(s_file_t *self, uint64_t bytes, lade_error_t *error)
{
    if (self->at - self->flushed >= S_FLUSH) {
        sync_file_range(self->fd, (off_t)self->flushed, (off_t)(self->at - self->flushed),
                        SYNC_FILE_RANGE_WRITE);
        self->flushed = self->at;
    }
    return !self->step || self->step(self->arg, bytes)
               ? LADE_OK
               : lade_error_set(error, LADE_CANCELLED, "stopped while it was converted");
}

// len bytes of the source, by the system itself where it can.
static lade_code_t
s_copy(s_file_t *self, int fd, uint64_t offset, uint64_t len, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    while (len && !code) {
        size_t piece = len < S_PIECE ? (size_t)len : S_PIECE;
        ssize_t n = -1;
        if (!self->by_hand) {
            loff_t from = (loff_t)offset, to = (loff_t)self->at;
            n = copy_file_range(fd, &from, self->fd, &to, piece, 0);
            if (n < 0 && (errno == ENOSPC || errno == EDQUOT))
                return lade_error_errno(error, errno, "cannot write %s", self->path);
            self->by_hand = n <= 0; // other file systems, no such call, or the end: reading tells
        }
        if (n > 0) {
            self->at += (uint64_t)n;
        } else {
            if (!self->buffer && !(self->buffer = malloc(S_PIECE)))
                return lade_error_set(error, LADE_NO_MEMORY, "no memory to convert with");
            n = (ssize_t)piece;
            code = s_get(fd, self->buffer, piece, offset, error);
            if (!code)
                code = s_put(self, self->buffer, piece, error);
        }
        offset += (uint64_t)n;
        len -= (uint64_t)n;
        if (!code)
            code = s_step(self, (uint64_t)n, error);
    }
    return code;
}

typedef struct {
    s_file_t *file;
    int fd; // of the source
    const lade_convert_tensor_t *tensor;
} s_turn_t;

static lade_code_t
s_get_piece(void *arg, uint64_t offset, void *bytes, size_t len, lade_error_t *error)
{
    const s_turn_t *self = arg;
    return s_get(self->fd, bytes, len, self->tensor->offset + offset, error);
}

static lade_code_t
s_put_strip(void *arg, const void *bytes, size_t len, lade_error_t *error)
{
    const s_turn_t *self = arg;
    lade_code_t code = s_put(self->file, bytes, len, error);
    return code ? code : s_step(self->file, len, error);
}

// A tensor that does not lie in the source as it is to be.
static lade_code_t
s_turn(s_file_t *self, int fd, const lade_convert_tensor_t *tensor, lade_error_t *error)
{
    s_turn_t turn = {self, fd, tensor};
    lade_view_stream_t stream = {S_PIECE, S_STRIP, s_get_piece, s_put_strip, &turn};
    return lade_view_stream(&tensor->view, &stream, error);
}

// ---------------------------------------------------------------------------------------------------
// The file

// In the order of the source; larger types first, so that each lies at a multiple of its size.
static int
s_by_source(const void *a, const void *b)
{
    const lade_convert_tensor_t *x = *(const lade_convert_tensor_t *const *)a,
                                *y = *(const lade_convert_tensor_t *const *)b;
    size_t size_x = lade_dtype_size(x->from->dtype), size_y = lade_dtype_size(y->from->dtype);
    if (size_x != size_y)
        return size_x < size_y ? 1 : -1;
    if (x->from->file != y->from->file)
        return x->from->file < y->from->file ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return strcmp(x->name, y->name);
}

static lade_code_t
s_put_entry(const lade_convert_tensor_t *tensor, uint64_t at, lade_buf_t *header,
            lade_error_t *error)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < tensor->view.rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->view.shape[i]));
    json_t *entry = json_pack("{s:{s:s, s:o, s:[I, I]}}", tensor->name, "dtype",
                              lade_dtype_name(tensor->from->dtype), "shape", shape, "data_offsets",
                              (json_int_t)at, (json_int_t)(at + tensor->bytes));
    char *text = entry ? json_dumps(entry, JSON_COMPACT) : NULL;
    lade_code_t code = text ? lade_buf_addf(header, error, ",%.*s", (int)strlen(text) - 2, text + 1)
                            : lade_error_set(error, LADE_CORRUPT, "a tensor's name is no UTF-8");
    free(text);
    json_decref(entry);
    return code;
}

// Eight bytes of length, then JSON, filled up with blanks so that the tensors begin at a multiple
// of 8.
static lade_code_t
s_put_header(s_file_t *self, const lade_convert_tensor_t *const *order, size_t count,
             lade_error_t *error)
{
    lade_buf_t header = LADE_BUF(S_MAX_HEADER);
    uint64_t at = 0;
    lade_code_t code = lade_buf_addf(&header, error, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count && !code; i++) {
        code = s_put_entry(order[i], at, &header, error);
        at += order[i]->bytes;
    }
    if (!code)
        code = lade_buf_addf(&header, error, "}");
    while (!code && header.len % 8)
        code = lade_buf_add(&header, " ", 1, error);
    unsigned char length[8];
    for (size_t i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    if (!code)
        code = s_put(self, length, sizeof length, error);
    // A full disk is told before anything is copied, where the file system can.
    if (!code && at && fallocate(self->fd, 0, 0, (off_t)(8 + header.len + at)) != 0 &&
        (errno == ENOSPC || errno == EDQUOT))
        code = lade_error_errno(error, errno, "cannot write %s", self->path);
    if (!code)
        code = s_put(self, header.data, header.len, error);
    lade_buf_free(&header);
    return code;
}

// Neighbours in the source that are neighbours here are copied in one go.
static lade_code_t
s_put_tensors(s_file_t *self, const lade_convert_tensor_t *const *order, size_t count,
              lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < count && !code;) {
        const lade_convert_tensor_t *first = order[i++];
        int fd = self->fds[first->from->file];
        if (!first->dense) {
            code = s_turn(self, fd, first, error);
            continue;
        }
        uint64_t len = first->bytes;
        while (i < count && order[i]->dense && order[i]->from->file == first->from->file &&
               order[i]->offset == first->offset + len)
            len += order[i++]->bytes;
        code = s_copy(self, fd, first->offset, len, error);
    }
    return code;
}

lade_code_t
lade_convert_part_write(const lade_convert_part_t *self, const int *fds, const char *path,
                        lade_convert_step_t *step, void *arg, lade_error_t *error)
{
    s_file_t file = {.path = path, .fds = fds, .step = step, .arg = arg};
    const lade_convert_tensor_t **order = calloc(self->count + 1, sizeof *order);
    if (!order)
        abort();
    for (size_t i = 0; i < self->count; i++)
        order[i] = &self->tensors[i];
    if (self->count)
        qsort(order, self->count, sizeof *order, s_by_source);
    file.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    lade_code_t code =
        file.fd < 0 ? lade_error_errno(error, errno, "cannot create %s", path) : LADE_OK;
    if (!code)
        code = s_put_header(&file, order, self->count, error);
    if (!code)
        code = s_put_tensors(&file, order, self->count, error);
    if (!code && fsync(file.fd) != 0)
        code = lade_error_errno(error, errno, "cannot write %s", path);
    if (file.fd >= 0)
        close(file.fd);
    free(file.buffer);
    free(order);
    return code;
}
