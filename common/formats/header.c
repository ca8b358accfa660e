// The scanner: pieces that grow with what was understood, texts eight bytes at a time.
#include "common/formats/header.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { S_PIECE = 1 << 16 };

lade_code_t
lade_header_fail(lade_header_t *scan, lade_code_t code, const char *format, ...)
{
    char words[300];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    if (scan->error->code) // reading failed, which is why the text ends here
        return scan->error->code;
    return lade_error_set(scan->error, code, "%s (at byte %zu)", words, scan->pos + 8);
}

bool
lade_header_more(lade_header_t *scan)
{
    size_t left = scan->len - scan->have;
    size_t want = scan->have > S_PIECE ? scan->have : S_PIECE;
    if (left == 0 || scan->error->code)
        return false;
    ssize_t n;
    do
        n = pread(scan->fd, scan->text + scan->have, want < left ? want : left,
                  (off_t)(8 + scan->have));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        lade_error_errno(scan->error, errno, "reading the header");
    if (n <= 0)
        return false;
    scan->have += (size_t)n;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Text

static lade_code_t
s_hex4(lade_header_t *scan, uint32_t *value_p)
{
    *value_p = 0;
    for (int i = 0; i < 4; i++, scan->pos++) {
        int c = lade_header_peek(scan);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return lade_header_fail(scan, LADE_CORRUPT, "\\u takes four hex digits");
        *value_p = *value_p << 4 | (uint32_t)digit;
    }
    return LADE_OK;
}

static char *
s_put_utf8(char *out, uint32_t c)
{
    int tail = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t marks[] = {0, 0xc0, 0xe0, 0xf0};
    *out++ = (char)(marks[tail] | c >> 6 * tail);
    while (tail--)
        *out++ = (char)(0x80 | (c >> 6 * tail & 0x3f));
    return out;
}

static lade_code_t
s_unicode_escape(lade_header_t *scan, char **out_p)
{
    uint32_t c, low;
    lade_code_t code = s_hex4(scan, &c);
    if (code)
        return code;
    if (c >= 0xd800 && c < 0xdc00) {
        bool pair = lade_header_peek(scan) == '\\';
        scan->pos += pair;
        pair = pair && lade_header_peek(scan) == 'u';
        scan->pos += pair;
        if (pair && (code = s_hex4(scan, &low)))
            return code;
        if (!pair || low < 0xdc00 || low > 0xdfff)
            return lade_header_fail(scan, LADE_CORRUPT, "half a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c == 0 || (c >= 0xdc00 && c < 0xe000)) {
        return lade_header_fail(scan, LADE_CORRUPT, "\\u%04x cannot be in a text", c);
    }
    *out_p = s_put_utf8(*out_p, c);
    return LADE_OK;
}

static lade_code_t
s_escape(lade_header_t *scan, char **out_p)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = lade_header_peek(scan);
    scan->pos++;
    if (c == 'u')
        return s_unicode_escape(scan, out_p);
    const char *found = c > 0 ? strchr(from, c) : NULL;
    if (!found)
        return lade_header_fail(scan, LADE_CORRUPT, "unknown escape in a text");
    *(*out_p)++ = to[found - from];
    return LADE_OK;
}

// One UTF-8 sequence of more than one byte; shortest form only, no surrogates.
static lade_code_t
s_copy_utf8(lade_header_t *scan, char **out_p)
{
    int c = lade_header_peek(scan);
    int tail = c >= 0xc2 && c <= 0xdf   ? 1
               : c >= 0xe0 && c <= 0xef ? 2
               : c >= 0xf0 && c <= 0xf4 ? 3
                                        : 0;
    int low = c == 0xe0   ? 0xa0
              : c == 0xf0 ? 0x90
                          : 0x80,
        high = c == 0xed   ? 0x9f
               : c == 0xf4 ? 0x8f
                           : 0xbf;
    if (tail == 0)
        return lade_header_fail(scan, LADE_CORRUPT, "the header is not UTF-8");
    *(*out_p)++ = (char)c;
    scan->pos++;
    for (; tail; tail--, low = 0x80, high = 0xbf) {
        c = lade_header_peek(scan);
        if (c < low || c > high)
            return lade_header_fail(scan, LADE_CORRUPT, "the header is not UTF-8");
        *(*out_p)++ = (char)c;
        scan->pos++;
    }
    return LADE_OK;
}

// How many of the next bytes are plain: no quote, backslash, control character or part of a longer
// sequence. Eight at a time: a byte's top bit is set where one of the four is so.
static size_t
s_plain(const char *text, size_t len)
{
    static const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
    size_t at = 0;
    for (uint64_t word; at + 8 <= len; at += 8) {
        memcpy(&word, text + at, 8);
        uint64_t quote = word ^ ones * '"', slash = word ^ ones * '\\';
        if ((word | (word - ones * 0x20) | (quote - ones) | (slash - ones)) & tops)
            break;
    }
    while (at < len && (unsigned char)text[at] >= 0x20 && (unsigned char)text[at] < 0x80 &&
           text[at] != '"' && text[at] != '\\')
        at++;
    return at;
}

static lade_code_t
s_copy_odd(lade_header_t *scan, int c, char **out_p)
{
    if (c < 0x20)
        return lade_header_fail(scan, LADE_CORRUPT,
                                c < 0 ? "the header ends inside a text"
                                      : "control character in a text");
    if (c != '\\')
        return s_copy_utf8(scan, out_p);
    scan->pos++;
    return s_escape(scan, out_p);
}

lade_code_t
lade_header_text(lade_header_t *scan, size_t max, char **text_p, size_t *len_p)
{
    lade_code_t code = lade_header_expect(scan, '"');
    if (code)
        return code;
    char *start = scan->text + scan->pos, *out = start;
    for (int c; (c = lade_header_peek(scan)) != '"';) {
        size_t plain = c < 0 ? 0 : s_plain(scan->text + scan->pos, scan->have - scan->pos);
        if (out != scan->text + scan->pos)
            memmove(out, scan->text + scan->pos, plain);
        out += plain;
        scan->pos += plain;
        if (plain == 0 && (code = s_copy_odd(scan, c, &out)))
            return code;
        if ((size_t)(out - start) > max)
            return lade_header_fail(scan, LADE_TOO_LARGE, "a text is longer than %zu bytes", max);
    }
    scan->pos++;
    *out = 0;
    *text_p = start;
    *len_p = (size_t)(out - start);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------

lade_code_t
lade_header_number(lade_header_t *scan, uint64_t *value_p)
{
    int c = lade_header_peek_past_space(scan);
    if (c < '0' || c > '9')
        return lade_header_fail(scan, LADE_CORRUPT, "a whole number is expected");
    bool zero = c == '0';
    *value_p = 0;
    for (size_t digits = 0; (c = lade_header_peek(scan)) >= '0' && c <= '9';
         scan->pos++, digits++) {
        if ((zero && digits) || __builtin_mul_overflow(*value_p, 10, value_p) ||
            __builtin_add_overflow(*value_p, (uint64_t)(c - '0'), value_p))
            return lade_header_fail(scan, LADE_CORRUPT,
                                    zero ? "a number begins with 0" : "a number over 64 bits");
    }
    if (c == '.' || c == 'e' || c == 'E')
        return lade_header_fail(scan, LADE_CORRUPT, "a whole number is expected");
    return LADE_OK;
}
