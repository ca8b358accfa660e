// Bodies: what is refused before msgpack sees it, and what comes back as it went in. Also buffers
// and errors, which everything else is made of.
#include "common/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ---------------------------------------------------------------------------------------------------
// Errors

static void
test_every_code_has_a_name_a_help_and_a_way_back(void **state)
{
    (void)state;
    for (int code = 0; code < LADE_CODE_COUNT; code++) {
        assert_true(strlen(lade_code_name((lade_code_t)code)) > 0);
        assert_true(strlen(lade_code_help((lade_code_t)code)) > 0);
        assert_int_equal(lade_code_find(lade_code_name((lade_code_t)code)), code);
        assert_in_range(lade_code_exit((lade_code_t)code), code ? 1 : 0, code ? 5 : 0);
    }
    assert_int_equal(lade_code_find("no such code"), LADE_INTERNAL);
    assert_string_equal(lade_code_name((lade_code_t)9999), "internal");
    assert_non_null(lade_code_help((lade_code_t)9999));
}

static void
test_errors_are_filled_wrapped_and_may_be_nobodys(void **state)
{
    (void)state;
    lade_error_t error = {0};
    assert_int_equal(lade_error_set(&error, LADE_BUSY, "%d of %d", 1, 2), LADE_BUSY);
    assert_int_equal(lade_error_wrap(&error, "job %d", 7), LADE_BUSY);
    assert_string_equal(error.message, "job 7: 1 of 2");
    assert_int_equal(lade_error_errno(&error, ENOSPC, "writing %s", "x"), LADE_NO_SPACE);
    assert_string_equal(error.message, "writing x: No space left on device");
    assert_int_equal(error.code, LADE_NO_SPACE);
    assert_int_equal(lade_error_errno(NULL, ENOENT, "x"), LADE_NOT_FOUND);
    assert_int_equal(lade_error_set(NULL, LADE_BUSY, "x"), LADE_BUSY);
}

static void
test_error_sentences_are_cut_and_stay_text(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"caf\xc3\xa9 \xf0\x9f\x9a\x80", "caf\xc3\xa9 \xf0\x9f\x9a\x80"},
        {"caf\xe9", "caf?"},
        {"\x1b[31mred\x07\x7f", "?[31mred??"},
        {"overlong \xc0\xaf \xe0\x80\xaf", "overlong ?? ???"},
        {"surrogate \xed\xa0\x80", "surrogate ???"},
        {"too high \xf4\x90\x80\x80", "too high ????"},
        {"cut \xe2\x82", "cut ??"},
        {"a control \xc2\x9b", "a control ??"},
        {"two\nlines\t", "two\nlines\t"},
    };
    lade_error_t error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lade_error_set(&error, LADE_IO_ERROR, "%s", cases[i].in);
        assert_string_equal(error.message, cases[i].out);
    }
    char text[2000];
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = "\xc3\xa9"[i % 2];
    text[sizeof text - 1] = '\0';
    lade_error_set(&error, LADE_IO_ERROR, "%s", text);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_int_equal(error.message[510], '?'); // 255 whole characters, and half of one
    lade_error_wrap(&error, "%s", text);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
}

// ---------------------------------------------------------------------------------------------------
// Buffers

static void
test_buffer_grows_to_its_ceiling_and_no_further(void **state)
{
    (void)state;
    lade_error_t error = {0};
    lade_buf_t buf = LADE_BUF(100);
    assert_string_equal(lade_buf_text(&buf), "");
    assert_int_equal(lade_buf_addf(&buf, &error, "%s-%d", "job", 7), LADE_OK);
    assert_int_equal(lade_buf_add(&buf, "", 0, &error), LADE_OK);
    assert_string_equal(lade_buf_text(&buf), "job-7");
    char bytes[96] = {0};
    assert_int_equal(lade_buf_add(&buf, bytes, 96, &error), LADE_TOO_LARGE);
    assert_int_equal(lade_buf_add(&buf, bytes, SIZE_MAX, &error), LADE_TOO_LARGE);
    assert_non_null(strstr(error.message, "100"));
    assert_int_equal(buf.len, 5);
    assert_int_equal(lade_buf_add(&buf, bytes, 95, &error), LADE_OK);
    assert_int_equal(lade_buf_addf(&buf, &error, "x"), LADE_TOO_LARGE);
    lade_buf_clear(&buf);
    assert_string_equal(lade_buf_text(&buf), "");
    assert_int_equal(lade_buf_addf(&buf, &error, "again"), LADE_OK);
    char *taken = lade_buf_take(&buf);
    assert_string_equal(taken, "again");
    free(taken);
    assert_null(buf.data);
    lade_buf_free(&buf);
}

