// Moves and copies of what is on this machine: where things end up, what is refused, and that a
// kill at any system call loses nothing.
#include "workers/download/local.h"

#include "common/path.h"
#include "workers/download/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

// sha256 of "hello".
#define HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

typedef struct {
    char *here, *there; // folders on two file systems; there is NULL if this machine has but one
    lade_local_t request;
    lade_local_answer_t answer;
    lade_error_t error;
    char to[600]; // of the request
    int64_t told, told_total;
    size_t tells, stop_after;
    lade_code_t stop;
} s_place_t;

// ---------------------------------------------------------------------------------------------------
// Helpers

static char *
s_folder(const char *above)
{
    char *path = lade_path_join(above, "lade-local-XXXXXX");
    if (!mkdtemp(path)) {
        free(path);
        return NULL;
    }
    return path;
}

static int
s_set_up(void **state)
{
    s_place_t *self = calloc(1, sizeof *self);
    struct stat here, there;
    const char *tmp = getenv("TMPDIR");
    self->here = s_folder(tmp ? tmp : "/tmp");
    self->there = s_folder("/dev/shm");
    if (!self->here)
        return -1;
    if (self->there && (stat(self->here, &here) != 0 || stat(self->there, &there) != 0 ||
                        here.st_dev == there.st_dev)) {
        lade_path_remove(self->there, NULL);
        free(self->there);
        self->there = NULL;
    }
    self->request = (lade_local_t){.id = 7, .attempt = 1, .size = -1};
    *state = self;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *self = *state;
    lade_local_free(&self->answer);
    lade_path_remove(self->here, NULL);
    if (self->there)
        lade_path_remove(self->there, NULL);
    free(self->here);
    free(self->there);
    free(self);
    return 0;
}

// FOLDER/NAME, in one of a few buffers.
static const char *
s_at(const char *folder, const char *name)
{
    static _Thread_local char paths[8][600];
    static _Thread_local size_t next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%.400s/%.150s", folder, name);
    return path;
}

// Where the next things go: a folder below here.
static void
s_into(s_place_t *self, const char *name)
{
    snprintf(self->to, sizeof self->to, "%s%s%s", self->here, *name ? "/" : "", name);
    self->request.destination = NULL;
    self->request.destdir = self->to;
}

static void
s_write(const char *path, const char *text)
{
    char *folder = lade_path_folder(path);
    if (lade_path_mkdirs(folder, 0755, NULL) ||
        lade_path_write(path, text, strlen(text), 0644, NULL))
        fail_msg("cannot write %s", path);
    free(folder);
}

static bool
s_holds(const char *path, const char *text)
{
    char *data = NULL;
    size_t len;
    bool same = lade_path_read(path, 1 << 20, &data, &len, NULL) == LADE_OK &&
                len == strlen(text) && memcmp(data, text, len) == 0;
    free(data);
    return same;
}

static bool
s_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

// Entries of a folder, hidden ones too.
static size_t
s_count(const char *folder)
{
    size_t count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (dir)
        closedir(dir);
    return count;
}

static void
s_progress(void *arg, int64_t bytes, int64_t total, const char *path)
{
    s_place_t *self = arg;
    assert_true(bytes >= 0 && bytes <= total);
    assert_int_equal(*path, '/');
    self->told = bytes;
    self->told_total = total;
    self->tells++;
}

static lade_code_t
s_stop(void *arg)
{
    s_place_t *self = arg;
    return self->stop && self->tells >= self->stop_after ? self->stop : LADE_OK;
}

static lade_code_t
s_step(s_place_t *self, json_t *state)
{
    self->request.state = state;
    self->request.progress = s_progress;
    self->request.stop = s_stop;
    self->request.arg = self;
    lade_local_free(&self->answer);
    self->error = (lade_error_t){0};
    return lade_local_step(&self->request, &self->answer, &self->error);
}

