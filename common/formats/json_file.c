// The JSON files of model folders.
#include "common/formats/json_file.h"

#include "common/path.h"

#include <stdlib.h>
#include <string.h>

lade_code_t
lade_json_file_read(const char *path, size_t max, json_t **value_p, lade_error_t *error)
{
    char *data;
    size_t len;
    *value_p = NULL;
    lade_code_t code = lade_path_read(path, max, &data, &len, error);
    if (code)
        return code;
    json_error_t problem;
    const char *slash = strrchr(path, '/');
    size_t mark =
        len >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; // some editors' byte order mark
    *value_p = json_loadb(data + mark, len - mark, 0, &problem);
    free(data);
    if (!*value_p)
        return lade_error_set(error, LADE_CORRUPT, "%s:%d: %s", slash ? slash + 1 : path,
                              problem.line, problem.text);
    return LADE_OK;
}

const json_t *
lade_json_file_at(const json_t *root, const char *path)
{
    char part[128];
    while (root && *path) {
        size_t len = strcspn(path, ".");
        if (len >= sizeof part)
            return NULL;
        memcpy(part, path, len);
        part[len] = 0;
        root = json_is_array(root) ? json_array_get(root, strtoul(part, NULL, 10))
                                   : json_object_get(root, part);
        path += len + (path[len] == '.');
    }
    return root;
}

const char *
lade_json_file_class(const json_t *config)
{
    const json_t *name = json_object_get(config, "_class_name");
    return json_string_value(name ? name
                                  : json_array_get(json_object_get(config, "architectures"), 0));
}
