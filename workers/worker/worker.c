// The loop: who we are to the broker, which jobs we hold, and what it has not acknowledged yet.
//
//    CONNECT ──writable: HELLO──▶ HELLO ──WELCOME──▶ READY
//       ▲                           │ ▲                │ │
//       │◀─────no WELCOME in time───┘ └─BEAT known:false │
//       └──nothing heard for a lease, we slept, cannot send┘
//
// A HELLO that may still be answered is never followed by another: its socket is thrown away first.
// So a JOB that comes before WELCOME is known to be older than the HELLO, which did not list it:
// the broker has put it back already.
#include "workers/worker/worker.h"

#include "common/log.h"
#include "workers/worker/inbox.h"
#include "workers/worker/link.h"
#include "workers/worker/task.h"

#include <czmq.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/signalfd.h>

enum {
    S_PROGRESS_MS = 50,    // between two PROGRESS of one job
    S_STOP_MS = 3000,      // for the work to let go after grace is over
    S_BYE_MS = 1000,       // for the broker to acknowledge BYE
    S_LEFTOVERS_MS = 3000, // between two questions about leftovers
    S_CONNECT_MS = 10000,  // before a connection that does not come is tried anew
    S_MESSAGES = 1000,     // taken from the socket in one turn
};

typedef enum { S_CONNECT, S_HELLO, S_READY } s_state_t;
static const char *const s_states[] = {"connecting", "saying hello", "ready"};

// A job held: from JOB until its answer came through the inbox.
typedef struct s_held {
    struct s_held *next;
    lade_task_t *task;
    int64_t told_ms; // when the last PROGRESS was sent
} s_held_t;

struct lade_worker {
    const lade_config_t *config;
    const lade_worker_ops_t *ops;
    void *arg;
    int64_t slots, told_slots; // told_slots: in the last HELLO
    char *name, host[256];

    lade_inbox_t *inbox;
    lade_report_t *arrived, *arrived_last; // from the inbox, kept here while a HELLO is unanswered
    lade_link_t *link;
    int signals;           // signalfd for SIGTERM and SIGINT
    sigset_t before;       // the signal mask to put back
    _Atomic bool stopping; // lade_worker_stop was called
    bool told;             // to end, from outside

    s_state_t state;
    int64_t since_ms; // when the state began
    int64_t heard_ms; // when the broker last said something
    int64_t beat_ms, lease_ms, next_beat_ms;
    int64_t turn_ms; // when the last turn of the loop began
    double epoch;    // the broker's life
    int64_t next_leftovers_ms;
    int64_t tries; // HELLOs without a WELCOME since the last one
    bool quiet;    // that the broker is missing was logged

    s_held_t *held;
    size_t held_count;
    lade_report_t *unacked, *unacked_last; // in order of n
    int64_t next_n;

    // Leaving: finish what we hold, then give back the rest, then say BYE.
    enum { S_STAYING, S_FINISHING, S_LETTING_GO, S_BYE, S_GONE } leaving;
    int64_t grace_ms, leave_ms; // leave_ms: when the present step of leaving is over
    int64_t bye_n;
};

// Time that goes on while the process or the machine is stopped, so that a lease that ran out is
// noticed.
static int64_t
s_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// ---------------------------------------------------------------------------------------------------
// Packing what we say

// kept: connections it keeps to, which a broker that is new does not know; 0: any number.
static void
s_pack_job(lade_pack_t *pack, int64_t id, int64_t attempt, int64_t kept)
{
    lade_pack_map(pack, kept ? 3 : 2);
    lade_pack_str(pack, "id");
    lade_pack_int(pack, id);
    lade_pack_str(pack, "attempt");
    lade_pack_int(pack, attempt);
    if (!kept)
        return;
    lade_pack_str(pack, "connections");
    lade_pack_int(pack, kept);
}

// The jobs we answer for: those held and those whose answer the broker has not acknowledged.
// Without the latter it would give an answered job to somebody else before it reads the answer.
static void
s_pack_jobs(lade_worker_t *self, lade_pack_t *pack, bool hello)
{
    size_t count = 0;
    for (s_held_t *at = self->held; at; at = at->next)
        count += lade_task_stop(at->task) != LADE_STOP_STALE;
    for (lade_report_t *at = self->unacked; at; at = at->next)
        count += at->id != 0;
    lade_pack_str(pack, "jobs");
    lade_pack_array(pack, count);
    for (s_held_t *at = self->held; at && count; at = at->next)
        if (lade_task_stop(at->task) != LADE_STOP_STALE)
            s_pack_job(pack, lade_task_id(at->task), lade_task_attempt(at->task),
                       hello ? lade_task_kept(at->task) : 0);
    for (lade_report_t *at = self->unacked; at; at = at->next)
        if (at->id)
            s_pack_job(pack, at->id, at->attempt, 0);
}

