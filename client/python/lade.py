"""Models of lade in Python: loaded once a machine, seen by every process, not copied.

    import lade
    with lade.Client() as client:
        with client.load(name="sdxl-turbo", base="sdxl", type="main", submodel="unet", dtype="fp16") as unet:
            weight = unet.torch("conv_in.weight")          # a torch tensor on the shared memory
            state = unet.state_dict()                      # all of them; numpy arrays with numpy=True
            config = open(unet.path + "/config.json")      # what is beside the weights

Tensors are views of memory that other processes use too: read them, copy (`.clone()`, `.copy()`) what you want to
change. Writing to a torch tensor of them ends the process, as torch knows no read-only ones. The model stays locked until
the end of the `with` block, and beyond it as long as a view is left. Needs the library liblade.so.0 (LADE_LIBRARY names
another); numpy and torch only if their views are asked for.
"""
import ctypes
import functools
import json
import os

_Progress = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_U64x8 = ctypes.c_uint64 * 8


class _Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 512)]


class _Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("rank", ctypes.c_uint8), ("shape", _U64x8),
                ("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("strides", _U64x8)]


class _Options(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_char_p) for name in ("submodel", "dtype", "layout", "device", "allow_unsafe", "context")),
                ("timeout_s", ctypes.c_double), ("progress", _Progress), ("arg", ctypes.c_void_p)]


class LadeError(Exception):
    """What lade refused: `code` is its name on the wire ("UnknownModel", "no_memory", ...)."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


@functools.lru_cache(None)
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
            ("lade_model_path", text, [pointer]),
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
    """A connection to lade's broker; one thread at a time uses it. Models outlive it."""

    def __init__(self, config_file=None, data=None, broker=None):
        self._self, self._lib = ctypes.c_void_p(), _library()
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
             submodel=None, dtype=None, layout=None, device=None, allow_unsafe=None, context=None, timeout_s=0, progress=None):
        """Loads and locks a model: by key, by config (a record), by name, base and type; or what has no record: a path, or
        a source that is fetched into the cache of files. progress(bytes, total_bytes) is told how far it is."""
        if sum(value is not None for value in (key, config, name, path, source)) != 1:
            raise TypeError("one of key, config, name, path and source says what to load")
        raised = []

        def told(_, done, total):  # nothing may be raised through the library; Ctrl-C is seen here too
            try:
                if progress:
                    progress(done, total)
            except BaseException as error:
                raised.append(error)
            return not raised

        options = _Options(*(_text(value) for value in (submodel, dtype, layout, device, allow_unsafe)),
                           None if context is None else json.dumps(context).encode(), timeout_s, _Progress(told))
        model = ctypes.c_void_p()
        more = (ctypes.byref(options), ctypes.byref(model))
        try:
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
        except LadeError:
            if raised:
                raise raised[0] from None
            raise
        return Model(self._lib, model)

    def close(self):
        self._lib.lade_close(ctypes.byref(self._self))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Hold:
    """What keeps a model locked: its Model has it, and so has each view. The last one to go unlocks."""

    def __init__(self, lib, handle):
        self.lib, self.handle = lib, handle

    def __del__(self, byref=ctypes.byref):
        self.lib.lade_unlock(byref(self.handle))


