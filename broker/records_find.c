// Finding records: which index is asked, and in what order the answer comes.
//
// There are two ways. What one of the conditions leaves few of (S_FEW: a name, a hash, a tag, a
// small class) is gathered from its index, asked for the other conditions and sorted. Else the
// index that has the wanted order is walked, and costs as many steps as the page has records and
// those before it: for the preset order exactly those of the class asked for; otherwise every
// record on the way is looked at. Either way no more than S_FEW records are ever sorted, and only
// those of the page are copied.
#include "broker/packer.h"
#include "broker/peek.h"
#include "broker/records_private.h"
#include "common/log.h"
#include "common/record.h"
#include "common/wire.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_FEW = 4096,
    S_MOST_BYTES = 12 << 20, // of an answer; the next page begins where it ends
    S_MAX_PARTS = 64,        // prefixes that are walked one after the other
};

// clang-format off
static const struct {
    const char *name;
    lade_index_t index;
} s_orders[] = {
    [LADE_ORDER_TYPE]    = {"type",       LADE_INDEX_TYPE},
    [LADE_ORDER_BASE]    = {"base",       LADE_INDEX_BASE},
    [LADE_ORDER_NAME]    = {"name",       LADE_INDEX_NAME},
    [LADE_ORDER_FORMAT]  = {"format",     LADE_INDEX_FORMAT},
    [LADE_ORDER_SIZE]    = {"size",       LADE_INDEX_SIZE},
    [LADE_ORDER_CREATED] = {"created_at", LADE_INDEX_CREATED},
    [LADE_ORDER_UPDATED] = {"updated_at", LADE_INDEX_UPDATED},
    [LADE_ORDER_PATH]    = {"path",       LADE_INDEX_PATH},
};
// clang-format on
enum { S_ORDERS = sizeof s_orders / sizeof *s_orders };
_Static_assert(sizeof s_orders / sizeof *s_orders == LADE_ORDER_COUNT, "an order has no row");

lade_code_t
lade_records_order(const char *text, lade_records_order_t *order_p, lade_error_t *error)
{
    *order_p = LADE_ORDER_TYPE;
    if (!text || !*text || strcmp(text, "default") == 0)
        return LADE_OK;
    for (size_t i = 0; i < S_ORDERS; i++)
        if (strcmp(s_orders[i].name, text) == 0) {
            *order_p = (lade_records_order_t)i;
            return LADE_OK;
        }
    return lade_error_set(error, LADE_VALUE_ERROR,
                          "order_by: '%.40s' does not do; it takes one of default, type, base, "
                          "name, format, size, created_at, updated_at, path",
                          text);
}

// ---------------------------------------------------------------------------------------------------
// Conditions, asked of a record

typedef struct {
    lade_records_t *records;
    const lade_records_query_t *query;
    lade_buf_t *buf;                 // the records found, packed
    size_t count;                    // of them
    uint64_t skip;                   // matches still to be left out
    uint64_t total;                  // matches seen
    bool counts;                     // matches are counted to the end
    bool asks;                       // entries have to be asked for the conditions
    const lade_records_index_t *row; // the index that is walked
    bool full;                       // the page is
    lade_code_t code;
    lade_error_t *error;
} s_find_t;

static bool
s_is(lade_bytes_t record, const char *field, const char *wanted)
{
    lade_bytes_t text;
    return !wanted || (lade_peek_text(record, field, &text) && text.len == strlen(wanted) &&
                       memcmp(text.data, wanted, text.len) == 0);
}

static bool
s_has(lade_bytes_t record, const char *field, const char *wanted, size_t len)
{
    lade_bytes_t list, item;
    size_t at = 0;
    if (!lade_peek(record, field, &list))
        return false;
    while (lade_peek_item(list, &at, &item))
        if (item.len == len && memcmp(item.data, wanted, len) == 0)
            return true;
    return false;
}

static bool
s_matches(const lade_records_query_t *query, lade_bytes_t record)
{
    if (!s_is(record, "name", query->name) || !s_is(record, "type", query->type) ||
        !s_is(record, "format", query->format) || !s_is(record, "hash", query->hash))
        return false;
    if (query->base && !s_is(record, "base", query->base) &&
        !s_has(record, "bases", query->base, strlen(query->base)))
        return false;
    for (size_t i = 0; i < json_array_size(query->tags); i++) {
        const json_t *tag = json_array_get(query->tags, i);
        if (!s_has(record, "tags", json_string_value(tag), json_string_length(tag)))
            return false;
    }
    return true;
}

