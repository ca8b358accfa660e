// Every function of liblade for model records, once, against the broker in the data folder argv[1].
#include "client/lade.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lade_t *s_client;
static lade_error_t s_error;

static void
s_check(int fine, const char *words)
{
    if (fine)
        return;
    fprintf(stderr, "%s: %s: %s\n", words, lade_code_name(s_error.code), s_error.message);
    exit(1);
}
#define CHECK(condition) s_check(condition, #condition)

// Whether a text that is freed has the words.
static int
s_has(char *text, const char *words)
{
    int has = text && strstr(text, words);
    if (!has)
        fprintf(stderr, "%s lacks %s\n", text ? text : "nothing", words);
    free(text);
    return has;
}

static const char s_record[] =
    "{\"name\": \"one\", \"type\": \"vae\", \"bases\": [\"sd-1\", \"sd-2\"], "
    "\"format\": \"diffusers\", \"path\": \"/m/one\", \"hash\": \"h:1\", "
    "\"tags\": [\"a\", \"b\"]}";

int
main(int argc, char **argv)
{
    char *text = NULL;
    bool exists = false;
    lade_error_t *error = &s_error;
    CHECK(argc == 2 && !lade_open(NULL, argv[1], NULL, &s_client, error));
    CHECK(!lade_models_version(s_client, &text, error) && s_has(text, "3.2"));
    CHECK(!lade_models_add(s_client, "k1", s_record, &text, error) && s_has(text, "\"version\":1"));
    CHECK(lade_models_add(s_client, "k1", s_record, NULL, error) == LADE_DUPLICATE_MODEL);
    CHECK(lade_models_add(s_client, "k9", "[]", NULL, error) == LADE_INVALID_MODEL_CONFIG);
    CHECK(lade_models_add(s_client, "k9", "{\"name\": \"x\"}", NULL, error) ==
          LADE_INVALID_MODEL_CONFIG);
    CHECK(
        !lade_models_add(s_client, NULL,
                         "{\"name\": \"two\", \"type\": \"main\", \"base\": \"sd-1\", \"format\": "
                         "\"checkpoint\", \"path\": \"/m/two\"}",
                         NULL, error));
    CHECK(!lade_models_get(s_client, "k1", &text, error) && s_has(text, "\"base\":\"sd-1\""));
    CHECK(lade_models_get(s_client, "k2", &text, error) == LADE_UNKNOWN_MODEL && !text);
    CHECK(!lade_models_exists(s_client, "k1", &exists, error) && exists);
    CHECK(!lade_models_exists(s_client, "k2", &exists, error) && !exists);
    CHECK(!lade_models_update(s_client, "k1", "{\"name\": \"uno\"}", 1, &text, error) &&
          s_has(text, "uno"));
    CHECK(lade_models_update(s_client, "k1", "{\"name\": \"eins\"}", 1, &text, error) ==
              LADE_STALE_RECORD &&
          !text);
    CHECK(!lade_models_update(s_client, "k1", "{\"description\": \"d\"}", 0, NULL, error));
    CHECK(lade_models_update(s_client, "k2", "{}", 0, NULL, error) == LADE_UNKNOWN_MODEL);
    CHECK(!lade_models_by_path(s_client, "/m/one", &text, error) && s_has(text, "k1"));
    CHECK(!lade_models_by_path(s_client, "/m", &text, error) && !text);
    CHECK(!lade_models_info_by_name(s_client, "uno", "sd-2", "vae", &text, error) &&
          s_has(text, "k1"));
    CHECK(lade_models_info_by_name(s_client, "uno", "sdxl", NULL, &text, error) ==
          LADE_UNKNOWN_MODEL);
    const char *const tags[] = {"a", "b", NULL}, *const none[] = {"a", "c", NULL};
    CHECK(!lade_models_by_tag(s_client, tags, &text, error) && s_has(text, "k1"));
    CHECK(!lade_models_by_tag(s_client, none, &text, error) && s_has(text, "[]"));
    CHECK(!lade_models_by_hash(s_client, "h:1", &text, error) && s_has(text, "k1"));
    lade_models_query_t query = {
        .base = "sd-2", .tags = tags, .order_by = "name", .descending = true};
    CHECK(!lade_models_search(s_client, &query, &text, error) && s_has(text, "uno"));
    CHECK(!lade_models_search(s_client, NULL, &text, error) && s_has(text, "two"));
    CHECK(!lade_models_all(s_client, 1, 1, &text, error) && s_has(text, "uno"));
    CHECK(!lade_models_list(s_client, NULL, 1, 1, &text, error) && s_has(text, "\"total\":2"));
    CHECK(!lade_models_list(s_client, &query, 0, 0, &text, error) && s_has(text, "\"pages\":1"));
    CHECK(!lade_models_del(s_client, "k1", error));
    CHECK(lade_models_del(s_client, "k1", error) == LADE_UNKNOWN_MODEL);
    lade_close(&s_client);
    puts("all of it");
    return 0;
}
