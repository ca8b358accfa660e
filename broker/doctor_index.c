// Indexes against records, both ways: every record has its entries, every entry has a record that
// wants it, and the counts are the number of entries.
#include "broker/doctor.h"

#include "broker/peek.h"
#include "broker/records_private.h"
#include "common/wire.h"

#include <czmq.h>

static const lade_db_t s_tables[] = {LADE_DB_MODELS_BY_NAME, LADE_DB_MODELS_BY_PATH,
                                     LADE_DB_MODELS_BY_TAG,  LADE_DB_MODELS_BY_SOURCE,
                                     LADE_DB_MODELS_BY_HASH, LADE_DB_MODELS_SORTED};
enum { S_TABLES = sizeof s_tables / sizeof *s_tables };

typedef struct {
    lade_doctor_t *doctor;
    lade_chore_t *chore;
    lade_doctor_index_t *index;
    uint64_t present[LADE_DB_COUNT]; // entries that are wanted and there
    json_t *counts;                  // as the records want them
    const char *key;                 // of the record looked at
    // of an entry
    lade_db_t db;
    lade_bytes_t entry;
    bool wanted, more;
} s_check_t;

// ---------------------------------------------------------------------------------------------------
// What is wrong

static void
s_note_entry(s_check_t *self, lade_db_t db, lade_bytes_t entry)
{
    lade_doctor_index_t *index = self->index;
    if (index->entry_count >= LADE_DOCTOR_MAX_FIXES)
        return;
    if (!index->entries)
        index->entries = zmalloc(LADE_DOCTOR_MAX_FIXES * sizeof *index->entries);
    char *bytes = zmalloc(entry.len + 1);
    memcpy(bytes, entry.data, entry.len);
    index->entries[index->entry_count++] = (lade_doctor_entry_t){db, bytes, entry.len};
}

// Bytes as text that can be shown, and used as a member's name.
static void
s_show(lade_bytes_t bytes, char text[LADE_STORE_MAX_KEY + 1])
{
    for (size_t i = 0; i < bytes.len && i < LADE_STORE_MAX_KEY; i++) {
        text[i] = ((const char *)bytes.data)[i];
        text[i] = text[i] ? text[i] : '\1';
    }
    text[bytes.len < LADE_STORE_MAX_KEY ? bytes.len : LADE_STORE_MAX_KEY] = '\0';
}

static void
s_wrong_entry(s_check_t *self, const char *check, lade_db_t db, lade_bytes_t entry, const char *key,
              const char *what)
{
    s_note_entry(self, db, entry);
    json_t *finding = lade_doctor_find(
        self->doctor, check, "error", lade_store_name(db), key,
        "run `lade doctor --fix`, which makes the index from the records", "%s", what);
    if (finding)
        json_object_set_new(finding, "fixable", json_true());
}

// ---------------------------------------------------------------------------------------------------
// From records to entries

static bool
s_on_wanted(void *arg, lade_db_t db, lade_bytes_t entry, bool more, lade_bytes_t count)
{
    s_check_t *self = arg;
    lade_bytes_t value;
    char name[LADE_STORE_MAX_KEY + 1];
    if (count.len) {
        s_show(count, name);
        json_t *had = json_object_get(self->counts, name);
        json_object_set_new_nocheck(self->counts, name, json_integer(json_integer_value(had) + 1));
    }
    bool there =
        lade_store_get(self->chore->view, db, entry.data, entry.len, &value, NULL) == LADE_OK;
    self->present[db] += there;
    if (!there || (value.len > 0) != more)
        s_wrong_entry(self, "index_missing", db, entry, self->key,
                      "a record is not found here, though it should be");
    return !lade_chore_stopped(self->chore);
}

