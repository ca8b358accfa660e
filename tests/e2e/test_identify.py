"""Header-true models (tests/models): each is what it is said to be, by `lade probe` and through an install."""
import json
import os
import subprocess

from lib.checks import check_fields
from lib.world import ROOT, World

LIMIT_S = 240
TAKES_S = {"probe_of_every_model": 45, "install_in_place_of_every_model": 15}


def made(world, *options):
    """The models of tests/models in a folder, and what identification has to say of each."""
    folder, expected = os.path.join(world.folder, "zoo"), os.path.join(world.folder, "expected.json")
    subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/models/make_models.py"), folder, "--expected", expected,
                    *options], check=True, stdout=subprocess.DEVNULL)
    with open(expected, encoding="utf-8") as file:
        return {path if os.path.isabs(path) else os.path.join(folder, path): fields for path, fields in json.load(file).items()}


def test_probe_of_every_model():
    with World() as world:
        wrong = []
        for path, fields in made(world).items():
            given = [f"--config={name}={value}" for name, value in fields.pop("given", {}).items()]
            done = world.lade("probe", path, "--json", *given, status=None)
            answer = json.loads(done.stdout)
            if "error" in fields:
                if (answer.get("error") or {}).get("code") != fields["error"] or done.returncode != 1:
                    wrong.append((path, answer, fields))
            elif any(answer.get(name) != value for name, value in fields.items()):
                wrong.append((path, {name: answer.get(name) for name in fields}, fields))
        assert not wrong, "\n".join(map(str, wrong[:10]))


def test_install_in_place_of_every_model():
    """At full size: the files are holes, so it costs little."""
    with World() as world:
        expected = made(world)
        world.up()
        jobs = {path: world.call("install", "heuristic_import", source=path, inplace=True, on_equal="copy", config=fields.pop("given", {}))
                for path, fields in expected.items()}
        for path, fields in expected.items():
            job = world.call("install", "wait_for_job", id=jobs[path]["id"], timeout_s=60)
            if "error" in fields:
                assert (job["status"], job["error_type"]) == ("error", fields["error"]), (path, job["status"], job["error_type"])
            else:
                assert job["status"] == "completed", (path, job["error"])
                check_fields(job["config_out"], **fields)
        assert len(world.call("store", "all_models")) == sum("error" not in fields for fields in expected.values())
