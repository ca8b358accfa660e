// What a pipeline would do with many files: one connection, a create_download_job for each, many of
// them in flight, then one wait for all.
//
//   download_client DATA LIST
//
// LIST has a line "URL TAB PATH TAB BYTES TAB SHA256" for each file. Ends with 0 when every file is
// there, verified and on the disk; else it names the first that is not.
#include "client/request.h"
#include "common/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_WINDOW = 256, // requests in flight
    S_TURN_MS = 1000,
};

typedef struct {
    lade_t *lade;
    lade_request_t *asked[S_WINDOW]; // ring: answers come in order
    size_t head, tail;
    json_t *ids;
} s_client_t;

static void
s_die(const char *what, const char *why)
{
    fprintf(stderr, "download_client: %s: %s\n", what, why);
    exit(1);
}

static void
s_must(lade_code_t code, const char *what, const lade_error_t *error)
{
    if (code)
        s_die(what, error->message);
}

// Takes the answer of the oldest request.
static void
s_take(s_client_t *self)
{
    lade_error_t error;
    lade_request_t **request = &self->asked[self->head++ % S_WINDOW];
    while (!lade_request_ended(*request))
        s_must(lade_request_turn(self->lade, S_TURN_MS, &error), "waiting", &error);
    json_t *job = NULL;
    s_must(lade_request_finish(request, &job, &error), "submitting", &error);
    json_array_append(self->ids, json_object_get(job, "id"));
    json_decref(job);
}

// Cuts the line in place.
static json_t *
s_args(char *line)
{
    char *rest, *url = strtok_r(line, "\t\n", &rest), *path = strtok_r(NULL, "\t\n", &rest),
                *bytes = strtok_r(NULL, "\t\n", &rest), *sha256 = strtok_r(NULL, "\t\n", &rest);
    if (!sha256)
        s_die("the list", "a line is not URL TAB PATH TAB BYTES TAB SHA256");
    return json_pack("{s:s, s:s, s:I, s:s}", "source", url, "destination", path, "size",
                     (json_int_t)strtoll(bytes, NULL, 10), "sha256", sha256);
}

static void
s_submit_all(s_client_t *self, FILE *in)
{
    char line[8192];
    lade_error_t error;
    while (fgets(line, sizeof line, in)) {
        if (self->tail - self->head == S_WINDOW)
            s_take(self);
        s_must(lade_request_start(self->lade, "download", "create_download_job", s_args(line), NULL,
                                  NULL, &self->asked[self->tail++ % S_WINDOW], &error),
               "submitting", &error);
    }
    while (self->head != self->tail)
        s_take(self);
}

static void
s_wait_all(s_client_t *self)
{
    json_t *jobs = NULL, *job;
    size_t i;
    lade_error_t error;
    s_must(lade_request_json(self->lade, "jobs", "wait", json_pack("{s:O}", "ids", self->ids), NULL,
                             NULL, &jobs, &error),
           "waiting", &error);
    if (json_array_size(jobs) != json_array_size(self->ids))
        s_die("waiting", "not every job was answered");
    json_array_foreach(jobs, i,
                       job) if (strcmp(lade_json_text(job, "status", ""), "completed") != 0)
        s_die(lade_json_text(job, "source", "?"),
              lade_json_text(job, "error", lade_json_text(job, "status", "not completed")));
    json_decref(jobs);
}

int
main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: download_client DATA LIST\n");
        return 2;
    }
    s_client_t self = {.ids = json_array()};
    lade_error_t error;
    FILE *in = fopen(argv[2], "re");
    if (!in)
        s_die(argv[2], strerror(errno));
    s_must(lade_open(NULL, argv[1], NULL, &self.lade, &error), argv[1], &error);
    s_submit_all(&self, in);
    s_wait_all(&self);
    lade_close(&self.lade);
    json_decref(self.ids);
    fclose(in);
    return 0;
}
