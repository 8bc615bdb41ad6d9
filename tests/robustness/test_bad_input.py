"""Every mistake is named before any work, with what was expected and what mends it; nothing is written or lost."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from fixtures.mistakes import contents, names_all, refused
from fixtures.runs import EPOCHS, FADRM, IMAGES, LABELS, RECIPE, STUDENT, copy_artifact, copy_run, identities, work_of
from PIL import Image
from safetensors.torch import load_file, save_file

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main

DISTILL = ("distill", *RECIPE, *FADRM, "--output=run")
READERS = ("train-student", "verify", "baselines")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is typed: names, values, files of settings


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--source.name=digts"], ["'digts'", "did you mean 'digits'", "--source.name"]),
        (["--source.name=cifar11"], ["'cifar11'", "'cifar10'", "'cifar100'", "--source.name"]),
        (["--source.name=./photos"], ["'./photos'", "no file or folder", "--source.name"]),
        (["--source.preset=cifar"], ["'cifar'", "'cifar10' or 'cifar100'", "--source.preset"]),
        (["--source.train_split=trian"], ["'trian'", "train, test", "--source.train_split"]),
        (["--source.size=4"], ["source.size", "at least 8", "4"]),
        (["--teachers.names=[tim/resnet18]"], ["'tim'", "did you mean 'timm'", "--teachers.names"]),
        (["--teachers.names=[resnet18]"], ["'resnet18'", "timm", "--teachers.names"]),
        (["--teachers.names=[timm/]"], ["'timm/'", "timm/resnet18.tv_in1k", "--teachers.names"]),
        (["--teachers.names=[timm/resnet81]"], ["'resnet81'", "did you mean", "--teachers.names"]),
        (["--teachers.names=[torchvision/resnt18]"], ["'resnt18'", "'resnet18'", "--teachers.names"]),
        (["--teachers.names=[transformers/org/none]"], ["'org/none'", "name", "--teachers.names"]),
        (["--teachers.names=[timm/local-dir:none]"], ["none", "config.json", "--teachers.names"]),
        (["--teachers.names=[squeeze/resnet10_narow]"], ["'resnet10_narow'", "'resnet10_narrow'", "--teachers.names"]),
        (["--teachers.names=timm/resnet18"], ["teachers.names", "timm/resnet18", "'[A, B]'"]),
        (["--teachers.names=[]"], ["teachers.names", "at least one", "()"]),
        (["--method=fadrn"], ["'fadrn'", "'fadrm' or 'fadrm_plus'", "--method"]),
        (["--student.student=timm/resnt18"], ["'timm/resnt18'", "'timm/resnet18'", "--student.student"]),
        (["--student.student=resnet81"], ["'resnet81'", "'timm/ARCHITECTURE'", "--student.student"]),
        (["--method.alfa=0.3"], ["--method.alfa", "--help"]),
        (["--relabel.epoch=3"], ["--relabel.epoch", "--help"]),  # no silent completion to another option
        (["more"], ["more", "--help"]),
        (["--ipc"], ["--ipc", "one argument"]),
        (["--output="], ["output", "a folder", "''"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0][0] == "-" else "",
)
def test_an_unknown_name_is_answered_with_the_near_ones(place, capsys, arguments, expected):
    names_all(refused(capsys, place, *DISTILL, *arguments), *expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ipc=0"], ["ipc", "at least 1", "got 0", "--ipc"]),
        (["--ipc=-3"], ["ipc", "at least 1", "got -3", "--ipc"]),
        (["--ipc=ten"], ["ipc", "int", "ten"]),
        (["--method.alpha=1.5"], ["method.alpha", "[0, 1]", "1.5", "--method.alpha"]),
        (["--method.alpha=-0.1"], ["method.alpha", "[0, 1]", "-0.1", "--method.alpha"]),
        (["--method.alpha=nan"], ["method.alpha", "float", "nan"]),
        (["--method.sizes=[16,16]"], ["method.sizes", "4 for num_residuals=3", "(16, 16)", "--method.sizes"]),
        (["--method.sizes=[16,16,16,8]"], ["end with source.size (16)", "(16, 16, 16, 8)", "--method.sizes"]),
        (["--method.sizes=[16,32,16,16]"], ["within 8 and 16", "(16, 32, 16, 16)", "--method.sizes"]),
        (["--method.sizes=[4,16,16,16]"], ["within 8 and 16", "(4, 16, 16, 16)", "--method.sizes"]),
        (["--method.iterations=3"], ["method.iterations", "at least one per segment (4)", "3"]),
        (["--method.num_residuals=-1"], ["method.num_residuals", "0 or more", "-1"]),
        (["--patches.grid=3"], ["patches.grid", "1 (1x1) or 2 (2x2)", "3"]),
        (["--recover.crop_area=[0.5,0.1]"], ["recover.crop_area", "0 < low <= high <= 1", "(0.5, 0.1)"]),
        (["--recover.betas=[2,3]"], ["recover.betas", "[0, 1)", "(2.0, 3.0)"]),
        (["--recover.precision=fp8"], ["recover.precision", "fp16", "fp8"]),
        (["--relabel.flip_probability=2"], ["relabel.flip_probability", "[0, 1]", "2.0"]),
        (["--relabel.stored_epochs=9"], ["relabel.stored_epochs", f"at most relabel.epochs, which is {EPOCHS}", "9"]),
        (["--relabel.codec=int3"], ["unknown label codec 'int3'", "int8", "int4", "none", "top<k>"]),
        (["--relabel.codec=top10"], ["top10 keeps 10 of 10 classes", "smaller k"]),
        (["--relabel.accumulation=12"], ["relabel.accumulation", "half of relabel.batch_size", "12"]),
        (["--squeeze.epochs=0"], ["squeeze.epochs", "at least 1", "0"]),
        (["--squeeze.padding=-1"], ["squeeze.padding", "0 or more", "-1"]),
        (["--teachers.min_accuracy=95"], ["teachers.min_accuracy", "a fraction in [0, 1]", "95"]),
        (
            ["--student.epochs=9"],
            ["student.epochs is 9", f"labels for {EPOCHS}", "--student.epochs", "--relabel.epochs"],
        ),
        (["--method=fadrm_plus"], ["fadrm_plus", "at least 2", "squeeze/resnet10_narrow", "--teachers.names"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") and "=" in value[0] else "",
)
def test_a_value_outside_its_range_is_answered_with_the_range(place, capsys, arguments, expected):
    names_all(refused(capsys, place, *DISTILL, *arguments), *expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ipc: [1\nmethod: {", ["run.yaml", "not readable YAML", "line 2"]),
        ("- ipc\n- seed\n", ["run.yaml", "holds list", "sections of settings"]),
        ("", ["run.yaml", "expected sections of settings"]),
        ("ipc: 010\n", ["run.yaml", "holds 010, which YAML reads as 8", "'010' for a text", "line 1"]),
        ("seed: 1:30\n", ["run.yaml", "holds 1:30, which YAML reads as 90"]),
        ("recover:\n  learning_rate: 3\n", ["--recover.learning_rate", "--recover.lr", "--help"]),
        ("recovery:\n  lr: 3\n", ["recovery", "--help"]),
        ("ipc: many\n", ["ipc", "int", "many"]),
        ("method: fadrm\n", ["method", "fadrm"]),
        ("method:\n  name: fadrn\n", ["'fadrn'", "did you mean 'fadrm'"]),
        ("method:\n  name: fadrm\n  alpha: .nan\n", ["method.alpha", "[0, 1]", "nan", "--method.alpha"]),
        ("method:\n  name: random_real\n  alpha: 0.5\n", ["method", "alpha"]),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(place, capsys, text, expected):
    (place / "run.yaml").write_text(text)
    names_all(refused(capsys, place, "distill", "--config", "run.yaml", "--output=run"), *expected)


def test_a_configuration_that_is_not_there_is_refused(place, capsys):
    names_all(
        refused(capsys, place, "distill", "--config", "runs.yaml"), "runs.yaml", "does not exist", "recipes/configs/"
    )
    (place / "folder").mkdir()
    names_all(refused(capsys, place, "distill", "--config", "folder"), "folder", "not readable")
    (place / "picture.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    names_all(refused(capsys, place, "distill", "--config=picture.yaml"), "picture.yaml", "not readable")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["distil"], ["'distil'", "did you mean 'distill'"]),
        (["train"], ["'train'", "'train-teacher' or 'train-student'"]),
        (["train-student"], ["artifact", "required"]),
        (["verify"], ["artifact", "required"]),
        (["methods", "fadrm"], ["fadrm", "expected none"]),
        (
            ["train-teacher", "--architecture=resnt18", "--source.name=digits", "--source.size=16"],
            ["'resnt18'", "'resnet18'", "--architecture"],
        ),
        (["train-teacher", "--source.name=digts"], ["'digts'", "did you mean 'digits'", "--source.name"]),
        (["train-teacher", "--squeeze.lr=-1"], ["squeeze.lr", "positive", "-1", "--squeeze.lr"]),
    ],
    ids=lambda value: " ".join(value[:1]),
)
def test_mistakes_in_other_commands(place, capsys, arguments, expected):
    names_all(refused(capsys, place, *arguments), *expected)


@pytest.mark.parametrize("student", ["timm/inception_v3", "timm/vit_tiny_patch16_224.augreg"])
def test_a_student_that_cannot_be_trained_is_refused_before_anything_is_distilled(place, capsys, student):
    message = refused(
        capsys, place, *DISTILL, f"--student.student={student}", "--source.size=24", "--method.sizes=null"
    )
    names_all(message, student, "--student.student")


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("inception_v3", ["16x16 pixels", "--source.size"]),
        ("vit_tiny_patch16_224", ["12x12 pixels", "--method.sizes"]),
    ],
)
def test_a_teacher_that_could_not_be_used_is_not_trained(place, capsys, architecture, expected):
    message = refused(capsys, place, *DISTILL, f"--teachers.names=[squeeze/{architecture}]")
    names_all(message, f"squeeze/{architecture}", *expected)


TWO = "--teachers.names=[squeeze/resnet10_narrow,squeeze/convnet3_narrow]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cv_dd", TWO, "--method.committee_size=3"], ["method.committee_size is 3", "at most 2", "--teachers.names"]),
        (["cv_dd", TWO, "--method.votes=[60]"], ["method.votes has 1 votes", "2 teachers", "--method.votes"]),
        (["cv_dd", TWO, "--method.vote_ipc=200"], ["left to distil from", "200", "--method.vote_ipc"]),
        (["cv_dd", TWO, "--recover.layout=class_major"], ["recover.layout", "--recover.layout ipc_major"]),
        (["g_vbsm"], ["g_vbsm", "at least 2", "--teachers.names"]),
        (["edc", "--method.category=1.5"], ["method.category", "in [0, 1]", "1.5"]),
        (["edc", TWO, "--relabel.num_teachers=3"], ["relabel.num_teachers is 3", "at most 2"]),
        (["cda", "--method.least_area=0"], ["least_area", "0 < least_area <= first_area <= 1"]),
        (["rded", "--patches.grid=2", "--ipc=40"], ["training images", "160", "--patches.grid 1"]),
        (["pca", "--ipc=40"], ["training images", "160", "--patches.grid 1"]),
        (["rded", "--relabel.shuffle_tiles=2", "--source.size=17"], ["shuffle_tiles", "17"]),
        (["sre2l", "--statistics.images_per_class=0"], ["statistics.images_per_class", "at least 1"]),
    ],
    ids=lambda value: " ".join(value[:1]),
)
def test_a_method_is_refused_what_it_cannot_do(place, capsys, arguments, expected):
    name, *own = arguments
    names_all(refused(capsys, place, "distill", *RECIPE, f"--method={name}", "--output=run", *own), *expected)


def test_the_program_says_it_in_one_line_and_exits_with_2(place):
    command = [sys.executable, "-m", "fadrm_hf.cli", *DISTILL, "--ipc=0"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, contents(place)) == (2, "", {})
    assert ended.stderr == "error: ipc must be at least 1 image per class, got 0; set --ipc\n"


# Sources


def png(value: int, size: int = 16) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def image_folder(folder: Path, per_class: dict[str, int], splits: tuple[str, ...] = ("train", "test")) -> Path:
    for split in splits:
        for place, (name, count) in enumerate(per_class.items()):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                (folder / split / name / f"{index}.png").write_bytes(png(100 * place + index))
    return folder


def table(path: Path, features: dict[str, object], **columns: list[object]) -> Path:
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
    return path


IMAGE, LABEL = datasets.Image(decode=False), datasets.ClassLabel(names=["a", "b"])
PICTURES = [{"bytes": png(index), "path": None} for index in range(4)]
CLASSES = [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("features", "columns", "expected"),
    [
        (
            {"text": datasets.Value("string"), "label": LABEL},
            {"text": list("abcd"), "label": CLASSES},
            ["no image column", "text (string)", "--source.image_column"],
        ),
        (
            {"image": IMAGE, "width": datasets.Value("float32")},
            {"image": PICTURES, "width": [1.0] * 4},
            ["no label column", "width (float32)", "--source.label_column"],
        ),
        (
            {"left": IMAGE, "right": IMAGE, "label": LABEL},
            {"left": PICTURES, "right": PICTURES, "label": CLASSES},
            ["several image columns: left, right", "--source.image_column"],
        ),
        (
            {"image": IMAGE, "fine": LABEL, "coarse": LABEL},
            {"image": PICTURES, "fine": CLASSES, "coarse": CLASSES},
            ["several label columns: fine, coarse", "--source.label_column"],
        ),
        (
            {"image": IMAGE, "label": LABEL},
            {"image": PICTURES, "label": CLASSES},
            ["no test split", "--source.test_split"],
        ),
    ],
    ids=["no image column", "no label column", "several image columns", "several label columns", "no test split"],
)
def test_a_table_that_is_no_image_classification_dataset_is_refused(place, capsys, features, columns, expected):
    table(place / "table.parquet", features, **columns)
    message = refused(capsys, place, *DISTILL, "--source.name=table.parquet", "--ipc=1")
    names_all(message, "table.parquet", *expected)


def test_a_column_that_is_not_there_is_refused(place, capsys):
    table(place / "table.parquet", {"image": IMAGE, "label": LABEL}, image=PICTURES, label=CLASSES)
    message = refused(capsys, place, *DISTILL, "--source.name=table.parquet", "--source.label_column=lable")
    names_all(message, "'lable'", "label (ClassLabel)", "--source.label_column")


def test_a_damaged_table_is_refused(place, capsys):
    path = table(place / "table.parquet", {"image": IMAGE, "label": LABEL}, image=PICTURES, label=CLASSES)
    path.write_bytes(path.read_bytes()[:-20])
    names_all(refused(capsys, place, *DISTILL, "--source.name=table.parquet"), "table.parquet", "--source.name")


def test_a_class_with_too_few_images_is_named(place, capsys):
    image_folder(place / "photos", {"cat": 5, "dog": 3})
    few = ["class 'dog' has 3", "--ipc"]
    photos = (*DISTILL, "--source.name=photos")
    names_all(refused(capsys, place, *photos, "--ipc=4"), "at least 4 for ipc 4", *few)
    names_all(
        refused(capsys, place, *photos, "--ipc=1", "--patches.grid=2"),
        "at least 4 for ipc 1",
        "--patches.grid 1",
        *few,
    )


def test_a_corrupt_image_is_refused_and_named_or_skipped_and_named(place, capsys, caplog):
    photos = image_folder(place / "photos", {"cat": 4, "dog": 4})
    damaged = photos / "train/dog/1.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    command = (*DISTILL, "--source.name=photos", "--squeeze.epochs=1", "--ipc=1", "--squeeze.batch_size=4")
    message = refused(capsys, place, *command)
    names_all(message, "row 5", "dog/1.png", "cannot be decoded", "--source.on_corrupt skip")
    assert main([*command, "--source.on_corrupt=skip"]) == 0
    assert [record.getMessage() for record in caplog.records if "dog/1.png" in record.getMessage()] != []
    source_rows = datasets.load_dataset("run", split="train")["source_index"]
    assert read_manifest(Path("run")).classes.names == ("cat", "dog") and len(source_rows) == 2


# Teachers


def teacher_directory(finished: Path, folder: Path, rows: list[int]) -> Path:
    """The run's teacher with these of its classes, in this order: its weights and its names alike."""
    (made,) = (finished / "teachers").iterdir()
    weights, config = load_file(made / "model.safetensors"), json.loads((made / "config.json").read_text())
    for name in ("fc.weight", "fc.bias"):
        weights[name] = weights[name][rows].contiguous()
    names = [config["label_names"][row] for row in rows]
    config |= {"num_classes": len(rows), "label_names": names}
    config["pretrained_cfg"]["num_classes"] = len(rows)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_teacher_with_another_number_of_classes_is_refused(finished, place, capsys):
    teacher_directory(finished, place / "seven", list(range(7)))
    message = refused(capsys, place, *DISTILL, "--teachers.names=[timm/local-dir:seven]")
    names_all(message, "timm/local-dir:seven", "7 classes", "10 of 'digits'", "--teachers.names squeeze/")


