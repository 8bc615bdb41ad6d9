"""Pipes, devices, links that lead out and files without an end are told where an artifact has them, and never read."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.runs import ROOT

from fadrm_hf.artifact.manifest import artifact_files, read_manifest, refresh_files, write_manifest
from fadrm_hf.cli import main
from fadrm_hf.errors import ArtifactError

FORMAT1 = ROOT / "tests/fixtures/format1"
RESULT = "results/distilled-soft-fadrm-timm_resnet10_narrow.json"
HUGE = 6 << 30


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMAT1, tmp_path / "run"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link(path: Path) -> None:
    run = next(folder for folder in path.parents if (folder / "data").is_dir())
    run.with_name("secret.json").write_text('{"secret": 1}')
    path.symlink_to(run.with_name("secret.json"))


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(HUGE)


KINDS: tuple[Callable[[Path], None], ...] = (pipe, device, link, huge)
COMMANDS = {
    "info": [],
    "verify": ["--num_steps=0", "--leakage=false"],
    "gallery": ["--output=page"],
    "score": [],
    "recode": ["coded", "--codec=int8"],
    "edit": ["edited", "--rename_classes=[0=zero]"],
    "export": ["exported"],
}


@pytest.mark.fault("{command}", "foreign file")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["results/other.json", "assets/other.png", "gallery/other.webp", "other/deep/x"])
def test_an_unlisted_file_of_any_kind_is_told_or_left_alone(run, name, make, command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    make(run / name)
    if make is huge and name.startswith("other/"):
        pytest.skip("a large file of one's own is only counted, or copied")
    if make is huge and command in ("recode", "edit", "verify", "score") and not name.startswith("results/"):
        pytest.skip("a large picture takes the time that hashing takes")
    code = main([command, str(run), *COMMANDS[command]])
    said = capsys.readouterr()
    assert "secret" not in said.out
    if command == "verify":
        assert code == 1 and f"{name}: is not in fadrm.json" in said.out
    elif code != 0:
        assert code == 2 and Path(name).name in said.err


@pytest.mark.fault("{command}", "foreign file")
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["README.md", RESULT, "gallery/pictures.json"])
@pytest.mark.parametrize("command", ["info", "gallery", "verify", "score"])
def test_in_the_place_of_a_listed_file_it_is_named(run, name, make, command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (run / name).unlink()
    make(run / name)
    code = main([command, str(run), *COMMANDS[command]])
    said = capsys.readouterr()
    if make is not huge:  # links, pipes and devices are refused by the first to look
        assert code == 2 and name in said.err
    elif command == "verify":
        assert code == 1 and f"{name}: has {HUGE} bytes, expected" in said.out
    elif code != 0:
        assert code == 2 and Path(name).name in said.err


@pytest.mark.parametrize("make", [pipe, device, link])
@pytest.mark.parametrize("write", [refresh_files, lambda folder: write_manifest(folder, read_manifest(folder))])
def test_it_is_never_taken_into_a_manifest(run, make, write):
    make(run / "assets/other.png")
    before = (run / "fadrm.json").read_bytes()
    assert "assets/other.png" in artifact_files(run)
    with pytest.raises(ArtifactError, match=r"assets/other\.png"):
        write(run)
    assert (run / "fadrm.json").read_bytes() == before
