// The engine against the test hub (tests/hub/hub.py, a real HTTP server with faults on demand):
// what its tests share. Run them from the repository's root.
#ifndef LADE_ENGINE_FIXTURE_H
#define LADE_ENGINE_FIXTURE_H

#include "workers/download/engine.h"

#include "common/path.h"
#include "common/wire.h"
#include "workers/download/digest.h"

#include <curl/curl.h>
#include <czmq.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { S_DEADLINE_S = 60, S_BIG = 3 << 20, S_SMALL = 1000 };

// The hub, once for all tests.
typedef struct {
    char root[64];
    pid_t pid;
    int port, cdn_port;
    char big_sha256[65], small_sha256[65];
    char large_sha256[65], other_sha256[65]; // files of some tests only
} s_hub_t;

typedef struct {
    s_hub_t *hub;
    lade_config_t config;
    lade_engine_t *engine;
    char folder[64]; // where files go
    char url[256];

    pthread_mutex_t lock;
    pthread_cond_t news;
    bool ended;
    lade_error_t error;
    double retry_after_s;
    int64_t bytes, total, resumed_from, told;
    size_t tells;
    char phases[128]; // in order, with a blank after each
    int64_t confirmed;
    char path[256], sha256[65], etag[128], final_url[256], content_type[64], gate[256];
    double gate_s;
    int64_t stop_at; // at this many bytes the transfer is stopped
    lade_engine_stop_t stop_how;
    int64_t ticket;
    int report_fd; // a child tells its bytes here
} s_fixture_t;

// ---------------------------------------------------------------------------------------------------
// The hub

static inline void
s_make_file(const char *root, const char *name, size_t size, unsigned seed, char sha256[65])
{
    char path[256];
    snprintf(path, sizeof path, "%s/files/%s", root, name);
    char *bytes = malloc(size + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1103515245 + 12345;
        bytes[i] = (char)(seed >> 16);
    }
    assert_int_equal(lade_path_write(path, bytes, size, 0644, NULL), LADE_OK);
    free(bytes);
    if (sha256)
        assert_int_equal(lade_digest_file(path, NULL, NULL, sha256, NULL), LADE_OK);
}

