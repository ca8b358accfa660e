// Tests of parallel reads: every byte in its place, whatever the cuts, and a stop that stops.
#include "workers/gpu/reader.h"

#include "workers/gpu/test_models.h"

#include <errno.h>
#include <sys/mman.h>

enum { S_MB = 1024 * 1024, S_PIECE = 8 * S_MB };

static int
s_file(const char *folder, const char *name, size_t bytes, unsigned seed)
{
    char *path = lade_path_join(folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    uint8_t *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(data != MAP_FAILED);
    for (size_t i = 0; i < bytes; i++)
        data[i] = test_byte(i, seed);
    munmap(data, bytes);
    free(path);
    return fd;
}

static uint8_t *
s_fresh(size_t bytes)
{
    uint8_t *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(to != MAP_FAILED);
    return to;
}

static void
s_assert_part(const lade_reader_part_t *part, unsigned seed)
{
    for (uint64_t i = 0; i < part->len; i++)
        if (part->to[i] != test_byte(part->from + i, seed))
            fail_msg("byte %llu of %s is wrong", (unsigned long long)i, part->name);
}

static void
test_parts_of_several_files_are_read_whole(void **state)
{
    enum { S_BIG = 3 * S_PIECE + 12345, S_SMALL = 777 };
    int big = s_file(*state, "big", S_BIG, 1), small = s_file(*state, "small", S_SMALL, 2);
    for (size_t threads = 1; threads <= 8; threads += 3) {
        uint8_t *to = s_fresh(S_BIG + 3 * 4096);
        const lade_reader_part_t parts[] = {
            {big, "big", 4096, S_BIG - 4096 - 5, to, 0},
            {small, "nothing", 0, 0, to, 0},
            {small, "small", 3, S_SMALL - 3, to + S_BIG + 100, 0},
        };
        assert_int_equal(lade_reader_read(parts, 3, threads, NULL, NULL, NULL), LADE_OK);
        s_assert_part(&parts[0], 1);
        s_assert_part(&parts[2], 2);
        munmap(to, S_BIG + 3 * 4096);
    }
    close(big);
    close(small);
}

static void
test_nothing_to_read_is_done_at_once(void **state)
{
    (void)state;
    assert_int_equal(lade_reader_read(NULL, 0, 4, NULL, NULL, NULL), LADE_OK);
}

static void
test_a_file_that_ends_early_is_said(void **state)
{
    int fd = s_file(*state, "short", 5000, 1);
    uint8_t *to = s_fresh(10000);
    const lade_reader_part_t part = {fd, "short", 0, 6000, to, 0};
    lade_error_t error = {0};
    assert_int_equal(lade_reader_read(&part, 1, 2, NULL, NULL, &error), LADE_CORRUPT);
    assert_non_null(strstr(error.message, "short ends at byte 5000"));
    munmap(to, 10000);
    close(fd);
}

static void
test_memory_that_is_not_there_is_an_error_not_a_crash(void **state)
{
    int fd = s_file(*state, "file", 8192, 1);
    uint8_t *to = s_fresh(8192);
    munmap(to, 8192);
    lade_error_t error = {0};
    lade_reader_part_t part = {fd, "file", 0, 8192, to, 0};
    assert_int_equal(lade_reader_read(&part, 1, 1, NULL, NULL, &error), LADE_NO_MEMORY);
    part.warm = 8192;
    assert_int_equal(lade_reader_read(&part, 1, 1, NULL, NULL, &error), LADE_NO_MEMORY);
    close(fd);
}

static void
test_a_folder_cannot_be_read(void **state)
{
    int fd = open(*state, O_RDONLY | O_CLOEXEC);
    uint8_t to[100];
    lade_error_t error = {0};
    const lade_reader_part_t part = {fd, "folder", 0, sizeof to, to, sizeof to};
    assert_int_equal(lade_reader_read(&part, 1, 1, NULL, NULL, &error), LADE_IO_ERROR);
    close(fd);
}

typedef struct {
    uint64_t last, calls, stop_at;
} s_steps_t;

static bool
s_on_step(void *arg, uint64_t bytes)
{
    s_steps_t *steps = arg;
    assert_true(bytes >= steps->last); // never goes back
    steps->last = bytes;
    steps->calls++;
    return bytes < steps->stop_at;
}

static void
test_progress_rises_to_the_end(void **state)
{
    int fd = s_file(*state, "file", 4 * S_PIECE, 1);
    uint8_t *to = s_fresh(4 * S_PIECE);
    const lade_reader_part_t part = {fd, "file", 0, 4 * S_PIECE, to, 0};
    s_steps_t steps = {.stop_at = UINT64_MAX};
    assert_int_equal(lade_reader_read(&part, 1, 2, s_on_step, &steps, NULL), LADE_OK);
    assert_int_equal(steps.last, 4 * S_PIECE);
    assert_true(steps.calls >= 2);
    munmap(to, 4 * S_PIECE);
    close(fd);
}

static void
test_a_stop_is_heeded_between_pieces(void **state)
{
    int fd = s_file(*state, "file", 4 * S_PIECE, 1);
    uint8_t *to = s_fresh(4 * S_PIECE);
    const lade_reader_part_t part = {fd, "file", 0, 4 * S_PIECE, to, 0};
    s_steps_t steps = {.stop_at = 1};
    assert_int_equal(lade_reader_read(&part, 1, 1, s_on_step, &steps, NULL), LADE_CANCELLED);
    assert_int_equal(steps.last, S_PIECE);
    steps = (s_steps_t){.stop_at = 0};
    assert_int_equal(lade_reader_read(&part, 1, 3, s_on_step, &steps, NULL), LADE_CANCELLED);
    munmap(to, 4 * S_PIECE);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_several_files_are_read_whole),
        cmocka_unit_test(test_nothing_to_read_is_done_at_once),
        cmocka_unit_test(test_a_file_that_ends_early_is_said),
        cmocka_unit_test(test_memory_that_is_not_there_is_an_error_not_a_crash),
        cmocka_unit_test(test_a_folder_cannot_be_read),
        cmocka_unit_test(test_progress_rises_to_the_end),
        cmocka_unit_test(test_a_stop_is_heeded_between_pieces),
    };
    return cmocka_run_group_tests(tests, test_folder_new, test_folder_remove);
}
