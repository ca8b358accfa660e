// Tests of models on devices, against devices that are host memory with a small capacity: room,
// locks, demotion and promotion, what others see, and what is said when there is no device.
#include "common/segment.h"
#include "common/wire.h"
#include "workers/gpu/cache.h"
#include "workers/gpu/fake_backend.h"
#include "workers/gpu/test_models.h"

#include <pthread.h>

enum { S_MB = 1 << 20, S_PATIENCE_MS = 30000 };

typedef struct {
    char *folder;
    lade_cache_t *cache;
    lade_attach_t *attach;
} s_world_t;

static lade_cache_t *
s_cache(const char *folder, size_t host_limit)
{
    lade_error_t error = {0};
    lade_cache_options_t options = {.name = "gpu@here:1-x",
                                    .models_dir = folder,
                                    .limit = host_limit,
                                    .threads = 2,
                                    .rows = lade_loaders_host,
                                    .check = true,
                                    .vram = lade_vram_new_of(&fake_backend, 17 * S_MB, S_MB)};
    lade_cache_t *cache;
    if (lade_cache_new(&options, &cache, &error))
        fail_msg("%s", error.message);
    return cache;
}

// Models "m0" … "m7" of 4 MiB and a large one of 10 MiB; devices of 16 MiB, of which 1 is kept
// free.
static int
s_setup(void **state)
{
    s_world_t *world = calloc(1, sizeof *world);
    if (test_folder_new((void **)&world->folder))
        return -1;
    for (unsigned i = 0; i < 8; i++) {
        char name[40];
        snprintf(name, sizeof name, "m%u.safetensors", i);
        free(test_model(world->folder, name, "w", 4 * S_MB, i));
    }
    free(test_model(world->folder, "m8.safetensors", "w", 10 * S_MB, 8));
    free(test_model(world->folder, "m9.safetensors", "w", 15 * S_MB + 8192, 9));
    atomic_store(&fake_others, 0);
    atomic_store(&fake_is_lost, false);
    world->cache = s_cache(world->folder, 64 * S_MB);
    *state = world;
    return 0;
}

static int
s_teardown(void **state)
{
    s_world_t *world = *state;
    lade_attach_destroy(&world->attach);
    lade_cache_destroy(&world->cache);
    assert_int_equal(atomic_load(&fake_opened), 0);
    test_folder_remove((void **)&world->folder);
    free(world);
    return 0;
}

static lade_code_t
s_try(s_world_t *world, unsigned which, const char *device, const char *dtype, bool lock,
      lade_cache_answer_t *answer, lade_error_t *error)
{
    char key[20], file[40];
    snprintf(key, sizeof key, "m%u", which);
    snprintf(file, sizeof file, "m%u.safetensors", which);
    json_t *record = test_record(key, "vae", "checkpoint", file);
    lade_cache_request_t request = {.record = record, .key = key, .lock = lock};
    assert_int_equal(lade_want_read(dtype, NULL, device, &request.want, error), LADE_OK);
    lade_code_t code = lade_cache_load(world->cache, &request, answer, error);
    json_decref(record);
    return code;
}

static lade_cache_answer_t
s_load(s_world_t *world, unsigned which, const char *device, bool lock)
{
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    if (s_try(world, which, device, NULL, lock, &answer, &error))
        fail_msg("%s", error.message);
    return answer;
}

// A number of the device's part of the statistics.
static int64_t
s_stat(s_world_t *world, size_t device, const char *what)
{
    json_t *stats = lade_cache_stats(world->cache);
    int64_t value =
        lade_json_int(json_array_get(json_object_get(stats, "devices"), device), what, -1);
    json_decref(stats);
    return value;
}

static bool
s_holds(s_world_t *world, unsigned which, const char *device)
{
    json_t *stats = lade_cache_stats(world->cache), *model;
    char key[20];
    size_t i;
    bool found = false;
    snprintf(key, sizeof key, "m%u", which);
    json_array_foreach(json_object_get(stats, "models"), i, model) found =
        found || (!strcmp(lade_json_text(model, "key", ""), key) &&
                  !strcmp(lade_json_text(model, "device", ""), device));
    json_decref(stats);
    return found;
}

