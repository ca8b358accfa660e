"""A credential is for one origin (scheme, host, port): no other ever sees it, in any header or query, whatever redirects there."""
import base64
import os
import stat

from lib.downloads import KIB, MIB, check_same, completed, moving, submit, write_file
from lib.world import QUICK, World

LIMIT_S = 120
TOKEN, OTHER_TOKEN = "hf_SecretOfOneJob0001", "hf_SecretOfTheFile0002"
USER, PASSWORD = "machine-user", "pAssWordOfNetrc0003"
SECRETS = (TOKEN, OTHER_TOKEN, PASSWORD)
SIZE = 9 * MIB  # several ranges, so that the later ones know where the first was sent


def to(origin, where, **more):
    """A redirect at one origin to the case's file at another."""
    return {"action": "redirect", "origin": origin, "location": f"{{{{{where}}}}}/files/{{case}}/x.bin", **more}


# The origins: a (http), port (the same host), host (the same port number is of no importance), tls, tls2.
# case: where it starts, what redirects, who may see the token.
CASES = {
    "at once": ("a", [], {"a"}),
    "on the same origin": ("a", [to("a", "a", count=1)], {"a"}),
    "to another host": ("a", [to("a", "host")], {"a"}),
    "to another port": ("a", [to("a", "port")], {"a"}),
    "to https": ("a", [to("a", "tls")], {"a"}),
    "down from https": ("tls", [to("tls", "a")], {"tls"}),
    "down from https on the same host": ("tls", [to("tls", "port")], {"tls"}),
    "from https to https": ("tls", [to("tls", "tls2")], {"tls"}),
    "there and back": ("a", [to("a", "host", count=1), to("host", "a", count=1)], {"a"}),
    "there, back and there": ("a", [to("a", "host"), to("host", "port")], {"a"}),
    "a long way": ("a", [to("a", "port"), to("port", "host"), to("host", "tls")], {"a"}),
    "a long way down": ("a", [to("a", "port"), to("port", "tls"), to("tls", "host")], {"a"}),
    "another host with a name for a user": ("a", [{"action": "redirect", "origin": "a",
        "location": "http://a:b@127.0.0.2:{host_port}/files/{case}/x.bin"}], {"a"}),
    "permanent": ("a", [to("a", "host", status=301)], {"a"}),
    "see other": ("a", [to("a", "host", status=303)], {"a"}),
    "temporary": ("a", [to("a", "host", status=307)], {"a"}),
    "permanent 308": ("a", [to("a", "host", status=308)], {"a"}),
    "only a later range": ("a", [to("a", "host", **{"from": 1})], {"a"}),
    "another place each time": ("a", [to("a", "host", count=1), to("a", "port", count=1), to("a", "tls")], {"a"}),
    "a mirror elsewhere": (("a", "host"), [{"action": "status", "status": 404, "origin": "a"}], {"a"}),
    "a mirror at another port": (("a", "port"), [{"action": "close", "bytes": 100000, "origin": "a"}], {"a"}),
    "a mirror that redirects back": (("a", "host"), [{"action": "status", "status": 404, "origin": "a", "count": 1},
                                                      to("host", "port")], {"a"}),
    "from the other side": ("host", [to("host", "a")], {"host"}),
}


class Origins:
    def __init__(self, world, **settings):
        self.world, hub = world, world.hub
        self.made = {"a": {"url": hub.url, "name": "hub"}, "port": hub.origin(name="port"), "tls": hub.origin("tls"),
                     "host": hub.origin(name="host", host="127.0.0.2"), "tls2": hub.origin("tls", name="tls2")}
        world.configure(**{**QUICK, "download.slots": 32, "download.ca_file": self.made["tls"]["ca"], **settings})

    def name(self, short):
        return self.made[short]["name"]

    def case(self, name):
        """Makes the file and the faults of a case; answers its URL or URLs."""
        start, rules, _ = CASES[name]
        key = name.replace(" ", "-")
        self.path = write_file(self.world.hub.file(f"{key}/x.bin"), SIZE)
        for rule in rules:
            where = rule.get("location", "").replace("{{a}}", "{{hub}}")
            rule = {**rule, "path": f"/files/{key}/*", "origin": self.name(rule["origin"])}
            if where:
                rule["location"] = where.format(case=key, host_port=self.made["host"]["url"].rsplit(":", 1)[1])
            self.world.hub.faults(rule)
        urls = [f"{self.made[one]['url']}/files/{key}/x.bin" for one in ([start] if isinstance(start, str) else start)]
        return urls[0] if isinstance(start, str) else urls

    def seen(self, name=None):
        """{origin: names of the headers, or "query", that had a secret in them}."""
        found = {}
        path = f"/files/{name.replace(' ', '-')}/*" if name else None
        for entry in self.world.hub.log(path=path)["requests"]:
            places = [header for header, value in entry["headers"].items()
                      if any(secret in value or hidden(secret) in value for secret in SECRETS)]
            if any(secret in entry["query"] or secret in entry["path"] for secret in SECRETS):
                places.append("query")
            if places:
                short = next(key for key, made in self.made.items() if made["name"] == entry["origin"])
                found.setdefault(short, set()).update(places)
        return found


