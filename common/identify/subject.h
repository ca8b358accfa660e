// What is being identified: a file with its tensors or a folder with its JSON files, each read
// once.
#ifndef LADE_SUBJECT_H
#define LADE_SUBJECT_H

#include "common/formats/tensors.h"
#include "common/identify/pattern.h"

// The weights of a folder inside a folder.
typedef struct lade_subject_weights lade_subject_weights_t;

typedef struct lade_subject lade_subject_t;
struct lade_subject {
    char *path;
    char *name; // of the file or folder, as given or overridden; a file's without its weight suffix
    char *parent; // name of the folder it lies in
    bool folder;
    uint64_t max_header;     // of a weight file in it
    lade_tensors_t *tensors; // of a file; NULL for a folder
    json_t *configs;         // of a folder: JSON files read so far, null for those not there
    lade_subject_t *inside;  // of a folder: files in it that were looked at
    lade_subject_t *next;    // in that list
    lade_subject_weights_t *weights; // of a folder: folders in it whose weights were looked at
    lade_search_t **searches;        // what was looked for in its lists of tensors, one each
    size_t search_count;
    lade_error_t problem; // first thing in the folder that could not be read
};

// Opens a file or folder. overrides may be NULL; its "name" becomes the subject's.
lade_code_t lade_subject_new(const char *path, const json_t *overrides, lade_subject_t **self_p,
                             lade_error_t *error);

// The same with another ceiling for headers than LADE_TENSORS_HEADER.
lade_code_t lade_subject_new_within(const char *path, const json_t *overrides, uint64_t max_header,
                                    lade_subject_t **self_p, lade_error_t *error);

// The JSON file at a relative path, NULL if it is not there or not JSON (then problem says so).
// Stays the subject's.
const json_t *lade_subject_config(lade_subject_t *self, const char *relative);

// True if the folder has something at a relative path.
bool lade_subject_has(const lade_subject_t *self, const char *relative);

// The weight file at a relative path as a subject of its own, NULL if it is not there or not
// readable (then problem says so). Stays the subject's.
lade_subject_t *lade_subject_inside(lade_subject_t *self, const char *relative);

// The weights in the folder at a relative path ("." for its own) as one list, NULL if there are
// none or they cannot be read (then problem says so). Stays the subject's.
const lade_tensors_t *lade_subject_weights(lade_subject_t *self, const char *relative);

// What is looked for in one of the subject's lists of tensors. Stays the subject's.
lade_search_t *lade_subject_search(lade_subject_t *self, const lade_patterns_t *patterns,
                                   const lade_tensors_t *tensors);

// Of how many files a file is one by its name ("model-00002-of-00003.safetensors"), if the others
// were not opened with it; else 1.
unsigned lade_subject_parts(const lade_subject_t *self);

// A few words on what it is: "a safetensors file of 3 tensors (a, b, c)". You free it.
char *lade_subject_words(const lade_subject_t *self);

void lade_subject_destroy(lade_subject_t **self_p);

#endif
