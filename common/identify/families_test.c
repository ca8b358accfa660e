// The reader of family files: each mistake is told with its file and line.
#include "common/identify/families.h"

#include "common/identify/families_data.h"
#include "common/identify/predicates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "rules:\n  - name: a\n    why: b\n    on: file\n"
#define SET "    set: {type: vae, base: sd-1, format: checkpoint}\n"
#define WHEN "    when: [{key: x}]\n"

static void
test_each_mistake_is_told_with_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } rows[] = {
        // clang-format off
        {"",                                                          "f.yaml:1: the file is empty"},
        {"- a\n- b\n",                                                "f.yaml:1: a family file has to be a map"},
        {"rules: [\n",                                                "f.yaml:2:"},
        {"about: x\n",                                                "f.yaml:1: a family file needs rules"},
        {"rules: []\nrulez: []\n",                                    "f.yaml:2: a family file knows no 'rulez'"},
        {"rules:\n  - name: a\n",                                     "f.yaml:2: a rule needs name, why"},
        {"rules:\n  - name: a\n    why: b\n    on: disk\n",           "f.yaml:4: on is file or folder"},
        {HEAD SET,                                                    "f.yaml:2: rule 'a' has no when"},
        {HEAD WHEN,                                                   "f.yaml:2: rule 'a' has no set"},
        {HEAD "    rank: high\n" WHEN SET,                            "f.yaml:5: a number is expected"},
        {HEAD "    rank: 1.5\n" WHEN SET,                             "f.yaml:5: a whole number from -1000 to 1000"},
        {HEAD "    when: []\n" SET,                                   "f.yaml:5: a list of conditions"},
        {HEAD "    when:\n      - kee: x\n" SET,                      "f.yaml:6: a condition knows no 'kee'"},
        {HEAD "    when:\n      - is: x\n" SET,                       "f.yaml:6: a condition needs key"},
        {HEAD "    when:\n      - key: x\n        key: y\n" SET,      "'key' is there twice"},
        {HEAD "    when:\n      - {key: x, metadata: y}\n" SET,       "f.yaml:6: only one of"},
        {HEAD "    when:\n      - {json: x}\n" SET,                   "f.yaml:6: 'json' cannot be asked of a file"},
        {HEAD "    when:\n      - {predicate: x}\n" SET,              "f.yaml:6: there is no predicate 'x'"},
        {HEAD "    when:\n      - {predicate: submodels}\n" SET,      "f.yaml:6: this predicate cannot be asked of a file"},
        {HEAD "    when:\n      - {metadata: x, axis: 1}\n" SET,      "f.yaml:6: axis and take go with key"},
        {HEAD "    when:\n      - {key: x, axis: 99}\n" SET,          "f.yaml:6: a whole number from -8 to 7"},
        {HEAD "    when:\n      - {key: x, take: size}\n" SET,        "f.yaml:6: take is rank, dtype, count, input or output"},
        {HEAD "    when:\n      - {key: x, axis: 1, take: rank}\n" SET, "f.yaml:6: axis and take exclude"},
        {HEAD "    when:\n      - {key: {begin: x}}\n" SET,           "f.yaml:6: a pattern knows no 'begin'"},
        {HEAD "    when:\n      - {key: {regex: '('}}\n" SET,         "f.yaml:6: regular expression '('"},
        {HEAD "    when:\n      - {key: {regex: '((a{1,99}){9}){9}'}}\n" SET, "f.yaml:6: regular expression '((a{1,99}){9}){9}' repeats"},
        {HEAD "    when:\n      - {key: {regex: 'a{70000}'}}\n" SET,  "f.yaml:6: regular expression 'a{70000}' repeats"},
        {HEAD "    when:\n      - {key: {regex: 'x++++++++++++++++'}}\n" SET, "f.yaml:6: regular expression 'x++++++++++++++++' repeats"},
        {HEAD "    when:\n      - {key: {regex: 'x**'}}\n" SET, "f.yaml:6: regular expression 'x**' repeats"},
        {HEAD "    when:\n      - {key: {regex: '(a)\\1'}}\n" SET,     "f.yaml:6: regular expression '(a)\\1' refers"},
        {HEAD "    when:\n      - {key: [[x]]}\n" SET,                "f.yaml:6: text is expected"},
        {HEAD "    when:\n      - {name: mine}\n" SET,                "f.yaml:6: name is 'own' or 'parent'"},
        {HEAD "    when:\n      - {name: own, every: x}\n" SET,       "f.yaml:6: every goes with key"},
        {HEAD "    when:\n      - {any: [{key: x}], key: y}\n" SET,   "f.yaml:6: any, all and not stand alone"},
        {HEAD WHEN "    set: {type: vae}\n",                          "f.yaml:6: rule 'a' does not set base"},
        {HEAD WHEN "    set: {type: vea, base: sd-1, format: x}\n",   "f.yaml:6: 'vea' is no type"},
        {HEAD WHEN "    set:\n      type: vae\n      format: checkpoint\n      base: {key: x, axis: 0, map: {1: sd-9}}\n",
                                                                      "f.yaml:9: 'sd-9' is no base"},
        {HEAD WHEN "    set:\n      type: vae\n      colour: red\n",  "f.yaml:8: there is no field 'colour'"},
        {HEAD WHEN "    set:\n      type: vae\n      type: vae\n",    "f.yaml:8: 'type' is there twice"},
        {HEAD WHEN SET "    also: {base: x}\n",                       "f.yaml:7: 'base' belongs under set"},
        {HEAD WHEN "    set: {type: vae, base: {map: {1: sd-1}}}\n",  "f.yaml:6: map needs a source"},
        {HEAD WHEN "    set: {type: vae, base: {first: [{when: {key: x}}]}}\n", "f.yaml:6: an entry of first needs then"},
        {HEAD WHEN "    set: {type: vae, base: {value: x, first: []}}\n", "f.yaml:6: a source, first and value exclude"},
        {HEAD "    when: [{key: {suffix: [a, b], sibling: c}}]\n" SET, "f.yaml:5: sibling takes the place of one suffix"},
        {HEAD "    when: [{key: {prefix: a, sibling: c}}]\n" SET,    "f.yaml:5: sibling takes the place of one suffix"},
        {HEAD "    when: [{name: own, in: .}]\n" SET,                "f.yaml:5: in goes with key"},
        {HEAD "    when: [{key: x, in: .}]\n" SET,                   "f.yaml:5: 'key in' cannot be asked of a file"},
        {HEAD WHEN SET "  - name: a\n    why: b\n    on: file\n" WHEN SET, "f.yaml:7: there are two rules 'a'"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_families_t *families = lade_families_new();
        lade_error_t error = {0};
        lade_code_t code = lade_families_read(families, "f.yaml", rows[i].text,
                                              strlen(rows[i].text), false, &error);
        if (code != LADE_CONFIG_ERROR || !strstr(error.message, rows[i].words))
            fail_msg("row %zu: %s: '%s', not '%s'", i, lade_code_name(code), error.message,
                     rows[i].words);
        lade_families_destroy(&families);
    }
}

