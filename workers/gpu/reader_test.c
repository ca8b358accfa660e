// Tests of parallel reads: every byte in its place, whatever the cuts, and a stop that stops.
#include "workers/gpu/reader.h"

#include "workers/gpu/test_models.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

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

static lade_reader_part_t
s_part(int fd, const char *name, uint64_t from, uint64_t len, uint8_t *to, uint64_t warm)
{
    return (lade_reader_part_t){
        .fd = fd, .name = name, .from = from, .len = len, .to = to, .warm = warm};
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
            s_part(big, "big", 4096, S_BIG - 4096 - 5, to, 0),
            s_part(small, "nothing", 0, 0, to, 0),
            s_part(small, "small", 3, S_SMALL - 3, to + S_BIG + 100, 0),
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
    const lade_reader_part_t part = s_part(fd, "short", 0, 6000, to, 0);
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
    lade_reader_part_t part = s_part(fd, "file", 0, 8192, to, 0);
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
    const lade_reader_part_t part = s_part(fd, "folder", 0, sizeof to, to, sizeof to);
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
    const lade_reader_part_t part = s_part(fd, "file", 0, 4 * S_PIECE, to, 0);
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
    const lade_reader_part_t part = s_part(fd, "file", 0, 4 * S_PIECE, to, 0);
    s_steps_t steps = {.stop_at = 1};
    assert_int_equal(lade_reader_read(&part, 1, 1, s_on_step, &steps, NULL), LADE_CANCELLED);
    assert_int_equal(steps.last, S_PIECE);
    steps = (s_steps_t){.stop_at = 0};
    assert_int_equal(lade_reader_read(&part, 1, 3, s_on_step, &steps, NULL), LADE_CANCELLED);
    munmap(to, 4 * S_PIECE);
    close(fd);
}

// ---------------------------------------------------------------------------------------------------
// Past the page cache

static const char *const s_ways[] = {"auto", "uring", "threads", "buffered"};

