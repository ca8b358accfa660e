"""What who writes a pipeline does, in C and in Python, and what the documents tell them to paste."""
import os
import re
import struct
import subprocess
import sys

from lib import samples, weights
from lib.skip import Skip
from lib.world import BUILD, ROOT, World, sanitizer_environment

LIMIT_S = 180
PYTHON = os.path.join(ROOT, "client", "python")


def environment(world):
    return {**world.environment(), "LADE_DATA": world.data, "LADE_LIBRARY": os.path.join(BUILD, "liblade.so.0"),
            **sanitizer_environment()}


def run(world, argv, status=0, **more):
    done = subprocess.run(argv, env={**environment(world), **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=90, check=False)
    assert done.returncode == status, (argv, done.returncode, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def vae_with(folder, tensors):
    """A pipeline whose vae has these tensors, {name: (dtype, shape, bytes)}."""
    samples.pipeline(folder)
    path = os.path.join(folder, "vae", "diffusion_pytorch_model.safetensors")
    weights.write_safetensors(path, {name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()})
    with open(path, "r+b") as file:
        file.seek(-sum(len(data) for _, _, data in tensors.values()), os.SEEK_END)
        file.write(b"".join(data for _, _, data in tensors.values()))
    return folder


def test_views_in_python_keep_what_they_show():
    """numpy's, torch's, DLPack's and plain views, longer than their model, their client and their thread; without numpy too."""
    weights.SIZES.setdefault("F8_E4M3", 1)
    with World() as world:
        folder = vae_with(os.path.join(world.folder, "p"), {
            "a.weight": ("F32", (4, 6), struct.pack("<24f", *(0.5 + i for i in range(24)))),
            "f8.weight": ("F8_E4M3", (8,), bytes([0x30, 0x38, 0x40, 0x48, 0xb0, 0xb8, 0xc0, 0xc8]))})
        world.up()
        record = world.call("store", "add_model", config={"name": "p", "type": "main", "base": "sd-1", "format": "diffusers",
                                                          "path": folder})
        program = [sys.executable, os.path.join(ROOT, "tests/e2e/lifetimes.py"), PYTHON, world.data, record["key"], "vae"]
        run(world, program, ABSENT="numpy torch")
        try:
            import numpy  # noqa: F401
        except ImportError:
            raise Skip("python3-numpy is not installed") from None
        run(world, program)


def compiled(world, name, text=None, *flags):
    """A program against the library as it is built here."""
    program, source = os.path.join(world.folder, name), os.path.join(ROOT, "tests/e2e", f"{name}.c")
    if text:
        source = program + ".c"
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
    subprocess.run(["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", *flags, "-I", ROOT, "-I", os.path.join(ROOT, "client"),
                    "-o", program, source, "-L", BUILD, "-l:liblade.so.0", "-pthread", f"-Wl,-rpath,{BUILD}"], check=True)
    return program


def test_models_in_c():
    """Each way to load, progress, scopes; many threads ask one model at once, and another one unlocks it."""
    with World() as world:
        folder = samples.pipeline(os.path.join(world.folder, "p"))
        world.up()
        program = compiled(world, "model_driver")
        record = world.install(folder)["config_out"]
        run(world, [program, world.data, record["key"], "unet", os.path.join(world.record_path(record), "unet")])


def block(language, words):
    """The first example of the README in that language that has these words."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return next(text for text in re.findall(rf"```{language}\n(.*?)```", file.read(), re.DOTALL) if words in text)


def test_what_the_readme_gives_to_paste():
    """Both examples of "For a pipeline", as they stand there."""
    with World() as world:
        folder = samples.pipeline(os.path.join(world.folder, "sdxl-turbo"), base="sdxl")
        world.up()
        world.install(folder, config={"name": "sdxl-turbo"})
        program = compiled(world, "pasted", "#include <lade.h>\n#include <stdio.h>\nint main(void) {\n"
                           "lade_t *lade; lade_error_t error;\n"
                           "if (lade_open(NULL, NULL, NULL, &lade, &error)) return 3;\n" + block("c", "LADE_LOCK(unet)") +
                           'printf("%s %zu\\n", weight.dtype, weight.size); lade_close(&lade); return 0; }\n')
        assert run(world, [program]) == f"F16 {64 * 4 * 9 * 2}\n"
        text = block("python", "import lade")
        have = subprocess.run([sys.executable, "-c", "import torch"], stderr=subprocess.DEVNULL, check=False).returncode == 0
        if not have:  # what the example does with torch is done with numpy
            text = text.replace("state_dict()", "state_dict(numpy=True)")
        unet = ("class unet:\n    def load_state_dict(state, assign):\n"
                "        print(sorted(state)[0], state['conv_in.weight'].dtype, assign)\n")
        said = run(world, [sys.executable, "-c", unet + text], PYTHONPATH=PYTHON)
        assert said == f"conv_in.bias {'torch.' * have}float16 True\n", said
