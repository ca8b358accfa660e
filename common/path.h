// Paths and files: safe names, folders, and the steps that make a file appear whole or not at all.
#ifndef LADE_PATH_H
#define LADE_PATH_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// "a/b", with one slash between; you free it. Aborts when memory runs out.
char *lade_path_join(const char *folder, const char *name);

// The part after the last slash (of "a/b/" it is "b", with the slash cut off); you free it.
char *lade_path_name(const char *path);

// The folder a path lies in ("." for a bare name); you free it.
char *lade_path_folder(const char *path);

// Creates a folder and those above it, durably. LADE_OK if it is there already as a folder.
lade_code_t lade_path_mkdirs(const char *path, mode_t mode, lade_error_t *error);

// LADE_OK if name can be one file name: not empty, ".", "..", no slash, backslash, control
// character or leading "..", no Windows drive, at most 255 bytes, valid UTF-8. Else
// LADE_VALUE_ERROR that says which.
lade_code_t lade_path_check_name(const char *name, lade_error_t *error);

// LADE_OK if path is relative, each part passes lade_path_check_name, so that it stays below where
// it is joined to. Used on every path a peer or a hub names.
lade_code_t lade_path_check_relative(const char *path, lade_error_t *error);

// True if path is inside folder (or the folder itself), both absolute and without "..".
bool lade_path_inside(const char *folder, const char *path);

// fsync of a folder, so that renames in it are durable.
lade_code_t lade_path_sync_folder(const char *folder, lade_error_t *error);

// fsync of every file and folder under path (a file or folder). Blocks.
lade_code_t lade_path_sync_tree(const char *path, lade_error_t *error);

// Renames without ever replacing (renameat2 RENAME_NOREPLACE), then syncs both folders. LADE_EXISTS
// if something has the new name. Both on one file system.
lade_code_t lade_path_publish(const char *from, const char *to, lade_error_t *error);

// Copies a file or a folder tree (reflink or copy_file_range where the file system can, else read
// and write), syncing each file. to must not exist. Symbolic links inside a folder are followed if
// they point to a file. step, if not NULL, is told the bytes of each piece and may return false to
// stop (LADE_CANCELLED); what was copied so far is left for the caller to remove.
lade_code_t lade_path_copy(const char *from, const char *to, bool (*step)(void *arg, int64_t bytes),
                           void *arg, lade_error_t *error);

// The same with hard links to the files instead of their bytes, where the file system has them; a
// symbolic link is copied as what it points to.
lade_code_t lade_path_link(const char *from, const char *to, bool (*step)(void *arg, int64_t bytes),
                           void *arg, lade_error_t *error);

// Removes a file or a tree; what is not there is no error. Never follows symbolic links.
lade_code_t lade_path_remove(const char *path, lade_error_t *error);

// Bytes of a file, or of all files under a folder; -1 if it is not there.
int64_t lade_path_size(const char *path);

// Reads a whole file of at most max bytes; *data_p is ended by a NUL and yours to free.
lade_code_t lade_path_read(const char *path, size_t max, char **data_p, size_t *len_p,
                           lade_error_t *error);

// Writes a file whole or not at all: temporary beside it, fsync, rename over, folder fsync.
lade_code_t lade_path_write(const char *path, const void *data, size_t len, mode_t mode,
                            lade_error_t *error);

#endif
