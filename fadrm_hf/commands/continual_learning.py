"""Classes that arrive in steps: `continual-learning`."""

from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import protocol_given, student_options, table_place, table_summary
from fadrm_hf.commands.options.training import ContinualLearningOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.evaluation.continual_learning import prepare_continual_learning
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.evaluation.study import Session, run_study
from fadrm_hf.hub import open_artifact
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.loader import load_distilled


@student_options()
def continual_learning_command(call: Call) -> Summary:
    """Run `fadrm-hf continual-learning ARTIFACT --steps 5`."""
    options: ContinualLearningOptions = call.options
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    given = protocol_given(call, location.manifest)
    student = given.student.replace("/", "_")
    name = f"continual-{place.folder.name}-{given.name}-{given.labels}-{student}-{options.steps}steps"
    output = table_place(options.table, place, name)
    state = join_world()
    source = source_of(location, options.source.name)
    distilled, work = load_distilled(location), place.work.path
    study = prepare_continual_learning(distilled, source, given, options.steps, options.orders, work)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    run_study(study, Session(output, call.typed, reporter, state))
    return table_summary(output) if state.is_main_process else Summary()
