#!/usr/bin/python3
"""The test hub: a model hub as a real HTTP server, with faults on demand.

    tests/hub/hub.py --root DIR [--port N] [--cdn-port N]

It prints "listening on PORT PORT2" and serves until it is ended. PORT is the hub (API, small files), PORT2 its CDN,
a second origin that large files are redirected to. DIR holds

    repos/ORG/NAME/...        the files of a repository, revision main
    repos/ORG/NAME@REV/...    another revision
    repos/ORG/NAME.json       {"gated": "auto", "private": true, "tags": [...], "author": "..."}, each optional
    files/...                 plain files, served below /files/ of the hub

The programs under test are pointed at it with HF_ENDPOINT=http://127.0.0.1:PORT. tests/hub/README.md has the control
interface (/_control/...). Standard library only.
"""
import argparse
import base64
import email.utils
import fnmatch
import gzip
import hashlib
import hmac
import json
import os
import re
import select
import socket
import struct
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LFS_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".onnx", ".onnx_data", ".gguf", ".msgpack", ".model")
LFS_SIZE = 10 << 20
PIECE = 1 << 16
LOG_LIMIT = 20000

# What a token may do: "all" reads everything, "public" is a known account without access to gated and private repos.
TOKENS = {"hf_good": "all", "hf_nobody": "public"}

ACTIONS = {
    "close": "end the connection after `bytes` of the body (reset: true sends a RST)",
    "stall": "send `bytes` of the body, then nothing until the client leaves or the fault is removed",
    "drip": "send the body at `bytes_per_s`",
    "slow_start": "wait `seconds` before the status line",
    "status": "answer `status` (preset 503), with `retry_after` seconds and `code`, `message` for the X-Error headers",
    "rate_limit": "answer 429 with Retry-After: `retry_after` seconds; date: true gives it as an HTTP date",
    "wrong_length": "announce `delta` bytes more (or less) than are sent",
    "no_length": "send no Content-Length, end the body by closing",
    "ignore_range": "answer 200 and the whole file to a range request",
    "change_etag": "answer with an ETag and Last-Modified of another version",
    "corrupt": "turn over the byte at `offset` (preset 0)",
    "html": "answer 200 and a login page",
    "gzip": "answer the body gzipped, asked or not",
    "redirect": "answer 302 to `location`",
}


