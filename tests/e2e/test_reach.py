"""Where lade may go: public addresses only unless an operator says more, through proxies, and to what is on this machine."""
import json
import os
import random
import shutil
import socket
import tempfile

from lib import samples, weights
from lib.apart import mount, on_small_disk
from lib.checks import names_of
from lib.downloads import MIB, check_same, completed, ended, moving, on_disk, submit, write_file
from lib.proxy import Proxy
from lib.skip import Skip
from lib.world import LadeError, World

LIMIT_S = 180
PUBLIC_ONLY = {"download.allow_addresses": ""}
NO_HUB = {"HF_ENDPOINT": "http://hub.invalid"}  # else the test hub would be allowed as the operator's own


def file_on(world, name="x.safetensors", size=3 * MIB):
    return write_file(world.hub.file(name), size)


def port_of(url):
    return url.rsplit(":", 1)[1]


def refused(world, url, folder, code="unsafe_url"):
    job = ended(world, submit(world, url, folder)["id"])
    assert (job["status"], job["error_type"]) == ("error", code), (url, job["status"], job["error_type"], job["error"])
    assert on_disk(folder) == ([], []), (url, on_disk(folder))
    return job


def own_name():
    """A name that is no literal and leads to this machine."""
    name = socket.gethostname()
    try:
        inside = name != "localhost" and socket.gethostbyname(name).startswith("127.")
    except OSError:
        inside = False
    if not inside:
        raise Skip("this machine's name does not lead to a loopback address")
    return name


# -------------------------------------------------------------------------------------------------
# The guard


def test_nothing_inside_is_reached_by_default():
    with World(PUBLIC_ONLY, env=NO_HUB) as world:
        file_on(world)
        port = port_of(world.hub.url)
        world.start("broker", "download")
        hosts = ["127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "017700000001", "%31%32%37.0.0.1", "127.0.0.1.",
                 "localhost", "LOCALHOST.", "a.localhost", "0.0.0.0", "0", "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]",
                 "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1",
                 "169.254.169.254", "2852039166", "[fe80::1]", "[fd00::1]", "224.0.0.1", "user@127.0.0.1", "256.1.1.1"]
        for i, host in enumerate(hosts):
            refused(world, f"http://{host}:{port}/files/x.safetensors", f"{world.folder}/out{i}")
        assert world.hub.log()["requests"] == []


def test_a_name_that_leads_inside_is_refused_when_it_is_connected_to():
    name = own_name()
    with World(PUBLIC_ONLY, env=NO_HUB) as world:
        file_on(world)
        world.start("broker", "download")
        job = refused(world, f"http://{name}:{port_of(world.hub.url)}/files/x.safetensors", f"{world.folder}/out")
        assert "127." not in job["error"] and name in job["error"], job["error"]
        assert world.hub.log()["requests"] == []


def test_an_operator_allows_a_host_by_its_name():
    name = own_name()
    with World({"download.allow_addresses": f"10.9.8.0/24, {name}"}, env=NO_HUB) as world:
        original = file_on(world)
        world.start("broker", "download")
        port = port_of(world.hub.url)
        try:
            socket.create_connection((name, int(port)), 5).close()
        except OSError:
            raise Skip(f"the test hub is not reached as {name}") from None
        job = completed(world, submit(world, f"http://{name}:{port}/files/x.safetensors", f"{world.folder}/out")["id"])
        check_same(job["download_path"], original)
        refused(world, f"http://127.0.0.1:{port}/files/x.safetensors", f"{world.folder}/out2")


