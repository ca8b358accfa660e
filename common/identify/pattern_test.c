// The search for patterns finds what trying every tensor finds, whatever patterns and names.
#include "common/identify/pattern.h"

#include "common/formats/tensor_list.h"
#include "common/identify/parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static lade_tensors_t *
s_list(const char *const *names, size_t count)
{
    lade_tensors_t *list;
    assert_int_equal(lade_tensors_open_files(NULL, 0, &list, NULL), LADE_OK);
    for (size_t i = 0; i < count; i++) {
        lade_tensor_t tensor = {.name = lade_tensor_list_keep(list, names[i], strlen(names[i])),
                                .name_len = strlen(names[i])};
        lade_tensor_list_add(list, &tensor, NULL); // the same name again is not added
    }
    return list;
}

// ---------------------------------------------------------------------------------------------------
// Texts

static void
s_assert_found(const lade_parts_found_t *found, uint32_t part, const char *wanted)
{
    char got[200] = "";
    uint32_t cursor = 0, tensor;
    size_t count = 0;
    for (; lade_parts_found_next(found, part, &cursor, &tensor); count++)
        sprintf(got + strlen(got), "%s%u", count ? " " : "", tensor);
    assert_string_equal(got, wanted);
    assert_int_equal(lade_parts_found_count(found, part), count);
}

static void
test_texts_are_found_where_they_have_to_be(void **state)
{
    (void)state;
    static const char *const names[] = {"abc", "abcabc", "bca", "cab", "zabz", "abcd.weight", "b"};
    lade_tensors_t *list = s_list(names, sizeof names / sizeof *names);
    lade_parts_t *parts = lade_parts_new();
    uint32_t begins = lade_parts_add(parts, LADE_PART_PREFIX, "ab", 2);
    uint32_t ends = lade_parts_add(parts, LADE_PART_SUFFIX, "abc", 3);
    uint32_t inside = lade_parts_add(parts, LADE_PART_INSIDE, "ab", 2);
    uint32_t one = lade_parts_add(parts, LADE_PART_INSIDE, "b", 1);
    uint32_t overlap = lade_parts_add(parts, LADE_PART_INSIDE, "cab", 3);
    uint32_t whole = lade_parts_add(parts, LADE_PART_SUFFIX, "abcd.weight", 11);
    uint32_t none = lade_parts_add(parts, LADE_PART_PREFIX, "abcabcabc", 9);
    assert_int_equal(lade_parts_add(parts, LADE_PART_PREFIX, "ab", 2), begins);
    assert_int_not_equal(begins, inside);
    assert_true(lade_parts_add(parts, LADE_PART_PREFIX, "", 0) == LADE_PARTS_NONE);
    lade_parts_build(parts);
    lade_parts_found_t *found = lade_parts_find(parts, list);
    s_assert_found(found, begins, "0 1 5");
    s_assert_found(found, ends, "0 1");
    s_assert_found(found, inside, "0 1 3 4 5");
    s_assert_found(found, one, "0 1 2 3 4 5 6");
    s_assert_found(found, overlap, "1 3");
    s_assert_found(found, whole, "5");
    s_assert_found(found, none, "");
    lade_parts_found_destroy(&found);
    lade_parts_destroy(&parts);
    lade_tensors_destroy(&list);
}

static void
test_texts_over_the_ceiling_are_not_taken(void **state)
{
    (void)state;
    lade_parts_t *parts = lade_parts_new();
    char text[200];
    uint32_t part = 0;
    for (int i = 0; part != LADE_PARTS_NONE; i++) {
        snprintf(text, sizeof text, "%0150d", i);
        part = lade_parts_add(parts, LADE_PART_INSIDE, text, strlen(text));
        assert_true(i < 1000);
    }
    lade_parts_build(parts);
    lade_parts_destroy(&parts);
}

// ---------------------------------------------------------------------------------------------------
// Patterns

enum { S_NAMES = 400, S_PATTERNS = 300 };

static uint64_t
s_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static const char *const s_pieces[] = {"lora_", "unet_", "up.",     "0",    "1",   ".",
                                       "to_k",  "_",     ".weight", "bias", "a-b", "model."};
static const char *const s_regexes[] = {
    // clang-format off
    "^lora_unet_(up|down)", "^lora_", "to_k\\.weight$", "^(lora_|unet_)?up\\.[0-9]+", "[._]to_k(\\.weight)?$",
    "lora_unet_+up", "^mode?l\\.", "^model\\.{1}0", "(a|b)-b", "weight|bias", "^lora_|^unet_", "up\\.(0|1)\\.weight",
    "[]_.]weight$", "lora[^]]unet", "^[[:alpha:]]+_[0-9]", "model\\.*up", "a-b$", "^$", "x|", "to_k{1,2}\\.",
    "^model\\.(up\\.|[0-9])*to_k", "\\.weight$", "weigh\\w", "^lora_unet_up\\.0to_k\\.weight$",
    // clang-format on
};

#define PICK(list, seed) ((list)[s_random(seed) % (sizeof(list) / sizeof *(list))])

static json_t *
s_texts(uint64_t *seed)
{
    json_t *list = json_array();
    for (size_t i = 0, count = 1 + s_random(seed) % 3; i < count; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s%s", PICK(s_pieces, seed),
                 s_random(seed) % 2 ? PICK(s_pieces, seed) : "");
        json_array_append_new(list, json_string(text));
    }
    return list;
}

