// Many records: pages out, parts in.
#include "client/transfer.h"

#include "common/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_PAGE = 1000,
    S_PART = 10000,            // records of one call
    S_PART_BYTES = 8 << 20,    // of packed records
    S_PART_VALUES = 900 * 1000 // values of one body are at most 2^20
};

// ---------------------------------------------------------------------------------------------------
// Out

lade_code_t
lade_transfer_all(lade_t *self, json_t **list_p, lade_error_t *error)
{
    json_t *all = json_array(), *seen = json_object();
    size_t got = 1;
    lade_code_t code = LADE_OK;
    // A page may be shorter than asked for, and records that come and go meanwhile move the others.
    for (size_t offset = 0; got && !code; offset += got) {
        json_t *page = NULL;
        code = lade_request_json(
            self, "store", "all_models",
            json_pack("{s:i, s:I}", "limit", S_PAGE, "offset", (json_int_t)offset), NULL, NULL,
            &page, error);
        got = json_array_size(page);
        for (size_t i = 0; i < got; i++) {
            json_t *record = json_array_get(page, i);
            const char *key = lade_json_text(record, "key", "");
            if (!json_object_get(seen, key))
                json_array_append(all, record);
            json_object_set_new(seen, key, json_true());
        }
        json_decref(page);
    }
    json_decref(seen);
    if (code) {
        json_decref(all);
        all = NULL;
    }
    *list_p = all;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// In

static size_t
s_values(const json_t *value)
{
    size_t count = 1;
    const char *key;
    json_t *member;
    for (size_t i = 0; i < json_array_size(value); i++)
        count += s_values(json_array_get(value, i));
    json_object_foreach((json_t *)value, key, member) count += 1 + s_values(member);
    return count;
}

// How many records from at on fit into one call.
static size_t
s_part(const json_t *models, size_t at)
{
    size_t count = 0, bytes = 0, values = 0;
    lade_buf_t buf = LADE_BUF(LADE_WIRE_MAX_BODY);
    while (at + count < json_array_size(models) && count < S_PART) {
        const json_t *model = json_array_get(models, at + count);
        lade_buf_clear(&buf);
        size_t size = lade_wire_from_json(model, &buf, NULL) ? LADE_WIRE_MAX_BODY : buf.len;
        values += s_values(model);
        bytes += size;
        if (count && (bytes > S_PART_BYTES || values > S_PART_VALUES))
            break;
        count++;
    }
    lade_buf_free(&buf);
    return count;
}

static void
s_add_up(json_t *said, const json_t *more)
{
    static const char *const counts[] = {"added", "replaced", "skipped", "failed"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        json_object_set_new(
            said, counts[i],
            json_integer(lade_json_int(said, counts[i], 0) + lade_json_int(more, counts[i], 0)));
    json_array_extend(json_object_get(said, "models"), json_object_get(more, "models"));
}

static lade_code_t
s_send(lade_t *self, const json_t *models, size_t at, size_t count, const char *on_conflict,
       bool each, bool dry_run, json_t *said, lade_error_t *error)
{
    json_t *part = json_array(), *answer = NULL;
    for (size_t i = 0; i < count; i++)
        json_array_append(part, json_array_get(models, at + i));
    json_t *args = json_pack("{s:o, s:s, s:b, s:b}", "models", part, "on_conflict", on_conflict,
                             "each", each, "dry_run", dry_run);
    lade_code_t code =
        lade_request_json(self, "store", "import_models", args, NULL, NULL, &answer, error);
    if (!code)
        s_add_up(said, answer);
    json_decref(answer);
    return code;
}

lade_code_t
lade_transfer_import(lade_t *self, const json_t *models, const char *on_conflict, bool each,
                     bool dry_run, bool parts, json_t **said_p, lade_error_t *error)
{
    json_t *said = json_pack("{s:i, s:i, s:i, s:i, s:[]}", "added", 0, "replaced", 0, "skipped", 0,
                             "failed", 0, "models");
    size_t size = json_array_size(models);
    lade_code_t code = LADE_OK;
    *said_p = NULL;
    for (size_t at = 0, count; at < size && !code; at += count) {
        count = s_part(models, at);
        if (count < size && !parts)
            code =
                lade_error_set(error, LADE_TOO_LARGE,
                               "%zu records are more than one step takes (%d, %d MiB): import them "
                               "in parts, each of which is all or nothing by itself",
                               size, S_PART, S_PART_BYTES >> 20);
        else
            code = s_send(self, models, at, count, on_conflict, each, dry_run, said, error);
    }
    if (code)
        json_decref(said);
    else
        *said_p = said;
    return code;
}
