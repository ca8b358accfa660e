// Sources, conditions and values of rules, asked of a subject.
#include "common/identify/match.h"

#include "common/formats/json_file.h"
#include "common/formats/tensor_list.h"
#include "common/identify/adapter.h"
#include "common/identify/predicates.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool s_say(lade_match_t *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// Writes the reason. Returns false, so that saying and refusing are one statement.
static bool
s_say(lade_match_t *self, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(self->reason, sizeof self->reason, format, args);
    va_end(args);
    return false;
}

// ---------------------------------------------------------------------------------------------------
// Tracing

// Notes what a source found, for people: the value, and the tensor it is of.
static void
s_note(lade_match_t *self, const json_t *value, const lade_tensor_t *of)
{
    char shown[70];
    if (!self->trace)
        return;
    json_decref(self->seen);
    self->seen = NULL;
    if (value && of && !json_is_true(value))
        self->seen =
            json_sprintf("%s, of %.300s", lade_match_show(value, shown, sizeof shown), of->name);
    else if (of)
        self->seen = json_stringn_nocheck(of->name, of->name_len);
    else if (value)
        self->seen = json_string(lade_match_show(value, shown, sizeof shown));
}

// ---------------------------------------------------------------------------------------------------
// Patterns

// A pattern in words: its first member.
static const char *
s_show_pattern(const lade_pattern_t *pattern, char out[120])
{
    static const char *const words[] = {"", "name beginning with ", "name ending with ",
                                        "name containing "};
    const json_t *lists[] = {pattern->exact, pattern->prefix, pattern->suffix, pattern->contains};
    snprintf(out, 120, pattern->regex ? "name of the wanted form" : "name at all");
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (lists[i]) {
            size_t others = json_array_size(lists[i]) - 1;
            snprintf(out, 120, others ? "%s%.70s or %zu more" : "%s%.70s", words[i],
                     json_string_value(json_array_get(lists[i], 0)), others);
            break;
        }
    return out;
}

// ---------------------------------------------------------------------------------------------------
// Sources: each a new value or NULL

static const char *
s_name_at(const lade_source_t *source, size_t index)
{
    return json_string_value(json_array_get(source->names, index));
}

static json_t *
s_width(uint64_t width)
{
    return width && width < INT64_MAX ? json_integer((json_int_t)width) : NULL;
}

static json_t *
s_of_tensor(const lade_tensors_t *tensors, const lade_source_t *source, const lade_tensor_t *tensor)
{
    int axis = source->axis < 0 ? source->axis + tensor->rank : source->axis;
    switch (source->take) {
    case LADE_TAKE_RANK:
        return json_integer(tensor->rank);
    case LADE_TAKE_DTYPE:
        return json_string(lade_dtype_name(tensor->dtype));
    case LADE_TAKE_AXIS:
        return axis >= 0 && axis < tensor->rank ? json_integer((json_int_t)tensor->shape[axis])
                                                : NULL;
    case LADE_TAKE_INPUT:
    case LADE_TAKE_OUTPUT:
        return s_width(lade_adapter_width(tensors, tensor, source->take == LADE_TAKE_OUTPUT));
    default:
        return json_true();
    }
}

// The tensors a source is asked of: the file's, or those of the first of its folders that has any.
static lade_search_t *
s_search(lade_match_t *self, const lade_source_t *source)
{
    const lade_tensors_t *tensors = source->in ? NULL : self->subject->tensors;
    for (size_t i = 0; !tensors && i < json_array_size(source->in); i++)
        tensors =
            lade_subject_weights(self->subject, json_string_value(json_array_get(source->in, i)));
    if (!tensors)
        s_say(self, "there are no weights in %s that can be read",
              json_string_value(json_array_get(source->in, 0)));
    return tensors ? lade_subject_search(self->subject, self->patterns, tensors) : NULL;
}

