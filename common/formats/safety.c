// Whether files would run code if somebody loaded them.
#include "common/formats/safety.h"

#include "common/formats/pickle.h"
#include "common/formats/tar.h"
#include "common/formats/tensor_list.h"
#include "common/formats/torch.h"
#include "common/formats/zip.h"
#include "common/path.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    S_HEAD = 512,
    S_MAX_PICKLES = 100,       // in a row
    S_MAX_MEMBERS = 20000,     // of a zip file, looked at for pickles
    S_MAX_INFLATED = 16 << 20, // bytes of a compressed file that are looked at
    S_MAX_NPY_HEADER = 1 << 16,
};

typedef struct {
    int fd;
    const char *path;
    uint64_t size;
    uint8_t head[S_HEAD];
    size_t head_len;
    lade_tensors_t list; // takes findings
} s_file_t;

static bool
s_ends(const char *text, const char *tail)
{
    size_t len = strlen(text), n = strlen(tail);
    return len >= n && strcasecmp(text + len - n, tail) == 0;
}

static bool
s_ends_any(const char *text, const char *const *tails)
{
    for (; *tails; tails++)
        if (s_ends(text, *tails))
            return true;
    return false;
}

static size_t
s_found(const s_file_t *self)
{
    return json_array_size(self->list.unsafe);
}

// ---------------------------------------------------------------------------------------------------
// Pickles

// Takes back the findings after the first `keep`.
static void
s_forget(s_file_t *self, size_t keep)
{
    while (s_found(self) > keep)
        json_array_remove(self->list.unsafe, s_found(self) - 1);
}

// Walks what may be pickles in a row. sure: it says that it is one, so that it is one even if it
// makes no sense; else it is one if it makes sense up to a call.
static void
s_walk_pickles(s_file_t *self, lade_pickle_t *pickle, bool sure, const char *where)
{
    lade_error_t error = {0};
    lade_object_t *root;
    size_t before = s_found(self), walked = 0;
    lade_code_t code = LADE_OK;
    if (!pickle)
        return;
    while (!code && walked < S_MAX_PICKLES && lade_pickle_more(pickle)) {
        code = lade_pickle_next(pickle, &root, &error);
        walked += !code;
    }
    // Too large for the walk is not too large for who runs it.
    bool is = sure || walked || lade_pickle_calls(pickle) || code == LADE_TOO_LARGE;
    if (!is)
        s_forget(self, before);
    else if ((sure && !walked) || code == LADE_TOO_LARGE)
        lade_tensor_list_add_unsafe(&self->list, "broken", where, NULL, "%s",
                                    code ? error.message
                                         : "the file ends before its pickle begins");
    lade_pickle_destroy(&pickle);
}

static void
s_walk_at(s_file_t *self, uint64_t from, uint64_t end, bool sure, const char *where)
{
    s_walk_pickles(self, lade_pickle_new_file(self->fd, from, end, &self->list, where), sure,
                   where);
}

static bool
s_says_pickle(const uint8_t *head, size_t len)
{
    // the opcodes that follow PROTO in what Python writes, and in what was bent
    return len >= 3 && head[0] == 0x80 && head[1] <= 5 && head[2] != 0;
}

// ---------------------------------------------------------------------------------------------------
// numpy: \x93NUMPY, version, length, {'descr': '|O', …}; the array of objects is a pickle

static bool
s_is_npy(const uint8_t *head, size_t len)
{
    return len >= 10 && memcmp(head, "\x93NUMPY", 6) == 0;
}

// The place of the pickle of an array of objects; 0 for any other array.
static size_t
s_npy_objects(const uint8_t *head, size_t len)
{
    size_t at = head[6] >= 2 ? 12 : 10;
    size_t count = head[8] | head[9] << 8;
    if (head[6] >= 2 && len >= 12)
        count |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
    if (count > S_MAX_NPY_HEADER || at > len)
        return 0;
    size_t there = len - at < count ? len - at : count;
    const uint8_t *descr = memmem(head + at, there, "descr", 5);
    if (!descr)
        return 0;
    size_t left = (size_t)(head + at + there - descr);
    const uint8_t *end = memmem(descr, left, "fortran_order", 13);
    return memchr(descr, 'O', end ? (size_t)(end - descr) : left) ? at + count : 0;
}

