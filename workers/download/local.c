// Moving and copying what is on this machine, in steps that survive a kill.
#include "workers/download/local.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/download/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { S_MAX_BASE = 180 }; // of 255 bytes a name can have; the rest is for our dots and numbers

typedef struct {
    const lade_local_t *request;
    lade_local_answer_t *answer;
    char *source; // the path
    bool move;
    char *folder, *name, *final; // where it goes
    lade_tree_t tree;            // the source
    int64_t done;                // bytes, of the step that is told of
} s_local_t;

bool
lade_local_is(const char *source)
{
    return *source == '/' || strncasecmp(source, "file:", 5) == 0;
}

void
lade_local_free(lade_local_answer_t *answer)
{
    json_decref(answer->state);
    free(answer->path);
    *answer = (lade_local_answer_t){0};
}

static lade_code_t
s_stopped(const s_local_t *self)
{
    return self->request->stop ? self->request->stop(self->request->arg) : LADE_OK;
}

static lade_code_t
s_check_stop(const s_local_t *self, lade_error_t *error)
{
    lade_code_t code = s_stopped(self);
    return code ? lade_error_set(error, code, "it was stopped; the source is as it was") : LADE_OK;
}

static void
s_tell(const s_local_t *self)
{
    if (self->request->progress)
        self->request->progress(self->request->arg, self->done, self->tree.bytes, self->final);
}

// A step of a copy or a read.
static lade_code_t
s_step(void *arg, int64_t bytes)
{
    s_local_t *self = arg;
    self->done += bytes;
    s_tell(self);
    return s_stopped(self);
}

// ---------------------------------------------------------------------------------------------------
// Names

// The path of a file:// URL, decoded.
static lade_code_t
s_read_url(const char *url, char **path_p, lade_error_t *error)
{
    static const char *const starts[] = {"file:///", "file://localhost/"};
    const char *from = NULL;
    for (size_t i = 0; i < 2; i++)
        if (strncasecmp(url, starts[i], strlen(starts[i])) == 0)
            from = url + strlen(starts[i]) - 1;
    if (!from || strpbrk(from, "?#"))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "a file URL is file:///PATH, with %%3F and %%23 for ? and #");
    char *path = malloc(strlen(from) + 1), *out = path;
    for (; *from; from++, out++) {
        const char digits[] = {from[0] == '%' ? from[1] : '\0', from[1] ? from[2] : '\0', '\0'};
        *out = *from;
        if (*from != '%')
            continue;
        *out = strspn(digits, "0123456789abcdefABCDEF") == 2 ? (char)strtoul(digits, NULL, 16) : 0;
        if (!*out) {
            free(path);
            return lade_error_set(error, LADE_VALUE_ERROR,
                                  "the file URL has a %% that two hex digits do not follow");
        }
        from += 2;
    }
    *out = '\0';
    *path_p = path;
    return LADE_OK;
}

static lade_code_t
s_read_source(s_local_t *self, lade_error_t *error)
{
    const char *source = self->request->source;
    self->move = *source == '/';
    lade_code_t code = LADE_OK;
    if (self->move)
        self->source = strdup(source);
    else
        code = s_read_url(source, &self->source, error);
    for (size_t len = code ? 0 : strlen(self->source); len > 1 && self->source[len - 1] == '/';)
        self->source[--len] = '\0'; // a link with a slash would be followed
    if (!code && strcmp(self->source, "/") == 0)
        code = lade_error_set(error, LADE_VALUE_ERROR, "/ is everything: name a file or folder");
    return code;
}

// Where it goes, as an engine's transfer does it. The folder is made.
static lade_code_t
s_choose_place(s_local_t *self, lade_error_t *error)
{
    const lade_local_t *request = self->request;
    const char *to = request->destination ? request->destination : request->destdir;
    struct stat st;
    if (!to || *to != '/')
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "destination or destdir has to be given, as an absolute path");
    bool inside = !request->destination || to[strlen(to) - 1] == '/' ||
                  (stat(to, &st) == 0 && S_ISDIR(st.st_mode));
    self->folder = inside ? strdup(to) : lade_path_folder(to);
    self->name = !inside             ? lade_path_name(to)
                 : request->filename ? strdup(request->filename)
                                     : lade_path_name(self->source);
    lade_code_t code = lade_path_check_name(self->name, error);
    if (code)
        return code;
    self->final = lade_path_join(self->folder, self->name);
    self->answer->path = strdup(self->final);
    return lade_path_mkdirs(self->folder, 0755, error);
}

