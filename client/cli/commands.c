// Every subcommand is a row here.
#include "client/cli/commands.h"

#include <string.h>

// clang-format off
const lade_option_t lade_commands_globals[] = {
    {"--json",        NULL,       LADE_ARG_FLAG, false, 0, 0, "one JSON document on standard output, nothing else there", 0},
    {"--config-file", "FILE",     LADE_ARG_TEXT, false, 0, 0, "settings (else LADE_CONFIG, else DATA/lade.yaml)", 0},
    {"--data",        "DIR",      LADE_ARG_TEXT, false, 0, 0, "the data folder (else LADE_DATA)", 0},
    {"--broker",      "ENDPOINT", LADE_ARG_TEXT, false, 0, 0, "where the broker takes requests (else endpoints.clients)", 0},
    {"--quiet",       NULL,       LADE_ARG_FLAG, false, 0, 0, "no messages but errors", 'q'},
    {"--help",        NULL,       LADE_ARG_FLAG, false, 0, 0, "this text", 'h'},
    {"--version",     NULL,       LADE_ARG_FLAG, false, 0, 0, "the version", 0},
    {0},
};

#define PRIORITY {"--priority", "N", LADE_ARG_NUMBER, false, -1000000, 1000000, "lower goes first (10)", 0}
#define NO_WAIT {"--no-wait", NULL, LADE_ARG_FLAG, false, 0, 0, "print the jobs and leave them to the broker", 0}
#define SUBMODEL {"--submodel", "NAME", LADE_ARG_TEXT, false, 0, 0, "one part of a diffusers folder: unet, vae, …", 0}
#define KIND {"--kind", "KIND", LADE_ARG_TEXT, false, 0, 0, "only jobs of this kind: install, download, load, …", 0}

