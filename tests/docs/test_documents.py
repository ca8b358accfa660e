"""The documents say what the programs do: tables against tables, links against files, commands against the command."""
import glob
import os
import re
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def documents():
    return [os.path.relpath(path, TOP) for path in glob.glob(os.path.join(TOP, "**", "*.md"), recursive=True)
            if not os.path.relpath(path, TOP).startswith("build")]


def test_every_error_is_in_the_readme_as_the_table_has_it():
    """README "Errors" is the table of common/error.c."""
    table = subprocess.run([os.path.join(TOP, "scripts", "errors-table")], capture_output=True, text=True, check=True)
    assert table.stdout.count("\n") > 40, table.stdout
    assert table.stdout in read("README.md"), "README.md: put in what scripts/errors-table prints"


def test_every_link_leads_somewhere():
    """Relative links of all documents."""
    for document in documents():
        for target in re.findall(r"\]\(([^)#\s]+)", read(document)):
            if "://" not in target:
                path = os.path.join(TOP, os.path.dirname(document), target)
                assert os.path.exists(path), f"{document}: {target} is not there"


def test_every_command_in_the_readme_exists():
    """`lade X` in README.md is a command that `lade help` knows."""
    lade = os.path.join(os.environ["LADE_BUILD"], "lade")
    named = set(re.findall(r"(?:^|`)lade ([a-z][a-z-]+)", read("README.md"), re.MULTILINE))
    assert len(named) > 8, named
    for command in sorted(named):
        done = subprocess.run([lade, "help", command], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"README.md names `lade {command}`: {done.stderr}"


def test_every_event_is_documented():
    """Names of events in the broker's source are in broker/README.md."""
    sources = "".join(read(os.path.relpath(path, TOP)) for path in glob.glob(os.path.join(TOP, "broker", "*.c"))
                      if not path.endswith("_test.c"))
    names = set(re.findall(r'"((?:model|download|worker|job|broker)_(?:[a-z]+_)?'
                           r'(?:downloading|running|completed|error|cancelled|enqueued|paused|started|added|updated|deleted|'
                           r'joined|lost|requeued|dead|stalled|resumed|beat))"', sources))
    names -= {"job_started"}  # a field of jobs
    assert len(names) > 15, names
    text = read("broker/README.md")
    for name in sorted(names):
        stem, last = name.rsplit("_", 1)
        assert f"`{name}`" in text or re.search(rf"`{stem}_\w+`.*`_{last}`", text), f"broker/README.md lacks {name}"


def test_every_method_of_the_system_it_follows_is_there():
    """README "Coming from the system it follows": each op, function, command and test of the table exists."""
    section = read("README.md").split("## Coming from the system it follows")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) > 45, len(rows)
    lade, header = os.path.join(os.environ["LADE_BUILD"], "lade"), read("client/lade.h")
    for there, op, function, command, test in rows:
        if op:
            service, name = op.strip("`").split(".")
            assert f'{{"{name}",' in read(f"broker/service_{service}.c"), f"{there}: no op {op}"
        if function:
            assert re.search(rf"\b{function.strip('`')}\(", header), f"{there}: lade.h has no {function}"
        if command:
            words = command.strip("`").split()
            done = subprocess.run([lade, "help", words[0]], capture_output=True, text=True, timeout=20)
            assert done.returncode == 0, f"{there}: {done.stderr}"
            for option in words[1:]:
                assert not option.startswith("-") or option in done.stdout, f"{there}: lade {words[0]} has no {option}"
        name, path = re.match(r"\[(.+)\]\((.+)\)", test).groups()
        assert f"def test_{name.split('/')[2]}(" in read(path), f"{there}: there is no test {name}"
