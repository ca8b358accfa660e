// lade doctor: why is nobody there, and do indexes, records and files agree?
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "common/path.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static json_t *
s_text(const char *text)
{
    return json_stringn_nocheck(text, strlen(text));
}

__attribute__((format(printf, 6, 7))) static void
s_find(json_t *findings, const char *check, const char *severity, const char *where,
       const char *todo, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    json_array_append_new(findings, json_pack("{s:s, s:s, s:o, s:o, s:s, s:b}", "check", check,
                                              "severity", severity, "where", s_text(where), "what",
                                              s_text(what), "todo", todo, "fixable", 0));
}

// ---------------------------------------------------------------------------------------------------
// Why nobody answers

static void
s_check_keys(const lade_config_t *config, json_t *findings)
{
    const struct {
        const char *setting, *path;
        bool folder;
    } files[] = {{"curve.key", config->curve_key, false},
                 {"curve.server", config->curve_server, false},
                 {"curve.clients", config->curve_clients, true}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct stat stat_of;
        if (!*files[i].path)
            continue;
        if (stat(files[i].path, &stat_of) != 0 || access(files[i].path, R_OK) != 0)
            s_find(findings, "curve_key", "error", files[i].path,
                   "copy it there (`lade keys` makes pairs), or correct the setting", "%s: %s",
                   files[i].setting, strerror(errno));
        else if (!S_ISDIR(stat_of.st_mode) != !files[i].folder)
            s_find(findings, "curve_key", "error", files[i].path, "correct the setting",
                   "%s has to be a %s", files[i].setting, files[i].folder ? "folder" : "file");
    }
}

static void
s_check_ipc(const char *endpoint, json_t *findings)
{
    const char *path = endpoint + strlen("ipc://");
    if (access(path, F_OK) != 0)
        s_find(findings, "broker_not_started", "error", endpoint,
               "start one with `lade up`, or name the data folder of one with --data",
               "there is no socket: %s", strerror(errno));
    else if (lade_request_nobody(endpoint))
        s_find(findings, "broker_not_running", "error", endpoint, "start it again with `lade up`",
               "a socket is left of a broker that does not run any more");
    else
        s_find(findings, "broker_silent", "error", endpoint,
               "look at the broker's log; a process that is stopped or overloaded listens and says "
               "nothing",
               "somebody listens there and does not answer");
}

// 0, or why no connection came about.
static int
s_connect(const struct addrinfo *address)
{
    enum { S_WAIT_MS = 3000 };
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    address->ai_protocol);
    if (fd < 0)
        return errno;
    int failed = connect(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
    if (failed == EINPROGRESS) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        socklen_t len = sizeof failed;
        if (poll(&wait, 1, S_WAIT_MS) <= 0)
            failed = ETIMEDOUT;
        else
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len);
    }
    close(fd);
    return failed;
}

static void
s_check_tcp(const lade_config_t *config, const char *endpoint, json_t *findings)
{
    const char *at = endpoint + strlen("tcp://"), *colon = strrchr(at, ':');
    size_t skip = *at == '[', len = colon ? (size_t)(colon - at) : strlen(at);
    char *host = strndup(at + skip, len > 2 * skip ? len - 2 * skip : 0);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(host, colon ? colon + 1 : NULL, &hints, &found);
    int failed = rc ? 0 : s_connect(found);
    bool curve = *config->curve_key || *config->curve_server;
    if (rc)
        s_find(findings, "host_unknown", "error", endpoint, "correct the name, or DNS", "%s: %s",
               host, gai_strerror(rc));
    else if (failed == ECONNREFUSED)
        s_find(findings, "broker_not_running", "error", endpoint,
               "start the broker there, or correct the port",
               "the host is there, and nobody listens on the port");
    else if (failed)
        s_find(findings, "host_unreachable", "error", endpoint,
               "look at the network between, and firewalls", "no connection: %s", strerror(failed));
    else
        s_find(findings, "keys_refused", "error", endpoint,
               curve ? "compare curve.server with the broker's public certificate, and put this "
                       "program's into the broker's curve.clients"
                     : "if the broker has CURVE, set curve.key and curve.server here",
               "somebody listens there and does not answer: %s",
               curve ? "the keys do not fit, or it is no broker of lade"
                     : "it may want CURVE, and no keys are set here, or it is no broker of lade");
    if (found)
        freeaddrinfo(found);
    free(host);
}

