// What every backend asks of a move; plug-ins have a copy of their own.
#include "workers/gpu/backend.h"

static bool
s_is_float(lade_dtype_t dtype)
{
    return dtype == LADE_DTYPE_F32 || dtype == LADE_DTYPE_F16 || dtype == LADE_DTYPE_BF16;
}

lade_code_t
lade_move_check(const lade_move_t *move, uint64_t block_bytes, lade_error_t *error)
{
    bool plain = move->in == move->out && !move->channels_last;
    uint64_t size = move->size;
    if (!plain) {
        if (!s_is_float(move->in) || !s_is_float(move->out))
            return lade_error_set(error, LADE_NOT_IMPLEMENTED,
                                  "%s is not cast or transposed to %s: that is between F32, F16 "
                                  "and BF16",
                                  lade_dtype_name(move->in), lade_dtype_name(move->out));
        uint64_t elements = size / lade_dtype_size(move->in), shape = 1;
        for (size_t d = 0; move->channels_last && d < 4; d++)
            shape *= move->shape[d];
        if (size % lade_dtype_size(move->in) || (move->channels_last && shape != elements))
            return lade_error_set(error, LADE_VALUE_ERROR,
                                  "a move of %llu bytes is not of whole elements",
                                  (unsigned long long)size);
        size = elements * lade_dtype_size(move->out);
    }
    if (move->size > LADE_STAGE_BYTES || move->from > LADE_STAGE_BYTES - move->size ||
        size > block_bytes || move->to > block_bytes - size)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "a move of %llu bytes from %llu to %llu is not within both sides",
                              (unsigned long long)move->size, (unsigned long long)move->from,
                              (unsigned long long)move->to);
    return LADE_OK;
}
