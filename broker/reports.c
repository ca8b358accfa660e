// The worker's side of the broker: a table of commands.
#include "broker/reports.h"

#include "broker/effects.h"
#include "broker/events.h"
#include "broker/gates.h"
#include "broker/jobs.h"
#include "broker/outbox.h"
#include "broker/packer.h"
#include "broker/shares.h"
#include "common/log.h"
#include "common/wire.h"

#include <czmq.h>

enum { S_MAX_STATS = 64 << 10 }; // bytes a worker may tell about itself

typedef struct {
    lade_broker_t *broker;
    lade_worker_t *worker;
    const msgpack_object *body;
    uint64_t id; // of the job
    int64_t attempt;
} s_report_t;

// ---------------------------------------------------------------------------------------------------
// Down

static void
s_send_beat(lade_broker_t *broker, const char *peer, size_t peer_len, int64_t acked, bool known)
{
    lade_buf_t *buf = lade_outbox_to_worker(broker->outbox, peer, peer_len, LADE_W_BEAT);
    lade_put_map(buf, 2);
    LADE_PUT_KEY(buf, "acked");
    lade_put_int(buf, acked);
    LADE_PUT_KEY(buf, "known");
    lade_put_bool(buf, known);
    lade_outbox_end(broker->outbox);
}

static void
s_tell(lade_broker_t *broker, const char *event, const lade_worker_t *worker, const char *why)
{
    lade_buf_t *buf = lade_events_begin_named(broker->events, event, worker->name,
                                              4 + (why != NULL), true, broker->now);
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
    if (why) {
        LADE_PUT_KEY(buf, "why");
        lade_put_str(buf, why);
    }
    lade_events_end(broker->events);
    lade_log(LADE_LOG_INFO, worker->name, "%s%s%s", event + strlen("worker_"), why ? ": " : "",
             why ? why : "");
}

// Of the jobs of which the worker has something left, those that have ended. A dead one may be
// retried and goes on with it.
static void
s_put_ended(lade_broker_t *broker, const msgpack_object *leftovers, lade_buf_t *buf)
{
    enum { S_MOST = 10000 };
    uint32_t count = 0, size = 0;
    lade_buf_t ended = LADE_BUF(SIZE_MAX / 2);
    if (leftovers && leftovers->type == MSGPACK_OBJECT_ARRAY)
        size = leftovers->via.array.size < S_MOST ? leftovers->via.array.size : S_MOST;
    for (uint32_t i = 0; i < size; i++) {
        const msgpack_object *id = &leftovers->via.array.ptr[i];
        lade_job_t *job = NULL;
        if (id->type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
            lade_jobs_live(broker->jobs, id->via.u64))
            continue;
        bool known = lade_jobs_get(broker->jobs, id->via.u64, &job, NULL) == LADE_OK;
        if (known && (!lade_job_ended(job) || job->status == LADE_JOB_DEAD))
            continue;
        count++;
        lade_put_map(&ended, 2);
        LADE_PUT_KEY(&ended, "id");
        lade_put_uint(&ended, id->via.u64);
        LADE_PUT_KEY(&ended, "status");
        lade_put_str(&ended, known ? lade_job_status_name(job->status) : "unknown");
    }
    lade_put_array(buf, count);
    if (count)
        lade_put_raw(buf, ended.data, ended.len);
    lade_buf_free(&ended);
}

static void
s_send_welcome(lade_broker_t *broker, lade_worker_t *worker, int64_t acked,
               const msgpack_object *body)
{
    const lade_config_t *config = broker->config;
    const msgpack_object *held = lade_wire_find(body, "jobs");
    const msgpack_object *leftovers = lade_wire_find(body, "leftovers");
    lade_buf_t drop = LADE_BUF(SIZE_MAX / 2);
    lade_jobs_takeover(broker->jobs, worker, held, &drop);
    lade_buf_t *buf =
        lade_outbox_to_worker(broker->outbox, worker->peer, worker->peer_len, LADE_W_WELCOME);
    lade_put_map(buf, 5 + (leftovers != NULL));
    if (leftovers) {
        LADE_PUT_KEY(buf, "ended");
        s_put_ended(broker, leftovers, buf);
    }
    LADE_PUT_KEY(buf, "acked");
    lade_put_int(buf, acked);
    LADE_PUT_KEY(buf, "epoch");
    lade_put_uint(buf, lade_events_epoch(broker->events));
    LADE_PUT_KEY(buf, "beat_ms");
    lade_put_int(buf, config->beat_ms);
    LADE_PUT_KEY(buf, "lease_beats");
    lade_put_int(buf, config->lease_beats);
    LADE_PUT_KEY(buf, "drop");
    lade_put_raw(buf, drop.data, drop.len);
    lade_outbox_end(broker->outbox);
    lade_buf_free(&drop);
}