// The beginning of the hidden names of a job's things in a folder.
static char *
s_hidden(const char *name, int64_t id)
{
    char *text;
    if (asprintf(&text, ".%.*s.%" PRId64, (int)S_MAX_BASE, name, id) < 0)
        abort();
    return text;
}

static char *
s_part_path(const s_local_t *self)
{
    char *hidden = s_hidden(self->name, self->request->id), *path;
    if (asprintf(&path, "%s/%s-%" PRId64 ".part", self->folder, hidden, self->request->attempt) < 0)
        abort();
    free(hidden);
    return path;
}

// Removes what the attempts of a job before this one have copied beside a final path.
static void
s_remove_parts(const char *folder, const char *name, int64_t id, int64_t attempt)
{
    char *hidden = s_hidden(name, id);
    size_t len = strlen(hidden);
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char *end = entry->d_name + len;
        if (strncmp(entry->d_name, hidden, len) != 0 || *end != '-' ||
            strtoll(end + 1, &end, 10) >= attempt || strcmp(end, ".part") != 0)
            continue;
        char *path = lade_path_join(folder, entry->d_name);
        lade_path_remove(path, NULL);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(hidden);
}

void
lade_local_discard(int64_t id, const char *path)
{
    char *folder = lade_path_folder(path), *name = lade_path_name(path);
    s_remove_parts(folder, name, id, INT64_MAX);
    free(folder);
    free(name);
}

// ---------------------------------------------------------------------------------------------------
// Checks

// True if one is in the other, links resolved.
static bool
s_is_in(const char *folder, const char *path)
{
    char *whole = realpath(folder, NULL);
    bool in = whole && lade_path_inside(whole, path);
    free(whole);
    return in;
}

// The source with its links resolved, that of its last part only for a copy.
static char *
s_resolve(const s_local_t *self)
{
    if (!self->move)
        return realpath(self->source, NULL);
    char *folder = lade_path_folder(self->source), *name = lade_path_name(self->source);
    char *whole = realpath(folder, NULL), *path = whole ? lade_path_join(whole, name) : NULL;
    free(folder);
    free(name);
    free(whole);
    return path;
}

// Lade's own folders hold secrets, the queue, and files that records name.
static lade_code_t
s_check_own(const s_local_t *self, const char *path, lade_error_t *error)
{
    const char *data = self->request->data, *models = self->request->models;
    char *whole_data = data ? realpath(data, NULL) : NULL;
    char *whole_models = models ? realpath(models, NULL) : NULL;
    bool around = (whole_data && lade_path_inside(path, whole_data)) ||
                  (self->move && whole_models && lade_path_inside(path, whole_models));
    bool in_models = whole_models && lade_path_inside(whole_models, path);
    bool inside = (whole_data && lade_path_inside(whole_data, path) && !in_models) ||
                  (self->move && in_models);
    free(whole_data);
    free(whole_models);
    if (around || inside)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "%s is lade's own; models are taken out with `lade rm`",
                              self->source);
    return LADE_OK;
}

// What a move needs besides a copy: that the source can go.
static lade_code_t
s_check_move(const s_local_t *self, lade_error_t *error)
{
    struct stat st;
    if (lstat(self->source, &st) == 0 && S_ISLNK(st.st_mode))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "%s is a link: name what it leads to, or copy that with "
                              "file://%s",
                              self->source, self->source);
    char *above = lade_path_folder(self->source);
    bool can = faccessat(AT_FDCWD, above, W_OK | X_OK, AT_EACCESS) == 0;
    lade_code_t code = LADE_OK;
    if (!can)
        code = lade_error_errno(error, errno, "cannot take %s away; copy it with file://%s",
                                self->source, self->source);
    free(above);
    return code;
}

