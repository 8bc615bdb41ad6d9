"""One module knows where the files of a run are; no other spells a name of one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OWNER = ROOT / "fadrm_hf/runtime/run_folder.py"
MODULES = sorted(path for folder in ("fadrm_hf", "builders") for path in (ROOT / folder).rglob("*.py"))
FILES = ("fadrm.json", "README.md", "recipe.yaml", "recipe.json", "source.json", "log.jsonl", "costs.json",
         "scores.json", "analysis.json")  # fmt: skip
FOLDERS = ("data", "soft_labels", "results", "assets", "gallery", "teachers", "votes", "statistics", "patches",
           "recovered", "snapshots", "locks", "curves")  # fmt: skip
# A file by its name, or a path that leads through a folder of a run; texts for people have spaces.
# Not of a run: the card of a source, and the folder of measured tables in the repository.
OTHERS = {("parquet_tables", "README.md"), ("compare", "results/compare-"), ("ablate", "results/ablate-")}
SPELLED = re.compile(rf"({'|'.join(map(re.escape, FILES))})|({'|'.join(FOLDERS)})/[^ ]*|[^ ]*\.work")


def texts(tree: ast.Module) -> Iterator[str]:
    """Every text of a module but docstrings; of one with values in it, its beginning."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree)
                  if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def joined(tree: ast.Module) -> Iterator[str]:
    """The names that are added to a path with `/`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            yield str(node.right.value)


@pytest.mark.parametrize("path", [path for path in MODULES if path != OWNER], ids=lambda path: path.stem)
def test_no_other_module_spells_a_file_of_a_run(path: Path):
    tree = ast.parse(path.read_text("utf-8"))
    assert [text for text in texts(tree) if SPELLED.fullmatch(text) and (path.stem, text) not in OTHERS] == []
    assert [name for name in joined(tree) if name in FOLDERS] == []
