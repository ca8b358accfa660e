// The check of a weight with channels last: cuDNN convolves one small input with the weight as
// stored and with the one in the block, each in its own layout, and the results have to agree.
// cuDNN is bound at run time: it is large, and only asked for when a check is.
#include "workers/gpu/cuda/device_cuda.h"
#include "workers/gpu/cuda/kernels_cuda.h"

#if __has_include(<cudnn.h>)
#include <cudnn.h>
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define S_CALLS(X)                                                                                 \
    X(cudnnCreate)                                                                                 \
    X(cudnnSetStream)                                                                              \
    X(cudnnDestroy)                                                                                \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnCreateTensorDescriptor)                                                                 \
    X(cudnnDestroyTensorDescriptor)                                                                \
    X(cudnnSetTensor4dDescriptor)                                                                  \
    X(cudnnCreateFilterDescriptor)                                                                 \
    X(cudnnDestroyFilterDescriptor)                                                                \
    X(cudnnSetFilter4dDescriptor)                                                                  \
    X(cudnnCreateConvolutionDescriptor)                                                            \
    X(cudnnDestroyConvolutionDescriptor)                                                           \
    X(cudnnSetConvolution2dDescriptor)                                                             \
    X(cudnnSetConvolutionMathType)                                                                 \
    X(cudnnGetConvolutionForwardAlgorithm_v7)                                                      \
    X(cudnnConvolutionForward)

#define S_MEMBER(call) __typeof__(call) *call##_p;
static struct {
    S_CALLS(S_MEMBER)
} s_dnn;
static pthread_once_t s_once = PTHREAD_ONCE_INIT;
static lade_error_t s_error; // why there is none

enum { S_ALGORITHMS = 10, S_WORKSPACE = 64 << 20 };

static void
s_bind(void)
{
    void *object = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        lade_error_set(&s_error, LADE_NOT_IMPLEMENTED, "cuDNN 9 is not installed: %s", dlerror());
        return;
    }
#define S_BIND(call)                                                                               \
    *(void **)&s_dnn.call##_p = dlsym(object, #call);                                              \
    if (!s_dnn.call##_p) {                                                                         \
        lade_error_set(&s_error, LADE_NOT_IMPLEMENTED, "cuDNN has no %s", #call);                  \
        return;                                                                                    \
    }
    S_CALLS(S_BIND)
}

typedef struct {
    lade_cuda_device_t *device;
    const lade_move_t *move;
    cudaStream_t stream;
    cudnnHandle_t handle;
    void *weight, *input, *input_last, *output, *workspace, *wide; // on the device
    float *is, *was;
} s_check_t;

static cudnnDataType_t
s_type(lade_dtype_t dtype)
{
    return dtype == LADE_DTYPE_F32   ? CUDNN_DATA_FLOAT
           : dtype == LADE_DTYPE_F16 ? CUDNN_DATA_HALF
                                     : CUDNN_DATA_BFLOAT16;
}

static lade_code_t
s_failed(cudnnStatus_t status, lade_error_t *error)
{
    return lade_error_set(
        error, status == CUDNN_STATUS_NOT_SUPPORTED ? LADE_NOT_IMPLEMENTED : LADE_IO_ERROR,
        "cuDNN: %s", s_dnn.cudnnGetErrorString_p(status));
}

typedef struct {
    cudnnTensorDescriptor_t input, output;
    cudnnFilterDescriptor_t filter;
    cudnnConvolutionDescriptor_t convolution;
} s_shapes_t;

