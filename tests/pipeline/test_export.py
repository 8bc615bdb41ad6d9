"""Artifacts for other programs, read back by them: torchvision's ImageFolder, safetensors, DD-Ranking's loader."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fixtures.runs import copy_artifact, files_of
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder

from fadrm_hf import load_distilled
from fadrm_hf.artifact.manifest import read_manifest, write_manifest
from fadrm_hf.artifact.reading import read_images, read_soft_labels
from fadrm_hf.artifact.recorded_teachers import load_recorded_teachers
from fadrm_hf.cli import main
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.errors import ConfigError, RunFolderError
from fadrm_hf.pipeline.edit import Changes, edit
from fadrm_hf.pipeline.export import export

IPC, CLASSES = 2, 10
BY_CLASS = [label + CLASSES * index for label in range(CLASSES) for index in range(IPC)]


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """The artifact as a folder of images with tensors of labels."""
    output = tmp_path_factory.mktemp("exported") / "images"
    assert main(["export", str(finished), str(output)]) == 0
    return output


def test_image_folder_reads_the_images_in_the_order_of_the_classes(finished, folder):
    found, pixels = ImageFolder(str(folder / "images")), read_images(finished)[0]
    assert [name.split("_")[1] for name in found.classes] == list(read_manifest(finished).classes.names)
    assert [label for _, label in found.samples] == [row % CLASSES for row in BY_CLASS]
    for place, row in enumerate(BY_CLASS):
        image = torch.from_numpy(np.array(found[place][0])).permute(2, 0, 1)
        assert torch.equal(image, pixels[row])
    index = json.loads((folder / "index.json").read_text())
    assert [str(folder / file) for file in index["files"]] == [path for path, _ in found.samples]
    assert index["digest"] == read_manifest(finished).digest and str(finished) not in json.dumps(index)


def test_tensors_of_labels_give_the_batches_of_training(finished, folder):
    """Drawn from the exported files alone: images, classes and logits of every batch."""
    found = ImageFolder(str(folder / "images"))
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in found])
    index = json.loads((folder / "index.json").read_text())
    colours = tuple(index["mean"]), tuple(index["std"])
    files = sorted((folder / "labels").iterdir())
    batches = load_distilled(finished).batches(range(len(files)))
    for file in files:
        tensors = load_file(file)
        views = normalise(render_views(pixels, LabelViews.from_columns(tensors)), *colours)
        for step in tensors["step"].unique():
            here, batch = tensors["step"] == step, next(batches)
            assert torch.equal(views[here], batch.images)
            assert torch.equal(tensors["label"][here], batch.labels)
            assert torch.equal(tensors["logits"][here].float(), batch.logits)
    assert next(batches, None) is None and len(files) == read_manifest(finished).label_epochs


def test_labels_of_lossy_codecs_are_decoded_and_of_none_left_out(finished, tmp_path):
    for codec in ("int4", "none"):
        assert main(["recode", str(finished), str(tmp_path / codec), "--codec", codec, "--quiet"]) == 0
    assert export(tmp_path / "int4", tmp_path / "coded") == []
    (note,) = export(tmp_path / "none", tmp_path / "views")
    assert "stores no logits" in note
    logits = load_file(tmp_path / "coded/labels/epoch00001.safetensors")["logits"]
    assert np.array_equal(logits.numpy(), read_soft_labels(tmp_path / "int4", 1)["logits"])
    assert "logits" not in load_file(tmp_path / "views/labels/epoch00001.safetensors")


def test_no_name_of_a_class_leads_out_of_the_folder(finished, tmp_path):
    names = {"0": "../../up", "1": "a/b", "2": "x" * 300, "3": "…", "4": "-rf", "5": "con"}
    edit(finished, tmp_path / "named", Changes(rename_classes=names))
    export(tmp_path / "named", tmp_path / "out/images")
    found = ImageFolder(str(tmp_path / "out/images/images"))
    assert [name.split("_")[0] for name in found.classes] == [f"{label:05d}" for label in range(CLASSES)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images"]
    index = json.loads((tmp_path / "out/images/index.json").read_text())
    assert index["classes"][0]["name"] == "../../up"


@pytest.fixture(scope="module")
def ranked(finished, tmp_path_factory):
    """The artifact as DD-Ranking takes it."""
    output = tmp_path_factory.mktemp("ranked") / "tensors"
    assert main(["export", str(finished), str(output), "--form", "dd_ranking"]) == 0
    return output


def test_dd_rankings_own_loader_reads_it(finished, ranked):
    """Its configuration, its dataset of tensors, its loss, on what its page says to load."""
    dd_ranking = pytest.importorskip("ddranking", reason="DD-Ranking is not installed: make dd-ranking")
    from ddranking.utils import TensorDataset

    config = dd_ranking.Config.from_file(str(ranked / "config.yaml"))
    assert config.get("im_size") == (16, 16) and config.get("custom_train_trans") is None
    assert (config.get("ipc"), config.get("soft_label_mode")) == (IPC, "S")
    images, labels = (torch.load(ranked / name, weights_only=True) for name in ("images.pt", "labels.pt"))
    # As LabelRobustScoreSoft.compute_metrics counts them.
    hard = torch.tensor(np.array([np.ones(config.get("ipc")) * i for i in range(CLASSES)]), dtype=torch.long).view(-1)
    loader = torch.utils.data.DataLoader(TensorDataset(images, labels), batch_size=7)
    read = torch.cat([batch for batch, _ in loader])
    pixels, classes = read_images(finished)
    assert torch.equal(hard, classes[BY_CLASS])
    manifest = read_manifest(finished)
    assert torch.equal(read, normalise(pixels[BY_CLASS], manifest.pixels.mean, manifest.pixels.std))
    assert config.get("soft_label_criterion") == "kl"
    loss = dd_ranking.KLDivergenceLoss(**config.get("loss_fn_kwargs"))
    assert float(loss(labels, labels)) == pytest.approx(0, abs=1e-6)


def test_tensors_for_dd_ranking_are_class_by_class_and_labelled_by_the_teachers(finished, ranked):
    manifest, (pixels, classes) = read_manifest(finished), read_images(finished)
    images = torch.load(ranked / "images.pt", weights_only=True)
    assert images.dtype == torch.float32
    assert torch.equal(images, normalise(pixels[BY_CLASS], manifest.pixels.mean, manifest.pixels.std))
    (teacher,) = load_recorded_teachers(finished, manifest, torch.device("cpu"))
    with torch.inference_mode():
        expected = teacher.module(images)
    labels = torch.load(ranked / "labels.pt", weights_only=True)
    assert labels.dtype == torch.float32 and labels.shape == (len(classes), CLASSES)
    assert torch.allclose(labels, expected, atol=1e-4)


def test_a_known_source_is_normalised_as_dd_ranking_tests(finished, tmp_path, capsys):
    """Here ten classes that say they are CIFAR-10's: another deviation than the artifact's own."""
    artifact = copy_artifact(finished, tmp_path)
    manifest = read_manifest(artifact)
    manifest.config["source"] |= {"name": "uoft-cs/cifar10", "preset": "cifar10"}
    write_manifest(artifact, manifest)
    assert main(["export", str(artifact), str(tmp_path / "out"), "--form=dd_ranking"]) == 0
    assert "DD-Ranking's constants of CIFAR10" in capsys.readouterr().out
    images = torch.load(tmp_path / "out/images.pt", weights_only=True)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    assert torch.equal(images, normalise(read_images(artifact)[0][BY_CLASS], mean, std))
    assert "dataset: CIFAR10" in (tmp_path / "out/config.yaml").read_text()


def test_without_weights_of_teachers_there_are_no_labels_for_dd_ranking(finished, tmp_path, capsys):
    artifact = copy_artifact(finished, tmp_path)
    document = json.loads((artifact / "fadrm.json").read_text())
    document["teachers"][0]["path"] = None
    (artifact / "fadrm.json").write_text(json.dumps(document))
    assert main(["export", str(artifact), str(tmp_path / "out"), "--form=dd_ranking"]) == 0
    assert "no labels.pt" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.yaml", "images.pt", "index.json"]
    assert "soft_label_mode: M" in (tmp_path / "out/config.yaml").read_text()


def test_an_export_is_the_same_every_time_and_changes_nothing(finished, tmp_path):
    before = files_of(finished)
    for form in ("image_folder", "dd_ranking"):
        for time in ("once", "twice"):
            export(finished, tmp_path / form / time, form)
        assert files_of(tmp_path / form / "once") == files_of(tmp_path / form / "twice")
    assert files_of(finished) == before
    with pytest.raises(RunFolderError, match="expected a new or an empty folder"):
        export(finished, tmp_path / "image_folder")
    with pytest.raises(ConfigError, match="unknown form 'imagefolder'; did you mean 'image_folder'"):
        export(finished, tmp_path / "new", "imagefolder")


def test_images_are_copied_byte_for_byte(finished, folder):
    """So that hashes of the stored PNGs stay what they are."""
    stored = pq.read_table(finished / "data/train-00000-of-00001.parquet").column("image").to_pylist()
    files = json.loads((folder / "index.json").read_text())["files"]
    for place, row in enumerate(BY_CLASS):
        assert (folder / files[place]).read_bytes() == stored[row]["bytes"]
