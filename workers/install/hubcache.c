// Reading the hub library's cache.
#include "workers/install/hubcache.h"

#include "common/log.h"
#include "common/path.h"
#include "common/tokens.h"
#include "common/wire.h"
#include "workers/install/api.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_MAX_SMALL = 64 << 20, // bytes of a file whose git digest is looked at
    S_MAX_DEPTH = 20,       // folders in each other in a snapshot
    S_MAX_JSON = 16 << 20,  // bytes of an index that is read
};

// ---------------------------------------------------------------------------------------------------
// Where it is

// You free it; NULL if there is none or none is wanted.
static char *
s_root(const lade_config_t *config)
{
    const char *setting = config->hub_cache, *home = getenv("HF_HOME"),
               *cache = getenv("XDG_CACHE_HOME");
    if (!setting || strcmp(setting, "none") == 0)
        return NULL;
    if (*setting)
        return lade_tokens_home(setting);
    if (home && *home)
        return lade_path_join(home, "hub");
    if (cache && *cache)
        return lade_path_join(cache, "huggingface/hub");
    home = getenv("HOME");
    return home && *home ? lade_path_join(home, ".cache/huggingface/hub") : NULL;
}

static bool
s_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *
lade_hubcache_open(const lade_config_t *config, const char *repo)
{
    char *root = s_root(config), *folder = NULL;
    const char *slash = strchr(repo, '/');
    if (root && slash &&
        asprintf(&folder, "%s/models--%.*s--%s", root, (int)(slash - repo), repo, slash + 1) < 0)
        abort();
    free(root);
    if (folder && s_is_folder(folder))
        return folder;
    free(folder);
    return NULL;
}

static bool
s_is_hex(const char *text, size_t len)
{
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

bool
lade_hubcache_commit(const char *folder, const char *revision, char commit[65])
{
    char *ref = NULL, *text = NULL, *snapshot = NULL;
    size_t len;
    revision = revision ? revision : "main";
    snprintf(commit, 65, "%s", s_is_hex(revision, 40) ? revision : "");
    if (!*commit && !lade_path_check_relative(revision, NULL)) {
        if (asprintf(&ref, "%s/refs/%s", folder, revision) < 0)
            abort();
        if (!lade_path_read(ref, 256, &text, &len, NULL))
            snprintf(commit, 65, "%.*s", (int)strcspn(text, " \r\n"), text);
    }
    bool found = s_is_hex(commit, 40);
    if (found && asprintf(&snapshot, "%s/snapshots/%s", folder, commit) < 0)
        abort();
    found = found && s_is_folder(snapshot);
    free(snapshot);
    free(text);
    free(ref);
    return found;
}

// ---------------------------------------------------------------------------------------------------
// What a snapshot holds

static json_t *
s_entry(const char *path, const char *rest)
{
    struct stat st;
    char target[PATH_MAX];
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
        lade_log(LADE_LOG_WARNING, "hub", "the cache's %s leads to no file; it is left out", path);
        return NULL;
    }
    ssize_t len = readlink(path, target, sizeof target - 1);
    target[len > 0 ? len : 0] = '\0';
    const char *slash = strrchr(target, '/'), *digest = slash ? slash + 1 : target;
    json_t *entry = json_pack("{s:o, s:I}", "rfilename", json_string_nocheck(rest), "size",
                              (json_int_t)st.st_size);
    if (s_is_hex(digest, 64))
        json_object_set_new(entry, "lfs", json_pack("{s:s}", "sha256", digest));
    else if (s_is_hex(digest, 40))
        json_object_set_new(entry, "blobId", json_string(digest));
    return entry;
}

static void
s_walk(const char *folder, const char *rest, int depth, json_t *siblings)
{
    DIR *dir = depth < S_MAX_DEPTH ? opendir(folder) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = lade_path_join(folder, entry->d_name);
        char *below = *rest ? lade_path_join(rest, entry->d_name) : strdup(entry->d_name);
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            s_walk(path, below, depth + 1, siblings);
        } else {
            json_t *file = s_entry(path, below);
            if (file)
                json_array_append_new(siblings, file);
        }
        free(below);
        free(path);
    }
    if (dir)
        closedir(dir);
}

