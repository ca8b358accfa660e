// The loop: commands in, libcurl, finished chores, outcomes out.
#include "workers/download/engine.h"

#include "common/log.h"
#include "common/thread.h"
#include "common/wire.h"
#include "workers/download/crew.h"
#include "workers/download/transfer.h"
#include "workers/download/verdict.h"

#include <czmq.h>
#include <inttypes.h>

enum {
    S_BUFFER_BYTES = 512 << 10, // collected before it is hashed and written
    S_DISCARD_BYTES = 64 << 10, // read of an error's body, so that the connection can be used again
    S_MAX_REDIRECTS = 10,
    S_MAX_ANEW = 3,
    S_TELL_MS = 50, // between two tellings of progress, if it is less than 1 %
    S_MAX_CREW = 32,
};

// What another thread asks for.
typedef struct s_command {
    struct s_command *next;
    lade_transfer_t *transfer; // to start; NULL: to stop ticket
    int64_t ticket;
    lade_engine_stop_t why;
} s_command_t;

struct lade_engine {
    const lade_config_t *config;
    lade_engine_ops_t ops;
    CURLM *multi;
    lade_crew_t *crew;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; // guards what follows
    s_command_t *first, *last;
    int64_t next_ticket;
    bool closing;
    int64_t bytes, open, ended;

    lade_transfer_t *transfers; // the engine's thread only, from here
};

// ---------------------------------------------------------------------------------------------------
// Chores and ends

static void s_fetch(lade_transfer_t *self);
static void s_fetched(lade_transfer_t *self);

static void
s_chore(lade_transfer_t *self, void (*work)(void *arg), void (*then)(void *arg))
{
    assert(!self->busy);
    self->busy = true;
    self->chore_error = (lade_error_t){0};
    self->chore = (lade_chore_t){.work = work, .then = then, .arg = self};
    lade_crew_add(self->engine->crew, &self->chore);
}

static void
s_count(lade_engine_t *self, int64_t bytes, int64_t open, int64_t ended)
{
    pthread_mutex_lock(&self->lock);
    self->bytes += bytes;
    self->open += open;
    self->ended += ended;
    pthread_mutex_unlock(&self->lock);
}

// Tells the outcome and forgets the transfer.
static void
s_end(lade_transfer_t *self)
{
    lade_engine_t *engine = self->engine;
    bool good = self->error.code == LADE_OK;
    lade_outcome_t outcome = {
        .error = self->error,
        .retry_after_s = self->retry_after_s,
        .path = self->path,
        .bytes = self->found     ? self->journal.bytes
                 : self->partial ? lade_partial_bytes(self->partial)
                                 : 0,
        .total = self->journal.total,
        .resumed_from = self->found ? 0 : self->resumed_from,
        .sha256 = good ? self->digest : NULL,
        .etag = self->journal.etag,
        .url = self->urls[0] ? lade_transfer_url(self) : NULL,
        .final_url = self->final_url,
        .content_type = self->journal.content_type,
    };
    if (self->error.code == LADE_RATE_LIMITED) {
        outcome.gates[0] = self->host;
        if (*self->answer_host && strcmp(self->host, self->answer_host) != 0)
            outcome.gates[1] = self->answer_host;
    }
    for (lade_transfer_t **at = &engine->transfers; *at; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            break;
        }
    s_count(engine, 0, -1, 1);
    engine->ops.end(self->arg, &outcome);
    lade_transfer_destroy(&self);
}

static void
s_settled(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    s_end(self);
}

// Keeps or removes the partial as the error has it, then ends.
static void
s_settle(lade_transfer_t *self)
{
    static void (*const work[])(void *arg) = {
        [false] = lade_transfer_remove, [true] = lade_transfer_keep};
    self->state = LADE_TRANSFER_SETTLING;
    lade_code_t code = self->error.code;
    bool left = atomic_load(&self->stop) == LADE_ENGINE_LEAVE;
    if (!self->partial || (code == LADE_STALE_LEASE && !left)) {
        s_end(self);
        return;
    }
    bool keep = left || code == LADE_PAUSED ||
                (code != LADE_CANCELLED && (self->preserve_partial || lade_verdict_keeps(code)));
    if (lade_partial_bytes(self->partial) == 0 && self->journal.bytes == 0)
        keep = false; // nothing came, and nothing was there before
    lade_transfer_snapshot(self);
    s_chore(self, work[keep], s_settled);
}

