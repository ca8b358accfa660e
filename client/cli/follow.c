// Jobs, from their submission to their end.
#include "client/cli/follow.h"

#include "client/cli/bar.h"
#include "client/cli/frame.h"
#include "client/cli/show.h"
#include "client/outcome.h"
#include "client/watch.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    S_DRAW_MS = 100,
    S_EVENTS_MS = 20,  // between two looks at the events
    S_WHY_MS = 2000,   // of standing still, before it is asked why
    S_MOST_LINES = 60, // drawn at once
    S_DEPTH = 4,       // of jobs below jobs that are asked what they wait for
};

typedef struct {
    char *name, *label;      // label: short, for a line
    lade_request_t *request; // the submission, then the wait, then the job's last look
    json_t *job;
    lade_error_t error;
    lade_bar_progress_t progress;
    char status[256]; // what stands where no bytes are known
    char told[256];   // the last reason for standing still that people were told
    bool ended, printed;
    bool began, begun; // it has; and people without bars were told
    bool over;         // the event of its end was printed
    int64_t moved_ms;  // when its progress or status last changed
} s_row_t;

struct lade_follow {
    lade_cli_t *cli;
    const char *service;
    s_row_t **rows;
    size_t count;
    lade_bar_screen_t *screen; // with frame; NULL: nobody looks at bars
    lade_frame_t *frame;
    lade_watch_t *watch; // events are printed
    int64_t drawn_ms, started_ms;
};

static bool
s_is_download(const lade_follow_t *self)
{
    return strcmp(self->service, "download") == 0;
}

// Who can move the cursor gets bars; a pipe gets the result alone.
static bool
s_can_draw(const lade_cli_t *cli)
{
    const char *term = getenv("TERM");
    return cli->terminal && !cli->quiet && isatty(STDERR_FILENO) && term && *term &&
           strcmp(term, "dumb") != 0;
}

lade_follow_t *
lade_follow_new(lade_cli_t *cli, const char *service)
{
    lade_follow_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->cli = cli;
    self->service = service;
    self->started_ms = lade_mono_ms();
    if (s_can_draw(cli)) {
        self->screen = lade_bar_screen_new(stderr);
        self->frame = lade_frame_new();
    }
    return self;
}

// ---------------------------------------------------------------------------------------------------
// Submitting

// "b" of "http://h/a/b?c": the folders above say little in a line. You free it.
static char *
s_label(const lade_follow_t *self, const char *name)
{
    size_t len = strstr(name, "://") ? strcspn(name, "?#") : strlen(name), at = len;
    while (at > 0 && name[at - 1] != '/')
        at--;
    return s_is_download(self) && at < len ? strndup(name + at, len - at) : strdup(name);
}

void
lade_follow_submit(lade_follow_t *self, const char *name, const char *op, json_t *args)
{
    s_row_t *row = calloc(1, sizeof *row);
    self->rows = realloc(self->rows, (self->count + 1) * sizeof(s_row_t *));
    if (!row || !self->rows)
        abort();
    self->rows[self->count++] = row;
    row->name = strdup(name);
    row->label = s_label(self, name);
    row->moved_ms = lade_mono_ms();
    snprintf(row->status, sizeof row->status, "submitting");
    lade_request_start(self->cli->client, self->service, op, args, NULL, NULL, &row->request,
                       &row->error);
}

// Turns until no row has a request open.
static lade_code_t
s_settle(lade_follow_t *self, lade_error_t *error)
{
    for (size_t i = 0; i < self->count; i++)
        while (self->rows[i]->request && !lade_request_ended(self->rows[i]->request)) {
            lade_code_t code = lade_request_turn(self->cli->client, S_DRAW_MS, error);
            if (code)
                return code;
        }
    return LADE_OK;
}

