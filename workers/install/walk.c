// The walk.
//
// Links are put aside and looked at when all else was seen: what they lead to is then known, or it
// is new and walked like the rest.
#include "workers/install/walk.h"

#include "common/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_MAX_DEPTH = 20,
    S_MAX_MODELS = 1000000,
    S_MAX_LINKS = 100000,
    S_MAX_PROBLEMS = 1000,
};

// A folder with one of them is a model.
static const char *const s_marks[] = {"model_index.json",   "config.json",
                                      "learned_embeds.bin", "pytorch_lora_weights.bin",
                                      "image_encoder.txt",  NULL};
static const char *const s_suffixes[] = {".safetensors", ".ckpt", ".bin", ".pt",
                                         ".pth",         ".gguf", NULL};

// Folders of systems and tools, wherever they are.
static const char *const s_system[] = {"lost+found", "$RECYCLE.BIN", "System Volume Information",
                                       "@eaDir",     "#recycle",     "__pycache__",
                                       "__MACOSX",   "node_modules", NULL};
static const char *const s_system_paths[] = {"/proc", "/sys", "/dev", "/run", NULL};

// What lade keeps directly in the models folder (hidden names are passed over anyway), and what the
// program keeps there that installations are taken over from.
static const char *const s_own[] = {"tmpinstall_", "tmptrash_", "tmpdelete_", NULL};
static const char *const s_foreign[] = {"core", NULL};

typedef struct {
    dev_t dev;
    ino_t ino;
} s_id_t;

// Files and folders seen, by what they are.
typedef struct {
    s_id_t *ids;
    size_t count, cap; // cap is a power of two; ino 0 is a free place
} s_seen_t;

typedef struct {
    char **items;
    size_t count, cap;
} s_list_t;

typedef struct {
    const lade_walk_rules_t *rules;
    lade_walk_t *found;
    s_seen_t folders, files; // files: those found, filled when the first link to one is met
    bool files_known;
    s_list_t links;
    size_t *depths; // of the links
    size_t depths_cap;
} s_walk_t;

// ---------------------------------------------------------------------------------------------------
// Sets and lists

static size_t
s_place(const s_seen_t *self, dev_t dev, ino_t ino)
{
    uint64_t hash = ((uint64_t)ino * UINT64_C(0x9e3779b97f4a7c15)) ^ (uint64_t)dev;
    size_t at = (size_t)(hash ^ hash >> 32) & (self->cap - 1);
    while (self->ids[at].ino && (self->ids[at].ino != ino || self->ids[at].dev != dev))
        at = (at + 1) & (self->cap - 1);
    return at;
}

// True if it is new.
static bool
s_see(s_seen_t *self, dev_t dev, ino_t ino)
{
    if (self->count * 2 >= self->cap) {
        s_seen_t larger = {.cap = self->cap ? self->cap * 2 : 256, .count = self->count};
        larger.ids = calloc(larger.cap, sizeof *larger.ids);
        if (!larger.ids)
            abort();
        for (size_t i = 0; i < self->cap; i++)
            if (self->ids[i].ino)
                larger.ids[s_place(&larger, self->ids[i].dev, self->ids[i].ino)] = self->ids[i];
        free(self->ids);
        *self = larger;
    }
    size_t at = s_place(self, dev, ino);
    bool fresh = self->ids[at].ino == 0;
    self->ids[at] = (s_id_t){dev, ino};
    self->count += fresh;
    return fresh;
}

static void
s_add(s_list_t *self, char *text)
{
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 64;
        self->items = realloc(self->items, self->cap * sizeof *self->items);
        if (!self->items)
            abort();
    }
    self->items[self->count++] = text;
}

static void
s_free_list(s_list_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->items[i]);
    free(self->items);
}

static bool
s_is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names) != 0)
        names++;
    return *names != NULL;
}

static bool
s_is_weight(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && s_suffixes[i]; i++)
        if (strcasecmp(dot, s_suffixes[i]) == 0)
            return true;
    return false;
}

// ---------------------------------------------------------------------------------------------------
// Folders

