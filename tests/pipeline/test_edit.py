"""New versions of an artifact: without some images or classes, with other names of classes, or of several together."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from fixtures.runs import RECIPE, STUDENT, copy_artifact, distill, files_of
from PIL import Image

from fadrm_hf import load_distilled
from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.reading import read_images, read_soft_labels
from fadrm_hf.cli import main
from fadrm_hf.errors import ArtifactError, ConfigError, RunFolderError
from fadrm_hf.pipeline.edit import Changes, edit
from fadrm_hf.publishing.verify import verify_location
from fadrm_hf.runtime.run_folder import RunFolder

pytestmark = pytest.mark.numerical

IPC, CLASSES, BATCH = 2, 10, 12
ALONE = ("--relabel.batch_statistics=false", "--method=random_real")


@pytest.fixture(scope="module")
def alone(finished, tmp_path_factory):
    """An artifact whose labels belong to their views alone: the teacher used its running statistics."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(finished.with_name("teachers"), folder / "teachers")
    return distill(folder / "alone", *ALONE)


@pytest.fixture(scope="module")
def other_seed(finished, tmp_path_factory):
    """Other images of the same classes, labelled by the same teacher in the same way."""
    (teacher,) = (path for path in finished.with_name("teachers").iterdir() if path.is_dir())
    names = f"--teachers.names=[timm/local-dir:{teacher}]"
    return distill(tmp_path_factory.mktemp("other") / "other", *ALONE, names, "--ipc=1", "--seed=1")


