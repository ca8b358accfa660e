// Walking and copying files and folders by their descriptors.
#include "workers/download/tree.h"

#include "common/hash.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_MAX_DEPTH = 64,  // folders within folders: deeper is a loop or an attack
    S_PIECE = 8 << 20, // bytes between two calls of step
    S_OPEN = O_RDONLY | O_CLOEXEC | O_NONBLOCK, // a pipe must not hold us
};

// What is called for each thing in a folder, and for the folder itself first.
typedef struct s_walk s_walk_t;
struct s_walk {
    // fd: of a folder or, in a copy, a file; else -1. path: from the root of the walk, "" for the
    // root.
    lade_code_t (*each)(s_walk_t *walk, int above, const char *name, int fd, const struct stat *st,
                        lade_error_t *error);
    const char *root;
    char path[PATH_MAX];
    int depth;
    lade_tree_t *tree; // of a look
    // of a copy
    const lade_tree_how_t *how;
    int to; // the folder copied into
    const char *to_name;
};

// ---------------------------------------------------------------------------------------------------
// Walking

// Opens what is there if it is a file or folder that is to be read; else *fd_p is -1.
static lade_code_t
s_open(const s_walk_t *walk, int above, const char *name, int *fd_p, struct stat *st,
       lade_error_t *error)
{
    bool root = walk->depth == 0;
    *fd_p = -1;
    if (fstatat(above, name, st, root ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
        return lade_error_errno(error, errno, "cannot look at %s%s", walk->root, walk->path);
    if (S_ISLNK(st->st_mode))
        return LADE_OK;
    if (S_ISDIR(st->st_mode) || (S_ISREG(st->st_mode) && walk->how)) { // a look reads no file
        *fd_p = openat(above, name, S_OPEN | (root ? 0 : O_NOFOLLOW));
        if (*fd_p < 0 || fstat(*fd_p, st) != 0)
            return lade_error_errno(error, errno, "cannot read %s%s", walk->root, walk->path);
    }
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
        return lade_error_set(error, LADE_VALUE_ERROR, "%s%s is neither a file nor a folder",
                              walk->root, walk->path);
    return LADE_OK;
}

static lade_code_t s_visit(s_walk_t *walk, int above, const char *name, lade_error_t *error);

static lade_code_t
s_visit_entries(s_walk_t *walk, int folder, lade_error_t *error)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); // closedir takes it
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir)
        return lade_error_errno(error, errno, "cannot read the folder %s%s", walk->root,
                                walk->path);
    lade_code_t code = LADE_OK;
    size_t len = strlen(walk->path);
    for (struct dirent *entry; !code && (errno = 0, entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int put = snprintf(walk->path + len, sizeof walk->path - len, "/%s", entry->d_name);
        if ((size_t)put >= sizeof walk->path - len)
            code = lade_error_set(error, LADE_TOO_LARGE, "%s%.100s… is too long a path", walk->root,
                                  walk->path);
        else
            code = s_visit(walk, folder, entry->d_name, error);
        walk->path[len] = '\0';
    }
    if (!code && errno)
        code =
            lade_error_errno(error, errno, "cannot read the folder %s%s", walk->root, walk->path);
    closedir(dir);
    return code;
}