static void
s_keep_record(s_check_t *self, lade_bytes_t value, const char *key)
{
    lade_doctor_index_t *index = self->index;
    lade_bytes_t path;
    double size = -1;
    if (!lade_peek_text(value, "path", &path))
        return;
    if (!lade_peek_number(value, "file_size", &size))
        size = -1;
    if (index->record_count == index->record_cap) {
        index->record_cap = index->record_cap ? 2 * index->record_cap : 256;
        index->records = realloc(index->records, index->record_cap * sizeof *index->records);
        if (!index->records)
            abort();
    }
    index->records[index->record_count++] =
        (lade_doctor_record_t){strdup(key), strndup(path.data, path.len), (int64_t)size};
}

static bool
s_on_record(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    s_check_t *self = arg;
    char name[LADE_STORE_MAX_KEY + 1];
    lade_bytes_t own = {NULL, 0};
    lade_error_t why = {0};
    s_show(key, name);
    self->key = name;
    atomic_fetch_add(&self->chore->done, 1);
    lade_code_t code = lade_wire_check(value.data, value.len, &why);
    if (code || !lade_peek_text(value, "key", &own) || own.len != key.len ||
        memcmp(own.data, key.data, key.len) != 0) {
        lade_doctor_find(self->doctor, "record_unreadable", "error", name, name,
                         "restore a backup, or remove the record with `lade rm --keep-files`",
                         "the record cannot be read: %s",
                         code ? why.message : "it does not have the key it is stored under");
        return !lade_chore_stopped(self->chore);
    }
    s_keep_record(self, value, name);
    return lade_records_each_entry(value, s_on_wanted, self) && !lade_chore_stopped(self->chore);
}

// ---------------------------------------------------------------------------------------------------
// From entries to records

static bool
s_is_entry(void *arg, lade_db_t db, lade_bytes_t entry, bool more, lade_bytes_t count)
{
    s_check_t *self = arg;
    (void)count;
    if (db == self->db && entry.len == self->entry.len &&
        memcmp(entry.data, self->entry.data, entry.len) == 0) {
        self->wanted = true;
        self->more = more;
    }
    return !self->wanted;
}

// Whether some record of the store wants the entry.
static bool
s_is_wanted(s_check_t *self, lade_store_t *store, lade_db_t db, lade_bytes_t entry)
{
    lade_bytes_t key, record;
    self->db = db;
    self->entry = entry;
    self->wanted = false;
    if (lade_records_key_in(entry, &key) &&
        lade_store_get(store, LADE_DB_MODELS, key.data, key.len, &record, NULL) == LADE_OK)
        lade_records_each_entry(record, s_is_entry, self);
    return self->wanted;
}

static bool
s_on_entry(void *arg, lade_bytes_t entry, lade_bytes_t value)
{
    s_check_t *self = arg;
    lade_bytes_t key = {"", 0};
    char name[LADE_STORE_MAX_KEY + 1];
    lade_db_t db = self->db;
    (void)value;
    if (!s_is_wanted(self, self->chore->view, db, entry)) {
        lade_records_key_in(entry, &key);
        s_show(key, name);
        s_wrong_entry(self, "index_stray", db, entry, name,
                      "an entry leads to a record that is not there, or is another");
    }
    self->db = db;
    return !lade_chore_stopped(self->chore);
}

static bool
s_on_count(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    s_check_t *self = arg;
    char name[LADE_STORE_MAX_KEY + 1];
    uint64_t stored = 0;
    s_show(key, name);
    if (value.len == sizeof stored)
        memcpy(&stored, value.data, sizeof stored);
    json_int_t more = json_integer_value(json_object_get(self->counts, name)) - (json_int_t)stored;
    json_object_set_new_nocheck(self->counts, name, json_integer(more));
    return true;
}

static void
s_check_counts(s_check_t *self)
{
    const char *name;
    json_t *more;
    void *next;
    json_object_foreach_safe(self->counts, next, name, more)
    {
        if (json_integer_value(more) == 0) {
            json_object_del(self->counts, name);
            continue;
        }
        json_t *finding = lade_doctor_find(
            self->doctor, "count_wrong", "error", lade_store_name(LADE_DB_MODELS_COUNTS), NULL,
            "run `lade doctor --fix`, which counts again",
            "the number of models of a class is off by %" JSON_INTEGER_FORMAT,
            json_integer_value(more));
        if (finding)
            json_object_set_new(finding, "fixable", json_true());
    }
    self->index->counts = self->counts;
}

