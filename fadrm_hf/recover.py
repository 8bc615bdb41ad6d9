"""GRADSTEP of Algorithm 1: the one loop that optimises pixels, whatever the method (Eq. 52-53, Table 8).

    argmin_x  CE(f(view(x)), y) + r_bn * D(view(x)) + the method's own terms

One batch of images is optimised by Adam with a global cosine, seen through one random view per iteration by a frozen
teacher, by several in turn, or by several at once. After each step every channel is clamped to valid pixels. What
happens between runs of this loop (resizing, residuals) is the method's business: see `fadrm_hf.methods`.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fadrm_hf.config import Interval, Precision, RecoverConfig
from fadrm_hf.errors import ConfigError, TeacherError
from fadrm_hf.schedules import cosine
from fadrm_hf.sources import Source
from fadrm_hf.statistics import MatchedStatistics, Matching, Targets, watched_layers
from fadrm_hf.teachers import Teacher, require_size
from fadrm_hf.terms import EuclideanNorm, Step, Term, TotalVariation
from fadrm_hf.views import BatchViews, apply_view

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_REPORT_EVERY = 25
_OTHER_SIZES = (
    ", one of the method.sizes that images are optimised at; set --method.sizes to sizes that it takes, or choose "
    "another teacher"
)
_VIEWS_AT_ONCE = 100

Report = Callable[[int, dict[str, float]], None]
Areas = Callable[[int], Interval]  # least and largest area of the crop of an iteration
Retrieve = Callable[[Tensor], Tensor]  # real patches (B, 3, S, S) for images (B, 3, s, s), all normalised
Members = Callable[[int], Sequence[tuple[int, float]]]  # which teachers see an iteration, each with its weight


class Matcher:
    """A teacher made ready for matching: weights cast once, channels last, its layers watched.

    Convolutions run in the chosen format; BatchNorm parameters and statistics stay fp32 (§3.2: the divergence to the
    global statistics is computed in FP32).

    Args:
        teacher: A frozen teacher.
        config: Precision and the weight of the first matched layer.
        device: Where it runs.
        matching: Which statistics are matched.
        measured: What its layers have seen, where it does not keep that itself.
        block_side: Side of the blocks whose statistics were measured.
    """

    def __init__(
        self,
        teacher: Teacher,
        config: RecoverConfig,
        device: torch.device,
        matching: Matching | None = None,
        measured: Mapping[str, Targets] | None = None,
        block_side: int = 4,
    ) -> None:
        self.dtype = _DTYPES[config.precision]
        module = copy.deepcopy(teacher.module).to(device, self.dtype).to(memory_format=torch.channels_last)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.float()
        self.module = module.eval()
        known = {name: targets.mapped(lambda value: value.to(device)) for name, targets in (measured or {}).items()}
        watched = module if config.bn_weight > 0 else nn.Identity()
        self.statistics = MatchedStatistics(watched, matching, config.first_bn_weight, known, block_side)

    def logits(self, views: Tensor) -> Tensor:
        """(B, C) float32 of (B, 3, S, S) normalised; with gradients on, statistics are gathered for `distance`."""
        predicted: Tensor = self.module(views.to(self.dtype, memory_format=torch.channels_last))
        return predicted.float()

    @torch.no_grad()
    def predict(self, views: Tensor) -> Tensor:
        """`logits` without a gradient and without gathering anything."""
        return self.logits(views)

    def distance(self) -> Tensor:
        """D of the views last seen."""
        return self.statistics.loss()


class Recovery:
    """The optimisation of one shard, as a method drives it: `optimise`, something in between, `optimise` again.

    Args:
        matchers: The teachers.
        labels: (B,) int64 class of each image; the images of a class follow each other.
        source: Normalisation of the images.
        config: Shared settings of recovery, resolved.
        iterations: All iterations of all runs together: the period of the learning rate's cosine.
        generator: The shard's own generator.
        report: Called now and then with the iterations done since and the current losses.
        turn: How many turns teachers have taken before this shard.
        ipc_indices: (B,) int64, which of its class's images each is.
        votes: What each teacher is worth (`fadrm_hf.teachers.Teacher.vote`), for methods that ask.
        retrieve: Finds real patches for the images (`fadrm_hf.retrieval`), for methods that ask.
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
        turn: int = 0,
        ipc_indices: Tensor | None = None,
        votes: Sequence[float | None] = (),
        retrieve: Retrieve | None = None,
    ) -> None:
        self.labels, self.generator = labels, generator
        self.ipc_indices = torch.zeros_like(labels) if ipc_indices is None else ipc_indices
        self.num_teachers, self.votes = len(matchers), list(votes)
        self.retrieve = retrieve
        self._matchers, self._config, self._turn = matchers, config, turn
        self._iterations, self._report = iterations, report
        self._done = 0
        self._lowest, self._highest = valid_range(source, labels.device)
        fp16 = config.precision == "fp16"
        self._scaler = torch.amp.GradScaler(labels.device.type, enabled=fp16)
        priors = (TotalVariation(config.tv_weight), EuclideanNorm(config.l2_weight))
        self._priors: list[Term] = [prior for prior in priors if prior.weight > 0]
        for matcher in matchers:
            matcher.statistics.begin(labels, generator)

    def optimise(
        self,
        images: Tensor,
        iterations: int,
        crop_area: Areas | None = None,
        members: Members | None = None,
        terms: Sequence[Term] = (),
    ) -> Tensor:
        """Run `iterations` steps from `images` with a fresh Adam; the cosine goes on from the run before.

        Args:
            images: (B, 3, S, S) float32, normalised; left unchanged.
            iterations: Number of steps.
            crop_area: Least and largest area of the crop, by iteration of the whole recovery; those of the
                configuration if not given.
            members: Which teachers see the batch, by iteration; one after the other if not given.
            terms: Losses that the method adds.

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
        members = members or self._take_turns
        for rows, columns in self._draw_views(iterations, images.shape[-1], crop_area):
            adam.param_groups[0]["lr"] = cosine(settings.lr, self._done, self._iterations)
            losses = self._step(adam, pixels, rows, columns, members(self._done), [*self._priors, *terms])
            self._done += 1
            # Reading a loss makes the host wait for the device, so it is done now and then.
            if self._done - reported == _REPORT_EVERY or self._done == last:
                shown = {name: loss.item() for name, loss in losses.items()}
                self._report(self._done - reported, {"iteration": self._done, **shown})
                reported = self._done
        self._refuse_divergence(pixels)
        return pixels.detach()

    def _take_turns(self, iteration: int) -> list[tuple[int, float]]:
        return [((self._turn + iteration) % self.num_teachers, 1.0)]

    def _draw_views(self, num: int, size: int, crop_area: Areas | None) -> Iterator[tuple[Tensor, Tensor]]:
        config = self._config
        assert config.flip_probability is not None and config.max_roll is not None, "resolve the configuration first"
        areas: Interval | Tensor = config.crop_area
        if crop_area is not None:
            steps = range(self._done, self._done + num)
            areas = torch.tensor([crop_area(step) for step in steps], dtype=torch.float64)
        padding = config.padding if config.crop == "pad" else None
        views = BatchViews.draw(
            num, size, areas, config.flip_probability, config.max_roll, self.generator, padding, config.symmetric_roll
        )
        device = self.labels.device
        for block in views.split(_VIEWS_AT_ONCE):
            rows, columns = (matrices.to(device) for matrices in block.matrices(size))
            yield from zip(rows, columns, strict=True)

    def _step(
        self,
        adam: torch.optim.Adam,
        pixels: Tensor,
        rows: Tensor,
        columns: Tensor,
        members: Sequence[tuple[int, float]],
        terms: Sequence[Term],
    ) -> dict[str, Tensor]:
        """One step of Adam on what the members and the terms say of one view; its losses."""
        shown = apply_view(pixels, rows, columns)
        every_logits = [self._matchers[index].logits(shown) for index, _ in members]
        weights = [weight for _, weight in members]
        entropy = _weighted(weights, [F.cross_entropy(logits, self.labels) for logits in every_logits])
        distance = _weighted(weights, [self._matchers[index].distance() for index, _ in members])
        loss = entropy + self._config.bn_weight * distance
        if terms:
            first = self._matchers[members[0][0]]
            look = partial(apply_view, rows=rows, columns=columns)
            step = Step(pixels, shown, self.labels, every_logits[0], look, first.predict)
            loss = loss + torch.stack([term(step) for term in terms]).sum()
        (pixels.grad,) = torch.autograd.grad(self._scaler.scale(loss), [pixels])
        self._scaler.step(adam)
        self._scaler.update()
        with torch.no_grad():
            torch.clamp(pixels, self._lowest, self._highest, out=pixels)
        return {"ce": entropy.detach(), "bn": distance.detach()}

    def _refuse_divergence(self, pixels: Tensor) -> None:
        if bool(torch.isfinite(pixels).all()):
            return
        raise ConfigError(
            f"recovery diverged before iteration {self._done}: some pixels are not finite. Lower --recover.lr "
            f"(now {self._config.lr}), or set --recover.precision fp32 (now {self._config.precision})"
        )


class MatchableCheck:
    """Refuses teachers that cannot be matched, before anything long is started.

    Args:
        num_teachers: How many there will be.
        config: The weight of the matched statistics; 0 asks for none.
        sizes: Resolutions that images will be optimised at.
    """

    def __init__(self, num_teachers: int, config: RecoverConfig, sizes: Sequence[int] = ()) -> None:
        self._expected = num_teachers if config.bn_weight > 0 else 0
        self._sizes = sorted(set(sizes))
        self._bare: list[str] = []

    def __call__(self, name: str, module: nn.Module) -> None:
        """Look at one teacher.

        Raises:
            TeacherError: If it does not take images of one of the sizes; or if it is the last one, and no teacher has
                a layer whose statistics could be matched.
        """
        for size in self._sizes:
            require_size(name, module, size, _OTHER_SIZES)
        if not self._expected or name in self._bare or watched_layers(module, convolutions=True):
            return
        self._bare.append(name)
        if len(self._bare) == self._expected:
            raise TeacherError(
                f"no teacher of {self._bare} has a layer whose statistics could be matched (BatchNorm, convolution, "
                "or another normalisation); choose another teacher, or set --recover.bn_weight 0"
            )


def _weighted(weights: Sequence[float], losses: Sequence[Tensor]) -> Tensor:
    """The weighted sum; a single loss of weight 1 as it is."""
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()


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


@contextmanager
def matching(
    teachers: Sequence[Teacher],
    config: RecoverConfig,
    device: torch.device,
    wanted: Matching | None = None,
    measured: Sequence[Mapping[str, Targets]] | None = None,
    block_side: int = 4,
) -> Iterator[list[Matcher]]:
    """Teachers made ready for matching, for the length of the block.

    Args:
        teachers: Frozen teachers.
        config: Shared settings of recovery.
        device: Where they run.
        wanted: Which statistics are matched.
        measured: For each teacher what its layers have seen.
        block_side: Side of the blocks whose statistics were measured.
    """
    known = measured or [{}] * len(teachers)
    matchers = [
        Matcher(teacher, config, device, wanted, targets, block_side)
        for teacher, targets in zip(teachers, known, strict=True)
    ]
    try:
        yield matchers
    finally:
        for matcher in matchers:
            matcher.statistics.close()
