// Tasks: what the work may ask and say about its job.
#include "workers/worker/task.h"

#include <czmq.h>
#include <pthread.h>
#include <stdatomic.h>

struct lade_task {
    json_t *body;          // the whole JOB; everything the getters return lies in it
    json_t *empty_map;     // for a JOB without spec
    json_t *empty_array;   // for a JOB without children or answers
    lade_inbox_t *inbox;   // the worker's
    _Atomic int stop;      // lade_stop_t
    void *data;            // the work's
    json_t *result, *undo; // of its answer, NULL if there are none
    pthread_mutex_t lock;  // guards what follows
    lade_task_news_t news;
    bool fresh; // news that were not taken yet
    lade_terms_t terms;
    int64_t serial; // of the terms: which of several the broker's a confirmation answers
    int64_t kept;   // connections the work may still have open; 0: any number
};

lade_terms_t
lade_terms_read(const json_t *map)
{
    enum { S_LONGEST_S = 7 * 24 * 3600 };
    int64_t connections = lade_json_int(map, "connections", 0),
            bytes_per_s = lade_json_int(map, "bytes_per_s", 0);
    double hold_s = lade_json_real(map, "hold_s", 0);
    const json_t *preserve = json_object_get(map, "preserve_partial_downloads");
    return (lade_terms_t){
        .connections = connections > 0 ? connections : 0,
        .bytes_per_s = bytes_per_s > 0 ? bytes_per_s : 0,
        .hold_s = !(hold_s > 0)          ? 0
                  : hold_s < S_LONGEST_S ? hold_s
                                         : S_LONGEST_S,
        .preserve = json_is_boolean(preserve) ? json_is_true(preserve) ? 1 : -1 : 0,
    };
}

lade_code_t
lade_task_new(lade_task_t **task_p, json_t *body, lade_inbox_t *inbox, lade_error_t *error)
{
    *task_p = NULL;
    json_t *spec = json_object_get(body, "spec"), *children = json_object_get(body, "children");
    const char *wrong = lade_json_int(body, "id", 0) <= 0                      ? "id"
                        : lade_json_int(body, "attempt", 0) <= 0               ? "attempt"
                        : !lade_json_text(body, "kind", NULL)                  ? "kind"
                        : spec && !json_is_null(spec) && !json_is_object(spec) ? "spec"
                        : children && !json_is_null(children) && !json_is_array(children)
                            ? "children"
                            : NULL;
    if (wrong) {
        json_decref(body);
        return lade_error_set(error, LADE_BAD_REQUEST,
                              "the JOB's '%s' is missing or of the wrong type", wrong);
    }
    lade_task_t *self = zmalloc(sizeof *self);
    self->body = body;
    self->empty_map = json_object();
    self->empty_array = json_array();
    self->inbox = inbox;
    self->news.bytes = -1;
    self->terms = lade_terms_read(body);
    self->serial = lade_json_int(body, "serial", 0);
    self->kept = self->terms.connections;
    pthread_mutex_init(&self->lock, NULL);
    *task_p = self;
    return LADE_OK;
}

bool
lade_task_ask_stop(lade_task_t *self, lade_stop_t stop)
{
    static const int weight[] = {
        [LADE_STOP_NONE] = 0, [LADE_STOP_PAUSE] = 1, [LADE_STOP_CANCEL] = 2, [LADE_STOP_STALE] = 3};
    if (weight[stop] <= weight[atomic_load(&self->stop)])
        return false;
    atomic_store(&self->stop, (int)stop);
    return true;
}

static char *
s_dup(const char *text)
{
    return text ? strdup(text) : NULL;
}

bool
lade_task_take_news(lade_task_t *self, lade_task_news_t *news)
{
    pthread_mutex_lock(&self->lock);
    bool fresh = self->fresh;
    self->fresh = false;
    if (fresh) {
        *news = self->news;
        news->phase = s_dup(self->news.phase);
        news->reason = s_dup(self->news.reason);
        news->local_path = s_dup(self->news.local_path);
        self->news.connections = 0;
    }
    pthread_mutex_unlock(&self->lock);
    return fresh;
}

