// The grammar of sources.
#include "workers/install/source.h"

#include "common/path.h"
#include "common/wire.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { S_MAX_REVISION = 200 };

static const char *const s_variants[] = {"", "fp16", "fp32", "onnx", "openvino", "flax", NULL};
static const char s_hub_page[] = "huggingface.co";
static const char s_forms[] =
    "a source is a path that exists, ORG/REPO[@REVISION][:VARIANT][:SUBFOLDER] with the variant "
    "fp16, fp32, onnx, openvino, flax or none, or an http(s) URL";

static lade_code_t
s_refuse(const char *text, const char *why, lade_error_t *error)
{
    return lade_error_set(error, LADE_VALUE_ERROR, "unsupported model source '%.200s'%s%s: %s",
                          text, *why ? ", " : "", why, s_forms);
}

// ---------------------------------------------------------------------------------------------------
// Paths

// Absolute, without empty parts and "."; symbolic links are kept, since a link in a cache has the
// name that means something. Only ".." has to be resolved by the system, which knows where links
// lead.
static char *
s_absolute(const char *path)
{
    char *whole = NULL;
    if (*path == '/') {
        whole = strdup(path);
    } else {
        char *here = getcwd(NULL, 0);
        whole = lade_path_join(here ? here : "/", path);
        free(here);
    }
    char *clean = malloc(strlen(whole) + 2), *out = clean;
    bool up = false;
    for (char *save = NULL, *part = strtok_r(whole, "/", &save); part;
         part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0)
            continue;
        up = up || strcmp(part, "..") == 0;
        *out++ = '/';
        out = stpcpy(out, part);
    }
    if (out == clean)
        *out++ = '/';
    *out = '\0';
    free(whole);
    char *resolved = up ? realpath(clean, NULL) : NULL;
    if (!resolved)
        return clean;
    free(clean);
    return resolved;
}

static bool
s_take_path(const char *text, lade_source_t *self)
{
    if (!*text || access(text, F_OK) != 0)
        return false;
    self->kind = LADE_SOURCE_LOCAL;
    self->path = s_absolute(text);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Hub repositories

static bool
s_is_variant(const char *text, size_t len)
{
    for (size_t i = 0; s_variants[i]; i++)
        if (strlen(s_variants[i]) == len && memcmp(s_variants[i], text, len) == 0)
            return true;
    return false;
}

// One part of a repository's name. "." and ".." would leave the API's path.
static bool
s_is_repo_part(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
            return false;
    return len > 0 && len <= 96 && !(len <= 2 && strspn(text, ".") >= len);
}

static bool
s_is_repo(const char *text, size_t len)
{
    const char *slash = memchr(text, '/', len);
    return slash && s_is_repo_part(text, (size_t)(slash - text)) &&
           s_is_repo_part(slash + 1, len - (size_t)(slash + 1 - text));
}

// Each of the folders joined by '+' has to stay below the repository.
static lade_code_t
s_check_subfolder(const char *subfolder, lade_error_t *error)
{
    char *copy = strdup(subfolder), *save = NULL;
    lade_code_t code = LADE_OK;
    size_t count = 0;
    for (char *part = strtok_r(copy, "+", &save); part && !code;
         part = strtok_r(NULL, "+", &save)) {
        while (*part == ' ' || *part == '/')
            part++;
        size_t len = strlen(part);
        while (len > 0 && (part[len - 1] == ' ' || part[len - 1] == '/'))
            part[--len] = '\0';
        code = lade_path_check_relative(part, error);
        count++;
    }
    free(copy);
    if (!code && (count == 0 || count > 32))
        code = lade_error_set(error, LADE_VALUE_ERROR, "name 1 to 32 subfolders, not %zu", count);
    return code ? lade_error_wrap(error, "the subfolder '%.100s'", subfolder) : LADE_OK;
}

static lade_code_t
s_take_subfolder(const char *subfolder, lade_source_t *self, lade_error_t *error)
{
    subfolder += *subfolder == '/';
    lade_code_t code = s_check_subfolder(subfolder, error);
    if (!code)
        self->subfolder = strdup(subfolder);
    return code;
}

// A branch, a tag, a commit or a ref of the hub (refs/pr/7). What git allows beyond that would have
// to be told apart from the rest of the source.
static bool
s_is_revision(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bool twice = i + 1 < len && text[i] == text[i + 1];
        if (!isalnum((unsigned char)text[i]) && !strchr("._-+/", text[i]))
            return false;
        if (twice && strchr("./", text[i]))
            return false;
    }
    return len > 0 && len <= S_MAX_REVISION && !strchr("-/.", text[0]) && text[len - 1] != '/';
}