def test_a_teacher_with_permuted_classes_is_refused_or_mended(finished, place, capsys):
    turned = [*range(3, 10), 0, 1, 2]
    teacher_directory(finished, place / "turned", turned)
    command = (*DISTILL, "--teachers.names=[timm/local-dir:turned]")
    message = refused(capsys, place, *command, "--teachers.class_order=refuse")
    names_all(message, "timm/local-dir:turned", "another order than 'digits'", "--teachers.class_order mend")
    names_all(message, "class 0 ('0') is its class 7", "permutation [7, 8, 9, 0, 1, 2, 3, 4, 5, 6]")
    assert main([*command]) == 0  # mended
    (record,) = read_manifest(Path("run")).teachers
    assert record.accuracy == read_manifest(finished).teachers[0].accuracy


def test_a_teacher_below_the_gate_is_refused_and_the_run_may_be_begun_with_a_lower_one(finished, place, capsys):
    teacher_directory(finished, place / "teacher", list(range(10)))
    command = (*DISTILL, "--teachers.names=[timm/local-dir:teacher]")
    message = refused(capsys, place, *command, "--teachers.min_accuracy=1")
    accuracy = read_manifest(finished).teachers[0].accuracy
    names_all(message, "timm/local-dir:teacher", f"{accuracy:.1%}", "100.0%", "'digits'", "--teachers.min_accuracy")
    assert main([*command, "--teachers.min_accuracy=0"]) == 0


