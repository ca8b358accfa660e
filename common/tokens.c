// Tokens of the configuration. Every copy made here is wiped before its memory goes.
#include "common/tokens.h"

#include "common/log.h"
#include "common/path.h"

#include <ctype.h>
#include <errno.h>
#include <regex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

void
lade_tokens_wipe(char **text_p)
{
    if (*text_p)
        explicit_bzero(*text_p, strlen(*text_p));
    free(*text_p);
    *text_p = NULL;
}

void
lade_tokens_hide(char *text, size_t len, const char *token, size_t token_len)
{
    enum { S_BEGINNING = 8 };
    size_t least = token_len < S_BEGINNING ? token_len : S_BEGINNING;
    if (!token || token_len == 0 || len == 0)
        return;
    char *at = text, *end = text + len;
    while ((at = memmem(at, (size_t)(end - at), token, least)) != NULL)
        for (size_t i = 0; i < token_len && at < end && (i < least || *at == token[i]); i++)
            *at++ = '*';
}

char *
lade_tokens_clean(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t len = strlen(text);
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        len--;
    if (len == 0 || len > LADE_TOKENS_MAX)
        return NULL;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f)
            return NULL;
    return strndup(text, len);
}

void
lade_tokens_guard_process(void)
{
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        lade_log(LADE_LOG_WARNING, "secrets", "core files cannot be turned off: %s",
                 strerror(errno));
}

void
lade_tokens_guard_core(void)
{
    FILE *out = fopen("/proc/self/coredump_filter", "we");
    bool done = out && fputs("0", out) >= 0;
    if ((out && fclose(out) != 0) || !done)
        lade_log(LADE_LOG_WARNING, "secrets", "a core file would hold memory: %s", strerror(errno));
}

// ---------------------------------------------------------------------------------------------------
// Files

char *
lade_tokens_home(const char *path)
{
    const char *home = strncmp(path, "~/", 2) == 0 ? getenv("HOME") : NULL;
    return home && *home ? lade_path_join(home, path + 2) : strdup(path);
}

lade_code_t
lade_tokens_read(const char *path, char **token_p, lade_error_t *error)
{
    char *text = NULL, *where = lade_tokens_home(path);
    size_t len = 0;
    lade_error_t why = {0};
    *token_p = NULL;
    if (!where)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a token");
    lade_code_t code = lade_path_read(where, LADE_TOKENS_MAX + 64, &text, &len, &why);
    free(where);
    if (code)
        return lade_error_set(error, LADE_CONFIG_ERROR, "the token file cannot be read: %s",
                              why.message);
    *token_p = lade_tokens_clean(text);
    explicit_bzero(text, len);
    free(text);
    return *token_p ? LADE_OK
                    : lade_error_set(error, LADE_CONFIG_ERROR,
                                     "%s holds no token: one word of at most %d ASCII characters",
                                     path, LADE_TOKENS_MAX);
}

// ---------------------------------------------------------------------------------------------------
// The hub

static char *
s_of_file(const char *path)
{
    lade_error_t error = {0};
    char *token = NULL;
    // Whoever never logged in at the hub has no such file, and nothing is wrong.
    if (lade_tokens_read(path, &token, &error) && lade_path_size(path) > 0)
        lade_log(LADE_LOG_WARNING, "hub", "%s", error.message);
    return token;
}

static char *
s_below(const char *folder, const char *name)
{
    if (!folder || !*folder)
        return NULL;
    char *path = lade_path_join(folder, name);
    char *token = s_of_file(path);
    free(path);
    return token;
}

char *
lade_tokens_of_hub(const char *token, const char *token_file)
{
    if (token && *token) {
        char *clean = lade_tokens_clean(token);
        if (!clean)
            lade_log(LADE_LOG_WARNING, "hub", "hub.token is not one word of ASCII; it is left out");
        return clean;
    }
    if (token_file && *token_file)
        return s_of_file(token_file);
    const char *home = getenv("HF_HOME");
    return home && *home ? s_below(home, "token")
                         : s_below(getenv("HOME"), ".cache/huggingface/token");
}

