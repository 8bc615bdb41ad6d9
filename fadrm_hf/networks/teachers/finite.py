"""Refusal, by name, of teachers whose outputs are not finite: they can rank, match and label nothing."""

import torch
from torch import Tensor

from fadrm_hf.errors import TeacherError


def require_finite(name: str, values: Tensor, what: str) -> None:
    """Refuse outputs of a teacher that are NaN or infinite; `what` describes them in the message.

    Comparisons with NaN are all false, so it would rank everything alike.
    """
    is_finite = torch.isfinite(values)
    if bool(is_finite.all()):
        return
    raise TeacherError(
        f"teacher {name!r} gives {what} that are not finite ({int((~is_finite).sum())} of {values.numel()} values, "
        f"the first is {values[~is_finite][0].item():g}); its weights are damaged, or too large for these images: "
        "choose another teacher with --teachers.names, or train it again"
    )
