// Tests of the keeper: what is handed over comes back to who asks for it, once, and to nobody else;
// nonsense harms nobody.
#include "workers/keeper/keeper.h"

#include "common/keep.h"
#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { S_KEEP_MS = 60000 };

typedef struct {
    char *folder;
    lade_keeper_t *keeper;
} s_world_t;

static int
s_setup(void **state)
{
    char folder[] = "/tmp/lade-keeper-XXXXXX";
    s_world_t *world = calloc(1, sizeof *world);
    assert_non_null(mkdtemp(folder));
    world->folder = strdup(folder);
    assert_int_equal(lade_keeper_new(folder, S_KEEP_MS, &world->keeper, NULL), LADE_OK);
    *state = world;
    return 0;
}

static int
s_teardown(void **state)
{
    s_world_t *world = *state;
    lade_keeper_destroy(&world->keeper);
    lade_path_remove(world->folder, NULL);
    free(world->folder);
    free(world);
    return 0;
}

static void
s_turn(s_world_t *world)
{
    for (int i = 0; i < 4; i++)
        assert_int_equal(lade_keeper_turn(world->keeper, -1, 0, NULL), LADE_OK);
}

static int
s_connect(s_world_t *world)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", world->folder, LADE_KEEP_SOCKET);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    s_turn(world);
    return fd;
}

