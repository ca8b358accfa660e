// The walk over a pickle's opcodes.
#include "common/formats/pickle.h"

#include "common/formats/tensor_list.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_CHUNK = 1 << 18, // bytes of memory taken at once
    S_FETCH = 1 << 16, // bytes read at once at first; four times as many each time after
    S_MAX_FETCH = 1 << 22,
    S_MAX_STRANGERS = 256, // globals out of the table that are told each once
    S_MAX_NESTED = 4,      // pickles within pickles
};

typedef struct s_chunk {
    struct s_chunk *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
} s_chunk_t;

typedef struct {
    char *name; // "module.name"
    bool called;
} s_stranger_t;

struct lade_pickle {
    const uint8_t *bytes;
    uint8_t *owned; // of a file: bytes
    size_t have;    // bytes that are there
    size_t size;    // bytes there are in all
    size_t fetch;   // bytes to read next
    int fd;
    uint64_t from;           // where bytes begin in the file
    size_t at, start, op_at; // the next byte; where this pickle and this opcode begin
    lade_tensors_t *list;
    char *where;
    size_t nested;       // pickles this one is within
    size_t nested_bytes; // walked of those within this one
    size_t calls;

    s_chunk_t *chunks;
    size_t objects;
    lade_object_t **stack, **memo;
    size_t stack_len, stack_cap, memo_cap;
    size_t *marks, mark_len, mark_cap;
    s_stranger_t strangers[S_MAX_STRANGERS];
    size_t stranger_count;
    size_t memoized;            // what MEMOIZE numbers next
    lade_object_t *persistents; // a list of them
    lade_object_t *none, *root;
    bool stopped;
    lade_error_t *error;
};

// ---------------------------------------------------------------------------------------------------
// Bytes and memory

static lade_code_t
s_broken(lade_pickle_t *self, const char *words)
{
    return lade_error_set(self->error, LADE_CORRUPT, "%s: byte %" PRIu64 " of the pickle: %s",
                          self->where, self->from + self->op_at, words);
}

static lade_code_t
s_no_memory(lade_pickle_t *self)
{
    return lade_error_set(self->error, LADE_NO_MEMORY, "no memory for the pickle %s", self->where);
}

// True if n more bytes are there, read from the file if need be.
static bool
s_need(lade_pickle_t *self, size_t n)
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
static void *
s_alloc(lade_pickle_t *self, size_t len)
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

static lade_object_t *
s_object(lade_pickle_t *self, lade_object_kind_t kind)
{
    if (self->objects == LADE_PICKLE_MAX_OBJECTS) {
        lade_error_set(self->error, LADE_TOO_LARGE, "%s: the pickle has more than %d values",
                       self->where, LADE_PICKLE_MAX_OBJECTS);
        return NULL;
    }
    lade_object_t *object = s_alloc(self, sizeof *object);
    if (!object) {
        s_no_memory(self);
        return NULL;
    }
    *object = (lade_object_t){.kind = (uint8_t)kind};
    self->objects++;
    return object;
}

// The code of what s_object or s_alloc could not do.
static lade_code_t
s_failed(lade_pickle_t *self)
{
    return self->error->code ? self->error->code : s_no_memory(self);
}

static lade_code_t
s_append(lade_pickle_t *self, lade_object_t *to, lade_object_t *item)
{
    if (to->len == to->cap) {
        uint32_t cap = to->cap ? 2 * to->cap : 4;
        lade_object_t **items = s_alloc(self, cap * sizeof *items);
        if (!items)
            return s_no_memory(self);
        if (to->len)
            memcpy(items, to->items, to->len * sizeof *items);
        to->items = items;
        to->cap = cap;
    }
    to->items[to->len++] = item;
    return LADE_OK;
}

static lade_code_t
s_append_all(lade_pickle_t *self, lade_object_t *to, lade_object_t **items, size_t count)
{
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < count; i++)
        code = s_append(self, to, items[i]);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Findings

static void
s_say(lade_pickle_t *self, const char *what, const char *name, const char *words)
{
    char where[300];
    snprintf(where, sizeof where, "%.200s byte %" PRIu64, self->where, self->from + self->op_at);
    lade_tensor_list_add_unsafe(self->list, what, where, name, "%s %s", name, words);
}

