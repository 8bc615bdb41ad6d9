"""Distil an image-classification dataset, share it as a `datasets` repository, train students from it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fadrm_hf.config import RunConfig
    from fadrm_hf.errors import FadrmError
    from fadrm_hf.methods.method import Method
    from fadrm_hf.pipeline.arguments import parse_run
    from fadrm_hf.training.batch import Batch
    from fadrm_hf.training.evaluate import evaluate
    from fadrm_hf.training.loader import Distilled, load_distilled

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "Distilled",
    "FadrmError",
    "Method",
    "RunConfig",
    "__version__",
    "evaluate",
    "load_distilled",
    "parse_run",
]

# Imported on first use: most bring torch and datasets with them, which take seconds.
_PLACES = {
    "Batch": "training.batch",
    "Distilled": "training.loader",
    "FadrmError": "errors",
    "Method": "methods.method",
    "RunConfig": "config",
    "evaluate": "training.evaluate",
    "load_distilled": "training.loader",
    "parse_run": "pipeline.arguments",
}


def __getattr__(name: str) -> Any:
    """Import one of `__all__` from its module."""
    if name in _PLACES:
        return getattr(import_module(f"fadrm_hf.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all public names, imported or not."""
    return sorted({*globals(), *__all__})
