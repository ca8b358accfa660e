// Any requests and worker messages, in any order, to the real dispatcher: nothing crashes, and what
// the broker says is well formed.
//
// The input is a script, played to a fresh broker. One byte says what comes, the bits above say
// from which of four peers:
//
//   0..2  request    [service, 1 byte: a row of s_services][length, 2 bytes, big-endian][body]
//   3..5  worker     [command, 1 byte][length, 2 bytes][body]
//   6     the turn ends; with bit 5, its commit fails
//   7     time passes [quarters of a second, 1 byte]
//
// With the highest bit set it is a message frame by frame, from a worker if bit 6 is: [frames, 1
// byte], and each [length, 1 byte][bytes], 255 standing for the frame a good message has there.
#include "broker/router.h"
#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { S_MAX_STEPS = 64 };

static const char *const s_services[] = {"jobs",        "store",          "install", "download",
                                         "load",        "events",         "broker",  "",
                                         "mmi.service", "no such service"};

typedef struct {
    const uint8_t *at, *end;
} s_script_t;

static unsigned
s_byte(s_script_t *script)
{
    return script->at < script->end ? *script->at++ : 0;
}

static size_t
s_body(s_script_t *script, const uint8_t **body)
{
    size_t len = s_byte(script) << 8;
    len |= s_byte(script);
    if (len > (size_t)(script->end - script->at))
        len = (size_t)(script->end - script->at);
    *body = script->at;
    script->at += len;
    return len;
}

static void
s_expect(bool true_of_every_message)
{
    if (!true_of_every_message)
        abort();
}

// Everything that leaves the broker is one msgpack map; an answer has an id and either a result or
// an error with a code.
static const char *
s_fault(lade_sent_t kind, int command, const char *body, size_t len)
{
    json_t *value;
    const char *fault = NULL;
    lade_error_t error;
    if (kind == LADE_SENT_CLIENT && len <= 3)
        return NULL; // mmi answers are bare
    if (lade_wire_check(body, len, &error))
        return "no msgpack value";
    if (lade_wire_to_json(body, len, &value, &error))
        return NULL; // what a peer sent comes back as it was, and may have keys that are no text
    if (!json_is_object(value))
        fault = "no map";
    if (kind == LADE_SENT_CLIENT && !json_object_get(value, "id"))
        fault = "an answer without id";
    if (kind == LADE_SENT_CLIENT && command == LADE_MDP_FINAL &&
        !lade_json_bool(value, "ok", false) &&
        !*lade_json_text(json_object_get(value, "error"), "code", ""))
        fault = "neither ok nor an error with a code";
    if (kind == LADE_SENT_WORKER && command != LADE_W_BEAT &&
        (command < LADE_W_WELCOME || command >= LADE_W_END))
        fault = "no command for a worker";
    json_decref(value);
    return fault;
}

static void
s_on_sent(void *arg, lade_sent_t kind, const char *to, size_t to_len, int command, const char *body,
          size_t len)
{
    (void)arg;
    const char *fault = to && to_len ? s_fault(kind, command, body, len) : "for nobody";
    if (!fault)
        return;
    fprintf(stderr, "%s (kind %d, command %d):", fault, (int)kind, command);
    for (size_t i = 0; i < len; i++)
        fprintf(stderr, body[i] > ' ' && body[i] < 0x7f ? "%c" : "\\x%02x", (unsigned char)body[i]);
    fprintf(stderr, "\n");
    abort();
}

static void
s_frames(lade_router_t *router, s_script_t *script, const char *peer, bool from_worker)
{
    enum { S_MOST = 12 };
    static const char *const good[2][5] = {{"", "", LADE_MDP_CLIENT, "\x01", "jobs"},
                                           {"", "", LADE_WORKER_PROTOCOL, "\x02", "\x80"}};
    const void *frames[S_MOST] = {peer};
    size_t lens[S_MOST] = {strlen(peer)}, count = 1 + s_byte(script) % (S_MOST - 1);
    for (size_t i = 1; i < count; i++) {
        lens[i] = s_byte(script);
        frames[i] = script->at;
        if (lens[i] == 255 && i < 5) {
            frames[i] = good[from_worker][i];
            lens[i] = strlen(good[from_worker][i]);
            continue;
        }
        if (lens[i] > (size_t)(script->end - script->at))
            lens[i] = (size_t)(script->end - script->at);
        script->at += lens[i];
    }
    lade_router_feed_frames(router, from_worker, frames, lens, count);
}

static void
s_play(lade_router_t *router, s_script_t *script)
{
    static const char *const peers[] = {"one", "two", "three", "four"};
    for (int step = 0; step < S_MAX_STEPS && script->at < script->end; step++) {
        unsigned what = s_byte(script), which;
        const char *peer = peers[what >> 3 & 3];
        const uint8_t *body;
        size_t len;
        if (what & 0x80) {
            s_frames(router, script, peer, what & 0x40);
            continue;
        }
        switch (what & 7) {
        default:
            which = s_byte(script);
            len = s_body(script, &body);
            if ((what & 7) <= 2) {
                const char *service = s_services[which % (sizeof s_services / sizeof *s_services)];
                lade_router_feed_client(router, peer, service, strlen(service), body, len);
            } else {
                lade_router_feed_worker(router, peer, (int)which, body, len);
            }
            break;
        case 6:
            if (what & 0x20)
                lade_router_break_commits(router, 1);
            lade_router_turn(router);
            break;
        case 7:
            lade_router_skip(router, s_byte(script) * 250);
            lade_router_turn(router);
            break;
        }
    }
    lade_router_turn(router);
    lade_router_skip(router, 10000);
    lade_router_turn(router);
}

// Memory stands in for the disk: a commit is to be no slower than what is tested.
static const char *
s_folder(void)
{
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    lade_log_open("broker_fuzz", (lade_log_level_t)-1);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    lade_config_t config;
    lade_router_t *router;
    lade_error_t error = {0};
    char folder[64];
    snprintf(folder, sizeof folder, "%s/lade-fuzz-XXXXXX", s_folder());
    s_expect(mkdtemp(folder) != NULL);
    if (lade_config_load(&config, "", folder, &error) ||
        lade_router_open(&config, &router, &error)) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    lade_router_on_sent(router, s_on_sent, NULL);
    s_play(router, &(s_script_t){data, data + len});
    lade_router_close(&router);

    // And what it wrote can be taken up again.
    s_expect(lade_router_open(&config, &router, &error) == LADE_OK);
    lade_router_turn(router);
    lade_router_close(&router);
    lade_config_free(&config);
    lade_path_remove(folder, NULL);
    return 0;
}
