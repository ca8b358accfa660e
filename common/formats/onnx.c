// The ONNX model and its graph: what goes into the metadata.
#include "common/formats/onnx.h"

#include "common/formats/onnx_walk.h"

#include <stdlib.h>
#include <string.h>

enum {
    S_MAX_PORTS = 1000, // inputs and outputs
    S_MAX_DIMS = 64,    // kept of one of them
};

// ---------------------------------------------------------------------------------------------------
// Inputs and outputs: {name, dtype, shape}, into a map

static lade_code_t
s_dim_value(lade_onnx_walk_t *walk, void *into, uint64_t value)
{
    (void)walk;
    json_object_set_new(into, "value", json_integer((json_int_t)value));
    return LADE_OK;
}

static lade_code_t
s_dim_param(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    json_t *text = NULL;
    lade_code_t code = lade_onnx_walk_text(walk, len, &text);
    json_object_set_new(into, "value", text);
    return code;
}

static const lade_onnx_row_t s_dim_rows[] = {
    {1, LADE_ONNX_VARINT, s_dim_value}, {2, LADE_ONNX_BYTES, s_dim_param}, {0}};

static lade_code_t
s_port_dim(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)len;
    json_t *dim = json_object(), *shape = json_object_get(into, "shape");
    lade_code_t code = lade_onnx_walk_message(walk, s_dim_rows, dim);
    json_t *value = json_object_get(dim, "value");
    if (!code && json_array_size(shape) < S_MAX_DIMS)
        json_array_append_new(shape, value ? json_incref(value) : json_null());
    json_decref(dim);
    return code;
}

static const lade_onnx_row_t s_shape_rows[] = {{1, LADE_ONNX_BYTES, s_port_dim}, {0}};

static lade_code_t
s_port_shape(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)len;
    json_object_set_new(into, "shape", json_array());
    return lade_onnx_walk_message(walk, s_shape_rows, into);
}

static lade_code_t
s_port_element(lade_onnx_walk_t *walk, void *into, uint64_t value)
{
    (void)walk;
    lade_dtype_t dtype;
    if (lade_onnx_walk_type(value, &dtype))
        json_object_set_new(into, "dtype", json_string(lade_dtype_name(dtype)));
    else if (value == LADE_ONNX_TEXT)
        json_object_set_new(into, "dtype", json_string("text"));
    return LADE_OK;
}

static const lade_onnx_row_t s_tensor_type_rows[] = {
    {1, LADE_ONNX_VARINT, s_port_element}, {2, LADE_ONNX_BYTES, s_port_shape}, {0}};

static lade_code_t
s_tensor_type(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)len;
    return lade_onnx_walk_message(walk, s_tensor_type_rows, into);
}

static const lade_onnx_row_t s_type_rows[] = {{1, LADE_ONNX_BYTES, s_tensor_type}, {0}};

static lade_code_t
s_port_type(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)len;
    return lade_onnx_walk_message(walk, s_type_rows, into);
}

static lade_code_t
s_port_name(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    json_t *text = NULL;
    lade_code_t code = lade_onnx_walk_text(walk, len, &text);
    json_object_set_new(into, "name", text);
    return code;
}

static const lade_onnx_row_t s_port_rows[] = {
    {1, LADE_ONNX_BYTES, s_port_name}, {2, LADE_ONNX_BYTES, s_port_type}, {0}};

static lade_code_t
s_port(lade_onnx_walk_t *walk, const char *list)
{
    json_t *ports = json_object_get(walk->metadata, list);
    if (json_array_size(ports) == S_MAX_PORTS)
        return lade_onnx_walk_fail(walk, LADE_TOO_LARGE, "it has more than %d %s", S_MAX_PORTS,
                                   list);
    json_t *port = json_object();
    lade_code_t code = lade_onnx_walk_message(walk, s_port_rows, port);
    json_array_append_new(ports, port);
    return code;
}

static lade_code_t
s_input(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)into;
    (void)len;
    return s_port(walk, "inputs");
}

static lade_code_t
s_output(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)into;
    (void)len;
    return s_port(walk, "outputs");
}

// ---------------------------------------------------------------------------------------------------
// The graph and what is around it

static lade_code_t
s_node(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)into;
    (void)len; // passed over: what a node computes tells nothing here
    walk->nodes++;
    return LADE_OK;
}

static lade_code_t
s_set_text(lade_onnx_walk_t *walk, const char *key, uint64_t len)
{
    json_t *text = NULL;
    lade_code_t code = lade_onnx_walk_text(walk, len, &text);
    json_object_set_new(walk->metadata, key, text);
    return code;
}

static lade_code_t
s_set_number(lade_onnx_walk_t *walk, const char *key, uint64_t value)
{
    json_object_set_new(walk->metadata, key, json_integer((json_int_t)value));
    return LADE_OK;
}

