"""Frozen teachers by name, with the source's classes and pixels, above a minimum accuracy; `squeeze` trains one."""

from fadrm_hf.networks.teachers.finite import require_finite
from fadrm_hf.networks.teachers.squeeze import squeeze
from fadrm_hf.networks.teachers.teacher import (
    Teacher,
    align_teacher,
    check_names,
    load_teacher,
    local_name,
    prepare_teachers,
    public_name,
    require_size,
    save_teacher,
    vote_weights,
)

__all__ = [
    "Teacher",
    "align_teacher",
    "check_names",
    "load_teacher",
    "local_name",
    "prepare_teachers",
    "public_name",
    "require_finite",
    "require_size",
    "save_teacher",
    "squeeze",
    "vote_weights",
]
