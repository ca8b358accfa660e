"""What tests/bench/downloads fetches, and from where: files of random bytes, nginx, and links with delay and loss."""
import dataclasses
import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time

PATIENCE_S = 20
PIECE = 8 << 20
LIMITED_BYTES_PER_S = 20_000_000
WORKERS = len(os.sched_getaffinity(0))  # of nginx
CONFIGURATION = """{user}
daemon off;
worker_processes {workers};
pid '{pid}';
events {{ worker_connections 1024; }}
http {{
  {temporary}
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  server {{
    listen {host}:{port};
    root '{folder}';
    location /limited/ {{ alias '{folder}/'; limit_rate {limit}; }}
  }}
}}
"""
ALLOWED = "127.0.0.0/8,10.99.0.0/30"  # where the servers are: here, and behind the relay
DIES_WITH_US = ["setpriv", "--pdeathsig", "TERM", "--"]
PROCESS_CLOCK = 2  # low bits of the clock that all threads of one process drive


def cpu_s(pids):
    """Processor seconds that these processes have used."""
    return sum(time.clock_gettime(~pid << 3 | PROCESS_CLOCK) for pid in pids)


def environment(home):
    """Nothing of the user's settings, tokens or proxies gets in."""
    keep = {key: value for key, value in os.environ.items()
            if not key.startswith(("LADE_", "HF_", "XDG_")) and not key.lower().endswith("_proxy")}
    return {**keep, "HOME": home, "LC_ALL": "C.UTF-8"}


# ---------------------------------------------------------------------------------------------------
# Files


@dataclasses.dataclass
class File:
    name: str
    size: int
    sha256: str


def missing_bytes(folder, count, size):
    """What make_files would write."""
    return 0 if os.path.exists(os.path.join(folder, f"{count}x{size}.json")) else count * size


def make_files(folder, count, size):
    """COUNT files of SIZE random bytes in FOLDER/COUNTxSIZE, made once; their names, sizes and digests."""
    name = f"{count}x{size}"
    index = os.path.join(folder, name + ".json")
    if not os.path.exists(index):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        made = [_make_file(os.path.join(folder, name, f"{number:04}.bin"), size) for number in range(count)]
        with open(index + ".new", "w", encoding="utf-8") as out:
            json.dump(made, out)
        os.rename(index + ".new", index)
    with open(index, encoding="utf-8") as file:
        return [File(**one) for one in json.load(file)]


def _make_file(path, size):
    digest, left = hashlib.sha256(), size
    with open(path, "wb") as out:
        while left:
            piece = os.urandom(min(PIECE, left))
            digest.update(piece)
            out.write(piece)
            left -= len(piece)
    return {"name": os.path.basename(path), "size": size, "sha256": digest.hexdigest()}


def read_through(paths):
    """The files into the page cache, so that the first to be measured does not read them for all others."""
    buffer = bytearray(PIECE)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def sha256_of(path):
    digest, buffer = hashlib.sha256(), bytearray(PIECE)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            digest.update(view[:got])
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------
# Places: a server, and where its clients run


class PlaceError(Exception):
    """A server or a link could not be made."""


class Place:
    """nginx in front of a folder. `inside` is what a client's command has to begin with to run at its place."""

    def __init__(self, scratch, folder, host="127.0.0.1", port=0, nginx_inside=(), inside=()):
        self.scratch = tempfile.mkdtemp(prefix="nginx-", dir=scratch)
        self.inside, self.nginx = list(inside), None
        port = port or _free_port(host)
        self.url = f"http://{host}:{port}"
        pid_file = os.path.join(self.scratch, "pid")
        self.nginx = subprocess.Popen([*nginx_inside, *DIES_WITH_US, "nginx", "-p", self.scratch, "-e", "error.log",
                                       "-c", self._configure(folder, host, port, pid_file)],
                                      stdin=subprocess.DEVNULL, env=environment(scratch))
        try:
            _wait_for(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file), self.nginx, "nginx")
            self.pids = [self.nginx.pid, *_children(self.nginx.pid, WORKERS)]
        except BaseException:
            end(self.nginx)
            raise

    def _configure(self, folder, host, port, pid_file):
        path = os.path.join(self.scratch, "nginx.conf")
        temporary = "".join(f"{kind}_temp_path '{self.scratch}/{kind}'; "
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(path, "w", encoding="utf-8") as out:
            out.write(CONFIGURATION.format(user="user root;" if os.geteuid() == 0 else "", workers=WORKERS, pid=pid_file,
                                           temporary=temporary, host=host, port=port, folder=folder,
                                           limit=LIMITED_BYTES_PER_S))
        return path

    def server_cpu_s(self):
        return cpu_s(self.pids)

    def congestion_control(self):
        return subprocess.run([*self.inside, "cat", "/proc/sys/net/ipv4/tcp_congestion_control"], check=False,
                              stdout=subprocess.PIPE, text=True).stdout.strip() or "?"

    def close(self):
        if self.nginx:
            end(self.nginx)


class Link(Place):
    """A server behind the relay: 20 ms there and back, 600 Mbit/s, and what else the relay is told."""

    def __init__(self, scratch, folder, relay, loss=0.0, control=None):
        self.nginx, self.control = None, control
        self.relay = subprocess.Popen([*DIES_WITH_US, relay, "--delay-ms", "10", "--rate-mbit", "600", "--loss", str(loss),
                                       *(["--congctl", control] if control else [])],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            words = self.relay.stdout.readline().split()
            if words[:1] != ["ready"]:
                raise PlaceError("the relay did not start; it needs /dev/net/tun, `ip` (iproute2), and root or user "
                                 "namespaces")
            server, client = (["nsenter", "--net=" + space] for space in words[1:])
            super().__init__(scratch, folder, "10.99.0.1", 8080, server, client)
        except BaseException:
            self.close()
            raise

    def congestion_control(self):
        return self.control or super().congestion_control()

    def close(self):
        """Ends both; answers what the relay says became of the packets."""
        super().close()
        self.relay.stdin.close()
        said = self.relay.stdout.read()
        end(self.relay)
        return said


def _free_port(host):
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _children(pid, count):
    """nginx forks its workers after it wrote its pid: waits for so many of them."""
    def now():
        found = []
        for other in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{other}/stat", encoding="utf-8", errors="replace") as file:
                    if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(other))
            except OSError:
                pass
        return found
    until = time.monotonic() + PATIENCE_S
    while len(found := now()) < count:
        if time.monotonic() > until:
            raise PlaceError("nginx did not start its workers")
        time.sleep(0.01)
    return found


def _wait_for(wanted, process, name):
    until = time.monotonic() + PATIENCE_S
    while not wanted():
        if process.poll() is not None or time.monotonic() > until:
            raise PlaceError(f"{name} did not start")
        time.sleep(0.01)


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
