"""A gallery's files: what they show, against the artifact's own tables; that they are the same each time, and safe."""

import io
import json
import math
import shutil
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.artifacts import NUM_IMAGES, SIZE, all_images
from fixtures.galleries import (
    CLASSES,
    HOSTILE,
    evaluation,
    gallery_manifest,
    make_gallery,
    read_script,
    snapshot_images,
    tile,
)
from fixtures.runs import copy_artifact, copy_run, files_of, work_of
from PIL import Image

from fadrm_hf.artifact.manifest import PixelRecord, read_manifest
from fadrm_hf.artifact.reading import read_images, read_soft_labels
from fadrm_hf.cli import main
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.errors import ArtifactError
from fadrm_hf.evaluation.results import record_result
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.publishing.verify import verify_artifact
from fadrm_hf.report.card.text import size
from fadrm_hf.report.gallery.serving import served
from fadrm_hf.report.gallery.sheets import THUMBNAIL_PIXELS, WHOLE_PIXELS, Pictures, read_pictures
from fadrm_hf.report.gallery.writing import refresh_gallery, write_gallery
from fadrm_hf.runtime.tensor_files import load_tensors

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_gallery(tmp_path_factory.mktemp("gallery") / "trees")


@pytest.fixture
def artifact(made, tmp_path):
    return copy_artifact(made, tmp_path)


