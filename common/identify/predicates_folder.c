// The named predicates over folders: which files are there, and what they say of each other.
#include "common/identify/predicates_read.h"

#include "common/formats/json_file.h"
#include "common/path.h"

#include <fnmatch.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
s_ends(const char *text, const char *tail)
{
    size_t len = strlen(text), n = strlen(tail);
    return len >= n && strcmp(text + len - n, tail) == 0;
}

enum { S_MAX_WALK = 20000, S_MAX_DEPTH = 6, S_MAX_NOTE = 4096, S_MAX_ID = 512 };

static const struct {
    const char *variant;
    const char *mark;
} s_variants[] = {
    {"fp16", ".fp16."}, {"openvino", "openvino_model"}, {"flax", "flax_model"}, {"onnx", ".onnx"}};
enum { S_VARIANTS = sizeof s_variants / sizeof *s_variants };

static bool
s_is_weight(const char *name)
{
    return s_ends(name, ".safetensors") || s_ends(name, ".bin") || s_ends(name, ".onnx") ||
           s_ends(name, ".msgpack");
}

// Which hub variant the weights of a folder are: the first in the table that any file is.
json_t *
lade_predicate_repo_variant(lade_subject_t *subject)
{
    char *roots[] = {subject->path, NULL};
    size_t best = S_VARIANTS, seen = 0;
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; fts && seen++ < S_MAX_WALK && (entry = fts_read(fts));) {
        if (entry->fts_level > S_MAX_DEPTH)
            fts_set(fts, entry, FTS_SKIP);
        if (entry->fts_info != FTS_F && entry->fts_info != FTS_SL && entry->fts_info != FTS_SLNONE)
            continue;
        for (size_t i = 0; i < best && s_is_weight(entry->fts_name); i++)
            if (strstr(entry->fts_name, s_variants[i].mark))
                best = i;
    }
    if (fts)
        fts_close(fts);
    return json_string(best < S_VARIANTS ? s_variants[best].variant : "");
}

// ---------------------------------------------------------------------------------------------------
// The parts of a pipeline

// What a part of a class is by itself, and whether its folder has to hold weights.
static const struct {
    const char *class; // a pattern
    const char *type;  // NULL: no model of its own
    bool weights;
} s_parts[] = {
    // clang-format off
    {"UNet2DConditionModel",                  "main",             true},
    {"*Transformer*Model",                    "main",             true},
    {"Autoencoder*",                          "vae",              true},
    {"CLIPTextModel*",                        "clip_embed",       true},
    {"CLIPVisionModel*",                      "clip_vision",      true},
    {"T5EncoderModel",                        "t5_encoder",       true},
    {"UMT5EncoderModel",                      "wan_t5_encoder",   true},
    {"Qwen3ForCausalLM",                      "qwen3_encoder",    true},
    {"Qwen3Model",                            "qwen3_encoder",    true},
    {"Qwen2_5_VL*",                           "qwen_vl_encoder",  true},
    {"Qwen2VL*",                              "qwen_vl_encoder",  true},
    {"Qwen3VL*",                              "qwen3_vl_encoder", true},
    {"Mistral*",                              "mistral_encoder",  true},
    {"ControlNetModel",                       "controlnet",       true},
    {"StableDiffusionSafetyChecker",          NULL,               true},
    // clang-format on
};

static int
s_part(const char *class)
{
    for (size_t i = 0; i < sizeof s_parts / sizeof *s_parts; i++)
        if (fnmatch(s_parts[i].class, class, 0) == 0)
            return (int)i;
    return -1;
}

static bool
s_has_weights(const lade_subject_t *subject, const char *part)
{
    char *folder = lade_path_join(subject->path, part), *roots[] = {folder, NULL};
    bool found = false;
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; fts && !found && (entry = fts_read(fts));) {
        if (entry->fts_level > 1)
            fts_set(fts, entry, FTS_SKIP);
        bool file = entry->fts_info == FTS_F || entry->fts_info == FTS_SL;
        found = file && (s_is_weight(entry->fts_name) || s_ends(entry->fts_name, ".gguf"));
    }
    if (fts)
        fts_close(fts);
    free(folder);
    return found;
}

// The part's folder is there and holds what the index says: its own config names the same class (a
// tokenizer's or scheduler's may name none), and a network has weights.
static bool
s_is_there(lade_subject_t *subject, const char *part, const char *class)
{
    char config[200];
    snprintf(config, sizeof config, "%.150s/config.json", part);
    const json_t *own = lade_subject_config(subject, config);
    const char *said = lade_json_file_class(own);
    int row = s_part(class);
    bool network = row >= 0 && s_parts[row].weights;
    if (!lade_subject_has(subject, part) || lade_path_check_name(part, NULL))
        return false;
    return network ? own && (!said || strcmp(said, class) == 0) && s_has_weights(subject, part)
                   : true;
}

