// What an answer means: one function a status, and one place that checks the first good answer.
#include "common/path.h"
#include "workers/download/engine_private.h"
#include "workers/download/verdict.h"

#include <czmq.h>
#include <inttypes.h>
#include <strings.h>

static const char s_page_words[] =
    "sent a web page instead of the file; it may want a login or a token";

static lade_answer_t
s_refuse(lade_part_t *part, lade_code_t code, const char *words)
{
    lade_error_set(&part->error, code, "%s %s", part->host, words);
    return LADE_ANSWER_REFUSED;
}

static lade_answer_t
s_redo(lade_part_t *part, lade_redo_t redo)
{
    if (redo > part->transfer->redo)
        part->transfer->redo = redo;
    return LADE_ANSWER_REDO;
}

// Moves the end of what the part fetches; -1: open.
static void
s_set_end(lade_part_t *part, int64_t to)
{
    lade_ranges_t *claimed = &part->transfer->claimed;
    lade_ranges_remove(claimed, part->at, part->to < 0 ? INT64_MAX / 2 : part->to);
    part->to = to;
    lade_ranges_add(claimed, part->at, to < 0 ? INT64_MAX / 2 : to);
}

// ---------------------------------------------------------------------------------------------------
// Versions of the file

static bool
s_is_strong(const char *etag)
{
    return etag && etag[0] == '"';
}

// Whether the answer is of another version than the bytes we have: by the ETags if both are strong,
// else by the dates. A server that knows no If-Range sends the rest of any version.
static bool
s_is_other_version(const lade_part_t *part)
{
    const lade_journal_t *journal = &part->transfer->journal;
    const lade_headers_t *headers = &part->headers;
    const char *had = journal->last_modified, *has = headers->last_modified;
    if (s_is_strong(journal->etag) && s_is_strong(headers->etag))
        return strcmp(journal->etag, headers->etag) != 0;
    return had && has && strcmp(had, has) != 0;
}

// Whether the answer says itself that it is of the version we have.
static bool
s_is_same_version(const lade_part_t *part)
{
    const lade_journal_t *journal = &part->transfer->journal;
    const lade_headers_t *headers = &part->headers;
    bool known = (journal->etag && headers->etag && strcmp(journal->etag, headers->etag) == 0) ||
                 (journal->last_modified && headers->last_modified &&
                  strcmp(journal->last_modified, headers->last_modified) == 0);
    return known && !s_is_other_version(part) &&
           (journal->total < 0 || headers->length < 0 || headers->length == journal->total);
}

// Whether ranges fetched by several requests can be trusted to be of one version.
static bool
s_can_tell(const lade_part_t *part)
{
    return part->transfer->sha256 ||
           lade_headers_validator(part->headers.etag, part->headers.last_modified);
}

// Asks in another way from now on. Of several requests that were out together the first answer
// counts: the others will say the same.
static lade_answer_t
s_again(lade_transfer_t *transfer)
{
    for (lade_part_t *part = transfer->parts; part; part = part->next)
        part->outdated |= part->answer == LADE_ANSWER_NONE;
    transfer->strikes++;
    return LADE_ANSWER_AGAIN;
}

// Takes the next way to say If-Range; all is asked for if there is none left. To say nothing only a
// digest allows.
static lade_answer_t
s_step_down(lade_part_t *part)
{
    lade_transfer_t *transfer = part->transfer;
    const lade_journal_t *journal = &transfer->journal;
    if (part->outdated)
        return LADE_ANSWER_AGAIN;
    bool date =
        transfer->if_range == LADE_IF_ETAG && journal->last_modified && s_is_strong(journal->etag);
    if (!date && (transfer->if_range == LADE_IF_NOTHING || !transfer->sha256))
        return s_redo(part, LADE_REDO_WHOLE);
    transfer->if_range = date ? LADE_IF_DATE : LADE_IF_NOTHING;
    return s_again(transfer);
}

// ---------------------------------------------------------------------------------------------------
// One function a status

// 200: all bytes from the first, whether asked for or not.
static lade_answer_t
s_judge_all(lade_part_t *part)
{
    lade_transfer_t *transfer = part->transfer;
    bool first = part->from == 0 && transfer->written.bytes == 0 && transfer->part_count == 1;
    if (part->ranged && !first) {
        if (!s_is_same_version(part))
            return s_redo(part, LADE_REDO_RANGES); // If-Range did what it is for
        return s_step_down(part);
    }
    transfer->whole = true;
    transfer->journal.total = part->headers.length;
    s_set_end(part, part->headers.length);
    return LADE_ANSWER_TAKE;
}

// 206: only good if it is of the version we have and begins where it was asked to. It may end
// before.
static lade_answer_t
s_judge_some(lade_part_t *part)
{
    lade_transfer_t *transfer = part->transfer;
    const lade_headers_t *headers = &part->headers;
    if (!part->ranged)
        return s_refuse(part, LADE_HTTP_ERROR, "answered 206 to a request for the whole file");
    if (headers->range_start != part->from || headers->total < 0)
        return s_redo(part, LADE_REDO_WHOLE);
    if (transfer->journal.total >= 0 && headers->total != transfer->journal.total)
        return s_redo(part, LADE_REDO_RANGES);
    if (s_is_other_version(part))
        return s_redo(part, LADE_REDO_RANGES);
    int64_t end = part->to < 0 || headers->range_end < part->to ? headers->range_end : part->to;
    if (end < headers->total && !s_can_tell(part))
        return s_redo(part, LADE_REDO_WHOLE);
    transfer->journal.total = headers->total;
    s_set_end(part, end);
    return LADE_ANSWER_TAKE;
}