static void
s_fail(lade_transfer_t *self, const lade_error_t *error)
{
    self->error = *error;
    s_settle(self);
}

static bool
s_is_stopped(lade_transfer_t *self)
{
    return atomic_load(&self->stop) != LADE_ENGINE_GO;
}

static void
s_end_stopped(lade_transfer_t *self)
{
    static const struct {
        lade_code_t code;
        const char *words;
    } ends[] = {
        [LADE_ENGINE_CANCEL] = {LADE_CANCELLED, "the download was cancelled"},
        [LADE_ENGINE_PAUSE] = {LADE_PAUSED, "the download is paused; what was fetched is kept"},
        [LADE_ENGINE_LEAVE] = {LADE_STALE_LEASE, "the download was given to somebody else"},
    };
    int stop = atomic_load(&self->stop);
    lade_error_set(&self->error, ends[stop].code, "%s", ends[stop].words);
    s_settle(self);
}

// ---------------------------------------------------------------------------------------------------
// Progress and checkpoints

static void
s_tell(lade_transfer_t *self, bool always)
{
    int64_t bytes = lade_partial_bytes(self->partial), total = self->journal.total;
    int64_t now_ms = lade_mono_ms(), step = total > 0 ? total / 100 : INT64_MAX;
    if (!always && bytes - self->told_bytes < step && now_ms - self->told_ms < S_TELL_MS)
        return;
    self->told_bytes = bytes;
    self->told_ms = now_ms;
    if (self->engine->ops.progress)
        self->engine->ops.progress(self->arg, bytes, total, self->path);
}

static void
s_checkpointed(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    if (self->chore_error.code && !self->error.code)
        self->error = self->chore_error; // seen at the next bytes, or when the request ends
    if (!self->part.easy)
        s_fetched(self);
    else if (s_is_stopped(self) || self->error.code)
        lade_engine_stop(self->engine, self->ticket, LADE_ENGINE_GO);
}

static void
s_maybe_checkpoint(lade_transfer_t *self)
{
    int64_t bytes = lade_partial_bytes(self->partial);
    if (self->busy || bytes - self->checkpoint_at < self->engine->config->checkpoint_mb << 20)
        return;
    self->checkpoint_at = bytes;
    lade_transfer_snapshot(self);
    s_chore(self, lade_transfer_checkpoint, s_checkpointed);
}

// ---------------------------------------------------------------------------------------------------
// Bytes. The callbacks of libcurl run within curl_multi_perform, on the engine's thread.

static lade_code_t
s_flush(lade_transfer_t *self)
{
    lade_part_t *part = &self->part;
    if (!part->buffered)
        return LADE_OK;
    lade_code_t code =
        lade_partial_append(self->partial, part->buffer, part->buffered, &self->error);
    s_count(self->engine, (int64_t)part->buffered, 0, 0);
    part->buffered = 0;
    if (!code) {
        s_tell(self, false);
        s_maybe_checkpoint(self);
    }
    return code;
}

static size_t
s_on_header(char *line, size_t size, size_t count, void *arg)
{
    lade_transfer_t *self = arg;
    (void)size; // always 1
    if (lade_headers_line(&self->part.headers, line, count))
        return count;
    lade_error_set(&self->error, LADE_TOO_LARGE, "%s sends more than %d bytes of headers",
                   self->host, LADE_HEADERS_MAX);
    return 0;
}

// Reads the answer once its headers are there; true if its body goes into the file.
static bool
s_judge(lade_transfer_t *self)
{
    lade_part_t *part = &self->part;
    if (part->answer == LADE_ANSWER_NONE) {
        part->answer = lade_transfer_judge(self);
        if (part->answer == LADE_ANSWER_TAKE)
            s_tell(self, true);
    }
    return part->answer == LADE_ANSWER_TAKE;
}

static bool
s_has_room(lade_transfer_t *self, size_t more)
{
    int64_t most = self->journal.total >= 0 ? self->journal.total : self->size;
    int64_t bytes =
        lade_partial_bytes(self->partial) + (int64_t)self->part.buffered + (int64_t)more;
    if (most < 0 || bytes <= most)
        return true;
    lade_error_set(&self->error, LADE_SIZE_MISMATCH,
                   "%s sends more than the %" PRId64 " bytes announced", self->host, most);
    return false;
}

