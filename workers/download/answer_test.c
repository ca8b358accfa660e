// What an answer means for the bytes that are there already: made-up requests and answers.
#include "workers/download/engine_private.h"

#include <czmq.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S_SHA256 "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define S_MONDAY "Mon, 06 Jan 2025 00:00:00 GMT"
#define S_TUESDAY "Tue, 07 Jan 2025 00:00:00 GMT"

enum { S_TOTAL = 10, S_HAVE = 5 }; // bytes of the file; those of them that are there

typedef struct {
    lade_transfer_t *transfer;
    lade_part_t part;
} s_asked_t;

// A request for from..to; bytes before from are there.
static s_asked_t *
s_ask(const char *sha256, int64_t from, int64_t to)
{
    const char *const urls[] = {"http://a/m.bin", NULL};
    const lade_request_t request = {.urls = urls,
                                    .destdir = "/nowhere",
                                    .filename = "m.bin",
                                    .sha256 = sha256,
                                    .size = -1,
                                    .attempt = 1};
    s_asked_t *asked = zmalloc(sizeof *asked);
    lade_transfer_t *transfer = asked->transfer = lade_transfer_new(&request);
    lade_part_t *part = &asked->part;
    assert_int_equal(lade_transfer_check(transfer, NULL), LADE_OK);
    *part = (lade_part_t){.transfer = transfer,
                          .host = "a",
                          .ranged = to >= 0 || from > 0,
                          .from = from,
                          .at = from,
                          .to = to,
                          .headers = LADE_HEADERS_NONE};
    transfer->parts = part;
    transfer->part_count = 1;
    lade_ranges_add(&transfer->written, 0, from);
    lade_ranges_add(&transfer->claimed, 0, to < 0 ? INT64_MAX / 2 : to);
    return asked;
}

// A request for the rest of a file that is known by these validators.
static s_asked_t *
s_ask_rest(const char *sha256, const char *etag, const char *modified)
{
    s_asked_t *asked = s_ask(sha256, S_HAVE, S_TOTAL);
    lade_journal_t *journal = &asked->transfer->journal;
    journal->etag = etag ? strdup(etag) : NULL;
    journal->last_modified = modified ? strdup(modified) : NULL;
    journal->total = S_TOTAL;
    return asked;
}

// lines: the status, then headers, each after a '|'.
static lade_answer_t
s_answer(s_asked_t *asked, const char *lines)
{
    char *copy = NULL, *rest, line[256];
    assert_true(asprintf(&copy, "HTTP/1.1 %s", lines) > 0);
    rest = copy;
    for (char *at; (at = strsep(&rest, "|"));) {
        int len = snprintf(line, sizeof line, "%s\r\n", at);
        assert_true(lade_headers_line(&asked->part.headers, line, (size_t)len));
    }
    free(copy);
    return asked->part.answer = lade_answer_judge(&asked->part);
}

static void
s_forget(s_asked_t **asked_p)
{
    s_asked_t *asked = *asked_p;
    lade_headers_free(&asked->part.headers);
    lade_transfer_destroy(&asked->transfer);
    free(asked);
    *asked_p = NULL;
}

static const char *
s_name(lade_answer_t answer)
{
    static const char *const names[] = {
        [LADE_ANSWER_NONE] = "none",         [LADE_ANSWER_TAKE] = "take",
        [LADE_ANSWER_REDIRECT] = "redirect", [LADE_ANSWER_AGAIN] = "again",
        [LADE_ANSWER_WHOLE] = "whole",       [LADE_ANSWER_REDO] = "redo",
        [LADE_ANSWER_REFUSED] = "refused",
    };
    return names[answer];
}

// ---------------------------------------------------------------------------------------------------

