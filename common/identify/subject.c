// What is being identified.
#include "common/identify/subject.h"

#include "common/formats/json_file.h"
#include "common/path.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

struct lade_subject_weights {
    lade_subject_weights_t *next;
    char *relative;
    lade_tensors_t *tensors; // NULL if there are none
};

static void
s_cut_suffix(char *name)
{
    static const char *const suffixes[] = {".safetensors", ".bin", ".pt", ".ckpt"};
    char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && dot > name && i < sizeof suffixes / sizeof *suffixes; i++)
        if (strcasecmp(dot, suffixes[i]) == 0) {
            *dot = '\0';
            return;
        }
}

// The names of the path and of the folder above it; "." and links in between are what they stand
// for.
static void
s_set_names(lade_subject_t *self, const json_t *overrides)
{
    const char *given = json_string_value(json_object_get(overrides, "name"));
    char *name = lade_path_name(self->path), *folder = lade_path_folder(self->path);
    char *real = realpath(folder, NULL), *whole = NULL;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        whole = realpath(self->path, NULL);
        free(name);
        name = lade_path_name(whole ? whole : self->path);
    }
    if (!self->folder)
        s_cut_suffix(name);
    self->name = strdup(given ? given : name);
    self->parent = lade_path_name(real ? real : folder);
    free(whole);
    free(real);
    free(folder);
    free(name);
}

lade_code_t
lade_subject_new(const char *path, const json_t *overrides, lade_subject_t **self_p,
                 lade_error_t *error)
{
    return lade_subject_new_within(path, overrides, LADE_TENSORS_HEADER, self_p, error);
}

