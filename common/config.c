// Settings: one table, and the three places values come from.
#include "common/config.h"

#include "common/guard.h"
#include "common/log.h"
#include "common/path.h"
#include "common/proxy.h"
#include "common/want.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

typedef enum { S_TEXT, S_NUMBER, S_SWITCH, S_TOKENS } s_type_t;

typedef struct {
    const char *key;
    s_type_t type;
    size_t where;
    int64_t min, max;
    const char *preset;
    const char *also; // a variable of the ecosystem that sets it too
    const char *help;
} s_row_t;

#define AT(field) offsetof(lade_config_t, field)
static const s_row_t s_rows[] = {
    // clang-format off
    {"models_dir",          S_TEXT,   AT(models_dir),        0, 0, "", NULL, "where installed models live; empty: DATA/models"},
    {"log_level",           S_TEXT,   AT(log_level),         0, 0, "", NULL, "error, warning, info or debug; empty: info, under `lade up` warning"},

    {"endpoints.clients",   S_TEXT,   AT(clients),           0, 0, "", NULL, "where the broker takes requests; empty: ipc://DATA/clients"},
    {"endpoints.workers",   S_TEXT,   AT(workers),           0, 0, "", NULL, "where workers connect; empty: ipc://DATA/workers"},
    {"endpoints.events",    S_TEXT,   AT(events),            0, 0, "", NULL, "where events are published; empty: ipc://DATA/events"},
    {"insecure",            S_SWITCH, AT(insecure),          0, 0, "false", NULL, "allow tcp:// endpoints without CURVE"},
    {"curve.key",           S_TEXT,   AT(curve_key),         0, 0, "", NULL, "this program's secret certificate (made by `lade keys`)"},
    {"curve.server",        S_TEXT,   AT(curve_server),      0, 0, "", NULL, "the broker's public certificate, for workers and clients"},
    {"curve.clients",       S_TEXT,   AT(curve_clients),     0, 0, "", NULL, "folder of the public certificates the broker lets in"},

    {"broker.max_message_bytes", S_NUMBER, AT(max_message_bytes), 1024, 1 << 28, "16777216", NULL, "bytes: largest message body taken from a peer"},
    {"broker.max_queue",    S_NUMBER, AT(max_queue),         1, 100000000, "1000000", NULL, "jobs: not ended at once; one more is answered queue_full"},
    {"broker.keep_ended",   S_NUMBER, AT(keep_ended),        0, 100000000, "100000", NULL, "jobs: ended ones kept before the oldest are pruned"},
    {"broker.journal_events", S_NUMBER, AT(journal_events),  100, 100000000, "200000", NULL, "events: kept for replay"},
    {"broker.beat_ms",      S_NUMBER, AT(beat_ms),           50, 60000, "1000", NULL, "milliseconds: between the beats of broker and workers"},
    {"broker.lease_beats",  S_NUMBER, AT(lease_beats),       2, 100, "3", NULL, "beats: missed before a worker counts as lost"},
    {"broker.max_deaths",   S_NUMBER, AT(max_deaths),        1, 1000, "3", NULL, "workers: lost under one job before it is dead"},
    {"broker.max_attempts", S_NUMBER, AT(max_attempts),      1, 1000, "5", NULL, "tries: of a job whose failures are retryable"},
    {"broker.retry_base_ms", S_NUMBER, AT(retry_base_ms),    1, 3600000, "1000", NULL, "milliseconds: before the first retry; doubles, with jitter"},
    {"broker.retry_max_ms", S_NUMBER, AT(retry_max_ms),      1, 86400000, "60000", NULL, "milliseconds: longest wait before a retry"},

    {"worker.labels",       S_TEXT,   AT(worker_labels),     0, 0, "", NULL, "labels of this host's workers, as gpu=h100,site=a"},

    {"download.slots",      S_NUMBER, AT(download_slots),    1, 256, "5", NULL, "transfers at once"},
    {"download.connections", S_NUMBER, AT(download_connections), 1, 64, "16", NULL, "connections: most of one worker to one host at once; a large file takes as many of them as make it faster"},
    {"download.buffer_mb",  S_NUMBER, AT(buffer_mb),         8, 65536, "64", NULL, "MiB: memory for bytes on their way to the disk and the digest"},
    {"download.stall_s",    S_NUMBER, AT(stall_s),           1, 3600, "30", NULL, "seconds: under low_speed_bytes a second before a transfer is retried"},
    {"download.low_speed_bytes", S_NUMBER, AT(low_speed_bytes), 1, 1 << 30, "1024", NULL, "bytes a second: slower counts as stalled"},
    {"download.connect_timeout_s", S_NUMBER, AT(connect_timeout_s), 1, 600, "20", NULL, "seconds: for DNS, connect and TLS together"},
    {"download.checkpoint_mb", S_NUMBER, AT(checkpoint_mb),  1, 65536, "64", NULL, "MiB: written between two durable checkpoints of a partial file"},
    {"download.user_agent", S_TEXT,   AT(user_agent),        0, 0, "lade/" LADE_VERSION, NULL, "what servers are told"},
    {"download.ca_file",    S_TEXT,   AT(ca_file),           0, 0, "", "CURL_CA_BUNDLE", "extra certificate authorities (PEM)"},
    {"download.netrc",      S_TEXT,   AT(netrc),             0, 0, "", NULL, "file of users and passwords by host, as ~/.netrc; for its owner only"},
    {"download.allow_addresses", S_TEXT, AT(allow_addresses), 0, 0, "", NULL, "addresses, ranges (10.0.0.0/8) and host names that may be reached though they are not public; `any`: all"},
    {"download.proxy",      S_TEXT,   AT(proxy),             0, 0, "", NULL, "the proxy for every URL, over http_proxy, https_proxy and no_proxy; empty: those"},

    {"install.slots",       S_NUMBER, AT(install_slots),     1, 64, "2", NULL, "installs placed at once"},
    {"install.hash",        S_TEXT,   AT(hash),              0, 0, "imohash", NULL, "imohash (samples), sha256 (all bytes), none, or another digest: md5, sha1, sha512, sha3_256, blake2b, blake3 (needs libblake3), ..."},
    {"install.cache_mb",    S_NUMBER, AT(file_cache_mb),     0, 1 << 24, "20480", NULL, "MiB: what download_and_cache keeps; 0: no limit"},
    {"install.convert_cache_mb", S_NUMBER, AT(convert_cache_mb), 0, 1 << 24, "20480", NULL, "MiB: converted copies of checkpoints that are kept; 0: none beyond their use"},
    {"install.precision",   S_TEXT,   AT(precision),         0, 0, "float16", NULL, "float16 or float32: the hub variant taken when none is named"},
    {"install.autoimport_dir", S_TEXT, AT(autoimport_dir),   0, 0, "", NULL, "a folder whose models `lade sync` registers where they lie; empty: none"},
    {"probe.max_header_mb", S_NUMBER, AT(max_header_mb),     1, 1024, "100", NULL, "MiB: the longest header of a weight file that is read"},
    {"families_dir",        S_TEXT,   AT(families_dir),      0, 0, "", NULL, "a folder of your own family files, asked before the shipped ones"},
    {"convert_dir",         S_TEXT,   AT(convert_dir),       0, 0, "", NULL, "a folder of your own conversions, which come before the shipped ones"},
    {"hub.endpoint",        S_TEXT,   AT(hub_endpoint),      0, 0, "https://huggingface.co", "HF_ENDPOINT", "the model hub"},
    {"hub.token",           S_TEXT,   AT(hub_token),         0, 0, "", "HF_TOKEN", "access token for the hub (better: hub.token_file)"},
    {"hub.token_file",      S_TEXT,   AT(hub_token_file),    0, 0, "", "HF_TOKEN_PATH", "file with the token; empty: HF_HOME/token"},
    {"hub.offline",         S_SWITCH, AT(hub_offline),       0, 0, "false", "HF_HUB_OFFLINE", "never ask a hub; what its cache has can be installed"},
    {"hub.cache",           S_TEXT,   AT(hub_cache),         0, 0, "", "HF_HUB_CACHE", "the hub library's cache, whose files are copied instead of fetched; empty: HF_HOME/hub; none: not looked at"},

    {"civitai.endpoint",    S_TEXT,   AT(civitai_endpoint),  0, 0, "https://civitai.com", NULL, "Civitai, or a mirror of its API"},
    {"civitai.token",       S_TEXT,   AT(civitai_token),     0, 0, "", "CIVITAI_API_TOKEN", "API key for Civitai (better: civitai.token_file)"},
    {"civitai.token_file",  S_TEXT,   AT(civitai_token_file), 0, 0, "", NULL, "file with the API key for Civitai"},

    {"remote_api_tokens",   S_TOKENS, AT(remote_tokens),     0, 0, "[]", NULL, "list of {url_regex, token or token_file}: the first that is found in a URL goes with it"},

    {"load.precision",      S_TEXT,   AT(load_precision),    0, 0, "stored", NULL, "what floating point becomes in loads that do not say: stored, fp32, fp16, bf16 (the broker's)"},
    {"load.device",         S_TEXT,   AT(load_device),       0, 0, "cpu", NULL, "where loads go that do not say: cpu, cuda, cuda:N (the broker's)"},
    {"load.slots",          S_NUMBER, AT(load_slots),        1, 64, "2", NULL, "models read at once"},
    {"load.cache_mb",       S_NUMBER, AT(cache_mb),          0, 1 << 24, "0", NULL, "MiB: host memory for models; 0: half of the machine's"},
    {"load.pool_mb",        S_NUMBER, AT(pool_mb),           0, 1 << 24, "0", NULL, "MiB: memory kept warm after eviction; 0: as much as the cache"},
    {"load.read_threads",   S_NUMBER, AT(read_threads),      0, 256, "0", NULL, "threads that read one model; 0: one a core"},
    {"load.io",             S_TEXT,   AT(load_io),           0, 0, "auto", NULL, "how what is not in the page cache is read: auto or uring (io_uring where there is one), threads, buffered (through the page cache)"},
    {"load.huge",           S_TEXT,   AT(load_huge),         0, 0, "auto", NULL, "huge pages for models: auto (where the system has them) or off"},
    {"load.vram_mb",        S_NUMBER, AT(vram_mb),           0, 1 << 24, "0", NULL, "MiB: of each device's memory for models; 0: all of it"},
    {"load.working_mb",     S_NUMBER, AT(working_mb),        0, 1 << 24, "3072", NULL, "MiB: of that, left free on each device for those who compute with the models"},
    {"load.check_weights",  S_SWITCH, AT(check_weights),     0, 0, "false", NULL, "convolve weights laid out with channels last on the device both ways and compare (cuDNN)"},
    {"load.keep_s",         S_NUMBER, AT(keep_s),            0, 86400, "300", NULL, "seconds: lade-keeper keeps the models of a load worker that crashed for its next start; 0: not at all"},
    // clang-format on
};
enum { S_ROWS = sizeof s_rows / sizeof *s_rows };

