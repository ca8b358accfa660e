// What a model's page says, and whether a text is such metadata.
#include "common/metadata.h"
#include "client/request.h"

#include <string.h>

static lade_code_t
s_ask(lade_t *self, const char *member, const char *value, const char *access_token,
      char **metadata_p, lade_error_t *error)
{
    *metadata_p = NULL;
    json_t *args = json_pack("{s:o}", member, json_stringn_nocheck(value, strlen(value)));
    json_t *result = NULL;
    if (access_token)
        json_object_set_new(args, "access_token",
                            json_stringn_nocheck(access_token, strlen(access_token)));
    lade_code_t code =
        lade_request_json(self, "install", "metadata", args, NULL, NULL, &result, error);
    if (!code)
        *metadata_p = lade_request_text(result);
    json_decref(result);
    return code;
}

lade_code_t
lade_metadata_from_url(lade_t *self, const char *url, const char *access_token, char **metadata_p,
                       lade_error_t *error)
{
    return s_ask(self, "url", url, access_token, metadata_p, error);
}

lade_code_t
lade_metadata_from_id(lade_t *self, const char *id, const char *access_token, char **metadata_p,
                      lade_error_t *error)
{
    return s_ask(self, "id", id, access_token, metadata_p, error);
}

lade_code_t
lade_metadata_from_json(const char *text, char **metadata_p, lade_error_t *error)
{
    json_error_t where;
    *metadata_p = NULL;
    json_t *value = json_loads(text, 0, &where);
    lade_code_t code =
        value ? lade_metadata_check(value, error)
              : lade_error_set(error, LADE_VALUE_ERROR, "no JSON object: line %d, column %d: %s",
                               where.line, where.column, where.text);
    if (!code)
        *metadata_p = lade_request_text(value);
    json_decref(value);
    return code;
}
