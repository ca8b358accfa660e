// The table of digests, and the two ways to make them.
#include "common/hasher.h"

#include <dlfcn.h>
#include <openssl/evp.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    const char *prefix; // in a record
    const char *evp;    // OpenSSL's name; NULL: libblake3's
    size_t size;
} s_row_t;

static const s_row_t s_rows[] = {
    // clang-format off
    {"md5",           "md5",      "MD5",         16},
    {"sha1",          "sha1",     "SHA1",        20},
    {"sha224",        "sha224",   "SHA224",      28},
    {"sha256",        "sha256",   "SHA256",      32},
    {"sha384",        "sha384",   "SHA384",      48},
    {"sha512",        "sha512",   "SHA512",      64},
    {"blake2b",       "blake2b",  "BLAKE2B-512", 64},
    {"blake2s",       "blake2s",  "BLAKE2S-256", 32},
    {"sha3_224",      "sha3_224", "SHA3-224",    28},
    {"sha3_256",      "sha3_256", "SHA3-256",    32},
    {"sha3_384",      "sha3_384", "SHA3-384",    48},
    {"sha3_512",      "sha3_512", "SHA3-512",    64},
    {"blake3",        "blake3",   NULL,          32},
    {"blake3_single", "blake3",   NULL,          32},
    {"blake3_multi",  "blake3",   NULL,          32},
    // clang-format on
};
enum { S_ROWS = sizeof s_rows / sizeof *s_rows };

static const s_row_t *
s_find(const char *algorithm)
{
    for (size_t i = 0; i < S_ROWS; i++)
        if (strcmp(s_rows[i].name, algorithm) == 0)
            return &s_rows[i];
    return NULL;
}

bool
lade_hasher_knows(const char *algorithm)
{
    return s_find(algorithm) != NULL;
}

const char *
lade_hasher_prefix(const char *algorithm)
{
    return s_find(algorithm)->prefix;
}

size_t
lade_hasher_size(const char *algorithm)
{
    return s_find(algorithm)->size;
}

// What lade uses of libblake3, which says nothing of the size of its state: it is under 2 KiB, and
// has been since version 1.0.
enum { S_BLAKE3_STATE = 1 << 13 };

struct lade_hasher {
    EVP_MD *digest;
    EVP_MD_CTX *ctx;
    void *library;
    void (*update)(void *state, const void *bytes, size_t len);
    void (*finalize)(const void *state, uint8_t *out, size_t len);
    size_t size;
    alignas(64) uint8_t state[S_BLAKE3_STATE];
};

// A function's address from dlsym, which ISO C keeps apart from those of data.
static bool
s_symbol(void *library, const char *name, void *function_p)
{
    void *address = dlsym(library, name);
    memcpy(function_p, &address, sizeof address);
    return address != NULL;
}

static lade_code_t
s_open_blake3(lade_hasher_t *self, lade_error_t *error)
{
    static const char *const names[] = {"libblake3.so.0", "libblake3.so.1", "libblake3.so"};
    void (*init)(void *state);
    for (size_t i = 0; !self->library && i < sizeof names / sizeof *names; i++)
        self->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!self->library || !s_symbol(self->library, "blake3_hasher_init", &init) ||
        !s_symbol(self->library, "blake3_hasher_update", &self->update) ||
        !s_symbol(self->library, "blake3_hasher_finalize", &self->finalize))
        return lade_error_set(error, LADE_NOT_IMPLEMENTED,
                              "blake3 needs the library libblake3, which this machine lacks: "
                              "install it, or take sha256 (install.hash)");
    init(self->state);
    return LADE_OK;
}

static lade_code_t
s_open_evp(lade_hasher_t *self, const s_row_t *row, lade_error_t *error)
{
    self->digest = EVP_MD_fetch(NULL, row->evp, NULL);
    self->ctx = EVP_MD_CTX_new();
    if (!self->digest)
        return lade_error_set(error, LADE_NOT_IMPLEMENTED,
                              "this machine's OpenSSL does not make %s: take sha256 (install.hash)",
                              row->name);
    if (!self->ctx || EVP_DigestInit_ex2(self->ctx, self->digest, NULL) != 1)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %s", row->name);
    return LADE_OK;
}

lade_code_t
lade_hasher_new(const char *algorithm, lade_hasher_t **self_p, lade_error_t *error)
{
    const s_row_t *row = s_find(algorithm);
    lade_hasher_t *self = *self_p = NULL;
    if (!row)
        return lade_error_set(error, LADE_VALUE_ERROR, "there is no digest '%s'", algorithm);
    if (posix_memalign((void **)&self, 64, sizeof *self) != 0)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %s", algorithm);
    memset(self, 0, sizeof *self);
    self->size = row->size;
    lade_code_t code = row->evp ? s_open_evp(self, row, error) : s_open_blake3(self, error);
    if (code)
        lade_hasher_destroy(&self);
    *self_p = self;
    return code;
}

void
lade_hasher_add(lade_hasher_t *self, const void *bytes, size_t len)
{
    if (self->ctx)
        EVP_DigestUpdate(self->ctx, bytes, len);
    else
        self->update(self->state, bytes, len);
}

void
lade_hasher_end(lade_hasher_t *self, uint8_t out[LADE_HASHER_MOST])
{
    if (self->ctx)
        EVP_DigestFinal_ex(self->ctx, out, NULL);
    else
        self->finalize(self->state, out, self->size);
}

void
lade_hasher_destroy(lade_hasher_t **self_p)
{
    lade_hasher_t *self = *self_p;
    if (!self)
        return;
    EVP_MD_CTX_free(self->ctx);
    EVP_MD_free(self->digest);
    if (self->library)
        dlclose(self->library);
    free(self);
    *self_p = NULL;
}