// Tensors that fit and differ tell nothing, so that their order cannot matter. Of adapters those
// that do not tell a width (the other half, alpha) are passed over.
static json_t *
s_agreed(lade_match_t *self, lade_search_t *search, const lade_source_t *source)
{
    json_t *agreed = NULL;
    char words[120];
    const lade_tensors_t *tensors = lade_search_tensors(search);
    bool width = source->take == LADE_TAKE_INPUT || source->take == LADE_TAKE_OUTPUT;
    const lade_tensor_t *tensor;
    for (size_t at = 0; (tensor = lade_search_next(search, source->pattern, &at));) {
        json_t *value = s_of_tensor(tensors, source, tensor);
        if (width && !value)
            continue;
        if (!agreed) {
            agreed = value;
            s_note(self, value, tensor);
        } else if (!value || !json_equal(agreed, value)) {
            json_decref(value);
            json_decref(agreed);
            s_say(self, "tensors with a %s differ", s_show_pattern(source->pattern, words));
            return NULL;
        } else {
            json_decref(value);
        }
        if (source->take == LADE_TAKE_PRESENCE)
            break;
    }
    if (!agreed)
        s_say(self, "there is no %s", s_show_pattern(source->pattern, words));
    return agreed;
}

static json_t *
s_read_key(lade_match_t *self, const lade_source_t *source)
{
    lade_search_t *search = s_search(self, source);
    if (!search)
        return NULL;
    if (source->take != LADE_TAKE_COUNT)
        return s_agreed(self, search, source);
    json_int_t count = 0;
    for (size_t at = 0; lade_search_next(search, source->pattern, &at);)
        count++;
    return json_integer(count);
}

