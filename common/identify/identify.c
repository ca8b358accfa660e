// The engine: tries every rule on a path and picks the answer.
#include "common/identify/identify.h"

#include "common/formats/safety.h"
#include "common/identify/about.h"
#include "common/identify/explain.h"
#include "common/identify/families.h"
#include "common/identify/families_data.h"
#include "common/identify/match.h"
#include "common/path.h"
#include "common/record.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_FAMILY = 1 << 20, S_MAX_SITE_FILES = 1000 };

struct lade_identify {
    lade_families_t *families;
    uint64_t max_header; // of a weight file
};

// ---------------------------------------------------------------------------------------------------
// Reading the rules

static int
s_is_family(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' && dot && strcmp(dot, ".yaml") == 0;
}

static lade_code_t
s_read_site_file(lade_identify_t *self, const char *path, lade_error_t *error)
{
    char *text;
    size_t len;
    lade_code_t code = lade_path_read(path, S_MAX_FAMILY, &text, &len, error);
    if (code)
        return code;
    code = lade_families_read(self->families, path, text, len, true, error);
    free(text);
    return code;
}

static lade_code_t
s_read_site(lade_identify_t *self, const char *folder, lade_error_t *error)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, s_is_family, alphasort);
    if (count < 0)
        return lade_error_set(error, LADE_CONFIG_ERROR, "families_dir %s: %s", folder,
                              strerror(errno));
    lade_code_t code = LADE_OK;
    if (count > S_MAX_SITE_FILES)
        code = lade_error_set(error, LADE_CONFIG_ERROR, "families_dir %s: more than %d files",
                              folder, S_MAX_SITE_FILES);
    for (int i = 0; i < count; i++) {
        char *path = lade_path_join(folder, entries[i]->d_name);
        if (!code)
            code = s_read_site_file(self, path, error);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return code;
}

// A shipped family whose file name the site's folder has too is replaced by the site's.
static lade_code_t
s_read_shipped(lade_identify_t *self, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    for (const lade_families_file_t *file = lade_families_data; !code && file->name; file++) {
        char *family = strdup(file->name);
        char *dot = strrchr(family, '.');
        if (dot)
            *dot = '\0';
        if (!lade_families_has(self->families, family))
            code =
                lade_families_read(self->families, file->name, file->text, file->len, false, error);
        free(family);
    }
    return code;
}

lade_code_t
lade_identify_new(const char *site_folder, lade_identify_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    lade_identify_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the families");
    self->families = lade_families_new();
    self->max_header = LADE_TENSORS_HEADER;
    lade_code_t code = LADE_OK;
    if (site_folder && *site_folder)
        code = s_read_site(self, site_folder, error);
    if (!code)
        code = s_read_shipped(self, error);
    lade_families_close(self->families);
    if (code)
        lade_identify_destroy(&self);
    *self_p = self;
    return code;
}

lade_code_t
lade_identify_by_config(const lade_config_t *config, lade_identify_t **self_p, lade_error_t *error)
{
    lade_code_t code = lade_identify_new(config->families_dir, self_p, error);
    if (!code)
        lade_identify_set_max_header(*self_p, (uint64_t)config->max_header_mb << 20);
    return code;
}

void
lade_identify_set_max_header(lade_identify_t *self, uint64_t bytes)
{
    self->max_header = bytes;
}

