// The hash table and the heap against a plain model of them.
#include "broker/heap.h"
#include "broker/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { S_KEYS = 500, S_STEPS = 20000 };

static void
test_map_is_as_a_plain_table(void **state)
{
    (void)state;
    uint64_t keys[S_KEYS];
    bool in[S_KEYS] = {0};
    size_t size = 0;
    unsigned seed = 7;
    lade_map_t *map = lade_map_new();
    for (size_t i = 0; i < S_KEYS; i++)
        keys[i] = i * 0x100000001u;
    for (int step = 0; step < S_STEPS; step++) {
        size_t at = (size_t)rand_r(&seed) % S_KEYS;
        assert_ptr_equal(lade_map_get(map, &keys[at], 8), in[at] ? &keys[at] : NULL);
        if (in[at])
            assert_ptr_equal(lade_map_del(map, &keys[at], 8), &keys[at]);
        else
            lade_map_put(map, &keys[at], 8, &keys[at]);
        in[at] = !in[at];
        size += in[at] ? 1 : (size_t)-1;
        assert_int_equal(lade_map_size(map), size);
    }
    size_t at = 0, seen = 0;
    for (uint64_t *key; (key = lade_map_next(map, &at));) {
        assert_true(in[key - keys]);
        seen++;
    }
    assert_int_equal(seen, size);
    lade_map_destroy(&map);
    assert_null(map);
}

static void
test_map_takes_keys_of_any_length(void **state)
{
    (void)state;
    static const char *const keys[] = {"", "a", "ab", "abcdefg", "abcdefgh", "abcdefghi", "b"};
    lade_map_t *map = lade_map_new();
    for (size_t i = 0; i < 7; i++)
        lade_map_put(map, keys[i], strlen(keys[i]), (void *)keys[i]);
    for (size_t i = 0; i < 7; i++)
        assert_ptr_equal(lade_map_get(map, keys[i], strlen(keys[i])), keys[i]);
    assert_null(lade_map_get(map, "a\0", 2));
    assert_null(lade_map_del(map, "c", 1));
    lade_map_destroy(&map);
}

typedef struct {
    int value;
    uint32_t place;
} s_item_t;

static bool
s_less(const void *a, const void *b)
{
    return ((const s_item_t *)a)->value < ((const s_item_t *)b)->value;
}

static void
test_heap_gives_the_least_and_lets_any_go(void **state)
{
    (void)state;
    s_item_t items[S_KEYS] = {0};
    unsigned seed = 11;
    lade_heap_t heap = LADE_HEAP(s_item_t, place, s_less);
    assert_null(lade_heap_pop(&heap));
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < S_KEYS; i++) {
            items[i].value = rand_r(&seed) % 100;
            lade_heap_add(&heap, &items[i]);
        }
        size_t left = S_KEYS;
        for (size_t i = 0; i < S_KEYS; i += 3, left--) {
            lade_heap_del(&heap, &items[i]);
            lade_heap_del(&heap, &items[i]); // not in any more
        }
        int last = -1;
        for (s_item_t *item; (item = lade_heap_pop(&heap)); left--) {
            assert_true(item->value >= last);
            assert_int_equal(item->place, 0);
            last = item->value;
        }
        assert_int_equal(left, 0);
    }
    lade_heap_free(&heap);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_is_as_a_plain_table),
        cmocka_unit_test(test_map_takes_keys_of_any_length),
        cmocka_unit_test(test_heap_gives_the_least_and_lets_any_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
