"""Several methods beside one another: the numbers of the table, what is made again, what fails and what is refused."""

import contextlib
import csv
import io
import json
import multiprocessing
import re
import statistics
import threading
import time
from pathlib import Path

import pytest
import yaml
from fixtures.runs import EPOCHS, PROCESSES, RECIPE, STUDENT, distill, files_of, identities, run_in, work_of

from fadrm_hf.cli import main
from fadrm_hf.commands.compare import parse_comparison
from fadrm_hf.config import StudentConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.evaluation.shared_runs import finished_rows
from fadrm_hf.methods import find_method

CONFIGS = Path(__file__).parent.parent.parent / "recipes/configs"
SHARED = tuple(word for word in RECIPE if not word.startswith("--student."))
STUDENTS = (f"--student.student={STUDENT}", f"--student.epochs={EPOCHS}", "--num_seeds=2")
SIZES = "[12,16,12,16]"
WORDS = (*SHARED, *STUDENTS, "--methods=[random_real,fadrm]", "--method.iterations=8")
TWO = (*WORDS, f"--settings.fadrm.method.sizes={SIZES}", "--output", "tables/two.methods", "--runs", "runs")
RUNS = {"random_real": "random-real-digits-ipc2", "fadrm": "fadrm-digits-ipc2"}