// Settings that take one of a few words.
static const struct {
    const char *key, *words[20]; // ended by NULL
} s_choices[] = {
    {"log_level", {"", "error", "warning", "info", "debug"}},
    {"install.hash",
     {"imohash", "sha256", "none", "md5", "sha1", "sha224", "sha384", "sha512", "blake2b",
      "blake2s", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "blake3", "blake3_single",
      "blake3_multi", "random"}},
    {"install.precision", {"float16", "float32"}},
    {"load.precision", {"stored", "fp32", "fp16", "bf16"}},
    {"load.io", {"auto", "uring", "threads", "buffered"}},
    {"load.huge", {"auto", "off"}},
};

static const s_row_t *
s_find(const char *key)
{
    for (size_t i = 0; i < S_ROWS; i++)
        if (strcmp(s_rows[i].key, key) == 0)
            return &s_rows[i];
    return NULL;
}

// Settings whose text has a form of its own. None of them repeats a secret.
static lade_code_t
s_check_allowed(const char *value, lade_error_t *error)
{
    lade_guard_t *guard;
    lade_code_t code = lade_guard_new(&guard, value, NULL, error);
    lade_guard_destroy(&guard);
    return code;
}

static lade_code_t
s_check_device(const char *value, lade_error_t *error)
{
    lade_want_t want;
    return lade_want_read(NULL, NULL, value, &want, error);
}

