#!/usr/bin/python3
"""Servers that misbehave, as one table: each row is what a server does and what has to come of it.

    tests/e2e/test_misbehaviour.py [--list] [ROW...]     only the rows whose name has one of these words

All rows are downloads of one worker at the same time, each of its own address of loopback (so that no row waits at another's
host) and into its own folder. In every row: what is under the final name is a whole file of one version, or there is nothing;
no error's body is ever in a partial file; a weak ETag is never a validator.
"""
import argparse
import concurrent.futures
import os
import random
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from lib import weights  # noqa: E402
from lib.downloads import KIB, MIB, moving, on_disk, served, span_of, submit, write_file  # noqa: E402
from lib.world import SLOW, World  # noqa: E402

LIMIT_S = 240
TAKES_S = {"servers_that_misbehave": 60, "any_mixture_of_it": 20}
SMALL, LARGE = 20000, 11 * MIB + 12345  # one range; several
FIRST = 4 * MIB  # of the first range
CUT = 2 * MIB + 512 * KIB  # where a resumed row's first attempt stops
NAME = "x.safetensors"
SOME = 8  # times the size: begun anew, with what other connections had under way
ATTEMPTS = 3
SETTINGS = {"download.stall_s": 2, "download.connect_timeout_s": 1, "download.slots": 128, "broker.max_attempts": ATTEMPTS,
            "broker.retry_base_ms": 20, "broker.retry_max_ms": 100, "download.checkpoint_mb": 1}

# Codes of an answer that is no good, where it does not matter which of them.
BROKEN = {"network", "stalled", "http_error", "size_mismatch", "range_refused", "corrupt", "digest_mismatch", "too_large"}


@dataclass
class Row:
    name: str
    faults: list = field(default_factory=list)
    size: int = LARGE
    want: object = "completed"  # a code, or a set of them and "completed"
    sha: object = None  # True, False, or None: the row is run with the digest and without
    resumed: bool = False  # the faults come after a pause in the middle
    version: object = "one"  # which content is right in the end; a set if both are
    most: float = 0.0  # how often the file's size may be served at most
    spec: dict = field(default_factory=dict)
    repo: dict = field(default_factory=dict)  # settings of the row's repository
    url: str = "{row}/files/{name}/" + NAME  # or a list of mirrors
    check: object = None  # called with what was seen


def once(action, **more):
    return {"action": action, "count": 1, **more}


def later(action, **more):
    """Of every range but those from the start."""
    return {"action": action, "from": 1, **more}


# ---------------------------------------------------------------------------------------------------
# What some rows look at in the requests


