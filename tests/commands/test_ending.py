"""Ending by a signal where Python itself cannot run."""

import signal
import subprocess
import sys

# `PyDLL` holds the interpreter while its functions run, as a library does that spins for lack of memory.
PROGRAM = """
import ctypes, sys
from fadrm_hf.commands.ending import ended_by_the_system, interruptible

with interruptible(), ended_by_the_system():
    print("imports", flush=True)
    ctypes.PyDLL(None).sleep(600)
"""


def test_sigterm_ends_an_import_that_holds_the_interpreter():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "imports\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
