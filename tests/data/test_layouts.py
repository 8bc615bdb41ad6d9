"""Every layout of `fixtures.layouts`: labels and pixels are those that were put in, or it is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from fixtures.layouts import LAYOUTS, REFUSED, SIDE, TEST, TRAIN, Layout, lines, make, splits

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import Source, Split, check_source, load_source
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


def load(root: Path, **settings: object) -> Source:
    return load_source(SourceConfig(name=str(root), size=8, **settings))


def test_a_class_without_training_images_is_left_out_by_the_suggestion(tmp_path: Path):
    source = load(make(tmp_path, splits() | {"test/van/g.png": 50}))
    with pytest.raises(SourceError, match=r"class 'van' has 0 training images .*--source.classes"):
        check_source(source, 1, 1)
    assert source.report is not None
    assert source.report.suggested == ("""--source.classes '["bus", "car"]'""",)
    assert source.report.suggested_options[-1] == '--source.classes=["bus", "car"]'
    chosen = load(tmp_path, classes=("bus", "car"))
    assert dict(read(chosen, "test")) == TEST
    assert check_source(chosen, 1, 1) == 6


def test_what_cannot_be_read_is_counted_at_first_sight(tmp_path: Path):
    report = load(make(tmp_path, splits() | {"train/bus/z.png": b""})).report
    assert report is not None
    assert "RGB 4 (of 5 looked at); 1 cannot be read" in dict(report.lines())["images"]


def test_folders_behind_links_are_read(tmp_path: Path):
    make(tmp_path / "store", splits())
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / split).symlink_to(tmp_path / "store" / split)
    assert dict(read(load(tmp_path / "data"), "train")) == TRAIN


@pytest.mark.parametrize(
    ("name", "command", "unpacked"),
    [
        ("images.zip", "unzip {0}/images.zip -d {0}/images;", "images"),
        ("two words.tgz", "mkdir '{0}/two words' && tar -xf '{0}/two words.tgz' -C '{0}/two words';", "two words"),
        ("rows.csv.gz", "gunzip -k {0}/rows.csv.gz;", "rows.csv"),
    ],
)
def test_an_archive_comes_with_the_command_that_unpacks_it(name: str, command: str, unpacked: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(SourceError) as raised:
        load(tmp_path / name)
    assert command.format(tmp_path) in str(raised.value)
    assert str(raised.value).rstrip("'").endswith(f"{tmp_path}/{unpacked}")


def test_names_that_say_no_class_are_not_asked_for_it(tmp_path: Path):
    with pytest.raises(SourceError, match=r"no image whose name begins with its class.*there is a.png"):
        load(make(tmp_path, {"a.png": 1, "b.png": 2}), label_column="file_name")


def test_masks_beside_images_are_no_classes_by_name(tmp_path: Path):
    files = {
        f"{folder}/{name}_{number}.png": number for folder in ("images", "masks") for number, name in TRAIN.items()
    }
    with pytest.raises(SourceError, match=r"segmentation set.*--source.name"):
        load(make(tmp_path, files), label_column="file_name")
    assert dict(read(load(tmp_path / "images", label_column="file_name"), "train")) == TRAIN


def test_a_table_by_its_name_is_of_no_images_that_several_folders_have(tmp_path: Path):
    files = {f"data/part{part}/{place}.png": 1 for part in (1, 2) for place in (0, 1)}
    make(tmp_path, files | {"data/labels.csv": lines("file,label", "0.png,bus", "1.png,car")})
    with pytest.raises(SourceError, match=r"labels.csv names images .*several of the same name"):
        load(tmp_path / "data/labels.csv")