def test_a_redirect_does_not_lead_inside():
    with World({"download.allow_addresses": "127.0.0.1/32"}) as world:
        original = file_on(world)
        inside = world.hub.origin("plain", "inside", host="127.0.0.2")
        targets = {
            "other": f"http://127.0.0.2:{inside['port']}/files/x.safetensors",
            "number": f"http://2130706434:{inside['port']}/files/x.safetensors",
            "metadata": "http://169.254.169.254/latest/meta-data/",
            "file": "file:///etc/passwd",
            "ftp": f"ftp://127.0.0.1:{port_of(world.hub.url)}/x",
            "hop": f"{world.hub.url}/files/other/x.safetensors",  # to one that leads inside
        }
        world.hub.faults(*({"path": f"/files/{name}/*", "action": "redirect", "location": target, "method": "*"}
                           for name, target in targets.items()))
        world.hub.faults({"path": "/files/fine/*", "action": "redirect", "location": "/files/x.safetensors", "method": "*"})
        world.start("broker", "download")
        for name in targets:
            refused(world, f"{world.hub.url}/files/{name}/x.safetensors", f"{world.folder}/{name}")
        job = completed(world, submit(world, f"{world.hub.url}/files/fine/x.safetensors", f"{world.folder}/fine")["id"])
        check_same(job["download_path"], original)
        assert not [entry for entry in world.hub.log()["requests"] if entry["origin"] == "inside"]


def test_a_wrong_setting_is_named():
    with World() as world:
        for value in ("10.0.0.0/99", "127.0.0.1,http://x", "*"):
            world.configure(**{"download.allow_addresses": value})
            process = world.launch("download")
            assert process.popen.wait(20) == 2, process.tail()
            process.ended = process.killed = True
            process.drain()
            assert "download.allow_addresses" in process.text() and value.split(",")[-1] in process.text(), process.text()


def test_the_operators_own_hub_is_allowed_and_where_it_leads_is_not():
    with World(PUBLIC_ONLY) as world:
        samples.pipeline(world.hub.repo("org/name"))
        world.start("broker", "install", "download")
        listed = world.call("install", "heuristic_import", source="org/name", dry_run=True)
        listed = world.call("install", "wait_for_job", id=listed["id"])
        assert listed["status"] == "completed", listed["error"]
        job = world.install("org/name")  # the hub sends weights to another origin, a CDN at another port
        assert (job["status"], job["error_type"]) == ("error", "unsafe_url"), (job["status"], job["error_type"], job["error"])
        log = world.hub.log()
        assert [entry for entry in log["requests"] if entry["origin"] == "hub"]
        assert not [entry for entry in log["requests"] if entry["origin"] == "cdn"]
        assert world.call("store", "all_models") == []


# -------------------------------------------------------------------------------------------------
# Proxies


def test_downloads_go_through_the_proxy_of_the_setting():
    with World(PUBLIC_ONLY, env=NO_HUB) as world:
        original = file_on(world)
        port = int(port_of(world.hub.url))
        with Proxy({("models.example", 80): ("127.0.0.1", port)}) as proxy:
            world.configure(**{**PUBLIC_ONLY, "download.proxy": proxy.url, "broker.retry_base_ms": 50})
            world.start("broker", "download")
            job = completed(world, submit(world, "http://models.example/files/x.safetensors", f"{world.folder}/out",
                                          sha256=weights.sha256(original))["id"])
            check_same(job["download_path"], original)
            assert set(proxy.seen) == {("GET", "models.example:80")}, proxy.seen
            # The proxy resolves names; what is written as an address is judged all the same.
            before = len(proxy.seen)
            for host in ("127.0.0.1", "2130706433", "localhost", "[::1]"):
                refused(world, f"http://{host}:{port}/files/x.safetensors", f"{world.folder}/{host}")
            assert len(proxy.seen) == before, proxy.seen


def test_https_goes_through_a_tunnel_and_checks_the_server():
    with World() as world:
        original = file_on(world)
        tls = world.hub.origin("tls", "secure")
        with Proxy() as proxy:
            settings = {"download.proxy": proxy.url, "broker.retry_base_ms": 50, "broker.max_attempts": 1}
            world.configure(**settings)
            world.start("broker")
            worker = world.start("download")
            url = f"{tls['url']}/files/x.safetensors"
            job = ended(world, submit(world, url, f"{world.folder}/out")["id"])
            assert job["status"] == "error" and "ca_file" in job["error"], (job["error_type"], job["error"])
            worker.stop()
            world.configure(**settings, **{"download.ca_file": tls["ca"]})
            world.start("download")
            job = completed(world, submit(world, url, f"{world.folder}/out2")["id"])
            check_same(job["download_path"], original)
            assert {method for method, _ in proxy.seen} == {"CONNECT"}, proxy.seen


