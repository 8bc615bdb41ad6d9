"""All scores of an artifact: of its bytes and images, of its evaluations, and against its source.

What cannot be scored is named with what is missing; nothing is trained here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fadrm_hf.artifact.location import Location, table_names
from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.reading import read_images
from fadrm_hf.artifact.recorded_source import load_recorded_source
from fadrm_hf.config import StudentConfig, require
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import FadrmError
from fadrm_hf.evaluation.information import (
    FeatureNetwork,
    Information,
    fetch_images_and_teachers,
    named_network,
    read_shards,
    recorded_network,
)
from fadrm_hf.evaluation.leakage import copies_of_test_images
from fadrm_hf.evaluation.scorecard import Comparison, accuracy_scores
from fadrm_hf.evaluation.scores import compression_ratio, cosine_distance, effective_number, pixel_entropy
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.scores import Score, Scores
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER, PATCHES, SNAPSHOTS
from fadrm_hf.training.accuracy import summarise

ScoresAndMissing = tuple[dict[str, Score], dict[str, str]]
_OF_SOURCE = ("compression_images", "compression_image_bytes", "compression_bytes", "test_copies")
_OF_FEATURES = ("feature_entropy", "cosine_distance", "effective_number")


@dataclass(frozen=True)
class ScoreRequest:
    """How an artifact is to be scored.

    Attributes:
        student: Architecture whose evaluations are compared; the artifact's own if none is named.
        network: Teacher's name of the network that images are shown to; the artifact's first teacher if none is named.
        label_weight: w of LRS (DD-Ranking: 0.5).
        augmentation_weight: gamma of ARS (DD-Ranking: 0.5).
        bins: Bins of the histogram of grey levels.
        source: Path to the source, if it has moved.
    """

    student: str | None = None
    network: str | None = None
    label_weight: float = 0.5
    augmentation_weight: float = 0.5
    bins: int = 256
    source: str | None = None

    def __post_init__(self) -> None:
        for name in ("label_weight", "augmentation_weight"):
            require(0.0 <= getattr(self, name) <= 1.0, name, getattr(self, name), "a fraction in [0, 1]")
        require(1 <= self.bins <= 256, "bins", self.bins, "1 to 256")


def measure_scores(
    location: Location,
    request: ScoreRequest,
    results: Sequence[Result],
    device: torch.device,
    reporter: Reporter,
    work: Path | None = None,
    command: str = "",
) -> Scores:
    """Measure everything that can be scored.

    Args:
        location: The artifact; its images and teachers are fetched, its labels are not read.
        request: How.
        results: Its evaluations.
        device: Where the network runs.
        reporter: Prints why a source or a network that was not named cannot be used. Scores are published, and such
            reasons may name folders.
        work: The run's folder of shards, which has the images that recovery began with, and perhaps snapshots.
        command: What was typed, for the record.

    Raises:
        ArtifactError: If the images are damaged.
        SourceError: If a source that was named cannot be read.
        TeacherError: If a network that was named cannot be loaded, or does not take these images.
    """
    manifest = location.manifest
    student = request.student or manifest.settings("student", StudentConfig).student
    comparison = Comparison(student, request.label_weight, request.augmentation_weight)
    fetch_images_and_teachers(location)
    images, labels = read_images(location.folder)
    network = _network(location, request.network, device, reporter)
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    for some, others in (
        accuracy_scores(results, manifest, comparison),
        _of_images(images, labels, network, request.bins),
        _against_source(location, images, request, reporter),
    ):
        scores |= some
        missing |= others
    return Scores(
        scores=scores,
        missing=missing,
        course=_along_recovery(work, images, manifest, network, request.bins),
        settings={
            "student": comparison.student,
            "label_weight": comparison.label_weight,
            "augmentation_weight": comparison.augmentation_weight,
            "bins": request.bins,
            "network": network.name if network else None,
            "has_taught": network is not None and network.has_taught,
        },
        command=command,
    )


def _network(location: Location, name: str | None, device: torch.device, reporter: Reporter) -> FeatureNetwork | None:
    """Load the network to show images to; `None` where none was named and the artifact's own is not at hand."""
    if name is not None:
        return named_network(name, location.manifest, device)
    try:
        return recorded_network(location.folder, location.manifest, device)
    except FadrmError as error:
        reporter.say(f"features are not scored, the artifact's teacher cannot be loaded ({error})")
        return None


