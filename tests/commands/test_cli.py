"""The command line: what it lists, how a run is put together from file and options, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from fixtures.runs import FADRM, RECIPE, ROOT, STUDENT, copy_run

from fadrm_hf.cli import main
from fadrm_hf.commands.catalogue import COMMANDS, STATIONS
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.commands.listing import PUBLISHED_TEACHERS
from fadrm_hf.config.architectures import list_students
from fadrm_hf.config.datasets import PRESETS, resolve
from fadrm_hf.methods import METHODS, find_method
from fadrm_hf.networks.students import create_student
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.settings import SECTIONS

LISTS = ("methods", "students", "sources", "teachers")


def run(*arguments: str) -> int:
    """The exit code, as a shell would see it."""
    try:
        return main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)


# What it says of itself


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_first_help_shows_every_command(capsys, arguments):
    assert run(*arguments) == 0
    shown = capsys.readouterr().out
    assert [command for command in COMMANDS if f"\n  {command} " not in shown] == []
    assert max(map(len, shown.splitlines())) <= 100
    places = [shown.index(f"\n  {station.name} ") for station in STATIONS]
    assert places == sorted(places), "the stations stand in the order of the line"


@pytest.mark.parametrize("station", STATIONS, ids=lambda station: station.name)
def test_the_example_of_every_station_is_understood(capsys, station):
    """Its words without the values are options or arguments of a command that there is."""
    program, command, *words = station.example.split()
    assert program == "fadrm-hf" and run(command, "--help") == 0
    shown = capsys.readouterr().out
    options = [word for word in words if word.startswith("--")]
    assert [option for option in options if f"{option} " not in shown and f"{option}." not in shown] == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in LISTS])
def test_every_command_explains_its_options(capsys, command):
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    expected = {
        "package": ["--config", "--ipc", "--output"],
        "distill": [
            "--config",
            "--shards",
            "--snapshots",
            "--tracker",
            "--ipc",
            "--method.alpha",
            *(f"--{section}." for section in SECTIONS),
        ],
        "info": ["artifact", "--revision"],
        "inspect": ["place", "--source.name", "--source.bands", "--source.test_fraction"],
        "estimate": ["--processes", "--budget", "--no_students", "--config", "--ipc", "--method.alpha"],
        "train-teacher": ["--architecture", "--squeeze.lr", "--source.name"],
        "train-student": [
            "artifact",
            "--student",
            "--num_seeds",
            "--config",
            "--revision",
            "--streaming",
            "--online",
            "--tracker",
        ],
        "baselines": ["artifact", "--rows", "--num_seeds"],
        "cross-architecture": [
            "artifact",
            "--students",
            "--protocol",
            "--table",
            "--num_seeds",
            "--revision",
            "--output",
        ],
        "whole-dataset": ["--students", "--num_seeds", "--output", "--teachers", "--source.name", "--squeeze.epochs"],
        "continual-learning": ["artifact", "--steps", "--orders", "--student", "--num_seeds", "--labels", "--table"],
        "slim": ["artifact", "--ratio", "--scale_penalty", "--tuning_epochs", "--student", "--num_seeds", "--table"],
        "rank-architectures": ["artifact", "--architectures", "--whole", "--squeeze.epochs", "--num_seeds", "--table"],
        "compare": ["--methods", "--protocol", "--num_seeds", "--output", "--runs", "--settings.METHOD.OPTION"],
        "ablate": ["--config", "--protocol", "--num_seeds", "--output", "--runs"],
        "score": ["artifact", "--student", "--network", "--label_weight", "--augmentation_weight"],
        "analyse": ["artifact", "--network", "--alpha", "--temperature", "--draws", "--source.name"],
        "recode": ["artifact", "output", "--codec", "--stored_epochs"],
        "edit": ["artifact", "output", "--drop_images", "--drop_classes", "--rename_classes", "--even", "--merge"],
        "export": ["artifact", "output", "--form", "--revision"],
        "reproduce": ["artifact", "--revision", "--num_seeds", "--tolerance", "--result"],
        "gallery": ["artifacts", "--output", "--serve", "--port"],
        "publish": ["artifact", "repository", "--private", "--revision", "--labels", "--dry_run", "--space"],
        "push-student": ["folder", "repository", "--private"],
        "send-result": ["result", "repository", "--revision"],
        "import": ["--images", "--labels", "--output", "--sampler_seed", "--teachers.names", "--relabel.codec"],
        "verify": ["artifact", "--revision", "--num_steps", "--leakage", "--source.name"],
    }[command]
    assert f"fadrm-hf {command}" in shown
    assert [option for option in expected if option not in shown] == []


@pytest.mark.parametrize("command", LISTS)
def test_a_list_names_one_thing_per_line(place, capsys, command):
    assert run(command) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    families = ["timm/NAME", "timm/hf-hub:ORG/NAME", "timm/local-dir:PATH", "torchvision/NAME",
                "transformers/ORG/NAME", "squeeze/ARCHITECTURE"]  # fmt: skip
    known = {"methods": METHODS, "students": list_students(), "sources": PRESETS}
    assert names == ["name", *(known.get(command) or [*families, *PUBLISHED_TEACHERS])]


def listed(capsys, command: str) -> list[dict]:
    assert run(command, "--json") == 0
    return json.loads(capsys.readouterr().out)["result"][command]


def test_methods_are_listed_as_their_classes_say(capsys):
    assert [
        (entry["name"], entry["title"], entry["paper"], entry["about"]) for entry in listed(capsys, "methods")
    ] == [
        (name, method.title, f"arXiv {method.paper.arxiv}" if method.paper else "", method.__doc__.splitlines()[0])
        for name, method in METHODS.items()
    ]


def test_sources_are_listed_with_what_one_must_know_of_them(capsys):
    assert listed(capsys, "sources") == [
        {"name": name, "classes": preset.num_classes, "px": preset.size, "licence": preset.licence,
         "gated": preset.gated, "hub": list(preset.hub_ids), "terms": preset.licence_link or ""}
        for name, preset in PRESETS.items()
    ]  # fmt: skip


def test_published_teachers_are_those_that_the_methods_name(place, capsys):
    named = {
        teacher
        for method in METHODS.values()
        for dataset, size in (("imagenet1k", 224), ("cifar10", 32))
        for teacher in method.published(dataset, size, 10).get("teachers", {}).get("names", ())
    }
    entries = listed(capsys, "teachers")
    assert {entry["name"] for entry in entries if entry["kind"] == "published"} == named
    titles = {
        teacher: {method.title for method in METHODS.values() if teacher in names_of_pool(method, teacher)}
        for teacher in named
    }
    for entry in entries:
        if entry["kind"] == "published" and "usual" not in entry["about"]:
            assert set(entry["about"].split(", ")) == titles[entry["name"]]


def names_of_pool(method, teacher: str) -> tuple[str, ...]:
    """The teachers that a method names where `teacher` can be among them."""
    dataset, size = ("cifar10", 32) if teacher.startswith("squeeze/") else ("imagenet1k", 224)
    return method.published(dataset, size, 10)["teachers"]["names"]


def test_teachers_that_runs_have_trained_are_listed_with_their_accuracy(finished, place, capsys):
    shutil.copytree(finished.with_name("teachers"), place / "runs/teachers")
    (folder,) = (place / "runs/teachers").glob("resnet10_narrow-*")
    record = json.loads((folder / "config.json").read_text())["fadrm"]
    entry = listed(capsys, "teachers")[-1]
    assert entry["name"] == f"timm/local-dir:runs/teachers/{folder.name}" and entry["accuracy"] == record["accuracy"]
    assert entry["about"] == f"{record['accuracy']:.1%} on digits, 2 epochs"


WITHOUT_TORCH = """
import sys
from fadrm_hf.cli import main

