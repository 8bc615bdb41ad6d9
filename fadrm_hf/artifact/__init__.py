"""The run folder, which is the Hub repository: its tables, its manifest, the teachers it names."""

from fadrm_hf.artifact.manifest import Manifest, read_manifest, refresh_files, write_manifest
from fadrm_hf.artifact.reading import num_label_epochs, read_images, read_soft_labels
from fadrm_hf.artifact.tables import write_tables

__all__ = [
    "Manifest",
    "num_label_epochs",
    "read_images",
    "read_manifest",
    "read_soft_labels",
    "refresh_files",
    "write_manifest",
    "write_tables",
]
