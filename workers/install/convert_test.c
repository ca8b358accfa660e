// A conversion by rules of one's own: every way a tensor can be taken over, configs, and what is
// wrong with a file.
#include "workers/install/convert.h"

#include "common/formats/json_file.h"
#include "common/formats/tensors.h"
#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char s_rules_text[] =
    "words:\n"
    "  wb: {weight: weight, bias: bias}\n"
    "maps:\n"
    "  mine:\n"
    "    - plain.{n}.{wb}: p.{n}.{wb}\n"
    "    - {from: point, to: matrix, as: linear}\n"
    "    - {from: high, to: wide, as: transposed}\n"
    "    - {from: rows, split: [r0, r1, r2]}\n"
    "    - {drop: gone}\n"
    "configs:\n"
    "  mine:\n"
    "    wide: {$shape: wide, axis: 1}\n"
    "    half: {$shape: wide, axis: 1, by: 2}\n"
    "    none: {$shape: nothing, else: 7}\n"
    "    plain: {$count: 'p.{n}.weight'}\n"
    "    base: {$record: base, map: {sd-1: one}, else: other}\n"
    "    up: {$record: upcast_attention, else: {$record: base}}\n"
    "    mark: {$has: marked}\n"
    "    list: [1, {$record: nobody}]\n"
    "kinds:\n"
    "  - type: main\n"
    "    base: sd-1\n"
    "    ema: {prefix: ema., of: m., take: true}\n"
    "    files: {model_index.json: mine-index, sub/x.json: mine-index}\n"
    "    parts:\n"
    "      - {folder: unet, prefix: m., map: mine, config: mine, file: w.safetensors}\n";

typedef struct {
    char folder[64];
    char *site, *file, *to;
    lade_convert_rules_t *rules;
} s_world_t;

static void
s_write(const char *folder, const char *name, const char *text)
{
    char *path = lade_path_join(folder, name);
    assert_int_equal(lade_path_write(path, text, strlen(text), 0644, NULL), LADE_OK);
    free(path);
}

static s_world_t
s_world(const char *more)
{
    s_world_t self = {.folder = "/tmp/convert_test_XXXXXX"};
    lade_error_t error = {0};
    assert_non_null(mkdtemp(self.folder));
    self.site = lade_path_join(self.folder, "site");
    self.file = lade_path_join(self.folder, "m.safetensors");
    self.to = lade_path_join(self.folder, "to");
    assert_int_equal(lade_path_mkdirs(self.site, 0755, NULL), LADE_OK);
    s_write(self.site, "a.yaml", s_rules_text);
    s_write(self.site, "b.yaml", more);
    if (lade_convert_rules_new(self.site, &self.rules, &error))
        fail_msg("%s", error.message);
    return self;
}

static void
s_end(s_world_t *self)
{
    lade_path_remove(self->folder, NULL);
    lade_convert_rules_destroy(&self->rules);
    free(self->site);
    free(self->file);
    free(self->to);
}

