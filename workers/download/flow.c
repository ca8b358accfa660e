// The life of a transfer.
//
// One function decides what is next: lade_flow_advance. Whatever happens (a request ended, a chore
// came back, somebody asked to stop, time has passed) notes what it brings and calls it. Within a
// callback of libcurl it is not called: handles cannot be taken back there.
#include "common/log.h"
#include "common/wire.h"
#include "workers/download/engine_private.h"
#include "workers/download/verdict.h"

#include <czmq.h>
#include <inttypes.h>

enum {
    S_MAX_REDIRECTS = 10,
    S_MAX_ANEW = 3,
    S_MAX_STRIKES = 3,         // requests in a row that bring nothing
    S_BACKOFF_MS = 100,        // before a request is repeated; doubles, half of it random
    S_TELL_MS = 50,            // between two tellings of progress, if it is less than 1 %
    S_FLUSH_MS = 200,          // what came slowly is written after so long
    S_VERIFY_BYTES = 64 << 20, // still to be hashed when all has come: worth telling
    S_DRAIN_MS = 100,          // that bytes on their way are waited for when it is stopped
};

static void s_restarted(void *arg);
static void s_opened(void *arg);

// ---------------------------------------------------------------------------------------------------
// Chores and ends

static void
s_chore(lade_transfer_t *self, void (*work)(void *arg), void (*then)(void *arg))
{
    assert(!self->busy);
    self->busy = true;
    self->error_of_chore = (lade_error_t){0};
    self->chore = (lade_chore_t){.work = work, .then = then, .arg = self};
    lade_crew_add(self->engine->crew, &self->chore);
}

static lade_outcome_t
s_outcome(const lade_transfer_t *self)
{
    bool good = self->error.code == LADE_OK;
    return (lade_outcome_t){
        .error = self->error,
        .retry_after_s = self->retry_after_s,
        .volume = self->error.code == LADE_NO_SPACE && *self->volume ? self->volume : NULL,
        .path = self->path,
        .bytes = good ? self->journal.total : self->written.bytes,
        .total = self->journal.total,
        .resumed_from = self->found ? 0 : self->resumed_from,
        .sha256 = good ? self->digest_hex : NULL,
        .etag = self->journal.etag,
        .url = self->urls[0] ? lade_transfer_url(self) : NULL,
        .final_url = self->final_url,
        .content_type = self->journal.content_type,
    };
}

// An attempt of the same job that was begun before, NULL if there is none.
static lade_transfer_t *
s_earlier(const lade_transfer_t *self)
{
    lade_transfer_t *at = self->engine->transfers;
    while (at && (at->id != self->id || at->attempt >= self->attempt))
        at = at->next;
    return at;
}

static void
s_open_those_behind(lade_engine_t *engine)
{
    for (lade_transfer_t *at = engine->transfers; at; at = at->next)
        if (at->behind && !s_earlier(at)) {
            at->behind = false;
            s_chore(at, lade_transfer_open, s_opened);
        }
}

// Tells the outcome and forgets the transfer.
static void
s_end(lade_transfer_t *self)
{
    lade_engine_t *engine = self->engine;
    lade_outcome_t outcome = s_outcome(self);
    for (lade_transfer_t **at = &engine->transfers; *at; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            break;
        }
    lade_engine_count(engine, 0, -1, 1);
    if (self->farm_connections)
        lade_part_close_idle(engine, *self->answer_host ? self->answer_host : self->host);
    engine->ops.end(self->arg, &outcome);
    lade_transfer_destroy(&self);
    s_open_those_behind(engine);
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
    if (self->written.bytes == 0 && self->journal.ranges.bytes == 0)
        keep = false; // nothing came, and nothing was there before
    lade_transfer_snapshot(self);
    s_chore(self, work[keep], s_settled);
}

bool
lade_flow_is_stopped(const lade_transfer_t *self)
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

void
lade_flow_tell(lade_transfer_t *self, bool always)
{
    int64_t bytes =
        self->state == LADE_TRANSFER_FETCHING ? self->written.bytes : self->journal.total;
    int64_t total = self->journal.total, step = total > 0 ? total / 100 : INT64_MAX;
    int64_t now_ms = self->engine->now_ms;
    if (!always && bytes - self->told_bytes < step && now_ms - self->told_ms < S_TELL_MS)
        return;
    self->told_bytes = bytes;
    self->told_ms = now_ms;
    if (self->engine->ops.progress)
        self->engine->ops.progress(self->arg, bytes, total, self->path);
}

void
lade_flow_phase(lade_transfer_t *self, const char *phase, const char *reason)
{
    if (self->engine->ops.phase)
        self->engine->ops.phase(self->arg, phase, reason);
}