static void
s_say_with(s_world_t *world, int connection, const char *text, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fd)];
    } control = {0};
    struct iovec part = {(void *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    assert_int_equal(sendmsg(connection, &message, MSG_NOSIGNAL), strlen(text));
    s_turn(world);
}

static void
s_say(s_world_t *world, int connection, const char *text)
{
    s_say_with(world, connection, text, -1);
}

// A descriptor that can be told from others, put and closed here.
static ino_t
s_put(s_world_t *world, int connection, const char *text)
{
    int pipes[2];
    struct stat status;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(fstat(pipes[0], &status), 0);
    s_say_with(world, connection, text, pipes[0]);
    close(pipes[0]);
    close(pipes[1]);
    return status.st_ino;
}

// The next answer, and the descriptor beside it (0: none).
static ino_t
s_hear(int connection, const char *text)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char packet[200];
    struct iovec part = {packet, sizeof packet - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct stat status = {0};
    ssize_t len = recvmsg(connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    assert_true(len > 0);
    packet[len] = '\0';
    assert_string_equal(packet, text);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head) {
        int fd;
        memcpy(&fd, CMSG_DATA(head), sizeof fd);
        fstat(fd, &status);
        close(fd);
    }
    return status.st_ino;
}

static void
test_what_a_lost_process_put_is_taken_once(void **state)
{
    s_world_t *world = *state;
    int first = s_connect(world), second = s_connect(world), third = s_connect(world);
    s_say(world, first, "hello a");
    s_put(world, first, "put one\n{}");
    ino_t one = s_put(world, first, "put one\n{\"x\": 1}"); // in place of what it was
    ino_t two = s_put(world, first, "put two\n");
    s_put(world, first, "put three\n{}");
    s_say(world, first, "drop three");
    s_say(world, first, "drop nothing");
    s_put(world, second, "put other\n{}");
    assert_int_equal(lade_keeper_count(world->keeper), 3);
    s_say(world, second, "take"); // the first lives
    assert_int_equal(s_hear(second, "end"), 0);
    close(first);
    s_turn(world);
    s_say(world, second, "take");
    assert_int_equal(s_hear(second, "two\n"), two);
    assert_int_equal(s_hear(second, "one\n{\"x\": 1}"), one);
    assert_int_equal(s_hear(second, "end"), 0);
    s_say(world, third, "take");
    assert_int_equal(s_hear(third, "end"), 0);
    s_say(world, second, "bye");
    assert_int_equal(lade_keeper_count(world->keeper), 0);
    close(second);
    close(third);
}

static void
test_packets_of_a_killed_process_are_heeded(void **state)
{
    s_world_t *world = *state;
    int first = s_connect(world), second = s_connect(world);
    s_put(world, first, "put one\n{}");
    s_put(world, first, "put two\n{}");
    assert_int_equal(send(first, "drop one", 8, 0), 8); // sent just before it ended
    assert_int_equal(send(second, "take", 4, 0), 4);
    close(first);
    s_turn(world);
    s_hear(second, "two\n{}");
    s_hear(second, "end");
    close(second);
}

static void
test_a_process_that_comes_again_begins_anew(void **state)
{
    s_world_t *world = *state;
    int first = s_connect(world);
    s_say(world, first, "hello same");
    s_put(world, first, "put one\n{}");
    int again = s_connect(world);
    s_say(world, again, "hello same");
    assert_int_equal(lade_keeper_count(world->keeper), 0);
    s_put(world, again, "put one\n{}");
    assert_int_equal(lade_keeper_count(world->keeper), 1);
    close(first);
    close(again);
}

static void
test_nonsense_is_hung_up_on(void **state)
{
    s_world_t *world = *state;
    static const char *const rows[] = {"",          "what",  "put",  "put \n{}",
                                       "put x\n{}", "put x", "takes"};
    int good = s_connect(world);
    s_put(world, good, "put mine\n{}");
    char *large = calloc(1, LADE_KEEP_MAX_PACKET + 100);
    memset(large, 'x', LADE_KEEP_MAX_PACKET + 99);
    memcpy(large, "put ", 4);
    for (size_t i = 1; i <= sizeof rows / sizeof *rows; i++) {
        int bad = s_connect(world);
        char byte;
        s_say(world, bad, i < sizeof rows / sizeof *rows ? rows[i] : large);
        assert_int_equal(recv(bad, &byte, 1, MSG_DONTWAIT), 0);
        close(bad);
    }
    free(large);
    assert_int_equal(lade_keeper_count(world->keeper), 1);
    s_say(world, good, "take");
    s_hear(good, "end");
    close(good);
}

static void
test_a_second_keeper_is_refused(void **state)
{
    s_world_t *world = *state;
    lade_keeper_t *second = NULL;
    lade_error_t error = {0};
    assert_int_equal(lade_keeper_new(world->folder, S_KEEP_MS, &second, &error), LADE_BUSY);
    assert_null(second);
    int still = s_connect(world); // the first has its socket
    close(still);
}

static void
test_what_is_left_too_long_is_let_go(void **state)
{
    s_world_t *world = *state;
    lade_keeper_destroy(&world->keeper);
    assert_int_equal(lade_keeper_new(world->folder, 0, &world->keeper, NULL), LADE_OK);
    int first = s_connect(world);
    s_put(world, first, "put one\n{}");
    assert_int_equal(lade_keeper_count(world->keeper), 1);
    close(first);
    s_turn(world);
    assert_int_equal(lade_keeper_count(world->keeper), 0);
}

static void
test_more_processes_than_there_is_room_for(void **state)
{
    s_world_t *world = *state;
    int fds[LADE_KEEPER_MAX_OWNERS + 8];
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        fds[i] = s_connect(world);
    s_turn(world);
    char byte;
    assert_int_equal(recv(fds[LADE_KEEPER_MAX_OWNERS + 4], &byte, 1, MSG_DONTWAIT), 0);
    s_put(world, fds[0], "put one\n{}");
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
    s_turn(world);
    int next = s_connect(world);
    s_say(world, next, "take");
    s_hear(next, "one\n{}");
    s_hear(next, "end");
    close(next);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)
        TEST(test_what_a_lost_process_put_is_taken_once),
        TEST(test_packets_of_a_killed_process_are_heeded),
        TEST(test_a_process_that_comes_again_begins_anew),
        TEST(test_nonsense_is_hung_up_on),
        TEST(test_a_second_keeper_is_refused),
        TEST(test_what_is_left_too_long_is_let_go),
        TEST(test_more_processes_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
