// Content hashes: murmur3, imohash over it, sha256 by OpenSSL, and what a folder's hash is.
#include "common/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_SAMPLE = 16384,
    S_THRESHOLD = 131072,
    S_PIECE = 1 << 20,      // bytes between two questions whether to stop
    S_MAX_FILES = 100000,   // weight files in one folder
    S_MAX_DEPTH = 20,       // folders below the one given
    S_MAX_FULL = 256 << 20, // a file imohash takes whole, with a threshold far from the usual
};

// ---------------------------------------------------------------------------------------------------
// murmur3 x64 128

static const uint64_t S_C1 = 0x87c37b91114253d5, S_C2 = 0x4cf5ad432745937f;

static uint64_t
s_rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t
s_finish(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccd;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53;
    return x ^ x >> 33;
}

// Up to 8 bytes, the first the lowest.
static uint64_t
s_little(const uint8_t *bytes, size_t len)
{
    uint64_t x = 0;
    for (size_t i = 0; i < len; i++)
        x |= (uint64_t)bytes[i] << 8 * i;
    return x;
}

static void
s_store_big(uint64_t x, uint8_t *out)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(x >> (56 - 8 * i));
}

void
lade_hash_murmur3(const void *data, size_t len, uint8_t out[16])
{
    const uint8_t *at = data;
    uint64_t h1 = 0, h2 = 0;
    size_t left = len;
    for (; left >= 16; at += 16, left -= 16) {
        h1 ^= s_rotate(s_little(at, 8) * S_C1, 31) * S_C2;
        h1 = (s_rotate(h1, 27) + h2) * 5 + 0x52dce729;
        h2 ^= s_rotate(s_little(at + 8, 8) * S_C2, 33) * S_C1;
        h2 = (s_rotate(h2, 31) + h1) * 5 + 0x38495ab5;
    }
    if (left > 8)
        h2 ^= s_rotate(s_little(at + 8, left - 8) * S_C2, 33) * S_C1;
    if (left)
        h1 ^= s_rotate(s_little(at, left < 8 ? left : 8) * S_C1, 31) * S_C2;
    h1 ^= len;
    h2 ^= len;
    h1 += h2;
    h2 += h1;
    h1 = s_finish(h1);
    h2 = s_finish(h2);
    h1 += h2;
    h2 += h1;
    s_store_big(h1, out);
    s_store_big(h2, out + 8);
}

// ---------------------------------------------------------------------------------------------------
// Files

static lade_code_t
s_open(const char *path, int *fd_p, uint64_t *size_p, lade_error_t *error)
{
    struct stat st;
    *fd_p = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd_p < 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    if (fstat(*fd_p, &st) == 0 && S_ISREG(st.st_mode)) {
        *size_p = (uint64_t)st.st_size;
        return LADE_OK;
    }
    close(*fd_p);
    return lade_error_set(error, LADE_IO_ERROR, "%s is no regular file", path);
}

static lade_code_t
s_read_at(int fd, const char *path, uint64_t offset, uint8_t *data, size_t len, lade_error_t *error)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = pread(fd, data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lade_error_errno(error, errno, "reading %s", path);
        if (n == 0)
            return lade_error_set(error, LADE_IO_ERROR, "%s became shorter while it was read",
                                  path);
        got += (size_t)n;
    }
    return LADE_OK;
}

// The whole of a small file, or three samples of a big one: start, middle, end.
static lade_code_t
s_imohash(int fd, const char *path, uint64_t size, uint64_t sample, uint64_t threshold,
          uint8_t out[16], lade_error_t *error)
{
    bool sampled = sample > 0 && size >= threshold && threshold > 2 * sample;
    uint64_t len = sampled ? 3 * sample : size;
    if (len > S_MAX_FULL)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "%s: imohash would read %llu bytes at once, %d are the most", path,
                              (unsigned long long)len, S_MAX_FULL);
    uint8_t *data = malloc(len ? len : 1);
    if (!data)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", path);
    lade_code_t code;
    if (sampled) {
        code = s_read_at(fd, path, 0, data, sample, error);
        if (!code)
            code = s_read_at(fd, path, size / 2, data + sample, sample, error);
        if (!code)
            code = s_read_at(fd, path, size - sample, data + 2 * sample, sample, error);
    } else {
        code = s_read_at(fd, path, 0, data, len, error);
    }
    if (!code) {
        lade_hash_murmur3(data, len, out);
        size_t i = 0; // the size, seven bits a byte, over the first bytes of the hash
        for (; size >= 0x80; size >>= 7)
            out[i++] = (uint8_t)(size | 0x80);
        out[i] = (uint8_t)size;
    }
    free(data);
    return code;
}

