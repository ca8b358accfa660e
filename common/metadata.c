// The answers of hubs as metadata: one table of kinds and fields.
#include "common/metadata.h"

#include "common/buf.h"
#include "common/wire.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum { S_TEXT, S_TEXTS, S_MAP, S_SWITCH, S_INTEGER, S_DATE } s_type_t;

enum {
    S_MAX_TAGS = 200,  // of a record
    S_MAX_TAG = 200,   // bytes of one
    S_MAX_WORDS = 4096 // bytes of a description
};

typedef struct {
    const char *kind, *name;
    s_type_t type;
    bool required;
} s_field_t;

static const s_field_t s_fields[] = {
    // clang-format off
    {"huggingface", "id",                      S_TEXT,    true},
    {"huggingface", "name",                    S_TEXT,    true},
    {"huggingface", "author",                  S_TEXT,    false},
    {"huggingface", "tags",                    S_TEXTS,   false},
    {"huggingface", "tag_dict",                S_MAP,     false},
    {"huggingface", "last_modified",           S_DATE,    false},
    {"huggingface", "files",                   S_TEXTS,   false},
    {"huggingface", "license",                 S_TEXT,    false},
    {"huggingface", "revision",                S_TEXT,    false},
    {"huggingface", "is_diffusers",            S_SWITCH,  false},
    {"huggingface", "ckpt_urls",               S_TEXTS,   false},
    {"huggingface", "trigger_phrases",         S_TEXTS,   false},
    {"huggingface", "description",             S_TEXT,    false},
    {"huggingface", "api_response",            S_TEXT,    false},
    {"civitai",     "id",                      S_INTEGER, true},
    {"civitai",     "version_id",              S_INTEGER, true},
    {"civitai",     "name",                    S_TEXT,    true},
    {"civitai",     "version_name",            S_TEXT,    false},
    {"civitai",     "author",                  S_TEXT,    false},
    {"civitai",     "tags",                    S_TEXTS,   false},
    {"civitai",     "base_model",              S_TEXT,    false},
    {"civitai",     "trigger_phrases",         S_TEXTS,   false},
    {"civitai",     "description",             S_TEXT,    false},
    {"civitai",     "nsfw",                    S_SWITCH,  false},
    {"civitai",     "allow_no_credit",         S_SWITCH,  false},
    {"civitai",     "allow_commercial_use",    S_TEXTS,   false},
    {"civitai",     "allow_derivatives",       S_SWITCH,  false},
    {"civitai",     "allow_different_license", S_SWITCH,  false},
    {"civitai",     "license",                 S_TEXT,    false},
    {"civitai",     "cover_image",             S_TEXT,    false},
    {"civitai",     "last_modified",           S_DATE,    false},
    {"civitai",     "files",                   S_TEXTS,   false},
    {"civitai",     "api_response",            S_TEXT,    false},
    // clang-format on
};
enum { S_FIELDS = sizeof s_fields / sizeof *s_fields };

// ---------------------------------------------------------------------------------------------------
// Checking

static bool
s_is_texts(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!json_is_string(json_array_get(value, i)))
            return false;
    return json_is_array(value);
}

// YYYY-MM-DD, and a time behind it or not.
static bool
s_is_date(const json_t *value)
{
    const char *text = json_string_value(value), *form = "dddd-dd-dd";
    for (; text && *form; form++, text++)
        if (*form == 'd' ? !isdigit((unsigned char)*text) : *text != *form)
            return false;
    return text && (!*text || *text == 'T' || *text == ' ');
}

static bool
s_is_text(const json_t *value)
{
    return json_is_string(value);
}

static bool
s_is_map(const json_t *value)
{
    return json_is_object(value);
}

static bool
s_is_switch(const json_t *value)
{
    return json_is_boolean(value);
}

static bool
s_is_integer(const json_t *value)
{
    return json_is_integer(value);
}

