// How the ONNX reader walks through protobuf: for the onnx*.c files only.
//
// A message is read by a table of its fields and one function that goes through them. A message
// within another ends where its length says; what no table names is passed over.
#ifndef LADE_ONNX_WALK_H
#define LADE_ONNX_WALK_H

#include "common/formats/tensor_list.h"
#include "common/formats/window.h"

enum { LADE_ONNX_TEXT = 8 }; // the number of the type of texts

typedef enum {
    LADE_ONNX_VARINT = 0,
    LADE_ONNX_FIXED64 = 1,
    LADE_ONNX_BYTES = 2,
    LADE_ONNX_FIXED32 = 5
} lade_onnx_wire_t;

typedef struct {
    lade_window_t *window;
    lade_tensors_t *list;
    json_t *metadata;
    json_t *locations; // of other files: their number in the list
    const char *path;
    uint32_t file; // of the graph
    uint64_t nodes;
    size_t kept; // bytes of text
    bool has_graph;
    lade_error_t *error;
} lade_onnx_walk_t;

// A field of a message: for LADE_ONNX_VARINT value is the number, for LADE_ONNX_BYTES how many
// bytes there are, which are all that the window gives until the function returns.
typedef struct {
    uint32_t field;
    lade_onnx_wire_t wire;
    lade_code_t (*read)(lade_onnx_walk_t *walk, void *into, uint64_t value);
} lade_onnx_row_t;

// Each of these returns LADE_OK or the code in *walk->error.
lade_code_t lade_onnx_walk_fail(lade_onnx_walk_t *walk, lade_code_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

lade_code_t lade_onnx_walk_varint(lade_onnx_walk_t *walk, uint64_t *value_p);

// Reads fields up to the end of the message. rows end with a row without field.
lade_code_t lade_onnx_walk_message(lade_onnx_walk_t *walk, const lade_onnx_row_t *rows, void *into);

// The text of a field, yours; over the ceilings it is told by its length.
lade_code_t lade_onnx_walk_text(lade_onnx_walk_t *walk, uint64_t len, json_t **text_p);

// Adds a pair of texts (metadata_props, where external data is) to a map; what is there stays.
lade_code_t lade_onnx_walk_pair(lade_onnx_walk_t *walk, json_t *map);

// A list's type for ONNX's number of it; false for text and what lade does not know.
bool lade_onnx_walk_type(uint64_t number, lade_dtype_t *dtype_p);

// A field of the graph that holds an initializer: adds it to the list.
lade_code_t lade_onnx_weights_add(lade_onnx_walk_t *walk, void *into, uint64_t len);

#endif
