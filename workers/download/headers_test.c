// Headers of servers, kind and hostile.
#include "workers/download/headers.h"

#include "common/wire.h"
#include "workers/download/verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void
s_feed(lade_headers_t *headers, const char *line)
{
    assert_true(lade_headers_line(headers, line, strlen(line)));
}

static void
test_an_answer_is_read(void **state)
{
    (void)state;
    lade_headers_t headers = LADE_HEADERS_NONE;
    s_feed(&headers, "HTTP/1.1 206 Partial Content\r\n");
    s_feed(&headers, "ETag: \"abc\"\r\n");
    s_feed(&headers, "last-modified:Wed, 21 Oct 2015 07:28:00 GMT\r\n");
    s_feed(&headers, "Content-Type: Text/HTML; charset=utf-8\r\n");
    s_feed(&headers, "Content-Range: bytes 5-9/10\r\n");
    s_feed(&headers, "Content-Length:  5 \r\n");
    s_feed(&headers, "X-Error-Code: GatedRepo\r\n");
    s_feed(&headers, "\r\n");
    assert_int_equal(headers.status, 206);
    assert_string_equal(headers.etag, "\"abc\"");
    assert_string_equal(headers.last_modified, "Wed, 21 Oct 2015 07:28:00 GMT");
    assert_string_equal(headers.content_type, "text/html");
    assert_int_equal(headers.range_start, 5);
    assert_int_equal(headers.range_end, 10);
    assert_int_equal(headers.total, 10);
    assert_int_equal(headers.length, 5);
    assert_string_equal(headers.error_code, "GatedRepo");
    assert_false(headers.encoded);
    lade_headers_free(&headers);
}

static void
test_an_error_code_is_a_word(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"X-Error-Code: EntryNotFound\r\n", "EntryNotFound"},
        {"X-Error-Code: no-token hf_x1\r\n", ""},
        {"X-Error-Code: hf_s3cret\r\n", ""},
        {"X-Error-Code: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_headers_t headers = LADE_HEADERS_NONE;
        s_feed(&headers, "HTTP/1.1 403 Forbidden\r\n");
        s_feed(&headers, rows[i][0]);
        assert_string_equal(headers.error_code, rows[i][1]);
        lade_headers_free(&headers);
    }
}

static void
test_a_redirect_is_forgotten(void **state)
{
    (void)state;
    lade_headers_t headers = LADE_HEADERS_NONE;
    s_feed(&headers, "HTTP/1.1 302 Found\r\n");
    s_feed(&headers, "ETag: \"old\"\r\n");
    s_feed(&headers, "Content-Length: 7\r\n");
    s_feed(&headers, "HTTP/2 200 \r\n");
    assert_int_equal(headers.status, 200);
    assert_null(headers.etag);
    assert_int_equal(headers.length, -1);
    lade_headers_free(&headers);
}

static void
test_malformed_values_count_as_absent(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "Content-Length: -5\r\n",
        "Content-Length: 5x\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 9223372036854775807\r\n", // sums of it would not fit
        "Content-Range: bytes 9-5/10\r\n",
        "Content-Range: items 1-2/3\r\n",
        "Content-Range: bytes 1-2\r\n",
        "Content-Range: bytes 1-2/\r\n",
        "Content-Range: bytes 5-9/9\r\n", // past the end
        "Content-Range: bytes 0-0/0\r\n",
        "Content-Range: bytes -5/10\r\n",
        "Content-Range: bytes 0-9223372036854775807/9223372036854775807\r\n",
        "Content-Range: bytes\r\n",
        "Content-Range: \r\n",
        "Retry-After: soon\r\n",
        "Retry-After: -1\r\n",
        "RateLimit: \"api\";r=0\r\n",
        "RateLimit: t=55\r\n",
        "ETag: \"\x01\"\r\n",
        "ETag: \"\xff\"\r\n",
        "ETag\r\n",
        ": x\r\n",
        "\r\n",
        "HTTP\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        lade_headers_t headers = LADE_HEADERS_NONE;
        s_feed(&headers, lines[i]);
        assert_int_equal(headers.length, -1);
        assert_int_equal(headers.range_start, -1);
        assert_int_equal(headers.range_end, -1);
        assert_int_equal(headers.total, -1);
        assert_true(headers.retry_after_s < 0);
        assert_true(headers.reset_s < 0);
        assert_null(headers.etag);
        lade_headers_free(&headers);
    }
}