// ---------------------------------------------------------------------------------------------------
// Answers and ends of requests

static void
s_reserved(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = self->reserving = false;
    if (self->error_of_chore.code && !self->error.code)
        self->error = self->error_of_chore;
    lade_flow_advance(self);
}

// Runs within a callback of libcurl.
void
lade_flow_answered(lade_transfer_t *self)
{
    if (!self->answered) {
        self->answered = true;
        lade_ask_start(self);
        lade_flow_tell(self, true);
    }
    if (self->journal.total > LADE_BLOCK_BYTES && !self->reserved) {
        self->reserved = self->reserving = true;
        s_chore(self, lade_transfer_reserve, s_reserved);
    }
}

static bool
s_is_networks(lade_code_t code)
{
    return code == LADE_NETWORK || code == LADE_STALLED;
}

static void
s_back_off(lade_transfer_t *self)
{
    int64_t ms = S_BACKOFF_MS << (self->strikes < 8 ? self->strikes : 8);
    self->failed_ms = self->engine->now_ms;
    self->not_before_ms = self->failed_ms + ms / 2 + randof(ms / 2 + 1);
    self->strikes++;
    self->retries--;
}

static void
s_say_stalled(lade_transfer_t *self, const lade_error_t *error)
{
    lade_log(LADE_LOG_INFO, "download", "%s; asking again", error->message);
    if (!self->stalled)
        lade_flow_phase(self, "stalled", error->message);
    self->stalled = true;
}

// Whether asking again from where it stopped can help. same: what was out together has failed
// together, which is one failure.
static bool
s_can_repeat(const lade_transfer_t *self, lade_code_t code, bool same)
{
    return s_is_networks(code) && self->came > 0 && !self->whole &&
           (same || (self->strikes < S_MAX_STRIKES && self->retries > 0));
}

// The URL may lead elsewhere by now.
static void
s_forget_direct(lade_transfer_t *self)
{
    free(self->direct_url);
    self->direct_url = NULL;
}

// A server that says for how long is obeyed by the whole farm: the job goes to its gate. So it does
// where the disk is full.
static bool
s_has_to_wait(const lade_transfer_t *self, lade_code_t code)
{
    return code == LADE_NO_SPACE || (code == LADE_RATE_LIMITED && self->retry_after_s >= 0);
}

// No request is made of the part's host for as long as it said, here and in the farm.
static void
s_close_host(const lade_part_t *part, const lade_error_t *error)
{
    const lade_transfer_t *self = part->transfer;
    const lade_engine_ops_t *ops = &self->engine->ops;
    lade_engine_close_host(self->engine, part->host, self->retry_after_s);
    if (self->retry_after_s < 0)
        return;
    ops->closed(self->arg, self->host, self->retry_after_s, error->message);
    if (strcmp(part->host, self->host) != 0)
        ops->closed(self->arg, part->host, self->retry_after_s, error->message);
}

// A request failed. Alone it is the transfer's failure, unless asking again can help; one of
// several is only one connection too many.
static void
s_failed(lade_part_t *part, const lade_error_t *why)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t error = *why;
    bool others = self->part_count > 1, nothing = part->at == part->from;
    bool same = part->began_ms <= self->failed_ms;
    if (error.code == LADE_RATE_LIMITED)
        s_close_host(part, &error);
    if (s_is_networks(error.code) && self->whole && self->anew)
        lade_error_set(&error, LADE_RANGE_REFUSED, "%s; it does not go on where it stopped",
                       why->message);
    if (part->direct && nothing && s_is_networks(error.code))
        s_forget_direct(self);
    lade_part_drop(part, true);
    bool waits = s_has_to_wait(self, error.code);
    if (error.code == LADE_RATE_LIMITED && waits && self->parts) {
        self->retry_after_s = -1; // what is out is taken to its end; then the engine knows how long
    } else if (others && nothing && !waits) {
        self->most = self->part_count;
    } else if (s_can_repeat(self, error.code, same)) {
        s_say_stalled(self, &error);
        if (!same)
            s_back_off(self);
    } else if (!self->error.code) {
        self->error = error;
    }
}

static void
s_judge_curl(lade_part_t *part, CURLcode code, lade_error_t *error)
{
    const lade_config_t *config = part->transfer->engine->config;
    const lade_verdict_facts_t facts = {
        .host = part->host,
        .detail = part->curl_words,
        .connected = part->connected,
        .token = part->token,
        .stall_s = config->stall_s,
        .connect_timeout_s = config->connect_timeout_s,
    };
    if (part->error.code) // said so itself
        *error = part->error;
    else
        lade_verdict_curl(code, &facts, error);
}