void
lade_task_untake_news(lade_task_t *self, const lade_task_news_t *news)
{
    pthread_mutex_lock(&self->lock);
    if (!self->news.connections && news->serial == self->serial)
        self->news.connections = news->connections;
    self->fresh = true;
    pthread_mutex_unlock(&self->lock);
}

bool
lade_task_is_urgent(lade_task_t *self)
{
    pthread_mutex_lock(&self->lock);
    bool urgent = self->fresh && self->news.connections;
    pthread_mutex_unlock(&self->lock);
    return urgent;
}

// Holds the lock: what is kept to now is news.
static void
s_confirm(lade_task_t *self)
{
    self->news.connections = self->kept;
    self->news.serial = self->serial;
    self->fresh = true;
}

lade_terms_t
lade_task_take_terms(lade_task_t *self, const json_t *item)
{
    lade_terms_t terms = lade_terms_read(item);
    int64_t serial = lade_json_int(item, "serial", 0);
    pthread_mutex_lock(&self->lock);
    self->terms = terms;
    self->serial = serial;
    self->news.connections = 0; // it answered older terms
    if (!terms.connections || (self->kept && terms.connections > self->kept))
        self->kept = terms.connections; // fewer are kept to when they are confirmed
    if (terms.connections && self->kept == terms.connections)
        s_confirm(self);
    pthread_mutex_unlock(&self->lock);
    return terms;
}

int64_t
lade_task_kept(lade_task_t *self)
{
    pthread_mutex_lock(&self->lock);
    int64_t kept = self->kept;
    pthread_mutex_unlock(&self->lock);
    return kept;
}

bool
lade_task_has_news(lade_task_t *self)
{
    pthread_mutex_lock(&self->lock);
    bool fresh = self->fresh;
    pthread_mutex_unlock(&self->lock);
    return fresh;
}

void
lade_task_destroy(lade_task_t **self_p)
{
    lade_task_t *self = *self_p;
    if (!self)
        return;
    json_decref(self->body);
    json_decref(self->empty_map);
    json_decref(self->empty_array);
    json_decref(self->result);
    json_decref(self->undo);
    free(self->news.phase);
    free(self->news.reason);
    free(self->news.local_path);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Asking

int64_t
lade_task_id(const lade_task_t *self)
{
    return lade_json_int(self->body, "id", 0);
}

int64_t
lade_task_attempt(const lade_task_t *self)
{
    return lade_json_int(self->body, "attempt", 0);
}

int64_t
lade_task_failures(const lade_task_t *self)
{
    return lade_json_int(self->body, "failures", 0);
}

const char *
lade_task_kind(const lade_task_t *self)
{
    return lade_json_text(self->body, "kind", "");
}

const char *
lade_task_source(const lade_task_t *self)
{
    return lade_json_text(self->body, "source", "");
}

const json_t *
lade_task_spec(const lade_task_t *self)
{
    const json_t *spec = json_object_get(self->body, "spec");
    return json_is_object(spec) ? spec : self->empty_map;
}

const json_t *
lade_task_state(const lade_task_t *self)
{
    const json_t *state = json_object_get(self->body, "state");
    return json_is_null(state) ? NULL : state;
}

const json_t *
lade_task_children(const lade_task_t *self)
{
    const json_t *children = json_object_get(self->body, "children");
    return json_is_array(children) ? children : self->empty_array;
}

const json_t *
lade_task_answers(const lade_task_t *self)
{
    const json_t *answers = json_object_get(self->body, "answers");
    return json_is_array(answers) ? answers : self->empty_array;
}

lade_stop_t
lade_task_stop(const lade_task_t *self)
{
    return (lade_stop_t)atomic_load(&self->stop);
}

lade_terms_t
lade_task_terms(const lade_task_t *self)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&self->lock; // looking changes nothing
    pthread_mutex_lock(lock);
    lade_terms_t terms = self->terms;
    pthread_mutex_unlock(lock);
    return terms;
}

