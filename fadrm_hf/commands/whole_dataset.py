"""The bound that distilled datasets are held against: `whole-dataset`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fadrm_hf.commands.measuring import student_options, table_summary
from fadrm_hf.commands.output import as_typed, say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import SourceConfig, SqueezeConfig, build, require
from fadrm_hf.config.datasets import WHOLE_DATASET, resolve_squeeze
from fadrm_hf.config.students import full_name
from fadrm_hf.data.sources import load_source
from fadrm_hf.evaluation.measured_tables import with_suffix
from fadrm_hf.evaluation.whole_dataset import Bound, measure_bound
from fadrm_hf.pipeline.arguments import new_parser, parse
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import WorkFolder, require_place
from fadrm_hf.runtime.shards import join_world

_STUDENTS = ["resnet18", "resnet50", "resnet101"]  # Table 1
_DESCRIPTION = """Train students on all images of a dataset with hard labels; write one table with published numbers.

--squeeze.X is how; defaults are FADRM's Table 7. Results that are there under the same settings are used again."""


@student_options("--students")
def whole_dataset_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf whole-dataset`."""
    parser = new_parser("fadrm-hf whole-dataset", _DESCRIPTION)
    parser.add_argument("--students", type=list[str], default=_STUDENTS, help="Short or full names.")
    parser.add_argument("--num_seeds", type=int, default=3, help="Networks of each student.")
    parser.add_argument(
        "--output", type=str, default=None, help="Table's name without suffix; runs/whole-SOURCE if not given."
    )
    parser.add_argument("--teachers", type=str, default="runs/teachers", help="Where trained networks are kept.")
    parser.add_class_arguments(SourceConfig, "source")
    parser.add_class_arguments(SqueezeConfig, "squeeze")
    recipe = asdict(WHOLE_DATASET) | {"flip_probability": None}  # the dataset's: digits are not mirrored
    parser.set_defaults({f"squeeze.{name}": value for name, value in recipe.items()})
    parsed = parse(parser, arguments)
    students = [full_name(student) for student in parsed.students]
    require(bool(students), "students", students, "a list of students, such as '[resnet18,swin_tiny]'")
    require(len(set(students)) == len(students), "students", parsed.students, "a list without repetitions")
    require(parsed.num_seeds >= 1, "num_seeds", parsed.num_seeds, "at least 1")
    given = build(SourceConfig, parsed.source.as_dict())
    output = Path(parsed.output or f"runs/whole-{Path(given.name).name}")
    for folder in (output, Path(parsed.teachers)):
        require_place(folder)
    state = join_world()
    source = load_source(given)
    squeeze = resolve_squeeze(build(SqueezeConfig, parsed.squeeze.as_dict()), source.config)
    bound = Bound(source, students, squeeze, parsed.num_seeds, Path(parsed.teachers), output)
    bound.check()
    reporter = Reporter(WorkFolder(output).log, quiet=not state.is_main_process)
    measure_bound(bound, as_typed("whole-dataset", arguments), reporter, state)
    if state.is_main_process:
        say(f"{with_suffix(output, 'md')}")
    return table_summary(output) if state.is_main_process else Summary()
