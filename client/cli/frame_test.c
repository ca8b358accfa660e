// The live area: rows in, text out.
#include "client/cli/frame.h"

#include "client/cli/show.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

enum { S_ROWS = 100 };

typedef struct {
    lade_frame_t *frame;
    lade_frame_row_t rows[S_ROWS];
    char names[S_ROWS][16];
    lade_buf_t text;
    char *lines[S_ROWS + 2]; // of the last frame
    size_t count;
} s_world_t;

static int
s_open(void **state)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return -1;
    s_world_t *self = calloc(1, sizeof *self);
    self->frame = lade_frame_new();
    for (size_t i = 0; i < S_ROWS; i++) {
        snprintf(self->names[i], sizeof self->names[i], "file%zu", i);
        self->rows[i] = (lade_frame_row_t){.name = self->names[i], .status = "enqueued"};
    }
    *state = self;
    return 0;
}

static int
s_close(void **state)
{
    s_world_t *self = *state;
    lade_frame_destroy(&self->frame);
    lade_buf_free(&self->text);
    free(self);
    return 0;
}

static void
s_compose(s_world_t *self, size_t count, size_t width, size_t height)
{
    lade_buf_free(&self->text);
    self->text = LADE_BUF(1 << 20);
    lade_frame_compose(self->frame, self->rows, count, width, height, 1000, &self->text);
    self->count = 0;
    char *rest = (char *)lade_buf_text(&self->text);
    for (char *line = strsep(&rest, "\n"); line && rest; line = strsep(&rest, "\n")) {
        assert_true(lade_show_width(line) <= width);
        self->lines[self->count++] = line;
    }
    assert_true(self->count <= height);
}

static void
s_move(s_world_t *self, size_t row, int64_t bytes, int64_t total)
{
    self->rows[row].status = "running";
    self->rows[row].progress = (lade_bar_progress_t){.bytes = bytes, .total = total};
}

static void
s_end(s_world_t *self, size_t row)
{
    self->rows[row].ended = true;
}

// True if the line is that row's.
static bool
s_is(const s_world_t *self, size_t line, size_t row)
{
    size_t len = strlen(self->names[row]);
    return line < self->count && strncmp(self->lines[line], self->names[row], len) == 0 &&
           self->lines[line][len] == ' ';
}

// ---------------------------------------------------------------------------------------------------

static void
test_all_that_fits_is_shown_in_order_with_a_total(void **state)
{
    s_world_t *self = *state;
    s_move(self, 1, 50, 100);
    s_compose(self, 3, 80, 23);
    assert_int_equal(self->count, 4);
    for (size_t i = 0; i < 3; i++)
        assert_true(s_is(self, i, i));
    assert_non_null(strstr(self->lines[3], "0 of 3 done"));
}

static void
test_one_file_needs_no_total(void **state)
{
    s_world_t *self = *state;
    s_move(self, 0, 50, 100);
    s_compose(self, 1, 80, 23);
    assert_int_equal(self->count, 1);
    assert_non_null(strstr(self->lines[0], "50%"));
}

static void
test_the_total_is_known_when_each_is(void **state)
{
    s_world_t *self = *state;
    s_move(self, 0, 10, 100);
    s_compose(self, 2, 100, 23);
    assert_null(strchr(self->lines[2], '%'));
    s_move(self, 1, 40, 100);
    s_compose(self, 2, 100, 23);
    assert_non_null(strstr(self->lines[2], " 25% "));
    self->rows[1].ended = self->rows[1].failed = true; // counts no longer
    s_compose(self, 2, 100, 23);
    assert_non_null(strstr(self->lines[1], "0 of 2 done, 1 failed"));
    assert_non_null(strstr(self->lines[1], " 10% "));
}

static void
test_a_hundred_files_on_24_lines(void **state)
{
    s_world_t *self = *state;
    for (size_t i = 20; i < 25; i++)
        s_move(self, i, 5, 100);
    s_compose(self, S_ROWS, 80, 23);
    assert_int_equal(self->count, 7);
    for (size_t i = 0; i < 5; i++)
        assert_true(s_is(self, i, 20 + i));
    assert_string_equal(self->lines[5], "and 95 more");
    assert_non_null(strstr(self->lines[6], "0 of 100 done"));
}

static void
test_lines_stay_where_they_are(void **state)
{
    s_world_t *self = *state;
    for (size_t i = 0; i < 5; i++)
        s_move(self, i, 5, 100);
    s_compose(self, S_ROWS, 80, 23);
    s_end(self, 1);
    s_compose(self, S_ROWS, 80, 23);
    assert_true(s_is(self, 0, 0) && s_is(self, 1, 5) && s_is(self, 2, 2)); // the next in line
    s_move(self, 7, 1, 100);
    s_compose(self, S_ROWS, 80, 23);
    assert_true(s_is(self, 1, 5) && s_is(self, 5, 7) && s_is(self, 4, 4));
    s_end(self, 0);
    s_move(self, 9, 1, 100);
    s_compose(self, S_ROWS, 80, 23);
    assert_true(s_is(self, 0, 9) && s_is(self, 2, 2) && s_is(self, 3, 3));
}

static void
test_what_moves_takes_the_place_of_what_waits(void **state)
{
    s_world_t *self = *state;
    for (size_t i = 0; i < 3; i++)
        s_move(self, i, 1, 10);
    s_compose(self, 50, 80, 6); // room for four
    s_end(self, 0);
    s_compose(self, 50, 80, 6);
    assert_true(s_is(self, 0, 3)); // waits
    s_move(self, 10, 1, 10);
    s_move(self, 11, 1, 10);
    s_compose(self, 50, 80, 6);
    assert_true(s_is(self, 0, 11) && s_is(self, 1, 1) && s_is(self, 2, 2) && s_is(self, 3, 10));
    s_move(self, 12, 1, 10); // no room
    s_compose(self, 50, 80, 6);
    assert_string_equal(self->lines[4], "and 45 more");
}

static void
test_a_terminal_that_shrinks_gets_fewer_lines(void **state)
{
    s_world_t *self = *state;
    for (size_t i = 0; i < 30; i++)
        s_move(self, i, 1, 10);
    for (size_t height = 40; height >= 3; height--)
        s_compose(self, 30, 20 + height, height);
    s_compose(self, 30, 10, 3);
    assert_int_equal(self->count, 3);
}

static void
test_nothing_is_left_when_all_have_ended(void **state)
{
    s_world_t *self = *state;
    s_end(self, 0);
    s_end(self, 1);
    s_compose(self, 2, 80, 23);
    assert_int_equal(self->count, 0);
}

int
main(void)
{
#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_open, s_close)
    const struct CMUnitTest tests[] = {
        S_TEST(test_all_that_fits_is_shown_in_order_with_a_total),
        S_TEST(test_one_file_needs_no_total),
        S_TEST(test_the_total_is_known_when_each_is),
        S_TEST(test_a_hundred_files_on_24_lines),
        S_TEST(test_lines_stay_where_they_are),
        S_TEST(test_what_moves_takes_the_place_of_what_waits),
        S_TEST(test_a_terminal_that_shrinks_gets_fewer_lines),
        S_TEST(test_nothing_is_left_when_all_have_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
