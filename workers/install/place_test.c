// Names, and the one rename that publishes, stopped at each point it can be stopped at.
#include "workers/install/place.h"

#include "workers/install/test_folder.h"

static void
test_names_become_file_names(void **state)
{
    (void)state;
    static const struct {
        const char *name, *source;
        bool is_file;
        const char *wanted;
    } rows[] = {
        // clang-format off
        {NULL,             "/x/foo.safetensors",    true,  "foo.safetensors"},
        {"",               "/x/foo.safetensors",    true,  "foo.safetensors"},
        {"bar",            "/x/foo.safetensors",    true,  "bar.safetensors"},
        {"foo v1.5",       "/x/a.safetensors",      true,  "foo v1.5.safetensors"},
        {"bar.safetensors", "/x/foo.safetensors",   true,  "bar.safetensors"},
        {"bar",            "/x/63006",              true,  "bar"},
        {"bar",            "/x/sdxl-turbo",         false, "bar"},
        {"bar",            "/x/a.folder",           false, "bar"},
        {NULL,             "/x/a.folder",           false, "a.folder"},
        {NULL,             "/x/my model v1.0 final", true, "my model v1.0 final"},
        {"a/b\\c:d",       "/x/f.bin",              true,  "a_b_c_d.bin"},
        {"../../etc",      "/x/f.bin",              true,  "_._.._etc.bin"},
        {"..",             "/x/f",                  false, "_."},
        {".hidden",        "/x/f",                  false, "_hidden"},
        {"  ",             "/x/f",                  false, "_"},
        {"a\nb",           "/x/f",                  false, "a_b"},
        {"\xff\xc3(\xc3\xa9", "/x/f",               false, "__(\xc3\xa9"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *name = lade_place_file_name(rows[i].name, rows[i].source, rows[i].is_file);
        assert_string_equal(name, rows[i].wanted);
        assert_int_equal(lade_path_check_name(name, NULL), LADE_OK);
        free(name);
    }
    char longest[1001];
    for (size_t i = 0; i < 1000; i += 2)
        memcpy(longest + i, "\xc3\xa9", 2);
    longest[1000] = '\0';
    char *name = lade_place_file_name(longest, "/x/f.safetensors", true);
    assert_int_equal(lade_path_check_name(name, NULL), LADE_OK);
    free(name);
}

static void
test_a_taken_name_is_numbered(void **state)
{
    (void)state;
    char *models = test_folder_new(), *relative;
    static const char *const wanted[] = {"sd-1/lora/x.safetensors", "sd-1/lora/x_01.safetensors",
                                         "sd-1/lora/x_02.safetensors"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(
            lade_place_choose(models, "sd-1", "lora", "x.safetensors", true, &relative, NULL),
            LADE_OK);
        assert_string_equal(relative, wanted[i]);
        free(test_folder_write(models, relative, "x"));
        free(relative);
    }
    free(test_folder_write(models, "sdxl/main/v1.5/model_index.json", "{}"));
    assert_int_equal(lade_place_choose(models, "sdxl", "main", "v1.5", false, &relative, NULL),
                     LADE_OK);
    assert_string_equal(relative, "sdxl/main/v1.5_01");
    free(relative);
    // A link that leads nowhere holds the name as well.
    char *link = lade_path_join(models, "sdxl/main/v1.5_01");
    assert_int_equal(symlink("/nowhere", link), 0);
    free(link);
    assert_int_equal(lade_place_choose(models, "sdxl", "main", "v1.5", false, &relative, NULL),
                     LADE_OK);
    assert_string_equal(relative, "sdxl/main/v1.5_02");
    free(relative);
    test_folder_end(models);
}

typedef struct {
    char *models, *from, *to;
    uint64_t inode;
} s_world_t;

static s_world_t
s_begin(void)
{
    s_world_t world = {.models = test_folder_new()};
    world.from = test_folder_write(world.models, "tmpinstall_7/R/model.safetensors", "weights");
    free(world.from);
    world.from = lade_path_join(world.models, "tmpinstall_7/R");
    world.to = lade_path_join(world.models, "sd-1/main/R");
    char *folder = lade_path_folder(world.to);
    assert_int_equal(lade_path_mkdirs(folder, 0755, NULL), LADE_OK);
    free(folder);
    world.inode = lade_place_inode(world.from);
    assert_true(world.inode != 0);
    return world;
}

static void
s_end(s_world_t *world)
{
    test_folder_end(world->models);
    free(world->from);
    free(world->to);
}

static void
test_publishing_twice_is_publishing_once(void **state)
{
    (void)state;
    s_world_t world = s_begin();
    assert_int_equal(lade_place_publish(world.from, world.to, world.inode, NULL), LADE_OK);
    assert_true(test_folder_has(world.to, "model.safetensors"));
    // The attempt before was killed after its rename.
    assert_int_equal(lade_place_publish(world.from, world.to, world.inode, NULL), LADE_OK);
    assert_true(test_folder_has(world.to, "model.safetensors"));
    s_end(&world);
}

static void
test_somebody_elses_model_is_never_replaced_nor_claimed(void **state)
{
    (void)state;
    s_world_t world = s_begin();
    lade_error_t error = {0};
    free(test_folder_write(world.to, "other.safetensors", "other"));
    assert_int_equal(lade_place_publish(world.from, world.to, world.inode, &error), LADE_EXISTS);
    assert_true(test_folder_has(world.from, "model.safetensors"));
    assert_true(test_folder_has(world.to, "other.safetensors"));
    // Ours is gone, theirs has the name: that is not a move that happened.
    assert_int_equal(lade_path_remove(world.from, NULL), LADE_OK);
    assert_int_equal(lade_place_publish(world.from, world.to, world.inode, &error), LADE_NOT_FOUND);
    assert_int_equal(lade_place_withdraw(world.from, world.to, world.inode, &error), LADE_OK);
    assert_true(test_folder_has(world.to, "other.safetensors"));
    s_end(&world);
}

static void
test_what_is_gone_is_told(void **state)
{
    (void)state;
    s_world_t world = s_begin();
    assert_int_equal(lade_path_remove(world.from, NULL), LADE_OK);
    assert_int_equal(lade_place_publish(world.from, world.to, world.inode, NULL), LADE_NOT_FOUND);
    assert_int_equal(lade_place_inode(world.to), 0);
    s_end(&world);
}

static void
test_withdrawing_leaves_nothing_under_the_name(void **state)
{
    (void)state;
    s_world_t world = s_begin();
    assert_int_equal(lade_place_publish(world.from, world.to, world.inode, NULL), LADE_OK);
    assert_int_equal(lade_place_withdraw(world.from, world.to, world.inode, NULL), LADE_OK);
    assert_int_equal(lade_place_inode(world.to), 0);
    assert_true(test_folder_has(world.from, "model.safetensors"));
    // And again: an attempt that resumes publishes it.
    assert_int_equal(lade_place_publish(world.from, world.to, world.inode, NULL), LADE_OK);
    assert_true(test_folder_has(world.to, "model.safetensors"));
    s_end(&world);
}

static void
test_discarding_leaves_nothing_and_sweeping_what_a_kill_left(void **state)
{
    (void)state;
    s_world_t world = s_begin();
    char *temp = lade_place_temp(world.models, 7);
    assert_int_equal(lade_place_discard(world.models, temp, NULL), LADE_OK);
    assert_int_equal(lade_place_discard(world.models, temp, NULL), LADE_OK);
    assert_int_equal(test_folder_count(world.models, "tmp"), 0);
    free(temp);
    free(test_folder_write(world.models, "tmptrash_0123/R/half.bin", "x"));
    free(test_folder_write(world.models, "tmpinstall_8/R/part.bin", "x"));
    free(test_folder_write(world.models, "sd-1/tmptrash_9/R.bin", "x"));
    lade_place_sweep(world.models);
    assert_int_equal(test_folder_count(world.models, "tmptrash_"), 0);
    assert_true(test_folder_has(world.models, "tmpinstall_8/R/part.bin"));
    assert_true(test_folder_has(world.models, "sd-1/tmptrash_9/R.bin"));
    lade_place_sweep("/no/such/folder");
    s_end(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_become_file_names),
        cmocka_unit_test(test_a_taken_name_is_numbered),
        cmocka_unit_test(test_publishing_twice_is_publishing_once),
        cmocka_unit_test(test_somebody_elses_model_is_never_replaced_nor_claimed),
        cmocka_unit_test(test_what_is_gone_is_told),
        cmocka_unit_test(test_withdrawing_leaves_nothing_under_the_name),
        cmocka_unit_test(test_discarding_leaves_nothing_and_sweeping_what_a_kill_left),
    };
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