// As another process: by the socket, then where the data is shared.
static lade_segment_t *
s_attach(s_world_t *world, const lade_cache_answer_t *answer)
{
    lade_error_t error = {0};
    lade_segment_t *segment;
    if (!world->attach && lade_attach_new(world->folder, &lade_cache_attach_ops, world->cache,
                                          &world->attach, &error))
        fail_msg("%s", error.message);
    lade_import_t import;
    if (lade_segment_attach(lade_attach_path(world->attach), answer->lease, S_PATIENCE_MS, &segment,
                            &error) ||
        lade_segment_import(segment, &import, &error))
        fail_msg("%s", error.message);
    assert_int_equal(lade_segment_generation(segment), answer->id);
    return segment;
}

static const void *
s_at(lade_segment_t *segment, const char *name, size_t *size_p)
{
    const lade_tensor_t *tensor = lade_segment_find(segment, name);
    assert_non_null(tensor);
    *size_p = tensor->size;
    return (const void *)(uintptr_t)lade_segment_address(segment, tensor);
}

static void
s_assert_right(s_world_t *world, const lade_cache_answer_t *answer, unsigned seed)
{
    lade_segment_t *segment = s_attach(world, answer);
    size_t a_size, b_size;
    const uint8_t *a = s_at(segment, "w.a", &a_size), *b = s_at(segment, "w.b", &b_size);
    for (size_t i = 0; i < a_size; i++)
        if (a[i] != test_byte(i, seed))
            fail_msg("byte %zu of w.a", i);
    for (size_t i = 0; i < b_size; i++)
        if (b[i] != test_byte(a_size + i, seed))
            fail_msg("byte %zu of w.b", i);
    lade_segment_close(&segment);
}

// ---------------------------------------------------------------------------------------------------

static void
test_a_model_on_a_device_is_seen_by_others(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer = s_load(world, 3, "cuda:1", true);
    assert_string_equal(answer.path, "");
    assert_true(answer.bytes > 4 * S_MB);
    lade_cache_answer_t again = s_load(world, 3, "cuda:1", true);
    assert_int_equal(again.id, answer.id);
    s_assert_right(world, &answer, 3);
    lade_segment_t *segment = s_attach(world, &again);
    assert_null(lade_segment_data(segment, lade_segment_get(segment, 0)));
    lade_segment_close(&segment);
    assert_int_equal(s_stat(world, 1, "bytes"), 4 * S_MB + 4096);
    assert_int_equal(s_stat(world, 0, "bytes"), 0);
    lade_error_t error = {0};
    assert_int_equal(s_try(world, 3, "cuda:7", NULL, false, &again, &error), LADE_NO_VRAM);
    assert_non_null(strstr(error.message, "cuda:7"));
    assert_non_null(strstr(error.message, "cuda:1"));
}

// What a device makes of a file and what the host makes of it are the same bytes.
static void
s_assert_same_as_host(s_world_t *world, const char *key, const char *file, const char *dtype,
                      const char *layout)
{
    lade_segment_t *segments[2];
    lade_error_t error = {0};
    json_t *record = test_record(key, "vae", "checkpoint", file);
    for (size_t i = 0; i < 2; i++) {
        lade_cache_answer_t answer;
        lade_cache_request_t request = {.record = record, .key = key, .lock = true};
        assert_int_equal(lade_want_read(dtype, layout, i ? "cpu" : "cuda:0", &request.want, &error),
                         LADE_OK);
        if (lade_cache_load(world->cache, &request, &answer, &error))
            fail_msg("%s", error.message);
        segments[i] = s_attach(world, &answer);
    }
    json_decref(record);
    assert_int_equal(lade_segment_count(segments[0]), lade_segment_count(segments[1]));
    for (size_t i = 0; i < lade_segment_count(segments[0]); i++) {
        const lade_tensor_t *tensor = lade_segment_get(segments[0], i);
        size_t size, host_size;
        const void *here = s_at(segments[0], tensor->name, &size);
        const void *there = s_at(segments[1], tensor->name, &host_size);
        assert_int_equal(size, host_size);
        assert_int_equal(tensor->dtype, lade_segment_get(segments[1], i)->dtype);
        assert_memory_equal(here, there, size);
    }
    for (size_t i = 0; i < 2; i++)
        lade_segment_close(&segments[i]);
}

