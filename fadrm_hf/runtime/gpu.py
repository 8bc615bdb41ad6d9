"""The GPU of a process that no launcher gave one: on a machine with several, one that nobody uses.

Memory in use tells of other programs, and a lock for each GPU of processes of this library that have just begun and
use none yet. So plain commands that are started at once, side by side, spread over the GPUs.
"""

import ctypes
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fadrm_hf.runtime.terminal import progress

_IDLE_MEGABYTES = 1024  # what a driver may take of a GPU that nobody uses
_NVML = "libnvidia-ml.so.1"  # comes with the driver; its functions return 0 where they succeed


class _Memory(ctypes.Structure):
    """Bytes of a GPU's memory (`nvmlMemory_t`)."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


_held: list[FileLock] = []  # until the process ends


@cache
def take_gpu() -> torch.device:
    """Return the GPU that this process uses from now on, and say in a line which it is, if there are several."""
    num = torch.cuda.device_count()
    if num == 1:
        return torch.device("cuda")
    names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(num)]
    used = _used_megabytes(names)
    megabytes = [used.get(name, 0) for name in names]
    order = sorted(range(num), key=lambda index: (megabytes[index] // _IDLE_MEGABYTES, index))
    index = next((index for index in order if _hold(names[index])), order[0])
    is_free = bool(_held) and megabytes[index] < _IDLE_MEGABYTES
    state = "which nobody uses" if is_free else f"all are in use, and {megabytes[index]:,} MB of this one"
    title = torch.cuda.get_device_name(index)
    progress.print(f"GPU {index} of {num} ({title}): {state}", highlight=False, markup=False, soft_wrap=True)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _hold(uuid: str) -> bool:
    """Lock a GPU until this process ends, unless another process has."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"fadrm_hf-gpu-{uuid}.lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):  # somebody has it, perhaps another user, whose files are not ours to open
        return False
    _held.append(lock)
    return True


def _used_megabytes(uuids: Sequence[str]) -> dict[str, int]:
    """Return by UUID the memory in use of each GPU that the driver's library (NVML) tells it of."""
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:
        return {}
    if nvml.nvmlInit_v2():
        return {}
    used, handle, memory = {}, ctypes.c_void_p(), _Memory()
    for uuid in uuids:
        is_unknown = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode(), ctypes.byref(handle))
        if not is_unknown and not nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
            used[uuid] = memory.used >> 20
    nvml.nvmlShutdown()
    return used