static const struct {
    const char *key;
    lade_code_t (*check)(const char *value, lade_error_t *error);
} s_forms[] = {
    {"load.device", s_check_device},
    {"download.allow_addresses", s_check_allowed},
    {"download.proxy", lade_proxy_check},
};

static lade_code_t
s_check_form(const s_row_t *row, const char *value, lade_error_t *error)
{
    for (size_t i = 0; i < sizeof s_forms / sizeof *s_forms; i++)
        if (strcmp(s_forms[i].key, row->key) == 0)
            return s_forms[i].check(value, error);
    return LADE_OK;
}

static lade_code_t
s_check_choice(const s_row_t *row, const char *value, lade_error_t *error)
{
    for (size_t i = 0; i < sizeof s_choices / sizeof *s_choices; i++) {
        const char *const *word = s_choices[i].words;
        if (strcmp(s_choices[i].key, row->key) != 0)
            continue;
        while (*word && strcmp(*word, value) != 0)
            word++;
        if (!*word)
            return lade_error_set(error, LADE_CONFIG_ERROR, "%s: '%s' does not do (%s)", row->key,
                                  value, row->help);
    }
    return LADE_OK;
}

static lade_code_t
s_assign(lade_config_t *self, const s_row_t *row, const char *value, lade_error_t *error)
{
    void *where = (char *)self + row->where;
    char *end;
    switch (row->type) {
    case S_TEXT:
        if (s_check_choice(row, value, error) || s_check_form(row, value, error))
            return LADE_CONFIG_ERROR;
        free(*(char **)where);
        *(char **)where = strdup(value);
        return LADE_OK;
    case S_NUMBER:
        errno = 0;
        intmax_t number = strtoimax(value, &end, 10);
        if (errno || end == value || *end || number < row->min || number > row->max)
            return lade_error_set(error, LADE_CONFIG_ERROR,
                                  "%s: '%s' is not a number from %" PRId64 " to %" PRId64 " (%s)",
                                  row->key, value, row->min, row->max, row->help);
        *(int64_t *)where = number;
        return LADE_OK;
    case S_SWITCH:
        if (strcasecmp(value, "true") == 0 || strcasecmp(value, "yes") == 0 ||
            strcasecmp(value, "on") == 0 || strcmp(value, "1") == 0)
            *(bool *)where = true;
        else if (strcasecmp(value, "false") == 0 || strcasecmp(value, "no") == 0 ||
                 strcasecmp(value, "off") == 0 || strcmp(value, "0") == 0)
            *(bool *)where = false;
        else
            return lade_error_set(error, LADE_CONFIG_ERROR, "%s: '%s' is neither true nor false",
                                  row->key, value);
        return LADE_OK;
    case S_TOKENS:
        if (strcmp(value, row->preset) != 0)
            return lade_error_set(error, LADE_CONFIG_ERROR,
                                  "%s is a list and stands in lade.yaml only", row->key);
        lade_tokens_free(where);
        return LADE_OK;
    }
    return LADE_OK;
}

