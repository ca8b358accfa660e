// The doctor: every way an index and a record can disagree is found, and put right by the records
// of that moment.
#include "broker/broker_test.h"
#include "broker/records_private.h"

static json_t *
s_config(int number)
{
    char name[32], path[64];
    snprintf(name, sizeof name, "model %d", number % 40);
    snprintf(path, sizeof path, "sd-1/lora/%d.safetensors", number);
    return json_pack("{s:{s:s, s:s, s:s, s:s, s:s, s:[s, s], s:s, s:s}}", "config", "name", name,
                     "type", "lora", "base", "sd-1", "format", "lycoris", "path", path, "tags",
                     number % 2 ? "odd" : "even", "all", "source", "s", "hash", "h");
}

// The answer of a call that a thread works for.
static json_t *
s_check(t_broker_t *broker, bool fix)
{
    int64_t id = t_send(broker, "broker", "check", json_pack("{s:b}", "fix", fix));
    for (int i = 0; i < 3000 && !t_answer(broker, id); i++) {
        t_turn(broker);
        usleep(10000); // the thread's time, not ours: there is no loop here to be woken
    }
    json_t *answer = t_answer(broker, id);
    assert_non_null(answer);
    if (!lade_json_bool(answer, "ok", false))
        fail_msg("%s", lade_json_text(json_object_get(answer, "error"), "message", ""));
    return json_object_get(answer, "result");
}

static int64_t
s_count(const json_t *result, const char *check)
{
    return lade_json_int(json_object_get(result, "counts"), check, 0);
}

static t_broker_t *
s_new(int models)
{
    t_broker_t *broker = t_new();
    for (int i = 0; i < models; i++) {
        t_call(broker, "store", "add_model", s_config(i));
        t_forget(broker);
    }
    return broker;
}

static lade_store_t *
s_take_store(t_broker_t *broker)
{
    lade_store_t *store;
    lade_error_t error;
    lade_router_close(&broker->router);
    t_forget(broker);
    char *folder = lade_path_join(broker->folder, "keyspace");
    if (lade_store_open(folder, &store, &error))
        fail_msg("%s", error.message);
    free(folder);
    return store;
}

static void
s_give_store(t_broker_t *broker, lade_store_t *store)
{
    assert_int_equal(lade_store_commit(store, NULL), LADE_OK);
    lade_store_close(&store);
    t_open(broker);
}

static void
test_whole_keyspace_has_no_findings(void **state)
{
    (void)state;
    t_broker_t *broker = s_new(200);
    json_t *result = s_check(broker, true);
    assert_int_equal(lade_json_int(result, "models", 0), 200);
    assert_int_equal(s_count(result, "file_missing") + s_count(result, "file_unavailable"), 200);
    assert_int_equal(s_count(result, "index_missing") + s_count(result, "index_stray") +
                         s_count(result, "count_wrong") + s_count(result, "record_unreadable"),
                     0);
    assert_int_equal(json_array_size(json_object_get(result, "fixed")), 0);
    t_destroy(broker);
}

typedef struct {
    char key[LADE_STORE_MAX_KEY];
    size_t len;
    int skip;
} s_pick_t;

static bool
s_on_pick(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)value;
    s_pick_t *pick = arg;
    memcpy(pick->key, key.data, key.len);
    pick->len = key.len;
    return pick->skip-- > 0;
}

static s_pick_t
s_pick(lade_store_t *store, lade_db_t db, int skip)
{
    s_pick_t pick = {.skip = skip};
    assert_int_equal(lade_store_scan(store, db, NULL, 0, 0, false, s_on_pick, &pick, NULL),
                     LADE_OK);
    return pick;
}

