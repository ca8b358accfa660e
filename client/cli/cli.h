// The command `lade`: what every subcommand is given, and what they share.
#ifndef LADE_CLI_H
#define LADE_CLI_H

#include "client/cli/args.h"
#include "client/request.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct lade_cli lade_cli_t;

// A subcommand: one row of the table in commands.c.
typedef struct {
    const char *name;
    const char *usage; // what follows the name
    const char *help;  // one line
    size_t min, max;   // words after the name
    const lade_option_t *options;
    lade_code_t (*run)(lade_cli_t *cli, lade_error_t *error);
    const char *more; // further lines of --help, or NULL
} lade_command_t;

struct lade_cli {
    const lade_command_t *command;
    lade_args_t args;
    const char **words; // after the command's name
    size_t word_count;
    lade_t *client; // not yet connected: a command without broker never notices
    const lade_config_t *config;
    bool json, quiet;
    bool terminal; // standard output is one, and people read it
    size_t width;  // columns to fit into; 0: no limit
    int stop;      // readable once Ctrl-C was pressed, after lade_cli_catch; else -1
    bool said;     // the error was told in the command's own words already
};

// The whole program: returns the exit status.
int lade_cli_main(int argc, char **argv);

// A line to people on standard error; nothing with --quiet.
void lade_cli_say(const lade_cli_t *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// A failure on standard error: "lade: [about: ]sentence", and what to do about it.
void lade_cli_complain(const char *about, const lade_error_t *error);

// One JSON document on standard output; value is taken.
void lade_cli_print_json(json_t *value);

// {"code", "message", "help"}.
json_t *lade_cli_error_json(const lade_error_t *error);

// A request and its answer; args is taken, *result_p is yours.
lade_code_t lade_cli_call(lade_cli_t *cli, const char *service, const char *op, json_t *args,
                          json_t **result_p, lade_error_t *error);

// All of a list, page after page.
lade_code_t lade_cli_list(lade_cli_t *cli, const char *service, const char *op, json_t *args,
                          json_t **array_p, lade_error_t *error);

// From now on Ctrl-C and SIGTERM only make cli->stop readable, which ends waiting calls with
// LADE_CANCELLED.
lade_code_t lade_cli_catch(lade_cli_t *cli, lade_error_t *error);

// "K=V" as a member of map: V as JSON if it is some, else as text. LADE_USAGE without "=".
lade_code_t lade_cli_set_member(json_t *map, const char *text, lade_error_t *error);

// A member as text for a table: strings as they are, numbers in digits, lists with commas; "" if
// there is none. You free it.
char *lade_cli_member(const json_t *map, const char *key);

// "Key  value" lines of the members that keys (ended by NULL) name and that are there.
void lade_cli_print_members(const lade_cli_t *cli, const json_t *map, const char *const *keys);

enum { LADE_CLI_KEY = 65 }; // room for a key

// The key of the record that text means: a key, an unambiguous beginning of one, or a name only one
// record has.
lade_code_t lade_cli_key(lade_cli_t *cli, const char *text, char key[LADE_CLI_KEY],
                         lade_error_t *error);

// The program lade-NAME: beside this one, else in PATH; NULL if there is none. You free it.
char *lade_cli_program(const char *name);

#endif
