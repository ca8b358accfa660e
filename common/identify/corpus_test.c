// The corpus of tests/models against the shipped families: each model is what it was made as,
// whatever the order of rules and tensors.
#include "common/identify/families.h"
#include "common/identify/families_data.h"
#include "common/identify/identify.h"

#include "common/path.h"
#include "common/record.h"
#include "common/taxonomy.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { S_SHUFFLES = 3, S_MAX_RULES = 200 };

// How many orders are tried.
static uint64_t
s_shuffles(void)
{
    const char *wanted = getenv("LADE_SHUFFLES");
    return wanted ? strtoull(wanted, NULL, 10) : S_SHUFFLES;
}

typedef struct {
    char folder[128];
    lade_identify_t *engine; // with the shipped families only
    json_t *expected;        // {path: {field: value} or {"error": CODE}}
} s_place_t;

// Makes the models into a subfolder; what they are is yours.
static json_t *
s_make(const s_place_t *self, const char *name, const char *options)
{
    char command[600], file[200];
    json_error_t problem;
    snprintf(file, sizeof file, "%s/%s.json", self->folder, name);
    snprintf(command, sizeof command,
             "/usr/bin/python3 tests/models/make_models.py %s/%s --expected %s %s", self->folder,
             name, file, options);
    assert_int_equal(system(command), 0);
    json_t *expected = json_load_file(file, 0, &problem);
    assert_non_null(expected);
    return expected;
}

static int
s_set_up(void **state)
{
    s_place_t *self = calloc(1, sizeof *self);
    lade_error_t error = {0};
    *state = self;
    snprintf(self->folder, sizeof self->folder, "%s/lade-corpus-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    if (lade_identify_new(NULL, &self->engine, &error))
        fail_msg("%s", error.message);
    if (access("tests/models/make_models.py", X_OK) == 0) // else not run from the root
        self->expected = s_make(self, "models", "");
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *self = *state;
    lade_identify_destroy(&self->engine);
    lade_path_remove(self->folder, NULL);
    json_decref(self->expected);
    free(self);
    return 0;
}

// Every field of expected has to be in found; null: it has not.
static bool
s_fits(const json_t *expected, const json_t *found)
{
    const char *field;
    json_t *value;
    json_object_foreach((json_t *)expected, field, value)
    {
        const json_t *seen = json_object_get(found, field);
        if (strcmp(field, "given") == 0)
            continue;
        if (json_is_null(value) ? seen != NULL : !json_equal(value, seen))
            return false;
    }
    return true;
}

// 1 and a line on stderr if a model is not what it was made as.
static size_t
s_is_wrong(const lade_identify_t *engine, const char *path, const json_t *expected)
{
    lade_error_t error = {0};
    json_t *found;
    const char *refusal = json_string_value(json_object_get(expected, "error"));
    lade_code_t code =
        lade_identify_path(engine, path, json_object_get(expected, "given"), &found, &error);
    if (found && code == LADE_OK) { // it has to do as a record
        json_object_set_new(found, "path", json_string(path));
        code = lade_record_check(found, &error);
    }
    bool right = refusal ? strcmp(refusal, lade_code_name(code)) == 0
                         : code == LADE_OK && s_fits(expected, found);
    if (!right) {
        char *seen = json_dumps(found, JSON_COMPACT), *wanted = json_dumps(expected, JSON_COMPACT);
        fprintf(stderr, "%s: expected %s, not %s %s\n", path, wanted, seen ? seen : "",
                error.message);
        free(seen);
        free(wanted);
    }
    json_decref(found);
    return !right;
}

static void
s_assert_all(const lade_identify_t *engine, const json_t *expected)
{
    const char *path;
    json_t *fields;
    size_t wrong = 0;
    json_object_foreach((json_t *)expected, path, fields)
    {
        wrong += s_is_wrong(engine, path, fields);
    }
    assert_int_equal(wrong, 0);
}

static void
test_made_models_are_what_they_were_made_as(void **state)
{
    s_place_t *self = *state;
    if (!self->expected)
        skip();
    assert_true(json_object_size(self->expected) > 50);
    s_assert_all(self->engine, self->expected);
}

// ---------------------------------------------------------------------------------------------------
// The order of rules

// The next number of a small generator: the same shuffles on every machine.
static size_t
s_random(uint64_t *state, size_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)((*state >> 33) % below);
}