// A safetensors file: header as JSON, data counting up in U32.
static void
s_source(const s_world_t *self, const char *header, size_t values)
{
    FILE *file = fopen(self->file, "wb");
    assert_non_null(file);
    uint64_t len = strlen(header);
    assert_int_equal(fwrite(&len, 8, 1, file), 1);
    assert_int_equal(fwrite(header, len, 1, file), 1);
    for (uint32_t i = 0; i < values; i++)
        assert_int_equal(fwrite(&i, 4, 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

static lade_code_t
s_run(const s_world_t *self, lade_convert_progress_t *progress, void *arg,
      lade_convert_report_t *report, lade_error_t *error)
{
    json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s}", "key", "k", "type", "main", "base",
                               "sd-1", "format", "checkpoint", "variant", "strange");
    lade_code_t code =
        lade_convert_run(self->rules, record, self->file, self->to, progress, arg, report, error);
    json_decref(record);
    return code;
}

// The first values of a tensor of the result; its shape is checked.
static uint32_t *
s_values(const lade_tensors_t *list, const char *name, size_t rank, const uint64_t *shape)
{
    const lade_tensor_t *tensor = lade_tensors_find(list, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->rank, rank);
    for (size_t i = 0; i < rank; i++)
        assert_int_equal(tensor->shape[i], shape[i]);
    uint32_t *values = malloc(tensor->size + 1);
    FILE *file = fopen(lade_tensors_file(list, tensor->file), "rb");
    assert_non_null(values);
    assert_non_null(file);
    assert_int_equal(tensor->offset % 4, 0);
    assert_int_equal(fseek(file, (long)tensor->offset, SEEK_SET), 0);
    assert_int_equal(fread(values, 1, tensor->size, file), tensor->size);
    fclose(file);
    return values;
}

#define T(name, shape, from, to)                                                                   \
    "\"" name "\":{\"dtype\":\"U32\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"
#define SOURCE                                                                                     \
    "{" T("m.plain.0.weight", "[2,3]", 0, 24) "," T("m.plain.0.bias", "[2]", 24, 32) "," T(        \
        "m.point", "[2,2,1,1]", 32,                                                                \
        48) "," T("m.high", "[3,2]", 48,                                                           \
                  72) "," T("m.rows", "[6,1]", 72,                                                 \
                            96) "," T("m.gone", "[1]", 96,                                         \
                                      100) "," T("marked", "[0]", 100,                             \
                                                 100) "," T("ema.plain0weight", "[2,3]", 100,      \
                                                            124) "}"
static const char s_index[] = "configs: {mine-index: {_class_name: X}}\n";

static void
test_every_way(void **state)
{
    (void)state;
    s_world_t self = s_world(s_index);
    lade_error_t error = {0};
    lade_convert_report_t report;
    s_source(&self, SOURCE, 31);
    if (s_run(&self, NULL, NULL, &report, &error))
        fail_msg("%s", error.message);
    assert_int_equal(report.tensors, 7);
    assert_int_equal(report.ignored, 2); // the mark, and the average under its own name
    char *path = lade_path_join(self.to, "unet/w.safetensors");
    lade_tensors_t *list;
    assert_int_equal(lade_tensors_open(path, &list, &error), LADE_OK);
    assert_int_equal(lade_tensors_count(list), 7);
    uint32_t *values = s_values(list, "p.0.weight", 2, (uint64_t[]){2, 3});
    assert_int_equal(values[0], 25); // the average
    free(values);
    values = s_values(list, "matrix", 2, (uint64_t[]){2, 2});
    assert_memory_equal(values, ((uint32_t[]){8, 9, 10, 11}), 16);
    free(values);
    values = s_values(list, "wide", 2, (uint64_t[]){2, 3});
    assert_memory_equal(values, ((uint32_t[]){12, 14, 16, 13, 15, 17}), 24);
    free(values);
    values = s_values(list, "r2", 2, (uint64_t[]){2, 1});
    assert_memory_equal(values, ((uint32_t[]){22, 23}), 8);
    free(values);
    lade_tensors_destroy(&list);
    free(path);
    json_t *config = NULL, *wanted = json_pack("{s:i, s:i, s:i, s:i, s:s, s:s, s:b, s:[i, n]}",
                                               "wide", 3, "half", 1, "none", 7, "plain", 1, "base",
                                               "one", "up", "sd-1", "mark", 1, "list", 1);
    path = lade_path_join(self.to, "unet/config.json");
    assert_int_equal(lade_json_file_read(path, 4096, &config, &error), LADE_OK);
    assert_true(json_equal(config, wanted));
    json_decref(config);
    json_decref(wanted);
    free(path);
    path = lade_path_join(self.to, "sub/x.json");
    assert_int_equal(access(path, R_OK), 0);
    free(path);
    s_end(&self);
}

// More than one strip, more than one piece.
static void
test_a_large_one_is_transposed_in_strips(void **state)
{
    (void)state;
    enum { S_HEIGHT = 3000, S_WIDTH = 2500 };
    s_world_t self = s_world(s_index);
    lade_error_t error = {0};
    lade_convert_report_t report;
    s_source(&self, "{" T("m.high", "[3000,2500]", 0, 30000000) "}", S_HEIGHT * S_WIDTH);
    if (s_run(&self, NULL, NULL, &report, &error))
        fail_msg("%s", error.message);
    char *path = lade_path_join(self.to, "unet/w.safetensors");
    lade_tensors_t *list;
    assert_int_equal(lade_tensors_open(path, &list, &error), LADE_OK);
    uint32_t *values = s_values(list, "wide", 2, (uint64_t[]){S_WIDTH, S_HEIGHT});
    for (size_t x = 0; x < S_WIDTH; x++)
        for (size_t y = 0; y < S_HEIGHT; y++)
            if (values[x * S_HEIGHT + y] != y * S_WIDTH + x)
                fail_msg("%zu, %zu: %u", x, y, values[x * S_HEIGHT + y]);
    free(values);
    lade_tensors_destroy(&list);
    free(path);
    s_end(&self);
}

static bool
s_refuse(void *arg, uint64_t bytes, uint64_t total_bytes)
{
    *(uint64_t *)arg = total_bytes;
    return bytes == 0;
}

static void
test_it_stops_when_told(void **state)
{
    (void)state;
    s_world_t self = s_world(s_index);
    lade_error_t error = {0};
    lade_convert_report_t report;
    uint64_t total = 0;
    s_source(&self, SOURCE, 31);
    assert_int_equal(s_run(&self, s_refuse, &total, &report, &error), LADE_CANCELLED);
    assert_int_equal(total, 96);
    s_end(&self);
}

static void
test_what_is_wrong_with_a_file(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t values;
        lade_code_t code;
        const char *words;
    } rows[] = {
        {"{" T("m.strange", "[1]", 0, 4) "}", 1, LADE_INVALID_MODEL_CONFIG, "m.strange has no"},
        {"{" T("x.high", "[1,1]", 0, 4) "}", 1, LADE_INVALID_MODEL_CONFIG, "has no unet"},
        {"{" T("m.high", "[1]", 0, 4) "}", 1, LADE_INVALID_MODEL_CONFIG, "m.high has a shape"},
        {"{" T("m.rows", "[4]", 0, 16) "}", 4, LADE_INVALID_MODEL_CONFIG, "m.rows has a shape"},
        {"{" T("m.point", "[1,1,2]", 0, 8) "}", 2, LADE_INVALID_MODEL_CONFIG, "a shape"},
        {"{" T("m.rows", "[3]", 0, 12) "}", 3, LADE_INVALID_MODEL_CONFIG, "what would be wide"},
        {"{" T("m.rows", "[3]", 0, 12) "}", 2, LADE_CORRUPT, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_world_t self = s_world(s_index);
        lade_error_t error = {0};
        lade_convert_report_t report;
        s_source(&self, rows[i].header, rows[i].values);
        assert_int_equal(s_run(&self, NULL, NULL, &report, &error), rows[i].code);
        if (!strstr(error.message, rows[i].words))
            fail_msg("%s: %s", rows[i].words, error.message);
        s_end(&self);
    }
}

static void
test_two_of_one_name_are_refused(void **state)
{
    (void)state;
    s_world_t self = s_world("maps:\n  x:\n    - a.{n}: b\n"
                             "configs: {mine-index: {}, x: {}}\n");
    s_write(self.site, "0.yaml",
            "kinds: [{type: main, base: sd-1, parts: [{folder: unet, prefix: m., map: x, config: "
            "x, file: w}]}]\n");
    lade_error_t error = {0};
    lade_convert_report_t report;
    lade_convert_rules_destroy(&self.rules);
    assert_int_equal(lade_convert_rules_new(self.site, &self.rules, &error), LADE_OK);
    s_source(&self, "{" T("m.a.1", "[1]", 0, 4) "," T("m.a.2", "[1]", 4, 8) "}", 2);
    assert_int_equal(s_run(&self, NULL, NULL, &report, &error), LADE_INVALID_MODEL_CONFIG);
    assert_non_null(strstr(error.message, "would both become b"));
    s_end(&self);
}

static void
test_wrong_files_of_rules_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"[]", "a map with words"},
        {"rules: {}", "there is no 'rules'"},
        {"maps: 7", "maps: a map of names"},
        {"kinds: {}", "kinds: a list"},
        {"a: [", "c.yaml:"},
        {"kinds: [{type: main}]", "a kind has type, base, parts"},
        {"kinds: [{type: main, base: x, parts: [{folder: u, prefix: a, map: nobody}]}]",
         "there is none 'nobody'"},
        {"kinds: [{type: main, base: x, parts: [{folder: u, prefix: a, map: mine, config: no}]}]",
         "config: there is none 'no'"},
        {"kinds: [{type: main, base: x, parts: [{folder: ../u, prefix: a, map: mine, config: "
         "mine, file: f}]}]",
         "../u"},
        {"kinds: [{type: main, base: x, files: {/etc/x: mine}, parts: [{}]}]", "/etc/x"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_world_t self = s_world(s_index);
        lade_error_t error = {0};
        s_write(self.site, "c.yaml", rows[i].text);
        lade_convert_rules_destroy(&self.rules);
        assert_int_equal(lade_convert_rules_new(self.site, &self.rules, &error), LADE_CONFIG_ERROR);
        if (!strstr(error.message, rows[i].words))
            fail_msg("%s: %s", rows[i].text, error.message);
        s_end(&self);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_way),
        cmocka_unit_test(test_a_large_one_is_transposed_in_strips),
        cmocka_unit_test(test_it_stops_when_told),
        cmocka_unit_test(test_what_is_wrong_with_a_file),
        cmocka_unit_test(test_two_of_one_name_are_refused),
        cmocka_unit_test(test_wrong_files_of_rules_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
