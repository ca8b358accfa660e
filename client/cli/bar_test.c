// Progress bars.
#include "client/cli/bar.h"

#include "client/cli/show.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

static void
test_the_rate_follows_the_bytes(void **state)
{
    (void)state;
    lade_bar_progress_t progress = {0};
    lade_bar_update(&progress, 1000, 0, 1000);
    assert_true(progress.rate == 0);
    lade_bar_update(&progress, 2000, 0, 1100); // too soon to tell
    assert_true(progress.rate == 0);
    lade_bar_update(&progress, 3000, 0, 2000);
    assert_true(progress.rate == 2000);
    lade_bar_update(&progress, 3000, 0, 3000);
    assert_true(progress.rate > 1000 && progress.rate < 2000);
    lade_bar_update(&progress, 0, 0, 4000); // started again
    assert_true(progress.rate == 0);
}

static void
test_a_line_shows_all_there_is_to_know(void **state)
{
    (void)state;
    char line[512];
    lade_bar_progress_t progress = {.bytes = 512 << 20, .total = 1 << 30, .rate = 64 << 20};
    lade_bar_format(&progress, "model", "downloading", 90, line, sizeof line);
    assert_true(lade_show_width(line) <= 90);
    assert_non_null(strstr(line, "model "));
    assert_non_null(strstr(line, "#."));
    assert_non_null(strstr(line, " 50%   512 MiB of 1.00 GiB  64.0 MiB/s  8s"));
}

static void
test_without_bytes_the_status_is_shown(void **state)
{
    (void)state;
    char line[512];
    lade_bar_progress_t progress = {0};
    lade_bar_format(&progress, "model", "enqueued: no worker", 60, line, sizeof line);
    assert_non_null(strstr(line, "enqueued: no worker"));
    assert_null(strchr(line, '#'));
}

static void
test_without_a_total_there_is_no_bar(void **state)
{
    (void)state;
    char line[512];
    lade_bar_progress_t progress = {.bytes = 2048};
    lade_bar_format(&progress, "model", "running", 60, line, sizeof line);
    assert_non_null(strstr(line, "2.00 KiB"));
    assert_null(strchr(line, '['));
}

static void
test_no_line_is_wider_than_the_terminal(void **state)
{
    (void)state;
    char line[1024];
    const lade_bar_progress_t kinds[] = {
        {0},
        {.bytes = 5},
        {.bytes = 5, .total = 3},
        {.bytes = INT64_MAX / 2, .total = INT64_MAX, .rate = 1e18}};
    for (size_t width = 1; width < 200; width++)
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            lade_bar_format(&kinds[i], "a rather long näme of ä model, longer than most are",
                            "some status or other", width, line, sizeof line);
            assert_true(lade_show_width(line) <= width);
        }
}

static void
test_lines_are_drawn_over_the_last_ones(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    lade_bar_screen_t *screen = lade_bar_screen_new(out);
    lade_bar_screen_draw(screen, "", "one\ntwo\n", 80);
    lade_bar_screen_draw(screen, "done\n", "one\n", 80);
    lade_bar_screen_destroy(&screen);
    fclose(out);
    assert_null(screen);
    assert_string_equal(text, "one\033[K\ntwo\033[K\n\033[J"
                              "\033[2A\rdone\033[K\none\033[K\n\033[J"
                              "\033[1A\r\033[J");
    free(text);
}

static void
test_folded_lines_are_counted_when_the_terminal_became_narrower(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    lade_bar_screen_t *screen = lade_bar_screen_new(out);
    lade_bar_screen_draw(screen, "", "0123456789\n01234\n", 10);
    lade_bar_screen_clear(screen, 5);
    lade_bar_screen_destroy(&screen);
    fclose(out);
    assert_non_null(strstr(text, "\033[3A\r\033[J"));
    free(text);
}

static void
test_a_remark_stands_where_the_time_left_would(void **state)
{
    (void)state;
    char line[512];
    lade_bar_progress_t progress = {.bytes = 512 << 20, .total = 1 << 30, .rate = 64 << 20};
    lade_bar_format(&progress, "model", "verifying", 90, line, sizeof line);
    assert_non_null(strstr(line, "64.0 MiB/s  verifying"));
    lade_bar_format(&progress, "model", "running: on a worker", 90, line, sizeof line);
    assert_non_null(strstr(line, "64.0 MiB/s  8s"));
}

static int
s_set_up(void **state)
{
    (void)state;
    return setlocale(LC_CTYPE, "C.UTF-8") ? 0 : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rate_follows_the_bytes),
        cmocka_unit_test(test_a_line_shows_all_there_is_to_know),
        cmocka_unit_test(test_without_bytes_the_status_is_shown),
        cmocka_unit_test(test_without_a_total_there_is_no_bar),
        cmocka_unit_test(test_no_line_is_wider_than_the_terminal),
        cmocka_unit_test(test_lines_are_drawn_over_the_last_ones),
        cmocka_unit_test(test_folded_lines_are_counted_when_the_terminal_became_narrower),
        cmocka_unit_test(test_a_remark_stands_where_the_time_left_would),
    };
    return cmocka_run_group_tests(tests, s_set_up, NULL);
}
