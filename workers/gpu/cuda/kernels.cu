// Kernels. Both are bound by memory: 8 or 16 bytes a load where the places allow it.
extern "C" {
#include "workers/gpu/cuda/kernels_cuda.h"
}

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum { S_THREADS = 256, S_TILE = 32, S_ROWS = 8, S_MAX_BLOCKS = 1 << 16 };

// A type as its bits, and those bits as a number.
struct s_f32 {
    typedef uint32_t bits;
    static __device__ float get(bits from) { return __uint_as_float(from); }
    static __device__ bits put(float from) { return __float_as_uint(from); }
};

struct s_f16 {
    typedef uint16_t bits;
    static __device__ float get(bits from) { return __half2float(__ushort_as_half(from)); }
    static __device__ bits put(float from) { return __half_as_ushort(__float2half_rn(from)); }
};

struct s_bf16 {
    typedef uint16_t bits;
    static __device__ float get(bits from) { return __uint_as_float((uint32_t)from << 16); }
    static __device__ bits put(float from) { return __bfloat16_as_ushort(__float2bfloat16_rn(from)); }
};

template <typename In, typename Out> struct s_cast {
    static __device__ typename Out::bits run(typename In::bits from) { return Out::put(In::get(from)); }
};
template <typename Same> struct s_cast<Same, Same> {
    static __device__ typename Same::bits run(typename Same::bits from) { return from; }
};

// One element at a place that need not be aligned.
template <typename Bits> static __device__ Bits
s_get(const uint8_t *from, bool aligned)
{
    if (aligned)
        return *(const Bits *)from;
    Bits bits = 0;
    for (unsigned i = 0; i < sizeof bits; i++)
        bits |= (Bits)((Bits)from[i] << (8 * i));
    return bits;
}

template <typename Bits> static __device__ void
s_put(uint8_t *to, Bits bits, bool aligned)
{
    if (aligned)
        *(Bits *)to = bits;
    else
        for (unsigned i = 0; i < sizeof bits; i++)
            to[i] = (uint8_t)(bits >> (8 * i));
}

template <typename Bits, int N> struct alignas(sizeof(Bits) * N) s_vector {
    Bits at[N];
};

template <typename In, typename Out, int N> static __global__ void
s_cast_vectors(uint8_t *to, const uint8_t *from, uint64_t vectors)
{
    typedef s_vector<typename In::bits, N> in_t;
    typedef s_vector<typename Out::bits, N> out_t;
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += step) {
        in_t in = ((const in_t *)from)[i];
        out_t out;
#pragma unroll
        for (int k = 0; k < N; k++)
            out.at[k] = s_cast<In, Out>::run(in.at[k]);
        ((out_t *)to)[i] = out;
    }
}

template <typename In, typename Out> static __global__ void
s_cast_each(uint8_t *to, const uint8_t *from, uint64_t count, bool aligned)
{
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        s_put<typename Out::bits>(
            to + i * sizeof(typename Out::bits),
            s_cast<In, Out>::run(
                s_get<typename In::bits>(from + i * sizeof(typename In::bits), aligned)),
            aligned);
}

// A tile of 32 channels by 32 places of one filter, through shared memory, so that both sides are
// read and written in rows.
template <typename In, typename Out> static __global__ void
s_transpose(uint8_t *to, const uint8_t *from, uint32_t channels, uint32_t area, bool aligned)
{
    typedef typename In::bits in_bits;
    typedef typename Out::bits out_bits;
    __shared__ out_bits tile[S_TILE][S_TILE + 1];
    uint64_t filter = (uint64_t)blockIdx.x * channels * area;
    uint32_t at = blockIdx.z * S_TILE + threadIdx.x;
    for (uint32_t row = threadIdx.y; row < S_TILE; row += S_ROWS) {
        uint32_t c = blockIdx.y * S_TILE + row;
        if (c < channels && at < area)
            tile[row][threadIdx.x] = s_cast<In, Out>::run(s_get<in_bits>(
                from + (filter + (uint64_t)c * area + at) * sizeof(in_bits), aligned));
    }
    __syncthreads();
    uint32_t c = blockIdx.y * S_TILE + threadIdx.x;
    for (uint32_t row = threadIdx.y; row < S_TILE; row += S_ROWS) {
        at = blockIdx.z * S_TILE + row;
        if (c < channels && at < area)
            s_put<out_bits>(to + (filter + (uint64_t)at * channels + c) * sizeof(out_bits),
                            tile[threadIdx.x][row], aligned);
    }
}

// ---------------------------------------------------------------------------------------------------
// Choosing

static unsigned
s_blocks(uint64_t items)
{
    uint64_t blocks = (items + S_THREADS - 1) / S_THREADS;
    return (unsigned)(blocks < S_MAX_BLOCKS ? blocks ? blocks : 1 : S_MAX_BLOCKS);
}

static bool
s_is_aligned(const void *at, uint64_t bytes)
{
    return (uintptr_t)at % bytes == 0;
}

