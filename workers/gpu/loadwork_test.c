// Tests of the jobs of the load worker, against a broker played by the test.
#include "workers/gpu/loadwork.h"

#include "common/log.h"
#include "common/segment.h"
#include "common/wire.h"
#include "workers/gpu/test_models.h"

#include <czmq.h>
#include <pthread.h>

enum { S_PATIENCE_MS = 20000, S_MB = 1024 * 1024 };

typedef struct {
    char *folder;
    lade_config_t config;
    zsock_t *router;
    zframe_t *peer; // the worker
    lade_loadwork_t *work;
    lade_worker_t *worker;
    pthread_t thread;
    int64_t jobs, reports;
} s_world_t;

static void *
s_thread(void *arg)
{
    s_world_t *world = arg;
    lade_worker_run(world->worker, 1000, NULL);
    return NULL;
}

// Takes body.
static void
s_say(s_world_t *world, int command, json_t *body)
{
    lade_buf_t buf = LADE_BUF(1 << 20);
    zmsg_t *msg = zmsg_new();
    char byte = (char)command;
    zframe_t *peer = zframe_dup(world->peer);
    assert_non_null(body);
    assert_int_equal(lade_wire_from_json(body, &buf, NULL), LADE_OK);
    zmsg_append(msg, &peer);
    zmsg_addmem(msg, "", 0);
    zmsg_addstr(msg, LADE_WORKER_PROTOCOL);
    zmsg_addmem(msg, &byte, 1);
    zmsg_addmem(msg, buf.data, buf.len);
    assert_int_equal(zmsg_send(&msg, world->router), 0);
    lade_buf_free(&buf);
    json_decref(body);
}

// The next message that is no beat and no progress; *body_p is yours.
static int
s_next(s_world_t *world, json_t **body_p)
{
    for (;;) {
        zmq_pollitem_t item = {zsock_resolve(world->router), 0, ZMQ_POLLIN, 0};
        assert_int_equal(zmq_poll(&item, 1, S_PATIENCE_MS), 1);
        zmsg_t *msg = zmsg_recv(world->router);
        assert_int_equal(zmsg_size(msg), 5);
        zframe_destroy(&world->peer);
        world->peer = zmsg_pop(msg);
        zframe_t *frames[4];
        for (size_t i = 0; i < 4; i++)
            frames[i] = zmsg_pop(msg);
        int command = zframe_data(frames[2])[0];
        assert_int_equal(
            lade_wire_to_json(zframe_data(frames[3]), zframe_size(frames[3]), body_p, NULL),
            LADE_OK);
        for (size_t i = 0; i < 4; i++)
            zframe_destroy(&frames[i]);
        zmsg_destroy(&msg);
        if (command != LADE_W_BEAT && command != LADE_W_PROGRESS)
            return command;
        json_decref(*body_p);
    }
}

// Gives a job and returns what it is answered with. Takes spec.
static json_t *
s_do(s_world_t *world, const char *kind, json_t *spec, int expected)
{
    json_t *body;
    assert_non_null(spec);
    s_say(world, LADE_W_JOB,
          json_pack("{s:I, s:I, s:i, s:s, s:s, s:o, s:i, s:i, s:n, s:[]}", "acked",
                    (json_int_t)world->reports, "id", (json_int_t)++world->jobs, "attempt", 1,
                    "kind", kind, "source", "", "spec", spec, "stage", 0, "failures", 0, "state",
                    "children"));
    int command = s_next(world, &body);
    if (command != expected)
        fail_msg("%s: %s: %s", kind, lade_worker_command_name(command),
                 lade_json_text(body, "message", ""));
    assert_int_equal(lade_json_int(body, "id", 0), world->jobs);
    world->reports = lade_json_int(body, "n", 0);
    return body;
}

static json_t *
s_done(s_world_t *world, const char *kind, json_t *spec)
{
    json_t *body = s_do(world, kind, spec, LADE_W_DONE);
    json_t *result = json_incref(json_object_get(body, "result"));
    json_decref(body);
    return result;
}

static void
s_assert_fails(s_world_t *world, const char *kind, json_t *spec, const char *code,
               const char *words)
{
    json_t *body = s_do(world, kind, spec, LADE_W_FAIL);
    assert_string_equal(lade_json_text(body, "code", ""), code);
    if (!strstr(lade_json_text(body, "message", ""), words))
        fail_msg("'%s' does not say '%s'", lade_json_text(body, "message", ""), words);
    json_decref(body);
}