static lade_code_t
s_report(s_walk_t *self, const char *path, lade_error_t *error)
{
    lade_walk_t *found = self->found;
    if (found->count == S_MAX_MODELS)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "there are more than %d models; scan the folders one by one",
                              S_MAX_MODELS);
    s_list_t list = {found->paths, found->count, found->cap};
    s_add(&list, strdup(path));
    found->paths = list.items;
    found->count = list.count;
    found->cap = list.cap;
    return LADE_OK;
}

static void
s_problem(s_walk_t *self, const char *path, const lade_error_t *why)
{
    if (!self->found->problems)
        self->found->problems = json_array();
    if (json_array_size(self->found->problems) < S_MAX_PROBLEMS)
        json_array_append_new(self->found->problems,
                              json_pack("{s:o, s:s, s:o}", "path",
                                        json_stringn_nocheck(path, strlen(path)), "error_type",
                                        lade_code_name(why->code), "error",
                                        json_stringn_nocheck(why->message, strlen(why->message))));
}

typedef struct {
    s_list_t files, folders, links;
    bool marked;
} s_entries_t;

static void
s_free_entries(s_entries_t *self)
{
    s_free_list(&self->files);
    s_free_list(&self->folders);
    s_free_list(&self->links);
}

static unsigned char
s_type(int dir, const struct dirent *entry)
{
    struct stat st;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type;
    if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return DT_UNKNOWN;
    return S_ISREG(st.st_mode)   ? DT_REG
           : S_ISDIR(st.st_mode) ? DT_DIR
           : S_ISLNK(st.st_mode) ? DT_LNK
                                 : DT_UNKNOWN;
}

static bool
s_is_file_behind(int dir, const char *name)
{
    struct stat st;
    return fstatat(dir, name, &st, 0) == 0 && S_ISREG(st.st_mode);
}

static void
s_take(DIR *dir, s_entries_t *entries)
{
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (*name == '.')
            continue;
        unsigned char type = s_type(dirfd(dir), entry);
        bool mark = s_is_one_of(name, s_marks);
        if (mark && (type == DT_REG || (type == DT_LNK && s_is_file_behind(dirfd(dir), name))))
            entries->marked = true;
        if (type == DT_REG && s_is_weight(name))
            s_add(&entries->files, strdup(name));
        else if (type == DT_DIR && !s_is_one_of(name, s_system))
            s_add(&entries->folders, strdup(name));
        else if (type == DT_LNK && !s_is_one_of(name, s_system))
            s_add(&entries->links, strdup(name));
    }
}

// What is passed over directly in the models folder.
static bool
s_is_own(const char *name)
{
    for (size_t i = 0; s_own[i]; i++)
        if (strncmp(name, s_own[i], strlen(s_own[i])) == 0)
            return true;
    return s_is_one_of(name, s_foreign);
}

static lade_code_t s_folder(s_walk_t *self, const char *path, size_t depth, lade_error_t *error);

static lade_code_t
s_enter(s_walk_t *self, const char *path, const s_entries_t *entries, size_t depth,
        lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    bool top = self->rules->models_dir && strcmp(path, self->rules->models_dir) == 0;
    for (size_t i = 0; i < entries->files.count && !code; i++) {
        char *file = lade_path_join(path, entries->files.items[i]);
        code = s_report(self, file, error);
        free(file);
    }
    for (size_t i = 0; i < entries->links.count && !code && self->links.count < S_MAX_LINKS; i++) {
        if (self->links.count == self->depths_cap) {
            self->depths_cap = self->depths_cap ? self->depths_cap * 2 : 64;
            self->depths = realloc(self->depths, self->depths_cap * sizeof *self->depths);
            if (!self->depths)
                abort();
        }
        self->depths[self->links.count] = depth;
        s_add(&self->links, lade_path_join(path, entries->links.items[i]));
    }
    for (size_t i = 0; i < entries->folders.count && !code; i++) {
        if (top && s_is_own(entries->folders.items[i]))
            continue;
        char *folder = lade_path_join(path, entries->folders.items[i]);
        if (!s_is_one_of(folder, s_system_paths))
            code = s_folder(self, folder, depth + 1, error);
        free(folder);
    }
    return code;
}