static void
s_pack_labels(lade_worker_t *self, lade_pack_t *pack)
{
    json_t *labels = json_pack("{s:s, s:s}", "name", self->name, "host", self->host);
    char *text = strdup(self->config->worker_labels ? self->config->worker_labels : ""),
         *rest = text;
    for (char *word; (word = strsep(&rest, ",")) != NULL;) {
        char *equals = strchr(word, '=');
        if (!equals || equals == word)
            continue;
        *equals = '\0';
        json_object_set_new(labels, word, json_string(equals + 1));
    }
    lade_pack_str(pack, "labels");
    lade_pack_json(pack, labels);
    json_decref(labels);
    free(text);
}

static bool
s_send_hello(lade_worker_t *self)
{
    lade_buf_t body = LADE_BUF(LADE_WIRE_MAX_BODY);
    lade_pack_t pack;
    lade_pack_open(&pack, &body);
    lade_pack_map(&pack, 8 + (self->ops->terms != NULL) + (self->ops->leftovers != NULL));
    lade_pack_str(&pack, "name");
    lade_pack_str(&pack, self->name);
    lade_pack_str(&pack, "host");
    lade_pack_str(&pack, self->host);
    lade_pack_str(&pack, "pid");
    lade_pack_int(&pack, getpid());
    lade_pack_str(&pack, "kinds");
    size_t kinds = 0;
    while (self->ops->kinds[kinds])
        kinds++;
    lade_pack_array(&pack, kinds);
    for (size_t i = 0; i < kinds; i++)
        lade_pack_str(&pack, self->ops->kinds[i]);
    lade_pack_str(&pack, "slots");
    self->told_slots = self->leaving ? 0 : self->slots; // who leaves is given no more
    lade_pack_int(&pack, self->told_slots);
    s_pack_labels(self, &pack);
    lade_pack_str(&pack, "version");
    lade_pack_str(&pack, LADE_VERSION);
    if (self->ops->terms) {
        lade_pack_str(&pack, "terms");
        lade_pack_bool(&pack, true);
    }
    if (self->ops->leftovers) {
        json_t *leftovers = self->ops->leftovers(self->arg);
        lade_pack_str(&pack, "leftovers");
        lade_pack_json(&pack, leftovers);
        json_decref(leftovers);
    }
    s_pack_jobs(self, &pack, true);
    bool sent = lade_link_send(self->link, LADE_W_HELLO, body.data, body.len);
    lade_buf_free(&body);
    return sent;
}

// What is left of jobs whose end this worker has not heard of; NULL if it is not the time to ask.
static json_t *
s_leftovers(lade_worker_t *self)
{
    int64_t now_ms = s_now_ms();
    if (!self->ops->leftovers || now_ms < self->next_leftovers_ms)
        return NULL;
    self->next_leftovers_ms = now_ms + S_LEFTOVERS_MS;
    json_t *leftovers = self->ops->leftovers(self->arg);
    if (json_array_size(leftovers))
        return leftovers;
    json_decref(leftovers);
    return NULL;
}

static bool
s_send_beat(lade_worker_t *self)
{
    lade_buf_t body = LADE_BUF(LADE_WIRE_MAX_BODY);
    lade_pack_t pack;
    json_t *leftovers = s_leftovers(self);
    json_t *stats = self->ops->stats ? self->ops->stats(self->arg) : NULL;
    // Who lets go still has to answer for its jobs until BYE gives them back; it names none, which
    // is not the same as naming an empty list.
    bool jobs = self->leaving < S_LETTING_GO;
    lade_pack_open(&pack, &body);
    lade_pack_map(&pack, (size_t)jobs + (stats != NULL) + (leftovers != NULL));
    if (leftovers) {
        lade_pack_str(&pack, "leftovers");
        lade_pack_json(&pack, leftovers);
        json_decref(leftovers);
    }
    if (jobs)
        s_pack_jobs(self, &pack, false);
    if (stats) {
        lade_pack_str(&pack, "stats");
        lade_pack_json(&pack, stats);
        json_decref(stats);
    }
    bool sent = lade_link_send(self->link, LADE_W_BEAT, body.data, body.len);
    lade_buf_free(&body);
    return sent;
}

