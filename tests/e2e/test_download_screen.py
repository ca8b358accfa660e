"""`lade download` for people (in a terminal, which tmux plays) and for programs."""
import json
import os
import re
import shlex
import shutil
import subprocess

from lib import weights
from lib.skip import Skip
from lib.world import BUILD, World

LIMIT_S = 120


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, world, argv, columns=80, lines=24, **env):
        if not shutil.which("tmux"):
            raise Skip("tmux is not there to play a terminal")
        self.socket = os.path.join(world.folder, "tmux")
        settings = {**world.environment(), "PATH": os.environ["PATH"], **env}
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items() if name.isidentifier())
        line = f"exec env -i {words} TERM=$TERM {' '.join(map(shlex.quote, argv))}"
        world.sockets.append(self)
        self("-f", "/dev/null", "start-server", ";", "set-option", "-g", "remain-on-exit", "on", ";",
             "new-session", "-d", "-x", str(columns), "-y", str(lines), line)

    def __call__(self, *args):
        done = subprocess.run(["tmux", "-S", self.socket, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout

    def screen(self, history=False):
        text = self("capture-pane", "-p", *(["-S", "-"] if history else []))
        return text.rstrip("\n").split("\n")

    def ended(self):
        return self("display-message", "-p", "#{pane_dead}").strip() == "1"

    def resize(self, columns, lines):
        self("resize-window", "-x", str(columns), "-y", str(lines))

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], stderr=subprocess.DEVNULL, check=False)


def files(world, count, size, slow=None):
    """So many files on the hub, and their URLs."""
    for i in range(count):
        weights.write_safetensors(world.hub.file(f"model-{i:03}.bin"), {"a": ("U8", (size,))}, seed=i)
    if slow:
        world.hub.settings(throttle=slow)
    return [f"{world.hub.url}/files/model-{i:03}.bin" for i in range(count)]


def command(world, *args):
    return [os.path.join(BUILD, "lade"), "--data", world.data, "download", *args, "--dest", os.path.join(world.folder, "out")]


BAR = re.compile(r"^model-(\d\d\d)\.bin +\[[#.]+\] +\d+% +[\d.]+ \w+ of +[\d.]+ \w+ +[\d.]+ \w+/s +\S")


def bars(screen):
    """The rows of files that move, by their line."""
    return {at: match.group(1) for at, line in enumerate(screen) if (match := BAR.match(line))}


def check_frame(screen, columns, lines):
    assert len(screen) <= lines and all(len(line) <= columns for line in screen), screen


def test_a_hundred_files_on_24_lines():
    """Bars for what runs, how many more there are, one line for all; what is over stands above, once; nothing is left below."""
    with World({"download.slots": 6}) as world:
        urls = files(world, 100, 300000, slow=150000)
        world.start("broker", "download")
        terminal = Terminal(world, command(world, *urls))
        frames = []

        def look():
            screen = terminal.screen()
            check_frame(screen, 80, 24)
            frames.append(screen)
            return any("and 94 more" in line for line in screen) and len(bars(screen)) >= 4 and screen
        screen = world.eventually(look, 40)
        assert re.match(r"^0 of 100 done +", screen[-1]), screen
        world.eventually(lambda: look() is not None and any(re.match(r"^[1-9]\d* of 100 done", line) for line in frames[-1]), 40)
        # Two frames one after the other: what goes on in both stands in the same order.
        moved = 0
        for before, after in zip(frames, frames[1:]):
            first, then = list(bars(before).values()), list(bars(after).values())
            both = [one for one in first if one in then]
            assert both == [one for one in then if one in first], (before, after)
            moved += len(both)
        assert moved > 0
        world.hub.settings(throttle=0)
        world.eventually(terminal.ended, 60)
        text = terminal.screen(history=True)
        done = [line for line in text if re.match(r"^/.*/out/model-\d\d\d\.bin  293 KiB$", line)]
        assert len(done) == 100 == len(set(done)), (len(done), text[-30:])
        assert not bars(text) and not any("more" in line or " of 100 done" in line for line in text), text[-30:]
        assert any(re.match(r"^100 files, 28\.6 MiB in ", line) for line in text), text[-5:]
        assert len(os.listdir(os.path.join(world.folder, "out"))) == 100


