"""Classes that arrive in steps: `continual-learning`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fadrm_hf.artifact.recorded_source import source_of
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import protocol_given, student_options, table_place, table_summary
from fadrm_hf.commands.options.training import ContinualLearningOptions
from fadrm_hf.commands.summary import Summary
from fadrm_hf.evaluation.continual_learning import Course, learn_continually, prepare_course
from fadrm_hf.evaluation.measured_tables import mean_and_std, write_table
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.report.card.text import machine_line, render
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.accuracy import summarise
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
    course = prepare_course(load_distilled(location), source, given, options.steps, options.orders)
    reporter = Reporter(place.work.log, quiet=not state.is_main_process)
    steps = learn_continually(course, place.work.path, reporter, state)
    if not state.is_main_process:
        return Summary()
    _write(course, steps, call.typed, output)
    return table_summary(output)


def _write(course: Course, steps: Sequence[dict[str, Any]], command: str, output: Path) -> None:
    """The accuracies as Markdown and CSV, and every value as JSON."""
    manifest, protocol = course.distilled.manifest, course.protocol
    by_network = zip(*(step["top1"]["values"] for step in steps), strict=True)
    average = summarise([sum(values) / len(values) for values in by_network])
    shared = {
        "title": f"{manifest.source_title} by {manifest.method}, {manifest.ipc} images per class, "
        f"in {course.num_steps} steps",
        "command": command,
        "num_orders": course.num_orders,
        "num_seeds": protocol.num_seeds,
        "student": protocol.student,
        "protocol": protocol.name,
        "labels": protocol.labels,
        "epochs": protocol.epochs,
    }
    details = {"settings": asdict(protocol), "machine": describe_machine(), "versions": library_versions()}
    plain = [step | {"top1_mean": step["top1"]["mean"], "top1_std": step["top1"]["std"]} for step in steps]
    columns = ("step", "num_classes", "top1_mean", "top1_std")
    text = render(
        "continual_learning.md",
        **shared,
        name=output.name,
        rows=[[row["step"], row["num_classes"], mean_and_std(row["top1_mean"], row["top1_std"])] for row in plain],
        average=mean_and_std(average["mean"], average["std"]),
        machine=machine_line(details["machine"]),
    )
    document = shared | {"steps": steps, "average": average} | details
    write_table(output, document, [{key: row[key] for key in columns} for row in plain], text)
