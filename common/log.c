// Log lines on standard error.
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const s_names[] = {"error", "warning", "info", "debug"};

// Set once by main before any thread starts, only read after that.
static char s_program[32] = "lade";
static lade_log_level_t s_level = LADE_LOG_INFO;

void
lade_log_open(const char *program, lade_log_level_t level)
{
    snprintf(s_program, sizeof s_program, "%s", program);
    s_level = level;
}

int
lade_log_level(const char *name)
{
    for (size_t i = 0; i < sizeof s_names / sizeof *s_names; i++)
        if (strcmp(s_names[i], name) == 0)
            return (int)i;
    return -1;
}

int
lade_log_shows(lade_log_level_t level)
{
    return level <= s_level;
}

void
lade_log(lade_log_level_t level, const char *about, const char *format, ...)
{
    if (level > s_level)
        return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    char line[1024];
    size_t len = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    len += (size_t)snprintf(line + len, sizeof line - len, ".%03ldZ %-7s %s: %s%s",
                            now.tv_nsec / 1000000, s_names[level], s_program, about ? about : "",
                            about ? ": " : "");
    if (len > sizeof line - 2)
        len = sizeof line - 2;
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + len, sizeof line - len - 1, format, args);
    va_end(args);
    if (more > 0)
        len += (size_t)more < sizeof line - len - 1 ? (size_t)more : sizeof line - len - 2;
    for (size_t i = 0; i < len; i++) // a peer's words must not forge a second line
        if (line[i] == '\n' || line[i] == '\r' || line[i] == 27)
            line[i] = ' ';
    line[len++] = '\n';
    ssize_t done = write(STDERR_FILENO, line, len);
    (void)done; // there is nowhere left to say it
}
