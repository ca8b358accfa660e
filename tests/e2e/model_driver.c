// What lade.h says of loaded models: model_driver DATA KEY SUBMODEL PATH. Loads by each way, reads
// from many threads at once, and unlocks in a thread that knows nothing of the client.
#include "client/lade.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_THREADS = 8 };

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

static double
s_sum(const lade_model_tensor_t *tensor)
{
    double sum = 0;
    for (size_t i = 0; i < tensor->size; i++)
        sum += ((const unsigned char *)tensor->data)[i];
    return sum;
}

// Everything the library is asked by all threads at the same time, the first time too.
static void *
s_read(void *arg)
{
    lade_model_t *model = arg;
    lade_model_tensor_t tensor, found;
    double *sum = calloc(1, sizeof *sum);
    for (size_t i = 0; sum && lade_model_tensor(model, i, &tensor); i++) {
        if (!lade_model_find(model, tensor.name, &found) || found.data != tensor.data)
            abort();
        *sum += s_sum(&tensor);
    }
    uint64_t address;
    int device;
    lade_error_t error;
    if (lade_model_address(model, tensor.name, &address, &device, &error) || device != -1 ||
        address != (uint64_t)(uintptr_t)tensor.data || !lade_model_metadata(model) ||
        lade_model_address(model, "none", &address, &device, &error) != LADE_NOT_FOUND)
        abort();
    return sum;
}

static void *
s_unlock(void *arg)
{
    lade_model_t *model = arg;
    lade_unlock(&model);
    return model; // NULL by now
}

static void
s_read_together(lade_model_t *model)
{
    pthread_t threads[S_THREADS];
    double first = -1;
    for (int i = 0; i < S_THREADS; i++)
        CHECK(!pthread_create(&threads[i], NULL, s_read, model));
    for (int i = 0; i < S_THREADS; i++) {
        void *sum;
        CHECK(!pthread_join(threads[i], &sum) && sum);
        first = first < 0 ? *(double *)sum : first;
        CHECK(first == *(double *)sum && first > 0);
        free(sum);
    }
}

static bool
s_on_progress(void *arg, int64_t bytes, int64_t total_bytes)
{
    CHECK(bytes >= 0 && (!total_bytes || bytes <= total_bytes));
    ++*(int *)arg;
    return true;
}

// Scoped: returning unlocks.
static int
s_scoped(lade_t *client, const char *key, const lade_load_options_t *options)
{
    LADE_LOCK(model) = NULL;
    CHECK(!lade_load_model_by_key(client, key, options, &model, &s_error));
    return strcmp(lade_model_location(model), "host");
}

static int
s_unloaded(lade_t *client)
{
    char *text = NULL;
    CHECK(!lade_call(client, "load", "unload", NULL, &text, &s_error));
    int count = atoi(strchr(text, ':') + 1);
    free(text);
    return count;
}

int
main(int argc, char **argv)
{
    lade_t *client = NULL;
    lade_model_t *model = NULL, *other = NULL, *third = NULL;
    int told = 0;
    CHECK(argc == 5 && !lade_open(NULL, argv[1], NULL, &client, &s_error));
    lade_load_options_t options = {.submodel = argv[3], .progress = s_on_progress, .arg = &told};
    CHECK(!s_scoped(client, argv[2], &options));
    while (!s_unloaded(client)) // the worker notices a moment later
        ;
    CHECK(!lade_load_model_by_key(client, argv[2], &options, &model, &s_error));
    CHECK(!strcmp(lade_model_path(model), argv[4]));
    CHECK(!lade_load_model_by_config(client, lade_model_config(model), &options, &other, &s_error));
    CHECK(!lade_load_model_from_path(client, argv[4], NULL, &third, &s_error));
    CHECK(!strcmp(lade_model_path(third), argv[4]) && strstr(lade_model_config(third), argv[4]));
    CHECK(lade_model_tensor_count(other) == lade_model_tensor_count(third));
    char *stats = NULL;
    CHECK(!lade_load_cache_stats(client, &stats, &s_error) && strstr(stats, "high_watermark"));
    free(stats);
    CHECK(lade_load_model_by_attr(client, "nobody", NULL, NULL, NULL, &other, &s_error) ==
          LADE_UNKNOWN_MODEL);
    CHECK(!other);
    lade_unlock(&third);
    lade_close(&client); // models stay
    s_read_together(model);
    pthread_t thread;
    void *left = model;
    CHECK(!pthread_create(&thread, NULL, s_unlock, model) && !pthread_join(thread, &left) && !left);
    return 0;
}
