"""The bundled digits: scikit-learn's 1,797 handwritten digits, 8x8 grey PNGs, 1,297 to train and 500 to test."""

import gzip
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from fadrm_hf.data.sources.layouts.tables import Tables
from fadrm_hf.runtime.randomness import generator

_NUM_TEST_DIGITS = 500


@cache  # a comparison reads its source for each method
def read_digits() -> Tables:
    """Read the digits, split so that each has its share in both parts."""
    values, labels = _bundled()
    images = np.rint(values * 255 / 16).astype(np.uint8)
    shuffled = torch.randperm(len(images), generator=generator(0, "digits", "split")).numpy()
    grouped = shuffled[np.argsort(labels[shuffled], kind="stable")]
    evenly = (2 * np.arange(_NUM_TEST_DIGITS) + 1) * len(images) // (2 * _NUM_TEST_DIGITS)
    test = np.sort(grouped[evenly])
    train = np.setdiff1d(grouped, test)
    features = datasets.Features(
        image=datasets.Image(decode=False), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    )

    def table(rows: np.ndarray) -> Dataset:
        encoded = [{"bytes": _png(images[row]), "path": None} for row in rows]
        return Dataset.from_dict({"image": encoded, "label": labels[rows]}, features=features)

    return Tables({"train": table(train), "test": table(test)}, "bundled with scikit-learn")


def _bundled() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits (N, 8, 8) float64, 0 to 16, and their labels (N,) int64.

    The file is read without the library that it comes with, whose import takes a second of each process.
    """
    library = find_spec("sklearn")
    assert library is not None and library.origin is not None, "scikit-learn is a dependency"
    with gzip.open(Path(library.origin).parent / "datasets/data/digits.csv.gz", "rt") as file:
        rows = np.loadtxt(file, delimiter=",")
    return rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(np.int64)


def _png(grey: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=0)  # stored, so the bytes are those of any zlib
    return file.getvalue()
