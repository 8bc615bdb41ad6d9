"""Artifacts made to do harm, built for real: refused from a folder and from the Hub, by loading and by verifying.

Whoever made them knows the hashes: every manifest fits its files, so that only the harm itself can give it away.
"""

import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from fixtures import artifacts
from fixtures.limited import hold, read_everything, refusal, verify
from fixtures.mistakes import contents
from fixtures.runs import files_of
from fixtures.tables import LABELS, edit_manifest, groups_of, put, rehash, write_groups

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main
from fadrm_hf.errors import ArtifactError, FadrmError
from fadrm_hf.hub import open_artifact
from fadrm_hf.training.loader import load_distilled

IMAGES = "data/train-00000-of-00001.parquet"
REPO = "mallory/trees"
ROWS, CLASSES = 8, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return artifacts.make_artifact(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def artifact(made, tmp_path):
    return artifacts.copy_artifact(made, tmp_path / "run")


class Payload:
    """What a pickle may do when it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def png(width, height, depth=8, colour=2, data=b""):
    """A picture whose header may say anything."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def with_images(folder, change, **options):
    """Replace rows of the images table; `change` gets them as a list of dictionaries."""
    (group,) = groups_of(folder / IMAGES)
    rows = group.to_pylist()
    change(rows)
    write_groups(folder / IMAGES, [pa.Table.from_pylist(rows, schema=group.schema)], **options)
    rehash(folder)


def with_picture(content):
    def change(rows):
        rows[5]["image"] = content if content is None else {"bytes": content, "path": None}

    return lambda folder: with_images(folder, change)


def with_labels(change):
    """Replace the row group of epoch 1."""

    def apply(folder):
        groups = groups_of(folder / LABELS)
        groups[1] = change(groups[1])
        write_groups(folder / LABELS, groups)
        rehash(folder)

    return apply


def with_value(column, row, value):
    """Set one value of epoch 1, of the same type."""

    def change(group):
        values = group[column].to_pylist()
        values[row] = value
        changed = pa.array(values, type=group.schema.field(column).type)
        return group.set_column(group.schema.get_field_index(column), group.schema.field(column), changed)

    return with_labels(change)


def with_logit(row, place, value):
    def change(group):
        values = group["logits"].to_pylist()
        values[row][place] = value
        changed = pa.array(values, type=group.schema.field("logits").type)
        return group.set_column(group.schema.get_field_index("logits"), group.schema.field("logits"), changed)

    return with_labels(change)


def with_column(name, kind):
    """Give a column another type in all epochs, in the file's own description too."""

    def apply(folder):
        groups = groups_of(folder / LABELS)
        index = groups[0].schema.get_field_index(name)
        width = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        value = [1.0] * width if width else 1
        arrays = pa.array([value] * ROWS, type=kind)
        groups = [group.set_column(index, pa.field(name, kind), arrays) for group in groups]
        write_groups(folder / LABELS, [group.replace_schema_metadata(None) for group in groups])
        rehash(folder)

    return apply


def without_last_row(folder):
    groups = groups_of(folder / LABELS)
    write_groups(folder / LABELS, [groups[0], groups[1][:-1], groups[2]])
    rehash(folder)


def without_last_epoch(folder):
    write_groups(folder / LABELS, groups_of(folder / LABELS)[:2])
    rehash(folder)


def truncated(name):
    def apply(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])
        rehash(folder)

    return apply


