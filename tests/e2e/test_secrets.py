"""Tokens: given once, kept across restarts, and seen by nobody but the origin they are for."""
import filecmp
import glob
import http.server
import json
import os
import re
import resource
import secrets
import signal
import socketserver
import subprocess
import threading

from lib import samples
from lib.skip import Skip
from lib.world import BUILD, World

LIMIT_S = 240
DEBUG = {"log_level": "debug"}


# ---------------------------------------------------------------------------------------------------
# Looking everywhere

def files_below(folder):
    for above, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def has(path, words):
    """Whether a file has the words, also where the file is larger than memory should be used for."""
    keep = len(words) - 1
    with open(path, "rb") as file:
        before = b""
        while piece := file.read(1 << 20):
            if words in before + piece:
                return True
            before = piece[-keep:]
    return False


def store(world):
    return os.path.join(world.data, "secrets", "tokens")


def kept(world, token):
    """Whether the secret store has the token."""
    try:
        return has(store(world), token.encode())
    except FileNotFoundError:
        return False


def shown(world):
    """All that whoever may ask is told."""
    answers = [world.call(*what) for what in (("jobs", "list"), ("install", "list_jobs"), ("download", "list_jobs"),
                                              ("events", "snapshot"), ("broker", "status"), ("broker", "workers"),
                                              ("broker", "gates"), ("broker", "metrics"), ("store", "all_models"))]
    answers.append(world.call("events", "since", seq=0, limit=100000))
    for job in world.call("jobs", "list", limit=100000):
        answers.append(world.call("jobs", "why", id=job["id"]))
        answers.append(world.lade("job", job["id"], "--json").stdout)
        answers.append(world.lade("job", job["id"]).stdout)
    answers += [world.lade("jobs", "--json").stdout, world.lade("jobs").stdout, world.lade("config").stdout,
                world.lade("status", "--json").stdout]
    return repr(answers)


def command_lines():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                yield path, file.read()
        except OSError:
            pass


def nobody_sees(world, token, events=()):
    """No file of ours but the one for it, no log, answer, event or command line has the token."""
    for path in files_below(world.data):
        if path != store(world):
            assert not has(path, token.encode()), f"{path} has the token"
    for path in files_below(world.logs):
        assert os.path.basename(path) == "hub.log" or not has(path, token.encode()), f"{path} has the token"
    for path, line in command_lines():
        assert token.encode() not in line, f"{path} has the token"
    assert token not in repr(list(events)), "an event has the token"
    assert token not in shown(world), "an answer has the token"


def drain(events):
    """What was told until now: a beat comes last."""
    seen = []
    while (event := events.receive(10)) is not None:
        seen.append(event)
        if event["event"] == "broker_beat":
            return seen
    raise AssertionError("the broker tells no beats")


def until(events, seen, wanted, timeout_s=60):
    """Notes what is told until it is that."""
    while (event := events.receive(timeout_s)) is not None:
        seen.append(event)
        if wanted(event):
            return event
    raise AssertionError(f"not told: {seen[-5:]}")


# ---------------------------------------------------------------------------------------------------
# kill -9

def signature(world, name):
    """What signs the address that the hub redirected to last: as good as a token while it lasts."""
    queries = [one["query"] for one in world.hub.log()["requests"] if one["origin"] == "cdn" and name in one["query"]]
    return re.search("Signature=([^&]+)", queries[-1])[1]


def restart(world, processes):
    for process in processes:
        process.kill()
    return world.start("broker", "download", "install")