assert main(sys.argv[1:]) == 0
assert not {"torch", "timm", "datasets", "transformers", "numpy"} & set(sys.modules)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name] for name in LISTS)], ids=" ".join)
def test_help_and_lists_import_no_torch(tmp_path, arguments):
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_is_listed_is_understood():
    for name in METHODS:
        assert parse_run(["--method", name]).method.name == name
    for name in PRESETS:
        assert parse_run(["--source.preset", name]).source.preset == name
    create_student(STUDENT, 10, 16)
    assert STUDENT in list_students()


# How a run is put together


def names_of(section: type) -> set[str]:
    return {item.name for item in fields(section)}


@pytest.mark.parametrize("method", list(METHODS))
def test_the_printed_configuration_is_complete_and_is_the_same_run(tmp_path, capsys, method):
    given = [
        "--method",
        method,
        "--ipc=3",
        "--source.size=24",
        "--teachers.names=[a/b,c/d]",
        "--recover.betas=[0.4,0.8]",
    ]
    assert run("distill", *given, "--output=there", "--print_config") == 0
    text = capsys.readouterr().out
    printed = yaml.safe_load(text)
    assert set(printed) == {"output", "ipc", "seed", "method", *SECTIONS}
    assert set(printed["method"]) == {"name", *names_of(find_method(method))}
    for name, section in SECTIONS.items():
        assert set(printed[name]) == names_of(section)
    (tmp_path / "run.yaml").write_text(text)
    printed_run, asked = (
        parse_run(["--config", str(tmp_path / "run.yaml")]),
        resolve(parse_run([*given, "--output=there"])),
    )
    assert printed_run == replace(asked, method=asked.method.resolve(24)) == resolve(printed_run)


