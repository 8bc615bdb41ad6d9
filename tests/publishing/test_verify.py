from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fixtures.artifacts import (
    CLASSES,
    EPOCHS,
    IPC,
    NUM_IMAGES,
    SIZE,
    all_images,
    copy_artifact,
    make_artifact,
    make_manifest,
    relabel,
)

from fadrm_hf.artifact.manifest import read_manifest, write_manifest
from fadrm_hf.artifact.reading import read_label_columns
from fadrm_hf.artifact.tables import write_label_table, write_tables
from fadrm_hf.builders.soft_labels import label_features, label_table
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.publishing.verify import verify_artifact
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.tensor_files import load_tensors, save_tensors

pytestmark = pytest.mark.numerical

IMAGES, LABELS = "data/train-00000-of-00001.parquet", "soft_labels/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_artifact(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def artifact(made, tmp_path):
    return copy_artifact(made, tmp_path / "run")


def flip_byte(file: Path, position: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def position_of(file: Path, content: bytes) -> int:
    found = file.read_bytes()
    assert found.count(content) == 1
    return found.index(content)


def places(problems):
    return [(problem.file, problem.where) for problem in problems]


def test_an_untouched_artifact_has_no_problem(artifact):
    assert verify_artifact(artifact, num_steps=100, relabel=relabel) == []
    assert verify_artifact(artifact) == []


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "assets/grid.png",
        IMAGES,
        LABELS,
        "recipe.yaml",
        "results/fadrm-resnet18.json",
        "teachers/narrow/config.json",
        "teachers/narrow/model.safetensors",
    ],
)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 1.0])
def test_one_flipped_byte_in_any_file_is_caught_and_the_file_named(artifact, name, place):
    size = (artifact / name).stat().st_size
    flip_byte(artifact / name, int(place * (size - 1)))
    first = verify_artifact(artifact, 2, relabel)[0]
    assert (first.file, first.where) == (name, "")
    assert first.message.startswith("has SHA-256")


@pytest.mark.parametrize("text", [b'"c0ffee"', b"0.987", b'"birch"', b'"n2"', b"Example CPU", b'"digest": "'])
def test_one_flipped_byte_in_the_manifest_is_caught(artifact, text):
    file = artifact / "fadrm.json"
    flip_byte(file, position_of(file, text) + len(text) - 2)
    assert "fadrm.json" in {problem.file for problem in verify_artifact(artifact, 2, relabel)}


