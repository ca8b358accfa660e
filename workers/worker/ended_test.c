// The listener for ended jobs, with the test as the broker that publishes.
#include "workers/worker/ended.h"

#include "common/path.h"
#include "common/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

typedef struct {
    zsock_t *events;
    zactor_t *listener;
    int told[2]; // a pipe: what was told, as text
    char folder[64], endpoint[128];
    lade_config_t config;
} s_fixture_t;

static void
s_on_ended(void *arg, int64_t job, const json_t *event)
{
    dprintf((int)(intptr_t)arg, "%d %s\n", (int)job, lade_json_text(event, "source", "?"));
}

static int
s_setup(void **state)
{
    s_fixture_t *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    snprintf(f->folder, sizeof f->folder, "%s/lade-ended-XXXXXX",
             tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/events", f->folder);
    f->events = zsock_new(ZMQ_XPUB);
    assert_true(zsock_bind(f->events, "%s", f->endpoint) >= 0);
    zsock_set_rcvtimeo(f->events, 10000);
    assert_int_equal(pipe(f->told), 0);
    f->config = (lade_config_t){.events = f->endpoint};
    f->listener =
        lade_ended_new(&f->config, "download_cancelled", s_on_ended, (void *)(intptr_t)f->told[1]);
    assert_non_null(f->listener);
    zframe_t *subscription = zframe_recv(f->events);
    assert_non_null(subscription);
    zframe_destroy(&subscription);
    *state = f;
    return 0;
}

static int
s_teardown(void **state)
{
    s_fixture_t *f = *state;
    zactor_destroy(&f->listener);
    zsock_destroy(&f->events);
    close(f->told[0]);
    close(f->told[1]);
    lade_path_remove(f->folder, NULL);
    free(f);
    return 0;
}

static void
s_publish(s_fixture_t *f, const char *topic, json_t *body)
{
    lade_buf_t buf = LADE_BUF(1 << 20);
    assert_int_equal(lade_wire_from_json(body, &buf, NULL), LADE_OK);
    zmsg_t *msg = zmsg_new();
    zmsg_addstr(msg, topic);
    zmsg_addmem(msg, buf.data, buf.len);
    assert_int_equal(zmsg_send(&msg, f->events), 0);
    lade_buf_free(&buf);
    json_decref(body);
}

static void
test_jobs_of_the_event_are_told_in_order(void **state)
{
    s_fixture_t *f = *state;
    static const char *const topics[] = {"download_cancelled/", "download_cancelled/x/",
                                         "download_cancelled/-7/", "download_cancelled_too/5/",
                                         "download_cancelled/6"};
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
        s_publish(f, topics[i], json_pack("{s:s}", "source", "wrong"));
    zstr_sendx(f->events, "download_cancelled/8/", "\xc1 is no body", NULL);
    zstr_sendx(f->events, "download_cancelled/8/", NULL);
    s_publish(f, "download_cancelled/9/", json_pack("{s:s}", "source", "a"));
    s_publish(f, "download_cancelled/7/", json_pack("{s:s}", "source", "b"));
    FILE *told = fdopen(dup(f->told[0]), "r");
    char line[64];
    assert_non_null(fgets(line, sizeof line, told));
    assert_string_equal(line, "9 a\n");
    assert_non_null(fgets(line, sizeof line, told));
    assert_string_equal(line, "7 b\n");
    fclose(told);
}

static void
test_what_is_not_due_is_dropped_at_the_end(void **state)
{
    s_fixture_t *f = *state;
    s_publish(f, "download_cancelled/9/", json_pack("{s:s}", "source", "a"));
}

static void
test_without_events_there_is_no_listener(void **state)
{
    (void)state;
    lade_config_t config = {.events = "nonsense"};
    assert_null(lade_ended_new(&config, "download_cancelled", s_on_ended, NULL));
}

int
main(void)
{
    zsys_init();
    zsys_handler_set(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_jobs_of_the_event_are_told_in_order, s_setup,
                                        s_teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_due_is_dropped_at_the_end, s_setup,
                                        s_teardown),
        cmocka_unit_test(test_without_events_there_is_no_listener),
    };
    return cmocka_run_group_tests_name("ended", tests, NULL, NULL);
}