// A convolution, a bias, integers, doubles: the last only the host can cast.
static void
s_write_mixed(const char *folder, const char *name, bool doubles)
{
    char header[1000], path[400];
    int len = snprintf(header, sizeof header,
                       "{\"conv.weight\":{\"dtype\":\"F32\",\"shape\":[8,5,3,3],\"data_offsets\":"
                       "[0,1440]},\"conv.bias\":{\"dtype\":\"F16\",\"shape\":[9],\"data_offsets\":"
                       "[1440,1458]},\"ids\":{\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":"
                       "[1458,1470]},\"last\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":"
                       "[1470,%d]}}",
                       doubles ? "F64" : "BF16", doubles ? 1502 : 1478);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "we");
    uint64_t prefix = (uint64_t)len;
    float numbers[400];
    for (size_t i = 0; i < 400; i++)
        numbers[i] = (float)(int)(i * 37 % 101) * 0.0213f - 1.05f;
    assert_true(out && fwrite(&prefix, 8, 1, out) == 1 && fwrite(header, (size_t)len, 1, out) == 1);
    assert_int_equal(fwrite(numbers, 1, doubles ? 1502 : 1478, out), doubles ? 1502 : 1478);
    assert_int_equal(fclose(out), 0);
}

static void
test_casts_are_those_of_the_host(void **state)
{
    s_world_t *world = *state;
    static const char *const dtypes[] = {"stored", "fp32", "fp16", "bf16"};
    static const char *const layouts[] = {"stored", "channels_last"};
    for (int doubles = 0; doubles < 2; doubles++) {
        const char *name = doubles ? "d.safetensors" : "f.safetensors";
        s_write_mixed(world->folder, name, doubles);
        for (size_t d = 0; d < 4; d++)
            for (size_t l = 0; l < 2; l++)
                s_assert_same_as_host(world, doubles ? "d" : "f", name, dtypes[d], layouts[l]);
    }
    assert_true(s_stat(world, 0, "promotions") >
                0); // what only the host could cast came from there
}

static void
test_room_is_made_by_least_recent_use(void **state)
{
    s_world_t *world = *state;
    for (unsigned i = 0; i < 3; i++)
        s_load(world, i, "cuda:0", false);
    s_load(world, 0, "cuda:0", false); // 1 is the least recently used now
    s_load(world, 3, "cuda:0", false);
    assert_true(s_holds(world, 0, "cuda:0"));
    assert_false(s_holds(world, 1, "cuda:0"));
    assert_true(s_holds(world, 2, "cuda:0"));
    assert_int_equal(s_stat(world, 0, "evictions"), 1);
    assert_true(s_stat(world, 0, "bytes") <= s_stat(world, 0, "limit_bytes"));
    assert_int_equal(s_stat(world, 1, "evictions"), 0); // the other device is none of that
}

static void
test_what_is_locked_stays(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answers[3], refused;
    lade_error_t error = {0};
    for (unsigned i = 0; i < 3; i++)
        answers[i] = s_load(world, i, "cuda:0", true);
    assert_int_equal(s_try(world, 3, "cuda:0", NULL, false, &refused, &error), LADE_NO_VRAM);
    assert_non_null(strstr(error.message, "4198400"));  // what it takes,
    assert_non_null(strstr(error.message, "15728640")); // of how much,
    assert_non_null(strstr(error.message, "12595200")); // locked by others
    assert_int_equal(s_stat(world, 0, "evictions"), 0);
    for (unsigned i = 0; i < 3; i++)
        s_assert_right(world, &answers[i], i);
    s_load(world, 3, "cuda:1", false); // another device has room
    // Those were attached, so the leases are over with their connections; the next load has room.
    for (unsigned i = 0; i < 3; i++)
        lade_cache_unlock(world->cache, answers[i].lease);
    lade_cache_answer_t last = s_load(world, 3, "cuda:0", true);
    s_assert_right(world, &last, 3);
}

