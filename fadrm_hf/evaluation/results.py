"""Evaluations on file: one JSON file each, filed with the artifact, from which the card's numbers come.

Those of an artifact on the Hub are in a folder of their own, for its copy on this machine is a cache.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.config import StudentConfig
from fadrm_hf.errors import RunFolderError
from fadrm_hf.evaluation.measured_tables import counted
from fadrm_hf.evaluation.scorecard import renewed
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.report.card.results import Result, read_results
from fadrm_hf.report.card.scores import Scores, read_scores
from fadrm_hf.report.renewal import changing, filing
from fadrm_hf.runtime.files import read_json, write_json
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder, WorkFolder, require_place


@dataclass(frozen=True)
class ResultFolder:
    """The folder of an artifact's evaluations, and of the work of making them.

    Attributes:
        location: The artifact.
        folder: Results go to `results/` in it; unfinished work is next to it.
    """

    location: Location
    folder: Path

    @property
    def work(self) -> WorkFolder:
        """Checkpoints and log."""
        return WorkFolder(self.folder)

    def add(self, result: Result) -> Path:
        """File an evaluation; one of the same kind that was there before is replaced, but not a number by a trial.

        Args:
            result: What `train_students` returned, with the command that made it. That of an artifact on the Hub is
                filed with the repository and the commit.

        Returns:
            The result's file. It is in the work folder if it was made by other settings than the artifact's own, and
            the one on file by these.
        """
        folder, name = self.folder, result_name(result)
        if self._is_trial(result):
            folder, name = self.work.path, f"{name}-{_digest(result)}"
        elif folder == self.location.folder:
            return record_result(folder, result)
        path = RunFolder(folder).result(name)
        with filing(folder, Reporter().say):
            write_json(path, result | self._origin)
        return path

    def add_scores(self, scores: Scores) -> Path:
        """File the scores, in place of those that were there."""
        return self._put(RunFolder(self.folder).scores, scores.as_plain())

    def add_analysis(self, analysis: dict[str, Any]) -> Path:
        """File what was measured of the theorems (`fadrm_hf.evaluation.analysis`), in place of what was there."""
        return self._put(RunFolder(self.folder).analysis, analysis)

    def find(self, known: Result) -> Path | None:
        """Return the evaluation of this very artifact that is filed here already; see `find_result`."""
        known = known | self._origin
        return find_result(self.folder, known) or find_result(self.work.path, known)

    def _is_trial(self, result: Result) -> bool:
        """Return whether a result would replace one by the artifact's own settings, and was made by others."""
        on_file = read_json(RunFolder(self.folder).result(result_name(result)))
        own = asdict(self.location.manifest.settings("student", StudentConfig))
        return on_file is not None and _keeps_to(on_file, own) and not _keeps_to(result, own)

    @property
    def _origin(self) -> Result:
        name = pinned_repository(self.location)
        return {"artifact": {"repository": name.id, "revision": name.revision}} if name else {}

    def _put(self, path: Path, document: dict[str, Any]) -> Path:
        is_own = self.folder == self.location.folder
        with (changing if is_own else filing)(self.folder, Reporter().say):
            write_json(path, document)
        return path


def result_folder(location: Location, output: str | None = None) -> ResultFolder:
    """Return the folder for an artifact's evaluations.

    Args:
        location: The artifact.
        output: Folder that is asked for; the artifact itself, or `runs/ORG--NAME` for one on the Hub, if none is.

    Raises:
        RunFolderError: If nothing can be written there, or it holds another artifact.
    """
    name = pinned_repository(location)
    default = location.folder if name is None else Path("runs") / name.id.replace("/", "--")
    folder = Path(output) if output else default
    folder = location.folder if folder.resolve() == location.folder.resolve() else folder
    require_place(folder)
    if folder != location.folder and RunFolder(folder).is_finished:
        raise RunFolderError(
            f"{folder} is another artifact, expected a folder for the results of {location.name}; set --output to "
            "another folder"
        )
    return ResultFolder(location, folder)


def record_result(folder: Path, result: Result) -> Path:
    """File an evaluation with the artifact, and bring its scores, card and manifest up to date.

    Args:
        folder: The artifact.
        result: What `train_students` returned, with the command that made it.

    Returns:
        The result's file. An evaluation of the same kind that was there before is replaced.
    """
    path = RunFolder(folder).result(result_name(result))
    with changing(folder, Reporter().say):
        write_json(path, result)
        if (scores := read_scores(folder)) is not None:
            scores = renewed(scores, read_results(folder), read_manifest(folder))
            write_json(RunFolder(folder).scores, scores.as_plain())
    return path


def find_result(folder: Path, known: Result) -> Path | None:
    """Return the evaluation on file that began like this one, so that it need not be made again.

    Args:
        folder: The folder with `results/`.
        known: What is known of an evaluation before students are trained (`result_header`).

    Returns:
        Its file; `None` where there is none. Results that others have sent do not count.
    """
    wanted = _as_recorded(known)
    for path, result in zip(RunFolder(folder).results(), read_results(folder), strict=True):
        began = _as_recorded({name: result.get(name) for name in known})
        if not result.get("contributed") and began == wanted:
            return path
    return None


def result_name(result: Result) -> str:
    """Return the name that tells an artifact's evaluations apart: images, labels, protocol, student."""
    return "-".join((result["images"], result["labels"], result["protocol"], result["student"].replace("/", "_")))


def describe_result(result: Result) -> str:
    """Describe accuracies of the last epoch in one line, and the best epoch called what it is."""
    top1, top5, best = (result[name] for name in ("top1", "top5", "best_epoch_top1"))
    chosen = f"; best epoch, chosen on the test images: {best['mean']:.1%}" if best else ""
    return (
        f"{result['student']}, {result['labels']} labels, {result['epochs']} epochs: "
        f"top-1 {_in_percent(top1, result['num_seeds'])}, top-5 {_in_percent(top5, result['num_seeds'])} "
        f"(last epoch, {counted(result['num_seeds'], 'seed')}){chosen}"
    )


def _in_percent(summary: dict[str, float], num_seeds: int) -> str:
    """Return an accuracy in percent; of one seed no deviation is known."""
    return f"{summary['mean']:.1%}" + (f" ± {summary['std']:.1%}" if num_seeds > 1 else "")


def _as_recorded(known: Result) -> Result:
    """Return what decides a result, as JSON gives it back; settings younger than the result have their defaults."""
    settings = asdict(StudentConfig()) | (known["settings"] or {})
    decisive = {name: value for name, value in settings.items() if name != "num_workers"}
    return json.loads(json.dumps(known | {"settings": decisive}))


def _keeps_to(result: Result, own: dict[str, Any]) -> bool:
    """Return whether a result was made by these settings, whatever the labels and with no fewer seeds."""
    free = {"labels": None, "num_seeds": None}
    made = result.get("settings") or {}
    same = _as_recorded({"settings": made | free}) == _as_recorded({"settings": own | free})
    return same and made.get("num_seeds", 0) >= own["num_seeds"]


def _digest(result: Result) -> str:
    text = json.dumps(_as_recorded({"settings": result["settings"]}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
