// Patterns as groups of texts of which one has to be there, and the search by the rarest group.
#include "common/identify/pattern.h"

#include "common/identify/parts.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_GROUPS = 12, S_MAX_SIBLING = 1200, S_MAX_LITERAL = 256 };

// Texts of which a name has to have one.
typedef struct {
    uint32_t *parts;
    size_t count;
} s_group_t;

typedef struct {
    const lade_pattern_t *pattern;
    s_group_t groups[S_MAX_GROUPS];
    size_t count;
    bool sufficient; // having one of the only group's texts is all it asks
} s_known_t;

struct lade_patterns {
    json_t *numbers; // what a pattern says: its number
    s_known_t *known;
    size_t count;
    lade_parts_t *parts;
    bool built;
};

static void *
s_more(void *memory, size_t size)
{
    memory = realloc(memory, size ? size : 1);
    if (!memory)
        abort(); // a fraction of what the tensors themselves take
    return memory;
}

lade_patterns_t *
lade_patterns_new(void)
{
    lade_patterns_t *self = calloc(1, sizeof *self);
    if (!self || !(self->numbers = json_object()))
        abort();
    self->parts = lade_parts_new();
    return self;
}

// ---------------------------------------------------------------------------------------------------
// Groups

static void
s_add_to_group(lade_patterns_t *self, s_group_t *group, lade_part_kind_t kind, const char *text,
               size_t len)
{
    uint32_t part = lade_parts_add(self->parts, kind, text, len);
    group->parts = s_more(group->parts, (group->count + 1) * sizeof *group->parts);
    group->parts[group->count++] = part;
}

// A text that is not looked for with the others makes its group useless.
static void
s_close_group(s_known_t *known)
{
    s_group_t *group = &known->groups[known->count];
    bool whole = group->count > 0;
    for (size_t i = 0; i < group->count; i++)
        whole = whole && group->parts[i] != LADE_PARTS_NONE;
    if (whole) {
        known->count++;
        return;
    }
    free(group->parts);
    *group = (s_group_t){0};
}

static void
s_add_list(lade_patterns_t *self, s_known_t *known, lade_part_kind_t kind, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *text = json_array_get(list, i);
        s_add_to_group(self, &known->groups[known->count], kind, json_string_value(text),
                       json_string_length(text));
    }
    s_close_group(known);
}

// ---------------------------------------------------------------------------------------------------
// Texts that have to be in whatever a regular expression fits

// Past a bracket expression, "[^]a-z[:alpha:]]".
static const char *
s_past_bracket(const char *at)
{
    at += 1 + (at[1] == '^');
    at += *at == ']';
    while (*at && *at != ']') {
        const char *close =
            at[0] == '[' && strchr(":.=", at[1]) && at[1] ? strchr(at + 2, ']') : NULL;
        at = close ? close + 1 : at + 1;
    }
    return at + (*at == ']');
}

static const char *
s_past_group(const char *at)
{
    int depth = 0;
    while (*at) {
        if (*at == '[') {
            at = s_past_bracket(at);
            continue;
        }
        depth += *at == '(';
        depth -= *at == ')';
        at += *at == '\\' && at[1] ? 2 : 1;
        if (depth == 0)
            break;
    }
    return at;
}

static bool
s_is_choice(const char *regex)
{
    while (*regex && *regex != '|')
        regex = *regex == '['   ? s_past_bracket(regex)
                : *regex == '(' ? s_past_group(regex)
                                : regex + (*regex == '\\' && regex[1] ? 2 : 1);
    return *regex == '|';
}

typedef struct {
    lade_patterns_t *patterns;
    s_known_t *known;
    char text[S_MAX_LITERAL];
    size_t len;
    bool at_start; // nothing but "^" and these texts so far
} s_literal_t;

static void
s_end_literal(s_literal_t *self, bool at_end)
{
    lade_part_kind_t kind = self->at_start ? LADE_PART_PREFIX
                            : at_end       ? LADE_PART_SUFFIX
                                           : LADE_PART_INSIDE;
    size_t least = kind == LADE_PART_INSIDE ? 3 : 1; // a short one is everywhere
    if (self->len >= least && self->known->count < S_MAX_GROUPS) {
        s_add_to_group(self->patterns, &self->known->groups[self->known->count], kind, self->text,
                       self->len);
        s_close_group(self->known);
    }
    self->len = 0;
    self->at_start = false;
}

