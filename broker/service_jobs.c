// jobs: every kind of jobs, as the engine knows them.
#include "broker/call.h"
#include "broker/packer.h"
#include "broker/surface.h"
#include "common/wire.h"

#include <czmq.h>

static lade_code_t
s_submit(lade_call_t *call, lade_error_t *error)
{
    const msgpack_object *args = call->args;
    lade_submission_t submission = {.priority = lade_wire_int(args, "priority", 10),
                                    .spec = lade_wire_find(args, "spec"),
                                    .requires = lade_wire_find(args, "requires"),
                                    .gates = lade_wire_find(args, "gates"),
                                    .idle = !lade_wire_bool(args, "start", true)};
    lade_wire_text(args, "kind", &submission.kind, &submission.kind_len);
    lade_wire_text(args, "source", &submission.source, &submission.source_len);
    lade_wire_text(args, "token", &submission.token, &submission.token_len);
    lade_job_t *job;
    lade_code_t code = lade_jobs_submit(call->broker->jobs, &submission, &job, error);
    if (!code)
        lade_call_answer_job(call, job, false);
    return code;
}

static lade_code_t
s_get(lade_call_t *call, lade_error_t *error)
{
    return lade_call_answer_named(call, NULL, error);
}

// The kind named in the arguments. *none_p: one is named that no job ever had.
static lade_kind_t *
s_kind(const lade_call_t *call, bool *none_p)
{
    const char *name;
    size_t len;
    *none_p = false;
    if (!lade_wire_text(call->args, "kind", &name, &len))
        return NULL;
    lade_kind_t *kind = lade_jobs_kind(call->broker->jobs, name, len);
    *none_p = !kind;
    return kind;
}

static lade_code_t
s_list(lade_call_t *call, lade_error_t *error)
{
    const char *status;
    size_t len;
    bool none;
    lade_job_filter_t filter = {.kind = s_kind(call, &none), .status = LADE_JOB_STATUS_COUNT};
    int64_t parent = lade_wire_int(call->args, "parent", 0);
    filter.parent = parent > 0 ? (uint64_t)parent : 0;
    if (lade_wire_text(call->args, "status", &status, &len) &&
        (filter.status = lade_job_status_find(status, len)) == LADE_JOB_STATUS_COUNT)
        return lade_error_set(error, LADE_VALUE_ERROR, "status: there is no status '%.*s'",
                              (int)(len < 32 ? len : 32), status);
    if (none) {
        lade_put_array(lade_call_begin(call), 0);
        lade_call_end(call);
        return LADE_OK;
    }
    return lade_call_answer_jobs(call, &filter, false, error);
}

// ---------------------------------------------------------------------------------------------------
// Control

typedef lade_code_t(s_act_fn)(lade_jobs_t *jobs, lade_job_t **job_p, lade_error_t *error);

static lade_code_t
s_do_cancel(lade_jobs_t *jobs, lade_job_t **job_p, lade_error_t *error)
{
    return lade_jobs_cancel(jobs, *job_p, error);
}

static lade_code_t
s_do_pause(lade_jobs_t *jobs, lade_job_t **job_p, lade_error_t *error)
{
    return lade_jobs_pause(jobs, *job_p, error);
}

static lade_code_t
s_do_start(lade_jobs_t *jobs, lade_job_t **job_p, lade_error_t *error)
{
    return lade_jobs_start(jobs, *job_p, error);
}

// The ids meant by `id`, `ids` or `all`. ended: `all` is the ended ones.
static lade_code_t
s_meant(const lade_call_t *call, bool ended, lade_call_ids_t *ids, lade_error_t *error)
{
    bool none;
    lade_code_t code = lade_call_ids(call, &ids->ids, &ids->count, error);
    if (code || ids->ids)
        return code;
    if (!lade_wire_bool(call->args, "all", false))
        return lade_error_set(error, LADE_VALUE_ERROR, "one of id, ids and all: true is needed");
    lade_job_filter_t filter = {.kind = s_kind(call, &none),
                                .status = LADE_JOB_STATUS_COUNT,
                                .not_ended = !ended,
                                .limit = LADE_BROKER_MAX_IDS};
    return none ? LADE_OK
                : lade_jobs_each(call->broker->jobs, &filter, lade_call_add_id, ids, error);
}

