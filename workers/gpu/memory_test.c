// Tests of the pool of regions: what is kept, what is reused, and that it never takes more than it
// may.
#include "workers/gpu/memory.h"

#include "workers/gpu/test_models.h"

#include <errno.h>
#include <sys/mman.h>

enum { S_KB = 1024, S_MB = 1024 * 1024 };

static lade_region_t *
s_get(lade_memory_t *memory, size_t bytes)
{
    lade_region_t *region = NULL;
    lade_error_t error;
    assert_int_equal(lade_memory_get(memory, bytes, &region, &error), LADE_OK);
    assert_true(region->size >= bytes);
    return region;
}

// Pages of the region that are there.
static size_t
s_resident(const lade_region_t *region)
{
    unsigned char *pages = malloc(region->size / 4096);
    size_t count = 0;
    assert_int_equal(mincore(region->bytes, region->size, pages), 0);
    for (size_t i = 0; i < region->size / 4096; i++)
        count += pages[i] & 1;
    free(pages);
    return count;
}

static void
test_pages_of_a_region_that_came_back_are_given_out_again(void **state)
{
    (void)state;
    lade_memory_t *memory = lade_memory_new(64 * S_MB, 64 * S_MB);
    lade_region_t *region = s_get(memory, 4 * S_MB), *was = region;
    uint64_t generation = region->generation;
    assert_int_equal(s_resident(region), 0);
    memset(region->bytes, 1, region->size);
    region->warm = region->size;
    lade_memory_put(memory, &region);
    assert_null(region);
    assert_int_equal(lade_memory_idle(memory), 4 * S_MB);
    region = s_get(memory, 4 * S_MB - 10 * S_KB);
    assert_ptr_equal(region, was);
    assert_true(region->generation != generation);
    assert_int_equal(s_resident(region), region->size / 4096);
    assert_int_equal(lade_memory_idle(memory), 0);
    lade_memory_put(memory, &region);
    lade_memory_destroy(&memory);
    assert_null(memory);
}

static void
test_the_best_fit_is_chosen(void **state)
{
    (void)state;
    lade_memory_t *memory = lade_memory_new(64 * S_MB, 64 * S_MB);
    lade_region_t *small = s_get(memory, 1 * S_MB), *middle = s_get(memory, 4 * S_MB),
                  *large = s_get(memory, 8 * S_MB);
    lade_region_t *const was_small = small, *const was_middle = middle, *const was_large = large;
    lade_memory_put(memory, &large);
    lade_memory_put(memory, &small);
    lade_memory_put(memory, &middle);
    lade_region_t *region = s_get(memory, 4 * S_MB - 4096);
    assert_ptr_equal(region, was_middle); // long enough, and the shortest such
    lade_memory_put(memory, &region);
    region = s_get(memory, 16 * S_MB); // none is long enough: the longest grows
    assert_ptr_equal(region, was_large);
    assert_int_equal(region->size, 16 * S_MB);
    memset(region->bytes, 2, region->size);
    lade_memory_put(memory, &region);
    region =
        s_get(memory, 2 * S_MB + 4096); // rather one a little too long, cut, than to waste sixteen
    assert_ptr_equal(region, was_middle);
    assert_int_equal(region->size, 2 * S_MB + 4096);
    lade_memory_put(memory, &region);
    region = s_get(memory, 512 * S_KB);
    assert_ptr_equal(region, was_small);
    lade_memory_put(memory, &region);
    lade_memory_destroy(&memory);
}

static void
test_a_grown_region_keeps_its_pages(void **state)
{
    (void)state;
    lade_memory_t *memory = lade_memory_new(64 * S_MB, 64 * S_MB);
    lade_region_t *region = s_get(memory, 2 * S_MB);
    memset(region->bytes, 3, region->size);
    region->warm = region->size;
    lade_memory_put(memory, &region);
    region = s_get(memory, 6 * S_MB);
    assert_int_equal(region->warm, 2 * S_MB);
    assert_int_equal(s_resident(region), 2 * S_MB / 4096);
    assert_int_equal(region->bytes[S_MB], 3);
    region->bytes[region->size - 1] = 4; // the rest can be written as well
    lade_memory_put(memory, &region);
    lade_memory_destroy(&memory);
}

