// Opcodes that work on the stack: containers, the memo, globals and calls.
#include "common/formats/unpickle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lade_code_t
s_underflow(lade_pickle_t *self)
{
    return lade_unpickle_broken(self, "the stack has too little on it");
}

lade_code_t
lade_unpickle_do_proto(lade_pickle_t *self, const lade_operand_t *operand)
{
    return operand->number > 5 ? lade_unpickle_broken(self, "there is no such protocol") : LADE_OK;
}

lade_code_t
lade_unpickle_do_nothing(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)self;
    (void)operand;
    return LADE_OK;
}

lade_code_t
lade_unpickle_do_stop(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    self->root = lade_unpickle_pop(self);
    self->stopped = true;
    return self->root ? LADE_OK : s_underflow(self);
}

lade_code_t
lade_unpickle_do_mark(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    if (self->mark_len == LADE_PICKLE_MAX_MARKS)
        return lade_error_set(self->error, LADE_TOO_LARGE, "%s: the pickle is over %d deep",
                              self->where, LADE_PICKLE_MAX_MARKS);
    if (self->mark_len == self->mark_cap) {
        size_t cap = self->mark_cap ? 2 * self->mark_cap : 64;
        size_t *marks = realloc(self->marks, cap * sizeof *marks);
        if (!marks)
            return lade_unpickle_no_memory(self);
        self->marks = marks;
        self->mark_cap = cap;
    }
    self->marks[self->mark_len++] = self->stack_len;
    return LADE_OK;
}

lade_code_t
lade_unpickle_do_pop(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    if (lade_unpickle_pop(self))
        return LADE_OK;
    if (!self->mark_len)
        return s_underflow(self);
    self->mark_len--;
    return LADE_OK;
}

lade_code_t
lade_unpickle_do_pop_mark(lade_pickle_t *self, const lade_operand_t *operand)
{
    lade_object_t **items;
    size_t count;
    (void)operand;
    return lade_unpickle_pop_mark(self, &items, &count) ? LADE_OK : s_underflow(self);
}

lade_code_t
lade_unpickle_do_dup(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    return lade_unpickle_top(self) ? lade_unpickle_push(self, lade_unpickle_top(self))
                                   : s_underflow(self);
}

lade_code_t
lade_unpickle_do_empty(lade_pickle_t *self, const lade_operand_t *operand)
{
    return lade_unpickle_push(self, lade_unpickle_object(self, (lade_object_kind_t)operand->of));
}

// An object of what lies above the last mark.
lade_code_t
lade_unpickle_do_marked(lade_pickle_t *self, const lade_operand_t *operand)
{
    lade_object_kind_t kind = (lade_object_kind_t)operand->of;
    lade_object_t **items, *object = lade_unpickle_object(self, kind);
    size_t count;
    if (!object)
        return lade_unpickle_failed(self);
    if (!lade_unpickle_pop_mark(self, &items, &count))
        return s_underflow(self);
    if (kind == LADE_OBJECT_DICT && count % 2)
        return lade_unpickle_broken(self, "a dict has a key without value");
    lade_code_t code = lade_unpickle_append_all(self, object, items, count);
    return code ? code : lade_unpickle_push(self, object);
}

lade_code_t
lade_unpickle_do_tuple_of(lade_pickle_t *self, const lade_operand_t *operand)
{
    size_t count = operand->of;
    lade_object_t *tuple = lade_unpickle_object(self, LADE_OBJECT_TUPLE);
    if (!tuple)
        return lade_unpickle_failed(self);
    if (self->stack_len - lade_unpickle_fence(self) < count)
        return s_underflow(self);
    self->stack_len -= count;
    lade_code_t code = lade_unpickle_append_all(self, tuple, self->stack + self->stack_len, count);
    return code ? code : lade_unpickle_push(self, tuple);
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
        *items = lade_unpickle_object(self, kind);
    return *items && (*items)->kind == kind ? *items : NULL;
}

// True for a call that can make a dict or list; items of a tensor would be written to memory.
static bool
s_takes_items(const lade_object_t *object)
{
    return object->kind != LADE_OBJECT_CALL || !object->row ||
           object->row->role == LADE_ROLE_DATA || object->row->role == LADE_ROLE_INSTANCE ||
           object->row->role == LADE_ROLE_NEWOBJ || object->row->role == LADE_ROLE_MODULE;
}

