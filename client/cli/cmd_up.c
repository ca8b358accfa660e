// lade up: a broker and workers in the foreground, kept alive, in one data folder.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "common/path.h"
#include "common/wire.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    S_READY_MS = 30000,     // for a process to be ready after its start
    S_FIRST_DELAY_MS = 100, // before the first restart; doubles
    S_MOST_DELAY_MS = 10000,
    S_STEADY_MS = 10000, // alive for so long: the delay starts anew
    S_WORKER_GRACE_MS = 15000,
    S_BROKER_GRACE_MS = 10000,
};

// The broker is the first: it starts first and ends last. The keeper is the last: of all but it the
// broker knows, and it is not needed without gpu.
static const char *const s_names[] = {"broker", "download", "install", "gpu", "keeper"};
enum {
    S_CHILDREN = sizeof s_names / sizeof *s_names,
    S_GPU = S_CHILDREN - 2,
    S_KEEPER = S_CHILDREN - 1,
};

typedef struct {
    const char *name; // NULL: left out
    char *path;
    pid_t pid; // 0: not running
    int64_t started_ms, restart_ms, delay_ms;
} s_child_t;

typedef struct {
    lade_cli_t *cli;
    lade_config_t config;
    lade_t *client;
    s_child_t children[S_CHILDREN];
    sigset_t old_mask;
    int signals; // SIGCHLD, SIGINT, SIGTERM
    int lock;
    int64_t seq; // of the last event that was told; -1: none
    bool ready, stop, hurry;
} s_up_t;

// ---------------------------------------------------------------------------------------------------
// Saying what happens

static void
s_tell(const s_up_t *self, const char *event, const char *name, pid_t pid, const char *words)
{
    if (self->cli->json)
        lade_cli_print_json(json_pack("{s:s, s:s*, s:I, s:s*}", "event", event, "name", name, "pid",
                                      (json_int_t)pid, "why", words));
    else
        lade_cli_say(self->cli, "lade up: lade-%s %s%s%s%s", name, event, words ? " (" : "",
                     words ? words : "", words ? ")" : "");
}

static void
s_tell_ready(const s_up_t *self)
{
    const lade_config_t *config = &self->config;
    if (self->cli->json) {
        json_t *processes = json_object();
        for (size_t i = 0; i < S_CHILDREN; i++)
            if (self->children[i].name)
                json_object_set_new(processes, self->children[i].name,
                                    json_integer(self->children[i].pid));
        lade_cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "event", "ready", "data",
                                      config->data, "clients", config->clients, "workers",
                                      config->workers, "events", config->events, "processes",
                                      processes));
        return;
    }
    const char *data = lade_args_text(&self->cli->args, "--data", NULL);
    const char *file = lade_args_text(&self->cli->args, "--config-file", NULL);
    char options[1024];
    snprintf(options, sizeof options, "%s%s%s%s", data ? " --data " : "", data ? data : "",
             file ? " --config-file " : "", file ? file : "");
    printf("lade is up in %s\n"
           "  requests  %s\n"
           "  events    %s\n"
           "  models    %s\n"
           "In another terminal:\n"
           "  lade%s install SOURCE\n"
           "  lade%s watch\n"
           "Ctrl-C ends it.\n",
           config->data, config->clients, config->events, config->models_dir, options, options);
    fflush(stdout);
}

// ---------------------------------------------------------------------------------------------------
// Settings, the lock, the programs

// Children read the settings as we do: given ones travel in the environment, which is over the
// file.
static lade_code_t
s_take_settings(s_up_t *self, lade_error_t *error)
{
    const lade_args_t *args = &self->cli->args;
    const char *text;
    for (size_t i = 0; (text = lade_args_each(args, "--set", i)); i++) {
        char name[128] = "LADE_";
        const char *equals = strchr(text, '=');
        size_t len = strlen(name), key_len = equals ? (size_t)(equals - text) : 0;
        if (!equals || key_len == 0 || key_len > 100)
            return lade_error_set(error, LADE_USAGE, "--set %s: wants KEY=VALUE", text);
        char *key = strndup(text, key_len);
        // Tells an unknown key and a bad value; the environment would pass over the former in
        // silence.
        lade_config_t scratch = {0};
        lade_code_t code = lade_config_load(&scratch, lade_args_text(args, "--config-file", NULL),
                                            lade_args_text(args, "--data", NULL), error);
        if (!code)
            code = lade_config_set(&scratch, key, equals + 1, error);
        lade_config_free(&scratch);
        for (const char *at = key; *at; at++)
            name[len++] = *at == '.' ? '_' : (char)toupper((unsigned char)*at);
        free(key);
        if (code)
            return code;
        setenv(name, equals + 1, 1);
    }
    return lade_config_load(&self->config, lade_args_text(args, "--config-file", NULL),
                            lade_args_text(args, "--data", NULL), error);
}

