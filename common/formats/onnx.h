// ONNX: one protobuf message with the graph, in which weights lie inline or in files beside it.
#ifndef LADE_ONNX_H
#define LADE_ONNX_H

#include "common/formats/tensors.h"

bool lade_onnx_is(const uint8_t *head, size_t len, uint64_t size);

// Adds the initializers of an open file's graph to the list: place and size are those of the stored
// bytes, which for numbers stored one by one as varints are not the bytes of the shape. Texts are
// no tensors. Weights in other files have to lie in the file's folder or below it; a path that
// leads out of it is a finding, and its tensor is left out. The files with weights are looked for,
// not opened.
//
// Into the metadata go ir_version, opset_import (a map of domain to version), producer_name,
// producer_version, domain, model_version, graph (its name), inputs and outputs (a list of {name,
// dtype, shape}; a dimension is a number, the name it has, or null), nodes (how many) and
// metadata_props (a map of text).
//
// LADE_CORRUPT with the place for what is no such message, lacks a graph, or has a tensor whose
// bytes are not its shape's or lie beyond their file; LADE_NOT_FOUND if a file with weights is not
// there; LADE_TOO_LARGE over a ceiling; LADE_NOT_IMPLEMENTED for a type lade does not know.
lade_code_t lade_onnx_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                           lade_error_t *error);

#endif