static lade_code_t
s_record(s_find_t *self, lade_bytes_t key, lade_bytes_t *record)
{
    lade_code_t code = lade_store_get(self->records->store, LADE_DB_MODELS, key.data, key.len,
                                      record, self->error);
    return code != LADE_NOT_FOUND
               ? code
               : lade_error_set(self->error, LADE_CORRUPT,
                                "an index of the keyspace names a model that is not there; "
                                "`lade doctor` says more");
}

// Takes one match into the page. A record that cannot be read is left out: it would make the whole
// answer unreadable.
static bool
s_take(s_find_t *self, lade_bytes_t key, lade_bytes_t record)
{
    self->total++;
    if (self->skip) {
        self->skip--;
        return true;
    }
    self->full = self->full || self->count == self->query->limit;
    if (self->full)
        return self->counts;
    if (!record.data)
        self->code = s_record(self, key, &record);
    if (self->code)
        return false;
    if (lade_wire_check(record.data, record.len, NULL)) {
        lade_log(LADE_LOG_WARNING, "store",
                 "the record of model %.*s cannot be read; it is left out", (int)key.len,
                 (const char *)key.data);
        self->total--;
        return true;
    }
    if (self->count && self->buf->len + record.len > S_MOST_BYTES) {
        self->full = true;
        return self->counts;
    }
    lade_put_raw(self->buf, record.data, record.len);
    self->count++;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Walking an ordered index

// Whether the class in an entry of an index of several fields is the one asked for: a model of
// several bases is there once for each of them.
static bool
s_is_in_class(const s_find_t *self, lade_bytes_t entry)
{
    const lade_records_query_t *query = self->query;
    const char *at = (const char *)entry.data + 1, *end = at + entry.len - 1;
    for (size_t i = 0; self->row->fields[1] && i < 4; i++) {
        const char *field = self->row->fields[i];
        const char *wanted = strcmp(field, "type") == 0     ? query->type
                             : strcmp(field, "base") == 0   ? query->base
                             : strcmp(field, "format") == 0 ? query->format
                                                            : NULL;
        size_t len = strnlen(at, (size_t)(end - at));
        if (wanted && (strlen(wanted) != len || memcmp(wanted, at, len) != 0))
            return false;
        at += len + (at + len < end);
    }
    return true;
}

static bool
s_on_entry(void *arg, lade_bytes_t entry, lade_bytes_t value)
{
    s_find_t *self = arg;
    lade_bytes_t key, record = {NULL, 0};
    if (!self->query->base && value.len)
        return true; // the same model, at another of its bases
    if (self->asks && !s_is_in_class(self, entry))
        return true;
    if (!lade_records_key_in(entry, &key))
        return true;
    if (self->asks) {
        self->code = s_record(self, key, &record);
        if (self->code)
            return false;
        if (!s_matches(self->query, record))
            return true;
    }
    return s_take(self, key, record);
}

typedef struct {
    lade_index_t index;
    size_t count;
    struct {
        char bytes[LADE_STORE_MAX_KEY];
        size_t len;
    } prefixes[S_MAX_PARTS];
    bool named; // they have one name only, so that no entry has to be asked for it
} s_route_t;

static void
s_add_prefix(s_route_t *route, lade_index_t index, const char *a, const char *b, const char *c,
             const char *d)
{
    const char *values[5] = {a, b, c, d, NULL};
    assert(route->count < S_MAX_PARTS);
    route->index = index;
    route->prefixes[route->count].len =
        lade_records_prefix(index, values, route->prefixes[route->count].bytes);
    route->count++;
}

static int
s_by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The ranges of an index that together are one class in the preset order.
static void
s_preset_route(s_route_t *route, const lade_records_query_t *query)
{
    const char *type = query->type, *base = query->base, *format = query->format;
    route->named = query->name && type && base;
    if (format && base && !type) {
        const char *types[S_MAX_PARTS];
        const char *const *all = lade_enum_values(LADE_ENUM_TYPE);
        size_t count = 0;
        for (; all[count]; count++)
            types[count] = all[count];
        qsort(types, count, sizeof *types, s_by_text);
        for (size_t i = 0; i < count; i++)
            s_add_prefix(route, LADE_INDEX_FORMAT, format, types[i], base, query->name);
        route->named = query->name;
    } else if (format) {
        s_add_prefix(route, LADE_INDEX_FORMAT, format, type, base,
                     type && base ? query->name : NULL);
    } else if (base && !type) {
        s_add_prefix(route, LADE_INDEX_BASE, base, NULL, NULL, NULL);
    } else {
        s_add_prefix(route, LADE_INDEX_TYPE, type, base, type && base ? query->name : NULL, NULL);
    }
}

static void
s_route(s_route_t *route, const lade_records_query_t *query)
{
    *route = (s_route_t){.count = 0};
    if (query->order == LADE_ORDER_TYPE)
        s_preset_route(route, query);
    else
        s_add_prefix(route, s_orders[query->order].index, NULL, NULL, NULL, NULL);
}

static lade_code_t
s_walk(s_find_t *self, const s_route_t *route)
{
    self->row = lade_records_index_row(route->index);
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < route->count && !code && !self->code; i++) {
        size_t at = self->query->descending ? route->count - 1 - i : i;
        if (self->full && !self->counts)
            break;
        code = lade_store_scan(self->records->store, self->row->db, route->prefixes[at].bytes,
                               route->prefixes[at].len, route->prefixes[at].len,
                               self->query->descending, s_on_entry, self, self->error);
    }
    return code ? code : self->code;
}

