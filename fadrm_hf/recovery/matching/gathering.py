"""Measured statistics: one pass over the training images per teacher, for layers that keep none of their own.

G-VBSM (arXiv 2311.17950) matches distilled images to what convolutions see of the real ones, EDC (arXiv 2404.13733)
also to what each class's images look like to every layer. Units of work are ranges of classes, so that processes share
them and an interrupted pass goes on; each leaves one file, and all of them become one file per teacher, which later
runs use again. The released code of EDC writes a file per layer and class, 391,000 for ImageNet-1k.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fadrm_hf.config import LARGEST_SMALL_SIZE, SqueezeConfig, StatisticsConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import RunFolderError
from fadrm_hf.networks.layers import Watched, watched_layers
from fadrm_hf.networks.teachers import Teacher, public_name, require_finite
from fadrm_hf.recovery.matching.image_moments import Statistic, image_moments, mean_and_variance, sums_over_images
from fadrm_hf.recovery.matching.real_views import ClassViews
from fadrm_hf.recovery.matching.targets import Targets
from fadrm_hf.runtime import files
from fadrm_hf.runtime.locks import Locks, locked
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import LOCKS, WORK
from fadrm_hf.runtime.shards import class_ranges, range_name

_FORMAT = 2  # of the file; another number means that the same pass would be written differently
_UNITS = 100  # about so many ranges of classes; more, and the many processes of a large run would still share well


def gather_statistics(
    teacher: Teacher,
    source: Source,
    config: StatisticsConfig,
    squeeze: SqueezeConfig,
    convolutions: bool,
    classes: bool,
    folder: Path,
    seed: int,
    state: PartialState,
    reporter: Reporter,
) -> dict[str, Targets]:
    """What a teacher's layers have seen of the training images; measured, or read if it has been before.

    All processes must call this together.

    Args:
        teacher: An aligned teacher.
        source: The real images.
        config: Which images, and which statistics of them.
        squeeze: How teachers are trained, resolved: `config.augment` crops and mirrors images likewise.
        convolutions: Whether convolutions are matched in networks that have BatchNorm layers too, and blocks of their
            maps, which only images of the source's size have.
        classes: Whether each class's own statistics are wanted, of BatchNorm layers too.
        folder: Where statistics are kept, for all runs.
        seed: Seed of the run: it decides which images are looked at, and their views.
        state: The processes that share the work.
        reporter: Shows and logs one unit per class.

    Returns:
        Targets by the names of layers in `teacher.module`, float32 on the CPU; none, without a pass, where the network
        keeps all that is matched. Global statistics of BatchNorm layers are measured
        ones here, not the running ones.

    Raises:
        RunFolderError: The file that should hold them is damaged, or holds those of another teacher, source or pass.
        SourceError: A class has no training image.
        TeacherError: What its layers see of an image is not finite.
    """
    layers = _measured_layers(teacher.module, convolutions, classes)
    if not layers:
        return {}
    work = _Pass(teacher, source, config, squeeze, layers, _side(config, source, convolutions), classes, seed)
    path = folder / work.file_name
    if path.exists():
        return work.read(path)
    work.run(path, state, reporter)
    with locked(_units_folder(path) / "merge.lock", reporter.say):
        if not path.exists():
            try:
                work.merge(path)
            except FileNotFoundError:  # where there are no locks another may have merged and removed the parts
                if not path.exists():
                    raise
        shutil.rmtree(_units_folder(path), ignore_errors=True)
    return work.read(path)


def statistics_bytes(
    teacher: Teacher, source: Source, config: StatisticsConfig, convolutions: bool, classes: bool
) -> int:
    """About how many bytes the statistics of a teacher take on disk; twice that while they are gathered.

    Args:
        teacher: An aligned teacher.
        source: The real images.
        config: Which statistics.
        convolutions: As `gather_statistics` takes it.
        classes: As `gather_statistics` takes it.
    """
    layers = _measured_layers(teacher.module, convolutions, classes)
    side = _side(config, source, convolutions)
    sizes = _sizes(teacher.module, layers, side, source.size) if layers else {}
    groups = 1 + (len(source.class_map) if classes else 0)
    return 2 * groups * sum(sizes.values()) * torch.float32.itemsize


def block_side(config: StatisticsConfig, size: int) -> int:
    """Side of the blocks of a feature map, in positions.

    Args:
        config: May say it.
        size: Side of the images.
    """
    return config.patch_side or (4 if size <= LARGEST_SMALL_SIZE else 16)


@dataclass(frozen=True, eq=False)
class _Pass:
    """One pass of the training images through a teacher.

    Attributes:
        teacher: The network.
        source: The real images.
        config: Which images, and which statistics of them.
        squeeze: The augmentation.
        layers: Those that are measured.
        block_side: Side of the blocks of convolutions' maps; `None`: blocks are not measured.
        classes: Whether each class's own statistics are kept.
        seed: Seed of the run.
    """

    teacher: Teacher
    source: Source
    config: StatisticsConfig
    squeeze: SqueezeConfig
    layers: list[Watched]
    block_side: int | None
    classes: bool
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the statistics, as plain data."""
        teacher, source, squeeze = self.teacher, self.source, self.squeeze
        identity = {
            "format": _FORMAT,
            "teacher": {"sha256": teacher.sha256, "mean": teacher.mean, "std": teacher.std},
            "source": {
                "fingerprint": source.fingerprint,
                "classes": source.class_map.hash,
                **{name: getattr(source.config, name) for name in ("size", "mean", "std")},
            },
            "statistics": dataclasses.asdict(self.config) | {"patch_side": self.block_side},
            "views": (squeeze.crop, squeeze.padding, squeeze.flip_probability) if self.config.augment else None,
            "layers": [watched.name for watched in self.layers],
            "classes": self.classes,
            "seed": self.seed,
        }
        plain: dict[str, Any] = json.loads(json.dumps(identity))
        return plain

    @property
    def file_name(self) -> str:
        """Of the finished statistics: the teacher's name, and a hash of everything that decides them."""
        name = re.sub(r"[^\w.-]+", "-", public_name(self.teacher.name)).strip("-")
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        return f"{name}-{digest[:16]}.safetensors"

    @property
    def units(self) -> dict[str, range]:
        """Ranges of classes by file name; they depend on the number of classes alone."""
        num = len(self.source.class_map)
        return {range_name(labels): labels for labels in class_ranges(num, -(-num // _UNITS))}

    def run(self, path: Path, state: PartialState, reporter: Reporter) -> None:
        """Measure ranges that no file holds yet, until all are there."""
        units, place = self.units, state.process_index / state.num_processes
        locks = Locks(_units_folder(path) / LOCKS, reporter.say, reporter.say, place)

        def is_done(name: str) -> bool:
            return path.exists() or files.is_intact(_unit(path, name), name)

        num_classes = sum(len(labels) for name, labels in units.items() if not is_done(name))
        with reporter.stage("statistics", num_classes) as task:
            for labels in locks.take("statistics", units, is_done, lambda labels: task.skip(len(labels))):
                name = range_name(labels)
                files.save_with_digest(_unit(path, name), self._measure(labels), name)
                task.advance(len(labels))

    def merge(self, path: Path) -> None:
        """Write one file of all ranges."""
        parts = [files.load_tensors(_unit(path, name)) for name in self.units]
        sums = torch.stack([part["sums"] for part in parts]).sum(0)
        count = torch.stack([part["count"] for part in parts]).sum(0)
        config = self.config
        pooled = mean_and_variance(sums, count, config.global_variance, config.batch_size).float()
        by_class = torch.cat([part["classes"] for part in parts], dim=1) if self.classes else None
        sizes = _sizes(self.teacher.module, self.layers, self.block_side, self.source.size)
        tensors = _named(sizes, pooled, by_class)
        files.save_with_digest(path, tensors, metadata={"identity": json.dumps(self.identity)})

    def read(self, path: Path) -> dict[str, Targets]:
        """The statistics in a finished file, by layer; a file that holds others than those of this pass is refused."""
        tensors, held = _read(path)
        differing = [key for key, value in self.identity.items() if held.get(key) != value]
        if differing:
            raise RunFolderError(
                f"{path} holds statistics of another pass (it differs in {', '.join(differing)}), expected those of "
                f"teacher {self.teacher.name!r} on source {self.source.config.name!r}; remove the file and they are "
                "gathered again"
            )
        by_layer: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            layer, _, field = key.rpartition("/")
            by_layer.setdefault(layer, {})[field] = tensor
        return {layer: Targets(**fields) for layer, fields in by_layer.items()}

    def _measure(self, labels: range) -> dict[str, Tensor]:
        """Of some classes: (3, D) sums over all images, (1,) their number, and (2, k, D) statistics of each class."""
        views = ClassViews(self.source, labels, self.config, self.squeeze, self.seed)
        batches = DataLoader(views, batch_size=None, num_workers=self.squeeze.num_workers)
        sums = reduce(torch.add, (self._sums(images, places, len(labels)) for images, places in batches)).cpu()
        require_finite(self.teacher.name, sums, f"feature maps of class {range_name(labels)}")
        measured = {"sums": sums.sum(1), "count": views.count.sum(0)}
        if self.classes:
            measured["classes"] = mean_and_variance(sums, views.count, self.config.class_variance).float()
        return measured

    def _sums(
        self,
        images: Tensor,  # (B, 3, S, S) normalised
        places: Tensor,  # (B,) int64
        num_classes: int,
    ) -> Tensor:  # (3, num_classes, D) float64
        module = self.teacher.module
        device = next(module.parameters()).device
        found = image_moments(module, self.layers, self.block_side, images.to(device))
        moments = torch.cat(list(found.values()), dim=2)
        of_class = [(places == place).to(device) for place in range(num_classes)]
        return torch.stack([sums_over_images(moments[:, rows]) for rows in of_class], dim=1)


def _measured_layers(module: nn.Module, convolutions: bool, classes: bool) -> list[Watched]:
    """The matched layers that do not keep all that is matched."""
    return [watched for watched in watched_layers(module, convolutions) if classes or watched.kind != "bn"]


def _side(config: StatisticsConfig, source: Source, convolutions: bool) -> int | None:
    """Side of the blocks that are measured, if any are."""
    return block_side(config, source.size) if convolutions else None


def _sizes(module: nn.Module, layers: list[Watched], side: int | None, size: int) -> dict[Statistic, int]:
    """How many channels or blocks stand behind each statistic."""
    blank = torch.zeros(1, 3, size, size, device=next(module.parameters()).device)
    found = image_moments(module, layers, side, blank)
    return {statistic: moments.shape[2] for statistic, moments in found.items()}


def _named(sizes: dict[Statistic, int], pooled: Tensor, by_class: Tensor | None) -> dict[str, Tensor]:
    """The file's tensors: (2, D) and (2, K, D) means and variances, cut at the layers, as `Targets` names them."""
    tensors = {}
    for prefix, values in (("", pooled), ("class_", by_class)):
        if values is None:
            continue
        pieces = values.split(list(sizes.values()), dim=-1)
        for (layer, kind), (mean, var) in zip(sizes, pieces, strict=True):
            tensors[f"{layer}/{prefix}{kind}mean"] = mean.clone()
            tensors[f"{layer}/{prefix}{kind}var"] = var.clone()
    return tensors


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a finished file, and what it says that they are."""
    try:
        tensors, metadata = files.read_intact(path)
        identity: dict[str, Any] = json.loads(metadata["identity"])
    except (SafetensorError, IsADirectoryError, KeyError, ValueError) as error:
        raise RunFolderError(
            f"{path} is empty or damaged, expected the statistics of a teacher; remove the file and they are gathered "
            "again"
        ) from error
    return tensors, identity


def _units_folder(path: Path) -> Path:
    """Where the parts of a file wait until they are complete."""
    return path.with_suffix(WORK)


def _unit(path: Path, name: str) -> Path:
    return _units_folder(path) / f"{name}.safetensors"