static void
s_check_npy(s_file_t *self)
{
    size_t at = s_npy_objects(self->head, self->head_len);
    if (!at)
        return;
    lade_tensor_list_add_unsafe(&self->list, "objects", NULL, NULL,
                                "a numpy array of objects, which is a pickle");
    s_walk_at(self, at, self->size, true, "the array");
}

// ---------------------------------------------------------------------------------------------------
// Zip

// Looks at a member by its first bytes. True if it is, or holds, a pickle.
static bool
s_check_member(s_file_t *self, lade_zip_t *zip, size_t index)
{
    const char *name = lade_zip_get(zip, index)->name;
    uint8_t head[S_HEAD], *bytes = NULL;
    size_t len = lade_zip_head(zip, index, head, sizeof head), from = 0, whole;
    bool sure = s_says_pickle(head, len), npy = s_is_npy(head, len);
    if (npy)
        from = s_npy_objects(head, len);
    if (!sure && !from && !s_ends(name, ".pkl") && !s_ends(name, ".pickle"))
        return false;
    if (from)
        lade_tensor_list_add_unsafe(&self->list, "objects", name, NULL,
                                    "a numpy array of objects, which is a pickle");
    lade_error_t error = {0};
    if (lade_zip_read(zip, index, LADE_PICKLE_MAX_BYTES, &bytes, &whole, &error))
        lade_tensor_list_add_unsafe(&self->list, "broken", name, NULL, "%s", error.message);
    else if (whole > from)
        s_walk_pickles(self, lade_pickle_new(bytes + from, whole - from, &self->list, name),
                       sure || from, name);
    free(bytes);
    return true;
}

// Program text beside pickles: an archive of torch.package, whose loader runs it.
static void
s_check_code(s_file_t *self, const lade_zip_t *zip)
{
    for (size_t i = 0; i < lade_zip_count(zip); i++)
        if (s_ends(lade_zip_get(zip, i)->name, ".py"))
            lade_tensor_list_add_unsafe(&self->list, "code", lade_zip_get(zip, i)->name, NULL,
                                        "the archive has program text in it");
}

// An archive that is not torch's. What is odd about it counts only if it holds pickles, or has the
// name of weights.
static void
s_check_zip(s_file_t *self, bool hidden)
{
    lade_zip_t *zip;
    size_t before = s_found(self);
    bool holds = false;
    if (lade_zip_open(self->fd, self->size, &self->list, &zip, NULL)) {
        s_forget(self, before);
        return;
    }
    if (hidden)
        lade_tensor_list_add_unsafe(&self->list, "zip_hidden", NULL, NULL,
                                    "a zip archive stands behind another file");
    for (size_t i = 0; i < lade_zip_count(zip) && i < S_MAX_MEMBERS; i++)
        holds = s_check_member(self, zip, i) || holds;
    if (holds)
        s_check_code(self, zip);
    lade_zip_destroy(&zip);
    static const char *const weights[] = {".pt",  ".pth", ".ckpt", ".bin",         ".pkl",
                                          ".npz", ".npy", ".gguf", ".safetensors", NULL};
    if (!holds && !s_ends_any(self->path, weights))
        s_forget(self, before);
}

// ---------------------------------------------------------------------------------------------------
// Tar