static cudnnStatus_t
s_describe(const s_check_t *self, cudnnTensorFormat_t format, s_shapes_t *shapes)
{
    const uint32_t *shape = self->move->shape;
    cudnnDataType_t type = s_type(self->move->out);
    int k = (int)shape[0], c = (int)shape[1], h = (int)shape[2], w = (int)shape[3];
    cudnnStatus_t status = s_dnn.cudnnCreateTensorDescriptor_p(&shapes->input);
    if (!status)
        status = s_dnn.cudnnCreateTensorDescriptor_p(&shapes->output);
    if (!status)
        status = s_dnn.cudnnCreateFilterDescriptor_p(&shapes->filter);
    if (!status)
        status = s_dnn.cudnnCreateConvolutionDescriptor_p(&shapes->convolution);
    if (!status)
        status = s_dnn.cudnnSetTensor4dDescriptor_p(shapes->input, format, type, 1, c, h, w);
    if (!status)
        status = s_dnn.cudnnSetTensor4dDescriptor_p(shapes->output, format, type, 1, k, 1, 1);
    if (!status)
        status = s_dnn.cudnnSetFilter4dDescriptor_p(shapes->filter, type, format, k, c, h, w);
    if (!status)
        status = s_dnn.cudnnSetConvolution2dDescriptor_p(shapes->convolution, 0, 0, 1, 1, 1, 1,
                                                         CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
    if (!status)
        status = s_dnn.cudnnSetConvolutionMathType_p(
            shapes->convolution,
            self->move->out == LADE_DTYPE_F32 ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH);
    return status;
}

static void
s_forget(s_shapes_t *shapes)
{
    if (shapes->convolution)
        s_dnn.cudnnDestroyConvolutionDescriptor_p(shapes->convolution);
    if (shapes->filter)
        s_dnn.cudnnDestroyFilterDescriptor_p(shapes->filter);
    if (shapes->output)
        s_dnn.cudnnDestroyTensorDescriptor_p(shapes->output);
    if (shapes->input)
        s_dnn.cudnnDestroyTensorDescriptor_p(shapes->input);
}

// The first of cuDNN's ways that works and needs little memory.
static cudnnStatus_t
s_forward(s_check_t *self, const s_shapes_t *shapes, const void *input, const void *weight)
{
    cudnnConvolutionFwdAlgoPerf_t ways[S_ALGORITHMS];
    int count = 0;
    const float one = 1, zero = 0;
    cudnnStatus_t status = s_dnn.cudnnGetConvolutionForwardAlgorithm_v7_p(
        self->handle, shapes->input, shapes->filter, shapes->convolution, shapes->output,
        S_ALGORITHMS, &count, ways);
    if (status)
        return status;
    status = CUDNN_STATUS_NOT_SUPPORTED;
    for (int i = 0; status && i < count; i++)
        if (!ways[i].status && ways[i].memory <= S_WORKSPACE)
            status = s_dnn.cudnnConvolutionForward_p(self->handle, &one, shapes->input, input,
                                                     shapes->filter, weight, shapes->convolution,
                                                     ways[i].algo, self->workspace, S_WORKSPACE,
                                                     &zero, shapes->output, self->output);
    return status;
}

// One convolution; its results, one a filter, come back as floats.
static lade_code_t
s_convolve(s_check_t *self, cudnnTensorFormat_t format, const void *input, const void *weight,
           float *results, lade_error_t *error)
{
    s_shapes_t shapes = {0};
    cudnnStatus_t status = s_describe(self, format, &shapes);
    if (!status)
        status = s_forward(self, &shapes, input, weight);
    s_forget(&shapes);
    if (status)
        return s_failed(status, error);
    uint32_t count = self->move->shape[0];
    cudaError_t result = lade_cuda_cast(self->wide, LADE_DTYPE_F32, self->output, self->move->out,
                                        count, self->stream);
    if (!result)
        result = cudaMemcpyAsync(results, self->wide, count * sizeof *results,
                                 cudaMemcpyDeviceToHost, self->stream);
    if (!result)
        result = cudaStreamSynchronize(self->stream);
    return result ? lade_cuda_failed(self->device, result, "convolving", error) : LADE_OK;
}

static cudaError_t
s_upload(s_check_t *self, void *to, const void *bytes, size_t size, lade_dtype_t in, uint64_t count)
{
    void *raw = NULL;
    cudaError_t result = cudaMalloc(&raw, size);
    if (!result)
        result = cudaMemcpyAsync(raw, bytes, size, cudaMemcpyHostToDevice, self->stream);
    if (!result)
        result = lade_cuda_cast(to, self->move->out, raw, in, count, self->stream);
    if (!result)
        result = cudaStreamSynchronize(self->stream);
    cudaFree(raw);
    return result;
}

// The input in both layouts: small numbers that follow from their places and are exact in all
// types.
static cudaError_t
s_make_input(s_check_t *self, uint64_t channels, uint64_t area)
{
    float *first = malloc(channels * area * sizeof *first);
    float *last = malloc(channels * area * sizeof *last);
    cudaError_t result = first && last ? cudaSuccess : cudaErrorMemoryAllocation;
    for (uint64_t c = 0; !result && c < channels; c++)
        for (uint64_t at = 0; at < area; at++)
            first[c * area + at] = last[at * channels + c] =
                (float)((c * 7 + at * 3) % 11) * 0.25f - 1.25f;
    size_t bytes = channels * area * sizeof *first;
    if (!result)
        result = s_upload(self, self->input, first, bytes, LADE_DTYPE_F32, channels * area);
    if (!result)
        result = s_upload(self, self->input_last, last, bytes, LADE_DTYPE_F32, channels * area);
    free(first);
    free(last);
    return result;
}

static cudaError_t
s_make(s_check_t *self, const void *source)
{
    const uint32_t *shape = self->move->shape;
    uint64_t area = (uint64_t)shape[2] * shape[3], filter = area * shape[1];
    size_t width = lade_dtype_size(self->move->out);
    struct {
        void **at;
        size_t bytes;
    } needed[] = {{&self->weight, filter * shape[0] * width}, {&self->input, filter * width},
                  {&self->input_last, filter * width},        {&self->output, shape[0] * width},
                  {&self->wide, shape[0] * sizeof(float)},    {&self->workspace, S_WORKSPACE}};
    cudaError_t result = cudaStreamCreateWithFlags(&self->stream, cudaStreamNonBlocking);
    for (size_t i = 0; !result && i < sizeof needed / sizeof *needed; i++)
        result = cudaMalloc(needed[i].at, needed[i].bytes);
    if (!result)
        result = s_upload(self, self->weight, source, self->move->size, self->move->in,
                          filter * shape[0]);
    return result ? result : s_make_input(self, shape[1], area);
}

static lade_code_t
s_compare(const s_check_t *self, lade_error_t *error)
{
    const uint32_t *shape = self->move->shape;
    double terms = (double)shape[1] * shape[2] * shape[3];
    double step = self->move->out == LADE_DTYPE_F32   ? 1e-5
                  : self->move->out == LADE_DTYPE_F16 ? 2e-3
                                                      : 1.6e-2;
    for (uint32_t n = 0; n < shape[0]; n++) {
        double is = self->is[n], was = self->was[n];
        bool same = (isnan(is) && isnan(was)) || is == was ||
                    fabs(is - was) <= step * (fabs(was) + sqrt(terms));
        if (!same)
            return lade_error_set(error, LADE_CORRUPT, "filter %u convolves to %g, as stored to %g",
                                  n, is, was);
    }
    return LADE_OK;
}

static lade_code_t
s_run(s_check_t *self, const lade_block_t *block, const void *source, lade_error_t *error)
{
    cudaError_t result = s_make(self, source);
    if (result)
        return lade_cuda_failed(self->device, result, "making a check", error);
    cudnnStatus_t status = s_dnn.cudnnCreate_p(&self->handle);
    if (status)
        return s_failed(status, error);
    status = s_dnn.cudnnSetStream_p(self->handle, self->stream);
    if (status)
        return s_failed(status, error);
    lade_code_t code =
        s_convolve(self, CUDNN_TENSOR_NCHW, self->input, self->weight, self->was, error);
    if (!code)
        code =
            s_convolve(self, CUDNN_TENSOR_NHWC, self->input_last,
                       (const void *)(uintptr_t)(block->address + self->move->to), self->is, error);
    return code ? code : s_compare(self, error);
}

lade_code_t
lade_cuda_check(void *arg, const lade_block_t *block, const lade_move_t *move, const void *source,
                lade_error_t *error)
{
    s_check_t self = {.device = arg, .move = move};
    pthread_once(&s_once, s_bind);
    lade_code_t code = s_error.code;
    if (code && error)
        *error = s_error;
    if (!code)
        code = lade_cuda_enter(self.device, error);
    if (!code)
        code = lade_move_check(move, block->bytes, error);
    if (code || !move->size)
        return code;
    self.is = calloc(move->shape[0], sizeof *self.is);
    self.was = calloc(move->shape[0], sizeof *self.was);
    code = self.is && self.was ? s_run(&self, block, source, error)
                               : lade_error_set(error, LADE_NO_MEMORY, "no memory for a check");
    void *made[] = {self.weight, self.input,     self.input_last,
                    self.output, self.workspace, self.wide};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        cudaFree(made[i]);
    if (self.handle)
        s_dnn.cudnnDestroy_p(self.handle);
    if (self.stream)
        cudaStreamDestroy(self.stream);
    free(self.is);
    free(self.was);
    return code;
}

#else

lade_code_t
lade_cuda_check(void *self, const lade_block_t *block, const lade_move_t *move, const void *source,
                lade_error_t *error)
{
    (void)self, (void)block, (void)move, (void)source;
    return lade_error_set(error, LADE_NOT_IMPLEMENTED, "lade-gpu-cuda.so was built without cuDNN");
}

#endif
