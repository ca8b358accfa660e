// The parts of packer.h that are not worth inlining.
#include "broker/packer.h"

void
lade_put_grow(lade_buf_t *buf, size_t more)
{
    size_t cap = buf->cap ? buf->cap : 256;
    while (cap - buf->len <= more)
        cap *= 2;
    buf->data = realloc(buf->data, cap);
    if (!buf->data)
        abort();
    buf->cap = cap;
}

static int
s_write(void *buf, const char *bytes, size_t len)
{
    lade_put_raw(buf, bytes, len);
    return 0;
}

void
lade_put_object(lade_buf_t *buf, const msgpack_object *object)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, buf, s_write);
    msgpack_pack_object(&packer, *object);
}
