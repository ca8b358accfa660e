#include "common/away.h"

#include "common/path.h"

#include <dirent.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool
s_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// Whether nothing but hidden names is in the folder.
static bool
s_is_empty(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = dir != NULL;
    for (struct dirent *entry; empty && (entry = readdir(dir));)
        empty = *entry->d_name == '.';
    if (dir)
        closedir(dir);
    return empty;
}

static bool
s_is_mounted(const char *path)
{
    struct stat own, above;
    char *folder = lade_path_folder(path);
    bool mounted = stat(path, &own) == 0 && stat(folder, &above) == 0 &&
                   (own.st_dev != above.st_dev || own.st_ino == above.st_ino);
    free(folder);
    return mounted;
}

bool
lade_away_unmounted(const char *table, const char *path, char *words, size_t size)
{
    FILE *file = setmntent(table, "r");
    struct mntent entry;
    char buffer[4096];
    bool unmounted = false;
    while (file && !unmounted && getmntent_r(file, &entry, buffer, sizeof buffer)) {
        const char *where = entry.mnt_dir;
        if (*where != '/' || !where[1] || !lade_path_inside(where, path) || s_is_mounted(where))
            continue;
        snprintf(words, size, "%.200s is not mounted, and %s names it", where, table);
        unmounted = true;
    }
    if (file)
        endmntent(file);
    return unmounted;
}

// The nearest folder above that is there.
char *
lade_away_standing(const char *path)
{
    char *folder = lade_path_folder(path);
    while (strcmp(folder, "/") != 0 && !s_is_folder(folder)) {
        char *above = lade_path_folder(folder);
        free(folder);
        folder = above;
    }
    return folder;
}

// Where systems mount what comes and goes.
static bool
s_holds_drives(const char *folder)
{
    static const char *const places[] = {"/", "/mnt", "/media", "/run/media", "/net", "/Volumes"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(folder, places[i]) == 0)
            return true;
    char *above = lade_path_folder(folder); // /media/USER
    bool holds = strcmp(above, "/media") == 0 || strcmp(above, "/run/media") == 0;
    free(above);
    return holds;
}

static bool
s_models_away(const char *folder, char *words, size_t size)
{
    bool there = s_is_folder(folder);
    if (there && !s_is_empty(folder))
        return false;
    if (there)
        snprintf(words, size, "the models folder %.200s is empty: is its drive mounted?", folder);
    else
        snprintf(words, size, "the models folder %.200s is gone", folder);
    return true;
}

static bool
s_folder_away(const char *path, char *words, size_t size)
{
    char *standing = lade_away_standing(path), *folder = lade_path_folder(path);
    bool away = true;
    if (strcmp(standing, folder) != 0 && s_holds_drives(standing))
        snprintf(words, size, "%.200s is gone: is its drive mounted?", folder);
    else if (s_is_empty(standing))
        snprintf(words, size, "%.200s is empty: is its drive mounted?", standing);
    else
        away = false;
    free(standing);
    free(folder);
    return away;
}

bool
lade_away(const char *path, const char *inside, char *words, size_t size)
{
    return lade_away_unmounted("/etc/fstab", path, words, size) ||
           (inside ? s_models_away(inside, words, size) : s_folder_away(path, words, size));
}