// Puts a file out of the page cache, if it is on a disk.
static void
s_cool(int fd)
{
    assert_int_equal(fdatasync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static int64_t
s_stat(const char *member)
{
    json_t *stats = lade_reader_stats();
    int64_t value = json_integer_value(json_object_get(stats, member));
    json_decref(stats);
    return value;
}

static bool
s_engine_is(const char *name)
{
    json_t *stats = lade_reader_stats();
    bool is = !strcmp(json_string_value(json_object_get(stats, "engine")), name);
    // What is not the best there is has a reason.
    assert_int_equal(json_is_null(json_object_get(stats, "why")), !strcmp(name, "uring"));
    json_decref(stats);
    return is;
}

// True if files of this folder can be read past the page cache and be put out of it.
static bool
s_is_disk(const char *folder)
{
    char *path = lade_path_join(folder, "cold");
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    uint8_t byte;
    struct iovec one = {&byte, 1};
    int plain = open(path, O_RDONLY | O_CLOEXEC);
    bool is = fd >= 0 && preadv2(plain, &one, 1, 0, RWF_NOWAIT) < 0 && errno == EAGAIN;
    close(plain);
    if (fd >= 0)
        close(fd);
    free(path);
    return is;
}

// Whatever the way, the cuts and the places in memory: the same bytes; and those that lie alike in
// file and memory come past the page cache.
static void
test_cold_files_are_read_whole_in_every_way(void **state)
{
    enum { S_BYTES = 5 * S_PIECE + 4321, S_ROOM = S_BYTES + 2 * 4096 };
    int fd = s_file(*state, "cold", S_BYTES, 3);
    s_cool(fd);
    bool disk = s_is_disk(*state);
    uint8_t *to = s_fresh(S_ROOM);
    for (size_t way = 0; way < 4; way++)
        for (size_t threads = 1; threads <= 3; threads += 2)
            for (uint64_t shift = 0; shift < 2; shift++) {
                const lade_reader_part_t parts[] = {
                    s_part(fd, "cold", 4096, 2 * S_PIECE - 100, to + shift, 0),
                    s_part(fd, "cold", 2 * S_PIECE + 4096 - 100, S_BYTES - 2 * S_PIECE - 4096 + 100,
                           to + 2 * S_PIECE + 4096 - 100, 0)};
                assert_int_equal(lade_reader_choose(s_ways[way], NULL), LADE_OK);
                s_cool(fd);
                memset(to, 0xee, S_ROOM);
                int64_t direct = s_stat("direct_bytes");
                assert_int_equal(lade_reader_read(parts, 2, threads, NULL, NULL, NULL), LADE_OK);
                s_assert_part(&parts[0], 3);
                s_assert_part(&parts[1], 3);
                direct = s_stat("direct_bytes") - direct;
                if (disk)
                    assert_true(way == 3 ? direct == 0
                                         : direct >= (shift ? 3 : 5) * S_PIECE - 3 * 4096);
            }
    assert_true(s_engine_is("buffered"));
    assert_int_equal(lade_reader_choose("auto", NULL), LADE_OK);
    munmap(to, S_ROOM);
    close(fd);
}

// ---------------------------------------------------------------------------------------------------
// Turned on the way

enum { S_TURN = 0x5a };

// Whole units only, or up to the end.
static lade_code_t
s_turn(const lade_reader_part_t *part, uint64_t offset, const uint8_t *bytes, uint64_t len,
       lade_error_t *error)
{
    if (!len || offset % part->unit || (len % part->unit && offset + len != part->len))
        return lade_error_set(error, LADE_VALUE_ERROR, "no whole units");
    if (part->how)
        return lade_error_set(error, LADE_CORRUPT, "%s will not turn", part->name);
    for (uint64_t i = 0; i < len; i++)
        part->to[offset + i] = bytes[i] ^ S_TURN;
    return LADE_OK;
}

typedef struct {
    uint64_t from, len, unit; // unit 0: not turned
} s_place_t;

// In the order of the file, as the layout has them: small ones, none at all, one whose unit is
// longer than a stage, gaps, one within another, some not to be turned, and what ends the file.
static const s_place_t s_places[] = {
    {5, 100, 1},
    {105, 0, 4},
    {200, 3 * S_MB, 3 * S_MB},
    {3 * S_MB + 200, 30, 0},
    {3 * S_MB + 300000, 5000000, 1000},
    {3 * S_MB + 300000, 12000, 12},
    {3 * S_MB + 5200000, 12000, 12000},
    {9 * S_MB, 700001, 0},
    {10 * S_MB, 8 * S_MB + 12, 12},
    {19 * S_MB, S_MB, 4},
    {20 * S_MB, 17, 4},
};
enum { S_PLACES = sizeof s_places / sizeof *s_places, S_END = 20 * S_MB + 17 };

static uint64_t
s_make_places(lade_reader_part_t *parts, const int *fds, uint8_t *to)
{
    uint64_t at = 3, bytes = 0;
    for (size_t i = 0; i < 2 * S_PLACES; i++) {
        const s_place_t *place = &s_places[i % S_PLACES];
        parts[i] = s_part(fds[i / S_PLACES], "turned", place->from, place->len, to + at, 0);
        parts[i].unit = place->unit;
        parts[i].turn = place->unit ? s_turn : NULL;
        at += place->len + 5;
        bytes += place->len;
    }
    return bytes;
}

static void
s_assert_places(const lade_reader_part_t *parts)
{
    for (size_t i = 0; i < 2 * S_PLACES; i++) {
        const lade_reader_part_t *part = &parts[i];
        unsigned seed = 7 + (unsigned)(i / S_PLACES);
        for (uint64_t at = 0; at < part->len; at++)
            if (part->to[at] != (test_byte(part->from + at, seed) ^ (part->turn ? S_TURN : 0)))
                fail_msg("byte %llu of part %zu is wrong", (unsigned long long)at, i);
    }
}

static void
test_parts_are_turned_whole_in_every_way(void **state)
{
    int fds[] = {s_file(*state, "one", S_END, 7), s_file(*state, "two", S_END, 8)};
    uint8_t *to = s_fresh(3 * (size_t)S_END);
    lade_reader_part_t parts[2 * S_PLACES];
    uint64_t bytes = s_make_places(parts, fds, to);
    bool disk = s_is_disk(*state);
    for (size_t way = 0; way < 2 * 4; way++)
        for (size_t threads = 1; threads <= 5; threads += 2) {
            bool cold = way < 4;
            s_steps_t steps = {.stop_at = UINT64_MAX};
            int64_t direct = s_stat("direct_bytes");
            assert_int_equal(lade_reader_choose(s_ways[way % 4], NULL), LADE_OK);
            memset(to, 0xee, 3 * (size_t)S_END);
            for (size_t i = 0; cold && i < 2; i++)
                s_cool(fds[i]);
            assert_int_equal(
                lade_reader_read(parts, 2 * S_PLACES, threads, s_on_step, &steps, NULL), LADE_OK);
            s_assert_places(parts);
            assert_int_equal(steps.last, bytes);
            direct = s_stat("direct_bytes") - direct;
            if (disk && cold)
                assert_true(way == 3 ? direct == 0 : direct >= 2 * 17 * (int64_t)S_MB);
        }
    assert_int_equal(lade_reader_choose("auto", NULL), LADE_OK);
    munmap(to, 3 * (size_t)S_END);
    close(fds[0]);
    close(fds[1]);
}

static void
test_a_turn_that_fails_and_a_cut_file_are_said(void **state)
{
    int fds[] = {s_file(*state, "one", S_END, 7), s_file(*state, "two", S_END - 17, 8)};
    uint8_t *to = s_fresh(3 * (size_t)S_END);
    lade_reader_part_t parts[2 * S_PLACES];
    lade_error_t error = {0};
    s_make_places(parts, fds, to);
    for (size_t way = 0; way < 4; way++) {
        assert_int_equal(lade_reader_choose(s_ways[way], NULL), LADE_OK);
        s_cool(fds[1]);
        assert_int_equal(lade_reader_read(parts, 2 * S_PLACES, 3, NULL, NULL, &error),
                         LADE_CORRUPT);
        assert_non_null(strstr(error.message, "turned ends at byte 20971520"));
    }
    assert_int_equal(lade_reader_choose("auto", NULL), LADE_OK);
    parts[8].how = "no";
    assert_int_equal(lade_reader_read(parts, S_PLACES, 3, NULL, NULL, &error), LADE_CORRUPT);
    assert_non_null(strstr(error.message, "will not turn"));
    s_steps_t steps = {.stop_at = 1};
    assert_int_equal(lade_reader_read(parts, S_PLACES, 1, s_on_step, &steps, NULL), LADE_CANCELLED);
    munmap(to, 3 * (size_t)S_END);
    close(fds[0]);
    close(fds[1]);
}

// ---------------------------------------------------------------------------------------------------

static void
test_a_cold_file_that_was_cut_is_said(void **state)
{
    int fd = s_file(*state, "cut", 2 * S_PIECE + 5000, 1);
    uint8_t *to = s_fresh(4 * S_PIECE);
    lade_error_t error = {0};
    for (size_t way = 0; way < 4; way++) {
        const lade_reader_part_t part = s_part(fd, "cut", 0, 4 * S_PIECE, to, 0);
        assert_int_equal(lade_reader_choose(s_ways[way], NULL), LADE_OK);
        s_cool(fd);
        assert_int_equal(lade_reader_read(&part, 1, 2, NULL, NULL, &error), LADE_CORRUPT);
        assert_non_null(strstr(error.message, "cut ends at byte "));
    }
    assert_int_equal(lade_reader_choose("auto", NULL), LADE_OK);
    munmap(to, 4 * S_PIECE);
    close(fd);
}

static void
test_a_stop_leaves_no_read_under_way(void **state)
{
    enum { S_BYTES = 12 * S_PIECE };
    int fd = s_file(*state, "stopped", S_BYTES, 1);
    uint8_t *to = s_fresh(S_BYTES);
    const lade_reader_part_t part = s_part(fd, "stopped", 0, S_BYTES, to, 0);
    s_cool(fd);
    s_steps_t steps = {.stop_at = 1};
    assert_int_equal(lade_reader_read(&part, 1, 1, s_on_step, &steps, NULL), LADE_CANCELLED);
    memset(to, 0x55, S_BYTES); // ours again: nobody writes there any more
    for (size_t i = 0; i < S_BYTES; i += 511)
        assert_int_equal(to[i], 0x55);
    munmap(to, S_BYTES);
    close(fd);
}

static void
test_a_file_system_without_direct_reads_is_read_through_its_cache(void **state)
{
    (void)state;
    int fd = memfd_create("plain", MFD_CLOEXEC);
    assert_true(fd >= 0);
    uint8_t data[9000], *to = s_fresh(3 * 4096);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = test_byte(i, 9);
    assert_int_equal(pwrite(fd, data, sizeof data, 0), sizeof data);
    const lade_reader_part_t part = s_part(fd, "plain", 0, sizeof data, to, 0);
    assert_int_equal(lade_reader_read(&part, 1, 1, NULL, NULL, NULL), LADE_OK);
    s_assert_part(&part, 9);
    munmap(to, 3 * 4096);
    close(fd);
}

// A system call answers errnum from now on, in this process: as in a container that forbids it, or
// in an older kernel.
static bool
s_forbid(unsigned call, unsigned errnum)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errnum),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof steps / sizeof *steps, steps};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