static void
test_a_model_larger_than_the_device(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t refused;
    lade_error_t error = {0};
    s_load(world, 0, "cuda:0", false);
    assert_int_equal(s_try(world, 9, "cuda:0", NULL, false, &refused, &error), LADE_NO_VRAM);
    assert_non_null(strstr(error.message, "15740928"));
    assert_non_null(strstr(error.message, "15728640"));
    assert_non_null(strstr(error.message, "load.vram_mb"));
    assert_true(s_holds(world, 0, "cuda:0")); // nothing went in vain
    s_load(world, 9, "cpu", false);
}

// Where a large one has to go the small one before it stays.
static void
test_no_more_goes_than_has_to(void **state)
{
    s_world_t *world = *state;
    s_load(world, 0, "cuda:0", false);
    s_load(world, 8, "cuda:0", false);
    s_load(world, 1, "cuda:0", false); // 4 more: 0 alone is enough
    assert_false(s_holds(world, 0, "cuda:0"));
    assert_true(s_holds(world, 8, "cuda:0"));
    s_load(world, 8, "cuda:0", false); // 1 is now the least recently used, and not enough
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    free(test_model(world->folder, "m7.safetensors", "w", 9 * S_MB, 7));
    assert_int_equal(s_try(world, 7, "cuda:0", NULL, false, &answer, &error), LADE_OK);
    assert_true(s_holds(world, 1, "cuda:0"));
    assert_false(s_holds(world, 8, "cuda:0"));
}

static void
test_what_leaves_a_device_waits_in_host_memory(void **state)
{
    s_world_t *world = *state;
    for (unsigned i = 0; i < 4; i++)
        s_load(world, i, "cuda:0", false);
    assert_true(s_holds(world, 0, "cpu"));
    assert_int_equal(s_stat(world, 0, "demotions"), 1);
    lade_cache_answer_t host = s_load(world, 0, "cpu", true); // as good as any other there
    s_assert_right(world, &host, 0);
    lade_cache_answer_t back = s_load(world, 0, "cuda:0", true);
    assert_int_equal(s_stat(world, 0, "promotions"), 1);
    s_assert_right(world, &back, 0);
    assert_int_equal(s_stat(world, 0, "demotions"), 2);
    // Its file changed: neither copy is it any more.
    free(test_model(world->folder, "m1.safetensors", "w", 4 * S_MB, 77));
    lade_cache_answer_t changed = s_load(world, 1, "cuda:0", true);
    s_assert_right(world, &changed, 77);
    // Unloaded is gone, not moved.
    size_t before = (size_t)s_stat(world, 0, "demotions");
    lade_cache_unload(world->cache, NULL, NULL);
    assert_int_equal(s_stat(world, 0, "demotions"), before);
}

static void
test_nothing_goes_for_a_demotion(void **state)
{
    s_world_t *world = *state;
    lade_cache_destroy(&world->cache);
    world->cache = s_cache(world->folder, 5 * S_MB);
    lade_cache_answer_t host = s_load(world, 7, "cpu", false);
    for (unsigned i = 0; i < 4; i++)
        s_load(world, i, "cuda:0", false);
    assert_true(s_holds(world, 7, "cpu"));
    assert_false(s_holds(world, 0, "cpu"));
    assert_int_equal(s_stat(world, 0, "demotions"), 0);
    assert_true(host.bytes > 0);
}

// Other programs take of the device's memory, which is on no account of ours.
static void
test_room_that_others_took(void **state)
{
    s_world_t *world = *state;
    for (unsigned i = 0; i < 3; i++)
        s_load(world, i, "cuda:0", false);
    atomic_store(&fake_others, 4 * S_MB);
    lade_cache_unload(world->cache, "m0", NULL);
    lade_cache_answer_t held = s_load(world, 3, "cuda:0", true); // by its limit it fits; 1 goes
    assert_false(s_holds(world, 1, "cuda:0"));
    s_assert_right(world, &held, 3);
    lade_cache_answer_t locked = s_load(world, 2, "cuda:0", true), refused;
    lade_error_t error = {0};
    atomic_store(&fake_others, 16 * S_MB);
    lade_cache_unload(world->cache, NULL, NULL);
    assert_int_equal(s_try(world, 4, "cuda:0", NULL, false, &refused, &error), LADE_NO_VRAM);
    assert_non_null(strstr(error.message, "4198400"));
    assert_true(locked.bytes > 0);
    s_load(world, 4, "cpu", false);
}

