// The steps from one schema of the keyspace to the next; each works inside the one transaction of
// opening, and is a row of s_migrations in store.c.
#ifndef LADE_STORE_UPGRADE_H
#define LADE_STORE_UPGRADE_H

#include "broker/store.h"

// 1 to 2: the ordered indexes of the records, and how many each class has.
lade_code_t lade_records_upgrade_indexes(lade_store_t *store, lade_error_t *error);

#endif
