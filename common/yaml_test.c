// YAML: what comes back is what was written, and what people write is read as they meant it.
#include "common/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *
s_read(const char *text)
{
    json_t *value;
    lade_error_t error = {0};
    if (lade_yaml_parse("t", text, strlen(text), &value, NULL, &error))
        fail_msg("%s: %s", text, error.message);
    return value;
}

static void
s_refuses(const char *text, lade_code_t code, const char *words)
{
    json_t *value = (json_t *)text;
    lade_error_t error = {0};
    assert_int_equal(lade_yaml_parse("t", text, strlen(text), &value, NULL, &error), code);
    if (!strstr(error.message, words))
        fail_msg("'%s' does not say '%s'", error.message, words);
    assert_null(value);
}

static char *
s_written(const json_t *value)
{
    lade_buf_t buf = LADE_BUF(1 << 24);
    lade_error_t error = {0};
    if (lade_yaml_write(value, &buf, &error))
        fail_msg("%s", error.message);
    return buf.data ? lade_buf_take(&buf) : strdup("");
}

static void
s_round(json_t *value)
{
    char *text = s_written(value);
    json_t *again = s_read(text);
    if (!json_equal(value, again)) {
        char *want = json_dumps(value, JSON_ENCODE_ANY), *got = json_dumps(again, JSON_ENCODE_ANY);
        fail_msg("%s became %s by way of\n%s", want, got, text);
    }
    free(text);
    json_decref(again);
    json_decref(value);
}

static void
test_texts_come_back(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        " ",
                                        "a",
                                        "a b",
                                        " a",
                                        "a ",
                                        "null",
                                        "Null",
                                        "~",
                                        "true",
                                        "yes",
                                        "No",
                                        "on",
                                        "y",
                                        "1",
                                        "-1",
                                        "+1",
                                        "0123",
                                        "0x1f",
                                        "0o17",
                                        "1e5",
                                        "1.5",
                                        ".5",
                                        "1.",
                                        ".inf",
                                        ".nan",
                                        "1_000",
                                        "1:20",
                                        "2024-01-01",
                                        "=",
                                        "<<",
                                        "-",
                                        "- a",
                                        "? a",
                                        ": a",
                                        "a: b",
                                        "a:b",
                                        "a #b",
                                        "#a",
                                        "a#b",
                                        "!a",
                                        "&a",
                                        "*a",
                                        "@a",
                                        "`a",
                                        "%a",
                                        "{a}",
                                        "[a]",
                                        ",a",
                                        "|",
                                        ">",
                                        "'a'",
                                        "\"a\"",
                                        "it's",
                                        "\\",
                                        "a\\nb",
                                        "a\nb",
                                        "a\nb\n",
                                        "a\n\nb",
                                        "\na",
                                        "\n",
                                        "\n\n",
                                        "a\n\n",
                                        "a \nb",
                                        " a\nb",
                                        "a\n b",
                                        "a\n\tb",
                                        "a\tb",
                                        "\ta",
                                        "a\r\nb",
                                        "a\rb",
                                        "a\nb ",
                                        "# a\nb",
                                        "- a\nb",
                                        "---",
                                        "...",
                                        "--- a",
                                        "a\n---\nb",
                                        "%YAML",
                                        "ä",
                                        "日本語",
                                        "😀",
                                        "\x7f",
                                        "\x01",
                                        "a\xc2\x85"
                                        "b",
                                        "\xe2\x80\xa8",
                                        "\xef\xbb\xbf"
                                        "a",
                                        "\xe2\x80\x8b",
                                        "éa\nb",
                                        "sd-1/main/x y.safetensors",
                                        "C:\\models",
                                        "https://x/y?a=b&c=d#e",
                                        "imohash:00ff",
                                        "1e10:a",
                                        "key: |\n  x",
                                        "\"",
                                        "'",
                                        "a'b\"c\n",
                                        "a\xc2\xa0"
                                        "b\nc",
                                        NULL};
    for (size_t i = 0; texts[i]; i++) {
        s_round(json_string(texts[i]));
        s_round(json_pack("{s:s}", "k", texts[i]));
        s_round(json_pack("[s]", texts[i]));
        s_round(json_pack("{s:{s:[s,{s:s}]}}", "a", "b", texts[i], "c", texts[i]));
        json_t *map = json_object();
        json_object_set_new(map, texts[i], json_integer(1));
        s_round(map);
    }
    s_round(json_stringn("a\0b", 3));
    s_round(json_stringn_nocheck("\xff\xfe\0", 3)); // !!binary
    s_round(json_stringn_nocheck("caf\xe9", 4));
    s_round(json_stringn_nocheck("ca\xe9", 3));
    json_t *bytes = json_stringn_nocheck("\xff", 1);
    char *text = s_written(bytes);
    assert_non_null(strstr(text, "!!binary"));
    free(text);
    json_decref(bytes);
}

