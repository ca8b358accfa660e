// lade_watch: what is lost, doubled or cut off on the way must not show.
#include "client/request.h"

#include "client/fake_test.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

typedef struct {
    fake_t fake;
    lade_t *client;
    const char *const *script; // commands, one after each event that comes
    char got[1024];            // "NAME:SEQ " of each event but beats
    size_t events, until;
} s_world_t;

static int
s_open(void **state)
{
    s_world_t *self = calloc(1, sizeof *self);
    fake_open(&self->fake);
    *state = self;
    return lade_open(NULL, self->fake.folder, NULL, &self->client, NULL);
}

static int
s_close(void **state)
{
    s_world_t *self = *state;
    lade_close(&self->client);
    fake_close(&self->fake);
    free(self);
    return 0;
}

static void
s_run_script(s_world_t *self)
{
    while (self->script && *self->script && strcmp(*self->script, "next") != 0)
        fake_do(&self->fake, *self->script++);
    if (self->script && *self->script)
        self->script++;
}

// Beats drive the script: when one comes, what was published before has been delivered.
static bool
s_on_event(void *arg, const char *text)
{
    s_world_t *self = arg;
    json_t *event = json_loads(text, 0, NULL);
    assert_non_null(event);
    const char *name = lade_json_text(event, "event", "");
    if (strcmp(name, "broker_beat") == 0)
        s_run_script(self);
    else {
        size_t len = strlen(self->got);
        snprintf(self->got + len, sizeof self->got - len, "%s:%" PRId64 "%s ", name,
                 lade_json_int(event, "seq", -1),
                 lade_json_bool(event, "progress", false) ? "p" : "");
        self->events++;
    }
    json_decref(event);
    return self->events < self->until;
}

static void
s_watch(s_world_t *self, const char *const *prefixes, int64_t since, size_t until)
{
    lade_error_t error = {0};
    self->until = until;
    lade_code_t code = lade_watch(self->client, prefixes, since, s_on_event, self, 10, &error);
    if (code)
        print_error("%s (got %s)\n", error.message, self->got);
    assert_int_equal(code, LADE_OK);
}

static void
test_journaled_events_come_from_since_on(void **state)
{
    s_world_t *self = *state;
    for (int i = 0; i < 8; i++)
        fake_do(&self->fake, "lose a 1");
    s_watch(self, NULL, 2, 6);
    assert_string_equal(self->got, "a:3 a:4 a:5 a:6 a:7 a:8 ");
}

static void
test_without_since_only_what_is_new_comes(void **state)
{
    s_world_t *self = *state;
    static const char *const script[] = {"journal b 1", "journal c 1", NULL};
    fake_do(&self->fake, "lose a 1");
    self->script = script;
    s_watch(self, NULL, -1, 2);
    assert_string_equal(self->got, "b:2 c:3 ");
}

static void
test_lost_events_are_fetched_in_order(void **state)
{
    s_world_t *self = *state;
    static const char *const script[] = {"journal a 1", "lose b 1",    "lose c 1", "lose d 1",
                                         "lose e 1",    "journal f 1", NULL};
    self->script = script;
    s_watch(self, NULL, 0, 6);
    assert_string_equal(self->got, "a:1 b:2 c:3 d:4 e:5 f:6 ");
}

static void
test_a_loss_at_the_end_is_noticed_at_the_next_beat(void **state)
{
    s_world_t *self = *state;
    static const char *const script[] = {"journal a 1", "lose b 1", NULL};
    self->script = script;
    s_watch(self, NULL, 0, 2);
    assert_string_equal(self->got, "a:1 b:2 ");
}

static void
test_doubled_events_come_once(void **state)
{
    s_world_t *self = *state;
    static const char *const script[] = {"journal a 1", "repeat 1",    "journal b 1", "repeat 1",
                                         "repeat 2",    "journal c 1", NULL};
    self->script = script;
    s_watch(self, NULL, 0, 3);
    assert_string_equal(self->got, "a:1 b:2 c:3 ");
}

