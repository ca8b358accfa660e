// The walk: what is found, once, and what is passed over.
#include "workers/install/walk.h"

#include "workers/install/test_folder.h"

typedef struct {
    char *root, *models;
    lade_walk_t found;
    lade_walk_rules_t rules;
    int looks; // until stop says yes; below 0: never
} s_world_t;

static bool
s_stop(void *arg)
{
    s_world_t *world = arg;
    return world->looks == 0 || (world->looks > 0 && --world->looks == 0);
}

static int
s_setup(void **state)
{
    s_world_t *world = calloc(1, sizeof *world);
    world->root = test_folder_new();
    world->models = lade_path_join(world->root, "models");
    world->rules = (lade_walk_rules_t){world->models, s_stop, world};
    world->looks = -1;
    *state = world;
    return 0;
}

static int
s_teardown(void **state)
{
    s_world_t *world = *state;
    lade_walk_free(&world->found);
    test_folder_end(world->root);
    free(world->models);
    free(world);
    return 0;
}

static void
s_write(const s_world_t *world, const char *name)
{
    free(test_folder_write(world->root, name, "x"));
}

static void
s_link_to(const s_world_t *world, const char *target, const char *name)
{
    char *path = lade_path_join(world->root, name);
    assert_int_equal(symlink(target, path), 0);
    free(path);
}

static void
s_walk(s_world_t *world, const char *below)
{
    char *root = *below ? lade_path_join(world->root, below) : strdup(world->root);
    lade_error_t error = {0};
    lade_walk_free(&world->found);
    if (lade_walk(&world->rules, root, &world->found, &error))
        fail_msg("%s", error.message);
    free(root);
}

// What was found, relative to the root, ended by NULL.
static void
s_expect(const s_world_t *world, const char *const *names)
{
    size_t count = 0;
    for (; names[count]; count++) {
        if (count >= world->found.count)
            fail_msg("%s was not found", names[count]);
        assert_string_equal(world->found.paths[count] + strlen(world->root) + 1, names[count]);
    }
    if (world->found.count != count)
        fail_msg("%s was found besides", world->found.paths[count]);
}

static void
test_files_and_folders_that_are_models(void **state)
{
    s_world_t *world = *state;
    s_write(world, "a.safetensors");
    s_write(world, "B.CKPT");
    s_write(world, "c.gguf");
    s_write(world, "notes.txt");
    s_write(world, "image.png");
    s_write(world, "x.safetensors.downloading");
    s_write(world, "deep/er/d.pt");
    s_write(world, "pipe/model_index.json");
    s_write(world, "pipe/unet/model.safetensors"); // not entered
    s_write(world, "vae/config.json");
    s_write(world, "vae/model.bin");
    s_write(world, "ti/learned_embeds.bin");
    s_write(world, "lora/pytorch_lora_weights.bin");
    s_write(world, "ip/image_encoder.txt");
    s_walk(world, "");
    s_expect(world, (const char *const[]){"B.CKPT", "a.safetensors", "c.gguf", "deep/er/d.pt", "ip",
                                          "lora", "pipe", "ti", "vae", NULL});
    assert_null(world->found.problems);
    s_walk(world, "pipe"); // a root that is a model
    s_expect(world, (const char *const[]){"pipe", NULL});
}

static void
test_hidden_system_and_own_folders_are_passed_over(void **state)
{
    s_world_t *world = *state;
    s_write(world, ".cache/a.safetensors");
    s_write(world, ".hidden.safetensors");
    s_write(world, "lost+found/a.safetensors");
    s_write(world, "$RECYCLE.BIN/a.safetensors");
    s_write(world, "x/__pycache__/a.bin");
    s_write(world, "tmpinstall_5/kept.safetensors"); // only lade's own folder has lade's own
    s_write(world, "models/config.json");            // never a model itself
    s_write(world, "models/sd-1/lora/a.safetensors");
    s_write(world, "models/tmpinstall_5/a.safetensors");
    s_write(world, "models/tmptrash_00/a.safetensors");
    s_write(world, "models/tmpdelete_7/a.safetensors");
    s_write(world, "models/core/upscaling/a.pth");
    s_write(world, "models/.cache/x/a.safetensors");
    s_walk(world, "");
    s_expect(world, (const char *const[]){"models/sd-1/lora/a.safetensors",
                                          "tmpinstall_5/kept.safetensors", NULL});
}

