/* The driver, cuBLAS and cuDNN on the no-op device: what torch and Triton read from them; work is counted. */

#include "device.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

/* ---- driver ---- */

static char context[256];

EXPORT CUresult cuInit(unsigned flags)
{
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *number)
{
    *number = num_devices();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int number)
{
    *device = number;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    *value = attribute_of_device(attribute); /* driver and runtime number attributes alike */
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *is_active)
{
    if (flags)
        *flags = 0;
    *is_active = 1;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *found, CUdevice device)
{
    *found = (CUcontext)context;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *found)
{
    *found = (CUcontext)context;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
    *device = current_device();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    *value = 1 << 20;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text)
{
    *text = "an error of the no-op device";
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    *module = malloc(8);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    *module = malloc(8);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleUnload(CUmodule module)
{
    free(module);
    return CUDA_SUCCESS;
}

/* A function is its name, by which launches are traced. */
EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    *function = (CUfunction)strdup(name);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    *value = attribute == CU_FUNC_ATTRIBUTE_NUM_REGS                ? 32
             : attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024
                                                                    : 0;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveClusters(int *number, CUfunction function, const CUlaunchConfig *config)
{
    *number = 1;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr pointer)
{
    *(CUdeviceptr *)value = pointer;
    return memory_of((void *)pointer) == ON_DEVICE ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    return (CUresult)cudaStreamIsCapturing(stream, (enum cudaStreamCaptureStatus *)status);
}

EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **arguments, void **extra)
{
    return give_work(config->hStream, 1, "kernel triton %s", (char *)function);
}

EXPORT CUresult cuLaunchKernel(
    CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
    unsigned block_z, unsigned shared, CUstream stream, void **arguments, void **extra)
{
    return give_work(stream, 1, "kernel triton %s", (char *)function);
}

EXPORT CUresult cuGetProcAddress_v2(
    const char *name, void **function, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
    return (CUresult)cudaGetDriverEntryPointByVersion(name, function, version, flags, (void *)status);
}

/* ---- cuBLAS: a stream for each thread, and products, whose arguments nobody reads ---- */

static __thread void *blas_stream;

EXPORT int cublasCreate_v2(void **handle)
{
    int error = forbidden_in_capture("cublasCreate, which allocates memory");
    *handle = calloc(1, 64);
    return error;
}

EXPORT int cublasSetStream_v2(void *handle, void *stream)
{
    blas_stream = stream;
    return 0;
}

EXPORT int cublasGetMathMode(void *handle, int *mode)
{
    *mode = 0;
    return 0;
}

EXPORT int cublasGetPointerMode_v2(void *handle, int *mode)
{
    *mode = 0;
    return 0;
}

EXPORT size_t cublasLtGetVersion(void)
{
    return 130401;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(
    void *handle, void *product, void *a, void *b, void *c, void *d, void *preference, int wanted, void *results,
    int *found)
{
    memset(results, 0, 72); /* one algorithm, in no state, without a work space */
    *found = 1;
    return 0;
}

EXPORT int cublasLtMatmul(
    void *handle, void *product, void *alpha, void *a, void *layout_a, void *b, void *layout_b, void *beta, void *c,
    void *layout_c, void *d, void *layout_d, void *algorithm, void *space, size_t length, void *stream)
{
    return give_work(stream, 1, "kernel cublasLtMatmul");
}

#define PRODUCT(name)                                              \
    EXPORT int name(void)                                          \
    {                                                              \
        return give_work(blas_stream, 1, "kernel " #name);         \
    }

PRODUCT(cublasGemmEx)
PRODUCT(cublasGemmStridedBatchedEx)
PRODUCT(cublasGemmBatchedEx)
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasSgemmEx)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasSgemv_v2)
PRODUCT(cublasSdot_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasDgemmStridedBatched)
PRODUCT(cublasDgemv_v2)
PRODUCT(cublasDdot_v2)

/* ---- cuDNN: every convolution has one engine, which needs no work space ---- */

static __thread void *dnn_stream;

EXPORT size_t cudnnGetVersion(void)
{
    return 92600;
}

EXPORT size_t cudnnGetCudartVersion(void)
{
    return CUDART_VERSION;
}

EXPORT int cudnnGetProperty(int which, int *value)
{
    *value = which == 0 ? 9 : which == 1 ? 26 : 0; /* major, minor, patch */
    return 0;
}

EXPORT int cudnnSetStream(void *handle, void *stream)
{
    dnn_stream = stream;
    return 0;
}

EXPORT int cudnnGetStream(void *handle, void **stream)
{
    *stream = dnn_stream;
    return 0;
}

EXPORT int cudnnBackendCreateDescriptor(int type, void **descriptor)
{
    *descriptor = calloc(1, 64);
    return 0;
}

EXPORT int cudnnBackendDestroyDescriptor(void *descriptor)
{
    free(descriptor);
    return 0;
}

EXPORT int cudnnBackendGetAttribute(
    void *descriptor, int name, int type, long long wanted, long long *number, void *found)
{
    enum { INT64 = 3, DESCRIPTOR = 15, HEURISTIC_RESULTS = 202, CONFIGURATION_ENGINE = 300 };
    long long count = 0;
    if (type == DESCRIPTOR) {
        count = name == HEURISTIC_RESULTS || name == CONFIGURATION_ENGINE;
    } else if (type == INT64) {
        count = 1;
        if (found && wanted > 0)
            *(long long *)found = 0;
    }
    if (number)
        *number = count;
    return 0;
}

EXPORT int cudnnBackendExecute(void *handle, void *plan, void *pack)
{
    return give_work(dnn_stream, 1, "kernel cudnn convolution");
}

#define LAYER(name)                                        \
    EXPORT int name(void)                                  \
    {                                                      \
        return give_work(dnn_stream, 1, "kernel " #name);  \
    }

LAYER(cudnnBatchNormalizationForwardInference)
LAYER(cudnnBatchNormalizationForwardTrainingEx)
LAYER(cudnnBatchNormalizationBackwardEx)
LAYER(cudnnPoolingForward)

EXPORT int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    void *handle, int mode, int operation, void *x, void *z, void *y, void *parameters, void *activation,
    size_t *length)
{
    *length = 0;
    return 0;
}

EXPORT int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    void *handle, int mode, int operation, void *x, void *y, void *dy, void *dz, void *dx, void *parameters,
    void *activation, size_t *length)
{
    *length = 0;
    return 0;
}

EXPORT int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
    void *handle, int mode, int operation, void *activation, void *x, size_t *length)
{
    *length = 0;
    return 0;
}