static size_t
s_on_body(char *data, size_t size, size_t count, void *arg)
{
    lade_transfer_t *self = arg;
    lade_part_t *part = &self->part;
    (void)size; // always 1
    if (self->error.code && part->answer == LADE_ANSWER_TAKE)
        return 0; // a checkpoint failed
    if (!s_judge(self)) {
        part->discarded += count;
        return part->discarded > S_DISCARD_BYTES ? 0 : count;
    }
    if (!s_has_room(self, count))
        return 0;
    for (size_t left = count; left;) {
        size_t take = S_BUFFER_BYTES - part->buffered;
        take = take < left ? take : left;
        memcpy(part->buffer + part->buffered, data, take);
        part->buffered += take;
        data += take;
        left -= take;
        if (part->buffered == S_BUFFER_BYTES && s_flush(self))
            return 0;
    }
    return count;
}

// Bytes that came slowly are told and written too, not only full buffers. Called now and then by
// libcurl.
static int
s_on_tick(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    lade_transfer_t *self = arg;
    (void)total, (void)now, (void)up_total, (void)up_now;
    bool due = self->part.answer == LADE_ANSWER_TAKE && self->part.buffered &&
               lade_mono_ms() - self->told_ms >= 4 * S_TELL_MS;
    return due && s_flush(self) ? 1 : 0;
}

// ---------------------------------------------------------------------------------------------------
// A request

static void
s_set_headers(lade_transfer_t *self, CURL *easy)
{
    lade_part_t *part = &self->part;
    part->lines = curl_slist_append(NULL, "Accept-Encoding: identity");
    const char *validator = lade_headers_validator(self->journal.etag, self->journal.last_modified);
    if (part->from > 0) {
        char range[32];
        snprintf(range, sizeof range, "%" PRId64 "-", part->from);
        curl_easy_setopt(easy, CURLOPT_RANGE, range);
    }
    char *line;
    if (part->from > 0 && validator && asprintf(&line, "If-Range: %s", validator) > 0) {
        part->lines = curl_slist_append(part->lines, line);
        free(line);
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, part->lines);
}

static void
s_set_limits(lade_transfer_t *self, CURL *easy)
{
    const lade_config_t *config = self->engine->config;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)S_MAX_REDIRECTS);
    curl_easy_setopt(easy, CURLOPT_UNRESTRICTED_AUTH, 0L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)config->connect_timeout_s);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)config->low_speed_bytes);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)config->stall_s);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)S_BUFFER_BYTES);
    if (*config->user_agent)
        curl_easy_setopt(easy, CURLOPT_USERAGENT, config->user_agent);
    if (*config->ca_file) // besides the system's folder of authorities, which stays
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
}

static CURL *
s_easy_new(lade_transfer_t *self)
{
    lade_part_t *part = &self->part;
    CURL *easy = curl_easy_init();
    if (!easy)
        return NULL;
    curl_easy_setopt(easy, CURLOPT_URL, lade_transfer_url(self));
    curl_easy_setopt(easy, CURLOPT_PRIVATE, self);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, part->curl_words);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, s_on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, self);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, s_on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, self);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, s_on_tick);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, self);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    // As libcurl's own bearer, not as a header line: it never goes to another origin.
    const char *token = lade_transfer_token(self);
    if (token) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, token);
    }
    s_set_limits(self, easy);
    s_set_headers(self, easy);
    return easy;
}

static void
s_fetch(lade_transfer_t *self)
{
    lade_part_t *part = &self->part;
    self->state = LADE_TRANSFER_FETCHING;
    self->error = (lade_error_t){0};
    self->retry_after_s = -1; // of another mirror
    lade_headers_free(&part->headers);
    part->answer = LADE_ANSWER_NONE;
    part->from = lade_partial_bytes(self->partial);
    part->buffered = part->discarded = 0;
    part->curl_words[0] = '\0';
    if (!part->buffer)
        part->buffer = malloc(S_BUFFER_BYTES);
    part->easy = part->buffer ? s_easy_new(self) : NULL;
    if (part->easy && curl_multi_add_handle(self->engine->multi, part->easy) == CURLM_OK)
        return;
    if (part->easy)
        curl_easy_cleanup(part->easy);
    part->easy = NULL;
    lade_error_t error;
    lade_error_set(&error, LADE_NO_MEMORY, "no memory for another transfer");
    s_fail(self, &error);
}