static const lade_option_t s_none[] = {{0}};
static const lade_option_t s_up[] = {
    {"--without", "LIST",      LADE_ARG_TEXT, true, 0, 0, "workers to leave out: download,install,gpu", 0},
    {"--set",     "KEY=VALUE", LADE_ARG_SECRET, true, 0, 0, "a setting, passed on to every process", 0},
    {0},
};
static const lade_option_t s_install[] = {
    {"--config",  "NAME=VALUE",  LADE_ARG_TEXT, true,  0, 0, "a field of the record, over what is found out", 0},
    {"--quarantine", NULL,       LADE_ARG_FLAG, false, 0, 0, "install it even if it would run code when loaded by others; loads then need allow_unsafe", 0},
    {"--inplace", NULL,          LADE_ARG_FLAG, false, 0, 0, "leave local files where they are", 0},
    {"--move",    NULL,          LADE_ARG_FLAG, false, 0, 0, "of a path: take it away from there once it is installed", 0},
    {"--again",   "link|copy",   LADE_ARG_TEXT, false, 0, 0, "also if the same content is installed: another name for its bytes, or a copy", 0},
    {"--token",   "TEXT|@FILE",  LADE_ARG_SECRET, false, 0, 0, "access token for the source", 0},
    PRIORITY,
    {"--dry-run", NULL,          LADE_ARG_FLAG, false, 0, 0, "say what would be fetched or copied; a path needs no broker", 0},
    NO_WAIT,
    {0},
};
static const lade_option_t s_scan[] = {
    {"--install", NULL, LADE_ARG_FLAG, false, 0, 0, "copy the models into the models folder (else they stay where they are)", 0},
    {"--dry-run", NULL, LADE_ARG_FLAG, false, 0, 0, "say what would be added", 0},
    {"--check",   NULL, LADE_ARG_FLAG, false, 0, 0, "add nothing: look for files of any name that would run code when loaded; needs no broker", 0},
    PRIORITY,
    NO_WAIT,
    {0},
};
static const lade_option_t s_sync[] = {
    {"--unregister", NULL, LADE_ARG_FLAG, false, 0, 0, "remove the records of what is missing (never of what is unavailable)", 0},
    {"--dry-run",    NULL, LADE_ARG_FLAG, false, 0, 0, "say what would be done", 0},
    PRIORITY,
    NO_WAIT,
    {0},
};
static const lade_option_t s_verify[] = {
    {"--record", NULL, LADE_ARG_FLAG, false, 0, 0, "store the sha256 of models of which none is known, for later", 0},
    PRIORITY,
    NO_WAIT,
    {0},
};
static const lade_option_t s_cache[] = {
    {"--files", NULL, LADE_ARG_FLAG, false, 0, 0, "the files that `lade download --cache` fetched, instead", 0},
    {"--clear", NULL, LADE_ARG_FLAG, false, 0, 0, "remove those", 0},
    {0},
};
static const lade_option_t s_download[] = {
    {"--cache",    NULL,         LADE_ARG_FLAG,   false, 0, 0, "fetch a source of `lade install` into the cache, or find it there, and print where it is", 0},
    {"--dest",     "DIR",        LADE_ARG_TEXT,   false, 0, 0, "the folder the files go into", 0},
    {"--filename", "FILE",       LADE_ARG_TEXT,   false, 0, 0, "its name there (else the server's); one source only", 0},
    {"--name",     "FILE",       LADE_ARG_TEXT,   false, 0, 0, "the same as --filename", 0},
    {"--sha256",   "HEX",        LADE_ARG_TEXT,   false, 0, 0, "the digest it must have; one source only", 0},
    {"--size",     "N",          LADE_ARG_NUMBER, false, 0, 9007199254740992.0, "the bytes it must have; one source only", 0},
    {"--mirror",   "URL",        LADE_ARG_TEXT,   true,  0, 0, "where it is too, if the source fails; one source only", 0},
    {"--multi",    "FILE",       LADE_ARG_TEXT,   false, 0, 0, "several files in one job: a JSON array of {\"url\", \"path\", \"size\"?, \"sha256\"?}", 0},
    {"--token",    "TEXT|@FILE", LADE_ARG_SECRET, false, 0, 0, "access token for the source", 0},
    {"--rate",     "BYTES",      LADE_ARG_BYTES,  false, 0, 1e15, "at most so many bytes a second (5M, 500K), of each source", 0},
    {"--preserve", NULL,         LADE_ARG_FLAG,   false, 0, 0, "keep what was fetched even if it fails for good", 0},
    PRIORITY,
    {"--paused",   NULL,         LADE_ARG_FLAG,   false, 0, 0, "do not start it; `lade resume ID` does", 0},
    NO_WAIT,
    {0},
};
static const lade_option_t s_metadata[] = {
    {"--token",   "TEXT|@FILE",  LADE_ARG_SECRET, false, 0, 0, "access token for the hub or Civitai", 0},
    {0},
};
static const lade_option_t s_probe[] = {
    {"--hash",    NULL,         LADE_ARG_FLAG, false, 0, 0, "compute the content hash too (install.hash)", 0},
    {"--tensors", NULL,         LADE_ARG_FLAG, false, 0, 0, "only list what the weights hold: tensors, metadata, what is unsafe", 0},
    {"--explain", NULL,         LADE_ARG_FLAG, false, 0, 0, "say which rule fits on what evidence, or which came nearest", 0},
    {"--config",  "NAME=VALUE", LADE_ARG_TEXT, true,  0, 0, "a field that is known already", 0},
    {0},
};
static const lade_option_t s_rm[] = {
    {"--keep-files", NULL, LADE_ARG_FLAG, false, 0, 0, "only the record goes", 0},
    {"--force",      NULL, LADE_ARG_FLAG, false, 0, 0, "the files go even if they are outside of the models folder", 0},
    {0},
};
#define FILTERS \
    {"--name",    "NAME",   LADE_ARG_TEXT,   false, 0, 0, "exactly this name", 0}, \
    {"--base",    "BASE",   LADE_ARG_TEXT,   false, 0, 0, "sd-1, sd-2, sdxl, …: their base, or one of their bases", 0}, \
    {"--type",    "TYPE",   LADE_ARG_TEXT,   false, 0, 0, "main, vae, lora, …", 0}, \
    {"--format",  "FORMAT", LADE_ARG_TEXT,   false, 0, 0, "diffusers, checkpoint, …", 0}, \
    {"--tag",     "TAG",    LADE_ARG_TEXT,   true,  0, 0, "has this tag, and every other one given", 0}, \
    {"--hash",    "HASH",   LADE_ARG_TEXT,   false, 0, 0, "exactly this content hash", 0}, \
    {"--sort",    "FIELD",  LADE_ARG_TEXT,   false, 0, 0, "by type (then base, name, format), base, name, format, size, created_at, updated_at or path", 0}, \
    {"--reverse", NULL,     LADE_ARG_FLAG,   false, 0, 0, "the last first", 0}, \
    {"--limit",   "N",      LADE_ARG_NUMBER, false, 1, 1000, "only so many (20 if only --page is given)", 0}, \
    {"--page",    "N",      LADE_ARG_NUMBER, false, 1, 1000000000, "the N-th page of --limit models", 0}
