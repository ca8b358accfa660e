"""`make install`, and a C program of somebody else's against what it installed."""
import os
import re
import struct
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


def install(world):
    """`make install` into the world; answers the prefix and an environment for what uses it."""
    if SANITIZED:
        raise Skip("a library with a sanitizer in it is not for other programs")
    prefix = os.path.join(world.folder, "usr")
    subprocess.run(["make", "-s", "-o", "all", "-C", ROOT, f"O={os.path.relpath(BUILD, ROOT)}", f"PREFIX={prefix}", "install"], check=True)
    return prefix, {**world.environment(), "PKG_CONFIG_PATH": os.path.join(prefix, "lib", "pkgconfig"),
                    "LD_LIBRARY_PATH": os.path.join(prefix, "lib")}


def build(world, env, name, text):
    source, program = os.path.join(world.folder, f"{name}.c"), os.path.join(world.folder, name)
    with open(source, "w", encoding="utf-8") as file:
        file.write(text)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "lade"], env=env, stdout=subprocess.PIPE, text=True,
                           check=True).stdout.split()
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source, *flags], env=env, check=True)
    return program


def test_program_against_the_installed_library():
    with World() as world:
        prefix, env = install(world)
        program = build(world, env, "x", PROGRAM)
        path = weights.embedding(os.path.join(world.folder, "ti.safetensors"), 1)
        world.spawn("up", [os.path.join(prefix, "bin", "lade"), "up", "--data", world.data])
        world.wait_ready({"download", "install", "load"})
        done = subprocess.run([program, world.data, path], env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert "emb_params F32" in done.stdout and "of mine" in done.stdout, done.stdout


def test_a_model_is_read_by_the_example_and_from_python():
    """client/examples/read_tensor.c and lade.py as they are installed, by programs that know nothing of this tree."""
    with World() as world:
        prefix, env = install(world)
        env = {**env, "LADE_DATA": world.data}
        with open(os.path.join(prefix, "share", "lade", "examples", "read_tensor.c"), encoding="utf-8") as file:
            program = build(world, env, "read_tensor", file.read())
        path = os.path.join(world.folder, "ti.safetensors")
        weights.write_safetensors(path, {"emb_params": ("F16", (2, 768))})
        with open(path, "r+b") as file:
            file.seek(-2 * 768 * 2, os.SEEK_END)
            file.write(struct.pack("<1536e", *[0.25] * 768, *[1.75] * 768))
        world.spawn("up", [os.path.join(prefix, "bin", "lade"), "up", "--data", world.data])
        world.wait_ready({"download", "install", "load"})
        record = world.install(path)["config_out"]
        run = lambda *argv: subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,  # noqa: E731
                                           text=True, timeout=60, check=False)
        done = run(program, record["key"])
        assert done.stdout == "emb_params F32 [2, 768] mean 1\n", done
        done = run(program, record["key"], "", "other")
        assert done.returncode == 1 and "no such tensor" in done.stderr, done
        done = run(program, record["key"], "unet")
        assert done.returncode == 1 and "no submodel 'unet'" in done.stderr, done
        text = ("import sys; sys.path.insert(0, sys.argv[1]); import lade\n"
                "with lade.Client(data=sys.argv[2]) as client, client.load(sys.argv[3], dtype='fp32') as model:\n"
                "    print(model.precision, model['emb_params'].shape, model['emb_params'].raw().cast('f')[768])")
        python = os.path.join(prefix, "lib", "python3", "dist-packages")
        done = run("/usr/bin/python3", "-c", text, python, world.data, record["key"])
        assert done.stdout == "float32 (2, 768) 1.75\n", done


def test_the_examples_of_the_readme():
    """Every whole program in client/README.md is built as it stands there; both are run."""
    with World() as world:
        prefix, env = install(world)
        with open(os.path.join(ROOT, "client", "README.md"), encoding="utf-8") as file:
            programs = [text for text in re.findall(r"```c\n(.*?)```", file.read(), re.DOTALL) if "main(" in text]
        first, second = [build(world, {**env, "LADE_DATA": world.data}, f"example{i}", text) for i, text in enumerate(programs)]
        model = weights.embedding(world.hub.file("ti.safetensors"), 1)
        world.spawn("up", [os.path.join(prefix, "bin", "lade"), "up", "--data", world.data])
        world.wait_ready({"download", "install", "load"})
        run = lambda *argv: subprocess.run(argv, env={**env, "LADE_DATA": world.data}, stdout=subprocess.PIPE,  # noqa: E731
                                           stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        done = run(first, model)
        assert done.returncode == 0 and "the values of emb_params add up to" in done.stdout, done
        url, folder = f"{world.hub.url}/files/ti.safetensors", os.path.join(world.folder, "out")
        done = run(second, folder, url, f"{world.hub.url}/files/missing")
        assert done.returncode == 1 and "404" in done.stderr, done
        lines = done.stdout.splitlines()
        told = [line.split(": ", 1)[1].split(",")[0] for line in lines if line.startswith(f"{url}: ")]
        assert told[0] == "enqueued" and told[-1] == "completed" and set(told[1:-1]) == {"running"}, told
        assert os.path.join(folder, "ti.safetensors") in lines, lines
        assert "started: " in done.stderr and "completed: " in done.stderr, done.stderr  # it is not quiet