// All steps, as a broker would have them done.
static lade_code_t
s_run(s_place_t *self, const char *source)
{
    json_t *state = NULL;
    self->request.source = source;
    self->tells = 0;
    lade_code_t code;
    do {
        code = s_step(self, state);
        json_decref(state);
        state = json_incref(self->answer.state);
        self->request.attempt++;
    } while (!code && state);
    self->request.state = NULL;
    return code;
}

static void
s_must(s_place_t *self, const char *source)
{
    if (s_run(self, source))
        fail_msg("%s", self->error.message);
}

static void
s_expect(s_place_t *self, const char *source, lade_code_t code, const char *words)
{
    assert_int_equal(s_run(self, source), code);
    if (!strstr(self->error.message, words))
        fail_msg("'%s' lacks '%s'", self->error.message, words);
}

static void
s_make_tree(const char *root)
{
    s_write(s_at(root, "a.json"), "{}");
    s_write(s_at(root, "unet/w.bin"), "weights");
    s_write(s_at(root, "unet/deep/er/x"), "");
    assert_int_equal(mkdir(s_at(root, "empty"), 0750), 0);
    assert_int_equal(symlink("../unet/w.bin", s_at(root, "empty/link")), 0);
    assert_int_equal(symlink("/nowhere/at/all", s_at(root, "dangling")), 0);
    assert_int_equal(chmod(s_at(root, "a.json"), 04600), 0);
}

static bool
s_is_tree(const char *root)
{
    char link[100] = "";
    struct stat st;
    return s_holds(s_at(root, "a.json"), "{}") && s_holds(s_at(root, "unet/w.bin"), "weights") &&
           s_holds(s_at(root, "unet/deep/er/x"), "") && s_there(s_at(root, "empty")) &&
           readlink(s_at(root, "empty/link"), link, sizeof link) == 13 &&
           memcmp(link, "../unet/w.bin", 13) == 0 && s_there(s_at(root, "dangling")) &&
           stat(s_at(root, "a.json"), &st) == 0 && (st.st_mode & 0777) == 0600 &&
           s_count(root) == 4;
}

// ---------------------------------------------------------------------------------------------------
// Where things end up

static void
test_a_file_is_moved_to_its_name(void **state)
{
    s_place_t *self = *state;
    struct stat before, after;
    s_write(s_at(self->here, "in/m.bin"), "hello");
    stat(s_at(self->here, "in/m.bin"), &before);
    self->request.destination = s_at(self->here, "out/deep/n.bin");
    s_must(self, s_at(self->here, "in/m.bin"));
    assert_true(s_holds(s_at(self->here, "out/deep/n.bin"), "hello"));
    assert_string_equal(self->answer.path, s_at(self->here, "out/deep/n.bin"));
    assert_int_equal(self->answer.bytes, 5);
    assert_string_equal(self->answer.sha256, "");
    assert_int_equal(self->told, 5);
    stat(s_at(self->here, "out/deep/n.bin"), &after);
    assert_true(before.st_ino == after.st_ino); // renamed
    assert_int_equal(s_count(s_at(self->here, "in")), 0);
    assert_int_equal(s_count(s_at(self->here, "out/deep")), 1);
}

static void
test_a_folder_takes_what_has_no_name_of_its_own(void **state)
{
    s_place_t *self = *state;
    char out[600];
    snprintf(out, sizeof out, "%s/out", self->here);
    s_write(s_at(self->here, "a"), "a");
    s_write(s_at(self->here, "b"), "b");
    s_write(s_at(self->here, "c"), "c");
    s_write(s_at(self->here, "d e%3f"), "d");
    char slash[610];
    snprintf(slash, sizeof slash, "%s/", out); // a folder, there or not
    self->request.destination = slash;
    s_must(self, s_at(self->here, "a"));
    self->request.destination = out; // it is there now
    s_must(self, s_at(self->here, "b//"));
    s_into(self, "out");
    self->request.filename = "named";
    s_must(self, s_at(self->here, "c"));
    self->request.filename = NULL;
    char url[700];
    snprintf(url, sizeof url, "FILE://localhost%s/d%%20e%%253f", self->here);
    s_must(self, url);
    assert_true(s_holds(s_at(out, "a"), "a") && s_holds(s_at(out, "b"), "b"));
    assert_true(s_holds(s_at(out, "named"), "c") && s_holds(s_at(out, "d e%3f"), "d"));
    assert_true(s_holds(s_at(self->here, "d e%3f"), "d")); // a URL copies
    assert_int_equal(s_count(out), 4);
}

