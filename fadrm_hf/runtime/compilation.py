"""Functions compiled to machine code where that is possible: C++ on a CPU, Triton on a GPU.

Compiling costs seconds to minutes once per machine (torch caches results on disk), so it is meant for long work. Where
there is no compiler everything runs as it is written, slower and with the same mathematics.
"""

import importlib.util
import shutil
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import ParamSpec, TypeVar, cast

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_COMPILERS = ("g++", "clang++", "c++")  # in the order in which torch looks for one


@cache
def can_compile(device_type: str) -> bool:
    """Return whether torch can compile for a device: "cpu" needs a C++ compiler, "cuda" Triton and a C compiler."""
    if device_type == "cuda":
        has_compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
        return has_compiler and importlib.util.find_spec("triton") is not None
    return device_type == "cpu" and any(shutil.which(name) for name in _COMPILERS)


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
