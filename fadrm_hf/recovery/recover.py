"""GRADSTEP of Algorithm 1: the one loop that optimises pixels, whatever the method (Eq. 52-53, Table 8).

    argmin_x  CE(f(view(x)), y) + r_bn * D(view(x)) + the method's own terms

One batch of images is optimised by Adam with a global cosine, seen through one random view per iteration by a frozen
teacher, by several in turn, or by several at once. After each step every channel is clamped to valid pixels. What
happens between runs of this loop (resizing, residuals) is the method's business: see `fadrm_hf.methods`.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fadrm_hf.config import Interval, RecoverConfig
from fadrm_hf.data.sources import Source
from fadrm_hf.data.views import BatchViews, apply_view
from fadrm_hf.errors import ConfigError
from fadrm_hf.networks.schedules import cosine
from fadrm_hf.networks.teachers import require_finite
from fadrm_hf.recovery.capture import StepGraphs
from fadrm_hf.recovery.matcher import Matcher
from fadrm_hf.recovery.matching.distance import MatchedStatistics
from fadrm_hf.recovery.plain import PlainStatistics, plain_view
from fadrm_hf.recovery.regularisers import EuclideanNorm, Step, Term, TotalVariation, ViewFunction

_REPORT_EVERY = 25
_VIEWS_AT_ONCE = 100
_FIRST_SCALE = 2.0**16  # of fp16's losses, torch's own; halved at each step whose gradients overflow
_LEAST_SCALE = 2.0**-14  # of fp16's losses; gradients beyond its range even so are beyond 10^9

Report = Callable[[int, dict[str, float]], None]
Areas = Callable[[int], Interval]  # least and largest area of the crop of an iteration
Retrieve = Callable[[Tensor], Tensor]  # real patches (B, 3, S, S) for images (B, 3, s, s), all normalised
Members = Callable[[int], Sequence[tuple[int, float]]]  # which teachers see an iteration, each with its weight
Rows = Callable[[int], Tensor]  # (n,) int64, which images of the batch an iteration shows; one tensor for each set
Callback = Callable[[int, Tensor], None]  # given the iterations done, and the images (B, 3, s, s), normalised
Gradient = tuple[Tensor, dict[str, Tensor]]  # with respect to the images, scaled; and the losses


@dataclass(frozen=True, eq=False)
class ShardContext:
    """Facts of a shard that some methods ask for beside its labels, and its place in the run.

    Args:
        ipc_indices: (B,) int64, which of its class's images each is; the first of each class if not given.
        votes: What each teacher is worth (`fadrm_hf.networks.teachers.Teacher.vote`).
        retrieve: Finds real patches for the images (`fadrm_hf.recovery.retrieval`).
        turn: How many turns teachers have taken before this shard.
        callback: Called at the beginning and at the end of each run of the loop.
        graphs: Those of all shards of a run; a recovery has its own if not given.
    """

    ipc_indices: Tensor | None = None
    votes: Sequence[float | None] = ()
    retrieve: Retrieve | None = None
    turn: int = 0
    callback: Callback | None = None
    graphs: StepGraphs | None = None


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
        context: What a method may ask of the shard, as `ipc_indices`, `votes` and `retrieve` of the recovery.
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
        context: ShardContext | None = None,
    ) -> None:
        context = context or ShardContext()
        self._graphs = context.graphs or StepGraphs.of(labels.device, config.form, iterations)
        self.labels, self.generator = self._graphs.hold("labels", labels), generator
        self.ipc_indices = torch.zeros_like(labels) if context.ipc_indices is None else context.ipc_indices
        self.votes, self.retrieve = list(context.votes), context.retrieve
        self.num_teachers = len(matchers)
        self._matchers, self._config = matchers, config
        self._turn, self._callback = context.turn, context.callback or (lambda iteration, images: None)
        self._iterations, self._report = iterations, report
        self._done = 0
        self._memory: dict[Hashable, Tensor] = {}  # of terms
        self._has_begun = False  # whether they have any
        self._num_classes = len(torch.unique_consecutive(self.labels))
        self._part: Tensor | None = None  # the rows that are shown; all if none
        self._held_part: Tensor | None = None  # the same, where graphs read them
        self._lowest, self._highest = valid_range(source, labels.device)
        fp16 = config.precision == "fp16"
        self._scaler = torch.amp.GradScaler(labels.device.type, init_scale=_FIRST_SCALE, enabled=fp16)
        self._one = torch.ones((), device=labels.device)
        priors = (TotalVariation(config.tv_weight), EuclideanNorm(config.l2_weight))
        self._priors: list[Term] = [prior for prior in priors if prior.weight > 0]
        for matcher in matchers:
            matcher.statistics.begin(labels, generator, self.ipc_indices)

    def optimise(
        self,
        images: Tensor,
        iterations: int,
        crop_area: Areas | None = None,
        members: Members | None = None,
        terms: Sequence[Term] = (),
        rows: Rows | None = None,
    ) -> Tensor:
        """Run `iterations` steps from `images` with a fresh Adam; the cosine continues from the run before.

        Args:
            images: (B, 3, S, S) float32, normalised; left unchanged.
            iterations: Number of steps.
            crop_area: Least and largest area of the crop, by iteration of the whole recovery; those of the
                configuration if not given.
            members: Which teachers see the batch, by iteration; one after the other if not given.
            terms: Losses that the method adds.
            rows: Which images are shown, by iteration of the whole recovery; all if not given. The others have a
                gradient of zero, so that those which were never shown rest where they are.

        Returns:
            The last iterate, like `images`, within the range of valid pixels.

        Raises:
            ConfigError: If the optimisation diverges to values that are not finite, or if no step can be taken because
                gradients are beyond the range of fp16 whatever the loss is scaled by.
            TeacherError: If a teacher's logits of the images it begins with are not finite.
        """
        self._callback(self._done, images)
        pixels = self._graphs.hold("pixels", images).requires_grad_()
        settings = self._config
        adam = torch.optim.Adam([pixels], lr=settings.lr, betas=settings.betas, eps=1e-8, fused=True)
        reported = self._done
        last = self._done + iterations
        members = members or self._take_turns
        for view in self._draw_views(iterations, images.shape[-1], crop_area):
            adam.param_groups[0]["lr"] = cosine(settings.lr, self._done, self._iterations)
            part = self._select(rows)
            pixels.grad, losses = self._evaluate(pixels, view, tuple(members(self._done)), part, terms)
            self._update(adam, pixels)
            self._done += 1
            # Reading a loss makes the host wait for the device, so it is done now and then.
            if self._done - reported == _REPORT_EVERY or self._done == last:
                numbers = {name: loss.item() for name, loss in losses.items()}
                self._refuse_divergence(images, pixels, numbers)
                self._report(self._done - reported, {"iteration": self._done, **numbers})
                reported = self._done
        self._callback(self._done, pixels.detach())
        return pixels.detach().clone()

    def _select(self, rows: Rows | None) -> Tensor | None:
        """Return the rows that the iteration shows; statistics begin anew where these are others than before."""
        part = None if rows is None else rows(self._done)
        if part is not self._part:
            self._part, self._held_part = part, None if part is None else self._graphs.hold("part", part)
            facts = self.labels, self.ipc_indices
            labels, indices = facts if part is None else (fact[part.to(fact.device)] for fact in facts)
            self._num_classes = len(torch.unique_consecutive(labels))
            for matcher in self._matchers:
                matcher.statistics.begin(labels, self.generator, indices)
        return self._held_part

    def _take_turns(self, iteration: int) -> list[tuple[int, float]]:
        return [((self._turn + iteration) % self.num_teachers, 1.0)]

    def _draw_views(self, num: int, size: int, crop_area: Areas | None) -> Iterator[ViewFunction]:
        config = self._config
        areas: Interval | Tensor = config.crop_area
        if crop_area is not None:
            steps = range(self._done, self._done + num)
            areas = torch.tensor([crop_area(step) for step in steps], dtype=torch.float64)
        padding = config.padding if config.crop == "pad" else None
        views = BatchViews.draw(
            num, size, areas, config.flip_probability, config.max_roll, self.generator, padding, config.symmetric_roll
        )
        if config.form == "plain":
            yield from (partial(plain_view, views=views, index=index) for index in range(num))
            return
        for block in views.split(_VIEWS_AT_ONCE):
            rows, columns = block.matrices(size, device=self.labels.device)
            yield from (_View(*matrices) for matrices in zip(rows, columns, strict=True))

    def _evaluate(
        self,
        pixels: Tensor,
        view: ViewFunction,
        members: tuple[tuple[int, float], ...],
        part: Tensor | None,
        terms: Sequence[Term],
    ) -> Gradient:
        """Return the gradient of an iteration, by a graph where device, view and losses allow it."""
        scale = self._scaler.scale(self._one)
        statistics = [self._matchers[index].statistics for index, _ in members]
        inside = [term for term in terms if getattr(term, "is_capturable", False)]
        apart = [term for term in terms if getattr(term, "is_apart", False)]
        can_capture = self._graphs.captures and len(inside) + len(apart) == len(terms)
        if not (can_capture and isinstance(view, _View)):
            return self._gradient(pixels, view, scale, members, part, [*self._priors, *terms])
        is_fresh = any(each.is_fresh for each in statistics) or (len(inside) > 0 and not self._has_begun)
        classes = tuple(each.num_classes for each in statistics)
        kind = members, pixels.shape, None if part is None else len(part), classes, tuple(inside)

        def step(rows: Tensor, columns: Tensor, scale: Tensor) -> Gradient:
            return self._gradient(pixels, _View(rows, columns), scale, members, part, [*self._priors, *inside])

        for each in statistics:
            each.draw(self._graphs.hold)
        inputs = view.rows, view.columns, scale
        gradient, losses = self._graphs.run(None if is_fresh else kind, step, *inputs)
        if is_fresh:
            self._settle(statistics)
        if apart:
            gradient = gradient + self._gradient_apart(pixels, view, scale, part, apart)
        return gradient, losses

    def _gradient(
        self,
        pixels: Tensor,
        make_view: ViewFunction,
        scale: Tensor,
        members: Sequence[tuple[int, float]],
        part: Tensor | None,
        terms: Sequence[Term],
    ) -> Gradient:
        """Return the gradient of the members' and the terms' losses of one view of some images, and the losses."""
        images, labels = self._shown(pixels, part)
        view = make_view(images)
        every_logits = [self._matchers[index].logits(view) for index, _ in members]
        weights = [weight for _, weight in members]
        entropy = _weighted(weights, [F.cross_entropy(logits, labels) for logits in every_logits])
        distance = _weighted(weights, [self._matchers[index].distance() for index, _ in members])
        loss = entropy + self._config.statistics_weight * distance
        if terms:
            predict, facts = self._matchers[members[0][0]].predict, (self._num_classes, self._memory)
            step = Step(images, view, labels, every_logits[0], make_view, predict, *facts)
            loss = loss + torch.stack([term(step) for term in terms]).sum()
        (gradient,) = torch.autograd.grad(loss * scale, [pixels])
        return gradient, {"ce": entropy.detach(), "bn": distance.detach()}

    def _gradient_apart(
        self, pixels: Tensor, make_view: ViewFunction, scale: Tensor, part: Tensor | None, terms: Sequence[Term]
    ) -> Tensor:
        """Return the gradient of terms that look at labels and view alone."""
        images, labels = self._shown(pixels, part)
        nothing, predict = images.new_empty(0), self._matchers[0].predict
        step = Step(images, make_view(images), labels, nothing, make_view, predict, self._num_classes, self._memory)
        loss = torch.stack([term(step) for term in terms]).sum()
        return torch.autograd.grad(loss * scale, [pixels])[0]

    def _shown(self, pixels: Tensor, part: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the images that an iteration shows, and their labels."""
        return (pixels, self.labels) if part is None else (pixels.index_select(0, part), self.labels[part])

    def _settle(self, statistics: Sequence[MatchedStatistics | PlainStatistics]) -> None:
        """Move what is kept from step to step, once there is some, to where captured steps read and write it."""
        for each in statistics:
            each.settle(self._graphs.hold)
        for term, kept in self._memory.items():
            self._memory[term] = self._graphs.hold(term, kept)
        self._has_begun = True

    def _update(self, adam: torch.optim.Adam, pixels: Tensor) -> None:
        """Take one step of Adam, and clamp every channel to valid pixels."""
        self._scaler.step(adam)
        self._scaler.update()
        with torch.no_grad():
            torch.clamp(pixels, self._lowest, self._highest, out=pixels)

    def _refuse_divergence(self, start: Tensor, pixels: Tensor, losses: dict[str, float]) -> None:
        """Refuse values that are not finite: a teacher's fault if they begin so, else the optimisation's."""
        if not bool(torch.isfinite(pixels).all()):
            what = "some pixels are not finite"
        elif not all(map(math.isfinite, losses.values())):
            what = "its losses are not finite"
        elif self._is_stuck:
            what = "the gradients are beyond the range of fp16, whatever the loss is scaled by, so no step is taken"
        else:
            return
        remedy = f"Lower --recover.lr (now {self._config.lr}), or set --recover.precision fp32"
        for matcher in self._matchers if bool(torch.isfinite(start).all()) else ():
            require_finite(matcher.name, matcher.predict(start), f"logits, in {self._config.precision},")
        raise ConfigError(
            f"recovery diverged before iteration {self._done}: {what}. {remedy} (now {self._config.precision}), or "
            f"choose other teachers than {sorted({matcher.name for matcher in self._matchers})}"
        )

    @property
    def _is_stuck(self) -> bool:
        """Return whether the scale of fp16's losses has collapsed, or not one step was taken until the end."""
        if not self._scaler.is_enabled():
            return False
        scale, first = self._scaler.get_scale(), _FIRST_SCALE
        never_stepped = scale == first * 0.5**self._done
        return scale < _LEAST_SCALE or (never_stepped and self._done == self._iterations)


@dataclass(frozen=True, eq=False)
class _View:
    """A view as two matrices: rows @ image @ columns."""

    rows: Tensor
    columns: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        return apply_view(images, self.rows, self.columns)


def _weighted(weights: Sequence[float], losses: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum; a single loss of weight 1 as it is."""
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()


def valid_range(source: Source, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the normalised values of black and white, (1, 3, 1, 1) each: images are clamped to these."""
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    black, white = source.normalise(ends).to(device).split(1)
    return black, white


def resample(images: Tensor, size: int) -> Tensor:
    """Resize images as RESAMPLE of Algorithm 1 does: bilinear, without antialiasing (Eq. 5-6, Appendix C).

    Args:
        images: (B, 3, H, W) float32, normalised.
        size: Side of the result; images of that size are returned as they are.
    """
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=False)
