// Installing in one call: submit, wait, and the record or the reason.
#include "client/outcome.h"
#include "client/request.h"
#include "common/wire.h"

#include <string.h>

static lade_code_t
s_submit_args(const char *source, const char *config, json_t **args_p, lade_error_t *error)
{
    json_error_t where;
    json_t *overrides = config && *config ? json_loads(config, 0, &where) : NULL;
    if (config && *config && !json_is_object(overrides)) {
        json_decref(overrides);
        return lade_error_set(error, LADE_VALUE_ERROR, "config has to be a JSON object");
    }
    *args_p = json_pack("{s:o}", "source", json_stringn_nocheck(source, strlen(source)));
    if (overrides)
        json_object_set_new(*args_p, "config", overrides);
    return LADE_OK;
}

lade_code_t
lade_install(lade_t *self, const char *source, const char *config, double timeout_s,
             char **record_p, lade_error_t *error)
{
    if (record_p)
        *record_p = NULL;
    json_t *args, *job = NULL, *ended = NULL;
    lade_code_t code = s_submit_args(source, config, &args, error);
    if (!code)
        code =
            lade_request_json(self, "install", "heuristic_import", args, NULL, NULL, &job, error);
    if (!code) {
        args = json_pack("{s:I, s:f}", "id", (json_int_t)lade_json_int(job, "id", -1), "timeout_s",
                         timeout_s);
        code = lade_request_json(self, "install", "wait_for_job", args, NULL, NULL, &ended, error);
    }
    if (!code)
        code = lade_outcome_error(ended, error);
    if (!code && record_p)
        *record_p = lade_request_text(json_object_get(ended, "config_out"));
    json_decref(job);
    json_decref(ended);
    return code;
}
