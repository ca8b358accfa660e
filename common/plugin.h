// Shared objects that are opened at run time, so that nothing but them needs a vendor's libraries.
#ifndef LADE_PLUGIN_H
#define LADE_PLUGIN_H

#include "common/error.h"

// Opens lade-gpu-NAME.so: in $LADE_PLUGINS if that variable is set, else beside the program or
// library this code is in, in ../lib/lade or in lade from there. Calls its function of that name,
// which returns a table that begins with its version. The object stays open till the process ends.
// LADE_NOT_FOUND if there is none, LADE_CONFIG_ERROR for one that cannot be opened or is of another
// version; the sentence is what an operator is told.
lade_code_t lade_plugin_open(const char *name, const char *symbol, const void **table_p,
                             lade_error_t *error);

#endif
