"""Each code of the closed list of errors (common/error.c) is produced by a test, and each one of a download by one here."""
import os
import re

from lib import weights
from lib.downloads import MIB, ended, moving, on_disk, submit, write_file
from lib.world import ROOT, LadeError, World

LIMIT_S = 120
TAKES_S = {"codes_of_downloads": 10}
SETTINGS = {"download.stall_s": 1, "download.connect_timeout_s": 1, "download.slots": 32, "broker.max_attempts": 1,
            "broker.retry_base_ms": 20, "broker.retry_max_ms": 100}

# What a server does (path /files/CODE/*, on an address of loopback for each), what is asked for, and how it shows.
CASES = {
    "ValueError": {"args": {"sha256": "no digest"}},
    "network": {"source": "http://127.0.0.1:1/x.safetensors"},
    "http_error": {"faults": [{"action": "status", "status": 418}]},
    "rate_limited": {"faults": [{"action": "rate_limit", "retry_after": 600}], "waits": True},
    "auth_required": {"faults": [{"action": "status", "status": 401}]},
    "auth_denied": {"faults": [{"action": "status", "status": 403}]},
    "license_gate": {"source": "{host}/org/gated/resolve/main/x.safetensors", "args": {"access_token": "hf_nobody"}},
    "not_found": {"source": "{host}/files/none"},
    "digest_mismatch": {"args": {"sha256": "0" * 64}},
    "size_mismatch": {"args": {"size": 7}},
    "stalled": {"faults": [{"action": "stall", "bytes": 100}]},
    # Whole answers are cut short, and what follows is of another version each time.
    "range_refused": {"size": 9 * MIB, "faults": [{"action": "close", "bytes": 5 * MIB, "range": False},
                                                  {"action": "change_etag"}]},
    "not_a_model": {"faults": [{"action": "html"}]},
    "unsafe_url": {"source": "http://10.255.255.1/x.safetensors"},
    "exists": {"before": lambda folder: weights.embedding(os.path.join(folder, "x.safetensors"), 9)},
    "io_error": {"args": {"destdir": "{folder}/a file/below"}, "before": lambda folder: write_file(f"{folder}/a file", 10)},
}

# Where the others are produced: a function in whose text the code stands.
ELSEWHERE = {
    "ok": "client/request_test.c",
    "UnknownModel": "tests/e2e/test_load.py::test_errors_say_what_is_wrong",
    "DuplicateModel": "tests/wire/test_outsider.py::test_effects_are_applied_with_the_end_of_the_job_or_not_at_all",
    "InvalidModelConfig": "broker/records_test.c::test_refused_record_writes_nothing",
    "UnknownJobID": "tests/e2e/test_error_codes.py::test_codes_of_calls",
    "ModelNotFound": "tests/e2e/test_load.py::test_errors_say_what_is_wrong",
    "NotImplemented": "broker/call_test.c::test_load_answers_what_the_worker_did",
    "Timeout": "tests/e2e/test_error_codes.py::test_codes_of_calls",
    "UnknownMetadata": "workers/install/hub_test.c::test_each_refusal_has_its_own_code",
    "unknown_revision": "tests/e2e/test_hub.py::test_each_refusal_says_what_to_do",
    "stale_record": "tests/e2e/test_records.py::test_editors_at_the_same_time_lose_nothing",
    "bad_request": "common/wire_test.c::test_what_is_not_one_whole_value_is_refused",
    "unknown_service": "tests/faults/test_frames.py::test_unknown_services_and_ops_are_answered",
    "unknown_op": "tests/faults/test_frames.py::test_unknown_services_and_ops_are_answered",
    "too_large": "tests/faults/test_frames.py::test_too_large_message",
    "queue_full": "tests/faults/test_frames.py::test_full_queue_says_so",
    "too_old": "tests/faults/test_subscribers.py::test_journal_that_is_too_short_says_so",
    "broker_unreachable": "tests/e2e/test_command.py::test_no_broker_is_status_4",
    "usage": "tests/e2e/test_command.py::test_usage_is_status_2_and_says_how",
    "cancelled": "tests/e2e/test_error_codes.py::test_codes_of_stops",
    "paused": "tests/e2e/test_error_codes.py::test_codes_of_stops",
    "stale_lease": "workers/download/engine_test.c",
    "worker_lost": "tests/e2e/test_error_codes.py::test_codes_of_stops",
    "child_failed": "broker/jobs_test.c::test_retrying_a_parent_retries_failed_children",
    "offline": "tests/e2e/test_access.py::test_offline",
    "no_space": "tests/faults/test_space.py",
    "unsafe_file": "tests/e2e/test_civitai.py::test_what_cannot_be_had_says_why",
    "no_vram": "workers/gpu/vram_test.c::test_what_is_locked_stays",
    "no_memory": "workers/gpu/cache_test.c::test_what_is_locked_is_never_evicted",
    "busy": "broker/store_test.c::test_second_broker_is_told_who_has_the_keyspace",
    "corrupt": "broker/records_test.c::test_broken_record_is_corrupt_and_no_crash",
    "schema_too_new": "broker/store_test.c::test_older_schema_is_migrated_step_by_step_in_one_batch",
    "config_error": "common/config_test.c::test_named_file_has_to_be_there",
    "internal": "common/wire_test.c::test_every_code_has_a_name_a_help_and_a_way_back",
}


