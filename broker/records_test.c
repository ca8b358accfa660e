// Records in the keyspace: kept with their indexes, unique by key and path, found by what they say.
#include "broker/records.h"

#include "broker/peek.h"

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

// The keys of what a query finds, joined; and how many there are, counted or not.
static const char *
s_found(s_place_t *place, const lade_records_query_t *query, char keys[512])
{
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2), again = LADE_BUF(SIZE_MAX / 2);
    size_t count, counted, at = 0, seen = 0;
    uint64_t total;
    lade_bytes_t record, key;
    keys[0] = '\0';
    PASS(lade_records_find(place->records, query, &buf, &count, NULL, &place->error));
    PASS(lade_records_find(place->records, query, &again, &counted, &total, &place->error));
    assert_int_equal(count, counted);
    assert_int_equal(buf.len, again.len);
    assert_true(!buf.len || memcmp(buf.data, again.data, buf.len) == 0);
    assert_int_equal(count, total < query->offset                  ? 0
                            : total - query->offset > query->limit ? query->limit
                                                                   : total - query->offset);
    for (; lade_peek_next((lade_bytes_t){buf.data, buf.len}, &at, &record); seen++) {
        assert_true(lade_peek_text(record, "key", &key));
        snprintf(keys + strlen(keys), 512 - strlen(keys), "%.*s ", (int)key.len,
                 (const char *)key.data);
    }
    assert_int_equal(seen, count);
    lade_buf_free(&buf);
    lade_buf_free(&again);
    return keys;
}

static void
s_expect(s_place_t *place, lade_records_query_t query, const char *expected)
{
    char keys[512];
    query.limit = query.limit ? query.limit : 100;
    assert_string_equal(s_found(place, &query, keys), expected);
}

static void
s_expect_search(s_place_t *place, const char *name, const char *base, const char *type,
                const char *format, const char *expected)
{
    s_expect(place,
             (lade_records_query_t){.name = name, .base = base, .type = type, .format = format},
             expected);
}

static void
s_expect_tags(s_place_t *place, const char *tags, const char *expected)
{
    json_t *wanted = s_json(tags);
    s_expect(place, (lade_records_query_t){.tags = wanted}, expected);
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
    return count + lade_store_count(place->store, LADE_DB_MODELS_SORTED) +
           lade_store_count(place->store, LADE_DB_MODELS_COUNTS);
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
    assert_int_equal(s_index_entries(place), 6 + 6 + 1);
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
    assert_int_equal(s_index_entries(place), 6 + 6 + 1);
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
    json_t *record;
    lade_bytes_t packed;
    lade_buf_t buf = LADE_BUF(1000);
    size_t count;
    lade_records_query_t query = {.name = "m", .limit = 9};
    PASS(s_add(place, "k1", "m", "sd-1 main diffusers", "/1", NULL));
    PASS(s_add(place, "k2", "m", "sd-1 main diffusers", "/2", NULL));
    PASS(lade_records_get_packed(place->records, "k1", &packed, &place->error));
    PASS(
        lade_store_put(place->store, LADE_DB_MODELS, "k1", 2, "\x81\xa1", 2, false, &place->error));
    assert_int_equal(lade_records_get(place->records, "k1", &record, &place->error), LADE_CORRUPT);
    assert_int_equal(lade_records_get_packed(place->records, "k1", &packed, &place->error),
                     LADE_CORRUPT);
    s_expect_path(place, "/2", "k2");
    assert_int_equal(lade_records_by_path(place->records, "/1", &record, &place->error),
                     LADE_CORRUPT);
    // A list goes on without it.
    assert_int_equal(lade_records_find(place->records, &query, &buf, &count, NULL, &place->error),
                     LADE_OK);
    assert_int_equal(count, 1);
    query = (lade_records_query_t){.limit = 9};
    assert_int_equal(lade_records_find(place->records, &query, &buf, &count, NULL, &place->error),
                     LADE_OK);
    assert_int_equal(count, 1);
    PASS(lade_store_del(place->store, LADE_DB_MODELS, "k1", 2, &place->error));
    assert_int_equal(lade_records_find(place->records, &query, &buf, &count, NULL, &place->error),
                     LADE_CORRUPT);
    assert_non_null(strstr(place->error.message, "an index"));
    lade_buf_free(&buf);
}