// Each global that is not in the table is told once, and once more if it is called.
static s_stranger_t *
s_stranger(lade_pickle_t *self, const char *name)
{
    for (size_t i = 0; i < self->stranger_count; i++)
        if (strcmp(self->strangers[i].name, name) == 0)
            return &self->strangers[i];
    if (self->stranger_count == S_MAX_STRANGERS)
        return NULL;
    s_stranger_t *stranger = &self->strangers[self->stranger_count];
    *stranger = (s_stranger_t){.name = strdup(name)};
    if (!stranger->name)
        return NULL;
    self->stranger_count++;
    s_say(self, "global", name, "would be imported");
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

static void
s_say_call(lade_pickle_t *self, const lade_object_t *function)
{
    const char *name = s_name_of(function);
    s_stranger_t *stranger = s_stranger(self, name);
    self->calls += s_is_plausible(function);
    if (stranger && !stranger->called)
        s_say(self, "call", name, "would be called");
    if (stranger)
        stranger->called = true;
}

static void
s_say_use(lade_pickle_t *self, const lade_object_t *object, const char *words)
{
    s_say(self, "misuse",
          object->kind == LADE_OBJECT_CALL ? s_name_of(object->items[0]) : s_name_of(object),
          words);
}

// ---------------------------------------------------------------------------------------------------
// Stack, marks, memo

static lade_code_t
s_push(lade_pickle_t *self, lade_object_t *object)
{
    if (!object)
        return s_failed(self);
    if (self->stack_len == LADE_PICKLE_MAX_STACK)
        return lade_error_set(self->error, LADE_TOO_LARGE, "%s: the pickle's stack is over %d",
                              self->where, LADE_PICKLE_MAX_STACK);
    if (self->stack_len == self->stack_cap) {
        size_t cap = self->stack_cap ? 2 * self->stack_cap : 1024;
        lade_object_t **stack = realloc(self->stack, cap * sizeof *stack);
        if (!stack)
            return s_no_memory(self);
        self->stack = stack;
        self->stack_cap = cap;
    }
    self->stack[self->stack_len++] = object;
    return LADE_OK;
}

// How far down the stack may be taken: to the last mark.
static size_t
s_fence(const lade_pickle_t *self)
{
    return self->mark_len ? self->marks[self->mark_len - 1] : 0;
}

static lade_object_t *
s_pop(lade_pickle_t *self)
{
    return self->stack_len > s_fence(self) ? self->stack[--self->stack_len] : NULL;
}

static lade_object_t *
s_top(lade_pickle_t *self)
{
    return self->stack_len > s_fence(self) ? self->stack[self->stack_len - 1] : NULL;
}

// Takes the last mark away; *items_p are what lay above it, good until the next push.
static bool
s_pop_mark(lade_pickle_t *self, lade_object_t ***items_p, size_t *count_p)
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
static lade_code_t
s_memo_put(lade_pickle_t *self, uint64_t index)
{
    lade_object_t *top = s_top(self);
    if (!top)
        return s_broken(self, "nothing is there to be remembered");
    if (index > self->at - self->start)
        return s_broken(self, "the memo has fewer entries than that");
    if (index >= self->memo_cap) {
        size_t cap = self->memo_cap ? 2 * self->memo_cap : 1024;
        cap = cap > index ? cap : (size_t)index + 1;
        lade_object_t **memo = realloc(self->memo, cap * sizeof *memo);
        if (!memo)
            return s_no_memory(self);
        memset(memo + self->memo_cap, 0, (cap - self->memo_cap) * sizeof *memo);
        self->memo = memo;
        self->memo_cap = cap;
    }
    self->memoized += self->memo[index] == NULL;
    self->memo[index] = top;
    return LADE_OK;
}

static lade_code_t
s_memo_get(lade_pickle_t *self, uint64_t index)
{
    if (index >= self->memo_cap || !self->memo[index])
        return s_broken(self, "the memo has no such entry");
    return s_push(self, self->memo[index]);
}

// ---------------------------------------------------------------------------------------------------
// Calls

static const lade_object_t *
s_arg(const lade_object_t *args, size_t index)
{
    return args->kind == LADE_OBJECT_TUPLE && index < args->len ? args->items[index] : NULL;
}

static bool
s_may_call(const lade_object_t *function)
{
    return function && function->kind == LADE_OBJECT_GLOBAL && function->row &&
           function->row->role != LADE_ROLE_NAME && function->row->role != LADE_ROLE_DTYPE;
}

bool
lade_object_says(const lade_object_t *object, const char *text)
{
    return object && object->kind == LADE_OBJECT_TEXT && object->len == strlen(text) &&
           memcmp(object->bytes, text, object->len) == 0;
}

// getattr of a class in the table or of what it makes, to a name that the table has as
// "Class.name".
static bool
s_getattr_is_fine(const lade_object_t *args)
{
    const lade_object_t *of = s_arg(args, 0), *name = s_arg(args, 1);
    char whole[256];
    if (!of || !name || (of->kind != LADE_OBJECT_GLOBAL && of->kind != LADE_OBJECT_CALL) ||
        !of->row || name->kind != LADE_OBJECT_TEXT || name->len > 100)
        return false;
    int len = snprintf(whole, sizeof whole, "%s.%.*s", of->row->name, (int)name->len, name->bytes);
    return len > 0 && len < (int)sizeof whole &&
           lade_pickle_global(of->row->module, strlen(of->row->module), whole, (size_t)len);
}

static bool s_walk_nested(lade_pickle_t *self, const lade_object_t *bytes, lade_object_t **found_p);

// The functions of the table that lead to others: where their arguments lead has to be in it too.
// *found_p is what a function's result is made of, if that is known here.
static bool
s_args_are_fine(lade_pickle_t *self, const lade_object_t *function, const lade_object_t *args,
                lade_object_t **found_p)
{
    const lade_object_t *first = s_arg(args, 0);
    switch (function->row->role) {
    case LADE_ROLE_ENCODE:
        return lade_object_says(s_arg(args, 1), "latin1") ||
               lade_object_says(s_arg(args, 1), "latin-1");
    case LADE_ROLE_GETATTR:
        return s_getattr_is_fine(args);
    case LADE_ROLE_NEWOBJ:
        return s_may_call(first);
    case LADE_ROLE_FROM_TYPE:
        return s_may_call(first) && first->row->role >= LADE_ROLE_TENSOR &&
               first->row->role <= LADE_ROLE_META && s_arg(args, 1) &&
               s_arg(args, 1)->kind == LADE_OBJECT_GLOBAL && s_arg(args, 1)->row;
    case LADE_ROLE_FROM_BYTES:
        return first && first->kind == LADE_OBJECT_BYTES && s_walk_nested(self, first, found_p);
    case LADE_ROLE_FACTORY:
        return !first || first->kind == LADE_OBJECT_NONE || s_may_call(first);
    default:
        return true;
    }
}

// The bytes that _codecs.encode(text, "latin1") makes; NULL if text has characters beyond.
static lade_object_t *
s_encode(lade_pickle_t *self, const lade_object_t *text)
{
    lade_object_t *object = s_object(self, LADE_OBJECT_BYTES);
    char *out = object ? s_alloc(self, text->len + 1) : NULL;
    if (!out)
        return NULL;
    object->bytes = out;
    for (size_t i = 0; i < text->len; i++) {
        uint8_t byte = (uint8_t)text->bytes[i];
        if (byte >= 0x80) {
            if ((byte != 0xc2 && byte != 0xc3) || i + 1 == text->len)
                return NULL;
            byte = (uint8_t)(byte << 6 | (text->bytes[++i] & 0x3f));
        }
        out[object->len++] = (char)byte;
    }
    return object;
}

static lade_object_t *
s_container(lade_pickle_t *self, const lade_object_t *function, lade_object_t *args)
{
    static const struct {
        lade_role_t role;
        lade_object_kind_t kind;
    } kinds[] = {{LADE_ROLE_DICT, LADE_OBJECT_DICT},
                 {LADE_ROLE_FACTORY, LADE_OBJECT_DICT},
                 {LADE_ROLE_LIST, LADE_OBJECT_LIST},
                 {LADE_ROLE_SET, LADE_OBJECT_SET}};
    if (function->row->role == LADE_ROLE_ENCODE && s_arg(args, 0)->kind == LADE_OBJECT_TEXT)
        return s_encode(self, s_arg(args, 0));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].role == function->row->role) {
            lade_object_t *object = s_object(self, kinds[i].kind);
            const lade_object_t *from = s_arg(args, 0);
            bool pairs = kinds[i].kind == LADE_OBJECT_DICT;
            for (size_t j = 0; object && from && j < from->len && from->kind >= LADE_OBJECT_TUPLE &&
                               from->kind <= LADE_OBJECT_DICT;
                 j++) {
                const lade_object_t *item = from->items[j];
                bool pair = (item->kind == LADE_OBJECT_TUPLE || item->kind == LADE_OBJECT_LIST) &&
                            item->len == 2;
                lade_code_t code = LADE_OK;
                if (pairs && pair && from->kind != LADE_OBJECT_DICT)
                    code = s_append_all(self, object, item->items, 2);
                else if (!pairs || from->kind == LADE_OBJECT_DICT)
                    code = s_append(self, object, from->items[j]);
                if (code)
                    return NULL;
            }
            return object;
        }
    return NULL;
}