static lade_code_t
s_add_items(lade_pickle_t *self, lade_object_t *object, lade_object_kind_t kind,
            lade_object_t **items, size_t count)
{
    lade_object_t *to = s_takes_items(object) ? s_items_of(self, object, kind) : NULL;
    if (self->error->code)
        return self->error->code;
    if (!to) {
        lade_unpickle_say_use(self, object, "would have items set, and is no container");
        return LADE_OK;
    }
    return lade_unpickle_append_all(self, to, items, count);
}

lade_code_t
lade_unpickle_do_add_marked(lade_pickle_t *self, const lade_operand_t *operand)
{
    lade_object_kind_t kind = (lade_object_kind_t)operand->of;
    lade_object_t **items;
    size_t count;
    if (!lade_unpickle_pop_mark(self, &items, &count) || !lade_unpickle_top(self))
        return s_underflow(self);
    if (kind == LADE_OBJECT_DICT && count % 2)
        return lade_unpickle_broken(self, "a key has no value");
    return s_add_items(self, lade_unpickle_top(self), kind, items, count);
}

lade_code_t
lade_unpickle_do_append(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    lade_object_t *item = lade_unpickle_pop(self), *to = lade_unpickle_top(self);
    return item && to ? s_add_items(self, to, LADE_OBJECT_LIST, &item, 1) : s_underflow(self);
}

lade_code_t
lade_unpickle_do_setitem(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    lade_object_t *pair[2];
    pair[1] = lade_unpickle_pop(self);
    pair[0] = lade_unpickle_pop(self);
    lade_object_t *to = lade_unpickle_top(self);
    return pair[0] && pair[1] && to ? s_add_items(self, to, LADE_OBJECT_DICT, pair, 2)
                                    : s_underflow(self);
}

static lade_code_t
s_push_global(lade_pickle_t *self, const char *module, size_t module_len, const char *name,
              size_t name_len)
{
    lade_object_t *object = lade_unpickle_object(self, LADE_OBJECT_GLOBAL);
    char *whole = lade_unpickle_alloc(self, module_len + name_len + 2);
    if (!object || !whole)
        return lade_unpickle_failed(self);
    memcpy(whole, module, module_len);
    whole[module_len] = '.';
    memcpy(whole + module_len + 1, name, name_len);
    whole[module_len + 1 + name_len] = '\0';
    object->bytes = whole;
    object->len = (uint32_t)(module_len + name_len + 1);
    object->row = lade_pickle_global(module, module_len, name, name_len);
    if (!object->row)
        lade_unpickle_stranger(self, whole);
    return lade_unpickle_push(self, object);
}

lade_code_t
lade_unpickle_do_global(lade_pickle_t *self, const lade_operand_t *operand)
{
    return s_push_global(self, operand->bytes, operand->len, operand->second, operand->second_len);
}

lade_code_t
lade_unpickle_do_stack_global(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    lade_object_t *name = lade_unpickle_pop(self), *module = lade_unpickle_pop(self);
    if (!name || !module)
        return s_underflow(self);
    if (name->kind != LADE_OBJECT_TEXT || module->kind != LADE_OBJECT_TEXT) {
        lade_unpickle_say(self, "global", "a value", "would be imported by a name that is no text");
        return lade_unpickle_push(self, self->none);
    }
    return s_push_global(self, module->bytes, module->len, name->bytes, name->len);
}

lade_code_t
lade_unpickle_do_reduce(lade_pickle_t *self, const lade_operand_t *operand)
{
    lade_object_t *args = lade_unpickle_pop(self), *function = lade_unpickle_pop(self);
    return args && function ? lade_unpickle_call(self, function, args, !operand->of)
                            : s_underflow(self);
}

lade_code_t
lade_unpickle_do_newobj_ex(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    lade_object_t *named = lade_unpickle_pop(self), *args = lade_unpickle_pop(self),
                  *class = lade_unpickle_pop(self);
    return named && args && class ? lade_unpickle_call(self, class, args, false)
                                  : s_underflow(self);
}

// A call with what lies above the mark as arguments.
static lade_code_t
s_call_marked(lade_pickle_t *self, lade_object_t *function, lade_object_t **items, size_t count)
{
    lade_object_t *args = lade_unpickle_object(self, LADE_OBJECT_TUPLE);
    if (!args || lade_unpickle_append_all(self, args, items, count))
        return lade_unpickle_failed(self);
    return lade_unpickle_call(self, function, args, true);
}

lade_code_t
lade_unpickle_do_obj(lade_pickle_t *self, const lade_operand_t *operand)
{
    lade_object_t **items;
    size_t count;
    (void)operand;
    if (!lade_unpickle_pop_mark(self, &items, &count) || !count)
        return s_underflow(self);
    return s_call_marked(self, items[0], items + 1, count - 1);
}