def goes_on(seen):
    """After the pause no request asked for what was there."""
    spans = [span_of(entry) for entry in seen.after]
    assert spans and all(span and span[0] >= CUT // 2 for span in spans), spans


def climbs_down(*kinds):
    """The If-Ranges after the pause come in this order, each kind once: etag, then date, then none."""

    def check(seen):
        got = []
        for entry in seen.after:
            value = entry["if_range"]
            kind = "none" if value is None else "etag" if value.startswith('"') else "date"
            if not got or got[-1] != kind:
                got.append(kind)
        assert got[:len(kinds)] == list(kinds), got

    return check


def event_order(*names):
    def check(seen):
        events = seen.world.call("events", "since", seq=0, limit=100000, prefixes=["download_"])["events"]
        got = [event["event"] for event in events if event["id"] == seen.job["id"]]
        at = 0
        for name in names:
            assert name in got[at:], (name, got)
            at = got.index(name, at) + 1

    return check


def asks_origin_again(seen):
    assert len([entry for entry in seen.requests if "/resolve/" in entry["path"]]) > 1, "no new address was asked for"


def waited(least_s):
    """Nothing was asked for between the refusal and its end, but for what was on its way when the refusal came."""
    on_its_way_s = 0.4 * SLOW

    def check(seen):
        refused = [entry for entry in seen.requests if entry["status"] in (429, 503)]
        assert refused, seen.requests
        for one in refused:
            until = one["started"] + least_s
            told = one["started"] + one["seconds"] + on_its_way_s
            between = [entry for entry in seen.requests if told < entry["started"] < until]
            assert not between, [entry["started"] - one["started"] for entry in between]
        assert seen.job["failures"] == 0, seen.job["failures"]

    return check


def attempts(number):
    def check(seen):
        assert seen.job["attempt"] <= number, seen.job["attempt"]

    return check


# ---------------------------------------------------------------------------------------------------

STATUS_LATER = [(404, "not_found"), (410, "not_found"), (401, "auth_required"), (451, "auth_denied")]
ROWS = [
    # Nothing is wrong
    Row("small file", size=SMALL, most=1),
    Row("large file", most=1),
    Row("empty file", size=0),
    Row("empty file, 200 to every range", [{"action": "ignore_range"}], size=0),
    Row("empty file without a length", [{"action": "ignore_range", "headers": {"Content-Length": None, "Connection": "close"}}],
        size=0),
    Row("as long as the first range", size=FIRST, most=1),
    Row("one byte longer than the first range", size=FIRST + 1, most=1),
    Row("no validators", [{"action": "headers", "headers": {"ETag": None, "Last-Modified": None}}]),
    Row("closes after each answer", [{"action": "headers", "headers": {"Connection": "close"}}], most=1.1),
    Row("chunked", [{"action": "chunked"}], most=1.1),
    Row("no length", [{"action": "no_length", "range": False}, {"action": "ignore_range", "headers": {"Content-Length": None,
        "Connection": "close"}}]),
    Row("slow start", [once("slow_start", seconds=0.5)], most=1.1),

    # 200 to a Range
    Row("200 to the first range", [once("ignore_range", range=True)], most=2),
    Row("200 to every range", [{"action": "ignore_range"}], most=2),
    Row("200 to every range, small", [{"action": "ignore_range"}], size=SMALL, most=1),
    Row("200 to a later range", [once("ignore_range", **{"from": 1})], most=SOME),
    Row("200 to every later range", [later("ignore_range")], most=SOME),
    Row("resumed: 200 to the rest", [{"action": "ignore_range"}], resumed=True, most=SOME),
    Row("resumed: 200 once", [once("ignore_range")], resumed=True, most=2),

    # 206 from elsewhere
    Row("206 from later on, first range", [once("range_shift", by=100, range=True)], most=SOME),
    Row("206 from later on, always", [{"action": "range_shift", "by": 100}], most=SOME),
    Row("206 from later on, later range", [later("range_shift", by=1000)], most=SOME),
    Row("206 from before", [later("range_shift", by=-1000)], most=SOME),
    Row("206 from before, once", [once("range_shift", by=-100000, **{"from": 1})], most=SOME),
    Row("resumed: 206 from before", [later("range_shift", by=-1000)], resumed=True, most=SOME),
    Row("resumed: 206 from later on", [later("range_shift", by=1000)], resumed=True, most=SOME),
    Row("206 of another total", [once("range_total", by=5, **{"from": 1})], most=SOME),
    Row("206 of another total, always", [later("range_total", by=5)], most=SOME),
    Row("resumed: 206 of another total", [later("range_total", by=-5)], resumed=True, most=SOME),
    Row("206 of an unknown total", [{"action": "content_range", "value": "bytes {first}-{last}/*"}], most=SOME),
    Row("206 shorter than asked", [{"action": "range_most", "bytes": 700001}], most=1.1),
    Row("206 of one byte", [once("range_most", bytes=1)], most=2),
    Row("resumed: 206 shorter than asked", [{"action": "range_most", "bytes": 700001}], resumed=True, most=2),
    Row("206 without Content-Range", [{"action": "content_range", "value": None}], most=SOME),
    Row("206 without Content-Range, once", [once("content_range", value=None, **{"from": 1})], most=SOME),
    Row("resumed: 206 without Content-Range", [{"action": "content_range", "value": None}], resumed=True, most=SOME),
    *(Row(f"206 with Content-Range '{value}'", [later("content_range", value=value)], most=SOME) for value in (
        "bytes", "bytes */{size}", "bytes 5-2/{size}", "items {first}-{last}/{size}", "bytes {first}-{last}/-1",
        "bytes {first}-99999999999999999999999/{size}", "bytes -{last}/{size}")),
    Row("multipart/byteranges", [{"action": "multipart"}], most=SOME),
    Row("resumed: multipart/byteranges", [{"action": "multipart"}], resumed=True, most=SOME),
    Row("206 with a longer body", [later("long_body", extra=5000)], most=SOME),
    Row("resumed: 206 with a longer body", [later("long_body", extra=5000)], resumed=True, most=SOME),

    # 416
    Row("416 of our size", [later("unsatisfiable", count=1)], most=SOME),
    Row("416 of another size", [later("unsatisfiable", count=1, value="bytes */8")], most=SOME),
    Row("416 without a size", [later("unsatisfiable", count=1, value=None)], most=SOME),
    Row("416 to every range", [{"action": "unsatisfiable", "value": None, "range": True}], most=2),
    Row("416 to every range, empty file", [{"action": "unsatisfiable", "value": None, "range": True}], size=0),
    Row("resumed: 416 of our size", [once("unsatisfiable")], resumed=True, most=2),
    Row("resumed: 416 of another size", [{"action": "unsatisfiable", "value": "bytes */8", "range": True}], resumed=True, most=2),
    Row("resumed: 416 without a size", [{"action": "unsatisfiable", "value": None, "range": True}], resumed=True, most=2),

    # Versions
    Row("changed between ranges", [{"action": "serve", "file": "two", "skip": 2}], sha=False, version="two", most=SOME),
    Row("changed between ranges, old digest", [{"action": "serve", "file": "two", "skip": 2}], sha=True, want="digest_mismatch"),
    Row("changed between ranges, new digest", [{"action": "serve", "file": "two", "skip": 2}], sha=False, version="two",
        spec={"sha256": "two"}, most=SOME),
    Row("changed to another size", [{"action": "serve", "file": "longer", "skip": 2}], sha=False, version="longer", most=SOME),
    Row("two versions in turn", [{"action": "serve", "file": "two", "from": 1}], sha=False, version={"one", "two"},
        want={"completed", *BROKEN}),
    Row("resumed: changed", [{"action": "serve", "file": "two"}], sha=False, resumed=True, version="two", most=SOME),
    Row("resumed: changed, same validators", [{"action": "serve", "file": "two", "headers": {"ETag": "\"same\"",
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}}], sha=True, resumed=True, want={"digest_mismatch"}),
    Row("changed ETag once", [once("change_etag", **{"from": 1})], most=SOME),
    Row("another ETag each time", [{"action": "change_etag"}], most=SOME, want={"completed", "range_refused"}),
    Row("resumed: changed ETag", [{"action": "change_etag", "count": 2}], resumed=True, most=SOME),
    Row("weak ETag", [{"action": "weak_etag"}], most=1.1),
    Row("weak ETag and no date", [{"action": "weak_etag", "headers": {"Last-Modified": None}}], most=SOME),
    Row("resumed: 200 to If-Range with the ETag", [{"action": "ignore_range", "if_range": "etag"}], resumed=True,
        check=climbs_down("etag", "date")),
    Row("resumed: 200 to every If-Range", [{"action": "ignore_range", "if_range": "etag"}, {"action": "ignore_range",
        "if_range": "date"}], resumed=True, sha=True, check=climbs_down("etag", "date", "none")),
    Row("resumed: 200 to every If-Range, no digest", [{"action": "ignore_range", "if_range": "etag"},
        {"action": "ignore_range", "if_range": "date"}], resumed=True, sha=False, most=SOME),
    Row("resumed", [], resumed=True, most=2, check=goes_on),

    # Bodies
    Row("short body once", [once("close", bytes=300000)], most=1.2),
    Row("short bodies", [{"action": "close", "bytes": 600000, "count": 6}], most=1.5),
    Row("short body, small", [once("close", bytes=5000)], size=SMALL, most=1.1),
    Row("short body by reset", [once("close", bytes=300000, reset=True)], most=1.2),
    Row("headers and no body", [once("close", bytes=0)], most=1.2),
    Row("no body ever", [{"action": "close", "bytes": 0}], want={"network", "stalled"}),
    Row("short chunked body", [once("chunked", bytes=300000)], most=1.2),
    Row("too long a length", [once("wrong_length", delta=1000)], most=SOME),
    Row("too long a length, always", [{"action": "wrong_length", "delta": 1000}], size=SMALL, sha=True,
        want={"completed", *BROKEN}),
    Row("too short a length", [once("wrong_length", delta=-1000)], most=SOME, want={"completed", *BROKEN}),
    Row("too short a length, no range", [{"action": "wrong_length", "delta": -1000, "range": False},
        {"action": "ignore_range", "headers": {"Content-Length": LARGE - 1000, "Connection": "close"}}], sha=True, want=BROKEN),
    Row("longer than the size that was told", [], spec={"size": LARGE - 1}, want="size_mismatch"),
    Row("shorter than the size that was told", [], spec={"size": LARGE + 1}, want="size_mismatch"),
    Row("gzip", [{"action": "gzip"}], want={"completed", *BROKEN}),
    Row("gzip, small", [{"action": "gzip"}], size=SMALL, want={"completed", *BROKEN}),
    Row("gzip once, later", [once("gzip", **{"from": 1})], want={"completed", *BROKEN}),
    Row("one byte wrong", [{"action": "corrupt", "offset": 5}], sha=True, want="digest_mismatch"),
    Row("one byte wrong, later", [{"action": "corrupt", "offset": LARGE - 1}], sha=True, want="digest_mismatch"),
    Row("one byte wrong, small", [{"action": "corrupt", "offset": SMALL - 1}], sha=True, size=SMALL, want="digest_mismatch"),
    Row("one byte wrong, once, after a pause", [once("corrupt", offset=LARGE - 1)], sha=True, resumed=True,
        want={"completed", "digest_mismatch"}),

    # Errors, whose bodies are no part of the file
    Row("500 at first", [once("status", status=500, body_bytes=100000)], most=1.1),
    Row("503 now and then", [{"action": "status", "status": 503, "count": 2, "skip": 1, "body_bytes": 100000}], most=1.5),
    Row("500 for ever", [{"action": "status", "status": 500, "body_bytes": 100000}], want="network"),
    Row("500 for ever, later", [later("status", status=500, body_bytes=100000)], want="network"),
    Row("resumed: 500 at first", [once("status", status=500, body_bytes=100000)], resumed=True, most=2),
    *(Row(f"{status}", [{"action": "status", "status": status, "body_bytes": 100000}], want=code) for status, code in (
        (404, "not_found"), (410, "not_found"), (401, "auth_required"), (403, "auth_denied"), (402, "auth_denied"),
        (451, "auth_denied"), (400, "http_error"), (418, "http_error"), (502, "network"), (504, "network"))),
    *(Row(f"{status} later", [later("status", status=status, body_bytes=100000)], want=code) for status, code in STATUS_LATER),
    *(Row(f"resumed: {status}", [{"action": "status", "status": status, "body_bytes": 100000}], want=code, resumed=True)
      for status, code in STATUS_LATER),
    Row("204", [{"action": "status", "status": 204, "headers": {"Content-Length": None}}], want={"http_error", "network"}),
    Row("304", [{"action": "status", "status": 304, "headers": {"Content-Length": None}}], want={"http_error", "network"}),

    # Pages
    Row("a page for a weight file", [{"action": "html"}], want="not_a_model"),
    Row("a page for a weight file, later", [later("html")], want={"not_a_model", "range_refused", "completed"}),
    Row("resumed: a page", [{"action": "html"}], resumed=True, want="not_a_model"),

    # Redirects
    Row("nine redirects", [{"action": "redirect", "path": f"/files/{{name}}/{n}", "location": f"/files/{{name}}/{n + 1}"}
        for n in range(8)] + [{"action": "redirect", "path": "/files/{name}/8", "location": "/files/{name}/" + NAME}],
        url="{row}/files/{name}/0", spec={"filename": NAME}, most=1.01),
    Row("eleven redirects", [{"action": "redirect", "path": f"/files/{{name}}/{n}", "location": f"/files/{{name}}/{n + 1}"}
        for n in range(10)] + [{"action": "redirect", "path": "/files/{name}/10", "location": "/files/{name}/" + NAME}],
        url="{row}/files/{name}/0", spec={"filename": NAME}, want="http_error"),
    Row("a redirect to itself", [{"action": "redirect", "location": "/files/{name}/" + NAME}], want="http_error"),
    Row("redirects in a circle", [{"action": "redirect", "location": "{{cdn}}/files/{name}/" + NAME, "origin": "all"},
        {"action": "redirect", "location": "{{all}}/files/{name}/" + NAME, "origin": "cdn"}], want="http_error"),
    *(Row(f"a redirect to {where}", [{"action": "redirect", "location": where}], want={"ValueError", "unsafe_url"}) for where in (
        "ftp://127.0.0.1/x", "file:///etc/passwd", "gopher://127.0.0.1/x")),
    Row("a redirect to nowhere", [{"action": "redirect", "location": "http://"}], want={"ValueError", "unsafe_url", "http_error"}),
    Row("a redirect without Location", [{"action": "redirect", "location": None}], want={"http_error", "ValueError", "network"}),
    Row("307 and 308", [once("redirect", status=307, location="/files/{name}/" + NAME), once("redirect", status=308,
        location="/files/{name}/" + NAME)], most=1.01),
    Row("a later range is redirected", [later("redirect", location="{{all}}/files/{name}/" + NAME, count=2)], most=1.5),
    Row("signed address", url="{row}/rows/{name}/resolve/main/" + NAME, most=1.01),
    Row("signed address that is good twice", repo={"url_uses": 2}, url="{row}/rows/{name}/resolve/main/" + NAME, most=1.5,
        check=asks_origin_again),
    Row("resumed: signed address that is good thrice", repo={"url_uses": 3}, resumed=True,
        url="{row}/rows/{name}/resolve/main/" + NAME, most=2, check=asks_origin_again),
    Row("signed address that is refused for ever", [{"action": "status", "status": 403, "origin": "cdn"}],
        url="{row}/rows/{name}/resolve/main/" + NAME, want="auth_denied"),

    # Slow ones and dead ones
    Row("stalls once", [once("stall", bytes=1 * MIB)], most=1.5, check=event_order("download_stalled", "download_resumed")),
    Row("stalls once, later", [later("stall", bytes=100000, count=1)], most=1.5),
    Row("stalls for ever", [{"action": "stall", "bytes": 0}], want={"stalled"}),
    Row("drips once", [once("drip", bytes_per_s=200)], most=1.5),
    Row("drips for ever", [{"action": "drip", "bytes_per_s": 200}], want={"stalled"}),
    Row("stuck in connect", url="{stuck}/x.safetensors", want="network"),
    Row("stuck in TLS", url="{mute_tls}/x.safetensors", want={"network", "stalled"}),
    Row("silent after connect", url="{mute}/x.safetensors", want={"network", "stalled"}),
    Row("nobody listens", url="http://127.0.0.1:1/x.safetensors", want="network"),
    Row("no such host", url="http://none.invalid/x.safetensors", want={"network", "unsafe_url"}),
    Row("untrusted certificate", url="{tls}/files/{name}/x.safetensors", want="http_error"),
    Row("headers that never end", [{"action": "slow_headers"}], want={"stalled", "network"}),
    Row("headers that never end, once", [once("slow_headers")], most=1.1),
    Row("hangs up once", [once("hangup")], most=1.1),
    Row("hangs up for ever", [{"action": "hangup"}], want="network"),
    Row("reset for ever", [{"action": "hangup", "reset": True}], want="network"),
    Row("hangs up later", [later("hangup", count=3)], most=1.2),

    # Not HTTP
    Row("garbage", [{"action": "raw", "text": "220 mail.example ESMTP\r\n"}], want={"network", "http_error", "corrupt"}),
    Row("a status of letters", [{"action": "raw", "text": "HTTP/1.1 abc\r\n\r\n"}], want={"network", "http_error", "corrupt"}),
    Row("two lengths", [{"action": "raw", "text": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"}],
        sha=True, want=BROKEN),
    Row("a length below zero", [{"action": "raw", "text": "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"}], sha=True,
        want=BROKEN),
    Row("a length beyond all bounds", [{"action": "raw", "text": f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 62}\r\n\r\nhello"}],
        want={"network", "no_space", "too_large", "http_error", "size_mismatch"}, sha=True),
    Row("headers without end", [{"action": "raw", "text": "HTTP/1.1 200 OK\r\n", "again": "X-More: " + "y" * 1000 + "\r\n",
        "repeat": 3000}], want={"network", "http_error", "too_large"}),
    Row("a chunk size of letters", [{"action": "raw", "text": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello"}],
        want={"network", "http_error", "corrupt"}),

    # Waiting
    Row("429 with seconds", [once("rate_limit", retry_after=1)], check=waited(1), most=1.1),
    Row("429 with a date", [once("rate_limit", retry_after=2, date=True)], check=waited(1), most=1.1),
    Row("429 as the hub says it", [once("rate_limit", retry_after=1, hub=True)], check=waited(1), most=1.1),
    Row("503 with seconds", [once("rate_limit", retry_after=1, status=503)], check=waited(1), most=1.1),
    Row("429 later", [later("rate_limit", retry_after=1, count=1)], check=waited(1), most=1.5),
    Row("429 many times", [{"action": "rate_limit", "retry_after": 1, "count": ATTEMPTS + 1}], size=SMALL, most=1.1),
    Row("resumed: 429", [once("rate_limit", retry_after=1)], resumed=True, check=waited(1), most=2),

    # Mirrors
    Row("the first mirror has nothing", [{"action": "status", "status": 404}],
        url=["{row}/files/{name}/" + NAME, "{row}/files/one-copy/" + NAME], most=1.01),
    Row("the first mirror is stuck", url=["{stuck}/" + NAME, "{row}/files/one-copy/" + NAME], most=1.01),
    Row("the first mirror has a page", [{"action": "html"}], url=["{row}/files/{name}/" + NAME, "{row}/files/one-copy/" + NAME],
        most=1.01),
    Row("the first mirror breaks", [{"action": "close", "bytes": 100000}],
        url=["{row}/files/{name}/" + NAME, "{row}/files/one-copy/" + NAME], most=SOME),
    Row("the first mirror has one byte wrong", [{"action": "corrupt", "offset": 5}], sha=True,
        url=["{row}/files/{name}/" + NAME, "{row}/files/one-copy/" + NAME], want={"completed", "digest_mismatch"}),
    Row("the first mirror has another version", [{"action": "serve", "file": "two"}, ], sha=True,
        url=["{row}/files/{name}/" + NAME, "{row}/files/one-copy/" + NAME], want={"completed", "digest_mismatch"}),
]


def expanded(rows):
    """Each row with its digest's choice made: (name, row, with digest)."""
    for row in rows:
        for sha in (True, False) if row.sha is None else (row.sha,):
            yield row.name + (", with digest" if sha and row.sha is None else ""), row, sha


class Seen:
    """What a row's check looks at."""

    def __init__(self, world, job, requests, resumed_at):
        self.world, self.job, self.requests = world, job, requests
        self.after = [entry for entry in requests if resumed_at is not None and entry["started"] >= resumed_at]


class Table:
    """The world all rows run in."""

    def __init__(self, world):
        self.world = world
        hub = world.hub
        self.places = {"all": hub.origin(name="all", host="0.0.0.0"), "tls": hub.origin("tls"), "stuck": hub.origin("stuck"),
                       "mute": hub.origin("mute")}
        self.versions = {}
        for name, size, seed in (("one", LARGE, 1), ("two", LARGE, 2), ("longer", LARGE + 5000, 3), ("one-copy", LARGE, 1)):
            path = write_file(hub.file(os.path.join(name, NAME) if name == "one-copy" else name), size, seed)
            self.versions[name] = weights.sha256(path)
        self.sizes = {LARGE: hub.file("one")}
        for size in (0, SMALL, FIRST, FIRST + 1):
            self.sizes[size] = write_file(hub.file(f"size-{size}"), size, 4)
        self.digests = {size: weights.sha256(path) for size, path in self.sizes.items()}

    def run(self, number, name, row, sha):
        """One row; AssertionError if it came out otherwise."""
        self.Run(self, number, name, row, sha).go()

    class Run:
        def __init__(self, table, number, name, row, sha):
            self.table, self.world, self.name, self.row, self.sha = table, table.world, name, row, sha
            self.key = f"r{number}"
            self.out = os.path.join(self.world.folder, "out", self.key)
            self.host = f"127.1.{number // 200}.{number % 200 + 1}"
            hub = self.world.hub
            for place in (hub.file(self.key), hub.repo(f"rows/{self.key}")):
                os.makedirs(place, exist_ok=True)
                os.link(table.sizes[row.size], os.path.join(place, NAME))
            if row.repo:
                hub.repo_settings(f"rows/{self.key}", **row.repo)
            self.resumed_at = None

        def address(self, text):
            places = self.table.places
            port = places["all"]["port"]
            return text.format(row=f"http://{self.host}:{port}", name=self.key,
                               stuck=places["stuck"]["url"], mute=places["mute"]["url"], tls=places["tls"]["url"],
                               mute_tls=places["mute"]["url"].replace("http:", "https:"))

        def rules(self):
            for fault in self.row.faults:
                rule = {key: value.format(name=self.key) if key in ("path", "location") and value and "{" in value else value
                        for key, value in fault.items()}
                if "location" in rule:
                    rule["origin"] = fault.get("origin")
                # Both where a file lies: /files/KEY/x and /lfs/rows/KEY/main/x; never the resolving itself.
                yield {"path": f"*/{self.key}/*{NAME}", **rule}

        def go(self):
            spec = dict(self.row.spec)
            if self.sha:
                spec["sha256"] = self.table.digests[self.row.size]
            if spec.get("sha256") in self.table.versions:
                spec["sha256"] = self.table.versions[spec["sha256"]]
            url = self.row.url
            spec["source"] = [self.address(one) for one in url] if isinstance(url, list) else self.address(url)
            if self.row.resumed:
                job = self.first_half(spec)
            else:
                self.arm()
                job = submit(self.world, spec.pop("source"), self.out, **spec)
            self.judge(self.outcome(job["id"]))

        def outcome(self, number):
            """The ended job; one that waits for room is as good as ended, as nobody makes any."""
            found = []

            def over():
                found[:] = [self.world.call("download", "id_to_job", id=number)]
                return found[0]["status"] in ("completed", "error", "cancelled", "dead") or found[0]["error_type"] == "no_space"

            self.world.eventually(over, 180)
            return found[0]

        def arm(self):
            rules = list(self.rules())
            if rules:
                self.world.hub.faults(*rules)

        def first_half(self, spec):
            """Begins, is paused in the middle with bytes on the disk, and started again under the row's faults."""
            events = self.world.events("download_")
            cut = self.world.hub.faults({"path": f"/*/{self.key}/*{NAME}", "action": "stall", "bytes": CUT})[0]
            job = submit(self.world, spec.pop("source"), self.out, start=False, **spec)
            self.world.call("download", "start_job", id=job["id"])
            events.until(moving(job["id"], CUT // 2), 30)
            self.world.call("download", "pause_job", id=job["id"])
            self.world.eventually(lambda: self.let_go(), 30)
            self.world.hub.control("DELETE", f"faults/{cut['id']}")
            self.arm()
            self.resumed_at = time.time()
            return self.world.call("download", "start_job", id=job["id"])

        def let_go(self):
            _, hidden = on_disk(self.out)
            running = [entry for entry in self.world.hub.log(path=f"/*/{self.key}/*")["requests"] if entry["seconds"] is None]
            return any(name.endswith(".journal") for name in hidden) and not running

        def judge(self, job):
            want = self.row.want if isinstance(self.row.want, set) else {self.row.want}
            outcome = job["status"] if job["status"] == "completed" else job["error_type"]
            assert outcome in want, f"{outcome} ({job['error']}), not {' or '.join(sorted(map(str, want)))}"
            shown, hidden = on_disk(self.out)
            requests = self.world.hub.log(path=f"*/{self.key}/*")["requests"] + \
                ([] if isinstance(self.row.url, str) else self.world.hub.log(path="/files/one-copy/*")["requests"])
            requests = [entry for entry in requests if not entry["path"].startswith("/files/one-copy") or
                        entry["headers"].get("host", "").startswith(self.host + ":")]
            if outcome == "completed":
                self.judge_file(job, shown, hidden)
            else:
                assert not shown, f"there is {shown} under the final name"
                self.judge_partial(hidden)
            weak = [entry["if_range"] for entry in requests if (entry["if_range"] or "").startswith("W/")]
            assert not weak, f"a weak validator was used: {weak}"
            size = max(self.row.size, 1)
            if self.row.most:
                # What a slow reader leaves in its sockets when they are closed counts as served.
                assert served(requests) <= self.row.most * size * SLOW, f"{served(requests) / size:.2f} times the size was served"
            if self.row.check and outcome == "completed" or self.row.check and not isinstance(self.row.want, set):
                self.row.check(Seen(self.world, job, requests, self.resumed_at))

        def judge_file(self, job, shown, hidden):
            assert shown == [NAME] and not hidden, f"in the folder: {shown} {hidden}"
            path = os.path.join(self.out, NAME)
            digest = weights.sha256(path)
            versions = self.row.version if isinstance(self.row.version, set) else {self.row.version}
            right = {self.table.versions[one] for one in versions} if self.row.size == LARGE else {self.table.digests[self.row.size]}
            assert digest in right, "it is not what was served, or not in one piece"
            assert job["result"]["sha256"] == digest and job["result"]["bytes"] == os.path.getsize(path), job["result"]

        def judge_partial(self, hidden):
            for name in hidden:
                with open(os.path.join(self.out, name), "rb") as file:
                    data = file.read()
                for words in (b"on demand!!!", b"Please log in", b"Too many requests"):
                    assert words not in data, f"the body of an error is in {name}"


def run_rows(rows):
    """{name: problem} of those that failed."""
    failed, lock = {}, threading.Lock()
    rows = list(expanded(rows))
    with World(SETTINGS) as world:
        table = Table(world)
        world.start("broker", "download")

        def work(number):
            name, row, sha = rows[number]
            began = time.monotonic()
            try:
                table.run(number, name, row, sha)
                problem = None
            except Exception as error:
                problem = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
            with lock:
                print(f"{'FAIL' if problem else 'ok  '} {name} ({time.monotonic() - began:.1f} s)" +
                      (f": {problem}" if problem else ""), flush=True)
                if problem:
                    failed[name] = problem

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            # What takes longest, waiting, first.
            list(pool.map(work, sorted(range(len(rows)), key=lambda number: -patient(rows[number][1]))))
        print(f"{len(rows) - len(failed)} of {len(rows)} rows as expected")
        if failed:
            raise AssertionError(f"{len(failed)} of {len(rows)} rows failed:\n" +
                                 "\n".join(f"{name}: {problem}" for name, problem in failed.items()))


# What may come in any order and number and yet has to end well: (action, what it takes), only what no reader could miss.
CHAOS = [
    ("ignore_range", {}), ("range_shift", {"by": [-5000, -1, 1, 100000]}), ("range_most", {"bytes": [1, 5000, 700001]}),
    ("range_total", {"by": [-1, 1, 5000]}), ("content_range", {"value": [None, "bytes */{size}", "bytes {first}-{last}/*", "x"]}),
    ("multipart", {}), ("unsatisfiable", {"value": [None, "bytes */{size}", "bytes */8"]}), ("change_etag", {}), ("weak_etag", {}),
    ("close", {"bytes": [0, 1, 70000, 2000000], "reset": [True, False]}), ("stall", {"bytes": [0, 300000]}),
    ("long_body", {"extra": [1, 100000]}), ("no_length", {}), ("chunked", {"bytes": [10, 300000, LARGE]}), ("gzip", {}),
    ("hangup", {"reset": [True, False]}), ("slow_start", {"seconds": [0.1]}), ("status", {"status": [500, 502, 503, 408]}),
    ("rate_limit", {"retry_after": [1]}), ("redirect", {"location": ["{{all}}/files/{name}/x.safetensors"], "count": [1]}),
    ("headers", {"headers": [{"ETag": None}, {"Last-Modified": None}, {"ETag": None, "Last-Modified": None}, {"Connection": "close"}]}),
    ("serve", {"file": ["two"]}),
]


def chaos(rng, number):
    """A row of some of it, each a few times."""
    faults = []
    for _ in range(rng.randint(1, 5)):
        action, choices = rng.choice(CHAOS)
        rule = {"action": action, "count": rng.randint(1, 4), "skip": rng.choice((0, 0, 1, 2, 5))}
        rule.update({key: rng.choice(values) for key, values in choices.items()})
        if rng.random() < 0.4 or action == "range_total":  # who lies from the start and to the end cannot be caught
            rule["from"] = rng.choice((1, FIRST, 6 * MIB))
        faults.append(rule)
    served_two = any(fault["action"] == "serve" for fault in faults)
    return Row(f"chaos {number}: {faults}", faults, sha=rng.random() < 0.5, resumed=rng.random() < 0.4,
               version={"one", "two"} if served_two else "one", want={"completed", *BROKEN}, check=few_requests)


def few_requests(seen):
    assert len(seen.requests) < 500, f"{len(seen.requests)} requests"


def patient(row):
    return ("for ever" in row.name) + ("stuck" in row.name) + ("stalls" in row.name) + ("silent" in row.name)


def test_servers_that_misbehave():
    """Every row of the table."""
    run_rows(ROWS)


def test_any_mixture_of_it():
    """Random rows: the file of one version or an error, never a mixture, and no flood of requests. The seed is printed."""
    seed = int(os.environ.get("LADE_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    run_rows([chaos(rng, number) for number in range(int(os.environ.get("LADE_ROWS", "100")))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("rows", nargs="*")
    args = parser.parse_args()
    rows = [row for row in ROWS if not args.rows or any(words in row.name for words in args.rows)]
    if args.list:
        print("\n".join(name for name, _, _ in expanded(rows)))
    else:
        run_rows(rows)


if __name__ == "__main__":
    main()
