// Tests of attaching: other processes share the pages, hold the model as long as they live, and can
// do no harm.
#include "workers/gpu/attach.h"

#include "common/log.h"
#include "common/segment.h"
#include "common/wire.h"
#include "workers/gpu/cache.h"
#include "workers/gpu/memory.h"
#include "workers/gpu/test_models.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { S_MB = 1024 * 1024, S_PATIENCE_MS = 20000 };

// A second process, forked before there are threads. It gets orders "SOCKET LEASE", attaches, looks
// at all weights, and reports one s_report_t; then it holds the model until the next order or its
// end.
typedef struct {
    pid_t pid;
    int orders, reports;
} s_child_t;

typedef struct {
    lade_code_t code;
    unsigned sum;                // over all bytes of the weights
    size_t rss, private, shared; // KiB of the mapping
} s_report_t;

typedef struct {
    char *folder;
    lade_cache_t *cache;
    lade_attach_t *attach;
    s_child_t child;
} s_world_t;

// Adds up the smaps lines of the mapping an address lies in.
static void
s_read_smaps(const void *address, s_report_t *report)
{
    FILE *in = fopen("/proc/self/smaps", "re");
    char line[500];
    bool ours = false;
    while (in && fgets(line, sizeof line, in)) {
        unsigned long from, to, kb;
        char name[64];
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            ours = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (ours && sscanf(line, "%63[A-Za-z_]: %lu kB", name, &kb) == 2) {
            report->rss += strcmp(name, "Rss") ? 0 : kb;
            report->private += strncmp(name, "Private_", 8) ? 0 : kb;
            report->shared +=
                strncmp(name, "Shared_", 7) || !strcmp(name, "Shared_Hugetlb") ? 0 : kb;
        }
    }
    if (in)
        fclose(in);
}

static lade_segment_t *
s_obey(const char *socket_path, const char *lease, s_report_t *report)
{
    lade_segment_t *segment = NULL;
    report->code = lade_segment_attach(socket_path, lease, S_PATIENCE_MS, &segment, NULL);
    for (size_t i = 0; !report->code && i < lade_segment_count(segment); i++) {
        const lade_tensor_t *tensor = lade_segment_get(segment, i);
        const uint8_t *data = lade_segment_data(segment, tensor);
        for (size_t at = 0; at < tensor->size; at++)
            report->sum += data[at];
    }
    if (segment && lade_segment_count(segment))
        s_read_smaps(lade_segment_data(segment, lade_segment_get(segment, 0)), report);
    return segment;
}

static void
s_child_run(int orders, int reports)
{
    char order[600], socket_path[300], lease[300];
    lade_segment_t *segment = NULL;
    ssize_t len;
    while ((len = read(orders, order, sizeof order - 1)) > 0) {
        s_report_t report = {0};
        order[len] = '\0';
        lade_segment_close(&segment);
        if (sscanf(order, "%299s %299s", socket_path, lease) == 2)
            segment = s_obey(socket_path, lease, &report);
        if (write(reports, &report, sizeof report) != sizeof report)
            break;
    }
    _exit(0);
}

static s_child_t
s_child_new(void)
{
    int orders[2], reports[2];
    assert_int_equal(pipe(orders), 0);
    assert_int_equal(pipe(reports), 0);
    s_child_t child = {fork(), orders[1], reports[0]};
    assert_true(child.pid >= 0);
    if (!child.pid) {
        close(orders[1]);
        close(reports[0]);
        s_child_run(orders[0], reports[1]);
    }
    close(orders[0]);
    close(reports[1]);
    return child;
}

static void
s_child_end(s_child_t *child)
{
    if (!child->pid)
        return;
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    close(child->orders);
    close(child->reports);
    child->pid = 0;
}

