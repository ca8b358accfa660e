// Records against files, files against records, leftovers and room on the disks.
#include "broker/doctor.h"

#include "common/away.h"
#include "common/path.h"
#include "common/wire.h"

#include <czmq.h>
#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

typedef struct {
    lade_doctor_t *doctor;
    lade_chore_t *chore;
    const char *models_dir;
    const char **places; // where records are, absolute, sorted
    size_t count;
    json_t *leftovers;
    int64_t orphan_bytes;
} s_files_t;

// ---------------------------------------------------------------------------------------------------
// Records against files. What may be away (a drive, a share) is told from what is gone.

static void
s_check_record(s_files_t *self, const lade_doctor_record_t *record, const char *whole)
{
    struct stat stat_of;
    bool inside = *record->path != '/';
    if (lstat(whole, &stat_of) != 0) {
        char words[512];
        bool gone = errno == ENOENT || errno == ENOTDIR;
        snprintf(words, sizeof words, "%s", strerror(errno));
        if (!gone || lade_away(whole, inside ? self->models_dir : NULL, words, sizeof words))
            lade_doctor_find(self->doctor, "file_unavailable", "warning", whole, record->key,
                             "mount its drive or share again; the record stays",
                             "the model cannot be reached now: %s", words);
        else
            lade_doctor_find(self->doctor, "file_missing", "error", whole, record->key,
                             "put the files back, or remove the record with `lade rm --keep-files`",
                             "the model's files are gone");
        return;
    }
    int64_t size = record->size < 0 ? -1 : lade_path_size(whole);
    if (size >= 0 && size != record->size)
        lade_doctor_find(self->doctor, "size_differs", "error", whole, record->key,
                         "`lade verify` tells whether the content is still the installed one",
                         "the files have %" PRId64 " bytes, the record says %" PRId64, size,
                         record->size);
}

// ---------------------------------------------------------------------------------------------------
// Files against records

static int
s_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// Whether a record is at the path ('='), somewhere below it ('/'), or neither (0).
static char
s_record_at(const s_files_t *self, const char *path)
{
    size_t low = 0, high = self->count, len = strlen(path);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(self->places[middle], path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < self->count && strcmp(self->places[low], path) == 0)
        return '=';
    // Others that begin with it ("a.b", "a-b") may stand before those below it.
    for (; low < self->count && strncmp(self->places[low], path, len) == 0; low++)
        if (self->places[low][len] == '/')
            return '/';
    return 0;
}

static bool
s_is_weights(const char *name)
{
    static const char *const suffixes[] = {".safetensors", ".ckpt", ".pt",  ".pth",   ".bin",
                                           ".gguf",        ".onnx", ".sft", ".pickle"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t len = strlen(name), end = strlen(suffixes[i]);
        if (len > end && strcasecmp(name + len - end, suffixes[i]) == 0)
            return true;
    }
    return false;
}

// The job of a temporary name: tmpinstall_JOB, .BASE.JOB-ATTEMPT.part, .BASE.JOB.journal; -1 for
// none.
static int64_t
s_job_of(const char *name)
{
    static const char begin[] = "tmpinstall_";
    char *end;
    if (strncmp(name, begin, sizeof begin - 1) == 0) {
        int64_t id = strtoll(name + sizeof begin - 1, &end, 10);
        return *end ? -1 : id;
    }
    size_t len = strlen(name);
    bool part = len > 5 && strcmp(name + len - 5, ".part") == 0,
         journal = len > 8 && strcmp(name + len - 8, ".journal") == 0;
    if (*name != '.' || !(part || journal))
        return -1;
    const char *at = name + len - (part ? 5 : 8);
    while (at > name && at[-1] != '.')
        at--;
    int64_t id = strtoll(at, &end, 10);
    return end > at && id > 0 && ((part && *end == '-') || (journal && *end == '.')) ? id : -1;
}

static bool
s_is_old(const char *path)
{
    struct stat stat_of;
    return lstat(path, &stat_of) == 0 && time(NULL) - stat_of.st_mtime > LADE_DOCTOR_STALE_S;
}

static void
s_note_leftover(s_files_t *self, const char *path, int64_t job)
{
    if (s_is_old(path))
        json_array_append_new(self->leftovers, json_pack("{s:o, s:I, s:I}", "path",
                                                         json_stringn_nocheck(path, strlen(path)),
                                                         "job", (json_int_t)job, "bytes",
                                                         (json_int_t)lade_path_size(path)));
}

static void s_walk(s_files_t *self, const char *folder, int depth);

// Whether weights are anywhere in a folder.
static bool
s_has_weights(const char *folder, int depth)
{
    enum { S_DEEPEST = 16 };
    DIR *dir = depth < S_DEEPEST ? opendir(folder) : NULL;
    bool has = false;
    for (struct dirent *entry; dir && !has && (entry = readdir(dir));) {
        if (*entry->d_name == '.')
            continue;
        char *path = lade_path_join(folder, entry->d_name);
        struct stat stat_of;
        if (lstat(path, &stat_of) == 0)
            has = S_ISDIR(stat_of.st_mode) ? s_has_weights(path, depth + 1)
                                           : s_is_weights(entry->d_name);
        free(path);
    }
    if (dir)
        closedir(dir);
    return has;
}

