"""Recipes by name: what comes with the library is found wherever a command is given."""

import pytest
from fixtures.runs import ROOT

from fadrm_hf.commands.compare import parse_comparison
from fadrm_hf.config import find_settings, recipes
from fadrm_hf.errors import ConfigError
from fadrm_hf.pipeline.arguments import parse_run

CONFIGS = ROOT / "recipes/configs"


def test_every_file_is_a_recipe():
    assert set(recipes().values()) == set(CONFIGS.glob("*/*.yaml"))
    assert recipes()["digits/fadrm_ipc10"] == CONFIGS / "digits/fadrm_ipc10.yaml"


@pytest.mark.parametrize(
    "name", ["digits/fadrm_ipc1", "digits/fadrm_ipc1.yaml", "recipes/configs/digits/fadrm_ipc1.yaml"]
)
@pytest.mark.parametrize("form", ["{}", "--config={}"])
def test_a_recipe_has_one_name_in_several_spellings(name, form, place):
    arguments = ["--config", name] if form == "{}" else [form.format(name)]
    assert parse_run(arguments) == parse_run([f"--config={CONFIGS / 'digits/fadrm_ipc1.yaml'}"])


def test_what_is_given_wins_over_a_recipe(place):
    assert parse_run(["--config", "digits/fadrm_plus_ipc1", "--method.alpha", "0.4"]).method.alpha == 0.4


def test_a_file_of_this_disk_goes_before_a_recipe(place):
    (place / "digits").mkdir()
    (place / "digits/fadrm_ipc1").write_text("ipc: 7\n")
    assert parse_run(["--config", "digits/fadrm_ipc1"]).ipc == 7
    assert find_settings("digits/fadrm_ipc10") == CONFIGS / "digits/fadrm_ipc10.yaml"


def test_protocols_of_a_comparison_are_recipes_too(place):
    arguments = [
        "--methods=[random_real]",
        "--source.name=digits",
        "--ipc=1",
        "--teachers.names=[squeeze/resnet10_narrow]",
    ]
    contenders, output = parse_comparison([*arguments, "--protocol=protocols/rd3", "--student.epochs=1"])
    assert contenders[0].protocol.name == "rd3" and output.name == "compare-digits-ipc1-rd3"


def test_the_nearest_recipe_is_named(place):
    with pytest.raises(ConfigError, match=r"digits/fadrm_icp10 does not exist.* such as digits/fadrm_ipc10"):
        parse_run(["--config=digits/fadrm_icp10"])