static s_report_t
s_order(s_child_t *child, const char *socket_path, const char *lease)
{
    char order[600];
    int len = snprintf(order, sizeof order, "%s %s", socket_path, lease);
    assert_int_equal(write(child->orders, order, (size_t)len), len);
    struct pollfd answer = {.fd = child->reports, .events = POLLIN};
    assert_int_equal(poll(&answer, 1, S_PATIENCE_MS), 1);
    s_report_t report;
    assert_int_equal(read(child->reports, &report, sizeof report), sizeof report);
    return report;
}

// ---------------------------------------------------------------------------------------------------

static int
s_setup(void **state)
{
    s_world_t *world = calloc(1, sizeof *world);
    world->child = s_child_new();
    if (test_folder_new((void **)&world->folder))
        return -1;
    free(test_model(world->folder, "big.safetensors", "w", 16 * S_MB, 5));
    free(test_model(world->folder, "small.safetensors", "w", S_MB, 6));
    lade_cache_options_t options = {.name = "gpu@here:1-x",
                                    .models_dir = world->folder,
                                    .limit = 17 * S_MB,
                                    .threads = 2,
                                    .rows = lade_loaders_host};
    assert_int_equal(lade_cache_new(&options, &world->cache, NULL), LADE_OK);
    lade_error_t error = {0};
    if (lade_attach_new(world->folder, &lade_cache_attach_ops, world->cache, &world->attach,
                        &error))
        fail_msg("%s", error.message);
    *state = world;
    return 0;
}

static int
s_teardown(void **state)
{
    s_world_t *world = *state;
    s_child_end(&world->child);
    lade_attach_destroy(&world->attach);
    lade_cache_destroy(&world->cache);
    test_folder_remove((void **)&world->folder);
    free(world);
    return 0;
}

static lade_code_t
s_load(s_world_t *world, const char *name, bool lock, pid_t pid, lade_cache_answer_t *answer)
{
    char file[40];
    snprintf(file, sizeof file, "%s.safetensors", name);
    json_t *record = test_record(name, "vae", "checkpoint", file);
    lade_cache_request_t request = {.record = record, .key = name, .lock = lock, .pid = pid};
    lade_code_t code = lade_cache_load(world->cache, &request, answer, NULL);
    json_decref(record);
    return code;
}

static unsigned
s_sum(size_t bytes, unsigned seed)
{
    unsigned sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum += test_byte(i, seed);
    return sum;
}

static int64_t
s_leases(s_world_t *world)
{
    json_t *stats = lade_cache_stats(world->cache);
    int64_t leases = lade_json_int(stats, "leases", -1);
    json_decref(stats);
    return leases;
}

static void
s_wait_leases(s_world_t *world, int64_t count)
{
    int64_t until = lade_mono_ms() + S_PATIENCE_MS;
    while (s_leases(world) != count && lade_mono_ms() < until)
        sched_yield();
    assert_int_equal(s_leases(world), count);
}

static int
s_connect(s_world_t *world)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", lade_attach_path(world->attach));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct timeval timeout = {S_PATIENCE_MS / 1000, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

// ---------------------------------------------------------------------------------------------------

static void
test_another_process_sees_the_weights_without_memory_of_its_own(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer;
    assert_int_equal(s_load(world, "big", true, world->child.pid, &answer), LADE_OK);
    s_report_t report = s_order(&world->child, lade_attach_path(world->attach), answer.lease);
    assert_int_equal(report.code, LADE_OK);
    assert_int_equal(report.sum, s_sum(16 * S_MB, 5));
    assert_true(report.rss >= 16 * 1024); // all of it was looked at,
    assert_true(report.shared >= 16 * 1024);
    assert_true(report.private <= 16); // and is the worker's
}

static void
test_a_killed_process_gives_its_lease_back(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer, other;
    assert_int_equal(s_load(world, "big", true, 0, &answer),
                     LADE_OK); // bound to no process: only the connection counts
    assert_int_equal(s_order(&world->child, lade_attach_path(world->attach), answer.lease).code,
                     LADE_OK);
    assert_int_equal(s_load(world, "small", false, 0, &other), LADE_NO_MEMORY);
    s_child_end(&world->child);
    s_wait_leases(world, 0);
    assert_int_equal(s_load(world, "small", false, 0, &other), LADE_OK);
}

