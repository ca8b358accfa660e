// A plug-in for tests: "CUDA" devices that are host memory (workers/gpu/fake_backend.h).
#include "workers/gpu/fake_backend.h"

__attribute__((visibility("default"))) const void *lade_backend_plugin(void);
const void *
lade_backend_plugin(void)
{
    static lade_backend_t backend;
    backend = fake_backend;
    backend.importer = lade_backend_host.importer;
    return &backend;
}
