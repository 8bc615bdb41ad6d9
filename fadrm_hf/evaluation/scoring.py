"""All scores of an artifact: of its bytes and images, of its evaluations, and beside its source.

What cannot be scored is named with what is lacking; nothing is trained here.
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
from fadrm_hf.evaluation.information import Information, Observer, named_observer, recorded_observer
from fadrm_hf.evaluation.leakage import copies_of_test_images
from fadrm_hf.evaluation.scorecard import Contest, accuracy_scores
from fadrm_hf.evaluation.scores import compression_ratio, cosine_distance, effective_number, pixel_entropy
from fadrm_hf.methods import recorded_setting
from fadrm_hf.report.card.results import Result
from fadrm_hf.report.card.scores import Score, Scores
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import IMAGES_FOLDER, LABELS_FOLDER, PATCHES, SNAPSHOTS, TEACHERS
from fadrm_hf.runtime.tensor_files import load_tensors
from fadrm_hf.training.accuracy import summarise

Found = dict[str, Score]
Missing = dict[str, str]
_OF_SOURCE = ("compression_images", "compression_image_bytes", "compression_bytes", "test_copies")
_OF_FEATURES = ("feature_entropy", "cosine_distance", "effective_number")


@dataclass(frozen=True)
class ScoreRequest:
    """How an artifact is to be scored.

    Attributes:
        student: Architecture whose evaluations are compared; the artifact's own if none is named.
        network: Teacher's name of the network that images are looked at through; the artifact's first teacher if none
            is named.
        label_weight: w of LRS (DD-Ranking: 0.5).
        augmentation_weight: gamma of ARS (DD-Ranking: 0.5).
        bins: Bins of the histogram of grey levels.
        source: Where the source is, if not where it was.
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
    """Everything that can be scored.

    Args:
        location: The artifact; its images and teachers are fetched, its labels are not read.
        request: How.
        results: Its evaluations.
        device: Where the network runs.
        reporter: Says why a source or a network that was not named cannot be used. Scores are published, and such
            reasons may name folders.
        work: The run's folder of shards, which has the images that recovery began with, and perhaps snapshots.
        command: What was typed, for the record.

    Raises:
        ArtifactError: If the images are damaged.
        SourceError: If a source that was named cannot be read.
        TeacherError: If a network that was named cannot be loaded, or does not take these images.
    """
    manifest = location.manifest
    own = manifest.settings("student", StudentConfig).student
    contest = Contest(request.student or own, request.label_weight, request.augmentation_weight)
    for name in (name for name in manifest.files if name.startswith((f"{IMAGES_FOLDER}/", TEACHERS))):
        location.local(name)
    images, labels = read_images(location.folder)
    observer = _observer(location, request.network, device, reporter)
    found, missing = accuracy_scores(results, manifest, contest)
    for part in (
        _of_images(images, labels, observer, request.bins),
        _beside_source(location, images, request, reporter),
    ):
        found |= part[0]
        missing |= part[1]
    return Scores(
        scores=found,
        missing=missing,
        course=_course(work, images, manifest, observer, request.bins),
        settings={
            "student": contest.student,
            "label_weight": contest.label_weight,
            "augmentation_weight": contest.augmentation_weight,
            "bins": request.bins,
            "network": observer.name if observer else None,
            "has_taught": observer is not None and observer.has_taught,
        },
        command=command,
    )


def _observer(location: Location, network: str | None, device: torch.device, reporter: Reporter) -> Observer | None:
    """The network to look through; `None` where none was named and the artifact's own is not at hand."""
    if network is not None:
        return named_observer(network, location.manifest, device)
    try:
        return recorded_observer(location.folder, location.manifest, device)
    except FadrmError as error:
        reporter.say(f"features are not scored, the artifact's teacher cannot be loaded ({error})")
        return None


def _of_images(images: Tensor, labels: Tensor, observer: Observer | None, bins: int) -> tuple[Found, Missing]:
    """Entropies and diversity."""
    found: Found = {"pixel_entropy": _mean(pixel_entropy(images, bins))}
    if observer is None:
        return found, dict.fromkeys(_OF_FEATURES, "fadrm-hf score ARTIFACT --network NAME")
    information = Information.of(images, observer, bins)
    found["feature_entropy"] = _mean(information.feature_entropy)
    if int(labels.bincount().max()) < 2:
        return found, dict.fromkeys(_OF_FEATURES[1:], "an artifact with two images per class or more")
    found["cosine_distance"] = Score(cosine_distance(information.features, labels))
    found["effective_number"] = Score(effective_number(information.features, labels))
    return found, {}


def _beside_source(
    location: Location, images: Tensor, request: ScoreRequest, reporter: Reporter
) -> tuple[Found, Missing]:
    """Ratios of size, and leakage."""
    try:
        source = load_recorded_source(location, request.source)
    except FadrmError as error:
        if request.source is not None:
            raise
        reporter.say(f"sizes and copies are not scored, the source cannot be read ({error})")
        return {}, dict.fromkeys(_OF_SOURCE, "fadrm-hf score ARTIFACT --source.name PATH")
    found = _ratios(location, source)
    if source.test is None:
        return found, {"test_copies": "a source with test images"}
    return found | {"test_copies": Score(len(copies_of_test_images(images, source, reporter)))}, {}


def _ratios(location: Location, source: Source) -> Found:
    """The source's training images, encoded as they are, against the tables as they are stored."""
    whole = source.num_bytes("train")
    images, labels = (_table_bytes(location, table) for table in (IMAGES_FOLDER, LABELS_FOLDER))
    return {
        "compression_images": Score(compression_ratio(len(source.train), location.manifest.num_images)),
        "compression_image_bytes": Score(compression_ratio(whole, images)),
        "compression_bytes": Score(compression_ratio(whole, images + labels)),
    }


def _table_bytes(location: Location, table: str) -> int:
    return sum(location.manifest.files[name].bytes for name in table_names(location.manifest, table))


def _course(
    work: Path | None, images: Tensor, manifest: Manifest, observer: Observer | None, bins: int
) -> tuple[Mapping[str, float], ...]:
    """Mean entropies at every snapshot of the recovery; without snapshots, of its starting images and of its end."""
    iterations = recorded_setting(manifest.method, manifest.config, "iterations", 0)
    if work is None or observer is None or not iterations:
        return ()
    looks = [load_tensors(file) for file in sorted((work / SNAPSHOTS).glob("*.safetensors"))]
    starts = [load_tensors(file)["images"] for file in sorted((work / PATCHES).glob("*.safetensors"))]
    if not looks and starts:
        end = torch.tensor(iterations)
        looks = [{"images": torch.cat(starts), "iteration": torch.tensor(0)}, {"images": images, "iteration": end}]
    return tuple(_look(look["images"], int(look["iteration"]), observer, bins) for look in looks)


def _look(images: Tensor, iteration: int, observer: Observer, bins: int) -> dict[str, float]:
    seen = Information.of(images, observer, bins)
    entropies = {name: getattr(seen, name).mean().item() for name in ("pixel_entropy", "feature_entropy")}
    return {"iteration": iteration, "num_images": len(images)} | entropies


def _mean(values: Tensor) -> Score:
    """The mean over images, with their deviation."""
    summary = summarise(values.tolist())
    return Score(summary["mean"], summary["std"])
