/* Memory of the no-op device, which is the host's, and copies from and to it. */

#define _GNU_SOURCE
#include "device.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct range {
    char *start;
    size_t length;
    enum memory kind;
    int device;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges;
static int num_ranges, room_for_ranges;
static size_t used[64]; /* bytes of each device */

static struct range *range_of(const void *pointer)
{
    for (int i = 0; i < num_ranges; i++)
        if ((char *)pointer >= ranges[i].start && (char *)pointer < ranges[i].start + ranges[i].length)
            return ranges + i;
    return NULL;
}

enum memory memory_of(const void *pointer)
{
    pthread_mutex_lock(&mutex);
    struct range *range = range_of(pointer);
    enum memory kind = range ? range->kind : ON_HOST;
    pthread_mutex_unlock(&mutex);
    return kind;
}

/* Pages that nobody writes to take no memory of the host. */
static cudaError_t take(void **pointer, size_t length, enum memory kind)
{
    length = length ? length : 1;
    if (kind == ON_DEVICE && used[current_device()] + length > bytes_of_device())
        return failed(cudaErrorMemoryAllocation);
    void *start = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return failed(cudaErrorMemoryAllocation);
    pthread_mutex_lock(&mutex);
    if (num_ranges == room_for_ranges) {
        room_for_ranges = room_for_ranges ? 2 * room_for_ranges : 64;
        ranges = realloc(ranges, room_for_ranges * sizeof *ranges);
    }
    ranges[num_ranges++] = (struct range){start, length, kind, current_device()};
    if (kind == ON_DEVICE)
        used[current_device()] += length;
    pthread_mutex_unlock(&mutex);
    *pointer = start;
    return cudaSuccess;
}

static void give_back(void *pointer)
{
    pthread_mutex_lock(&mutex);
    struct range *range = range_of(pointer);
    if (range) {
        munmap(range->start, range->length);
        if (range->kind == ON_DEVICE)
            used[range->device] -= range->length;
        *range = ranges[--num_ranges];
    }
    pthread_mutex_unlock(&mutex);
}

EXPORT cudaError_t cudaMalloc(void **pointer, size_t length)
{
    int error = forbidden_in_capture("cudaMalloc");
    return error ? error : take(pointer, length, ON_DEVICE);
}

EXPORT cudaError_t cudaFree(void *pointer)
{
    int error = forbidden_in_capture("cudaFree");
    if (!error)
        give_back(pointer);
    return error;
}

EXPORT cudaError_t cudaHostAlloc(void **pointer, size_t length, unsigned flags)
{
    int error = forbidden_in_capture("cudaHostAlloc");
    return error ? error : take(pointer, length, PINNED);
}

EXPORT cudaError_t cudaMallocHost(void **pointer, size_t length)
{
    return cudaHostAlloc(pointer, length, 0);
}

EXPORT cudaError_t cudaFreeHost(void *pointer)
{
    return cudaFree(pointer);
}

EXPORT cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes)
{
    *all_bytes = bytes_of_device();
    *free_bytes = *all_bytes - used[current_device()];
    return cudaSuccess;
}

EXPORT cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer)
{
    static const enum cudaMemoryType types[] = {
        [ON_HOST] = cudaMemoryTypeUnregistered, [ON_DEVICE] = cudaMemoryTypeDevice, [PINNED] = cudaMemoryTypeHost};
    pthread_mutex_lock(&mutex);
    struct range *range = range_of(pointer);
    memset(found, 0, sizeof *found);
    found->type = types[range ? range->kind : ON_HOST];
    found->device = range ? range->device : 0;
    found->devicePointer = found->hostPointer = (void *)pointer;
    pthread_mutex_unlock(&mutex);
    return cudaSuccess;
}

EXPORT cudaError_t cudaGetSymbolAddress(void **pointer, const void *symbol)
{
    return take(pointer, 1 << 16, ON_DEVICE);
}

EXPORT cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int number)
{
    *pool = malloc(8);
    return cudaSuccess;
}

static cudaError_t copy(void *to, const void *from, size_t length, void *stream)
{
    enum memory kind_to = memory_of(to), kind_from = memory_of(from);
    if (kind_to == ON_DEVICE && kind_from == ON_DEVICE) {
        memmove(to, from, length < 1 << 20 ? length : 1 << 20); /* its beginning: enough to carry numbers along */
        return give_work(stream, 0, "copy on the device");
    }
    if (is_captured(stream) && (kind_to == ON_HOST || kind_from == ON_HOST))
        return illegal("a copy from or to memory that is not pinned");
    memcpy(to, from, length);
    if (kind_to == ON_DEVICE) {
        add(TO_DEVICE);
        if (kind_from == ON_HOST)
            add(FROM_PAGEABLE);
        return give_work(stream, 0, "to the device: %s", kind_from == ON_HOST ? "pageable" : "pinned");
    }
    if (kind_from == ON_DEVICE) {
        add(TO_HOST);
        return give_work(stream, 0, "to the host");
    }
    return cudaSuccess;
}

EXPORT cudaError_t cudaMemcpyAsync(
    void *to, const void *from, size_t length, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy(to, from, length, stream);
}

EXPORT cudaError_t cudaMemcpy(void *to, const void *from, size_t length, enum cudaMemcpyKind kind)
{
    int error = waited("cudaMemcpy");
    return error ? error : copy(to, from, length, NULL);
}

EXPORT cudaError_t cudaMemcpyPeerAsync(
    void *to, int device_to, const void *from, int device_from, size_t length, cudaStream_t stream)
{
    return copy(to, from, length, stream);
}

EXPORT cudaError_t cudaMemcpy2DAsync(
    void *to, size_t pitch_to, const void *from, size_t pitch_from, size_t width, size_t height,
    enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return give_work(stream, 0, "copy on the device");
}

EXPORT cudaError_t cudaMemsetAsync(void *to, int value, size_t length, cudaStream_t stream)
{
    memset(to, value, length < 1 << 20 ? length : 1 << 20);
    return give_work(stream, 0, "memset");
}

EXPORT cudaError_t cudaMemset(void *to, int value, size_t length)
{
    return cudaMemsetAsync(to, value, length, NULL);
}
