// Paths and files: safe names, folders, and the steps that make a file appear whole or not at all.
#include "common/path.h"
#include "common/point.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_MAX_TREE_DEPTH = 64,  // folders within folders: deeper is a loop or an attack
    S_COPY_PIECE = 8 << 20, // bytes copied between two calls of step
};

char *
lade_path_join(const char *folder, const char *name)
{
    size_t len = strlen(folder);
    char *path;
    if (asprintf(&path, "%s%s%s", folder, len && folder[len - 1] == '/' ? "" : "/", name) < 0)
        abort();
    return path;
}

// Length of path without slashes at its end (the root keeps its one).
static size_t
s_trimmed(const char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    return len;
}

char *
lade_path_name(const char *path)
{
    size_t len = s_trimmed(path), start = len;
    while (start > 0 && path[start - 1] != '/')
        start--;
    return strndup(path + start, len - start);
}

char *
lade_path_folder(const char *path)
{
    size_t len = s_trimmed(path);
    while (len > 0 && path[len - 1] != '/')
        len--;
    if (len == 0)
        return strdup(".");
    while (len > 1 && path[len - 1] == '/')
        len--;
    return strndup(path, len);
}

// A new folder is there after a power loss only once the folder it is in is synced; whoever may
// write but not read that one does without.
static void
s_sync_above(const char *path)
{
    char *folder = lade_path_folder(path);
    lade_path_sync_folder(folder, NULL);
    free(folder);
}

lade_code_t
lade_path_mkdirs(const char *path, mode_t mode, lade_error_t *error)
{
    struct stat there;
    if (stat(path, &there) == 0 && S_ISDIR(there.st_mode)) // as it is most often
        return LADE_OK;
    char *copy = strdup(path);
    lade_code_t code = LADE_OK;
    for (char *at = copy + (*copy == '/'); !code; at++) {
        if (*at && *at != '/')
            continue;
        char end = *at;
        *at = '\0';
        struct stat st;
        if (mkdir(copy, mode) == 0)
            s_sync_above(copy);
        else if (errno != EEXIST || stat(copy, &st) != 0 || !S_ISDIR(st.st_mode))
            code = lade_error_errno(error, errno == EEXIST ? ENOTDIR : errno,
                                    "cannot create the folder %s", copy);
        *at = end;
        if (!end)
            break;
    }
    free(copy);
    return code;
}

// True if the text is well-formed UTF-8 (RFC 3629) without control characters.
static bool
s_clean_text(const unsigned char *at)
{
    while (*at) {
        if (*at < 0x20 || *at == 0x7f)
            return false;
        size_t more = *at < 0x80                  ? 0
                      : *at >= 0xc2 && *at < 0xe0 ? 1
                      : *at >= 0xe0 && *at < 0xf0 ? 2
                      : *at >= 0xf0 && *at < 0xf5 ? 3
                                                  : SIZE_MAX;
        if (more == SIZE_MAX || (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f) ||
            (*at == 0xf0 && at[1] < 0x90) || (*at == 0xf4 && at[1] > 0x8f))
            return false;
        at++;
        for (; more; more--, at++)
            if ((*at & 0xc0) != 0x80)
                return false;
    }
    return true;
}

lade_code_t
lade_path_check_name(const char *name, lade_error_t *error)
{
    const char *why = NULL;
    if (!*name)
        why = "is empty";
    else if (strlen(name) > 255)
        why = "is longer than 255 bytes";
    else if (strncmp(name, "..", 2) == 0 || strcmp(name, ".") == 0)
        why = "leads out of its folder";
    else if (strpbrk(name, "/\\"))
        why = "has a slash in it";
    else if (isalpha((unsigned char)name[0]) && name[1] == ':')
        why = "names a drive";
    else if (!s_clean_text((const unsigned char *)name))
        why = "has control characters or is not UTF-8";
    if (why)
        return lade_error_set(error, LADE_VALUE_ERROR, "'%.100s' is no safe file name: it %s", name,
                              why);
    return LADE_OK;
}

lade_code_t
lade_path_check_relative(const char *path, lade_error_t *error)
{
    if (*path == '/')
        return lade_error_set(error, LADE_VALUE_ERROR, "'%.100s' is no relative path", path);
    if (strlen(path) > 4000)
        return lade_error_set(error, LADE_VALUE_ERROR, "a path of %zu bytes is too long",
                              strlen(path));
    char *copy = strdup(path), *rest = copy, *part;
    lade_code_t code = LADE_OK;
    while (!code && (part = strsep(&rest, "/")))
        code = lade_path_check_name(part, error);
    free(copy);
    return code;
}