def test_a_trained_teacher_below_the_gate_is_kept_and_not_trained_again(place, capsys):
    assert main([*DISTILL, "--teachers.min_accuracy=1"]) == 2
    names_all(capsys.readouterr().err, "squeeze/resnet10_narrow", "below the bar of 100.0%", "--teachers.min_accuracy")
    (weights,) = place.glob("teachers/*/model.safetensors")
    trained = weights.stat().st_mtime_ns
    assert not (place / "run").exists()
    assert main([*DISTILL, "--teachers.min_accuracy=0"]) == 0  # the remedy: not refused as "another run"
    assert weights.stat().st_mtime_ns == trained


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_teacher_is_refused(finished, place, capsys, name):
    folder = teacher_directory(finished, place / "teacher", list(range(10)))
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    names_all(refused(capsys, place, *DISTILL, "--teachers.names=[timm/local-dir:teacher]"), "teacher", name)


def test_the_first_mistake_is_found_before_another_teacher_is_trained(place, capsys):
    message = refused(capsys, place, *DISTILL, "--teachers.names=[squeeze/resnet10_narrow,timm/local-dir:none]")
    names_all(message, "none", "config.json")


# Places


def test_a_folder_with_a_finished_run_takes_no_other(finished, place, capsys):
    copy_run(finished, place)
    message = refused(capsys, place, *DISTILL, "--method.alpha=0.4", "--seed=1")
    names_all(
        message, "run holds another run", "method.alpha is 0.5 there, 0.4 here", "seed is 0 there, 1 here", "--output"
    )