lade_code_t
lade_follow_submitted(lade_follow_t *self, lade_error_t *error)
{
    lade_code_t code = s_settle(self, error);
    size_t nobody = 0;
    for (size_t i = 0; i < self->count && !code; i++) {
        s_row_t *row = self->rows[i];
        if (row->request)
            lade_request_finish(&row->request, &row->job, &row->error);
        row->ended = row->error.code != LADE_OK;
        nobody += row->error.code == LADE_BROKER_UNREACHABLE;
    }
    if (!code && nobody && nobody == self->count) {
        *error = self->rows[0]->error; // said once, not for every source
        code = error->code;
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Watching

static void
s_set_status(s_row_t *row, const char *text)
{
    if (strcmp(row->status, text) == 0)
        return;
    snprintf(row->status, sizeof row->status, "%s", text);
    row->moved_ms = lade_mono_ms();
}

// What a wait's PARTIAL answer tells: the job as it is now.
static bool
s_on_partial(void *arg, const json_t *partial)
{
    s_row_t *row = arg;
    row->began = true;
    int64_t bytes, total, now = lade_mono_ms();
    lade_outcome_bytes(partial, &bytes, &total);
    if (bytes != row->progress.bytes)
        row->moved_ms = now;
    lade_bar_update(&row->progress, bytes, total, now);
    const char *phase = lade_json_text(json_object_get(partial, "progress"), "phase", NULL);
    if (!phase)
        phase = lade_json_text(partial, "phase", lade_json_text(partial, "status", NULL));
    if (phase)
        s_set_status(row, phase);
    return true;
}

static void
s_start_wait(lade_follow_t *self, s_row_t *row)
{
    const json_t *id = json_object_get(row->job, "id");
    json_t *args = json_pack("{s:O, s:b}", "id", id ? id : json_null(), "partial", 1);
    s_set_status(row, lade_json_text(row->job, "status", "waiting"));
    if (lade_request_start(self->cli->client, "jobs", "wait", args, s_on_partial, row,
                           &row->request, &row->error))
        row->ended = true;
}

// The wait is over: the job as its own service shows it, and how it went.
static void
s_take_end(lade_follow_t *self, s_row_t *row)
{
    json_t *ended = NULL, *shown = NULL;
    row->ended = true;
    if (lade_request_finish(&row->request, &ended, &row->error))
        return;
    // An ended download looks the same to both services.
    const char *op = strcmp(self->service, "install") == 0 ? "get_job_by_id" : NULL;
    json_t *args = op ? json_pack("{s:O}", "id", json_object_get(row->job, "id")) : NULL;
    if (op && lade_cli_call(self->cli, self->service, op, args, &shown, NULL) == LADE_OK) {
        json_decref(ended);
        ended = shown;
    }
    json_decref(row->job);
    row->job = ended;
    lade_outcome_error(ended, &row->error);
}

// The first job below this one that has not ended, -1 if there is none: what a waiting job waits
// for.
static json_int_t
s_open_child(lade_follow_t *self, json_int_t id)
{
    json_t *children = NULL;
    json_int_t found = -1;
    if (lade_cli_call(self->cli, "jobs", "list", json_pack("{s:I}", "parent", id), &children, NULL))
        return -1;
    for (size_t i = 0; i < json_array_size(children) && found < 0; i++)
        if (!lade_outcome_ended(json_array_get(children, i)))
            found = (json_int_t)lade_json_int(json_array_get(children, i), "id", -1);
    json_decref(children);
    return found;
}

// "enqueued: no worker that serves download is there", of the job or of the one it waits for. False
// if it is not known.
static bool
s_why(lade_follow_t *self, json_int_t id, int depth, char *text, size_t size)
{
    json_t *why = NULL;
    if (lade_cli_call(self->cli, "jobs", "why", json_pack("{s:I}", "id", id), &why, NULL))
        return false;
    const char *status = lade_json_text(why, "status", "");
    if (lade_outcome_ended(why)) { // meanwhile: its answer is on the way
        json_decref(why);
        return false;
    }
    json_int_t child = depth > 0 && strcmp(status, "waiting") == 0 ? s_open_child(self, id) : -1;
    if (child < 0 || !s_why(self, child, depth - 1, text, size))
        snprintf(text, size, "%s: %s", status, lade_json_text(why, "why", ""));
    json_decref(why);
    return true;
}

static void
s_ask_why(lade_follow_t *self, s_row_t *row)
{
    char text[sizeof row->status];
    row->moved_ms = lade_mono_ms();
    if (!s_why(self, (json_int_t)lade_json_int(row->job, "id", -1), S_DEPTH, text, sizeof text))
        return;
    s_set_status(row, text);
    // Without a bar people are told each reason once; that it runs is none.
    if (!self->screen && strncmp(text, "running", 7) != 0 && strcmp(text, row->told) != 0) {
        char *name = lade_show_clean(row->name, 0, false), *clean = lade_show_clean(text, 0, false);
        lade_cli_say(self->cli, "%s: %s", name, clean);
        memcpy(row->told, text, sizeof text);
        free(name);
        free(clean);
    }
}

// ---------------------------------------------------------------------------------------------------
// Events

// True if the row has the job of that id.
static s_row_t *
s_row_of(lade_follow_t *self, int64_t id)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->rows[i]->job && lade_json_int(self->rows[i]->job, "id", -1) == id)
            return self->rows[i];
    return NULL;
}