lade_code_t
lade_config_set(lade_config_t *self, const char *key, const char *value, lade_error_t *error)
{
    const s_row_t *row = s_find(key);
    if (!row)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "there is no setting '%s' (configs/lade.yaml has all)", key);
    return s_assign(self, row, value, error);
}

// ---------------------------------------------------------------------------------------------------
// The file

// One {url_regex, token, token_file} of the list.
static lade_code_t
s_token_entry(lade_remote_tokens_t *tokens, yaml_document_t *doc, const yaml_node_t *entry,
              lade_error_t *error)
{
    static const char *const keys[] = {"url_regex", "token", "token_file"};
    const char *values[3] = {NULL};
    if (entry->type != YAML_MAPPING_NODE)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "an entry has url_regex and token or token_file");
    for (yaml_node_pair_t *pair = entry->data.mapping.pairs.start;
         pair < entry->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
        const yaml_node_t *value = yaml_document_get_node(doc, pair->value);
        size_t at = 0;
        while (at < 3 && (key->type != YAML_SCALAR_NODE ||
                          strcmp((const char *)key->data.scalar.value, keys[at]) != 0))
            at++;
        if (at == 3)
            return lade_error_set(
                error, LADE_CONFIG_ERROR,
                "an entry has no other keys than url_regex, token and token_file");
        if (value->type != YAML_SCALAR_NODE)
            return lade_error_set(error, LADE_CONFIG_ERROR, "%s is a text", keys[at]);
        values[at] = (const char *)value->data.scalar.value;
    }
    return lade_tokens_add(tokens, values[0], values[1], values[2], error);
}

static lade_code_t
s_token_list(lade_config_t *self, const s_row_t *row, yaml_document_t *doc, const char *file,
             const yaml_node_t *list, lade_error_t *error)
{
    lade_remote_tokens_t *tokens = (lade_remote_tokens_t *)((char *)self + row->where);
    lade_tokens_free(tokens);
    for (yaml_node_item_t *item = list->data.sequence.items.start;
         item < list->data.sequence.items.top; item++) {
        const yaml_node_t *entry = yaml_document_get_node(doc, *item);
        if (s_token_entry(tokens, doc, entry, error))
            return lade_error_wrap(error, "%s:%zu: %s", file, entry->start_mark.line + 1, row->key);
    }
    return LADE_OK;
}

