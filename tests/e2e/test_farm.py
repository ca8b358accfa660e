"""A farm as README.md describes it (lib/farm): installing, loading, and who is let in."""
import json
import os

from lib import weights
from lib.farm import Farm, free_ports
from lib.world import BUILD, PATIENCE_S, World

TAKES_S = {"a_stranger_is_refused_until_its_key_is_listed": 20}


def test_install_and_load_over_tcp_with_keys():
    with World() as world:
        path = weights.lora(os.path.join(world.hub.repo("org/name"), "style.safetensors"), 1)
        farm = Farm(world)
        farm.make_key("farm1")
        farm.make_key("user")
        farm1, user = farm.host("farm1"), farm.host("user")
        farm.start("broker", world.data)
        for daemon in ("download", "install", "gpu"):
            farm.start(daemon, farm1)
        watch = world.spawn("watch", [os.path.join(BUILD, "lade"), "--data", user, "watch", "worker_", "--since", "0",
                                      "--count", "3"])
        assert watch.popen.wait(PATIENCE_S) == 0, watch.tail()
        watch.ended = True
        assert {kind for worker in farm.workers(user) for kind in worker["kinds"]} >= {"download", "install", "load"}
        (job,) = json.loads(farm.lade(user, "install", "org/name::style.safetensors").stdout)
        record = job["config_out"]
        assert weights.sha256(os.path.join(farm.models_dir, record["path"])) == weights.sha256(path)
        loaded = json.loads(farm.lade(user, "load", record["key"]).stdout)
        assert loaded["location"] == "host", loaded
        world.eventually(lambda: os.listdir(farm.models_dir) == [record["base"]])


def test_up_and_the_command_on_the_host_of_the_broker():
    with World() as world:
        farm = Farm(world)
        os.symlink(farm.key("broker") + ".pub", os.path.join(farm.known, "broker.pub"))
        path = weights.lora(os.path.join(world.folder, "style.safetensors"), 1)
        world.spawn("up", [os.path.join(BUILD, "lade"), "up", "--data", world.data]).line("lade is up")
        (job,) = world.lade_json("install", path)
        assert job["status"] == "completed", job


def test_a_stranger_is_refused_until_its_key_is_listed():
    with World() as world:
        farm = Farm(world)
        farm.make_key("user")
        farm.make_key("stranger", listed=False)
        farm.make_key("impostor", listed=False)
        user, stranger = farm.host("user"), farm.host("stranger")
        deceived = farm.host("elsewhere", server="impostor")
        os.symlink(farm.key("user"), farm.key("elsewhere"))
        farm.start("broker", world.data)
        assert farm.workers(user) == []
        for data in (stranger, deceived):
            error = json.loads(farm.lade(data, "ls", status=4).stdout)["error"]
            assert error["code"] == "broker_unreachable" and "curve" in error["message"], error
        outside = farm.start("download", stranger)
        farm.lade(user, "status")
        farm.lade(stranger, "ls", status=4)  # takes as long as a worker had to get in
        assert farm.workers(user) == []
        os.rename(farm.key("stranger") + ".pub", os.path.join(farm.known, "stranger.pub"))
        farm.lade(stranger, "watch", "worker_joined", "--since", "0", "--count", "1")
        assert [worker["kinds"] for worker in farm.workers(user)] == [["download"]]
        outside.stop()


def test_tcp_without_keys_is_refused():
    with World() as world:
        ports = free_ports(3)
        world.configure(**{f"endpoints.{name}": f"tcp://127.0.0.1:{port}"
                           for name, port in zip(("clients", "workers", "events"), ports)})
        broker = world.launch("broker")
        assert broker.popen.wait(PATIENCE_S) == 2, broker.tail()
        assert "curve" in broker.text() and "insecure" in broker.text(), broker.tail()
        broker.ended = broker.killed = True
