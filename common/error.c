// Errors: one table of codes, and the helpers that fill a lade_error_t.
#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    enum { S_NEVER, S_AGAIN, S_WAITS } retry;
    int exit;
    const char *help;
} s_codes[] = {
    // clang-format off
    [LADE_OK]                   = {"ok",                 S_NEVER, 0, "Done."},
    [LADE_UNKNOWN_MODEL]        = {"UnknownModel",       S_NEVER, 3, "No record has that key or those attributes; `lade ls` shows what there is."},
    [LADE_DUPLICATE_MODEL]      = {"DuplicateModel",     S_NEVER, 1, "A record with that key or path exists, or several match where one was meant."},
    [LADE_INVALID_MODEL_CONFIG] = {"InvalidModelConfig", S_NEVER, 1, "The file or folder is no model lade knows, or a field of the record is wrong; `lade probe` shows what is seen."},
    [LADE_UNKNOWN_JOB_ID]       = {"UnknownJobID",       S_NEVER, 3, "No job has that id; ended jobs go when pruned."},
    [LADE_MODEL_NOT_FOUND]      = {"ModelNotFound",      S_NEVER, 3, "The record is there, its files are not: put them back or remove the record."},
    [LADE_NOT_IMPLEMENTED]      = {"NotImplemented",     S_NEVER, 1, "No loader is registered for this base, type and format."},
    [LADE_TIMEOUT]              = {"Timeout",            S_AGAIN, 1, "It did not end in the time given; it goes on, ask again."},
    [LADE_VALUE_ERROR]          = {"ValueError",         S_NEVER, 2, "An argument has a value it cannot have; the message names it."},
    [LADE_UNKNOWN_METADATA]     = {"UnknownMetadata",    S_NEVER, 3, "The hub has no such repository or page, or the token may not see it."},
    [LADE_UNKNOWN_REVISION]     = {"unknown_revision",   S_NEVER, 3, "The repository has no such branch, tag or commit: name another, or none for the newest."},
    [LADE_BAD_REQUEST]          = {"bad_request",        S_NEVER, 2, "The request is not of the form broker/README.md describes."},
    [LADE_UNKNOWN_SERVICE]      = {"unknown_service",    S_NEVER, 2, "No such service; mmi.service answers which exist."},
    [LADE_UNKNOWN_OP]           = {"unknown_op",         S_NEVER, 2, "The service has no such op; broker/README.md lists them."},
    [LADE_TOO_LARGE]            = {"too_large",          S_NEVER, 1, "Over a ceiling (message size, msgpack depth, header size); the message names it."},
    [LADE_QUEUE_FULL]           = {"queue_full",         S_AGAIN, 1, "broker.max_queue jobs are waiting: submit again later, or raise it."},
    [LADE_TOO_OLD]              = {"too_old",            S_NEVER, 1, "The journal no longer holds that sequence number: take events.snapshot and go on from its seq."},
    [LADE_BROKER_UNREACHABLE]   = {"broker_unreachable", S_AGAIN, 4, "No broker answers there: start one with `lade up`, or give --broker."},
    [LADE_USAGE]                = {"usage",              S_NEVER, 2, "The command was given wrongly; see --help."},
    [LADE_CANCELLED]            = {"cancelled",          S_NEVER, 1, "Somebody cancelled the job."},
    [LADE_PAUSED]               = {"paused",             S_NEVER, 1, "The job is paused; `lade resume ID` goes on where it stopped."},
    [LADE_STALE_LEASE]          = {"stale_lease",        S_NEVER, 1, "The attempt is over: the job was given to another worker, or it ended."},
    [LADE_WORKER_LOST]          = {"worker_lost",        S_AGAIN, 1, "The worker died or went silent; after broker.max_deaths such ends the job is dead. Look at the worker's log, then `lade retry ID`."},
    [LADE_CHILD_FAILED]         = {"child_failed",       S_NEVER, 1, "A job this one waited for did not complete; its own error says why."},
    [LADE_NETWORK]              = {"network",            S_AGAIN, 1, "The server could not be reached or the connection broke."},
    [LADE_HTTP_ERROR]           = {"http_error",         S_NEVER, 1, "The server refused; the message has its status."},
    [LADE_RATE_LIMITED]         = {"rate_limited",       S_WAITS,  1, "The server asks to wait; the job goes on by itself when the time has passed."},
    [LADE_AUTH_REQUIRED]        = {"auth_required",      S_NEVER, 5, "The source wants an access token: --token, remote_api_tokens, HF_TOKEN, hub.token or civitai.token."},
    [LADE_AUTH_DENIED]          = {"auth_denied",        S_NEVER, 5, "The token may not read this source."},
    [LADE_LICENSE_GATE]         = {"license_gate",       S_NEVER, 5, "The repository is gated: accept its terms on its page with the account of the token."},
    [LADE_NOT_FOUND]            = {"not_found",          S_NEVER, 3, "There is nothing at that URL or path."},
    [LADE_DIGEST_MISMATCH]      = {"digest_mismatch",    S_NEVER, 1, "The bytes are not those the digest names; nothing was published."},
    [LADE_SIZE_MISMATCH]        = {"size_mismatch",      S_AGAIN, 1, "The size is not the announced one; nothing was published."},
    [LADE_STALLED]              = {"stalled",            S_AGAIN, 1, "No byte came for download.stall_s seconds; it is tried again."},
    [LADE_RANGE_REFUSED]        = {"range_refused",      S_AGAIN, 1, "The server does not resume; the file is fetched from its start."},
    [LADE_NOT_A_MODEL]          = {"not_a_model",        S_NEVER, 1, "What came is a page or another thing, no model; often a token is needed."},
    [LADE_UNSAFE_FILE]          = {"unsafe_file",        S_NEVER, 1, "The file could run code when loaded; lade will not."},
    [LADE_UNSAFE_URL]           = {"unsafe_url",         S_NEVER, 5, "The URL, or where it leads, is inside a network and not public; an operator can allow it with download.allow_addresses."},
    [LADE_EXISTS]               = {"exists",             S_NEVER, 1, "Something else has that name already; remove it or choose another."},
    [LADE_OFFLINE]              = {"offline",            S_NEVER, 1, "HF_HUB_OFFLINE is set and what is asked for is not here."},
    [LADE_NO_SPACE]             = {"no_space",           S_WAITS,  1, "The disk is full: make room; what was fetched is kept."},
    [LADE_IO_ERROR]             = {"io_error",           S_NEVER, 1, "Reading or writing failed; the message has the system's words."},
    [LADE_NO_MEMORY]            = {"no_memory",          S_NEVER, 1, "It does not fit into load.cache_mb, or all of it is locked."},
    [LADE_NO_VRAM]              = {"no_vram",            S_NEVER, 1, "There is no such device here, it does not fit into load.vram_mb, or all of that is locked."},
    [LADE_STALE_RECORD]         = {"stale_record",       S_NEVER, 1, "The record was changed since it was read: read it again and repeat the change."},
    [LADE_BUSY]                 = {"busy",               S_AGAIN, 1, "Somebody else holds it; try again."},
    [LADE_CORRUPT]              = {"corrupt",            S_NEVER, 1, "The data is not what it says it is."},
    [LADE_SCHEMA_TOO_NEW]       = {"schema_too_new",     S_NEVER, 1, "A newer lade wrote this keyspace: use that version or newer."},
    [LADE_CONFIG_ERROR]         = {"config_error",       S_NEVER, 2, "A setting is unknown or wrong; the message has file and line."},
    [LADE_INTERNAL]             = {"internal",           S_NEVER, 1, "A mistake in lade itself; please report it with the log."},
    // clang-format on
};
_Static_assert(sizeof s_codes / sizeof *s_codes == LADE_CODE_COUNT, "a code has no row");

