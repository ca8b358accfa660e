// The indexes of records: a table of what each is made of, and the one way from a record to its
// entries.
//
// An entry is FIELD NUL … KEY. Entries of one record are made for what it was and what it becomes;
// the difference is written. How many entries each class (type, base, format) has is counted beside
// them, so that nobody has to walk over a million entries to say a number.
#include "broker/peek.h"
#include "broker/records_private.h"
#include "broker/store_upgrade.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const lade_records_index_t s_rows[] = {
    // clang-format off
    [LADE_INDEX_NAME]    = {LADE_DB_MODELS_BY_NAME,   0,   false, {"name"}},
    [LADE_INDEX_PATH]    = {LADE_DB_MODELS_BY_PATH,   0,   false, {"path"}},
    [LADE_INDEX_TAG]     = {LADE_DB_MODELS_BY_TAG,    0,   false, {"tags"}},
    [LADE_INDEX_SOURCE]  = {LADE_DB_MODELS_BY_SOURCE, 0,   false, {"source"}},
    [LADE_INDEX_HASH]    = {LADE_DB_MODELS_BY_HASH,   0,   false, {"hash"}},
    [LADE_INDEX_TYPE]    = {LADE_DB_MODELS_SORTED,    'T', false, {"type", "base", "name", "format"}},
    [LADE_INDEX_FORMAT]  = {LADE_DB_MODELS_SORTED,    'F', false, {"format", "type", "base", "name"}},
    [LADE_INDEX_BASE]    = {LADE_DB_MODELS_SORTED,    'B', false, {"base", "type", "name", "format"}},
    [LADE_INDEX_CREATED] = {LADE_DB_MODELS_SORTED,    'C', true,  {"created_at"}},
    [LADE_INDEX_UPDATED] = {LADE_DB_MODELS_SORTED,    'U', true,  {"updated_at"}},
    [LADE_INDEX_SIZE]    = {LADE_DB_MODELS_SORTED,    'S', true,  {"file_size"}},
    // clang-format on
};
_Static_assert(sizeof s_rows / sizeof *s_rows == LADE_INDEX_COUNT, "an index has no row");

enum {
    S_MAX_SHORT = 300, // bytes of a value beside others
    S_MAX_WORD = 31,   // bytes of a type, base or format
};
_Static_assert(LADE_RECORDS_MAX_VALUE + 1 + LADE_RECORDS_MAX_KEY <= LADE_STORE_MAX_KEY &&
                   1 + S_MAX_SHORT + 3 * S_MAX_WORD + 4 + LADE_RECORDS_MAX_KEY <=
                       LADE_STORE_MAX_KEY,
               "an index key is too long for the store");

const lade_records_index_t *
lade_records_index_row(lade_index_t which)
{
    return &s_rows[which];
}

// ---------------------------------------------------------------------------------------------------
// Entries

typedef struct {
    char bytes[LADE_STORE_MAX_KEY + 1]; // room to see that it is too long
    size_t len;
} s_entry_t;

static void
s_add_value(s_entry_t *entry, const char *value, size_t len, bool alone)
{
    size_t most = alone ? LADE_RECORDS_MAX_VALUE : S_MAX_SHORT;
    entry->len += lade_store_key(value, len, most, entry->bytes + entry->len);
    entry->bytes[entry->len++] = '\0';
}

// Numbers are not below 0, so that their bits are in their order.
static void
s_add_number(s_entry_t *entry, double number)
{
    uint64_t bits;
    number = number > 0 ? number : 0;
    memcpy(&bits, &number, 8);
    for (size_t i = 0; i < 8; i++)
        entry->bytes[entry->len++] = (char)(bits >> (56 - 8 * i));
    entry->bytes[entry->len++] = '\0';
}

static size_t
s_fields(const lade_records_index_t *row)
{
    size_t count = 0;
    while (count < 5 && row->fields[count])
        count++;
    return count;
}

size_t
lade_records_prefix(lade_index_t which, const char *const *values, char *prefix)
{
    const lade_records_index_t *row = &s_rows[which];
    s_entry_t entry = {.len = 0};
    if (row->letter)
        entry.bytes[entry.len++] = row->letter;
    for (size_t i = 0; values[i]; i++)
        s_add_value(&entry, values[i], strlen(values[i]), s_fields(row) == 1);
    memcpy(prefix, entry.bytes, entry.len);
    return entry.len;
}

bool
lade_records_key_in(lade_bytes_t entry, lade_bytes_t *key)
{
    const char *nul = memrchr(entry.data, 0, entry.len);
    if (!nul)
        return false;
    *key = (lade_bytes_t){nul + 1, entry.len - (size_t)(nul + 1 - (const char *)entry.data)};
    return key->len > 0;
}

