"""The command line: exit statuses, --json, what people are told."""
import json
import os
import subprocess

from lib import samples, weights
from lib.checks import check_fields
from lib.world import BUILD, World

LIMIT_S = 120


def error_of(done):
    """The error a command printed as JSON, the only thing on its standard output."""
    return json.loads(done.stdout)["error"]


def test_usage_is_status_2_and_says_how():
    with World() as world:
        for args in (["nothing"], ["ls", "--nothing"], ["install"], ["show"], ["jobs", "--last", "x"], ["edit", "x", "noequals"],
                     ["watch", "--since", "-1"]):
            done = world.lade(*args, status=None)
            assert done.returncode in (2, 4) and done.stderr, (args, done)
            assert done.stdout == "", (args, done.stdout)
        assert "did you mean" in world.lade("instal", status=2).stderr
        assert error_of(world.lade("nothing", "--json", status=2))["code"] == "usage"


def test_no_broker_is_status_4():
    with World() as world:
        done = world.lade("status", "--json", status=4, timeout_s=30)
        assert error_of(done)["code"] == "broker_unreachable"
        assert "lade up" in done.stderr


def test_no_such_thing_is_status_3():
    with World() as world:
        world.up()
        for args in (["show", "0" * 32], ["show", "no such name"], ["job", "999"], ["rm", "0" * 32], ["load", "0" * 32],
                     ["cancel", "999"]):
            done = world.lade(*args, "--json", status=3)
            assert done.stderr, args
            json.loads(done.stdout)


def test_refused_is_status_5():
    with World() as world:
        samples.pipeline(world.hub.repo("org/gated"))
        world.hub.repo_settings("org/gated", gated="auto")
        world.up()
        (job,) = world.lade_json("install", "org/gated", status=5)
        assert job["status"] == "error" and job["error_type"] in ("auth_required", "license_gate"), job
        token = os.path.join(world.folder, "token")
        with open(token, "w", encoding="utf-8") as file:
            file.write("hf_good\n")
        (job,) = world.lade_json("install", "org/gated", "--token", f"@{token}")
        assert job["status"] == "completed"


def test_failed_work_is_status_1():
    with World() as world:
        path = os.path.join(world.folder, "x.safetensors")
        with open(path, "wb") as file:
            file.write(b"no model" * 100)
        good = weights.embedding(os.path.join(world.folder, "good.safetensors"), 1)
        world.up()
        said = world.lade("install", path, status=1).stderr
        assert said.startswith("lade: ") and said.count(path) == 1 and "Traceback" not in said, said
        jobs = world.lade_json("install", path, good, status=1)
        assert [job["status"] for job in jobs] == ["error", "completed"], jobs


def test_install_ls_show_edit_find_rm():
    with World() as world:
        path = weights.lora(os.path.join(world.folder, "fine style.safetensors"), 1)
        world.up()
        (job,) = world.lade_json("install", path, "--config", "description=mine")
        record = job["config_out"]
        check_fields(record, type="lora", base="sd-1", name="fine style", description="mine")
        assert [one["key"] for one in world.lade_json("ls")] == [record["key"]]
        assert world.lade_json("show", "fine style") == world.lade_json("show", record["key"])
        assert world.lade_json("show", record["key"][:8])["key"] == record["key"]
        edited = world.lade_json("edit", record["key"], "name=other", "description=null")
        assert edited["name"] == "other" and not edited.get("description"), edited
        assert [one["key"] for one in world.lade_json("find", "--type", "lora")] == [record["key"]]
        assert world.lade_json("find", "--base", "sdxl") == []
        assert "other" in world.lade("ls").stdout and "other" in world.lade("show", "other").stdout
        placed = world.record_path(record)
        assert os.path.exists(placed)
        world.lade("rm", "other")
        assert not os.path.exists(placed) and world.lade_json("ls") == []
        assert os.path.exists(path)


