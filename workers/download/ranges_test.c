// Sets of ranges: the cases one thinks of, and many one does not against a map of single bytes.
#include "workers/download/ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { S_BYTES = 120, S_ROUNDS = 300, S_STEPS = 60 };

// "0-5 7-9": what is in it, as the tables write it.
static void
s_text(const lade_ranges_t *set, char *text, size_t size)
{
    size_t len = 0;
    *text = '\0';
    for (size_t i = 0; i < set->count; i++)
        len += (size_t)snprintf(text + len, size - len, "%s%lld-%lld", i ? " " : "",
                                (long long)set->items[i].from, (long long)set->items[i].to);
}

static lade_ranges_t
s_set(const char *text)
{
    lade_ranges_t set = {0};
    long long from, to;
    int used;
    for (; sscanf(text, "%lld-%lld%n", &from, &to, &used) == 2; text += used)
        lade_ranges_add(&set, from, to);
    return set;
}

// Ordered, apart from each other, and summed up right.
static void
s_check_form(const lade_ranges_t *set)
{
    int64_t sum = 0;
    for (size_t i = 0; i < set->count; i++) {
        assert_true(set->items[i].from < set->items[i].to);
        assert_true(i == 0 || set->items[i - 1].to < set->items[i].from);
        sum += set->items[i].to - set->items[i].from;
    }
    assert_int_equal(set->bytes, sum);
    assert_true(set->count <= set->room);
}

typedef struct {
    const char *before;
    int64_t from, to;
    const char *after;
} s_row_t;

static void
s_check_rows(const s_row_t *rows, size_t count,
             void (*change)(lade_ranges_t *self, int64_t from, int64_t to))
{
    for (size_t i = 0; i < count; i++) {
        char text[256];
        lade_ranges_t set = s_set(rows[i].before);
        change(&set, rows[i].from, rows[i].to);
        s_check_form(&set);
        s_text(&set, text, sizeof text);
        if (strcmp(text, rows[i].after) != 0)
            fail_msg("'%s' with %lld-%lld is '%s', not '%s'", rows[i].before,
                     (long long)rows[i].from, (long long)rows[i].to, text, rows[i].after);
        lade_ranges_free(&set);
    }
}

static void
test_adding(void **state)
{
    (void)state;
    static const s_row_t rows[] = {
        // clang-format off
        {"",             3,  5, "3-5"},
        {"",             5,  5, ""},
        {"",             5,  3, ""},
        {"3-5",          7,  9, "3-5 7-9"},
        {"7-9",          3,  5, "3-5 7-9"},
        {"3-5",          5,  9, "3-9"},       // touches
        {"5-9",          3,  5, "3-9"},
        {"3-5",          4,  9, "3-9"},       // overlaps
        {"3-9",          4,  5, "3-9"},       // is there
        {"4-5",          3,  9, "3-9"},       // covers
        {"1-2 5-6 8-9",  2,  8, "1-9"},       // fills
        {"1-2 5-6 8-9",  3,  7, "1-2 3-7 8-9"},
        {"1-2 5-6 8-9",  0, 20, "0-20"},
        {"1-2 5-6",      2,  3, "1-3 5-6"},
        {"0-1",          1, INT64_MAX / 2, "0-4611686018427387903"},
        // clang-format on
    };
    s_check_rows(rows, sizeof rows / sizeof *rows, lade_ranges_add);
}

static void
test_removing(void **state)
{
    (void)state;
    static const s_row_t rows[] = {
        // clang-format off
        {"",             3,  5, ""},
        {"3-9",          5,  5, "3-9"},
        {"3-9",          7,  5, "3-9"},
        {"3-9",          3,  9, ""},
        {"3-9",          0, 20, ""},
        {"3-9",          5,  6, "3-5 6-9"},   // a hole
        {"3-9",          3,  4, "4-9"},
        {"3-9",          8,  9, "3-8"},
        {"3-9",          0,  3, "3-9"},       // only touches
        {"3-9",          9, 12, "3-9"},
        {"1-2 5-6 8-9",  2,  8, "1-2 8-9"},
        {"1-3 5-6 8-10", 2,  9, "1-2 9-10"},
        {"0-9223372036854775807", 5, INT64_MAX / 2, "0-5 4611686018427387903-9223372036854775807"},
        // clang-format on
    };
    s_check_rows(rows, sizeof rows / sizeof *rows, lade_ranges_remove);
}