static int
s_setup(void **state)
{
    s_world_t *world = calloc(1, sizeof *world);
    json_t *hello;
    if (test_folder_new((void **)&world->folder))
        return -1;
    assert_int_equal(lade_config_load(&world->config, "", world->folder, NULL), LADE_OK);
    assert_int_equal(lade_config_set(&world->config, "load.cache_mb", "3", NULL), LADE_OK);
    assert_int_equal(lade_config_make_folders(&world->config, NULL), LADE_OK);
    free(test_model(world->config.models_dir, "a.safetensors", "w", S_MB, 1));
    free(test_model(world->config.models_dir, "big.safetensors", "w", 5 * S_MB, 1));
    free(test_model(world->config.models_dir, "sd/unet/diffusion_pytorch_model.safetensors", "u",
                    1024, 1));
    test_text_file(world->config.models_dir, "sd/model_index.json",
                   "{\"unet\": [\"diffusers\", \"UNet2DConditionModel\"]}");
    world->router = zsock_new(ZMQ_ROUTER);
    assert_int_equal(zsock_bind(world->router, "%s", world->config.workers) < 0, 0);
    world->work = lade_loadwork_new(&world->config);
    world->worker = lade_worker_new(&world->config, &lade_loadwork_ops, world->work,
                                    lade_loadwork_slots(&world->config));
    assert_int_equal(lade_loadwork_open(world->work, lade_worker_name(world->worker), NULL),
                     LADE_OK);
    assert_int_equal(pthread_create(&world->thread, NULL, s_thread, world), 0);
    assert_int_equal(s_next(world, &hello), LADE_W_HELLO);
    assert_int_equal(json_array_size(json_object_get(hello, "kinds")), 3);
    json_decref(hello);
    s_say(world, LADE_W_WELCOME,
          json_pack("{s:f, s:i, s:i, s:[]}", "epoch", 1.0, "beat_ms", 100, "lease_beats", 1000,
                    "drop"));
    *state = world;
    return 0;
}

static int
s_teardown(void **state)
{
    s_world_t *world = *state;
    lade_worker_stop(world->worker);
    pthread_join(world->thread, NULL);
    lade_loadwork_destroy(&world->work);
    lade_worker_destroy(&world->worker);
    zframe_destroy(&world->peer);
    zsock_destroy(&world->router);
    lade_config_free(&world->config);
    test_folder_remove((void **)&world->folder);
    free(world);
    return 0;
}

// ---------------------------------------------------------------------------------------------------

static void
test_a_load_answers_with_all_that_is_promised(void **state)
{
    s_world_t *world = *state;
    json_t *spec = json_pack("{s:s, s:o, s:b, s:i}", "key", "a", "config",
                             test_record("a", "vae", "checkpoint", "a.safetensors"), "lock", 1,
                             "pid", (int)getpid());
    json_t *result = s_done(world, "load", spec), *segment = json_object_get(result, "segment");
    assert_string_equal(lade_json_text(result, "key", ""), "a");
    assert_true(json_is_null(json_object_get(result, "submodel")));
    assert_string_equal(lade_json_text(json_object_get(result, "config"), "path", ""),
                        "a.safetensors");
    assert_string_equal(lade_json_text(result, "location", ""), "host");
    assert_string_equal(lade_json_text(result, "precision", ""), "float16");
    assert_string_equal(lade_json_text(result, "worker", ""), lade_worker_name(world->worker));
    assert_true(lade_json_int(result, "bytes", 0) > S_MB);
    assert_int_equal(lade_json_int(result, "bytes", 0), lade_json_int(segment, "bytes", 1));
    assert_true(lade_json_int(segment, "id", 0) > 0);
    char lease[300];
    snprintf(lease, sizeof lease, "%s/1", lade_worker_name(world->worker));
    assert_string_equal(lade_json_text(result, "lease", ""), lease);
    assert_int_equal(access(lade_json_text(segment, "path", ""), R_OK), 0);

    lade_segment_t *attached;
    lade_error_t error = {0};
    if (lade_segment_attach(lade_json_text(segment, "attach", ""), lease, S_PATIENCE_MS, &attached,
                            &error))
        fail_msg("%s", error.message);
    assert_int_equal(lade_segment_count(attached), 2);
    assert_int_equal(
        *(const uint8_t *)lade_segment_data(attached, lade_segment_find(attached, "w.a")),
        test_byte(0, 1));
    lade_segment_close(&attached);
    json_decref(result);
}

