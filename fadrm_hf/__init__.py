"""Distil an image-classification dataset, share it as a `datasets` repository, train students from it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fadrm_hf.loader import load_distilled

__version__ = "0.1.0"
__all__ = ["__version__", "load_distilled"]


def __getattr__(name: str) -> Any:
    """`load_distilled`, imported when it is asked for: it brings torch and datasets with it."""
    if name == "load_distilled":
        from fadrm_hf.loader import load_distilled

        return load_distilled
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
