// Tests of the cache: one read for many who ask, room by least recent use, and what is locked
// stays.
#include "workers/gpu/cache.h"

#include "common/log.h"
#include "common/segment.h"
#include "common/wire.h"
#include "workers/gpu/test_models.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

enum { S_KB = 1024, S_MB = 1024 * 1024, S_PATIENCE_MS = 20000 };

typedef struct {
    char *folder;
    lade_cache_t *cache;
} s_world_t;

static lade_cache_t *
s_cache(const char *folder, size_t limit)
{
    lade_cache_options_t options = {.name = "gpu@here:1-x",
                                    .models_dir = folder,
                                    .limit = limit,
                                    .threads = 2,
                                    .rows = lade_loaders_host};
    lade_cache_t *cache;
    assert_int_equal(lade_cache_new(&options, &cache, NULL), LADE_OK);
    return cache;
}

// Models "m0" … "m7" of a good MiB each, in a cache of four and a half.
static int
s_setup(void **state)
{
    s_world_t *world = calloc(1, sizeof *world);
    if (test_folder_new((void **)&world->folder))
        return -1;
    for (unsigned i = 0; i < 8; i++) {
        char name[40];
        snprintf(name, sizeof name, "m%u.safetensors", i);
        free(test_model(world->folder, name, "w", S_MB, i));
    }
    world->cache = s_cache(world->folder, 4 * S_MB + 512 * S_KB);
    *state = world;
    return 0;
}

static int
s_teardown(void **state)
{
    s_world_t *world = *state;
    lade_cache_destroy(&world->cache);
    test_folder_remove((void **)&world->folder);
    free(world);
    return 0;
}

static lade_code_t
s_load_key(lade_cache_t *cache, const char *key, const char *file, bool lock,
           lade_cache_answer_t *answer, lade_error_t *error)
{
    json_t *record = test_record(key, "vae", "checkpoint", file);
    lade_cache_request_t request = {.record = record, .key = key, .lock = lock};
    lade_code_t code = lade_cache_load(cache, &request, answer, error);
    json_decref(record);
    return code;
}

static lade_cache_answer_t
s_load(s_world_t *world, unsigned which, bool lock)
{
    char key[20], file[40];
    snprintf(key, sizeof key, "m%u", which);
    snprintf(file, sizeof file, "m%u.safetensors", which);
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    if (s_load_key(world->cache, key, file, lock, &answer, &error))
        fail_msg("%s", error.message);
    return answer;
}

static int64_t
s_stat(s_world_t *world, const char *what)
{
    json_t *stats = lade_cache_stats(world->cache);
    assert_non_null(stats);
    int64_t value = lade_json_int(stats, what, -1);
    json_decref(stats);
    return value;
}

// True if the model is held.
static bool
s_holds(s_world_t *world, const char *key)
{
    json_t *stats = lade_cache_stats(world->cache), *model;
    size_t i;
    bool found = false;
    json_array_foreach(json_object_get(stats, "models"), i, model) found =
        found || !strcmp(lade_json_text(model, "key", ""), key);
    json_decref(stats);
    return found;
}

