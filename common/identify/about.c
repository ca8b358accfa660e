// What the metadata, the tensors and the files beside a model say of it. All of it is from
// strangers: texts are cut to what a record takes, and nothing is believed that decides what the
// model is.
#include "common/identify/about.h"

#include "common/path.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    S_MAX_WORD = 512, // of a name, a tag, a phrase
    S_MAX_TEXT = 16 << 10,
    S_MAX_PHRASES = 100,
    S_MAX_TAGS = 20, // of the most frequent ones a LoRA was trained on
    S_MAX_SIDECAR = 1 << 20,
};

// ---------------------------------------------------------------------------------------------------
// Texts from strangers

// The text without blanks around it, cut to at most max bytes between characters; NULL if nothing
// is left. New.
static json_t *
s_text(const char *text, size_t len, size_t max)
{
    while (len > 0 && isspace((unsigned char)*text))
        text++, len--;
    len = len > max ? max : len;
    while (len > 0 && len < strlen(text) && ((unsigned char)text[len] & 0xc0) == 0x80)
        len--;
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        len--;
    return len > 0 ? json_stringn(text, len) : NULL;
}

static const char *
s_said(const json_t *metadata, const char *name)
{
    const json_t *value = json_object_get(metadata, name);
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) && strcmp(text, "None") != 0 ? text
                                                                                          : NULL;
}

static void
s_set_new(json_t *map, const char *field, json_t *value)
{
    if (value && !json_object_get(map, field))
        json_object_set_new(map, field, value);
    else
        json_decref(value);
}

// The parts of a text between commas, each once.
static json_t *
s_phrases(const char *text)
{
    json_t *list = json_array();
    while (*text && json_array_size(list) < S_MAX_PHRASES) {
        size_t len = strcspn(text, ",\n");
        json_t *phrase = s_text(text, len, S_MAX_WORD);
        bool known = !phrase;
        for (size_t i = 0; i < json_array_size(list) && !known; i++)
            known = json_equal(json_array_get(list, i), phrase);
        if (!known)
            json_array_append(list, phrase);
        json_decref(phrase);
        text += len + (text[len] != '\0');
    }
    if (json_array_size(list))
        return list;
    json_decref(list);
    return NULL;
}

// A model of a type that no words call has no trigger phrases.
static bool
s_is_called(const json_t *found)
{
    static const char *const types[] = {"main", "lora", "control_lora", "embedding"};
    const char *type = json_string_value(json_object_get(found, "type"));
    for (size_t i = 0; type && i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

// ---------------------------------------------------------------------------------------------------
// Metadata

// ModelSpec, and what GGUF has for it: the first that is there counts.
static const struct {
    const char *name, *field;
    size_t max; // 0: a list
} s_entries[] = {
    {"modelspec.title", "title", S_MAX_WORD},
    {"general.name", "title", S_MAX_WORD},
    {"ss_output_name", "title", S_MAX_WORD},
    {"modelspec.description", "description", S_MAX_TEXT},
    {"general.description", "description", S_MAX_TEXT},
    {"modelspec.author", "author", S_MAX_WORD},
    {"general.author", "author", S_MAX_WORD},
    {"modelspec.license", "license", S_MAX_TEXT},
    {"general.license", "license", S_MAX_TEXT},
    {"modelspec.usage_hint", "usage_hint", S_MAX_TEXT},
    {"modelspec.resolution", "resolution", 32},
    {"modelspec.tags", "tags", 0},
    {"modelspec.trigger_phrase", "trigger_phrases", 0},
};

static void
s_add_entries(const json_t *metadata, json_t *found)
{
    for (size_t i = 0; i < sizeof s_entries / sizeof *s_entries; i++) {
        const char *text = s_said(metadata, s_entries[i].name), *field = s_entries[i].field;
        if (!text || (strcmp(field, "trigger_phrases") == 0 && !s_is_called(found)))
            continue;
        s_set_new(found, field,
                  s_entries[i].max ? s_text(text, strlen(text), s_entries[i].max)
                                   : s_phrases(text));
    }
}

typedef enum { S_WORD, S_NUMBER } s_kind_t;

// How it was trained, by kohya's trainers and by the specification.
static const struct {
    const char *name, *field;
    s_kind_t kind;
} s_training[] = {
    {"ss_base_model_version", "base_model_version", S_WORD},
    {"ss_sd_model_name", "base_model", S_WORD},
    {"ss_network_module", "network_module", S_WORD},
    {"ss_network_dim", "network_dim", S_NUMBER},
    {"ss_network_alpha", "network_alpha", S_NUMBER},
    {"ss_resolution", "resolution", S_WORD},
    {"ss_num_train_images", "images", S_NUMBER},
    {"ss_num_epochs", "epochs", S_NUMBER},
    {"ss_epoch", "epoch", S_NUMBER},
    {"ss_steps", "steps", S_NUMBER},
    {"ss_max_train_steps", "max_steps", S_NUMBER},
    {"ss_clip_skip", "clip_skip", S_NUMBER},
    {"ss_learning_rate", "learning_rate", S_NUMBER},
    {"ss_unet_lr", "unet_learning_rate", S_NUMBER},
    {"ss_text_encoder_lr", "text_encoder_learning_rate", S_NUMBER},
    {"ss_optimizer", "optimizer", S_WORD},
    {"ss_lr_scheduler", "scheduler", S_WORD},
    {"ss_seed", "seed", S_NUMBER},
    {"ss_training_comment", "comment", S_WORD},
    {"modelspec.date", "date", S_WORD},
    {"modelspec.architecture", "architecture", S_WORD},
    {"modelspec.prediction_type", "prediction_type", S_WORD},
    {"modelspec.merged_from", "merged_from", S_WORD},
    {"modelspec.encoder_layer", "encoder_layer", S_NUMBER},
    {"modelspec.timestep_range", "timestep_range", S_WORD},
};

// A number as a number, as long as it is one; else the text.
static json_t *
s_number(const char *text)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || number - number != 0)
        return s_text(text, strlen(text), S_MAX_WORD);
    bool whole = number == (double)(json_int_t)number && number > -1e15 && number < 1e15 &&
                 !strpbrk(text, ".eExX");
    return whole ? json_integer((json_int_t)number) : json_real(number);
}

