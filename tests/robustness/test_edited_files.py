"""Files of an artifact that somebody has edited: every command works, or names the file and how to mend it.

Every value of every file is exchanged for values that no such file has. Each run of the suite takes a sample of these
edits, `make soak` all of them.
"""

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.artifacts import make_manifest
from fixtures.runs import ROOT

from fadrm_hf.cli import main
from fadrm_hf.report.pictures.card import write_pictures
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.tensor_files import save_tensors

FORMAT1 = ROOT / "tests/fixtures/format1"
RESULT = "results/distilled-soft-fadrm-timm_resnet10_narrow.json"
ALL = os.environ.get("FUZZ_EXAMPLES") is not None
ODD: tuple[Any, ...] = (
    10**401,
    10**18,
    -1,
    0.5,
    float("nan"),
    "\ud800",
    "a\0b\x1b[2J",
    "",
    None,
    True,
    [],
    [[]],
    {},
    {"a": {"b": [1]}},
)
NUM_SAMPLED = 8  # of the edits of a file, in each run of the suite


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
    edits = [(what, json.dumps(edited).encode()) for what, edited in edits_of(json.loads(text))]
    return [*(edits if ALL else edits[:: len(edits) // NUM_SAMPLED]), *broken_texts(text)]


def said_of(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with how a command ended; "" if it worked or named its trouble."""
    options = {
        "verify": ["--leakage=false", "--num_steps=1"],
        "gallery": [f"--output={folder.parent / 'made'}"],
        "recode": [str(folder.parent / "made"), "--codec=int8"],
        "edit": [str(folder.parent / "made"), "--rename_classes=[0=zero]"],
        "export": [str(folder.parent / "made")],
    }
    capsys.readouterr()
    try:
        code = main([command, str(folder), *options.get(command, [])])
    except (Exception, SystemExit) as error:  # it is unforeseen, and would end with 70
        return f"{type(error).__name__}: {error}"[:300]
    said = capsys.readouterr()
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in said.out + said.err):
        return "obeys control characters"
    is_named = code != 2 or any(name in said.err for name in ("fadrm.json", "results/", "pictures.json", "README.md"))
    return "" if code in (0, 1, 2) and is_named else f"ended with {code}: {said.err}"


def damaged(name: str, *commands: str) -> Any:
    """A file of an artifact, and the commands that are given it damaged."""
    return pytest.param(name, commands, marks=[pytest.mark.fault(each, "damaged file") for each in commands])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "commands"),
    [
        damaged("fadrm.json", "info", "verify", "gallery", "recode", "edit", "export", "score"),
        damaged(RESULT, "gallery", "score"),
        damaged("gallery/pictures.json", "gallery"),
    ],
)
def test_every_edit_is_taken_or_named(name, commands, tmp_path, capsys, record_property):
    folder, unforeseen = tmp_path / "run", []
    record_property("cases", len(contents_of(FORMAT1 / name)))
    for what, content in contents_of(FORMAT1 / name):
        for command in commands:
            for made in tmp_path.iterdir():
                shutil.rmtree(made)
            shutil.copytree(FORMAT1, folder)
            (folder / name).write_bytes(content)
            if trouble := said_of(command, folder, capsys):
                unforeseen.append(f"{command} after {what}: {trouble}")
    assert not unforeseen, "\n".join(unforeseen)


CARDS = {
    "half a header": b"---\ntags: [a\n---\n",
    "other tags": b"---\ntags: {a: [1]}\n---\n",
    "numbers for tags": b"---\ntags: [1, [2], x]\n---\n",
    "aliases": b"---\na: &a [1]\ntags: [*a, *a]\n---\n",
    "Python": b"---\ntags: !!python/object/apply:os.mkdir [executed]\n---\n",
    "no UTF-8": b"\xff\xfe",
    "NUL": b"\0" * 50,
    "empty": b"",
}


@pytest.mark.parametrize("command", ["info", "gallery", "score", "verify"])
@pytest.mark.parametrize("case", CARDS)
def test_any_card_is_read_or_named(case, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FORMAT1, tmp_path / "run")
    (tmp_path / "run/README.md").write_bytes(CARDS[case])
    assert said_of(command, tmp_path / "run", capsys) == ""
    assert not list(tmp_path.rglob("executed"))


RECORD = b'{"stage": "recover", "units": 1, "seconds": 0.1, "iteration": 1, "loss": 2.0, "ce": 1.0, "bn": 1.0}\n'


@pytest.mark.parametrize(
    "line",
    [
        b'{"stage": "recover", "iter',
        b"\0" * 4096,
        b"\xff\xfe}",
        b"[]",
        b"{}}",
        b'{"stage": "recover", "iteration": "x", "loss": []}',
        b'{"iteration": ' + b"1" * 5000 + b"}",
        b'{"a": [' * 2000 + b"}",
    ],
    ids=range(8),
)
def test_a_damaged_line_of_the_log_is_left_out_and_said(line, tmp_path, capfd):
    """As a power failure and a full disk leave them; packaging continues."""
    work, folder = tmp_path / "run.work", tmp_path / "run"
    images = {"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}
    columns = images | {name: torch.zeros(1, dtype=torch.int64) for name in ("label", "ipc_index")}
    for stage in ("patches", "recovered"):
        save_tensors(work / stage / "x.safetensors", columns)
    (work / "log.jsonl").write_bytes(RECORD + line + b"\n" + RECORD)
    write_pictures(folder, make_manifest(), [], (), work, Reporter())
    assert (folder / "assets/recovery.png").is_file()
    assert "1 damaged line" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
def test_a_log_that_is_no_log_is_left_alone(kind, tmp_path, capfd):
    work = tmp_path / "run.work"
    work.mkdir()
    if kind == "pipe":
        os.mkfifo(work / "log.jsonl")
    elif kind == "device":
        (work / "log.jsonl").symlink_to("/dev/zero")
    else:
        with open(work / "log.jsonl", "wb") as file:
            file.truncate(1 << 40)
    write_pictures(tmp_path / "run", make_manifest(), [], (), work, Reporter())
    assert "log.jsonl is left out" in capfd.readouterr().err
