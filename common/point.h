// Points where a test build dies on purpose: before and after each step that is durable or seen by
// others (an fsync, a rename, a message, a commit). In normal builds a point is nothing.
//
// A build with -DLADE_POINTS (make POINTS=1) counts them while the file LADE_POINTS_ON exists,
// writes the name of each into the file LADE_POINTS_LOG, and kills itself at number
// LADE_POINTS_KILL.
#ifndef LADE_POINT_H
#define LADE_POINT_H

#ifdef LADE_POINTS
void lade_point(const char *name);
#define LADE_POINT(name) lade_point(name)
#else
#define LADE_POINT(name) ((void)0)
#endif

#endif
