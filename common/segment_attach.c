// Attaching to a segment: the socket, the descriptors, the mapping.
#include "common/segment_private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static lade_code_t
s_connect(const char *socket_path, int timeout_ms, int *fd_p, lade_error_t *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "'%s' is too long for a socket: at most %zu bytes", socket_path,
                              sizeof address.sun_path - 1);
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot make a socket");
    struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        int errnum = errno;
        close(fd);
        if (errnum == EAGAIN)
            return lade_error_set(error, LADE_TIMEOUT,
                                  "the load worker at %s is too busy to answer", socket_path);
        return lade_error_errno(error, errnum, "cannot reach the load worker at %s (has it ended?)",
                                socket_path);
    }
    *fd_p = fd;
    return LADE_OK;
}

// "!CODE sentence" as the error it is.
static lade_code_t
s_refused(char *answer, lade_error_t *error)
{
    char *sentence = strchr(answer, ' ');
    if (sentence)
        *sentence++ = '\0';
    lade_code_t code = lade_code_find(answer + 1);
    return lade_error_set(error, code, "%s", sentence ? sentence : "the load worker refused");
}

// The packet's text into what it says; the descriptors are in fds, -1 for none.
static bool
s_read_answer(const char *answer, size_t len, const int *fds, uint64_t *length_p,
              lade_share_t *share)
{
    if (fds[0] < 0 || (len != sizeof *length_p && len != sizeof *length_p + sizeof *share))
        return false;
    memcpy(length_p, answer, sizeof *length_p);
    *share = (lade_share_t){.kind = LADE_SHARE_NONE};
    if (len > sizeof *length_p)
        memcpy(share, answer + sizeof *length_p, sizeof *share);
    share->fd = fds[1];
    return (share->kind == LADE_SHARE_MEMFD || share->kind == LADE_SHARE_VMM) == (fds[1] >= 0);
}

// Takes the answer: the length and one descriptor, for data on a device two. More descriptors would
// be closed by the kernel, for there is no room for them.
static lade_code_t
s_receive(int connection, uint64_t *length_p, int *fd_p, lade_share_t *share, lade_error_t *error)
{
    int fds[2] = {-1, -1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control = {0};
    char answer[LADE_SEGMENT_MAX_ANSWER + 1];
    struct iovec part = {answer, sizeof answer - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t len;
    do
        len = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    while (len < 0 && errno == EINTR);
    if (len < 0)
        return errno == EAGAIN
                   ? lade_error_set(error, LADE_TIMEOUT, "the load worker did not answer in time")
                   : lade_error_errno(error, errno, "the load worker's answer");
    answer[len] = '\0';
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        (head->cmsg_len == CMSG_LEN(sizeof fds[0]) || head->cmsg_len == CMSG_LEN(sizeof fds)))
        memcpy(fds, CMSG_DATA(head), head->cmsg_len - CMSG_LEN(0));
    *fd_p = fds[0];
    if (s_read_answer(answer, (size_t)len, fds, length_p, share))
        return LADE_OK;
    share->fd = fds[1]; // the caller closes both
    if (answer[0] == '!')
        return s_refused(answer, error);
    return lade_error_set(error, len ? LADE_CORRUPT : LADE_STALE_LEASE,
                          len ? "the load worker's answer is no segment"
                              : "the load worker closed the connection");
}

// Maps what was received, which must be as long as was said: beyond its end a mapping would fault.
// The mapping is of whole pages, huge ones where the segment is of those, or it could not be
// undone.
static lade_code_t
s_map(int fd, uint64_t length, void **mapping_p, size_t *mapped_p, lade_error_t *error)
{
    struct stat status;
    if (fstat(fd, &status) || length < sizeof(lade_segment_head_t) || length > SIZE_MAX / 2 ||
        status.st_size < 0 || (uint64_t)status.st_size < length)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment is not as long as the load worker says");
    uint64_t page =
        status.st_blksize > LADE_SEGMENT_PAGE ? (uint64_t)status.st_blksize : LADE_SEGMENT_PAGE;
    *mapped_p = (length + page - 1) / page * page;
    void *mapping = mmap(NULL, *mapped_p, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED)
        return lade_error_errno(error, errno, "cannot map a segment of %llu bytes",
                                (unsigned long long)length);
    *mapping_p = mapping;
    return LADE_OK;
}

// Opens a mapping, which is unmapped again if it is no segment of exactly that length.
static lade_code_t
s_adopt(void *mapping, size_t mapped, uint64_t length, const lade_share_t *share,
        lade_segment_t **self_p, lade_error_t *error)
{
    lade_code_t code =
        lade_segment_open_shared(mapping, length, share->kind ? share : NULL, self_p, error);
    if (!code && (share->kind ? (*self_p)->head.data_at : (*self_p)->head.length) != length) {
        (*self_p)->share.fd = -1;
        lade_segment_close(self_p);
        code = lade_error_set(error, LADE_CORRUPT,
                              "the segment's head and the load worker disagree about its length");
    }
    if (code) {
        munmap(mapping, mapped);
        return code;
    }
    (*self_p)->mapping = mapping;
    (*self_p)->mapped = mapped;
    return LADE_OK;
}

lade_code_t
lade_segment_attach(const char *socket_path, const char *lease, int timeout_ms,
                    lade_segment_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    int connection = -1, fd = -1;
    uint64_t length = 0;
    void *mapping = NULL;
    size_t len = strlen(lease), mapped = 0;
    lade_share_t share = {.kind = LADE_SHARE_NONE, .fd = -1};
    if (!len || len > LADE_SEGMENT_MAX_LEASE)
        return lade_error_set(error, LADE_VALUE_ERROR, "a lease is 1 to %d bytes long",
                              (int)LADE_SEGMENT_MAX_LEASE);
    lade_code_t code = s_connect(socket_path, timeout_ms, &connection, error);
    if (code)
        return code;
    if (send(connection, lease, len, MSG_NOSIGNAL) != (ssize_t)len)
        code = lade_error_errno(error, errno, "cannot send the lease to the load worker");
    if (!code)
        code = s_receive(connection, &length, &fd, &share, error);
    if (!code)
        code = s_map(fd, length, &mapping, &mapped, error);
    if (!code)
        code = s_adopt(mapping, mapped, length, &share, self_p, error);
    if (fd >= 0)
        close(fd);
    if (code && share.fd >= 0)
        close(share.fd);
    if (code)
        close(connection);
    else
        (*self_p)->connection = connection;
    return code;
}
