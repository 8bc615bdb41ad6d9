"""A teacher made ready for recovery: its logits of a view, and how far the view's statistics are from its own."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fadrm_hf.config import Matching, RecoverConfig
from fadrm_hf.errors import TeacherError
from fadrm_hf.networks.fused.tracing import freeze
from fadrm_hf.networks.layers import matched_layers
from fadrm_hf.networks.teachers import Teacher, require_size
from fadrm_hf.recovery.matching.distance import MatchedStatistics
from fadrm_hf.recovery.matching.targets import Targets
from fadrm_hf.recovery.plain import PlainStatistics, require_plain
from fadrm_hf.runtime.compilation import can_compile
from fadrm_hf.runtime.number_format import DTYPES, rounding_products

_OTHER_SIZES = (
    ", one of the method.sizes that images are optimised at; set --method.sizes to sizes that it takes, or choose "
    "another teacher"
)


class Matcher(ABC):
    """A teacher, as a step of recovery sees it."""

    name: str
    module: nn.Module  # the network that runs
    statistics: MatchedStatistics | PlainStatistics

    @abstractmethod
    def logits(self, views: Tensor) -> Tensor:
        """(B, C) float32 of (B, 3, S, S) normalised; with gradients on, statistics are gathered for `distance`."""

    @torch.no_grad()
    def predict(self, views: Tensor) -> Tensor:
        """Return `logits` without a gradient and without gathering anything."""
        return self.logits(views)

    def distance(self) -> Tensor:
        """Return D of the views last seen."""
        return self.statistics.loss()


class FrozenMatcher(Matcher):
    """A teacher in its fast form: weights cast once, channels last, traced and compiled where that is asked for.

    Convolutions run in the chosen format; BatchNorm parameters and statistics stay fp32 (§3.2: the divergence to the
    global statistics is computed in FP32).

    Args:
        teacher: A frozen teacher.
        config: Precision, form, and the weight of the first matched layer.
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
        self.name, self._dtype = teacher.name, DTYPES[config.precision]
        module = copy.deepcopy(teacher.module).to(device, self._dtype).to(memory_format=torch.channels_last).eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.float()
        self.module = freeze(module, compiles=config.form == "compiled" and can_compile(device.type))
        targets = {name: target.mapped(lambda value: value.to(device)) for name, target in (measured or {}).items()}
        matched = self.module if config.statistics_weight > 0 else nn.Identity()
        self.statistics = MatchedStatistics(matched, matching, config.first_bn_multiplier, targets, block_side)

    def logits(self, views: Tensor) -> Tensor:
        """(B, C) float32 of (B, 3, S, S) normalised; with gradients on, statistics are gathered for `distance`."""
        predicted: Tensor = self.module(views.to(self._dtype, memory_format=torch.channels_last))
        return predicted.float()


class PlainMatcher(Matcher):
    """A teacher as the published loop runs it (`fadrm_hf.recovery.plain`)."""

    def __init__(self, teacher: Teacher, config: RecoverConfig, device: torch.device) -> None:
        self.name = teacher.name
        self.module = copy.deepcopy(teacher.module).to(device).eval()
        dtype = DTYPES[config.precision]
        self._autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
        matched = self.module if config.statistics_weight > 0 else nn.Identity()
        self.statistics = PlainStatistics(matched, config.first_bn_multiplier)

    def logits(self, views: Tensor) -> Tensor:
        """(B, C) float32 of (B, 3, S, S) normalised; with gradients on, statistics are gathered for `distance`."""
        with self._autocast:
            predicted: Tensor = self.module(views)
        return predicted.float()


class MatchableCheck:
    """A check that refuses teachers that cannot be matched, before anything long is started.

    Args:
        num_teachers: How many there will be.
        config: The weight of the matched statistics; 0 asks for none.
        sizes: Resolutions that images will be optimised at.
    """

    def __init__(self, num_teachers: int, config: RecoverConfig, sizes: Sequence[int] = ()) -> None:
        self._expected = num_teachers if config.statistics_weight > 0 else 0
        self._sizes = sorted(set(sizes))
        self._bare: list[str] = []

    def __call__(self, name: str, module: nn.Module) -> None:
        """Check one teacher.

        Raises:
            TeacherError: If it does not take images of one of the sizes; or if it is the last one, and no teacher has
                a layer whose statistics could be matched.
        """
        for size in self._sizes:
            require_size(name, module, size, _OTHER_SIZES)
        if not self._expected or name in self._bare or matched_layers(module, convolutions=True):
            return
        self._bare.append(name)
        if len(self._bare) == self._expected:
            raise TeacherError(
                f"no teacher of {self._bare} has a layer whose statistics could be matched (BatchNorm, convolution, "
                "or another normalisation); choose another teacher, or set --recover.statistics_weight 0"
            )


@contextmanager
def open_matchers(
    teachers: Sequence[Teacher],
    config: RecoverConfig,
    device: torch.device,
    matching: Matching | None = None,
    measured: Sequence[Mapping[str, Targets]] | None = None,
    block_side: int = 4,
) -> Iterator[list[Matcher]]:
    """Make teachers ready for recovery, for the length of the block.

    Args:
        teachers: Frozen teachers.
        config: Shared settings of recovery; its `form` decides how they compute, "eager" where it is open.
        device: Where they run.
        matching: Which statistics are matched.
        measured: For each teacher, see `FrozenMatcher`.
        block_side: See `FrozenMatcher`.

    Raises:
        ConfigError: If the plain form is asked for statistics that it does not have.
    """
    matchers: list[Matcher]
    if config.form == "plain":
        if config.statistics_weight > 0:
            require_plain(matching or Matching(), [teacher.module for teacher in teachers])
        matchers = [PlainMatcher(teacher, config, device) for teacher in teachers]
    else:
        matchers = [
            FrozenMatcher(teacher, config, device, matching, targets, block_side)
            for teacher, targets in zip(teachers, measured or [{}] * len(teachers), strict=True)
        ]
    try:
        with rounding_products(config.precision):
            yield matchers
    finally:
        for matcher in matchers:
            matcher.statistics.close()
