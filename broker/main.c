// lade-broker: settings, folders, keyspace, sockets, loop; torn down in reverse.
#include "broker/backup.h"
#include "broker/router.h"
#include "common/config.h"
#include "common/log.h"

#include <string.h>

int
main(int argc, char **argv)
{
    lade_config_t config = {0};
    lade_router_t *router = NULL;
    lade_error_t error = {0};
    int exit_status = 0;
    if (argc > 2 && strcmp(argv[1], "restore") == 0)
        return lade_backup_main(argc, argv);
    if (!lade_config_from_args(
            &config, "lade-broker",
            "Takes requests, keeps jobs and models, hands jobs to workers, tells events.", argc,
            argv, &exit_status)) {
        lade_config_free(&config);
        return exit_status;
    }
    lade_tokens_guard_process();
    lade_code_t code = lade_config_make_folders(&config, &error);
    if (!code)
        code = lade_router_open(&config, &router, &error);
    if (!code)
        code = lade_router_serve(router, &error);
    if (code)
        lade_log(LADE_LOG_ERROR, "broker", "%s", error.message);
    lade_router_close(&router);
    lade_config_free(&config);
    return code ? lade_code_exit(code) : 0;
}
