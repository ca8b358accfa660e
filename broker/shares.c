// Claims, and what is granted to them. Settling looks at all claims of the farm, once in a turn in
// which something changed; there are as many as there are jobs running.
#include "broker/shares.h"

#include "broker/events.h"
#include "broker/jobs.h"
#include "broker/outbox.h"
#include "broker/packer.h"
#include "broker/split.h"
#include "common/wire.h"

#include <czmq.h>

enum {
    S_MAX_CONNECTIONS = 1000000, // a worker may say it keeps to
    S_MAX_DEPTH = 16,            // parents above a job
    S_LOOK = 64,                 // waiting jobs looked at
};

struct lade_claim {
    lade_job_t *job;          // NULL: it does not run any more, but its worker has not let go of it
    lade_worker_t *worker;    // NULL: it has not come back yet
    lade_claim_t *next;       // to be told to the same worker
    size_t at;                // its place among all
    bool elastic;             // counted by connections, and told terms
    bool unsent;              // its JOB is still to be sent
    bool told;                // the worker knows its terms
    int64_t granted, counted; // connections: told last, and not less, what may be open; 0: any
    int64_t target;           // what is due to it
    int64_t serial;           // of the number granted
    int64_t bytes_per_s, hold_ms; // told last
    int8_t preserve;              // told last
    size_t gate_count;
    struct {
        lade_gate_t *gate;
        size_t at; // its place among the gate's claims
    } gates[];
};

struct lade_shares {
    lade_broker_t *broker;
    lade_claim_t **claims, **scratch; // scratch is as long as claims
    size_t count, cap;
    int64_t bytes_per_s;
    bool rate_changed; // and is not written yet
    bool dirty;        // something changed since all was settled
    int64_t serial;
    uint64_t stamp;        // of this settling
    lade_worker_t **users; // workers with transfers, of this settling
    lade_part_of_rate_t *parts;
    size_t user_count, user_cap;
};

lade_shares_t *
lade_shares_new(lade_broker_t *broker)
{
    lade_shares_t *self = zmalloc(sizeof *self);
    self->broker = broker;
    return self;
}

// ---------------------------------------------------------------------------------------------------
// The keyspace

static void
s_forget(lade_shares_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->claims[i]);
    self->count = 0;
}

lade_code_t
lade_shares_load(lade_shares_t *self, lade_error_t *error)
{
    uint64_t rate = 0;
    s_forget(self);
    lade_code_t code = lade_store_get_number(self->broker->store, "bytes_per_s", &rate, error);
    if (code && code != LADE_NOT_FOUND)
        return code;
    self->bytes_per_s = rate <= INT64_MAX ? (int64_t)rate : 0;
    self->rate_changed = false;
    self->dirty = true;
    // Nobody answers in this life of the broker what was asked in an earlier one.
    self->serial = (int64_t)(lade_events_epoch(self->broker->events) << 32);
    return LADE_OK;
}

void
lade_shares_write(lade_shares_t *self)
{
    if (self->rate_changed)
        lade_store_put_number(self->broker->store, "bytes_per_s", (uint64_t)self->bytes_per_s,
                              NULL);
    self->rate_changed = false;
}

// ---------------------------------------------------------------------------------------------------
// Claims

static int64_t
s_weight(const lade_claim_t *claim, const lade_gate_t *gate)
{
    if (!claim->elastic || !gate->counts_connections)
        return 1;
    return claim->counted ? claim->counted : LADE_GATE_ANY;
}

static void
s_join(lade_claim_t *claim, size_t i, lade_gate_t *gate)
{
    if (gate->claim_count == gate->claim_cap) {
        gate->claim_cap = gate->claim_cap ? gate->claim_cap * 2 : 4;
        gate->claims = realloc(gate->claims, gate->claim_cap * sizeof *gate->claims);
        if (!gate->claims)
            abort();
    }
    claim->gates[i].gate = gate;
    claim->gates[i].at = gate->claim_count;
    gate->claims[gate->claim_count++] = claim;
    gate->used += s_weight(claim, gate);
}

static void
s_part(lade_claim_t *claim, size_t i)
{
    lade_gate_t *gate = claim->gates[i].gate;
    size_t at = claim->gates[i].at;
    gate->used -= s_weight(claim, gate);
    lade_claim_t *last = gate->claims[at] = gate->claims[--gate->claim_count];
    for (size_t j = 0; j < last->gate_count; j++)
        if (last->gates[j].gate == gate)
            last->gates[j].at = at;
}

