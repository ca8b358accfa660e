// What a pickle may name and call: data, and what makes data. Everything else is a finding.
//
// A row has to be harmless with any arguments the pickle can give it, whatever it is combined with,
// or its role has to check them (pickle.c, s_args_are_fine). Classes of trainers are here if their
// instances are made from plain values alone; classes of models are not: torch would import the
// module that has them, and that is code the file chose.
#include "common/formats/pickle.h"

#include <string.h>

#define NAME(module, name)                                                                         \
    {                                                                                              \
        module, name, LADE_ROLE_NAME, 0                                                            \
    }
#define ROLE(module, name, role)                                                                   \
    {                                                                                              \
        module, name, LADE_ROLE_##role, 0                                                          \
    }
#define TYPE(module, name, role, dtype)                                                            \
    {                                                                                              \
        module, name, LADE_ROLE_##role, LADE_DTYPE_##dtype                                         \
    }

// Sorted by module and name: they are searched by halves.
static const lade_global_t s_globals[] = {
    // clang-format off
    ROLE("__builtin__", "bool", DATA),
    ROLE("__builtin__", "bytearray", DATA),
    ROLE("__builtin__", "bytes", DATA),
    ROLE("__builtin__", "complex", DATA),
    ROLE("__builtin__", "dict", DICT),
    ROLE("__builtin__", "float", DATA),
    ROLE("__builtin__", "frozenset", SET),
    ROLE("__builtin__", "getattr", GETATTR),
    ROLE("__builtin__", "int", DATA),
    ROLE("__builtin__", "list", LIST),
    ROLE("__builtin__", "long", DATA),
    ROLE("__builtin__", "object", DATA),
    ROLE("__builtin__", "range", DATA),
    ROLE("__builtin__", "set", SET),
    ROLE("__builtin__", "slice", DATA),
    ROLE("__builtin__", "str", DATA),
    ROLE("__builtin__", "tuple", LIST),
    ROLE("__builtin__", "unicode", DATA),
    ROLE("__builtin__", "xrange", DATA),

    ROLE("_codecs", "encode", ENCODE),

    ROLE("accelerate.state", "PartialState", INSTANCE),

    ROLE("accelerate.utils.dataclasses", "DistributedType", DATA),

    ROLE("argparse", "Namespace", DATA),

    ROLE("builtins", "bool", DATA),
    ROLE("builtins", "bytearray", DATA),
    ROLE("builtins", "bytes", DATA),
    ROLE("builtins", "complex", DATA),
    ROLE("builtins", "dict", DICT),
    ROLE("builtins", "float", DATA),
    ROLE("builtins", "frozenset", SET),
    ROLE("builtins", "getattr", GETATTR),
    ROLE("builtins", "int", DATA),
    ROLE("builtins", "list", LIST),
    ROLE("builtins", "object", DATA),
    ROLE("builtins", "range", DATA),
    ROLE("builtins", "set", SET),
    ROLE("builtins", "slice", DATA),
    ROLE("builtins", "str", DATA),
    ROLE("builtins", "tuple", LIST),

    ROLE("collections", "Counter", DICT),
    ROLE("collections", "OrderedDict", DICT),
    ROLE("collections", "defaultdict", FACTORY),
    ROLE("collections", "deque", LIST),

    ROLE("copy_reg", "__newobj__", NEWOBJ),
    ROLE("copy_reg", "__newobj_ex__", NEWOBJ),
    ROLE("copy_reg", "_reconstructor", NEWOBJ),

    ROLE("copyreg", "__newobj__", NEWOBJ),
    ROLE("copyreg", "__newobj_ex__", NEWOBJ),
    ROLE("copyreg", "_reconstructor", NEWOBJ),

    ROLE("datetime", "date", DATA),
    ROLE("datetime", "datetime", DATA),
    ROLE("datetime", "time", DATA),
    ROLE("datetime", "timedelta", DATA),
    ROLE("datetime", "timezone", DATA),

    ROLE("decimal", "Decimal", DATA),

    ROLE("fractions", "Fraction", DATA),

    ROLE("lightning.fabric.utilities.data", "AttributeDict", DATA),

    NAME("lightning.pytorch.callbacks.early_stopping", "EarlyStopping"),

    NAME("lightning.pytorch.callbacks.lr_monitor", "LearningRateMonitor"),

    NAME("lightning.pytorch.callbacks.model_checkpoint", "ModelCheckpoint"),

    NAME("lightning.pytorch.callbacks.timer", "Timer"),

    ROLE("lightning.pytorch.utilities.parsing", "AttributeDict", DATA),

    ROLE("lightning_fabric.utilities.data", "AttributeDict", DATA),

    ROLE("numpy", "bool", DATA),
    ROLE("numpy", "bool_", DATA),
    ROLE("numpy", "bytes_", DATA),
    ROLE("numpy", "complex128", DATA),
    ROLE("numpy", "complex64", DATA),
    ROLE("numpy", "dtype", NUMPY_DTYPE),
    ROLE("numpy", "float16", DATA),
    ROLE("numpy", "float32", DATA),
    ROLE("numpy", "float64", DATA),
    ROLE("numpy", "int16", DATA),
    ROLE("numpy", "int32", DATA),
    ROLE("numpy", "int64", DATA),
    ROLE("numpy", "int8", DATA),
    ROLE("numpy", "intc", DATA),
    ROLE("numpy", "longlong", DATA),
    NAME("numpy", "ndarray"),
    ROLE("numpy", "str_", DATA),
    ROLE("numpy", "uint16", DATA),
    ROLE("numpy", "uint32", DATA),
    ROLE("numpy", "uint64", DATA),
    ROLE("numpy", "uint8", DATA),
    ROLE("numpy", "uintc", DATA),
    ROLE("numpy", "ulonglong", DATA),

    ROLE("numpy._core.multiarray", "_reconstruct", NUMPY_ARRAY),
    ROLE("numpy._core.multiarray", "scalar", NUMPY_SCALAR),

    ROLE("numpy._core.numeric", "_frombuffer", NUMPY_BUFFER),

    ROLE("numpy.core.multiarray", "_reconstruct", NUMPY_ARRAY),
    ROLE("numpy.core.multiarray", "scalar", NUMPY_SCALAR),

    ROLE("numpy.core.numeric", "_frombuffer", NUMPY_BUFFER),

    ROLE("numpy.dtypes", "BoolDType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "BytesDType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Complex128DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Complex64DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Float16DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Float32DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Float64DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Int16DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Int32DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Int64DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "Int8DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "LongLongDType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "ObjectDType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "StrDType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "UInt16DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "UInt32DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "UInt64DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "UInt8DType", NUMPY_DTYPE),
    ROLE("numpy.dtypes", "ULongLongDType", NUMPY_DTYPE),

    ROLE("omegaconf.base", "ContainerMetadata", DATA),
    ROLE("omegaconf.base", "Metadata", DATA),

    ROLE("omegaconf.dictconfig", "DictConfig", DATA),

    ROLE("omegaconf.listconfig", "ListConfig", DATA),

    ROLE("omegaconf.nodes", "AnyNode", DATA),
    ROLE("omegaconf.nodes", "BooleanNode", DATA),
    ROLE("omegaconf.nodes", "BytesNode", DATA),
    ROLE("omegaconf.nodes", "FloatNode", DATA),
    ROLE("omegaconf.nodes", "IntegerNode", DATA),
    ROLE("omegaconf.nodes", "PathNode", DATA),
    ROLE("omegaconf.nodes", "StringNode", DATA),

    ROLE("pathlib", "Path", DATA),
    ROLE("pathlib", "PosixPath", DATA),
    ROLE("pathlib", "PurePath", DATA),
    ROLE("pathlib", "PurePosixPath", DATA),
    ROLE("pathlib", "PureWindowsPath", DATA),
    ROLE("pathlib", "WindowsPath", DATA),

    ROLE("pathlib._local", "Path", DATA),
    ROLE("pathlib._local", "PosixPath", DATA),
    ROLE("pathlib._local", "PurePath", DATA),
    ROLE("pathlib._local", "PurePosixPath", DATA),
    ROLE("pathlib._local", "PureWindowsPath", DATA),
    ROLE("pathlib._local", "WindowsPath", DATA),

    NAME("pytorch_lightning.callbacks", "EarlyStopping"),
    NAME("pytorch_lightning.callbacks", "ModelCheckpoint"),

    NAME("pytorch_lightning.callbacks.early_stopping", "EarlyStopping"),

    NAME("pytorch_lightning.callbacks.lr_monitor", "LearningRateMonitor"),

    NAME("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),

    NAME("pytorch_lightning.callbacks.timer", "Timer"),

    ROLE("pytorch_lightning.utilities.parsing", "AttributeDict", DATA),

    TYPE("torch", "BFloat16Storage", STORAGE, BF16),
    NAME("torch", "BFloat16Tensor"),
    TYPE("torch", "BoolStorage", STORAGE, BOOL),
    NAME("torch", "BoolTensor"),
    TYPE("torch", "ByteStorage", STORAGE, U8),
    NAME("torch", "ByteTensor"),
    TYPE("torch", "CharStorage", STORAGE, I8),
    NAME("torch", "CharTensor"),
    TYPE("torch", "ComplexDoubleStorage", STORAGE, C128),
    NAME("torch", "ComplexDoubleTensor"),
    TYPE("torch", "ComplexFloatStorage", STORAGE, C64),
    NAME("torch", "ComplexFloatTensor"),
    TYPE("torch", "DoubleStorage", STORAGE, F64),
    NAME("torch", "DoubleTensor"),
    TYPE("torch", "FloatStorage", STORAGE, F32),
    NAME("torch", "FloatTensor"),
    ROLE("torch", "Generator", DATA),
    TYPE("torch", "HalfStorage", STORAGE, F16),
    NAME("torch", "HalfTensor"),
    TYPE("torch", "IntStorage", STORAGE, I32),
    NAME("torch", "IntTensor"),
    TYPE("torch", "LongStorage", STORAGE, I64),
    NAME("torch", "LongTensor"),
    TYPE("torch", "QInt32Storage", STORAGE, QI32),
    NAME("torch", "QInt32Tensor"),
    TYPE("torch", "QInt8Storage", STORAGE, QI8),
    NAME("torch", "QInt8Tensor"),
    TYPE("torch", "QUInt2x4Storage", STORAGE, U2),
    NAME("torch", "QUInt2x4Tensor"),
    TYPE("torch", "QUInt4x2Storage", STORAGE, U4),
    NAME("torch", "QUInt4x2Tensor"),
    TYPE("torch", "QUInt8Storage", STORAGE, QU8),
    NAME("torch", "QUInt8Tensor"),
    TYPE("torch", "ShortStorage", STORAGE, I16),
    NAME("torch", "ShortTensor"),
    ROLE("torch", "Size", DATA),
    NAME("torch", "Tensor"),
    TYPE("torch", "TypedStorage", STORAGE, U8),
    TYPE("torch", "UntypedStorage", STORAGE, U8),
    TYPE("torch", "bfloat16", DTYPE, BF16),
    TYPE("torch", "bool", DTYPE, BOOL),
    TYPE("torch", "cdouble", DTYPE, C128),
    TYPE("torch", "cfloat", DTYPE, C64),
    TYPE("torch", "chalf", DTYPE, C32),
    NAME("torch", "channels_last"),
    NAME("torch", "channels_last_3d"),
    TYPE("torch", "complex128", DTYPE, C128),
    TYPE("torch", "complex32", DTYPE, C32),
    TYPE("torch", "complex64", DTYPE, C64),
    NAME("torch", "contiguous_format"),
    ROLE("torch", "device", DATA),
    TYPE("torch", "double", DTYPE, F64),
    TYPE("torch", "float", DTYPE, F32),
    TYPE("torch", "float16", DTYPE, F16),
    TYPE("torch", "float32", DTYPE, F32),
    TYPE("torch", "float4_e2m1fn_x2", DTYPE, F4),
    TYPE("torch", "float64", DTYPE, F64),
    TYPE("torch", "float8_e4m3fn", DTYPE, F8_E4M3),
    TYPE("torch", "float8_e4m3fnuz", DTYPE, F8_E4M3FNUZ),
    TYPE("torch", "float8_e5m2", DTYPE, F8_E5M2),
    TYPE("torch", "float8_e5m2fnuz", DTYPE, F8_E5M2FNUZ),
    TYPE("torch", "float8_e8m0fnu", DTYPE, F8_E8M0),
    TYPE("torch", "half", DTYPE, F16),
    TYPE("torch", "int", DTYPE, I32),
    TYPE("torch", "int16", DTYPE, I16),
    TYPE("torch", "int32", DTYPE, I32),
    TYPE("torch", "int64", DTYPE, I64),
    TYPE("torch", "int8", DTYPE, I8),
    TYPE("torch", "long", DTYPE, I64),
    NAME("torch", "per_channel_affine"),
    NAME("torch", "per_channel_affine_float_qparams"),
    NAME("torch", "per_channel_symmetric"),
    NAME("torch", "per_tensor_affine"),
    NAME("torch", "per_tensor_symmetric"),
    NAME("torch", "preserve_format"),
    TYPE("torch", "qint32", DTYPE, QI32),
    TYPE("torch", "qint8", DTYPE, QI8),
    TYPE("torch", "quint2x4", DTYPE, U2),
    TYPE("torch", "quint4x2", DTYPE, U4),
    TYPE("torch", "quint8", DTYPE, QU8),
    TYPE("torch", "short", DTYPE, I16),
    NAME("torch", "sparse_bsc"),
    NAME("torch", "sparse_bsr"),
    NAME("torch", "sparse_coo"),
    NAME("torch", "sparse_csc"),
    NAME("torch", "sparse_csr"),
    NAME("torch", "strided"),
    TYPE("torch", "uint1", DTYPE, U1),
    TYPE("torch", "uint16", DTYPE, U16),
    TYPE("torch", "uint2", DTYPE, U2),
    TYPE("torch", "uint32", DTYPE, U32),
    TYPE("torch", "uint4", DTYPE, U4),
    TYPE("torch", "uint64", DTYPE, U64),
    TYPE("torch", "uint8", DTYPE, U8),

    ROLE("torch._tensor", "_rebuild_from_type", FROM_TYPE),
    ROLE("torch._tensor", "_rebuild_from_type_v2", FROM_TYPE),

    ROLE("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", PARAMETER),
    ROLE("torch._utils", "_rebuild_device_tensor_from_numpy", FROM_NUMPY),
    ROLE("torch._utils", "_rebuild_meta_tensor_no_storage", META),
    ROLE("torch._utils", "_rebuild_mlc_tensor", FROM_NUMPY),
    ROLE("torch._utils", "_rebuild_nested_tensor", DATA),
    ROLE("torch._utils", "_rebuild_parameter", PARAMETER),
    ROLE("torch._utils", "_rebuild_parameter_with_state", PARAMETER),
    ROLE("torch._utils", "_rebuild_qtensor", QTENSOR),
    ROLE("torch._utils", "_rebuild_sparse_csr_tensor", SPARSE),
    ROLE("torch._utils", "_rebuild_sparse_tensor", SPARSE),
    ROLE("torch._utils", "_rebuild_tensor", TENSOR),
    ROLE("torch._utils", "_rebuild_tensor_v2", TENSOR),
    ROLE("torch._utils", "_rebuild_tensor_v3", TENSOR_V3),
    ROLE("torch._utils", "_rebuild_xla_tensor", FROM_NUMPY),

    TYPE("torch.cuda", "BFloat16Storage", STORAGE, BF16),
    NAME("torch.cuda", "BFloat16Tensor"),
    TYPE("torch.cuda", "BoolStorage", STORAGE, BOOL),
    NAME("torch.cuda", "BoolTensor"),
    TYPE("torch.cuda", "ByteStorage", STORAGE, U8),
    NAME("torch.cuda", "ByteTensor"),
    TYPE("torch.cuda", "CharStorage", STORAGE, I8),
    NAME("torch.cuda", "CharTensor"),
    TYPE("torch.cuda", "ComplexDoubleStorage", STORAGE, C128),
    NAME("torch.cuda", "ComplexDoubleTensor"),
    TYPE("torch.cuda", "ComplexFloatStorage", STORAGE, C64),
    NAME("torch.cuda", "ComplexFloatTensor"),
    TYPE("torch.cuda", "DoubleStorage", STORAGE, F64),
    NAME("torch.cuda", "DoubleTensor"),
    TYPE("torch.cuda", "FloatStorage", STORAGE, F32),
    NAME("torch.cuda", "FloatTensor"),
    TYPE("torch.cuda", "HalfStorage", STORAGE, F16),
    NAME("torch.cuda", "HalfTensor"),
    TYPE("torch.cuda", "IntStorage", STORAGE, I32),
    NAME("torch.cuda", "IntTensor"),
    TYPE("torch.cuda", "LongStorage", STORAGE, I64),
    NAME("torch.cuda", "LongTensor"),
    TYPE("torch.cuda", "ShortStorage", STORAGE, I16),
    NAME("torch.cuda", "ShortTensor"),

    ROLE("torch.nn.modules.container", "ParameterDict", MODULE),
    ROLE("torch.nn.modules.container", "ParameterList", MODULE),

    NAME("torch.nn.parameter", "Buffer"),
    NAME("torch.nn.parameter", "Parameter"),
    NAME("torch.nn.parameter", "UninitializedParameter"),

    ROLE("torch.optim.adadelta", "Adadelta", DATA),
    ROLE("torch.optim.adagrad", "Adagrad", DATA),
    ROLE("torch.optim.adam", "Adam", DATA),
    ROLE("torch.optim.adamax", "Adamax", DATA),
    ROLE("torch.optim.adamw", "AdamW", DATA),
    ROLE("torch.optim.asgd", "ASGD", DATA),
    ROLE("torch.optim.lbfgs", "LBFGS", DATA),

    ROLE("torch.optim.lr_scheduler", "OneCycleLR", DATA),
    NAME("torch.optim.lr_scheduler", "OneCycleLR._annealing_cos"),
    NAME("torch.optim.lr_scheduler", "OneCycleLR._annealing_linear"),

    ROLE("torch.optim.nadam", "NAdam", DATA),
    ROLE("torch.optim.radam", "RAdam", DATA),
    ROLE("torch.optim.rmsprop", "RMSprop", DATA),
    ROLE("torch.optim.rprop", "Rprop", DATA),
    ROLE("torch.optim.sgd", "SGD", DATA),
    ROLE("torch.optim.sparse_adam", "SparseAdam", DATA),

    ROLE("torch.serialization", "_get_layout", DATA),

    TYPE("torch.storage", "TypedStorage", STORAGE, U8),
    TYPE("torch.storage", "UntypedStorage", STORAGE, U8),
    TYPE("torch.storage", "_TypedStorage", STORAGE, U8),
    TYPE("torch.storage", "_UntypedStorage", STORAGE, U8),
    ROLE("torch.storage", "_load_from_bytes", FROM_BYTES),

    ROLE("transformers.trainer_pt_utils", "AcceleratorConfig", INSTANCE),

    ROLE("transformers.trainer_utils", "EvaluationStrategy", DATA),
    ROLE("transformers.trainer_utils", "FSDPOption", DATA),
    ROLE("transformers.trainer_utils", "HubStrategy", DATA),
    ROLE("transformers.trainer_utils", "IntervalStrategy", DATA),
    ROLE("transformers.trainer_utils", "SaveStrategy", DATA),
    ROLE("transformers.trainer_utils", "SchedulerType", DATA),

    ROLE("transformers.training_args", "OptimizerNames", DATA),
    ROLE("transformers.training_args", "ParallelMode", DATA),
    ROLE("transformers.training_args", "TrainingArguments", INSTANCE),

    ROLE("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments", INSTANCE),

    ROLE("types", "SimpleNamespace", DATA),

    NAME("typing", "Any"),

    ROLE("uuid", "UUID", DATA),
    // clang-format on
};

const lade_global_t *
lade_pickle_globals(size_t *count_p)
{
    *count_p = sizeof s_globals / sizeof *s_globals;
    return s_globals;
}

static int
s_compare(const char *text, size_t len, const char *with)
{
    size_t n = strlen(with);
    int order = memcmp(text, with, len < n ? len : n);
    return order ? order : len < n ? -1 : len > n;
}

const lade_global_t *
lade_pickle_global(const char *module, size_t module_len, const char *name, size_t name_len)
{
    for (size_t low = 0, high = sizeof s_globals / sizeof *s_globals; low < high;) {
        size_t middle = (low + high) / 2;
        int order = s_compare(module, module_len, s_globals[middle].module);
        order = order ? order : s_compare(name, name_len, s_globals[middle].name);
        if (order == 0)
            return &s_globals[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
