// Whether a device works, asked in a process of its own: what a driver says in one that has seen
// its device fail is worth nothing.
#ifndef LADE_GPU_PROBE_H
#define LADE_GPU_PROBE_H

#include <stdbool.h>
#include <stddef.h>

// Runs this program as "PROGRAM --probe NAME:N" and waits for it, not for ever. why is filled with
// what it said when the device does not work. Blocks; safe from any thread.
bool lade_probe_device(const char *device, char *why, size_t size);

// If these are the arguments of such a process: does what it is for, and returns its exit status.
// Else -1.
int lade_probe_main(int argc, char **argv);

#endif
