"""`lade import-invokeai`: installations of three generations, made as they make them; their models become records in place, nothing is written there."""
import hashlib
import json
import os
import shutil
import sqlite3

from lib import samples, weights
from lib.world import World

LIMIT_S = 120

# the table of version 4, and what later migrations added to it
TABLE_4 = """
CREATE TABLE models (
    id TEXT NOT NULL PRIMARY KEY,
    hash TEXT GENERATED ALWAYS as (json_extract(config, '$.hash')) VIRTUAL NOT NULL,
    base TEXT GENERATED ALWAYS as (json_extract(config, '$.base')) VIRTUAL NOT NULL,
    type TEXT GENERATED ALWAYS as (json_extract(config, '$.type')) VIRTUAL NOT NULL,
    path TEXT GENERATED ALWAYS as (json_extract(config, '$.path')) VIRTUAL NOT NULL,
    format TEXT GENERATED ALWAYS as (json_extract(config, '$.format')) VIRTUAL NOT NULL,
    name TEXT GENERATED ALWAYS as (json_extract(config, '$.name')) VIRTUAL NOT NULL,
    description TEXT GENERATED ALWAYS as (json_extract(config, '$.description')) VIRTUAL,
    source TEXT GENERATED ALWAYS as (json_extract(config, '$.source')) VIRTUAL NOT NULL,
    source_type TEXT GENERATED ALWAYS as (json_extract(config, '$.source_type')) VIRTUAL NOT NULL,
    source_api_response TEXT GENERATED ALWAYS as (json_extract(config, '$.source_api_response')) VIRTUAL,
    trigger_phrases TEXT GENERATED ALWAYS as (json_extract(config, '$.trigger_phrases')) VIRTUAL,
    %s
    config TEXT NOT NULL,
    created_at DATETIME NOT NULL DEFAULT(STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')),
    updated_at DATETIME NOT NULL DEFAULT(STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW'))
);
"""
COLUMN_6 = "file_size INTEGER GENERATED ALWAYS as (json_extract(config, '$.file_size')) VIRTUAL NOT NULL,"

LORA = {"key": "11111111-1111-4111-8111-111111111111", "hash": "blake3:aa", "path": "sd-1/lora/style.safetensors", "name": "Style: ä",
        "base": "sd-1", "description": "line\nline", "source": "https://example.com/style", "source_type": "url", "source_api_response": None,
        "cover_image": None, "type": "lora", "trigger_phrases": ["one", "two"], "format": "lycoris", "converted_at": None}
MAIN = {"key": "22222222-2222-4222-8222-222222222222", "hash": "blake3:bb", "path": "sdxl/main/turbo.safetensors", "name": "turbo", "base": "sdxl",
        "description": "x", "source": "stabilityai/sdxl-turbo", "source_type": "hf_repo_id", "source_api_response": "{\"id\": \"stabilityai/sdxl-turbo\"}",
        "cover_image": None, "type": "main", "trigger_phrases": None, "format": "checkpoint", "config_path": "stable-diffusion/sd_xl_base.yaml",
        "default_settings": {"vae": None, "vae_precision": "fp16", "scheduler": None, "steps": 4, "cfg_scale": 1.0, "cfg_rescale_multiplier": None,
                             "width": 512, "height": 512},
        "variant": "normal", "prediction_type": "epsilon", "upcast_attention": False, "converted_at": 1714500000.5}
GONE = {**LORA, "key": "33333333-3333-4333-8333-333333333333", "name": "gone", "path": "sd-1/lora/gone.safetensors"}
ODD = {**LORA, "key": "44444444-4444-4444-8444-444444444444", "name": "odd", "path": "sd-1/lora/odd.safetensors", "type": "nonsense"}
VAE_6 = {"key": "55555555-5555-4555-8555-555555555555", "hash": "blake3:cc", "name": "ae", "base": "flux", "type": "vae", "format": "checkpoint",
         "description": None, "source": "x", "source_type": "path", "source_api_response": None, "source_url": "https://example.com/ae",
         "cover_image": None, "file_size": 77, "config_path": None, "cpu_only": None, "a_field_of_tomorrow": {"deep": [1, None]}}


def tree(root):
    """Every path with its time, size and content."""
    seen = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            content = hashlib.sha256(open(path, "rb").read()).hexdigest() if name in files else ""
            seen[os.path.relpath(path, root)] = (stat.st_mtime_ns, stat.st_size, content)
    return seen


def put(root, path, text):
    whole = os.path.join(root, path)
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(whole, "w", encoding="utf-8") as file:
        file.write(text)
    return whole


