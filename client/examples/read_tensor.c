// Locks a model and reads a tensor of it: read_tensor KEY [SUBMODEL [TENSOR]].
//
//     cc read_tensor.c -o read_tensor $(pkg-config --cflags --libs lade)
#include <lade.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

// Everything as 32-bit floats, whatever the file has.
static int
s_read(lade_t *lade, const char *key, const char *submodel, const char *name)
{
    lade_error_t error = {0};
    LADE_LOCK(model) = NULL; // unlocked at the end of this function
    lade_load_options_t options = {.submodel = submodel, .dtype = "fp32", .timeout_s = 600};
    if (lade_load_model_by_key(lade, key, &options, &model, &error))
        return fprintf(stderr, "%s\n", error.message), 1;
    lade_model_tensor_t tensor;
    if (name ? !lade_model_find(model, name, &tensor) : !lade_model_tensor(model, 0, &tensor))
        return fprintf(stderr, "the model has no such tensor\n"), 1;
    const float *values = tensor.data; // shared with every process that has the model; not copied
    size_t count = tensor.size / sizeof *values;
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    printf("%s %s [", tensor.name, tensor.dtype);
    for (size_t i = 0; i < tensor.rank; i++)
        printf("%s%" PRIu64, i ? ", " : "", tensor.shape[i]);
    printf("] mean %.6g\n", count ? sum / (double)count : 0);
    return 0;
}

int
main(int argc, char **argv)
{
    lade_t *lade = NULL;
    lade_error_t error = {0};
    if (argc < 2)
        return fprintf(stderr, "usage: read_tensor KEY [SUBMODEL [TENSOR]]\n"), 2;
    if (lade_open(NULL, getenv("LADE_DATA"), NULL, &lade, &error))
        return fprintf(stderr, "%s\n", error.message), 1;
    const char *submodel = argc > 2 && *argv[2] ? argv[2] : NULL;
    int status = s_read(lade, argv[1], submodel, argc > 3 ? argv[3] : NULL);
    lade_close(&lade);
    return status;
}
