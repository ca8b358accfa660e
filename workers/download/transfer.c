// What a transfer is, and what it does on the disk.
#include "workers/download/transfer.h"

#include "common/log.h"
#include "common/path.h"

#include <ctype.h>
#include <czmq.h>
#include <inttypes.h>
#include <strings.h>
#include <sys/stat.h>

// In the hidden names, while neither the request nor the URL gives one.
static const char s_nameless[] = "download";

static char *
s_dup(const char *text)
{
    return text && *text ? strdup(text) : NULL;
}

lade_transfer_t *
lade_transfer_new(const lade_request_t *request)
{
    lade_transfer_t *self = zmalloc(sizeof *self);
    size_t count = 0;
    while (request->urls && request->urls[count])
        count++;
    self->urls = zmalloc((count + 1) * sizeof *self->urls);
    for (size_t i = 0; i < count; i++)
        self->urls[i] = strdup(request->urls[i]);
    self->id = request->id;
    self->attempt = request->attempt;
    self->size = request->size;
    self->destination = s_dup(request->destination);
    self->destdir = s_dup(request->destdir);
    self->filename = s_dup(request->filename);
    self->sha256 = s_dup(request->sha256);
    self->token = s_dup(request->access_token);
    self->preserve_partial = request->preserve_partial;
    self->journal.total = -1;
    self->digest = lade_digest_new();
    self->retry_after_s = -1;
    self->told_bytes = -1;
    self->retries = LADE_TRANSFER_RETRIES;
    self->farm_connections = request->connections;
    self->farm_rate = request->bytes_per_s;
    return self;
}

const char *
lade_transfer_url(const lade_transfer_t *self)
{
    return self->urls[self->url_at];
}

int64_t
lade_transfer_total(const lade_transfer_t *self)
{
    return self->journal.total;
}

// ---------------------------------------------------------------------------------------------------
// URLs

// One part of a URL, decoded if flags say so; you free it with curl_free. NULL if it has none.
static char *
s_url_part(const char *url, CURLUPart what, unsigned flags)
{
    char *text = NULL;
    CURLU *parsed = curl_url();
    if (parsed && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK)
        curl_url_get(parsed, what, &text, flags);
    curl_url_cleanup(parsed);
    return text;
}

