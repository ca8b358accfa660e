// Looking credentials up. Each rule is a row; whatever a rule hands out is bound to the origin it
// is for.
#include "workers/download/credentials.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { S_MAX_NETRC = 1 << 20 }; // bytes

// ---------------------------------------------------------------------------------------------------
// Origins, as libcurl reads them, since it is libcurl that connects

typedef struct {
    char *scheme, *host, *port; // NULL: no http or https URL
} s_origin_t;

static void
s_origin_free(s_origin_t *self)
{
    curl_free(self->scheme);
    curl_free(self->host);
    curl_free(self->port);
    *self = (s_origin_t){0};
}

// False, and nothing to free, if it is no http or https URL.
static bool
s_origin_of(const char *url, s_origin_t *self)
{
    *self = (s_origin_t){0};
    CURLU *parsed = url ? curl_url() : NULL;
    if (parsed && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK) {
        curl_url_get(parsed, CURLUPART_SCHEME, &self->scheme, 0);
        curl_url_get(parsed, CURLUPART_HOST, &self->host, 0);
        curl_url_get(parsed, CURLUPART_PORT, &self->port, CURLU_DEFAULT_PORT);
    }
    curl_url_cleanup(parsed);
    bool whole = self->scheme && self->host && self->port &&
                 (strcasecmp(self->scheme, "http") == 0 || strcasecmp(self->scheme, "https") == 0);
    if (!whole)
        s_origin_free(self);
    return whole;
}

static bool
s_is_origin_of(const s_origin_t *self, const char *url)
{
    s_origin_t other;
    if (!self->host || !s_origin_of(url, &other))
        return false;
    bool same = strcasecmp(self->scheme, other.scheme) == 0 &&
                strcasecmp(self->host, other.host) == 0 && strcmp(self->port, other.port) == 0;
    s_origin_free(&other);
    return same;
}

bool
lade_credentials_same_origin(const char *url, const char *other)
{
    s_origin_t origin;
    bool same = s_origin_of(url, &origin) && s_is_origin_of(&origin, other);
    s_origin_free(&origin);
    return same;
}

// ---------------------------------------------------------------------------------------------------
// netrc: words, of which `machine NAME` or `default` begins an entry

typedef struct {
    char *at;  // the rest of the text
    bool line; // it begins on a new line
} s_words_t;

// Skips blanks, and comments: a # is one at the beginning of a line only, as passwords may have it.
static char *
s_skip(s_words_t *self)
{
    char *at = self->at;
    for (;; at++) {
        if (*at == '#' && self->line)
            at += strcspn(at, "\n");
        if (!*at || !strchr(" \t\r\n", *at))
            return at;
        self->line = self->line || *at == '\n';
    }
}

// The next word, ended by a NUL within the text; in quotes it may have blanks, with \ before what
// is meant as it is. NULL at the end. *broken is set if a quote is not closed.
static char *
s_word(s_words_t *self, bool *broken)
{
    char *from = s_skip(self), *to;
    if (!*from) {
        self->at = from;
        return NULL;
    }
    if (*from != '"') {
        to = from + strcspn(from, " \t\r\n");
        self->line = *to == '\n';
        self->at = to + (*to != '\0');
        *to = '\0';
        return from;
    }
    char *read = ++from;
    for (to = from; *read && *read != '"'; *to++ = *read++)
        read += *read == '\\' && read[1];
    *broken = *broken || *read != '"';
    self->at = read + (*read != '\0');
    self->line = false;
    *to = '\0';
    return from;
}

typedef struct {
    const char *host;
    bool default_too; // whether `default` speaks of the host
    bool here;        // the entry read now is the one
    bool found;       // and it ends where the next begins
    char *login, *password;
} s_netrc_t;

