// The table of subcommands, and what is made from it: help, suggestions, completion.
#ifndef LADE_COMMANDS_H
#define LADE_COMMANDS_H

#include "client/cli/cli.h"

#include <stdio.h>

// Options every command has.
extern const lade_option_t lade_commands_globals[];

// The command of that name, NULL if none.
const lade_command_t *lade_commands_find(const char *name);

// The options of the command of that name; NULL if there is no such command.
const lade_option_t *lade_commands_options(const char *name);

// The name nearest to a mistyped one, NULL if none is near.
const char *lade_commands_nearest(const char *name);

// Help on one command, or on all if it is NULL.
void lade_commands_print_help(const lade_command_t *command, FILE *out);

// The handlers, by file.
lade_code_t lade_cmd_up_run(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_install_run(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_filecache_fetch(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_filecache_show(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_convert_run(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_scan_run(lade_cli_t *cli, lade_error_t *error);
// scan --check
lade_code_t lade_cmd_check_run(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_scan_sync(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_scan_verify(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_download_run(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_probe_run(lade_cli_t *cli, lade_error_t *error);
// A report of lade_identify_explained for people.
void lade_cmd_explain_print(const lade_cli_t *cli, const json_t *report);
lade_code_t lade_cmd_metadata_run(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_models_ls(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_models_find(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_models_show(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_models_edit(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_models_rm(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_jobs_list(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_jobs_show(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_jobs_change(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_jobs_prune(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_load_run(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_load_unload(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_load_cache(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_watch_run(lade_cli_t *cli, lade_error_t *error);
// An event as a line for people.
void lade_cmd_watch_print(const lade_cli_t *cli, const json_t *event);

lade_code_t lade_cmd_status_run(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_status_workers(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_status_gates(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_status_set(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_status_top(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_backup_run(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_backup_restore(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_yaml_export(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_yaml_import(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_import_invokeai(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_doctor_run(lade_cli_t *cli, lade_error_t *error);

lade_code_t lade_cmd_config_run(lade_cli_t *cli, lade_error_t *error);
lade_code_t lade_cmd_config_keys(lade_cli_t *cli, lade_error_t *error);

#endif