static void
test_a_process_that_lets_go_gives_its_lease_back(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer;
    assert_int_equal(s_load(world, "big", true, 0, &answer), LADE_OK);
    assert_int_equal(s_order(&world->child, lade_attach_path(world->attach), answer.lease).code,
                     LADE_OK);
    assert_int_equal(s_leases(world), 1);
    assert_int_equal(write(world->child.orders, "x", 1), 1); // closes what it has
    s_wait_leases(world, 0);
    assert_int_equal(s_order(&world->child, lade_attach_path(world->attach), answer.lease).code, 0);
}

static void
test_what_is_seen_is_not_taken_away_by_unlocking(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer, other;
    lade_segment_t *segment;
    assert_int_equal(s_load(world, "big", true, 0, &answer), LADE_OK);
    assert_int_equal(lade_segment_attach(lade_attach_path(world->attach), answer.lease,
                                         S_PATIENCE_MS, &segment, NULL),
                     LADE_OK);
    assert_true(lade_cache_unlock(world->cache, answer.lease));
    assert_int_equal(s_load(world, "small", false, 0, &other), LADE_NO_MEMORY);
    assert_int_equal(lade_cache_unload(world->cache, NULL, NULL), 0);
    lade_segment_close(&segment);
    s_wait_leases(world, 0);
    assert_int_equal(s_load(world, "small", false, 0, &other), LADE_OK);
}

static void
test_a_lease_that_is_over_is_said(void **state)
{
    s_world_t *world = *state;
    static const char *const leases[] = {"gpu@here:1-x/7", "gpu@here:1-x/1", "someone/1", "x"};
    lade_cache_answer_t answer;
    assert_int_equal(s_load(world, "small", true, 0, &answer), LADE_OK);
    assert_true(lade_cache_unlock(world->cache, answer.lease));
    for (size_t i = 0; i < sizeof leases / sizeof *leases; i++) {
        lade_segment_t *segment;
        lade_error_t error = {0};
        assert_int_equal(lade_segment_attach(lade_attach_path(world->attach), leases[i],
                                             S_PATIENCE_MS, &segment, &error),
                         LADE_STALE_LEASE);
        assert_non_null(strstr(error.message, "is over"));
        assert_null(segment);
    }
}

static void
test_attaching_takes_the_same_time_whatever_the_size(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer;
    assert_int_equal(s_load(world, "big", true, 0, &answer), LADE_OK);
    lade_segment_t *keep, *segment;
    assert_int_equal(lade_segment_attach(lade_attach_path(world->attach), answer.lease,
                                         S_PATIENCE_MS, &keep, NULL),
                     LADE_OK);
    for (int i = 0; i < 100; i++) { // one lease may be attached with again and again while it lives
        assert_int_equal(lade_segment_attach(lade_attach_path(world->attach), answer.lease,
                                             S_PATIENCE_MS, &segment, NULL),
                         LADE_OK);
        s_report_t report = {0};
        s_read_smaps(lade_segment_data(segment, &(lade_tensor_t){.offset = 0}), &report);
        assert_true(report.rss <= 64); // nothing but the head's surroundings was touched
        lade_segment_close(&segment);
    }
    assert_int_equal(s_leases(world), 1);
    lade_segment_close(&keep);
    s_wait_leases(world, 0);
}

// ---------------------------------------------------------------------------------------------------
// Hostile peers