def hidden(secret):
    """As HTTP basic would carry it."""
    return base64.b64encode(f"{USER}:{secret}".encode()).decode()


def nowhere(world):
    """No secret is in a log, an answer, an event, a command's output or arguments, the keyspace, or beside a file."""
    texts = {process.name: process.text().encode() for process in world.processes if process.name != "hub"}
    for command in ("jobs", "status", "workers"):
        texts[command] = (world.lade(command, "--json").stdout + world.lade(command).stdout).encode()
    texts["events"] = repr(world.call("events", "since", seq=0, limit=100000)).encode()
    for job in world.call("jobs", "list", limit=1000):
        texts[f"job {job['id']}"] = (world.lade("job", job["id"], "--json").stdout + world.lade("job", job["id"]).stdout).encode()
    for process in world.processes:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            texts[f"the arguments of {process.name}"] = file.read()
    for folder in (os.path.join(world.data, "keyspace"), os.path.join(world.folder, "out")):
        for above, _, names in os.walk(folder):
            for name in names:
                with open(os.path.join(above, name), "rb") as file:
                    texts[os.path.join(above, name)] = file.read()
    assert len(texts) > 5
    for where, text in texts.items():
        for secret in SECRETS:
            assert secret.encode() not in text and hidden(secret).encode() not in text, f"a secret is in {where}"


def test_a_token_is_seen_by_its_own_origin_only():
    """Every redirect, mirror and order of them in the table; then nothing kept anywhere shows it."""
    with World() as world:
        origins = Origins(world)
        world.start("broker", "download")
        jobs = {}
        for name in CASES:
            url = origins.case(name)
            jobs[name] = submit(world, url, os.path.join(world.folder, "out", name), access_token=TOKEN)["id"]
        problems = []
        for name, (_, _, allowed) in CASES.items():
            try:
                check_same(completed(world, jobs[name])["download_path"], origins.path)
                seen = origins.seen(name)
                assert set(seen) == allowed, f"the token was seen by {seen}, not by {allowed}"
                assert all(places == {"authorization"} for places in seen.values()), seen
            except AssertionError as problem:
                problems.append(f"{name}: {problem}")
        assert not problems, "\n".join(problems)
        nowhere(world)


def test_a_token_survives_pause_and_restarts_and_shows_nowhere():
    """A download that wants a token is paused, its worker and the broker are killed, and it goes on without being asked for it."""
    with World({"download.checkpoint_mb": 1}) as world:
        origins = Origins(world, **{"download.checkpoint_mb": 1})
        path = write_file(world.hub.file("x.bin"), SIZE)
        world.hub.settings(throttle=600 * KIB)
        broker, worker = world.start("broker", "download")
        events = world.events("download_")
        folder = os.path.join(world.folder, "out")
        job = submit(world, f"{world.hub.url}/files/x.bin", folder, access_token=TOKEN, start=False)
        world.call("download", "start_job", id=job["id"])
        events.until(moving(job["id"], 300 * KIB), 30)
        world.call("download", "pause_job", id=job["id"])
        world.eventually(lambda: world.call("broker", "workers")[0]["busy"] == 0, 30)
        nowhere(world)
        for process, name in ((worker, "download"), (broker, "broker")):
            process.kill()
            world.processes.remove(process)
        world.hub.log(reset=True)
        world.hub.settings(throttle=0)
        world.start("broker", "download")
        world.call("download", "start_job", id=job["id"])
        check_same(completed(world, job["id"])["download_path"], path)
        requests = world.hub.log(path="/files/*")["requests"]
        assert requests and all(entry["headers"].get("authorization") == f"Bearer {TOKEN}" for entry in requests)
        nowhere(world)


def test_tokens_of_the_configuration_keep_to_their_origin():
    """remote_api_tokens: found by the URL, sent to its origin only, not taken along by a redirect."""
    with World() as world:
        origins = Origins(world)
        plain = origins.made["a"]["url"]
        origins = Origins(world, remote_api_tokens=[{"url_regex": plain.replace(".", r"\."), "token": OTHER_TOKEN}])
        world.start("broker", "download")
        for name in ("to another host", "a long way", "from the other side", "a mirror elsewhere"):
            completed(world, submit(world, origins.case(name), os.path.join(world.folder, "out", name))["id"])
            seen = origins.seen(name)
            assert set(seen) == ({"a"} if name != "from the other side" else set()), (name, seen)
        nowhere(world)


def test_passwords_of_netrc_keep_to_their_host():
    with World() as world:
        netrc = os.path.join(world.folder, "netrc")
        with open(netrc, "w", encoding="utf-8") as file:
            file.write(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        os.chmod(netrc, stat.S_IRUSR | stat.S_IWUSR)
        origins = Origins(world, **{"download.netrc": netrc})
        world.start("broker", "download")
        for name in ("at once", "to another host", "from the other side"):
            completed(world, submit(world, origins.case(name), os.path.join(world.folder, "out", name))["id"])
            seen = origins.seen(name)
            assert "host" not in seen and (name != "at once" or set(seen) == {"a"}), (name, seen)
        nowhere(world)