// The claim weighs something else from now on.
static void
s_change(lade_claim_t *claim, bool elastic, int64_t counted)
{
    for (size_t i = 0; i < claim->gate_count; i++)
        claim->gates[i].gate->used -= s_weight(claim, claim->gates[i].gate);
    claim->elastic = elastic;
    claim->counted = counted;
    for (size_t i = 0; i < claim->gate_count; i++)
        claim->gates[i].gate->used += s_weight(claim, claim->gates[i].gate);
}

static bool
s_is_limited(const lade_gate_t *gate)
{
    return gate->counts_connections && gate->limit > 0;
}

static void
s_add(lade_shares_t *self, lade_claim_t *claim)
{
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 64;
        self->claims = realloc(self->claims, self->cap * sizeof *self->claims);
        self->scratch = realloc(self->scratch, self->cap * sizeof *self->scratch);
        if (!self->claims || !self->scratch)
            abort();
    }
    claim->at = self->count;
    self->claims[self->count++] = claim;
}

static bool
s_is_download(const lade_job_t *job)
{
    return strcmp(job->kind->name, "download") == 0;
}

// A job begins with one connection where they are counted; settling gives it what else is due.
void
lade_shares_begin(lade_shares_t *self, lade_job_t *job)
{
    assert(!job->claim);
    if (!s_is_download(job) && !job->gate_count)
        return;
    lade_claim_t *claim = zmalloc(sizeof *claim + job->gate_count * sizeof *claim->gates);
    bool limited = false;
    claim->job = job;
    claim->worker = job->holder;
    claim->elastic = s_is_download(job) && (!job->holder || job->holder->terms);
    claim->unsent = job->holder != NULL;
    claim->serial = ++self->serial;
    claim->gate_count = job->gate_count;
    for (size_t i = 0; i < job->gate_count; i++) {
        claim->gates[i].gate = lade_gates_need(self->broker->gates, job->gate_names[i]);
        limited |= s_is_limited(claim->gates[i].gate);
    }
    claim->granted = claim->counted = claim->worker && limited;
    for (size_t i = 0; i < claim->gate_count; i++)
        s_join(claim, i, claim->gates[i].gate);
    if (claim->worker)
        claim->worker->share.demand = -1;
    s_add(self, claim);
    job->claim = claim;
    job->connections = claim->elastic ? claim->granted : 0;
    self->dirty = true;
}

// Frees the claim; whoever waits for its place goes on.
static void
s_give_back(lade_shares_t *self, lade_claim_t *claim)
{
    lade_gate_t *gates[LADE_BROKER_MAX_GATES];
    size_t count = claim->gate_count;
    assert(count <= LADE_BROKER_MAX_GATES);
    for (size_t i = 0; i < count; i++) {
        gates[i] = claim->gates[i].gate;
        s_part(claim, i);
    }
    lade_claim_t *last = self->claims[--self->count];
    last->at = claim->at;
    self->claims[last->at] = last;
    free(claim);
    self->dirty = true;
    for (size_t i = 0; i < count; i++)
        lade_jobs_gate_changed(self->broker->jobs, gates[i]);
}

void
lade_shares_end(lade_shares_t *self, lade_job_t *job)
{
    lade_claim_t *claim = job->claim;
    job->claim = NULL;
    job->connections = 0;
    if (!claim)
        return;
    claim->job = NULL;
    self->dirty = true;
    if (job->holder)
        job->holder->holds[job->hold].claim = claim;
    else
        s_give_back(self, claim);
}

void
lade_shares_release(lade_shares_t *self, lade_hold_t *hold)
{
    lade_claim_t *claim = hold->claim;
    hold->claim = NULL;
    if (claim)
        s_give_back(self, claim);
}

void
lade_shares_resume(lade_shares_t *self, lade_job_t *job, int64_t connections)
{
    lade_claim_t *claim = job->claim;
    if (!claim)
        return;
    bool fits = connections > 0 && connections <= S_MAX_CONNECTIONS;
    claim->worker = job->holder;
    claim->granted = fits ? connections : 0;
    claim->told = false;
    claim->serial = ++self->serial;
    s_change(claim, s_is_download(job) && job->holder->terms, claim->granted);
    self->dirty = true;
    for (size_t i = 0; i < claim->gate_count; i++)
        lade_jobs_gate_changed(self->broker->jobs, claim->gates[i].gate);
}

