// One buffer for all bytes of a turn, and a list of where they are.
#include "broker/outbox.h"

#include "broker/map.h"
#include "broker/packer.h"
#include "common/wire.h"

#include <czmq.h>

typedef struct {
    bool to_worker, bare;
    int command;
    size_t peer, peer_len, service, service_len, id, id_len, body, len; // offsets and lengths
    size_t next; // letter for the same peer; 0: none
} s_letter_t;

struct lade_outbox {
    lade_buf_t bytes;
    s_letter_t *letters;
    size_t count, cap;
    bool secret; // wipe the bytes
};

lade_outbox_t *
lade_outbox_new(void)
{
    lade_outbox_t *self = zmalloc(sizeof *self);
    self->bytes = LADE_BUF(SIZE_MAX / 2);
    return self;
}

static s_letter_t *
s_begin(lade_outbox_t *self, const char *peer, size_t peer_len, int command)
{
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 64;
        self->letters = realloc(self->letters, self->cap * sizeof *self->letters);
        if (!self->letters)
            abort();
    }
    s_letter_t *letter = &self->letters[self->count++];
    *letter = (s_letter_t){.command = command, .peer = self->bytes.len, .peer_len = peer_len};
    lade_put_raw(&self->bytes, peer, peer_len);
    letter->body = self->bytes.len;
    return letter;
}

lade_buf_t *
lade_outbox_to_worker(lade_outbox_t *self, const char *peer, size_t peer_len, int command)
{
    s_begin(self, peer, peer_len, command)->to_worker = true;
    return &self->bytes;
}

static s_letter_t *
s_begin_answer(lade_outbox_t *self, const char *peer, size_t peer_len, const char *service,
               size_t service_len, int command)
{
    s_letter_t *letter = s_begin(self, peer, peer_len, command);
    letter->service = self->bytes.len;
    letter->service_len = service_len;
    lade_put_raw(&self->bytes, service, service_len);
    letter->body = self->bytes.len;
    return letter;
}

static void
s_put_id(lade_outbox_t *self, s_letter_t *letter, const char *id, size_t id_len)
{
    lade_put_map(&self->bytes, 3);
    LADE_PUT_KEY(&self->bytes, "id");
    letter->id = self->bytes.len;
    lade_put_packed(&self->bytes, id, id_len);
    letter->id_len = self->bytes.len - letter->id;
    LADE_PUT_KEY(&self->bytes, "ok");
}

lade_buf_t *
lade_outbox_answer(lade_outbox_t *self, const char *peer, size_t peer_len, const char *service,
                   size_t service_len, int command, const char *id, size_t id_len)
{
    s_letter_t *letter = s_begin_answer(self, peer, peer_len, service, service_len, command);
    s_put_id(self, letter, id, id_len);
    lade_put_bool(&self->bytes, true);
    LADE_PUT_KEY(&self->bytes, "result");
    return &self->bytes;
}

static void
s_put_error(lade_buf_t *buf, const lade_error_t *error)
{
    lade_put_bool(buf, false);
    LADE_PUT_KEY(buf, "error");
    lade_put_map(buf, 4);
    LADE_PUT_KEY(buf, "code");
    lade_put_str(buf, lade_code_name(error->code));
    LADE_PUT_KEY(buf, "message");
    lade_put_str(buf, error->message);
    LADE_PUT_KEY(buf, "help");
    lade_put_str(buf, lade_code_help(error->code));
    LADE_PUT_KEY(buf, "retry");
    lade_put_bool(buf, lade_code_retry(error->code));
}

void
lade_outbox_refuse(lade_outbox_t *self, const char *peer, size_t peer_len, const char *service,
                   size_t service_len, const char *id, size_t id_len, const lade_error_t *error)
{
    s_letter_t *letter = s_begin_answer(self, peer, peer_len, service, service_len, LADE_MDP_FINAL);
    s_put_id(self, letter, id, id_len);
    s_put_error(&self->bytes, error);
    lade_outbox_end(self);
}

void
lade_outbox_bare(lade_outbox_t *self, const char *peer, size_t peer_len, const char *service,
                 size_t service_len, const char *body)
{
    s_begin_answer(self, peer, peer_len, service, service_len, LADE_MDP_FINAL)->bare = true;
    lade_put_raw(&self->bytes, body, strlen(body));
    lade_outbox_end(self);
}

