"""Theorems 1 and 2 of FADRM (arXiv 2506.24125), measured on an artifact.

Theorem 1 bounds what distilled images can tell of their source by |C| H(f), with H(f) the largest entropy of a
network's output on the source. Theorem 2 says when a residual makes a bound of the generalisation error tighter. Both
are measured term by term, the second at every residual that snapshots were kept of (`fadrm_hf.recovery.snapshots`),
and at one that is injected here into the finished images. `fadrm_hf.evaluation.generalisation` has the definitions,
`docs/theory.md` says where the paper leaves them open and what the numbers do not show. Nothing is trained.
"""

from collections.abc import Iterable, Iterator, Mapping
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
from fadrm_hf.evaluation.generalisation import (
    Complexities,
    Residual,
    Setting,
    complexities,
    distances,
    draw_signs,
    empirical_risk,
    largest_stretch,
    loss_lipschitz,
    loss_range,
    output_entropy,
)
from fadrm_hf.evaluation.information import Observer, classifier_of, named_observer, recorded_observer
from fadrm_hf.methods import METHODS
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, PATCHES, SNAPSHOTS, TEACHERS
from fadrm_hf.runtime.shards import range_name, recovery_shards
from fadrm_hf.runtime.tensor_files import load_tensors

_ALPHA = 0.5  # FADRM's (Table 8), for methods without a residual
_TEMPERATURE = 20.0  # of the protocols that leave it open
_READ_AT_ONCE = 500
_BITS_PER_PIXEL = 24
_REAL_STARTS = ("patches", "random_images", "el2n", "pca")


@dataclass(frozen=True)
class AnalysisRequest:
    """How an artifact is to be analysed.

    Attributes:
        network: Teacher's name of the network f and h, `timm/local-dir:FOLDER` for a trained student; the artifact's
            first teacher if none is named.
        alpha: Merge ratio of the residual that is injected here; the method's own, or 0.5, if not given.
        temperature: T of the loss; the protocol's own, or 20, if not given.
        draws: How many draws of signs a Rademacher complexity is the mean of.
        num_images: Of how many of the artifact's images, at most, Theorem 2 is measured.
        source_images: In how many of the source's training images, at most, the largest entropy is looked for.
        source: Where the source is, if not where it was.
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
    """Both theorems, as `results/analysis.json` holds them.

    Args:
        location: The artifact; its images and teachers are fetched, its labels are not read.
        request: How.
        device: Where the network runs.
        reporter: Says why a source that was not named cannot be read.
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
    for name in (name for name in manifest.files if name.startswith((f"{IMAGES_FOLDER}/", TEACHERS))):
        location.local(name)
    observer = _observer(location, request.network, device)
    temperature = request.temperature or manifest.settings("student", StudentConfig).temperature or _TEMPERATURE
    source = _source(location, request, reporter)
    missing = {} if source else {"theorem1": "fadrm-hf analyse ARTIFACT --source.name PATH"}
    missing |= _lacking(manifest, work)
    injections: Iterable[Injection] = ()
    if work is not None and "theorem2" not in missing:
        injections = _injections(location, work, observer, request)
    return {
        "theorem1": None if source is None else _theorem1(source, observer, request, manifest),
        "theorem2": [_theorem2(each, observer, request, temperature) for each in injections],
        "missing": missing,
        "settings": {
            "network": observer.name,
            "has_taught": observer.has_taught,
            "num_teachers": len(manifest.teachers),
            "temperature": temperature,
            "draws": request.draws,
        },
        "command": command,
    }


def _observer(location: Location, network: str | None, device: torch.device) -> Observer:
    if network is not None:
        return named_observer(network, location.manifest, device)
    observer = recorded_observer(location.folder, location.manifest, device)
    if observer is None:
        raise ScoreError(f"{location.name} names no teacher; set --network to a network that takes its images")
    return observer


def _source(location: Location, request: AnalysisRequest, reporter: Reporter) -> Source | None:
    try:
        return load_recorded_source(location, request.source)
    except FadrmError as error:
        if request.source is not None:
            raise
        reporter.say(f"Theorem 1 is not measured, the source cannot be read ({error})")
        return None