// ---------------------------------------------------------------------------------------------------
// Several bases

static void
test_model_is_found_under_each_of_its_bases(void **state)
{
    s_place_t *place = *state;
    json_t *record;
    PASS(s_add(place, "k1", "a", "sd-1 vae diffusers", "/1", "{\"bases\": [\"sd-1\", \"sd-2\"]}"));
    PASS(s_add(place, "k2", "b", "sd-2 vae diffusers", "/2", NULL));
    PASS(s_add(place, "k3", "c", "any vae diffusers", "/3", NULL));
    PASS(s_add(place, "k4", "a", "sd-2 vae checkpoint", "/4", "{\"bases\": [\"sdxl\"]}"));
    static const char *const classes[][4] = {
        // type, base, format, what is found
        {NULL, NULL, NULL, "k3 k1 k4 k2 "},
        {NULL, "sd-1", NULL, "k1 "},
        {NULL, "sd-2", NULL, "k4 k1 k2 "},
        {"vae", "sd-2", NULL, "k4 k1 k2 "},
        {"vae", NULL, NULL, "k3 k1 k4 k2 "},
        {NULL, "sd-2", "diffusers", "k1 k2 "},
        {NULL, "sdxl", NULL, "k4 "},
        {NULL, "any", NULL, "k3 "},
        {NULL, NULL, "diffusers", "k3 k1 k2 "},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        s_expect_search(place, NULL, classes[i][1], classes[i][0], classes[i][2], classes[i][3]);
    s_expect_search(place, "a", "sd-2", NULL, NULL, "k4 k1 ");
    s_expect_search(place, "a", NULL, NULL, NULL, "k1 k4 ");
    PASS(lade_records_one(place->records, "a", "sdxl", "vae", &record, &place->error));
    assert_string_equal(lade_json_text(record, "base", ""), "sd-2"); // as it was added
    json_decref(record);
    assert_int_equal(lade_records_one(place->records, "a", "sd-2", "vae", &record, &place->error),
                     LADE_DUPLICATE_MODEL);

    PASS(s_update(place, "k1", "{\"base\": \"sdxl\"}", &record));
    assert_string_equal(json_string_value(json_array_get(json_object_get(record, "bases"), 0)),
                        "sdxl");
    json_decref(record);
    s_expect_search(place, NULL, "sd-1", NULL, NULL, "");
    s_expect_search(place, NULL, "sd-2", NULL, NULL, "k4 k1 k2 ");
    s_expect_search(place, NULL, "sdxl", NULL, NULL, "k4 k1 ");
    PASS(s_update(place, "k1", "{\"bases\": null}", NULL));
    s_expect_search(place, NULL, "sd-2", NULL, NULL, "k4 k2 ");
    for (const char *const *key = (const char *const[]){"k1", "k2", "k3", "k4", NULL}; *key; key++)
        PASS(lade_records_del(place->records, *key, NULL, &place->error));
    assert_int_equal(s_index_entries(place), 0);
}

// ---------------------------------------------------------------------------------------------------
// Orders, pages and many records, against a plain list of them

enum { T_MANY = 9000, T_QUERIES = 160 };

static const char *const t_types[] = {"main", "lora", "vae"};
static const char *const t_bases[] = {"sd-1", "sd-2", "sdxl", "any"};
static const char *const t_formats[] = {"diffusers", "checkpoint", "unknown"};

typedef struct {
    char key[16], path[24], name[24], tags[2][16], hash[16];
    const char *type, *base, *other, *format;
    int64_t size;
    double created;
    const char *sorted; // the base it is sorted by
} t_model_t;

static const lade_records_query_t *t_query;

static int
t_compare(const void *a, const void *b)
{
    const t_model_t *one = *(t_model_t *const *)a, *other = *(t_model_t *const *)b;
    const char *const fields[][2] = {{one->type, other->type}, {one->sorted, other->sorted},
                                     {one->name, other->name}, {one->format, other->format},
                                     {one->path, other->path}, {one->key, other->key}};
    enum { TYPE, BASE, NAME, FORMAT, PATH, KEY };
    static const int orders[LADE_ORDER_COUNT][5] = {
        [LADE_ORDER_TYPE] = {TYPE, BASE, NAME, FORMAT, KEY},
        [LADE_ORDER_BASE] = {BASE, TYPE, NAME, FORMAT, KEY},
        [LADE_ORDER_NAME] = {NAME, KEY, KEY, KEY, KEY},
        [LADE_ORDER_FORMAT] = {FORMAT, TYPE, BASE, NAME, KEY},
        [LADE_ORDER_SIZE] = {KEY, KEY, KEY, KEY, KEY},
        [LADE_ORDER_CREATED] = {KEY, KEY, KEY, KEY, KEY},
        [LADE_ORDER_UPDATED] = {KEY, KEY, KEY, KEY, KEY},
        [LADE_ORDER_PATH] = {PATH, KEY, KEY, KEY, KEY},
    };
    int order = 0;
    if (t_query->order == LADE_ORDER_SIZE)
        order = (one->size > other->size) - (one->size < other->size);
    if (t_query->order == LADE_ORDER_CREATED || t_query->order == LADE_ORDER_UPDATED)
        order = (one->created > other->created) - (one->created < other->created);
    for (size_t i = 0; i < 5 && !order; i++)
        order = strcmp(fields[orders[t_query->order][i]][0], fields[orders[t_query->order][i]][1]);
    return t_query->descending ? -order : order;
}

static bool
t_matches(const t_model_t *model)
{
    const lade_records_query_t *q = t_query;
    bool fits = (!q->name || strcmp(q->name, model->name) == 0) &&
                (!q->type || strcmp(q->type, model->type) == 0) &&
                (!q->hash || strcmp(q->hash, model->hash) == 0) &&
                (!q->format || strcmp(q->format, model->format) == 0) &&
                (!q->base || strcmp(q->base, model->base) == 0 ||
                 (model->other && strcmp(q->base, model->other) == 0));
    for (size_t i = 0; i < json_array_size(q->tags); i++) {
        const char *tag = json_string_value(json_array_get(q->tags, i));
        fits = fits && (strcmp(tag, model->tags[0]) == 0 || strcmp(tag, model->tags[1]) == 0);
    }
    return fits;
}

static void
t_make(t_model_t *model, size_t i)
{
    snprintf(model->key, sizeof model->key, "k%05zu", (i * 7919) % T_MANY);
    snprintf(model->path, sizeof model->path, "/m/%zu", i);
    snprintf(model->name, sizeof model->name, "model %ld", random() % 3000);
    snprintf(model->hash, sizeof model->hash, "h:%ld", random() % 500);
    snprintf(model->tags[0], sizeof *model->tags, "%s", random() % 3 ? "common" : "frequent");
    snprintf(model->tags[1], sizeof *model->tags, "rare%ld", random() % 50);
    model->type = t_types[random() % 100 < 96 ? 0 : random() % 3];
    model->base = t_bases[random() % 100 < 90 ? 0 : random() % 4];
    model->other = random() % 10 ? NULL : "sd-2";
    model->format = t_formats[random() % 100 < 70 ? 0 : random() % 3];
    if (strcmp(model->type, "lora") == 0 && strcmp(model->format, "checkpoint") == 0)
        model->format = "omi";
    model->size = random() % 4000;
}

static void
t_put(s_place_t *place, t_model_t *model)
{
    json_t *record = json_pack("{ss,ss,ss,ss,ss,ss,ss,sI,s[s,s]}", "key", model->key, "name",
                               model->name, "type", model->type, "base", model->base, "format",
                               model->format, "path", model->path, "hash", model->hash, "file_size",
                               (json_int_t)model->size, "tags", model->tags[0], model->tags[1]);
    json_t *stored;
    if (model->other)
        json_object_set_new(record, "bases", json_pack("[s,s]", model->base, model->other));
    PASS(lade_records_add(place->records, record, &stored, &place->error));
    model->created = lade_json_real(stored, "created_at", 0);
    json_decref(stored);
    json_decref(record);
}

static void
t_ask(s_place_t *place, t_model_t *models, t_model_t **list, lade_records_query_t query)
{
    char keys[512], wanted[512] = "";
    size_t count = 0;
    t_query = &query;
    for (size_t i = 0; i < T_MANY; i++) {
        models[i].sorted = query.base ? query.base : models[i].base;
        if (models[i].key[0] && t_matches(&models[i]))
            list[count++] = &models[i];
    }
    qsort(list, count, sizeof *list, t_compare);
    for (size_t i = query.offset; i < count && i < query.offset + query.limit; i++)
        snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), "%s ", list[i]->key);
    s_found(place, &query, keys);
    if (strcmp(keys, wanted) != 0)
        fail_msg(
            "name %s type %s base %s format %s hash %s tags %zu order %d %s offset %zu: %s, not %s",
            query.name, query.type, query.base, query.format, query.hash,
            json_array_size(query.tags), (int)query.order, query.descending ? "desc" : "asc",
            query.offset, keys, wanted);
}