static char *
s_snapshot(const char *folder, const char *commit, const char *path)
{
    char *whole;
    if (asprintf(&whole, "%s/snapshots/%s%s%s", folder, commit, path ? "/" : "", path ? path : "") <
        0)
        abort();
    return whole;
}

lade_code_t
lade_hubcache_list(const char *folder, const char *repo, const char *commit,
                   lade_hub_repo_t **repo_p, lade_error_t *error)
{
    char *snapshot = s_snapshot(folder, commit, NULL);
    json_t *siblings = json_array();
    s_walk(snapshot, "", 0, siblings);
    json_t *info = json_pack("{s:s, s:s, s:o}", "id", repo, "sha", commit, "siblings", siblings);
    lade_code_t code = lade_hub_read(info, repo, commit, repo_p, error);
    if (!code)
        (*repo_p)->cached = true;
    free(snapshot);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Whether it is all

typedef struct {
    const char *folder, *commit;
    const lade_hub_repo_t *repo;
    const lade_selection_t *selection;
    char *words;
    size_t size;
} s_whole_t;

static const char *
s_picked(const s_whole_t *self, size_t i)
{
    return self->repo->files[self->selection->items[i].index].path;
}

static bool
s_is_weights(const char *path)
{
    static const char *const texts[] = {".json", ".txt", ".model", ".jinja"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof texts / sizeof *texts; i++)
        if (strcmp(dot, texts[i]) == 0)
            return false;
    return true;
}

// How many picked files lie in a folder ("" is the top), and of what kind.
static size_t
s_count(const s_whole_t *self, const char *below, bool weights_only, const char *named)
{
    size_t count = 0, len = strlen(below);
    for (size_t i = 0; i < self->selection->count; i++) {
        const char *path = s_picked(self, i);
        if (len && (strncmp(path, below, len) != 0 || path[len] != '/'))
            continue;
        const char *name = len ? path + len + 1 : path;
        count += (!weights_only || s_is_weights(path)) && (!named || strcmp(name, named) == 0);
    }
    return count;
}

static json_t *
s_json(const s_whole_t *self, const char *path)
{
    char *whole = s_snapshot(self->folder, self->commit, path), *text = NULL;
    size_t len = 0;
    json_t *value = lade_path_read(whole, S_MAX_JSON, &text, &len, NULL)
                        ? NULL
                        : json_loadb(text, len, 0, NULL);
    free(text);
    free(whole);
    return value;
}

static bool
s_lacks(const s_whole_t *self, const char *folder, const char *name)
{
    snprintf(self->words, self->size, "%.100s%s%.100s", folder, *folder && *name ? "/" : "", name);
    return false;
}

// The shards an index names, if one of them was picked: then all have to be.
static bool
s_has_shards(const s_whole_t *self, const char *index)
{
    const char *slash = strrchr(index, '/');
    char *folder = slash ? strndup(index, (size_t)(slash - index)) : strdup("");
    json_t *value = s_json(self, index);
    json_t *map = json_object_get(value, "weight_map"), *shard;
    const char *key, *missing = NULL;
    bool some = s_count(self, folder, true, NULL) == 0;
    json_object_foreach(map, key, shard)
    {
        bool there =
            json_is_string(shard) && s_count(self, folder, true, json_string_value(shard)) > 0;
        some = some || there;
        missing = there ? missing : json_string_value(shard) ? json_string_value(shard) : "?";
    }
    bool whole = !some || !missing || s_lacks(self, folder, missing);
    json_decref(value);
    free(folder);
    return whole;
}

// The components that model_index.json names.
static bool
s_has_components(const s_whole_t *self, json_t *index)
{
    const char *name;
    json_t *value;
    json_object_foreach(index, name, value)
    {
        if (!json_is_array(value) || !json_is_string(json_array_get(value, 0)) ||
            !json_is_string(json_array_get(value, 1)))
            continue;
        if (s_count(self, name, false, NULL) == 0)
            return s_lacks(self, name, "");
        if (s_count(self, name, false, "config.json") && s_count(self, name, true, NULL) == 0)
            return s_lacks(self, name, "weights");
    }
    return true;
}

bool
lade_hubcache_is_whole(const char *folder, const char *commit, const lade_hub_repo_t *repo,
                       const lade_selection_t *selection, bool *sure_p, char *words, size_t size)
{
    s_whole_t self = {folder, commit, repo, selection, words, size};
    bool one = selection->count == 1 && s_is_weights(s_picked(&self, 0));
    json_t *index =
        s_count(&self, "", false, "model_index.json") ? s_json(&self, "model_index.json") : NULL;
    bool whole = s_count(&self, "", true, NULL) > 0 || s_lacks(&self, "", "any weights");
    whole = whole && s_has_components(&self, index);
    for (size_t i = 0; i < selection->count && whole; i++) {
        const char *path = s_picked(&self, i), *end = ".index.json";
        size_t len = strlen(path), end_len = strlen(end);
        if (len > end_len && strcmp(path + len - end_len, end) == 0)
            whole = s_has_shards(&self, path);
    }
    *sure_p = whole && (json_is_object(index) || one);
    json_decref(index);
    return whole;
}

// ---------------------------------------------------------------------------------------------------
// Files

// git names a file by the SHA-1 of "blob SIZE", a NUL, and its bytes.
static bool
s_is_git_object(const char *path, const char *digest)
{
    char *data = NULL, head[40];
    size_t len = 0;
    unsigned char sum[EVP_MAX_MD_SIZE];
    char hex[41] = "";
    if (lade_path_read(path, S_MAX_SMALL, &data, &len, NULL))
        return false;
    size_t head_len = (size_t)snprintf(head, sizeof head, "blob %zu", len) + 1;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx && EVP_DigestInit_ex(ctx, EVP_sha1(), NULL) == 1 &&
        EVP_DigestUpdate(ctx, head, head_len) == 1 && EVP_DigestUpdate(ctx, data, len) == 1 &&
        EVP_DigestFinal_ex(ctx, sum, NULL) == 1)
        for (size_t i = 0; i < 20; i++)
            snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    EVP_MD_CTX_free(ctx);
    free(data);
    return strcmp(hex, digest) == 0;
}

