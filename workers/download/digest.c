#include "workers/download/digest.h"

#include <czmq.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>

enum { S_READ_BYTES = 1 << 20 };

struct lade_digest {
    EVP_MD_CTX *hash;
    int64_t bytes;
};

// An OpenSSL without sha256, or without memory for it, is no machine to run on.
static void
s_must(bool good)
{
    if (!good)
        abort();
}

lade_digest_t *
lade_digest_new(void)
{
    lade_digest_t *self = zmalloc(sizeof *self);
    self->hash = EVP_MD_CTX_new();
    s_must(self->hash);
    lade_digest_restart(self);
    return self;
}

void
lade_digest_restart(lade_digest_t *self)
{
    s_must(EVP_DigestInit_ex(self->hash, EVP_sha256(), NULL));
    self->bytes = 0;
}

void
lade_digest_add(lade_digest_t *self, const void *bytes, size_t len)
{
    s_must(EVP_DigestUpdate(self->hash, bytes, len));
    self->bytes += (int64_t)len;
}

int64_t
lade_digest_bytes(const lade_digest_t *self)
{
    return self->bytes;
}

void
lade_digest_hex(const lade_digest_t *self, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    s_must(copy && EVP_MD_CTX_copy_ex(copy, self->hash) && EVP_DigestFinal_ex(copy, digest, NULL));
    EVP_MD_CTX_free(copy);
    for (size_t i = 0; i < 32; i++)
        sprintf(hex + i * 2, "%02x", digest[i]);
}

void
lade_digest_destroy(lade_digest_t **self_p)
{
    lade_digest_t *self = *self_p;
    if (!self)
        return;
    EVP_MD_CTX_free(self->hash);
    free(self);
    *self_p = NULL;
}

static lade_code_t
s_add_file(lade_digest_t *self, int fd, const char *path, bool (*stop)(void *arg), void *arg,
           lade_error_t *error)
{
    char *block = malloc(S_READ_BYTES);
    ssize_t got = 1;
    lade_code_t code =
        block ? LADE_OK : lade_error_set(error, LADE_NO_MEMORY, "no memory to read %s", path);
    while (!code && got) {
        got = read(fd, block, S_READ_BYTES);
        if (got > 0)
            lade_digest_add(self, block, (size_t)got);
        else if (got < 0 && errno != EINTR)
            code = lade_error_errno(error, errno, "cannot read %s", path);
        if (stop && stop(arg))
            code = lade_error_set(error, LADE_CANCELLED, "stopped while reading %s", path);
    }
    free(block);
    return code;
}

lade_code_t
lade_digest_file(const char *path, bool (*stop)(void *arg), void *arg, char hex[65],
                 lade_error_t *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    lade_digest_t *self = lade_digest_new();
    lade_code_t code = s_add_file(self, fd, path, stop, arg, error);
    if (!code)
        lade_digest_hex(self, hex);
    lade_digest_destroy(&self);
    close(fd);
    return code;
}
