// A new thread has the signal mask of the one that makes it.
#include "common/thread.h"

#include <signal.h>
#include <stdlib.h>

bool
lade_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    bool started = pthread_create(thread, NULL, run, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

void
lade_thread_start_all(pthread_t *threads, size_t count, void *(*run)(void *arg), void *arg)
{
    for (size_t i = 0; i < count; i++)
        if (!lade_thread_start(&threads[i], run, arg))
            abort();
}
