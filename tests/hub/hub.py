#!/usr/bin/python3
"""The test hub: a model hub as a real HTTP server, with faults on demand.

    tests/hub/hub.py --root DIR [--port N] [--cdn-port N]

It prints "listening on PORT PORT2" and serves until it is ended. PORT is the hub (API, small files), PORT2 its CDN,
a second origin that large files are redirected to. DIR holds

    repos/ORG/NAME/...        the files of a repository, revision main
    repos/ORG/NAME@REV/...    another revision (refs%2Fpr%2F1 for refs/pr/1)
    repos/ORG/NAME.json       {"gated": "auto", "private": true, "tags": [...], "author": "..."}, each optional
    files/...                 plain files, served below /files/ of the hub

The programs under test are pointed at it with HF_ENDPOINT=http://127.0.0.1:PORT. tests/hub/README.md has the control
interface (/_control/...). Standard library only.
"""
import argparse
import base64
import email.utils
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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from civitai import Civitai  # noqa: E402
from faults import Fault  # noqa: E402
from ledger import Ledger, Pacer  # noqa: E402
from origins import Mute, Stuck, only_loopback, server_context  # noqa: E402

LFS_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".onnx", ".onnx_data", ".gguf", ".msgpack", ".model")
LFS_SIZE = 10 << 20
PIECE = 1 << 16
BIG_PIECE = 1 << 20

# What a token may do: "all" reads everything, "public" is a known account without access to gated and private repos.
TOKENS = {"hf_good": "all", "hf_nobody": "public"}

