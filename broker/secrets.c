// The secret store: two tables on the same entries, by id and by value, and one small file.
#include "broker/secrets.h"

#include "broker/map.h"
#include "broker/packer.h"
#include "common/log.h"
#include "common/path.h"
#include "common/tokens.h"

#include <czmq.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>

enum {
    S_TIDY_MS = 1000,                  // between two writes that only leave something out
    S_FIXEXT16 = 0xd8,                 // how msgpack begins an extension of 16 bytes
    S_REFERENCE = 2 + LADE_SECRETS_ID, // bytes of a packed one
    S_MAX_FILE = 1 << 30,
};

static const char s_magic[] = "lade secrets 1\n";
static const uint8_t s_mark[] = {S_FIXEXT16, LADE_SECRETS_TYPE}; // of a reference

typedef struct {
    uint8_t id[LADE_SECRETS_ID];
    char *value; // packed
    size_t len;
    int64_t count; // references to it in jobs
    bool saved;
} s_secret_t;

struct lade_secrets {
    char *folder, *path;
    lade_map_t *by_id, *by_value;
    bool fresh;  // one is not in the file yet
    bool unused; // one may have no reference
    bool stale;  // the file has more than there is
    int64_t tidied_ms;
};

// ---------------------------------------------------------------------------------------------------
// Entries

static void
s_secret_destroy(s_secret_t *secret)
{
    explicit_bzero(secret->value, secret->len);
    free(secret->value);
    free(secret);
}

static void
s_drop(lade_secrets_t *self, s_secret_t *secret)
{
    lade_map_del(self->by_id, secret->id, sizeof secret->id);
    lade_map_del(self->by_value, secret->value, secret->len);
    s_secret_destroy(secret);
}

static s_secret_t *
s_add(lade_secrets_t *self, const uint8_t *id, const char *value, size_t len)
{
    s_secret_t *secret = zmalloc(sizeof *secret);
    memcpy(secret->id, id, sizeof secret->id);
    secret->value = zmalloc(len);
    memcpy(secret->value, value, len);
    secret->len = len;
    lade_map_put(self->by_id, secret->id, sizeof secret->id, secret);
    lade_map_put(self->by_value, secret->value, secret->len, secret);
    return secret;
}

// Takes out every entry for which drop is true. The tables must not change while they are gone
// through.
static size_t
s_drop_if(lade_secrets_t *self, bool (*drop)(const s_secret_t *secret))
{
    size_t count = 0, at = 0, size = lade_map_size(self->by_id);
    s_secret_t **dropped = zmalloc((size + 1) * sizeof *dropped);
    for (s_secret_t *secret; (secret = lade_map_next(self->by_id, &at));)
        if (drop(secret))
            dropped[count++] = secret;
    for (size_t i = 0; i < count; i++)
        s_drop(self, dropped[i]);
    free(dropped);
    return count;
}

static bool
s_is_unused(const s_secret_t *secret)
{
    return secret->count <= 0;
}

static bool
s_was_never_needed(const s_secret_t *secret)
{
    return secret->count <= 0 && !secret->saved;
}

static bool
s_always(const s_secret_t *secret)
{
    (void)secret;
    return true;
}

size_t
lade_secrets_size(const lade_secrets_t *self)
{
    return lade_map_size(self->by_id);
}

// ---------------------------------------------------------------------------------------------------
// The file: the magic, and an array of id, value, id, value, …

static void
s_put_all(const lade_secrets_t *self, lade_buf_t *buf)
{
    lade_put_raw(buf, s_magic, strlen(s_magic));
    lade_put_array(buf, 2 * lade_map_size(self->by_id));
    size_t at = 0;
    for (const s_secret_t *secret; (secret = lade_map_next(self->by_id, &at));) {
        lade_put_typed(buf, 0xc4, sizeof secret->id, 1); // bin 8
        lade_put_raw(buf, secret->id, sizeof secret->id);
        lade_put_typed(buf, 0xc6, secret->len, 4); // bin 32
        lade_put_raw(buf, secret->value, secret->len);
    }
}

