"""Building the no-op device with this machine's C compiler, for the torch and the Triton of this environment."""

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch

HERE = Path(__file__).parent
_CUDA = "13"  # the version whose structures device.c and memory.c fill
_IMPORTED = re.compile(r"_*(?:cu[A-Z]|cuda|cublas|cudnn|cufft|cusolver|cusparse)\w*")
_CREATES = re.compile(r"(?:cublas|cudnn|cusolverDn|cusparse)\w*Create")  # an object, through its first argument


def why_not() -> str | None:
    """Return why the device cannot be built here; `None` if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the no-op device is made for Linux on x86-64"
    if torch.version.cuda is None or torch.version.cuda.split(".")[0] != _CUDA:
        return f"torch is built for CUDA {torch.version.cuda}; the no-op device is one of CUDA {_CUDA}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if missing := [name for name in ("gcc", "nm") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are missing, without which Triton starts no kernel"
    return None


def build(folder: Path) -> None:
    """Build `libcuda.so.1` in a folder: driver, runtime and libraries, to be loaded before the real ones.

    What torch and Triton import beyond what the files here define becomes a function that does nothing.
    """
    include = _triton() / "include"
    objects = [folder / f"{source.stem}.o" for source in sorted(HERE.glob("*.c"))]
    for made in objects:
        source = HERE / f"{made.stem}.c"
        _run("gcc", "-O1", "-fPIC", "-fvisibility=hidden", f"-I{include}", "-c", source, "-o", made)
    own = {name for made in objects for name in _symbols(made, "--defined-only")}
    (folder / "rest.c").write_text(_do_nothing(sorted(_imported() - own)))
    library = folder / "libcuda.so.1"
    _run("gcc", "-fPIC", "-shared", "-w", folder / "rest.c", *objects, "-o", library, "-ldl", "-lpthread")


def _imported() -> set[str]:
    """Return the functions of CUDA's libraries that torch imports, and those of the driver that Triton asks for."""
    libraries = Path(torch.__file__).parent.joinpath("lib").glob("*.so")
    names = {name for library in libraries for name in _symbols(library, "--dynamic", "--undefined-only")}
    driver = set(re.findall(r"\bcu[A-Z]\w+", (_triton() / "driver.c").read_text()))
    return {name for name in names if _IMPORTED.fullmatch(name)} | driver


def _do_nothing(names: Sequence[str]) -> str:
    creates = "int {}(void **made) {{ *made = calloc(1, 4096); return 0; }}"
    lines = [(creates if _CREATES.match(name) else "int {}(void) {{ return 0; }}").format(name) for name in names]
    return "\n".join(["#include <stdlib.h>", *lines, ""])


def _symbols(library: Path, *options: str) -> list[str]:
    listed = _run("nm", *options, library)
    return [line.split()[-1].partition("@")[0] for line in listed.splitlines() if line]


def _triton() -> Path:
    found = importlib.util.find_spec("triton")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "backends" / "nvidia"


def _run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
