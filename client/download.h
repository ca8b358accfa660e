// A download's handle: what is known of the job, and who is told.
#ifndef LADE_DOWNLOAD_H
#define LADE_DOWNLOAD_H

#include "client/lade.h"

#include <jansson.h>

struct lade_download {
    lade_queue_t *queue; // NULL: not submitted
    int64_t id;          // -1: none yet
    json_t *args;        // what is to be submitted; NULL afterwards
    lade_download_status_t status;
    int64_t priority, bytes, total_bytes, sequence;
    double started, ended;
    bool preserves;
    bool forgotten; // pruned by a handler; it goes when the handlers have returned
    char *source, *destination, *path, *error_type, *error;
    lade_download_handler_t *handlers;
    size_t handler_count;
};

// The job as the broker shows it.
void lade_download_take_job(lade_download_t *self, const json_t *job);

// What an event says of the job. False if it says nothing that the handlers are to be told.
bool lade_download_take_event(lade_download_t *self, const json_t *event);

// True for the statuses a job ends in.
bool lade_download_ended(const lade_download_t *self);

void lade_download_free(lade_download_t **self_p);

#endif