typedef struct {
    const char *tag;
    json_int_t count;
} s_tag_t;

static int
s_by_count(const void *a, const void *b)
{
    const s_tag_t *one = a, *other = b;
    return one->count != other->count ? (one->count < other->count ? 1 : -1)
                                      : strcmp(one->tag, other->tag);
}

// ss_tag_frequency is {folder: {tag: count}} as JSON in a text: the tags most images have.
static json_t *
s_frequent_tags(const char *text)
{
    json_t *folders = json_loads(text, 0, NULL), *sums = json_object(), *tags, *count;
    json_t *list = json_array();
    const char *folder, *tag;
    json_object_foreach(json_is_object(folders) ? folders : NULL, folder, tags)
        json_object_foreach(json_is_object(tags) ? tags : NULL, tag, count)
    {
        json_int_t sum = json_integer_value(json_object_get(sums, tag)), more;
        more =
            json_is_integer(count) && json_integer_value(count) > 0 ? json_integer_value(count) : 0;
        if (!__builtin_add_overflow(sum, more, &sum))
            json_object_set_new(sums, tag, json_integer(sum));
    }
    size_t n = 0;
    s_tag_t *all = calloc(json_object_size(sums) + 1, sizeof *all);
    json_object_foreach(sums, tag, count) if (all) all[n++] =
        (s_tag_t){tag, json_integer_value(count)};
    if (n)
        qsort(all, n, sizeof *all, s_by_count);
    for (size_t i = 0; i < n && i < S_MAX_TAGS; i++) {
        json_t *word = s_text(all[i].tag, strlen(all[i].tag), S_MAX_WORD);
        if (word)
            json_array_append_new(list, word);
    }
    free(all);
    json_decref(sums);
    json_decref(folders);
    return list;
}

static void
s_add_training(const json_t *metadata, json_t *found)
{
    json_t *training = json_object();
    for (size_t i = 0; i < sizeof s_training / sizeof *s_training; i++) {
        const char *text = s_said(metadata, s_training[i].name);
        if (text)
            s_set_new(training, s_training[i].field,
                      s_training[i].kind == S_NUMBER ? s_number(text)
                                                     : s_text(text, strlen(text), S_MAX_WORD));
    }
    const char *tags = s_said(metadata, "ss_tag_frequency");
    json_t *frequent = tags ? s_frequent_tags(tags) : NULL;
    if (json_array_size(frequent))
        json_object_set(training, "tags", frequent);
    json_decref(frequent);
    if (json_object_size(training))
        json_object_set(found, "training", training);
    json_decref(training);
}

