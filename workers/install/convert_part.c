// From the list of a checkpoint's tensors to the list of a part's.
#include "workers/install/convert_part.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lade_convert_tensor_t *
s_add(lade_convert_part_t *self, const char *name, const lade_tensor_t *from)
{
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 256;
        self->tensors = realloc(self->tensors, self->cap * sizeof *self->tensors);
        if (!self->tensors)
            abort();
    }
    lade_convert_tensor_t *tensor = &self->tensors[self->count++];
    *tensor = (lade_convert_tensor_t){
        .name = strdup(name),
        .from = from,
        .dense = from->layout == LADE_LAYOUT_DENSE,
        .offset = from->offset,
        .bytes = from->size,
    };
    lade_view_of(from, &tensor->view);
    if (!tensor->dense)
        tensor->bytes = lade_view_bytes(&tensor->view);
    if (!tensor->name)
        abort();
    return tensor;
}

// ---------------------------------------------------------------------------------------------------
// What is done to one

static bool
s_as_is(lade_convert_part_t *self, const lade_convert_target_t *target, const lade_tensor_t *from)
{
    s_add(self, target->names[0], from);
    return true;
}

static bool
s_linear(lade_convert_part_t *self, const lade_convert_target_t *target, const lade_tensor_t *from)
{
    lade_view_t *view = &s_add(self, target->names[0], from)->view;
    while (view->rank > 2 && view->shape[view->rank - 1] == 1)
        view->rank--;
    return view->rank <= 2;
}

// Nothing but another way to look at it.
static bool
s_transposed(lade_convert_part_t *self, const lade_convert_target_t *target,
             const lade_tensor_t *from)
{
    lade_convert_tensor_t *tensor = s_add(self, target->names[0], from);
    lade_view_t *view = &tensor->view, was = *view;
    if (from->rank != 2 || lade_dtype_block(from->dtype) != 1)
        return false;
    for (size_t i = 0; i < 2; i++) {
        view->shape[i] = was.shape[1 - i];
        view->strides[i] = was.strides[1 - i];
    }
    tensor->dense = lade_view_is_dense(view);
    return true;
}

static bool
s_split(lade_convert_part_t *self, const lade_convert_target_t *target, const lade_tensor_t *from)
{
    if (!from->rank || from->shape[0] % target->count ||
        (from->layout == LADE_LAYOUT_DENSE && from->size % target->count))
        return false;
    for (size_t i = 0; i < target->count; i++) {
        lade_convert_tensor_t *tensor = s_add(self, target->names[i], from);
        uint64_t rows = tensor->view.shape[0] /= target->count;
        tensor->bytes /= target->count;
        tensor->offset += i * (tensor->dense ? tensor->bytes
                                             : rows * tensor->view.strides[0] * tensor->view.size);
        if (!tensor->dense)
            tensor->dense = lade_view_is_dense(&tensor->view);
    }
    return true;
}

static bool
s_drop(lade_convert_part_t *self, const lade_convert_target_t *target, const lade_tensor_t *from)
{
    (void)self, (void)target, (void)from;
    return true;
}

// False if the tensor has no shape for it.
static bool (*const s_hows[])(lade_convert_part_t *, const lade_convert_target_t *,
                              const lade_tensor_t *) = {
    [LADE_CONVERT_AS_IS] = s_as_is,
    [LADE_CONVERT_LINEAR] = s_linear,
    [LADE_CONVERT_TRANSPOSED] = s_transposed,
    [LADE_CONVERT_SPLIT] = s_split,
    [LADE_CONVERT_DROP] = s_drop,
};

// ---------------------------------------------------------------------------------------------------

// The averaged one of a tensor, or itself.
static const lade_tensor_t *
s_averaged(const lade_tensors_t *list, const lade_convert_ema_t *ema, const lade_tensor_t *tensor)
{
    char name[LADE_CONVERT_MAX_NAME];
    size_t of = ema->prefix ? strlen(ema->of) : 0, len;
    if (!ema->prefix || strncmp(tensor->name, ema->of, of) != 0 ||
        (len = strlen(ema->prefix)) + tensor->name_len >= sizeof name)
        return tensor;
    memcpy(name, ema->prefix, len);
    for (const char *at = tensor->name + of; *at; at++)
        if (*at != '.')
            name[len++] = *at;
    name[len] = '\0';
    const lade_tensor_t *found = lade_tensors_find(list, name);
    bool same = found && found->rank == tensor->rank &&
                !memcmp(found->shape, tensor->shape, tensor->rank * sizeof *tensor->shape);
    return same ? found : tensor;
}

