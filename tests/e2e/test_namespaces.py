"""Download workers on several hosts (network namespaces, tcp with keys) share a queue and a folder; hosts vanish, nothing is lost.

And equal requests, however many, are one job and one transfer.
"""
import os
import threading

from lib.apart import apart
from lib.downloads import KIB, MIB, check_same, completed, on_disk, span_of, submit, write_file
from lib.farm import Farm, Network
from lib.world import World

LIMIT_S = 180
HOSTS = ("w1", "w2", "w3")
FILES = 12
SIZE = 5 * MIB  # more than the first range
in_networks = apart("-Urmn", "-mn")


class Hosts:
    """A farm whose workers are on hosts of their own."""

    def __init__(self, world, **more):
        self.world = world
        self.network = Network()
        world.hub_host = "0.0.0.0"
        self.port = world.hub.url.rsplit(":", 1)[1]
        self.farm = Farm(world, Network.ADDRESS, **{"download.allow_addresses": Network.RANGE, "download.slots": 2,
                                                   "download.checkpoint_mb": 1, "download.stall_s": 2, **more})
        self.farm.make_key("user")
        self.user = self.farm.host("user")
        self.farm.start("broker", world.data)
        self.folder = os.path.join(world.folder, "shared", "out")
        self.workers = {}
        for name in HOSTS:
            self.farm.make_key(name)
            self.workers[name] = (self.farm.host(name), self.network.host(name))
        self.running = {name: self.launch(name) for name in HOSTS}
        self.listed(3)

    def launch(self, name):
        data, within = self.workers[name]
        return self.farm.start("download", data, *within)

    def listed(self, count):
        """Until so many workers are there."""
        self.until(lambda: len(self.farm.workers(self.user)) == count)
        return {worker["host"]: worker for worker in self.farm.workers(self.user)}

    def until(self, wanted, timeout_s=60):
        """The command is asked again and again; each question takes long enough."""
        pause = threading.Event()
        for _ in range(timeout_s * 10):
            if found := wanted():
                return found
            pause.wait(0.1)
        raise AssertionError(f"it was not so within {timeout_s} s")

    def submit_all(self):
        self.ids = []
        for number in range(FILES):
            write_file(self.world.hub.file(f"{number}/x{number}.bin"), SIZE, number)
            url = f"http://{Network.ADDRESS}:{self.port}/files/{number}/x{number}.bin"
            os.makedirs(self.folder, exist_ok=True)
            answer = self.farm.ask(self.user, "download", url, "--dest", self.folder, "--no-wait")
            self.ids.append((answer[0] if isinstance(answer, list) else answer)["id"])

    def jobs(self):
        return [job for job in self.farm.ask(self.user, "jobs", "--kind", "download") if job["id"] in self.ids]

    def busy_everywhere(self):
        """Every host is in the middle of something."""
        jobs = [job for job in self.jobs() if job["status"] == "running" and job["bytes"] > 100 * KIB]
        return len({job["worker"] for job in jobs}) == len(HOSTS)

    def finish(self):
        self.world.hub.settings(throttle=0)
        self.until(lambda: all(job["status"] == "completed" for job in self.jobs()))
        for number in range(FILES):
            check_same(os.path.join(self.folder, f"x{number}.bin"), self.world.hub.file(f"{number}/x{number}.bin"))
        return self.jobs()

    def tidy(self):
        """Only the files are left."""
        self.until(lambda: on_disk(self.folder) == (sorted(f"x{number}.bin" for number in range(FILES)), []), 20)


@in_networks
def test_a_host_that_is_cut_off_loses_nothing():
    """One host's cable is pulled in the middle: the others finish its jobs; mended, it comes back and harms nothing."""
    with World() as world:
        hosts = Hosts(world)
        world.hub.settings(throttle=300 * KIB)
        hosts.submit_all()
        hosts.until(hosts.busy_everywhere)
        hosts.network.cut("w1")
        left = hosts.listed(2)
        assert set(left) == {"w2", "w3"}, left
        jobs = hosts.finish()
        again = [job for job in jobs if job["deaths"]]
        assert 1 <= len(again) <= 2 and all(job["deaths"] == 1 for job in again), again
        sent = sum(path["bytes"] for path in world.hub.log()["paths"].values())
        assert sent < 1.5 * FILES * SIZE, sent / (FILES * SIZE)
        hosts.network.mend("w1")
        assert set(hosts.listed(3)) == set(HOSTS)
        hosts.finish()
        hosts.tidy()
        assert hosts.running["w1"].alive


@in_networks
def test_a_worker_that_is_killed_on_its_host_loses_nothing():
    with World() as world:
        hosts = Hosts(world)
        world.hub.settings(throttle=300 * KIB)
        hosts.submit_all()
        hosts.until(hosts.busy_everywhere)
        hosts.running["w2"].kill()
        hosts.listed(2)
        hosts.finish()
        hosts.launch("w2")
        hosts.listed(3)
        hosts.tidy()


@in_networks
def test_a_short_cut_is_no_loss():
    """A cable that is out for less than a lease: nobody's job is taken away, and each byte is fetched about once."""
    with World() as world:
        hosts = Hosts(world, **{"broker.lease_beats": 30})
        world.hub.settings(throttle=300 * KIB)
        hosts.submit_all()
        hosts.until(hosts.busy_everywhere)
        hosts.network.cut("w3")
        threading.Event().wait(0.3)
        hosts.network.mend("w3")
        jobs = hosts.finish()
        assert not any(job["deaths"] for job in jobs), jobs
        hosts.tidy()


# ---------------------------------------------------------------------------------------------------
# One fetch

SUBMITTERS = 50


def test_fifty_submitters_one_job_and_one_transfer():
    """All get the same job, all see its end, and every byte was asked for once."""
    with World() as world:
        path = write_file(world.hub.file("x.bin"), 12 * MIB)
        world.start("broker", "download", "download", "download")
        world.hub.settings(rate=12 * MIB)
        folder, jobs, lock = os.path.join(world.folder, "out"), [], threading.Lock()
        start = threading.Barrier(SUBMITTERS)

        def one():
            start.wait(30)
            job = submit(world, f"{world.hub.url}/files/x.bin", folder)
            ended = completed(world, job["id"])
            with lock:
                jobs.append((job["id"], ended["status"]))

        threads = [threading.Thread(target=one) for _ in range(SUBMITTERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(jobs) == SUBMITTERS and len(set(jobs)) == 1, jobs
        assert len(world.call("download", "list_jobs")) == 1
        check_same(os.path.join(folder, "x.bin"), path)
        requests = world.hub.log(path="/files/*")["requests"]
        assert sum(entry["bytes"] for entry in requests) == os.path.getsize(path), "bytes were sent twice"
        spans = sorted(span_of(entry) or (0, None) for entry in requests)
        assert all(before[1] < after[0] for before, after in zip(spans, spans[1:])), f"ranges overlap: {spans}"