static const struct {
    bool (*is)(const json_t *value);
    const char *takes;
} s_types[] = {
    [S_TEXT] = {s_is_text, "a text"},
    [S_TEXTS] = {s_is_texts, "an array of text"},
    [S_MAP] = {s_is_map, "a map"},
    [S_SWITCH] = {s_is_switch, "true or false"},
    [S_INTEGER] = {s_is_integer, "an integer"},
    [S_DATE] = {s_is_date, "a date, as 2023-10-30T16:03:47Z"},
};

static lade_code_t
s_check_field(const s_field_t *field, const json_t *value, lade_error_t *error)
{
    if (!value || json_is_null(value))
        return field->required
                   ? lade_error_set(error, LADE_VALUE_ERROR, "%s: %s metadata needs it, %s",
                                    field->name, field->kind, s_types[field->type].takes)
                   : LADE_OK;
    if (s_types[field->type].is(value))
        return LADE_OK;
    char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    lade_error_set(error, LADE_VALUE_ERROR, "%s: %s, not %.60s", field->name,
                   s_types[field->type].takes, shown ? shown : "that");
    free(shown);
    return LADE_VALUE_ERROR;
}

lade_code_t
lade_metadata_check(const json_t *value, lade_error_t *error)
{
    if (!json_is_object(value))
        return lade_error_set(error, LADE_VALUE_ERROR, "metadata is a map");
    const json_t *type = json_object_get(value, "type");
    bool known = false;
    for (size_t i = 0; i < S_FIELDS; i++) {
        const s_field_t *field = &s_fields[i];
        if (!json_is_string(type) || strcmp(json_string_value(type), field->kind) != 0)
            continue;
        known = true;
        lade_code_t code = s_check_field(field, json_object_get(value, field->name), error);
        if (code)
            return code;
    }
    return known ? LADE_OK
                 : lade_error_set(error, LADE_VALUE_ERROR,
                                  "type: 'huggingface' or 'civitai' says what the metadata is of");
}

// ---------------------------------------------------------------------------------------------------
// Making

static void
s_set_text(json_t *map, const char *key, const char *text)
{
    if (text && *text)
        json_object_set_new(map, key, json_string_nocheck(text));
}

static void
s_copy(json_t *to, const char *key, const json_t *from, const char *name)
{
    json_t *value = json_object_get(from, name);
    if (value && !json_is_null(value))
        json_object_set(to, key, value);
}

static void
s_add(json_t *list, const json_t *text)
{
    if (json_string_length(text) > 0)
        json_array_append(list, (json_t *)text);
}

// The texts of an array, or the one text, as an array.
static json_t *
s_texts(const json_t *value)
{
    json_t *list = json_array();
    if (json_is_string(value))
        s_add(list, value);
    for (size_t i = 0; i < json_array_size(value); i++)
        s_add(list, json_array_get(value, i));
    return list;
}

static bool
s_ends(const char *text, const char *const *ends)
{
    size_t len = strlen(text);
    for (; *ends; ends++)
        if (len >= strlen(*ends) && strcmp(text + len - strlen(*ends), *ends) == 0)
            return true;
    return false;
}

static void
s_set_files(json_t *self, const json_t *info, const char *endpoint, const char *revision)
{
    static const char *const configs[] = {"model_index.json", "config.json", NULL};
    static const char *const weights[] = {".safetensors", ".bin", ".pth", ".pt", ".ckpt", NULL};
    const json_t *siblings = json_object_get(info, "siblings");
    json_t *files = json_array(), *urls = json_array();
    bool diffusers = false;
    for (size_t i = 0; i < json_array_size(siblings); i++) {
        json_t *path = json_object_get(json_array_get(siblings, i), "rfilename");
        const char *text = json_string_value(path);
        if (!text)
            continue;
        s_add(files, path);
        diffusers = diffusers || s_ends(text, configs);
        if (s_ends(text, weights))
            json_array_append_new(urls, json_sprintf("%s/%s/resolve/%s/%s", endpoint,
                                                     lade_json_text(info, "id", ""),
                                                     *revision ? revision : "main", text));
    }
    json_object_set_new(self, "files", files);
    json_object_set_new(self, "is_diffusers", json_boolean(diffusers));
    if (diffusers)
        json_decref(urls);
    else
        json_object_set_new(self, "ckpt_urls", urls);
}