// ---------------------------------------------------------------------------------------------------
// The check

#define BYTES(text) text, sizeof(text) - 1

static void
test_whole_values_pass(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {BYTES("\x00")},
        {BYTES("\xe0")},
        {BYTES("\xc0")},
        {BYTES("\xc3")},
        {BYTES("\x80")},
        {BYTES("\x90")},
        {BYTES("\xa0")},
        {BYTES("\xbf"
               "0123456789012345678901234567890")},
        {BYTES("\x81\xa1x\x93\x01\x02\x03")},
        {BYTES("\xcc\xff")},
        {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff")},
        {BYTES("\xca\x00\x00\x00\x00")},
        {BYTES("\xcb\x00\x00\x00\x00\x00\x00\x00\x00")},
        {BYTES("\xd9\x02xy")},
        {BYTES("\xda\x00\x02xy")},
        {BYTES("\xdb\x00\x00\x00\x02xy")},
        {BYTES("\xc4\x02xy")},
        {BYTES("\xc5\x00\x01x")},
        {BYTES("\xc6\x00\x00\x00\x00")},
        {BYTES("\xdc\x00\x02\x01\x02")},
        {BYTES("\xdd\x00\x00\x00\x01\xc0")},
        {BYTES("\xde\x00\x01\xa1x\xc0")},
        {BYTES("\xdf\x00\x00\x00\x00")},
        {BYTES("\xd4\x01\x00")},
        {BYTES("\xd8\x01"
               "0123456789abcdef")},
        {BYTES("\xc7\x01\x05x")},
        {BYTES("\xc9\x00\x00\x00\x01\x05x")},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lade_error_t error = {0};
        if (lade_wire_check(cases[i].bytes, cases[i].len, &error))
            fail_msg("case %zu: %s", i, error.message);
        // and no part of it does
        for (size_t len = 0; len < cases[i].len; len++)
            assert_int_equal(lade_wire_check(cases[i].bytes, len, NULL), LADE_BAD_REQUEST);
    }
}

static void
test_what_is_not_one_whole_value_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {BYTES("")},
        {BYTES("\xc1")},
        {BYTES("\x81\xc1\x00")},
        {BYTES("\x01\x02")},
        {BYTES("\x81\xa1x")},
        {BYTES("\xdb\xff\xff\xff\xffx")},
        {BYTES("\xc6\x7f\xff\xff\xffx")},
        {BYTES("\xdd\xff\xff\xff\xff\xc0")},
        {BYTES("\xdf\xff\xff\xff\xff\xc0")},
        {BYTES("\xc9\xff\xff\xff\xff\x01x")},
        // Keys that are no text, wherever the map is: what is let in goes to readers that need
        // them.
        {BYTES("\x81\x01\x02")},
        {BYTES("\x82\xa1x\x91\x80\xc0\x02")},
        {BYTES("\x81\xa1x\x81\x81\xa1y\x00\x00")},
        {BYTES("\xde\x00\x01\xc4\x01x\x02")},
        {BYTES("\x81\xa2x\0\x02")},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(lade_wire_check(cases[i].bytes, cases[i].len, NULL), LADE_BAD_REQUEST);
}

