// lade probe --explain: which rule said so, on what evidence; else which came nearest.
#include "client/cli/commands.h"
#include "client/cli/show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_INDENT = 4, S_DEPTH = 2 };

static const char *
s_at(const json_t *map, const char *key)
{
    const char *text = json_string_value(json_object_get(map, key));
    return text ? text : "";
}

// One line behind a mark, wrapped below its text.
static void
s_line(const lade_cli_t *cli, size_t indent, const char *mark, char *text)
{
    char *wrapped = lade_show_wrap(text, cli->width, indent + 2);
    printf("%*s%s %s\n", (int)indent, "", mark, wrapped);
    free(wrapped);
    free(text);
}

static char *
s_words(const char *one, const char *between, const char *other)
{
    char *text;
    if (asprintf(&text, "%s%s%s", one, *other ? between : "", other) < 0)
        abort();
    return text;
}

static void s_steps(const lade_cli_t *cli, const json_t *steps, size_t depth, bool only_held);

// A field that was set; how, if it was not told; and the evidence.
static void
s_set(const lade_cli_t *cli, const json_t *step, size_t indent)
{
    char *value = lade_cli_member(step, "to"), *what;
    const char *how = s_at(step, "how"), *seen = s_at(step, "found");
    if (asprintf(&what, "%s %s%s%s", s_at(step, "sets"), value,
                 strcmp(how, "told") != 0 ? ", " : "", strcmp(how, "told") != 0 ? how : "") < 0)
        abort();
    s_line(cli, indent, "=", s_words(what, ": ", seen));
    free(what);
    free(value);
}

static void
s_condition(const lade_cli_t *cli, const json_t *step, size_t indent)
{
    bool holds = json_is_true(json_object_get(step, "holds"));
    const json_t *of = json_object_get(step, "of");
    bool seen = holds || json_object_get(step, "found");
    const char *asks = s_at(step, "asks"), *why = s_at(step, seen ? "found" : "reason");
    bool said = strlen(asks) > 2 && strstr(why, asks + 2); // "there is no" of the same
    // a group's own words are enough; what is in it says why
    s_line(cli, indent, holds ? "+" : "-", s_words(asks, ": ", of || said ? "" : why));
}

static void
s_steps(const lade_cli_t *cli, const json_t *steps, size_t depth, bool only_held)
{
    const json_t *step;
    size_t i;
    json_array_foreach((json_t *)steps, i, step)
    {
        bool sets = json_object_get(step, "sets") != NULL;
        if (only_held && !sets && !json_is_true(json_object_get(step, "holds")))
            continue;
        if (sets)
            s_set(cli, step, S_INDENT + 2 * depth);
        else
            s_condition(cli, step, S_INDENT + 2 * depth);
        if (depth < S_DEPTH)
            s_steps(cli, json_object_get(step, "of"), depth + 1, sets);
    }
}

static void
s_rule(const lade_cli_t *cli, const json_t *rule)
{
    char *head;
    bool fits = json_is_true(json_object_get(rule, "fits"));
    if (fits) {
        s_line(cli, 0, " ", s_words(s_at(rule, "rule"), ": ", s_at(rule, "why")));
    } else {
        if (asprintf(&head, "%s, %lld of %lld hold: %s", s_at(rule, "rule"),
                     (long long)json_integer_value(json_object_get(rule, "held")),
                     (long long)json_integer_value(json_object_get(rule, "of")),
                     s_at(rule, "why")) < 0)
            abort();
        s_line(cli, 0, " ", head);
    }
    s_steps(cli, json_object_get(rule, "steps"), 0, false);
}

static void
s_rules(const lade_cli_t *cli, const char *title, const json_t *list)
{
    const json_t *rule;
    size_t i;
    if (!json_array_size(list))
        return;
    printf("\n%s\n", title);
    json_array_foreach((json_t *)list, i, rule) s_rule(cli, rule);
}

void
lade_cmd_explain_print(const lade_cli_t *cli, const json_t *report)
{
    const json_t *rule, *fits = json_object_get(report, "fits"),
                        *outranked = json_object_get(report, "outranked");
    size_t i;
    char title[120];
    snprintf(title, sizeof title, "of %lld rules, %s",
             (long long)json_integer_value(json_object_get(report, "tried")),
             json_array_size(fits) > 1 ? "these fit" : "this one fits");
    s_rules(cli, title, fits);
    if (json_array_size(outranked))
        printf("\nless weight have\n");
    json_array_foreach((json_t *)outranked, i, rule)
        s_line(cli, 0, " ", s_words(s_at(rule, "rule"), ": ", s_at(rule, "why")));
    const json_t *nearest = json_object_get(report, "nearest");
    snprintf(title, sizeof title, "of %lld rules none %s",
             (long long)json_integer_value(json_object_get(report, "tried")),
             json_array_size(nearest) ? "fits; nearest are" : "comes near");
    if (!json_array_size(fits) && !json_array_size(nearest))
        printf("%s\n", title);
    s_rules(cli, title, nearest);
}