void
lade_shares_confirm(lade_shares_t *self, lade_job_t *job, int64_t connections, int64_t serial)
{
    lade_claim_t *claim = job->claim;
    if (!claim || !claim->elastic || serial != claim->serial || connections < 1 || !claim->granted)
        return;
    int64_t counted = connections > claim->granted ? connections : claim->granted;
    if (claim->counted && counted >= claim->counted)
        return;
    s_change(claim, true, counted);
    self->dirty = true;
    for (size_t i = 0; i < claim->gate_count; i++)
        lade_jobs_gate_changed(self->broker->jobs, claim->gates[i].gate);
}

void
lade_shares_touch(lade_shares_t *self)
{
    self->dirty = true;
}

// Whether terms are for it.
static bool
s_takes_terms(const lade_claim_t *claim)
{
    return claim->elastic && claim->job && claim->worker;
}

// ---------------------------------------------------------------------------------------------------
// Connections

static int
s_compare_jobs(const void *a, const void *b)
{
    const lade_job_t *left = (*(lade_claim_t *const *)a)->job,
                     *right = (*(lade_claim_t *const *)b)->job;
    if (left->priority != right->priority)
        return left->priority < right->priority ? -1 : 1;
    return left->id < right->id ? -1 : left->id > right->id;
}

static int64_t
s_free_slots(const lade_worker_t *worker)
{
    int64_t slots = worker->slots - (int64_t)worker->hold_count;
    return slots > 0 ? slots : 0;
}

static bool
s_has_taker(const lade_shares_t *self, const lade_job_t *job)
{
    const lade_workers_t *workers = self->broker->workers;
    for (size_t i = 0; i < lade_workers_count(workers); i++)
        if (s_free_slots(lade_workers_at(workers, i)) &&
            lade_jobs_fits(job, lade_workers_at(workers, i)))
            return true;
    return false;
}

// How many of the jobs that wait at the gate a worker could take now; of many, the first ones are
// looked at.
static size_t
s_wanted(const lade_shares_t *self, const lade_gate_t *gate)
{
    const lade_workers_t *workers = self->broker->workers;
    size_t wanted = 0, slots = 0;
    if (!gate->waiting.len || gate->closed_until_ms > self->broker->mono_ms)
        return 0;
    for (size_t i = 0; i < lade_workers_count(workers) && slots < S_LOOK; i++)
        slots += (size_t)s_free_slots(lade_workers_at(workers, i));
    for (size_t i = 0; i < gate->waiting.len && i < S_LOOK && wanted < slots; i++)
        wanted += s_has_taker(self, gate->waiting.items[i]);
    return wanted;
}

// What is due to each claim at a limited gate: the limit is shared among the jobs that run and
// those that could.
static void
s_aim_at(lade_shares_t *self, const lade_gate_t *gate)
{
    size_t count = 0;
    int64_t limit = gate->limit;
    for (size_t i = 0; i < gate->claim_count; i++) {
        if (s_takes_terms(gate->claims[i]))
            self->scratch[count++] = gate->claims[i];
        limit -= !gate->claims[i]->elastic;
    }
    if (count == 0)
        return;
    size_t jobs = count + s_wanted(self, gate);
    if ((int64_t)jobs > limit)
        jobs = (int64_t)count > limit ? count : (size_t)limit;
    qsort(self->scratch, count, sizeof *self->scratch, s_compare_jobs);
    for (size_t i = 0; i < count; i++) {
        int64_t part = lade_split_connections(limit, jobs, i);
        if (!self->scratch[i]->target || part < self->scratch[i]->target)
            self->scratch[i]->target = part;
    }
}

static void
s_aim(lade_shares_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        self->claims[i]->target = 0;
    for (size_t i = 0; i < self->count; i++) {
        const lade_claim_t *claim = self->claims[i];
        for (size_t j = 0; s_takes_terms(claim) && j < claim->gate_count; j++) {
            lade_gate_t *gate = claim->gates[j].gate;
            if (!s_is_limited(gate) || gate->stamp == self->stamp)
                continue;
            gate->stamp = self->stamp;
            s_aim_at(self, gate);
        }
    }
}

static void
s_grant(lade_shares_t *self, lade_claim_t *claim, int64_t granted)
{
    claim->granted = claim->job->connections = granted;
    claim->serial = ++self->serial;
    claim->told = false;
}