// depth 0 is the root, whose errors are the caller's.
static lade_code_t
s_folder(s_walk_t *self, const char *path, size_t depth, lade_error_t *error)
{
    struct stat st;
    if (self->rules->stop && self->rules->stop(self->rules->arg))
        return lade_error_set(error, LADE_CANCELLED, "stopped while looking into %s", path);
    if (depth > S_MAX_DEPTH)
        return LADE_OK;
    DIR *dir = opendir(path);
    if (!dir || fstat(dirfd(dir), &st) != 0) {
        lade_error_t why = {0};
        int problem = errno;
        lade_error_errno(&why, problem, "cannot look into %s", path);
        if (dir)
            closedir(dir);
        if (depth == 0) {
            *error = why;
            return why.code;
        }
        if (problem != ENOENT) // it went meanwhile
            s_problem(self, path, &why);
        return LADE_OK;
    }
    if (!s_see(&self->folders, st.st_dev, st.st_ino)) {
        closedir(dir);
        return LADE_OK;
    }
    s_entries_t entries = {0};
    s_take(dir, &entries);
    closedir(dir); // not open while deeper ones are
    bool top = self->rules->models_dir && strcmp(path, self->rules->models_dir) == 0;
    lade_code_t code = entries.marked && !top ? s_report(self, path, error)
                                              : s_enter(self, path, &entries, depth, error);
    s_free_entries(&entries);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Links

static void
s_know_files(s_walk_t *self)
{
    struct stat st;
    for (size_t i = 0; i < self->found->count && !self->files_known; i++)
        if (stat(self->found->paths[i], &st) == 0)
            s_see(&self->files, st.st_dev, st.st_ino);
    self->files_known = true;
}

static lade_code_t
s_link(s_walk_t *self, const char *path, size_t depth, lade_error_t *error)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return LADE_OK; // leads nowhere, or in a circle
    if (S_ISDIR(st.st_mode))
        return s_folder(self, path, depth + 1, error);
    if (!S_ISREG(st.st_mode) || !s_is_weight(path))
        return LADE_OK;
    s_know_files(self);
    return s_see(&self->files, st.st_dev, st.st_ino) ? s_report(self, path, error) : LADE_OK;
}

static int
s_by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void
s_order(lade_walk_t *found)
{
    if (found->count)
        qsort(found->paths, found->count, sizeof *found->paths, s_by_text);
    size_t kept = 0;
    for (size_t i = 0; i < found->count; i++) {
        if (kept && strcmp(found->paths[kept - 1], found->paths[i]) == 0)
            free(found->paths[i]);
        else
            found->paths[kept++] = found->paths[i];
    }
    found->count = kept;
}

lade_code_t
lade_walk(const lade_walk_rules_t *rules, const char *root, lade_walk_t *found, lade_error_t *error)
{
    s_walk_t self = {.rules = rules, .found = found};
    lade_code_t code = s_folder(&self, root, 0, error);
    for (size_t i = 0; i < self.links.count && !code; i++) // links behind links are put at the end
        code = s_link(&self, self.links.items[i], self.depths[i], error);
    s_order(found);
    s_free_list(&self.links);
    free(self.depths);
    free(self.folders.ids);
    free(self.files.ids);
    return code;
}

char *
lade_walk_real(const char *models_dir, const char *path, lade_error_t *error)
{
    char *real = realpath(path, NULL);
    if (!real) {
        lade_error_errno(error, errno, "cannot look into %s", path);
        return NULL;
    }
    char *models = realpath(models_dir, NULL);
    if (models && strcmp(models, models_dir) != 0 && lade_path_inside(models, real)) {
        char *own = NULL;
        if (asprintf(&own, "%s%s", models_dir, real + strlen(models)) < 0)
            abort();
        free(real);
        real = own;
    }
    free(models);
    return real;
}

void
lade_walk_free(lade_walk_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->paths[i]);
    free(self->paths);
    json_decref(self->problems);
    *self = (lade_walk_t){0};
}