// Maps the segment as another process would, by its path, and checks every weight.
static void
s_assert_segment(const lade_cache_answer_t *answer, unsigned seed)
{
    int fd = open(answer->path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    void *bytes = mmap(NULL, answer->bytes, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(bytes != MAP_FAILED);
    close(fd);
    lade_segment_t *segment;
    lade_error_t error = {0};
    if (lade_segment_open(bytes, answer->bytes, &segment, &error) ||
        lade_segment_read_index(segment, &error))
        fail_msg("%s", error.message);
    assert_int_equal(lade_segment_generation(segment), answer->id);
    const lade_tensor_t *a = lade_segment_find(segment, "w.a"),
                        *b = lade_segment_find(segment, "w.b");
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->size + b->size, S_MB);
    const uint8_t *a_data = lade_segment_data(segment, a), *b_data = lade_segment_data(segment, b);
    for (size_t i = 0; i < a->size; i++)
        if (a_data[i] != test_byte(i, seed))
            fail_msg("byte %zu of w.a is wrong", i);
    for (size_t i = 0; i < b->size; i++)
        if (b_data[i] != test_byte(a->size + i, seed))
            fail_msg("byte %zu of w.b is wrong", i);
    lade_segment_close(&segment);
    munmap(bytes, answer->bytes);
}

static void
test_a_model_is_read_once_and_then_found(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t first = s_load(world, 3, true);
    assert_string_equal(first.lease, "gpu@here:1-x/1");
    assert_string_equal(first.precision, "float16");
    assert_true(first.bytes >= S_MB && first.bytes < S_MB + 16 * S_KB);
    s_assert_segment(&first, 3);
    lade_cache_answer_t second = s_load(world, 3, false);
    assert_int_equal(second.id, first.id);
    assert_string_equal(second.path, first.path);
    assert_string_equal(second.lease, "");
    assert_int_equal(s_stat(world, "hits"), 1);
    assert_int_equal(s_stat(world, "misses"), 1);
    assert_int_equal(s_stat(world, "leases"), 1);
    assert_int_equal(s_stat(world, "bytes"), first.bytes);
}

static void
test_the_least_recently_used_makes_room(void **state)
{
    s_world_t *world = *state;
    for (unsigned i = 0; i < 4; i++)
        s_load(world, i, false);
    s_load(world, 0, false); // now 1 is the oldest
    s_load(world, 4, false);
    assert_true(s_holds(world, "m0"));
    assert_false(s_holds(world, "m1"));
    assert_true(s_holds(world, "m2"));
    s_load(world, 5, false);
    assert_false(s_holds(world, "m2"));
    assert_int_equal(s_stat(world, "evictions"), 2);
    assert_true(s_stat(world, "bytes") <= s_stat(world, "limit_bytes"));
    assert_true(s_stat(world, "high_watermark") <= s_stat(world, "limit_bytes"));
}

static void
test_pages_of_an_evicted_model_are_used_again(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answers[4];
    for (unsigned i = 0; i < 4; i++)
        answers[i] = s_load(world, i, false);
    lade_cache_answer_t fifth = s_load(world, 4, false);
    assert_string_equal(fifth.path, answers[0].path); // the same descriptor: the same region
    assert_true(fifth.id != answers[0].id);
    s_assert_segment(&fifth, 4);
    s_assert_segment(&answers[1], 1);
}

static void
test_what_is_locked_is_never_evicted(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t locked[3];
    for (unsigned i = 0; i < 3; i++)
        locked[i] = s_load(world, i, true);
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 3; i < 8; i++)
            s_load(world, i, false);
    for (unsigned i = 0; i < 3; i++)
        s_assert_segment(&locked[i], i);
    locked[0] = s_load(world, 7, true);
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    assert_int_equal(s_load_key(world->cache, "m4", "m4.safetensors", false, &answer, &error),
                     LADE_NO_MEMORY);
    assert_non_null(strstr(error.message, "are locked by 4 leases"));
    assert_int_equal(s_stat(world, "evictions"), 14); // none in vain
    assert_true(lade_cache_unlock(world->cache, locked[0].lease));
    s_load(world, 4, false);
    assert_false(s_holds(world, "m7"));
}

static void
test_a_model_larger_than_the_cache_is_refused(void **state)
{
    s_world_t *world = *state;
    free(test_model(world->folder, "big.safetensors", "w", 5 * S_MB, 0));
    s_load(world, 0, false);
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    assert_int_equal(s_load_key(world->cache, "big", "big.safetensors", false, &answer, &error),
                     LADE_NO_MEMORY);
    assert_non_null(strstr(error.message, "raise load.cache_mb"));
    assert_true(s_holds(world, "m0"));
    assert_false(s_holds(world, "big"));
}

