// Requests: what libcurl is told, and what it tells.
//
// The callbacks run within curl_multi_perform, on the engine's thread.
#include "common/log.h"
#include "common/proxy.h"
#include "workers/download/credentials.h"
#include "workers/download/engine_private.h"

#include <arpa/inet.h>
#include <czmq.h>
#include <inttypes.h>
#include <netinet/in.h>

enum {
    S_RECEIVE_BYTES = 512 << 10, // libcurl's buffer
    S_DISCARD_BYTES = 64 << 10, // read of an error's body, so that the connection can be used again
};

// ---------------------------------------------------------------------------------------------------
// Bytes

static lade_engine_t *
s_engine(const lade_part_t *part)
{
    return part->transfer->engine;
}

static size_t
s_on_header(char *line, size_t size, size_t count, void *arg)
{
    lade_part_t *part = arg;
    (void)size; // always 1
    if (lade_headers_line(&part->headers, line, count))
        return count;
    lade_error_set(&part->error, LADE_TOO_LARGE, "%s sends more than %d bytes of headers",
                   part->host, LADE_HEADERS_MAX);
    return 0;
}

static void
s_note_latency(lade_part_t *part)
{
    curl_off_t sent_us = 0, came_us = 0;
    curl_easy_getinfo(part->easy, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
    curl_easy_getinfo(part->easy, CURLINFO_STARTTRANSFER_TIME_T, &came_us);
    part->transfer->latency_ms = (came_us - sent_us) / 1000;
}

// Reads the answer once its headers are there; true if its body goes into the file.
static bool
s_judge(lade_part_t *part)
{
    if (part->answer == LADE_ANSWER_NONE) {
        part->answer = lade_answer_judge(part);
        if (part->answer == LADE_ANSWER_TAKE) {
            s_note_latency(part);
            lade_flow_answered(part->transfer);
        }
    }
    return part->answer == LADE_ANSWER_TAKE;
}

// A block is needed by whoever fetches the first missing bytes, if no memory of the transfer
// becomes free without them: all that came later waits for them.
static bool
s_is_needed(const lade_part_t *part)
{
    if (part->transfer->writes || part->transfer->hashing)
        return false;
    for (const lade_part_t *other = part->transfer->parts; other; other = other->next)
        if (other->at < part->at)
            return false;
    return true;
}

static int64_t
s_block_end(int64_t at)
{
    return (at / LADE_BLOCK_BYTES + 1) * LADE_BLOCK_BYTES;
}

static lade_block_t *
s_get_block(lade_part_t *part)
{
    return lade_blocks_get(s_engine(part)->blocks, s_is_needed(part));
}

// Makes sure of memory for the next bytes: they fit into the present block and one more.
static bool
s_has_memory(lade_part_t *part, size_t bytes)
{
    if (!part->block && !(part->block = s_get_block(part)))
        return false;
    if (part->block->len == 0)
        part->block->at = part->at;
    int64_t room = s_block_end(part->block->at) - part->at;
    if (room >= (int64_t)bytes || part->ahead)
        return true;
    part->ahead = s_get_block(part);
    return part->ahead != NULL;
}

static void
s_pass_on(lade_part_t *part)
{
    lade_block_t *block = part->block;
    part->block = part->ahead;
    part->ahead = NULL;
    lade_sink_block(part->transfer, block);
}

static void
s_take(lade_part_t *part, const char *data, size_t count)
{
    lade_sink_came(part->transfer, count);
    while (count) {
        lade_block_t *block = part->block;
        if (block->len == 0)
            block->at = part->at;
        int64_t room = s_block_end(block->at) - part->at;
        size_t some = room < (int64_t)count ? (size_t)room : count;
        memcpy(block->data + block->len, data, some);
        block->len += some;
        part->at += (int64_t)some;
        data += some;
        count -= some;
        if (part->at == s_block_end(block->at) || part->at == part->to)
            s_pass_on(part);
    }
}

// More than was announced is cut off where a range was asked for; else it is an error.
static bool
s_fits(lade_part_t *part, size_t *count)
{
    const lade_transfer_t *transfer = part->transfer;
    int64_t most = part->to >= 0 ? part->to : transfer->size;
    if (most < 0 || part->at + (int64_t)*count <= most)
        return true;
    if (part->ranged) {
        *count = (size_t)(most - part->at);
        return true;
    }
    lade_error_set(&part->error, LADE_SIZE_MISMATCH,
                   "%s sends more than the %" PRId64 " bytes announced", part->host, most);
    return false;
}

static size_t
s_on_body(char *data, size_t size, size_t count, void *arg)
{
    lade_part_t *part = arg;
    lade_transfer_t *transfer = part->transfer;
    size_t take = count;
    (void)size; // always 1
    if (!s_judge(part)) {
        part->discarded += count;
        return part->discarded > S_DISCARD_BYTES || transfer->redo ? 0 : count;
    }
    if (transfer->error.code || transfer->redo || !s_fits(part, &take))
        return 0;
    if (take && (!lade_sink_may_take(transfer) || !s_has_memory(part, take))) {
        s_engine(part)->blocked += !part->blocked;
        part->blocked = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    s_take(part, data, take);
    return take;
}

void
lade_part_unblock(lade_part_t *part)
{
    if (!part->blocked || !lade_sink_may_take(part->transfer) ||
        (lade_blocks_full(s_engine(part)->blocks) && !s_is_needed(part)))
        return;
    part->blocked = false;
    s_engine(part)->blocked--;
    curl_easy_pause(part->easy, CURLPAUSE_CONT);
}

void
lade_part_flush(lade_part_t *part)
{
    lade_block_t *block = part->block;
    if (part->answer != LADE_ANSWER_TAKE || !block || block->len == block->flushed)
        return;
    lade_transfer_t *transfer = part->transfer;
    int64_t from = block->at + (int64_t)block->flushed, to = block->at + (int64_t)block->len;
    if (lade_partial_write(transfer->partial, from, block->data + block->flushed,
                           block->len - block->flushed, &transfer->error))
        return;
    block->flushed = block->len;
    lade_sink_written(transfer, from, to);
}

// ---------------------------------------------------------------------------------------------------
// Sockets

static int
s_port(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return 0;
}

static void
s_note_socket(lade_engine_t *self, int fd, const char *host)
{
    if (self->socket_count == LADE_ENGINE_SOCKETS)
        return;
    if (self->socket_count == self->socket_room) {
        self->socket_room = self->socket_room * 2 + 16;
        self->sockets = realloc(self->sockets, self->socket_room * sizeof *self->sockets);
        if (!self->sockets)
            abort();
    }
    lade_socket_t *socket = &self->sockets[self->socket_count++];
    *socket = (lade_socket_t){.fd = fd};
    snprintf(socket->host, sizeof socket->host, "%s", host);
}

static curl_socket_t
s_on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    lade_part_t *part = arg;
    lade_engine_t *self = s_engine(part);
    bool proxied = part->proxied;
    (void)purpose;
    if (!proxied &&
        lade_guard_check_address(self->guard, part->host, &address->addr, &part->error)) {
        part->refused = true;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd >= 0)
        s_note_socket(self, fd, part->host);
    return fd;
}

static int
s_on_close(void *arg, curl_socket_t fd)
{
    lade_engine_t *self = arg;
    for (size_t i = 0; i < self->socket_count; i++)
        if (self->sockets[i].fd == fd) {
            self->sockets[i] = self->sockets[--self->socket_count];
            break;
        }
    return close(fd);
}

// Before each request, with the connection it goes over.
static int
s_on_request(void *arg, char *their_ip, char *our_ip, int their_port, int our_port)
{
    lade_part_t *part = arg;
    (void)their_ip, (void)our_ip, (void)their_port;
    part->port = our_port;
    return CURL_PREREQFUNC_OK;
}

// Whether a request is out on the socket, or may be: one that is still connecting.
static bool
s_is_used(const lade_engine_t *self, int port, const char *host)
{
    for (const lade_transfer_t *transfer = self->transfers; transfer; transfer = transfer->next)
        for (const lade_part_t *part = transfer->parts; part; part = part->next)
            if (part->easy &&
                (part->port == port || (!part->port && strcmp(part->host, host) == 0)))
                return true;
    return false;
}

void
lade_part_close_idle(lade_engine_t *self, const char *host)
{
    for (size_t i = 0; i < self->socket_count; i++) {
        const lade_socket_t *socket = &self->sockets[i];
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof address;
        if (strcmp(socket->host, host) != 0 ||
            getsockname(socket->fd, (struct sockaddr *)&address, &len) != 0 ||
            s_is_used(self, s_port(&address), host))
            continue;
        shutdown(socket->fd, SHUT_RDWR); // libcurl finds it dead and lets it go
    }
}

// ---------------------------------------------------------------------------------------------------
// A request

static void
s_set_headers(lade_part_t *part)
{
    const lade_journal_t *journal = &part->transfer->journal;
    const char *etag = part->transfer->if_range == LADE_IF_ETAG ? journal->etag : NULL;
    const char *validator = part->transfer->if_range == LADE_IF_NOTHING
                                ? NULL
                                : lade_headers_validator(etag, journal->last_modified);
    char range[64], *line;
    curl_slist_free_all(part->lines);
    part->lines = curl_slist_append(NULL, "Accept-Encoding: identity");
    if (part->to >= 0)
        snprintf(range, sizeof range, "%" PRId64 "-%" PRId64, part->from, part->to - 1);
    else
        snprintf(range, sizeof range, "%" PRId64 "-", part->from);
    curl_easy_setopt(part->easy, CURLOPT_RANGE, part->ranged ? range : NULL);
    if (part->ranged && validator && part->transfer->claimed.bytes > 0 &&
        asprintf(&line, "If-Range: %s", validator) > 0) {
        part->lines = curl_slist_append(part->lines, line);
        free(line);
    }
    curl_easy_setopt(part->easy, CURLOPT_HTTPHEADER, part->lines);
}

// As libcurl's own bearer or login, not as a header line: and anew for each hop, so that nothing
// goes to another origin than its own.
static lade_code_t
s_set_credentials(lade_part_t *part)
{
    const lade_transfer_t *transfer = part->transfer;
    const lade_credentials_ask_t ask = {
        .url = part->url,
        .source = lade_transfer_url(transfer),
        .token = transfer->token,
        .token_url = transfer->urls[0],
    };
    lade_credentials_t found;
    lade_code_t code = lade_credentials_find(s_engine(part)->config, &ask, &found, &part->error);
    part->token = !code && found.kind != LADE_CREDENTIALS_NONE;
    bool bearer = found.kind == LADE_CREDENTIALS_BEARER;
    curl_easy_setopt(part->easy, CURLOPT_HTTPAUTH,
                     bearer ? (long)CURLAUTH_BEARER : (long)CURLAUTH_BASIC);
    curl_easy_setopt(part->easy, CURLOPT_XOAUTH2_BEARER, found.token);
    curl_easy_setopt(part->easy, CURLOPT_USERNAME, found.user);
    curl_easy_setopt(part->easy, CURLOPT_PASSWORD, found.password);
    lade_credentials_free(&found);
    return code;
}

static void
s_set_proxy(lade_part_t *part)
{
    char *proxy = lade_proxy_for(s_engine(part)->config->proxy, part->url);
    part->proxied = *proxy != '\0';
    curl_easy_setopt(part->easy, CURLOPT_PROXY, proxy);
    curl_easy_setopt(part->easy, CURLOPT_NOPROXY, "");
    free(proxy);
}

// What is the same for every request.
static void
s_set_limits(const lade_config_t *config, CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_UNRESTRICTED_AUTH, 0L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)config->connect_timeout_s);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)config->low_speed_bytes);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)config->stall_s);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)S_RECEIVE_BYTES);
    if (*config->user_agent)
        curl_easy_setopt(easy, CURLOPT_USERAGENT, config->user_agent);
    if (*config->ca_file) { // besides the system's folder of authorities, which stays
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
        curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, config->ca_file);
    }
}