@pytest.fixture(scope="module")
def failed_first(tmp_path_factory):
    """A folder in which two methods were compared, of which one was killed and the other had its teacher refused; the
    table of that, what was shown and the exit code. The same command was then run again, without the refusal."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.redirect_stderr(io.StringIO()) as shown:
        monkeypatch.chdir(folder)
        killer = threading.Thread(target=kill_the_first_process)
        killer.start()
        code = main(["compare", *TWO, "--settings.fadrm.teachers.min_accuracy=1"])
        killer.join()
        tables = files_of(folder / "tables")
        assert main(["compare", *TWO]) == 0
    return folder, tables, shown.getvalue(), code


def kill_the_first_process() -> None:
    while not (running := multiprocessing.active_children()):
        time.sleep(0.01)
    running[0].kill()


@pytest.fixture(scope="module")
def compared(failed_first):
    """The folder with both methods finished; tests that work there leave what is in it as it is."""
    return failed_first[0]


@pytest.fixture
def there(compared, monkeypatch):
    monkeypatch.chdir(compared)
    return compared


def result_of(run: Path, protocol: str = "fadrm") -> dict:
    (path,) = (run / "results").glob(f"*-{protocol}-*.json")
    return json.loads(path.read_text())


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with open(table, newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def cells_of(table: Path) -> list[list[str]]:
    lines = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


# The table


@pytest.mark.parametrize("method", list(RUNS))
def test_the_table_holds_what_the_artifacts_say(compared, method):
    run, row = compared / "runs" / RUNS[method], rows_of(compared / "tables/two.methods.csv")[method]
    manifest, result = json.loads((run / "fadrm.json").read_text()), result_of(run)
    values = result["top1"]["values"]
    assert len(values) == int(row["num_seeds"]) == 2 and result["epochs"] == int(row["epochs"]) == EPOCHS
    assert float(row["top1_mean"]) == pytest.approx(sum(values) / 2, abs=1e-6)
    assert float(row["top1_std"]) == pytest.approx(statistics.stdev(values), abs=1e-5)
    assert float(row["best_epoch_top1_mean"]) == pytest.approx(result["best_epoch_top1"]["mean"], abs=1e-6)
    own = [stage for name, stage in manifest["stages"].items() if name != "teachers"]
    assert float(row["distillation_seconds"]) == pytest.approx(sum(stage["seconds"] for stage in own), abs=0.06)
    assert float(row["student_seconds"]) == pytest.approx(result["seconds"] / 2, abs=0.06)
    assert int(row["peak_memory_bytes"]) == max(stage["peak_memory_bytes"] for stage in own)
    stored = {name: record["bytes"] for name, record in manifest["files"].items()}
    for column, table in (("image_bytes", "data/"), ("label_bytes", "soft_labels/")):
        assert int(row[column]) == sum(size for name, size in stored.items() if name.startswith(table))
    assert (row["teachers"], row["labels"], row["num_images"]) == ("squeeze/resnet10_narrow", "soft, float16", "20")


def test_the_same_numbers_are_shown_in_the_order_that_was_asked_for(compared):
    rows, cells = rows_of(compared / "tables/two.methods.csv"), cells_of(compared / "tables/two.methods.md")
    assert list(rows) == list(RUNS) and [line[0] for line in cells] == ["Random real images", "FADRM"]
    for line, row in zip(cells, rows.values(), strict=True):
        for cell, name in zip(line[5:8], ("top1", "top5", "best_epoch_top1"), strict=True):
            assert cell == f"{100 * float(row[f'{name}_mean']):.1f} ± {100 * float(row[f'{name}_std']):.1f}"
    text = (compared / "tables/two.methods.md").read_text()
    assert "fadrm-hf compare --source.name=digits" in text and "Not finished" not in text
    assert "cores" in text and f"student: {STUDENT}" in text and "(two.methods.png)" in text
    assert (compared / "tables/two.methods.png").read_bytes().startswith(b"\x89PNG")


def test_the_json_holds_recipes_protocol_and_every_value(compared):
    document = json.loads((compared / "tables/two.methods.json").read_text())
    assert {name for name, value in document["protocol"].items() if isinstance(value, dict)} == set()
    for entry, (method, run) in zip(document["methods"], RUNS.items(), strict=True):
        manifest = json.loads((compared / "runs" / run / "fadrm.json").read_text())
        assert (entry["method"], entry["recipe"], entry["machine"]) == (
            method,
            manifest["config"],
            manifest["machine"],
        )
        assert entry["result"] == result_of(compared / "runs" / run)
        assert entry["source_record"]["fingerprint"] == manifest["source"]["fingerprint"]
        assert entry["teacher_records"][0]["sha256"] == manifest["teachers"][0]["sha256"]


def test_a_row_is_what_the_commands_give_by_hand(compared, tmp_path):
    """Another folder and student: the images and labels are the same bits, and so is the accuracy."""
    (tmp_path / "teachers").symlink_to(compared / "runs/teachers")
    by_hand, made = distill(tmp_path / RUNS["fadrm"]), compared / "runs" / RUNS["fadrm"]
    tables = [{n: c for n, c in files_of(run).items() if n.startswith(("data/", "soft_"))} for run in (by_hand, made)]
    assert len(tables[0]) == 2 and tables[0] == tables[1]
    assert main(["train-student", str(by_hand), "--student", STUDENT, "--epochs=4", "--num_seeds=2"]) == 0
    assert result_of(by_hand)["top1"] == result_of(made)["top1"]


# What is there is used


def test_the_same_from_a_file_makes_nothing_again(there):
    before, table = files_of(there / "runs"), rows_of(there / "tables/two.methods.csv")
    values = {name: yaml.safe_load(value) for name, _, value in (word[2:].partition("=") for word in WORDS)}
    nested = {"settings": {"fadrm": {"method": {"sizes": yaml.safe_load(SIZES)}}}, "output": "tables/again"}
    (there / "compare.yaml").write_text(yaml.safe_dump(values | nested | {"num_seeds": 1}))
    assert main(["compare", "--config", "compare.yaml", "--num_seeds=2", "--methods=[fadrm]"]) == 0
    assert files_of(there / "runs") == before
    assert rows_of(there / "tables/again.csv") == {"fadrm": table["fadrm"]}


def test_another_protocol_trains_students_only(there):
    run = there / "runs" / RUNS["random_real"]
    before, shards = files_of(run), identities(work_of(run))
    words = [*SHARED, *STUDENTS, "--methods=[random_real]", "--output=tables/hard"]
    assert main(["compare", *words, "--protocol", str(CONFIGS / "protocols/hard.yaml")]) == 0
    assert identities(work_of(run)) == shards
    tables = {name: content for name, content in before.items() if name.startswith(("data", "soft_labels"))}
    assert tables and tables.items() <= files_of(run).items()
    row = rows_of(there / "tables/hard.csv")["random_real"]
    assert float(row["top1_mean"]) == pytest.approx(result_of(run, "hard")["top1"]["mean"], abs=1e-6)
    assert (row["labels"], result_of(run, "fadrm")["labels"]) == ("hard", "soft")


# Several commands share the methods


def test_two_commands_share_the_methods_and_both_write_the_table(tmp_path):
    words = [*WORDS, f"--settings.fadrm.method.sizes={SIZES}", "--num_seeds=1", "--student.epochs=1"]
    given = [(tmp_path, f"{name}.txt", ["compare", *words, f"--output={name}"]) for name in ("one", "two")]
    commands = [PROCESSES.Process(target=run_in, args=arguments) for arguments in given]
    for process in commands:
        process.start()
    for process in commands:
        process.join()
    said = "".join((tmp_path / name).read_text() for name in ("one.txt", "two.txt"))
    assert [process.exitcode for process in commands] == [0, 0], said
    assert sorted(re.findall(r"^(.+): [12]/2$", said, re.MULTILINE)) == sorted(RUNS.values()), "each by one of them"
    one, two = (rows_of(tmp_path / f"{name}.csv") for name in ("one", "two"))
    assert list(one) == list(RUNS) and one == two
    for method, run in RUNS.items():
        assert float(one[method]["top1_mean"]) == pytest.approx(result_of(tmp_path / "runs" / run)["top1"]["mean"])
    logs = [(tmp_path / f"runs/{run}.work/log.jsonl").read_text() for run in RUNS.values()]
    assert "".join(logs).count('"squeeze"') == 2, "the epochs of one teacher"
    before = files_of(tmp_path / "runs")
    assert main(["compare", *words, f"--runs={tmp_path / 'runs'}", f"--output={tmp_path / 'three'}"]) == 0
    assert files_of(tmp_path / "runs") == before and rows_of(tmp_path / "three.csv") == one


def test_a_result_that_is_there_counts_for_its_own_settings_only(there):
    words = (*WORDS, f"--settings.fadrm.method.sizes={SIZES}", "--runs=runs")

    def done(*more: str) -> list[str]:
        methods, _ = parse_comparison([*words, *more])
        return list(finished_rows({method.name: method for method in methods}))

    run, both = RUNS["random_real"], list(RUNS.values())
    assert (done(), done("--student.epochs=1")) == (both, [])
    (file,) = (there / "runs" / run / "results").glob("*-fadrm-*.json")
    content = file.read_bytes()
    try:
        file.write_bytes(content.replace(b'"num_seeds": 2', b'"num_seeds": 1'))  # as a shorter protocol of that name
        assert done() == both[1:]
    finally:
        file.write_bytes(content)
    assert done() == both


# What fails


def test_methods_that_fail_are_named_and_the_others_go_on(failed_first):
    _, tables, shown, code = failed_first
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(tables["two.methods.csv"].decode()))}
    assert code == 1 and list(rows) == list(RUNS)
    for method, reason in (("random_real", "ended with code -9"), ("fadrm", "below the bar of 100.0%")):
        assert reason in rows[method]["failure"]
        assert f"- `{method}`: {rows[method]['failure']}" in tables["two.methods.md"].decode()
        assert f"{RUNS[method]} failed: {rows[method]['failure']}" in shown
    assert "No method has finished." in tables["two.methods.md"].decode() and "two.methods.png" not in tables


def test_the_same_command_then_makes_what_is_missing(compared):
    assert {row["failure"] for row in rows_of(compared / "tables/two.methods.csv").values()} == {""}
    assert "Not finished" not in (compared / "tables/two.methods.md").read_text()


# What is refused


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--methods=[]"], ["methods must be a list of methods", "--methods"]),
        (["--methods=[fadrm,fadrm]"], ["without repetitions"]),
        (["--methods=[fadrn]"], ["unknown method 'fadrn'", "'fadrm'", "--methods"]),
        (["--settings.fadrn.ipc=3"], ["unknown method 'fadrn'", "--settings.fadrn.ipc"]),
        (["--settings.fadrm=3"], ["settings.fadrm"]),
        (["--settings.fadrm.ipc=3"], ["--settings.fadrm.ipc", "all share"]),
        (["--settings.fadrm.student.lr=1"], ["--settings.fadrm.student.lr", "all share"]),
        (["--settings.fadrm.method.beta=1"], ["--settings.fadrm.method.beta"]),
        (["--methods=[random_real]"], ["--method.iterations is a setting of none of random_real"]),
        (["--method=fadrm"], ["unknown option --method", "--methods"]),
        (["--methods=[random_real,fadrm_plus]"], ["fadrm_plus: ", "at least 2 teachers"]),
        (["--student.epochs=9"], ["random_real: ", "fadrm: ", "9 epochs", "--relabel.epochs 9"]),
        (["--student.student=timm/resnet19"], ["timm/resnet19"]),
        (["--student.speed=1"], ["--student.speed"]),
        (["--num_seeds=0"], ["num_seeds must be at least 1"]),
        (["--teachers.names=[squeeze/resnet19]"], ["resnet19"]),
        (["--settings.fadrm.method.alpha=7", "--settings.random_real.relabel.codec=zip"], ["fadrm: ", "7.0", "zip"]),
        (["--config=none.yaml"], ["none.yaml", "recipes/configs/"]),
        (["--protocol=none.yaml"], ["none.yaml"]),
        (["fadrm"], ["'fadrm' is not understood", "--OPTION VALUE"]),
        (["--seed"], ["--seed", "one argument"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(place, capsys, words, expected):
    assert main(["compare", *TWO, *words]) == 2
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == []
    assert files_of(place) == {}


def test_settings_of_one_method_win_and_those_of_methods_that_are_not_compared_wait(place):
    for_all = ["--methods=[fadrm,random_real]", *SHARED, "--method.iterations=40", "--relabel.epochs=4"]
    for_one = ["--settings.fadrm.method.iterations=8", "--settings.fadrm.method.alpha=0.25"]
    for_none = ["--settings.fadrm_plus.method.alpha=0.75"]
    methods, output = parse_comparison([*for_one, *for_none, *for_all, "--method.alpha=0.125"])
    fadrm, random_real = (method.run for method in methods)
    assert (fadrm.method.iterations, fadrm.method.alpha) == (8, 0.25)
    assert type(random_real.method) is find_method("random_real")
    assert (fadrm.source, fadrm.relabel) == (random_real.source, random_real.relabel)
    assert output == Path("results/compare-digits-ipc2-fadrm")
    assert methods[0].protocol == StudentConfig()


@pytest.mark.parametrize("path", sorted((CONFIGS / "compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_comparison_that_comes_along_can_run(path, place):
    (place / "recipes").symlink_to(CONFIGS.parent)
    here = ["--source.name=digits", "--source.preset=digits" if path.stem == "digits" else "--source.preset=cifar10"]
    here.append("--source.classes=null")
    methods, output = parse_comparison(["--config", str(path), *here])
    assert [method.method for method in methods] == yaml.safe_load(path.read_text())["methods"]
    assert len({method.run.output for method in methods}) == len(methods)
    assert str(output) == yaml.safe_load(path.read_text())["output"]
    others = {yaml.safe_load(other.read_text())["output"] for other in path.parent.glob("*.yaml") if other != path}
    assert output.name.startswith("compare-") and str(output) not in others


def test_the_source_is_read_once_for_all_methods(place, monkeypatch):
    read = []
    monkeypatch.setattr(
        "fadrm_hf.commands.compare.load_source", lambda config: read.append(config) or load_source(config)
    )
    methods, _ = parse_comparison([*WORDS, "--methods=[random_real,sre2l,fadrm]"])
    assert len(methods) == 3 and len(read) == 1


def test_what_print_config_prints_names_every_value_that_runs_and_runs(place, capsys):
    typed = ["--methods=[random_real,fadrm,cda]", *SHARED, "--method.iterations=40", "--relabel.epochs=4"]
    typed += ["--settings.fadrm.recover.lr=0.5", "--student.epochs=3", "--teachers.names=[squeeze/convnet3_narrow]"]
    assert main(["compare", *typed, "--print_config"]) == 0
    printed = capsys.readouterr().out
    document = yaml.safe_load(printed)
    assert [line for line in printed.splitlines() if line and not line.endswith(":") and "  # " not in line] == []
    assert document["relabel"]["epochs"] == 4 and document["student"]["epochs"] == 3
    assert document["settings"]["fadrm"]["recover.lr"] == 0.5
    assert document["settings"]["fadrm"]["method.iterations"] == document["settings"]["cda"]["method.iterations"] == 40
    assert not any(name.startswith("method.") for name in document["settings"]["random_real"] or {})
    file = place.parent / "printed.yaml"
    file.write_text(printed)
    assert parse_comparison(["--config", str(file)]) == parse_comparison(typed)
