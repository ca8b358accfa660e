// A program of somebody else's on liblade's download queue, told line by line what to do.
//
//   QUEUE op ARGUMENTS…     QUEUE is 0 to 3, opened when it is first named
//
// Answers "ok …" or "error CODE sentence"; what handlers are told stands before it as
// "told WHO ID STATUS BYTES TOTAL".
#include "client/lade.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUES = 4, WORDS = 32, FILES = 8 };

typedef struct {
    lade_t *lade;
    lade_queue_t *queues[QUEUES];
    lade_queue_t *queue; // of this line
    char *words[WORDS];
    size_t count;
} driver_t;

static void
told(void *arg, lade_download_t *job)
{
    printf("told %s %lld %s %lld %lld\n", (const char *)arg, (long long)lade_download_id(job),
           lade_download_status_name(lade_download_status(job)),
           (long long)lade_download_bytes(job), (long long)lade_download_total_bytes(job));
}

// Cancels from inside, at the first byte.
static void
cancels(void *arg, lade_download_t *job)
{
    driver_t *self = arg;
    lade_error_t error;
    if (lade_download_status(job) == LADE_DOWNLOAD_RUNNING && lade_download_bytes(job) > 0 &&
        lade_queue_cancel_job(self->queue, job, &error))
        printf("told cancels failed: %s\n", error.message);
}

static const char *
option(const driver_t *self, const char *name, const char *preset)
{
    for (size_t i = 2; i < self->count; i++)
        if (strncmp(self->words[i], name, strlen(name)) == 0 && self->words[i][strlen(name)] == '=')
            return self->words[i] + strlen(name) + 1;
    return preset;
}

static void
show(const lade_download_t *job)
{
    printf("ok %lld %s priority=%lld source=%s destination=%s path=%s bytes=%lld total=%lld "
           "started=%.3f ended=%.3f sequence=%lld preserves=%d error_type=%s error=%s\n",
           (long long)lade_download_id(job), lade_download_status_name(lade_download_status(job)),
           (long long)lade_download_priority(job), lade_download_source(job),
           lade_download_destination(job), lade_download_path(job) ? lade_download_path(job) : "",
           (long long)lade_download_bytes(job), (long long)lade_download_total_bytes(job),
           lade_download_job_started(job), lade_download_job_ended(job),
           (long long)lade_download_job_sequence(job), lade_download_preserves(job),
           lade_download_error_type(job) ? lade_download_error_type(job) : "",
           lade_download_error(job) ? lade_download_error(job) : "");
}

static lade_code_t
create(driver_t *self, lade_error_t *error)
{
    lade_download_file_t files[FILES] = {{0}};
    const char *mirrors[FILES] = {NULL};
    size_t mirror_count = 0;
    lade_download_handler_t own = {told, "own"};
    lade_download_spec_t spec = LADE_DOWNLOAD_SPEC;
    spec.source = option(self, "source", NULL);
    spec.destination = option(self, "destination", NULL);
    spec.destdir = option(self, "destdir", NULL);
    spec.filename = option(self, "filename", NULL);
    spec.access_token = option(self, "token", NULL);
    spec.sha256 = option(self, "sha256", NULL);
    spec.priority = atoll(option(self, "priority", "10"));
    spec.preserve_partial_downloads = atoi(option(self, "preserve", "0"));
    spec.mirrors = mirrors;
    spec.files = files;
    spec.handlers = &own;
    spec.handler_count = 1;
    for (size_t i = 2; i < self->count; i++) {
        char *word = self->words[i];
        if (strncmp(word, "mirror=", 7) == 0 && mirror_count < FILES - 1)
            mirrors[mirror_count++] = word + 7;
        if (strncmp(word, "file=", 5) == 0 && spec.file_count < FILES) { // PATH,SIZE,URL
            lade_download_file_t *file = &files[spec.file_count++];
            char *rest = word + 5;
            file->path = strsep(&rest, ",");
            file->size = atoll(strsep(&rest, ","));
            file->url = rest;
        }
    }
    lade_download_t *job;
    bool start = atoi(option(self, "start", "1"));
    lade_code_t code = lade_queue_create_download_job(self->queue, &spec, start, &job, error);
    if (!code)
        show(job);
    return code;
}

