"""What the hub counts: requests, the bytes of bodies as they are sent, and connections, also those that only wait."""
import fnmatch
import socket
import threading
import time

LOG_LIMIT = 20000
CONNECTION_LIMIT = 100000
ESTABLISHED = 1  # of TCP_INFO's tcpi_state


class Pacer:
    """Lets so many bytes a second through, for any number of threads together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.free_at = 0.0

    def due(self, count, rate):
        """Takes count bytes; answers when (monotonic) the last of them may be there."""
        with self.lock:
            self.free_at = max(self.free_at, time.monotonic() - 0.02) + count / rate
            return self.free_at


class Connection:
    """One accepted connection. It is a client's until its first request is for the control interface."""

    def __init__(self, number, origin, peer, sock):
        self.number, self.origin, self.peer, self.sock = number, origin, peer, sock
        self.opened, self.closed = time.monotonic(), None
        self.requests, self.control = 0, False

    def look(self):
        """A client that left is seen by the state of the socket before any thread reads the end of it."""
        if self.closed is None:
            try:
                gone = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED
            except (OSError, ValueError):
                gone = True
            if gone:
                self.closed = time.monotonic()
        return self.closed is None


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.next_connection = 1
        self.live = []  # connections
        self.running = 0
        self.past = []
        self.reset()

    def reset(self):
        """Starts anew; what is open or running goes on and counts from here."""
        self.requests = []
        self.paths = {}
        self.totals = {"requests": 0, "bytes": 0, "cdn_authorization": 0, "open": self.running, "max_open": self.running}
        self.past = []
        self.since = time.monotonic()

    # -------------------------------------------------------------------------------------------
    # Connections

    def accepted(self, origin, peer, sock):
        with self.lock:
            self.prune()
            made = Connection(self.next_connection, origin, peer, sock)
            self.next_connection += 1
            self.live.append(made)
            return made

    def ended(self, connection):
        with self.lock:
            connection.closed = connection.closed or time.monotonic()
            self.prune()

    def prune(self):
        gone = [one for one in self.live if not one.look()]
        if gone:
            self.live = [one for one in self.live if one.closed is None]
            self.past = (self.past + gone)[-CONNECTION_LIMIT:]

    def connections(self):
        """{origin: {open, max, total}}: how many clients' connections are, and at most were, open at once."""
        self.prune()
        moments = {}
        for one in self.past + self.live:
            if not one.control:
                moments.setdefault(one.origin, []).append((max(one.opened, self.since), one.closed))
        answer = {}
        for origin, spans in moments.items():
            steps = [(opened, 1) for opened, _ in spans] + [(closed, -1) for _, closed in spans if closed is not None]
            now = most = 0
            for _, step in sorted(steps):  # an end before a beginning at the same time
                now += step
                most = max(most, now)
            answer[origin] = {"open": now, "max": most, "total": len(spans)}
        return answer

    # -------------------------------------------------------------------------------------------
    # Requests

    def path(self, name):
        return self.paths.setdefault(name, {"requests": 0, "bytes": 0, "ranges": 0, "authorization": 0, "statuses": {}})

    def begin(self, entry):
        """The entry is in the log from now on; its bytes, status and seconds follow."""
        entry.update(status=0, bytes=0, fault=None, seconds=None)
        with self.lock:
            self.running += 1
            self.totals["open"] += 1
            self.totals["max_open"] = max(self.totals["max_open"], self.totals["open"])
            if len(self.requests) < LOG_LIMIT:
                self.requests.append(entry)

    def sent(self, entry, count):
        with self.lock:
            entry["bytes"] += count
            self.totals["bytes"] += count
            self.path(entry["path"])["bytes"] += count

    def end(self, entry, status, fault):
        entry.update(status=status, fault=fault, seconds=time.time() - entry["started"])
        with self.lock:
            self.running -= 1
            totals, path, status = self.totals, self.path(entry["path"]), str(status)
            totals["open"] -= 1
            totals["requests"] += 1
            totals["cdn_authorization"] += entry["origin"] == "cdn" and entry["authorization"]
            path["requests"] += 1
            path["ranges"] += entry["range"] is not None
            path["authorization"] += entry["authorization"]
            path["statuses"][status] = path["statuses"].get(status, 0) + 1

    def view(self, pattern=None):
        """Everything, or the requests whose path matches; the lock is held."""
        return {"totals": dict(self.totals), "connections": self.connections(),
                "paths": {name: {**path, "statuses": dict(path["statuses"])} for name, path in self.paths.items()},
                "requests": [dict(entry) for entry in self.requests
                             if not pattern or fnmatch.fnmatchcase(entry["path"], pattern)]}
