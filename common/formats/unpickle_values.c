// Opcodes that make numbers and texts.
#include "common/formats/unpickle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

lade_code_t
lade_unpickle_push_integer(lade_pickle_t *self, lade_object_kind_t kind, int64_t integer)
{
    lade_object_t *object = lade_unpickle_object(self, kind);
    if (object)
        object->integer = integer;
    return lade_unpickle_push(self, object);
}

lade_code_t
lade_unpickle_push_bytes(lade_pickle_t *self, lade_object_kind_t kind, const char *bytes,
                         size_t len)
{
    lade_object_t *object = lade_unpickle_object(self, kind);
    if (object) {
        object->bytes = bytes;
        object->len = (uint32_t)len;
    }
    return lade_unpickle_push(self, object);
}

lade_code_t
lade_unpickle_do_none(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    return lade_unpickle_push(self, self->none);
}

lade_code_t
lade_unpickle_do_bool(lade_pickle_t *self, const lade_operand_t *operand)
{
    return lade_unpickle_push_integer(self, LADE_OBJECT_BOOL, operand->of);
}

lade_code_t
lade_unpickle_do_counted(lade_pickle_t *self, const lade_operand_t *operand)
{
    return lade_unpickle_push_bytes(self, (lade_object_kind_t)operand->of, operand->bytes,
                                    operand->len);
}

lade_code_t
lade_unpickle_do_unsigned(lade_pickle_t *self, const lade_operand_t *operand)
{
    return lade_unpickle_push_integer(self, LADE_OBJECT_INT, (int64_t)operand->number);
}

lade_code_t
lade_unpickle_do_signed(lade_pickle_t *self, const lade_operand_t *operand)
{
    return lade_unpickle_push_integer(self, LADE_OBJECT_INT, (int32_t)operand->number);
}

static lade_code_t
s_push_real(lade_pickle_t *self, double real)
{
    lade_object_t *object = lade_unpickle_object(self, LADE_OBJECT_FLOAT);
    if (object)
        object->real = real;
    return lade_unpickle_push(self, object);
}

lade_code_t
lade_unpickle_do_binfloat(lade_pickle_t *self, const lade_operand_t *operand)
{
    uint64_t bits = __builtin_bswap64(operand->number); // the only number with its big end first
    double real;
    memcpy(&real, &bits, sizeof real);
    return s_push_real(self, real);
}

// The text of a number, short enough for one.
bool
lade_unpickle_number_text(const lade_operand_t *operand, char text[64])
{
    if (operand->len >= 64)
        return false;
    memcpy(text, operand->bytes, operand->len);
    text[operand->len] = '\0';
    return true;
}

lade_code_t
lade_unpickle_do_float(lade_pickle_t *self, const lade_operand_t *operand)
{
    char text[64], *end;
    if (!lade_unpickle_number_text(operand, text))
        return lade_unpickle_broken(self, "a number is too long");
    double real = strtod(text, &end);
    return *end || end == text ? lade_unpickle_broken(self, "a number is none")
                               : s_push_real(self, real);
}

lade_code_t
lade_unpickle_do_int(lade_pickle_t *self, const lade_operand_t *operand)
{
    char text[64], *end;
    if (operand->len == 2 && memcmp(operand->bytes, "00", 2) == 0)
        return lade_unpickle_push_integer(self, LADE_OBJECT_BOOL, 0);
    if (operand->len == 2 && memcmp(operand->bytes, "01", 2) == 0)
        return lade_unpickle_push_integer(self, LADE_OBJECT_BOOL, 1);
    if (!lade_unpickle_number_text(operand,
                                   text)) // a number all the same, with more digits than fit
        return lade_unpickle_push_bytes(self, LADE_OBJECT_LONG, operand->bytes, operand->len);
    errno = 0;
    int64_t integer = strtoll(text, &end, 10);
    end += *end == 'L';
    if (*end || end == text)
        return lade_unpickle_broken(self, "a number is none");
    return errno ? lade_unpickle_push_bytes(self, LADE_OBJECT_LONG, operand->bytes, operand->len)
                 : lade_unpickle_push_integer(self, LADE_OBJECT_INT, integer);
}