// What a record says that is in an index, found in one pass over it. Members by their place in
// s_members.
enum { S_MEMBER_KEY, S_MEMBER_BASE, S_MEMBER_BASES, S_MEMBERS_OWN };
static const char *const s_members[] = {
    [S_MEMBER_KEY] = "key",
    [S_MEMBER_BASE] = "base",
    [S_MEMBER_BASES] = "bases",
    "name",
    "path",
    "tags",
    "source",
    "hash",
    "type",
    "format",
    "created_at",
    "updated_at",
    "file_size",
};
enum { S_MEMBERS = sizeof s_members / sizeof *s_members };

typedef struct {
    lade_bytes_t values[S_MEMBERS]; // packed
} s_facts_t;

static size_t
s_member(const char *name)
{
    size_t at = 0;
    while (at < S_MEMBERS && strcmp(s_members[at], name) != 0)
        at++;
    return at;
}

static void
s_read(lade_bytes_t record, s_facts_t *facts)
{
    *facts = (s_facts_t){0};
    lade_peek_members(record, s_members, S_MEMBERS, facts->values);
}

// base: stands for the record's own; item: for the one field that is a list. False if the record
// has no such entry.
static bool
s_make(const lade_records_index_t *row, const s_facts_t *facts, lade_bytes_t base,
       lade_bytes_t item, s_entry_t *entry)
{
    entry->len = 0;
    if (row->letter)
        entry->bytes[entry->len++] = row->letter;
    size_t fields = s_fields(row);
    for (size_t i = 0; i < fields; i++) {
        size_t member = s_member(row->fields[i]);
        lade_bytes_t text = item, value = facts->values[member];
        double number = 0;
        if (row->number) {
            lade_peek_is_number(value, &number);
            s_add_number(entry, number);
            continue;
        }
        if (member == S_MEMBER_BASE && base.len)
            text = base;
        else if (!item.len && !lade_peek_is_text(value, &text))
            text.len = 0;
        bool word = fields > 1 && strcmp(row->fields[i], "name") != 0;
        if (!text.len || (word && text.len > S_MAX_WORD))
            return false;
        s_add_value(entry, text.data, text.len, fields == 1);
    }
    lade_bytes_t key;
    if (!lade_peek_is_text(facts->values[S_MEMBER_KEY], &key) || !key.len ||
        key.len > LADE_RECORDS_MAX_KEY)
        return false;
    memcpy(entry->bytes + entry->len, key.data, key.len);
    entry->len += key.len;
    return true;
}

size_t
lade_records_entry(lade_index_t which, lade_bytes_t record, const char *base, char *entry)
{
    s_entry_t made;
    s_facts_t facts;
    lade_bytes_t own = {base, base ? strlen(base) : 0}, none = {NULL, 0};
    s_read(record, &facts);
    if (!s_make(&s_rows[which], &facts, own, none, &made))
        return 0;
    memcpy(entry, made.bytes, made.len);
    return made.len;
}

// ---------------------------------------------------------------------------------------------------
// All entries of a record

typedef struct {
    lade_index_t index;
    bool more; // of a base that is not the first
    size_t at, len;
} s_item_t;

typedef struct {
    s_item_t *items;
    size_t count, cap;
    lade_buf_t bytes; // of all of them
} s_items_t;
#define S_ITEMS ((s_items_t){.bytes = LADE_BUF(SIZE_MAX / 2)})

static bool
s_add(s_items_t *items, lade_index_t index, const s_facts_t *facts, lade_bytes_t base,
      lade_bytes_t item, bool more)
{
    s_entry_t entry;
    if (!s_make(&s_rows[index], facts, base, item, &entry))
        return true;
    if (items->count == items->cap) {
        size_t cap = items->cap ? 2 * items->cap : 32;
        s_item_t *grown = realloc(items->items, cap * sizeof *grown);
        if (!grown)
            return false;
        items->items = grown;
        items->cap = cap;
    }
    items->items[items->count++] = (s_item_t){index, more, items->bytes.len, entry.len};
    return lade_buf_add(&items->bytes, entry.bytes, entry.len, NULL) == LADE_OK;
}

static int
s_compare(const s_item_t *one, const char *bytes, const s_item_t *other, const char *others)
{
    if (one->index != other->index)
        return one->index < other->index ? -1 : 1;
    size_t common = one->len < other->len ? one->len : other->len;
    int order = memcmp(bytes + one->at, others + other->at, common);
    if (!order && one->len != other->len)
        order = one->len < other->len ? -1 : 1;
    return order ? order : (int)one->more - (int)other->more;
}

