// Workers by routing id and by name.
#include "broker/workers.h"

#include "broker/map.h"
#include "broker/packer.h"
#include "common/wire.h"

#include <czmq.h>

struct lade_workers {
    lade_map_t *by_peer, *by_name;
    lade_worker_t **all;
    size_t count, cap;
};

// ---------------------------------------------------------------------------------------------------
// Labels

lade_code_t
lade_labels_read(lade_labels_t *self, const msgpack_object *object, lade_error_t *error)
{
    enum { S_MOST = 256 };
    *self = (lade_labels_t){0};
    if (!object || object->type == MSGPACK_OBJECT_NIL)
        return LADE_OK;
    if (object->type != MSGPACK_OBJECT_MAP || object->via.map.size > S_MOST)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "labels and requires are maps of text to text, of at most %d pairs",
                              S_MOST);
    self->pairs = zmalloc((object->via.map.size + 1) * sizeof *self->pairs);
    for (uint32_t i = 0; i < object->via.map.size; i++) {
        const msgpack_object *key = &object->via.map.ptr[i].key,
                             *value = &object->via.map.ptr[i].val;
        if (key->type != MSGPACK_OBJECT_STR || value->type != MSGPACK_OBJECT_STR ||
            key->via.str.size > LADE_BROKER_MAX_NAME ||
            value->via.str.size > LADE_BROKER_MAX_NAME) {
            lade_labels_free(self);
            return lade_error_set(
                error, LADE_VALUE_ERROR,
                "labels and requires are maps of text to text of at most %d bytes each",
                LADE_BROKER_MAX_NAME);
        }
        lade_job_set_text(&self->pairs[i].key, key->via.str.ptr, key->via.str.size);
        lade_job_set_text(&self->pairs[i].value, value->via.str.ptr, value->via.str.size);
        self->count++;
    }
    return LADE_OK;
}

void
lade_labels_free(lade_labels_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        free(self->pairs[i].key);
        free(self->pairs[i].value);
    }
    free(self->pairs);
    *self = (lade_labels_t){0};
}

const char *
lade_labels_get(const lade_labels_t *self, const char *key)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp(self->pairs[i].key, key) == 0)
            return self->pairs[i].value;
    return NULL;
}

bool
lade_labels_have(const lade_labels_t *all, const lade_labels_t *some)
{
    for (size_t i = 0; i < some->count; i++) {
        const char *value = lade_labels_get(all, some->pairs[i].key);
        if (!value || strcmp(value, some->pairs[i].value) != 0)
            return false;
    }
    return true;
}

// ---------------------------------------------------------------------------------------------------
// The table

lade_workers_t *
lade_workers_new(void)
{
    lade_workers_t *self = zmalloc(sizeof *self);
    self->by_peer = lade_map_new();
    self->by_name = lade_map_new();
    return self;
}

lade_worker_t *
lade_workers_by_peer(lade_workers_t *self, const char *peer, size_t len)
{
    return lade_map_get(self->by_peer, peer, len);
}

lade_worker_t *
lade_workers_by_name(lade_workers_t *self, const char *name)
{
    return lade_map_get(self->by_name, name, strlen(name));
}

static void
s_free_kinds(char **kinds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(kinds[i]);
    free(kinds);
}

static lade_code_t
s_read_kinds(const msgpack_object *body, char ***kinds_p, size_t *count_p, lade_error_t *error)
{
    enum { S_MOST = 64 };
    const msgpack_object *kinds = lade_wire_find(body, "kinds");
    *kinds_p = NULL;
    *count_p = 0;
    if (!kinds || kinds->type != MSGPACK_OBJECT_ARRAY || kinds->via.array.size == 0 ||
        kinds->via.array.size > S_MOST)
        return lade_error_set(error, LADE_BAD_REQUEST,
                              "HELLO needs `kinds`, an array of 1 to %d names", S_MOST);
    *kinds_p = zmalloc(kinds->via.array.size * sizeof **kinds_p);
    for (uint32_t i = 0; i < kinds->via.array.size; i++) {
        const msgpack_object *kind = &kinds->via.array.ptr[i];
        if (kind->type != MSGPACK_OBJECT_STR || kind->via.str.size == 0 ||
            kind->via.str.size > LADE_BROKER_MAX_KIND ||
            memchr(kind->via.str.ptr, 0, kind->via.str.size))
            return lade_error_set(error, LADE_BAD_REQUEST, "a kind is a name of 1 to %d bytes",
                                  LADE_BROKER_MAX_KIND); // the caller frees what there is
        lade_job_set_text(&(*kinds_p)[(*count_p)++], kind->via.str.ptr, kind->via.str.size);
    }
    return LADE_OK;
}

static lade_worker_t *
s_new(lade_workers_t *self, char *name)
{
    lade_worker_t *worker = zmalloc(sizeof *worker);
    worker->name = name;
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 16;
        self->all = realloc(self->all, self->cap * sizeof *self->all);
        if (!self->all)
            abort();
    }
    worker->at = self->count;
    self->all[self->count++] = worker;
    lade_map_put(self->by_name, worker->name, strlen(worker->name), worker);
    return worker;
}

