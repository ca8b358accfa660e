// Tests of leases: what ends them, and that an attached one is ended by nothing but its connection.
#include "workers/gpu/leases.h"

#include "common/wire.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { S_PATIENCE_S = 20 };

// What the leases hold here: a count of how often each was let go.
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    lade_leases_t *leases;
    int ended[4];
} s_owner_t;

static void
s_on_ended(void *arg, void *holds)
{
    s_owner_t *owner = arg;
    ++*(int *)holds;
    pthread_cond_broadcast(&owner->changed);
}

static int
s_setup(void **state)
{
    s_owner_t *owner = calloc(1, sizeof *owner);
    pthread_mutex_init(&owner->lock, NULL);
    pthread_cond_init(&owner->changed, NULL);
    owner->leases = lade_leases_new(&owner->lock, s_on_ended, owner);
    *state = owner;
    return 0;
}

static int
s_teardown(void **state)
{
    s_owner_t *owner = *state;
    lade_leases_destroy(&owner->leases);
    pthread_cond_destroy(&owner->changed);
    pthread_mutex_destroy(&owner->lock);
    free(owner);
    return 0;
}

static uint64_t
s_add(s_owner_t *owner, int which, pid_t pid, double ttl_s)
{
    uint64_t id = 0;
    lade_error_t error;
    pthread_mutex_lock(&owner->lock);
    lade_code_t code =
        lade_leases_add(owner->leases, &owner->ended[which], pid, ttl_s, &id, &error);
    void *holds = lade_leases_find(owner->leases, id);
    pthread_mutex_unlock(&owner->lock);
    if (code)
        fail_msg("%s", error.message);
    assert_ptr_equal(holds, &owner->ended[which]);
    return id;
}

// Waits until what was held was let go.
static void
s_wait_ended(s_owner_t *owner, int which)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += S_PATIENCE_S;
    int late = 0;
    pthread_mutex_lock(&owner->lock);
    while (!owner->ended[which] && !late)
        late = pthread_cond_timedwait(&owner->changed, &owner->lock, &until);
    int ended = owner->ended[which];
    pthread_mutex_unlock(&owner->lock);
    assert_int_equal(ended, 1);
}

static int
s_ended(s_owner_t *owner, int which)
{
    pthread_mutex_lock(&owner->lock);
    int ended = owner->ended[which];
    pthread_mutex_unlock(&owner->lock);
    return ended;
}

// A process that waits to be killed.
static pid_t
s_sleeper(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid)
        for (;;)
            pause();
    return pid;
}

static void
test_a_lease_ends_once(void **state)
{
    s_owner_t *owner = *state;
    uint64_t id = s_add(owner, 0, 0, 0), other = s_add(owner, 1, 0, 0);
    pthread_mutex_lock(&owner->lock);
    assert_true(lade_leases_end(owner->leases, id));
    assert_false(lade_leases_end(owner->leases, id));
    assert_null(lade_leases_find(owner->leases, id));
    assert_false(lade_leases_attach(owner->leases, id));
    assert_false(lade_leases_renew(owner->leases, id, 1));
    assert_int_equal(owner->ended[0], 1);
    assert_non_null(lade_leases_find(owner->leases, other));
    assert_int_equal(lade_leases_count(owner->leases), 1);
    assert_false(lade_leases_end(owner->leases, 999));
    pthread_mutex_unlock(&owner->lock);
}

static void
test_a_lease_dies_with_its_process(void **state)
{
    s_owner_t *owner = *state;
    pid_t pid = s_sleeper();
    s_add(owner, 0, pid, 0);
    s_add(owner, 1, getpid(), 0);
    kill(pid, SIGKILL); // not waited for yet: a zombie holds nothing either
    s_wait_ended(owner, 0);
    waitpid(pid, NULL, 0);
    assert_int_equal(s_ended(owner, 1), 0);
}

