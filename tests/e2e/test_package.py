"""`make install`, and a C program of somebody else's against what it installed."""
import os
import subprocess

from lib import weights
from lib.skip import Skip
from lib.world import BUILD, ROOT, SANITIZED, World

LIMIT_S = 120

PROGRAM = r"""
#include <lade.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    lade_t *lade;
    lade_error_t error;
    char *record = NULL;
    lade_model_t *model;
    lade_model_tensor_t tensor;
    if (argc < 3 || lade_open(NULL, argv[1], NULL, &lade, &error) ||
        lade_install(lade, argv[2], "{\"description\": \"of mine\"}", 30, &record, &error) ||
        lade_load_by_attr(lade, "ti", "sd-1", "embedding", NULL, 30, &model, &error)) {
        fprintf(stderr, "%s: %s\n", lade_code_name(error.code), error.message);
        return 1;
    }
    puts(record);
    for (size_t i = 0; lade_model_tensor(model, i, &tensor); i++)
        printf("%s %s %zu\n", tensor.name, tensor.dtype, tensor.size);
    lade_unlock(&model);
    lade_close(&lade);
    free(record);
    return 0;
}
"""


def test_program_against_the_installed_library():
    if SANITIZED:
        raise Skip("a library with a sanitizer in it is not for other programs")
    with World() as world:
        prefix = os.path.join(world.folder, "usr")
        subprocess.run(["make", "-s", "-o", "all", "-C", ROOT, f"O={os.path.relpath(BUILD, ROOT)}", f"PREFIX={prefix}", "install"], check=True)
        source, program = os.path.join(world.folder, "x.c"), os.path.join(world.folder, "x")
        with open(source, "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        env = {**world.environment(), "PKG_CONFIG_PATH": os.path.join(prefix, "lib", "pkgconfig"),
               "LD_LIBRARY_PATH": os.path.join(prefix, "lib")}
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "lade"], env=env, stdout=subprocess.PIPE, text=True,
                               check=True).stdout.split()
        subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source, *flags], env=env, check=True)
        path = weights.embedding(os.path.join(world.folder, "ti.safetensors"), 1)
        world.spawn("up", [os.path.join(prefix, "bin", "lade"), "up", "--data", world.data])
        world.wait_ready({"download", "install", "load"})
        done = subprocess.run([program, world.data, path], env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert "emb_params F32" in done.stdout and "of mine" in done.stdout, done.stdout