class Case:
    def __init__(self, world, number, code, port):
        self.world, self.code, self.what = world, code, CASES[code]
        self.folder = os.path.join(world.folder, "out", code)
        self.host = f"http://127.2.0.{number + 1}:{port}"
        write_file(world.hub.file(os.path.join(code, "x.safetensors")), self.what.get("size", 20000))
        os.makedirs(self.folder)
        if "before" in self.what:
            self.what["before"](self.folder)
        world.hub.faults(*({"path": f"/files/{code}/*", **fault} for fault in self.what.get("faults", ())))

    def submit(self):
        """The job, or the refusal."""
        source = self.what.get("source", "{host}/files/{code}/x.safetensors").format(host=self.host, code=self.code)
        args = {key: value.format(folder=self.folder) if isinstance(value, str) else value
                for key, value in self.what.get("args", {}).items()}
        try:
            self.job = submit(self.world, source, **{"folder": self.folder} | args) if "destdir" not in args else \
                self.world.call("download", "create_download_job", source=source, **args)
            self.refused = None
        except LadeError as error:
            self.job, self.refused = None, error

    def check(self):
        if self.refused:
            assert self.refused.code == self.code and self.refused.message, self.refused
            return
        number = self.job["id"]
        if self.what.get("waits"):
            self.world.eventually(lambda: self.world.call("jobs", "get", id=number)["error_type"] == self.code, 30)
            job = self.world.call("jobs", "get", id=number)
            assert job["status"] == "enqueued" and job["failures"] == 0, job
            assert self.world.call("jobs", "why", id=number)["why"], "it does not say why it waits"
            return
        job = ended(self.world, number)
        assert (job["status"], job["error_type"]) == ("error", self.code), (job["status"], job["error_type"], job["error"])
        assert len(job["error"]) > 10, job["error"]
        events = self.world.call("events", "since", seq=0, limit=100000, prefixes=["download_error"])["events"]
        told = [event for event in events if event["id"] == number]
        assert [(event["error_type"], event["error"]) for event in told] == [(self.code, job["error"])], told
        shown, _ = on_disk(self.folder)
        assert shown == {"exists": ["x.safetensors"], "io_error": ["a file"]}.get(self.code, []), shown


def test_codes_of_downloads():
    """Each code a download ends with, or waits with: in the job, in the event, with a sentence, and no file."""
    with World(SETTINGS) as world:
        port = world.hub.origin(host="0.0.0.0")["port"]
        weights.embedding(os.path.join(world.hub.repo("org/gated"), "x.safetensors"), 1)
        world.hub.repo_settings("org/gated", gated="auto")
        world.start("broker", "download")
        cases = [Case(world, number, code, port) for number, code in enumerate(CASES)]
        for case in cases:
            case.submit()
        problems = []
        for case in cases:
            try:
                case.check()
            except AssertionError as problem:
                problems.append(f"{case.code}: {problem}")
        assert not problems, "\n".join(problems)


