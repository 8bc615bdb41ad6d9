"""Settings by the names that they had before: on the command line, in files, in artifacts of format 1, in methods."""

import json
from pathlib import Path

import pytest
import yaml

from fadrm_hf.artifact.manifest import read_manifest, refresh_files
from fadrm_hf.cli import main
from fadrm_hf.commands.ablate import parse_sweep
from fadrm_hf.commands.call import Call, parser_of
from fadrm_hf.commands.compare import parse_comparison
from fadrm_hf.config import read_settings
from fadrm_hf.config.renamed import RENAMED, current_name, earlier_names, with_current_names
from fadrm_hf.errors import ArtifactError, ConfigError, RunFolderError
from fadrm_hf.evaluation.evidence import read_measurements
from fadrm_hf.methods.method import Method
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.run import recipe_of
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.runtime.run_folder import WorkFolder

ROOT = Path(__file__).parents[2]
FORMAT1 = ROOT / "tests/fixtures/format1"
DIGITS = ["--method=sre2l", "--source.name=digits"]


@pytest.fixture
def settings(tmp_path):
    """Write a file of settings and return its path."""

    def write(document: dict) -> Path:
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        return file

    return write


def test_names_are_translated_wherever_they_are():
    for old, new in RENAMED.items():
        assert current_name(old) == new and current_name(f"settings.edc.{old}") == f"settings.edc.{new}"
        assert old in earlier_names(new) and f"axes.{old}" in earlier_names(f"axes.{new}")
    assert current_name("student.turns") == "student.turns" and earlier_names("recover.lr") == []
    assert current_name("xrecover.turns") == "xrecover.turns"
    said = []
    document = {"recover": {"turns": "run", "lr": 1}, "axes": {"recover.bn_weight": [1]}, "turns": {}}
    current = {"recover": {"teacher_order": "run", "lr": 1}, "axes": {"recover.statistics_weight": [1]}, "turns": {}}
    assert with_current_names(document, lambda *names: said.append(names)) == current
    assert said == [
        ("recover.turns", "recover.teacher_order"),
        ("axes.recover.bn_weight", "axes.recover.statistics_weight"),
    ]


@pytest.mark.parametrize("names", [("turns", "teacher_order"), ("teacher_order", "turns")])
def test_a_setting_by_both_names_is_refused(names):
    with pytest.raises(
        ConfigError, match=r"recover\.turns and recover\.teacher_order are .* leave out recover\.turns"
    ):
        with_current_names({"recover": dict.fromkeys(names, "run")})


def test_a_command_line_is_answered_with_the_new_names(capsys):
    words = [
        "--recover.bn_weight",
        "1",
        "--recover.first_bn_weight=2",
        "--recover.turns=run",
        "--method.starts_from=pca",
    ]
    run = parse_run([*DIGITS, *words])
    recover = run.recover
    assert (recover.statistics_weight, recover.first_bn_multiplier, recover.teacher_order) == (1.0, 2.0, "run")
    assert type(recover.statistics_weight) is float and run.method.init == "pca"
    assert capsys.readouterr().err.splitlines() == [
        "--recover.bn_weight is now --recover.statistics_weight",
        "--recover.first_bn_weight is now --recover.first_bn_multiplier",
        "--recover.turns is now --recover.teacher_order",
        "--method.starts_from is now --method.init",
    ]
    assert parse_run([*DIGITS, "--recover", "{turns: run}"]).recover.teacher_order == "run"
    assert capsys.readouterr().err == "--recover.turns is now recover.teacher_order\n"


def test_an_option_by_its_earlier_name_is_of_its_type(capsys):
    assert Call("reproduce", ("run", "--seeds", "3")).options.num_seeds == 3
    assert capsys.readouterr().err == "--seeds is now --num_seeds\n"


def test_earlier_names_are_not_offered():
    with pytest.raises(ConfigError, match=r"recover\.statistics_weight is 'x', expected float"):
        parse_run([*DIGITS, "--recover.bn_weight=x"])
    with pytest.raises(
        ConfigError, match=r"unknown option --recover\.bn_weightt; did you mean --recover\.statistics_w"
    ):
        parse_run([*DIGITS, "--recover.bn_weightt=1"])
    shown = parser_of("distill").format_help()
    assert "--recover.statistics_weight" in shown and not any(f"--{old}" in shown for old in RENAMED)


def test_a_file_is_answered_with_the_new_names_once(settings, capsys):
    file = settings({"method": {"name": "sre2l", "starts_from": "pca"}, "recover": {"bn_weight": 3, "turns": "run"}})
    run = parse_run([f"--config={file}", "--source.name=digits", "--recover.bn_weight=4"])
    assert (run.method.init, run.recover.teacher_order, run.recover.statistics_weight) == ("pca", "run", 4.0)
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == [
        f"--config {file}: method.starts_from is now method.init",
        f"--config {file}: recover.bn_weight is now recover.statistics_weight",
        f"--config {file}: recover.turns is now recover.teacher_order",
        "--recover.bn_weight is now --recover.statistics_weight",
    ]


