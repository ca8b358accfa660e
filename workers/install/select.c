// The rules of selection, in the order README.md lists them.
#include "workers/install/select.h"

#include "common/path.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_SUBFOLDERS = 32 };

// One path of the repository, taken apart.
typedef struct {
    size_t index;
    const char *path;
    const char *name;  // its last part
    size_t folder_len; // of path, without the slash; 0 at the top
    bool keep;         // in the result as things stand
    bool candidate;    // weights that compete within their folder
    bool labelled_fp16;
    int score;
} s_file_t;

typedef struct {
    s_file_t *files; // ordered by path
    size_t count;
    const char *variant;
    char *subfolders[S_MAX_SUBFOLDERS];
    size_t subfolder_count;
    char *subfolder_text; // the strings of subfolders lie in it
    const s_file_t *single;
} s_select_t;

// ---------------------------------------------------------------------------------------------------
// Names

// Where the name's suffix begins; its end if it has none.
static const char *
s_suffix(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? dot : name + strlen(name);
}

static bool
s_in(const char *text, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(text, *list) == 0)
            return true;
    return false;
}

static bool
s_ends(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static const char *const s_weights[] = {".safetensors", ".bin", ".pt", ".ckpt", ".gguf", NULL};
static const char *const s_any_weights[] = {".safetensors", ".bin", ".pt",      ".ckpt", ".gguf",
                                            ".onnx",        ".pth", ".msgpack", ".xml",  NULL};
static const char *const s_texts[] = {".json", ".txt", ".model", ".jinja", NULL};

// Rule 1: what can be part of a model at all.
static bool
s_is_of_model(const char *name)
{
    static const char *const ends[] = {".json",          ".txt",
                                       ".jinja",         "learned_embeds.bin",
                                       "ip_adapter.bin", "lora_weights.safetensors",
                                       "weights.pb",     "onnx_data",
                                       "spiece.model"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (s_ends(name, ends[i]))
            return true;
    const char *model = strstr(name, "model");
    const char *suffix = s_suffix(name);
    return model && model + strlen("model") <= suffix && s_in(suffix, s_any_weights);
}

// The counter of a sharded file, "-00001-of-00002", as start and length; false if there is none.
static bool
s_find_counter(const char *name, const char **start_p, size_t *len_p)
{
    for (const char *at = strstr(name, "-of-"); at; at = strstr(at + 1, "-of-")) {
        const char *start = at, *end = at + 4;
        while (start > name && isdigit((unsigned char)start[-1]))
            start--;
        while (isdigit((unsigned char)*end))
            end++;
        if (start < at && end > at + 4 && start > name && start[-1] == '-') {
            *start_p = start - 1;
            *len_p = (size_t)(end - (start - 1));
            return true;
        }
    }
    return false;
}

// The name without its counter, so that each shard is judged as the file it is a part of.
static void
s_whole_name(const char *name, char *whole, size_t size)
{
    const char *counter;
    size_t len;
    if (s_find_counter(name, &counter, &len))
        snprintf(whole, size, "%.*s%s", (int)(counter - name), name, counter + len);
    else
        snprintf(whole, size, "%s", name);
}

// The label is the first of exactly two suffixes: ".fp16" in model.fp16.safetensors. "" if there is
// none.
static void
s_label(const char *name, char *label, size_t size)
{
    char whole[512];
    s_whole_name(name, whole, sizeof whole);
    char *first = strchr(whole + 1, '.');
    char *second = first ? strchr(first + 1, '.') : NULL;
    if (second && !strchr(second + 1, '.')) {
        *second = '\0';
        snprintf(label, size, "%s", first);
    } else {
        snprintf(label, size, "%s", "");
    }
}

static bool
s_same_folder(const s_file_t *a, const s_file_t *b)
{
    return a->folder_len == b->folder_len && memcmp(a->path, b->path, a->folder_len) == 0;
}

static bool
s_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && path[len] == '/';
}

// ---------------------------------------------------------------------------------------------------
// The rules

// Rule 3: whether a file is of the variant, and if it is weights, how well it fits.
static void
s_judge(const s_select_t *self, s_file_t *file)
{
    static const char *const onnx[] = {".onnx", ".pb", ".onnx_data", NULL};
    static const char *const weights_variants[] = {"", "fp16", "fp32", NULL};
    const char *suffix = s_suffix(file->name), *variant = self->variant;
    if (s_in(suffix, onnx)) {
        file->keep = strcmp(variant, "onnx") == 0;
    } else if (strstr(file->name, "openvino_model")) {
        file->keep = strcmp(variant, "openvino") == 0;
    } else if (strstr(file->name, "flax_model")) {
        file->keep = strcmp(variant, "flax") == 0;
    } else if (s_in(suffix, s_texts)) {
        file->keep = true;
    } else {
        file->keep = false;
        file->candidate = s_in(variant, weights_variants) && s_in(suffix, s_weights);
    }
    if (!file->candidate)
        return;
    char label[64], wanted[16];
    s_label(file->name, label, sizeof label);
    snprintf(wanted, sizeof wanted, ".%s", variant);
    file->labelled_fp16 = strncmp(label, ".fp16", 5) == 0;
    file->score = strcmp(suffix, ".safetensors") == 0;
    if (*variant && strncmp(label, wanted, strlen(wanted)) == 0)
        file->score++;
    if (!*label && strcmp(variant, "fp16") != 0)
        file->score++;
}

// True if both are shards of one file.
static bool
s_same_shards(const s_file_t *a, const s_file_t *b)
{
    const char *counter;
    size_t len;
    char whole_a[512], whole_b[512];
    if (!s_find_counter(a->name, &counter, &len) || !s_find_counter(b->name, &counter, &len))
        return false;
    s_whole_name(a->name, whole_a, sizeof whole_a);
    s_whole_name(b->name, whole_b, sizeof whole_b);
    return strcmp(whole_a, whole_b) == 0;
}

// Lesser formats give way to better ones beside them: .bin to .safetensors, .gguf to anything.
// Several .gguf files are the same model at several sizes; none can be preferred.
static void
s_drop_lesser(s_file_t **folder, size_t count)
{
    bool safetensors = false, others = false;
    const s_file_t *gguf = NULL;
    bool several = false;
    for (size_t i = 0; i < count; i++) {
        const char *suffix = s_suffix(folder[i]->name);
        bool is_gguf = strcmp(suffix, ".gguf") == 0;
        safetensors = safetensors || strcmp(suffix, ".safetensors") == 0;
        others = others || !is_gguf;
        several = several || (is_gguf && gguf && !s_same_shards(gguf, folder[i]));
        gguf = is_gguf ? folder[i] : gguf;
    }
    for (size_t i = 0; i < count; i++) {
        const char *suffix = s_suffix(folder[i]->name);
        if ((strcmp(suffix, ".bin") == 0 && safetensors) ||
            (strcmp(suffix, ".gguf") == 0 && (others || several)))
            folder[i]->candidate = false;
    }
}

// Rule 4: the weights of one folder. Without an fp16 version there is nothing to choose between;
// with one, the best fitting file and its shards are it.
static void
s_pick(s_file_t **folder, size_t count)
{
    s_drop_lesser(folder, count);
    const s_file_t *best = NULL;
    bool choice = false;
    for (size_t i = 0; i < count; i++) {
        if (!folder[i]->candidate)
            continue;
        choice = choice || folder[i]->labelled_fp16;
        if (!best || folder[i]->score > best->score)
            best = folder[i];
    }
    for (size_t i = 0; i < count; i++)
        folder[i]->keep =
            folder[i]->keep || (folder[i]->candidate &&
                                (!choice || folder[i] == best || s_same_shards(best, folder[i])));
}

static int
s_by_folder(const void *a, const void *b)
{
    const s_file_t *x = *(s_file_t *const *)a, *y = *(s_file_t *const *)b;
    size_t shorter = x->folder_len < y->folder_len ? x->folder_len : y->folder_len;
    int order = memcmp(x->path, y->path, shorter);
    if (order || x->folder_len != y->folder_len)
        return order ? order : x->folder_len < y->folder_len ? -1 : 1;
    return strcmp(x->name, y->name);
}

// Calls act with the files of each folder that pass the filter.
static void
s_each_folder(s_select_t *self, bool (*filter)(const s_file_t *file),
              void (*act)(s_file_t **folder, size_t count))
{
    s_file_t **list = calloc(self->count + 1, sizeof *list);
    size_t count = 0;
    for (size_t i = 0; i < self->count; i++)
        if (filter(&self->files[i]))
            list[count++] = &self->files[i];
    qsort(list, count, sizeof *list, s_by_folder);
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && s_same_folder(list[i], list[next]); next++)
            ;
        act(list + i, next - i);
    }
    free(list);
}