static lade_code_t
s_write(lade_secrets_t *self, lade_error_t *error)
{
    // All at once, so that no buffer is left behind by growing.
    size_t at = 0, size = sizeof s_magic + 16;
    for (const s_secret_t *secret; (secret = lade_map_next(self->by_id, &at));)
        size += secret->len + sizeof secret->id + 16;
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    lade_put_room(&buf, size);
    s_put_all(self, &buf);
    lade_code_t code = lade_path_write(self->path, buf.data, buf.len, 0600, error);
    explicit_bzero(buf.data, buf.len);
    lade_buf_free(&buf);
    at = 0;
    for (s_secret_t *secret; !code && (secret = lade_map_next(self->by_id, &at));)
        secret->saved = true;
    self->stale = self->stale && code;
    return code;
}

static bool
s_take_pair(lade_secrets_t *self, const msgpack_object *id, const msgpack_object *value)
{
    if (id->type != MSGPACK_OBJECT_BIN || id->via.bin.size != LADE_SECRETS_ID ||
        value->type != MSGPACK_OBJECT_BIN || value->via.bin.size == 0 ||
        value->via.bin.size > LADE_SECRETS_MAX_BYTES ||
        lade_map_get(self->by_id, id->via.bin.ptr, LADE_SECRETS_ID))
        return false;
    s_add(self, (const uint8_t *)id->via.bin.ptr, value->via.bin.ptr, value->via.bin.size)->saved =
        true;
    return true;
}

static bool
s_take_all(lade_secrets_t *self, const char *bytes, size_t len)
{
    size_t at = strlen(s_magic);
    if (len < at || memcmp(bytes, s_magic, at) != 0)
        return false;
    msgpack_unpacked all;
    msgpack_unpacked_init(&all);
    bool whole = msgpack_unpack_next(&all, bytes, len, &at) == MSGPACK_UNPACK_SUCCESS &&
                 at == len && all.data.type == MSGPACK_OBJECT_ARRAY &&
                 all.data.via.array.size % 2 == 0;
    const msgpack_object *items = all.data.via.array.ptr;
    for (uint32_t i = 0; whole && i < all.data.via.array.size; i += 2)
        whole = s_take_pair(self, &items[i], &items[i + 1]);
    msgpack_unpacked_destroy(&all);
    return whole;
}

