// Tasks into steps, and their answers into the tasks' answers.
#include "workers/download/localwork.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/download/local.h"
#include "workers/download/partial.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
s_progress(void *arg, int64_t bytes, int64_t total, const char *path)
{
    lade_task_progress(arg, bytes, total, NULL, path);
}

static lade_code_t
s_stop(void *arg)
{
    static const lade_code_t codes[] = {[LADE_STOP_NONE] = LADE_OK,
                                        [LADE_STOP_CANCEL] = LADE_CANCELLED,
                                        [LADE_STOP_PAUSE] = LADE_PAUSED,
                                        [LADE_STOP_STALE] = LADE_STALE_LEASE};
    return codes[lade_task_stop(arg)];
}

static json_t *
s_text(const char *text)
{
    return text && *text ? json_stringn_nocheck(text, strlen(text)) : json_null();
}

static json_t *
s_result(const lade_local_answer_t *answer, const char *source)
{
    return json_pack("{s:o, s:I, s:o, s:n, s:o, s:n, s:n, s:I, s:b}", "path", s_text(answer->path),
                     "bytes", (json_int_t)answer->bytes, "sha256", s_text(answer->sha256), "etag",
                     "url", s_text(source), "final_url", "content_type", "resumed_from",
                     (json_int_t)0, "left", answer->left);
}

// Waits until the file system it goes to has room again.
static void
s_wait_for_space(lade_task_t *task, const char *path, const lade_error_t *error)
{
    enum { S_SPACE_S = 3 }; // between two tries
    char gate[300], *folder = lade_path_folder(path), *volume = lade_partial_volume(folder);
    snprintf(gate, sizeof gate, "space:%s", volume);
    lade_task_fail_at(&task, error, gate, S_SPACE_S);
    free(volume);
    free(folder);
}

static void
s_answer(lade_task_t *task, lade_local_answer_t *answer, lade_code_t code, lade_error_t *error)
{
    char about[40];
    snprintf(about, sizeof about, "job %" PRId64, lade_task_id(task));
    if (code) {
        lade_log(LADE_LOG_INFO, about, "%s: %s", lade_code_name(code), error->message);
        if (code == LADE_NO_SPACE && answer->path)
            s_wait_for_space(task, answer->path, error);
        else
            lade_task_fail(&task, error, answer->final ? -1 : 0);
    } else if (answer->state) {
        lade_task_await(&task, json_incref(answer->state), json_array(), NULL, answer->bytes,
                        answer->path);
    } else {
        lade_log(LADE_LOG_INFO, about, "%s is there, %" PRId64 " bytes", answer->path,
                 answer->bytes);
        json_t *result = s_result(answer, lade_task_source(task));
        lade_task_done(&task, result, NULL);
    }
}

void
lade_localwork_run(void *config, lade_task_t *task)
{
    const lade_config_t *settings = config;
    const json_t *spec = lade_task_spec(task);
    const char *sha256 = lade_json_text(spec, "sha256", NULL);
    const lade_local_t request = {
        .id = lade_task_id(task),
        .attempt = lade_task_attempt(task),
        .source = lade_task_source(task),
        .destination = lade_json_text(spec, "destination", NULL),
        .destdir = lade_json_text(spec, "destdir", NULL),
        .filename = lade_json_text(spec, "filename", NULL),
        .sha256 = sha256 && strncmp(sha256, "sha256:", 7) == 0 ? sha256 + 7 : sha256,
        .size = lade_json_int(spec, "size", -1),
        .data = settings->data,
        .models = settings->models_dir,
        .state = lade_task_state(task),
        .progress = s_progress,
        .stop = s_stop,
        .arg = task,
    };
    lade_local_answer_t answer;
    lade_error_t error = {0};
    lade_code_t code = lade_local_step(&request, &answer, &error);
    s_answer(task, &answer, code, &error);
    lade_local_free(&answer);
}