static void
test_a_lost_device_takes_nothing_with_it(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    s_load(world, 0, "cuda:0", true);
    atomic_store(&fake_is_lost, true);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(s_try(world, i, "cuda:0", NULL, true, &answer, &error), LADE_IO_ERROR);
    assert_non_null(strstr(error.message, "lost"));
    json_t *stats = lade_cache_stats(world->cache);
    assert_true(json_is_true(
        json_object_get(json_array_get(json_object_get(stats, "devices"), 0), "lost")));
    json_decref(stats);
    lade_cache_answer_t host = s_load(world, 1, "cpu", true);
    s_assert_right(world, &host, 1);
}

// Lost while it copies.
static void
test_a_device_lost_on_the_way(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    char file[400];
    snprintf(file, sizeof file, "%s/lost", world->folder);
    s_load(world, 0, "cuda:0", false);
    setenv("LADE_FAKE_LOST", file, 1);
    test_text_file(world->folder, "lost", "");
    assert_int_equal(s_try(world, 1, "cuda:0", NULL, false, &answer, &error), LADE_IO_ERROR);
    unsetenv("LADE_FAKE_LOST");
    assert_int_equal(s_stat(world, 0, "bytes"), 4 * S_MB + 4096); // what failed takes nothing
}

// What a process of its own would find.
static atomic_bool s_device_works;
static atomic_int s_questions;

static bool
s_probe(const char *device, char *why, size_t size)
{
    assert_string_equal(device, "cuda:0");
    atomic_fetch_add(&s_questions, 1);
    snprintf(why, size, "the fan stands still");
    return atomic_load(&s_device_works);
}

// Who asks for it has it looked for, now and then; and when it is back the worker may start anew,
// as soon as nobody holds what would be gone.
static void
test_a_lost_device_is_asked_for_again(void **state)
{
    for (unsigned works = 0; works < 2; works++) {
        s_world_t *world = *state;
        lade_cache_answer_t answer;
        lade_error_t error = {0};
        lade_cache_destroy(&world->cache);
        lade_vram_t *vram = lade_vram_new_of(&fake_backend, 17 * S_MB, S_MB);
        lade_cache_options_t options = {.name = "gpu@here:1-x",
                                        .models_dir = world->folder,
                                        .limit = 64 * S_MB,
                                        .threads = 2,
                                        .rows = lade_loaders_host,
                                        .vram = vram};
        assert_int_equal(lade_cache_new(&options, &world->cache, &error), LADE_OK);
        lade_vram_set_probe(vram, s_probe);
        atomic_store(&s_questions, 0);
        atomic_store(&s_device_works, works);
        s_load(world, 0, "cuda:0", false);
        lade_cache_answer_t held = s_load(world, 0, "cpu", true);
        assert_false(lade_cache_can_leave(world->cache));
        atomic_store(&fake_is_lost, true);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(s_try(world, i, "cuda:0", NULL, true, &answer, &error), LADE_IO_ERROR);
        assert_int_equal(atomic_load(&s_questions), 1);
        assert_non_null(strstr(error.message, works ? "is back" : "cuda:0 is lost"));
        assert_int_equal(lade_vram_is_back(vram), works);
        assert_true(lade_cache_unlock(world->cache, held.lease));
        assert_true(lade_cache_can_leave(world->cache));
        atomic_store(&fake_is_lost, false);
    }
}

static void
test_no_device(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer;
    lade_error_t error = {0};
    lade_cache_destroy(&world->cache);
    setenv("LADE_FAKE_DEVICES", "0", 1);
    world->cache = s_cache(world->folder, 64 * S_MB);
    unsetenv("LADE_FAKE_DEVICES");
    assert_int_equal(s_try(world, 0, "cuda:0", NULL, true, &answer, &error), LADE_NO_VRAM);
    assert_non_null(strstr(error.message, "the fake driver sees no device"));
    json_t *stats = lade_cache_stats(world->cache);
    assert_string_equal(lade_json_text(stats, "no_device", ""), "the fake driver sees no device");
    json_decref(stats);
    lade_cache_answer_t host = s_load(world, 0, "cpu", true);
    s_assert_right(world, &host, 0);
}