def sheet(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def pixels(images: torch.Tensor) -> np.ndarray:
    """(n, 3, S, S) -> (n, S, S, 3)."""
    return images.permute(0, 2, 3, 1).numpy()


def gallery_of(folder: Path) -> dict[str, bytes]:
    return files_of(folder / "gallery")


# What is shown


def test_a_run_ends_with_a_gallery_whose_images_are_its_own(finished):
    """Twenty images of ten classes on one sheet: class after class, five to a line."""
    assert verify_artifact(finished, 0) == []
    record = read_pictures(finished / "gallery")
    assert record is not None and record.is_whole and [stage.name for stage in record.stages] == ["start", "recovered"]
    recovered, _ = read_images(finished)
    starts = torch.empty_like(recovered)
    for file in (work_of(finished) / "patches").glob("*.safetensors"):
        shard = load_tensors(file)
        starts[shard["ipc_index"] * 10 + shard["label"]] = shard["images"]
    for name, images in (("start", starts), ("recovered", recovered)):
        shown = sheet(finished / f"gallery/{name}-00000.webp")
        assert shown.shape == (4 * 16, 5 * 16, 3)
        for row, expected in enumerate(pixels(images)):
            ipc_index, label = divmod(row, 10)
            assert np.array_equal(tile(shown, 16, 5, 2 * label + ipc_index), expected), row


def test_stages_follow_the_optimisation(made):
    record = read_pictures(made / "gallery")
    assert record is not None
    assert [stage.title for stage in record.stages] == [
        "real patch",
        "iteration 500, before the residual",
        "iteration 500, after the residual",
        "recovered image",
    ]
    assert [stage.rows for stage in record.stages] == [None, (0, 1, 2, 3), (0, 1, 2, 3), None]
    for place in (1, 2):
        shown = sheet(made / "gallery" / record.stages[place].files[0])
        for index, expected in enumerate(pixels(snapshot_images(place))):
            assert np.array_equal(tile(shown, SIZE, 2, index), expected)


def test_views_are_those_that_are_stored(finished):
    views = read_script(finished / "gallery/views.js")
    names = ("crop", "flip", "mix_image", "mix_crop", "mix_flip", "mix_box")
    assert sorted(map(int, views)) == list(range(20))
    for epoch in range(4):
        rows = read_soft_labels(finished, epoch)
        shares = torch.from_numpy(rows["logits"]).double().softmax(1)
        for index, image in enumerate(rows["image"].tolist()):
            view = views[str(image)][epoch]
            crop, flip, partner, *mixed = (rows[name][index].tolist() for name in names)
            assert (view["epoch"], view["crop"], view["flip"]) == (epoch, crop, flip)
            assert view["mix"] == dict(zip(("row", "crop", "flip", "box"), (partner, *mixed), strict=True))
            best = shares[index].sort(descending=True, stable=True)  # of equal ones the first comes first
            assert [label for label, _ in view["top"]] == best.indices[:5].tolist()
            np.testing.assert_allclose([share for _, share in view["top"]], best.values[:5], atol=5.1e-5)


def test_views_of_every_class_are_sampled_where_images_are_many(artifact, monkeypatch):
    # Of four classes: two epochs of five images.
    monkeypatch.setattr("fadrm_hf.report.gallery.stored_views._MOST_VIEWS", 10)
    write_gallery(artifact, read_manifest(artifact))
    views = read_script(artifact / "gallery/views.js")
    assert {row: [view["epoch"] for view in found] for row, found in views.items()} == {
        str(row): [0, 1] for row in range(5)
    }


@pytest.mark.parametrize(
    ("classes", "ipc", "size", "stages", "side"),
    [
        (10, 50, 32, 2, 32),
        (1000, 1, 64, 2, 64),
        (1000, 10, 224, 2, 128),
        (1000, 50, 224, 2, 64),
        (10450, 20, 224, 2, 24),
        (3, 1, 8000, 2, 160),
    ],
)
def test_pictures_are_bounded_whatever_the_dataset(classes, ipc, size, stages, side):
    ids = tuple(map(str, range(classes)))
    manifest = gallery_manifest(ClassMap(ids, ids))
    manifest = replace(manifest, ipc=ipc, pixels=PixelRecord(size, (0.5,) * 3, (1.0,) * 3))
    num_images = classes * ipc * stages
    pictures = Pictures.plan(manifest, num_images)
    assert pictures.side == side
    assert num_images * side**2 <= (WHOLE_PIXELS if pictures.is_whole else THUMBNAIL_PIXELS)
    assert pictures.num_sheets * pictures.classes_per_sheet >= classes
    assert math.ceil(pictures.classes_per_sheet * ipc / pictures.columns) * side < 2**14  # WebP's limit
    assert pictures.columns * side < 2**14 and pictures.num_sheets < 300


def test_thumbnails_are_small_pictures_of_the_same_images(artifact, monkeypatch):
    monkeypatch.setattr("fadrm_hf.report.gallery.sheets.WHOLE_PIXELS", 100)
    monkeypatch.setattr("fadrm_hf.report.gallery.sheets._SIDES", (8, 4))
    monkeypatch.setattr("fadrm_hf.report.gallery.sheets.THUMBNAIL_PIXELS", NUM_IMAGES * 2 * 4**2)
    shutil.rmtree(artifact / "gallery")
    write_gallery(artifact, read_manifest(artifact))
    record = read_pictures(artifact / "gallery")
    assert record is not None and (record.side, record.is_whole) == (4, False)
    shown = sheet(artifact / "gallery/recovered-00000.webp")
    for row, image in enumerate(pixels(all_images())):
        position = row % 4 * 2 + row // 4
        found, expected = tile(shown, 4, record.columns, position), image.reshape(4, 2, 4, 2, 3).mean((1, 3))
        assert abs(found.mean() - expected.mean()) < 20, row  # noise, lossy: its brightness is what is left


def test_random_real_images_stand_alone(finished_random_real):
    facts = read_script(finished_random_real / "gallery/data.js")
    assert [stage["title"] for stage in facts["pictures"]["stages"]] == ["image"] and not facts["isDistilled"]


WNIDS = ClassMap(*[("n01440764", "n02012849", "n03126707", "n99999999")] * 2)


def test_classes_that_are_called_by_wnids_are_named_in_words_too(tmp_path):
    """Two of the names are WordNet's for a bird and for a machine; the last id is in no dictionary."""
    made = make_gallery(tmp_path / "nette", snapshots=False, classes=WNIDS)
    facts = read_script(made / "gallery/data.js")
    assert facts["ids"] == list(WNIDS.ids)
    assert facts["classes"] == ["tench", "crane (n02012849)", "crane (n03126707)", "n99999999"]


def test_the_page_says_whose_it_is_and_what_it_cost(finished):
    facts = {fact["title"]: fact for fact in read_script(finished / "gallery/data.js")["origin"]}
    manifest = read_manifest(finished)
    assert facts["Source"]["lines"] == [["digits", None]]
    assert facts["Licence"]["lines"] == [["cc-by-4.0", manifest.source.licence_link]] and manifest.source.licence_link
    ((teacher, _),) = facts["Teachers"]["lines"]
    share = 100 * manifest.teachers[0].accuracy
    assert teacher == f"squeeze/resnet10_narrow, {share:.1f}\N{NO-BREAK SPACE}%"
    assert facts["Size"]["lines"][0] == [f"images {size(manifest.bytes.images)}", None]
    assert "cores" in facts["Cost"]["note"] and "Repository" not in facts


# The same each time


def test_a_gallery_made_again_is_the_same_with_and_without_the_work_folder(made, tmp_path):
    before = gallery_of(made)
    artifact = copy_artifact(made, tmp_path)
    manifest = read_manifest(artifact)
    write_gallery(artifact, manifest)
    assert gallery_of(artifact) == before
    write_gallery(artifact, manifest, work_of(made))
    assert gallery_of(artifact) == before
    write_gallery(artifact, manifest, output=tmp_path / "elsewhere")
    assert files_of(tmp_path / "elsewhere") == before


def test_without_patches_the_artifact_alone_is_shown(artifact):
    shutil.rmtree(artifact / "gallery")
    write_gallery(artifact, read_manifest(artifact))
    record = read_pictures(artifact / "gallery")
    assert record is not None and [stage.name for stage in record.stages] == ["recovered"]


def test_a_result_that_is_filed_is_on_the_page_and_in_the_manifest(artifact):
    before = gallery_of(artifact)
    record_result(artifact, evaluation("distilled", "hard", 0.37))
    after = gallery_of(artifact)
    assert {name for name in after if after[name] != before[name]} == {"data.js"}
    rows = read_script(artifact / "gallery/data.js")["results"]
    assert [(row["kind"], row["top1"]["mean"], row["own"]) for row in rows] == [
        ("distilled images + soft labels", 0.62, True),
        ("distilled images + hard labels", 0.37, True),
        ("random real images + the same soft labels", 0.55, False),
        ("whole dataset + hard labels", 0.91, False),
    ]
    assert verify_artifact(artifact, 0) == []


def test_an_artifact_without_a_gallery_gets_none_by_a_result(artifact):
    shutil.rmtree(artifact / "gallery")
    refresh_gallery(artifact, read_manifest(artifact))
    assert not (artifact / "gallery").exists()


def test_verify_names_a_picture_that_was_changed(artifact):
    file = artifact / "gallery/start-00000.webp"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    (problem,) = verify_artifact(artifact, 0)
    assert problem.file == "gallery/start-00000.webp" and "SHA-256" in problem.message


def test_other_labels_are_other_views_of_the_same_pictures(finished, tmp_path):
    recode(finished, tmp_path / "online", "none")
    before, after = gallery_of(finished), gallery_of(tmp_path / "online")
    assert {name for name in after if after[name] != before[name]} == {"data.js", "views.js"}
    views = read_script(tmp_path / "online/gallery/views.js")
    assert len(views) == 20 and all(view["top"] == [] for found in views.values() for view in found)
    assert verify_artifact(tmp_path / "online", 0) == []


# Strangers' words


def test_no_name_can_end_a_script_or_begin_markup(made):
    text = (made / "gallery/data.js").read_text("utf-8")
    assert not set("<>&\u2028\u2029") & set(text)
    assert read_script(made / "gallery/data.js")["classes"] == list(CLASSES.names)
    assert HOSTILE not in (made / "gallery/index.html").read_text("utf-8")


def test_a_record_cannot_name_files_of_its_own(artifact):
    path = artifact / "gallery/pictures.json"
    record = json.loads(path.read_text())
    for stage in record["stages"]:
        stage |= {"name": "../../../etc/passwd", "files": ["/etc/passwd"], "columns": 10**9}
    path.write_text(json.dumps(record))
    found = read_pictures(artifact / "gallery")
    assert found is not None
    assert all(file.startswith(("recovered-", "snapshot0")) for stage in found.stages for file in stage.files)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"side": 8}', '{"side": 0, "ipc": 1}'])