static lade_code_t
s_check_source(s_local_t *self, lade_error_t *error)
{
    const lade_local_t *request = self->request;
    char *path = s_resolve(self);
    lade_code_t code = LADE_OK;
    if (path)
        code = s_check_own(self, path, error);
    if (!code)
        code = lade_tree_look(self->source, &self->tree, error);
    if (!code && self->move)
        code = s_check_move(self, error);
    if (!code && self->tree.folder && request->sha256)
        code =
            lade_error_set(error, LADE_VALUE_ERROR,
                           "%s is a folder, and sha256 is of a file: leave it out", self->source);
    if (!code && request->sha256 &&
        (strlen(request->sha256) != 64 || strspn(request->sha256, "0123456789abcdefABCDEF") != 64))
        code = lade_error_set(error, LADE_VALUE_ERROR, "sha256 has to be 64 hex digits");
    if (!code && request->size >= 0 && request->size != self->tree.bytes)
        code = lade_error_set(error, LADE_SIZE_MISMATCH, "%s has %" PRId64 " bytes, not %" PRId64,
                              self->source, self->tree.bytes, request->size);
    free(path);
    return code;
}

static lade_code_t
s_taken(const s_local_t *self, lade_error_t *error)
{
    return lade_error_set(error, LADE_EXISTS,
                          "%s is there already: remove it or choose another name", self->final);
}

static lade_code_t
s_check_place(const s_local_t *self, lade_error_t *error)
{
    struct stat st;
    if (lstat(self->final, &st) == 0)
        return s_taken(self, error);
    char *whole = self->tree.folder ? realpath(self->folder, NULL) : NULL;
    bool itself = whole && s_is_in(self->source, whole);
    free(whole);
    if (itself)
        return lade_error_set(error, LADE_VALUE_ERROR, "%s cannot go into itself", self->source);
    return LADE_OK;
}

static lade_code_t
s_check_digest(const s_local_t *self, lade_error_t *error)
{
    const char *wanted = self->request->sha256, *got = self->answer->sha256;
    if (!wanted || strcasecmp(wanted, got) == 0)
        return LADE_OK;
    return lade_error_set(error, LADE_DIGEST_MISMATCH,
                          "%s has the sha256 %s, not %.64s; it was left where it is", self->source,
                          got, wanted);
}

// ---------------------------------------------------------------------------------------------------
// First step: everything but the final name

static bool
s_same_device(const s_local_t *self)
{
    struct stat from, to;
    return stat(self->source, &from) == 0 && stat(self->folder, &to) == 0 &&
           from.st_dev == to.st_dev;
}

// Within one file system a copy may share the bytes; a file's room is asked for when it is made.
static lade_code_t
s_check_room(const s_local_t *self, lade_error_t *error)
{
    struct statvfs vfs;
    if (s_same_device(self) || statvfs(self->folder, &vfs) != 0 ||
        (uint64_t)vfs.f_bavail * vfs.f_frsize >= (uint64_t)self->tree.bytes)
        return LADE_OK;
    return lade_error_set(error, LADE_NO_SPACE, "%s has no room for %" PRId64 " bytes: make some",
                          self->folder, self->tree.bytes);
}

static lade_code_t
s_copy(s_local_t *self, const char *part, lade_error_t *error)
{
    lade_tree_t after;
    const lade_tree_how_t how = {
        .step = s_step, .arg = self, .sha256 = self->request->sha256 ? self->answer->sha256 : NULL};
    lade_code_t code = s_check_room(self, error);
    if (!code)
        code = lade_tree_copy(self->source, part, &how, error);
    if (!code)
        code = s_check_digest(self, error);
    if (!code)
        code = lade_tree_look(self->source, &after, error);
    if (!code && !lade_tree_same(&self->tree, &after))
        code = lade_error_set(error, LADE_BUSY, "%s was changed while it was copied", self->source);
    if (!code)
        code = lade_path_sync_folder(self->folder, error);
    return code;
}

static lade_code_t
s_read(s_local_t *self, lade_error_t *error)
{
    const lade_tree_how_t how = {.step = s_step, .arg = self, .sha256 = self->answer->sha256};
    if (!self->request->sha256)
        return LADE_OK;
    lade_code_t code = lade_tree_hash(self->source, &how, error);
    return code ? code : s_check_digest(self, error);
}