static void
test_nesting_without_end_is_refused(void **state)
{
    (void)state;
    char text[4000] = HEAD "    when:\n      - ";
    for (int i = 0; i < 200; i++)
        strcat(text, "{not: ");
    strcat(text, "{key: x}");
    for (int i = 0; i < 200; i++)
        strcat(text, "}");
    strcat(text, "\n" SET);
    lade_families_t *families = lade_families_new();
    lade_error_t error = {0};
    assert_int_equal(lade_families_read(families, "f.yaml", text, strlen(text), false, &error),
                     LADE_CONFIG_ERROR);
    assert_non_null(strstr(error.message, "nested"));
    lade_families_destroy(&families);
}

static void
test_a_rule_is_read_whole(void **state)
{
    (void)state;
    static const char text[] =
        "about: words\n"
        "rules:\n"
        "  - name: one\n"
        "    why: because\n"
        "    on: folder\n"
        "    rank: -3\n"
        "    when:\n"
        "      - {json: [a.json, b.json], at: x.y, min: 1, max: 2.5}\n"
        "      - not: {class: config.json, is: [A, B]}\n"
        "    set:\n"
        "      type: vae\n"
        "      base: {json: a.json, at: w, map: {768: sd-1}, may_be: [sd-2], default: any}\n"
        "      format: {value: diffusers}\n"
        "    also:\n"
        "      latent_channels: 16\n";
    lade_families_t *families = lade_families_new();
    lade_error_t error = {0};
    if (lade_families_read(families, "dir/fam.yaml", text, strlen(text), true, &error))
        fail_msg("%s", error.message);
    assert_true(lade_families_has(families, "fam"));
    assert_false(lade_families_has(families, "dir/fam"));
    const lade_rule_t *rule = lade_families_get(families, 0);
    assert_string_equal(rule->name, "one");
    assert_true(rule->folder && rule->site && rule->rank == -3);
    assert_int_equal(rule->when_count, 2);
    assert_string_equal(rule->when[0].source.at, "x.y");
    assert_true(rule->when[0].check.has_min && rule->when[0].check.max == 2.5);
    assert_int_equal(rule->when[1].kind, LADE_WHEN_NOT);
    assert_int_equal(rule->field_count, 4);
    assert_string_equal(rule->fields[3].name, "latent_channels");
    assert_string_equal(json_string_value(rule->fields[1].value.fallback->constant), "any");
    lade_families_destroy(&families);
}

static void
test_the_shipped_families_are_right(void **state)
{
    (void)state;
    lade_families_t *families = lade_families_new();
    lade_error_t error = {0};
    size_t files = 0;
    for (const lade_families_file_t *file = lade_families_data; file->name; file++, files++)
        if (lade_families_read(families, file->name, file->text, file->len, false, &error))
            fail_msg("%s", error.message);
    assert_true(files >= 5);
    assert_true(lade_families_count(families) > files);
    for (const lade_predicate_t *row = lade_predicates; row->name; row++)
        assert_true(row->read && row->help && *row->help);
    lade_families_destroy(&families);
    assert_null(families);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_mistake_is_told_with_file_and_line),
        cmocka_unit_test(test_nesting_without_end_is_refused),
        cmocka_unit_test(test_a_rule_is_read_whole),
        cmocka_unit_test(test_the_shipped_families_are_right),
    };
    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
