// Tests of reading tensors by themselves: many threads make of a file what one would.
#include "workers/gpu/turns.h"

#include "workers/gpu/test_models.h"

enum { S_TENSORS = 40, S_MB = 1 << 20 };

typedef struct {
    int fd;
    uint8_t *bytes; // of the file
    size_t size;
    lade_turn_t turns[S_TENSORS];
    size_t out_size;
} s_file_t;

// A file of S_TENSORS: F32 of some 700 KB each but for one of 9 MB, every third with channels last.
static void
s_make(s_file_t *self, const char *folder)
{
    *self = (s_file_t){0};
    for (uint64_t i = 0; i < S_TENSORS; i++) {
        uint64_t n = i == 7 ? 2300 : 170 + i;
        lade_tensor_t tensor = {.name = "t", .dtype = LADE_DTYPE_F32, .rank = 4};
        memcpy(tensor.shape, (uint64_t[]){n, 16, 8, 8}, 4 * sizeof *tensor.shape);
        assert_true(lade_dtype_bytes(tensor.dtype, tensor.shape, 4, &tensor.size));
        lade_turn_t *turn = &self->turns[i];
        assert_int_equal(lade_transform_plan(&tensor,
                                             i % 4 == 1 ? LADE_DTYPE_COUNT : LADE_DTYPE_F16,
                                             i % 3 == 2, &turn->how, NULL),
                         LADE_OK);
        turn->from = self->size;
        turn->to = self->out_size;
        turn->name = "file";
        self->size += tensor.size;
        self->out_size += turn->how.out_bytes;
    }
    self->bytes = malloc(self->size);
    for (size_t i = 0; i < self->size / sizeof(float); i++) {
        float value = (float)(i % 30011) / 16.0f - 900;
        memcpy(self->bytes + i * sizeof value, &value, sizeof value);
    }
    char *path = lade_path_join(folder, "file");
    assert_int_equal(lade_path_write(path, self->bytes, self->size, 0644, NULL), LADE_OK);
    self->fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(self->fd >= 0);
    for (size_t i = 0; i < S_TENSORS; i++)
        self->turns[i].fd = self->fd;
    free(path);
}

static void
s_free(s_file_t *self)
{
    close(self->fd);
    free(self->bytes);
}

static lade_code_t
s_run(const s_file_t *self, uint8_t *data, size_t threads, bool (*step)(void *arg, uint64_t bytes),
      void *arg, lade_error_t *error)
{
    lade_reader_part_t parts[S_TENSORS];
    for (size_t i = 0; i < S_TENSORS; i++)
        parts[i] = lade_turn_part(&self->turns[i], data, SIZE_MAX / 2);
    return lade_reader_read(parts, S_TENSORS, threads, step, arg, error);
}

static bool
s_count(void *arg, uint64_t bytes)
{
    uint64_t *last = arg;
    assert_true(bytes >= *last);
    *last = bytes;
    return true;
}

static void
test_threads_make_of_it_what_one_turn_makes(void **state)
{
    s_file_t file;
    s_make(&file, *state);
    uint8_t *wanted = malloc(file.out_size), *data = malloc(file.out_size);
    for (size_t i = 0; i < S_TENSORS; i++)
        assert_int_equal(lade_transform_run(&file.turns[i].how, file.bytes + file.turns[i].from,
                                            file.turns[i].how.in_bytes, wanted + file.turns[i].to,
                                            NULL),
                         LADE_OK);
    for (size_t threads = 1; threads <= 4; threads += 3) {
        uint64_t last = 0;
        memset(data, 0xaa, file.out_size);
        assert_int_equal(s_run(&file, data, threads, s_count, &last, NULL), LADE_OK);
        assert_memory_equal(data, wanted, file.out_size);
        assert_int_equal(last, file.size);
    }
    free(wanted);
    free(data);
    s_free(&file);
}

static bool
s_stop(void *arg, uint64_t bytes)
{
    (void)arg;
    return bytes < 6 * S_MB;
}

static void
test_it_can_be_stopped_and_files_can_be_cut(void **state)
{
    s_file_t file;
    s_make(&file, *state);
    uint8_t *data = malloc(file.out_size);
    lade_error_t error = {0};
    assert_int_equal(s_run(&file, data, 3, s_stop, NULL, &error), LADE_CANCELLED);
    char *path = lade_path_join(*state, "file");
    assert_int_equal(truncate(path, (off_t)file.size - 5 * S_MB), 0);
    assert_int_equal(s_run(&file, data, 3, NULL, NULL, &error), LADE_CORRUPT);
    assert_non_null(strstr(error.message, "file ends at byte"));
    free(path);
    free(data);
    s_free(&file);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_make_of_it_what_one_turn_makes),
        cmocka_unit_test(test_it_can_be_stopped_and_files_can_be_cut),
    };
    return cmocka_run_group_tests(tests, test_folder_new, test_folder_remove);
}
