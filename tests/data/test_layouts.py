"""Every layout of `fixtures.layouts`: labels and pixels are those that were put in, or it is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from fixtures.layouts import LAYOUTS, REFUSED, SIDE, Layout, make

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import Source, Split, load_source
from fadrm_hf.errors import SourceError


def read(source: Source, split: Split) -> list[tuple[int, str]]:
    """Colour and class of every image."""
    names = [source.class_map.names[label] for label in source.labels(split)]
    colours = [int(np.asarray(source.image(split, row))[0, 0, 0]) for row in range(len(names))]
    return list(zip(colours, names, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_labels_and_pixels_are_those_that_were_put_in(layout: Layout, tmp_path: Path):
    place = make(tmp_path, layout.files) / layout.place
    source = load_source(SourceConfig(name=str(place), size=8, **layout.settings))
    assert sorted(source.class_map.names) == sorted({*layout.train.values()})
    if layout.classes:
        assert source.class_map.names == layout.classes
    near = 3 if any(name.lower().endswith(("jpg", "jpeg")) for name in layout.files) else 0
    for split, expected in (("train", layout.train), ("test", layout.test)):
        found = read(source, split) if split == "train" or source.test is not None else []
        assert [name for _, name in found] == list(expected.values())
        assert [colour for colour, _ in found] == pytest.approx(list(expected), abs=near)
    assert source.report is not None
    told = "\n".join(f"{heading} {text}" for heading, text in source.report.lines())
    assert [words for words in layout.said if words not in told] == [], told
    assert (source.report.num_train, source.report.num_test) == (len(layout.train), len(layout.test))
    assert source.report.smallest_image == source.report.largest_image == (SIDE, SIDE)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_as_what_it_is(kind: str, tmp_path: Path):
    files, said = REFUSED[kind]
    with pytest.raises(SourceError) as raised:
        load_source(SourceConfig(name=str(make(tmp_path, files)), size=8))
    assert [words for words in said if words not in str(raised.value)] == [], str(raised.value)