static void
test_depth_and_number_of_values_have_ceilings(void **state)
{
    (void)state;
    char nested[LADE_WIRE_MAX_DEPTH + 2];
    memset(nested, '\x91', sizeof nested);
    nested[LADE_WIRE_MAX_DEPTH] = '\x00';
    assert_int_equal(lade_wire_check(nested, LADE_WIRE_MAX_DEPTH + 1, NULL), LADE_OK);
    nested[LADE_WIRE_MAX_DEPTH] = '\x90';
    assert_int_equal(lade_wire_check(nested, LADE_WIRE_MAX_DEPTH + 1, NULL), LADE_TOO_LARGE);

    // What the broker takes ends earlier, as its answers wrap it.
    msgpack_zone zone;
    msgpack_object map;
    msgpack_zone_init(&zone, 1024);
    char request[LADE_WIRE_MAX_REQUEST + 3] = "\x81\xa0";
    memset(request + 2, '\x91', sizeof request - 2);
    request[LADE_WIRE_MAX_REQUEST + 1] = '\x00';
    assert_int_equal(lade_wire_unpack(request, LADE_WIRE_MAX_REQUEST + 2, &zone, &map, NULL),
                     LADE_OK);
    request[LADE_WIRE_MAX_REQUEST + 1] = '\x90';
    assert_int_equal(lade_wire_unpack(request, LADE_WIRE_MAX_REQUEST + 2, &zone, &map, NULL),
                     LADE_TOO_LARGE);
    assert_int_equal(lade_wire_check(request, LADE_WIRE_MAX_REQUEST + 2, NULL), LADE_OK);
    msgpack_zone_destroy(&zone);

    size_t count = LADE_WIRE_MAX_ITEMS;
    char *many = calloc(1, count + 5);
    char head[5] = {'\xdd', (char)(count >> 24), (char)(count >> 16), (char)(count >> 8),
                    (char)count};
    memcpy(many, head, 5);
    assert_int_equal(lade_wire_check(many, count + 5, NULL),
                     LADE_TOO_LARGE); // the array is a value too
    many[4] = (char)0xff;
    many[3] = (char)0xff;
    many[2]--;
    assert_int_equal(lade_wire_check(many, count + 4, NULL), LADE_OK);
    free(many);
}

// ---------------------------------------------------------------------------------------------------
// Reading and packing

static void
test_values_are_found_by_key_and_type(void **state)
{
    (void)state;
    static const char body[] = "\x88\xa1i\x2a\xa1n\xff\xa1r\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xa1"
                               "b\xc3\xa1t\xa2xy\xa1z\xa2x\0"
                               "\xa1u\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa1o\xc0";
    msgpack_zone zone;
    msgpack_object map;
    lade_error_t error = {0};
    msgpack_zone_init(&zone, 1024);
    assert_int_equal(lade_wire_unpack(body, sizeof body - 1, &zone, &map, &error), LADE_OK);
    assert_int_equal(lade_wire_int(&map, "i", 0), 42);
    assert_int_equal(lade_wire_int(&map, "n", 0), -1);
    assert_int_equal(lade_wire_int(&map, "t", 5), 5);
    assert_int_equal(lade_wire_int(&map, "u", 5), 5); // no int64_t holds it
    assert_int_equal(lade_wire_int(&map, "none", 5), 5);
    assert_true(lade_wire_real(&map, "r", 0) == 1.5);
    assert_true(lade_wire_real(&map, "i", 0) == 42);
    assert_true(lade_wire_real(&map, "n", 0) == -1);
    assert_true(lade_wire_bool(&map, "b", false));
    assert_true(lade_wire_bool(&map, "i", true));
    char *text = lade_wire_strdup(&map, "t");
    assert_string_equal(text, "xy");
    free(text);
    assert_null(lade_wire_strdup(&map, "z")); // a NUL inside
    assert_null(lade_wire_strdup(&map, "i"));
    const char *at;
    size_t len;
    assert_true(lade_wire_text(&map, "z", &at, &len));
    assert_int_equal(len, 2);
    assert_null(lade_wire_find(&map, "none"));
    assert_null(lade_wire_find(NULL, "i"));
    assert_null(lade_wire_find(lade_wire_find(&map, "t"), "i"));
    assert_int_equal(lade_wire_unpack("\x90", 1, &zone, &map, &error), LADE_BAD_REQUEST);
    msgpack_zone_destroy(&zone);
}

