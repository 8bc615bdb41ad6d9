"""Smaller labels for a finished artifact: the same images and views, and the labels that the run would have stored."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from fixtures.artifacts import EPOCHS, NUM_IMAGES, copy_artifact, make_artifact, relabel
from fixtures.runs import distill

from fadrm_hf.artifact.manifest import artifact_files, read_manifest
from fadrm_hf.artifact.reading import read_images, read_soft_labels
from fadrm_hf.builders.soft_labels import VIEW_FEATURES
from fadrm_hf.cli import main
from fadrm_hf.errors import ArtifactError, ConfigError, RunFolderError
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.publishing.verify import verify_artifact
from fadrm_hf.runtime.files import write_json

pytestmark = pytest.mark.numerical

LABELS = "soft_labels/train-00000-of-00001.parquet"
CODECS = ["int8", "int4", "top1", "top2", "none"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_artifact(tmp_path_factory.mktemp("made") / "run")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in artifact_files(folder)}


@pytest.mark.parametrize("codec", CODECS)
def test_views_stay_and_logits_are_what_the_codec_makes_of_them(made, tmp_path, codec):
    manifest = recode(made, tmp_path / "small", codec)
    assert manifest == read_manifest(tmp_path / "small")
    assert (manifest.label_codec, manifest.label_epochs) == (codec, EPOCHS)
    for epoch in range(EPOCHS):
        before, after = read_soft_labels(made, epoch), read_soft_labels(tmp_path / "small", epoch)
        assert set(after) == {*VIEW_FEATURES, *(["logits"] if codec != "none" else [])}
        for name in VIEW_FEATURES:
            np.testing.assert_array_equal(after[name], before[name])
        if codec != "none":
            assert (after["logits"] != before["logits"]).any()
            assert np.corrcoef(after["logits"].ravel(), before["logits"].ravel())[0, 1] > 0.5


@pytest.mark.parametrize("codec", CODECS)
def test_a_recoded_artifact_is_sound_when_its_teachers_label_it_again(made, tmp_path, codec):
    recode(made, tmp_path / "small", codec, 2)
    assert verify_artifact(tmp_path / "small", 100, relabel) == []
    if codec != "none":
        found = verify_artifact(tmp_path / "small", 100, lambda images, rows: relabel(255 - images, rows))
        assert len(found) == 2 * NUM_IMAGES


def test_everything_else_is_copied_but_results(made, tmp_path):
    recode(made, tmp_path / "small", "int4", 2)
    before, after = contents(made), contents(tmp_path / "small")
    rewritten = {"README.md", "recipe.yaml", LABELS}
    measured = {"results/fadrm-resnet18.json"}
    assert set(before) - set(after) == measured
    assert {name for name in after if after[name] != before.get(name)} == rewritten
    assert read_images(tmp_path / "small")[0].equal(read_images(made)[0])


def test_recipe_and_manifest_say_how_the_labels_are_stored(made, tmp_path):
    before = read_manifest(made)
    after = recode(made, tmp_path / "small", "int4", 2)
    changed = {"codec": "int4", "stored_epochs": 2}
    assert after.config == before.config | {"output": "small", "relabel": before.config["relabel"] | changed}
    assert yaml.safe_load((tmp_path / "small/recipe.yaml").read_text()) == after.config
    assert after.label_epochs == 2 and after.config["relabel"]["epochs"] == EPOCHS
    assert (after.teachers, after.stages, after.source) == (before.teachers, before.stages, before.source)
    assert after.bytes.images == before.bytes.images and after.bytes.soft_labels != before.bytes.soft_labels


def test_stored_epochs_are_the_first_and_may_be_cut_again_from_small_labels(made, tmp_path):
    recode(made, tmp_path / "two", "int4", 2)
    recode(tmp_path / "two", tmp_path / "one", "int4", 1)
    recode(made, tmp_path / "at_once", "int4", 1)
    assert (tmp_path / "one" / LABELS).read_bytes() == (tmp_path / "at_once" / LABELS).read_bytes()
    assert pq.ParquetFile(tmp_path / "one" / LABELS).num_row_groups == 1
    with pytest.raises(ArtifactError, match="epochs 0 to 0"):
        read_soft_labels(tmp_path / "one", 1)


def test_nothing_to_change_keeps_the_results(made, tmp_path):
    run, top1 = copy_artifact(made, tmp_path / "run"), {"mean": 0.5, "std": 0.1}
    result = {"protocol": "fadrm", "student": "timm/resnet18", "images": "distilled", "labels": "soft", "epochs": 3}
    write_json(run / "results/fadrm-resnet18.json", result | {"num_seeds": 2, "top1": top1, "top5": top1})
    recode(run, tmp_path / "same", "float16")
    before, after = contents(run), contents(tmp_path / "same")
    assert {name for name in before if after[name] != before[name]} == {"README.md", "recipe.yaml"}
    assert set(after) == {*before, "assets/accuracy.png"}
    recode(run, tmp_path / "smaller", "float16", 2)
    assert not {"results/fadrm-resnet18.json", "assets/accuracy.png"} & contents(tmp_path / "smaller").keys()


def test_one_epoch_at_a_time_is_in_memory(made, tmp_path, monkeypatch):
    """The table of an epoch is written out before the next is read."""
    events = []
    read, write = pq.ParquetFile.iter_batches, pq.ParquetWriter.write_table
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *a, **k: events.append("read") or read(*a, **k))
    monkeypatch.setattr(pq.ParquetWriter, "write_table", lambda *a, **k: events.append("write") or write(*a, **k))
    recode(made, tmp_path / "small", "int4")
    assert events[: 2 * EPOCHS] == ["read", "write"] * EPOCHS


def test_labels_that_lost_something_become_no_others(made, tmp_path):
    recode(made, tmp_path / "int8", "int8")
    for codec in ("float16", "int4", "top2"):
        with pytest.raises(ConfigError, match=rf"stored as int8, from which {codec} .*start .*float16"):
            recode(tmp_path / "int8", tmp_path / "other", codec)
    assert not (tmp_path / "other").exists()
    recode(tmp_path / "int8", tmp_path / "none", "none")
    with pytest.raises(ConfigError, match="stored as none"):
        recode(tmp_path / "none", tmp_path / "other", "float16")


@pytest.mark.parametrize(
    ("codec", "stored_epochs", "message"),
    [
        ("int4", 4, r"stored_epochs is 4, expected 1 to 3"),
        ("int4", 0, r"stored_epochs is 0, expected 1 to 3"),
        ("int5", None, r"unknown label codec 'int5'"),
        ("top4", None, r"top4 keeps 4 of 4 classes"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(made, tmp_path, codec, stored_epochs, message):
    with pytest.raises((ConfigError, ArtifactError), match=message):
        recode(made, tmp_path / "small", codec, stored_epochs)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_anything_is_refused_and_left_alone(made, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds files \(mine.txt\), expected a new or an empty folder"):
        recode(made, tmp_path, "int4")
    with pytest.raises(RunFolderError, match=r"mine.txt is a file"):
        recode(made, tmp_path / "mine.txt", "int4")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_one_is_no_artifact(made, tmp_path):
    damaged = shutil.copytree(made, tmp_path / "damaged")
    content = bytearray((damaged / LABELS).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / LABELS).write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        recode(damaged, tmp_path / "small", "int4")
    with pytest.raises(ArtifactError, match="unfinished"):
        read_manifest(tmp_path / "small")


@pytest.mark.parametrize(("codec", "stored"), [("int4", None), ("top3", 3), ("none", 2)])
def test_recoding_makes_the_bytes_that_distilling_with_this_codec_makes(finished_random_real, tmp_path, codec, stored):
    """A whole run; of fewer epochs, those that a run with all of them stores first."""
    shutil.copytree(finished_random_real.with_name("teachers"), tmp_path / "teachers")
    pruned = [f"--relabel.stored_epochs={stored}"] if stored else []
    small = distill(
        tmp_path / "small", "--method=random_real", "--relabel.batch_size=32", f"--relabel.codec={codec}", *pruned
    )
    options = ["--codec", codec, *(["--stored_epochs", str(stored)] if stored else [])]
    assert main(["recode", str(finished_random_real), str(tmp_path / "again/small"), *options]) == 0
    manifest, again = read_manifest(small), read_manifest(tmp_path / "again/small")
    assert manifest.config == again.config
    assert (
        (manifest.label_codec, manifest.label_epochs)
        == (again.label_codec, again.label_epochs)
        == (codec, stored or 4)
    )
    assert (small / LABELS).read_bytes() == (tmp_path / "again/small" / LABELS).read_bytes()
    assert main(["verify", str(small), "--num_steps=4"]) == 0
    assert find_codec(codec).has_logits == (codec != "none")
