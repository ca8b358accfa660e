// The stages of an install, played against a broker that is a few lines of this test, with a
// killed, stopped or doubled worker at each point that matters.
#include "workers/install/install.h"

#include "common/record.h"
#include "common/wire.h"
#include "workers/install/api.h"
#include "workers/install/hub.h"
#include "workers/install/place.h"
#include "workers/install/test_folder.h"
#include "workers/install/test_server.h"

#include <stdint.h>

typedef struct {
    char *root, *models;
    lade_config_t config;
    char *source;
    json_t *spec, *state, *children;
    json_t *records; // what the broker answers an ask with
    bool stepwise;   // do not pass the stages that only ask
    int64_t attempt, failures;
    lade_stop_t stop;
    int stop_after; // calls of stop that still say no; -1: never changes
    lade_stop_t then;
    int progress;
    // what the last step answered
    lade_answer_t answer;
    lade_error_t error;
} s_world_t;

// ---------------------------------------------------------------------------------------------------
// Doubles

static lade_stop_t
s_stop(void *arg)
{
    s_world_t *world = arg;
    if (world->stop_after >= 0 && world->stop_after-- == 0)
        world->stop = world->then;
    return world->stop;
}

static void
s_progress(void *arg, int64_t bytes, int64_t total_bytes, const char *phase, const char *local_path)
{
    assert_true(bytes <= total_bytes);
    assert_string_equal(phase, "installing");
    assert_non_null(local_path);
    ((s_world_t *)arg)->progress++;
}

// What has "weights" in it is a LoRA.
static lade_code_t
s_identify(const void *rules, const char *path, const json_t *overrides, json_t **found_p,
           lade_error_t *error)
{
    (void)rules, (void)overrides;
    struct stat st;
    char *file = stat(path, &st) == 0 && S_ISDIR(st.st_mode)
                     ? lade_path_join(path, "model.safetensors")
                     : strdup(path);
    char *text = NULL, *name = lade_path_name(path);
    size_t len;
    lade_code_t code = lade_path_read(file, 1 << 20, &text, &len, error);
    if (!code && !strstr(text, "weights"))
        code = lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "%s is no model", name);
    if (!code)
        *found_p = json_pack("{s:s, s:s, s:s, s:s}", "type", "lora", "base", "sd-1", "format",
                             "lycoris", "name", name);
    free(text);
    free(name);
    free(file);
    return code;
}

static s_world_t *
s_begin(const char *source, const char *spec)
{
    s_world_t *world = calloc(1, sizeof *world);
    world->root = test_folder_new();
    world->models = lade_path_join(world->root, "models");
    assert_int_equal(lade_path_mkdirs(world->models, 0755, NULL), LADE_OK);
    world->config = (lade_config_t){.models_dir = world->models,
                                    .data = lade_path_join(world->root, "keyspace"),
                                    .hash = "imohash",
                                    .precision = "float16",
                                    .hub_endpoint = "http://127.0.0.1:1",
                                    .hub_token = "",
                                    .hub_token_file = "/nowhere",
                                    .user_agent = "lade/test",
                                    .ca_file = "",
                                    .connect_timeout_s = 5,
                                    .stall_s = 5,
                                    .max_attempts = 5,
                                    .max_message_bytes = 1 << 20};
    world->source = *source == '/' || strstr(source, "://") || strstr(source, "org/")
                        ? strdup(source)
                        : lade_path_join(world->root, source);
    world->spec = json_loads(spec, 0, NULL);
    world->children = json_array();
    world->stop_after = -1;
    assert_non_null(world->spec);
    return world;
}

static void
s_end(s_world_t *world)
{
    lade_stage_free(&world->answer);
    json_decref(world->spec);
    json_decref(world->state);
    json_decref(world->children);
    json_decref(world->records);
    free(world->source);
    free(world->config.data);
    free(world->models);
    test_folder_end(world->root);
    free(world);
}