static void
s_pack_text(lade_pack_t *pack, const char *key, const char *text)
{
    if (!text)
        return;
    lade_pack_str(pack, key);
    lade_pack_str(pack, text);
}

static void
s_send_progress(lade_worker_t *self, s_held_t *held, int64_t now_ms)
{
    lade_task_news_t news;
    if (!lade_task_take_news(held->task, &news))
        return;
    lade_buf_t body = LADE_BUF(1 << 20);
    lade_pack_t pack;
    lade_pack_open(&pack, &body);
    lade_pack_map(&pack, 2 + 2 * (news.bytes >= 0) + 2 * (news.connections > 0) +
                             (news.phase != NULL) + (news.reason != NULL) +
                             (news.local_path != NULL));
    lade_pack_str(&pack, "id");
    lade_pack_int(&pack, lade_task_id(held->task));
    lade_pack_str(&pack, "attempt");
    lade_pack_int(&pack, lade_task_attempt(held->task));
    if (news.bytes >= 0) {
        lade_pack_str(&pack, "bytes");
        lade_pack_int(&pack, news.bytes);
        lade_pack_str(&pack, "total_bytes");
        lade_pack_int(&pack, news.total_bytes);
    }
    if (news.connections > 0) {
        lade_pack_str(&pack, "connections");
        lade_pack_int(&pack, news.connections);
        lade_pack_str(&pack, "serial");
        lade_pack_int(&pack, news.serial);
    }
    s_pack_text(&pack, "phase", news.phase);
    s_pack_text(&pack, "reason", news.reason);
    s_pack_text(&pack, "local_path", news.local_path);
    if (lade_pack_failed(&pack, NULL) ||
        !lade_link_send(self->link, LADE_W_PROGRESS, body.data, body.len))
        lade_task_untake_news(held->task, &news);
    held->told_ms = now_ms;
    lade_buf_free(&body);
    free(news.phase);
    free(news.reason);
    free(news.local_path);
}

// ---------------------------------------------------------------------------------------------------
// States

static void
s_enter(lade_worker_t *self, s_state_t state)
{
    if (self->state != state)
        lade_log(LADE_LOG_DEBUG, self->name, "%s, was %s", s_states[state], s_states[self->state]);
    self->state = state;
    self->since_ms = s_now_ms();
}

static lade_code_t
s_reconnect(lade_worker_t *self, lade_error_t *error)
{
    s_enter(self, S_CONNECT);
    return lade_link_renew(self->link, error);
}

static void
s_hello(lade_worker_t *self)
{
    if (!s_send_hello(self))
        return;
    self->tries++;
    s_enter(self, S_HELLO);
}

// ---------------------------------------------------------------------------------------------------
// Jobs held

static s_held_t *
s_find(lade_worker_t *self, int64_t id, int64_t attempt)
{
    s_held_t *at = self->held;
    while (at && (lade_task_id(at->task) != id || lade_task_attempt(at->task) != attempt))
        at = at->next;
    return at;
}

static void
s_stop(lade_worker_t *self, s_held_t *held, lade_stop_t stop)
{
    if (lade_task_ask_stop(held->task, stop) && self->ops->stop)
        self->ops->stop(self->arg, held->task);
}

static bool
s_answered(const lade_worker_t *self, int64_t id, int64_t attempt)
{
    const lade_report_t *at = self->unacked;
    while (at && (at->id != id || at->attempt != attempt))
        at = at->next;
    return at != NULL;
}

static void
s_forget(lade_worker_t *self, lade_task_t *task)
{
    for (s_held_t **at = &self->held; *at; at = &(*at)->next)
        if ((*at)->task == task) {
            s_held_t *held = *at;
            *at = held->next;
            self->held_count--;
            free(held);
            break;
        }
    lade_task_destroy(&task);
}

static bool
s_serves(const lade_worker_t *self, const char *kind)
{
    for (size_t i = 0; self->ops->kinds[i]; i++)
        if (strcmp(self->ops->kinds[i], kind) == 0)
            return true;
    return false;
}

