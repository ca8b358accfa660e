"""A farm as README.md describes it: hosts with keys of their own, tcp between them, one folder for all.

The hosts are data folders: a broker's, workers' and users', who have a configuration and no processes.
"""
import json
import os
import socket
import subprocess

from lib.world import BUILD, DAEMONS, QUICK


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Farm:
    """world.data is the broker's host. address: where the others find it."""

    def __init__(self, world, address="127.0.0.1", **more):
        self.world, self.ports, self.address, self.more = world, free_ports(3), address, more
        self.keys, self.known = os.path.join(world.folder, "keys"), os.path.join(world.folder, "known")
        self.models_dir = os.path.join(world.folder, "shared")
        os.mkdir(self.known)
        self.make_key("broker", listed=False)
        world.configure(**self.settings("*", key=self.key("broker"), clients=self.known,
                                        server=self.key("broker") + ".pub"))

    def key(self, name):
        return os.path.join(self.keys, name)

    def make_key(self, name, listed=True):
        self.world.lade("keys", name, "--dest", self.keys)
        if listed:
            os.rename(self.key(name) + ".pub", os.path.join(self.known, name + ".pub"))

    def settings(self, address, **curve):
        names = ("clients", "workers", "events")
        return {**QUICK, "models_dir": self.models_dir, **{f"curve.{key}": value for key, value in curve.items()}, **self.more,
                **{f"endpoints.{name}": f"tcp://{address}:{port}" for name, port in zip(names, self.ports)}}

    def host(self, name, server="broker"):
        """A data folder with a configuration that leads to the broker."""
        data, broker_data = os.path.join(self.world.folder, name), self.world.data
        os.makedirs(data, 0o700)
        self.world.data = data
        self.world.configure(**self.settings(self.address, key=self.key(name), server=self.key(server) + ".pub"))
        self.world.data = broker_data
        return data

    def start(self, daemon, data, *within):
        """A daemon on the host of this data folder; `within` is what runs it there."""
        return self.world.spawn(daemon, [*within, os.path.join(BUILD, DAEMONS[daemon]), "--data", data])

    def lade(self, data, *args, status=0):
        return self.world.lade("--data", data, *args, "--json", status=status, data=False)

    def ask(self, data, *args):
        """What a command that prints one document says."""
        return json.loads(self.lade(data, *args).stdout)

    def workers(self, data):
        return self.ask(data, "workers")


class Network:
    """Hosts as network namespaces, each with a cable to this one. Needs network and mount namespaces of the test's own.

    Everybody reaches this host at ADDRESS; the hosts do not reach each other."""

    ADDRESS, RANGE = "10.77.0.1", "10.77.0.0/16"

    def __init__(self):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        self.hosts = {}
        self.ip("link set lo up")
        self.ip(f"addr add {self.ADDRESS}/32 dev lo")

    def ip(self, words):
        subprocess.run(["ip", *words.split()], check=True)

    def host(self, name):
        """Makes one; answers what runs a program in it, under its own host name."""
        number = self.hosts[name] = len(self.hosts) + 1
        self.ip(f"netns add {name}")
        self.ip(f"link add cable{number} type veth peer name e0 netns {name}")
        self.ip(f"addr add 10.77.{number}.1/24 dev cable{number}")
        self.ip(f"link set cable{number} up")
        for words in ("link set lo up", f"addr add 10.77.{number}.2/24 dev e0", "link set e0 up",
                      f"route add default via 10.77.{number}.1"):
            self.ip(f"-n {name} {words}")
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]

    def cut(self, name):
        """The cable is pulled: nobody is told, packets just do not come."""
        self.ip(f"link set cable{self.hosts[name]} down")

    def mend(self, name):
        self.ip(f"link set cable{self.hosts[name]} up")
