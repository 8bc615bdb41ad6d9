"""The rows that every card carries: what a distilled dataset must be compared with, under the same protocol.

    random real images, hard labels     what a few images alone are worth
    random real images, soft labels     what the teachers' labels are worth
    distilled images, hard labels       what distilling is worth without the teachers' labels
    distilled images, soft labels       the dataset itself
    whole dataset, hard labels          what there is to reach

The random images are an artifact of their own, made by the same line with the method `random_real`, the same teachers
and the same kind of soft labels. The whole dataset trains the same network by the recipe that teachers are trained by.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from rich.table import Table

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.recorded_teachers import names_of_recorded
from fadrm_hf.config import RunConfig, StudentConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.evaluation.measured_tables import mean_and_std
from fadrm_hf.evaluation.results import record_result
from fadrm_hf.evaluation.whole_dataset import train_on_everything
from fadrm_hf.methods.random_real import RandomReal
from fadrm_hf.networks.students import check_student
from fadrm_hf.pipeline.distill import distill
from fadrm_hf.report.card.results import ROWS, Result, read_results
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import RunFolder
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.student_group import Launch
from fadrm_hf.training.train_student import remove_checkpoints, train_students

_KIND = ("images", "labels", "student", "protocol")  # what tells results apart
_WHOLE_PROTOCOL = "squeeze"


def measure_baselines(
    run: RunConfig, source: Source, rows: Sequence[str], command: str, state: PartialState, quiet: bool
) -> None:
    """Train the students of every row that has no result yet, and record each with the artifact.

    The seeds of a row are divided over all processes.

    Args:
        run: The artifact's own resolved run, with the protocol that students are trained by; `output` is the artifact.
            Students of the whole dataset are trained by the recipe of teachers, whatever the protocol.
        source: Its source.
        rows: Which images to train on: "random_real", "distilled", "whole".
        command: What was typed, for the record.
        state: The processes, each with the device that its students train on.
        quiet: Show no progress.

    Raises:
        ConfigError: If a row is none of these.
        StudentError: If the student cannot be trained on these images.
    """
    folder, student = Path(run.output), run.student.student
    kinds = dict.fromkeys(images for images, _ in ROWS)
    for row in rows:
        if row not in kinds:
            raise ConfigError(f"{unknown('row', row, kinds)}; set --rows '[{', '.join(kinds)}]' or some of these")
    check_student(student, len(source.class_map), run.source.size)
    done = {tuple(result[key] for key in _KIND) for result in read_results(folder)}
    state.wait_for_everyone()  # nobody records before everybody has looked
    reporter = Reporter(RunFolder(folder).work.log, quiet)
    for (images, labels), title in ROWS.items():
        protocol_name = _WHOLE_PROTOCOL if images == "whole" else run.student.name
        if images not in rows or (images, labels, student, protocol_name) in done:
            continue
        reporter.say(title)
        if images == "whole":
            networks, num_seeds = RunFolder(folder).trained_teachers, run.student.num_seeds
            result = train_on_everything(source, student, run.squeeze, networks, num_seeds, reporter, state)
        else:
            protocol = replace(run.student, labels="soft" if labels == "soft" else "hard")
            artifact = random_real_artifact(run, quiet) if images == "random_real" else folder
            work, distilled = RunFolder(artifact).work.path, load_distilled(artifact)
            result = train_students(distilled, source, protocol, work, reporter, state.device, launch=Launch(state))
        if state.is_main_process:
            record_result(folder, result | {"command": command})
            if images != "whole":
                remove_checkpoints(work, result)
    state.wait_for_everyone()


def compared_results(folder: Path, student: str, protocol: str) -> list[Result]:
    """Return the rows that have been measured with a student by a protocol, as they are filed."""
    wanted = {(student, name) for name in (protocol, _WHOLE_PROTOCOL)}
    return [result for result in read_results(folder) if (result["student"], result["protocol"]) in wanted]


def comparison_table(folder: Path, student: str, protocol: str) -> Table:
    """Return `compared_results` for the terminal."""
    table = Table(title=f"{folder.name}, {student}: accuracy of the last epoch")
    table.add_column("trained on")
    for column in ("images", "top-1 (%)", "seeds", "seconds"):
        table.add_column(column, justify="right")
    results = compared_results(folder, student, protocol)
    for kind, title in ROWS.items():
        for result in (result for result in results if (result["images"], result["labels"]) == kind):
            accuracy = mean_and_std(result["top1"]["mean"], result["top1"]["std"], result["num_seeds"])
            num_images, num_seeds = f"{result['num_images']:,}", str(result["num_seeds"])
            table.add_row(title, num_images, accuracy, num_seeds, f"{result['seconds']:.0f}")
    return table


def random_real_artifact(run: RunConfig, quiet: bool) -> Path:
    """Make the artifact of random images labelled by the artifact's own teachers, unless it is there.

    Args:
        run: The artifact's own resolved run; `output` is the artifact.
        quiet: Show no progress.

    Returns:
        Its folder, `RUN.random_real`.

    Raises:
        RunFolderError: If the folder holds something else.
        TeacherError: If a teacher cannot be loaded.
    """
    folder = Path(run.output)
    manifest = read_manifest(folder)
    teachers = replace(run.teachers, names=names_of_recorded(folder, manifest))
    votes = [teacher.vote for teacher in manifest.teachers if teacher.vote is not None]
    own = manifest.settings("student", StudentConfig)  # another protocol trains on the same random images
    baseline = replace(run, output=f"{folder}.random_real", method=RandomReal(), teachers=teachers, student=own)
    return distill(baseline, quiet, votes or None)