// A report that came too late: whoever sent it is to stop.
static void
s_refuse_stale(const s_report_t *report, int command)
{
    lade_broker_t *broker = report->broker;
    const lade_worker_t *worker = report->worker;
    broker->metrics.stale_reports++;
    lade_log(LADE_LOG_INFO, worker->name,
             "stale_lease: %s of job %" PRIu64 ", attempt %" PRId64 ", is refused",
             lade_worker_command_name(command), report->id, report->attempt);
    lade_buf_t *buf =
        lade_outbox_to_worker(broker->outbox, worker->peer, worker->peer_len, LADE_W_CANCEL);
    lade_put_map(buf, 2);
    LADE_PUT_KEY(buf, "id");
    lade_put_uint(buf, report->id);
    LADE_PUT_KEY(buf, "attempt");
    lade_put_int(buf, report->attempt);
    lade_outbox_end(broker->outbox);
}

// ---------------------------------------------------------------------------------------------------
// Up. Each returns false if the report is stale.

static bool
s_beat(const s_report_t *report)
{
    const msgpack_object *stats = lade_wire_find(report->body, "stats");
    report->worker->last_beat = report->broker->now;
    if (stats)
        lade_blob_set_object(&report->worker->stats, stats);
    if (report->worker->stats.len > S_MAX_STATS)
        lade_blob_free(&report->worker->stats);
    double rate = lade_wire_real(stats, "rate", -1);
    lade_shares_measure(report->broker->shares, report->worker,
                        rate >= 0 && rate < (double)LADE_JOB_MAX_RATE ? (int64_t)rate : -1);
    lade_jobs_beat(report->broker->jobs, report->worker, lade_wire_find(report->body, "jobs"));
    const msgpack_object *leftovers = lade_wire_find(report->body, "leftovers");
    if (leftovers) {
        lade_buf_t *buf = lade_outbox_to_worker(report->broker->outbox, report->worker->peer,
                                                report->worker->peer_len, LADE_W_BEAT);
        lade_put_map(buf, 1);
        LADE_PUT_KEY(buf, "ended");
        s_put_ended(report->broker, leftovers, buf);
        lade_outbox_end(report->broker->outbox);
    }
    return true;
}

static bool
s_progress(const s_report_t *report)
{
    return lade_jobs_progress(report->broker->jobs, report->worker, report->id, report->attempt,
                              report->body);
}

static bool
s_done(const s_report_t *report)
{
    return lade_jobs_done(report->broker->jobs, report->worker, report->id, report->attempt,
                          report->body);
}

static bool
s_fail(const s_report_t *report)
{
    return lade_jobs_fail(report->broker->jobs, report->worker, report->id, report->attempt,
                          report->body);
}

static bool
s_await(const s_report_t *report)
{
    return lade_jobs_await(report->broker->jobs, report->worker, report->id, report->attempt,
                           report->body);
}

static bool
s_gate(const s_report_t *report)
{
    lade_broker_t *broker = report->broker;
    char *name = lade_wire_strdup(report->body, "gate"),
         *reason = lade_wire_strdup(report->body, "reason");
    double closed_for_s = lade_wire_real(report->body, "closed_for_s", 0);
    lade_gate_t *gate;
    lade_error_t error;
    if (!name || !(closed_for_s > 0)) {
        // "Retry-After: 0" closes nothing, and opening is for operators.
        lade_log(LADE_LOG_DEBUG, report->worker->name, "its GATE closes nothing");
    } else if (lade_gates_name(broker->gates, name, &gate, &error)) {
        lade_log(LADE_LOG_WARNING, report->worker->name, "its GATE is passed over: %s",
                 error.message);
    } else {
        lade_shares_touch(broker->shares);
        lade_gate_close(gate, closed_for_s, reason, broker->mono_ms);
        lade_log(LADE_LOG_INFO, name, "closed for %.1f s by %s: %.200s", closed_for_s,
                 report->worker->name, reason ? reason : "");
        lade_jobs_gate_changed(broker->jobs, gate);
    }
    free(name);
    free(reason);
    return true;
}

static bool
s_bye(const s_report_t *report)
{
    lade_broker_t *broker = report->broker;
    lade_worker_t *worker = report->worker;
    lade_jobs_lost(broker->jobs, worker, false, "its worker left");
    s_send_beat(broker, worker->peer, worker->peer_len, worker->acked, true);
    s_tell(broker, "worker_lost", worker, "it said goodbye");
    lade_workers_del(broker->workers, worker);
    return true;
}