static lade_code_t
s_node(lade_config_t *self, yaml_document_t *doc, const char *file, const char *prefix,
       yaml_node_t *map, lade_error_t *error)
{
    if (map->type != YAML_MAPPING_NODE)
        return lade_error_set(error, LADE_CONFIG_ERROR, "%s:%zu: '%s' has to be a mapping", file,
                              map->start_mark.line + 1, *prefix ? prefix : "the file");
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top;
         pair++) {
        yaml_node_t *key = yaml_document_get_node(doc, pair->key);
        yaml_node_t *value = yaml_document_get_node(doc, pair->value);
        size_t line = key->start_mark.line + 1;
        if (key->type != YAML_SCALAR_NODE)
            return lade_error_set(error, LADE_CONFIG_ERROR, "%s:%zu: a key has to be a word", file,
                                  line);
        char name[128];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "",
                 (const char *)key->data.scalar.value);
        if (value->type == YAML_MAPPING_NODE && !*prefix) { // sections do not nest
            lade_code_t code = s_node(self, doc, file, name, value, error);
            if (code)
                return code;
            continue;
        }
        const s_row_t *row = s_find(name);
        if (value->type == YAML_SEQUENCE_NODE && row && row->type == S_TOKENS) {
            if (s_token_list(self, row, doc, file, value, error))
                return LADE_CONFIG_ERROR;
            continue;
        }
        if (value->type != YAML_SCALAR_NODE)
            return lade_error_set(error, LADE_CONFIG_ERROR, "%s:%zu: %s takes one value, no list",
                                  file, line, name);
        if (lade_config_set(self, name, (const char *)value->data.scalar.value, error))
            return lade_error_wrap(error, "%s:%zu", file, line);
    }
    return LADE_OK;
}

