// Reports on rules: collected while they are tried, then the few that tell something.
#include "common/identify/explain.h"

#include <stdlib.h>
#include <string.h>

enum { S_NEAREST = 3 };

void
lade_explain_note(json_t *list, const lade_rule_t *rule, lade_match_t *match, bool fits,
                  size_t depth)
{
    json_t *entry =
        json_pack("{s:o, s:s, s:i, s:b, s:I, s:I, s:o}", "rule",
                  json_sprintf("%s/%s", rule->family, rule->name), "why", rule->why, "rank",
                  rule->rank + (rule->site ? 10000 : 0), "fits", fits, "held", (json_int_t)depth,
                  "of", (json_int_t)(rule->when_count + rule->field_count), "steps", match->trace);
    match->trace = NULL;
    if (!fits)
        json_object_set_new(entry, "reason", json_string(match->reason));
    json_array_append_new(list, entry);
}

static json_int_t
s_number(const json_t *entry, const char *name)
{
    return json_integer_value(json_object_get(entry, name));
}

// The nearer comes first: by how much held, then by how little is missing, then by name.
static int
s_by_nearness(const void *a, const void *b)
{
    const json_t *one = *(json_t *const *)a, *other = *(json_t *const *)b;
    json_int_t held = s_number(other, "held") - s_number(one, "held");
    json_int_t missing = s_number(one, "of") - s_number(other, "of");
    if (held || missing)
        return (held ? held : missing) < 0 ? -1 : 1;
    return strcmp(json_string_value(json_object_get(one, "rule")),
                  json_string_value(json_object_get(other, "rule")));
}

static json_t *
s_nearest(const json_t *list)
{
    size_t count = 0;
    json_t **near = calloc(json_array_size(list) + 1, sizeof *near), *found = json_array();
    for (size_t i = 0; near && i < json_array_size(list); i++)
        if (s_number(json_array_get(list, i), "held") > 0)
            near[count++] = json_array_get(list, i);
    if (count)
        qsort(near, count, sizeof *near, s_by_nearness);
    for (size_t i = 0; i < count && i < S_NEAREST; i++)
        json_array_append(found, near[i]);
    free(near);
    return found;
}

json_t *
lade_explain_sum(const json_t *list)
{
    json_t *fits = json_array(), *outranked = json_array(), *entry;
    json_int_t best = 0;
    size_t i, found = 0;
    json_array_foreach((json_t *)list, i, entry)
    {
        json_int_t rank = s_number(entry, "rank");
        if (json_is_true(json_object_get(entry, "fits")))
            best = found++ && best > rank ? best : rank;
    }
    json_array_foreach((json_t *)list, i, entry) if (json_is_true(json_object_get(entry, "fits")))
        json_array_append(s_number(entry, "rank") == best ? fits : outranked, entry);
    json_t *nearest = found ? json_array() : s_nearest(list);
    return json_pack("{s:I, s:o, s:o, s:o}", "tried", (json_int_t)json_array_size(list), "fits",
                     fits, "outranked", outranked, "nearest", nearest);
}
