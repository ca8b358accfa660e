// The corpus of tests/models against the shipped families: each model is what it was made as,
// whatever the order of rules and tensors.
#include "common/identify/families_data.h"
#include "common/identify/identify.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { S_SHUFFLES = 3, S_MAX_RULES = 200 };

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
    lade_code_t code = lade_identify_path(engine, path, NULL, &found, &error);
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
    for (uint64_t round = 1; round <= S_SHUFFLES; round++) {
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
    for (int round = 1; round <= S_SHUFFLES; round++) {
        char options[40], name[40];
        snprintf(options, sizeof options, "--small --shuffle %d", round);
        snprintf(name, sizeof name, "shuffled-%d", round);
        json_t *expected = s_make(self, name, options);
        s_assert_all(self->engine, expected);
        json_decref(expected);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_models_are_what_they_were_made_as),
        cmocka_unit_test(test_the_order_of_rules_does_not_matter),
        cmocka_unit_test(test_the_order_of_tensors_does_not_matter),
    };
    return cmocka_run_group_tests_name("corpus", tests, s_set_up, s_tear_down);
}