// Acts on every job meant and answers those that changed. One job named by `id` has to change; of
// many, those stay out that cannot.
static lade_code_t
s_act(lade_call_t *call, s_act_fn *act, bool ended, lade_error_t *error)
{
    lade_call_ids_t ids = {0};
    lade_code_t code = s_meant(call, ended, &ids, error);
    bool one = lade_wire_find(call->args, "id") != NULL;
    size_t count = 0;
    for (size_t i = 0; i < ids.count && !code; i++) {
        lade_job_t *job;
        lade_code_t failed = lade_jobs_get(call->broker->jobs, ids.ids[i], &job, error);
        if (!failed)
            failed = act(call->broker->jobs, &job, error);
        if (!failed)
            ids.ids[count++] = job->id;
        code = one ? failed : LADE_OK;
    }
    if (!code) {
        lade_buf_t *buf = lade_call_begin(call);
        lade_put_array(buf, count);
        for (size_t i = 0; i < count; i++) {
            lade_job_t *job;
            if (lade_jobs_get(call->broker->jobs, ids.ids[i], &job, NULL) == LADE_OK)
                lade_surface_put_job(job, false, buf);
            else
                lade_put_nil(buf);
        }
        lade_call_end(call);
    }
    free(ids.ids);
    return code;
}

static lade_code_t
s_cancel(lade_call_t *call, lade_error_t *error)
{
    return s_act(call, s_do_cancel, false, error);
}

static lade_code_t
s_pause(lade_call_t *call, lade_error_t *error)
{
    return s_act(call, s_do_pause, false, error);
}

static lade_code_t
s_start(lade_call_t *call, lade_error_t *error)
{
    return s_act(call, s_do_start, false, error);
}

static lade_code_t
s_retry(lade_call_t *call, lade_error_t *error)
{
    return s_act(call, lade_jobs_retry, true, error);
}

static lade_code_t
s_purge(lade_call_t *call, lade_error_t *error)
{
    return lade_call_purge(call, NULL, error);
}

// ---------------------------------------------------------------------------------------------------

static lade_code_t
s_wait(lade_call_t *call, lade_error_t *error)
{
    uint64_t *ids;
    size_t count;
    lade_code_t code = lade_call_ids(call, &ids, &count, error);
    if (!code && !ids)
        code = lade_error_set(error, LADE_VALUE_ERROR, "one of id and ids is needed");
    for (size_t i = 0; i < count && !code; i++) {
        lade_job_t *job;
        code = lade_jobs_get(call->broker->jobs, ids[i], &job, error);
    }
    if (code) {
        free(ids);
        return code;
    }
    bool one = lade_wire_find(call->args, "id") != NULL;
    return lade_call_wait(call, ids, count, NULL, one ? lade_call_ended_job : lade_call_ended_jobs,
                          error);
}

static lade_code_t
s_why(lade_call_t *call, lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_need_job(call, NULL, &job, error);
    if (code)
        return code;
    lade_jobs_put_why(call->broker->jobs, job, lade_call_begin(call));
    lade_call_end(call);
    return LADE_OK;
}

static const lade_op_t s_ops[] = {
    // clang-format off
    {"submit", s_submit},
    {"get",    s_get},
    {"list",   s_list},
    {"cancel", s_cancel},
    {"pause",  s_pause},
    {"start",  s_start},
    {"retry",  s_retry},
    {"purge",  s_purge},
    {"wait",   s_wait},
    {"why",    s_why},
    {NULL,     NULL},
    // clang-format on
};

const lade_service_t lade_service_jobs = {"jobs", s_ops};
