"""One run with some of its settings changed: the table, what is made again, who makes it, and what is refused."""

import contextlib
import csv
import io
import json
import multiprocessing
import re
import statistics
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import yaml
from fixtures.holding import hold
from fixtures.runs import EPOCHS, PROCESSES, RECIPE, STUDENT, files_of, identities, work_of

from fadrm_hf.cli import main
from fadrm_hf.commands.ablate import parse_sweep
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import ConfigError
from fadrm_hf.evaluation.results_page import render_results_page
from fadrm_hf.evaluation.sweep import build_sweep, with_settings
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.report.pictures.curves import draw_axis

CONFIGS = Path(__file__).parent.parent.parent / "recipes/configs"
SWEEP = {
    "base": "base.yaml",
    "num_seeds": 2,
    "settings": {"ipc": 1, "method.iterations": 4, "method.sizes": None, "recover.batch_size": 10},
    "axes": {"method.alpha": [0.5, 1.0]},
    "runs": "runs",
    "output": "tables/sweep",
}
AXES = {
    "method.alpha": [1.0, 0.5],
    "method.num_residuals": [0],
    "components": {"no ARC": {"method.alpha": 1.0}},
}
RUNS = ("alpha-1.0", "base", "num_residuals-0", "random_real")


def write_yaml(path: str, content: dict) -> None:
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False))


def base() -> dict:
    """The suite's recipe as a file of a run holds it."""
    words = (word.removeprefix("--").partition("=") for word in RECIPE)
    return {name: yaml.safe_load(value) for name, _, value in words} | {"method.name": "fadrm"}


