// Reading jobs.
#include "client/outcome.h"

#include "common/wire.h"

#include <string.h>

// How a status ends a job; what is not here has not ended.
static const struct {
    const char *status;
    lade_code_t code; // where the job itself names none
    const char *words;
} s_ends[] = {
    // clang-format off
    {"completed", LADE_OK,          ""},
    {"error",     LADE_INTERNAL,    "failed without a reason"},
    {"cancelled", LADE_CANCELLED,   "was cancelled"},
    {"dead",      LADE_WORKER_LOST, "its workers died under it again and again"},
    // clang-format on
};

static int
s_end_of(const json_t *job)
{
    const char *status = lade_json_text(job, "status", "");
    for (size_t i = 0; i < sizeof s_ends / sizeof *s_ends; i++)
        if (strcmp(s_ends[i].status, status) == 0)
            return (int)i;
    return -1;
}

bool
lade_outcome_ended(const json_t *job)
{
    return s_end_of(job) >= 0;
}

lade_code_t
lade_outcome_error(const json_t *job, lade_error_t *error)
{
    int end = s_end_of(job);
    if (end == 0)
        return LADE_OK;
    int64_t id = lade_json_int(job, "id", -1);
    if (end < 0)
        return lade_error_set(error, LADE_TIMEOUT, "job %" JSON_INTEGER_FORMAT " is %s",
                              (json_int_t)id, lade_json_text(job, "status", "in an unknown state"));
    const char *type = lade_json_text(job, "error_type", NULL),
               *words = lade_json_text(job, "error", NULL);
    lade_code_t code = type && *type ? lade_code_find(type) : s_ends[end].code;
    if (words && *words)
        return lade_error_set(error, code, "%s", words);
    return lade_error_set(error, code, "job %" JSON_INTEGER_FORMAT ": %s", (json_int_t)id,
                          s_ends[end].words);
}

void
lade_outcome_bytes(const json_t *job, int64_t *bytes_p, int64_t *total_p)
{
    const json_t *progress = json_object_get(job, "progress");
    *bytes_p = lade_json_int(job, "bytes", lade_json_int(progress, "bytes", 0));
    *total_p = lade_json_int(job, "total_bytes", lade_json_int(progress, "total_bytes", 0));
}
