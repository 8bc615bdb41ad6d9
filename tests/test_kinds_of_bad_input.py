"""Every kind of bad input that a command can be given, in one table: what it is, and what is said to it.

The suite runs them in this process. `make soak` runs each through the real command line in a process of its own, times
it, and writes `results/bad-input.json`.
"""

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from fixtures import artifacts
from fixtures.mistakes import STAGES, names_all
from fixtures.runs import ROOT
from fixtures.tables import edit_manifest
from PIL import Image
from safetensors.torch import load_file, save_file

from fadrm_hf.class_map import ClassMap
from fadrm_hf.cli import main
from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.files import write_json
from fadrm_hf.machine import describe_machine, library_versions
from fadrm_hf.model_directory import model_config, write_model_directory

RESULT = os.environ.get("BAD_INPUT_RESULT")
SECONDS = 5.0  # in a process of its own, on two cores
BUSY_SECONDS = 20.0  # in this process, on a machine that may have other things to do
DISTILL = (
    "distill --source.name=digits --source.size=16 --ipc=2 --teachers.names=[squeeze/resnet10_narrow] --method=fadrm"
    " --method.iterations=8 --method.sizes=[12,16,12,16] --student.student=timm/resnet10_narrow --output=run "
)
PHOTOS = f"{DISTILL} --source.name=photos --ipc=1 "
CONFIG = "distill --output=run --config=run.yaml"
TEACHER = f"{DISTILL} --teachers.names=[timm/local-dir:teacher] "
IMPORT = "import --source.name=digits --source.size=16 --images=images --labels=labels --output=run "
LABELS = "soft_labels/train-00000-of-00001.parquet"
IMAGES = "data/train-00000-of-00001.parquet"

Make = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """One kind of bad input.

    Attributes:
        typed: The command line.
        said: What its one message must hold: the value, what was expected, the remedy.
        make: Makes the files it is about in the folder where the command is typed.
        environment: Variables that are set.
        code: The exit code.
    """

    typed: str
    said: tuple[str, ...]
    make: Make = lambda place: None
    environment: Mapping[str, str] = field(default_factory=dict)
    code: int = 2


# What is made