static const struct {
    bool (*handle)(const s_report_t *report);
    bool numbered; // carries n and is acknowledged
    bool of_job;
} s_commands[LADE_W_END] = {
    // clang-format off
    [LADE_W_BEAT]     = {s_beat,     false, false},
    [LADE_W_PROGRESS] = {s_progress, false, true},
    [LADE_W_DONE]     = {s_done,     true,  true},
    [LADE_W_FAIL]     = {s_fail,     true,  true},
    [LADE_W_AWAIT]    = {s_await,    true,  true},
    [LADE_W_GATE]     = {s_gate,     true,  false},
    [LADE_W_BYE]      = {s_bye,      true,  false},
    // clang-format on
};

static void
s_hello(lade_broker_t *broker, const char *peer, size_t peer_len, const msgpack_object *body)
{
    lade_worker_t *worker;
    bool joined;
    lade_error_t error;
    if (lade_workers_hello(broker->workers, peer, peer_len, body, &worker, &joined, &error)) {
        broker->metrics.bad_messages++;
        lade_log(LADE_LOG_WARNING, "worker", "its HELLO is refused: %s", error.message);
        return;
    }
    worker->heard_ms = broker->mono_ms;
    worker->last_beat = broker->now;
    // WELCOME says what was heard. What is sent again nevertheless is refused by its attempt:
    // another process with this name counts from 1.
    int64_t acked = joined ? 0 : worker->acked;
    worker->acked = 0;
    if (joined) {
        worker->since = broker->now;
        s_tell(broker, "worker_joined", worker, NULL);
    }
    lade_shares_touch(broker->shares);
    s_send_welcome(broker, worker, acked, body);
}

static void
s_handle(lade_broker_t *broker, lade_worker_t *worker, int command, const msgpack_object *body)
{
    s_report_t report = {.broker = broker, .worker = worker, .body = body};
    worker->heard_ms = broker->mono_ms;
    if (s_commands[command].numbered) {
        int64_t n = lade_wire_int(body, "n", 0);
        broker->metrics.reports++;
        if (n > 0 && n <= worker->acked)
            return; // sent again, but it was heard
        if (n > 0)
            worker->acked = n;
    }
    if (s_commands[command].of_job) {
        report.id = (uint64_t)lade_wire_int(body, "id", 0);
        report.attempt = lade_wire_int(body, "attempt", 0);
    }
    if (!s_commands[command].handle(&report))
        s_refuse_stale(&report, command);
}

void
lade_reports_handle(lade_broker_t *broker, const char *peer, size_t peer_len, int command,
                    const void *bytes, size_t len, msgpack_zone *zone, void (*flush)(void *arg),
                    void *arg)
{
    msgpack_object body;
    lade_error_t error;
    bool known = command > 0 && command < LADE_W_END &&
                 (command == LADE_W_HELLO || s_commands[command].handle != NULL);
    msgpack_zone_clear(zone);
    if (!known || len > (size_t)broker->config->max_message_bytes ||
        lade_wire_unpack(bytes, len, zone, &body, &error)) {
        broker->metrics.bad_messages++;
        lade_log(LADE_LOG_WARNING, "worker", "a message is passed over: %s",
                 !known                                            ? "no such command"
                 : len > (size_t)broker->config->max_message_bytes ? "over broker.max_message_bytes"
                                                                   : error.message);
        return;
    }
    if (command == LADE_W_HELLO) {
        s_hello(broker, peer, peer_len, &body);
        return;
    }
    if (command == LADE_W_DONE && lade_effects_need_batch(lade_wire_find(&body, "effects")))
        flush(arg);
    lade_worker_t *worker = lade_workers_by_peer(broker->workers, peer, peer_len);
    if (worker)
        s_handle(broker, worker, command, &body);
    else
        s_send_beat(broker, peer, peer_len, 0, false);
}

// ---------------------------------------------------------------------------------------------------

void
lade_reports_beat(lade_broker_t *broker)
{
    char why[64];
    snprintf(why, sizeof why, "its worker was silent for %" PRId64 " beats",
             broker->config->lease_beats);
    for (size_t i = lade_workers_count(broker->workers); i-- > 0;) {
        lade_worker_t *worker = lade_workers_at(broker->workers, i);
        if (broker->mono_ms - worker->heard_ms <= broker->lease_ms) {
            s_send_beat(broker, worker->peer, worker->peer_len, worker->acked, true);
            continue;
        }
        lade_jobs_lost(broker->jobs, worker, true, why);
        s_tell(broker, "worker_lost", worker, why);
        lade_workers_del(broker->workers, worker);
    }
}

void
lade_reports_forget(lade_broker_t *broker)
{
    while (lade_workers_count(broker->workers)) {
        lade_worker_t *worker = lade_workers_at(broker->workers, 0);
        s_send_beat(broker, worker->peer, worker->peer_len, 0, false);
        while (worker->hold_count) // the jobs are gone with the turn
            lade_worker_drop(worker, &worker->holds[worker->hold_count - 1]);
        lade_workers_del(broker->workers, worker);
    }
}
