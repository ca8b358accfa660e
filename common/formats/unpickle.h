// What a walk over a pickle is in the middle of: for common/formats/pickle.c and unpickle*.c only.
#ifndef LADE_UNPICKLE_H
#define LADE_UNPICKLE_H

#include "common/formats/pickle.h"

enum {
    LADE_UNPICKLE_MAX_STRANGERS = 256, // globals out of the table that are told each once
    LADE_UNPICKLE_MAX_NESTED = 4,      // pickles within pickles
};

typedef struct {
    char *name; // "module.name"
    bool called;
} lade_stranger_t;

struct lade_pickle {
    const uint8_t *bytes;
    uint8_t *owned; // of a file: bytes
    size_t have;    // bytes that are there
    size_t size;    // bytes there are in all
    bool cut;       // there are more, over the ceiling
    size_t fetch;   // bytes to read next
    int fd;
    uint64_t from;           // where bytes begin in the file
    size_t at, start, op_at; // the next byte; where this pickle and this opcode begin
    lade_tensors_t *list;
    char *where;
    size_t nested;       // pickles this one is within
    size_t nested_bytes; // walked of those within this one
    size_t calls;

    struct lade_unpickle_chunk *chunks;
    size_t objects;
    lade_object_t **stack, **memo;
    size_t stack_len, stack_cap, memo_cap;
    size_t *marks, mark_len, mark_cap;
    lade_stranger_t strangers[LADE_UNPICKLE_MAX_STRANGERS];
    size_t stranger_count;
    size_t memoized;            // what MEMOIZE numbers next
    lade_object_t *persistents; // a list of them
    lade_object_t *none, *root;
    bool stopped;
    lade_error_t *error;
};

// ---------------------------------------------------------------------------------------------------
// Bytes and memory

// Fails with the place in the pickle: LADE_CORRUPT.
lade_code_t lade_unpickle_broken(lade_pickle_t *self, const char *words);
lade_code_t lade_unpickle_no_memory(lade_pickle_t *self);

// The code of what the next two could not do.
lade_code_t lade_unpickle_failed(lade_pickle_t *self);

// Memory that lives as long as the walk; NULL without any.
void *lade_unpickle_alloc(lade_pickle_t *self, size_t len);

// A new object, NULL over the ceiling or without memory.
lade_object_t *lade_unpickle_object(lade_pickle_t *self, lade_object_kind_t kind);

// True if n more bytes are there, read from the file if need be.
bool lade_unpickle_need(lade_pickle_t *self, size_t n);

lade_code_t lade_unpickle_append(lade_pickle_t *self, lade_object_t *to, lade_object_t *item);
lade_code_t lade_unpickle_append_all(lade_pickle_t *self, lade_object_t *to, lade_object_t **items,
                                     size_t count);

// ---------------------------------------------------------------------------------------------------
// Findings

void lade_unpickle_say(lade_pickle_t *self, const char *what, const char *name, const char *words);

// A global that is not in the table: each is told once, and once more if it is called.
lade_stranger_t *lade_unpickle_stranger(lade_pickle_t *self, const char *name);
void lade_unpickle_say_call(lade_pickle_t *self, const lade_object_t *function);
void lade_unpickle_say_use(lade_pickle_t *self, const lade_object_t *object, const char *words);

// ---------------------------------------------------------------------------------------------------
// Stack, marks, memo

lade_code_t lade_unpickle_push(lade_pickle_t *self, lade_object_t *object); // NULL: it has failed
lade_object_t *lade_unpickle_pop(lade_pickle_t *self);                      // NULL: there is none
lade_object_t *lade_unpickle_top(lade_pickle_t *self);

// How far down the stack may be taken: to the last mark.
size_t lade_unpickle_fence(const lade_pickle_t *self);

// Takes the last mark away; *items_p are what lay above it, good until the next push.
bool lade_unpickle_pop_mark(lade_pickle_t *self, lade_object_t ***items_p, size_t *count_p);

