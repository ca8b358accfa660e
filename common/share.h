// What another process needs to see memory of a device, and the plug-in's part that makes it
// visible there. The load worker's plug-in and a program's liblade use the same file.
#ifndef LADE_SHARE_H
#define LADE_SHARE_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
    LADE_SHARE_NONE,
    LADE_SHARE_MEMFD, // map the descriptor
    LADE_SHARE_VMM,   // CUDA: cuMemImportFromShareableHandle of the descriptor
    LADE_SHARE_IPC,   // CUDA: cuIpcOpenMemHandle of the handle
} lade_share_kind_t;

// Travels over a socket as it is, the descriptor beside it.
typedef struct {
    uint32_t kind;
    int32_t fd;       // stays the sharer's, open as long as the memory; -1 for none
    uint64_t bytes;   // that are to be mapped
    char plugin[16];  // whose importer can do it: "cuda"
    uint8_t uuid[16]; // of the device
    uint8_t handle[64];
} lade_share_t;

// Memory of another process, seen here.
typedef struct {
    void *own;
    uint64_t bytes;
    uint64_t address; // on the device; the host's: where it is mapped
    int32_t device;   // the device's number in this process; -1 for the host
} lade_import_t;

// Both sides of the tables of plug-ins are built from this number or do not work with each other.
enum { LADE_PLUGIN_VERSION = 1 };

#define LADE_IMPORTER_SYMBOL "lade_importer_plugin"
typedef struct {
    unsigned version; // the first member for ever

    // Maps shared memory, read-only where the device can. share->fd stays the caller's and may be
    // closed afterwards. LADE_NOT_FOUND if the device is none of this process's, LADE_NO_VRAM,
    // LADE_IO_ERROR. The thread's current device is as before.
    lade_code_t (*import)(const lade_share_t *share, lade_import_t *import, lade_error_t *error);

    // Copies out of it. Blocks.
    lade_code_t (*peek)(const lade_import_t *import, uint64_t from, void *to, size_t size,
                        lade_error_t *error);

    // Waits for what the device still does with it and unmaps. Sets *import to 0s.
    void (*unimport)(lade_import_t *import);
} lade_importer_t;

#endif
