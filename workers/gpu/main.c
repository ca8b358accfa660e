// lade-gpu: keeps models in memory and hands them to other processes.
#include "common/config.h"
#include "common/log.h"
#include "workers/gpu/loadwork.h"
#include "workers/worker/worker.h"

#include <stdio.h>

enum {
    S_GRACE_MS = 2000
}; // a load that takes longer is given back: another worker reads it as well as we do

int
main(int argc, char **argv)
{
    lade_config_t config = {0};
    lade_error_t error = {0};
    int status = 0;
    if (!lade_config_from_args(&config, "lade-gpu",
                               "keeps models in memory and hands them to other processes", argc,
                               argv, &status)) {
        lade_config_free(&config);
        return status;
    }
    lade_tokens_guard_core();
    lade_loadwork_t *work = lade_loadwork_new(&config);
    lade_worker_t *worker =
        lade_worker_new(&config, &lade_loadwork_ops, work, lade_loadwork_slots(&config));
    lade_code_t code = lade_config_make_folders(&config, &error);
    if (!code)
        code = lade_loadwork_open(work, lade_worker_name(worker), &error);
    if (!code)
        code = lade_worker_run(worker, S_GRACE_MS, &error);
    if (code)
        lade_log(LADE_LOG_ERROR, "worker", "%s", error.message);
    lade_loadwork_destroy(&work);
    lade_worker_destroy(&worker);
    lade_config_free(&config);
    return lade_code_exit(code);
}
