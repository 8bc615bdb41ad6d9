"""Releases of earlier methods: what is imported is, image by image and view by view, what their network labelled."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from fixtures.release import write_images, write_labels
from fixtures.runs import copy_artifact, identities, work_of
from PIL import Image
from torch import nn
from torch.utils.data import RandomSampler

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.reading import read_images
from fadrm_hf.cli import main
from fadrm_hf.config import RelabelConfig, SourceConfig, TeacherConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import ArtifactError, ClassMapError, ConfigError, FadrmError, RunFolderError
from fadrm_hf.pipeline.legacy import ImportConfig, import_release
from fadrm_hf.pipeline.legacy.image_folder import match_folders
from fadrm_hf.pipeline.legacy.label_files import read_batch, sampler_orders
from fadrm_hf.training.loader import load_distilled

pytestmark = pytest.mark.numerical

SIZE, IPC, EPOCHS, BATCH, CLASSES = 16, 4, 3, 16, 10  # 40 images: batches of 16, 16 and 8
DIGITS = SourceConfig("digits", size=SIZE)
NAMES = [f"new{label:05d}" for label in range(CLASSES)]

# Pillow rounds to whole grey levels after each axis, by half a level each time; its weights are exact to 2^-22.
PILLOW = 1.0 + 1e-3


@pytest.fixture(scope="module")
def source():
    return load_source(DIGITS)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    """Trained on crops as labels show them: right about half of them, where a third makes 120 labels sure."""
    folder = tmp_path_factory.mktemp("teacher") / "narrow"
    options = (
        "--squeeze.epochs=20",
        "--squeeze.batch_size=32",
        "--squeeze.crop=resized",
        "--source.name=digits",
        f"--source.size={SIZE}",
    )
    assert main(["train-teacher", "--architecture=resnet10_narrow", *options, f"--output={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def network(teacher_folder):
    return timm.create_model(f"local-dir:{teacher_folder}", pretrained=True).eval()


@pytest.fixture(scope="module")
def images(tmp_path_factory, source):
    """Real digits, which is what a network that knows digits sees classes in."""
    labels = source.labels("train")
    rows = np.concatenate([np.flatnonzero(labels == label)[:IPC] for label in range(CLASSES)])
    pixels = source.pixels("train", rows.tolist()).unflatten(0, (CLASSES, IPC))
    return write_images(tmp_path_factory.mktemp("release") / "images", pixels, NAMES)


@pytest.fixture(scope="module")
def release(images, network, source):
    """Images and label files in the layout of SRe2L, and what was seen."""
    labels = images.with_name("labels")
    return images, labels, label(labels, images, network, source)


def label(folder, images, network, source, **options):
    options = {"epochs": EPOCHS, "batch_size": BATCH} | options
    return write_labels(folder, images, network, source.config.mean, source.config.std, **options)


def imported(images, labels, output, **options):
    return import_release(ImportConfig(str(images), str(labels), str(output), source=DIGITS, **options), quiet=True)


def teachers(folder):
    return TeacherConfig((f"timm/local-dir:{folder}",), min_accuracy=0.0, gate_images=20)


def require_same(artifact, seen):
    """Every view and label of the artifact is the one that was seen when it was labelled."""
    distilled = load_distilled(artifact)
    mean, std = (torch.tensor(values)[:, None, None] for values in distilled.normalisation)
    batches = list(distilled.batches(range(len(seen))))
    shown = torch.cat([(batch.images * std + mean) * 255 for batch in batches])
    assert (shown - torch.cat([epoch.pixels for epoch in seen])).abs().max() <= PILLOW
    assert torch.equal(torch.cat([batch.labels for batch in batches]), torch.cat([epoch.classes for epoch in seen]))
    assert torch.equal(torch.cat([batch.logits for batch in batches]), torch.cat([epoch.logits for epoch in seen]))


def verify(artifact, capsys):
    code = main(["verify", str(artifact), "--num_steps", "20"])
    return code, capsys.readouterr().out


def test_the_views_and_labels_are_those_of_the_release(release, tmp_path, capsys):
    images, labels, seen = release
    artifact = imported(images, labels, tmp_path / "run", method="sre2l")
    require_same(artifact, seen)
    manifest = read_manifest(artifact)
    assert (manifest.method, manifest.ipc, manifest.label_epochs, manifest.teachers) == ("sre2l", IPC, EPOCHS, ())
    relabel = manifest.settings("relabel", RelabelConfig)
    assert (relabel.epochs, relabel.batch_size, relabel.cutmix, relabel.batch_statistics) == (
        EPOCHS,
        BATCH,
        True,
        False,
    )
    assert manifest.config["import"]["images"] == "JPEG, decoded once and stored as PNG"
    code, said = verify(artifact, capsys)
    assert code == 0 and "sound" in said


def test_images_are_the_decoded_files_ordered_by_ipc_index_then_class(release, tmp_path):
    images, labels, _ = release
    pixels, classes = read_images(imported(images, labels, tmp_path / "run"))
    assert classes.tolist() == list(range(CLASSES)) * IPC
    for row, image in enumerate(pixels):
        file = images / NAMES[row % CLASSES] / f"class{row % CLASSES:05d}_id{row // CLASSES:05d}.jpg"
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.array(Image.open(file).convert("RGB")))


@pytest.mark.parametrize("layout", ["g_vbsm", "edc"])
def test_files_that_name_their_images_need_no_order(layout, images, network, source, tmp_path):
    seen = label(tmp_path / "labels", images, network, source, layout=layout, fkd_seed=5)
    require_same(imported(images, tmp_path / "labels", tmp_path / "run"), seen)


def test_views_that_are_not_mixed_and_a_last_batch_of_one(images, network, source, tmp_path, capsys):
    seen = label(tmp_path / "labels", images, network, source, mix=None, batch_size=13, epochs=2)
    artifact = imported(images, tmp_path / "labels", tmp_path / "run", relabel=RelabelConfig(batch_statistics=False))
    require_same(artifact, seen)
    assert read_manifest(artifact).config["relabel"]["cutmix"] is False
    assert verify(artifact, capsys)[0] == 0


def test_labels_of_known_teachers_are_made_again_by_import_and_by_verify(release, teacher_folder, tmp_path, capsys):
    images, labels, seen = release
    artifact = imported(images, labels, tmp_path / "run", teachers=teachers(teacher_folder))
    require_same(artifact, seen)
    assert [teacher.name for teacher in read_manifest(artifact).teachers] == ["timm/local-dir:narrow"]
    assert verify(artifact, capsys)[0] == 0


def test_verify_names_a_label_of_an_imported_artifact_that_belongs_to_another_view(
    release, teacher_folder, tmp_path, capsys
):
    images, labels, _ = release
    swapped = Path(shutil.copytree(labels, tmp_path / "labels"))
    change(swapped / "epoch_1/batch_2.tar", lambda entries: entries[5].copy_(entries[5].roll(1, dims=0)))
    artifact = imported(images, swapped, tmp_path / "run", teachers=teachers(teacher_folder))
    code, said = verify(artifact, capsys)
    assert code == 1 and "epoch 1, step 2" in said


def test_batch_statistics_over_halves(images, network, source, teacher_folder, tmp_path, capsys):
    bssl = use_batch_statistics(timm.create_model(f"local-dir:{teacher_folder}", pretrained=True))
    seen = label(tmp_path / "labels", images, bssl, source, batch_size=20, halves=True)
    options = {"teachers": teachers(teacher_folder), "method": "fadrm"}
    wrong = {"relabel": RelabelConfig(batch_statistics=False)}
    with pytest.raises(ArtifactError, match=r"epoch_0/batch_0\.tar labels differ by .*--relabel\.batch_statistics"):
        imported(images, tmp_path / "labels", tmp_path / "wrong", **options, **wrong)
    artifact = imported(images, tmp_path / "labels", tmp_path / "run", **options, relabel=RelabelConfig())
    require_same(artifact, seen)
    assert verify(artifact, capsys)[0] == 0


def use_batch_statistics(network):
    for layer in network.eval().modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
            layer.momentum = 0.0
    return network


def test_batch_statistics_of_a_last_batch_that_is_not_full_are_refused(release, teacher_folder, tmp_path):
    images, labels, _ = release
    with pytest.raises(ConfigError, match="the last batch has 8 images, not 16"):
        imported(images, labels, tmp_path / "run", teachers=teachers(teacher_folder), relabel=RelabelConfig())


@pytest.mark.parametrize("knows_teachers", [False, True])
def test_images_in_another_order_than_the_labels_are_refused(knows_teachers, release, teacher_folder, tmp_path):
    images, labels, _ = release
    options = {"teachers": teachers(teacher_folder)} if knows_teachers else {}
    with pytest.raises(ArtifactError, match="not in the order these labels were made in"):
        imported(images, labels, tmp_path / "seed", sampler_seed=43, **options)
    other_classes = Path(shutil.copytree(labels, tmp_path / "labels"))
    for file in other_classes.glob("*/*.tar"):
        change(file, put(5, lambda logits: logits.roll(1, dims=1)))
    with pytest.raises(ArtifactError, match="not in the order these labels were made in"):
        imported(images, other_classes, tmp_path / "classes", **options)
    assert not (tmp_path / "seed").exists() and not work_of(tmp_path / "seed").exists()


def test_a_generator_that_advances_otherwise_is_noticed_in_the_last_epoch(release, teacher_folder, tmp_path):
    """As in PyTorch 1.10 and before, where the sampler drew once in each epoch."""
    images, labels, _ = release
    other = Path(shutil.copytree(labels, tmp_path / "labels"))
    shutil.rmtree(other / "epoch_2")
    shutil.copytree(labels / "epoch_1", other / "epoch_2")
    with pytest.raises(ArtifactError, match=r"epoch_2/batch_0\.tar labels differ"):
        imported(images, other, tmp_path / "run", teachers=teachers(teacher_folder))


def test_other_images_under_the_same_names_are_refused_by_those_who_labelled(release, teacher_folder, tmp_path):
    images, labels, _ = release
    for place, name in enumerate(NAMES):
        shutil.copytree(images / NAMES[(place + 3) % CLASSES], tmp_path / "images" / name)
    with pytest.raises(ArtifactError, match="or other teachers made them"):
        imported(tmp_path / "images", labels, tmp_path / "run", teachers=teachers(teacher_folder))


@pytest.mark.parametrize("num", [1, 7, 100])
def test_the_order_is_that_of_the_sampler_of_torch_in_every_epoch(num):
    sampler = RandomSampler(range(num), generator=torch.Generator().manual_seed(42))
    for _, order in zip(range(4), sampler_orders(num, 42), strict=False):
        assert order.tolist() == list(sampler)


@pytest.mark.parametrize("codec", ["int8", "top3"])
def test_labels_are_stored_by_the_codec_that_is_asked_for(codec, release, tmp_path):
    images, labels, seen = release
    artifact = imported(images, labels, tmp_path / "run", relabel=RelabelConfig(batch_statistics=False, codec=codec))
    assert read_manifest(artifact).label_codec == codec
    batch = next(load_distilled(artifact).batches(range(1)))
    assert torch.equal(batch.logits.argmax(dim=1), seen[0].logits[:BATCH].argmax(dim=1))


def test_labels_made_on_the_fly_need_teachers(release, teacher_folder, tmp_path):
    images, labels, seen = release
    online = RelabelConfig(batch_statistics=False, codec="none")
    with pytest.raises(ConfigError, match=r"set --teachers\.names"):
        imported(images, labels, tmp_path / "run", relabel=online)
    artifact = imported(images, labels, tmp_path / "run", relabel=online, teachers=teachers(teacher_folder))
    batch = next(load_distilled(artifact).batches(range(1)))
    assert (batch.logits - seen[0].logits[:BATCH]).abs().max() < 0.05 * seen[0].logits.abs().max()


# Files that are refused


def change(path, edit):
    """Load a label file, let `edit` change its entries or return others, and save it."""
    entries = torch.load(path, weights_only=False)
    edited = edit(entries)
    torch.save(edited if isinstance(edited, list | dict) else entries, path)


def put(place, value):
    return lambda entries: entries.__setitem__(place, value(entries[place]))


def set_values(place, index, value):
    def edit(entries):
        entries[place][index] = value

    return edit


MISTAKES = {
    "logits that are not finite": (set_values(5, (3, 2), float("nan")), "has logits that are not finite"),
    "another number of classes": (put(5, lambda x: x[:, :9]), r"logits of torch.float16 \(16, 9\), expected"),
    "too few rows": (lambda e: [e[0][:9], e[1][:9], *e[2:5], e[5][:9]], r"partners of torch.int64 \(16,\)"),
    "a crop between pixels": (set_values(0, (5, 0), 0.01), "in row 5 a crop of .* expected whole pixels"),
    "a crop outside the image": (set_values(0, (5, 0), 15 / 16), "in row 5 a crop"),
    "a crop that is not a number": (set_values(0, (5, 1), float("nan")), "in row 5 a crop"),
    "crops of three numbers": (put(0, lambda x: x[:, :3]), r"crops of torch.float32 \(16, 3\)"),
    "flips that are numbers": (put(1, lambda x: x.float()), "flips of torch.float32"),
    "partners that are no permutation": (set_values(2, 0, 99), "partners that are no permutation of 0 to 15"),
    "a box outside the image": (put(4, lambda _: [0, 0, 17, 4]), r"the box \[0, 0, 17, 4\]"),
    "a box of three numbers": (put(4, lambda _: [0, 0, 4]), "expected four integers"),
    "mixup": (put(4, lambda _: None), "labels of mixup, .* CutMix labels can be imported"),
    "too few entries": (lambda entries: entries[:4], "holds 4 entries, expected a list of 6 to 8"),
    "a dictionary": (lambda entries: {"logits": entries[5]}, "holds dict, expected a list"),
    "shuffled patches": (lambda entries: [*entries, torch.arange(16), torch.ones(16, 2, 2)], "shuffled patches"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_label_file_that_is_not_what_it_should_be_is_refused_by_name(mistake, release, tmp_path):
    edit, message = MISTAKES[mistake]
    file = tmp_path / "epoch_2/batch_1.tar"
    shutil.copytree(release[1], tmp_path, dirs_exist_ok=True)
    change(file, edit)
    with pytest.raises(ArtifactError, match=rf"^epoch_2/batch_1\.tar .*{message}"):
        read_batch(file, SIZE, CLASSES)
    with pytest.raises(ArtifactError, match=r"^epoch_2/batch_1\.tar"):
        imported(release[0], tmp_path, tmp_path / "run")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda labels: (labels / "epoch_1/batch_1.tar").unlink(), r"epoch_1/ lacks batch_1\.tar"),
        (lambda labels: (labels / "epoch_1/batch_2.tar").unlink(), "epoch_1/ has 2 label files, expected 3"),
        (lambda labels: shutil.rmtree(labels / "epoch_1"), "labels/ lacks epoch_1"),
        (lambda labels: shutil.rmtree(labels), "labels/ lacks epoch_0"),
        (lambda labels: change(labels / "epoch_1/batch_0.tar", lambda e: [e[0], e[1], None, None, None, e[5]]),
         r"epoch_1/batch_0\.tar has views that are not mixed, those of epoch_0/batch_0\.tar are mixed"),
        (lambda labels: shutil.copy(labels / "epoch_1/batch_2.tar", labels / "epoch_1/batch_0.tar"),
         r"epoch_1/batch_0\.tar has 8 labels, expected 16"),
        (lambda labels: [change(f, lambda e: [*e, torch.zeros(len(e[1]), dtype=torch.int64)])
                         for f in labels.glob("epoch_1/*")],
         "epoch_1/ does not label each of 40 images once"),
    ],
)  # fmt: skip
def test_labels_that_are_missing_or_do_not_fit_are_refused(edit, message, release, tmp_path):
    labels = Path(shutil.copytree(release[1], tmp_path / "labels"))
    edit(labels)
    with pytest.raises(ArtifactError, match=message):
        imported(release[0], labels, tmp_path / "run")


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_label_file_is_refused_by_name(kept, release, tmp_path):
    file = Path(shutil.copytree(release[1], tmp_path / "labels")) / "epoch_1/batch_1.tar"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(ArtifactError, match=r"^epoch_1/batch_1\.tar is damaged"):
        imported(release[0], file.parent.parent, tmp_path / "run")


class Payload:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(release, tmp_path):
    file = Path(shutil.copytree(release[1], tmp_path / "labels")) / "epoch_1/batch_1.tar"
    trace = tmp_path / "it-ran"
    change(file, lambda entries: [*entries[:3], Payload(f"touch {trace}"), *entries[4:]])
    with pytest.raises(ArtifactError, match=r"^epoch_1/batch_1\.tar .* is not loaded because it could run code"):
        imported(release[0], file.parent.parent, tmp_path / "run")
    assert not trace.exists()
    torch.load(file, weights_only=False)  # what another loader would have done
    assert trace.exists()


@pytest.mark.parametrize("kind", [np.array(["a"], dtype=object), np.zeros(3), np.complex64(1), np.bool_(True)])
def test_numpy_objects_other_than_numbers_are_refused(kind, release, tmp_path):
    file = tmp_path / "epoch_0/batch_0.tar"
    shutil.copytree(release[1], tmp_path, dirs_exist_ok=True)
    change(file, lambda entries: [*entries[:3], kind, *entries[4:]])
    with pytest.raises(ArtifactError, match=r"^epoch_0/batch_0\.tar is damaged, or holds more than"):
        read_batch(file, SIZE, CLASSES)


def test_the_numbers_of_the_other_numpy_are_read_too(release, tmp_path):
    """NumPy 1 and 2 spell the module of their numbers differently; releases before 2024 hold those of NumPy 1."""
    spellings = [b"numpy.core.multiarray", b"numpy._core.multiarray"]
    other, own = spellings if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else spellings[::-1]
    written = release[1] / "epoch_0/batch_0.tar"
    respelled = tmp_path / "batch_0.tar"
    with zipfile.ZipFile(written) as archive, zipfile.ZipFile(respelled, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("data.pkl"):
                assert content.count(own) == 1
                content = content.replace(own, other)
            copy.writestr(name, content)
    expected, found = (read_batch(file, SIZE, CLASSES) for file in (written, respelled))
    assert torch.equal(found.box, expected.box) and torch.equal(found.logits, expected.logits)


# Images and classes


def test_images_of_unequal_number_another_size_or_damaged_are_refused(release, tmp_path):
    images, labels, _ = release
    copy = Path(shutil.copytree(images, tmp_path / "images"))
    file = copy / "new00003/class00003_id00001.jpg"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ArtifactError, match=r"new00003/class00003_id00001\.jpg cannot be decoded"):
        imported(copy, labels, tmp_path / "run")
    Image.new("RGB", (SIZE, 2 * SIZE)).save(file)
    with pytest.raises(ArtifactError, match=r"class00003_id00001\.jpg is 16x32 pixels, expected 16x16"):
        imported(copy, labels, tmp_path / "size")
    file.unlink()
    with pytest.raises(ArtifactError, match="class '3' has 3 images and '0' has 4, expected equally many"):
        imported(copy, labels, tmp_path / "other")
    with pytest.raises(ArtifactError, match="holds no folder of images for each class"):
        imported(tmp_path / "nowhere", labels, tmp_path / "other")


def test_folders_that_are_not_the_classes_of_the_source_are_refused(release, tmp_path):
    images, labels, _ = release
    copy = Path(shutil.copytree(images, tmp_path / "images"))
    shutil.rmtree(copy / "new00009")
    with pytest.raises(ClassMapError, match="the source has 10 classes, the other 9"):
        imported(copy, labels, tmp_path / "run")


TREES = ClassMap(("n0", "n1", "n2"), ("white ash, Fraxinus", "birch", "cedar"))


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["n0", "n1", "n2"], [0, 1, 2]),
        (["Birch", "cedar", "white_ash"], [1, 2, 0]),
        (["00000", "00001", "00002"], [0, 1, 2]),
        (["c0", "b1", "a2"], [0, 1, 2]),
        (["n01440764", "n01443537", "n01484850"], [0, 1, 2]),
    ],
)
def test_folders_are_matched_by_id_name_number_or_wordnet_id(folders, expected):
    assert match_folders(folders, TREES) == expected


@pytest.mark.parametrize(
    "folders", [["ash", "elm", "oak"], ["00001", "00002", "00003"], ["n0", "n1"], ["n0", "n1", "n2", "n3"], ["0", "1"]]
)
def test_folders_that_mean_nothing_are_refused(folders):
    with pytest.raises(
        ClassMapError, match=r"the image folders are not the classes of the source: the s.*name them by"
    ):
        match_folders(folders, TREES)


# Runs


def test_an_import_goes_on_where_it_stopped(release, tmp_path):
    images, labels, seen = release
    damaged = Path(shutil.copytree(labels, tmp_path / "labels"))
    file = damaged / "epoch_2/batch_1.tar"
    content = file.read_bytes()
    config = ImportConfig(str(images), str(damaged), str(tmp_path / "run"), source=DIGITS)
    # Before anything is written labels are compared with classes, which does not mind that these are far too large.
    change(file, put(5, lambda x: x.float() + 70_000))
    with pytest.raises(FadrmError, match="65504"):
        import_release(config, quiet=True)
    assert not (tmp_path / "run" / "fadrm.json").exists()
    work = work_of(tmp_path / "run")
    before = identities(work)
    assert sum(name.startswith("soft_labels/") for name in before) == EPOCHS - 1
    file.write_bytes(content)
    require_same(import_release(config, quiet=True), seen)
    after = identities(work)
    assert {name: after[name] for name in before} == before
    assert import_release(config, quiet=True) == tmp_path / "run"  # finished already


def test_a_folder_with_another_run_or_other_files_is_refused(release, tmp_path):
    images, labels, _ = release
    run = imported(images, labels, tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"holds another run: method\.name is 'sre2l' there, 'cda' here"):
        imported(images, labels, run, method="cda")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("not yours")
    with pytest.raises(RunFolderError, match="holds other files"):
        imported(images, labels, tmp_path / "mine")


def test_the_command(release, tmp_path, capsys):
    images, labels, seen = release
    where = [f"--images={images}", f"--labels={labels}", f"--output={tmp_path / 'run'}"]
    assert main(["import", *where, "--source.name=digits", f"--source.size={SIZE}", "--method.name=cda"]) == 0
    require_same(tmp_path / "run", seen)
    text = (tmp_path / "run/README.md").read_text() + json.dumps(read_manifest(tmp_path / "run").config)
    assert "CDA" in text and "JPEG, decoded once and stored as PNG" in (tmp_path / "run/README.md").read_text()
    assert str(tmp_path) not in text and str(images.parent) not in text
    where[2] += "-of-32-pixels"
    assert main(["import", *where, "--source.name=digits", "--source.size=32"]) == 2
    assert "set --source.size" in capsys.readouterr().err
    assert main(["import", *where[:2]]) == 2


def test_a_student_trains_from_it(release, tmp_path, capsys):
    images, labels, _ = release
    artifact = copy_artifact(imported(images, labels, tmp_path / "run"), tmp_path / "elsewhere")
    shutil.rmtree(work_of(tmp_path / "run"))
    options = ["--student", "timm/resnet10_narrow", "--num_seeds", "1"]
    assert main(["train-student", str(artifact), *options]) == 0
    (result,) = (artifact / "results").glob("*.json")
    assert json.loads(result.read_text())["epochs"] == EPOCHS