// What the next step needs. from: what gets the final name.
static lade_code_t
s_save(s_local_t *self, const char *from, bool copied, lade_error_t *error)
{
    struct stat st;
    if (lstat(from, &st) != 0)
        return lade_error_errno(error, errno, "cannot look at %s", from);
    self->answer->state =
        json_pack("{s:o, s:o, s:o, s:b, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:s}", "folder",
                  json_stringn_nocheck(self->folder, strlen(self->folder)), "name",
                  json_stringn_nocheck(self->name, strlen(self->name)), "from",
                  json_stringn_nocheck(from, strlen(from)), "copied", copied, "inode",
                  (json_int_t)st.st_ino, "mtime_s", (json_int_t)st.st_mtim.tv_sec, "mtime_ns",
                  (json_int_t)st.st_mtim.tv_nsec, "bytes", (json_int_t)self->tree.bytes, "tree",
                  self->tree.folder, "print_0", (json_int_t)self->tree.print[0], "print_1",
                  (json_int_t)self->tree.print[1], "sha256", self->answer->sha256);
    return self->answer->state
               ? LADE_OK
               : lade_error_set(error, LADE_NO_MEMORY, "no memory for what comes next");
}

static lade_code_t
s_prepare(s_local_t *self, bool must_copy, lade_error_t *error)
{
    lade_code_t code = s_check_source(self, error);
    if (!code)
        code = s_choose_place(self, error);
    if (!code)
        code = s_check_place(self, error);
    if (code) {
        self->answer->final = code == LADE_SIZE_MISMATCH;
        return code;
    }
    s_remove_parts(self->folder, self->name, self->request->id, self->request->attempt);
    bool copy = must_copy || !self->move || !s_same_device(self);
    char *part = s_part_path(self);
    self->done = 0;
    s_tell(self);
    code = copy ? s_copy(self, part, error) : s_read(self, error);
    if (!code)
        code = s_check_stop(self, error);
    if (!code)
        code = s_save(self, copy ? part : self->source, copy, error);
    if (code && copy)
        lade_path_remove(part, NULL);
    free(part);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Second step: the final name

// What was to be placed, out of the state.
typedef struct {
    const char *from, *folder, *name;
    bool copied;
    uint64_t inode;
    int64_t mtime_s, mtime_ns, bytes;
    lade_tree_t tree;
} s_plan_t;

static bool
s_read_plan(const json_t *state, s_plan_t *plan)
{
    *plan = (s_plan_t){
        .from = lade_json_text(state, "from", ""),
        .folder = lade_json_text(state, "folder", ""),
        .name = lade_json_text(state, "name", ""),
        .copied = lade_json_bool(state, "copied", false),
        .inode = (uint64_t)lade_json_int(state, "inode", 0),
        .mtime_s = lade_json_int(state, "mtime_s", 0),
        .mtime_ns = lade_json_int(state, "mtime_ns", 0),
        .bytes = lade_json_int(state, "bytes", 0),
        .tree = {.folder = lade_json_bool(state, "tree", false),
                 .bytes = lade_json_int(state, "bytes", 0),
                 .print = {(uint64_t)lade_json_int(state, "print_0", 0),
                           (uint64_t)lade_json_int(state, "print_1", 0)}},
    };
    return *plan->from == '/' && *plan->folder == '/' &&
           lade_path_check_name(plan->name, NULL) == LADE_OK;
}

// Whether what has the name is what was to be placed. Inodes are used again, so a file's time has
// to be the same too; a folder's changes when it is moved.
static bool
s_is_it(const char *path, const s_plan_t *plan)
{
    struct stat st;
    return lstat(path, &st) == 0 && st.st_ino == plan->inode &&
           (S_ISDIR(st.st_mode)
                ? plan->tree.folder
                : st.st_mtim.tv_sec == plan->mtime_s && st.st_mtim.tv_nsec == plan->mtime_ns);
}

static bool
s_source_is_whole(const s_local_t *self, const s_plan_t *plan)
{
    lade_tree_t now;
    return lade_tree_look(self->source, &now, NULL) == LADE_OK && lade_tree_same(&plan->tree, &now);
}

// Takes back what was published; false if that cannot be, as when an attempt before this one had
// begun to remove the source.
static bool
s_undo(const s_local_t *self, const s_plan_t *plan)
{
    if (!plan->copied)
        return lade_path_publish(self->final, plan->from, NULL) == LADE_OK;
    return s_source_is_whole(self, plan) && lade_path_remove(self->final, NULL) == LADE_OK;
}

// A source that was copied and is as it was then goes: under a hidden name at once, so that a kill
// leaves no half of it, and then from the disk.
static void
s_remove_source(s_local_t *self, const s_plan_t *plan)
{
    struct stat st;
    lade_error_t error = {0};
    char *above = lade_path_folder(self->source), *name = lade_path_name(self->source);
    char *hidden = s_hidden(name, self->request->id), *gone;
    if (asprintf(&gone, "%s/%s.moved", above, hidden) < 0)
        abort();
    lade_code_t code = lade_path_remove(gone, &error);
    if (!code && lstat(self->source, &st) == 0) {
        self->answer->left = !s_source_is_whole(self, plan);
        if (!self->answer->left)
            code = lade_path_publish(self->source, gone, &error);
        if (!self->answer->left && !code)
            code = lade_path_remove(gone, &error);
    }
    if (code) {
        lade_log(LADE_LOG_WARNING, "local", "%s was copied and cannot be removed: %s", self->source,
                 error.message);
        self->answer->left = true;
    } else if (self->answer->left) {
        lade_log(LADE_LOG_WARNING, "local", "%s was changed after it was copied; it is left there",
                 self->source);
    }
    free(gone);
    free(hidden);
    free(above);
    free(name);
}

// Gives it the final name. *across_p: it is on another file system after all.
static lade_code_t
s_publish(s_local_t *self, const s_plan_t *plan, bool *across_p, lade_error_t *error)
{
    *across_p = false;
    if (renameat2(AT_FDCWD, plan->from, AT_FDCWD, self->final, RENAME_NOREPLACE) == 0) {
        char *above = lade_path_folder(plan->from);
        lade_code_t code = lade_path_sync_folder(self->folder, error);
        if (!code)
            code = lade_path_sync_folder(above, error);
        free(above);
        return code;
    }
    *across_p = errno == EXDEV && !plan->copied;
    if (errno == EEXIST)
        return s_taken(self, error);
    return lade_path_publish(plan->from, self->final, error); // has other ways, and words
}

// It has the final name.
static lade_code_t
s_placed(s_local_t *self, const s_plan_t *plan, lade_error_t *error)
{
    struct stat st;
    // Where a link had to do for a rename, a kill can leave both names.
    if (s_is_it(plan->from, plan) && lstat(plan->from, &st) == 0 && S_ISREG(st.st_mode))
        unlink(plan->from);
    if (s_stopped(self) == LADE_CANCELLED && s_undo(self, plan))
        return lade_error_set(error, LADE_CANCELLED, "it was cancelled and taken back");
    if (plan->copied && self->move)
        s_remove_source(self, plan);
    self->answer->bytes = plan->bytes;
    self->tree.bytes = self->done = plan->bytes;
    snprintf(self->answer->sha256, sizeof self->answer->sha256, "%s",
             lade_json_text(self->request->state, "sha256", ""));
    s_tell(self);
    return LADE_OK;
}

static lade_code_t
s_place(s_local_t *self, const s_plan_t *plan, lade_error_t *error)
{
    bool across = false, again = false;
    self->folder = strdup(plan->folder);
    self->name = strdup(plan->name);
    self->final = lade_path_join(self->folder, self->name);
    self->answer->path = strdup(self->final);
    lade_code_t code = LADE_OK;
    if (!s_is_it(self->final, plan)) {
        code = s_check_stop(self, error);
        again = !code && !s_is_it(plan->from, plan); // gone, or another one: look anew
        if (!code && !again)
            code = s_publish(self, plan, &across, error);
    }
    if (!code && !again)
        return s_placed(self, plan, error);
    if (plan->copied && code != LADE_STALE_LEASE)
        lade_path_remove(plan->from, NULL);
    if (!again && !across)
        return code;
    free(self->folder);
    free(self->name);
    free(self->final);
    free(self->answer->path);
    self->folder = self->name = self->final = self->answer->path = NULL;
    return s_prepare(self, across, error);
}

lade_code_t
lade_local_step(const lade_local_t *request, lade_local_answer_t *answer, lade_error_t *error)
{
    s_local_t self = {.request = request, .answer = answer};
    s_plan_t plan;
    *answer = (lade_local_answer_t){0};
    lade_code_t code = s_read_source(&self, error);
    if (!code)
        code = request->state && s_read_plan(request->state, &plan)
                   ? s_place(&self, &plan, error)
                   : s_prepare(&self, false, error);
    free(self.source);
    free(self.folder);
    free(self.name);
    free(self.final);
    return code;
}
