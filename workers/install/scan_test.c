// The stages of scans and syncs alone: what they ask, what they make of the answers.
#include "workers/install/scan.h"

#include "common/hash.h"
#include "common/wire.h"
#include "workers/install/test_folder.h"

typedef struct {
    char *root, *models;
    lade_config_t config;
    lade_answer_t answer;
    lade_stop_t stop;
} s_world_t;

static lade_stop_t
s_on_stop(void *arg)
{
    return ((s_world_t *)arg)->stop;
}

static void
s_on_progress(void *arg, int64_t bytes, int64_t total, const char *phase, const char *path)
{
    (void)arg;
    (void)path;
    assert_true(bytes >= 0 && total >= 0);
    assert_non_null(phase);
}

// Every file is a LoRA, but one whose name begins with "bad".
static lade_code_t
s_identify(const void *rules, const char *path, const json_t *overrides, json_t **found_p,
           lade_error_t *error)
{
    (void)rules;
    (void)overrides;
    char *name = lade_path_name(path);
    bool bad = strncmp(name, "bad", 3) == 0;
    *found_p = bad ? NULL
                   : json_pack("{s:s, s:s, s:s, s:s}", "type", "lora", "base", "sd-1", "format",
                               "lycoris", "name", name);
    free(name);
    return bad ? lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "no model lade knows") : LADE_OK;
}

static int
s_setup(void **state)
{
    s_world_t *world = calloc(1, sizeof *world);
    world->root = test_folder_new();
    world->models = lade_path_join(world->root, "data/models");
    assert_int_equal(lade_path_mkdirs(world->models, 0755, NULL), LADE_OK);
    world->config = (lade_config_t){.models_dir = world->models,
                                    .data = lade_path_join(world->root, "data"),
                                    .hash = "imohash",
                                    .autoimport_dir = "",
                                    .max_message_bytes = 1 << 20};
    *state = world;
    return 0;
}

static int
s_teardown(void **state)
{
    s_world_t *world = *state;
    lade_stage_free(&world->answer);
    test_folder_end(world->root);
    free(world->models);
    free(world->config.data);
    free(world);
    return 0;
}

// Runs a stage with the state of the one before; spec, children and answers are consumed.
static lade_code_t
s_step(s_world_t *world, json_t *spec, json_t *children, json_t *answers, lade_error_t *error)
{
    lade_answer_t before = world->answer;
    world->answer = (lade_answer_t){0};
    lade_stage_t job = {.config = &world->config,
                        .identify = s_identify,
                        .id = 5,
                        .attempt = 1,
                        .spec = spec,
                        .state = before.state,
                        .children = children ? children : json_array(),
                        .answers = answers ? answers : json_array(),
                        .stop = s_on_stop,
                        .progress = s_on_progress,
                        .arg = world};
    lade_code_t code = lade_scan_step(&job, &world->answer, error);
    json_decref((json_t *)job.children);
    json_decref((json_t *)job.answers);
    json_decref(spec);
    lade_stage_free(&before);
    return code;
}

static void
s_good_step(s_world_t *world, json_t *spec, json_t *children, json_t *answers)
{
    lade_error_t error = {0};
    assert_non_null(spec);
    if (s_step(world, spec, children, answers, &error))
        fail_msg("%s: %s", lade_code_name(error.code), error.message);
}

static json_t *
s_dir_spec(const char *dir)
{
    return json_pack("{s:s}", "dir", dir);
}

static json_t *
s_nobody_knows(const s_world_t *world)
{
    const json_t *paths = json_object_get(json_array_get(world->answer.ask, 0), "paths"),
                 *folders = json_object_get(json_array_get(world->answer.ask, 1), "paths");
    json_t *answers = json_pack("[[], [], {s:i, s:n}]", "count", 0, "since");
    for (size_t i = 0; i < json_array_size(paths); i++)
        json_array_append_new(json_array_get(answers, 0), json_null());
    for (size_t i = 0; i < json_array_size(folders); i++)
        json_array_append_new(json_array_get(answers, 1), json_null());
    return answers;
}