static void
s_start(lade_worker_t *self, lade_task_t *task)
{
    s_held_t *held = zmalloc(sizeof *held);
    held->task = task;
    held->next = self->held;
    self->held = held;
    lade_error_t error = {0};
    if (!s_serves(self, lade_task_kind(task)))
        lade_error_set(&error, LADE_BAD_REQUEST, "this worker does not do jobs of kind '%s'",
                       lade_task_kind(task));
    else if (self->held_count >= (size_t)self->slots * 2 + 16)
        lade_error_set(&error, LADE_BUSY, "this worker has %" PRId64 " slots and holds %zu jobs",
                       self->slots, self->held_count);
    self->held_count++;
    if (error.code) {
        lade_task_fail(&task, &error, 0);
        return;
    }
    lade_log(LADE_LOG_DEBUG, self->name, "job %" PRId64 " attempt %" PRId64 " begins",
             lade_task_id(task), lade_task_attempt(task));
    self->ops->start(self->arg, task);
}

// ---------------------------------------------------------------------------------------------------
// What the broker says. Each borrows the body, but s_on_job.

static void
s_acknowledge(lade_worker_t *self, int64_t acked)
{
    while (self->unacked && self->unacked->n <= acked) {
        lade_report_t *report = self->unacked;
        self->unacked = report->next;
        if (!self->unacked)
            self->unacked_last = NULL;
        lade_report_destroy(&report);
    }
    if (self->leaving == S_BYE && acked >= self->bye_n)
        self->leaving = S_GONE;
}

// Marks what the broker gave to somebody else. A job without an attempt means all of them.
static void
s_drop(lade_worker_t *self, const json_t *drop)
{
    for (size_t i = 0; i < json_array_size(drop); i++) {
        const json_t *job = json_array_get(drop, i);
        int64_t id = json_is_integer(job) ? json_integer_value(job) : lade_json_int(job, "id", 0);
        int64_t attempt = json_is_object(job) ? lade_json_int(job, "attempt", 0) : 0;
        for (s_held_t *at = self->held; at; at = at->next) {
            if (lade_task_id(at->task) != id || (attempt && lade_task_attempt(at->task) != attempt))
                continue;
            lade_log(LADE_LOG_WARNING, self->name,
                     "job %" PRId64 " attempt %" PRId64 " is no longer ours; it is dropped", id,
                     lade_task_attempt(at->task));
            s_stop(self, at, LADE_STOP_STALE);
        }
    }
}

static void
s_tell_ended(lade_worker_t *self, const json_t *ended)
{
    for (size_t i = 0; self->ops->ended && i < json_array_size(ended); i++) {
        const json_t *job = json_array_get(ended, i);
        self->ops->ended(self->arg, lade_json_int(job, "id", 0),
                         lade_json_text(job, "status", "unknown"));
    }
}

static void
s_on_welcome(lade_worker_t *self, json_t *body)
{
    double epoch = lade_json_real(body, "epoch", 0);
    if (self->state != S_HELLO)
        return;
    if (self->epoch != epoch)
        lade_log(LADE_LOG_INFO, self->name, "%s",
                 self->epoch == 0 ? "the broker took us in"
                                  : "the broker has restarted and took us in");
    self->epoch = epoch;
    int64_t beat_ms = lade_json_int(body, "beat_ms", self->config->beat_ms);
    int64_t beats = lade_json_int(body, "lease_beats", self->config->lease_beats);
    self->beat_ms = beat_ms < 10 ? 10 : beat_ms > 60000 ? 60000 : beat_ms;
    self->lease_ms = self->beat_ms * (beats < 2 ? 2 : beats > 100 ? 100 : beats);
    self->quiet = false;
    self->tries = 0;
    s_enter(self, S_READY);
    self->next_beat_ms = self->since_ms + self->beat_ms;
    s_drop(self, json_object_get(body, "drop"));
    s_tell_ended(self, json_object_get(body, "ended"));
    for (lade_report_t *at = self->unacked; at; at = at->next)
        at->sent = false;
    if (self->leaving == S_FINISHING && self->told_slots)
        s_hello(self);
}

