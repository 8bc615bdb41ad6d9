import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fixtures.real import real_path
from PIL import Image
from torchvision.transforms import v2

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import Source, check_source, images, load_source
from fadrm_hf.data.sources import loading as sources
from fadrm_hf.errors import ConfigError, SourceError


def load(name: object, size: int = 8, **fields: object) -> Source:
    return load_source(SourceConfig(name=str(name), size=size, **fields))


def coloured(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def image_folder(root: Path, per_class: int = 3, classes: tuple[str, ...] = ("ant", "bee"), splits=("train", "test")):
    for split in splits:
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for index in range(per_class):
                coloured(100 * label + index).save(root / split / name / f"{index}.png")
    return root


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(labels: list[object], feature: object, images_column: str = "image", **more: object) -> datasets.Dataset:
    encoded = [{"bytes": png(coloured(index)), "path": None} for index in range(len(labels))]
    features = datasets.Features({images_column: datasets.Image(), "label": feature})
    made = datasets.Dataset.from_dict({images_column: encoded, "label": labels}, features=features)
    for name, column in more.items():
        made = made.add_column(name, column)
    return made


def saved(root: Path, **splits: datasets.Dataset) -> Path:
    for name, split in splits.items():
        root.mkdir(exist_ok=True)
        split.to_parquet(root / f"{name}.parquet")
    return root


# The digits


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits  # takes a second

    bundled = load_digits()
    expected = {
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(bundled.images, bundled.target, strict=True)
    }
    source = load_source(SourceConfig("digits", size=8))
    found = [
        (pixels[0].numpy().tobytes(), label)
        for split in ("train", "test")
        for pixels, label in zip(
            source.pixels(split, range(len(source.rows(split)))), source.labels(split), strict=True
        )
    ]
    assert len(found) == 1797 and set(found) == expected


def test_digits_are_bundled_and_split_evenly():
    source = load_source(SourceConfig())
    assert source.class_map.names == tuple("0123456789")
    assert (len(source.train), len(source.test), source.revision) == (1297, 500, None)
    assert np.bincount(source.labels("test")).tolist() == [50, 50, 49, 51, 51, 50, 51, 50, 48, 50]
    assert source.config.preset == "digits"
    assert source.image("train", 0).size == (8, 8)


def test_digits_preset_is_what_the_data_gives():
    source = load_source(SourceConfig())
    normal = source.normalise(source.pixels("train", range(1297)))
    assert abs(float(normal.mean())) < 1e-3
    assert abs(float(normal.std()) - 1) < 1e-3


def test_fingerprint_of_the_digits_stands_for_ever():
    assert load_source(SourceConfig()).fingerprint == FINGERPRINT_OF_DIGITS


FINGERPRINT_OF_DIGITS = "073eae169e2efb3d8ecaa479cd87e63eaaf154544276f4629269160d5c4f40c4"


# What a source gives


def test_tables_have_exactly_an_encoded_image_and_a_label(tmp_path):
    source = load(image_folder(tmp_path))
    for split in (source.train, source.test):
        assert dict(split.features) == {"image": datasets.Image(decode=False), "label": datasets.Value("int64")}
    assert source.labels("train").dtype == np.int64
    assert source.labels("train").tolist() == [0, 0, 0, 1, 1, 1]


def test_classes_are_those_that_are_named_numbered_in_that_order(tmp_path):
    folder = image_folder(tmp_path, classes=("ant", "bee", "cat", "dog"))
    whole, part = load(folder), load(folder, classes=("dog", "bee"))
    assert part.class_map.names == ("dog", "bee")
    for split in ("train", "test"):
        assert part.labels(split).tolist() == [1, 1, 1, 0, 0, 0]
        assert torch.equal(part.pixels(split, range(6)), whole.pixels(split, [3, 4, 5, 9, 10, 11]))
    assert part.fingerprint == load(folder, classes=("dog", "bee")).fingerprint
    assert part.fingerprint not in (whole.fingerprint, load(folder, classes=("bee", "dog")).fingerprint)


def test_some_classes_are_chosen_without_a_copy_of_their_images(tmp_path, monkeypatch, capfd):
    """Neither in memory nor in the cache of `datasets`, and without the bar that it shows while it copies."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    feature = datasets.ClassLabel(names=["ant", "bee", "cat"])
    labels = [0, 1, 2] * 20
    folder = saved(tmp_path / "source", train=table(labels, feature), test=table(labels, feature))
    capfd.readouterr()
    before = pa.total_allocated_bytes()
    part = load(folder, classes=("cat", "ant"))
    assert part.labels("train").tolist() == [1, 0] * 20
    assert "Flattening" not in capfd.readouterr().err
    assert pa.total_allocated_bytes() - before < part.num_bytes("train") / 2
    written = sorted(path.name for path in (tmp_path / "cache").rglob("*.arrow"))
    assert written == ["parquet-train.arrow"] * 2  # one for each split


def test_a_class_that_the_source_lacks_is_named_with_those_that_are_near(tmp_path):
    folder = image_folder(tmp_path, classes=("ant", "bee", "beetle"))
    with pytest.raises(SourceError, match=r"unknown class 'beetel'.*did you mean 'beetle'.*--source.classes"):
        load(folder, classes=("ant", "beetel"))


@pytest.mark.parametrize("classes", [(), ("ant",), ("ant", "ant")])
def test_classes_are_at_least_two_and_each_is_named_once(classes):
    with pytest.raises(ConfigError, match=r"source\.classes"):
        SourceConfig(classes=classes)


def test_pixels_are_the_images_in_the_order_asked_for(tmp_path):
    source = load(image_folder(tmp_path))
    both = source.pixels("train", [4, 1])
    assert (both.shape, both.dtype) == ((2, 3, 8, 8), torch.uint8)
    expected = v2.functional.resize(v2.functional.pil_to_tensor(coloured(101)), [8, 8], antialias=True)
    assert (both[0].int() - expected.int()).abs().max() <= 1
    assert torch.equal(both[1], source.pixels("train", np.array([1]))[0])
    assert source.pixels("train", []).shape == (0, 3, 8, 8)


def test_photographs_are_resized_and_cropped_as_torchvision_does(tmp_path):
    photograph = coloured(0, 300, 251)
    photograph.save(image_folder(tmp_path, 1) / "train" / "ant" / "0.png")
    ours = load(tmp_path, size=112).pixels("train", [0])[0].int()
    resized = v2.functional.resize(v2.functional.pil_to_tensor(photograph), 128, antialias=True)
    theirs = v2.functional.center_crop(resized, 112).int()
    difference = (ours - theirs).abs()
    assert difference[:, 2:-2, 2:-2].max() <= 1
    assert difference.max() < 64  # the outermost pixels, whose filter ends at the cut
    assert load(tmp_path, size=112).image("train", 0).size == (300, 251)


def test_many_images_in_threads_are_the_images_one_by_one(tmp_path):
    rows = 40
    encoded = [{"bytes": png(coloured(index, 64, 64)), "path": None} for index in range(rows)]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    made = datasets.Dataset.from_dict({"image": encoded, "label": [0, 1] * (rows // 2)}, features=features)
    source = load(saved(tmp_path / "data", train=made), size=64)
    together = source.pixels("train", range(rows))
    assert len(encoded[0]["bytes"]) > images.SMALL_BYTES
    assert torch.equal(together, torch.cat([source.pixels("train", [row]) for row in range(rows)]))


def test_normalise_follows_the_configuration(tmp_path):
    source = load(image_folder(tmp_path), mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0))
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 2, 2)
    normal = source.normalise(pixels)
    assert normal.dtype == torch.float32
    assert normal[:, :, 0, 0].tolist() == [[-1.0, -0.5, 0.0], [1.0, 1.5, 1.0]]


# Image modes

RED, WHITE = (255, 0, 0), (255, 255, 255)


def palette_with_transparency() -> bytes:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    return png(image, transparency=1)


def upside_down() -> bytes:
    image, exif = Image.new("RGB", (4, 2), RED), Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees to view
    return png(image, exif=exif.tobytes())


def jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=100)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "corner", "centre"),
    [
        (png(Image.new("L", (4, 4), 77)), (77, 77, 77), (77, 77, 77)),
        (png(Image.new("1", (4, 4), 1)), WHITE, WHITE),
        (png(Image.new("LA", (4, 4), (0, 0))), WHITE, WHITE),
        (png(Image.new("RGBA", (4, 4), (255, 0, 0, 255))), RED, RED),
        (png(Image.new("RGBA", (4, 4), (255, 0, 0, 0))), WHITE, WHITE),
        (png(Image.new("RGBA", (4, 4), (0, 0, 0, 51))), (204, 204, 204), (204, 204, 204)),
        (png(Image.new("RGB", (4, 4), RED), transparency=RED), WHITE, WHITE),
        (palette_with_transparency(), WHITE, RED),
        (png(Image.fromarray(np.full((4, 4), 65535, np.uint16))), WHITE, WHITE),
        (png(Image.fromarray(np.full((4, 4), 32896, np.uint16))), (128, 128, 128), (128, 128, 128)),
    ],
    ids=["L", "1", "LA", "opaque", "transparent", "blended", "RGB-key", "P-key", "I;16-white", "I;16-half"],
)
def test_every_mode_becomes_rgb(content, corner, centre):
    image = images.decode(content)
    assert (image.mode, image.size) == ("RGB", (4, 4))
    assert (image.getpixel((0, 0)), image.getpixel((2, 2))) == (corner, centre)


def test_cmyk_becomes_rgb():
    assert images.decode(jpeg(Image.new("CMYK", (8, 8), (0, 255, 255, 0)))).getpixel((4, 4)) == pytest.approx(
        RED, abs=3
    )


def test_exif_orientation_is_applied():
    assert images.decode(upside_down()).size == (2, 4)


def test_very_long_images_cost_no_memory():
    assert images.square(Image.new("RGB", (60_000, 2)), 224).size == (224, 224)


def test_float_pixels_are_refused():
    file = BytesIO()
    Image.new("F", (4, 4), 0.5).save(file, "TIFF")
    with pytest.raises(SourceError, match="floating-point pixels"):
        images.decode(file.getvalue())


@pytest.mark.parametrize("side", [9_500, 13_500], ids=["warned-of", "refused-by-pillow"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    content = png(Image.new("1", (side, side)))
    with pytest.raises(SourceError, match=r"expected at most 89478485 pixels"):
        images.decode(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", png(coloured(0))[:60], jpeg(coloured(0, 64, 64))[:700], png(coloured(0))[:-40]],
    ids=["empty", "text", "header", "half-jpeg", "short-png"],
)
def test_damaged_bytes_are_refused(content):
    with pytest.raises(SourceError, match="cannot be decoded"):
        images.decode(content)


# Input forms


def csv_beside_images(root: Path) -> Path:
    (root / "pictures").mkdir()
    for split in ("train", "test"):
        rows = []
        for index in range(4):
            coloured(index).save(root / "pictures" / f"{split}{index}.png")
            rows.append({"file_name": f"pictures/{split}{index}.png", "label": ["bee", "ant"][index % 2]})
        write_csv(root / f"{split}.csv", rows)
    return root


def json_lines(root: Path) -> Path:
    csv_beside_images(root)
    with open(root / "train.csv", newline="") as file:
        (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in csv.DictReader(file)))
    return root / "rows.jsonl"


def metadata_csv(root: Path) -> Path:
    for split in ("train", "test"):
        (root / split).mkdir()
        rows = [{"file_name": f"{index}.png", "label": ["bee", "ant"][index % 2]} for index in range(4)]
        for index in range(4):
            coloured(index).save(root / split / f"{index}.png")
        write_csv(root / split / "metadata.csv", rows)
    return root


def parquet_folder(root: Path) -> Path:
    feature = datasets.ClassLabel(names=["ant", "bee"])
    return saved(root, train=table([1, 0, 1, 0], feature), test=table([1, 0, 1, 0], feature))


def parquet_with_readme(root: Path) -> Path:
    feature = datasets.ClassLabel(names=["ant", "bee"])
    (root / "tables").mkdir()
    for split in ("learn", "test"):
        table([1, 0, 1, 0], feature).to_parquet(root / "tables" / f"x-{split}.parquet")
    files = [{"split": "train", "path": "tables/x-learn.parquet"}, {"split": "test", "path": "tables/x-test.parquet"}]
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {json.dumps(files)}\n---\n")
    return root


def plain_parquet(root: Path) -> Path:
    """As other tools write it: bytes and strings, without the metadata of `datasets`."""
    columns = {"image": [png(coloured(index)) for index in range(4)], "label": ["bee", "ant"] * 2}
    pq.write_table(pa.table(columns), root / "rows.parquet")
    return root / "rows.parquet"


def structs_parquet(root: Path) -> Path:
    cells = [{"bytes": png(coloured(index)), "path": "x.png"} for index in range(4)]
    pq.write_table(pa.table({"image": cells, "label": ["bee", "ant"] * 2}), root / "rows.parquet")
    return root / "rows.parquet"


def saved_to_disk(root: Path) -> Path:
    feature = datasets.ClassLabel(names=["ant", "bee"])
    both = datasets.DatasetDict(train=table([1, 0, 1, 0], feature), test=table([1, 0, 1, 0], feature))
    both.save_to_disk(root / "saved")
    return root / "saved"


# `datasets` closes a metadata.csv only when it is collected.
LEAVES_FILE_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    "form",
    [
        csv_beside_images,
        json_lines,
        pytest.param(metadata_csv, marks=LEAVES_FILE_OPEN),
        parquet_folder,
        parquet_with_readme,
        plain_parquet,
        structs_parquet,
        saved_to_disk,
    ],
)
def test_every_form_gives_the_same_training_images(form: Callable[[Path], Path], tmp_path):
    source = load(form(tmp_path))
    assert source.class_map.names == ("ant", "bee")
    assert source.labels("train").tolist() == [1, 0, 1, 0]
    assert [np.asarray(source.image("train", row)).tobytes() for row in range(4)] == [
        np.asarray(coloured(row)).tobytes() for row in range(4)
    ]


def test_an_image_folder_has_its_folders_as_classes(tmp_path):
    source = load(image_folder(tmp_path, classes=("cat", "ant", "bee")))
    assert source.class_map.names == ("ant", "bee", "cat")
    assert np.array_equal(np.asarray(source.image("train", 0)), np.asarray(coloured(100)))


def test_a_table_of_other_things_beside_class_folders_is_not_read(tmp_path):
    write_csv(image_folder(tmp_path) / "noisy.csv", [{"path": "train/ant/0.png", "noisy_labels_0": "bee"}])
    assert load(tmp_path).labels("train").tolist() == [0, 0, 0, 1, 1, 1]


def test_a_single_csv_is_the_training_split(tmp_path):
    csv_beside_images(tmp_path)
    source = load(tmp_path / "train.csv")
    assert (source.config.train_split, source.test) == ("train", None)


def test_the_fingerprint_follows_labels_and_bytes_but_not_places(tmp_path):
    first = load(image_folder(tmp_path / "a"))
    assert load(image_folder(tmp_path / "b")).fingerprint == first.fingerprint
    coloured(7).save(tmp_path / "b" / "train" / "ant" / "0.png")
    assert load(tmp_path / "b").fingerprint != first.fingerprint
    (tmp_path / "a" / "test" / "ant").rename(tmp_path / "a" / "test" / "bug")
    (tmp_path / "a" / "train" / "ant").rename(tmp_path / "a" / "train" / "bug")
    assert load(tmp_path / "a").fingerprint != first.fingerprint


def test_a_large_source_is_fingerprinted_by_a_sample(tmp_path, monkeypatch):
    image_folder(tmp_path, per_class=8)
    whole = load(tmp_path).fingerprint
    monkeypatch.setattr(sources, "HASHED_WHOLE_BYTES", 1000)
    monkeypatch.setattr(sources, "HASHED_SAMPLE", 2)
    sampled = load(tmp_path).fingerprint
    assert sampled == load(tmp_path).fingerprint != whole


# Columns, labels, splits


def test_integer_labels_are_ordered_by_number(tmp_path):
    source = load(saved(tmp_path / "x", train=table([10, 9, 2, 10], datasets.Value("int32"))))
    assert source.class_map.names == ("2", "9", "10")
    assert source.labels("train").tolist() == [2, 1, 0, 2]


def test_test_labels_are_matched_by_name(tmp_path):
    train = table([0, 1], datasets.ClassLabel(names=["ant", "bee"]))
    test = table([0, 1], datasets.ClassLabel(names=["bee", "ant"]))
    (tmp_path / "x").mkdir()
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "x")
    assert load(tmp_path / "x").labels("test").tolist() == [1, 0]


def test_columns_with_other_names_are_found_from_their_features(tmp_path):
    made = table([0, 1], datasets.ClassLabel(names=["a", "b"]), "img").rename_column("label", "species")
    config = load(saved(tmp_path / "x", train=made)).config
    assert (config.image_column, config.label_column) == ("img", "species")


def two_labels(folder: Path) -> Path:
    made = table([0, 1], datasets.ClassLabel(names=["a", "b"])).rename_column("label", "fine_label")
    made = made.add_column("coarse_label", [0, 0]).cast_column("coarse_label", datasets.ClassLabel(names=["z"]))
    return saved(folder, train=made)


def test_several_label_columns_are_listed_and_one_can_be_named(tmp_path):
    folder = two_labels(tmp_path / "x")
    with pytest.raises(SourceError, match=r"several label columns: fine_label, coarse_label.*--source.label_column"):
        load(folder)
    assert load(folder, label_column="coarse_label").class_map.names == ("z",)


def test_a_preset_knows_which_label_is_meant(tmp_path):
    assert load(two_labels(tmp_path / "cifar100")).config.label_column == "fine_label"


def test_several_image_columns_are_listed(tmp_path):
    made = table([0, 1], datasets.ClassLabel(names=["a", "b"]))
    made = made.add_column("mask", [None, None]).cast_column("mask", datasets.Image())
    with pytest.raises(SourceError, match=r"several image columns: image, mask.*--source.image_column"):
        load(saved(tmp_path / "x", train=made))


def test_a_table_without_images_names_its_columns(tmp_path):
    write_csv(tmp_path / "t.csv", [{"age": 3, "label": "a"}])
    with pytest.raises(
        SourceError, match=r"no image column.*age \(int64\), label \(.*string\).*--source.image_column"
    ):
        load(tmp_path / "t.csv")


def test_a_table_without_labels_names_its_columns(tmp_path):
    write_csv(tmp_path / "t.csv", [{"file_name": "a.png", "age": 3}])
    with pytest.raises(SourceError, match=r"no label column.*file_name \(Image\), age.*--source.label_column"):
        load(tmp_path / "t.csv")


def test_a_named_column_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match=r"column 'labl' .* is no label column.*--source.label_column"):
        load(image_folder(tmp_path), label_column="labl")


def test_a_row_without_a_label_is_named(tmp_path):
    write_csv(tmp_path / "t.csv", [{"file_name": "a.png", "label": "a"}, {"file_name": "b.png", "label": None}])
    with pytest.raises(SourceError, match="row 1 has label None"):
        load(tmp_path / "t.csv")


def test_a_class_that_only_the_test_split_has_is_named(tmp_path):
    csv_beside_images(tmp_path)
    write_csv(tmp_path / "test.csv", [{"file_name": "pictures/test0.png", "label": "wasp"}])
    with pytest.raises(SourceError, match=r"split 'test', row 0 has label 'wasp', expected one of the 2 classes.*ant"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["test", "validation", "valid", "val"])
def test_test_splits_are_found(name, tmp_path):
    feature = datasets.ClassLabel(names=["a", "b"])
    datasets.DatasetDict({"train": table([0, 1], feature), name: table([0, 1], feature)}).save_to_disk(tmp_path / "x")
    assert load(tmp_path / "x").config.test_split == name


def test_hidden_test_labels_leave_the_validation_split(tmp_path):
    feature = datasets.ClassLabel(names=["a", "b"])
    splits = {"train": table([0, 1], feature), "test": table([-1, -1], feature), "val": table([1, 0], feature)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "x")
    assert load(tmp_path / "x").config.test_split == "val"
    with pytest.raises(SourceError, match=r"split 'test', row 0 has label -1.*--source.test_split"):
        load(tmp_path / "x", test_split="test")


@pytest.mark.parametrize("kind", ["train", "test"])
def test_a_split_that_is_not_there(kind, tmp_path):
    with pytest.raises(SourceError, match=rf"no split 'dev', expected one of train, test; set --source.{kind}_split"):
        load(image_folder(tmp_path), **{f"{kind}_split": "dev"})


# Sources that cannot be read


def test_a_missing_folder_names_its_neighbours(tmp_path):
    image_folder(tmp_path / "flowers")
    with pytest.raises(SourceError, match=r"no file or folder '.*flower'.*did you mean '.*flowers'.*--source.name"):
        load(tmp_path / "flower")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(SourceError, match=r"is a \.txt file, expected one of \.parquet, \.csv"):
        load(tmp_path / "rows.txt")


def test_an_empty_folder(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: .*expected a Hub dataset id, a local image folder"):
        load(tmp_path)


def test_a_damaged_parquet_file(tmp_path):
    path = plain_parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SourceError, match=r"rows.parquet' cannot be read"):
        load(path)


def test_a_dataset_script_is_never_run(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "birds.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(SourceError, match=r"dataset script, which is never run.*refs/convert/parquet"):
        load(folder)


UNKNOWN = r"uoft-cs/cifar1O.*did you mean 'uoft-cs/cifar10'.*--source.name"


def test_an_unknown_hub_dataset_has_near_matches():
    with pytest.raises(SourceError, match=UNKNOWN):
        load("uoft-cs/cifar1O")


def test_a_folder_that_does_not_exist_is_no_hub_dataset(hub, place):
    (place / "photos/birds").mkdir(parents=True)
    hub.requests.clear()
    with pytest.raises(SourceError, match=r"no file or folder 'photos/bird'.*did you mean.*--source.revision main"):
        load("photos/bird")
    assert hub.requests == []


def test_a_hub_that_fails_is_told_from_an_unknown_dataset(hub):
    hub.fail("GET", "/api/datasets/uoft-cs/cifar10", "500", times=-1)
    with pytest.raises(SourceError, match=r"'uoft-cs/cifar10' is no local path, and the Hub could not be reached"):
        load("uoft-cs/cifar10")


def test_a_hub_dataset_without_a_network(tmp_path):
    script = (
        "from fadrm_hf.config import SourceConfig\n"
        "from fadrm_hf.errors import SourceError\n"
        "from fadrm_hf.data.sources import load_source\n"
        "try:\n"
        "    load_source(SourceConfig(name='uoft-cs/cifar1O', size=8))\n"
        "except SourceError as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert re.search(UNKNOWN, done.stdout) and "the Hub could not be reached" in done.stdout


# Damaged images


@pytest.fixture
def damaged_folder(tmp_path: Path) -> Path:
    image_folder(tmp_path)
    path = tmp_path / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:80])
    return tmp_path


DAMAGE = r"split 'train', row 4 \(.*bee.1\.png\): image cannot be decoded.*--source.on_corrupt skip"


def test_a_damaged_image_is_named_when_it_is_used(damaged_folder):
    source = load(damaged_folder)
    with pytest.raises(SourceError, match=DAMAGE):
        source.image("train", 4)
    with pytest.raises(SourceError, match=DAMAGE):
        source.pixels("train", range(6))


def test_a_damaged_image_is_found_before_a_run(damaged_folder):
    with pytest.raises(SourceError, match=DAMAGE):
        check_source(load(damaged_folder), 1, 1)


def test_damaged_images_are_left_out_everywhere_and_named(damaged_folder, caplog):
    source = load(damaged_folder, on_corrupt="skip")
    assert source.labels("train").tolist() == [0, 0, 0, 1, 1]
    assert source.pixels("train", range(5)).shape == (5, 3, 8, 8)
    assert "split 'train', row 4" in caplog.text
    assert "1.png" in caplog.text
    assert check_source(source, 2, 2) == 11
    assert source.fingerprint == load(damaged_folder, on_corrupt="skip").fingerprint


def test_a_missing_image_file_is_named(tmp_path):
    csv_beside_images(tmp_path)
    (tmp_path / "pictures" / "train2.png").unlink()
    with pytest.raises(SourceError, match=r"row 2 \(.*train2.png\): image cannot be opened: No such file"):
        check_source(load(tmp_path), 1, 1)


# Before a run


def test_a_sound_source_is_scanned_completely(tmp_path):
    assert check_source(load(image_folder(tmp_path)), 3, 3) == 12


def test_a_large_source_is_scanned_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SCANNED_WHOLE_BYTES", 1000)
    monkeypatch.setattr(sources, "SCANNED_SAMPLE", 2)
    assert check_source(load(image_folder(tmp_path)), 3, 3) == 4


def test_a_class_with_too_few_images_is_named(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "train" / "bee" / "2.png").unlink()
    with pytest.raises(SourceError, match=r"class 'bee' has 2 training images, expected at least 3 for ipc 3.*--ipc"):
        check_source(load(tmp_path), 3, 3)


def test_a_class_without_images_is_named(tmp_path):
    made = table([0, 0], datasets.ClassLabel(names=["a", "ghost"]))
    with pytest.raises(SourceError, match="class 'ghost' has 0 training images"):
        check_source(load(saved(tmp_path / "x", train=made)), 1, 1)


def test_a_source_without_a_test_split_is_refused(tmp_path):
    source = load(image_folder(tmp_path, splits=("train",)))
    assert source.test is None
    with pytest.raises(SourceError, match=r"no test split, expected one of test, validation.*--source.test_split"):
        check_source(source, 1, 1)


# Real photographs


@pytest.mark.real_data
def test_cifar10_from_a_local_folder():
    source = load_source(SourceConfig(name=str(real_path("cifar10"))))
    assert source.class_map.names[:3] == ("airplane", "automobile", "bird")
    assert (len(source.class_map), source.config.size, source.config.preset) == (10, 32, "cifar10")
    assert np.bincount(source.labels("train")).tolist() == [5000] * 10
    assert np.bincount(source.labels("test")).tolist() == [1000] * 10
    normal = source.normalise(source.pixels("train", range(0, 50_000, 50)))
    assert abs(float(normal.mean())) < 0.05
    assert abs(float(normal.std()) - 1) < 0.05
