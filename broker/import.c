// Importing: the records are written one after the other into the turn's batch. What must not stay
// (one of them failed and all or none was asked for, or it is a dry run) is taken out of the batch
// again, so that a dry run finds out exactly what the real one would.
#include "broker/import.h"

#include "broker/effects.h"
#include "common/record.h"
#include "common/wire.h"

#include <czmq.h>

typedef enum { S_FAIL, S_SKIP, S_REPLACE } s_conflict_t;
static const char *const s_conflicts[] = {"fail", "skip", "replace"};

typedef enum { S_ADDED, S_REPLACED, S_SKIPPED, S_FAILED } s_outcome_t;
static const char *const s_outcomes[] = {"added", "replaced", "skipped", "failed"};
enum { S_OUTCOMES = 4 };

typedef struct {
    s_outcome_t outcome;
    json_t *stored, *before;
    lade_error_t error;
} s_item_t;

typedef struct {
    lade_records_t *records;
    s_conflict_t conflict;
    s_item_t *items;
    size_t count, counts[S_OUTCOMES];
} s_import_t;

// Puts a record in the place of the one that has its key.
static lade_code_t
s_replace(s_import_t *self, const char *key, const json_t *model, s_item_t *item)
{
    json_t *next = json_deep_copy(model), *none = NULL;
    lade_error_t ignored;
    lade_code_t code = lade_records_del(self->records, key, &item->before, &item->error);
    if (!code) {
        int64_t version = lade_json_int(item->before, "version", 0) + 1;
        json_object_set_new(next, "version", json_integer(version));
        json_object_set_new(next, "updated_at", json_real(lade_now()));
        code = lade_records_import(self->records, next, &item->stored, &item->error);
        if (code && lade_records_import(self->records, item->before, &none, &ignored) == LADE_OK) {
            json_decref(none);
            json_decref(item->before);
            item->before = NULL;
        }
    }
    json_decref(next);
    return code;
}

static s_outcome_t
s_put(s_import_t *self, const json_t *model, s_item_t *item)
{
    const char *key = json_string_value(json_object_get(model, "key"));
    bool there = key && lade_records_exists(self->records, key);
    if (there && self->conflict == S_SKIP)
        return S_SKIPPED;
    if (there && self->conflict == S_REPLACE)
        return s_replace(self, key, model, item) ? S_FAILED : S_REPLACED;
    lade_code_t code = lade_records_import(self->records, model, &item->stored, &item->error);
    if (code == LADE_DUPLICATE_MODEL && self->conflict == S_SKIP)
        return S_SKIPPED; // another record has its path
    return code ? S_FAILED : S_ADDED;
}

// Backwards, so that each finds what it left. Failing can only a batch that fails as a whole.
static void
s_take_back(s_import_t *self)
{
    for (size_t i = self->count; i-- > 0;) {
        s_item_t *item = &self->items[i];
        json_t *none = NULL;
        if (item->stored)
            lade_records_del(self->records, lade_json_text(item->stored, "key", ""), NULL, NULL);
        if (item->stored && item->before)
            lade_records_import(self->records, item->before, &none, NULL);
        json_decref(none);
    }
}

static json_t *
s_say(const s_import_t *self, const json_t *models)
{
    json_t *said = json_object(), *list = json_array();
    for (int i = 0; i < S_OUTCOMES; i++)
        json_object_set_new(said, s_outcomes[i], json_integer((json_int_t)self->counts[i]));
    for (size_t i = 0; i < self->count; i++) {
        const s_item_t *item = &self->items[i];
        const json_t *record = item->stored ? item->stored : json_array_get(models, i);
        json_t *one = json_pack("{s:s}", "outcome", s_outcomes[item->outcome]);
        json_t *key = json_object_get(record, "key");
        json_object_set_new(one, "key", json_is_string(key) ? json_incref(key) : json_null());
        if (item->error.code && item->outcome == S_FAILED)
            json_object_set_new(
                one, "error",
                json_pack("{s:s, s:o}", "code", lade_code_name(item->error.code), "message",
                          json_stringn_nocheck(item->error.message, strlen(item->error.message))));
        json_array_append_new(list, one);
    }
    json_object_set_new(said, "models", list);
    return said;
}

static void
s_tell(const s_import_t *self, lade_broker_t *broker)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->items[i].stored)
            lade_effects_tell(broker,
                              self->items[i].before ? "model_record_updated" : "model_record_added",
                              self->items[i].stored);
}

static void
s_free(s_import_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        json_decref(self->items[i].stored);
        json_decref(self->items[i].before);
    }
    free(self->items);
}

static lade_code_t
s_read_conflict(const json_t *args, s_conflict_t *conflict_p, lade_error_t *error)
{
    const char *text = lade_json_text(args, "on_conflict", s_conflicts[S_FAIL]);
    for (int i = S_FAIL; i <= S_REPLACE; i++)
        if (strcmp(s_conflicts[i], text) == 0) {
            *conflict_p = (s_conflict_t)i;
            return LADE_OK;
        }
    return lade_error_set(error, LADE_VALUE_ERROR, "on_conflict: takes fail, skip or replace");
}

lade_code_t
lade_import_call(lade_call_t *call, lade_error_t *error)
{
    json_t *args = lade_call_json(call), *models = json_object_get(args, "models");
    s_import_t self = {.records = call->broker->records, .count = json_array_size(models)};
    bool each = lade_json_bool(args, "each", false), dry = lade_json_bool(args, "dry_run", false);
    lade_code_t code = s_read_conflict(args, &self.conflict, error);
    if (!code && (!json_is_array(models) || self.count > LADE_IMPORT_MAX))
        code = lade_error_set(error, LADE_VALUE_ERROR, "models: an array of at most %d maps",
                              LADE_IMPORT_MAX);
    if (code) {
        json_decref(args);
        return code;
    }
    self.items = zmalloc((self.count + 1) * sizeof *self.items);
    const s_item_t *wrong = NULL;
    for (size_t i = 0; i < self.count; i++) {
        s_item_t *item = &self.items[i];
        item->outcome = s_put(&self, json_array_get(models, i), item);
        self.counts[item->outcome]++;
        if (item->outcome == S_FAILED && !wrong)
            wrong = item;
    }
    bool refused = wrong && !each;
    if (refused || dry)
        s_take_back(&self);
    else
        s_tell(&self, call->broker);
    if (refused && !dry) {
        code = lade_error_set(error, wrong->error.code, "nothing was imported: model %zu: %s",
                              (size_t)(wrong - self.items) + 1, wrong->error.message);
    } else {
        code = lade_call_answer_json(call, s_say(&self, models), error);
    }
    s_free(&self);
    json_decref(args);
    return code;
}