static void
s_on_job(lade_worker_t *self, json_t *body)
{
    int64_t id = lade_json_int(body, "id", 0), attempt = lade_json_int(body, "attempt", 0);
    if (self->state != S_READY || s_find(self, id, attempt) || s_answered(self, id, attempt))
        return; // older than our HELLO, or known
    for (s_held_t *at = self->held; at; at = at->next)
        if (lade_task_id(at->task) == id)
            s_stop(self, at, LADE_STOP_STALE);
    lade_task_t *task;
    lade_error_t error;
    if (lade_task_new(&task, json_incref(body), self->inbox, &error))
        lade_log(LADE_LOG_WARNING, self->name, "job %" PRId64 " is passed over: %s", id,
                 error.message);
    else
        s_start(self, task);
}

static void
s_on_stop(lade_worker_t *self, json_t *body, lade_stop_t stop)
{
    int64_t id = lade_json_int(body, "id", 0), attempt = lade_json_int(body, "attempt", 0);
    s_held_t *held = s_find(self, id, attempt);
    if (held)
        s_stop(self, held, stop);
}

static void
s_on_cancel(lade_worker_t *self, json_t *body)
{
    s_on_stop(self, body, LADE_STOP_CANCEL);
}

static void
s_on_pause(lade_worker_t *self, json_t *body)
{
    s_on_stop(self, body, LADE_STOP_PAUSE);
}

static void
s_on_job_terms(lade_worker_t *self, const json_t *job)
{
    s_held_t *held = s_find(self, lade_json_int(job, "id", 0), lade_json_int(job, "attempt", 0));
    if (!held || lade_task_stop(held->task) == LADE_STOP_STALE)
        return;
    const lade_terms_t terms = lade_task_take_terms(held->task, job);
    self->ops->terms(self->arg, held->task, &terms);
}

// Those that come while a HELLO is unanswered were meant for what we said before it.
static void
s_on_terms(lade_worker_t *self, json_t *body)
{
    if (self->state != S_READY || !self->ops->terms)
        return;
    if (json_object_get(body, "bytes_per_s")) {
        const lade_terms_t terms = {.bytes_per_s = lade_terms_read(body).bytes_per_s};
        self->ops->terms(self->arg, NULL, &terms);
    }
    const json_t *jobs = json_object_get(body, "jobs");
    for (size_t i = 0; i < json_array_size(jobs); i++)
        s_on_job_terms(self, json_array_get(jobs, i));
}

static void
s_on_beat(lade_worker_t *self, json_t *body)
{
    if (self->state == S_READY && !lade_json_bool(body, "known", true))
        s_hello(self);
    else
        s_tell_ended(self, json_object_get(body, "ended"));
}

static void
s_on_retire(lade_worker_t *self, json_t *body)
{
    (void)body;
    self->told = true;
    if (self->leaving)
        return;
    lade_log(LADE_LOG_INFO, self->name, "the broker retires us; %zu jobs are finished first",
             self->held_count);
    self->leaving = S_FINISHING;
    self->leave_ms = INT64_MAX;
}

static const struct {
    void (*handle)(lade_worker_t *self, json_t *body);
    bool acked; // carries `acked`
} s_commands[LADE_W_END] = {
    // clang-format off
    [LADE_W_BEAT]    = {s_on_beat,    true},
    [LADE_W_WELCOME] = {s_on_welcome, true},
    [LADE_W_JOB]     = {s_on_job,     true},
    [LADE_W_CANCEL]  = {s_on_cancel,  true},
    [LADE_W_PAUSE]   = {s_on_pause,   true},
    [LADE_W_RETIRE]  = {s_on_retire,  true},
    [LADE_W_TERMS]   = {s_on_terms,   false},
    // clang-format on
};

static void
s_take_messages(lade_worker_t *self)
{
    int command;
    json_t *body;
    for (size_t i = 0; i < S_MESSAGES && lade_link_receive(self->link, &command, &body); i++) {
        self->heard_ms = s_now_ms();
        if (command < LADE_W_END && s_commands[command].handle) {
            s_acknowledge(self, lade_json_int(body, "acked", 0));
            s_commands[command].handle(self, body);
        } else {
            lade_log(LADE_LOG_DEBUG, self->name, "command %d of the broker is passed over",
                     command);
        }
        json_decref(body);
    }
}

// ---------------------------------------------------------------------------------------------------
// What the work says

static void
s_append(lade_report_t **first, lade_report_t **last, lade_report_t *report)
{
    report->next = NULL;
    if (*last)
        (*last)->next = report;
    else
        *first = report;
    *last = report;
}