static void
s_set_callbacks(lade_part_t *part)
{
    CURL *easy = part->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, part);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, part->curl_words);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, s_on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, part);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, s_on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, part);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, s_on_open);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, part);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, s_on_close);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, s_engine(part));
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, s_on_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, part);
}

static bool
s_take_handle(lade_part_t *part)
{
    lade_engine_t *self = s_engine(part);
    part->easy = self->spare_count ? self->spares[--self->spare_count] : curl_easy_init();
    if (!part->easy)
        return false;
    s_set_limits(self->config, part->easy);
    s_set_callbacks(part);
    return true;
}

static void
s_give_handle(lade_part_t *part)
{
    lade_engine_t *self = s_engine(part);
    if (self->spare_count < LADE_ENGINE_SPARES) {
        curl_easy_reset(part->easy);
        self->spares[self->spare_count++] = part->easy;
    } else {
        curl_easy_cleanup(part->easy);
    }
    part->easy = NULL;
}

// Several connections are only had over HTTP/1.1: HTTP/2 puts all requests into one. It is what
// small files are best fetched with; then a request waits for the first connection instead of
// opening its own.
static void
s_set_version(lade_part_t *part)
{
    bool many = part->transfer->answered && part->ranged;
    curl_easy_setopt(part->easy, CURLOPT_HTTP_VERSION,
                     many ? (long)CURL_HTTP_VERSION_1_1 : (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(part->easy, CURLOPT_PIPEWAIT,
                     !many && strncasecmp(part->url, "https:", 6) == 0 ? 1L : 0L);
}

static lade_code_t
s_prepare(lade_part_t *part)
{
    lade_engine_t *self = s_engine(part);
    lade_code_t code = lade_guard_check_url(self->guard, part->url, &part->error);
    if (!code)
        code = s_set_credentials(part);
    if (code)
        return code;
    curl_easy_setopt(part->easy, CURLOPT_URL, part->url);
    s_set_proxy(part);
    s_set_version(part);
    s_set_headers(part);
    return LADE_OK;
}

bool
lade_part_ask(lade_part_t *part, int64_t from, int64_t to, char *url)
{
    lade_transfer_t *transfer = part->transfer;
    const char *known = transfer->direct_url ? transfer->direct_url : lade_transfer_url(transfer);
    if (!url)
        part->hops = 0;
    part->direct = !url && transfer->direct_url;
    free(part->url);
    part->url = url ? url : strdup(known);
    lade_transfer_host(part->url, part->host, sizeof part->host);
    part->from = part->at = from;
    part->to = to;
    part->ranged = !transfer->whole && (to >= 0 || from > 0);
    lade_headers_free(&part->headers);
    part->answer = LADE_ANSWER_NONE;
    part->error = (lade_error_t){0};
    part->discarded = 0;
    part->connected = part->refused = part->outdated = false;
    part->port = 0;
    part->curl_words[0] = '\0';
    part->began_ms = s_engine(part)->now_ms;
    if (!s_prepare(part) && curl_multi_add_handle(s_engine(part)->multi, part->easy) == CURLM_OK) {
        part->out = true;
        return true;
    }
    if (!part->error.code)
        lade_error_set(&part->error, LADE_NO_MEMORY, "no memory for another request");
    return false;
}

bool
lade_part_start(lade_transfer_t *transfer, int64_t from, int64_t to)
{
    lade_part_t *part = zmalloc(sizeof *part);
    part->transfer = transfer;
    part->headers = LADE_HEADERS_NONE;
    part->next = transfer->parts;
    transfer->parts = part;
    transfer->part_count++;
    lade_ranges_add(&transfer->claimed, from, to < 0 ? INT64_MAX / 2 : to);
    if (s_take_handle(part) && lade_part_ask(part, from, to, NULL))
        return true;
    transfer->error = part->error;
    if (!transfer->error.code)
        lade_error_set(&transfer->error, LADE_NO_MEMORY, "no memory for another request");
    lade_part_drop(part, false);
    return false;
}

char *
lade_part_withdraw(lade_part_t *part)
{
    lade_transfer_t *transfer = part->transfer;
    char *where = NULL, *copy = NULL;
    curl_off_t sent_us = 0;
    if (!part->out)
        return NULL;
    curl_easy_getinfo(part->easy, CURLINFO_REDIRECT_URL, &where);
    curl_easy_getinfo(part->easy, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
    copy = where ? strdup(where) : NULL;
    part->connected = sent_us > 0;
    snprintf(transfer->answer_host, sizeof transfer->answer_host, "%s", part->host);
    curl_multi_remove_handle(s_engine(part)->multi, part->easy);
    part->out = false;
    s_engine(part)->blocked -= part->blocked;
    part->blocked = false;
    return copy;
}

void
lade_part_drop(lade_part_t *part, bool keep)
{
    lade_transfer_t *transfer = part->transfer;
    lade_engine_t *self = transfer->engine;
    free(lade_part_withdraw(part));
    for (lade_part_t **at = &transfer->parts; *at; at = &(*at)->next)
        if (*at == part) {
            *at = part->next;
            break;
        }
    transfer->part_count--;
    self->drops++;
    lade_ranges_remove(&transfer->claimed, part->at, part->to < 0 ? INT64_MAX / 2 : part->to);
    if (part->block && keep && part->block->len > part->block->flushed)
        s_pass_on(part);
    lade_block_t *left[] = {part->block, part->ahead};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++)
        if (left[i])
            lade_blocks_put(self->blocks, left[i]);
    if (part->easy)
        s_give_handle(part);
    if (transfer->farm_connections)
        lade_part_close_idle(self, part->host);
    curl_slist_free_all(part->lines);
    lade_headers_free(&part->headers);
    free(part->url);
    free(part);
}
