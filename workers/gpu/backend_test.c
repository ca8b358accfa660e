// Every backend there is does what backend.h says: conformance.h against the host's and against
// each device of the plug-ins.
#include "workers/gpu/conformance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void
test_host(void **state)
{
    (void)state;
    assert_int_equal(conformance_run(&lade_backend_host, 0, false, NULL), 0);
}

static void
test_cuda(void **state)
{
    (void)state;
    const lade_backend_t *backend;
    lade_error_t error = {0};
    size_t count = 0;
    lade_code_t code = lade_backend_find("cuda", &backend, &error);
    if (!code)
        count = backend->count(&error);
    if (!count) {
        assert_true(error.code && error.message[0]); // it says why there is none
        fprintf(stderr, "no CUDA device: %s\n", error.message);
        skip();
    }
    for (size_t i = 0; i < count; i++)
        for (int plain = 0; plain < 2; plain++)
            assert_int_equal(conformance_run(backend, i, plain, NULL), 0);
}

int
main(int argc, char **argv)
{
    int status;
    if (conformance_child(argc, argv, &status))
        return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_cuda),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
