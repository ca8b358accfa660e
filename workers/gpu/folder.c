// Sorting a folder's weight files into sets, and choosing one.
#include "workers/gpu/folder.h"

#include "common/formats/json_file.h"
#include "common/path.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { S_MAX_INDEX = 64 << 20 };

// Best first: in each list what comes earlier wins.
static const char *const s_suffixes[] = {".safetensors", ".bin",  ".pth", ".pt",
                                         ".ckpt",        ".gguf", NULL};
static const char *const s_stems[] = {"diffusion_pytorch_model",
                                      "model",
                                      "pytorch_model",
                                      "pytorch_lora_weights",
                                      "learned_embeds",
                                      "ip_adapter",
                                      NULL};
static const char *const s_variants[] = {"fp16", "bf16", "fp32",    "fp8",
                                         "8bit", "ema",  "non_ema", NULL};

// "STEM[.VARIANT][-NNNNN-of-NNNNN].SUFFIX", or with the variant after the numbers.
typedef struct {
    char name[256];
    char stem[256];
    const char *variant; // of s_variants, "" for none
    size_t suffix;       // index into s_suffixes
    unsigned shard, shards;
} s_weight_t;

typedef struct {
    s_weight_t *items;
    size_t count;
} s_weights_t;

static size_t
s_rank(const char *const *list, const char *text)
{
    size_t i = 0;
    while (list[i] && strcmp(list[i], text))
        i++;
    return i;
}

static bool
s_ends(const char *text, const char *tail)
{
    size_t len = strlen(text), tail_len = strlen(tail);
    return len > tail_len && !strcmp(text + len - tail_len, tail);
}

// Cuts ".VARIANT" off the end of the stem, if it is one of those known.
static void
s_cut_variant(s_weight_t *weight)
{
    char *dot = strrchr(weight->stem, '.');
    size_t rank = dot && dot != weight->stem ? s_rank(s_variants, dot + 1) : 0;
    if (!dot || dot == weight->stem || !s_variants[rank])
        return;
    weight->variant = s_variants[rank];
    *dot = '\0';
}

// Cuts "-NNNNN-of-NNNNN" off the end of the stem.
static void
s_cut_shard(s_weight_t *weight)
{
    char *of = strstr(weight->stem, "-of-");
    char *dash = of;
    while (dash && dash > weight->stem && dash[-1] >= '0' && dash[-1] <= '9')
        dash--;
    if (!of || dash == of || dash - weight->stem < 2 || dash[-1] != '-')
        return;
    int used = 0;
    if (sscanf(dash, "%9u-of-%9u%n", &weight->shard, &weight->shards, &used) == 2 && !dash[used] &&
        weight->shards)
        dash[-1] = '\0';
    else
        weight->shard = weight->shards = 0;
}

// What a file's name says; false if it is no weight file.
static bool
s_parse(const char *name, s_weight_t *weight)
{
    *weight = (s_weight_t){.variant = ""};
    while (s_suffixes[weight->suffix] && !s_ends(name, s_suffixes[weight->suffix]))
        weight->suffix++;
    if (name[0] == '.' || !s_suffixes[weight->suffix])
        return false;
    snprintf(weight->name, sizeof weight->name, "%s", name);
    snprintf(weight->stem, sizeof weight->stem, "%.*s",
             (int)(strlen(name) - strlen(s_suffixes[weight->suffix])), name);
    s_cut_variant(weight);
    s_cut_shard(weight);
    if (!*weight->variant)
        s_cut_variant(weight);
    return true;
}

static lade_code_t
s_list(const char *folder, s_weights_t *weights, lade_error_t *error)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return lade_error_errno(error, errno, "cannot read %s", folder);
    struct dirent *entry;
    lade_code_t code = LADE_OK;
    while (!code && (entry = readdir(dir))) {
        s_weight_t weight;
        if (!s_parse(entry->d_name, &weight))
            continue;
        s_weight_t *items = realloc(weights->items, (weights->count + 1) * sizeof *items);
        if (!items || weights->count == LADE_FILES_MAX)
            code = lade_error_set(error, items ? LADE_TOO_LARGE : LADE_NO_MEMORY,
                                  "%s holds over %d weight files", folder, (int)LADE_FILES_MAX);
        weights->items = items ? items : weights->items;
        if (!code)
            weights->items[weights->count++] = weight;
    }
    closedir(dir);
    return code;
}

// How far a variant is from the one wanted: it, the default one, then the others in their order.
static size_t
s_variant_rank(const char *variant, const char *wanted)
{
    if (!strcmp(variant, wanted))
        return 0;
    return *variant ? 2 + s_rank(s_variants, variant) : 1;
}

static int
s_compare_size(size_t a, size_t b)
{
    return a < b ? -1 : a > b;
}

// Less than 0 if a's set is to be taken rather than b's, 0 if both are of one set.
static int
s_compare(const s_weight_t *a, const s_weight_t *b, const char *wanted)
{
    int order = s_compare_size(a->suffix, b->suffix);
    if (!order)
        order =
            s_compare_size(s_variant_rank(a->variant, wanted), s_variant_rank(b->variant, wanted));
    if (!order)
        order = s_compare_size(s_rank(s_stems, a->stem), s_rank(s_stems, b->stem));
    if (!order)
        order = strcmp(a->stem, b->stem);
    return order ? order : s_compare_size(a->shards, b->shards); // whole before shards
}