// ---------------------------------------------------------------------------------------------------
// Gathering few

typedef struct {
    size_t count, most;
    bool over; // there are more
    bool first_bases;
    struct {
        char bytes[LADE_RECORDS_MAX_KEY];
        size_t len;
    } * keys; // NULL: they are only counted
} s_keys_t;

static bool
s_on_key(void *arg, lade_bytes_t entry, lade_bytes_t value)
{
    s_keys_t *self = arg;
    lade_bytes_t key;
    if ((self->first_bases && value.len) || !lade_records_key_in(entry, &key) ||
        key.len > LADE_RECORDS_MAX_KEY)
        return true;
    self->over = self->count == self->most;
    if (self->over)
        return false;
    if (self->keys) {
        memcpy(self->keys[self->count].bytes, key.data, key.len);
        self->keys[self->count].len = key.len;
    }
    self->count++;
    return true;
}

static lade_code_t
s_keys_of(s_find_t *self, const s_route_t *route, s_keys_t *keys)
{
    lade_db_t db = lade_records_index_row(route->index)->db;
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < route->count && !code && !keys->over; i++)
        code = lade_store_scan(self->records->store, db, route->prefixes[i].bytes,
                               route->prefixes[i].len, route->prefixes[i].len, false, s_on_key,
                               keys, self->error);
    return code;
}

// The narrowest of the conditions: its index, and how many it leaves (at most *best_p counted).
static lade_code_t
s_narrow(s_find_t *self, lade_index_t index, const char *value, s_route_t *best, size_t *best_p)
{
    s_route_t route = {.count = 0};
    if (!value || !*best_p)
        return LADE_OK;
    s_add_prefix(&route, index, value, NULL, NULL, NULL);
    s_keys_t keys = {.most = *best_p - 1};
    lade_code_t code = s_keys_of(self, &route, &keys);
    if (!code && !keys.over) {
        *best = route;
        *best_p = keys.count;
    }
    return code;
}

static lade_code_t
s_narrowest(s_find_t *self, s_route_t *best, size_t *best_p)
{
    const lade_records_query_t *query = self->query;
    *best_p = S_FEW + 1;
    lade_code_t code = s_narrow(self, LADE_INDEX_NAME, query->name, best, best_p);
    if (!code)
        code = s_narrow(self, LADE_INDEX_HASH, query->hash, best, best_p);
    for (size_t i = 0; i < json_array_size(query->tags) && !code; i++)
        code = s_narrow(self, LADE_INDEX_TAG, json_string_value(json_array_get(query->tags, i)),
                        best, best_p);
    bool class = query->type || query->base || query->format;
    uint64_t count = UINT64_MAX;
    if (!code && (class || *best_p > S_FEW))
        code = lade_records_class_count(self->records->store, query->type, query->base,
                                        query->format, &count, self->error);
    if (!code && count < *best_p) {
        *best = (s_route_t){.count = 0};
        s_preset_route(best, query);
        *best_p = (size_t)count;
    }
    return code;
}