void
lade_transfer_host(const char *url, char *host, size_t size)
{
    char *text = url ? s_url_part(url, CURLUPART_HOST, 0) : NULL;
    snprintf(host, size, "%s", text ? text : "");
    for (char *at = host; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    curl_free(text);
}

// The last segment of the URL's path, decoded; NULL if it cannot be a file's name. You free it.
static char *
s_url_name(const char *url)
{
    char *path = s_url_part(url, CURLUPART_PATH, 0);
    char *slash = path ? strrchr(path, '/') : NULL;
    int len = 0;
    char *name = slash ? curl_easy_unescape(NULL, slash + 1, 0, &len) : NULL;
    char *safe = name && (size_t)len == strlen(name) && !lade_path_check_name(name, NULL)
                     ? strdup(name)
                     : NULL;
    curl_free(name);
    curl_free(path);
    return safe;
}

static lade_code_t
s_check_url(const char *url, lade_error_t *error)
{
    char *scheme = s_url_part(url, CURLUPART_SCHEME, 0), host[256];
    bool good = scheme && (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    curl_free(scheme);
    lade_transfer_host(url, host, sizeof host);
    if (!good || !*host)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "a download wants an http:// or https:// URL with a host");
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// The request

static lade_code_t
s_check_sha256(const char *text, lade_error_t *error)
{
    if (text && (strlen(text) != 64 || strspn(text, "0123456789abcdefABCDEF") != 64))
        return lade_error_set(error, LADE_VALUE_ERROR, "sha256: '%.80s' is not 64 hex digits",
                              text);
    return LADE_OK;
}

static lade_code_t
s_check_place(const lade_transfer_t *self, lade_error_t *error)
{
    const char *place = self->destination ? self->destination : self->destdir;
    if (!place || place[0] != '/')
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "destination or destdir has to be given, as an absolute path");
    if (self->filename && lade_path_check_name(self->filename, error))
        return lade_error_wrap(error, "filename");
    return LADE_OK;
}

lade_code_t
lade_transfer_check(lade_transfer_t *self, lade_error_t *error)
{
    if (!self->urls[0])
        return lade_error_set(error, LADE_VALUE_ERROR, "no url is given");
    lade_code_t code = LADE_OK;
    for (size_t i = 0; self->urls[i] && !code; i++)
        code = s_check_url(self->urls[i], error);
    if (!code)
        code = s_check_sha256(self->sha256, error);
    if (!code)
        code = s_check_place(self, error);
    if (!code)
        lade_transfer_host(self->urls[0], self->host, sizeof self->host);
    return code;
}

// Turns destination into destdir and filename, now that the disk may be asked.
static lade_code_t
s_resolve_place(lade_transfer_t *self, lade_error_t *error)
{
    struct stat st;
    size_t len = self->destination ? strlen(self->destination) : 0;
    bool folder = len && (self->destination[len - 1] == '/' ||
                          (stat(self->destination, &st) == 0 && S_ISDIR(st.st_mode)));
    if (self->destination) {
        free(self->destdir);
        self->destdir = folder ? strdup(self->destination) : lade_path_folder(self->destination);
        if (!folder) {
            free(self->filename);
            self->filename = lade_path_name(self->destination);
        }
    }
    if (self->filename && lade_path_check_name(self->filename, error))
        return lade_error_wrap(error, "destination");
    return lade_path_mkdirs(self->destdir, 0755, error);
}

// ---------------------------------------------------------------------------------------------------
// Chores

static bool
s_stopped(void *arg)
{
    lade_transfer_t *self = arg;
    return atomic_load(&self->stop) != LADE_ENGINE_GO;
}

static void
s_set_name(lade_transfer_t *self, const char *name)
{
    char *copy = strdup(name);
    free(self->journal.name);
    self->journal.name = copy;
    free(self->path);
    self->path = lade_path_join(self->destdir, copy);
}

static bool
s_is_taken(const lade_transfer_t *self)
{
    struct stat st;
    return self->path && lstat(self->path, &st) == 0;
}

// Whether what has the final name is the file we are to bring. hex is the digest it must have.
static lade_code_t
s_compare(lade_transfer_t *self, const char *hex, lade_error_t *error)
{
    char there[65];
    struct stat st;
    bool file = stat(self->path, &st) == 0 && S_ISREG(st.st_mode);
    bool sized = file && (self->size < 0 || st.st_size == self->size);
    if (sized && hex) {
        lade_code_t code = lade_digest_file(self->path, s_stopped, self, there, error);
        if (code)
            return code;
        if (strcasecmp(there, hex) == 0) {
            memcpy(self->digest_hex, there, sizeof there);
            self->journal.total = st.st_size;
            self->found = true;
            return LADE_OK;
        }
    }
    return lade_error_set(error, LADE_EXISTS,
                          "%s is there already%s; remove it or choose another name", self->path,
                          hex ? " and is another file" : "");
}

// A later attempt of a job goes on even without a digest to compare with: the file may be what an
// earlier attempt published before it could say so. What comes is compared.
lade_code_t
lade_transfer_check_taken(lade_transfer_t *self, bool *compare, lade_error_t *error)
{
    bool taken = s_is_taken(self);
    *compare = taken && self->sha256;
    if (!taken || self->sha256 || self->attempt > 1)
        return LADE_OK;
    return s_compare(self, NULL, error);
}

void
lade_transfer_note_volume(lade_transfer_t *self)
{
    char *volume = lade_partial_volume(self->destdir);
    snprintf(self->volume, sizeof self->volume, "%s", volume);
    free(volume);
}

// Forgets all bytes, and what is known of the file but its name if that was asked for.
static lade_code_t
s_restart(lade_transfer_t *self, lade_error_t *error)
{
    lade_code_t code = lade_partial_restart(self->partial, error);
    lade_journal_free(&self->journal);
    if (self->filename)
        s_set_name(self, self->filename);
    lade_ranges_free(&self->written);
    lade_ranges_free(&self->claimed);
    lade_digest_restart(self->digest);
    self->resumed_from = self->snapshot_bytes = self->durable_bytes = 0;
    self->answered = false;
    self->told_bytes = -1;
    return code;
}

static lade_code_t
s_open_partial(lade_transfer_t *self, lade_error_t *error)
{
    char *from_url = self->filename ? NULL : s_url_name(self->urls[0]);
    const lade_partial_where_t where = {
        .folder = self->destdir,
        .base = self->filename ? self->filename
                : from_url     ? from_url
                               : s_nameless,
        .source = self->urls[0],
        .id = self->id,
        .attempt = self->attempt,
        .stop = s_stopped,
        .arg = self,
    };
    lade_code_t code = lade_partial_open(&self->partial, &where, &self->journal, error);
    free(from_url);
    if (!code && self->filename)
        s_set_name(self, self->filename);
    else if (!code && self->journal.name) {
        char *name = strdup(self->journal.name);
        s_set_name(self, name);
        free(name);
    }
    return code;
}

void
lade_transfer_discard(int64_t id, const char *url, const char *path)
{
    char *folder = lade_path_folder(path), *name = lade_path_name(path),
         *from_url = s_url_name(url);
    const char *bases[] = {name, from_url, s_nameless}; // s_open_partial chose one of them
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        const lade_partial_where_t where = {
            .folder = folder, .base = bases[i], .source = url, .id = id};
        if (bases[i])
            lade_partial_discard(&where);
    }
    free(folder);
    free(name);
    free(from_url);
}