static void
test_a_region_cut_short_gives_its_pages_back(void **state)
{
    (void)state;
    lade_memory_t *memory = lade_memory_new(8 * S_MB, 8 * S_MB);
    lade_region_t *region = s_get(memory, 8 * S_MB), *was = region;
    memset(region->bytes, 3, region->size);
    region->warm = region->size;
    lade_memory_put(memory, &region);
    region = s_get(memory, 1 * S_MB); // there is no room for a fresh one beside it
    assert_ptr_equal(region, was);
    assert_int_equal(region->size, S_MB);
    assert_int_equal(region->warm, S_MB);
    struct stat status;
    assert_int_equal(fstat(region->fd, &status), 0);
    assert_int_equal(status.st_size, S_MB);
    assert_int_equal(status.st_blocks, S_MB / 512);
    lade_memory_put(memory, &region);
    lade_memory_destroy(&memory);
}

static void
test_kept_and_given_never_take_more_than_allowed(void **state)
{
    (void)state;
    lade_memory_t *memory = lade_memory_new(8 * S_MB, 4 * S_MB);
    lade_region_t *regions[8];
    for (size_t i = 0; i < 8; i++)
        regions[i] = s_get(memory, S_MB);
    for (size_t i = 0; i < 8; i++)
        lade_memory_put(memory, &regions[i]);
    assert_int_equal(lade_memory_idle(memory), 4 * S_MB);
    lade_region_t *region = s_get(memory, 6 * S_MB);
    assert_true(lade_memory_idle(memory) <= 2 * S_MB);
    lade_memory_put(memory, &region);
    assert_true(lade_memory_idle(memory) <= 4 * S_MB);
    lade_memory_destroy(&memory);
}

static void
test_readers_cannot_write(void **state)
{
    (void)state;
    lade_memory_t *memory = lade_memory_new(8 * S_MB, 8 * S_MB);
    lade_region_t *region = s_get(memory, S_MB);
    region->bytes[0] = 42;
    assert_true(mmap(NULL, S_MB, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd, 0) == MAP_FAILED);
    assert_true(write(region->fd, "x", 1) < 0);
    assert_true(ftruncate(region->fd, 0) < 0);
    void *view = mmap(NULL, S_MB, PROT_READ, MAP_SHARED, region->fd, 0);
    assert_true(view != MAP_FAILED);
    assert_true(mprotect(view, S_MB, PROT_READ | PROT_WRITE) < 0);
    assert_int_equal(*(uint8_t *)view, 42);
    munmap(view, S_MB);
    struct stat status;
    fstat(region->fd, &status);
    assert_int_equal(status.st_mode & 0777, 0400);
    // Even who may open it for writing (root may) can neither write nor map it so.
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", region->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        assert_true(write(fd, "x", 1) < 0);
        assert_true(mmap(NULL, S_MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
        close(fd);
    }
    lade_memory_put(memory, &region);
    lade_memory_destroy(&memory);
}

static void
test_touching_makes_pages(void **state)
{
    (void)state;
    lade_memory_t *memory = lade_memory_new(8 * S_MB, 8 * S_MB);
    lade_region_t *region = s_get(memory, S_MB);
    assert_int_equal(lade_memory_touch(region, 10000, NULL), LADE_OK);
    assert_true(s_resident(region) >= 3);
    lade_memory_put(memory, &region);
    lade_error_t error;
    assert_int_equal(lade_memory_get(memory, 0, &region, &error), LADE_NO_MEMORY);
    assert_int_equal(lade_memory_get(memory, SIZE_MAX, &region, &error), LADE_NO_MEMORY);
    assert_int_equal(lade_memory_get(memory, SIZE_MAX / 8, &region, &error), LADE_NO_MEMORY);
    assert_int_equal(lade_memory_idle(memory), 0); // all kept pages went in the attempt
    lade_memory_destroy(&memory);
}

static void
test_the_machine_has_memory(void **state)
{
    (void)state;
    size_t bytes = lade_memory_machine_bytes();
    assert_true(bytes > 16 * S_MB);
    assert_true(bytes <= (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE));
}

// ---------------------------------------------------------------------------------------------------
// Huge pages

static bool
s_pages_are(const char *pages)
{
    json_t *stats = lade_memory_stats();
    bool are = !strcmp(json_string_value(json_object_get(stats, "pages")), pages);
    const char *why = json_string_value(json_object_get(stats, "why"));
    if (!strcmp(pages, "plain"))
        assert_non_null(why);
    json_decref(stats);
    return are;
}

static void
test_without_huge_pages_it_says_why(void **state)
{
    (void)state;
    assert_int_equal(lade_memory_choose("off", NULL), LADE_OK);
    assert_true(s_pages_are("plain"));
    lade_memory_t *memory = lade_memory_new(64 * S_MB, 64 * S_MB);
    lade_region_t *region = s_get(memory, 4 * S_MB);
    assert_false(region->fixed);
    lade_memory_put(memory, &region);
    lade_memory_destroy(&memory);
    assert_int_equal(lade_memory_choose("large", NULL), LADE_CONFIG_ERROR);
}

// Where an operator reserved some (sysctl vm.nr_hugepages=16), regions are of those, whole ones,
// for as long as there are any; readers map them like others.
static void
test_reserved_huge_pages_are_used_and_given_back(void **state)
{
    (void)state;
    assert_int_equal(lade_memory_choose("auto", NULL), LADE_OK);
    if (!s_pages_are("reserved")) {
        assert_int_equal(lade_memory_choose("off", NULL), LADE_OK);
        skip();
    }
    lade_memory_t *memory = lade_memory_new(1024 * (size_t)S_MB, 64 * S_MB);
    lade_region_t *region = s_get(memory, 4 * S_MB + 1), *was = region, *more[64];
    assert_true(region->fixed);
    assert_int_equal(region->size, 6 * S_MB);
    memset(region->bytes, 7, region->size);
    const uint8_t *read = mmap(NULL, region->size, PROT_READ, MAP_SHARED, region->fd, 0);
    assert_true(read != MAP_FAILED && read[6 * S_MB - 1] == 7);
    munmap((void *)read, region->size);
    assert_true(mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED, region->own_fd, 0) ==
                MAP_FAILED);
    lade_memory_put(memory, &region);
    region = s_get(memory, 3 * S_MB); // as it is: it has one size
    assert_ptr_equal(region, was);
    assert_int_equal(region->size, 6 * S_MB);
    size_t count = 0;
    do // till there are no more: then plain ones
        more[count++] = s_get(memory, 16 * S_MB);
    while (more[count - 1]->fixed && count < 64);
    assert_false(more[count - 1]->fixed);
    while (count)
        lade_memory_put(memory, &more[--count]);
    lade_memory_put(memory, &region);
    lade_memory_destroy(&memory);
    json_t *stats = lade_memory_stats();
    assert_int_equal(json_integer_value(json_object_get(stats, "reserved_bytes")), 0);
    assert_non_null(json_string_value(json_object_get(stats, "why")));
    json_decref(stats);
    assert_int_equal(lade_memory_choose("off", NULL), LADE_OK);
}

