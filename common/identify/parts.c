// The automaton over the texts of all rules.
//
// States are numbered from 0, the root; a step is one look into a table of state and class of byte,
// where bytes that no text has share a class. Memory that runs out aborts: rules are small, and the
// lists are a fraction of the tensors'.
#include "common/identify/parts.h"

#include "common/formats/tensor_list.h"

#include <stdlib.h>
#include <string.h>

enum {
    S_MAX_STATES = 1 << 16, // bytes of all texts together
    S_OUTPUT = 1 << 30,     // in a step: the state it leads to has texts that end there
};
#define S_NONE UINT32_MAX

typedef struct {
    lade_part_kind_t kind;
    size_t len;
    uint32_t state; // where it ends
    uint32_t next;  // of the same state
} s_part_t;

struct lade_parts {
    json_t *numbers; // kind and text: part
    s_part_t *parts;
    size_t count;
    json_t *texts; // of the parts, till the automaton is made
    size_t bytes;
    uint8_t class[256];
    size_t classes;
    uint32_t *steps; // [state * classes + class]
    uint32_t *first; // of a state: its first part
    uint32_t *next;  // of a state: the nearest shorter state that has parts; S_NONE
    size_t states;
};

static void *
s_alloc(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        abort();
    return memory;
}

static void *
s_more(void *memory, size_t size)
{
    memory = realloc(memory, size);
    if (!memory)
        abort();
    return memory;
}

lade_parts_t *
lade_parts_new(void)
{
    lade_parts_t *self = s_alloc(1, sizeof *self);
    self->numbers = json_object();
    self->texts = json_array();
    return self;
}

uint32_t
lade_parts_add(lade_parts_t *self, lade_part_kind_t kind, const char *text, size_t len)
{
    if (len == 0 || self->bytes + len >= S_MAX_STATES)
        return LADE_PARTS_NONE;
    char *key = s_alloc(len + 2, 1);
    key[0] = (char)('0' + kind);
    memcpy(key + 1, text, len);
    const json_t *known = json_object_get(self->numbers, key);
    uint32_t number = (uint32_t)json_integer_value(known);
    if (!known) {
        number = (uint32_t)self->count++;
        self->parts = s_more(self->parts, self->count * sizeof *self->parts);
        self->parts[number] = (s_part_t){.kind = kind, .len = len, .next = S_NONE};
        self->bytes += len;
        json_object_set_new(self->numbers, key, json_integer(number));
        json_array_append_new(self->texts, json_stringn(text, len));
    }
    free(key);
    return number;
}

// ---------------------------------------------------------------------------------------------------
// Making it

static uint32_t *
s_step(const lade_parts_t *self, uint32_t state, uint8_t byte)
{
    return &self->steps[state * self->classes + self->class[byte]];
}

static void
s_make_classes(lade_parts_t *self)
{
    self->classes = 1; // 0 is of bytes that no text has
    for (size_t i = 0; i < self->count; i++)
        for (const char *at = json_string_value(json_array_get(self->texts, i)); *at; at++)
            if (!self->class[(uint8_t)*at])
                self->class[(uint8_t)*at] = (uint8_t)self->classes++;
}

static void
s_make_tree(lade_parts_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        uint32_t state = 0;
        for (const char *at = json_string_value(json_array_get(self->texts, i)); *at; at++) {
            uint32_t *step = s_step(self, state, (uint8_t)*at);
            if (!*step)
                *step = (uint32_t)self->states++;
            state = *step;
        }
        self->parts[i].state = state;
        self->parts[i].next = self->first[state];
        self->first[state] = (uint32_t)i;
    }
}

// Breadth first: where a state has no step of its own, it has that of the longest state which is
// its tail.
static void
s_make_steps(lade_parts_t *self)
{
    uint32_t *tail = s_alloc(self->states, sizeof *tail);
    uint32_t *order = s_alloc(self->states, sizeof *order);
    size_t done = 0, known = 1;
    for (; done < known; done++) {
        uint32_t state = order[done];
        uint32_t back = tail[state];
        self->next[state] = state == 0                    ? S_NONE
                            : self->first[back] != S_NONE ? back
                                                          : self->next[back];
        for (size_t class = 0; class < self->classes; class ++) {
            uint32_t *step = &self->steps[state * self->classes + class];
            uint32_t behind = state ? self->steps[back * self->classes + class] : 0;
            if (*step) {
                tail[*step] = behind;
                order[known++] = *step;
            } else {
                *step = behind;
            }
        }
    }
    free(tail);
    free(order);
}

static void
s_mark_outputs(lade_parts_t *self)
{
    for (size_t i = 0; i < self->states * self->classes; i++) {
        uint32_t to = self->steps[i];
        if (self->first[to] != S_NONE || self->next[to] != S_NONE)
            self->steps[i] = to | S_OUTPUT;
    }
}

void
lade_parts_build(lade_parts_t *self)
{
    s_make_classes(self);
    self->steps = s_alloc((self->bytes + 1) * self->classes, sizeof *self->steps);
    self->first = s_alloc(self->bytes + 1, sizeof *self->first);
    self->next = s_alloc(self->bytes + 1, sizeof *self->next);
    memset(self->first, 0xff, (self->bytes + 1) * sizeof *self->first);
    self->states = 1;
    s_make_tree(self);
    s_make_steps(self);
    s_mark_outputs(self);
}