// Takes over what the partial has, if it can be told which version of the file it is of: by the
// server's validator, or by a digest in the end. Else it is worth nothing.
static lade_code_t
s_adopt(lade_transfer_t *self, lade_error_t *error)
{
    int64_t bytes = self->journal.ranges.bytes;
    bool known = self->sha256 || bytes == self->journal.total ||
                 lade_headers_validator(self->journal.etag, self->journal.last_modified);
    if (bytes > 0 && !known)
        return s_restart(self, error);
    lade_ranges_free(&self->written);
    lade_ranges_free(&self->claimed);
    self->written = lade_ranges_copy(&self->journal.ranges);
    self->claimed = lade_ranges_copy(&self->journal.ranges);
    self->resumed_from = self->snapshot_bytes = self->durable_bytes = bytes;
    return LADE_OK;
}

static lade_code_t
s_reserve(lade_transfer_t *self, lade_error_t *error)
{
    lade_code_t code = lade_partial_reserve(self->partial, self->journal.total, error);
    if (code == LADE_NO_SPACE)
        lade_transfer_note_volume(self);
    return code;
}

static lade_code_t
s_open(lade_transfer_t *self, lade_error_t *error)
{
    bool compare;
    lade_code_t code = s_resolve_place(self, error);
    if (!code)
        code = s_open_partial(self, error);
    if (code)
        return code;
    if (!self->partial) { // an earlier attempt has published it
        self->found = true;
        snprintf(self->digest_hex, sizeof self->digest_hex, "%s", self->journal.sha256);
        return LADE_OK;
    }
    code = self->path ? lade_transfer_check_taken(self, &compare, error) : LADE_OK;
    if (!code && self->path && compare)
        code = s_compare(self, self->sha256, error);
    if (!code && !self->found)
        code = s_adopt(self, error);
    if (self->found)
        lade_partial_remove(self->partial);
    return code;
}

void
lade_transfer_open(void *arg)
{
    lade_transfer_t *self = arg;
    self->error_of_chore.code = s_open(self, &self->error_of_chore);
}

