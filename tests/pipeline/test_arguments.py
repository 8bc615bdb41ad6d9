"""Command lines whose files and words say different things."""

import pytest

from fadrm_hf.pipeline.arguments import parse_run


@pytest.mark.parametrize("form", [["--config", "small/own_fadrm_ipc10"], ["--config=small/own_fadrm_ipc10"]])
def test_a_files_settings_of_another_method_give_way(form, capsys):
    run = parse_run([*form, "--method", "random_real"])
    assert run.method.name == "random_real"
    assert (run.source.size, run.relabel.epochs) == (64, 100)
    assert "settings of method fadrm in small/own_fadrm_ipc10 are not used" in capsys.readouterr().err
    assert parse_run([*form, "--method", "fadrm"]).method.iterations == 300
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["method:\n  name: rded\n", "method.name: rded\n"])
def test_a_file_names_its_method_in_a_section_or_by_a_dotted_name(text, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    assert parse_run([f"--config={tmp_path / 'run.yaml'}"]).method.name == "rded"


@pytest.mark.parametrize(
    ("typed", "names"),
    [("[0, 1]", ("0", "1")), ("[yes, no]", ("yes", "no")), ("[007, null, 1.0]", ("007", "null", "1.0"))],
)
def test_classes_are_the_text_that_is_typed(typed, names, tmp_path):
    assert parse_run([f"--source.classes={typed}"]).source.classes == names
    assert parse_run(["--source.classes", typed]).source.classes == names
    (tmp_path / "run.yaml").write_text("source:\n  classes: [0, 1]\n")
    assert parse_run([f"--config={tmp_path / 'run.yaml'}"]).source.classes == ("0", "1")


def test_a_preset_of_a_name_gives_no_settings_to_other_classes(tmp_path, monkeypatch):
    from fixtures.layouts import make, splits

    make(tmp_path / "cifar10-cats", splits())
    monkeypatch.chdir(tmp_path)
    assert parse_run(["--source.name=cifar10-cats", "--method=rded"]).source.preset == "none"
