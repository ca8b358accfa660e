// A conversion, or a copy of the same bytes, with a stopwatch: convert_bench convert RECORD FROM
// TO, convert_bench copy FROM TO. Prints {"seconds", "bytes", "peak_kb"}.
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static lade_code_t
s_convert(const char *text, const char *from, const char *to, lade_error_t *error)
{
    json_t *record = json_loads(text, 0, NULL);
    lade_convert_rules_t *rules;
    lade_convert_report_t report;
    lade_code_t code = lade_convert_rules_new(NULL, &rules, error);
    if (!code)
        code = lade_convert_run(rules, record, from, to, NULL, NULL, &report, error);
    lade_convert_rules_destroy(&rules);
    json_decref(record);
    return code;
}

int
main(int argc, char **argv)
{
    lade_error_t error = {0};
    lade_code_t code = LADE_USAGE;
    const char *to = argv[argc - 1];
    double began = s_now();
    if (argc == 5 && !strcmp(argv[1], "convert"))
        code = s_convert(argv[2], argv[3], to, &error);
    else if (argc == 4 && !strcmp(argv[1], "copy"))
        code = lade_path_copy(argv[2], to, NULL, NULL, &error);
    double seconds = s_now() - began;
    if (code) {
        fprintf(stderr, "%s: %s\n", lade_code_name(code), error.message);
        return 1;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds\": %.3f, \"bytes\": %" PRId64 ", \"peak_kb\": %ld}\n", seconds,
           lade_path_size(to), usage.ru_maxrss);
    return 0;
}