void
lade_identify_destroy(lade_identify_t **self_p)
{
    if (!*self_p)
        return;
    lade_families_destroy(&(*self_p)->families);
    free(*self_p);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// One rule

static const char *const s_restricting[] = {"type", "base", "format"};
enum { S_RESTRICTING = sizeof s_restricting / sizeof *s_restricting };

static bool
s_is_restricting(const char *field)
{
    for (size_t i = 0; i < S_RESTRICTING; i++)
        if (strcmp(s_restricting[i], field) == 0)
            return true;
    return false;
}

// A rule about another type than the one asked for is not even near.
static bool
s_applies(const lade_rule_t *rule, const lade_subject_t *subject, const json_t *given)
{
    if (rule->folder != subject->folder)
        return false;
    for (size_t i = 0; i < rule->field_count; i++) {
        const json_t *wanted = json_object_get(given, rule->fields[i].name);
        const json_t *set = rule->fields[i].value.constant;
        if (wanted && set && s_is_restricting(rule->fields[i].name) &&
            !lade_match_same(wanted, set))
            return false;
    }
    return true;
}

static bool
s_may_be(const lade_value_t *value, const json_t *wanted)
{
    for (size_t i = 0; i < json_array_size(value->may_be); i++)
        if (lade_match_same(json_array_get(value->may_be, i), wanted))
            return true;
    return false;
}

static bool
s_ask(lade_match_t *match, const lade_field_t *field)
{
    char choices[120] = "";
    for (size_t i = 0, len = 0; i < json_array_size(field->value.may_be) && len < 100; i++)
        len += (size_t)snprintf(choices + len, sizeof choices - len, "%s%.20s", i ? " or " : "",
                                json_string_value(json_array_get(field->value.may_be, i)));
    snprintf(match->reason, sizeof match->reason,
             "the %s cannot be told: say it with --config %s=%s", field->name, field->name,
             choices);
    return false;
}

// A field's value, new; NULL if none is told, given or guessed. *how_p is which.
static json_t *
s_find_value(lade_match_t *match, const lade_field_t *field, const char **how_p)
{
    const json_t *wanted = json_object_get(match->given, field->name);
    json_t *value = lade_match_told(match, &field->value);
    *how_p = "told";
    if (!value && wanted && s_may_be(&field->value, wanted)) {
        value = json_incref((json_t *)wanted);
        *how_p = "given";
    }
    if (!value && field->value.fallback) {
        value = lade_match_value(match, field->value.fallback);
        *how_p = "guessed";
    }
    return value;
}

// The same, with the field, and what was asked for it, added to the trace.
static json_t *
s_find_traced(lade_match_t *match, const lade_field_t *field)
{
    const char *how;
    json_t *outer = match->trace, *inner = json_array();
    json_decref(match->seen);
    match->seen = NULL;
    match->trace = outer ? inner : NULL;
    json_t *value = s_find_value(match, field, &how);
    match->trace = outer;
    if (outer && value && !json_is_null(value)) {
        json_t *entry = json_pack("{s:s, s:O, s:s}", "sets", field->name, "to", value, "how", how);
        if (match->seen)
            json_object_set(entry, "found", match->seen);
        if (json_array_size(inner))
            json_object_set(entry, "of", inner);
        json_array_append_new(outer, entry);
    }
    json_decref(inner);
    json_decref(match->seen);
    match->seen = NULL;
    return value;
}

// Sets one field; false if the model does not tell it, or the caller wants another one.
static bool
s_set_field(lade_match_t *match, const lade_field_t *field)
{
    const json_t *wanted = json_object_get(match->given, field->name);
    json_t *value = s_find_traced(match, field);
    char seen[70], given[70];
    if (!value && field->value.may_be)
        return s_ask(match, field);
    if (!value || json_is_null(value)) { // null: none, whatever else could be asked
        json_decref(value);
        return field->value.optional;
    }
    // what is given of other fields takes the place of what was found (s_complete)
    bool agreed = !wanted || !s_is_restricting(field->name) || lade_match_same(value, wanted);
    if (!agreed)
        snprintf(match->reason, sizeof match->reason, "its %s is %s, not %s", field->name,
                 lade_match_show(value, seen, sizeof seen),
                 lade_match_show(wanted, given, sizeof given));
    json_object_set_new(match->found, field->name, value);
    return agreed;
}

// Tries a rule. *depth_p counts how far it came.
static bool
s_try(lade_match_t *match, const lade_rule_t *rule, size_t *depth_p)
{
    *depth_p = 0;
    match->reason[0] = '\0';
    for (size_t i = 0; i < rule->when_count; i++, ++*depth_p)
        if (!lade_match_condition(match, &rule->when[i]))
            return false;
    for (size_t i = 0; i < rule->field_count; i++, ++*depth_p)
        if (!s_set_field(match, &rule->fields[i]))
            return false;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// All rules

typedef struct {
    const lade_rule_t *rule;
    json_t *found;
} s_answer_t;

typedef struct {
    s_answer_t *answers; // of the highest standing so far
    size_t count;
    const lade_rule_t *nearest; // of those that do not fit
    size_t depth;
    char reason[LADE_MATCH_REASON];
} s_outcome_t;

static int
s_standing(const lade_rule_t *rule)
{
    return rule->rank + (rule->site ? 10000 : 0);
}

// By name, so that the order of files and rules does not matter.
static int
s_by_name(const lade_rule_t *a, const lade_rule_t *b)
{
    int order = strcmp(a->family, b->family);
    return order ? order : strcmp(a->name, b->name);
}

static void
s_forget(s_outcome_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        json_decref(self->answers[i].found);
    self->count = 0;
}

static void
s_note_answer(s_outcome_t *self, const lade_rule_t *rule, json_t *found)
{
    int best = self->count ? s_standing(self->answers[0].rule) : INT32_MIN;
    if (s_standing(rule) < best) {
        json_decref(found);
        return;
    }
    if (s_standing(rule) > best)
        s_forget(self);
    size_t at = self->count++;
    for (; at > 0 && s_by_name(rule, self->answers[at - 1].rule) < 0; at--)
        self->answers[at] = self->answers[at - 1];
    self->answers[at] = (s_answer_t){rule, found};
}

static void
s_note_miss(s_outcome_t *self, const lade_rule_t *rule, size_t depth, const char *reason)
{
    if (depth == 0 || depth < self->depth ||
        (depth == self->depth && self->nearest && s_by_name(rule, self->nearest) > 0))
        return;
    self->nearest = rule;
    self->depth = depth;
    snprintf(self->reason, sizeof self->reason, "%s", reason);
}

static json_t *s_identify_inside(const void *engine, lade_subject_t *inside, const char *type);

static void
s_try_all(const lade_identify_t *self, lade_subject_t *subject, const json_t *given, json_t *report,
          s_outcome_t *outcome)
{
    *outcome = (s_outcome_t){0};
    size_t count = lade_families_count(self->families), depth;
    outcome->answers = calloc(count + 1, sizeof *outcome->answers);
    for (size_t i = 0; outcome->answers && i < count; i++) {
        const lade_rule_t *rule = lade_families_get(self->families, i);
        if (!s_applies(rule, subject, given))
            continue;
        lade_match_t match = {.subject = subject,
                              .patterns = lade_families_patterns(self->families),
                              .given = given,
                              .found = json_object(),
                              .identify = s_identify_inside,
                              .engine = self,
                              .trace = report ? json_array() : NULL};
        bool fits = s_try(&match, rule, &depth);
        if (report)
            lade_explain_note(report, rule, &match, fits, depth);
        if (fits) {
            s_note_answer(outcome, rule, match.found);
        } else {
            s_note_miss(outcome, rule, depth, match.reason);
            json_decref(match.found);
        }
    }
}

static void
s_outcome_free(s_outcome_t *self)
{
    s_forget(self);
    free(self->answers);
}

// The first two answers that differ in what a model is, and the field; NULL if all say the same.
static const char *
s_difference(const s_outcome_t *self, size_t *other_p)
{
    static const char *const fields[] = {"type", "base", "format", "variant", "prediction_type"};
    for (size_t i = 1; i < self->count; i++)
        for (size_t j = 0; j < sizeof fields / sizeof *fields; j++) {
            const json_t *a = json_object_get(self->answers[0].found, fields[j]);
            const json_t *b = json_object_get(self->answers[i].found, fields[j]);
            *other_p = i;
            if ((a || b) && !json_equal(a, b))
                return fields[j];
        }
    return NULL;
}

static json_t *
s_identify_inside(const void *engine, lade_subject_t *inside, const char *type)
{
    s_outcome_t outcome;
    size_t other;
    json_t *given = json_pack("{ss}", "type", type);
    s_try_all(engine, inside, given, NULL, &outcome);
    json_t *found = outcome.count && !s_difference(&outcome, &other)
                        ? json_incref(outcome.answers[0].found)
                        : NULL;
    s_outcome_free(&outcome);
    json_decref(given);
    return found;
}

// ---------------------------------------------------------------------------------------------------
// The answer

static lade_code_t
s_refuse_ambiguous(const s_outcome_t *outcome, const char *field, size_t other, lade_error_t *error)
{
    char one[70], two[70];
    const s_answer_t *a = &outcome->answers[0], *b = &outcome->answers[other];
    return lade_error_set(
        error, LADE_INVALID_MODEL_CONFIG,
        "its %s could be %s (rule %s/%s) or %s (rule %s/%s); say which with --config %s=…", field,
        lade_match_show(json_object_get(a->found, field), one, sizeof one), a->rule->family,
        a->rule->name, lade_match_show(json_object_get(b->found, field), two, sizeof two),
        b->rule->family, b->rule->name, field);
}

static lade_code_t
s_refuse(const lade_subject_t *subject, const s_outcome_t *outcome, lade_error_t *error)
{
    char *words = lade_subject_words(subject);
    char near[400] = "";
    if (outcome->nearest)
        snprintf(near, sizeof near, "; nearest is %s/%s, but %s", outcome->nearest->family,
                 outcome->nearest->name, outcome->reason);
    if (subject->problem.code)
        snprintf(near, sizeof near, "; %.300s", subject->problem.message);
    lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "no model lade knows: %s%s", words, near);
    free(words);
    return LADE_INVALID_MODEL_CONFIG;
}

// Fields that every model has, whatever the family; then what the caller gave.
static void
s_complete(json_t *found, lade_subject_t *subject, const lade_rule_t *rule, const json_t *given)
{
    const char *field;
    json_t *value;
    char *text;
    json_object_set_new(found, "name", json_string(subject->name));
    json_object_set_new(found, "file_size", json_integer(lade_path_size(subject->path)));
    if (asprintf(&text, "%s/%s: %s", rule->family, rule->name, rule->why) >= 0) {
        json_object_set_new(found, "identified_by", json_string(text));
        free(text);
    }
    lade_about_add(subject, found);
    json_object_foreach((json_t *)given, field, value)
    {
        if (json_is_null(value))
            json_object_del(found, field);
        else
            json_object_set(found, field, value);
    }
    if (json_object_get(found, "description") || json_object_get(given, "description"))
        return;
    const char *base = json_string_value(json_object_get(found, "base"));
    const char *type = json_string_value(json_object_get(found, "type"));
    const char *name = json_string_value(json_object_get(found, "name"));
    if (asprintf(&text, "%s %s model %s", base ? base : "any", type ? type : "unknown",
                 name ? name : subject->name) >= 0) {
        json_object_set_new(found, "description", json_string(text));
        free(text);
    }
}

// The given fields that are not null: null takes a field away, which restricts no rule.
static json_t *
s_without_nulls(const json_t *given)
{
    json_t *copy = json_object(), *value;
    const char *field;
    json_object_foreach((json_t *)given, field, value)
    {
        if (!json_is_null(value))
            json_object_set(copy, field, value);
    }
    return copy;
}

static lade_code_t
s_identify(const lade_identify_t *self, lade_subject_t *subject, const json_t *given,
           json_t *report, json_t **found_p, lade_error_t *error)
{
    s_outcome_t outcome;
    lade_code_t code = LADE_OK;
    size_t other;
    json_t *wanted = s_without_nulls(given);
    s_try_all(self, subject, wanted, report, &outcome);
    json_decref(wanted);
    const char *field = s_difference(&outcome, &other);
    if (outcome.count == 0) {
        code = s_refuse(subject, &outcome, error);
    } else if (field) {
        code = s_refuse_ambiguous(&outcome, field, other, error);
    } else {
        *found_p = json_incref(outcome.answers[0].found);
        s_complete(*found_p, subject, outcome.answers[0].rule, given);
    }
    s_outcome_free(&outcome);
    return code;
}

// What would run code if the model were loaded: an array, NULL if nothing.
static json_t *
s_unsafe(const lade_subject_t *subject)
{
    const char *format = subject->tensors ? lade_tensors_format(subject->tensors) : "";
    json_t *findings = NULL;
    if (strcmp(format, "torch") == 0 || strcmp(format, "pickle") == 0)
        findings = json_incref((json_t *)lade_tensors_unsafe(subject->tensors));
    else if (subject->folder)
        lade_safety_folder(subject->path, &findings, NULL);
    else
        lade_safety_check(subject->path, &findings, NULL);
    if (json_array_size(findings))
        return findings;
    json_decref(findings);
    return NULL;
}

// A model nobody knows that would run code is first of all that.
static lade_code_t
s_judge(lade_code_t code, const lade_subject_t *subject, json_t *found, lade_error_t *error)
{
    char words[400];
    json_t *unsafe = s_unsafe(subject);
    if (unsafe && code == LADE_INVALID_MODEL_CONFIG)
        code = lade_error_set(error, LADE_UNSAFE_FILE, "%s: %s", subject->name,
                              lade_safety_words(unsafe, words, sizeof words));
    if (unsafe && !code)
        json_object_set(found, "unsafe", unsafe);
    json_decref(unsafe);
    return code;
}

lade_code_t
lade_identify_path(const lade_identify_t *self, const char *path, const json_t *overrides,
                   json_t **found_p, lade_error_t *error)
{
    return lade_identify_explained(self, path, overrides, found_p, NULL, error);
}

lade_code_t
lade_identify_explained(const lade_identify_t *self, const char *path, const json_t *overrides,
                        json_t **found_p, json_t **report_p, lade_error_t *error)
{
    lade_subject_t *subject;
    lade_error_t spare = {0};
    json_t *report = report_p ? json_array() : NULL;
    *found_p = NULL;
    if (report_p)
        *report_p = NULL;
    error = error ? error : &spare;
    lade_code_t code = lade_subject_new_within(path, overrides, self->max_header, &subject, error);
    if (code) { // a format without reader is a model that cannot be told
        json_decref(report);
        return code == LADE_NOT_IMPLEMENTED ? (error->code = LADE_INVALID_MODEL_CONFIG) : code;
    }
    json_t *given = overrides ? json_copy((json_t *)overrides) : json_object();
    lade_record_canonical(given);
    unsigned parts = lade_subject_parts(subject);
    if (parts > 1) // half a network has the names of a whole one
        code = lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "%s is one of the %u files of a model: give the folder they are in",
                              path, parts);
    else
        code = s_identify(self, subject, given, report, found_p, error);
    code = s_judge(code, subject, *found_p, error);
    json_decref(given);
    lade_subject_destroy(&subject);
    if (report_p)
        *report_p = lade_explain_sum(report);
    json_decref(report);
    return code;
}