char *
lade_tokens_of_civitai(const char *token, const char *token_file)
{
    if (!token || !*token)
        return token_file && *token_file ? s_of_file(token_file) : NULL;
    char *clean = lade_tokens_clean(token);
    if (!clean)
        lade_log(LADE_LOG_WARNING, "civitai",
                 "civitai.token is not one word of ASCII; it is left out");
    return clean;
}

// ---------------------------------------------------------------------------------------------------
// remote_api_tokens

static lade_code_t
s_check(const lade_remote_tokens_t *self, const char *url_regex, const char *token,
        const char *token_file, lade_error_t *error)
{
    regex_t compiled;
    char words[128];
    if (self->count >= LADE_TOKENS_MAX_ENTRIES)
        return lade_error_set(error, LADE_CONFIG_ERROR, "at most %d entries",
                              LADE_TOKENS_MAX_ENTRIES);
    if (!url_regex || !*url_regex)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "an entry wants url_regex, an expression found in the URLs meant");
    if (!token == !token_file)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "an entry wants one of token and token_file besides its url_regex");
    if (token_file && *token_file != '/' && strncmp(token_file, "~/", 2) != 0)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "token_file '%s': a path that begins with / or ~/", token_file);
    char *clean = token ? lade_tokens_clean(token) : NULL;
    bool fine = token_file || clean;
    lade_tokens_wipe(&clean);
    if (!fine)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "a token is one word of at most %d ASCII characters",
                              LADE_TOKENS_MAX);
    int failed = regcomp(&compiled, url_regex, REG_EXTENDED | REG_NOSUB);
    if (failed) {
        regerror(failed, &compiled, words, sizeof words);
        return lade_error_set(error, LADE_CONFIG_ERROR, "url_regex '%s' does not compile: %s",
                              url_regex, words);
    }
    regfree(&compiled);
    return LADE_OK;
}

lade_code_t
lade_tokens_add(lade_remote_tokens_t *self, const char *url_regex, const char *token,
                const char *token_file, lade_error_t *error)
{
    lade_code_t code = s_check(self, url_regex, token, token_file, error);
    if (code)
        return code;
    lade_remote_token_t *items = realloc(self->items, (self->count + 1) * sizeof *items);
    if (!items)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the configuration");
    self->items = items;
    items[self->count++] =
        (lade_remote_token_t){strdup(url_regex), token ? lade_tokens_clean(token) : NULL,
                              token_file ? strdup(token_file) : NULL};
    return LADE_OK;
}

// The URL without what stands before an @ in its authority: a name there that looks like a host is
// none.
static char *
s_without_user(const char *url)
{
    char *copy = strdup(url), *host = copy ? strstr(copy, "://") : NULL;
    if (!host)
        return copy;
    host += 3;
    char *at = memrchr(host, '@', strcspn(host, "/?#"));
    if (at)
        memmove(host, at + 1, strlen(at + 1) + 1);
    return copy;
}

const lade_remote_token_t *
lade_tokens_match(const lade_remote_tokens_t *self, const char *url)
{
    const lade_remote_token_t *found = NULL;
    char *text = self->count ? s_without_user(url) : NULL;
    for (size_t i = 0; text && i < self->count && !found; i++) {
        regex_t compiled;
        if (regcomp(&compiled, self->items[i].url_regex, REG_EXTENDED | REG_NOSUB))
            continue; // it compiled when it was read
        if (regexec(&compiled, text, 0, NULL, 0) == 0)
            found = &self->items[i];
        regfree(&compiled);
    }
    free(text);
    return found;
}

char *
lade_tokens_of_list(const lade_remote_tokens_t *self, const char *url)
{
    const lade_remote_token_t *entry = lade_tokens_match(self, url);
    if (!entry)
        return NULL;
    return entry->token ? strdup(entry->token) : s_of_file(entry->token_file);
}

void
lade_tokens_free(lade_remote_tokens_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        free(self->items[i].url_regex);
        free(self->items[i].token_file);
        lade_tokens_wipe(&self->items[i].token);
    }
    free(self->items);
    *self = (lade_remote_tokens_t){0};
}
