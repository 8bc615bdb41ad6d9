"""Where an artifact's real images are: remembered beside the run, told by nothing in it."""

import shutil

import numpy as np
import pytest
from fixtures.runs import distill
from PIL import Image

from fadrm_hf.cli import main

SMALL = (
    "--source.size=8",
    "--ipc=1",
    "--relabel.epochs=4",
    "--relabel.batch_size=2",
    "--relabel.accumulation=1",
    "--squeeze.epochs=1",
    "--squeeze.batch_size=4",
    "--student.epochs=1",
)
STUDENT = ("--epochs=1", "--num_seeds=1")


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    """A run on a folder of images of two classes; both are moved about by tests of this file, in their order."""
    desk = tmp_path_factory.mktemp("desk")
    generator = np.random.default_rng(0)
    for split, number in (("train", 12), ("test", 4)):
        for index in range(number):
            place = desk / "attic/leaves" / split / ("ash", "birch")[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (10, 10, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        distill(desk / "runs/leaves", "--method=random_real", "--source.name=attic/leaves", *SMALL)
    return desk


def test_where_it_was_distilled_nobody_is_asked_again(leaves, monkeypatch):
    monkeypatch.chdir(leaves / "runs")  # where no folder is called so
    assert main(["train-student", "leaves", *STUDENT]) == 0
    assert main(["verify", "leaves", "--num_steps=1"]) == 0
    assert main(["baselines", "leaves", "--rows=[random_real]", "--num_seeds=1"]) == 0


def test_no_file_of_the_artifact_tells_the_folder(leaves):
    files = [file for file in (leaves / "runs/leaves").rglob("*") if file.is_file()]
    assert files and not [file for file in files if b"attic" in file.read_bytes()]


def test_elsewhere_it_has_to_be_told(leaves, tmp_path, monkeypatch, capsys):
    shutil.copytree(leaves / "runs/leaves", tmp_path / "leaves-of-others")
    monkeypatch.chdir(tmp_path)
    assert main(["train-student", "leaves-of-others", "--epochs=2", "--num_seeds=1"]) == 2
    assert "--source.name" in capsys.readouterr().err
    told = ["--source.name", str(leaves / "attic/leaves")]
    assert main(["train-student", "leaves-of-others", "--epochs=2", "--num_seeds=1", *told]) == 0


def test_another_source_of_that_name_is_no_substitute(leaves, tmp_path, monkeypatch, capsys):
    """What is remembered counts where it was, not whatever the name means in the current folder."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for name in ("oak", "yew"):
            (tmp_path / "leaves" / split / name).mkdir(parents=True)
            Image.new("RGB", (10, 10)).save(tmp_path / "leaves" / split / name / "0.png")
    run = str(leaves / "runs/leaves")
    assert main(["train-student", run, "--epochs=3", "--num_seeds=1"]) == 0
    (leaves / "attic").rename(leaves / "moved")
    assert main(["train-student", run, "--epochs=4", "--num_seeds=1"]) == 2
    assert "other classes" in capsys.readouterr().err
    assert main(["train-student", run, "--epochs=4", "--num_seeds=1", f"--source.name={leaves}/moved/leaves"]) == 0
