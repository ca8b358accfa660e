#!/usr/bin/python3
"""kill -9 at each step of an install or a conversion: each fsync, rename, message and commit, in each program.

    LADE_POINTS=all LADE_BUILD=build-points tests/faults/test_points.py      every point (make O=build-points POINTS=1 all)
    tests/run --build build-points faults/points                             some of them; LADE_POINTS=N for N of each kind

A first run counts the points of a program, then each run kills it at one of them. Whatever dies where: after a restart
the job completes, the record is there, its files are whole under their final name, the source is as it was (or moved),
and nothing else is left in the models folder. Of a conversion: the copy is whole under its name, and the next load
takes it. A build without points passes the tests over.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from lib import checkpoints, samples, weights  # noqa: E402
from lib.checks import no_leftovers, nothing_temporary  # noqa: E402
from lib.conversions import cached, check, conversions  # noqa: E402
from lib.skip import Skip  # noqa: E402
from lib.world import LadeError, World  # noqa: E402

LIMIT_S = 900
TAKES_S = {"url": 30, "repository": 29, "moved_file": 18, "local_folder": 17}
VICTIMS = ("install", "download", "broker")
SETTINGS = {"broker.beat_ms": 50, "broker.lease_beats": 4, "broker.retry_base_ms": 20, "broker.retry_max_ms": 100}


class Run:
    """One install with one program that is told where to die (0: nowhere, it only counts)."""

    def __init__(self, world, victim, point):
        self.world, self.victim, self.point = world, victim, point
        self.on = os.path.join(world.folder, "points on")
        self.log = os.path.join(world.folder, "points")
        self.running = {}

    def launch(self, name, deadly):
        more = {"LADE_POINTS_ON": self.on, "LADE_POINTS_LOG": self.log, "LADE_POINTS_KILL": self.point} if deadly else {}
        before, self.world.env = self.world.env, {**self.world.env, **more}
        self.running[name] = self.world.launch(name)
        self.world.env = before

    def ask(self, service, op, **args):
        """Asks until a broker answers, and brings back what has died."""
        for _ in range(600):
            for name, process in self.running.items():
                if not process.alive:
                    process.killed = True
                    self.launch(name, False)
            try:
                return self.world.call(service, op, timeout_s=1, **args)
            except LadeError as error:
                if error.code not in ("broker_unreachable", "Timeout"):
                    raise
        raise AssertionError(f"{service}.{op} was never answered")

    def settle(self):
        """The program that was to die has died, and is back."""
        os.unlink(self.on)
        if self.point and len(self.points()) >= self.point and not self.died.killed:
            self.died.popen.wait(30)
        self.ask("broker", "status")

    def points(self):
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding="ascii") as file:
            return file.read().split("\n")[:-1]

    def start(self, names, kinds):
        for name in names:
            self.launch(name, name == self.victim)
        self.world.wait_ready(kinds)
        self.died = self.running[self.victim]

    def arm(self):
        """From now on points count."""
        with open(self.on, "wb"):
            pass

    def install(self, source, **args):
        self.start(("broker", "download", "install"), {"download", "install"})
        self.arm()
        job = self.ask("install", "heuristic_import", source=source, token="once", **args)
        return self.ask("install", "wait_for_job", id=job["id"])


def local(world):
    folder = samples.pipeline(os.path.join(world.folder, "pipe"))
    return folder, weights.tree(folder), {}


def moved(world):
    path = weights.lora(os.path.join(world.folder, "style.safetensors"), 3)
    return path, weights.tree(path), {"move": True}


def url(world):
    path = weights.lora(world.hub.file("style.safetensors"), 3)
    return f"{world.hub.url}/files/style.safetensors", weights.tree(path), {}


def hub(world):
    repo = samples.vae(world.hub.repo("artist/vae"))
    return "artist/vae:fp32", weights.tree(repo), {}


def run(make, victim, point):
    """Answers the names of the points that were passed."""
    with World(SETTINGS) as world:
        source, files, args = make(world)
        one = Run(world, victim, point)
        where = f"{make.__name__}, {victim} killed at point {point}"
        job = one.install(source, **args)
        names = one.points()
        where += f" ({names[point - 1] if 0 < point <= len(names) else '-'})"
        assert job["status"] == "completed", f"{where}: {job['status']} {job['error_type']} {job['error']}"
        records = one.ask("store", "all_models")
        assert [record["key"] for record in records] == [job["config_out"]["key"]], f"{where}: {records}"
        assert weights.tree(world.record_path(records[0])) == files, f"{where}: the files are others"
        if args.get("move"):
            discards = one.ask("jobs", "list", kind="discard")
            assert [one.ask("jobs", "wait", id=discard["id"])["status"] for discard in discards] == ["completed"], where
            assert not os.path.exists(source), f"{where}: {source} is still there"
        one.settle()
        nothing_temporary(world)
        no_leftovers(world, records)
        events = one.ask("events", "since", seq=0, limit=10000)["events"]
        for name in ("model_record_added", "model_install_completed"):
            assert [event["event"] for event in events].count(name) == 1, f"{where}: {name} is not told once"
        return names


class Conversion:
    """A checkpoint that is installed, and what is done with it while a program is killed."""

    def __init__(self, world, victim, point, *names):
        self.world, self.one = world, Run(world, victim, point)
        self.one.start(("broker", "install", *names), {"install", *({"load"} if names else ())})
        self.entries = checkpoints.vae(".", prefix="") if not names else checkpoints.checkpoint("sd-1", width=8)
        self.path = checkpoints.write(os.path.join(world.folder, "m.safetensors"), self.entries, 5)
        job = world.install(self.path)
        assert job["status"] == "completed", job
        self.record = job["config_out"]
        self.key = self.record["key"]

    def finish(self, where):
        """Nothing is left that has no name of its own, and nothing is asked of whoever comes next."""
        self.one.settle()
        nothing_temporary(self.world)
        place = os.path.join(self.world.models_dir, ".convert_cache", self.key)
        assert cached(self.world) == [self.key], where
        check(place, self.path, self.entries)
        done = len(conversions(self.world))
        assert self.world.call("install", "convert", key=self.key) == place and len(conversions(self.world)) == done, where


def convert(victim, point):
    """For the first time, and again after an edit, when an old copy has to go."""
    with World(SETTINGS) as world:
        made = Conversion(world, victim, point)
        made.one.arm()
        where = f"convert, {victim} killed at point {point}"
        for number, changes in enumerate(({}, {"base": "sdxl"})):
            if changes:
                made.one.ask("store", "update_model", key=made.key, config=changes)
            job = made.one.ask("install", "convert", wait=False, key=made.key, token=f"once {number}")
            job = made.one.ask("jobs", "wait", id=job["id"])
            assert job["status"] == "completed", f"{where}: {job['error_type']} {job['error']}"
        made.finish(where)
        return made.one.points()


def convert_to(victim, point):
    """Into a folder of the user's: whole, or not there; nothing beside it."""
    with World(SETTINGS) as world:
        made = Conversion(world, victim, point)
        made.one.arm()
        dest = os.path.join(world.folder, "out", "m")
        job = made.one.ask("install", "convert", wait=False, key=made.key, dest=dest, token="once")
        job = made.one.ask("jobs", "wait", id=job["id"])
        assert job["status"] == "completed", f"{victim} killed at point {point}: {job['error_type']} {job['error']}"
        check(dest, made.path, made.entries)
        made.one.settle()
        nothing_temporary(world)
        assert os.listdir(os.path.dirname(dest)) == ["m"], os.listdir(os.path.dirname(dest))
        return made.one.points()