// The AWAIT reached the broker: its state is the job's. It has to survive msgpack.
static void
s_accept(s_world_t *world)
{
    assert_true(world->answer.waits);
    lade_buf_t bytes = LADE_BUF(1 << 20);
    json_t *state = NULL;
    assert_int_equal(lade_wire_from_json(world->answer.state, &bytes, NULL), LADE_OK);
    assert_int_equal(lade_wire_to_json(bytes.data, bytes.len, &state, NULL), LADE_OK);
    lade_buf_free(&bytes);
    json_decref(world->state);
    world->state = state;
    json_decref(world->children);
    world->children = json_array();
}

static const char *
s_step_name(const s_world_t *world)
{
    return lade_json_text(world->state, "step", "");
}

static lade_code_t
s_run_stage(s_world_t *world)
{
    lade_stage_free(&world->answer);
    world->error = (lade_error_t){0};
    json_t *answers = world->records ? json_pack("[O]", world->records) : json_pack("[[]]");
    lade_stage_t job = {.config = &world->config,
                        .identify = s_identify,
                        .id = 7,
                        .attempt = world->attempt,
                        .failures = world->failures,
                        .source = world->source,
                        .spec = world->spec,
                        .state = world->state,
                        .children = world->children,
                        .answers = answers,
                        .stop = s_stop,
                        .progress = s_progress,
                        .arg = world};
    lade_code_t code = lade_install_step(&job, &world->answer, &world->error);
    json_decref(answers);
    if (code) {
        print_message("  %s: %s\n", lade_code_name(code), world->error.message);
        assert_int_equal(world->error.code, code);
    }
    return code;
}

// Dispatches the job as the broker would: a new attempt, the state as it is saved. A stage that
// only asks about records is followed by the next one.
static lade_code_t
s_dispatch(s_world_t *world)
{
    world->attempt++;
    lade_code_t code = s_run_stage(world);
    const char *step = lade_json_text(world->answer.state, "step", "");
    bool asks = strcmp(step, "local") == 0 || strcmp(step, "source") == 0;
    if (code || world->stepwise || !world->answer.waits || !asks)
        return code;
    assert_int_equal(json_array_size(world->answer.ask), 1);
    s_accept(world);
    return s_run_stage(world);
}

// Plays the download of child i of the last AWAIT: writes text to where it goes (NULL: fails with
// code).
static void
s_download(s_world_t *world, const json_t *jobs, size_t i, const char *name, const char *text,
           const char *code)
{
    const json_t *job = json_array_get(jobs, i), *spec = json_object_get(job, "spec");
    assert_string_equal(lade_json_text(job, "kind", ""), "download");
    const char *destination = lade_json_text(spec, "destination", NULL);
    char *path = destination ? strdup(destination)
                             : lade_path_join(lade_json_text(spec, "destdir", ""), name);
    if (text) {
        char *folder = lade_path_folder(path);
        assert_int_equal(lade_path_mkdirs(folder, 0755, NULL), LADE_OK);
        assert_int_equal(lade_path_write(path, text, strlen(text), 0644, NULL), LADE_OK);
        free(folder);
    }
    json_array_append_new(
        world->children,
        text ? json_pack("{s:s, s:s, s:{s:s}}", "source", lade_json_text(job, "source", ""),
                         "status", "completed", "result", "path", path)
             : json_pack("{s:s, s:s, s:s, s:s}", "source", lade_json_text(job, "source", ""),
                         "status", strcmp(code, "cancelled") == 0 ? "cancelled" : "error",
                         "error_type", code, "error", "the words of the download"));
    free(path);
}

