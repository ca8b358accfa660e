// What outlives this worker: the keeper holds the segments that are whole and the connections of
// who looks at them, and the next worker takes both over.
#include "workers/gpu/cache_private.h"

#include "common/keep.h"
#include "common/log.h"
#include "common/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
s_entry_id(const lade_cache_t *self, const lade_cache_entry_t *entry, char *id, size_t size)
{
    snprintf(id, size, "segment/%s/%" PRIu64, self->name, entry->region->generation);
}

static void
s_peer_id(const lade_cache_t *self, const lade_cache_peer_t *peer, char *id, size_t size)
{
    snprintf(id, size, "connection/%s/%d", self->name, peer->connection);
}

void
lade_cache_keep_entry(lade_cache_t *self, const lade_cache_entry_t *entry)
{
    char id[LADE_KEEP_MAX_ID];
    const lade_want_t *want = &entry->want;
    if (!self->keep || entry->stale || entry->place->device) // a device's memory goes with us
        return;
    json_t *facts = json_pack(
        "{s:s, s:s, s:s?, s:o, s:I, s:I, s:I, s:s, s:b, s:b, s:i, s:b, s:s}", "is", "segment",
        "key", entry->key, "submodel", entry->submodel, "files", lade_stamps_pack(&entry->stamps),
        "length", (json_int_t)entry->length, "size", (json_int_t)entry->region->size, "generation",
        (json_int_t)entry->region->generation, "precision", entry->precision, "unsafe",
        entry->unsafe, "cast", want->cast, "dtype", (int)want->dtype, "channels_last",
        want->channels_last, "device", want->device);
    json_object_update(facts, entry->called);
    s_entry_id(self, entry, id, sizeof id);
    lade_keep_put(self->keep, id, facts, entry->region->fd);
    json_decref(facts);
}

void
lade_cache_keep_not(lade_cache_t *self, const lade_cache_entry_t *entry)
{
    char id[LADE_KEEP_MAX_ID];
    if (!self->keep || entry->place->device)
        return;
    s_entry_id(self, entry, id, sizeof id);
    lade_keep_drop(self->keep, id);
}

static void
s_keep_peer(lade_cache_t *self, const lade_cache_peer_t *peer)
{
    char id[LADE_KEEP_MAX_ID];
    if (!self->keep)
        return;
    json_t *facts =
        json_pack("{s:s, s:I}", "is", "connection", "generation", (json_int_t)peer->generation);
    s_peer_id(self, peer, id, sizeof id);
    lade_keep_put(self->keep, id, facts, peer->connection);
    json_decref(facts);
}

void
lade_cache_keep_tend(lade_cache_t *self, bool now)
{
    if (!self->keep || !lade_keep_again(self->keep, now))
        return;
    for (const lade_cache_entry_t *entry = self->entries; entry; entry = entry->next)
        if (entry->state == LADE_ENTRY_READY)
            lade_cache_keep_entry(self, entry);
    for (const lade_cache_peer_t *peer = self->peers; peer; peer = peer->next)
        s_keep_peer(self, peer);
}

void
lade_cache_keeper_came(lade_cache_t *self)
{
    pthread_mutex_lock(&self->lock);
    lade_cache_keep_tend(self, true);
    pthread_mutex_unlock(&self->lock);
}

// Leases by which processes are attached to host memory.
static size_t
s_attached_leases(const lade_cache_t *self)
{
    size_t count = 0;
    for (const lade_cache_peer_t *peer = self->peers; peer; peer = peer->next) {
        const lade_cache_peer_t *other = self->peers;
        while (other->lease != peer->lease)
            other = other->next;
        count += other == peer;
    }
    return count;
}

bool
lade_cache_can_leave(lade_cache_t *self)
{
    pthread_mutex_lock(&self->lock);
    size_t leases = lade_leases_count(self->leases);
    bool can = !leases ||
               (self->keep && lade_keep_connected(self->keep) && leases == s_attached_leases(self));
    pthread_mutex_unlock(&self->lock);
    return can;
}

void
lade_cache_leave(lade_cache_t *self)
{
    pthread_mutex_lock(&self->lock);
    if (self->keep)
        lade_keep_leave(self->keep);
    pthread_mutex_unlock(&self->lock);
}

// ---------------------------------------------------------------------------------------------------
// Who is attached

