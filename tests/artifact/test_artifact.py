import json
import logging
from dataclasses import asdict, replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from datasets import load_dataset
from fixtures.alone import run_without_the_library
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
    make_work,
)
from torch.utils.data import DataLoader

from fadrm_hf.artifact import tables
from fadrm_hf.artifact.manifest import read_manifest, refresh_files, write_manifest
from fadrm_hf.artifact.reading import num_label_epochs, read_images, read_soft_labels
from fadrm_hf.artifact.recorded_teachers import record_teacher, recorded_labeller
from fadrm_hf.artifact.tables import label_names, write_tables
from fadrm_hf.config import RelabelConfig, SourceConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import ArtifactError, ConfigError
from fadrm_hf.hub import open_artifact
from fadrm_hf.labels.relabel import Labeller, label_epoch
from fadrm_hf.networks.model_directory import model_config, write_model_directory
from fadrm_hf.networks.teachers import load_teacher
from fadrm_hf.publishing.verify import verify_location
from fadrm_hf.report.card.writing import write_card
from fadrm_hf.runtime.files import sha256, write_json
from fadrm_hf.runtime.tensor_files import load_tensors, save_tensors
from fadrm_hf.training.loader import load_distilled

pytestmark = pytest.mark.numerical

IMAGES, LABELS = "data/train-00000-of-00001.parquet", "soft_labels/train-00000-of-00001.parquet"

