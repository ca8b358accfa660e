// Threads that take no signals: those are the loop's, and one taken elsewhere would end the
// process.
#ifndef LADE_THREAD_H
#define LADE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

// Starts one. False if the system has none left.
bool lade_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);

// Starts count of them; aborts if the system has too few.
void lade_thread_start_all(pthread_t *threads, size_t count, void *(*run)(void *arg), void *arg);

#endif