lade_code_t
lade_doctor_index(lade_doctor_t *doctor, lade_chore_t *chore, lade_doctor_index_t *index,
                  lade_error_t *error)
{
    s_check_t self = {.doctor = doctor, .chore = chore, .index = index, .counts = json_object()};
    lade_store_t *view = chore->view;
    atomic_store(&chore->total, (int64_t)lade_store_count(view, LADE_DB_MODELS));
    lade_code_t code =
        lade_store_scan(view, LADE_DB_MODELS, NULL, 0, 0, false, s_on_record, &self, error);
    // Where every entry that is there is wanted, and no more are there, none can be stray.
    for (size_t i = 0; i < S_TABLES && !code; i++) {
        self.db = s_tables[i];
        if (lade_store_count(view, self.db) != self.present[self.db])
            code = lade_store_scan(view, self.db, NULL, 0, 0, false, s_on_entry, &self, error);
    }
    if (!code)
        code = lade_store_scan(view, LADE_DB_MODELS_COUNTS, NULL, 0, 0, false, s_on_count, &self,
                               error);
    if (!code && lade_chore_stopped(chore))
        code = lade_error_set(error, LADE_BUSY,
                              "the keyspace had to grow, or the broker ends: check it again");
    if (code)
        json_decref(self.counts);
    else
        s_check_counts(&self);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Putting it right: by what the records are now, not by what they were in the view

static size_t
s_fix_count(lade_store_t *store, const char *shown, int64_t more)
{
    char name[LADE_STORE_MAX_KEY + 1];
    lade_bytes_t value;
    uint64_t count = 0;
    size_t len = strlen(shown);
    for (size_t i = 0; i < len; i++)
        name[i] = shown[i] == '\1' ? '\0' : shown[i];
    if (lade_store_get(store, LADE_DB_MODELS_COUNTS, name, len, &value, NULL) == LADE_OK &&
        value.len == sizeof count)
        memcpy(&count, value.data, sizeof count);
    count = more < 0 && (uint64_t)-more > count ? 0 : count + (uint64_t)more;
    lade_code_t code = count ? lade_store_put(store, LADE_DB_MODELS_COUNTS, name, len, &count,
                                              sizeof count, false, NULL)
                             : lade_store_del(store, LADE_DB_MODELS_COUNTS, name, len, NULL);
    return code == LADE_OK;
}

size_t
lade_doctor_index_fix(lade_store_t *store, const lade_doctor_index_t *index)
{
    s_check_t self = {0};
    size_t fixed = 0;
    const char *name;
    json_t *more;
    for (size_t i = 0; i < index->entry_count; i++) {
        const lade_doctor_entry_t *entry = &index->entries[i];
        bool wanted =
            s_is_wanted(&self, store, entry->db, (lade_bytes_t){entry->entry, entry->len});
        lade_code_t code = wanted
                               ? lade_store_put(store, entry->db, entry->entry, entry->len, "+",
                                                self.more ? 1 : 0, false, NULL)
                               : lade_store_del(store, entry->db, entry->entry, entry->len, NULL);
        fixed += code == LADE_OK;
    }
    json_object_foreach(index->counts, name, more) fixed +=
        s_fix_count(store, name, json_integer_value(more));
    return fixed;
}

void
lade_doctor_index_free(lade_doctor_index_t *index)
{
    for (size_t i = 0; i < index->entry_count; i++)
        free(index->entries[i].entry);
    for (size_t i = 0; i < index->record_count; i++) {
        free(index->records[i].key);
        free(index->records[i].path);
    }
    free(index->entries);
    free(index->records);
    json_decref(index->counts);
    *index = (lade_doctor_index_t){0};
}