static void
s_orphan(s_files_t *self, const char *path)
{
    int64_t size = lade_path_size(path);
    self->orphan_bytes += size > 0 ? size : 0;
    json_t *finding = lade_doctor_find(
        self->doctor, "orphan", "warning", path, NULL,
        "`lade install --inplace PATH` makes a record of it; else remove it by hand",
        "%" PRId64 " bytes below the models folder belong to no record", size);
    if (finding)
        json_object_set_new(finding, "bytes", json_integer((json_int_t)size));
}

static void
s_look_at(s_files_t *self, const char *path, const char *name, int depth)
{
    enum { S_MODELS = 2 }; // models stand at BASE/TYPE/NAME
    struct stat stat_of;
    int64_t job = s_job_of(name);
    if (job >= 0 || lstat(path, &stat_of) != 0) {
        if (job >= 0)
            s_note_leftover(self, path, job);
        return;
    }
    char record = s_record_at(self, path);
    if (*name == '.' || record == '=')
        return;
    if (!S_ISDIR(stat_of.st_mode)) {
        if (s_is_weights(name))
            s_orphan(self, path);
    } else if (record == '/' || depth < S_MODELS) {
        s_walk(self, path, depth + 1);
    } else if (s_has_weights(path, 0)) {
        s_orphan(self, path);
    } else {
        s_walk(self, path, depth + 1); // leftovers may be in it
    }
}

static void
s_walk(s_files_t *self, const char *folder, int depth)
{
    enum { S_DEEPEST = 16 };
    DIR *dir = depth < S_DEEPEST ? opendir(folder) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            atomic_load(&self->chore->stop))
            continue;
        char *path = lade_path_join(folder, entry->d_name);
        s_look_at(self, path, entry->d_name, depth);
        free(path);
    }
    if (dir)
        closedir(dir);
}

// A restore that was cut off leaves what it had made ready; while we hold the keyspace none is
// under way.
static void
s_look_at_data(s_files_t *self)
{
    const char *data = self->chore->config->data;
    DIR *dir = opendir(data);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, "keyspace.restore-", 17) != 0)
            continue;
        char *path = lade_path_join(data, entry->d_name);
        s_note_leftover(self, path, -1);
        free(path);
    }
    if (dir)
        closedir(dir);
}

void
lade_doctor_files(lade_doctor_t *doctor, lade_chore_t *chore, const lade_doctor_index_t *index,
                  json_t **leftovers_p)
{
    s_files_t self = {.doctor = doctor,
                      .chore = chore,
                      .models_dir = chore->config->models_dir,
                      .count = index->record_count,
                      .leftovers = json_array()};
    self.places = zmalloc((self.count + 1) * sizeof *self.places);
    atomic_store(&chore->done, 0);
    atomic_store(&chore->total, (int64_t)self.count);
    for (size_t i = 0; i < self.count && !atomic_load(&chore->stop); i++) {
        const char *path = index->records[i].path;
        char *whole = *path == '/' ? strdup(path) : lade_path_join(self.models_dir, path);
        s_check_record(&self, &index->records[i], whole);
        self.places[i] = whole;
        atomic_fetch_add(&chore->done, 1);
    }
    if (!atomic_load(&chore->stop)) {
        qsort(self.places, self.count, sizeof *self.places, s_order);
        s_walk(&self, self.models_dir, 0);
        s_look_at_data(&self);
    }
    for (size_t i = 0; i < self.count; i++)
        free((char *)self.places[i]);
    free(self.places);
    *leftovers_p = self.leftovers;
}

// ---------------------------------------------------------------------------------------------------
// Disks

json_t *
lade_doctor_disks(lade_doctor_t *self, const lade_config_t *config)
{
    static const int64_t least = 1 << 30;
    const char *const folders[] = {config->data, config->models_dir};
    json_t *disks = json_array();
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct statvfs disk;
        if (statvfs(folders[i], &disk) != 0) {
            lade_doctor_find(self, "folder_unreachable", "error", folders[i], NULL,
                             "mount it again, or change the setting",
                             "the folder cannot be looked at: %s", strerror(errno));
            continue;
        }
        int64_t bytes_free = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize,
                bytes = (int64_t)disk.f_blocks * (int64_t)disk.f_frsize;
        json_array_append_new(disks, json_pack("{s:s, s:I, s:I}", "path", folders[i], "free",
                                               (json_int_t)bytes_free, "bytes", (json_int_t)bytes));
        if (bytes_free < least)
            lade_doctor_find(self, "low_space", "warning", folders[i], NULL, "make room",
                             "%" PRId64 " MiB are free on the disk", bytes_free >> 20);
    }
    return disks;
}