// file://PATH, NULL if it is no file of that size (-1: any).
static char *
s_file_url(const char *path, int64_t size)
{
    struct stat st;
    char *whole = realpath(path, NULL), *text = NULL;
    if (whole && stat(whole, &st) == 0 && S_ISREG(st.st_mode) && (size < 0 || st.st_size == size)) {
        lade_buf_t url = LADE_BUF(64 << 10);
        lade_buf_addf(&url, NULL, "file://");
        lade_api_add_escaped(&url, whole, true);
        text = lade_buf_take(&url);
    }
    free(whole);
    return text;
}

char *
lade_hubcache_url(const char *folder, const lade_hub_file_t *file)
{
    const char *digest = *file->sha256 ? file->sha256 : file->git;
    char *path = NULL, *url = NULL;
    if (!*digest || file->size < 0)
        return NULL;
    if (asprintf(&path, "%s/blobs/%s", folder, digest) < 0)
        abort();
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (there)
        url = s_file_url(path, file->size);
    if (url && *file->git && !s_is_git_object(path, file->git)) {
        free(url);
        url = NULL;
    }
    if (there && !url)
        lade_log(LADE_LOG_WARNING, "hub",
                 "%s of the cache is not what its name says; %s is fetched instead", path,
                 file->path);
    free(path);
    return url;
}

char *
lade_hubcache_snapshot_url(const char *folder, const char *commit, const char *path)
{
    char *whole = s_snapshot(folder, commit, path), *url = s_file_url(whole, -1);
    free(whole);
    return url;
}
