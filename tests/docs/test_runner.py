"""tests/run itself: what failed says why, below its log."""
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)

SUITE = '''
import os
import threading
from lib.skip import Skip
LIMIT_S = 3
TAKES_S = {"too_late": 3}

def test_fine():
    pass

def test_of_rows():
    print("FAIL the first row: it was not so")
    for number in range(1000):
        print("row", number)
    raise AssertionError("one row failed")

def test_of_a_number():
    assert 1 + 1 == 3, "two"

def test_not_here():
    raise Skip("not on this machine")

def test_too_late():
    threading.Event().wait()

def test_dies():
    os.abort()
'''


def run(folder):
    """{name: the lines below it}, and the last line."""
    os.makedirs(os.path.join(folder, "tests", "room"))
    os.makedirs(os.path.join(folder, "build"))
    shutil.copy(os.path.join(TESTS, "run"), os.path.join(folder, "tests"))
    shutil.copytree(os.path.join(TESTS, "lib"), os.path.join(folder, "tests", "lib"))
    with open(os.path.join(folder, "build", "lade-broker"), "w", encoding="ascii"):
        pass
    with open(os.path.join(folder, "tests", "room", "test_suite.py"), "w", encoding="utf-8") as file:
        file.write(SUITE)
    done = subprocess.run([sys.executable, os.path.join(folder, "tests", "run"), "--jobs", "2"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout
    told, order = {}, []
    *lines, last = done.stdout.splitlines()
    for line in lines:
        if line.startswith("      "):
            told[order[-1]].append(line[6:])
        elif "room/" in line:
            verdict, name = line.split()[:2]
            order.append(f"{verdict} {name[len('room/suite/'):]}")
            told[order[-1]] = []
    return told, last


def test_what_failed_says_why_at_its_end():
    """Rows that fail, assertions, what hangs and what dies; the last line counts."""
    with tempfile.TemporaryDirectory() as folder:
        told, last = run(folder)
    assert last == "1 passed, 4 failed", last
    assert told["ok fine"] == [], told
    assert told["skip not_here"] == ["| SKIPPED: not on this machine"], told
    expected = {"of_rows": ["> FAIL the first row: it was not so", "> room/test_suite.py:15: raise AssertionError(\"one row failed\")",
                            "> AssertionError: one row failed"],
                "of_a_number": ["> room/test_suite.py:18: assert 1 + 1 == 3, \"two\"", "> AssertionError: two"]}
    for name, why in expected.items():
        lines = told[f"FAIL {name}"]
        assert lines[-len(why):] == why and lines[-len(why) - 1].startswith("| "), lines
    assert told["FAIL of_rows"][0].endswith("lines before") and len(told["FAIL of_rows"]) < 200, told["FAIL of_rows"][:2]
    *_, limit, where = told["FAIL too_late"]
    assert limit == "> did not end within 3 s" and "line 24 in test_too_late" in where, told["FAIL too_late"]
    assert told["FAIL dies"][-1] == "> ended on signal 6", told["FAIL dies"]
