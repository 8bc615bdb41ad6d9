"""What an artifact is said to be, against its tables; and that no image or label travels for it."""

import json
import os
import re
import shlex
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from fixtures.runs import EPOCHS, IMAGES, LABELS, STUDENT, copy_artifact, files_of

import fadrm_hf
from fadrm_hf.cli import main


@pytest.fixture(scope="module")
def measured(finished, tmp_path_factory) -> Path:
    """The finished run with one evaluation."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("measured"))
    assert main(["train-student", str(artifact), "--num_seeds=2"]) == 0
    return artifact


@pytest.fixture
def published(hub, measured) -> tuple[str, str]:
    """It on the Hub, with a tag: its name, of its own so that no cache knows it; and its commit."""
    name = f"alice/digits-{uuid.uuid4().hex[:12]}"
    commit = hub.put(name, files_of(measured))
    hub.tag(name, "v1.0", commit)
    return name, commit


def info(capsys, *arguments: str) -> dict:
    assert main(["info", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["result"]


def test_it_says_what_the_tables_hold(measured, capsys):
    found, manifest = info(capsys, str(measured)), json.loads((measured / "fadrm.json").read_text())
    images, labels = pq.read_table(measured / IMAGES), pq.read_metadata(measured / LABELS)
    size = int.from_bytes(images["image"][0].as_py()["bytes"][16:20], "big")  # the width, in a PNG's head
    assert (found["num_images"], found["px"]) == (len(images), size)
    assert found["num_classes"] == len(set(images["label"].to_pylist()))
    assert found["ipc"] * found["num_classes"] == found["num_images"]
    assert found["label_epochs"] == EPOCHS and labels.num_rows == EPOCHS * len(images)
    assert found["image_bytes"] == os.path.getsize(measured / IMAGES)
    assert found["soft_label_bytes"] == os.path.getsize(measured / LABELS)
    assert found["stage_seconds"] == {name: stage["seconds"] for name, stage in manifest["stages"].items()}
    (teacher,) = found["teachers"]
    assert teacher == {key: manifest["teachers"][0][key] for key in ("name", "accuracy")}
    assert (found["method"], found["source"], found["licence"]) == ("fadrm", "digits", "cc-by-4.0")
    assert not found["gated"] and found["revision"] is None and found["versions"] == []
    assert {"dataset-distillation", "ipc-2", "arxiv:2506.24125"} <= set(found["tags"])


def test_results_are_those_on_file(measured, finished, capsys):
    (file,) = (measured / "results").glob("*.json")
    result = json.loads(file.read_text())
    (row,) = info(capsys, str(measured))["results"]
    assert (row["student"], row["protocol"], row["epochs"], row["seeds"]) == (STUDENT, "fadrm", str(EPOCHS), "2")
    top1 = result["top1"]
    assert row["top-1"] == f"{100 * top1['mean']:.1f} ± {100 * top1['std']:.1f}"
    assert info(capsys, str(finished))["results"] == []  # what was not measured is no result


def test_people_read_the_same(measured, capsys):
    assert main(["info", str(measured)]) == 0
    shown = capsys.readouterr().out
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in shown.splitlines() if line[:1].islower())
    assert lines["method"] == "FADRM (fadrm)" and lines["images"].startswith("20: 2 for each of 10 classes, 16 px, ")
    assert lines["labels"].startswith(f"float16, {EPOCHS} epochs, ")
    assert f"{STUDENT}  fadrm" in shown.splitlines()[-1]


def test_of_an_artifact_on_the_hub_manifest_and_card_are_fetched_and_nothing_else(hub, published, measured, capsys):
    name, commit = published
    hub.requests.clear()
    hub.sent.clear()
    found = info(capsys, name)
    contents = {path: sent for path, sent in hub.sent.items() if "/resolve/" in path}
    needed = ("fadrm.json", "README.md")
    assert sum(contents.values()) == sum(len((measured / file).read_bytes()) for file in needed)
    assert {path.rpartition("/")[2] for path in contents} == set(needed)
    assert not any("parquet" in request for request in hub.requests)
    assert (found["revision"], found["versions"]) == (commit, ["v1.0"])
    assert found == info(capsys, str(measured)) | {key: found[key] for key in ("revision", "versions", "load")}


@pytest.mark.parametrize("words", [[], ["--revision", "v1.0"]], ids=["main", "tag"])
def test_the_lines_that_load_it_do(published, measured, capsys, words):
    name, _ = published
    images, batches = info(capsys, name, *words)["load"]
    names = {"datasets": type("datasets", (), {"load_dataset": staticmethod(load_dataset)}), "fadrm_hf": fadrm_hf}
    assert eval(images, names)["label"] == pq.read_table(measured / IMAGES)["label"].to_pylist()
    with eval(batches, names) as batch:
        assert next(batch).logits.shape[1] == 10


def test_a_name_that_is_nowhere_is_refused(hub, place, capsys):
    assert main(["info", "alice/none", "--json"]) == 2
    printed, message = capsys.readouterr()
    document = json.loads(printed)
    assert document["exit_code"] == 2 and "alice/none" in document["error"]
    assert document["error"] in " ".join(message.split()) and shlex.split(document["command"])[1:] == [
        "info",
        "alice/none",
    ]