static json_t *
s_read_scalar(lade_match_t *self, const lade_source_t *source)
{
    const lade_tensors_t *tensors = self->subject->tensors;
    const lade_tensor_t *tensor = lade_tensors_find(tensors, s_name_at(source, 0));
    const json_t *beside = lade_tensors_value(tensors, s_name_at(source, 0));
    if (json_is_integer(beside)) // in a pickle a number is no tensor
        return json_incref((json_t *)beside);
    bool integer = tensor && (tensor->dtype == LADE_DTYPE_I64 || tensor->dtype == LADE_DTYPE_I32);
    uint8_t bytes[8] = {0};
    int64_t value = 0;
    if (!integer || tensor->size != lade_dtype_size(tensor->dtype)) {
        s_say(self, "there is no whole number %s", s_name_at(source, 0));
        return NULL;
    }
    int fd = open(lade_tensors_file(tensors, tensor->file), O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread(fd, bytes, tensor->size, (off_t)tensor->offset);
    if (fd >= 0)
        close(fd);
    for (int i = 7; i >= 0; i--)
        value = (int64_t)((uint64_t)value << 8 | bytes[i]);
    if (tensor->dtype == LADE_DTYPE_I32)
        value = (int32_t)value;
    return got == (ssize_t)tensor->size ? json_integer(value) : NULL;
}

static json_t *
s_read_metadata(lade_match_t *self, const lade_source_t *source)
{
    json_t *value =
        json_object_get(lade_tensors_metadata(self->subject->tensors), s_name_at(source, 0));
    if (!value)
        s_say(self, "its metadata has no %s", s_name_at(source, 0));
    return json_incref(value);
}

static json_t *
s_read_name(lade_match_t *self, const lade_source_t *source)
{
    bool own = strcmp(s_name_at(source, 0), "own") == 0;
    return json_string(own ? self->subject->name : self->subject->parent);
}

static json_t *
s_read_exists(lade_match_t *self, const lade_source_t *source)
{
    for (size_t i = 0; i < json_array_size(source->names); i++)
        if (lade_subject_has(self->subject, s_name_at(source, i)))
            return json_string(s_name_at(source, i));
    s_say(self, "there is no %s", s_name_at(source, 0));
    return NULL;
}

// The first of the named JSON files that is there.
static const json_t *
s_config(lade_match_t *self, const lade_source_t *source, const char **name_p)
{
    for (size_t i = 0; i < json_array_size(source->names); i++) {
        const json_t *config = lade_subject_config(self->subject, s_name_at(source, i));
        *name_p = s_name_at(source, i);
        if (config)
            return config;
    }
    s_say(self, "there is no %s", s_name_at(source, 0));
    return NULL;
}

static json_t *
s_read_json(lade_match_t *self, const lade_source_t *source)
{
    const char *name;
    const json_t *config = s_config(self, source, &name);
    const json_t *value = config && source->at ? lade_json_file_at(config, source->at) : config;
    if (config && !value)
        s_say(self, "%s has no %s", name, source->at);
    return json_is_null(value) ? NULL : json_incref((json_t *)value);
}

static json_t *
s_read_class(lade_match_t *self, const lade_source_t *source)
{
    const char *name;
    const json_t *config = s_config(self, source, &name);
    const char *class = lade_json_file_class(config);
    if (config && !class)
        s_say(self, "%s names no class", name);
    return class ? json_string(class) : NULL;
}

static json_t *
s_read_inside(lade_match_t *self, const lade_source_t *source)
{
    for (size_t i = 0; i < json_array_size(source->names); i++) {
        lade_subject_t *inside = lade_subject_inside(self->subject, s_name_at(source, i));
        if (!inside)
            continue;
        json_t *found = self->identify(self->engine, inside, source->as);
        json_t *value = found && source->at ? json_incref(json_object_get(found, source->at))
                        : found             ? json_true()
                                            : NULL;
        json_decref(found);
        if (!value)
            s_say(self, "%s is no %s by itself", s_name_at(source, i), source->as);
        return value;
    }
    s_say(self, "there is no %s that can be read", s_name_at(source, 0));
    return NULL;
}

static json_t *
s_read_field(lade_match_t *self, const lade_source_t *source)
{
    json_t *value = json_object_get(self->given, s_name_at(source, 0));
    return json_incref(value ? value : json_object_get(self->found, s_name_at(source, 0)));
}

static json_t *
s_read_predicate(lade_match_t *self, const lade_source_t *source)
{
    json_t *value = lade_predicates[source->predicate].read(self->subject);
    char shown[70];
    if (value && self->trace) {
        json_decref(self->seen);
        self->seen = json_sprintf("%s, by %s", lade_match_show(value, shown, sizeof shown),
                                  lade_predicates[source->predicate].name);
    }
    if (!value)
        s_say(self, "%s does not tell", lade_predicates[source->predicate].name);
    return value;
}

static json_t *(*const s_readers[])(lade_match_t *self, const lade_source_t *source) = {
    [LADE_SOURCE_KEY] = s_read_key,           [LADE_SOURCE_SCALAR] = s_read_scalar,
    [LADE_SOURCE_METADATA] = s_read_metadata, [LADE_SOURCE_NAME] = s_read_name,
    [LADE_SOURCE_EXISTS] = s_read_exists,     [LADE_SOURCE_JSON] = s_read_json,
    [LADE_SOURCE_CLASS] = s_read_class,       [LADE_SOURCE_INSIDE] = s_read_inside,
    [LADE_SOURCE_FIELD] = s_read_field,       [LADE_SOURCE_PREDICATE] = s_read_predicate,
};

static const char *const s_taken[] = {
    [LADE_TAKE_PRESENCE] = "presence",
    [LADE_TAKE_AXIS] = "the axis",
    [LADE_TAKE_RANK] = "the rank",
    [LADE_TAKE_DTYPE] = "the dtype",
    [LADE_TAKE_COUNT] = "the count",
    [LADE_TAKE_INPUT] = "the layer's input",
    [LADE_TAKE_OUTPUT] = "the layer's output",
};

// What a source is called in a sentence.
static const char *
s_show_source(const lade_source_t *source, char out[200])
{
    char words[120];
    const char *name = source->names ? s_name_at(source, 0) : "";
    switch (source->kind) {
    case LADE_SOURCE_KEY:
        s_show_pattern(source->pattern, words);
        if (source->take == LADE_TAKE_AXIS)
            snprintf(out, 200, "axis %d of %s", source->axis, words);
        else if (source->take == LADE_TAKE_PRESENCE)
            snprintf(out, 200, "%s%s", source->pattern->exact ? "" : "a ", words);
        else
            snprintf(out, 200, "%s of %s", s_taken[source->take], words);
        break;
    case LADE_SOURCE_JSON:
        snprintf(out, 200, "%.80s of %.80s", source->at ? source->at : "all", name);
        break;
    case LADE_SOURCE_CLASS:
        snprintf(out, 200, "the class in %.80s", name);
        break;
    case LADE_SOURCE_NAME:
        snprintf(out, 200, "%s name", strcmp(name, "own") == 0 ? "its" : "its folder's");
        break;
    default:
        snprintf(out, 200, "%.100s", name);
        break;
    }
    return out;
}

// ---------------------------------------------------------------------------------------------------
// Conditions

bool
lade_match_same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

const char *
lade_match_show(const json_t *value, char *out, size_t size)
{
    char *text = json_is_string(value)
                     ? NULL
                     : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    snprintf(out, size, "%.60s",
             json_is_string(value) ? json_string_value(value)
             : text                ? text
                                   : "nothing");
    free(text);
    return out;
}

// "768, 1024, 2048": as many as there is room for.
static const char *
s_show_list(const json_t *list, char out[100])
{
    char one[70];
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(list); i++) {
        lade_match_show(json_array_get(list, i), one, sizeof one);
        if (len + strlen(one) + 7 > 100) {
            strcpy(out + len, ", ...");
            break;
        }
        len += (size_t)sprintf(out + len, "%s%s", i ? ", " : "", one);
    }
    return out;
}

