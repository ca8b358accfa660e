// The journal and the turn's events.
//
// A turn's events are one value in the keyspace, under the seq of its first: a job that is
// submitted, runs and ends tells three events, and three writes for them would cost more than the
// job. An array in memory has the first seq of each value, so that a replay finds its beginning.
#include "broker/events.h"

#include "broker/packer.h"
#include "common/wire.h"

#include <czmq.h>

typedef struct {
    size_t topic, topic_len, body, len;
    bool journaled;
} s_event_t;

struct lade_events {
    lade_store_t *store;
    uint64_t max_events;
    uint64_t epoch;
    uint64_t seq;       // newest given out
    uint64_t committed; // newest in the keyspace
    uint64_t *firsts;   // first seq of each value in the journal, from firsts[first] on
    size_t first, count, cap;
    // the turn
    lade_buf_t bodies, topics, journal;
    s_event_t *events;
    size_t event_count, event_cap;
};

static void
s_add_first(lade_events_t *self, uint64_t seq)
{
    if (self->first > 1024 && self->first > self->count) {
        memmove(self->firsts, self->firsts + self->first, self->count * sizeof *self->firsts);
        self->first = 0;
    }
    if (self->first + self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 256;
        self->firsts = realloc(self->firsts, self->cap * sizeof *self->firsts);
        if (!self->firsts)
            abort();
    }
    self->firsts[self->first + self->count++] = seq;
}

static bool
s_see_value(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)value;
    uint64_t wire;
    if (key.len == sizeof wire) {
        memcpy(&wire, key.data, sizeof wire);
        s_add_first(arg, be64toh(wire));
    }
    return true;
}

lade_code_t
lade_events_open(lade_store_t *store, int64_t max_events, lade_events_t **self_p,
                 lade_error_t *error)
{
    lade_events_t *self = zmalloc(sizeof *self);
    self->store = store;
    self->max_events = (uint64_t)max_events;
    self->bodies = self->topics = self->journal = LADE_BUF(SIZE_MAX / 2);
    uint64_t next = 1;
    lade_code_t code = lade_store_get_number(store, "next_seq", &next, error);
    if (!code || code == LADE_NOT_FOUND)
        code = lade_store_get_number(store, "epoch", &self->epoch, error);
    if (!code || code == LADE_NOT_FOUND)
        code = lade_store_scan(store, LADE_DB_EVENTS, NULL, 0, 0, false, s_see_value, self, error);
    if (!code)
        code = lade_store_put_number(store, "epoch", ++self->epoch, error);
    self->seq = self->committed = next - 1;
    *self_p = self;
    if (code)
        lade_events_close(self_p);
    return code;
}

uint64_t
lade_events_seq(const lade_events_t *self)
{
    return self->seq;
}

uint64_t
lade_events_epoch(const lade_events_t *self)
{
    return self->epoch;
}

// ---------------------------------------------------------------------------------------------------
// Making one

static s_event_t *
s_begin(lade_events_t *self, const char *name, const char *id, size_t id_len, bool journaled)
{
    if (self->event_count == self->event_cap) {
        self->event_cap = self->event_cap ? self->event_cap * 2 : 64;
        self->events = realloc(self->events, self->event_cap * sizeof *self->events);
        if (!self->events)
            abort();
    }
    s_event_t *event = &self->events[self->event_count++];
    *event =
        (s_event_t){.topic = self->topics.len, .body = self->bodies.len, .journaled = journaled};
    lade_put_raw(&self->topics, name, strlen(name));
    lade_put_byte(&self->topics, '/');
    lade_put_raw(&self->topics, id, id_len);
    lade_put_byte(&self->topics, '/');
    event->topic_len = self->topics.len - event->topic;
    lade_wire_mend_text(self->topics.data + event->topic, event->topic_len);
    self->seq += journaled;
    return event;
}

static void
s_put_tail(lade_events_t *self, bool journaled, double now)
{
    lade_buf_t *buf = &self->bodies;
    LADE_PUT_KEY(buf, "seq");
    lade_put_uint(buf, self->seq);
    LADE_PUT_KEY(buf, "epoch");
    lade_put_uint(buf, self->epoch);
    LADE_PUT_KEY(buf, "timestamp");
    lade_put_real(buf, now);
    if (journaled)
        return;
    LADE_PUT_KEY(buf, "progress");
    lade_put_bool(buf, true);
}