static lade_code_t
s_attach(void *arg, const char *lease, int *fd_p, uint64_t *length_p, lade_share_t *share,
         uint64_t *id_p, lade_error_t *error)
{
    lade_cache_t *self = arg;
    uint64_t id = lade_cache_lease_id(self, lease);
    lade_code_t code = LADE_OK;
    pthread_mutex_lock(&self->lock);
    lade_cache_entry_t *entry = id ? lade_leases_find(self->leases, id) : NULL;
    if (!entry)
        code = lade_error_set(error, LADE_STALE_LEASE,
                              "the lease %.100s is over: load the model again", lease);
    else if (entry->place->device)
        code = lade_vram_share(entry->place->device, &entry->block, share, error);
    if (!code && lade_leases_attach(self->leases, id)) {
        const lade_segment_head_t *head = (const void *)entry->region->bytes;
        *fd_p = entry->region->fd; // stays while the entry is locked
        *length_p = entry->place->device ? head->data_at : entry->length;
        *id_p = id;
    }
    pthread_mutex_unlock(&self->lock);
    return code;
}

static void
s_detach(void *arg, uint64_t id)
{
    lade_cache_t *self = arg;
    pthread_mutex_lock(&self->lock);
    lade_leases_detach(self->leases, id);
    pthread_mutex_unlock(&self->lock);
}

// The segment goes to who is at the other end of the connection next. The keeper knows of it
// before: else a crash in between would leave a process with a segment that nobody holds for it.
static void
s_attached(void *arg, uint64_t id, int connection)
{
    lade_cache_t *self = arg;
    lade_cache_peer_t *peer = calloc(1, sizeof *peer);
    if (!peer)
        abort();
    pthread_mutex_lock(&self->lock);
    const lade_cache_entry_t *entry = lade_leases_holds(self->leases, id);
    if (!entry->place->device) {
        *peer = (lade_cache_peer_t){self->peers, connection, id, entry->region->generation};
        self->peers = peer;
        s_keep_peer(self, peer);
        peer = NULL;
    }
    pthread_mutex_unlock(&self->lock);
    free(peer);
}

// The connection is about to be closed.
static void
s_parted(void *arg, int connection)
{
    lade_cache_t *self = arg;
    char id[LADE_KEEP_MAX_ID];
    pthread_mutex_lock(&self->lock);
    lade_cache_peer_t **at = &self->peers;
    while (*at && (*at)->connection != connection)
        at = &(*at)->next;
    lade_cache_peer_t *peer = *at;
    if (peer) {
        *at = peer->next;
        s_peer_id(self, peer, id, sizeof id);
        if (self->keep)
            lade_keep_drop(self->keep, id);
    }
    pthread_mutex_unlock(&self->lock);
    free(peer);
}

// Connections that outlived the worker that had them.
static size_t
s_inherited(void *arg, lade_attach_peer_t *peers, size_t most)
{
    lade_cache_t *self = arg;
    size_t count = 0;
    pthread_mutex_lock(&self->lock);
    for (const lade_cache_peer_t *peer = self->peers; peer && count < most; peer = peer->next)
        peers[count++] = (lade_attach_peer_t){peer->connection, peer->lease};
    pthread_mutex_unlock(&self->lock);
    return count;
}

const lade_attach_ops_t lade_cache_attach_ops = {.attach = s_attach,
                                                 .detach = s_detach,
                                                 .attached = s_attached,
                                                 .parted = s_parted,
                                                 .inherited = s_inherited};

// ---------------------------------------------------------------------------------------------------
// Taking over what a worker that crashed left

// Connections wait here until all segments are there.
typedef struct {
    lade_cache_t *cache;
    lade_cache_peer_t *waiting;
    size_t segments, bytes;
} s_heir_t;

// Only what was finished was handed over; and what it says of itself has to be what is said of it.
static bool
s_is_whole(const lade_region_t *region, uint64_t length)
{
    lade_segment_t *segment = NULL;
    bool whole = !lade_segment_open(region->bytes, region->size, &segment, NULL) &&
                 lade_segment_bytes(segment) == length &&
                 lade_segment_generation(segment) == region->generation;
    lade_segment_close(&segment);
    return whole;
}