// Bytes of the UTF-8 character at text; 0 if there is none that a terminal or a strict reader of
// msgpack should get.
static size_t
s_char(const unsigned char *text)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t lowest;
    } forms[] = {
        {0x80, 0x00, 0x20}, {0xe0, 0xc0, 0xa0}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t more = 0; more < 4; more++) {
        if ((*text & forms[more].mask) != forms[more].lead)
            continue;
        uint32_t point = *text & (unsigned char)~forms[more].mask;
        for (size_t i = 1; i <= more; i++) {
            if ((text[i] & 0xc0) != 0x80) // also the NUL at the end
                return 0;
            point = point << 6 | (text[i] & 0x3f);
        }
        bool fine = point >= forms[more].lowest && point <= 0x10ffff && (point & ~0x7ffu) != 0xd800;
        return (fine && point != 0x7f) || point == '\n' || point == '\t' ? more + 1 : 0;
    }
    return 0;
}

// A sentence may quote what a peer sent and be cut anywhere: what is no text in it becomes '?'.
static void
s_clean(char *message)
{
    for (size_t len; *message; message += len) {
        len = s_char((unsigned char *)message);
        if (!len) {
            *message = '?';
            len = 1;
        }
    }
}

__attribute__((format(printf, 3, 0))) static lade_code_t
s_fill(lade_error_t *error, lade_code_t code, const char *format, va_list args)
{
    if (error) {
        error->code = code;
        vsnprintf(error->message, sizeof error->message, format, args);
        s_clean(error->message);
    }
    return code;
}

