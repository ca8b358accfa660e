// What other threads hand to the worker's loop: answers, closed gates, and the news that there is
// progress to tell.
//
// Answers are never dropped; there are at most as many as there are jobs. Gates are: beyond a
// ceiling the newest is logged and forgotten, since the server will ask again.
#ifndef LADE_INBOX_H
#define LADE_INBOX_H

#include "common/buf.h"
#include "common/wire.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct lade_inbox lade_inbox_t;

// One report to the broker. It is packed where it is made, without its n, which the loop gives it
// in the order it takes reports from the inbox.
typedef struct lade_report {
    struct lade_report *next;
    int command;            // LADE_W_DONE, _FAIL, _AWAIT, _GATE or _BYE
    size_t pairs;           // key and value pairs packed in body so far
    lade_buf_t body;        // the pairs; after lade_report_number the whole map
    struct lade_task *task; // the one this answers, NULL for GATE and BYE
    int64_t n, id, attempt; // id 0 for GATE and BYE
    bool sent;              // on the present connection
    bool stale;             // the job was no longer ours when it was answered
} lade_report_t;

lade_report_t *lade_report_new(int command, size_t max_bytes);

// Puts n and the map's head around the pairs.
void lade_report_number(lade_report_t *self, int64_t n);

void lade_report_destroy(lade_report_t **self_p);

// max_bytes is the ceiling of one report's body.
lade_inbox_t *lade_inbox_new(size_t max_bytes);

// Descriptor that is readable when there is something to take.
int lade_inbox_fd(const lade_inbox_t *self);

size_t lade_inbox_max_bytes(const lade_inbox_t *self);

// Adds a report, which is consumed, and wakes the loop.
void lade_inbox_put(lade_inbox_t *self, lade_report_t **report_p);

// Only wakes the loop.
void lade_inbox_wake(lade_inbox_t *self);

// Takes all reports, oldest first, and clears the descriptor. NULL if there are none.
lade_report_t *lade_inbox_take(lade_inbox_t *self);

void lade_inbox_destroy(lade_inbox_t **self_p);

#endif
