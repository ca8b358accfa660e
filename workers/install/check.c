// A pool for the time of one call: each thread takes the next file. The largest come first, so that
// none is left for the end.
#include "workers/install/check.h"

#include "common/hash.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { S_MAX_THREADS = 16 };

typedef struct {
    lade_check_t **order;
    size_t count;
    _Atomic size_t next;
    _Atomic bool stopped;
    pthread_mutex_t lock; // around progress
    bool (*progress)(void *arg, int64_t bytes);
    void *arg;
} s_pool_t;

static bool
s_step(void *arg, int64_t bytes)
{
    s_pool_t *self = arg;
    if (atomic_load(&self->stopped))
        return false;
    pthread_mutex_lock(&self->lock);
    bool more = !self->progress || self->progress(self->arg, bytes);
    pthread_mutex_unlock(&self->lock);
    if (!more)
        atomic_store(&self->stopped, true);
    return more;
}

static void
s_check(s_pool_t *pool, lade_check_t *file)
{
    struct stat st;
    file->found_size = -1;
    if (stat(file->path, &st) != 0) {
        int problem = errno;
        if (problem != ENOENT && problem != ENOTDIR)
            lade_error_errno(&file->problem, problem, "cannot look at %s", file->path);
        s_step(pool, file->size > 0 ? file->size : 0);
        return;
    }
    file->found_size = st.st_size;
    file->written = (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9;
    bool other = file->size >= 0 && file->size != st.st_size;
    if (other || (!*file->sha256 && !file->read)) {
        s_step(pool, st.st_size);
        return;
    }
    lade_hash_sha256(file->path, s_step, pool, file->found, &file->problem);
}

static void *
s_run(void *arg)
{
    s_pool_t *self = arg;
    for (size_t at;
         !atomic_load(&self->stopped) && (at = atomic_fetch_add(&self->next, 1)) < self->count;)
        s_check(self, self->order[at]);
    return NULL;
}

static int
s_by_size(const void *a, const void *b)
{
    int64_t left = (*(lade_check_t *const *)a)->size, right = (*(lade_check_t *const *)b)->size;
    return left < right ? 1 : left > right ? -1 : 0;
}

lade_code_t
lade_check_files(lade_check_t *files, size_t count, size_t threads,
                 bool (*progress)(void *arg, int64_t bytes), void *arg, lade_error_t *error)
{
    pthread_t started[S_MAX_THREADS];
    size_t running = 0;
    s_pool_t pool = {.count = count, .progress = progress, .arg = arg};
    pool.order = calloc(count + 1, sizeof *pool.order);
    if (!pool.order)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to check %zu files", count);
    for (size_t i = 0; i < count; i++)
        pool.order[i] = &files[i];
    qsort(pool.order, count, sizeof *pool.order, s_by_size);
    pthread_mutex_init(&pool.lock, NULL);
    while (running + 1 < threads && running + 1 < count && running < S_MAX_THREADS &&
           pthread_create(&started[running], NULL, s_run, &pool) == 0)
        running++;
    s_run(&pool); // this thread is one of them
    for (size_t i = 0; i < running; i++)
        pthread_join(started[i], NULL);
    pthread_mutex_destroy(&pool.lock);
    free(pool.order);
    return atomic_load(&pool.stopped) ? lade_error_set(error, LADE_CANCELLED, "cancelled")
                                      : LADE_OK;
}

void
lade_check_free(lade_check_t *files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(files[i].path);
        free(files[i].relative);
    }
    free(files);
}
