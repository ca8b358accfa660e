// Pickles as data: a walk over the opcodes of protocols 0 to 5 that builds what they describe and
// runs nothing.
//
// A pickle is a program. What it may name and call without a word is one table (pickle_globals.c);
// everything else it would import or call is a finding, and stands in the tree as an opaque value.
#ifndef LADE_PICKLE_H
#define LADE_PICKLE_H

#include "common/formats/tensors.h"

enum {
    LADE_PICKLE_MAX_BYTES = 100000000,
    LADE_PICKLE_MAX_OBJECTS = 1 << 22,
    LADE_PICKLE_MAX_STACK = 1 << 20,
    LADE_PICKLE_MAX_MARKS = 10000,
};

// What the things are that a pickle may name.
typedef enum {
    LADE_ROLE_NAME,     // may be named, not called
    LADE_ROLE_INSTANCE, // instances may be made without its constructor, which does things
    LADE_ROLE_DATA,     // a call makes a value that nobody here looks into
    LADE_ROLE_DICT,     // a call makes a dict, …
    LADE_ROLE_LIST,
    LADE_ROLE_SET,
    LADE_ROLE_MODULE,      // one of torch's containers of parameters
    LADE_ROLE_DTYPE,       // torch.float16
    LADE_ROLE_STORAGE,     // torch.HalfStorage
    LADE_ROLE_TENSOR,      // (storage, offset, shape, strides, …)
    LADE_ROLE_TENSOR_V3,   // (untyped storage, offset, shape, strides, …, dtype)
    LADE_ROLE_QTENSOR,     // as TENSOR, with scales
    LADE_ROLE_PARAMETER,   // (tensor, …)
    LADE_ROLE_SPARSE,      // (layout, (…, values, shape))
    LADE_ROLE_META,        // (dtype, shape, strides, …): no bytes
    LADE_ROLE_FROM_TYPE,   // (function, type, arguments, state)
    LADE_ROLE_FROM_BYTES,  // (bytes): a torch file within the pickle
    LADE_ROLE_FROM_NUMPY,  // (array, dtype, device, …)
    LADE_ROLE_NUMPY_ARRAY, // makes an empty array that BUILD fills
    LADE_ROLE_NUMPY_DTYPE,
    LADE_ROLE_NUMPY_SCALAR, // (dtype, bytes)
    LADE_ROLE_NUMPY_BUFFER, // (bytes, dtype, shape, order)
    LADE_ROLE_ENCODE,       // _codecs.encode(text, "latin1")
    LADE_ROLE_GETATTR,      // of a class in the table, to a name that is in the table with it
    LADE_ROLE_NEWOBJ,       // copyreg.__newobj__ and its kin: (class, …)
    LADE_ROLE_FACTORY,      // collections.defaultdict(factory)
} lade_role_t;

typedef struct {
    const char *module, *name;
    lade_role_t role;
    lade_dtype_t dtype; // of DTYPE and STORAGE
} lade_global_t;

// The row of a global that may be named; NULL if there is none.
const lade_global_t *lade_pickle_global(const char *module, size_t module_len, const char *name,
                                        size_t name_len);

// The table, in the order of module and name.
const lade_global_t *lade_pickle_globals(size_t *count_p);

typedef enum {
    LADE_OBJECT_NONE,
    LADE_OBJECT_BOOL,       // integer
    LADE_OBJECT_INT,        // integer
    LADE_OBJECT_LONG,       // over 64 bits: bytes, little end first
    LADE_OBJECT_FLOAT,      // real
    LADE_OBJECT_TEXT,       // bytes
    LADE_OBJECT_BYTES,      // bytes
    LADE_OBJECT_TUPLE,      // items
    LADE_OBJECT_LIST,       // items
    LADE_OBJECT_SET,        // items
    LADE_OBJECT_DICT,       // items: key, value, key, value, …
    LADE_OBJECT_GLOBAL,     // bytes: "module.name"; row, NULL if it is not in the table
    LADE_OBJECT_PERSISTENT, // items: the id
    LADE_OBJECT_CALL, // items by LADE_CALL_…; row of what is called, NULL if not in the table
} lade_object_kind_t;

// Members of a call; each NULL or an object.
enum { LADE_CALL_FUNCTION, LADE_CALL_ARGS, LADE_CALL_STATE, LADE_CALL_ITEMS, LADE_CALL_MEMBERS };

typedef struct lade_object lade_object_t;
struct lade_object {
    uint8_t kind;
    bool open;    // for whoever walks the tree: it may lead back to itself
    uint32_t len; // bytes or items
    uint32_t cap; // items there is room for
    union {
        int64_t integer;
        double real;
        const char *bytes;
        lade_object_t **items;
    };
    const lade_global_t *row;
};

typedef struct lade_pickle lade_pickle_t;

// For one pickle after the other in bytes, which have to outlive it, or in an open file from a
// place on. Findings go to list; where names the place in them. NULL without memory.
lade_pickle_t *lade_pickle_new(const uint8_t *bytes, size_t len, lade_tensors_t *list,
                               const char *where);
lade_pickle_t *lade_pickle_new_file(int fd, uint64_t from, uint64_t size, lade_tensors_t *list,
                                    const char *where);

// Walks the next pickle. *root_p stays the walk's, with all it leads to; whoever walks the tree may
// set `open` and has to take it back. LADE_CORRUPT with the byte where the stream makes no sense,
// LADE_TOO_LARGE over a ceiling: what it would have run up to there is among the findings.
lade_code_t lade_pickle_next(lade_pickle_t *self, lade_object_t **root_p, lade_error_t *error);

// Bytes walked so far; whether there are more.
uint64_t lade_pickle_at(const lade_pickle_t *self);
bool lade_pickle_more(lade_pickle_t *self);

// The persistent ids of the pickle walked last, each an object of that kind.
lade_object_t *const *lade_pickle_persistents(const lade_pickle_t *self, size_t *count_p);

// Where in the file bytes of an object lie, of bytes that stand in the pickle as they are.
bool lade_pickle_place(const lade_pickle_t *self, const char *bytes, uint64_t *at_p);

// How often something that has the name of a function would have been called against the table:
// what tells a pickle that does not say it is one from other bytes.
size_t lade_pickle_calls(const lade_pickle_t *self);

void lade_pickle_destroy(lade_pickle_t **self_p);

// True if the object is a text that says so.
bool lade_object_says(const lade_object_t *object, const char *text);

#endif
