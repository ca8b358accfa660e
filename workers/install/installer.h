// The install worker's side of the loop: tasks come in, stages run in a pool, answers go out.
#ifndef LADE_INSTALLER_H
#define LADE_INSTALLER_H

#include "common/config.h"
#include "common/error.h"
#include "workers/worker/worker.h"

typedef struct lade_installer lade_installer_t;

// Reads the identification rules, tidies the models folder and starts install.slots threads. config
// is borrowed. *self_p is set only on success.
lade_code_t lade_installer_new(const lade_config_t *config, lade_installer_t **self_p,
                               lade_error_t *error);

// What lade_worker_new takes, with the lade_installer_t as its self.
extern const lade_worker_ops_t lade_installer_ops;

// An install was cancelled, or completed: what it left on the disk goes. What lade_ended_new takes,
// with the lade_config_t as its arg.
void lade_installer_cancelled(void *config, int64_t job, const json_t *event);
void lade_installer_completed(void *config, int64_t job, const json_t *event);

// Waits for what is running.
void lade_installer_destroy(lade_installer_t **self_p);

#endif
