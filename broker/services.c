// The services there are.
#include "broker/call.h"

const lade_service_t *const lade_services[] = {
    &lade_service_jobs, &lade_service_download, &lade_service_install, &lade_service_store,
    &lade_service_load, &lade_service_events,   &lade_service_broker,  NULL,
};