def test_proxies_of_the_environment():
    with Proxy() as proxy, World(env={"http_proxy": proxy.url, "no_proxy": "127.0.0.2"}) as world:
        world.hub_host = "0.0.0.0"
        file_on(world)
        port = port_of(world.hub.url)
        world.start("broker", "download")
        completed(world, submit(world, f"http://127.0.0.1:{port}/files/x.safetensors", f"{world.folder}/a")["id"])
        assert proxy.seen and set(proxy.seen) == {("GET", f"127.0.0.1:{port}")}, proxy.seen
        before = len(proxy.seen)
        completed(world, submit(world, f"http://127.0.0.2:{port}/files/x.safetensors", f"{world.folder}/b")["id"])
        assert len(proxy.seen) == before, proxy.seen


def test_the_setting_beats_no_proxy():
    with Proxy() as proxy, World({"download.proxy": proxy.url}, env={"no_proxy": "*"}) as world:
        file_on(world)
        world.start("broker", "download")
        completed(world, submit(world, f"{world.hub.url}/files/x.safetensors", f"{world.folder}/a")["id"])
        assert proxy.seen


def test_the_hub_is_asked_through_the_proxy():
    with World(PUBLIC_ONLY) as world:
        samples.pipeline(world.hub.repo("org/name"))
        hub, cdn = (int(port_of(url)) for url in (world.hub.url, world.hub.cdn_url))
        with Proxy({("hub.example", 80): ("127.0.0.1", hub), ("hub.example", cdn): ("127.0.0.1", cdn)}) as proxy:
            world.env = {"HF_ENDPOINT": "http://hub.example"}
            world.configure(**{**PUBLIC_ONLY, "download.proxy": proxy.url})
            world.start("broker", "download", "install")
            job = world.install("org/name")
            assert job["status"] == "completed", (job["error_type"], job["error"])
            assert {target for _, target in proxy.seen} == {"hub.example:80", f"hub.example:{cdn}"}, proxy.seen


def test_a_proxys_password_is_told_to_it_and_to_nobody_else():
    secret = "pr0xy-secret"
    with Proxy(user=f"farm:{secret}") as proxy, World({"download.proxy": proxy.url}) as world:
        file_on(world)
        world.start("broker", "download")
        job = completed(world, submit(world, f"{world.hub.url}/files/x.safetensors", f"{world.folder}/a")["id"])
        assert proxy.seen
        assert secret not in repr(job) + repr(world.hub.log())
        assert secret not in world.lade("config").stdout + world.lade("config", "--json").stdout
        proxy.user = "farm:another"
        job = submit(world, f"{world.hub.url}/files/x.safetensors?again", f"{world.folder}/b")
        world.eventually(lambda: proxy.refused)
        world.call("download", "cancel_job", id=job["id"])
        assert secret not in repr(world.call("jobs", "get", id=job["id"]))
        for process in world.processes:
            assert secret not in process.text(), process.name


def test_a_proxy_that_is_not_there_is_said():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with World({"download.proxy": f"http://127.0.0.1:{port}", "broker.max_attempts": 2}) as world:
        file_on(world)
        world.start("broker", "download")
        job = ended(world, submit(world, f"{world.hub.url}/files/x.safetensors", f"{world.folder}/a")["id"])
        assert (job["status"], job["error_type"]) == ("error", "network"), (job["error_type"], job["error"])


# -------------------------------------------------------------------------------------------------
# Extra certificate authorities


def test_a_hub_over_tls_with_an_authority_of_its_own():
    with World() as world:
        samples.pipeline(world.hub.repo("org/name"))
        tls = world.hub.origin("tls", "secure")
        world.env = {"HF_ENDPOINT": tls["url"]}
        settings = {"broker.max_attempts": 1}
        world.configure(**settings)
        world.start("broker")
        worker = world.start("install")
        job = world.call("install", "heuristic_import", source="org/name", dry_run=True)
        job = world.call("install", "wait_for_job", id=job["id"])
        assert job["error_type"] == "http_error" and "download.ca_file" in job["error"], (job["error_type"], job["error"])
        worker.stop()
        world.configure(**settings, **{"download.ca_file": tls["ca"]})
        world.start("install")
        job = world.call("install", "heuristic_import", source="org/name", dry_run=True, token="again")
        job = world.call("install", "wait_for_job", id=job["id"])
        assert job["status"] == "completed", (job["error_type"], job["error"])


