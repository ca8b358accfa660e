// How tensors of one naming are called in another: rules of names with holes, and what is done to
// the tensors on the way.
//
// A map is a list of rules, of which the first that fits a name says what becomes of the tensor:
//
//   - input_blocks.{n}.0.{resnet}.{p}: down_blocks.{(n-1)/3}.resnets.{(n-1)%3}.{resnet}.{p}
//   - {from: NAME, to: NAME, as: linear}       a convolution of one point is a matrix: [a,b,1,1] ->
//   [a,b]
//   - {from: NAME, to: NAME, as: transposed}   [a,b] -> [b,a]
//   - {from: NAME, split: [NAME, NAME, NAME]}  rows in equal parts
//   - {drop: NAME}                             is not taken over
//   - {use: MAP}                               that map's rules
//
// Holes: {n}, one letter, is a whole number; {word} is one of the texts of the list of words of
// that name; {*}, at the end, is all the rest. In the new name {n} may be arithmetic (+ - * / % and
// parentheses, whole numbers), {word} is what the list says for the text found.
#ifndef LADE_CONVERT_MAP_H
#define LADE_CONVERT_MAP_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum { LADE_CONVERT_MAX_NAME = 512, LADE_CONVERT_MAX_SPLIT = 8 };

typedef enum {
    LADE_CONVERT_AS_IS,
    LADE_CONVERT_LINEAR,
    LADE_CONVERT_TRANSPOSED,
    LADE_CONVERT_SPLIT,
    LADE_CONVERT_DROP,
} lade_convert_how_t;

// What becomes of one tensor.
typedef struct {
    lade_convert_how_t how;
    size_t count; // of names: 0 for DROP, several for SPLIT
    char names[LADE_CONVERT_MAX_SPLIT][LADE_CONVERT_MAX_NAME];
} lade_convert_target_t;

typedef struct lade_convert_map lade_convert_map_t;

// Reads the map called name out of maps (name: list of rules); words is name: {old: new}. Both stay
// the caller's and have to outlive it. LADE_CONFIG_ERROR says which rule is wrong, and how.
lade_code_t lade_convert_map_new(const json_t *maps, const json_t *words, const char *name,
                                 lade_convert_map_t **self_p, lade_error_t *error);

// False if no rule fits. Safe from several threads.
bool lade_convert_map_find(const lade_convert_map_t *self, const char *name,
                           lade_convert_target_t *target);

void lade_convert_map_destroy(lade_convert_map_t **self_p);

// One pattern alone: whether the name fits it. LADE_CONFIG_ERROR for a pattern that is none.
lade_code_t lade_convert_map_fits(const char *pattern, const json_t *words, const char *name,
                                  bool *fits_p, lade_error_t *error);

#endif