// One reader for each field that goes into the metadata under its own name.
#define TEXT_FIELD(name)                                                                           \
    static lade_code_t s_##name(lade_onnx_walk_t *walk, void *into, uint64_t len)                  \
    {                                                                                              \
        (void)into;                                                                                \
        return s_set_text(walk, #name, len);                                                       \
    }
#define NUMBER_FIELD(name)                                                                         \
    static lade_code_t s_##name(lade_onnx_walk_t *walk, void *into, uint64_t value)                \
    {                                                                                              \
        (void)into;                                                                                \
        return s_set_number(walk, #name, value);                                                   \
    }
TEXT_FIELD(graph)
TEXT_FIELD(producer_name)
TEXT_FIELD(producer_version)
TEXT_FIELD(domain)
NUMBER_FIELD(ir_version)
NUMBER_FIELD(model_version)

static const lade_onnx_row_t s_graph_rows[] = {{1, LADE_ONNX_BYTES, s_node},
                                               {2, LADE_ONNX_BYTES, s_graph},
                                               {5, LADE_ONNX_BYTES, lade_onnx_weights_add},
                                               {11, LADE_ONNX_BYTES, s_input},
                                               {12, LADE_ONNX_BYTES, s_output},
                                               {0}};

static lade_code_t
s_read_graph(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)len;
    if (walk->has_graph)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "it has two graphs");
    walk->has_graph = true;
    return lade_onnx_walk_message(walk, s_graph_rows, into);
}

typedef struct {
    json_t *domain;
    uint64_t version;
} s_opset_t;

static lade_code_t
s_opset_domain(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    json_t **domain_p = &((s_opset_t *)into)->domain;
    json_decref(*domain_p);
    *domain_p = NULL;
    return lade_onnx_walk_text(walk, len, domain_p);
}

static lade_code_t
s_opset_version(lade_onnx_walk_t *walk, void *into, uint64_t value)
{
    (void)walk;
    ((s_opset_t *)into)->version = value;
    return LADE_OK;
}

static const lade_onnx_row_t s_opset_rows[] = {
    {1, LADE_ONNX_BYTES, s_opset_domain}, {2, LADE_ONNX_VARINT, s_opset_version}, {0}};

static lade_code_t
s_opset(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)into;
    (void)len;
    s_opset_t opset = {0};
    json_t *map = json_object_get(walk->metadata, "opset_import");
    lade_code_t code = lade_onnx_walk_message(walk, s_opset_rows, &opset);
    const char *domain = opset.domain ? json_string_value(opset.domain) : "";
    if (!code && json_object_size(map) == LADE_TENSORS_MAX_VALUES)
        code =
            lade_onnx_walk_fail(walk, LADE_TOO_LARGE, "it imports more than %d sets of operators",
                                LADE_TENSORS_MAX_VALUES);
    if (!code)
        json_object_set_new(map, *domain ? domain : "ai.onnx",
                            json_integer((json_int_t)opset.version));
    json_decref(opset.domain);
    return code;
}

static lade_code_t
s_property(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)into;
    (void)len;
    return lade_onnx_walk_pair(walk, json_object_get(walk->metadata, "metadata_props"));
}

static const lade_onnx_row_t s_model_rows[] = {{1, LADE_ONNX_VARINT, s_ir_version},
                                               {2, LADE_ONNX_BYTES, s_producer_name},
                                               {3, LADE_ONNX_BYTES, s_producer_version},
                                               {4, LADE_ONNX_BYTES, s_domain},
                                               {5, LADE_ONNX_VARINT, s_model_version},
                                               {7, LADE_ONNX_BYTES, s_read_graph},
                                               {8, LADE_ONNX_BYTES, s_opset},
                                               {14, LADE_ONNX_BYTES, s_property},
                                               {0}};

bool
lade_onnx_is(const uint8_t *head, size_t len, uint64_t size)
{
    // ir_version, a small number, then one of the model's fields
    static const uint8_t next[] = {0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72};
    (void)size;
    return len >= 3 && head[0] == 0x08 && head[1] > 0 && head[1] < 32 &&
           memchr(next, head[2], sizeof next);
}

static lade_code_t
s_model(lade_onnx_walk_t *walk)
{
    json_object_set_new(walk->metadata, "opset_import", json_object());
    json_object_set_new(walk->metadata, "inputs", json_array());
    json_object_set_new(walk->metadata, "outputs", json_array());
    json_object_set_new(walk->metadata, "metadata_props", json_object());
    lade_code_t code = lade_onnx_walk_message(walk, s_model_rows, NULL);
    if (!code && !walk->has_graph)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "it has no graph: it is no ONNX model");
    json_object_set_new(walk->metadata, "nodes", json_integer((json_int_t)walk->nodes));
    return code;
}

lade_code_t
lade_onnx_read(lade_tensors_t *self, int fd, const char *path, uint64_t size, lade_error_t *error)
{
    lade_error_t spare = {0};
    error = error ? error : &spare;
    *error = (lade_error_t){0};
    lade_onnx_walk_t walk = {.list = self, .path = path, .error = error};
    lade_code_t code = lade_tensor_list_add_file(self, path, size, NULL, &walk.file, error);
    if (!code && !(walk.window = lade_window_new(fd, size, self->max_header, error)))
        code = error->code;
    walk.metadata = json_object();
    walk.locations = json_object();
    if (!code)
        code = s_model(&walk);
    if (!code)
        json_object_update_missing(self->metadata, walk.metadata);
    json_decref(walk.metadata);
    json_decref(walk.locations);
    free(walk.window);
    return code;
}