// What a call of function would make.
static lade_code_t
s_call(lade_pickle_t *self, lade_object_t *function, lade_object_t *args)
{
    lade_object_t *found = NULL;
    bool fine = s_may_call(function) && s_args_are_fine(self, function, args, &found);
    if (!fine)
        s_say_call(self, function);
    lade_object_t *made = fine ? s_container(self, function, args) : NULL;
    if (made || self->error->code)
        return s_push(self, made);
    made = s_object(self, LADE_OBJECT_CALL);
    if (!made || !(made->items = s_alloc(self, LADE_CALL_MEMBERS * sizeof *made->items)))
        return s_failed(self);
    made->len = made->cap = LADE_CALL_MEMBERS;
    memset(made->items, 0, LADE_CALL_MEMBERS * sizeof *made->items);
    made->items[LADE_CALL_FUNCTION] = function;
    made->items[LADE_CALL_ARGS] = args;
    made->items[LADE_CALL_ITEMS] = found;
    made->row = fine ? function->row : NULL;
    return s_push(self, made);
}

// ---------------------------------------------------------------------------------------------------
// Opcodes

typedef struct {
    uint64_t number;
    const char *bytes, *second;
    size_t len, second_len;
} s_operand_t;

typedef lade_code_t s_act_t(lade_pickle_t *self, const s_operand_t *operand);

static lade_code_t
s_underflow(lade_pickle_t *self)
{
    return s_broken(self, "the stack has too little on it");
}

static lade_code_t
s_do_proto(lade_pickle_t *self, const s_operand_t *operand)
{
    return operand->number > 5 ? s_broken(self, "there is no such protocol") : LADE_OK;
}

static lade_code_t
s_do_nothing(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)self;
    (void)operand;
    return LADE_OK;
}

static lade_code_t
s_do_stop(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    self->root = s_pop(self);
    self->stopped = true;
    return self->root ? LADE_OK : s_underflow(self);
}

static lade_code_t
s_do_mark(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    if (self->mark_len == LADE_PICKLE_MAX_MARKS)
        return lade_error_set(self->error, LADE_TOO_LARGE, "%s: the pickle is over %d deep",
                              self->where, LADE_PICKLE_MAX_MARKS);
    if (self->mark_len == self->mark_cap) {
        size_t cap = self->mark_cap ? 2 * self->mark_cap : 64;
        size_t *marks = realloc(self->marks, cap * sizeof *marks);
        if (!marks)
            return s_no_memory(self);
        self->marks = marks;
        self->mark_cap = cap;
    }
    self->marks[self->mark_len++] = self->stack_len;
    return LADE_OK;
}

static lade_code_t
s_do_pop(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    if (s_pop(self))
        return LADE_OK;
    if (!self->mark_len)
        return s_underflow(self);
    self->mark_len--;
    return LADE_OK;
}

static lade_code_t
s_do_pop_mark(lade_pickle_t *self, const s_operand_t *operand)
{
    lade_object_t **items;
    size_t count;
    (void)operand;
    return s_pop_mark(self, &items, &count) ? LADE_OK : s_underflow(self);
}

static lade_code_t
s_do_dup(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_top(self) ? s_push(self, s_top(self)) : s_underflow(self);
}

static lade_code_t
s_push_integer(lade_pickle_t *self, lade_object_kind_t kind, int64_t integer)
{
    lade_object_t *object = s_object(self, kind);
    if (object)
        object->integer = integer;
    return s_push(self, object);
}

static lade_code_t
s_push_bytes(lade_pickle_t *self, lade_object_kind_t kind, const char *bytes, size_t len)
{
    lade_object_t *object = s_object(self, kind);
    if (object) {
        object->bytes = bytes;
        object->len = (uint32_t)len;
    }
    return s_push(self, object);
}

static lade_code_t
s_do_none(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_push(self, self->none);
}

static lade_code_t
s_do_true(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_push_integer(self, LADE_OBJECT_BOOL, 1);
}

static lade_code_t
s_do_false(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_push_integer(self, LADE_OBJECT_BOOL, 0);
}

static lade_code_t
s_do_unsigned(lade_pickle_t *self, const s_operand_t *operand)
{
    return s_push_integer(self, LADE_OBJECT_INT, (int64_t)operand->number);
}

static lade_code_t
s_do_signed(lade_pickle_t *self, const s_operand_t *operand)
{
    return s_push_integer(self, LADE_OBJECT_INT, (int32_t)operand->number);
}

static lade_code_t
s_push_real(lade_pickle_t *self, double real)
{
    lade_object_t *object = s_object(self, LADE_OBJECT_FLOAT);
    if (object)
        object->real = real;
    return s_push(self, object);
}