// Every member is looked at: torch and others unpickle some of them, by their names.
static bool
s_check_tar_member(void *arg, const lade_tar_member_t *member)
{
    s_file_t *self = arg;
    uint8_t head[16];
    size_t len = member->size < sizeof head ? (size_t)member->size : sizeof head;
    if (len && pread(self->fd, head, len, (off_t)member->at) == (ssize_t)len)
        s_walk_at(self, member->at, member->at + member->size, s_says_pickle(head, len),
                  member->name);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Compressed files: joblib and others unpickle them as they are

static void
s_check_inflated(s_file_t *self)
{
    uint8_t piece[16384], *bytes = malloc(S_MAX_INFLATED);
    z_stream stream = {.next_out = bytes, .avail_out = S_MAX_INFLATED};
    if (!bytes || inflateInit2(&stream, MAX_WBITS + 32) != Z_OK) {
        free(bytes);
        return;
    }
    int status = Z_OK;
    uint64_t at = 0;
    while (status == Z_OK && stream.avail_out) {
        ssize_t got = pread(self->fd, piece, sizeof piece, (off_t)at);
        if (got <= 0)
            break;
        at += (uint64_t)got;
        stream.next_in = piece;
        stream.avail_in = (uInt)got;
        status = inflate(&stream, Z_NO_FLUSH);
        // what is no pickle at its beginning is none
        size_t len = S_MAX_INFLATED - stream.avail_out;
        if (at == (uint64_t)got && len && bytes[0] != 0x80 && !strchr("(]}cl", bytes[0]))
            break;
    }
    size_t len = S_MAX_INFLATED - stream.avail_out;
    inflateEnd(&stream);
    if (len)
        s_walk_pickles(self, lade_pickle_new(bytes, len, &self->list, "unpacked"),
                       s_says_pickle(bytes, len), "unpacked");
    free(bytes);
}

// What is packed in a way that is not unpacked here, under a name that says it is weights or a
// pickle: some loaders unpack by content, and what they get nobody has seen.
static const struct {
    const char *magic;
    size_t len;
    const char *words;
} s_packed[] = {
    {"7z\xbc\xaf\x27\x1c", 6, "a 7z archive"},
    {"\xfd"
     "7zXZ",
     5, "compressed by xz"},
    {"BZh", 3, "compressed by bzip2"},
    {"\x28\xb5\x2f\xfd", 4, "compressed by zstd"},
    {"\x04\x22\x4d\x18", 4, "compressed by lz4"},
    {"Rar!", 4, "a rar archive"},
    {"\x5d\0\0", 3, "compressed by lzma"},
};

static void
s_check_packed(s_file_t *self)
{
    static const char *const names[] = {".pt",     ".pth",         ".ckpt", ".bin",    ".pkl",
                                        ".pickle", ".safetensors", ".gguf", ".joblib", ".npy",
                                        ".npz",    ".onnx",        NULL};
    for (size_t i = 0; i < sizeof s_packed / sizeof *s_packed; i++)
        if (self->head_len >= s_packed[i].len &&
            memcmp(self->head, s_packed[i].magic, s_packed[i].len) == 0 &&
            s_ends_any(self->path, names))
            lade_tensor_list_add_unsafe(&self->list, "packed", NULL, NULL,
                                        "%s under the name of a model: nobody sees what is in it",
                                        s_packed[i].words);
}

// ---------------------------------------------------------------------------------------------------
// One file

// torch's readers find what is in torch's files; what they refuse is broken, if it is one at all.
static lade_code_t
s_check_torch(s_file_t *self)
{
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    lade_code_t code = lade_tensors_open(self->path, &tensors, &error);
    if (!code)
        json_array_extend(self->list.unsafe, (json_t *)lade_tensors_unsafe(tensors));
    else if (code == LADE_CORRUPT || code == LADE_TOO_LARGE)
        lade_tensor_list_add_unsafe(&self->list, "broken", NULL, NULL, "%s", error.message);
    lade_tensors_destroy(&tensors);
    return code;
}

static void
s_check(s_file_t *self)
{
    const uint8_t *head = self->head;
    size_t len = self->head_len;
    if (lade_torch_zip_is(head, len, self->size)) {
        if (s_check_torch(self) == LADE_NOT_A_MODEL)
            s_check_zip(self, false);
        return;
    }
    // What is a tar file besides, torch takes for one first.
    bool tar = lade_tar_is(head, len);
    if (tar && s_says_pickle(head, len))
        lade_tensor_list_add_unsafe(&self->list, "tar_hidden", NULL, NULL,
                                    "the file is a pickle and a tar file at once");
    if (tar)
        lade_tar_each(self->fd, self->size, &self->list, s_check_tar_member, self, NULL);
    if (s_says_pickle(head, len))
        s_check_torch(self);
    else if (len && s_is_npy(head, len))
        s_check_npy(self);
    else if (len > 2 && ((head[0] == 0x1f && head[1] == 0x8b) ||
                         (head[0] == 0x78 && (head[0] << 8 | head[1]) % 31 == 0)))
        s_check_inflated(self);
    else if (len && !tar)
        s_walk_at(self, 0, self->size, false, "the file");
    s_check_packed(self);
    if (lade_zip_is(self->fd, self->size))
        s_check_zip(self, true);
}

lade_code_t
lade_safety_check(const char *path, json_t **findings_p, lade_error_t *error)
{
    struct stat st;
    *findings_p = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return lade_error_set(error, LADE_IO_ERROR, "%s is no regular file", path);
    }
    s_file_t *self = calloc(1, sizeof *self);
    lade_code_t code = LADE_OK;
    if (!self || !(self->list.unsafe = json_array()))
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory to look at %s", path);
    if (!code) {
        self->fd = fd;
        self->path = path;
        self->size = (uint64_t)st.st_size;
        ssize_t got = pread(fd, self->head, sizeof self->head, 0);
        if (got < 0)
            code = lade_error_errno(error, errno, "reading %s", path);
        self->head_len = got > 0 ? (size_t)got : 0;
    }
    if (!code) {
        s_check(self);
        *findings_p = json_incref(self->list.unsafe);
    }
    if (self)
        json_decref(self->list.unsafe);
    free(self);
    close(fd);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Folders

static bool
s_is_file(const FTSENT *entry)
{
    struct stat st;
    if (entry->fts_info == FTS_SL)
        return stat(entry->fts_accpath, &st) == 0 && S_ISREG(st.st_mode);
    return entry->fts_info == FTS_F && S_ISREG(entry->fts_statp->st_mode);
}

static bool
s_see(const char *path, lade_safety_seen_t *seen, void *arg)
{
    lade_error_t error = {0};
    json_t *findings = NULL;
    lade_code_t code = lade_safety_check(path, &findings, &error);
    bool on = seen(arg, path, findings, code ? &error : NULL);
    json_decref(findings);
    return on;
}

static int
s_by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

lade_code_t
lade_safety_walk(const char *root, lade_safety_seen_t *seen, void *arg, lade_error_t *error)
{
    char *roots[] = {(char *)root, NULL};
    struct stat st;
    bool on = true;
    if (stat(root, &st) != 0)
        return lade_error_errno(error, errno, "cannot open %s", root);
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, s_by_name);
    if (!fts)
        return lade_error_errno(error, errno, "cannot walk %s", root);
    for (FTSENT *entry; on && (entry = fts_read(fts));) {
        if (s_is_file(entry)) {
            on = s_see(entry->fts_path, seen, arg);
        } else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR) {
            lade_error_t problem = {0};
            lade_error_errno(&problem, entry->fts_errno, "cannot read %s", entry->fts_path);
            on = seen(arg, entry->fts_path, NULL, &problem);
        }
    }
    fts_close(fts);
    return on ? LADE_OK : lade_error_set(error, LADE_CANCELLED, "the walk was ended");
}

