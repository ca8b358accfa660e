// Any bytes as a message body: what passes the check unpacks, turns into JSON and back into the
// same JSON; and whatever map it is, asking whether it is a model record is safe.
#include "common/record.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
s_expect(bool true_of_every_body)
{
    if (!true_of_every_body)
        abort();
}

static void
s_unpack(const uint8_t *data, size_t len)
{
    msgpack_zone zone;
    msgpack_object map;
    msgpack_zone_init(&zone, 2048);
    if (!lade_wire_unpack(data, len, &zone, &map, NULL)) {
        const char *text;
        size_t text_len;
        s_expect(!lade_wire_find(&map, "no such key") || memmem(data, len, "no such key", 11));
        lade_wire_int(&map, "id", 0);
        lade_wire_real(&map, "id", 0);
        lade_wire_bool(&map, "id", false);
        if (lade_wire_text(&map, "op", &text, &text_len))
            s_expect(text_len == 0 || ((const uint8_t *)text >= data &&
                                       (const uint8_t *)text + text_len <= data + len));
        free(lade_wire_strdup(&map, "op"));
        lade_buf_t buf = LADE_BUF(LADE_WIRE_MAX_BODY);
        lade_pack_t pack;
        lade_pack_open(&pack, &buf);
        lade_pack_object(&pack, &map);
        s_expect(!lade_pack_failed(&pack, NULL) && !lade_wire_check(buf.data, buf.len, NULL));
        lade_buf_free(&buf);
    }
    msgpack_zone_destroy(&zone);
}

static void
s_try_record(json_t *value)
{
    lade_error_t error = {0};
    json_t *applied;
    if (lade_record_check(value, &error))
        s_expect(error.code && *error.message);
    lade_record_check_changes(value, NULL);
    if (!lade_record_apply(value, value, &applied, NULL))
        s_expect(!lade_record_check(applied, NULL));
    json_decref(applied);
}

static void
s_round_trip(const uint8_t *data, size_t len)
{
    json_t *value, *again;
    if (lade_wire_to_json(data, len, &value, NULL)) {
        s_expect(!value);
        return;
    }
    lade_buf_t buf = LADE_BUF(LADE_WIRE_MAX_BODY * 2);
    s_expect(!lade_wire_from_json(value, &buf, NULL));
    s_expect(!lade_wire_to_json(buf.data, buf.len, &again, NULL));
    s_expect(json_equal(value, again));
    s_try_record(value);
    json_decref(again);
    json_decref(value);
    lade_buf_free(&buf);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    bool whole = !lade_wire_check(data, len, NULL);
    msgpack_zone zone;
    msgpack_object object;
    size_t at = 0;
    msgpack_zone_init(&zone, 2048);
    if (whole) // msgpack-c agrees that this is one value
        s_expect(msgpack_unpack((const char *)data, len, &at, &zone, &object) ==
                     MSGPACK_UNPACK_SUCCESS &&
                 at == len);
    msgpack_zone_destroy(&zone);
    s_unpack(data, len);
    s_round_trip(data, len);
    return 0;
}
