// How many connections a transfer is worth: doubled as long as that makes it faster, halved while
// the disk or the digest is what everything waits for. Pure arithmetic on what was measured; one
// step every so many milliseconds.
#ifndef LADE_TUNE_H
#define LADE_TUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t want;             // connections; 0: not begun
    size_t before;           // what they were before the growth that is on trial; 0: none is
    double rate;             // bytes a second before that growth
    double tried;            // with a growth that was taken back; 0: not lately
    double each;             // bytes a second of one connection, lately; 0: not known
    int64_t since_ms, bytes; // of the last step
    int64_t again_ms,
        pause_ms; // when to grow again; how long it is waited after the next growth in vain
} lade_tune_t;

// What is measured. Times are monotonic.
typedef struct {
    int64_t now_ms, bytes; // that came in all
    size_t open, most;     // connections there are, and may be
    double idle_share;     // of our thread's time
    double blocked_share;  // of its time in which bytes were held up by the disk or the digest
    bool limited;          // a rate is set: more connections bring nothing
} lade_tune_facts_t;

// Begins. latency_ms: between a request and the first byte of its answer; a near server needs
// fewer.
void lade_tune_start(lade_tune_t *self, int64_t latency_ms, int64_t now_ms, int64_t bytes);

// Looks whether want should be another. Does nothing before it is time.
void lade_tune_step(lade_tune_t *self, const lade_tune_facts_t *facts);

#endif
