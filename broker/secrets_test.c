// Tokens: who sees them, where they lie, and how long.
#include "broker/secrets.h"

#include "broker/broker_test.h"

#include <dirent.h>
#include <sys/stat.h>

#define TOKEN "hf_s3cretOfTheJob"
#define OTHER "hf_an0therSecret"

// Whether a file below path has the words; not looked at: a file named `but`.
static bool
s_is_in_files(const char *path, const char *words, const char *but)
{
    bool found = false;
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        char *data = NULL, *inner = lade_path_join(path, entry->d_name);
        size_t len = 0;
        if (entry->d_name[0] == '.' || (but && strcmp(entry->d_name, but) == 0))
            ;
        else if (entry->d_type == DT_DIR)
            found = s_is_in_files(inner, words, but);
        else if (lade_path_read(inner, (size_t)1 << 31, &data, &len, NULL) == LADE_OK)
            found = memmem(data, len, words, strlen(words)) != NULL;
        free(data);
        free(inner);
    }
    if (dir)
        closedir(dir);
    return found;
}

static bool
s_is_in(const json_t *body, const char *words)
{
    char *text = json_dumps(body, JSON_ENCODE_ANY);
    bool found = strstr(text, words) != NULL;
    free(text);
    return found;
}

// Nobody but workers was told, and no file but the one for it has it.
static void
s_expect_hidden(const t_broker_t *t, const char *words)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->sent[i].kind != LADE_SENT_WORKER && s_is_in(t->sent[i].body, words))
            fail_msg("'%s' was sent to %s", words, t->sent[i].to);
    assert_false(s_is_in_files(t->folder, words, "tokens"));
}

static char *
s_file(const t_broker_t *t)
{
    return lade_path_join(t->folder, "secrets/tokens");
}

// How often the file of the secrets has the words; -1 if there is no file.
static int
s_times_kept(const t_broker_t *t, const char *words)
{
    char *path = s_file(t), *data = NULL;
    size_t len;
    int times = -1;
    if (lade_path_read(path, 1 << 28, &data, &len, NULL) == LADE_OK) {
        times = 0;
        for (char *at = data; (at = memmem(at, len - (size_t)(at - data), words, strlen(words)));
             at++)
            times++;
    }
    free(data);
    free(path);
    return times;
}

static json_t *
s_spec(const char *token)
{
    return json_pack("{s:s, s:{s:s, s:s, s:[{s:s, s:i}]}}", "kind", "k", "spec", "access_token",
                     token, "path", "/m", "files", "hfTokenFile", token, "size", 7);
}

static int64_t
s_submit(t_broker_t *t, const char *token)
{
    return t_submit(t, s_spec(token));
}

static void
s_purge(t_broker_t *t, int64_t id)
{
    t_call(t, "jobs", "purge", json_pack("{s:[I]}", "ids", (json_int_t)id));
}

// Time goes on until what is not needed is forgotten.
static void
s_settle(t_broker_t *t)
{
    for (int i = 0; i < 3; i++) {
        lade_router_skip(t->router, 1100);
        t_turn(t);
    }
}

static const char *
s_told_token(t_broker_t *t, const char *worker)
{
    const json_t *job = t_told(t, worker, LADE_W_JOB);
    return lade_json_text(json_object_get(job, "spec"), "access_token", NULL);
}

// ---------------------------------------------------------------------------------------------------

static void
test_only_the_worker_sees_a_token(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_submit(t, TOKEN);
    t_call(t, "jobs", "list", NULL);
    t_call(t, "events", "snapshot", NULL);
    t_call(t, "events", "since", json_pack("{s:i}", "seq", 0));
    const json_t *spec = json_object_get(t_job(t, id), "spec");
    assert_string_equal(lade_json_text(spec, "access_token", ""), "***");
    assert_string_equal(lade_json_text(spec, "path", ""), "/m");
    t_hello(t, "w", "k", 1);
    assert_string_equal(s_told_token(t, "w"), TOKEN);
    const json_t *file = json_array_get(
        json_object_get(json_object_get(t_told(t, "w", LADE_W_JOB), "spec"), "files"), 0);
    assert_string_equal(lade_json_text(file, "hfTokenFile", ""), TOKEN);
    assert_int_equal(lade_json_int(file, "size", 0), 7);
    t_done(t, "w", id, 1);
    t_job(t, id);
    s_expect_hidden(t, TOKEN);
}

