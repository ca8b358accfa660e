// A link between two network namespaces that delays, paces and loses packets, for machines whose
// kernel has no netem.
//
//   relay [--delay-ms N] [--rate-mbit N] [--loss FRACTION] [--queue-ms N] [--seed N]
//         [--congctl NAME]
//
// Makes both namespaces with a TUN device each (10.99.0.1 is the server's end, 10.99.0.2 the
// client's) and prints one line when they are up:
//
//   ready /proc/PID/fd/N /proc/PID/fd/M     the server's and the client's namespace, for nsenter
//
// Then every packet that comes out of one device goes into the other: each way it waits for its
// turn at the rate, is dropped if that turn is further away than the queue is long or if the dice
// say so, and arrives after the delay. congctl is the congestion control of connections from the
// server's end. Ends when its standard input does, and the namespaces with the last process in
// them; then it prints what became of the packets. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN (root, or
// `unshare -Ur`) and the command `ip`.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
    S_MTU = 1500,
    S_SLOTS = 16384,     // packets under way, each way
    S_TICK_NS = 200000,  // packets are moved this often: a wake-up for each would cost a core
    S_INPUT_TICKS = 512, // ticks between looks at the standard input
};

typedef struct {
    int64_t due_ns;
    size_t len;
    uint8_t bytes[S_MTU];
} s_packet_t;

// One way of the link.
typedef struct {
    int from, to;        // TUN descriptors
    int64_t free_ns;     // when the line has sent all it was given
    uint64_t head, tail; // of the ring, counted for ever
    uint64_t lost, full;
    s_packet_t *ring;
} s_way_t;

typedef struct {
    double delay_ms, rate_mbit, loss, queue_ms;
    uint64_t dice;
    const char *congctl; // NULL: the kernel's
    s_way_t way[2];
} s_relay_t;

static void
s_die(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t
s_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// ---------------------------------------------------------------------------------------------------
// The two ends

// Runs `ip` with these words in the present namespace.
static void
s_ip(const char *words)
{
    char line[200], *argv[20] = {"ip"}, *rest = NULL;
    snprintf(line, sizeof line, "%s", words);
    size_t count = 1;
    for (char *word = strtok_r(line, " ", &rest); word && count < 19;
         word = strtok_r(NULL, " ", &rest))
        argv[count++] = word;
    pid_t pid;
    int status = 0;
    errno = posix_spawnp(&pid, "ip", NULL, NULL, argv, environ);
    if (errno || waitpid(pid, &status, 0) < 0)
        s_die("ip");
    if (status != 0) {
        fprintf(stderr, "relay: `ip %s` failed\n", words);
        exit(1);
    }
}

// A namespace of its own with a TUN device in it, both returned as descriptors. The process stays
// there.
static int
s_make_end(int number, const char *congctl, int *tun)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    char words[100], route[60] = "";
    if (unshare(CLONE_NEWNET))
        s_die("a network namespace");
    int space = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    *tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof request.ifr_name, "link0");
    if (space < 0 || *tun < 0 || ioctl(*tun, TUNSETIFF, &request))
        s_die("/dev/net/tun");
    s_ip("link set lo up");
    snprintf(words, sizeof words, "addr add 10.99.0.%d/30 dev link0", number);
    s_ip(words);
    s_ip("link set link0 mtu 1500 txqueuelen 10000 up");
    if (congctl) {
        snprintf(route, sizeof route, " congctl %.30s", congctl);
        snprintf(words, sizeof words, "route replace 10.99.0.0/30 dev link0%s", route);
        s_ip(words);
    }
    return space;
}

static void
s_make_ends(s_relay_t *self)
{
    int tun[2], space[2];
    for (int i = 0; i < 2; i++)
        space[i] = s_make_end(i + 1, i == 0 ? self->congctl : NULL, &tun[i]);
    for (int i = 0; i < 2; i++) {
        self->way[i].from = tun[i];
        self->way[i].to = tun[1 - i];
        self->way[i].ring = calloc(S_SLOTS, sizeof *self->way[i].ring);
        if (!self->way[i].ring)
            s_die("memory");
        memset(self->way[i].ring, 1, S_SLOTS * sizeof *self->way[i].ring); // no page comes later
    }
    printf("ready /proc/%d/fd/%d /proc/%d/fd/%d\n", getpid(), space[0], getpid(), space[1]);
    fflush(stdout);
}

// ---------------------------------------------------------------------------------------------------
// Packets

static bool
s_is_lost(s_relay_t *self)
{
    self->dice ^= self->dice << 13; // xorshift
    self->dice ^= self->dice >> 7;
    self->dice ^= self->dice << 17;
    return (double)(self->dice >> 11) < self->loss * 9007199254740992.0; // 2^53
}

