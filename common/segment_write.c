// Packing a segment's head and index.
#include "common/segment.h"

#include "common/wire.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN,
               "segments are shared within one little-endian machine");

static void
s_pack_tensor(lade_pack_t *pack, const lade_tensor_t *tensor, uint64_t data_at)
{
    bool ordered = tensor->layout == LADE_LAYOUT_CHANNELS_LAST;
    lade_pack_map(pack, ordered ? 6 : 5);
    lade_pack_str(pack, "name");
    lade_pack_strn(pack, tensor->name, tensor->name_len);
    lade_pack_str(pack, "dtype");
    lade_pack_str(pack, lade_dtype_name(tensor->dtype));
    lade_pack_str(pack, "shape");
    lade_pack_array(pack, tensor->rank);
    for (size_t i = 0; i < tensor->rank; i++)
        lade_pack_int(pack, (int64_t)tensor->shape[i]);
    lade_pack_str(pack, "offset");
    // Always nine bytes, so that the index is as long whatever data_at is, which follows from its
    // length.
    uint8_t offset[9] = {0xcf};
    uint64_t value = htobe64(tensor->offset + data_at);
    memcpy(offset + 1, &value, sizeof value);
    lade_pack_raw(pack, offset, sizeof offset);
    lade_pack_str(pack, "size");
    lade_pack_int(pack, (int64_t)tensor->size);
    if (ordered) {
        lade_pack_str(pack, "layout");
        lade_pack_str(pack, lade_layout_kind_name(tensor->layout));
    }
}

static lade_code_t
s_pack_index(const char *key, const char *submodel, const lade_tensor_t *tensors, size_t count,
             const json_t *metadata, uint64_t data_at, lade_buf_t *index, lade_error_t *error)
{
    lade_pack_t pack;
    lade_buf_clear(index);
    lade_pack_open(&pack, index);
    lade_pack_map(&pack, 4);
    lade_pack_str(&pack, "key");
    lade_pack_str(&pack, key);
    lade_pack_str(&pack, "submodel");
    lade_pack_str(&pack, submodel);
    lade_pack_str(&pack, "metadata");
    lade_pack_json(&pack, metadata);
    lade_pack_str(&pack, "tensors");
    lade_pack_array(&pack, count);
    for (size_t i = 0; i < count; i++)
        s_pack_tensor(&pack, &tensors[i], data_at);
    return lade_pack_failed(&pack, error);
}

lade_code_t
lade_segment_plan(const char *key, const char *submodel, const lade_tensor_t *tensors, size_t count,
                  const json_t *metadata, uint64_t data_len, lade_segment_head_t *head,
                  lade_buf_t *index, lade_error_t *error)
{
    lade_code_t code = s_pack_index(key, submodel, tensors, count, metadata, 0, index, error);
    if (code)
        return code;
    size_t index_len = index->len;
    uint64_t data_at = sizeof *head + index_len + LADE_SEGMENT_PAGE - 1;
    data_at -= data_at % LADE_SEGMENT_PAGE;
    code = s_pack_index(key, submodel, tensors, count, metadata, data_at, index, error);
    if (code)
        return code;
    assert(index->len == index_len);
    *head = (lade_segment_head_t){.length = data_at + data_len,
                                  .index_at = sizeof *head,
                                  .index_len = index_len,
                                  .data_at = data_at};
    memcpy(head->magic, LADE_SEGMENT_MAGIC, sizeof head->magic);
    return LADE_OK;
}

void
lade_segment_write(void *bytes, const lade_segment_head_t *head, const lade_buf_t *index)
{
    memcpy((uint8_t *)bytes + head->index_at, index->data, index->len);
    memcpy(bytes, head, sizeof *head);
}
