"""Views x teachers -> soft labels: the teachers' logits on each stored view, made one.

BSSL (batch-specific soft labels; named in Tables 11-18, defined by the released code alone): while labelling,
BatchNorm layers normalise by the statistics of the current micro-batch, the same images that the student's BatchNorm
layers will see together; every other layer stays in eval mode and no running statistic changes. The label of a view
therefore depends on the views labelled with it, which is why the table keeps `step` and its order.

How several teachers' logits become one label is `RelabelConfig.ensemble`; nobody averages probabilities. Frobenius
norms are taken over all views of a step, not over a micro-batch, so such labels depend on their step even where
running statistics are used.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fadrm_hf.config import RelabelConfig
from fadrm_hf.errors import ConfigError
from fadrm_hf.randomness import generator
from fadrm_hf.sources.images import normalise
from fadrm_hf.teachers import Teacher, vote_weights
from fadrm_hf.views import LabelViews, render_views, require_tiles

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


def check_labelling(config: RelabelConfig, num_teachers: int, votes_known: bool, size: int | None = None) -> None:
    """Refuse labels that these teachers cannot make, before any of them is loaded.

    Args:
        config: How the labels are to be made.
        num_teachers: How many teachers there are.
        votes_known: Whether every teacher that labels has a vote, or will have one by then.
        size: Side of the images in pixels, if it is known.

    Raises:
        ConfigError: More teachers should label than there are, votes are asked for that nobody measured, or tiles are
            shuffled that images of this size do not have.
    """
    if config.num_teachers is not None and config.num_teachers > num_teachers:
        raise ConfigError(
            f"relabel.num_teachers is {config.num_teachers}, expected at most {num_teachers}, the number of teachers; "
            f"set --relabel.num_teachers {num_teachers} or less, or name more in --teachers.names"
        )
    if config.ensemble == "votes" and not votes_known:
        raise ConfigError(
            "relabel.ensemble is 'votes', which needs the vote of every teacher that labels, and not all are known; "
            "set --relabel.ensemble mean, or use what was distilled with --relabel.ensemble votes, which measures them"
        )
    if size is not None:
        require_tiles(size, config.shuffle_tiles)


def combine_logits(logits: Tensor, config: RelabelConfig, votes: Sequence[float | None] = ()) -> Tensor:
    """One label for each view from what several teachers say of it.

    Args:
        logits: (K, n, C) of all K labelling teachers on all n views of one step.
        config: Its `ensemble`: "mean", sum_j z_j / K; "frobenius", the same after each z_j (n, C) was scaled by
            (sum_i |z_i| / K) / |z_j|, with Frobenius norms (code of G-VBSM for ImageNet-1k,
            shaoshitong/G_VBSM_Dataset_Condensation @ 1ed80b0; not in its paper, arXiv 2311.17950); or "votes",
            sum_j w_j z_j with `vote_weights` (CV-DD).
        votes: `Teacher.vote` of each, for "votes".

    Returns:
        (n, C), as `logits`.
    """
    if config.ensemble == "votes":
        weights = vote_weights(torch.tensor(votes), config.vote_temperature).to(logits)
        return (weights[:, None, None] * logits).sum(dim=0)
    if config.ensemble == "frobenius":
        norms = torch.linalg.matrix_norm(logits)
        logits = logits * (norms.mean() / norms.clamp_min(torch.finfo(norms.dtype).tiny))[:, None, None]
    return logits.mean(dim=0)


class Labeller:
    """Teachers made ready to label.

    Args:
        teachers: Frozen teachers, of which the first `config.num_teachers` label.
        config: How many label, how their logits become one, batch or running statistics, and the micro-batches these
            are computed over.
        mean: Channel means of the normalisation.
        std: Channel standard deviations of the normalisation.
        device: Where they run.

    Raises:
        ConfigError: See `check_labelling`.
    """

    def __init__(
        self, teachers: Sequence[Teacher], config: RelabelConfig, mean: Colour, std: Colour, device: torch.device
    ) -> None:
        labelling = teachers[: config.num_teachers]
        self._votes = [teacher.vote for teacher in labelling]
        check_labelling(config, len(teachers), None not in self._votes)
        self._config, self._mean, self._std, self._device = config, mean, std, device
        self._modules = [copy.deepcopy(teacher.module).to(device).eval() for teacher in labelling]
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
            (n, C) float32 logits on the CPU; see `combine_logits`.
        """
        return self.label_shown(normalise(render_views(images, views), self._mean, self._std))

    @torch.inference_mode()
    def label_shown(self, shown: Tensor) -> Tensor:
        """Soft labels of the views of one batch that are rendered and normalised already; see `label`.

        Args:
            shown: (n, 3, S, S) float32, normalised; all views of the step.
        """
        groups = shown.to(self._device).split(micro_batches(len(shown), self._config))
        logits = [torch.cat([module(group) for group in groups]).float() for module in self._modules]
        return combine_logits(torch.stack(logits), self._config, self._votes).cpu()


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
    rng = generator(seed, "relabel", epoch)
    steps = torch.randperm(len(images), generator=rng).split(split_sizes(len(images), config.batch_size))
    size = images.shape[-1]
    tables = []
    for step, rows in enumerate(steps):
        views = _draw_views(rows, size, config, rng)
        place = {"epoch": torch.full((len(rows),), epoch), "step": torch.full((len(rows),), step)}
        tables.append({k: v.int() for k, v in place.items()} | views.columns())
        if labeller is not None:
            tables[-1]["logits"] = labeller.label(images, views)
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}


def _draw_views(rows: Tensor, size: int, config: RelabelConfig, rng: torch.Generator) -> LabelViews:
    assert config.flip_probability is not None, "resolve the configuration first"
    return LabelViews.draw(
        rows, size, config.crop_area, config.flip_probability, config.cutmix, rng, config.shuffle_tiles
    )


def _use_batch_statistics(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
            layer.momentum = 0.0  # the running statistics stay what they were
