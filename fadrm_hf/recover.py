"""GRADSTEP of Algorithm 1: the one loop that optimises pixels, whatever the method (Eq. 52-53, Table 8).

    argmin_x  CE(f(view(x)), y) + r_bn * D_global(view(x))

One batch of images is optimised by Adam with a global cosine, seen through one random view per iteration by a frozen
teacher; several teachers take turns. After each step every channel is clamped to valid pixels. What happens between
runs of this loop (resizing, residuals) is the method's business: see `fadrm_hf.methods`.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fadrm_hf.config import Precision, RecoverConfig
from fadrm_hf.errors import ConfigError, TeacherError
from fadrm_hf.schedules import cosine
from fadrm_hf.sources import Source
from fadrm_hf.statistics import BNStatistics
from fadrm_hf.teachers import Teacher
from fadrm_hf.views import BatchViews, apply_view

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_REPORT_EVERY = 25
_VIEWS_AT_ONCE = 100

Report = Callable[[int, dict[str, float]], None]


class Matcher:
    """A teacher made ready for matching: weights cast once, channels last, its BatchNorm statistics watched.

    Convolutions run in the chosen format; BatchNorm parameters and statistics stay fp32 (§3.2: the divergence to the
    global statistics is computed in FP32).

    Args:
        teacher: A frozen teacher.
        config: Precision and the weight of the first BatchNorm layer.
        device: Where it runs.

    Raises:
        TeacherError: If statistics are to be matched and the teacher has no BatchNorm layer.
    """

    def __init__(self, teacher: Teacher, config: RecoverConfig, device: torch.device) -> None:
        self.dtype = _DTYPES[config.precision]
        module = copy.deepcopy(teacher.module).to(device, self.dtype).to(memory_format=torch.channels_last)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.float()
        self.module = module.eval()
        check_matchable(teacher.name, module, config)
        self.statistics = BNStatistics(module, config.first_bn_weight)

    def losses(self, views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy (Eq. 53) and D_global of a batch.

        Args:
            views: (B, 3, S, S) float32, normalised.
            labels: (B,) int64.
        """
        logits = self.module(views.to(self.dtype, memory_format=torch.channels_last))
        cross_entropy = F.cross_entropy(logits.float(), labels)
        distance = self.statistics.loss() if self.statistics.num_layers else cross_entropy.new_zeros(())
        return cross_entropy, distance


