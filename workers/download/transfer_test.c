// What an answer means for bytes that are there already.
#include "workers/download/transfer.h"

#include <czmq.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char s_monday[] = "Mon, 06 Jan 2025 00:00:00 GMT";
static const char s_tuesday[] = "Tue, 07 Jan 2025 00:00:00 GMT";

// The answer to a request for the rest from byte 5, with these validators then and now.
static lade_answer_t
s_judge_rest(const char *etag, const char *modified, const char *lines)
{
    const char *const urls[] = {"http://a/m.bin", NULL};
    const lade_request_t request = {
        .urls = urls, .destdir = "/nowhere", .filename = "m.bin", .size = -1, .attempt = 1};
    lade_transfer_t *transfer = lade_transfer_new(&request);
    assert_int_equal(lade_transfer_check(transfer, NULL), LADE_OK);
    transfer->journal = (lade_journal_t){.etag = etag ? strdup(etag) : NULL,
                                         .last_modified = modified ? strdup(modified) : NULL,
                                         .name = strdup("m.bin"),
                                         .total = 10,
                                         .bytes = 5};
    transfer->part.from = 5;
    char *copy = strdup(lines), *rest = copy;
    assert_true(lade_headers_line(&transfer->part.headers, "HTTP/1.1 206 -\r\n", 16));
    for (char *line; (line = strsep(&rest, "|"));)
        assert_true(lade_headers_line(&transfer->part.headers, line, strlen(line)));
    lade_answer_t answer = lade_transfer_judge(transfer);
    free(copy);
    lade_transfer_destroy(&transfer);
    return answer;
}

static void
test_only_the_rest_of_the_same_version_is_taken(void **state)
{
    (void)state;
    const struct {
        const char *etag, *modified, *lines;
        lade_answer_t answer;
    } rows[] = {
        // clang-format off
        {"\"v1\"",   NULL,     "Content-Range: bytes 5-9/10|ETag: \"v1\"",   LADE_ANSWER_TAKE},
        {"\"v1\"",   NULL,     "Content-Range: bytes 5-9/10",                LADE_ANSWER_TAKE},
        {"\"v1\"",   NULL,     "Content-Range: bytes 5-9/10|ETag: \"v2\"",   LADE_ANSWER_ANEW},
        {"\"v1\"",   NULL,     "Content-Range: bytes 4-9/10|ETag: \"v1\"",   LADE_ANSWER_ANEW},
        {"\"v1\"",   NULL,     "Content-Range: bytes 5-9/11|ETag: \"v1\"",   LADE_ANSWER_ANEW},
        {NULL,       s_monday, "Content-Range: bytes 5-9/10|Last-Modified: Mon, 06 Jan 2025 00:00:00 GMT", LADE_ANSWER_TAKE},
        {NULL,       s_monday, "Content-Range: bytes 5-9/10|Last-Modified: Tue, 07 Jan 2025 00:00:00 GMT", LADE_ANSWER_ANEW},
        {"W/\"v1\"", s_monday, "Content-Range: bytes 5-9/10|Last-Modified: Tue, 07 Jan 2025 00:00:00 GMT", LADE_ANSWER_ANEW},
        // Mirrors of one file may have it since different days.
        {"\"v1\"",   s_tuesday, "Content-Range: bytes 5-9/10|ETag: \"v1\"|Last-Modified: Mon, 06 Jan 2025 00:00:00 GMT", LADE_ANSWER_TAKE},
        {NULL,       s_monday, "Content-Range: bytes 5-9/*|Content-Length: 9223372036854775807", LADE_ANSWER_TAKE},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (s_judge_rest(rows[i].etag, rows[i].modified, rows[i].lines) != rows[i].answer)
            fail_msg("row %zu: %s", i, rows[i].lines);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_rest_of_the_same_version_is_taken),
    };
    return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
