"""Releases of earlier methods, an image folder and FKD label files, converted to artifacts."""

from fadrm_hf.pipeline.legacy.conversion import ImportConfig, import_release

__all__ = ["ImportConfig", "import_release"]