static bool
s_is_candidate(const s_file_t *file)
{
    return file->candidate;
}

static bool
s_is_kept(const s_file_t *file)
{
    return file->keep;
}

// Rule 6: a config.json alone in its folder configures something that was not taken.
static void
s_drop_lone_config(s_file_t **folder, size_t count)
{
    if (count == 1 && strcmp(folder[0]->name, "config.json") == 0)
        folder[0]->keep = false;
}

static bool
s_wanted_folder(const s_select_t *self, const s_file_t *file)
{
    for (size_t i = 0; i < self->subfolder_count; i++)
        if (s_below(file->path, self->subfolders[i]))
            return true;
    return self->subfolder_count == 0;
}

// Rule 5: onnx, openvino and flax have to be there by name.
static void
s_require_variant(s_select_t *self)
{
    static const char *const named[] = {"onnx", "openvino", "flax", NULL};
    if (!s_in(self->variant, named))
        return;
    for (size_t i = 0; i < self->count; i++)
        if (self->files[i].keep && strstr(self->files[i].name, self->variant))
            return;
    for (size_t i = 0; i < self->count; i++)
        self->files[i].keep = false;
}

// Configuration files alone are not worth a download when the weights beside them fit no rule.
static void
s_require_weights(s_select_t *self)
{
    bool there = false;
    for (size_t i = 0; i < self->count; i++) {
        const s_file_t *file = &self->files[i];
        bool weights = s_in(s_suffix(file->name), s_any_weights);
        if (weights && file->keep)
            return;
        there = there || (weights && s_wanted_folder(self, file));
    }
    for (size_t i = 0; i < self->count && there; i++)
        self->files[i].keep = false;
}

