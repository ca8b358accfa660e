// Tests of endpoints: what is refused, and CURVE between two sockets.
#include "common/endpoint.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

typedef struct {
    char *folder;
    lade_config_t config;
} s_fixture_t;

static int
s_setup(void **state)
{
    s_fixture_t *self = calloc(1, sizeof *self);
    char folder[] = "/tmp/lade-endpoint-XXXXXX";
    self->folder = strdup(mkdtemp(folder));
    assert_int_equal(lade_config_load(&self->config, NULL, self->folder, NULL), LADE_OK);
    *state = self;
    return 0;
}

static int
s_teardown(void **state)
{
    s_fixture_t *self = *state;
    lade_config_free(&self->config);
    lade_path_remove(self->folder, NULL);
    free(self->folder);
    free(self);
    return 0;
}

static void
s_set(s_fixture_t *self, const char *key, const char *name)
{
    char *path = lade_path_join(self->folder, name);
    assert_int_equal(lade_config_set(&self->config, key, path, NULL), LADE_OK);
    free(path);
}

static void
test_tcp_without_keys_is_refused_unless_named_insecure(void **state)
{
    s_fixture_t *self = *state;
    zsock_t *socket = zsock_new(ZMQ_ROUTER);
    lade_error_t error = {0};
    assert_int_equal(lade_endpoint_bind(socket, "tcp://127.0.0.1:*", &self->config, &error),
                     LADE_CONFIG_ERROR);
    assert_non_null(strstr(error.message, "insecure"));
    self->config.insecure = true;
    assert_int_equal(lade_endpoint_bind(socket, "tcp://127.0.0.1:*", &self->config, &error),
                     LADE_OK);
    zsock_destroy(&socket);
}

static void
test_a_socket_path_that_is_too_long_is_said(void **state)
{
    s_fixture_t *self = *state;
    zsock_t *socket = zsock_new(ZMQ_ROUTER);
    char endpoint[300] = "ipc:///tmp/";
    memset(endpoint + strlen(endpoint), 'x', 200);
    lade_error_t error = {0};
    assert_int_equal(lade_endpoint_bind(socket, endpoint, &self->config, &error),
                     LADE_CONFIG_ERROR);
    assert_non_null(strstr(error.message, "shorter data folder"));
    zsock_destroy(&socket);
}

// Sends one message from a client with that key to a CURVE server; true if it came.
static bool
s_exchange(s_fixture_t *self, const char *client_key)
{
    lade_error_t error = {0};
    s_set(self, "curve.key", "keys/server");
    s_set(self, "curve.clients", "allowed");
    lade_config_set(&self->config, "endpoints.clients", "tcp://127.0.0.1:*", NULL);
    zactor_t *guard;
    assert_int_equal(lade_endpoint_guard(&self->config, &guard, &error), LADE_OK);
    assert_non_null(guard);
    zsock_t *server = zsock_new(ZMQ_ROUTER), *client = zsock_new(ZMQ_DEALER);
    assert_int_equal(lade_endpoint_bind(server, "tcp://127.0.0.1:*", &self->config, &error),
                     LADE_OK);

    s_set(self, "curve.key", client_key);
    s_set(self, "curve.server", "keys/server.pub");
    char *endpoint = zsock_last_endpoint(server);
    assert_int_equal(lade_endpoint_connect(client, endpoint, &self->config, &error), LADE_OK);
    free(endpoint);
    zstr_send(client, "hello");
    zpoller_t *poller = zpoller_new(server, NULL);
    bool came = zpoller_wait(poller, strstr(client_key, "stranger") ? 300 : 5000) == server;
    zpoller_destroy(&poller);
    zsock_destroy(&client);
    zsock_destroy(&server);
    zactor_destroy(&guard);
    return came;
}

static void
test_curve_lets_in_who_is_listed_and_nobody_else(void **state)
{
    s_fixture_t *self = *state;
    char *keys = lade_path_join(self->folder, "keys"),
         *allowed = lade_path_join(self->folder, "allowed");
    const char *names[] = {"server", "friend", "stranger"};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(lade_endpoint_make_keys(keys, names[i], NULL), LADE_OK);
    assert_int_equal(lade_path_mkdirs(allowed, 0700, NULL), LADE_OK);
    char *from = lade_path_join(keys, "friend.pub"), *to = lade_path_join(allowed, "friend.pub");
    assert_int_equal(lade_path_copy(from, to, NULL, NULL, NULL), LADE_OK);
    assert_true(s_exchange(self, "keys/friend"));
    assert_false(s_exchange(self, "keys/stranger"));
    char *all[] = {keys, allowed, from, to};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void
test_secret_keys_are_closed_and_never_overwritten(void **state)
{
    s_fixture_t *self = *state;
    lade_error_t error = {0};
    assert_int_equal(lade_endpoint_make_keys(self->folder, "broker", &error), LADE_OK);
    char *path = lade_path_join(self->folder, "broker");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0077, 0);
    assert_int_equal(lade_endpoint_make_keys(self->folder, "broker", &error), LADE_EXISTS);
    free(path);
}

int
main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_tcp_without_keys_is_refused_unless_named_insecure),
        CASE(test_a_socket_path_that_is_too_long_is_said),
        CASE(test_curve_lets_in_who_is_listed_and_nobody_else),
        CASE(test_secret_keys_are_closed_and_never_overwritten),
    };
    return cmocka_run_group_tests_name("endpoint", tests, NULL, NULL);
}