static int
s_by_name(const void *a, const void *b)
{
    return strcmp(((const s_weight_t *)a)->name, ((const s_weight_t *)b)->name);
}

// Moves the best set to the front, in order of names, and cuts the others off.
static void
s_keep_best(s_weights_t *weights, const char *wanted)
{
    const s_weight_t *best = &weights->items[0];
    for (size_t i = 1; i < weights->count; i++)
        if (s_compare(&weights->items[i], best, wanted) < 0)
            best = &weights->items[i];
    s_weight_t chosen = *best;
    size_t kept = 0;
    for (size_t i = 0; i < weights->count; i++)
        if (!s_compare(&weights->items[i], &chosen, wanted))
            weights->items[kept++] = weights->items[i];
    weights->count = kept;
    qsort(weights->items, kept, sizeof *weights->items, s_by_name);
}

static lade_code_t
s_check_whole(const char *folder, const s_weights_t *weights, lade_error_t *error)
{
    for (size_t i = 0; i < weights->count; i++) {
        const s_weight_t *weight = &weights->items[i];
        if (weight->shards && (weight->shard != i + 1 || weights->count != weight->shards))
            return lade_error_set(
                error, LADE_MODEL_NOT_FOUND,
                "%s: %zu of %u shards of %s are there: put the others back or install it again",
                folder, weights->count, weight->shards, weight->stem);
    }
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// An index: {"weight_map": {tensor: file}}

static int
s_by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static lade_code_t
s_add_indexed(const char *folder, const json_t *index, lade_files_t *files, lade_error_t *error)
{
    const char *tensor;
    json_t *file, *seen = json_object();
    lade_code_t code = LADE_OK;
    size_t first = files->count;
    json_object_foreach(json_object_get(index, "weight_map"), tensor, file)
    {
        const char *name = json_string_value(file);
        if (!name || (code = lade_path_check_name(name, error))) {
            code = lade_error_set(error, LADE_CORRUPT,
                                  "%s: the index names a file that cannot be one", folder);
            break;
        }
        if (json_object_get(seen, name))
            continue;
        json_object_set_new(seen, name, json_true());
        if ((code = lade_files_add(files, folder, name, error)))
            break;
    }
    json_decref(seen);
    if (files->count > first)
        qsort(files->paths + first, files->count - first, sizeof *files->paths, s_by_text);
    return code;
}

// An index counts where names alone do not show what belongs together: *used_p is then true.
static lade_code_t
s_use_index(const char *folder, const s_weight_t *chosen, bool *used_p, lade_files_t *files,
            lade_error_t *error)
{
    *used_p = false;
    if (chosen->shards || s_stems[s_rank(s_stems, chosen->stem)] || chosen->suffix)
        return LADE_OK;
    for (size_t i = 0; s_stems[i] && !*used_p; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.safetensors.index.json", s_stems[i]);
        char *path = lade_path_join(folder, name);
        json_t *index = NULL;
        lade_code_t code = lade_json_file_read(path, S_MAX_INDEX, &index, error);
        free(path);
        *used_p = !code;
        if (!code)
            code = s_add_indexed(folder, index, files, error);
        json_decref(index);
        if (code && code != LADE_NOT_FOUND)
            return code;
    }
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------

lade_code_t
lade_files_add(lade_files_t *self, const char *folder, const char *name, lade_error_t *error)
{
    if (self->count == LADE_FILES_MAX)
        return lade_error_set(error, LADE_TOO_LARGE, "%s holds over %d weight files", folder,
                              (int)LADE_FILES_MAX);
    char **paths = realloc(self->paths, (self->count + 1) * sizeof *paths);
    if (!paths)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a list of files");
    self->paths = paths;
    self->paths[self->count++] = lade_path_join(folder, name);
    return LADE_OK;
}

void
lade_files_free(lade_files_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free(self->paths[i]);
    free(self->paths);
    *self = (lade_files_t){0};
}

static lade_code_t
s_add_chosen(const char *folder, const s_weights_t *weights, lade_files_t *files,
             lade_error_t *error)
{
    bool indexed = false;
    lade_code_t code = s_use_index(folder, &weights->items[0], &indexed, files, error);
    if (code || indexed)
        return code;
    code = s_check_whole(folder, weights, error);
    for (size_t i = 0; !code && i < weights->count; i++)
        code = lade_files_add(files, folder, weights->items[i].name, error);
    return code;
}

lade_code_t
lade_folder_weights(const char *folder, const char *variant, lade_files_t *files,
                    lade_error_t *error)
{
    s_weights_t weights = {0};
    lade_code_t code = s_list(folder, &weights, error);
    if (!code && weights.count) {
        s_keep_best(&weights, variant);
        code = s_add_chosen(folder, &weights, files, error);
    }
    free(weights.items);
    return code;
}
