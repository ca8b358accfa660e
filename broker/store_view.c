// Views and copies of the keyspace: for other threads, without the loop.
#include "broker/store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

lade_code_t
lade_store_checkpoint(lade_store_t *self, lade_error_t *error)
{
    if (lade_store_dirty(self))
        return lade_error_set(error, LADE_BUSY, "keyspace %s: a batch is open", self->folder);
    if (!lade_wal_count(self->wal))
        return LADE_OK;
    lade_code_t code = lade_store_commit_now(self, error);
    if (code)
        lade_store_abort(self);
    return code;
}

lade_code_t
lade_store_view(lade_store_t *self, lade_store_t **view_p, lade_error_t *error)
{
    *view_p = NULL;
    lade_store_t *view = calloc(1, sizeof *view);
    if (!view)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a view of the keyspace");
    *view = (lade_store_t){.of = self, .env = self->env, .folder = self->folder, .lock_fd = -1};
    memcpy(view->tables, self->tables, sizeof view->tables);
    int rc = mdb_txn_begin(self->env, NULL, MDB_RDONLY, &view->read);
    if (rc) {
        free(view);
        return lade_store_error(self, rc, "beginning to read", error);
    }
    view->reading = true;
    pthread_mutex_lock(&self->views_lock);
    self->views++;
    pthread_mutex_unlock(&self->views_lock);
    *view_p = view;
    return LADE_OK;
}

bool
lade_store_wanted(const lade_store_t *view)
{
    return view->of && atomic_load(&view->of->wanted);
}

void
lade_store_close_view(lade_store_t *view)
{
    lade_store_t *self = view->of;
    mdb_txn_abort(view->read);
    free(view);
    pthread_mutex_lock(&self->views_lock);
    if (--self->views == 0)
        pthread_cond_broadcast(&self->views_gone);
    pthread_mutex_unlock(&self->views_lock);
}

uint64_t
lade_store_copy_bytes(lade_store_t *view)
{
    enum { S_FREE_PAGES = 0 }; // LMDB's own table: lists of pages, each begun by its length
    MDB_cursor *cursor;
    MDB_val key, value;
    size_t pages = 0, count;
    MDB_stat stat;
    mdb_env_stat(view->env, &stat);
    if (mdb_cursor_open(view->read, S_FREE_PAGES, &cursor) == 0) {
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
            memcpy(&count, value.mv_data, sizeof count);
            pages += count;
        }
        mdb_cursor_close(cursor);
    }
    uint64_t used = lade_store_used_bytes(view, NULL), unused = (uint64_t)pages * stat.ms_psize;
    return used > unused ? used - unused : used;
}

// LMDB writes its copy to a descriptor and cannot be stopped there; so it writes to a pipe from a
// thread of its own, and the pipe can be closed.
typedef struct {
    MDB_env *env;
    int fd;
    int rc;
} s_copy_t;

static void *
s_write_copy(void *arg)
{
    s_copy_t *copy = arg;
    copy->rc = mdb_env_copyfd2(copy->env, copy->fd, MDB_CP_COMPACT);
    close(copy->fd);
    return NULL;
}

static lade_code_t
s_pump(lade_store_t *view, int fd, bool (*take)(void *arg, const void *bytes, size_t len),
       void *arg, lade_error_t *error)
{
    enum { S_PIECE = 256 << 10 };
    char *piece = malloc(S_PIECE);
    lade_code_t code =
        piece ? LADE_OK : lade_error_set(error, LADE_NO_MEMORY, "no memory to copy the keyspace");
    for (ssize_t len = 1; !code && len > 0;) {
        len = read(fd, piece, S_PIECE);
        if (len < 0 && errno == EINTR)
            len = 1;
        else if (len < 0)
            code = lade_error_errno(error, errno, "keyspace %s: copying it", view->folder);
        else if (lade_store_wanted(view))
            code = lade_error_set(error, LADE_BUSY,
                                  "keyspace %s: its map had to grow while it was copied: try again",
                                  view->folder);
        else if (len > 0 && !take(arg, piece, (size_t)len))
            code = lade_error_set(error, LADE_CANCELLED, "copying the keyspace was stopped");
    }
    free(piece);
    return code;
}

lade_code_t
lade_store_copy(lade_store_t *view, bool (*take)(void *arg, const void *bytes, size_t len),
                void *arg, lade_error_t *error)
{
    int ends[2];
    pthread_t thread;
    sigset_t all, before;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return lade_error_errno(error, errno, "no pipe to copy the keyspace through");
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    s_copy_t copy = {.env = view->env, .fd = ends[1]};
    sigfillset(&all); // also SIGPIPE, which is what a closed pipe says
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, s_write_copy, &copy);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        close(ends[0]);
        close(ends[1]);
        return lade_error_errno(error, failed, "no thread to copy the keyspace");
    }
    lade_code_t code = s_pump(view, ends[0], take, arg, error);
    close(ends[0]);
    pthread_join(thread, NULL);
    return code || !copy.rc ? code : lade_store_error(view, copy.rc, "copying", error);
}