def test_options_win_over_files_and_later_ones_over_earlier_ones(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(
        "ipc: 2\nseed: 5\nmethod:\n  name: fadrm_plus\n  alpha: 0.2\nsource:\n  size: 32\n  name: digits\n"
    )
    second.write_text("ipc: 3\nsource:\n  size: 48\n")
    parsed = parse_run(["--config", str(first), "--config", str(second), "--source.size=64", "--ipc=4", "--ipc=5"])
    assert (parsed.ipc, parsed.seed, parsed.source.size, parsed.source.name) == (5, 5, 64, "digits")
    assert (parsed.method.name, parsed.method.alpha) == ("fadrm_plus", 0.2)
    assert parse_run(["--config", str(first), "--config", str(second)]).source.size == 48


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "random_real"],
        ["--method=random_real"],
        ["--method.name", "random_real"],
        ["--method.name=random_real"],
    ],
)
def test_a_method_is_chosen_by_its_name(tmp_path, words):
    assert type(parse_run(words).method) is METHODS["random_real"]
    config = tmp_path / "run.yaml"
    config.write_text("method:\n  name: fadrm_plus\n")
    assert type(parse_run(["--config", str(config)]).method) is METHODS["fadrm_plus"]
    assert type(parse_run(["--config", str(config), *words]).method) is METHODS["random_real"]


def test_a_run_without_an_output_is_named_after_what_it_is():
    parsed = parse_run(["--method=fadrm_plus", "--source.name=some/folder/photos", "--ipc=7"])
    assert parsed.output == "runs/fadrm-plus-photos-ipc7"


# How it ends


def test_exit_codes_are_told_where_one_looks_for_them(capsys):
    assert run("--help") == 0
    shown, page = capsys.readouterr().out, (ROOT / "docs/operations.md").read_text()
    for code in ExitCode:
        assert f"  {code:>3}  {code.meaning}\n" in shown
        assert f"| {code} | {code.meaning} |" in page


def test_what_nobody_foresaw_has_an_exit_code_of_its_own():
    ended = subprocess.run([sys.executable, "-c", UNFORESEEN, "methods"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (ExitCode.UNFORESEEN, "")
    assert "Traceback" in ended.stderr
    assert ended.stderr.endswith("error: ZeroDivisionError: division by zero; please report this\n")


UNFORESEEN = """
import sys
from fadrm_hf import cli
from fadrm_hf.commands import listing

listing.list_rows = lambda rows: 1 / 0
sys.exit(cli.main())
"""


def test_a_finished_command_exits_with_0(finished, tmp_path, monkeypatch, capsys):
    copy_run(finished, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("verify", "run") == 0
    assert capsys.readouterr().out == "run: sound\n"
    assert run("train-student", "run", "--student", STUDENT, "--num_seeds=1", "--labels=hard") == 0
    (result,) = Path("run/results").glob("*.json")
    described, path = capsys.readouterr().out.splitlines()
    assert described.startswith(f"{STUDENT}, hard labels, 4 epochs: top-1 ") and path == str(result)
    command = f"fadrm-hf train-student run --student {STUDENT} --num_seeds=1 --labels=hard"
    assert json.loads(result.read_text())["command"] == command


def test_verify_exits_with_1_when_something_differs(finished, tmp_path, capsys):
    copied = copy_run(finished, tmp_path)
    (copied / "README.md").write_text("another card")
    assert run("verify", str(copied)) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("README.md: ") and last == f"{copied}: 1 problems"


def test_the_installed_program_is_the_same(tmp_path):
    program = Path(sys.executable).with_name("fadrm-hf")
    ended = subprocess.run([program, "sources"], capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["name", *PRESETS]


def test_an_interrupted_command_says_how_to_go_on(tmp_path):
    command = [
        sys.executable,
        "-m",
        "fadrm_hf.cli",
        "distill",
        *RECIPE,
        *FADRM,
        "--squeeze.epochs=500",
        "--output=run",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # A shell starts what it puts in the background, such as a test run, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not list(tmp_path.glob("teachers/.*.work/checkpoint.safetensors")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate()
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert err.endswith("error: interrupted; run the same command again to resume\n")
    assert "Traceback" not in err
    assert list(tmp_path.glob("teachers/.*.work/checkpoint.safetensors"))  # what is done stays
    assert not (tmp_path / "run").exists()


LITTLE_MEMORY = """
import resource, sys
import fadrm_hf.commands.making
from fadrm_hf.cli import main

taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (3 << 30), taken + (3 << 30)))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_a_lack_of_memory_is_told_with_its_remedy(tmp_path):
    """A real one: training at 1024 px in a process that may take 3 GB more than its libraries have."""
    command = [sys.executable, "-c", LITTLE_MEMORY, "distill", "--source.name=digits", "--source.size=1024", "--ipc=1",
               "--method=random_real", "--teachers.names=[squeeze/resnet10_narrow]", "--teachers.min_accuracy=0",
               "--squeeze.epochs=1", "--output", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    message = " ".join(done.stderr.split())
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "error: out of memory" in message and "fadrm-hf estimate" in message