static const lade_option_t s_ls[] = {FILTERS, {0}};
static const lade_option_t s_find[] = {
    FILTERS,
    {"--path",    "PATH",   LADE_ARG_TEXT,   false, 0, 0, "the record of this file or folder", 0},
    {0},
};
static const lade_option_t s_edit[] = {
    {"--if-version", "N", LADE_ARG_NUMBER, false, 1, 9007199254740992.0, "only if the record has that version still (`lade show`)", 0},
    {0},
};
static const lade_option_t s_jobs[] = {
    KIND,
    {"--status", "STATUS", LADE_ARG_TEXT,   false, 0, 0, "only these: enqueued, running, error, …", 0},
    {"--last",   "N",      LADE_ARG_NUMBER, false, 1, 1000000, "only the newest N", 0},
    {"--all",    NULL,     LADE_ARG_FLAG,   false, 0, 0, "those that are part of another too (as with --kind and --status)", 0},
    {0},
};
static const lade_option_t s_change[] = {
    {"--all", NULL, LADE_ARG_FLAG, false, 0, 0, "every job that can be", 0},
    KIND,
    {0},
};
static const lade_option_t s_prune[] = {KIND, {0}};
static const lade_option_t s_load[] = {
    SUBMODEL,
    {"--base",    "BASE",    LADE_ARG_TEXT, false, 0, 0, "KEY is the name of one of this base", 0},
    {"--type",    "TYPE",    LADE_ARG_TEXT, false, 0, 0, "KEY is the name of one of this type", 0},
    {"--dtype",   "TYPE",    LADE_ARG_TEXT, false, 0, 0, "floating point becomes fp32, fp16 or bf16 (stored: as it is; load.precision)", 0},
    {"--layout",  "ORDER",   LADE_ARG_TEXT, false, 0, 0, "channels_last for weights of four dimensions (stored: as they are)", 0},
    {"--device",  "DEVICE",  LADE_ARG_TEXT, false, 0, 0, "cpu or cuda:N (load.device)", 0},
    {"--allow-unsafe", NULL, LADE_ARG_FLAG, false, 0, 0, "also if its files would run code when loaded by others; nothing is run here", 0},
    {"--tensors", "N|all",   LADE_ARG_TEXT, false, 0, 0, "how many tensors to list (20)", 0},
    {"--hold",    NULL,      LADE_ARG_FLAG, false, 0, 0, "keep it locked until Ctrl-C", 0},
    {"--timeout", "SECONDS", LADE_ARG_REAL, false, 0, 1e9, "give up after that time (never)", 0},
    {0},
};
static const lade_option_t s_convert[] = {
    {"--dest",    "DIR",     LADE_ARG_TEXT, false, 0, 0, "a folder that is not there yet; without, in the cache of converted copies", 0},
    {"--timeout", "SECONDS", LADE_ARG_REAL, false, 0, 1e9, "give up after that time (never)", 0},
    {0},
};
static const lade_option_t s_unload[] = {SUBMODEL, {0}};
static const lade_option_t s_watch[] = {
    {"--since",   "SEQ",     LADE_ARG_NUMBER, false, 0, 9e15, "first what was journaled after that number; 0: all there is", 0},
    {"--timeout", "SECONDS", LADE_ARG_REAL,   false, 0, 1e9, "end after that time (never)", 0},
    {"--count",   "N",       LADE_ARG_NUMBER, false, 1, 9e15, "end after that many events", 0},
    {0},
};
static const lade_option_t s_set[] = {
    {"--limit",     "N",       LADE_ARG_NUMBER, false, 0, 1000000, "jobs that may run there at once, or at host:NAME connections be open; 0: any number", 0},
    {"--close-for", "SECONDS", LADE_ARG_REAL,   false, 0, 1e9, "lets no job start and no request begin for that time; 0 opens it", 0},
    {"--rate",      "BYTES",   LADE_ARG_BYTES,  false, 0, 1e15, "bytes a second (20M, 500K) of all downloads together, or of --job; 0: any number", 0},
    {"--job",       "ID",      LADE_ARG_NUMBER, false, 1, 9007199254740992.0, "the job whose rate is set", 0},
    {0},
};
static const lade_option_t s_top[] = {
    {"--interval", "SECONDS", LADE_ARG_REAL,   false, 0.1, 3600, "between two screens (1)", 0},
    {"--count",    "N",       LADE_ARG_NUMBER, false, 1, 1000000, "end after that many", 0},
    {0},
};
static const lade_option_t s_config[] = {
    {"--presets", NULL, LADE_ARG_FLAG, false, 0, 0, "print a lade.yaml of the presets, with explanations", 0},
    {0},
};
static const lade_option_t s_backup[] = {
    {"--overwrite", NULL, LADE_ARG_FLAG, false, 0, 0, "a file of that name is replaced, once the new one is whole", 0},
    {0},
};
static const lade_option_t s_restore[] = {
    {"--force", NULL, LADE_ARG_FLAG, false, 0, 0, "a keyspace that is there is kept aside", 0},
    {0},
};
static const lade_option_t s_export[] = {
    {"--overwrite", NULL, LADE_ARG_FLAG, false, 0, 0, "a file of that name is replaced", 0},
    {0},
};
static const lade_option_t s_import[] = {
    {"--on-conflict", "WORD", LADE_ARG_TEXT, false, 0, 0, "what to do with a key that is there: fail (the preset), skip or replace", 0},
    {"--dry-run",     NULL,   LADE_ARG_FLAG, false, 0, 0, "say what would be done", 0},
    {"--in-parts",    NULL,   LADE_ARG_FLAG, false, 0, 0, "more records than one step takes: each part is all or nothing by itself", 0},
    {0},
};
static const lade_option_t s_invokeai[] = {
    {"--dry-run", NULL, LADE_ARG_FLAG, false, 0, 0, "say what would be done", 0},
    {0},
};
static const lade_option_t s_doctor[] = {
    {"--fix", NULL, LADE_ARG_FLAG, false, 0, 0, "make good what loses nothing: indexes from the records, leftovers of jobs that are over", 0},
    {0},
};
static const lade_option_t s_keys[] = {
    {"--dest", "DIR", LADE_ARG_TEXT, false, 0, 0, "the folder they go into (DATA/keys)", 0},
    {0},
};

