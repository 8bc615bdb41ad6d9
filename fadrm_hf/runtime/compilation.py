"""Functions compiled to machine code where that is possible: C++ on a CPU, Triton on a GPU.

Compiling costs seconds to minutes once per machine (torch caches results on disk), so it is meant for long work. Where
there is no compiler everything runs as it is written, slower and with the same mathematics.
"""

import importlib.util
import shutil
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import ParamSpec, TypeVar, cast

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_COMPILERS = {"cpu": ("g++", "clang++", "c++"), "cuda": ("cc", "gcc", "clang")}  # in the order of torch and Triton


def can_compile(device_type: str) -> bool:
    """Return whether torch can compile for a device; see `missing_for`."""
    return missing_for(device_type) is None


@cache
def missing_for(device_type: str) -> str | None:
    """Return what is missing to compile for a device, in words; `None` if nothing is.

    "cpu" needs a C++ compiler, "cuda" Triton and a C compiler. Both link what they make to Python.
    """
    if device_type not in _COMPILERS:
        return f"a compiler for {device_type}"
    if not any(shutil.which(name) for name in _COMPILERS[device_type]):
        return f"a compiler ({' or '.join(_COMPILERS[device_type])})"
    if device_type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton"
    # Debian's own Python has a scheme for what is installed locally; Triton passes over it.
    folders = [sysconfig.get_path("include"), sysconfig.get_path("include", "posix_prefix")]
    if not any(Path(folder, "Python.h").exists() for folder in folders):
        return f"Python's headers (Python.h in {folders[0]}; Debian's package is python3-dev)"
    return None


def eager_instead(device_type: str) -> str | None:
    """Return what to print before a recovery that cannot be compiled here and should be; `None` where it can be."""
    missing = missing_for(device_type)
    if missing is None:
        return None
    return f"recover.form is compiled, for which this machine lacks {missing}: steps are eager, the same and slower"


def compiled(function: Callable[Parameters, Result], dynamic: bool | None = None) -> Callable[Parameters, Result]:
    """Return a function of tensors that is compiled at its first call.

    Args:
        function: What to compile, without side effects.
        dynamic: Whether one piece of code serves all shapes; `None`: as torch sees fit.
    """
    _separate_kinds_of_processor()
    # A code object of its own: functions made in one place share theirs, and torch compiles each only so often.
    own = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return cast(Callable[Parameters, Result], torch.compile(own, dynamic=dynamic))


@cache
def _separate_kinds_of_processor() -> None:
    """Have torch's cache on disk tell vector instructions apart, which its keys do not (2.6 to 2.15, at least).

    Code generated for vectors of 8 numbers and compiled for those of 16 writes beyond its tensors; the reverse leaves
    half of them out. That happens where machines share the cache, or ATEN_CPU_CAPABILITY changes.
    """
    settings = torch.compiler.config
    settings.cache_key_tag = f"{settings.cache_key_tag}{torch.backends.cpu.get_cpu_capability()}"
