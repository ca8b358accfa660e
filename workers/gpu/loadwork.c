// From a job's spec to a call on the cache, and from its answer to a job's result (broker/README.md
// has both).
#include "workers/gpu/loadwork.h"

#include "common/log.h"
#include "common/wire.h"
#include "workers/gpu/checkpoint.h"
#include "workers/gpu/keep_watch.h"
#include "workers/gpu/memory.h"
#include "workers/gpu/probe.h"
#include "workers/gpu/reader.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct lade_loadwork {
    const lade_config_t *config;
    char *name;
    lade_cache_t *cache;
    lade_attach_t *attach;
    lade_keep_watch_t *watch; // for a keeper that comes
    lade_vram_t *vram;        // the cache's
    void (*on_anew)(void *arg);
    void *anew_arg;
    bool anew;          // that was called
    lade_pool_t *loads; // reads models
    lade_pool_t *quick; // what does not read: never behind a model that is being read
};

enum { S_QUICK_SLOTS = 2 };

typedef struct {
    const char *kind;
    bool quick;
    lade_code_t (*run)(lade_loadwork_t *self, lade_task_t *task, json_t **result_p,
                       lade_error_t *error);
} s_kind_t;

static lade_code_t s_load(lade_loadwork_t *, lade_task_t *, json_t **, lade_error_t *);
static lade_code_t s_unlock(lade_loadwork_t *, lade_task_t *, json_t **, lade_error_t *);
static lade_code_t s_unload(lade_loadwork_t *, lade_task_t *, json_t **, lade_error_t *);

static const s_kind_t s_kinds[] = {
    {"load", false, s_load},
    {"unlock", true, s_unlock},
    {"unload", true, s_unload},
};
static const char *const s_kind_names[] = {"load", "unlock", "unload", NULL};

// ---------------------------------------------------------------------------------------------------
// The kinds

// A submodel or a key may be left out or be null; an empty one means the same.
static const char *
s_optional(const json_t *spec, const char *key)
{
    const char *text = lade_json_text(spec, key, "");
    return *text ? text : NULL;
}

static bool
s_on_step(void *arg, uint64_t bytes, uint64_t total_bytes)
{
    lade_task_t *task = arg;
    lade_task_progress(task, (int64_t)bytes, (int64_t)total_bytes, NULL, NULL);
    return lade_task_stop(task) == LADE_STOP_NONE;
}

static lade_code_t
s_read_spec(const json_t *spec, lade_cache_request_t *request, lade_error_t *error)
{
    int64_t pid = lade_json_int(spec, "pid", 0);
    double ttl_s = lade_json_real(spec, "ttl_s", 0);
    request->record = json_object_get(spec, "config");
    request->key = lade_json_text(spec, "key", lade_json_text(request->record, "key", ""));
    request->submodel = s_optional(spec, "submodel");
    request->lease = s_optional(spec, "lease");
    request->lock = lade_json_bool(spec, "lock", false);
    request->pid = (pid_t)pid;
    request->ttl_s = ttl_s;
    if (!json_is_object(request->record) || !*request->key)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "config: a load takes a record with its key");
    request->allow_unsafe = !strcmp(lade_json_text(spec, "allow_unsafe", ""), request->key);
    if (lade_json_bool(request->record, "quarantined", false) && !request->allow_unsafe)
        return lade_error_set(error, LADE_UNSAFE_FILE,
                              "%s is in quarantine: it would run code when loaded by others "
                              "(`lade probe` says what); allow_unsafe with its key loads its "
                              "tensors",
                              lade_json_text(request->record, "name", request->key));
    if (pid < 0 || pid > INT_MAX)
        return lade_error_set(error, LADE_VALUE_ERROR, "pid: %lld is no process", (long long)pid);
    if (!(ttl_s >= 0)) // not a number fails as well
        return lade_error_set(error, LADE_VALUE_ERROR, "ttl_s: takes seconds, 0 for no limit");
    return lade_want_read(s_optional(spec, "dtype"), s_optional(spec, "layout"),
                          s_optional(spec, "device"), &request->want, error);
}

static json_t *
s_text(const char *text)
{
    return text && *text ? json_string_nocheck(text) : json_null();
}

