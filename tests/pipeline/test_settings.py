"""A run from layers: every value knows where it comes from, and the way of asking does not matter."""

import re
from dataclasses import replace

import pytest
import yaml

from fadrm_hf.cli import main
from fadrm_hf.config import recipes
from fadrm_hf.config.datasets import PRESETS, resolve
from fadrm_hf.config.layers import Layer, Settings, dotted, nested
from fadrm_hf.methods import METHODS
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.run import recipe_of
from fadrm_hf.pipeline.settings import NONE_MEANS

RECIPES = [name for name in recipes() if name.split("/")[0] in PRESETS]
# Where a recipe says more or other than `--method NAME --source.name X --ipc K`.
DIFFERENCES = {
    "output": "a folder's name",
    "source.train_split": "found in the source if not given",
    "source.test_split": "likewise",
    "source.image_column": "likewise",
    "source.label_column": "likewise",
    "teachers.min_accuracy": "a gate against a wrong class order, not the paper's",
    "squeeze.num_workers": "of the machine; results do not depend on it",
    "recover.precision": "fp16 in the paper (section 3.2), which a CPU does not have",
}
DEMO = {"method.iterations", "recover.form", "relabel.epochs", "squeeze.padding", "student.epochs", "student.student",
        "teachers.names", "recover.batch_size"}  # fmt: skip  # digits: a size that a CPU finishes in a minute


def shown(capsys, *words: str) -> tuple[dict, dict[str, str]]:
    """What `--print_config` prints, as values and as the comment beside each."""
    assert main(["distill", *words, "--print_config"]) == 0
    text, section, origins = capsys.readouterr().out, "", {}
    for line in filter(None, text.splitlines()):
        if found := re.fullmatch(r"(\w+):", line):
            section = found[1] + "."
        else:
            key, _, origin = line.partition("  # ")
            assert origin, line
            origins[(section if line.startswith("  ") else "") + key.split(":")[0].strip()] = origin
    return yaml.safe_load(text), origins


def values_of(document: dict) -> dict:
    """By dotted name, sections within sections as they are."""
    return dotted(document)


def test_later_layers_win_and_are_named():
    settings = Settings()
    settings.put(Layer("default", {"a.x": 1, "a.y": None, "b": 2}), Layer("file", {"b": 3}))
    settings.fill([Layer("preset", {"a.x": 5, "a.y": 6}), Layer("another", {"a.y": 7, "c": None})])
    assert settings.values == {"a.x": 1, "a.y": 6, "b": 3}
    assert settings.origins == {"a.x": "default", "a.y": "preset", "b": "file"}
    assert nested(settings.values) == {"a": {"x": 1, "y": 6}, "b": 3}
    settings.put(Layer("line", {"d": {"e": 1, "f": 2}}), Layer("more", {"d": {"f": 3}}))
    assert settings.values["d"] == {"e": 1, "f": 3}


@pytest.mark.parametrize(
    "words",
    [
        ("--method=fadrm", "--source.name=frgfm/imagenette"),
        ("--method=edc", "--source.name=uoft-cs/cifar100", "--ipc=50"),
        ("--method=random_real", "--source.name=my/photographs", "--source.size=96"),
        ("--config=imagenet1k/fadrm_plus_ipc10",),
    ],
    ids=" ".join,
)
def test_every_value_that_is_used_is_shown_with_its_layer(capsys, tmp_path, words):
    document, origins = shown(capsys, *words)
    values = values_of(document)
    assert values.keys() == origins.keys()
    for name, value in values.items():
        if value is None:
            assert name in NONE_MEANS and origins[name].startswith(NONE_MEANS[name]), name
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(document))
    again, _ = shown(capsys, f"--config={file}")
    assert again == document


