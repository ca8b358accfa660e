// One request of a client: its arguments, and the ways to answer it.
#ifndef LADE_CALL_H
#define LADE_CALL_H

#include "broker/broker.h"
#include "broker/jobs.h"
#include "broker/waits.h"
#include "common/buf.h"
#include "common/error.h"

#include <jansson.h>
#include <msgpack.h>
#include <stdbool.h>

typedef struct {
    lade_broker_t *broker;
    const char *peer;
    size_t peer_len;
    const char *service; // text of the table of services
    const char *id;      // of the request, packed
    size_t id_len;
    const msgpack_object *args; // a map, or NULL
} lade_call_t;

// Does the work of one op. Answers with exactly one of lade_call_begin … _end, lade_call_answer_*,
// lade_call_wait; or returns an error, which the dispatcher answers, and has then answered nothing
// and changed nothing.
typedef lade_code_t(lade_call_fn)(lade_call_t *call, lade_error_t *error);

typedef struct {
    const char *op;
    lade_call_fn *handle;
} lade_op_t;

typedef struct {
    const char *name;
    const lade_op_t *ops; // ended by an op NULL
} lade_service_t;

// Every service, ended by NULL (services.c).
extern const lade_service_t *const lade_services[];

extern const lade_service_t lade_service_store, lade_service_jobs, lade_service_install,
    lade_service_download, lade_service_load, lade_service_events, lade_service_broker;

// Finds the service and op of a request body and runs it; answers whatever is wrong with it. Never
// fails. The zone and buffer are scratch space.
void lade_call_dispatch(lade_broker_t *broker, const char *peer, size_t peer_len,
                        const char *service, size_t service_len, const void *body, size_t len,
                        msgpack_zone *zone, lade_buf_t *scratch);

// ---------------------------------------------------------------------------------------------------
// Answers

// The answer's result goes into the buffer.
lade_buf_t *lade_call_begin(const lade_call_t *call);
void lade_call_end(const lade_call_t *call);

void lade_call_answer_nil(const lade_call_t *call);
// own: with the status that the job's own service shows.
void lade_call_answer_job(const lade_call_t *call, const lade_job_t *job, bool own);
// Takes value over.
lade_code_t lade_call_answer_json(const lade_call_t *call, json_t *value, lade_error_t *error);
// The jobs that pass the filter, as an array; limit and offset are taken from the arguments.
lade_code_t lade_call_answer_jobs(const lade_call_t *call, lade_job_filter_t *filter, bool own,
                                  lade_error_t *error);

// The job named by `id`, of that kind (NULL: any), as it is / once it has ended.
lade_code_t lade_call_answer_named(const lade_call_t *call, const char *kind, lade_error_t *error);
lade_code_t lade_call_wait_named(const lade_call_t *call, const char *kind, lade_error_t *error);

// Removes the ended jobs of a kind (NULL: of the ids in the arguments, or of `kind`, or all) and
// answers how many.
lade_code_t lade_call_purge(const lade_call_t *call, const char *kind, lade_error_t *error);

// Answers when the jobs have ended (or none of kind is active); timeout_s and partial are taken
// from the arguments. ids is taken over.
lade_code_t lade_call_wait(const lade_call_t *call, uint64_t *ids, size_t count, lade_kind_t *kind,
                           lade_wait_answer_fn *answer, lade_error_t *error);

// Submits a job and answers how it ends: with its result, as `answer` packs it, or with its own
// error; at once with the job itself if the argument `wait` is false. The submission's priority and
// token are taken from the arguments, its packed spec is taken over, the lengths of its texts
// (which end with a NUL) are set here. timeout_s and partial are as for lade_call_wait.
lade_code_t lade_call_submit_wait(const lade_call_t *call, lade_submission_t *submission,
                                  lade_wait_answer_fn *answer, lade_error_t *error);

// For answers of waits: the job if it completed, else its error.
lade_code_t lade_call_completed(lade_broker_t *broker, uint64_t id, lade_job_t **job_p,
                                lade_error_t *error);

// Answers of waits for one job that completed: its result; nil; one member of the result.
lade_wait_answer_fn lade_call_ended_result, lade_call_ended_nil, lade_call_ended_key,
    lade_call_ended_keys, lade_call_ended_path;

// Answers of waits: the one job; all jobs as an array; all jobs of the kind.
lade_wait_answer_fn lade_call_ended_job, lade_call_ended_jobs, lade_call_ended_kind;

// The op that removes the record named by `key`, and no file: store.del_model, install.unregister.
lade_code_t lade_call_del_model(lade_call_t *call, lade_error_t *error);

// Ops of install over many models (service_scan.c).
lade_call_fn lade_call_scan_directory, lade_call_sync_to_config, lade_call_verify;

// ---------------------------------------------------------------------------------------------------
// Arguments. Wrong ones are LADE_VALUE_ERROR that names them.

// Whether each known argument of the map is of its type; done for every request before its handler.
// Unknown ones are nobody's business.
lade_code_t lade_call_check_args(const msgpack_object *args, lade_error_t *error);

// A text that has to be there (not empty); as a string you free.
lade_code_t lade_call_need_text(const lade_call_t *call, const char *key, char **text_p,
                                lade_error_t *error);

// All arguments; an empty map if there are none.
json_t *lade_call_json(const lade_call_t *call);

// The job named by `id`, of that kind (NULL: any).
lade_code_t lade_call_need_job(const lade_call_t *call, const char *kind, lade_job_t **job_p,
                               lade_error_t *error);

// The ids of `id` or `ids`; *ids_p is yours. *count_p is 0 if neither is given.
lade_code_t lade_call_ids(const lade_call_t *call, uint64_t **ids_p, size_t *count_p,
                          lade_error_t *error);

// A list of ids, and a lade_jobs_each function that fills it; arg is the list.
typedef struct {
    uint64_t *ids;
    size_t count, cap;
} lade_call_ids_t;
bool lade_call_add_id(void *arg, lade_job_t *job);

// Packs a spec: the given members of map (in args) that are there.
void lade_call_copy_members(const msgpack_object *map, const char *const *keys, lade_blob_t *spec);

#endif
