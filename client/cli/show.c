// Formatting for people.
#include "client/cli/show.h"

#include "common/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <wchar.h>

const char *
lade_show_bytes(int64_t bytes, char text[LADE_SHOW_SIZE])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1000 && unit < sizeof units / sizeof *units - 1; unit++)
        value /= 1024;
    int digits = unit == 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    snprintf(text, LADE_SHOW_SIZE, "%.*f %s", digits, value, units[unit]);
    return text;
}

const char *
lade_show_span(double seconds, char text[LADE_SHOW_SIZE])
{
    static const struct {
        int64_t big, small;
        char big_name, small_name;
    } rows[] = {{86400, 3600, 'd', 'h'}, {3600, 60, 'h', 'm'}, {60, 1, 'm', 's'}};
    const double most = 9999.0 * 86400;
    int64_t s = seconds > 0 ? (int64_t)((seconds < most ? seconds : most) + 0.5) : 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (s >= rows[i].big) {
            snprintf(text, LADE_SHOW_SIZE, "%d%c %02d%c", (int)(s / rows[i].big), rows[i].big_name,
                     (int)(s % rows[i].big / rows[i].small), rows[i].small_name);
            return text;
        }
    snprintf(text, LADE_SHOW_SIZE, "%ds", (int)s);
    return text;
}

const char *
lade_show_time(double seconds, char text[LADE_SHOW_SIZE])
{
    time_t then = (time_t)seconds, now = time(NULL);
    struct tm at, today;
    localtime_r(&then, &at);
    localtime_r(&now, &today);
    bool same = at.tm_year == today.tm_year && at.tm_yday == today.tm_yday;
    strftime(text, LADE_SHOW_SIZE, same ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &at);
    return text;
}

// The next character of text: its bytes (never 0) and columns. Broken or control ones are one '?'.
static size_t
s_next(const char *text, size_t left, size_t *columns, bool *bad)
{
    wchar_t wide;
    mbstate_t state = {0};
    size_t len = mbrtowc(&wide, text, left, &state);
    int width = len == (size_t)-1 || len == (size_t)-2 || len == 0 ? -1 : wcwidth(wide);
    *bad = width < 0;
    *columns = *bad ? 1 : (size_t)width;
    return len == (size_t)-1 || len == (size_t)-2 || len == 0 ? 1 : len;
}

size_t
lade_show_width(const char *text)
{
    size_t width = 0, columns;
    bool bad;
    for (size_t left = strlen(text); left > 0;) {
        size_t len = s_next(text, left, &columns, &bad);
        width += columns;
        text += len;
        left -= len;
    }
    return width;
}

static char *
s_harmless(const char *text)
{
    size_t left = strlen(text), columns, out = 0;
    char *clean = malloc(left + 1);
    if (!clean)
        abort();
    bool bad;
    while (left > 0) {
        size_t len = s_next(text, left, &columns, &bad);
        if (bad)
            clean[out++] = '?';
        else {
            memcpy(clean + out, text, len);
            out += len;
        }
        text += len;
        left -= len;
    }
    clean[out] = '\0';
    return clean;
}

char *
lade_show_clean(const char *text, size_t width, bool keep_end)
{
    char *clean = s_harmless(text);
    size_t total = lade_show_width(clean);
    if (width == 0 || total <= width)
        return clean;
    // Skip columns at the front (keep_end) or stop after them, one column being the mark's.
    size_t skip = keep_end ? total - (width - 1) : 0, at = 0, columns, len = strlen(clean);
    bool bad;
    char *cut = malloc(len + 4);
    if (!cut)
        abort();
    if (keep_end) {
        for (size_t passed = 0; passed < skip && at < len; passed += columns)
            at += s_next(clean + at, len - at, &columns, &bad);
        snprintf(cut, len + 4, "…%s", clean + at);
    } else {
        size_t taken = 0;
        while (at < len) {
            size_t step = s_next(clean + at, len - at, &columns, &bad);
            if (taken + columns > width - 1)
                break;
            taken += columns;
            at += step;
        }
        snprintf(cut, len + 4, "%.*s…", (int)at, clean);
    }
    free(clean);
    return cut;
}

char *
lade_show_wrap(const char *text, size_t width, size_t indent)
{
    lade_buf_t lines = LADE_BUF(1 << 20);
    char *clean = lade_show_clean(text, 0, false), *rest = clean;
    if (width == 0 || indent + lade_show_width(clean) <= width)
        return clean;
    size_t at = indent;
    for (char *word = strsep(&rest, " "); word; word = strsep(&rest, " ")) {
        size_t columns = lade_show_width(word);
        bool begin = at == indent, over = at + 1 + columns > width;
        if (!begin && over)
            lade_buf_addf(&lines, NULL, "\n%*s", (int)indent, "");
        lade_buf_addf(&lines, NULL, "%s%s", begin || over ? "" : " ", word);
        at = (begin || !over ? at + !begin : indent) + columns;
    }
    free(clean);
    return lade_buf_take(&lines);
}

size_t
lade_show_columns(int descriptor)
{
    const char *text = getenv("COLUMNS");
    long columns = text ? strtol(text, NULL, 10) : 0;
    struct winsize size;
    if (columns <= 0 && ioctl(descriptor, TIOCGWINSZ, &size) == 0)
        columns = size.ws_col;
    return columns >= 20 && columns <= 1000 ? (size_t)columns : 80;
}