static void
test_a_folder_is_moved_whole(void **state)
{
    s_place_t *self = *state;
    s_make_tree(s_at(self->here, "model"));
    s_into(self, "out");
    self->request.size = 9;
    s_must(self, s_at(self->here, "model/"));
    assert_true(s_is_tree(s_at(self->here, "out/model")));
    assert_false(s_there(s_at(self->here, "model")));
    assert_int_equal(self->answer.bytes, 9);
}

static void
test_across_file_systems_it_is_copied_and_then_removed(void **state)
{
    s_place_t *self = *state;
    if (!self->there)
        skip();
    struct stat before, after;
    s_make_tree(s_at(self->there, "model"));
    s_write(s_at(self->there, "m.bin"), "hello");
    lstat(s_at(self->there, "m.bin"), &before);
    s_into(self, "");
    s_must(self, s_at(self->there, "model"));
    self->request.sha256 = HELLO;
    s_must(self, s_at(self->there, "m.bin"));
    assert_true(s_is_tree(s_at(self->here, "model")));
    assert_true(s_holds(s_at(self->here, "m.bin"), "hello"));
    assert_string_equal(self->answer.sha256, HELLO);
    lstat(s_at(self->here, "m.bin"), &after);
    assert_true(before.st_mtim.tv_sec == after.st_mtim.tv_sec);
    assert_int_equal(s_count(self->there), 0);
    assert_int_equal(s_count(self->here), 2);
}

static void
test_a_url_copies_a_file_or_a_folder(void **state)
{
    s_place_t *self = *state;
    char url[700];
    s_make_tree(s_at(self->here, "model"));
    assert_int_equal(symlink("model/unet/w.bin", s_at(self->here, "snapshot.bin")), 0);
    s_into(self, "out");
    snprintf(url, sizeof url, "file://%s/model", self->here);
    s_must(self, url);
    snprintf(url, sizeof url, "file://%s/snapshot.bin", self->here); // what it leads to
    s_must(self, url);
    assert_true(s_is_tree(s_at(self->here, "model")));
    assert_true(s_is_tree(s_at(self->here, "out/model")));
    assert_true(s_holds(s_at(self->here, "out/snapshot.bin"), "weights"));
    assert_int_equal(s_count(s_at(self->here, "out")), 2);
}

static void
test_size_and_digest_are_checked_before_it_has_the_name(void **state)
{
    s_place_t *self = *state;
    const char *folders[] = {self->here, self->there};
    for (size_t i = 0; i < 2 && folders[i]; i++) {
        char source[600];
        snprintf(source, sizeof source, "%s/m", folders[i]);
        s_write(source, "hello");
        s_into(self, "out");
        self->request.size = 6;
        s_expect(self, source, LADE_SIZE_MISMATCH, "5 bytes, not 6");
        assert_true(self->answer.final);
        self->request.size = 5;
        self->request.sha256 = "00" HELLO;
        s_expect(self, source, LADE_VALUE_ERROR, "64 hex digits");
        char wrong[65] = HELLO;
        wrong[0] = '0';
        self->request.sha256 = wrong;
        s_expect(self, source, LADE_DIGEST_MISMATCH, HELLO);
        assert_true(s_holds(source, "hello"));
        assert_int_equal(s_count(s_at(self->here, "out")), 0);
        self->request.sha256 = HELLO;
        s_must(self, source);
        assert_string_equal(self->answer.sha256, HELLO);
        assert_true(s_holds(s_at(self->here, "out/m"), "hello"));
        assert_false(s_there(source));
        lade_path_remove(s_at(self->here, "out"), NULL);
    }
}

