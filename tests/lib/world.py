"""Real processes in a folder of their own, and a hub for them.

    with World() as world:
        world.up()
        record = world.install(path)

A World is one data folder with its configuration, processes and logs. At the end everything is ended in order, and a
process that ends badly, or a sanitizer that spoke, fails the test. The folder is kept when the test failed. Nothing
sleeps: what is waited for is an event, an answer or the end of a process, each with a deadline.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "wire"))

from outsider import Client, Events, Follower, LadeError, Worker  # noqa: E402,F401

BUILD = os.path.abspath(os.environ.get("LADE_BUILD", os.path.join(ROOT, "build")))
SLOW = float(os.environ.get("LADE_TEST_SLOW", "1"))  # how many times as long all may take: sanitized programs
SANITIZED = SLOW > 1  # memory is not the program's own then
PATIENCE_S = float(os.environ.get("LADE_TEST_PATIENCE", "60"))
DAEMONS = {"broker": "lade-broker", "download": "lade-download", "install": "lade-install", "gpu": "lade-gpu",
           "keeper": "lade-keeper"}
KINDS = {"broker": set(), "download": {"download"}, "install": {"install"}, "gpu": {"load"}, "keeper": set()}
COMPLAINTS = ("ERROR: AddressSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "ERROR: LeakSanitizer",
              "Assertion `", "stack smashing")
QUICK = {"log_level": "info", "broker.beat_ms": 200, "broker.retry_base_ms": 50, "broker.retry_max_ms": 400, "download.stall_s": 3}
LOOPBACK = "127.0.0.0/8,::1"  # the test hub is there, where nobody may be led by a URL


def environment(home, **more):
    """The tests' own environment: nothing of the user's settings, tokens or proxies gets in."""
    keep = {key: value for key, value in os.environ.items()
            if not key.startswith(("LADE_", "HF_", "XDG_", "CURL_", "SSL_")) and not key.lower().endswith("_proxy")}
    keep.update(HOME=home, LC_ALL="C.UTF-8", no_proxy="*", ASAN_OPTIONS="detect_leaks=1:abort_on_error=0",
                UBSAN_OPTIONS="print_stacktrace=1", LADE_TEST_WORLD=os.environ.get("LADE_TEST_WORLD", "1"))
    keep.update({key: str(value) for key, value in more.items()})
    return keep


def sanitizer_environment():
    """A liblade with a sanitizer in it needs that sanitizer loaded first."""
    needs = subprocess.run(["ldd", os.path.join(BUILD, "liblade.so.0")], stdout=subprocess.PIPE, text=True, check=False)
    for line in needs.stdout.splitlines():
        if "libasan" in line:
            return {"LD_PRELOAD": line.split("=>")[1].split()[0], "ASAN_OPTIONS": "detect_leaks=0"}
    return {}


class Process:
    """A program of ours, its log, and what its end was."""

    def __init__(self, name, argv, env, log, cwd=None):
        self.name, self.log, self.killed, self.ended = name, log, False, False
        self.lines = []
        self._line = threading.Condition()
        with open(log, "ab"):
            pass
        self.popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, cwd=cwd)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with open(self.log, "ab") as out:
            for line in self.popen.stdout:
                out.write(line)
                out.flush()
                with self._line:
                    self.lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._line.notify_all()
        with self._line:
            self.lines.append(None)
            self._line.notify_all()

    @property
    def pid(self):
        return self.popen.pid

    @property
    def alive(self):
        return self.popen.poll() is None

    def line(self, words, timeout_s=PATIENCE_S):
        """The first line it printed with these words."""
        until = time.monotonic() + timeout_s
        with self._line:
            while True:
                for line in self.lines:
                    if line is not None and words in line:
                        return line
                if self.lines and self.lines[-1] is None:
                    raise AssertionError(f"{self.name} ended (status {self.popen.wait()}) without '{words}': {self.tail()}")
                if not self._line.wait(max(0, until - time.monotonic())):
                    raise AssertionError(f"{self.name} did not say '{words}' within {timeout_s} s: {self.tail()}")

    def signal(self, number):
        if self.alive:
            self.popen.send_signal(number)

    def kill(self):
        """kill -9, on purpose."""
        self.killed = True
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self, timeout_s=20):
        """SIGTERM; what ends badly or too late is an error."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            status = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout_s} s of SIGTERM: {self.tail()}") from None
        if status != 0 and not self.killed:
            raise AssertionError(f"{self.name} ended with status {status}: {self.tail()}")
        self.ended = True

    def drain(self):
        """Waits until all it said is in its log. What it started may outlive it and hold the pipe: not for ever."""
        self._reader.join(5)

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def tail(self, lines=15):
        return "\n" + "\n".join(self.text().splitlines()[-lines:])

    def memory_kb(self, field="VmRSS"):
        return proc_status(self.pid, field)