// The record is whole and its files are where it says; nothing else is left in the models folder.
static void
s_check_done(s_world_t *world, const char *path)
{
    assert_false(world->answer.waits);
    const json_t *effect = json_array_get(world->answer.effects, 0), *result = world->answer.result;
    const json_t *record = json_object_get(effect, "model");
    lade_error_t error = {0};
    assert_string_equal(lade_json_text(effect, "op", ""), "put_model");
    if (lade_record_check(record, &error))
        fail_msg("%s", error.message);
    assert_string_equal(lade_json_text(record, "path", ""), path);
    assert_int_equal(strlen(lade_json_text(record, "key", "")), 32);
    assert_true(json_equal(json_object_get(result, "config_out"), record));
    assert_string_equal(lade_json_text(result, "key", ""), lade_json_text(record, "key", ""));
    assert_int_equal(lade_json_int(result, "total_bytes", 0),
                     lade_json_int(record, "file_size", -1));
    const char *local = lade_json_text(result, "local_path", "");
    char *whole = *path == '/' ? strdup(path) : lade_path_join(world->models, path);
    assert_string_equal(local, whole);
    assert_true(lade_place_inode(whole) != 0);
    // The broker says that it has ended: then the folder goes, and what was placed stays.
    assert_int_equal(lade_place_end(&world->config, 7, true, 0, NULL), LADE_OK);
    assert_true(lade_place_inode(whole) != 0);
    free(whole);
    assert_int_equal(test_folder_count(world->models, "tmp"), 0);
}

// ---------------------------------------------------------------------------------------------------
// Local sources