def database(path, configs, column="", wal=False):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    connection = sqlite3.connect(path)
    if wal:
        connection.execute("pragma journal_mode=wal")
    connection.executescript(TABLE_4 % column)
    for config in configs:
        connection.execute("insert into models (id, config, created_at) values (?, ?, '2024-05-01 12:00:00.250')", (config["key"], json.dumps(config)))
    connection.commit()
    return connection


def installation(world, name, yaml, models_dir="models"):
    root = os.path.join(world.folder, name)
    put(root, "invokeai.yaml", yaml)
    for file in ("sd-1/lora/style.safetensors", "sd-1/lora/odd.safetensors", "sdxl/main/turbo.safetensors", "flux/vae/ae.safetensors"):
        put(root, f"{models_dir}/{file}", file)
    put(root, "configs/stable-diffusion/sd_xl_base.yaml", "x")
    return root


def test_version_4():
    """Sections in invokeai.yaml; every field is taken; what is gone or wrong is told and stops nothing; again: all is skipped."""
    with World() as world:
        world.start("broker")
        root = installation(world, "root", "InvokeAI:\n  Web Server:\n    port: 9090\n  Paths:\n    models_dir: my models\n    db_dir: db?#%\n", "my models")
        database(os.path.join(root, "db?#%", "invokeai.db"), [LORA, MAIN, GONE, ODD]).close()
        before = tree(root)
        dry = world.lade_json("import-invokeai", root, "--dry-run", status=1)
        assert (dry["taken"], dry["skipped"], dry["failed"]) == (2, 0, 2), dry
        assert world.call("store", "all_models") == []
        said = world.lade_json("import-invokeai", root, status=1)
        assert (said["taken"], said["skipped"], said["failed"]) == (2, 0, 2), said
        by_name = {one["name"]: one for one in said["models"]}
        assert by_name["gone"]["error"]["code"] == "ModelNotFound" and "type" in by_name["odd"]["error"]["message"], by_name
        lora = world.call("store", "get_model", key=LORA["key"])
        for field in ("hash", "name", "base", "description", "source", "source_type", "type", "trigger_phrases", "format"):
            assert lora[field] == LORA[field], (field, lora)
        assert lora["path"] == os.path.join(root, "my models", LORA["path"]) and lora["created_at"] == 1714564800.25, lora
        assert "converted_at" not in lora and "cover_image" not in lora, lora
        main = world.call("store", "get_model", key=MAIN["key"])
        assert main["default_settings"] == {"vae_precision": "fp16", "steps": 4, "cfg_scale": 1.0, "width": 512, "height": 512}, main
        assert main["config_path"] == os.path.join(root, "configs/stable-diffusion/sd_xl_base.yaml"), main
        assert main["source_api_response"] == MAIN["source_api_response"] and main["prediction_type"] == "epsilon", main
        again = world.lade("import-invokeai", root, status=1).stdout
        assert "0 taken, 2 skipped, 2 failed" in again and "gone" in again, again
        assert tree(root) == before


def test_version_6():
    """A flat invokeai.yaml with a models folder elsewhere, the columns of later migrations, fields nobody knows."""
    with World() as world:
        world.start("broker")
        elsewhere = os.path.join(world.folder, "elsewhere")
        root = installation(world, "root", f"schema_version: 4.0.2\nmodels_dir: {elsewhere}\nhashing_algorithm: blake3_single\nremote_api_tokens:\n- url_regex: x\n  token: y\n")
        absolute = put(world.folder, "anywhere/ae.safetensors", "ae")
        put(elsewhere, "style.safetensors", "x")
        database(os.path.join(root, "databases", "invokeai.db"), [{**VAE_6, "path": absolute}, {**LORA, "path": "style.safetensors", "file_size": 1}], COLUMN_6).close()
        before = tree(root)
        said = world.lade_json("import-invokeai", root)
        assert (said["taken"], said["failed"]) == (2, 0), said
        vae = world.call("store", "get_model", key=VAE_6["key"])
        assert vae["path"] == absolute and vae["file_size"] == 77 and vae["a_field_of_tomorrow"] == {"deep": [1, None]}, vae
        assert vae["source_url"] == "https://example.com/ae" and "description" not in vae, vae
        assert world.call("store", "get_model", key=LORA["key"])["path"] == os.path.join(elsewhere, "style.safetensors")
        assert tree(root) == before


