// broker: how it is, who works for it, its counters and its gates.
#include "broker/backup.h"
#include "broker/call.h"
#include "broker/doctor.h"
#include "broker/events.h"
#include "broker/gates.h"
#include "broker/packer.h"
#include "broker/shares.h"
#include "broker/workers.h"
#include "common/wire.h"

#include <czmq.h>

// ---------------------------------------------------------------------------------------------------
// status

static void
s_put_counts(const lade_kind_t *kind, lade_buf_t *buf)
{
    size_t used = 0;
    for (int status = 0; status < LADE_JOB_STATUS_COUNT; status++)
        used += kind->counts[status] > 0;
    lade_put_str(buf, kind->name);
    lade_put_map(buf, used);
    for (int status = 0; status < LADE_JOB_STATUS_COUNT; status++)
        if (kind->counts[status]) {
            lade_put_str(buf, lade_job_status_name((lade_job_status_t)status));
            lade_put_uint(buf, kind->counts[status]);
        }
}

static void
s_put_jobs(const lade_broker_t *broker, lade_buf_t *buf)
{
    size_t kinds = 0, at = 0;
    while (lade_jobs_next_kind(broker->jobs, &at))
        kinds++;
    lade_put_map(buf, kinds);
    at = 0;
    for (const lade_kind_t *kind; (kind = lade_jobs_next_kind(broker->jobs, &at));)
        s_put_counts(kind, buf);
}

static void
s_put_endpoints(const lade_config_t *config, lade_buf_t *buf)
{
    lade_put_map(buf, 3);
    LADE_PUT_KEY(buf, "clients");
    lade_put_str(buf, config->clients);
    LADE_PUT_KEY(buf, "workers");
    lade_put_str(buf, config->workers);
    LADE_PUT_KEY(buf, "events");
    lade_put_str(buf, config->events);
}

static lade_code_t
s_status(lade_call_t *call, lade_error_t *error)
{
    (void)error;
    const lade_broker_t *broker = call->broker;
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_map(buf, 16);
    LADE_PUT_KEY(buf, "uptime");
    lade_put_real(buf, broker->now - broker->started);
    LADE_PUT_KEY(buf, "version");
    lade_put_str(buf, LADE_VERSION);
    LADE_PUT_KEY(buf, "pid");
    lade_put_int(buf, getpid());
    LADE_PUT_KEY(buf, "epoch");
    lade_put_uint(buf, lade_events_epoch(broker->events));
    LADE_PUT_KEY(buf, "seq");
    lade_put_uint(buf, lade_events_seq(broker->events));
    LADE_PUT_KEY(buf, "journal_from");
    lade_put_uint(buf, lade_events_oldest(broker->events));
    LADE_PUT_KEY(buf, "jobs");
    s_put_jobs(broker, buf);
    LADE_PUT_KEY(buf, "workers");
    lade_put_uint(buf, lade_workers_count(broker->workers));
    LADE_PUT_KEY(buf, "queue");
    lade_put_uint(buf, lade_jobs_count(broker->jobs));
    LADE_PUT_KEY(buf, "waits");
    lade_put_uint(buf, lade_waits_count(broker->waits));
    LADE_PUT_KEY(buf, "models");
    lade_put_uint(buf, lade_store_count(broker->store, LADE_DB_MODELS));
    LADE_PUT_KEY(buf, "keyspace_bytes");
    lade_put_uint(buf, lade_store_bytes(broker->store));
    LADE_PUT_KEY(buf, "bytes_per_s");
    lade_put_int(buf, lade_shares_rate(broker->shares));
    LADE_PUT_KEY(buf, "rate");
    lade_put_int(buf, lade_shares_seen(broker->shares));
    LADE_PUT_KEY(buf, "models_dir");
    lade_put_str(buf, broker->config->models_dir);
    LADE_PUT_KEY(buf, "endpoints");
    s_put_endpoints(broker->config, buf);
    lade_call_end(call);
    return LADE_OK;
}