static bool
s_on_event(void *arg, const json_t *event)
{
    static const char *const ends[] = {"download_completed", "download_error",
                                       "download_cancelled"};
    lade_follow_t *self = arg;
    s_row_t *row = s_row_of(self, lade_json_int(event, "id", -1));
    // Progress that comes after the end of its job is old.
    if (!row || (row->over && lade_json_bool(event, "progress", false)))
        return true;
    char *text = lade_request_text(event);
    puts(text);
    free(text);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        row->over = row->over || strcmp(lade_json_text(event, "event", ""), ends[i]) == 0;
    return true;
}

lade_code_t
lade_follow_listen(lade_follow_t *self, lade_error_t *error)
{
    static const char *const prefixes[] = {"download_", "job_requeued/", NULL};
    return lade_watch_open(self->cli->client, prefixes, -1, &self->watch, error);
}

// At the end all that was journaled is printed, whether it has come yet or not.
static lade_code_t
s_print_events(lade_follow_t *self, bool last, lade_error_t *error)
{
    if (!self->watch)
        return LADE_OK;
    lade_code_t code = lade_watch_turn(self->watch, 0, s_on_event, self, error);
    if (!code && last)
        code = lade_watch_catch_up(self->watch, s_on_event, self, error);
    fflush(stdout);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Drawing

static size_t
s_height(void)
{
    struct winsize size;
    size_t rows =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 2 ? size.ws_row - 1u : 10;
    return rows < S_MOST_LINES ? rows : S_MOST_LINES;
}

// One write: what is over goes above, the rest is drawn anew.
static void
s_draw(lade_follow_t *self, const char *above)
{
    int64_t now = lade_mono_ms();
    self->drawn_ms = now;
    if (!self->screen)
        return;
    lade_frame_row_t *rows = calloc(self->count + 1, sizeof *rows);
    lade_buf_t text = LADE_BUF(1 << 20);
    size_t columns = lade_show_columns(STDERR_FILENO);
    if (!rows)
        abort();
    for (size_t i = 0; i < self->count; i++) {
        s_row_t *row = self->rows[i];
        if (!row->ended) // what stands still gets slower
            lade_bar_update(&row->progress, row->progress.bytes, row->progress.total, now);
        rows[i] = (lade_frame_row_t){row->label, row->status, row->progress, row->ended,
                                     row->error.code != LADE_OK};
    }
    lade_frame_compose(self->frame, rows, self->count, columns - 1, s_height(), now, &text);
    lade_bar_screen_draw(self->screen, above, lade_buf_text(&text), columns);
    lade_buf_free(&text);
    free(rows);
}

// ---------------------------------------------------------------------------------------------------
// The whole

static void
s_interrupted(lade_follow_t *self)
{
    char ids[512] = "";
    size_t left = 0;
    for (size_t i = 0; i < self->count; i++) {
        size_t len = strlen(ids);
        if (self->rows[i]->ended || !self->rows[i]->job)
            continue;
        left++;
        if (len < sizeof ids - 24)
            snprintf(ids + len, sizeof ids - len, " %" JSON_INTEGER_FORMAT,
                     (json_int_t)lade_json_int(self->rows[i]->job, "id", -1));
    }
    fprintf(stderr,
            "\nlade: %zu job%s on without you: `lade jobs` shows %s, `lade cancel%s` ends %s\n",
            left, left == 1 ? " goes" : "s go", left == 1 ? "it" : "them", ids,
            left == 1 ? "it" : "them");
}

// What is to be said of a job that ended, as lines.
static void
s_say_end(lade_follow_t *self, size_t index, lade_follow_print_t *print, lade_buf_t *text)
{
    s_row_t *row = self->rows[index];
    if (!row->error.code) {
        print(self, index, text);
        row->printed = true;
    } else if (self->screen) { // the sentence comes at the end
        char *label = lade_show_clean(row->label, 0, false);
        lade_buf_addf(text, NULL, "%s  failed: %s\n", label, lade_code_name(row->error.code));
        free(label);
    }
}

static void
s_finish(lade_follow_t *self, size_t index, lade_follow_print_t *print)
{
    s_row_t *row = self->rows[index];
    int64_t bytes, total;
    s_take_end(self, row);
    lade_outcome_bytes(row->job, &bytes, &total);
    if (!row->error.code)
        row->progress.bytes = row->progress.total = bytes;
    if (!print)
        return;
    lade_buf_t text = LADE_BUF(1 << 20);
    s_say_end(self, index, print, &text);
    if (self->screen)
        s_draw(self, lade_buf_text(&text));
    else
        fputs(lade_buf_text(&text), stdout);
    fflush(stdout);
    lade_buf_free(&text);
}

// Who sees no bars is told once that a download has begun.
static void
s_say_begun(lade_follow_t *self, s_row_t *row, bool print)
{
    if (!row->began || row->begun || self->screen || !print || !s_is_download(self))
        return;
    char *name = lade_show_clean(row->name, 0, false);
    lade_cli_say(self->cli, "job %" JSON_INTEGER_FORMAT " has begun: %s",
                 (json_int_t)lade_json_int(row->job, "id", -1), name);
    row->begun = true;
    free(name);
}

// Looks at every row once; returns how many have not ended.
static size_t
s_step(lade_follow_t *self, lade_follow_print_t *print)
{
    size_t open = 0;
    bool asked = false; // one question a turn, so that a long queue stays cheap
    for (size_t i = 0; i < self->count; i++) {
        s_row_t *row = self->rows[i];
        if (!row->ended && lade_request_ended(row->request))
            s_finish(self, i, print);
        open += !row->ended;
        s_say_begun(self, row, print != NULL);
        if (!row->ended && !asked && lade_mono_ms() - row->moved_ms > S_WHY_MS) {
            asked = true;
            s_ask_why(self, row);
        }
    }
    return open;
}

// "100 files, 3.20 GiB in 2m 05s (26.2 MiB/s), 2 failed".
static void
s_sum_up(const lade_follow_t *self)
{
    char size[LADE_SHOW_SIZE], span[LADE_SHOW_SIZE], rate[LADE_SHOW_SIZE], failed[48] = "";
    double seconds = (double)(lade_mono_ms() - self->started_ms) / 1e3;
    int64_t bytes = 0;
    size_t bad = 0;
    for (size_t i = 0; i < self->count; i++) {
        bad += self->rows[i]->error.code != LADE_OK;
        bytes += self->rows[i]->error.code ? 0 : self->rows[i]->progress.bytes;
    }
    if (self->count < 2 || !s_is_download(self))
        return;
    if (bad)
        snprintf(failed, sizeof failed, ", %zu failed", bad);
    lade_cli_say(
        self->cli, "%zu files, %s in %s (%s/s)%s", self->count - bad, lade_show_bytes(bytes, size),
        lade_show_span(seconds, span),
        lade_show_bytes((int64_t)((double)bytes / (seconds > 0.001 ? seconds : 0.001)), rate),
        failed);
}

lade_code_t
lade_follow_run(lade_follow_t *self, lade_follow_print_t *print, lade_error_t *error)
{
    for (size_t i = 0; i < self->count; i++)
        if (!self->rows[i]->ended)
            s_start_wait(self, self->rows[i]);
    lade_code_t code = LADE_OK;
    while (!code && s_step(self, print) > 0) {
        if (lade_mono_ms() - self->drawn_ms >= S_DRAW_MS)
            s_draw(self, "");
        code = s_print_events(self, false, error);
        if (!code)
            code =
                lade_request_turn(self->cli->client, self->watch ? S_EVENTS_MS : S_DRAW_MS, error);
    }
    if (!code)
        code = s_print_events(self, true, error);
    if (self->screen)
        lade_bar_screen_clear(self->screen, lade_show_columns(STDERR_FILENO));
    if (!code && print)
        s_sum_up(self);
    if (code == LADE_CANCELLED) {
        s_interrupted(self);
        self->cli->said = true;
    }
    return code;
}

void
lade_follow_print(lade_follow_t *self, lade_follow_print_t *print)
{
    lade_buf_t text = LADE_BUF(1 << 24);
    for (size_t i = 0; i < self->count; i++)
        if (!self->rows[i]->error.code && !self->rows[i]->printed)
            print(self, i, &text);
    fputs(lade_buf_text(&text), stdout);
    fflush(stdout);
    lade_buf_free(&text);
}

bool
lade_follow_terminal(const lade_follow_t *self)
{
    return self->cli->terminal;
}

size_t
lade_follow_count(const lade_follow_t *self)
{
    return self->count;
}

const char *
lade_follow_name(const lade_follow_t *self, size_t index)
{
    return self->rows[index]->name;
}

const json_t *
lade_follow_job(const lade_follow_t *self, size_t index)
{
    return self->rows[index]->job;
}

const lade_error_t *
lade_follow_error(const lade_follow_t *self, size_t index)
{
    return &self->rows[index]->error;
}

void
lade_follow_print_json(const lade_follow_t *self)
{
    json_t *all = json_array();
    for (size_t i = 0; i < self->count; i++) {
        const s_row_t *row = self->rows[i];
        if (row->job)
            json_array_append(all, row->job);
        else
            json_array_append_new(all, json_pack("{s:o, s:o}", "source",
                                                 json_stringn_nocheck(row->name, strlen(row->name)),
                                                 "error", lade_cli_error_json(&row->error)));
    }
    lade_cli_print_json(all);
}

lade_code_t
lade_follow_complain(const lade_follow_t *self)
{
    lade_code_t first = LADE_OK;
    for (size_t i = 0; i < self->count; i++) {
        const s_row_t *row = self->rows[i];
        if (!row->error.code)
            continue;
        lade_cli_complain(row->name, &row->error);
        first = first ? first : row->error.code;
    }
    return first;
}

void
lade_follow_destroy(lade_follow_t **self_p)
{
    lade_follow_t *self = *self_p;
    if (!self)
        return;
    lade_bar_screen_destroy(&self->screen);
    lade_frame_destroy(&self->frame);
    lade_watch_close(&self->watch);
    for (size_t i = 0; i < self->count; i++) {
        s_row_t *row = self->rows[i];
        lade_request_finish(&row->request, NULL, NULL);
        json_decref(row->job);
        free(row->name);
        free(row->label);
        free(row);
    }
    free(self->rows);
    free(self);
    *self_p = NULL;
}
