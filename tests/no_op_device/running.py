"""Running a function of a test on the no-op device: in a process of its own, which loads the device before torch."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


class NoOpDevice:
    """A device that `building.build` has built.

    Args:
        folder: Where it was built; compiled kernels are kept there, too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, function: Callable[..., Any], *arguments: Any, **settings: str) -> Any:
        """Call a function of a module of the tests on the device, and return what it returns.

        Args:
            function: Returns what JSON can hold; what it measures comes from `watching.watch`.
            arguments: What JSON can hold.
            settings: Variables of the environment: NO_OP_BYTES and NO_OP_DEVICES (`device.c`), or others.

        Raises:
            AssertionError: The process failed, or did what a capture forbids.
        """
        file = inspect.getsourcefile(function)
        program = (sys.executable, "-m", "no_op_device.child", file, function.__name__, json.dumps(arguments))
        ended = subprocess.run(program, env=self._environment() | settings, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-8000:]
        return json.loads(ended.stdout.splitlines()[-1])

    def _environment(self) -> dict[str, str]:
        paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
        return os.environ | {
            "LD_PRELOAD": str(self.folder / "libcuda.so.1"),
            "LD_LIBRARY_PATH": str(self.folder),
            "TRITON_LIBCUDA_PATH": str(self.folder),
            "TRITON_CACHE_DIR": str(self.folder / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
