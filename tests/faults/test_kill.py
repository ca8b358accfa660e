#!/usr/bin/python3
"""kill -9 at random moments: broker and workers, any number of times, during a batch of small installs.

    tests/faults/test_kill.py [--seed N] [--rounds N] [--installs N]

Whatever dies when: in the end every job has ended, there is one record for each source, every published file is the
source's byte for byte, and nothing else lies below the models folder. The seed is printed.
"""
import argparse
import os
import random
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from lib import weights  # noqa: E402
from lib.checks import no_leftovers, nothing_temporary  # noqa: E402
from lib.world import LadeError, World  # noqa: E402

LIMIT_S = 240
VICTIMS = ("broker", "download", "install", "gpu")
LIVE = ("idle", "enqueued", "waiting", "running", "downloading", "paused")
SETTINGS = {"broker.beat_ms": 100, "broker.retry_base_ms": 20, "broker.retry_max_ms": 200, "install.slots": 4}


class Batch:
    """The sources, and a client that insists: a request without an answer is asked again, under the same token."""

    def __init__(self, world, count):
        self.world = world
        self.jobs = {}
        self.sources = {}
        self.done = threading.Event()
        self.turns = threading.Semaphore(0)
        self.problem = None
        for number in range(count):
            name = f"emb-{number:03}.safetensors"
            if number % 2:
                path = os.path.join(world.hub.repo(f"batch/m-{number:03}"), name)
                source = f"batch/m-{number:03}::{name}"
            else:
                path = world.hub.file(name)
                source = f"{world.hub.url}/files/{name}"
            self.sources[source] = weights.embedding(path, number, vectors=2 + number % 7)

    def ask(self, service, op, **args):
        for _ in range(100):
            try:
                return self.world.call(service, op, timeout_s=2, **args)
            except LadeError as error:
                if error.code not in ("broker_unreachable", "Timeout"):
                    raise
        raise AssertionError(f"{service}.{op} was never answered")

    def submit(self):
        try:
            for source in self.sources:
                self.turns.acquire()
                job = self.ask("install", "heuristic_import", source=source, token=source)
                self.jobs[source] = job["id"]
        except (AssertionError, LadeError) as problem:
            self.problem = problem
        finally:
            self.done.set()

    def listed(self):
        return {job["id"]: job for job in self.ask("install", "list_jobs", limit=10000)}

    def settle(self, seed):
        """Until every job has completed; what died with its workers is retried, as an operator would."""
        retried = 0
        events = self.world.events()
        for _ in range(1200):
            jobs = self.listed()
            ended = [job for job in jobs.values() if job["status"] not in LIVE]
            for job in ended:
                if job["status"] == "completed":
                    continue
                assert job["status"] == "dead" or job["error_type"] in ("worker_lost", "child_failed"), \
                    f"seed {seed}: job {job['id']} of {job['source']}: {job['status']} {job['error_type']} {job['error']}"
                for number in [*(job.get("children") or []), job["id"]]:
                    if number == job["id"] or self.ask("jobs", "get", id=number)["status"] in ("dead", "error"):
                        self.ask("jobs", "retry", id=number)
                        retried += 1
            if all(jobs[number]["status"] == "completed" for number in self.jobs.values()):
                return retried
            events.receive(0.1)
        left = [job for job in self.listed().values() if job["status"] != "completed"]
        raise AssertionError(f"seed {seed}: not ended: {left[:5]}")

    def check(self, seed):
        records = self.ask("store", "all_models", limit=10000)
        found = sorted(record["source"] for record in records)
        assert found == sorted(self.sources), (
            f"seed {seed}: missing {sorted(set(self.sources) - set(found))[:5]}, doubled or strange "
            f"{[source for source in set(found) if found.count(source) > 1 or source not in self.sources][:5]}")
        for record in records:
            path = self.world.record_path(record)
            assert weights.tree(path) == {"": weights.sha256(self.sources[record["source"]])} or \
                weights.sha256(path) == weights.sha256(self.sources[record["source"]]), f"seed {seed}: {path}"
        no_leftovers(self.world, records)
        nothing_temporary(self.world)
        self.check_journal(seed, records)

    def check_journal(self, seed, records):
        """Every change is in the journal once, in the order of seq, whichever broker wrote it."""
        events, more = [], True
        while more:
            answer = self.ask("events", "since", seq=events[-1]["seq"] if events else 0, limit=1000)
            events, more = events + answer["events"], answer["more"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), f"seed {seed}: holes in the journal"
        for name, ids in (("model_record_added", [record["key"] for record in records]),
                          ("model_install_completed", list(self.jobs.values()))):
            told = [event["id"] for event in events if event["event"] == name]
            assert sorted(told) == sorted(ids), f"seed {seed}: {name} {len(told)} times, not {len(ids)}"


def soak(seed, rounds, installs):
    rng = random.Random(seed)
    print(f"seed {seed}, {rounds} kills, {installs} installs", flush=True)
    with World(SETTINGS) as world:
        batch = Batch(world, installs)
        running = dict(zip(VICTIMS, world.start(*VICTIMS)))
        submitter = threading.Thread(target=batch.submit, daemon=True)
        submitter.start()
        pause = threading.Event()
        killed = dict.fromkeys(VICTIMS, 0)
        for left in range(rounds, 0, -1):
            # The batch comes over all rounds, so that there is always something to kill in the middle of.
            batch.turns.release(installs // rounds if left > 1 else installs)
            pause.wait(rng.uniform(0.01, 0.4))
            chance = rng.random()
            victims = VICTIMS if chance < 0.1 else rng.sample(VICTIMS, 2) if chance < 0.3 else [rng.choice(VICTIMS[:3])]
            for victim in victims:
                running[victim].kill()
                killed[victim] += 1
            for victim in victims:
                running[victim] = world.launch(victim)
        assert batch.done.wait(120), f"seed {seed}: the batch was not taken"
        if batch.problem:
            raise AssertionError(f"seed {seed}") from batch.problem
        retried = batch.settle(seed)
        batch.check(seed)
        print(f"seed {seed}: killed {killed}, {retried} retried by hand, all {installs} there", flush=True)


def test_kill_at_random_moments():
    """200 small installs from the hub while the processes are killed."""
    soak(int(os.environ.get("LADE_SEED", random.randrange(1 << 30))), int(os.environ.get("LADE_ROUNDS", "25")), 200)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--rounds", type=int, default=25, help="how many times something is killed")
    parser.add_argument("--installs", type=int, default=200)
    args = parser.parse_args()
    soak(args.seed, args.rounds, args.installs)


if __name__ == "__main__":
    main()
