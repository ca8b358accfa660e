"""Who downloads in tests/bench/downloads: the command of each, and lade with the farm it needs."""
import dataclasses
import json
import os
import subprocess
import sys
import time

from download_origin import ALLOWED, DIES_WITH_US, PATIENCE_S, cpu_s, end, environment

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "wire"))

from outsider import Client, LadeError  # noqa: E402

MANY = 16  # connections to the server, and files at once, for whoever can
DOWNLOAD_SETTINGS = {"slots": MANY, "connections": MANY, "allow_addresses": ALLOWED}


@dataclasses.dataclass
class Task:
    """One measurement: which files, from where, to where."""
    files: list     # of download_origin.File
    sources: list   # their paths at the origin, for cp
    base: str       # their URLs are BASE/NAME
    dest: str       # the folder they go into
    scratch: str    # for lists, logs and farms
    build: str      # lade's
    floor: list     # options of curl_floor
    inside: list    # what a command has to begin with to run at the client's place

    def url(self, file):
        return f"{self.base}/{file.name}"

    def path(self, file):
        return os.path.join(self.dest, file.name)

    def farm_log(self):
        """The end of what broker and worker had to say."""
        path = os.path.join(self.scratch, "farm.log")
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()[-500:].strip()

    def list_file(self, line):
        """A file in scratch with a line for each file to fetch."""
        path = os.path.join(self.scratch, "list")
        with open(path, "w", encoding="utf-8") as out:
            out.writelines(line(file) for file in self.files)
        return path


def cp(task):
    return ["cp", "-t", task.dest, *task.sources]


def curl(task):
    lines = task.list_file(lambda file: f'url = "{task.url(file)}"\noutput = "{task.path(file)}"\n')
    return ["curl", "-q", "-sS", "--fail", "-K", lines]


def curl_parallel(task):
    return [*curl(task), "--parallel", "--parallel-max", str(MANY)]


def wget(task):
    return ["wget", "--no-config", "-q", "-P", task.dest, "-i", task.list_file(lambda file: task.url(file) + "\n")]


def aria2(task):
    lines = task.list_file(lambda file: f"{task.url(file)}\n dir={task.dest}\n out={file.name}\n")
    return ["aria2c", "--no-conf=true", "--quiet=true", f"-x{MANY}", f"-s{MANY}", f"-j{MANY}", "--file-allocation=none",
            "-i", lines]


def aria2_small_pieces(task):
    return [*aria2(task), "-k1M"]


def floor(task):
    lines = task.list_file(lambda file: f"{task.url(file)}\t{task.path(file)}\t{file.size}\n")
    return [os.path.join(task.build, "bench", "curl_floor"), *task.floor, lines]


def lade(task):
    lines = task.list_file(lambda file: f"{task.url(file)}\t{task.path(file)}\t{file.size}\t{file.sha256}\n")
    return [os.path.join(task.build, "bench", "download_client"), os.path.join(task.scratch, "data"), lines]


def lade_command(task):
    return [os.path.join(task.build, "lade"), "--data", os.path.join(task.scratch, "data"), "--quiet", "download",
            *map(task.url, task.files), "--dest", task.dest]


@dataclasses.dataclass
class Peer:
    argv: callable            # of a Task
    program: str              # what has to be installed
    farm: bool = False        # needs a broker and a worker
    one_by_one: bool = False  # one connection, one file after the other
    ours: bool = False        # no rival: what lade is held against is the best of the others


PEERS = {
    "cp": Peer(cp, "cp", ours=True),
    "curl": Peer(curl, "curl", one_by_one=True),
    "curl-Z16": Peer(curl_parallel, "curl"),
    "wget": Peer(wget, "wget", one_by_one=True),
    "aria2": Peer(aria2, "aria2c"),
    "aria2-k1M": Peer(aria2_small_pieces, "aria2c"),
    "floor": Peer(floor, "bench/curl_floor", ours=True),
    "lade": Peer(lade, "bench/download_client", farm=True, ours=True),
    "lade-cli": Peer(lade_command, "lade", farm=True, ours=True),
}


class FarmError(Exception):
    """The farm did not come up."""


class Farm:
    """A broker and a download worker that have said hello to each other: what runs before the clock starts."""

    def __init__(self, task):
        self.processes, self.data, self.scratch = [], os.path.join(task.scratch, "data"), task.scratch
        os.makedirs(self.data, mode=0o700)
        self._configure(task.build)
        try:
            self._start([os.path.join(task.build, "lade-broker"), "--data", self.data])
            self._start([*task.inside, os.path.join(task.build, "lade-download"), "--data", self.data])
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        self.pids = [process.pid for process in self.processes]
        self.cpu_before_s = cpu_s(self.pids)

    def _configure(self, build):
        """As the peers' options say; only what this lade knows, so that an older one can be measured as well."""
        asked = subprocess.run([os.path.join(build, "lade"), "config", "--json", "--data", self.data], check=True,
                               stdout=subprocess.PIPE, env=environment(self.scratch))
        known, settings = json.loads(asked.stdout), {"log_level": "warning"}
        settings["download"] = {key: value for key, value in DOWNLOAD_SETTINGS.items() if f"download.{key}" in known}
        with open(os.path.join(self.data, "lade.yaml"), "w", encoding="utf-8") as out:
            json.dump(settings, out)

    def _start(self, argv):
        with open(os.path.join(self.scratch, "farm.log"), "ab") as log:
            self.processes.append(subprocess.Popen([*DIES_WITH_US, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                   env=environment(self.scratch)))

    def _wait_ready(self):
        client, until = Client(f"ipc://{self.data}/clients"), time.monotonic() + PATIENCE_S
        try:
            while not client.call("broker", "workers", timeout_s=PATIENCE_S):
                if time.monotonic() > until or any(process.poll() is not None for process in self.processes):
                    raise FarmError("no worker came")
                time.sleep(0.02)
        except LadeError as error:
            raise FarmError(str(error)) from None
        finally:
            client.close()

    def cpu_s(self):
        return cpu_s(self.pids) - self.cpu_before_s

    def peak_kb(self):
        """Of all its processes, each at its own peak."""
        total = 0
        for pid in self.pids:
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
        return total

    def close(self):
        for process in reversed(self.processes):
            end(process)
