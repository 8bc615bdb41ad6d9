"""The bound that distilled datasets are held against: `whole-dataset`."""

from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import student_options, table_summary
from fadrm_hf.commands.options.training import WholeDatasetOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.config.architectures import full_name
from fadrm_hf.config.datasets import resolve_squeeze
from fadrm_hf.data.sources import load_source
from fadrm_hf.evaluation.study import Session, run_study
from fadrm_hf.evaluation.whole_dataset import WholeDataset
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import WorkFolder, require_place
from fadrm_hf.runtime.shards import join_world


@student_options("--students")
def whole_dataset_command(call: Call) -> Summary:
    """Run `fadrm-hf whole-dataset`."""
    options: WholeDatasetOptions = call.options
    students = [full_name(student) for student in options.students]
    require(bool(students), "students", students, "a list of students, such as '[resnet18,swin_tiny]'")
    require(len(set(students)) == len(students), "students", list(options.students), "a list without repetitions")
    require(options.num_seeds >= 1, "num_seeds", options.num_seeds, "at least 1")
    output = Path(options.output or f"runs/whole-{Path(options.source.name).name}")
    for folder in (output, Path(options.teachers)):
        require_place(folder)
    state = join_world()
    source = load_source(options.source)
    squeeze = resolve_squeeze(options.squeeze, source.config)
    study = WholeDataset(source, students, squeeze, options.num_seeds, Path(options.teachers), output)
    study.check()
    reporter = Reporter(WorkFolder(output).log, quiet=not state.is_main_process)
    run_study(study, Session(output, call.typed, reporter, state))
    return table_summary(output) if state.is_main_process else Summary()