// CLIP's two sizes are variants of its class.
static void
s_add_variant(lade_subject_t *subject, const char *part, json_t *found)
{
    char config[200];
    snprintf(config, sizeof config, "%.150s/config.json", part);
    json_int_t width =
        json_integer_value(json_object_get(lade_subject_config(subject, config), "hidden_size"));
    if (width == 768 || width == 1280)
        json_object_set_new(found, "variant", json_string(width == 768 ? "large" : "gigantic"));
}

static json_t *
s_submodel(lade_subject_t *subject, const char *part, const char *library, const char *class)
{
    json_t *found =
        json_pack("{ss ss ss}", "library", library, "class", class, "path_or_prefix", part);
    int row = s_part(class);
    if (found && row >= 0 && s_parts[row].type) {
        json_object_set_new(found, "model_type", json_string(s_parts[row].type));
        if (strcmp(s_parts[row].type, "clip_embed") == 0)
            s_add_variant(subject, part, found);
    }
    return found;
}

// {"unet": {"library": "diffusers", "class": "UNet2DConditionModel", …}, …} of model_index.json.
json_t *
lade_predicate_submodels(lade_subject_t *subject)
{
    const json_t *index = lade_subject_config(subject, "model_index.json");
    json_t *found = json_object(), *value;
    const char *name;
    json_object_foreach((json_t *)index, name, value)
    {
        const char *library = json_string_value(json_array_get(value, 0));
        const char *class = json_string_value(json_array_get(value, 1));
        if (name[0] != '_' && json_array_size(value) == 2 && library && class &&
            s_is_there(subject, name, class))
            json_object_set_new(found, name, s_submodel(subject, name, library, class));
    }
    if (json_object_size(found))
        return found;
    json_decref(found);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// All weights of a folder are there

static bool
s_shards_are_there(lade_subject_t *subject, const char *folder, const json_t *index)
{
    const char *tensor;
    const json_t *map = json_object_get(index, "weight_map");
    json_t *file, *seen = json_object();
    bool there = json_object_size(map) > 0;
    json_object_foreach((json_t *)map, tensor, file)
    {
        const char *name = json_string_value(file);
        char *path =
            name && !lade_path_check_name(name, NULL) ? lade_path_join(folder, name) : NULL;
        there = there && path && (json_object_get(seen, name) || lade_subject_has(subject, path));
        if (path)
            json_object_set_new(seen, name, json_true());
        free(path);
    }
    json_decref(seen);
    return there;
}

static bool
s_all_are_there(lade_subject_t *subject, const char *folder)
{
    static const char *const files[] = {"model.safetensors", "pytorch_model.bin"};
    bool there = false;
    for (size_t i = 0; i < sizeof files / sizeof *files && !there; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        there = lade_subject_has(subject, path);
        snprintf(path, sizeof path, "%s/%s.index.json", folder, files[i]);
        there = there || s_shards_are_there(subject, folder, lade_subject_config(subject, path));
    }
    return there;
}

// Of a transformers model, in the folder itself or in its text_encoder.
json_t *
lade_predicate_weights(lade_subject_t *subject)
{
    bool nested = lade_subject_has(subject, "text_encoder");
    return s_all_are_there(subject, nested ? "text_encoder" : ".") ? json_true() : NULL;
}

// ---------------------------------------------------------------------------------------------------
// ONNX: what the graph of the U-Net takes

// A dimension of one of its inputs, if it is a number.
static json_t *
s_input_dim(lade_subject_t *subject, const char *input, size_t axis)
{
    const lade_subject_t *graph = lade_subject_inside(subject, "unet/model.onnx");
    const json_t *inputs =
        graph ? json_object_get(lade_tensors_metadata(graph->tensors), "inputs") : NULL;
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        const json_t *port = json_array_get(inputs, i);
        const char *name = json_string_value(json_object_get(port, "name"));
        json_t *dim = json_array_get(json_object_get(port, "shape"), axis);
        if (name && strcmp(name, input) == 0)
            return json_is_integer(dim) ? json_incref(dim) : NULL;
    }
    return NULL;
}

json_t *
lade_predicate_onnx_text_width(lade_subject_t *subject)
{
    return s_input_dim(subject, "encoder_hidden_states", 2);
}

json_t *
lade_predicate_onnx_channels(lade_subject_t *subject)
{
    return s_input_dim(subject, "sample", 1);
}

// The image encoder an IP-Adapter goes with: the first line of image_encoder.txt.
json_t *
lade_predicate_image_encoder(lade_subject_t *subject)
{
    char *path = lade_path_join(subject->path, "image_encoder.txt"), *text = NULL;
    size_t len = 0;
    json_t *line = NULL;
    if (!lade_path_read(path, S_MAX_NOTE, &text, &len, NULL)) {
        size_t start = strspn(text, " \t"), size = strcspn(text + start, "\r\n");
        while (size > 0 && (text[start + size - 1] == ' ' || text[start + size - 1] == '\t'))
            size--;
        line = size > 0 && size <= S_MAX_ID ? json_stringn(text + start, size) : NULL;
    }
    free(text);
    free(path);
    return line;
}