// The license of the card, else of the tag `license:…`.
static void
s_set_license(json_t *self, const json_t *card, const json_t *tags)
{
    const json_t *license = json_object_get(card, "license");
    if (json_is_array(license))
        license = json_array_get(license, 0);
    s_set_text(self, "license", lade_json_text(card, "license_name", json_string_value(license)));
    for (size_t i = 0; i < json_array_size(tags) && !json_object_get(self, "license"); i++) {
        const char *tag = json_string_value(json_array_get(tags, i));
        if (tag && strncmp(tag, "license:", 8) == 0)
            s_set_text(self, "license", tag + 8);
    }
}

json_t *
lade_metadata_from_hub(const json_t *info, const char *endpoint, const char *revision)
{
    const char *id = lade_json_text(info, "id", lade_json_text(info, "modelId", ""));
    const char *slash = strchr(id, '/');
    json_t *card = json_object_get(info, "cardData");
    json_t *self = json_pack("{s:s, s:o}", "type", "huggingface", "id", json_string_nocheck(id));
    s_set_text(self, "name", slash ? slash + 1 : id);
    char *owner = slash ? strndup(id, (size_t)(slash - id)) : NULL;
    s_set_text(self, "author", lade_json_text(info, "author", owner));
    free(owner);
    json_object_set_new(self, "tags", s_texts(json_object_get(info, "tags")));
    json_object_set_new(self, "tag_dict",
                        json_is_object(card) ? json_deep_copy(card) : json_object());
    if (s_is_date(json_object_get(info, "lastModified")))
        s_copy(self, "last_modified", info, "lastModified");
    s_set_text(self, "revision", revision);
    s_set_text(self, "description",
               lade_json_text(info, "description", lade_json_text(card, "description", NULL)));
    s_set_license(self, card, json_object_get(info, "tags"));
    // What LoRAs and embeddings trained by the hub's own scripts say of how they are called up.
    json_t *phrases = s_texts(json_object_get(card, "instance_prompt"));
    if (json_array_size(phrases) > 0)
        json_object_set(self, "trigger_phrases", phrases);
    json_decref(phrases);
    s_set_files(self, info, endpoint, revision);
    return self;
}

// ---------------------------------------------------------------------------------------------------
// Civitai

// A description is HTML there. Its text: tags left out, the commonest entities read.
static char *
s_plain(const char *html)
{
    static const struct {
        const char *name, *text;
    } entities[] = {{"&lt;", "<"},  {"&gt;", ">"},   {"&quot;", "\""},
                    {"&#39;", "'"}, {"&nbsp;", " "}, {"&amp;", "&"}};
    lade_buf_t out = LADE_BUF(S_MAX_WORDS);
    const char *at = html ? html : "";
    while (*at && out.len + 8 < S_MAX_WORDS) {
        if (*at == '<') {
            bool breaks = strncasecmp(at, "</p", 3) == 0 || strncasecmp(at, "<br", 3) == 0 ||
                          strncasecmp(at, "</li", 4) == 0 || strncasecmp(at, "</h", 3) == 0;
            at += strcspn(at, ">");
            at += *at != '\0';
            if (breaks && out.len > 0 && out.data[out.len - 1] != '\n')
                lade_buf_add(&out, "\n", 1, NULL);
            continue;
        }
        size_t row = 0;
        while (row < 6 && strncmp(at, entities[row].name, strlen(entities[row].name)) != 0)
            row++;
        lade_buf_add(&out, row < 6 ? entities[row].text : at, 1, NULL);
        at += row < 6 ? strlen(entities[row].name) : 1;
    }
    while (out.len > 0 && (out.data[out.len - 1] == '\n' || out.data[out.len - 1] == ' '))
        out.len--;
    // What was cut within a character of several bytes goes whole.
    while (*at && out.len > 0 && ((unsigned char)out.data[out.len - 1] & 0xc0) == 0x80)
        out.len--;
    if (*at && out.len > 0 && ((unsigned char)out.data[out.len - 1] & 0x80))
        out.len--;
    char *text = strndup(out.len ? out.data : "", out.len);
    lade_buf_free(&out);
    return text;
}