# What is wrong, how it is done, and what every reader says of it.
IN_TABLES = {
    "a logit that is no number": (with_logit(3, 2, float("nan")), "epoch 1, row 3: holds no label"),
    "an infinite logit": (with_logit(3, 2, float("inf")), "epoch 1, row 3: holds no label"),
    "a missing logit": (with_logit(3, 2, None), "row group 1 is damaged: row 3 has no logits"),
    "missing logits": (with_value("logits", 3, None), "row group 1 is damaged: row 3 has no logits"),
    "a missing image": (with_value("image", 6, None), "row group 1 is damaged: row 6 has no image"),
    "an image outside": (with_value("image", 2, 8), "epoch 1, row 2: image is 8"),
    "a negative image": (with_value("image", 2, -1), "epoch 1, row 2: image is -1"),
    "a partner outside": (with_value("mix_image", 2, 99), "epoch 1, row 2: mix_image is 99"),
    "a crop outside": (with_value("crop", 4, [0, 0, 9, 8]), "epoch 1, row 4: crop is"),
    "a crop of nothing": (with_value("crop", 4, [0, 0, 0, 8]), "epoch 1, row 4: crop is"),
    "a crop that overflows": (with_value("crop", 4, [32767, 0, 32767, 8]), "epoch 1, row 4: crop is"),
    "a box outside": (with_value("mix_box", 4, [-1, 0, 2, 2]), "epoch 1, row 4: mix_box is"),
    "another epoch": (with_value("epoch", 0, 7), "epoch 1, row 0: epoch is 7"),
    "another step": (with_value("step", 7, 10**9), "epoch 1, row 7: step is 1000000000"),
    "logits of another type": (with_column("logits", pa.list_(pa.float64(), CLASSES)), "another .*logits"),
    "too many logits": (with_column("logits", pa.list_(pa.float16(), CLASSES + 1)), "another .*logits"),
    "a single logit": (with_column("logits", pa.float16()), "another .*logits"),
    "images as text": (with_column("image", pa.float32()), "another .*image"),
    "a row too few": (without_last_row, "row group 1 has 7 rows, expected a view of each of 8 images"),
    "an epoch too few": (without_last_epoch, "epoch 2 was requested|has 2 epochs, expected 3"),
    "truncated labels": (truncated(LABELS), f"{LABELS} is damaged"),
    "truncated images": (truncated(IMAGES), f"{IMAGES} is damaged"),
    "an image of 10^9 pixels": (with_picture(png(31623, 31623)), r"row 5.*\(31623, 31623\), expected RGB"),
    "an image of a pixel": (with_picture(png(1, 1)), r"row 5.*\(1, 1\)"),
    "a grey image": (with_picture(png(8, 8, 8, 0, b"\0" * 72)), "row 5.*(of colour type 0|expected RGB)"),
    "an image that stops": (with_picture(png(8, 8)), "row 5"),
    "an image of another format": (with_picture(b"GIF89a" + b"\0" * 64), "row 5"),
    "an image that is not there": (with_picture(None), "row 5"),
    "a wrong label": (lambda folder: with_images(folder, lambda rows: rows[2].update(label=3)), "row 2.*label"),
    "an image too few": (lambda folder: with_images(folder, lambda rows: rows.pop()), "7 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", IN_TABLES)
def test_tables_that_lie_are_refused(hub, artifact, capsys, monkeypatch, tmp_path, case):
    change, message = IN_TABLES[case]
    try:
        change(artifact)
    except pa.ArrowNotImplementedError as error:  # pyarrow 21 to 24 write no missing list of fixed length
        pytest.skip(f"pyarrow {pa.__version__} cannot write such a table: {error}")
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    name = put(hub, REPO, artifact)
    for place, streaming in ((artifact, False), (name, False), (name, True)):
        with pytest.raises(FadrmError, match=message):
            list(load_distilled(place, streaming=streaming).batches(range(3)))
    for place in (str(artifact), name):
        capsys.readouterr()
        assert main(["verify", place, "--num_steps=0", "--leakage=false"]) == 1
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err + shown.out
    assert contents(tmp_path) == before


OUTSIDE = [
    "../../../escaped",
    "/tmp/escaped",
    "..\\escaped",
    "C:\\escaped",
    "c:escaped",
    "data/../../escaped",
    "",
    "a\0b",
]


@pytest.mark.parametrize("where", ["files", "teachers"])
@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_that_lead_out_of_the_artifact_are_refused(hub, artifact, capsys, path, where):
    document = json.loads((artifact / "fadrm.json").read_text())
    if where == "files":
        edit_manifest(artifact, files=document["files"] | {path: {"sha256": "0" * 64, "bytes": 1}})
    else:
        edit_manifest(artifact, teachers=[document["teachers"][0] | {"path": path}])
    hub.put(REPO, files_of(artifact) | ({path: b"#!/bin/sh\n"} if path else {}), keep=False)
    for name in (artifact, REPO):
        for read in (open_artifact, load_distilled):
            with pytest.raises(ArtifactError, match="expected a path inside the artifact"):
                read(name)
        assert main(["verify", str(name)]) == 2
        assert "expected a path inside the artifact" in capsys.readouterr().err.replace("\n", " ")
    home = Path(os.environ["HF_HOME"])
    assert not list(home.rglob("*escaped*"))
    assert not [parent for parent in (*home.parents, *artifact.parents, Path()) if (parent / "escaped").exists()]


@pytest.mark.parametrize("file", ["model.pkl", "teachers/narrow/pytorch_model.bin", "weights.pth", "loading.py"])
@pytest.mark.parametrize("listed", [True, False])
def test_repositories_with_code_or_pickles_are_refused_unread(
    hub, artifact, capsys, monkeypatch, tmp_path, file, listed
):
    monkeypatch.chdir(tmp_path)
    (artifact / file).write_bytes(pickle.dumps(Payload()))
    if listed:
        rehash(artifact)
    name = put(hub, REPO, artifact)
    hub.requests.clear()
    for read in (open_artifact, load_distilled):
        with pytest.raises(ArtifactError, match=f"{file}: files that can carry code"):
            read(name)
    assert main(["verify", name]) == 2
    assert "files that can carry code" in capsys.readouterr().err.replace("\n", " ")
    assert not [request for request in hub.requests if "/resolve/" in request]
    load_distilled(artifact)  # a folder is one's own; still nothing in it is executed
    main(["verify", str(artifact), "--leakage=false"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", [IMAGES, LABELS, "data", "teachers/narrow/model.safetensors"])
def test_links_that_lead_out_of_a_folder_are_refused(artifact, tmp_path, name):
    (artifact / name).rename(tmp_path / "elsewhere")
    (artifact / name).symlink_to(tmp_path / "elsewhere")
    for read in (open_artifact, load_distilled):
        with pytest.raises(ArtifactError, match="symbolic link"):
            read(artifact)
    assert main(["verify", str(artifact)]) == 2


def test_a_linked_table_that_no_manifest_names_is_refused(artifact, tmp_path):
    for index in range(2):
        (artifact / IMAGES).with_name(f"train-{index:05d}-of-00002.parquet").symlink_to(artifact / IMAGES)
    manifest = read_manifest(artifact)
    (tmp_path / "images").write_bytes((artifact / IMAGES).read_bytes())
    files = {name: record for name, record in manifest.files.items() if name != IMAGES}
    (artifact / IMAGES).unlink()
    edit_manifest(artifact, files={name: vars(record) for name, record in files.items()})
    with pytest.raises(ArtifactError, match="symbolic link"):
        load_distilled(artifact)


def test_a_manifest_of_a_gigabyte_is_not_read(artifact):
    with open(artifact / "fadrm.json", "r+b") as file:
        file.truncate(1 << 30)
    for read in (open_artifact, load_distilled):
        with pytest.raises(ArtifactError, match="has 1,073,741,824 bytes, expected at most"):
            read(artifact)
    assert "has 1,073,741,824 bytes" in refusal(256, read_everything, str(artifact))


def test_a_large_manifest_is_not_fetched(hub, artifact, capsys):
    hub.put(REPO, files_of(artifact) | {"fadrm.json": b" " * ((64 << 20) + 1)}, keep=False)
    for read in (open_artifact, load_distilled):
        with pytest.raises(ArtifactError, match="has 67,108,865 bytes, expected at most 67,108,864; it is not read"):
            read(REPO)
    assert main(["verify", REPO]) == 2
    assert "67,108,865" in capsys.readouterr().err
    assert not [request for request in hub.requests if "/resolve/" in request]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ipc": 0}, "ipc = 0, expected at least 1"),
        ({"ipc": -2}, "ipc = -2, expected at least 1"),
        ({"label_epochs": 0}, "label_epochs = 0"),
        ({"pixels": {"size": 31623, "mean": [0.5] * 3, "std": [1.0] * 3}}, "pixels.size = 31,623, expected at most"),
        ({"pixels": {"size": 8, "mean": [0.5] * 3, "std": [0.0] * 3}}, "the std positive"),
        ({"pixels": {"size": 8, "mean": [float("nan")] * 3, "std": [1.0] * 3}}, "the std positive"),
        ({"pixels": {"size": 8, "mean": [0.5], "std": [1.0]}}, "three numbers"),
        ({"label_codec": "pickle"}, "unknown label codec 'pickle'"),
        ({"config": {"relabel": {"batch_size": "many"}}}, "unusable settings in config.relabel"),
        ({"config": {"relabel": {"batch_size": -4}}}, "unusable settings in config.relabel"),
        ({"config": {}}, "config.relabel = None"),
        ({"ipc": 10**15}, r"data/ has 8 rows"),
    ],
)  # fmt: skip
def test_manifests_of_impossible_runs_are_refused(artifact, changes, message):
    edit_manifest(artifact, **changes)
    with pytest.raises(ArtifactError, match=message):
        load_distilled(artifact)
    assert main(["verify", str(artifact), "--leakage=false"]) in (1, 2)


def test_tables_far_larger_than_the_manifest_implies_are_not_fetched(hub, artifact):
    for name in (IMAGES, LABELS):
        files = {n: vars(record) for n, record in read_manifest(artifact).files.items()}
        files[name] = files[name] | {"bytes": 10**13}
        copy = artifacts.copy_artifact(artifact, artifact.with_name(name.replace("/", "-")))
        edit_manifest(copy, files=files)
        put(hub, REPO, copy)
        hub.requests.clear()
        for place in (copy, REPO):
            for read in (open_artifact, load_distilled):
                with pytest.raises(ArtifactError, match=r"10,000,000,000,000 bytes, expected about"):
                    read(place)
            assert main(["verify", str(place)]) == 2
        assert not [request for request in hub.requests if "/resolve/" in request and "fadrm.json" not in request]


def test_little_bytes_that_unpack_to_many_are_refused_in_little_memory(artifact):
    bomb = b"\0" * (300 << 20)
    with_images(
        artifact, lambda rows: rows[5].update(image={"bytes": png(8, 8) + bomb, "path": None}), compression="zstd"
    )
    assert (artifact / IMAGES).stat().st_size < 1 << 20
    message = r"row group 0 declares 314,\d{3},\d{3} bytes, expected about"
    with pytest.raises(ArtifactError, match=message):
        load_distilled(artifact)
    for function in (read_everything, verify):
        assert "declares 314," in refusal(128, function, str(artifact))


def test_a_picture_that_unpacks_to_much_is_refused_in_little_memory(artifact):
    with_picture(png(31623, 31623, data=b"\0" * (40 << 20)))(artifact)
    for function in (read_everything, verify):
        assert "row 5" in refusal(128, function, str(artifact))


def test_the_limit_of_these_tests_holds():
    with pytest.raises(AssertionError, match="ended with 1"):
        refusal(128, hold, 300)
