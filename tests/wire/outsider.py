#!/usr/bin/python3
"""The wire as an outsider sees it: a client, a subscriber and a worker in Python, with nothing of lade's own.

    tests/wire/outsider.py --data DIR SOURCE            installs SOURCE, follows its events, prints its record
    tests/wire/outsider.py --data DIR --life SOURCE     then finds, edits and deletes it

What is used is what broker/README.md says: Majordomo 0.2 and LADEW1 over ZeroMQ, msgpack bodies. python3-zmq and
python3-msgpack. The tests use the three classes as well.
"""
import argparse
import itertools
import json
import os
import socket
import sys
import time

import msgpack
import zmq

CLIENT, WORKER = b"MDPC02", b"LADEW1"
REQUEST, PARTIAL, FINAL = b"\x01", b"\x02", b"\x03"
HELLO, BEAT, PROGRESS, DONE, FAIL, AWAIT, GATE, BYE, WELCOME, JOB, CANCEL, PAUSE, RETIRE, TERMS = (bytes([n]) for n in range(1, 15))


class LadeError(Exception):
    """An answer that is not ok: code to branch on, message to show."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def _socket(kind, endpoint):
    """libzmq connects when there is somebody, and again when a broker comes back."""
    made = zmq.Context.instance().socket(kind)
    made.linger = 0
    made.rcvhwm = made.sndhwm = 100000
    made.connect(endpoint)
    return made


def _left(until):
    return max(0, int((until - time.monotonic()) * 1000))


class Client:
    """Requests and their answers; many may be in flight."""

    def __init__(self, endpoint):
        self.socket = _socket(zmq.DEALER, endpoint)
        self.ids = itertools.count(1)
        self.answers = {}

    def send(self, service, op, **args):
        number = next(self.ids)
        body = msgpack.packb({"id": number, "op": op, "args": args})
        self.socket.send_multipart([b"", CLIENT, REQUEST, service.encode(), body])
        return number

    def receive(self, number, timeout_s=30, partial=None):
        until = time.monotonic() + timeout_s
        while number not in self.answers:
            if not self.socket.poll(_left(until)):
                raise LadeError("broker_unreachable", f"no answer within {timeout_s} s")
            _, _, final, _, body = self.socket.recv_multipart()
            answer = msgpack.unpackb(body)
            if answer["id"] is None and not answer["ok"]:
                raise LadeError(answer["error"]["code"], answer["error"]["message"])  # it could not be read at all
            if final == FINAL:
                self.answers[answer["id"]] = answer
            elif partial:
                partial(answer.get("result"))
        answer = self.answers.pop(number)
        if not answer["ok"]:
            raise LadeError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def call(self, service, op, timeout_s=30, **args):
        return self.receive(self.send(service, op, **args), timeout_s)

    def serves(self, service, timeout_s=30):
        """mmi.service, which answers bare."""
        self.socket.send_multipart([b"", CLIENT, REQUEST, b"mmi.service", service.encode()])
        if not self.socket.poll(timeout_s * 1000):
            raise LadeError("broker_unreachable", f"no answer within {timeout_s} s")
        return self.socket.recv_multipart()[-1] == b"200"

    def close(self):
        self.socket.close()


class Events:
    """A subscription. receive() gives the next event, or None when the time is over."""

    def __init__(self, endpoint, prefixes=("",)):
        self.socket = _socket(zmq.SUB, endpoint)
        for prefix in prefixes:
            self.socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())

    def receive(self, timeout_s=30):
        if not self.socket.poll(int(timeout_s * 1000)):
            return None
        topic, body = self.socket.recv_multipart()
        event = msgpack.unpackb(body)
        event["topic"] = topic.decode()
        return event

    def until(self, wanted, timeout_s=30):
        """The events up to and with the first that `wanted` says yes to."""
        seen, until = [], time.monotonic() + timeout_s
        while True:
            event = self.receive(_left(until) / 1000)
            if event is None:
                names = ", ".join(f"{event['event']}/{event['id']}" for event in seen[-20:])
                raise TimeoutError(f"the event did not come within {timeout_s} s; the last ones: {names or 'none'}")
            seen.append(event)
            if wanted(event):
                return seen

    def ready(self, timeout_s=30):
        """Waits for the first message: from here on nothing is missed. Needs a subscription that beats match."""
        return self.until(lambda event: True, timeout_s)[-1]

    def close(self):
        self.socket.close()


class Follower:
    """Every journaled event once and in order, whatever the subscription lost (broker/README.md, "Catching up")."""

    def __init__(self, client, events, since=0):
        self.client, self.events, self.seq = client, events, since
        self.replays = 0

    def catch_up(self):
        while True:
            answer = self.client.call("events", "since", seq=self.seq)
            self.replays += 1
            for event in answer["events"]:
                self.seq = event["seq"]
                yield event
            if not answer["more"]:
                return

    def follow(self, timeout_s=30):
        until = time.monotonic() + timeout_s
        self.events.ready(timeout_s)
        yield from self.catch_up()
        while (event := self.events.receive(_left(until) / 1000)) is not None:
            if event.get("progress") or event["event"] == "broker_beat":
                if event["seq"] > self.seq:
                    yield from self.catch_up()
            elif event["seq"] == self.seq + 1:
                self.seq += 1
                yield event
            elif event["seq"] > self.seq:
                yield from self.catch_up()


class Worker:
    """A worker that serves kinds of its own, one job after the other. Beats are sent between the jobs' steps."""

    def __init__(self, endpoint, kinds, name=None, slots=1, labels=None, terms=False):
        self.endpoint, self.kinds, self.slots, self.labels = endpoint, list(kinds), slots, labels or {}
        self.terms = terms  # whether it says that it understands TERMS
        self.bytes_per_s = 0  # its share of the farm's rate
        self.name = name or f"outsider@{socket.gethostname()}:{os.getpid()}-{os.urandom(3).hex()}"
        self.socket = _socket(zmq.DEALER, endpoint)
        self.numbers = itertools.count(1)
        self.held = {}
        self.unacked = {}
        self.beat_s, self.next_beat = 1.0, 0.0

    def send(self, command, **body):
        self.socket.send_multipart([b"", WORKER, command, msgpack.packb(body)])

    def hello(self):
        jobs = [{"id": number, "attempt": job["attempt"]} | ({"connections": job["kept"]} if job.get("kept") else {})
                for number, job in self.held.items()]
        self.send(HELLO, terms=self.terms, name=self.name, host=socket.gethostname(), pid=os.getpid(), kinds=self.kinds, slots=self.slots,
                  labels=self.labels, version="outsider", jobs=jobs)

    def beat(self):
        self.send(BEAT, jobs=[{"id": number, "attempt": job["attempt"]} for number, job in self.held.items()])
        self.next_beat = time.monotonic() + self.beat_s

    def report(self, command, job, **body):
        """DONE, FAIL and AWAIT: kept until the broker says they are on disk."""
        body.update(n=next(self.numbers), id=job["id"], attempt=job["attempt"])
        self.unacked[body["n"]] = (command, body)
        self.held.pop(job["id"], None)
        self.send(command, **body)
        return body["n"]

    def done(self, job, result=None, effects=()):
        return self.report(DONE, job, result=result or {}, effects=list(effects))

    def fail(self, job, code, message, **more):
        return self.report(FAIL, job, code=code, message=message, **more)

    def await_jobs(self, job, state, jobs, ask=()):
        return self.report(AWAIT, job, state=state, jobs=jobs, ask=list(ask))

    def progress(self, job, done, total, phase=None, **more):
        body = {"id": job["id"], "attempt": job["attempt"], "bytes": done, "total_bytes": total}
        self.send(PROGRESS, **(body | ({"phase": phase} if phase else {}) | more))

    def confirm(self, job):
        """It has closed what it had open beyond its terms."""
        job["kept"] = job.get("connections", 0)
        self.send(PROGRESS, id=job["id"], attempt=job["attempt"], connections=job["kept"], serial=job["serial"])

    def take_terms(self, body):
        """An item has all terms of a job. More connections may be used at once, fewer when confirm() was called."""
        self.bytes_per_s = body.get("bytes_per_s", self.bytes_per_s)
        for item in body["jobs"]:
            job = self.held.get(item["id"])
            if job and job["attempt"] == item["attempt"]:
                for name in ("serial", "connections", "bytes_per_s", "hold_s"):
                    job[name] = item.get(name, 0)
                if not job["connections"] or 0 < job.get("kept", 0) <= job["connections"]:
                    self.confirm(job)

    def receive(self, timeout_s=30):
        """The next (command, body) that is for the work; beats and welcomes are dealt with here. None: nothing came."""
        until = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            if now >= self.next_beat:
                self.beat()
            if not self.socket.poll(min(_left(until), max(1, int((self.next_beat - now) * 1000)))):
                if time.monotonic() >= until:
                    return None
                continue
            _, _, command, body = self.socket.recv_multipart()
            body = msgpack.unpackb(body)
            for number in [n for n in self.unacked if n <= body.get("acked", 0)]:
                del self.unacked[number]
            if command == BEAT and body.get("known") is False:
                self.hello()
            elif command == WELCOME:
                self.beat_s = body["beat_ms"] / 1000
                for dropped in body.get("drop", ()):
                    self.held.pop(dropped if isinstance(dropped, int) else dropped["id"], None)
                for number in sorted(self.unacked):
                    sent, report = self.unacked[number]
                    self.send(sent, **report)
            elif command == JOB:
                self.held[body["id"]] = body | {"kept": body.get("connections", 0)}
                return command, self.held[body["id"]]
            elif command == TERMS:
                self.take_terms(body)
                return command, body
            elif command in (CANCEL, PAUSE, RETIRE):
                return command, body

    def job(self, timeout_s=30):
        """The next job; TimeoutError if there is none."""
        until = time.monotonic() + timeout_s
        while (got := self.receive(_left(until) / 1000)) is not None:
            if got[0] == JOB:
                return got[1]
        raise TimeoutError(f"no job within {timeout_s} s")

    def terms_of(self, job, wanted, timeout_s=10):
        """Until the terms are as wanted."""
        until = time.monotonic() + timeout_s
        while not wanted():
            if self.receive(_left(until) / 1000) is None:
                raise TimeoutError(f"not within {timeout_s} s: {job}")

    def settle(self, timeout_s=30):
        """Until everything reported is on the broker's disk."""
        until = time.monotonic() + timeout_s
        while self.unacked:
            if self.receive(min(0.2, _left(until) / 1000)) is None and time.monotonic() >= until:
                raise TimeoutError(f"reports not acknowledged: {sorted(self.unacked)}")

    def bye(self):
        self.send(BYE, n=next(self.numbers))

    def close(self):
        self.socket.close()