static lade_code_t
s_do_binfloat(lade_pickle_t *self, const s_operand_t *operand)
{
    uint64_t bits = __builtin_bswap64(operand->number); // the only number with its big end first
    double real;
    memcpy(&real, &bits, sizeof real);
    return s_push_real(self, real);
}

// The text of a number, short enough for one.
static bool
s_number_text(const s_operand_t *operand, char text[64])
{
    if (operand->len >= 64)
        return false;
    memcpy(text, operand->bytes, operand->len);
    text[operand->len] = '\0';
    return true;
}

static lade_code_t
s_do_float(lade_pickle_t *self, const s_operand_t *operand)
{
    char text[64], *end;
    if (!s_number_text(operand, text))
        return s_broken(self, "a number is too long");
    double real = strtod(text, &end);
    return *end || end == text ? s_broken(self, "a number is none") : s_push_real(self, real);
}

static lade_code_t
s_do_int(lade_pickle_t *self, const s_operand_t *operand)
{
    char text[64], *end;
    if (operand->len == 2 && memcmp(operand->bytes, "00", 2) == 0)
        return s_push_integer(self, LADE_OBJECT_BOOL, 0);
    if (operand->len == 2 && memcmp(operand->bytes, "01", 2) == 0)
        return s_push_integer(self, LADE_OBJECT_BOOL, 1);
    if (!s_number_text(operand, text)) // a number all the same, with more digits than fit
        return s_push_bytes(self, LADE_OBJECT_LONG, operand->bytes, operand->len);
    errno = 0;
    int64_t integer = strtoll(text, &end, 10);
    end += *end == 'L';
    if (*end || end == text)
        return s_broken(self, "a number is none");
    return errno ? s_push_bytes(self, LADE_OBJECT_LONG, operand->bytes, operand->len)
                 : s_push_integer(self, LADE_OBJECT_INT, integer);
}

static lade_code_t
s_do_long(lade_pickle_t *self, const s_operand_t *operand)
{
    uint64_t value = 0;
    if (operand->len > 8)
        return s_push_bytes(self, LADE_OBJECT_LONG, operand->bytes, operand->len);
    for (size_t i = 0; i < operand->len; i++)
        value |= (uint64_t)(uint8_t)operand->bytes[i] << 8 * i;
    if (operand->len && operand->len < 8 && operand->bytes[operand->len - 1] & 0x80)
        value |= ~(uint64_t)0 << 8 * operand->len;
    return s_push_integer(self, LADE_OBJECT_INT, (int64_t)value);
}

static lade_code_t
s_do_text(lade_pickle_t *self, const s_operand_t *operand)
{
    return s_push_bytes(self, LADE_OBJECT_TEXT, operand->bytes, operand->len);
}

static lade_code_t
s_do_bytes(lade_pickle_t *self, const s_operand_t *operand)
{
    return s_push_bytes(self, LADE_OBJECT_BYTES, operand->bytes, operand->len);
}

static int
s_hex(const char *at, size_t count, uint32_t *value_p)
{
    uint32_t value = 0;
    for (size_t i = 0; i < count; i++) {
        int c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return 0;
        value = value << 4 | (uint32_t)digit;
    }
    *value_p = value;
    return 1;
}

static size_t
s_put_utf8(char *out, uint32_t point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(leads[more] | point >> 6 * more);
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (point >> 6 * (more - i) & 0x3f));
    return more + 1;
}

// Protocol 0's texts: \uXXXX and \UXXXXXXXX, every other byte is Latin 1.
static lade_code_t
s_do_unicode(lade_pickle_t *self, const s_operand_t *operand)
{
    char *out = s_alloc(self, 2 * operand->len + 4);
    size_t len = 0;
    if (!out)
        return s_no_memory(self);
    for (size_t i = 0; i < operand->len;) {
        const char *at = operand->bytes + i;
        size_t left = operand->len - i, digits = 0;
        uint32_t point = (uint8_t)*at;
        if (left >= 6 && at[0] == '\\' && at[1] == 'u')
            digits = 4;
        else if (left >= 10 && at[0] == '\\' && at[1] == 'U')
            digits = 8;
        if (digits && (!s_hex(at + 2, digits, &point) || point > 0x10ffff))
            return s_broken(self, "an escape in a text is none");
        len += s_put_utf8(out + len, point);
        i += digits ? digits + 2 : 1;
    }
    return s_push_bytes(self, LADE_OBJECT_TEXT, out, len);
}