static json_t *
s_load_result(const lade_loadwork_t *self, const lade_cache_request_t *request,
              const lade_cache_answer_t *answer, const char *path)
{
    json_t *segment = json_object(), *result = json_object();
    json_object_set_new(segment, "id", json_integer((json_int_t)answer->id));
    json_object_set_new(segment, "attach", s_text(lade_attach_path(self->attach)));
    json_object_set_new(segment, "path", s_text(answer->path));
    json_object_set_new(segment, "bytes", json_integer((json_int_t)answer->bytes));
    json_object_set_new(result, "key", s_text(request->key));
    json_object_set_new(result, "submodel", s_text(request->submodel));
    json_object_set_new(result, "config", json_deep_copy(request->record));
    json_object_set_new(result, "path", s_text(path));
    json_object_set_new(
        result, "location",
        json_string(strcmp(request->want.device, "cpu") ? request->want.device : "host"));
    json_object_set_new(result, "precision", json_string(answer->precision));
    json_object_set_new(result, "layout",
                        json_string(request->want.channels_last ? "channels_last" : "stored"));
    json_object_set_new(result, "device", json_string(request->want.device));
    json_object_set_new(result, "unsafe_allowed", json_boolean(answer->unsafe));
    json_object_set_new(result, "worker", s_text(self->name));
    json_object_set_new(result, "bytes", json_integer((json_int_t)answer->bytes));
    json_object_set_new(result, "segment", segment);
    json_object_set_new(result, "lease", s_text(answer->lease));
    return result;
}

static int64_t
s_rounds(const lade_task_t *task)
{
    return lade_json_int(lade_task_state(task), "rounds", 0);
}

// The record of the converted copy that a part of a checkpoint is loaded from; NULL if that has to
// be made first: the jobs that do are then the task's data.
static lade_code_t
s_converted(lade_loadwork_t *self, lade_task_t *task, json_t **copy_p, int *hold_p,
            lade_error_t *error)
{
    json_t *jobs = NULL;
    lade_code_t code = lade_checkpoint_find(
        self->config->models_dir, json_object_get(lade_task_spec(task), "config"),
        lade_task_children(task), s_rounds(task), copy_p, hold_p, &jobs, error);
    lade_task_set_data(task, jobs);
    return code;
}

static lade_code_t
s_load(lade_loadwork_t *self, lade_task_t *task, json_t **result_p, lade_error_t *error)
{
    lade_cache_answer_t answer;
    lade_cache_request_t request = {.step = s_on_step, .arg = task};
    const json_t *record = NULL; // as it was asked for
    json_t *copy = NULL;
    int hold = -1;
    lade_code_t code = s_read_spec(lade_task_spec(task), &request, error);
    if (!code && lade_checkpoint_is(record = request.record, request.submodel)) {
        code = s_converted(self, task, &copy, &hold, error);
        if (!code && !copy)
            return LADE_OK; // it waits
        request.record = copy;
    }
    if (!code)
        code = lade_cache_load(self->cache, &request, &answer, error);
    char *path =
        code ? NULL : lade_loaders_path(request.record, request.submodel, self->config->models_dir);
    request.record = record;
    json_decref(copy);
    if (hold >= 0)
        close(hold);
    if (!code && lade_task_stop(task) != LADE_STOP_NONE) { // nobody would learn of the lease
        if (!request.lease || strcmp(request.lease, answer.lease)) // one that was renewed is known
            lade_cache_unlock(self->cache, answer.lease);
        code = lade_error_set(error, LADE_CANCELLED, "stopped when it was loaded");
    }
    if (!code)
        *result_p = s_load_result(self, &request, &answer, path);
    free(path);
    return code;
}

// A job may be given twice, so ending a lease that is over is no error.
static lade_code_t
s_unlock(lade_loadwork_t *self, lade_task_t *task, json_t **result_p, lade_error_t *error)
{
    const char *lease = s_optional(lade_task_spec(task), "lease");
    if (!lease)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "lease: an unlock takes the lease that a lock gave");
    *result_p = json_pack("{s:b}", "unlocked", lade_cache_unlock(self->cache, lease));
    return LADE_OK;
}

static lade_code_t
s_unload(lade_loadwork_t *self, lade_task_t *task, json_t **result_p, lade_error_t *error)
{
    const json_t *spec = lade_task_spec(task);
    const char *key = s_optional(spec, "key"), *submodel = s_optional(spec, "submodel");
    if (submodel && !key)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "submodel: an unload of a submodel takes its model's key too");
    *result_p =
        json_pack("{s:I}", "unloaded", (json_int_t)lade_cache_unload(self->cache, key, submodel));
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Tasks

static const s_kind_t *
s_find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof s_kinds / sizeof *s_kinds; i++)
        if (!strcmp(s_kinds[i].kind, name))
            return &s_kinds[i];
    return NULL;
}

