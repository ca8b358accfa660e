// The walk over a pickle: the table of opcodes, what follows each, one pickle after the other.
#include "common/formats/pickle.h"

#include "common/formats/unpickle.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    S_FETCH = 1 << 16,     // bytes read at once at first
    S_MAX_LINE = 1 << 16,  // bytes of a number, a name or an index in a line
    S_MAX_TEXT = 16 << 20, // bytes of a text in a line
};

typedef enum {
    S_NO_OPCODE,
    S_BARE,    // nothing follows
    S_NUMBER,  // size bytes of a number follow
    S_COUNTED, // size bytes of a length, and so many bytes
    S_LINE,    // bytes up to the end of the line
    S_LINES,   // two such
} s_form_t;

#define DO(name) lade_unpickle_do_##name
#define OF(kind) LADE_OBJECT_##kind
static const struct {
    lade_unpickle_act_t *act;
    s_form_t form;
    uint8_t size;
    uint8_t of; // what kind of object, or how many
} s_opcodes[256] = {
    // clang-format off
    [0x80] = {DO(proto),          S_NUMBER,  1, 0},
    ['.']  = {DO(stop),           S_BARE,    0, 0},
    ['(']  = {DO(mark),           S_BARE,    0, 0},
    ['0']  = {DO(pop),            S_BARE,    0, 0},
    ['1']  = {DO(pop_mark),       S_BARE,    0, 0},
    ['2']  = {DO(dup),            S_BARE,    0, 0},
    [0x95] = {DO(nothing),        S_NUMBER,  8, 0}, // FRAME

    ['N']  = {DO(none),           S_BARE,    0, 0},
    [0x88] = {DO(bool),           S_BARE,    0, 1},
    [0x89] = {DO(bool),           S_BARE,    0, 0},
    ['K']  = {DO(unsigned),       S_NUMBER,  1, 0},
    ['M']  = {DO(unsigned),       S_NUMBER,  2, 0},
    ['J']  = {DO(signed),         S_NUMBER,  4, 0},
    ['I']  = {DO(int),            S_LINE,    0, 0},
    ['L']  = {DO(int),            S_LINE,    0, 0},
    [0x8a] = {DO(long),           S_COUNTED, 1, 0},
    [0x8b] = {DO(long),           S_COUNTED, 4, 0},
    ['F']  = {DO(float),          S_LINE,    0, 0},
    ['G']  = {DO(binfloat),       S_NUMBER,  8, 0},

    ['S']  = {DO(string),         S_LINE,    0, 0},
    ['T']  = {DO(counted),        S_COUNTED, 4, OF(TEXT)}, // bytes of Python 2, mostly texts
    ['U']  = {DO(counted),        S_COUNTED, 1, OF(TEXT)},
    ['V']  = {DO(unicode),        S_LINE,    0, 0},
    ['X']  = {DO(counted),        S_COUNTED, 4, OF(TEXT)},
    [0x8c] = {DO(counted),        S_COUNTED, 1, OF(TEXT)},
    [0x8d] = {DO(counted),        S_COUNTED, 8, OF(TEXT)},
    ['B']  = {DO(counted),        S_COUNTED, 4, OF(BYTES)},
    ['C']  = {DO(counted),        S_COUNTED, 1, OF(BYTES)},
    [0x8e] = {DO(counted),        S_COUNTED, 8, OF(BYTES)},
    [0x96] = {DO(counted),        S_COUNTED, 8, OF(BYTES)}, // BYTEARRAY8
    [0x97] = {DO(next_buffer),    S_BARE,    0, 0},
    [0x98] = {DO(nothing),        S_BARE,    0, 0}, // READONLY_BUFFER

    ['}']  = {DO(empty),          S_BARE,    0, OF(DICT)},
    [']']  = {DO(empty),          S_BARE,    0, OF(LIST)},
    [')']  = {DO(empty),          S_BARE,    0, OF(TUPLE)},
    [0x8f] = {DO(empty),          S_BARE,    0, OF(SET)},
    ['d']  = {DO(marked),         S_BARE,    0, OF(DICT)},
    ['l']  = {DO(marked),         S_BARE,    0, OF(LIST)},
    ['t']  = {DO(marked),         S_BARE,    0, OF(TUPLE)},
    [0x91] = {DO(marked),         S_BARE,    0, OF(SET)}, // FROZENSET
    [0x85] = {DO(tuple_of),       S_BARE,    0, 1},
    [0x86] = {DO(tuple_of),       S_BARE,    0, 2},
    [0x87] = {DO(tuple_of),       S_BARE,    0, 3},
    ['a']  = {DO(append),         S_BARE,    0, 0},
    ['e']  = {DO(add_marked),     S_BARE,    0, OF(LIST)},
    ['s']  = {DO(setitem),        S_BARE,    0, 0},
    ['u']  = {DO(add_marked),     S_BARE,    0, OF(DICT)},
    [0x90] = {DO(add_marked),     S_BARE,    0, OF(SET)},

    ['p']  = {DO(text_put),       S_LINE,    0, 0},
    ['q']  = {DO(put),            S_NUMBER,  1, 0},
    ['r']  = {DO(put),            S_NUMBER,  4, 0},
    [0x94] = {DO(memoize),        S_BARE,    0, 0},
    ['g']  = {DO(text_get),       S_LINE,    0, 0},
    ['h']  = {DO(get),            S_NUMBER,  1, 0},
    ['j']  = {DO(get),            S_NUMBER,  4, 0},

    ['c']  = {DO(global),         S_LINES,   0, 0},
    [0x93] = {DO(stack_global),   S_BARE,    0, 0},
    ['R']  = {DO(reduce),         S_BARE,    0, 0},
    ['b']  = {DO(build),          S_BARE,    0, 0},
    ['i']  = {DO(inst),           S_LINES,   0, 0},
    ['o']  = {DO(obj),            S_BARE,    0, 0},
    [0x81] = {DO(reduce),         S_BARE,    0, 1}, // NEWOBJ: a class and its arguments, without its constructor
    [0x92] = {DO(newobj_ex),      S_BARE,    0, 0},
    [0x82] = {DO(extension),      S_NUMBER,  1, 0},
    [0x83] = {DO(extension),      S_NUMBER,  2, 0},
    [0x84] = {DO(extension),      S_NUMBER,  4, 0},
    ['P']  = {DO(persid),         S_LINE,    0, 0},
    ['Q']  = {DO(binpersid),      S_BARE,    0, 0},
    // clang-format on
};