// ---------------------------------------------------------------------------------------------------
// What is refused

static void
test_nothing_is_put_over_another(void **state)
{
    s_place_t *self = *state;
    s_write(s_at(self->here, "m"), "new");
    s_write(s_at(self->here, "out/m"), "old");
    s_into(self, "out");
    s_expect(self, s_at(self->here, "m"), LADE_EXISTS, "is there already");
    s_into(self, ""); // itself
    s_expect(self, s_at(self->here, "m"), LADE_EXISTS, "is there already");
    // The name is taken between the two steps.
    s_into(self, "late");
    char source[600];
    snprintf(source, sizeof source, "file://%s/m", self->here);
    self->request.source = source;
    assert_int_equal(s_step(self, NULL), LADE_OK);
    json_t *plan = json_incref(self->answer.state);
    s_write(s_at(self->here, "late/m"), "other");
    assert_int_equal(s_step(self, plan), LADE_EXISTS);
    assert_true(s_holds(s_at(self->here, "late/m"), "other"));
    assert_int_equal(s_count(s_at(self->here, "late")), 1);
    assert_true(s_holds(s_at(self->here, "m"), "new"));
    assert_true(s_holds(s_at(self->here, "out/m"), "old"));
    json_decref(plan);
}

static void
test_what_cannot_be_is_said(void **state)
{
    s_place_t *self = *state;
    s_make_tree(s_at(self->here, "model"));
    assert_int_equal(symlink("model", s_at(self->here, "link")), 0);
    assert_int_equal(mkfifo(s_at(self->here, "pipe"), 0600), 0);
    s_into(self, "out");
    s_expect(self, s_at(self->here, "none"), LADE_NOT_FOUND, "none");
    s_expect(self, s_at(self->here, "link"), LADE_VALUE_ERROR, "is a link");
    s_expect(self, s_at(self->here, "pipe"), LADE_VALUE_ERROR, "neither a file nor a folder");
    s_expect(self, "/dev/null", LADE_VALUE_ERROR, "neither");
    s_expect(self, "file://host/x", LADE_VALUE_ERROR, "file:///PATH");
    s_expect(self, "file:/x", LADE_VALUE_ERROR, "file:///PATH");
    s_expect(self, "file:///x?y", LADE_VALUE_ERROR, "file:///PATH");
    s_expect(self, "file:///x%", LADE_VALUE_ERROR, "hex digits");
    s_expect(self, "file:///x%0", LADE_VALUE_ERROR, "hex digits");
    s_expect(self, "file:///x%00y", LADE_VALUE_ERROR, "hex digits");
    s_expect(self, "file:///x%-1y", LADE_VALUE_ERROR, "hex digits");
    s_expect(self, "/", LADE_VALUE_ERROR, "everything");
    s_expect(self, "file:////", LADE_VALUE_ERROR, "everything");
    self->request.sha256 = HELLO;
    s_expect(self, s_at(self->here, "model"), LADE_VALUE_ERROR, "is a folder");
    self->request.sha256 = NULL;
    self->request.filename = "../x";
    s_expect(self, s_at(self->here, "model"), LADE_VALUE_ERROR, "no safe file name");
    self->request.filename = NULL;
    s_into(self, "model/unet");
    s_expect(self, s_at(self->here, "model"), LADE_VALUE_ERROR, "into itself");
    self->request.destination = NULL;
    self->request.destdir = "relative";
    s_expect(self, s_at(self->here, "model"), LADE_VALUE_ERROR, "absolute path");
    self->request.destdir = NULL;
    s_expect(self, s_at(self->here, "model"), LADE_VALUE_ERROR, "absolute path");
    assert_int_equal(mkfifo(s_at(self->here, "model/pipe"), 0600), 0);
    s_into(self, "out");
    char url[700];
    snprintf(url, sizeof url, "file://%s/model", self->here);
    s_expect(self, url, LADE_VALUE_ERROR, "model/pipe is neither");
    unlink(s_at(self->here, "model/pipe"));
    assert_true(s_is_tree(s_at(self->here, "model")));
}

