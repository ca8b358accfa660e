// Two lists under one mutex.
#include "workers/download/crew.h"

#include "common/thread.h"

#include <czmq.h>

typedef struct {
    lade_chore_t *first, *last;
} s_list_t;

struct lade_crew {
    void (*wake)(void *arg);
    void *arg;
    pthread_mutex_t lock; // guards todo, done, closing
    pthread_cond_t more;
    s_list_t todo, done;
    bool closing;
    size_t count;
    pthread_t threads[];
};

static void
s_append(s_list_t *list, lade_chore_t *chore)
{
    chore->next = NULL;
    if (list->last)
        list->last->next = chore;
    else
        list->first = chore;
    list->last = chore;
}

static lade_chore_t *
s_shift(s_list_t *list)
{
    lade_chore_t *chore = list->first;
    if (chore)
        list->first = chore->next;
    if (!list->first)
        list->last = NULL;
    return chore;
}

static void *
s_thread(void *arg)
{
    lade_crew_t *self = arg;
    pthread_setname_np(pthread_self(), "crew");
    pthread_mutex_lock(&self->lock);
    while (true) {
        lade_chore_t *chore = s_shift(&self->todo);
        if (!chore && self->closing)
            break;
        if (!chore) {
            pthread_cond_wait(&self->more, &self->lock);
            continue;
        }
        pthread_mutex_unlock(&self->lock);
        chore->work(chore->arg);
        pthread_mutex_lock(&self->lock);
        s_append(&self->done, chore);
        self->wake(self->arg);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

lade_crew_t *
lade_crew_new(size_t threads, void (*wake)(void *arg), void *arg)
{
    lade_crew_t *self = zmalloc(sizeof *self + threads * sizeof *self->threads);
    self->wake = wake;
    self->arg = arg;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->more, NULL);
    self->count = threads;
    lade_thread_start_all(self->threads, threads, s_thread, self);
    return self;
}

void
lade_crew_add(lade_crew_t *self, lade_chore_t *chore)
{
    pthread_mutex_lock(&self->lock);
    s_append(&self->todo, chore);
    pthread_cond_signal(&self->more);
    pthread_mutex_unlock(&self->lock);
}

lade_chore_t *
lade_crew_collect(lade_crew_t *self)
{
    pthread_mutex_lock(&self->lock);
    lade_chore_t *chore = s_shift(&self->done);
    pthread_mutex_unlock(&self->lock);
    return chore;
}

void
lade_crew_destroy(lade_crew_t **self_p)
{
    lade_crew_t *self = *self_p;
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
