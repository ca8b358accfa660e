// What a power loss would leave: preloaded into a program, this notes what it has made durable.
//
// LADE_POWER_ROOT is the folder that is watched, LADE_POWER_MIRROR where the notes go:
//
//   f.INODE   the content of a file as it was when its last fsync or fdatasync began
//   d.INODE   the names in a folder as they were then, a line each: INODE NAME
//
// test_power_loss.py kills the program and makes the folder into what is noted.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef int (*s_sync_t)(int fd);

static int
s_is_watched(int fd)
{
    const char *root = getenv("LADE_POWER_ROOT");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (!root || len < 0)
        return 0;
    path[len] = '\0';
    return strncmp(path, root, strlen(root)) == 0;
}

static void
s_copy(int fd, int to, const struct stat *info)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int from = open(link, O_RDONLY | O_CLOEXEC);
    off_t at = 0;
    while (from >= 0 && at < info->st_size &&
           sendfile(to, from, &at, (size_t)(info->st_size - at)) > 0)
        ;
    if (ftruncate(to, info->st_size) == 0) {
        const struct timespec times[2] = {info->st_atim, info->st_mtim};
        futimens(to, times);
    }
    if (from >= 0)
        close(from);
}

static void
s_list(int fd, int to)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    DIR *folder = opendir(link);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_type == DT_REG)
            dprintf(to, "%llu %s\n", (unsigned long long)entry->d_ino, entry->d_name);
    if (folder)
        closedir(folder);
}

// Notes first and syncs then: what comes while the disk works is not promised. The note counts when
// the sync has succeeded.
static int
s_sync(int fd, const char *name)
{
    s_sync_t sync = (s_sync_t)dlsym(RTLD_NEXT, name);
    struct stat info;
    const char *mirror = getenv("LADE_POWER_MIRROR");
    if (!mirror || !s_is_watched(fd) || fstat(fd, &info) != 0 ||
        !(S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)))
        return sync(fd);
    char path[4096], noted[4096];
    snprintf(path, sizeof path, "%s/%c.%llu.%ld", mirror, S_ISDIR(info.st_mode) ? 'd' : 'f',
             (unsigned long long)info.st_ino, syscall(SYS_gettid));
    snprintf(noted, sizeof noted, "%s/%c.%llu", mirror, S_ISDIR(info.st_mode) ? 'd' : 'f',
             (unsigned long long)info.st_ino);
    int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0)
        return sync(fd);
    if (S_ISDIR(info.st_mode))
        s_list(fd, to);
    else
        s_copy(fd, to, &info);
    close(to);
    int status = sync(fd);
    if (status != 0 || rename(path, noted) != 0)
        unlink(path);
    return status;
}

int
fsync(int fd)
{
    return s_sync(fd, "fsync");
}

int
fdatasync(int fd)
{
    return s_sync(fd, "fdatasync");
}
