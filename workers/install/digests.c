// Digests of a record's files.
#include "workers/install/digests.h"

#include "common/path.h"
#include "common/wire.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { S_MAX_DEPTH = 6, S_MAX_FILES = 100000, S_HEX = 64 };

static bool
s_is_sha256(const char *text)
{
    return text && strlen(text) == S_HEX && strspn(text, "0123456789abcdefABCDEF") == S_HEX;
}

static void
s_add(json_t *list, const char *path, int64_t size, const char *sha256)
{
    char hex[S_HEX + 1];
    if (!path || !s_is_sha256(sha256) || json_array_size(list) >= S_MAX_FILES)
        return;
    for (size_t i = 0; i <= S_HEX; i++)
        hex[i] = (char)tolower((unsigned char)sha256[i]);
    json_array_append_new(list, json_pack("{s:o, s:I, s:s}", "path",
                                          json_stringn_nocheck(path, strlen(path)), "size",
                                          (json_int_t)size, "sha256", hex));
}

// ---------------------------------------------------------------------------------------------------
// What sources tell: lists of files by a name that is known, wherever they are

// A hub's {"rfilename", "size", "lfs": {"sha256", "size"}}.
static void
s_add_sibling(json_t *list, const json_t *file)
{
    const json_t *lfs = json_object_get(file, "lfs");
    const char *sha256 = lade_json_text(lfs, "sha256", lade_json_text(lfs, "oid", NULL));
    s_add(list, lade_json_text(file, "rfilename", lade_json_text(file, "path", NULL)),
          lade_json_int(lfs, "size", lade_json_int(file, "size", -1)), sha256);
}

// {"name", "sizeKB", "hashes": {"SHA256"}}; its size is rounded and told as unknown.
static void
s_add_hashed(json_t *list, const json_t *file)
{
    const json_t *hashes = json_object_get(file, "hashes");
    s_add(list, lade_json_text(file, "name", NULL), -1, lade_json_text(hashes, "SHA256", NULL));
}

// {"path", "size", "sha256"}, as lade itself writes lists.
static void
s_add_plain(json_t *list, const json_t *file)
{
    s_add(list, lade_json_text(file, "path", NULL), lade_json_int(file, "size", -1),
          lade_json_text(file, "sha256", NULL));
}

static const struct {
    const char *list, *mark; // an item of `list` that has `mark`
    void (*add)(json_t *list, const json_t *file);
} s_lists[] = {
    {"siblings", "rfilename", s_add_sibling},
    {"files", "hashes", s_add_hashed},
    {"files", "sha256", s_add_plain},
};

static void s_gather(json_t *list, const json_t *value, size_t depth);

static void
s_gather_member(json_t *list, const char *name, const json_t *value, size_t depth)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        for (size_t row = 0; row < sizeof s_lists / sizeof *s_lists; row++)
            if (strcmp(s_lists[row].list, name) == 0 && json_object_get(item, s_lists[row].mark))
                s_lists[row].add(list, item);
        s_gather(list, item, depth + 1);
    }
    if (json_is_object(value))
        s_gather(list, value, depth + 1);
}

static void
s_gather(json_t *list, const json_t *value, size_t depth)
{
    const char *name;
    json_t *member;
    if (depth > S_MAX_DEPTH || !json_is_object(value))
        return;
    json_object_foreach((json_t *)value, name, member) s_gather_member(list, name, member, depth);
}

void
lade_digests_open(lade_digests_t *self, const json_t *record)
{
    const json_t *files = json_object_get(record, "files"),
                 *response = json_object_get(record, "source_api_response");
    *self = (lade_digests_t){.record = record, .own = json_array(), .told = json_array()};
    for (size_t i = 0; i < json_array_size(files); i++)
        s_add_plain(self->own, json_array_get(files, i));
    json_t *read =
        json_is_string(response) ? json_loads(json_string_value(response), 0, NULL) : NULL;
    s_gather(self->told, read ? read : response, 0);
    json_decref(read);
}

void
lade_digests_close(lade_digests_t *self)
{
    json_decref(self->own);
    json_decref(self->told);
    *self = (lade_digests_t){0};
}

// ---------------------------------------------------------------------------------------------------
// Finding

static void
s_set(const json_t *file, bool recorded, lade_digest_t *digest)
{
    *digest = (lade_digest_t){lade_json_int(file, "size", -1), lade_json_text(file, "sha256", NULL),
                              recorded};
}

// "unet/model.safetensors" is the end of "part/unet/model.safetensors", at a slash.
static bool
s_ends_with(const char *path, const char *end)
{
    size_t len = strlen(path), end_len = strlen(end);
    return len >= end_len && strcmp(path + len - end_len, end) == 0 &&
           (len == end_len || path[len - end_len - 1] == '/');
}

static const char *
s_last(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// Whether a file the source told of could be it. One file of a repository is named by the source
// behind "::".
static bool
s_may_be(const lade_digests_t *self, const char *told, const char *relative)
{
    const char *source = lade_json_text(self->record, "source", ""), *one = strstr(source, "::");
    if (*relative)
        return s_ends_with(told, relative);
    if (one)
        return strcmp(told, one + 2 + (one[2] == '/')) == 0;
    const char *name = s_last(lade_json_text(self->record, "path", ""));
    return strcmp(s_last(told), name) == 0 || strcmp(s_last(told), s_last(source)) == 0;
}

bool
lade_digests_find(const lade_digests_t *self, const char *relative, lade_digest_t *digest)
{
    *digest = (lade_digest_t){.size = -1};
    for (size_t i = 0; i < json_array_size(self->own); i++) {
        const json_t *file = json_array_get(self->own, i);
        if (*relative ? strcmp(lade_json_text(file, "path", ""), relative) == 0
                      : json_array_size(self->own) == 1) {
            s_set(file, true, digest);
            return true;
        }
    }
    for (size_t i = 0; i < json_array_size(self->told); i++) {
        const json_t *file = json_array_get(self->told, i);
        const char *path = lade_json_text(file, "path", ""),
                   *sha256 = lade_json_text(file, "sha256", "");
        if (!s_may_be(self, path, relative))
            continue;
        if (*relative && strcmp(path, relative) == 0) { // no other fits better
            s_set(file, false, digest);
            return true;
        }
        if (digest->sha256 && strcmp(digest->sha256, sha256) != 0) {
            *digest = (lade_digest_t){.size = -1};
            return false;
        }
        s_set(file, false, digest);
    }
    return digest->sha256 != NULL;
}