static void
test_a_scan_asks_then_sends_batches_then_tells(void **state)
{
    s_world_t *world = *state;
    char *tree = lade_path_join(world->root, "tree"), name[64];
    for (int i = 0; i < 130; i++) {
        snprintf(name, sizeof name, "tree/x/%03d.safetensors", i);
        free(test_folder_write(world->root, name, "x"));
    }
    s_good_step(world, s_dir_spec(tree), NULL, NULL);
    assert_true(world->answer.waits);
    assert_int_equal(json_array_size(world->answer.jobs), 0);
    assert_int_equal(
        json_array_size(json_object_get(json_array_get(world->answer.ask, 0), "paths")), 130);
    assert_int_equal(
        json_array_size(json_object_get(json_array_get(world->answer.ask, 1), "paths")),
        2); // tree/x and tree
    // Two are known: one by itself.
    json_t *answers = s_nobody_knows(world);
    json_array_set_new(json_array_get(answers, 0), 7, json_string("a key"));
    s_good_step(world, s_dir_spec(tree), NULL, answers);
    size_t batches = json_array_size(world->answer.jobs);
    size_t batch = json_array_size(
        json_object_get(json_object_get(json_array_get(world->answer.jobs, 0), "spec"), "batch"));
    assert_int_equal(batches, (129 + batch - 1) / batch);
    assert_true(batches > 3 && batch > 9);
    assert_null(world->answer.ask);
    // The first has died, the second has one that was refused, the third is empty-handed.
    json_t *children = json_pack(
        "[{s:s, s:s, s:s, s:s}, {s:s, s:s, s:{s:[{s:s, s:s}, {s:s, s:s}], s:[{s:i, s:s, s:s}]}}, "
        "{s:s, s:s, s:{s:[{s:s, s:s, s:s}]}}]",
        "kind", "scan", "status", "dead", "error_type", "worker_lost", "error", "gone", "kind",
        "scan", "status", "completed", "result", "added", "key", "k1", "path", "/p1", "key", "k2",
        "path", "/p2", "refused", "at", 1, "error_type", "DuplicateModel", "error", "there", "kind",
        "scan", "status", "completed", "result", "failed", "path", "/p3", "error_type", "corrupt",
        "error", "words");
    for (size_t i = 3; i < batches; i++)
        json_array_append_new(children, json_pack("{s:s, s:s, s:{}}", "kind", "scan", "status",
                                                  "completed", "result"));
    s_good_step(world, s_dir_spec(tree), children, NULL);
    assert_int_equal(json_array_size(world->answer.jobs), batch); // one by one
    // One of them is the bad one.
    children = json_array();
    for (size_t i = 0; i < batch; i++) {
        snprintf(name, sizeof name, "s%zu", i);
        json_array_append_new(
            children, i == 9
                          ? json_pack("{s:s, s:s, s:s, s:s}", "kind", "scan", "status", "dead",
                                      "error_type", "worker_lost", "error", "gone again")
                          : json_pack("{s:s, s:s, s:{s:[{s:s, s:s}]}}", "kind", "scan", "status",
                                      "completed", "result", "added", "key", name, "path", "/q"));
    }
    s_good_step(world, s_dir_spec(tree), children, NULL);
    assert_false(world->answer.waits);
    const json_t *result = world->answer.result;
    assert_int_equal(json_array_size(json_object_get(result, "keys")), batch); // but one, and k1
    assert_int_equal(lade_json_int(result, "found", 0), 130);
    assert_int_equal(lade_json_int(result, "known", 0), 2);
    const json_t *failed = json_object_get(result, "failed");
    assert_int_equal(json_array_size(failed), 2);
    assert_string_equal(lade_json_text(json_array_get(failed, 1), "error_type", ""), "worker_lost");
    assert_non_null(strstr(lade_json_text(json_array_get(failed, 1), "path", ""), "tree/x/"));
    free(tree);
}

