// Waiting for the table to change, and making room in a place: who goes, who stays.
#include "workers/gpu/cache_private.h"

#include "common/log.h"

#include <assert.h>
#include <time.h>

enum {
    S_WAIT_MS = 100, // between two questions whether a waiting load is to stop
};

lade_code_t
lade_cache_wait(lade_cache_t *self, const lade_cache_request_t *request, uint64_t done,
                uint64_t total, lade_error_t *error)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += S_WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&self->changed, &self->lock, &until);
    if (!request->step)
        return LADE_OK;
    pthread_mutex_unlock(&self->lock);
    bool go_on = request->step(request->arg, done, total);
    pthread_mutex_lock(&self->lock);
    return go_on ? LADE_OK : lade_error_set(error, LADE_CANCELLED, "stopped while waiting");
}

void
lade_cache_evict(lade_cache_t *self, lade_cache_entry_t *entry, lade_cache_entry_t **list)
{
    assert(lade_cache_entry_can_go(entry));
    lade_cache_entry_unlink(self, entry);
    entry->place->evictions++;
    lade_cache_keep_not(self, entry);
    lade_log(LADE_LOG_DEBUG, "cache", "%s%s%s: evicted, %zu bytes", entry->key,
             entry->submodel ? ":" : "", entry->submodel ? entry->submodel : "", entry->bytes);
    entry->next = *list;
    *list = entry;
}

static bool
s_goes_before(const lade_cache_entry_t *a, const lade_cache_entry_t *b)
{
    return a->stale != b->stale ? a->stale : a->used < b->used;
}

lade_cache_entry_t *
lade_cache_victim(const lade_cache_t *self, const lade_cache_place_t *place,
                  const lade_cache_entry_t *last)
{
    lade_cache_entry_t *victim = NULL;
    for (lade_cache_entry_t *entry = self->entries; entry; entry = entry->next)
        if (entry->place == place && lade_cache_entry_can_go(entry) && entry != last &&
            (!last || s_goes_before(last, entry)) && (!victim || s_goes_before(entry, victim)))
            victim = entry;
    return victim;
}

static lade_code_t
s_refuse_room(const lade_cache_t *self, const lade_cache_place_t *place, size_t bytes,
              size_t locked, lade_error_t *error)
{
    if (bytes > place->limit)
        return lade_error_set(error, place->refusal,
                              "the model takes %zu bytes and the cache of %s holds %zu: raise %s",
                              bytes, place->name, place->limit, place->setting);
    return lade_error_set(error, place->refusal,
                          "the model takes %zu bytes; of the %zu of the cache of %s, %zu are "
                          "locked by %zu leases: unlock some or raise %s",
                          bytes, place->limit, place->name, locked, lade_leases_count(self->leases),
                          place->setting);
}

static size_t
s_locked_bytes(const lade_cache_t *self, const lade_cache_place_t *place)
{
    size_t locked = 0;
    for (const lade_cache_entry_t *entry = self->entries; entry; entry = entry->next)
        locked += entry->place == place && entry->locks ? entry->bytes : 0;
    return locked;
}

// Evicts the least recently used that together are enough, and of those none that is not needed:
// where a large one has to go, the small ones before it stay.
static void
s_make_room(lade_cache_t *self, lade_cache_place_t *place, size_t bytes, lade_cache_entry_t **list)
{
    size_t needed = place->held + bytes > place->limit ? place->held + bytes - place->limit : 0;
    size_t sum = 0, cleared = 0;
    lade_cache_entry_t *last = NULL, *next;
    while (sum < needed && (next = lade_cache_victim(self, place, last))) {
        sum += next->bytes;
        last = next;
    }
    for (lade_cache_entry_t *victim = lade_cache_victim(self, place, NULL); last && victim;
         victim = next) {
        bool is_last = victim == last;
        next = is_last ? NULL : lade_cache_victim(self, place, victim);
        if (!victim->stale && sum >= needed + victim->bytes) {
            sum -= victim->bytes;
            continue;
        }
        lade_cache_evict(self, victim, list);
        cleared++;
    }
    self->cleared = cleared ? cleared : self->cleared;
}

void
lade_cache_hold(lade_cache_place_t *place, size_t bytes)
{
    place->held += bytes;
    if (place->held > place->high_watermark)
        place->high_watermark = place->held;
}

lade_code_t
lade_cache_reserve(lade_cache_t *self, lade_cache_entry_t *entry, size_t bytes,
                   const lade_cache_request_t *request, lade_cache_entry_t **list,
                   lade_error_t *error)
{
    lade_cache_place_t *place = entry->place;
    for (;;) {
        size_t locked = s_locked_bytes(self, place);
        if (bytes > place->limit ||
            locked > place->limit - bytes) // before anything is evicted in vain
            return s_refuse_room(self, place, bytes, locked, error);
        s_make_room(self, place, bytes, list);
        if (place->held + bytes <= place->limit)
            break;
        lade_code_t code = lade_cache_wait(self, request, 0, bytes, error);
        if (code)
            return code;
    }
    entry->bytes = bytes;
    lade_cache_hold(place, bytes);
    return LADE_OK;
}
