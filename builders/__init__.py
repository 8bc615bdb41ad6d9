"""The `datasets` builders of an artifact's tables.

`load_dataset` reads a packaged artifact without this code; the builders make its tables from the shards of a run, and
serve a run that is not packaged yet.
"""

from fadrm_hf.builders.images import Images, ImagesConfig
from fadrm_hf.builders.soft_labels import SoftLabels, SoftLabelsConfig

__all__ = ["Images", "ImagesConfig", "SoftLabels", "SoftLabelsConfig"]
