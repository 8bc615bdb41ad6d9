"""The launcher that started this process, and what to do when it is gone."""

import os
import signal
import threading
import time
from functools import cache

# Set by torchrun and by accelerate launch for the processes that they start.
_LAUNCHED = ("TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_BACKEND")
_LOOK_EVERY = 5.0  # seconds


@cache  # one watch, however often a process joins its launch
def end_with_launcher(look_every: float = _LOOK_EVERY) -> None:
    """End this process in order, as by SIGTERM, once its launcher is gone: nobody would end it otherwise.

    A launcher that ends by itself, or by Ctrl-C, takes its processes along; one that is killed with SIGKILL or by the
    system for lack of memory does not. A process that was not launched is left alone.

    Args:
        look_every: Seconds between two looks.
    """
    if not any(name in os.environ for name in _LAUNCHED):
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(look_every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="launcher", daemon=True).start()
