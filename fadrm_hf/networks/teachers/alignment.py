"""Alignment of a teacher with the source: images normalised as the source's, logits in the source's class order."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fadrm_hf.config import Colour, SourceConfig
from fadrm_hf.data.class_map import ClassMap, describe_difference
from fadrm_hf.data.wordnet import in_words, is_wnid
from fadrm_hf.errors import ClassMapError

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


class SourceDescription(Protocol):
    """A source that teachers are aligned with: a `Source` itself, or a manifest's record of one."""

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
        """Return the logits of a batch."""
        logits: Tensor = self.network(images * self.scale + self.shift)
        return logits if self.classes is None else logits[:, self.classes]


class GreyNetwork(nn.Module):
    """A network of one channel as one of three: it is given the luminance.

    Args:
        network: (B, 1, S, S) normalised -> (B, C) logits.
    """

    weights: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("weights", torch.tensor(_LUMINANCE).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Tensor,  # (B, 3, S, S) normalised, all channels by the constants of the one
    ) -> Tensor:  # (B, C) logits
        """Return the logits of a batch."""
        logits: Tensor = self.network((images * self.weights).sum(dim=1, keepdim=True))
        return logits


def renormalisation(mean: Colour, std: Colour, new_mean: Colour, new_std: Colour) -> tuple[Tensor, Tensor]:
    """Return scale and shift, (1, 3, 1, 1) each, that take images normalised by `mean`, `std` to the new constants.

    Both are (p - m) / s of the same pixel p, so x_new = x * s / s_new + (m - m_new) / s_new.
    """
    m, s, m_new, s_new = (torch.tensor(values, dtype=torch.float64) for values in (mean, std, new_mean, new_std))
    return (s / s_new).float().view(1, 3, 1, 1), ((m - m_new) / s_new).float().view(1, 3, 1, 1)


def class_selection(
    teacher: str, classes: ClassMap | None, num_logits: int, source: SourceDescription, class_order: str
) -> tuple[int, ...] | None:
    """Return which logit of a teacher is that of each class of the source; `None` if they are in the same order.

    Args:
        teacher: Its name, for messages.
        classes: The classes that it names, if it does.
        num_logits: Number of its logits.
        source: The real images.
        class_order: "mend" another order, and more classes than the source's, or "refuse" them.

    Raises:
        ClassMapError: other classes than the source's, or what `class_order` refuses.
    """
    order = None
    if classes is not None and len(classes) == num_logits:
        order = _match(source.class_map, classes)
    if classes is None or order is None:
        _require_plausible(teacher, classes, num_logits, source)
        return None
    if order == tuple(range(num_logits)):
        return None
    if class_order == "mend":
        return order
    raise ClassMapError(
        f"teacher {teacher!r} has its classes in another order than {source.config.name!r}: "
        f"{describe_difference(source.class_map, classes)}; set --teachers.class_order mend to reorder its logits, or "
        "choose another"
    )


def _match(ours: ClassMap, teachers: ClassMap) -> tuple[int, ...] | None:
    """Return the teacher's class for each of the source's, by the words of WNIDs where only one side has them."""
    pairs = ((ours, teachers), (_in_words(ours), teachers), (ours, _in_words(teachers)))
    orders = (source.permutation_from(teacher) for source, teacher in pairs)
    return next((order for order in orders if order is not None), None)


def _in_words(classes: ClassMap) -> ClassMap:
    """Return classes that are called by their WNIDs with the words of ImageNet for them."""
    if not all(map(is_wnid, classes.names)):
        return classes
    return ClassMap(classes.ids, tuple(in_words(classes.names)))


def describe_selection(teachers: ClassMap, ours: ClassMap, selected: Sequence[int]) -> str:
    """Return which of the teacher's classes stand for the source's, in words."""
    pairs = zip(ours.names, selected, strict=True)
    examples = [f"{name} is its class {index} ({teachers.names[index]})" for name, index in pairs]
    more = "; …" if len(examples) > 3 else ""
    return f"{len(ours)} of its {len(teachers)} classes are used: {'; '.join(examples[:3])}{more}"


def _require_plausible(teacher: str, classes: ClassMap | None, num_logits: int, source: SourceDescription) -> None:
    """Refuse another number of classes, and names without match; numbered classes are left to the accuracy gate."""
    if num_logits != len(source.class_map):
        raise ClassMapError(
            f"teacher {teacher!r} has {num_logits} classes, expected the {len(source.class_map)} of "
            f"{source.config.name!r}; choose a teacher trained on it, or train one: --teachers.names squeeze/resnet18"
        )
    if classes is not None and not _is_numbered(classes) and not _is_numbered(source.class_map):
        raise ClassMapError(
            f"the classes of teacher {teacher!r} cannot be matched with those of {source.config.name!r}: "
            f"{describe_difference(source.class_map, classes)}; give both the same class ids or names, by label_names "
            "or id2label in the teacher's config.json"
        )


def _is_numbered(class_map: ClassMap) -> bool:
    return all(name.isdigit() for name in class_map.names)