def test_a_folder_with_the_same_finished_run_is_left_as_it_is(finished, place):
    copy_run(finished, place)
    before = contents(place)
    assert main(list(DISTILL)) == 0
    assert contents(place) == before


def test_a_folder_with_an_unfinished_run_takes_no_other_and_loses_nothing(finished, place, capsys):
    run = copy_run(finished, place)
    shutil.rmtree(run)
    (work_of(run) / "soft_labels/epoch00001.safetensors").unlink()
    message = refused(capsys, place, *DISTILL, "--relabel.batch_size=10")
    names_all(message, "run.work holds another run", "relabel.batch_size is 12 there, 10 here", "--output")
    kept = identities(work_of(run))
    assert main(list(DISTILL)) == 0
    assert kept.items() <= identities(work_of(run)).items()


def test_an_unfinished_run_whose_record_is_damaged_is_refused(finished, place, capsys):
    run = copy_run(finished, place)
    shutil.rmtree(run)
    (work_of(run) / "recipe.json").write_text('{"ipc": 2')
    names_all(refused(capsys, place, *DISTILL), "recipe.json", "damaged", "remove run.work")


def test_a_folder_with_other_files_is_refused(place, capsys):
    (place / "run").mkdir()
    (place / "run/thesis.tex").write_text("three years of work")
    names_all(refused(capsys, place, *DISTILL), "run holds other files (thesis.tex)", "empty folder", "--output")


