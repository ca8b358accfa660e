// Memory, stack, memo and findings of a walk over a pickle.
#include "common/formats/unpickle.h"

#include "common/formats/tensor_list.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    S_CHUNK = 1 << 18,     // bytes of memory taken at once
    S_MAX_FETCH = 1 << 22, // bytes read at once, after four times as many each time
};

typedef struct lade_unpickle_chunk {
    struct lade_unpickle_chunk *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
} s_chunk_t;

// ---------------------------------------------------------------------------------------------------
// Bytes and memory

lade_code_t
lade_unpickle_broken(lade_pickle_t *self, const char *words)
{
    return lade_error_set(self->error, LADE_CORRUPT, "%s: byte %" PRIu64 " of the pickle: %s",
                          self->where, self->from + self->op_at, words);
}

lade_code_t
lade_unpickle_no_memory(lade_pickle_t *self)
{
    return lade_error_set(self->error, LADE_NO_MEMORY, "no memory for the pickle %s", self->where);
}

// True if n more bytes are there, read from the file if need be.
bool
lade_unpickle_need(lade_pickle_t *self, size_t n)
{
    while (self->have - self->at < n && self->owned && self->have < self->size) {
        size_t wanted =
            self->size - self->have < self->fetch ? self->size - self->have : self->fetch;
        ssize_t got =
            pread(self->fd, self->owned + self->have, wanted, (off_t)(self->from + self->have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        self->have += (size_t)got;
        self->fetch = self->fetch < S_MAX_FETCH ? self->fetch * 4 : S_MAX_FETCH;
    }
    return self->have - self->at >= n;
}

// The arena: nothing in it is freed before the walk is.
void *
lade_unpickle_alloc(lade_pickle_t *self, size_t len)
{
    len = (len + 15) & ~(size_t)15;
    if (!self->chunks || self->chunks->cap - self->chunks->used < len) {
        size_t cap = len < S_CHUNK ? S_CHUNK : len;
        s_chunk_t *chunk = malloc(sizeof *chunk + cap);
        if (!chunk)
            return NULL;
        *chunk = (s_chunk_t){.next = self->chunks, .cap = cap};
        self->chunks = chunk;
    }
    void *bytes = self->chunks->bytes + self->chunks->used;
    self->chunks->used += len;
    return bytes;
}

lade_object_t *
lade_unpickle_object(lade_pickle_t *self, lade_object_kind_t kind)
{
    if (self->objects == LADE_PICKLE_MAX_OBJECTS) {
        lade_error_set(self->error, LADE_TOO_LARGE, "%s: the pickle has more than %d values",
                       self->where, LADE_PICKLE_MAX_OBJECTS);
        return NULL;
    }
    lade_object_t *object = lade_unpickle_alloc(self, sizeof *object);
    if (!object) {
        lade_unpickle_no_memory(self);
        return NULL;
    }
    *object = (lade_object_t){.kind = (uint8_t)kind};
    self->objects++;
    return object;
}

// The code of what lade_unpickle_object or lade_unpickle_alloc could not do.
lade_code_t
lade_unpickle_failed(lade_pickle_t *self)
{
    return self->error->code ? self->error->code : lade_unpickle_no_memory(self);
}

lade_code_t
lade_unpickle_append(lade_pickle_t *self, lade_object_t *to, lade_object_t *item)
{
    if (to->len == to->cap) {
        uint32_t cap = to->cap ? 2 * to->cap : 4;
        lade_object_t **items = lade_unpickle_alloc(self, cap * sizeof *items);
        if (!items)
            return lade_unpickle_no_memory(self);
        if (to->len)
            memcpy(items, to->items, to->len * sizeof *items);
        to->items = items;
        to->cap = cap;
    }
    to->items[to->len++] = item;
    return LADE_OK;
}

lade_code_t
lade_unpickle_append_all(lade_pickle_t *self, lade_object_t *to, lade_object_t **items,
                         size_t count)
{
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < count; i++)
        code = lade_unpickle_append(self, to, items[i]);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Findings

void
lade_unpickle_say(lade_pickle_t *self, const char *what, const char *name, const char *words)
{
    char where[300];
    snprintf(where, sizeof where, "%.200s byte %" PRIu64, self->where, self->from + self->op_at);
    lade_tensor_list_add_unsafe(self->list, what, where, name, "%s %s", name, words);
}

// Each global that is not in the table is told once, and once more if it is called.
lade_stranger_t *
lade_unpickle_stranger(lade_pickle_t *self, const char *name)
{
    for (size_t i = 0; i < self->stranger_count; i++)
        if (strcmp(self->strangers[i].name, name) == 0)
            return &self->strangers[i];
    if (self->stranger_count == LADE_UNPICKLE_MAX_STRANGERS)
        return NULL;
    lade_stranger_t *stranger = &self->strangers[self->stranger_count];
    *stranger = (lade_stranger_t){.name = strdup(name)};
    if (!stranger->name)
        return NULL;
    self->stranger_count++;
    lade_unpickle_say(self, "global", name, "would be imported");
    return stranger;
}

// The whole of "module.name", ended by a NUL.
static const char *
s_name_of(const lade_object_t *function)
{
    return function->kind == LADE_OBJECT_GLOBAL ? function->bytes : "a value";
}

// "module.name" as Python could import it: in bytes that are no pickle there is hardly one.
static bool
s_is_plausible(const lade_object_t *function)
{
    if (function->kind != LADE_OBJECT_GLOBAL || strlen(function->bytes) != function->len)
        return false;
    const char *dot = strchr(function->bytes, '.');
    for (const char *at = function->bytes; *at; at++)
        if (!isalnum((unsigned char)*at) && *at != '_' && *at != '.' && (unsigned char)*at < 0x80)
            return false;
    return dot && dot > function->bytes && dot[1];
}

void
lade_unpickle_say_call(lade_pickle_t *self, const lade_object_t *function)
{
    const char *name = s_name_of(function);
    lade_stranger_t *stranger = lade_unpickle_stranger(self, name);
    self->calls += s_is_plausible(function);
    if (stranger && !stranger->called)
        lade_unpickle_say(self, "call", name, "would be called");
    if (stranger)
        stranger->called = true;
}

void
lade_unpickle_say_use(lade_pickle_t *self, const lade_object_t *object, const char *words)
{
    lade_unpickle_say(
        self, "misuse",
        object->kind == LADE_OBJECT_CALL ? s_name_of(object->items[0]) : s_name_of(object), words);
}

// ---------------------------------------------------------------------------------------------------
// Stack, marks, memo

lade_code_t
lade_unpickle_push(lade_pickle_t *self, lade_object_t *object)
{
    if (!object)
        return lade_unpickle_failed(self);
    if (self->stack_len == LADE_PICKLE_MAX_STACK)
        return lade_error_set(self->error, LADE_TOO_LARGE, "%s: the pickle's stack is over %d",
                              self->where, LADE_PICKLE_MAX_STACK);
    if (self->stack_len == self->stack_cap) {
        size_t cap = self->stack_cap ? 2 * self->stack_cap : 1024;
        lade_object_t **stack = realloc(self->stack, cap * sizeof *stack);
        if (!stack)
            return lade_unpickle_no_memory(self);
        self->stack = stack;
        self->stack_cap = cap;
    }
    self->stack[self->stack_len++] = object;
    return LADE_OK;
}

// How far down the stack may be taken: to the last mark.
size_t
lade_unpickle_fence(const lade_pickle_t *self)
{
    return self->mark_len ? self->marks[self->mark_len - 1] : 0;
}

lade_object_t *
lade_unpickle_pop(lade_pickle_t *self)
{
    return self->stack_len > lade_unpickle_fence(self) ? self->stack[--self->stack_len] : NULL;
}

lade_object_t *
lade_unpickle_top(lade_pickle_t *self)
{
    return self->stack_len > lade_unpickle_fence(self) ? self->stack[self->stack_len - 1] : NULL;
}

// Takes the last mark away; *items_p are what lay above it, good until the next push.
bool
lade_unpickle_pop_mark(lade_pickle_t *self, lade_object_t ***items_p, size_t *count_p)
{
    if (!self->mark_len)
        return false;
    size_t mark = self->marks[--self->mark_len];
    *items_p = self->stack ? self->stack + mark : NULL; // an empty stack has no memory yet
    *count_p = self->stack_len - mark;
    self->stack_len = mark;
    return true;
}

// What writes a memo entry is a byte at least: an index beyond the bytes so far was made to take
// memory.
lade_code_t
lade_unpickle_memo_put(lade_pickle_t *self, uint64_t index)
{
    lade_object_t *top = lade_unpickle_top(self);
    if (!top)
        return lade_unpickle_broken(self, "nothing is there to be remembered");
    if (index > self->at - self->start)
        return lade_unpickle_broken(self, "the memo has fewer entries than that");
    if (index >= self->memo_cap) {
        size_t cap = self->memo_cap ? 2 * self->memo_cap : 1024;
        cap = cap > index ? cap : (size_t)index + 1;
        lade_object_t **memo = realloc(self->memo, cap * sizeof *memo);
        if (!memo)
            return lade_unpickle_no_memory(self);
        memset(memo + self->memo_cap, 0, (cap - self->memo_cap) * sizeof *memo);
        self->memo = memo;
        self->memo_cap = cap;
    }
    self->memoized += self->memo[index] == NULL;
    self->memo[index] = top;
    return LADE_OK;
}

lade_code_t
lade_unpickle_memo_get(lade_pickle_t *self, uint64_t index)
{
    if (index >= self->memo_cap || !self->memo[index])
        return lade_unpickle_broken(self, "the memo has no such entry");
    return lade_unpickle_push(self, self->memo[index]);
}

void
lade_pickle_destroy(lade_pickle_t **self_p)
{
    lade_pickle_t *self = *self_p;
    if (!self)
        return;
    for (s_chunk_t *next; self->chunks; self->chunks = next) {
        next = self->chunks->next;
        free(self->chunks);
    }
    for (size_t i = 0; i < self->stranger_count; i++)
        free(self->strangers[i].name);
    free(self->stack);
    free(self->memo);
    free(self->marks);
    if (self->owned)
        munmap(self->owned, self->size + 1);
    free(self->where);
    free(self);
    *self_p = NULL;
}
