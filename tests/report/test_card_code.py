"""What a card says can be done is done: every config is loaded, and its code runs where the library is not."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import load_dataset
from fixtures.alone import run_without_the_library
from fixtures.artifacts import BATCH, CLASSES, EPOCHS, IPC, NUM_IMAGES, SIZE, copy_artifact, make_artifact
from fixtures.runs import copy_artifact as copy_artifact_alone
from fixtures.runs import files_of
from huggingface_hub import DatasetCardData

from fadrm_hf.artifact.manifest import read_manifest, refresh_files, write_manifest
from fadrm_hf.artifact.reading import read_images, read_soft_labels
from fadrm_hf.artifact.tables import write_tables
from fadrm_hf.builders.soft_labels import VIEW_FEATURES
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.report.card.metadata import label_configs
from fadrm_hf.report.card.writing import write_card
from fadrm_hf.runtime.tensor_files import load_tensors, save_tensors


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An artifact whose card names a repository."""
    folder = make_artifact(tmp_path_factory.mktemp("made") / "fadrm-trees-ipc2")
    (folder / "results/fadrm-resnet18.json").unlink()
    write_card(folder, read_manifest(folder), name="org/fadrm-trees-ipc2")
    refresh_files(folder)
    return folder


def load(folder, *arguments, **options):
    """A table of an artifact, read anew."""
    return load_dataset(str(folder), *arguments, split="train", cache_dir=str(folder.with_name("cache")), **options)