def convert_load(victim, point):
    """A load that awaits its conversion."""
    with World(SETTINGS) as world:
        made = Conversion(world, victim, point, "gpu")
        made.one.arm()
        spec = {"key": made.key, "config": made.record, "submodel": "vae"}
        job = made.one.ask("jobs", "submit", kind="load", source=made.key, spec=spec, token="once")
        job = made.one.ask("jobs", "wait", id=job["id"])
        assert job["status"] == "completed", f"{victim} killed at point {point}: {job['error_type']} {job['error']}"
        made.finish(f"load, {victim} killed at point {point}")
        return made.one.points()


def chosen(count):
    """Which points: all, or so many of them, evenly."""
    wanted = os.environ.get("LADE_POINTS", "4")
    if wanted == "all" or count <= int(wanted):
        return range(1, count + 1)
    return sorted({1 + round(i * (count - 1) / (int(wanted) - 1 or 1)) for i in range(int(wanted))})


def walk(make, victims=VICTIMS, once=None):
    once = once or (lambda victim, point: run(make, victim, point))
    for victim in victims:
        names = once(victim, 0)
        if not names:
            raise Skip("this build has no points: make O=build-points POINTS=1 all")
        for point in chosen(len(names)):
            once(victim, point)
        print(f"{make.__name__}: {victim} killed at {len(chosen(len(names)))} of {len(names)} points", flush=True)


def test_local_folder():
    walk(local, ("install", "broker"))


def test_moved_file():
    walk(moved, ("install", "broker"))


def test_url():
    walk(url)


def test_repository():
    walk(hub)


def test_convert():
    numpy_there()
    walk(convert, ("install", "broker"), convert)


def test_convert_into_a_folder():
    numpy_there()
    walk(convert_to, ("install", "broker"), convert_to)


def test_load_that_converts():
    numpy_there()
    walk(convert_load, ("install", "gpu"), convert_load)


def numpy_there():
    if not checkpoints.numpy:
        raise Skip("no numpy")


if __name__ == "__main__":
    for test in (test_local_folder, test_moved_file, test_url, test_repository, test_convert, test_convert_into_a_folder,
                 test_load_that_converts):
        test()
