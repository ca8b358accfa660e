// Which URLs and addresses are let through, in which spelling, under which allow-list.
#include "common/guard.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

static lade_guard_t *
s_guard(const char *allowed, const char *own)
{
    lade_guard_t *guard;
    lade_error_t error;
    if (lade_guard_new(&guard, allowed, own, &error))
        fail_msg("%s", error.message);
    return guard;
}

static bool
s_url_passes(const lade_guard_t *guard, const char *url)
{
    lade_error_t error = {0};
    lade_code_t code = lade_guard_check_url(guard, url, &error);
    if (code && (code != LADE_UNSAFE_URL || !*error.message))
        fail_msg("%s: %s '%s'", url, lade_code_name(code), error.message);
    return code == LADE_OK;
}

static lade_code_t
s_check(const lade_guard_t *guard, const char *host, const char *text, unsigned port,
        lade_error_t *error)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, text, &ipv4.sin_addr) == 1)
        return lade_guard_check_address(guard, host, (struct sockaddr *)&ipv4, error);
    if (inet_pton(AF_INET6, text, &ipv6.sin6_addr) != 1)
        fail_msg("%s is no address", text);
    return lade_guard_check_address(guard, host, (struct sockaddr *)&ipv6, error);
}

static bool
s_address_passes(const lade_guard_t *guard, const char *text)
{
    return s_check(guard, "some.host", text, 80, NULL) == LADE_OK;
}

// ---------------------------------------------------------------------------------------------------

static const char *const s_closed[] = {
    // clang-format off
    "0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.64.0.1", "100.127.255.255",
    "127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.0",
    "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::2", "::127.0.0.1", "::8.8.8.8",            // unspecified, loopback, IPv4-compatible
    "::ffff:127.0.0.1", "::ffff:10.1.2.3", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8", // NAT64
    "100::1", "2001:0:53aa:64c:0:5bfe:5f00:1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",     // discard, Teredo
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1", "2001:db8::1", "3fff:fff::1",
    "2002:7f00:1::", "2002:7f00:1::1", "2002:a00:1::5", "2002:a9fe:a9fe::", "2002:c0a8:101::1", // 6to4
    "2606:4700::5efe:7f00:1", "2606:4700::5efe:10.0.0.9", "2606:4700::200:5efe:192.168.1.1",  // ISATAP
    "fe80::1", "fe80::5efe:8.8.8.8", "febf::1", "fec0::1", "fc00::1", "fd12:3456::1", "fdff::1", "ff02::1", "ff0e::1",
    "5f00::1", "4000::1", "1::1", "e000::1",
    // clang-format on
};

static const char *const s_open[] = {
    // clang-format off
    "93.184.216.34", "8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255",
    "128.0.0.1", "169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.0.3.1", "192.167.255.255",
    "192.169.0.1", "198.17.255.255", "198.20.0.1", "203.0.112.1", "223.255.255.255",
    "2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "2001:200::1", "2001:db7::1", "3ffe::1", "2003::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2606:4700::5efe:8.8.8.8",
    // clang-format on
};

static void
test_only_public_addresses_are_reached(void **state)
{
    (void)state;
    lade_guard_t *guard = s_guard("", NULL);
    for (size_t i = 0; i < sizeof s_closed / sizeof *s_closed; i++)
        if (s_address_passes(guard, s_closed[i]))
            fail_msg("%s passed", s_closed[i]);
    for (size_t i = 0; i < sizeof s_open / sizeof *s_open; i++)
        if (!s_address_passes(guard, s_open[i]))
            fail_msg("%s did not pass", s_open[i]);
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    assert_int_equal(lade_guard_check_address(guard, "h", (struct sockaddr *)&local, NULL),
                     LADE_UNSAFE_URL);
    lade_guard_destroy(&guard);
    assert_null(guard);
    lade_guard_destroy(&guard);
}

static void
test_an_address_in_a_url_is_judged_like_one_of_a_socket(void **state)
{
    (void)state;
    lade_guard_t *guard = s_guard(NULL, "");
    char url[200];
    for (size_t i = 0; i < sizeof s_closed / sizeof *s_closed; i++) {
        bool ipv6 = strchr(s_closed[i], ':') != NULL;
        snprintf(url, sizeof url, "https://%s%s%s:8443/x", ipv6 ? "[" : "", s_closed[i],
                 ipv6 ? "]" : "");
        if (s_url_passes(guard, url))
            fail_msg("%s passed", url);
    }
    for (size_t i = 0; i < sizeof s_open / sizeof *s_open; i++) {
        bool ipv6 = strchr(s_open[i], ':') != NULL;
        snprintf(url, sizeof url, "http://%s%s%s", ipv6 ? "[" : "", s_open[i], ipv6 ? "]" : "");
        if (!s_url_passes(guard, url))
            fail_msg("%s did not pass", url);
    }
    lade_guard_destroy(&guard);
}

