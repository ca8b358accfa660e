"""Gates closed and opened by hand, under transfers that run."""
import os

from lib.downloads import KIB, MIB, check_same, completed, submit, write_file
from lib.world import World

GATE = "host:127.0.0.1"


def test_closed_and_opened_by_hand():
    """Nothing is asked of the host while its gate is closed; opened long before its time, the transfer goes on at once."""
    with World() as world:
        world.start("broker", "download")
        write_file(world.hub.file("x.bin"), 24 * MIB)
        world.hub.settings(throttle=4 * MIB)
        job = submit(world, f"{world.hub.url}/files/x.bin", os.path.join(world.folder, "out"))["id"]
        world.eventually(lambda: world.call("download", "id_to_job", id=job)["bytes"] > 512 * KIB, 30)
        world.lade("set", GATE, "--close-for", "600")
        world.hub.settings(throttle=0)
        world.eventually(lambda: world.hub.totals()["open"] == 0, 30)  # what was asked before comes whole
        asked = len(world.hub.log()["requests"])
        why = world.call("jobs", "why", id=job)["why"]
        assert f"{GATE}" in why and "closed by hand" in why, why
        other = submit(world, f"{world.hub.url}/files/x.bin", os.path.join(world.folder, "other"))["id"]
        assert "closed by hand" in world.call("jobs", "why", id=other)["why"]
        assert len(world.hub.log()["requests"]) == asked, "asked while the gate was closed"
        world.lade("set", GATE, "--close-for", "0")
        for done in (completed(world, job, 30), completed(world, other, 30)):
            check_same(done["download_path"], world.hub.file("x.bin"))
            assert done["failures"] == 0, done
        assert world.lade_json("gates") == []