lade_code_t
lade_subject_new_within(const char *path, const json_t *overrides, uint64_t max_header,
                        lade_subject_t **self_p, lade_error_t *error)
{
    struct stat st;
    *self_p = NULL;
    if (stat(path, &st) != 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    lade_subject_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to identify %s", path);
    self->path = strdup(path);
    self->folder = S_ISDIR(st.st_mode);
    self->max_header = max_header;
    self->configs = json_object();
    s_set_names(self, overrides);
    lade_code_t code =
        self->folder ? LADE_OK : lade_tensors_open_within(path, max_header, &self->tensors, error);
    if (code)
        lade_subject_destroy(&self);
    *self_p = self;
    return code;
}

static void
s_note(lade_subject_t *self, const lade_error_t *problem)
{
    if (!self->problem.code && problem->code != LADE_NOT_FOUND)
        self->problem = *problem;
}

const json_t *
lade_subject_config(lade_subject_t *self, const char *relative)
{
    json_t *value = json_object_get(self->configs, relative);
    if (!value && self->folder) {
        lade_error_t problem = {0};
        char *path = lade_path_join(self->path, relative);
        if (lade_json_file_read(path, LADE_JSON_FILE_MAX_CONFIG, &value, &problem)) {
            s_note(self, &problem);
            value = json_null();
        }
        json_object_set_new(self->configs, relative, value);
        free(path);
    }
    return json_is_null(value) ? NULL : value;
}

bool
lade_subject_has(const lade_subject_t *self, const char *relative)
{
    struct stat st;
    char *path = lade_path_join(self->path, relative);
    bool there = self->folder && stat(path, &st) == 0;
    free(path);
    return there;
}

lade_subject_t *
lade_subject_inside(lade_subject_t *self, const char *relative)
{
    char *path = lade_path_join(self->path, relative);
    lade_subject_t *found = self->inside;
    while (found && strcmp(found->path, path) != 0)
        found = found->next;
    if (!found && lade_subject_has(self, relative)) {
        lade_error_t problem = {0};
        if (lade_subject_new_within(path, NULL, self->max_header, &found, &problem)) {
            s_note(self, &problem);
        } else {
            found->next = self->inside;
            self->inside = found;
        }
    }
    free(path);
    return found && !found->folder ? found : NULL;
}

const lade_tensors_t *
lade_subject_weights(lade_subject_t *self, const char *relative)
{
    lade_subject_weights_t *found = self->weights;
    while (found && strcmp(found->relative, relative) != 0)
        found = found->next;
    if (!found && self->folder) {
        lade_error_t problem = {0};
        char *path = lade_path_join(self->path, relative);
        found = calloc(1, sizeof *found);
        if (!found)
            abort();
        *found = (lade_subject_weights_t){.next = self->weights, .relative = strdup(relative)};
        self->weights = found;
        if (lade_tensors_open_within(path, self->max_header, &found->tensors, &problem))
            s_note(self, &problem);
        free(path);
    }
    return found ? found->tensors : NULL;
}

lade_search_t *
lade_subject_search(lade_subject_t *self, const lade_patterns_t *patterns,
                    const lade_tensors_t *tensors)
{
    for (size_t i = 0; i < self->search_count; i++)
        if (lade_search_tensors(self->searches[i]) == tensors)
            return self->searches[i];
    self->searches = realloc(self->searches, (self->search_count + 1) * sizeof *self->searches);
    if (!self->searches)
        abort();
    return self->searches[self->search_count++] = lade_search_new(patterns, tensors);
}

unsigned
lade_subject_parts(const lade_subject_t *self)
{
    unsigned number, count, found = 1;
    int end = 0;
    const char *slash = strrchr(self->path, '/'), *name = slash ? slash + 1 : self->path;
    for (const char *at = strchr(name, '-'); at && found == 1; at = strchr(at + 1, '-'))
        if (sscanf(at, "-%5u-of-%5u%n", &number, &count, &end) == 2 && end == 15 &&
            (at[end] == '.' || at[end] == '\0') && count > 1)
            found = count;
    bool alone = self->tensors && lade_tensors_file_count(self->tensors) == 1;
    return alone ? found : 1;
}

// ---------------------------------------------------------------------------------------------------

// Adds "a, b, c" of at most three names to what is in words.
static void
s_add_name(char *words, size_t size, size_t index, const char *name)
{
    size_t len = strlen(words);
    if (index < 3)
        snprintf(words + len, size - len, "%s%.60s", index ? ", " : "", name);
    else if (index == 3)
        snprintf(words + len, size - len, ", ...");
}

static char *
s_file_words(const lade_subject_t *self)
{
    char names[256] = "", *words;
    size_t count = lade_tensors_count(self->tensors);
    for (size_t i = 0; i < count && i < 4; i++)
        s_add_name(names, sizeof names, i, lade_tensors_get(self->tensors, i)->name);
    for (char *at = names; *at; at++)
        if ((unsigned char)*at < 0x20)
            *at = '?';
    if (asprintf(&words, "a %s file of %zu tensor%s%s%s%s", lade_tensors_format(self->tensors),
                 count, count == 1 ? "" : "s", count ? " (" : "", names, count ? ")" : "") < 0)
        abort();
    return words;
}

static const char *
s_folder_class(const lade_subject_t *self, const char **file_p)
{
    static const char *const files[] = {"model_index.json", "config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *name = lade_json_file_class(json_object_get(self->configs, files[i]));
        *file_p = files[i];
        if (name)
            return name;
    }
    return NULL;
}

static char *
s_folder_words(const lade_subject_t *self)
{
    char names[256] = "", *words;
    const char *file, *class = s_folder_class(self, &file);
    size_t count = 0;
    int n;
    DIR *dir = class ? NULL : opendir(self->path);
    for (struct dirent *entry; dir && count < 4 && (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            s_add_name(names, sizeof names, count++, entry->d_name);
    if (dir)
        closedir(dir);
    if (class)
        n = asprintf(&words, "a folder whose %s names the class %.80s", file, class);
    else if (count)
        n = asprintf(&words, "a folder with %s", names);
    else
        n = asprintf(&words, "an empty folder");
    if (n < 0)
        abort();
    return words;
}

char *
lade_subject_words(const lade_subject_t *self)
{
    return self->folder ? s_folder_words(self) : s_file_words(self);
}

void
lade_subject_destroy(lade_subject_t **self_p)
{
    lade_subject_t *self = *self_p;
    if (!self)
        return;
    for (lade_subject_t *inside = self->inside, *next; inside; inside = next) {
        next = inside->next;
        lade_subject_destroy(&inside);
    }
    for (lade_subject_weights_t *weights = self->weights, *next; weights; weights = next) {
        next = weights->next;
        lade_tensors_destroy(&weights->tensors);
        free(weights->relative);
        free(weights);
    }
    for (size_t i = 0; i < self->search_count; i++)
        lade_search_destroy(&self->searches[i]);
    free(self->searches);
    lade_tensors_destroy(&self->tensors);
    json_decref(self->configs);
    free(self->parent);
    free(self->name);
    free(self->path);
    free(self);
    *self_p = NULL;
}