// Eight clients at random, on both devices and the host, three of whose models fit at a time: what
// each has locked is right and stays, whatever the others do.
enum { S_CLIENTS = 8, S_STEPS = 40 };

typedef struct {
    s_world_t *world;
    unsigned seed, loads, refusals;
} s_client_t;

// True if the few bytes looked at are those of the model.
static bool
s_looks_right(s_world_t *world, const lade_cache_answer_t *answer, unsigned which)
{
    lade_segment_t *segment;
    lade_import_t import;
    if (lade_segment_attach(lade_attach_path(world->attach), answer->lease, S_PATIENCE_MS, &segment,
                            NULL))
        return false;
    bool right = !lade_segment_import(segment, &import, NULL);
    const lade_tensor_t *tensor = lade_segment_find(segment, "w.a");
    const uint8_t *bytes =
        (const void *)(uintptr_t)(tensor ? lade_segment_address(segment, tensor) : 0);
    for (size_t i = 0; right && i < 2 * S_MB; i += 4099)
        right = bytes && bytes[i] == test_byte(i, which);
    lade_segment_close(&segment);
    return right;
}

static void *
s_client(void *arg)
{
    static const char *const devices[] = {"cuda:0", "cuda:1", "cpu"};
    s_client_t *client = arg;
    for (unsigned step = 0; step < S_STEPS; step++) {
        client->seed = client->seed * 1103515245u + 12345u;
        unsigned which = client->seed >> 16 & 7, where = (client->seed >> 20) % 3;
        lade_cache_answer_t answer;
        lade_error_t error = {0};
        if (client->seed >> 24 & 1)
            lade_cache_unload(client->world->cache, NULL, NULL);
        lade_code_t code = s_try(client->world, which, devices[where], NULL, true, &answer, &error);
        if (code == LADE_NO_VRAM || code == LADE_NO_MEMORY) {
            client->refusals++;
            continue;
        }
        if (code || !s_looks_right(client->world, &answer, which)) {
            fprintf(stderr, "m%u on %s: %s\n", which, devices[where], error.message);
            return client;
        }
        client->loads++;
    }
    return NULL;
}

static void
test_many_clients(void **state)
{
    s_world_t *world = *state;
    pthread_t threads[S_CLIENTS];
    s_client_t clients[S_CLIENTS];
    lade_error_t error = {0};
    unsigned loads = 0;
    assert_int_equal(lade_attach_new(world->folder, &lade_cache_attach_ops, world->cache,
                                     &world->attach, &error),
                     LADE_OK);
    for (unsigned i = 0; i < S_CLIENTS; i++) {
        clients[i] = (s_client_t){.world = world, .seed = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, s_client, &clients[i]), 0);
    }
    for (unsigned i = 0; i < S_CLIENTS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
        loads += clients[i].loads;
    }
    assert_true(loads > S_CLIENTS * S_STEPS / 4);
    int64_t leases = 1; // connections that were closed are noticed by the attach server's thread
    for (int64_t until = lade_mono_ms() + S_PATIENCE_MS; leases && lade_mono_ms() < until;) {
        json_t *stats = lade_cache_stats(world->cache);
        leases = lade_json_int(stats, "leases", -1);
        json_decref(stats);
    }
    assert_int_equal(leases, 0);
    lade_cache_unload(world->cache, NULL, NULL);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(s_stat(world, i, "bytes"), 0);
}

int
main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_a_model_on_a_device_is_seen_by_others),
        CASE(test_casts_are_those_of_the_host),
        CASE(test_room_is_made_by_least_recent_use),
        CASE(test_what_is_locked_stays),
        CASE(test_a_model_larger_than_the_device),
        CASE(test_no_more_goes_than_has_to),
        CASE(test_what_leaves_a_device_waits_in_host_memory),
        CASE(test_nothing_goes_for_a_demotion),
        CASE(test_room_that_others_took),
        CASE(test_a_lost_device_takes_nothing_with_it),
        CASE(test_a_device_lost_on_the_way),
        CASE(test_a_lost_device_is_asked_for_again),
        CASE(test_no_device),
        CASE(test_many_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
