// Values of configs.
#include "workers/install/convert_config.h"

#include "common/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef lade_code_t(s_read_t)(const lade_convert_about_t *about, const json_t *value,
                              const char *name, json_t **value_p, lade_error_t *error);

static lade_code_t
s_else(const lade_convert_about_t *about, const json_t *value, json_t **value_p,
       lade_error_t *error)
{
    const json_t *otherwise = json_object_get(value, "else");
    if (otherwise)
        return lade_convert_config(about, otherwise, value_p, error);
    *value_p = json_null();
    return LADE_OK;
}

static lade_code_t
s_record(const lade_convert_about_t *about, const json_t *value, const char *name, json_t **value_p,
         lade_error_t *error)
{
    json_t *field = json_object_get(about->record, name);
    const json_t *map = json_object_get(value, "map");
    if (map)
        field = json_object_get(map, json_is_string(field) ? json_string_value(field) : "");
    if (!field || json_is_null(field))
        return s_else(about, value, value_p, error);
    *value_p = json_deep_copy(field);
    return LADE_OK;
}

static lade_code_t
s_shape(const lade_convert_about_t *about, const json_t *value, const char *name, json_t **value_p,
        lade_error_t *error)
{
    const lade_convert_tensor_t *tensor =
        about->part ? lade_convert_part_find(about->part, name) : NULL;
    int64_t axis = lade_json_int(value, "axis", 0), by = lade_json_int(value, "by", 1);
    if (!tensor && json_object_get(value, "else"))
        return s_else(about, value, value_p, error);
    if (!tensor)
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "the checkpoint is not whole: what would be %.200s is not in it",
                              name);
    if (axis < 0 || axis >= tensor->view.rank || by < 1)
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "tensor %.200s has %d dimensions, none of them number %" PRId64,
                              tensor->from->name, tensor->view.rank, axis);
    uint64_t len = tensor->view.shape[axis];
    if (len < (uint64_t)by) // fewer than one head of that width is one
        by = (int64_t)len;
    *value_p = json_integer((json_int_t)(len / (uint64_t)(by ? by : 1)));
    return LADE_OK;
}

static lade_code_t
s_count(const lade_convert_about_t *about, const json_t *value, const char *name, json_t **value_p,
        lade_error_t *error)
{
    (void)value;
    json_int_t count = 0;
    for (size_t i = 0; about->part && i < about->part->count; i++) {
        bool fits;
        if (lade_convert_map_fits(name, about->words, about->part->tensors[i].name, &fits, error))
            return error->code;
        count += fits;
    }
    *value_p = json_integer(count);
    return LADE_OK;
}

static lade_code_t
s_has(const lade_convert_about_t *about, const json_t *value, const char *name, json_t **value_p,
      lade_error_t *error)
{
    (void)value;
    (void)error;
    *value_p = json_boolean(lade_tensors_find(about->list, name) != NULL);
    return LADE_OK;
}

// A part without one of its blocks is another one of its class.
static lade_code_t
s_if(const lade_convert_about_t *about, const json_t *value, const char *name, json_t **value_p,
     lade_error_t *error)
{
    if (!about->part || !lade_convert_part_find(about->part, name))
        return s_else(about, value, value_p, error);
    return lade_convert_config(about, json_object_get(value, "then"), value_p, error);
}

static const struct {
    const char *key;
    s_read_t *read;
} s_values[] = {{"$record", s_record},
                {"$shape", s_shape},
                {"$count", s_count},
                {"$has", s_has},
                {"$if", s_if}};

static lade_code_t
s_value(const lade_convert_about_t *about, const json_t *value, json_t **value_p,
        lade_error_t *error)
{
    const char *key = json_object_iter_key(json_object_iter((json_t *)value));
    const char *name = json_string_value(json_object_get(value, key));
    for (size_t i = 0; name && i < sizeof s_values / sizeof *s_values; i++)
        if (!strcmp(s_values[i].key, key))
            return s_values[i].read(about, value, name, value_p, error);
    return lade_error_set(error, LADE_CONFIG_ERROR, "there is no value {%.60s: …}", key);
}

static lade_code_t
s_list(const lade_convert_about_t *about, const json_t *list, json_t **value_p, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    *value_p = json_array();
    for (size_t i = 0; i < json_array_size(list) && !code; i++) {
        json_t *item = NULL;
        code = lade_convert_config(about, json_array_get(list, i), &item, error);
        if (!code)
            json_array_append_new(*value_p, item);
    }
    return code;
}

static lade_code_t
s_map(const lade_convert_about_t *about, const json_t *map, json_t **value_p, lade_error_t *error)
{
    const char *key;
    json_t *member;
    lade_code_t code = LADE_OK;
    *value_p = json_object();
    json_object_foreach((json_t *)map, key, member)
    {
        json_t *value = NULL;
        code = lade_convert_config(about, member, &value, error);
        if (code)
            return code;
        json_object_set_new(*value_p, key, value);
    }
    return code;
}

lade_code_t
lade_convert_config(const lade_convert_about_t *about, const json_t *config, json_t **value_p,
                    lade_error_t *error)
{
    const char *key = json_object_iter_key(json_object_iter((json_t *)config));
    lade_code_t code = LADE_OK;
    *value_p = NULL;
    if (json_is_object(config) && key && key[0] == '$')
        code = s_value(about, config, value_p, error);
    else if (json_is_object(config))
        code = s_map(about, config, value_p, error);
    else if (json_is_array(config))
        code = s_list(about, config, value_p, error);
    else
        *value_p = json_deep_copy(config);
    if (code) {
        json_decref(*value_p);
        *value_p = NULL;
    }
    return code;
}