lade_code_t
lade_unpickle_do_long(lade_pickle_t *self, const lade_operand_t *operand)
{
    uint64_t value = 0;
    if (operand->len > 8)
        return lade_unpickle_push_bytes(self, LADE_OBJECT_LONG, operand->bytes, operand->len);
    for (size_t i = 0; i < operand->len; i++)
        value |= (uint64_t)(uint8_t)operand->bytes[i] << 8 * i;
    if (operand->len && operand->len < 8 && operand->bytes[operand->len - 1] & 0x80)
        value |= ~(uint64_t)0 << 8 * operand->len;
    return lade_unpickle_push_integer(self, LADE_OBJECT_INT, (int64_t)value);
}

static int
s_hex(const char *at, size_t count, uint32_t *value_p)
{
    uint32_t value = 0;
    for (size_t i = 0; i < count; i++) {
        int c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return 0;
        value = value << 4 | (uint32_t)digit;
    }
    *value_p = value;
    return 1;
}

static size_t
s_put_utf8(char *out, uint32_t point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(leads[more] | point >> 6 * more);
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (point >> 6 * (more - i) & 0x3f));
    return more + 1;
}

// Protocol 0's texts: \uXXXX and \UXXXXXXXX, every other byte is Latin 1.
lade_code_t
lade_unpickle_do_unicode(lade_pickle_t *self, const lade_operand_t *operand)
{
    char *out = lade_unpickle_alloc(self, 2 * operand->len + 4);
    size_t len = 0;
    if (!out)
        return lade_unpickle_no_memory(self);
    for (size_t i = 0; i < operand->len;) {
        const char *at = operand->bytes + i;
        size_t left = operand->len - i, digits = 0;
        uint32_t point = (uint8_t)*at;
        if (left >= 6 && at[0] == '\\' && at[1] == 'u')
            digits = 4;
        else if (left >= 10 && at[0] == '\\' && at[1] == 'U')
            digits = 8;
        if (digits && (!s_hex(at + 2, digits, &point) || point > 0x10ffff))
            return lade_unpickle_broken(self, "an escape in a text is none");
        len += s_put_utf8(out + len, point);
        i += digits ? digits + 2 : 1;
    }
    return lade_unpickle_push_bytes(self, LADE_OBJECT_TEXT, out, len);
}

// One escape at *at, which follows a backslash; returns its bytes.
static size_t
s_escape(const char *at, size_t left, char *byte)
{
    static const char names[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
    const char *named = left && *at ? strchr(names, *at) : NULL;
    uint32_t value;
    if (named) {
        *byte = values[named - names];
        return 1;
    }
    if (left >= 3 && *at == 'x' && s_hex(at + 1, 2, &value)) {
        *byte = (char)value;
        return 3;
    }
    size_t digits = 0;
    for (value = 0; digits < 3 && digits < left && at[digits] >= '0' && at[digits] <= '7'; digits++)
        value = value * 8 + (uint32_t)(at[digits] - '0');
    *byte = (char)value;
    return digits;
}

// Protocol 0's strings: 'as Python writes them', with escapes.
lade_code_t
lade_unpickle_do_string(lade_pickle_t *self, const lade_operand_t *operand)
{
    const char *at = operand->bytes;
    size_t left = operand->len, len = 0;
    while (left && (at[left - 1] == '\r' || at[left - 1] == ' '))
        left--;
    if (left < 2 || (*at != '\'' && *at != '"') || at[left - 1] != *at)
        return lade_unpickle_broken(self, "a string has no quotes");
    at++;
    left -= 2;
    char *out = lade_unpickle_alloc(self, left + 1);
    if (!out)
        return lade_unpickle_no_memory(self);
    while (left) {
        size_t n = 1;
        if (*at == '\\' && left > 1)
            n = 1 + s_escape(at + 1, left - 1, &out[len]);
        if (n == 1)
            out[len] = *at;
        len++;
        at += n;
        left -= n;
    }
    return lade_unpickle_push_bytes(self, LADE_OBJECT_TEXT, out, len);
}
