// Shared memory for segments: memfds that are made once and given out again and again.
#include "workers/gpu/memory.h"

#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_PAGE = 4096,
    S_HUGE = 2 << 20,
    S_SLACK =
        8, // a region may be longer than asked for by one part in so many; what is more is cut off
};

struct lade_memory {
    pthread_mutex_t lock; // of all below; never held over a call that touches pages
    size_t total, idle_limit;
    size_t given, idle; // bytes given out and kept
    uint64_t generation;
    lade_region_t *kept; // newest first
};

lade_memory_t *
lade_memory_new(size_t total, size_t idle)
{
    lade_memory_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    pthread_mutex_init(&self->lock, NULL);
    self->total = total;
    self->idle_limit = idle < total ? idle : total;
    return self;
}

// ---------------------------------------------------------------------------------------------------
// Huge pages: what the system has, of the whole process

static struct {
    pthread_mutex_t lock; // of all below
    bool looked, off;
    bool reserved, transparent; // there are some; they are made for shared memory when asked for
    char why[160];              // "": nothing is missing
} s_huge = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_size_t s_reserved_bytes;

// The first line of a file of the system's, "" without it.
static void
s_read_line(const char *path, char *line, size_t size)
{
    line[0] = '\0';
    FILE *in = fopen(path, "re");
    if (in && !fgets(line, (int)size, in))
        line[0] = '\0';
    if (in)
        fclose(in);
    line[strcspn(line, "\n")] = '\0';
}

// True if the choice in brackets is one that gives us huge pages for the asking.
static bool
s_gives_transparent(const char *path)
{
    static const char *const good[] = {"[advise]", "[always]", "[within_size]", "[force]"};
    char line[200];
    s_read_line(path, line, sizeof line);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (strstr(line, good[i]))
            return true;
    return false;
}

// Says why pages are not as large as they could be; once, till another choice. Under the lock.
static void
s_say_small(const char *why)
{
    if (!*s_huge.why)
        lade_log(LADE_LOG_INFO, "memory", "no huge pages: %s", why);
    snprintf(s_huge.why, sizeof s_huge.why, "%s", why);
}