static void
test_a_page_is_what_fits(void **state)
{
    s_world_t *world = *state;
    char *tree = lade_path_join(world->root, "tree"), name[64];
    world->config.max_message_bytes = 16 * 1024;
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "tree/%03d.safetensors", i);
        free(test_folder_write(world->root, name, "x"));
    }
    size_t seen = 0, pages = 0;
    s_good_step(world, s_dir_spec(tree), NULL, NULL);
    for (; world->answer.waits; pages++) {
        json_t *answers = s_nobody_knows(world);
        size_t count = json_array_size(json_array_get(answers, 0));
        assert_true(count > 0 && count < 40);
        seen += count;
        for (size_t i = 0; i < count; i++)
            json_array_set_new(json_array_get(answers, 0), i, json_string("k"));
        s_good_step(world, s_dir_spec(tree), NULL, answers);
    }
    assert_true(pages > 1);
    assert_int_equal(seen, 40);
    assert_int_equal(lade_json_int(world->answer.result, "known", 0), 40);
    assert_int_equal(lade_json_int(world->answer.result, "found", 0), 40);
    free(tree);
}

static void
test_an_ask_that_failed_fails_the_scan(void **state)
{
    s_world_t *world = *state;
    char *tree = lade_path_join(world->root, "tree");
    free(test_folder_write(world->root, "tree/a.bin", "x"));
    s_good_step(world, s_dir_spec(tree), NULL, NULL);
    lade_error_t error = {0};
    json_t *answers =
        json_pack("[{s:{s:s, s:s}}]", "error", "code", "too_large", "message", "too much");
    assert_int_equal(s_step(world, s_dir_spec(tree), NULL, answers, &error), LADE_TOO_LARGE);
    assert_string_equal(error.message, "too much");
    free(tree);
}

static void
test_a_stop_is_heard(void **state)
{
    s_world_t *world = *state;
    lade_error_t error = {0};
    world->stop = LADE_STOP_PAUSE;
    assert_int_equal(s_step(world, s_dir_spec(world->root), NULL, NULL, &error), LADE_PAUSED);
    world->stop = LADE_STOP_CANCEL;
    assert_int_equal(s_step(world, s_dir_spec(world->root), NULL, NULL, &error), LADE_CANCELLED);
}

static void
test_a_batch_makes_records_of_what_it_knows(void **state)
{
    s_world_t *world = *state;
    char *good = test_folder_write(world->root, "t/good.bin", "x"),
         *bad = test_folder_write(world->root, "t/bad.bin", "x"),
         *own = test_folder_write(world->models, "sd-1/own.bin", "x");
    for (int dry = 0; dry < 2; dry++) {
        s_good_step(world,
                    json_pack("{s:[s, s, s, s], s:b}", "batch", good, bad, own, "/none.bin",
                              "dry_run", dry),
                    NULL, NULL);
        const json_t *result = world->answer.result;
        const json_t *added = json_object_get(result, "added"),
                     *failed = json_object_get(result, "failed");
        assert_int_equal(json_array_size(added), 2);
        assert_int_equal(json_array_size(failed), 2);
        assert_string_equal(lade_json_text(json_array_get(failed, 1), "error_type", ""),
                            "not_found");
        assert_string_equal(lade_json_text(json_array_get(added, 1), "path", ""), "sd-1/own.bin");
        assert_int_equal(json_object_get(json_array_get(added, 0), "key") == NULL, dry);
        assert_int_equal(json_array_size(world->answer.effects), dry ? 0 : 2);
        const json_t *effect = json_array_get(world->answer.effects, 0);
        const json_t *model = json_object_get(effect, "model");
        if (dry)
            continue;
        assert_true(lade_json_bool(effect, "tolerant", false));
        assert_string_equal(lade_json_text(model, "source", ""), good);
        assert_string_equal(lade_json_text(model, "source_type", ""), "path");
        assert_memory_equal(lade_json_text(model, "hash", ""), "imohash:", 8);
    }
    free(good);
    free(bad);
    free(own);
}