def test_gated_sources_go_on_with_their_token_after_kill_9():
    """An install and a download with a token; every process is killed twice in between."""
    token = "hf_" + secrets.token_hex(16)
    with World(DEBUG) as world:
        folder = samples.pipeline(world.hub.repo("org/gated"))
        big = os.path.join(folder, "big.bin")
        with open(big, "wb") as file:
            file.write(os.urandom(8 << 20))
        world.hub.repo_settings("org/gated", gated="auto")
        world.hub.settings(token=token, throttle=200000)
        processes = world.start("broker", "download", "install")
        events, seen = world.events(), []
        drain(events)
        source = f"{world.hub.url}/org/gated/resolve/main/big.bin"
        target = os.path.join(world.data, "fetched.bin")
        download = world.call("download", "create_download_job", source=source, destination=target, access_token=token)
        with open(os.path.join(world.folder, "token"), "w", encoding="utf-8") as file:
            file.write(token + "\n")
        (install,) = world.lade_json("install", "org/gated", "--token", f"@{file.name}", "--no-wait")
        for _ in range(2):
            until(events, seen, lambda event: event["event"] == "download_running" and event["id"] == download["id"]
                  and event["bytes"] > 0)
            assert kept(world, token)
            nobody_sees(world, token, seen)
            nobody_sees(world, signature(world, "big.bin"), seen)
            processes = restart(world, processes)
        world.hub.settings(throttle=0)
        done = world.call("jobs", "wait", ids=[download["id"], install["id"]], timeout_s=90)
        assert [job["status"] for job in done] == ["completed", "completed"], done
        assert filecmp.cmp(target, big, shallow=False)
        seen += drain(events)
        nobody_sees(world, token, seen)
        asked = [one for one in world.hub.log()["requests"] if one["origin"] == "hub" and "/resolve/" in one["path"]]
        assert len(asked) > 3 and all(one["headers"].get("authorization") == f"Bearer {token}" for one in asked), asked
        assert world.hub.log()["totals"]["cdn_authorization"] == 0, "the token went to another origin"
        nobody_sees(world, signature(world, "big.bin"), seen)
        assert kept(world, token), "ended jobs can be retried"
        assert os.stat(store(world)).st_mode & 0o7777 == 0o600
        world.lade("prune")
        world.eventually(lambda: not kept(world, token))
        nobody_sees(world, token)


def test_what_was_answered_is_kept_through_kill_9():
    """The broker is killed at the moment it has answered: the job is there, and so is its token."""
    with World(DEBUG) as world:
        for number in range(3):
            token, state = secrets.token_hex(16), secrets.token_hex(16)
            broker = world.start("broker")
            job = world.call("jobs", "submit", kind=f"kind{number}", spec={"access_token": token})
            broker.kill()
            broker = world.start("broker")
            worker = world.worker(f"kind{number}")
            worker.hello()
            given = worker.job()
            assert given["id"] == job["id"] and given["spec"]["access_token"] == token, given
            worker.await_jobs(given, {"token": state, "step": 1}, [])
            worker.settle()
            broker.kill()
            world.start("broker")
            given = worker.job()
            assert given["state"] == {"token": state, "step": 1} and given["spec"]["access_token"] == token, given
            worker.done(given)
            worker.settle()
            worker.bye()
            nobody_sees(world, token)
            nobody_sees(world, state)
            for process in [process for process in world.processes if process.alive]:
                process.kill()


def test_a_token_typed_on_the_command_line_does_not_stay_there():
    token = "hf_" + secrets.token_hex(16)
    with World(DEBUG) as world:
        samples.pipeline(world.hub.repo("org/gated"))
        world.hub.repo_settings("org/gated", gated="auto")
        world.hub.settings(token=token, throttle=20000)
        world.start("broker", "download", "install")
        for given in (["--token", token], [f"--token={token}"]):
            lade = world.spawn("lade", [os.path.join(BUILD, "lade"), "--data", world.data, "install", "org/gated", *given])
            job = world.eventually(lambda: [job for job in world.call("install", "list_jobs") if job["status"] == "downloading"])[0]
            with open(f"/proc/{lade.pid}/cmdline", "rb") as file:
                line = file.read()
            assert b"install" in line and token.encode() not in line, line
            nobody_sees(world, token)
            world.call("install", "cancel_job", id=job["id"])
            lade.killed = True  # its install was cancelled, so it ends with 1
            lade.popen.wait(30)
        world.hub.settings(throttle=0)


