// The named predicates over a file's container, its name and what lies beside it.
#include "common/identify/predicates_read.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

json_t *
lade_predicate_container(lade_subject_t *subject)
{
    const char *format = lade_tensors_format(subject->tensors);
    return format ? json_string(format) : NULL;
}

json_t *
lade_predicate_config_beside(lade_subject_t *subject)
{
    char *path = malloc(strlen(subject->path) + sizeof ".yaml");
    if (!path)
        abort();
    strcpy(path, subject->path);
    char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    if (dot && dot > (slash ? slash + 1 : path))
        *dot = '\0';
    strcat(path, ".yaml");
    struct stat st;
    bool there = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    json_t *found = there ? json_string(path) : NULL;
    free(path);
    return found;
}

// ---------------------------------------------------------------------------------------------------
// Wan 2.2: which of its two experts a file is, by its name

enum { S_MAX_WORDS = 64, S_MAX_WORD = 32 };

typedef struct {
    char words[S_MAX_WORDS][S_MAX_WORD];
    size_t count;
} s_words_t;

// The words of a name in lower case: cut where it is no letter or digit, and before a capital that
// follows another kind of letter or digit ("LowNoise14B").
static void
s_cut(const char *text, s_words_t *self)
{
    size_t len = 0;
    for (unsigned char last = 0; *text && self->count < S_MAX_WORDS;
         last = (unsigned char)*text++) {
        unsigned char at = (unsigned char)*text;
        bool starts = isupper(at) && (islower(last) || isdigit(last));
        if (len && (!isalnum(at) || starts)) {
            self->words[self->count++][len] = '\0';
            len = 0;
        }
        if (isalnum(at) && len + 1 < S_MAX_WORD && self->count < S_MAX_WORDS)
            self->words[self->count][len++] = (char)tolower(at);
    }
    if (len && self->count < S_MAX_WORDS)
        self->words[self->count++][len] = '\0';
}

static bool
s_is_one(const char *word, const char *const *list)
{
    for (; word && *list; list++)
        if (strcmp(word, *list) == 0)
            return true;
    return false;
}

enum { S_HIGH = 1, S_LOW = 2 };

static int
s_marker(const char *word)
{
    return strcmp(word, "high") == 0 ? S_HIGH : strcmp(word, "low") == 0 ? S_LOW : 0;
}

// "highnoise", "t2vlownoisefp8": the two words in one.
static int
s_joined_marker(const char *word)
{
    static const struct {
        const char *text;
        int marker;
    } rows[] = {
        {"highnoise", S_HIGH}, {"lownoise", S_LOW}, {"noisehigh", S_HIGH}, {"noiselow", S_LOW}};
    size_t len = strlen(word);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].text);
        bool fits = i < 2 ? strncmp(word, rows[i].text, n) == 0
                          : len >= n && strcmp(word + len - n, rows[i].text) == 0;
        if (fits)
            return rows[i].marker;
    }
    return 0;
}

// A run of markers side by side, from `at`. Adds what it says to the one or other tier; returns the
// word after it.
static size_t
s_read_run(const s_words_t *self, size_t at, int *explicit_p, int *bare_p)
{
    // what a high or low of is no expert: "low-step", "high_quality", "LOW-VRAM"
    static const char *const others[] = {
        "angle", "cfg",        "guidance", "vram",  "ram", "mem", "memory", "step", "steps",
        "res",   "resolution", "quality",  "speed", "fps", "bit", "bits",   NULL};
    static const char *const noise[] = {"noise", NULL};
    size_t end = at;
    while (end < self->count && s_marker(self->words[end]))
        end++;
    const char *next = end < self->count ? self->words[end] : NULL;
    const char *before = at ? self->words[at - 1] : NULL;
    size_t last = end;
    if (s_is_one(next, others)) {
        last--;
        next = NULL;
    }
    int said = 0;
    for (size_t i = at; i < last; i++)
        said |= s_marker(self->words[i]);
    if (said)
        *(s_is_one(before, noise) || s_is_one(next, noise) ? explicit_p : bare_p) |= said;
    return end;
}

// S_HIGH or S_LOW; 0 if the text says nothing; both if it says both, which tells nothing either.
static int
s_expert(const char *text)
{
    s_words_t words = {.count = 0};
    int explicit = 0, bare = 0;
    s_cut(text, &words);
    for (size_t i = 0; i < words.count;) {
        explicit |= s_joined_marker(words.words[i]);
        i = s_marker(words.words[i]) ? s_read_run(&words, i, &explicit, &bare) : i + 1;
    }
    return explicit ? explicit : bare;
}

json_t *
lade_predicate_wan_expert(lade_subject_t *subject)
{
    const json_t *metadata = lade_tensors_metadata(subject->tensors);
    const char *called[] = {subject->name,
                            json_string_value(json_object_get(metadata, "model_type")),
                            json_string_value(json_object_get(metadata, "general.name"))};
    int said = 0;
    for (size_t i = 0; i < sizeof called / sizeof *called && !said; i++)
        said = called[i] ? s_expert(called[i]) : 0;
    return said == S_HIGH ? json_string("high") : said == S_LOW ? json_string("low") : NULL;
}