bool
lade_path_inside(const char *folder, const char *path)
{
    size_t len = s_trimmed(folder);
    if (strncmp(folder, path, len) != 0)
        return false;
    return path[len] == '\0' || path[len] == '/' || (len == 1 && *folder == '/');
}

// ---------------------------------------------------------------------------------------------------
// Durability

static lade_code_t
s_sync(const char *path, int flags, lade_error_t *error)
{
    int fd = open(path, flags | O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    lade_code_t code = LADE_OK;
    LADE_POINT("fsync");
    if (fsync(fd) != 0)
        code = lade_error_errno(error, errno, "cannot make %s durable", path);
    LADE_POINT("fsync done");
    close(fd);
    return code;
}

lade_code_t
lade_path_sync_folder(const char *folder, lade_error_t *error)
{
    return s_sync(folder, O_DIRECTORY, error);
}

// Calls each for the entries of a folder ("." and ".." left out) until one fails.
static lade_code_t
s_each_entry(const char *folder,
             lade_code_t (*each)(const char *path, void *arg, lade_error_t *error), void *arg,
             lade_error_t *error)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return lade_error_errno(error, errno, "cannot read the folder %s", folder);
    lade_code_t code = LADE_OK;
    struct dirent *entry;
    while (!code && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = lade_path_join(folder, entry->d_name);
        code = each(path, arg, error);
        free(path);
    }
    closedir(dir);
    return code;
}

static lade_code_t
s_sync_entry(const char *path, void *arg, lade_error_t *error)
{
    int *depth = arg;
    struct stat st;
    if (lstat(path, &st) != 0)
        return lade_error_errno(error, errno, "cannot look at %s", path);
    if (S_ISREG(st.st_mode))
        return s_sync(path, 0, error);
    if (!S_ISDIR(st.st_mode))
        return LADE_OK;
    if (++*depth > S_MAX_TREE_DEPTH)
        return lade_error_set(error, LADE_TOO_LARGE, "%s is nested deeper than %d folders", path,
                              S_MAX_TREE_DEPTH);
    lade_code_t code = s_each_entry(path, s_sync_entry, arg, error);
    --*depth;
    return code ? code : lade_path_sync_folder(path, error);
}

lade_code_t
lade_path_sync_tree(const char *path, lade_error_t *error)
{
    int depth = 0;
    return s_sync_entry(path, &depth, error);
}

lade_code_t
lade_path_publish(const char *from, const char *to, lade_error_t *error)
{
    LADE_POINT("publish");
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) != 0) {
        // Some network file systems cannot say "no replace"; a hard link can, for files.
        struct stat st;
        bool linked = errno == EINVAL && stat(from, &st) == 0 && S_ISREG(st.st_mode) &&
                      link(from, to) == 0 && unlink(from) == 0;
        if (!linked)
            return lade_error_errno(error, errno == ENOTEMPTY ? EEXIST : errno,
                                    "cannot move %s to %s", from, to);
    }
    LADE_POINT("published");
    char *old = lade_path_folder(from), *new = lade_path_folder(to);
    lade_code_t code = lade_path_sync_folder(new, error);
    if (!code && strcmp(old, new) != 0)
        code = lade_path_sync_folder(old, error);
    free(old);
    free(new);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Copying

typedef struct {
    const char *to; // the folder entries are copied into
    bool (*step)(void *arg, int64_t bytes);
    void *arg;
    int depth;
    bool link; // hard links, where that can be
} s_copy_t;

static bool
s_step(s_copy_t *copy, int64_t bytes)
{
    return !copy->step || copy->step(copy->arg, bytes);
}

// Reads a piece and writes it: how many bytes, 0 at the end, -1 with errno.
static ssize_t
s_copy_piece(int in, int out, char *buffer)
{
    ssize_t got = read(in, buffer, S_COPY_PIECE);
    for (ssize_t done = 0; done < got;) {
        ssize_t put = write(out, buffer + done, (size_t)(got - done));
        if (put < 0 && errno != EINTR)
            return -1;
        done += put > 0 ? put : 0;
    }
    return got;
}

static bool
s_kernel_cannot(int errnum)
{
    return errnum == EXDEV || errnum == EINVAL || errnum == ENOSYS || errnum == EOPNOTSUPP;
}