static void
test_values_come_back(void **state)
{
    (void)state;
    static const double numbers[] = {0.0,  1.0,  -1.5,          0.1,     1e300,  -1e-300,
                                     1e20, 1e15, 123456789.125, 1.0 / 3, 5e-324, 1764220000.123456};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        s_round(json_real(numbers[i]));
    s_round(json_integer(INT64_MAX));
    s_round(json_integer(INT64_MIN));
    s_round(json_null());
    s_round(json_pack("{s:b, s:b, s:n}", "t", 1, "f", 0, "n"));
    s_round(json_pack("{s:{}, s:[]}", "m", "l"));
    s_round(json_pack("[[[i, []], {}], [{s:[{s:i}]}]]", 1, "a", "b", 2));
    json_t *deep = json_integer(1);
    for (int i = 0; i < LADE_YAML_MAX_DEPTH; i++)
        deep = json_pack(i % 2 ? "[o]" : "{s:o}", i % 2 ? (void *)deep : (void *)"k", deep);
    json_decref(deep);
}

static void
test_order_and_form_are_for_people(void **state)
{
    (void)state;
    json_t *map = json_pack("{s:s, s:[s,s], s:{s:i}, s:s, s:s, s:n, s:f}", "name", "My style",
                            "tags", "b", "a", "m", "z", 1, "description", "one\ntwo\n", "code",
                            "007", "none", "half", 0.5);
    char *text = s_written(map);
    assert_string_equal(text, "name: My style\n"
                              "tags:\n- b\n- a\n"
                              "m:\n  z: 1\n"
                              "description: |\n  one\n  two\n"
                              "code: \"007\"\n"
                              "none: null\n"
                              "half: 0.5\n");
    free(text);
    json_decref(map);
}

static void
test_what_people_write_is_read_as_they_meant_it(void **state)
{
    (void)state;
    json_t *got = s_read("# a comment\n"
                         "a: 12\nb: 0x1F\nc: 0o17\nd: 1.5e3\ne: .5\nf: ~\ng:\nh: TRUE\n"
                         "i: 007\nj: yes\nk: 2024-01-01\nl: 12:30\nm: '12'\nn: \"a\\tb\"\n"
                         "o: !!str 12\np: !!float 3\nq: >\n  one\n  two\nr: [1, {x: y}]\n"
                         "s: &s {v: 1}\nt: *s\n12: number as a key\n");
    json_t *want = json_pack(
        "{s:i, s:i, s:i, s:f, s:f, s:n, s:n, s:b, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, "
        "s:[i, {s:s}], s:{s:i}, s:{s:i}, s:s}",
        "a", 12, "b", 31, "c", 15, "d", 1500.0, "e", 0.5, "f", "g", "h", 1, "i", "007", "j", "yes",
        "k", "2024-01-01", "l", "12:30", "m", "12", "n", "a\tb", "o", "12", "p", 3, "q",
        "one two\n", "r", 1, "x", "y", "s", "v", 1, "t", "v", 1, "12", "number as a key");
    assert_true(json_equal(got, want));
    json_decref(got);
    json_decref(want);
    json_t *empty;
    assert_int_equal(lade_yaml_parse("t", "# nothing\n", 10, &empty, NULL, NULL), LADE_OK);
    assert_null(empty);
}