static lade_code_t
s_read_number(lade_pickle_t *self, size_t size, uint64_t *number_p)
{
    uint64_t number = 0;
    if (!lade_unpickle_need(self, size))
        return lade_unpickle_broken(self, "it ends there");
    for (size_t i = 0; i < size; i++)
        number |= (uint64_t)self->bytes[self->at + i] << 8 * i;
    self->at += size;
    *number_p = number;
    return LADE_OK;
}

// A line that does not end: of a pickle, or what is no line of one.
static lade_code_t
s_line_too_long(lade_pickle_t *self, size_t max)
{
    const uint8_t *from = self->bytes + self->at;
    for (size_t i = 0; max == S_MAX_LINE && i < max; i++)
        if (from[i] < ' ' && from[i] != '\t' && from[i] != '\r')
            return lade_unpickle_broken(self, "a line holds what it cannot");
    return lade_error_set(self->error, LADE_TOO_LARGE, "%s: a line of the pickle is over %zu bytes",
                          self->where, max);
}

static lade_code_t
s_read_line(lade_pickle_t *self, size_t max, const char **bytes_p, size_t *len_p)
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
        if (seen > max)
            return s_line_too_long(self, max);
        if (!lade_unpickle_need(self, seen + 1))
            return lade_unpickle_broken(self, "it ends within a line");
    }
}

static lade_code_t
s_read_operand(lade_pickle_t *self, uint8_t opcode, lade_operand_t *operand)
{
    lade_code_t code = LADE_OK;
    switch (s_opcodes[opcode].form) {
    case S_NO_OPCODE:
        return lade_unpickle_broken(self, "there is no such opcode");
    case S_BARE:
        break;
    case S_NUMBER:
        code = s_read_number(self, s_opcodes[opcode].size, &operand->number);
        break;
    case S_COUNTED:
        code = s_read_number(self, s_opcodes[opcode].size, &operand->number);
        if (!code &&
            (operand->number > self->size || !lade_unpickle_need(self, (size_t)operand->number)))
            code = lade_unpickle_broken(self, "it ends within a text");
        operand->bytes = (const char *)self->bytes + self->at;
        operand->len = code ? 0 : (size_t)operand->number;
        self->at += operand->len;
        break;
    case S_LINE:
    case S_LINES:
        code = s_read_line(self, opcode == 'S' || opcode == 'V' ? S_MAX_TEXT : S_MAX_LINE,
                           &operand->bytes, &operand->len);
        if (!code && s_opcodes[opcode].form == S_LINES)
            code = s_read_line(self, S_MAX_LINE, &operand->second, &operand->second_len);
        break;
    }
    return code;
}

static lade_code_t
s_step(lade_pickle_t *self)
{
    lade_operand_t operand = {0};
    self->op_at = self->at;
    if (!lade_unpickle_need(self, 1))
        return lade_unpickle_broken(self, "it ends without STOP");
    uint8_t opcode = self->bytes[self->at++];
    operand.of = s_opcodes[opcode].of;
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
    self->none = lade_unpickle_object(self, LADE_OBJECT_NONE);
    self->persistents = lade_unpickle_object(self, LADE_OBJECT_LIST);
    if (!self->none || !self->persistents)
        code = lade_unpickle_failed(self);
    while (!code && !self->stopped)
        code = s_step(self);
    if (code == LADE_CORRUPT && self->cut && self->have == self->size)
        code = lade_error_set(self->error, LADE_TOO_LARGE, "%s: the pickle is over %d bytes",
                              self->where, LADE_PICKLE_MAX_BYTES);
    self->error = NULL;
    if (!code)
        *root_p = self->root;
    return code;
}

uint64_t
lade_pickle_at(const lade_pickle_t *self)
{
    return self->at;
}

bool
lade_pickle_more(lade_pickle_t *self)
{
    return lade_unpickle_need(self, 1);
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
    self->cut = len > LADE_PICKLE_MAX_BYTES;
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
    // Room for all of it, that never moves; only what is read of it takes memory.
    void *room = mmap(NULL, self->size + 1, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        lade_pickle_destroy(&self);
    else
        self->bytes = self->owned = room;
    return self;
}