def test_rm_leaves_files_outside_of_the_models_folder():
    with World() as world:
        path = weights.lora(os.path.join(world.folder, "style.safetensors"), 1)
        world.up()
        world.lade("install", "--inplace", path)
        world.lade("rm", "style")
        assert os.path.exists(path) and world.lade_json("ls") == []
        world.lade("install", path)
        (record,) = world.lade_json("ls")
        world.lade("rm", "--keep-files", "style")
        assert os.path.exists(world.record_path(record)) and world.lade_json("ls") == []


def test_download():
    with World() as world:
        path = weights.lora(world.hub.file("x.safetensors"), 1)
        out = os.path.join(world.folder, "out")
        os.mkdir(out)
        world.up()
        url = f"{world.hub.url}/files/x.safetensors"
        world.lade("download", url, "--dest", out, "--sha256", weights.sha256(path))
        assert weights.sha256(os.path.join(out, "x.safetensors")) == weights.sha256(path)
        done = world.lade("download", url, "--dest", out, "--name", "y.safetensors", "--sha256", "0" * 64, "--json", status=1)
        (job,) = json.loads(done.stdout.splitlines()[-1])  # the events come before
        assert job["error_type"] == "digest_mismatch", job
        assert sorted(os.listdir(out)) == ["x.safetensors"], os.listdir(out)


def test_watch_prints_one_event_a_line():
    with World() as world:
        path = weights.embedding(os.path.join(world.folder, "x.safetensors"), 1)
        world.up()
        world.lade("install", path)
        last = world.lade_json("status")["seq"]
        done = world.lade("watch", "--since", "0", "--count", str(last), "--json")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert [event["seq"] for event in events] == list(range(1, last + 1))
        some = world.lade("watch", "model_install_", "--since", "0", "--count", "2", "--json").stdout.splitlines()
        assert [json.loads(line)["event"] for line in some] == ["model_install_running", "model_install_completed"]


def test_watch_since_0_begins_where_the_journal_does():
    with World(settings={"broker.journal_events": 100}) as world:
        world.start("broker")
        for _ in range(300):
            world.call("jobs", "submit", kind="k")
        (line,) = world.lade("watch", "--since", "0", "--count", "1", "--json").stdout.splitlines()
        assert json.loads(line)["seq"] == world.lade_json("status")["journal_from"] > 1
        world.lade("watch", "--since", "1", "--count", "1", status=1)


def test_jobs_and_what_is_done_to_them():
    with World() as world:
        weights.lora(world.hub.file("x.safetensors"), 1, rank=64)
        world.up()
        world.hub.settings(throttle=50000)
        (job,) = world.lade_json("install", "--no-wait", f"{world.hub.url}/files/x.safetensors")
        number = str(job["id"])
        shown = world.lade_json("job", number)
        assert (shown.get("job") or shown)["id"] == job["id"]
        world.lade("pause", number)
        world.lade("resume", number)
        world.lade("cancel", number)
        jobs = world.lade_json("jobs", "--kind", "install")
        assert [(one["id"], one["status"]) for one in jobs] == [(job["id"], "cancelled")]
        assert [one["kind"] for one in world.lade_json("jobs")] == ["install"]
        assert {one["kind"] for one in world.lade_json("jobs", "--all")} == {"install", "download"}
        parts = world.lade("job", number).stdout.split("its parts\n")[1]
        assert "download" in parts and "cancelled" in parts, parts
        world.hub.settings(throttle=0)
        world.lade("prune")
        assert world.lade_json("jobs") == []