// In a pool's thread.
static void
s_run(void *arg, lade_task_t *task)
{
    lade_loadwork_t *self = arg;
    lade_error_t error = {0};
    json_t *result = NULL;
    lade_code_t code = s_find_kind(lade_task_kind(task))->run(self, task, &result, &error);
    json_t *jobs = lade_task_data(task); // a load that waits for a conversion
    if (!code && jobs) {
        int64_t rounds = s_rounds(task) + 1;
        lade_task_await(&task, json_pack("{s:I}", "rounds", (json_int_t)rounds), jobs, NULL, 0,
                        NULL);
        return;
    }
    if (!code) {
        lade_task_done(&task, result, NULL);
        return;
    }
    if (code == LADE_CANCELLED && lade_task_stop(task) == LADE_STOP_PAUSE)
        lade_error_set(&error, LADE_PAUSED, "paused; it is read from its start when it goes on");
    lade_task_fail(&task, &error, 0);
}

static void
s_start(void *arg, lade_task_t *task)
{
    lade_loadwork_t *self = arg;
    const s_kind_t *kind = s_find_kind(lade_task_kind(task));
    assert(kind); // the loop hands over the kinds of s_kind_names only
    lade_pool_add(kind->quick ? self->quick : self->loads, task);
}

// At each beat: a device that was lost is back, but not for this process.
static void
s_look_for_devices(lade_loadwork_t *self)
{
    if (self->anew || !self->on_anew || !lade_vram_is_back(self->vram) ||
        !lade_cache_can_leave(self->cache))
        return;
    self->anew = true;
    lade_log(LADE_LOG_INFO, "vram", "a device that was lost is back: this worker starts anew");
    self->on_anew(self->anew_arg);
}

static json_t *
s_stats(void *arg)
{
    lade_loadwork_t *self = arg;
    if (self->cache)
        s_look_for_devices(self);
    return self->cache ? lade_cache_stats(self->cache) : NULL;
}

const lade_worker_ops_t lade_loadwork_ops = {
    .name = "gpu", .kinds = s_kind_names, .start = s_start, .stats = s_stats};

int64_t
lade_loadwork_slots(const lade_config_t *config)
{
    return config->load_slots + S_QUICK_SLOTS;
}

// ---------------------------------------------------------------------------------------------------

lade_loadwork_t *
lade_loadwork_new(const lade_config_t *config)
{
    lade_loadwork_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->config = config;
    self->loads = lade_pool_new((size_t)config->load_slots, s_run, self);
    self->quick = lade_pool_new(1, s_run, self);
    return self;
}

void
lade_loadwork_on_anew(lade_loadwork_t *self, void (*on_anew)(void *arg), void *arg)
{
    self->on_anew = on_anew;
    self->anew_arg = arg;
}

bool
lade_loadwork_leave(lade_loadwork_t *self)
{
    if (self->anew)
        lade_cache_leave(self->cache);
    return self->anew;
}

static void
s_on_keeper(void *arg)
{
    lade_cache_keeper_came(arg);
}

static void
s_keep(lade_loadwork_t *self)
{
    const char *data = self->config->data;
    lade_cache_keep(self->cache, lade_keep_new(data, self->name));
    self->watch = lade_keep_watch_new(data, s_on_keeper, self->cache);
    lade_cache_keeper_came(self->cache); // since it was looked for, before it was watched for
}

lade_code_t
lade_loadwork_open(lade_loadwork_t *self, const char *name, lade_error_t *error)
{
    const lade_config_t *config = self->config;
    lade_cache_options_t options = {
        .name = name,
        .models_dir = config->models_dir,
        .limit = (size_t)config->cache_mb << 20,
        .pool = (size_t)config->pool_mb << 20,
        .threads = (size_t)config->read_threads,
        .rows = lade_loaders_host,
        .vram = lade_vram_new((size_t)config->vram_mb << 20, (size_t)config->working_mb << 20),
        .check = config->check_weights,
    };
    self->vram = options.vram;
    lade_vram_set_probe(self->vram, lade_probe_device);
    self->name = strdup(name);
    if (!self->name)
        abort();
    lade_code_t code = lade_reader_choose(config->load_io, error);
    if (!code)
        code = lade_memory_choose(config->load_huge, error);
    if (!code)
        code = lade_cache_new(&options, &self->cache, error);
    if (code)
        lade_vram_destroy(&options.vram);
    else {
        if (config->keep_s)
            s_keep(self);
        code = lade_attach_new(config->data, &lade_cache_attach_ops, self->cache, &self->attach,
                               error);
    }
    return code;
}

void
lade_loadwork_destroy(lade_loadwork_t **self_p)
{
    lade_loadwork_t *self = *self_p;
    if (!self)
        return;
    lade_pool_destroy(&self->quick);
    lade_pool_destroy(&self->loads);
    lade_attach_destroy(&self->attach);
    lade_keep_watch_destroy(&self->watch);
    lade_cache_destroy(&self->cache);
    free(self->name);
    free(self);
    *self_p = NULL;
}
