// lade-download: URLs into files.
#include "common/config.h"
#include "common/log.h"
#include "workers/download/serve.h"

#include <czmq.h>

int
main(int argc, char **argv)
{
    lade_config_t config;
    int status = 0;
    zsys_handler_set(NULL); // signals are the loop's
    if (!lade_config_from_args(&config, "lade-download",
                               "Fetches files for the broker's download jobs.", argc, argv,
                               &status)) {
        lade_config_free(&config);
        return status;
    }
    lade_tokens_guard_process();
    lade_error_t error = {0};
    lade_serve_t *serve;
    lade_code_t code = lade_serve_new(&serve, &config, &error);
    if (!code)
        code = lade_serve_run(serve, &error);
    if (code)
        lade_log(LADE_LOG_ERROR, NULL, "%s", error.message);
    lade_serve_destroy(&serve);
    lade_config_free(&config);
    zsys_shutdown();
    return lade_code_exit(code);
}
