"""Tests in namespaces of their own, where they may mount file systems and set up networks."""
import functools
import os
import subprocess
import sys

from lib.skip import Skip
from lib.world import HERE

INSIDE = "LADE_TEST_INSIDE"


def apart(*ways):
    """Runs a test again in new namespaces: the first of the ways (flags of unshare) that this system allows."""

    def decorate(function):
        @functools.wraps(function)
        def run():
            if os.environ.get(INSIDE):
                return function()
            for way in ways:
                unshare = ["unshare", *way.split()]
                if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                    break
            else:
                raise Skip(f"this system lets nobody make namespaces ({' or '.join(ways)})")
            done = subprocess.run([*unshare, sys.executable, os.path.join(os.path.dirname(HERE), "run"), "--one",
                                   function.__code__.co_filename, function.__name__],
                                  env={**os.environ, INSIDE: "1"}, check=False)
            assert done.returncode == 0, "see above"

        return run

    return decorate


# As somebody in a user namespace; where that is closed (a chroot), as root itself.
on_small_disk = apart("-Urm", "-m")


def mount(folder, size):
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder], check=True)


def resize(folder, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
