"""Gates under transfers that run: closed and opened by hand, and limits that hold while the broker dies."""
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


def test_limit_holds_through_the_death_of_the_broker():
    """Four workers, three connections: killed and started again in the middle, the broker asks them what they have open first."""
    with World() as world:
        broker = world.start("broker")
        world.start(*["download"] * 4)
        world.eventually(lambda: len(world.call("broker", "workers")) == 4)
        world.lade("set", GATE, "--limit", "3")
        for number in range(6):
            write_file(world.hub.file(f"{number}/x.bin"), 6 * MIB, number)
        world.hub.settings(throttle=2 * MIB)
        jobs = [submit(world, f"{world.hub.url}/files/{number}/x.bin", os.path.join(world.folder, "out", str(number)))["id"]
                for number in range(6)]
        for _ in range(3):
            world.eventually(lambda: world.hub.totals()["open"] == 3, 30)
            broker.kill()
            broker = world.start("broker")
            world.eventually(lambda: len(world.call("broker", "workers")) == 4, 30)
        world.hub.settings(throttle=0)
        for number, job in enumerate(jobs):
            check_same(completed(world, job, 60)["download_path"], world.hub.file(f"{number}/x.bin"))
        assert world.hub.totals()["connections"]["hub"]["max"] == 3, world.hub.totals()