lade_code_t
lade_error_set(lade_error_t *error, lade_code_t code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    s_fill(error, code, format, args);
    va_end(args);
    return code;
}

static lade_code_t
s_code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return LADE_NO_SPACE;
    case ENOENT:
        return LADE_NOT_FOUND;
    case EEXIST:
        return LADE_EXISTS;
    case ENOMEM:
        return LADE_NO_MEMORY;
    default:
        return LADE_IO_ERROR;
    }
}

lade_code_t
lade_error_errno(lade_error_t *error, int errnum, const char *format, ...)
{
    lade_code_t code = s_code_of_errno(errnum);
    va_list args;
    va_start(args, format);
    s_fill(error, code, format, args);
    va_end(args);
    if (error) {
        size_t len = strlen(error->message);
        char words[128];
        snprintf(error->message + len, sizeof error->message - len, ": %s",
                 strerror_r(errnum, words, sizeof words));
        s_clean(error->message);
    }
    return code;
}

lade_code_t
lade_error_wrap(lade_error_t *error, const char *format, ...)
{
    if (!error)
        return LADE_INTERNAL;
    char before[sizeof error->message];
    snprintf(before, sizeof before, "%s", error->message);
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    size_t len = strlen(error->message);
    snprintf(error->message + len, sizeof error->message - len, ": %s", before);
    s_clean(error->message);
    return error->code;
}

const char *
lade_code_name(lade_code_t code)
{
    return (unsigned)code < LADE_CODE_COUNT ? s_codes[code].name : "internal";
}

const char *
lade_code_help(lade_code_t code)
{
    return s_codes[(unsigned)code < LADE_CODE_COUNT ? code : LADE_INTERNAL].help;
}

bool
lade_code_retry(lade_code_t code)
{
    return (unsigned)code < LADE_CODE_COUNT && s_codes[code].retry != S_NEVER;
}

bool
lade_code_waits(lade_code_t code)
{
    return (unsigned)code < LADE_CODE_COUNT && s_codes[code].retry == S_WAITS;
}

int
lade_code_exit(lade_code_t code)
{
    return (unsigned)code < LADE_CODE_COUNT ? s_codes[code].exit : 1;
}

lade_code_t
lade_code_find(const char *name)
{
    for (int code = 0; name && code < LADE_CODE_COUNT; code++)
        if (strcmp(s_codes[code].name, name) == 0)
            return (lade_code_t)code;
    return LADE_INTERNAL;
}