// The table that decides whether a file is put together right.
static void
test_only_the_rest_of_the_same_version_is_taken(void **state)
{
    (void)state;
    static const struct {
        const char *sha256, *etag, *modified, *lines;
        lade_answer_t answer;
        lade_redo_t redo;
    } rows[] = {
        // clang-format off
        // 206, of the version we have or of another one
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-9/10|ETag: \"1\"",   LADE_ANSWER_TAKE, LADE_REDO_NONE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-9/10",               LADE_ANSWER_TAKE, LADE_REDO_NONE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-9/10|ETag: \"2\"",   LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {S_SHA256, "\"1\"", NULL,   "206 -|Content-Range: bytes 5-9/10|ETag: \"2\"",   LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, NULL,      S_MONDAY, "206 -|Content-Range: bytes 5-9/10|Last-Modified: " S_MONDAY,  LADE_ANSWER_TAKE, LADE_REDO_NONE},
        {NULL, NULL,      S_MONDAY, "206 -|Content-Range: bytes 5-9/10|Last-Modified: " S_TUESDAY, LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, "W/\"1\"", S_MONDAY, "206 -|Content-Range: bytes 5-9/10|ETag: W/\"1\"|Last-Modified: " S_TUESDAY, LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, "W/\"1\"", S_MONDAY, "206 -|Content-Range: bytes 5-9/10|ETag: W/\"2\"|Last-Modified: " S_MONDAY,  LADE_ANSWER_TAKE, LADE_REDO_NONE},
        // mirrors of one file may have it since different days
        {NULL, "\"1\"",   S_TUESDAY, "206 -|Content-Range: bytes 5-9/10|ETag: \"1\"|Last-Modified: " S_MONDAY, LADE_ANSWER_TAKE, LADE_REDO_NONE},
        // only a digest can tell
        {S_SHA256, NULL,  NULL,     "206 -|Content-Range: bytes 5-9/10",               LADE_ANSWER_TAKE, LADE_REDO_NONE},
        // 206, of other bytes
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 4-9/10|ETag: \"1\"",   LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 6-9/10|ETag: \"1\"",   LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 0-9/10|ETag: \"1\"",   LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-9/11|ETag: \"1\"",   LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-10/10|ETag: \"1\"",  LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-9/*|ETag: \"1\"",    LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes */10|ETag: \"1\"",     LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: rest|ETag: \"1\"",           LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|ETag: \"1\"",                               LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Type: multipart/byteranges; boundary=x|ETag: \"1\"", LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        // 206, shorter than asked for or longer: as far as it goes
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-7/10|ETag: \"1\"",   LADE_ANSWER_TAKE, LADE_REDO_NONE},
        {NULL, "\"1\"",   NULL,     "206 -|Content-Range: bytes 5-9/10|Content-Length: 999|ETag: \"1\"", LADE_ANSWER_TAKE, LADE_REDO_NONE},
        // 200: the file changed, or If-Range was not liked, or ranges are not served
        {NULL, "\"1\"",   NULL,     "200 OK|Content-Length: 10|ETag: \"2\"",           LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, "\"1\"",   S_MONDAY, "200 OK|Content-Length: 10",                       LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, "\"1\"",   NULL,     "200 OK|Content-Length: 11|ETag: \"1\"",           LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, NULL,      S_MONDAY, "200 OK|Content-Length: 10|Last-Modified: " S_TUESDAY, LADE_ANSWER_REDO, LADE_REDO_RANGES},
        {NULL, "\"1\"",   NULL,     "200 OK|Content-Length: 10|ETag: \"1\"",           LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   S_MONDAY, "200 OK|Content-Length: 10|ETag: \"1\"",           LADE_ANSWER_AGAIN, LADE_REDO_NONE},
        {S_SHA256, "\"1\"", NULL,   "200 OK|Content-Length: 10|ETag: \"1\"",           LADE_ANSWER_AGAIN, LADE_REDO_NONE},
        {S_SHA256, NULL, S_MONDAY,  "200 OK|Last-Modified: " S_MONDAY,                 LADE_ANSWER_AGAIN, LADE_REDO_NONE},
        {NULL, NULL, S_MONDAY,      "200 OK|Last-Modified: " S_MONDAY,                 LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        // 416
        {NULL, "\"1\"",   NULL,     "416 -|Content-Range: bytes */10",                 LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "416 -|Content-Range: bytes */5",                  LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "416 -|Content-Range: bytes */0",                  LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL, "\"1\"",   NULL,     "416 -",                                           LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask_rest(rows[i].sha256, rows[i].etag, rows[i].modified);
        lade_answer_t answer = s_answer(asked, rows[i].lines);
        if (answer != rows[i].answer || asked->transfer->redo != rows[i].redo)
            fail_msg("row %zu, %s: %s, redo %d", i, rows[i].lines, s_name(answer),
                     asked->transfer->redo);
        s_forget(&asked);
    }
}

// What is claimed is what the answer will bring, no more and no less.
static void
test_end_is_as_answered(void **state)
{
    (void)state;
    static const struct {
        int64_t from, to;
        const char *lines;
        int64_t end, total;
        bool whole;
    } rows[] = {
        // clang-format off
        {0, 4, "206 -|Content-Range: bytes 0-3/10|ETag: \"1\"", 4,  10, false},
        {0, 4, "206 -|Content-Range: bytes 0-1/10|ETag: \"1\"", 2,  10, false},
        {0, 4, "206 -|Content-Range: bytes 0-9/10|ETag: \"1\"", 4,  10, false},
        {0, 4, "206 -|Content-Range: bytes 0-1/2",              2,  2,  false}, // all there is
        {0, 4, "200 OK|Content-Length: 10",                     10, 10, true},
        {0, 4, "200 OK|Content-Length: 0",                      0,  0,  true},
        {0, 4, "200 OK",                                        -1, -1, true},
        {0, 4, "203 -|Content-Length: 10",                      10, 10, true},
        {0, -1, "200 OK|Content-Length: 10",                    10, 10, true},
        {2, -1, "206 -|Content-Range: bytes 2-9/10|ETag: \"1\"", 10, 10, false},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask(NULL, rows[i].from, rows[i].to);
        lade_transfer_t *transfer = asked->transfer;
        if (s_answer(asked, rows[i].lines) != LADE_ANSWER_TAKE || asked->part.to != rows[i].end)
            fail_msg("row %zu, %s: %s to %" PRId64, i, rows[i].lines, s_name(asked->part.answer),
                     asked->part.to);
        assert_int_equal(transfer->journal.total, rows[i].total);
        assert_int_equal(transfer->whole, rows[i].whole);
        int64_t end = rows[i].end < 0 ? INT64_MAX / 2 : rows[i].end;
        assert_int_equal(transfer->claimed.bytes, end);
        assert_int_equal(lade_ranges_end(&transfer->claimed), end);
        s_forget(&asked);
    }
}

// A part of a file without validator and digest is only good if it is all: the next part could be
// of another version.
static void
test_first_answer_without_validator_has_to_be_whole(void **state)
{
    (void)state;
    static const struct {
        const char *sha256, *lines;
        lade_answer_t answer;
        lade_redo_t redo;
    } rows[] = {
        // clang-format off
        {NULL,     "206 -|Content-Range: bytes 0-3/10",                            LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL,     "206 -|Content-Range: bytes 0-3/10|ETag: W/\"1\"",              LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL,     "206 -|Content-Range: bytes 0-3/4",                             LADE_ANSWER_TAKE, LADE_REDO_NONE},
        {NULL,     "206 -|Content-Range: bytes 0-3/10|Last-Modified: " S_MONDAY,   LADE_ANSWER_TAKE, LADE_REDO_NONE},
        {S_SHA256, "206 -|Content-Range: bytes 0-3/10",                            LADE_ANSWER_TAKE, LADE_REDO_NONE},
        {NULL,     "206 -|Content-Range: bytes 1-3/10|ETag: \"1\"",                LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL,     "416 -|Content-Range: bytes */0",                               LADE_ANSWER_WHOLE, LADE_REDO_NONE}, // an empty file
        {NULL,     "416 -|Content-Range: bytes */7",                               LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        {NULL,     "416 -",                                                        LADE_ANSWER_REDO, LADE_REDO_WHOLE},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask(rows[i].sha256, 0, 4);
        lade_answer_t answer = s_answer(asked, rows[i].lines);
        if (answer != rows[i].answer || asked->transfer->redo != rows[i].redo)
            fail_msg("row %zu, %s: %s, redo %d", i, rows[i].lines, s_name(answer),
                     asked->transfer->redo);
        s_forget(&asked);
    }
}

// All bytes came, and the connection broke before that was known.
static void
test_nothing_left_to_fetch(void **state)
{
    (void)state;
    static const struct {
        int64_t known, size;
        const char *lines;
        lade_answer_t answer;
    } rows[] = {
        // clang-format off
        {-1, -1, "416 -|Content-Range: bytes */5", LADE_ANSWER_WHOLE},
        { 5, -1, "416 -|Content-Range: bytes */5", LADE_ANSWER_WHOLE},
        {-1,  5, "416 -",                          LADE_ANSWER_WHOLE},
        {-1, -1, "416 -",                          LADE_ANSWER_REDO},
        {-1,  6, "416 -",                          LADE_ANSWER_REDO},
        { 6, -1, "416 -|Content-Range: bytes */5", LADE_ANSWER_REDO}, // it was longer
        {-1, -1, "416 -|Content-Range: bytes */4", LADE_ANSWER_REDO},
        {-1, -1, "416 -|Content-Range: bytes */*", LADE_ANSWER_REDO},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask(NULL, S_HAVE, -1);
        asked->transfer->journal.total = rows[i].known;
        asked->transfer->size = rows[i].size;
        if (s_answer(asked, rows[i].lines) != rows[i].answer)
            fail_msg("row %zu, %s: %s", i, rows[i].lines, s_name(asked->part.answer));
        if (rows[i].answer == LADE_ANSWER_WHOLE)
            assert_int_equal(asked->transfer->journal.total, S_HAVE);
        s_forget(&asked);
    }
}

// Nobody asked for a part: an answer of one is a server's mistake, and not repeated for ever.
static void
test_parts_nobody_asked_for(void **state)
{
    (void)state;
    static const char *const lines[] = {"206 -|Content-Range: bytes 0-9/10|ETag: \"1\"",
                                        "416 -|Content-Range: bytes */10"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        s_asked_t *asked = s_ask(NULL, 0, -1);
        assert_int_equal(s_answer(asked, lines[i]), LADE_ANSWER_REFUSED);
        assert_int_equal(asked->part.error.code, LADE_HTTP_ERROR);
        s_forget(&asked);
    }
}

// ---------------------------------------------------------------------------------------------------

// The server sends everything when it is asked for the rest with If-Range, though it is of the same
// version: first with the ETag, then with the date, then without, which only a digest allows.
static void
test_ladder_of_validators(void **state)
{
    (void)state;
    static const char whole[] = "200 OK|Content-Length: 10|ETag: \"1\"|Last-Modified: " S_MONDAY;
    static const struct {
        const char *sha256, *etag, *modified;
        lade_if_range_t ways[3];
        size_t count; // of ways before all is asked for
    } rows[] = {
        // clang-format off
        {S_SHA256, "\"1\"",   S_MONDAY, {LADE_IF_DATE, LADE_IF_NOTHING}, 2},
        {NULL,     "\"1\"",   S_MONDAY, {LADE_IF_DATE},                  1},
        {S_SHA256, "\"1\"",   NULL,     {LADE_IF_NOTHING},               1},
        {S_SHA256, NULL,      S_MONDAY, {LADE_IF_NOTHING},               1}, // the date was tried at first
        {NULL,     NULL,      S_MONDAY, {0},                             0},
        {NULL,     "\"1\"",   NULL,     {0},                             0},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask_rest(rows[i].sha256, rows[i].etag, rows[i].modified);
        for (size_t step = 0; step < rows[i].count; step++) {
            assert_int_equal(s_answer(asked, whole), LADE_ANSWER_AGAIN);
            assert_int_equal(asked->transfer->if_range, rows[i].ways[step]);
            asked->part.answer = LADE_ANSWER_NONE; // asked again
            asked->part.outdated = false;
        }
        assert_int_equal(s_answer(asked, whole), LADE_ANSWER_REDO);
        assert_int_equal(asked->transfer->redo, LADE_REDO_WHOLE);
        s_forget(&asked);
    }
}

// Several requests were out when the first was answered so: the others' answers are to the same
// question, not to the next one.
static void
test_answers_to_one_question_are_one_step(void **state)
{
    (void)state;
    s_asked_t *first = s_ask_rest(S_SHA256, "\"1\"", S_MONDAY);
    lade_part_t others[4];
    for (size_t i = 0; i < 4; i++) {
        others[i] = first->part;
        others[i].next = i ? &others[i - 1] : NULL;
    }
    others[3].answer = LADE_ANSWER_TAKE; // has its answer already
    first->part.next = &others[3];
    first->transfer->part_count = 5;
    static const char whole[] = "200 OK|Content-Length: 10|ETag: \"1\"|Last-Modified: " S_MONDAY;
    assert_int_equal(s_answer(first, whole), LADE_ANSWER_AGAIN);
    assert_int_equal(first->transfer->if_range, LADE_IF_DATE);
    assert_false(others[3].outdated);
    for (size_t i = 0; i < 3; i++) {
        s_asked_t other = {first->transfer, others[i]};
        assert_int_equal(s_answer(&other, whole), LADE_ANSWER_AGAIN);
        assert_int_equal(first->transfer->if_range, LADE_IF_DATE);
        lade_headers_free(&other.part.headers);
    }
    assert_int_equal(first->transfer->strikes, 1);
    assert_int_equal(first->transfer->redo, LADE_REDO_NONE);
    s_forget(&first);
}

// A signed address has run out: the one that led there is asked again. Elsewhere these are errors.
static void
test_direct_url_runs_out(void **state)
{
    (void)state;
    static const struct {
        const char *lines;
        bool direct;
        lade_answer_t answer;
        lade_code_t code;
    } rows[] = {
        // clang-format off
        {"403 -", true,  LADE_ANSWER_AGAIN,   LADE_OK},
        {"401 -", true,  LADE_ANSWER_AGAIN,   LADE_OK},
        {"410 -", true,  LADE_ANSWER_AGAIN,   LADE_OK},
        {"404 -", true,  LADE_ANSWER_AGAIN,   LADE_OK},
        {"400 -", true,  LADE_ANSWER_AGAIN,   LADE_OK},
        {"500 -", true,  LADE_ANSWER_REFUSED, LADE_NETWORK},
        {"429 -", true,  LADE_ANSWER_REFUSED, LADE_RATE_LIMITED},
        {"403 -", false, LADE_ANSWER_REFUSED, LADE_AUTH_DENIED},
        {"401 -", false, LADE_ANSWER_REFUSED, LADE_AUTH_REQUIRED},
        {"404 -", false, LADE_ANSWER_REFUSED, LADE_NOT_FOUND},
        {"410 -", false, LADE_ANSWER_REFUSED, LADE_NOT_FOUND},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask_rest(NULL, "\"1\"", NULL);
        lade_part_t other = asked->part;
        asked->part.direct = other.direct = rows[i].direct;
        asked->transfer->direct_url = strdup("http://b/m.bin?signed");
        asked->part.next = &other;
        if (s_answer(asked, rows[i].lines) != rows[i].answer)
            fail_msg("row %zu, %s: %s", i, rows[i].lines, s_name(asked->part.answer));
        assert_int_equal(asked->part.error.code, rows[i].code);
        bool again = rows[i].answer == LADE_ANSWER_AGAIN;
        assert_int_equal(asked->transfer->direct_url == NULL, again);
        assert_int_equal(asked->transfer->strikes, again);
        assert_int_equal(asked->transfer->redo, LADE_REDO_NONE); // what is there stays
        if (again) { // and what another one is told of the old address is not held against the new
            asked->transfer->direct_url = strdup("http://b/m.bin?signed=anew");
            s_asked_t late = {asked->transfer, other};
            assert_int_equal(s_answer(&late, rows[i].lines), LADE_ANSWER_AGAIN);
            assert_non_null(asked->transfer->direct_url);
            assert_int_equal(asked->transfer->strikes, 1);
            lade_headers_free(&late.part.headers);
        }
        s_forget(&asked);
    }
}

// ---------------------------------------------------------------------------------------------------

static void
test_what_is_no_file_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *lines;
        int64_t size;
        lade_answer_t answer;
        lade_code_t code;
    } rows[] = {
        // clang-format off
        {"200 OK|Content-Length: 10",                               10, LADE_ANSWER_TAKE,    LADE_OK},
        {"200 OK|Content-Length: 10",                               11, LADE_ANSWER_REFUSED, LADE_SIZE_MISMATCH},
        {"206 -|Content-Range: bytes 0-3/10|ETag: \"1\"",           11, LADE_ANSWER_REFUSED, LADE_SIZE_MISMATCH},
        {"200 OK",                                                  11, LADE_ANSWER_TAKE,    LADE_OK}, // seen at its end
        {"416 -|Content-Range: bytes */0",                          11, LADE_ANSWER_REFUSED, LADE_SIZE_MISMATCH},
        {"200 OK|Content-Encoding: gzip",                           -1, LADE_ANSWER_REFUSED, LADE_HTTP_ERROR},
        {"206 -|Content-Range: bytes 0-3/10|ETag: \"1\"|Content-Encoding: br", -1, LADE_ANSWER_REFUSED, LADE_HTTP_ERROR},
        {"200 OK|Content-Encoding: identity",                       -1, LADE_ANSWER_TAKE,    LADE_OK},
        {"200 OK|Content-Type: text/html; charset=utf-8",           -1, LADE_ANSWER_REFUSED, LADE_NOT_A_MODEL},
        {"200 OK|Content-Type: application/xhtml+xml",              -1, LADE_ANSWER_REFUSED, LADE_NOT_A_MODEL},
        {"206 -|Content-Range: bytes 0-3/4|Content-Type: TEXT/HTML", -1, LADE_ANSWER_REFUSED, LADE_NOT_A_MODEL},
        {"200 OK|Content-Type: text/plain",                         -1, LADE_ANSWER_TAKE,    LADE_OK},
        {"204 -",                                                   -1, LADE_ANSWER_REFUSED, LADE_HTTP_ERROR},
        {"304 -",                                                   -1, LADE_ANSWER_REFUSED, LADE_HTTP_ERROR},
        {"999 -",                                                   -1, LADE_ANSWER_REFUSED, LADE_NETWORK},
        {"302 -",                                                   -1, LADE_ANSWER_REDIRECT, LADE_OK},
        {"308 -",                                                   -1, LADE_ANSWER_REDIRECT, LADE_OK},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask(NULL, 0, 4);
        asked->transfer->size = rows[i].size;
        if (s_answer(asked, rows[i].lines) != rows[i].answer ||
            asked->part.error.code != rows[i].code)
            fail_msg("row %zu, %s: %s, %s", i, rows[i].lines, s_name(asked->part.answer),
                     asked->part.error.message);
        s_forget(&asked);
    }
}