static void
test_every_disagreement_is_found_and_put_right(void **state)
{
    (void)state;
    static const lade_db_t tables[] = {LADE_DB_MODELS_BY_NAME, LADE_DB_MODELS_BY_PATH,
                                       LADE_DB_MODELS_BY_TAG,  LADE_DB_MODELS_BY_SOURCE,
                                       LADE_DB_MODELS_BY_HASH, LADE_DB_MODELS_SORTED};
    t_broker_t *broker = s_new(120);
    lade_store_t *store = s_take_store(broker);
    for (size_t i = 0; i < 6; i++) {
        s_pick_t gone = s_pick(store, tables[i], 5 + (int)i);
        assert_int_equal(lade_store_del(store, tables[i], gone.key, gone.len, NULL), LADE_OK);
        s_pick_t other = s_pick(store, tables[i], 50);
        other.key[0] ^= 1; // of a value that its record does not have
        assert_int_equal(lade_store_put(store, tables[i], other.key, other.len, "", 0, false, NULL),
                         LADE_OK);
    }
    assert_int_equal(lade_store_put(store, LADE_DB_MODELS_BY_TAG, "x\0none", 6, "", 0, false, NULL),
                     LADE_OK);
    s_pick_t count = s_pick(store, LADE_DB_MODELS_COUNTS, 0);
    uint64_t wrong = 7;
    assert_int_equal(lade_store_put(store, LADE_DB_MODELS_COUNTS, count.key, count.len, &wrong,
                                    sizeof wrong, false, NULL),
                     LADE_OK);
    s_give_store(broker, store);

    json_t *result = s_check(broker, false);
    assert_int_equal(s_count(result, "index_missing"), 6);
    assert_int_equal(s_count(result, "index_stray"), 7);
    assert_int_equal(s_count(result, "count_wrong"), 1);
    t_forget(broker);
    // Meanwhile records come and go: what is put right is what they are then.
    int64_t id = t_send(broker, "broker", "check", json_pack("{s:b}", "fix", 1));
    t_turn(broker);
    t_call(broker, "store", "add_model", s_config(1000));
    json_t *all = t_call(broker, "store", "all_models", NULL);
    char *key = strdup(lade_json_text(json_array_get(all, 3), "key", ""));
    t_call(
        broker, "store", "update_model",
        json_pack("{s:s, s:{s:s, s:[s]}}", "key", key, "config", "name", "other", "tags", "new"));
    free(key);
    for (int i = 0; i < 3000 && !t_answer(broker, id); i++) {
        t_turn(broker);
        usleep(10000);
    }
    assert_non_null(t_answer(broker, id));
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(t_answer(broker, id), "result"), "fixed")),
        1);
    result = s_check(broker, false);
    assert_int_equal(s_count(result, "index_missing") + s_count(result, "index_stray") +
                         s_count(result, "count_wrong"),
                     0);
    assert_int_equal(lade_json_int(result, "models", 0), 121);
    t_destroy(broker);
}

static void
test_record_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    t_broker_t *broker = s_new(10);
    lade_store_t *store = s_take_store(broker);
    s_pick_t record = s_pick(store, LADE_DB_MODELS, 4);
    assert_int_equal(
        lade_store_put(store, LADE_DB_MODELS, record.key, record.len, "\xc1", 1, false, NULL),
        LADE_OK);
    s_give_store(broker, store);
    json_t *result = s_check(broker, true);
    assert_int_equal(s_count(result, "record_unreadable"), 1);
    assert_true(s_count(result, "index_stray") > 0); // its entries lead to nothing that wants them
    t_forget(broker);
    result = s_check(broker, false);
    assert_int_equal(s_count(result, "record_unreadable"), 1);
    assert_int_equal(s_count(result, "index_stray"), 0);
    t_destroy(broker);
}

static void
test_one_at_a_time_and_an_end_in_the_middle(void **state)
{
    (void)state;
    t_broker_t *broker = s_new(50);
    int64_t first = t_send(broker, "broker", "check", NULL),
            second = t_send(broker, "broker", "check", NULL);
    t_turn(broker);
    assert_string_equal(
        lade_json_text(json_object_get(t_answer(broker, second), "error"), "code", ""), "busy");
    (void)first;
    t_restart(broker); // while the thread works
    s_check(broker, false);
    t_destroy(broker);
}

