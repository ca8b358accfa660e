// The hub library's cache: what is found in it, and what is wrong with it.
#include "workers/install/hubcache.h"

#include "common/path.h"
#include "workers/install/test_folder.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define OTHER "76543210fedcba9876543210fedcba9876543210"
#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
// git's name of the file "hello\n".
#define HELLO "ce013625030ba8dba906f756967f9e9ca394464a"

static void
s_write(const char *folder, const char *path, const char *text)
{
    char *whole = lade_path_join(folder, path), *above = lade_path_folder(whole);
    assert_int_equal(lade_path_mkdirs(above, 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_write(whole, text, strlen(text), 0644, NULL), LADE_OK);
    free(above);
    free(whole);
}

static void
s_link(const char *folder, const char *path, const char *target)
{
    char *whole = lade_path_join(folder, path), *above = lade_path_folder(whole);
    assert_int_equal(lade_path_mkdirs(above, 0755, NULL), LADE_OK);
    assert_int_equal(symlink(target, whole), 0);
    free(above);
    free(whole);
}

static void
test_where_the_cache_is(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    s_write(folder, "set/models--o--r/x", "");
    s_write(folder, "hf/hub/models--o--r/x", "");
    s_write(folder, "xdg/huggingface/hub/models--o--r/x", "");
    s_write(folder, ".cache/huggingface/hub/models--o--r/x", "");
    char *set = lade_path_join(folder, "set"), *hf = lade_path_join(folder, "hf"),
         *xdg = lade_path_join(folder, "xdg");
    const struct {
        const char *setting, *hf_home, *xdg, *found; // found NULL: none
    } rows[] = {
        {set, hf, xdg, "set/models--o--r"},
        {"", hf, xdg, "hf/hub/models--o--r"},
        {"", NULL, xdg, "xdg/huggingface/hub/models--o--r"},
        {"", NULL, NULL, ".cache/huggingface/hub/models--o--r"},
        {"none", hf, xdg, NULL},
        {NULL, hf, xdg, NULL},
        {"/nowhere", hf, xdg, NULL},
    };
    setenv("HOME", folder, 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rows[i].hf_home ? setenv("HF_HOME", rows[i].hf_home, 1) : unsetenv("HF_HOME");
        rows[i].xdg ? setenv("XDG_CACHE_HOME", rows[i].xdg, 1) : unsetenv("XDG_CACHE_HOME");
        lade_config_t config = {.hub_cache = (char *)rows[i].setting};
        char *found = lade_hubcache_open(&config, "o/r");
        assert_int_equal(found != NULL, rows[i].found != NULL);
        if (found)
            assert_string_equal(found + strlen(folder) + 1, rows[i].found);
        free(found);
        found = lade_hubcache_open(&config, "o/other");
        assert_null(found);
    }
    unsetenv("HF_HOME");
    unsetenv("XDG_CACHE_HOME");
    free(xdg);
    free(hf);
    free(set);
    test_folder_end(folder);
}

static void
test_revisions_lead_to_commits(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    s_write(folder, "refs/main", COMMIT "\n");
    s_write(folder, "refs/refs/pr/1", OTHER);
    s_write(folder, "refs/gone", "ffffffffffffffffffffffffffffffffffffffff");
    s_write(folder, "refs/odd", "../../../../etc");
    s_write(folder, "refs/empty", "");
    s_write(folder, "snapshots/" COMMIT "/x", "1");
    s_write(folder, "snapshots/" OTHER "/x", "2");
    static const struct {
        const char *revision, *commit;
    } rows[] = {
        {NULL, COMMIT},       {"main", COMMIT}, {COMMIT, COMMIT},
        {"refs/pr/1", OTHER}, {OTHER, OTHER},   {"gone", NULL},
        {"odd", NULL},        {"empty", NULL},  {"none", NULL},
        {"../x", NULL},       {"/etc", NULL},   {"ffffffffffffffffffffffffffffffffffffffff", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char commit[65];
        assert_int_equal(lade_hubcache_commit(folder, rows[i].revision, commit),
                         rows[i].commit != NULL);
        if (rows[i].commit)
            assert_string_equal(commit, rows[i].commit);
    }
    test_folder_end(folder);
}

static void
test_blobs_are_taken_when_they_are_what_their_name_says(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    s_write(folder, "blobs/" DIGEST, "12345");
    s_write(folder, "blobs/" HELLO, "hello\n");
    s_write(folder, "blobs/" COMMIT, "hello\n");
    s_write(folder, "blobs/" DIGEST ".incomplete", "123");
    const struct {
        lade_hub_file_t file;
        bool taken;
    } rows[] = {
        {{"a", 5, DIGEST, ""}, true}, {{"a", 4, DIGEST, ""}, false}, {{"a", -1, DIGEST, ""}, false},
        {{"a", 6, "", HELLO}, true},  {{"a", 5, "", HELLO}, false},  {{"a", 6, "", COMMIT}, false},
        {{"a", 6, "", OTHER}, false}, {{"a", 6, "", ""}, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *url = lade_hubcache_url(folder, &rows[i].file);
        assert_int_equal(url != NULL, rows[i].taken);
        assert_true(!url || strncmp(url, "file:///", 8) == 0);
        free(url);
    }
    test_folder_end(folder);
}

// What is in the snapshot, and what that makes of the selection. words NULL: whole.
static void
s_expect(const char *folder, const char *subfolder, bool sure, const char *words)
{
    lade_hub_repo_t *repo;
    assert_int_equal(lade_hubcache_list(folder, "o/R", COMMIT, &repo, NULL), LADE_OK);
    assert_true(repo->cached && repo->pinned);
    assert_string_equal(repo->revision, COMMIT);
    const char *paths[32];
    for (size_t i = 0; i < repo->count; i++)
        paths[i] = repo->files[i].path;
    lade_selection_t selection;
    assert_int_equal(lade_select_files(paths, repo->count, "o/R", "", subfolder, &selection, NULL),
                     LADE_OK);
    char said[128] = "";
    bool known;
    bool whole =
        lade_hubcache_is_whole(folder, COMMIT, repo, &selection, &known, said, sizeof said);
    assert_string_equal(said, words ? words : "");
    assert_int_equal(whole, words == NULL);
    assert_int_equal(known, sure);
    lade_select_free(&selection);
    lade_hub_repo_free(&repo);
}

#define AT "snapshots/" COMMIT "/"
#define D "diffusion_pytorch_model"

static void
test_a_snapshot_that_is_not_whole_says_what_is_missing(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    s_write(folder, AT "model_index.json",
            "{\"_class_name\":\"P\",\"unet\":[\"diffusers\",\"U\"],\"tokenizer\":[\"t\",\"T\"],"
            "\"safety_checker\":[null,null]}");
    s_write(folder, AT "unet/config.json", "{}");
    s_write(folder, AT "unet/" D ".safetensors.index.json",
            "{\"weight_map\":{\"a\":\"" D "-00001-of-00002.safetensors\","
            "\"b\":\"" D "-00002-of-00002.safetensors\"}}");
    s_write(folder, AT "unet/" D "-00001-of-00002.safetensors", "1");
    s_expect(folder, NULL, false, "tokenizer");
    s_write(folder, AT "tokenizer/vocab.json", "{}");
    s_expect(folder, NULL, false, "unet/" D "-00002-of-00002.safetensors");
    s_expect(folder, "unet", false, "unet/" D "-00002-of-00002.safetensors");
    s_link(folder, AT "unet/" D "-00002-of-00002.safetensors", "../../../blobs/" DIGEST);
    s_expect(folder, NULL, false, "unet/" D "-00002-of-00002.safetensors"); // leads nowhere
    s_write(folder, "blobs/" DIGEST, "2");
    s_expect(folder, NULL, true, NULL);
    s_expect(folder, "unet", false, NULL);
    s_expect(folder, "unet/" D "-00001-of-00002.safetensors", true, NULL);
    s_expect(folder, "tokenizer", false, "any weights");
    test_folder_end(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_the_cache_is),
        cmocka_unit_test(test_revisions_lead_to_commits),
        cmocka_unit_test(test_blobs_are_taken_when_they_are_what_their_name_says),
        cmocka_unit_test(test_a_snapshot_that_is_not_whole_says_what_is_missing),
    };
    return cmocka_run_group_tests_name("hubcache", tests, NULL, NULL);
}
