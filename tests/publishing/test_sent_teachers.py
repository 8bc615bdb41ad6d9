"""The teachers' weights that a publication sends: said with bytes and licence, left out on request, or in private."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.hub import TestHub
from fixtures.runs import ROOT
from huggingface_hub import HfApi

from fadrm_hf import load_distilled
from fadrm_hf.artifact.manifest import read_manifest, write_manifest
from fadrm_hf.cli import main
from fadrm_hf.errors import ConfigError
from fadrm_hf.hub import open_artifact
from fadrm_hf.publishing.publish import Request, publish
from fadrm_hf.publishing.verify import verify_location

REPO = "org/digits"
FORMAT1 = ROOT / "tests/fixtures/format1"


@pytest.fixture(autouse=True)
def logged_in(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An artifact of a teacher that was trained for it."""
    return Path(shutil.copytree(FORMAT1, tmp_path / "digits"))


@pytest.fixture
def foreign(run: Path) -> Callable[..., Path]:
    """The same of a teacher of somebody else's, that came as a folder."""

    def make(**stated: str) -> Path:
        manifest = read_manifest(run)
        (teacher,) = manifest.teachers
        file = run / str(teacher.path) / "config.json"
        config = json.loads(file.read_text())
        del config["fadrm"]
        config["pretrained_cfg"] |= stated
        file.write_text(json.dumps(config))
        write_manifest(run, replace(manifest, teachers=(replace(teacher, name="timm/local-dir:theirs"),)))
        return run

    return make


def send(folder: Path, *options: str) -> int:
    return main(["publish", str(folder), REPO, "--num_steps=0", *options])


def is_private() -> bool:
    return bool(HfApi().repo_info(REPO, repo_type="dataset").private)


def weights(hub: TestHub) -> list[str]:
    return [name for name in hub.files(REPO) if name.startswith("teachers/")]


def test_the_plan_names_weights_bytes_and_licence(hub, run, capfd):
    assert send(run, "--dry_run") == 0
    said = capfd.readouterr().err
    assert "weights of 1 are sent" in said and "licence yours: trained on digits" in said
    (line,) = [line for line in said.splitlines() if "licence yours" in line]
    assert "kB" in line or "MB" in line
    assert send(run) == 0 and not is_private() and weights(hub)


def test_a_stated_licence_is_named(hub, foreign, capfd):
    assert send(foreign(license="apache-2.0")) == 0
    assert "timm/local-dir:theirs" in (said := capfd.readouterr().err) and "licence apache-2.0" in said
    assert not is_private()


def test_weights_of_an_unknown_licence_go_to_a_private_repository(hub, foreign, capfd):
    assert send(foreign()) == 0
    said = capfd.readouterr().err
    assert "licence unknown" in said and "private, as a licence is unknown" in said and "new, private" in said
    assert is_private() and weights(hub)


def test_or_to_everybody_on_request(hub, foreign, capfd):
    assert send(foreign(), "--public") == 0
    assert not is_private() and weights(hub) and "licence unknown" in capfd.readouterr().err


def test_nothing_of_an_unknown_licence_is_added_to_what_is_public(hub, run, foreign, capfd):
    assert send(run) == 0
    before = hub.files(REPO)
    assert send(foreign()) == 2
    said = capfd.readouterr().err
    assert "is public; nothing was sent" in said and "--teachers hash" in said and "--public" in said
    assert hub.files(REPO) == before


@pytest.mark.parametrize("labels", ["with", "apart"])
@pytest.mark.parametrize("teachers", ["hash", "none"])
def test_weights_are_left_out_on_request(hub, foreign, capfd, teachers, labels):
    run = foreign()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert send(run, f"--teachers={teachers}", f"--labels={labels}") == 0
    assert "left out" in capfd.readouterr().err
    assert weights(hub) == [] and not is_private()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    location = open_artifact(REPO, "v1.0")
    recorded = location.manifest.teachers
    if teachers == "hash":
        assert [(each.name, each.sha256) for each in recorded] == [
            (each.name, each.sha256) for each in read_manifest(run).teachers
        ]
    else:
        assert recorded == ()
    assert verify_location(location, num_steps=1) == []
    assert next(iter(load_distilled(REPO).batches(range(1)))).logits is not None
    assert main(["verify", REPO, "--leakage=false"]) == 0
    assert "labels: not replayed" in capfd.readouterr().out
    assert send(run, f"--teachers={teachers}", f"--labels={labels}") == 0  # nothing has changed
    assert hub.tags(REPO).keys() == {"v1.0"}


def test_requests_that_contradict_one_another_are_refused(hub, run):
    with pytest.raises(ConfigError, match="online need their weights"):
        publish(Request(run, REPO, labels="online", teachers="hash"))
    with pytest.raises(ConfigError, match="leave out one"):
        publish(Request(run, REPO, private=True, public=True))


def test_files_that_the_manifest_does_not_name_are_told_and_not_sent(hub, run, capfd):
    (run / "notes.txt").write_text("mine")
    assert main(["verify", str(run), "--num_steps=0", "--leakage=false"]) == 1
    assert "notes.txt: is not in fadrm.json" in capfd.readouterr().out
    assert send(run) == 2
    assert "notes.txt: is not in fadrm.json" in capfd.readouterr().err
    assert not HfApi().repo_exists(REPO, repo_type="dataset")