static void
s_lower(lade_shares_t *self, lade_claim_t *claim)
{
    if (claim->target && (!claim->granted || claim->target < claim->granted))
        s_grant(self, claim, claim->target);
}

// As far as there is room; what is not confirmed yet was never given away.
static void
s_raise(lade_shares_t *self, lade_claim_t *claim)
{
    if (!claim->granted || (claim->target && claim->target <= claim->granted))
        return;
    int64_t granted = claim->target, room = INT64_MAX;
    for (size_t i = 0; i < claim->gate_count; i++) {
        const lade_gate_t *gate = claim->gates[i].gate;
        if (s_is_limited(gate) && gate->limit - gate->used < room)
            room = gate->limit - gate->used;
    }
    room = room > 0 ? room : 0;
    if (granted && claim->counted && granted > claim->counted + room)
        granted = claim->counted + room;
    if (granted && granted <= claim->granted)
        return;
    s_grant(self, claim, granted);
    if (!granted || (claim->counted && granted > claim->counted))
        s_change(claim, true, granted);
}

// ---------------------------------------------------------------------------------------------------
// Bytes per second

static void
s_use(lade_shares_t *self, lade_worker_t *worker)
{
    if (worker->share.stamp != self->stamp) {
        worker->share.stamp = self->stamp;
        worker->share.transfers = 0;
        worker->share.untold = NULL;
        if (self->user_count == self->user_cap) {
            self->user_cap = self->user_cap ? self->user_cap * 2 : 16;
            self->users = realloc(self->users, self->user_cap * sizeof *self->users);
            self->parts = realloc(self->parts, self->user_cap * sizeof *self->parts);
            if (!self->users || !self->parts)
                abort();
        }
        self->users[self->user_count++] = worker;
    }
    worker->share.transfers++;
}

// Small changes are not worth a message.
static void
s_set_share(lade_shares_t *self, lade_worker_t *worker, int64_t share)
{
    lade_worker_share_t *own = &worker->share;
    int64_t moved = share > own->bytes_per_s ? share - own->bytes_per_s : own->bytes_per_s - share;
    if (share && own->bytes_per_s && moved <= own->bytes_per_s / 100)
        return;
    if (share > own->bytes_per_s + own->bytes_per_s / 10)
        own->rose_ms = self->broker->mono_ms;
    own->bytes_per_s = share;
}

static void
s_split(lade_shares_t *self)
{
    self->user_count = 0;
    for (size_t i = 0; i < self->count; i++)
        if (s_takes_terms(self->claims[i]))
            s_use(self, self->claims[i]->worker);
    for (size_t i = 0; i < self->user_count; i++)
        self->parts[i] = (lade_part_of_rate_t){.weight = self->users[i]->share.transfers,
                                               .demand = self->users[i]->share.demand};
    if (self->bytes_per_s)
        lade_split_rate(self->bytes_per_s, self->parts, self->user_count);
    for (size_t i = 0; i < self->user_count; i++)
        s_set_share(self, self->users[i], self->parts[i].share);
}

void
lade_shares_measure(lade_shares_t *self, lade_worker_t *worker, int64_t rate)
{
    (void)self;
    worker->share.rate = rate;
    if (rate > worker->share.peak)
        worker->share.peak = rate;
}

// What a worker read in a beat says what it demands, if it had its share all the time. The highest
// of several rates counts: a worker may measure over moments.
static void
s_take_demand(const lade_shares_t *self, lade_worker_share_t *own)
{
    if (own->rate < 0)
        own->demand = -1;
    else if (self->bytes_per_s && own->bytes_per_s && own->peak >= 0 &&
             self->broker->mono_ms - own->rose_ms >= self->broker->config->beat_ms)
        own->demand = lade_split_demand(own->bytes_per_s, own->peak);
    own->peak = -1;
}

void
lade_shares_set_rate(lade_shares_t *self, int64_t bytes_per_s)
{
    const lade_workers_t *workers = self->broker->workers;
    self->bytes_per_s = bytes_per_s;
    self->rate_changed = self->dirty = true;
    for (size_t i = 0; i < lade_workers_count(workers); i++)
        lade_workers_at(workers, i)->share.demand = -1;
    for (size_t i = 0; i < lade_workers_count(workers) && !bytes_per_s; i++)
        lade_workers_at(workers, i)->share.bytes_per_s = 0;
}