void
lade_parts_destroy(lade_parts_t **self_p)
{
    lade_parts_t *self = *self_p;
    if (!self)
        return;
    json_decref(self->numbers);
    json_decref(self->texts);
    free(self->parts);
    free(self->steps);
    free(self->first);
    free(self->next);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Going through names

typedef struct {
    uint32_t tensor;
    uint32_t next; // of the same part
} s_entry_t;

struct lade_parts_found {
    struct {
        uint32_t first, last;
        uint32_t count;
    } * lists; // of the parts; positions are index + 1
    s_entry_t *entries;
    size_t count, cap;
};

// A part that ended at that byte of the name, for the names that begin the same.
typedef struct {
    uint32_t part;
    uint32_t end;
} s_event_t;

typedef struct {
    const lade_parts_t *parts;
    lade_parts_found_t *found;
    uint32_t states[LADE_TENSORS_MAX_NAME + 1]; // after so many bytes of the last name
    s_event_t *events;
    size_t count, cap;
} s_pass_t;

static void
s_note(lade_parts_found_t *self, uint32_t part, uint32_t tensor)
{
    uint32_t last = self->lists[part].last;
    if (last && self->entries[last - 1].tensor == tensor)
        return;
    if (self->count == self->cap) {
        self->cap = self->cap ? 2 * self->cap : 1024;
        self->entries = s_more(self->entries, self->cap * sizeof *self->entries);
    }
    self->entries[self->count++] = (s_entry_t){.tensor = tensor};
    if (last)
        self->entries[last - 1].next = (uint32_t)self->count;
    else
        self->lists[part].first = (uint32_t)self->count;
    self->lists[part].last = (uint32_t)self->count;
    self->lists[part].count++;
}

static void
s_note_event(s_pass_t *self, uint32_t part, uint32_t end, uint32_t tensor)
{
    if (self->count == self->cap) {
        self->cap = self->cap ? 2 * self->cap : 64;
        self->events = s_more(self->events, self->cap * sizeof *self->events);
    }
    self->events[self->count++] = (s_event_t){part, end};
    s_note(self->found, part, tensor);
}

// The parts that end after so many bytes; those that have to end the name, at its end.
static void
s_outputs(s_pass_t *self, uint32_t state, uint32_t end, bool at_end, uint32_t tensor)
{
    const lade_parts_t *parts = self->parts;
    for (; state != S_NONE; state = parts->next[state])
        for (uint32_t i = parts->first[state]; i != S_NONE; i = parts->parts[i].next) {
            const s_part_t *part = &parts->parts[i];
            if (at_end ? part->kind == LADE_PART_SUFFIX
                       : part->kind == LADE_PART_INSIDE ||
                             (part->kind == LADE_PART_PREFIX && part->len == end)) {
                if (at_end)
                    s_note(self->found, i, tensor);
                else
                    s_note_event(self, i, end, tensor);
            }
        }
}

static size_t
s_common(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t len = a_len < b_len ? a_len : b_len, at = 0;
    for (uint64_t x, y; at + 8 <= len; at += 8) {
        memcpy(&x, a + at, 8);
        memcpy(&y, b + at, 8);
        if (x != y)
            break;
    }
    while (at < len && a[at] == b[at])
        at++;
    return at;
}

static void
s_pass(s_pass_t *self, const lade_tensor_t *tensor, size_t same, uint32_t number)
{
    while (self->count && self->events[self->count - 1].end > same)
        self->count--;
    for (size_t i = 0; i < self->count; i++)
        s_note(self->found, self->events[i].part, number);
    uint32_t state = self->states[same];
    for (size_t at = same; at < tensor->name_len; at++) {
        uint32_t step = *s_step(self->parts, state, (uint8_t)tensor->name[at]);
        state = step & ~(uint32_t)S_OUTPUT;
        self->states[at + 1] = state;
        if (step & S_OUTPUT)
            s_outputs(self, state, (uint32_t)at + 1, false, number);
    }
    s_outputs(self, state, (uint32_t)tensor->name_len, true, number);
}

lade_parts_found_t *
lade_parts_find(const lade_parts_t *self, const lade_tensors_t *tensors)
{
    s_pass_t pass = {.parts = self};
    size_t count = lade_tensors_count(tensors);
    lade_parts_found_t *found = pass.found = s_alloc(1, sizeof *found);
    found->lists = s_alloc(self->count, sizeof *found->lists);
    const lade_tensor_t *last = NULL;
    for (size_t i = 0; i < count; i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        size_t same =
            last ? s_common(last->name, last->name_len, tensor->name, tensor->name_len) : 0;
        s_pass(&pass, tensor, same, (uint32_t)i);
        last = tensor;
    }
    free(pass.events);
    return found;
}

size_t
lade_parts_found_count(const lade_parts_found_t *self, uint32_t part)
{
    return self->lists[part].count;
}

bool
lade_parts_found_next(const lade_parts_found_t *self, uint32_t part, uint32_t *cursor_p,
                      uint32_t *tensor_p)
{
    uint32_t at = *cursor_p ? self->entries[*cursor_p - 1].next : self->lists[part].first;
    if (!at)
        return false;
    *cursor_p = at;
    *tensor_p = self->entries[at - 1].tensor;
    return true;
}

void
lade_parts_found_destroy(lade_parts_found_t **self_p)
{
    if (!*self_p)
        return;
    free((*self_p)->lists);
    free((*self_p)->entries);
    free(*self_p);
    *self_p = NULL;
}
