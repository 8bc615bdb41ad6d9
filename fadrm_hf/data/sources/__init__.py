"""A source dataset: Hub id, local folder or bundled digits -> images, classes, normalisation, licence, splits."""

from fadrm_hf.data.sources.source import Source, Split, check_source, load_source, num_held_out

__all__ = ["Source", "Split", "check_source", "load_source", "num_held_out"]
