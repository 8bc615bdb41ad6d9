"""Every kind of bad input that a command can be given is named, and costs nothing."""

import shlex

import pytest
from fixtures.bad_input import KINDS, check, state

from fadrm_hf.cli import main


def test_there_are_many_kinds():
    assert len(KINDS) >= 40


@pytest.mark.parametrize("name", KINDS)
def test_bad_input_is_named_and_costs_nothing(place, capfd, monkeypatch, name):
    kind = KINDS[name]
    kind.make(place)
    for variable, value in kind.environment.items():
        monkeypatch.setenv(variable, value)
    before = state(place)
    capfd.readouterr()
    code = main(shlex.split(kind.typed))
    check(kind, code, *capfd.readouterr())
    assert state(place) == before
