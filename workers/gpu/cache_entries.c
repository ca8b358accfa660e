// Entries of the cache: found, put into the table and taken out.
#include "workers/gpu/cache_private.h"

#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

void
lade_cache_entry_destroy(lade_cache_entry_t **entry_p)
{
    lade_cache_entry_t *entry = *entry_p;
    if (!entry)
        return;
    free(entry->key);
    free(entry->submodel);
    json_decref(entry->called);
    lade_stamps_free(&entry->stamps);
    free(entry);
    *entry_p = NULL;
}

lade_cache_entry_t *
lade_cache_entry_new(const lade_cache_request_t *request, lade_cache_place_t *place,
                     lade_stamps_t *stamps)
{
    lade_cache_entry_t *entry = calloc(1, sizeof *entry);
    if (!entry)
        abort();
    entry->key = strdup(request->key);
    entry->submodel = request->submodel ? strdup(request->submodel) : NULL;
    entry->want = request->want;
    entry->called =
        json_pack("{s:s, s:s, s:s}", "base", lade_json_text(request->record, "base", "?"), "type",
                  lade_json_text(request->record, "type", "?"), "name",
                  lade_json_text(request->record, "name", ""));
    entry->place = place;
    entry->stamps = *stamps;
    *stamps = (lade_stamps_t){0};
    entry->precision = "none";
    if (!entry->key || (request->submodel && !entry->submodel))
        abort();
    return entry;
}

static bool
s_same_text(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static bool
s_same_want(const lade_want_t *a, const lade_want_t *b)
{
    return a->cast == b->cast && (!a->cast || a->dtype == b->dtype) &&
           a->channels_last == b->channels_last && !strcmp(a->device, b->device);
}

lade_cache_entry_t *
lade_cache_entry_find(const lade_cache_t *self, const lade_cache_request_t *request)
{
    lade_cache_entry_t *entry = self->entries;
    while (entry && (entry->stale || strcmp(entry->key, request->key) ||
                     !s_same_text(entry->submodel, request->submodel) ||
                     !s_same_want(&entry->want, &request->want)))
        entry = entry->next;
    return entry;
}

lade_cache_entry_t *
lade_cache_entry_on_host(const lade_cache_t *self, const lade_cache_entry_t *entry)
{
    lade_want_t want = entry->want;
    strcpy(want.device, "cpu");
    for (lade_cache_entry_t *other = self->entries; other; other = other->next)
        if (other->state == LADE_ENTRY_READY && !other->stale && !strcmp(other->key, entry->key) &&
            s_same_text(other->submodel, entry->submodel) && s_same_want(&other->want, &want) &&
            lade_stamps_same(&other->stamps, &entry->stamps))
            return other;
    return NULL;
}

void
lade_cache_entry_add(lade_cache_t *self, lade_cache_entry_t *entry)
{
    entry->next = self->entries;
    self->entries = entry;
}

void
lade_cache_entry_unlink(lade_cache_t *self, lade_cache_entry_t *entry)
{
    lade_cache_entry_t **at = &self->entries;
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    entry->next = NULL;
    entry->place->held -= entry->bytes;
}

bool
lade_cache_entry_can_go(const lade_cache_entry_t *entry)
{
    return entry->state == LADE_ENTRY_READY && !entry->locks;
}

void
lade_cache_release(lade_cache_t *self, lade_cache_entry_t *list)
{
    while (list) {
        lade_cache_entry_t *next = list->next;
        if (list->place->device)
            lade_vram_free(list->place->device, &list->block);
        lade_memory_put(self->memory, &list->region);
        lade_cache_entry_destroy(&list);
        list = next;
    }
}
