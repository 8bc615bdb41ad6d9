/* A CUDA device that computes nothing, as the CUDA runtime presents it.
 *
 * Its memory is the host's. Copies between host and device are made, kernels are counted and not run, and captures of
 * streams are modelled: what CUDA forbids in them is refused here, and counted. Times and results mean nothing.
 *
 * This file: what it is, what is counted, errors. streams.c: streams, events, captures, graphs. memory.c: memory and
 * copies. kernels.c: the kernels of torch. libraries.c: driver, cuBLAS and cuDNN.
 *
 * NO_OP_BYTES is the memory of a device (default 141 GB), NO_OP_DEVICES their number (default 1).
 */

#define _GNU_SOURCE
#include "device.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- counters and trace, which Python reads ---- */

static const char *const names[NUM_COUNTERS] = {
    "kernels",  "waits",          "to_device",   "from_pageable", "to_host",
    "captures", "graph_launches", "graph_nodes", "illegal",
};
static long long counts[NUM_COUNTERS];
static void (*trace)(const char *event);
static __thread int is_tracing; /* so that what the trace does itself is not traced */

void add_many(enum counter counter, long long number)
{
    __atomic_fetch_add(&counts[counter], number, __ATOMIC_RELAXED);
}

void add(enum counter counter)
{
    add_many(counter, 1);
}

void tell_list(const char *format, va_list values)
{
    char event[1024];
    if (!trace || is_tracing)
        return;
    is_tracing = 1;
    vsnprintf(event, sizeof event, format, values);
    trace(event);
    is_tracing = 0;
}

void tell(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    tell_list(format, values);
    va_end(values);
}

EXPORT long long no_op_count(int counter)
{
    return counter < NUM_COUNTERS ? counts[counter] : -1;
}

EXPORT const char *no_op_name(int counter)
{
    return counter < NUM_COUNTERS ? names[counter] : NULL;
}

int is_traced(void)
{
    return trace != NULL;
}

EXPORT void no_op_trace(void (*function)(const char *event))
{
    trace = function;
}

/* ---- devices ---- */

static __thread int device;

static size_t setting(const char *name, size_t usual)
{
    const char *value = getenv(name);
    return value ? strtoull(value, NULL, 10) : usual;
}

int num_devices(void)
{
    return (int)setting("NO_OP_DEVICES", 1);
}

int current_device(void)
{
    return device;
}

size_t bytes_of_device(void)
{
    return setting("NO_OP_BYTES", 141ull * 1000 * 1000 * 1000);
}

/* An H200: compute capability 9.0, 132 multiprocessors. What is not listed is 1, "supported". */
int attribute_of_device(int attribute)
{
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
        return 1024;
    case cudaDevAttrMaxBlockDimZ:
        return 64;
    case cudaDevAttrMaxGridDimX:
        return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
        return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        return 49152;
    case cudaDevAttrTotalConstantMemory:
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        return 65536;
    case cudaDevAttrWarpSize:
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        return 32;
    case cudaDevAttrClockRate:
        return 1980000;
    case cudaDevAttrMemoryClockRate:
        return 3201000;
    case cudaDevAttrGlobalMemoryBusWidth:
        return 6144;
    case cudaDevAttrTextureAlignment:
        return 512;
    case cudaDevAttrMultiProcessorCount:
        return 132;
    case cudaDevAttrL2CacheSize:
        return 60 << 20;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        return 2048;
    case cudaDevAttrComputeCapabilityMajor:
        return 9;
    case cudaDevAttrComputeCapabilityMinor:
    case cudaDevAttrIntegrated:
    case cudaDevAttrComputeMode:
        return 0;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        return 233472;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        return 232448;
    case cudaDevAttrReservedSharedMemoryPerBlock:
        return 1024;
    }
    return 1;
}

EXPORT cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int number)
{
    memset(found, 0, sizeof *found);
    strcpy(found->name, "no-op device");
    found->uuid.bytes[0] = (char)(number + 1);
    found->totalGlobalMem = bytes_of_device();
    found->sharedMemPerBlock = attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlock);
    found->sharedMemPerMultiprocessor = attribute_of_device(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
    found->sharedMemPerBlockOptin = attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    found->reservedSharedMemPerBlock = attribute_of_device(cudaDevAttrReservedSharedMemoryPerBlock);
    found->regsPerBlock = attribute_of_device(cudaDevAttrMaxRegistersPerBlock);
    found->regsPerMultiprocessor = attribute_of_device(cudaDevAttrMaxRegistersPerMultiprocessor);
    found->warpSize = attribute_of_device(cudaDevAttrWarpSize);
    found->maxThreadsPerBlock = attribute_of_device(cudaDevAttrMaxThreadsPerBlock);
    found->maxThreadsPerMultiProcessor = attribute_of_device(cudaDevAttrMaxThreadsPerMultiProcessor);
    found->maxBlocksPerMultiProcessor = attribute_of_device(cudaDevAttrMaxBlocksPerMultiprocessor);
    for (int axis = 0; axis < 3; axis++) {
        found->maxThreadsDim[axis] = attribute_of_device(cudaDevAttrMaxBlockDimX + axis);
        found->maxGridSize[axis] = attribute_of_device(cudaDevAttrMaxGridDimX + axis);
    }
    found->totalConstMem = attribute_of_device(cudaDevAttrTotalConstantMemory);
    found->major = attribute_of_device(cudaDevAttrComputeCapabilityMajor);
    found->minor = attribute_of_device(cudaDevAttrComputeCapabilityMinor);
    found->textureAlignment = attribute_of_device(cudaDevAttrTextureAlignment);
    found->multiProcessorCount = attribute_of_device(cudaDevAttrMultiProcessorCount);
    found->memoryBusWidth = attribute_of_device(cudaDevAttrGlobalMemoryBusWidth);
    found->l2CacheSize = attribute_of_device(cudaDevAttrL2CacheSize);
    found->concurrentKernels = found->unifiedAddressing = found->managedMemory = 1;
    found->streamPrioritiesSupported = found->globalL1CacheSupported = 1;
    found->pciBusID = number;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGetDeviceCount(int *number)
{
    *number = num_devices();
    return cudaSuccess;
}

EXPORT cudaError_t cudaGetDevice(int *number)
{
    *number = device;
    return cudaSuccess;
}

EXPORT cudaError_t cudaSetDevice(int number)
{
    if (number < 0 || number >= num_devices())
        return failed(cudaErrorInvalidDevice);
    device = number;
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int number)
{
    *value = attribute_of_device(attribute);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int number)
{
    snprintf(text, length, "0000:%02x:00.0", number);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceCanAccessPeer(int *can, int first, int second)
{
    *can = 0;
    return cudaSuccess;
}

EXPORT cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

EXPORT cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

/* ---- errors ---- */

static __thread int last_error;

int failed(int error)
{
    return last_error = error;
}

EXPORT const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    default:
        return "an error of the no-op device";
    }
}

EXPORT const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    default:
        return "an error of the no-op device";
    }
}

EXPORT cudaError_t cudaGetLastError(void)
{
    int error = last_error;
    last_error = cudaSuccess;
    return error;
}

EXPORT cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

/* A driver function by name, our own where there is one; the rest do nothing. */
static int do_nothing(void)
{
    return 0;
}

EXPORT cudaError_t cudaGetDriverEntryPointByVersion(
    const char *name, void **function, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *status)
{
    static void *self;
    Dl_info information;
    if (!self && dladdr((void *)do_nothing, &information))
        self = dlopen(information.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    void *own = self ? dlsym(self, name) : NULL;
    *function = own ? own : (void *)do_nothing;
    if (status)
        *status = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