static void
test_headers_have_a_ceiling(void **state)
{
    (void)state;
    lade_headers_t headers = LADE_HEADERS_NONE;
    char *line = malloc(100000);
    memset(line, 'a', 100000);
    memcpy(line, "ETag: ", 6);
    for (int i = 0; i < 10; i++)
        assert_true(lade_headers_line(&headers, line, 100000));
    assert_null(headers.etag); // too long to be of use
    assert_false(lade_headers_line(&headers, line, 100000));
    s_feed(&(lade_headers_t){0}, "HTTP/1.1 200 OK\r\n");
    free(line);
    lade_headers_free(&headers);
}

static void
test_only_a_strong_validator_is_sent_back(void **state)
{
    (void)state;
    assert_string_equal(lade_headers_validator("\"a\"", "date"), "\"a\"");
    assert_string_equal(lade_headers_validator("W/\"a\"", "date"), "date");
    assert_string_equal(lade_headers_validator(NULL, "date"), "date");
    assert_null(lade_headers_validator("W/\"a\"", NULL));
    assert_null(lade_headers_validator("", ""));
}

static void
test_file_names_in_content_disposition(void **state)
{
    (void)state;
    static const struct {
        const char *value, *name;
    } rows[] = {
        // clang-format off
        {"attachment; filename=\"a.safetensors\"",                    "a.safetensors"},
        {"attachment; filename=a.bin; size=5",                        "a.bin"},
        {"inline;FILENAME = \"a b.bin\"",                             "a b.bin"},
        {"attachment; filename=\"a\\\"b.bin\"",                       "a\"b.bin"},
        {"attachment; filename=\"a;b.bin\"; x=\"y\"",                 "a;b.bin"},
        {"attachment; filename=\"x\"; filename*=UTF-8''na%C3%AFve%20x", "na\xc3\xafve x"},
        {"attachment; filename*=UTF-8'en'y; filename=x",              "y"},
        {"attachment; filename*=ISO-8859-1''y; filename=x",           "x"},
        {"attachment; filename*=UTF-8''a%00b; filename=x",            "x"},
        {"attachment; filename=\"unfinished",                         "unfinished"},
        {"attachment; filename=\"unfinished\\",                       "unfinished\\"},
        {"attachment; filename=",                                     NULL},
        {"attachment; filename",                                      NULL},
        {"attachment;;;=;=\"",                                        NULL},
        {"attachment",                                                NULL},
        {"",                                                          NULL},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *name = lade_headers_filename(rows[i].value);
        if (rows[i].name)
            assert_string_equal(name ? name : "(none)", rows[i].name);
        else
            assert_null(name);
        free(name);
    }
}

static void
test_retry_after_is_a_number_or_a_date(void **state)
{
    (void)state;
    char date[64];
    time_t then = (time_t)lade_now() + 100;
    struct tm tm;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&then, &tm));
    double wait_s = lade_headers_retry_after(date);
    assert_true(wait_s > 90 && wait_s <= 100);
    assert_true(lade_headers_retry_after("120") == 120);
    assert_true(lade_headers_retry_after("0") == 0);
    assert_true(lade_headers_retry_after("999999999") == 86400);
    assert_true(lade_headers_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0);
    assert_true(lade_headers_retry_after("") < 0);
}

static void
test_content_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int64_t start, end, total;
    } rows[] = {
        // clang-format off
        {"bytes 0-0/1",                       0,  1,  1},
        {"bytes 5-9/10",                      5, 10, 10},
        {"bytes 5-8/10",                      5,  9, 10}, // ends before the end
        {"BYTES 5-9/*",                       5, 10, -1},
        {"bytes */10",                       -1, -1, 10},
        {"bytes */0",                        -1, -1,  0},
        {"bytes */*",                        -1, -1, -1},
        {"bytes=5-9/10",                      5, 10, 10}, // seen in the wild
        {"bytes 1152921504606846975-1152921504606846975/1152921504606846976",
         ((int64_t)1 << 60) - 1, (int64_t)1 << 60, (int64_t)1 << 60},
        {"bytes 5-9/10 and more",            -1, -1, -1},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_headers_t headers = LADE_HEADERS_NONE;
        char line[256];
        snprintf(line, sizeof line, "Content-Range: %s\r\n", rows[i].value);
        s_feed(&headers, line);
        if (headers.range_start != rows[i].start || headers.range_end != rows[i].end ||
            headers.total != rows[i].total)
            fail_msg("%s: %lld-%lld/%lld", rows[i].value, (long long)headers.range_start,
                     (long long)headers.range_end, (long long)headers.total);
        lade_headers_free(&headers);
    }
}