static inline int
s_start_hub(void **state)
{
    s_hub_t *hub = calloc(1, sizeof *hub);
    const char *tmp = getenv("TMPDIR");
    snprintf(hub->root, sizeof hub->root, "%s/lade-hub-XXXXXX",
             tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    assert_non_null(mkdtemp(hub->root));
    char files[128];
    snprintf(files, sizeof files, "%s/files", hub->root);
    assert_int_equal(mkdir(files, 0755), 0);
    s_make_file(hub->root, "big.safetensors", S_BIG, 1, hub->big_sha256);
    s_make_file(hub->root, "small.json", S_SMALL, 2, hub->small_sha256);
    s_make_file(hub->root, "empty.txt", 0, 3, NULL);
    int out[2];
    assert_int_equal(pipe(out), 0);
    hub->pid = fork();
    if (hub->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        execl("/usr/bin/python3", "python3", "tests/hub/hub.py", "--root", hub->root, NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *line = fdopen(out[0], "r");
    if (fscanf(line, "listening on %d %d", &hub->port, &hub->cdn_port) != 2)
        fail_msg("the test hub does not start; run this from the repository's root");
    fclose(line);
    *state = hub;
    return 0;
}

static inline int
s_stop_hub(void **state)
{
    s_hub_t *hub = *state;
    kill(hub->pid, SIGKILL);
    waitpid(hub->pid, NULL, 0);
    lade_path_remove(hub->root, NULL);
    free(hub);
    return 0;
}

static inline size_t
s_collect(char *data, size_t size, size_t count, void *arg)
{
    return lade_buf_add(arg, data, size * count, NULL) ? 0 : count;
}

// One control request; the answer is yours. body NULL: as method says.
static inline json_t *
s_control(s_fixture_t *f, const char *method, const char *what, const char *body)
{
    char url[128];
    lade_buf_t answer = LADE_BUF(16 << 20);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/_control/%s", f->hub->port, what);
    CURL *easy = curl_easy_init();
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    if (body)
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, s_collect);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
    assert_int_equal(curl_easy_perform(easy), CURLE_OK);
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200)
        fail_msg("the hub answers %s", lade_buf_text(&answer));
    curl_easy_cleanup(easy);
    json_t *value = json_loads(lade_buf_text(&answer), JSON_DECODE_ANY, NULL);
    lade_buf_free(&answer);
    return value;
}

static inline void
s_fault(s_fixture_t *f, const char *rule)
{
    json_decref(s_control(f, "POST", "faults", rule));
}

static inline void
s_throttle(s_fixture_t *f, int bytes_per_s)
{
    char body[64];
    snprintf(body, sizeof body, "{\"throttle\": %d}", bytes_per_s);
    json_decref(s_control(f, "POST", "settings", body));
}

// The nth file request, counted from the last when negative; and how many there were.
static inline json_t *
s_request(s_fixture_t *f, int which, size_t *count_p)
{
    json_t *log = s_control(f, "GET", "log", NULL), *requests = json_object_get(log, "requests");
    size_t count = json_array_size(requests);
    if (count_p)
        *count_p = count;
    json_t *request =
        json_incref(json_array_get(requests, which < 0 ? count + which : (size_t)which));
    json_decref(log);
    return request;
}

static inline size_t
s_request_count(s_fixture_t *f)
{
    size_t count;
    json_decref(s_request(f, -1, &count));
    return count;
}

// ---------------------------------------------------------------------------------------------------
// The fixture

static inline void
s_on_progress(void *arg, int64_t bytes, int64_t total, const char *path)
{
    s_fixture_t *f = arg;
    pthread_mutex_lock(&f->lock);
    f->told = bytes;
    f->total = total;
    f->tells++;
    snprintf(f->path, sizeof f->path, "%s", path ? path : "");
    if (f->stop_at && bytes >= f->stop_at)
        lade_engine_stop(f->engine, f->ticket, f->stop_how);
    if (f->report_fd && write(f->report_fd, &bytes, sizeof bytes) < 0)
        _exit(1);
    pthread_cond_broadcast(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static inline void
s_copy(char *where, size_t size, const char *text)
{
    snprintf(where, size, "%s", text ? text : "");
}

static inline void
s_on_end(void *arg, const lade_outcome_t *outcome)
{
    s_fixture_t *f = arg;
    pthread_mutex_lock(&f->lock);
    f->error = outcome->error;
    f->retry_after_s = outcome->retry_after_s;
    f->bytes = outcome->bytes;
    f->resumed_from = outcome->resumed_from;
    s_copy(f->path, sizeof f->path, outcome->path);
    s_copy(f->sha256, sizeof f->sha256, outcome->sha256);
    s_copy(f->etag, sizeof f->etag, outcome->etag);
    s_copy(f->final_url, sizeof f->final_url, outcome->final_url);
    s_copy(f->content_type, sizeof f->content_type, outcome->content_type);
    f->ended = true;
    pthread_cond_broadcast(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static inline void
s_on_phase(void *arg, const char *phase, const char *reason)
{
    s_fixture_t *f = arg;
    (void)reason;
    pthread_mutex_lock(&f->lock);
    size_t len = strlen(f->phases);
    snprintf(f->phases + len, sizeof f->phases - len, "%s ", phase);
    pthread_mutex_unlock(&f->lock);
}

static inline void
s_on_confirm(void *arg, int64_t connections)
{
    s_fixture_t *f = arg;
    pthread_mutex_lock(&f->lock);
    f->confirmed = connections;
    pthread_cond_broadcast(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static inline void
s_on_closed(void *arg, const char *host, double seconds, const char *message)
{
    s_fixture_t *f = arg;
    (void)message;
    pthread_mutex_lock(&f->lock);
    s_copy(f->gate, sizeof f->gate, host);
    f->gate_s = seconds;
    pthread_cond_broadcast(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static const lade_engine_ops_t s_ops = {.progress = s_on_progress,
                                        .phase = s_on_phase,
                                        .confirm = s_on_confirm,
                                        .closed = s_on_closed,
                                        .end = s_on_end};

static inline void
s_new_engine(s_fixture_t *f)
{
    assert_int_equal(lade_engine_new(&f->engine, &f->config, &s_ops, NULL), LADE_OK);
}

static inline int
s_setup(void **state)
{
    s_fixture_t *f = calloc(1, sizeof *f);
    f->hub = *state;
    const char *tmp = getenv("TMPDIR");
    snprintf(f->folder, sizeof f->folder, "%s/lade-engine-XXXXXX",
             tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->folder));
    lade_error_t error;
    assert_int_equal(lade_config_load(&f->config, "", f->folder, &error), LADE_OK);
    assert_int_equal(lade_config_set(&f->config, "download.checkpoint_mb", "1", &error), LADE_OK);
    assert_int_equal(lade_config_set(&f->config, "download.stall_s", "2", &error), LADE_OK);
    assert_int_equal(lade_config_set(&f->config, "download.connect_timeout_s", "2", &error),
                     LADE_OK);
    assert_int_equal(lade_config_set(&f->config, "download.allow_addresses", "127.0.0.0/8", &error),
                     LADE_OK);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->news, NULL);
    s_new_engine(f);
    json_decref(s_control(f, "DELETE", "faults", NULL));
    json_decref(s_control(f, "DELETE", "log", NULL));
    s_throttle(f, 0);
    *state = f;
    return 0;
}

static inline int
s_teardown(void **state)
{
    s_fixture_t *f = *state;
    lade_engine_destroy(&f->engine);
    lade_path_remove(f->folder, NULL);
    lade_config_free(&f->config);
    pthread_cond_destroy(&f->news);
    pthread_mutex_destroy(&f->lock);
    *state = f->hub;
    free(f);
    return 0;
}

static inline lade_request_t
s_wanted(s_fixture_t *f, const char *name, const char **urls)
{
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%d/files/%s", f->hub->port, name);
    urls[0] = f->url;
    urls[1] = NULL;
    return (lade_request_t){.id = 7, .attempt = 1, .urls = urls, .destdir = f->folder, .size = -1};
}

static inline void
s_begin(s_fixture_t *f, const lade_request_t *request)
{
    f->ended = false;
    f->tells = 0;
    pthread_mutex_lock(&f->lock);
    f->ticket = lade_engine_add(f->engine, request, f);
    pthread_mutex_unlock(&f->lock);
}

static inline lade_code_t
s_wait(s_fixture_t *f)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += S_DEADLINE_S;
    pthread_mutex_lock(&f->lock);
    while (!f->ended)
        if (pthread_cond_timedwait(&f->news, &f->lock, &until) != 0)
            fail_msg("the transfer does not end");
    pthread_mutex_unlock(&f->lock);
    return f->error.code;
}

static inline lade_code_t
s_fetch(s_fixture_t *f, const lade_request_t *request)
{
    s_begin(f, request);
    return s_wait(f);
}

#define S_OK(f, call)                                                                              \
    do {                                                                                           \
        if ((call) != LADE_OK)                                                                     \
            fail_msg("%s: %s", lade_code_name((f)->error.code), (f)->error.message);               \
    } while (0)

// How many names there are in the folder, hidden ones included.
static inline size_t
s_names(s_fixture_t *f)
{
    size_t count = 0;
    DIR *folder = opendir(f->folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(folder);
    return count;
}

static inline bool
s_there(s_fixture_t *f, const char *name)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    return lstat(path, &st) == 0;
}

// The final file, and nothing else, with that digest.
static inline void
s_check_file(s_fixture_t *f, const char *name, const char *sha256)
{
    char path[256], hex[65];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    assert_int_equal(lade_digest_file(path, NULL, NULL, hex, NULL), LADE_OK);
    assert_string_equal(hex, sha256);
    assert_int_equal(s_names(f), 1);
}

// Fetches part of the big file and stops it that way, with one checkpoint at least.
static inline void
s_fetch_part(s_fixture_t *f, lade_request_t *request, lade_engine_stop_t how, lade_code_t code)
{
    s_throttle(f, 8 << 20);
    f->stop_at = 3 << 19;
    f->stop_how = how;
    assert_int_equal(s_fetch(f, request), code);
    f->stop_at = 0;
    s_throttle(f, 0);
    json_decref(s_control(f, "DELETE", "log", NULL));
    request->attempt++;
}

// A process that fetches, tells its bytes, and is killed after so many; as many as it told.
static inline int64_t
s_kill_at(s_fixture_t *f, const lade_request_t *request, int64_t bytes)
{
    int tells[2];
    assert_int_equal(pipe(tells), 0);
    lade_engine_destroy(&f->engine); // no threads while we fork
    pid_t child = fork();
    if (child == 0) {
        f->report_fd = tells[1];
        s_new_engine(f);
        s_begin(f, request);
        s_wait(f);
        _exit(0);
    }
    close(tells[1]);
    int64_t told = 0;
    while (told < bytes && read(tells[0], &told, sizeof told) == sizeof told)
        ;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(tells[0]);
    assert_true(told >= bytes);
    s_new_engine(f);
    return told;
}

#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

#endif