typedef struct {
    size_t root_len;
    json_t *findings;
} s_gathered_t;

static bool
s_gather(void *arg, const char *path, const json_t *findings, const lade_error_t *error)
{
    s_gathered_t *self = arg;
    const char *within = path + self->root_len;
    within += *within == '/';
    (void)error;
    for (size_t i = 0; i < json_array_size(findings); i++) {
        json_t *finding = json_copy(json_array_get(findings, i));
        const char *where = json_string_value(json_object_get(finding, "where"));
        char whole[600];
        snprintf(whole, sizeof whole, "%.380s%s%.180s", within, where && *where ? ": " : "",
                 where ? where : "");
        json_t *text = json_string(whole);
        json_object_set_new(finding, "where", text ? text : json_string("?"));
        json_array_append_new(self->findings, finding);
    }
    return json_array_size(self->findings) < LADE_TENSORS_MAX_UNSAFE;
}

lade_code_t
lade_safety_folder(const char *root, json_t **findings_p, lade_error_t *error)
{
    s_gathered_t self = {strlen(root), json_array()};
    lade_code_t code = lade_safety_walk(root, s_gather, &self, error);
    if (code == LADE_CANCELLED) // enough was found
        code = LADE_OK;
    if (code)
        json_decref(self.findings);
    *findings_p = code ? NULL : self.findings;
    return code;
}

const char *
lade_safety_words(const json_t *findings, char *out, size_t size)
{
    // What is called says more than what is only named.
    size_t count = json_array_size(findings), told = 0;
    for (size_t i = 0; i < count; i++) {
        const char *what = json_string_value(json_object_get(json_array_get(findings, i), "what"));
        if (what && strcmp(what, "call") == 0) {
            told = i;
            break;
        }
    }
    const char *message = NULL, *where = NULL;
    json_unpack(json_array_get(findings, told), "{s:s, s:s}", "message", &message, "where", &where);
    int len = snprintf(out, size, "%.200s%s%.150s%s", message ? message : "",
                       where && *where ? " (" : "", where ? where : "", where && *where ? ")" : "");
    if (count > 1 && len > 0 && (size_t)len < size)
        snprintf(out + len, size - (size_t)len, ", and %zu more", count - 1);
    return out;
}