// Takes what the device has and gives each packet its time.
static void
s_take(s_relay_t *self, s_way_t *way, int64_t now)
{
    while (true) {
        uint8_t none[S_MTU];
        bool full = way->tail - way->head == S_SLOTS;
        s_packet_t *packet = &way->ring[way->tail % S_SLOTS];
        ssize_t len = read(way->from, full ? none : packet->bytes, S_MTU);
        if (len <= 0)
            return;
        int64_t starts = way->free_ns > now ? way->free_ns : now;
        if (full || (double)(starts - now) > self->queue_ms * 1e6) {
            way->full++;
            continue;
        }
        way->free_ns = starts + (int64_t)((double)len * 8e3 / self->rate_mbit);
        if (s_is_lost(self)) { // on the line, so its time was used
            way->lost++;
            continue;
        }
        packet->due_ns = way->free_ns + (int64_t)(self->delay_ms * 1e6);
        packet->len = (size_t)len;
        way->tail++;
    }
}

static void
s_give(s_way_t *way, int64_t now)
{
    while (way->head != way->tail && way->ring[way->head % S_SLOTS].due_ns <= now) {
        s_packet_t *packet = &way->ring[way->head++ % S_SLOTS];
        if (write(way->to, packet->bytes, packet->len) < 0)
            way->full++;
    }
}

static bool
s_input_ended(s_relay_t *self, int timeout_ms)
{
    char word[64];
    struct pollfd wait[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = self->way[0].from, .events = POLLIN},
                            {.fd = self->way[1].from, .events = POLLIN}};
    if (poll(wait, timeout_ms ? 3 : 1, timeout_ms) <= 0 || !wait[0].revents)
        return false;
    return read(STDIN_FILENO, word, sizeof word) <= 0;
}

static void
s_run(s_relay_t *self)
{
    for (uint64_t ticks = 1;; ticks++) {
        int64_t now = s_now_ns();
        for (int i = 0; i < 2; i++) {
            s_take(self, &self->way[i], now);
            s_give(&self->way[i], now);
        }
        bool idle =
            self->way[0].head == self->way[0].tail && self->way[1].head == self->way[1].tail;
        if ((idle || ticks % S_INPUT_TICKS == 0) && s_input_ended(self, idle ? -1 : 0))
            return;
        if (!idle)
            nanosleep(&(struct timespec){.tv_nsec = S_TICK_NS}, NULL);
    }
}

static void
s_parse(s_relay_t *self, int argc, char **argv)
{
    static const struct option options[] = {
        {"delay-ms", required_argument, NULL, 'd'},
        {"rate-mbit", required_argument, NULL, 'r'},
        {"loss", required_argument, NULL, 'l'},
        {"queue-ms", required_argument, NULL, 'q'},
        {"seed", required_argument, NULL, 's'},
        {"congctl", required_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    bool right = true;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        double *number = option == 'd'   ? &self->delay_ms
                         : option == 'r' ? &self->rate_mbit
                         : option == 'l' ? &self->loss
                         : option == 'q' ? &self->queue_ms
                                         : NULL;
        if (number)
            *number = strtod(optarg, NULL);
        else if (option == 's')
            self->dice ^= strtoull(optarg, NULL, 10);
        else if (option == 'c')
            self->congctl = optarg;
        else
            right = false;
    }
    if (right && optind == argc && self->rate_mbit > 0 && self->delay_ms >= 0 &&
        self->queue_ms >= 0 && self->loss >= 0 && self->loss < 1)
        return;
    fprintf(stderr, "usage: relay [--delay-ms N] [--rate-mbit N] [--loss FRACTION] [--queue-ms N] "
                    "[--seed N] [--congctl NAME]\n");
    exit(2);
}

int
main(int argc, char **argv)
{
    s_relay_t *self = calloc(1, sizeof *self);
    if (!self)
        s_die("memory");
    *self =
        (s_relay_t){.delay_ms = 10, .rate_mbit = 600, .queue_ms = 40, .dice = 0x9e3779b97f4a7c15};
    s_parse(self, argc, argv);
    prctl(PR_SET_TIMERSLACK, 1);
    s_make_ends(self);
    s_run(self);
    for (int i = 0; i < 2; i++)
        printf("%s: %" PRIu64 " packets through, %" PRIu64 " lost, %" PRIu64 " found no room\n",
               i ? "from the client" : "from the server", self->way[i].head, self->way[i].lost,
               self->way[i].full);
    for (int i = 0; i < 2; i++)
        free(self->way[i].ring);
    free(self);
    return 0;
}