// What is no model is looked at once, until something about it changes.
static void
test_refused_files_are_remembered(void **state)
{
    s_world_t *world = *state;
    char *path = test_folder_write(world->root, "t/file.bin", "x");
    lade_refused_t *refused = lade_refused_new();
    struct stat st;
    lade_error_t why = {0}, told = {0};
    assert_int_equal(stat(path, &st), 0);
    assert_false(lade_refused_find(refused, path, &st, &told));
    lade_error_set(&why, LADE_IO_ERROR, "may be better the next time");
    lade_refused_add(refused, path, &st, &why);
    assert_false(lade_refused_find(refused, path, &st, &told));
    lade_error_set(&why, LADE_CORRUPT, "the file is empty");
    for (int i = 0; i < 2; i++) { // twice is once
        lade_refused_add(refused, path, &st, &why);
        assert_true(lade_refused_find(refused, path, &st, &told));
    }
    assert_int_equal(told.code, LADE_CORRUPT);
    assert_string_equal(told.message, "the file is empty");
    assert_false(lade_refused_find(refused, "/another/path", &st, &told));
    struct stat changed[] = {st, st, st, st};
    changed[0].st_size++;
    changed[1].st_ino++;
    changed[2].st_mtim.tv_nsec ^= 1;
    changed[3].st_ctim.tv_sec++;
    for (size_t i = 0; i < 4; i++) {
        lade_refused_add(refused, path, &st, &why);
        assert_false(lade_refused_find(refused, path, &changed[i], &told));
        assert_false(lade_refused_find(refused, path, &st, &told)); // forgotten
    }
    lade_refused_destroy(&refused);
    free(path);
}

static void
test_a_batch_finds_lost_records_by_their_hash(void **state)
{
    s_world_t *world = *state;
    char *a = test_folder_write(world->root, "t/a.bin", "abc"),
         *b = test_folder_write(world->root, "t/b.bin", "abc"),
         *c = test_folder_write(world->root, "t/c.bin", "xyz");
    char *hash = NULL;
    lade_error_t error = {0};
    assert_int_equal(lade_hash_path(a, "imohash", NULL, NULL, &hash, &error), LADE_OK);
    // Two records of that content: b.bin's own comes first for b.bin.
    s_good_step(world,
                json_pack("{s:[s, s, s], s:[{s:s, s:s, s:s, s:i}, {s:s, s:s, s:s, s:i}, {s:s, s:s, "
                          "s:s, s:i}]}",
                          "batch", b, a, c, "lost", "key", "k1", "path", "/gone/z.bin", "hash",
                          hash, "file_size", 3, "key", "k2", "path", "/gone/b.bin", "hash", hash,
                          "file_size", 3, "key", "k3", "path", "/gone/c.bin", "hash", "blake3:00",
                          "file_size", 3),
                NULL, NULL);
    const json_t *relinked = json_object_get(world->answer.result, "relinked");
    assert_int_equal(json_array_size(relinked), 2);
    assert_string_equal(lade_json_text(json_array_get(relinked, 0), "key", ""), "k2");
    assert_string_equal(lade_json_text(json_array_get(relinked, 0), "path", ""), b);
    assert_string_equal(lade_json_text(json_array_get(relinked, 1), "key", ""), "k1");
    const json_t *left = json_object_get(world->answer.result, "left");
    assert_int_equal(json_array_size(left), 1);
    assert_string_equal(json_string_value(json_array_get(left, 0)), c);
    const json_t *effect = json_array_get(world->answer.effects, 0);
    assert_string_equal(lade_json_text(effect, "op", ""), "update_model");
    assert_string_equal(lade_json_text(json_object_get(effect, "changes"), "path", ""), b);
    free(hash);
    free(a);
    free(b);
    free(c);
}

// ---------------------------------------------------------------------------------------------------
// Missing and unavailable

static json_t *
s_record(const char *key, const char *path)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:i}", "key", key, "name", key, "path", path, "hash",
                     "imohash:00", "file_size", 1);
}