lade_buf_t *
lade_events_begin(lade_events_t *self, const char *name, uint64_t job_id, size_t pairs,
                  bool journaled, double now)
{
    char digits[24], *at = digits + sizeof digits;
    uint64_t rest = job_id;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    s_begin(self, name, at, (size_t)(digits + sizeof digits - at), journaled);
    lade_buf_t *buf = &self->bodies;
    lade_put_map(buf, pairs + 5 + !journaled);
    LADE_PUT_KEY(buf, "event");
    lade_put_str(buf, name);
    LADE_PUT_KEY(buf, "id");
    lade_put_uint(buf, job_id);
    s_put_tail(self, journaled, now);
    return buf;
}

lade_buf_t *
lade_events_begin_named(lade_events_t *self, const char *name, const char *id, size_t pairs,
                        bool journaled, double now)
{
    s_begin(self, name, id, strlen(id), journaled);
    lade_buf_t *buf = &self->bodies;
    lade_put_map(buf, pairs + 5 + !journaled);
    LADE_PUT_KEY(buf, "event");
    lade_put_str(buf, name);
    LADE_PUT_KEY(buf, "id");
    lade_put_str(buf, id);
    s_put_tail(self, journaled, now);
    return buf;
}

void
lade_events_end(lade_events_t *self)
{
    s_event_t *event = &self->events[self->event_count - 1];
    event->len = self->bodies.len - event->body;
    lade_wire_mend(self->bodies.data + event->body, event->len);
    if (event->journaled)
        lade_put_raw(&self->journal, self->bodies.data + event->body, event->len);
}

// ---------------------------------------------------------------------------------------------------
// The turn

// Values whose events are all over the ceiling go, a few in each turn.
static void
s_drop_old(lade_events_t *self)
{
    enum { S_MOST = 64 };
    for (int i = 0; i < S_MOST && self->count > 1; i++) {
        if (self->firsts[self->first + 1] + self->max_events > self->seq + 1)
            return;
        uint64_t key = htobe64(self->firsts[self->first]);
        if (lade_store_del(self->store, LADE_DB_EVENTS, &key, sizeof key, NULL))
            return;
        self->first++;
        self->count--;
    }
}

void
lade_events_write(lade_events_t *self)
{
    if (self->seq == self->committed)
        return;
    uint64_t key = htobe64(self->committed + 1);
    lade_store_put(self->store, LADE_DB_EVENTS, &key, sizeof key, self->journal.data,
                   self->journal.len, true, NULL);
    lade_store_put_number(self->store, "next_seq", self->seq + 1, NULL);
    s_add_first(self, self->committed + 1);
    s_drop_old(self);
}

void
lade_events_each(const lade_events_t *self,
                 void (*each)(void *arg, const char *topic, size_t topic_len, const char *body,
                              size_t len),
                 void *arg)
{
    for (size_t i = 0; i < self->event_count; i++) {
        const s_event_t *event = &self->events[i];
        each(arg, self->topics.data + event->topic, event->topic_len,
             self->bodies.data + event->body, event->len);
    }
}

size_t
lade_events_pending(const lade_events_t *self)
{
    return self->event_count;
}

// What one turn with very many events took is given back.
static void
s_reset(lade_buf_t *buf)
{
    enum { S_KEEP = 4 << 20 };
    if (buf->cap > S_KEEP)
        lade_buf_free(buf);
    buf->len = 0;
}

void
lade_events_turn(lade_events_t *self, bool committed)
{
    if (committed) {
        self->committed = self->seq;
    } else {
        self->seq = self->committed;
        self->first = self->count = 0;
        lade_store_scan(self->store, LADE_DB_EVENTS, NULL, 0, 0, false, s_see_value, self, NULL);
    }
    s_reset(&self->bodies);
    s_reset(&self->topics);
    s_reset(&self->journal);
    self->event_count = 0;
}

// ---------------------------------------------------------------------------------------------------
// Replay

typedef struct {
    lade_buf_t *buf;
    uint64_t seq; // events above it are wanted
    const char *const *prefixes;
    size_t prefix_count;
    size_t count, limit, room; // room: bytes that may be added
    uint64_t next;             // the last seq looked at
    bool more;
} s_replay_t;

