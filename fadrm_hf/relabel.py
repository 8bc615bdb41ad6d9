"""Views x teachers -> soft labels: the mean of the teachers' logits on each stored view.

BSSL (batch-specific soft labels; named in Tables 11-18, defined by the released code alone): while labelling,
BatchNorm layers normalise by the statistics of the current micro-batch, the same images that the student's BatchNorm
layers will see together; every other layer stays in eval mode and no running statistic changes. The label of a view
therefore depends on the views labelled with it, which is why the table keeps `step` and its order.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fadrm_hf.config import RelabelConfig
from fadrm_hf.randomness import generator
from fadrm_hf.sources.images import normalise
from fadrm_hf.teachers import Teacher
from fadrm_hf.views import LabelViews, render_views

Colour = tuple[float, float, float]


def split_sizes(total: int, size: int) -> list[int]:
    """Consecutive groups of `size`; what is left over is a group of its own unless it is a single image.

    BatchNorm has no statistics of one image where the feature map is 1 x 1, so a single image joins the group before.
    """
    sizes = [size] * (total // size) + ([total % size] if total % size else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


def micro_batches(total: int, config: RelabelConfig) -> list[int]:
    """Sizes of the micro-batches of a batch of `total` views: what one forward pass of teacher or student sees."""
    return split_sizes(total, config.batch_size // config.accumulation)


class Labeller:
    """Teachers made ready to label.

    Args:
        teachers: Frozen teachers; their logits are averaged.
        config: Batch or running statistics, and the micro-batches they are computed over.
        mean: Channel means of the normalisation.
        std: Channel standard deviations of the normalisation.
        device: Where they run.
    """

    def __init__(
        self, teachers: Sequence[Teacher], config: RelabelConfig, mean: Colour, std: Colour, device: torch.device
    ) -> None:
        self._config, self._mean, self._std, self._device = config, mean, std, device
        self._modules = [copy.deepcopy(teacher.module).to(device).eval() for teacher in teachers]
        if config.batch_statistics:
            for module in self._modules:
                _use_batch_statistics(module)

    @torch.inference_mode()
    def label(self, images: Tensor, views: LabelViews) -> Tensor:
        """Soft labels of the views of one batch, in the micro-batches in which a student will see them.

        Args:
            images: (N, 3, S, S) uint8, the whole image table.
            views: The n views of one step.

        Returns:
            (n, C) float32 logits on the CPU, the mean over the teachers.
        """
        return self.label_shown(normalise(render_views(images, views), self._mean, self._std))

    @torch.inference_mode()
    def label_shown(self, shown: Tensor) -> Tensor:
        """Soft labels of the views of one batch that are rendered and normalised already; see `label`.

        Args:
            shown: (n, 3, S, S) float32, normalised.
        """
        groups = shown.to(self._device).split(micro_batches(len(shown), self._config))
        logits = [torch.cat([module(group) for group in groups]).float() for module in self._modules]
        return torch.stack(logits).mean(dim=0).cpu()


def label_epoch(
    images: Tensor, labeller: Labeller | None, config: RelabelConfig, seed: int, epoch: int
) -> dict[str, Tensor]:
    """One view of every image, in a random order, labelled batch by batch.

    Args:
        images: (N, 3, S, S) uint8, the image table.
        labeller: The teachers; `None` draws the same views and gives them no labels.
        config: Resolved settings.
        seed: The run's seed; each epoch has its own generator.
        epoch: Which epoch.

    Returns:
        The columns of the soft-label table: epoch, step, the view's columns, and logits (n, C) float32 if labelled.
    """
    assert config.flip_probability is not None, "resolve the configuration first"
    rng = generator(seed, "relabel", epoch)
    steps = torch.randperm(len(images), generator=rng).split(split_sizes(len(images), config.batch_size))
    size = images.shape[-1]
    tables = []
    for step, rows in enumerate(steps):
        views = LabelViews.draw(rows, size, config.crop_area, config.flip_probability, config.cutmix, rng)
        place = {"epoch": torch.full((len(rows),), epoch), "step": torch.full((len(rows),), step)}
        tables.append({k: v.int() for k, v in place.items()} | views.columns())
        if labeller is not None:
            tables[-1]["logits"] = labeller.label(images, views)
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}


def _use_batch_statistics(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
            layer.momentum = 0.0  # the running statistics stay what they were
