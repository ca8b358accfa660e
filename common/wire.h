// Message bodies: msgpack maps with string keys, their ceilings, and the names both protocols use.
//
// Bytes from a peer are checked once, by lade_wire_check, before msgpack-c sees them: it walks the
// bytes without allocating and refuses what is too deep, too long or cut off. After it, unpacking
// is safe.
//
// Two ways to work with a body. The broker's hot path reads msgpack_object in place and packs by
// hand (lade_wire_find, lade_pack_*). Everybody else turns the body into jansson's json_t and back;
// msgpack bin becomes a string of bytes there, which only matters to who put bin in.
#ifndef LADE_WIRE_H
#define LADE_WIRE_H

#include "common/buf.h"
#include "common/error.h"

#include <jansson.h>
#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

// Protocol names and commands (broker/README.md has the whole protocol).
#define LADE_MDP_CLIENT "MDPC02"
#define LADE_MDP_REQUEST 0x01
#define LADE_MDP_PARTIAL 0x02
#define LADE_MDP_FINAL 0x03
#define LADE_WORKER_PROTOCOL "LADEW1"

typedef enum {
    // up, worker to broker
    LADE_W_HELLO = 1,
    LADE_W_BEAT, // both ways
    LADE_W_PROGRESS,
    LADE_W_DONE,
    LADE_W_FAIL,
    LADE_W_AWAIT,
    LADE_W_GATE,
    LADE_W_BYE,
    // down, broker to worker
    LADE_W_WELCOME,
    LADE_W_JOB,
    LADE_W_CANCEL,
    LADE_W_PAUSE,
    LADE_W_RETIRE,
    LADE_W_TERMS,
    LADE_W_END
} lade_worker_command_t; // one byte on the wire, this number

// The command's name in logs, "?" for a number out of range.
const char *lade_worker_command_name(int command);

enum {
    LADE_WIRE_MAX_DEPTH = 24, // containers within containers
    LADE_WIRE_MAX_REQUEST =
        16, // the same in what the broker takes: its answers wrap what came, and stay readable
    LADE_WIRE_MAX_BODY = 16 << 20, // bytes of one body, unless the configuration says less
    LADE_WIRE_MAX_ITEMS = 1 << 20, // values in one body
};

// LADE_OK if the bytes are exactly one msgpack value within the ceilings: LADE_WIRE_MAX_DEPTH deep,
// LADE_WIRE_MAX_ITEMS values, every string, array and map whole, every map's keys text without NUL
// (so that lade_wire_to_json takes what passes). Else LADE_BAD_REQUEST or
// LADE_TOO_LARGE. Reads each byte at most once, allocates nothing.
lade_code_t lade_wire_check(const void *bytes, size_t len, lade_error_t *error);

// Text comes as it is from peers and from names of files. A strict reader of msgpack takes no text
// that is not UTF-8, and would be lost for all else in the body: these put '?' for such bytes, in
// place, into a text and into every text of packed values (whole ones, as lade_wire_check wants
// them).
void lade_wire_mend_text(char *text, size_t len);
void lade_wire_mend(void *msgpack, size_t len);

// Checks what a peer sent to the broker (lade_wire_check, and LADE_WIRE_MAX_REQUEST) and unpacks it
// into zone. *object_p points into bytes and zone and lives as long as both. LADE_BAD_REQUEST if
// the value is not a map.
lade_code_t lade_wire_unpack(const void *bytes, size_t len, msgpack_zone *zone,
                             msgpack_object *object_p, lade_error_t *error);

// The value of a key in a map, NULL if the object is no map or has no such key (the first one
// counts).
const msgpack_object *lade_wire_find(const msgpack_object *map, const char *key);

// Typed look-ups; the preset when the key is missing, nil or of another type.
int64_t lade_wire_int(const msgpack_object *map, const char *key, int64_t preset);
double lade_wire_real(const msgpack_object *map, const char *key, double preset);
bool lade_wire_bool(const msgpack_object *map, const char *key, bool preset);

// A text value as pointer and length (not ended by a NUL); false if missing or no text.
bool lade_wire_text(const msgpack_object *map, const char *key, const char **text, size_t *len);

// As a string you free; NULL if missing, no text, or with a NUL inside.
char *lade_wire_strdup(const msgpack_object *map, const char *key);

// Packing into a buffer. A packer writes into a lade_buf_t; over its ceiling the writes fail and
// lade_pack_failed says so once, at the end.
typedef struct {
    lade_buf_t *buf;
    msgpack_packer pk;
    lade_error_t error;
} lade_pack_t;

void lade_pack_open(lade_pack_t *self, lade_buf_t *buf);
void lade_pack_map(lade_pack_t *self, size_t pairs);
void lade_pack_array(lade_pack_t *self, size_t items);
void lade_pack_str(lade_pack_t *self, const char *text); // NULL packs nil
void lade_pack_strn(lade_pack_t *self, const char *text, size_t len);
void lade_pack_int(lade_pack_t *self, int64_t value);
void lade_pack_real(lade_pack_t *self, double value);
void lade_pack_bool(lade_pack_t *self, bool value);
void lade_pack_nil(lade_pack_t *self);
void lade_pack_object(lade_pack_t *self, const msgpack_object *object);
void lade_pack_raw(lade_pack_t *self, const void *msgpack,
                   size_t len);                              // already packed; len 0 packs nil
void lade_pack_json(lade_pack_t *self, const json_t *value); // NULL packs nil
// LADE_OK, or the error of the first write that failed.
lade_code_t lade_pack_failed(const lade_pack_t *self, lade_error_t *error);

// Checks bytes and turns them into a json_t you decref. Map keys must be text.
lade_code_t lade_wire_to_json(const void *bytes, size_t len, json_t **value_p, lade_error_t *error);

// Appends the value as msgpack. Text that is not UTF-8 is fine.
lade_code_t lade_wire_from_json(const json_t *value, lade_buf_t *buf, lade_error_t *error);

// An unpacked object as json_t you decref; NULL if a map key is no text.
json_t *lade_wire_object_to_json(const msgpack_object *object);

// Text of a json object's member or the preset; the text stays the object's.
const char *lade_json_text(const json_t *object, const char *key, const char *preset);
int64_t lade_json_int(const json_t *object, const char *key, int64_t preset);
double lade_json_real(const json_t *object, const char *key, double preset);
bool lade_json_bool(const json_t *object, const char *key, bool preset);

// Seconds since the epoch (UTC) with fraction, as every time on the wire.
double lade_now(void);

// Monotonic milliseconds, for deadlines within one process.
int64_t lade_mono_ms(void);

#endif