lade_code_t
lade_hash_imohash(const char *path, uint32_t sample_size, uint64_t sample_threshold,
                  uint8_t out[16], lade_error_t *error)
{
    int fd;
    uint64_t size;
    lade_code_t code = s_open(path, &fd, &size, error);
    if (code)
        return code;
    code = s_imohash(fd, path, size, sample_size, sample_threshold, out, error);
    close(fd);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Algorithms

typedef struct {
    bool (*stop)(void *arg);
    void *arg;
    bool (*step)(void *arg, int64_t bytes); // or NULL
} s_asker_t;

typedef struct {
    const char *name;
    size_t size; // bytes of a hash
    lade_code_t (*file)(const char *path, const s_asker_t *asker, uint8_t *out,
                        lade_error_t *error);
    void (*text)(const char *text, size_t len, uint8_t *out); // of a folder's hex texts
} s_algorithm_t;

static lade_code_t
s_imohash_file(const char *path, const s_asker_t *asker, uint8_t *out, lade_error_t *error)
{
    if (asker->stop && asker->stop(asker->arg))
        return lade_error_set(error, LADE_CANCELLED, "stopped while hashing %s", path);
    return lade_hash_imohash(path, S_SAMPLE, S_THRESHOLD, out, error);
}

static void
s_murmur3_text(const char *text, size_t len, uint8_t *out)
{
    lade_hash_murmur3(text, len, out);
}

static lade_code_t
s_sha256_pieces(int fd, const char *path, uint64_t size, const s_asker_t *asker, EVP_MD_CTX *ctx,
                uint8_t *piece, lade_error_t *error)
{
    for (uint64_t at = 0; at < size;) {
        if (asker->stop && asker->stop(asker->arg))
            return lade_error_set(error, LADE_CANCELLED, "stopped while hashing %s", path);
        size_t len = size - at < S_PIECE ? (size_t)(size - at) : S_PIECE;
        lade_code_t code = s_read_at(fd, path, at, piece, len, error);
        if (code)
            return code;
        EVP_DigestUpdate(ctx, piece, len);
        at += len;
        if (asker->step && !asker->step(asker->arg, (int64_t)len))
            return lade_error_set(error, LADE_CANCELLED, "stopped while hashing %s", path);
    }
    return LADE_OK;
}

static lade_code_t
s_sha256_file(const char *path, const s_asker_t *asker, uint8_t *out, lade_error_t *error)
{
    int fd;
    uint64_t size;
    lade_code_t code = s_open(path, &fd, &size, error);
    if (code)
        return code;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t *piece = malloc(S_PIECE);
    if (!ctx || !piece || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", path);
    else
        code = s_sha256_pieces(fd, path, size, asker, ctx, piece, error);
    if (!code)
        EVP_DigestFinal_ex(ctx, out, NULL);
    free(piece);
    EVP_MD_CTX_free(ctx);
    close(fd);
    return code;
}

static void
s_sha256_text(const char *text, size_t len, uint8_t *out)
{
    EVP_Digest(text, len, out, NULL, EVP_sha256(), NULL);
}

static const s_algorithm_t s_algorithms[] = {
    {"imohash", 16, s_imohash_file, s_murmur3_text},
    {"sha256", 32, s_sha256_file, s_sha256_text},
};

static const s_algorithm_t *
s_find_algorithm(const char *name)
{
    for (size_t i = 0; i < sizeof s_algorithms / sizeof *s_algorithms; i++)
        if (strcmp(s_algorithms[i].name, name) == 0)
            return &s_algorithms[i];
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// Folders

static bool
s_is_weight(const char *name)
{
    static const char *const suffixes[] = {".safetensors", ".ckpt", ".bin",  ".pt",
                                           ".pth",         ".gguf", ".onnx", NULL};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && suffixes[i]; i++)
        if (strcasecmp(dot, suffixes[i]) == 0)
            return true;
    return false;
}

static int
s_by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool
s_is_file(const FTSENT *entry)
{
    struct stat st; // a link counts if it points to a file; folders behind links are not entered
    return entry->fts_info == FTS_F ||
           (entry->fts_info == FTS_SL && stat(entry->fts_accpath, &st) == 0 && S_ISREG(st.st_mode));
}

static lade_code_t
s_walk(FTS *fts, const char *folder, char **files, size_t *count_p, lade_error_t *error)
{
    for (FTSENT *entry; (entry = fts_read(fts));) {
        if (entry->fts_info == FTS_ERR || entry->fts_info == FTS_DNR)
            return lade_error_errno(error, entry->fts_errno, "reading %s", entry->fts_path);
        if (entry->fts_level > S_MAX_DEPTH)
            return lade_error_set(error, LADE_TOO_LARGE, "%s: folders are nested deeper than %d",
                                  folder, S_MAX_DEPTH);
        if (!s_is_weight(entry->fts_name) || !s_is_file(entry))
            continue;
        if (*count_p == S_MAX_FILES)
            return lade_error_set(error, LADE_TOO_LARGE, "%s holds more than %d weight files",
                                  folder, S_MAX_FILES);
        if (!(files[*count_p] = strdup(entry->fts_path)))
            return lade_error_set(error, LADE_NO_MEMORY, "no memory to list %s", folder);
        ++*count_p;
    }
    return LADE_OK;
}

lade_code_t
lade_hash_list(const char *folder, char ***files_p, size_t *count_p, lade_error_t *error)
{
    char *roots[] = {strdup(folder), NULL};
    *count_p = 0;
    *files_p = calloc(S_MAX_FILES, sizeof **files_p);
    FTS *fts = roots[0] && *files_p
                   ? fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL)
                   : NULL;
    lade_code_t code = fts ? s_walk(fts, folder, *files_p, count_p, error)
                           : lade_error_errno(error, errno, "reading %s", folder);
    if (fts)
        fts_close(fts);
    free(roots[0]);
    if (!code)
        qsort(*files_p, *count_p, sizeof **files_p, s_by_path);
    return code;
}

static char *
s_to_hex(const uint8_t *bytes, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]);
    return out;
}

