// A job in a worker's hands, as the worker's loop sees it. The work sees it through worker.h.
//
// The loop makes a task and frees it, both on its own thread, and frees it only after the answer
// came through the inbox: so a stop that crosses an answer never meets freed memory.
#ifndef LADE_TASK_H
#define LADE_TASK_H

#include "workers/worker/inbox.h"
#include "workers/worker/worker.h"

#include <stdbool.h>

// What was told last with lade_task_progress, _phase and _confirm.
typedef struct {
    int64_t bytes, total_bytes;        // bytes -1 if never said
    int64_t connections, serial;       // confirmed, of those terms; 0: nothing to confirm
    char *phase, *reason, *local_path; // NULL if never said
} lade_task_news_t;

// Takes body, the JOB's map. LADE_BAD_REQUEST if it is not one (*task_p is NULL then).
lade_code_t lade_task_new(lade_task_t **task_p, json_t *body, lade_inbox_t *inbox,
                          lade_error_t *error);

// Asks the task to stop. A cancel overrules a pause, stale overrules both. True if that is news.
bool lade_task_ask_stop(lade_task_t *self, lade_stop_t stop);

// True, with the news, if something was told since the last time. The texts are yours to free.
bool lade_task_take_news(lade_task_t *self, lade_task_news_t *news);
bool lade_task_has_news(lade_task_t *self);
// Whether the news hold a confirmation, which somebody waits for.
bool lade_task_is_urgent(lade_task_t *self);
// Puts back a confirmation that could not be sent.
void lade_task_untake_news(lade_task_t *self, const lade_task_news_t *news);

// What TERMS says of the job. A number of connections that is kept to already is confirmed at once.
// Returns the terms as they are from now on.
lade_terms_t lade_task_take_terms(lade_task_t *self, const json_t *item);

// Most connections the work may have open now: those of the terms, or more while a lower number is
// not confirmed; 0: any number.
int64_t lade_task_kept(lade_task_t *self);

// The terms in a JOB, in an item of TERMS or in TERMS itself. What is not there or makes no sense
// is no limit.
lade_terms_t lade_terms_read(const json_t *map);

void lade_task_destroy(lade_task_t **self_p);

#endif