def test_a_damaged_record_is_named_with_the_remedy(artifact, content):
    (artifact / "gallery/pictures.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"gallery/pictures\.json is not a list of pictures .* fadrm-hf gallery"):
        write_gallery(artifact, read_manifest(artifact))


def test_the_pictures_of_another_artifact_are_refused(artifact):
    path = artifact / "gallery/pictures.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ipc": 3}))
    with pytest.raises(ArtifactError, match="another artifact or version; remove that folder"):
        write_gallery(artifact, read_manifest(artifact))


# The command


def test_the_command_makes_the_gallery_of_a_run_again(finished, tmp_path, capsys):
    run = copy_run(finished, tmp_path)
    shutil.rmtree(run / "gallery")
    assert main(["gallery", str(run)]) == 0
    assert str(run / "gallery/index.html") in capsys.readouterr().err
    assert files_of(run) == files_of(finished)
    assert main(["gallery", str(run), "--output", str(tmp_path / "page")]) == 0
    assert files_of(tmp_path / "page") == gallery_of(finished)


def test_several_artifacts_are_one_page(made, artifact, tmp_path):
    command = ["gallery", str(made), str(artifact), "--output", str(tmp_path / "page")]
    assert main(command) == 0 and main(command) == 0  # the second over the first
    comparison = read_script(tmp_path / "page/data.js")
    assert (
        comparison["ids"] == list(CLASSES.ids) and [each["name"] for each in comparison["artifacts"]] == ["trees"] * 2
    )
    for each in comparison["artifacts"]:
        for stage in each["pictures"]["stages"]:
            for file in stage["files"]:
                assert (tmp_path / "page" / each["folder"] / file).read_bytes() == gallery_of(made)[file]