static void
s_keep(lade_worker_t *self, lade_report_t *report)
{
    lade_report_number(report, self->next_n++);
    s_append(&self->unacked, &self->unacked_last, report);
}

// Takes one answer from the inbox. That of a job which is no longer ours, or that was stopped
// because we leave, is not for the broker.
static void
s_take_report(lade_worker_t *self, lade_report_t *report)
{
    // What was answered before we began to leave is an answer.
    bool stale = report->task &&
                 (self->leaving >= S_LETTING_GO ? report->stale
                                                : lade_task_stop(report->task) == LADE_STOP_STALE);
    if (report->task) {
        s_held_t *held = s_find(self, report->id, report->attempt);
        if (held && !stale && self->state == S_READY)
            s_send_progress(self, held, s_now_ms());
        lade_log(LADE_LOG_DEBUG, self->name, "job %" PRId64 " attempt %" PRId64 ": %s%s",
                 report->id, report->attempt, lade_worker_command_name(report->command),
                 stale ? ", stale" : "");
        s_forget(self, report->task);
        report->task = NULL;
    }
    if (stale)
        lade_report_destroy(&report);
    else
        s_keep(self, report);
}

// While a HELLO is unanswered the reports are kept: WELCOME says which jobs are still ours.
static void
s_take_reports(lade_worker_t *self)
{
    for (lade_report_t *at = lade_inbox_take(self->inbox), *next; at; at = next) {
        next = at->next;
        s_append(&self->arrived, &self->arrived_last, at);
    }
    if (self->state != S_READY && self->leaving < S_LETTING_GO)
        return;
    lade_report_t *at = self->arrived;
    self->arrived = self->arrived_last = NULL;
    for (lade_report_t *next; at; at = next) {
        next = at->next;
        s_take_report(self, at);
    }
}

static const lade_report_t *
s_first_unsent(const lade_worker_t *self)
{
    const lade_report_t *at = self->unacked;
    while (at && at->sent)
        at = at->next;
    return at;
}

// Sends what waits, in order. Who has stats tells them before an answer: whoever asks for them
// after a job ended sees what it changed.
static void
s_flush(lade_worker_t *self)
{
    if (self->state != S_READY)
        return;
    if (self->ops->stats && s_first_unsent(self) && !s_send_beat(self)) {
        s_enter(self, S_CONNECT);
        return;
    }
    for (lade_report_t *at = self->unacked; at; at = at->next) {
        if (at->sent)
            continue;
        at->sent = lade_link_send(self->link, at->command, at->body.data, at->body.len);
        if (!at->sent) {
            s_enter(self, S_CONNECT); // the connection is gone; libzmq makes it again by itself
            return;
        }
    }
    int64_t now_ms = s_now_ms();
    for (s_held_t *at = self->held; at; at = at->next)
        if ((now_ms - at->told_ms >= S_PROGRESS_MS || lade_task_is_urgent(at->task)) &&
            lade_task_stop(at->task) != LADE_STOP_STALE)
            s_send_progress(self, at, now_ms);
}

// ---------------------------------------------------------------------------------------------------
// Time

// How long a WELCOME is waited for: two beats, and longer for a broker that has much to do.
static int64_t
s_patience_ms(const lade_worker_t *self)
{
    return 2 * self->beat_ms * (self->tries < 5 ? self->tries : 5);
}

static lade_code_t
s_keep_time(lade_worker_t *self, lade_error_t *error)
{
    int64_t now_ms = s_now_ms();
    if (self->state == S_READY && now_ms - self->heard_ms > self->lease_ms)
        return s_reconnect(self, error);
    if (self->state == S_READY && now_ms >= self->next_beat_ms) {
        if (!s_send_beat(self))
            s_enter(self, S_CONNECT);
        self->next_beat_ms = now_ms + self->beat_ms;
    }
    if (self->state != S_READY && !self->quiet && now_ms - self->heard_ms > self->lease_ms) {
        self->quiet = true;
        lade_log(LADE_LOG_WARNING, self->name, "no broker answers at %s; trying on",
                 self->config->workers);
    }
    if ((self->state == S_HELLO && now_ms - self->since_ms > s_patience_ms(self)) ||
        (self->state == S_CONNECT && now_ms - self->since_ms > S_CONNECT_MS))
        return s_reconnect(self, error);
    return LADE_OK;
}