static bool
s_is_one_of(const json_t *list, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (lade_match_same(json_array_get(list, i), value))
            return true;
    return false;
}

static bool
s_check_value(lade_match_t *self, const lade_condition_t *condition, const json_t *value)
{
    const lade_check_t *check = &condition->check;
    char what[200], seen[70], wanted[100];
    s_show_source(&condition->source, what);
    lade_match_show(value, seen, sizeof seen);
    if (check->is && !s_is_one_of(check->is, value))
        return s_say(self, "%s is %s, not %s", what, seen, s_show_list(check->is, wanted));
    if (check->matches && (!json_is_string(value) ||
                           regexec(check->matches, json_string_value(value), 0, NULL, 0) != 0))
        return s_say(self, "%s, %s, is not of the wanted form", what, seen);
    double number = json_number_value(value);
    if ((check->has_min || check->has_max) && !json_is_number(value))
        return s_say(self, "%s is %s, no number", what, seen);
    if (check->has_min && number < check->min)
        return s_say(self, "%s is %s, less than %g", what, seen, check->min);
    if (check->has_max && number > check->max)
        return s_say(self, "%s is %s, more than %g", what, seen, check->max);
    return true;
}

// All tensors that fit the source's pattern fit the check's too; none at all is well.
static bool
s_check_every(lade_match_t *self, const lade_condition_t *condition)
{
    lade_search_t *search = s_search(self, &condition->source);
    const lade_tensor_t *tensor;
    char shown[80];
    if (!search)
        return false;
    for (size_t at = 0; (tensor = lade_search_next(search, condition->source.pattern, &at));)
        if (!lade_search_fits(search, condition->check.every, tensor))
            return s_say(self, "it also has %s", lade_tensor_list_show(tensor->name, shown));
    return true;
}

static bool
s_source_holds(lade_match_t *self, const lade_condition_t *condition)
{
    if (condition->check.every)
        return s_check_every(self, condition);
    json_t *value = s_readers[condition->source.kind](self, &condition->source);
    if (!self->seen)
        s_note(self, value, NULL);
    bool holds = value && s_check_value(self, condition, value);
    json_decref(value);
    return holds;
}

static bool
s_all_hold(lade_match_t *self, const lade_condition_t *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!lade_match_condition(self, &list[i]))
            return false;
    return true;
}

static bool
s_holds(lade_match_t *self, const lade_condition_t *condition)
{
    char what[200];
    switch (condition->kind) {
    case LADE_WHEN_ANY:
        for (size_t i = 0; i < condition->count; i++)
            if (lade_match_condition(self, &condition->children[i]))
                return true;
        return false; // with the last one's reason
    case LADE_WHEN_ALL:
        return s_all_hold(self, condition->children, condition->count);
    case LADE_WHEN_NOT:
        if (!s_all_hold(self, condition->children, condition->count))
            return true;
        return s_say(self, "%s rules it out", s_show_source(&condition->children[0].source, what));
    case LADE_WHEN_SOURCE:
        break;
    }
    return s_source_holds(self, condition);
}

