/* Kernels of torch, which its libraries register when they are loaded: named, counted, not run. */

#include "device.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct kernel {
    const void *function;
    const char *name;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct kernel *kernels;
static int num_kernels, room_for_kernels, is_sorted;

static int by_function(const void *first, const void *second)
{
    const char *a = ((struct kernel *)first)->function, *b = ((struct kernel *)second)->function;
    return (a > b) - (a < b);
}

static const char *name_of(const void *function)
{
    struct kernel wanted = {function, NULL};
    pthread_mutex_lock(&mutex);
    if (!is_sorted)
        qsort(kernels, num_kernels, sizeof *kernels, by_function);
    is_sorted = 1;
    struct kernel *found = bsearch(&wanted, kernels, num_kernels, sizeof *kernels, by_function);
    pthread_mutex_unlock(&mutex);
    return found ? found->name : "unknown";
}

EXPORT void **__cudaRegisterFatBinary(void *binary)
{
    return calloc(1, 64);
}

EXPORT void __cudaRegisterFatBinaryEnd(void **handle) {}

EXPORT void __cudaUnregisterFatBinary(void **handle) {}

EXPORT void __cudaRegisterVar(
    void **handle, char *host, char *address, const char *name, int external, size_t length, int constant, int global)
{
}

EXPORT void __cudaRegisterFunction(
    void **handle, const char *function, char *device_function, const char *name, int limit, void *thread, void *block,
    void *block_size, void *grid_size, int *warp_size)
{
    pthread_mutex_lock(&mutex);
    if (num_kernels == room_for_kernels) {
        room_for_kernels = room_for_kernels ? 2 * room_for_kernels : 4096;
        kernels = realloc(kernels, room_for_kernels * sizeof *kernels);
    }
    kernels[num_kernels++] = (struct kernel){function, name};
    is_sorted = 0;
    pthread_mutex_unlock(&mutex);
}

static __thread struct {
    dim3 grid, block;
    size_t shared;
    void *stream;
} pushed;

EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream)
{
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared = shared;
    pushed.stream = stream;
    return 0;
}

EXPORT cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    *grid = pushed.grid;
    *block = pushed.block;
    *shared = pushed.shared;
    *(void **)stream = pushed.stream;
    return cudaSuccess;
}

static cudaError_t launch(const void *function, void *stream)
{
    return give_work(stream, 1, "kernel %s", is_traced() ? name_of(function) : "");
}

EXPORT cudaError_t cudaLaunchKernel(
    const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream)
{
    return launch(function, stream);
}

EXPORT cudaError_t cudaLaunchCooperativeKernel(
    const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream)
{
    return launch(function, stream);
}

EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments)
{
    return launch(function, config->stream);
}

EXPORT cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function)
{
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}

EXPORT cudaError_t __cudaLaunchKernel(
    cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream)
{
    return launch(kernel, stream);
}

EXPORT cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *function)
{
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024;
    found->numRegs = 32;
    found->binaryVersion = found->ptxVersion = 90;
    return cudaSuccess;
}

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(
    int *number, const void *function, int block, size_t shared)
{
    *number = 2;
    return cudaSuccess;
}

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *number, const void *function, int block, size_t shared, unsigned flags)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(number, function, block, shared);
}