static void
test_a_local_file_is_copied_and_recorded(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{\"config\": {\"description\": \"mine\"}}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_true(world->progress > 0);
    s_accept(world);
    assert_string_equal(s_step_name(world), "place");
    assert_false(test_folder_has(world->models, "sd-1/lora/foo.safetensors"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/foo.safetensors");
    const json_t *record = json_object_get(world->answer.result, "config_out");
    assert_string_equal(lade_json_text(record, "source", ""), world->source);
    assert_string_equal(lade_json_text(record, "source_type", ""), "path");
    assert_string_equal(lade_json_text(record, "description", ""), "mine");
    assert_int_equal(strncmp(lade_json_text(record, "hash", ""), "imohash:", 8), 0);
    assert_true(test_folder_has(world->root, "foo.safetensors"));
    s_end(world);
}

static void
test_a_local_folder_gets_the_name_it_was_given(void **state)
{
    (void)state;
    s_world_t *world = s_begin("R", "{\"config\": {\"name\": \"My model v1.5\"}}");
    free(test_folder_write(world->root, "R/model.safetensors", "weights"));
    free(test_folder_write(world->root, "R/unet/config.json", "{}"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/My model v1.5");
    assert_true(test_folder_has(world->models, "sd-1/lora/My model v1.5/unet/config.json"));
    s_end(world);
}

static void
test_in_place_leaves_the_file_where_it_is(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{\"inplace\": true}");
    char *path = test_folder_write(world->root, "foo.safetensors", "weights");
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, path);
    free(path);
    s_end(world);
    world = s_begin("models/sd-1/lora/foo.safetensors", "{\"inplace\": true}");
    free(test_folder_write(world->models, "sd-1/lora/foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/foo.safetensors"); // relative to the models folder
    s_end(world);
}

static void
test_what_is_no_model_costs_nothing(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "poetry"));
    assert_int_equal(s_dispatch(world), LADE_INVALID_MODEL_CONFIG);
    assert_int_equal(test_folder_count(world->models, ""), 0);
    s_end(world);
}

static void
test_bad_overrides_and_sources_are_refused_first(void **state)
{
    (void)state;
    static const struct {
        const char *source, *spec;
        lade_code_t code;
    } rows[] = {
        {"foo.safetensors", "{\"config\": {\"type\": \"nonsense\"}}", LADE_INVALID_MODEL_CONFIG},
        {"foo.safetensors", "{\"config\": {\"path\": \"/etc\"}}", LADE_INVALID_MODEL_CONFIG},
        {"foo.safetensors", "{\"config\": {\"key\": \"a/b\"}}", LADE_INVALID_MODEL_CONFIG},
        {"foo.safetensors", "{\"config\": 7}", LADE_INVALID_MODEL_CONFIG},
        {"missing.safetensors", "{}", LADE_VALUE_ERROR},
        {"", "{}", LADE_VALUE_ERROR}, // holds the models folder
        {"/dev/null", "{}", LADE_VALUE_ERROR},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_world_t *world = s_begin(rows[i].source, rows[i].spec);
        free(test_folder_write(world->root, "foo.safetensors", "weights"));
        assert_int_equal(s_dispatch(world), rows[i].code);
        assert_int_equal(test_folder_count(world->models, ""), 0);
        s_end(world);
    }
}

static void
test_a_dry_run_fetches_and_writes_nothing(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{\"dry_run\": true}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_false(world->answer.waits);
    assert_null(world->answer.effects);
    assert_int_equal(lade_json_int(world->answer.result, "bytes", 0), 7);
    assert_int_equal(json_array_size(json_object_get(world->answer.result, "files")), 1);
    assert_int_equal(test_folder_count(world->models, ""), 0);
    s_end(world);
    world = s_begin("http://host/x.safetensors", "{\"dry_run\": true}");
    assert_int_equal(s_dispatch(world), LADE_OK);
    const json_t *file = json_array_get(json_object_get(world->answer.result, "files"), 0);
    assert_string_equal(lade_json_text(file, "url", ""), "http://host/x.safetensors");
    s_end(world);
}

// ---------------------------------------------------------------------------------------------------
// Killed, stopped, doubled

static void
test_an_attempt_killed_in_the_copy_is_done_again(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    free(test_folder_write(world->models, "tmpinstall_7/copy_1/foo.safetensors", "wei"));
    world->attempt = 1;
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_false(test_folder_has(world->models, "tmpinstall_7/copy_1"));
    assert_true(test_folder_has(world->models, "tmpinstall_7/copy_2/foo.safetensors"));
    s_accept(world);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/foo.safetensors");
    s_end(world);
}

static void
test_an_old_attempt_that_wakes_up_leaves_the_new_one_alone(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    world->attempt = 1;
    assert_int_equal(s_dispatch(world), LADE_OK); // attempt 2 made its copy
    s_accept(world);
    json_t *accepted = json_incref(world->state);
    // Attempt 1 was stopped before its copy; it wakes, copies, and fails since it is told that it
    // is stale.
    json_decref(world->state);
    world->state = NULL;
    world->attempt = 0;
    world->stop_after = 3;
    world->then = LADE_STOP_STALE;
    assert_int_equal(s_dispatch(world), LADE_CANCELLED);
    assert_false(test_folder_has(world->models, "tmpinstall_7/copy_1"));
    assert_true(test_folder_has(world->models, "tmpinstall_7/copy_2/foo.safetensors"));
    // The new owner goes on.
    json_decref(world->state);
    world->state = accepted;
    world->attempt = 2;
    world->stop = LADE_STOP_NONE;
    world->stop_after = -1;
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/foo.safetensors");
    s_end(world);
}

static void
test_a_move_whose_answer_was_lost_is_recognised(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_int_equal(s_dispatch(world), LADE_OK); // its DONE never arrives
    json_t *first = json_incref(world->answer.result);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/foo.safetensors");
    assert_true(json_equal(first, world->answer.result)); // the same key, the same everything
    assert_false(test_folder_has(world->models, "sd-1/lora/foo_01.safetensors"));
    json_decref(first);
    s_end(world);
}

static void
test_two_installs_of_one_name_get_two_names(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    // Between the checkpoint and the move another install takes the name.
    free(test_folder_write(world->models, "sd-1/lora/foo.safetensors", "other"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_string_equal(s_step_name(world), "place");
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/foo_01.safetensors");
    s_end(world);
}

static void
test_the_same_model_is_not_installed_twice(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    free(test_folder_write(world->models, "sd-1/lora/foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_DUPLICATE_MODEL);
    assert_int_equal(test_folder_count(world->models, "tmp"), 0);
    // Under another name it can be.
    json_object_set_new(world->spec, "config", json_pack("{s:s}", "name", "bar"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/bar.safetensors");
    s_end(world);
    // Two sources of one model, at once: the second to come finds the first one's.
    world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    free(test_folder_write(world->models, "sd-1/lora/foo.safetensors", "weights"));
    assert_int_equal(s_dispatch(world), LADE_DUPLICATE_MODEL);
    assert_int_equal(test_folder_count(world->models, "tmp"), 0);
    s_end(world);
}

static void
test_cancel_and_pause_leave_nothing_under_the_name(void **state)
{
    (void)state;
    static const lade_stop_t stops[] = {LADE_STOP_CANCEL, LADE_STOP_PAUSE};
    for (size_t s = 0; s < 2; s++)
        for (int at = 0; at < 12; at++) { // at each time the work looks up
            s_world_t *world = s_begin("foo.safetensors", "{}");
            free(test_folder_write(world->root, "foo.safetensors", "weights"));
            world->stop_after = at;
            world->then = stops[s];
            lade_code_t code = LADE_OK;
            for (int stage = 0; stage < 2 && !code; stage++) {
                code = s_dispatch(world);
                if (!code && world->answer.waits)
                    s_accept(world);
            }
            if (code) {
                assert_int_equal(code, stops[s] == LADE_STOP_PAUSE ? LADE_PAUSED : LADE_CANCELLED);
                assert_false(test_folder_has(world->models, "sd-1/lora/foo.safetensors"));
                if (stops[s] == LADE_STOP_CANCEL)
                    assert_int_equal(test_folder_count(world->models, "tmp"), 0);
                world->stop = LADE_STOP_NONE; // resumed, or retried
                world->stop_after = -1;
                while (!(code = s_dispatch(world)) && world->answer.waits)
                    s_accept(world);
            }
            assert_int_equal(code, LADE_OK);
            s_check_done(world, "sd-1/lora/foo.safetensors");
            s_end(world);
        }
}

static void
test_a_copy_that_vanished_is_made_again(void **state)
{
    (void)state;
    s_world_t *world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(s_dispatch(world), LADE_OK);
        s_accept(world);
        char *temp = lade_place_temp(world->models, 7);
        if (i == 0) {
            assert_int_equal(lade_path_remove(temp, NULL), LADE_OK);
            assert_int_equal(s_dispatch(world), LADE_OK); // goes back to the beginning
            s_accept(world);
            assert_string_equal(s_step_name(world), "");
        }
        free(temp);
    }
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/foo.safetensors");
    s_end(world);
    // But not for ever.
    world = s_begin("foo.safetensors", "{}");
    free(test_folder_write(world->root, "foo.safetensors", "weights"));
    lade_code_t code = LADE_OK;
    int rounds = 0;
    for (; !code && rounds < 100; rounds++) {
        code = s_dispatch(world);
        if (!code)
            s_accept(world);
        char *temp = lade_place_temp(world->models, 7);
        assert_int_equal(lade_path_remove(temp, NULL), LADE_OK);
        free(temp);
    }
    assert_int_equal(code, LADE_IO_ERROR);
    s_end(world);
}

// ---------------------------------------------------------------------------------------------------
// URLs

static void
test_an_url_is_one_download(void **state)
{
    (void)state;
    s_world_t *world = s_begin("http://host/get/63006", "{\"access_token\": \"letmein\"}");
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_true(world->answer.waits);
    assert_int_equal(json_array_size(world->answer.jobs), 1);
    const json_t *spec = json_object_get(json_array_get(world->answer.jobs, 0), "spec");
    assert_string_equal(lade_json_text(spec, "access_token", ""), "letmein");
    assert_string_equal(lade_json_text(spec, "url", ""), "http://host/get/63006");
    char *dumped = json_dumps(world->answer.state, 0);
    assert_null(strstr(dumped, "letmein")); // the state is not hidden from other readers
    free(dumped);
    json_t *jobs = json_incref(world->answer.jobs);
    s_accept(world);
    s_download(world, jobs, 0, "style.safetensors", "weights", NULL);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/style.safetensors");
    const json_t *record = json_object_get(world->answer.result, "config_out");
    assert_string_equal(lade_json_text(record, "source", ""), "http://host/get/63006");
    assert_string_equal(lade_json_text(record, "source_type", ""), "url");
    json_decref(jobs);
    s_end(world);
}

static void
test_a_login_page_is_no_model(void **state)
{
    (void)state;
    s_world_t *world = s_begin("http://host/x.safetensors", "{}");
    assert_int_equal(s_dispatch(world), LADE_OK);
    json_t *jobs = json_incref(world->answer.jobs);
    s_accept(world);
    s_download(world, jobs, 0, "x.safetensors", "\n <!DOCTYPE HTML><html>Log in</html> weights",
               NULL);
    assert_int_equal(s_dispatch(world), LADE_NOT_A_MODEL);
    assert_non_null(strstr(world->error.message, "token"));
    assert_int_equal(test_folder_count(world->models, "tmp"), 0);
    json_decref(jobs);
    s_end(world);
}

static void
test_a_failed_download_fails_the_install_with_its_words(void **state)
{
    (void)state;
    static const struct {
        const char *code;
        lade_code_t wanted;
    } rows[] = {{"not_found", LADE_NOT_FOUND},
                {"network", LADE_NETWORK},
                {"cancelled", LADE_CANCELLED},
                {"digest_mismatch", LADE_DIGEST_MISMATCH}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_world_t *world = s_begin("http://host/x.safetensors", "{}");
        assert_int_equal(s_dispatch(world), LADE_OK);
        json_t *jobs = json_incref(world->answer.jobs);
        s_accept(world);
        s_download(world, jobs, 0, "x.safetensors", NULL, rows[i].code);
        free(test_folder_write(world->models, "tmpinstall_7/half", "x"));
        assert_int_equal(s_dispatch(world), rows[i].wanted);
        assert_true(world->answer.final); // the download was retried enough
        if (rows[i].wanted != LADE_CANCELLED)
            assert_non_null(strstr(world->error.message, "the words of the download"));
        assert_int_equal(test_folder_count(world->models, "tmp"), 0);
        // Retried by hand: the broker retries the download first.
        json_array_clear(world->children);
        s_download(world, jobs, 0, "x.safetensors", "weights", NULL);
        assert_int_equal(s_dispatch(world), LADE_OK);
        s_accept(world);
        assert_int_equal(s_dispatch(world), LADE_OK);
        s_check_done(world, "sd-1/lora/x.safetensors");
        json_decref(jobs);
        s_end(world);
    }
}

static void
test_a_download_worker_cannot_point_outside(void **state)
{
    (void)state;
    s_world_t *world = s_begin("http://host/x.safetensors", "{}");
    char *outside = test_folder_write(world->root, "outside.safetensors", "weights");
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    json_array_append_new(world->children,
                          json_pack("{s:s, s:s, s:{s:s}}", "source", world->source, "status",
                                    "completed", "result", "path", outside));
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_true(world->answer.waits); // as good as not there: asked for again
    assert_int_equal(json_array_size(world->answer.jobs), 1);
    free(outside);
    s_end(world);
}

// ---------------------------------------------------------------------------------------------------
// Repositories

#define SHA "0123456789abcdef0123456789abcdef01234567"
#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
static const test_reply_t s_replies[] = {
    {"/api/models/org/R?blobs=true", "200 OK\r\n",
     "{\"id\":\"org/R\",\"sha\":\"" SHA "\",\"tags\":[\"lora\",7,\"sfw\"],\"siblings\":["
     "{\"rfilename\":\"README.md\",\"size\":3},"
     "{\"rfilename\":\"model.safetensors\",\"size\":7,\"lfs\":{\"sha256\":\"" DIGEST "\"}},"
     "{\"rfilename\":\"sub dir/model.json\",\"size\":2}]}"},
    {"/api/models/org/evil?blobs=true", "200 OK\r\n",
     "{\"siblings\":[{\"rfilename\":\"../../model.safetensors\"}]}"},
    {"/api/models/org/none?blobs=true", "200 OK\r\n", "{\"siblings\":[{\"rfilename\":\"x.png\"}]}"},
    {"/api/models/org/busy?blobs=true", "429 Slow\r\nRetry-After: 9\r\n", ""},
    {NULL, NULL, NULL},
};

static void
test_a_repository_is_a_download_a_file(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    s_world_t *world = s_begin("org/R", "{\"access_token\": \"hf_given\"}");
    world->config.hub_endpoint = server->endpoint;
    assert_int_equal(s_dispatch(world), LADE_OK);
    json_t *jobs = json_incref(world->answer.jobs);
    assert_int_equal(json_array_size(jobs), 2);
    assert_int_equal(world->answer.total_bytes, 9);
    assert_non_null(strstr(world->answer.local_path, "/tmpinstall_7/R"));
    const json_t *spec = json_object_get(json_array_get(jobs, 0), "spec");
    assert_string_equal(lade_json_text(spec, "sha256", ""), DIGEST);
    assert_int_equal(lade_json_int(spec, "size", 0), 7);
    assert_string_equal(lade_json_text(spec, "access_token", ""), "hf_given");
    assert_non_null(
        strstr(lade_json_text(spec, "url", ""), "/org/R/resolve/" SHA "/model.safetensors"));
    assert_non_null(
        strstr(lade_json_text(json_array_get(jobs, 1), "source", ""), "/sub%20dir/model.json"));
    s_accept(world);
    s_download(world, jobs, 0, NULL, "weights", NULL);
    s_download(world, jobs, 1, NULL, "{}", NULL);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/R");
    assert_true(test_folder_has(world->models, "sd-1/lora/R/sub dir/model.json"));
    const json_t *record = json_object_get(world->answer.result, "config_out");
    assert_string_equal(lade_json_text(record, "source", ""), "org/R");
    assert_string_equal(lade_json_text(record, "source_type", ""), "hf_repo_id");
    assert_non_null(strstr(lade_json_text(record, "source_api_response", ""), "README.md"));
    assert_int_equal(json_array_size(json_object_get(record, "tags")), 2);
    json_decref(jobs);
    s_end(world);
    test_server_end(server);
}

// The download worker has it from its own settings, so it need not travel.
static void
test_the_hubs_own_token_stays_out_of_jobs(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    s_world_t *world = s_begin("org/R", "{}");
    world->config.hub_endpoint = server->endpoint;
    world->config.hub_token = "hf_x";
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_non_null(strstr(server->last, "Authorization: Bearer hf_x\r\n"));
    char *jobs = json_dumps(world->answer.jobs, 0), *saved = json_dumps(world->answer.state, 0);
    assert_null(strstr(jobs, "hf_x"));
    assert_null(strstr(saved, "hf_x"));
    free(jobs);
    free(saved);
    s_end(world);
    test_server_end(server);
}

static void
test_what_one_download_of_several_lacks_is_fetched_again(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    s_world_t *world = s_begin("org/R", "{}");
    world->config.hub_endpoint = server->endpoint;
    assert_int_equal(s_dispatch(world), LADE_OK);
    json_t *jobs = json_incref(world->answer.jobs);
    s_accept(world);
    s_download(world, jobs, 0, NULL, "wei", NULL); // not the size the hub told
    s_download(world, jobs, 1, NULL, "{}", NULL);
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_true(world->answer.waits);
    assert_int_equal(json_array_size(world->answer.jobs), 1); // the other file is there
    assert_int_equal(json_array_size(json_object_get(world->answer.state, "files")), 2);
    s_accept(world);
    s_download(world, jobs, 0, NULL, "weights", NULL);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    // An attempt that was thought dead removes everything: back to the downloads.
    char *temp = lade_place_temp(world->models, 7);
    assert_int_equal(lade_path_remove(temp, NULL), LADE_OK);
    free(temp);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_string_equal(s_step_name(world), "fetch");
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_int_equal(json_array_size(world->answer.jobs), 2);
    s_accept(world);
    s_download(world, jobs, 0, NULL, "weights", NULL);
    s_download(world, jobs, 1, NULL, "{}", NULL);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_accept(world);
    assert_int_equal(s_dispatch(world), LADE_OK);
    s_check_done(world, "sd-1/lora/R");
    json_decref(jobs);
    s_end(world);
    test_server_end(server);
}

static void
test_refusals_of_a_hub_reach_the_job(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        lade_code_t code;
    } rows[] = {{"org/missing", LADE_UNKNOWN_METADATA},    {"org/evil", LADE_CORRUPT},
                {"org/none", LADE_INVALID_MODEL_CONFIG},   {"org/R::nothing", LADE_NOT_FOUND},
                {"org/R:onnx", LADE_INVALID_MODEL_CONFIG}, {"org/busy", LADE_RATE_LIMITED}};
    test_server_t *server = test_server_new(s_replies, false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_world_t *world = s_begin(rows[i].source, "{}");
        world->config.hub_endpoint = server->endpoint;
        assert_int_equal(s_dispatch(world), rows[i].code);
        assert_true(world->answer.retry_after_s == (rows[i].code == LADE_RATE_LIMITED ? 9 : 0));
        if (rows[i].code == LADE_RATE_LIMITED) // it is tried again
            assert_int_equal(lade_place_end(&world->config, 7, false, 0, NULL), LADE_OK);
        assert_int_equal(test_folder_count(world->models, ""), 0);
        s_end(world);
    }
    test_server_end(server);
}

static void
test_a_page_of_the_hub_is_its_repository(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    char page[128];
    snprintf(page, sizeof page, "%s/org/R", server->endpoint);
    s_world_t *world = s_begin(page, "{\"dry_run\": true}");
    world->config.hub_endpoint = server->endpoint;
    assert_int_equal(s_dispatch(world), LADE_OK);
    assert_int_equal(json_array_size(json_object_get(world->answer.result, "files")), 2);
    assert_int_equal(lade_json_int(world->answer.result, "bytes", 0), 9);
    s_end(world);
    test_server_end(server);
}

static int
s_open(void **state)
{
    (void)state;
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    lade_api_open();
    return 0;
}

static int
s_close(void **state)
{
    (void)state;
    lade_api_close();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_local_file_is_copied_and_recorded),
        cmocka_unit_test(test_a_local_folder_gets_the_name_it_was_given),
        cmocka_unit_test(test_in_place_leaves_the_file_where_it_is),
        cmocka_unit_test(test_what_is_no_model_costs_nothing),
        cmocka_unit_test(test_bad_overrides_and_sources_are_refused_first),
        cmocka_unit_test(test_a_dry_run_fetches_and_writes_nothing),
        cmocka_unit_test(test_an_attempt_killed_in_the_copy_is_done_again),
        cmocka_unit_test(test_an_old_attempt_that_wakes_up_leaves_the_new_one_alone),
        cmocka_unit_test(test_a_move_whose_answer_was_lost_is_recognised),
        cmocka_unit_test(test_two_installs_of_one_name_get_two_names),
        cmocka_unit_test(test_the_same_model_is_not_installed_twice),
        cmocka_unit_test(test_cancel_and_pause_leave_nothing_under_the_name),
        cmocka_unit_test(test_a_copy_that_vanished_is_made_again),
        cmocka_unit_test(test_an_url_is_one_download),
        cmocka_unit_test(test_a_login_page_is_no_model),
        cmocka_unit_test(test_a_failed_download_fails_the_install_with_its_words),
        cmocka_unit_test(test_a_download_worker_cannot_point_outside),
        cmocka_unit_test(test_a_repository_is_a_download_a_file),
        cmocka_unit_test(test_the_hubs_own_token_stays_out_of_jobs),
        cmocka_unit_test(test_what_one_download_of_several_lacks_is_fetched_again),
        cmocka_unit_test(test_refusals_of_a_hub_reach_the_job),
        cmocka_unit_test(test_a_page_of_the_hub_is_its_repository),
    };
    return cmocka_run_group_tests_name("install", tests, s_open, s_close);
}