static lade_pattern_t *
s_pattern(uint64_t *seed, const char *const *names, int depth)
{
    lade_pattern_t *self = calloc(1, sizeof *self);
    uint64_t which = s_random(seed);
    self->prefix = which & 1 ? s_texts(seed) : NULL;
    self->suffix = which & 6 ? NULL : s_texts(seed);
    self->contains = which & 8 ? s_texts(seed) : NULL;
    if (!(which & 0x70))
        self->exact = json_pack("[ss]", names[s_random(seed) % S_NAMES], names[0]);
    if (which & 0x80) {
        self->regex_text = PICK(s_regexes, seed);
        self->regex = calloc(1, sizeof *self->regex);
        assert_int_equal(regcomp(self->regex, self->regex_text, REG_EXTENDED | REG_NOSUB), 0);
    }
    if (json_array_size(self->suffix) == 1 && which & 0x100)
        self->sibling = "bias";
    if (depth < 2 && !(which & 0x600))
        self->except = s_pattern(seed, names, depth + 1);
    return self;
}

static void
s_pattern_free(lade_pattern_t *self)
{
    if (!self)
        return;
    s_pattern_free(self->except);
    json_decref(self->exact);
    json_decref(self->prefix);
    json_decref(self->suffix);
    json_decref(self->contains);
    if (self->regex)
        regfree(self->regex);
    free(self->regex);
    free(self);
}

static void
s_add(lade_patterns_t *patterns, lade_pattern_t *pattern)
{
    if (pattern->except)
        s_add(patterns, pattern->except);
    lade_patterns_add(patterns, pattern);
}

static bool
s_is_only_exact(const lade_pattern_t *pattern)
{
    return pattern->exact && !pattern->prefix && !pattern->suffix && !pattern->contains &&
           !pattern->regex && !pattern->except;
}

// Twice, the second time from what is remembered, and at first only to the first.
static void
s_compare(lade_search_t *search, const lade_pattern_t *pattern, const lade_tensors_t *list)
{
    size_t at = 0, count = lade_tensors_count(list);
    lade_search_next(search, pattern, &at);
    for (int round = 0; round < 2; round++) {
        at = 0;
        for (size_t i = 0; i < count; i++) {
            const lade_tensor_t *tensor = lade_tensors_get(list, i);
            if (!lade_search_fits(search, pattern, tensor))
                continue;
            const lade_tensor_t *found = lade_search_next(search, pattern, &at);
            if (found != tensor)
                fail_msg("%s: %s, not %s", pattern->regex_text ? pattern->regex_text : "",
                         found ? found->name : "none", tensor->name);
        }
        assert_null(lade_search_next(search, pattern, &at));
    }
}

static void
test_a_search_finds_what_trying_all_finds(void **state)
{
    (void)state;
    uint64_t seed = getenv("LADE_SEED") ? strtoull(getenv("LADE_SEED"), NULL, 10) : 20261127;
    for (int round = 0; round < 10; round++) {
        char *names[S_NAMES];
        lade_pattern_t *made[S_PATTERNS];
        for (size_t i = 0; i < S_NAMES; i++) {
            names[i] = calloc(1, 200);
            for (size_t j = 0, count = 1 + s_random(&seed) % 6; j < count; j++)
                strcat(names[i], PICK(s_pieces, &seed));
        }
        lade_tensors_t *list = s_list((const char *const *)names, S_NAMES);
        lade_patterns_t *patterns = lade_patterns_new();
        for (size_t i = 0; i < S_PATTERNS; i++)
            s_add(patterns, made[i] = s_pattern(&seed, (const char *const *)names, 0));
        lade_patterns_build(patterns);
        lade_search_t *search = lade_search_new(patterns, list);
        for (size_t i = 0; i < S_PATTERNS; i++)
            if (!s_is_only_exact(made[i]))
                s_compare(search, made[i], list);
        lade_search_destroy(&search);
        for (size_t i = 0; i < S_PATTERNS; i++)
            s_pattern_free(made[i]);
        lade_patterns_destroy(&patterns);
        lade_tensors_destroy(&list);
        for (size_t i = 0; i < S_NAMES; i++)
            free(names[i]);
    }
}

static void
test_of_whole_names_the_first_wanted_one_is_found(void **state)
{
    (void)state;
    static const char *const names[] = {"b", "a"};
    lade_tensors_t *list = s_list(names, 2);
    lade_pattern_t pattern = {.exact = json_pack("[sss]", "c", "a", "b")};
    lade_pattern_t equal = {.exact = json_pack("[sss]", "c", "a", "b")};
    lade_patterns_t *patterns = lade_patterns_new();
    lade_patterns_add(patterns, &pattern);
    lade_patterns_add(patterns, &equal);
    assert_int_equal(pattern.number, equal.number);
    lade_patterns_build(patterns);
    lade_search_t *search = lade_search_new(patterns, list);
    size_t at = 0;
    assert_string_equal(lade_search_next(search, &pattern, &at)->name, "a");
    assert_null(lade_search_next(search, &pattern, &at));
    lade_search_destroy(&search);
    lade_patterns_destroy(&patterns);
    lade_tensors_destroy(&list);
    json_decref(pattern.exact);
    json_decref(equal.exact);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_are_found_where_they_have_to_be),
        cmocka_unit_test(test_texts_over_the_ceiling_are_not_taken),
        cmocka_unit_test(test_a_search_finds_what_trying_all_finds),
        cmocka_unit_test(test_of_whole_names_the_first_wanted_one_is_found),
    };
    return cmocka_run_group_tests_name("pattern", tests, NULL, NULL);
}
