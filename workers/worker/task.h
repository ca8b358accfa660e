// A job in a worker's hands, as the worker's loop sees it. The work sees it through worker.h.
//
// The loop makes a task and frees it, both on its own thread, and frees it only after the answer
// came through the inbox: so a stop that crosses an answer never meets freed memory.
#ifndef LADE_TASK_H
#define LADE_TASK_H

#include "workers/worker/inbox.h"
#include "workers/worker/worker.h"

#include <stdbool.h>

// What was told last with lade_task_progress.
typedef struct {
    int64_t bytes, total_bytes;
    char *phase, *local_path; // NULL if never said
} lade_task_news_t;

// Takes body, the JOB's map. LADE_BAD_REQUEST if it is not one (*task_p is NULL then).
lade_code_t lade_task_new(lade_task_t **task_p, json_t *body, lade_inbox_t *inbox,
                          lade_error_t *error);

// Asks the task to stop. A cancel overrules a pause, stale overrules both. True if that is news.
bool lade_task_ask_stop(lade_task_t *self, lade_stop_t stop);

// True, with the news, if something was told since the last time. The texts are yours to free.
bool lade_task_take_news(lade_task_t *self, lade_task_news_t *news);
bool lade_task_has_news(lade_task_t *self);

void lade_task_destroy(lade_task_t **self_p);

#endif