// What a killed broker was writing, or what an operator left here.
static void
s_remove_leftovers(const lade_secrets_t *self)
{
    DIR *dir = opendir(self->folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strncmp(entry->d_name, "tokens.tmp-", strlen("tokens.tmp-")) == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
}

static lade_code_t
s_read(lade_secrets_t *self, lade_error_t *error)
{
    struct stat st;
    char *bytes = NULL;
    size_t len = 0;
    s_remove_leftovers(self);
    if (lstat(self->path, &st) != 0)
        return LADE_OK; // none yet
    lade_code_t code = lade_path_read(self->path, S_MAX_FILE, &bytes, &len, error);
    if (code)
        return code;
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        chmod(self->path, 0600);
    if (!s_take_all(self, bytes, len)) {
        char *aside = lade_path_join(self->folder, "tokens.bad");
        s_drop_if(self, s_always);
        lade_log(LADE_LOG_ERROR, "secrets",
                 "%s cannot be read and is set aside as %s; jobs that need a token of it will ask "
                 "for it",
                 self->path, aside);
        if (rename(self->path, aside) != 0)
            code = lade_error_errno(error, errno, "cannot set %s aside", self->path);
        free(aside);
    }
    explicit_bzero(bytes, len);
    free(bytes);
    return code;
}

lade_code_t
lade_secrets_open(const char *data, lade_secrets_t **self_p, lade_error_t *error)
{
    lade_secrets_t *self = *self_p = zmalloc(sizeof *self);
    self->folder = lade_path_join(data, "secrets");
    self->path = lade_path_join(self->folder, "tokens");
    self->by_id = lade_map_new();
    self->by_value = lade_map_new();
    lade_code_t code = lade_path_mkdirs(self->folder, 0700, error);
    if (!code && chmod(self->folder, 0700) != 0)
        code = lade_error_errno(error, errno, "cannot close %s to others", self->folder);
    return code ? code : s_read(self, error);
}

void
lade_secrets_close(lade_secrets_t **self_p)
{
    lade_secrets_t *self = *self_p;
    if (!self)
        return;
    s_drop_if(self, s_always);
    lade_map_destroy(&self->by_id);
    lade_map_destroy(&self->by_value);
    free(self->folder);
    free(self->path);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Names

static bool
s_names_secret(const msgpack_object *key)
{
    if (key->type != MSGPACK_OBJECT_STR)
        return false;
    for (size_t i = 0; i + 5 <= key->via.str.size; i++)
        if (strncasecmp(key->via.str.ptr + i, "token", 5) == 0)
            return true;
    return false;
}

// Nothing is hidden where there is nothing.
static bool
s_is_secret(const msgpack_object_kv *pair)
{
    return s_names_secret(&pair->key) && pair->val.type != MSGPACK_OBJECT_NIL &&
           !(pair->val.type == MSGPACK_OBJECT_STR && pair->val.via.str.size == 0);
}

bool
lade_secrets_named(const msgpack_object *object)
{
    if (object->type == MSGPACK_OBJECT_ARRAY) {
        for (uint32_t i = 0; i < object->via.array.size; i++)
            if (lade_secrets_named(&object->via.array.ptr[i]))
                return true;
        return false;
    }
    if (object->type != MSGPACK_OBJECT_MAP)
        return false;
    for (uint32_t i = 0; i < object->via.map.size; i++)
        if (s_names_secret(&object->via.map.ptr[i].key) ||
            lade_secrets_named(&object->via.map.ptr[i].val))
            return true;
    return false;
}

// ---------------------------------------------------------------------------------------------------
// One walk for all: packs the object, and `put` packs what is secret

typedef struct s_walk {
    lade_buf_t *buf;
    void (*put)(struct s_walk *self, const msgpack_object *value);
    lade_secrets_t *secrets;
    bool lost, found;
    lade_code_t code;
    lade_error_t error;
} s_walk_t;

static void s_walk(s_walk_t *self, const msgpack_object *object);

static void
s_walk_pair(s_walk_t *self, const msgpack_object_kv *pair)
{
    lade_put_object(self->buf, &pair->key);
    if (s_is_secret(pair))
        self->put(self, &pair->val);
    else
        s_walk(self, &pair->val);
}

static void
s_walk(s_walk_t *self, const msgpack_object *object)
{
    if (object->type == MSGPACK_OBJECT_ARRAY) {
        lade_put_array(self->buf, object->via.array.size);
        for (uint32_t i = 0; i < object->via.array.size; i++)
            s_walk(self, &object->via.array.ptr[i]);
        return;
    }
    if (object->type != MSGPACK_OBJECT_MAP) {
        lade_put_object(self->buf, object);
        return;
    }
    lade_put_map(self->buf, object->via.map.size);
    for (uint32_t i = 0; i < object->via.map.size; i++)
        s_walk_pair(self, &object->via.map.ptr[i]);
}

static void
s_put_stars(s_walk_t *self, const msgpack_object *value)
{
    (void)value;
    lade_put_str(self->buf, "***");
}

void
lade_secrets_put_hidden(lade_buf_t *buf, const msgpack_object *object)
{
    s_walk_t walk = {.buf = buf, .put = s_put_stars};
    s_walk(&walk, object);
}

void
lade_secrets_put_hidden_pair(lade_buf_t *buf, const msgpack_object_kv *pair)
{
    s_walk_t walk = {.buf = buf, .put = s_put_stars};
    s_walk_pair(&walk, pair);
}

// ---------------------------------------------------------------------------------------------------
// Taking out

// A place for one more: one that no job needs any more makes room.
static lade_code_t
s_make_room(lade_secrets_t *self, lade_error_t *error)
{
    if (lade_secrets_size(self) < LADE_SECRETS_MAX || s_drop_if(self, s_is_unused))
        return LADE_OK;
    return lade_error_set(error, LADE_QUEUE_FULL,
                          "the jobs that are kept have %d different tokens already; prune ended "
                          "jobs, or name tokens in remote_api_tokens instead",
                          LADE_SECRETS_MAX);
}

static lade_code_t
s_need(lade_secrets_t *self, const char *value, size_t len, s_secret_t **secret_p,
       lade_error_t *error)
{
    uint8_t id[LADE_SECRETS_ID];
    if ((*secret_p = lade_map_get(self->by_value, value, len)))
        return LADE_OK;
    if (len > LADE_SECRETS_MAX_BYTES)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "what is named token has %zu bytes, at most %d are kept", len,
                              LADE_SECRETS_MAX_BYTES);
    lade_code_t code = s_make_room(self, error);
    if (code)
        return code;
    if (getrandom(id, sizeof id, 0) != sizeof id)
        return lade_error_errno(error, errno, "no random bytes");
    *secret_p = s_add(self, id, value, len);
    self->fresh = true;
    return LADE_OK;
}

static s_secret_t *
s_find(const lade_secrets_t *self, const msgpack_object *value)
{
    return value->type == MSGPACK_OBJECT_EXT && value->via.ext.type == LADE_SECRETS_TYPE &&
                   value->via.ext.size == LADE_SECRETS_ID
               ? lade_map_get(self->by_id, value->via.ext.ptr, LADE_SECRETS_ID)
               : NULL;
}

static void
s_put_reference(s_walk_t *self, const msgpack_object *value)
{
    s_secret_t *secret;
    lade_buf_t packed = LADE_BUF(SIZE_MAX / 2);
    lade_put_object(&packed, value);
    if ((secret = s_find(self->secrets, value)) == NULL && !self->code) // not taken out before
        self->code = s_need(self->secrets, packed.data, packed.len, &secret, &self->error);
    explicit_bzero(packed.data, packed.len);
    lade_buf_free(&packed);
    if (self->code) {
        lade_put_nil(self->buf);
        return;
    }
    secret->count++;
    lade_put_raw(self->buf, s_mark, sizeof s_mark);
    lade_put_raw(self->buf, secret->id, sizeof secret->id);
}

lade_code_t
lade_secrets_take_out(lade_secrets_t *self, const msgpack_object *object, lade_blob_t *packed,
                      lade_error_t *error)
{
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    s_walk_t walk = {.buf = &buf, .put = s_put_reference, .secrets = self};
    s_walk(&walk, object);
    if (walk.code) {
        lade_secrets_count(self, buf.data, buf.len, -1);
        lade_buf_free(&buf);
        if (error)
            *error = walk.error;
        return walk.code;
    }
    lade_blob_free(packed);
    *packed = (lade_blob_t){buf.data, buf.len};
    return LADE_OK;
}

// Where the authority of an http or https URL begins; NULL for any other text.
static const char *
s_authority(const char *url, size_t len)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; url && i < 2; i++)
        if (len > strlen(schemes[i]) && strncasecmp(url, schemes[i], strlen(schemes[i])) == 0)
            return url + strlen(schemes[i]);
    return NULL;
}