static void
test_no_spelling_hides_an_address(void **state)
{
    (void)state;
    static const char *const hidden[] = {
        // clang-format off
        "http://0177.0.0.1/", "http://2130706433/", "http://0x7f000001", "http://0x7F.0.0.1/", "http://017700000001/",
        "http://127.1/", "http://127.0.1/", "http://0/", "http://0x/", "http://0x0.0x0", "http://010.0.0.1/",
        "http://127.0.0.1./", "http://%31%32%37.0.0.1/", "http://127%2e0%2E0%2e1/", "http://%30177.0.0.1",
        "http://2852039166/", "http://0xa9.254.0251.254/", "http://0xA9FEA9FE/latest/meta-data", "http://192.168.257/",
        "http://user@127.0.0.1/", "http://user:pass@10.0.0.1:80/", "http://@127.0.0.1/", "HTTP://127.0.0.1/",
        "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:ffff:127.0.0.1]/", "http://[::1%25lo]/", "http://[fe80::1%eth0]/",
        "http://[::FFFF:127.0.0.1]:8080/", "http://[0000::0001]/",
        "http://localhost/", "http://LOCALHOST:80/", "http://localhost./x", "http://a.localhost/", "http://%6cocalhost/",
        "http://127.0.0.1?x=1", "http://127.0.0.1#x",
        // nobody can say what these are
        "http://256.256.256.256/", "http://1.2.3.4.5/", "http://127.0.0.256/", "http://4294967296/", "http://08.8.8.8/", "http://010.8.8.8/", "http://8.8.8.08/",
        "http://1.2.3.0x100/", "http://0x1ffffffffffffffff/", "http://99999999999999999999999/", "http://8.8.8.8.0xg.9/",
        "http://8.8.8.300", "http://8.8.70000", "http://300.1", "http://site.0/",
        // clang-format on
    };
    static const char *const plain[] = {
        // clang-format off
        "http://example.org", "https://example.org/", "https://example.org:8443/x?y#z", "https://user:pa%40ss@example.org/",
        "http://example.org./x", "http://127.0.0.1.example.org/", "http://10.example/", "http://localhost.example/", "http://notlocalhost/",
        "http://8.8.8.8/", "http://0x8.8.8.8/", "http://134744072/", "http://8.526344/",
        "http://xn--bcher-kva.example/", "http://a_b-c.example/@127.0.0.1/", "http://example.org/?u=http://127.0.0.1/",
        "http://example.org#@127.0.0.1", "http://example.org:/x", "http://e%78ample.org/", "http://1e100.net/", "http://0xg.example/",
        // clang-format on
    };
    lade_guard_t *guard = s_guard("", NULL);
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        if (s_url_passes(guard, hidden[i]))
            fail_msg("%s passed", hidden[i]);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (!s_url_passes(guard, plain[i]))
            fail_msg("%s did not pass", plain[i]);
    lade_guard_destroy(&guard);
}

static void
test_only_http_with_a_host_and_a_port(void **state)
{
    (void)state;
    static const char *const odd[] = {
        // clang-format off
        "", "x", "//example.org/", "example.org", "/etc/passwd", "file:///etc/passwd", "ftp://example.org/", "gopher://example.org/",
        "javascript:1", "http:", "http:/", "http:/example.org", "http://", "https:///example.org/", "http://:80/", "http://?x", "http://#x",
        "http:example.org", "https:\\\\example.org", " http://example.org/", "http://exa mple.org/", "http://example.org\t/",
        "http://example.org\\@127.0.0.1/", "http://example.org\\.evil/", "http://a@b@c/", "http://a%00b/", "http://a%/", "http://a%4/",
        "http://a%zz/", "http://a%2fb/", "http://a%40b/", "http://exa%5cmple/", "http://b\xc3\xbc.example/", "http://\xef\xbc\x91/",
        "http://example.org:0/", "http://example.org:65536/", "http://example.org:x/", "http://example.org:80:80/", "http://example.org:-1/",
        "http://example.org:4294967376/", "http://[::1/", "http://[]/", "http://[x]/", "http://[127.0.0.1]/", "http://[2606:4700::1]x/",
        "http://[2606:4700::1]:x/", "http://[2606:4700::1", "http://2606:4700::1/", "http://./", "http://../", "http://.example/",
        "http://a..b/", "http://example..", "http://ex\x01mple/", "http://ex\x7fmple/",
        // clang-format on
    };
    lade_guard_t *guard = s_guard("any", NULL); // this holds always
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        if (s_url_passes(guard, odd[i]))
            fail_msg("'%s' passed", odd[i]);
    char long_host[400] = "http://";
    memset(long_host + 7, 'a', 300);
    assert_false(s_url_passes(guard, long_host));
    assert_true(s_url_passes(guard, "http://127.0.0.1/"));
    assert_true(s_url_passes(guard, "http://[::1]:1/"));
    assert_true(s_address_passes(guard, "10.0.0.1"));
    lade_guard_destroy(&guard);
}

