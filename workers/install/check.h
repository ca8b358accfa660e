// Files checked side by side: is it there, as large as it should be, and are its bytes what they
// should be?
#ifndef LADE_CHECK_H
#define LADE_CHECK_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *path;      // of the file
    char *relative;  // to its model, "" if it is the model
    int64_t size;    // it should have; -1: not known
    char sha256[65]; // it should have, "": not known
    bool read;       // read it whole even if no sha256 is known
    bool weight;     // counts for the model's hash

    // What was found:
    lade_error_t problem; // why it could not be looked at or read
    int64_t found_size;   // -1: it is not there
    char found[65];       // sha256, "" if it was not read
    double written;       // when it was last written to
} lade_check_t;

// Checks all of them in a number of threads. progress is told bytes that are done with (read, or
// not to be read), one call at a time, from any thread; false ends it: LADE_CANCELLED.
lade_code_t lade_check_files(lade_check_t *files, size_t count, size_t threads,
                             bool (*progress)(void *arg, int64_t bytes), void *arg,
                             lade_error_t *error);

void lade_check_free(lade_check_t *files, size_t count);

#endif