lade_code_t
lade_secrets_check_url(const char *url, size_t len, lade_error_t *error)
{
    const char *from = s_authority(url, len), *to = from;
    while (from && to < url + len && !strchr("/?#\\", *to))
        to++;
    const char *at = from ? memrchr(from, '@', (size_t)(to - from)) : NULL;
    const char *colon = at ? memchr(from, ':', (size_t)(at - from)) : NULL;
    if (!colon || colon + 1 == at)
        return LADE_OK;
    return lade_error_set(
        error, LADE_VALUE_ERROR,
        "source: a URL with a password in it would be seen by whoever lists jobs; "
        "leave it out, and give it to the workers by download.netrc");
}

// ---------------------------------------------------------------------------------------------------
// References

// The secret of the next reference in the bytes from *at on; NULL past the last. Bytes that look
// like a reference and are none name no secret: nobody guesses 16 random bytes.
static s_secret_t *
s_next(const lade_secrets_t *self, const char *bytes, size_t len, size_t *at)
{
    while (len >= S_REFERENCE && *at <= len - S_REFERENCE) {
        const char *mark = memmem(bytes + *at, len - *at, s_mark, sizeof s_mark);
        if (!mark || (size_t)(mark - bytes) > len - S_REFERENCE)
            return NULL;
        s_secret_t *secret = lade_map_get(self->by_id, mark + sizeof s_mark, LADE_SECRETS_ID);
        *at = (size_t)(mark - bytes) + (secret ? S_REFERENCE : 1);
        if (secret)
            return secret;
    }
    return NULL;
}

void
lade_secrets_count(lade_secrets_t *self, const void *bytes, size_t len, int by)
{
    size_t at = 0;
    if (lade_map_size(self->by_id) == 0)
        return;
    for (s_secret_t *secret; (secret = s_next(self, bytes, len, &at));) {
        secret->count += by;
        self->unused = self->unused || secret->count <= 0;
    }
}

static void
s_put_value(s_walk_t *self, const msgpack_object *value)
{
    const s_secret_t *secret = s_find(self->secrets, value);
    self->found = self->found || secret;
    self->lost = self->lost || !secret;
    if (secret)
        lade_put_raw(self->buf, secret->value, secret->len);
    else
        lade_put_nil(self->buf);
}