static lade_code_t
s_workers(lade_call_t *call, lade_error_t *error)
{
    (void)error;
    const lade_workers_t *workers = call->broker->workers;
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_array(buf, lade_workers_count(workers));
    for (size_t i = 0; i < lade_workers_count(workers); i++)
        lade_worker_put(lade_workers_at(workers, i), buf);
    lade_call_end(call);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// metrics

static const struct {
    const char *name;
    size_t where;
} s_metrics[] = {
    // clang-format off
    {"turns",            offsetof(lade_metrics_t, turns)},
    {"commits",          offsetof(lade_metrics_t, commits)},
    {"commits_failed",   offsetof(lade_metrics_t, commits_failed)},
    {"requests",         offsetof(lade_metrics_t, requests)},
    {"requests_refused", offsetof(lade_metrics_t, requests_refused)},
    {"reports",          offsetof(lade_metrics_t, reports)},
    {"stale_reports",    offsetof(lade_metrics_t, stale_reports)},
    {"bad_messages",     offsetof(lade_metrics_t, bad_messages)},
    {"jobs_submitted",   offsetof(lade_metrics_t, jobs_submitted)},
    {"jobs_dispatched",  offsetof(lade_metrics_t, jobs_dispatched)},
    {"jobs_completed",   offsetof(lade_metrics_t, jobs_completed)},
    {"jobs_failed",      offsetof(lade_metrics_t, jobs_failed)},
    {"jobs_requeued",    offsetof(lade_metrics_t, jobs_requeued)},
    {"jobs_dead",        offsetof(lade_metrics_t, jobs_dead)},
    {"progress_events",  offsetof(lade_metrics_t, progress_events)},
    // clang-format on
};
enum { S_METRICS = sizeof s_metrics / sizeof *s_metrics };
_Static_assert(S_METRICS * sizeof(uint64_t) == sizeof(lade_metrics_t), "a counter has no row");

static lade_code_t
s_metrics_of(lade_call_t *call, lade_error_t *error)
{
    (void)error;
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_map(buf, S_METRICS + 2);
    for (size_t i = 0; i < S_METRICS; i++) {
        lade_put_str(buf, s_metrics[i].name);
        lade_put_uint(
            buf, *(const uint64_t *)((const char *)&call->broker->metrics + s_metrics[i].where));
    }
    LADE_PUT_KEY(buf, "events");
    lade_put_uint(buf, lade_events_seq(call->broker->events));
    LADE_PUT_KEY(buf, "keyspace_bytes");
    lade_put_uint(buf, lade_store_bytes(call->broker->store));
    lade_call_end(call);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// gates

static lade_code_t
s_gates(lade_call_t *call, lade_error_t *error)
{
    (void)error;
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_array(buf, lade_gates_count(call->broker->gates));
    size_t at = 0;
    for (const lade_gate_t *gate; (gate = lade_gates_next(call->broker->gates, &at));)
        lade_gate_put(gate, call->broker, buf);
    lade_call_end(call);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// set

// Whether the argument is given: nil is the same as none.
static bool
s_given(const lade_call_t *call, const char *key)
{
    const msgpack_object *value = lade_wire_find(call->args, key);
    return value && value->type != MSGPACK_OBJECT_NIL;
}

static lade_code_t
s_need_rate(const lade_call_t *call, int64_t *rate_p, lade_error_t *error)
{
    *rate_p = lade_wire_int(call->args, "bytes_per_s", -1);
    if (*rate_p < 0 || *rate_p > LADE_JOB_MAX_RATE)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "bytes_per_s: how many bytes a second may be read; 0: any number");
    return LADE_OK;
}

static lade_code_t
s_set_job(lade_call_t *call, lade_error_t *error)
{
    lade_broker_t *broker = call->broker;
    lade_job_t *job;
    int64_t rate, id = lade_wire_int(call->args, "job", -1);
    if (id < 0)
        return lade_error_set(error, LADE_VALUE_ERROR, "job: the id of a job");
    lade_code_t code = s_need_rate(call, &rate, error);
    if (!code)
        code = lade_jobs_get(broker->jobs, (uint64_t)id, &job, error);
    if (!code)
        code = lade_jobs_set_rate(broker->jobs, job, rate, error);
    if (!code)
        lade_call_answer_job(call, job, false);
    return code;
}

static lade_code_t
s_set_rate(lade_call_t *call, lade_error_t *error)
{
    int64_t rate;
    lade_code_t code = s_need_rate(call, &rate, error);
    if (code)
        return code;
    lade_shares_set_rate(call->broker->shares, rate);
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_map(buf, 1);
    LADE_PUT_KEY(buf, "bytes_per_s");
    lade_put_int(buf, rate);
    lade_call_end(call);
    return LADE_OK;
}

static lade_code_t
s_set_gate(lade_call_t *call, lade_error_t *error)
{
    char *name;
    lade_gate_t *gate = NULL;
    lade_broker_t *broker = call->broker;
    bool closed = s_given(call, "closed_for_s");
    int64_t limit = lade_wire_int(call->args, "limit", -1);
    if (s_given(call, "limit") && (limit < 0 || limit > LADE_GATE_ANY / 2))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "limit: how many jobs may run there at once, or at a gate host:NAME "
                              "connections be open; 0: any number");
    if (limit < 0 && !closed)
        return lade_error_set(error, LADE_VALUE_ERROR, "one of limit and closed_for_s is needed");
    lade_code_t code = lade_call_need_text(call, "gate", &name, error);
    if (!code)
        code = lade_gates_name(broker->gates, name, &gate, error);
    free(name);
    if (code)
        return code;
    if (limit >= 0)
        lade_gate_limit(gate, limit);
    if (closed) {
        // By hand it may also be closed for a shorter time than it was.
        lade_gate_close(gate, 0, NULL, broker->mono_ms);
        lade_gate_close(gate, lade_wire_real(call->args, "closed_for_s", 0), "closed by hand",
                        broker->mono_ms);
    }
    lade_gate_put(gate, broker, lade_call_begin(call));
    lade_call_end(call);
    lade_shares_touch(broker->shares);
    lade_jobs_gate_changed(broker->jobs, gate);
    return LADE_OK;
}

// What is set is what is named: a gate, a job, or else the farm.
static lade_code_t
s_set(lade_call_t *call, lade_error_t *error)
{
    bool gate = s_given(call, "gate"), job = s_given(call, "job"),
         rate = s_given(call, "bytes_per_s");
    if (gate && (job || rate))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "a gate has a limit and closed_for_s; bytes_per_s is a job's or the "
                              "farm's");
    if (job)
        return s_set_job(call, error);
    return rate ? s_set_rate(call, error) : s_set_gate(call, error);
}

static const lade_op_t s_ops[] = {
    // clang-format off
    {"status",  s_status},
    {"workers", s_workers},
    {"metrics", s_metrics_of},
    {"gates",   s_gates},
    {"set",     s_set},
    {"backup",  lade_backup_call},
    {"check",   lade_doctor_call},
    {NULL,      NULL},
    // clang-format on
};

const lade_service_t lade_service_broker = {"broker", s_ops};
