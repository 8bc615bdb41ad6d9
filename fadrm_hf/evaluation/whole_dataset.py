"""What there is to reach: students trained on all real images with hard labels (FADRM, Tables 1 and 7).

They are trained by the recipe that teachers are trained by, each seed as a network of its own that stays on disk, so
that what was interrupted goes on from its last epoch and what is finished is used again.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
from accelerate import PartialState

from fadrm_hf.config import SqueezeConfig
from fadrm_hf.config.datasets import preset_of
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError, FadrmError, StudentError
from fadrm_hf.evaluation.published import published_bound
from fadrm_hf.evaluation.results import result_name
from fadrm_hf.evaluation.student_table import BOUND, StudentRow, write_student_table
from fadrm_hf.networks.students import architecture_of_student, check_student, count_parameters
from fadrm_hf.networks.teachers import load_teacher
from fadrm_hf.networks.teachers.squeeze import squeeze, squeeze_fingerprint
from fadrm_hf.networks.teachers.teacher import squeezed_folder
from fadrm_hf.report.card.results import Result
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import from_all, mine
from fadrm_hf.training.accuracy import predict, topk_accuracy
from fadrm_hf.training.one_student import Outcome, TestImages
from fadrm_hf.training.train_student import summarise_outcomes


@dataclass(frozen=True)
class Bound:
    """Students to be trained on a whole dataset.

    Attributes:
        source: The dataset.
        students: Full names, in the order of the table.
        recipe: How they are trained, with nothing left open.
        num_seeds: How many of each.
        networks: Where trained networks are kept.
        output: The table's name without suffix; results are filed beside it, in a folder of that name.
        table: The table's name where it is another one.
    """

    source: Source
    students: Sequence[str]
    recipe: SqueezeConfig
    num_seeds: int
    networks: Path
    output: Path
    table: Path | None = None

    def check(self) -> None:
        """Refuse all that cannot work before anything is trained.

        Raises:
            ConfigError: If a student does not fit the images or is none of timm's; every one is named.
            SourceError: If there are no test images.
        """
        self.source.rows("test")
        wrong = []
        for student in self.students:
            try:
                check_student(student, len(self.source.class_map), self.source.size)
                _require_in_timm(student, self.source.size)
            except FadrmError as error:
                wrong.append(f"{student}: {error}")
        if wrong:
            raise ConfigError("\n".join(wrong))

    def row(self, student: str, result: Result) -> StudentRow:
        """A student's line of the table, beside the published bound of its size of images."""
        preset, recipe = preset_of(self.source.config), self.recipe
        dataset = preset.name if preset and preset.size == self.source.size else None
        published = published_bound(dataset, student)
        parameters = count_parameters(student, len(self.source.class_map), self.source.size)
        setting = f"SGD {recipe.lr:g}, batch {recipe.batch_size}{', CutMix' if recipe.cutmix else ''}"
        return StudentRow(result, parameters, setting, {BOUND: published} if published else {})


def measure_bound(bound: Bound, command: str, reporter: Reporter, state: PartialState) -> list[StudentRow]:
    """Train every student that has no result yet; the table is written after each, with those that are done by then.

    The seeds of a student are divided over all processes.

    Args:
        bound: What is trained, checked.
        command: What was typed, for the record.
        reporter: Shows and logs epochs.
        state: The processes, each with the device that its students train on.

    Returns:
        The rows of the table, in every process.

    Raises:
        TeacherError: If a training diverges.
    """
    finished = [_result_on_file(bound, student) for student in bound.students]
    state.wait_for_everyone()  # nobody files a result before everybody has looked
    rows: list[StudentRow] = []
    for number, (student, found) in enumerate(zip(bound.students, finished, strict=True), start=1):
        reporter.say(f"{number}/{len(finished)} {student}{': its result is there' if found else ''}")
        result = found or train_on_everything(
            bound.source, student, bound.recipe, bound.networks, bound.num_seeds, reporter, state
        )
        rows.append(bound.row(student, result))
        if state.is_main_process:
            if found is None:
                known = _identity(bound, student) | {"source": _source_record(bound.source), "command": command}
                write_json(_file_of(bound, student), result | known)
            write_student_table(rows, _title(bound), command, bound.table or bound.output)
    state.wait_for_everyone()
    return rows


def train_on_everything(
    source: Source,
    student: str,
    recipe: SqueezeConfig,
    networks: Path,
    num_seeds: int,
    reporter: Reporter,
    state: PartialState,
) -> Result:
    """A student's network, trained on all real images; one training per seed, divided over all processes.

    Args:
        source: The dataset.
        student: Full name.
        recipe: How it is trained, with nothing left open.
        networks: Where trained networks are kept.
        num_seeds: How many are trained.
        reporter: Shows and logs epochs.
        state: The processes.

    Returns:
        The result as `results/*.json` holds it, without the command.

    Raises:
        TeacherError: unknown architecture, or the loss is not finite.
    """
    architecture = architecture_of_student(student, source.size)
    own: dict[int, Outcome] = {}
    test = TestImages(source, state.device)
    for seed in mine(range(num_seeds), state):
        started = time.monotonic()
        folder = networks / f"whole-{squeezed_folder(source, architecture, recipe, networks, seed).name}"
        squeeze(source, architecture, recipe, folder, seed, reporter, state.device)
        logits = predict(load_teacher(f"timm/local-dir:{folder}", state.device).module, test)
        top1, top5 = (topk_accuracy(logits, test.labels, k) for k in (1, 5))
        own[seed] = Outcome(top1, top5, None, time.monotonic() - started)
    return {
        "protocol": "squeeze",
        "student": student,
        "images": "whole",
        "labels": "hard",
        "epochs": recipe.epochs,
        "num_images": len(source.train),
        "settings": asdict(recipe),
    } | summarise_outcomes(from_all(own, state), test)


def _require_in_timm(student: str, size: int) -> None:
    if not timm.is_model(architecture_of_student(student, size)):
        raise StudentError(
            f"student {student!r} is none of timm's, as whose models networks are kept; choose one of timm's with "
            "--student.student"
        )


def _identity(bound: Bound, student: str) -> dict[str, Any]:
    """By which a result on file is known to be of this dataset, recipe and network."""
    architecture = architecture_of_student(student, bound.source.size)
    return {"fingerprint": squeeze_fingerprint(bound.source, architecture, bound.recipe, 0)}


def _source_record(source: Source) -> dict[str, Any]:
    """What the dataset is, for who reads the result by itself."""
    preset = preset_of(source.config)
    name, known = source.config.public_name, preset.name if preset else None
    classes = None if source.config.classes is None else list(source.config.classes)
    return {"name": name, "revision": source.revision, "preset": known, "size": source.size, "classes": classes}


def _file_of(bound: Bound, student: str) -> Path:
    known = {"images": "whole", "labels": "hard", "protocol": "squeeze", "student": student}
    return bound.output / f"{result_name(known)}.json"


def _result_on_file(bound: Bound, student: str) -> Result | None:
    try:
        result = json.loads(_file_of(bound, student).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"{_file_of(bound, student)} is damaged ({error}); remove it, and its students are measured again"
        ) from error
    wanted = _identity(bound, student) | {"num_seeds": bound.num_seeds}
    return result if all(result.get(name) == value for name, value in wanted.items()) else None


def _title(bound: Bound) -> str:
    return f"Students trained on the whole dataset {Path(bound.source.config.name).name}"