static void
s_walk_packed(s_walk_t *walk, const lade_blob_t *packed)
{
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    if (packed->len &&
        msgpack_unpack_next(&unpacked, packed->data, packed->len, NULL) == MSGPACK_UNPACK_SUCCESS)
        s_walk(walk, &unpacked.data);
    else
        lade_put_nil(walk->buf);
    msgpack_unpacked_destroy(&unpacked);
}

// Whether there is anything that looks like a reference: most jobs have none, and that is seen
// fast.
static bool
s_may_refer(const lade_blob_t *packed)
{
    return packed->len >= S_REFERENCE && memmem(packed->data, packed->len, s_mark, sizeof s_mark);
}

bool
lade_secrets_fill(const lade_secrets_t *self, const lade_blob_t *packed, lade_buf_t *buf)
{
    if (!s_may_refer(packed)) {
        lade_put_packed(buf, packed->data, packed->len);
        return false;
    }
    s_walk_t walk = {.buf = buf, .put = s_put_value, .secrets = (lade_secrets_t *)self};
    s_walk_packed(&walk, packed);
    return walk.found;
}

// The text of a secret; NULL for one that is none or too short to be told from other words.
static const char *
s_text(const s_secret_t *secret, size_t *len_p)
{
    enum { S_SHORTEST = 6 };
    uint8_t first = (uint8_t)secret->value[0];
    size_t head = (first & 0xe0) == 0xa0 ? 1 : first == 0xd9 ? 2 : first == 0xda ? 3 : 0;
    *len_p = secret->len - head;
    return head && *len_p >= S_SHORTEST ? secret->value + head : NULL;
}

void
lade_secrets_hide(const lade_secrets_t *self, const lade_blob_t *packed, char *bytes, size_t len)
{
    size_t at = 0, text_len;
    for (const s_secret_t *secret; (secret = s_next(self, packed->data, packed->len, &at));) {
        const char *text = s_text(secret, &text_len);
        lade_tokens_hide(bytes, len, text, text_len);
    }
}

static void
s_look(s_walk_t *self, const msgpack_object *value)
{
    self->lost = self->lost || !s_find(self->secrets, value);
}

bool
lade_secrets_has_all(const lade_secrets_t *self, const lade_blob_t *packed)
{
    if (!s_may_refer(packed))
        return true;
    lade_buf_t unwanted = LADE_BUF(SIZE_MAX / 2);
    s_walk_t walk = {.buf = &unwanted, .put = s_look, .secrets = (lade_secrets_t *)self};
    s_walk_packed(&walk, packed);
    lade_buf_free(&unwanted);
    return !walk.lost;
}

// ---------------------------------------------------------------------------------------------------
// The turn

lade_code_t
lade_secrets_save(lade_secrets_t *self, lade_error_t *error)
{
    if (!self->fresh)
        return LADE_OK;
    lade_code_t code = s_write(self, error);
    self->fresh = code != LADE_OK;
    return code ? lade_error_wrap(error, "the token is not taken") : LADE_OK;
}

// A file that has too much is no harm until the next turn; it is not worth failing one.
void
lade_secrets_turn(lade_secrets_t *self, int64_t mono_ms)
{
    if (!(self->unused || self->stale) || mono_ms - self->tidied_ms < S_TIDY_MS)
        return;
    lade_error_t error = {0};
    self->tidied_ms = mono_ms;
    self->stale = s_drop_if(self, s_is_unused) || self->stale;
    self->unused = false;
    if (self->stale && s_write(self, &error))
        lade_log(LADE_LOG_WARNING, "secrets", "what no job needs is not removed yet: %s",
                 error.message);
}

void
lade_secrets_recount(lade_secrets_t *self)
{
    size_t at = 0;
    for (s_secret_t *secret; (secret = lade_map_next(self->by_id, &at));)
        secret->count = 0;
}

void
lade_secrets_recounted(lade_secrets_t *self)
{
    s_drop_if(self, s_was_never_needed);
    self->fresh = false;
    size_t at = 0;
    for (const s_secret_t *secret; (secret = lade_map_next(self->by_id, &at));)
        self->fresh = self->fresh || !secret->saved;
    self->unused = true; // it costs one look
}
