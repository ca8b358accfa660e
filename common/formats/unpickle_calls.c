// What calls in a pickle make, and which of them are not fine.
#include "common/formats/unpickle.h"

#include "common/formats/tensor_list.h"

#include <stdio.h>
#include <string.h>

const lade_object_t *
lade_unpickle_arg(const lade_object_t *args, size_t index)
{
    return args->kind == LADE_OBJECT_TUPLE && index < args->len ? args->items[index] : NULL;
}

static bool
s_may_call(const lade_object_t *function)
{
    return function && function->kind == LADE_OBJECT_GLOBAL && function->row &&
           function->row->role != LADE_ROLE_NAME && function->row->role != LADE_ROLE_DTYPE &&
           function->row->role != LADE_ROLE_STORAGE;
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
    const lade_object_t *of = lade_unpickle_arg(args, 0), *name = lade_unpickle_arg(args, 1);
    char whole[256];
    if (!of || !name || (of->kind != LADE_OBJECT_GLOBAL && of->kind != LADE_OBJECT_CALL) ||
        !of->row || name->kind != LADE_OBJECT_TEXT || name->len > 100)
        return false;
    int len = snprintf(whole, sizeof whole, "%s.%.*s", of->row->name, (int)name->len, name->bytes);
    return len > 0 && len < (int)sizeof whole &&
           lade_pickle_global(of->row->module, strlen(of->row->module), whole, (size_t)len);
}

// What a storage's id in the pickle within says: (type, elements, where its bytes begin).
static lade_object_t *
s_nested_storage(lade_pickle_t *self, const lade_object_t *root, uint64_t at)
{
    const lade_object_t *id = root->kind == LADE_OBJECT_PERSISTENT ? root->items[0] : NULL;
    if (!id || id->kind != LADE_OBJECT_TUPLE || id->len < 5 ||
        id->items[1]->kind != LADE_OBJECT_GLOBAL || id->items[4]->kind != LADE_OBJECT_INT)
        return NULL;
    lade_object_t *tuple = lade_unpickle_object(self, LADE_OBJECT_TUPLE);
    lade_object_t *type = lade_unpickle_object(self, LADE_OBJECT_GLOBAL);
    lade_object_t *count = lade_unpickle_object(self, LADE_OBJECT_INT),
                  *where = lade_unpickle_object(self, LADE_OBJECT_INT);
    if (!tuple || !type || !count || !where || lade_unpickle_append(self, tuple, type) ||
        lade_unpickle_append(self, tuple, count) || lade_unpickle_append(self, tuple, where))
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
    if (self->nested == LADE_UNPICKLE_MAX_NESTED || self->nested_bytes > self->size)
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

// The functions of the table that lead to others: where their arguments lead has to be in it too.
// *found_p is what a function's result is made of, if that is known here.
static bool
s_args_are_fine(lade_pickle_t *self, const lade_object_t *function, const lade_object_t *args,
                lade_object_t **found_p)
{
    const lade_object_t *first = lade_unpickle_arg(args, 0);
    switch (function->row->role) {
    case LADE_ROLE_ENCODE:
        return lade_object_says(lade_unpickle_arg(args, 1), "latin1") ||
               lade_object_says(lade_unpickle_arg(args, 1), "latin-1");
    case LADE_ROLE_GETATTR:
        return s_getattr_is_fine(args);
    case LADE_ROLE_NEWOBJ:
        return s_may_call(first);
    case LADE_ROLE_FROM_TYPE:
        return s_may_call(first) && first->row->role >= LADE_ROLE_TENSOR &&
               first->row->role <= LADE_ROLE_META && lade_unpickle_arg(args, 1) &&
               lade_unpickle_arg(args, 1)->kind == LADE_OBJECT_GLOBAL &&
               lade_unpickle_arg(args, 1)->row;
    case LADE_ROLE_FROM_BYTES:
        return first && first->kind == LADE_OBJECT_BYTES && s_walk_nested(self, first, found_p);
    case LADE_ROLE_FACTORY:
        return !first || first->kind == LADE_OBJECT_NONE ||
               (s_may_call(first) && first->row->role != LADE_ROLE_INSTANCE);
    default:
        return true;
    }
}

// The bytes that _codecs.encode(text, "latin1") makes; NULL if text has characters beyond.
static lade_object_t *
s_encode(lade_pickle_t *self, const lade_object_t *text)
{
    lade_object_t *object = lade_unpickle_object(self, LADE_OBJECT_BYTES);
    char *out = object ? lade_unpickle_alloc(self, text->len + 1) : NULL;
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
    if (function->row->role == LADE_ROLE_ENCODE &&
        lade_unpickle_arg(args, 0)->kind == LADE_OBJECT_TEXT)
        return s_encode(self, lade_unpickle_arg(args, 0));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].role == function->row->role) {
            lade_object_t *object = lade_unpickle_object(self, kinds[i].kind);
            const lade_object_t *from = lade_unpickle_arg(args, 0);
            bool pairs = kinds[i].kind == LADE_OBJECT_DICT;
            for (size_t j = 0; object && from && j < from->len && from->kind >= LADE_OBJECT_TUPLE &&
                               from->kind <= LADE_OBJECT_DICT;
                 j++) {
                const lade_object_t *item = from->items[j];
                bool pair = (item->kind == LADE_OBJECT_TUPLE || item->kind == LADE_OBJECT_LIST) &&
                            item->len == 2;
                lade_code_t code = LADE_OK;
                if (pairs && pair && from->kind != LADE_OBJECT_DICT)
                    code = lade_unpickle_append_all(self, object, item->items, 2);
                else if (!pairs || from->kind == LADE_OBJECT_DICT)
                    code = lade_unpickle_append(self, object, from->items[j]);
                if (code)
                    return NULL;
            }
            return object;
        }
    return NULL;
}

// What a call of function would make.
lade_code_t
lade_unpickle_call(lade_pickle_t *self, lade_object_t *function, lade_object_t *args,
                   bool constructs)
{
    lade_object_t *found = NULL;
    bool fine = s_may_call(function) &&
                !(constructs && function->row->role == LADE_ROLE_INSTANCE) &&
                s_args_are_fine(self, function, args, &found);
    if (!fine)
        lade_unpickle_say_call(self, function);
    lade_object_t *made = fine ? s_container(self, function, args) : NULL;
    if (made || self->error->code)
        return lade_unpickle_push(self, made);
    made = lade_unpickle_object(self, LADE_OBJECT_CALL);
    if (!made ||
        !(made->items = lade_unpickle_alloc(self, LADE_CALL_MEMBERS * sizeof *made->items)))
        return lade_unpickle_failed(self);
    made->len = made->cap = LADE_CALL_MEMBERS;
    memset(made->items, 0, LADE_CALL_MEMBERS * sizeof *made->items);
    made->items[LADE_CALL_FUNCTION] = function;
    made->items[LADE_CALL_ARGS] = args;
    made->items[LADE_CALL_ITEMS] = found;
    made->row = fine ? function->row : NULL;
    return lade_unpickle_push(self, made);
}