// ---------------------------------------------------------------------------------------------------
// Preview images

// "data:image/jpeg;base64,…": what it is and how large, without a copy of it.
static json_t *
s_embedded(const char *uri)
{
    static const char *const kinds[] = {"image/jpeg", "image/png", "image/webp", "image/gif"};
    if (!uri || strncmp(uri, "data:", 5) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t len = strlen(kinds[i]);
        if (strncmp(uri + 5, kinds[i], len) != 0 || strncmp(uri + 5 + len, ";base64,", 8) != 0)
            continue;
        size_t coded = strlen(uri + 5 + len + 8);
        return json_pack("{s:s, s:s, s:I}", "from", "modelspec.thumbnail", "media_type", kinds[i],
                         "size", (json_int_t)(coded / 4 * 3));
    }
    return NULL;
}

// The file of the same name with another suffix, NULL if there is none.
static char *
s_beside(const lade_subject_t *subject, const char *suffix)
{
    const char *path = subject->path, *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    int len = dot && dot > (slash ? slash + 1 : path) ? (int)(dot - path) : (int)strlen(path);
    char *whole = NULL;
    struct stat st;
    if (asprintf(&whole, "%.*s%s", len, path, suffix) < 0)
        abort();
    if (stat(whole, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        return whole;
    free(whole);
    return NULL;
}

static void
s_add_preview(const lade_subject_t *subject, const json_t *metadata, json_t *found)
{
    static const struct {
        const char *suffix, *kind;
    } rows[] = {{".png", "image/png"},         {".jpg", "image/jpeg"},
                {".jpeg", "image/jpeg"},       {".webp", "image/webp"},
                {".preview.png", "image/png"}, {".preview.jpg", "image/jpeg"}};
    json_t *preview = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !preview; i++) {
        char *path = s_beside(subject, rows[i].suffix);
        if (path)
            preview =
                json_pack("{s:s, s:s, s:s, s:I}", "from", "beside", "path", path, "media_type",
                          rows[i].kind, "size", (json_int_t)lade_path_size(path));
        free(path);
    }
    s_set_new(found, "preview",
              preview ? preview : s_embedded(s_said(metadata, "modelspec.thumbnail")));
}

// ---------------------------------------------------------------------------------------------------
// The note that user interfaces keep beside a LoRA

static void
s_add_sidecar(const lade_subject_t *subject, json_t *found)
{
    char *path = s_beside(subject, ".json"), *text = NULL, *joined = NULL;
    size_t len = 0;
    const char *said = "", *notes = "", *words = "";
    double weight = 0;
    json_t *note = path && !lade_path_read(path, S_MAX_SIDECAR, &text, &len, NULL)
                       ? json_loadb(text, len, 0, NULL)
                       : NULL;
    if (json_is_object(note)) {
        json_unpack(note, "{s?s, s?s, s?s, s?F}", "description", &said, "notes", &notes,
                    "activation text", &words, "preferred weight", &weight);
        if (asprintf(&joined, "%s%s%s", said, *said && *notes ? " | " : "", notes) < 0)
            abort();
        s_set_new(found, "description", s_text(joined, strlen(joined), S_MAX_TEXT));
        s_set_new(found, "trigger_phrases", s_phrases(words));
        if (weight > -100 && weight < 100 && weight != 0)
            s_set_new(found, "default_settings", json_pack("{s:f}", "weight", weight));
    }
    json_decref(note);
    free(joined);
    free(text);
    free(path);
}

// ---------------------------------------------------------------------------------------------------
// Tensors

static bool
s_begins(const char *text, const char *head)
{
    return strncmp(text, head, strlen(head)) == 0;
}

// A copy of the weights beside the weights, or what says how to unpack them.
static bool
s_is_aside(const char *name)
{
    static const char *const parts[] = {".quant_state.", ".absmax", ".quant_map", ".nested_"};
    if (s_begins(name, "model_ema."))
        return true;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i]))
            return true;
    return false;
}

