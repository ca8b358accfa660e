// The shipped conversions (configs/convert/*.yaml), compiled in by scripts/embed; ended by a file
// without name.
#ifndef LADE_CONVERT_DATA_H
#define LADE_CONVERT_DATA_H

#include "common/identify/families_data.h"

extern const lade_families_file_t lade_convert_data[];

#endif
