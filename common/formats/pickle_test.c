// The walk over pickles: what it builds, what it says, where it stops.
#include "common/formats/pickle.h"

#include "common/formats/tensor_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    lade_tensors_t list;
    lade_pickle_t *pickle;
} s_walk_t;

static int
s_set_up(void **state)
{
    s_walk_t *self = calloc(1, sizeof *self);
    self->list.unsafe = json_array();
    *state = self;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_walk_t *self = *state;
    lade_pickle_destroy(&self->pickle);
    json_decref(self->list.unsafe);
    free(self);
    return 0;
}

static lade_code_t
s_walk(s_walk_t *self, const char *bytes, size_t len, lade_object_t **root_p, lade_error_t *error)
{
    lade_pickle_destroy(&self->pickle);
    json_array_clear(self->list.unsafe);
    self->pickle = lade_pickle_new((const uint8_t *)bytes, len, &self->list, "x");
    return lade_pickle_next(self->pickle, root_p, error);
}

// "what name; what name" of the findings.
static const char *
s_said(const s_walk_t *self, char out[400])
{
    size_t i, len = 0;
    json_t *finding;
    *out = '\0';
    json_array_foreach(self->list.unsafe, i, finding)
    {
        const char *what, *name;
        json_unpack(finding, "{s:s, s:s}", "what", &what, "name", &name);
        len += (size_t)snprintf(out + len, 400 - len, "%s%s %s", i ? "; " : "", what, name);
    }
    return out;
}

static void
test_the_table_is_sorted_and_names_nothing_that_runs_what_it_is_given(void **state)
{
    static const char *const never[] = {"os.system",         "posix.system",
                                        "nt.system",         "subprocess.Popen",
                                        "builtins.eval",     "builtins.exec",
                                        "builtins.compile",  "builtins.__import__",
                                        "__builtin__.apply", "operator.attrgetter",
                                        "functools.partial", "importlib.import_module",
                                        "pickle.loads",      "_pickle.loads",
                                        "torch.load",        "torch.hub.load",
                                        "runpy.run_path",    "pty.spawn",
                                        "builtins.map",      "builtins.open",
                                        "builtins.setattr",  "builtins.vars",
                                        "builtins.globals",  "torch.jit.load",
                                        "numpy.load",        "joblib.load",
                                        "types.CodeType",    "types.FunctionType",
                                        "marshal.loads",     "sys.modules",
                                        "ctypes.CDLL",       "torch._dynamo.guards.eval"};
    size_t count;
    const lade_global_t *rows = lade_pickle_globals(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        if (i) {
            int order = strcmp(rows[i - 1].module, rows[i].module);
            assert_true(order < 0 || (order == 0 && strcmp(rows[i - 1].name, rows[i].name) < 0));
        }
        assert_ptr_equal(lade_pickle_global(rows[i].module, strlen(rows[i].module), rows[i].name,
                                            strlen(rows[i].name)),
                         &rows[i]);
    }
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        const char *dot = strrchr(never[i], '.');
        assert_null(
            lade_pickle_global(never[i], (size_t)(dot - never[i]), dot + 1, strlen(dot + 1)));
    }
}

#define BYTES(text) text, sizeof text - 1