static bool
s_wanted(const s_replay_t *self, const msgpack_object *event)
{
    const char *name;
    size_t len;
    if (self->prefix_count == 0)
        return true;
    if (!lade_wire_text(event, "event", &name, &len))
        return false;
    for (size_t i = 0; i < self->prefix_count; i++) {
        size_t prefix_len = strlen(self->prefixes[i]);
        if (prefix_len <= len && memcmp(self->prefixes[i], name, prefix_len) == 0)
            return true;
    }
    return false;
}

// One event of a value; false when the answer is full.
static bool
s_replay_one(s_replay_t *self, const msgpack_object *event, const char *bytes, size_t len)
{
    uint64_t seq = (uint64_t)lade_wire_int(event, "seq", 0);
    if (seq <= self->seq)
        return true;
    if (s_wanted(self, event)) {
        if (self->count == self->limit || (self->count && len > self->room)) {
            self->more = true;
            return false;
        }
        lade_put_raw(self->buf, bytes, len);
        self->room -= len < self->room ? len : self->room;
        self->count++;
    }
    self->next = seq;
    return true;
}

static bool
s_replay_value(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)key;
    s_replay_t *self = arg;
    msgpack_unpacked event;
    msgpack_unpacked_init(&event);
    size_t at = 0, from = 0;
    while (!self->more &&
           msgpack_unpack_next(&event, value.data, value.len, &at) == MSGPACK_UNPACK_SUCCESS) {
        s_replay_one(self, &event.data, (const char *)value.data + from, at - from);
        from = at;
    }
    msgpack_unpacked_destroy(&event);
    return !self->more;
}

// The key of the last value that begins at or before seq.
static uint64_t
s_value_of(const lade_events_t *self, uint64_t seq)
{
    size_t low = 0, high = self->count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (self->firsts[self->first + middle] <= seq)
            low = middle;
        else
            high = middle;
    }
    return self->firsts[self->first + low];
}

uint64_t
lade_events_oldest(const lade_events_t *self)
{
    return self->count ? self->firsts[self->first] : self->committed + 1;
}

lade_code_t
lade_events_since(lade_events_t *self, uint64_t seq, const char *const *prefixes,
                  size_t prefix_count, size_t limit, size_t max_bytes, lade_buf_t *buf,
                  lade_error_t *error)
{
    uint64_t oldest = lade_events_oldest(self);
    if (seq + 1 < oldest)
        return lade_error_set(error, LADE_TOO_OLD,
                              "the journal begins with seq %" PRIu64 ", events after %" PRIu64
                              " were asked for; take events.snapshot and go on from its seq",
                              oldest, seq);
    lade_buf_t found = LADE_BUF(SIZE_MAX / 2);
    s_replay_t replay = {.buf = &found,
                         .seq = seq,
                         .prefixes = prefixes,
                         .prefix_count = prefix_count,
                         .limit = limit,
                         .room = max_bytes,
                         .next = seq};
    lade_code_t code = LADE_OK;
    if (seq < self->committed && self->count) {
        uint64_t key = htobe64(s_value_of(self, seq + 1));
        code = lade_store_scan(self->store, LADE_DB_EVENTS, &key, sizeof key, 0, false,
                               s_replay_value, &replay, error);
    }
    if (!code) {
        lade_put_map(buf, 4);
        LADE_PUT_KEY(buf, "events");
        lade_put_array(buf, replay.count);
        lade_put_raw(buf, found.data ? found.data : "", found.len);
        LADE_PUT_KEY(buf, "seq");
        lade_put_uint(buf, self->committed);
        LADE_PUT_KEY(buf, "more");
        lade_put_bool(buf, replay.more);
        LADE_PUT_KEY(buf, "next");
        lade_put_uint(buf, replay.more || seq > self->committed ? replay.next : self->committed);
    }
    lade_buf_free(&found);
    return code;
}

void
lade_events_close(lade_events_t **self_p)
{
    lade_events_t *self = *self_p;
    if (!self)
        return;
    free(self->firsts);
    free(self->events);
    lade_buf_free(&self->bodies);
    lade_buf_free(&self->topics);
    lade_buf_free(&self->journal);
    free(self);
    *self_p = NULL;
}