static lade_code_t
s_check(const lade_tensor_t *tensor, lade_error_t *error)
{
    bool view = tensor->layout == LADE_LAYOUT_STRIDED && tensor->strides &&
                lade_dtype_block(tensor->dtype) == 1;
    if (tensor->layout != LADE_LAYOUT_DENSE && !view)
        return lade_error_set(error, LADE_NOT_IMPLEMENTED,
                              "tensor %.200s is %s: its bytes do not lie in the file as they are "
                              "used; save the checkpoint anew with plain tensors",
                              tensor->name, lade_layout_kind_name(tensor->layout));
    if (lade_dtype_is_ggml(tensor->dtype) ||
        (tensor->dtype >= LADE_DTYPE_QI8 && tensor->dtype <= LADE_DTYPE_QI32))
        return lade_error_set(error, LADE_NOT_IMPLEMENTED,
                              "tensor %.200s is of type %s, which no safetensors file can hold",
                              tensor->name, lade_dtype_name(tensor->dtype));
    return LADE_OK;
}

lade_code_t
lade_convert_part_add(lade_convert_part_t *self, const lade_tensors_t *list, const char *prefix,
                      const lade_convert_map_t *map, const lade_convert_ema_t *ema, bool *taken,
                      lade_error_t *error)
{
    lade_convert_target_t *target = malloc(sizeof *target);
    size_t len = strlen(prefix);
    lade_code_t code = LADE_OK;
    if (!target)
        abort();
    for (size_t i = 0; i < lade_tensors_count(list) && !code; i++) {
        const lade_tensor_t *tensor = lade_tensors_get(list, i);
        if (strncmp(tensor->name, prefix, len) != 0)
            continue;
        taken[i] = true;
        if (!lade_convert_map_find(map, tensor->name + len, target))
            code =
                lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                               "tensor %.200s has no counterpart in diffusers' naming: the model "
                               "is built otherwise than its record says",
                               tensor->name);
        else if (target->how != LADE_CONVERT_DROP) {
            tensor = s_averaged(list, ema, tensor);
            code = s_check(tensor, error);
        }
        if (!code && !s_hows[target->how](self, target, tensor))
            code = lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                                  "tensor %.200s has a shape that it cannot be converted with",
                                  tensor->name);
    }
    free(target);
    return code;
}

static int
s_by_name(const void *a, const void *b)
{
    return strcmp(((const lade_convert_tensor_t *)a)->name,
                  ((const lade_convert_tensor_t *)b)->name);
}

lade_code_t
lade_convert_part_close(lade_convert_part_t *self, lade_error_t *error)
{
    if (self->count)
        qsort(self->tensors, self->count, sizeof *self->tensors, s_by_name);
    for (size_t i = 0; i < self->count; i++)
        if (__builtin_add_overflow(self->bytes, self->tensors[i].bytes, &self->bytes))
            self->bytes = UINT64_MAX;
    for (size_t i = 1; i < self->count; i++)
        if (!strcmp(self->tensors[i].name, self->tensors[i - 1].name))
            return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                                  "tensors %.150s and %.150s would both become %.100s",
                                  self->tensors[i - 1].from->name, self->tensors[i].from->name,
                                  self->tensors[i].name);
    return LADE_OK;
}

const lade_convert_tensor_t *
lade_convert_part_find(const lade_convert_part_t *self, const char *name)
{
    lade_convert_tensor_t key = {.name = (char *)name};
    return self->count ? bsearch(&key, self->tensors, self->count, sizeof *self->tensors, s_by_name)
                       : NULL;
}

void
lade_convert_part_free(lade_convert_part_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->tensors[i].name);
    free(self->tensors);
    *self = (lade_convert_part_t){0};
}
