"""Files of an artifact that somebody has edited: every command works, or names the file and how to mend it.

Every value of every file is exchanged for values that no such file has; each run of the suite takes a sample of these
edits, and `make soak` all of them.
"""

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.runs import copy_artifact

from fadrm_hf.cli import main

ALL = os.environ.get("FUZZ_EXAMPLES") is not None
ODD: tuple[Any, ...] = (
    10**401,
    10**18,
    -1,
    0.5,
    float("nan"),
    "\ud800",
    "a\0b",
    "",
    None,
    True,
    [],
    [[]],
    {},
    {"a": {"b": [1]}},
)
NUM_SAMPLED = 40  # of the edits of a file, in each run of the suite


def places_in(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a document, at any depth, and the first index of a list."""
    inner: Any = ()
    if isinstance(document, dict):
        inner = document.items()
    elif isinstance(document, list):
        inner = enumerate(document[:1])
    for key, value in inner:
        yield (*path, key)
        yield from places_in(value, (*path, key))


def edits_of(document: Any) -> Iterator[tuple[str, Any]]:
    """Every edit of a document: what was done, and what comes out."""
    for path in places_in(document):
        for value in (*ODD, ...):
            edited = copy.deepcopy(document)
            inner = edited
            for key in path[:-1]:
                inner = inner[key]
            if value is ...:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
            yield f"{'.'.join(map(str, path))} = {value!r:.30}", edited


def sampled(edits: list[Any]) -> list[Any]:
    return edits if ALL else edits[:: max(1, len(edits) // NUM_SAMPLED)]


def broken_texts(text: str) -> Iterator[tuple[str, bytes]]:
    """Every way in which a whole file is damaged."""
    content = text.encode()
    yield "half", content[: len(content) // 2]
    yield "empty", b""
    yield "NUL", b"\0" * 100
    yield "no UTF-8", content[:20] + b"\xff\xfe" + content[20:]
    yield "deep", b'{"a": [' * 5000
    yield "digits", b"1" * 5000
    yield "a list", b"[]"
    yield "a text", b'"x"'
    yield "null", b"null"


def contents_of(file: Path) -> list[tuple[str, bytes]]:
    text = file.read_text()
    edited = [(what, json.dumps(document).encode()) for what, document in edits_of(json.loads(text))]
    return [*sampled(edited), *broken_texts(text)]


def outcome(*arguments: str) -> int:
    """The exit code of a command; what is unforeseen is raised."""
    try:
        return main(arguments)
    except RecursionError as error:  # pytest would print all of it
        raise AssertionError(f"{arguments} recursed") from error


COMMANDS = {
    "info": lambda folder: outcome("info", str(folder)),
    "verify": lambda folder: outcome("verify", str(folder), "--leakage=false", "--num_steps=1"),
    "gallery": lambda folder: outcome("gallery", str(folder), f"--output={folder.parent / 'page'}"),
    "recode": lambda folder: outcome("recode", str(folder), f"--output={folder.parent / 'coded'}", "--codec=int8"),
    "score": lambda folder: outcome("score", str(folder), "--networks=[]"),
    "train": lambda folder: outcome(
        "train-student", str(folder), "--epochs=1", "--num_seeds=1", f"--output={folder.parent / 'results'}"
    ),
    "reproduce": lambda folder: outcome("reproduce", str(folder), "--epochs=1", "--num_seeds=1"),
}


def try_all(folder: Path, file: Path, what: str, content: bytes, capsys: Any) -> list[str]:
    """Run every command on an edited copy, and return what was not handled."""
    bad = []
    file.write_bytes(content)
    for name, command in COMMANDS.items():
        try:
            code = command(folder)
            said = capsys.readouterr()
            if code not in (0, 1, 2):
                bad.append(f"{what}: {name} ended with {code}")
            if code == 2 and not said.err.strip():
                bad.append(f"{what}: {name} says nothing")
        except (Exception, SystemExit) as error:
            bad.append(f"{what}: {name} raised {type(error).__name__}: {error}"[:300])
        file.write_bytes(content)
        for made in ("page", "coded", "coded.work", "results", "results.work", "run.work"):
            shutil.rmtree(folder.parent / made, ignore_errors=True)
    return bad


@pytest.mark.filterwarnings("ignore")
def test_any_edit_of_a_manifest(finished, tmp_path, capsys):
    folder = copy_artifact(finished, tmp_path)
    bad = [
        line
        for what, content in contents_of(folder / "fadrm.json")
        for line in try_all(folder, folder / "fadrm.json", what, content, capsys)
    ]
    assert not bad, "\n".join(bad)
