"""The machine of a measurement: processor, memory, accelerator, library versions. Never a host or user name."""

import json
import os
import platform
import sys
from collections.abc import Collection
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from fadrm_hf.runtime.number_format import is_native

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
    """Return processor, its capability, usable cores, memory in bytes and accelerator (None: there is none)."""
    return {
        "cpu": _processor(),
        "capability": _capability(),
        "cores": len(_usable_cores()),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def busy_share(seconds: float = 0.3) -> float:
    """Return the share in [0, 1] of the cores this process may use that others are using, while it waits so long."""
    of_each = psutil.cpu_percent(seconds, percpu=True)
    shares = [of_each[core] for core in _usable_cores() if core < len(of_each)] or of_each
    return sum(shares) / len(shares) / 100


def _usable_cores() -> Collection[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def waiting_threads(busy: float | None = None) -> str | None:
    """Say that threads will wait for each other, and how many would not; `None` where that is no matter.

    A step of a small network ends when its last thread does, and a thread whose core other work has comes last: beside
    work on both of two cores, steps of a narrow ResNet-10 took 20 to 30 times as long in two threads as in one.

    Args:
        busy: Share in [0, 1] of the cores that other work is using; `None`: it is measured (`busy_share`).
    """
    threads = torch.get_num_threads()
    if threads == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    busy, cores = busy_share() if busy is None else busy, len(_usable_cores())
    free = max(1, int(cores * (1 - busy) + 0.5))
    if threads <= free:
        return None
    return (
        f"other work is using {busy:.0%} of this machine's {cores} cores: the {threads} threads of this command "
        "will wait for each other, with small networks many times as long as they work; "
        f"OMP_NUM_THREADS={free} in front of the command avoids that"
    )


def library_versions() -> dict[str, str]:
    """Return versions of Python and of the libraries that results depend on, and the commit of this one if known."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = _commit()
    return versions | ({"fadrm_hf_commit": commit} if commit else {})


def reset_peak_memory() -> None:
    """Let `peak_memory_bytes` count from now on, where the system can: on a GPU, and on Linux."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        _CLEAR_PEAK.write_text("5")


def peak_memory_bytes() -> int:
    """Return the largest resident size since the last reset; on a GPU, the most that tensors took there."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    """Return what psutil knows on Windows alone: the largest resident size of this process."""
    with suppress(OSError):  # Linux, whose figure can be reset
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # which Windows lacks

    kilo = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def _commit() -> str | None:
    """Return the commit that this library was installed from, or that its checkout is at; `None` for a release.

    Uncommitted changes are not seen: git is not started.
    """
    with suppress(PackageNotFoundError, ValueError, AttributeError):
        origin = json.loads(Distribution.from_name("fadrm_hf").read_text("direct_url.json") or "{}")
        if commit := origin.get("vcs_info", {}).get("commit_id"):
            return str(commit)
    with suppress(OSError):
        return head_commit(Path(__file__).parents[2] / ".git")
    return None


def head_commit(git: Path) -> str | None:
    """Return the commit that is checked out where `.git` is a repository's folder, or a worktree's file."""
    if git.is_file():
        git = git.parent / git.read_text().removeprefix("gitdir:").strip()
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name, common = head.removeprefix("ref: "), git / "commondir"
    shared = git / common.read_text().strip() if common.exists() else git
    if (shared / name).exists():
        return (shared / name).read_text().strip()
    packed = (line.split() for line in (shared / "packed-refs").read_text().splitlines())
    return next((words[0] for words in packed if words[1:] == [name]), None)


def _capability() -> str:
    """Return the vector instructions of torch's own kernels, and whether oneDNN has some for bf16.

    With others, sums are rounded in another order, and the same recipe gives other last bits.
    """
    name = torch.backends.cpu.get_cpu_capability()
    return f"{name} with bf16" if is_native(torch.bfloat16, "cpu") else name


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