def test_an_empty_folder_is_taken(finished, place):
    shutil.copytree(finished.with_name("teachers"), place / "teachers")
    (place / "run").mkdir()
    assert main(list(DISTILL)) == 0


@pytest.mark.parametrize("output", ["notes", "notes/run", "other"])
def test_a_name_that_is_a_file_is_refused(place, capsys, output):
    (place / "notes").write_text("a file")
    (place / "other.work").write_text("a file")
    message = refused(capsys, place, *DISTILL, "--output", output)
    names_all(message, "other.work" if output == "other" else "notes", "is a file", "--output")


# Artifacts


@pytest.mark.parametrize("command", READERS)
def test_an_artifact_that_is_not_there_is_refused(finished, place, capsys, command):
    names_all(refused(capsys, place, command, "none"), "none is no folder", "check the path")
    (place / "empty").mkdir()
    names_all(refused(capsys, place, command, "empty"), "empty has no fadrm.json", "fadrm-hf distill")
    (place / "file").write_text("a file")
    names_all(refused(capsys, place, command, "file"), "file is no folder", "check the path")


def damage_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("command", READERS)
def test_a_damaged_manifest_is_refused(finished, place, capsys, command):
    run = copy_artifact(finished, place)
    whole = (run / "fadrm.json").read_text()
    for text, expected in (
        (whole[:-100], "is not JSON"),
        ("[]", "expected an object"),
        (whole.replace('"ipc":', '"icp":', 1), "lacks ipc"),
        (whole.replace('"label_epochs": 4', '"label_epochs": "4"'), "label_epochs = '4', expected int"),
    ):
        (run / "fadrm.json").write_text(text)
        names_all(refused(capsys, place, command, "run"), "fadrm.json", expected, "fetch the artifact again")