def test_a_comparison_understands_them(settings, capsys):
    file = settings({"methods": ["sre2l", "random_real"], "settings": {"sre2l": {"recover": {"bn_weight": 3}}}})
    words = [
        f"--config={file}",
        "--source.name=digits",
        "--settings.sre2l.method.starts_from=pca",
        "--recover.turns=run",
    ]
    words += ["--settings.sre2l.teachers.names=[squeeze/resnet18]", "--student.epochs=1", "--relabel.epochs=1"]
    first, second = (method.run for method in parse_comparison(words)[0])
    assert (first.recover.statistics_weight, first.method.init, first.recover.teacher_order) == (3, "pca", "run")
    assert (second.recover.statistics_weight, second.recover.teacher_order) == (0.01, "run")
    said = capsys.readouterr().err
    for old in ("settings.sre2l.recover.bn_weight", "--settings.sre2l.method.starts_from", "--recover.turns"):
        assert said.count(f"{old} is now ") == 1


def test_a_sweep_understands_them(settings, capsys):
    axes = {"recover.bn_weight": [0.5, 1.0], "order": {"each": {"recover.turns": "run"}}}
    document = {"base": "digits/fadrm_ipc10", "axes": axes, "settings": {"recover.first_bn_weight": 3.0}}
    sweep = parse_sweep([f"--config={settings(document)}"])
    assert list(sweep.axes) == ["recover.statistics_weight", "order"]
    found = [(c.name, c.method.run.recover.statistics_weight, c.method.run.recover.teacher_order) for c in sweep.cells]
    assert found == [
        ("base", 0.01, "shard"),
        ("statistics_weight-0.5", 0.5, "shard"),
        ("statistics_weight-1.0", 1.0, "shard"),
        ("order-each", 0.01, "run"),
    ]
    assert all(cell.method.run.recover.first_bn_multiplier == 3.0 for cell in sweep.cells)
    assert capsys.readouterr().err.count(" is now ") == 3


def test_an_artifact_of_format_1_is_read_without_a_word(tmp_path, capsys):
    manifest = read_manifest(FORMAT1)
    assert not {"bn_weight", "turns"} & manifest.config["recover"].keys()
    run = run_from_recipe(read_settings(FORMAT1 / "recipe.yaml"), "run")
    assert run == run_from_recipe(manifest.config, "run") and run.recover.first_bn_multiplier == 10.0
    work = WorkFolder(tmp_path / "run")
    work.path.mkdir()
    held = json.loads((FORMAT1 / "fadrm.json").read_text())["config"]
    (work.path / "recipe.json").write_text(json.dumps(held))
    work.check(recipe_of(run) | {"output": held["output"]}, vars(run))
    with pytest.raises(RunFolderError, match=r"recover\.teacher_order is 'shard' there, 'run' here"):
        work.check(manifest.config | {"recover": manifest.config["recover"] | {"teacher_order": "run"}}, vars(run))
    assert capsys.readouterr().err == ""


def test_a_manifest_by_earlier_names_is_written_with_the_new_ones(tmp_path):
    document = json.loads((FORMAT1 / "fadrm.json").read_text())
    record = {"title": "Views", "starts_from": "noise"}
    document |= {"method": "views", "method_record": record, "files": {}}
    (tmp_path / "fadrm.json").write_text(json.dumps(document))
    assert read_manifest(tmp_path).method_setting("init") == "noise"
    refresh_files(tmp_path)
    written = json.loads((tmp_path / "fadrm.json").read_text())
    assert written["method_record"] == {"title": "Views", "paper": None, "init": "noise"}
    assert written["config"]["recover"]["teacher_order"] == "shard"
    (tmp_path / "fadrm.json").write_text(json.dumps(document | {"method_record": record | {"init": "noise"}}))
    with pytest.raises(
        ArtifactError, match=r"method_record\.starts_from and method_record\.init are the same setting"
    ):
        read_manifest(tmp_path)


def test_results_on_file_are_read():
    weights = {m.run.recover.statistics_weight for m in read_measurements(ROOT / "results") if m.run is not None}
    assert weights == {0.01, 1.0}


def test_a_method_of_ones_own_names_its_setting_anew(tmp_path, capsys):
    for line in ('starts_from = "noise"', 'starts_from: str = "noise"', "starts_from: str"):
        with pytest.raises(ConfigError, match="class Mine defines starts_from, which is now init; rename it"):
            exec(f"class Mine(Method):\n    {line}", {"Method": Method})
    file = tmp_path / "earlier_method.py"
    file.write_text("from fadrm_hf.methods.method import Method\nclass Mine(Method):\n    starts_from = 'noise'\n")
    assert main(["distill", f"--import={file}", "--source.name=digits"]) == 2
    assert "defines starts_from, which is now init" in capsys.readouterr().err
