"""Every command and snippet of README.md and docs/ is run, at a small size, or at least read by its own parser."""

import re
import runpy
import shutil
import subprocess
import zlib
from pathlib import Path

import click
import pytest
from accelerate.commands.launch import launch_command_parser
from fixtures.documents import ROOT, blocks
from huggingface_hub.cli.hf import app
from PIL import Image
from sklearn.datasets import load_digits

from fadrm_hf import cli
from fadrm_hf.cli import main
from fadrm_hf.commands.ablate import parse_sweep
from fadrm_hf.commands.compare import parse_comparison
from fadrm_hf.methods import METHODS

DIGITS = "runs/fadrm-digits-ipc10"
TEACHER = "--teachers.names=[squeeze/resnet10_narrow]"
SQUEEZE = ("--squeeze.epochs=1", "--squeeze.batch_size=20")
NO_BAR = ("--teachers.min_accuracy=0", "--teachers.gate_images=20", "--patches.pool=20", "--patches.crops_per_image=1")
LABELS = ("--relabel.epochs=1", "--student.epochs=1", "--student.num_seeds=1")
STUDENT = ("--epochs=1", "--num_seeds=1", "--student=timm/resnet10_narrow")

# Commands that are run, each with what is added to what the page says, so that it ends within seconds.
SIZES = {
    "distill": ("--source.size=16", "--ipc=1", "--method.iterations=4", *SQUEEZE, *NO_BAR, *LABELS),
    "train-teacher": ("--source.size=16", "--architecture=resnet10_narrow", *SQUEEZE),
    "train-student": STUDENT,
    "baselines": ("--rows=[random_real]", "--num_seeds=1", "--student=timm/resnet10_narrow"),
    "publish": (),
    "recode": (),
    "edit": (),
    "export": (),
    "score": (),
    "verify": ("--num_steps=1",),
    "inspect": (),
    "methods": (),
    "students": (),
}
# What is not here: data sets that would have to be fetched, a disk of several machines; and what has no short form.
ELSEWHERE = re.compile(r"--merge|cifar|imagenet|/shared/|--print_config|--protocol unaugmented")
# The same for programs: their text, and what stands in its place.
SMALLER = {
    '"--ipc=10"': '"--ipc=1", ' + ", ".join(f'"{word}"' for word in (*SQUEEZE, *NO_BAR)),
    "iterations=200": "iterations=4",
    "epochs=60": "epochs=1",
    "num_seeds=3": "num_seeds=1",
}
# tests/documents/test_docs.py, without the library, and tests/documents/test_trainers.py, each program by itself.
RUN_BY_OTHER_TESTS = {"docs/any_framework.md", "docs/trainers.md"}

BLOCKS = blocks()
PROGRAMS = sorted({block.page for block in BLOCKS if block.language == "python"} - RUN_BY_OTHER_TESTS)


@pytest.fixture(scope="module")
def desk(finished, tmp_path_factory):
    """A folder in which the pages' names mean something: an artifact, and an image folder of two classes."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "runs").mkdir()
    for name in ("", ".work"):
        shutil.copytree(f"{finished}{name}", folder / f"{DIGITS}{name}")
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:120], digits.target[:120], strict=True)):
        if label < 2:
            place = folder / "path/to/images" / ("train" if number < 90 else "test") / ("ash", "birch")[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15).astype("uint8")).resize((16, 16)).save(place / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def is_run(words):
    """Whether a command of the library can be run here."""
    return words[1] in SIZES and not ELSEWHERE.search(" ".join(words[1:]))


def as_read(words):
    """What a page writes for any artifact is the one that is there."""
    return [DIGITS if word in ("ARTIFACT", "RUN") else word for word in words]


def commands(run):
    """The library's commands, each once, with the block where it is first: those that are run, or the others."""
    found = {}
    for block in BLOCKS:
        if block.language == "bash":
            for words in block.commands():
                if words[0] == "fadrm-hf" and is_run(words) == run:
                    found.setdefault(tuple(as_read(words[1:])), block)
    return found


def read_by_its_parser(arguments):
    """Have a command of the library read its arguments, and nothing else."""
    if "--import" in arguments:
        method = next(block for block in BLOCKS if "class LateResidual" in block.text)
        Path("late_residual.py").write_text(method.text)
    try:
        if arguments[0] == "compare":
            assert parse_comparison(arguments[1:])[0]
        elif arguments[0] == "ablate":
            assert parse_sweep(arguments[1:]).cells
        else:
            wish = [] if "--print_config" in arguments else ["--print_config"]
            assert main([*arguments, *wish]) == 0
    finally:
        METHODS.pop("late_residual", None)


