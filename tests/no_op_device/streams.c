/* Streams, events, captures and graphs of the no-op device. Streams have no order: nothing runs on them. */

#include "device.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

struct stream {
    unsigned long long capture; /* which one it takes part in, 0: none */
    int priority;
    struct stream *next;
};

struct event {
    unsigned long long capture;
    struct timespec time;
};

struct graph {
    long long num_nodes;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct stream default_stream, *streams;
static unsigned long long capture, num_captures; /* the one under way, 0: none */
static long long num_nodes;                      /* recorded by it so far */
static int is_broken;
static __thread enum cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

static struct stream *stream_of(void *handle)
{
    int is_default = handle == NULL || handle == cudaStreamLegacy || handle == cudaStreamPerThread;
    return is_default ? &default_stream : handle;
}

int is_captured(void *stream)
{
    return capture && stream_of(stream)->capture == capture;
}

int illegal(const char *call)
{
    add(ILLEGAL);
    is_broken = 1;
    tell("illegal in a capture: %s", call);
    return failed(cudaErrorStreamCaptureUnsupported);
}

int forbidden_in_capture(const char *call)
{
    return capture && capture_mode != cudaStreamCaptureModeRelaxed ? illegal(call) : 0;
}

int give_work(void *stream, int is_kernel, const char *format, ...)
{
    va_list values;
    if (capture && stream_of(stream) == &default_stream)
        return illegal("work on the default stream, which the graph would miss");
    if (is_captured(stream))
        __atomic_fetch_add(&num_nodes, 1, __ATOMIC_RELAXED);
    else if (is_kernel)
        add(KERNELS);
    va_start(values, format);
    tell_list(format, values);
    va_end(values);
    return 0;
}

static cudaError_t new_stream(cudaStream_t *stream, int priority)
{
    struct stream *made = calloc(1, sizeof *made);
    made->priority = priority;
    pthread_mutex_lock(&mutex);
    made->next = streams;
    streams = made;
    pthread_mutex_unlock(&mutex);
    *stream = (cudaStream_t)made;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return new_stream(stream, 0);
}

EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return new_stream(stream, 0);
}

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    return new_stream(stream, priority);
}

EXPORT cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return cudaSuccess; /* torch keeps its streams, so the list is short */
}

EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    *priority = stream_of(stream)->priority;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    return is_captured(stream) ? illegal("cudaStreamQuery") : cudaSuccess;
}

int waited(const char *call)
{
    add(WAITS);
    tell("wait: %s", call);
    return forbidden_in_capture(call);
}

EXPORT cudaError_t cudaDeviceSynchronize(void)
{
    return waited("cudaDeviceSynchronize");
}

EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return waited("cudaStreamSynchronize");
}

EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return waited("cudaEventSynchronize");
}

EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    unsigned long long of_event = event ? ((struct event *)event)->capture : 0;
    if (of_event && of_event == capture)
        stream_of(stream)->capture = capture;
    else if (is_captured(stream))
        return illegal("cudaStreamWaitEvent for what came before the capture");
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = calloc(1, sizeof(struct event));
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, 0);
}

EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream)
{
    struct event *event = (struct event *)handle;
    event->capture = is_captured(stream) ? capture : 0;
    clock_gettime(CLOCK_MONOTONIC, &event->time);
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    return cudaEventRecord(event, stream);
}

EXPORT cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return forbidden_in_capture("cudaEventQuery");
}

EXPORT cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t first, cudaEvent_t second)
{
    struct timespec *start = &((struct event *)first)->time, *end = &((struct event *)second)->time;
    *ms = 1e3f * (end->tv_sec - start->tv_sec) + 1e-6f * (end->tv_nsec - start->tv_nsec);
    *ms = *ms < 1e-3f ? 1e-3f : *ms;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    if (capture)
        return illegal("a second capture");
    add(CAPTURES);
    tell("capture");
    capture = ++num_captures;
    num_nodes = is_broken = 0;
    stream_of(stream)->capture = capture;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    struct graph *made = NULL;
    for (struct stream *each = streams; each; each = each->next)
        each->capture = 0;
    capture = 0;
    if (!is_broken) {
        made = calloc(1, sizeof *made);
        made->num_nodes = num_nodes;
    }
    *graph = (cudaGraph_t)made;
    return made ? cudaSuccess : failed(cudaErrorStreamCaptureInvalidated);
}

EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    *status = !is_captured(stream) ? cudaStreamCaptureStatusNone
              : is_broken          ? cudaStreamCaptureStatusInvalidated
                                   : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
    const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *number)
{
    cudaStreamIsCapturing(stream, status);
    if (id)
        *id = is_captured(stream) ? capture : 0;
    if (graph)
        *graph = NULL;
    if (nodes)
        *nodes = NULL;
    if (edges)
        *edges = NULL;
    if (number)
        *number = 0;
    return cudaSuccess;
}

EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    enum cudaStreamCaptureMode before = capture_mode;
    capture_mode = *mode;
    *mode = before;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *number)
{
    *number = ((struct graph *)graph)->num_nodes;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags)
{
    struct graph *copy = malloc(sizeof *copy);
    *copy = *(struct graph *)graph;
    *made = (cudaGraphExec_t)copy;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags)
{
    return cudaGraphInstantiateWithFlags(made, graph, flags);
}

EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    add(GRAPH_LAUNCHES);
    add_many(GRAPH_NODES, ((struct graph *)graph)->num_nodes);
    return give_work(stream, 0, "graph");
}

EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    free(graph);
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    free(graph);
    return cudaSuccess;
}