// What the four switches come to, in words.
static void
s_set_terms(json_t *self)
{
    json_t *uses = json_object_get(self, "allow_commercial_use");
    lade_buf_t words = LADE_BUF(1024);
    if (!json_object_get(self, "allow_no_credit"))
        return;
    lade_buf_addf(&words, NULL, "%s; commercial use: ",
                  lade_json_bool(self, "allow_no_credit", false) ? "no credit needed"
                                                                 : "credit needed");
    bool any = false;
    for (size_t i = 0; i < json_array_size(uses); i++) {
        const char *use = json_string_value(json_array_get(uses, i));
        if (strcasecmp(use, "None") != 0) {
            lade_buf_addf(&words, NULL, "%s%.40s", any ? ", " : "", use);
            any = true;
        }
    }
    lade_buf_addf(&words, NULL, "%s; derivatives: %s", any ? "" : "none",
                  !lade_json_bool(self, "allow_derivatives", false) ? "none"
                  : lade_json_bool(self, "allow_different_license", false)
                      ? "under any license"
                      : "under the same license");
    s_set_text(self, "license", lade_buf_text(&words));
    lade_buf_free(&words);
}

static void
s_set_terms_of(json_t *self, const json_t *model)
{
    static const char *const names[][2] = {{"allow_no_credit", "allowNoCredit"},
                                           {"allow_derivatives", "allowDerivatives"},
                                           {"allow_different_license", "allowDifferentLicense"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_is_boolean(json_object_get(model, names[i][1])))
            s_copy(self, names[i][0], model, names[i][1]);
    const json_t *uses = json_object_get(model, "allowCommercialUse");
    if (uses && !json_is_null(uses))
        json_object_set_new(self, "allow_commercial_use", s_texts(uses));
    s_set_terms(self);
}

static void
s_add_tag(json_t *tags, const char *start, const char *text)
{
    if (text && *text)
        json_array_append_new(tags, json_sprintf("%s%s", start, text));
}

// The page's tags, and as tags what people look for: whose it is, what it is made for, what may be
// done with it.
static void
s_set_tags(json_t *self, const json_t *model)
{
    json_t *tags = s_texts(json_object_get(model, "tags"));
    const json_t *uses = json_object_get(self, "allow_commercial_use");
    s_add_tag(tags, "base_model:", lade_json_text(self, "base_model", NULL));
    s_add_tag(tags, "creator:", lade_json_text(self, "author", NULL));
    if (lade_json_bool(self, "nsfw", false))
        s_add_tag(tags, "", "nsfw");
    if (lade_json_bool(self, "allow_no_credit", false))
        s_add_tag(tags, "", "allow:no_credit");
    if (lade_json_bool(self, "allow_derivatives", false))
        s_add_tag(tags, "", "allow:derivatives");
    if (lade_json_bool(self, "allow_different_license", false))
        s_add_tag(tags, "", "allow:different_license");
    for (size_t i = 0; i < json_array_size(uses); i++)
        s_add_tag(tags, "allow:commercial_use:", json_string_value(json_array_get(uses, i)));
    json_object_set_new(self, "tags", tags);
}

static void
s_set_cover(json_t *self, const json_t *version)
{
    const json_t *images = json_object_get(version, "images");
    for (size_t i = 0; i < json_array_size(images); i++) {
        const json_t *image = json_array_get(images, i);
        if (strcmp(lade_json_text(image, "type", "image"), "image") == 0) {
            s_set_text(self, "cover_image", lade_json_text(image, "url", NULL));
            return;
        }
    }
}

json_t *
lade_metadata_from_civitai(const json_t *model, const json_t *version)
{
    const json_t *brief = json_object_get(version, "model"); // in a version's own answer
    json_t *self =
        json_pack("{s:s, s:I, s:I}", "type", "civitai", "id",
                  (json_int_t)lade_json_int(model, "id", lade_json_int(version, "modelId", 0)),
                  "version_id", (json_int_t)lade_json_int(version, "id", 0));
    s_set_text(self, "name", lade_json_text(model, "name", lade_json_text(brief, "name", "model")));
    s_set_text(self, "version_name", lade_json_text(version, "name", NULL));
    s_set_text(self, "author", lade_json_text(json_object_get(model, "creator"), "username", NULL));
    s_set_text(self, "base_model", lade_json_text(version, "baseModel", NULL));
    json_object_set_new(self, "trigger_phrases", s_texts(json_object_get(version, "trainedWords")));
    json_object_set_new(
        self, "nsfw",
        json_boolean(lade_json_bool(model, "nsfw", lade_json_bool(brief, "nsfw", false))));
    char *words =
        s_plain(lade_json_text(model, "description", lade_json_text(version, "description", NULL)));
    s_set_text(self, "description", words);
    free(words);
    s_set_terms_of(self, model);
    s_set_tags(self, model);
    s_set_cover(self, version);
    const char *date = s_is_date(json_object_get(version, "updatedAt"))     ? "updatedAt"
                       : s_is_date(json_object_get(version, "publishedAt")) ? "publishedAt"
                                                                            : NULL;
    if (date)
        s_copy(self, "last_modified", version, date);
    const json_t *files = json_object_get(version, "files");
    json_t *names = json_array();
    for (size_t i = 0; i < json_array_size(files); i++)
        s_add(names, json_object_get(json_array_get(files, i), "name"));
    json_object_set_new(self, "files", names);
    return self;
}

// ---------------------------------------------------------------------------------------------------
// Into records

// Of the texts those a record's list can hold, each once.
static json_t *
s_short(const json_t *list)
{
    json_t *taken = json_array();
    for (size_t i = 0; i < json_array_size(list) && json_array_size(taken) < S_MAX_TAGS; i++) {
        json_t *text = json_array_get(list, i);
        size_t len = json_string_length(text), at = 0;
        bool fine = json_is_string(text) && len > 0 && len <= S_MAX_TAG &&
                    strlen(json_string_value(text)) == len;
        while (fine && at < json_array_size(taken) && !json_equal(json_array_get(taken, at), text))
            at++;
        if (fine && at == json_array_size(taken))
            json_array_append(taken, text);
    }
    return taken;
}

void
lade_metadata_fill(const json_t *metadata, json_t *record)
{
    static const char *const lists[] = {"tags", "trigger_phrases"};
    static const struct {
        const char *name;
        size_t max;
    } texts[] = {
        {"description", S_MAX_WORDS}, {"author", 200}, {"license", 2000}, {"cover_image", 2000}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const json_t *list = json_object_get(metadata, lists[i]);
        if (json_array_size(list) > 0 && !json_object_get(record, lists[i]))
            json_object_set_new(record, lists[i], s_short(list));
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *text = json_object_get(metadata, texts[i].name);
        size_t len = json_string_length(text);
        if (len > 0 && len <= texts[i].max && strlen(json_string_value(text)) == len &&
            !json_object_get(record, texts[i].name))
            json_object_set(record, texts[i].name, text);
    }
}

char *
lade_metadata_describe(const json_t *answer, const char *const *long_ones, size_t max_bytes)
{
    char *text = json_dumps(answer, JSON_COMPACT);
    if (text && strlen(text) <= max_bytes)
        return text;
    free(text);
    json_t *less = json_deep_copy(answer), *below;
    const char *key;
    for (; *long_ones; long_ones++) {
        json_object_del(less, *long_ones);
        json_object_foreach(less, key, below) json_object_del(below, *long_ones);
    }
    text = json_dumps(less, JSON_COMPACT);
    json_decref(less);
    if (text && strlen(text) <= max_bytes)
        return text;
    free(text);
    return strdup("{}");
}