// When the loop has something to do by itself.
static int64_t
s_deadline(lade_worker_t *self)
{
    int64_t at_ms = self->state == S_READY   ? self->next_beat_ms
                    : self->state == S_HELLO ? self->since_ms + s_patience_ms(self) + 1
                                             : s_now_ms() + self->beat_ms;
    if (self->leaving && self->leave_ms < at_ms)
        at_ms = self->leave_ms;
    if (self->state == S_READY)
        for (s_held_t *at = self->held; at; at = at->next)
            if (at->told_ms + S_PROGRESS_MS < at_ms && lade_task_has_news(at->task) &&
                lade_task_stop(at->task) != LADE_STOP_STALE)
                at_ms = at->told_ms + S_PROGRESS_MS;
    return at_ms;
}

// ---------------------------------------------------------------------------------------------------
// Leaving

static void
s_leave(lade_worker_t *self, const char *why)
{
    if (self->leaving) { // asked twice: do not wait for the work to finish
        if (self->leaving == S_FINISHING)
            self->leave_ms = 0;
        return;
    }
    lade_log(LADE_LOG_INFO, self->name, "%s; %zu jobs held have %" PRId64 " ms to finish", why,
             self->held_count, self->grace_ms);
    self->leaving = S_FINISHING;
    self->leave_ms = s_now_ms() + self->grace_ms;
    if (self->state == S_READY)
        s_hello(self); // with no slots
}

static void
s_let_go(lade_worker_t *self)
{
    if (self->held)
        lade_log(LADE_LOG_INFO, self->name, "%zu jobs are given back", self->held_count);
    for (s_held_t *at = self->held; at; at = at->next)
        s_stop(self, at, LADE_STOP_STALE);
    self->leaving = S_LETTING_GO;
    self->leave_ms = s_now_ms() + S_STOP_MS;
}

static void
s_bye(lade_worker_t *self)
{
    lade_report_t *bye = lade_report_new(LADE_W_BYE, 64);
    s_keep(self, bye);
    self->bye_n = bye->n;
    self->leaving = self->state == S_CONNECT ? S_GONE : S_BYE; // nobody there: nobody to wait for
    self->leave_ms = s_now_ms() + (2 * self->beat_ms < S_BYE_MS ? 2 * self->beat_ms : S_BYE_MS);
}

static void
s_go_on_leaving(lade_worker_t *self)
{
    bool over = self->leaving && s_now_ms() >= self->leave_ms;
    if (self->leaving == S_FINISHING && (over || !self->held))
        s_let_go(self);
    if (self->leaving == S_LETTING_GO && (!self->held || s_now_ms() >= self->leave_ms))
        s_bye(self);
    else if (self->leaving == S_BYE && over)
        self->leaving = S_GONE;
}

static void
s_take_signals(lade_worker_t *self)
{
    struct signalfd_siginfo info;
    while (read(self->signals, &info, sizeof info) == sizeof info) {
        self->told = true;
        s_leave(self, info.ssi_signo == SIGINT ? "interrupted" : "told to end");
    }
    if (atomic_exchange(&self->stopping, false))
        s_leave(self, "told to end");
}

// ---------------------------------------------------------------------------------------------------
// The loop

static void
s_wait(lade_worker_t *self)
{
    zmq_pollitem_t items[] = {
        {lade_link_socket(self->link), 0,
         (short)(ZMQ_POLLIN | (self->state == S_CONNECT ? ZMQ_POLLOUT : 0)), 0},
        {NULL, lade_inbox_fd(self->inbox), ZMQ_POLLIN, 0},
        {NULL, self->signals, ZMQ_POLLIN, 0},
    };
    int64_t wait_ms = s_deadline(self) - s_now_ms();
    zmq_poll(items, 3, wait_ms < 0 ? 0 : wait_ms);
    if (self->state == S_CONNECT && items[0].revents & ZMQ_POLLOUT)
        s_hello(self);
}

