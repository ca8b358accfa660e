// Tables, and the texts that go into them.
#include "client/cli/table.h"

#include "client/cli/show.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char *
s_print(const lade_table_t *table, size_t width)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    lade_table_print(table, out, width);
    fclose(out);
    return text;
}

static lade_table_t *
s_example(void)
{
    static const lade_table_column_t columns[] = {{"NAME", LADE_TABLE_CUT},
                                                  {"SIZE", LADE_TABLE_RIGHT},
                                                  {"NEVER", LADE_TABLE_LEFT},
                                                  {"PATH", LADE_TABLE_CUT_HEAD},
                                                  {0}};
    lade_table_t *table = lade_table_new(columns);
    const char *cells[] = {"alpha", "1 B",    "",   "/models/sd-1/main/alpha",
                           "größe", "1000 B", NULL, "/m"};
    for (size_t i = 0; i < 8; i++)
        lade_table_add(table, cells[i]);
    assert_int_equal(lade_table_rows(table), 2);
    return table;
}

static void
test_columns_are_aligned_and_empty_ones_left_out(void **state)
{
    (void)state;
    lade_table_t *table = s_example();
    char *text = s_print(table, 0);
    assert_string_equal(text, "NAME     SIZE  PATH\n"
                              "alpha     1 B  /models/sd-1/main/alpha\n"
                              "größe  1000 B  /m\n");
    free(text);
    lade_table_destroy(&table);
    assert_null(table);
}

static void
test_a_wide_table_is_cut_where_it_tells_least(void **state)
{
    (void)state;
    lade_table_t *table = s_example();
    char *text = s_print(table, 30), *line = text;
    assert_non_null(strstr(text, "…"));
    assert_non_null(strstr(text, "/main/alpha\n")); // a path is cut at its front
    for (char *next; (next = strchr(line, '\n')); line = next + 1) {
        *next = '\0';
        assert_true(lade_show_width(line) <= 30);
    }
    free(text);
    lade_table_destroy(&table);
}

static void
test_cells_cannot_steer_the_terminal(void **state)
{
    (void)state;
    static const lade_table_column_t columns[] = {{"A", LADE_TABLE_LEFT}, {0}};
    lade_table_t *table = lade_table_new(columns);
    lade_table_add(table, "x\033[2Jy\nz\xff\tü");
    char *text = s_print(table, 0);
    assert_string_equal(text, "A\nx?[2Jy?z??ü\n");
    free(text);
    lade_table_destroy(&table);
}

static void
test_texts_are_cut_to_columns(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t width;
        bool keep_end;
        const char *cut;
    } rows[] = {{"abcdef", 6, false, "abcdef"},
                {"abcdef", 5, false, "abcd…"},
                {"abcdef", 5, true, "…cdef"},
                {"äöüß", 3, false, "äö…"},
                {"漢字漢字", 5, false, "漢字…"},
                {"漢字漢字", 4, true, "…字"},
                {"", 3, false, ""},
                {"ab", 1, false, "…"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *cut = lade_show_clean(rows[i].text, rows[i].width, rows[i].keep_end);
        assert_string_equal(cut, rows[i].cut);
        assert_true(lade_show_width(cut) <= rows[i].width);
        free(cut);
    }
}

static void
test_sentences_are_wrapped_between_words(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t width, indent;
        const char *wrapped;
    } rows[] = {{"one two three", 0, 2, "one two three"},
                {"one two three", 15, 2, "one two three"},
                {"one two three", 14, 2, "one two\n  three"},
                {"one two three", 9, 2, "one two\n  three"},
                {"one two three", 3, 2, "one\n  two\n  three"},
                {"a-word-that-is-too-long b", 8, 0, "a-word-that-is-too-long\nb"},
                {"äöü äöü", 6, 0, "äöü\näöü"},
                {"a\nb", 3, 2, "a?b"},
                {"", 3, 2, ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *wrapped = lade_show_wrap(rows[i].text, rows[i].width, rows[i].indent);
        assert_string_equal(wrapped, rows[i].wrapped);
        free(wrapped);
    }
}

static void
test_sizes_and_spans_read_well(void **state)
{
    (void)state;
    char text[LADE_SHOW_SIZE];
    assert_string_equal(lade_show_bytes(0, text), "0 B");
    assert_string_equal(lade_show_bytes(999, text), "999 B");
    assert_string_equal(lade_show_bytes(1000, text), "0.98 KiB");
    assert_string_equal(lade_show_bytes(1536, text), "1.50 KiB");
    assert_string_equal(lade_show_bytes(7LL << 30, text), "7.00 GiB");
    assert_string_equal(lade_show_bytes(INT64_MAX, text), "8.00 EiB");
    assert_string_equal(lade_show_span(0.4, text), "0s");
    assert_string_equal(lade_show_span(59.4, text), "59s");
    assert_string_equal(lade_show_span(65, text), "1m 05s");
    assert_string_equal(lade_show_span(3780, text), "1h 03m");
    assert_string_equal(lade_show_span(90000, text), "1d 01h");
    assert_string_equal(lade_show_span(-1, text), "0s");
    assert_string_equal(lade_show_span(1e300, text), "9999d 00h");
    assert_int_equal(strlen(lade_show_time((double)time(NULL), text)), 8);
    assert_string_equal(lade_show_time(0, text) + 10, " 00:00:00");
}

static int
s_set_up(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    return setlocale(LC_CTYPE, "C.UTF-8") ? 0 : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_are_aligned_and_empty_ones_left_out),
        cmocka_unit_test(test_a_wide_table_is_cut_where_it_tells_least),
        cmocka_unit_test(test_cells_cannot_steer_the_terminal),
        cmocka_unit_test(test_texts_are_cut_to_columns),
        cmocka_unit_test(test_sentences_are_wrapped_between_words),
        cmocka_unit_test(test_sizes_and_spans_read_well),
    };
    return cmocka_run_group_tests(tests, s_set_up, NULL);
}
