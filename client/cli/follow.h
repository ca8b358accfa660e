// Following jobs to their end, with a bar for each in a terminal.
#ifndef LADE_FOLLOW_H
#define LADE_FOLLOW_H

#include "client/cli/cli.h"
#include "common/buf.h"

typedef struct lade_follow lade_follow_t;

// service ("install", "download", "jobs") is asked for the jobs when they have ended.
lade_follow_t *lade_follow_new(lade_cli_t *cli, const char *service);

// Submits service.op with args (taken); name is what people call it. Does not wait.
void lade_follow_submit(lade_follow_t *self, const char *name, const char *op, json_t *args);

// Waits until every submission is answered. LADE_CANCELLED if interrupted; the rest is told per
// job.
lade_code_t lade_follow_submitted(lade_follow_t *self, lade_error_t *error);

// From before the first submission: the events of the jobs are printed on standard output as they
// come, one a line as JSON.
lade_code_t lade_follow_listen(lade_follow_t *self, lade_error_t *error);

// Adds what is to be printed of the index-th job, which ended well (or was only submitted), to
// text: whole lines.
typedef void(lade_follow_print_t)(const lade_follow_t *self, size_t index, lade_buf_t *text);

// Waits until every job has ended. LADE_CANCELLED if Ctrl-C was pressed: the jobs go on, and it was
// said how to find them. What print (NULL: nothing) makes of a job that ended well is printed at
// once, in a terminal above the bars.
lade_code_t lade_follow_run(lade_follow_t *self, lade_follow_print_t *print, lade_error_t *error);

// Prints, in order, what went well and is not printed yet.
void lade_follow_print(lade_follow_t *self, lade_follow_print_t *print);

// Whether results go to a terminal.
bool lade_follow_terminal(const lade_follow_t *self);

size_t lade_follow_count(const lade_follow_t *self);
const char *lade_follow_name(const lade_follow_t *self, size_t index);
// The job as last seen, NULL if it was refused; stays the follower's.
const json_t *lade_follow_job(const lade_follow_t *self, size_t index);
// How it went: code 0 if it completed (or, before lade_follow_run, was taken).
const lade_error_t *lade_follow_error(const lade_follow_t *self, size_t index);

// Prints all as one JSON array on standard output: the jobs, and {"source", "error": {…}} for those
// refused.
void lade_follow_print_json(const lade_follow_t *self);

// Tells failures on standard error. Returns the first failure's code.
lade_code_t lade_follow_complain(const lade_follow_t *self);

void lade_follow_destroy(lade_follow_t **self_p);

#endif
