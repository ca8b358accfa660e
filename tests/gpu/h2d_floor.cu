// What the machine allows: pinned memory of the host to the device, and nothing else.
//   h2d_floor MB    one line: GB/s of the best and of the median of seven rounds
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

int
main(int argc, char **argv)
{
    const size_t pinned = 512u << 20, bytes = (argc > 1 ? strtoull(argv[1], nullptr, 10) : 1024) << 20;
    void *host = nullptr, *device = nullptr;
    cudaStream_t stream;
    cudaEvent_t began, ended;
    std::vector<float> rounds;
    cudaError_t result = cudaMallocHost(&host, pinned);
    if (!result)
        result = cudaMalloc(&device, pinned);
    if (!result)
        result = cudaStreamCreate(&stream);
    if (!result)
        result = cudaEventCreate(&began);
    if (!result)
        result = cudaEventCreate(&ended);
    for (int round = 0; !result && round < 8; round++) {
        cudaEventRecord(began, stream);
        for (size_t done = 0; !result && done < bytes; done += pinned)
            result = cudaMemcpyAsync(device, host, std::min(pinned, bytes - done),
                                     cudaMemcpyHostToDevice, stream);
        cudaEventRecord(ended, stream);
        if (!result)
            result = cudaEventSynchronize(ended);
        float ms = 0;
        cudaEventElapsedTime(&ms, began, ended);
        if (round)
            rounds.push_back((float)((double)bytes / ms * 1e-6));
    }
    if (result) {
        fprintf(stderr, "h2d_floor: %s\n", cudaGetErrorString(result));
        return 1;
    }
    std::sort(rounds.begin(), rounds.end());
    printf("%.2f %.2f\n", rounds.back(), rounds[rounds.size() / 2]);
    return 0;
}