static lade_code_t
all(driver_t *self, const char *op, lade_error_t *error)
{
    size_t count = 0;
    double seconds = self->count > 2 ? atof(self->words[2]) : 0;
    lade_code_t code =
        strcmp(op, "start_all") == 0    ? lade_queue_start_all_jobs(self->queue, error)
        : strcmp(op, "pause_all") == 0  ? lade_queue_pause_all_jobs(self->queue, error)
        : strcmp(op, "cancel_all") == 0 ? lade_queue_cancel_all_jobs(self->queue, error)
        : strcmp(op, "join") == 0       ? lade_queue_join(self->queue, seconds, error)
        : strcmp(op, "run") == 0        ? lade_queue_run(self->queue, seconds, error)
        : strcmp(op, "prune") == 0      ? lade_queue_prune_jobs(self->queue, &count, error)
                                        : LADE_NOT_FOUND;
    if (!code)
        printf("ok %zu\n", count);
    return code;
}

static lade_code_t
list(driver_t *self)
{
    lade_download_t *jobs[256];
    size_t count = lade_queue_list_jobs(self->queue, jobs, 256);
    printf("ok");
    for (size_t i = 0; i < count && i < 256; i++)
        printf(" %lld:%s", (long long)lade_download_id(jobs[i]),
               lade_download_status_name(lade_download_status(jobs[i])));
    puts("");
    return LADE_OK;
}

static lade_code_t
one(driver_t *self, const char *op, lade_error_t *error)
{
    long long id = self->count > 2 ? atoll(self->words[2]) : -1;
    const char *more = self->count > 3 ? self->words[3] : "0";
    lade_download_t *job = NULL;
    lade_code_t code = strcmp(op, "adopt") == 0
                           ? lade_queue_adopt(self->queue, id, &job, error)
                           : lade_queue_id_to_job(self->queue, id, &job, error);
    if (code)
        return code;
    if (strcmp(op, "start") == 0)
        code = lade_queue_start_job(self->queue, job, error);
    else if (strcmp(op, "pause") == 0)
        code = lade_queue_pause_job(self->queue, job, error);
    else if (strcmp(op, "cancel") == 0)
        code = lade_queue_cancel_job(self->queue, job, error);
    else if (strcmp(op, "wait") == 0)
        code = lade_queue_wait_for_job(self->queue, job, atof(more), error);
    else if (strcmp(op, "preserve") == 0)
        code = lade_queue_set_preserve(self->queue, job, atoi(more), error);
    else if (strcmp(op, "priority") == 0)
        code = lade_queue_set_priority(self->queue, job, atoll(more), error);
    else if (strcmp(op, "clear") == 0)
        lade_download_clear_event_handlers(job);
    else if (strcmp(op, "cancels") == 0)
        lade_download_add_event_handler(job, (lade_download_handler_t){cancels, self});
    if (!code)
        show(job);
    return code;
}

static lade_code_t
run(driver_t *self, lade_error_t *error)
{
    static const char *const whole[] = {"start_all", "pause_all", "cancel_all",
                                        "join",      "run",       "prune"};
    size_t number = (size_t)atoi(self->words[0]) % QUEUES;
    const char *op = self->words[1];
    lade_download_handler_t handler = {told, "queue"};
    if (!self->queues[number]) {
        lade_code_t code =
            lade_queue_open(self->lade, &handler, 1, true, &self->queues[number], error);
        if (code)
            return code;
    }
    self->queue = self->queues[number];
    if (strcmp(op, "create") == 0)
        return create(self, error);
    if (strcmp(op, "list") == 0)
        return list(self);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(op, whole[i]) == 0)
            return all(self, op, error);
    return one(self, op, error);
}

int
main(int argc, char **argv)
{
    driver_t self = {0};
    lade_error_t error;
    char *line = NULL;
    size_t size = 0;
    if (argc != 2 || lade_open(NULL, argv[1], NULL, &self.lade, &error))
        return 1;
    while (getline(&line, &size, stdin) > 0) {
        char *rest = line;
        line[strcspn(line, "\n")] = '\0';
        for (self.count = 0; rest && self.count < WORDS; self.count++)
            self.words[self.count] = strsep(&rest, " ");
        if (self.count >= 2 && run(&self, &error))
            printf("error %s %s\n", lade_code_name(error.code), error.message);
        fflush(stdout);
    }
    for (size_t i = 0; i < QUEUES; i++)
        lade_queue_close(&self.queues[i]);
    lade_close(&self.lade);
    free(line);
    return 0;
}
