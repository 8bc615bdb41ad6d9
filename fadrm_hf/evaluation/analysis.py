"""Theorems 1 and 2 of FADRM (arXiv 2506.24125), measured on an artifact.

Theorem 1 bounds what distilled images can tell of their source by |C| H(f), with H(f) the largest entropy of a
network's output on the source. Theorem 2 says when a residual makes a bound of the generalisation error tighter. Both
are measured term by term, the second at every residual that snapshots were kept of (`fadrm_hf.recovery.snapshots`),
and at one that is injected here into the finished images. `fadrm_hf.evaluation.generalisation` has the definitions,
`docs/theory.md` says where the paper leaves them open and what the numbers do not show. Nothing is trained.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import read_images
from fadrm_hf.artifact.recorded_source import load_recorded_source
from fadrm_hf.config import RecoverConfig, StudentConfig, require
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import FadrmError, ScoreError
from fadrm_hf.evaluation import generalisation as terms
from fadrm_hf.evaluation.generalisation import Residual, Setting
from fadrm_hf.evaluation.information import (
    FeatureNetwork,
    fetch_images_and_teachers,
    named_network,
    read_shards,
    recorded_network,
)
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.run_folder import PATCHES, SNAPSHOTS
from fadrm_hf.runtime.shards import range_name, recovery_shards
from fadrm_hf.runtime.tensor_files import load_tensors

_ALPHA = 0.5  # FADRM's (Table 8), for methods without a residual
_TEMPERATURE = 20.0  # of the protocols that leave it open
_READ_AT_ONCE = 500
_BITS_PER_PIXEL = 24
_REAL_INITS = ("patches", "random_images", "el2n", "pca", "graded")


@dataclass(frozen=True)
class AnalysisRequest:
    """How an artifact is to be analysed.

    Attributes:
        network: Teacher's name of the network f and h, `timm/local-dir:FOLDER` for a trained student; the artifact's
            first teacher if none is named.
        alpha: Merge ratio of the residual that is injected here; the method's own, or 0.5, if not given.
        temperature: T of the loss; the protocol's own, or 20, if not given.
        draws: Draws of signs that a Rademacher complexity is the mean of.
        num_images: Images of the artifact, at most, that Theorem 2 is measured on.
        source_images: Training images of the source, at most, that Theorem 1 is measured on.
        source: Path to the source, if it has moved.
    """

    network: str | None = None
    alpha: float | None = None
    temperature: float | None = None
    draws: int = 1000
    num_images: int = 1000
    source_images: int = 10_000
    source: str | None = None

    def __post_init__(self) -> None:
        alpha, temperature = self.alpha, self.temperature
        require(alpha is None or 0.0 <= alpha <= 1.0, "alpha", alpha, "a merge ratio in [0, 1]")
        require(temperature is None or temperature > 0, "temperature", temperature, "positive")
        require(self.draws >= 2, "draws", self.draws, "at least 2")
        for name in ("num_images", "source_images"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")


@dataclass(frozen=True, eq=False)
class Injection:
    """Images at a residual.

    Attributes:
        iteration: After how many iterations; `None` for the residual that is injected here, at the end.
        alpha: Merge ratio.
        images: (n, 3 S S) each, normalised as the network takes them.
        labels: (n,) int64.
    """

    iteration: int | None
    alpha: float
    images: Residual
    labels: Tensor


def analyse(
    location: Location,
    request: AnalysisRequest,
    device: torch.device,
    reporter: Reporter,
    work: Path | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Measure both theorems, as `results/analysis.json` holds them.

    Args:
        location: The artifact; its images and teachers are fetched, its labels are not read.
        request: How.
        device: Where the network runs.
        reporter: Prints why a source that was not named cannot be read.
        work: The run's folder of shards, which has the real patches, and perhaps snapshots.
        command: What was typed, for the record.

    Returns:
        "theorem1", or `None`; "theorem2", a list of residuals, each under two classes of functions; "missing": what
        gives the others; "settings" and "command".

    Raises:
        ArtifactError: If the images are damaged.
        ScoreError: If no network is named, or it does not end with a linear layer.
        SourceError: If a source that was named cannot be read.
        TeacherError: If the network cannot be loaded, or does not take these images.
    """
    manifest = location.manifest
    fetch_images_and_teachers(location)
    network = _network(location, request.network, device)
    temperature = request.temperature or manifest.settings("student", StudentConfig).temperature or _TEMPERATURE
    source = _source(location, request, reporter)
    missing = {} if source else {"theorem1": "fadrm-hf analyse ARTIFACT --source.name PATH"}
    missing |= _missing_of_theorem2(manifest, work)
    injections: Iterable[Injection] = ()
    if work is not None and "theorem2" not in missing:
        injections = _injections(location, work, network, request)
    return {
        "theorem1": None if source is None else _theorem1(source, network, request, manifest),
        "theorem2": [_theorem2(injection, network, request.draws, temperature) for injection in injections],
        "missing": missing,
        "settings": {
            "network": network.name,
            "has_taught": network.has_taught,
            "num_teachers": len(manifest.teachers),
            "temperature": temperature,
            "draws": request.draws,
        },
        "command": command,
    }


