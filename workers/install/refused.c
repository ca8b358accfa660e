// Refused files, by their path.
#include "workers/install/refused.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_PLACES = 1 << 14,
    S_MAX_FILES = 100000, // beyond which what was refused is looked at again
};

typedef struct s_file {
    struct s_file *next;
    struct timespec mtime, ctime;
    dev_t dev;
    ino_t ino;
    off_t size;
    lade_code_t code;
    char *message;
    char path[];
} s_file_t;

struct lade_refused {
    pthread_mutex_t lock;
    s_file_t *places[S_PLACES];
    size_t count;
};

lade_refused_t *
lade_refused_new(void)
{
    lade_refused_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    pthread_mutex_init(&self->lock, NULL);
    return self;
}

static s_file_t **
s_find(lade_refused_t *self, const char *path)
{
    uint64_t hash = UINT64_C(1469598103934665603); // FNV-1a
    for (const char *at = path; *at; at++)
        hash = (hash ^ (uint8_t)*at) * UINT64_C(1099511628211);
    s_file_t **file = &self->places[(hash ^ hash >> 32) % S_PLACES];
    while (*file && strcmp((*file)->path, path) != 0)
        file = &(*file)->next;
    return file;
}

static void
s_remove(lade_refused_t *self, s_file_t **file)
{
    s_file_t *gone = *file;
    *file = gone->next;
    free(gone->message);
    free(gone);
    self->count--;
}

static bool
s_is_same(const s_file_t *file, const struct stat *st)
{
    return file->dev == st->st_dev && file->ino == st->st_ino && file->size == st->st_size &&
           memcmp(&file->mtime, &st->st_mtim, sizeof file->mtime) == 0 &&
           memcmp(&file->ctime, &st->st_ctim, sizeof file->ctime) == 0;
}

bool
lade_refused_find(lade_refused_t *self, const char *path, const struct stat *st,
                  lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    s_file_t **file = s_find(self, path);
    bool same = *file && s_is_same(*file, st);
    if (same)
        lade_error_set(error, (*file)->code, "%s", (*file)->message);
    else if (*file)
        s_remove(self, file);
    pthread_mutex_unlock(&self->lock);
    return same;
}

void
lade_refused_add(lade_refused_t *self, const char *path, const struct stat *st,
                 const lade_error_t *error)
{
    if (error->code != LADE_INVALID_MODEL_CONFIG && error->code != LADE_CORRUPT &&
        error->code != LADE_NOT_A_MODEL && error->code != LADE_NOT_IMPLEMENTED)
        return;
    size_t len = strlen(path);
    pthread_mutex_lock(&self->lock);
    s_file_t **place = s_find(self, path);
    if (*place)
        s_remove(self, place);
    s_file_t *file = self->count < S_MAX_FILES ? malloc(sizeof *file + len + 1) : NULL;
    if (file) {
        *file = (s_file_t){.next = *place,
                           .mtime = st->st_mtim,
                           .ctime = st->st_ctim,
                           .dev = st->st_dev,
                           .ino = st->st_ino,
                           .size = st->st_size,
                           .code = error->code,
                           .message = strdup(error->message)};
        memcpy(file->path, path, len + 1);
        *place = file;
        self->count++;
    }
    pthread_mutex_unlock(&self->lock);
}

void
lade_refused_destroy(lade_refused_t **self_p)
{
    lade_refused_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < S_PLACES; i++)
        while (self->places[i])
            s_remove(self, &self->places[i]);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *self_p = NULL;
}
