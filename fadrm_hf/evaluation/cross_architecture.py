"""One artifact, many students: what some networks have distilled must teach others (FADRM, §4.3, Table 2, right).

Each student is trained as `train_students` trains one, and its result is filed like any other of the artifact. What is
on file under the same settings is not made again, so a list of students that was interrupted goes on where it was,
within a student from its last evaluation.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import PartialState

from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.config.datasets import preset_of
from fadrm_hf.config.protocols import describe_setting, table_of
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError, FadrmError
from fadrm_hf.evaluation.published import published_accuracies
from fadrm_hf.evaluation.results import ResultFolder
from fadrm_hf.evaluation.student_table import StudentRow, write_student_table
from fadrm_hf.networks.students import check_student, count_parameters
from fadrm_hf.report.card.results import Result
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.protocol import apply_protocol, check_protocol, resolve_protocol
from fadrm_hf.training.student_group import Launch
from fadrm_hf.training.train_student import require_views, result_header, train_students


@dataclass(frozen=True)
class Examination:
    """An artifact, its test images, and the students that are trained on it.

    Attributes:
        distilled: The artifact.
        source: Its source.
        protocols: How each student is trained, with nothing left open, in the order of the table.
        place: Where results are filed.
    """

    distilled: Distilled
    source: Source
    protocols: Sequence[StudentConfig]
    place: ResultFolder

    @property
    def dataset(self) -> str | None:
        """The preset of its source, if images have the size that the preset's papers use."""
        manifest = self.distilled.manifest
        preset = preset_of(manifest.settings("source", SourceConfig))
        return preset.name if preset and preset.size == manifest.pixels.size else None


def prepare_examination(
    distilled: Distilled, source: Source, given: Sequence[StudentConfig], place: ResultFolder
) -> Examination:
    """Resolve every student's protocol, refusing all that cannot work before anything is trained.

    Args:
        distilled: The artifact.
        source: Its source.
        given: One protocol for each student; what it leaves open is taken from the artifact or from the tables.
        place: Where results are filed.

    Raises:
        ArtifactError: If the artifact cannot be read.
        ConfigError: If a student cannot be trained as asked, or is named twice; every one is named, with the reason.
    """
    names = [protocol.student for protocol in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"students names {', '.join(twice)} more than once, expected each once; set --students")
    require_views(distilled)
    protocols, wrong = [], []
    for protocol in (resolve_protocol(distilled, each) for each in given):
        try:
            check_protocol(protocol, apply_protocol(protocol, distilled))
            check_student(protocol.student, len(source.class_map), distilled.manifest.pixels.size)
        except FadrmError as error:
            wrong.append(f"{protocol.student}: {error}")
        protocols.append(protocol)
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Examination(distilled, source, protocols, place)


def examine(
    examination: Examination,
    output: Path,
    command: str,
    reporter: Reporter,
    state: PartialState,
    processes_per_student: int = 1,
) -> None:
    """Train the students that have no result yet; the table is written after each, with those that are done by then.

    The seeds of a student are divided over all processes (`train_students`).

    Args:
        examination: From `prepare_examination`.
        output: The table's name without suffix; `.md`, `.csv` and `.json` are written.
        command: What was typed, for the record.
        reporter: Says which student is trained.
        state: The processes, each with the device that its students train on.
        processes_per_student: How many of them train one student together at least.

    Raises:
        StudentError: If a training diverges.
    """
    distilled, place = examination.distilled, examination.place
    finished = [place.find(result_header(distilled, protocol)) for protocol in examination.protocols]
    state.wait_for_everyone()  # nobody files a result before everybody has looked
    for number, (protocol, file) in enumerate(zip(examination.protocols, finished, strict=True), start=1):
        about = f"{number}/{len(finished)} {protocol.student}"
        reporter.say(about if file is None else f"{about}: {file} is there")
        if file is None:
            train = partial(train_students, launch=Launch(state, processes_per_student))
            result = train(distilled, examination.source, protocol, place.work.path, reporter, state.device)
            if state.is_main_process:
                place.add(result | {"command": command})
        if state.is_main_process:
            write_student_table(rows_on_file(examination), _title(examination), command, output)
    state.wait_for_everyone()


def rows_on_file(examination: Examination) -> list[StudentRow]:
    """The students that are finished, in the order of the table."""
    distilled, place = examination.distilled, examination.place
    files = [place.find(result_header(distilled, protocol)) for protocol in examination.protocols]
    return [
        _row(examination, protocol, json.loads(file.read_text("utf-8")))
        for protocol, file in zip(examination.protocols, files, strict=True)
        if file is not None
    ]


def _row(examination: Examination, protocol: StudentConfig, result: Result) -> StudentRow:
    assert protocol.lr is not None and protocol.eta is not None
    manifest, dataset, student = examination.distilled.manifest, examination.dataset, protocol.student
    tables_of = dataset if table_of(protocol.name) == "fadrm" else None  # other protocols are in none of these
    return StudentRow(
        result,
        count_parameters(student, len(manifest.classes.ids), manifest.pixels.size),
        describe_setting(protocol.lr, protocol.eta, tables_of, student, manifest.ipc),
        published_accuracies(dataset, student, manifest.ipc),
    )


def _title(examination: Examination) -> str:
    manifest = examination.distilled.manifest
    source, names = manifest.source_title, {protocol.name for protocol in examination.protocols}
    images = f"{manifest.ipc} image{'s' if manifest.ipc > 1 else ''} per class"
    return f"Students on {source}, {images} by {manifest.method}, under {', '.join(sorted(names))}"