// Under the lock.
static void
s_look_for_huge(void)
{
    static const char top[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    static const char sized[] =
        "/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/shmem_enabled";
    char line[200];
    if (s_huge.looked)
        return;
    s_huge.looked = true;
    s_read_line("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", line, sizeof line);
    s_huge.reserved = !s_huge.off && strtoul(line, NULL, 10) > 0;
    s_huge.transparent = !s_huge.off && (s_gives_transparent(top) || s_gives_transparent(sized));
    if (s_huge.off)
        s_say_small("load.huge is off");
    else if (!s_huge.reserved && !s_huge.transparent)
        s_say_small("none are reserved (vm.nr_hugepages) and the system makes none for shared "
                    "memory (transparent_hugepage/shmem_enabled)");
}

// Bytes of a page a region of so many bytes is best made of.
static size_t
s_page_size(size_t bytes)
{
    pthread_mutex_lock(&s_huge.lock);
    s_look_for_huge();
    bool huge = s_huge.reserved && bytes >= S_HUGE;
    pthread_mutex_unlock(&s_huge.lock);
    return huge ? S_HUGE : S_PAGE;
}

lade_code_t
lade_memory_choose(const char *huge, lade_error_t *error)
{
    bool off = !strcmp(huge, "off");
    if (!off && strcmp(huge, "auto") != 0)
        return lade_error_set(error, LADE_CONFIG_ERROR, "load.huge: '%s' is not auto or off", huge);
    pthread_mutex_lock(&s_huge.lock);
    s_huge.looked = s_huge.reserved = s_huge.transparent = false;
    s_huge.off = off;
    s_huge.why[0] = '\0';
    s_look_for_huge();
    pthread_mutex_unlock(&s_huge.lock);
    return LADE_OK;
}

json_t *
lade_memory_stats(void)
{
    pthread_mutex_lock(&s_huge.lock);
    s_look_for_huge();
    const char *pages = s_huge.reserved ? "reserved" : s_huge.transparent ? "transparent" : "plain";
    json_t *stats =
        json_pack("{s:s, s:s?, s:I}", "pages", pages, "why", *s_huge.why ? s_huge.why : NULL,
                  "reserved_bytes", (json_int_t)atomic_load(&s_reserved_bytes));
    pthread_mutex_unlock(&s_huge.lock);
    return stats;
}

// ---------------------------------------------------------------------------------------------------
// Regions

static void
s_region_destroy(lade_region_t **region_p)
{
    lade_region_t *region = *region_p;
    if (region->bytes)
        munmap(region->bytes, region->size);
    if (region->bytes && region->fixed)
        atomic_fetch_sub(&s_reserved_bytes, region->size);
    if (region->fd >= 0)
        close(region->fd);
    if (region->own_fd >= 0)
        close(region->own_fd);
    free(region);
    *region_p = NULL;
}

static void
s_destroy_all(lade_region_t *list)
{
    while (list) {
        lade_region_t *next = list->next;
        s_region_destroy(&list);
        list = next;
    }
}

void
lade_memory_destroy(lade_memory_t **self_p)
{
    lade_memory_t *self = *self_p;
    if (!self)
        return;
    assert(self->given == 0);
    s_destroy_all(self->kept);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *self_p = NULL;
}

// Whatever the system's word for it is (EFBIG, ENOMEM, EINVAL): there is no such memory.
static lade_code_t
s_refuse(lade_error_t *error, size_t size)
{
    return lade_error_set(error, LADE_NO_MEMORY, "cannot get %zu bytes of shared memory: %s", size,
                          strerror(errno));
}

// Gives the region another length. Its pages up to the shorter of the two stay.
static lade_code_t
s_resize(lade_region_t *region, size_t size, lade_error_t *error)
{
    // Growing the file comes first and shrinking it last: the mapping never reaches beyond its end.
    if (size > region->size && ftruncate(region->own_fd, (off_t)size))
        return s_refuse(error, size);
    void *bytes = mremap(region->bytes, region->size, size, MREMAP_MAYMOVE);
    if (bytes == MAP_FAILED)
        return s_refuse(error, size);
    if (size < region->size && ftruncate(region->own_fd, (off_t)size))
        return s_refuse(error, size);
    region->bytes = bytes;
    region->size = size;
    region->warm = region->warm < size ? region->warm : size;
    madvise(region->bytes, size, MADV_HUGEPAGE);
    return LADE_OK;
}

// Opens the file a second time, read-only, so that what is handed out cannot be written through,
// and closes it to writable mappings from now on. Both are second lines of defence: without them
// readers could still only harm themselves by breaking the contract, so a kernel that refuses the
// seal is no error.
static lade_code_t
s_protect(lade_region_t *region, lade_error_t *error)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", region->own_fd);
    if (fchmod(region->own_fd, 0400))
        return lade_error_errno(error, errno, "cannot protect shared memory");
    region->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (region->fd < 0)
        return lade_error_errno(error, errno, "cannot open %s (is /proc mounted?)", path);
    (void)fcntl(region->own_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
    return LADE_OK;
}

// No huge page can be had for a region: there are too few left, which may change, or the system
// gives no memfd of any, which is not tried again.
static void
s_lack_huge(bool refused, int errnum)
{
    char why[sizeof s_huge.why];
    snprintf(why, sizeof why, "the reserved ones (vm.nr_hugepages) are refused: memfd_create: %s",
             strerror(errnum));
    pthread_mutex_lock(&s_huge.lock);
    s_say_small(refused ? why : "too few reserved ones are left (vm.nr_hugepages)");
    s_huge.reserved &= !refused;
    pthread_mutex_unlock(&s_huge.lock);
}

// Of reserved huge pages. False if there are too few left: they are taken when they are mapped.
static bool
s_fill_with_huge(lade_region_t *region, size_t size)
{
    region->own_fd =
        memfd_create("lade", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);
    if (region->own_fd < 0) {
        s_lack_huge(true, errno);
        return false;
    }
    void *bytes = ftruncate(region->own_fd, (off_t)size)
                      ? MAP_FAILED
                      : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, region->own_fd, 0);
    if (bytes == MAP_FAILED) {
        s_lack_huge(false, 0);
        close(region->own_fd);
        region->own_fd = -1;
        return false;
    }
    atomic_fetch_add(&s_reserved_bytes, size);
    region->bytes = bytes;
    region->size = size;
    region->fixed = true;
    return true;
}

static lade_code_t
s_fill_region(lade_region_t *region, size_t size, lade_error_t *error)
{
    if (size % S_HUGE == 0 && s_page_size(size) == S_HUGE && s_fill_with_huge(region, size))
        return s_protect(region, error);
    region->own_fd = memfd_create("lade", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (region->own_fd < 0)
        return lade_error_errno(error, errno, "cannot make shared memory");
    if (ftruncate(region->own_fd, (off_t)size))
        return s_refuse(error, size);
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, region->own_fd, 0);
    if (bytes == MAP_FAILED)
        return s_refuse(error, size);
    region->bytes = bytes;
    region->size = size;
    madvise(bytes, size,
            MADV_HUGEPAGE); // where the system allows it for shared memory; else of no effect
    return s_protect(region, error);
}

