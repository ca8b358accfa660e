// A loaded model in shared memory, as the load worker lays it out and other processes read it.
//
//   0            lade_segment_head_t (little-endian, fixed size)
//   index_at     the index: a msgpack map
//   {"key","submodel","tensors":[{"name","dtype","shape","offset","size","layout"?}],
//                "metadata"}, offsets from the start of the segment; layout "channels_last":
//                a shape of N, C, H, W whose bytes lie in the order N, H, W, C
//   data_at …    the weights, as in the files; page aligned
//
// Attaching: connect to the worker's socket (SOCK_SEQPACKET, the `attach` path of a load's answer),
// send the lease as text, receive one packet: 8 bytes (the segment's length, little-endian) with
// one descriptor, opened read-only (SCM_RIGHTS), or a text "!CODE sentence" that says why not. The
// lease then lives as long as the connection; who closes it promises to look no more, for the pages
// may then be given to another model.
//
// Of a model on a device the mapping ends at data_at: length is that, and after it in the packet
// comes a lade_share_t (share.h) that says how its data is reached, with a second descriptor if
// that takes one. The data is a block of the device that begins with the byte at data_at.
#ifndef LADE_SEGMENT_H
#define LADE_SEGMENT_H

#include "common/buf.h"
#include "common/error.h"
#include "common/formats/tensors.h"
#include "common/share.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define LADE_SEGMENT_MAGIC "LADESEG1"

enum {
    LADE_SEGMENT_PAGE = 4096,           // data_at is a multiple of it
    LADE_SEGMENT_MAX_INDEX = 128 << 20, // bytes
    LADE_SEGMENT_MAX_LEASE = 256,       // bytes of a lease's text
    LADE_SEGMENT_MAX_ANSWER = 1024,     // bytes of the packet that answers it
};

typedef struct {
    char magic[8];
    uint64_t length;   // bytes of the whole segment
    uint64_t index_at; // bytes from the start
    uint64_t index_len;
    uint64_t data_at;
    uint64_t generation; // changes when the pages are given to another model
} lade_segment_head_t;

typedef struct lade_segment lade_segment_t;

// Connects, hands in the lease and maps the segment read-only. Blocks at most timeout_ms.
// LADE_STALE_LEASE if the lease is over, LADE_CORRUPT for a segment that is not whole.
lade_code_t lade_segment_attach(const char *socket_path, const char *lease, int timeout_ms,
                                lade_segment_t **self_p, lade_error_t *error);

// Reads the head of a mapped segment; bytes stay the caller's and must outlive *self_p. The index
// is read when first asked for, so attaching takes the same time whatever the size.
lade_code_t lade_segment_open(const void *bytes, size_t len, lade_segment_t **self_p,
                              lade_error_t *error);

// Reads and checks the index now. The calls below do it by themselves and find no tensor in an
// index that is wrong; this one says what is wrong (LADE_CORRUPT).
lade_code_t lade_segment_read_index(lade_segment_t *self, lade_error_t *error);

size_t lade_segment_bytes(const lade_segment_t *self);
uint64_t lade_segment_generation(const lade_segment_t *self);
size_t lade_segment_count(lade_segment_t *self);
// What the files say of themselves; NULL if the index is wrong. Yours.
json_t *lade_segment_metadata(lade_segment_t *self);
// name, dtype, layout, rank, shape, offset (from the start of the segment), size; NULL past the
// end.
const lade_tensor_t *lade_segment_get(lade_segment_t *self, size_t index);
const lade_tensor_t *lade_segment_find(lade_segment_t *self, const char *name);
// NULL if the segment's data is on a device.
const void *lade_segment_data(const lade_segment_t *self, const lade_tensor_t *tensor);

// Makes the data visible here, at the first call, and says where it is: import.address is that of
// the byte at data_at, import.device -1 for host memory. For a device this opens the plug-in that
// knows it (plugin.h). LADE_NOT_FOUND without that or the device, LADE_IO_ERROR.
lade_code_t lade_segment_import(lade_segment_t *self, lade_import_t *import, lade_error_t *error);

// The address of a tensor after that.
uint64_t lade_segment_address(const lade_segment_t *self, const lade_tensor_t *tensor);

// Unmaps, closes the connection (which gives the lease back), frees. NULL-safe.
void lade_segment_close(lade_segment_t **self_p);

// ---------------------------------------------------------------------------------------------------
// Writing, for the load worker

// Packs the index of tensors whose offsets count from the start of the data, and fills every member
// of *head but generation. submodel and metadata may be NULL. LADE_TOO_LARGE over index's ceiling.
lade_code_t lade_segment_plan(const char *key, const char *submodel, const lade_tensor_t *tensors,
                              size_t count, const json_t *metadata, uint64_t data_len,
                              lade_segment_head_t *head, lade_buf_t *index, lade_error_t *error);

// Puts head and index where they belong; bytes is the start of head->length writable bytes.
void lade_segment_write(void *bytes, const lade_segment_head_t *head, const lade_buf_t *index);

#endif