static void
t_ask_many(s_place_t *place, t_model_t *models, t_model_t **list)
{
    for (size_t i = 0; i < T_QUERIES; i++) {
        const t_model_t *like = &models[random() % T_MANY];
        lade_records_query_t query = {.order = (lade_records_order_t)(i % LADE_ORDER_COUNT),
                                      .descending = random() % 2,
                                      .limit = 1 + (size_t)(random() % 30)};
        json_t *tags = json_array();
        query.name = random() % 4 ? NULL : like->name;
        query.type = random() % 2 ? NULL : like->type;
        query.base = random() % 2 ? NULL : like->base;
        query.format = random() % 2 ? NULL : like->format;
        query.hash = random() % 8 ? NULL : like->hash;
        for (size_t tag = 0; tag < 2; tag++)
            if (random() % 4 == 0)
                json_array_append_new(tags, json_string(like->tags[tag]));
        query.tags = random() % 2 ? NULL : tags;
        query.offset = random() % 3 ? 0 : (size_t)(random() % (random() % 2 ? 20 : T_MANY));
        t_ask(place, models, list, query);
        json_decref(tags);
    }
}

static void
test_any_query_finds_what_a_plain_list_of_all_has(void **state)
{
    s_place_t *place = *state;
    t_model_t *models = calloc(T_MANY, sizeof *models);
    t_model_t **list = calloc(T_MANY, sizeof *list);
    srandom(20261127);
    for (size_t i = 0; i < T_MANY; i++) {
        t_make(&models[i], i);
        t_put(place, &models[i]);
    }
    t_ask_many(place, models, list);
    PASS(lade_store_commit(place->store, &place->error));
    for (size_t i = 0; i < T_MANY; i += 3) { // a third goes, some come back as something else
        PASS(lade_records_del(place->records, models[i].key, NULL, &place->error));
        models[i].key[0] = '\0';
        if (i % 2)
            continue;
        t_make(&models[i], i);
        t_put(place, &models[i]);
    }
    t_ask_many(place, models, list);
    for (size_t i = 0; i < T_MANY; i++)
        if (models[i].key[0])
            PASS(lade_records_del(place->records, models[i].key, NULL, &place->error));
    assert_int_equal(s_index_entries(place), 0);
    free(list);
    free(models);
}

