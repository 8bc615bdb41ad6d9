"""The bundled digits: scikit-learn's 1,797 handwritten digits, 8x8 grey PNGs, 1,297 to train and 500 to test."""

from functools import cache
from io import BytesIO

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
    from sklearn.datasets import load_digits  # costs a second, which other sources need not spend

    bundled = load_digits()
    images = np.rint(bundled.images * 255 / 16).astype(np.uint8)
    shuffled = torch.randperm(len(images), generator=generator(0, "digits", "split")).numpy()
    grouped = shuffled[np.argsort(bundled.target[shuffled], kind="stable")]
    evenly = (2 * np.arange(_NUM_TEST_DIGITS) + 1) * len(images) // (2 * _NUM_TEST_DIGITS)
    test = np.sort(grouped[evenly])
    train = np.setdiff1d(grouped, test)
    features = datasets.Features(
        image=datasets.Image(decode=False), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    )

    def table(rows: np.ndarray) -> Dataset:
        encoded = [{"bytes": _png(images[row]), "path": None} for row in rows]
        return Dataset.from_dict({"image": encoded, "label": bundled.target[rows]}, features=features)

    return Tables({"train": table(train), "test": table(test)}, "bundled with scikit-learn")


def _png(grey: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=0)  # stored, so the bytes are those of any zlib
    return file.getvalue()
