"""The public names: what there is does not change by accident, and costs nothing until it is asked for."""

import subprocess
import sys
from importlib import import_module

import pytest
from fixtures.public_api import LISTING, documented, listing

import fadrm_hf


def test_names_and_signatures_are_those_that_are_promised():
    assert listing().splitlines() == LISTING.read_text("utf-8").splitlines(), (
        "the public names or signatures have changed; if that is meant, say so in CHANGELOG.md and run: "
        ".venv/bin/python tests/fixtures/public_api.py"
    )


def test_the_top_level_is_documented_whole():
    assert {f"fadrm_hf.{name}" for name in fadrm_hf.__all__} - {"fadrm_hf.__version__", "fadrm_hf.FadrmError"} <= set(
        documented()
    )
    assert set(fadrm_hf.__all__) <= set(dir(fadrm_hf))


@pytest.mark.parametrize("name", fadrm_hf.__all__)
def test_a_name_of_the_top_level_is_that_of_its_module(name):
    value = getattr(fadrm_hf, name)
    assert value is getattr(import_module(getattr(value, "__module__", "fadrm_hf")), name)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'fadrm_hf' has no attribute 'load_destilled'"):
        _ = fadrm_hf.load_destilled


def test_the_import_alone_loads_nothing_heavy():
    heavy = "{'torch', 'datasets', 'timm', 'transformers', 'matplotlib'} & set(sys.modules)"
    program = f"import sys, fadrm_hf; assert not {heavy}; fadrm_hf.FadrmError; assert not {heavy}"
    subprocess.run([sys.executable, "-c", program], check=True)