// One character that stands for itself, 0 if the next atom is another.
static char
s_plain(const char *at)
{
    if (*at == '\\')
        return at[1] && !isalnum((unsigned char)at[1]) && !strchr("<>`'", at[1]) ? at[1] : 0;
    return strchr("^$.[]()*+?{}|", *at) ? 0 : *at;
}

static void
s_add_literals(lade_patterns_t *patterns, s_known_t *known, const char *regex)
{
    s_literal_t self = {.patterns = patterns, .known = known, .at_start = *regex == '^'};
    const char *at = regex + (*regex == '^');
    if (s_is_choice(regex))
        return;
    while (*at) {
        char plain = s_plain(at);
        const char *after = plain        ? at + (*at == '\\' ? 2 : 1)
                            : *at == '[' ? s_past_bracket(at)
                            : *at == '(' ? s_past_group(at)
                                         : at + (*at == '\\' && at[1] ? 2 : 1);
        bool may_lack = *after && strchr("*?{", *after);
        if (plain && !may_lack && self.len < S_MAX_LITERAL)
            self.text[self.len++] = plain;
        if (!plain || may_lack || *after == '+')
            s_end_literal(&self, *at == '$' && !*after);
        at = after;
        while (*at && strchr("*?+", *at))
            at++;
        if (*at == '{')
            at = strchr(at, '}') ? strchr(at, '}') + 1 : at + strlen(at);
    }
    s_end_literal(&self, false);
}

// ---------------------------------------------------------------------------------------------------
// Knowing them

// What a pattern says, the same for equal ones.
static char *
s_words(const lade_pattern_t *pattern)
{
    json_t *all =
        json_pack("[O? O? O? O? s? s? I]", pattern->exact, pattern->prefix, pattern->suffix,
                  pattern->contains, pattern->regex_text, pattern->sibling,
                  (json_int_t)(pattern->except ? pattern->except->number : 0));
    char *words = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    if (!words)
        abort();
    return words;
}

static void
s_make_groups(lade_patterns_t *self, s_known_t *known)
{
    const lade_pattern_t *pattern = known->pattern;
    s_add_list(self, known, LADE_PART_PREFIX, pattern->prefix);
    s_add_list(self, known, LADE_PART_SUFFIX, pattern->suffix);
    s_add_list(self, known, LADE_PART_INSIDE, pattern->contains);
    size_t lists = (json_array_size(pattern->prefix) > 0) + (json_array_size(pattern->suffix) > 0) +
                   (json_array_size(pattern->contains) > 0);
    known->sufficient = lists == 1 && known->count == 1 && !pattern->exact && !pattern->regex &&
                        !pattern->sibling && !pattern->except;
    if (pattern->regex_text)
        s_add_literals(self, known, pattern->regex_text);
}

void
lade_patterns_add(lade_patterns_t *self, lade_pattern_t *pattern)
{
    char *words = s_words(pattern);
    json_t *number = json_object_get(self->numbers, words);
    pattern->number = (size_t)json_integer_value(number);
    if (!number) {
        self->known = s_more(self->known, (self->count + 1) * sizeof *self->known);
        self->known[self->count] = (s_known_t){.pattern = pattern};
        s_make_groups(self, &self->known[self->count]);
        pattern->number = ++self->count;
        json_object_set_new(self->numbers, words, json_integer((json_int_t)pattern->number));
    }
    free(words);
}

void
lade_patterns_build(lade_patterns_t *self)
{
    lade_parts_build(self->parts);
    self->built = true;
}

