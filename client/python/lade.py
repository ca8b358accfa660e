"""Models of lade in Python: loaded once a machine, seen by every process, not copied.

    import lade
    with lade.Client() as client:
        with client.load(name="sdxl-turbo", base="sdxl", type="main", submodel="unet", dtype="fp16") as unet:
            weight = unet.torch("conv_in.weight")          # a torch tensor on the shared memory
            state = unet.state_dict()                      # all of them; numpy arrays with numpy=True

Tensors are views of memory that other processes use too: read them, copy (`.clone()`, `.copy()`) what you want to
change. They are good until the end of the `with` block. Needs the library liblade.so.0 (LADE_LIBRARY names another);
numpy and torch only if their views are asked for.
"""
import ctypes
import json
import os

_U64x8 = ctypes.c_uint64 * 8


class _Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 512)]


class _Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("rank", ctypes.c_uint8), ("shape", _U64x8),
                ("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("strides", _U64x8)]


class _Options(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_char_p) for name in ("submodel", "dtype", "layout", "device", "allow_unsafe", "context")),
                ("timeout_s", ctypes.c_double)]


class LadeError(Exception):
    """What lade refused: `code` is its name on the wire ("UnknownModel", "no_memory", ...)."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def _library():
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../liblade.so.0")  # as `make install` has it
    lib = ctypes.CDLL(os.environ.get("LADE_LIBRARY", beside if os.path.exists(beside) else "liblade.so.0"))
    pointer, text, model, error = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(_Error)
    for name, result, arguments in (
            ("lade_code_name", text, [ctypes.c_int]),
            ("lade_open", ctypes.c_int, [text, text, text, model, error]),
            ("lade_close", None, [model]),
            ("lade_call", ctypes.c_int, [pointer, text, text, text, model, error]),
            ("lade_load_model_by_key", ctypes.c_int, [pointer, text, ctypes.POINTER(_Options), model, error]),
            ("lade_load_model_by_attr", ctypes.c_int, [pointer, text, text, text, ctypes.POINTER(_Options), model, error]),
            ("lade_load_model_by_config", ctypes.c_int, [pointer, text, ctypes.POINTER(_Options), model, error]),
            ("lade_load_model_from_path", ctypes.c_int, [pointer, text, ctypes.POINTER(_Options), model, error]),
            ("lade_load_remote_model", ctypes.c_int, [pointer, text, text, ctypes.POINTER(_Options), model, error]),
            ("lade_model_config", text, [pointer]),
            ("lade_model_metadata", text, [pointer]),
            ("lade_model_location", text, [pointer]),
            ("lade_model_precision", text, [pointer]),
            ("lade_model_bytes", ctypes.c_size_t, [pointer]),
            ("lade_model_tensor_count", ctypes.c_size_t, [pointer]),
            ("lade_model_address", ctypes.c_int, [pointer, text, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_int),
                                                  error]),
            ("lade_model_tensor", ctypes.c_bool, [pointer, ctypes.c_size_t, ctypes.POINTER(_Tensor)]),
            ("lade_unlock", None, [model])):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def _text(value):
    return value if value is None else str(value).encode()


def _do(lib, name, *args):
    error = _Error()
    code = getattr(lib, name)(*args, ctypes.byref(error))
    if code:
        raise LadeError(lib.lade_code_name(code).decode(), error.message.decode(errors="replace"))


class Client:
    """A connection to lade's broker; one thread at a time uses it."""

    def __init__(self, config_file=None, data=None, broker=None):
        self._lib, self._self = _library(), ctypes.c_void_p()
        self._do("lade_open", _text(config_file), _text(data), _text(broker), ctypes.byref(self._self))

    def _do(self, name, *args):
        _do(self._lib, name, *args)

    def call(self, service, op, **args):
        """Any operation of the broker (broker/README.md): client.call("store", "get_model", key=...)."""
        result = ctypes.c_void_p()
        self._do("lade_call", self._self, _text(service), _text(op), json.dumps(args).encode(), ctypes.byref(result))
        try:
            return json.loads(ctypes.string_at(result))
        finally:
            ctypes.CDLL(None).free(result)

    def load(self, key=None, *, config=None, name=None, base=None, type=None, path=None, source=None, access_token=None,
             submodel=None, dtype=None, layout=None, device=None, allow_unsafe=None, context=None, timeout_s=0):
        """Loads and locks a model: by key, by config (a record), by name, base and type; or what has no record: a path, or
        a source that is fetched into the cache of files."""
        options = _Options(*(_text(value) for value in (submodel, dtype, layout, device, allow_unsafe)),
                           context and json.dumps(context).encode(), timeout_s)
        model = ctypes.c_void_p()
        more = (ctypes.byref(options), ctypes.byref(model))
        if config is not None:
            self._do("lade_load_model_by_config", self._self, json.dumps(config).encode(), *more)
        elif path is not None:
            self._do("lade_load_model_from_path", self._self, _text(path), *more)
        elif source is not None:
            self._do("lade_load_remote_model", self._self, _text(source), _text(access_token), *more)
        elif key is not None:
            self._do("lade_load_model_by_key", self._self, _text(key), *more)
        else:
            self._do("lade_load_model_by_attr", self._self, _text(name), _text(base), _text(type), *more)
        return Model(self._lib, model)

    def close(self):
        self._lib.lade_close(ctypes.byref(self._self))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Model:
    """A loaded model, locked until `unlock` or the end of its `with` block."""

    def __init__(self, lib, model):
        self._lib, self._self, self._tensors = lib, model, None

    config = property(lambda self: json.loads(self._lib.lade_model_config(self._locked())))
    metadata = property(lambda self: json.loads(self._lib.lade_model_metadata(self._locked())))
    location = property(lambda self: self._lib.lade_model_location(self._locked()).decode())
    precision = property(lambda self: self._lib.lade_model_precision(self._locked()).decode())
    bytes = property(lambda self: self._lib.lade_model_bytes(self._locked()))

    def _locked(self):
        if not self._self:
            raise ValueError("the model is unlocked: its tensors are gone")
        return self._self

    @property
    def tensors(self):
        """{name: Tensor}, in the order of the files."""
        if self._tensors is None:
            self._tensors, one = {}, _Tensor()
            for index in range(self._lib.lade_model_tensor_count(self._locked())):
                self._lib.lade_model_tensor(self._self, index, ctypes.byref(one))
                self._tensors.setdefault(one.name.decode(), Tensor(self, one))
        return self._tensors

    def __getitem__(self, name):
        return self.tensors[name]

    def numpy(self, name):
        return self.tensors[name].numpy()

    def torch(self, name):
        return self.tensors[name].torch()

    def state_dict(self, numpy=False):
        return {name: tensor.numpy() if numpy else tensor.torch() for name, tensor in self.tensors.items()}

    def unlock(self):
        self._lib.lade_unlock(ctypes.byref(self._self))
        self._tensors = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.unlock()