// Copies what is left of one open file to another; the kernel does it where it can.
static lade_code_t
s_copy_bytes(int in, int out, const char *from, s_copy_t *copy, lade_error_t *error)
{
    char *buffer = NULL; // there is one once the kernel could not
    lade_code_t code = LADE_OK;
    for (ssize_t got = 1; got && !code;) {
        got = buffer ? s_copy_piece(in, out, buffer)
                     : copy_file_range(in, NULL, out, NULL, S_COPY_PIECE, 0);
        if (got < 0 && !buffer && s_kernel_cannot(errno)) {
            buffer = malloc(S_COPY_PIECE);
            if (!buffer)
                code = lade_error_set(error, LADE_NO_MEMORY, "no memory to copy %s", from);
        } else if (got < 0 && errno != EINTR) {
            code = lade_error_errno(error, errno, "cannot copy %s", from);
        } else if (got > 0 && !s_step(copy, got)) {
            code = lade_error_set(error, LADE_CANCELLED, "the copy of %s was stopped", from);
        }
    }
    free(buffer);
    return code;
}

// True if `to` is now another name of the file `from`. What a symbolic link points to belongs to
// somebody else and is not shared.
static bool
s_link_file(const char *from, const char *to, const s_copy_t *copy)
{
    struct stat st;
    return copy->link && lstat(from, &st) == 0 && S_ISREG(st.st_mode) && link(from, to) == 0;
}

static lade_code_t
s_copy_file(const char *from, const char *to, s_copy_t *copy, lade_error_t *error)
{
    if (s_link_file(from, to, copy)) {
        if (!s_step(copy, lade_path_size(to)))
            return lade_error_set(error, LADE_CANCELLED, "the copy was stopped");
        return s_sync(to, 0, error);
    }
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return lade_error_errno(error, errno, "cannot read %s", from);
    struct stat st;
    lade_code_t code = LADE_OK;
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out < 0)
        code = lade_error_errno(error, errno, "cannot create %s", to);
    else if (fstat(in, &st) == 0 && ioctl(out, FICLONE, in) == 0)
        code = s_step(copy, st.st_size)
                   ? LADE_OK
                   : lade_error_set(error, LADE_CANCELLED, "the copy was stopped");
    else
        code = s_copy_bytes(in, out, from, copy, error);
    LADE_POINT("copied");
    if (!code && fsync(out) != 0)
        code = lade_error_errno(error, errno, "cannot make %s durable", to);
    if (out >= 0)
        close(out);
    close(in);
    return code;
}

static lade_code_t
s_copy_entry(const char *from, void *arg, lade_error_t *error)
{
    s_copy_t *copy = arg;
    struct stat st;
    char *name = lade_path_name(from);
    char *to = copy->depth ? lade_path_join(copy->to, name) : strdup(copy->to);
    free(name);
    lade_code_t code = LADE_OK;
    if (lstat(from, &st) != 0) {
        code = lade_error_errno(error, errno, "cannot look at %s", from);
    } else if (S_ISDIR(st.st_mode) ||
               (copy->depth == 0 && stat(from, &st) == 0 && S_ISDIR(st.st_mode))) {
        if (copy->depth >= S_MAX_TREE_DEPTH)
            code = lade_error_set(error, LADE_TOO_LARGE, "%s is nested deeper than %d folders",
                                  from, S_MAX_TREE_DEPTH);
        else if (mkdir(to, 0755) != 0)
            code = lade_error_errno(error, errno, "cannot create the folder %s", to);
        s_copy_t inner = {to, copy->step, copy->arg, copy->depth + 1, copy->link};
        if (!code)
            code = s_each_entry(from, s_copy_entry, &inner, error);
        if (!code)
            code = lade_path_sync_folder(to, error);
    } else if (stat(from, &st) == 0 && S_ISREG(st.st_mode)) {
        code = s_copy_file(from, to, copy, error);
    } // sockets, devices and links to folders are no part of a model
    free(to);
    return code;
}

static lade_code_t
s_copy(const char *from, s_copy_t *copy, lade_error_t *error)
{
    struct stat st;
    if (lstat(copy->to, &st) == 0)
        return lade_error_errno(error, EEXIST, "cannot copy %s to %s", from, copy->to);
    return s_copy_entry(from, copy, error);
}

lade_code_t
lade_path_copy(const char *from, const char *to, bool (*step)(void *arg, int64_t bytes), void *arg,
               lade_error_t *error)
{
    s_copy_t copy = {to, step, arg, 0, false};
    return s_copy(from, &copy, error);
}

lade_code_t
lade_path_link(const char *from, const char *to, bool (*step)(void *arg, int64_t bytes), void *arg,
               lade_error_t *error)
{
    s_copy_t copy = {to, step, arg, 0, true};
    return s_copy(from, &copy, error);
}