static void
test_unlock_and_unload(void **state)
{
    s_world_t *world = *state;
    json_t *record = test_record("a", "vae", "checkpoint", "a.safetensors");
    json_t *loaded = s_done(world, "load",
                            json_pack("{s:s, s:O, s:b}", "key", "a", "config", record, "lock", 1));
    json_t *plain = s_done(world, "load",
                           json_pack("{s:s, s:O, s:n}", "key", "a", "config", record, "submodel"));
    assert_true(json_is_null(json_object_get(plain, "lease")));
    json_decref(plain);
    json_t *result = s_done(world, "unload", json_object());
    assert_int_equal(lade_json_int(result, "unloaded", -1), 0);
    json_decref(result);
    const char *lease = lade_json_text(loaded, "lease", "");
    for (int i = 0; i < 2; i++) { // the second time it is over, which is no error
        result = s_done(world, "unlock", json_pack("{s:s}", "lease", lease));
        assert_int_equal(lade_json_bool(result, "unlocked", false), i == 0);
        json_decref(result);
    }
    result = s_done(world, "unload", json_pack("{s:s, s:n}", "key", "a", "submodel"));
    assert_int_equal(lade_json_int(result, "unloaded", -1), 1);
    json_decref(result);
    json_decref(loaded);
    json_decref(record);
}

static void
test_submodels_by_name(void **state)
{
    s_world_t *world = *state;
    json_t *record = test_record("sd", "main", "diffusers", "sd");
    json_t *result =
        s_done(world, "load",
               json_pack("{s:s, s:O, s:s}", "key", "sd", "config", record, "submodel", "unet"));
    assert_string_equal(lade_json_text(result, "submodel", ""), "unet");
    json_decref(result);
    s_assert_fails(world, "load", json_pack("{s:s, s:O}", "key", "sd", "config", record),
                   "ValueError", "mandatory, one of: unet");
    s_assert_fails(world, "load",
                   json_pack("{s:s, s:O, s:s}", "key", "sd", "config", record, "submodel", "vae"),
                   "ValueError", "it has: unet");
    json_decref(record);
}

static void
test_what_cannot_be_is_said(void **state)
{
    s_world_t *world = *state;
    json_t *record = test_record("a", "vae", "checkpoint", "a.safetensors");
    s_assert_fails(world, "load", json_object(), "ValueError", "config: ");
    s_assert_fails(world, "load", json_pack("{s:s, s:i}", "key", "a", "config", 7), "ValueError",
                   "config: ");
    s_assert_fails(world, "load",
                   json_pack("{s:O, s:b, s:i}", "config", record, "lock", 1, "pid", -1),
                   "ValueError", "pid: ");
    s_assert_fails(
        world, "load",
        json_pack("{s:O, s:b, s:I}", "config", record, "lock", 1, "pid", (json_int_t)1 << 40),
        "ValueError", "pid: ");
    s_assert_fails(world, "load",
                   json_pack("{s:O, s:b, s:f}", "config", record, "lock", 1, "ttl_s", -0.5),
                   "ValueError", "ttl_s: ");
    s_assert_fails(
        world, "load",
        json_pack("{s:o}", "config", test_record("b", "vae", "checkpoint", "big.safetensors")),
        "no_memory", "load.cache_mb");
    s_assert_fails(world, "load",
                   json_pack("{s:o}", "config", test_record("g", "vae", "checkpoint", "gone")),
                   "ModelNotFound", "files for model 'g' not found at ");
    s_assert_fails(world, "load",
                   json_pack("{s:o}", "config", test_record("o", "unknown", "olive", "gone")),
                   "NotImplemented", "base=sd-1, type=unknown, format=olive");
    s_assert_fails(world, "unlock", json_object(), "ValueError", "lease: ");
    s_assert_fails(world, "unload", json_pack("{s:s}", "submodel", "unet"), "ValueError",
                   "submodel: ");
    json_decref(record);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_load_answers_with_all_that_is_promised, s_setup,
                                        s_teardown),
        cmocka_unit_test_setup_teardown(test_unlock_and_unload, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_submodels_by_name, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_is_said, s_setup, s_teardown),
    };
    lade_log_open("loadwork_test", LADE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
