// A loaded model in shared memory: checking its head, and where its data is.
#include "common/segment_private.h"

#include "common/plugin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(lade_segment_head_t) == 48, "the head is a layout on its own");

static lade_code_t
s_check_head(const lade_segment_head_t *head, uint64_t len, lade_error_t *error)
{
    if (memcmp(head->magic, LADE_SEGMENT_MAGIC, sizeof head->magic))
        return lade_error_set(error, LADE_CORRUPT, "the segment does not begin with %s",
                              LADE_SEGMENT_MAGIC);
    if (head->length > len)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment says it is %llu bytes long and is %llu",
                              (unsigned long long)head->length, (unsigned long long)len);
    if (head->index_at < sizeof *head || head->index_at > head->data_at ||
        head->data_at > head->length || head->index_len > head->data_at - head->index_at ||
        head->data_at % LADE_SEGMENT_PAGE)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment's index and data do not lie within it");
    if (head->index_len > LADE_SEGMENT_MAX_INDEX)
        return lade_error_set(error, LADE_CORRUPT, "the segment's index is over %d bytes long",
                              (int)LADE_SEGMENT_MAX_INDEX);
    return LADE_OK;
}

lade_code_t
lade_segment_open_shared(const void *bytes, size_t len, const lade_share_t *share,
                         lade_segment_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    lade_segment_head_t head;
    if (len < sizeof head)
        return lade_error_set(error, LADE_CORRUPT,
                              "%zu bytes are no segment: its head alone is longer", len);
    memcpy(&head, bytes, sizeof head);
    uint64_t whole = share && share->bytes < UINT64_MAX / 2 ? head.data_at + share->bytes : len;
    lade_code_t code = s_check_head(&head, whole, error);
    if (!code && share && head.data_at > len)
        code = lade_error_set(error, LADE_CORRUPT, "the segment ends within its index");
    if (code)
        return code;
    lade_segment_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to attach a segment");
    self->bytes = bytes;
    self->head = head;
    self->connection = -1;
    self->share = share ? *share : (lade_share_t){.kind = LADE_SHARE_NONE, .fd = -1};
    *self_p = self;
    return LADE_OK;
}

lade_code_t
lade_segment_open(const void *bytes, size_t len, lade_segment_t **self_p, lade_error_t *error)
{
    return lade_segment_open_shared(bytes, len, NULL, self_p, error);
}

size_t
lade_segment_bytes(const lade_segment_t *self)
{
    return self->head.length;
}

uint64_t
lade_segment_generation(const lade_segment_t *self)
{
    return self->head.generation;
}

const void *
lade_segment_data(const lade_segment_t *self, const lade_tensor_t *tensor)
{
    return self->share.kind ? NULL : self->bytes + tensor->offset;
}

// What is shared by a descriptor of host memory needs no plug-in.
static lade_code_t
s_import_memfd(const lade_share_t *share, lade_import_t *import, lade_error_t *error)
{
    struct stat status;
    if (fstat(share->fd, &status) || status.st_size < 0 || (uint64_t)status.st_size < share->bytes)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment's data is not as long as the load worker says");
    uint64_t page =
        status.st_blksize > LADE_SEGMENT_PAGE ? (uint64_t)status.st_blksize : LADE_SEGMENT_PAGE;
    uint64_t mapped = (share->bytes + page - 1) / page * page; // as in s_map
    void *bytes = mmap(NULL, mapped, PROT_READ, MAP_SHARED, share->fd, 0);
    if (bytes == MAP_FAILED)
        return lade_error_errno(error, errno, "cannot map a segment's data");
    *import = (lade_import_t){
        .own = bytes, .bytes = mapped, .address = (uint64_t)(uintptr_t)bytes, .device = -1};
    return LADE_OK;
}

static lade_code_t
s_import_device(lade_segment_t *self, lade_error_t *error)
{
    const void *table;
    char plugin[sizeof self->share.plugin + 1] = "";
    memcpy(plugin, self->share.plugin, sizeof self->share.plugin);
    if (!*plugin || strchr(plugin, '/'))
        return lade_error_set(error, LADE_CORRUPT, "the segment names no plug-in");
    lade_code_t code = lade_plugin_open(plugin, LADE_IMPORTER_SYMBOL, &table, error);
    if (code)
        return lade_error_wrap(error, "the model is on a device");
    self->importer = table;
    return self->importer->import(&self->share, &self->import, error);
}

lade_code_t
lade_segment_import(lade_segment_t *self, lade_import_t *import, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    if (!self->share.kind)
        self->import =
            (lade_import_t){.bytes = self->head.length - self->head.data_at,
                            .address = (uint64_t)(uintptr_t)self->bytes + self->head.data_at,
                            .device = -1};
    else if (!self->import.own)
        code = self->share.kind == LADE_SHARE_MEMFD
                   ? s_import_memfd(&self->share, &self->import, error)
                   : s_import_device(self, error);
    *import = self->import;
    return code;
}

uint64_t
lade_segment_address(const lade_segment_t *self, const lade_tensor_t *tensor)
{
    return self->import.address ? self->import.address + tensor->offset - self->head.data_at : 0;
}

void
lade_segment_close(lade_segment_t **self_p)
{
    lade_segment_t *self = *self_p;
    if (!self)
        return;
    if (self->import.own && self->importer)
        self->importer->unimport(&self->import);
    else if (self->import.own)
        munmap(self->import.own, self->import.bytes);
    if (self->share.fd >= 0)
        close(self->share.fd);
    if (self->mapping)
        munmap(self->mapping, self->mapped);
    if (self->connection >= 0)
        close(self->connection); // after the mapping: from now on the pages may change
    free(self->tensors);
    free(self->names);
    free(self->slots);
    free(self);
    *self_p = NULL;
}