static void
test_packing_over_the_ceiling_says_so_once_at_the_end(void **state)
{
    (void)state;
    lade_error_t error = {0};
    lade_buf_t buf = LADE_BUF(16);
    lade_pack_t pack;
    lade_pack_open(&pack, &buf);
    lade_pack_map(&pack, 1);
    lade_pack_str(&pack, "key");
    assert_int_equal(lade_pack_failed(&pack, &error), LADE_OK);
    lade_pack_str(&pack, "a value that is too long");
    lade_pack_int(&pack, 1);
    assert_int_equal(lade_pack_failed(&pack, &error), LADE_TOO_LARGE);
    assert_true(buf.len <= 16);
    lade_buf_free(&buf);
}

static void
test_each_packer_writes_its_own_kind(void **state)
{
    (void)state;
    static const char expected[] =
        "\x99\xc0\xa1x\x07\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00\xc2\xc0\x2a\xc0\xa2\xc3\xa9";
    lade_buf_t buf = LADE_BUF(1000);
    lade_pack_t pack;
    json_t *answer = json_integer(42);
    lade_pack_open(&pack, &buf);
    lade_pack_array(&pack, 9);
    lade_pack_str(&pack, NULL);
    lade_pack_str(&pack, "x");
    lade_pack_int(&pack, 7);
    lade_pack_real(&pack, 0.5);
    lade_pack_bool(&pack, false);
    lade_pack_raw(&pack, NULL, 0);
    lade_pack_json(&pack, answer);
    lade_pack_json(&pack, NULL);
    lade_pack_strn(&pack, "\xc3\xa9", 2);
    assert_int_equal(lade_pack_failed(&pack, NULL), LADE_OK);
    assert_int_equal(buf.len, sizeof expected - 1);
    assert_memory_equal(buf.data, expected, buf.len);
    assert_int_equal(lade_wire_check(buf.data, buf.len, NULL), LADE_OK);
    json_decref(answer);
    lade_buf_free(&buf);
}

static void
test_json_comes_back_as_it_went(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\": [1, -1, 9223372036854775807, -9223372036854775808, 1.25, true, false, null, "
        "\"\"], "
        "\"text\": \"\\u00fcber\", \"\": {}, \"nested\": {\"x\": {\"y\": []}}}";
    json_t *value = json_loads(text, 0, NULL), *again;
    lade_error_t error = {0};
    lade_buf_t buf = LADE_BUF(1000);
    assert_non_null(value);
    assert_int_equal(lade_wire_from_json(value, &buf, &error), LADE_OK);
    assert_int_equal(lade_wire_to_json(buf.data, buf.len, &again, &error), LADE_OK);
    assert_true(json_equal(value, again));
    json_decref(again);
    json_decref(value);
    lade_buf_free(&buf);
}