# dtype: (DLPack's code, bits, numpy's name)
_DTYPES = {"BOOL": (6, 8, "bool"), "U8": (1, 8, "uint8"), "I8": (0, 8, "int8"), "I16": (0, 16, "int16"), "U16": (1, 16, "uint16"),
           "I32": (0, 32, "int32"), "U32": (1, 32, "uint32"), "I64": (0, 64, "int64"), "U64": (1, 64, "uint64"),
           "F16": (2, 16, "float16"), "F32": (2, 32, "float32"), "F64": (2, 64, "float64"), "BF16": (4, 16, None),
           "C64": (5, 64, "complex64"), "C128": (5, 128, "complex128")}


class Tensor:
    """name, dtype, shape, strides (in elements), address and size in bytes; views of it."""

    def __init__(self, model, one):
        self.name, self.dtype, self.model = one.name.decode(), one.dtype.decode(), model
        self.shape, self.strides = tuple(one.shape[:one.rank]), tuple(one.strides[:one.rank])
        self.address, self.size, self.device = one.data, one.size, -1
        if self.size and not self.address:  # on a device: made visible to this process here
            address, device = ctypes.c_uint64(), ctypes.c_int()
            _do(model._lib, "lade_model_address", model._locked(), one.name, ctypes.byref(address), ctypes.byref(device))
            self.address, self.device = address.value, device.value

    def raw(self):
        """Its bytes as they lie in memory, read-only."""
        self.model._locked()
        if self.device >= 0:
            raise ValueError(f"{self.name} is on a device: .torch(), or __dlpack__ for others, gives a view of it")
        return memoryview((ctypes.c_ubyte * self.size).from_address(self.address) if self.size else b"").cast("B").toreadonly()

    def numpy(self):
        """A read-only array. What numpy has no type for comes as its bits: BF16 as uint16, blocks and F8 as uint8."""
        import numpy
        name = _DTYPES.get(self.dtype, (0, 0, None))[2] or ("uint16" if self.dtype == "BF16" else "uint8")
        array = numpy.frombuffer(self.raw(), name)
        if self.dtype not in _DTYPES and self.size != _product(self.shape):
            return array  # blocks: their bytes in a row
        return numpy.lib.stride_tricks.as_strided(array, self.shape, [step * array.itemsize for step in self.strides],
                                                  writeable=False)

    def torch(self):
        """A tensor on the same memory. It is not to be written to: the memory is read-only."""
        import torch
        self.model._locked()
        name = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}.get(self.dtype)
        name = name or _DTYPES.get(self.dtype, (0, 0, None))[2] or "uint8"
        if not hasattr(torch, name):
            raise TypeError(f"this torch has no {name} for {self.name} ({self.dtype}): load it with dtype='fp16'")
        if not self.size:
            return torch.empty(self.shape, dtype=getattr(torch, name))
        if self.device >= 0:
            return torch.from_dlpack(self)  # on a device
        flat = torch.frombuffer((ctypes.c_ubyte * self.size).from_address(self.address), dtype=getattr(torch, name))
        if self.dtype not in _DTYPES and flat.numel() != _product(self.shape):
            return flat
        return torch.as_strided(flat, self.shape, self.strides)

    # DLPack: how arrays are handed from one library to another, also those on a device.

    def __dlpack_device__(self):
        return (2, self.device) if self.device >= 0 else (1, 0)

    def __dlpack__(self, stream=None, **_):
        self.model._locked()
        if self.dtype not in _DTYPES:
            raise BufferError(f"{self.name}: DLPack has no type for {self.dtype}")
        return _capsule(self, self.__dlpack_device__())