// One escape at *at, which follows a backslash; returns its bytes.
static size_t
s_escape(const char *at, size_t left, char *byte)
{
    static const char names[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
    const char *named = left && *at ? strchr(names, *at) : NULL;
    uint32_t value;
    if (named) {
        *byte = values[named - names];
        return 1;
    }
    if (left >= 3 && *at == 'x' && s_hex(at + 1, 2, &value)) {
        *byte = (char)value;
        return 3;
    }
    size_t digits = 0;
    for (value = 0; digits < 3 && digits < left && at[digits] >= '0' && at[digits] <= '7'; digits++)
        value = value * 8 + (uint32_t)(at[digits] - '0');
    *byte = (char)value;
    return digits;
}

// Protocol 0's strings: 'as Python writes them', with escapes.
static lade_code_t
s_do_string(lade_pickle_t *self, const s_operand_t *operand)
{
    const char *at = operand->bytes;
    size_t left = operand->len, len = 0;
    while (left && (at[left - 1] == '\r' || at[left - 1] == ' '))
        left--;
    if (left < 2 || (*at != '\'' && *at != '"') || at[left - 1] != *at)
        return s_broken(self, "a string has no quotes");
    at++;
    left -= 2;
    char *out = s_alloc(self, left + 1);
    if (!out)
        return s_no_memory(self);
    while (left) {
        size_t n = 1;
        if (*at == '\\' && left > 1)
            n = 1 + s_escape(at + 1, left - 1, &out[len]);
        if (n == 1)
            out[len] = *at;
        len++;
        at += n;
        left -= n;
    }
    return s_push_bytes(self, LADE_OBJECT_TEXT, out, len);
}

static lade_code_t
s_push_empty(lade_pickle_t *self, lade_object_kind_t kind)
{
    return s_push(self, s_object(self, kind));
}

static lade_code_t
s_do_empty_dict(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_push_empty(self, LADE_OBJECT_DICT);
}

static lade_code_t
s_do_empty_list(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_push_empty(self, LADE_OBJECT_LIST);
}

static lade_code_t
s_do_empty_tuple(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_push_empty(self, LADE_OBJECT_TUPLE);
}

static lade_code_t
s_do_empty_set(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_push_empty(self, LADE_OBJECT_SET);
}

// An object of what lies above the last mark.
static lade_code_t
s_from_mark(lade_pickle_t *self, lade_object_kind_t kind)
{
    lade_object_t **items, *object = s_object(self, kind);
    size_t count;
    if (!object)
        return s_failed(self);
    if (!s_pop_mark(self, &items, &count))
        return s_underflow(self);
    if (kind == LADE_OBJECT_DICT && count % 2)
        return s_broken(self, "a dict has a key without value");
    lade_code_t code = s_append_all(self, object, items, count);
    return code ? code : s_push(self, object);
}

static lade_code_t
s_do_tuple(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_from_mark(self, LADE_OBJECT_TUPLE);
}

static lade_code_t
s_do_list(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_from_mark(self, LADE_OBJECT_LIST);
}

static lade_code_t
s_do_dict(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_from_mark(self, LADE_OBJECT_DICT);
}

static lade_code_t
s_do_frozenset(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_from_mark(self, LADE_OBJECT_SET);
}

static lade_code_t
s_tuple_of(lade_pickle_t *self, size_t count)
{
    lade_object_t *tuple = s_object(self, LADE_OBJECT_TUPLE);
    if (!tuple)
        return s_failed(self);
    if (self->stack_len - s_fence(self) < count)
        return s_underflow(self);
    self->stack_len -= count;
    lade_code_t code = s_append_all(self, tuple, self->stack + self->stack_len, count);
    return code ? code : s_push(self, tuple);
}

static lade_code_t
s_do_tuple1(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_tuple_of(self, 1);
}

static lade_code_t
s_do_tuple2(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_tuple_of(self, 2);
}

static lade_code_t
s_do_tuple3(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_tuple_of(self, 3);
}

// Where items that are added to object go: itself, or a container beside a call that made a dict or
// list of some class. NULL for what has none.
static lade_object_t *
s_items_of(lade_pickle_t *self, lade_object_t *object, lade_object_kind_t kind)
{
    if (object->kind == kind)
        return object;
    if (object->kind == LADE_OBJECT_LIST && kind == LADE_OBJECT_DICT)
        return NULL; // assigns to an item that is there already: nothing writes that
    if (object->kind != LADE_OBJECT_CALL)
        return NULL;
    lade_object_t **items = &object->items[LADE_CALL_ITEMS];
    if (!*items)
        *items = s_object(self, kind);
    return *items && (*items)->kind == kind ? *items : NULL;
}

// True for a call that can make a dict or list; items of a tensor would be written to memory.
static bool
s_takes_items(const lade_object_t *object)
{
    return object->kind != LADE_OBJECT_CALL || !object->row ||
           object->row->role == LADE_ROLE_DATA || object->row->role == LADE_ROLE_NEWOBJ ||
           object->row->role == LADE_ROLE_MODULE;
}

static lade_code_t
s_add_items(lade_pickle_t *self, lade_object_t *object, lade_object_kind_t kind,
            lade_object_t **items, size_t count)
{
    lade_object_t *to = s_takes_items(object) ? s_items_of(self, object, kind) : NULL;
    if (self->error->code)
        return self->error->code;
    if (!to) {
        s_say_use(self, object, "would have items set, and is no container");
        return LADE_OK;
    }
    return s_append_all(self, to, items, count);
}

static lade_code_t
s_add_marked(lade_pickle_t *self, lade_object_kind_t kind)
{
    lade_object_t **items;
    size_t count;
    if (!s_pop_mark(self, &items, &count) || !s_top(self))
        return s_underflow(self);
    if (kind == LADE_OBJECT_DICT && count % 2)
        return s_broken(self, "a key has no value");
    return s_add_items(self, s_top(self), kind, items, count);
}

static lade_code_t
s_do_appends(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_add_marked(self, LADE_OBJECT_LIST);
}

static lade_code_t
s_do_setitems(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_add_marked(self, LADE_OBJECT_DICT);
}

static lade_code_t
s_do_additems(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_add_marked(self, LADE_OBJECT_SET);
}

static lade_code_t
s_do_append(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    lade_object_t *item = s_pop(self), *to = s_top(self);
    return item && to ? s_add_items(self, to, LADE_OBJECT_LIST, &item, 1) : s_underflow(self);
}

static lade_code_t
s_do_setitem(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    lade_object_t *pair[2];
    pair[1] = s_pop(self);
    pair[0] = s_pop(self);
    lade_object_t *to = s_top(self);
    return pair[0] && pair[1] && to ? s_add_items(self, to, LADE_OBJECT_DICT, pair, 2)
                                    : s_underflow(self);
}

static lade_code_t
s_push_global(lade_pickle_t *self, const char *module, size_t module_len, const char *name,
              size_t name_len)
{
    lade_object_t *object = s_object(self, LADE_OBJECT_GLOBAL);
    char *whole = s_alloc(self, module_len + name_len + 2);
    if (!object || !whole)
        return s_failed(self);
    memcpy(whole, module, module_len);
    whole[module_len] = '.';
    memcpy(whole + module_len + 1, name, name_len);
    whole[module_len + 1 + name_len] = '\0';
    object->bytes = whole;
    object->len = (uint32_t)(module_len + name_len + 1);
    object->row = lade_pickle_global(module, module_len, name, name_len);
    if (!object->row)
        s_stranger(self, whole);
    return s_push(self, object);
}

static lade_code_t
s_do_global(lade_pickle_t *self, const s_operand_t *operand)
{
    return s_push_global(self, operand->bytes, operand->len, operand->second, operand->second_len);
}

static lade_code_t
s_do_stack_global(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    lade_object_t *name = s_pop(self), *module = s_pop(self);
    if (!name || !module)
        return s_underflow(self);
    if (name->kind != LADE_OBJECT_TEXT || module->kind != LADE_OBJECT_TEXT) {
        s_say(self, "global", "a value", "would be imported by a name that is no text");
        return s_push(self, self->none);
    }
    return s_push_global(self, module->bytes, module->len, name->bytes, name->len);
}

static lade_code_t
s_do_reduce(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    lade_object_t *args = s_pop(self), *function = s_pop(self);
    return args && function ? s_call(self, function, args) : s_underflow(self);
}

static lade_code_t
s_do_newobj_ex(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    lade_object_t *named = s_pop(self), *args = s_pop(self), *class = s_pop(self);
    return named && args && class ? s_call(self, class, args) : s_underflow(self);
}

// A call with what lies above the mark as arguments.
static lade_code_t
s_call_marked(lade_pickle_t *self, lade_object_t *function, lade_object_t **items, size_t count)
{
    lade_object_t *args = s_object(self, LADE_OBJECT_TUPLE);
    if (!args || s_append_all(self, args, items, count))
        return s_failed(self);
    return s_call(self, function, args);
}

static lade_code_t
s_do_obj(lade_pickle_t *self, const s_operand_t *operand)
{
    lade_object_t **items;
    size_t count;
    (void)operand;
    if (!s_pop_mark(self, &items, &count) || !count)
        return s_underflow(self);
    return s_call_marked(self, items[0], items + 1, count - 1);
}

static lade_code_t
s_do_inst(lade_pickle_t *self, const s_operand_t *operand)
{
    lade_object_t **items, *class;
    size_t count;
    lade_code_t code = s_do_global(self, operand);
    class = code ? NULL : self->stack[--self->stack_len];
    if (code)
        return code;
    if (!s_pop_mark(self, &items, &count))
        return s_underflow(self);
    return s_call_marked(self, class, items, count);
}

static lade_code_t
s_do_build(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    lade_object_t *state = s_pop(self), *object = s_top(self);
    if (!state || !object)
        return s_underflow(self);
    if (object->kind == LADE_OBJECT_GLOBAL)
        s_say_use(self, object, "would have attributes of its own set");
    if (object->kind == LADE_OBJECT_CALL)
        object->items[LADE_CALL_STATE] = state;
    return LADE_OK;
}

static lade_code_t
s_do_extension(lade_pickle_t *self, const s_operand_t *operand)
{
    char name[40];
    snprintf(name, sizeof name, "extension %" PRIu64, operand->number);
    s_say(self, "extension", name, "would be looked up in the registry of copyreg");
    return s_push_bytes(self, LADE_OBJECT_GLOBAL, "an extension", 12);
}

static lade_code_t
s_push_persistent(lade_pickle_t *self, lade_object_t *id)
{
    lade_object_t *object = s_object(self, LADE_OBJECT_PERSISTENT);
    if (!object || !id || s_append(self, object, id) || s_append(self, self->persistents, object))
        return s_failed(self);
    return s_push(self, object);
}

// ("module", class, file, text), in tar files without the word: a class with the text it had, for
// which torch puts the class.
static lade_object_t *
s_class_of_id(const lade_object_t *id)
{
    bool word = lade_object_says(s_arg(id, 0), "module");
    lade_object_t *class = (lade_object_t *)s_arg(id, word);
    return class && class->kind == LADE_OBJECT_GLOBAL ? class : NULL;
}

static lade_code_t
s_do_binpersid(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    lade_object_t *id = s_pop(self);
    lade_object_t *class = id ? s_class_of_id(id) : NULL;
    if (class)
        return s_push(self, class);
    return id ? s_push_persistent(self, id) : s_underflow(self);
}

static lade_code_t
s_do_persid(lade_pickle_t *self, const s_operand_t *operand)
{
    lade_code_t code = s_do_text(self, operand);
    return code ? code : s_do_binpersid(self, operand);
}

static lade_code_t
s_do_put(lade_pickle_t *self, const s_operand_t *operand)
{
    return s_memo_put(self, operand->number);
}

static lade_code_t
s_do_get(lade_pickle_t *self, const s_operand_t *operand)
{
    return s_memo_get(self, operand->number);
}

static lade_code_t
s_do_memoize(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_memo_put(self, self->memoized);
}

static lade_code_t
s_text_index(lade_pickle_t *self, const s_operand_t *operand, uint64_t *index_p)
{
    char text[64], *end;
    if (!s_number_text(operand, text) || text[0] < '0' || text[0] > '9')
        return s_broken(self, "an index of the memo is no number");
    *index_p = strtoull(text, &end, 10);
    return *end ? s_broken(self, "an index of the memo is no number") : LADE_OK;
}

static lade_code_t
s_do_text_put(lade_pickle_t *self, const s_operand_t *operand)
{
    uint64_t index;
    lade_code_t code = s_text_index(self, operand, &index);
    return code ? code : s_memo_put(self, index);
}

static lade_code_t
s_do_text_get(lade_pickle_t *self, const s_operand_t *operand)
{
    uint64_t index;
    lade_code_t code = s_text_index(self, operand, &index);
    return code ? code : s_memo_get(self, index);
}

static lade_code_t
s_do_next_buffer(lade_pickle_t *self, const s_operand_t *operand)
{
    (void)operand;
    return s_broken(self, "its bytes are in buffers that no file has");
}

typedef enum {
    S_NO_OPCODE,
    S_BARE,    // nothing follows
    S_NUMBER,  // size bytes of a number follow
    S_COUNTED, // size bytes of a length, and so many bytes
    S_LINE,    // bytes up to the end of the line
    S_LINES,   // two such
} s_form_t;

static const struct {
    s_act_t *act;
    s_form_t form;
    uint8_t size;
} s_opcodes[256] = {
    // clang-format off
    [0x80] = {s_do_proto,        S_NUMBER,  1},
    ['.']  = {s_do_stop,         S_BARE,    0},
    ['(']  = {s_do_mark,         S_BARE,    0},
    ['0']  = {s_do_pop,          S_BARE,    0},
    ['1']  = {s_do_pop_mark,     S_BARE,    0},
    ['2']  = {s_do_dup,          S_BARE,    0},
    [0x95] = {s_do_nothing,      S_NUMBER,  8}, // FRAME

    ['N']  = {s_do_none,         S_BARE,    0},
    [0x88] = {s_do_true,         S_BARE,    0},
    [0x89] = {s_do_false,        S_BARE,    0},
    ['K']  = {s_do_unsigned,     S_NUMBER,  1},
    ['M']  = {s_do_unsigned,     S_NUMBER,  2},
    ['J']  = {s_do_signed,       S_NUMBER,  4},
    ['I']  = {s_do_int,          S_LINE,    0},
    ['L']  = {s_do_int,          S_LINE,    0},
    [0x8a] = {s_do_long,         S_COUNTED, 1},
    [0x8b] = {s_do_long,         S_COUNTED, 4},
    ['F']  = {s_do_float,        S_LINE,    0},
    ['G']  = {s_do_binfloat,     S_NUMBER,  8},

    ['S']  = {s_do_string,       S_LINE,    0},
    ['T']  = {s_do_text,         S_COUNTED, 4}, // bytes of Python 2, mostly texts
    ['U']  = {s_do_text,         S_COUNTED, 1},
    ['V']  = {s_do_unicode,      S_LINE,    0},
    ['X']  = {s_do_text,         S_COUNTED, 4},
    [0x8c] = {s_do_text,         S_COUNTED, 1},
    [0x8d] = {s_do_text,         S_COUNTED, 8},
    ['B']  = {s_do_bytes,        S_COUNTED, 4},
    ['C']  = {s_do_bytes,        S_COUNTED, 1},
    [0x8e] = {s_do_bytes,        S_COUNTED, 8},
    [0x96] = {s_do_bytes,        S_COUNTED, 8}, // BYTEARRAY8
    [0x97] = {s_do_next_buffer,  S_BARE,    0},
    [0x98] = {s_do_nothing,      S_BARE,    0}, // READONLY_BUFFER

    ['}']  = {s_do_empty_dict,   S_BARE,    0},
    [']']  = {s_do_empty_list,   S_BARE,    0},
    [')']  = {s_do_empty_tuple,  S_BARE,    0},
    [0x8f] = {s_do_empty_set,    S_BARE,    0},
    ['d']  = {s_do_dict,         S_BARE,    0},
    ['l']  = {s_do_list,         S_BARE,    0},
    ['t']  = {s_do_tuple,        S_BARE,    0},
    [0x85] = {s_do_tuple1,       S_BARE,    0},
    [0x86] = {s_do_tuple2,       S_BARE,    0},
    [0x87] = {s_do_tuple3,       S_BARE,    0},
    [0x91] = {s_do_frozenset,    S_BARE,    0},
    ['a']  = {s_do_append,       S_BARE,    0},
    ['e']  = {s_do_appends,      S_BARE,    0},
    ['s']  = {s_do_setitem,      S_BARE,    0},
    ['u']  = {s_do_setitems,     S_BARE,    0},
    [0x90] = {s_do_additems,     S_BARE,    0},

    ['p']  = {s_do_text_put,     S_LINE,    0},
    ['q']  = {s_do_put,          S_NUMBER,  1},
    ['r']  = {s_do_put,          S_NUMBER,  4},
    [0x94] = {s_do_memoize,      S_BARE,    0},
    ['g']  = {s_do_text_get,     S_LINE,    0},
    ['h']  = {s_do_get,          S_NUMBER,  1},
    ['j']  = {s_do_get,          S_NUMBER,  4},

    ['c']  = {s_do_global,       S_LINES,   0},
    [0x93] = {s_do_stack_global, S_BARE,    0},
    ['R']  = {s_do_reduce,       S_BARE,    0},
    ['b']  = {s_do_build,        S_BARE,    0},
    ['i']  = {s_do_inst,         S_LINES,   0},
    ['o']  = {s_do_obj,          S_BARE,    0},
    [0x81] = {s_do_reduce,       S_BARE,    0}, // NEWOBJ: a class and its arguments
    [0x92] = {s_do_newobj_ex,    S_BARE,    0},
    [0x82] = {s_do_extension,    S_NUMBER,  1},
    [0x83] = {s_do_extension,    S_NUMBER,  2},
    [0x84] = {s_do_extension,    S_NUMBER,  4},
    ['P']  = {s_do_persid,       S_LINE,    0},
    ['Q']  = {s_do_binpersid,    S_BARE,    0},
    // clang-format on
};

// ---------------------------------------------------------------------------------------------------
// The walk

static lade_code_t
s_read_number(lade_pickle_t *self, size_t size, uint64_t *number_p)
{
    uint64_t number = 0;
    if (!s_need(self, size))
        return s_broken(self, "it ends there");
    for (size_t i = 0; i < size; i++)
        number |= (uint64_t)self->bytes[self->at + i] << 8 * i;
    self->at += size;
    *number_p = number;
    return LADE_OK;
}

static lade_code_t
s_read_line(lade_pickle_t *self, const char **bytes_p, size_t *len_p)
{
    for (size_t seen = 0;;) {
        const uint8_t *from = self->bytes + self->at;
        const uint8_t *end = memchr(from + seen, '\n', self->have - self->at - seen);
        if (end) {
            *bytes_p = (const char *)from;
            *len_p = (size_t)(end - from);
            self->at += *len_p + 1;
            return LADE_OK;
        }
        seen = self->have - self->at;
        if (!s_need(self, seen + 1))
            return s_broken(self, "it ends within a line");
    }
}

static lade_code_t
s_read_operand(lade_pickle_t *self, uint8_t opcode, s_operand_t *operand)
{
    lade_code_t code = LADE_OK;
    switch (s_opcodes[opcode].form) {
    case S_NO_OPCODE:
        return s_broken(self, "there is no such opcode");
    case S_BARE:
        break;
    case S_NUMBER:
        code = s_read_number(self, s_opcodes[opcode].size, &operand->number);
        break;
    case S_COUNTED:
        code = s_read_number(self, s_opcodes[opcode].size, &operand->number);
        if (!code && (operand->number > self->size || !s_need(self, (size_t)operand->number)))
            code = s_broken(self, "it ends within a text");
        operand->bytes = (const char *)self->bytes + self->at;
        operand->len = code ? 0 : (size_t)operand->number;
        self->at += operand->len;
        break;
    case S_LINE:
    case S_LINES:
        code = s_read_line(self, &operand->bytes, &operand->len);
        if (!code && s_opcodes[opcode].form == S_LINES)
            code = s_read_line(self, &operand->second, &operand->second_len);
        break;
    }
    return code;
}

static lade_code_t
s_step(lade_pickle_t *self)
{
    s_operand_t operand = {0};
    self->op_at = self->at;
    if (!s_need(self, 1))
        return s_broken(self, "it ends without STOP");
    uint8_t opcode = self->bytes[self->at++];
    lade_code_t code = s_read_operand(self, opcode, &operand);
    return code ? code : s_opcodes[opcode].act(self, &operand);
}

lade_code_t
lade_pickle_next(lade_pickle_t *self, lade_object_t **root_p, lade_error_t *error)
{
    lade_error_t spare = {0};
    lade_code_t code = LADE_OK;
    self->error = error ? error : &spare;
    self->error->code = LADE_OK;
    self->start = self->at;
    self->stack_len = self->mark_len = self->memoized = 0;
    self->root = NULL;
    self->stopped = false;
    *root_p = NULL;
    if (self->memo)
        memset(self->memo, 0, self->memo_cap * sizeof *self->memo);
    self->none = s_object(self, LADE_OBJECT_NONE);
    self->persistents = s_object(self, LADE_OBJECT_LIST);
    if (!self->none || !self->persistents)
        code = s_failed(self);
    while (!code && !self->stopped)
        code = s_step(self);
    self->error = NULL;
    if (!code)
        *root_p = self->root;
    return code;
}

// What a storage's id in the pickle within says: (type, elements, where its bytes begin).
static lade_object_t *
s_nested_storage(lade_pickle_t *self, const lade_object_t *root, uint64_t at)
{
    const lade_object_t *id = root->kind == LADE_OBJECT_PERSISTENT ? root->items[0] : NULL;
    if (!id || id->kind != LADE_OBJECT_TUPLE || id->len < 5 ||
        id->items[1]->kind != LADE_OBJECT_GLOBAL || id->items[4]->kind != LADE_OBJECT_INT)
        return NULL;
    lade_object_t *tuple = s_object(self, LADE_OBJECT_TUPLE);
    lade_object_t *type = s_object(self, LADE_OBJECT_GLOBAL);
    lade_object_t *count = s_object(self, LADE_OBJECT_INT),
                  *where = s_object(self, LADE_OBJECT_INT);
    if (!tuple || !type || !count || !where || s_append(self, tuple, type) ||
        s_append(self, tuple, count) || s_append(self, tuple, where))
        return NULL;
    type->bytes = ""; // the name is the inner walk's
    type->row = id->items[1]->row;
    count->integer = id->items[4]->integer;
    where->integer = (int64_t)at;
    return tuple;
}

// A torch file within the pickle. False if anything in it is not fine. All of them together may
// take as long as the pickle around them.
static bool
s_walk_nested(lade_pickle_t *self, const lade_object_t *bytes, lade_object_t **found_p)
{
    lade_error_t error = {0};
    lade_object_t *root = NULL, *storage = NULL;
    if (self->nested == S_MAX_NESTED || self->nested_bytes > self->size)
        return false;
    lade_pickle_t *inner =
        lade_pickle_new((const uint8_t *)bytes->bytes, bytes->len, self->list, self->where);
    size_t before = json_array_size(self->list->unsafe);
    bool fine = inner != NULL;
    // magic number, version, system, object, keys; then come the weights
    for (size_t i = 0; fine && i < 5; i++) {
        inner->nested = self->nested + 1;
        fine = lade_pickle_next(inner, &root, &error) == LADE_OK;
        storage = i == 3 ? root : storage;
    }
    fine = fine && json_array_size(self->list->unsafe) == before;
    self->nested_bytes += inner ? inner->at + inner->nested_bytes : 0;
    if (fine)
        *found_p = s_nested_storage(self, storage, inner->at);
    lade_pickle_destroy(&inner);
    return fine;
}

uint64_t
lade_pickle_at(const lade_pickle_t *self)
{
    return self->at;
}

bool
lade_pickle_more(lade_pickle_t *self)
{
    return s_need(self, 1);
}

lade_object_t *const *
lade_pickle_persistents(const lade_pickle_t *self, size_t *count_p)
{
    *count_p = self->persistents ? self->persistents->len : 0;
    return *count_p ? self->persistents->items : NULL;
}

bool
lade_pickle_place(const lade_pickle_t *self, const char *bytes, uint64_t *at_p)
{
    const char *from = (const char *)self->bytes;
    if (bytes < from || bytes > from + self->have)
        return false;
    *at_p = self->from + (uint64_t)(bytes - from);
    return true;
}

size_t
lade_pickle_calls(const lade_pickle_t *self)
{
    return self->calls;
}

lade_pickle_t *
lade_pickle_new(const uint8_t *bytes, size_t len, lade_tensors_t *list, const char *where)
{
    lade_pickle_t *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->bytes = bytes;
    self->have = self->size = len < LADE_PICKLE_MAX_BYTES ? len : LADE_PICKLE_MAX_BYTES;
    self->list = list;
    self->where = strdup(where);
    if (!self->where)
        lade_pickle_destroy(&self);
    return self;
}

lade_pickle_t *
lade_pickle_new_file(int fd, uint64_t from, uint64_t size, lade_tensors_t *list, const char *where)
{
    uint64_t len = size > from ? size - from : 0;
    lade_pickle_t *self =
        lade_pickle_new(NULL, len < SIZE_MAX ? (size_t)len : SIZE_MAX, list, where);
    if (!self)
        return NULL;
    self->have = 0;
    self->fd = fd;
    self->from = from;
    self->fetch = S_FETCH;
    self->owned = malloc(self->size + 1); // only what is read of it takes memory
    self->bytes = self->owned;
    if (!self->owned)
        lade_pickle_destroy(&self);
    return self;
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
    free(self->owned);
    free(self->where);
    free(self);
    *self_p = NULL;
}