template <typename In, typename Out, int N> static bool
s_try_vectors(uint8_t **to, const uint8_t **from, uint64_t *count, cudaStream_t stream)
{
    const uint64_t in = sizeof(typename In::bits), out = sizeof(typename Out::bits);
    uint64_t vectors = *count / N;
    if (!vectors || !s_is_aligned(*from, in * N) || !s_is_aligned(*to, out * N))
        return false;
    s_cast_vectors<In, Out, N><<<s_blocks(vectors), S_THREADS, 0, stream>>>(*to, *from, vectors);
    *to += vectors * N * out;
    *from += vectors * N * in;
    *count -= vectors * N;
    return true;
}

template <typename In, typename Out> static cudaError_t
s_run_cast(void *to_any, const void *from_any, uint64_t count, cudaStream_t stream)
{
    uint8_t *to = (uint8_t *)to_any;
    const uint8_t *from = (const uint8_t *)from_any;
    if (!s_try_vectors<In, Out, 8>(&to, &from, &count, stream) &&
        !s_try_vectors<In, Out, 4>(&to, &from, &count, stream))
        (void)s_try_vectors<In, Out, 2>(&to, &from, &count, stream);
    if (count)
        s_cast_each<In, Out><<<s_blocks(count), S_THREADS, 0, stream>>>(
            to, from, count,
            s_is_aligned(to, sizeof(typename Out::bits)) &&
                s_is_aligned(from, sizeof(typename In::bits)));
    return cudaGetLastError();
}

template <typename In, typename Out> static cudaError_t
s_run_transpose(void *to, const void *from, const uint32_t *shape, cudaStream_t stream)
{
    uint32_t channels = shape[1], area = shape[2] * shape[3];
    dim3 grid(shape[0], (channels + S_TILE - 1) / S_TILE, (area + S_TILE - 1) / S_TILE);
    if (!grid.x || !grid.y || !grid.z)
        return cudaSuccess;
    if (grid.y > 65535 || grid.z > 65535)
        return cudaErrorInvalidValue;
    s_transpose<In, Out><<<grid, dim3(S_TILE, S_ROWS), 0, stream>>>(
        (uint8_t *)to, (const uint8_t *)from, channels, area,
        s_is_aligned(to, sizeof(typename Out::bits)) &&
            s_is_aligned(from, sizeof(typename In::bits)));
    return cudaGetLastError();
}

typedef cudaError_t (*s_cast_fn)(void *, const void *, uint64_t, cudaStream_t);
typedef cudaError_t (*s_transpose_fn)(void *, const void *, const uint32_t *, cudaStream_t);

static const struct {
    lade_dtype_t in, out;
    s_cast_fn cast;
    s_transpose_fn transpose;
} s_table[] = {
    {LADE_DTYPE_F32, LADE_DTYPE_F32, s_run_cast<s_f32, s_f32>, s_run_transpose<s_f32, s_f32>},
    {LADE_DTYPE_F32, LADE_DTYPE_F16, s_run_cast<s_f32, s_f16>, s_run_transpose<s_f32, s_f16>},
    {LADE_DTYPE_F32, LADE_DTYPE_BF16, s_run_cast<s_f32, s_bf16>, s_run_transpose<s_f32, s_bf16>},
    {LADE_DTYPE_F16, LADE_DTYPE_F32, s_run_cast<s_f16, s_f32>, s_run_transpose<s_f16, s_f32>},
    {LADE_DTYPE_F16, LADE_DTYPE_F16, s_run_cast<s_f16, s_f16>, s_run_transpose<s_f16, s_f16>},
    {LADE_DTYPE_F16, LADE_DTYPE_BF16, s_run_cast<s_f16, s_bf16>, s_run_transpose<s_f16, s_bf16>},
    {LADE_DTYPE_BF16, LADE_DTYPE_F32, s_run_cast<s_bf16, s_f32>, s_run_transpose<s_bf16, s_f32>},
    {LADE_DTYPE_BF16, LADE_DTYPE_F16, s_run_cast<s_bf16, s_f16>, s_run_transpose<s_bf16, s_f16>},
    {LADE_DTYPE_BF16, LADE_DTYPE_BF16, s_run_cast<s_bf16, s_bf16>, s_run_transpose<s_bf16, s_bf16>},
};

extern "C" cudaError_t
lade_cuda_cast(void *to, lade_dtype_t out, const void *from, lade_dtype_t in, uint64_t count,
               cudaStream_t stream)
{
    for (const auto &row : s_table)
        if (row.in == in && row.out == out)
            return row.cast(to, from, count, stream);
    return cudaErrorInvalidValue;
}

extern "C" cudaError_t
lade_cuda_channels_last(void *to, lade_dtype_t out, const void *from, lade_dtype_t in,
                        const uint32_t *shape, cudaStream_t stream)
{
    for (const auto &row : s_table)
        if (row.in == in && row.out == out)
            return row.transpose(to, from, shape, stream);
    return cudaErrorInvalidValue;
}