static lade_code_t
s_visit(s_walk_t *walk, int above, const char *name, lade_error_t *error)
{
    int fd;
    struct stat st;
    if (walk->depth > S_MAX_DEPTH)
        return lade_error_set(error, LADE_TOO_LARGE, "%s has more than %d folders in each other",
                              walk->root, S_MAX_DEPTH);
    lade_code_t code = s_open(walk, above, name, &fd, &st, error);
    walk->depth++;
    if (!code)
        code = walk->each(walk, above, name, fd, &st, error);
    walk->depth--;
    if (fd >= 0)
        close(fd);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Looking

static lade_code_t
s_look_each(s_walk_t *walk, int above, const char *name, int fd, const struct stat *st,
            lade_error_t *error)
{
    struct {
        uint64_t ino, size, mtime_s, mtime_ns, mode;
        uint8_t name[16], link[16];
    } facts;
    char link[PATH_MAX];
    uint64_t print[2];
    bool folder = S_ISDIR(st->st_mode);
    ssize_t len = S_ISLNK(st->st_mode) ? readlinkat(above, name, link, sizeof link) : 0;
    if (len < 0)
        return lade_error_errno(error, errno, "cannot read the link %s%s", walk->root, walk->path);
    memset(&facts, 0, sizeof facts); // padding is hashed too
    facts.ino = st->st_ino;
    facts.mode = st->st_mode;
    if (!folder) { // a folder's own say nothing that its entries do not
        facts.size = (uint64_t)st->st_size;
        facts.mtime_s = (uint64_t)st->st_mtim.tv_sec;
        facts.mtime_ns = (uint64_t)st->st_mtim.tv_nsec;
    }
    lade_hash_murmur3(walk->path, strlen(walk->path), facts.name);
    lade_hash_murmur3(link, (size_t)len, facts.link);
    lade_hash_murmur3(&facts, sizeof facts, (uint8_t *)print);
    walk->tree->print[0] += print[0]; // a sum, for the order in a folder is none
    walk->tree->print[1] += print[1];
    if (walk->depth == 1)
        walk->tree->folder = folder;
    if (S_ISREG(st->st_mode))
        walk->tree->bytes += st->st_size;
    return folder ? s_visit_entries(walk, fd, error) : LADE_OK;
}

lade_code_t
lade_tree_look(const char *path, lade_tree_t *tree, lade_error_t *error)
{
    s_walk_t *walk = calloc(1, sizeof *walk);
    *tree = (lade_tree_t){0};
    walk->each = s_look_each;
    walk->tree = tree;
    walk->root = path;
    lade_code_t code = s_visit(walk, AT_FDCWD, path, error);
    free(walk);
    return code;
}

bool
lade_tree_same(const lade_tree_t *one, const lade_tree_t *other)
{
    return one->folder == other->folder && one->bytes == other->bytes &&
           one->print[0] == other->print[0] && one->print[1] == other->print[1];
}

// ---------------------------------------------------------------------------------------------------
// Bytes

static lade_code_t
s_step(const lade_tree_how_t *how, int64_t bytes, lade_error_t *error)
{
    lade_code_t code = how->step ? how->step(how->arg, bytes) : LADE_OK;
    return code ? lade_error_set(error, code, "it was stopped") : LADE_OK;
}

// Reads all there is, into the hash and, if out is not -1, into that file.
static lade_code_t
s_read_all(int in, int out, EVP_MD_CTX *hash, const lade_tree_how_t *how, lade_error_t *error)
{
    char *buffer = malloc(S_PIECE);
    if (!buffer)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to copy a file");
    lade_code_t code = LADE_OK;
    for (ssize_t got = 1; got && !code;) {
        got = read(in, buffer, S_PIECE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = lade_error_errno(error, errno, "cannot read the source");
        if (got > 0 && hash)
            EVP_DigestUpdate(hash, buffer, (size_t)got);
        for (ssize_t done = 0; out >= 0 && done < got && !code;) {
            ssize_t put = write(out, buffer + done, (size_t)(got - done));
            if (put < 0 && errno != EINTR)
                code = lade_error_errno(error, errno, "cannot write the copy");
            done += put > 0 ? put : 0;
        }
        if (got > 0 && !code)
            code = s_step(how, got, error);
    }
    free(buffer);
    return code;
}

// The kernel copies; false if it cannot, before anything was copied.
static bool
s_kernel_copies(int in, int out, const lade_tree_how_t *how, lade_code_t *code_p,
                lade_error_t *error)
{
    bool begun = false;
    *code_p = LADE_OK;
    for (ssize_t got = 1; got && !*code_p;) {
        got = copy_file_range(in, NULL, out, NULL, S_PIECE, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && !begun && errno != ENOSPC && errno != EDQUOT && errno != EIO)
            return false;
        begun = true;
        if (got < 0)
            *code_p = lade_error_errno(error, errno, "cannot copy the source");
        if (got > 0)
            *code_p = s_step(how, got, error);
    }
    return true;
}

static void
s_hex(EVP_MD_CTX *hash, char hex[65])
{
    unsigned char digest[32];
    EVP_DigestFinal_ex(hash, digest, NULL);
    for (size_t i = 0; i < sizeof digest; i++)
        sprintf(hex + i * 2, "%02x", digest[i]);
}

// One file's bytes to another. Where the file system shares them, they are at most read.
static lade_code_t
s_copy_bytes(int in, int out, int64_t size, const lade_tree_how_t *how, lade_error_t *error)
{
    EVP_MD_CTX *hash = how->sha256 ? EVP_MD_CTX_new() : NULL;
    lade_code_t code = LADE_OK;
    if (hash)
        EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    bool shared = ioctl(out, FICLONE, in) == 0;
    if (!shared && size > 0 && fallocate(out, 0, 0, size) != 0 &&
        (errno == ENOSPC || errno == EDQUOT))
        code = lade_error_errno(error, errno, "there is no room for %lld bytes", (long long)size);
    else if (hash)
        code = s_read_all(in, shared ? -1 : out, hash, how, error);
    else if (shared)
        code = s_step(how, size, error);
    else if (!s_kernel_copies(in, out, how, &code, error))
        code = s_read_all(in, out, NULL, how, error);
    if (!code && !shared && ftruncate(out, lseek(out, 0, SEEK_CUR)) != 0) // it may have shrunk
        code = lade_error_errno(error, errno, "cannot cut the copy");
    if (hash && !code)
        s_hex(hash, how->sha256);
    EVP_MD_CTX_free(hash);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Copying

// Permissions and times, then durable.
static lade_code_t
s_finish(int fd, const struct stat *st, const char *path, lade_error_t *error)
{
    const struct timespec times[] = {st->st_atim, st->st_mtim};
    mode_t own = S_ISDIR(st->st_mode) ? 0700 : 0600; // we have to be able to remove it again
    if (fchmod(fd, (st->st_mode & 0777) | own) != 0 || futimens(fd, times) != 0 || fsync(fd) != 0)
        return lade_error_errno(error, errno, "cannot make the copy of %s durable", path);
    return LADE_OK;
}

static lade_code_t
s_copy_file(s_walk_t *walk, int in, const struct stat *st, lade_error_t *error)
{
    int out =
        openat(walk->to, walk->to_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0)
        return lade_error_errno(error, errno, "cannot create %s", walk->to_name);
    lade_code_t code = s_copy_bytes(in, out, st->st_size, walk->how, error);
    if (!code)
        code = s_finish(out, st, walk->to_name, error);
    if (close(out) != 0 && !code)
        code = lade_error_errno(error, errno, "cannot write %s", walk->to_name);
    return code;
}

static lade_code_t
s_copy_link(s_walk_t *walk, int above, const char *name, lade_error_t *error)
{
    char link[PATH_MAX];
    ssize_t len = readlinkat(above, name, link, sizeof link - 1);
    link[len > 0 ? len : 0] = '\0';
    if (len < 0 || symlinkat(link, walk->to, walk->to_name) != 0)
        return lade_error_errno(error, errno, "cannot copy the link %s%s", walk->root, walk->path);
    return LADE_OK;
}

static lade_code_t
s_copy_folder(s_walk_t *walk, int fd, const struct stat *st, lade_error_t *error)
{
    int above = walk->to;
    const char *name = walk->to_name;
    if (mkdirat(above, name, 0700) != 0)
        return lade_error_errno(error, errno, "cannot create the folder %s", name);
    walk->to = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    lade_code_t code = walk->to < 0
                           ? lade_error_errno(error, errno, "cannot open the folder %s", name)
                           : s_visit_entries(walk, fd, error);
    if (!code)
        code = s_finish(walk->to, st, name, error);
    if (walk->to >= 0)
        close(walk->to);
    walk->to = above;
    walk->to_name = name;
    return code;
}

static lade_code_t
s_copy_each(s_walk_t *walk, int above, const char *name, int fd, const struct stat *st,
            lade_error_t *error)
{
    if (walk->depth > 1)
        walk->to_name = name;
    if (fd < 0)
        return s_copy_link(walk, above, name, error);
    return S_ISDIR(st->st_mode) ? s_copy_folder(walk, fd, st, error)
                                : s_copy_file(walk, fd, st, error);
}

lade_code_t
lade_tree_copy(const char *from, const char *to, const lade_tree_how_t *how, lade_error_t *error)
{
    s_walk_t *walk = calloc(1, sizeof *walk);
    walk->each = s_copy_each;
    walk->how = how;
    walk->root = from;
    walk->to = AT_FDCWD;
    walk->to_name = to;
    lade_code_t code = s_visit(walk, AT_FDCWD, from, error);
    free(walk);
    return code;
}

lade_code_t
lade_tree_hash(const char *path, const lade_tree_how_t *how, lade_error_t *error)
{
    assert(how->sha256);
    int fd = open(path, S_OPEN);
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot read %s", path);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    lade_code_t code = s_read_all(fd, -1, hash, how, error);
    if (!code)
        s_hex(hash, how->sha256);
    EVP_MD_CTX_free(hash);
    close(fd);
    return code;
}