// Goes to where the answer pointed. url is taken.
static void
s_follow(lade_part_t *part, char *url)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t *error = &part->error;
    if (!url)
        lade_error_set(error, LADE_HTTP_ERROR, "%s redirects without saying where to", part->host);
    else if (++part->hops > S_MAX_REDIRECTS)
        lade_error_set(error, LADE_HTTP_ERROR, "%s redirects in a circle (more than %d times)",
                       self->host, S_MAX_REDIRECTS);
    if (error->code) {
        free(url);
        s_failed(part, error);
        return;
    }
    if (!lade_ask_is_open(self, url)) { // it closed meanwhile
        free(url);
        lade_part_drop(part, false);
        return;
    }
    bool direct = part->direct;
    if (!lade_part_ask(part, part->from, part->to, url)) {
        lade_error_t why = part->error;
        s_failed(part, &why);
        return;
    }
    part->direct = direct;
}

// Remembers where the URL led to, so that the next ranges are asked for there.
static void
s_note_url(lade_part_t *part)
{
    lade_transfer_t *self = part->transfer;
    free(self->final_url);
    self->final_url = lade_answer_public_url(part->url);
    if (part->hops == 0 || self->direct_url)
        return;
    self->direct_url = strdup(part->url);
}

// The body was taken as far as it came: was it all?
static void
s_taken(lade_part_t *part, CURLcode code)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t error = {0};
    s_note_url(part);
    if (part->to < 0 && code == CURLE_OK && !part->error.code) { // of unknown length, until now
        self->journal.total = part->at;
        lade_ranges_remove(&self->claimed, part->at, INT64_MAX / 2);
        part->to = part->at;
    }
    if (part->to == part->at && !part->error.code) {
        lade_range_t next;
        bool more = !self->error.code && !self->redo && !lade_flow_is_stopped(self) &&
                    lade_ask_next(self, &next);
        if (more && !lade_part_ask(part, next.from, next.to, NULL))
            self->error = part->error;
        if (!more || self->error.code)
            lade_part_drop(part, true);
        return;
    }
    if (part->error.code || code != CURLE_OK)
        s_judge_curl(part, code, &error);
    else
        lade_error_set(&error, LADE_NETWORK, "%s closed after %" PRId64 " of %" PRId64 " bytes",
                       part->host, part->at, part->to);
    s_failed(part, &error);
}

void
lade_flow_ended(lade_part_t *part, CURLcode code)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t error = {0};
    char *url = lade_part_withdraw(part);
    bool going = !lade_flow_is_stopped(self) && !self->error.code;
    if (code == CURLE_OK && part->answer == LADE_ANSWER_NONE && going)
        part->answer = lade_answer_judge(part); // an answer without a body was not judged yet
    if (going && part->answer == LADE_ANSWER_REDIRECT) {
        s_follow(part, url);
        url = NULL;
    } else if (going && part->answer == LADE_ANSWER_TAKE && !self->redo) {
        lade_flow_answered(self);
        s_taken(part, code);
    } else if (going && part->answer == LADE_ANSWER_REFUSED) {
        error = part->error;
        s_failed(part, &error);
    } else if (going && part->answer == LADE_ANSWER_NONE) {
        s_judge_curl(part, code, &error);
        s_failed(part, &error);
    } else {
        if (part->answer == LADE_ANSWER_AGAIN && self->strikes > S_MAX_STRIKES)
            lade_error_set(&self->error, LADE_RANGE_REFUSED, "%s does not continue the file",
                           part->host);
        lade_part_drop(part, part->answer == LADE_ANSWER_TAKE && !self->redo);
    }
    free(url);
    lade_flow_advance(self);
}

// ---------------------------------------------------------------------------------------------------
// What comes next

static bool
s_is_idle(const lade_transfer_t *self)
{
    return !self->parts && !self->writes && !self->hashing && !self->checkpointing;
}

static void
s_drop_parts(lade_transfer_t *self, bool keep)
{
    for (lade_part_t *part = self->parts, *next; part; part = next) {
        next = part->next;
        lade_part_drop(part, keep && part->answer == LADE_ANSWER_TAKE);
    }
}

// Another mirror is tried for what may be this one's fault.
static bool
s_has_mirror(const lade_transfer_t *self)
{
    static const lade_code_t codes[] = {LADE_NETWORK,       LADE_STALLED,      LADE_HTTP_ERROR,
                                        LADE_NOT_FOUND,     LADE_RATE_LIMITED, LADE_AUTH_REQUIRED,
                                        LADE_AUTH_DENIED,   LADE_LICENSE_GATE, LADE_NOT_A_MODEL,
                                        LADE_SIZE_MISMATCH, LADE_UNSAFE_URL};
    bool theirs = false;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        theirs |= self->error.code == codes[i];
    return theirs && self->urls[self->url_at + 1];
}