class Model:
    """A loaded model, locked until `unlock`, the end of its `with` block, or until nothing refers to it any more; and in
    any case while a view of one of its tensors is left."""

    def __init__(self, lib, handle):
        self._lib, self._hold, self._all = lib, _Hold(lib, handle), None

    config = property(lambda self: json.loads(self._lib.lade_model_config(self._handle())))
    metadata = property(lambda self: json.loads(self._lib.lade_model_metadata(self._handle())))
    path = property(lambda self: os.fsdecode(self._lib.lade_model_path(self._handle())))
    location = property(lambda self: self._lib.lade_model_location(self._handle()).decode())
    precision = property(lambda self: self._lib.lade_model_precision(self._handle()).decode())
    bytes = property(lambda self: self._lib.lade_model_bytes(self._handle()))

    def _held(self):
        if not self._hold:
            raise ValueError("the model is unlocked: its tensors are gone")
        return self._hold

    def _handle(self):
        return self._held().handle

    def _infos(self):
        """{name: what a _Tensor says}, in the order of the files."""
        if self._all is None:
            self._all, one = {}, _Tensor()
            for index in range(self._lib.lade_model_tensor_count(self._handle())):
                self._lib.lade_model_tensor(self._handle(), index, ctypes.byref(one))
                self._all.setdefault(one.name.decode(errors="surrogateescape"), (
                    one.dtype.decode(), tuple(one.shape[:one.rank]), tuple(one.strides[:one.rank]), one.data, one.size))
        return self._all

    @property
    def tensors(self):
        """{name: Tensor}, in the order of the files."""
        return {name: Tensor(self, name, *info) for name, info in self._infos().items()}

    def __getitem__(self, name):
        return Tensor(self, name, *self._infos()[name])

    def __iter__(self):
        return iter(self._infos())

    def __contains__(self, name):
        return name in self._infos()

    def __len__(self):
        return len(self._infos())

    keys = __iter__

    def numpy(self, name):
        return self[name].numpy()

    def torch(self, name):
        return self[name].torch()

    def state_dict(self, numpy=False):
        return {name: tensor.numpy() if numpy else tensor.torch() for name, tensor in self.tensors.items()}

    def unlock(self):
        self._hold = self._all = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.unlock()

    def __repr__(self):
        if not self._hold:
            return "<lade.Model, unlocked>"
        return f"<lade.Model {self.path}: {len(self)} tensors, {self.bytes} bytes of {self.precision}, {self.location} memory>"


# dtype: (DLPack's code, bits, numpy's name, torch's name)
_DTYPES = {"BOOL": (6, 8, "bool", "bool"), "U8": (1, 8, "uint8", "uint8"), "I8": (0, 8, "int8", "int8"),
           "I16": (0, 16, "int16", "int16"), "U16": (1, 16, "uint16", "uint16"), "I32": (0, 32, "int32", "int32"),
           "U32": (1, 32, "uint32", "uint32"), "I64": (0, 64, "int64", "int64"), "U64": (1, 64, "uint64", "uint64"),
           "F16": (2, 16, "float16", "float16"), "F32": (2, 32, "float32", "float32"), "F64": (2, 64, "float64", "float64"),
           "BF16": (4, 16, "uint16", "bfloat16"), "C64": (5, 64, "complex64", "complex64"),
           "C128": (5, 128, "complex128", "complex128"), "F8_E4M3": (10, 8, "uint8", "float8_e4m3fn"),
           "F8_E5M2": (12, 8, "uint8", "float8_e5m2")}
_BYTES = (1, 8, "uint8", "uint8")  # what no library has a type for


