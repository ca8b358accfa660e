// The installer's methods over many models: scan_directory, sync_to_config, verify.
#include "client/request.h"
#include "common/wire.h"

#include <string.h>

// args is taken. *result_p (may be NULL) is the result as JSON text.
static lade_code_t
s_call(lade_t *self, const char *op, json_t *args, char **result_p, lade_error_t *error)
{
    json_t *result = NULL;
    if (result_p)
        *result_p = NULL;
    lade_code_t code = lade_request_json(self, "install", op, args, NULL, NULL, &result, error);
    if (!code && result_p)
        *result_p = lade_request_text(result);
    json_decref(result);
    return code;
}

lade_code_t
lade_installer_scan_directory(lade_t *self, const char *scan_dir, bool install, double timeout_s,
                              char **keys_p, lade_error_t *error)
{
    return s_call(self, "scan_directory",
                  json_pack("{s:o, s:b, s:f}", "scan_dir",
                            json_stringn_nocheck(scan_dir, strlen(scan_dir)), "install",
                            (int)install, "timeout_s", timeout_s),
                  keys_p, error);
}

lade_code_t
lade_installer_sync_to_config(lade_t *self, bool unregister, bool dry_run, double timeout_s,
                              char **result_p, lade_error_t *error)
{
    return s_call(self, "sync_to_config",
                  json_pack("{s:b, s:b, s:f}", "unregister", (int)unregister, "dry_run",
                            (int)dry_run, "timeout_s", timeout_s),
                  result_p, error);
}

lade_code_t
lade_installer_verify(lade_t *self, const char *const *keys, bool record, double timeout_s,
                      char **result_p, lade_error_t *error)
{
    json_t *args = json_pack("{s:b, s:f}", "record", (int)record, "timeout_s", timeout_s);
    if (keys)
        json_object_set_new(args, "keys", json_array());
    for (size_t i = 0; keys && keys[i]; i++)
        json_array_append_new(json_object_get(args, "keys"),
                              json_stringn_nocheck(keys[i], strlen(keys[i])));
    return s_call(self, "verify", args, result_p, error);
}