// ---------------------------------------------------------------------------------------------------
// Removing, measuring, whole files

static lade_code_t
s_remove_entry(const char *path, void *arg, lade_error_t *error)
{
    int *depth = arg;
    if (unlink(path) == 0 || errno == ENOENT)
        return LADE_OK;
    if (errno != EISDIR && errno != EPERM)
        return lade_error_errno(error, errno, "cannot remove %s", path);
    if (++*depth > S_MAX_TREE_DEPTH * 4)
        return lade_error_set(error, LADE_TOO_LARGE, "%s is nested too deeply to remove", path);
    lade_code_t code = s_each_entry(path, s_remove_entry, arg, error);
    --*depth;
    if (!code && rmdir(path) != 0 && errno != ENOENT)
        code = lade_error_errno(error, errno, "cannot remove %s", path);
    return code;
}

lade_code_t
lade_path_remove(const char *path, lade_error_t *error)
{
    int depth = 0;
    return s_remove_entry(path, &depth, error);
}

typedef struct {
    int64_t bytes;
    int depth;
} s_measure_t;

static lade_code_t
s_measure_entry(const char *path, void *arg, lade_error_t *error)
{
    s_measure_t *measure = arg;
    struct stat st;
    if (lstat(path, &st) != 0)
        return LADE_OK; // it went while we looked
    if (S_ISLNK(st.st_mode) && (stat(path, &st) != 0 || S_ISDIR(st.st_mode)))
        return LADE_OK;
    if (S_ISREG(st.st_mode))
        measure->bytes += st.st_size;
    if (!S_ISDIR(st.st_mode) || measure->depth >= S_MAX_TREE_DEPTH)
        return LADE_OK;
    measure->depth++;
    lade_code_t code = s_each_entry(path, s_measure_entry, arg, error);
    measure->depth--;
    return code;
}

int64_t
lade_path_size(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return -1;
    if (!S_ISDIR(st.st_mode))
        return st.st_size;
    s_measure_t measure = {0, 1};
    return s_each_entry(path, s_measure_entry, &measure, NULL) ? -1 : measure.bytes;
}

lade_code_t
lade_path_read(const char *path, size_t max, char **data_p, size_t *len_p, lade_error_t *error)
{
    *data_p = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe must not hold us
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot read %s", path);
    struct stat st;
    lade_code_t code = LADE_OK;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        code = lade_error_set(error, LADE_IO_ERROR, "%s is no file", path);
    else if ((uint64_t)st.st_size > max)
        code = lade_error_set(error, LADE_TOO_LARGE,
                              "%s has %lld bytes, more than the %zu read at most", path,
                              (long long)st.st_size, max);
    size_t size = code ? 0 : (size_t)st.st_size, len = 0;
    char *data = code ? NULL : malloc(size + 1);
    if (!code && !data)
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory to read %s", path);
    while (!code && len < size) {
        ssize_t got = read(fd, data + len, size - len);
        if (got == 0)
            break;
        if (got < 0 && errno != EINTR)
            code = lade_error_errno(error, errno, "cannot read %s", path);
        else if (got > 0)
            len += (size_t)got;
    }
    close(fd);
    if (code) {
        free(data);
        return code;
    }
    data[len] = '\0';
    *data_p = data;
    if (len_p)
        *len_p = len;
    return LADE_OK;
}

lade_code_t
lade_path_write(const char *path, const void *data, size_t len, mode_t mode, lade_error_t *error)
{
    char *temporary;
    if (asprintf(&temporary, "%s.tmp-%d", path, (int)getpid()) < 0)
        abort();
    lade_code_t code = LADE_OK;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        code = lade_error_errno(error, errno, "cannot create %s", temporary);
    for (size_t done = 0; !code && done < len;) {
        ssize_t put = write(fd, (const char *)data + done, len - done);
        if (put < 0 && errno != EINTR)
            code = lade_error_errno(error, errno, "cannot write %s", temporary);
        else if (put > 0)
            done += (size_t)put;
    }
    if (!code && fsync(fd) != 0)
        code = lade_error_errno(error, errno, "cannot make %s durable", temporary);
    if (fd >= 0)
        close(fd);
    LADE_POINT("write");
    if (!code && rename(temporary, path) != 0)
        code = lade_error_errno(error, errno, "cannot rename %s to %s", temporary, path);
    LADE_POINT("written");
    if (code) {
        unlink(temporary);
    } else {
        char *folder = lade_path_folder(path);
        code = lade_path_sync_folder(folder, error);
        free(folder);
    }
    free(temporary);
    return code;
}
