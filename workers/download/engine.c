// The loop: commands in, libcurl, finished chores, time.
#include "workers/download/engine.h"

#include "common/log.h"
#include "common/thread.h"
#include "common/wire.h"
#include "workers/download/engine_private.h"

#include <czmq.h>

enum {
    S_TICK_MS = 20,       // while something waits for time
    S_SLOW_TICK_MS = 100, // while there are transfers
    S_IDLE_MS = 1000,
    S_KEPT_HOSTS = 4, // whose connections are kept for the next request
    S_MORE_CREW = 3,  // threads besides one for each transfer
    S_SHARE_MS = 200, // over which the share of idle time is measured
};

// What another thread asks for.
typedef struct s_command {
    struct s_command *next;
    void (*run)(lade_engine_t *self, const struct s_command *command, lade_transfer_t *transfer);
    lade_transfer_t *transfer; // to start
    int64_t ticket;            // of whom it is about; 0: of the engine
    lade_engine_stop_t why;
    int64_t connections, bytes_per_s;
    double hold_s;
    bool preserve;
} s_command_t;

// ---------------------------------------------------------------------------------------------------
// Commands

static void
s_run_begin(lade_engine_t *self, const s_command_t *command, lade_transfer_t *transfer)
{
    (void)transfer;
    lade_flow_begin(self, command->transfer);
}

static void
s_run_stop(lade_engine_t *self, const s_command_t *command, lade_transfer_t *transfer)
{
    (void)self;
    lade_flow_stop(transfer, command->why);
}

static void
s_run_terms(lade_engine_t *self, const s_command_t *command, lade_transfer_t *transfer)
{
    (void)self;
    lade_flow_set_terms(transfer, command->connections, command->bytes_per_s, command->hold_s);
}

static void
s_run_preserve(lade_engine_t *self, const s_command_t *command, lade_transfer_t *transfer)
{
    (void)self;
    transfer->preserve_partial = command->preserve;
}

static void
s_run_rate(lade_engine_t *self, const s_command_t *command, lade_transfer_t *transfer)
{
    (void)transfer;
    self->bucket.bytes_per_s = command->bytes_per_s;
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
s_post(lade_engine_t *self, const s_command_t *what)
{
    s_command_t *command = zmalloc(sizeof *command);
    *command = *what;
    pthread_mutex_lock(&self->lock);
    if (self->last)
        self->last->next = command;
    else
        self->first = command;
    self->last = command;
    pthread_mutex_unlock(&self->lock);
    s_wake(self);
}

void
lade_engine_count(lade_engine_t *self, int64_t bytes, int64_t open, int64_t ended)
{
    pthread_mutex_lock(&self->lock);
    self->bytes += bytes;
    self->open += open;
    self->ended += ended;
    pthread_mutex_unlock(&self->lock);
}

static lade_transfer_t *
s_find(const lade_engine_t *self, int64_t ticket)
{
    lade_transfer_t *at = self->transfers;
    while (at && at->ticket != ticket)
        at = at->next;
    return at;
}

static void
s_each(lade_engine_t *self, void (*what)(lade_transfer_t *transfer))
{
    for (lade_transfer_t *at = self->transfers, *next; at; at = next) {
        next = at->next; // at may end
        what(at);
    }
}

static void
s_leave(lade_transfer_t *transfer)
{
    lade_flow_stop(transfer, LADE_ENGINE_LEAVE);
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
        lade_transfer_t *transfer = at->ticket && !at->transfer ? s_find(self, at->ticket) : NULL;
        if (transfer || at->transfer || !at->ticket)
            at->run(self, at, transfer);
        free(at);
    }
    if (closing)
        s_each(self, s_leave);
    return !closing || self->transfers;
}

static void
s_take_results(lade_engine_t *self)
{
    int left;
    for (CURLMsg *msg; (msg = curl_multi_info_read(self->multi, &left)) != NULL;) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        lade_part_t *part;
        CURLcode code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&part);
        lade_flow_ended(part, code);
    }
    for (lade_chore_t *chore; (chore = lade_crew_collect(self->crew)) != NULL;)
        chore->then(chore->arg);
}

static void
s_unblock(lade_transfer_t *transfer)
{
    for (lade_part_t *part = transfer->parts; part; part = part->next)
        lade_part_unblock(part);
}

// ---------------------------------------------------------------------------------------------------
// Time

// A tenth of a second's bytes may come at once.
static double
s_refill(double tokens, int64_t bytes_per_s, int64_t ms)
{
    double most = (double)bytes_per_s / 10;
    tokens += (double)bytes_per_s * (double)ms / 1000;
    return tokens > most ? most : tokens;
}

static void
s_refill_all(lade_engine_t *self, int64_t ms)
{
    self->bucket.tokens = s_refill(self->bucket.tokens, self->bucket.bytes_per_s, ms);
    for (lade_transfer_t *at = self->transfers; at; at = at->next)
        at->tokens = s_refill(at->tokens, at->farm_rate, ms);
}

// Whoever was first is last now: so that what the rate allows is shared.
static void
s_rotate(lade_engine_t *self)
{
    lade_transfer_t *first = self->transfers, **end = &self->transfers;
    if (!first || !first->next)
        return;
    self->transfers = first->next;
    first->next = NULL;
    while (*end)
        end = &(*end)->next;
    *end = first;
}

static bool
s_is_limited(const lade_engine_t *self)
{
    bool limited = self->bucket.bytes_per_s > 0;
    for (const lade_transfer_t *at = self->transfers; at && !limited; at = at->next)
        limited = at->farm_rate > 0;
    return limited;
}