// The type most of the numbers are of, as people call it.
static const char *
s_precision(const uint64_t counts[LADE_DTYPE_COUNT])
{
    static const struct {
        lade_dtype_t dtype;
        const char *name;
    } rows[] = {{LADE_DTYPE_F64, "fp64"},
                {LADE_DTYPE_F32, "fp32"},
                {LADE_DTYPE_F16, "fp16"},
                {LADE_DTYPE_BF16, "bf16"},
                {LADE_DTYPE_F8_E4M3, "fp8_e4m3fn"},
                {LADE_DTYPE_F8_E5M2, "fp8_e5m2"},
                {LADE_DTYPE_I8, "int8"},
                {LADE_DTYPE_U8, "uint8"}};
    size_t most = 0;
    for (size_t i = 1; i < LADE_DTYPE_COUNT; i++)
        most = counts[i] > counts[most] ? i : most;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].dtype == (lade_dtype_t)most)
            return rows[i].name;
    return lade_dtype_name((lade_dtype_t)most);
}

static uint64_t
s_elements(const lade_tensor_t *tensor)
{
    uint64_t count = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(count, tensor->shape[i], &count))
            return 0;
    return count;
}

// How many numbers there are, of which type most; of a pipeline only the type.
static void
s_add_numbers(const lade_tensors_t *tensors, bool whole, json_t *found)
{
    uint64_t counts[LADE_DTYPE_COUNT] = {0}, sum = 0;
    const char *format = json_string_value(json_object_get(found, "format"));
    bool packed = format && strcmp(format, "bnb_quantized_nf4b") == 0; // two numbers a byte
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        const lade_tensor_t *tensor = lade_tensors_get(tensors, i);
        uint64_t count = s_is_aside(tensor->name) ? 0 : s_elements(tensor);
        count *= packed && tensor->dtype == LADE_DTYPE_U8 ? 2 : 1;
        counts[tensor->dtype] += count;
        sum += count;
    }
    if (sum == 0 || sum > (1ull << 52))
        return;
    s_set_new(found, "precision", json_string(packed ? "nf4" : s_precision(counts)));
    if (whole)
        s_set_new(found, "parameters", json_integer((json_int_t)sum));
}

// Training keeps a smoothed copy of the weights; its two counters alone are none.
static void
s_add_ema(const lade_tensors_t *tensors, json_t *found)
{
    size_t copies = 0;
    const json_t *wrapper = lade_tensors_value(tensors, "__wrapper__");
    for (size_t i = 0; i < lade_tensors_count(tensors); i++)
        copies += s_begins(lade_tensors_get(tensors, i)->name, "model_ema.");
    bool smoothed = json_is_string(wrapper) && strstr(json_string_value(wrapper), "ema");
    const char *type = json_string_value(json_object_get(found, "type"));
    const char *format = json_string_value(json_object_get(found, "format"));
    bool asked = type && format && strcmp(type, "main") == 0 && strcmp(format, "checkpoint") == 0;
    if (copies > 2 || smoothed || asked)
        s_set_new(found, "ema", json_boolean(copies > 2 || smoothed));
}

// ---------------------------------------------------------------------------------------------------

static const lade_tensors_t *
s_weights(lade_subject_t *subject, bool *whole_p)
{
    static const char *const folders[] = {"unet", "transformer"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (lade_subject_has(subject, folders[i])) {
            *whole_p = false;
            return lade_subject_weights(subject, folders[i]);
        }
    *whole_p = true;
    return lade_subject_weights(subject, ".");
}

void
lade_about_add(lade_subject_t *subject, json_t *found)
{
    bool whole = true;
    const lade_tensors_t *tensors = subject->folder ? s_weights(subject, &whole) : subject->tensors;
    const json_t *metadata = tensors ? lade_tensors_metadata(tensors) : NULL;
    const char *type = json_string_value(json_object_get(found, "type"));
    if (tensors)
        s_add_numbers(tensors, whole, found);
    if (!subject->folder) {
        if (type && strcmp(type, "lora") == 0)
            s_add_sidecar(subject, found);
        s_add_preview(subject, metadata, found);
        s_add_ema(tensors, found);
        s_set_new(found, "requires", lade_about_requires(tensors, found));
    }
    s_add_entries(metadata, found);
    s_add_training(metadata, found);
}