// A condition in words.
static const char *
s_show_condition(const lade_condition_t *condition, char out[400])
{
    static const char *const groups[] = {
        [LADE_WHEN_ANY] = "any of", [LADE_WHEN_ALL] = "all of", [LADE_WHEN_NOT] = "not"};
    const lade_check_t *check = &condition->check;
    char what[200], wanted[120];
    if (condition->kind != LADE_WHEN_SOURCE) {
        snprintf(out, 400, "%s", groups[condition->kind]);
        return out;
    }
    s_show_source(&condition->source, what);
    size_t len = (size_t)snprintf(out, 400, "%s", what);
    if (check->is)
        len += (size_t)snprintf(out + len, 400 - len, " is %s", s_show_list(check->is, wanted));
    if (check->has_min)
        len += (size_t)snprintf(out + len, 400 - len, " is at least %g", check->min);
    if (check->has_max)
        len += (size_t)snprintf(out + len, 400 - len, " is at most %g", check->max);
    if (check->matches)
        len += (size_t)snprintf(out + len, 400 - len, " matches");
    if (check->every)
        snprintf(out + len, 400 - len, ": each has a %s", s_show_pattern(check->every, wanted));
    return out;
}

// The same, with what was asked and found added to the trace.
static bool
s_traced(lade_match_t *self, const lade_condition_t *condition)
{
    char words[400];
    json_t *outer = self->trace, *inner = json_array();
    json_decref(self->seen);
    self->seen = NULL;
    self->trace = inner;
    bool holds = s_holds(self, condition);
    self->trace = outer;
    json_t *entry =
        json_pack("{s:s, s:b}", "asks", s_show_condition(condition, words), "holds", holds);
    if (condition->kind == LADE_WHEN_SOURCE && self->seen)
        json_object_set(entry, "found", self->seen);
    if (!holds)
        json_object_set_new(entry, "reason", json_string(self->reason));
    if (json_array_size(inner))
        json_object_set(entry, "of", inner);
    json_decref(inner);
    json_decref(self->seen);
    self->seen = NULL;
    json_array_append_new(outer, entry);
    return holds;
}

bool
lade_match_condition(lade_match_t *self, const lade_condition_t *condition)
{
    return self->trace ? s_traced(self, condition) : s_holds(self, condition);
}

// ---------------------------------------------------------------------------------------------------
// Values

static json_t *
s_mapped(lade_match_t *self, const lade_value_t *value, json_t *seen)
{
    char what[200], text[70], wanted[100];
    if (!value->from || !seen)
        return seen;
    for (size_t i = 0; i < json_array_size(value->from); i++)
        if (lade_match_same(json_array_get(value->from, i), seen)) {
            json_decref(seen);
            return json_deep_copy(json_array_get(value->to, i)); // rules are shared by threads
        }
    s_say(self, "%s is %s, not %s", s_show_source(&value->source, what),
          lade_match_show(seen, text, sizeof text), s_show_list(value->from, wanted));
    json_decref(seen);
    return NULL;
}

static json_t *
s_chosen(lade_match_t *self, const lade_value_t *value)
{
    for (size_t i = 0; i < value->first_count; i++) {
        const lade_choice_t *choice = &value->first[i];
        json_t *found = s_all_hold(self, choice->when, choice->count)
                            ? lade_match_value(self, choice->then)
                            : NULL;
        if (found)
            return found;
    }
    return NULL;
}

json_t *
lade_match_told(lade_match_t *self, const lade_value_t *value)
{
    if (value->constant)
        return json_deep_copy(value->constant);
    if (value->source.kind) {
        json_decref(self->seen);
        self->seen = NULL;
        json_t *seen = s_readers[value->source.kind](self, &value->source);
        if (!self->seen)
            s_note(self, seen, NULL);
        return s_mapped(self, value, seen);
    }
    return s_chosen(self, value);
}

json_t *
lade_match_value(lade_match_t *self, const lade_value_t *value)
{
    json_t *found = lade_match_told(self, value);
    return found || !value->fallback ? found : lade_match_value(self, value->fallback);
}
