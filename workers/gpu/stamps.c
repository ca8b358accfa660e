// stat(2) of each file, kept and compared.
#include "workers/gpu/stamps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static lade_stamp_t
s_stamp(const struct stat *status)
{
    return (lade_stamp_t){status->st_dev, status->st_ino, status->st_size, status->st_mtim, NULL};
}

lade_code_t
lade_stamps_take(lade_stamps_t *self, const lade_files_t *files, lade_error_t *error)
{
    *self = (lade_stamps_t){.list = calloc(files->count + 1, sizeof *self->list),
                            .count = files->count};
    if (!self->list)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu files", files->count);
    for (size_t i = 0; i < files->count; i++) {
        struct stat status;
        if (stat(files->paths[i], &status)) {
            lade_code_t code = lade_error_errno(error, errno, "%s", files->paths[i]);
            return code == LADE_NOT_FOUND
                       ? lade_error_set(error, LADE_MODEL_NOT_FOUND,
                                        "a file of the model is gone: %s", files->paths[i])
                       : code;
        }
        self->list[i] = s_stamp(&status);
    }
    return LADE_OK;
}

lade_code_t
lade_stamps_add(lade_stamps_t *self, int fd, const char *path, lade_error_t *error)
{
    struct stat status;
    if (fstat(fd, &status))
        return lade_error_errno(error, errno, "%s", path);
    lade_stamp_t *list = realloc(self->list, (self->count + 1) * sizeof *list);
    if (!list)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu files", self->count + 1);
    self->list = list;
    list[self->count] = s_stamp(&status);
    list[self->count].beside = strdup(path);
    return list[self->count++].beside
               ? LADE_OK
               : lade_error_set(error, LADE_NO_MEMORY, "no memory for a path");
}

void
lade_stamps_free(lade_stamps_t *self)
{
    for (size_t i = 0; self->list && i < self->count; i++)
        free(self->list[i].beside);
    free(self->list);
    *self = (lade_stamps_t){0};
}

static bool
s_same(const lade_stamp_t *was, const lade_stamp_t *is)
{
    return was->device == is->device && was->inode == is->inode && was->size == is->size &&
           was->changed.tv_sec == is->changed.tv_sec && was->changed.tv_nsec == is->changed.tv_nsec;
}

bool
lade_stamps_same(const lade_stamps_t *a, const lade_stamps_t *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++)
        same = s_same(&a->list[i], &b->list[i]);
    return same;
}

bool
lade_stamps_still(const lade_stamps_t *was, const lade_stamps_t *now)
{
    size_t at = 0;
    for (size_t i = 0; i < was->count; i++) {
        struct stat status;
        lade_stamp_t there;
        const char *beside = was->list[i].beside;
        if (beside ? stat(beside, &status) != 0 : at == now->count)
            return false;
        there = beside ? s_stamp(&status) : now->list[at++];
        if (!s_same(&was->list[i], &there))
            return false;
    }
    return at == now->count;
}

json_t *
lade_stamps_pack(const lade_stamps_t *self)
{
    json_t *list = json_array();
    for (size_t i = 0; i < self->count; i++) {
        const lade_stamp_t *stamp = &self->list[i];
        json_t *file =
            json_pack("[I, I, I, I, I]", (json_int_t)stamp->device, (json_int_t)stamp->inode,
                      (json_int_t)stamp->size, (json_int_t)stamp->changed.tv_sec,
                      (json_int_t)stamp->changed.tv_nsec);
        if (stamp->beside)
            json_array_append_new(file, json_stringn_nocheck(stamp->beside, strlen(stamp->beside)));
        json_array_append_new(list, file);
    }
    return list;
}

bool
lade_stamps_unpack(lade_stamps_t *self, const json_t *list)
{
    size_t count = json_array_size(list);
    *self = (lade_stamps_t){.list = calloc(count + 1, sizeof *self->list), .count = count};
    for (size_t i = 0; self->list && i < count; i++) {
        const json_t *file = json_array_get(list, i);
        json_int_t numbers[5];
        for (size_t n = 0; n < 5; n++)
            numbers[n] = json_integer_value(json_array_get(file, n));
        self->list[i] = (lade_stamp_t){(dev_t)numbers[0],
                                       (ino_t)numbers[1],
                                       (off_t)numbers[2],
                                       {(time_t)numbers[3], (long)numbers[4]},
                                       NULL};
        const char *beside = json_string_value(json_array_get(file, 5));
        if (beside && !(self->list[i].beside = strdup(beside)))
            return false;
    }
    return self->list != NULL;
}
