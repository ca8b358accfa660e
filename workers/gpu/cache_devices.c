// Models on devices: read into a block, copied from host memory where they are there already, and
// moved there when they leave.
#include "workers/gpu/cache_private.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Bytes of the data, which is all that a device holds.
static size_t
s_data_bytes(const lade_segment_head_t *head)
{
    return head->length > head->data_at ? (size_t)(head->length - head->data_at) : 1;
}

// Takes room in host memory for what leaves a device, if nothing has to go for it and it is not
// there yet.
static bool
s_reserve_demotion(lade_cache_t *self, const lade_cache_entry_t *entry)
{
    lade_cache_place_t *host = &self->places[0];
    pthread_mutex_lock(&self->lock);
    bool room = !lade_cache_entry_on_host(self, entry) && entry->length <= host->limit &&
                host->held <= host->limit - entry->length;
    if (room)
        lade_cache_hold(host, entry->length);
    pthread_mutex_unlock(&self->lock);
    return room;
}

// Copies an entry's segment from its device. LADE_NO_MEMORY, or what the device says.
static lade_code_t
s_save(lade_cache_t *self, const lade_cache_entry_t *entry, lade_region_t **region_p,
       lade_error_t *error)
{
    const lade_segment_head_t *head = (const void *)entry->region->bytes;
    lade_code_t code = lade_memory_get(self->memory, entry->length, region_p, error);
    if (!code)
        code = lade_memory_touch(*region_p, entry->length, error);
    if (!code && head->length > head->data_at)
        code = lade_vram_save(entry->place->device, &entry->block,
                              (*region_p)->bytes + head->data_at, s_data_bytes(head), error);
    if (code) {
        lade_memory_put(self->memory, region_p);
        return code;
    }
    memcpy((*region_p)->bytes, entry->region->bytes, head->data_at);
    ((lade_segment_head_t *)(void *)(*region_p)->bytes)->generation = (*region_p)->generation;
    (*region_p)->warm = entry->length > (*region_p)->warm ? entry->length : (*region_p)->warm;
    return LADE_OK;
}

// Makes an evicted entry of a device one of host memory, back in the table; false if it is to be
// released. Not under the lock.
static bool
s_demote(lade_cache_t *self, lade_cache_entry_t *entry)
{
    lade_error_t error = {0};
    lade_region_t *region = NULL;
    if (entry->stale || !entry->place->device || lade_vram_lost(entry->place->device) ||
        !s_reserve_demotion(self, entry))
        return false;
    lade_code_t code = s_save(self, entry, &region, &error);
    if (!code) {
        lade_vram_free(entry->place->device, &entry->block);
        lade_memory_put(self->memory, &entry->region);
    }
    pthread_mutex_lock(&self->lock);
    if (!code) {
        entry->place->demotions++;
        entry->place = &self->places[0];
        entry->region = region;
        entry->bytes = entry->length;
        strcpy(entry->want.device, "cpu");
        entry->stale = lade_cache_entry_on_host(self, entry) != NULL; // read again meanwhile
        lade_cache_entry_add(self, entry);
        lade_cache_keep_entry(self, entry);
        pthread_cond_broadcast(&self->changed);
    } else
        self->places[0].held -= entry->length;
    pthread_mutex_unlock(&self->lock);
    if (code)
        lade_log(LADE_LOG_WARNING, "cache", "%s: not kept in host memory: %s", entry->key,
                 error.message);
    return !code;
}

// As lade_cache_release; what leaves a device goes into host memory if it can.
static void
s_release_evicted(lade_cache_t *self, lade_cache_entry_t *list)
{
    while (list) {
        lade_cache_entry_t *next = list->next;
        list->next = NULL;
        if (!s_demote(self, list))
            lade_cache_release(self, list);
        list = next;
    }
}

// A block for the entry, whose room is taken. What others of the machine take of the device is not
// on our account, so there may be less than the limit says: then more goes, one after the other.
static lade_code_t
s_allocate(lade_cache_t *self, lade_cache_entry_t *entry, lade_error_t *error)
{
    for (;;) {
        lade_cache_entry_t *evicted = NULL;
        lade_code_t code =
            lade_vram_allocate(entry->place->device, entry->bytes, &entry->block, error);
        if (code != LADE_NO_VRAM)
            return code;
        pthread_mutex_lock(&self->lock);
        lade_cache_entry_t *victim = lade_cache_victim(self, entry->place, NULL);
        if (victim)
            lade_cache_evict(self, victim, &evicted);
        pthread_mutex_unlock(&self->lock);
        if (!victim)
            return code;
        s_release_evicted(self, evicted);
    }
}

