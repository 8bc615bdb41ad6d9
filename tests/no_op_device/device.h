/* What the parts of the no-op device share: counters, the trace, and work that streams are given. */

#pragma once

#include <stdarg.h>
#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

/* What is counted; `names` in device.c has the words by which Python knows them. */
enum counter {
    KERNELS,        /* run at once, not captured */
    WAITS,          /* of the host for the device: a stream, an event, everything */
    TO_DEVICE,      /* copies from the host */
    FROM_PAGEABLE,  /* those of them whose memory is not pinned, so that the host may wait */
    TO_HOST,        /* copies from the device */
    CAPTURES,       /* of a stream into a graph */
    GRAPH_LAUNCHES, /* replays of a graph */
    GRAPH_NODES,    /* kernels and copies of all replays */
    ILLEGAL,        /* calls that a capture forbids */
    NUM_COUNTERS
};

enum memory { ON_HOST, ON_DEVICE, PINNED };

void add(enum counter counter);
void add_many(enum counter counter, long long number);
int is_traced(void);
void tell_list(const char *format, va_list values);
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Keep an error for cudaGetLastError, and return it. */
int failed(int error);

/* Refuse a call that a capture forbids, and return the error that CUDA returns. */
int illegal(const char *call);

/* Refuse a call that no thread may make while a stream is captured; 0: nothing is captured. */
int forbidden_in_capture(const char *call);

int is_captured(void *stream);

/* Count a wait of the host for the device; nonzero: refused. */
int waited(const char *call);

/* Give a stream work; nonzero: refused. `is_kernel`: it counts as a kernel where it is not captured. */
int give_work(void *stream, int is_kernel, const char *format, ...) __attribute__((format(printf, 3, 4)));

int attribute_of_device(int attribute);
enum memory memory_of(const void *pointer);
int num_devices(void);
int current_device(void);
size_t bytes_of_device(void);