void
lade_transfer_reserve(void *arg)
{
    lade_transfer_t *self = arg;
    self->error_of_chore.code = s_reserve(self, &self->error_of_chore);
}

void
lade_transfer_restart(void *arg)
{
    lade_transfer_t *self = arg;
    self->error_of_chore.code = s_restart(self, &self->error_of_chore);
}

void
lade_transfer_snapshot(lade_transfer_t *self)
{
    lade_journal_free(&self->snapshot);
    self->snapshot = lade_journal_copy(&self->journal);
    lade_ranges_free(&self->snapshot.ranges);
    self->snapshot.ranges = lade_ranges_copy(&self->written);
    self->snapshot.publishing = false;
    self->snapshot_bytes = self->written.bytes;
}

void
lade_transfer_checkpoint(void *arg)
{
    lade_transfer_t *self = arg;
    self->error_of_checkpoint.code =
        lade_partial_checkpoint(self->partial, &self->snapshot, &self->error_of_checkpoint);
}

void
lade_transfer_write(void *arg)
{
    lade_block_t *block = arg;
    lade_transfer_t *self = block->owner;
    size_t done = block->flushed;
    block->error.code = lade_partial_write(self->partial, block->at + (int64_t)done,
                                           block->data + done, block->len - done, &block->error);
}

// Hashes what of the block is still to be hashed: some of it may have been read from the disk
// already.
static void
s_hash_block(lade_digest_t *digest, const lade_block_t *block)
{
    size_t skip = (size_t)(lade_digest_bytes(digest) - block->at);
    if (skip < block->len)
        lade_digest_add(digest, block->data + skip, block->len - skip);
}

static lade_code_t
s_hash_disk(lade_transfer_t *self, lade_error_t *error)
{
    char *bytes = malloc(LADE_BLOCK_BYTES);
    lade_code_t code =
        bytes ? LADE_OK
              : lade_error_set(error, LADE_NO_MEMORY, "no memory to read %s", self->destdir);
    for (int64_t at = self->hash_from; at < self->hash_to && !code && !s_stopped(self);) {
        int64_t left = self->hash_to - at;
        size_t len = left < LADE_BLOCK_BYTES ? (size_t)left : LADE_BLOCK_BYTES;
        code = lade_partial_read(self->partial, at, bytes, len, error);
        if (!code)
            lade_digest_add(self->digest, bytes, len);
        at += (int64_t)len;
    }
    free(bytes);
    return code;
}

void
lade_transfer_hash(void *arg)
{
    lade_transfer_t *self = arg;
    for (lade_block_t *block = self->hash_blocks; block; block = block->next)
        s_hash_block(self->digest, block);
    if (!self->hash_blocks)
        self->error_of_hash.code = s_hash_disk(self, &self->error_of_hash);
}

static lade_code_t
s_check_whole(lade_transfer_t *self, lade_error_t *error)
{
    int64_t bytes = lade_digest_bytes(self->digest);
    if (self->size >= 0 && bytes != self->size)
        return lade_error_set(error, LADE_SIZE_MISMATCH,
                              "%s sent %" PRId64 " bytes, %" PRId64
                              " were announced; nothing was published",
                              self->host, bytes, self->size);
    lade_digest_hex(self->digest, self->digest_hex);
    if (self->sha256 && strcasecmp(self->sha256, self->digest_hex) != 0)
        return lade_error_set(error, LADE_DIGEST_MISMATCH,
                              "what %s sent has sha256 %s, %s was wanted; nothing was published",
                              self->host, self->digest_hex, self->sha256);
    return LADE_OK;
}

// The last block, which was left to us so that a small file costs one chore.
static lade_code_t
s_take_last(lade_transfer_t *self, lade_error_t *error)
{
    lade_block_t *last = self->last;
    if (!last)
        return LADE_OK;
    lade_transfer_write(last);
    if (last->error.code) {
        *error = last->error;
        return error->code;
    }
    s_hash_block(self->digest, last);
    return LADE_OK;
}

