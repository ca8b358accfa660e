// What a transfer does on the disk, and what it makes of an answer.
#include "workers/download/transfer.h"

#include "common/log.h"
#include "common/path.h"
#include "workers/download/verdict.h"

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
    self->part.headers = LADE_HEADERS_NONE;
    self->retry_after_s = -1;
    self->told_bytes = -1;
    return self;
}

const char *
lade_transfer_url(const lade_transfer_t *self)
{
    return self->urls[self->url_at];
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

// Whether scheme, host and port are the same.
static bool
s_same_origin(const char *a, const char *b)
{
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    bool same = true;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && same; i++) {
        char *of_a = s_url_part(a, parts[i], CURLU_DEFAULT_PORT);
        char *of_b = s_url_part(b, parts[i], CURLU_DEFAULT_PORT);
        same = of_a && of_b && strcasecmp(of_a, of_b) == 0;
        curl_free(of_a);
        curl_free(of_b);
    }
    return same;
}

const char *
lade_transfer_token(const lade_transfer_t *self)
{
    return s_same_origin(self->urls[0], lade_transfer_url(self)) ? self->token : NULL;
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
        lade_code_t code = lade_partial_hash_file(self->path, s_stopped, self, there, error);
        if (code)
            return code;
        if (strcasecmp(there, hex) == 0) {
            memcpy(self->digest, there, sizeof there);
            self->journal.bytes = self->journal.total = st.st_size;
            self->found = true;
            return LADE_OK;
        }
    }
    return lade_error_set(error, LADE_EXISTS,
                          "%s is there already%s; remove it or choose another name", self->path,
                          hex ? " and is another file" : "");
}

