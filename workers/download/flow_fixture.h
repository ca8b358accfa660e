// The engine with many connections at a time, on a large file: what its tests share.
#ifndef LADE_FLOW_FIXTURE_H
#define LADE_FLOW_FIXTURE_H

#include "workers/download/engine_fixture.h"

enum { S_LARGE = 24 << 20, S_FIRST = 4 << 20, S_MIB = 1 << 20 };

static inline int
s_start(void **state)
{
    s_start_hub(state);
    s_hub_t *hub = *state;
    char folder[128];
    s_make_file(hub->root, "large.safetensors", S_LARGE, 11, hub->large_sha256);
    s_make_file(hub->root, "other.safetensors", S_LARGE, 12, hub->other_sha256);
    static const char *const folders[] = {"repos", "repos/org", "repos/org/name"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(folder, sizeof folder, "%s/%s", hub->root, folders[i]);
        assert_int_equal(mkdir(folder, 0755), 0);
    }
    char file[160], name[160];
    snprintf(file, sizeof file, "%s/files/large.safetensors", hub->root);
    snprintf(name, sizeof name, "%s/large.safetensors", folder);
    assert_int_equal(link(file, name), 0);
    return 0;
}

// Another setting, for a new engine.
static inline void
s_configure(s_fixture_t *f, const char *name, const char *value)
{
    lade_engine_destroy(&f->engine);
    assert_int_equal(lade_config_set(&f->config, name, value, NULL), LADE_OK);
    s_new_engine(f);
}

static inline lade_request_t
s_wanted_large(s_fixture_t *f, const char **urls)
{
    lade_request_t request = s_wanted(f, "large.safetensors", urls);
    request.size = S_LARGE;
    return request;
}

static inline void
s_forget_log(s_fixture_t *f)
{
    json_decref(s_control(f, "DELETE", "log", NULL));
}

// Waits until so many bytes were told, which may be less than it has.
static inline void
s_wait_told(s_fixture_t *f, int64_t bytes)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += S_DEADLINE_S;
    pthread_mutex_lock(&f->lock);
    while (f->told < bytes && !f->ended)
        if (pthread_cond_timedwait(&f->news, &f->lock, &until) != 0)
            fail_msg("%" PRId64 " of %" PRId64 " bytes came, and no more", f->told, bytes);
    pthread_mutex_unlock(&f->lock);
}

// ---------------------------------------------------------------------------------------------------
// What the hub saw

typedef struct {
    size_t requests, parts; // in all; those answered 206
    int64_t asked;          // bytes of the ranges of these
    bool ordered;           // from the front, but for what is asked for at the same time
    bool apart;             // no byte was asked for twice
    int64_t connections;    // to the hub, at most at once
} s_seen_t;

// Whether a range comes after all that were not asked for at the same time.
static inline bool
s_is_in_order(const json_t *requests, size_t self, long long from, size_t together)
{
    for (size_t i = 0; i + together <= self; i++) {
        long long first;
        json_t *other = json_array_get(requests, i);
        if (sscanf(lade_json_text(other, "range", ""), "bytes=%lld-", &first) == 1 && first > from)
            return false;
    }
    return true;
}

static inline bool
s_is_apart(const json_t *requests, size_t self, long long from, long long to)
{
    for (size_t i = 0; i < self; i++) {
        long long first, last;
        json_t *other = json_array_get(requests, i);
        if (lade_json_int(other, "status", 0) == 206 &&
            sscanf(lade_json_text(other, "range", ""), "bytes=%lld-%lld", &first, &last) == 2 &&
            first <= to && from <= last)
            return false;
    }
    return true;
}

static inline s_seen_t
s_look(s_fixture_t *f)
{
    json_t *log = s_control(f, "GET", "log", NULL), *requests = json_object_get(log, "requests");
    json_t *hub = json_object_get(json_object_get(log, "connections"), "hub");
    s_seen_t seen = {.requests = json_array_size(requests),
                     .ordered = true,
                     .apart = true,
                     .connections = lade_json_int(hub, "max", 0)};
    long long from, to;
    for (size_t i = 0; i < seen.requests; i++) {
        json_t *request = json_array_get(requests, i);
        if (lade_json_int(request, "status", 0) != 206 ||
            sscanf(lade_json_text(request, "range", ""), "bytes=%lld-%lld", &from, &to) != 2)
            continue;
        seen.parts++;
        seen.asked += to + 1 - from;
        seen.ordered &= s_is_in_order(requests, i, from, (size_t)seen.connections);
        seen.apart &= s_is_apart(requests, i, from, to);
    }
    json_decref(log);
    return seen;
}

static inline int64_t
s_open_connections(s_fixture_t *f)
{
    json_t *totals = s_control(f, "GET", "totals", NULL);
    json_t *hub = json_object_get(json_object_get(totals, "connections"), "hub");
    int64_t open = lade_json_int(hub, "open", 0);
    json_decref(totals);
    return open;
}

// Asks the hub until so many connections are open to it.
static inline void
s_wait_connections(s_fixture_t *f, int64_t connections)
{
    int64_t until_ms = zclock_mono() + S_DEADLINE_S * 1000;
    while (s_open_connections(f) < connections)
        if (zclock_mono() > until_ms)
            fail_msg("there are not %" PRId64 " connections", connections);
}

// Ranges that the journal names; 0 if there is none.
static inline size_t
s_journal_ranges(s_fixture_t *f)
{
    char path[256], *text;
    size_t len, count = 0;
    snprintf(path, sizeof path, "%s/.large.safetensors.7.journal", f->folder);
    if (lade_path_read(path, 1 << 20, &text, &len, NULL))
        return 0;
    json_t *map = json_loadb(text, len, 0, NULL);
    count = json_array_size(json_object_get(map, "ranges"));
    json_decref(map);
    free(text);
    return count;
}

#endif