static void
test_lades_own_folders_stay(void **state)
{
    s_place_t *self = *state;
    s_write(s_at(self->here, "d/keyspace/data.mdb"), "queue");
    s_write(s_at(self->here, "d/models/sd/m.bin"), "model");
    s_write(s_at(self->here, "d2"), "not it");
    assert_int_equal(symlink("d", s_at(self->here, "alias")), 0);
    char data[600], models[600], url[700];
    snprintf(data, sizeof data, "%s/d", self->here);
    snprintf(models, sizeof models, "%s/d/models", self->here);
    self->request.data = data;
    self->request.models = models;
    s_into(self, "out");
    static const char *const kept[] = {
        "d",           "d/keyspace",        "d/keyspace/data.mdb", "d/models",
        "d/models/sd", "d/models/sd/m.bin", "alias/models/sd"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        s_expect(self, s_at(self->here, kept[i]), LADE_VALUE_ERROR, "lade's own");
    s_expect(self, self->here, LADE_VALUE_ERROR, "lade's own");
    snprintf(url, sizeof url, "file://%s/alias/keyspace/data.mdb", self->here);
    s_expect(self, url, LADE_VALUE_ERROR, "lade's own");
    snprintf(url, sizeof url, "file://%s/d", self->here);
    s_expect(self, url, LADE_VALUE_ERROR, "lade's own");
    snprintf(url, sizeof url, "file://%s/d/models/sd/m.bin", self->here); // a model may be copied
    s_must(self, url);
    s_must(self, s_at(self->here, "d2"));
    assert_true(s_holds(s_at(self->here, "d/keyspace/data.mdb"), "queue"));
}

// ---------------------------------------------------------------------------------------------------
// Stops

static void
test_a_stop_leaves_the_source_and_nothing_else(void **state)
{
    s_place_t *self = *state;
    static const lade_code_t stops[] = {LADE_CANCELLED, LADE_PAUSED, LADE_STALE_LEASE};
    char url[700];
    s_make_tree(s_at(self->here, "model"));
    snprintf(url, sizeof url, "file://%s/model", self->here);
    s_into(self, "out");
    for (size_t i = 0; i < 3; i++)
        for (self->stop_after = 1; self->stop_after < 4; self->stop_after++) {
            self->stop = stops[i];
            assert_int_equal(s_run(self, url), stops[i]);
            assert_true(s_is_tree(s_at(self->here, "model")));
            assert_int_equal(s_count(s_at(self->here, "out")), 0);
        }
    self->stop = LADE_OK;
    s_must(self, url);
}

static bool
s_published(void *arg)
{
    s_place_t *self = arg;
    return s_there(s_at(self->here, "out/model"));
}

// Cancels once the final name is there.
static lade_code_t
s_stop_late(void *arg)
{
    return s_published(arg) ? LADE_CANCELLED : LADE_OK;
}

static void
test_a_cancel_after_the_rename_takes_it_back(void **state)
{
    s_place_t *self = *state;
    const char *folders[] = {self->here, self->there};
    for (size_t i = 0; i < 2 && folders[i]; i++) {
        char source[600];
        snprintf(source, sizeof source, "%s/model", folders[i]);
        s_make_tree(source);
        s_into(self, "out");
        self->request.source = source;
        assert_int_equal(s_step(self, NULL), LADE_OK);
        json_t *plan = json_incref(self->answer.state);
        self->request.stop = s_stop_late;
        self->request.state = plan;
        lade_local_free(&self->answer);
        assert_int_equal(lade_local_step(&self->request, &self->answer, &self->error),
                         LADE_CANCELLED);
        assert_true(s_is_tree(source));
        assert_int_equal(s_count(s_at(self->here, "out")), 0);
        json_decref(plan);
        lade_path_remove(source, NULL);
    }
}

static void
test_a_source_that_changes_after_the_copy_stays(void **state)
{
    s_place_t *self = *state;
    if (!self->there)
        skip();
    char source[600];
    snprintf(source, sizeof source, "%s/model", self->there);
    s_make_tree(source);
    s_into(self, "");
    self->request.source = source;
    assert_int_equal(s_step(self, NULL), LADE_OK);
    json_t *plan = json_incref(self->answer.state);
    s_write(s_at(source, "unet/more"), "new");
    assert_int_equal(s_step(self, plan), LADE_OK);
    assert_true(self->answer.left);
    assert_true(s_is_tree(s_at(self->here, "model")));
    assert_true(s_holds(s_at(source, "unet/more"), "new"));
    assert_true(s_is_tree(source));
    json_decref(plan);
}

static void
test_another_file_under_the_old_name_is_not_taken_for_it(void **state)
{
    s_place_t *self = *state;
    s_write(s_at(self->here, "m"), "first");
    s_into(self, "out");
    self->request.source = s_at(self->here, "m");
    char source[600];
    snprintf(source, sizeof source, "%s/m", self->here);
    self->request.source = source;
    assert_int_equal(s_step(self, NULL), LADE_OK);
    json_t *plan = json_incref(self->answer.state);
    s_write(s_at(self->here, "m"), "second one"); // another inode
    assert_int_equal(s_step(self, plan), LADE_OK);
    assert_non_null(self->answer.state); // looked anew
    json_decref(plan);
    plan = json_incref(self->answer.state);
    assert_int_equal(s_step(self, plan), LADE_OK);
    assert_null(self->answer.state);
    assert_true(s_holds(s_at(self->here, "out/m"), "second one"));
    json_decref(plan);
}

static void
test_what_a_cancelled_job_left_is_removed(void **state)
{
    s_place_t *self = *state;
    char url[700];
    s_make_tree(s_at(self->here, "model"));
    snprintf(url, sizeof url, "file://%s/model", self->here);
    s_into(self, "out");
    self->request.source = url;
    assert_int_equal(s_step(self, NULL), LADE_OK);
    s_write(s_at(self->here, "out/.model.7-x.part"), "mine");
    s_write(s_at(self->here, "out/.model.77-1.part"), "another job's");
    assert_int_equal(s_count(s_at(self->here, "out")), 3);
    lade_local_discard(7, s_at(self->here, "out/model"));
    assert_int_equal(s_count(s_at(self->here, "out")), 2);
    lade_local_discard(7, "/nowhere/x");
}

// ---------------------------------------------------------------------------------------------------
// Kills. A child does the step and is killed at its n-th system call.

// True if it ended by itself before that.
static bool
s_step_and_kill(s_place_t *self, json_t *plan, long kill_at, json_t **next_p)
{
    // What the broker would have saved, if the step ends.
    char *saved = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    pid_t child = fork();
    if (child == 0) {
        self->request.progress = NULL;
        self->request.stop = NULL;
        self->request.state = plan;
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        lade_local_free(&self->answer);
        lade_code_t code = lade_local_step(&self->request, &self->answer, &self->error);
        char *text = self->answer.state ? json_dumps(self->answer.state, 0) : NULL;
        if (text)
            snprintf(saved, 8192, "%s", text);
        free(text);
        lade_local_free(&self->answer);
        json_decref(plan);
        _exit((int)code);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    bool ended = !WIFSTOPPED(status);
    for (long calls = 0; !ended && calls < kill_at; calls++) {
        ptrace(PTRACE_SYSCALL, child, NULL, NULL);
        waitpid(child, &status, 0);
        ended = WIFEXITED(status) || WIFSIGNALED(status);
    }
    if (!ended) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        fail_msg("the step ended with %d", status);
    }
    *next_p = ended && *saved ? json_loads(saved, 0, NULL) : NULL;
    munmap(saved, 8192);
    return ended;
}

static bool
s_can_trace(void)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        raise(SIGSTOP);
        _exit(0);
    }
    waitpid(child, &status, 0);
    bool can = WIFSTOPPED(status);
    if (can) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    return can;
}

