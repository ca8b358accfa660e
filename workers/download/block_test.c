// The pool of blocks: its limit, its need, and what becomes of blocks that come back.
#include "workers/download/block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { S_LIMIT = 3, S_MORE = 5 };

static void
test_blocks_are_empty_and_aligned(void **state)
{
    (void)state;
    lade_blocks_t *pool = lade_blocks_new(S_LIMIT);
    lade_block_t *block = lade_blocks_get(pool, false);
    char *data = block->data;
    assert_int_equal((uintptr_t)data % LADE_BLOCK_ALIGN, 0);
    assert_int_equal(LADE_BLOCK_BYTES % LADE_BLOCK_ALIGN, 0);
    memset(data, 1, LADE_BLOCK_BYTES);
    block->len = block->flushed = 7;
    block->at = 8;
    block->hashed = true;
    lade_blocks_put(pool, block);
    block = lade_blocks_get(pool, false);
    assert_ptr_equal(block->data, data); // used again
    assert_int_equal(block->len + block->flushed, 0);
    assert_int_equal(block->at, 0);
    assert_false(block->hashed || block->writing || block->hashing);
    assert_null(block->next);
    lade_blocks_put(pool, block);
    lade_blocks_destroy(&pool);
    assert_null(pool);
    lade_blocks_destroy(&pool);
}

static void
test_the_limit_holds_but_for_need(void **state)
{
    (void)state;
    lade_blocks_t *pool = lade_blocks_new(S_LIMIT);
    lade_block_t *blocks[S_LIMIT + S_MORE];
    for (size_t i = 0; i < S_LIMIT; i++) {
        assert_false(lade_blocks_full(pool));
        assert_non_null(blocks[i] = lade_blocks_get(pool, false));
    }
    assert_true(lade_blocks_full(pool));
    assert_null(lade_blocks_get(pool, false));
    for (size_t i = S_LIMIT; i < S_LIMIT + S_MORE; i++)
        assert_non_null(blocks[i] = lade_blocks_get(pool, true));
    // What was lent beyond the limit is not kept: the limit is one of memory.
    for (size_t i = 0; i < S_MORE; i++) {
        lade_blocks_put(pool, blocks[i]);
        assert_true(lade_blocks_full(pool));
        assert_null(lade_blocks_get(pool, false));
    }
    lade_blocks_put(pool, blocks[S_MORE]);
    assert_false(lade_blocks_full(pool));
    for (size_t i = S_MORE + 1; i < S_LIMIT + S_MORE; i++)
        lade_blocks_put(pool, blocks[i]);
    for (size_t i = 0; i < S_LIMIT; i++)
        assert_non_null(blocks[i] = lade_blocks_get(pool, false));
    assert_null(lade_blocks_get(pool, false));
    for (size_t i = 0; i < S_LIMIT; i++)
        lade_blocks_put(pool, blocks[i]);
    lade_blocks_destroy(&pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_empty_and_aligned),
        cmocka_unit_test(test_the_limit_holds_but_for_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