READER = """
import sys
from datasets import load_dataset
images = load_dataset(folder, split="train")
labels = load_dataset(folder, "soft_labels", split="train")
assert images.features["label"].names == ["ash", "birch", "cedar", "elm"]
assert [row["label"] for row in images] == [0, 1, 2, 3] * 2 and images[3]["image"].size == (8, 8)
assert len(labels) == 24 and len(labels[0]["logits"]) == 4
one = load_dataset(folder, "soft_labels", split="train", filters=[("epoch", "==", 1)])
assert one.to_list() == [row for row in labels if row["epoch"] == 1]
assert list(load_dataset(folder, "soft_labels", split="train", streaming=True)) == list(labels)
streamed = load_dataset(folder, "soft_labels", split="train", streaming=True, filters=[("epoch", "==", 1)])
assert list(streamed) == list(one)
assert [row["label"] for row in load_dataset(folder, split="train", streaming=True)] == images["label"][:]
assert not [name for name in sys.modules if name.startswith("fadrm")]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_artifact(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def artifact(made, tmp_path):
    return copy_artifact(made, tmp_path / "run")


def edit(folder, **changes):
    path = folder / "fadrm.json"
    write_json(path, json.loads(path.read_text()) | changes)


def test_plain_datasets_reads_both_tables(artifact, tmp_path):
    (artifact / "results/fadrm-resnet18.json").unlink()
    write_card(artifact, make_manifest())
    run_without_the_library(f"folder = {str(artifact)!r}{READER}", tmp_path)


def test_tables_come_back_bit_for_bit(artifact):
    images, labels = read_images(artifact)
    assert torch.equal(images, all_images())
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert num_label_epochs(artifact) == EPOCHS
    for epoch in range(EPOCHS):
        shard = load_tensors(artifact.with_name("run.work") / "soft_labels" / f"epoch{epoch:05d}.safetensors")
        rows = read_soft_labels(artifact, epoch)
        assert rows.keys() == shard.keys()
        for name, column in rows.items():
            np.testing.assert_array_equal(column, shard[name].numpy())
    assert rows["logits"].dtype == np.float32


def test_equal_shards_give_equal_bytes(artifact, tmp_path):
    other = make_artifact(tmp_path / "again")
    assert [sha256(artifact / name) for name in (IMAGES, LABELS)] == [
        sha256(other / name) for name in (IMAGES, LABELS)
    ]


def test_layout_of_the_label_file(artifact):
    metadata = pq.ParquetFile(artifact / LABELS).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [NUM_IMAGES] * EPOCHS
    columns = {c.path_in_schema: c for c in (metadata.row_group(0).column(i) for i in range(metadata.num_columns))}
    logits = columns["logits.list.element"]
    assert (logits.compression, logits.has_dictionary_page, logits.has_offset_index) == ("ZSTD", False, True)
    assert "PLAIN" in logits.encodings
    assert not logits.is_stats_set
    assert columns["epoch"].statistics.max == 0
    split = {name for name, column in columns.items() if "BYTE_STREAM_SPLIT" in column.encodings}
    assert split == {name for name, column in columns.items() if column.physical_type == "INT32"} != set()


def test_large_tables_are_split_into_numbered_files(artifact, monkeypatch):
    work = artifact.with_name("run.work")
    monkeypatch.setattr(tables, "MAX_FILE_BYTES", 3000)  # two epochs of 1 kB
    monkeypatch.setattr(tables, "IMAGES_PER_GROUP", 3)
    write_tables(artifact, work, CLASSES, SIZE, IPC, EPOCHS)
    assert not (artifact / "fadrm.json").exists()
    write_manifest(artifact, make_manifest())
    assert [file.name for file in sorted((artifact / "soft_labels").iterdir())] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert [pq.ParquetFile(file).metadata.num_rows for file in sorted((artifact / "data").iterdir())] == [6, 2]
    assert torch.equal(read_images(artifact)[0], all_images())
    assert read_soft_labels(artifact, 2)["epoch"].tolist() == [2] * NUM_IMAGES


@pytest.mark.parametrize(("least", "sizes"), [(8_000_000, [3]), (2_000, [2, 1]), (1_000, [1, 1, 1])])
def test_soft_labels_are_in_as_many_files_as_are_worth_it(least, sizes, artifact, monkeypatch):
    """By whole epochs, wherever they are written; every reader gives what it gives of one file."""
    expected = [read_soft_labels(artifact, epoch) for epoch in range(EPOCHS)]
    trained = list(load_distilled(artifact).batches(range(EPOCHS)))
    monkeypatch.setattr(tables, "MIN_LABEL_FILE_BYTES", least)
    for folder in (artifact, artifact.with_name("again")):
        write_tables(folder, artifact.with_name("run.work"), CLASSES, SIZE, IPC, EPOCHS)
    write_manifest(artifact, make_manifest())
    files = sorted((artifact / "soft_labels").iterdir())
    assert [pq.ParquetFile(file).num_row_groups for file in files] == sizes
    assert [file.read_bytes() for file in files] == [
        file.read_bytes() for file in sorted((artifact.with_name("again") / "soft_labels").iterdir())
    ]
    manifest = read_manifest(artifact)
    assert {f"soft_labels/{file.name}" for file in files} <= manifest.files.keys()
    assert manifest.bytes.soft_labels == sum(file.stat().st_size for file in files)
    for epoch, columns in enumerate(expected):
        found = read_soft_labels(artifact, epoch)
        assert all(np.array_equal(found[name], column) for name, column in columns.items())
    for streaming in (False, True):
        batches = list(load_distilled(artifact, streaming=streaming).batches(range(EPOCHS)))
        assert all(all(map(torch.equal, *pair)) for pair in zip(batches, trained, strict=True))


def test_a_large_table_has_eight_files_and_a_huge_one_more():
    assert tables._groups_per_file(300, 240_000, num_files=8) == 38  # CIFAR-100, IPC 10: eight files of 9 MB
    assert tables._groups_per_file(300, 20_500_000, num_files=8) == 24  # ImageNet-1k: 13 files of 492 MB
    assert tables._groups_per_file(3, 10**9, num_files=3) == 1


def test_several_workers_stream_soft_labels(artifact, monkeypatch):
    monkeypatch.setattr(tables, "MIN_LABEL_FILE_BYTES", 1)
    write_tables(artifact, artifact.with_name("run.work"), CLASSES, SIZE, IPC, EPOCHS)
    (artifact / "results/fadrm-resnet18.json").unlink()
    write_card(artifact, make_manifest())
    rows = load_dataset(str(artifact), "soft_labels", split="train", streaming=True)
    assert rows.num_shards == EPOCHS
    seen = [(row["epoch"], row["image"]) for row in DataLoader(rows, batch_size=None, num_workers=2)]
    assert sorted(seen) == [(epoch, image) for epoch in range(EPOCHS) for image in range(NUM_IMAGES)]


def test_one_shard_at_a_time_is_in_memory(artifact, monkeypatch):
    """The table of an epoch is written out before the shard of the next is read."""
    events = []
    read, write = tables.SoftLabels.read_table, pq.ParquetWriter.write_table
    monkeypatch.setattr(tables.SoftLabels, "read_table", lambda *a: events.append("read") or read(*a))
    monkeypatch.setattr(pq.ParquetWriter, "write_table", lambda *a, **k: events.append("write") or write(*a, **k))
    write_tables(artifact, artifact.with_name("run.work"), CLASSES, SIZE, IPC, EPOCHS)
    assert events == ["write"] + ["read", "write"] * EPOCHS  # the images, then epoch by epoch


def test_classes_of_one_name_are_told_apart():
    assert label_names(ClassMap(("n1", "n2", "n3"), ("crane", "crane", "kite"))) == [
        "crane (n1)",
        "crane (n2)",
        "kite",
    ]


def test_the_manifest_comes_back_as_it_was(artifact):
    manifest = read_manifest(artifact)
    assert replace(manifest, files={}, bytes=make_manifest().bytes, digest="") == make_manifest()
    assert set(manifest.files) == {
        "README.md",
        "assets/grid.png",
        IMAGES,
        LABELS,
        "recipe.yaml",
        "results/fadrm-resnet18.json",
        "teachers/narrow/config.json",
        "teachers/narrow/model.safetensors",
    }
    assert manifest.files[IMAGES].sha256 == sha256(artifact / IMAGES)
    assert manifest.bytes.soft_labels == (artifact / LABELS).stat().st_size
    assert manifest.num_images == NUM_IMAGES


def test_refreshing_takes_up_results_and_card_but_no_changed_table(artifact):
    before = read_manifest(artifact).files
    (artifact / "README.md").write_text("# Another card\n")
    write_json(artifact / "results/more.json", {})
    (artifact / IMAGES).write_bytes(b"damaged")
    after = refresh_files(artifact).files
    assert after["README.md"].sha256 == sha256(artifact / "README.md")
    assert "results/more.json" in after
    assert after[IMAGES] == before[IMAGES]


def test_unknown_keys_are_ignored_with_a_warning_in_the_log(artifact, caplog):
    edit(artifact, colour="blue", format_version="1.7")
    with caplog.at_level(logging.WARNING):
        assert read_manifest(artifact).ipc == IPC
    assert "does not know: colour" in caplog.text


def test_a_newer_major_version_is_refused_with_the_upgrade(artifact):
    edit(artifact, format_version="2.0")
    with pytest.raises(ArtifactError, match=r"format 2\.0.*pip install -U"):
        read_manifest(artifact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ipc": "two"}, "ipc = 'two', expected int"),
        ({"ipc": True}, "ipc = True, expected int"),
        ({"format_version": 1}, "format_version 1"),
        ({"classes": {"ids": ["a"], "names": [], "hash": ""}}, "1 class ids for 0 names"),
        ({"classes": {"ids": ["a", 3], "names": [], "hash": ""}}, r"classes.ids\[1\] = 3, expected str"),
        ({"source": {"name": "x"}}, "lacks source.fingerprint"),
        ({"stages": {"recover": 3}}, r"stages\['recover'\] = 3, expected StageRecord"),
        ({"files": []}, r"files = \[\], expected dict"),
    ],
)
def test_wrong_values_are_named(artifact, changes, message):
    edit(artifact, **changes)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(artifact)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_manifest_is_refused(artifact, content):
    (artifact / "fadrm.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="fetch the artifact again"):
        read_manifest(artifact)


def test_a_folder_without_manifest_is_unfinished(tmp_path):
    with pytest.raises(ArtifactError, match=r"has no fadrm\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "data/../../secret", "c:\\secret", "", "a\\b", "a\0b"])
def test_paths_that_lead_out_of_the_artifact_are_refused(artifact, name):
    edit(artifact, files={name: {"sha256": "0", "bytes": 0}})
    with pytest.raises(ArtifactError, match="expected a path inside the artifact"):
        read_manifest(artifact)


def test_symbolic_links_are_refused(artifact, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (artifact / "README.md").unlink()
    (artifact / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match=r"'README\.md', which is a symbolic link"):
        read_manifest(artifact)


def test_the_hubs_cache_of_links_to_blobs_is_read(artifact, tmp_path):
    snapshot, blobs = tmp_path / "cache/snapshots/abc", tmp_path / "cache/blobs"
    blobs.mkdir(parents=True)
    for index, file in enumerate(sorted(path for path in artifact.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(artifact)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.replace(blobs / str(index)))
    assert read_manifest(snapshot).ipc == IPC
    assert torch.equal(read_images(snapshot)[0], all_images())


@pytest.mark.parametrize(
    ("name", "read"), [(IMAGES, read_images), (LABELS, lambda folder: read_soft_labels(folder, 0))]
)
@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing else", None])
def test_damaged_parquet_is_named(artifact, name, read, content):
    whole = (artifact / name).read_bytes()
    flipped = whole[:60] + bytes([whole[60] ^ 1]) + whole[61:]
    (artifact / name).write_bytes(flipped if content is None else content)
    with pytest.raises(ArtifactError, match=rf"{name}.*is damaged.*fetch the artifact again"):
        read(artifact)


def test_tables_that_are_not_what_the_manifest_says_are_refused(artifact):
    edit(artifact, ipc=3)
    with pytest.raises(ArtifactError, match=r"data/ has 8 rows, fadrm.json says 12"):
        read_images(artifact)
    with pytest.raises(ArtifactError, match=r"row group 0 has 8 rows"):
        read_soft_labels(artifact, 0)


def test_images_of_another_size_are_refused_before_they_are_decoded(artifact):
    edit(artifact, pixels={"size": 16, "mean": [0.5] * 3, "std": [1.0] * 3})
    with pytest.raises(ArtifactError, match=r"an image is RGB \(8, 8\), expected RGB \(16, 16\)"):
        read_images(artifact)


def test_an_epoch_that_is_not_there_is_refused(artifact):
    with pytest.raises(ArtifactError, match=r"epoch 3 is asked for, .* epochs 0 to 2"):
        read_soft_labels(artifact, 3)


def test_a_missing_file_of_a_set_is_refused(artifact):
    (artifact / LABELS).rename(artifact / "soft_labels/train-00001-of-00002.parquet")
    with pytest.raises(ArtifactError, match="expected all of a numbered set"):
        num_label_epochs(artifact)


def test_packaging_again_after_an_interruption_leaves_no_trace(artifact):
    before = read_manifest(artifact)
    (artifact / "soft_labels" / "train-00000-of-00007.parquet").write_bytes(b"left over")
    write_tables(artifact, make_work(artifact.with_name("run.work")), CLASSES, SIZE, IPC, EPOCHS)
    assert write_manifest(artifact, make_manifest()) == before


SOURCE = SourceConfig(name="example/trees", size=SIZE, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))
VOTES = (0.9, 0.6, 0.7)
FP16_ULP = 2.0**-10  # of a value


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Three untrained networks on disk, with votes."""
    folder, loaded = tmp_path_factory.mktemp("teachers"), []
    for seed, vote in enumerate(VOTES):
        torch.manual_seed(seed)
        network = timm.create_model("resnet10_narrow", num_classes=len(CLASSES)).eval()
        write_model_directory(network, model_config(network, "resnet10_narrow", CLASSES, SOURCE), folder / str(seed))
        loaded.append(replace(load_teacher(f"timm/local-dir:{folder / str(seed)}"), vote=vote))
    return loaded


