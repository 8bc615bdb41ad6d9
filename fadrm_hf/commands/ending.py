"""Ending a command by a signal: at once, whatever it does, and with a message on how to resume.

SIGINT is Ctrl-C; SIGTERM is what SLURM, Kubernetes and launchers send. Nothing has to be saved, so that a process
which cannot be interrupted, because it waits for others or computes outside of Python, simply ends.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.output import fail

_GRACE = 1.0  # seconds for an orderly end
_SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}


class Ended(KeyboardInterrupt):
    """End of the process by a signal; libraries know it as Ctrl-C.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def explain_signal(number: int) -> tuple[str, ExitCode]:
    """Return why a signal ends a command and how to resume; and the exit code by which shells know the signal."""
    return f"{_SIGNALS[signal.Signals(number)]}; run the same command again to resume", ExitCode(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Ended` in the block at a signal; if it still runs a second later, end the process.

    Only the main thread hears signals; elsewhere, and where signals are handled otherwise already, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    expected = (signal.SIG_DFL, signal.default_int_handler)
    own = [number for number, handler in before.items() if handler in expected]
    heard, ear = socket.socketpair()
    ear.setblocking(False)
    wakeup = signal.set_wakeup_fd(ear.fileno(), warn_on_full_buffer=False)
    for number in own:
        signal.signal(number, _end)
    watch = threading.Thread(target=_watch, args=(heard, frozenset(own)), daemon=True)
    watch.start()
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(wakeup)
        ear.close()
        watch.join()
        heard.close()


@contextmanager
def ended_by_the_system() -> Iterator[None]:
    """Let SIGTERM end the process in the block without a word, as the system does where nobody listens.

    For imports: they compute nothing, and native code that never lets go of the interpreter, as that of a linear
    algebra library which is refused memory, would keep every handler and every thread of Python from running.
    """
    is_ours = signal.getsignal(signal.SIGTERM) is _end and threading.current_thread() is threading.main_thread()
    if is_ours:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


def _watch(heard: socket.socket, own: frozenset[int]) -> None:
    """Wait for the system's note of a signal, which comes even while Python cannot run its handler."""
    while numbers := heard.recv(1):
        if numbers[0] not in own:
            continue
        heard.settimeout(_GRACE)
        try:
            while heard.recv(1):
                pass
        except TimeoutError:
            message, code = explain_signal(numbers[0])
            fail(message)
            os._exit(code)
        return
