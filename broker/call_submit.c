// Calls whose answer is what a job of theirs comes to: submit, wait, and the result or the reason.
#include "broker/call.h"

#include "broker/packer.h"
#include "common/wire.h"

#include <czmq.h>

lade_code_t
lade_call_submit_wait(const lade_call_t *call, lade_submission_t *submission,
                      lade_wait_answer_fn *answer, lade_error_t *error)
{
    lade_job_t *job;
    submission->kind_len = strlen(submission->kind);
    submission->source_len = submission->source ? strlen(submission->source) : 0;
    submission->priority = lade_wire_int(call->args, "priority", 10);
    lade_wire_text(call->args, "token", &submission->token, &submission->token_len);
    lade_code_t code = lade_jobs_submit(call->broker->jobs, submission, &job, error);
    if (code)
        return code;
    if (!lade_wire_bool(call->args, "wait", true)) {
        lade_call_answer_job(call, job, true);
        return LADE_OK;
    }
    uint64_t *ids = zmalloc(sizeof *ids);
    ids[0] = job->id;
    return lade_call_wait(call, ids, 1, NULL, answer, error);
}

// The error a job ended with, as the error of the call.
static lade_code_t
s_job_error(const lade_job_t *job, lade_error_t *error)
{
    if (job->status == LADE_JOB_CANCELLED)
        return lade_error_set(error, LADE_CANCELLED, "job %" PRIu64 " was cancelled", job->id);
    return lade_error_set(error, lade_code_find(job->error_type), "%s",
                          job->error ? job->error : "it failed");
}

lade_code_t
lade_call_completed(lade_broker_t *broker, uint64_t id, lade_job_t **job_p, lade_error_t *error)
{
    lade_code_t code = lade_jobs_get(broker->jobs, id, job_p, error);
    if (!code && (*job_p)->status != LADE_JOB_COMPLETED)
        code = s_job_error(*job_p, error);
    return code;
}

lade_code_t
lade_call_ended_result(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                       lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_completed(broker, wait->ids[0], &job, error);
    if (!code)
        lade_put_packed(buf, job->result.data, job->result.len);
    return code;
}

lade_code_t
lade_call_ended_nil(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                    lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_completed(broker, wait->ids[0], &job, error);
    if (!code)
        lade_put_nil(buf);
    return code;
}

static lade_code_t
s_put_member(lade_broker_t *broker, const lade_wait_t *wait, const char *name, lade_buf_t *buf,
             lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_completed(broker, wait->ids[0], &job, error);
    if (code)
        return code;
    msgpack_unpacked result;
    msgpack_unpacked_init(&result);
    bool whole = job->result.len && msgpack_unpack_next(&result, job->result.data, job->result.len,
                                                        NULL) == MSGPACK_UNPACK_SUCCESS;
    const msgpack_object *value = whole ? lade_wire_find(&result.data, name) : NULL;
    if (value)
        lade_put_object(buf, value);
    else
        code = lade_error_set(error, LADE_INTERNAL, "job %" PRIu64 " ended without '%s'", job->id,
                              name);
    msgpack_unpacked_destroy(&result);
    return code;
}

lade_code_t
lade_call_ended_key(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                    lade_error_t *error)
{
    return s_put_member(broker, wait, "key", buf, error);
}

lade_code_t
lade_call_ended_keys(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                     lade_error_t *error)
{
    return s_put_member(broker, wait, "keys", buf, error);
}

lade_code_t
lade_call_ended_path(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                     lade_error_t *error)
{
    return s_put_member(broker, wait, "path", buf, error);
}