static void
test_the_file_is_there_before_the_answer_and_has_each_once(void **state)
{
    t_broker_t *t = *state;
    struct stat st;
    assert_int_equal(s_times_kept(t, TOKEN), -1);
    t_submit_kind(t, "k");
    assert_int_equal(s_times_kept(t, TOKEN), -1); // who has no token has no file
    s_submit(t, TOKEN);
    assert_int_equal(s_times_kept(t, TOKEN), 1);
    s_submit(t, TOKEN);
    s_submit(t, OTHER);
    assert_int_equal(s_times_kept(t, TOKEN), 1);
    assert_int_equal(s_times_kept(t, OTHER), 1);
    char *path = s_file(t);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    *strrchr(path, '/') = '\0';
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    free(path);
}

static void
test_a_token_survives_restarts(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_submit(t, TOKEN);
    t_restart(t);
    t_hello(t, "w", "k", 1);
    assert_string_equal(s_told_token(t, "w"), TOKEN);
    t_restart(t); // while it runs
    t_hello(t, "w", "k", 1);
    assert_string_equal(s_told_token(t, "w"), TOKEN);
    t_fail(t, "w", id, 2, "not_found");
    t_restart(t); // while it is an ended one that may be retried
    t_hello(t, "w", "k", 1);
    t_call(t, "jobs", "retry", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(s_told_token(t, "w"), TOKEN);
    s_expect_hidden(t, TOKEN);
}

static void
test_children_and_saved_state_carry_references(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_submit(t, TOKEN);
    t_hello(t, "w", "k", 1);
    t_report(t, "w", LADE_W_AWAIT, id, 1,
             json_pack("{s:{s:s, s:s}, s:[{s:s, s:{s:s}}, {s:s, s:{s:s}}]}", "state", "token",
                       OTHER, "step", "fetch", "jobs", "kind", "c", "spec", "access_token", TOKEN,
                       "kind", "c", "spec", "access_token", TOKEN));
    assert_int_equal(s_times_kept(t, TOKEN), 1);
    assert_int_equal(s_times_kept(t, OTHER), 1);
    s_expect_hidden(t, TOKEN);
    s_expect_hidden(t, OTHER);
    t_restart(t);
    t_hello(t, "c", "c", 2);
    assert_int_equal(t_count_told(t, "c", LADE_W_JOB), 2);
    assert_string_equal(s_told_token(t, "c"), TOKEN);
    t_done(t, "c", id + 1, 1);
    t_done(t, "c", id + 2, 1);
    t_hello(t, "w", "k", 1);
    const json_t *saved = json_object_get(t_told(t, "w", LADE_W_JOB), "state");
    assert_string_equal(lade_json_text(saved, "token", ""), OTHER);
    assert_string_equal(lade_json_text(saved, "step", ""), "fetch");
    t_report(t, "w", LADE_W_AWAIT, id, 2, json_pack("{s:{s:s}}", "state", "step", "place"));
    s_settle(t);
    assert_int_equal(s_times_kept(t, OTHER), 0); // the state before is gone
    assert_int_equal(s_times_kept(t, TOKEN), 1);
    s_expect_hidden(t, TOKEN);
    s_expect_hidden(t, OTHER);
}

static void
test_what_no_job_names_is_forgotten(void **state)
{
    t_broker_t *t = *state;
    int64_t first = s_submit(t, TOKEN), second = s_submit(t, TOKEN), third = s_submit(t, OTHER);
    t_hello(t, "w", "k", 3);
    t_done(t, "w", first, 1);
    t_done(t, "w", second, 1);
    t_done(t, "w", third, 1);
    s_settle(t);
    assert_int_equal(s_times_kept(t, TOKEN), 1); // ended jobs are kept
    s_purge(t, first);
    s_settle(t);
    assert_int_equal(s_times_kept(t, TOKEN), 1);
    s_purge(t, second);
    s_settle(t);
    assert_int_equal(s_times_kept(t, TOKEN), 0);
    assert_int_equal(s_times_kept(t, OTHER), 1);
    s_purge(t, third);
    t_restart(t); // it ended before there was time
    t_turn(t);
    assert_int_equal(s_times_kept(t, OTHER), 0);
}

static void
test_pruning_forgets_too(void **state)
{
    t_broker_t *t = *state;
    t->config.keep_ended = 1;
    int64_t first = s_submit(t, TOKEN), second = s_submit(t, OTHER);
    t_hello(t, "w", "k", 3);
    t_done(t, "w", first, 1);
    t_done(t, "w", second, 1);
    s_settle(t);
    assert_int_equal(s_times_kept(t, TOKEN), 0);
    assert_int_equal(s_times_kept(t, OTHER), 1);
}

static void
test_a_job_that_is_not_made_leaves_nothing(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit(t, json_pack("{s:s, s:s}", "kind", "k", "token", "once"));
    json_t *again = s_spec(TOKEN);
    json_object_set_new(again, "token", json_string("once"));
    assert_int_equal(t_submit(t, again), id);
    id = t_submit(t, json_pack("{s:s, s:s}", "kind", "install", "source", "o/r"));
    again = s_spec(TOKEN);
    json_object_set_new(again, "kind", json_string("install"));
    json_object_set_new(again, "source", json_string("o/r"));
    assert_int_equal(t_submit(t, again), id);
    t->config.max_queue = 1;
    assert_string_equal(t_refused(t, "jobs", "submit", s_spec(TOKEN)), "queue_full");
    assert_int_equal(s_times_kept(t, TOKEN), -1);
    s_expect_hidden(t, TOKEN);
}

static void
test_a_failed_commit_keeps_no_token(void **state)
{
    t_broker_t *t = *state;
    lade_router_break_commits(t->router, 1);
    assert_string_equal(t_refused(t, "jobs", "submit", s_spec(TOKEN)), "no_space");
    int64_t id = s_submit(t, OTHER);
    s_settle(t);
    assert_int_equal(s_times_kept(t, TOKEN), 0);
    t_hello(t, "w", "k", 1);
    t_done(t, "w", id, 1);
    lade_router_break_commits(t->router, 1); // the purge does not happen, so the token stays
    assert_string_equal(t_refused(t, "jobs", "purge", json_pack("{s:[I]}", "ids", (json_int_t)id)),
                        "no_space");
    s_settle(t);
    assert_int_equal(s_times_kept(t, OTHER), 1);
}

static void
test_a_token_that_cannot_be_written_is_not_taken(void **state)
{
    t_broker_t *t = *state;
    char folder[300], aside[300];
    snprintf(folder, sizeof folder, "%s/secrets", t->folder);
    snprintf(aside, sizeof aside, "%s/moved", t->folder);
    assert_int_equal(rename(folder, aside), 0);
    assert_string_equal(t_refused(t, "jobs", "submit", s_spec(TOKEN)), "not_found");
    t_submit_kind(t, "k"); // others go on
    assert_int_equal(rename(aside, folder), 0);
    int64_t id = s_submit(t, TOKEN);
    assert_int_equal(s_times_kept(t, TOKEN), 1);
    assert_string_equal(t_status(t, id), "enqueued");
}

static void
test_a_lost_token_is_asked_for(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_submit(t, TOKEN), without = t_submit_kind(t, "k");
    char *path = s_file(t);
    assert_int_equal(unlink(path), 0);
    free(path);
    t_restart(t);
    t_hello(t, "w", "k", 5);
    const json_t *job = t_job(t, id);
    assert_string_equal(lade_json_text(job, "status", ""), "error");
    assert_string_equal(lade_json_text(job, "error_type", ""), "auth_required");
    assert_non_null(strstr(lade_json_text(job, "error", ""), "submit it again"));
    assert_int_equal(lade_json_int(job, "attempt", -1), 0);
    assert_string_equal(t_status(t, without), "running");
    t_call(t, "jobs", "retry", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(lade_json_text(t_job(t, id), "error_type", ""), "auth_required");
    s_submit(t, TOKEN); // given again it is another one's
    assert_string_equal(s_told_token(t, "w"), TOKEN);
}

static void
test_a_broken_file_is_set_aside(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_submit(t, TOKEN);
    char *path = s_file(t), aside[300], leftover[300];
    snprintf(aside, sizeof aside, "%s.bad", path);
    snprintf(leftover, sizeof leftover, "%s.tmp-123", path);
    static const char *const broken[] = {"",
                                         "lade secrets 1\n",
                                         "lade secrets 1\n\x92\xc4",
                                         "junk",
                                         "lade secrets 1\n\x92\x01\x02",
                                         "lade secrets 1\n\x90\x90"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        lade_path_write(path, broken[i], strlen(broken[i]), 0644, NULL);
        lade_path_write(leftover, TOKEN, strlen(TOKEN), 0600, NULL);
        t_restart(t);
        assert_int_equal(access(aside, F_OK), 0);
        assert_int_not_equal(access(leftover, F_OK), 0);
        unlink(aside);
    }
    t_hello(t, "w", "k", 5);
    assert_string_equal(lade_json_text(t_job(t, id), "error_type", ""), "auth_required");
    free(path);
}

static void
test_others_cannot_read_the_file_after_an_operator_opened_it(void **state)
{
    t_broker_t *t = *state;
    struct stat st;
    s_submit(t, TOKEN);
    char *path = s_file(t);
    assert_int_equal(chmod(path, 0644), 0);
    t_restart(t);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    free(path);
}

static void
test_whatever_is_named_token_comes_back_as_it_was(void **state)
{
    t_broker_t *t = *state;
    json_t *spec = json_pack("{s:i, s:b, s:n, s:s, s:[s,i], s:{s:s, s:s}, s:s}", "max_tokens", 7,
                             "use_TOKEN", 1, "no_token", "empty_token", "", "tokens", TOKEN, 5,
                             "token_map", "inner_token", OTHER, "plain", "x", "path", "/m");
    int64_t id = t_submit(t, json_pack("{s:s, s:O}", "kind", "k", "spec", spec));
    const json_t *shown = json_object_get(t_job(t, id), "spec");
    assert_string_equal(lade_json_text(shown, "max_tokens", ""), "***");
    assert_string_equal(lade_json_text(shown, "token_map", ""), "***");
    assert_string_equal(lade_json_text(shown, "empty_token", "x"), "");
    assert_true(json_is_null(json_object_get(shown, "no_token")));
    t_hello(t, "w", "k", 1);
    assert_true(json_equal(json_object_get(t_told(t, "w", LADE_W_JOB), "spec"), spec));
    s_expect_hidden(t, TOKEN);
    s_expect_hidden(t, OTHER);
    json_decref(spec);
}

// A reference that a client makes up is a value like any other, and names nobody's token.
static void
test_a_made_up_reference_is_no_reference(void **state)
{
    t_broker_t *t = *state;
    s_submit(t, TOKEN);
    // {"id": 99, "op": "submit", "args": {"kind": "k2", "spec": {"access_token": ext, "note":
    // ext}}}
    static const char head[] = "\x83\xa2id\x63\xa2op\xa6submit\xa4"
                               "args\x82\xa4kind\xa2k2\xa4spec\x82\xac"
                               "access_token",
                      ext[] = "\xd8\x4c"
                              "0123456789abcdef",
                      note[] = "\xa4note";
    char body[200];
    size_t len = 0;
    const struct {
        const char *text;
        size_t len;
    } parts[] = {{head, sizeof head - 1}, {ext, 18}, {note, 5}, {ext, 18}};
    for (size_t i = 0; i < 4; i++) {
        memcpy(body + len, parts[i].text, parts[i].len);
        len += parts[i].len;
    }
    lade_router_feed_client(t->router, "client", "jobs", 4, body, len);
    t_turn(t);
    assert_non_null(t_answer(t, 99));
    t_hello(t, "w", "k2", 1);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 1);
    for (size_t i = 0; i < t->count; i++)
        assert_false(strcmp(t->sent[i].to, "w") == 0 && s_is_in(t->sent[i].body, TOKEN));
}

static void
test_what_services_show_of_a_spec_hides_tokens(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "install", "heuristic_import",
           json_pack("{s:s, s:s, s:{s:s, s:s}}", "source", "o/r", "access_token", TOKEN, "config",
                     "name", "n", "api_token", OTHER));
    t_call(t, "install", "import_model",
           json_pack("{s:{s:s, s:s, s:s}, s:s}", "source", "type", "url", "url", "http://h/x",
                     "token", OTHER, "access_token", TOKEN));
    t_call(t, "install", "list_jobs", NULL);
    t_call(t, "download", "create_download_job",
           json_pack("{s:s, s:s, s:s}", "source", "http://h/f", "destination", "/f", "access_token",
                     TOKEN));
    t_call(t, "download", "submit_download_job",
           json_pack("{s:{s:s, s:s, s:s}}", "job", "source", "http://h/g", "destination", "/g",
                     "access_token", TOKEN));
    t_call(t, "download", "list_jobs", NULL);
    t_submit(t, json_pack("{s:s, s:{s:s, s:{s:s}}}", "kind", "load", "spec", "key", "k", "context",
                          "session_token", OTHER));
    t_hello(t, "l", "load", 1);
    t_hello(t, "i", "install", 2);
    t_hello(t, "d", "download", 2);
    assert_string_equal(s_told_token(t, "d"), TOKEN);
    t_call(t, "events", "since", json_pack("{s:i}", "seq", 0));
    assert_true(t_events(t, "model_load_started/", NULL) == 1);
    s_expect_hidden(t, TOKEN);
    s_expect_hidden(t, OTHER);
}