void
lade_outbox_end(lade_outbox_t *self)
{
    s_letter_t *letter = &self->letters[self->count - 1];
    letter->len = self->bytes.len - letter->body;
    if (letter->to_worker || letter->bare)
        return; // a worker gets its job as it was submitted
    size_t after_id = letter->id + letter->id_len;
    lade_wire_mend(self->bytes.data + after_id, self->bytes.len - after_id);
}

void
lade_outbox_cancel(lade_outbox_t *self)
{
    self->bytes.len = self->letters[--self->count].peer;
}

// The answers' peers and ids stay where they are; new bodies are put behind everything.
void
lade_outbox_fail(lade_outbox_t *self, const lade_error_t *error)
{
    size_t kept = 0;
    for (size_t i = 0; i < self->count; i++) {
        s_letter_t letter = self->letters[i];
        if (letter.to_worker || letter.command != LADE_MDP_FINAL)
            continue;
        if (!letter.bare) {
            lade_put_room(&self->bytes, letter.id_len + 64);
            size_t id = letter.id, body = self->bytes.len;
            s_put_id(self, &letter, self->bytes.data + id, letter.id_len);
            s_put_error(&self->bytes, error);
            letter.body = body;
            letter.len = self->bytes.len - body;
        }
        self->letters[kept++] = letter;
    }
    self->count = kept;
}

static void
s_give(const lade_outbox_t *self, size_t at, void (*each)(void *arg, const lade_letter_t *letter),
       void *arg)
{
    const char *bytes = self->bytes.data;
    const s_letter_t *letter = &self->letters[at];
    each(arg, &(lade_letter_t){.to_worker = letter->to_worker,
                               .command = letter->command,
                               .peer = bytes + letter->peer,
                               .peer_len = letter->peer_len,
                               .service = letter->to_worker ? NULL : bytes + letter->service,
                               .service_len = letter->service_len,
                               .body = bytes + letter->body,
                               .len = letter->len});
}

// Chains the letters of one kind by peer; firsts has the first of each chain, in order.
static size_t
s_chain(lade_outbox_t *self, bool to_worker, size_t *firsts)
{
    size_t chains = 0;
    lade_map_t *lasts = lade_map_new();
    for (size_t i = 0; i < self->count; i++) {
        s_letter_t *letter = &self->letters[i];
        if (letter->to_worker != to_worker)
            continue;
        const char *peer = self->bytes.data + letter->peer;
        s_letter_t *last = lade_map_get(lasts, peer, letter->peer_len);
        letter->next = 0;
        if (last)
            last->next = i;
        else
            firsts[chains++] = i;
        lade_map_put(lasts, peer, letter->peer_len, letter);
    }
    lade_map_destroy(&lasts);
    return chains;
}

// A peer gets all that is for it at once: what is written in a row goes out in few packets, while
// one message for each peer in turn wakes the thread that sends for every single one.
void
lade_outbox_each(lade_outbox_t *self, void (*each)(void *arg, const lade_letter_t *letter),
                 void *arg)
{
    size_t *firsts = zmalloc((self->count + 1) * sizeof *firsts);
    for (int to_worker = 1; to_worker >= 0; to_worker--) {
        size_t chains = s_chain(self, to_worker, firsts);
        for (size_t i = 0; i < chains; i++) {
            size_t at = firsts[i];
            do
                s_give(self, at, each, arg);
            while ((at = self->letters[at].next)); // the first letter of all is nobody's next
        }
    }
    free(firsts);
}

void
lade_outbox_keep_secret(lade_outbox_t *self)
{
    self->secret = true;
}

static void
s_wipe(lade_outbox_t *self)
{
    if (self->secret && self->bytes.len)
        explicit_bzero(self->bytes.data, self->bytes.len);
    self->secret = false;
}

size_t
lade_outbox_bytes(const lade_outbox_t *self)
{
    return self->bytes.len;
}

void
lade_outbox_clear(lade_outbox_t *self)
{
    enum { S_KEEP = 8 << 20 };
    s_wipe(self);
    if (self->bytes.cap > S_KEEP)
        lade_buf_free(&self->bytes);
    self->bytes.len = 0;
    self->count = 0;
}

void
lade_outbox_destroy(lade_outbox_t **self_p)
{
    if (!*self_p)
        return;
    s_wipe(*self_p);
    lade_buf_free(&(*self_p)->bytes);
    free((*self_p)->letters);
    free(*self_p);
    *self_p = NULL;
}