static lade_code_t
s_take_lock(s_up_t *self, lade_error_t *error)
{
    lade_code_t code = lade_config_make_folders(&self->config, error);
    if (code)
        return code;
    char *path = lade_path_join(self->config.data, "up.lock"), holder[32] = "";
    self->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (self->lock < 0)
        code = lade_error_errno(error, errno, "cannot open %s", path);
    else if (flock(self->lock, LOCK_EX | LOCK_NB) != 0) {
        ssize_t len = pread(self->lock, holder, sizeof holder - 1, 0);
        holder[len > 0 ? strcspn(holder, "\n") : 0] = '\0';
        code = lade_error_set(
            error, LADE_BUSY,
            "`lade up` runs on %s already (process %s): use that one, end it, or give another "
            "folder with --data",
            self->config.data, *holder ? holder : "unknown");
    } else if (ftruncate(self->lock, 0) != 0 || dprintf(self->lock, "%d\n", (int)getpid()) < 0)
        code = lade_error_errno(error, errno, "cannot write %s", path);
    free(path);
    if (!code && strncmp(self->config.clients, "ipc://", 6) == 0 &&
        access(self->config.clients + 6, F_OK) == 0 && !lade_request_nobody(self->config.clients))
        code = lade_error_set(
            error, LADE_BUSY,
            "a broker listens on %s already: end it, or give another folder with --data",
            self->config.clients);
    return code;
}

static bool
s_in_list(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

static lade_code_t
s_check_without(const lade_args_t *args, lade_error_t *error)
{
    const char *list;
    for (size_t i = 0; (list = lade_args_each(args, "--without", i)); i++)
        for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
            char word[32];
            snprintf(word, sizeof word, "%.*s", (int)strcspn(at, ","), at);
            bool known = false;
            for (size_t c = 1; c < S_KEEPER; c++)
                known = known || strcmp(word, s_names[c]) == 0;
            if (!known)
                return lade_error_set(error, LADE_USAGE,
                                      "--without: '%s' is not download, install or gpu", word);
        }
    return LADE_OK;
}