def install(client, events, source):
    """Installs and prints what happens; answers the record."""
    events.ready()
    job = client.call("install", "heuristic_import", source=source)
    print(f"job {job['id']}: {job['status']}")
    names = ("model_install_completed", "model_install_error", "model_install_cancelled")
    for event in events.until(lambda event: event["event"] in names and event["id"] == job["id"], 120):
        if event["event"] != "broker_beat":
            words = {key: value for key, value in event.items() if key in ("bytes", "total_bytes", "key", "error")}
            print(f"{event['seq']:5} {event['topic']:40} {json.dumps(words)}")
    job = client.call("install", "wait_for_job", id=job["id"], timeout_s=10)
    if job["status"] != "completed":
        raise LadeError(job["error_type"], job["error"])
    return client.call("store", "get_model", key=job["config_out"]["key"])


def life(client, events, record):
    """Finds, edits and deletes an installed model; prints a line for each step."""
    key = record["key"]
    found = client.call("store", "search_by_name", name=record["name"], base=record["base"], type=record["type"])
    print(f"by name: {[one['key'] for one in found]}")
    edited = client.call("store", "update_model", key=key, config={
        "description": "seen by a stranger", "tags": ["stranger", "wire"], "version": record["version"]})
    print(f"edited: {edited['description']}, version {edited['version']}")
    try:  # with the version that was read before the edit
        client.call("store", "update_model", key=key, config={"description": "late", "version": record["version"]})
    except LadeError as error:
        print(f"late edit: {error.code}")
    print(f"by tag: {[one['key'] for one in client.call('store', 'search_by_tag', tags=['wire', 'stranger'])]}")
    job = client.call("install", "delete", key=key)
    ended = client.call("jobs", "wait", id=job["id"], timeout_s=30)
    events.until(lambda event: event["topic"] == f"model_record_deleted/{key}/")
    print(f"deleted: {ended['status']}, exists: {client.call('store', 'exists', key=key)}")
    try:
        client.call("store", "get_model", key=key)
    except LadeError as error:
        print(f"get: {error.code}")


def main():
    parser = argparse.ArgumentParser(description="Installs a model over the bare wire.")
    parser.add_argument("--data", required=True, help="the broker's data folder")
    parser.add_argument("--life", action="store_true", help="then find, edit and delete it")
    parser.add_argument("source")
    args = parser.parse_args()
    client = Client(f"ipc://{args.data}/clients")
    events = Events(f"ipc://{args.data}/events")
    for service in ("install", "store", "no.such.service"):
        print(f"mmi.service {service}: {'yes' if client.serves(service) else 'no'}")
    try:
        record = install(client, events, args.source)
        print(json.dumps(record, indent=2))
        if args.life:
            life(client, events, record)
    except LadeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
