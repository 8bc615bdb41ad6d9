"""Curves of a run while it runs, in any tracker that accelerate knows: TensorBoard, Weights & Biases, Trackio, ...

The trackers are accelerate's own classes. They are given the numbers that bars and log show anyway, so nothing is read
from a device for them, by the main process alone.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from fadrm_hf.config.plain_data import flatten
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.runtime.run_folder import CURVES, WORK
from fadrm_hf.runtime.terminal import letting_others_speak

_STEPS_OF_THEIR_OWN = ("wandb",)  # one step for all curves, which must not go back when a stage begins at 1
# Trackers to which accelerate hands the name of a run as that of its project: all runs share one, by their own names.
_WITH_PROJECTS = ("trackio", "wandb")
_PROJECT = "fadrm-hf"


class Curves:
    """One run in a tracker.

    Args:
        tracker: Its name, as accelerate spells it, e.g. "tensorboard".
        run: What the run is called there.
        folder: Where trackers that write files write them, below a folder with the run's name.

    Raises:
        ConfigError: If there is no such tracker, or its package is not installed.
    """

    def __init__(self, tracker: str, run: str, folder: Path) -> None:
        if tracker not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"{unknown('tracker', tracker, LOGGER_TYPE_TO_CLASS)}; set --tracker")
        available = [str(kind) for kind in get_available_trackers()]
        if tracker not in available:
            raise ConfigError(
                f"--tracker {tracker} needs the package {tracker}, which is not installed: pip install {tracker}, or "
                f"choose among those that are: {', '.join(available) or 'none'}"
            )
        self._kind: type[GeneralTracker] = LOGGER_TYPE_TO_CLASS[tracker]
        self._run, self._folder = run, folder
        self._tracker: GeneralTracker | None = None

    @property
    def place(self) -> str:
        """Where the curves are, for people."""
        if self._kind.requires_logging_directory:
            return str(self._folder)
        project = f"project {_PROJECT}, " if self._kind.name in _WITH_PROJECTS else ""
        return f"{self._kind.name}, {project}run {self._run}"

    @contextmanager
    def recording(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Take up what is logged in the block.

        Args:
            settings: What the run was asked for, nested as in a configuration file.

        Raises:
            ConfigError: If the tracker does not start, whatever its reason.
        """
        try:
            with letting_others_speak():
                tracker = self._started(settings)
        except Exception as error:  # every tracker has errors of its own
            raise ConfigError(
                f"--tracker {self._kind.name} does not start ({type(error).__name__}: {error}); log in to it, see "
                f"that {self._folder} can be written to, or choose another tracker"
            ) from error
        self._tracker = tracker
        try:
            yield
        finally:
            self._tracker = None
            with letting_others_speak():
                self._finish(tracker)

    def _started(self, settings: Mapping[str, Any]) -> GeneralTracker:
        where = {"logging_dir": str(self._folder)} if self._kind.requires_logging_directory else {}
        if where:
            self._folder.mkdir(parents=True, exist_ok=True)
        if self._kind.name in _WITH_PROJECTS:
            tracker = self._kind(_PROJECT, name=self._run)
        else:
            tracker = self._kind(self._run, **where)
        if hasattr(tracker, "start"):  # older trackers of accelerate start as they are made
            tracker.start()
        plain = (bool, int, float, str)  # trackers take nothing else
        flat = flatten(settings).items()
        tracker.store_init_configuration({name: v if isinstance(v, plain) else json.dumps(v) for name, v in flat})
        return tracker

    def _finish(self, tracker: GeneralTracker) -> None:
        # Of Trackio, accelerate's class ends the run alone: it would end once more, aloud, when Python does.
        ended_by = import_module("trackio") if self._kind.name == "trackio" else tracker
        ended_by.finish()

    def log(self, curve: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves `curve/NAME`; nothing happens where nothing is recorded."""
        if self._tracker is None:
            return
        points = {f"{curve}/{name}": value for name, value in values.items()}
        if self._kind.name in _STEPS_OF_THEIR_OWN:
            self._tracker.log(points | {f"{curve}/step": step})
        else:
            self._tracker.log(points, step=step)


def curves_of(tracker: str | None, work: Path) -> Curves | None:
    """Return the curves of the run with the work folder `work`, if a tracker is asked for; see `Curves`."""
    return None if tracker is None else Curves(tracker, work.name.removesuffix(WORK), work / CURVES)


def recording(curves: Curves | None, settings: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Return `Curves.recording`, if there are any."""
    return nullcontext() if curves is None else curves.recording(settings)
