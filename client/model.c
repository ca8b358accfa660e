// Loaded models: the broker's answer, the attached segment, and the tensors in it.
#include "client/model.h"

#include "client/outcome.h"
#include "common/segment.h"
#include "common/wire.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum {
    S_ATTACH_MS = 5000,
    S_TTL_S = 120, // of a lease that nobody attached with: whoever asked gave up waiting
};

struct lade_model {
    json_t *answer;
    char *config;
    lade_segment_t *segment;
    pthread_mutex_t lock; // of what is made when it is first asked for: the segment's index and
                          // place, and
    char *metadata;
};

// Shared memory reaches no further than this host.
static json_t *
s_complete(json_t *args)
{
    char host[256] = "localhost";
    gethostname(host, sizeof host - 1);
    json_object_set_new(args, "lock", json_true());
    json_object_set_new(args, "pid", json_integer(getpid()));
    json_object_set_new(args, "ttl_s", json_integer(S_TTL_S));
    json_object_set_new(args, "requires", json_pack("{s:s}", "host", host));
    return args;
}

static lade_code_t
s_attach(lade_model_t *self, lade_error_t *error)
{
    const char *lease = lade_json_text(self->answer, "lease", NULL);
    const char *path = lade_json_text(json_object_get(self->answer, "segment"), "attach", NULL);
    if (!lease || !path)
        return lade_error_set(error, LADE_INTERNAL,
                              "the load worker named no segment to attach to");
    return lade_segment_attach(path, lease, S_ATTACH_MS, &self->segment, error);
}

// A lease nobody attached with would last for a while.
static void
s_give_back(lade_t *client, const json_t *answer)
{
    const char *lease = lade_json_text(answer, "lease", NULL);
    if (lease)
        lade_request_json(client, "load", "unlock", json_pack("{s:s}", "lease", lease), NULL, NULL,
                          NULL, NULL);
}

lade_code_t
lade_model_load(lade_t *client, const char *op, json_t *args, lade_request_partial_t *on_partial,
                void *arg, lade_model_t **model_p, lade_error_t *error)
{
    *model_p = NULL;
    json_t *answer = NULL;
    lade_code_t code =
        lade_request_json(client, "load", op, s_complete(args), on_partial, arg, &answer, error);
    if (code)
        return code;
    lade_model_t *self = calloc(1, sizeof *self);
    if (!self) {
        json_decref(answer);
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a model's handle");
    }
    self->answer = answer;
    pthread_mutex_init(&self->lock, NULL);
    code = s_attach(self, error);
    if (code) {
        s_give_back(client, answer);
        lade_unlock(&self);
        return code;
    }
    self->config = lade_request_text(json_object_get(answer, "config"));
    *model_p = self;
    return LADE_OK;
}

static void
s_add_text(json_t *args, const char *key, const char *value)
{
    if (value)
        json_object_set_new(args, key, json_stringn_nocheck(value, strlen(value)));
}

// What lade_model_load tells, as the options want it.
static bool
s_on_partial(void *arg, const json_t *partial)
{
    const lade_load_options_t *options = arg;
    int64_t bytes, total;
    lade_outcome_bytes(partial, &bytes, &total);
    return options->progress(options->arg, bytes, total);
}

// Adds what the options say, and loads. args is taken.
static lade_code_t
s_load(lade_t *self, const char *op, json_t *args, const lade_load_options_t *options,
       lade_model_t **model_p, lade_error_t *error)
{
    static const lade_load_options_t presets = {0};
    options = options ? options : &presets;
    s_add_text(args, "submodel", options->submodel);
    s_add_text(args, "dtype", options->dtype);
    s_add_text(args, "layout", options->layout);
    s_add_text(args, "device", options->device);
    s_add_text(args, "allow_unsafe", options->allow_unsafe);
    json_object_set_new(args, "timeout_s", json_real(options->timeout_s));
    json_t *context = options->context ? json_loads(options->context, 0, NULL) : NULL;
    if (options->context && !json_is_object(context)) {
        json_decref(context);
        json_decref(args);
        *model_p = NULL;
        return lade_error_set(error, LADE_VALUE_ERROR, "context: a JSON object is needed");
    }
    if (context)
        json_object_set_new(args, "context", context);
    if (!options->progress)
        return lade_model_load(self, op, args, NULL, NULL, model_p, error);
    json_object_set_new(args, "partial", json_true());
    return lade_model_load(self, op, args, s_on_partial, (void *)options, model_p, error);
}

