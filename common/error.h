// The one error type of lade: a code to branch on and a sentence to show.
//
// Every fallible call returns lade_code_t (LADE_OK is 0) and takes lade_error_t *error last. The
// sentence says what happened and what to do about it; whoever learns the fact writes it, callers
// put their words in front with lade_error_wrap.
#ifndef LADE_ERROR_H
#define LADE_ERROR_H

#include <stdbool.h>

#pragma GCC visibility push(default) // part of liblade: client/lade.h includes this file

// The closed list of codes. Their wire names, what they mean, whether the same job could succeed
// later unchanged, and the exit status they give a command are the columns of one table in error.c.
typedef enum {
    LADE_OK = 0,
    // The seed's exceptions, on the wire without "Exception".
    LADE_UNKNOWN_MODEL,
    LADE_DUPLICATE_MODEL,
    LADE_INVALID_MODEL_CONFIG,
    LADE_UNKNOWN_JOB_ID,
    LADE_MODEL_NOT_FOUND,
    LADE_NOT_IMPLEMENTED,
    LADE_TIMEOUT,
    LADE_VALUE_ERROR,
    LADE_UNKNOWN_METADATA,
    LADE_UNKNOWN_REVISION,
    // Requests.
    LADE_BAD_REQUEST,
    LADE_UNKNOWN_SERVICE,
    LADE_UNKNOWN_OP,
    LADE_TOO_LARGE,
    LADE_QUEUE_FULL,
    LADE_TOO_OLD,
    LADE_BROKER_UNREACHABLE,
    LADE_USAGE,
    // Jobs.
    LADE_CANCELLED,
    LADE_PAUSED,
    LADE_STALE_LEASE,
    LADE_WORKER_LOST,
    LADE_CHILD_FAILED,
    // Transfers.
    LADE_NETWORK,
    LADE_HTTP_ERROR,
    LADE_RATE_LIMITED,
    LADE_AUTH_REQUIRED,
    LADE_AUTH_DENIED,
    LADE_LICENSE_GATE,
    LADE_NOT_FOUND,
    LADE_DIGEST_MISMATCH,
    LADE_SIZE_MISMATCH,
    LADE_STALLED,
    LADE_RANGE_REFUSED,
    LADE_NOT_A_MODEL,
    LADE_UNSAFE_FILE,
    LADE_UNSAFE_URL,
    LADE_EXISTS,
    LADE_OFFLINE,
    // The machine.
    LADE_NO_SPACE,
    LADE_IO_ERROR,
    LADE_NO_MEMORY,
    LADE_NO_VRAM,
    LADE_STALE_RECORD,
    LADE_BUSY,
    LADE_CORRUPT,
    LADE_SCHEMA_TOO_NEW,
    LADE_CONFIG_ERROR,
    LADE_INTERNAL,
    LADE_CODE_COUNT
} lade_code_t;

typedef struct {
    lade_code_t code;
    char message[512]; // always ended by a NUL; cut, never overflowed
} lade_error_t;

// Fills *error (which may be NULL) and returns code, so noticing, saying and returning are one
// statement.
lade_code_t lade_error_set(lade_error_t *error, lade_code_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// As lade_error_set for a failed system call: ": <strerror(errnum)>" is put after the words, and
// the code follows errnum (ENOSPC and EDQUOT no_space, ENOENT not_found, ENOMEM no_memory, else
// io_error).
lade_code_t lade_error_errno(lade_error_t *error, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Puts words and ": " in front of the sentence that is already there. Returns error->code.
lade_code_t lade_error_wrap(lade_error_t *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// The name on the wire, in logs and in --json: "UnknownModel", "queue_full". Never NULL.
const char *lade_code_name(lade_code_t code);

// One line on what the code means and what to do; the README's table shows it. Never NULL.
const char *lade_code_help(lade_code_t code);

// True if the same job may succeed later, unchanged.
bool lade_code_retry(lade_code_t code);

// True if the failure is none of the job's: it waits for something and uses up none of its
// attempts.
bool lade_code_waits(lade_code_t code);

// The exit status of a command that failed with this code (README, "Exit status").
int lade_code_exit(lade_code_t code);

// The code with that wire name, LADE_INTERNAL for a name not in the list.
lade_code_t lade_code_find(const char *name);

#pragma GCC visibility pop

#endif
