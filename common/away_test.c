#include "common/away.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char s_root[64];

static const char *
s_in_root(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", s_root, name);
    return path;
}

static void
s_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int
s_begin(void **state)
{
    (void)state;
    strcpy(s_root, "/tmp/lade-away-XXXXXX");
    return mkdtemp(s_root) ? 0 : -1;
}

static int
s_end(void **state)
{
    (void)state;
    return lade_path_remove(s_root, NULL) ? -1 : 0;
}

static void
test_file_systems_that_are_named_and_not_mounted(void **state)
{
    (void)state;
    char words[512] = "", text[512], table[256];
    snprintf(text, sizeof text,
             "# comment\nproc /proc proc defaults 0 0\n/dev/sda1 / ext4 defaults 0 1\n"
             "none none swap sw 0 0\nserver:/models %s/nas nfs noauto 0 0\n",
             s_root);
    snprintf(table, sizeof table, "%s", s_in_root("fstab"));
    s_write(table, text);
    assert_true(lade_away_unmounted(table, s_in_root("nas/m/a.bin"), words, sizeof words));
    assert_non_null(strstr(words, "/nas is not mounted"));
    assert_false(lade_away_unmounted(table, s_in_root("nasty/a.bin"), words, sizeof words));
    assert_false(lade_away_unmounted(table, "/proc/1/x", words, sizeof words)); // is mounted
    assert_false(lade_away_unmounted("/no/such/table", s_in_root("nas/m"), words, sizeof words));
}

static void
test_a_models_folder_that_is_empty_or_gone_is_away(void **state)
{
    (void)state;
    char words[512] = "", folder[256], file[300];
    snprintf(folder, sizeof folder, "%s", s_in_root("models"));
    snprintf(file, sizeof file, "%s/sd-1/lora/x.safetensors", folder);
    assert_true(lade_away(file, folder, words, sizeof words));
    assert_non_null(strstr(words, "is gone"));
    mkdir(folder, 0700);
    s_write(s_in_root("models/.hidden"), "");
    assert_true(lade_away(file, folder, words, sizeof words));
    assert_non_null(strstr(words, "is empty"));
    s_write(s_in_root("models/other.safetensors"), "x");
    assert_false(lade_away(file, folder, words, sizeof words));
}

static void
test_a_file_elsewhere_is_away_with_what_held_it(void **state)
{
    (void)state;
    char words[512] = "", path[256];
    assert_true(lade_away("/mnt/none-of-that-name/x.safetensors", NULL, words, sizeof words));
    assert_non_null(strstr(words, "is its drive mounted?"));
    assert_true(lade_away("/media/somebody/stick/x.safetensors", NULL, words, sizeof words));
    mkdir(s_in_root("kept"), 0700);
    snprintf(path, sizeof path, "%s", s_in_root("kept/deep/x.safetensors"));
    assert_true(lade_away(path, NULL, words, sizeof words)); // what is left of it is empty
    s_write(s_in_root("kept/y.safetensors"), "y");
    assert_false(lade_away(path, NULL, words, sizeof words));
    char *standing = lade_away_standing(path);
    assert_string_equal(standing, s_in_root("kept"));
    free(standing);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_file_systems_that_are_named_and_not_mounted, s_begin,
                                        s_end),
        cmocka_unit_test_setup_teardown(test_a_models_folder_that_is_empty_or_gone_is_away, s_begin,
                                        s_end),
        cmocka_unit_test_setup_teardown(test_a_file_elsewhere_is_away_with_what_held_it, s_begin,
                                        s_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
