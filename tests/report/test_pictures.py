"""Pictures: labels that can be read, colours that can be told apart, and the same bytes each time."""

import itertools
import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.artifacts import make_manifest
from PIL import Image

from fadrm_hf.report.pictures.accuracy import draw_accuracy
from fadrm_hf.report.pictures.card import write_pictures
from fadrm_hf.report.pictures.curves import Series, StoredLabels, draw_images_per_class, draw_label_bytes
from fadrm_hf.report.pictures.images import draw_grid, draw_information, draw_recovery
from fadrm_hf.report.pictures.style import BLUE, GREY, INK, ORANGE, SERIES, label_ends, label_points, new_figure

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


def test_an_iteration_that_was_logged_twice_counts_once(tmp_path):
    """A shard whose process was killed is begun anew; by two processes, lines come in any order."""
    lines = [
        json.dumps({"stage": "recover", "unit": unit, "iteration": at, "ce": ce + at, "bn": ce * at})
        for unit, ce in (("first", 1.0), ("second", 3.0))
        for at in (4, 8)
    ]
    drawn = []
    for name, logged in (("once", lines), ("twice", [lines[2], lines[0], *lines[::-1], lines[0]])):
        work = tmp_path / f"{name}.work"
        work.mkdir()
        (work / "log.jsonl").write_text("\n".join(logged) + "\n")
        write_pictures(tmp_path / name, make_manifest(), [], (), work)
        drawn.append((tmp_path / name / "assets/recovery.png").read_bytes())
    assert drawn[0] == drawn[1]


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


def columns_of(file: bytes, colour: str) -> int:
    """How many separate marks of a colour one meets from left to right in the middle of a picture."""
    pixels = np.asarray(Image.open(BytesIO(file)).convert("RGBA"))
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    upper = pixels[: len(pixels) // 3]  # of the first of two plots
    hit = ((upper[..., :3] == wanted).all(2) & (upper[..., 3] > 200)).any(0)
    return int((np.diff(hit.astype(int)) == 1).sum())


def test_residuals_are_marked_along_the_recovery():
    records = [{"iteration": at, "ce": 5 / at, "bn": 9 / at} for at in range(1, 2001, 50)]
    assert columns_of(draw_recovery(records), ORANGE) == 0
    assert columns_of(draw_recovery(records, (500, 1000, 1500)), ORANGE) == 3


@pytest.mark.parametrize(("num_classes", "shape"), [(3, 2), (10, 4)])
def test_images_are_in_bands_of_five_classes_whose_names_can_be_read(num_classes, shape):
    """Of a phone's 340 pixels a band of five leaves each class 68."""
    images = {label: torch.full((3, 8, 8), 40 + 20 * label, dtype=torch.uint8) for label in range(num_classes)}
    width, height = Image.open(BytesIO(draw_grid([f"class {n}" for n in images], images, images))).size
    assert shape / 5 < height / width < (shape + 1) / 5


def test_a_picture_shows_what_it_is_given():
    drawn = draw_images_per_class(SERIES_DRAWN, [])
    assert drawn != draw_images_per_class(SERIES_DRAWN, [("whole dataset", 0.8, 0.01)])
    assert drawn != draw_images_per_class(SERIES_DRAWN[::-1], [])
    assert draw_label_bytes(STORED) != draw_label_bytes(STORED[:1])
    assert draw_information(COURSE) != draw_information([*COURSE[:2], {**COURSE[2], "iteration": 60}, COURSE[3]])


GROUNDS = ("#FFFFFF", "#0B0F19")  # of the Hub's pages, by day and by night


def luminance(colour: str) -> float:
    srgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_colour_is_seen_on_a_white_and_on_a_dark_page(ground):
    assert {colour: contrast(colour, ground) for colour in (*SERIES, GREY) if contrast(colour, ground) < 3} == {}
    assert contrast(INK, ground) > 4.3


def test_a_picture_has_no_ground_of_its_own_and_text_in_the_colour_of_text():
    drawn = np.asarray(Image.open(BytesIO(draw_accuracy([("distilled images + soft labels", 0.62, 0.02)]))))
    assert drawn.shape[2] == 4 and (drawn[..., 3] == 0).mean() > 0.5 and drawn[0, 0, 3] == 0
    colours = {f"#{red:02X}{green:02X}{blue:02X}" for red, green, blue, alpha in drawn.reshape(-1, 4) if alpha == 255}
    assert {INK, BLUE} <= colours
    assert [colour for colour in colours if min(contrast(colour, ground) for ground in GROUNDS) < 2.9] == []