@pytest.fixture(scope="module")
def measured(finished, tmp_path_factory):
    """The artifact with one evaluation on file."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("measured"))
    assert main(["train-student", str(artifact), "--student", STUDENT, "--num_seeds=1", "--quiet"]) == 0
    return artifact


def rows_of(artifact, epoch):
    """The views of an epoch by their image: columns as plain values."""
    columns = read_soft_labels(artifact, epoch)
    return {
        int(image): {name: column[row].tolist() for name, column in columns.items()}
        for row, image in enumerate(columns["image"])
    }


def is_sound(artifact):
    """Every hash, every row, and the labels of every step by the recorded teachers."""
    assert verify_location(LocalFolder(artifact), num_steps=50) == []
    return True


def views_of(artifact):
    return [rows_of(artifact, epoch) for epoch in range(read_manifest(artifact).label_epochs)]


@pytest.mark.parametrize("kind", ["finished", "alone"])
def test_images_that_are_dropped_are_gone_with_their_labels_and_mixes(request, tmp_path, capsys, kind):
    artifact = request.getfixturevalue(kind)
    before = files_of(artifact)
    words = ["--drop_images=[3,12]", "--even", "--json"]
    assert main(["edit", str(artifact), str(tmp_path / "one"), *words]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert files_of(artifact) == before
    images, old = read_images(tmp_path / "one")[0], read_images(artifact)[0]
    kept = [0, 1, 2, 13, 4, 5, 6, 7, 8, 9]  # of class 3 the second image is left, of class 2 the first
    assert torch.equal(images, old[kept])
    assert is_sound(tmp_path / "one")
    new_row = {row: place for place, row in enumerate(kept)}
    unmixed = labelled = 0
    for stored, edited in zip(views_of(artifact), views_of(tmp_path / "one"), strict=True):
        assert sorted(edited) == list(range(10))
        for row, place in new_row.items():
            view, now = stored[row], edited[place]
            assert (now["crop"], now["flip"]) == (view["crop"], view["flip"])
            if view["mix_image"] in new_row:
                assert now["mix_image"] == new_row[view["mix_image"]]
                assert (now["mix_crop"], now["mix_box"]) == (view["mix_crop"], view["mix_box"])
            else:
                unmixed += 1
                assert now["mix_image"] == -1
            labelled += now["logits"] != view["logits"]
            assert kind == "finished" or (now["logits"] == view["logits"]) == (now["mix_image"] >= 0)
    views = result["views"]
    assert (views["views"], views["dropped"], views["unmixed"]) == (40, 40, unmixed) and unmixed > 0
    assert views["labelled"] >= labelled > 0
    assert result["num_dropped"] == 10 and result["ipc"] == 1


def test_batches_of_which_nothing_went_keep_their_labels(finished_random_real, tmp_path):
    """BatchNorm saw the same views together: labels stay bit for bit, wherever the batch comes in its epoch."""
    run = finished_random_real  # one batch of 20; dropping a class leaves one of 18
    edit(run, tmp_path / "less", Changes(drop_classes=("4",)))
    assert is_sound(tmp_path / "less")
    assert [len(rows) for rows in views_of(tmp_path / "less")] == [18] * 4


@pytest.mark.parametrize("kind", ["finished", "alone"])
def test_classes_that_are_dropped_are_gone_from_images_labels_and_test_images(request, tmp_path, capsys, kind):
    artifact = request.getfixturevalue(kind)
    words = ["--drop_classes=[0,7]", "--rename_classes=[3=three]"]
    assert main(["edit", str(artifact), str(tmp_path / "eight"), *words]) == 0
    said = capsys.readouterr().out
    assert "16 images of 8 classes, 2 of each; 4 images went" in said and "mixes:" in said and "labelled again" in said
    assert is_sound(tmp_path / "eight")
    manifest, old = read_manifest(tmp_path / "eight"), read_manifest(artifact)
    assert manifest.classes.ids == ("1", "2", "3", "4", "5", "6", "8", "9")
    assert manifest.classes.names == ("1", "2", "three", "4", "5", "6", "8", "9")
    assert manifest.config["source"]["classes"] == list(manifest.classes.ids)
    assert [teacher.accuracy for teacher in manifest.teachers] == [None]
    kept = [label + 10 * index for index in range(2) for label in (1, 2, 3, 4, 5, 6, 8, 9)]
    assert torch.equal(read_images(tmp_path / "eight")[0], read_images(artifact)[0][kept])
    same = 0
    for stored, edited in zip(views_of(artifact), views_of(tmp_path / "eight"), strict=True):
        for place, row in enumerate(kept):
            logits = [stored[row]["logits"][label] for label in (1, 2, 3, 4, 5, 6, 8, 9)]
            assert len(edited[place]["logits"]) == 8
            assert kind == "finished" or (edited[place]["logits"] == logits) == (
                (edited[place]["mix_image"] >= 0) == (stored[row]["mix_image"] >= 0)
            )
            same += edited[place]["logits"] == logits
    assert 0 < same < 4 * 16
    assert manifest.source == old.source
    test = load_distilled(tmp_path / "eight").test_images()
    assert test.num_classes == 8 and set(test.labels.tolist()) == set(range(8))
    if kind == "finished":
        assert main(["train-student", str(tmp_path / "eight"), "--student", STUDENT, "--num_seeds=1", "--quiet"]) == 0
        assert is_sound(tmp_path / "eight")
    text = (tmp_path / "eight/README.md").read_text()
    assert "Left out: the classes 0, 7." in text and "3: three" in text and "8 classes of digits" not in text


def test_new_names_change_nothing_but_names(measured, tmp_path, capsys):
    edited = edit(measured, tmp_path / "named", Changes(rename_classes={"0": "zero", "9": "nine"}))
    assert is_sound(tmp_path / "named")
    before, after = files_of(measured), files_of(tmp_path / "named")
    named = {"README.md", "recipe.yaml", "fadrm.json", "data/train-00000-of-00001.parquet", "gallery/data.js"}
    assert set(before) - set(after) == {"assets/grid.png"}
    assert {name for name in after if after[name] != before[name]} == named
    assert edited.num_dropped == edited.labels.views == 0
    assert edited.manifest.classes.names[0::9] == ("zero", "nine")
    assert edited.manifest.classes.hash == read_manifest(measured).classes.hash
    names = load_distilled(tmp_path / "named").manifest.classes.names
    assert "zero" in names and b"zero" in after["gallery/data.js"]
    assert main(["reproduce", str(tmp_path / "named"), "--tolerance", "0.1points", "--quiet"]) == 0


def test_several_become_one_and_views_of_each_stay_what_they_were(alone, other_seed, tmp_path, capsys):
    assert main(["edit", str(alone), str(tmp_path / "both"), f"--merge=[{other_seed}]"]) == 0
    assert is_sound(tmp_path / "both")
    manifest, first, second = (read_manifest(each) for each in (tmp_path / "both", alone, other_seed))
    assert (manifest.ipc, manifest.num_images) == (3, 30)
    images = torch.cat([read_images(alone)[0], read_images(other_seed)[0]])
    assert torch.equal(read_images(tmp_path / "both")[0], images)
    for epoch, edited in enumerate(views_of(tmp_path / "both")):
        for offset, artifact in ((0, alone), (20, other_seed)):
            for row, view in rows_of(artifact, epoch).items():
                moved = view | {"image": row + offset, "mix_image": view["mix_image"] + offset, "step": None}
                assert edited[row + offset] | {"step": None} == moved
    origins = manifest.config["edit"]["made_from"]
    assert origins == [{"name": each.config["output"], "digest": each.digest} for each in (first, second)]
    assert manifest.stages["relabel"].seconds == pytest.approx(
        sum(m.stages["relabel"].seconds for m in (first, second))
    )
    assert set(manifest.config["edit"]["differing_settings"]) >= {"seed", "teachers"}
    assert manifest.config["teachers"] == first.config["teachers"]
    text = (tmp_path / "both/README.md").read_text()
    assert "Their settings of seed," in text and "differ; `recipe.yaml` has those of the first." in text


def test_batches_of_merged_artifacts_take_turns(finished, tmp_path, capsys):
    """And labels by the statistics of a batch stay where the batch does: here whole batches of 12, of 12 and 8."""
    copied = copy_artifact(finished, tmp_path)
    edit(copied, tmp_path / "named", Changes(rename_classes={"1": "one"}))
    both = edit(copied, tmp_path / "both", merge=(tmp_path / "named",))
    assert is_sound(tmp_path / "both")
    assert both.labels.labelled == 4 * (40 - 24)  # two of 8 become one of 12 and one of 4
    firsts = Counter(int(read_soft_labels(tmp_path / "both", epoch)["image"][0]) >= 20 for epoch in range(4))
    assert len(firsts) == 2, "one artifact is always first"


def test_what_it_was_made_from_is_recorded_and_nothing_claims_its_numbers(measured, tmp_path, capsys):
    edit(measured, tmp_path / "once", Changes(drop_classes=("5",)))
    edit(tmp_path / "once", tmp_path / "twice", Changes(drop_images=tuple(range(9))))
    once, twice = read_manifest(tmp_path / "once"), read_manifest(tmp_path / "twice")
    record = twice.config["edit"]
    assert record["dropped_images"] == list(range(9)) and "dropped_classes" not in record
    (origin,) = record["made_from"]
    assert (origin["name"], origin["digest"]) == ("once", once.digest)
    assert origin["edit"]["made_from"] == [{"name": "run", "digest": read_manifest(measured).digest}]
    assert yaml.safe_load((tmp_path / "twice/recipe.yaml").read_text()) == twice.config
    assert not RunFolder(tmp_path / "once").results() and not (tmp_path / "once/assets/accuracy.png").exists()
    text = (tmp_path / "twice/README.md").read_text()
    assert f"from once (manifest `{once.digest}`)" in text and "Left out: 9 images, whose" in text
    assert "distill --config" not in text
    assert main(["distill", "--config", str(tmp_path / "twice/recipe.yaml")]) == 2
    assert "belongs to an edited artifact" in capsys.readouterr().err
    assert main(["reproduce", str(tmp_path / "twice")]) == 2
    assert "was edited, and no student was trained on it since" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "twice")]) == 0
    assert ["edited", "from", "once"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("codec", ["int4", "top2", "none"])
def test_labels_of_every_codec_stay_or_are_made_again(alone, tmp_path, capsys, codec):
    assert main(["recode", str(alone), str(tmp_path / "small"), "--codec", codec, "--quiet"]) == 0
    images = edit(tmp_path / "small", tmp_path / "images", Changes(drop_images=(0,), even=True))
    classes = edit(tmp_path / "small", tmp_path / "classes", Changes(drop_classes=("0",)))
    for edited in (tmp_path / "images", tmp_path / "classes"):
        assert is_sound(edited)
    assert images.labels.labelled == (0 if codec == "none" else images.labels.unmixed)
    assert classes.labels.labelled == (0 if codec == "none" else classes.labels.views)


@pytest.mark.parametrize(("command", "change"), [("edit", "--rename_classes=[ones=one]"), ("recode", "--codec=int8")])
def test_what_is_made_of_an_artifact_finds_the_folder_that_it_was_distilled_from(
    tmp_path, monkeypatch, command, change
):
    """As the next command that is shown asks: no option says again where the photographs are."""
    for split, count in (("train", 6), ("test", 2)):
        for index, name in enumerate(("zeros", "ones")):
            folder = tmp_path / "mine" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (16, 16), (40 * number, 200 * index, 90)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    settings = [word for word in RECIPE if not word.startswith(("--source.", "--ipc"))]
    assert (
        main(["distill", *settings, *ALONE, "--source.name=mine", "--source.size=16", "--ipc=1", "--output=run"]) == 0
    )
    assert main([command, "run", "made", change]) == 0
    assert main(["train-student", "made", "--student", STUDENT, "--num_seeds=1"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (Changes(), "nothing is changed; set --drop_images, --drop_classes"),
        (Changes(drop_images=(3,)), "leaves 1 images of class '3' and 2 of '0', expected equally many .* --even"),
        (Changes(drop_images=(20,)), "drop_images has 20, expected rows of the images table, 0 to 19"),
        (Changes(drop_images=(-1,)), "drop_images has -1"),
        (Changes(drop_images=(3, 13), even=True), "leaves no image of class '3'; drop the class: --drop_classes"),
        (Changes(drop_classes=("ten",)), "unknown class 'ten'.*--drop_classes"),
        (Changes(drop_classes=tuple("012345678")), "leaves 1 of 10 classes, expected two or more"),
        (Changes(rename_classes={"ten": "10"}), "unknown class 'ten'.*--rename_classes"),
        (Changes(rename_classes={"1": "\x1b[31m"}), "expected a name that can be printed"),
    ],
)
def test_what_cannot_be_changed_is_refused_before_anything_is_written(finished, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        edit(finished, tmp_path / "new", changes)
    assert list(tmp_path.iterdir()) == []


def test_artifacts_that_do_not_fit_are_not_merged(finished, alone, tmp_path):
    cases = [
        ((finished,), "named twice"),
        ((alone,), r"relabel.batch_statistics is False there, True here"),
    ]
    for merge, message in cases:
        with pytest.raises(ConfigError, match=message):
            edit(finished, tmp_path / "new", merge=merge)
    with pytest.raises(ConfigError, match="--merge is given with other changes"):
        edit(finished, tmp_path / "new", Changes(drop_images=(1,)), merge=(alone,))
    assert list(tmp_path.iterdir()) == []


def test_labels_that_nobody_can_make_again_are_not_made_up(finished, tmp_path):
    """Neither half an artifact nor an unlabelled view: the edit is refused, and says whose weights it needs."""
    artifact = copy_artifact(finished, tmp_path)
    document = json.loads((artifact / "fadrm.json").read_text())
    document["teachers"][0]["path"] = None  # as `publish --teachers hash` leaves it
    (artifact / "fadrm.json").write_text(json.dumps(document))
    with pytest.raises(
        ConfigError, match=r"must be made again, but .* without the weights of squeeze/resnet10_narrow"
    ):
        edit(artifact, tmp_path / "new", Changes(drop_classes=("1",)))
    edit(artifact, tmp_path / "named", Changes(rename_classes={"1": "one"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named", "run"]


def test_a_damaged_artifact_is_not_edited_and_a_full_folder_is_left_alone(finished, tmp_path):
    artifact = copy_artifact(finished, tmp_path)
    table = artifact / "data/train-00000-of-00001.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        edit(artifact, tmp_path / "new", Changes(drop_classes=("1",)))
    with pytest.raises(RunFolderError, match="expected a new or an empty folder"):
        edit(finished, artifact, Changes(drop_classes=("1",)))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert np.array_equal(bytearray(table.read_bytes()), content)