void
lade_task_set_data(lade_task_t *self, void *data)
{
    self->data = data;
}

void *
lade_task_data(const lade_task_t *self)
{
    return self->data;
}

// ---------------------------------------------------------------------------------------------------
// Saying

static void
s_replace(char **where, const char *text)
{
    if (!text || (*where && strcmp(*where, text) == 0))
        return;
    free(*where);
    *where = strdup(text);
}

void
lade_task_progress(lade_task_t *self, int64_t bytes, int64_t total_bytes, const char *phase,
                   const char *local_path)
{
    pthread_mutex_lock(&self->lock);
    bool first = !self->fresh;
    self->fresh = true;
    self->news.bytes = bytes;
    self->news.total_bytes = total_bytes;
    s_replace(&self->news.phase, phase);
    s_replace(&self->news.local_path, local_path);
    pthread_mutex_unlock(&self->lock);
    if (first) // else the loop knows already
        lade_inbox_wake(self->inbox);
}

void
lade_task_phase(lade_task_t *self, const char *phase, const char *reason)
{
    pthread_mutex_lock(&self->lock);
    bool first = !self->fresh;
    self->fresh = true;
    s_replace(&self->news.phase, phase);
    free(self->news.reason);
    self->news.reason = s_dup(reason);
    pthread_mutex_unlock(&self->lock);
    if (first)
        lade_inbox_wake(self->inbox);
}

void
lade_task_confirm(lade_task_t *self, int64_t connections)
{
    pthread_mutex_lock(&self->lock);
    int64_t wanted = self->terms.connections, kept = connections > wanted ? connections : wanted;
    bool news = wanted && connections > 0 && (!self->kept || kept < self->kept);
    if (news) {
        self->kept = kept;
        s_confirm(self);
    }
    pthread_mutex_unlock(&self->lock);
    if (news)
        lade_inbox_wake(self->inbox);
}

static lade_report_t *
s_report(lade_task_t *self, int command)
{
    lade_report_t *report = lade_report_new(command, lade_inbox_max_bytes(self->inbox));
    report->task = self;
    report->id = lade_task_id(self);
    report->attempt = lade_task_attempt(self);
    report->stale = lade_task_stop(self) == LADE_STOP_STALE;
    return report;
}

static void
s_key(lade_report_t *report, lade_pack_t *pack, const char *key)
{
    report->pairs++;
    lade_pack_str(pack, key);
}

static void
s_open(lade_report_t *report, lade_pack_t *pack)
{
    lade_pack_open(pack, &report->body);
    s_key(report, pack, "id");
    lade_pack_int(pack, report->id);
    s_key(report, pack, "attempt");
    lade_pack_int(pack, report->attempt);
}

void
lade_task_set_result(lade_task_t *self, json_t *result)
{
    json_decref(self->result);
    self->result = result;
}

void
lade_task_set_undo(lade_task_t *self, json_t *undo)
{
    json_decref(self->undo);
    self->undo = undo;
}

static lade_report_t *
s_fail(lade_task_t *self, const lade_error_t *error, double retry_after_s)
{
    lade_report_t *report = s_report(self, LADE_W_FAIL);
    lade_pack_t pack;
    s_open(report, &pack);
    s_key(report, &pack, "code");
    lade_pack_str(&pack, lade_code_name(error->code ? error->code : LADE_INTERNAL));
    s_key(report, &pack, "message");
    lade_pack_str(&pack, error->message);
    if (retry_after_s > 0) {
        s_key(report, &pack, "retry_after_s");
        lade_pack_real(&pack, retry_after_s);
    }
    if (retry_after_s < 0) {
        s_key(report, &pack, "retry");
        lade_pack_bool(&pack, false);
    }
    if (self->result) {
        s_key(report, &pack, "result");
        lade_pack_json(&pack, self->result);
    }
    return report;
}