static void
test_values_of_every_protocol(void **state)
{
    s_walk_t *self = *state;
    lade_object_t *root;
    lade_error_t error = {0};
    // {'a': [1, -2, 2.5, None, True], "b\n": (3, 4)}
    static const char old[] = "(dp0\nS'a'\np1\n(lp2\nI1\naI-2\naF2."
                              "5\naNaI01\nasV\\u00e4\\u20ac\np3\n(I3\nL4L\ntp4\nsg1\ng2\ns.";
    assert_int_equal(s_walk(self, BYTES(old), &root, &error), LADE_OK);
    assert_int_equal(root->kind, LADE_OBJECT_DICT);
    assert_int_equal(root->len, 6);
    assert_true(lade_object_says(root->items[0], "a"));
    const lade_object_t *list = root->items[1];
    assert_int_equal(list->len, 5);
    assert_int_equal(list->items[1]->integer, -2);
    assert_true(list->items[2]->real == 2.5);
    assert_int_equal(list->items[3]->kind, LADE_OBJECT_NONE);
    assert_int_equal(list->items[4]->kind, LADE_OBJECT_BOOL);
    assert_true(lade_object_says(root->items[2], "\xc3\xa4\xe2\x82\xac"));
    assert_int_equal(root->items[3]->items[1]->integer, 4);
    assert_ptr_equal(root->items[5], list); // the memo gives the thing itself
    static const char new[] =
        "\x80\5\x95\x20\0\0\0\0\0\0\0(\x8c\1x\x94K\xffM\xff\xffJ\xff\xff\xff\xff"
        "\x8a\2\0\x80\x8b\1\0\0\0\x05G@\4\0\0\0\0\0\0\x8f(K\1\x90\x88\x89"
        "C\2\0\1t.";
    assert_int_equal(s_walk(self, BYTES(new), &root, &error), LADE_OK);
    assert_int_equal(root->len, 11);
    assert_int_equal(root->items[1]->integer, 255);
    assert_int_equal(root->items[2]->integer, 65535);
    assert_int_equal(root->items[3]->integer, -1);
    assert_int_equal(root->items[4]->integer, -32768);
    assert_int_equal(root->items[5]->integer, 5);
    assert_true(root->items[6]->real == 2.5);
    assert_int_equal(root->items[7]->kind, LADE_OBJECT_SET);
    assert_int_equal(root->items[10]->len, 2);
    assert_int_equal(json_array_size(self->list.unsafe), 0);
}

static void
test_whatever_would_run_is_named(void **state)
{
    s_walk_t *self = *state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *said;
    } rows[] = {
        {BYTES("cos\nsystem\n(S'id'\ntR."), "global os.system; call os.system"},
        {BYTES("(S'id'\nios\nsystem\n."), "global os.system; call os.system"},
        {BYTES("(cos\nsystem\nS'id'\no."), "global os.system; call os.system"},
        {BYTES("\x80\4\x8c\2os\x8c\6system\x93\x8c\2id\x85R."), "global os.system; call os.system"},
        {BYTES("\x80\4\x8c\2os\x94\x8c\6system\x93h\0\x85\x81."),
         "global os.system; call os.system"},
        {BYTES("\x80\2cos\nsystem\n)}\x92."), "global os.system; call os.system"},
        {BYTES("cos\nsystem\n."), "global os.system"},
        {BYTES("\x82\1."), "extension extension 1"},
        {BYTES("\x82\1)R."), "extension extension 1; global an extension; call an extension"},
        // a table's function that leads out of the table
        {BYTES("c__builtin__\ngetattr\n(ccollections\nOrderedDict\nS'__class__'\ntR."),
         "global __builtin__.getattr; call __builtin__.getattr"},
        {BYTES("ccopy_reg\n_reconstructor\n(cos\nsystem\nNNtR."),
         "global os.system; global copy_reg._reconstructor; call copy_reg._reconstructor"},
        {BYTES("c_codecs\nencode\n(VaVrot13\ntR."), "global _codecs.encode; call _codecs.encode"},
        {BYTES("ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nset\ncbuiltins\nset\n)NtR."),
         "global torch._tensor._rebuild_from_type_v2; call torch._tensor._rebuild_from_type_v2"},
        // named only, and called or changed all the same
        {BYTES("cnumpy\nndarray\n)R."), "global numpy.ndarray; call numpy.ndarray"},
        {BYTES("ccollections\nOrderedDict\n}b."), "misuse collections.OrderedDict"},
        {BYTES("S'a'\n)R."), "global a value; call a value"},
        {BYTES("\x80\4K\1K\2\x93."), "global a value"},
        {BYTES("ctorch\nSize\nK\1K\2s."), "misuse torch.Size"},
        {BYTES("ccollections\nOrderedDict\n)R(K\1K\2u."), ""},
        {BYTES("cargparse\nNamespace\n)R}b."), ""},
    };
    char said[400];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_object_t *root;
        lade_error_t error = {0};
        lade_code_t code = s_walk(self, rows[i].bytes, rows[i].len, &root, &error);
        if (code || strcmp(s_said(self, said), rows[i].said) != 0)
            fail_msg("row %zu: %s: said '%s'", i, error.message, s_said(self, said));
    }
}