static void
test_msgpack_that_json_lacks_becomes_the_nearest(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *json; // NULL: refused
    } cases[] = {
        {BYTES("\xc4\x02hi"), "\"hi\""},
        {BYTES("\xa0"), "\"\""},
        {BYTES("\xc4\x00"), "\"\""},
        {BYTES("\x81\xa0\xa0"), "{\"\": \"\"}"},
        {BYTES("\xd4\x01\x00"), "null"},
        {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "1.8446744073709552e19"},
        {BYTES("\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), "null"}, // infinity
        {BYTES("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"), "null"}, // not a number
        {BYTES("\x81\x01\x02"), NULL},
        {BYTES("\x91\x81\xc0\x02"), NULL},
        {BYTES("\x81\xa2x\0\x02"), NULL},
        {BYTES("\x82\xa1x\x01\xa1x\x02"), "{\"x\": 2}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *value,
            *wanted = cases[i].json ? json_loads(cases[i].json, JSON_DECODE_ANY, NULL) : NULL;
        lade_code_t code = lade_wire_to_json(cases[i].bytes, cases[i].len, &value, NULL);
        assert_int_equal(code, wanted ? LADE_OK : LADE_BAD_REQUEST);
        if (wanted ? !json_equal(value, wanted) : value != NULL)
            fail_msg("case %zu gives %s", i, json_dumps(value, JSON_ENCODE_ANY));
        json_decref(value);
        json_decref(wanted);
    }
}

static void
test_text_that_is_none_is_mended(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        // clang-format off
        {"plain text of more than eight bytes", NULL}, {"äöü €  \xf0\x9f\x98\x80", NULL}, {"", NULL},
        {"caf\xe9", "caf?"},           {"\xff\xfe", "??"},       {"12345678\x80", "12345678?"},
        {"\xc3", "?"},                 {"\xc0\xaf", "??"},       {"\xed\xa0\x80", "???"},
        {"\xf4\x90\x80\x80", "????"}, {"\xe2\x82", "??"},       {"1234567\xc3\xa4 \xc3", "1234567\xc3\xa4 ?"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", rows[i][0]);
        lade_wire_mend_text(text, strlen(text));
        assert_string_equal(text, rows[i][1] ? rows[i][1] : rows[i][0]);
    }
    // {"a": ["\xff", bin "\xff", 1.5], "\xfe": -1}: bytes and numbers stay as they are.
    char value[] = "\x82\xa1"
                   "a\x93\xa1\xff\xc4\x01\xff\xcb\x3f\xf8\0\0\0\0\0\0\xd9\x01\xfe\xff";
    static const char mended[] = "\x82\xa1"
                                 "a\x93\xa1?\xc4\x01\xff\xcb\x3f\xf8\0\0\0\0\0\0\xd9\x01?\xff";
    lade_wire_mend(value, sizeof value - 1);
    assert_memory_equal(value, mended, sizeof value);
    char cut[] = "\xa3\xff";
    lade_wire_mend(cut, 2); // claims more than there is
    assert_string_equal(cut, "\xa3\xff");
}

static void
test_json_members_have_presets(void **state)
{
    (void)state;
    json_t *object =
        json_loads("{\"t\": \"x\", \"i\": 3, \"r\": 0.5, \"b\": true, \"n\": null}", 0, NULL);
    assert_string_equal(lade_json_text(object, "t", "-"), "x");
    assert_string_equal(lade_json_text(object, "i", "-"), "-");
    assert_string_equal(lade_json_text(NULL, "t", "-"), "-");
    assert_int_equal(lade_json_int(object, "i", 0), 3);
    assert_int_equal(lade_json_int(object, "r", 9), 9);
    assert_true(lade_json_real(object, "i", 0) == 3);
    assert_true(lade_json_real(object, "n", 2.5) == 2.5);
    assert_true(lade_json_bool(object, "b", false));
    assert_true(lade_json_bool(object, "n", true));
    json_decref(object);
}

static void
test_commands_have_names(void **state)
{
    (void)state;
    for (int command = LADE_W_HELLO; command < LADE_W_END; command++)
        assert_string_not_equal(lade_worker_command_name(command), "?");
    assert_string_equal(lade_worker_command_name(0), "?");
    assert_string_equal(lade_worker_command_name(-1), "?");
    assert_string_equal(lade_worker_command_name(LADE_W_END), "?");
    assert_string_equal(lade_worker_command_name(255), "?");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_has_a_name_a_help_and_a_way_back),
        cmocka_unit_test(test_errors_are_filled_wrapped_and_may_be_nobodys),
        cmocka_unit_test(test_error_sentences_are_cut_and_stay_text),
        cmocka_unit_test(test_buffer_grows_to_its_ceiling_and_no_further),
        cmocka_unit_test(test_whole_values_pass),
        cmocka_unit_test(test_what_is_not_one_whole_value_is_refused),
        cmocka_unit_test(test_depth_and_number_of_values_have_ceilings),
        cmocka_unit_test(test_values_are_found_by_key_and_type),
        cmocka_unit_test(test_packing_over_the_ceiling_says_so_once_at_the_end),
        cmocka_unit_test(test_each_packer_writes_its_own_kind),
        cmocka_unit_test(test_json_comes_back_as_it_went),
        cmocka_unit_test(test_msgpack_that_json_lacks_becomes_the_nearest),
        cmocka_unit_test(test_text_that_is_none_is_mended),
        cmocka_unit_test(test_json_members_have_presets),
        cmocka_unit_test(test_commands_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