// What follows the word `key`. False when the entry that was looked for has ended.
static bool
s_netrc_word(s_netrc_t *self, s_words_t *words, const char *key, bool *broken)
{
    bool machine = strcmp(key, "machine") == 0, rest = strcmp(key, "default") == 0;
    if ((machine || rest) && self->here)
        return false;
    if (rest) {
        self->here = self->found = self->default_too;
        return true;
    }
    if (strcmp(key, "macdef") == 0) { // goes on to an empty line
        char *end = strstr(words->at, "\n\n");
        words->at = end ? end : words->at + strlen(words->at);
        return true;
    }
    char *value = s_word(words, broken);
    if (!value || (!machine && strcmp(key, "login") != 0 && strcmp(key, "password") != 0 &&
                   strcmp(key, "account") != 0))
        *broken = true;
    else if (machine)
        self->here = self->found = strcasecmp(value, self->host) == 0;
    else if (self->here && *key == 'l')
        self->login = value;
    else if (self->here && *key == 'p')
        self->password = value;
    return !*broken;
}

// Reads to the host's entry. LADE_CONFIG_ERROR if the text is no netrc as far as it was read.
static lade_code_t
s_netrc_find(char *text, s_netrc_t *self, const char *path, lade_error_t *error)
{
    s_words_t words = {text, true};
    bool broken = false;
    for (char *key; !broken && (key = s_word(&words, &broken)) != NULL;)
        if (!s_netrc_word(self, &words, key, &broken))
            break;
    if (broken || (self->found && !self->login))
        return lade_error_set(
            error, LADE_CONFIG_ERROR,
            "download.netrc: %s is no netrc, or has a machine without a login: it "
            "wants `machine HOST login USER password PASSWORD`",
            path);
    return LADE_OK;
}

static lade_code_t
s_netrc_check(int fd, const char *path, struct stat *st, lade_error_t *error)
{
    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode) || st->st_size > S_MAX_NETRC)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "download.netrc: %s is no file of at most %d bytes", path,
                              S_MAX_NETRC);
    if (st->st_mode & (S_IRWXG | S_IRWXO))
        return lade_error_set(
            error, LADE_CONFIG_ERROR,
            "download.netrc: others may read %s, which holds passwords: chmod 600 "
            "it, then retry",
            path);
    return LADE_OK;
}

// The text of the file; *size_p bytes to wipe.
static lade_code_t
s_netrc_read(const char *path, char **text_p, size_t *size_p, lade_error_t *error)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe must not hold us
    if (fd < 0)
        return lade_error_set(error, LADE_CONFIG_ERROR, "download.netrc: cannot read %s: %s", path,
                              strerror(errno));
    lade_code_t code = s_netrc_check(fd, path, &st, error);
    size_t size = code ? 0 : (size_t)st.st_size, len = 0;
    char *text = code ? NULL : calloc(1, size + 1);
    if (!code && !text)
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory for %s", path);
    for (ssize_t got = 1; !code && len < size && got != 0; len += got > 0 ? (size_t)got : 0) {
        got = read(fd, text + len, size - len);
        if (got < 0 && errno != EINTR)
            code = lade_error_set(error, LADE_CONFIG_ERROR, "download.netrc: cannot read %s: %s",
                                  path, strerror(errno));
    }
    close(fd);
    *text_p = text;
    *size_p = size;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The rules. Each fills *out if it has something for the request, and only then.

typedef struct {
    const lade_config_t *config;
    const lade_credentials_ask_t *ask;
    const char *source, *token_url;
    s_origin_t origin; // of the request
} s_look_t;

static void
s_take_token(lade_credentials_t *out, char *token, const char *from)
{
    if (!token)
        return;
    out->kind = LADE_CREDENTIALS_BEARER;
    out->token = token;
    snprintf(out->from, sizeof out->from, "%s", from);
}

static lade_code_t
s_of_job(const s_look_t *self, lade_credentials_t *out, lade_error_t *error)
{
    if (!self->ask->token || !*self->ask->token || !s_is_origin_of(&self->origin, self->token_url))
        return LADE_OK;
    char *token = lade_tokens_clean(self->ask->token);
    if (!token)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "access_token: one word of at most %d ASCII characters",
                              LADE_TOKENS_MAX);
    s_take_token(out, token, "--token");
    return LADE_OK;
}

