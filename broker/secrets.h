// Secrets of jobs: whatever is named *token* in a spec or a saved state, kept outside the keyspace.
//
// What a client or a worker sends with such a name is taken out before the job is stored. The
// keyspace holds a reference in its place: a msgpack extension (type LADE_SECRETS_TYPE) of 16
// random bytes, which nothing that comes from outside can be, since whatever comes under such a
// name is taken out itself. Only the JOB that a worker is sent has the value again.
//
// DATA/secrets/tokens holds the values, each once, for the broker's user only. It is on disk before
// the commit that refers to it, and loses what no job refers to, ended ones that are kept included,
// soon after the commit that let go.
#ifndef LADE_SECRETS_H
#define LADE_SECRETS_H

#include "broker/job.h"
#include "common/buf.h"
#include "common/error.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    LADE_SECRETS_TYPE = 0x4c,
    LADE_SECRETS_ID = 16,
    LADE_SECRETS_MAX = 10000,          // different secrets
    LADE_SECRETS_MAX_BYTES = 64 << 10, // of one
};

// Opens DATA/secrets, which is made if it is missing. A file that cannot be read is set aside with
// a log line, and its secrets count as lost. LADE_IO_ERROR if the folder cannot be used.
lade_code_t lade_secrets_open(const char *data, lade_secrets_t **self_p, lade_error_t *error);
void lade_secrets_close(lade_secrets_t **self_p);

// ---------------------------------------------------------------------------------------------------
// Objects

// True if a map anywhere in the object has a key with "token" in it.
bool lade_secrets_named(const msgpack_object *object);

// Packs the object for readers: what has such a key is "***".
void lade_secrets_put_hidden(lade_buf_t *buf, const msgpack_object *object);
void lade_secrets_put_hidden_pair(lade_buf_t *buf, const msgpack_object_kv *pair);

// Packs the object with references in place of secrets, and counts each. LADE_TOO_LARGE,
// LADE_QUEUE_FULL: a ceiling is reached, and nothing is packed or counted.
lade_code_t lade_secrets_take_out(lade_secrets_t *self, const msgpack_object *object,
                                  lade_blob_t *packed, lade_error_t *error);

// LADE_VALUE_ERROR if the text is a URL with a password in it ("https://user:password@host/"):
// whoever may list jobs is shown their sources. The error does not repeat it.
lade_code_t lade_secrets_check_url(const char *url, size_t len, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Packed objects with references

// Adds `by` to how often each reference in the bytes (any bytes of which packed objects are a part)
// is counted.
void lade_secrets_count(lade_secrets_t *self, const void *bytes, size_t len, int by);

// False if a secret that is referred to is lost.
bool lade_secrets_has_all(const lade_secrets_t *self, const lade_blob_t *packed);

// Packs the object with its secrets; nil for one that is lost and for len 0. True if there was one:
// the buffer is to be wiped.
bool lade_secrets_fill(const lade_secrets_t *self, const lade_blob_t *packed, lade_buf_t *buf);

// Stars over what repeats a secret of the packed object in bytes, which a worker, or a server
// through it, wrote: an error's sentence, a packed result (which stays one).
void lade_secrets_hide(const lade_secrets_t *self, const lade_blob_t *packed, char *bytes,
                       size_t len);

// ---------------------------------------------------------------------------------------------------
// The turn

// Before the commit: makes new secrets durable; nothing to do for a turn without. Blocks for the
// disk.
lade_code_t lade_secrets_save(lade_secrets_t *self, lade_error_t *error);

// After the commit: forgets what no job refers to, at most once a second.
void lade_secrets_turn(lade_secrets_t *self, int64_t mono_ms);

// The state is taken up again from the keyspace: every count begins at 0, then comes
// lade_secrets_count for all rows, then _recounted.
void lade_secrets_recount(lade_secrets_t *self);
void lade_secrets_recounted(lade_secrets_t *self);

// How many there are.
size_t lade_secrets_size(const lade_secrets_t *self);

#endif