static int
s_order(const void *a, const void *b, void *bytes)
{
    return s_compare(a, bytes, b, bytes);
}

static bool
s_has_base(const lade_records_index_t *row)
{
    return row->fields[1] != NULL; // those of several fields
}

static bool
s_add_bases(s_items_t *items, lade_index_t index, const s_facts_t *facts)
{
    lade_bytes_t none = {NULL, 0}, base, own = none;
    size_t at = 0;
    lade_peek_is_text(facts->values[S_MEMBER_BASE], &own);
    bool fine = s_add(items, index, facts, none, none, false);
    while (fine && lade_peek_item(facts->values[S_MEMBER_BASES], &at, &base))
        if (base.len != own.len || memcmp(base.data, own.data, own.len) != 0)
            fine = s_add(items, index, facts, base, none, true);
    return fine;
}

static bool
s_collect(s_items_t *items, lade_bytes_t record)
{
    bool fine = true;
    s_facts_t facts;
    s_read(record, &facts);
    for (lade_index_t i = 0; record.len && fine && i < LADE_INDEX_COUNT; i++) {
        lade_bytes_t none = {NULL, 0}, item, value = facts.values[s_member(s_rows[i].fields[0])];
        size_t at = 0;
        if (s_has_base(&s_rows[i]))
            fine = s_add_bases(items, i, &facts);
        else if (s_rows[i].number || lade_peek_is_text(value, &item))
            fine = s_add(items, i, &facts, none, none, false);
        else
            while (fine && lade_peek_item(value, &at, &item))
                fine = item.len == 0 || s_add(items, i, &facts, none, item, false);
    }
    if (fine && items->count)
        qsort_r(items->items, items->count, sizeof *items->items, s_order, items->bytes.data);
    return fine;
}

static void
s_free(s_items_t *items)
{
    lade_buf_free(&items->bytes);
    free(items->items);
}

// ---------------------------------------------------------------------------------------------------
// Counts: TYPE NUL BASE NUL FORMAT NUL, and m for first bases or x for others

// The name of the count that an entry of the index by type belongs to; returns its length.
static size_t
s_count_name(const char *entry, bool more, char name[LADE_STORE_MAX_KEY])
{
    // An entry of the index by type is T TYPE NUL BASE NUL NAME NUL FORMAT NUL KEY.
    const char *part[4] = {entry + 1};
    for (size_t i = 1; i < 4; i++)
        part[i] = part[i - 1] + strlen(part[i - 1]) + 1;
    size_t len = 0;
    for (size_t i = 0; i < 4; i++) {
        if (i == 2)
            continue;
        size_t size = strlen(part[i]) + 1;
        memcpy(name + len, part[i], size);
        len += size;
    }
    name[len++] = more ? 'x' : 'm';
    return len;
}

static lade_code_t
s_count(lade_store_t *store, const char *entry, bool more, bool add, lade_error_t *error)
{
    char name[LADE_STORE_MAX_KEY];
    size_t len = s_count_name(entry, more, name);
    uint64_t count = 0;
    lade_bytes_t value;
    lade_code_t code = lade_store_get(store, LADE_DB_MODELS_COUNTS, name, len, &value, error);
    if (code && code != LADE_NOT_FOUND)
        return code;
    if (!code && value.len == sizeof count)
        memcpy(&count, value.data, sizeof count);
    count = add ? count + 1 : count ? count - 1 : 0;
    return count ? lade_store_put(store, LADE_DB_MODELS_COUNTS, name, len, &count, sizeof count,
                                  false, error)
                 : lade_store_del(store, LADE_DB_MODELS_COUNTS, name, len, error);
}

typedef struct {
    const char *type, *base, *format;
    uint64_t count;
} s_sum_t;

static bool
s_on_count(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    s_sum_t *sum = arg;
    const char *type = key.data, *base = type + strnlen(type, key.len) + 1, *end = type + key.len,
               *format = base < end ? base + strlen(base) + 1 : end;
    uint64_t count = 0;
    if (value.len != sizeof count || format >= end)
        return true;
    memcpy(&count, value.data, sizeof count);
    bool first = end[-1] == 'm';
    if ((first || sum->base) && (!sum->type || strcmp(sum->type, type) == 0) &&
        (!sum->base || strcmp(sum->base, base) == 0) &&
        (!sum->format || strcmp(sum->format, format) == 0))
        sum->count += count;
    return true;
}

