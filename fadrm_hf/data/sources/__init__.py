"""A source dataset: Hub id, local folder or bundled digits -> images, classes, normalisation, licence, splits.

`loading` reads as what is done: a name becomes tables (`readers`, `layouts`), splits are chosen (`splits`), columns
and classes found (`columns`, `labels`), pictures looked at (`measuring`) and decoded (`images`, `tiff`); a `Source`
has the images and a `SourceReport` says what was read.
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
