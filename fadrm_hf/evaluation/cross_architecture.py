"""One artifact, many students: what some networks have distilled must teach others (FADRM, §4.3, Table 2, right).

Each student is trained as `train_students` trains one, and its result is filed like any other of the artifact. A list
of students that was interrupted resumes within a student, from its last evaluation.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.config.protocols import describe_setting, table_of
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.measured_tables import images_per_class
from fadrm_hf.evaluation.published import published_accuracies
from fadrm_hf.evaluation.results import ResultFolder
from fadrm_hf.evaluation.student_study import StudentRow, StudentStudy, tabled_dataset
from fadrm_hf.evaluation.study import Session, check_each
from fadrm_hf.networks.students import check_student, count_parameters
from fadrm_hf.report.card.results import Result
from fadrm_hf.training.loader import Distilled
from fadrm_hf.training.protocol import apply_protocol, check_protocol, resolve_protocol
from fadrm_hf.training.student_group import Launch
from fadrm_hf.training.train_student import remove_checkpoints, require_views, result_header, train_students


@dataclass(frozen=True)
class CrossArchitecture(StudentStudy):
    """An artifact and the students that are trained on it.

    Attributes:
        distilled: The artifact.
        source: Its source, for the test images.
        students: How each is trained, with nothing left open, by full name in the order of the table.
        results: Where results are filed.
    """

    distilled: Distilled
    source: Source
    students: Mapping[str, StudentConfig]
    results: ResultFolder

    @property
    def title(self) -> str:
        """What the students were trained on, and how."""
        manifest = self.distilled.manifest
        protocols = ", ".join(sorted({protocol.name for protocol in self.students.values()}))
        images = f"{images_per_class(manifest.ipc)} by {manifest.method}"
        return f"Students on {manifest.source_title}, {images}, under {protocols}"

    def on_file(self, student: str) -> Result | None:
        """Return the result of a student under the same settings, if there is one."""
        file = self.results.find(result_header(self.distilled, self.students[student]))
        return None if file is None else _read(file)

    def train(self, student: str, session: Session) -> Result:
        """Train a student and file its result."""
        train = partial(train_students, launch=Launch(session.state, session.processes_per_student))
        work, device = self.results.work.path, session.state.device
        result = train(self.distilled, self.source, self.students[student], work, session.reporter, device)
        result |= {"command": session.command}
        if not session.state.is_main_process:
            return result
        filed = _read(self.results.add(result))
        remove_checkpoints(work, result)
        return filed

    def row(self, student: str, result: Result) -> StudentRow:
        """Return a student's row."""
        protocol, manifest = self.students[student], self.distilled.manifest
        dataset = tabled_dataset(manifest.settings("source", SourceConfig), manifest.pixels.size)
        tabled = dataset if table_of(protocol.name) == "fadrm" else None  # other protocols are in none of these
        return StudentRow(
            result,
            count_parameters(student, len(manifest.classes.ids), manifest.pixels.size),
            describe_setting(protocol.lr, protocol.eta, tabled, student, manifest.ipc),
            published_accuracies(dataset, student, manifest.ipc),
        )


def prepare_cross_architecture(
    distilled: Distilled, source: Source, protocols: Sequence[StudentConfig], results: ResultFolder
) -> CrossArchitecture:
    """Resolve every student's protocol, refusing all that cannot work before anything is trained.

    What a protocol leaves open is taken from the artifact or from the tables.

    Raises:
        ArtifactError: If the artifact cannot be read.
        ConfigError: If a student cannot be trained as asked, or is named twice; every one is named, with the reason.
    """
    names = [protocol.student for protocol in protocols]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"students names {', '.join(twice)} more than once, expected each once; set --students")
    require_views(distilled)
    resolved = {protocol.student: resolve_protocol(distilled, protocol) for protocol in protocols}
    num_classes, size = len(source.class_map), distilled.manifest.pixels.size

    def check(protocol: StudentConfig) -> None:
        check_protocol(protocol, apply_protocol(protocol, distilled))
        check_student(protocol.student, num_classes, size)

    check_each({student: partial(check, protocol) for student, protocol in resolved.items()})
    return CrossArchitecture(distilled, source, resolved, results)


def _read(file: Path) -> Result:
    result: Result = json.loads(file.read_text("utf-8"))
    return result