static void
s_next_mirror(lade_transfer_t *self)
{
    lade_log(LADE_LOG_INFO, "download", "%s; trying the next mirror", self->error.message);
    self->error = (lade_error_t){0};
    self->retry_after_s = -1;
    self->strikes = 0;
    if (!lade_transfer_next(self))
        s_chore(self, lade_transfer_restart, s_restarted);
    else
        lade_flow_advance(self);
}

static void
s_restarted(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = self->reserved = false;
    if (self->error_of_chore.code)
        self->error = self->error_of_chore;
    lade_flow_advance(self);
}

static void
s_begin_anew(lade_transfer_t *self)
{
    if (++self->anew > S_MAX_ANEW) {
        lade_error_set(&self->error, LADE_RANGE_REFUSED,
                       "%s does not continue the file and does not send it whole either",
                       self->host);
        lade_flow_advance(self);
        return;
    }
    lade_log(LADE_LOG_INFO, "download", "%s: %s; fetching it from the start", self->host,
             self->redo == LADE_REDO_WHOLE ? "range_refused" : "the file has changed");
    // Who changes it again and again is asked for one whole answer.
    self->whole = self->redo == LADE_REDO_WHOLE || self->anew > 1;
    self->if_range = LADE_IF_ETAG;
    self->redo = LADE_REDO_NONE;
    s_chore(self, lade_transfer_restart, s_restarted);
}

static void
s_compared(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    if (!lade_flow_is_stopped(self) && !self->error_of_chore.code) {
        s_end(self);
        return;
    }
    if (self->error_of_chore.code)
        self->error = self->error_of_chore;
    self->redo = LADE_REDO_NONE;
    lade_flow_advance(self);
}

static void
s_finished(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    lade_sink_drop(self);
    lade_code_t code = self->error_of_chore.code;
    if (atomic_load(&self->stop) == LADE_ENGINE_CANCEL && self->published) {
        unlink(self->path); // ours, and nobody was told of it
        s_end_stopped(self);
    } else if (!code) {
        lade_log(LADE_LOG_DEBUG, "download",
                 "%s: %zu connections at last, %" PRId64 " bytes read again for the digest",
                 self->path, self->tune.want, self->reread);
        lade_flow_tell(self, true);
        s_end(self);
    } else if (code == LADE_CANCELLED && lade_flow_is_stopped(self)) {
        s_end_stopped(self);
    } else if (code == LADE_DIGEST_MISMATCH && self->resumed_from > 0 && self->anew++ == 0) {
        // Perhaps it was the kept bytes: all of it is fetched once more.
        lade_log(LADE_LOG_WARNING, "download", "%s; fetching it again from the start",
                 self->error_of_chore.message);
        self->state = LADE_TRANSFER_FETCHING;
        s_chore(self, lade_transfer_restart, s_restarted);
    } else {
        self->error = self->error_of_chore;
        s_settle(self);
    }
}

// What an interruption needs once nothing is out any more.
static void
s_interrupted(lade_transfer_t *self)
{
    lade_sink_drop(self);
    if (lade_flow_is_stopped(self))
        s_end_stopped(self);
    else if (self->error.code && s_has_mirror(self))
        s_next_mirror(self);
    else if (self->error.code)
        s_settle(self);
    else if (self->redo == LADE_REDO_COMPARE)
        s_chore(self, lade_transfer_compare, s_compared);
    else
        s_begin_anew(self);
}

static bool
s_has_all(const lade_transfer_t *self)
{
    int64_t total = self->journal.total, last = self->last ? (int64_t)self->last->len : 0;
    return total >= 0 && !self->parts && self->journal.name && self->written.bytes + last >= total;
}

// Kept bytes of a large file take a while to be read again.
static void
s_maybe_say_verifying(lade_transfer_t *self)
{
    if (self->verifying || self->hashing || !s_has_all(self) ||
        self->journal.total - lade_digest_bytes(self->digest) < S_VERIFY_BYTES)
        return;
    self->verifying = true;
    lade_flow_phase(self, "verifying", NULL);
}

