// Whether files would run code if somebody loaded them, by their content, whatever their names say.
#ifndef LADE_SAFETY_H
#define LADE_SAFETY_H

#include "common/formats/tensors.h"

// Looks at one file as everything it could be loaded as: a pickle of any protocol, a torch or numpy
// archive, a numpy array of objects, a tar or compressed file with a pickle in it, a zip archive
// behind another file. *findings_p is yours: an array as of lade_tensors_unsafe, empty if there is
// nothing. Reads headers and pickles, no weights. LADE_NOT_FOUND, LADE_IO_ERROR.
lade_code_t lade_safety_check(const char *path, json_t **findings_p, lade_error_t *error);

// Told of every file below a folder: its findings (which stay the walk's), or why it could not be
// looked at. Returns false to end the walk.
typedef bool lade_safety_seen_t(void *arg, const char *path, const json_t *findings,
                                const lade_error_t *error);

// Checks a file, or every regular file below a folder, also those that links in it point to.
// LADE_CANCELLED if seen ended it.
lade_code_t lade_safety_walk(const char *root, lade_safety_seen_t *seen, void *arg,
                             lade_error_t *error);

// The findings of all files below a folder in one array, each file's path within it in front of
// `where`. Yours.
lade_code_t lade_safety_folder(const char *root, json_t **findings_p, lade_error_t *error);

// A few words on findings for a sentence: "os.system would be called (x/data.pkl byte 20), and 3
// more". Returns out.
const char *lade_safety_words(const json_t *findings, char *out, size_t size);

#endif
