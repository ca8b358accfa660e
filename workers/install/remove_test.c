// Deleting: what goes, what stays, and what no record can make lade delete.
#include "workers/install/remove.h"

#include "workers/install/test_folder.h"

typedef struct {
    char *root, *models, *elsewhere;
    lade_config_t config;
    lade_stop_t stop;
} s_world_t;

static lade_stop_t
s_stop(void *arg)
{
    return ((s_world_t *)arg)->stop;
}

static s_world_t *
s_begin(void)
{
    s_world_t *world = calloc(1, sizeof *world);
    world->root = test_folder_new();
    world->models = lade_path_join(world->root, "data/models");
    world->elsewhere = lade_path_join(world->root, "elsewhere");
    assert_int_equal(lade_path_mkdirs(world->models, 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_mkdirs(world->elsewhere, 0755, NULL), LADE_OK);
    world->config.models_dir = world->models;
    world->config.data = lade_path_join(world->root, "data");
    return world;
}

static void
s_end(s_world_t *world)
{
    test_folder_end(world->root);
    free(world->models);
    free(world->elsewhere);
    free(world->config.data);
    free(world);
}

static lade_code_t
s_delete(s_world_t *world, const char *path, bool force)
{
    json_t *spec =
        json_pack("{s:s, s:{s:s}, s:b}", "key", "k", "record", "path", path, "force", force);
    lade_stage_t job = {.config = &world->config,
                        .id = 5,
                        .attempt = 1,
                        .spec = spec,
                        .stop = s_stop,
                        .arg = world};
    lade_answer_t answer = {0};
    lade_error_t error = {0};
    lade_code_t code = lade_remove_step(&job, &answer, &error);
    if (code) {
        print_message("  %s: %s\n", lade_code_name(code), error.message);
        assert_null(answer.effects);
    } else {
        const json_t *effect = json_array_get(answer.effects, 0);
        assert_string_equal(json_string_value(json_object_get(effect, "op")), "del_model");
        assert_string_equal(json_string_value(json_object_get(effect, "key")), "k");
    }
    lade_stage_free(&answer);
    json_decref(spec);
    return code;
}

static void
test_files_in_the_models_folder_go(void **state)
{
    (void)state;
    s_world_t *world = s_begin();
    free(test_folder_write(world->models, "sd-1/main/R/unet/x.bin", "x"));
    free(test_folder_write(world->models, "sd-1/lora/l.bin", "x"));
    assert_int_equal(s_delete(world, "sd-1/main/R", false), LADE_OK);
    assert_false(test_folder_has(world->models, "sd-1/main/R"));
    char *absolute = lade_path_join(world->models, "sd-1/lora/l.bin");
    assert_int_equal(s_delete(world, absolute, false), LADE_OK);
    assert_false(test_folder_has(world->models, "sd-1/lora/l.bin"));
    free(absolute);
    assert_int_equal(s_delete(world, "sd-1/main/R", false), LADE_OK); // gone already
    assert_int_equal(test_folder_count(world->models, "tmp"), 0);
    s_end(world);
}

static void
test_files_elsewhere_stay_unless_forced(void **state)
{
    (void)state;
    s_world_t *world = s_begin();
    char *path = test_folder_write(world->elsewhere, "m/x.bin", "x"),
         *folder = lade_path_folder(path);
    assert_int_equal(s_delete(world, folder, false), LADE_OK);
    assert_true(test_folder_has(world->elsewhere, "m/x.bin"));
    assert_int_equal(s_delete(world, folder, true), LADE_OK);
    assert_false(test_folder_has(world->elsewhere, "m"));
    assert_int_equal(test_folder_count(world->elsewhere, "."), 0);
    free(path);
    free(folder);
    s_end(world);
}

static void
test_links_do_not_lead_out(void **state)
{
    (void)state;
    s_world_t *world = s_begin();
    free(test_folder_write(world->elsewhere, "m/x.bin", "x"));
    char *link = lade_path_join(world->models, "out");
    assert_int_equal(symlink(world->elsewhere, link), 0);
    // A folder below a link is elsewhere.
    assert_int_equal(s_delete(world, "out/m", false), LADE_OK);
    assert_true(test_folder_has(world->elsewhere, "m/x.bin"));
    // The link itself is ours, what it leads to is not.
    assert_int_equal(s_delete(world, "out", false), LADE_OK);
    assert_false(test_folder_has(world->models, "out"));
    assert_true(test_folder_has(world->elsewhere, "m/x.bin"));
    free(link);
    s_end(world);
}

static void
test_lades_own_folders_are_never_deleted(void **state)
{
    (void)state;
    s_world_t *world = s_begin();
    free(test_folder_write(world->models, "sd-1/main/R/x.bin", "x"));
    char *link = lade_path_join(world->elsewhere, "round");
    assert_int_equal(symlink(world->root, link), 0);
    char *round = lade_path_join(world->elsewhere, "round/data");
    const char *paths[] = {"/",         ".",           "",
                           "..",        "../x",        "sd-1/../..",
                           "a/..",      world->models, world->config.data,
                           world->root, round};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        assert_int_equal(s_delete(world, paths[i], true), LADE_VALUE_ERROR);
    assert_true(test_folder_has(world->models, "sd-1/main/R/x.bin"));
    free(link);
    free(round);
    s_end(world);
}

static void
test_a_delete_that_was_killed_is_finished(void **state)
{
    (void)state;
    s_world_t *world = s_begin();
    free(test_folder_write(world->models, "tmpdelete_5/unet/x.bin", "x")); // renamed, half removed
    free(test_folder_write(world->models, "sd-1/main/other.bin", "x"));
    assert_int_equal(s_delete(world, "sd-1/main/R", false), LADE_OK);
    assert_int_equal(test_folder_count(world->models, "tmp"), 0);
    assert_true(test_folder_has(world->models, "sd-1/main/other.bin"));
    s_end(world);
}

static void
test_a_cancelled_delete_deletes_nothing(void **state)
{
    (void)state;
    s_world_t *world = s_begin();
    free(test_folder_write(world->models, "sd-1/main/R/x.bin", "x"));
    world->stop = LADE_STOP_CANCEL;
    assert_int_equal(s_delete(world, "sd-1/main/R", false), LADE_CANCELLED);
    assert_true(test_folder_has(world->models, "sd-1/main/R/x.bin"));
    s_end(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_in_the_models_folder_go),
        cmocka_unit_test(test_files_elsewhere_stay_unless_forced),
        cmocka_unit_test(test_links_do_not_lead_out),
        cmocka_unit_test(test_lades_own_folders_are_never_deleted),
        cmocka_unit_test(test_a_delete_that_was_killed_is_finished),
        cmocka_unit_test(test_a_cancelled_delete_deletes_nothing),
    };
    return cmocka_run_group_tests_name("remove", tests, NULL, NULL);
}
