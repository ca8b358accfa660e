// Names with holes: what fits, what it becomes, and which rules are none.
#include "workers/install/convert_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *
s_json(const char *text)
{
    json_t *value = json_loads(text, 0, NULL);
    assert_non_null(value);
    return value;
}

typedef struct {
    json_t *maps, *words;
    lade_convert_map_t *map;
} s_fixture_t;

static s_fixture_t
s_open(const char *rules)
{
    s_fixture_t self = {json_object(),
                        s_json("{\"wb\": {\"weight\": \"weight\", \"bias\": \"bias\"}, "
                               "\"part\": {\"a\": \"x\", \"a.b\": \"y\"}}"),
                        NULL};
    lade_error_t error = {0};
    json_object_set_new(self.maps, "other", s_json("[{\"o.{n}\": \"other.{n}\"}]"));
    json_object_set_new(self.maps, "map", s_json(rules));
    if (lade_convert_map_new(self.maps, self.words, "map", &self.map, &error))
        fail_msg("%s", error.message);
    return self;
}

static void
s_close(s_fixture_t *self)
{
    lade_convert_map_destroy(&self->map);
    json_decref(self->maps);
    json_decref(self->words);
}

static void
s_becomes(const s_fixture_t *self, const char *old, const char *new)
{
    lade_convert_target_t *target = calloc(1, sizeof *target);
    assert_non_null(target);
    bool found = lade_convert_map_find(self->map, old, target);
    if (new) {
        assert_true(found);
        assert_string_equal(target->names[0], new);
    } else {
        assert_false(found);
    }
    free(target);
}

static void
test_numbers_are_reckoned_with(void **state)
{
    (void)state;
    s_fixture_t self = s_open("[{\"b.{n}.{m}\": \"d.{(n-1)/3}.r.{(n-1)%3}.{3-m}.{2*n+m}\"}, "
                              "{\"use\": \"other\"}]");
    s_becomes(&self, "b.1.0", "d.0.r.0.3.2");
    s_becomes(&self, "b.11.3", "d.3.r.1.0.25");
    s_becomes(&self, "b.0.0", NULL); // n - 1 would be below 0
    s_becomes(&self, "b.1.4", NULL);
    s_becomes(&self, "b.01.0", NULL); // no name that a number makes
    s_becomes(&self, "b.1234567.0", NULL);
    s_becomes(&self, "b..0", NULL);
    s_becomes(&self, "b.1.0.weight", NULL);
    s_becomes(&self, "o.7", "other.7");
    s_close(&self);
}

static void
test_words_and_the_rest(void **state)
{
    (void)state;
    s_fixture_t self =
        s_open("[{\"p.{part}.{wb}\": \"q.{wb}.{part}\"}, {\"all.{*}\": \"{*}.end\"}, "
               "{\"all.{n}\": \"never\"}]");
    s_becomes(&self, "p.a.weight", "q.weight.x");
    s_becomes(&self, "p.a.b.bias", "q.bias.y"); // the longer word, though the shorter comes first
    s_becomes(&self, "p.c.bias", NULL);
    s_becomes(&self, "p.a.scale", NULL);
    s_becomes(&self, "all.1.2", "1.2.end");
    s_becomes(&self, "all.1", "1.end"); // the first rule that fits counts
    s_close(&self);
}

static void
test_a_new_name_that_is_too_long_is_none(void **state)
{
    (void)state;
    s_fixture_t self = s_open("[{\"{*}\": \"{*}{*}\"}]");
    char name[LADE_CONVERT_MAX_NAME];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    s_becomes(&self, name, NULL);
    s_becomes(&self, "ab", "abab");
    s_close(&self);
}

static void
test_what_is_done(void **state)
{
    (void)state;
    s_fixture_t self =
        s_open("[{\"drop\": \"d.{*}\"}, {\"from\": \"s\", \"split\": [\"s1\", \"s2\"]}, "
               "{\"from\": \"l\", \"to\": \"L\", \"as\": \"linear\"}, "
               "{\"from\": \"t\", \"to\": \"T\", \"as\": \"transposed\"}]");
    lade_convert_target_t *target = calloc(1, sizeof *target);
    assert_non_null(target);
    assert_true(lade_convert_map_find(self.map, "d.x", target));
    assert_int_equal(target->how, LADE_CONVERT_DROP);
    assert_true(lade_convert_map_find(self.map, "s", target));
    assert_int_equal(target->how, LADE_CONVERT_SPLIT);
    assert_int_equal(target->count, 2);
    assert_string_equal(target->names[1], "s2");
    assert_true(lade_convert_map_find(self.map, "l", target));
    assert_int_equal(target->how, LADE_CONVERT_LINEAR);
    assert_true(lade_convert_map_find(self.map, "t", target));
    assert_int_equal(target->how, LADE_CONVERT_TRANSPOSED);
    free(target);
    s_close(&self);
}

static void
test_wrong_rules_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *rules, *words;
    } rows[] = {
        {"[]", "there is no map 'map'"},
        {"[{\"a.{n}\": \"b.{m}\"}]", "'b.{m}' cannot be made from 'a.{n}'"},
        {"[{\"a.{n}\": \"b.{n\"}]", "cannot be made"},
        {"[{\"a.{n}\": \"b.{n+}\"}]", "cannot be made"},
        {"[{\"a.{n}\": \"b.{(n}\"}]", "cannot be made"},
        {"[{\"a.{n}\": \"b.{n/0}\"}]", "cannot be made"},
        {"[{\"a.{n}\": \"b.{99999999}\"}]", "cannot be made"},
        {"[{\"a.{*}.b\": \"c\"}]", "has to be its end"},
        {"[{\"a.{n}.{n}\": \"c\"}]", "{n} is there twice"},
        {"[{\"a.{nobody}\": \"c\"}]", "no list of words 'nobody'"},
        {"[{\"a.{}\": \"c\"}]", "a hole is {NAME}"},
        {"[{\"a.{N}\": \"c\"}]", "{a} to {z}"},
        {"[{\"\": \"c\"}]", "a name is empty"},
        {"[{\"a\": 7}]", "its new name is a text"},
        {"[{\"a\": \"b\", \"c\": \"d\"}]", "a rule is OLD: NEW"},
        {"[7]", "a rule is OLD: NEW"},
        {"[{\"from\": \"a\", \"split\": [\"b\"]}]", "split is a list of 2 to 8"},
        {"[{\"from\": \"a\", \"to\": \"b\", \"as\": \"cube\"}]", "as: linear"},
        {"[{\"use\": \"map\"}]", "uses itself"},
        {"[{\"use\": \"nobody\"}]", "there is no map 'nobody'"},
    };
    json_t *words = s_json("{\"wb\": {\"weight\": \"weight\"}}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *maps = json_object();
        lade_convert_map_t *map;
        lade_error_t error = {0};
        json_object_set_new(maps, "map", s_json(rows[i].rules));
        assert_int_equal(lade_convert_map_new(maps, words, "map", &map, &error), LADE_CONFIG_ERROR);
        assert_null(map);
        if (!strstr(error.message, rows[i].words))
            fail_msg("%s: %s", rows[i].rules, error.message);
        json_decref(maps);
    }
    json_decref(words);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_reckoned_with),
        cmocka_unit_test(test_words_and_the_rest),
        cmocka_unit_test(test_a_new_name_that_is_too_long_is_none),
        cmocka_unit_test(test_what_is_done),
        cmocka_unit_test(test_wrong_rules_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
