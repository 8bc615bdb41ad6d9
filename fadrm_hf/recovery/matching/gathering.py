"""Measured statistics: one pass over the training images per teacher, for layers that keep none of their own.

G-VBSM (arXiv 2311.17950) matches distilled images to what convolutions see of the real ones, EDC (arXiv 2404.13733)
also to what each class's images look like to every layer. Units of work are ranges of classes, so that processes share
them and an interrupted pass resumes; each leaves one file, and all of them become one file per teacher, which later
runs reuse. The released code of EDC writes a file per layer and class, 391,000 for ImageNet-1k.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader

from fadrm_hf.config import LARGEST_SMALL_SIZE, Matching, SqueezeConfig, StatisticsConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.errors import RunFolderError
from fadrm_hf.networks.layers import MatchedLayer, matched_layers
from fadrm_hf.networks.teachers import Teacher, public_name, require_finite
from fadrm_hf.recovery.matching.difficulty import difficulty_groups, image_scores
from fadrm_hf.recovery.matching.image_moments import Statistic, image_moments, mean_and_variance, sums_over_images
from fadrm_hf.recovery.matching.real_views import ClassViews
from fadrm_hf.recovery.matching.targets import Targets
from fadrm_hf.runtime import tensor_files
from fadrm_hf.runtime.locks import Locks, locked
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import LOCKS, WORK
from fadrm_hf.runtime.shards import class_ranges, range_name
from fadrm_hf.runtime.transfer import send

_FORMAT = 2  # of the file; another number means that the same pass would be written differently
_UNITS = 100  # about so many ranges of classes; more, and the many processes of a large run would still share well


def block_side(config: StatisticsConfig, size: int) -> int:
    """Return the side of the blocks of a feature map, in positions, for images of `size` pixels."""
    return config.patch_side or (4 if size <= LARGEST_SMALL_SIZE else 16)


@dataclass(frozen=True, eq=False)
class StatisticsPass:
    """One pass of the training images through a teacher.

    Args:
        teacher: An aligned teacher.
        source: The real images.
        config: Which images, and which statistics of them.
        squeeze: How teachers are trained, resolved: `config.augment` crops and mirrors images likewise.
        matching: What is matched: convolutions and blocks of their maps, each class's own statistics.
        seed: Seed of the run: it decides which images are looked at, and their views.
    """

    teacher: Teacher
    source: Source
    config: StatisticsConfig
    squeeze: SqueezeConfig
    matching: Matching
    seed: int

    def gather(self, folder: Path, state: PartialState, reporter: Reporter) -> dict[str, Targets]:
        """Measure what the teacher's layers see of the images, or read it if it was measured before.

        All processes must call this together.

        Args:
            folder: Where statistics are kept, for all runs.
            state: The processes that share the work.
            reporter: Shows and logs one unit per class.

        Returns:
            Targets by the names of layers in `teacher.module`, float32 on the CPU; none, without a pass, where the
            network keeps all that is matched. Global statistics of BatchNorm layers are measured ones here, not the
            running ones.

        Raises:
            RunFolderError: The file that should hold them is damaged, or holds those of another pass.
            SourceError: A class has no training image.
            TeacherError: What its layers see of an image is not finite.
        """
        if not self._layers:
            return {}
        path = folder / self._file_name
        if path.exists():
            return self._read(path)
        self._measure_missing(path, state, reporter)
        with locked(_units_folder(path) / "merge.lock", reporter.say):
            if not path.exists():
                try:
                    self._merge(path)
                except FileNotFoundError:  # where there are no locks another may have merged and removed the parts
                    if not path.exists():
                        raise
            shutil.rmtree(_units_folder(path), ignore_errors=True)
        return self._read(path)

    @property
    def num_bytes(self) -> int:
        """About how many bytes the statistics take on disk; twice that while they are gathered."""
        groups = self.matching.difficulty_groups or len(self.source.class_map)
        groups = 1 + (groups if self._by_class else 0)
        return 2 * groups * sum(self._sizes.values()) * torch.float32.itemsize

    @property
    def _by_class(self) -> bool:
        return self.matching.category > 0

    @cached_property
    def _layers(self) -> list[MatchedLayer]:
        """The matched layers that do not keep all that is matched."""
        layers = matched_layers(self.teacher.module, self.matching.convolutions)
        return [layer for layer in layers if self._by_class or layer.kind != "bn"]

    @property
    def _block_side(self) -> int | None:
        """Side of the blocks that are measured; `None`: blocks are not measured."""
        return block_side(self.config, self.source.size) if self.matching.convolutions else None

    @cached_property
    def _sizes(self) -> dict[Statistic, int]:
        """The number of channels or blocks of each statistic."""
        if not self._layers:
            return {}
        device = next(self.teacher.module.parameters()).device
        blank = torch.zeros(1, 3, self.source.size, self.source.size, device=device)
        return {statistic: moments.shape[2] for statistic, moments in self._moments(blank).items()}

    @property
    def _identity(self) -> dict[str, Any]:
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
            "statistics": dataclasses.asdict(self.config) | {"patch_side": self._block_side},
            "views": (squeeze.crop, squeeze.padding, squeeze.flip_probability) if self.config.augment else None,
            "layers": [layer.name for layer in self._layers],
            "classes": self._by_class,
            "seed": self.seed,
        }
        if self.matching.difficulty_groups:
            identity["difficulty_groups"] = self.matching.difficulty_groups
        plain: dict[str, Any] = json.loads(json.dumps(identity))
        return plain

    @property
    def _file_name(self) -> str:
        """The teacher's name, and a hash of everything that decides the statistics."""
        name = re.sub(r"[^\w.-]+", "-", public_name(self.teacher.name)).strip("-")
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        return f"{name}-{digest[:16]}.safetensors"

    @property
    def _units(self) -> dict[str, range]:
        """Ranges of classes by file name; they depend on the number of classes alone."""
        num = len(self.source.class_map)
        return {range_name(labels): labels for labels in class_ranges(num, -(-num // _UNITS))}

    def _measure_missing(self, path: Path, state: PartialState, reporter: Reporter) -> None:
        """Measure the ranges that no file holds yet, together with other processes, until all are there."""
        units, first = self._units, state.process_index / state.num_processes
        locks = Locks(_units_folder(path) / LOCKS, reporter.say, reporter.say, first)

        def is_done(name: str) -> bool:
            return path.exists() or tensor_files.is_intact(_unit(path, name), name)

        num_classes = sum(len(labels) for name, labels in units.items() if not is_done(name))
        with reporter.stage("statistics", num_classes) as task:
            for labels in locks.take("statistics", units, is_done, lambda labels: task.skip(len(labels))):
                name = range_name(labels)
                tensor_files.save_with_digest(_unit(path, name), self._measure(labels), name)
                task.advance(len(labels))

    def _merge(self, path: Path) -> None:
        """Write one file of all ranges."""
        parts = [tensor_files.load_tensors(_unit(path, name)) for name in self._units]
        sums = torch.stack([part["sums"] for part in parts]).sum(0)
        count = torch.stack([part["count"] for part in parts]).sum(0)
        config = self.config
        pooled = mean_and_variance(sums, count, config.global_variance, config.batch_size).float()
        tensors = _named(self._sizes, pooled, self._merge_groups(parts, pooled) if self._by_class else None)
        tensor_files.save_with_digest(path, tensors, metadata={"identity": json.dumps(self._identity)})

    def _merge_groups(self, parts: list[dict[str, Tensor]], pooled: Tensor) -> Tensor:
        """Return (2, K, D) statistics of each class, or of each group; a group without images has those of all."""
        if not self.matching.difficulty_groups:
            return torch.cat([part["classes"] for part in parts], dim=1)
        sums, count = (torch.stack([part[name] for part in parts]).sum(0) for name in ("group_sums", "group_count"))
        of_groups = mean_and_variance(sums, count.clamp_min(1), self.config.class_variance).float()
        return torch.where(count > 0, of_groups, pooled[:, None])

    def _read(self, path: Path) -> dict[str, Targets]:
        """Return the statistics in a finished file, by layer; refuse those of another pass."""
        tensors, identity = _read_file(path)
        differing = [key for key, value in self._identity.items() if identity.get(key) != value]
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
        """Return, of k classes, (3, D) sums over images, (1,) their number, and (2, k, D) statistics of each class."""
        views, num_groups = self._views(labels), self.matching.difficulty_groups
        batches = DataLoader(views, batch_size=None, num_workers=self.squeeze.num_workers)
        num = len(views.count)
        sums = reduce(torch.add, (self._sums(images, groups, num) for images, groups in batches)).cpu()
        require_finite(self.teacher.name, sums, f"feature maps of class {range_name(labels)}")
        measured = {"sums": sums.sum(1), "count": views.count.sum(0)}
        if num_groups:
            measured |= {"group_sums": sums, "group_count": views.count}
        elif self._by_class:
            measured["classes"] = mean_and_variance(sums, views.count, self.config.class_variance).float()
        return measured

    def _views(self, labels: range) -> ClassViews:
        """Return the images of some classes, by class or by difficulty within each class."""
        views = ClassViews(self.source, labels, self.config, self.squeeze, self.seed)
        if num := self.matching.difficulty_groups:
            views.divide([difficulty_groups(self._scores(rows), num) for rows in views.rows], num)
        return views

    def _scores(self, rows: Tensor) -> Tensor:
        device = next(self.teacher.module.parameters()).device
        pixels = (self.source.pixels("train", part.tolist()) for part in rows.split(self.config.batch_size))
        return image_scores(self.teacher.module, (self.source.normalise(part).to(device) for part in pixels))

    def _sums(
        self,
        images: Tensor,  # (B, 3, S, S) normalised
        groups: Tensor,  # (B,) int64, from 0
        num_groups: int,
    ) -> Tensor:  # (3, num_groups, D) float64, all statistics of all layers behind each other
        device = next(self.teacher.module.parameters()).device
        # Masks would make a GPU's host wait for each group, to know how many images it has.
        images, rows = send([images, groups.argsort(stable=True)], device)
        moments = torch.cat(list(self._moments(images).values()), dim=2)[:, rows]
        sizes = groups.bincount(minlength=num_groups).tolist()
        return torch.stack([sums_over_images(part) for part in moments.split(sizes, dim=1)], dim=1)

    def _moments(self, images: Tensor) -> dict[Statistic, Tensor]:
        return image_moments(self.teacher.module, self._layers, self._block_side, images)


def _named(sizes: dict[Statistic, int], pooled: Tensor, by_class: Tensor | None) -> dict[str, Tensor]:
    """Cut (2, D) and (2, K, D) means and variances at the layers, and name the pieces as `Targets` does."""
    tensors = {}
    for prefix, values in (("", pooled), ("class_", by_class)):
        if values is None:
            continue
        pieces = values.split(list(sizes.values()), dim=-1)
        for (layer, kind), (mean, var) in zip(sizes, pieces, strict=True):
            tensors[f"{layer}/{prefix}{kind}mean"] = mean.clone()
            tensors[f"{layer}/{prefix}{kind}var"] = var.clone()
    return tensors


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a finished file, and the identity of the pass that wrote it."""
    try:
        tensors, metadata = tensor_files.read_intact(path)
        identity: dict[str, Any] = json.loads(metadata["identity"])
    except (SafetensorError, IsADirectoryError, KeyError, ValueError) as error:
        raise RunFolderError(
            f"{path} is empty or damaged, expected the statistics of a teacher; remove the file and they are gathered "
            "again"
        ) from error
    return tensors, identity


def _units_folder(path: Path) -> Path:
    """Return the folder in which the parts of a file wait until they are complete."""
    return path.with_suffix(WORK)


def _unit(path: Path, name: str) -> Path:
    return _units_folder(path) / f"{name}.safetensors"