static void
test_what_is_wrong_is_named_with_its_line(void **state)
{
    (void)state;
    s_refuses("a: 1\nb: [1, 2\nc: 3\n", LADE_CORRUPT, "t:3:");
    s_refuses("a: 1\na: 2\n", LADE_CORRUPT, "t:2: 'a' is there twice");
    s_refuses("a: 1\n? [x]\n: 1\n", LADE_CORRUPT, "t:2: a key has to be a word");
    s_refuses("a: 99999999999999999999\n", LADE_CORRUPT, "t:1: a number that cannot be kept");
    s_refuses("a:\n  b: .inf\n", LADE_CORRUPT, "t:2: a number that cannot be kept");
    s_refuses("a: 1\n---\nb: 2\n", LADE_CORRUPT, "t:2: a second document");
    s_refuses("a: *none\n", LADE_CORRUPT, "t:1: an alias of what is not there");
    s_refuses("a: &a [*a]\n", LADE_CORRUPT, "t:1: an alias of what is not there, or of itself");
    s_refuses("a: !!python/object:os.system x\n", LADE_CORRUPT, "t:1: a tag");
    s_refuses("a: !!int x\n", LADE_CORRUPT, "t:1: the value is not what its tag says");
    s_refuses("a: !!binary '*'\n", LADE_CORRUPT, "t:1: !!binary");
    s_refuses("a: 1\n<<: {b: 1}\n", LADE_CORRUPT, "t:2: merging");
    s_refuses("a: 1\n\tb: 1\n", LADE_CORRUPT, "t:2:");
    s_refuses("a: 1\nb: \xff\n", LADE_CORRUPT, "no YAML file");
    json_t *value, *lines;
    static const char text[] = "x:\n  a: 1\n  b: 2\n\ny: {a: 1,\n  c: 2}\n";
    assert_int_equal(lade_yaml_parse("t", text, strlen(text), &value, &lines, NULL), LADE_OK);
    assert_int_equal(lade_yaml_line(lines, "x", NULL), 1);
    assert_int_equal(lade_yaml_line(lines, "x", "b"), 3);
    assert_int_equal(lade_yaml_line(lines, "x", "none"), 1);
    assert_int_equal(lade_yaml_line(lines, "y", "c"), 6);
    assert_int_equal(lade_yaml_line(lines, "none", "c"), 1);
    json_decref(value);
    json_decref(lines);
}

static void
test_ceilings(void **state)
{
    (void)state;
    lade_buf_t buf = LADE_BUF(1 << 24);
    for (int i = 0; i <= LADE_YAML_MAX_DEPTH + 1; i++)
        lade_buf_add(&buf, "[", 1, NULL);
    s_refuses(lade_buf_text(&buf), LADE_TOO_LARGE, "deep");
    lade_buf_clear(&buf);
    // each list is nine times the one before: a few lines that stand for billions of values
    lade_buf_addf(&buf, NULL, "a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 12; i++) {
        lade_buf_addf(&buf, NULL, "a%d: &a%d [", i, i);
        for (int j = 0; j < 9; j++)
            lade_buf_addf(&buf, NULL, "%s*a%d", j ? "," : "", i - 1);
        lade_buf_addf(&buf, NULL, "]\n");
    }
    s_refuses(lade_buf_text(&buf), LADE_TOO_LARGE, "values");
    lade_buf_free(&buf);
}

// Random trees of awkward texts.
static json_t *
s_random(unsigned *seed, int depth)
{
    static const char *const bits[] = {"a", " ",  "\n", ":", "#", "-", "'", "\"", "ä",
                                       "1", "\t", "|",  "😀", "{", "]", ",", "\\", "\r"};
    int kind = (int)(rand_r(seed) % (depth < 4 ? 8 : 5));
    if (kind < 4) {
        char text[64] = "";
        for (int len = (int)(rand_r(seed) % 10); len > 0; len--)
            strcat(text, bits[rand_r(seed) % (sizeof bits / sizeof *bits)]);
        return json_string(text);
    }
    if (kind == 4)
        return rand_r(seed) % 2 ? json_integer((json_int_t)rand_r(seed) - 1000)
                                : json_real(rand_r(seed) / 7.0);
    json_t *made = kind == 5 ? json_array() : json_object();
    for (int len = (int)(rand_r(seed) % 4); len > 0; len--) {
        json_t *key = s_random(seed, 9), *value = s_random(seed, depth + 1);
        if (kind == 5)
            json_array_append_new(made, value);
        else
            json_object_set_new(made, json_is_string(key) ? json_string_value(key) : "k", value);
        json_decref(key);
    }
    return made;
}

static void
test_random_trees_come_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3000; i++) {
        unsigned seed = i;
        s_round(s_random(&seed, 0));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_come_back),
        cmocka_unit_test(test_values_come_back),
        cmocka_unit_test(test_order_and_form_are_for_people),
        cmocka_unit_test(test_what_people_write_is_read_as_they_meant_it),
        cmocka_unit_test(test_what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(test_ceilings),
        cmocka_unit_test(test_random_trees_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
