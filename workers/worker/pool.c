// Threads that run one job each at a time.
#include "common/thread.h"
#include "workers/worker/worker.h"

#include <czmq.h>

typedef struct s_item {
    struct s_item *next;
    lade_task_t *task;
} s_item_t;

struct lade_pool {
    void (*run)(void *arg, lade_task_t *task);
    void *arg;
    pthread_mutex_t lock; // guards first, last, closing
    pthread_cond_t more;
    s_item_t *first, *last; // at most as many as the worker has slots, by the broker's credit
    bool closing;
    size_t count;
    pthread_t threads[];
};

static void
s_answer_stopped(lade_task_t *task)
{
    lade_error_t error;
    if (lade_task_stop(task) == LADE_STOP_PAUSE)
        lade_error_set(&error, LADE_PAUSED, "paused before it began");
    else
        lade_error_set(&error, LADE_CANCELLED, "stopped before it began");
    lade_task_fail(&task, &error, 0);
}

static lade_task_t *
s_next(lade_pool_t *self, bool *closing_p)
{
    pthread_mutex_lock(&self->lock);
    while (!self->first && !self->closing)
        pthread_cond_wait(&self->more, &self->lock);
    *closing_p = self->closing;
    s_item_t *item = self->first;
    if (item) {
        self->first = item->next;
        if (!self->first)
            self->last = NULL;
    }
    pthread_mutex_unlock(&self->lock);
    lade_task_t *task = item ? item->task : NULL;
    free(item);
    return task;
}

static void *
s_thread(void *arg)
{
    lade_pool_t *self = arg;
    lade_task_t *task;
    bool closing;
    while ((task = s_next(self, &closing))) {
        if (closing || lade_task_stop(task))
            s_answer_stopped(task);
        else
            self->run(self->arg, task);
    }
    return NULL;
}

lade_pool_t *
lade_pool_new(size_t threads, void (*run)(void *arg, lade_task_t *task), void *arg)
{
    assert(threads > 0 && run);
    lade_pool_t *self = zmalloc(sizeof *self + threads * sizeof *self->threads);
    self->run = run;
    self->arg = arg;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->more, NULL);
    self->count = threads;
    lade_thread_start_all(self->threads, threads, s_thread, self);
    return self;
}

void
lade_pool_add(lade_pool_t *self, lade_task_t *task)
{
    s_item_t *item = zmalloc(sizeof *item);
    item->task = task;
    pthread_mutex_lock(&self->lock);
    if (self->last)
        self->last->next = item;
    else
        self->first = item;
    self->last = item;
    pthread_cond_signal(&self->more);
    pthread_mutex_unlock(&self->lock);
}

void
lade_pool_destroy(lade_pool_t **self_p)
{
    lade_pool_t *self = *self_p;
    if (!self)
        return;
    pthread_mutex_lock(&self->lock);
    self->closing = true;
    pthread_cond_broadcast(&self->more);
    pthread_mutex_unlock(&self->lock);
    for (size_t i = 0; i < self->count; i++)
        pthread_join(self->threads[i], NULL);
    pthread_cond_destroy(&self->more);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *self_p = NULL;
}