static void
test_urls_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *url, *host;
        bool https;
        unsigned port;
    } rows[] = {
        {"http://Example.ORG/x", "example.org", false, 80},
        {"https://u:p@example.org.:8443?x", "example.org", true, 8443},
        {"HTTPS://[2606:4700::AB]", "2606:4700::ab", true, 443},
        {"http://e%58.org:", "ex.org", false, 80},
        {"http://0177.0.0.1:65535", "0177.0.0.1", false, 65535},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_guard_url_t parts;
        assert_int_equal(lade_guard_split(rows[i].url, &parts, NULL), LADE_OK);
        assert_string_equal(parts.host, rows[i].host);
        assert_int_equal(parts.https, rows[i].https);
        assert_int_equal(parts.port, rows[i].port);
    }
}

// ---------------------------------------------------------------------------------------------------

static void
test_what_an_operator_allows_is_reached_and_nothing_beside_it(void **state)
{
    (void)state;
    lade_guard_t *guard = s_guard(
        " 10.1.0.0/16,127.0.0.1 , fd00:1::/32,,::1,172.16.5.9/12,0:0::ffff:192.168.7.0/120", NULL);
    static const char *const in[] = {
        "10.1.0.0",   "10.1.255.255", "127.0.0.1",         "::ffff:10.1.2.3", "fd00:1::7", "::1",
        "172.31.0.1", "192.168.7.77", "64:ff9b::10.1.2.3", "2002:a01:203::",  "8.8.8.8"};
    static const char *const out[] = {"10.0.255.255", "10.2.0.0",        "127.0.0.2",
                                      "fd00:2::1",    "::127.0.0.1",     "100.64.0.1",
                                      "192.168.8.0",  "169.254.169.254", "::2"};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (!s_address_passes(guard, in[i]))
            fail_msg("%s did not pass", in[i]);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        if (s_address_passes(guard, out[i]))
            fail_msg("%s passed", out[i]);
    assert_true(s_url_passes(guard, "http://0x7f.1/"));
    assert_true(s_url_passes(guard, "http://localhost/"));
    assert_true(s_url_passes(guard, "http://[fd00:1::1]/"));
    assert_false(s_url_passes(guard, "http://127.2/"));
    lade_guard_destroy(&guard);
    guard = s_guard("0.0.0.0/0", NULL);
    assert_true(s_address_passes(guard, "10.0.0.1"));
    assert_false(s_address_passes(guard, "::1"));
    lade_guard_destroy(&guard);
    guard = s_guard("::/0", NULL);
    assert_true(s_address_passes(guard, "10.0.0.1"));
    assert_true(s_address_passes(guard, "::1"));
    lade_guard_destroy(&guard);
}

static void
test_a_host_on_the_list_may_lead_anywhere(void **state)
{
    (void)state;
    lade_guard_t *guard = s_guard("Mirror.Site., nas", NULL);
    assert_int_equal(s_check(guard, "mirror.site", "10.0.0.1", 80, NULL), LADE_OK);
    assert_int_equal(s_check(guard, "MIRROR.site.", "127.0.0.1", 8080, NULL), LADE_OK);
    assert_int_equal(s_check(guard, "nas", "fd00::1", 80, NULL), LADE_OK);
    assert_int_equal(s_check(guard, "a.mirror.site", "10.0.0.1", 80, NULL), LADE_UNSAFE_URL);
    assert_int_equal(s_check(guard, "mirror.site.evil", "10.0.0.1", 80, NULL), LADE_UNSAFE_URL);
    assert_true(s_url_passes(guard, "http://mirror.site/x"));
    assert_false(s_url_passes(guard, "http://10.0.0.1/x"));
    lade_guard_destroy(&guard);
}