// Fills the block from a copy in host memory. LADE_NOT_FOUND if there is none.
static lade_code_t
s_promote(lade_cache_t *self, lade_cache_entry_t *entry, lade_cache_reading_t *reading,
          lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    lade_cache_entry_t *host = lade_cache_entry_on_host(self, entry);
    if (host) {
        host->locks++;
        host->used = ++self->uses;
    }
    pthread_mutex_unlock(&self->lock);
    if (!host)
        return LADE_NOT_FOUND;
    const lade_segment_head_t *head = (const void *)host->region->bytes;
    lade_code_t code = LADE_OK;
    if (head->length > head->data_at)
        code =
            lade_vram_copy(entry->place->device, &entry->block, host->region->bytes + head->data_at,
                           s_data_bytes(head), self->threads, lade_cache_on_step, reading, error);
    pthread_mutex_lock(&self->lock);
    host->locks--;
    entry->place->promotions += !code;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
    return code;
}

// What the device cannot read by itself (views, blocks of GGML) is loaded into host memory first.
static lade_code_t
s_promote_loaded(lade_cache_t *self, lade_cache_entry_t *entry, lade_cache_reading_t *reading,
                 lade_error_t *error)
{
    lade_cache_answer_t answer;
    lade_cache_request_t request = *reading->request;
    strcpy(request.want.device, "cpu");
    request.lock = true;
    request.lease = NULL;
    request.pid = getpid();
    request.ttl_s = 0;
    lade_code_t code = lade_cache_load(self, &request, &answer, error);
    if (code)
        return code;
    code = s_promote(self, entry, reading, error);
    lade_cache_unlock(self, answer.lease);
    return code == LADE_NOT_FOUND
               ? lade_error_set(error, LADE_CORRUPT,
                                "a file of the model changed while it was read: load it again")
               : code;
}

static lade_code_t
s_fill_block(lade_cache_t *self, lade_cache_entry_t *entry, const lade_cache_request_t *request,
             const lade_layout_t *layout, lade_error_t *error)
{
    lade_cache_reading_t reading = {self, entry, request};
    lade_code_t code = s_promote(self, entry, &reading, error);
    if (code != LADE_NOT_FOUND)
        return code;
    if (!lade_vram_can_read(layout))
        return s_promote_loaded(self, entry, &reading, error);
    return lade_vram_read(entry->place->device, &entry->block, layout, self->threads, self->check,
                          lade_cache_on_step, &reading, error);
}

lade_code_t
lade_cache_read_device(lade_cache_t *self, lade_cache_entry_t *entry,
                       const lade_cache_request_t *request, lade_layout_t *layout,
                       lade_region_t **region_p, lade_error_t *error)
{
    lade_cache_entry_t *evicted = NULL;
    pthread_mutex_lock(&self->lock);
    lade_code_t code =
        lade_cache_reserve(self, entry, s_data_bytes(&layout->head), request, &evicted, error);
    entry->total = layout->read_bytes;
    pthread_mutex_unlock(&self->lock);
    s_release_evicted(self, evicted);
    if (!code)
        code = s_allocate(self, entry, error);
    if (!code)
        code = lade_memory_get(self->memory, layout->head.data_at, region_p, error);
    if (!code)
        code = lade_memory_touch(*region_p, layout->head.data_at, error);
    if (!code)
        code = s_fill_block(self, entry, request, layout, error);
    if (code == LADE_IO_ERROR)
        (void)lade_vram_lost(entry->place->device); // says so, once
    if (code) {
        lade_vram_free(entry->place->device, &entry->block);
        lade_memory_put(self->memory, region_p);
        return code;
    }
    layout->head.generation = (*region_p)->generation;
    lade_segment_write((*region_p)->bytes, &layout->head, &layout->index);
    return LADE_OK;
}