def read_by_accelerate(words):
    """`accelerate launch`: a recipe, and the command that it is."""
    given = launch_command_parser().parse_args(words[1:])
    command = re.search(r'main\(\["([\w-]+)"', (ROOT / given.training_script).read_text())[1]
    read_by_its_parser([command, *given.training_script_args])


def read_by_a_script(script, arguments):
    """A script of the repository that passes its arguments on to `distill`."""
    assert subprocess.run(["bash", "-n", script], cwd=ROOT).returncode == 0
    read_by_its_parser(["distill", *arguments])


def read_by_the_hubs_client(words):
    """`hf GROUP COMMAND`, whose parser reads the rest."""
    group = app.get_command(click.Context(app), words[0])
    command = group.get_command(click.Context(group), words[1])
    assert command.make_context("hf", words[2:]).params


def read_by_make(words):
    """`make`: the targets are there, and all that they are made from."""
    asked = ["make", "-n", *words]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True).returncode == 0


def understand(words):
    """Have a command of another program read by it; what nobody reads is refused."""
    program, *rest = words
    if program == "make":
        read_by_make(rest)
    elif program == "accelerate":
        read_by_accelerate(rest)
    elif program == "sbatch":
        read_by_a_script(*rest[:1], rest[1:])
    elif program == "recipes/launch/hf_jobs.sh":
        read_by_a_script(program, rest[3:])
    elif program == "hf":
        read_by_the_hubs_client(rest)
    else:
        raise AssertionError(
            f"{words} is neither run nor read by a parser; give it a place in tests/documents/test_documents.py"
        )


def test_every_block_is_of_a_language_that_is_run():
    assert {block.language for block in BLOCKS} <= {"bash", "python", ""}, "text has no language"
    assert {block.page for block in BLOCKS if block.language == "python"} > RUN_BY_OTHER_TESTS


def test_the_commands_of_other_programs_are_read_by_them():
    for block in BLOCKS:
        if block.language == "bash":
            for words in block.commands():
                if words[0] != "fadrm-hf":
                    understand(words)


@pytest.mark.parametrize("words", commands(run=False), ids=" ".join)
def test_a_command_that_is_not_run_is_read_by_its_parser(words, place):
    read_by_its_parser([word.replace("path/to/cifar10", "digits") for word in words])  # a source with ten classes


@pytest.mark.parametrize("words", commands(run=True), ids=" ".join)
def test_a_command_runs(words, desk, hub, monkeypatch, capsys):
    """In the order of the pages, on one desk: what a command makes, a later one may take."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    more = list(SIZES[words[0]])
    if words[0] == "distill" and "timm/" not in " ".join(words):
        more.append(TEACHER)
    if words[0] == "distill" and "--output" not in words:
        more.append(f"--output=runs/{zlib.crc32(' '.join(words).encode())}")
    if "small/own_fadrm_ipc10" in words:  # which spells out the side of images once more
        more.append("--method.sizes=[16,16,16,16]")
    assert main([*words, *more]) == 0, capsys.readouterr().err


@pytest.fixture
def commands_of_programs(monkeypatch):
    """The commands that a program gives to `main`, and what each returned."""
    given, own = [], cli.main
    monkeypatch.setattr(cli, "main", lambda words: given.append((words[0], own(words))) or given[-1][1])
    return given


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_program_of_a_page_runs(page, desk, commands_of_programs, capsys):
    text = "\n".join(block.text for block in BLOCKS if block.page == page and block.language == "python")
    for printed, smaller in SMALLER.items():
        text = text.replace(printed, smaller)
    program = desk / f"{Path(page).stem}.py"
    program.write_text(text)
    known = set(METHODS)
    try:
        runpy.run_path(str(program), run_name="__main__")
    finally:
        for name in set(METHODS) - known:
            del METHODS[name]
    assert [code for _, code in commands_of_programs] == [0] * text.count("main([")
    if page == "docs/new_method.md":
        assert [name for name, _ in commands_of_programs] == ["compare"], capsys.readouterr().err
        table = (desk / "results/late-residual.md").read_text()
        assert "| FADRM |" in table and "| Late residual |" in table and "Not finished" not in table
        assert "`--import` names the file of `late_residual`" in table
