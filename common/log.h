// Log lines on standard error: who it is about, what happened, values with units. Secrets never.
//
//   2026-11-23T16:20:01.123Z info  broker: job 7: running on download@host:4711 (attempt 2)
#ifndef LADE_LOG_H
#define LADE_LOG_H

typedef enum { LADE_LOG_ERROR, LADE_LOG_WARNING, LADE_LOG_INFO, LADE_LOG_DEBUG } lade_log_level_t;

// Sets the program's name and the lowest level shown; call once, in main, before threads start.
void lade_log_open(const char *program, lade_log_level_t level);

// The level with that name ("error", "warning", "info", "debug"), -1 if none.
int lade_log_level(const char *name);

// True if lines of that level are shown: ask before building an expensive one.
int lade_log_shows(lade_log_level_t level);

// Writes one line with one write(2). Safe from any thread.
void lade_log(lade_log_level_t level, const char *about, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