static lade_code_t s_help(lade_cli_t *cli, lade_error_t *error);
static lade_code_t s_completion(lade_cli_t *cli, lade_error_t *error);

enum { S_MANY = LADE_ARGS_MAX };
static const lade_command_t s_commands[] = {
    {"up", "", "run a broker and one worker of each kind in the foreground", 0, 0, s_up, lade_cmd_up_run,
        "Everything lives in the data folder. Ctrl-C ends it; unfinished jobs go on at the next start."},
    {"install", "SOURCE…", "install models: files, folders, URLs, hub repositories", 1, S_MANY, s_install, lade_cmd_install_run,
        "SOURCE is a path, a URL, or OWNER/REPO[@REVISION][:VARIANT[:FOLDER]] of the hub (OWNER/REPO::FILE for one file).\n"
        "REVISION is a branch, tag, commit or refs/pr/N. A URL may be a page of the hub or of Civitai, too.\n"
        "VARIANT is fp16, fp32, onnx, openvino or flax."},
    {"scan", "DIR", "register the models below a folder", 1, 1, s_scan, lade_cmd_scan_run,
        "Hidden names and system folders are passed over; what is no model is told and stops nothing.\n"
        "With --check every file is looked at by its content, and what is unsafe is told; exit status 1 if anything is."},
    {"sync", "", "bring records and files into agreement", 0, 0, s_sync, lade_cmd_scan_sync,
        "New models in the models folder and in install.autoimport_dir are registered. Records whose files are gone are told:\n"
        "missing, or unavailable if their drive may be away. A file that turned up elsewhere is found by its hash."},
    {"verify", "[KEY…]", "read installed files and compare them with what is known of them", 0, S_MANY, s_verify, lade_cmd_scan_verify,
        "Without KEY all models. Tells files that are missing, cut off or changed, and whether they were written to or went bad; exit status 1 then."},
    {"download", "SOURCE… --dest DIR", "download files", 0, S_MANY, s_download, lade_cmd_download_run,
        "SOURCE is a URL, a file:// URL (which is copied) or the path of a file or folder (which is moved).\n"
        "With --json the events of the jobs are printed as they come, one a line, and at last the jobs in one array."},
    {"metadata", "URL|ID", "what a model's page says of it; nothing is installed", 1, 1, s_metadata, lade_cmd_metadata_run,
        "URL is a page of the hub or of Civitai, ID OWNER/REPO[@REVISION] or the number of a model of Civitai."},
    {"probe", "PATH", "identify a file or folder; needs no broker", 1, 1, s_probe, lade_cmd_probe_run, NULL},
    {"ls", "", "list the models", 0, 0, s_ls, lade_cmd_models_ls, NULL},
    {"show", "KEY", "show a model's record", 1, 1, s_none, lade_cmd_models_show,
        "KEY, here and elsewhere: a key, the beginning of one, or a name that only one model has."},
    {"edit", "KEY NAME=VALUE…", "change fields of a record (NAME=null removes one)", 2, S_MANY, s_edit, lade_cmd_models_edit,
        "VALUE is JSON, or text: 'bases=[\"sd-1\", \"sd-2\"]', 'tags=[\"sfw\"]', name=other. A value that a field does not take is refused, and nothing is changed."},
    {"rm", "KEY…", "remove models: the record, and its files in the models folder", 1, S_MANY, s_rm, lade_cmd_models_rm, NULL},
    {"find", "", "list the models that are like that", 0, 0, s_find, lade_cmd_models_find, NULL},
    {"jobs", "", "list jobs, the newest last", 0, 0, s_jobs, lade_cmd_jobs_list, NULL},
    {"job", "ID", "show a job, its parts, and what it waits for", 1, 1, s_none, lade_cmd_jobs_show, NULL},
    {"pause", "ID…|--all", "pause jobs", 0, S_MANY, s_change, lade_cmd_jobs_change, NULL},
    {"resume", "ID…|--all", "let paused jobs go on", 0, S_MANY, s_change, lade_cmd_jobs_change, NULL},
    {"cancel", "ID…|--all", "cancel jobs", 0, S_MANY, s_change, lade_cmd_jobs_change, NULL},
    {"retry", "ID…|--all", "put failed, dead or cancelled jobs back", 0, S_MANY, s_change, lade_cmd_jobs_change, NULL},
    {"prune", "[ID…]", "forget ended jobs", 0, S_MANY, s_prune, lade_cmd_jobs_prune, NULL},
    {"load", "KEY|PATH", "load a model into memory, and list its tensors", 1, 1, s_load, lade_cmd_load_run,
        "PATH is a weight file, or a folder with weights directly in it, that need no record; with a slash in it, as ./x.safetensors."},
    {"convert", "KEY", "make a diffusers folder of a single-file checkpoint, and print where it is", 1, 1, s_convert, lade_cmd_convert_run,
        "Nothing is done again as long as neither the record nor its file changed. Loading a part of a checkpoint does it by itself."},
    {"unload", "[KEY]", "free the memory of a model, or of all that nobody has locked", 0, 1, s_unload, lade_cmd_load_unload, NULL},
    {"cache", "", "what is in memory, or in the cache of fetched files", 0, 0, s_cache, lade_cmd_load_cache, NULL},
    {"watch", "[PREFIX…]", "events as they happen", 0, 60, s_watch, lade_cmd_watch_run,
        "PREFIX is an event's name or its beginning (download_), or NAME/ID/ for one job or model."},
    {"status", "", "how the broker is", 0, 0, s_none, lade_cmd_status_run, NULL},
    {"workers", "", "list the workers", 0, 0, s_none, lade_cmd_status_workers, NULL},
    {"top", "", "status, workers and jobs, refreshed", 0, 0, s_top, lade_cmd_status_top, NULL},
    {"gates", "", "list the gates that hold jobs back", 0, 0, s_none, lade_cmd_status_gates, NULL},
    {"set", "GATE --limit N|--close-for SECONDS | [--job ID] --rate BYTES", "limit a gate, such as host:example.org, or bytes per second", 0, 1, s_set, lade_cmd_status_set, NULL},
    {"backup", "FILE", "write a backup of all records, jobs and events, while the broker goes on", 1, 1, s_backup, lade_cmd_backup_run,
        "FILE is on the broker's host. Secrets (tokens of jobs that are under way) and model files are not in it."},
    {"restore", "FILE", "put a backup in the place of the keyspace; no broker may run", 1, 1, s_restore, lade_cmd_backup_restore,
        "Nothing is touched before FILE was found whole. Jobs that needed a token ask for it again."},
    {"export-yaml", "FILE|-", "write all records as YAML that people edit", 1, 1, s_export, lade_cmd_yaml_export, NULL},
    {"import-yaml", "FILE|-", "take up records from such a file: all of them or none", 1, 1, s_import, lade_cmd_yaml_import,
        "Model files stay where they are. What is wrong with the file is told with its line before anything is changed."},
    {"import-invokeai", "ROOT", "take up the models of an InvokeAI installation, where they are", 1, 1, s_invokeai, lade_cmd_import_invokeai,
        "ROOT holds invokeai.yaml. Its models.yaml and database are only read; nothing in it is moved or written."},
    {"doctor", "", "look whether everything is as it should be, and say what to do", 0, 0, s_doctor, lade_cmd_doctor_run,
        "Is the broker there and of this version; do indexes, records and files agree; what was left behind; is there room.\n"
        "Exit status 0 only if nothing is wrong. No model file and no record is ever removed."},
    {"config", "", "print the settings in force", 0, 0, s_config, lade_cmd_config_run, NULL},
    {"keys", "NAME", "make a pair of CURVE keys for tcp endpoints", 1, 1, s_keys, lade_cmd_config_keys, NULL},
    {"completion", "bash", "print a completion script: eval \"$(lade completion bash)\"", 1, 1, s_none, s_completion, NULL},
    {"help", "[COMMAND]", "explain a command", 0, 1, s_none, s_help, NULL},
};
// clang-format on
enum { S_COMMANDS = sizeof s_commands / sizeof *s_commands };

