"""Distil an image-classification dataset, share it as a `datasets` repository, train students from it."""

__version__ = "0.1.0"
