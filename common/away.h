// What is not at its path may be gone, or only away: its drive not mounted, its share not there.
// Records of the latter must not be touched, so in doubt it is away.
#ifndef LADE_AWAY_H
#define LADE_AWAY_H

#include <stdbool.h>
#include <stddef.h>

// Whether a path that is not there (absolute) may only be away; words (of size bytes) then says
// why, and what to look at. inside: the models folder, for what is below it by its record; NULL
// else. Looks at /etc/fstab and at the folders above; blocks for the file system.
bool lade_away(const char *path, const char *inside, char *words, size_t size);

// Whether a table of file systems (as /etc/fstab) names one above the path that is not mounted.
bool lade_away_unmounted(const char *table, const char *path, char *words, size_t size);

// The nearest folder above that is there; yours.
char *lade_away_standing(const char *path);

#endif