def _theorem1(source: Source, observer: Observer, request: AnalysisRequest, manifest: Manifest) -> dict[str, Any]:
    """H(f), over training images as they are, and the bound; the bits of the images themselves beside it."""
    order = torch.randperm(len(source.train), generator=generator(0, "analysis", "source"))
    rows = order[: request.source_images].sort().values
    parts = (observer.normalise(source.pixels("train", part.tolist())) for part in rows.split(_READ_AT_ONCE))
    logits = torch.cat([observer.logits_of(part) for part in parts])
    entropy = output_entropy(logits)
    return {
        "max_entropy": entropy.max().item(),
        "mean_entropy": entropy.mean().item(),
        "largest_possible": torch.tensor(float(logits.shape[1])).log2().item(),
        "num_images": len(rows),
        "num_training_images": len(source.train),
        "bound_bits": manifest.num_images * entropy.max().item(),
        "pixel_bits": manifest.num_images * _BITS_PER_PIXEL * manifest.pixels.size**2,
    }


def _lacking(manifest: Manifest, work: Path | None) -> dict[str, str]:
    """What of Theorem 2 cannot be measured, with what gives it."""
    if _setting_of(manifest, "starts_from") not in _REAL_STARTS:
        return {"theorem2": "an artifact of a method that starts from real images, such as fadrm"}
    if work is None or not any((work / PATCHES).glob("*.safetensors")):
        return {"theorem2": "the folder RUN.work beside the artifact, which distill leaves there"}
    if not _has_residuals(manifest, work):
        return {"residuals": "fadrm-hf distill --snapshots from the beginning, by a method with residuals: fadrm"}
    return {}


def _has_residuals(manifest: Manifest, work: Path) -> bool:
    """Whether snapshots show residuals whose patches are known; retrieved ones are not kept."""
    is_known = _setting_of(manifest, "alpha") is not None and _setting_of(manifest, "retrieval") is None
    return is_known and any((work / SNAPSHOTS).glob("*.safetensors"))


def _setting_of(manifest: Manifest, name: str) -> Any:
    """A setting of the artifact's method, its default if the recipe does not tell; `None`: it has none."""
    return manifest.config.get("method", {}).get(name, getattr(METHODS.get(manifest.method), name, None))


def _injections(location: Location, work: Path, observer: Observer, request: AnalysisRequest) -> Iterator[Injection]:
    manifest = location.manifest
    own = _setting_of(manifest, "alpha")
    if _has_residuals(manifest, work):
        yield from _snapshot_injections(manifest, work, observer, own, request.num_images)
    images, labels = read_images(location.folder)
    rows = (
        torch.randperm(len(images), generator=generator(0, "analysis", "images"))[: request.num_images].sort().values
    )
    patches = _patches_by_row(work, manifest)[rows]
    before, real = (observer.normalise(each).flatten(1) for each in (images[rows], patches))
    alpha = request.alpha if request.alpha is not None else _ALPHA if own is None else own
    yield Injection(None, alpha, Residual(before, alpha * before + (1.0 - alpha) * real, real), labels[rows])


def _snapshot_injections(
    manifest: Manifest, work: Path, observer: Observer, alpha: float, most: int
) -> Iterator[Injection]:
    """The residuals of the first shard, as they were: two looks at one iteration are before and after."""
    shard = recovery_shards(len(manifest.class_map), manifest.ipc, manifest.settings("recover", RecoverConfig))[0]
    start = load_tensors(work / PATCHES / f"{range_name(shard.classes)}.safetensors")
    rows = torch.isin(start["ipc_index"], torch.tensor(shard.ipc_indices)).nonzero().squeeze(1)[:most]
    real, labels = observer.normalise(start["images"][rows]).flatten(1), start["label"][rows]
    looks = [load_tensors(file) for file in sorted((work / SNAPSHOTS).glob("*.safetensors"))]
    for before, after in pairwise(looks):
        if int(before["iteration"]) == int(after["iteration"]):
            first, second = (observer.normalise(look["images"][:most]).flatten(1) for look in (before, after))
            yield Injection(int(before["iteration"]), alpha, Residual(first, second, real), labels)