def code(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


@pytest.mark.parametrize("streaming", [False, True])
def test_every_config_loads(made, streaming):
    def rows(*arguments, **options):
        return list(load(made, *arguments, streaming=streaming, **options))

    assert len(rows()) == NUM_IMAGES and len(rows("default")) == NUM_IMAGES
    smaller = rows("ipc1")
    assert [row["label"] for row in smaller] == list(range(len(CLASSES)))
    assert {row["ipc_index"] for row in smaller} == {0}
    labels, views = rows("soft_labels"), rows("views")
    assert len(labels) == EPOCHS * NUM_IMAGES
    assert views == [{name: row[name] for name in VIEW_FEATURES} for row in labels]
    assert rows("soft_labels", filters=[("epoch", "==", 1)]) == labels[NUM_IMAGES : 2 * NUM_IMAGES]
    assert load(made, "ipc1", streaming=streaming).features["label"].names == list(CLASSES.names)


def loads_from_the_hub(folder, name, configs, cache):
    """Whether these configs of a repository are those of the folder, streaming and not."""
    for config in configs:
        expected = list(load(folder, config))
        assert list(load_dataset(name, config, split="train", cache_dir=str(cache))) == expected
        assert list(load_dataset(name, config, split="train", streaming=True)) == expected
    return True


def test_every_config_loads_from_the_hub(made, hub, tmp_path):
    name = "org/fadrm-trees-ipc2"
    hub.put(name, files_of(made))
    assert loads_from_the_hub(made, name, ("default", "ipc1", "soft_labels", "views"), tmp_path / "cache")
    epoch = load_dataset(name, "soft_labels", split="train", streaming=True, filters=[("epoch", "==", 2)])
    assert list(epoch) == list(load(made, "soft_labels"))[2 * NUM_IMAGES :]


def test_labels_apart_load_by_the_lines_of_the_card(made, hub, tmp_path):
    name, whole = "org/fadrm-trees-ipc2", made
    folder = copy_artifact(made, tmp_path / "fadrm-trees-ipc2")
    files = files_of(folder)
    header = DatasetCardData(configs=label_configs()).to_yaml()
    labels = {path: files.pop(path) for path in list(files) if path.startswith("soft_labels/")}
    commit = hub.put("org/labels", labels | {"README.md": f"---\n{header}\n---\n".encode()})
    there = replace(read_manifest(folder), label_repository=f"org/labels@{commit}")
    hub.put(name, files | {"README.md": write_card(folder, there).read_bytes()})
    assert loads_from_the_hub(whole, name, ("default", "ipc1"), tmp_path / "cache")
    assert loads_from_the_hub(whole, "org/labels", ("soft_labels", "views"), tmp_path / "cache")
    names = {}
    exec(code((folder / "README.md").read_text())[0], names)
    assert list(names["views"]) == list(load(whole, "soft_labels"))
    assert list(names["first_epoch"]) == list(load(whole, "soft_labels"))[:NUM_IMAGES]


CODECS = ("float16", "int8", "int4", "top2", "none")
STUDENT = "def student(views):\n    return views.reshape(len(views), -1)[:, :4]\n"
SAVED = """
smaller = len(smaller)
logits = student(batch)
found = {name: value for name, value in globals().items() if name in ("batch", "labels", "logits", "loss", "smaller")}
np.savez("found.npz", **found)
"""


@pytest.fixture(scope="module")
def coded(made, tmp_path_factory):
    """A folder for each codec, with the artifact and with what the code of its card found there."""
    base = tmp_path_factory.mktemp("coded")
    programs = ["import os"]
    for codec in CODECS:
        folder = base / codec / "fadrm-trees-ipc2"
        recode(made, folder, codec)
        loading, _, replaying = code((folder / "README.md").read_text())
        program = loading + STUDENT + replaying + SAVED
        programs.append(f"os.chdir({str(folder.parent)!r})\nexec({program!r}, {{}})")
    run_without_the_library("\n".join(programs), base)
    return base


def test_the_cards_code_draws_shuffled_mosaics(made, tmp_path):
    """Every crop begins in the second half of its image, and most of them run over the border."""
    folder = copy_artifact(made, tmp_path / "fadrm-trees-ipc2")
    work = folder.with_name(folder.name + ".work")
    for file in (work / "soft_labels").glob("*"):
        columns = load_tensors(file)
        for name in ("crop", "mix_crop"):
            columns[name][:, :2] = (columns[name][:, :2] + SIZE // 2).remainder(SIZE)
        save_tensors(file, columns)
    write_tables(folder, work, CLASSES, SIZE, IPC, EPOCHS)
    manifest = read_manifest(made)
    manifest.config["relabel"]["shuffle_tiles"] = 2
    write_card(folder, manifest, name=folder.name)
    write_manifest(folder, manifest)
    loading, _, replaying = code((folder / "README.md").read_text())
    run_without_the_library(loading + STUDENT + replaying + SAVED, tmp_path)
    rows, views = replayed(folder)
    assert (rows["crop"][:, :2] + rows["crop"][:, 2:] > SIZE).any()
    assert np.abs(np.load(tmp_path / "found.npz")["batch"] - views).max() <= 1.01 / 255  # whole grey levels
    assert "rows and columns of tiles were shuffled" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("relabel", "sentence"),
    [
        ({}, "is the mean of the logits that the teachers give for it"),
        ({"num_teachers": 1, "ensemble": "votes"}, "that the first 1 teachers give for it, weighted by their votes"),
        ({"ensemble": "frobenius"}, "teachers give for it, each scaled to the same Frobenius norm over the step"),
    ],
)
def test_the_card_says_how_teachers_would_label(relabel, sentence, coded, tmp_path):
    folder = copy_artifact_alone(coded / "none/fadrm-trees-ipc2", tmp_path)
    manifest = read_manifest(folder)
    manifest.config["relabel"].update(relabel)
    write_card(folder, manifest)
    assert sentence in " ".join((folder / "README.md").read_text().split())


def replayed(folder):
    """The first step: its columns, and its views (n, S, S, 3) as the library draws and normalises them."""
    rows = {name: torch.from_numpy(column[:BATCH]) for name, column in read_soft_labels(folder, 0).items()}
    pixels = render_views(read_images(folder)[0], LabelViews.from_columns(rows))
    return rows, pixels.permute(0, 2, 3, 1).numpy() / 255 - 0.5


@pytest.mark.parametrize("codec", CODECS)
def test_the_cards_code_draws_the_stored_views_without_the_library(codec, coded):
    found = np.load(coded / codec / "found.npz")
    _, views = replayed(coded / codec / "fadrm-trees-ipc2")
    assert found["batch"].shape == views.shape
    assert np.abs(found["batch"] - views).max() <= 1.01 / 255  # whole grey levels
    assert found["smaller"] == len(CLASSES)


@pytest.mark.parametrize("codec", CODECS[:-1])
def test_the_cards_code_decodes_the_labels_and_takes_the_loss(codec, coded):
    found = np.load(coded / codec / "found.npz")
    rows, _ = replayed(coded / codec / "fadrm-trees-ipc2")
    assert np.array_equal(found["labels"], rows["logits"].numpy())
    target, logits = rows["logits"].double() / 20, torch.from_numpy(found["logits"]).double() / 20
    expected = F.kl_div(logits.log_softmax(1), target.softmax(1), reduction="batchmean")
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_card_of_an_artifact_without_labels(coded):
    text = (coded / "none/fadrm-trees-ipc2/README.md").read_text()
    assert "No labels are stored" in text and "no labels are stored" in text
    assert "statistics of the micro-batch: the rows of a step in 2 parts" in text
    assert "decode" not in code(text)[2] and "labels" not in np.load(coded / "none/found.npz")
