// Names with holes.
#include "workers/install/convert_map.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_PIECES = 16, S_MAX_RULES = 2000, S_MAX_USES = 8, S_MAX_DIGITS = 6 };

// ---------------------------------------------------------------------------------------------------
// Patterns

typedef enum { S_TEXT, S_NUMBER, S_WORD, S_REST } s_kind_t;

typedef struct {
    s_kind_t kind;
    const char *text; // of TEXT: where it stands in the pattern; else the hole's name
    size_t len;
    const json_t *words; // of WORD: {old: new}
} s_piece_t;

typedef struct {
    const char *whole;
    s_piece_t pieces[S_MAX_PIECES];
    size_t count;
} s_pattern_t;

// What a hole was filled with.
typedef struct {
    const s_piece_t *piece;
    const char *text; // WORD: the new text; REST: the old one
    int64_t number;
} s_filled_t;

typedef struct {
    s_filled_t holes[S_MAX_PIECES];
    size_t count;
    bool tried; // these are no real numbers: what is below 0 with them need not be
} s_filling_t;

static lade_code_t
s_hole(const json_t *words, s_pattern_t *self, s_piece_t *piece, lade_error_t *error)
{
    for (size_t i = 0; i + 1 < self->count; i++)
        if (self->pieces[i].kind != S_TEXT && self->pieces[i].len == piece->len &&
            !memcmp(self->pieces[i].text, piece->text, piece->len))
            return lade_error_set(error, LADE_CONFIG_ERROR, "'%s': the hole {%.*s} is there twice",
                                  self->whole, (int)piece->len, piece->text);
    if (piece->len == 1 && *piece->text == '*') {
        piece->kind = S_REST;
        if (piece->text[2])
            return lade_error_set(error, LADE_CONFIG_ERROR, "'%s': {*} has to be its end",
                                  self->whole);
        return LADE_OK;
    }
    piece->kind = piece->len == 1 ? S_NUMBER : S_WORD;
    if (piece->kind == S_NUMBER)
        return *piece->text >= 'a' && *piece->text <= 'z'
                   ? LADE_OK
                   : lade_error_set(error, LADE_CONFIG_ERROR, "'%s': a number's hole is {a} to {z}",
                                    self->whole);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(piece->len < 63 ? piece->len : 63), piece->text);
    piece->words = json_object_get(words, name);
    if (!json_object_size(piece->words))
        return lade_error_set(error, LADE_CONFIG_ERROR, "'%s': there is no list of words '%s'",
                              self->whole, name);
    const char *old;
    json_t *new;
    json_object_foreach(
        (json_t *)piece->words, old,
        new) if (!*old ||
                 !json_is_string(
                     new)) return lade_error_set(error, LADE_CONFIG_ERROR,
                                                 "words '%s': a list of texts and texts", name);
    return LADE_OK;
}

static lade_code_t
s_pattern(const char *text, const json_t *words, s_pattern_t *self, lade_error_t *error)
{
    *self = (s_pattern_t){.whole = text};
    if (!*text)
        return lade_error_set(error, LADE_CONFIG_ERROR, "a name is empty");
    while (*text) {
        if (self->count == S_MAX_PIECES)
            return lade_error_set(error, LADE_CONFIG_ERROR, "'%s' has too many holes", self->whole);
        s_piece_t *piece = &self->pieces[self->count++];
        if (*text != '{') {
            piece->len = strcspn(text, "{");
            piece->text = text;
            text += piece->len;
            continue;
        }
        const char *end = strchr(text, '}');
        if (!end || end == text + 1)
            return lade_error_set(error, LADE_CONFIG_ERROR, "'%s': a hole is {NAME}", self->whole);
        piece->text = text + 1;
        piece->len = (size_t)(end - text) - 1;
        lade_code_t code = s_hole(words, self, piece, error);
        if (code)
            return code;
        text = end + 1;
    }
    return LADE_OK;
}

static bool s_fits(const s_pattern_t *self, size_t at, const char *name, s_filling_t *filling);