def test_mistakes_are_named_before_anything_is_written(made, tmp_path, capsys):
    other = make_gallery(tmp_path / "other", classes=ClassMap(("x0", "x1", "x2", "x3"), ("a", "b", "c", "d")))
    (tmp_path / "held").mkdir()
    (tmp_path / "held/thesis.tex").write_text("mine")
    mistakes = {
        (str(made), str(made)): "output is not given, expected a folder",
        (str(made), str(other), f"--output={tmp_path / 'page'}"): "have no class in common",
        (str(made), f"--output={tmp_path / 'held'}"): r"holds other files (thesis.tex), expected a new",
        (str(made), f"--output={made}"): "holds other files",
        (str(tmp_path / "nothing"),): "it is no artifact, or an unfinished one",
    }
    for arguments, message in mistakes.items():
        assert main(["gallery", *arguments]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "page").exists() and [file.name for file in (tmp_path / "held").iterdir()] == ["thesis.tex"]


def test_an_artifact_on_the_hub_is_shown_with_the_patches_that_travel_with_it(hub, made, place):
    hub.put("org/trees", files_of(made))
    assert main(["gallery", "org/trees"]) == 0
    shown, there = files_of(place / "runs/org--trees/gallery"), gallery_of(made)
    assert {name for name in shown if shown[name] != there[name]} == {"data.js"}  # which names the repository
    facts = read_script(place / "runs/org--trees/gallery/data.js")
    assert 'load_dataset("org/trees", split="train")' in facts["howTo"][0]["code"]
    repository = ["org/trees", "https://huggingface.co/datasets/org/trees"]
    assert facts["origin"][-1] == {"title": "Repository", "lines": [repository], "note": ""}


def test_it_is_served_to_this_machine_while_the_block_lasts(made):
    with served(made / "gallery") as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == (made / "gallery/index.html").read_bytes()
        with urllib.request.urlopen(f"{address}recovered-00000.webp") as answer:
            assert Image.open(io.BytesIO(answer.read())).format == "WEBP"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}../fadrm.json")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address)


def test_a_port_that_is_taken_is_named(made, capsys):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        assert (
            main(
                ["gallery", str(made), str(made), "--output", str(made.with_name("page")), "--serve", f"--port={port}"]
            )
            == 2
        )
    assert f"port is {port}, which cannot be had" in " ".join(capsys.readouterr().err.split())
