// Looking into packed maps: the same as unpacking says, and nothing past the end.
#include "broker/peek.h"

#include "common/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char s_text[] =
    "{\"key\": \"k\", \"name\": \"a name that is longer than thirty-one bytes, by some\", "
    "\"empty\": \"\", \"none\": null, \"yes\": true, \"small\": 7, \"minus\": -3, \"large\": "
    "70000, "
    "\"huge\": 5000000000, \"low\": -70000, \"real\": 1.25, "
    "\"list\": [\"a\", 1, [\"x\"], \"\", \"b\"], \"map\": {\"key\": \"inner\", \"list\": [{}, "
    "[]]}, "
    "\"last\": \"end\"}";

static lade_buf_t
s_packed(const char *text)
{
    lade_buf_t buf = LADE_BUF(1 << 20);
    json_t *value = json_loads(text, 0, NULL);
    assert_non_null(value);
    assert_int_equal(lade_wire_from_json(value, &buf, NULL), LADE_OK);
    json_decref(value);
    return buf;
}

static void
s_expect_text(lade_bytes_t map, const char *key, const char *wanted)
{
    lade_bytes_t text = {NULL, 0};
    assert_int_equal(lade_peek_text(map, key, &text), wanted != NULL);
    if (wanted) {
        assert_int_equal(text.len, strlen(wanted));
        assert_memory_equal(text.data, wanted, text.len);
    }
}

static void
test_members_are_what_was_packed(void **state)
{
    (void)state;
    lade_buf_t buf = s_packed(s_text);
    lade_bytes_t map = {buf.data, buf.len}, value, item;
    s_expect_text(map, "key", "k");
    s_expect_text(map, "name", "a name that is longer than thirty-one bytes, by some");
    s_expect_text(map, "empty", "");
    s_expect_text(map, "last", "end");
    s_expect_text(map, "none", NULL);
    s_expect_text(map, "nam", NULL);
    s_expect_text(map, "names", NULL);
    s_expect_text(map, "list", NULL);
    static const struct {
        const char *key;
        double number;
    } numbers[] = {{"small", 7},  {"minus", -3},   {"large", 70000},
                   {"huge", 5e9}, {"low", -70000}, {"real", 1.25}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        double number = 0;
        assert_true(lade_peek_number(map, numbers[i].key, &number));
        assert_true(number == numbers[i].number);
    }
    double number;
    assert_false(lade_peek_number(map, "key", &number));
    assert_false(lade_peek_number(map, "yes", &number));
    char items[16] = "";
    size_t at = 0;
    assert_true(lade_peek(map, "list", &value));
    while (lade_peek_item(value, &at, &item))
        snprintf(items + strlen(items), sizeof items - strlen(items), "%.*s,", (int)item.len,
                 (const char *)item.data);
    assert_string_equal(items, "a,,b,");
    assert_true(lade_peek(map, "map", &value));
    s_expect_text(value, "key", "inner");
    at = 0;
    assert_false(lade_peek_item(map, &at, &item)); // no array
    assert_false(lade_peek(value, "none", &item));
    lade_buf_free(&buf);
}

static void
test_several_members_come_in_one_pass(void **state)
{
    (void)state;
    static const char *const keys[] = {"last", "gone", "key"};
    lade_buf_t buf = s_packed(s_text);
    lade_bytes_t values[3] = {0}, text;
    lade_peek_members((lade_bytes_t){buf.data, buf.len}, keys, 3, values);
    assert_true(lade_peek_is_text(values[0], &text) && text.len == 3);
    assert_null(values[1].data);
    assert_true(lade_peek_is_text(values[2], &text) && text.len == 1);
    lade_buf_free(&buf);
}

// With a sanitizer: every beginning is in memory of exactly its length.
static void
test_what_is_cut_off_is_not_read_past_its_end(void **state)
{
    (void)state;
    lade_buf_t buf = s_packed(s_text);
    for (size_t len = 0; len < buf.len; len++) {
        char *cut = malloc(len ? len : 1);
        memcpy(cut, buf.data, len);
        lade_bytes_t map = {cut, len}, value, item, values[1] = {{NULL, 0}};
        size_t at = 0;
        s_expect_text(map, "last", NULL);
        lade_peek(map, "map", &value);
        if (lade_peek(map, "list", &value))
            while (lade_peek_item(value, &at, &item))
                continue;
        lade_peek_members(map, (const char *const[]){"last"}, 1, values);
        assert_null(values[0].data);
        at = 0;
        assert_false(lade_peek_next(map, &at, &value));
        free(cut);
    }
    lade_buf_free(&buf);
}

static void
test_any_bytes_are_looked_at_safely(void **state)
{
    (void)state;
    srandom(7);
    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)(random() % 40);
        uint8_t *bytes = malloc(len ? len : 1);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)random();
        if (len && round % 2)
            bytes[0] = (uint8_t)(0x80 | (random() & 15)); // a map
        lade_bytes_t map = {bytes, len}, value, item;
        double number;
        size_t at = 0;
        lade_peek(map, "x", &value);
        lade_peek_number(map, "", &number);
        lade_peek_is_number(map, &number);
        while (lade_peek_item(map, &at, &item))
            continue;
        at = 0;
        while (lade_peek_next(map, &at, &value))
            continue;
        free(bytes);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_are_what_was_packed),
        cmocka_unit_test(test_several_members_come_in_one_pass),
        cmocka_unit_test(test_what_is_cut_off_is_not_read_past_its_end),
        cmocka_unit_test(test_any_bytes_are_looked_at_safely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
