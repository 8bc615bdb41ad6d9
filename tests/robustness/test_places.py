"""Folders by every name that they have, and none of them on file."""

import json
import os
import shutil
from pathlib import Path

import pytest
from fixtures.runs import ROOT

from fadrm_hf.cli import main
from fadrm_hf.commands.output import as_typed
from fadrm_hf.config import SqueezeConfig, StudentConfig
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.runtime.run_folder import WorkFolder

FORMAT1 = ROOT / "tests/fixtures/format1"


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(FORMAT1, folder))


@pytest.mark.parametrize("name", [".", "./", "../run", "gallery/.."])
@pytest.mark.parametrize("words", ["info", "verify --num_steps=0 --leakage=false", "gallery", "score"])
def test_an_artifact_can_be_the_folder_one_is_in(words, name, tmp_path, monkeypatch):
    monkeypatch.chdir(copied(tmp_path / "run"))
    command, *options = words.split()
    assert main([command, name, *options]) == 0
    assert json.loads(Path("fadrm.json").read_text()) and {path.name for path in tmp_path.iterdir()} <= {
        "run",
        "run.work",
    }


@pytest.mark.parametrize("name", ["/", "//", "/.."])
@pytest.mark.parametrize(
    "command", ["info", "verify", "gallery", "score", "train-student", "recode", "edit", "export"]
)
def test_the_root_of_a_disk_is_no_artifact(command, name, tmp_path, capsys):
    more = {"recode": ["--codec=int8"], "edit": ["--drop_images=[0]"], "export": []}
    output = [str(tmp_path / "x")] if command in more else []
    assert main([command, name, *output, *more.get(command, [])]) == 2
    assert "fadrm.json" in capsys.readouterr().err


def test_the_root_of_a_disk_has_no_work_folder():
    with pytest.raises(RunFolderError, match="root of a disk"):
        WorkFolder(Path("/"))
    assert main(["distill", "--source.name=digits", "--output=/"]) == 2


def test_a_folder_above_has_its_own_work_folder(tmp_path, monkeypatch):
    (tmp_path / "run/inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run/inner")
    assert WorkFolder(Path("..")).path == tmp_path.resolve() / "run.work"
    assert WorkFolder(Path(".")).path == tmp_path.resolve() / "run/inner.work"
    assert WorkFolder(Path("x")).path == Path("x.work")


def test_no_folder_of_this_machine_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("mine/secret/run")
    words = ["mine/secret/run", "--source.name=mine/secret/run", "--output=./secret/out", "~/secret/x", "../secret/y"]
    assert "secret" not in as_typed("train-student", words)
    assert as_typed("train-student", ["ORG/NAME", "--config=recipes/configs/x.yaml", "--student=timm/resnet18"]) == (
        "fadrm-hf train-student ORG/NAME --config=recipes/configs/x.yaml --student=timm/resnet18"
    )


@pytest.mark.parametrize("section", [SqueezeConfig, StudentConfig])
def test_a_million_workers_are_refused_before_one_is_started(section):
    with pytest.raises(ConfigError, match="num_workers must be 0 to 256 processes, got 1000000"):
        section(num_workers=1_000_000)
    assert section(num_workers=256).num_workers == 256