// The URL without what could be a secret: who is logged in, the query of a signed address.
static char *
s_public_url(const char *url)
{
    CURLU *parsed = curl_url();
    char *text = NULL, *copy = NULL;
    static const CURLUPart secrets[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY,
                                        CURLUPART_FRAGMENT};
    if (parsed && url && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK) {
        for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
            curl_url_set(parsed, secrets[i], NULL, 0);
        if (curl_url_get(parsed, CURLUPART_URL, &text, 0) == CURLUE_OK)
            copy = strdup(text);
    }
    curl_free(text);
    curl_url_cleanup(parsed);
    return copy;
}

// Takes the request back from libcurl, with what it knows of how it went.
static void
s_withdraw(lade_transfer_t *self, CURLcode code)
{
    lade_part_t *part = &self->part;
    char *url = NULL;
    curl_off_t sent_us = 0;
    part->code = code;
    curl_easy_getinfo(part->easy, CURLINFO_EFFECTIVE_URL, &url);
    curl_easy_getinfo(part->easy, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
    part->connected = sent_us > 0;
    lade_transfer_host(url, self->answer_host, sizeof self->answer_host);
    free(self->final_url);
    self->final_url = s_public_url(url);
    curl_multi_remove_handle(self->engine->multi, part->easy);
    curl_easy_cleanup(part->easy);
    part->easy = NULL;
    curl_slist_free_all(part->lines);
    part->lines = NULL;
}

// ---------------------------------------------------------------------------------------------------
// After a request

static void
s_finished(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    lade_code_t code = self->chore_error.code;
    if (atomic_load(&self->stop) == LADE_ENGINE_CANCEL && self->published) {
        unlink(self->path); // ours, and nobody was told of it
        s_end_stopped(self);
    } else if (!code) {
        s_tell(self, true);
        s_end(self);
    } else if (code == LADE_CANCELLED && s_is_stopped(self)) {
        s_end_stopped(self);
    } else if (code == LADE_DIGEST_MISMATCH && self->resumed_from > 0 && self->anew++ == 0 &&
               !lade_transfer_restart(self, &self->error)) {
        // Perhaps it was the kept bytes. Only a whole file from one answer proves that it is the
        // source.
        lade_log(LADE_LOG_WARNING, "download", "%s; fetching it again from the start",
                 self->chore_error.message);
        s_fetch(self);
    } else {
        s_fail(self, &self->chore_error);
    }
}

static void
s_finish(lade_transfer_t *self)
{
    self->state = LADE_TRANSFER_FINISHING;
    s_chore(self, lade_transfer_finish, s_finished);
}

static void
s_compared(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    if (s_is_stopped(self))
        s_end_stopped(self);
    else if (self->chore_error.code)
        s_fail(self, &self->chore_error);
    else
        s_end(self);
}

// Another mirror is tried for what may be this one's fault.
static bool
s_has_mirror(const lade_transfer_t *self)
{
    lade_code_t code = self->error.code;
    return self->urls[self->url_at + 1] &&
           (code == LADE_NETWORK || code == LADE_STALLED || code == LADE_HTTP_ERROR ||
            code == LADE_NOT_FOUND || code == LADE_RATE_LIMITED || code == LADE_AUTH_REQUIRED ||
            code == LADE_AUTH_DENIED || code == LADE_NOT_A_MODEL);
}

static void
s_failed(lade_transfer_t *self)
{
    if (!s_has_mirror(self) || lade_transfer_next(self)) {
        s_settle(self);
        return;
    }
    lade_log(LADE_LOG_INFO, "download", "%s; trying the next mirror", self->error.message);
    s_fetch(self);
}

static void
s_begin_anew(lade_transfer_t *self)
{
    if (++self->anew > S_MAX_ANEW)
        lade_error_set(&self->error, LADE_RANGE_REFUSED,
                       "%s does not continue the file and does not send it whole either",
                       self->host);
    else
        lade_transfer_restart(self, &self->error);
    if (self->error.code)
        s_failed(self);
    else
        s_fetch(self);
}

// The body was taken as far as it came: was it all?
static void
s_taken(lade_transfer_t *self)
{
    lade_part_t *part = &self->part;
    bool written = !self->error.code && !s_flush(self);
    int64_t bytes = lade_partial_bytes(self->partial), total = self->journal.total;
    if (written && part->code == CURLE_OK && total >= 0 && bytes < total)
        lade_error_set(&self->error, LADE_NETWORK,
                       "%s closed after %" PRId64 " of %" PRId64 " bytes", self->host, bytes,
                       total);
    if (self->busy) // writing the rest began a checkpoint: its end comes back here
        return;
    if (self->error.code)
        s_failed(self);
    else
        s_finish(self);
}

static void
s_judge_curl(lade_transfer_t *self)
{
    const lade_config_t *config = self->engine->config;
    const lade_verdict_facts_t facts = {
        .host = *self->answer_host ? self->answer_host : self->host,
        .detail = self->part.curl_words,
        .connected = self->part.connected,
        .token = lade_transfer_token(self) != NULL,
        .stall_s = config->stall_s,
        .connect_timeout_s = config->connect_timeout_s,
    };
    lade_error_t error;
    lade_verdict_curl(self->part.code, &facts, &error);
    if (self->part.answer == LADE_ANSWER_TAKE)
        s_flush(self); // what came is kept
    if (!self->error.code)
        self->error = error;
}

// The request is over and no chore is out.
static void
s_fetched(lade_transfer_t *self)
{
    lade_part_t *part = &self->part;
    if (s_is_stopped(self)) {
        if (part->answer == LADE_ANSWER_TAKE && !self->error.code)
            s_flush(self);
        if (!self->busy)
            s_end_stopped(self);
        return;
    }
    if (part->code == CURLE_OK && !self->error.code)
        s_judge(self); // an answer without a body was not judged yet
    if (part->answer == LADE_ANSWER_ANEW) {
        s_begin_anew(self);
    } else if (part->answer == LADE_ANSWER_COMPARE) {
        s_chore(self, lade_transfer_compare, s_compared);
    } else if (part->answer == LADE_ANSWER_WHOLE) {
        s_finish(self);
    } else if (part->answer == LADE_ANSWER_TAKE) {
        if (part->code != CURLE_OK && !self->error.code)
            s_judge_curl(self);
        s_taken(self);
    } else {
        if (!self->error.code)
            s_judge_curl(self);
        s_failed(self);
    }
}

// ---------------------------------------------------------------------------------------------------
// The beginning, and stops

static void
s_opened(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    if (s_is_stopped(self)) {
        s_end_stopped(self);
    } else if (self->chore_error.code) {
        s_fail(self, &self->chore_error);
    } else if (self->found) {
        s_end(self);
    } else if (self->journal.total >= 0 && self->journal.name &&
               lade_partial_bytes(self->partial) == self->journal.total) {
        s_tell(self, true);
        s_finish(self); // an earlier attempt fetched all of it
    } else {
        s_fetch(self);
    }
}

static void
s_begin(lade_engine_t *self, lade_transfer_t *transfer)
{
    transfer->engine = self;
    transfer->next = self->transfers;
    self->transfers = transfer;
    s_count(self, 0, 1, 0);
    if (lade_transfer_check(transfer, &transfer->error)) {
        s_end(transfer);
        return;
    }
    transfer->state = LADE_TRANSFER_OPENING;
    s_chore(transfer, lade_transfer_open, s_opened);
}

// Ends a request that is out; what a chore does is looked at when it comes back.
static void
s_halt(lade_transfer_t *self)
{
    if (self->state != LADE_TRANSFER_FETCHING || !self->part.easy)
        return;
    s_withdraw(self, CURLE_ABORTED_BY_CALLBACK);
    if (!self->busy)
        s_fetched(self);
}

static void
s_stop(lade_engine_t *self, int64_t ticket, lade_engine_stop_t why)
{
    static const int weight[] = {[LADE_ENGINE_GO] = 0,
                                 [LADE_ENGINE_PAUSE] = 1,
                                 [LADE_ENGINE_CANCEL] = 2,
                                 [LADE_ENGINE_LEAVE] = 3};
    lade_transfer_t *at = self->transfers;
    while (at && at->ticket != ticket)
        at = at->next;
    if (!at)
        return;
    if (weight[why] > weight[atomic_load(&at->stop)])
        atomic_store(&at->stop, (int)why);
    if (s_is_stopped(at) || at->error.code)
        s_halt(at);
}

// ---------------------------------------------------------------------------------------------------
// The thread

static void
s_wake(void *arg)
{
    lade_engine_t *self = arg;
    curl_multi_wakeup(self->multi);
}

static void
s_post(lade_engine_t *self, s_command_t *command)
{
    pthread_mutex_lock(&self->lock);
    if (self->last)
        self->last->next = command;
    else
        self->first = command;
    self->last = command;
    pthread_mutex_unlock(&self->lock);
    s_wake(self);
}

// Takes all commands; false when the engine is to end and has nothing open.
static bool
s_take_commands(lade_engine_t *self)
{
    pthread_mutex_lock(&self->lock);
    s_command_t *at = self->first;
    self->first = self->last = NULL;
    bool closing = self->closing;
    pthread_mutex_unlock(&self->lock);
    for (s_command_t *next; at; at = next) {
        next = at->next;
        if (at->transfer)
            s_begin(self, at->transfer);
        else
            s_stop(self, at->ticket, at->why);
        free(at);
    }
    for (lade_transfer_t *transfer = self->transfers, *next; closing && transfer; transfer = next) {
        next = transfer->next;
        s_stop(self, transfer->ticket, LADE_ENGINE_LEAVE);
    }
    return !closing || self->transfers;
}

static void
s_take_results(lade_engine_t *self)
{
    int left;
    for (CURLMsg *msg; (msg = curl_multi_info_read(self->multi, &left)) != NULL;) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        lade_transfer_t *transfer;
        CURLcode code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        s_withdraw(transfer, code);
        if (!transfer->busy)
            s_fetched(transfer);
    }
    for (lade_chore_t *chore; (chore = lade_crew_collect(self->crew)) != NULL;)
        chore->then(chore->arg);
}