static void
s_set_peer(lade_workers_t *self, lade_worker_t *worker, const char *peer, size_t len)
{
    if (worker->peer)
        lade_map_del(self->by_peer, worker->peer, worker->peer_len);
    lade_job_set_text(&worker->peer, peer, len);
    worker->peer_len = len;
    lade_map_put(self->by_peer, worker->peer, len, worker);
}

// Puts `name` and `host` among the labels if the worker left them out.
static void
s_add_label(lade_labels_t *labels, const char *key, const char *value)
{
    if (lade_labels_get(labels, key) || !value)
        return;
    labels->pairs = realloc(labels->pairs, (labels->count + 1) * sizeof *labels->pairs);
    if (!labels->pairs)
        abort();
    labels->pairs[labels->count].key = strdup(key);
    labels->pairs[labels->count++].value = strdup(value);
}

static void
s_set_text_of(char **text_p, const msgpack_object *body, const char *key)
{
    const char *text;
    size_t len;
    if (lade_wire_text(body, key, &text, &len) && len <= LADE_BROKER_MAX_NAME)
        lade_job_set_text(text_p, text, len);
}

// What a HELLO says, checked.
typedef struct {
    char *name, **kinds;
    size_t kind_count;
    int64_t slots;
    lade_labels_t labels;
} s_hello_t;

static void
s_free_hello(s_hello_t *hello)
{
    s_free_kinds(hello->kinds, hello->kind_count);
    lade_labels_free(&hello->labels);
    free(hello->name);
}

// The caller frees what there is, also after an error.
static lade_code_t
s_read_hello(s_hello_t *hello, const msgpack_object *body, lade_error_t *error)
{
    *hello = (s_hello_t){.name = lade_wire_strdup(body, "name"),
                         .slots = lade_wire_int(body, "slots", 1)};
    if (!hello->name || !*hello->name || strlen(hello->name) > LADE_BROKER_MAX_NAME ||
        hello->slots < 0)
        return lade_error_set(error, LADE_BAD_REQUEST,
                              "HELLO needs a `name` of 1 to %d bytes and `slots` not below 0",
                              LADE_BROKER_MAX_NAME);
    lade_code_t code = s_read_kinds(body, &hello->kinds, &hello->kind_count, error);
    return code ? code : lade_labels_read(&hello->labels, lade_wire_find(body, "labels"), error);
}

// The worker of that name (NULL: it is new), if this connection may be it.
static lade_code_t
s_find(lade_workers_t *self, const char *name, const char *peer, size_t peer_len,
       lade_worker_t **worker_p, lade_error_t *error)
{
    *worker_p = lade_workers_by_name(self, name);
    const lade_worker_t *there = lade_workers_by_peer(self, peer, peer_len);
    if (there && there != *worker_p)
        return lade_error_set(error, LADE_BAD_REQUEST, "this connection said HELLO as %s before",
                              there->name);
    if (!*worker_p && self->count >= LADE_BROKER_MAX_WORKERS)
        return lade_error_set(error, LADE_QUEUE_FULL, "%d workers are known already",
                              LADE_BROKER_MAX_WORKERS);
    return LADE_OK;
}

// The worker is what its HELLO says from here on; takes kinds and labels over.
static void
s_take_hello(lade_worker_t *worker, s_hello_t *hello, const msgpack_object *body)
{
    s_free_kinds(worker->kinds, worker->kind_count);
    worker->kinds = hello->kinds;
    worker->kind_count = hello->kind_count;
    worker->slots = hello->slots < LADE_BROKER_MAX_SLOTS ? hello->slots : LADE_BROKER_MAX_SLOTS;
    worker->pid = lade_wire_int(body, "pid", 0);
    worker->terms = lade_wire_bool(body, "terms", false);
    worker->share = (lade_worker_share_t){.rate = -1, .peak = -1, .demand = -1, .told = -1};
    s_set_text_of(&worker->host, body, "host");
    s_set_text_of(&worker->version, body, "version");
    lade_labels_free(&worker->labels);
    worker->labels = hello->labels;
    s_add_label(&worker->labels, "name", worker->name);
    s_add_label(&worker->labels, "host", worker->host);
    hello->kinds = NULL;
    hello->kind_count = 0;
    hello->labels = (lade_labels_t){0};
}

lade_code_t
lade_workers_hello(lade_workers_t *self, const char *peer, size_t peer_len,
                   const msgpack_object *body, lade_worker_t **worker_p, bool *new_p,
                   lade_error_t *error)
{
    s_hello_t hello;
    lade_worker_t *worker = NULL;
    lade_code_t code = s_read_hello(&hello, body, error);
    if (!code)
        code = s_find(self, hello.name, peer, peer_len, &worker, error);
    if (!code) {
        *new_p = !worker;
        if (!worker) {
            worker = s_new(self, hello.name);
            hello.name = NULL;
        }
        s_set_peer(self, worker, peer, peer_len);
        s_take_hello(worker, &hello, body);
        *worker_p = worker;
    }
    s_free_hello(&hello);
    return code;
}