def labelled_by(teachers, folder, relabel):
    """An artifact whose soft labels these teachers made."""
    make_work(folder.with_name("run.work"))
    labeller = Labeller(teachers, relabel, SOURCE.mean, SOURCE.std, torch.device("cpu"))
    for epoch in range(EPOCHS):
        table = label_epoch(all_images(), labeller, relabel, 0, epoch)
        save_tensors(
            folder.with_name("run.work") / f"soft_labels/epoch{epoch:05d}.safetensors",
            table | {"logits": table["logits"].half()},
        )
    write_tables(folder, folder.with_name("run.work"), CLASSES, SIZE, IPC, EPOCHS)
    manifest = make_manifest()
    manifest.config.update(relabel=asdict(relabel), source=asdict(SOURCE))
    return write_manifest(folder, replace(manifest, teachers=tuple(record_teacher(folder, t) for t in teachers)))


@pytest.mark.parametrize(
    "changes",
    [{"ensemble": "votes"}, {"ensemble": "frobenius", "num_teachers": 2}, {"num_teachers": 1, "shuffle_tiles": 2}],
    ids=["votes", "frobenius of two", "the first, shuffled"],
)
def test_labels_of_several_teachers_are_verified_and_made_again(changes, teachers, tmp_path):
    folder = tmp_path / "run"
    relabel = RelabelConfig(epochs=EPOCHS, batch_size=4, flip_probability=0.5, **changes)
    manifest = labelled_by(teachers, folder, relabel)
    assert [record.vote for record in read_manifest(folder).teachers] == list(VOTES)
    assert verify_location(open_artifact(str(folder)), 100) == []
    stored, online = (load_distilled(folder, online=online).batches(range(EPOCHS)) for online in (False, True))
    for made, kept in zip(online, stored, strict=True):  # a convolution of another number of images may round anew
        torch.testing.assert_close(made.logits.half(), kept.logits.half(), rtol=FP16_ULP, atol=1e-4)

    other = replace(manifest, config=manifest.config | {"relabel": asdict(replace(relabel, ensemble="mean"))})
    if relabel.ensemble != "mean":
        write_manifest(folder, other)
        found = verify_location(open_artifact(str(folder)), 100)
        assert found and all("logits differ" in problem.message for problem in found)