# -------------------------------------------------------------------------------------------------
# Sources on this machine


def other_file_system(world):
    """A folder that the world's is not on one file system with."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(world.folder).st_dev:
        raise Skip("/dev/shm is no file system of its own")
    return tempfile.mkdtemp(prefix="lt-reach-", dir="/dev/shm")


def make_tree(folder):
    write_file(os.path.join(folder, "unet", "w.bin"), 2 * MIB + 7)
    write_file(os.path.join(folder, "a.json"), 100, seed=2)
    os.symlink("unet/w.bin", os.path.join(folder, "link"))
    return tree_of(folder)


def tree_of(folder):
    found = {}
    for above, folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)
            found[os.path.relpath(path, folder)] = os.readlink(path) if os.path.islink(path) else weights.sha256(path)
    return found


def test_a_path_is_moved():
    with World() as world:
        world.start("broker", "download")
        source = write_file(f"{world.folder}/in/m.safetensors", 5 * MIB)
        digest = weights.sha256(source)
        events = world.events("download_", "broker_beat/")
        events.ready()
        job = world.call("download", "create_download_job", source=source, destdir=f"{world.folder}/out", sha256=digest,
                         size=5 * MIB)
        assert job["gates"] == [], job
        job = completed(world, job["id"])
        assert job["download_path"] == f"{world.folder}/out/m.safetensors" and job["source"] == source, job
        assert (job["bytes"], job["total_bytes"]) == (5 * MIB, 5 * MIB), job
        assert weights.sha256(job["download_path"]) == digest and not os.path.exists(source)
        assert on_disk(f"{world.folder}/out") == (["m.safetensors"], []) and on_disk(f"{world.folder}/in") == ([], [])
        seen = events.until(lambda event: event["event"] == "download_completed", 30)
        assert names_of(seen, job["id"], "download_") == ["download_enqueued", "download_running", "download_completed"], seen


def test_a_folder_is_moved_across_file_systems():
    with World() as world:
        there = other_file_system(world)
        try:
            tree = make_tree(f"{there}/model")
            world.start("broker", "download")
            job = completed(world, submit(world, f"{there}/model", f"{world.folder}/out")["id"])
            assert job["download_path"] == f"{world.folder}/out/model", job
            assert tree_of(job["download_path"]) == tree
            assert os.listdir(there) == []
        finally:
            shutil.rmtree(there)


def test_a_file_url_is_copied():
    with World() as world:
        tree = make_tree(f"{world.folder}/in/a model")
        world.start("broker", "download")
        job = completed(world, submit(world, f"file://{world.folder}/in/a%20model", f"{world.folder}/out")["id"])
        assert tree_of(f"{world.folder}/out/a model") == tree == tree_of(f"{world.folder}/in/a model"), job
        job = completed(world, submit(world, f"file://localhost{world.folder}/in/a%20model/a.json", f"{world.folder}/out",
                                      filename="b.json")["id"])
        assert job["download_path"] == f"{world.folder}/out/b.json" and job["bytes"] == 100, job


def test_local_sources_are_checked():
    with World() as world:
        world.start("broker", "download")
        source = write_file(f"{world.folder}/in/m.bin", 1000)
        out = f"{world.folder}/out"
        for code, more in (("digest_mismatch", {"sha256": "0" * 64}), ("size_mismatch", {"size": 7}),
                           ("ValueError", {"sha256": "x"})):
            for url in (source, f"file://{source}"):
                job = ended(world, submit(world, url, out, **more)["id"])
                assert (job["status"], job["error_type"]) == ("error", code), (url, job["error_type"], job["error"])
        write_file(f"{out}/m.bin", 10)
        refused_with = {source: "exists", f"{world.folder}/in/none": "not_found", "file:///etc/none": "not_found",
                        "/dev/null": "ValueError", f"{world.data}/keyspace": "ValueError", world.folder: "ValueError",
                        f"file://{world.data}/lade.yaml": "ValueError"}
        for url, code in refused_with.items():
            job = ended(world, submit(world, url, out)["id"])
            assert (job["status"], job["error_type"]) == ("error", code), (url, job["error_type"], job["error"])
        assert os.path.getsize(source) == 1000 and on_disk(out) == (["m.bin"], [])
        for url in ("m.bin", "./m.bin", "../m.bin", "ftp://127.0.0.1/x", "file://host/x", "", [source, source], ["x"]):
            try:
                submit(world, url, out)
                raise AssertionError(f"{url} was taken")
            except LadeError as error:
                assert error.code == "ValueError", (url, error.code)


def test_the_command_takes_paths():
    with World() as world:
        world.start("broker", "download")
        os.makedirs(f"{world.folder}/in")
        os.chdir(f"{world.folder}/in")
        write_file(f"{world.folder}/in/a.bin", 1000)
        write_file(f"{world.folder}/in/b.bin", 2000)
        os.makedirs("deep")
        done = world.lade("download", "./a.bin", "b.bin", "--dest", f"{world.folder}/out", "--json")
        jobs = json.loads(done.stdout.splitlines()[-1])  # after the events
        assert [job["status"] for job in jobs] == ["completed", "completed"], jobs
        assert sorted(os.listdir(f"{world.folder}/out")) == ["a.bin", "b.bin"] and os.listdir(".") == ["deep"]
        done = world.lade("download", "none.bin", "--dest", f"{world.folder}/out", status=2)
        assert "file:// URL or an absolute path" in done.stderr.replace("\n      ", " "), done.stderr


@on_small_disk
def test_a_move_to_a_full_disk_waits_for_room():
    with World() as world:
        disk = f"{world.folder}/disk"
        mount(disk, "20m")
        write_file(f"{disk}/ballast", 15 * MIB)
        source = write_file(f"{world.folder}/in/m.bin", 10 * MIB)
        digest = weights.sha256(source)
        world.start("broker", "download")
        number = submit(world, source, f"{disk}/out")["id"]

        def waits():
            why = world.call("jobs", "why", id=number)
            return [gate for gate in why["gates"] if gate["gate"] == f"space:{disk}"]

        world.eventually(waits, 30)
        assert os.path.getsize(source) == 10 * MIB and on_disk(f"{disk}/out") == ([], [])
        os.unlink(f"{disk}/ballast")
        job = completed(world, number)
        assert job["failures"] == 0 and weights.sha256(f"{disk}/out/m.bin") == digest and not os.path.exists(source), job


def test_killed_at_random_moments_a_move_loses_nothing():
    seed = int(os.environ.get("LADE_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}")
    dice = random.Random(seed)
    with World() as world:
        there = other_file_system(world)
        try:
            tree = make_tree(f"{there}/model")
            write_file(f"{there}/model/large.bin", 48 * MIB)
            tree = tree_of(f"{there}/model")
            world.start("broker")
            worker = world.start("download")
            client = world.client()
            events = world.events("download_", "broker_beat/")
            events.ready()
            for i in range(8):
                source = f"{there}/model" if i % 2 == 0 else f"{world.folder}/on{i - 1}/model"
                target = f"{world.folder}/on{i}" if i % 2 == 0 else there
                job = submit(world, source, target)
                there_yet = moving(job["id"], dice.choice([0, 0, 1, 8 * MIB, 40 * MIB, 50 * MIB]))
                events.until(lambda event: there_yet(event) or event["event"] == "download_completed", 60)
                worker.stop() if i % 3 == 2 else worker.kill()  # SIGTERM leaves it to the next one, too
                whole = [place for place in (source, f"{target}/model") if os.path.isdir(place) and tree_of(place) == tree]
                assert whole, f"round {i}: neither is whole"
                worker = world.start("download")
                job = client.call("download", "wait_for_job", id=job["id"], timeout_s=60)
                assert job["status"] == "completed", (i, job["error_type"], job["error"])
                assert tree_of(f"{target}/model") == tree and not os.path.exists(source), i
                assert on_disk(target) == (["model"], []), (i, on_disk(target))
        finally:
            shutil.rmtree(there)