static void
test_nonsense_is_answered_and_closed(void **state)
{
    s_world_t *world = *state;
    static char large[100000];
    memset(large, 'a', sizeof large);
    const struct {
        const void *bytes;
        size_t len;
    } packets[] = {{"a\0b", 3},
                   {large, LADE_SEGMENT_MAX_LEASE + 1},
                   {large, sizeof large},
                   {"\xff\xfe\n", 3},
                   {"!", 1}};
    for (size_t i = 0; i < sizeof packets / sizeof *packets; i++) {
        char answer[2000];
        int fd = s_connect(world);
        assert_true(send(fd, packets[i].bytes, packets[i].len, MSG_NOSIGNAL) > 0);
        assert_true(recv(fd, answer, sizeof answer, 0) > 0);
        assert_int_equal(answer[0], '!');
        assert_int_equal(recv(fd, answer, sizeof answer, 0), 0); // closed
        close(fd);
    }
    close(s_connect(world)); // says nothing
}

static void
test_a_peer_that_floods_after_attaching_harms_nobody(void **state)
{
    s_world_t *world = *state;
    lade_cache_answer_t answer;
    char packet[1000] = "more";
    assert_int_equal(s_load(world, "small", true, 0, &answer), LADE_OK);
    int fd = s_connect(world);
    assert_true(send(fd, answer.lease, strlen(answer.lease), MSG_NOSIGNAL) > 0);
    assert_int_equal(recv(fd, packet, sizeof packet, 0),
                     8); // the descriptor that came along was closed by the kernel
    while (send(fd, packet, sizeof packet, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
    assert_int_equal(errno, EAGAIN); // nobody reads it
    lade_segment_t *segment;
    assert_int_equal(lade_segment_attach(lade_attach_path(world->attach), answer.lease,
                                         S_PATIENCE_MS, &segment, NULL),
                     LADE_OK);
    lade_segment_close(&segment);
    assert_int_equal(s_leases(world), 1);
    close(fd);
    s_wait_leases(world, 0);
}

static int s_client = -1;
static atomic_int s_early,
    s_late; // told before there was anything for the client to read, and after

static void
s_on_attached(void *self, uint64_t id, int connection)
{
    char byte;
    bool early = recv(s_client, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
    atomic_fetch_add(early ? &s_early : &s_late, 1);
    lade_cache_attach_ops.attached(self, id, connection);
}

// What follows an attachment (the keeper's knowing of it) has been done when the process has its
// segment: a crash in between would leave it with one that nobody holds for it.
static void
test_who_has_a_segment_is_known_to_have_it(void **state)
{
    s_world_t *world = *state;
    lade_attach_ops_t ops = lade_cache_attach_ops;
    lade_cache_answer_t answer;
    char packet[1000];
    ops.attached = s_on_attached;
    lade_attach_destroy(&world->attach);
    assert_int_equal(lade_attach_new(world->folder, &ops, world->cache, &world->attach, NULL),
                     LADE_OK);
    assert_int_equal(s_load(world, "small", true, 0, &answer), LADE_OK);
    s_client = s_connect(world);
    assert_true(send(s_client, answer.lease, strlen(answer.lease), MSG_NOSIGNAL) > 0);
    assert_int_equal(recv(s_client, packet, sizeof packet, 0), 8);
    assert_int_equal(atomic_load(&s_early), 1);
    assert_int_equal(atomic_load(&s_late), 0);
    close(s_client);
    s_wait_leases(world, 0);
}

static void
test_a_peer_that_sends_descriptors_keeps_them(void **state)
{
    s_world_t *world = *state;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    int fd = s_connect(world), own = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char text[] = "x";
    struct iovec part = {text, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof own);
    memcpy(CMSG_DATA(head), &own, sizeof own);
    assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), 1);
    char answer[1000];
    assert_true(recv(fd, answer, sizeof answer, 0) > 0);
    assert_int_equal(answer[0], '!');
    close(own);
    close(fd);
}

static void
test_connections_have_a_ceiling(void **state)
{
    s_world_t *world = *state;
    static int fds[LADE_ATTACH_MAX + 1];
    size_t count = 0;
    while (count < LADE_ATTACH_MAX && (fds[count] = s_connect(world)) >= 0)
        count++;
    lade_segment_t *segment;
    lade_error_t error = {0};
    // Either the last is told, or one that was silent too long made room for it.
    lade_code_t code =
        lade_segment_attach(lade_attach_path(world->attach), "x", S_PATIENCE_MS, &segment, &error);
    assert_true(code == LADE_BUSY || code == LADE_STALE_LEASE || code == LADE_IO_ERROR);
    while (count)
        close(fds[--count]);
    int64_t until = lade_mono_ms() + S_PATIENCE_MS;
    lade_cache_answer_t answer;
    assert_int_equal(s_load(world, "small", true, 0, &answer), LADE_OK);
    do
        code = lade_segment_attach(lade_attach_path(world->attach), answer.lease, S_PATIENCE_MS,
                                   &segment, &error);
    while (code && lade_mono_ms() < until);
    assert_int_equal(code, LADE_OK);
    lade_segment_close(&segment);
}

// ---------------------------------------------------------------------------------------------------
// The socket

static void
test_the_socket_is_ours_alone_and_goes_with_the_server(void **state)
{
    s_world_t *world = *state;
    struct stat status;
    char path[200];
    snprintf(path, sizeof path, "%s", lade_attach_path(world->attach));
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    lade_attach_destroy(&world->attach);
    assert_int_equal(stat(path, &status), -1);
}

static void
test_sockets_of_dead_workers_are_removed(void **state)
{
    s_world_t *world = *state;
    pid_t dead = world->child.pid;
    s_child_end(&world->child);
    lade_attach_destroy(&world->attach);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/load-%d.sock", world->folder,
             (int)dead);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    test_text_file(world->folder, "load-x.sock", "not ours");
    struct stat status;
    assert_int_equal(
        lade_attach_new(world->folder, &lade_cache_attach_ops, world->cache, &world->attach, NULL),
        LADE_OK);
    assert_int_equal(stat(address.sun_path, &status), 0); // somebody still listens there
    close(fd);
    lade_attach_destroy(&world->attach);
    assert_int_equal(
        lade_attach_new(world->folder, &lade_cache_attach_ops, world->cache, &world->attach, NULL),
        LADE_OK);
    assert_int_equal(stat(address.sun_path, &status), -1);
    char *other = lade_path_join(world->folder, "load-x.sock");
    assert_int_equal(stat(other, &status), 0);
    free(other);
}

