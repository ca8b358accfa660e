"""`lade export-yaml` and `import-yaml`: everything comes back, people can edit it, what is wrong has a line, all or nothing."""
import os
import sqlite3
import subprocess

from lib.world import BUILD, LadeError, World

LIMIT_S = 120

RECORDS = [
    {"name": "007", "type": "lora", "base": "sd-1", "format": "lycoris", "path": "sd-1/lora/007.safetensors", "hash": "1e10",
     "description": "line one\nline two: with a colon\n\n  indented # no comment\n", "tags": ["yes", "no", "12", "ä ö", "- dash", "null"],
     "trigger_phrases": ["it's \"quoted\"", "日本語", "😀"], "default_settings": {"weight": 0.75},
     "source": "https://example.com/a?b=c&d=e#f", "source_type": "url", "source_url": "https://example.com/", "file_size": 9007199254740992},
    {"name": "null", "type": "main", "base": "sdxl", "format": "checkpoint", "path": "/mnt/models/x y: z.safetensors", "hash": "0123",
     "description": "  leading and trailing  ", "prediction_type": "v_prediction", "variant": "normal",
     "default_settings": {"steps": 30, "cfg_scale": 7.5, "cfg_rescale_multiplier": 0, "width": 1024, "scheduler": "euler"},
     "source_api_response": {"id": 12, "nested": {"list": [1, "1", 1.0, None, True, [], {}], "none": None, "text": "a\tb"}}},
    {"name": "future", "type": "vae", "base": "any", "format": "diffusers", "path": "any/vae/future",
     "of_a_newer_version": {"deep": [{"er": None}, 0.1, -5, "0x10", "", " "]}, "another": "2024-01-01", "switch": True, "big": 1e300},
    {"name": "Ω", "type": "embedding", "base": "sd-2", "format": "embedding_file", "path": "sd-2/embedding/Ω.pt", "description": ""},
]


def add_all(world):
    return {(record := world.call("store", "add_model", config=one))["key"]: record for one in RECORDS}


def all_of(world):
    return {record["key"]: record for record in world.call("store", "all_models")}


