"""FADRM's theorems on an artifact, term by term: `analyse`."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.measuring import only_process
from fadrm_hf.commands.options.checking import AnalyseOptions
from fadrm_hf.commands.output import show
from fadrm_hf.commands.summary import Summary
from fadrm_hf.evaluation.analysis import AnalysisRequest, analyse
from fadrm_hf.evaluation.results import result_folder
from fadrm_hf.hub import open_artifact
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import WorkFolder

_MISSING = {
    "theorem1": "Theorem 1",
    "theorem2": "Theorem 2",
    "residuals": "Theorem 2 at the residuals of the run itself",
}
_CLASSES = {"pixels": "linear functions of pixels", "features": "linear functions of the network's features"}


def analyse_command(call: Call) -> Summary:
    """Run `fadrm-hf analyse ARTIFACT`."""
    options: AnalyseOptions = call.options
    request = AnalysisRequest(
        options.network,
        options.alpha,
        options.temperature,
        options.draws,
        options.num_images,
        options.source_images,
        options.source.name,
    )
    location = open_artifact(options.artifact, options.revision)
    place = result_folder(location, options.output)
    work = WorkFolder(location.folder).path
    analysis = analyse(location, request, only_process().device, Reporter(), work, call.typed)
    path = place.add_analysis(analysis)
    show(_table(analysis), _remarks(analysis, options.artifact), path)
    return Summary({"analysis": path}, analysis)


def _table(analysis: Mapping[str, Any]) -> Table:
    table = Table(title=f"as {analysis['settings']['network']} sees it, T = {analysis['settings']['temperature']:g}")
    table.add_column("term")
    table.add_column("value", justify="right")
    for row in _rows_of_theorem1(analysis["theorem1"]):
        table.add_row(*row)
    for residual in analysis["theorem2"]:
        table.add_section()
        table.add_row(f"Theorem 2, {_when(residual)}, {residual['num_images']} images, α = {residual['alpha']:g}", "")
        table.add_row("Δ, mean distance of images and patches", f"{_delta(residual):.4g}")
        for name, title in _CLASSES.items():
            table.add_row(f"[italic]{title}[/italic]", "")
            for row in _rows_of_class(residual[name]):
                table.add_row(*row)
        for name, title in (("before", "before"), ("after", "after")):
            table.add_row(f"risk of the network {title} the residual", f"{residual['risks'][name]:.4f} nats")
            table.add_row(f"risk + 2 B R, {title} (Eq. 12)", f"{residual['features']['bounds'][name]:.4f}")
    return table


def _rows_of_theorem1(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    of = f"{found['num_images']:,} of {found['num_training_images']:,} training images"
    yield f"H(f), the largest entropy of {of}", f"{found['max_entropy']:.4f} bits"
    yield "their mean; the largest there can be", f"{found['mean_entropy']:.4f}; {found['largest_possible']:.4f} bits"
    yield "|C| H(f), the bound of Theorem 1", f"{found['bound_bits']:,.0f} bits"
    yield "the bits of the pixels of C", f"{found['pixel_bits']:,} bits"


def _rows_of_class(terms: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    setting, found = terms["setting"], terms["complexities"]
    for name, title in (("before", "R before"), ("after", "R after"), ("patches", "R of the patches")):
        yield f"{title} (closed-form bound)", f"{_estimate(found[name])} ({found['ceilings'][name]:.4g})"
    yield "B; L_h", f"{setting['loss_range']:.4g}; {setting['lipschitz']:.4g}"
    yield (
        "R(O) − R(C~res), and below what it has to be (Eq. 11)",
        (f"{_estimate(found['gap'])} < {terms['needed_gap']:.4g}: {terms['condition']}"),
    )
    yield "how far from 0 it can be at all", f"{found['largest_gap']:.4g}"


def _when(residual: Mapping[str, Any]) -> str:
    after = residual["iteration"]
    return "a residual into the finished images" if after is None else f"the residual after {after} iterations"


def _delta(residual: Mapping[str, Any]) -> float:
    return float(residual["pixels"]["setting"]["discrepancy"])


def _estimate(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.4g} ± {estimate['error']:.1g}"


def _remarks(analysis: Mapping[str, Any], artifact: str) -> Iterator[str]:
    """Yield remarks on what the numbers do and do not show."""
    settings = analysis["settings"]
    if analysis["theorem1"] is not None:
        yield (
            "Theorem 1: the bound is the paper's, whose proof sets I(f; O) equal to the entropy of the output; that "
            "no image holds more than its pixels is certain. A small H(f) says that f is sure, not what images lack."
        )
        if settings["has_taught"] and settings["num_teachers"] > 1:
            yield f"the images were made for {settings['num_teachers']} teachers, the theorem speaks of one"
    residuals = analysis["theorem2"]
    if residuals:
        met = sum(each["features"]["bounds"]["after"] < each["features"]["bounds"]["before"] for each in residuals)
        yield (
            f"Theorem 2: the bound of the error of a linear head is tighter after the residual (Eq. 12) in {met} of "
            f"{len(residuals)} cases. Its condition (Eq. 11) is sufficient, not necessary; where it fails the theorem "
            'says nothing. L_h of features is the largest stretch that was seen, a lower bound: there "fails" is '
            'certain, "holds" is not refuted.'
        )
        if all(_is_out_of_reach(each[name]) for each in residuals for name in _CLASSES):
            yield (
                "Neither class of functions can meet Eq. 11 here: it asks for a larger gap than the distances of "
                "these images allow, whatever the signs."
            )
    for name, remedy in analysis["missing"].items():
        yield f"not measured: {_MISSING[name]}. What gives it: {remedy.replace('ARTIFACT', shlex.quote(artifact))}"
    yield "docs/theory.md explains each term, and which are the paper's and which ours"


def _is_out_of_reach(terms: Mapping[str, Any]) -> bool:
    return bool(-terms["needed_gap"] >= terms["complexities"]["largest_gap"])
