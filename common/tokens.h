// Access tokens of the configuration: the list remote_api_tokens, files with a token in them, the
// hub's.
#ifndef LADE_TOKENS_H
#define LADE_TOKENS_H

#include "common/error.h"

#include <stddef.h>

enum {
    LADE_TOKENS_MAX = 4096,         // bytes of a token
    LADE_TOKENS_MAX_ENTRIES = 1000, // of remote_api_tokens
};

// One entry: URLs in which the regular expression (POSIX extended) is found get the token. One of
// token and token_file is set, the other NULL.
typedef struct {
    char *url_regex, *token, *token_file;
} lade_remote_token_t;

typedef struct {
    lade_remote_token_t *items;
    size_t count;
} lade_remote_tokens_t;

// Adds an entry after checking it; its texts are copied, NULL is not given. LADE_CONFIG_ERROR with
// a sentence that holds no token.
lade_code_t lade_tokens_add(lade_remote_tokens_t *self, const char *url_regex, const char *token,
                            const char *token_file, lade_error_t *error);

// The first entry whose expression is found in the URL (its user name and password left out); NULL
// if none is.
const lade_remote_token_t *lade_tokens_match(const lade_remote_tokens_t *self, const char *url);

// The token of that entry; NULL if there is none, or, with a log line, if its file holds none. Free
// it with lade_tokens_wipe.
char *lade_tokens_of_list(const lade_remote_tokens_t *self, const char *url);

// Wipes the memory.
void lade_tokens_free(lade_remote_tokens_t *self);

// The text without blanks around it; NULL if what is left is empty, longer than LADE_TOKENS_MAX or
// not one word of printable ASCII, which is all a header can hold. Free it with lade_tokens_wipe.
char *lade_tokens_clean(const char *text);

// The token in a file ("~/" is the home folder). LADE_CONFIG_ERROR if there is none. Blocks for the
// disk.
lade_code_t lade_tokens_read(const char *path, char **token_p, lade_error_t *error);

// The hub's token: the given setting, else that of the given file, else of HF_HOME/token, else of
// ~/.cache/huggingface/token. NULL if there is none; one that no header can hold is left out, with
// a log line.
char *lade_tokens_of_hub(const char *token, const char *token_file);

// Civitai's API key: the given setting, else that of the given file; NULL if there is none.
char *lade_tokens_of_civitai(const char *token, const char *token_file);

// path with "~/" replaced by the home folder; you free it.
char *lade_tokens_home(const char *path);

// From now on this process leaves no core file, and no other process of the same user can look into
// its memory: it holds tokens.
void lade_tokens_guard_process(void);

// For a process whose /proc/PID/fd others have to open (lade-gpu), which that forbids: its core
// file has none of its memory.
void lade_tokens_guard_core(void);

// Stars over every place where text, which somebody else wrote, repeats the token or its beginning
// (8 bytes at least, as texts are cut). token may be NULL.
void lade_tokens_hide(char *text, size_t len, const char *token, size_t token_len);

// Overwrites a text and frees it; sets *text_p to NULL. NULL-safe.
void lade_tokens_wipe(char **text_p);

#endif
