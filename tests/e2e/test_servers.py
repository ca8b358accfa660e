"""Servers that misbehave: the file comes whole, or there is an error and no file."""
import os

from lib import weights
from lib.checks import check_files, no_leftovers, watch_install
from lib.world import World

LIMIT_S = 120
SETTINGS = {"download.stall_s": 1, "download.checkpoint_mb": 1}
SOURCE = "org/name::x.safetensors"
FILE = "/lfs/org/name/*"


def install_under(world, *faults):
    """Installs one file of a repository while the CDN does that; answers the job and the file."""
    path = weights.lora(os.path.join(world.hub.repo("org/name"), "x.safetensors"), 1, rank=64)
    world.hub.faults(*({"path": FILE, **fault} for fault in faults))
    world.start("broker", "download", "install")
    job, _ = watch_install(world, SOURCE)
    return job, path


def comes_whole(*faults, most=3.0, settings=None):
    """It comes whole in spite of that, and without being served more often than needed."""
    with World({**SETTINGS, **(settings or {})}) as world:
        job, path = install_under(world, *faults)
        assert job["status"] == "completed", (job["error_type"], job["error"])
        check_files(world, job["config_out"], path)
        no_leftovers(world, [job["config_out"]])
        log = world.hub.log()
        served = sum(entry["bytes"] for name, entry in log["paths"].items() if name.startswith("/lfs/"))
        assert served < most * os.path.getsize(path), (served, os.path.getsize(path))
        return log


def is_refused(*codes, faults):
    """It is an error with one of these codes, no record and no file."""
    with World(SETTINGS) as world:
        job, _ = install_under(world, *faults)
        assert job["status"] == "error" and job["error_type"] in codes, (job["status"], job["error_type"], job["error"])
        assert world.call("store", "all_models") == []
        no_leftovers(world, [])


def test_connection_that_breaks_is_resumed():
    log = comes_whole({"action": "close", "bytes": 400000, "count": 1}, {"action": "close", "reset": True, "bytes": 200000,
                                                                          "count": 1}, most=1.9)
    assert any(entry["ranges"] for entry in log["paths"].values()), "it was resumed, not fetched again"


def test_transfer_that_stalls_is_tried_again():
    comes_whole({"action": "stall", "bytes": 300000, "count": 1}, most=1.9)


def test_server_that_does_not_resume_is_asked_for_the_whole():
    comes_whole({"action": "close", "bytes": 400000, "count": 1}, {"action": "ignore_range", "range": True}, most=6)


def test_file_that_changed_meanwhile_is_fetched_anew():
    comes_whole({"action": "close", "bytes": 400000, "count": 1}, {"action": "change_etag", "count": 2})


def test_busy_server_is_asked_later():
    comes_whole({"action": "status", "status": 503, "count": 2}, {"action": "slow_start", "seconds": 0.3, "count": 1})


def test_rate_limit_is_waited_for_and_uses_up_no_attempt():
    with World({**SETTINGS, "broker.max_attempts": 2}) as world:
        job, path = install_under(world, {"action": "rate_limit", "retry_after": 1, "count": 3})
        assert job["status"] == "completed", (job["error_type"], job["error"])
        check_files(world, job["config_out"], path)
        times = [entry["started"] for entry in world.hub.log()["requests"] if entry["path"].startswith("/lfs/")]
        gaps = [after - before for before, after in zip(times, times[1:])]
        assert len(times) == 4 and min(gaps) > 0.9, gaps


def test_rate_limit_with_a_date():
    comes_whole({"action": "rate_limit", "retry_after": 1, "date": True, "count": 1})


def test_no_length_and_a_wrong_one():
    comes_whole({"action": "no_length", "count": 1})
    comes_whole({"action": "wrong_length", "delta": 1000, "count": 1})


def test_wrong_bytes_are_never_published():
    is_refused("digest_mismatch", faults=[{"action": "corrupt", "offset": 5000}])


def test_short_file_is_never_published():
    is_refused("size_mismatch", "digest_mismatch", "network", faults=[{"action": "wrong_length", "delta": -1000}])


def test_gzip_that_nobody_asked_for():
    """Either unpacked or refused; what is published has the digest the hub names."""
    with World(SETTINGS) as world:
        job, path = install_under(world, {"action": "gzip"})
        if job["status"] == "completed":
            check_files(world, job["config_out"], path)
        else:
            assert job["error_type"] in ("size_mismatch", "digest_mismatch", "http_error", "not_a_model", "corrupt"), job["error"]
            no_leftovers(world, [])


def test_signed_address_that_ran_out_is_asked_for_again():
    """A transfer that breaks after its address has run out goes on with a new one."""
    with World(SETTINGS) as world:
        path = weights.lora(os.path.join(world.hub.repo("org/name"), "x.safetensors"), 1, rank=64)
        world.hub.faults({"path": FILE, "action": "stall", "bytes": 300000, "count": 1})
        world.hub.settings(url_ttl_s=1)
        world.start("broker", "download", "install")
        job, _ = watch_install(world, SOURCE)
        assert job["status"] == "completed", (job["error_type"], job["error"])
        check_files(world, job["config_out"], path)


def test_redirects_without_end():
    with World(SETTINGS) as world:
        path = weights.embedding(world.hub.file("x.safetensors"), 1)
        assert os.path.exists(path)
        world.hub.faults({"path": "/files/*", "method": "*", "action": "redirect", "location": "/files/x.safetensors"})
        world.start("broker", "download", "install")
        job, _ = watch_install(world, f"{world.hub.url}/files/x.safetensors")
        assert job["status"] == "error", job["status"]
        assert world.hub.log()["totals"]["requests"] < 200
