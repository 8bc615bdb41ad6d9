"""Rankings of architectures by an artifact and by the whole dataset: `rank-architectures`."""

from pathlib import Path

from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.cross_architecture import refuse_one_student
from fadrm_hf.commands.measuring import protocol_given, student_options, table_place, table_summary
from fadrm_hf.commands.options.training import RankArchitecturesOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.datasets import resolve_squeeze
from fadrm_hf.evaluation.architecture_search import ArchitectureRanking, check_architectures
from fadrm_hf.evaluation.cross_architecture import prepare_cross_architecture
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.evaluation.study import Session, run_study
from fadrm_hf.evaluation.whole_dataset import WholeDataset
from fadrm_hf.hub import open_artifact
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import require_place
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.loader import load_distilled


@student_options("--architectures")
def rank_architectures_command(call: Call) -> Summary:
    """Run `fadrm-hf rank-architectures ARTIFACT --architectures '[A, B, C]'`."""
    options: RankArchitecturesOptions = call.options
    refuse_one_student(call, "--architectures", "'[A,B,C]'")
    architectures = check_architectures(options.architectures)
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    protocols = [protocol_given(call, location.manifest, student) for student in architectures]
    name = f"rank-architectures-{place.folder.name}-{protocols[0].name}-{protocols[0].labels}"
    output = table_place(options.table, place, name)
    state = join_world()
    source = source_of(location, options.source.name)
    whole = Path(options.whole or f"runs/whole-{Path(location.manifest.source.name).name}")
    networks = Path(options.teachers)
    for folder in (whole, networks):
        require_place(folder)
    distilled = load_distilled(location, streaming=options.streaming, online=options.makes_labels)
    recipe = resolve_squeeze(options.squeeze, source.config)
    students = [protocol.student for protocol in protocols]
    on_everything = WholeDataset(source, students, recipe, protocols[0].num_seeds, networks, whole)
    on_everything.check()
    study = ArchitectureRanking(prepare_cross_architecture(distilled, source, protocols, place), on_everything)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    run_study(study, Session(output, call.typed, reporter, state, options.processes_per_student))
    return table_summary(output) if state.is_main_process else Summary()