static lade_code_t
s_find_programs(s_up_t *self, lade_error_t *error)
{
    const lade_args_t *args = &self->cli->args;
    lade_code_t code = s_check_without(args, error);
    for (size_t c = 0; c < S_CHILDREN && !code; c++) {
        bool without = false;
        const char *list;
        for (size_t i = 0; (list = lade_args_each(args, "--without", i)); i++)
            without = without || s_in_list(list, s_names[c]);
        if (c == S_KEEPER)
            without = !self->config.keep_s || !self->children[S_GPU].name;
        if (without)
            continue;
        self->children[c] = (s_child_t){.name = s_names[c], .path = lade_cli_program(s_names[c])};
        if (!self->children[c].path)
            code = lade_error_set(
                error, LADE_NOT_FOUND, "lade-%s is neither beside this program nor in PATH%s%s",
                s_names[c], c ? "; go without it: --without " : "", c ? s_names[c] : "");
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Starting and ending a process

static void
s_exec(const s_up_t *self, const s_child_t *child, pid_t parent)
{
    const char *file = lade_args_text(&self->cli->args, "--config-file", NULL), *argv[6];
    size_t argc = 0;
    argv[argc++] = child->path;
    argv[argc++] = "--data";
    argv[argc++] = self->config.data;
    if (file) {
        argv[argc++] = "--config-file";
        argv[argc++] = file;
    }
    argv[argc] = NULL;
    // Its own group, so that Ctrl-C reaches us alone and the order of the end is ours; and it never
    // outlives us.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(STDERR_FILENO, STDOUT_FILENO); // standard output is for what we say
    sigprocmask(SIG_SETMASK, &self->old_mask, NULL);
    if (getppid() == parent)
        execv(child->path, (char *const *)argv);
    _exit(127);
}

static lade_code_t
s_start(s_up_t *self, s_child_t *child, lade_error_t *error)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return lade_error_errno(error, errno, "cannot start %s", child->path);
    if (pid == 0)
        s_exec(self, child, parent);
    child->pid = pid;
    child->started_ms = lade_mono_ms();
    child->restart_ms = 0;
    return LADE_OK;
}

static void
s_describe_end(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "killed by signal %d, %s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

// Takes note of every child that has ended. words is filled with how the last one did.
static s_child_t *
s_reap(s_up_t *self, char *words, size_t size)
{
    s_child_t *ended = NULL;
    for (size_t i = 0; i < S_CHILDREN; i++) {
        s_child_t *child = &self->children[i];
        int status;
        if (child->pid == 0 || waitpid(child->pid, &status, WNOHANG) != child->pid)
            continue;
        int64_t now = lade_mono_ms();
        s_describe_end(status, words, size);
        child->pid = 0;
        ended = child;
        if (self->stop)
            continue;
        child->delay_ms = now - child->started_ms > S_STEADY_MS || !child->delay_ms
                              ? S_FIRST_DELAY_MS
                              : child->delay_ms * 2;
        child->delay_ms = child->delay_ms > S_MOST_DELAY_MS ? S_MOST_DELAY_MS : child->delay_ms;
        child->restart_ms = now + child->delay_ms;
        s_tell(self, "ended", child->name, 0, words);
    }
    return ended;
}

static void
s_take_signals(s_up_t *self)
{
    struct signalfd_siginfo info;
    while (read(self->signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD) {
            self->hurry = self->stop; // the second one
            self->stop = true;
        }
}

// ---------------------------------------------------------------------------------------------------
// Until everything is there

// Looks at signals and ends. LADE_CANCELLED after Ctrl-C; an error if a process ended before all
// were ready.
static lade_code_t
s_check(s_up_t *self, lade_error_t *error)
{
    char words[96];
    s_take_signals(self);
    if (self->stop)
        return lade_error_set(error, LADE_CANCELLED, "interrupted");
    s_child_t *ended = s_reap(self, words, sizeof words);
    if (ended)
        return lade_error_set(error, LADE_WORKER_LOST,
                              "lade-%s ended before it was ready (%s); it says why above",
                              ended->name, words);
    return LADE_OK;
}

static lade_code_t
s_ask(s_up_t *self, const char *op, json_t **answer_p)
{
    return lade_request_json(self->client, "broker", op, NULL, NULL, NULL, answer_p, NULL);
}

static bool
s_listed(const json_t *workers, pid_t pid)
{
    for (size_t i = 0; i < json_array_size(workers); i++)
        if (lade_json_int(json_array_get(workers, i), "pid", 0) == pid)
            return true;
    return false;
}

// The broker answers; and, once they are started, so do the workers to it.
static bool
s_all_there(s_up_t *self)
{
    json_t *workers = NULL;
    bool there = s_ask(self, "workers", &workers) == LADE_OK;
    for (size_t i = 1; i < S_KEEPER && there; i++)
        there = !self->children[i].pid || s_listed(workers, self->children[i].pid);
    json_decref(workers);
    return there;
}

static lade_code_t
s_await(s_up_t *self, lade_error_t *error)
{
    int64_t deadline = lade_mono_ms() + S_READY_MS;
    lade_code_t code = s_check(self, error);
    while (!code && !s_all_there(self)) {
        poll(&(struct pollfd){.fd = self->signals, .events = POLLIN}, 1, 20);
        code = s_check(self, error);
        if (!code && lade_mono_ms() > deadline)
            code = lade_error_set(error, LADE_TIMEOUT, "not everything was ready within %d s",
                                  S_READY_MS / 1000);
    }
    return code;
}

static lade_code_t
s_bring_up(s_up_t *self, lade_error_t *error)
{
    lade_code_t code = s_start(self, &self->children[0], error);
    if (!code)
        code = s_await(self, error);
    // The keeper before who looks for it.
    for (size_t i = S_KEEPER; i >= 1 && !code; i--)
        if (self->children[i].name)
            code = s_start(self, &self->children[i], error);
    if (!code)
        code = s_await(self, error);
    if (!code)
        s_tell_ready(self);
    self->ready = !code;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// While it runs, and its end

// Starts what is due; returns how long nothing else is, at most most_ms.
static int
s_restart_due(s_up_t *self, int64_t most_ms)
{
    int64_t now = lade_mono_ms(), least = most_ms;
    for (size_t i = 0; i < S_CHILDREN; i++) {
        s_child_t *child = &self->children[i];
        if (!child->name || child->pid)
            continue;
        if (child->restart_ms <= now) {
            lade_error_t error = {0};
            if (s_start(self, child, &error)) {
                child->restart_ms = now + S_MOST_DELAY_MS;
                lade_cli_complain("up", &error);
            } else
                s_tell(self, "started again", child->name, child->pid, NULL);
        } else if (child->restart_ms - now < least)
            least = child->restart_ms - now;
    }
    return (int)least;
}

static bool
s_on_event(void *arg, const char *text)
{
    s_up_t *self = arg;
    json_t *event = json_loads(text, JSON_ALLOW_NUL, NULL);
    if (event) {
        lade_cmd_watch_print(self->cli, event);
        fflush(stdout);
        self->seq = lade_json_int(event, "seq", self->seq);
    }
    json_decref(event);
    return true;
}

// Tells what came of the models until a signal comes. False if there is no broker to tell of it.
static bool
s_tell_events(s_up_t *self)
{
    static const char *const telling[] = {"model_record_",    "model_install_error",
                                          "model_load_error", "worker_lost",
                                          "job_dead",         NULL};
    lade_code_t code = lade_watch(self->client, telling, self->seq, s_on_event, self, 0, NULL);
    if (code != LADE_CANCELLED)
        self->seq = -1; // from the newest on: the journal may not hold what was missed
    return code == LADE_CANCELLED;
}

static void
s_keep_up(s_up_t *self)
{
    enum { S_LONG_MS = 60000, S_RETRY_MS = 1000 };
    char words[96];
    while (!self->stop) {
        int wait_ms = s_restart_due(self, S_LONG_MS);
        bool tell = wait_ms == S_LONG_MS && !self->cli->json && !self->cli->quiet;
        if (!tell || !s_tell_events(self))
            poll(&(struct pollfd){.fd = self->signals, .events = POLLIN}, 1,
                 tell ? S_RETRY_MS : wait_ms);
        s_take_signals(self);
        s_reap(self, words, sizeof words);
    }
}

// Ends the children from first to before end: asks, waits, and after the grace does not ask.
static void
s_end(s_up_t *self, size_t first, size_t end, int64_t grace_ms)
{
    char words[96];
    int64_t deadline = lade_mono_ms() + grace_ms;
    bool killed = false;
    for (size_t i = first; i < end; i++)
        if (self->children[i].pid)
            kill(self->children[i].pid, SIGTERM);
    while (true) {
        size_t left = 0;
        s_take_signals(self);
        s_reap(self, words, sizeof words);
        bool kill_now = !killed && (self->hurry || lade_mono_ms() > deadline);
        for (size_t i = first; i < end; i++) {
            left += self->children[i].pid != 0;
            if (kill_now && self->children[i].pid)
                kill(-self->children[i].pid, SIGKILL);
        }
        killed = killed || kill_now;
        if (!left)
            return;
        poll(&(struct pollfd){.fd = self->signals, .events = POLLIN}, 1, 100);
    }
}

static void
s_bring_down(s_up_t *self)
{
    self->stop = true;
    if (self->ready && !self->cli->json)
        lade_cli_say(
            self->cli,
            "\nlade up: ending the workers, then the broker; unfinished jobs go on next time");
    s_end(self, 1, S_CHILDREN, S_WORKER_GRACE_MS);
    s_end(self, 0, 1, S_BROKER_GRACE_MS);
    if (self->ready && self->cli->json)
        lade_cli_print_json(json_pack("{s:s}", "event", "stopped"));
}

static lade_code_t
s_open_signals(s_up_t *self, lade_error_t *error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &self->old_mask);
    self->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return self->signals >= 0 ? LADE_OK
                              : lade_error_errno(error, errno, "no descriptor for signals");
}

static lade_code_t
s_prepare(s_up_t *self, lade_error_t *error)
{
    const lade_args_t *args = &self->cli->args;
    lade_code_t code = s_take_settings(self, error);
    // We say what came of the models; of the processes people want to know what is wrong.
    if (!code && !*self->config.log_level)
        setenv("LADE_LOG_LEVEL", "warning", 1);
    if (!code)
        code = s_find_programs(self, error);
    if (!code)
        code = s_take_lock(self, error);
    if (!code)
        code = s_open_signals(self, error);
    if (!code)
        code = lade_open(lade_args_text(args, "--config-file", NULL), self->config.data,
                         self->config.clients, &self->client, error);
    if (!code)
        lade_request_set_stop(self->client, self->signals);
    return code;
}

lade_code_t
lade_cmd_up_run(lade_cli_t *cli, lade_error_t *error)
{
    s_up_t self = {.cli = cli, .signals = -1, .lock = -1, .seq = -1};
    lade_code_t code = s_prepare(&self, error);
    if (!code) {
        code = s_bring_up(&self, error);
        if (code && !cli->json && code != LADE_CANCELLED) { // the help of its code is about jobs
            fprintf(stderr, "lade: %s\n", error->message);
            cli->said = true;
        }
        if (!code)
            s_keep_up(&self);
        lade_close(&self.client);
        s_bring_down(&self);
    }
    for (size_t i = 0; i < S_CHILDREN; i++)
        free(self.children[i].path);
    if (self.signals >= 0)
        close(self.signals);
    if (self.lock >= 0)
        close(self.lock);
    lade_close(&self.client);
    lade_config_free(&self.config);
    return code == LADE_CANCELLED ? LADE_OK : code;
}
