"""One artifact, many students: `cross-architecture`."""

from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import protocol_given, student_options, table_place, table_summary
from fadrm_hf.commands.options.training import CrossArchitectureOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.config.layers import COMMAND_LINE
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.cross_architecture import prepare_cross_architecture
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.evaluation.study import Session, run_study
from fadrm_hf.hub import open_artifact
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.loader import load_distilled


@student_options("--students")
def cross_architecture_command(call: Call) -> Summary:
    """Run `fadrm-hf cross-architecture ARTIFACT --students '[A, B]'`."""
    options: CrossArchitectureOptions = call.options
    refuse_one_student(call, "--students", "'[A, B]'")
    students = options.students
    require(bool(students), "students", list(students), "a list of students, such as '[resnet18,swin_tiny]'")
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    protocols = [protocol_given(call, location.manifest, student) for student in students]
    name = f"cross-architecture-{place.folder.name}-{protocols[0].name}"
    output = table_place(options.table, place, name)
    state = join_world()
    distilled = load_distilled(location, streaming=options.streaming, online=options.makes_labels)
    source = source_of(location, options.source.name)
    study = prepare_cross_architecture(distilled, source, protocols, place)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    run_study(study, Session(output, call.typed, reporter, state, options.processes_per_student))
    return table_summary(output) if state.is_main_process else Summary()


def refuse_one_student(call: Call, option: str, example: str) -> None:
    """Refuse `--student` for a command that trains several.

    Raises:
        ConfigError: With the option that names them all.
    """
    if any("student" in layer.values for layer in call.layers if layer.origin == COMMAND_LINE):
        raise ConfigError(f"--student names one student; here {option} names them all: {option} {example}")
