/* NVML of a machine that says what a file holds: a line "UUID MEGABYTES" for each GPU, the memory in use. */
#include <stdio.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } Memory;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle)
{
    char name[100];
    long megabytes;
    FILE *answer = fopen(ANSWER, "r");
    int is_unknown = 6; /* NVML_ERROR_NOT_FOUND */
    while (answer && is_unknown && fscanf(answer, "%99s %ld", name, &megabytes) == 2) {
        if (strcmp(name, uuid) == 0) {
            *handle = (void *)megabytes;
            is_unknown = 0;
        }
    }
    if (answer)
        fclose(answer);
    return is_unknown;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *found)
{
    found->used = (unsigned long long)handle << 20;
    return 0;
}