class Refused(Exception):
    """An answer other than the file."""

    def __init__(self, status, code, message, headers=None):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class Fault:
    """One rule: which requests, how often, and what happens to them."""

    def __init__(self, number, rule):
        action = rule.get("action")
        if action not in ACTIONS:
            raise ValueError(f"no action {action!r}; there are {', '.join(ACTIONS)}")
        self.number = number
        self.rule = rule
        self.action = action
        self.skip = int(rule.get("skip", 0))
        self.left = int(rule["count"]) if rule.get("count") else None
        self.hits = 0
        self.gone = threading.Event()

    def matches(self, origin, method, path, ranged):
        rule = self.rule
        return (
            (self.left is None or self.left > 0)
            and rule.get("origin") in (None, origin)
            and rule.get("method", "GET") in (None, "*", method)
            and ("range" not in rule or bool(rule["range"]) == ranged)
            and fnmatch.fnmatchcase(path, rule.get("path", "*"))
        )

    def take(self):
        """Counts a matching request; True if the fault is for it."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        self.hits += 1
        return True

    def view(self):
        return {"id": self.number, "hits": self.hits, "left": self.left, **self.rule}


class Blob:
    """A file as the hub shows it. Digests are made once for each version of the file."""

    _lock = threading.Lock()
    _digests = {}

    def __init__(self, path):
        self.path = path
        info = os.stat(path)
        self.size = info.st_size
        self.mtime = int(info.st_mtime)
        self._key = (path, info.st_size, info.st_mtime_ns)

    def _digest(self):
        with Blob._lock:
            found = Blob._digests.get(self._key)
        if found:
            return found
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % self.size)
        lfs = self.lfs
        with open(self.path, "rb") as file:
            while piece := file.read(1 << 20):
                sha256.update(piece)
                if not lfs:
                    git.update(piece)
        found = (sha256.hexdigest(), git.hexdigest())
        with Blob._lock:
            Blob._digests[self._key] = found
        return found

    @property
    def lfs(self):
        return self.path.endswith(LFS_SUFFIXES) or self.size >= LFS_SIZE

    @property
    def sha256(self):
        return self._digest()[0]

    @property
    def oid(self):
        return self._digest()[1]

    @property
    def etag(self):
        return '"%s"' % (self.sha256 if self.lfs else self.oid)


class Hub:
    """What both origins share: the files, the faults, the log."""

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.lock = threading.Lock()
        self.faults = []
        self.next_fault = 1
        self.settings = {"url_ttl_s": 3600, "throttle": 0}
        self.secret = os.urandom(16)
        self.ports = {"hub": 0, "cdn": 0}
        self.repo_settings = {}
        self.reset_log()

    def reset_log(self):
        self.requests = []
        self.paths = {}
        self.totals = {"requests": 0, "bytes": 0, "cdn_authorization": 0, "open": 0, "max_open": 0}

    # -------------------------------------------------------------------------------------------
    # Repositories

    def repo_info(self, repo):
        info = {}
        try:
            with open(os.path.join(self.root, "repos", repo + ".json"), encoding="utf-8") as file:
                info.update(json.load(file))
        except FileNotFoundError:
            pass
        info.update(self.repo_settings.get(repo, {}))
        return info

    def folder(self, repo, revision):
        """The folder of a revision; a revision may be a name or the commit id of one."""
        base = os.path.join(self.root, "repos", repo)
        if not os.path.isdir(base):
            raise Refused(404, "RepoNotFound", "Repository not found")
        if revision == "main":
            return base
        if "/" not in revision and os.path.isdir(f"{base}@{revision}"):
            return f"{base}@{revision}"
        for folder in self.revisions(repo):
            if self.commit(folder) == revision:
                return folder
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def revisions(self, repo):
        base = os.path.join(self.root, "repos", repo)
        above, name = os.path.split(base)
        for entry in sorted(os.listdir(above)):
            if entry == name or entry.startswith(name + "@"):
                yield os.path.join(above, entry)

    def files(self, folder):
        for above, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                if not name.startswith(".hub"):
                    yield os.path.relpath(os.path.join(above, name), folder)

    def commit(self, folder):
        """Forty hex digits that change when the content does."""
        text = hashlib.sha1(os.path.relpath(folder, self.root).encode())
        for name in sorted(self.files(folder)):
            info = os.stat(os.path.join(folder, name))
            text.update(f"{name}\0{info.st_size}\0{info.st_mtime_ns}\0".encode())
        return text.hexdigest()

    def check_access(self, repo, token, content):
        """As the real hub: what may not be seen looks as if it was not there; a gate shows only on content."""
        account = None
        if token is not None:
            account = TOKENS.get(token)
            if account is None:
                raise Refused(401, None, "Invalid credentials in Authorization header")
        info = self.repo_info(repo)
        there = os.path.isdir(os.path.join(self.root, "repos", repo))
        if not there or (info.get("private") and account != "all"):
            raise Refused(404 if account else 401, "RepoNotFound",
                          "Repository not found" if account else "Invalid username or password.")
        if content and info.get("gated") and account != "all":
            words = f"Access to model {repo} is restricted"
            if account is None:
                raise Refused(401, "GatedRepo", f"{words}. You must have access to it and be authenticated to access it. "
                              "Please log in.")
            raise Refused(403, "GatedRepo", f"{words} and you are not in the authorized list. Visit "
                          f"http://127.0.0.1:{self.ports['hub']}/{repo} to ask for access.")

    def model(self, repo, revision, blobs):
        folder = self.folder(repo, revision)
        info = self.repo_info(repo)
        siblings, newest = [], 0
        for name in sorted(self.files(folder)):
            blob = Blob(os.path.join(folder, name))
            newest = max(newest, blob.mtime)
            entry = {"rfilename": name.replace(os.sep, "/")}
            if blobs:
                entry.update(size=blob.size, blobId=blob.oid)
                if blob.lfs:
                    entry["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
            siblings.append(entry)
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(newest))
        return {
            "_id": hashlib.sha1(repo.encode()).hexdigest()[:24], "id": repo, "modelId": repo,
            "author": info.get("author", repo.split("/")[0]), "sha": self.commit(folder), "lastModified": date,
            "createdAt": date, "private": bool(info.get("private")), "gated": info.get("gated", False),
            "disabled": False, "downloads": 0, "likes": 0, "tags": info.get("tags", ["diffusers", "safetensors"]),
            "pipeline_tag": info.get("pipeline_tag", "text-to-image"), "library_name": "diffusers",
            "cardData": info.get("cardData", {}), "siblings": siblings,
        }

    def tree(self, repo, revision, below, recursive):
        folder = self.folder(repo, revision)
        entries, folders = [], set()
        for name in sorted(self.files(folder)):
            name = name.replace(os.sep, "/")
            if below and not name.startswith(below + "/"):
                continue
            rest = name[len(below) + 1:] if below else name
            for depth in range(1, rest.count("/") + 1):
                folders.add("/".join(([below] if below else []) + rest.split("/")[:depth]))
            if "/" in rest and not recursive:
                continue
            blob = Blob(os.path.join(folder, name))
            entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": name}
            if blob.lfs:
                entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
            entries.append(entry)
        depth = below.count("/") + 1 if below else 0
        dirs = [{"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
                for name in sorted(folders) if recursive or name.count("/") == depth]
        if below and not entries and not dirs:
            raise Refused(404, "EntryNotFound", f"{below} does not exist on \"{revision}\"")
        return dirs + entries

    # -------------------------------------------------------------------------------------------
    # Signed addresses of the CDN

    def sign(self, path, expires):
        mark = hmac.new(self.secret, f"{path}\n{expires}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mark[:18]).decode()

    def cdn_path(self, repo, folder, name):
        revision = os.path.basename(folder).partition("@")[2] or "main"
        return f"/lfs/{urllib.parse.quote(repo)}/{urllib.parse.quote(revision)}/{urllib.parse.quote(name)}"

    def cdn_query(self, path, name):
        expires = int(time.time() + self.settings["url_ttl_s"])
        disposition = urllib.parse.quote(f'attachment; filename="{os.path.basename(name)}"')
        return f"response-content-disposition={disposition}&Expires={expires}&Signature={self.sign(path, expires)}"

    # -------------------------------------------------------------------------------------------
    # Faults and the log

    def add_faults(self, rules):
        faults = []
        with self.lock:
            for rule in rules if isinstance(rules, list) else [rules]:
                faults.append(Fault(self.next_fault, rule))
                self.next_fault += 1
            self.faults.extend(faults)
        return [fault.view() for fault in faults]

    def remove_faults(self, number=None):
        with self.lock:
            gone = [fault for fault in self.faults if number in (None, fault.number)]
            self.faults = [fault for fault in self.faults if fault not in gone]
        for fault in gone:
            fault.gone.set()
        return len(gone)

    def fault_for(self, origin, method, path, ranged):
        with self.lock:
            for fault in self.faults:
                if fault.matches(origin, method, path, ranged) and fault.take():
                    return fault
        return None

    def note_start(self):
        with self.lock:
            self.totals["open"] += 1
            self.totals["max_open"] = max(self.totals["max_open"], self.totals["open"])

    def note_end(self, entry):
        with self.lock:
            totals = self.totals
            totals["open"] -= 1
            totals["requests"] += 1
            totals["bytes"] += entry["bytes"]
            if entry["origin"] == "cdn" and entry["authorization"]:
                totals["cdn_authorization"] += 1
            if len(self.requests) < LOG_LIMIT:
                self.requests.append(entry)
            path = self.paths.setdefault(entry["path"], {"requests": 0, "bytes": 0, "ranges": 0, "authorization": 0,
                                                         "statuses": {}})
            path["requests"] += 1
            path["bytes"] += entry["bytes"]
            path["ranges"] += entry["range"] is not None
            path["authorization"] += entry["authorization"]
            status = str(entry["status"])
            path["statuses"][status] = path["statuses"].get(status, 0) + 1


def parse_range(text, size):
    """(first, last) of a one-range header; None if it is to be ignored; ValueError if it cannot be satisfied."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if not match or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        count = int(last)
        if count == 0 or size == 0:
            raise ValueError
        return max(0, size - count), size - 1
    first, last = int(first), int(last) if last else size - 1
    if first >= size:
        raise ValueError
    if last < first:
        return None
    return first, min(last, size - 1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lade-test-hub"
    sys_version = ""
    timeout = 120
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    @property
    def hub(self):
        return self.server.hub

    @property
    def origin(self):
        return self.server.origin

    def do_GET(self):
        self.answer("GET")

    def do_HEAD(self):
        self.answer("HEAD")

    def do_POST(self):
        self.answer("POST")

    def do_DELETE(self):
        self.answer("DELETE")

    # -------------------------------------------------------------------------------------------
    # One request

    def answer(self, method):
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        if path.startswith("/_control/"):
            return self.control(method, path[len("/_control/"):])
        self.status, self.sent = 0, 0
        self.fault = self.hub.fault_for(self.origin, method, path, "Range" in self.headers)
        self.hub.note_start()
        started = time.time()
        try:
            self.serve(method, path)
        except Refused as refused:
            self.refuse(refused)
        except (BrokenPipeError, ConnectionResetError, socket.timeout):
            self.close_connection = True
        finally:
            self.hub.note_end({
                "origin": self.origin, "method": method, "path": path, "status": self.status, "bytes": self.sent,
                "range": self.headers.get("Range"), "if_range": self.headers.get("If-Range"),
                "authorization": "Authorization" in self.headers, "user_agent": self.headers.get("User-Agent"),
                "fault": self.fault.action if self.fault else None, "started": started, "seconds": time.time() - started,
            })

    def serve(self, method, path):
        if method not in ("GET", "HEAD"):
            raise Refused(405, None, "Method not allowed")
        if self.fault:
            self.fault_before()
        if self.origin == "cdn":
            return self.serve_cdn(path)
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        if match:
            repo, revision = match.groups()
            self.hub.check_access(repo, self.token(), False)
            blobs = self.query.get("blobs", "").lower() in ("1", "true")
            return self.send_json(200, self.hub.model(repo, revision or "main", blobs))
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", path)
        if match:
            return self.serve_tree(*match.groups())
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match:
            return self.serve_resolve(*match.groups())
        match = re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path)
        if match:
            repo, revision, name = match.groups()
            self.hub.check_access(repo, self.token(), True)
            return self.send_file(self.entry(self.hub.folder(repo, revision), revision, name), name, revision)
        if path == "/api/whoami-v2":
            return self.serve_whoami()
        match = re.fullmatch(r"/files/(.+)", path)
        if match:
            return self.send_file(self.entry(os.path.join(self.hub.root, "files"), "", match.group(1)), match.group(1))
        raise Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def token(self):
        header = self.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def entry(self, folder, revision, name):
        path = os.path.realpath(os.path.join(folder, name))
        if not path.startswith(os.path.realpath(folder) + os.sep) or not os.path.isfile(path):
            raise Refused(404, "EntryNotFound", f"Entry not found: {name} at {revision}" if revision else "Not found")
        return Blob(path)

    def serve_whoami(self):
        token = self.token()
        if TOKENS.get(token) is None:
            raise Refused(401, None, "Invalid credentials in Authorization header")
        self.send_json(200, {"type": "user", "name": token.partition("_")[2], "auth": {"type": "access_token"}})

    def serve_tree(self, repo, revision, below):
        self.hub.check_access(repo, self.token(), False)
        recursive = self.query.get("recursive", "").lower() in ("1", "true")
        entries = self.hub.tree(repo, revision, (below or "").strip("/"), recursive)
        limit, start = int(self.query.get("limit", 1000)), int(self.query.get("cursor", 0))
        headers = {}
        if start + limit < len(entries):
            query = urllib.parse.urlencode({**self.query, "cursor": start + limit})
            headers["Link"] = f"<{self.base('hub')}{urllib.parse.urlsplit(self.path).path}?{query}>; rel=\"next\""
        self.send_json(200, entries[start:start + limit], headers)

    def base(self, origin):
        host = self.headers.get("Host", "127.0.0.1").rsplit(":", 1)[0]
        return f"http://{host}:{self.hub.ports[origin]}"

    def serve_resolve(self, repo, revision, name):
        self.hub.check_access(repo, self.token(), True)
        folder = self.hub.folder(repo, revision)
        commit = self.hub.commit(folder)
        blob = self.entry(folder, revision, name)
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(blob.size), "X-Linked-Etag": blob.etag,
                   "Accept-Ranges": "bytes", "Vary": "Origin, Accept", "ETag": blob.etag}
        if blob.lfs:
            path = self.hub.cdn_path(repo, folder, name)
            where = f"{self.base('cdn')}{path}?{self.hub.cdn_query(path, name)}"
            return self.redirect(302, where, headers)
        self.redirect(307, f"/api/resolve-cache/models/{repo}/{commit}/{urllib.parse.quote(name)}", headers)

    def serve_cdn(self, path):
        match = re.fullmatch(r"/lfs/([^/]+/[^/]+)/([^/]+)/(.+)", path)
        if not match:
            raise Refused(404, None, "NoSuchKey")
        raw = urllib.parse.urlsplit(self.path).path
        expires = self.query.get("Expires", "0")
        if not hmac.compare_digest(self.hub.sign(raw, expires), self.query.get("Signature", "")):
            raise Refused(403, None, "SignatureDoesNotMatch")
        if float(expires) < time.time():
            raise Refused(403, None, "AccessDenied: Request has expired")
        if "Authorization" in self.headers:
            raise Refused(400, None, "InvalidArgument: Only one auth mechanism allowed; only the signature query string "
                          "parameter or the Authorization header should be specified")
        repo, revision, name = match.groups()
        self.send_file(self.entry(self.hub.folder(repo, revision), revision, name), name)

    # -------------------------------------------------------------------------------------------
    # Answers

    def start(self, status, headers):
        self.status = status
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()

    def send_body(self, status, body, kind, headers=None):
        self.start(status, {"Content-Type": kind, "Content-Length": len(body), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)
            self.sent += len(body)

    def send_json(self, status, value, headers=None):
        self.send_body(status, json.dumps(value).encode(), "application/json; charset=utf-8", headers)

    def redirect(self, status, where, headers):
        words = f"Found. Redirecting to {where}"
        self.send_body(status, words.encode(), "text/plain; charset=utf-8", {"Location": where, **headers})

    def refuse(self, refused):
        headers = dict(refused.headers)
        if refused.code:
            headers["X-Error-Code"] = refused.code
        headers["X-Error-Message"] = refused.message
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
        try:
            if self.origin == "cdn":
                body = f"<?xml version=\"1.0\"?>\n<Error><Message>{refused.message}</Message></Error>"
                self.send_body(refused.status, body.encode(), "application/xml", headers)
            else:
                self.send_json(refused.status, {"error": refused.message}, headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send_file(self, blob, name, commit=None):
        etag, modified, size = blob.etag, email.utils.formatdate(blob.mtime, usegmt=True), blob.size
        action = self.fault.action if self.fault else None
        if action == "change_etag":
            etag, modified = '"%032x"' % self.fault.hits, email.utils.formatdate(blob.mtime + self.fault.hits, usegmt=True)
        headers = {"Content-Type": "application/json" if name.endswith(".json") else "application/octet-stream",
                   "Accept-Ranges": "bytes", "ETag": etag, "Last-Modified": modified, "X-Repo-Commit": commit,
                   "Content-Disposition": self.query.get("response-content-disposition")}
        first, last, status = 0, size - 1, 200
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if wanted and action != "ignore_range" and condition in (None, etag, modified):
            try:
                found = parse_range(wanted, size)
            except ValueError:
                raise Refused(416, None, "Range not satisfiable", {"Content-Range": f"bytes */{size}"}) from None
            if found:
                (first, last), status = found, 206
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.send_range(blob, status, headers, first, last + 1 - first)

    def send_range(self, blob, status, headers, first, count):
        action, rule = (self.fault.action, self.fault.rule) if self.fault else (None, {})
        if action == "gzip":
            with open(blob.path, "rb") as file:
                file.seek(first)
                body = gzip.compress(file.read(count), 1)
            return self.send_body(status, body, headers.pop("Content-Type"), {**headers, "Content-Encoding": "gzip"})
        headers["Content-Length"] = count + int(rule.get("delta", 1)) if action == "wrong_length" else count
        if action == "no_length":
            del headers["Content-Length"]
        if action in ("no_length", "wrong_length", "close", "stall"):
            headers["Connection"] = "close"
        self.start(status, headers)
        if self.command == "HEAD":
            return
        limit = min(count, int(rule.get("bytes", 0))) if action in ("close", "stall") else count
        rate = float(rule.get("bytes_per_s", 1000)) if action == "drip" else float(self.hub.settings["throttle"])
        self.send_pieces(blob, first, limit, rate, int(rule.get("offset", 0)) if action == "corrupt" else None)
        if action == "stall":
            self.hold()
        if action == "close" and rule.get("reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if action in ("close", "stall", "no_length", "wrong_length"):
            self.close_connection = True

    def send_pieces(self, blob, first, count, rate, flip):
        with open(blob.path, "rb") as file:
            if not rate and flip is None:
                self.wfile.flush()
                while count > 0:
                    sent = self.connection.sendfile(file, first, min(count, 8 << 20))
                    if not sent:
                        break
                    first, count, self.sent = first + sent, count - sent, self.sent + sent
                return
            file.seek(first)
            begun, done = time.monotonic(), 0
            step = PIECE if not rate else max(1, min(PIECE, int(rate / 20)))
            while count > 0:
                piece = bytearray(file.read(min(step, count)))
                if not piece:
                    break
                if flip is not None and first + done <= flip < first + done + len(piece):
                    piece[flip - first - done] ^= 0xFF
                self.connection.sendall(piece)
                done, count, self.sent = done + len(piece), count - len(piece), self.sent + len(piece)
                if rate and count > 0 and not self.wait(begun + done / rate - time.monotonic()):
                    raise BrokenPipeError

    def wait(self, seconds):
        """Waits; False if the client left before. A fault that is removed ends its waiting."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.fault and self.fault.gone.is_set():
                return True
            ready, _, _ = select.select([self.connection], [], [], min(left, 0.1))
            if ready and not self.connection.recv(1, socket.MSG_PEEK):
                return False
            if ready:
                time.sleep(min(left, 0.1))
        return True

    def hold(self):
        while not self.fault.gone.is_set() and self.wait(0.5):
            pass

    def fault_before(self):
        """The faults that stand in for an answer or come before it."""
        rule, action = self.fault.rule, self.fault.action
        if action == "slow_start" and not self.wait(float(rule.get("seconds", 5))):
            raise BrokenPipeError
        if action == "status":
            after = rule.get("retry_after")
            raise Refused(int(rule.get("status", 503)), rule.get("code"), rule.get("message", "on demand"),
                          {} if after is None else {"Retry-After": after})
        if action == "rate_limit":
            after = rule.get("retry_after", 1)
            if rule.get("date"):
                after = email.utils.formatdate(time.time() + after, usegmt=True)
            raise Refused(429, None, "Too many requests", {"Retry-After": after})
        if action == "redirect":
            raise Refused(302, None, "elsewhere", {"Location": rule["location"]})
        if action == "html":
            page = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Please log in.</body></html>"
            self.send_body(200, page, "text/html; charset=utf-8")
            raise BrokenPipeError

    # -------------------------------------------------------------------------------------------
    # Control

    def control(self, method, name):
        try:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            self.status, self.sent = 200, 0
            self.send_json(200, self.control_answer(method, name, body))
        except (ValueError, KeyError, TypeError) as problem:
            self.send_json(400, {"error": str(problem)})

    def control_answer(self, method, name, body):
        hub = self.hub
        name, _, number = name.partition("/")
        if name == "faults":
            if method == "POST":
                return hub.add_faults(body)
            if method == "DELETE":
                return {"removed": hub.remove_faults(int(number) if number else None)}
            return [fault.view() for fault in hub.faults]
        if name == "log":
            with hub.lock:
                answer = {"totals": dict(hub.totals), "paths": json.loads(json.dumps(hub.paths)),
                          "requests": list(hub.requests)}
                if method == "DELETE":
                    hub.reset_log()
            return answer
        if name == "settings":
            if method == "POST":
                unknown = set(body) - set(hub.settings)
                if unknown:
                    raise ValueError(f"no setting {', '.join(sorted(unknown))}")
                hub.settings.update(body)
            return hub.settings
        if name == "repos" and method == "POST":
            hub.repo_settings[body.pop("repo")] = body
            return hub.repo_settings
        raise ValueError(f"no control {name!r}")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address, hub, origin):
        super().__init__(address, Handler)
        self.hub, self.origin = hub, origin
        hub.ports[origin] = self.server_address[1]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


def start(root, host="127.0.0.1", port=0, cdn_port=0):
    """Both origins in threads of this process; returns the hub and its servers."""
    hub = Hub(root)
    servers = [Server((host, port), hub, "hub"), Server((host, cdn_port), hub, "cdn")]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return hub, servers


def main():
    parser = argparse.ArgumentParser(description="A model hub for tests; tests/hub/README.md has the rest.")
    parser.add_argument("--root", required=True, help="folder with repos/ and files/")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="of the hub (0: any)")
    parser.add_argument("--cdn-port", type=int, default=0, help="of the second origin (0: any)")
    parser.add_argument("--throttle", type=float, default=0, help="bytes a second for each connection (0: no limit)")
    args = parser.parse_args()
    hub, servers = start(args.root, args.host, args.port, args.cdn_port)
    hub.settings["throttle"] = args.throttle
    print(f"listening on {hub.ports['hub']} {hub.ports['cdn']}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    for server in servers:
        server.shutdown()


if __name__ == "__main__":
    main()