static void
test_what_makes_no_sense_is_refused_and_what_came_before_is_said(void **state)
{
    s_walk_t *self = *state;
    static const struct {
        const char *bytes;
        size_t len;
        lade_code_t code;
        const char *words;
    } rows[] = {
        {BYTES("cos\nsystem\n(S'id'\ntR"), LADE_CORRUPT, "without STOP"},
        {BYTES("cos\nsystem\n(S'id'\ntR\xff."), LADE_CORRUPT, "no such opcode"},
        {BYTES("cos\nsystem\n(S'id'\ntR0."), LADE_CORRUPT, "too little"},
        {BYTES("cos\nsystem\n(S'id'\ntR\x80\6."), LADE_CORRUPT, "no such protocol"},
        {BYTES("cos\nsystem\n(S'id'\ntRh\7."), LADE_CORRUPT, "no such entry"},
        {BYTES("cos\nsystem\n(S'id'\ntRr\xff\xff\xff\x7f."), LADE_CORRUPT, "fewer entries"},
        {BYTES("cos\nsystem\n(S'id'\ntRX\xff\xff\xff\xff."), LADE_CORRUPT, "ends within"},
        {BYTES("cos\nsystem\n(S'id'\ntR\x97."), LADE_CORRUPT, "buffers"},
        {BYTES("cos\nsystem\n(S'id'\ntRS'a\n."), LADE_CORRUPT, "quotes"},
        {BYTES("cos\nsystem\n(S'id'\ntRI1x\n."), LADE_CORRUPT, "number"},
        {BYTES("cos\nsystem\n(S'id'\ntR(K\1d."), LADE_CORRUPT, "without value"},
        {BYTES("cos\nsystem\n(S'id'\ntR\x8e\xff\xff\xff\xff\xff\xff\xff\xff."), LADE_CORRUPT,
         "ends"},
    };
    char said[400];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_object_t *root;
        lade_error_t error = {0};
        lade_code_t code = s_walk(self, rows[i].bytes, rows[i].len, &root, &error);
        if (code != rows[i].code || root || !strstr(error.message, rows[i].words))
            fail_msg("row %zu: %s", i, error.message);
        assert_string_equal(s_said(self, said), "global os.system; call os.system");
        assert_int_equal(lade_pickle_calls(self->pickle), 1);
    }
}

static void
test_ceilings(void **state)
{
    s_walk_t *self = *state;
    lade_object_t *root;
    lade_error_t error = {0};
    size_t len = LADE_PICKLE_MAX_STACK + 10;
    char *bytes = malloc(len);
    memset(bytes, '(', len);
    assert_int_equal(s_walk(self, bytes, len, &root, &error), LADE_TOO_LARGE);
    assert_non_null(strstr(error.message, "deep"));
    memset(bytes, 'N', len);
    assert_int_equal(s_walk(self, bytes, len, &root, &error), LADE_TOO_LARGE);
    assert_non_null(strstr(error.message, "stack"));
    free(bytes);
    len = 2 * (LADE_PICKLE_MAX_OBJECTS + 10);
    bytes = malloc(len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = i % 2 ? '0' : ']';
    assert_int_equal(s_walk(self, bytes, len, &root, &error), LADE_TOO_LARGE);
    assert_non_null(strstr(error.message, "values"));
    free(bytes);
}

static void
test_one_pickle_after_the_other(void **state)
{
    s_walk_t *self = *state;
    lade_object_t *root;
    assert_int_equal(s_walk(self, BYTES("K\1.K\2q\1.h\1."), &root, NULL), LADE_OK);
    assert_int_equal(root->integer, 1);
    assert_true(lade_pickle_more(self->pickle));
    assert_int_equal(lade_pickle_next(self->pickle, &root, NULL), LADE_OK);
    assert_int_equal(root->integer, 2);
    assert_int_equal(lade_pickle_at(self->pickle), 8);
    assert_int_equal(lade_pickle_next(self->pickle, &root, NULL), LADE_CORRUPT); // a memo each
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, s_set_up, s_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_table_is_sorted_and_names_nothing_that_runs_what_it_is_given),
        TEST(test_values_of_every_protocol),
        TEST(test_whatever_would_run_is_named),
        TEST(test_what_makes_no_sense_is_refused_and_what_came_before_is_said),
        TEST(test_ceilings),
        TEST(test_one_pickle_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