static void
test_unknown_orders_are_named(void **state)
{
    s_place_t *place = *state;
    lade_records_order_t order;
    PASS(lade_records_order(NULL, &order, &place->error));
    assert_int_equal(order, LADE_ORDER_TYPE);
    PASS(lade_records_order("created_at", &order, &place->error));
    assert_int_equal(order, LADE_ORDER_CREATED);
    assert_int_equal(lade_records_order("age", &order, &place->error), LADE_VALUE_ERROR);
    assert_non_null(
        strstr(place->error.message, "'age' does not do; it takes one of default, type"));
}

static void
test_what_is_unchanged_is_not_written_again(void **state)
{
    s_place_t *place = *state;
    json_t *stored;
    PASS(s_add(place, "k", "m", "sd-1 main diffusers", "/m",
               "{\"newer\": {\"deep\": [1, null, {\"x\": true}]}, \"tags\": [\"a\"]}"));
    PASS(s_update(place, "k", "{\"description\": \"d\"}", &stored));
    json_t *wanted = s_json("{\"deep\": [1, null, {\"x\": true}]}"); // what nobody here knows stays
    assert_true(json_equal(json_object_get(stored, "newer"), wanted));
    json_decref(wanted);
    json_decref(stored);
    assert_int_equal(s_index_entries(place), 1 + 1 + 1 + 6 + 1);
    s_expect(place, (lade_records_query_t){.order = LADE_ORDER_UPDATED}, "k ");
}

