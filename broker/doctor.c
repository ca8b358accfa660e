// The doctor's chore: thread, loop, and once more the thread for files that go.
#include "broker/doctor.h"

#include "broker/jobs.h"
#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"

#include <czmq.h>
#include <inttypes.h>
#include <stdarg.h>

typedef struct {
    lade_doctor_t doctor;
    lade_doctor_index_t index;
    bool fix;
    json_t *leftovers; // [{"path", "job", "bytes"}…]
    json_t *report;
} s_state_t;

static void
s_free(void *state)
{
    s_state_t *self = state;
    lade_doctor_index_free(&self->index);
    json_decref(self->doctor.findings);
    json_decref(self->doctor.counts);
    json_decref(self->doctor.fixed);
    json_decref(self->leftovers);
    json_decref(self->report);
    free(self);
}

static json_t *
s_text(const char *text)
{
    return json_stringn_nocheck(text, strlen(text));
}

json_t *
lade_doctor_find(lade_doctor_t *self, const char *check, const char *severity, const char *where,
                 const char *key, const char *todo, const char *format, ...)
{
    char what[512];
    va_list args;
    json_int_t count = json_integer_value(json_object_get(self->counts, check));
    json_object_set_new(self->counts, check, json_integer(count + 1));
    if (count >= LADE_DOCTOR_MAX_FINDINGS)
        return NULL;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    json_t *finding =
        json_pack("{s:s, s:s, s:o, s:o, s:s, s:b}", "check", check, "severity", severity, "where",
                  s_text(where), "what", s_text(what), "todo", todo, "fixable", 0);
    if (key)
        json_object_set_new(finding, "key", s_text(key));
    json_array_append_new(self->findings, finding);
    return finding;
}

// ---------------------------------------------------------------------------------------------------
// On the thread

static lade_code_t
s_look(s_state_t *self, lade_chore_t *chore, lade_error_t *error)
{
    json_int_t models = (json_int_t)lade_store_count(chore->view, LADE_DB_MODELS);
    uint64_t schema = 0;
    lade_store_use_t use;
    lade_store_use(chore->view, &use);
    lade_store_get_number(chore->view, "schema", &schema, NULL);
    lade_code_t code = lade_doctor_index(&self->doctor, chore, &self->index, error);
    // Files may be on a disk that takes its time, and no view is to wait for that.
    lade_store_close(&chore->view);
    if (code)
        return code;
    lade_doctor_files(&self->doctor, chore, &self->index, &self->leftovers);
    json_t *disks = lade_doctor_disks(&self->doctor, chore->config);
    self->report = json_pack("{s:I, s:{s:I, s:I, s:I, s:i}, s:o, s:s}", "models", models,
                             "keyspace", "schema", (json_int_t)schema, "bytes",
                             (json_int_t)use.used_bytes, "map_bytes", (json_int_t)use.map_bytes,
                             "readers", (int)use.readers, "disks", disks, "version", LADE_VERSION);
    return LADE_OK;
}

static void
s_remove_leftovers(s_state_t *self)
{
    for (size_t i = 0; i < json_array_size(self->leftovers); i++) {
        const char *path = lade_json_text(json_array_get(self->leftovers, i), "path", "");
        lade_error_t error = {0};
        char said[512];
        if (lade_path_remove(path, &error))
            snprintf(said, sizeof said, "could not remove %.300s: %.150s", path, error.message);
        else
            snprintf(said, sizeof said, "removed %.400s", path);
        lade_log(LADE_LOG_INFO, "doctor", "%s", said);
        json_array_append_new(self->doctor.fixed, s_text(said));
    }
}

static lade_code_t
s_run(lade_chore_t *chore, json_t **result_p, lade_error_t *error)
{
    s_state_t *self = chore->state;
    lade_code_t code = LADE_OK;
    if (chore->round == 0)
        code = s_look(self, chore, error);
    else
        s_remove_leftovers(self);
    if (!code)
        *result_p = json_incref(self->report);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// In the loop

// Whether nobody will come back for what the job left: it is gone, or it is done.
static bool
s_job_is_over(lade_broker_t *broker, int64_t id)
{
    lade_job_t *job;
    return id < 0 || lade_jobs_get(broker->jobs, (uint64_t)id, &job, NULL) != LADE_OK ||
           job->status == LADE_JOB_COMPLETED;
}

static void
s_tell_leftovers(s_state_t *self, lade_broker_t *broker)
{
    for (size_t i = json_array_size(self->leftovers); i-- > 0;) {
        const json_t *one = json_array_get(self->leftovers, i);
        if (!s_job_is_over(broker, lade_json_int(one, "job", -1))) {
            json_array_remove(self->leftovers, i);
            continue;
        }
        json_t *finding = lade_doctor_find(
            &self->doctor, "leftover", "warning", lade_json_text(one, "path", ""), NULL,
            "run `lade doctor --fix`, which removes it",
            "%" PRId64 " bytes that nobody will come back for", lade_json_int(one, "bytes", 0));
        if (finding) {
            json_object_set_new(finding, "fixable", json_true());
            json_object_set(finding, "bytes", json_object_get(one, "bytes"));
        }
    }
}

static bool
s_then(lade_broker_t *broker, lade_chore_t *chore, json_t *result)
{
    s_state_t *self = chore->state;
    if (chore->round == 0)
        s_tell_leftovers(self, broker);
    size_t wrong = self->index.entry_count + json_object_size(self->index.counts);
    if (chore->round == 0 && self->fix && wrong) {
        char said[128];
        snprintf(said, sizeof said, "%zu entries of indexes were made from the records",
                 lade_doctor_index_fix(broker->store, &self->index));
        lade_log(LADE_LOG_INFO, "doctor", "%s", said);
        json_array_append_new(self->doctor.fixed, s_text(said));
    }
    json_object_set(result, "findings", self->doctor.findings);
    json_object_set(result, "counts", self->doctor.counts);
    json_object_set(result, "fixed", self->doctor.fixed);
    return chore->round == 0 && self->fix && json_array_size(self->leftovers);
}

static const lade_chore_kind_t s_kind = {
    .name = "a check", .run = s_run, .then = s_then, .free = s_free};

lade_code_t
lade_doctor_call(lade_call_t *call, lade_error_t *error)
{
    s_state_t *self = zmalloc(sizeof *self);
    self->doctor = (lade_doctor_t){json_array(), json_object(), json_array()};
    self->fix = lade_wire_bool(call->args, "fix", false);
    return lade_chores_start(call->broker->chores, call, &s_kind, self, error);
}