def test_set_limits_and_rates():
    """What an operator sets is shown, and still there when the broker comes back."""
    with World() as world:
        broker = world.start("broker")
        assert "say what to set" in world.lade("set", status=2).stderr
        for wrong in (["host:hub"], ["--limit", "3"], ["--rate", "fast"], ["--rate", "20MB"], ["host:hub", "--rate", "5M"], ["--job", "1"]):
            world.lade("set", *wrong, status=2)
        world.lade("set", "--job", "1", "--rate", "5M", status=3)
        assert world.lade_json("set", "host:Hub.org", "--limit", "3")["gate"] == "host:hub.org"
        assert world.lade_json("set", "--rate", "20M") == {"bytes_per_s": 20 << 20}
        world.lade("set", "space:/data", "--close-for", "600")
        job = world.call("jobs", "submit", kind="download", source="http://hub.org/x", spec={"destination": "/x"})["id"]
        assert world.lade_json("set", "--job", str(job), "--rate", "1.5K")["bytes_per_s"] == 1536
        broker.kill()
        world.start("broker")
        assert "limited to 20.0 MiB/s" in world.lade("status").stdout
        gates = world.lade("gates").stdout
        assert "host:hub.org" in gates and "closed by hand" in gates, gates
        assert "1.50 KiB a second" in world.lade("job", str(job)).stdout
        world.lade("set", "--rate", "0")
        assert world.lade_json("status")["bytes_per_s"] == 0


def test_load_lists_tensors():
    with World() as world:
        folder = samples.pipeline(os.path.join(world.folder, "pipe"))
        world.up()
        world.lade("install", folder)
        shown = world.lade("load", "pipe", "--submodel", "unet").stdout
        assert "conv_in.weight" in shown and "F32" in shown, shown
        world.lade_json("load", "pipe", "--submodel", "vae")
        world.lade("load", "pipe", "--submodel", "nothing", status=None)
        world.eventually(lambda: "unet" in world.lade("cache").stdout, 10)
        world.lade("unload")
        world.eventually(lambda: [stats["models"] for stats in world.lade_json("cache").values()] == [[]], 10)


def test_probe_needs_no_broker():
    with World() as world:
        path = samples.checkpoint(os.path.join(world.folder, "x.safetensors"), "sdxl-refiner")
        probed = world.lade_json("probe", path, "--hash")
        check_fields(probed, path=path, type="main", base="sdxl-refiner", format="checkpoint", variant="normal")
        assert probed["hash"]
        bad = os.path.join(world.folder, "bad.safetensors")
        with open(bad, "wb") as file:
            file.write(bytes(100))
        done = world.lade("probe", bad, "--json", status=1)
        answer = json.loads(done.stdout)
        assert answer["path"] == bad and answer["error"]["code"], answer


def test_global_options_stand_anywhere_and_help_helps():
    with World() as world:
        world.up()
        for args in (["--json", "--data", world.data, "ls"], ["ls", "--data", world.data, "--json"],
                     ["--broker", world.endpoint("clients"), "ls", "--json"]):
            done = world.lade(*args, data=False)
            assert json.loads(done.stdout) == []
        for command in ("up", "install", "watch", "load"):
            assert "usage: lade " + command in world.lade(command, "--help", data=False).stdout
        assert world.lade("--version", data=False).stdout.startswith("lade ")


def test_up_ends_in_order_and_refuses_to_run_twice():
    with World() as world:
        first = world.up()
        done = subprocess.run([os.path.join(BUILD, "lade"), "up", "--data", world.data], env=world.environment(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False)
        assert done.returncode != 0 and done.stdout, done
        assert world.lade_json("status")
        first.stop()
        world.processes.remove(first)
        assert world.lade("status", status=4, timeout_s=30)


def test_up_tells_of_models_and_of_what_is_wrong():
    with World() as world:
        world.configure(**{"broker.beat_ms": 200})  # and no log_level
        process = world.up()
        process.line("lade is up")
        world.install(weights.lora(os.path.join(world.folder, "style.safetensors"), 1))
        process.line("model_record_added")
        bad = os.path.join(world.folder, "bad.safetensors")
        with open(bad, "wb") as file:
            file.write(bytes(100))
        world.install(bad)
        assert bad in process.line("model_install_error")
        assert " info " not in process.text(), process.tail()


def test_up_restarts_what_dies():
    with World() as world:
        world.up()
        events = world.events("worker_joined", "broker_beat")
        events.ready()
        (victim,) = (worker for worker in world.call("broker", "workers") if "download" in worker["kinds"])
        os.kill(victim["pid"], 9)
        events.until(lambda event: event["event"] == "worker_joined" and "download" in event["kinds"] and
                     event["id"] != victim["name"], 30)
