// Digests: which of what sources tell is meant for which file.
#include "workers/install/digests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

static const char s_hub[] =
    "{\"id\": \"o/r\", \"siblings\": ["
    "{\"rfilename\": \"model_index.json\", \"size\": 5},"
    "{\"rfilename\": \"unet/m.safetensors\", \"size\": 7, \"lfs\": {\"sha256\": \"" A
    "\", \"size\": 7}},"
    "{\"rfilename\": \"old/unet/m.safetensors\", \"lfs\": {\"sha256\": \"" B "\", \"size\": 8}},"
    "{\"rfilename\": \"vae/v.safetensors\", \"lfs\": {\"oid\": \"" C "\", \"size\": 9}}]}";
static const char s_site[] =
    "{\"id\": 1, \"modelVersions\": [{\"files\": ["
    "{\"name\": \"style.safetensors\", \"sizeKB\": 1.5, \"hashes\": {\"SHA256\": "
    "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}},"
    "{\"name\": \"two.safetensors\", \"hashes\": {\"SHA256\": \"" B "\"}}]},"
    "{\"files\": [{\"name\": \"two.safetensors\", \"hashes\": {\"SHA256\": \"" C "\"}}]}]}";

static void
test_files_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *what, *response; // NULL: `files` of the record
        const char *path, *source, *relative;
        const char *sha256; // NULL: nothing is known
        int64_t size;
    } rows[] = {
        // clang-format off
        {"by the whole path",        s_hub,  "x/r", "o/r",        "unet/m.safetensors", A,    7},
        {"below a subfolder",        s_hub,  "x/r", "o/r::vae",   "v.safetensors",      C,    9},
        {"two ends fit",             s_hub,  "x/r", "o/r",        "m.safetensors",      NULL, 0},
        {"half a name is no end",    s_hub,  "x/r", "o/r",        "net/m.safetensors",  NULL, 0},
        {"without a digest",         s_hub,  "x/r", "o/r",        "model_index.json",   NULL, 0},
        {"one file of a repository", s_hub,  "r_m.safetensors", "o/r::old/unet/m.safetensors", "", B, 8},
        {"the same with a slash",    s_hub,  "r_m.safetensors", "o/r::/unet/m.safetensors", "", A, 7},
        {"one that is not there",    s_hub,  "r_m.safetensors", "o/r::none.safetensors", "",  NULL, 0},
        {"a site, in capitals",      s_site, "lora/style.safetensors", "https://x/1", "",     A,   -1},
        {"by the source's name",     s_site, "lora/renamed.safetensors", "https://x/style.safetensors", "", A, -1},
        {"two versions, one name",   s_site, "lora/two.safetensors", "https://x/1", "",       NULL, 0},
        {"no JSON",                  "page", "a.bin", "b", "",                                NULL, 0},
        {"recorded",                 NULL,   "x/r", "o/r",        "a/b.bin",            A,    3},
        {"recorded, another",        NULL,   "x/r", "o/r",        "b.bin",              NULL, 0},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *record = json_pack("{s:s, s:s}", "path", rows[i].path, "source", rows[i].source);
        if (rows[i].response)
            json_object_set_new(record, "source_api_response", json_string(rows[i].response));
        else
            json_object_set_new(record, "files",
                                json_pack("[{s:s, s:i, s:s}, {s:s, s:s}]", "path", "a/b.bin",
                                          "size", 3, "sha256", A, "path", "b.bin", "sha256",
                                          "no digest"));
        lade_digests_t digests;
        lade_digest_t digest;
        lade_digests_open(&digests, record);
        bool found = lade_digests_find(&digests, rows[i].relative, &digest);
        if (found != (rows[i].sha256 != NULL))
            fail_msg("%s: %s", rows[i].what, found ? digest.sha256 : "not found");
        if (found) {
            assert_string_equal(digest.sha256, rows[i].sha256);
            assert_int_equal(digest.size, rows[i].size);
            assert_int_equal(digest.recorded, rows[i].response == NULL);
        }
        lade_digests_close(&digests);
        json_decref(record);
    }
}

// The answer may be a map, and what is recorded counts before what was told.
static void
test_recorded_ones_come_first(void **state)
{
    (void)state;
    json_t *record =
        json_pack("{s:s, s:s, s:o, s:[{s:s, s:i, s:s}]}", "path", "style.safetensors", "source",
                  "https://x/1", "source_api_response", json_loads(s_site, 0, NULL), "files",
                  "path", "any name", "size", 3, "sha256", C);
    lade_digests_t digests;
    lade_digest_t digest;
    lade_digests_open(&digests, record);
    assert_true(lade_digests_find(&digests, "", &digest));
    assert_string_equal(digest.sha256, C);
    lade_digests_close(&digests);
    json_object_del(record, "files");
    lade_digests_open(&digests, record);
    assert_true(lade_digests_find(&digests, "", &digest));
    assert_string_equal(digest.sha256, A);
    lade_digests_close(&digests);
    json_decref(record);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_are_found),
        cmocka_unit_test(test_recorded_ones_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