static void
s_tick(lade_engine_t *self)
{
    int64_t ms = self->now_ms - self->tick_ms;
    if (ms < S_TICK_MS)
        return;
    self->tick_ms = self->now_ms;
    if (s_is_limited(self)) {
        s_refill_all(self, ms);
        s_rotate(self);
    }
    s_each(self, lade_flow_tick);
    int64_t lasted_ms = self->now_ms - self->idle_since_ms;
    if (lasted_ms < S_SHARE_MS)
        return;
    self->idle_share = (double)self->idle_us / 1000 / (double)lasted_ms;
    self->idle_since_ms = self->now_ms;
    self->blocked_share = (double)self->blocked_us / 1000 / (double)lasted_ms;
    self->idle_us = self->blocked_us = 0;
}

void
lade_engine_close_host(lade_engine_t *self, const char *host, double seconds)
{
    size_t at = 0;
    while (at < self->closed_count && self->closed[at].until_ms > self->now_ms &&
           strcmp(self->closed[at].host, host) != 0)
        at++;
    if (at == LADE_ENGINE_CLOSED || seconds <= 0)
        return;
    self->closed_count += at == self->closed_count;
    snprintf(self->closed[at].host, sizeof self->closed[at].host, "%s", host);
    self->closed[at].until_ms = self->now_ms + (int64_t)(seconds * 1000);
}

// Whether the disk or the digest has work: then it is them what is held up waits for, and not the
// network.
static bool
s_is_sinking(const lade_engine_t *self)
{
    for (const lade_transfer_t *at = self->transfers; at; at = at->next)
        if (at->writes || at->hashing)
            return true;
    return false;
}

static void
s_wait(lade_engine_t *self)
{
    int timeout_ms = self->blocked && s_is_limited(self) ? S_TICK_MS
                     : self->transfers                   ? S_SLOW_TICK_MS
                                                         : S_IDLE_MS;
    int64_t before_us = zclock_usecs();
    curl_multi_poll(self->multi, NULL, 0, timeout_ms, NULL);
    int64_t waited_us = zclock_usecs() - before_us;
    self->idle_us += waited_us;
    self->blocked_us += self->blocked && s_is_sinking(self) ? waited_us : 0;
    self->now_ms = lade_mono_ms();
}

static void *
s_thread(void *arg)
{
    lade_engine_t *self = arg;
    pthread_setname_np(pthread_self(), "engine");
    self->now_ms = self->tick_ms = self->idle_since_ms = lade_mono_ms();
    while (s_take_commands(self)) {
        int running;
        curl_multi_perform(self->multi, &running);
        s_take_results(self);
        s_tick(self);
        if (self->blocked)
            s_each(self, s_unblock);
        if (self->starved && self->drops) {
            self->starved = false;
            s_each(self, lade_flow_advance);
        }
        self->drops = 0;
        s_wait(self);
    }
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// From outside

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
    lade_code_t code =
        lade_guard_new(&self->guard, config->allow_addresses, config->hub_endpoint, error);
    if (code) {
        lade_engine_destroy(&self);
        return code;
    }
    int64_t crew = config->download_slots + S_MORE_CREW;
    crew = crew < LADE_ENGINE_MAX_CREW ? crew : LADE_ENGINE_MAX_CREW;
    self->blocks = lade_blocks_new((size_t)config->buffer_mb);
    if (self->multi) {
        curl_multi_setopt(self->multi, CURLMOPT_MAXCONNECTS,
                          (long)config->download_connections * S_KEPT_HOSTS);
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
    lade_transfer_t *transfer = lade_transfer_new(request);
    transfer->arg = arg;
    pthread_mutex_lock(&self->lock);
    int64_t ticket = self->next_ticket++;
    pthread_mutex_unlock(&self->lock);
    transfer->ticket = ticket;
    // From here on the transfer is the engine's.
    s_post(self, &(s_command_t){.run = s_run_begin, .ticket = ticket, .transfer = transfer});
    return ticket;
}

void
lade_engine_stop(lade_engine_t *self, int64_t ticket, lade_engine_stop_t why)
{
    s_post(self, &(s_command_t){.run = s_run_stop, .ticket = ticket, .why = why});
}

void
lade_engine_set_terms(lade_engine_t *self, int64_t ticket, int64_t connections, int64_t bytes_per_s,
                      double hold_s)
{
    s_post(self, &(s_command_t){.run = s_run_terms,
                                .ticket = ticket,
                                .connections = connections,
                                .bytes_per_s = bytes_per_s,
                                .hold_s = hold_s});
}

void
lade_engine_set_preserve(lade_engine_t *self, int64_t ticket, bool preserve)
{
    s_post(self, &(s_command_t){.run = s_run_preserve, .ticket = ticket, .preserve = preserve});
}

void
lade_engine_set_rate(lade_engine_t *self, int64_t bytes_per_s)
{
    s_post(self, &(s_command_t){.run = s_run_rate, .bytes_per_s = bytes_per_s});
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
    while (self->spare_count)
        curl_easy_cleanup(self->spares[--self->spare_count]);
    curl_multi_cleanup(self->multi); // closes the sockets
    lade_blocks_destroy(&self->blocks);
    lade_guard_destroy(&self->guard);
    free(self->sockets);
    pthread_mutex_destroy(&self->lock);
    free(self);
    curl_global_cleanup();
    *self_p = NULL;
}