static void
test_a_restart_is_caught_up_with(void **state)
{
    s_world_t *self = *state;
    static const char *const script[] = {"journal a 1", "next", "stop",        "lose b 1",
                                         "start",       "next", "journal c 1", NULL};
    self->script = script;
    s_watch(self, NULL, 0, 3);
    assert_string_equal(self->got, "a:1 b:2 c:3 ");
}

static void
test_progress_is_told_and_moves_nothing(void **state)
{
    s_world_t *self = *state;
    static const char *const script[] = {"journal a 1", "progress p 1", "progress p 1",
                                         "journal b 1", NULL};
    self->script = script;
    s_watch(self, NULL, 0, 4);
    assert_string_equal(self->got, "a:1 p:1p p:1p b:2 ");
}

// Without beats among the events the script cannot be driven by them.
static bool
s_on_wanted(void *arg, const char *text)
{
    s_world_t *self = arg;
    s_on_event(arg, text);
    s_run_script(self);
    return self->events < self->until;
}

static void
test_a_filter_loses_nothing_it_wants(void **state)
{
    s_world_t *self = *state;
    static const char *const prefixes[] = {"a", NULL};
    static const char *const script[] = {"journal b 1", "lose a 1", "journal b 1",
                                         "next",        "lose b 1", "journal a 1",
                                         "next",        "lose a 1", NULL};
    self->script = script;
    self->until = 4;
    fake_do(&self->fake, "lose a 1");
    lade_error_t error = {0};
    assert_int_equal(lade_watch(self->client, prefixes, 0, s_on_wanted, self, 10, &error), LADE_OK);
    assert_string_equal(self->got, "a:1 a:3 a:6 a:7 ");
}

static void
test_a_prefix_may_name_one_id(void **state)
{
    s_world_t *self = *state;
    static const char *const prefixes[] = {"a/2/", NULL};
    fake_do(&self->fake, "lose a 1");
    fake_do(&self->fake, "lose a 2");
    fake_do(&self->fake, "lose a 22");
    fake_do(&self->fake, "lose a 2");
    s_watch(self, prefixes, 0, 2);
    assert_string_equal(self->got, "a:2 a:4 ");
}

static void
test_too_old_is_said(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    for (int i = 0; i < 5; i++)
        fake_do(&self->fake, "lose a 1");
    fake_do(&self->fake, "oldest 3");
    assert_int_equal(lade_watch(self->client, NULL, 1, s_on_event, self, 10, &error), LADE_TOO_OLD);
}

static void
test_a_since_from_elsewhere_is_refused(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    assert_int_equal(lade_watch(self->client, NULL, 99, s_on_event, self, 10, &error),
                     LADE_VALUE_ERROR);
}

static void
test_the_deadline_and_the_missing_broker_end_it(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    self->until = 1;
    assert_int_equal(lade_watch(self->client, NULL, -1, s_on_event, self, 0.2, &error),
                     LADE_TIMEOUT);
    fake_do(&self->fake, "stop");
    lade_request_set_patience(self->client, 100);
    assert_int_equal(lade_watch(self->client, NULL, -1, s_on_event, self, 10, &error),
                     LADE_BROKER_UNREACHABLE);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_open, s_close)
    const struct CMUnitTest tests[] = {
        TEST(test_journaled_events_come_from_since_on),
        TEST(test_without_since_only_what_is_new_comes),
        TEST(test_lost_events_are_fetched_in_order),
        TEST(test_a_loss_at_the_end_is_noticed_at_the_next_beat),
        TEST(test_doubled_events_come_once),
        TEST(test_a_restart_is_caught_up_with),
        TEST(test_progress_is_told_and_moves_nothing),
        TEST(test_a_filter_loses_nothing_it_wants),
        TEST(test_a_prefix_may_name_one_id),
        TEST(test_too_old_is_said),
        TEST(test_a_since_from_elsewhere_is_refused),
        TEST(test_the_deadline_and_the_missing_broker_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