def test_a_flipped_byte_of_a_picture_names_its_row(artifact):
    row = 5
    content = pq.read_table(artifact / IMAGES)["image"][row].as_py()["bytes"]
    flip_byte(artifact / IMAGES, position_of(artifact / IMAGES, content) + len(content) // 2)
    assert places(verify_artifact(artifact, 2, relabel)) == [(IMAGES, ""), (IMAGES, f"row {row}")]


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("offset", range(2))
def test_a_flipped_byte_of_a_logit_names_epoch_step_and_image(artifact, offset, bit):
    """Even the lowest bit of a half, which no tolerance would see."""
    epoch, row = 1, 6
    shard = load_tensors(artifact.with_name("run.work") / "soft_labels" / f"epoch{epoch:05d}.safetensors")
    content = shard["logits"][row].numpy().tobytes()
    flip_byte(artifact / LABELS, position_of(artifact / LABELS, content) + offset, bit)
    damaged_row = (LABELS, f"epoch {epoch}, step 1, row {row}, image {shard['image'][row]}")
    found = places(verify_artifact(artifact, 0, relabel))
    assert found[:2] == [(LABELS, ""), (LABELS, f"epoch {epoch}, rows 0 to {NUM_IMAGES - 1}")]
    assert found[2:] in ([damaged_row], [(LABELS, f"epoch {epoch}, row {row}")])  # the latter: no longer finite


def test_without_teachers_a_damaged_label_names_the_epoch_and_the_column(artifact):
    shard = load_tensors(artifact.with_name("run.work") / "soft_labels/epoch00002.safetensors")
    flip_byte(artifact / LABELS, position_of(artifact / LABELS, shard["logits"][3].numpy().tobytes()))
    whole, page = verify_artifact(artifact)
    assert (whole.file, page.where) == (LABELS, f"epoch 2, rows 0 to {NUM_IMAGES - 1}")
    assert "column logits is damaged" in page.message


@pytest.fixture
def small(made, tmp_path, request):
    """The artifact with labels of the codec that a test names."""
    recode(made, tmp_path / "small", request.param)
    return tmp_path / "small"


def stored_bytes(artifact, epoch, column):
    """A column of an epoch as it lies in the file: halves as they are, of small integers the lowest bytes."""
    values = pq.ParquetFile(artifact / LABELS).read_row_group(epoch)[column].combine_chunks()
    values = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
    numbers = values.to_numpy(zero_copy_only=False)
    return (numbers if numbers.dtype == np.float16 else numbers.astype(np.uint8)).tobytes()


def flip_byte_of_row(artifact, epoch, column, row, bit):
    content = stored_bytes(artifact, epoch, column)
    position = position_of(artifact / LABELS, content) + row * len(content) // NUM_IMAGES
    flip_byte(artifact / LABELS, position, bit)


@pytest.mark.parametrize(
    ("small", "column"),
    [("int4", "codes"), ("int4", "low"), ("int4", "scale"), ("int8", "codes"), ("top2", "values"), ("top2", "rest")],
    indirect=["small"],
)
@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_flipped_byte_of_a_small_label_names_epoch_column_and_row(small, column, bit):
    """Even the lowest bit of a code, which no tolerance would see."""
    epoch, row = 1, 5
    flip_byte_of_row(small, epoch, column, row, bit)
    whole, page, *replayed = verify_artifact(small, 0, relabel)
    assert (whole.file, whole.where) == (LABELS, "")
    assert (page.file, page.where) == (LABELS, f"epoch {epoch}, rows 0 to {NUM_IMAGES - 1}")
    assert f"column {column} is damaged" in page.message
    assert [f"row {row}," in problem.where for problem in replayed] == [True]


@pytest.mark.parametrize("small", ["top2"], indirect=True)
@pytest.mark.parametrize("exists", [True, False])
def test_a_changed_class_of_a_small_label_names_its_row(small, exists):
    """In a table that its manifest knows: only what the label means tells."""
    epoch, row, features = 1, 5, label_features("top2", len(CLASSES))
    table, manifest = pq.ParquetFile(small / LABELS), read_manifest(small)
    epochs = [read_label_columns(small / LABELS, table, group, manifest) for group in range(EPOCHS)]
    classes = epochs[epoch]["classes"].copy()
    classes[row, 0] = next(k for k in range(len(CLASSES)) if k not in classes[row]) if exists else 200
    epochs[epoch]["classes"] = classes
    tables = (label_table({k: torch.tensor(v) for k, v in columns.items()}, features) for columns in epochs)
    write_label_table(small, features, tables, EPOCHS, NUM_IMAGES)
    write_manifest(small, manifest)
    found = verify_artifact(small, 100, relabel)
    assert [(problem.file, f"row {row}" in problem.where) for problem in found] == [(LABELS, True)]


@pytest.mark.parametrize("small", ["none"], indirect=True)
def test_where_no_labels_are_stored_views_are_checked(small):
    assert verify_artifact(small, 100, lambda images, rows: pytest.fail("there is nothing to compare with")) == []
    flip_byte_of_row(small, 2, "image", 3, 0)
    found = verify_artifact(small, 100, relabel)
    assert places(found)[:2] == [(LABELS, ""), (LABELS, f"epoch 2, rows 0 to {NUM_IMAGES - 1}")]
    assert (LABELS, "epoch 2, row 3") in places(found)[2:]


def repackage(artifact, epoch, relabel_changes=None, **changes):
    """Write the tables again from a changed shard, with a manifest to match."""
    work = artifact.with_name("run.work")
    file = work / "soft_labels" / f"epoch{epoch:05d}.safetensors"
    save_tensors(file, load_tensors(file) | changes)
    write_tables(artifact, work, CLASSES, SIZE, IPC, EPOCHS)
    manifest = make_manifest()
    manifest.config["relabel"].update(relabel_changes or {})
    write_manifest(artifact, manifest)


def shard_of(artifact, epoch):
    return load_tensors(artifact.with_name("run.work") / "soft_labels" / f"epoch{epoch:05d}.safetensors")


def test_replay_names_labels_that_no_teacher_gave(artifact):
    shard = shard_of(artifact, 1)
    logits = shard["logits"].clone()
    logits[2] = logits[2].roll(1)
    repackage(artifact, 1, logits=logits)
    assert places(verify_artifact(artifact, 0, relabel)) == []  # the hashes agree
    found = verify_artifact(artifact, 100, relabel)
    assert places(found) == [(LABELS, f"epoch 1, step 0, row 2, image {shard['image'][2]}")]
    assert "logits differ by" in found[0].message


def test_replay_allows_what_rounding_and_other_hardware_change(artifact):
    def elsewhere(images, rows):
        logits = relabel(images, rows)
        return logits + 1e-3 * logits.abs().amax(dim=1, keepdim=True)

    assert verify_artifact(artifact, 100, elsewhere) == []


def test_replay_names_every_row_of_another_teacher(artifact):
    found = verify_artifact(artifact, 100, lambda images, rows: relabel(255 - images, rows))
    assert len(found) == NUM_IMAGES * EPOCHS


@pytest.mark.parametrize(
    ("column", "value"), [("crop", [0, 0, 9, 8]), ("image", 8), ("mix_image", -2), ("mix_box", [-1, 0, 2, 2])]
)
def test_views_outside_the_images_are_named_and_not_replayed(artifact, column, value):
    changed = shard_of(artifact, 0)[column].clone()
    changed[4] = torch.tensor(value, dtype=changed.dtype)
    repackage(artifact, 0, **{column: changed})
    found = verify_artifact(artifact, 100, relabel)
    assert [problem.where for problem in found] == ["epoch 0, row 4"]
    assert found[0].message.startswith(f"{column} is {value}")


def shuffled_shard(artifact, epoch, shift):
    """The columns of an epoch whose crops are of mosaics with other rows and columns of tiles, labelled anew."""
    shard = shard_of(artifact, epoch)
    for name in ("crop", "mix_crop"):
        shard[name][:, :2] = (shard[name][:, :2] + torch.tensor(shift)).remainder(SIZE)
    logits = relabel(all_images(), {name: column.numpy() for name, column in shard.items()})
    return {name: shard[name] for name in ("crop", "mix_crop")} | {"logits": logits.half()}


@pytest.mark.parametrize("shift", [(SIZE // 2, 0), (0, SIZE // 2), (SIZE // 2, SIZE // 2)])
def test_crops_of_shuffled_mosaics_are_replayed_where_tiles_are_shuffled(artifact, shift):
    columns = shuffled_shard(artifact, 0, shift)
    crosses = (columns["crop"][:, :2] + columns["crop"][:, 2:] > SIZE).any(dim=1).nonzero().flatten().tolist()
    repackage(artifact, 0, {"shuffle_tiles": 2}, **columns)
    assert verify_artifact(artifact, 100, relabel) == []
    repackage(artifact, 0)
    found = verify_artifact(artifact, 100, relabel)
    named = {problem.where for problem in found if problem.message.startswith("crop is")}
    assert crosses and named == {f"epoch 0, row {row}" for row in crosses}


@pytest.mark.parametrize("crop", [[2, 0, 7, 8], [0, 6, 8, 7], [8, 0, 1, 1], [-4, 0, 4, 4], [4, 4, 9, 8], [4, 4, 0, 8]])
def test_crops_that_no_shuffle_gives_are_named(artifact, crop):
    changed = shard_of(artifact, 0)["crop"].clone()
    changed[4] = torch.tensor(crop, dtype=changed.dtype)
    repackage(artifact, 0, {"shuffle_tiles": 2}, crop=changed)
    found = verify_artifact(artifact, 100, relabel)
    assert [problem.where for problem in found] == ["epoch 0, row 4"]
    assert found[0].message.startswith(f"crop is {crop}")


def test_an_image_labelled_twice_is_named(artifact):
    changed = shard_of(artifact, 0)["image"].clone()
    changed[0] = changed[1]
    repackage(artifact, 0, image=changed)
    assert [problem.where for problem in verify_artifact(artifact, 0)] == ["epoch 0, row 0", "epoch 0, row 1"]


def test_missing_unknown_and_hidden_files(artifact):
    (artifact / "recipe.yaml").unlink()
    (artifact / "notes.txt").write_text("mine")
    (artifact / ".gitattributes").write_text("hidden files are the Hub's")
    assert places(verify_artifact(artifact)) == [("notes.txt", ""), ("recipe.yaml", "")]


def test_a_missing_table_is_a_problem_not_a_crash(artifact):
    (artifact / LABELS).unlink()
    (artifact / IMAGES).unlink()
    assert places(verify_artifact(artifact, 4, relabel)) == [
        (IMAGES, ""),
        (LABELS, ""),
        ("data/", ""),
        ("soft_labels/", ""),
    ]


def test_an_unreadable_manifest_is_the_only_problem(artifact):
    write_json(artifact / "fadrm.json", {"format_version": "9.0"})
    (problem,) = verify_artifact(artifact, 4, relabel)
    assert str(problem).startswith("fadrm.json: this artifact has format 9.0")
