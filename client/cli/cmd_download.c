// lade download.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "client/cli/submit.h"
#include "common/path.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { S_MAX_LIST = 64 << 20 }; // bytes of a --multi file

static json_t *
s_text(const char *text)
{
    return json_stringn_nocheck(text, strlen(text));
}

static void
s_print_downloaded(const lade_follow_t *follow, size_t i, lade_buf_t *text)
{
    const json_t *job = lade_follow_job(follow, i);
    const char *path = lade_json_text(job, "download_path", NULL);
    if (!path || strcmp(lade_json_text(job, "status", ""), "completed") != 0) {
        lade_submit_print_queued(follow, i, text);
        return;
    }
    char size[LADE_SHOW_SIZE], *clean = lade_show_clean(path, 0, false);
    int64_t bytes = lade_json_int(job, "bytes", 0);
    lade_buf_addf(text, NULL, "%s  %s\n", clean, lade_show_bytes(bytes, size));
    free(clean);
}

// ---------------------------------------------------------------------------------------------------
// What is asked for

// What can be said of one file only.
static lade_code_t
s_add_of_one(const lade_cli_t *cli, json_t *args, lade_error_t *error)
{
    static const char *const texts[][2] = {
        {"--filename", "filename"}, {"--name", "filename"}, {"--sha256", "sha256"}};
    static const char *const all[] = {"--filename", "--name", "--sha256", "--size", "--mirror"};
    bool multi = lade_args_flag(&cli->args, "--multi");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (lade_args_flag(&cli->args, all[i]) && (cli->word_count > 1 || multi))
            return lade_error_set(error, LADE_USAGE, "%s is for one source, several are given",
                                  all[i]);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *value = lade_args_text(&cli->args, texts[i][0], NULL);
        if (value)
            json_object_set_new(args, texts[i][1], s_text(value));
    }
    if (lade_args_flag(&cli->args, "--size"))
        json_object_set_new(args, "size",
                            json_integer((json_int_t)lade_args_number(&cli->args, "--size", 0)));
    return LADE_OK;
}

static lade_code_t
s_add_dest(const lade_cli_t *cli, json_t *args, lade_error_t *error)
{
    const char *dest = lade_args_text(&cli->args, "--dest", NULL);
    if (!dest)
        return lade_error_set(error, LADE_USAGE, "--dest DIR is missing: where do the files go?");
    lade_code_t code = lade_path_mkdirs(dest, 0755, error);
    char *whole = code ? NULL : realpath(dest, NULL);
    if (!code && !whole)
        code = lade_error_set(error, LADE_NOT_FOUND, "--dest %s is no folder", dest);
    if (whole)
        json_object_set_new(args, "destdir", s_text(whole));
    free(whole);
    return code;
}

static lade_code_t
s_args(const lade_cli_t *cli, json_t **args_p, lade_error_t *error)
{
    json_t *args = *args_p = json_object();
    int64_t rate = lade_args_bytes(&cli->args, "--rate", 0);
    lade_code_t code = s_add_of_one(cli, args, error);
    if (!code)
        code = s_add_dest(cli, args, error);
    if (rate > 0)
        json_object_set_new(args, "bytes_per_s", json_integer((json_int_t)rate));
    if (lade_args_flag(&cli->args, "--preserve"))
        json_object_set_new(args, "preserve_partial_downloads", json_true());
    if (lade_args_flag(&cli->args, "--paused"))
        json_object_set_new(args, "start", json_false());
    lade_submit_add_priority(cli, args);
    return code ? code : lade_submit_add_token(cli, args, error);
}

// ---------------------------------------------------------------------------------------------------
// Sources

// A path of this machine as a worker with another working folder has to have it; a link stays one,
// as what it leads to was not meant to be moved. Everything else as it is.
static char *
s_download_source(const char *word)
{
    if (strstr(word, "://") || access(word, F_OK) != 0)
        return strdup(word);
    char *folder = lade_path_folder(word), *name = lade_path_name(word);
    char *whole = realpath(folder, NULL), *source = whole ? lade_path_join(whole, name) : NULL;
    free(folder);
    free(name);
    free(whole);
    return source ? source : strdup(word);
}

// The source, and --mirror after it.
static json_t *
s_with_mirrors(const lade_cli_t *cli, json_t *source)
{
    const char *mirror = lade_args_each(&cli->args, "--mirror", 0);
    if (!mirror)
        return source;
    json_t *all = json_array();
    json_array_append_new(all, source);
    for (size_t i = 0; (mirror = lade_args_each(&cli->args, "--mirror", i)); i++)
        json_array_append_new(all, s_text(mirror));
    return all;
}

// --multi FILE: a JSON array of {"url", "path", "size"?, "sha256"?}, one job.
static lade_code_t
s_submit_multi(const lade_cli_t *cli, lade_follow_t *follow, const char *list, const json_t *args,
               lade_error_t *error)
{
    char *text;
    size_t len;
    json_error_t where;
    if (cli->word_count)
        return lade_error_set(error, LADE_USAGE, "--multi has its sources in its file");
    if (lade_path_read(list, S_MAX_LIST, &text, &len, error))
        return lade_error_wrap(error, "--multi");
    json_t *files = json_loadb(text, len, 0, &where);
    free(text);
    if (!json_is_array(files)) {
        json_decref(files);
        return lade_error_set(
            error, LADE_USAGE,
            "--multi %s: line %d: a JSON array of {\"url\", \"path\"} is needed%s%s", list,
            where.line, *where.text ? ": " : "", where.text);
    }
    json_t *own = json_copy((json_t *)args);
    json_object_set_new(own, "files", files);
    lade_follow_submit(follow, list, "create_download_job", own);
    return LADE_OK;
}

static lade_code_t
s_submit(const lade_cli_t *cli, lade_follow_t *follow, const json_t *args, lade_error_t *error)
{
    const char *list = lade_args_text(&cli->args, "--multi", NULL);
    if (list)
        return s_submit_multi(cli, follow, list, args, error);
    if (!cli->word_count)
        return lade_error_set(error, LADE_USAGE, "usage: lade download %s", cli->command->usage);
    for (size_t i = 0; i < cli->word_count; i++) {
        json_t *own = json_copy((json_t *)args);
        char *source = s_download_source(cli->words[i]);
        json_object_set_new(own, "source", s_with_mirrors(cli, s_text(source)));
        lade_follow_submit(follow, cli->words[i], "create_download_job", own);
        free(source);
    }
    return LADE_OK;
}

lade_code_t
lade_cmd_download_run(lade_cli_t *cli, lade_error_t *error)
{
    if (lade_args_flag(&cli->args, "--cache"))
        return lade_cmd_filecache_fetch(cli, error);
    json_t *args;
    lade_code_t code = s_args(cli, &args, error);
    if (!code)
        code = lade_cli_catch(cli, error);
    lade_follow_t *follow = lade_follow_new(cli, "download");
    if (!code && cli->json && lade_submit_waits(cli))
        code = lade_follow_listen(follow, error);
    if (!code)
        code = s_submit(cli, follow, args, error);
    if (!code)
        code = lade_submit_follow(cli, follow, s_print_downloaded, error);
    lade_follow_destroy(&follow);
    json_decref(args);
    return code;
}