// At every fourth call, another fourth each time; at each one with LADE_TEST_EVERY=1.
static void
s_kill_everywhere(s_place_t *self, const char *folder, bool move)
{
    const char *every = getenv("LADE_TEST_EVERY");
    long apart = every ? atol(every) : 4, first = 1 + getpid() % apart;
    char source[600], url[700], final[600];
    snprintf(source, sizeof source, "%s/model", folder);
    snprintf(url, sizeof url, "file://%s", source);
    snprintf(final, sizeof final, "%s/out/model", self->here);
    s_into(self, "out");
    self->request.source = move ? source : url;
    long rounds = 0, at[2] = {first, first}; // the step that is killed; the one before is not
    for (int step = 0; step < 2; step++)
        for (bool ended = false; !ended; at[step] += apart, rounds++) {
            json_t *plan = NULL, *next = NULL;
            s_make_tree(source);
            if (step == 1 && !s_step_and_kill(self, NULL, 100000, &plan))
                fail_msg("the first step did not end");
            self->request.attempt++;
            ended = s_step_and_kill(self, plan, at[step], &next);
            if (step == 0 && ended) {
                plan = next;
                next = NULL;
            }
            if (!s_is_tree(source) && !s_is_tree(final))
                fail_msg("killed at call %ld of step %d: neither is whole", at[step], step);
            if (s_there(final) && !s_is_tree(final))
                fail_msg("killed at call %ld of step %d: half of it", at[step], step);
            // The next attempt goes on with what was saved.
            self->request.attempt++;
            lade_code_t code;
            do {
                code = s_step(self, plan);
                json_decref(plan);
                plan = json_incref(self->answer.state);
            } while (!code && plan);
            if (code)
                fail_msg("killed at call %ld of step %d: %s", at[step], step, self->error.message);
            assert_true(s_is_tree(final));
            assert_true(move ? !s_there(source) : s_is_tree(source));
            assert_int_equal(s_count(self->to), 1);
            assert_int_equal(s_count(folder), (folder == self->here) + !move);
            lade_path_remove(source, NULL);
            lade_path_remove(final, NULL);
        }
    print_message("%ld kills, from call %ld on\n", rounds, first);
}