static lade_code_t
s_take_revision(const char *text, size_t len, lade_source_t *self, lade_error_t *error)
{
    if (!s_is_revision(text, len))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "'%.*s' is no revision: name a branch, a tag, a commit or refs/pr/N",
                              (int)(len > 100 ? 100 : len), text);
    self->revision = strndup(text, len);
    return LADE_OK;
}

// True if the text has the shape of a repository: ORG/REPO, then nothing, a colon or an @.
static bool
s_looks_like_repo(const char *text, size_t *len_p)
{
    size_t len = strcspn(text, ":");
    const char *slash = memchr(text, '/', len);
    const char *at = slash ? memchr(slash, '@', len - (size_t)(slash - text)) : NULL;
    if (at)
        len = (size_t)(at - text);
    *len_p = len;
    return slash && slash > text && slash + 1 < text + len &&
           !memchr(slash + 1, '/', len - (size_t)(slash + 1 - text));
}

static lade_code_t
s_take_repo(const char *text, size_t len, lade_source_t *self, lade_error_t *error)
{
    if (!s_is_repo(text, len))
        return s_refuse(text, "a repository's name has only letters, digits, '.', '_' and '-'",
                        error);
    self->kind = LADE_SOURCE_HUB;
    self->repo = strndup(text, len);
    const char *at = text + len;
    if (*at == '@') {
        size_t revision = strcspn(++at, ":");
        if (s_take_revision(at, revision, self, error))
            return LADE_VALUE_ERROR;
        at += revision;
    }
    if (!*at)
        return LADE_OK;
    size_t word = strcspn(++at, ":");
    if (!s_is_variant(at, word))
        return s_refuse(text, "there is no such variant", error);
    if (word > 0)
        self->variant = strndup(at, word);
    at += word;
    if (!*at)
        return LADE_OK;
    at++;
    if (!*at || strchr(at, ':'))
        return s_refuse(text, *at ? "there is a colon too many" : "the subfolder is missing",
                        error);
    return s_take_subfolder(at, self, error);
}

// ---------------------------------------------------------------------------------------------------
// All forms

static bool
s_is_url(const char *text)
{
    const char *rest = strncmp(text, "http://", 7) == 0    ? text + 7
                       : strncmp(text, "https://", 8) == 0 ? text + 8
                                                           : NULL;
    return rest && *rest && *rest != '/';
}

static lade_code_t
s_take_url(const char *text, lade_source_t *self, lade_error_t *error)
{
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return s_refuse(text, "an URL has no spaces or control characters (write %20)", error);
    self->kind = LADE_SOURCE_URL;
    self->url = strdup(text);
    return LADE_OK;
}

lade_code_t
lade_source_parse(const char *text, lade_source_t *self, lade_error_t *error)
{
    *self = (lade_source_t){0};
    size_t len = strlen(text);
    if (len > 8192)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "the source is %zu bytes long, at most 8192 are taken", len);
    while (*text == '"')
        text++, len--;
    while (len > 0 && text[len - 1] == '"')
        len--;
    self->text = strndup(text, len);
    text = self->text;
    size_t repo;
    if (s_take_path(text, self))
        return LADE_OK;
    if (s_looks_like_repo(text, &repo))
        return s_take_repo(text, repo, self, error);
    if (s_is_url(text))
        return s_take_url(text, self, error);
    return s_refuse(
        text, strchr(text, '/') || strchr(text, '.') ? "there is no such file or folder here" : "",
        error);
}

