// Records in the keyspace: kept with their indexes, unique by key and path, found by what they say.
#include "broker/records.h"

#include "common/path.h"
#include "common/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    char *root, *folder;
    lade_store_t *store;
    lade_records_t *records;
    lade_error_t error;
} s_place_t;

#define PASS(call)                                                                                 \
    do {                                                                                           \
        if (call)                                                                                  \
            fail_msg("%s: %s", #call, place->error.message);                                       \
    } while (0)

static int
s_set_up(void **state)
{
    s_place_t *place = calloc(1, sizeof *place);
    const char *tmp = getenv("TMPDIR");
    place->root = lade_path_join(tmp ? tmp : "/tmp", "lade-records-XXXXXX");
    if (!mkdtemp(place->root))
        return -1;
    place->folder = lade_path_join(place->root, "keyspace");
    *state = place;
    if (lade_store_open(place->folder, &place->store, &place->error))
        return -1;
    place->records = lade_records_new(place->store, "/data/models/");
    return place->records ? 0 : -1;
}

static int
s_tear_down(void **state)
{
    s_place_t *place = *state;
    lade_records_destroy(&place->records);
    assert_null(place->records);
    lade_store_close(&place->store);
    lade_path_remove(place->root, NULL);
    free(place->folder);
    free(place->root);
    free(place);
    return 0;
}

static json_t *
s_json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

// Adds key/name/base/type/format/path and more fields; returns the code.
static lade_code_t
s_add(s_place_t *place, const char *key, const char *name, const char *class, const char *path,
      const char *more)
{
    char base[32], type[32], format[32];
    assert_int_equal(sscanf(class, "%31s %31s %31s", base, type, format), 3);
    json_t *record = s_json(more ? more : "{}"), *stored;
    json_object_set_new(record, "name", json_string(name));
    json_object_set_new(record, "base", json_string(base));
    json_object_set_new(record, "type", json_string(type));
    json_object_set_new(record, "format", json_string(format));
    json_object_set_new(record, "path", json_string(path));
    if (key)
        json_object_set_new(record, "key", json_string(key));
    lade_code_t code = lade_records_add(place->records, record, &stored, &place->error);
    json_decref(record);
    json_decref(stored);
    return code;
}

// The keys of a list, joined.
static const char *
s_keys(json_t *list, char keys[256])
{
    keys[0] = '\0';
    for (size_t i = 0; i < json_array_size(list); i++)
        snprintf(keys + strlen(keys), 256 - strlen(keys), "%s ",
                 lade_json_text(json_array_get(list, i), "key", "?"));
    json_decref(list);
    return keys;
}

static void
s_expect_search(s_place_t *place, const char *name, const char *base, const char *type,
                const char *format, const char *expected)
{
    json_t *list;
    char keys[256];
    PASS(lade_records_search(place->records, name, base, type, format, &list, &place->error));
    assert_string_equal(s_keys(list, keys), expected);
}

static void
s_expect_tags(s_place_t *place, const char *tags, const char *expected)
{
    json_t *list, *wanted = s_json(tags);
    char keys[256];
    PASS(lade_records_by_tags(place->records, wanted, &list, &place->error));
    assert_string_equal(s_keys(list, keys), expected);
    json_decref(wanted);
}

static void
s_expect_path(s_place_t *place, const char *path, const char *key)
{
    json_t *record;
    PASS(lade_records_by_path(place->records, path, &record, &place->error));
    if (key)
        assert_string_equal(lade_json_text(record, "key", ""), key);
    else
        assert_null(record);
    json_decref(record);
}

static lade_code_t
s_update(s_place_t *place, const char *key, const char *changes, json_t **stored_p)
{
    json_t *given = s_json(changes), *stored;
    lade_code_t code = lade_records_update(place->records, key, given, &stored, &place->error);
    json_decref(given);
    if (stored_p)
        *stored_p = stored;
    else
        json_decref(stored);
    return code;
}

static uint64_t
s_index_entries(s_place_t *place)
{
    uint64_t count = 0;
    for (lade_db_t db = LADE_DB_MODELS_BY_NAME; db <= LADE_DB_MODELS_BY_HASH; db++)
        count += lade_store_count(place->store, db);
    return count;
}

// ---------------------------------------------------------------------------------------------------

static void
test_added_record_is_given_what_the_broker_keeps(void **state)
{
    s_place_t *place = *state;
    json_t *record =
        s_json("{\"name\": \"m\", \"model_type\": \"main\", \"base_model\": \"sd-1\", "
               "\"model_format\": \"diffusers\", \"path\": \"/data/models//sd-1/./main/m/\", "
               "\"description\": null, \"newer\": {\"x\": 1}, \"version\": 9}");
    json_t *stored, *again;
    double before = lade_now();
    PASS(lade_records_add(place->records, record, &stored, &place->error));
    assert_int_equal(strlen(lade_json_text(stored, "key", "")), 32);
    assert_string_equal(lade_json_text(stored, "type", ""), "main");
    assert_string_equal(lade_json_text(stored, "path", ""), "sd-1/main/m");
    assert_null(json_object_get(stored, "description"));
    assert_non_null(json_object_get(stored, "newer"));
    assert_int_equal(lade_json_int(stored, "version", 0), 1);
    assert_true(lade_json_real(stored, "created_at", 0) >= before);
    assert_true(lade_json_real(stored, "updated_at", 0) == lade_json_real(stored, "created_at", 1));
    PASS(lade_store_commit(place->store, &place->error));
    PASS(
        lade_records_get(place->records, lade_json_text(stored, "key", ""), &again, &place->error));
    assert_true(json_equal(stored, again));
    assert_true(lade_records_exists(place->records, lade_json_text(stored, "key", "")));
    assert_false(lade_records_exists(place->records, "another"));
    json_decref(again);
    json_decref(stored);
    json_decref(record);
}

static void
test_key_and_path_are_unique_and_names_are_not(void **state)
{
    s_place_t *place = *state;
    PASS(s_add(place, "k1", "dup", "sd-1 main diffusers", "/models/1", NULL));
    PASS(s_add(place, "k2", "dup", "sd-1 main diffusers", "/models/2", NULL));
    assert_int_equal(s_add(place, "k1", "x", "sd-1 main diffusers", "/models/3", NULL),
                     LADE_DUPLICATE_MODEL);
    assert_non_null(strstr(place->error.message, "key 'k1' is already installed"));
    assert_int_equal(s_add(place, "k3", "x", "sd-1 main diffusers", "/models//1/", NULL),
                     LADE_DUPLICATE_MODEL);
    assert_non_null(strstr(place->error.message, "path '/models/1' is already installed (key k1)"));
    assert_int_equal(s_update(place, "k2", "{\"path\": \"/models/1\"}", NULL),
                     LADE_DUPLICATE_MODEL);
    PASS(s_update(place, "k2", "{\"path\": \"/models/2\"}", NULL)); // its own
    assert_int_equal(lade_store_count(place->store, LADE_DB_MODELS), 2);
}

static void
test_refused_record_writes_nothing(void **state)
{
    s_place_t *place = *state;
    assert_int_equal(s_add(place, "k", "m", "sd-1 mainn diffusers", "/m", NULL),
                     LADE_INVALID_MODEL_CONFIG);
    assert_int_equal(s_add(place, "k", "m", "sd-1 main diffusers", "../m", NULL),
                     LADE_INVALID_MODEL_CONFIG);
    assert_int_equal(s_add(place, "k", "m", "sd-1 main diffusers", "/a/../m", NULL),
                     LADE_INVALID_MODEL_CONFIG);
    assert_int_equal(s_add(place, "k", "m", "sd-1 main diffusers", ".", NULL),
                     LADE_INVALID_MODEL_CONFIG);
    assert_false(lade_store_dirty(place->store));
    assert_int_equal(s_update(place, "none", "{}", NULL), LADE_UNKNOWN_MODEL);
    assert_int_equal(lade_records_del(place->records, "none", NULL, &place->error),
                     LADE_UNKNOWN_MODEL);
    json_t *record;
    assert_int_equal(lade_records_get(place->records, "", &record, &place->error),
                     LADE_UNKNOWN_MODEL);
    assert_null(record);
}

static void
test_path_is_found_absolute_and_relative(void **state)
{
    s_place_t *place = *state;
    PASS(s_add(place, "in", "a", "sd-1 main diffusers", "sd-1/main/a", NULL));
    PASS(s_add(place, "out", "b", "sd-1 main diffusers", "/elsewhere/b", NULL));
    PASS(s_add(place, "near", "c", "sd-1 main diffusers", "/data/models-old/c", NULL));
    s_expect_path(place, "sd-1/main/a", "in");
    s_expect_path(place, "/data/models/sd-1/main/a/", "in");
    s_expect_path(place, "/elsewhere/b", "out");
    s_expect_path(place, "/data/models-old/c", "near");
    s_expect_path(place, "elsewhere/b", NULL);
    s_expect_path(place, "/elsewhere", NULL);
    s_expect_path(place, "/x/../elsewhere/b", NULL);
    s_expect_path(place, "", NULL);
}

static void
test_update_sets_fields_and_moves_the_indexes(void **state)
{
    s_place_t *place = *state;
    json_t *stored;
    PASS(s_add(place, "k", "old name", "sd-1 main diffusers", "/m",
               "{\"tags\": [\"a\", \"b\"], \"description\": \"d\", \"source\": \"o/r\", \"hash\": "
               "\"h:1\"}"));
    assert_int_equal(s_index_entries(place), 6);
    PASS(s_update(place, "k",
                  "{\"name\": \"new name\", \"tags\": [\"b\", \"c\"], \"description\": null}",
                  &stored));
    assert_int_equal(lade_json_int(stored, "version", 0), 2);
    assert_true(lade_json_real(stored, "updated_at", 0) >= lade_json_real(stored, "created_at", 1));
    assert_null(json_object_get(stored, "description"));
    json_decref(stored);
    s_expect_search(place, "old name", NULL, NULL, NULL, "");
    s_expect_search(place, "new name", NULL, NULL, NULL, "k ");
    s_expect_tags(place, "[\"a\"]", "");
    s_expect_tags(place, "[\"c\", \"b\"]", "k ");
    assert_int_equal(s_index_entries(place), 6);
    PASS(lade_records_del(place->records, "k", &stored, &place->error));
    assert_string_equal(lade_json_text(stored, "name", ""), "new name");
    json_decref(stored);
    assert_int_equal(s_index_entries(place), 0);
    assert_int_equal(lade_store_count(place->store, LADE_DB_MODELS), 0);
}

static void
test_update_compares_the_version_it_is_told(void **state)
{
    s_place_t *place = *state;
    json_t *whole;
    PASS(s_add(place, "k", "m", "sd-1 main diffusers", "/m", NULL));
    PASS(s_update(place, "k", "{\"version\": 1, \"name\": \"n\"}", NULL));
    assert_int_equal(s_update(place, "k", "{\"version\": 1, \"name\": \"late\"}", NULL),
                     LADE_STALE_RECORD);
    assert_non_null(strstr(place->error.message, "version is 2"));
    assert_int_equal(s_update(place, "k", "{\"key\": \"other\"}", NULL), LADE_INVALID_MODEL_CONFIG);

    PASS(lade_records_get(place->records, "k", &whole,
                          &place->error)); // a whole record, as it came, is a change too
    json_object_set_new(whole, "name", json_string("whole"));
    json_t *stored;
    PASS(lade_records_update(place->records, "k", whole, &stored, &place->error));
    assert_int_equal(lade_json_int(stored, "version", 0), 3);
    assert_string_equal(lade_json_text(stored, "name", ""), "whole");
    json_decref(stored);
    json_decref(whole);
    assert_int_equal(s_update(place, "k", "[]", NULL), LADE_INVALID_MODEL_CONFIG);
}

static void
test_search_takes_any_filters_and_has_an_order(void **state)
{
    s_place_t *place = *state;
    PASS(s_add(place, "k1", "dup", "sd-2 main diffusers", "/1", NULL));
    PASS(s_add(place, "k2", "dup", "sdxl main checkpoint", "/2", NULL));
    PASS(s_add(place, "k3", "dup", "sd-1 vae diffusers", "/3", NULL));
    PASS(s_add(place, "k4", "b", "sd-1 main diffusers", "/4", NULL));
    PASS(s_add(place, "k6", "a", "sd-1 main diffusers", "/6", NULL));
    PASS(s_add(place, "k5", "a", "sd-1 main diffusers", "/5", NULL));
    PASS(s_add(place, "k7", "a", "sd-1 main checkpoint", "/7", NULL));
    PASS(s_add(place, "k8", "duplicate", "sd-1 lora lycoris", "/8", NULL));
    PASS(lade_store_commit(place->store, &place->error));
    s_expect_search(place, NULL, NULL, NULL, NULL, "k8 k7 k5 k6 k4 k1 k2 k3 ");
    s_expect_search(place, "dup", NULL, NULL, NULL, "k1 k2 k3 ");
    s_expect_search(place, "dup", NULL, "main", NULL, "k1 k2 ");
    s_expect_search(place, "dup", "sd-1", "vae", NULL, "k3 ");
    s_expect_search(place, NULL, "sd-1", "main", "diffusers", "k5 k6 k4 ");
    s_expect_search(place, "Dup", NULL, NULL, NULL, "");
    s_expect_search(place, "", NULL, NULL, NULL, "");
}

static void
test_one_record_or_the_reason_why_not(void **state)
{
    s_place_t *place = *state;
    json_t *record;
    PASS(s_add(place, "k1", "m", "sd-1 main diffusers", "/1", NULL));
    PASS(s_add(place, "k2", "m", "sd-2 main diffusers", "/2", NULL));
    PASS(lade_records_one(place->records, "m", "sd-2", "main", &record, &place->error));
    assert_string_equal(lade_json_text(record, "key", ""), "k2");
    json_decref(record);
    assert_int_equal(lade_records_one(place->records, "m", NULL, "main", &record, &place->error),
                     LADE_DUPLICATE_MODEL);
    assert_non_null(strstr(place->error.message, "k1, k2"));
    assert_null(record);
    assert_int_equal(lade_records_one(place->records, "m", "sdxl", "main", &record, &place->error),
                     LADE_UNKNOWN_MODEL);
}

static void
test_tags_are_all_asked_for(void **state)
{
    s_place_t *place = *state;
    PASS(s_add(place, "k1", "1", "sd-1 main diffusers", "/1",
               "{\"tags\": [\"text-to-image\", \"diffusers\"]}"));
    PASS(s_add(place, "k2", "2", "sd-1 main diffusers", "/2",
               "{\"tags\": [\"text-to-image\", \"diffusers\", \"community-contributed\"]}"));
    PASS(s_add(place, "k3", "3", "sd-1 main diffusers", "/3",
               "{\"tags\": [\"text-to-image\", \"checkpoint\", \"community-contributed\"]}"));
    s_expect_tags(place, "[\"text-to-image\"]", "k1 k2 k3 ");
    s_expect_tags(place, "[\"text-to-image\", \"diffusers\"]", "k1 k2 ");
    s_expect_tags(place, "[\"checkpoint\", \"community-contributed\"]", "k3 ");
    s_expect_tags(place, "[\"text\"]", "");
    static const char *const wrong[] = {"[]", "[1]", "[\"\"]", "\"text-to-image\"",
                                        "[\"diffusers\", null]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *list, *tags = s_json(wrong[i]);
        assert_int_equal(lade_records_by_tags(place->records, tags, &list, &place->error),
                         LADE_VALUE_ERROR);
        assert_null(list);
        json_decref(tags);
    }
}

static void
test_long_values_are_indexed_and_told_apart(void **state)
{
    s_place_t *place = *state;
    char one[2001], other[2001];
    for (size_t i = 0; i < 2000; i++)
        one[i] = other[i] = i % 100 ? 'p' : '/';
    one[2000] = other[2000] = '\0';
    other[1999] = 'q';
    PASS(s_add(place, "k1", "m", "sd-1 main diffusers", one, NULL));
    PASS(s_add(place, "k2", "m", "sd-1 main diffusers", other, NULL));
    s_expect_path(place, one, "k1");
    s_expect_path(place, other, "k2");
    assert_int_equal(s_add(place, "k3", "m", "sd-1 main diffusers", other, NULL),
                     LADE_DUPLICATE_MODEL);
    PASS(lade_records_del(place->records, "k1", NULL, &place->error));
    s_expect_path(place, one, NULL);
    s_expect_path(place, other, "k2");
}

static void
test_broken_record_is_corrupt_and_no_crash(void **state)
{
    s_place_t *place = *state;
    json_t *record, *list;
    PASS(s_add(place, "k1", "m", "sd-1 main diffusers", "/1", NULL));
    PASS(
        lade_store_put(place->store, LADE_DB_MODELS, "k1", 2, "\x81\xa1", 2, false, &place->error));
    assert_int_equal(lade_records_get(place->records, "k1", &record, &place->error), LADE_CORRUPT);
    assert_int_equal(
        lade_records_search(place->records, "m", NULL, NULL, NULL, &list, &place->error),
        LADE_CORRUPT);
    assert_null(list);
    PASS(lade_store_del(place->store, LADE_DB_MODELS, "k1", 2, &place->error));
    assert_int_equal(
        lade_records_search(place->records, "m", NULL, NULL, NULL, &list, &place->error),
        LADE_CORRUPT);
    assert_non_null(strstr(place->error.message, "an index"));
}

static void
test_aborted_batch_takes_its_records_along(void **state)
{
    s_place_t *place = *state;
    PASS(s_add(place, "k1", "m", "sd-1 main diffusers", "/1", NULL));
    PASS(lade_store_commit(place->store, &place->error));
    PASS(s_add(place, "k2", "m", "sd-1 main diffusers", "/2", NULL));
    PASS(lade_records_del(place->records, "k1", NULL, &place->error));
    lade_store_abort(place->store);
    s_expect_search(place, "m", NULL, NULL, NULL, "k1 ");
    s_expect_path(place, "/2", NULL);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_added_record_is_given_what_the_broker_keeps),
        TEST(test_key_and_path_are_unique_and_names_are_not),
        TEST(test_refused_record_writes_nothing),
        TEST(test_path_is_found_absolute_and_relative),
        TEST(test_update_sets_fields_and_moves_the_indexes),
        TEST(test_update_compares_the_version_it_is_told),
        TEST(test_search_takes_any_filters_and_has_an_order),
        TEST(test_one_record_or_the_reason_why_not),
        TEST(test_tags_are_all_asked_for),
        TEST(test_long_values_are_indexed_and_told_apart),
        TEST(test_broken_record_is_corrupt_and_no_crash),
        TEST(test_aborted_batch_takes_its_records_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