def test_codes_of_stops():
    """cancelled, paused, worker_lost."""
    with World({**SETTINGS, "broker.max_deaths": 1, "download.stall_s": 30}) as world:
        write_file(world.hub.file("x.safetensors"), 100000)
        world.hub.faults({"path": "/files/*", "action": "stall", "bytes": 50000})
        _, worker = world.start("broker", "download")
        events = world.events("download_")
        jobs = [submit(world, f"{world.hub.url}/files/x.safetensors", os.path.join(world.folder, f"out{n}"), start=False)["id"]
                for n in range(3)]
        for number in jobs:
            world.call("download", "start_job", id=number)
            events.until(moving(number), 30)
        world.call("download", "cancel_job", id=jobs[0])
        world.call("download", "pause_job", id=jobs[1])
        worker.line(f"job {jobs[0]}: cancelled: ")
        worker.line(f"job {jobs[1]}: paused: ")
        worker.kill()
        world.eventually(lambda: world.call("jobs", "get", id=jobs[2])["status"] == "dead", 30)
        dead = world.call("jobs", "get", id=jobs[2])
        assert dead["error_type"] == "worker_lost" and dead["error"], dead
        assert [world.call("jobs", "get", id=number)["status"] for number in jobs[:2]] == ["cancelled", "paused"]


def test_codes_of_calls():
    """UnknownJobID and Timeout, of every method that takes a job."""
    with World(SETTINGS) as world:
        world.start("broker")
        job = submit(world, "http://127.0.0.1:1/x", os.path.join(world.folder, "out"))
        for op, args, code in (("id_to_job", {"id": 999}, "UnknownJobID"), ("start_job", {"id": 999}, "UnknownJobID"),
                               ("pause_job", {"id": 999}, "UnknownJobID"), ("cancel_job", {"id": 999}, "UnknownJobID"),
                               ("wait_for_job", {"id": 999}, "UnknownJobID"),
                               ("wait_for_job", {"id": job["id"], "timeout_s": 0.1}, "Timeout"),
                               ("join", {"timeout_s": 0.1}, "Timeout")):
            client = world.client()
            try:
                client.receive(client.send("download", op, **args), 20)
            except LadeError as error:
                assert error.code == code, (op, error)
            else:
                raise AssertionError(f"{op} {args} was answered")


# ---------------------------------------------------------------------------------------------------
# The list


def codes():
    """{wire name: name in C} of common/error.c."""
    with open(os.path.join(ROOT, "common", "error.c"), encoding="utf-8") as file:
        return {name: enum for enum, name in re.findall(r'\[(LADE_[A-Z_]+)\]\s*=\s*\{"(\w+)"', file.read())}


def text_of(place):
    """The text of PATH::FUNCTION, or of all of PATH."""
    path, _, function = place.partition("::")
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        text = file.read()
    if function:
        end = r"(?=^\S|\Z)" if path.endswith(".py") else r"^}"
        found = re.search(rf"^(?:def )?{function}\(.*?{end}", text, re.MULTILINE | re.DOTALL)
        assert found, f"{place}: there is no such test"
        text = found.group(0)
    return text


def test_every_code_is_produced_by_a_test():
    """Each has a case above or a test elsewhere that names it."""
    missing = []
    for code, enum in codes().items():
        if code in CASES:
            continue
        place = ELSEWHERE.get(code)
        if not place:
            missing.append(f"{code} has no test in the table")
        elif not re.search(rf'\b{enum}\b|["\b]{code}["\b: ]', text_of(place)):
            missing.append(f"{place} does not name {code}")
    assert not missing, "\n".join(missing)
    unknown = (set(CASES) | set(ELSEWHERE)) - set(codes())
    assert not unknown, f"no such codes: {unknown}"