static void
test_rate_limit_windows(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        double seconds;
    } rows[] = {
        // clang-format off
        {"\"api\";r=0;t=55",                   55},
        {"\"api\";t=55;r=0",                   55},
        {"\"api\"; r=0; t=55",                 55},
        {"\"api\";r=0;t=55, \"pages\";r=9;t=7", 55},
        {"api;t=0",                             0},
        {"\"api\";r=0;t=86400",                86400},
        {"\"api\";r=0;t=999999999",            86400},
        {"\"api\";r=0",                        -1},
        {"\"api\";r=0;t",                      -1},
        {"\"api\";r=0;t=",                     -1},
        {"\"api\";r=0;t=-5",                   -1},
        {"\"api\";r=0;t=soon",                 -1},
        {"\"api\";r=0;tt=5",                   -1},
        {"\"api\";r=0;t=99999999999999999999", -1},
        {"t=55",                                -1},
        {"55",                                  -1},
        {";",                                   -1},
        {";;;;  ;",                             -1},
        {"",                                    -1},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_headers_t headers = LADE_HEADERS_NONE;
        char line[256];
        snprintf(line, sizeof line, "ratelimit: %s\r\n", rows[i].value);
        s_feed(&headers, line);
        if (lade_headers_rate_limit(rows[i].value) != rows[i].seconds ||
            headers.reset_s != rows[i].seconds)
            fail_msg("%s: %f", rows[i].value, headers.reset_s);
        lade_headers_free(&headers);
    }
}

static void
test_curl_codes_mean_what_they_say(void **state)
{
    (void)state;
    static const struct {
        CURLcode curl;
        bool connected;
        lade_code_t code;
    } rows[] = {
        // clang-format off
        {CURLE_COULDNT_RESOLVE_HOST,     false, LADE_NETWORK},
        {CURLE_OPERATION_TIMEDOUT,       true,  LADE_STALLED},
        {CURLE_OPERATION_TIMEDOUT,       false, LADE_NETWORK},
        {CURLE_PEER_FAILED_VERIFICATION, false, LADE_HTTP_ERROR},
        {CURLE_UNSUPPORTED_PROTOCOL,     true,  LADE_NETWORK},
        {CURLE_HTTP2_STREAM,             true,  LADE_NETWORK},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_error_t error;
        const lade_verdict_facts_t facts = {
            .host = "example.org", .detail = "", .connected = rows[i].connected};
        assert_int_equal(lade_verdict_curl(rows[i].curl, &facts, &error), rows[i].code);
        assert_non_null(strstr(error.message, "example.org"));
    }
}

static void
test_statuses_mean_what_they_say(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *hub;
        double retry_after_s;
        lade_code_t code;
    } rows[] = {
        // clang-format off
        {401, NULL,           -1, LADE_AUTH_REQUIRED},
        {401, "GatedRepo",    -1, LADE_LICENSE_GATE},
        {403, NULL,           -1, LADE_AUTH_DENIED},
        {404, "EntryNotFound", -1, LADE_NOT_FOUND},
        {429, NULL,           -1, LADE_RATE_LIMITED},
        {503, NULL,           -1, LADE_NETWORK},
        {503, NULL,            2, LADE_RATE_LIMITED},
        {599, NULL,           -1, LADE_NETWORK},
        {400, NULL,           -1, LADE_HTTP_ERROR},
        {0,   NULL,           -1, LADE_HTTP_ERROR},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_error_t error;
        const lade_verdict_facts_t facts = {.host = "example.org", .detail = ""};
        lade_headers_t headers = LADE_HEADERS_NONE;
        headers.status = rows[i].status;
        headers.error_code = (char *)rows[i].hub;
        headers.retry_after_s = rows[i].retry_after_s;
        assert_int_equal(lade_verdict_status(&headers, &facts, &error), rows[i].code);
    }
    assert_true(lade_verdict_keeps(LADE_NETWORK) && lade_verdict_keeps(LADE_NO_SPACE));
    assert_false(lade_verdict_keeps(LADE_DIGEST_MISMATCH) ||
                 lade_verdict_keeps(LADE_SIZE_MISMATCH));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_is_read),
        cmocka_unit_test(test_an_error_code_is_a_word),
        cmocka_unit_test(test_a_redirect_is_forgotten),
        cmocka_unit_test(test_malformed_values_count_as_absent),
        cmocka_unit_test(test_headers_have_a_ceiling),
        cmocka_unit_test(test_only_a_strong_validator_is_sent_back),
        cmocka_unit_test(test_file_names_in_content_disposition),
        cmocka_unit_test(test_retry_after_is_a_number_or_a_date),
        cmocka_unit_test(test_content_ranges),
        cmocka_unit_test(test_rate_limit_windows),
        cmocka_unit_test(test_curl_codes_mean_what_they_say),
        cmocka_unit_test(test_statuses_mean_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