def proc_status(pid, field):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise KeyError(field)


class Hub:
    """The test hub (tests/hub/README.md) as a process."""

    def __init__(self, root, log, host="127.0.0.1"):
        self.root = root
        os.makedirs(os.path.join(root, "repos"), exist_ok=True)
        os.makedirs(os.path.join(root, "files"), exist_ok=True)
        self.process = Process("hub", ["/usr/bin/python3", os.path.join(ROOT, "tests/hub/hub.py"), "--root", root, "--host", host],
                               environment(root), log)
        _, _, port, cdn_port = self.process.line("listening on").split()
        self.url, self.cdn_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{cdn_port}"

    def control(self, method, name, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_control/{name}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def faults(self, *rules):
        return self.control("POST", "faults", list(rules))

    def clear(self, path=None):
        """Removes the faults of this path pattern, or all."""
        return self.control("DELETE", "faults", {"path": path} if path else None)

    def origin(self, kind="plain", name=None, host="127.0.0.1"):
        """Another origin (tests/hub/README.md): {"url", "port", "ca"?}."""
        return self.control("POST", "origins", {"kind": kind, "name": name, "host": host})

    def totals(self):
        """What has been counted so far, with the connections of each origin."""
        return self.control("GET", "totals")

    def log(self, reset=False, path=None):
        """What has been counted, and the requests; with a path pattern only those."""
        query = "?" + urllib.parse.urlencode({"path": path}) if path else ""
        return self.control("DELETE" if reset else "GET", "log" + query)

    def settings(self, **values):
        return self.control("POST", "settings", values)

    def repo(self, name, revision=None):
        """The folder of a repository, made if it is missing."""
        path = os.path.join(self.root, "repos", name + (f"@{revision}" if revision else ""))
        os.makedirs(path, exist_ok=True)
        return path

    def repo_settings(self, name, **values):
        return self.control("POST", "repos", {"repo": name, **values})

    def file(self, name):
        return os.path.join(self.root, "files", name)


class World:
    """A data folder, what runs on it, and the ways to talk to it."""

    def __init__(self, settings=None, env=None):
        self.folder = tempfile.mkdtemp(prefix="lt-", dir=os.environ.get("LADE_TEST_TMP", "/tmp"))
        self.data = os.path.join(self.folder, "d")
        self.logs = os.path.join(self.folder, "log")
        self.home = os.path.join(self.folder, "home")
        for folder in (self.logs, self.home):
            os.makedirs(folder)
        os.makedirs(self.data, 0o700)
        self.models_dir = os.path.join(self.data, "models")
        self.env = env or {}
        self.processes = []
        self.sockets = []
        self._hub, self.hub_host = None, "127.0.0.1"
        self.configure(**{**QUICK, **(settings or {})})

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        problem = None
        try:
            if kind is None:
                self.stop()
        except AssertionError as error:
            problem = error
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()
        for made in self.sockets:
            made.close()
        if kind is None and problem is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        print(f"what is left of it: {self.folder}", file=sys.stderr)
        for process in self.processes:
            print(f"--- {process.name}: {process.tail(12)}", file=sys.stderr)
        if problem:
            raise problem

    def configure(self, **settings):
        """Writes lade.yaml; takes effect with the next start of a program."""
        tree = {}
        for key, value in {"download.allow_addresses": LOOPBACK, **settings}.items():
            at = tree
            *above, last = key.split(".")
            for part in above:
                at = at.setdefault(part, {})
            at[last] = value
        with open(os.path.join(self.data, "lade.yaml"), "w", encoding="utf-8") as file:
            file.write(json.dumps(tree))

    # -------------------------------------------------------------------------------------------
    # Processes

    @property
    def hub(self):
        if not self._hub:
            self._hub = Hub(os.path.join(self.folder, "hub"), os.path.join(self.logs, "hub.log"), self.hub_host)
            self.processes.append(self._hub.process)
        return self._hub

    def environment(self):
        more = {"HF_ENDPOINT": self._hub.url} if self._hub else {}
        return environment(self.home, **{**more, **self.env})

    def spawn(self, name, argv):
        process = Process(name, argv, self.environment(), os.path.join(self.logs, f"{name}.log"))
        self.processes.append(process)
        return process

    def start(self, *names):
        """Starts daemons by their short names and waits until the broker answers and knows the workers."""
        started = [self.spawn(name, [os.path.join(BUILD, DAEMONS[name]), "--data", self.data]) for name in names]
        self.wait_ready(set().union(*(KINDS[name] for name in names)))
        return started[0] if len(started) == 1 else started

    def launch(self, name):
        """Starts a daemon and waits for nothing."""
        return self.spawn(name, [os.path.join(BUILD, DAEMONS[name]), "--data", self.data])

    def up(self):
        """`lade up`: everything at once."""
        process = self.spawn("up", [os.path.join(BUILD, "lade"), "up", "--data", self.data])
        self.wait_ready({"download", "install", "load"})
        process.line("Ctrl-C ends it")
        return process

    def wait_ready(self, kinds, timeout_s=PATIENCE_S):
        until = time.monotonic() + timeout_s
        client, events = self.client(), self.events("worker_joined/", "broker_beat/")
        while True:
            dead = [process for process in self.processes
                    if not process.alive and not process.killed and not process.ended]
            if dead:
                raise AssertionError(f"{dead[0].name} ended with status {dead[0].popen.poll()}: {dead[0].tail()}")
            try:
                workers = client.call("broker", "workers", timeout_s=2)
                if kinds <= {kind for worker in workers for kind in worker["kinds"]}:
                    return workers
            except LadeError as error:
                if error.code != "broker_unreachable":
                    raise
            if time.monotonic() > until:
                raise AssertionError(f"not ready within {timeout_s} s: waiting for {kinds}")
            events.receive(1)

    def stop(self):
        """Ends all in order: workers, then the broker, then the hub."""
        order = {"broker": 1, "hub": 2}
        complaints = []
        for process in sorted(self.processes, key=lambda process: order.get(process.name, 0)):
            if process.name == "hub":
                process.kill()
            elif not process.killed:
                process.stop()
            process.drain()
            complaints += [f"{process.name}: {line}" for line in process.text().splitlines()
                           if any(words in line for words in COMPLAINTS)]
        self.processes = []
        self._hub = None
        if complaints:
            raise AssertionError("complaints in the logs:\n" + "\n".join(complaints[:20]))

    # -------------------------------------------------------------------------------------------
    # Talking

    def endpoint(self, name):
        return f"ipc://{self.data}/{name}"

    def client(self):
        return self._keep(Client(self.endpoint("clients")))

    def events(self, *prefixes):
        return self._keep(Events(self.endpoint("events"), prefixes or ("",)))

    def worker(self, *kinds, **more):
        return self._keep(Worker(self.endpoint("workers"), kinds, **more))

    def _keep(self, made):
        self.sockets.append(made)
        return made

    def call(self, service, op, timeout_s=PATIENCE_S, **args):
        """One call on a connection of its own."""
        client = Client(self.endpoint("clients"))
        try:
            return client.call(service, op, timeout_s=timeout_s, **args)
        finally:
            client.close()

    def lade(self, *args, status=0, timeout_s=PATIENCE_S, env=None, data=True):
        """The command; its exit status is part of what is tested."""
        argv = [os.path.join(BUILD, "lade"), *(["--data", self.data] if data else []), *map(str, args)]
        done = subprocess.run(argv, env={**self.environment(), **(env or {})}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout_s, text=True, check=False)
        if status is not None and done.returncode != status:
            raise AssertionError(f"lade {' '.join(map(str, args))}: status {done.returncode}, not {status}\n"
                                 f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def lade_json(self, *args, status=0, **more):
        """The command with --json: its standard output has to be one document."""
        done = self.lade(*args, "--json", status=status, **more)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"lade {' '.join(map(str, args))} --json printed no JSON: {done.stdout!r} "
                                 f"{done.stderr!r}") from None

    def install(self, source, timeout_s=PATIENCE_S, **args):
        """Installs over the wire and answers the ended job."""
        job = self.call("install", "heuristic_import", source=str(source), **args)
        return self.call("install", "wait_for_job", id=job["id"], timeout_s=timeout_s)

    def eventually(self, wanted, timeout_s=PATIENCE_S):
        """Asks until it is so; for what no event tells. The broker's beats set the pace."""
        events, until = self.events("broker_beat/"), time.monotonic() + timeout_s
        while not (found := wanted()):
            if time.monotonic() > until:
                raise AssertionError(f"it was not so within {timeout_s} s")
            events.receive(0.1)
        return found

    def record_path(self, record):
        path = record["path"]
        return path if os.path.isabs(path) else os.path.join(self.models_dir, path)


def own_memory_kb(pid, words):
    """(private, shared) KiB of the mappings of a process whose name has these words."""
    private = shared = 0
    inside = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            first = line.split(None, 1)[0]
            if "-" in first and not first.endswith(":"):
                inside = words in line
            elif inside and first in ("Private_Clean:", "Private_Dirty:"):
                private += int(line.split()[1])
            elif inside and first in ("Shared_Clean:", "Shared_Dirty:"):
                shared += int(line.split()[1])
    return private, shared