def _product(shape):
    product = 1
    for dimension in shape:
        product *= dimension
    return product


class _DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_held = {}  # what consumers of capsules look at, by the address of its _Managed


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(address):
    _held.pop(address, None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _drop(capsule):
    """Nobody took the capsule."""
    if ctypes.pythonapi.PyCapsule_IsValid(ctypes.c_void_p(capsule), b"dltensor"):
        _delete(ctypes.pythonapi.PyCapsule_GetPointer(ctypes.c_void_p(capsule), b"dltensor"))


def _capsule(tensor, device):
    code, bits, _ = _DTYPES[tensor.dtype]
    rank = len(tensor.shape)
    shape, strides = (ctypes.c_int64 * max(rank, 1))(*tensor.shape), (ctypes.c_int64 * max(rank, 1))(*tensor.strides)
    managed = _Managed(_DLTensor(tensor.address, *device, rank, code, bits, 1, shape, strides, 0), None,
                       ctypes.cast(_delete, ctypes.c_void_p))
    address = ctypes.addressof(managed)
    _held[address] = (managed, shape, strides, tensor)
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_New.restype = ctypes.py_object
    return api.PyCapsule_New(ctypes.c_void_p(address), b"dltensor", ctypes.cast(_drop, ctypes.c_void_p))
