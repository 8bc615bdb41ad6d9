"""Artifacts of format 1 stay readable: one that the first version wrote loads, verifies, trains and reproduces."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fadrm_hf import load_distilled
from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import MethodRecord, is_unaltered, read_manifest, write_manifest
from fadrm_hf.cli import main
from fadrm_hf.config.citation import Paper
from fadrm_hf.errors import ArtifactError
from fadrm_hf.publishing.verify import verify_location
from fadrm_hf.report.card.metadata import card_title
from fadrm_hf.report.card.writing import write_card

MADE = Path(__file__).parent.parent / "fixtures/format1"  # by commit 3efdf2c: digits, one image per class, 16 epochs


@pytest.fixture
def early(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "early"))


def test_it_loads(caplog):
    with caplog.at_level(logging.WARNING):
        distilled = load_distilled(MADE)
    assert caplog.text == "" and distilled.images.shape == (10, 3, 16, 16) and distilled.num_epochs == 16
    (batch,) = distilled.batches(range(1))
    assert batch.logits.shape == (10, 10) and sorted(batch.labels.tolist()) == list(range(10))


def test_it_is_sound_and_its_labels_are_those_that_its_teacher_gives():
    assert is_unaltered(MADE)
    assert verify_location(LocalFolder(MADE), num_steps=16) == []


def test_it_trains_and_reproduces(early, tmp_path, capsys):
    assert main(["reproduce", str(early), "--tolerance=5points"]) == 0
    assert "reproduced" in capsys.readouterr().out
    assert main(["train-student", str(early), "--num_seeds=1", "--labels=hard"]) == 0
    assert len(list((early / "results").glob("*.json"))) == 2
    assert verify_location(LocalFolder(early), num_steps=0) == []


def test_it_says_what_made_it(early):
    manifest = read_manifest(early)
    assert "method_record" not in json.loads((early / "fadrm.json").read_text())
    assert manifest.method_title == "FADRM" and manifest.paper is not None and manifest.paper.arxiv == "2506.24125"
    assert manifest.method_setting("init") == "patches" and manifest.method_setting("iterations") == 40
    assert card_title(manifest) == "digits distilled by FADRM, 1 image per class"


def test_a_method_that_is_unknown_here_has_a_title_and_a_paper(early):
    """Its words are a stranger's: no backtick of theirs ends a fence of the card."""
    paper = Paper("On Views", "2999.00001", "@article{views, note = {```<b>}}\n")
    document = json.loads((early / "fadrm.json").read_text()) | {"method": "views"}
    (early / "fadrm.json").write_text(json.dumps(document))
    record = MethodRecord("Views | All", paper, "noise")
    manifest = write_manifest(early, replace(read_manifest(early), method_record=record))
    assert read_manifest(early) == manifest and card_title(manifest).startswith("digits distilled by Views | All,")
    card = write_card(early, manifest).read_text()
    assert "https://arxiv.org/abs/2999.00001" in card and "note = {'''<b>}" in card and r"Views \| All" in card
    assert manifest.method_setting("init") == "noise" and manifest.method_setting("absent", 3) == 3


def test_a_paper_that_is_none_is_refused(early):
    record = {"title": "X", "paper": {"title": "Y", "arxiv": "](javascript:", "bibtex": ""}}
    document = json.loads((early / "fadrm.json").read_text()) | {"method_record": record}
    (early / "fadrm.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"method_record\.paper\.arxiv = '\]\(javascript:', expected an arXiv id"):
        read_manifest(early)
