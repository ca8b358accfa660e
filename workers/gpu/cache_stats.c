// What the cache says of itself.
#include "workers/gpu/cache_private.h"

#include "common/wire.h"

#include <stdio.h>

enum {
    S_MAX_LISTED = 1000,
    S_MAX_SIZES = 500,
    S_MAX_PROCESSES = 8,      // of a model
    S_LEASES_LOOKED_AT = 1000 // with more, nobody asks whose each is: every beat would
};

void
lade_cache_note_size(lade_cache_t *self, const lade_cache_entry_t *entry)
{
    char label[512];
    snprintf(label, sizeof label, "%s:%s:%.300s%s%s", lade_json_text(entry->called, "base", "?"),
             lade_json_text(entry->called, "type", "?"), lade_json_text(entry->called, "name", ""),
             entry->submodel ? ":" : "", entry->submodel ? entry->submodel : "");
    json_int_t before = lade_json_int(self->sizes, label, 0);
    json_int_t now = (json_int_t)entry->length;
    if (now > before && (before || json_object_size(self->sizes) < S_MAX_SIZES))
        json_object_set_new(self->sizes, label,
                            json_integer(now)); // but for one cut within a letter
}

// The processes that keep a model locked, null for a lease bound to none.
static json_t *
s_locked_by(const lade_cache_t *self, const lade_cache_entry_t *entry)
{
    pid_t pids[S_MAX_PROCESSES];
    size_t count = 0;
    if (entry->locks && lade_leases_count(self->leases) <= S_LEASES_LOOKED_AT)
        count = lade_leases_processes(self->leases, entry, pids, S_MAX_PROCESSES);
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, pids[i] ? json_integer(pids[i]) : json_null());
    return array;
}

static json_t *
s_model_stats(const lade_cache_t *self, const lade_cache_entry_t *entry)
{
    return json_pack("{s:s, s:s?, s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:f, s:b}", "key", entry->key,
                     "submodel", entry->submodel, "name", lade_json_text(entry->called, "name", ""),
                     "precision", entry->precision, "layout",
                     entry->want.channels_last ? "channels_last" : "stored", "device",
                     entry->place->name, "bytes", (json_int_t)entry->bytes, "locks",
                     (json_int_t)entry->locks, "locked_by", s_locked_by(self, entry), "last_used",
                     entry->last_used, "loading", entry->state == LADE_ENTRY_LOADING);
}

static json_t *
s_device_stats(const lade_cache_place_t *place)
{
    json_t *stats =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "bytes", (json_int_t)place->held, "limit_bytes",
                  (json_int_t)place->limit, "evictions", (json_int_t)place->evictions, "demotions",
                  (json_int_t)place->demotions, "promotions", (json_int_t)place->promotions,
                  "high_watermark", (json_int_t)place->high_watermark);
    return stats;
}

json_t *
lade_cache_stats(lade_cache_t *self)
{
    const lade_cache_place_t *host = &self->places[0];
    json_t *models = json_array(), *devices = json_array();
    pthread_mutex_lock(&self->lock);
    lade_cache_keep_tend(self, false); // every beat asks
    for (const lade_cache_entry_t *entry = self->entries;
         entry && json_array_size(models) < S_MAX_LISTED; entry = entry->next)
        json_array_append_new(models, s_model_stats(self, entry));
    for (size_t i = 1; i < self->place_count; i++)
        json_array_append_new(devices, s_device_stats(&self->places[i]));
    json_t *stats =
        json_pack("{s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "bytes",
                  (json_int_t)host->held, "limit_bytes", (json_int_t)host->limit, "pool_bytes",
                  (json_int_t)lade_memory_idle(self->memory), "models", models, "hits",
                  (json_int_t)self->hits, "misses", (json_int_t)self->misses, "evictions",
                  (json_int_t)host->evictions, "high_watermark", (json_int_t)host->high_watermark,
                  "leases", (json_int_t)lade_leases_count(self->leases), "devices", devices);
    json_object_set_new(stats, "keeper", self->keep ? lade_keep_stats(self->keep) : json_null());
    size_t count = 0;
    for (const lade_cache_entry_t *entry = self->entries; entry; entry = entry->next)
        count += entry->state == LADE_ENTRY_READY;
    json_object_set_new(stats, "in_cache", json_integer((json_int_t)count));
    json_object_set_new(stats, "cleared", json_integer((json_int_t)self->cleared));
    json_object_set_new(stats, "loaded_model_sizes", json_deep_copy(self->sizes));
    pthread_mutex_unlock(&self->lock);
    json_object_set_new(stats, "io", lade_reader_stats());
    json_object_set_new(stats, "huge", lade_memory_stats());
    for (size_t i = 1; i < self->place_count; i++) // asks the devices: not under the lock
        lade_vram_stats(self->places[i].device, json_array_get(devices, i - 1));
    const char *why = self->vram ? lade_vram_why(self->vram) : "";
    json_object_set_new(stats, "no_device", *why ? json_string(why) : json_null());
    return stats;
}