static void
test_a_folder_too_long_for_a_socket_is_a_setting_to_change(void **state)
{
    s_world_t *world = *state;
    char folder[200];
    memset(folder, 'a', sizeof folder);
    folder[0] = '/';
    folder[sizeof folder - 1] = '\0';
    lade_attach_t *attach;
    lade_error_t error = {0};
    assert_int_equal(lade_attach_new(folder, &lade_cache_attach_ops, world->cache, &attach, &error),
                     LADE_CONFIG_ERROR);
    assert_null(attach);
    assert_non_null(strstr(error.message, "data: "));
}

int
main(void)
{
    lade_memory_choose("off", NULL); // reserved huge pages would not count as a process's memory
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)
        TEST(test_another_process_sees_the_weights_without_memory_of_its_own),
        TEST(test_a_killed_process_gives_its_lease_back),
        TEST(test_a_process_that_lets_go_gives_its_lease_back),
        TEST(test_what_is_seen_is_not_taken_away_by_unlocking),
        TEST(test_a_lease_that_is_over_is_said),
        TEST(test_attaching_takes_the_same_time_whatever_the_size),
        TEST(test_nonsense_is_answered_and_closed),
        TEST(test_a_peer_that_floods_after_attaching_harms_nobody),
        TEST(test_who_has_a_segment_is_known_to_have_it),
        TEST(test_a_peer_that_sends_descriptors_keeps_them),
        TEST(test_connections_have_a_ceiling),
        TEST(test_the_socket_is_ours_alone_and_goes_with_the_server),
        TEST(test_sockets_of_dead_workers_are_removed),
        TEST(test_a_folder_too_long_for_a_socket_is_a_setting_to_change),
    };
    lade_log_open("attach_test", LADE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