def test_a_token_in_a_settings_flag_does_not_stay_there():
    token = "hf_" + secrets.token_hex(16)
    with World(DEBUG) as world:
        samples.pipeline(world.hub.repo("org/gated"))
        world.hub.repo_settings("org/gated", gated="auto")
        world.hub.settings(token=token)
        up = world.spawn("up", [os.path.join(BUILD, "lade"), "up", "--data", world.data, "--set", f"hub.token={token}"])
        world.wait_ready({"download", "install", "load"})
        up.line("Ctrl-C ends it")
        nobody_sees(world, token)
        job = world.install("org/gated")
        assert job["status"] == "completed", job
        nobody_sees(world, token)
        assert not kept(world, token), "the hub's own token is no job's"


def test_a_lost_secret_is_asked_for():
    """The keyspace of a copy, without the secrets."""
    token = "hf_" + secrets.token_hex(16)
    with World(DEBUG) as world:
        samples.pipeline(world.hub.repo("org/gated"))
        world.hub.repo_settings("org/gated", gated="auto")
        world.hub.settings(token=token)
        broker = world.start("broker")
        job = world.call("install", "heuristic_import", source="org/gated", access_token=token)
        broker.stop()
        os.remove(store(world))
        world.start("broker", "download", "install")
        job = world.call("install", "wait_for_job", id=job["id"], timeout_s=60)
        assert (job["status"], job["error_type"]) == ("error", "auth_required"), job
        assert "submit it again" in job["error"], job
        assert world.lade("retry", job["id"], status=None).returncode in (0, 5)
        again = world.call("install", "wait_for_job", id=job["id"], timeout_s=60)
        assert again["error_type"] == "auth_required", again
        done = world.install("org/gated", access_token=token)
        assert done["status"] == "completed", done
        nobody_sees(world, token)


# ---------------------------------------------------------------------------------------------------
# Origins of the test's own: they note all they are sent