static void
test_turn_that_is_not_committed_starts_none(void **state)
{
    (void)state;
    t_broker_t *broker = s_new(5);
    lade_router_break_commits(broker->router, 1);
    int64_t id = t_send(broker, "broker", "check", NULL);
    t_send(broker, "store", "add_model", s_config(77));
    t_turn(broker);
    assert_string_equal(lade_json_text(json_object_get(t_answer(broker, id), "error"), "code", ""),
                        "no_space");
    assert_int_equal(lade_json_int(s_check(broker, false), "models", 0), 5);
    t_destroy(broker);
}

// ---------------------------------------------------------------------------------------------------
// A map that is too small

static bool
s_is_there(void *arg, lade_db_t db, lade_bytes_t entry, bool more, lade_bytes_t count)
{
    lade_bytes_t value;
    (void)count;
    return lade_store_get(arg, db, entry.data, entry.len, &value, NULL) == LADE_OK &&
           (value.len > 0) == more;
}

static bool
s_has_entries(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)key;
    if (!lade_records_each_entry(value, s_is_there, arg))
        fail_msg("a record lacks an entry");
    return true;
}

static uint64_t
s_entries(lade_store_t *store)
{
    uint64_t count = 0;
    for (int db = LADE_DB_MODELS; db <= LADE_DB_MODELS_BY_HASH; db++)
        count += lade_store_count(store, (lade_db_t)db);
    return count + lade_store_count(store, LADE_DB_MODELS_SORTED);
}

// Each batch of a hundred records either is there with all its entries, or was refused and left
// nothing; what was refused goes in when it is tried again.
static void
test_records_outgrow_a_tiny_map(void **state)
{
    (void)state;
    static const struct lade_store_migration none[] = {{0, NULL}};
    lade_store_options_t options = {
        .map_bytes = 256 << 10, .schema = LADE_STORE_SCHEMA, .migrations = none};
    char folder[] = "/tmp/lade-tiny-XXXXXX", text[3000];
    lade_store_t *store;
    lade_error_t error = {0};
    int refused = 0, tries = 0;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_non_null(mkdtemp(folder));
    if (lade_store_open_with(folder, &options, &store, &error))
        fail_msg("%s", error.message);
    lade_records_t *records = lade_records_new(store, "/models");
    for (int i = 0; i < 2000; i += tries == 0 ? 100 : 0) {
        uint64_t before = s_entries(store);
        lade_code_t code = LADE_OK;
        for (int j = i; j < i + 100 && !code; j++) {
            json_t *config = s_config(j), *stored = NULL;
            json_object_set_new(json_object_get(config, "config"), "description",
                                json_string(text));
            code = lade_records_add(records, json_object_get(config, "config"), &stored, &error);
            json_decref(stored);
            json_decref(config);
        }
        lade_code_t ended = lade_store_commit(store, &error);
        assert_int_equal(ended, code);
        tries = code ? tries + 1 : 0;
        refused += code != LADE_OK;
        if (code)
            assert_int_equal(code, LADE_NO_SPACE);
        if (code)
            assert_int_equal(s_entries(store), before);
        assert_true(tries < 6);
    }
    assert_true(refused > 0); // else the map was not too small
    lade_records_destroy(&records);
    lade_store_close(&store);
    if (lade_store_open_with(folder, &options, &store, &error))
        fail_msg("%s", error.message);
    assert_int_equal(lade_store_count(store, LADE_DB_MODELS), 2000);
    assert_int_equal(
        lade_store_scan(store, LADE_DB_MODELS, NULL, 0, 0, false, s_has_entries, store, NULL),
        LADE_OK);
    lade_store_close(&store);
    lade_path_remove(folder, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_keyspace_has_no_findings),
        cmocka_unit_test(test_every_disagreement_is_found_and_put_right),
        cmocka_unit_test(test_record_that_cannot_be_read_is_named),
        cmocka_unit_test(test_one_at_a_time_and_an_end_in_the_middle),
        cmocka_unit_test(test_turn_that_is_not_committed_starts_none),
        cmocka_unit_test(test_records_outgrow_a_tiny_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