def _of_images(images: Tensor, labels: Tensor, network: FeatureNetwork | None, bins: int) -> ScoresAndMissing:
    """Measure entropies and diversity."""
    scores = {"pixel_entropy": _mean(pixel_entropy(images, bins))}
    if network is None:
        return scores, dict.fromkeys(_OF_FEATURES, "fadrm-hf score ARTIFACT --network NAME")
    information = Information.of(images, network, bins)
    scores["feature_entropy"] = _mean(information.feature_entropy)
    if int(labels.bincount().max()) < 2:
        return scores, dict.fromkeys(_OF_FEATURES[1:], "an artifact with two images per class or more")
    scores["cosine_distance"] = Score(cosine_distance(information.features, labels))
    scores["effective_number"] = Score(effective_number(information.features, labels))
    return scores, {}


def _against_source(location: Location, images: Tensor, request: ScoreRequest, reporter: Reporter) -> ScoresAndMissing:
    """Measure ratios of size, and leakage."""
    try:
        source = load_recorded_source(location, request.source)
    except FadrmError as error:
        if request.source is not None:
            raise
        reporter.say(f"sizes and copies are not scored, the source cannot be read ({error})")
        return {}, dict.fromkeys(_OF_SOURCE, "fadrm-hf score ARTIFACT --source.name PATH")
    scores = _ratios(location, source)
    if source.test is None:
        return scores, {"test_copies": "a source with test images"}
    return scores | {"test_copies": Score(len(copies_of_test_images(images, source, reporter)))}, {}


def _ratios(location: Location, source: Source) -> dict[str, Score]:
    """Compare the source's training images, encoded as they are, with the tables as they are stored."""
    manifest, whole = location.manifest, source.num_bytes("train")
    images, labels = (
        sum(manifest.files[name].bytes for name in table_names(manifest, table))
        for table in (IMAGES_FOLDER, LABELS_FOLDER)
    )
    return {
        "compression_images": Score(compression_ratio(len(source.train), manifest.num_images)),
        "compression_image_bytes": Score(compression_ratio(whole, images)),
        "compression_bytes": Score(compression_ratio(whole, images + labels)),
    }


def _along_recovery(
    work: Path | None, images: Tensor, manifest: Manifest, network: FeatureNetwork | None, bins: int
) -> tuple[Mapping[str, float], ...]:
    """Measure mean entropies at every snapshot of the recovery; without any, of its starting images and its end."""
    iterations = manifest.method_setting("iterations", 0)
    if work is None or network is None or not iterations:
        return ()
    snapshots = read_shards(work, SNAPSHOTS)
    starts = [shard["images"] for shard in read_shards(work, PATCHES)]
    moments = [(int(snapshot["iteration"]), snapshot["images"]) for snapshot in snapshots]
    if not moments and starts:
        moments = [(0, torch.cat(starts)), (iterations, images)]
    return tuple(_entropies(iteration, shown, network, bins) for iteration, shown in moments)


def _entropies(iteration: int, images: Tensor, network: FeatureNetwork, bins: int) -> dict[str, float]:
    information = Information.of(images, network, bins)
    means = {name: getattr(information, name).mean().item() for name in ("pixel_entropy", "feature_entropy")}
    return {"iteration": iteration, "num_images": len(images)} | means


def _mean(values: Tensor) -> Score:
    """Return the mean over images, with their deviation."""
    summary = summarise(values.tolist())
    return Score(summary["mean"], summary["std"])