static void
test_looking(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        int64_t at, gap, next;
    } rows[] = {
        // clang-format off
        {"",        0,  0, INT64_MAX},
        {"",        9,  9, INT64_MAX},
        {"0-5",     0,  5, 0},
        {"0-5",     4,  5, 4},
        {"0-5",     5,  5, INT64_MAX},
        {"3-5 7-9", 0,  0, 3},
        {"3-5 7-9", 3,  5, 3},
        {"3-5 7-9", 5,  5, 7},
        {"3-5 7-9", 6,  6, 7},
        {"3-5 7-9", 8,  9, 8},
        {"3-5 7-9", 99, 99, INT64_MAX},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_ranges_t set = s_set(rows[i].set);
        assert_int_equal(lade_ranges_gap(&set, rows[i].at), rows[i].gap);
        assert_int_equal(lade_ranges_next(&set, rows[i].at), rows[i].next);
        lade_ranges_free(&set);
    }
}

static void
test_copies_are_their_own(void **state)
{
    (void)state;
    lade_ranges_t set = s_set("3-5 7-9"), copy = lade_ranges_copy(&set), none = {0},
                  nothing = lade_ranges_copy(&none);
    lade_ranges_add(&set, 5, 7);
    assert_int_equal(set.bytes, 6);
    assert_int_equal(copy.bytes, 4);
    assert_int_equal(copy.count, 2);
    assert_int_equal(lade_ranges_end(&copy), 9);
    assert_int_equal(lade_ranges_end(&nothing), 0);
    lade_ranges_free(&set);
    assert_int_equal(set.bytes, 0);
    lade_ranges_add(&set, 1, 2); // a freed one is an empty one
    assert_int_equal(set.bytes, 1);
    lade_ranges_free(&set);
    lade_ranges_free(&copy);
    lade_ranges_free(&nothing);
}

static int64_t
s_map_next(const char *map, int64_t at, char what)
{
    while (at < S_BYTES && map[at] != what)
        at++;
    return at;
}

static void
s_check_map(const lade_ranges_t *set, const char *map)
{
    int64_t bytes = 0, end = 0;
    for (int64_t at = 0; at < S_BYTES; at++) {
        int64_t next = s_map_next(map, at, 1);
        bytes += map[at];
        end = map[at] ? at + 1 : end;
        assert_int_equal(lade_ranges_gap(set, at), s_map_next(map, at, 0));
        assert_int_equal(lade_ranges_next(set, at), next == S_BYTES ? INT64_MAX : next);
    }
    assert_int_equal(set->bytes, bytes);
    assert_int_equal(lade_ranges_end(set), end);
    s_check_form(set);
}

static void
test_any_order_of_steps(void **state)
{
    (void)state;
    unsigned seed = 4711;
    for (int round = 0; round < S_ROUNDS; round++) {
        char map[S_BYTES] = {0};
        lade_ranges_t set = {0};
        int widest = round % 2 ? 8 : S_BYTES; // many small ones, or few large ones
        for (int step = 0; step < S_STEPS; step++) {
            int from = rand_r(&seed) % S_BYTES, len = rand_r(&seed) % widest;
            int to = from + len < S_BYTES ? from + len : S_BYTES;
            bool add = rand_r(&seed) % 3 > 0;
            (add ? lade_ranges_add : lade_ranges_remove)(&set, from, to);
            memset(map + from, add, (size_t)(to - from));
            s_check_map(&set, map);
        }
        lade_ranges_free(&set);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adding),
        cmocka_unit_test(test_removing),
        cmocka_unit_test(test_looking),
        cmocka_unit_test(test_copies_are_their_own),
        cmocka_unit_test(test_any_order_of_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