def _patches_by_row(work: Path, manifest: Manifest) -> Tensor:
    """(N, 3, S, S) uint8: the starting image of each row of the artifact."""
    parts = [load_tensors(file) for file in sorted((work / PATCHES).glob("*.safetensors"))]
    starts = {name: torch.cat([part[name] for part in parts]) for name in ("images", "label", "ipc_index")}
    places = starts["ipc_index"] * len(manifest.class_map) + starts["label"]
    if not torch.equal(places.sort().values, torch.arange(manifest.num_images)):
        raise ScoreError(
            f"{work / PATCHES} has starting images of {len(places)} of {manifest.num_images} images; run fadrm-hf "
            "distill again with the arguments of the run, or remove the folder to leave Theorem 2 out"
        )
    return starts["images"][places.argsort()]


def _theorem2(
    injection: Injection, observer: Observer, request: AnalysisRequest, temperature: float
) -> dict[str, Any]:
    """One residual: the risks of the network, and the terms of both classes of functions."""
    side = round((injection.images.before.shape[1] // 3) ** 0.5)
    shown = {name: each.unflatten(1, (3, side, side)) for name, each in vars(injection.images).items()}
    features = Residual(**{name: observer.features_of(each) for name, each in shown.items()})
    risks = {
        name: empirical_risk(observer.logits_of(shown[name]), injection.labels, temperature)
        for name in ("before", "after")
    }
    head = classifier_of(observer, side)
    bias = 0.0 if head.bias is None else head.bias.detach().abs().max().item()
    norm_bound = torch.linalg.vector_norm(head.weight.detach(), dim=1).max().item()
    stretch = largest_stretch(injection.images, features)
    signs = draw_signs(request.draws, len(injection.labels), generator(0, "analysis", "signs"))
    given = (injection, head.out_features, temperature)
    of_pixels, of_features = (
        (_setting(*given, injection.images, 1.0, 1.0, 0.0), complexities(injection.images, signs, 1.0)),
        (
            _setting(*given, features, norm_bound, norm_bound * stretch, bias),
            complexities(features, signs, norm_bound),
        ),
    )
    return {
        "iteration": injection.iteration,
        "num_images": len(injection.labels),
        "alpha": injection.alpha,
        "risks": risks,
        "pixels": _terms(*of_pixels),
        "features": _terms(*of_features) | {"bounds": _bounds(*of_features, risks)},
    }


def _setting(
    injection: Injection,
    num_logits: int,
    temperature: float,
    points: Residual,
    norm_bound: float,
    lipschitz: float,
    bias: float,
) -> Setting:
    """What Theorem 2 takes as given of a class: functions of `points` that are Lipschitz in pixels."""
    largest = max(torch.linalg.vector_norm(each, dim=1).max().item() for each in vars(points).values())
    return Setting(
        alpha=injection.alpha,
        norm_bound=norm_bound,
        lipschitz=lipschitz,
        discrepancy=distances(injection.images.before, injection.images.patches).mean().item(),
        loss_lipschitz=loss_lipschitz(temperature),
        loss_range=loss_range(num_logits, norm_bound * largest + bias, temperature),
    )


def _terms(setting: Setting, found: Complexities) -> dict[str, Any]:
    return {
        "setting": asdict(setting),
        "complexities": asdict(found),
        "needed_gap": setting.needed_gap,
        "condition": found.condition(setting),
        "after_ceiling": found.after_ceiling(setting),
        "risk_ceiling": setting.risk_ceiling,
    }


def _bounds(setting: Setting, found: Complexities, risks: Mapping[str, float]) -> dict[str, float]:
    """Both sides of Eq. 12, of the network itself."""
    terms = {"before": found.before, "after": found.after}
    return {name: risks[name] + 2.0 * setting.loss_range * term.value for name, term in terms.items()}