static void
s_apply_rules(s_select_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        if (s_is_of_model(self->files[i].name) && s_wanted_folder(self, &self->files[i]))
            s_judge(self, &self->files[i]);
    s_each_folder(self, s_is_candidate, s_pick);
    s_require_variant(self);
    s_each_folder(self, s_is_kept, s_drop_lone_config);
    s_require_weights(self);
}

// ---------------------------------------------------------------------------------------------------
// The result

// What to say when nothing is left: name a few files that can be asked for one by one.
static lade_code_t
s_nothing(const s_select_t *self, const char *repo, const char *subfolder, lade_error_t *error)
{
    char hint[256] = "";
    size_t shown = 0, len = 0;
    bool there = !subfolder;
    for (size_t i = 0; i < self->count; i++) {
        const s_file_t *file = &self->files[i];
        there = there || s_wanted_folder(self, file);
        if (shown == 3 || !s_in(s_suffix(file->name), s_any_weights) || strlen(file->path) > 70)
            continue;
        len += (size_t)snprintf(hint + len, sizeof hint - len, "%s%s", shown++ ? ", " : "",
                                file->path);
    }
    return lade_error_set(
        error, there ? LADE_INVALID_MODEL_CONFIG : LADE_NOT_FOUND,
        "%s%s%.80s: No downloadable files found%s%s%s; %s%s%s", repo, subfolder ? "::" : "",
        subfolder ? subfolder : "",
        there ? " for the " : ", the repository has no such file or folder",
        !there           ? ""
        : *self->variant ? self->variant
                         : "default",
        there ? " variant" : "",
        shown ? "name another variant (REPO:fp32) or one file as REPO::FILE, such as "
              : "it has no weights at all",
        hint, shown == 3 ? ", …" : "");
}

