"""A method of one's own whose code changes while a run of it is there."""

import pytest
from fixtures.runs import RECIPE

from fadrm_hf.cli import main
from fadrm_hf.methods import METHODS

METHOD = """
from dataclasses import dataclass

from fadrm_hf import Method


def faded(images):
    return 0.5 * images


def unused(images):
    return images


@dataclass(frozen=True)
class Faded(Method):
    name = "faded_{number}"
    title = "Faded"
    init = "random_images"

    iterations: int = 0

    def recover(self, start, recovery):
        return faded(start)  # nothing is optimised
"""
SMALL = [word for word in RECIPE if not word.startswith(("--ipc", "--relabel.epochs"))]
CHANGES = {
    "class": ("return faded(start)", "return -faded(start)"),
    "helper": ("0.5 * images", "0.25 * images"),
    "base": ("iterations: int = 0", "iterations: int = 0\n    title = 'Paler'"),
}
HARMLESS = {
    "comment": ("  # nothing is optimised", "\n        # at all"),
    "layout": ("return faded(start)", "return faded(\n            start\n        )"),
    "elsewhere": ("def unused(images):\n    return images", "def unused(images):\n    return 2 * images"),
}


@pytest.fixture(scope="module")
def changed(finished, tmp_path_factory):
    """A command that distils by the method as it was, and then by the same with a change, in another process."""
    place = tmp_path_factory.mktemp("own")
    (place / "teachers").symlink_to(finished.with_name("teachers"))
    number = iter(range(100))

    def distil(change):
        # A name for each: a process imports a file once, and what it has imported stays known by its name.
        this = METHOD.format(number=next(number))
        name = this.partition('name = "')[2].partition('"')[0]
        for version, text in ((1, this), (2, this.replace(*change))):
            file = place / f"{name}_v{version}.py"
            file.write_text(text)
        return place, name

    return distil


def run(place, name, version, capsys):
    METHODS.pop(name, None)  # as in a process of its own
    words = ["--ipc=1", "--relabel.epochs=1", "--student.epochs=1", f"--import={place / f'{name}_v{version}.py'}"]
    code = main(["distill", *SMALL, f"--method={name}", *words, f"--output={place / name}", "--quiet"])
    return code, " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_of_the_method_as_it_was_is_not_taken_for_one_as_it_is(changed, change, capsys):
    place, name = changed(CHANGES[change])
    assert run(place, name, 1, capsys)[0] == 0
    assert run(place, name, 1, capsys)[0] == 0, "finished already"
    code, said = run(place, name, 2, capsys)
    assert code == 2
    assert (
        f"{place / name} was made by {name} as its code was before" in said and "--output" in said and "--runs" in said
    )


@pytest.mark.parametrize("change", HARMLESS)
def test_comments_layout_and_what_the_method_does_not_use_change_nothing(changed, change, capsys):
    place, name = changed(HARMLESS[change])
    assert [run(place, name, version, capsys)[0] for version in (1, 2)] == [0, 0]