// Writes a family with its rules in another order. A rule begins with "  - name: " and ends where
// the next one begins.
static void
s_write_shuffled(const char *path, const char *text, size_t len, uint64_t *seed)
{
    const char *starts[S_MAX_RULES + 1], *at = text, *end = text + len;
    size_t count = 0, order[S_MAX_RULES];
    while ((at = memmem(at, (size_t)(end - at), "\n  - name: ", 11))) {
        assert_true(count < S_MAX_RULES);
        starts[count++] = ++at;
    }
    assert_true(count > 0);
    starts[count] = end;
    for (size_t i = 0; i < count; i++) {
        size_t j = s_random(seed, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fwrite(text, 1, (size_t)(starts[0] - text), out);
    for (size_t i = 0; i < count; i++) {
        fwrite(starts[order[i]], 1, (size_t)(starts[order[i] + 1] - starts[order[i]]), out);
        fputc('\n', out);
    }
    assert_int_equal(fclose(out), 0);
}

static void
test_the_order_of_rules_does_not_matter(void **state)
{
    s_place_t *self = *state;
    if (!self->expected)
        skip();
    for (uint64_t round = 1; round <= s_shuffles(); round++) {
        lade_identify_t *engine;
        lade_error_t error = {0};
        char folder[160], path[300];
        uint64_t seed = round;
        snprintf(folder, sizeof folder, "%s/families-%d", self->folder, (int)round);
        assert_int_equal(lade_path_mkdirs(folder, 0755, NULL), LADE_OK);
        for (const lade_families_file_t *file = lade_families_data; file->name; file++) {
            snprintf(path, sizeof path, "%s/%s", folder, file->name);
            s_write_shuffled(path, file->text, file->len, &seed);
        }
        if (lade_identify_new(folder, &engine, &error)) // in place of all shipped ones
            fail_msg("%s", error.message);
        s_assert_all(engine, self->expected);
        lade_identify_destroy(&engine);
    }
}

static void
test_the_order_of_tensors_does_not_matter(void **state)
{
    s_place_t *self = *state;
    if (!self->expected)
        skip();
    for (uint64_t round = 1; round <= s_shuffles(); round++) {
        char options[40], name[40];
        snprintf(options, sizeof options, "--small --shuffle %" PRIu64, round);
        snprintf(name, sizeof name, "shuffled-%" PRIu64, round);
        json_t *expected = s_make(self, name, options);
        s_assert_all(self->engine, expected);
        json_decref(expected);
    }
}

// ---------------------------------------------------------------------------------------------------
// What the families can name

typedef enum { S_NO, S_YES, S_MAYBE } s_answer_t;

// Whether conditions hold as far as the fields assumed tell.
static s_answer_t
s_holds(const lade_condition_t *list, size_t count, bool any, const json_t *assumed)
{
    s_answer_t all = S_YES, one = S_NO;
    for (size_t i = 0; i < count; i++) {
        const lade_condition_t *condition = &list[i];
        s_answer_t answer = S_MAYBE;
        const json_t *value = NULL;
        if (condition->kind != LADE_WHEN_SOURCE)
            answer = s_holds(condition->children, condition->count,
                             condition->kind == LADE_WHEN_ANY, assumed);
        else if (condition->source.kind == LADE_SOURCE_FIELD)
            value = json_object_get(assumed,
                                    json_string_value(json_array_get(condition->source.names, 0)));
        if (condition->kind == LADE_WHEN_NOT && answer != S_MAYBE)
            answer = answer == S_YES ? S_NO : S_YES;
        for (size_t j = 0; value && j < json_array_size(condition->check.is); j++) {
            bool same = json_equal(value, json_array_get(condition->check.is, j));
            answer = same ? S_YES : answer == S_YES ? S_YES : S_NO;
        }
        all = answer == S_NO ? S_NO : all == S_NO ? S_NO : answer == S_MAYBE ? S_MAYBE : all;
        one = answer == S_YES ? S_YES : one == S_YES ? S_YES : answer == S_MAYBE ? S_MAYBE : one;
    }
    return any ? one : all;
}

// Adds every text a value can become to words; what cannot be listed adds none.
static void
s_add_words(const lade_value_t *value, const json_t *assumed, json_t *words)
{
    if (json_is_string(value->constant))
        json_object_set(words, json_string_value(value->constant), json_true());
    for (size_t i = 0; i < json_array_size(value->to); i++)
        json_object_set(words, json_string_value(json_array_get(value->to, i)), json_true());
    for (size_t i = 0; i < value->first_count; i++) {
        const lade_choice_t *choice = &value->first[i];
        s_answer_t answer = s_holds(choice->when, choice->count, false, assumed);
        if (answer != S_NO)
            s_add_words(choice->then, assumed, words);
        if (answer == S_YES && choice->then->constant)
            break; // nothing after it is reached
    }
    if (value->fallback)
        s_add_words(value->fallback, assumed, words);
}

// The words of a rule's field; a field it does not have has none.
static json_t *
s_words(const lade_rule_t *rule, const char *name, const json_t *assumed)
{
    json_t *words = json_object();
    for (size_t i = 0; i < rule->field_count; i++)
        if (strcmp(rule->fields[i].name, name) == 0)
            s_add_words(&rule->fields[i].value, assumed, words);
    return words;
}

static const char *const s_naming[] = {"type", "format", "base", "variant"};
enum { S_NAMING = sizeof s_naming / sizeof *s_naming };

static void
s_name(const json_t *fields, char out[160])
{
    size_t len = 0;
    for (size_t i = 0; i < S_NAMING; i++) {
        const char *word = json_string_value(json_object_get(fields, s_naming[i]));
        len += (size_t)snprintf(out + len, 160 - len, "%s ", word ? word : "");
    }
}

// The taxonomy has the class, and the variant among its variants.
static bool
s_is_known(const json_t *fields)
{
    char class[100];
    const char *type = json_string_value(json_object_get(fields, "type"));
    const char *format = json_string_value(json_object_get(fields, "format"));
    const char *variant = json_string_value(json_object_get(fields, "variant"));
    snprintf(class, sizeof class, "%s.%s", type, format);
    return lade_taxonomy_is_class(type, format) &&
           (!variant ||
            lade_taxonomy_has(
                lade_taxonomy_variants(class, json_string_value(json_object_get(fields, "base"))),
                variant));
}

// Every combination of words the rule's fields can become, from the field at `depth` on; returns
// how many of them no model of the corpus is.
static size_t
s_missing(const lade_rule_t *rule, size_t depth, json_t *assumed, const json_t *seen)
{
    size_t missing = 0;
    char name[160];
    if (depth == S_NAMING) {
        s_name(assumed, name);
        if (!s_is_known(assumed)) {
            fprintf(stderr, "%s/%s: no record can be %s\n", rule->family, rule->name, name);
            return 1;
        }
        if (json_object_get(seen, name))
            return 0;
        fprintf(stderr, "%s/%s: no model of the corpus is %s\n", rule->family, rule->name, name);
        return 1;
    }
    json_t *words = s_words(rule, s_naming[depth], assumed), *value;
    const char *word;
    if (!json_object_size(words) && strcmp(s_naming[depth], "variant") == 0)
        missing = s_missing(rule, depth + 1, assumed, seen);
    json_object_foreach(words, word, value)
    {
        json_object_set_new(assumed, s_naming[depth], json_string(word));
        missing += s_missing(rule, depth + 1, assumed, seen);
        json_object_del(assumed, s_naming[depth]);
    }
    json_decref(words);
    return missing;
}

static void
test_there_is_a_model_of_all_that_the_families_can_name(void **state)
{
    s_place_t *self = *state;
    lade_families_t *families = lade_families_new();
    json_t *seen = json_object(), *fields, *found;
    const char *path;
    char name[160];
    size_t missing = 0;
    if (!self->expected)
        skip();
    json_object_foreach(self->expected, path, fields)
    {
        const json_t *given = json_object_get(fields, "given");
        if (lade_identify_path(self->engine, path, given, &found, NULL) == LADE_OK) {
            s_name(found, name);
            json_object_set_new(seen, name, json_true());
        }
        json_decref(found);
    }
    for (const lade_families_file_t *file = lade_families_data; file->name; file++)
        assert_int_equal(
            lade_families_read(families, file->name, file->text, file->len, false, NULL), LADE_OK);
    for (size_t i = 0; i < lade_families_count(families); i++) {
        json_t *assumed = json_object();
        missing += s_missing(lade_families_get(families, i), 0, assumed, seen);
        json_decref(assumed);
    }
    print_message("%zu models, %zu kinds of them\n", json_object_size(self->expected),
                  json_object_size(seen));
    json_decref(seen);
    lade_families_destroy(&families);
    assert_int_equal(missing, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_models_are_what_they_were_made_as),
        cmocka_unit_test(test_the_order_of_rules_does_not_matter),
        cmocka_unit_test(test_the_order_of_tensors_does_not_matter),
        cmocka_unit_test(test_there_is_a_model_of_all_that_the_families_can_name),
    };
    return cmocka_run_group_tests_name("corpus", tests, s_set_up, s_tear_down);
}