static lade_code_t
s_from_hub_map(const json_t *map, lade_source_t *self, lade_error_t *error)
{
    const char *repo = lade_json_text(map, "repo_id", "");
    const char *variant = lade_json_text(map, "variant", NULL);
    const char *subfolder = lade_json_text(map, "subfolder", NULL);
    const char *revision = lade_json_text(map, "revision", NULL);
    if (variant && strcmp(variant, "default") == 0)
        variant = "";
    if (!s_is_repo(repo, strlen(repo)))
        return s_refuse(repo, "repo_id is ORG/REPO", error);
    if (variant && !s_is_variant(variant, strlen(variant)))
        return s_refuse(variant, "there is no such variant", error);
    self->kind = LADE_SOURCE_HUB;
    self->repo = strdup(repo);
    self->variant = variant ? strdup(variant) : NULL;
    if (subfolder && *subfolder && s_take_subfolder(subfolder, self, error))
        return error ? error->code : LADE_VALUE_ERROR;
    if (revision && *revision && s_take_revision(revision, strlen(revision), self, error))
        return LADE_VALUE_ERROR;
    bool more = self->subfolder || (variant && *variant);
    if (asprintf(&self->text, "%s%s%s%s%s%s%s", repo, self->revision ? "@" : "",
                 self->revision ? self->revision : "", more ? ":" : "",
                 more && variant ? variant : "", self->subfolder ? ":" : "",
                 self->subfolder ? self->subfolder : "") < 0)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the source");
    return LADE_OK;
}

lade_code_t
lade_source_from_map(const json_t *map, lade_source_t *self, lade_error_t *error)
{
    *self = (lade_source_t){0};
    const char *type = lade_json_text(map, "type", "");
    if (strcmp(type, "hf") == 0)
        return s_from_hub_map(map, self, error);
    if (strcmp(type, "local") == 0) {
        const char *path = lade_json_text(map, "path", "");
        self->text = strdup(path);
        return s_take_path(path, self)
                   ? LADE_OK
                   : s_refuse(path, "there is no such file or folder here", error);
    }
    if (strcmp(type, "url") == 0) {
        const char *url = lade_json_text(map, "url", "");
        self->text = strdup(url);
        return s_is_url(url) ? s_take_url(url, self, error) : s_refuse(url, "", error);
    }
    return s_refuse(type, "a source map's type is local, url or hf", error);
}

// ---------------------------------------------------------------------------------------------------
// Pages of a hub

// Bytes of "scheme://host:port".
static size_t
s_origin(const char *url)
{
    const char *rest = strstr(url, "://");
    return rest ? (size_t)(rest + 3 - url) + strcspn(rest + 3, "/?#") : 0;
}

bool
lade_source_same_origin(const char *url, const char *endpoint)
{
    size_t len = s_origin(url);
    // A user name in front of the host would make another host look like ours.
    return len > 0 && len == s_origin(endpoint) && strncasecmp(url, endpoint, len) == 0 &&
           !memchr(url, '@', len);
}

// What follows the hub's root in the URL ("org/repo"), NULL if it is no URL of a hub.
static const char *
s_below_hub(const char *url, const char *endpoint)
{
    size_t origin = s_origin(url);
    const char *host = strstr(url, "://") + 3;
    size_t len = origin - (size_t)(host - url);
    if (strncasecmp(host, "www.", 4) == 0 && len > 4)
        host += 4, len -= 4;
    if (len == strlen(s_hub_page) && strncasecmp(host, s_hub_page, len) == 0)
        return url[origin] == '/' ? url + origin + 1 : NULL;
    size_t whole = strlen(endpoint);
    while (whole > 0 && endpoint[whole - 1] == '/')
        whole--;
    if (!lade_source_same_origin(url, endpoint) ||
        strncmp(url + origin, endpoint + origin, whole - origin) != 0)
        return NULL;
    return url[whole] == '/' ? url + whole + 1 : NULL;
}

// A hub can serve plain files as well: what ends like weights is no repository's page.
static bool
s_is_file_name(const char *path, size_t len)
{
    static const char *const ends[] = {".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (len > strlen(ends[i]) &&
            strncasecmp(path + len - strlen(ends[i]), ends[i], strlen(ends[i])) == 0)
            return true;
    return false;
}

// The URL's %XX decoded; NULL if they are none or stand for a NUL. You free it.
static char *
s_decode(const char *text, size_t len)
{
    char *out = malloc(len + 1), *to = out;
    for (size_t i = 0; i < len; i++, to++) {
        *to = text[i];
        if (text[i] != '%')
            continue;
        const char hex[] = {i + 1 < len ? text[i + 1] : '\0', i + 2 < len ? text[i + 2] : '\0',
                            '\0'};
        *to = strspn(hex, "0123456789abcdefABCDEF") == 2 ? (char)strtoul(hex, NULL, 16) : '\0';
        i += 2;
        if (!*to) {
            free(out);
            return NULL;
        }
    }
    *to = '\0';
    return out;
}