void
lade_patterns_destroy(lade_patterns_t **self_p)
{
    lade_patterns_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        for (size_t j = 0; j < self->known[i].count; j++)
            free(self->known[i].groups[j].parts);
    free(self->known);
    lade_parts_destroy(&self->parts);
    json_decref(self->numbers);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Whether a tensor fits

typedef bool (*s_fits_t)(const char *name, size_t len, const char *part, size_t part_len);

static bool
s_is_exact(const char *name, size_t len, const char *part, size_t part_len)
{
    return len == part_len && memcmp(name, part, len) == 0;
}

static bool
s_has_prefix(const char *name, size_t len, const char *part, size_t part_len)
{
    return len >= part_len && memcmp(name, part, part_len) == 0;
}

static bool
s_has_suffix(const char *name, size_t len, const char *part, size_t part_len)
{
    return len >= part_len && memcmp(name + len - part_len, part, part_len) == 0;
}

static bool
s_has_part(const char *name, size_t len, const char *part, size_t part_len)
{
    return memmem(name, len, part, part_len) != NULL;
}

// True if any text of the list fits, or there is no list.
static bool
s_any(const json_t *list, s_fits_t fits, const lade_tensor_t *tensor)
{
    size_t count = json_array_size(list);
    for (size_t i = 0; i < count; i++) {
        const json_t *part = json_array_get(list, i);
        if (fits(tensor->name, tensor->name_len, json_string_value(part), json_string_length(part)))
            return true;
    }
    return count == 0;
}

// With the sibling's tail in place of the suffix it has to name a tensor too.
static bool
s_has_sibling(const lade_tensors_t *tensors, const lade_pattern_t *pattern,
              const lade_tensor_t *tensor)
{
    char name[S_MAX_SIBLING];
    size_t cut = json_string_length(json_array_get(pattern->suffix, 0));
    size_t head = tensor->name_len - cut, tail = strlen(pattern->sibling);
    if (head + tail >= sizeof name)
        return false;
    memcpy(name, tensor->name, head);
    memcpy(name + head, pattern->sibling, tail + 1);
    return lade_tensors_find(tensors, name) != NULL;
}

// The cheap questions first.
static bool
s_fits(const lade_tensors_t *tensors, const lade_pattern_t *pattern, const lade_tensor_t *tensor)
{
    return s_any(pattern->exact, s_is_exact, tensor) &&
           s_any(pattern->prefix, s_has_prefix, tensor) &&
           s_any(pattern->suffix, s_has_suffix, tensor) &&
           s_any(pattern->contains, s_has_part, tensor) &&
           (!pattern->regex || regexec(pattern->regex, tensor->name, 0, NULL, 0) == 0) &&
           (!pattern->sibling || s_has_sibling(tensors, pattern, tensor)) &&
           (!pattern->except || !s_fits(tensors, pattern->except, tensor));
}

// ---------------------------------------------------------------------------------------------------
// The search

// How far a pattern has come.
typedef struct {
    uint32_t *found; // tensors that fit
    size_t count, cap;
    bool begun, done;
    const s_group_t *group; // whose tensors are tried; NULL: all
    uint32_t *cursors;      // of the group's parts
    uint32_t *heads;        // the next tensor of each, UINT32_MAX after the last
    size_t at;              // without a group: the next tensor
} s_memo_t;

struct lade_search {
    const lade_patterns_t *patterns;
    const lade_tensors_t *tensors;
    lade_parts_found_t *parts; // once asked for
    s_memo_t *memos;           // of the patterns
};

lade_search_t *
lade_search_new(const lade_patterns_t *patterns, const lade_tensors_t *tensors)
{
    lade_search_t *self = calloc(1, sizeof *self);
    if (!self || !(self->memos = calloc(patterns->count + 1, sizeof *self->memos)))
        abort();
    self->patterns = patterns;
    self->tensors = tensors;
    return self;
}

const lade_tensors_t *
lade_search_tensors(const lade_search_t *self)
{
    return self->tensors;
}

static size_t
s_group_size(const lade_search_t *self, const s_group_t *group)
{
    size_t size = 0;
    for (size_t i = 0; i < group->count; i++)
        size += lade_parts_found_count(self->parts, group->parts[i]);
    return size;
}

static void
s_step(const lade_search_t *self, s_memo_t *memo, size_t part)
{
    if (!lade_parts_found_next(self->parts, memo->group->parts[part], &memo->cursors[part],
                               &memo->heads[part]))
        memo->heads[part] = UINT32_MAX;
}

static void
s_keep(s_memo_t *memo, size_t at)
{
    if (memo->count == memo->cap) {
        memo->cap = memo->cap ? 2 * memo->cap : 8;
        memo->found = s_more(memo->found, memo->cap * sizeof *memo->found);
    }
    memo->found[memo->count++] = (uint32_t)at;
}

static int
s_by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

// Whole names are looked up, each once.
static void
s_find_exact(lade_search_t *self, const lade_pattern_t *pattern, s_memo_t *memo)
{
    const lade_tensor_t *first = lade_tensors_get(self->tensors, 0), *tensor;
    for (size_t i = 0; i < json_array_size(pattern->exact); i++) {
        const char *name = json_string_value(json_array_get(pattern->exact, i));
        if ((tensor = lade_tensors_find(self->tensors, name)) &&
            s_fits(self->tensors, pattern, tensor))
            s_keep(memo, (size_t)(tensor - first));
    }
    if (memo->count)
        qsort(memo->found, memo->count, sizeof *memo->found, s_by_number);
    size_t kept = 0;
    for (size_t i = 0; i < memo->count; i++)
        if (i == 0 || memo->found[i] != memo->found[i - 1])
            memo->found[kept++] = memo->found[i];
    memo->count = kept;
    memo->done = true;
}

static void
s_begin(lade_search_t *self, const s_known_t *known, s_memo_t *memo)
{
    memo->begun = true;
    if (known->pattern->exact) {
        s_find_exact(self, known->pattern, memo);
        return;
    }
    if (!self->patterns->built || known->count == 0)
        return;
    if (!self->parts)
        self->parts = lade_parts_find(self->patterns->parts, self->tensors);
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < known->count; i++) {
        size_t size = s_group_size(self, &known->groups[i]);
        if (size < least) {
            least = size;
            memo->group = &known->groups[i];
        }
    }
    memo->cursors = s_more(NULL, memo->group->count * sizeof *memo->cursors);
    memo->heads = s_more(NULL, memo->group->count * sizeof *memo->heads);
    memset(memo->cursors, 0, memo->group->count * sizeof *memo->cursors);
    for (size_t i = 0; i < memo->group->count; i++)
        s_step(self, memo, i);
}