size_t
lade_workers_count(const lade_workers_t *self)
{
    return self->count;
}

lade_worker_t *
lade_workers_at(const lade_workers_t *self, size_t at)
{
    return self->all[at];
}

bool
lade_worker_serves(const lade_worker_t *worker, const char *kind)
{
    for (size_t i = 0; i < worker->kind_count; i++)
        if (strcmp(worker->kinds[i], kind) == 0)
            return true;
    return false;
}

bool
lade_workers_serve(const lade_workers_t *self, const char *kind)
{
    for (size_t i = 0; i < self->count; i++)
        if (lade_worker_serves(self->all[i], kind))
            return true;
    return false;
}

// ---------------------------------------------------------------------------------------------------
// Holds

lade_hold_t *
lade_worker_hold(lade_worker_t *worker, uint64_t id, int64_t attempt)
{
    for (size_t i = 0; i < worker->hold_count; i++)
        if (worker->holds[i].id == id && worker->holds[i].attempt == attempt)
            return &worker->holds[i];
    return NULL;
}

void
lade_worker_take(lade_worker_t *worker, lade_job_t *job, int64_t now_ms)
{
    if (worker->hold_count == worker->hold_cap) {
        worker->hold_cap = worker->hold_cap ? worker->hold_cap * 2 : 8;
        worker->holds = realloc(worker->holds, worker->hold_cap * sizeof *worker->holds);
        if (!worker->holds)
            abort();
    }
    job->holder = worker;
    job->hold = (uint32_t)worker->hold_count;
    worker->holds[worker->hold_count++] =
        (lade_hold_t){.id = job->id, .attempt = job->attempt, .since_ms = now_ms, .job = job};
}

void
lade_worker_drop(lade_worker_t *worker, lade_hold_t *hold)
{
    if (hold->job)
        hold->job->holder = NULL;
    lade_hold_t *last = &worker->holds[--worker->hold_count];
    if (last == hold)
        return;
    *hold = *last;
    if (hold->job)
        hold->job->hold = (uint32_t)(hold - worker->holds);
}

// ---------------------------------------------------------------------------------------------------

void
lade_worker_put(const lade_worker_t *worker, lade_buf_t *buf)
{
    lade_put_map(buf, 13);
    LADE_PUT_KEY(buf, "name");
    lade_put_str(buf, worker->name);
    LADE_PUT_KEY(buf, "host");
    lade_put_str(buf, worker->host);
    LADE_PUT_KEY(buf, "pid");
    lade_put_int(buf, worker->pid);
    LADE_PUT_KEY(buf, "kinds");
    lade_put_array(buf, worker->kind_count);
    for (size_t i = 0; i < worker->kind_count; i++)
        lade_put_str(buf, worker->kinds[i]);
    LADE_PUT_KEY(buf, "slots");
    lade_put_int(buf, worker->slots);
    LADE_PUT_KEY(buf, "busy");
    lade_put_uint(buf, worker->hold_count);
    LADE_PUT_KEY(buf, "labels");
    lade_put_map(buf, worker->labels.count);
    for (size_t i = 0; i < worker->labels.count; i++) {
        lade_put_str(buf, worker->labels.pairs[i].key);
        lade_put_str(buf, worker->labels.pairs[i].value);
    }
    LADE_PUT_KEY(buf, "version");
    lade_put_str(buf, worker->version);
    LADE_PUT_KEY(buf, "since");
    lade_put_real(buf, worker->since);
    LADE_PUT_KEY(buf, "last_beat");
    lade_put_real(buf, worker->last_beat);
    LADE_PUT_KEY(buf, "jobs");
    lade_put_array(buf, worker->hold_count);
    for (size_t i = 0; i < worker->hold_count; i++)
        lade_put_uint(buf, worker->holds[i].id);
    LADE_PUT_KEY(buf, "bytes_per_s");
    lade_put_int(buf, worker->share.bytes_per_s);
    LADE_PUT_KEY(buf, "stats");
    lade_put_packed(buf, worker->stats.data, worker->stats.len);
}

static void
s_destroy(lade_worker_t *worker)
{
    free(worker->name);
    free(worker->host);
    free(worker->version);
    free(worker->peer);
    s_free_kinds(worker->kinds, worker->kind_count);
    lade_labels_free(&worker->labels);
    lade_blob_free(&worker->stats);
    free(worker->holds);
    free(worker);
}

void
lade_workers_del(lade_workers_t *self, lade_worker_t *worker)
{
    assert(worker->hold_count == 0);
    lade_map_del(self->by_peer, worker->peer, worker->peer_len);
    lade_map_del(self->by_name, worker->name, strlen(worker->name));
    lade_worker_t *last = self->all[--self->count];
    last->at = worker->at;
    self->all[last->at] = last;
    s_destroy(worker);
}

void
lade_workers_destroy(lade_workers_t **self_p)
{
    lade_workers_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        s_destroy(self->all[i]);
    free(self->all);
    lade_map_destroy(&self->by_peer);
    lade_map_destroy(&self->by_name);
    free(self);
    *self_p = NULL;
}
