// Where a model ends up, and how it gets there whole, once, whatever is killed on the way.
//
// Everything is prepared in MODELS/tmpinstall_JOB and moved to MODELS/BASE/TYPE/NAME by one rename
// that never replaces. The inode of what is moved is part of the job's saved state: it tells a
// later attempt whether what has the final name is its own (the rename happened, the answer did not
// arrive) or somebody else's.
#ifndef LADE_PLACE_H
#define LADE_PLACE_H

#include "common/config.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// MODELS/tmpinstall_JOB; you free it.
char *lade_place_temp(const char *models_dir, int64_t job);

// ---------------------------------------------------------------------------------------------------
// What the temporary folder is for, and what is left of a job
//
// Hidden files in it: `.owner` says whose job it is (several brokers may share a models folder,
// and their jobs have the same numbers), `.placed` where its files went, `.part` what else it
// writes. The folder stays, with these, until the job is known to have ended: so what a cancel in
// the instant between the move and the broker's word leaves behind is found, by whoever looks next.

// Makes the folder and says whose it is.
lade_code_t lade_place_claim(const lade_config_t *config, int64_t job, lade_error_t *error);

// Says where the thing with that inode goes, before it goes.
lade_code_t lade_place_mark(const lade_config_t *config, int64_t job, const char *to,
                            uint64_t inode, lade_error_t *error);

// Whether what is at `to` is what the job said goes there: an attempt before this one came to the
// rename.
bool lade_place_was_placed(const lade_config_t *config, int64_t job, const char *to);

// Says that the job writes at path, outside of the folder, under a name that ends in "-JOB" and
// begins with a dot: what is there when the job ends, goes.
lade_code_t lade_place_note_part(const lade_config_t *config, int64_t job, const char *path,
                                 lade_error_t *error);

// Removes what is in the folder but the hidden files.
lade_code_t lade_place_empty(const lade_config_t *config, int64_t job, lade_error_t *error);

// The numbers of the jobs of this broker that have such a folder, an array that is yours.
json_t *lade_place_owned(const lade_config_t *config);

// The job has ended: removes its folder. If it has not `completed`, what it had placed goes too,
// unless that was done (by a later attempt) after `since`, seconds since the epoch.
lade_code_t lade_place_end(const lade_config_t *config, int64_t job, bool completed, double since,
                           lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Names and moves

// A name without what a file name can't have: slashes, control characters, a leading dot or blank,
// more than 200 bytes. "model" if nothing is left. You free it.
char *lade_place_safe_name(const char *name);

// The file name for a model called name (NULL: none given) made from source (a path): the name with
// the suffix of the source if that is a file, else the source's own name. You free it.
char *lade_place_file_name(const char *name, const char *source, bool is_file);

// BASE/TYPE/NAME that does not exist below models_dir: NAME itself, else NAME_01, NAME_02, …
// (before the suffix of a file). Creates the folder it is in. LADE_EXISTS after 9,999. *relative_p
// is yours.
lade_code_t lade_place_choose(const char *models_dir, const char *base, const char *type,
                              const char *name, bool is_file, char **relative_p,
                              lade_error_t *error);

// The inode of a path, 0 if it is not there.
uint64_t lade_place_inode(const char *path);

// Moves `from` to `to`. LADE_OK: it is there now, moved by this call or by an earlier attempt
// (inode says so). LADE_EXISTS: something else has the name; `from` is as it was. LADE_NOT_FOUND:
// `from` is gone and `to` is not it.
lade_code_t lade_place_publish(const char *from, const char *to, uint64_t inode,
                               lade_error_t *error);

// Takes the move back if `to` is the thing with that inode; nothing has the final name afterwards.
lade_code_t lade_place_withdraw(const char *from, const char *to, uint64_t inode,
                                lade_error_t *error);

// Removes a file or tree below models_dir, by renaming it to MODELS/tmptrash_… first: a worker that
// was stopped in the middle and wakes up late finds a name that is nobody's. What is not there is
// no error.
lade_code_t lade_place_discard(const char *models_dir, const char *path, lade_error_t *error);

// Removes what discarding left behind when a worker was killed in it. At start-up.
void lade_place_sweep(const char *models_dir);

#endif