// Makes an entry of a record; false if it is none that can be used.
static bool
s_inherit_segment(s_heir_t *heir, const json_t *facts, int fd)
{
    lade_cache_t *self = heir->cache;
    lade_cache_place_t *host = &self->places[0];
    lade_region_t *region = NULL;
    const char *submodel = lade_json_text(facts, "submodel", NULL);
    uint64_t length = (uint64_t)lade_json_int(facts, "length", 0);
    lade_cache_request_t request = {.key = lade_json_text(facts, "key", ""), .submodel = submodel};
    request.want.cast = lade_json_bool(facts, "cast", false);
    request.want.dtype = (lade_dtype_t)lade_json_int(facts, "dtype", 0);
    request.want.channels_last = lade_json_bool(facts, "channels_last", false);
    snprintf(request.want.device, sizeof request.want.device, "%s",
             lade_json_text(facts, "device", ""));
    request.record = facts;
    if (!*request.key || length > host->limit || host->held > host->limit - length ||
        lade_cache_entry_find(self, &request) ||
        lade_memory_adopt(self->memory, fd, (size_t)lade_json_int(facts, "size", 0),
                          (uint64_t)lade_json_int(facts, "generation", 0), &region, NULL))
        return false;
    lade_stamps_t stamps;
    if (!lade_stamps_unpack(&stamps, json_object_get(facts, "files")) ||
        !s_is_whole(region, length)) {
        lade_stamps_free(&stamps);
        lade_memory_put(self->memory, &region); // closes fd
        return true;
    }
    lade_cache_entry_t *entry = lade_cache_entry_new(&request, host, &stamps);
    snprintf(entry->kept_precision, sizeof entry->kept_precision, "%s",
             lade_json_text(facts, "precision", "none"));
    entry->precision = entry->kept_precision;
    entry->unsafe = lade_json_bool(facts, "unsafe", true);
    entry->state = LADE_ENTRY_READY;
    entry->bytes = entry->length = length;
    entry->region = region;
    entry->used = ++self->uses;
    entry->last_used = lade_now();
    lade_cache_hold(host, length);
    lade_cache_entry_add(self, entry);
    heir->segments++;
    heir->bytes += length;
    return true;
}

static void
s_on_record(void *arg, const json_t *facts, int fd)
{
    s_heir_t *heir = arg;
    const char *is = lade_json_text(facts, "is", "");
    if (!strcmp(is, "connection")) {
        lade_cache_peer_t *peer = calloc(1, sizeof *peer);
        if (!peer)
            abort();
        uint64_t generation = (uint64_t)lade_json_int(facts, "generation", 0);
        *peer = (lade_cache_peer_t){heir->waiting, fd, 0, generation};
        heir->waiting = peer;
    } else if (strcmp(is, "segment") != 0 || !s_inherit_segment(heir, facts, fd))
        close(fd);
}

static lade_cache_entry_t *
s_find_generation(const lade_cache_t *self, uint64_t generation)
{
    lade_cache_entry_t *entry = self->entries;
    while (entry && entry->region->generation != generation)
        entry = entry->next;
    return entry;
}

// A connection holds its segment again, with a lease of its own; one of a segment that is not there
// any more is closed: what its process sees stays what it was, but nobody counts it.
static void
s_inherit_peer(lade_cache_t *self, lade_cache_peer_t *peer)
{
    lade_cache_entry_t *entry = s_find_generation(self, peer->generation);
    if (!entry || lade_leases_add(self->leases, entry, 0, 0, &peer->lease, NULL)) {
        close(peer->connection);
        free(peer);
        return;
    }
    entry->locks++;
    lade_leases_attach(self->leases, peer->lease);
    peer->next = self->peers;
    self->peers = peer;
}

void
lade_cache_keep(lade_cache_t *self, lade_keep_t *keep)
{
    s_heir_t heir = {.cache = self};
    pthread_mutex_lock(&self->lock);
    self->keep = keep;
    lade_keep_take(keep, s_on_record, &heir);
    size_t connections = 0;
    for (lade_cache_peer_t *peer = heir.waiting, *next; peer; peer = next, connections++) {
        next = peer->next;
        s_inherit_peer(self, peer);
    }
    for (const lade_cache_entry_t *entry = self->entries; entry; entry = entry->next)
        lade_cache_keep_entry(self, entry);
    for (const lade_cache_peer_t *peer = self->peers; peer; peer = peer->next)
        s_keep_peer(self, peer);
    pthread_mutex_unlock(&self->lock);
    if (heir.segments || connections)
        lade_log(LADE_LOG_INFO, "cache",
                 "%zu models of %zu bytes and %zu connections of a worker that is gone are taken "
                 "over",
                 heir.segments, heir.bytes, connections);
}
