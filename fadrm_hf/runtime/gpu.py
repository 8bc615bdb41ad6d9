"""The GPU of a process that no launcher gave one: on a machine with several, one that nobody uses.

Memory in use tells of other programs, and a lock for each GPU of processes of this library that have just begun and
use none yet. So plain commands that are started at once, side by side, spread over the GPUs.
"""

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fadrm_hf.runtime.terminal import progress

_IDLE_MEGABYTES = 1024  # what a driver may take of a GPU that nobody uses
_QUERY = ("nvidia-smi", "--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits")

_held: list[FileLock] = []  # until the process ends


@cache
def take_gpu() -> torch.device:
    """Return the GPU that this process uses from now on, and say in a line which it is, if there are several."""
    num = torch.cuda.device_count()
    if num == 1:
        return torch.device("cuda")
    used, names = _used_megabytes(), [str(torch.cuda.get_device_properties(index).uuid) for index in range(num)]
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


def _used_megabytes() -> dict[str, int]:
    """Return by UUID how much of each GPU's memory is in use; nothing if the driver's program does not say."""
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=60, check=True).stdout
        rows = [line.rsplit(",", 1) for line in answer.splitlines() if line.strip()]
        return {uuid.strip().removeprefix("GPU-"): int(used) for uuid, used in rows}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