static char *
s_last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strdup(slash ? slash + 1 : path);
}

// R, R_sub, R_file.ext or R_a_b: the folder or file the model is in the temporary folder.
static char *
s_top(const s_select_t *self, const char *repo)
{
    char *top = s_last_part(repo);
    for (size_t i = 0; i < self->subfolder_count || (self->single && i == 0); i++) {
        char *part = s_last_part(self->single ? self->single->path : self->subfolders[i]), *longer;
        if (asprintf(&longer, "%s_%s", top, part) < 0)
            abort();
        free(part);
        free(top);
        top = longer;
    }
    return top;
}

static char *
s_local(const s_select_t *self, const char *top, const s_file_t *file)
{
    if (self->single)
        return strdup(top);
    bool one = self->subfolder_count == 1;
    return lade_path_join(top, file->path + (one ? strlen(self->subfolders[0]) + 1 : 0));
}

static lade_code_t
s_collect(const s_select_t *self, const char *repo, const char *subfolder, lade_selection_t *out,
          lade_error_t *error)
{
    out->items = calloc(self->count + 1, sizeof *out->items);
    out->top = s_top(self, repo);
    const char *last = NULL;
    for (size_t i = 0; i < self->count; i++) {
        const s_file_t *file = &self->files[i];
        if (!file->keep || (last && strcmp(last, file->path) == 0))
            continue;
        last = file->path;
        if (lade_path_check_relative(file->path, error)) {
            if (error)
                error->code = LADE_CORRUPT;
            lade_error_wrap(error, "the hub's list of %s", repo);
            return LADE_CORRUPT;
        }
        out->items[out->count++] =
            (lade_pick_t){.index = file->index, .local = s_local(self, out->top, file)};
    }
    lade_code_t code = out->count ? lade_path_check_name(out->top, error)
                                  : s_nothing(self, repo, subfolder, error);
    return code;
}

static int
s_by_path(const void *a, const void *b)
{
    return strcmp(((const s_file_t *)a)->path, ((const s_file_t *)b)->path);
}

static void
s_take_apart(s_select_t *self, const char *const *paths, size_t count)
{
    self->files = calloc(count + 1, sizeof *self->files);
    self->count = count;
    for (size_t i = 0; i < count; i++) {
        const char *slash = strrchr(paths[i], '/');
        self->files[i] = (s_file_t){.index = i,
                                    .path = paths[i],
                                    .name = slash ? slash + 1 : paths[i],
                                    .folder_len = slash ? (size_t)(slash - paths[i]) : 0};
    }
    qsort(self->files, count, sizeof *self->files, s_by_path);
}

// The subfolder may name one file; then that is all. Else it names folders.
static void
s_read_subfolder(s_select_t *self, const char *subfolder)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp(self->files[i].path, subfolder) == 0) {
            self->single = &self->files[i];
            self->files[i].keep = true;
            return;
        }
    char *save = NULL;
    self->subfolder_text = strdup(subfolder);
    for (char *part = strtok_r(self->subfolder_text, "+", &save);
         part && self->subfolder_count < S_MAX_SUBFOLDERS; part = strtok_r(NULL, "+", &save)) {
        part += strspn(part, " /");
        size_t len = strlen(part);
        while (len > 0 && strchr(" /", part[len - 1]))
            part[--len] = '\0';
        if (len > 0)
            self->subfolders[self->subfolder_count++] = part;
    }
}

lade_code_t
lade_select_files(const char *const *paths, size_t count, const char *repo, const char *variant,
                  const char *subfolder, lade_selection_t *selection, lade_error_t *error)
{
    *selection = (lade_selection_t){0};
    s_select_t self = {.variant = variant};
    s_take_apart(&self, paths, count);
    if (subfolder)
        s_read_subfolder(&self, subfolder);
    if (!self.single)
        s_apply_rules(&self);
    lade_code_t code = s_collect(&self, repo, subfolder, selection, error);
    free(self.files);
    free(self.subfolder_text);
    return code;
}

void
lade_select_free(lade_selection_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->items[i].local);
    free(self->items);
    free(self->top);
    *self = (lade_selection_t){0};
}