lade_code_t
lade_load_model_by_key(lade_t *self, const char *key, const lade_load_options_t *options,
                       lade_model_t **model_p, lade_error_t *error)
{
    json_t *args = json_object();
    s_add_text(args, "key", key);
    return s_load(self, "load_model_by_key", args, options, model_p, error);
}

lade_code_t
lade_load_model_by_attr(lade_t *self, const char *name, const char *base, const char *type,
                        const lade_load_options_t *options, lade_model_t **model_p,
                        lade_error_t *error)
{
    json_t *args = json_object();
    s_add_text(args, "name", name);
    s_add_text(args, "base", base);
    s_add_text(args, "type", type);
    return s_load(self, "load_model_by_attr", args, options, model_p, error);
}

lade_code_t
lade_load_model_by_config(lade_t *self, const char *config, const lade_load_options_t *options,
                          lade_model_t **model_p, lade_error_t *error)
{
    json_t *args = json_object(), *record = json_loads(config ? config : "", 0, NULL);
    json_object_set_new(args, "config", record ? record : json_null());
    return s_load(self, "load_model_by_config", args, options, model_p, error);
}

lade_code_t
lade_load_model_from_path(lade_t *self, const char *path, const lade_load_options_t *options,
                          lade_model_t **model_p, lade_error_t *error)
{
    json_t *args = json_object();
    s_add_text(args, "path", path);
    return s_load(self, "load_model_from_path", args, options, model_p, error);
}

lade_code_t
lade_load_remote_model(lade_t *self, const char *source, const char *access_token,
                       const lade_load_options_t *options, lade_model_t **model_p,
                       lade_error_t *error)
{
    json_t *args = json_object(), *path = NULL;
    *model_p = NULL;
    s_add_text(args, "source", source);
    s_add_text(args, "access_token", access_token);
    if (options && options->timeout_s > 0)
        json_object_set_new(args, "timeout_s", json_real(options->timeout_s));
    lade_code_t code =
        lade_request_json(self, "install", "download_and_cache", args, NULL, NULL, &path, error);
    if (!code)
        code = lade_load_model_from_path(self, json_string_value(path), options, model_p, error);
    json_decref(path);
    return code;
}

lade_code_t
lade_load(lade_t *self, const char *key, const char *submodel, double timeout_s,
          lade_model_t **model_p, lade_error_t *error)
{
    lade_load_options_t options = {.submodel = submodel, .timeout_s = timeout_s};
    return lade_load_model_by_key(self, key, &options, model_p, error);
}

lade_code_t
lade_load_by_attr(lade_t *self, const char *name, const char *base, const char *type,
                  const char *submodel, double timeout_s, lade_model_t **model_p,
                  lade_error_t *error)
{
    lade_load_options_t options = {.submodel = submodel, .timeout_s = timeout_s};
    return lade_load_model_by_attr(self, name, base, type, &options, model_p, error);
}

lade_code_t
lade_load_cache_stats(lade_t *self, char **stats_p, lade_error_t *error)
{
    return lade_call(self, "load", "cache_stats", NULL, stats_p, error);
}

const json_t *
lade_model_answer(const lade_model_t *self)
{
    return self->answer;
}

const char *
lade_model_config(const lade_model_t *self)
{
    return self->config;
}

const char *
lade_model_path(const lade_model_t *self)
{
    return lade_json_text(self->answer, "path", "");
}

const char *
lade_model_location(const lade_model_t *self)
{
    return lade_json_text(self->answer, "location", "host");
}