// Hands the report over, or, if it did not fit into one message, the failure that says so.
static void
s_answer(lade_task_t **task_p, lade_report_t *report, const lade_pack_t *pack)
{
    lade_error_t error;
    if (lade_pack_failed(pack, &error)) {
        lade_error_wrap(&error, "the answer of the job does not fit into broker.max_message_bytes");
        lade_report_destroy(&report);
        lade_task_set_result(*task_p, NULL);
        report = s_fail(*task_p, &error, 0);
    }
    lade_inbox_t *inbox = (*task_p)->inbox;
    *task_p = NULL; // from here on the loop may free it at any time
    lade_inbox_put(inbox, &report);
}

void
lade_task_done(lade_task_t **task_p, json_t *result, json_t *effects)
{
    lade_report_t *report = s_report(*task_p, LADE_W_DONE);
    lade_pack_t pack;
    s_open(report, &pack);
    s_key(report, &pack, "result");
    if (result)
        lade_pack_json(&pack, result);
    else
        lade_pack_map(&pack, 0);
    if (effects) {
        s_key(report, &pack, "effects");
        lade_pack_json(&pack, effects);
    }
    if ((*task_p)->undo) {
        s_key(report, &pack, "undo");
        lade_pack_json(&pack, (*task_p)->undo);
    }
    json_decref(result);
    json_decref(effects);
    s_answer(task_p, report, &pack);
}

void
lade_task_fail(lade_task_t **task_p, const lade_error_t *error, double retry_after_s)
{
    lade_report_t *report = s_fail(*task_p, error, retry_after_s);
    lade_inbox_t *inbox = (*task_p)->inbox;
    *task_p = NULL;
    lade_inbox_put(inbox, &report);
}

void
lade_task_fail_at(lade_task_t **task_p, const lade_error_t *error, const char *gate,
                  double closed_for_s)
{
    lade_report_t *report = s_fail(*task_p, error, 0);
    lade_pack_t pack;
    lade_pack_open(&pack, &report->body);
    s_key(report, &pack, "gate");
    lade_pack_map(&pack, 3);
    lade_pack_str(&pack, "gate");
    lade_pack_str(&pack, gate);
    lade_pack_str(&pack, "closed_for_s");
    lade_pack_real(&pack, closed_for_s);
    lade_pack_str(&pack, "reason");
    lade_pack_str(&pack, error->message);
    lade_inbox_t *inbox = (*task_p)->inbox;
    *task_p = NULL;
    lade_inbox_put(inbox, &report);
}

void
lade_task_await(lade_task_t **task_p, json_t *state, json_t *jobs, json_t *ask, int64_t total_bytes,
                const char *local_path)
{
    lade_report_t *report = s_report(*task_p, LADE_W_AWAIT);
    lade_pack_t pack;
    s_open(report, &pack);
    s_key(report, &pack, "state");
    if (state)
        lade_pack_json(&pack, state);
    else
        lade_pack_map(&pack, 0);
    s_key(report, &pack, "jobs");
    if (jobs)
        lade_pack_json(&pack, jobs);
    else
        lade_pack_array(&pack, 0);
    if (ask) {
        s_key(report, &pack, "ask");
        lade_pack_json(&pack, ask);
    }
    if (total_bytes > 0) {
        s_key(report, &pack, "total_bytes");
        lade_pack_int(&pack, total_bytes);
    }
    if (local_path) {
        s_key(report, &pack, "local_path");
        lade_pack_str(&pack, local_path);
    }
    json_decref(state);
    json_decref(jobs);
    json_decref(ask);
    s_answer(task_p, report, &pack);
}
