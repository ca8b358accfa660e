// For unit tests: an HTTP server in a thread that answers from a table and remembers the last
// request.
#ifndef LADE_TEST_SERVER_H
#define LADE_TEST_SERVER_H

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    const char *path;    // of the request, with its query
    const char *headers; // "200 OK\r\nX-Y: z\r\n", status first; NULL: close without an answer
    const char *body;
} test_reply_t;

typedef struct {
    const test_reply_t *replies; // ended by a NULL path; anything else is 404
    int listener, wake[2];
    char endpoint[64];
    char last[8192]; // the last request's head; read it when the answer has come
    atomic_int count;
    bool silent; // takes connections and says nothing
    pthread_t thread;
} test_server_t;

static inline void
test_server_answer(test_server_t *self, int fd)
{
    size_t len = 0;
    char head[sizeof self->last];
    while (len + 1 < sizeof head) {
        ssize_t got = recv(fd, head + len, sizeof head - 1 - len, 0);
        if (got <= 0)
            return;
        len += (size_t)got;
        head[len] = '\0';
        if (strstr(head, "\r\n\r\n"))
            break;
    }
    memcpy(self->last, head, len + 1);
    atomic_fetch_add(&self->count, 1);
    char path[2048] = "";
    sscanf(head, "GET %2047s", path);
    const test_reply_t *reply = self->replies;
    while (reply->path && strcmp(reply->path, path) != 0)
        reply++;
    if (reply->path && !reply->headers)
        return;
    const char *headers = reply->path ? reply->headers : "404 Not Found\r\n";
    const char *body = reply->path && reply->body ? reply->body : "";
    char *whole = NULL;
    int size = asprintf(&whole, "HTTP/1.1 %sContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                        headers, strlen(body), body);
    for (ssize_t at = 0, sent; at < size; at += sent)
        if ((sent = send(fd, whole + at, (size_t)(size - at), MSG_NOSIGNAL)) <= 0)
            break;
    free(whole);
}

static inline void *
test_server_run(void *arg)
{
    test_server_t *self = arg;
    for (;;) {
        struct pollfd wait[] = {{self->listener, POLLIN, 0}, {self->wake[0], POLLIN, 0}};
        poll(wait, 2, -1);
        if (wait[1].revents)
            return NULL;
        int fd = accept(self->listener, NULL, NULL);
        if (self->silent) { // until the test ends
            poll(&wait[1], 1, -1);
            close(fd);
            return NULL;
        }
        test_server_answer(self, fd);
        shutdown(fd, SHUT_WR);
        char rest[256];
        while (recv(fd, rest, sizeof rest, 0) > 0)
            ;
        close(fd);
    }
}

static inline test_server_t *
test_server_new(const test_reply_t *replies, bool silent)
{
    test_server_t *self = calloc(1, sizeof *self);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    self->replies = replies;
    self->silent = silent;
    self->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(self->listener, (struct sockaddr *)&at, len) != 0 || listen(self->listener, 16) != 0 ||
        getsockname(self->listener, (struct sockaddr *)&at, &len) != 0 || pipe(self->wake) != 0)
        abort();
    snprintf(self->endpoint, sizeof self->endpoint, "http://127.0.0.1:%u", ntohs(at.sin_port));
    if (pthread_create(&self->thread, NULL, test_server_run, self) != 0)
        abort();
    return self;
}

static inline void
test_server_end(test_server_t *self)
{
    if (write(self->wake[1], "", 1) != 1)
        abort();
    pthread_join(self->thread, NULL);
    close(self->listener);
    close(self->wake[0]);
    close(self->wake[1]);
    free(self);
}

#endif
