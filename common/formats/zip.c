// Zip archives from strangers.
#include "common/formats/zip.h"

#include "common/formats/tensor_list.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    S_END = 22,     // bytes of the end record
    S_END64 = 56,   // of its 64-bit form
    S_LOCATOR = 20, // of what points to that
    S_CENTRAL = 46, // of an entry of the directory, without its name
    S_LOCAL = 30,   // of a local header, without its name
    S_MAX_COMMENT = 65535,
    S_MAX_DESCRIPTOR = 24, // what may follow a member whose sizes were not known before it
    S_USUAL_EXTRA = 72,    // torch pads up to 64 bytes
    S_MAX_RATIO = 1100,    // deflate packs 1032:1 at most
    S_ENCRYPTED = 0x2041,  // flags: encrypted, strongly so, masked headers
    S_STREAMED = 0x0008,   // flag: the sizes are in a descriptor behind the member
};

typedef struct {
    uint64_t hash;
    uint32_t index;
} s_named_t;

struct lade_zip {
    int fd;
    uint64_t size;
    lade_tensors_t *list; // takes findings
    lade_zip_member_t *members;
    size_t count;
    char *names;
    s_named_t *named;   // sorted by the hash of the name
    uint64_t shift;     // bytes before the archive: every offset in it is less by so many
    uint64_t directory; // where it begins in the file
};

static uint16_t
s_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t
s_u32(const uint8_t *at)
{
    return s_u16(at) | (uint32_t)s_u16(at + 2) << 16;
}

static uint64_t
s_u64(const uint8_t *at)
{
    return s_u32(at) | (uint64_t)s_u32(at + 4) << 32;
}