lade_code_t lade_unpickle_memo_put(lade_pickle_t *self, uint64_t index);
lade_code_t lade_unpickle_memo_get(lade_pickle_t *self, uint64_t index);

// ---------------------------------------------------------------------------------------------------
// Calls, values

// An argument, NULL if there is none.
const lade_object_t *lade_unpickle_arg(const lade_object_t *args, size_t index);

// Pushes what a call would make. One that the table does not allow is a finding. constructs: it
// calls a class's constructor, too, and does not only make an instance.
lade_code_t lade_unpickle_call(lade_pickle_t *self, lade_object_t *function, lade_object_t *args,
                               bool constructs);

lade_code_t lade_unpickle_push_integer(lade_pickle_t *self, lade_object_kind_t kind,
                                       int64_t integer);
lade_code_t lade_unpickle_push_bytes(lade_pickle_t *self, lade_object_kind_t kind,
                                     const char *bytes, size_t len);

// What follows an opcode.
typedef struct {
    uint64_t number;
    const char *bytes, *second;
    size_t len, second_len;
    uint8_t of; // of the opcode's row: the kind of object, or how many
} lade_operand_t;

// The text of a number, if it is short enough for one.
bool lade_unpickle_number_text(const lade_operand_t *operand, char text[64]);

// What the opcodes do, by the names of pickletools.
typedef lade_code_t lade_unpickle_act_t(lade_pickle_t *self, const lade_operand_t *operand);
lade_unpickle_act_t lade_unpickle_do_proto;
lade_unpickle_act_t lade_unpickle_do_stop;
lade_unpickle_act_t lade_unpickle_do_mark;
lade_unpickle_act_t lade_unpickle_do_pop;
lade_unpickle_act_t lade_unpickle_do_pop_mark;
lade_unpickle_act_t lade_unpickle_do_dup;
lade_unpickle_act_t lade_unpickle_do_nothing;
lade_unpickle_act_t lade_unpickle_do_none;
lade_unpickle_act_t lade_unpickle_do_bool;
lade_unpickle_act_t lade_unpickle_do_unsigned;
lade_unpickle_act_t lade_unpickle_do_signed;
lade_unpickle_act_t lade_unpickle_do_int;
lade_unpickle_act_t lade_unpickle_do_long;
lade_unpickle_act_t lade_unpickle_do_float;
lade_unpickle_act_t lade_unpickle_do_binfloat;
lade_unpickle_act_t lade_unpickle_do_string;
lade_unpickle_act_t lade_unpickle_do_counted;
lade_unpickle_act_t lade_unpickle_do_unicode;
lade_unpickle_act_t lade_unpickle_do_next_buffer;
lade_unpickle_act_t lade_unpickle_do_empty;
lade_unpickle_act_t lade_unpickle_do_marked;
lade_unpickle_act_t lade_unpickle_do_tuple_of;
lade_unpickle_act_t lade_unpickle_do_append;
lade_unpickle_act_t lade_unpickle_do_add_marked;
lade_unpickle_act_t lade_unpickle_do_setitem;
lade_unpickle_act_t lade_unpickle_do_text_put;
lade_unpickle_act_t lade_unpickle_do_put;
lade_unpickle_act_t lade_unpickle_do_memoize;
lade_unpickle_act_t lade_unpickle_do_text_get;
lade_unpickle_act_t lade_unpickle_do_get;
lade_unpickle_act_t lade_unpickle_do_global;
lade_unpickle_act_t lade_unpickle_do_stack_global;
lade_unpickle_act_t lade_unpickle_do_reduce;
lade_unpickle_act_t lade_unpickle_do_build;
lade_unpickle_act_t lade_unpickle_do_inst;
lade_unpickle_act_t lade_unpickle_do_obj;
lade_unpickle_act_t lade_unpickle_do_newobj_ex;
lade_unpickle_act_t lade_unpickle_do_extension;
lade_unpickle_act_t lade_unpickle_do_persid;
lade_unpickle_act_t lade_unpickle_do_binpersid;

#endif