class Origin(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Answers each path by a function of the request; notes line and headers of every request."""

    daemon_threads = True

    def __init__(self, answers, host="127.0.0.1"):
        self.answers, self.requests = answers, []
        super().__init__((host, 0), Handler)
        self.url = f"http://{host}:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that hung up

    def text(self):
        return "\n".join(self.requests)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append(f"{self.requestline}\n{self.headers}")
        status, headers, body = self.server.answers(self)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if status == 200 and span:
            first, last = int(span[1]), min(int(span[2] or len(body) - 1), len(body) - 1)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(body)}"}
            status, body = 206, body[first:last + 1]
        self.send_response(status)
        for key, value in {"Content-Length": len(body), "Accept-Ranges": "bytes", "ETag": '"one"', **headers}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def fetch(world, source, **args):
    target = os.path.join(world.folder, f"got-{secrets.token_hex(4)}")
    job = world.call("download", "create_download_job", source=source, destination=target, **args)
    return world.call("download", "wait_for_job", id=job["id"], timeout_s=60), target


BODY = b"weights " * 10000


def test_a_token_stays_at_its_origin_through_any_redirects():
    """A redirects to B, B back to A, A to C: A sees its token, B and C see nothing of it."""
    token = "tok" + secrets.token_hex(16)
    links = {}

    def go_on(request):
        path = request.path.partition("?")[0]
        return (302, {"Location": links[path]}, b"elsewhere") if path in links else (200, {}, BODY)

    with World(DEBUG) as world, Origin(go_on) as a, Origin(go_on) as b, Origin(go_on, "127.0.0.2") as c:
        port = a.server_port
        links.update({
            "/there": f"{b.url}/plain",
            "/and-back": f"{b.url}/back", "/back": f"{a.url}/from-b", "/from-b": f"{c.url}/end",
            "/user": f"http://127.0.0.1:{port}@127.0.0.1:{b.server_port}/plain",
            "/query": f"{b.url}/plain?next=http://127.0.0.1:{port}/there",
            "/slashes": f"//127.0.0.1:{b.server_port}/plain",
            "/name": f"http://localhost:{port}/plain",
        })
        world.start("broker", "download")
        for path in ("/plain", "/there", "/and-back", "/user", "/query", "/slashes", "/name"):
            job, target = fetch(world, a.url + path, access_token=token)
            if job["status"] == "completed":
                with open(target, "rb") as file:
                    assert file.read() == BODY, path
            else:  # a name that leads astray may as well be refused
                assert path in ("/user", "/name"), (path, job)
            assert token not in b.text() and token not in c.text(), f"{path}: the token went to another origin"
            for one in a.requests:  # localhost is another origin than 127.0.0.1
                assert token not in one or f"Host: 127.0.0.1:{port}" in one, one
        assert token in a.text()
        mirrors = [f"{a.url}/gone", f"{b.url}/plain"]
        plain = links.pop("/there")
        a.answers = lambda request: (404, {}, b"")
        job, _ = fetch(world, mirrors, access_token=token)
        assert job["status"] == "completed" and plain, job
        assert token not in b.text(), "a mirror at another origin got the token"
        nobody_sees(world, token)


def test_a_token_that_its_server_repeats_goes_no_further():
    token = "tok" + secrets.token_hex(16)

    def repeat(request):
        said = {"X-Error-Code": token, "X-Error-Message": f"no token {token}", "WWW-Authenticate": f'Bearer error="{token}"'}
        if request.path == "/f":
            return 403, said, token.encode()
        return 200, {"ETag": f'"{token}"', "X-Linked-Etag": token}, BODY

    with World(DEBUG) as world, Origin(repeat) as a:
        world.start("broker", "download")
        job, _ = fetch(world, a.url + "/f", access_token=token)
        assert job["status"] == "error" and "403" in job["error"], job
        job, _ = fetch(world, a.url + "/g", access_token=token)
        assert job["status"] == "completed", job
        assert token in a.text()
        nobody_sees(world, token)


def wants(header, value):
    def answer(request):
        if request.headers.get(header) != value:
            return 401, {"WWW-Authenticate": "Basic"}, b"who are you?"
        return 200, {}, BODY
    return answer


def test_configured_tokens_are_looked_up_at_each_attempt():
    """remote_api_tokens: the first expression found in the URL; what its file holds now; not where a redirect leads."""
    old, new, never = (secrets.token_hex(16) for _ in range(3))
    with World() as world, Origin(wants("Authorization", f"Bearer {new}")) as a, Origin(lambda request: (200, {}, BODY)) as b:
        path = os.path.join(world.folder, "token")
        with open(path, "w", encoding="utf-8") as file:
            file.write(old + "\n")
        world.configure(**DEBUG, **{"broker.beat_ms": 200, "remote_api_tokens": [
            {"url_regex": f"^http://127\\.0\\.0\\.1:{a.server_port}/", "token_file": path},
            {"url_regex": "127", "token": never}]})
        world.start("broker", "download")
        job, target = fetch(world, a.url + "/f")
        assert job["status"] == "error" and job["error_type"] in ("auth_denied", "auth_required"), job
        with open(path, "w", encoding="utf-8") as file:
            file.write(new + "\n")
        world.call("jobs", "retry", id=job["id"])
        job = world.call("download", "wait_for_job", id=job["id"], timeout_s=60)
        assert job["status"] == "completed" and os.path.getsize(target) == len(BODY), job
        assert old in a.text() and new in a.text() and never not in a.text()
        a.answers = lambda request: (302, {"Location": f"{b.url}/http://127.0.0.1:{a.server_port}/"}, b"")
        job, _ = fetch(world, a.url + "/moved")
        assert job["status"] == "completed", job
        assert "authorization" not in b.text().lower(), b.text()
        for token in (old, new):
            nobody_sees(world, token)


def test_netrc_is_for_its_owner_and_by_host():
    with World() as world, Origin(wants("Authorization", "Basic YW5uOnMzY3JldC1wdw==")) as a:
        path = os.path.join(world.folder, "netrc")
        with open(path, "w", encoding="utf-8") as file:
            file.write("machine 127.0.0.2 login bob password none\nmachine 127.0.0.1\n  login ann\n  password s3cret-pw\n")
        os.chmod(path, 0o644)
        world.configure(**DEBUG, **{"broker.beat_ms": 200, "download.netrc": path})
        world.start("broker", "download")
        job, target = fetch(world, a.url + "/f")
        assert job["status"] == "error" and "chmod 600" in job["error"] and a.requests == [], job
        os.chmod(path, 0o600)
        world.call("jobs", "retry", id=job["id"])
        job = world.call("download", "wait_for_job", id=job["id"], timeout_s=60)
        assert job["status"] == "completed" and os.path.getsize(target) == len(BODY), job
        nobody_sees(world, "s3cret-pw")
        nobody_sees(world, "YW5uOnMzY3JldC1wdw")


def test_wrong_entries_are_told_with_file_and_line():
    with World() as world:
        for entry, words in (({"url_regex": "a(", "token": "hf_x"}, "does not compile"),
                             ({"url_regex": "a"}, "one of token and token_file"),
                             ({"url_regex": "a", "token": "two words"}, "one word"),
                             ({"url_regex": "a", "tokn": "hf_x"}, "no other keys"),
                             ({"token": "hf_x"}, "url_regex")):
            with open(os.path.join(world.data, "lade.yaml"), "w", encoding="utf-8") as file:
                file.write("insecure: false\nremote_api_tokens:\n  - " + json.dumps(entry) + "\n")
            for name in ("lade-download", "lade-broker"):
                done = subprocess.run([os.path.join(BUILD, name), "--data", world.data], env=world.environment(), text=True,
                                      capture_output=True, timeout=30, check=False)
                assert done.returncode == 2 and "lade.yaml:3: remote_api_tokens" in done.stderr, done
                assert words in done.stderr and "hf_x" not in done.stderr, done.stderr
        os.remove(os.path.join(world.data, "lade.yaml"))


# ---------------------------------------------------------------------------------------------------
# Core files

def core_files(folder):
    """Where core files of processes that run in a folder appear, once it is known that they do."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    if most != resource.RLIM_INFINITY and most < 1 << 30:
        raise Skip(f"core files may have {most} bytes only")
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
        pattern = file.read().strip()
    if pattern.startswith("|"):
        raise Skip(f"core files go to a program: {pattern}")
    where = os.path.dirname(pattern) if pattern.startswith("/") else folder
    subprocess.run(["/bin/sh", "-c", "kill -ABRT $$"], cwd=folder, check=False)
    if not os.path.isdir(where) or not (found := [name for name in os.listdir(where) if "core" in name]):
        raise Skip(f"no core file appears with core_pattern {pattern}")
    for name in found:
        if where == folder:
            os.remove(os.path.join(where, name))
    return where


def test_no_core_file_has_a_token():
    """kill -ABRT while the token is in memory, core files of any size allowed."""
    token = "hf_" + secrets.token_hex(16)
    with World(DEBUG, env={"HF_TOKEN": "hf_of_the_settings" + token}) as world:
        where = core_files(world.folder)
        before = set(os.listdir(where))
        samples.pipeline(world.hub.repo("org/gated"))
        world.hub.repo_settings("org/gated", gated="auto")
        world.hub.settings(token=token, throttle=20000)
        here = os.getcwd()
        os.chdir(world.folder)  # what is started runs here
        try:
            processes = world.start("broker", "download", "install", "gpu")
        finally:
            os.chdir(here)
        events, seen = world.events(), []
        drain(events)
        world.call("install", "heuristic_import", source="org/gated", access_token=token)
        until(events, seen, lambda event: event["event"] == "download_running" and event["bytes"] > 0)
        for process in reversed(processes):
            process.killed = True
            process.signal(signal.SIGABRT)
            process.popen.wait(30)
        for name in set(os.listdir(where)) - before:
            path = os.path.join(where, name)
            if os.path.isfile(path) and "core" in name:
                assert not has(path, token.encode()), f"{path} has the token"
                os.remove(path)