class Recovery:
    """The optimisation of one shard, as a method drives it: `optimise`, something in between, `optimise` again.

    Args:
        matchers: The teachers, taking turns iteration by iteration from the shard's first one on.
        labels: (B,) int64 class of each image.
        source: Normalisation of the images.
        config: Shared settings of recovery, resolved.
        iterations: All iterations of all runs together: the period of the learning rate's cosine.
        generator: The shard's own generator.
        report: Called now and then with the iterations done since and the current losses.
    """

    def __init__(
        self,
        matchers: Sequence[Matcher],
        labels: Tensor,
        source: Source,
        config: RecoverConfig,
        iterations: int,
        generator: torch.Generator,
        report: Report,
    ) -> None:
        self._matchers, self._labels, self._config = matchers, labels, config
        self._iterations, self._generator, self._report = iterations, generator, report
        self._done = 0
        self._lowest, self._highest = valid_range(source, labels.device)
        fp16 = config.precision == "fp16"
        self._scaler = torch.amp.GradScaler(labels.device.type, enabled=fp16)

    def optimise(self, images: Tensor, iterations: int) -> Tensor:
        """Run `iterations` steps from `images` with a fresh Adam; the cosine goes on from the run before.

        Args:
            images: (B, 3, S, S) float32, normalised; left unchanged.
            iterations: Number of steps.

        Returns:
            The last iterate, like `images`, within the range of valid pixels.

        Raises:
            ConfigError: If the optimisation diverges to values that are not finite.
        """
        pixels = images.detach().clone().requires_grad_()
        settings = self._config
        adam = torch.optim.Adam([pixels], lr=settings.lr, betas=settings.betas, eps=1e-8, fused=True)
        reported = self._done
        last = self._done + iterations
        for rows, columns in self._draw_views(iterations, images.shape[-1]):
            adam.param_groups[0]["lr"] = cosine(settings.lr, self._done, self._iterations)
            cross_entropy, distance = self._step(adam, pixels, rows, columns)
            self._done += 1
            # Reading a loss makes the host wait for the device, so it is done now and then.
            if self._done - reported == _REPORT_EVERY or self._done == last:
                losses = {"ce": cross_entropy.item(), "bn": distance.item()}
                self._report(self._done - reported, {"iteration": self._done, **losses})
                reported = self._done
        self._refuse_divergence(pixels)
        return pixels.detach()

    def _draw_views(self, num: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        config = self._config
        assert config.flip_probability is not None and config.max_roll is not None, "resolve the configuration first"
        views = BatchViews.draw(num, size, config.crop_area, config.flip_probability, config.max_roll, self._generator)
        device = self._labels.device
        for block in views.split(_VIEWS_AT_ONCE):
            rows, columns = (matrices.to(device) for matrices in block.matrices(size))
            yield from zip(rows, columns, strict=True)

    def _step(self, adam: torch.optim.Adam, pixels: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        matcher = self._matchers[self._done % len(self._matchers)]
        cross_entropy, distance = matcher.losses(apply_view(pixels, rows, columns), self._labels)
        loss = cross_entropy + self._config.bn_weight * distance
        (pixels.grad,) = torch.autograd.grad(self._scaler.scale(loss), [pixels])
        self._scaler.step(adam)
        self._scaler.update()
        with torch.no_grad():
            torch.clamp(pixels, self._lowest, self._highest, out=pixels)
        return cross_entropy.detach(), distance.detach()

    def _refuse_divergence(self, pixels: Tensor) -> None:
        if bool(torch.isfinite(pixels).all()):
            return
        raise ConfigError(
            f"recovery diverged before iteration {self._done}: some pixels are not finite. Lower --recover.lr "
            f"(now {self._config.lr}), or set --recover.precision fp32 (now {self._config.precision})"
        )


def check_matchable(name: str, module: nn.Module, config: RecoverConfig) -> None:
    """Refuse a network without BatchNorm layers where their statistics are to be matched.

    Raises:
        TeacherError: If there is none and its loss has a weight.
    """
    if config.bn_weight > 0 and not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        raise TeacherError(
            f"teacher {name} has no BatchNorm layer whose statistics could be matched; choose another teacher, or set "
            "--recover.bn_weight 0"
        )


def valid_range(source: Source, device: torch.device) -> tuple[Tensor, Tensor]:
    """Normalised values of black and white, each (1, 3, 1, 1): what images are projected to (released code)."""
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    black, white = source.normalise(ends).to(device).split(1)
    return black, white


def resample(images: Tensor, size: int) -> Tensor:
    """RESAMPLE of Algorithm 1: bilinear, without antialiasing (Eq. 5-6, Appendix C).

    Args:
        images: (B, 3, H, W) float32, normalised.
        size: Side of the result; images of that size are returned as they are.
    """
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=False)


def to_pixels(images: Tensor, source: Source) -> Tensor:
    """(B, 3, S, S) normalised -> uint8, rounded half to even (truncation would darken every image)."""
    assert source.config.mean is not None and source.config.std is not None
    mean, std = (
        torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (source.config.mean, source.config.std)
    )
    return ((images * std + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)


@contextmanager
def matching(teachers: Sequence[Teacher], config: RecoverConfig, device: torch.device) -> Iterator[list[Matcher]]:
    """Teachers made ready for matching, for the length of the block."""
    matchers = [Matcher(teacher, config, device) for teacher in teachers]
    try:
        yield matchers
    finally:
        for matcher in matchers:
            matcher.statistics.close()
