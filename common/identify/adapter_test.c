// The widths that tensors of adapters tell, and halves without their other half.
#include "common/identify/adapter.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    const char *name;
    int rank;
    int shape[4];
} s_row_t;

// A safetensors file of these tensors without their data, as one of one byte each would be too.
static lade_tensors_t *
s_open(const s_row_t *rows, size_t count)
{
    char path[160], header[8192];
    size_t len = 0, at = 0;
    snprintf(path, sizeof path, "%s/lade-adapter-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    len += (size_t)sprintf(header, "{");
    for (size_t i = 0; i < count; i++) {
        size_t size = 1;
        len += (size_t)sprintf(header + len, "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[", i ? "," : "",
                               rows[i].name);
        for (int j = 0; j < rows[i].rank; j++) {
            len += (size_t)sprintf(header + len, "%s%d", j ? "," : "", rows[i].shape[j]);
            size *= (size_t)rows[i].shape[j];
        }
        len += (size_t)sprintf(header + len, "],\"data_offsets\":[%zu,%zu]}", at, at + size);
        at += size;
    }
    len += (size_t)sprintf(header + len, "}");
    unsigned char size[8] = {(unsigned char)len, (unsigned char)(len >> 8)};
    assert_int_equal(write(fd, size, 8), 8);
    assert_int_equal(write(fd, header, len), len);
    assert_int_equal(ftruncate(fd, (off_t)(8 + len + at)), 0);
    close(fd);
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    if (lade_tensors_open(path, &tensors, &error))
        fail_msg("%s", error.message);
    unlink(path);
    return tensors;
}

static void
test_each_kind_tells_what_its_layer_takes_and_gives(void **state)
{
    (void)state;
    static const s_row_t rows[] = {
        // clang-format off
        {"a.lora_down.weight", 2, {4, 768}},  {"a.lora_up.weight", 2, {320, 4}},  {"a.alpha", 0, {0}},
        {"b.lora_A.weight", 2, {4, 64}},      {"b.lora_B.weight", 2, {96, 4}},    {"b.dora_scale", 2, {96, 1}},
        {"c.hada_w1_a", 2, {30, 4}},          {"c.hada_w1_b", 2, {4, 20}},
        {"d.lokr_w1", 2, {2, 3}},             {"d.lokr_w2", 2, {5, 7}},
        {"e.lokr_w1_a", 2, {2, 9}},           {"e.lokr_w1_b", 2, {9, 3}},
        {"e.lokr_w2_a", 2, {5, 9}},           {"e.lokr_w2_b", 2, {9, 7}},
        {"f.diff", 2, {11, 13}},              {"f.diff_b", 1, {11}},
        {"lora_te_x_self_attn_k_proj.weight", 2, {1, 17}}, {"lora_unet_x_attn2_to_k.weight", 2, {1, 19}},
        {"g.processor.qkv_lora1.down.weight", 2, {4, 23}}, {"g.processor.qkv_lora1.up.weight", 2, {29, 4}},
        {"h.lokr_w1", 2, {2, 3}}, // whose other factor is missing
        // clang-format on
    };
    static const struct {
        const char *name;
        uint64_t input, output;
    } expected[] = {
        // clang-format off
        {"a.lora_down.weight", 768, 0}, {"a.lora_up.weight", 0, 320}, {"a.alpha", 0, 0},
        {"b.lora_A.weight", 64, 0}, {"b.lora_B.weight", 0, 96}, {"b.dora_scale", 0, 0},
        {"c.hada_w1_a", 0, 30}, {"c.hada_w1_b", 20, 0}, {"d.lokr_w1", 21, 10}, {"d.lokr_w2", 21, 10},
        {"e.lokr_w1_a", 21, 10}, {"e.lokr_w2_b", 21, 10}, {"f.diff", 13, 11}, {"f.diff_b", 0, 11},
        {"lora_te_x_self_attn_k_proj.weight", 17, 0}, {"lora_unet_x_attn2_to_k.weight", 0, 0},
        {"g.processor.qkv_lora1.down.weight", 23, 0}, {"g.processor.qkv_lora1.up.weight", 0, 29},
        {"h.lokr_w1", 0, 0},
        // clang-format on
    };
    lade_tensors_t *tensors = s_open(rows, sizeof rows / sizeof *rows);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const lade_tensor_t *tensor = lade_tensors_find(tensors, expected[i].name);
        assert_non_null(tensor);
        uint64_t input = lade_adapter_width(tensors, tensor, false);
        uint64_t output = lade_adapter_width(tensors, tensor, true);
        if (input != expected[i].input || output != expected[i].output)
            fail_msg("%s: %d to %d", expected[i].name, (int)input, (int)output);
    }
    assert_null(lade_adapter_orphan(tensors));
    lade_tensors_destroy(&tensors);
}

static void
test_a_half_without_its_other_half_is_found(void **state)
{
    (void)state;
    static const s_row_t rows[] = {{"a.lora_A.weight", 2, {4, 8}},
                                   {"a.lora_B.weight", 2, {8, 4}},
                                   {"b.lora_A.weight", 2, {4, 8}}};
    lade_tensors_t *tensors = s_open(rows, 3);
    assert_string_equal(lade_adapter_orphan(tensors)->name, "b.lora_A.weight");
    lade_tensors_destroy(&tensors);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_tells_what_its_layer_takes_and_gives),
        cmocka_unit_test(test_a_half_without_its_other_half_is_found),
    };
    return cmocka_run_group_tests_name("adapter", tests, NULL, NULL);
}