def test_a_terminal_that_changes_its_size():
    with World() as world:
        urls = files(world, 3, 900000, slow=150000)
        world.start("broker", "download")
        terminal = Terminal(world, command(world, *urls), columns=100)
        world.eventually(lambda: len(bars(terminal.screen())) == 3, 30)
        terminal.resize(60, 10)

        def narrow():
            screen = terminal.screen()
            check_frame(screen, 60, 10)
            return sum(line.startswith("model-") for line in screen) == 3 and "of 3 done" in screen[-1]
        world.eventually(narrow, 30)
        world.hub.settings(throttle=0)
        world.eventually(terminal.ended, 60)
        # tmux folds what stands there before it tells the program its new size, so a frame may stay behind.
        text = [line for line in terminal.screen(history=True) if line]
        assert sum(bool(re.match(r"^/.*\.bin  879 KiB$", line)) for line in text) == 3, text
        assert any("3 files, " in line for line in text[-2:]) and not any(line.startswith("model-") for line in text[-4:]), text


def test_a_failure_is_seen_at_once_and_explained_at_the_end():
    with World() as world:
        urls = files(world, 2, 600000, slow=150000)
        world.start("broker", "download")
        terminal = Terminal(world, command(world, *urls, f"{world.hub.url}/files/missing.bin"), columns=120)
        world.eventually(lambda: any("missing.bin  failed: not_found" in line for line in terminal.screen()), 30)
        assert any("1 failed" in line for line in terminal.screen())
        world.hub.settings(throttle=0)
        world.eventually(terminal.ended, 60)
        text = "\n".join(terminal.screen(history=True))
        assert "2 files, " in text and "lade: " in text and "404" in text, text


def test_no_bars_where_nobody_sees_them():
    """A pipe, a dumb terminal and --quiet: no escapes. A line at the beginning and one at the end."""
    with World() as world:
        urls = files(world, 2, 400000, slow=200000)
        world.start("broker", "download")
        done = world.lade("download", *urls, "--dest", os.path.join(world.folder, "out"))
        assert sorted(line.split("  ")[0][-7:] for line in done.stdout.splitlines()) == ["000.bin", "001.bin"], done.stdout
        assert "\033" not in done.stdout + done.stderr
        for url in urls:
            assert sum(f"has begun: {url}" in line for line in done.stderr.splitlines()) == 1, done.stderr
        assert "2 files, " in done.stderr
        one = [*command(world, urls[0])[:-1], os.path.join(world.folder, "two")]
        terminal = Terminal(world, ["env", "TERM=dumb", "NO_COLOR=1", *one], columns=200)
        world.eventually(terminal.ended, 60)
        first, second = terminal.screen(history=True)[:2]
        assert "has begun: " in first and second == os.path.join(world.folder, "two", "model-000.bin  391 KiB"), (first, second)
        done = world.lade("download", urls[0], "--quiet", "--dest", os.path.join(world.folder, "three"))
        assert done.stderr == "" and done.stdout.count("\n") == 1, done


def test_json_is_one_event_a_line_and_the_jobs_at_last():
    with World() as world:
        urls = files(world, 3, 400000, slow=200000)
        world.start("broker", "download")
        missing = f"{world.hub.url}/files/missing.bin"
        done = world.lade("download", *urls, missing, "--dest", os.path.join(world.folder, "out"), "--json", status=3)
        *events, jobs = [json.loads(line) for line in done.stdout.splitlines()]
        assert [job["source"] for job in jobs] == [*urls, missing]
        assert [job["status"] for job in jobs] == ["completed"] * 3 + ["error"], jobs
        for job in jobs:
            names = [event["event"] for event in events if event["id"] == job["id"]]
            assert names[0] == "download_enqueued" and names[-1] == f"download_{job['status']}", names
            assert set(names[1:-1]) == {"download_running"}, names
            assert names.count(names[-1]) == 1
        assert {event["id"] for event in events} == {job["id"] for job in jobs}
        assert sum(event.get("progress", False) for event in events) > 6, len(events)
        seqs = [event["seq"] for event in events if not event.get("progress")]
        assert seqs == sorted(seqs)