static lade_code_t
s_read_file(lade_config_t *self, const char *file, lade_error_t *error)
{
    FILE *in = fopen(file, "rb");
    if (!in)
        return lade_error_set(error, LADE_CONFIG_ERROR, "cannot read the configuration %s: %s",
                              file, strerror(errno));
    lade_code_t code = LADE_OK;
    yaml_parser_t parser;
    yaml_document_t doc;
    yaml_parser_initialize(&parser);
    yaml_parser_set_input_file(&parser, in);
    if (!yaml_parser_load(&parser, &doc)) {
        code = lade_error_set(error, LADE_CONFIG_ERROR, "%s:%zu: %s", file,
                              parser.problem_mark.line + 1,
                              parser.problem ? parser.problem : "not YAML");
    } else {
        yaml_node_t *root = yaml_document_get_root_node(&doc);
        if (root)
            code = s_node(self, &doc, file, "", root, error);
        yaml_document_delete(&doc);
    }
    yaml_parser_delete(&parser);
    fclose(in);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The environment

static lade_code_t
s_read_environment(lade_config_t *self, lade_error_t *error)
{
    for (size_t i = 0; i < S_ROWS; i++) {
        char name[128] = "LADE_";
        size_t len = strlen(name);
        for (const char *at = s_rows[i].key; *at && len < sizeof name - 1; at++)
            name[len++] = *at == '.' ? '_' : (char)toupper((unsigned char)*at);
        name[len] = '\0';
        const char *value = getenv(name);
        if (!value && s_rows[i].also) {
            snprintf(name, sizeof name, "%s", s_rows[i].also);
            value = getenv(name);
        }
        if (value && *value && s_assign(self, &s_rows[i], value, error))
            return lade_error_wrap(error, "environment variable %s", name);
    }
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// All together

static char *
s_default_data(void)
{
    const char *home = getenv("HOME");
    const char *xdg = getenv("XDG_DATA_HOME");
    char *data = NULL;
    int len = xdg && *xdg == '/'
                  ? asprintf(&data, "%s/lade", xdg)
                  : asprintf(&data, "%s/.local/share/lade", home && *home ? home : "/tmp");
    return len < 0 ? NULL : data;
}

// Absolute, and without a slash at its end: what lies inside is told by its beginning.
static char *
s_absolute(const char *path)
{
    char *here = *path == '/' ? NULL : getcwd(NULL, 0), *whole = NULL;
    if (asprintf(&whole, "%s%s%s", here ? here : "", here ? "/" : "", path) < 0)
        whole = NULL;
    free(here);
    for (size_t len = whole ? strlen(whole) : 0; len > 1 && whole[len - 1] == '/';)
        whole[--len] = '\0';
    return whole;
}

// Fills what is derived from the data folder where nothing else was said.
static void
s_derive(lade_config_t *self)
{
    const struct {
        char **where;
        const char *before, *after;
    } derived[] = {
        {&self->models_dir, "", "/models"},
        {&self->clients, "ipc://", "/clients"},
        {&self->workers, "ipc://", "/workers"},
        {&self->events, "ipc://", "/events"},
    };
    for (size_t i = 0; i < sizeof derived / sizeof *derived; i++) {
        char *text;
        if (**derived[i].where ||
            asprintf(&text, "%s%s%s", derived[i].before, self->data, derived[i].after) < 0)
            continue;
        free(*derived[i].where);
        *derived[i].where = text;
    }
    char **folders[] = {&self->models_dir, &self->autoimport_dir};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *whole = **folders[i] ? s_absolute(*folders[i]) : NULL;
        if (!whole)
            continue;
        free(*folders[i]);
        *folders[i] = whole;
    }
}

lade_code_t
lade_config_load(lade_config_t *self, const char *file, const char *data, lade_error_t *error)
{
    *self = (lade_config_t){0};
    for (size_t i = 0; i < S_ROWS; i++)
        s_assign(self, &s_rows[i], s_rows[i].preset, NULL);
    const char *named = data ? data : getenv("LADE_DATA");
    self->data = named && *named ? s_absolute(named) : s_default_data();
    if (!self->data)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the configuration");

    char *beside = lade_path_join(self->data, "lade.yaml");
    if (!file)
        file = getenv("LADE_CONFIG");
    if (!file && access(beside, R_OK) == 0)
        file = beside;
    lade_code_t code = file && *file ? s_read_file(self, file, error) : LADE_OK;
    free(beside);
    if (!code)
        code = s_read_environment(self, error);
    s_derive(self);
    return code;
}

// What a daemon's command line says.
typedef struct {
    const char *file, *data;
    char *sets[64];
    size_t set_count;
} s_args_t;

static const struct option s_options[] = {
    // clang-format off
    {"config-file", required_argument, NULL, 'f'},
    {"data",        required_argument, NULL, 'd'},
    {"set",         required_argument, NULL, 's'},
    {"help",        no_argument,       NULL, 'h'},
    {"version",     no_argument,       NULL, 'v'},
    {0},
    // clang-format on
};

static int
s_usage(FILE *out, const char *program, const char *about, int status)
{
    fprintf(out,
            "%s: %s\n\nusage: %s [--config-file FILE] [--data DIR] [--set KEY=VALUE]...\n"
            "Settings are those of configs/lade.yaml.\n",
            program, about, program);
    return status;
}

// -1 if the program goes on, else its exit status. getopt says what is wrong with an option.
static int
s_read_args(s_args_t *args, const char *program, const char *about, int argc, char **argv)
{
    enum { S_MOST = sizeof args->sets / sizeof *args->sets };
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "h", s_options, NULL)) != -1;) {
        if (option == 'f')
            args->file = optarg;
        else if (option == 'd')
            args->data = optarg;
        else if (option == 's' && args->set_count < S_MOST)
            args->sets[args->set_count++] = optarg;
        else if (option == 'h')
            return s_usage(stdout, program, about, 0);
        else if (option == 'v')
            return printf("%s %s\n", program, LADE_VERSION) < 0;
        else
            return s_usage(stderr, program, about, 2);
    }
    if (optind < argc)
        fprintf(stderr, "%s: '%s' is not an option\n", program, argv[optind]);
    return optind < argc ? s_usage(stderr, program, about, 2) : -1;
}

// Applies one --set KEY=VALUE.
static lade_code_t
s_apply_set(lade_config_t *self, const char *set, lade_error_t *error)
{
    char *key = strdup(set), *equals = strchr(key, '=');
    if (equals)
        *equals = '\0';
    lade_code_t code =
        equals ? lade_config_set(self, key, equals + 1, error)
               : lade_error_set(error, LADE_CONFIG_ERROR, "--set %s: wants KEY=VALUE", set);
    explicit_bzero(key, strlen(set)); // it may be a token's
    free(key);
    return code;
}