// What outlived its maker is read, not written, and never given to another.
static void
test_a_region_of_another_process_is_only_read(void **state)
{
    (void)state;
    lade_memory_t *first = lade_memory_new(64 * S_MB, 64 * S_MB),
                  *second = lade_memory_new(64 * S_MB, 64 * S_MB);
    lade_region_t *made = s_get(first, S_MB), *adopted = NULL;
    lade_error_t error = {0};
    memset(made->bytes, 5, S_MB);
    int fd = fcntl(made->fd, F_DUPFD_CLOEXEC, 0);
    assert_int_equal(lade_memory_adopt(second, fd, 2 * S_MB, 40, &adopted, &error), LADE_CORRUPT);
    assert_int_equal(lade_memory_adopt(second, fd, S_MB, 40, &adopted, &error), LADE_OK);
    lade_memory_put(first, &made);
    lade_memory_destroy(&first); // its maker is gone
    assert_int_equal(adopted->bytes[S_MB - 1], 5);
    assert_int_equal(adopted->generation, 40);
    assert_int_equal(mprotect(adopted->bytes, 4096, PROT_READ | PROT_WRITE), -1);
    lade_region_t *next = s_get(second, S_MB);
    assert_int_equal(next->generation, 41);
    lade_memory_put(second, &next);
    lade_memory_put(second, &adopted);
    assert_int_equal(lade_memory_idle(second), S_MB);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    lade_memory_destroy(&second);
}

int
main(void)
{
    lade_memory_choose("off", NULL); // sizes and pages are counted: the same ones on every machine
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_of_a_region_that_came_back_are_given_out_again),
        cmocka_unit_test(test_the_best_fit_is_chosen),
        cmocka_unit_test(test_a_grown_region_keeps_its_pages),
        cmocka_unit_test(test_a_region_cut_short_gives_its_pages_back),
        cmocka_unit_test(test_kept_and_given_never_take_more_than_allowed),
        cmocka_unit_test(test_readers_cannot_write),
        cmocka_unit_test(test_touching_makes_pages),
        cmocka_unit_test(test_the_machine_has_memory),
        cmocka_unit_test(test_without_huge_pages_it_says_why),
        cmocka_unit_test(test_reserved_huge_pages_are_used_and_given_back),
        cmocka_unit_test(test_a_region_of_another_process_is_only_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
