// Element types by their table, and what readers note beside tensors.
#include "common/formats/tensor_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void
test_each_type_is_found_by_its_name(void **state)
{
    (void)state;
    for (lade_dtype_t i = 0; i < LADE_DTYPE_COUNT; i++) {
        lade_dtype_t found;
        const char *name = lade_dtype_name(i);
        assert_true(lade_dtype_find(name, strlen(name), &found) && found == i);
        assert_true(lade_dtype_size(i) >= 1 && lade_dtype_block(i) >= 1);
        assert_false(lade_dtype_find(name, strlen(name) - 1, &found) && found == i);
    }
}

static void
test_bytes_follow_shape_and_block(void **state)
{
    (void)state;
    static const struct {
        lade_dtype_t dtype;
        size_t rank;
        uint64_t shape[3];
        bool fits;
        uint64_t bytes;
    } rows[] = {
        // clang-format off
        {LADE_DTYPE_F16,  0, {0},                    true,  2},
        {LADE_DTYPE_C128, 2, {3, 5},                 true,  240},
        {LADE_DTYPE_F32,  2, {0, 5},                 true,  0},
        {LADE_DTYPE_U4,   1, {3},                    true,  2},
        {LADE_DTYPE_U1,   2, {3, 3},                 true,  2},
        {LADE_DTYPE_Q4_K, 2, {3, 512},               true,  864},
        {LADE_DTYPE_Q8_0, 1, {32},                   true,  34},
        {LADE_DTYPE_Q4_K, 2, {256, 3},               false, 0},  // a block may not span rows
        {LADE_DTYPE_Q4_0, 0, {0},                    false, 0},
        {LADE_DTYPE_U8,   2, {1ull << 32, 1ull << 32}, false, 0},
        {LADE_DTYPE_F64,  1, {1ull << 61},           false, 0},
        {LADE_DTYPE_Q8_K, 1, {UINT64_MAX - 255},     false, 0},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t bytes = 0;
        bool fits = lade_dtype_bytes(rows[i].dtype, rows[i].shape, rows[i].rank, &bytes);
        if (fits != rows[i].fits || (fits && bytes != rows[i].bytes))
            fail_msg("row %zu: %d, %llu bytes", i, fits, (unsigned long long)bytes);
    }
}

static lade_tensors_t *
s_empty(void)
{
    lade_tensors_t *tensors;
    assert_int_equal(lade_tensors_open_files(NULL, 0, &tensors, NULL), LADE_OK);
    return tensors;
}

static void
test_an_empty_list_has_nothing_and_says_so(void **state)
{
    (void)state;
    lade_tensors_t *tensors = s_empty();
    assert_null(lade_tensors_find(tensors, "a"));
    assert_null(lade_tensors_value(tensors, "global_step"));
    assert_int_equal(json_array_size(lade_tensors_unsafe(tensors)), 0);
    assert_int_equal(json_object_size(lade_tensors_metadata(tensors)), 0);
    lade_tensors_destroy(&tensors);
}

static void
test_names_of_any_length_are_kept_where_they_are(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    lade_tensors_t *tensors = s_empty();
    const char **names = malloc(COUNT * sizeof *names);
    char *name = malloc(COUNT * 40);
    memset(name, 'x', COUNT * 40);
    for (size_t i = 0; i < COUNT; i++) {
        names[i] = lade_tensor_list_keep(tensors, name, i * 37);
        assert_non_null(names[i]);
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(strlen(names[i]), i * 37);
    lade_tensors_destroy(&tensors);
    free(names);
    free(name);
}

static void
test_values_are_found_whole_or_by_their_parts(void **state)
{
    (void)state;
    lade_error_t error = {0};
    lade_tensors_t *tensors = s_empty();
    assert_int_equal(lade_tensor_list_set_value(tensors, "global_step", json_integer(7), &error),
                     LADE_OK);
    assert_int_equal(lade_tensor_list_set_value(tensors, "global_step", json_integer(8), &error),
                     LADE_OK);
    assert_int_equal(lade_tensor_list_set_value(tensors, "a.b", json_true(), &error), LADE_OK);
    assert_int_equal(lade_tensor_list_set_value(tensors, "string_to_param",
                                                json_pack("{s{si}}", "*", "n", 1), &error),
                     LADE_OK);
    assert_int_equal(json_integer_value(lade_tensors_value(tensors, "global_step")), 7);
    assert_true(json_is_true(lade_tensors_value(tensors, "a.b")));
    assert_int_equal(json_integer_value(lade_tensors_value(tensors, "string_to_param.*.n")), 1);
    assert_null(lade_tensors_value(tensors, "string_to_param.x"));
    assert_int_equal(lade_tensor_list_set_value(tensors, "bad", NULL, &error), LADE_NO_MEMORY);
    char name[20];
    lade_code_t code = LADE_OK;
    for (int i = 0; !code && i <= LADE_TENSORS_MAX_VALUES; i++) {
        sprintf(name, "%d", i);
        code = lade_tensor_list_set_metadata(tensors, name, json_integer(i), &error);
    }
    assert_int_equal(code, LADE_TOO_LARGE);
    assert_int_equal(json_object_size(lade_tensors_metadata(tensors)), LADE_TENSORS_MAX_VALUES);
    lade_tensors_destroy(&tensors);
}

static void
test_findings_are_told_once_and_fit_to_be_shown(void **state)
{
    (void)state;
    lade_tensors_t *tensors = s_empty();
    for (int i = 0; i < 3; i++)
        lade_tensor_list_add_unsafe(tensors, "global", "data.pkl:17", "os.system",
                                    "os.system would be called");
    lade_tensor_list_add_unsafe(tensors, "member", NULL, "\x1b[31m\xff", "an odd name");
    const json_t *unsafe = lade_tensors_unsafe(tensors);
    assert_int_equal(json_array_size(unsafe), 2);
    const json_t *one = json_array_get(unsafe, 0), *two = json_array_get(unsafe, 1);
    assert_string_equal(json_string_value(json_object_get(one, "what")), "global");
    assert_string_equal(json_string_value(json_object_get(one, "where")), "data.pkl:17");
    assert_string_equal(json_string_value(json_object_get(one, "name")), "os.system");
    assert_string_equal(json_string_value(json_object_get(two, "where")), "");
    assert_string_equal(json_string_value(json_object_get(two, "name")), "?[31m?");
    for (int i = 0; i < LADE_TENSORS_MAX_UNSAFE + 10; i++)
        lade_tensor_list_add_unsafe(tensors, "global", NULL, NULL, "number %d", i);
    assert_int_equal(json_array_size(unsafe), LADE_TENSORS_MAX_UNSAFE + 1);
    const json_t *last = json_array_get(unsafe, LADE_TENSORS_MAX_UNSAFE);
    assert_string_equal(json_string_value(json_object_get(last, "what")), "more");
    lade_tensors_destroy(&tensors);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_type_is_found_by_its_name),
        cmocka_unit_test(test_bytes_follow_shape_and_block),
        cmocka_unit_test(test_an_empty_list_has_nothing_and_says_so),
        cmocka_unit_test(test_names_of_any_length_are_kept_where_they_are),
        cmocka_unit_test(test_values_are_found_whole_or_by_their_parts),
        cmocka_unit_test(test_findings_are_told_once_and_fit_to_be_shown),
    };
    return cmocka_run_group_tests_name("tensor_list", tests, NULL, NULL);
}