def kill_the_first_process() -> None:
    while not (running := multiprocessing.active_children()):
        time.sleep(0.01)
    running[0].kill()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder in which a sweep of two cells lost the process of the first, and was then run again with more of them,
    while somebody else held that first one. What was told and shown of both, and the shards after the former."""
    folder = tmp_path_factory.mktemp("swept")
    forkserver.ensure_running()  # that of the suite, which imports once what every cell needs
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        write_yaml("base.yaml", base())
        write_yaml("sweep.yaml", SWEEP)
        killer = threading.Thread(target=kill_the_first_process)
        killer.start()
        with contextlib.redirect_stderr(io.StringIO()) as first:
            code = main(["ablate", "--config", "sweep.yaml"])
        killer.join()
        tables, shards = files_of(folder / "tables"), identities(work_of(folder / "runs/alpha-1.0"))
        write_yaml("sweep.yaml", SWEEP | {"axes": AXES, "random_real": True})
        held = PROCESSES.Event()
        other = PROCESSES.Process(
            target=hold, args=(folder / "runs/locks", "base", held, folder / "runs/measured/random_real")
        )
        other.start()
        while not held.wait(1):
            assert other.is_alive()
        with contextlib.redirect_stderr(io.StringIO()) as second:
            assert main(["ablate", "--config", "sweep.yaml"]) == 0
        other.join()
    return folder, (code, tables, first.getvalue(), shards), second.getvalue()


@pytest.fixture
def there(swept, monkeypatch):
    monkeypatch.chdir(swept[0])
    return swept[0]


@pytest.fixture
def prepared(place):
    """A folder with the base and nothing else."""
    write_yaml("base.yaml", base())
    return place


def lines_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "tables/sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def recipe_of(folder: Path, name: str) -> dict:
    return json.loads((folder / "runs" / name / "fadrm.json").read_text())["config"]


def flat(settings: dict, prefix: str = "") -> dict:
    parts = [flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
             for name, value in settings.items()]  # fmt: skip
    return {name: value for part in parts for name, value in part.items()}


# The table


def test_the_table_holds_every_place_with_the_numbers_of_its_run(swept):
    lines = lines_of(swept[0])
    assert [(line["axes"], line["place"], line["cell"]) for line in lines] == [
        ("", "base", "base"),
        ("method.alpha", "1.0", "alpha-1.0"),
        ("method.alpha", "0.5 (base)", "base"),
        ("method.num_residuals", "0", "num_residuals-0"),
        ("components", "no ARC", "alpha-1.0"),
        ("", "random real", "random_real"),
    ]
    for line in lines:
        run = swept[0] / "runs" / line["cell"]
        (path,) = (run / "results").glob("*.json")
        values = json.loads(path.read_text())["top1"]["values"]
        assert len(values) == 2
        assert float(line["top1_mean"]) == pytest.approx(statistics.mean(values), abs=1e-6)
        assert float(line["top1_std"]) == pytest.approx(statistics.stdev(values), abs=1e-5)


def test_runs_differ_in_what_the_place_says_and_in_nothing_else(swept):
    base = flat(recipe_of(swept[0], "base"))
    assert (base["method.alpha"], base["method.sizes"], base["method.iterations"]) == (0.5, [16] * 4, 4)
    differ = {name: {key for key, value in flat(recipe_of(swept[0], name)).items() if base.get(key) != value}
              for name in RUNS if name != "base"}  # fmt: skip
    assert differ == {
        "alpha-1.0": {"output", "method.alpha"},
        "num_residuals-0": {"output", "method.num_residuals", "method.sizes"},
        "random_real": {"output", "method.name"},
    }
    assert sorted(path.name for path in (swept[0] / "runs").glob("*.work")) == [f"{name}.work" for name in RUNS]


def test_the_papers_number_stands_beside_ours_where_it_varies_the_same(swept):
    found = {line["place"]: (line["published_top1"], line["published"]) for line in lines_of(swept[0])}
    in_table_5 = "ImageNet-1k, IPC 10, FADRM, Table 5"
    assert found == {
        "base": ("", ""),
        "1.0": ("0.462", in_table_5),
        "0.5 (base)": ("0.477", in_table_5),
        "0": ("0.464", in_table_5),
        "no ARC": ("0.462", in_table_5),
        "random real": ("", ""),
    }


def test_the_same_numbers_are_shown(swept):
    text = (swept[0] / "tables/sweep.md").read_text()
    for line in lines_of(swept[0]):
        mean, std = (100 * float(line[f"top1_{kind}"]) for kind in ("mean", "std"))
        assert f"| {line['place']} | 2 | {mean:.1f} ± {std:.1f} |" in text
    assert "| 46.2 (ImageNet-1k, IPC 10, FADRM, Table 5) |" in text
    assert "fadrm-hf ablate --config sweep.yaml" in text and "Not finished" not in text
    pictures = [path.name for path in sorted((swept[0] / "tables").glob("*.png"))]
    assert pictures == ["sweep-alpha.png", "sweep-components.png", "sweep-num_residuals.png"]
    assert [name for name in pictures if f"({name})" not in text] == []


def test_the_json_holds_recipes_and_results(swept):
    document = json.loads((swept[0] / "tables/sweep.json").read_text())
    assert document["protocol"]["num_seeds"] == 2 and document["base"] == "base.yaml"
    for cell in document["cells"]:
        run = swept[0] / "runs" / cell["cell"]
        (path,) = (run / "results").glob("*.json")
        assert (cell["recipe"], cell["result"]) == (recipe_of(swept[0], cell["cell"]), json.loads(path.read_text()))


def test_the_page_of_results_lists_each_run_once(swept):
    smaller = render_results_page(swept[0] / "tables", CONFIGS).partition("## Smaller experiments")[2]
    lines = [line for line in smaller.splitlines() if "(sweep.json)" in line]
    shown = {re.search(r"\| ([\d.]+) ± [\d.]+ \(2 seeds", line)[1] for line in lines}
    assert len(lines) == len(RUNS) and ["random real" in line for line in lines].count(True) == 1
    assert shown == {f"{100 * float(line['top1_mean']):.1f}" for line in lines_of(swept[0])}


def test_an_axis_is_drawn_to_scale_where_it_has_one():
    numbers, lines = [(0.5, 0.2, 0.01), (1.0, 0.3, 0.02)], [("random real images", 0.25, 0.01)]
    drawn = draw_axis("method.alpha", numbers, lines)
    assert drawn.startswith(b"\x89PNG") and drawn == draw_axis("method.alpha", numbers[::-1], lines)
    words = [("easy", 0.2, 0.01), ("hard", 0.3, 0.02)]
    assert draw_axis("patches.difficulty", words, lines) != draw_axis("patches.difficulty", words[::-1], lines)
    assert drawn != draw_axis("method.alpha", numbers, [])


# What is there is used, and what others are at is left to them


def test_a_cell_that_fails_is_named_and_the_others_go_on(swept):
    _, (code, tables, shown, _), _ = swept
    lines = {line["cell"]: line for line in csv.DictReader(io.StringIO(tables["sweep.csv"].decode()))}
    assert code == 1 and "ended with code -9" in lines["base"]["failure"] and lines["alpha-1.0"]["failure"] == ""
    assert f"- `base`: {lines['base']['failure']}" in tables["sweep.md"].decode()
    assert f"base failed: {lines['base']['failure']}" in shown


def test_what_is_finished_is_not_made_again_when_axes_are_added(swept):
    folder, (_, _, _, shards), shown = swept
    assert identities(work_of(folder / "runs/alpha-1.0")) == shards != {}
    assert "alpha-1.0: " not in shown


def test_what_another_command_holds_is_left_to_it_until_it_gives_it_up(swept):
    begun = [line.partition(":")[0] for line in swept[2].splitlines() if line.endswith("/4")]
    assert begun == ["num_residuals-0", "random_real", "base"]


def test_the_same_command_makes_nothing_again(there):
    before = files_of(there / "runs")
    assert main(["ablate", "--config", "sweep.yaml", "--output=tables/again"]) == 0
    assert files_of(there / "runs") == before
    again = (there / "tables/again.csv").read_text()
    assert again == (there / "tables/sweep.csv").read_text()


# What is asked for, and what is refused


def test_a_grid_has_every_combination_and_settings_of_the_command_line_hold_for_all(prepared):
    axes = {"method.alpha": [0.5, 0.25], "patches": {"four": {"patches.grid": 2}, "one": {"patches.grid": 1}}}
    write_yaml("sweep.yaml", SWEEP | {"axes": axes, "mode": "grid"})
    words = ["--ipc=3", "--teachers.names=[squeeze/resnet18_narrow]", f"--student.student={STUDENT}"]
    sweep = parse_sweep(["--config", "sweep.yaml", *words])
    found = {name: (cell.run.method.alpha, cell.run.patches.grid) for name, cell in sweep.methods.items()}
    assert found == {
        "alpha-0.5-patches-four": (0.5, 2),
        "alpha-0.5-patches-one": (0.5, 1),
        "alpha-0.25-patches-four": (0.25, 2),
        "alpha-0.25-patches-one": (0.25, 1),
    }
    for cell in sweep.methods.values():
        assert (cell.run.ipc, cell.run.teachers.names) == (3, ("squeeze/resnet18_narrow",))
        assert (cell.protocol.student, cell.protocol.epochs, cell.protocol.num_seeds) == (STUDENT, EPOCHS, 2)
    assert files_of(prepared).keys() == {"base.yaml", "sweep.yaml"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"axes": {"method.alfa": [0.5]}}, ["axes.method.alfa", "unknown setting 'method.alfa'", "'method.alpha'"]),
        ({"axes": {"x": {"a": {"patch.grid": 2}}}}, ["axes.x", "unknown setting 'patch.grid'", "'patches.grid'"]),
        ({"axes": {"student.lr": [1]}}, ["axes.student.lr", "share one protocol", "settings"]),
        ({"axes": {"output": ["x"]}}, ["unknown setting 'output'"]),
        ({"axes": {"method.alpha": 0.5}}, ["axes.method.alpha must be a list of values", "0.5"]),
        ({"axes": {"method.alpha": []}}, ["axes.method.alpha must be at least one value"]),
        ({"axes": {"method.alpha": [0.5, 0.5]}}, ["axes.method.alpha must be values that differ"]),
        ({"axes": {"x": {"a": 3}}}, ["axes.x.a must be settings by dotted name"]),
        ({"axes": {"x": {"a b": {"ipc": 1}, "a-b": {"ipc": 2}}}}, ["punctuation", "x-a-b"]),
        ({"axes": {}}, ["axes must be at least one axis"]),
        ({"axes": {"method.alpha": [7, 8]}}, ["alpha-7: ", "alpha-8: ", "a merge ratio in [0, 1]"]),
        ({"axes": {"method.alpha": ["much"]}}, ["alpha-much: ", "'much'", "float"]),
        ({"axes": {"teachers.names": [["squeeze/resnet19"]]}}, ["names-squeeze-resnet19: ", "'resnet18'"]),
        ({"axes": {"x": {"a": {"ipc": 1}}, "ipc": [1]}, "mode": "grid"}, ["axes x and ipc both set ipc"]),
        ({"mode": "all"}, ["mode is 'all'", "--mode"]),
        ({"axis": {}}, ["unknown key of a sweep 'axis'", "'axes'"]),
        ({"num_seeds": 0}, ["num_seeds must be at least 1"]),
        ({"settings": {"method.iteration": 8}}, ["unknown setting 'method.iteration'", "'method.iterations'"]),
        ({"settings": {"student.student": "timm/resnet19"}}, ["timm/resnet19"]),
        ({"base": "none.yaml"}, ["none.yaml", "does not exist"]),
        ({"protocol": "none.yaml"}, ["none.yaml"]),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_made(prepared, capsys, changes, expected):
    write_yaml("sweep.yaml", SWEEP | changes)
    assert main(["ablate", "--config", "sweep.yaml"]) == 2
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == []
    assert files_of(prepared).keys() == {"base.yaml", "sweep.yaml"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config=none.yaml"], ["none.yaml"]),
        ([], ["config", "--help"]),
        (["more"], ["'more' is not understood"]),
        (["--config", "sweep.yaml", "--method.alfa=1"], ["unknown option --method.alfa", "--method.alpha"]),
        (["--config", "sweep.yaml", "--method.alpha=["], ["method.alpha is '['", "expected float"]),
    ],
)
def test_options_that_are_none_are_refused(prepared, capsys, words, expected):
    write_yaml("sweep.yaml", SWEEP)
    assert main(["ablate", *words]) == 2
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == []


# The sweeps that come along


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sweep_that_comes_along_changes_what_can_be_changed(path, place):
    (place / "recipes").symlink_to(CONFIGS.parent)
    config = build_sweep(yaml.safe_load(path.read_text()))
    base = with_settings(parse_run(["--config", config.base]), config.settings)
    assert config.runs == f"runs/ablate-{path.stem.replace('_', '-')}"
    assert config.output == f"results/ablate-{path.stem.replace('_', '-')}"
    for axis, given in config.axes.items():
        for settings in given.values() if isinstance(given, dict) else ({axis: value} for value in given):
            changed = with_settings(base, settings)
            resolved = changed.method.resolve(changed.source.size)
            assert len(resolved.sizes) == resolved.num_residuals + 1
    with pytest.raises(ConfigError, match=r"method\.alpha"):
        with_settings(base, {"method.alpha": 2.0})


def test_the_small_sweep_that_comes_along_can_run(place, monkeypatch):
    read = []
    monkeypatch.setattr(
        "fadrm_hf.evaluation.sweep.load_source", lambda config: read.append(config) or load_source(config)
    )
    (place / "recipes").symlink_to(CONFIGS.parent)
    document = yaml.safe_load((CONFIGS / "ablations/cifar10_small.yaml").read_text())
    write_yaml(
        "sweep.yaml", document | {"axes": {"method.num_residuals": document["axes"]["method.num_residuals"][:1]}}
    )
    words = ["--config=sweep.yaml", "--source.name=digits", "--source.image_column=null", "--source.label_column=null"]
    sweep = parse_sweep(words)
    assert list(sweep.methods) == ["base", "num_residuals-0", "random_real"]
    assert len(read) == 1, "once for all cells"
    assert {cell.protocol.student for cell in sweep.methods.values()} == {"timm/resnet10_narrow"}
    assert {cell.run.method.iterations for cell in sweep.methods.values()} == {500, 0}