const lade_command_t *
lade_commands_find(const char *name)
{
    for (size_t i = 0; i < S_COMMANDS; i++)
        if (strcmp(s_commands[i].name, name) == 0)
            return &s_commands[i];
    return NULL;
}

const lade_option_t *
lade_commands_options(const char *name)
{
    const lade_command_t *command = lade_commands_find(name);
    return command ? command->options : NULL;
}

const char *
lade_commands_nearest(const char *name)
{
    const char *nearest = NULL;
    size_t least = 3; // further away is no typing mistake
    for (size_t i = 0; i < S_COMMANDS; i++)
        if (lade_args_distance(name, s_commands[i].name) < least) {
            least = lade_args_distance(name, s_commands[i].name);
            nearest = s_commands[i].name;
        }
    return nearest;
}

static void
s_print_options(const lade_option_t *row, FILE *out)
{
    for (; row->name; row++) {
        char name[64];
        snprintf(name, sizeof name, "%s%c%s%s%s", row->letter ? "-" : "",
                 row->letter ? row->letter : ' ', row->letter ? ", " : "", row->name,
                 row->value ? " " : "");
        const char *at = row->letter ? name : name + 1;
        fprintf(out, "  %s%s%*s%s%s\n", at, row->value ? row->value : "",
                (int)(26 > strlen(at) + strlen(row->value ? row->value : "")
                          ? 26 - strlen(at) - strlen(row->value ? row->value : "")
                          : 1),
                "", row->help, row->many ? " (may be repeated)" : "");
    }
}