typedef struct {
    const char *key;
    size_t key_len;
    char *entry; // of the index that has the order
    size_t entry_len;
} s_few_t;

static int
s_by_entry(const void *a, const void *b)
{
    const s_few_t *one = a, *other = b;
    size_t common = one->entry_len < other->entry_len ? one->entry_len : other->entry_len;
    int order = common ? memcmp(one->entry, other->entry, common) : 0;
    return order ? order
                 : (one->entry_len > other->entry_len) - (one->entry_len < other->entry_len);
}

static lade_code_t
s_no_memory(s_find_t *self)
{
    return lade_error_set(self->error, LADE_NO_MEMORY, "no memory for a search");
}

// Asks each of the keys, sorts those that match, takes the page.
static lade_code_t
s_sort(s_find_t *self, const s_keys_t *keys)
{
    s_few_t *few = calloc(keys->count + 1, sizeof *few);
    size_t count = 0;
    lade_code_t code = few ? LADE_OK : s_no_memory(self);
    for (size_t i = 0; i < keys->count && !code; i++) {
        lade_bytes_t key = {keys->keys[i].bytes, keys->keys[i].len}, record;
        code = s_record(self, key, &record);
        if (code || !s_matches(self->query, record))
            continue;
        char entry[LADE_STORE_MAX_KEY];
        size_t len = lade_records_entry(s_orders[self->query->order].index, record,
                                        self->query->base, entry);
        few[count] = (s_few_t){.key = key.data, .key_len = key.len, .entry_len = len};
        few[count].entry = malloc(len + 1);
        if (!few[count].entry)
            code = s_no_memory(self);
        else
            memcpy(few[count++].entry, entry, len);
    }
    if (count)
        qsort(few, count, sizeof *few, s_by_entry);
    for (size_t i = 0; i < count && !code; i++) {
        const s_few_t *at = &few[self->query->descending ? count - 1 - i : i];
        s_take(self, (lade_bytes_t){at->key, at->key_len}, (lade_bytes_t){NULL, 0});
        code = self->code;
    }
    for (size_t i = 0; i < count; i++)
        free(few[i].entry);
    free(few);
    return code;
}

static lade_code_t
s_gather(s_find_t *self, const s_route_t *route, size_t count)
{
    s_keys_t keys = {.most = count, .first_bases = !self->query->base};
    keys.keys = calloc(count + 1, sizeof *keys.keys);
    lade_code_t code = keys.keys ? s_keys_of(self, route, &keys) : s_no_memory(self);
    if (!code) {
        self->counts = true; // they are all at hand
        code = s_sort(self, &keys);
    }
    free(keys.keys);
    return code;
}

// ---------------------------------------------------------------------------------------------------

// A page of a class in the preset order: neither counted nor asked, and its total is kept.
static lade_code_t
s_page(s_find_t *self, const s_route_t *route, uint64_t *total_p)
{
    const lade_records_query_t *query = self->query;
    self->counts = total_p && query->name;
    lade_code_t code = s_walk(self, route);
    if (code || !total_p)
        return code;
    *total_p = self->total;
    return query->name ? LADE_OK
                       : lade_records_class_count(self->records->store, query->type, query->base,
                                                  query->format, total_p, self->error);
}

lade_code_t
lade_records_find(lade_records_t *self, const lade_records_query_t *query, lade_buf_t *buf,
                  size_t *count_p, uint64_t *total_p, lade_error_t *error)
{
    lade_error_t own = {0};
    s_find_t find = {.records = self,
                     .query = query,
                     .buf = buf,
                     .skip = query->offset,
                     .counts = total_p != NULL,
                     .error = error ? error : &own};
    s_route_t route, best = {.count = 0};
    size_t few;
    s_route(&route, query);
    bool plain = !query->hash && !json_array_size(query->tags) &&
                 (!query->name || (query->order == LADE_ORDER_TYPE && route.named));
    bool class = query->type || query->base || query->format;
    lade_code_t code;
    if (plain && (query->order == LADE_ORDER_TYPE || !class)) {
        code = s_page(&find, &route, total_p);
    } else {
        code = s_narrowest(&find, &best, &few);
        if (!code && few <= S_FEW) {
            code = s_gather(&find, &best, few);
        } else if (!code) {
            find.asks = true;
            code = s_walk(&find, &route);
        }
        if (!code && total_p)
            *total_p = find.total;
    }
    *count_p = find.count;
    return code;
}
