"""`inspect` says what is read, and ends with a command that can be typed."""

import json
import shlex

import pytest
from fixtures.layouts import make, splits

from fadrm_hf.cli import main
from fadrm_hf.commands.inspect import source_options
from fadrm_hf.config import SourceConfig
from fadrm_hf.pipeline.arguments import parse_run


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """An image folder without test images, in the folder where commands are typed."""
    make(tmp_path / "my photos", {name: number for name, number in splits().items() if "test" not in name})
    monkeypatch.chdir(tmp_path)
    return "my photos"


def test_it_says_what_is_read_and_what_fits_better(photos, capsys):
    assert main(["inspect", photos]) == 0
    shown, told = capsys.readouterr()
    assert shown.splitlines() == [
        "source     my photos: a folder for each split and class",
        "splits     train 4; train on 4 of train, no test split",
        "classes    2 (bus, car); bus has 2 training images, car 2",
        "labels     folders: the first level is the class",
        "images     4x4 pixels, RGB 4 (of 4 looked at)",
        "preset     none (no known name); images of 224 px, square crops",
        "suggested  --source.size 16",
        "suggested  --source.test_fraction 0.2",
    ]
    words = shlex.split(told.removeprefix("next: ").strip())
    assert words[1:] == ["distill", "--source.name=my photos", "--source.size=16", "--source.test_fraction=0.2"]
    assert parse_run(words[2:]).source.test_fraction == 0.2


def test_its_document_has_every_number(photos, capsys):
    assert main(["inspect", photos, "--source.test_fraction=0.5", "--source.size=32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["result"]
    assert (found["num_train"], found["num_test"], found["num_classes"], found["size"]) == (2, 2, 2, 32)
    assert found["classes"] == {"bus": 1, "car": 1}
    assert (found["splits"], found["suggested"], found["preset"]) == ({"train": 4}, [], None)


def test_it_needs_a_source(photos, capsys):
    assert main(["inspect"]) == 2
    assert "place is required and not given" in capsys.readouterr().err
    assert main(["inspect", "./my photo"]) == 2
    assert "did you mean 'my photos'" in capsys.readouterr().err


def test_every_setting_of_a_source_can_be_typed_again():
    config = SourceConfig(
        name="a b/c", size=32, mean=(0.5, 0.25, 0.0), classes=("yes", "007"), test_fraction=0.2, bands=(2, 1, 0),
        value_range=(0.0, 4095.0), on_corrupt="skip", label_column="my label", preset="none",
    )  # fmt: skip
    typed = shlex.split(shlex.join(source_options(config)))
    assert parse_run(typed).source == config


def test_the_command_after_a_teacher_keeps_all_settings(photos, capsys):
    source = [
        "--source.name",
        photos,
        "--source.size=16",
        "--source.test_fraction",
        "0.5",
        "--source.mean=[0.5,0.5,0.5]",
    ]
    recipe = ["--architecture=resnet10_narrow", "--squeeze.epochs=1", "--squeeze.batch_size=2", "--output=a teacher"]
    assert main(["train-teacher", *source, *recipe]) == 0
    told = capsys.readouterr().err
    assert told.startswith("source     my photos: a folder")
    run = parse_run(shlex.split(told.partition("next: ")[2].strip())[2:])
    assert run.teachers.names == ("timm/local-dir:a teacher",)
    assert (run.source.name, run.source.size, run.source.test_fraction) == (photos, 16, 0.5)
    assert run.source.mean == (0.5, 0.5, 0.5)
