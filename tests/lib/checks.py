"""Checks that several tests make."""
import os

from lib import weights


def names_of(events, number, prefix):
    """The names of a job's events in order, repeated ones (progress) told once."""
    names = []
    for event in events:
        if event["id"] == number and event["event"].startswith(prefix) and (not names or names[-1] != event["event"]):
            names.append(event["event"])
    return names


def ended_event(job):
    """Says yes to the event that ends an install job."""
    names = ("model_install_completed", "model_install_error", "model_install_cancelled")
    return lambda event: event["event"] in names and event["id"] == job["id"]


def watch_install(world, source, **args):
    """Installs and answers (ended job, all events from before the submission to the end)."""
    events = world.events()
    events.ready()
    job = world.call("install", "heuristic_import", source=str(source), **args)
    seen = events.until(ended_event(job), 60)
    ended = world.call("install", "wait_for_job", id=job["id"], timeout_s=30)
    return ended, seen


def check_completed(job, seen, downloads):
    """A completed install: its events and those of its downloads, in order; answers the record."""
    assert job["status"] == "completed", (job["status"], job["error_type"], job["error"])
    expected = ["model_install_running", "model_install_completed"]
    if downloads:
        expected.insert(0, "model_install_downloading")
    got = names_of(seen, job["id"], "model_install_")
    assert got == expected, (got, expected)
    children = job.get("children") or []
    parts = sorted({event["id"] for event in seen if event["event"].startswith("download_")})
    if downloads:
        assert parts == sorted(children) and parts, (parts, children)
    else:
        assert not parts, parts
    for part in parts:
        got = names_of(seen, part, "download_")
        assert got == ["download_enqueued", "download_running", "download_completed"], got
        running = [event for event in seen if event["id"] == part and event["event"] == "download_running"]
        assert all(event["bytes"] <= event["total_bytes"] or not event["total_bytes"] for event in running), running
    check_order(seen)
    done = [event for event in seen if event["event"] == "model_install_completed" and event["id"] == job["id"]]
    record = job["config_out"]
    assert len(done) == 1 and done[0]["key"] == record["key"], done
    assert done[0]["source"] == job["source"], (done[0]["source"], job["source"])
    added = [event for event in seen if event["event"] == "model_record_added" and event["id"] == record["key"]]
    assert len(added) == 1 and added[0]["seq"] <= done[0]["seq"], added
    assert len(record["key"]) == 32 and int(record["key"], 16) >= 0
    return record


def check_order(seen):
    """seq rises by one from one journaled event to the next; progress carries the newest one's; one epoch."""
    last = None
    for event in seen:
        assert event["epoch"] == seen[0]["epoch"]
        assert event["topic"] == f"{event['event']}/{event['id']}/", event["topic"]
        passing = event.get("progress") or event["event"] == "broker_beat"
        if last is not None:
            assert event["seq"] == last + (0 if passing else 1), (last, event)
        last = event["seq"]


def check_fields(record, **fields):
    wrong = {name: (record.get(name), value) for name, value in fields.items() if record.get(name) != value}
    assert not wrong, f"got, expected: {wrong}"


def check_files(world, record, source):
    """What is installed is what the source has (a file, or a folder with at least these files)."""
    placed = weights.tree(world.record_path(record))
    assert placed == (weights.tree(source) if isinstance(source, str) else source), (sorted(placed), source)


def no_leftovers(world, records):
    """Nothing under the models folder but what records name. What says whose a temporary folder is goes a moment later."""
    known = [world.record_path(record) for record in records]
    left = []
    for above, folders, names in os.walk(world.models_dir):
        for name in names:
            path = os.path.join(above, name)
            if name.startswith((".owner", ".placed")) and os.path.basename(above).startswith(("tmpinstall_", "tmptrash_")):
                continue
            if not any(path == one or path.startswith(one + os.sep) for one in known):
                left.append(path)
        folders[:] = [name for name in folders if os.path.join(above, name) not in known]
    assert not left, left


def nothing_temporary(world):
    """Soon after the end of all jobs no temporary folder is left."""
    world.eventually(lambda: not [name for name in os.listdir(world.models_dir) if name.startswith("tmp")])
