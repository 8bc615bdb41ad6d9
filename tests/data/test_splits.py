"""Who trains and who tests: shares held out, slices, stand-ins, presets by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.layouts import beside, lines, make, parquet, splits
from PIL import Image

from fadrm_hf.cli import main
from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import find_preset
from fadrm_hf.data.sources import check_source, inspect_source, load_source
from fadrm_hf.errors import SourceError


def classes(root: Path, per_class: int = 10) -> Path:
    return make(
        root, {f"{name}/{at}.png": 20 * at + place for place, name in enumerate("ab") for at in range(per_class)}
    )


def test_a_share_of_each_class_is_held_out_always_the_same(tmp_path):
    config = SourceConfig(name=str(classes(tmp_path)), size=8, test_fraction=0.2)
    source, again = load_source(config), load_source(config)
    assert np.bincount(source.labels("test")).tolist() == [2, 2]
    assert np.bincount(source.labels("train")).tolist() == [8, 8]
    assert len(source.test_rows) == 4 and source.test_rows == again.test_rows
    assert (source.fingerprint, source.tests_on_training) == (again.fingerprint, False)
    assert source.fingerprint != load_source(SourceConfig(name=str(tmp_path), size=8)).fingerprint
    whole = load_source(SourceConfig(name=str(tmp_path), size=8))
    held = [whole.image("train", row).getpixel((0, 0)) for row in source.test_rows]
    assert held == [source.image("test", row).getpixel((0, 0)) for row in range(4)]
    assert check_source(source, 2, 2) == 20
    assert "0.2 of train" in source.report.test_split


def test_without_a_test_split_the_message_offers_a_share(tmp_path):
    source = load_source(SourceConfig(name=str(classes(tmp_path)), size=8))
    assert "--source.test_fraction 0.2" in source.report.suggested
    with pytest.raises(SourceError, match=r"no test split.*--source.test_fraction 0.2"):
        check_source(source, 1, 1)


def test_training_images_that_stand_in_for_test_images_are_named(tmp_path):
    source = load_source(SourceConfig(name=str(classes(tmp_path)), size=8, test_split="train"))
    assert source.tests_on_training
    assert "training images" in dict(source.report.lines())["warning"]
    rows = ("image,label", "10.png,a", "20.png,b")
    files = beside(train__csv=lines(*rows), test__csv=lines(*rows))
    assert load_source(SourceConfig(name=str(make(tmp_path / "b", files)), size=8)).tests_on_training


@pytest.mark.parametrize("link", [False, True])
def test_files_of_two_splits_are_told_apart_by_their_places(link, tmp_path):
    make(tmp_path, splits())
    if link:
        (tmp_path / "test/car/c.png").symlink_to(tmp_path / "train/car/c.png")
        with pytest.raises(SourceError, match=r"1 images .* in split 'train' and in split 'test'.*c\.png"):
            load_source(SourceConfig(name=str(tmp_path), size=8))
    else:
        assert not load_source(SourceConfig(name=str(tmp_path), size=8)).tests_on_training


def test_slices_that_share_rows_are_refused(tmp_path):
    make(tmp_path, {"train.parquet": parquet({n: "ab"[n % 2] for n in range(10)})})
    settings = {"name": str(tmp_path), "size": 8}
    source = load_source(SourceConfig(**settings, train_split="train[:6]", test_split="train[6:]"))
    assert (len(source.train), len(source.test), source.tests_on_training) == (6, 4, False)
    with pytest.raises(SourceError, match=r"row 4 of split 'train'"):
        load_source(SourceConfig(**settings, train_split="train[:6]", test_split="train[4:]"))
    with pytest.raises(SourceError, match=r"no split 'tarin\[:6\]'.*--source.train_split"):
        load_source(SourceConfig(**settings, train_split="tarin[:6]"))


def test_a_null_image_is_named_and_can_be_left_out(tmp_path):
    make(tmp_path, {"train.parquet": parquet({10: 0, 11: 1, 12: 0, -1: 1}), "test.parquet": parquet({30: 0, 31: 1})})
    config = {"name": str(tmp_path), "size": 8}
    with pytest.raises(SourceError, match=r"row 3: image is not there: the row holds no image"):
        check_source(load_source(SourceConfig(**config)), 1, 1)
    assert len(load_source(SourceConfig(**config, on_corrupt="skip")).train) == 3


def test_a_preset_is_not_taken_from_a_name_where_the_classes_differ(tmp_path):
    folder = classes(tmp_path / "cifar10-cats")
    assert find_preset(str(folder)).name == "cifar10"
    report = inspect_source(SourceConfig(name=str(folder)))
    assert (report.preset, report.size) == (None, 224)
    assert "cifar10" in report.preset_from and "10 classes" in report.preset_from
    assert inspect_source(SourceConfig(name=str(folder), preset="cifar10")).size == 32


@pytest.mark.parametrize(("asked", "names"), [((0, 1), ("0", "1")), ((True, False), ("yes", "no"))])
def test_classes_may_be_named_by_scalars(asked, names, tmp_path):
    make(tmp_path, {f"{name}/{at}.png": at for at, name in enumerate((*names, "other"))})
    assert load_source(SourceConfig(name=str(tmp_path), size=8, classes=asked)).class_map.names == names


def test_a_look_names_the_images_that_a_run_would_refuse_and_what_leaves_them_out(tmp_path, capsys):
    for split, count in (("train", 4), ("test", 2)):
        for name in ("ash", "birch"):
            folder = tmp_path / "trees" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (16, 16), (50 * number, 9, 9)).save(folder / f"{number}.png")
    broken = tmp_path / "trees/train/birch/2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert main(["inspect", str(tmp_path / "trees")]) == 0
    said = capsys.readouterr()
    shown = " ".join((said.out + said.err).split())
    assert "1 image cannot be decoded, and a run is refused: " in shown and "birch/2.png" in shown
    assert "--source.on_corrupt=skip" in shown.partition("next:")[2], "the command that is offered works"
    config = SourceConfig(name=str(tmp_path / "trees"))
    with pytest.raises(SourceError, match=r"2\.png"):
        check_source(load_source(config), 1, 1)
    skipping = replace(config, on_corrupt="skip")
    assert check_source(load_source(skipping), 1, 1) == 11
    assert inspect_source(skipping).undecodable == () and inspect_source(skipping).num_train == 7
    broken.unlink()
    assert inspect_source(config).undecodable == ()