static bool
s_fits_number(const s_pattern_t *self, size_t at, const char *name, s_filling_t *filling)
{
    size_t digits = strspn(name, "0123456789");
    if (!digits || digits > S_MAX_DIGITS || (digits > 1 && *name == '0'))
        return false;
    filling->holes[filling->count++] =
        (s_filled_t){&self->pieces[at], NULL, strtoll(name, NULL, 10)};
    if (s_fits(self, at + 1, name + digits, filling))
        return true;
    filling->count--;
    return false;
}

static bool
s_fits_word(const s_pattern_t *self, size_t at, const char *name, s_filling_t *filling)
{
    const char *old;
    json_t *new;
    json_object_foreach((json_t *)self->pieces[at].words, old, new)
    {
        if (strncmp(name, old, strlen(old)) != 0)
            continue;
        filling->holes[filling->count++] =
            (s_filled_t){&self->pieces[at], json_string_value(new), 0};
        if (s_fits(self, at + 1, name + strlen(old), filling))
            return true;
        filling->count--;
    }
    return false;
}

// Whether the pieces from `at` on fit the rest of a name.
static bool
s_fits(const s_pattern_t *self, size_t at, const char *name, s_filling_t *filling)
{
    if (at == self->count)
        return !*name;
    const s_piece_t *piece = &self->pieces[at];
    switch (piece->kind) {
    case S_TEXT:
        return !strncmp(name, piece->text, piece->len) &&
               s_fits(self, at + 1, name + piece->len, filling);
    case S_NUMBER:
        return s_fits_number(self, at, name, filling);
    case S_WORD:
        return s_fits_word(self, at, name, filling);
    case S_REST:
        filling->holes[filling->count++] = (s_filled_t){piece, name, 0};
        return true;
    }
    return false;
}

// ---------------------------------------------------------------------------------------------------
// New names

// Arithmetic over whole numbers, from text to its end; `at` moves on. ok becomes false for what is
// none, a hole that is not there, a division by 0, and what is below 0.
typedef struct {
    const char *at, *end;
    const s_filling_t *filling;
    bool ok;
} s_sum_t;

static int64_t s_sum(s_sum_t *self);

static const s_filled_t *
s_find_hole(const s_filling_t *filling, const char *name, size_t len)
{
    for (size_t i = 0; i < filling->count; i++)
        if (filling->holes[i].piece->len == len &&
            !memcmp(filling->holes[i].piece->text, name, len))
            return &filling->holes[i];
    return NULL;
}

static int64_t
s_value(s_sum_t *self)
{
    int64_t value = 0;
    if (self->at == self->end) {
        self->ok = false;
    } else if (*self->at == '(') {
        self->at++;
        value = s_sum(self);
        self->ok = self->ok && self->at < self->end && *self->at == ')';
        self->at++;
    } else if (*self->at >= '0' && *self->at <= '9') {
        size_t digits = strspn(self->at, "0123456789");
        self->ok = self->ok && digits <= S_MAX_DIGITS;
        value = self->ok ? strtoll(self->at, NULL, 10) : 0;
        self->at += digits;
    } else {
        const s_filled_t *hole = s_find_hole(self->filling, self->at++, 1);
        self->ok = self->ok && hole && hole->piece->kind == S_NUMBER;
        value = self->ok ? hole->number : 0;
    }
    return value;
}

static int64_t
s_product(s_sum_t *self)
{
    int64_t value = s_value(self);
    while (self->ok && self->at < self->end && strchr("*/%", *self->at)) {
        char sign = *self->at++;
        int64_t by = s_value(self);
        if (sign == '*')
            self->ok = self->ok && !__builtin_mul_overflow(value, by, &value);
        else if (by <= 0)
            self->ok = false;
        else
            value = sign == '/' ? value / by : value % by;
    }
    return value;
}

static int64_t
s_sum(s_sum_t *self)
{
    int64_t value = s_product(self);
    while (self->ok && self->at < self->end && strchr("+-", *self->at)) {
        char sign = *self->at++;
        int64_t by = s_product(self);
        if (sign == '+')
            self->ok = self->ok && !__builtin_add_overflow(value, by, &value);
        else
            self->ok = self->ok && !__builtin_sub_overflow(value, by, &value);
        if (self->filling->tried && value < 0)
            value = 0;
        self->ok = self->ok && value >= 0; // before a division: C's would round up
    }
    return value;
}

