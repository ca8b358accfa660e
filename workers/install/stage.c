// What the stages share.
#include "workers/install/stage.h"

#include "common/log.h"
#include "common/path.h"
#include "common/record.h"
#include "common/wire.h"
#include "workers/install/place.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
lade_stage_free(lade_answer_t *self)
{
    json_t *values[] = {self->result, self->effects, self->state,
                        self->jobs,   self->ask,     self->undo};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        json_decref(values[i]);
    free(self->local_path);
    *self = (lade_answer_t){0};
}

lade_code_t
lade_stage_check(const lade_stage_t *self, lade_error_t *error)
{
    switch (self->stop(self->arg)) {
    case LADE_STOP_NONE:
        return LADE_OK;
    case LADE_STOP_PAUSE:
        return lade_error_set(error, LADE_PAUSED, "paused; `lade resume %" PRId64 "` goes on",
                              self->id);
    case LADE_STOP_CANCEL:
    case LADE_STOP_STALE:
        break;
    }
    return lade_error_set(error, LADE_CANCELLED, "cancelled");
}

bool
lade_stage_stopped(void *arg)
{
    const lade_stage_t *self = arg;
    return self->stop(self->arg) != LADE_STOP_NONE;
}

void
lade_stage_progress(const lade_stage_t *self, int64_t bytes, int64_t total_bytes,
                    const char *local_path)
{
    self->progress(self->arg, bytes, total_bytes, "installing", local_path);
}

lade_code_t
lade_stage_overrides(const lade_stage_t *self, json_t **overrides_p, lade_error_t *error)
{
    const json_t *config = json_object_get(self->spec, "config");
    *overrides_p = json_object();
    if (!config || json_is_null(config))
        return LADE_OK;
    if (!json_is_object(config))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "config has to be a map of fields and values");
    json_object_update(*overrides_p, (json_t *)config);
    lade_record_canonical(*overrides_p);
    return lade_record_check_overrides(*overrides_p, error);
}

char *
lade_stage_temp(const lade_stage_t *self)
{
    return lade_place_temp(self->config->models_dir, self->id);
}

char *
lade_stage_copy(const lade_stage_t *self)
{
    char *temp = lade_stage_temp(self), name[40];
    snprintf(name, sizeof name, "copy_%" PRId64, self->attempt);
    char *copy = lade_path_join(temp, name);
    free(temp);
    return copy;
}

void
lade_stage_remove_copies(const lade_stage_t *self)
{
    char *temp = lade_stage_temp(self);
    DIR *dir = opendir(temp);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int64_t attempt;
        if (sscanf(entry->d_name, "copy_%" SCNd64, &attempt) != 1 || attempt > self->attempt)
            continue;
        char *path = lade_path_join(temp, entry->d_name);
        lade_error_t error = {0};
        if (lade_place_discard(self->config->models_dir, path, &error))
            lade_log(LADE_LOG_WARNING, "install", "job %" PRId64 ": %s", self->id, error.message);
        free(path);
    }
    if (dir)
        rewinddir(dir);
    bool empty = dir != NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        empty = empty && entry->d_name[0] == '.';
    if (dir)
        closedir(dir);
    if (empty) // but for what says whose it is
        lade_place_discard(self->config->models_dir, temp, NULL);
    free(temp);
}

void
lade_stage_set_text(json_t *object, const char *key, const char *text)
{
    if (text)
        json_object_set_new_nocheck(object, key, json_string_nocheck(text));
}

json_t *
lade_stage_state(const lade_stage_t *self)
{
    return self->state ? json_deep_copy(self->state) : json_object();
}

lade_code_t
lade_stage_run(const lade_stage_t *self, const lade_step_t *steps, lade_answer_t *answer,
               lade_error_t *error)
{
    const char *step = lade_json_text(self->state, "step", "");
    lade_code_t code = lade_stage_check(self, error);
    while (steps->run && strcmp(steps->step, step) != 0)
        steps++;
    if (!code)
        code = steps->run ? steps->run(self, answer, error)
                          : lade_error_set(error, LADE_INTERNAL,
                                           "the saved state has the unknown step '%.40s'; a newer "
                                           "lade wrote it",
                                           step);
    if (code == LADE_CANCELLED && self->stop(self->arg) == LADE_STOP_PAUSE)
        code = lade_stage_check(self, error);
    return code;
}