static lade_code_t
s_of_list(const s_look_t *self, lade_credentials_t *out, lade_error_t *error)
{
    const lade_remote_tokens_t *list = &self->config->remote_tokens;
    if (list->count == 0 || !s_is_origin_of(&self->origin, self->source))
        return LADE_OK;
    const lade_remote_token_t *entry = lade_tokens_match(list, self->source);
    if (!entry)
        return LADE_OK;
    char from[sizeof out->from], *token = entry->token ? strdup(entry->token) : NULL;
    snprintf(from, sizeof from, "remote_api_tokens, entry %zu", (size_t)(entry - list->items) + 1);
    if (!token && lade_tokens_read(entry->token_file, &token, error))
        return lade_error_wrap(error, "%s", from);
    s_take_token(out, token, from);
    return LADE_OK;
}

static lade_code_t
s_of_hub(const s_look_t *self, lade_credentials_t *out, lade_error_t *error)
{
    (void)error;
    const lade_config_t *config = self->config;
    if (s_is_origin_of(&self->origin, config->hub_endpoint))
        s_take_token(out, lade_tokens_of_hub(config->hub_token, config->hub_token_file),
                     "the hub's token");
    return LADE_OK;
}

static lade_code_t
s_of_civitai(const s_look_t *self, lade_credentials_t *out, lade_error_t *error)
{
    (void)error;
    const lade_config_t *config = self->config;
    if (config->civitai_endpoint && s_is_origin_of(&self->origin, config->civitai_endpoint))
        s_take_token(out, lade_tokens_of_civitai(config->civitai_token, config->civitai_token_file),
                     "civitai.token");
    return LADE_OK;
}

// A password for whatever host comes, `default`, is none for hosts that servers name; and what was
// asked for by https is not told in the clear.
static lade_code_t
s_of_netrc(const s_look_t *self, lade_credentials_t *out, lade_error_t *error)
{
    const char *setting = self->config->netrc;
    s_origin_t source;
    if (!setting || !*setting || !s_origin_of(self->source, &source))
        return LADE_OK;
    bool secure = strcasecmp(source.scheme, "https") == 0;
    s_origin_free(&source);
    if (secure && strcasecmp(self->origin.scheme, "https") != 0)
        return LADE_OK;
    s_netrc_t netrc = {.host = self->origin.host,
                       .default_too = s_is_origin_of(&self->origin, self->source)};
    char *path = lade_tokens_home(setting), *text = NULL;
    size_t size = 0;
    lade_code_t code = path ? s_netrc_read(path, &text, &size, error)
                            : lade_error_set(error, LADE_NO_MEMORY, "no memory for the netrc");
    if (!code)
        code = s_netrc_find(text, &netrc, path, error);
    if (!code && netrc.found && strchr(netrc.login, ':'))
        code = lade_error_set(error, LADE_CONFIG_ERROR,
                              "download.netrc: the login of %s has a colon in it, which HTTP basic "
                              "cannot tell",
                              netrc.host);
    if (!code && netrc.found) {
        out->kind = LADE_CREDENTIALS_BASIC;
        out->user = strdup(netrc.login);
        out->password = strdup(netrc.password ? netrc.password : "");
        snprintf(out->from, sizeof out->from, "download.netrc");
    }
    if (text)
        explicit_bzero(text, size);
    free(text);
    free(path);
    return code;
}

static lade_code_t (*const s_rules[])(const s_look_t *self, lade_credentials_t *out,
                                      lade_error_t *error) = {s_of_job, s_of_list, s_of_hub,
                                                              s_of_civitai, s_of_netrc};

lade_code_t
lade_credentials_find(const lade_config_t *config, const lade_credentials_ask_t *ask,
                      lade_credentials_t *out, lade_error_t *error)
{
    *out = (lade_credentials_t){0};
    s_look_t look = {.config = config, .ask = ask};
    look.source = ask->source ? ask->source : ask->url;
    look.token_url = ask->token_url ? ask->token_url : look.source;
    if (!s_origin_of(ask->url, &look.origin))
        return LADE_OK;
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < sizeof s_rules / sizeof *s_rules && !code && !out->kind; i++)
        code = s_rules[i](&look, out, error);
    s_origin_free(&look.origin);
    return code;
}

void
lade_credentials_free(lade_credentials_t *self)
{
    lade_tokens_wipe(&self->token);
    lade_tokens_wipe(&self->user);
    lade_tokens_wipe(&self->password);
    *self = (lade_credentials_t){0};
}