def text(name: str, content: str | bytes) -> Make:
    """A file."""

    def make(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def sparse(name: str, num_bytes: int = 1 << 30) -> Make:
    """A file of zeros that takes no room on the disk."""

    def make(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        with open(place / name, "wb") as file:
            file.truncate(num_bytes)

    return make


def bomb(levels: int = 30) -> str:
    """YAML of a thousand bytes that stands for 10^levels values."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"ipc: *a{levels - 1}"])


def photos(**per_class: int) -> Make:
    """An image folder of two splits."""

    def make(place: Path) -> None:
        rng = np.random.default_rng(0)
        for split in ("train", "test"):
            for name, count in per_class.items():
                folder = place / "photos" / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{index}.png")

    return make


def loop(place: Path) -> None:
    """An image folder of which one class is a link to itself."""
    photos(cat=2, dog=2)(place)
    (place / "photos/train/self").symlink_to(place / "photos/train/self")


def photos_of_text(place: Path) -> None:
    """An image folder whose images are text."""
    photos(cat=2, dog=2)(place)
    for file in place.glob("photos/*/*/*.png"):
        file.write_text("a picture of a cat")


def labels(values: list[object]) -> Make:
    """A parquet file of four images, with these labels."""

    def make(place: Path) -> None:
        photos(cat=4)(place)
        images = [{"bytes": file.read_bytes(), "path": None} for file in sorted(place.glob("photos/train/*/*.png"))]
        pq.write_table(pa.table({"image": images, "label": values}), place / "table.parquet")
        shutil.rmtree(place / "photos")

    return make


def truncated_parquet(place: Path) -> None:
    labels([0, 1, 0, 1])(place)
    content = (place / "table.parquet").read_bytes()
    (place / "table.parquet").write_bytes(content[: len(content) // 2])


def teacher(change: Callable[[Path], object] = lambda folder: None, num_classes: int = 10) -> Make:
    """A model directory, then changed."""

    def make(place: Path) -> None:
        folder, names = place / "teacher", tuple(map(str, range(num_classes)))
        network = timm.create_model("resnet10_narrow", num_classes=num_classes)
        images = SourceConfig(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
        config = model_config(network, "resnet10_narrow", ClassMap(names, names), images)
        write_model_directory(network, config, folder)
        change(folder)

    return make


def cut(name: str) -> Callable[[Path], object]:
    """The first half of a file."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def with_config(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", config | changes)

    return change


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return apply


def pickled(folder: Path) -> None:
    """Weights as torch saved them before safetensors."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


class Payload:
    """What a pickle may do when it is read."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def release(content: bytes) -> Make:
    """An older release with one label file."""

    def make(place: Path) -> None:
        for digit in range(10):
            (place / f"images/{digit}").mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(place / f"images/{digit}/0.jpg")
        text("labels/epoch_0/batch_0.tar", content)(place)

    return make


def artifact(change: Callable[[Path], object] = lambda folder: None) -> Make:
    """A finished run with its shards, then changed."""

    def make(place: Path) -> None:
        change(artifacts.make_artifact(place / "run"))

    return make


def manifest(**changes: object) -> Make:
    """A finished run whose manifest says something else."""
    return artifact(lambda folder: edit_manifest(folder, **changes))


def complete(**changes: object) -> Make:
    """A finished run whose recipe says how students are trained, and whose manifest then says something else."""

    def change(folder: Path) -> None:
        student = asdict(StudentConfig(student="timm/resnet10_narrow", epochs=artifacts.EPOCHS))
        source = asdict(SourceConfig(size=artifacts.SIZE, mean=(0.5,) * 3, std=(1.0,) * 3))
        config = artifacts.make_manifest().config | {
            "student": student,
            "source": source,
            "teachers": {"names": ["squeeze/resnet10_narrow"]},
        }
        edit_manifest(folder, config=config, **changes)

    return artifact(change)


def manifest_text(change: Callable[[str], str]) -> Make:
    def apply(folder: Path) -> None:
        path = folder / "fadrm.json"
        path.write_text(change(path.read_text()))

    return artifact(apply)


def naming(path: str) -> Make:
    """A finished run whose manifest names a file at `path`."""

    def change(folder: Path) -> None:
        document = json.loads((folder / "fadrm.json").read_text())
        edit_manifest(folder, files=document["files"] | {path: {"sha256": "0" * 64, "bytes": 1}})

    return artifact(change)


def linked_out(folder: Path) -> None:
    (folder / IMAGES).rename(folder.with_name("elsewhere"))
    (folder / IMAGES).symlink_to(folder.with_name("elsewhere"))


def changed_bit(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


def both(*makes: Make) -> Make:
    def make(place: Path) -> None:
        for one in makes:
            one(place)

    return make


FETCH = "fetch the artifact again"
INSIDE = "expected a path inside the artifact"

KINDS: dict[str, Kind] = {
    # words
    "unknown command": Kind("distil", ("'distil'", "did you mean 'distill'")),
    "unknown option": Kind(f"{DISTILL} --method.alfa=1", ("--method.alfa", "--help")),
    "abbreviated option": Kind(f"{DISTILL} --relabel.epoch=3", ("--relabel.epoch", "--help")),
    "option without value": Kind(f"{DISTILL} --ipc", ("--ipc", "one argument")),
    "word too many": Kind(f"{DISTILL} more", ("more", "--help")),
    "argument missing": Kind("verify", ("artifact", "required", "--help")),
    "unknown source": Kind(f"{DISTILL} --source.name=digit", ("'digit'", "did you mean 'digits'", "--source.name")),
    "unknown method": Kind(f"{DISTILL} --method=fadrn", ("'fadrn'", "'fadrm'", "--method.name")),
    "unknown teacher family": Kind(f"{DISTILL} --teachers.names=[tim/x]", ("'tim'", "'timm'", "--teachers.names")),
    "unknown teacher": Kind(f"{DISTILL} --teachers.names=[timm/resnet81]", ("'resnet81'", "did you mean")),
    "unknown student": Kind(f"{DISTILL} --student.student=timm/resnt18", ("'timm/resnt18'", "--student.student")),
    "unknown codec": Kind(f"{DISTILL} --relabel.codec=int3", ("'int3'", "int4", "top<k>")),
    "no list": Kind(f"{DISTILL} --teachers.names=timm/resnet18", ("teachers.names", "'[A, B]'")),
    # numbers
    "zero": Kind(f"{DISTILL} --ipc=0", ("ipc", "at least 1", "got 0", "--ipc")),
    "negative number": Kind(f"{DISTILL} --ipc=-3", ("ipc", "at least 1", "got -3", "--ipc")),
    "word for a number": Kind(f"{DISTILL} --ipc=ten", ("ipc", "int", "ten")),
    "fraction for a whole number": Kind(f"{DISTILL} --ipc=1.5", ("ipc", "int", "1.5")),
    "huge number": Kind(f"{DISTILL} --ipc=1000000000000", ("--ipc", "1000000000000")),
    "huge size": Kind(f"{DISTILL} --source.size=1000000 --method.sizes=null", ("source.size", "4096", "1000000")),
    "number that is none": Kind(f"{DISTILL} --recover.lr=.nan", ("recover.lr", "positive", "nan", "--recover.lr")),
    "infinite number": Kind(f"{DISTILL} --recover.lr=.inf", ("recover.lr", "finite", "inf", "--recover.lr")),
    "colour that is none": Kind(f"{DISTILL} --source.mean=[.nan,0,0]", ("source.mean", "finite", "nan")),
    "infinite rate of students": Kind("train-student run --lr=.inf", ("lr", "finite", "inf", "--lr"), complete()),
    "probability above 1": Kind(f"{DISTILL} --relabel.flip_probability=2", ("relabel.flip_probability", "[0, 1]")),
    "tuple of wrong length": Kind(f"{DISTILL} --recover.betas=[0.5]", ("recover.betas", "0.5")),
    "word for a switch": Kind("verify run --leakage=perhaps", ("leakage", "bool", "perhaps"), artifact()),
    "shards of nothing": Kind(f"{DISTILL} --shards=0:3", ("shards", "'0:3'", "K:N", "--shards 3:8")),
    "shards beyond": Kind(f"{DISTILL} --shards=4:3", ("shards", "'4:3'", "K:N")),
    "shards without a value": Kind(f"{DISTILL} --shards", ("shards", "''", "K:N")),
    "tolerance": Kind("reproduce run --tolerance=much", ("much", "2sigma", "--tolerance"), artifact()),
    "budget": Kind(DISTILL.replace("distill", "estimate", 1) + "--budget=nan", ("budget", "positive", "nan")),
    # environment
    "WORLD_SIZE is a word": Kind(
        DISTILL, ("WORLD_SIZE", "many", "number", "unset"), environment={"WORLD_SIZE": "many"}
    ),
    "WORLD_SIZE of others": Kind(DISTILL, ("WORLD_SIZE is 3", "accelerate"), environment={"WORLD_SIZE": "3"}),
    "ACCELERATE_USE_CPU is a word": Kind(
        DISTILL, ("ACCELERATE_USE_CPU", "'maybe'", "true"), environment={"ACCELERATE_USE_CPU": "maybe"}
    ),
    # files of settings
    "no such config": Kind("distill --config=runs.yaml", ("runs.yaml", "does not exist", "recipes/configs/")),
    "config is a folder": Kind(CONFIG, ("run.yaml", "not readable"), lambda place: (place / "run.yaml").mkdir()),
    "config is a device": Kind("distill --config=/dev/zero", ("/dev/zero", "no file", "recipes/configs/")),
    "config is a pipe": Kind(CONFIG, ("run.yaml", "no file"), lambda place: os.mkfifo(place / "run.yaml")),
    "config of a gigabyte": Kind(CONFIG, ("run.yaml", "1,073,741,824 bytes", "at most"), sparse("run.yaml")),
    "config of bytes": Kind(CONFIG, ("run.yaml", "not readable"), text("run.yaml", b"\x89PNG\r\n\x1a\n\0\xff")),
    "broken YAML": Kind(CONFIG, ("run.yaml", "not readable YAML", "line 2"), text("run.yaml", "ipc: [1\nmethod: {")),
    "YAML is a list": Kind(CONFIG, ("run.yaml", "holds list", "sections"), text("run.yaml", "- ipc\n- seed\n")),
    "YAML is empty": Kind(CONFIG, ("run.yaml", "sections"), text("run.yaml", "")),
    "YAML with an unknown key": Kind(CONFIG, ("rate", "--help"), text("run.yaml", "recover:\n  rate: 3\n")),
    "YAML with a key twice": Kind(CONFIG, ("run.yaml", "'ipc'", "twice"), text("run.yaml", "ipc: 1\nipc: 2\n")),
    "YAML with a key that is no word": Kind(CONFIG, ("run.yaml", "[1, 2]"), text("run.yaml", "? [1, 2]\n: 3\n")),
    "YAML with a number for a key": Kind(CONFIG, ("run.yaml", "3"), text("run.yaml", "recover:\n  3: 4\n")),
    "YAML with a Python tag": Kind(
        CONFIG,
        ("run.yaml", "not readable", "python/object"),
        text("run.yaml", "ipc: !!python/object/apply:os.mkdir [executed]\n"),
    ),
    "YAML that unfolds": Kind(CONFIG, ("run.yaml", "alias"), text("run.yaml", bomb())),
    "YAML that holds itself": Kind(CONFIG, ("run.yaml", "alias"), text("run.yaml", "method: &a\n  name: *a\n")),
    "YAML nested too deeply": Kind(CONFIG, ("run.yaml", "nested"), text("run.yaml", "ipc: " + "[" * 5000)),
    "YAML of several documents": Kind(CONFIG, ("run.yaml", "not readable"), text("run.yaml", "ipc: 1\n---\nipc: 2\n")),
    "protocol with an unknown setting": Kind(
        "compare --methods=[random_real,fadrm] --protocol=protocol.yaml",
        ("rate", "--help"),
        text("protocol.yaml", "rate: 3\n"),
    ),
    "no such protocol": Kind("compare --methods=[fadrm] --protocol=none.yaml", ("none.yaml", "does not exist")),
    "protocol of impossible values": Kind(
        "compare --methods=[random_real,fadrm] --protocol=protocol.yaml",
        ("epochs", "at least 1", "-3"),
        text("protocol.yaml", "epochs: -3\n"),
    ),
    # sources
    "source of an empty folder": Kind(PHOTOS, ("photos", "--source.name"), lambda place: (place / "photos").mkdir()),
    "source of a single folder": Kind(PHOTOS, ("photos", "no label column", "image (Image)"), photos(cat=4)),
    "source of a single class": Kind(
        f"{DISTILL} --source.name=table.parquet --source.test_split=train --ipc=1",
        ("class '7'", "2 classes"),
        labels([7] * 4),
    ),
    "source of too few images": Kind(f"{PHOTOS} --ipc=4", ("class 'dog' has 3", "--ipc"), photos(cat=5, dog=3)),
    "source of no images": Kind(PHOTOS, ("cat/0.png", "no image file", "--source.on_corrupt"), photos_of_text),
    "source with a link to itself": Kind(f"{PHOTOS} --ipc=3", ("class 'cat' has 2", "--ipc"), loop),
    "source of a kind unknown": Kind(
        f"{DISTILL} --source.name=notes.txt", ("'notes.txt'", ".parquet", "--source.name"), text("notes.txt", "cat")
    ),
    "csv without labels": Kind(
        f"{DISTILL} --source.name=table.csv",
        ("no label column", "--source.label_column"),
        text("table.csv", "file_name,width\na.png,3\n"),
    ),
    "csv of files that are not there": Kind(
        f"{DISTILL} --source.name=photos --source.test_split=train --ipc=1",
        ("a.png", "cannot be opened"),
        text("photos/train.csv", "file_name,label\na.png,cat\nb.png,dog\n"),
    ),
    "csv of bytes": Kind(
        f"{DISTILL} --source.name=photos",
        ("'photos'", "utf-8", "mend its files"),
        text("photos/table.csv", b"\xff\xfe\0"),
    ),
    "truncated parquet": Kind(
        f"{DISTILL} --source.name=table.parquet", ("table.parquet", "cannot be read"), truncated_parquet
    ),
    "saved dataset that is none": Kind(
        PHOTOS, ("photos", "cannot be read", "--source.name"), text("photos/dataset_dict.json", "{")
    ),
    "labels of fractions": Kind(
        f"{DISTILL} --source.name=table.parquet", ("no label column", "label (float64)"), labels([0.5, 1.5, 0.5, 1.5])
    ),
    "labels missing": Kind(
        f"{DISTILL} --source.name=table.parquet --source.test_split=train --ipc=1",
        ("row 1", "None", "expected one of"),
        labels([0, None, 1, 1]),
    ),
    "column that is not there": Kind(
        f"{DISTILL} --source.name=table.parquet --source.label_column=width",
        ("'width'", "label (int64)"),
        labels([0, 1, 0, 1]),
    ),
    # teachers
    "no such teacher": Kind(TEACHER, ("teacher", "config.json", "--teachers.names")),
    "teacher of other classes": Kind(TEACHER, ("7 classes", "10 of 'digits'", "squeeze/"), teacher(num_classes=7)),
    "teacher of pickled weights": Kind(TEACHER, ("safetensors", "pickled", "save_pretrained"), teacher(pickled)),
    "teacher of truncated weights": Kind(
        TEACHER, ("model.safetensors", "damaged", "--teachers.names"), teacher(cut("model.safetensors"))
    ),
    "teacher of weights that are no numbers": Kind(
        TEACHER,
        ("teacher", "not finite", "--teachers.names"),
        teacher(with_weights(lambda weights: weights["fc.weight"].fill_(float("nan")))),
    ),
    "teacher of other shapes": Kind(
        TEACHER,
        ("teacher", "fc.weight"),
        teacher(with_weights(lambda weights: weights.update({"fc.weight": torch.zeros(3, 3)}))),
    ),
    "teacher that lacks weights": Kind(
        TEACHER, ("teacher", "fc.weight"), teacher(with_weights(lambda weights: weights.pop("fc.weight")))
    ),
    "teacher's config is no JSON": Kind(TEACHER, ("config.json", "damaged"), teacher(cut("config.json"))),
    "teacher's config is a list": Kind(
        TEACHER, ("config.json", "damaged"), teacher(lambda folder: text("config.json", "[]")(folder))
    ),
    "teacher's config names no network": Kind(
        TEACHER, ("teacher", "config.json"), teacher(with_config(architecture=None))
    ),
    "teacher's config of wrong types": Kind(
        TEACHER, ("teacher", "config.json"), teacher(with_config(pretrained_cfg=3, num_classes="many"))
    ),
    # places
    "output is a file": Kind(DISTILL, ("run", "is a file", "--output"), text("run", "notes")),
    "output holds other files": Kind(DISTILL, ("thesis.tex", "empty folder", "--output"), text("run/thesis.tex", "")),
    "output of another run": Kind(DISTILL, ("holds another run", "there", "here", "--output"), artifact()),
    "output without a name": Kind(f"{DISTILL} --output=", ("output", "a folder", "''")),
    "output of a name too long": Kind(f"{DISTILL} --output={'x' * 300}", ("xxx", "too long", "--output")),
    "output that cannot be made": Kind(f"{DISTILL} --output=/proc/run", ("/proc", "--output")),
    "work that is no recipe": Kind(
        DISTILL, ("recipe.json", "damaged", "remove run.work"), text("run.work/recipe.json", "[")
    ),
    # artifacts
    "no artifact": Kind("verify none", ("none is no folder", "check the path")),
    "folder without a manifest": Kind(
        "verify run", ("no fadrm.json", "fadrm-hf distill"), lambda place: (place / "run").mkdir()
    ),
    "manifest is a folder": Kind(
        "verify run", ("fadrm.json",), lambda place: (place / "run/fadrm.json").mkdir(parents=True)
    ),
    "manifest is no JSON": Kind(
        "verify run", ("fadrm.json", "is not JSON", FETCH), manifest_text(lambda found: found[:-9])
    ),
    "manifest is a list": Kind("verify run", ("fadrm.json", "an object", FETCH), manifest_text(lambda found: "[]")),
    "manifest nested too deeply": Kind(
        "verify run", ("fadrm.json", "is not JSON", FETCH), manifest_text(lambda found: "[" * 100_000)
    ),
    "manifest of a gigabyte": Kind(
        "verify run", ("1,073,741,824 bytes", FETCH), artifact(lambda folder: sparse("fadrm.json")(folder))
    ),
    "manifest of a newer version": Kind(
        "verify run", ("format 2.0", "up to 1.x", "pip install -U"), manifest(format_version="2.0")
    ),
    "manifest without a field": Kind(
        "verify run", ("lacks ipc", FETCH), manifest_text(lambda found: found.replace('"ipc":', '"icp":', 1))
    ),
    "manifest with a wrong type": Kind(
        "train-student run", ("label_epochs = '4'", "expected int", FETCH), complete(label_epochs="4")
    ),
    "manifest of more images": Kind("train-student run", ("8 rows", "40", FETCH), complete(ipc=10)),
    "manifest of fewer images": Kind("train-student run", ("8 rows", "4", FETCH), complete(ipc=1)),
    "manifest of no student": Kind("train-student run", ("config.student", FETCH), artifact()),
    "manifest of an unknown codec": Kind(
        "train-student run", ("'zip'", "int4", "pip install -U"), complete(label_codec="zip")
    ),
    "manifest of huge numbers": Kind(
        "train-student run",
        ("pixels.size", "at most 4,096", FETCH),
        manifest(pixels={"size": 10**9, "mean": [0.5] * 3, "std": [1.0] * 3}),
    ),
    "path above": Kind("verify run", ("'../x'", INSIDE, FETCH), naming("../x")),
    "path from the root": Kind("verify run", ("'/etc/passwd'", INSIDE), naming("/etc/passwd")),
    "path of a Windows drive": Kind("verify run", ("'C:", INSIDE), naming("C:\\x")),
    "path with a zero byte": Kind("verify run", (INSIDE, FETCH), naming("a\0b")),
    "link out of the artifact": Kind("verify run", ("symbolic link", FETCH), artifact(linked_out)),
    "bytes that changed": Kind("verify run --leakage=false --num_steps=0", (), artifact(changed_bit(LABELS)), code=1),
    "images that changed": Kind("recode run small --codec=int8", (IMAGES, "damaged"), artifact(changed_bit(IMAGES))),
    "labels that changed": Kind("recode run small --codec=int8", (LABELS, "damaged"), artifact(changed_bit(LABELS))),
    "labels that are not there": Kind(
        "recode run small --codec=int8", ("soft_labels", FETCH), artifact(lambda folder: (folder / LABELS).unlink())
    ),
    "recode to a codec unknown": Kind("recode run small --codec=int5", ("'int5'", "int4"), artifact()),
    "recode to more epochs": Kind("recode run small --stored_epochs=9", ("9", "1 to 3"), artifact()),
    "recode onto a file": Kind("recode run notes", ("notes", "is a file"), both(artifact(), text("notes", ""))),
    "recipe that is no YAML": Kind(
        "distill --config=run/recipe.yaml",
        ("recipe.yaml", "not readable"),
        artifact(lambda folder: text("recipe.yaml", "\t")(folder)),
    ),
    # repositories
    "repository without a name": Kind("publish run name", ("'name'", "ORG/NAME"), artifact()),
    "repository of three names": Kind("publish run a/b/c", ("'a/b/c'", "ORG/NAME"), artifact()),
    "repository above": Kind("train-student ../..@v1 --output=out", ("../..@v1", "no folder")),
    "repository with a space": Kind("publish run 'org/my run'", ("'org/my run'", "ORG/NAME"), artifact()),
    "repository that is not there": Kind("verify org/none --output=x", ("--output", "--help")),
    "two revisions": Kind("verify org/name@v1 --revision=v2", ("v1", "v2", "one of them")),
    "version that is none": Kind(
        "publish run org/name --revision='one two'", ("'one two'", "'v1.0'", "--revision"), artifact()
    ),
    "model repository of a wrong name": Kind("push-student student a/b/c", ("'a/b/c'", "ORG/MODEL")),
    "result that is none": Kind("send-result result.json org/name", ("result.json",), text("result.json", "{}")),
    # older releases
    "release without images": Kind(IMPORT, ("images", "--images")),
    "release without labels": Kind(
        IMPORT, ("labels", "epoch_0", "--labels"), both(release(b""), lambda place: shutil.rmtree(place / "labels"))
    ),
    "release of no pickle": Kind(IMPORT, ("batch_0.tar", "damaged", "that you trust"), release(b"labels")),
    "release with code": Kind(IMPORT, ("batch_0.tar", "run code", "that you trust"), release(pickle.dumps(Payload()))),
}


# How they are typed


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(place: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below a folder; nothing is opened."""
    found = ((path, path.lstat()) for path in place.rglob("*"))
    return {path.relative_to(place).as_posix(): (stat.st_size, stat.st_mtime_ns) for path, stat in found}


def check(kind: Kind, code: int, printed: str, message: str) -> None:
    """One message, in the exit code's words, and nothing after it."""
    shown = printed + message
    assert code == kind.code, shown
    assert "Traceback" not in shown
    if code == 2:
        heading, _, said = message.partition("error: ")
        assert printed == "" and [stage for stage in STAGES if stage in heading] == [], shown
        names_all(said, *kind.said)


@pytest.fixture(scope="module")
def record():
    """Seconds, exit code and last line of each kind that ran in a process of its own."""
    kinds: dict[str, dict[str, object]] = {}
    yield kinds
    if RESULT is not None:
        seconds = sorted(float(str(kind["seconds"])) for kind in kinds.values())
        summary = {"kinds": len(kinds), "seconds": {"median": seconds[len(seconds) // 2], "largest": seconds[-1]}}
        machine = {"machine": describe_machine(), "versions": library_versions()}
        write_json(Path(RESULT), summary | machine | {"each": kinds})


def test_there_are_many_kinds():
    assert len(KINDS) >= 40


@pytest.mark.parametrize("name", KINDS)
def test_bad_input_is_named_and_costs_nothing(place, capfd, monkeypatch, record, name):
    kind = KINDS[name]
    kind.make(place)
    for variable, value in kind.environment.items():
        monkeypatch.setenv(variable, value)
    before = state(place)
    capfd.readouterr()
    started = time.monotonic()
    if RESULT is None:
        code = main(shlex.split(kind.typed))
        printed, message = capfd.readouterr()
        assert time.monotonic() - started < BUSY_SECONDS
    else:
        command = [str(Path(sys.executable).with_name("fadrm-hf")), *shlex.split(kind.typed)]
        ended = subprocess.run(command, capture_output=True, text=True)
        code, printed, message = ended.returncode, ended.stdout, ended.stderr
        seconds = round(time.monotonic() - started, 2)
        last = (printed + message).strip().splitlines()[-1].replace(str(ROOT), "").replace(str(place), "")
        record[name] = {"typed": kind.typed, "seconds": seconds, "code": code, "last_line": last[:200]}
        assert seconds < SECONDS
    check(kind, code, printed, message)
    assert state(place) == before