static lade_code_t
s_region_new(size_t size, lade_region_t **region_p, lade_error_t *error)
{
    lade_region_t *region = calloc(1, sizeof *region);
    if (!region)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a region");
    region->fd = region->own_fd = -1;
    lade_code_t code = s_fill_region(region, size, error);
    if (code)
        s_region_destroy(&region);
    *region_p = region;
    return code;
}

static void
s_unlink(lade_memory_t *self, lade_region_t **at)
{
    lade_region_t *region = *at;
    *at = region->next;
    region->next = NULL;
    self->idle -= region->size;
}

// Takes kept regions, the longest kept first, until those that are left take at most limit bytes;
// returns them for s_destroy_all, outside the lock.
static lade_region_t *
s_trim(lade_memory_t *self, size_t limit)
{
    lade_region_t *dropped = NULL;
    while (self->idle > limit) {
        lade_region_t **at = &self->kept;
        while ((*at)->next)
            at = &(*at)->next;
        lade_region_t *region = *at;
        s_unlink(self, at);
        region->next = dropped;
        dropped = region;
    }
    return dropped;
}

// Chooses among the kept regions, NULL if a fresh one is better:
//   1. the shortest that is long enough, if it is not twice as long as needed;
//   2. the longest of those too short: its pages are there already, the rest is fresh;
//   3. one that is far too long only if there is no room for a fresh one: cutting it would waste
//   its pages.
// What can have no other size is taken as it is or not at all.
static lade_region_t **
s_choose(lade_memory_t *self, size_t size)
{
    lade_region_t **longer = NULL, **shorter = NULL;
    for (lade_region_t **at = &self->kept; *at; at = &(*at)->next) {
        bool fits =
            !(*at)->fixed || ((*at)->size / 2 <= size && self->given + (*at)->size <= self->total);
        if ((*at)->size >= size && fits && (!longer || (*at)->size < (*longer)->size))
            longer = at;
        if ((*at)->size < size && !(*at)->fixed && (!shorter || (*at)->size > (*shorter)->size))
            shorter = at;
    }
    if (longer && (*longer)->size / 2 <= size)
        return longer;
    if (shorter)
        return shorter;
    return self->given + self->idle + size > self->total ? longer : NULL;
}

// The size a region is to have: as it is, if it is only a little too long and there is room for
// that.
static size_t
s_final_size(const lade_memory_t *self, const lade_region_t *region, size_t size)
{
    bool fits = region && region->size >= size && region->size - size <= size / S_SLACK &&
                self->given + region->size <= self->total;
    fits = fits || (region && region->fixed);
    return fits ? region->size : size;
}

lade_code_t
lade_memory_get(lade_memory_t *self, size_t bytes, lade_region_t **region_p, lade_error_t *error)
{
    *region_p = NULL;
    if (!bytes || bytes > SIZE_MAX / 4)
        return lade_error_set(error, LADE_NO_MEMORY, "there is no segment of %zu bytes", bytes);
    size_t page = s_page_size(bytes), size = (bytes + page - 1) / page * page;
    pthread_mutex_lock(&self->lock);
    lade_region_t **at = s_choose(self, size);
    lade_region_t *region = at ? *at : NULL;
    if (region)
        s_unlink(self, at);
    size = s_final_size(self, region, size);
    self->given += size;
    lade_region_t *dropped =
        s_trim(self, self->total > self->given ? self->total - self->given : 0);
    uint64_t generation = ++self->generation;
    pthread_mutex_unlock(&self->lock);

    s_destroy_all(dropped); // before fresh pages are asked for
    lade_code_t code = LADE_OK;
    if (!region)
        code = s_region_new(size, &region, error);
    else if (region->size != size && (code = s_resize(region, size, error)))
        s_region_destroy(&region);
    if (code) {
        pthread_mutex_lock(&self->lock);
        self->given -= size;
        pthread_mutex_unlock(&self->lock);
        return code;
    }
    region->generation = generation;
    *region_p = region;
    return LADE_OK;
}

