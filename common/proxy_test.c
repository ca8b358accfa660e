// Which proxy a URL goes through.
#include "common/proxy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const s_names[] = {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY",
                                      "all_proxy",  "ALL_PROXY",   "no_proxy",   "NO_PROXY"};

static int
s_forget(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof s_names / sizeof *s_names; i++)
        unsetenv(s_names[i]);
    return 0;
}

static void
s_expect(const char *setting, const char *url, const char *expected)
{
    char *proxy = lade_proxy_for(setting, url);
    if (strcmp(proxy, expected) != 0)
        fail_msg("%s goes through '%s', not '%s'", url, proxy, expected);
    free(proxy);
}

static void
test_the_setting_beats_the_environment(void **state)
{
    (void)state;
    s_expect("", "http://a.example/", "");
    s_expect(NULL, "http://a.example/", "");
    s_expect("http://p:1", "http://a.example/", "http://p:1");
    setenv("http_proxy", "http://env:1", 1);
    setenv("no_proxy", "*", 1);
    s_expect("http://p:1", "http://a.example/", "http://p:1");
    s_expect("http://p:1", "https://127.0.0.1/", "http://p:1");
}

static void
test_each_scheme_has_its_variables(void **state)
{
    (void)state;
    setenv("HTTP_PROXY", "http://trap:1", 1);
    setenv("ALL_PROXY", "http://ALL:1", 1);
    s_expect("", "http://a.example/", "http://ALL:1");
    setenv("all_proxy", "http://all:1", 1);
    s_expect("", "http://a.example/", "http://all:1");
    s_expect("", "https://a.example/", "http://all:1");
    setenv("HTTPS_PROXY", "http://S:1", 1);
    s_expect("", "https://a.example/", "http://S:1");
    setenv("https_proxy", "http://s:1", 1);
    s_expect("", "https://a.example/", "http://s:1");
    setenv("http_proxy", "http://h:1", 1);
    s_expect("", "HTTP://a.example/", "http://h:1");
    setenv("http_proxy", "", 1); // as if it were not set
    s_expect("", "http://a.example/", "http://all:1");
    s_expect("", "ftp://a.example/", "");
}

static void
test_hosts_of_no_proxy_are_asked_directly(void **state)
{
    (void)state;
    static const struct {
        const char *list, *url;
        bool direct;
    } rows[] = {
        // clang-format off
        {"*",                      "http://a.example/",          true},
        {"a.example",              "http://a.example:80/",       true},
        {"A.Example",              "http://a.example/",          true},
        {"a.example.",             "http://a.example./",         true},
        {"example",                "http://a.example/",          true},
        {".example",               "http://a.example/",          true},
        {".example",               "http://example/",            true},
        {"b.example, a.example",   "http://a.example/",          true},
        {"b.example a.example",    "http://a.example/",          true},
        {"ample",                  "http://a.example/",          false},
        {"b.a.example",            "http://a.example/",          false},
        {"a.example.org",          "http://a.example/",          false},
        {"",                       "http://a.example/",          false},
        {",, .",                   "http://a.example/",          false},
        {"10.0.0.0/8",             "http://10.1.2.3/",           true},
        {"10.0.0.0/8",             "http://11.1.2.3/",           false},
        {"10.0.0.0/33",            "http://10.0.0.0/",           false},
        {"10.0.0.0/",              "http://11.1.2.3/",           false},
        {"10.1.2.0/23",            "http://10.1.3.9/",           true},
        {"10.1.2.3",               "http://10.1.2.3/",           true},
        {"10.1.2.3",               "http://10.1.2.33/",          false},
        {"fd00::/16",              "http://[fd00::1]/",          true},
        {"::1",                    "http://[::1]:80/",           true},
        {"[::1]",                  "http://[0::1]:80/",          true},
        {"::1",                    "http://[::2]:80/",           false},
        // clang-format on
    };
    setenv("http_proxy", "http://p:1", 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        setenv("no_proxy", rows[i].list, 1);
        s_expect("", rows[i].url, rows[i].direct ? "" : "http://p:1");
    }
    unsetenv("no_proxy");
    setenv("NO_PROXY", "a.example", 1);
    s_expect("", "http://a.example/", "");
}

static void
test_what_is_no_proxy_is_refused_and_not_repeated(void **state)
{
    (void)state;
    static const char *const right[] = {"",
                                        "proxy",
                                        "proxy:3128",
                                        "http://proxy.site:3128/",
                                        "HTTPS://user:pa%40ss@10.0.0.1:3128",
                                        "socks5h://[::1]:1080",
                                        "socks4://p",
                                        "socks4a://p",
                                        "socks5://p"};
    static const char *const wrong[] = {
        "ftp://secret:1", "://secret", "http://",  "secret:x",          "http://secret:1/path",
        "secret secret",  "secret\n",  "secret:0", "http://a@secret@c", "http://secret?x"};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        if (lade_proxy_check(right[i], NULL))
            fail_msg("'%s' was refused", right[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        lade_error_t error = {0};
        if (lade_proxy_check(wrong[i], &error) != LADE_CONFIG_ERROR)
            fail_msg("'%s' was taken", wrong[i]);
        assert_null(strstr(error.message, "secret"));
    }
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, s_forget)
    const struct CMUnitTest tests[] = {
        TEST(test_the_setting_beats_the_environment),
        TEST(test_each_scheme_has_its_variables),
        TEST(test_hosts_of_no_proxy_are_asked_directly),
        TEST(test_what_is_no_proxy_is_refused_and_not_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