static lade_code_t
s_hash_folder(const s_algorithm_t *algorithm, const char *folder, const s_asker_t *asker,
              uint8_t *out, lade_error_t *error)
{
    char **files = NULL, *text = NULL;
    size_t count, width = 2 * algorithm->size;
    lade_code_t code = lade_hash_list(folder, &files, &count, error);
    if (!code && !(text = malloc(count * width + 1)))
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", folder);
    for (size_t i = 0; !code && i < count; i++) {
        code = algorithm->file(files[i], asker, out, error);
        if (!code)
            s_to_hex(out, algorithm->size, text + i * width);
    }
    if (!code)
        algorithm->text(text, count * width, out);
    for (size_t i = 0; files && i < count; i++)
        free(files[i]);
    free(files);
    free(text);
    return code;
}

lade_code_t
lade_hash_sha256(const char *path, bool (*step)(void *arg, int64_t bytes), void *arg, char hex[65],
                 lade_error_t *error)
{
    uint8_t out[32];
    s_asker_t asker = {.arg = arg, .step = step};
    *hex = '\0';
    lade_code_t code = s_sha256_file(path, &asker, out, error);
    if (!code)
        s_to_hex(out, sizeof out, hex);
    return code;
}

void
lade_hash_join(const char *hexes, char *text)
{
    uint8_t out[32];
    char hex[65];
    s_sha256_text(hexes, strlen(hexes), out);
    sprintf(text, "sha256:%s", s_to_hex(out, sizeof out, hex));
}

lade_code_t
lade_hash_path(const char *path, const char *algorithm, bool (*stop)(void *arg), void *arg,
               char **text_p, lade_error_t *error)
{
    *text_p = NULL;
    if (strcmp(algorithm, "none") == 0) {
        *text_p = strdup("");
        return *text_p ? LADE_OK
                       : lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", path);
    }
    const s_algorithm_t *row = s_find_algorithm(algorithm);
    if (!row)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "there is no hash '%s': take imohash, sha256 or none", algorithm);
    struct stat st;
    if (stat(path, &st) != 0)
        return lade_error_errno(error, errno, "cannot hash %s", path);
    uint8_t out[32];
    s_asker_t asker = {stop, arg, NULL};
    lade_code_t code = S_ISDIR(st.st_mode) ? s_hash_folder(row, path, &asker, out, error)
                                           : row->file(path, &asker, out, error);
    if (code)
        return code;
    char hex[65];
    if (asprintf(text_p, "%s:%s", row->name, s_to_hex(out, row->size, hex)) < 0) {
        *text_p = NULL;
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", path);
    }
    return LADE_OK;
}