class Refused(Exception):
    """An answer other than the file."""

    def __init__(self, status, code, message, headers=None, padding=0):
        super().__init__(message)
        self.status, self.code, self.message, self.headers, self.padding = status, code, message, headers or {}, padding


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
        self.settings = {"url_ttl_s": 3600, "throttle": 0, "rate": 0, "token": ""}
        self.secret = os.urandom(16)
        self.ports = {"hub": 0, "cdn": 0}
        self.origins = {}  # of those made on demand: name, kind, url, port, ca?
        self.kept = []
        self.uses = {}
        self.repo_settings = {}
        self.ledger = Ledger()
        self.pacer = Pacer()

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
            revision = self.repo_info(repo).get("main")
            if not revision:
                return base
        for name in (revision, urllib.parse.quote(revision, safe="")):
            if "/" not in name and os.path.isdir(f"{base}@{name}"):
                return f"{base}@{name}"
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

    def account(self, token):
        """What a token may read; None if it is nobody's."""
        return "all" if token and token == self.settings["token"] else TOKENS.get(token)

    def check_access(self, repo, token, content):
        """As the real hub: what may not be seen looks as if it was not there; a gate shows only on content."""
        account = None
        if token is not None:
            account = self.account(token)
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

    def sign(self, path, expires, nonce):
        mark = hmac.new(self.secret, f"{path}\n{expires}\n{nonce}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mark[:18]).decode()

    def used_up(self, signature, repo):
        """Counts a use of a signed address."""
        most = self.repo_info(repo).get("url_uses", 0)
        with self.lock:
            self.uses[signature] = self.uses.get(signature, 0) + 1
            return 0 < most < self.uses[signature]

    def cdn_path(self, repo, folder, name):
        revision = os.path.basename(folder).partition("@")[2] or "main"
        return f"/lfs/{urllib.parse.quote(repo)}/{urllib.parse.quote(revision)}/{urllib.parse.quote(name)}"

    def cdn_query(self, path, name):
        expires, nonce = int(time.time() + self.settings["url_ttl_s"]), os.urandom(6).hex()
        disposition = urllib.parse.quote(f'attachment; filename="{os.path.basename(name)}"')
        return (f"response-content-disposition={disposition}&Expires={expires}&Nonce={nonce}"
                f"&Signature={self.sign(path, expires, nonce)}")

    # -------------------------------------------------------------------------------------------
    # Faults

    def add_faults(self, rules):
        faults = []
        with self.lock:
            for rule in rules if isinstance(rules, list) else [rules]:
                faults.append(Fault(self.next_fault, rule))
                self.next_fault += 1
            self.faults.extend(faults)
        return [fault.view() for fault in faults]

    def remove_faults(self, number=None, path=None):
        with self.lock:
            gone = [fault for fault in self.faults if number in (None, fault.number)
                    and path in (None, fault.rule.get("path"))]
            self.faults = [fault for fault in self.faults if fault not in gone]
        for fault in gone:
            fault.gone.set()
        return len(gone)

    def fault_for(self, origin, method, path, headers):
        with self.lock:
            for fault in self.faults:
                if fault.matches(origin, method, path, headers) and fault.take():
                    return fault
        return None

    # -------------------------------------------------------------------------------------------
    # Origins

    def add_origin(self, kind="plain", name=None, host="127.0.0.1"):
        """Another origin: plain or tls serve what the hub serves, mute and stuck never answer. One that exists is answered."""
        name = name or kind
        with self.lock:
            if name in self.origins:
                return self.origins[name]
            made = {"name": name, "kind": kind}
            if kind in ("mute", "stuck"):
                server = {"mute": Mute, "stuck": Stuck}[kind](host)
                made["port"] = server.port
                self.kept.append(server)
            elif kind in ("plain", "tls"):
                server = Server((host, 0), self, name, self.tls_context() if kind == "tls" else None)
                made["port"] = server.server_address[1]
                server.serve()
            else:
                raise ValueError(f"no kind of origin {kind!r}; there are plain, tls, mute, stuck")
            if kind == "tls":
                made["ca"] = os.path.join(self.root, ".tls", "cert.pem")
            shown = "127.0.0.1" if host == "0.0.0.0" else host
            made["url"] = f"{'https' if kind == 'tls' else 'http'}://{shown}:{made['port']}"
            self.origins[name] = made
            return made

    def tls_context(self):
        return server_context(os.path.join(self.root, ".tls"))


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


def ready(sock, events, timeout_s):
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(timeout_s * 1000))


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

    def setup(self):
        self.noted = self.server.noted(self.request)
        if self.server.context:
            self.request.settimeout(self.timeout)
            with self.hub.ledger.lock:
                self.noted.sock = self.request = self.server.context.wrap_socket(self.request, server_side=True,
                                                                                 do_handshake_on_connect=False)
            self.request.do_handshake()
        super().setup()

    def finish(self):
        try:
            super().finish()
        finally:
            self.hub.ledger.ended(self.noted)

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
            self.noted.control = True
            return self.control(method, path[len("/_control/"):])
        self.noted.requests += 1
        self.status = 0
        self.fault = self.hub.fault_for(self.origin, method, path, self.headers)
        self.entry = {
            "origin": self.origin, "method": method, "path": path, "range": self.headers.get("Range"),
            "if_range": self.headers.get("If-Range"), "authorization": "Authorization" in self.headers,
            "user_agent": self.headers.get("User-Agent"), "started": time.time(), "query": url.query,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "peer": self.client_address[0], "connection": self.noted.number,
        }
        self.hub.ledger.begin(self.entry)
        try:
            self.serve(method, path)
        except Refused as refused:
            self.refuse(refused)
        except (BrokenPipeError, ConnectionResetError, socket.timeout):
            self.close_connection = True
        finally:
            self.hub.ledger.end(self.entry, self.status, self.fault.action if self.fault else None)

    @property
    def rule(self):
        return self.fault.rule if self.fault else {}

    @property
    def action(self):
        return self.fault.action if self.fault else None

    def serve(self, method, path):
        if method not in ("GET", "HEAD"):
            raise Refused(405, None, "Method not allowed")
        if self.fault:
            self.fault_before()
        if self.origin == "cdn":
            return self.serve_cdn(path)
        if Civitai(self, Refused).serve(path):
            return None
        if path == "/login":
            return self.instead_html({})
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
            return self.send_file(self.blob(self.hub.folder(repo, revision), revision, name), name, revision)
        if path == "/api/whoami-v2":
            return self.serve_whoami()
        match = re.fullmatch(r"/files/(.+)", path)
        if match:
            return self.send_file(self.plain_file(match.group(1)), match.group(1))
        raise Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def token(self):
        header = self.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def blob(self, folder, revision, name):
        path = os.path.realpath(os.path.join(folder, name))
        if not path.startswith(os.path.realpath(folder) + os.sep) or not os.path.isfile(path):
            raise Refused(404, "EntryNotFound", f"Entry not found: {name} at {revision}" if revision else "Not found")
        return Blob(path)

    def plain_file(self, name):
        return self.blob(os.path.join(self.hub.root, "files"), "", name)

    def serve_whoami(self):
        token = self.token()
        if self.hub.account(token) is None:
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
        if origin in self.hub.origins:
            return self.hub.origins[origin]["url"]
        here = self.headers.get("Host", "127.0.0.1").rsplit(":", 1)[0]
        host = "127.0.0.1" if self.origin in self.hub.origins else here
        return f"http://{host}:{self.hub.ports[origin]}"

    def fill_in(self, location):
        """A location of a rule: {NAME} is the address of an origin."""
        return re.sub(r"\{(\w+)\}", lambda match: self.base(match.group(1)), location)

    def serve_resolve(self, repo, revision, name):
        self.hub.check_access(repo, self.token(), True)
        folder = self.hub.folder(repo, revision)
        commit = self.hub.commit(folder)
        blob = self.blob(folder, revision, name)
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
        expires, signature = self.query.get("Expires", "0"), self.query.get("Signature", "")
        if not hmac.compare_digest(self.hub.sign(raw, expires, self.query.get("Nonce", "")), signature):
            raise Refused(403, None, "SignatureDoesNotMatch")
        if float(expires) < time.time() or self.hub.used_up(signature, match.group(1)):
            raise Refused(403, None, "AccessDenied: Request has expired")
        if "Authorization" in self.headers:
            raise Refused(400, None, "InvalidArgument: Only one auth mechanism allowed; only the signature query string "
                          "parameter or the Authorization header should be specified")
        repo, revision, name = match.groups()
        self.send_file(self.blob(self.hub.folder(repo, revision), revision, name), name)

    # -------------------------------------------------------------------------------------------
    # Answers

    def start(self, status, headers):
        self.status = status
        self.send_response(status)
        for name, value in {**headers, **self.rule.get("headers", {})}.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()

    def push(self, data):
        """Sends all of data, and counts what went out also if the rest does not."""
        view = memoryview(data)
        self.wfile.flush()
        while view:
            sent = self.connection.send(view)
            view = view[sent:]
            self.hub.ledger.sent(self.entry, sent)

    def send_body(self, status, body, kind, headers=None):
        self.start(status, {"Content-Type": kind, "Content-Length": len(body), **(headers or {})})
        if self.command != "HEAD":
            self.push(body)

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
        message = refused.message + "!" * refused.padding
        try:
            if self.origin == "cdn":
                body = f"<?xml version=\"1.0\"?>\n<Error><Message>{message}</Message></Error>"
                self.send_body(refused.status, body.encode(), "application/xml", headers)
            else:
                self.send_json(refused.status, {"error": message}, headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send_file(self, blob, name, commit=None):
        """The file or the range of it that is asked for, or what the fault makes of it."""
        rule, action = self.rule, self.action
        if action == "serve":
            blob = self.plain_file(rule["file"])
        etag, modified, size = self.version(blob)
        headers = {"Content-Type": "application/json" if name.endswith(".json") else "application/octet-stream",
                   "Accept-Ranges": "bytes", "ETag": etag, "Last-Modified": modified, "X-Repo-Commit": commit,
                   "Content-Disposition": self.query.get("response-content-disposition")}
        if action == "unsatisfiable":
            value = rule.get("value", "bytes */{size}")
            raise Refused(416, None, "Range not satisfiable", {"Content-Range": value and value.format(size=size)})
        first, last, status = 0, size - 1, 200
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        weak = etag if etag and not etag.startswith("W/") else None
        if wanted and action != "ignore_range" and condition in (None, weak, modified):
            try:
                found = parse_range(wanted, size)
            except ValueError:
                raise Refused(416, None, "Range not satisfiable", {"Content-Range": f"bytes */{size}"}) from None
            if found:
                first, last = self.bend_range(*found, size)
                status, headers["Content-Range"] = 206, self.content_range(first, last, size)
        self.send_range(blob, status, headers, first, last + 1 - first)

    def version(self, blob):
        """(ETag, Last-Modified, size) as the fault wants them."""
        etag, mtime = blob.etag, blob.mtime
        if self.action == "change_etag":
            etag, mtime = '"%032x"' % self.fault.hits, mtime + self.fault.hits
        if self.action == "weak_etag":
            etag = "W/" + etag
        return etag, email.utils.formatdate(mtime, usegmt=True), blob.size

    def bend_range(self, first, last, size):
        if self.action == "range_shift":
            by = int(self.rule.get("by", 1))
            first, last = min(max(0, first + by), size - 1), min(max(0, last + by), size - 1)
        if self.action == "range_most":
            last = min(last, first + int(self.rule["bytes"]) - 1)
        return first, last

    def content_range(self, first, last, size):
        value = self.rule.get("value", "") if self.action == "content_range" else "bytes {first}-{last}/{size}"
        total = size + (int(self.rule.get("by", 1)) if self.action == "range_total" else 0)
        return value and value.format(first=first, last=last, size=total)

    def send_range(self, blob, status, headers, first, count):
        action, rule = self.action, self.rule
        if action in ("gzip", "multipart", "chunked"):
            with open(blob.path, "rb") as file:
                file.seek(first)
                body = file.read(count)
            return getattr(self, f"send_{action}")(status, headers, body)
        headers["Content-Length"] = count
        if action == "wrong_length":
            headers["Content-Length"] = count + int(rule.get("delta", 1))
        # Of a whole file nobody could tell.
        extra = int(rule.get("extra", 1)) if action == "long_body" and status == 206 else 0
        if extra:
            headers["Content-Length"] = count + extra
        if action == "no_length":
            del headers["Content-Length"]
        if action in ("no_length", "wrong_length", "close", "stall"):
            headers["Connection"] = "close"
        self.start(status, headers)
        if self.command == "HEAD":
            return
        limit = min(count, int(rule.get("bytes", 0))) if action in ("close", "stall") else count
        self.send_pieces(blob, first, limit, int(rule.get("offset", 0)) if action == "corrupt" else None)
        self.push(b"x" * extra)
        if action == "stall":
            self.hold()
        if action in ("close", "stall", "no_length", "wrong_length"):
            self.leave()

    def leave(self):
        self.close_connection = True
        if self.rule.get("reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def send_gzip(self, status, headers, body):
        self.send_body(status, gzip.compress(body, 1), headers.pop("Content-Type"), {**headers, "Content-Encoding": "gzip"})

    def send_multipart(self, status, headers, body):
        span, kind = headers.pop("Content-Range", None), headers.pop("Content-Type")
        if not span:
            return self.send_body(status, body, kind, headers)
        lines = f"--sep\r\nContent-Type: {kind}\r\nContent-Range: {span}\r\n\r\n"
        self.send_body(status, lines.encode() + body + b"\r\n--sep--\r\n", "multipart/byteranges; boundary=sep", headers)

    def send_chunked(self, status, headers, body):
        self.start(status, {**headers, "Transfer-Encoding": "chunked"})
        limit = int(self.rule.get("bytes", len(body)))
        for at in range(0, min(len(body), limit), PIECE):
            piece = body[at:at + PIECE]
            self.connection.sendall(b"%x\r\n" % len(piece))
            self.push(piece[:limit - at])
            if at + len(piece) > limit:
                return self.leave()
            self.connection.sendall(b"\r\n")
        if limit < len(body):
            return self.leave()
        self.connection.sendall(b"0\r\n\r\n")

    # -------------------------------------------------------------------------------------------
    # Bytes, as fast as they may go

    def send_pieces(self, blob, first, count, flip):
        with open(blob.path, "rb") as file:
            self.wfile.flush()
            begun, done, pace = time.monotonic(), 0, None
            while done < count:
                each, together = self.rates()
                if (each, together) != pace:
                    begun, paced, pace = time.monotonic(), 0, (each, together)
                rate = min(each or together, together or each)
                step = min(BIG_PIECE, count - done) if not rate else max(1, min(PIECE, int(rate / 20), count - done))
                sent = self.send_piece(file, first + done, step, flip)
                if not sent:
                    raise BrokenPipeError
                done, paced = done + sent, paced + sent
                self.hub.ledger.sent(self.entry, sent)
                due = max(begun + paced / each if each else 0, self.hub.pacer.due(sent, together) if together else 0)
                if due and done < count and not self.wait(due - time.monotonic()):
                    raise BrokenPipeError

    def rates(self):
        """Bytes a second of this connection and of all together; 0: as fast as it goes. They may change meanwhile."""
        settings = self.hub.settings
        if self.action == "drip" and not self.fault.gone.is_set():
            return float(self.rule.get("bytes_per_s", 1000)), 0.0
        return float(settings["throttle"]), float(settings["rate"])

    def send_piece(self, file, at, count, flip):
        if flip is None and not self.server.context:
            while True:
                try:
                    return os.sendfile(self.connection.fileno(), file.fileno(), at, count)
                except BlockingIOError:
                    if not ready(self.connection, select.POLLOUT, self.timeout):
                        raise BrokenPipeError from None
        file.seek(at)
        piece = bytearray(file.read(count))
        if flip is not None and at <= flip < at + len(piece):
            piece[flip - at] ^= 0xFF
        return self.connection.send(piece)

    def wait(self, seconds):
        """Waits; False if the client left before. A fault that is removed ends its waiting."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.fault and self.fault.gone.is_set():
                return True
            if not ready(self.connection, select.POLLIN, min(left, 0.1)):
                continue
            if self.server.context or not self.connection.recv(1, socket.MSG_PEEK):
                return False
            time.sleep(min(left, 0.1))
        return True

    def hold(self):
        while not self.fault.gone.is_set() and self.wait(0.5):
            pass

    # -------------------------------------------------------------------------------------------
    # The faults that stand in for an answer or come before it

    def fault_before(self):
        stand_in = getattr(self, f"instead_{self.action}", None)
        if stand_in:
            stand_in(self.rule)

    def instead_slow_start(self, rule):
        if not self.wait(float(rule.get("seconds", 5))):
            raise BrokenPipeError

    def instead_slow_headers(self, rule):
        self.status = 200
        self.connection.sendall(b"HTTP/1.1 200 OK\r\nServer: slow\r\n")
        self.hold()
        raise BrokenPipeError

    def instead_hangup(self, rule):
        self.leave()
        raise BrokenPipeError

    def instead_raw(self, rule):
        self.connection.sendall(rule.get("text", "").encode("latin-1"))
        for _ in range(int(rule.get("repeat", 0))):
            self.connection.sendall(rule["again"].encode("latin-1"))
        self.leave()
        raise BrokenPipeError

    def instead_status(self, rule):
        after = rule.get("retry_after")
        raise Refused(int(rule.get("status", 503)), rule.get("code"), rule.get("message", "on demand"),
                      {} if after is None else {"Retry-After": after}, int(rule.get("body_bytes", 0)))

    def instead_rate_limit(self, rule):
        after = rule.get("retry_after", 1)
        headers = {"Retry-After": after}
        if rule.get("date"):
            headers = {"Retry-After": email.utils.formatdate(time.time() + after, usegmt=True)}
        elif rule.get("hub"):
            headers = {"RateLimit": f'"api";r=0;t={after}', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
        raise Refused(int(rule.get("status", 429)), None, "Too many requests", headers)

    def instead_redirect(self, rule):
        where = rule.get("location")
        raise Refused(int(rule.get("status", 302)), None, "elsewhere", {"Location": where and self.fill_in(where)})

    def instead_html(self, rule):
        page = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Please log in.</body></html>"
        self.send_body(200, page, "text/html; charset=utf-8")
        raise BrokenPipeError

    # -------------------------------------------------------------------------------------------
    # Control

    def control(self, method, name):
        try:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            self.fault = None
            self.entry = {"path": "/_control", "bytes": 0}
            text = json.dumps(self.control_answer(method, name, body)).encode()
            self.start(200, {"Content-Type": "application/json; charset=utf-8", "Content-Length": len(text)})
            self.wfile.write(text)
        except (ValueError, KeyError, TypeError) as problem:
            self.send_error(400, str(problem))

    def control_answer(self, method, name, body):
        hub = self.hub
        name, _, number = name.partition("/")
        if name == "faults":
            if method == "POST":
                return hub.add_faults(body)
            if method == "DELETE":
                return {"removed": hub.remove_faults(int(number) if number else None, (body or {}).get("path"))}
            return [fault.view() for fault in hub.faults]
        if name == "log":
            with hub.ledger.lock:
                answer = hub.ledger.view(self.query.get("path"))
                if method == "DELETE":
                    hub.ledger.reset()
            return answer
        if name == "totals":
            with hub.ledger.lock:
                return {**hub.ledger.totals, "connections": hub.ledger.connections()}
        if name == "origins":
            return hub.add_origin(**body) if method == "POST" else list(hub.origins.values())
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

    def __init__(self, address, hub, origin, context=None, outside=False):
        super().__init__(address, Handler, bind_and_activate=False)
        if address[0] == "0.0.0.0" and not outside:
            only_loopback(self.socket)
        self.server_bind()
        self.server_activate()
        self.hub, self.origin, self.context = hub, origin, context
        self.accepted = {}
        if origin in hub.ports:
            hub.ports[origin] = self.server_address[1]

    def get_request(self):
        """Every connection is counted from here on, whether a request ever comes or not."""
        sock, address = super().get_request()
        self.accepted[sock.fileno()] = self.hub.ledger.accepted(self.origin, address[0], sock)
        return sock, address

    def noted(self, sock):
        return self.accepted.pop(sock.fileno())

    def serve(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout, OSError)):
            super().handle_error(request, client_address)


def start(root, host="127.0.0.1", port=0, cdn_port=0):
    """Both origins in threads of this process; returns the hub and its servers."""
    hub = Hub(root)
    servers = [Server((host, port), hub, "hub", outside=True), Server((host, cdn_port), hub, "cdn", outside=True)]
    for server in servers:
        server.serve()
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