static void
test_a_password_in_a_source_is_refused(void **state)
{
    t_broker_t *t = *state;
    static const char *const wrong[] = {"https://ann:s3cret@h/f", "HTTP://ann:s3cret@h",
                                        "http://:s3cret@h/?x", "http://a:b@c:s3cret@h/f"};
    static const char *const right[] = {"https://ann@h/f", "http://ann:@h/f", "http://h:80/a:b@c",
                                        "http://h?a:b@c"};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(t_refused(t, "download", "create_download_job",
                                      json_pack("{s:s, s:s}", "source", wrong[i], "destdir", "/d")),
                            "ValueError");
        assert_string_equal(t_refused(t, "download", "create_download_job",
                                      json_pack("{s:[s,s], s:s}", "source", "http://h/f", wrong[i],
                                                "destdir", "/d")),
                            "ValueError");
        assert_string_equal(
            t_refused(t, "install", "heuristic_import", json_pack("{s:s}", "source", wrong[i])),
            "ValueError");
        t_call(t, "download", "create_download_job",
               json_pack("{s:s, s:s}", "source", right[i], "destdir", "/d"));
    }
    s_expect_hidden(t, "s3cret");
}

// As an earlier version would have stored it: the token in the spec and in the state.
static void
test_tokens_of_an_earlier_keyspace_are_taken_out(void **state)
{
    t_broker_t *t = *state;
    lade_router_close(&t->router);
    char *folder = lade_path_join(t->folder, "keyspace");
    lade_store_t *store;
    assert_int_equal(lade_store_open(folder, &store, NULL), LADE_OK);
    static const char *const statuses[] = {"enqueued", "error"};
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t key = htobe64(i + 1);
        lade_buf_t row = LADE_BUF(1 << 16);
        // A stored job begins with a map of 16-bit size; jansson's object keeps the order of keys.
        json_t *job = json_pack("{s:s, s:s, s:I, s:i, s:{s:s}, s:{s:s}}", "kind", "k", "status",
                                statuses[i], "id", (json_int_t)i + 1, "priority", 10, "spec",
                                "access_token", TOKEN, "state", "token", OTHER);
        assert_int_equal(lade_wire_from_json(job, &row, NULL), LADE_OK);
        json_decref(job);
        lade_buf_t whole = LADE_BUF(1 << 16);
        lade_buf_add(&whole, "\xde\0\6", 3, NULL);
        lade_buf_add(&whole, row.data + 1, row.len - 1, NULL);
        assert_int_equal(lade_store_put(store, LADE_DB_JOBS, &key, sizeof key, whole.data,
                                        whole.len, false, NULL),
                         LADE_OK);
        lade_buf_free(&row);
        lade_buf_free(&whole);
    }
    assert_int_equal(lade_store_del(store, LADE_DB_META, "tokens_out", 10, NULL), LADE_OK);
    assert_int_equal(lade_store_commit(store, NULL), LADE_OK);
    lade_store_close(&store);
    free(folder);
    for (int i = 0; i < 2; i++) { // and once more, with nothing to do
        t_open(t);
        t_turn(t);
        assert_int_equal(s_times_kept(t, TOKEN), 1);
        assert_int_equal(s_times_kept(t, OTHER), 1);
        t_hello(t, "w", "k", 5);
        assert_string_equal(s_told_token(t, "w"), TOKEN);
        t_call(t, "jobs", "list", NULL);
        for (size_t j = 0; j < t->count; j++)
            if (t->sent[j].kind != LADE_SENT_WORKER)
                assert_false(s_is_in(t->sent[j].body, TOKEN));
        if (i == 0)
            lade_router_close(&t->router);
        t_forget(t);
    }
    t_hello(t, "w", "k", 5);
    t_call(t, "jobs", "retry", json_pack("{s:i}", "id", 2));
    assert_string_equal(s_told_token(t, "w"), TOKEN);
    assert_string_equal(
        lade_json_text(json_object_get(t_told(t, "w", LADE_W_JOB), "state"), "token", ""), OTHER);
}

