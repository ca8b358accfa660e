// stat(2) of each file, kept and compared.
#include "workers/gpu/stamps.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

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
        self->list[i] =
            (lade_stamp_t){status.st_dev, status.st_ino, status.st_size, status.st_mtim};
    }
    return LADE_OK;
}

void
lade_stamps_free(lade_stamps_t *self)
{
    free(self->list);
    *self = (lade_stamps_t){0};
}

bool
lade_stamps_same(const lade_stamps_t *a, const lade_stamps_t *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++) {
        const lade_stamp_t *was = &a->list[i], *is = &b->list[i];
        same = was->device == is->device && was->inode == is->inode && was->size == is->size &&
               was->changed.tv_sec == is->changed.tv_sec &&
               was->changed.tv_nsec == is->changed.tv_nsec;
    }
    return same;
}

json_t *
lade_stamps_pack(const lade_stamps_t *self)
{
    json_t *list = json_array();
    for (size_t i = 0; i < self->count; i++) {
        const lade_stamp_t *stamp = &self->list[i];
        json_array_append_new(list, json_pack("[I, I, I, I, I]", (json_int_t)stamp->device,
                                              (json_int_t)stamp->inode, (json_int_t)stamp->size,
                                              (json_int_t)stamp->changed.tv_sec,
                                              (json_int_t)stamp->changed.tv_nsec));
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
                                       {(time_t)numbers[3], (long)numbers[4]}};
    }
    return self->list != NULL;
}