// In a process of its own, as what is forbidden stays so. 0 if all is well, 77 if nothing can be
// forbidden here.
static int
s_read_forbidden(int fd, size_t bytes, unsigned call, unsigned errnum, const char *engine)
{
    uint8_t *to = s_fresh(bytes);
    const lade_reader_part_t part = s_part(fd, "cold", 0, bytes, to, 0);
    if (!s_forbid(call, errnum))
        return 77;
    for (int i = 0; i < 2; i++) {
        s_cool(fd);
        if (lade_reader_read(&part, 1, 2, NULL, NULL, NULL))
            return 1;
        for (size_t at = 0; at < bytes; at++)
            if (to[at] != test_byte(at, 3))
                return 2;
    }
    return s_engine_is(engine) ? 0 : 3;
}

static void
test_what_the_kernel_refuses_is_done_without(void **state)
{
    static const struct {
        unsigned call, errnum;
        const char *engine;
    } rows[] = {
        {SYS_io_uring_setup, EPERM, "threads"},
        {SYS_io_uring_setup, ENOSYS, "threads"},
        {451, ENOSYS, "uring"}, // cachestat
        {451, EPERM, "uring"},
    };
    enum { S_BYTES = 4 * S_PIECE + 77 };
    int fd = s_file(*state, "cold", S_BYTES, 3);
    s_cool(fd);
    bool disk = s_is_disk(*state);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status;
        pid_t pid = fork();
        if (!pid)
            _exit(s_read_forbidden(fd, S_BYTES, rows[i].call, rows[i].errnum,
                                   disk ? rows[i].engine : "uring"));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) != 77)
            assert_int_equal(WEXITSTATUS(status), 0);
    }
    close(fd);
}

static void
test_an_unknown_way_is_refused(void **state)
{
    (void)state;
    lade_error_t error = {0};
    assert_int_equal(lade_reader_choose("quickly", &error), LADE_CONFIG_ERROR);
    assert_non_null(strstr(error.message, "buffered"));
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
        cmocka_unit_test(test_cold_files_are_read_whole_in_every_way),
        cmocka_unit_test(test_parts_are_turned_whole_in_every_way),
        cmocka_unit_test(test_a_turn_that_fails_and_a_cut_file_are_said),
        cmocka_unit_test(test_a_cold_file_that_was_cut_is_said),
        cmocka_unit_test(test_a_stop_leaves_no_read_under_way),
        cmocka_unit_test(test_a_file_system_without_direct_reads_is_read_through_its_cache),
        cmocka_unit_test(test_what_the_kernel_refuses_is_done_without),
        cmocka_unit_test(test_an_unknown_way_is_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_new, test_folder_remove);
}