const char *
lade_model_precision(const lade_model_t *self)
{
    return lade_json_text(self->answer, "precision", "none");
}

const char *
lade_model_metadata(lade_model_t *self)
{
    pthread_mutex_lock(&self->lock);
    if (!self->metadata) {
        json_t *metadata = lade_segment_metadata(self->segment);
        self->metadata = lade_request_text(metadata ? metadata : json_null());
        json_decref(metadata);
    }
    pthread_mutex_unlock(&self->lock);
    return self->metadata;
}

size_t
lade_model_bytes(const lade_model_t *self)
{
    return lade_segment_bytes(self->segment);
}

size_t
lade_model_tensor_count(lade_model_t *self)
{
    pthread_mutex_lock(&self->lock);
    size_t count = lade_segment_count(self->segment);
    pthread_mutex_unlock(&self->lock);
    return count;
}

// In elements. Channels last: the second dimension is innermost.
static void
s_set_strides(const lade_tensor_t *from, lade_model_tensor_t *tensor)
{
    static const uint8_t channels_last[] = {1, 3, 2, 0};
    uint64_t stride = 1;
    if (lade_dtype_block(from->dtype) > 1)
        return;
    if (from->layout == LADE_LAYOUT_CHANNELS_LAST) {
        for (size_t i = 0; i < sizeof channels_last; i++) {
            tensor->strides[channels_last[i]] = stride;
            stride *= from->shape[channels_last[i]];
        }
        return;
    }
    for (size_t i = from->rank; i-- > 0; stride *= from->shape[i])
        tensor->strides[i] = stride;
}

static bool
s_fill(const lade_model_t *self, const lade_tensor_t *from, lade_model_tensor_t *tensor)
{
    if (!from)
        return false;
    *tensor = (lade_model_tensor_t){.name = from->name,
                                    .dtype = lade_dtype_name(from->dtype),
                                    .rank = from->rank,
                                    .data = lade_segment_data(self->segment, from),
                                    .size = from->size};
    memcpy(tensor->shape, from->shape, sizeof tensor->shape);
    s_set_strides(from, tensor);
    return true;
}
_Static_assert(sizeof((lade_tensor_t *)0)->shape == sizeof((lade_model_tensor_t *)0)->shape,
               "ranks differ");

static const lade_tensor_t *
s_find(lade_model_t *self, const char *name)
{
    pthread_mutex_lock(&self->lock);
    const lade_tensor_t *tensor = lade_segment_find(self->segment, name);
    pthread_mutex_unlock(&self->lock);
    return tensor;
}

bool
lade_model_tensor(lade_model_t *self, size_t index, lade_model_tensor_t *tensor)
{
    pthread_mutex_lock(&self->lock);
    const lade_tensor_t *from = lade_segment_get(self->segment, index);
    pthread_mutex_unlock(&self->lock);
    return s_fill(self, from, tensor);
}

bool
lade_model_find(lade_model_t *self, const char *name, lade_model_tensor_t *tensor)
{
    return s_fill(self, s_find(self, name), tensor);
}

lade_code_t
lade_model_address(lade_model_t *self, const char *name, uint64_t *address, int *device,
                   lade_error_t *error)
{
    lade_import_t import;
    const lade_tensor_t *tensor = s_find(self, name);
    if (!tensor)
        return lade_error_set(error, LADE_NOT_FOUND, "the model has no tensor %.200s", name);
    pthread_mutex_lock(&self->lock);
    lade_code_t code = lade_segment_import(self->segment, &import, error);
    pthread_mutex_unlock(&self->lock);
    if (code)
        return code;
    *address = lade_segment_address(self->segment, tensor);
    *device = import.device;
    return LADE_OK;
}

void
lade_unlock(lade_model_t **model_p)
{
    lade_model_t *self = *model_p;
    if (!self)
        return;
    lade_segment_close(&self->segment);
    json_decref(self->answer);
    pthread_mutex_destroy(&self->lock);
    free(self->config);
    free(self->metadata);
    free(self);
    *model_p = NULL;
}
