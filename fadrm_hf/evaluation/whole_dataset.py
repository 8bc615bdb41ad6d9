"""The upper bound: students trained on all real images with hard labels (FADRM, Tables 1 and 7).

They are trained by the recipe that teachers are trained by, each seed as a network of its own that stays on disk, so
that an interrupted call resumes from its last epoch and finished networks are reused.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
from accelerate import PartialState

from fadrm_hf.config import SqueezeConfig
from fadrm_hf.config.datasets import preset_of
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError, StudentError
from fadrm_hf.evaluation.published import published_whole_dataset
from fadrm_hf.evaluation.results import result_name
from fadrm_hf.evaluation.student_study import WHOLE, StudentRow, StudentStudy, tabled_dataset
from fadrm_hf.evaluation.study import Session, check_each
from fadrm_hf.networks.students import architecture_of_student, check_student, count_parameters
from fadrm_hf.networks.teachers import load_teacher
from fadrm_hf.networks.teachers.squeeze import squeeze, squeeze_fingerprint
from fadrm_hf.networks.teachers.teacher import squeezed_folder
from fadrm_hf.report.card.results import Result
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import from_all, mine
from fadrm_hf.training.accuracy import predict, topk_accuracy
from fadrm_hf.training.one_student import Outcome
from fadrm_hf.training.testing import TestImages
from fadrm_hf.training.train_student import summarise_outcomes

_KIND = {"images": "whole", "labels": "hard", "protocol": "squeeze"}


@dataclass(frozen=True)
class WholeDataset(StudentStudy):
    """Students to be trained on a whole dataset.

    Attributes:
        source: The dataset.
        students: Full names, in the order of the table.
        recipe: How they are trained, with nothing left open.
        num_seeds: How many of each.
        networks: Folder of trained networks.
        results: Folder where results are filed.
    """

    source: Source
    students: Sequence[str]
    recipe: SqueezeConfig
    num_seeds: int
    networks: Path
    results: Path

    @property
    def title(self) -> str:
        """What the students were trained on."""
        return f"Students trained on the whole dataset {Path(self.source.config.name).name}"

    def check(self) -> None:
        """Refuse all that cannot work before anything is trained.

        Raises:
            ConfigError: If a student does not fit the images or is none of timm's; every one is named.
            SourceError: If there are no test images.
        """
        self.source.rows("test")
        check_each({student: partial(self._check, student) for student in self.students})

    def on_file(self, student: str) -> Result | None:
        """Return the result of a student under the same settings, if there is one."""
        file = self._file(student)
        try:
            result: Result = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(
                f"{file} is damaged ({error}); remove it, and its students are measured again"
            ) from error
        wanted = self._identity(student) | {"num_seeds": self.num_seeds}
        return result if all(result.get(name) == value for name, value in wanted.items()) else None

    def train(self, student: str, session: Session) -> Result:
        """Train a student and file its result."""
        shared = (self.num_seeds, session.reporter, session.state)
        result = train_on_everything(self.source, student, self.recipe, self.networks, *shared)
        result |= self._identity(student) | {"source": self._source_record(), "command": session.command}
        if session.state.is_main_process:
            write_json(self._file(student), result)
        return result

    def row(self, student: str, result: Result) -> StudentRow:
        """Return a student's row, next to the published number for the same size of images."""
        source, recipe = self.source, self.recipe
        published = published_whole_dataset(tabled_dataset(source.config, source.size), student)
        parameters = count_parameters(student, len(source.class_map), source.size)
        setting = f"SGD {recipe.lr:g}, batch {recipe.batch_size}{', CutMix' if recipe.cutmix else ''}"
        return StudentRow(result, parameters, setting, {WHOLE: published} if published else {})

    def _check(self, student: str) -> None:
        size = self.source.size
        check_student(student, len(self.source.class_map), size)
        if not timm.is_model(architecture_of_student(student, size, self.recipe.implementation)):
            raise StudentError(
                f"student {student!r} is none of timm's, expected one that timm can load again; choose one of timm's "
                "with --student.student"
            )

    def _file(self, student: str) -> Path:
        return self.results / f"{result_name(_KIND | {'student': student})}.json"

    def _identity(self, student: str) -> dict[str, Any]:
        """Return what tells a result of this dataset, recipe and network from others."""
        architecture = architecture_of_student(student, self.source.size, self.recipe.implementation)
        return {"fingerprint": squeeze_fingerprint(self.source, architecture, self.recipe, 0)}

    def _source_record(self) -> dict[str, Any]:
        """Describe the dataset, for who reads the result by itself."""
        source, preset = self.source, preset_of(self.source.config)
        return {
            "name": source.config.public_name,
            "revision": source.revision,
            "preset": preset.name if preset else None,
            "size": source.size,
            "classes": None if source.config.classes is None else list(source.config.classes),
        }


def train_on_everything(
    source: Source,
    student: str,
    recipe: SqueezeConfig,
    networks: Path,
    num_seeds: int,
    reporter: Reporter,
    state: PartialState,
) -> Result:
    """Train a student's network on all real images, once per seed; seeds are divided over all processes.

    Arguments are those of `WholeDataset`; `student` is a full name.

    Returns:
        The result as `results/*.json` holds it, without the command.

    Raises:
        TeacherError: For an unknown architecture, or if the loss is not finite.
    """
    architecture = architecture_of_student(student, source.size, recipe.implementation)
    outcomes: dict[int, Outcome] = {}
    test = TestImages(source, state.device)
    for seed in mine(range(num_seeds), state):
        started = time.monotonic()
        folder = networks / f"whole-{squeezed_folder(source, architecture, recipe, networks, seed).name}"
        squeeze(source, architecture, recipe, folder, seed, reporter, state.device)
        logits = predict(load_teacher(f"timm/local-dir:{folder}", state.device).module, test.batches())
        top1, top5 = (topk_accuracy(logits, test.labels, k) for k in (1, 5))
        outcomes[seed] = Outcome(top1, top5, None, time.monotonic() - started)
    return {
        "protocol": _KIND["protocol"],
        "student": student,
        "images": _KIND["images"],
        "labels": _KIND["labels"],
        "epochs": recipe.epochs,
        "num_images": len(source.train),
        "settings": asdict(recipe),
    } | summarise_outcomes(from_all(outcomes, state), test)