static void
test_a_lease_is_unlocked_once_and_only_by_its_name(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer = s_load(world, 0, true);
    static const char *const wrong[] = {"",
                                        "gpu@here:1-x",
                                        "gpu@here:1-x/",
                                        "gpu@here:1-x/0",
                                        "gpu@here:1-x/2",
                                        "gpu@here:1-x/1x",
                                        "gpu@here:1-x/01",
                                        "gpu@here:2-x/1",
                                        "gpu@here:1-x/99999999999999999999999",
                                        "gpu@here:1-x/-1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(lade_cache_unlock(world->cache, wrong[i]));
    assert_true(lade_cache_unlock(world->cache, answer.lease));
    assert_false(lade_cache_unlock(world->cache, answer.lease));
}

static void
test_a_lease_that_is_named_is_renewed(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t first = s_load(world, 0, true), again;
    json_t *record = test_record("m0", "vae", "checkpoint", "m0.safetensors");
    lade_cache_request_t request = {
        .record = record, .key = "m0", .lock = true, .ttl_s = 60, .lease = first.lease};
    assert_int_equal(lade_cache_load(world->cache, &request, &again, NULL), LADE_OK);
    assert_string_equal(again.lease, first.lease);
    assert_int_equal(s_stat(world, "leases"), 1);
    lade_cache_unlock(world->cache, first.lease);
    assert_int_equal(lade_cache_load(world->cache, &request, &again, NULL), LADE_OK);
    assert_string_not_equal(again.lease, first.lease); // over: a new one
    json_decref(record);
}

static void
test_unload_drops_what_is_not_locked(void **state)
{
    s_world_t *world = *state;
    s_load(world, 0, true);
    s_load(world, 1, false);
    s_load(world, 2, false);
    assert_int_equal(lade_cache_unload(world->cache, "m1", NULL), 1);
    assert_int_equal(lade_cache_unload(world->cache, "m1", NULL), 0);
    assert_int_equal(lade_cache_unload(world->cache, "m", NULL), 0);
    assert_int_equal(lade_cache_unload(world->cache, "m2", "unet"), 0);
    assert_int_equal(lade_cache_unload(world->cache, NULL, NULL), 1);
    assert_true(s_holds(world, "m0"));
    assert_true(s_stat(world, "pool_bytes") >= 2 * S_MB);
}

// ---------------------------------------------------------------------------------------------------
// Files that change

static void
test_a_file_that_changed_is_read_again(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t before = s_load(world, 0, true);
    char *path = lade_path_join(world->folder, "m0.safetensors");
    assert_int_equal(lade_path_remove(path, NULL), LADE_OK);
    free(path);
    free(test_model(world->folder, "m0.safetensors", "w", S_MB, 77));
    lade_cache_answer_t after = s_load(world, 0, true);
    assert_true(after.id != before.id);
    s_assert_segment(&after, 77);
    s_assert_segment(&before, 0); // locked: what was there stays as it was
    assert_true(lade_cache_unlock(world->cache, before.lease));
    for (unsigned i = 1; i < 4; i++)
        s_load(world, i, false);
    s_load(world, 5, false);
    assert_int_equal(s_stat(world, "evictions"), 2);
    s_assert_segment(&after, 77);
}

static void
test_files_that_are_gone_are_said(void **state)
{
    s_world_t *world = *state;
    s_load(world, 0, false);
    char *path = lade_path_join(world->folder, "m0.safetensors");
    assert_int_equal(lade_path_remove(path, NULL), LADE_OK);
    free(path);
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    assert_int_equal(s_load_key(world->cache, "m0", "m0.safetensors", false, &answer, &error),
                     LADE_MODEL_NOT_FOUND);
    assert_int_equal(s_load_key(world->cache, "m0", "m0.safetensors", false, &answer, NULL),
                     LADE_MODEL_NOT_FOUND);
}

static void
test_a_corrupt_file_leaves_nothing_behind(void **state)
{
    s_world_t *world = *state;
    test_text_file(world->folder, "bad.safetensors",
                   "this is no model, and long enough to be looked at");
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    for (int i = 0; i < 3; i++) {
        lade_code_t code =
            s_load_key(world->cache, "bad", "bad.safetensors", true, &answer, &error);
        assert_int_equal(code, LADE_CORRUPT);
    }
    assert_int_equal(s_stat(world, "bytes"), 0);
    assert_int_equal(s_stat(world, "leases"), 0);
    test_text_file(world->folder, "other.safetensors", "PK\3\4, a pickle under another name");
    assert_int_equal(s_load_key(world->cache, "other", "other.safetensors", true, &answer, &error),
                     LADE_CORRUPT);
}

static void
test_shards_and_empty_parts(void **state)
{
    s_world_t *world = *state;
    free(
        test_model(world->folder, "sharded/model-00001-of-00002.safetensors", "one", 10 * S_KB, 1));
    free(test_model(world->folder, "sharded/model-00002-of-00002.safetensors", "two", 6 * S_KB, 2));
    json_t *record = test_record("s", "vae", "diffusers", "sharded");
    lade_cache_request_t request = {.record = record, .key = "s"};
    lade_cache_answer_t answer;
    assert_int_equal(lade_cache_load(world->cache, &request, &answer, NULL), LADE_OK);
    int fd = open(answer.path, O_RDONLY | O_CLOEXEC);
    void *bytes = mmap(NULL, answer.bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    lade_segment_t *segment;
    assert_int_equal(lade_segment_open(bytes, answer.bytes, &segment, NULL), LADE_OK);
    assert_int_equal(lade_segment_count(segment), 4);
    const lade_tensor_t *tensor = lade_segment_find(segment, "two.b");
    const uint8_t *data = lade_segment_data(segment, tensor);
    for (size_t i = 0; i < tensor->size; i++)
        assert_int_equal(data[i], test_byte(3 * S_KB + i, 2));
    lade_segment_close(&segment);
    munmap(bytes, answer.bytes);
    json_decref(record);

    test_text_file(world->folder, "sd/model_index.json",
                   "{\"scheduler\": [\"diffusers\", \"PNDMScheduler\"]}");
    test_text_file(world->folder, "sd/scheduler/scheduler_config.json", "{}");
    record = test_record("sd", "main", "diffusers", "sd");
    request = (lade_cache_request_t){
        .record = record, .key = "sd", .submodel = "scheduler", .lock = true};
    assert_int_equal(lade_cache_load(world->cache, &request, &answer, NULL), LADE_OK);
    assert_string_equal(answer.precision, "none");
    assert_int_equal(answer.bytes, LADE_SEGMENT_PAGE);
    json_decref(record);
}

// ---------------------------------------------------------------------------------------------------
// Several at once

typedef struct {
    s_world_t *world;
    unsigned seed;
    atomic_int *failures;
} s_thread_t;

static void *
s_load_same(void *arg)
{
    s_thread_t *thread = arg;
    lade_cache_answer_t answer;
    if (s_load_key(thread->world->cache, "m1", "m1.safetensors", true, &answer, NULL))
        atomic_fetch_add(thread->failures, 1);
    return NULL;
}

static void
test_many_who_ask_at_once_make_one_read(void **state)
{
    s_world_t *world = *state;
    enum { S_THREADS = 8 };
    pthread_t threads[S_THREADS];
    atomic_int failures = 0;
    s_thread_t arg = {world, 0, &failures};
    for (size_t i = 0; i < S_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, s_load_same, &arg), 0);
    for (size_t i = 0; i < S_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
    assert_int_equal(s_stat(world, "misses"), 1);
    assert_int_equal(s_stat(world, "hits"), S_THREADS - 1);
    assert_int_equal(s_stat(world, "leases"), S_THREADS);
}

// Loads at random with locks, looks at the first weights while locked, unlocks.
static void *
s_load_at_random(void *arg)
{
    s_thread_t *thread = arg;
    unsigned random = thread->seed * 7919 + 1;
    for (int round = 0; round < 60; round++) {
        random = random * 1103515245 + 12345;
        unsigned which = random >> 16 & 7;
        char key[20], file[40];
        snprintf(key, sizeof key, "m%u", which);
        snprintf(file, sizeof file, "m%u.safetensors", which);
        lade_cache_answer_t answer;
        lade_error_t error = {0};
        lade_code_t code = s_load_key(thread->world->cache, key, file, true, &answer, &error);
        if (code) {
            atomic_fetch_add(thread->failures, 1);
            continue;
        }
        int fd = open(answer.path, O_RDONLY | O_CLOEXEC);
        const uint8_t *bytes = mmap(NULL, answer.bytes, PROT_READ, MAP_SHARED, fd, 0);
        close(fd);
        const lade_segment_head_t *head = (const lade_segment_head_t *)bytes;
        // The file's header is a page of the run at most, so the last weights are where the segment
        // ends.
        bool good = !memcmp(head->magic, LADE_SEGMENT_MAGIC, 8) && head->generation == answer.id;
        lade_segment_t *segment = NULL;
        good = good && !lade_segment_open(bytes, answer.bytes, &segment, NULL);
        const lade_tensor_t *b = good ? lade_segment_find(segment, "w.b") : NULL;
        const uint8_t *data = b ? lade_segment_data(segment, b) : NULL;
        for (size_t i = 0; data && i < b->size; i += 4096)
            good = good && data[i] == test_byte(S_MB - b->size + i, which);
        if (!good || !data)
            atomic_fetch_add(thread->failures, 1);
        lade_segment_close(&segment);
        munmap((void *)bytes, answer.bytes);
        lade_cache_unlock(thread->world->cache, answer.lease);
        if (round % 10 == 0)
            lade_cache_unload(thread->world->cache, NULL, NULL);
    }
    return NULL;
}

static void
test_pages_never_change_under_a_lock(void **state)
{
    s_world_t *world = *state;
    enum { S_THREADS = 4 }; // as many locks at once as fit
    pthread_t threads[S_THREADS];
    s_thread_t args[S_THREADS];
    atomic_int failures = 0;
    for (unsigned i = 0; i < S_THREADS; i++) {
        args[i] = (s_thread_t){world, i, &failures};
        assert_int_equal(pthread_create(&threads[i], NULL, s_load_at_random, &args[i]), 0);
    }
    for (size_t i = 0; i < S_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
    assert_int_equal(s_stat(world, "leases"), 0);
    assert_true(s_stat(world, "high_watermark") <= s_stat(world, "limit_bytes"));
}

// Holds the reading of a model at its first step until told to go on, or to stop.
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool reading, go_on, stop;
    s_world_t *world;
    lade_code_t code;
} s_gate_t;

static bool
s_on_step(void *arg, uint64_t bytes, uint64_t total)
{
    (void)bytes;
    (void)total;
    s_gate_t *gate = arg;
    pthread_mutex_lock(&gate->lock);
    gate->reading = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->go_on)
        pthread_cond_wait(&gate->changed, &gate->lock);
    bool stop = gate->stop;
    pthread_mutex_unlock(&gate->lock);
    return !stop;
}

static void *
s_load_gated(void *arg)
{
    s_gate_t *gate = arg;
    json_t *record = test_record("m2", "vae", "checkpoint", "m2.safetensors");
    lade_cache_request_t request = {.record = record, .key = "m2", .step = s_on_step, .arg = gate};
    lade_cache_answer_t answer;
    lade_error_t error;
    gate->code = lade_cache_load(gate->world->cache, &request, &answer, &error);
    json_decref(record);
    return NULL;
}

static void *
s_load_plain(void *arg)
{
    s_gate_t *gate = arg;
    s_load(gate->world, 2, false);
    return NULL;
}

static bool
s_refuse(void *arg, uint64_t bytes, uint64_t total)
{
    (void)arg;
    (void)bytes;
    (void)total;
    return false;
}

static void
test_when_a_reading_is_stopped_another_goes_on(void **state)
{
    s_world_t *world = *state;
    s_gate_t gate = {.lock = PTHREAD_MUTEX_INITIALIZER,
                     .changed = PTHREAD_COND_INITIALIZER,
                     .stop = true,
                     .world = world};
    pthread_t reader, waiter;
    assert_int_equal(pthread_create(&reader, NULL, s_load_gated, &gate), 0);
    pthread_mutex_lock(&gate.lock);
    while (!gate.reading)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);

    // While it is read: room is taken, others wait, one that is to stop does.
    assert_true(s_holds(world, "m2"));
    assert_true(s_stat(world, "bytes") > S_MB);
    assert_int_equal(lade_cache_unload(world->cache, NULL, NULL), 0);
    json_t *record = test_record("m2", "vae", "checkpoint", "m2.safetensors");
    lade_cache_request_t request = {.record = record, .key = "m2", .step = s_refuse};
    lade_cache_answer_t answer;
    assert_int_equal(lade_cache_load(world->cache, &request, &answer, NULL), LADE_CANCELLED);
    json_decref(record);
    assert_int_equal(pthread_create(&waiter, NULL, s_load_plain, &gate), 0);

    pthread_mutex_lock(&gate.lock);
    gate.go_on = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
    pthread_join(reader, NULL);
    assert_int_equal(gate.code, LADE_CANCELLED);
    pthread_join(waiter, NULL);
    lade_cache_answer_t held = s_load(world, 2, true);
    s_assert_segment(&held, 2);
    assert_int_equal(s_stat(world, "misses"), 1);
}

