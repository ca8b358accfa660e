"""The hub itself: the tests stand on it."""
import json
import os
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
        assert hub.log()["totals"]["cdn_authorization"] == 1
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