def test_recorded_teachers_label_in_another_way_if_asked(teachers, tmp_path):
    relabel = RelabelConfig(epochs=EPOCHS, batch_size=4, flip_probability=0.5)
    manifest = labelled_by(teachers, tmp_path / "run", relabel)
    cpu, shown = torch.device("cpu"), torch.zeros(4, 3, SIZE, SIZE)
    shown[1:] += torch.arange(1, 4).view(3, 1, 1, 1) / 10
    own = replace(relabel, num_teachers=1, batch_statistics=False)
    labels = recorded_labeller(tmp_path / "run", manifest, cpu, own).label_rendered(shown)
    torch.testing.assert_close(labels, teachers[0].module(shown), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="num_teachers is 4, expected at most 3"):
        recorded_labeller(tmp_path / "run", manifest, cpu, replace(relabel, num_teachers=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_teachers": 4}, "relabel.num_teachers is 4, expected at most 3"),
        ({"ensemble": "votes"}, "needs the vote of every teacher"),
    ],
)
def test_teachers_that_cannot_have_labelled_are_named_before_one_is_loaded(changes, message, teachers, tmp_path):
    relabel = RelabelConfig(epochs=EPOCHS, batch_size=4, flip_probability=0.5)
    silent = [replace(teacher, vote=None) for teacher in teachers]
    manifest = labelled_by(silent, tmp_path / "run", relabel)
    config = manifest.config | {"relabel": asdict(replace(relabel, **changes))}
    gone = tuple(replace(record, path="teachers/gone") for record in manifest.teachers)
    damaged = write_manifest(tmp_path / "run", replace(manifest, config=config, teachers=gone))
    with pytest.raises(ArtifactError, match=f"is damaged, its teachers cannot have made its labels.*{message}"):
        recorded_labeller(tmp_path / "run", damaged, torch.device("cpu"))
    (problem,) = verify_location(open_artifact(str(tmp_path / "run")), 100)
    assert (problem.file, problem.where) == ("fadrm.json", "teachers")