static void
s_why_nobody(const lade_cli_t *cli, json_t *findings)
{
    const char *endpoint = lade_request_endpoint(cli->client);
    s_check_keys(cli->config, findings);
    if (strncmp(endpoint, "ipc://", 6) == 0)
        s_check_ipc(endpoint, findings);
    else if (strncmp(endpoint, "tcp://", 6) == 0)
        s_check_tcp(cli->config, endpoint, findings);
    else
        s_find(findings, "broker_silent", "error", endpoint, "name another endpoint",
               "nobody answers there");
}

// ---------------------------------------------------------------------------------------------------
// What the broker says of itself and its workers

static bool
s_has_kind(const json_t *workers, const char *kind)
{
    for (size_t i = 0; i < json_array_size(workers); i++) {
        const json_t *kinds = json_object_get(json_array_get(workers, i), "kinds");
        for (size_t k = 0; k < json_array_size(kinds); k++)
            if (strcmp(json_string_value(json_array_get(kinds, k)), kind) == 0)
                return true;
    }
    return false;
}

static void
s_check_versions(const json_t *status, const json_t *workers, json_t *findings)
{
    static const char *const kinds[][2] = {
        {"download", "lade-download"}, {"install", "lade-install"}, {"load", "lade-gpu"}};
    const char *version = lade_json_text(status, "version", "?");
    if (strcmp(version, LADE_VERSION) != 0)
        s_find(findings, "version", "warning", "lade", "install the same version everywhere",
               "this command is %s, the broker is %s", LADE_VERSION, version);
    for (size_t i = 0; i < json_array_size(workers); i++) {
        const json_t *worker = json_array_get(workers, i);
        const char *own = lade_json_text(worker, "version", "");
        if (*own && strcmp(own, version) != 0)
            s_find(findings, "version", "warning", lade_json_text(worker, "name", "?"),
                   "install the same version everywhere", "the worker is %s, the broker is %s", own,
                   version);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!s_has_kind(workers, kinds[i][0]))
            s_find(findings, "no_worker", "note", kinds[i][0],
                   "`lade up` starts one of each kind; or start it by itself",
                   "no %s is there, so that such jobs wait", kinds[i][1]);
}

// Tokens in a file that others may read.
static void
s_check_settings(const lade_cli_t *cli, json_t *findings)
{
    const char *named = lade_args_text(&cli->args, "--config-file", getenv("LADE_CONFIG"));
    char *beside = lade_path_join(cli->config->data, "lade.yaml");
    const char *file = named ? named : beside;
    struct stat stat_of;
    if ((*cli->config->hub_token || cli->config->remote_tokens.count) &&
        stat(file, &stat_of) == 0 && (stat_of.st_mode & 077))
        s_find(findings, "settings_open", "warning", file, "chmod 600, or use token_file",
               "others may read the file, and there are tokens in it");
    free(beside);
}

static bool
s_on_progress(void *arg, int64_t done, int64_t total)
{
    const lade_cli_t *cli = arg;
    if (!cli->quiet)
        fprintf(stderr, "\r%" PRId64 " of %" PRId64 " models\033[K", done, total);
    return true;
}

static lade_code_t
s_check(lade_cli_t *cli, bool fix, json_t **result_p, lade_error_t *error)
{
    bool shown = !cli->json && isatty(STDERR_FILENO);
    char *text = NULL;
    lade_code_t code =
        lade_check(cli->client, fix, shown ? s_on_progress : NULL, cli, &text, error);
    if (shown)
        fputs("\r\033[K", stderr);
    *result_p = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return code;
}