// Puts what fills the holes into a new name. False if it cannot.
static bool
s_expand(const char *text, const s_filling_t *filling, char out[LADE_CONVERT_MAX_NAME])
{
    size_t len = 0;
    while (*text) {
        char number[24];
        const char *add = text, *end = text + strcspn(text, "{");
        size_t add_len = (size_t)(end - text);
        if (*text == '{') {
            end = strchr(text, '}');
            if (!end)
                return false;
            const s_filled_t *hole = s_find_hole(filling, text + 1, (size_t)(end - text) - 1);
            if (hole && hole->text) {
                add = hole->text;
                add_len = strlen(add);
            } else {
                s_sum_t sum = {text + 1, end, filling, true};
                int64_t value = s_sum(&sum);
                if (!sum.ok || sum.at != end)
                    return false;
                add = number;
                add_len = (size_t)snprintf(number, sizeof number, "%lld", (long long)value);
            }
            end++;
        }
        if (len + add_len >= LADE_CONVERT_MAX_NAME)
            return false;
        memcpy(out + len, add, add_len);
        len += add_len;
        text = end;
    }
    out[len] = '\0';
    return len > 0;
}

// ---------------------------------------------------------------------------------------------------
// Rules

typedef struct {
    s_pattern_t from;
    lade_convert_how_t how;
    const char *to[LADE_CONVERT_MAX_SPLIT];
    size_t count;
} s_rule_t;

struct lade_convert_map {
    s_rule_t *rules;
    size_t count, cap;
};

// A new name may use the holes of its pattern and no others.
static lade_code_t
s_check_to(const s_rule_t *rule, const char *to, lade_error_t *error)
{
    s_filling_t filling = {.tried = true};
    char out[LADE_CONVERT_MAX_NAME];
    for (size_t i = 0; i < rule->from.count; i++)
        if (rule->from.pieces[i].kind != S_TEXT)
            filling.holes[filling.count++] = (s_filled_t){
                &rule->from.pieces[i], rule->from.pieces[i].kind == S_NUMBER ? NULL : "x", 1000};
    if (s_expand(to, &filling, out))
        return LADE_OK;
    return lade_error_set(error, LADE_CONFIG_ERROR,
                          "'%s' cannot be made from '%s': its holes have to be there, and {…} is a "
                          "hole or arithmetic",
                          to, rule->from.whole);
}

static lade_code_t
s_add_to(s_rule_t *rule, const json_t *to, lade_error_t *error)
{
    if (!json_is_string(to) || !*json_string_value(to))
        return lade_error_set(error, LADE_CONFIG_ERROR, "'%s': its new name is a text",
                              rule->from.whole);
    rule->to[rule->count++] = json_string_value(to);
    return s_check_to(rule, json_string_value(to), error);
}

static lade_code_t
s_read_how(s_rule_t *rule, const json_t *item, lade_error_t *error)
{
    const json_t *split = json_object_get(item, "split"), *as = json_object_get(item, "as");
    if (split) {
        size_t count = json_array_size(split);
        if (count < 2 || count > LADE_CONVERT_MAX_SPLIT || json_object_size(item) != 2)
            return lade_error_set(error, LADE_CONFIG_ERROR,
                                  "'%s': split is a list of 2 to %d names", rule->from.whole,
                                  LADE_CONVERT_MAX_SPLIT);
        rule->how = LADE_CONVERT_SPLIT;
        lade_code_t code = LADE_OK;
        for (size_t i = 0; i < count && !code; i++)
            code = s_add_to(rule, json_array_get(split, i), error);
        return code;
    }
    const char *word = json_string_value(as);
    if (word && !strcmp(word, "linear"))
        rule->how = LADE_CONVERT_LINEAR;
    else if (word && !strcmp(word, "transposed"))
        rule->how = LADE_CONVERT_TRANSPOSED;
    else if (as || json_object_size(item) != 2)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "'%s': from goes with `to`, `to` and `as: linear` or `as: "
                              "transposed`, or `split`",
                              rule->from.whole);
    return s_add_to(rule, json_object_get(item, "to"), error);
}