def test_models_yaml():
    """Version 3: stanzas, each identified by its files; what has a word of its own on its format is taken at it."""
    with World() as world:
        world.start("broker")
        root = os.path.join(world.folder, "root")
        os.makedirs(os.path.join(root, "models/sd-1/lora"))
        weights.lora(os.path.join(root, "models/sd-1/lora/a.safetensors"), 1)
        os.makedirs(os.path.join(root, "models/sd-1/vae"))
        samples.vae(os.path.join(root, "models/sd-1/vae/v"))
        put(root, "models/sd-1/main/old.ckpt", "a pickle")
        put(root, "models/sd-1/main/what.ckpt", "a pickle")
        put(root, "configs/stable-diffusion/v1-inference.yaml", "x")
        put(root, "configs/models.yaml", """
__metadata__:
  version: 3.0.0
sd-1/lora/a/b:
  path: sd-1/lora/a.safetensors
  description: mine
sd-1/vae/v:
  path: models/sd-1/vae/v
sd-1/main/old:
  path: sd-1/main/old.ckpt
  config: stable-diffusion/v1-inference.yaml
  variant: normal
  model_format: checkpoint
sd-1/main/what:
  path: sd-1/main/what.ckpt
sd-1/main/gone: {path: sd-1/main/gone}
sd-1/main: {path: x}
sdxl/lora/wrong: {path: sd-1/lora/a.safetensors}
""")
        before = tree(root)
        said = world.lade_json("import-invokeai", root, status=1)
        assert (said["taken"], said["failed"]) == (3, 4), said
        records = {record["name"]: record for record in world.call("store", "all_models")}
        assert set(records) == {"a/b", "v", "old"}, records
        assert records["a/b"]["description"] == "mine" and records["a/b"]["format"] == "lycoris" and records["a/b"]["hash"].startswith("imohash:")
        assert records["v"]["format"] == "diffusers" and records["v"]["path"] == os.path.join(root, "models/sd-1/vae/v"), records["v"]
        assert records["old"]["config_path"] == os.path.join(root, "configs/stable-diffusion/v1-inference.yaml"), records["old"]
        again = world.lade_json("import-invokeai", root, status=1)
        assert (again["taken"], again["skipped"]) == (0, 3), again
        assert tree(root) == before
        put(root, "configs/models.yaml", "__metadata__:\n  version: 2.0.0\n")
        error = world.lade_json("import-invokeai", root, status=1)["error"]
        assert "models.yaml:2: " in error["message"] and "2.0.0" in error["message"], error


def test_database_in_use():
    """What is only in the write-ahead log yet is found too, and nothing is written beside the database."""
    with World() as world:
        world.start("broker")
        root = installation(world, "root", "schema_version: 4.0.2\n")
        file = os.path.join(root, "databases", "invokeai.db")
        connection = database(file, [LORA], wal=True)
        assert os.path.getsize(file + "-wal") > 0
        copy = os.path.join(world.folder, "copy")
        shutil.copytree(root, copy)
        connection.close()
        if os.path.exists(os.path.join(copy, "databases/invokeai.db-shm")):
            os.unlink(os.path.join(copy, "databases/invokeai.db-shm"))
        before = tree(copy)
        assert world.lade_json("import-invokeai", copy)["taken"] == 1
        assert tree(copy) == before
        assert not [name for name in os.listdir(os.environ.get("TMPDIR", "/tmp")) if name.startswith("lade-invokeai-")]


def test_what_cannot_be_read():
    """No installation, no database, no libsqlite3, a file that is none: a word for each, and nothing is taken."""
    with World() as world:
        world.start("broker")
        root = installation(world, "root", "schema_version: 4.0.2\n")
        assert world.lade_json("import-invokeai", os.path.join(world.folder, "none"), status=3)["error"]["code"] == "not_found"
        error = world.lade_json("import-invokeai", root, status=3)["error"]
        assert "no InvokeAI installation" in error["message"], error
        file = os.path.join(root, "databases", "invokeai.db")
        database(file, [LORA]).close()
        error = world.lade_json("import-invokeai", root, status=3, env={"LADE_LIBSQLITE3": "libnone.so"})["error"]
        assert "libsqlite3" in error["message"] and "install" in error["message"], error
        put(root, "databases/invokeai.db", "no database at all" * 1000)
        error = world.lade_json("import-invokeai", root, status=1)["error"]
        assert error["code"] == "corrupt" and "invokeai.db" in error["message"], error
        put(root, "invokeai.yaml", "a: [\n")
        error = world.lade_json("import-invokeai", root, status=1)["error"]
        assert "invokeai.yaml:2" in error["message"], error
        assert world.call("store", "all_models") == []