def test_options_reach_the_job():
    with World() as world:
        urls = files(world, 1, 100000)
        world.start("broker", "download")
        out = os.path.join(world.folder, "out")
        done = world.lade("download", urls[0], "--dest", out, "--filename", "y.bin", "--size", "100000", "--priority", "3",
                          "--rate", "5M", "--preserve", "--mirror", urls[0] + "?2", "--paused", "--json")
        (job,) = json.loads(done.stdout)
        assert job["status"] == "idle" and job["priority"] == 3 and job["bytes_per_s"] == 5_000_000 or job["bytes_per_s"] == 5 << 20
        assert job["destination"] == os.path.join(out, "y.bin") and job["preserve_partial_downloads"] is True
        assert job["spec"]["urls"] == [urls[0], urls[0] + "?2"] and job["spec"]["size"] == 100000
        shown = world.lade("job", job["id"]).stdout
        assert "destination" in shown and "what was fetched is kept" in shown and "it was not started" in shown, shown
        for wrong in (["--filename", "x", urls[0], urls[0]], ["--multi", "/nowhere"], [], ["--rate", "fast", urls[0]]):
            assert world.lade("download", *wrong, "--dest", out, status=None).returncode in (2, 3), wrong


def test_several_files_in_one_job():
    with World() as world:
        urls = files(world, 3, 1000)
        world.start("broker", "download")
        out = os.path.join(world.folder, "out")
        plan = os.path.join(world.folder, "plan.json")
        with open(plan, "w", encoding="utf-8") as file:
            json.dump([{"url": url, "path": f"{i}/model.bin"} for i, url in enumerate(urls)], file)
        done = world.lade("download", "--multi", plan, "--dest", out)
        assert done.stdout.startswith(out + "  "), done.stdout
        assert sorted(weights.tree(out)) == ["0/model.bin", "1/model.bin", "2/model.bin"]
        with open(plan, "w", encoding="utf-8") as file:
            json.dump([{"url": urls[0], "path": "../x"}], file)
        assert "only relative download paths accepted" in world.lade("download", "--multi", plan, "--dest", out, status=2).stderr


def test_all_is_summed_up_and_a_job_tells_what_it_knows():
    with World() as world:
        urls = files(world, 5, 900000, slow=150000)
        world.start("broker", "download")
        out = os.path.join(world.folder, "out")
        events = world.events("download_running/", "broker_beat/")
        events.ready()
        world.lade("download", *urls, "--dest", out, "--no-wait")
        event = events.until(lambda event: event.get("bytes", 0) > 100000, 30)[-1]
        shown = world.lade("job", event["id"]).stdout
        for words in ("destination", "bytes", "rate", "/s", "runs on", urls[0][:-7]):
            assert words in shown, (words, shown)
        assert world.lade("pause", "--all").stdout == "5 jobs paused: 5 download\n"
        assert world.lade("pause", "--all").stdout == ""
        assert "somebody paused it" in world.lade("job", event["id"]).stdout
        world.hub.settings(throttle=0)
        assert world.lade("resume", "--all").stdout == "5 jobs resumed: 5 download\n"
        world.call("download", "join", timeout_s=60)
        shown = world.lade("job", event["id"]).stdout
        for words in ("completed", "etag", "sha256", "resumed_from", os.path.join(out, "model-")):
            assert words in shown, (words, shown)
        world.lade("download", *urls, "--dest", os.path.join(world.folder, "two"), "--paused")
        assert world.lade("cancel", "--all", "--kind", "download").stdout == "5 jobs cancelled: 5 download\n"
