"""Reading an artifact imports little: a fresh interpreter tells which modules a reader has loaded."""

import json
import subprocess
import sys

import pytest
from fixtures.artifacts import make_artifact

MOST_MODULES = 60
ROOMS = ("evaluation", "methods", "networks", "pipeline", "publishing", "recovery", "report")
NOT_FOR_READERS = {"matplotlib", "sklearn", "timm", "torchvision", "transformers"}
NOT_FOR_READERS |= {f"fadrm_hf.{name}" for name in (*ROOMS, "data.sources", "labels.relabel")}
IMPORT = "from fadrm_hf import load_distilled"
READ = (
    IMPORT
    + """
with load_distilled({folder!r}).batches(range(1)) as batches:
    assert next(batches).logits.shape[1] == 4
"""
)


def modules_of(program: str) -> set[str]:
    """The modules that an interpreter has loaded after a program."""
    told = "import json, sys\nprint(json.dumps(list(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", f"{program}\n{told}"], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("program", [IMPORT, READ], ids=["import", "read"])
def test_a_reader_loads_neither_methods_nor_networks(program, tmp_path):
    modules = modules_of(program.format(folder=str(make_artifact(tmp_path / "run"))))
    own = {name for name in modules if name.partition(".")[0] == "fadrm_hf"}
    assert "fadrm_hf.training.loader" in own and len(own) <= MOST_MODULES
    assert modules & NOT_FOR_READERS == set()
