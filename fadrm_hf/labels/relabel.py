"""Views x teachers -> soft labels: the teachers' logits on each stored view, combined.

BSSL (batch-specific soft labels; named in Tables 11-18, defined by the released code alone): while labelling,
BatchNorm layers normalise by the statistics of the current micro-batch, the same images that the student's BatchNorm
layers will see together; every other layer stays in eval mode and no running statistic changes. The label of a view
therefore depends on the views labelled with it, which is why the table keeps `step` and its order.

How several teachers' logits become one label is `RelabelConfig.ensemble`; nobody averages probabilities. Frobenius
norms are taken over all views of a step, not over a micro-batch, so such labels depend on their step even where
running statistics are used.

Views are rendered, and teachers run, on many steps at once: only BatchNorm layers look across images, and they
normalise each micro-batch by itself (`fadrm_hf.labels.grouped_norm`). The number of steps that share a pass changes no
label by more than the rounding of a convolution. On a GPU so many share one that launching its kernels takes no time
that counts, and the next pass is launched before the labels of one are fetched.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.image_table import ImageTable
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import LabelViews, render_views, require_tiles
from fadrm_hf.errors import ConfigError
from fadrm_hf.labels.drawing import draw_epoch, micro_batches, split_sizes
from fadrm_hf.labels.grouped_norm import Grouping, use_group_statistics
from fadrm_hf.networks.fused.tracing import freeze
from fadrm_hf.networks.teachers import Teacher, require_finite, vote_weights
from fadrm_hf.runtime.number_format import DTYPES, is_native, rounding_products
from fadrm_hf.runtime.out_of_memory import groups_in_halves, in_halves

Colour = tuple[float, float, float]
Encode = Callable[[Tensor], dict[str, Tensor]]

# Pixels of the views that share a forward pass: enough to keep all cores or a GPU busy, few enough to bound memory.
_CPU_PIXELS = 1 << 16  # 64 views of 32 px, beyond which feature maps leave the caches
_BYTES_PER_PIXEL = 1 << 10  # of a GPU: three maps of 64 channels, as the widest networks need
_SHARE_OF_MEMORY = 1 / 4
_USUAL_MEMORY = 8 << 30  # of a device that does not say what it has
_MOST_PIXELS = 1 << 24  # 334 views of 224 px; with more a GPU is not any faster


def check_labelling(config: RelabelConfig, num_teachers: int, has_votes: bool, size: int | None = None) -> None:
    """Refuse labels that cannot be made, before any teacher is loaded.

    That is if more teachers should label than there are, if not all that label have votes (`has_votes`) and votes are
    needed, or if tiles are shuffled that images of this size, if it is known, do not have.
    """
    if config.num_teachers is not None and config.num_teachers > num_teachers:
        raise ConfigError(
            f"relabel.num_teachers is {config.num_teachers}, expected at most {num_teachers}, the number of teachers; "
            f"set --relabel.num_teachers {num_teachers} or less, or name more in --teachers.names"
        )
    if config.ensemble == "votes" and not has_votes:
        raise ConfigError(
            "relabel.ensemble is 'votes', which needs the vote of every teacher that labels, and not all are known; "
            "set --relabel.ensemble mean, or use what was distilled with --relabel.ensemble votes, which measures them"
        )
    if size is not None:
        require_tiles(size, config.shuffle_tiles)


def combine_logits(logits: Tensor, config: RelabelConfig, votes: Sequence[float | None] = ()) -> Tensor:
    """Combine the logits of several teachers into one label for each view.

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
        config: How many label, how their logits become one, batch or running statistics, the micro-batches these are
            computed over, and the number format of the convolutions.
        mean: Channel means of the normalisation.
        std: Channel standard deviations.
        device: Where they run, and views are rendered.
    """

    def __init__(
        self, teachers: Sequence[Teacher], config: RelabelConfig, mean: Colour, std: Colour, device: torch.device
    ) -> None:
        labelling = teachers[: config.num_teachers]
        self._votes = [teacher.vote for teacher in labelling]
        check_labelling(config, len(teachers), None not in self._votes)
        self.device = device
        self._config, self._mean, self._std = config, mean, std
        self._networks = [_Network(teacher, config, device) for teacher in labelling]

    @torch.inference_mode()
    def label(self, images: Tensor | ImageTable, views: LabelViews) -> Tensor:
        """Return the soft labels (n, C), float32 on the CPU, of the n views of one step of the image table.

        Micro-batches are those in which a student will see the views.
        """
        return torch.cat(list(self.label_steps(images, views, [len(views)])))

    def label_steps(self, images: Tensor | ImageTable, views: LabelViews, steps: Sequence[int]) -> Iterator[Tensor]:
        """Yield the soft labels of the views of successive steps of these sizes, a block of steps at a time.

        Where this is called often, the images are on `device` already.
        """
        images = images.to(self.device)
        num_ahead = 1 if self.device.type == "cuda" else 0
        begun: deque[_Pass] = deque()
        end = 0
        for block in _blocks(steps, images.shape[-1], self.device):
            start, end = end, end + sum(block)
            with torch.inference_mode():
                rendered = normalise(render_views(images, views[start:end]), self._mean, self._std)
                begun.append(self._begin_pass(rendered, block))
            if len(begun) > num_ahead:
                yield begun.popleft().fetch()
        yield from (one.fetch() for one in begun)

    @torch.inference_mode()
    def label_rendered(self, views: Tensor, steps: Sequence[int] | None = None) -> Tensor:
        """Return the soft labels (n, C), float32 on `device`, of views that are rendered already.

        Args:
            views: (n, 3, S, S), normalised, of one step or of successive ones.
            steps: The sizes of the steps; one if not given.
        """
        one = self._begin_pass(views.to(self.device), steps or [len(views)])
        one.fetch()
        return one.labels

    def _begin_pass(self, views: Tensor, steps: Sequence[int]) -> "_Pass":
        """Launch the passes of all teachers over the views of some steps, and the copy of the labels to the CPU."""
        groups = [size for step in steps for size in micro_batches(step, self._config)]
        with rounding_products(self._config.precision):
            logits = torch.stack([network(views, groups) for network in self._networks])  # (K, n, C)
        # Norms are those of a step; all other combinations see each view by itself.
        parts = logits.split(list(steps), dim=1) if self._config.ensemble == "frobenius" else [logits]
        labels = torch.cat([combine_logits(part, self._config, self._votes) for part in parts])
        return _Pass([network.name for network in self._networks], logits, labels)


class _Pass:
    """The passes of all teachers over a block of views, which a GPU may still be busy with.

    Args:
        names: Of the teachers.
        logits: (K, n, C) of each.
        labels: (n, C), combined.
    """

    def __init__(self, names: Sequence[str], logits: Tensor, labels: Tensor) -> None:
        self._names, self._logits, self.labels = names, logits, labels
        num_broken = torch.isfinite(logits).logical_not().flatten(1).sum(dim=1)  # (K,)
        self._on_cpu = [tensor.to("cpu", non_blocking=True) for tensor in (labels, num_broken)]
        self._copied: torch.cuda.Event | None = None
        if logits.device.type == "cuda":
            self._copied = torch.cuda.current_stream(logits.device).record_event()

    def fetch(self) -> Tensor:
        """Wait, and return the labels on the CPU; refuse those of a teacher whose logits are not finite."""
        if self._copied is not None:
            self._copied.synchronize()
        labels, num_broken = self._on_cpu
        for name, logits, number in zip(self._names, self._logits, num_broken.tolist(), strict=True):
            if number:
                require_finite(name, logits, "logits of views of distilled images")
        return labels


class _Network:
    """A copy of a teacher in the number format and the memory layout that are fastest for labels."""

    def __init__(self, teacher: Teacher, config: RelabelConfig, device: torch.device) -> None:
        self.name, self._dtype = teacher.name, DTYPES[config.precision]
        module = copy.deepcopy(teacher.module).eval().to(device, self._dtype).to(memory_format=torch.channels_last)
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.float()
        self._grouping: Grouping | None = None
        if config.batch_statistics:
            self._grouping = use_group_statistics(module, at_once=device.type == "cuda")
        # Frozen convolutions compute in fp32 what this machine could only emulate.
        self._module = module if is_native(self._dtype, device.type) else freeze(module, compiles=False)

    def __call__(self, views: Tensor, groups: Sequence[int]) -> Tensor:
        """(n, 3, S, S) views -> (n, C) float32 logits, by the batch statistics of each group."""
        views = views.to(self._dtype, memory_format=torch.channels_last)
        if self._grouping is None:
            return in_halves(self._module, views).float()
        return groups_in_halves(self._by_group, views, groups).float()

    def _by_group(self, views: Tensor, groups: Sequence[int]) -> Tensor:
        assert self._grouping is not None
        self._grouping.sizes = groups
        logits: Tensor = self._module(views)
        return logits


def _blocks(steps: Sequence[int], size: int, device: torch.device) -> Iterator[Sequence[int]]:
    """Return the successive steps that share a forward pass; always the same ones."""
    per_block = max(1, _block_pixels(device) // size**2 // max(steps, default=1))
    return (steps[start : start + per_block] for start in range(0, len(steps), per_block))


def _block_pixels(device: torch.device) -> int:
    """Return how many pixels share a forward pass: on a GPU a power of two, by all its memory, free or not.

    So that the same machine always makes the same blocks; where memory lacks all the same, a pass is halved.
    """
    if device.type == "cpu":
        return _CPU_PIXELS
    is_cuda = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if is_cuda else _USUAL_MEMORY
    most = int(memory * _SHARE_OF_MEMORY) // _BYTES_PER_PIXEL
    return min(_MOST_PIXELS, 1 << (most.bit_length() - 1))


def label_epoch(
    images: Tensor | ImageTable,
    labeller: Labeller | None,
    config: RelabelConfig,
    seed: int,
    epoch: int,
    encode: Encode = lambda logits: {"logits": logits},
) -> dict[str, Tensor]:
    """Draw one view of every image, in a random order, and label the views batch by batch.

    Args:
        images: (N, 3, S, S) uint8, the image table.
        labeller: The teachers; `None` draws the same views and gives them no labels.
        config: Resolved settings.
        seed: The run's seed; each epoch has a generator.
        epoch: Number of the epoch.
        encode: Turns logits (n, C) float32 into columns, (n, ...) each; called block by block, so that the logits of a
            whole epoch are never in memory.

    Returns:
        The columns of the soft-label table: epoch, step, the view's columns and, if labelled, those of `encode`.
    """
    table, views = draw_epoch(len(images), images.shape[-1], config, seed, epoch)
    if labeller is not None:
        steps = split_sizes(len(images), config.batch_size)
        table |= _collect(map(encode, labeller.label_steps(images, views, steps)), len(views))
    return table


def _collect(blocks: Iterator[dict[str, Tensor]], num_rows: int) -> dict[str, Tensor]:
    """Join successive rows of some columns.

    They are written to where they will stay: small tensors that outlive a block would lie between large ones that do
    not, and the system would get none of these back.
    """
    columns: dict[str, Tensor] = {}
    end = 0
    for block in blocks:
        start = end
        for name, values in block.items():
            if name not in columns:
                columns[name] = values.new_empty((num_rows, *values.shape[1:]))
            end = start + len(values)
            columns[name][start:end] = values
    return columns