def write(world, name, text):
    path = os.path.join(world.folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def test_everything_comes_back():
    """Out of one keyspace, into another: the records are equal, field by field and type by type; and the file is the same again."""
    with World() as world:
        world.start("broker")
        there = add_all(world)
        key = next(iter(there))
        there[key] = world.call("store", "update_model", key=key, config={"name": "008"})
        file = os.path.join(world.folder, "models.yaml")
        world.lade("export-yaml", file)
        text = open(file, encoding="utf-8").read()
        assert world.lade("export-yaml", "-").stdout == text
        with World() as other:
            other.start("broker")
            done = other.lade("import-yaml", file)
            assert "4 added" in done.stdout, done.stdout
            back = all_of(other)
            assert back == there, [(one, there[one], back.get(one)) for one in there if there[one] != back.get(one)]
            for one in there:
                assert [type(value) for value in back[one].values()] == [type(back[one][name]) for name in back[one]]
                assert {name: type(value) for name, value in back[one].items()} == {name: type(value) for name, value in there[one].items()}
            assert other.call("store", "search_by_tag", tags=["ä ö", "12"])[0]["key"] == key
            assert other.call("store", "search_by_path", path="sd-2/embedding/Ω.pt")["name"] == "Ω"
            assert other.lade("export-yaml", "-").stdout == text
            # from a pipe, and with nothing in it
            done = subprocess.run([os.path.join(BUILD, "lade"), "--data", other.data, "import-yaml", "-", "--on-conflict", "skip", "--json"], input=text,
                                  env=other.environment(), capture_output=True, text=True, check=True, timeout=60)
            assert '"skipped":4' in done.stdout, done.stdout


def test_people_edit_it():
    """Other styles, comments, another order, a new record without a key's form: read as they were meant."""
    with World() as world:
        world.start("broker")
        file = write(world, "mine.yaml", """
# my models
__metadata__: {version: 3.2}
my-lora:
  base: sd-1
  type: lora     # a comment
  format: lycoris
  name: 'My style'
  path: sd-1/lora/my.safetensors
  tags: [anime, "1980"]
  file_size: 1234
  created_at: 1700000000.5
  description: >
    folded
    text
common: &common
  {name: A, type: vae, base: sdxl, format: diffusers, path: a, source: null}
""")
        assert world.lade_json("import-yaml", file)["added"] == 2
        record = world.call("store", "get_model", key="my-lora")
        assert record["tags"] == ["anime", "1980"] and record["description"] == "folded text\n" and record["version"] == 1, record
        assert record["created_at"] == 1700000000.5 and record["file_size"] == 1234, record
        assert "source" not in world.call("store", "get_model", key="common")
        events = [event["event"] for event in world.call("events", "since", seq=0)["events"]]
        assert events.count("model_record_added") == 2, events


def test_what_is_wrong_has_a_line():
    """Each mistake is told with file and line, and nothing is changed."""
    good = "  {name: n, type: vae, base: sdxl, format: diffusers, path: %s}\n"
    head = '__metadata__:\n  version: "3.2"\n'
    with World() as world:
        world.start("broker")
        there = add_all(world)
        key = next(iter(there))
        for text, line, words in (
                (head + "a:\n" + good % "a" + "b:\n  name: n\n  type: nonsense\n  base: sdxl\n  format: diffusers\n  path: b\n", 7, "type"),
                (head + "a:\n  name: n\n  type: vae\n  base: sdxl\n  format: diffusers\n", 3, "path"),
                (head + "a: [1, 2\nb: 1\n", 4, "flow sequence"),
                (head + "a:\n" + good % "a" + "a:\n" + good % "b", 5, "twice"),
                (head + "a: text\n", 3, "map"),
                (head + "a:\n  key: b\n  name: n\n", 4, "key"),
                (head + "a:\n" + good % "a" + "b:\n" + good % "a", 5, "path 'a'"),
                (head + "a:\n" + good % "a" + f"{key}:\n" + good % "b", 5, key),
                (head + "a:\n  {name: n, type: vae, base: sdxl, format: diffusers, path: a,\n   file_size: many}\n", 5, "file_size"),
                (head + "a/b:\n" + good % "a", 3, "key"),
        ):
            error = world.lade_json("import-yaml", write(world, "wrong.yaml", text), status=None)["error"]
            assert f"wrong.yaml:{line}: " in error["message"] and words in error["message"], (text, error)
        assert all_of(world) == there


def test_wrong_files():
    """No header, another version, a models.yaml of InvokeAI, SQLite, a picture, an empty file, none: refused, each in its words."""
    with World() as world:
        world.start("broker")
        there = add_all(world)
        database = os.path.join(world.folder, "x.yaml")
        connection = sqlite3.connect(database)
        connection.execute("create table models (id text)")
        connection.commit()
        connection.close()
        binary = os.path.join(world.folder, "binary.yaml")
        with open(binary, "wb") as out:
            out.write(bytes(range(256)) * 100)
        for file, code, words in (
                (write(world, "a", "a: {name: n}\n"), "corrupt", "no file of model records"),
                (write(world, "b", "__metadata__: {version: 9.9}\n"), "corrupt", "b:1: version '9.9'"),
                (write(world, "c", "__metadata__:\n  version: 3.0.0\n\nsd-1/main/x: {path: y}\n"), "corrupt", "import-invokeai"),
                (write(world, "empty", ""), "corrupt", "no file of model records"),
                (write(world, "e", "- 1\n- 2\n"), "corrupt", "no file of model records"),
                (database, "corrupt", "YAML"), (binary, "corrupt", "YAML"),
                (os.path.join(world.folder, "none"), "not_found", "none")):
            error = world.lade_json("import-yaml", file, status=None)["error"]
            assert error["code"] == code and words in error["message"], (file, error)
        assert all_of(world) == there


def test_conflicts():
    """A key that is there: fail (nothing happens), skip, replace; --dry-run says so and does nothing."""
    with World() as world:
        world.start("broker")
        old = world.call("store", "add_model", key="one", config=RECORDS[0])
        file = write(world, "m.yaml", '__metadata__: {version: "3.2"}\n'
                     'one: {name: changed, type: vae, base: sdxl, format: diffusers, path: other}\n'
                     'two: {name: new, type: vae, base: sdxl, format: diffusers, path: two}\n')
        error = world.lade_json("import-yaml", file, status=1)["error"]
        assert error["code"] == "DuplicateModel" and "m.yaml:2: " in error["message"], error
        said = world.lade_json("import-yaml", file, "--on-conflict", "replace", "--dry-run")
        assert [said[name] for name in ("added", "replaced", "skipped", "failed")] == [1, 1, 0, 0], said
        assert all_of(world) == {"one": old}
        said = world.lade_json("import-yaml", file, "--on-conflict", "skip")
        assert [one["outcome"] for one in said["models"]] == ["skipped", "added"], said
        assert all_of(world)["one"] == old
        said = world.lade_json("import-yaml", file, "--on-conflict", "replace")
        assert said["replaced"] == 2, said
        new = all_of(world)
        assert new["one"]["name"] == "changed" and new["one"]["version"] == 2 and "tags" not in new["one"], new
        assert world.call("store", "search_by_tag", tags=["yes"]) == [] and world.call("store", "search_by_path", path=RECORDS[0]["path"]) is None
        assert world.call("store", "search_by_path", path="other")["key"] == "one"
        world.lade("import-yaml", file, "--on-conflict", "perhaps", status=2)
        world.lade("export-yaml", file, status=1)
        world.lade("export-yaml", file, "--overwrite")


def test_all_or_nothing_on_the_wire():
    """import_models: one bad record and nothing is there; with `each` the others are; what is replaced comes back untouched."""
    with World() as world:
        world.start("broker")
        old = world.call("store", "add_model", key="old", config=RECORDS[0])
        models = [{**RECORDS[3], "key": "k1", "path": "p1"}, {**RECORDS[3], "key": "old", "path": "p2"}, {**RECORDS[3], "key": "k3", "path": "p1"}]
        try:
            world.call("store", "import_models", models=models, on_conflict="replace")
            raise AssertionError("it was taken")
        except LadeError as error:
            assert error.code == "DuplicateModel" and "model 3" in str(error), error
        assert all_of(world) == {"old": old}
        assert world.call("store", "search_by_tag", tags=["yes"])[0] == old
        said = world.call("store", "import_models", models=models, on_conflict="replace", each=True)
        assert [one["outcome"] for one in said["models"]] == ["added", "replaced", "failed"], said
        assert set(all_of(world)) == {"k1", "old"}


def test_many_records():
    """Five thousand at once; more than one step takes goes in parts when asked to."""
    with World() as world:
        world.start("broker")
        lines = ['__metadata__: {version: "3.2"}']
        for number in range(10050):
            lines.append(f"k{number}: {{name: n{number}, type: vae, base: sdxl, format: diffusers, path: p{number}}}")
        small, large = write(world, "small.yaml", "\n".join(lines[:5001])), write(world, "large.yaml", "\n".join(lines))
        assert world.lade_json("import-yaml", small)["added"] == 5000
        assert world.lade_json("import-yaml", large, "--on-conflict", "skip", status=1)["error"]["code"] == "too_large"
        said = world.lade_json("import-yaml", large, "--on-conflict", "skip", "--in-parts")
        assert said["added"] == 5050 and said["skipped"] == 5000, {name: said[name] for name in ("added", "skipped")}
        assert world.call("broker", "status")["models"] == 10050
        text = world.lade("export-yaml", "-").stdout
        assert text.count("\nk") == 10050
