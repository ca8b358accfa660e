// How limits are split: tables of cases.
#include "broker/split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include <cmocka.h>

static void
test_connections_are_split_evenly(void **state)
{
    (void)state;
    static const struct {
        int64_t limit;
        size_t jobs;
        int64_t parts[5];
    } cases[] = {
        // clang-format off
        {3,  1, {3}},
        {3,  2, {2, 1}},
        {3,  3, {1, 1, 1}},
        {3,  4, {1, 1, 1, 1}}, // the fourth does not run
        {16, 5, {4, 3, 3, 3, 3}},
        {1,  0, {1}},
        // clang-format on
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int64_t sum = 0;
        for (size_t i = 0; i < cases[c].jobs; i++) {
            int64_t part = lade_split_connections(cases[c].limit, cases[c].jobs, i);
            assert_int_equal(part, cases[c].parts[i]);
            sum += part;
        }
        if ((int64_t)cases[c].jobs <= cases[c].limit && cases[c].jobs)
            assert_int_equal(sum, cases[c].limit);
    }
    assert_int_equal(lade_split_connections(1, 0, 0), 1);
}

static void
test_rate_is_split_by_weight_and_demand(void **state)
{
    (void)state;
    enum { MORE = -1 };
    static const struct {
        const char *what;
        int64_t total;
        size_t count;
        int64_t weights[4], demands[4], shares[4];
    } cases[] = {
        // clang-format off
        {"one takes all",               1000, 1, {1},          {MORE},                   {1000}},
        {"as many transfers, as much",  1000, 2, {1, 1},       {MORE, MORE},             {500, 500}},
        {"by transfers",                1000, 2, {1, 3},       {MORE, MORE},             {250, 750}},
        {"the slack of one",            1000, 2, {1, 1},       {100, MORE},              {100, 900}},
        {"whoever comes first",         1000, 2, {1, 1},       {MORE, 100},              {900, 100}},
        {"slack goes to all others",     900, 3, {1, 1, 1},    {100, MORE, MORE},        {100, 400, 400}},
        {"modest by its weight",        1000, 3, {8, 1, 1},    {600, MORE, MORE},        {600, 200, 200}},
        {"a demand above the part",     1000, 2, {1, 1},       {900, MORE},              {500, 500}},
        {"slack makes room for another", 900, 3, {1, 1, 1},    {350, 100, MORE},         {350, 100, 450}},
        {"nobody demands much",         1000, 2, {1, 1},       {100, 300},               {400, 600}},
        {"nothing is demanded",         1000, 2, {1, 1},       {0, 0},                   {500, 500}},
        {"what does not divide",          10, 3, {1, 1, 1},    {MORE, MORE, MORE},       {3, 3, 4}},
        {"never none",                     2, 4, {1, 1, 1, 1}, {MORE, MORE, MORE, MORE}, {1, 1, 1, 1}},
        {"large numbers", INT64_C(1) << 53, 2, {1, 1}, {MORE, MORE}, {INT64_C(1) << 52, INT64_C(1) << 52}},
        // clang-format on
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        lade_part_of_rate_t parts[4];
        int64_t sum = 0;
        for (size_t i = 0; i < cases[c].count; i++)
            parts[i] = (lade_part_of_rate_t){cases[c].weights[i], cases[c].demands[i], .share = 77};
        lade_split_rate(cases[c].total, parts, cases[c].count);
        for (size_t i = 0; i < cases[c].count; i++) {
            if (parts[i].share != cases[c].shares[i])
                fail_msg("%s: the %zu-th gets %ld, not %ld", cases[c].what, i + 1,
                         (long)parts[i].share, (long)cases[c].shares[i]);
            sum += parts[i].share;
        }
        assert_true(sum == cases[c].total || sum == (int64_t)cases[c].count);
    }
    lade_split_rate(1000, NULL, 0);
}

static void
test_demand_is_what_was_used_and_somewhat_more(void **state)
{
    (void)state;
    assert_int_equal(lade_split_demand(1000000, 1000000), -1);
    assert_int_equal(lade_split_demand(1000000, 900000), -1);
    assert_int_equal(lade_split_demand(1000000, 800000), 1000000);
    assert_int_equal(lade_split_demand(1000000, 400000), 500000);
    assert_int_equal(lade_split_demand(1000000, 0), 64 << 10);
    assert_int_equal(lade_split_demand(10, 0), 64 << 10); // more than its part: it gets the part
}

// Two workers, one of which can use 2 of 10 only: the shares settle, and the sum holds.
static void
test_shares_settle(void **state)
{
    (void)state;
    const int64_t total = 10000000, can[2] = {2000000, 100000000};
    lade_part_of_rate_t parts[2] = {{1, -1, 0}, {1, -1, 0}};
    for (int beat = 0; beat < 10; beat++) {
        lade_split_rate(total, parts, 2);
        assert_int_equal(parts[0].share + parts[1].share, total);
        for (int i = 0; i < 2; i++) {
            int64_t rate = parts[i].share < can[i] ? parts[i].share : can[i];
            parts[i].demand = lade_split_demand(parts[i].share, rate);
        }
    }
    assert_int_equal(parts[0].share, 2500000);
    assert_int_equal(parts[1].share, 7500000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections_are_split_evenly),
        cmocka_unit_test(test_rate_is_split_by_weight_and_demand),
        cmocka_unit_test(test_demand_is_what_was_used_and_somewhat_more),
        cmocka_unit_test(test_shares_settle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