// Bytes of the revision at the beginning of what follows /tree/: one part, or a ref's three.
static size_t
s_revision_len(const char *rest)
{
    size_t len = strcspn(rest, "/");
    if (strncmp(rest, "refs/", 5) != 0)
        return len;
    size_t kind = 5 + strcspn(rest + 5, "/");
    return rest[kind] ? kind + 1 + strcspn(rest + kind + 1, "/") : kind;
}

// rest: REVISION[/FOLDER], still encoded.
static lade_code_t
s_take_tree(lade_source_t *self, const char *rest, size_t len, lade_error_t *error)
{
    char *words = s_decode(rest, len);
    if (!words)
        return s_refuse(self->text, "the URL has a % that two hex digits do not follow", error);
    size_t revision = s_revision_len(words), end = strlen(words);
    while (end > revision && words[end - 1] == '/')
        words[--end] = '\0';
    lade_code_t code = s_take_revision(words, revision, self, error);
    if (!code && words[revision])
        code = s_take_subfolder(words + revision + 1, self, error);
    free(words);
    return code;
}

static void
s_become_repo(lade_source_t *self, const char *repo, size_t len)
{
    self->kind = LADE_SOURCE_HUB;
    self->repo = strndup(repo, len);
    self->variant = strdup(""); // a page shows the default files
    free(self->url);
    self->url = NULL;
}

lade_code_t
lade_source_resolve_page(lade_source_t *self, const char *endpoint, lade_error_t *error)
{
    const char *below = self->kind == LADE_SOURCE_URL ? s_below_hub(self->url, endpoint) : NULL;
    if (!below)
        return LADE_OK;
    size_t len = strcspn(below, "?#");
    size_t repo = len > 0 && below[len - 1] == '/' ? len - 1 : len;
    if (s_is_repo(below, repo) && !s_is_file_name(below, repo)) {
        s_become_repo(self, below, repo);
        return LADE_OK;
    }
    const char *name = memchr(below, '/', len);
    const char *after = name ? memchr(name + 1, '/', len - (size_t)(name + 1 - below)) : NULL;
    if (after && strncmp(after, "/tree/", 6) == 0 && s_is_repo(below, (size_t)(after - below))) {
        lade_code_t code = s_take_tree(self, after + 6, len - (size_t)(after + 6 - below), error);
        if (!code)
            s_become_repo(self, below, (size_t)(after - below));
        return code;
    }
    if (!after || strncmp(after, "/blob/", 6) != 0)
        return LADE_OK;
    char *url = NULL;
    if (asprintf(&url, "%.*s/resolve/%s", (int)(after - self->url), self->url, after + 6) < 0)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the source");
    free(self->url);
    self->url = url;
    return LADE_OK;
}

char *
lade_source_page_repo(const char *url, const char *endpoint)
{
    const char *below = s_is_url(url) ? s_below_hub(url, endpoint) : NULL;
    size_t len = below ? strcspn(below, "?#") : 0;
    const char *slash = below ? memchr(below, '/', len) : NULL;
    if (!slash)
        return NULL;
    len = (size_t)(slash + 1 - below) + strcspn(slash + 1, "/?#");
    return s_is_repo(below, len) ? strndup(below, len) : NULL;
}

const char *
lade_source_type(const lade_source_t *self)
{
    static const char *const names[] = {
        [LADE_SOURCE_LOCAL] = "path", [LADE_SOURCE_HUB] = "hf_repo_id", [LADE_SOURCE_URL] = "url"};
    // A repository's page was named by its URL.
    return names[self->kind == LADE_SOURCE_HUB && s_is_url(self->text) ? LADE_SOURCE_URL
                                                                       : self->kind];
}

void
lade_source_free(lade_source_t *self)
{
    char *parts[] = {self->text,    self->path,      self->repo, self->revision,
                     self->variant, self->subfolder, self->url};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
    *self = (lade_source_t){0};
}