// 416: there is nothing at all, or we have all there is, or the file has become shorter.
static lade_answer_t
s_judge_past_end(lade_part_t *part)
{
    lade_transfer_t *transfer = part->transfer;
    int64_t total = part->headers.total >= 0 ? part->headers.total : transfer->size;
    if (!part->ranged)
        return s_refuse(part, LADE_HTTP_ERROR, "answered 416 to a request for the whole file");
    bool all =
        total == part->from && (transfer->journal.total < 0 || transfer->journal.total == total);
    if (!all)
        return s_redo(part, LADE_REDO_WHOLE);
    transfer->journal.total = total;
    return LADE_ANSWER_WHOLE;
}

static lade_answer_t
s_judge_redirect(lade_part_t *part)
{
    (void)part; // where to is known when libcurl is through with it
    return LADE_ANSWER_REDIRECT;
}

// Signed addresses run out: then the one that led there is asked again.
static bool
s_has_run_out(const lade_part_t *part)
{
    static const int statuses[] = {400, 401, 403, 404, 410};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i] == part->headers.status)
            return part->direct;
    return false;
}

static lade_answer_t
s_judge_failure(lade_part_t *part)
{
    lade_transfer_t *transfer = part->transfer;
    const lade_verdict_facts_t facts = {
        .host = part->host, .detail = "", .connected = true, .token = part->token};
    if (s_has_run_out(part)) {
        if (part->outdated)
            return LADE_ANSWER_AGAIN;
        free(transfer->direct_url);
        transfer->direct_url = NULL;
        return s_again(transfer);
    }
    lade_verdict_status(&part->headers, &facts, &part->error);
    transfer->retry_after_s = part->headers.retry_after_s >= 0        ? part->headers.retry_after_s
                              : part->error.code == LADE_RATE_LIMITED ? part->headers.reset_s
                                                                      : -1;
    return LADE_ANSWER_REFUSED;
}

static const struct {
    int status;
    lade_answer_t (*judge)(lade_part_t *part);
} s_judges[] = {
    // clang-format off
    {200, s_judge_all},
    {203, s_judge_all},
    {206, s_judge_some},
    {301, s_judge_redirect},
    {302, s_judge_redirect},
    {303, s_judge_redirect},
    {307, s_judge_redirect},
    {308, s_judge_redirect},
    {416, s_judge_past_end},
    // clang-format on
};

// ---------------------------------------------------------------------------------------------------
// The first good answer

static void
s_replace(char **where, const char *text)
{
    if (!text)
        return;
    free(*where);
    *where = strdup(text);
}

static void
s_learn(lade_part_t *part)
{
    const lade_headers_t *headers = &part->headers;
    lade_journal_t *journal = &part->transfer->journal;
    s_replace(&journal->etag, headers->etag);
    s_replace(&journal->last_modified, headers->last_modified);
    s_replace(&journal->content_type, headers->content_type);
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

static bool
s_is_page(const char *type)
{
    return type && (strcmp(type, "text/html") == 0 || strcmp(type, "application/xhtml+xml") == 0);
}

// What has to be so before the first byte of a good answer is written.
static lade_answer_t
s_check(lade_part_t *part, lade_answer_t answer)
{
    lade_transfer_t *transfer = part->transfer;
    const lade_journal_t *journal = &transfer->journal;
    bool compare = false;
    if (transfer->size >= 0 && journal->total >= 0 && journal->total != transfer->size) {
        if (s_is_page(journal->content_type)) // says more than its size does
            return s_refuse(part, LADE_NOT_A_MODEL, s_page_words);
        lade_error_set(&part->error, LADE_SIZE_MISMATCH,
                       "%s has a file of %" PRId64 " bytes, %" PRId64 " were announced", part->host,
                       journal->total, transfer->size);
        return LADE_ANSWER_REFUSED;
    }
    if (lade_transfer_name(transfer, part->headers.filename, &part->error))
        return LADE_ANSWER_REFUSED;
    if (s_is_page(journal->content_type) && s_is_weights(journal->name))
        return s_refuse(part, LADE_NOT_A_MODEL, s_page_words);
    if (lade_transfer_check_taken(transfer, &compare, &part->error))
        return LADE_ANSWER_REFUSED;
    return compare ? s_redo(part, LADE_REDO_COMPARE) : answer;
}

lade_answer_t
lade_answer_judge(lade_part_t *part)
{
    lade_answer_t (*judge)(lade_part_t * part) = s_judge_failure;
    for (size_t i = 0; i < sizeof s_judges / sizeof *s_judges; i++)
        if (s_judges[i].status == part->headers.status)
            judge = s_judges[i].judge;
    lade_answer_t answer = judge(part);
    if (answer != LADE_ANSWER_TAKE && answer != LADE_ANSWER_WHOLE)
        return answer;
    if (part->headers.encoded)
        return s_refuse(part, LADE_HTTP_ERROR,
                        "sends the file encoded, though it was asked not to");
    if (answer == LADE_ANSWER_TAKE)
        s_learn(part);
    return part->transfer->answered ? answer : s_check(part, answer);
}

char *
lade_answer_public_url(const char *url)
{
    static const CURLUPart secrets[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY,
                                        CURLUPART_FRAGMENT};
    CURLU *parsed = curl_url();
    char *text = NULL, *copy = NULL;
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