void
lade_shares_beat(lade_shares_t *self)
{
    const lade_workers_t *workers = self->broker->workers;
    self->dirty = true;
    for (size_t i = 0; i < lade_workers_count(workers); i++)
        s_take_demand(self, &lade_workers_at(workers, i)->share);
    for (size_t i = 0; i < self->count; i++)
        if (self->claims[i]->counted != self->claims[i]->granted)
            self->claims[i]->told = false;
}

int64_t
lade_shares_rate(const lade_shares_t *self)
{
    return self->bytes_per_s;
}

int64_t
lade_shares_seen(const lade_shares_t *self)
{
    const lade_workers_t *workers = self->broker->workers;
    int64_t seen = 0;
    for (size_t i = 0; i < lade_workers_count(workers); i++)
        if (lade_workers_at(workers, i)->share.rate > 0)
            seen += lade_workers_at(workers, i)->share.rate;
    return seen;
}

// The job is one more that runs for each of its ancestors.
static void
s_count_lanes(lade_shares_t *self, const lade_job_t *job)
{
    for (int depth = 0; depth < S_MAX_DEPTH; depth++) {
        lade_job_t *parent = lade_jobs_live(self->broker->jobs, job->parent);
        if (!parent)
            return;
        if (parent->lanes_stamp != self->stamp)
            parent->lanes = 0;
        parent->lanes_stamp = self->stamp;
        parent->lanes++;
        job = parent;
    }
}

// A job keeps to its own rate and to its part of its parents', which is shared by their children
// that run.
static int64_t
s_rate_of(const lade_shares_t *self, const lade_job_t *job)
{
    int64_t rate = job->bytes_per_s;
    for (int depth = 0; depth < S_MAX_DEPTH; depth++) {
        job = lade_jobs_live(self->broker->jobs, job->parent);
        if (!job)
            break;
        int64_t part = job->lanes > 1 ? job->bytes_per_s / job->lanes : job->bytes_per_s;
        part += job->bytes_per_s && !part;
        if (part && (!rate || part < rate))
            rate = part;
    }
    return rate;
}

// ---------------------------------------------------------------------------------------------------
// Telling

// The closed gate that holds the claim's requests longest; NULL if none does.
static const lade_gate_t *
s_held_by(const lade_shares_t *self, const lade_claim_t *claim)
{
    const lade_gate_t *held = NULL;
    for (size_t i = 0; i < claim->gate_count; i++) {
        const lade_gate_t *gate = claim->gates[i].gate;
        if (gate->closed_until_ms > self->broker->mono_ms &&
            (!held || gate->closed_until_ms > held->closed_until_ms))
            held = gate;
    }
    return held;
}

// Takes what the claim's terms are now; it is to be told if they are others.
static void
s_take_news(lade_shares_t *self, lade_claim_t *claim)
{
    const lade_gate_t *held = s_held_by(self, claim);
    int64_t bytes_per_s = s_rate_of(self, claim->job), hold_ms = held ? held->closed_until_ms : 0;
    bool over = !hold_ms && claim->hold_ms <= self->broker->mono_ms; // it ends by itself
    if (bytes_per_s != claim->bytes_per_s || (hold_ms != claim->hold_ms && !over) ||
        claim->preserve != claim->job->preserve)
        claim->told = false;
    claim->preserve = claim->job->preserve;
    claim->bytes_per_s = bytes_per_s;
    claim->hold_ms = hold_ms;
    if (claim->told || claim->unsent)
        return;
    claim->told = true;
    claim->next = claim->worker->share.untold;
    claim->worker->share.untold = claim;
}

static size_t
s_pairs(const lade_claim_t *claim)
{
    return 1 + (claim->granted > 0) + (claim->bytes_per_s > 0) + (claim->hold_ms > 0) +
           (claim->preserve != 0);
}

static void
s_put(const lade_shares_t *self, const lade_claim_t *claim, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "serial");
    lade_put_int(buf, claim->serial);
    if (claim->granted) {
        LADE_PUT_KEY(buf, "connections");
        lade_put_int(buf, claim->granted);
    }
    if (claim->bytes_per_s) {
        LADE_PUT_KEY(buf, "bytes_per_s");
        lade_put_int(buf, claim->bytes_per_s);
    }
    if (claim->hold_ms) {
        LADE_PUT_KEY(buf, "hold_s");
        lade_put_real(buf, (double)(claim->hold_ms - self->broker->mono_ms) / 1e3);
    }
    if (claim->preserve) {
        LADE_PUT_KEY(buf, "preserve_partial_downloads");
        lade_put_bool(buf, claim->preserve > 0);
    }
}