// The next tensor to be tried, SIZE_MAX after the last.
static size_t
s_candidate(const lade_search_t *self, s_memo_t *memo)
{
    if (!memo->group)
        return memo->at < lade_tensors_count(self->tensors) ? memo->at++ : SIZE_MAX;
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < memo->group->count; i++)
        least = memo->heads[i] < least ? memo->heads[i] : least;
    for (size_t i = 0; least != UINT32_MAX && i < memo->group->count; i++)
        if (memo->heads[i] == least)
            s_step(self, memo, i);
    return least == UINT32_MAX ? SIZE_MAX : least;
}

static void
s_find_more(lade_search_t *self, const s_known_t *known, s_memo_t *memo)
{
    if (!memo->begun)
        s_begin(self, known, memo);
    while (!memo->done) {
        size_t at = s_candidate(self, memo);
        memo->done = at == SIZE_MAX;
        if (memo->done || (!known->sufficient && !s_fits(self->tensors, known->pattern,
                                                         lade_tensors_get(self->tensors, at))))
            continue;
        s_keep(memo, at);
        return;
    }
}

static bool
s_is_only_exact(const lade_pattern_t *pattern)
{
    return pattern->exact && !pattern->prefix && !pattern->suffix && !pattern->contains &&
           !pattern->regex && !pattern->except;
}

const lade_tensor_t *
lade_search_next(lade_search_t *self, const lade_pattern_t *pattern, size_t *at)
{
    if (s_is_only_exact(pattern)) {
        const lade_tensor_t *tensor = NULL;
        for (size_t i = *at; !tensor && i < json_array_size(pattern->exact); i++)
            tensor = lade_tensors_find(self->tensors,
                                       json_string_value(json_array_get(pattern->exact, i)));
        *at = SIZE_MAX;
        return tensor;
    }
    s_memo_t *memo = &self->memos[pattern->number];
    if (*at == memo->count && !memo->done)
        s_find_more(self, &self->patterns->known[pattern->number - 1], memo);
    return *at < memo->count ? lade_tensors_get(self->tensors, memo->found[(*at)++]) : NULL;
}

bool
lade_search_fits(lade_search_t *self, const lade_pattern_t *pattern, const lade_tensor_t *tensor)
{
    return s_fits(self->tensors, pattern, tensor);
}

void
lade_search_destroy(lade_search_t **self_p)
{
    lade_search_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i <= self->patterns->count; i++) {
        free(self->memos[i].found);
        free(self->memos[i].cursors);
        free(self->memos[i].heads);
    }
    free(self->memos);
    lade_parts_found_destroy(&self->parts);
    free(self);
    *self_p = NULL;
}
