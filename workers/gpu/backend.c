// Finding a backend.
#include "workers/gpu/backend.h"

#include "common/plugin.h"

#include <string.h>

lade_code_t
lade_backend_find(const char *name, const lade_backend_t **backend_p, lade_error_t *error)
{
    const void *table = &lade_backend_host;
    lade_code_t code = LADE_OK;
    if (strcmp(name, lade_backend_host.name) != 0)
        code = lade_plugin_open(name, LADE_BACKEND_SYMBOL, &table, error);
    *backend_p = table;
    return code;
}