static void *
s_thread(void *arg)
{
    lade_engine_t *self = arg;
    while (s_take_commands(self)) {
        int running;
        curl_multi_perform(self->multi, &running);
        s_take_results(self);
        curl_multi_poll(self->multi, NULL, 0, 1000, NULL);
    }
    return NULL;
}

lade_code_t
lade_engine_new(lade_engine_t **self_p, const lade_config_t *config, const lade_engine_ops_t *ops,
                lade_error_t *error)
{
    *self_p = NULL;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    lade_engine_t *self = zmalloc(sizeof *self);
    self->config = config;
    self->ops = *ops;
    self->next_ticket = 1;
    pthread_mutex_init(&self->lock, NULL);
    self->multi = curl_multi_init();
    int64_t crew = config->download_slots < S_MAX_CREW ? config->download_slots : S_MAX_CREW;
    if (self->multi) {
        self->crew = lade_crew_new((size_t)crew, s_wake, self);
        self->started = lade_thread_start(&self->thread, s_thread, self);
    }
    if (!self->started) {
        lade_engine_destroy(&self);
        return lade_error_set(error, LADE_NO_MEMORY, "the download engine cannot start");
    }
    *self_p = self;
    return LADE_OK;
}

int64_t
lade_engine_add(lade_engine_t *self, const lade_request_t *request, void *arg)
{
    s_command_t *command = zmalloc(sizeof *command);
    lade_transfer_t *transfer = lade_transfer_new(request);
    transfer->arg = arg;
    pthread_mutex_lock(&self->lock);
    int64_t ticket = self->next_ticket++;
    pthread_mutex_unlock(&self->lock);
    transfer->ticket = ticket;
    command->transfer = transfer;
    s_post(self, command); // from here on the transfer is the engine's
    return ticket;
}

void
lade_engine_stop(lade_engine_t *self, int64_t ticket, lade_engine_stop_t why)
{
    s_command_t *command = zmalloc(sizeof *command);
    command->ticket = ticket;
    command->why = why;
    s_post(self, command);
}

void
lade_engine_stats(lade_engine_t *self, int64_t *bytes, int64_t *open, int64_t *ended)
{
    pthread_mutex_lock(&self->lock);
    *bytes = self->bytes;
    *open = self->open;
    *ended = self->ended;
    pthread_mutex_unlock(&self->lock);
}

void
lade_engine_destroy(lade_engine_t **self_p)
{
    lade_engine_t *self = *self_p;
    if (!self)
        return;
    pthread_mutex_lock(&self->lock);
    self->closing = true;
    pthread_mutex_unlock(&self->lock);
    if (self->started) {
        s_wake(self);
        pthread_join(self->thread, NULL);
    }
    lade_crew_destroy(&self->crew);
    curl_multi_cleanup(self->multi);
    pthread_mutex_destroy(&self->lock);
    free(self);
    curl_global_cleanup();
    *self_p = NULL;
}
