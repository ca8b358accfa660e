// What the files of the job engine share: jobs.c (the table of jobs, the turn), jobs_submit.c,
// jobs_list.c, jobs_store.c (the keyspace), jobs_ready.c (queues, gates, dispatch), jobs_bound.c
// (those that end with a worker), jobs_control.c (what clients do to jobs) and jobs_reports.c (what
// workers say of them).
#ifndef LADE_JOBS_PRIVATE_H
#define LADE_JOBS_PRIVATE_H

#include "broker/heap.h"
#include "broker/jobs.h"
#include "broker/map.h"

struct lade_queue {
    lade_blob_t key; // kind, NUL, packed requires
    lade_kind_t *kind;
    lade_labels_t requires;
    lade_heap_t ready;
    size_t jobs; // that are not ended and belong here
    size_t at;   // its place among all
};

typedef struct {
    lade_job_t **items;
    size_t len, cap;
} lade_job_list_t;

struct lade_jobs {
    lade_broker_t *broker;
    lade_map_t *live;   // by id: jobs that are not ended, and those that ended in this turn
    lade_map_t *kinds;  // by name
    lade_map_t *equals; // installs and downloads that are not ended, by what makes them equal
    lade_map_t *queues; // by kind and requires
    lade_queue_t **all_queues;
    size_t queue_count, queue_cap;
    lade_heap_t delayed;                                     // by not_before
    lade_job_list_t dirty, ending, borrowed, telling, given; // given: to a worker, in this turn
    uint64_t next_id, sequence;
    uint64_t written_id, written_sequence; // as they are in the keyspace
    uint64_t ended_count;                  // ended jobs in the keyspace
    uint64_t prune_from;                   // where the search for old ended jobs goes on
    int64_t takeover_ms; // when running jobs of an earlier life go back to the queue; INT64_MAX:
                         // none are
    size_t next_worker;  // who is asked first at the next dispatch
    lade_buf_t pack;
};

void lade_job_list_add(lade_job_list_t *self, lade_job_t *job);

// Moves the job along the state table, with all that belongs to leaving one status and entering
// another. The only function that assigns a status.
lade_code_t lade_jobs_move(lade_jobs_t *self, lade_job_t *job, lade_job_trigger_t trigger,
                           lade_error_t *error);

// The job is to be written in this turn.
void lade_jobs_touch(lade_jobs_t *self, lade_job_t *job);

// Puts a job that is not ended into the table.
void lade_jobs_enter(lade_jobs_t *self, lade_job_t *job);

// A child's progress or end changes what the parent shows.
void lade_jobs_roll_up(lade_jobs_t *self, const lade_job_t *child);

// Tells progress now or, if the last was told a moment ago, soon.
void lade_jobs_tell_progress(lade_jobs_t *self, lade_job_t *job);

// Counts a job into (1) or out of (-1) what its kind and the keyspace have of the status.
void lade_jobs_tally(lade_jobs_t *self, const lade_job_t *job, lade_job_status_t status, int by);

// lade_jobs_need_kind, for lade_job_read: arg is the lade_jobs_t.
lade_kind_t *lade_jobs_kind_named(void *arg, const char *name);

// Drops all that is in memory; live, equals and queues are none afterwards.
void lade_jobs_forget(lade_jobs_t *self);

// jobs_submit.c

// What makes two jobs that are not ended the same one: the source of an install or of what is
// fetched for the cache, a download's source, destination and files. A dry run is no install.
void lade_jobs_set_equal(lade_job_t *job, const msgpack_object *spec);

// jobs_store.c

// The key of jobs_by_source without the id: kind, NUL, source, NUL. Returns its length.
size_t lade_jobs_source_key(const char *kind, const char *source, char *key);

// Writes a new job's places in the indexes. Errors of these writes stay with the batch, as those of
// lade_jobs_write.
void lade_jobs_index(lade_jobs_t *self, const lade_job_t *job);

// jobs_ready.c

// The queue of a kind and requires. LADE_QUEUE_FULL if there are too many.
lade_code_t lade_jobs_need_queue(lade_jobs_t *self, lade_kind_t *kind,
                                 const msgpack_object *requires, lade_queue_t **queue_p,
                                 lade_error_t *error);
void lade_jobs_leave_queue(lade_jobs_t *self, lade_job_t *job);

// Puts an enqueued job where it waits: its queue, the delayed ones, or nowhere while a worker has
// to let go of it.
void lade_jobs_make_ready(lade_jobs_t *self, lade_job_t *job);
// Takes it out again, wherever it waits.
void lade_jobs_unready(lade_jobs_t *self, lade_job_t *job);

// The worker lets go of a slot, and of what its job had a share of.
void lade_jobs_let_go(lade_jobs_t *self, lade_worker_t *worker, lade_hold_t *hold);

// And a job that waited for that becomes ready.
void lade_jobs_release(lade_jobs_t *self, lade_worker_t *worker, lade_hold_t *hold);

// jobs_bound.c

// The worker that the job has something to ask of as long as it is there; NULL: none in particular.
const char *lade_jobs_bound_to(const lade_job_t *job);

// Ends those bound to the worker of that name, which is gone and holds none; NULL: to any worker
// that is not known.
void lade_jobs_end_bound(lade_jobs_t *self, const char *gone, const char *why);

#endif
