// The settings of every lade program: one table, read from lade.yaml (libyaml), LADE_* variables
// and flags.
//
// Order, the later wins: preset, file, environment, flags. The file is the one named by
// --config-file or LADE_CONFIG, else DATA/lade.yaml if it exists. An unknown or mistyped key is an
// error with file and line. configs/lade.yaml shows each key with its preset; a unit test keeps it
// and the table in step.
#ifndef LADE_CONFIG_H
#define LADE_CONFIG_H

#include "common/error.h"
#include "common/tokens.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// Text settings are never NULL after lade_config_load; "" means not set.
typedef struct {
    char *data;       // the data folder, absolute
    char *models_dir; // absolute
    char *log_level;

    // endpoints, in full ("ipc:///…/clients", "tcp://…")
    char *clients, *workers, *events;
    bool insecure;       // tcp without CURVE is allowed
    char *curve_key;     // this program's secret certificate file (czmq zcert)
    char *curve_server;  // the broker's public certificate file (workers and clients)
    char *curve_clients; // folder of public certificates the broker lets in

    int64_t max_message_bytes, max_queue, keep_ended, journal_events;
    int64_t beat_ms, lease_beats, max_deaths, max_attempts, retry_base_ms, retry_max_ms;

    char *worker_labels; // "gpu=h100,site=a": matched against a job's `requires`

    int64_t download_slots, download_connections, buffer_mb;
    int64_t stall_s, connect_timeout_s, low_speed_bytes, checkpoint_mb;
    char *user_agent, *ca_file, *allow_addresses, *proxy;
    char *netrc; // "" or a path
    lade_remote_tokens_t remote_tokens;

    int64_t install_slots, file_cache_mb, convert_cache_mb;
    char *hash; // imohash, sha256, none
    char *families_dir, *convert_dir;
    int64_t max_header_mb;
    char *autoimport_dir; // "" or absolute: its models are registered by a sync
    char *hub_endpoint, *hub_token, *hub_token_file, *hub_cache;
    char *civitai_endpoint, *civitai_token, *civitai_token_file;
    bool hub_offline;
    char *precision; // float16, float32: which hub variant is meant when none is named

    int64_t load_slots, cache_mb, read_threads, pool_mb, vram_mb, working_mb, keep_s;
    char *load_io, *load_huge;
    char *load_precision, *load_device; // of loads that say neither
    bool check_weights;
} lade_config_t;

// Fills *self. file and data may be NULL (not given as flags). Creates nothing on disk. The
// ecosystem's own variables (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
// CIVITAI_API_TOKEN) count as environment.
// LADE_CONFIG_ERROR with "FILE:LINE: …" for an unknown key, a value of the wrong type or out of its
// range. Free with lade_config_free whatever is returned.
lade_code_t lade_config_load(lade_config_t *self, const char *file, const char *data,
                             lade_error_t *error);

// Sets one setting by its name, as --set KEY=VALUE does. remote_api_tokens is a list and stands in
// the file only.
lade_code_t lade_config_set(lade_config_t *self, const char *key, const char *value,
                            lade_error_t *error);

// The options every daemon takes: --config-file F, --data DIR, --set KEY=VALUE, --help, --version.
// Loads the configuration and opens the log under the program's name. Returns true if the program
// goes on, with *exit_status_p 0; else *exit_status_p is what main returns (help was printed, or
// the error was).
bool lade_config_from_args(lade_config_t *self, const char *program, const char *about, int argc,
                           char **argv, int *exit_status_p);

// Creates the data folder (0700) and the models folder if they are missing.
lade_code_t lade_config_make_folders(const lade_config_t *self, lade_error_t *error);

// Prints every setting with its preset and help as lade.yaml (what configs/lade.yaml is made from).
void lade_config_print_presets(FILE *out);

// One row of the settings table as text, in table order; false past the end. For tests and `lade
// config`. Of remote_api_tokens it is the number of entries; hub.token is told as it is.
bool lade_config_each(const lade_config_t *self, size_t index, const char **key_p, char *value,
                      size_t size, const char **help_p);

void lade_config_free(lade_config_t *self);

#endif