static lade_code_t
s_finish(lade_transfer_t *self, lade_error_t *error)
{
    lade_code_t code = s_take_last(self, error);
    if (!code)
        code = s_check_whole(self, error);
    if (code == LADE_NO_SPACE)
        lade_transfer_note_volume(self);
    if (code)
        return code;
    free(self->journal.sha256);
    self->journal.sha256 = strdup(self->digest_hex);
    lade_ranges_add(&self->journal.ranges, 0, self->journal.total);
    code = lade_partial_publish(self->partial, &self->journal, error);
    self->published = code == LADE_OK;
    if (code == LADE_EXISTS)
        code = s_compare(self, self->sha256 || self->attempt > 1 ? self->digest_hex : NULL, error);
    if (!code && self->found)
        lade_partial_remove(self->partial);
    return code;
}

void
lade_transfer_finish(void *arg)
{
    lade_transfer_t *self = arg;
    self->error_of_chore.code = s_finish(self, &self->error_of_chore);
}

void
lade_transfer_compare(void *arg)
{
    lade_transfer_t *self = arg;
    self->error_of_chore.code = s_compare(self, self->sha256, &self->error_of_chore);
    if (self->found)
        lade_partial_remove(self->partial);
}

void
lade_transfer_keep(void *arg)
{
    lade_transfer_t *self = arg;
    lade_error_t error;
    lade_code_t code = LADE_OK;
    if (self->snapshot.ranges.bytes > 0)
        code = lade_partial_checkpoint(self->partial, &self->snapshot, &error);
    if (code && code != LADE_STALE_LEASE) // a later attempt has its own
        lade_log(LADE_LOG_WARNING, "download", "what was fetched cannot be kept: %s",
                 error.message);
}

void
lade_transfer_remove(void *arg)
{
    lade_transfer_t *self = arg;
    lade_partial_remove(self->partial);
}

bool
lade_transfer_next(lade_transfer_t *self)
{
    self->url_at++;
    lade_transfer_host(lade_transfer_url(self), self->host, sizeof self->host);
    free(self->direct_url);
    self->direct_url = NULL;
    self->answered = self->whole = false;
    self->if_range = LADE_IF_ETAG;
    self->came = 0;
    self->most = 0;
    if (!self->sha256)
        return false;
    // Of these bytes the digest will tell, not what this mirror called its version.
    char **versions[] = {&self->journal.etag, &self->journal.last_modified};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        free(*versions[i]);
        *versions[i] = NULL;
    }
    self->resumed_from = self->written.bytes;
    return true;
}

lade_code_t
lade_transfer_name(lade_transfer_t *self, const char *said, lade_error_t *error)
{
    if (self->journal.name)
        return LADE_OK;
    if (said && lade_path_check_name(said, NULL) == LADE_OK) {
        s_set_name(self, said);
        return LADE_OK;
    }
    char *name = s_url_name(lade_transfer_url(self));
    if (!name)
        return lade_error_set(
            error, LADE_VALUE_ERROR,
            "neither %s nor the URL gives a name that a file can have; say filename", self->host);
    s_set_name(self, name);
    free(name);
    return LADE_OK;
}

void
lade_transfer_destroy(lade_transfer_t **self_p)
{
    lade_transfer_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; self->urls[i]; i++)
        free(self->urls[i]);
    free(self->urls);
    if (self->token)
        explicit_bzero(self->token, strlen(self->token));
    char *texts[] = {self->destination, self->destdir, self->filename,  self->sha256,
                     self->token,       self->path,    self->final_url, self->direct_url};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    lade_partial_close(&self->partial);
    lade_journal_free(&self->journal);
    lade_journal_free(&self->snapshot);
    lade_ranges_free(&self->claimed);
    lade_ranges_free(&self->written);
    lade_digest_destroy(&self->digest);
    free(self);
    *self_p = NULL;
}