static bool
s_pread(int fd, void *bytes, size_t len, uint64_t at)
{
    for (size_t done = 0; done < len;) {
        ssize_t got = pread(fd, (char *)bytes + done, len - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

// ---------------------------------------------------------------------------------------------------
// The end of the archive

// An end record at `at` of tail whose comment ends with the file, or a little before it.
static bool
s_is_end(const uint8_t *tail, size_t len, size_t at)
{
    return len - at >= S_END && memcmp(tail + at, "PK\5\6", 4) == 0 &&
           s_u16(tail + at + 20) <= len - at - S_END;
}

bool
lade_zip_is(int fd, uint64_t size)
{
    uint8_t tail[S_END + 1024];
    size_t len = size < sizeof tail ? (size_t)size : sizeof tail;
    if (len < S_END || !s_pread(fd, tail, len, size - len))
        return false;
    for (size_t at = len - S_END + 1; at-- > 0;)
        if (s_is_end(tail, len, at))
            return true;
    uint8_t head[4];
    return s_pread(fd, head, sizeof head, 0) && memcmp(head, "PK\3\4", 4) == 0;
}

typedef struct {
    uint64_t count, size, offset; // of the directory
    uint64_t end;                 // where it has to end
} s_place_t;

static void
s_say(lade_zip_t *self, const char *what, const char *name, const char *message)
{
    lade_tensor_list_add_unsafe(self->list, what, NULL, name, "%s", message);
}

// The 64-bit end record, if a locator before the end record points to one.
static lade_code_t
s_read_end64(lade_zip_t *self, const uint8_t *end, uint64_t at, s_place_t *place,
             lade_error_t *error)
{
    uint8_t locator[S_LOCATOR], end64[S_END64];
    if (at < S_LOCATOR || !s_pread(self->fd, locator, sizeof locator, at - S_LOCATOR) ||
        memcmp(locator, "PK\6\7", 4) != 0)
        return LADE_OK;
    // Where it says, or right before the locator if something was put before the archive.
    uint64_t where = s_u64(locator + 8), near = at - S_LOCATOR - S_END64;
    if (at < S_LOCATOR + S_END64 || where > near)
        return lade_error_set(error, LADE_CORRUPT, "its end points beyond its end");
    if (!s_pread(self->fd, end64, sizeof end64, where) || memcmp(end64, "PK\6\6", 4) != 0) {
        if (!s_pread(self->fd, end64, sizeof end64, near) || memcmp(end64, "PK\6\6", 4) != 0)
            return lade_error_set(error, LADE_CORRUPT, "its end points to no end record");
        where = near;
    }
    if (where + 12 + s_u64(end64 + 4) != at - S_LOCATOR)
        s_say(self, "zip_gap", NULL, "the archive has bytes in its end that nothing accounts for");
    if (s_u32(locator + 4) != 0 || s_u32(locator + 16) > 1 || s_u32(end64 + 16) != 0 ||
        s_u32(end64 + 20) != 0 || s_u64(end64 + 24) != s_u64(end64 + 32))
        s_say(self, "zip_disks", NULL, "the archive says it is spread over several disks");
    *place = (s_place_t){s_u64(end64 + 32), s_u64(end64 + 40), s_u64(end64 + 48), where};
    uint64_t old[] = {s_u16(end + 10), s_u32(end + 12), s_u32(end + 16)};
    if ((old[0] != 0xffff && old[0] != place->count) ||
        (old[1] != 0xffffffff && old[1] != place->size) ||
        (old[2] != 0xffffffff && old[2] != place->offset))
        s_say(self, "zip_headers", NULL, "the two ends of the archive disagree");
    return LADE_OK;
}

// Finds the end record, from the back.
static lade_code_t
s_find_end(lade_zip_t *self, uint8_t *tail, size_t len, size_t *at_p, lade_error_t *error)
{
    if (!s_pread(self->fd, tail, len, self->size - len))
        return lade_error_set(error, LADE_IO_ERROR, "its end cannot be read");
    size_t found = 0;
    for (size_t at = len - S_END + 1; at-- > 0;)
        if (s_is_end(tail, len, at)) {
            *at_p = found++ ? *at_p : at;
            if (found > 1)
                s_say(self, "zip_ends", NULL, "the archive has more than one end");
            if (found > 1 || *at_p == len - S_END)
                break;
        }
    if (!found)
        return lade_error_set(error, LADE_CORRUPT,
                              "it begins like a zip archive and has no end: it is cut off");
    return LADE_OK;
}

static lade_code_t
s_read_end(lade_zip_t *self, s_place_t *place, lade_error_t *error)
{
    size_t len = self->size < S_END + S_MAX_COMMENT ? (size_t)self->size : S_END + S_MAX_COMMENT;
    uint8_t small[S_END], *tail = small, *big = NULL;
    size_t at = 0;
    if (self->size < S_END)
        return lade_error_set(error, LADE_CORRUPT, "it is too short for a zip archive");
    // Usually there is no comment, so that the end record is the last of the file.
    lade_code_t code = LADE_OK;
    bool usual = s_pread(self->fd, small, S_END, self->size - S_END) && s_is_end(small, S_END, 0);
    if (usual)
        len = S_END;
    else if (!(tail = big = malloc(len)))
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to read its end");
    code = s_find_end(self, tail, len, &at, error);
    const uint8_t *end = tail + at;
    uint64_t where = self->size - len + at;
    if (!code && at + S_END + s_u16(end + 20) != len)
        s_say(self, "zip_around", NULL, "bytes follow the end of the archive");
    if (!code && (s_u16(end + 4) || s_u16(end + 6) || s_u16(end + 8) != s_u16(end + 10)))
        s_say(self, "zip_disks", NULL, "the archive says it is spread over several disks");
    if (!code) {
        *place = (s_place_t){s_u16(end + 10), s_u32(end + 12), s_u32(end + 16), where};
        code = s_read_end64(self, end, where, place, error);
    }
    free(big);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The directory

static lade_code_t
s_check_place(lade_zip_t *self, const s_place_t *place, lade_error_t *error)
{
    if (place->count > LADE_ZIP_MAX_MEMBERS || place->size > LADE_ZIP_MAX_DIRECTORY)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "its directory says it has %" PRIu64 " members in %" PRIu64
                              " bytes; at most are read %d in %d",
                              place->count, place->size, LADE_ZIP_MAX_MEMBERS,
                              LADE_ZIP_MAX_DIRECTORY);
    if (place->size > place->end || place->offset > place->end - place->size ||
        place->count * S_CENTRAL > place->size)
        return lade_error_set(error, LADE_CORRUPT, "its directory does not fit into it");
    self->directory = place->end - place->size;
    self->shift = self->directory - place->offset;
    if (self->shift)
        s_say(self, "zip_around", NULL, "bytes stand before the archive, or within its directory");
    return LADE_OK;
}

// The sizes and the offset of an entry that are in its 64-bit extra field. False if it lacks one.
static bool
s_extra64(const uint8_t *extra, size_t len, uint64_t *fields[3], const bool wanted[3])
{
    while (len >= 4) {
        size_t n = s_u16(extra + 2);
        if (n > len - 4)
            break;
        if (s_u16(extra) == 1) {
            const uint8_t *at = extra + 4;
            for (size_t i = 0; i < 3; i++) {
                if (!wanted[i])
                    continue;
                if (n < 8)
                    return false;
                *fields[i] = s_u64(at);
                at += 8;
                n -= 8;
            }
            return true;
        }
        extra += 4 + n;
        len -= 4 + n;
    }
    return !wanted[0] && !wanted[1] && !wanted[2];
}

static bool
s_leads_out(const char *name, size_t len)
{
    if (len == 0 || name[0] == '/' || strlen(name) != len || strchr(name, '\\') ||
        (len > 1 && name[1] == ':'))
        return true;
    for (const char *at = name; at; at = strchr(at, '/')) {
        at += *at == '/';
        if (strncmp(at, "..", 2) == 0 && (at[2] == '/' || at[2] == '\0'))
            return true;
    }
    return false;
}

static void
s_judge(lade_zip_t *self, const lade_zip_member_t *member, size_t name_len, uint16_t disk)
{
    if (member->flags & S_ENCRYPTED)
        s_say(self, "zip_encrypted", member->name, "a member is encrypted, or says it is");
    if (member->method != 0 && member->method != 8)
        s_say(self, "zip_method", member->name, "a member is packed in a way that is not read");
    if (disk != 0 && disk != 0xffff)
        s_say(self, "zip_disks", member->name, "a member says it is on another disk");
    if (s_leads_out(member->name, name_len))
        s_say(self, "zip_name", member->name, "a member's name leads out of the archive");
    if (member->method == 0 && member->packed != member->size)
        s_say(self, "zip_sizes", member->name, "a stored member has two sizes");
    if (member->packed > self->size || member->size / S_MAX_RATIO > member->packed)
        s_say(self, "zip_sizes", member->name, "a member says it is larger than it can be");
}

// One entry at *at of the directory; its name goes to *names.
static lade_code_t
s_read_entry(lade_zip_t *self, const uint8_t *bytes, size_t len, size_t *at, char **names,
             lade_error_t *error)
{
    lade_zip_member_t *member = &self->members[self->count];
    const uint8_t *entry = bytes + *at;
    if (len - *at < S_CENTRAL || memcmp(entry, "PK\1\2", 4) != 0)
        return lade_error_set(error, LADE_CORRUPT, "entry %zu of its directory is none",
                              self->count);
    size_t name_len = s_u16(entry + 28), extra_len = s_u16(entry + 30);
    size_t whole = S_CENTRAL + name_len + extra_len + s_u16(entry + 32);
    if (whole > len - *at)
        return lade_error_set(error, LADE_CORRUPT, "entry %zu of its directory is cut off",
                              self->count);
    if (name_len > LADE_ZIP_MAX_NAME)
        return lade_error_set(error, LADE_TOO_LARGE, "a member has a name of %zu bytes", name_len);
    *member = (lade_zip_member_t){
        .name = *names,
        .flags = s_u16(entry + 8),
        .method = s_u16(entry + 10),
        .crc = s_u32(entry + 16),
        .packed = s_u32(entry + 20),
        .size = s_u32(entry + 24),
        .header = s_u32(entry + 42),
    };
    memcpy(*names, entry + S_CENTRAL, name_len);
    (*names)[name_len] = '\0';
    *names += name_len + 1;
    uint64_t *fields[] = {&member->size, &member->packed, &member->header};
    bool wanted[] = {member->size == 0xffffffff, member->packed == 0xffffffff,
                     member->header == 0xffffffff};
    if (!s_extra64(entry + S_CENTRAL + name_len, extra_len, fields, wanted))
        s_say(self, "zip_headers", member->name, "a member lacks its 64-bit sizes");
    s_judge(self, member, name_len, s_u16(entry + 34));
    if (__builtin_add_overflow(member->header, self->shift, &member->header))
        return lade_error_set(error, LADE_CORRUPT, "a member begins beyond the archive");
    *at += whole;
    self->count++;
    return LADE_OK;
}

static lade_code_t
s_read_directory(lade_zip_t *self, const s_place_t *place, lade_error_t *error)
{
    size_t len = (size_t)place->size, at = 0;
    uint8_t *bytes = malloc(len + 1);
    self->members = calloc((size_t)place->count + 1, sizeof *self->members);
    self->names = malloc(len + 1); // an entry is longer than its name
    char *names = self->names;
    lade_code_t code = LADE_OK;
    if (!bytes || !self->members || !names)
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory for its directory");
    else if (!s_pread(self->fd, bytes, len, self->directory))
        code = lade_error_set(error, LADE_IO_ERROR, "its directory cannot be read");
    while (!code && self->count < place->count)
        code = s_read_entry(self, bytes, len, &at, &names, error);
    if (!code && at != len)
        s_say(self, "zip_headers", NULL, "the directory has more entries than its end says");
    free(bytes);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Names that are there twice

static int
s_by_hash(const void *a, const void *b)
{
    uint64_t x = ((const s_named_t *)a)->hash, y = ((const s_named_t *)b)->hash;
    return x < y ? -1 : x > y;
}

// torch looks members up without regard to case.
static uint64_t
s_hash(const char *name)
{
    uint64_t h = 0xcbf29ce484222325;
    for (; *name; name++)
        h = (h ^ (uint8_t)tolower((unsigned char)*name)) * 0x100000001b3;
    return h;
}

static lade_code_t
s_find_doubles(lade_zip_t *self, lade_error_t *error)
{
    s_named_t *named = self->named = malloc((self->count + 1) * sizeof *named);
    if (!named)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for its directory");
    for (uint32_t i = 0; i < self->count; i++)
        named[i] = (s_named_t){s_hash(self->members[i].name), i};
    qsort(named, self->count, sizeof *named, s_by_hash);
    for (size_t i = 1; i < self->count; i++)
        if (named[i].hash == named[i - 1].hash)
            s_say(self, "zip_twice", self->members[named[i].index].name,
                  "a member is there twice: which one is read depends on the reader");
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Local headers, in the order of the file

static int
s_by_place(const void *a, const void *b)
{
    const lade_zip_member_t *x = *(lade_zip_member_t *const *)a,
                            *y = *(lade_zip_member_t *const *)b;
    return x->header < y->header ? -1 : x->header > y->header;
}

// What follows a streamed member: its checksum and sizes, with or without a signature.
static bool
s_is_descriptor(const uint8_t *at, size_t len, const lade_zip_member_t *member)
{
    if (len == 16 || len == 24) {
        if (memcmp(at, "PK\7\10", 4) != 0)
            return false;
        at += 4;
        len -= 4;
    }
    if (len == 12)
        return s_u32(at) == member->crc && s_u32(at + 4) == (uint32_t)member->packed &&
               s_u32(at + 8) == (uint32_t)member->size;
    return len == 20 && s_u32(at) == member->crc && s_u64(at + 4) == member->packed &&
           s_u64(at + 12) == member->size;
}

// header has the fixed part, the name and len bytes in all of the local header.
static const char *
s_disagreement(const uint8_t *header, size_t len, const lade_zip_member_t *member)
{
    size_t name_len = s_u16(header + 26), extra_len = s_u16(header + 28);
    bool streamed = member->flags & S_STREAMED;
    uint32_t crc = s_u32(header + 14);
    uint64_t packed = s_u32(header + 18), size = s_u32(header + 22), none = 0;
    uint64_t *fields[] = {&size, &packed, &none};
    bool wanted[] = {size == 0xffffffff, packed == 0xffffffff, false};
    if (name_len != strlen(member->name) || memcmp(header + S_LOCAL, member->name, name_len) != 0)
        return "a member has two names";
    if (s_u16(header + 6) != member->flags || s_u16(header + 8) != member->method)
        return "a member's two headers disagree on how it is packed";
    if (len < S_LOCAL + name_len + extra_len)
        extra_len = len - S_LOCAL - name_len;
    if (!s_extra64(header + S_LOCAL + name_len, extra_len, fields, wanted) && !streamed)
        return "a member lacks its 64-bit sizes";
    if (streamed && crc == 0 && (packed == 0 || packed == 0xffffffff || wanted[1]) &&
        (size == 0 || size == 0xffffffff || wanted[0]))
        return NULL;
    if (crc != member->crc)
        return "a member's two headers disagree on its checksum";
    return packed == member->packed && size == member->size
               ? NULL
               : "a member's two headers disagree on its size";
}

typedef struct {
    const lade_zip_member_t *last; // the member before
    uint64_t end;                  // where that ends
} s_walk_t;

// Between the end of the last member and `next`: nothing, or the last one's descriptor, which
// stands in bytes.
static void
s_judge_gap(lade_zip_t *self, const s_walk_t *walk, uint64_t next, const uint8_t *bytes)
{
    uint64_t gap = next - walk->end;
    bool streamed = walk->last && walk->last->flags & S_STREAMED;
    if (next < walk->end)
        s_say(self, "zip_overlap", walk->last ? walk->last->name : NULL,
              "a member lies over what follows it");
    else if (streamed && gap <= S_MAX_DESCRIPTOR && bytes &&
             s_is_descriptor(bytes, (size_t)gap, walk->last))
        return;
    else if (streamed && gap <= S_MAX_DESCRIPTOR)
        s_say(self, "zip_headers", walk->last->name, "what follows a member is not what it says");
    else if (gap)
        s_say(self, "zip_gap", walk->last ? walk->last->name : NULL,
              "bytes of the archive belong to none of its members");
}

static void
s_read_local(lade_zip_t *self, lade_zip_member_t *member, s_walk_t *walk)
{
    uint8_t bytes[S_MAX_DESCRIPTOR + S_LOCAL + LADE_ZIP_MAX_NAME + S_USUAL_EXTRA];
    bool near = member->header >= walk->end && member->header - walk->end <= S_MAX_DESCRIPTOR;
    uint64_t from = near ? walk->end : member->header;
    size_t before = (size_t)(member->header - from), name_len = strlen(member->name);
    size_t len = before + S_LOCAL + name_len + S_USUAL_EXTRA;
    if (from >= self->directory || self->directory - from < before + S_LOCAL + name_len) {
        s_say(self, "zip_headers", member->name, "a member begins beyond the archive");
        return;
    }
    if (len > self->directory - from)
        len = (size_t)(self->directory - from);
    const uint8_t *header = bytes + before;
    if (!s_pread(self->fd, bytes, len, from) || memcmp(header, "PK\3\4", 4) != 0) {
        s_say(self, "zip_headers", member->name, "a member has no header of its own");
        return;
    }
    s_judge_gap(self, walk, member->header, near ? bytes : NULL);
    const char *problem = s_disagreement(header, len - before, member);
    if (problem)
        s_say(self, "zip_headers", member->name, problem);
    uint64_t data = member->header + S_LOCAL + s_u16(header + 26) + s_u16(header + 28), end;
    if (data > self->directory || member->packed > self->directory - data) {
        s_say(self, "zip_sizes", member->name, "a member reaches beyond the archive");
        end = self->directory;
    } else {
        member->data = data;
        end = data + member->packed;
    }
    walk->end = end > walk->end ? end : walk->end;
    walk->last = member;
}

static lade_code_t
s_read_locals(lade_zip_t *self, lade_error_t *error)
{
    lade_zip_member_t **placed = malloc((self->count + 1) * sizeof(void *));
    if (!placed)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for its directory");
    bool sorted = true;
    for (size_t i = 0; i < self->count; i++) {
        placed[i] = &self->members[i];
        sorted = sorted && (i == 0 || placed[i]->header >= placed[i - 1]->header);
    }
    if (!sorted)
        qsort(placed, self->count, sizeof *placed, s_by_place);
    s_walk_t walk = {.end = self->shift};
    for (size_t i = 0; i < self->count; i++)
        s_read_local(self, placed[i], &walk);
    uint8_t rest[S_MAX_DESCRIPTOR];
    uint64_t gap = self->directory - walk.end;
    bool near = walk.end <= self->directory && gap <= sizeof rest;
    if (near && !s_pread(self->fd, rest, (size_t)gap, walk.end))
        near = false;
    s_judge_gap(self, &walk, self->directory, near ? rest : NULL);
    free(placed);
    return LADE_OK;
}

lade_code_t
lade_zip_open(int fd, uint64_t size, lade_tensors_t *list, lade_zip_t **self_p, lade_error_t *error)
{
    s_place_t place = {0};
    lade_zip_t *self = calloc(1, sizeof *self);
    *self_p = NULL;
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a zip archive");
    self->fd = fd;
    self->size = size;
    self->list = list;
    lade_code_t code = s_read_end(self, &place, error);
    if (!code)
        code = s_check_place(self, &place, error);
    if (!code)
        code = s_read_directory(self, &place, error);
    if (!code)
        code = s_find_doubles(self, error);
    if (!code)
        code = s_read_locals(self, error);
    if (code)
        lade_zip_destroy(&self);
    *self_p = self;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Members

size_t
lade_zip_count(const lade_zip_t *self)
{
    return self->count;
}

const lade_zip_member_t *
lade_zip_get(const lade_zip_t *self, size_t index)
{
    return &self->members[index];
}

size_t
lade_zip_find(const lade_zip_t *self, const char *name)
{
    uint64_t hash = s_hash(name);
    size_t low = 0, high = self->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (self->named[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < self->count && self->named[low].hash == hash; low++)
        if (strcmp(self->members[self->named[low].index].name, name) == 0)
            return self->named[low].index;
    return self->count;
}

bool
lade_zip_is_plain(const lade_zip_member_t *member)
{
    return member->data && member->method == 0 && !(member->flags & S_ENCRYPTED) &&
           member->packed == member->size;
}

// Unpacks up to len bytes. *whole_p is true if the member ends right there.
static size_t
s_inflate(lade_zip_t *self, const lade_zip_member_t *member, uint8_t *bytes, size_t len,
          bool *whole_p)
{
    uint8_t piece[16384];
    z_stream stream = {.next_out = bytes, .avail_out = (uInt)len};
    uint64_t at = 0;
    int status = inflateInit2(&stream, -MAX_WBITS);
    *whole_p = false;
    if (status != Z_OK)
        return 0;
    while (status == Z_OK && at < member->packed) {
        size_t n =
            member->packed - at < sizeof piece ? (size_t)(member->packed - at) : sizeof piece;
        if (!s_pread(self->fd, piece, n, member->data + at))
            break;
        at += n;
        stream.next_in = piece;
        stream.avail_in = (uInt)n;
        status = inflate(&stream, Z_NO_FLUSH);
        if (stream.avail_in && status == Z_OK)
            break; // no room for more
    }
    *whole_p = status == Z_STREAM_END && at == member->packed && stream.avail_in == 0;
    size_t got = len - stream.avail_out;
    inflateEnd(&stream);
    return got;
}

lade_code_t
lade_zip_read(lade_zip_t *self, size_t index, size_t max, uint8_t **data_p, size_t *len_p,
              lade_error_t *error)
{
    const lade_zip_member_t *member = &self->members[index];
    char shown[80];
    *data_p = NULL;
    lade_tensor_list_show(member->name, shown);
    if (!member->data || (member->method != 0 && member->method != 8))
        return lade_error_set(error, LADE_CORRUPT, "%s cannot be unpacked", shown);
    uint64_t size = member->method ? member->size : member->packed;
    if (size > max)
        return lade_error_set(error, LADE_TOO_LARGE, "%s has %" PRIu64 " bytes, over %zu", shown,
                              size, max);
    if (size / S_MAX_RATIO > member->packed)
        return lade_error_set(error, LADE_CORRUPT, "%s says it is larger than it can be", shown);
    size_t len = (size_t)size, got = len;
    uint8_t *data = malloc(len + 1); // one more tells that there is more than it says
    bool whole = true;
    if (!data)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %s", shown);
    if (member->method)
        got = s_inflate(self, member, data, len + 1, &whole);
    else if (!s_pread(self->fd, data, len, member->data))
        got = 0;
    if (got != len || !whole) {
        s_say(self, "zip_sizes", member->name, "a member is not as long as it says");
        len = got < len ? got : len;
    } else if (crc32(crc32(0, NULL, 0), data, (uInt)len) != member->crc) {
        s_say(self, "zip_checksum", member->name,
              "a member's checksum is wrong: readers that check it stop where others go on");
    }
    *data_p = data;
    *len_p = len;
    return LADE_OK;
}

size_t
lade_zip_head(lade_zip_t *self, size_t index, uint8_t *bytes, size_t len)
{
    const lade_zip_member_t *member = &self->members[index];
    bool whole;
    if (!member->data)
        return 0;
    if (member->method == 8)
        return s_inflate(self, member, bytes, len, &whole);
    len = member->packed < len ? (size_t)member->packed : len;
    return member->method == 0 && s_pread(self->fd, bytes, len, member->data) ? len : 0;
}

void
lade_zip_destroy(lade_zip_t **self_p)
{
    if (!*self_p)
        return;
    free((*self_p)->members);
    free((*self_p)->names);
    free((*self_p)->named);
    free(*self_p);
    *self_p = NULL;
}
