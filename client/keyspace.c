// The keyspace from outside: asking for a backup and for a check.
#include "client/request.h"
#include "common/wire.h"

#include <string.h>

typedef struct {
    bool (*tell)(void *arg, int64_t done, int64_t total);
    void *arg;
} s_progress_t;

static bool
s_on_partial(void *arg, const json_t *partial)
{
    const s_progress_t *self = arg;
    return !self->tell || self->tell(self->arg, lade_json_int(partial, "done", 0),
                                     lade_json_int(partial, "total", 0));
}

static lade_code_t
s_ask(lade_t *self, const char *op, json_t *args, s_progress_t progress, char **result_p,
      lade_error_t *error)
{
    json_t *result = NULL;
    if (result_p)
        *result_p = NULL;
    json_object_set_new(args, "partial", json_boolean(progress.tell != NULL));
    lade_code_t code =
        lade_request_json(self, "broker", op, args, s_on_partial, &progress, &result, error);
    if (!code && result_p)
        *result_p = lade_request_text(result);
    json_decref(result);
    return code;
}

lade_code_t
lade_backup(lade_t *self, const char *path, bool overwrite,
            bool (*progress)(void *arg, int64_t done, int64_t total), void *arg, char **result_p,
            lade_error_t *error)
{
    json_t *args = json_pack("{s:o, s:b}", "path", json_stringn_nocheck(path, strlen(path)),
                             "overwrite", overwrite);
    return s_ask(self, "backup", args, (s_progress_t){progress, arg}, result_p, error);
}

lade_code_t
lade_check(lade_t *self, bool fix, bool (*progress)(void *arg, int64_t done, int64_t total),
           void *arg, char **result_p, lade_error_t *error)
{
    return s_ask(self, "check", json_pack("{s:b}", "fix", fix), (s_progress_t){progress, arg},
                 result_p, error);
}