// A sync over these records, with nothing new in the models folder; its result. unregister too.
static const json_t *
s_sync(s_world_t *world, json_t *records)
{
    json_t *spec = json_pack("{s:b, s:b}", "sync", 1, "unregister", 1);
    s_good_step(world, json_incref(spec), NULL, NULL);
    assert_string_equal(lade_json_text(json_array_get(world->answer.ask, 0), "op", ""), "records");
    // In two pages.
    json_t *first = json_array();
    if (json_array_size(records) > 1) {
        json_array_append(first, json_array_get(records, 0));
        json_array_remove(records, 0);
        s_good_step(world, json_incref(spec), NULL,
                    json_pack("[{s:o, s:s}]", "records", first, "next", "the first"));
        assert_string_equal(lade_json_text(json_array_get(world->answer.ask, 0), "after", ""),
                            "the first");
    } else {
        json_decref(first);
    }
    s_good_step(world, json_incref(spec), NULL,
                json_pack("[{s:o, s:n}]", "records", records, "next"));
    while (world->answer.waits) {
        json_t *answers = s_nobody_knows(world);
        for (size_t i = 0; i < json_array_size(json_array_get(answers, 0)); i++)
            json_array_set_new(json_array_get(answers, 0), i, json_string("known"));
        s_good_step(world, json_incref(spec), NULL, answers);
    }
    json_decref(spec);
    return world->answer.result;
}

static void
s_expect(const json_t *result, size_t missing, size_t unavailable)
{
    assert_int_equal(json_array_size(json_object_get(result, "missing")), missing);
    assert_int_equal(json_array_size(json_object_get(result, "unavailable")), unavailable);
    assert_int_equal(json_array_size(json_object_get(result, "unregistered")), missing);
}

static void
test_one_of_several_is_missing(void **state)
{
    s_world_t *world = *state;
    free(test_folder_write(world->models, "a.bin", "x"));
    char *there = test_folder_write(world->root, "far/there.bin", "x"),
         *gone = lade_path_join(world->root, "far/gone.bin"),
         *deep = lade_path_join(world->root, "far/sub/gone.bin");
    json_t *records = json_pack("[o, o, o, o, o]", s_record("k1", "a.bin"), s_record("k2", "b.bin"),
                                s_record("k3", there), s_record("k4", gone), s_record("k5", deep));
    const json_t *result = s_sync(world, records);
    s_expect(result, 3, 0);
    assert_int_equal(json_array_size(world->answer.effects), 3);
    assert_string_equal(lade_json_text(json_array_get(world->answer.effects, 0), "op", ""),
                        "del_model");
    free(there);
    free(gone);
    free(deep);
}

static void
test_what_went_at_once_is_unavailable(void **state)
{
    s_world_t *world = *state;
    free(test_folder_write(world->models, "a.bin", "x"));
    json_t *records = json_pack("[o, o, o, o]", s_record("k1", "a.bin"), s_record("k2", "b.bin"),
                                s_record("k3", "c.bin"), s_record("k4", "sub/d.bin"));
    const json_t *result = s_sync(world, records);
    s_expect(result, 0, 3);
    assert_non_null(strstr(
        lade_json_text(json_array_get(json_object_get(result, "unavailable"), 0), "reason", ""),
        "3 of the 4 models"));
    assert_null(world->answer.effects);
}

static void
test_drives_that_are_away(void **state)
{
    s_world_t *world = *state;
    free(test_folder_write(world->models, "a.bin", "x"));
    char *empty = lade_path_join(world->root, "empty"), *in = lade_path_join(empty, "x/y.bin");
    assert_int_equal(lade_path_mkdirs(empty, 0755, NULL), LADE_OK);
    json_t *records = json_pack("[o, o, o, o]", s_record("k1", "a.bin"),
                                s_record("k2", "/mnt/no-such-drive/a.bin"), s_record("k3", in),
                                s_record("k4", "/no-such-top/a.bin"));
    const json_t *result = s_sync(world, records);
    s_expect(result, 0, 3);
    free(empty);
    free(in);
}

#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        S_TEST(test_a_scan_asks_then_sends_batches_then_tells),
        S_TEST(test_a_page_is_what_fits),
        S_TEST(test_an_ask_that_failed_fails_the_scan),
        S_TEST(test_a_stop_is_heard),
        S_TEST(test_a_batch_makes_records_of_what_it_knows),
        S_TEST(test_refused_files_are_remembered),
        S_TEST(test_a_batch_finds_lost_records_by_their_hash),
        S_TEST(test_one_of_several_is_missing),
        S_TEST(test_what_went_at_once_is_unavailable),
        S_TEST(test_drives_that_are_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
