// Tests of the words of a load's arguments.
#include "common/want.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void
test_words_are_read(void **state)
{
    (void)state;
    lade_want_t want;
    assert_int_equal(lade_want_read(NULL, "", NULL, &want, NULL), LADE_OK);
    assert_false(want.cast || want.channels_last);
    assert_string_equal(want.device, "cpu");
    assert_int_equal(lade_want_read("stored", "stored", "cuda", &want, NULL), LADE_OK);
    assert_false(want.cast || want.channels_last);
    assert_string_equal(want.device, "cuda:0");
    assert_int_equal(lade_want_read("bfloat16", "channels_last", "cuda:12", &want, NULL), LADE_OK);
    assert_true(want.cast && want.dtype == LADE_DTYPE_BF16 && want.channels_last);
    assert_string_equal(want.device, "cuda:12");
}

static void
test_other_words_are_refused(void **state)
{
    static const struct {
        const char *dtype, *layout, *device, *says;
    } cases[] = {
        {"half", NULL, NULL, "dtype: 'half' is none of stored, fp32, fp16, bf16"},
        {NULL, "nhwc", NULL, "layout: 'nhwc'"},
        {NULL, NULL, "gpu", "device: 'gpu' is none of cpu, cuda, cuda:N"},
        {NULL, NULL, "cuda:", "device: 'cuda:'"},
        {NULL, NULL, "cuda:-1", "device: 'cuda:-1'"},
        {NULL, NULL, "cuda: 1", "device: 'cuda: 1'"},
        {NULL, NULL, "cuda:1x", "device: 'cuda:1x'"},
        {NULL, NULL, "cuda:1234", "device: 'cuda:1234'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lade_want_t want;
        lade_error_t error = {0};
        assert_int_equal(
            lade_want_read(cases[i].dtype, cases[i].layout, cases[i].device, &want, &error),
            LADE_VALUE_ERROR);
        assert_non_null(strstr(error.message, cases[i].says));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_are_read),
        cmocka_unit_test(test_other_words_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