static void
test_a_kill_at_any_call_of_a_rename_loses_nothing(void **state)
{
    s_place_t *self = *state;
    if (!s_can_trace())
        skip();
    s_kill_everywhere(self, self->here, true);
}

static void
test_a_kill_at_any_call_of_a_move_across_file_systems_loses_nothing(void **state)
{
    s_place_t *self = *state;
    if (!self->there || !s_can_trace())
        skip();
    s_kill_everywhere(self, self->there, true);
}

static void
test_a_kill_at_any_call_of_a_copy_loses_nothing(void **state)
{
    s_place_t *self = *state;
    if (!s_can_trace())
        skip();
    s_kill_everywhere(self, self->here, false);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_file_is_moved_to_its_name),
        TEST(test_a_folder_takes_what_has_no_name_of_its_own),
        TEST(test_a_folder_is_moved_whole),
        TEST(test_across_file_systems_it_is_copied_and_then_removed),
        TEST(test_a_url_copies_a_file_or_a_folder),
        TEST(test_size_and_digest_are_checked_before_it_has_the_name),
        TEST(test_nothing_is_put_over_another),
        TEST(test_what_cannot_be_is_said),
        TEST(test_lades_own_folders_stay),
        TEST(test_a_stop_leaves_the_source_and_nothing_else),
        TEST(test_a_cancel_after_the_rename_takes_it_back),
        TEST(test_a_source_that_changes_after_the_copy_stays),
        TEST(test_another_file_under_the_old_name_is_not_taken_for_it),
        TEST(test_what_a_cancelled_job_left_is_removed),
        TEST(test_a_kill_at_any_call_of_a_rename_loses_nothing),
        TEST(test_a_kill_at_any_call_of_a_move_across_file_systems_loses_nothing),
        TEST(test_a_kill_at_any_call_of_a_copy_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