// Everybody on the machine can read argv: a token or a proxy's password does not stay in it.
static void
s_blot_out(char *set)
{
    static const char *const keys[] = {"hub.token=", "civitai.token=", "download.proxy="};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strncmp(set, keys[i], strlen(keys[i])) == 0)
            explicit_bzero(set + strlen(keys[i]), strlen(set + strlen(keys[i])));
}

bool
lade_config_from_args(lade_config_t *self, const char *program, const char *about, int argc,
                      char **argv, int *exit_status_p)
{
    s_args_t args = {0};
    *self = (lade_config_t){0};
    int status = s_read_args(&args, program, about, argc, argv);
    *exit_status_p = status < 0 ? 0 : status;
    if (status >= 0)
        return false;
    lade_error_t error = {0};
    lade_code_t code = lade_config_load(self, args.file, args.data, &error);
    for (size_t i = 0; i < args.set_count && !code; i++) {
        code = s_apply_set(self, args.sets[i], &error);
        s_blot_out(args.sets[i]);
    }
    if (code) {
        fprintf(stderr, "%s: %s\n", program, error.message);
        *exit_status_p = lade_code_exit(code);
        return false;
    }
    s_derive(self);
    int level = lade_log_level(self->log_level); // -1 for the empty one
    lade_log_open(program, level < 0 ? LADE_LOG_INFO : (lade_log_level_t)level);
    return true;
}

lade_code_t
lade_config_make_folders(const lade_config_t *self, lade_error_t *error)
{
    lade_code_t code = lade_path_mkdirs(self->data, 0700, error);
    if (!code && chmod(self->data, 0700) != 0 && errno != EPERM)
        code =
            lade_error_errno(error, errno, "cannot close the data folder %s to others", self->data);
    return code ? code : lade_path_mkdirs(self->models_dir, 0755, error);
}

static void
s_value_text(const lade_config_t *self, const s_row_t *row, char *value, size_t size)
{
    const void *where = (const char *)self + row->where;
    if (row->type == S_NUMBER)
        snprintf(value, size, "%" PRId64, *(const int64_t *)where);
    else if (row->type == S_SWITCH)
        snprintf(value, size, "%s", *(const bool *)where ? "true" : "false");
    else if (row->type == S_TOKENS && ((const lade_remote_tokens_t *)where)->count)
        snprintf(value, size, "[%zu entries]", ((const lade_remote_tokens_t *)where)->count);
    else if (row->type == S_TOKENS)
        snprintf(value, size, "%s", row->preset);
    else
        snprintf(value, size, "%s", *(char *const *)where ? *(char *const *)where : "");
}

bool
lade_config_each(const lade_config_t *self, size_t index, const char **key_p, char *value,
                 size_t size, const char **help_p)
{
    if (index >= S_ROWS)
        return false;
    *key_p = s_rows[index].key;
    if (help_p)
        *help_p = s_rows[index].help;
    s_value_text(self, &s_rows[index], value, size);
    return true;
}

void
lade_config_print_presets(FILE *out)
{
    char section[64] = "";
    for (size_t i = 0; i < S_ROWS; i++) {
        const s_row_t *row = &s_rows[i];
        const char *dot = strchr(row->key, '.');
        size_t len = dot ? (size_t)(dot - row->key) : 0;
        if (strlen(section) != len || strncmp(section, row->key, len) != 0) {
            snprintf(section, sizeof section, "%.*s", (int)len, row->key);
            fprintf(out, len ? "\n%s:\n" : "%s\n", section);
        }
        fprintf(out, "%s# %s%s%s\n", len ? "  " : "", row->help, row->also ? "; also set by " : "",
                row->also ? row->also : "");
        fprintf(out, "%s%s: %s%s%s\n", len ? "  " : "", dot ? dot + 1 : row->key,
                row->type == S_TEXT ? "\"" : "", row->preset, row->type == S_TEXT ? "\"" : "");
    }
}

void
lade_config_free(lade_config_t *self)
{
    for (size_t i = 0; i < S_ROWS; i++)
        if (s_rows[i].type == S_TEXT)
            lade_tokens_wipe((char **)((char *)self + s_rows[i].where));
        else if (s_rows[i].type == S_TOKENS)
            lade_tokens_free((lade_remote_tokens_t *)((char *)self + s_rows[i].where));
    free(self->data);
    self->data = NULL;
}
