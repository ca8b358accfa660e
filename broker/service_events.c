// events: replay, and the state of things to go on from.
#include "broker/call.h"
#include "broker/events.h"
#include "broker/outbox.h"
#include "broker/packer.h"
#include "broker/surface.h"
#include "broker/workers.h"
#include "common/wire.h"

#include <czmq.h>

enum { S_MAX_PREFIXES = 64, S_MAX_ANSWER = 8 << 20 };

static void
s_free_prefixes(char **prefixes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(prefixes[i]);
}

static lade_code_t
s_read_prefixes(const lade_call_t *call, char **prefixes, size_t *count_p, lade_error_t *error)
{
    const msgpack_object *list = lade_wire_find(call->args, "prefixes");
    *count_p = 0;
    if (!list || list->type == MSGPACK_OBJECT_NIL)
        return LADE_OK;
    if (list->type != MSGPACK_OBJECT_ARRAY || list->via.array.size > S_MAX_PREFIXES)
        return lade_error_set(error, LADE_VALUE_ERROR, "prefixes: an array of at most %d texts",
                              S_MAX_PREFIXES);
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        const msgpack_object *prefix = &list->via.array.ptr[i];
        if (prefix->type != MSGPACK_OBJECT_STR) {
            s_free_prefixes(prefixes, *count_p);
            return lade_error_set(error, LADE_VALUE_ERROR, "prefixes: an array of texts");
        }
        lade_job_set_text(&prefixes[(*count_p)++], prefix->via.str.ptr, prefix->via.str.size);
    }
    return LADE_OK;
}

static lade_code_t
s_since(lade_call_t *call, lade_error_t *error)
{
    char *prefixes[S_MAX_PREFIXES] = {0};
    size_t count;
    int64_t seq = lade_wire_int(call->args, "seq", -1),
            limit = lade_wire_int(call->args, "limit", 1000);
    if (seq < 0 || limit < 1)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "seq: the last one known is needed; limit: from 1 on");
    if (limit > LADE_BROKER_MAX_LIST)
        limit = LADE_BROKER_MAX_LIST;
    lade_code_t code = s_read_prefixes(call, prefixes, &count, error);
    if (code)
        return code;
    code = lade_events_since(call->broker->events, (uint64_t)seq, (const char *const *)prefixes,
                             count, (size_t)limit, S_MAX_ANSWER, lade_call_begin(call), error);
    if (code)
        lade_outbox_cancel(call->broker->outbox);
    else
        lade_call_end(call);
    s_free_prefixes(prefixes, count);
    return code;
}

typedef struct {
    lade_buf_t jobs;
    size_t count;
} s_snapshot_t;

static bool
s_add_job(void *arg, lade_job_t *job)
{
    s_snapshot_t *self = arg;
    lade_surface_put_job(job, true, &self->jobs);
    self->count++;
    return self->jobs.len < S_MAX_ANSWER;
}

static lade_code_t
s_take_snapshot(lade_call_t *call, lade_error_t *error)
{
    lade_broker_t *broker = call->broker;
    s_snapshot_t snapshot = {.jobs = LADE_BUF(SIZE_MAX / 2)};
    lade_job_filter_t filter = {
        .status = LADE_JOB_STATUS_COUNT, .not_ended = true, .limit = LADE_BROKER_MAX_LIST};
    lade_code_t code = lade_jobs_each(broker->jobs, &filter, s_add_job, &snapshot, error);
    if (code) {
        lade_buf_free(&snapshot.jobs);
        return code;
    }
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_map(buf, 5);
    LADE_PUT_KEY(buf, "seq");
    lade_put_uint(buf, lade_events_seq(broker->events));
    LADE_PUT_KEY(buf, "epoch");
    lade_put_uint(buf, lade_events_epoch(broker->events));
    LADE_PUT_KEY(buf, "jobs");
    lade_put_array(buf, snapshot.count);
    if (snapshot.count)
        lade_put_raw(buf, snapshot.jobs.data, snapshot.jobs.len);
    LADE_PUT_KEY(buf, "models");
    lade_put_uint(buf, lade_store_count(broker->store, LADE_DB_MODELS));
    LADE_PUT_KEY(buf, "workers");
    lade_put_array(buf, lade_workers_count(broker->workers));
    for (size_t i = 0; i < lade_workers_count(broker->workers); i++)
        lade_worker_put(lade_workers_at(broker->workers, i), buf);
    lade_call_end(call);
    lade_buf_free(&snapshot.jobs);
    return LADE_OK;
}

static const lade_op_t s_ops[] = {
    // clang-format off
    {"since",    s_since},
    {"snapshot", s_take_snapshot},
    {NULL,       NULL},
    // clang-format on
};

const lade_service_t lade_service_events = {"events", s_ops};
