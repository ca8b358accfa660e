#include "workers/download/tune.h"

enum {
    S_NEAR = 4, // connections to begin with
    S_FAR = 8,
    S_FAR_MS = 5,
    S_STEP_MS = 300,
    S_PAUSE_MS = 1000, // after a growth in vain; doubles
    S_MOST_PAUSE_MS = 16000,
};

static const double S_GAIN = 1.15;   // a growth that brings less was one too many
static const double S_LOSS = 0.8;    // taking it back cost more than this: it was good after all
static const double S_IDLE = 0.2;    // of our time; with less we are the limit, not the network
static const double S_BLOCKED = 0.1; // of our time: the disk or the digest is

void
lade_tune_start(lade_tune_t *self, int64_t latency_ms, int64_t now_ms, int64_t bytes)
{
    *self = (lade_tune_t){.want = latency_ms > S_FAR_MS ? S_FAR : S_NEAR,
                          .since_ms = now_ms,
                          .bytes = bytes,
                          .pause_ms = S_PAUSE_MS};
}

static void
s_grow(lade_tune_t *self, double rate, size_t most)
{
    self->before = self->want;
    self->want = self->want * 2 < most ? self->want * 2 : most;
    self->rate = rate;
    self->tried = 0;
}

static void
s_shrink(lade_tune_t *self)
{
    self->want = self->want > 1 ? self->want / 2 : 1;
    self->before = 0;
    self->tried = 0;
}

static void
s_take_back(lade_tune_t *self, double rate, int64_t now_ms)
{
    self->want = self->before;
    self->before = 0;
    self->tried = rate;
    self->again_ms = now_ms + self->pause_ms;
    self->pause_ms = self->pause_ms * 2 < S_MOST_PAUSE_MS ? self->pause_ms * 2 : S_MOST_PAUSE_MS;
}

static void
s_decide(lade_tune_t *self, const lade_tune_facts_t *facts, double rate)
{
    bool can_grow =
        facts->idle_share > S_IDLE && facts->open >= self->want && self->want < facts->most;
    if (facts->limited)
        self->before = 0;
    else if (facts->blocked_share > S_BLOCKED)
        s_shrink(self);
    else if (self->before && rate < self->rate * S_GAIN)
        s_take_back(self, rate, facts->now_ms);
    else if (can_grow && (self->before || facts->now_ms >= self->again_ms ||
                          (self->tried > 0 && rate < self->tried * S_LOSS)))
        s_grow(self, rate, facts->most);
    else
        self->before = 0;
}

void
lade_tune_step(lade_tune_t *self, const lade_tune_facts_t *facts)
{
    int64_t ms = facts->now_ms - self->since_ms;
    if (!self->want || ms < S_STEP_MS)
        return;
    double rate = (double)(facts->bytes - self->bytes) * 1000 / (double)ms;
    self->each = facts->open ? rate / (double)facts->open : 0;
    s_decide(self, facts, rate);
    self->since_ms = facts->now_ms;
    self->bytes = facts->bytes;
}
