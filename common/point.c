// Points where a test build dies on purpose.
#include "common/point.h"

#ifdef LADE_POINTS
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
lade_point(const char *name)
{
    static _Atomic long count;
    const char *on = getenv("LADE_POINTS_ON"), *log = getenv("LADE_POINTS_LOG"),
               *dies = getenv("LADE_POINTS_KILL");
    if (!on || access(on, F_OK) != 0)
        return;
    long number = ++count;
    int fd = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) {
        char line[64] = "";
        strncat(line, name, sizeof line - 2);
        strcat(line, "\n");
        if (write(fd, line, strlen(line)) < 0)
            abort();
        close(fd);
    }
    if (dies && number == atol(dies))
        kill(getpid(), SIGKILL);
}
#else
typedef int lade_point_nothing_t; // a file of C has something in it
#endif
