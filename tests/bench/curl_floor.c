// The floor under downloads: what libcurl gives when nothing but bytes is wanted.
//
//   curl_floor [--connections N] [--range-mb N] LIST
//
// LIST has a line "URL TAB PATH TAB BYTES" for each file. A few connections fetch ranges of all
// files in order and write them with O_DIRECT from buffers that are used again and again. No hash,
// no resume, no fsync, no second try: any failure ends it.
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_BLOCK = 4096,        // what O_DIRECT wants lengths, offsets and addresses to be multiples of
    S_BUFFER = 1 << 20,    // bytes of one write
    S_RECEIVE = 512 << 10, // bytes libcurl takes from a socket at once
    S_MAX_CONNECTIONS = 64,
};

typedef struct {
    char *url, *path;
    int64_t bytes, handed, written; // of the file; of it to connections; of it in ended ranges
    int fd;                         // -1 before the first range and after the last
} s_file_t;

typedef struct {
    CURL *easy;
    s_file_t *file;
    int64_t from, at, end; // of the range; at: where the next write goes
    size_t len;            // bytes in the buffer
    uint8_t *buffer;
} s_line_t;

typedef struct {
    size_t connections, count, next; // of files; next: the first with something left to hand out
    int64_t range;
    s_file_t *files;
    CURLM *multi;
    s_line_t lines[S_MAX_CONNECTIONS];
} s_floor_t;

static void
s_die(const char *what, const char *why)
{
    fprintf(stderr, "curl_floor: %s: %s\n", what, why);
    exit(1);
}

static void
s_read_list(s_floor_t *self, const char *path)
{
    FILE *in = fopen(path, "re");
    char line[8192], *rest;
    if (!in)
        s_die(path, strerror(errno));
    while (fgets(line, sizeof line, in)) {
        char *url = strtok_r(line, "\t\n", &rest), *to = strtok_r(NULL, "\t\n", &rest),
             *bytes = strtok_r(NULL, "\t\n", &rest);
        if (!bytes)
            s_die(path, "a line is not URL TAB PATH TAB BYTES");
        self->files = realloc(self->files, (self->count + 1) * sizeof *self->files);
        if (!self->files)
            s_die(path, "no memory");
        self->files[self->count++] = (s_file_t){
            .url = strdup(url), .path = strdup(to), .bytes = strtoll(bytes, NULL, 10), .fd = -1};
    }
    fclose(in);
}

// ---------------------------------------------------------------------------------------------------
// Writing

// Some file systems know no O_DIRECT: those get plain writes.
static void
s_open(s_file_t *file, int64_t range)
{
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    file->fd = open(file->path, flags | O_DIRECT, 0644);
    if (file->fd < 0 && errno == EINVAL)
        file->fd = open(file->path, flags & ~O_EXCL, 0644);
    if (file->fd < 0)
        s_die(file->path, strerror(errno));
    if (file->bytes > range && fallocate(file->fd, 0, 0, file->bytes) && errno == ENOSPC)
        s_die(file->path, strerror(errno));
}

static void
s_flush(s_line_t *line)
{
    size_t whole = (line->len + S_BLOCK - 1) / S_BLOCK * S_BLOCK; // only a file's end is padded
    memset(line->buffer + line->len, 0, whole - line->len);
    for (size_t done = 0; done < whole;) {
        ssize_t wrote = pwrite(line->file->fd, line->buffer + done, whole - done,
                               (off_t)(line->at + (int64_t)done));
        if (wrote <= 0)
            s_die(line->file->path, strerror(errno));
        done += (size_t)wrote;
    }
    line->at += (int64_t)line->len;
    line->len = 0;
}

static size_t
s_on_bytes(char *bytes, size_t one, size_t count, void *arg)
{
    s_line_t *line = arg;
    if ((int64_t)(one * count) > line->end - line->at - (int64_t)line->len)
        return 0;
    for (size_t taken = 0; taken < count;) {
        size_t part = S_BUFFER - line->len < count - taken ? S_BUFFER - line->len : count - taken;
        memcpy(line->buffer + line->len, bytes + taken, part);
        line->len += part;
        taken += part;
        if (line->len == S_BUFFER)
            s_flush(line);
    }
    return count;
}

static void
s_close(s_file_t *file)
{
    if (ftruncate(file->fd, file->bytes) || close(file->fd))
        s_die(file->path, strerror(errno));
    file->fd = -1;
}

// ---------------------------------------------------------------------------------------------------
// Fetching