static void
test_the_operators_own_hub_is_reached_at_its_port_only(void **state)
{
    (void)state;
    lade_guard_t *guard = s_guard("", "http://127.0.0.1:8080/some/path");
    assert_true(s_url_passes(guard, "http://127.0.0.1:8080/api"));
    assert_false(s_url_passes(guard, "http://127.0.0.1:8081/api"));
    assert_false(s_url_passes(guard, "http://127.0.0.1/api"));
    assert_int_equal(s_check(guard, "127.0.0.1", "127.0.0.1", 8080, NULL), LADE_OK);
    assert_int_equal(s_check(guard, "127.0.0.1", "127.0.0.1", 8081, NULL), LADE_UNSAFE_URL);
    assert_int_equal(s_check(guard, "other.host", "127.0.0.1", 8080, NULL), LADE_UNSAFE_URL);
    lade_guard_destroy(&guard);
    guard = s_guard("", "https://[fd00::5]");
    assert_int_equal(s_check(guard, "[fd00::5]", "fd00::5", 443, NULL), LADE_OK);
    assert_int_equal(s_check(guard, "fd00::5", "fd00::5", 443, NULL), LADE_OK);
    lade_guard_destroy(&guard);
    guard = s_guard("", "https://hub.site/"); // a name: whatever it resolves to
    assert_int_equal(s_check(guard, "hub.site", "10.0.0.1", 443, NULL), LADE_OK);
    assert_int_equal(s_check(guard, "hub.site", "10.0.0.1", 80, NULL), LADE_UNSAFE_URL);
    lade_guard_destroy(&guard);
    guard = s_guard("", "no URL"); // somebody else's error
    assert_false(s_address_passes(guard, "127.0.0.1"));
    lade_guard_destroy(&guard);
}

static void
test_a_wrong_entry_is_named(void **state)
{
    (void)state;
    static const char *const wrong[] = {"10.0.0.0/33",
                                        "10.0.0.0/",
                                        "10.0.0.0/x",
                                        "10.0.0.0/-1",
                                        "10.0.0.0/8x",
                                        "300.1.2.3",
                                        "10.0.0",
                                        "::1/129",
                                        "[::1]",
                                        "fd00::/zz",
                                        "*",
                                        "*.site",
                                        "http://site/",
                                        "site:80",
                                        ".site",
                                        "a..b",
                                        "site..",
                                        "b\xc3\xbc.site",
                                        "0x7f.1/8",
                                        "127.1",
                                        "0x7f000001",
                                        "any/8",
                                        "host/8",
                                        "10.0.0.0 /8",
                                        "1.2.3.4/99999999999999999999"};
    lade_guard_t *guard;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char list[100];
        lade_error_t error = {0};
        snprintf(list, sizeof list, "127.0.0.1,%s,site", wrong[i]);
        if (lade_guard_new(&guard, list, NULL, &error) != LADE_CONFIG_ERROR)
            fail_msg("'%s' was taken", wrong[i]);
        assert_null(guard);
        assert_non_null(strstr(error.message, "download.allow_addresses"));
        if (!strchr(wrong[i], ' ') && (unsigned char)wrong[i][1] < 0x80 &&
            !strstr(error.message, wrong[i]))
            fail_msg("'%s' does not name '%s'", error.message, wrong[i]);
    }
    char *many = calloc(1, 40000);
    for (size_t i = 0; i < 1000; i++)
        strcat(many, i % 2 ? "a.site\n" : "10.0.0.1,");
    guard = s_guard(many, NULL);
    assert_true(s_address_passes(guard, "10.0.0.1"));
    lade_guard_destroy(&guard);
    strcat(many, "b.site");
    assert_int_equal(lade_guard_new(&guard, many, NULL, NULL), LADE_CONFIG_ERROR);
    free(many);
}

static void
test_a_refusal_does_not_tell_where_a_name_leads(void **state)
{
    (void)state;
    lade_guard_t *guard = s_guard("", NULL);
    lade_error_t error = {0};
    assert_int_equal(s_check(guard, "inner.example", "10.11.12.13", 80, &error), LADE_UNSAFE_URL);
    assert_non_null(strstr(error.message, "inner.example"));
    assert_null(strstr(error.message, "10.11"));
    assert_non_null(strstr(error.message, "download.allow_addresses"));
    assert_int_equal(lade_guard_check_url(guard, "http://user:secret@127.0.0.1/", &error),
                     LADE_UNSAFE_URL);
    assert_null(strstr(error.message, "secret"));
    char host[600];
    memset(host, 'a', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    assert_int_equal(s_check(guard, host, "10.11.12.13", 80, &error), LADE_UNSAFE_URL);
    lade_guard_destroy(&guard);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_public_addresses_are_reached),
        cmocka_unit_test(test_an_address_in_a_url_is_judged_like_one_of_a_socket),
        cmocka_unit_test(test_no_spelling_hides_an_address),
        cmocka_unit_test(test_only_http_with_a_host_and_a_port),
        cmocka_unit_test(test_urls_are_taken_apart),
        cmocka_unit_test(test_what_an_operator_allows_is_reached_and_nothing_beside_it),
        cmocka_unit_test(test_a_host_on_the_list_may_lead_anywhere),
        cmocka_unit_test(test_the_operators_own_hub_is_reached_at_its_port_only),
        cmocka_unit_test(test_a_wrong_entry_is_named),
        cmocka_unit_test(test_a_refusal_does_not_tell_where_a_name_leads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
