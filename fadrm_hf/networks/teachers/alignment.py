"""A teacher in the source's terms: images normalised as the source's, logits in the source's class order."""

from typing import Protocol

import torch
from torch import Tensor, nn

from fadrm_hf.config import Colour, SourceConfig
from fadrm_hf.data.class_map import ClassMap, describe_difference
from fadrm_hf.errors import ClassMapError


class Terms(Protocol):
    """What a teacher is aligned with: a `Source`, or what an artifact's manifest knows of one."""

    @property
    def class_map(self) -> ClassMap:
        """The classes in order."""

    @property
    def config(self) -> SourceConfig:
        """Name, size and normalisation, resolved."""


class AlignedNetwork(nn.Module):
    """A network that takes the source's normalisation and gives logits in the source's class order.

    Args:
        network: Takes images normalised by its own constants.
        scale: (1, 3, 1, 1) factor from the source's normalised images to the network's.
        shift: (1, 3, 1, 1) summand from the source's normalised images to the network's.
        classes: (C,) int64 index of the network's logit for each class of the source, or `None` for the same order.
    """

    scale: Tensor
    shift: Tensor
    classes: Tensor | None

    def __init__(self, network: nn.Module, scale: Tensor, shift: Tensor, classes: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.register_buffer("classes", classes)

    def forward(
        self,
        images: Tensor,  # (B, 3, S, S) normalised as the source
    ) -> Tensor:  # (B, C) logits in the source's class order
        """Logits of a batch."""
        logits: Tensor = self.network(images * self.scale + self.shift)
        return logits if self.classes is None else logits[:, self.classes]


def renormalisation(mean: Colour, std: Colour, own_mean: Colour, own_std: Colour) -> tuple[Tensor, Tensor]:
    """Scale and shift, (1, 3, 1, 1) each, from images normalised by `mean`, `std` to ones by `own_mean`, `own_std`.

    Both are (p - m) / s of the same pixel p, so x_own = x * s / s_own + (m - m_own) / s_own.
    """
    m, s, m_own, s_own = (torch.tensor(values, dtype=torch.float64) for values in (mean, std, own_mean, own_std))
    return (s / s_own).float().view(1, 3, 1, 1), ((m - m_own) / s_own).float().view(1, 3, 1, 1)


def class_selection(
    teacher: str, own: ClassMap | None, num_logits: int, source: Terms, class_order: str
) -> tuple[int, ...] | None:
    """The teacher's logit for each class of the source, or `None` if they are in the same order.

    Args:
        teacher: The teacher's name, for messages.
        own: The classes that the teacher names.
        num_logits: How many logits it gives.
        source: The real images.
        class_order: "refuse" or "mend" another order.

    Raises:
        ClassMapError: other classes than the source's, or another order and `class_order` is "refuse".
    """
    ours = source.class_map
    classes = ours.permutation_from(own) if own is not None and len(own) == num_logits else None
    if own is None or classes is None:
        _require_same_count(teacher, num_logits, source)
        _require_unnamed(teacher, own, source)
        return None
    if classes == tuple(range(num_logits)):
        return None
    if class_order == "mend":
        return classes
    raise ClassMapError(
        f"teacher {teacher!r} has its classes in another order than {source.config.name!r}: "
        f"{describe_difference(ours, own)}; set --teachers.class_order mend to reorder its logits, or choose another"
    )


def _require_same_count(teacher: str, num_logits: int, source: Terms) -> None:
    if num_logits != len(source.class_map):
        raise ClassMapError(
            f"teacher {teacher!r} has {num_logits} classes, expected the {len(source.class_map)} of "
            f"{source.config.name!r}; choose a teacher trained on it, or train one: --teachers.names squeeze/resnet18"
        )


def _require_unnamed(teacher: str, own: ClassMap | None, source: Terms) -> None:
    """Refuse names that cannot be matched; a side that only numbers its classes is left to the accuracy gate."""
    if own is None or _is_numbered(own) or _is_numbered(source.class_map):
        return
    raise ClassMapError(
        f"the classes of teacher {teacher!r} cannot be matched with those of {source.config.name!r}: "
        f"{describe_difference(source.class_map, own)}; give both the same class ids or names, by label_names or "
        f"id2label in the teacher's config.json"
    )


def _is_numbered(class_map: ClassMap) -> bool:
    return all(name.isdigit() for name in class_map.names)