static lade_code_t
s_examine(lade_cli_t *cli, json_t *findings, json_t *report, lade_error_t *error)
{
    json_t *status = NULL, *workers = NULL, *result = NULL, *fixed = json_array();
    lade_code_t code = lade_cli_call(cli, "broker", "status", NULL, &status, error);
    if (!code)
        code = lade_cli_call(cli, "broker", "workers", NULL, &workers, error);
    if (!code)
        s_check_versions(status, workers, findings);
    if (!code && lade_args_flag(&cli->args, "--fix")) {
        code = s_check(cli, true, &result, error);
        json_array_extend(fixed, json_object_get(result, "fixed"));
        json_decref(result);
        result = NULL;
    }
    if (!code)
        code = s_check(cli, false, &result, error);
    if (!code) {
        json_array_extend(findings, json_object_get(result, "findings"));
        json_object_del(result, "findings");
        json_object_del(result, "fixed");
        json_object_update(report, result);
    }
    json_object_set_new(report, "fixed", fixed);
    json_decref(status);
    json_decref(workers);
    json_decref(result);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Telling

static void
s_print(const lade_cli_t *cli, const json_t *report)
{
    const json_t *findings = json_object_get(report, "findings"),
                 *fixed = json_object_get(report, "fixed"),
                 *disks = json_object_get(report, "disks"),
                 *keyspace = json_object_get(report, "keyspace");
    char one[LADE_SHOW_SIZE], other[LADE_SHOW_SIZE];
    for (size_t i = 0; i < json_array_size(fixed); i++) {
        char *said = lade_show_clean(json_string_value(json_array_get(fixed, i)), 0, false);
        printf("fixed    %s\n", said);
        free(said);
    }
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const json_t *finding = json_array_get(findings, i);
        char *where = lade_show_clean(lade_json_text(finding, "where", ""), 0, false);
        char *what = lade_show_wrap(lade_json_text(finding, "what", ""), cli->width, 9);
        char *todo = lade_show_wrap(lade_json_text(finding, "todo", ""), cli->width, 9);
        const char *key = lade_json_text(finding, "key", NULL);
        printf("%-8s %s%s%s%s\n         %s\n         %s\n", lade_json_text(finding, "severity", ""),
               where, key ? "  (" : "", key ? key : "", key ? ")" : "", what, todo);
        free(where);
        free(what);
        free(todo);
    }
    if (keyspace)
        printf("models %" PRId64 ", schema %" PRId64 ", keyspace %s of a map of %s\n",
               lade_json_int(report, "models", 0), lade_json_int(keyspace, "schema", 0),
               lade_show_bytes(lade_json_int(keyspace, "bytes", 0), one),
               lade_show_bytes(lade_json_int(keyspace, "map_bytes", 0), other));
    for (size_t i = 0; i < json_array_size(disks); i++) {
        const json_t *disk = json_array_get(disks, i);
        printf("%s: %s free of %s\n", lade_json_text(disk, "path", ""),
               lade_show_bytes(lade_json_int(disk, "free", 0), one),
               lade_show_bytes(lade_json_int(disk, "bytes", 0), other));
    }
}

static size_t
s_wrong(const json_t *findings)
{
    size_t wrong = 0;
    for (size_t i = 0; i < json_array_size(findings); i++)
        wrong += strcmp(lade_json_text(json_array_get(findings, i), "severity", ""), "note") != 0;
    return wrong;
}

lade_code_t
lade_cmd_doctor_run(lade_cli_t *cli, lade_error_t *error)
{
    json_t *findings = json_array(), *report = json_object();
    s_check_settings(cli, findings);
    lade_code_t code = lade_cli_catch(cli, error);
    if (!code)
        code = s_examine(cli, findings, report, error);
    if (code == LADE_BROKER_UNREACHABLE)
        s_why_nobody(cli, findings);
    else if (code == LADE_CONFIG_ERROR) // keys that are wanted and not there, or no keys
        s_find(findings, "settings", "error", lade_request_endpoint(cli->client),
               "correct the settings", "%s", error->message);
    if (code && code != LADE_BROKER_UNREACHABLE && code != LADE_CONFIG_ERROR) {
        json_decref(findings);
        json_decref(report);
        return code;
    }
    size_t wrong = s_wrong(findings);
    json_object_set_new(report, "findings", findings);
    json_object_set_new(report, "ok", json_boolean(!code && !wrong));
    if (cli->json)
        lade_cli_print_json(json_incref(report));
    else
        s_print(cli, report);
    if (!code && wrong)
        code = lade_error_set(error, LADE_CORRUPT, "something is wrong");
    else if (!code && !cli->json)
        puts("nothing is wrong");
    cli->said = code != LADE_OK;
    json_decref(report);
    return code;
}
