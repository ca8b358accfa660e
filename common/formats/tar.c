// Tar files from strangers.
#include "common/formats/tar.h"

#include "common/formats/tensor_list.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { S_MAX_EXTENDED = 4096 };

// The octal number of a field; false if it is none.
static bool
s_octal(const uint8_t *at, size_t len, uint64_t *value_p)
{
    uint64_t value = 0;
    size_t i = 0;
    while (i < len && at[i] == ' ')
        i++;
    size_t first = i;
    for (; i < len && at[i] >= '0' && at[i] <= '7'; i++)
        value = value * 8 + (uint64_t)(at[i] - '0');
    *value_p = value;
    return i > first && (i == len || at[i] == '\0' || at[i] == ' ');
}

bool
lade_tar_is(const uint8_t *head, size_t len)
{
    uint64_t said;
    int64_t plain = 8 * ' ', with_sign = 8 * ' '; // old writers added bytes with their sign
    if (len < LADE_TAR_BLOCK || !s_octal(head + 148, 8, &said))
        return false;
    for (size_t i = 0; i < LADE_TAR_BLOCK; i++)
        if (i < 148 || i >= 156) {
            plain += head[i];
            with_sign += (int8_t)head[i];
        }
    return (int64_t)said == plain || (int64_t)said == with_sign;
}

// An extended header may say anything about the member after it. Times and owners are fine; another
// name or size is what one reader believes and the next does not.
static bool
s_extended_is_fine(int fd, uint64_t at, uint64_t size)
{
    static const char *const fine[] = {
        "mtime=", "atime=", "ctime=", "uid=", "gid=", "uname=", "gname=", NULL};
    char text[S_MAX_EXTENDED + 1];
    if (size > S_MAX_EXTENDED || pread(fd, text, (size_t)size, (off_t)at) != (ssize_t)size)
        return false;
    text[size] = '\0';
    for (char *line = text, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        char *key = strchr(line, ' ');
        if (!end || !key || key > end)
            return false;
        size_t i = 0;
        while (fine[i] && strncmp(key + 1, fine[i], strlen(fine[i])) != 0)
            i++;
        if (!fine[i])
            return false;
    }
    return strlen(text) == size;
}

static void
s_read_name(const uint8_t *block, char name[260])
{
    bool prefix = memcmp(block + 257, "ustar\0", 6) == 0 && block[345];
    snprintf(name, 260, "%.155s%s%.100s", prefix ? (const char *)block + 345 : "",
             prefix ? "/" : "", (const char *)block);
}

lade_code_t
lade_tar_each(int fd, uint64_t size, lade_tensors_t *list, lade_tar_see_t *see, void *arg,
              lade_error_t *error)
{
    uint8_t block[LADE_TAR_BLOCK];
    lade_tar_member_t member;
    uint64_t at = 0;
    for (size_t i = 0; size - at >= sizeof block; i++) {
        if (i == LADE_TAR_MAX_MEMBERS)
            return lade_error_set(error, LADE_TOO_LARGE, "it has more than %d members",
                                  LADE_TAR_MAX_MEMBERS);
        if (pread(fd, block, sizeof block, (off_t)at) != (ssize_t)sizeof block ||
            !lade_tar_is(block, sizeof block))
            break; // two blocks of nothing are its end
        s_read_name(block, member.name);
        if (!s_octal(block + 124, 12, &member.size) || member.size > size - at - sizeof block)
            return lade_error_set(error, LADE_CORRUPT, "member %zu reaches beyond the file", i);
        member.at = at + sizeof block;
        char type = (char)block[156];
        if (type == 'x' || type == 'g' ? !s_extended_is_fine(fd, member.at, member.size)
                                       : !strchr("05", type) && type)
            lade_tensor_list_add_unsafe(list, "tar_headers", member.name, NULL,
                                        "the tar file has headers that readers take differently");
        if ((type == '0' || type == '\0') && !see(arg, &member))
            break;
        at = member.at + member.size;
        uint64_t rest = (LADE_TAR_BLOCK - at % LADE_TAR_BLOCK) % LADE_TAR_BLOCK;
        if (rest > size - at)
            break;
        at += rest;
    }
    return LADE_OK;
}