static void
test_time_to_wait_is_read_once_it_is_asked_for(void **state)
{
    (void)state;
    static const struct {
        const char *lines;
        lade_code_t code;
        double retry_after_s;
    } rows[] = {
        // clang-format off
        {"429 -|Retry-After: 7",                                   LADE_RATE_LIMITED, 7},
        {"429 -|RateLimit: \"api\";r=0;t=55",                      LADE_RATE_LIMITED, 55},
        {"429 -|Retry-After: 7|RateLimit: \"api\";r=0;t=55",       LADE_RATE_LIMITED, 7},
        {"429 -",                                                  LADE_RATE_LIMITED, -1},
        {"503 -|Retry-After: 7",                                   LADE_RATE_LIMITED, 7},
        {"503 -|RateLimit: \"api\";r=9;t=55",                      LADE_NETWORK,      -1},
        {"404 -|RateLimit: \"api\";r=9;t=55",                      LADE_NOT_FOUND,    -1},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_asked_t *asked = s_ask(NULL, 0, 4);
        assert_int_equal(s_answer(asked, rows[i].lines), LADE_ANSWER_REFUSED);
        assert_int_equal(asked->part.error.code, rows[i].code);
        assert_true(asked->transfer->retry_after_s == rows[i].retry_after_s);
        s_forget(&asked);
    }
}

