// lade backup, restore.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "common/path.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------
// backup

// As the broker sees it: from here, if it stands here.
static char *
s_absolute(const char *path)
{
    if (*path == '/')
        return strdup(path);
    char *here = getcwd(NULL, 0), *whole = lade_path_join(here ? here : "/", path);
    free(here);
    return whole;
}

static bool
s_on_progress(void *arg, int64_t done, int64_t total)
{
    const lade_cli_t *cli = arg;
    char so_far[LADE_SHOW_SIZE], all[LADE_SHOW_SIZE];
    if (!cli->quiet)
        fprintf(stderr, "\r%s of %s\033[K", lade_show_bytes(done, so_far),
                lade_show_bytes(total > done ? total : done, all));
    return true;
}

lade_code_t
lade_cmd_backup_run(lade_cli_t *cli, lade_error_t *error)
{
    bool shown = !cli->json && isatty(STDERR_FILENO);
    char *text = NULL, *path = s_absolute(cli->words[0]), size[LADE_SHOW_SIZE];
    lade_code_t code = lade_cli_catch(cli, error);
    if (!code)
        code = lade_backup(cli->client, path, lade_args_flag(&cli->args, "--overwrite"),
                           shown ? s_on_progress : NULL, cli, &text, error);
    if (shown)
        fputs("\r\033[K", stderr);
    free(path);
    json_t *result = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    if (code)
        return code;
    if (cli->json)
        lade_cli_print_json(json_incref(result));
    else
        printf("%s  %s, %" PRId64 " models\n", lade_json_text(result, "path", ""),
               lade_show_bytes(lade_json_int(result, "bytes", 0), size),
               lade_json_int(result, "models", 0));
    json_decref(result);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// restore: the broker's program does it, which alone knows the keyspace

static lade_code_t
s_read_all(int fd, json_t **said_p, lade_error_t *error)
{
    lade_buf_t text = LADE_BUF(1 << 20);
    char piece[4096];
    for (ssize_t len = 1; len > 0;) {
        len = read(fd, piece, sizeof piece);
        if (len < 0 && errno == EINTR)
            len = 1;
        else if (len > 0)
            lade_buf_add(&text, piece, (size_t)len, NULL);
    }
    *said_p = json_loads(lade_buf_text(&text), 0, NULL);
    lade_buf_free(&text);
    return *said_p ? LADE_OK
                   : lade_error_set(error, LADE_INTERNAL, "lade-broker ended without a word");
}

static lade_code_t
s_run_broker(const char *const *argv, json_t **said_p, lade_error_t *error)
{
    int ends[2], status = 0;
    pid_t pid;
    *said_p = NULL;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return lade_error_errno(error, errno, "no pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    int failed = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    lade_code_t code = failed ? lade_error_errno(error, failed, "cannot start %s", argv[0])
                              : s_read_all(ends[0], said_p, error);
    close(ends[0]);
    while (!failed && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    const json_t *why = json_object_get(*said_p, "error");
    return code || !why ? code
                        : lade_error_set(error, lade_code_find(lade_json_text(why, "code", "")),
                                         "%s", lade_json_text(why, "message", ""));
}

lade_code_t
lade_cmd_backup_restore(lade_cli_t *cli, lade_error_t *error)
{
    char *program = lade_cli_program("broker");
    if (!program)
        return lade_error_set(
            error, LADE_NOT_FOUND,
            "lade-broker, which restores, is neither beside this program nor in PATH");
    const char *argv[10] = {program, "restore", cli->words[0]}, *file;
    size_t count = 3;
    if (lade_args_flag(&cli->args, "--force"))
        argv[count++] = "--force";
    argv[count++] = "--data";
    argv[count++] = cli->config->data;
    file = lade_args_text(&cli->args, "--config-file", NULL);
    if (file) {
        argv[count++] = "--config-file";
        argv[count++] = file;
    }
    json_t *said;
    lade_code_t code = s_run_broker(argv, &said, error);
    if (!code && cli->json)
        lade_cli_print_json(json_incref(said));
    else if (!code) {
        const char *aside = lade_json_text(said, "aside", NULL);
        printf("restored %" PRId64 " models into %s\n", lade_json_int(said, "models", 0),
               lade_json_text(said, "data", ""));
        if (aside)
            printf("what was there is kept in %s\n", aside);
    }
    json_decref(said);
    free(program);
    return code;
}