class Tensor:
    """name, dtype, shape, strides (in elements), address and size in bytes; views of it."""

    def __init__(self, model, name, dtype, shape, strides, address, size):
        self.name, self.dtype, self.shape, self.strides, self.size, self.model = name, dtype, shape, strides, size, model
        self._place = (address, -1) if address or not size else None

    def _where(self):
        """(address, number of the device or -1); what is on a device is made visible to this process first."""
        if self._place is None:
            address, device = ctypes.c_uint64(), ctypes.c_int()
            _do(self.model._lib, "lade_model_address", self.model._handle(), self.name.encode(errors="surrogateescape"),
                ctypes.byref(address), ctypes.byref(device))
            self._place = (address.value, device.value)
        return self._place

    address = property(lambda self: self._where()[0])
    device = property(lambda self: self._where()[1])

    def _is_array(self):
        """Whether it has elements in places, which blocks do not."""
        return self.dtype in _DTYPES or self.size == _product(self.shape)

    def _memory(self):
        """Its bytes, by something that keeps the model locked."""
        memory = (ctypes.c_ubyte * self.size).from_address(self.address)
        memory.hold = self.model._held()
        return memory

    def raw(self):
        """Its bytes as they lie in memory, read-only."""
        self.model._held()
        if self.device >= 0:
            raise ValueError(f"{self.name} is on a device: .torch(), or __dlpack__ for others, gives a view of it")
        return memoryview(self._memory() if self.size else b"").cast("B").toreadonly()

    def numpy(self):
        """A read-only array. What numpy has no type for comes as its bits: BF16 as uint16, blocks and F8 as uint8."""
        import numpy
        array = numpy.frombuffer(self.raw(), _DTYPES.get(self.dtype, _BYTES)[2])
        if not self._is_array():
            return array  # blocks: their bytes in a row
        return numpy.lib.stride_tricks.as_strided(array, self.shape, [step * array.itemsize for step in self.strides],
                                                  writeable=False)

    def torch(self):
        """A tensor on the same memory. It is not to be written to: the memory is read-only."""
        import torch
        self.model._held()
        name = _DTYPES.get(self.dtype, _BYTES)[3]
        if not hasattr(torch, name):
            how = "load it with dtype='fp16'" if self.dtype.startswith(("F", "BF")) else ".numpy() has it"
            raise TypeError(f"this torch has no {name} for {self.name} ({self.dtype}): {how}")
        dtype = getattr(torch, name)
        if not self.size:
            return torch.empty(self.shape, dtype=dtype)
        if self.device >= 0:  # by the bits of those types that not every torch takes from others
            flat = torch.from_dlpack(_Bytes(self)).view(dtype)
        else:
            flat = torch.frombuffer(self._memory(), dtype=dtype)
        return torch.as_strided(flat, self.shape, self.strides) if self._is_array() else flat

    def __repr__(self):
        return f"<lade.Tensor {self.name} {self.dtype} {list(self.shape)}>"

    # DLPack: how arrays are handed from one library to another, also those on a device.

    def __dlpack_device__(self):
        return (2, self.device) if self.device >= 0 else (1, 0)

    def __dlpack__(self, stream=None, *, max_version=None, dl_device=None, copy=None):
        """A view; the consumer's next use of the data may be on any stream, as nothing is under way. It is marked
        read-only where the consumer knows that mark (max_version 1.0 and later)."""
        version = min(tuple(max_version or (0, 0)), (1, 1))
        code, bits, _, _ = _DTYPES.get(self.dtype, (None, 0, None, None))
        if code is None or code > 6 and version < (1, 1):
            raise BufferError(f"{self.name}: DLPack has no type for {self.dtype}; .raw(), .numpy() and .torch() have it")
        if copy or dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"{self.name} is shared where it is: copy the view of it")
        return _capsule(self, code, bits, self.shape, self.strides, version)


class _Bytes:
    """The same memory as a row of bytes."""

    def __init__(self, tensor):
        self._tensor, self.__dlpack_device__ = tensor, tensor.__dlpack_device__

    def __dlpack__(self, *_, **__):
        return _capsule(self._tensor, 1, 8, (self._tensor.size,), (1,), (0, 0))


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


class _Versioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
                ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _DLTensor)]


_api = ctypes.PyDLL(None)  # not ctypes.pythonapi: what others declare there would be declared for us too
_api.PyCapsule_New.restype, _api.PyCapsule_GetPointer.restype = ctypes.py_object, ctypes.c_void_p
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_GetPointer.argtypes = _api.PyCapsule_IsValid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_READ_ONLY = 1
_NAMES = (b"dltensor", b"dltensor_versioned")
_viewed = {}  # what consumers of capsules look at, by the address of its _Managed or _Versioned


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(address):
    _viewed.pop(address, None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _drop(capsule):
    """Nobody took the capsule."""
    for name in _NAMES:
        if _api.PyCapsule_IsValid(capsule, name):
            _delete(_api.PyCapsule_GetPointer(capsule, name))


def _capsule(tensor, code, bits, shape, strides, version):
    hold, rank = tensor.model._held(), len(shape)
    shape, strides = (ctypes.c_int64 * max(rank, 1))(*shape), (ctypes.c_int64 * max(rank, 1))(*strides)
    seen = _DLTensor(tensor.address, *tensor.__dlpack_device__(), rank, code, bits, 1, shape, strides, 0)
    delete = ctypes.cast(_delete, ctypes.c_void_p)
    managed = _Versioned(*version, None, delete, _READ_ONLY, seen) if version >= (1, 0) else _Managed(seen, None, delete)
    address = ctypes.addressof(managed)
    _viewed[address] = (managed, shape, strides, hold)
    return _api.PyCapsule_New(address, _NAMES[version >= (1, 0)], ctypes.cast(_drop, ctypes.c_void_p))