void
lade_memory_put(lade_memory_t *self, lade_region_t **region_p)
{
    lade_region_t *region = *region_p;
    if (!region)
        return;
    if (region->own_fd < 0) {
        pthread_mutex_lock(&self->lock);
        self->given -= region->size;
        pthread_mutex_unlock(&self->lock);
        s_region_destroy(region_p);
        return;
    }
    pthread_mutex_lock(&self->lock);
    self->given -= region->size;
    self->idle += region->size;
    region->next = self->kept;
    self->kept = region;
    size_t room = self->total > self->given ? self->total - self->given : 0;
    lade_region_t *dropped = s_trim(self, room < self->idle_limit ? room : self->idle_limit);
    pthread_mutex_unlock(&self->lock);
    s_destroy_all(dropped);
    *region_p = NULL;
}

lade_code_t
lade_memory_adopt(lade_memory_t *self, int fd, size_t size, uint64_t generation,
                  lade_region_t **region_p, lade_error_t *error)
{
    struct stat status;
    *region_p = NULL;
    if (!size || fstat(fd, &status) || status.st_size < 0 || (uint64_t)status.st_size != size)
        return lade_error_set(error, LADE_CORRUPT, "a segment is not of %zu bytes any more", size);
    lade_region_t *region = calloc(1, sizeof *region);
    void *bytes = region ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (bytes == MAP_FAILED) {
        free(region);
        return s_refuse(error, size);
    }
    *region = (lade_region_t){.bytes = bytes,
                              .size = size,
                              .warm = size,
                              .generation = generation,
                              .fd = fd,
                              .own_fd = -1};
    pthread_mutex_lock(&self->lock);
    self->given += size;
    self->generation = generation > self->generation ? generation : self->generation;
    pthread_mutex_unlock(&self->lock);
    *region_p = region;
    return LADE_OK;
}

lade_code_t
lade_memory_fault(void *bytes, size_t len, const char *what, lade_error_t *error)
{
    uintptr_t from = (uintptr_t)bytes, to = from + len;
    from -= from % S_PAGE;
    to += (S_PAGE - to % S_PAGE) % S_PAGE;
    if (len && madvise((void *)from, to - from, MADV_POPULATE_WRITE) &&
        errno != EINVAL) // EINVAL: before Linux 5.14
        return lade_error_set(error, LADE_NO_MEMORY, "the system has no memory for %s: %s", what,
                              strerror(errno));
    return LADE_OK;
}

lade_code_t
lade_memory_touch(lade_region_t *region, size_t bytes, lade_error_t *error)
{
    return bytes <= region->warm ? LADE_OK
                                 : lade_memory_fault(region->bytes, bytes, "a model", error);
}

size_t
lade_memory_idle(lade_memory_t *self)
{
    pthread_mutex_lock(&self->lock);
    size_t idle = self->idle;
    pthread_mutex_unlock(&self->lock);
    return idle;
}

// ---------------------------------------------------------------------------------------------------
// The machine

// The number in a control group's file; SIZE_MAX for none ("max", no such file).
static size_t
s_read_limit(const char *folder, const char *file)
{
    char path[4400], text[32] = "";
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *in = fopen(path, "re");
    if (!in)
        return SIZE_MAX;
    char *got = fgets(text, sizeof text, in);
    fclose(in);
    if (!got || text[0] < '0' || text[0] > '9')
        return SIZE_MAX;
    uintmax_t value = strtoumax(text, NULL, 10);
    return value < SIZE_MAX ? (size_t)value : SIZE_MAX;
}

// The least limit of a group and those above it, up to where the hierarchy is mounted.
static size_t
s_least_limit(const char *mount, const char *group, const char *file)
{
    char folder[4200];
    int len = snprintf(folder, sizeof folder, "%s%s", mount, group);
    size_t least = SIZE_MAX, root = strlen(mount);
    if (len < 0 || (size_t)len >= sizeof folder)
        return least;
    for (;;) {
        size_t limit = s_read_limit(folder, file);
        least = limit < least ? limit : least;
        char *slash = strrchr(folder + root, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

// A line of /proc/self/cgroup: "0::/GROUP" (version 2) or "N:memory:/GROUP" (version 1).
static size_t
s_group_limit(char *line)
{
    char *names = strchr(line, ':');
    char *group = names ? strchr(names + 1, ':') : NULL;
    if (!group)
        return SIZE_MAX;
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    if (!strcmp(names + 1, ""))
        return s_least_limit("/sys/fs/cgroup", group, "memory.max");
    if (!strcmp(names + 1, "memory"))
        return s_least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
    return SIZE_MAX;
}

size_t
lade_memory_machine_bytes(void)
{
    size_t bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    FILE *in = fopen("/proc/self/cgroup", "re");
    char line[4096];
    while (in && fgets(line, sizeof line, in)) {
        size_t limit = s_group_limit(line);
        bytes = limit < bytes ? limit : bytes;
    }
    if (in)
        fclose(in);
    return bytes;
}