static void
s_print_commands(FILE *out)
{
    fputs("lade: a model manager. Models travel from their source into memory.\n\n"
          "usage: lade COMMAND [ARGUMENTS] [OPTIONS]\n\n",
          out);
    for (size_t i = 0; i < S_COMMANDS; i++)
        fprintf(out, "  %-12s%s\n", s_commands[i].name, s_commands[i].help);
    fputs("\nOptions of every command:\n", out);
    s_print_options(lade_commands_globals, out);
    fputs("\nExit status: 0 done; 1 the work failed; 2 wrong usage; 3 no such thing;\n"
          "4 the broker can't be reached; 5 refused (access).\n",
          out);
}

void
lade_commands_print_help(const lade_command_t *command, FILE *out)
{
    if (!command) {
        s_print_commands(out);
        return;
    }
    fprintf(out, "usage: lade %s %s%s\n\n%s\n", command->name, command->usage,
            command->options->name ? " [OPTIONS]" : "", command->help);
    if (command->more)
        fprintf(out, "%s\n", command->more);
    fputc('\n', out);
    s_print_options(command->options, out);
    fputs(command->options->name ? "\nand those of every command:\n"
                                 : "Options of every command:\n",
          out);
    s_print_options(lade_commands_globals, out);
}

static lade_code_t
s_help(lade_cli_t *cli, lade_error_t *error)
{
    const lade_command_t *command = cli->word_count ? lade_commands_find(cli->words[0]) : NULL;
    if (cli->word_count && !command)
        return lade_error_set(error, LADE_USAGE, "there is no command '%s'; `lade help` lists them",
                              cli->words[0]);
    lade_commands_print_help(command, stdout);
    return LADE_OK;
}