static void
test_what_is_learnt(void **state)
{
    (void)state;
    s_asked_t *asked = s_ask(NULL, 0, 4);
    const lade_journal_t *journal = &asked->transfer->journal;
    assert_int_equal(
        s_answer(asked, "206 -|Content-Range: bytes 0-3/10|ETag: \"1\"|Last-Modified: " S_MONDAY
                        "|Content-Type: a/b; c=d|Content-Disposition: "
                        "attachment; filename=\"../../x\""),
        LADE_ANSWER_TAKE);
    assert_string_equal(journal->etag, "\"1\"");
    assert_string_equal(journal->last_modified, S_MONDAY);
    assert_string_equal(journal->content_type, "a/b");
    assert_string_equal(journal->name, "m.bin"); // of the URL: the server's is no name
    s_forget(&asked);
}

static void
test_public_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url, *public;
    } rows[] = {
        // clang-format off
        {"https://a/b",                        "https://a/b"},
        {"https://user:word@a:8443/b?sig=x#y", "https://a:8443/b"},
        {"http://a/b%20c?X-Amz-Signature=1",   "http://a/b%20c"},
        {"no url",                             NULL},
        {NULL,                                 NULL},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *public = lade_answer_public_url(rows[i].url);
        if (rows[i].public)
            assert_string_equal(public ? public : "(none)", rows[i].public);
        else
            assert_null(public);
        free(public);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_rest_of_the_same_version_is_taken),
        cmocka_unit_test(test_end_is_as_answered),
        cmocka_unit_test(test_first_answer_without_validator_has_to_be_whole),
        cmocka_unit_test(test_nothing_left_to_fetch),
        cmocka_unit_test(test_parts_nobody_asked_for),
        cmocka_unit_test(test_ladder_of_validators),
        cmocka_unit_test(test_answers_to_one_question_are_one_step),
        cmocka_unit_test(test_direct_url_runs_out),
        cmocka_unit_test(test_what_is_no_file_is_refused),
        cmocka_unit_test(test_time_to_wait_is_read_once_it_is_asked_for),
        cmocka_unit_test(test_what_is_learnt),
        cmocka_unit_test(test_public_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