static void
test_a_lock_for_no_process_is_refused_and_the_model_stays(void **state)
{
    s_world_t *world = *state;
    json_t *record = test_record("m2", "vae", "checkpoint", "m2.safetensors");
    lade_cache_request_t request = {.record = record, .key = "m2", .lock = true, .pid = 0x7ffffff0};
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    assert_int_equal(lade_cache_load(world->cache, &request, &answer, &error), LADE_VALUE_ERROR);
    assert_true(s_holds(world, "m2"));
    json_decref(record);
}

// What the statistics say of models that come, go and are asked for again.
static void
test_statistics_count_what_happened(void **state)
{
    s_world_t *world = *state;
    for (unsigned i = 0; i < 6; i++)
        s_load(world, i, false);
    s_load(world, 5, false);
    assert_int_equal(s_stat(world, "misses"), 6);
    assert_int_equal(s_stat(world, "hits"), 1);
    assert_int_equal(s_stat(world, "in_cache"), 4);
    assert_int_equal(s_stat(world, "cleared"), 1); // each load drops one
    assert_true(s_stat(world, "high_watermark") <= s_stat(world, "limit_bytes"));
    assert_int_equal(lade_cache_unload(world->cache, NULL, NULL), 4);
    assert_int_equal(s_stat(world, "cleared"), 4);
    assert_int_equal(s_stat(world, "in_cache"), 0);
    json_t *stats = lade_cache_stats(world->cache);
    const json_t *sizes = json_object_get(stats, "loaded_model_sizes");
    assert_int_equal(json_object_size(sizes), 6);
    assert_true(lade_json_int(sizes, "sd-1:vae:m3", 0) > S_MB);
    json_decref(stats);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)
        TEST(test_a_model_is_read_once_and_then_found),
        TEST(test_the_least_recently_used_makes_room),
        TEST(test_pages_of_an_evicted_model_are_used_again),
        TEST(test_what_is_locked_is_never_evicted),
        TEST(test_a_model_larger_than_the_cache_is_refused),
        TEST(test_a_lease_is_unlocked_once_and_only_by_its_name),
        TEST(test_a_lease_that_is_named_is_renewed),
        TEST(test_unload_drops_what_is_not_locked),
        TEST(test_a_file_that_changed_is_read_again),
        TEST(test_files_that_are_gone_are_said),
        TEST(test_a_corrupt_file_leaves_nothing_behind),
        TEST(test_shards_and_empty_parts),
        TEST(test_many_who_ask_at_once_make_one_read),
        TEST(test_pages_never_change_under_a_lock),
        TEST(test_when_a_reading_is_stopped_another_goes_on),
        TEST(test_a_lock_for_no_process_is_refused_and_the_model_stays),
        TEST(test_statistics_count_what_happened),
    };
    lade_log_open("cache_test", LADE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
