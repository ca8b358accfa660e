// What a model's files say of it beyond what it is: who made it, how it was trained, the words that
// call it, how large and precise it is, what it needs beside it.
#ifndef LADE_ABOUT_H
#define LADE_ABOUT_H

#include "common/identify/subject.h"

#include <jansson.h>

// Adds to what was found (type, base and format are set): title, description, author, license,
// tags, trigger_phrases, resolution, usage_hint, training, preview, precision, parameters, ema,
// requires, default_settings of a LoRA; each only where the files tell it, nothing that is set
// already, and all of it within what a record takes.
void lade_about_add(lade_subject_t *subject, json_t *found);

// What a model of a single file needs and lacks, by name: a new array, NULL if nothing.
json_t *lade_about_requires(const lade_tensors_t *tensors, const json_t *found);

#endif
