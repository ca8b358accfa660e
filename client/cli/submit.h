// What the commands share that submit jobs and wait for them: install and download.
#ifndef LADE_SUBMIT_H
#define LADE_SUBMIT_H

#include "client/cli/follow.h"

// --token TEXT, or @FILE so that it stands in no shell history, as `access_token`.
lade_code_t lade_submit_add_token(const lade_cli_t *cli, json_t *args, lade_error_t *error);

// --priority.
void lade_submit_add_priority(const lade_cli_t *cli, json_t *args);

// "job 7  enqueued  SOURCE".
void lade_submit_print_queued(const lade_follow_t *follow, size_t i, lade_buf_t *text);

// True unless --no-wait or --paused was given.
bool lade_submit_waits(const lade_cli_t *cli);

// Everything is submitted: waits for the ends unless told not to, prints what there is and tells
// what failed.
lade_code_t lade_submit_follow(lade_cli_t *cli, lade_follow_t *follow, lade_follow_print_t *print,
                               lade_error_t *error);

#endif
