"""Pictures: labels that can be read, colours that can be told apart, and the same bytes each time."""

import itertools
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fadrm_hf.report.pictures.curves import Series, StoredLabels, draw_images_per_class, draw_label_bytes
from fadrm_hf.report.pictures.images import draw_information
from fadrm_hf.report.pictures.style import GREY, SERIES, label_ends, label_points, new_figure, to_png

pytestmark = pytest.mark.numerical

# What eyes without the long-wave, the medium-wave cones see of linear RGB (Machado et al., IEEE TVCG 15, 2009).
PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
SERIES_DRAWN = (Series("A", [(1, 0.1, 0.01), (10, 0.3, 0.02)], True), Series("B", [(1, 0.2, 0.01), (10, 0.4, 0.02)]))
STORED = (StoredLabels("float16", 10**7, 0.3, 0.02, True), StoredLabels("int4, 3 epochs", 10**6, 0.28, None, False))
COURSE = [
    {"iteration": at, "num_images": 10, "pixel_entropy": 5 + step / 10, "feature_entropy": 6 - step / 10}
    for step, at in enumerate((0, 50, 50, 100))
]


def lab(colour: str, seen: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """CIE L*a*b* of a colour as an eye sees it, by the definition."""
    srgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(np.array(seen) @ linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    "seen", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["all cones", "protanopia", "deuteranopia"]
)
def test_colours_of_series_are_told_apart_by_eyes_of_every_kind(seen):
    differences = {
        (one, other): np.linalg.norm(lab(one, seen) - lab(other, seen))
        for one, other in itertools.combinations((*SERIES, GREY), 2)
    }
    assert {pair: d for pair, d in differences.items() if d < 15} == {}, "a just noticeable difference is 2.3"


def extents(axes: Any) -> list[Any]:
    return [note.get_window_extent() for note in axes.texts if note.get_text()]


def test_names_of_points_overlap_neither_each_other_nor_marks_nor_the_frame():
    rng = np.random.default_rng(0)
    points = [(x, y, 0.02, f"method {n}") for n, (x, y) in enumerate(rng.normal(0.5, 0.07, (12, 2)).tolist())]
    with new_figure(6, 4) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        label_points(axes, points)
        boxes = extents(axes)
        assert [note.get_text() for note in axes.texts if note.get_text()] == [text for *_, text in points]
        assert [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])] == []
        for x, y, error, _ in points:
            bars = axes.transData.transform([(x, y - error), (x, y), (x, y + error)])
            assert [mark for mark in bars for box in boxes if box.contains(*mark)] == []
        assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.corners())


def test_names_of_lines_stand_in_the_order_of_their_ends_and_apart():
    ends = [(0.5, "middle", "k"), (0.52, "above", "k"), (0.9, "top", "k"), (0.49, "below", "k"), (0.1, "bottom", "k")]
    with new_figure(5, 3) as figure:
        axes = figure.subplots()
        axes.set(ylim=(0, 1))
        label_ends(axes, ends)
        figure.draw_without_rendering()
        by_height = sorted((note for note in axes.texts), key=lambda note: note.get_window_extent().y0)
        assert [note.get_text() for note in by_height] == ["bottom", "below", "middle", "above", "top"]
        boxes = extents(axes)
        assert [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])] == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_images_per_class(SERIES_DRAWN, [("whole dataset", 0.8, 0.01)]),
        lambda: draw_label_bytes(STORED),
        lambda: draw_information(COURSE),
    ],
    ids=["images per class", "bytes of labels", "information"],
)
def test_a_picture_is_the_same_bytes_each_time(draw):
    assert draw() == draw() and draw().startswith(b"\x89PNG")


def test_a_picture_shows_what_it_is_given():
    drawn = draw_images_per_class(SERIES_DRAWN, [])
    assert drawn != draw_images_per_class(SERIES_DRAWN, [("whole dataset", 0.8, 0.01)])
    assert drawn != draw_images_per_class(SERIES_DRAWN[::-1], [])
    assert draw_label_bytes(STORED) != draw_label_bytes(STORED[:1])
    assert draw_information(COURSE) != draw_information([*COURSE[:2], {**COURSE[2], "iteration": 60}, COURSE[3]])


def test_text_of_a_picture_is_dark_and_its_ground_light():
    with new_figure(2, 1) as figure:
        figure.subplots().set(xlabel="x")
        file = to_png(figure)
    pixels = np.asarray(Image.open(BytesIO(file)).convert("L"))
    assert pixels[0, 0] == 255 and pixels.min() < 64 and (pixels == 255).mean() > 0.5
