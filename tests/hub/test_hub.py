"""The hub itself: the tests stand on it."""
import hashlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request

from lib import weights
from lib.world import World

LIMIT_S = 60


class Plain(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def get(url, **headers):
    """(status, headers, body), redirects not followed."""
    opener = urllib.request.build_opener(Plain, urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_api_lists_a_repository_with_sizes_and_digests():
    with World() as world:
        hub = world.hub
        path = weights.embedding(os.path.join(hub.repo("org/name"), "sub", "x.safetensors"), 1)
        with open(os.path.join(hub.repo("org/name"), "config.json"), "w", encoding="utf-8") as file:
            file.write("{}")
        status, _, body = get(f"{hub.url}/api/models/org/name?blobs=true")
        answer = json.loads(body)
        assert status == 200 and answer["id"] == "org/name" and len(answer["sha"]) == 40
        files = {entry["rfilename"]: entry for entry in answer["siblings"]}
        assert set(files) == {"config.json", "sub/x.safetensors"}
        assert files["sub/x.safetensors"]["lfs"]["sha256"] == weights.sha256(path)
        assert files["sub/x.safetensors"]["size"] == os.path.getsize(path)
        assert "lfs" not in files["config.json"]


def test_civitai_answers_in_its_true_shape():
    with World() as world:
        hub = world.hub
        path = weights.lora(os.path.join(hub.repo("civitai/7"), "a.safetensors"), 1)
        page = {"name": "A model", "versions": [{"id": 70, "login": "401", "trainedWords": ["x"], "files": [{"name": "a.safetensors"}]}]}
        with open(hub.repo("civitai/7") + ".json", "w", encoding="utf-8") as file:
            json.dump({"civitai": page}, file)
        model = json.loads(get(f"{hub.url}/api/v1/models/7")[2])
        version = json.loads(get(f"{hub.url}/api/v1/model-versions/70")[2])
        assert {"creator", "tags", "allowNoCredit", "allowCommercialUse", "allowDerivatives", "allowDifferentLicense"} <= set(model)
        assert version["modelId"] == 7 and version["model"]["name"] == "A model" and "creator" not in version
        for one in (model["modelVersions"][0], version):
            file = one["files"][0]
            assert file["sizeKB"] * 1024 == os.path.getsize(path) and file["primary"] is True
            assert file["hashes"]["SHA256"] == weights.sha256(path).upper()
            assert file["downloadUrl"] == f"{hub.url}/api/download/models/70"
        assert get(f"{hub.url}/api/v1/models/8")[0] == 404 and get(f"{hub.url}/api/v1/models/7", Authorization="Bearer no")[0] == 401
        assert get(f"{hub.url}/api/download/models/70")[0] == 401
        status, headers, _ = get(f"{hub.url}/api/download/models/70", Authorization="Bearer cv_good")
        assert status == 307 and headers["Location"].startswith(hub.cdn_url), headers
        assert weights.sha256(path) == hashlib.sha256(get(headers["Location"])[2]).hexdigest()


def test_errors_are_those_of_the_real_hub():
    with World() as world:
        hub = world.hub
        weights.embedding(os.path.join(hub.repo("org/gated"), "x.safetensors"), 1)
        hub.repo_settings("org/gated", gated="auto")
        weights.embedding(os.path.join(hub.repo("org/private"), "x.safetensors"), 1)
        hub.repo_settings("org/private", private=True)
        good, nobody = {"Authorization": "Bearer hf_good"}, {"Authorization": "Bearer hf_nobody"}
        for path, headers, status, code in (
            ("/api/models/org/none", {}, 401, "RepoNotFound"),
            ("/api/models/org/none", good, 404, "RepoNotFound"),
            ("/api/models/org/private", nobody, 404, "RepoNotFound"),
            ("/api/models/org/private", good, 200, None),
            ("/api/models/org/gated", {}, 200, None),
            ("/api/models/org/gated", {"Authorization": "Bearer wrong"}, 401, None),
            ("/api/models/org/gated/revision/none", {}, 404, "RevisionNotFound"),
            ("/org/gated/resolve/main/x.safetensors", {}, 401, "GatedRepo"),
            ("/org/gated/resolve/main/x.safetensors", nobody, 403, "GatedRepo"),
            ("/org/gated/resolve/main/x.safetensors", good, 302, None),
            ("/org/gated/resolve/main/none", good, 404, "EntryNotFound"),
            ("/org/gated/resolve/main/../../private/x.safetensors", good, 404, "EntryNotFound"),
        ):
            answer = get(hub.url + path, **headers)
            assert (answer[0], answer[1].get("X-Error-Code")) == (status, code), (path, answer)


def test_cdn_wants_the_signature_and_no_token():
    with World() as world:
        hub = world.hub
        path = weights.embedding(os.path.join(hub.repo("org/name"), "x.safetensors"), 1)
        _, headers, _ = get(f"{hub.url}/org/name/resolve/main/x.safetensors")
        where = headers["Location"]
        assert where.startswith(hub.cdn_url + "/lfs/")
        with open(path, "rb") as file:
            whole = file.read()
        assert get(where)[2] == whole
        assert get(where, Range="bytes=10-19")[0::2] == (206, whole[10:20])
        assert get(where, Range=f"bytes={len(whole)}-")[0] == 416
        assert get(where, Range="bytes=-5")[2] == whole[-5:]
        assert get(where, **{"Range": "bytes=5-", "If-Range": '"other"'})[0] == 200
        assert get(where + "x")[0] == 403
        assert get(where, Authorization="Bearer hf_good")[0] == 400
        until = time.monotonic() + 30  # what was answered is counted a moment later
        while hub.log()["totals"]["cdn_authorization"] != 1:
            assert time.monotonic() < until, hub.log()["totals"]
        hub.settings(url_ttl_s=-1)
        _, headers, _ = get(f"{hub.url}/org/name/resolve/main/x.safetensors")
        assert get(headers["Location"])[0] == 403


def test_faults_come_as_often_as_asked():
    with World() as world:
        hub = world.hub
        path = weights.embedding(hub.file("x.safetensors"), 1)
        size = os.path.getsize(path)
        hub.faults({"path": "/files/*", "action": "status", "status": 503, "retry_after": 2, "skip": 1, "count": 2},
                   {"path": "/files/*", "action": "rate_limit", "count": 1})
        seen = [get(f"{hub.url}/files/x.safetensors") for _ in range(5)]
        assert [answer[0] for answer in seen] == [429, 503, 503, 200, 200], [answer[0] for answer in seen]
        assert len(seen[-1][2]) == size
        log = hub.log()["paths"]["/files/x.safetensors"]
        assert log["requests"] == 5 and log["statuses"]["503"] == 2


def test_bent_ranges():
    with World() as world:
        hub = world.hub
        path = weights.embedding(hub.file("x.safetensors"), 1)
        with open(path, "rb") as file:
            whole = file.read()
        size = len(whole)
        for fault, status, span, body in (
            ({"action": "range_shift", "by": 5}, 206, f"bytes 105-204/{size}", whole[105:205]),
            ({"action": "range_shift", "by": -5}, 206, f"bytes 95-194/{size}", whole[95:195]),
            ({"action": "range_most", "bytes": 10}, 206, f"bytes 100-109/{size}", whole[100:110]),
            ({"action": "range_total", "by": 7}, 206, f"bytes 100-199/{size + 7}", whole[100:200]),
            ({"action": "content_range", "value": None}, 206, None, whole[100:200]),
            ({"action": "content_range", "value": "bytes {first}-{last}/*"}, 206, "bytes 100-199/*", whole[100:200]),
            ({"action": "ignore_range"}, 200, None, whole),
            ({"action": "long_body", "extra": 3}, 206, f"bytes 100-199/{size}", whole[100:200] + b"xxx"),
            ({"action": "chunked"}, 206, f"bytes 100-199/{size}", whole[100:200]),
            ({"action": "headers", "headers": {"ETag": None}}, 206, f"bytes 100-199/{size}", whole[100:200]),
        ):
            hub.clear()
            hub.faults({"path": "/files/*", "from": 100, **fault})
            answer = get(f"{hub.url}/files/x.safetensors", Range="bytes=100-199")
            assert (answer[0], answer[1].get("Content-Range"), answer[2]) == (status, span, body), (fault, answer)
            assert get(f"{hub.url}/files/x.safetensors", Range="bytes=0-9")[2] == whole[:10]
        hub.clear("/files/*")
        hub.faults({"path": "/files/*", "action": "unsatisfiable", "value": "bytes */{size}", "count": 1})
        answer = get(f"{hub.url}/files/x.safetensors", Range="bytes=0-9")
        assert (answer[0], answer[1]["Content-Range"]) == (416, f"bytes */{size}"), answer


def test_if_range_by_validator():
    with World() as world:
        hub = world.hub
        weights.embedding(hub.file("x.safetensors"), 1)
        url = f"{hub.url}/files/x.safetensors"
        _, headers, _ = get(url)
        hub.faults({"path": "/files/*", "if_range": "etag", "action": "ignore_range"},
                   {"path": "/files/*", "if_range": "none", "action": "weak_etag"})
        span = {"Range": "bytes=0-9"}
        assert get(url, **span, **{"If-Range": headers["ETag"]})[0] == 200
        assert get(url, **span, **{"If-Range": headers["Last-Modified"]})[0] == 206
        weak = get(url, **span)[1]["ETag"]
        assert weak == "W/" + headers["ETag"]
        hub.clear()
        assert get(url, **span, **{"If-Range": weak})[0] == 200


def test_signed_addresses_are_good_so_often():
    with World() as world:
        hub = world.hub
        weights.embedding(os.path.join(hub.repo("org/name"), "x.safetensors"), 1)
        hub.repo_settings("org/name", url_uses=2)
        where = [get(f"{hub.url}/org/name/resolve/main/x.safetensors")[1]["Location"] for _ in range(2)]
        assert [get(where[0])[0] for _ in range(3)] == [200, 200, 403] and get(where[1])[0] == 200


def test_connections_are_counted_also_idle_ones():
    with World() as world:
        hub = world.hub
        weights.embedding(hub.file("x.safetensors"), 1)
        port = int(hub.url.rsplit(":", 1)[1])
        idle = socket.create_connection(("127.0.0.1", port))
        kept = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(2):
            kept.request("GET", "/files/x.safetensors")
            assert len(kept.getresponse().read()) > 0
        assert hub.log()["connections"]["hub"] == {"open": 2, "max": 2, "total": 2}
        idle.close()
        get(f"{hub.url}/files/x.safetensors")  # a third, after one has gone
        log = hub.log(reset=True)
        assert log["connections"]["hub"] == {"open": 1, "max": 2, "total": 3}, log["connections"]
        assert len({entry["connection"] for entry in log["requests"]}) == 2
        assert hub.totals()["connections"]["hub"] == {"open": 1, "max": 1, "total": 1}
        kept.close()


def test_other_origins():
    with World() as world:
        hub = world.hub
        path = weights.embedding(hub.file("x.safetensors"), 1)
        tls, plain = hub.origin("tls"), hub.origin(name="all", host="0.0.0.0")
        context = ssl.create_default_context(cafile=tls["ca"])
        with urllib.request.urlopen(f"{tls['url']}/files/x.safetensors", context=context, timeout=30) as answer:
            assert len(answer.read()) == os.path.getsize(path)
        assert get(f"http://127.0.7.7:{plain['port']}/files/x.safetensors")[0] == 200
        hub.faults({"path": "/files/*", "action": "redirect", "location": "{tls}/files/x.safetensors"})
        assert get(f"{hub.url}/files/x.safetensors")[1]["Location"] == f"{tls['url']}/files/x.safetensors"
        stuck, mute = hub.origin("stuck"), hub.origin("mute")
        silent = socket.create_connection(("127.0.0.1", mute["port"]), 0.3)
        for wait in (lambda: silent.recv(1), lambda: socket.create_connection(("127.0.0.1", stuck["port"]), 0.3)):
            try:
                wait()
            except socket.timeout:
                continue
            raise AssertionError("it answered")
        silent.close()


def test_rate_of_all_together():
    with World() as world:
        hub = world.hub
        with open(hub.file("x.bin"), "wb") as file:
            file.write(bytes(400000))
        hub.settings(rate=1000000)
        begun = time.monotonic()
        threads = [threading.Thread(target=get, args=(f"{hub.url}/files/x.bin",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        assert 0.9 < took < 2.5, took
        assert hub.log()["paths"]["/files/x.bin"]["bytes"] == 1200000