@pytest.mark.parametrize("command", [*READERS, "distill"])
def test_a_newer_format_is_refused(finished, place, capsys, command):
    run = copy_artifact(finished, place)
    damage_json(run / "fadrm.json", format_version="2.0")
    arguments = DISTILL if command == "distill" else (command, "run")
    names_all(refused(capsys, place, *arguments), "format 2.0", "reads up to 1.x", "pip install -U")


@pytest.mark.parametrize("command", ["train-student", "baselines"])
@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_damaged_table_of_an_artifact_is_refused(finished, place, capsys, command, name):
    run = copy_artifact(finished, place)
    (run / name).write_bytes((run / name).read_bytes()[:-50])
    names_all(refused(capsys, place, command, "run"), name, "is damaged", "fetch the artifact again")
    (run / name).unlink()
    names_all(refused(capsys, place, command, "run"), f"run has no {name}", "fetch the artifact again")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_verify_names_a_damaged_table(finished, place, capsys, name):
    run = copy_artifact(finished, place)
    (run / name).write_bytes((run / name).read_bytes()[:-50])
    before = contents(place)
    assert main(["verify", "run"]) == 1
    shown = capsys.readouterr()
    names_all(shown.out, name, "is damaged", "expected")
    bars = [line.split()[0] for line in shown.err.splitlines()]
    assert bars in (["verify"], ["verify", "leakage"]) and contents(place) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["train-student", f"--epochs={EPOCHS + 1}"],
            [f"{EPOCHS + 1} epochs", f"--epochs {EPOCHS}", "--relabel.epochs"],
        ),
        (
            ["train-student", "--student=timm/resnet10_narow"],
            ["'timm/resnet10_narow'", f"'{STUDENT}'", "set --student"],
        ),
        (["train-student", "--student=timm/inception_v3"], ["timm/inception_v3", "16x16", "another with --student "]),
        (["train-student", "--lr=-1"], ["lr", "positive", "-1", "--lr"]),
        (["train-student", "--labels=medium"], ["labels", "'soft', 'hard'", "medium"]),
        (["train-student", "--source.name=digts"], ["'digts'", "did you mean 'digits'", "--source.name"]),
        (["train-student", "--source.name=photos"], ["photos", "other classes", "--source.name"]),
        (["baselines", "--source.name=photos"], ["photos", "other classes", "--source.name"]),
        (["baselines", "--student=timm/resnet10_narow"], ["'timm/resnet10_narow'", f"'{STUDENT}'", "set --student"]),
        (["baselines", "--rows=[everything]"], ["'everything'", "whole", "--rows"]),
        (["baselines", "--num_seeds=0"], ["num_seeds", "at least 1", "0"]),
        (["verify", "--num_steps=-1"], ["num_steps", "0 or more", "-1"]),
    ],
    ids=lambda value: " ".join(value) if value[0] in READERS else "",
)
def test_mistakes_with_an_artifact_leave_it_as_it_is(finished, place, capsys, arguments, expected):
    copy_artifact(finished, place)
    image_folder(place / "photos", {"cat": 2, "dog": 2})
    command, option = arguments
    names_all(refused(capsys, place, command, "run", option), *expected)
