// A turn as what the reader calls when its bytes are there.
#include "workers/gpu/turns.h"

#include "workers/gpu/memory.h"

static lade_code_t
s_turn(const lade_reader_part_t *part, uint64_t offset, const uint8_t *bytes, uint64_t len,
       lade_error_t *error)
{
    const lade_transform_t *how = part->how;
    uint64_t at = lade_transform_out(how, offset), out = lade_transform_out(how, len);
    lade_code_t code = LADE_OK;
    if (at + out > part->warm)
        code = lade_memory_fault(part->to + at, out, part->name, error);
    return code ? code : lade_transform_run(how, bytes, len, part->to + at, error);
}

lade_reader_part_t
lade_turn_part(const lade_turn_t *turn, uint8_t *data, uint64_t warm)
{
    bool plain = lade_transform_is_plain(&turn->how);
    return (lade_reader_part_t){.fd = turn->fd,
                                .name = turn->name,
                                .from = turn->from,
                                .len = turn->how.in_bytes,
                                .to = data + turn->to,
                                .warm = warm > turn->to ? warm - turn->to : 0,
                                .turn = plain ? NULL : s_turn,
                                .how = &turn->how,
                                .unit = lade_transform_unit(&turn->how)};
}