@pytest.mark.parametrize("vote", [-0.1, 90.0, float("nan")])
def test_a_vote_that_is_no_fraction_is_refused(vote, artifact):
    manifest = make_manifest()
    write_manifest(artifact, replace(manifest, teachers=(replace(manifest.teachers[0], vote=vote),)))
    with pytest.raises(ArtifactError, match=r"vote = .* for teacher 'squeeze/resnet10_narrow', expected a fraction"):
        read_manifest(artifact)


def test_an_artifact_from_before_teachers_voted_loads(artifact):
    """Its manifest says nothing of votes, of how many teachers label, and how, nor of shuffled tiles."""
    document = json.loads((artifact / "fadrm.json").read_text())
    for record in document["teachers"]:
        del record["vote"]
    assert document["config"]["relabel"].keys() == {"epochs", "batch_size", "accumulation", "batch_statistics"}
    write_json(artifact / "fadrm.json", document)
    manifest = read_manifest(artifact)
    assert manifest.teachers == make_manifest().teachers
    relabel = manifest.settings("relabel", RelabelConfig)
    assert (relabel.num_teachers, relabel.ensemble, relabel.shuffle_tiles) == (None, "mean", 1)
    assert [len(batch.logits) for batch in load_distilled(artifact).batches(range(1))] == [4, 4]