static s_rule_t *
s_add(lade_convert_map_t *self)
{
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 64;
        self->rules = realloc(self->rules, self->cap * sizeof *self->rules);
        if (!self->rules)
            abort();
    }
    self->rules[self->count] = (s_rule_t){.how = LADE_CONVERT_AS_IS};
    return &self->rules[self->count++];
}

static lade_code_t
s_read_rule(lade_convert_map_t *self, const json_t *words, const json_t *item, lade_error_t *error)
{
    const json_t *from = json_object_get(item, "from"), *drop = json_object_get(item, "drop");
    const char *pair = json_object_iter_key(json_object_iter((json_t *)item));
    if (self->count == S_MAX_RULES)
        return lade_error_set(error, LADE_CONFIG_ERROR, "more than %d rules", S_MAX_RULES);
    if (!pair || (!from && json_object_size(item) != 1) || (from && !json_is_string(from)) ||
        (drop && !json_is_string(drop)))
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "a rule is OLD: NEW, or has from, drop or use");
    s_rule_t *rule = s_add(self);
    const char *old = from ? json_string_value(from) : drop ? json_string_value(drop) : pair;
    lade_code_t code = s_pattern(old, words, &rule->from, error);
    if (code)
        return code;
    if (drop) {
        rule->how = LADE_CONVERT_DROP;
        return LADE_OK;
    }
    return from ? s_read_how(rule, item, error)
                : s_add_to(rule, json_object_get(item, pair), error);
}

static lade_code_t
s_read_map(lade_convert_map_t *self, const json_t *maps, const json_t *words, const char *name,
           int depth, lade_error_t *error)
{
    const json_t *list = json_object_get(maps, name);
    if (!json_array_size(list))
        return lade_error_set(error, LADE_CONFIG_ERROR, "there is no map '%.60s'", name);
    if (depth > S_MAX_USES)
        return lade_error_set(error, LADE_CONFIG_ERROR, "map '%.60s' uses itself", name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *use = json_object_get(item, "use");
        lade_code_t code =
            json_is_string(use) && json_object_size(item) == 1
                ? s_read_map(self, maps, words, json_string_value(use), depth + 1, error)
                : s_read_rule(self, words, item, error);
        if (code)
            return lade_error_wrap(error, "map '%.60s', rule %zu", name, i + 1);
    }
    return LADE_OK;
}

lade_code_t
lade_convert_map_new(const json_t *maps, const json_t *words, const char *name,
                     lade_convert_map_t **self_p, lade_error_t *error)
{
    *self_p = calloc(1, sizeof **self_p);
    if (!*self_p)
        abort();
    lade_code_t code = s_read_map(*self_p, maps, words, name, 0, error);
    if (code)
        lade_convert_map_destroy(self_p);
    return code;
}

bool
lade_convert_map_find(const lade_convert_map_t *self, const char *name,
                      lade_convert_target_t *target)
{
    for (size_t i = 0; i < self->count; i++) {
        const s_rule_t *rule = &self->rules[i];
        s_filling_t filling = {.count = 0};
        if (!s_fits(&rule->from, 0, name, &filling))
            continue;
        target->how = rule->how;
        target->count = rule->count;
        bool made = true;
        for (size_t k = 0; k < rule->count && made; k++)
            made = s_expand(rule->to[k], &filling, target->names[k]);
        if (made)
            return true;
    }
    return false;
}

void
lade_convert_map_destroy(lade_convert_map_t **self_p)
{
    if (!*self_p)
        return;
    free((*self_p)->rules);
    free(*self_p);
    *self_p = NULL;
}

lade_code_t
lade_convert_map_fits(const char *pattern, const json_t *words, const char *name, bool *fits_p,
                      lade_error_t *error)
{
    s_pattern_t compiled;
    s_filling_t filling = {.count = 0};
    lade_code_t code = s_pattern(pattern, words, &compiled, error);
    *fits_p = !code && s_fits(&compiled, 0, name, &filling);
    return code;
}