static void
test_a_lease_on_no_process_is_refused(void **state)
{
    s_owner_t *owner = *state;
    uint64_t id;
    lade_error_t error = {0};
    pid_t pid = s_sleeper();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    pthread_mutex_lock(&owner->lock);
    assert_int_equal(lade_leases_add(owner->leases, owner, pid, 0, &id, &error), LADE_VALUE_ERROR);
    assert_non_null(strstr(error.message, "ttl_s"));
    assert_int_equal(lade_leases_add(owner->leases, owner, -5, 0, &id, &error), LADE_VALUE_ERROR);
    assert_int_equal(lade_leases_count(owner->leases), 0);
    pthread_mutex_unlock(&owner->lock);
}

static void
test_a_lease_ends_when_its_time_is_up(void **state)
{
    s_owner_t *owner = *state;
    int64_t began = lade_mono_ms();
    s_add(owner, 0, 0, 0.05);
    s_add(owner, 1, 0, 3600);
    s_wait_ended(owner, 0);
    assert_true(lade_mono_ms() - began >= 50);
    assert_int_equal(s_ended(owner, 1), 0);
}

static void
test_a_renewed_lease_lives_on(void **state)
{
    s_owner_t *owner = *state;
    uint64_t id = s_add(owner, 0, 0, 0.1);
    pthread_mutex_lock(&owner->lock);
    assert_true(lade_leases_renew(owner->leases, id, 3600));
    pthread_mutex_unlock(&owner->lock);
    s_add(owner, 1, 0, 0.2); // ends later than the first would have
    s_wait_ended(owner, 1);
    assert_int_equal(s_ended(owner, 0), 0);
}

static void
test_an_attached_lease_ends_with_its_last_connection(void **state)
{
    s_owner_t *owner = *state;
    pid_t pid = s_sleeper();
    uint64_t id = s_add(owner, 0, pid, 0.01);
    pthread_mutex_lock(&owner->lock);
    bool attached = lade_leases_attach(owner->leases, id);
    if (attached)
        assert_true(lade_leases_attach(owner->leases, id));
    pthread_mutex_unlock(&owner->lock);
    if (!attached) { // the machine was so slow that its time was up before
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return;
    }
    s_add(owner, 1, pid, 0);
    kill(pid, SIGKILL);
    s_wait_ended(owner, 1); // another lease of that process ended,
    waitpid(pid, NULL, 0);
    assert_int_equal(s_ended(owner, 0), 0); // this one not, nor by its time
    pthread_mutex_lock(&owner->lock);
    pid_t pids[4];
    assert_int_equal(lade_leases_processes(owner->leases, &owner->ended[0], pids, 4), 1);
    assert_int_equal(pids[0], pid);
    assert_int_equal(lade_leases_processes(owner->leases, &owner->ended[1], pids, 4), 0);
    assert_true(lade_leases_end(owner->leases, id)); // nor by unlocking,
    assert_int_equal(owner->ended[0], 0);
    assert_null(lade_leases_find(owner->leases, id)); // though nobody else can use it any more
    assert_int_equal(lade_leases_count(owner->leases), 1);
    lade_leases_detach(owner->leases, id);
    assert_int_equal(owner->ended[0], 0);
    lade_leases_detach(owner->leases, id);
    assert_int_equal(owner->ended[0], 1);
    pthread_mutex_unlock(&owner->lock);
}

static void
test_leases_have_a_ceiling(void **state)
{
    s_owner_t *owner = *state;
    uint64_t id;
    lade_error_t error = {0};
    pthread_mutex_lock(&owner->lock);
    for (size_t i = 0; i < LADE_LEASES_MAX; i++)
        assert_int_equal(lade_leases_add(owner->leases, &owner->ended[0], 0, 0, &id, &error),
                         LADE_OK);
    assert_int_equal(lade_leases_add(owner->leases, &owner->ended[0], 0, 0, &id, &error),
                     LADE_QUEUE_FULL);
    pthread_mutex_unlock(&owner->lock);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_lease_ends_once, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_a_lease_dies_with_its_process, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_a_lease_on_no_process_is_refused, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_a_lease_ends_when_its_time_is_up, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_a_renewed_lease_lives_on, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_an_attached_lease_ends_with_its_last_connection,
                                        s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_leases_have_a_ceiling, s_setup, s_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