def test_layers_are_those_that_the_values_come_from(capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("patches:\n  pool: 20\n  grid: 2\n")
    words = ("--method=sre2l", "--source.name=uoft-cs/cifar100", f"--config={file}", "--patches.grid=1", "--plain")
    _, origins = shown(capsys, *words)
    expected = {
        "ipc": "default",
        "seed": "default",
        "output": "method, source and ipc",
        "method.name": "command line",
        "method.iterations": "SRe2L, published settings",
        "source.size": "preset cifar100",
        "squeeze.epochs": "SRe2L, published settings",
        "squeeze.flip_probability": "preset cifar100",
        "patches.pool": "mine.yaml",
        "patches.grid": "command line",
        "recover.form": "command line",
        "recover.max_roll": "preset cifar100",
        "recover.crop_area": "SRe2L, published settings",
        "student.temperature": "protocol sre2l",
        "student.epochs": "relabel.epochs",
    }
    assert {name: origins[name] for name in expected} == expected


def test_a_rate_is_shown_with_its_table(capsys):
    _, origins = shown(capsys, "--source.name=uoft-cs/cifar100", "--ipc=10")
    assert origins["student.lr"] == origins["student.eta"] == "protocol fadrm, S2 (Table 11)"


@pytest.mark.parametrize("name", RECIPES)
def test_options_and_recipe_ask_for_the_same_run(name):
    """They differ in named values only, each with its reason."""
    recipe = resolved(f"--config={name}")
    asked = (f"--method={recipe['method.name']}", f"--source.name={recipe['source.name']}", f"--ipc={recipe['ipc']}")
    options = resolved(*asked)
    differing = {key for key in recipe if recipe[key] != options[key]}
    assert differing <= {*DIFFERENCES, *(DEMO if name.startswith("digits/") else ())}
    found = ("source.train_split", "source.test_split", "source.image_column", "source.label_column")
    assert all(options[key] is None for key in differing & set(found))


def resolved(*words: str) -> dict:
    run = resolve(parse_run(list(words)))
    return dotted(recipe_of(replace(run, method=run.method.resolve(run.source.size))))


# What is refused, at once


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--methods=fadrm"], ["unknown option --methods", "--method"]),
        (["--recover.iterations=3"], ["unknown option --recover.iterations", "--method.iterations"]),
        (["--patches.gird", "2"], ["--patches.gird", "did you mean --patches.grid"]),
        (["--source.size=big"], ["source.size is 'big'", "expected int"]),
        (["--recover.precision=fp8"], ["recover.precision is 'fp8'", "'bf16'"]),
        (["--recover=r.yaml"], ["--recover is 'r.yaml'", "--config"]),
        (["--method=fadrn"], ["unknown method 'fadrn'", "'fadrm'", "--import"]),
        (["--method=fadrm"], ["source.name is not given", "--source.name", "digits"]),
        ([], ["source.name is not given"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused(place, capsys, words, expected):
    assert main(["distill", *words]) == 2
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == []
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("words", [["estimate"], ["package"], ["train-teacher"], ["whole-dataset"],
                                   ["compare", "--methods=[fadrm]"]], ids=" ".join)  # fmt: skip
def test_no_command_takes_digits_for_want_of_a_source(place, capsys, words):
    assert main(words) == 2
    assert "source.name is not given" in capsys.readouterr().err
    assert list(place.iterdir()) == []


# Methods of one's own

OWN = '''
from dataclasses import dataclass
from fadrm_hf.methods.method import Method

@dataclass(frozen=True)
class Mine(Method):
    """Images as they are.

    Args:
        strength: Of nothing.
    """

    name = "mine"
    title = "Mine"
    init = "random_images"
    strength: float = 0.5
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file with a method, which no test that follows knows."""
    file = tmp_path / "my_method.py"
    file.write_text(OWN)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield file
    METHODS.pop("mine", None)


def test_a_method_of_a_file_is_named_like_any_other(own, capsys):
    words = [f"--import={own}", "--method=mine", "--source.name=digits", "--method.strength=0.25"]
    document, origins = shown(capsys, *words)
    assert document["method"] == {"name": "mine", "strength": 0.25} and origins["method.strength"] == "command line"
    assert main(["compare", f"--import={own}", "--methods=[mine,mime]", "--source.name=digits"]) == 2
    assert "did you mean 'mine'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("x = 1", "defines no method"), ("import nothing_like_it", "nothing_like_it"), ("", "defines no method")],
)
def test_a_file_without_a_method_is_refused(tmp_path, capsys, text, expected):
    (tmp_path / "broken_method.py").write_text(text)
    assert main(["distill", f"--import={tmp_path / 'broken_method.py'}", "--source.name=digits"]) == 2
    assert expected in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys):
    assert main(["distill", "--import=nowhere.py", "--source.name=digits"]) == 2
    assert "nowhere.py" in capsys.readouterr().err