lade_code_t
lade_records_class_count(lade_store_t *store, const char *type, const char *base,
                         const char *format, uint64_t *count_p, lade_error_t *error)
{
    s_sum_t sum = {type, base, format, 0};
    *count_p = 0;
    if (!type && !base && !format) {
        *count_p = lade_store_count(store, LADE_DB_MODELS);
        return LADE_OK;
    }
    lade_code_t code =
        lade_store_scan(store, LADE_DB_MODELS_COUNTS, NULL, 0, 0, false, s_on_count, &sum, error);
    *count_p = sum.count;
    return code;
}

bool
lade_records_each_entry(lade_bytes_t record,
                        bool (*each)(void *arg, lade_db_t db, lade_bytes_t entry, bool more,
                                     lade_bytes_t count),
                        void *arg)
{
    s_items_t items = S_ITEMS;
    bool fine = s_collect(&items, record);
    const char *bytes = items.bytes.data;
    for (size_t i = 0; i < items.count && fine; i++) {
        const s_item_t *item = &items.items[i];
        char name[LADE_STORE_MAX_KEY];
        lade_bytes_t entry = {bytes + item->at, item->len}, count = {NULL, 0};
        if (i && s_compare(&items.items[i - 1], bytes, item, bytes) == 0)
            continue;
        if (item->index == LADE_INDEX_TYPE)
            count = (lade_bytes_t){name, s_count_name(entry.data, item->more, name)};
        fine = each(arg, s_rows[item->index].db, entry, item->more, count);
    }
    s_free(&items);
    return fine;
}

// ---------------------------------------------------------------------------------------------------
// The difference

static lade_code_t
s_write(lade_store_t *store, const s_items_t *items, const s_item_t *item, bool add,
        lade_error_t *error)
{
    lade_db_t db = s_rows[item->index].db;
    const char *entry = items->bytes.data + item->at;
    lade_code_t code =
        add ? lade_store_put(store, db, entry, item->len, "+", item->more ? 1 : 0, false, error)
            : lade_store_del(store, db, entry, item->len, error);
    return code || item->index != LADE_INDEX_TYPE ? code
                                                  : s_count(store, entry, item->more, add, error);
}

// Writes the items of one list that the other does not have; both are sorted.
static lade_code_t
s_write_missing(lade_store_t *store, const s_items_t *list, const s_items_t *other, bool add,
                lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    const char *bytes = list->bytes.data, *others = other->bytes.data;
    for (size_t i = 0, j = 0; i < list->count && !code; i++) {
        const s_item_t *item = &list->items[i];
        while (j < other->count && s_compare(&other->items[j], others, item, bytes) < 0)
            j++;
        bool twice = i && s_compare(&list->items[i - 1], bytes, item, bytes) == 0;
        if (!twice && (j == other->count || s_compare(&other->items[j], others, item, bytes) != 0))
            code = s_write(store, list, item, add, error);
    }
    return code;
}

lade_code_t
lade_records_reindex(lade_store_t *store, lade_bytes_t before, lade_bytes_t after,
                     lade_error_t *error)
{
    s_items_t old = S_ITEMS, new = S_ITEMS;
    lade_code_t code = LADE_OK;
    if (!s_collect(&old, before) || !s_collect(&new, after))
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory for the indexes of a record");
    if (!code)
        code = s_write_missing(store, &old, &new, false, error);
    if (!code)
        code = s_write_missing(store, &new, &old, true, error);
    s_free(&old);
    s_free(&new);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Schema 2 brought models_sorted and models_counts

typedef struct {
    char last[LADE_STORE_MAX_KEY]; // the record looked at last
    size_t last_len;
    void *bytes;
    size_t len;
    bool found;
} s_next_t;

static bool
s_on_next(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    s_next_t *next = arg;
    if (key.len == next->last_len && memcmp(key.data, next->last, key.len) == 0)
        return true;
    memcpy(next->last, key.data, key.len);
    next->last_len = key.len;
    next->bytes = malloc(value.len ? value.len : 1);
    if (next->bytes)
        memcpy(next->bytes, value.data, value.len);
    next->len = value.len;
    next->found = true;
    return false;
}

lade_code_t
lade_records_upgrade_indexes(lade_store_t *store, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    s_next_t next = {.found = true};
    while (!code && next.found) {
        next.found = false;
        code = lade_store_scan(store, LADE_DB_MODELS, next.last, next.last_len, 0, false, s_on_next,
                               &next, error);
        if (!code && next.found && !next.bytes)
            code = lade_error_set(error, LADE_NO_MEMORY, "no memory for a record");
        if (!code && next.found)
            code = lade_records_reindex(store, (lade_bytes_t){NULL, 0},
                                        (lade_bytes_t){next.bytes, next.len}, error);
        free(next.bytes);
        next.bytes = NULL;
    }
    return code;
}
