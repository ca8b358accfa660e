"""Settings of the whole system, changed for a moment and put back, whatever ends the test."""
import contextlib
import fcntl
import os
import subprocess

from lib.skip import Skip

LOCK = "/tmp/lade-test-system.lock"  # one test at a time
RESTORE = 'cat >/dev/null; while [ $# -gt 0 ]; do echo "$2" >"$1"; shift 2; done'


def read(path):
    """'always [advise] never' is advise; what has no brackets is itself; huge pages that are only still in use do not count."""
    with open(path, encoding="ascii") as file:
        text = file.read().strip()
    if "[" in text:
        return text.split("[")[1].split("]")[0]
    if path.endswith("/nr_hugepages"):
        return str(int(text) - int(read(path.replace("/nr_", "/surplus_"))))
    return text


def write(path, value):
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
    except OSError as error:
        raise Skip(f"{path} does not take {value}: {error.strerror}") from None
    if read(path) != str(value):
        raise Skip(f"{path} is {read(path)}, not {value}")


@contextlib.contextmanager
def settings(values):
    """The files have these values in here. Skips where that is not allowed, or the system does not take them."""
    for path in values:
        if os.geteuid() != 0 or not os.access(path, os.W_OK):
            raise Skip(f"{path} may not be changed here")
    with open(LOCK, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = [text for path in values for text in (path, read(path))]
        env = {key: text for key, text in os.environ.items() if key != "LADE_TEST_WORLD"}  # it outlives the test
        restorer = subprocess.Popen(["sh", "-c", RESTORE, "restore", *before], stdin=subprocess.PIPE, env=env, start_new_session=True)
        try:
            for path, value in values.items():
                write(path, value)
            yield
        finally:
            restorer.stdin.close()
            restorer.wait(60)