static void
test_a_token_that_a_server_repeats_is_hidden(void **state)
{
    t_broker_t *t = *state;
    int64_t first = s_submit(t, TOKEN), second = s_submit(t, TOKEN);
    t_hello(t, "w", "k", 2);
    t_report(t, "w", LADE_W_FAIL, first, 1,
             json_pack("{s:s, s:s, s:{s:s}}", "code", "auth_denied", "message",
                       "403: no token " TOKEN " here", "result", "words", TOKEN));
    t_report(
        t, "w", LADE_W_DONE, second, 1,
        json_pack("{s:{s:s, s:[s], s:i}}", "result", "etag", "x" TOKEN, "list", TOKEN, "n", 7));
    const json_t *job = t_job(t, first);
    assert_non_null(strstr(lade_json_text(job, "error", ""), "403: no token ****"));
    const json_t *result = json_object_get(t_job(t, second), "result");
    assert_int_equal(lade_json_int(result, "n", 0), 7);
    assert_int_equal(strlen(lade_json_text(result, "etag", "")), strlen("x" TOKEN));
    t_call(t, "events", "since", json_pack("{s:i}", "seq", 0));
    s_expect_hidden(t, TOKEN);
}

static void
test_ceilings(void **state)
{
    t_broker_t *t = *state;
    char *large = malloc(LADE_SECRETS_MAX_BYTES + 1);
    memset(large, 'x', LADE_SECRETS_MAX_BYTES);
    large[LADE_SECRETS_MAX_BYTES] = '\0'; // with its head it is larger
    assert_string_equal(t_refused(t, "jobs", "submit", s_spec(large)), "too_large");
    free(large);
    json_t *many = json_object();
    char name[40], text[40];
    for (int i = 0; i <= LADE_SECRETS_MAX; i++) {
        snprintf(name, sizeof name, "token%d", i);
        snprintf(text, sizeof text, "secret-%d", i);
        json_object_set_new(many, name, json_string(text));
    }
    json_t *fewer = json_copy(many);
    json_object_del(fewer, name);
    assert_string_equal(
        t_refused(t, "jobs", "submit", json_pack("{s:s, s:o}", "kind", "k", "spec", many)),
        "queue_full");
    int64_t id = t_submit(t, json_pack("{s:s, s:o}", "kind", "k", "spec", fewer));
    assert_string_equal(t_refused(t, "jobs", "submit", s_spec(TOKEN)), "queue_full");
    s_submit(t, "secret-7"); // one that is there
    t_call(t, "jobs", "cancel", json_pack("{s:I}", "id", (json_int_t)id));
    s_purge(t, id);
    s_submit(t, TOKEN); // what is not needed makes room
    assert_int_equal(s_times_kept(t, TOKEN), 1);
    s_settle(t);
    assert_int_equal(s_times_kept(t, "secret-"), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T_TEST(test_only_the_worker_sees_a_token),
        T_TEST(test_the_file_is_there_before_the_answer_and_has_each_once),
        T_TEST(test_a_token_survives_restarts),
        T_TEST(test_children_and_saved_state_carry_references),
        T_TEST(test_what_no_job_names_is_forgotten),
        T_TEST(test_pruning_forgets_too),
        T_TEST(test_a_job_that_is_not_made_leaves_nothing),
        T_TEST(test_a_failed_commit_keeps_no_token),
        T_TEST(test_a_token_that_cannot_be_written_is_not_taken),
        T_TEST(test_a_lost_token_is_asked_for),
        T_TEST(test_a_broken_file_is_set_aside),
        T_TEST(test_others_cannot_read_the_file_after_an_operator_opened_it),
        T_TEST(test_whatever_is_named_token_comes_back_as_it_was),
        T_TEST(test_a_made_up_reference_is_no_reference),
        T_TEST(test_what_services_show_of_a_spec_hides_tokens),
        T_TEST(test_a_password_in_a_source_is_refused),
        T_TEST(test_tokens_of_an_earlier_keyspace_are_taken_out),
        T_TEST(test_a_token_that_a_server_repeats_is_hidden),
        T_TEST(test_ceilings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
