"""What the hub may be told to do wrong: one table of actions, and the rules that ask for them."""
import fnmatch
import re
import threading

ACTIONS = {
    # instead of an answer, or before it
    "hangup": "close the connection without an answer (reset: true sends a RST)",
    "raw": "send `text` as it is, `repeat` times, and close",
    "slow_start": "wait `seconds` before the status line",
    "slow_headers": "send the status line and a header, then nothing more",
    "status": "answer `status` (preset 503), with `retry_after` seconds and `code`, `message` for the X-Error headers; "
              "`body_bytes` makes its body so long",
    "rate_limit": "answer 429 (or `status`) with Retry-After: `retry_after` seconds; date: true gives it as an HTTP date, "
                  "hub: true as RateLimit instead",
    "redirect": "answer 302 (or `status`) to `location`; {hub}, {cdn} and the names of other origins stand for their addresses",
    "html": "answer 200 and a login page",
    # which bytes are answered, and what is said of them
    "serve": "answer with the file `file` of files/ instead: the source changed",
    "ignore_range": "answer 200 and the whole file to a range request",
    "range_shift": "answer a range that begins `by` bytes after (before) the one asked for",
    "range_most": "answer no more than `bytes` of a range, and say so",
    "range_total": "say in Content-Range that the file is `by` bytes longer",
    "content_range": "say `value` for Content-Range ({first}, {last}, {size}; null: no such header)",
    "multipart": "answer a range as multipart/byteranges",
    "unsatisfiable": "answer 416 with `value` for Content-Range ({size}; null: no such header)",
    "change_etag": "answer with an ETag and Last-Modified of another version each time",
    "weak_etag": "answer with a weak ETag",
    "headers": "nothing else than what `headers` says",
    # how the body comes
    "close": "end the connection after `bytes` of the body (reset: true sends a RST)",
    "stall": "send `bytes` of the body, then nothing until the client leaves or the fault is removed",
    "drip": "send the body at `bytes_per_s`",
    "wrong_length": "announce `delta` bytes more (or less) than are sent",
    "long_body": "send `extra` bytes more than the range that is named, and announce them",
    "no_length": "send no Content-Length, end the body by closing",
    "chunked": "send the body in chunks; `bytes`: close after so many, within a chunk",
    "corrupt": "turn over the byte at `offset` (preset 0)",
    "gzip": "answer the body gzipped, asked or not",
}


def first_of(header):
    """The first byte a Range header asks for; None without one or from the end."""
    match = re.match(r"bytes=(\d+)-", header or "")
    return int(match.group(1)) if match else None


def kind_of_validator(header):
    """What an If-Range holds: none, etag or date."""
    return "none" if header is None else "etag" if header.startswith(('"', "W/")) else "date"


class Fault:
    """One rule: which requests, how often, and what happens to them.

    A request matches by `path` (shell pattern on the decoded path), `origin`, `method` (GET; * any), `range` (true: only
    with a Range header), `from` (the range begins there or later) and `if_range` (none, etag, date)."""

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

    def matches(self, origin, method, path, headers):
        rule = self.rule
        first = first_of(headers.get("Range"))
        return (
            (self.left is None or self.left > 0)
            and rule.get("origin") in (None, origin)
            and rule.get("method", "GET") in (None, "*", method)
            and ("range" not in rule or bool(rule["range"]) == ("Range" in headers))
            and ("from" not in rule or (first is not None and first >= int(rule["from"])))
            and rule.get("if_range") in (None, kind_of_validator(headers.get("If-Range")))
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