static void
test_links_lead_to_each_thing_once(void **state)
{
    s_world_t *world = *state;
    s_write(world, "real/a.safetensors");
    s_write(world, "pipe/model_index.json");
    s_write(world, "pipe/x.bin");
    s_link_to(world, "..", "real/up");                       // a circle
    s_link_to(world, "real", "again");                       // a folder seen without it
    s_link_to(world, "real/a.safetensors", "a.safetensors"); // a file seen without it
    s_link_to(world, "pipe", "zipe");
    s_link_to(world, "self", "self");
    s_link_to(world, "nowhere", "broken.safetensors");
    s_walk(world, "");
    s_expect(world, (const char *const[]){"pipe", "real/a.safetensors", NULL});
    // What only a link leads to is found behind it, once.
    s_link_to(world, "../pipe", "real/first");
    s_link_to(world, "../pipe", "real/second");
    s_walk(world, "real");
    assert_int_equal(world->found.count, 2);
    // A folder whose mark is a link, as hub caches have it.
    s_write(world, "blobs/123");
    s_write(world, "snap/text.txt");
    s_link_to(world, "../blobs/123", "snap/config.json");
    s_walk(world, "snap");
    s_expect(world, (const char *const[]){"snap", NULL});
}

static void
test_depth_ends(void **state)
{
    s_world_t *world = *state;
    char path[256] = "";
    for (int depth = 1; depth <= 22; depth++) {
        snprintf(path + strlen(path), sizeof path - strlen(path), "d/");
        char file[300];
        snprintf(file, sizeof file, "%s%02d.bin", path, depth);
        s_write(world, file);
    }
    s_walk(world, "");
    assert_int_equal(world->found.count, 20);
}

static void
test_several_roots_and_what_cannot_be_read(void **state)
{
    s_world_t *world = *state;
    s_write(world, "a/1.bin");
    s_write(world, "a/b/2.bin");
    lade_error_t error = {0};
    char *a = lade_path_join(world->root, "a"), *b = lade_path_join(world->root, "a/b"),
         *none = lade_path_join(world->root, "none");
    assert_int_equal(lade_walk(&world->rules, b, &world->found, &error), LADE_OK);
    assert_int_equal(lade_walk(&world->rules, a, &world->found, &error), LADE_OK);
    s_expect(world, (const char *const[]){"a/1.bin", "a/b/2.bin", NULL});
    assert_int_equal(lade_walk(&world->rules, none, &world->found, &error), LADE_NOT_FOUND);
    assert_non_null(strstr(error.message, none));
    if (geteuid() != 0) { // root reads everything
        assert_int_equal(chmod(b, 0), 0);
        s_walk(world, "");
        s_expect(world, (const char *const[]){"a/1.bin", NULL});
        assert_int_equal(json_array_size(world->found.problems), 1);
        assert_int_equal(chmod(b, 0755), 0);
    }
    free(a);
    free(b);
    free(none);
}

static void
test_stop_is_heard(void **state)
{
    s_world_t *world = *state;
    s_write(world, "a/b/c/1.bin");
    world->looks = 2;
    lade_error_t error = {0};
    assert_int_equal(lade_walk(&world->rules, world->root, &world->found, &error), LADE_CANCELLED);
}

static void
test_paths_are_as_records_have_them(void **state)
{
    s_world_t *world = *state;
    s_write(world, "disk/models/sd-1/a.bin");
    s_link_to(world, "disk/models", "models"); // the models folder is a link
    s_link_to(world, "disk", "other");
    lade_error_t error = {0};
    char *inside = lade_path_join(world->root, "disk/models/sd-1"),
         *own = lade_path_join(world->models, "sd-1");
    char *real = lade_walk_real(world->models, inside, &error);
    assert_string_equal(real, own);
    free(real);
    real = lade_walk_real(world->models, own, &error);
    assert_string_equal(real, own);
    free(real);
    char *link = lade_path_join(world->root, "other"), *disk = lade_path_join(world->root, "disk");
    real = lade_walk_real(world->models, link, &error);
    char *true_disk = realpath(disk, NULL);
    assert_string_equal(real, true_disk);
    assert_null(lade_walk_real(world->models, "/no/such/folder", &error));
    assert_int_equal(error.code, LADE_NOT_FOUND);
    free(real);
    free(true_disk);
    free(link);
    free(disk);
    free(inside);
    free(own);
}

#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        S_TEST(test_files_and_folders_that_are_models),
        S_TEST(test_hidden_system_and_own_folders_are_passed_over),
        S_TEST(test_links_lead_to_each_thing_once),
        S_TEST(test_depth_ends),
        S_TEST(test_several_roots_and_what_cannot_be_read),
        S_TEST(test_stop_is_heard),
        S_TEST(test_paths_are_as_records_have_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