lade_code_t
lade_unpickle_do_inst(lade_pickle_t *self, const lade_operand_t *operand)
{
    lade_object_t **items, *class;
    size_t count;
    lade_code_t code = lade_unpickle_do_global(self, operand);
    class = code ? NULL : self->stack[--self->stack_len];
    if (code)
        return code;
    if (!lade_unpickle_pop_mark(self, &items, &count))
        return s_underflow(self);
    return s_call_marked(self, class, items, count);
}

lade_code_t
lade_unpickle_do_build(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    lade_object_t *state = lade_unpickle_pop(self), *object = lade_unpickle_top(self);
    if (!state || !object)
        return s_underflow(self);
    if (object->kind == LADE_OBJECT_GLOBAL)
        lade_unpickle_say_use(self, object, "would have attributes of its own set");
    if (object->kind == LADE_OBJECT_CALL)
        object->items[LADE_CALL_STATE] = state;
    return LADE_OK;
}

lade_code_t
lade_unpickle_do_extension(lade_pickle_t *self, const lade_operand_t *operand)
{
    char name[40];
    snprintf(name, sizeof name, "extension %" PRIu64, operand->number);
    lade_unpickle_say(self, "extension", name, "would be looked up in the registry of copyreg");
    return lade_unpickle_push_bytes(self, LADE_OBJECT_GLOBAL, "an extension", 12);
}

static lade_code_t
s_push_persistent(lade_pickle_t *self, lade_object_t *id)
{
    lade_object_t *object = lade_unpickle_object(self, LADE_OBJECT_PERSISTENT);
    if (!object || !id || lade_unpickle_append(self, object, id) ||
        lade_unpickle_append(self, self->persistents, object))
        return lade_unpickle_failed(self);
    return lade_unpickle_push(self, object);
}

// ("module", class, file, text), in tar files without the word: a class with the text it had, for
// which torch puts the class.
static lade_object_t *
s_class_of_id(const lade_object_t *id)
{
    bool word = lade_object_says(lade_unpickle_arg(id, 0), "module");
    lade_object_t *class = (lade_object_t *)lade_unpickle_arg(id, word);
    return class && class->kind == LADE_OBJECT_GLOBAL ? class : NULL;
}

lade_code_t
lade_unpickle_do_binpersid(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    lade_object_t *id = lade_unpickle_pop(self);
    lade_object_t *class = id ? s_class_of_id(id) : NULL;
    if (class)
        return lade_unpickle_push(self, class);
    return id ? s_push_persistent(self, id) : s_underflow(self);
}

lade_code_t
lade_unpickle_do_persid(lade_pickle_t *self, const lade_operand_t *operand)
{
    lade_code_t code =
        lade_unpickle_push_bytes(self, LADE_OBJECT_TEXT, operand->bytes, operand->len);
    return code ? code : lade_unpickle_do_binpersid(self, operand);
}

lade_code_t
lade_unpickle_do_put(lade_pickle_t *self, const lade_operand_t *operand)
{
    return lade_unpickle_memo_put(self, operand->number);
}

lade_code_t
lade_unpickle_do_get(lade_pickle_t *self, const lade_operand_t *operand)
{
    return lade_unpickle_memo_get(self, operand->number);
}

lade_code_t
lade_unpickle_do_memoize(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    return lade_unpickle_memo_put(self, self->memoized);
}

static lade_code_t
s_text_index(lade_pickle_t *self, const lade_operand_t *operand, uint64_t *index_p)
{
    char text[64], *end;
    if (!lade_unpickle_number_text(operand, text) || text[0] < '0' || text[0] > '9')
        return lade_unpickle_broken(self, "an index of the memo is no number");
    *index_p = strtoull(text, &end, 10);
    return *end ? lade_unpickle_broken(self, "an index of the memo is no number") : LADE_OK;
}

lade_code_t
lade_unpickle_do_text_put(lade_pickle_t *self, const lade_operand_t *operand)
{
    uint64_t index;
    lade_code_t code = s_text_index(self, operand, &index);
    return code ? code : lade_unpickle_memo_put(self, index);
}

lade_code_t
lade_unpickle_do_text_get(lade_pickle_t *self, const lade_operand_t *operand)
{
    uint64_t index;
    lade_code_t code = s_text_index(self, operand, &index);
    return code ? code : lade_unpickle_memo_get(self, index);
}

lade_code_t
lade_unpickle_do_next_buffer(lade_pickle_t *self, const lade_operand_t *operand)
{
    (void)operand;
    return lade_unpickle_broken(self, "its bytes are in buffers that no file has");
}
