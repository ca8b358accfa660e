// The sweeper, with the test as the broker that publishes.
#include "workers/install/sweep.h"

#include "workers/install/test_folder.h"

#include <poll.h>
#include <sys/inotify.h>

static void
test_the_folder_of_a_cancelled_install_goes(void **state)
{
    (void)state;
    char *models = test_folder_new(), endpoint[512];
    free(test_folder_write(models, "tmpinstall_7/R/half.bin", "x"));
    free(test_folder_write(models, "tmpinstall_71/R/half.bin", "x"));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/events", models);
    zsock_t *events = zsock_new(ZMQ_XPUB);
    assert_true(zsock_bind(events, "%s", endpoint) >= 0);
    zsock_set_rcvtimeo(events, 10000);
    int watch = inotify_init1(IN_CLOEXEC);
    assert_true(inotify_add_watch(watch, models, IN_MOVED_FROM) >= 0);

    lade_config_t config = {.models_dir = models, .events = endpoint};
    zactor_t *sweep = lade_sweep_new(&config);
    assert_non_null(sweep);
    zframe_t *subscription = zframe_recv(events);
    assert_non_null(subscription);
    zframe_destroy(&subscription);
    static const char *const topics[] = {
        "model_install_cancelled/", "model_install_cancelled/x/", "model_install_cancelled/-7/",
        "model_install_cancelled/9/", "model_install_cancelled/7/"};
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
        zstr_sendx(events, topics[i], "body", NULL);

    struct pollfd wait = {watch, POLLIN, 0};
    assert_int_equal(poll(&wait, 1, 10000), 1);
    assert_false(test_folder_has(models, "tmpinstall_7"));
    assert_true(test_folder_has(models, "tmpinstall_71/R/half.bin"));
    zactor_destroy(&sweep);
    assert_int_equal(test_folder_count(models, "tmptrash_"), 0);
    zsock_destroy(&events);
    close(watch);
    test_folder_end(models);
}

static void
test_without_events_there_is_no_sweeper(void **state)
{
    (void)state;
    lade_config_t config = {.models_dir = "/nowhere", .events = "nonsense"};
    assert_null(lade_sweep_new(&config));
}

int
main(void)
{
    zsys_init();
    zsys_handler_set(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_folder_of_a_cancelled_install_goes),
        cmocka_unit_test(test_without_events_there_is_no_sweeper),
    };
    return cmocka_run_group_tests_name("sweep", tests, NULL, NULL);
}