static void
test_records_of_a_keyspace_of_schema_1_are_found(void **state)
{
    s_place_t *place = *state;
    static const struct lade_store_migration none[] = {{0, NULL}};
    const lade_store_options_t old = {.schema = 1, .migrations = none};
    lade_records_destroy(&place->records);
    lade_store_close(&place->store);
    lade_path_remove(place->folder, NULL);
    PASS(lade_store_open_with(place->folder, &old, &place->store, &place->error));
    for (size_t i = 0; i < 2500; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%04zu", i);
        json_t *record =
            json_pack("{ss,ss,ss,ss,ss,ss}", "key", key, "name", "m", "type",
                      i % 2 ? "vae" : "main", "base", "sd-1", "format", "diffusers", "path", key);
        lade_buf_t buf = LADE_BUF(1000);
        PASS(lade_wire_from_json(record, &buf, &place->error));
        PASS(lade_store_put(place->store, LADE_DB_MODELS, key, strlen(key), buf.data, buf.len,
                            false, &place->error));
        lade_buf_free(&buf);
        json_decref(record);
    }
    PASS(lade_store_commit(place->store, &place->error));
    lade_store_close(&place->store);
    PASS(lade_store_open(place->folder, &place->store, &place->error));
    place->records = lade_records_new(place->store, "/data/models");
    s_expect(place, (lade_records_query_t){.type = "vae", .limit = 2}, "k0001 k0003 ");
    s_expect(place, (lade_records_query_t){.limit = 2, .offset = 1249}, "k2498 k0001 ");
    PASS(s_update(place, "k0001", "{\"name\": \"z\"}", NULL));
    s_expect(place, (lade_records_query_t){.type = "vae", .limit = 2}, "k0003 k0005 ");
    s_expect(place, (lade_records_query_t){.name = "z"}, "k0001 ");
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
        TEST(test_model_is_found_under_each_of_its_bases),
        TEST(test_any_query_finds_what_a_plain_list_of_all_has),
        TEST(test_unknown_orders_are_named),
        TEST(test_what_is_unchanged_is_not_written_again),
        TEST(test_records_of_a_keyspace_of_schema_1_are_found),
        TEST(test_aborted_batch_takes_its_records_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