def _network(location: Location, name: str | None, device: torch.device) -> FeatureNetwork:
    if name is not None:
        return named_network(name, location.manifest, device)
    network = recorded_network(location.folder, location.manifest, device)
    if network is None:
        raise ScoreError(f"{location.name} names no teacher; set --network to a network that takes its images")
    return network


def _source(location: Location, request: AnalysisRequest, reporter: Reporter) -> Source | None:
    try:
        return load_recorded_source(location, request.source)
    except FadrmError as error:
        if request.source is not None:
            raise
        reporter.say(f"Theorem 1 is not measured, the source cannot be read ({error})")
        return None


def _theorem1(source: Source, network: FeatureNetwork, request: AnalysisRequest, manifest: Manifest) -> dict[str, Any]:
    """Measure H(f) over training images as they are, and the bound; the bits of the images themselves next to it."""
    order = torch.randperm(len(source.train), generator=generator(0, "analysis", "source"))
    rows = order[: request.source_images].sort().values
    parts = (network.normalise(source.pixels("train", part.tolist())) for part in rows.split(_READ_AT_ONCE))
    logits = torch.cat([network.logits_of(part) for part in parts])
    entropy = terms.output_entropy(logits)
    return {
        "max_entropy": entropy.max().item(),
        "mean_entropy": entropy.mean().item(),
        "largest_possible": torch.tensor(float(logits.shape[1])).log2().item(),
        "num_images": len(rows),
        "num_training_images": len(source.train),
        "bound_bits": manifest.num_images * entropy.max().item(),
        "pixel_bits": manifest.num_images * _BITS_PER_PIXEL * manifest.pixels.size**2,
    }


def _missing_of_theorem2(manifest: Manifest, work: Path | None) -> dict[str, str]:
    """Return what of Theorem 2 cannot be measured, with what gives it."""
    if manifest.method_setting("init") not in _REAL_INITS:
        return {"theorem2": "an artifact of a method that starts from real images, such as fadrm"}
    if work is None or not any((work / PATCHES).glob("*.safetensors")):
        return {"theorem2": "the folder RUN.work beside the artifact, which distill leaves there"}
    if not _has_residuals(manifest, work):
        return {"residuals": "fadrm-hf distill --snapshots from the beginning, by a method with residuals: fadrm"}
    return {}


def _has_residuals(manifest: Manifest, work: Path) -> bool:
    """Return whether snapshots show residuals with known patches; retrieved ones are not kept."""
    is_known = manifest.method_setting("alpha") is not None and manifest.method_setting("retrieval") is None
    return is_known and any((work / SNAPSHOTS).glob("*.safetensors"))


def _injections(
    location: Location, work: Path, network: FeatureNetwork, request: AnalysisRequest
) -> Iterator[Injection]:
    manifest = location.manifest
    default = manifest.method_setting("alpha")
    if _has_residuals(manifest, work):
        yield from _snapshot_injections(manifest, work, network, default, request.num_images)
    images, labels = read_images(location.folder)
    order = torch.randperm(len(images), generator=generator(0, "analysis", "images"))
    rows = order[: request.num_images].sort().values
    patches = _patches_by_row(work, manifest)[rows]
    before, real = (network.normalise(pixels).flatten(1) for pixels in (images[rows], patches))
    alpha = request.alpha if request.alpha is not None else _ALPHA if default is None else default
    yield Injection(None, alpha, Residual(before, alpha * before + (1.0 - alpha) * real, real), labels[rows])


