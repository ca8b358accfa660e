// For unit tests: a folder of their own with files in it.
#ifndef LADE_TEST_FOLDER_H
#define LADE_TEST_FOLDER_H

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

// A fresh folder; end it with test_folder_end.
static inline char *
test_folder_new(void)
{
    const char *where = getenv("TMPDIR");
    char *folder = lade_path_join(where && *where ? where : "/tmp", "lade-install-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static inline void
test_folder_end(char *folder)
{
    assert_int_equal(lade_path_remove(folder, NULL), LADE_OK);
    free(folder);
}

// Writes a file below the folder, with the folders it needs. The path is yours.
static inline char *
test_folder_write(const char *folder, const char *name, const char *text)
{
    char *path = lade_path_join(folder, name), *parent = lade_path_folder(path);
    assert_int_equal(lade_path_mkdirs(parent, 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_write(path, text, strlen(text), 0644, NULL), LADE_OK);
    free(parent);
    return path;
}

static inline bool
test_folder_has(const char *folder, const char *name)
{
    char *path = lade_path_join(folder, name);
    struct stat st;
    bool there = lstat(path, &st) == 0;
    free(path);
    return there;
}

// Entries of the folder whose names begin with prefix.
static inline size_t
test_folder_count(const char *folder, const char *prefix)
{
    char *command = NULL;
    assert_true(asprintf(&command, "ls -A '%s' 2>/dev/null | grep -c '^%s'", folder, prefix) > 0);
    FILE *out = popen(command, "r");
    size_t count = 0;
    assert_int_equal(fscanf(out, "%zu", &count), 1);
    pclose(out);
    free(command);
    return count;
}

#endif
