// The number of connections on links of several kinds, which are played.
#include "workers/download/tune.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

// Bytes a second that so many connections bring after so many milliseconds, and what our side is
// like.
typedef struct {
    const char *name;
    double (*rate)(size_t connections, int64_t ms);
    int64_t latency_ms;
    double idle_share, blocked_share;
    size_t most, at_least, at_most; // connections that may be, and should be after five seconds
} s_link_t;

static double
s_limited_each(size_t connections, int64_t ms)
{
    (void)ms;
    return 20e6 * (double)connections;
}

static double
s_clean(size_t connections, int64_t ms)
{
    (void)connections, (void)ms;
    return 70e6;
}

// Fast until packets are lost, then a few megabytes each.
static double
s_lossy(size_t connections, int64_t ms)
{
    double each = ms < 500 ? 15e6 : 3e6, all = each * (double)connections;
    return all < 70e6 ? all : 70e6;
}

static size_t
s_play(const s_link_t *link, bool limited, int64_t until_ms)
{
    lade_tune_t tune;
    double bytes = 0;
    lade_tune_start(&tune, link->latency_ms, 0, 0);
    for (int64_t ms = 0; ms < until_ms; ms += 20) {
        size_t open = tune.want < link->most ? tune.want : link->most;
        bytes += link->rate(open, ms) * 20 / 1000;
        const lade_tune_facts_t facts = {.now_ms = ms + 20,
                                         .bytes = (int64_t)bytes,
                                         .open = open,
                                         .most = link->most,
                                         .idle_share = link->idle_share,
                                         .blocked_share = link->blocked_share,
                                         .limited = limited};
        lade_tune_step(&tune, &facts);
    }
    return tune.want;
}

static void
test_links_get_what_they_are_worth(void **state)
{
    static const s_link_t links[] = {
        // clang-format off
        {"a server that limits each connection", s_limited_each, 1, 0.9, 0,   16, 16, 16},
        {"no more than six are allowed",         s_limited_each, 1, 0.9, 0,    6,  6,  8},
        {"a clean link",                         s_clean,       20, 0.9, 0,   16,  8, 16},
        {"a lossy link",                         s_lossy,       20, 0.9, 0,   16, 16, 16},
        {"the machine is busy",                  s_limited_each, 0, 0.1, 0,   16,  4,  4},
        {"the disk is what is waited for",       s_limited_each, 0, 0.6, 0.5, 16,  1,  1},
        // clang-format on
    };
    (void)state;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        size_t want = s_play(&links[i], false, 5000);
        if (want < links[i].at_least || want > links[i].at_most)
            fail_msg("%s: %zu connections", links[i].name, want);
    }
}

static void
test_a_rate_that_is_set_needs_no_search(void **state)
{
    static const s_link_t link = {"limited", s_limited_each, 1, 0.9, 0, 16, 4, 4};
    (void)state;
    assert_int_equal(s_play(&link, true, 5000), 4);
}

static void
test_a_clean_link_is_disturbed_less_and_less(void **state)
{
    lade_tune_t tune;
    size_t growths = 0;
    (void)state;
    lade_tune_start(&tune, 20, 0, 0);
    for (int64_t ms = 0; ms < 60000; ms += 20) {
        size_t before = tune.want;
        const lade_tune_facts_t facts = {.now_ms = ms + 20,
                                         .bytes = (ms + 20) * 70000,
                                         .open = tune.want,
                                         .most = 16,
                                         .idle_share = 0.9};
        lade_tune_step(&tune, &facts);
        growths += tune.want > before;
    }
    assert_in_range(growths, 2, 8);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links_get_what_they_are_worth),
        cmocka_unit_test(test_a_rate_that_is_set_needs_no_search),
        cmocka_unit_test(test_a_clean_link_is_disturbed_less_and_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