// A name that is taken is an error, unless it is by the same file. A later attempt of a job goes on
// even without a digest to compare with: the file may be what an earlier attempt published before
// it could say so. What comes is compared.
static lade_code_t
s_check_taken(lade_transfer_t *self, lade_error_t *error)
{
    if (!s_is_taken(self) || (!self->sha256 && self->attempt > 1))
        return LADE_OK;
    return s_compare(self, self->sha256, error);
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

static lade_code_t
s_open(lade_transfer_t *self, lade_error_t *error)
{
    lade_code_t code = s_resolve_place(self, error);
    if (!code)
        code = s_open_partial(self, error);
    if (code)
        return code;
    if (!self->partial) { // an earlier attempt has published it
        self->found = true;
        snprintf(self->digest, sizeof self->digest, "%s", self->journal.sha256);
        return LADE_OK;
    }
    code = s_check_taken(self, error);
    // Bytes whose version nobody can tell, neither the server nor a digest, are worth nothing.
    if (!code && !self->found && lade_partial_bytes(self->partial) > 0 && !self->sha256 &&
        !lade_headers_validator(self->journal.etag, self->journal.last_modified) &&
        lade_partial_bytes(self->partial) != self->journal.total)
        code = lade_transfer_restart(self, error);
    self->resumed_from = lade_partial_bytes(self->partial);
    self->checkpoint_at = self->resumed_from;
    if (self->found)
        lade_partial_remove(self->partial);
    return code;
}

void
lade_transfer_open(void *arg)
{
    lade_transfer_t *self = arg;
    self->chore_error.code = s_open(self, &self->chore_error);
}

void
lade_transfer_snapshot(lade_transfer_t *self)
{
    lade_journal_free(&self->snapshot);
    self->snapshot = lade_journal_copy(&self->journal);
    self->snapshot.bytes = lade_partial_bytes(self->partial);
    self->snapshot.publishing = false;
}

void
lade_transfer_checkpoint(void *arg)
{
    lade_transfer_t *self = arg;
    self->chore_error.code =
        lade_partial_checkpoint(self->partial, &self->snapshot, &self->chore_error);
}

static lade_code_t
s_check_whole(lade_transfer_t *self, lade_error_t *error)
{
    int64_t bytes = lade_partial_bytes(self->partial);
    if (self->size >= 0 && bytes != self->size)
        return lade_error_set(error, LADE_SIZE_MISMATCH,
                              "%s sent %" PRId64 " bytes, %" PRId64
                              " were announced; nothing was published",
                              self->host, bytes, self->size);
    lade_partial_digest(self->partial, self->digest);
    if (self->sha256 && strcasecmp(self->sha256, self->digest) != 0)
        return lade_error_set(error, LADE_DIGEST_MISMATCH,
                              "what %s sent has sha256 %s, %s was wanted; nothing was published",
                              self->host, self->digest, self->sha256);
    return LADE_OK;
}

static lade_code_t
s_finish(lade_transfer_t *self, lade_error_t *error)
{
    lade_code_t code = s_check_whole(self, error);
    if (code)
        return code;
    code = lade_partial_publish(self->partial, &self->journal, error);
    self->published = code == LADE_OK;
    if (code == LADE_EXISTS)
        code = s_compare(self, self->sha256 || self->attempt > 1 ? self->digest : NULL, error);
    if (!code && self->found)
        lade_partial_remove(self->partial);
    return code;
}

void
lade_transfer_finish(void *arg)
{
    lade_transfer_t *self = arg;
    self->chore_error.code = s_finish(self, &self->chore_error);
}

void
lade_transfer_compare(void *arg)
{
    lade_transfer_t *self = arg;
    self->chore_error.code = s_compare(self, self->sha256, &self->chore_error);
    if (self->found)
        lade_partial_remove(self->partial);
}

void
lade_transfer_keep(void *arg)
{
    lade_transfer_t *self = arg;
    lade_error_t error;
    lade_code_t code = LADE_OK;
    if (self->snapshot.bytes > 0)
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

lade_code_t
lade_transfer_restart(lade_transfer_t *self, lade_error_t *error)
{
    lade_code_t code = lade_partial_restart(self->partial, error);
    lade_journal_free(&self->journal);
    if (self->filename)
        s_set_name(self, self->filename);
    self->resumed_from = self->checkpoint_at = 0;
    self->told_bytes = -1;
    return code;
}

lade_code_t
lade_transfer_next(lade_transfer_t *self)
{
    lade_code_t code = LADE_OK;
    if (self->sha256 && lade_partial_bytes(self->partial) > 0) {
        // Of these bytes the digest will tell, not what this mirror called its version.
        char **versions[] = {&self->journal.etag, &self->journal.last_modified};
        for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
            free(*versions[i]);
            *versions[i] = NULL;
        }
        self->resumed_from = lade_partial_bytes(self->partial);
    } else {
        code = lade_transfer_restart(self, NULL);
    }
    if (code)
        return code;
    self->url_at++;
    lade_transfer_host(lade_transfer_url(self), self->host, sizeof self->host);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Answers

static lade_answer_t
s_refuse(lade_transfer_t *self, lade_code_t code, const char *words)
{
    lade_error_set(&self->error, code, "%s %s", self->host, words);
    return LADE_ANSWER_REFUSED;
}

// 200: all bytes from the first, whether asked for or not.
static lade_answer_t
s_judge_all(lade_transfer_t *self)
{
    lade_part_t *part = &self->part;
    if (part->from > 0 && lade_transfer_restart(self, &self->error))
        return LADE_ANSWER_REFUSED;
    part->from = 0;
    self->journal.total = part->headers.length;
    return LADE_ANSWER_TAKE;
}

static bool
s_is_strong(const char *etag)
{
    return etag && etag[0] == '"';
}

// Whether the answer is of another version than the bytes we have: by the ETags if both are strong,
// else by the dates. A server that knows no If-Range sends the rest of any version.
static bool
s_is_other_version(const lade_transfer_t *self)
{
    const lade_headers_t *headers = &self->part.headers;
    const char *had = self->journal.last_modified, *has = headers->last_modified;
    if (s_is_strong(self->journal.etag) && s_is_strong(headers->etag))
        return strcmp(self->journal.etag, headers->etag) != 0;
    return had && has && strcmp(had, has) != 0;
}

// 206: only good if it is exactly the rest of the version we have.
static lade_answer_t
s_judge_rest(lade_transfer_t *self)
{
    const lade_headers_t *headers = &self->part.headers;
    int64_t from = self->part.from;
    if (from == 0)
        return s_refuse(self, LADE_HTTP_ERROR, "answered 206 to a request for the whole file");
    int64_t total = headers->total >= 0    ? headers->total
                    : headers->length >= 0 ? from + headers->length
                                           : -1;
    bool other = headers->range_start != from ||
                 (self->journal.total >= 0 && total >= 0 && total != self->journal.total) ||
                 s_is_other_version(self);
    if (other)
        return LADE_ANSWER_ANEW;
    if (total >= 0)
        self->journal.total = total;
    return LADE_ANSWER_TAKE;
}

// 416: we have all there is, or the file has become shorter.
static lade_answer_t
s_judge_past_end(lade_transfer_t *self)
{
    int64_t from = self->part.from;
    if (from > 0 && self->part.headers.total == from &&
        (self->journal.total < 0 || self->journal.total == from)) {
        self->journal.total = from;
        return LADE_ANSWER_WHOLE;
    }
    return from > 0
               ? LADE_ANSWER_ANEW
               : s_refuse(self, LADE_HTTP_ERROR, "answered 416 to a request for the whole file");
}

static lade_answer_t
s_judge_failure(lade_transfer_t *self)
{
    const lade_verdict_facts_t facts = {.host = self->host,
                                        .detail = "",
                                        .connected = true,
                                        .token = lade_transfer_token(self) != NULL};
    lade_verdict_status(&self->part.headers, &facts, &self->error);
    self->retry_after_s = self->part.headers.retry_after_s;
    return LADE_ANSWER_REFUSED;
}

static const struct {
    int status;
    lade_answer_t (*judge)(lade_transfer_t *self);
} s_judges[] = {
    {200, s_judge_all},
    {203, s_judge_all},
    {206, s_judge_rest},
    {416, s_judge_past_end},
};

static void
s_replace(char **where, const char *text)
{
    if (!text)
        return;
    free(*where);
    *where = strdup(text);
}

static void
s_learn(lade_transfer_t *self)
{
    const lade_headers_t *headers = &self->part.headers;
    s_replace(&self->journal.etag, headers->etag);
    s_replace(&self->journal.last_modified, headers->last_modified);
    s_replace(&self->journal.content_type, headers->content_type);
}

// The name: as asked for, else as the server says, else as the URL ends.
static lade_code_t
s_choose_name(lade_transfer_t *self, lade_error_t *error)
{
    if (self->journal.name)
        return LADE_OK;
    const char *said = self->part.headers.filename;
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

static bool
s_is_weights(const char *name)
{
    static const char *const suffixes[] = {".safetensors", ".sft",  ".ckpt", ".pt",  ".pth", ".bin",
                                           ".gguf",        ".onnx", ".pkl",  ".npz", ".h5"};
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t more = strlen(suffixes[i]);
        if (len > more && strcasecmp(name + len - more, suffixes[i]) == 0)
            return true;
    }
    return false;
}

// What has to be so before the first byte of a good answer is written.
static lade_answer_t
s_check_answer(lade_transfer_t *self)
{
    const char *type = self->part.headers.content_type;
    int64_t total = self->journal.total;
    if (self->part.headers.encoded)
        return s_refuse(self, LADE_HTTP_ERROR,
                        "sends the file encoded, though it was asked not to");
    if (self->size >= 0 && total >= 0 && total != self->size) {
        lade_error_set(&self->error, LADE_SIZE_MISMATCH,
                       "%s has a file of %" PRId64 " bytes, %" PRId64 " were announced", self->host,
                       total, self->size);
        return LADE_ANSWER_REFUSED;
    }
    if (s_choose_name(self, &self->error))
        return LADE_ANSWER_REFUSED;
    if (type && strcmp(type, "text/html") == 0 && s_is_weights(self->journal.name))
        return s_refuse(self, LADE_NOT_A_MODEL,
                        "sent a web page instead of the file; it may want a login or a token");
    if (s_is_taken(self) && self->sha256)
        return LADE_ANSWER_COMPARE;
    return s_check_taken(self, &self->error) ? LADE_ANSWER_REFUSED : LADE_ANSWER_TAKE;
}

lade_answer_t
lade_transfer_judge(lade_transfer_t *self)
{
    lade_answer_t (*judge)(lade_transfer_t * self) = s_judge_failure;
    for (size_t i = 0; i < sizeof s_judges / sizeof *s_judges; i++)
        if (s_judges[i].status == self->part.headers.status)
            judge = s_judges[i].judge;
    lade_answer_t answer = judge(self);
    if (answer != LADE_ANSWER_TAKE)
        return answer;
    s_learn(self);
    return s_check_answer(self);
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
                     self->token,       self->path,    self->final_url, self->part.buffer};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    lade_partial_close(&self->partial);
    lade_journal_free(&self->journal);
    lade_journal_free(&self->snapshot);
    lade_headers_free(&self->part.headers);
    curl_slist_free_all(self->part.lines);
    free(self);
    *self_p = NULL;
}