def _snapshot_injections(
    manifest: Manifest, work: Path, network: FeatureNetwork, alpha: float, most: int
) -> Iterator[Injection]:
    """Yield the residuals of the first shard; of two snapshots at one iteration the second is after the residual."""
    shard = recovery_shards(len(manifest.class_map), manifest.ipc, manifest.settings("recover", RecoverConfig))[0]
    start = load_tensors(work / PATCHES / f"{range_name(shard.classes)}.safetensors")
    rows = torch.isin(start["ipc_index"], torch.tensor(shard.ipc_indices)).nonzero().squeeze(1)[:most]
    real, labels = network.normalise(start["images"][rows]).flatten(1), start["label"][rows]
    snapshots = read_shards(work, SNAPSHOTS)
    for before, after in pairwise(snapshots):
        if int(before["iteration"]) == int(after["iteration"]):
            first, second = (network.normalise(each["images"][:most]).flatten(1) for each in (before, after))
            yield Injection(int(before["iteration"]), alpha, Residual(first, second, real), labels)


def _patches_by_row(work: Path, manifest: Manifest) -> Tensor:
    """Return the starting image of each row of the artifact, (N, 3, S, S) uint8."""
    parts = read_shards(work, PATCHES)
    starts = {name: torch.cat([part[name] for part in parts]) for name in ("images", "label", "ipc_index")}
    rows = starts["ipc_index"] * len(manifest.class_map) + starts["label"]
    if not torch.equal(rows.sort().values, torch.arange(manifest.num_images)):
        raise ScoreError(
            f"{work / PATCHES} has starting images of {len(rows)} of {manifest.num_images} images; run fadrm-hf "
            "distill again with the arguments of the run, or remove the folder to leave Theorem 2 out"
        )
    return starts["images"][rows.argsort()]


def _theorem2(injection: Injection, network: FeatureNetwork, draws: int, temperature: float) -> dict[str, Any]:
    """Measure one residual: the risks of the network, and the terms of both classes of functions."""
    pixels, labels = injection.images, injection.labels
    side = round((pixels.before.shape[1] // 3) ** 0.5)
    images = {name: points.unflatten(1, (3, side, side)) for name, points in vars(pixels).items()}
    features = Residual(**{name: network.features_of(each) for name, each in images.items()})
    risks = {
        name: terms.empirical_risk(network.logits_of(images[name]), labels, temperature)
        for name in ("before", "after")
    }
    head = network.classifier(side)
    bias = 0.0 if head.bias is None else head.bias.detach().abs().max().item()
    norm_bound = torch.linalg.vector_norm(head.weight.detach(), dim=1).max().item()
    signs = terms.draw_signs(draws, len(labels), generator(0, "analysis", "signs"))
    discrepancy = terms.distances(pixels.before, pixels.patches).mean().item()
    measured: dict[str, dict[str, Any]] = {}
    for name, points, norm, lipschitz, constant in (
        ("pixels", pixels, 1.0, 1.0, 0.0),
        ("features", features, norm_bound, norm_bound * terms.largest_stretch(pixels, features), bias),
    ):
        largest = max(torch.linalg.vector_norm(each, dim=1).max().item() for each in vars(points).values())
        bound = terms.loss_range(head.out_features, norm * largest + constant, temperature)
        setting = Setting(injection.alpha, norm, lipschitz, discrepancy, terms.loss_lipschitz(temperature), bound)
        estimates = terms.complexities(points, signs, norm)
        measured[name] = {
            "setting": asdict(setting),
            "complexities": asdict(estimates),
            "needed_gap": setting.needed_gap,
            "condition": estimates.condition(setting),
            "after_ceiling": estimates.after_ceiling(setting),
            "risk_ceiling": setting.risk_ceiling,
        }
    largest_loss, complexity = measured["features"]["setting"]["loss_range"], measured["features"]["complexities"]
    bounds = {name: risk + 2.0 * largest_loss * complexity[name]["value"] for name, risk in risks.items()}  # Eq. 12
    return {
        "iteration": injection.iteration,
        "num_images": len(labels),
        "alpha": injection.alpha,
        "risks": risks,
        "pixels": measured["pixels"],
        "features": measured["features"] | {"bounds": bounds},
    }