static void
s_go_on(lade_transfer_t *self)
{
    if (!s_has_all(self)) {
        lade_ask_more(self);
        if (lade_blocks_full(self->engine->blocks))
            lade_sink_spill(self);
    }
    s_maybe_say_verifying(self); // before the digest is the crew's again
    lade_sink_hash(self);
    lade_sink_checkpoint(self);
    int64_t last = self->last ? (int64_t)self->last->len : 0;
    if (!s_has_all(self) || !s_is_idle(self) ||
        lade_digest_bytes(self->digest) + last < self->journal.total)
        return;
    lade_flow_tell(self, true);
    self->state = LADE_TRANSFER_FINISHING;
    s_chore(self, lade_transfer_finish, s_finished);
}

// What is kept when somebody stops is all that the servers have sent already: it is waited for a
// moment.
static bool
s_is_draining(const lade_transfer_t *self)
{
    return self->parts && !self->error.code && !self->redo &&
           atomic_load(&self->stop) != LADE_ENGINE_CANCEL &&
           self->engine->now_ms - self->stop_ms < S_DRAIN_MS;
}

void
lade_flow_advance(lade_transfer_t *self)
{
    if (self->busy || self->state != LADE_TRANSFER_FETCHING)
        return;
    bool cancelled = atomic_load(&self->stop) == LADE_ENGINE_CANCEL;
    if (lade_flow_is_stopped(self) || self->error.code || self->redo) {
        if (s_is_draining(self))
            return;
        s_drop_parts(self, !cancelled && !self->redo);
        if (s_is_idle(self))
            s_interrupted(self);
        return;
    }
    s_go_on(self);
    if (self->error.code) // a request could not be made
        lade_flow_advance(self);
}

// ---------------------------------------------------------------------------------------------------
// The beginning, stops, terms, time

static void
s_opened(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    if (self->error_of_chore.code)
        self->error = self->error_of_chore;
    if (self->found && !lade_flow_is_stopped(self) && !self->error.code) {
        s_end(self);
        return;
    }
    self->state = LADE_TRANSFER_FETCHING;
    lade_flow_advance(self);
}

void
lade_flow_begin(lade_engine_t *self, lade_transfer_t *transfer)
{
    transfer->engine = self;
    transfer->next = self->transfers;
    self->transfers = transfer;
    lade_engine_count(self, 0, 1, 0);
    if (lade_transfer_check(transfer, &transfer->error)) {
        s_end(transfer);
        return;
    }
    transfer->state = LADE_TRANSFER_OPENING;
    lade_transfer_t *earlier = s_earlier(transfer);
    transfer->behind = earlier;
    if (earlier)
        lade_flow_stop(earlier, LADE_ENGINE_LEAVE);
    else
        s_chore(transfer, lade_transfer_open, s_opened);
}

void
lade_flow_stop(lade_transfer_t *self, lade_engine_stop_t why)
{
    static const int weight[] = {[LADE_ENGINE_GO] = 0,
                                 [LADE_ENGINE_PAUSE] = 1,
                                 [LADE_ENGINE_CANCEL] = 2,
                                 [LADE_ENGINE_LEAVE] = 3};
    if (!lade_flow_is_stopped(self))
        self->stop_ms = self->engine->now_ms;
    if (weight[why] > weight[atomic_load(&self->stop)])
        atomic_store(&self->stop, (int)why);
    lade_flow_advance(self);
}

// Takes back the requests that have most left to do, until no more than so many are out.
static void
s_shrink(lade_transfer_t *self, size_t connections)
{
    while (self->part_count > connections) {
        lade_part_t *most = self->parts;
        for (lade_part_t *part = self->parts; part; part = part->next)
            if (part->to - part->at > most->to - most->at)
                most = part;
        lade_part_drop(most, true);
    }
}

void
lade_flow_set_terms(lade_transfer_t *self, int64_t connections, int64_t bytes_per_s, double hold_s)
{
    bool fewer =
        connections > 0 && (self->farm_connections == 0 || connections < self->farm_connections);
    self->farm_connections = connections;
    self->farm_rate = bytes_per_s;
    // Terms without a hold end one: an operator opened the gate.
    self->hold_until_ms = hold_s > 0 ? self->engine->now_ms + (int64_t)(hold_s * 1000) : 0;
    if (fewer) {
        s_shrink(self, (size_t)connections);
        lade_part_close_idle(self->engine, *self->answer_host ? self->answer_host : self->host);
        if (self->engine->ops.confirm)
            self->engine->ops.confirm(self->arg, connections);
    }
    lade_flow_advance(self);
}

void
lade_flow_tick(lade_transfer_t *self)
{
    if (self->state != LADE_TRANSFER_FETCHING)
        return;
    if (self->engine->now_ms - self->told_ms >= S_FLUSH_MS)
        for (lade_part_t *part = self->parts; part; part = part->next)
            lade_part_flush(part);
    lade_ask_tune(self);
    lade_flow_advance(self);
}
