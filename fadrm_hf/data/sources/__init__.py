"""A source dataset: Hub id, local folder or bundled digits -> images, classes, normalisation, licence, splits.

`loading` runs the steps in order: a name becomes tables (`readers`, `layouts`), splits are chosen (`splits`), columns
and classes are found (`columns`, `labels`), images are inspected (`measuring`) and decoded (`images`, `tiff`, `png`).
A `Source` has the images; its `SourceReport` says what was read.
"""

from fadrm_hf.data.sources.loading import check_source, inspect_source, load_source, with_own_preset
from fadrm_hf.data.sources.report import SourceReport
from fadrm_hf.data.sources.source import Source, Split, num_held_out

__all__ = [
    "Source",
    "SourceReport",
    "Split",
    "check_source",
    "inspect_source",
    "load_source",
    "num_held_out",
    "with_own_preset",
]