static void
s_tell(lade_shares_t *self, lade_worker_t *worker)
{
    bool share = worker->share.told != worker->share.bytes_per_s;
    size_t count = 0;
    for (const lade_claim_t *at = worker->share.untold; at; at = at->next)
        count++;
    if (!share && !count)
        return;
    lade_buf_t *buf =
        lade_outbox_to_worker(self->broker->outbox, worker->peer, worker->peer_len, LADE_W_TERMS);
    lade_put_map(buf, 1 + share);
    if (share) {
        LADE_PUT_KEY(buf, "bytes_per_s");
        lade_put_int(buf, worker->share.bytes_per_s);
    }
    LADE_PUT_KEY(buf, "jobs");
    lade_put_array(buf, count);
    for (const lade_claim_t *at = worker->share.untold; at; at = at->next) {
        lade_put_map(buf, 2 + s_pairs(at));
        LADE_PUT_KEY(buf, "id");
        lade_put_uint(buf, at->job->id);
        LADE_PUT_KEY(buf, "attempt");
        lade_put_int(buf, at->job->attempt);
        s_put(self, at, buf);
    }
    lade_outbox_end(self->broker->outbox);
    worker->share.told = worker->share.bytes_per_s;
    worker->share.untold = NULL;
}

void
lade_shares_settle(lade_shares_t *self)
{
    if (!self->dirty)
        return;
    self->dirty = false;
    self->stamp++;
    s_aim(self);
    for (size_t i = 0; i < self->count; i++)
        if (s_takes_terms(self->claims[i]))
            s_lower(self, self->claims[i]);
    for (size_t i = 0; i < self->count; i++)
        if (s_takes_terms(self->claims[i])) {
            s_raise(self, self->claims[i]);
            s_count_lanes(self, self->claims[i]->job);
        }
    s_split(self);
    for (size_t i = 0; i < self->count; i++)
        if (s_takes_terms(self->claims[i]))
            s_take_news(self, self->claims[i]);
    for (size_t i = 0; i < self->user_count; i++)
        s_tell(self, self->users[i]);
}

size_t
lade_shares_pairs(const lade_job_t *job)
{
    return job->claim && job->claim->elastic ? s_pairs(job->claim) : 0;
}

void
lade_shares_put(lade_shares_t *self, const lade_job_t *job, lade_buf_t *buf)
{
    lade_claim_t *claim = job->claim;
    if (!claim)
        return;
    if (claim->elastic)
        s_put(self, claim, buf);
    claim->unsent = false;
    claim->told = true;
}

// ---------------------------------------------------------------------------------------------------
// Saying

static void s_say(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Adds a clause.
static void
s_say(char *text, size_t size, const char *format, ...)
{
    size_t len = strlen(text);
    len += (size_t)snprintf(text + len, size - len, "%s", len ? "; " : "");
    va_list args;
    va_start(args, format);
    if (len < size)
        vsnprintf(text + len, size - len, format, args);
    va_end(args);
}

void
lade_shares_say(const lade_shares_t *self, const lade_job_t *job, char *text, size_t size)
{
    const lade_claim_t *claim = job->claim;
    *text = '\0';
    if (!claim || !s_takes_terms(claim))
        return;
    const lade_gate_t *held = s_held_by(self, claim);
    if (held)
        s_say(text, size, "begins no request for %.1f seconds more, gate %s is closed: %.400s",
              (double)(held->closed_until_ms - self->broker->mono_ms) / 1e3, held->name,
              held->reason);
    if (claim->granted && claim->counted != claim->granted)
        s_say(text, size, "is to keep to %" PRId64 " connections and has not said yet that it does",
              claim->granted);
    else if (claim->granted)
        s_say(text, size, "may have %" PRId64 " connections", claim->granted);
    if (claim->bytes_per_s)
        s_say(text, size, "may read %" PRId64 " bytes a second", claim->bytes_per_s);
    if (self->bytes_per_s)
        s_say(text, size,
              "its worker may read %" PRId64 " of the farm's %" PRId64 " bytes a second",
              claim->worker->share.bytes_per_s, self->bytes_per_s);
}

void
lade_shares_destroy(lade_shares_t **self_p)
{
    lade_shares_t *self = *self_p;
    if (!self)
        return;
    s_forget(self);
    free(self->claims);
    free(self->scratch);
    free(self->users);
    free(self->parts);
    free(self);
    *self_p = NULL;
}