static lade_code_t
s_turn(lade_worker_t *self, lade_error_t *error)
{
    s_flush(self);
    s_wait(self);
    int64_t now_ms = s_now_ms();
    bool slept = now_ms - self->turn_ms > self->lease_ms && self->state != S_CONNECT;
    self->turn_ms = now_ms;
    if (slept) {
        // Our lease ran out while we were stopped. What lies in the socket was meant for who we
        // were.
        lade_log(LADE_LOG_WARNING, self->name,
                 "stopped for longer than a lease; asking what is still ours");
        self->heard_ms = now_ms;
        lade_code_t code = s_reconnect(self, error);
        if (code)
            return code;
    }
    s_take_signals(self);
    s_take_messages(self);
    // While a HELLO is unanswered an answer waits in the inbox: WELCOME says whether the job is
    // still ours.
    if (self->state == S_READY || self->leaving == S_LETTING_GO || self->leaving == S_BYE)
        s_take_reports(self);
    s_go_on_leaving(self);
    return s_keep_time(self, error);
}

lade_worker_t *
lade_worker_new(const lade_config_t *config, const lade_worker_ops_t *ops, void *arg, int64_t slots)
{
    assert(config && ops && ops->start && ops->kinds && slots > 0);
    lade_worker_t *self = zmalloc(sizeof *self);
    self->config = config;
    self->ops = ops;
    self->arg = arg;
    self->slots = slots;
    self->next_n = 1;
    self->beat_ms = config->beat_ms;
    self->lease_ms = config->beat_ms * config->lease_beats;
    self->inbox = lade_inbox_new((size_t)config->max_message_bytes - 64);
    self->link = lade_link_new(config);
    if (gethostname(self->host, sizeof self->host - 1) != 0)
        snprintf(self->host, sizeof self->host, "localhost");
    uint32_t nonce = (uint32_t)s_now_ms();
    if (getrandom(&nonce, sizeof nonce, GRND_NONBLOCK) < 0)
        nonce ^= (uint32_t)getpid() << 16;
    if (asprintf(&self->name, "%s@%s:%d-%08" PRIx32, ops->name, self->host, (int)getpid(), nonce) <
        0)
        abort();

    // Blocked here, so that threads made from now on leave the signals to the loop.
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ours, &self->before);
    self->signals = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
    if (self->signals < 0)
        abort();
    return self;
}

lade_code_t
lade_worker_run(lade_worker_t *self, int64_t grace_ms, lade_error_t *error)
{
    self->grace_ms = grace_ms;
    self->turn_ms = self->heard_ms = s_now_ms();
    lade_log(LADE_LOG_INFO, self->name, "%" PRId64 " slots, broker at %s", self->slots,
             self->config->workers);
    lade_code_t code = s_reconnect(self, error);
    while (!code && self->leaving != S_GONE)
        code = s_turn(self, error);
    if (!code && self->held)
        code = lade_error_set(error, LADE_TIMEOUT, "%zu jobs did not stop in %d ms",
                              self->held_count, S_STOP_MS);
    return code;
}

void
lade_worker_stop(lade_worker_t *self)
{
    atomic_store(&self->stopping, true);
    lade_inbox_wake(self->inbox);
}

bool
lade_worker_was_told(const lade_worker_t *self)
{
    return self->told;
}

const char *
lade_worker_name(const lade_worker_t *self)
{
    return self->name;
}

void
lade_worker_gate(lade_worker_t *self, const char *gate, double closed_for_s, const char *reason)
{
    lade_report_t *report = lade_report_new(LADE_W_GATE, lade_inbox_max_bytes(self->inbox));
    lade_pack_t pack;
    lade_pack_open(&pack, &report->body);
    report->pairs = 3;
    lade_pack_str(&pack, "gate");
    lade_pack_str(&pack, gate);
    lade_pack_str(&pack, "closed_for_s");
    lade_pack_real(&pack, closed_for_s);
    lade_pack_str(&pack, "reason");
    lade_pack_str(&pack, reason ? reason : "");
    lade_inbox_put(self->inbox, &report);
}

void
lade_worker_destroy(lade_worker_t **self_p)
{
    lade_worker_t *self = *self_p;
    if (!self)
        return;
    for (s_held_t *at = self->held, *next; at; at = next) {
        next = at->next;
        lade_task_destroy(&at->task);
        free(at);
    }
    lade_report_t *lists[] = {self->arrived, self->unacked};
    for (size_t i = 0; i < 2; i++)
        for (lade_report_t *at = lists[i], *next; at; at = next) {
            next = at->next;
            lade_report_destroy(&at);
        }
    lade_link_destroy(&self->link);
    lade_inbox_destroy(&self->inbox);
    close(self->signals);
    pthread_sigmask(SIG_SETMASK, &self->before, NULL);
    free(self->name);
    free(self);
    *self_p = NULL;
}
