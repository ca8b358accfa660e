// Jobs that ask something of one worker, which they require by its name, and that have nothing to
// ask any more once it is gone: what they were to let go of went with it. They end then; the name
// of a process never comes back, and they would wait for it for ever.
#include "broker/jobs_private.h"
#include "broker/packer.h"

#include <czmq.h>

static const struct {
    const char *kind;
    const char *member; // of its result: what was done by it
    bool counts;        // a number, else a bool
} s_rows[] = {
    // clang-format off
    {"unlock", "unlocked", false},
    {"unload", "unloaded", true},
    // clang-format on
};
enum { S_ROWS = sizeof s_rows / sizeof *s_rows };

static size_t
s_row(const char *kind)
{
    size_t row = 0;
    while (row < S_ROWS && strcmp(s_rows[row].kind, kind) != 0)
        row++;
    return row;
}

// The worker that a queue's jobs are bound to.
static const char *
s_bound_to(const lade_queue_t *queue)
{
    bool bound = queue && queue->requires.count && s_row(queue->kind->name) < S_ROWS;
    return bound ? lade_labels_get(&queue->requires, "name") : NULL;
}

const char *
lade_jobs_bound_to(const lade_job_t *job)
{
    return s_bound_to(job->queue);
}

// Whether a job that is bound to `name` has nobody to wait for.
static bool
s_is_over(const lade_jobs_t *self, const char *name, const char *gone)
{
    return name &&
           (gone ? strcmp(name, gone) == 0 : !lade_workers_by_name(self->broker->workers, name));
}

// Jobs are many, their queues few.
static bool
s_any_over(const lade_jobs_t *self, const char *gone)
{
    size_t at = 0;
    while (at < self->queue_count && !s_is_over(self, s_bound_to(self->all_queues[at]), gone))
        at++;
    return at < self->queue_count;
}

static void
s_end(lade_jobs_t *self, lade_job_t *job, const char *why)
{
    size_t row = s_row(job->kind->name);
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    lade_put_map(&buf, 2);
    lade_put_str(&buf, s_rows[row].member);
    if (s_rows[row].counts)
        lade_put_int(&buf, 0);
    else
        lade_put_bool(&buf, false);
    LADE_PUT_KEY(&buf, "reason");
    lade_put_str(&buf, why);
    lade_blob_free(&job->result);
    job->result = (lade_blob_t){buf.data, buf.len};
    self->broker->metrics.jobs_completed++;
    lade_jobs_move(self, job, LADE_JOB_FINISH, NULL);
}

void
lade_jobs_end_bound(lade_jobs_t *self, const char *gone, const char *why)
{
    if (!s_any_over(self, gone))
        return;
    lade_job_list_t list = {0};
    size_t at = 0;
    for (lade_job_t *job; (job = lade_map_next(self->live, &at));)
        if (!lade_job_ended(job) && job->status != LADE_JOB_IDLE && !job->holder &&
            s_is_over(self, lade_jobs_bound_to(job), gone))
            lade_job_list_add(&list, job);
    for (size_t i = 0; i < list.len; i++)
        s_end(self, list.items[i], why);
    free(list.items);
}