static void
s_print_names(const lade_option_t *row)
{
    for (; row->name; row++)
        printf(" %s", row->name);
}

static lade_code_t
s_completion(lade_cli_t *cli, lade_error_t *error)
{
    if (strcmp(cli->words[0], "bash") != 0)
        return lade_error_set(error, LADE_USAGE, "completion is there for bash only");
    puts("_lade() {\n"
         "    local word=${COMP_WORDS[COMP_CWORD]} choice= w\n"
         "    for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do case $w in");
    for (size_t i = 0; i < S_COMMANDS; i++) {
        printf("    %s) choice=\"", s_commands[i].name);
        s_print_names(s_commands[i].options);
        puts("\"; break;;");
    }
    puts("    esac; done");
    printf("    local common=\"");
    s_print_names(lade_commands_globals);
    printf("\"\n    local commands=\"");
    for (size_t i = 0; i < S_COMMANDS; i++)
        printf(" %s", s_commands[i].name);
    puts("\"\n"
         "    case $word in\n"
         "    -*) COMPREPLY=($(compgen -W \"$choice $common\" -- \"$word\"));;\n"
         "    *) if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY=($(compgen -W \"$commands\" -- "
         "\"$word\"))\n"
         "       else COMPREPLY=($(compgen -f -- \"$word\")); fi;;\n"
         "    esac\n"
         "}\n"
         "complete -o filenames -F _lade lade");
    return LADE_OK;
}