// Gives the connection the next range; false if there is none.
static bool
s_start(s_floor_t *self, s_line_t *line)
{
    while (self->next < self->count &&
           self->files[self->next].handed == self->files[self->next].bytes)
        self->next++;
    if (self->next == self->count)
        return false;
    s_file_t *file = line->file = &self->files[self->next];
    if (file->fd < 0)
        s_open(file, self->range);
    line->from = line->at = file->handed;
    line->end = file->bytes - line->at > self->range ? line->at + self->range : file->bytes;
    file->handed = line->end;
    char range[64];
    snprintf(range, sizeof range, "%lld-%lld", (long long)line->at, (long long)line->end - 1);
    curl_easy_setopt(line->easy, CURLOPT_URL, file->url);
    curl_easy_setopt(line->easy, CURLOPT_RANGE, file->bytes > self->range ? range : NULL);
    curl_multi_add_handle(self->multi, line->easy);
    return true;
}

// Whether the connection has another range now.
static bool
s_on_end(s_floor_t *self, CURLMsg *msg)
{
    s_line_t *line;
    long status = 0;
    curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &line);
    curl_easy_getinfo(msg->easy_handle, CURLINFO_RESPONSE_CODE, &status);
    s_file_t *file = line->file;
    if (msg->data.result)
        s_die(file->url, curl_easy_strerror(msg->data.result));
    if (line->len)
        s_flush(line);
    if (line->at != line->end || status != (file->bytes > self->range ? 206 : 200))
        s_die(file->url, "the server sent something else than the range");
    file->written += line->end - line->from;
    if (file->written == file->bytes)
        s_close(file);
    curl_multi_remove_handle(self->multi, line->easy);
    return s_start(self, line);
}

static void
s_open_lines(s_floor_t *self)
{
    self->multi = curl_multi_init();
    for (size_t i = 0; i < self->connections; i++) {
        s_line_t *line = &self->lines[i];
        line->easy = curl_easy_init();
        line->buffer = aligned_alloc(S_BLOCK, S_BUFFER);
        if (!line->easy || !line->buffer)
            s_die("connections", "no memory");
        curl_easy_setopt(line->easy, CURLOPT_PRIVATE, line);
        curl_easy_setopt(line->easy, CURLOPT_WRITEFUNCTION, s_on_bytes);
        curl_easy_setopt(line->easy, CURLOPT_WRITEDATA, line);
        curl_easy_setopt(line->easy, CURLOPT_BUFFERSIZE, (long)S_RECEIVE);
        curl_easy_setopt(line->easy, CURLOPT_FAILONERROR, 1L);
        curl_easy_setopt(line->easy, CURLOPT_PROXY, "");
        if (!s_start(self, line))
            break;
    }
}

static void
s_run(s_floor_t *self)
{
    int running, left;
    bool started;
    do {
        if (curl_multi_perform(self->multi, &running))
            s_die("libcurl", "curl_multi_perform failed");
        started = false;
        for (CURLMsg *msg; (msg = curl_multi_info_read(self->multi, &left)) != NULL;)
            if (msg->msg == CURLMSG_DONE && s_on_end(self, msg))
                started = true;
        if (running && !started)
            curl_multi_poll(self->multi, NULL, 0, 1000, NULL);
    } while (running || started);
}

static void
s_destroy(s_floor_t *self)
{
    for (size_t i = 0; i < self->connections; i++) {
        curl_easy_cleanup(self->lines[i].easy);
        free(self->lines[i].buffer);
    }
    curl_multi_cleanup(self->multi);
    curl_global_cleanup();
    for (size_t i = 0; i < self->count; i++) {
        free(self->files[i].url);
        free(self->files[i].path);
    }
    free(self->files);
    free(self);
}

int
main(int argc, char **argv)
{
    static const struct option options[] = {{"connections", required_argument, NULL, 'c'},
                                            {"range-mb", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    s_floor_t *self = calloc(1, sizeof *self);
    long connections = 4, range_mb = 16;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        *(option == 'c' ? &connections : &range_mb) = option == '?' ? 0 : strtol(optarg, NULL, 10);
    if (!self || optind != argc - 1 || connections < 1 || connections > S_MAX_CONNECTIONS ||
        range_mb < 1 || range_mb > 1 << 20) {
        fprintf(stderr, "usage: curl_floor [--connections 1..64] [--range-mb N] LIST\n");
        return 2;
    }
    self->connections = (size_t)connections;
    self->range = (int64_t)range_mb << 20;
    s_read_list(self, argv[optind]);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    s_open_lines(self);
    s_run(self);
    for (size_t i = 0; i < self->count; i++)
        if (self->files[i].written != self->files[i].bytes)
            s_die(self->files[i].path, "is not complete");
    s_destroy(self);
    return 0;
}
