"""What a measurement was made on: processor, memory, accelerator, library versions. Never a host or user name."""

import os
import platform
import resource
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_CLEAR_PEAK = Path("/proc/self/clear_refs")
LIBRARIES = (
    "accelerate",
    "datasets",
    "fadrm_hf",
    "huggingface_hub",
    "numpy",
    "pyarrow",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
    "transformers",
)


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory in bytes and accelerator (None: there is none)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _processor(),
        "cores": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def reset_peak_memory() -> None:
    """Let `peak_memory_bytes` count from now on, where the system can: on a GPU, and on Linux."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        _CLEAR_PEAK.write_text("5")


def peak_memory_bytes() -> int:
    """Largest resident size of this process since the last reset; on a GPU, the most its tensors took there."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    peak = process_bytes("VmHWM")  # unlike getrusage's, it can be reset
    if peak is not None:
        return peak
    kilo = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def process_bytes(name: str, process: int | str = "self") -> int | None:
    """A figure of a process's memory as Linux gives it, e.g. "RssAnon"; `None` where it gives none."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
