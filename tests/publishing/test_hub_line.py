"""From a run folder to the Hub and back, in processes that share nothing but the server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from fixtures.runs import LABELS, STUDENT, copy_run, files_of

from fadrm_hf.cli import main

ROOT = Path(__file__).parent.parent.parent
REPO, MODEL = "alice/fadrm-digits-ipc2", "bob/digits-student"
FADRM_HF = [sys.executable, "-m", "fadrm_hf.cli"]
LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "1", "--num_machines", "1",
          "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
PLAIN = """
import sys
sys.modules["fadrm_hf"] = None  # importing it fails
from datasets import load_dataset
repo, tag = sys.argv[1:]
images = load_dataset(repo, split="train", revision=tag)
first = load_dataset(repo, "ipc1", split="train", streaming=True, revision=tag)
views = load_dataset(repo, "soft_labels", split="train", streaming=True, revision=tag)
one = load_dataset(repo, "soft_labels", split="train", revision=tag, filters=[("epoch", "==", 1)])
assert images.features["label"].names == [str(digit) for digit in range(10)]
assert images[0]["image"].size == (16, 16)
print(len(images), sum(1 for _ in first), sum(1 for _ in views), len(one), len(one[0]["logits"]))
"""
PIPELINE = """
import sys
import fadrm_hf.networks.small_images  # the student is a small-stem ResNet, which timm does not know
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1], top_k=10)
from PIL import Image
answer = classify(Image.new("RGB", (16, 16), "white"))
assert {entry["label"] for entry in answer} == {str(digit) for digit in range(10)}
print(sum(entry["score"] for entry in answer))
"""


class Person:
    """Somebody with a machine of their own: an empty cache, an empty folder, perhaps a token."""

    def __init__(self, home: Path, token: str | None = None) -> None:
        self.home = home
        home.mkdir()
        self._environment = os.environ | {"HF_HOME": str(home / "hf")} | ({"HF_TOKEN": token} if token else {})

    def runs(self, *command: str, code: int = 0) -> str:
        """What a command prints, which ends with `code`."""
        done = subprocess.run(command, cwd=self.home, env=self._environment, capture_output=True, text=True)
        shown = done.stderr + done.stdout
        assert done.returncode == code, shown
        assert "hf_alice" not in shown and "hf_bob" not in shown
        return shown


def within_logits(file: Path, epoch: int) -> int:
    """The offset of a byte among the logits of an epoch."""
    group = pq.ParquetFile(file).metadata.row_group(epoch)
    columns = [group.column(index) for index in range(group.num_columns)]
    (logits,) = [column for column in columns if column.path_in_schema.startswith("logits")]
    return logits.data_page_offset + logits.total_compressed_size // 2


def test_publish_load_train_send_back_reproduce_verify(finished, hub, tmp_path):
    run = copy_run(finished, tmp_path)
    assert main(["train-student", str(run), "--num_seeds", "2"]) == 0

    alice = Person(tmp_path / "alice", "hf_alice")
    assert "v1.0" in alice.runs(*FADRM_HF, "publish", str(run), REPO)
    published = hub.tags(REPO)["v1.0"]
    assert hub.files(REPO, "v1.0") == files_of(run)

    reader = Person(tmp_path / "reader")
    assert reader.runs(sys.executable, "-c", PLAIN, REPO, "v1.0").split()[-5:] == ["20", "10", "80", "20", "10"]

    bob = Person(tmp_path / "bob", "hf_bob")
    hub.requests.clear()
    train = [*LAUNCH, str(ROOT / "recipes/train_student.py"), "--artifact", REPO, "--student", STUDENT]
    shown = bob.runs(*train, "--num_seeds", "2", "--send_result", "--push_student", MODEL)
    fetched = {
        match[1] for line in hub.requests if (match := re.match(rf"GET /datasets/{REPO}/resolve/\w+/(.*)", line))
    }
    assert not [name for name in fetched if name.startswith(("assets", "teachers"))], "more than training needs"
    (pull,) = hub.pulls(REPO)
    assert str(pull.number) in shown
    assert hub.commits(REPO)[0].id == published, "a pull request changes nothing until it is merged"
    assert abs(float(reader.runs(sys.executable, "-c", PIPELINE, MODEL).split()[-1]) - 1) < 1e-3

    hub.put(REPO, hub.files(REPO, f"refs/pr/{pull.number}"))  # merged
    merged = Person(tmp_path / "merged")
    assert "sound" in merged.runs(*FADRM_HF, "verify", REPO)
    contributed = [name for name in hub.files(REPO) if name.startswith("results/")]
    assert len(contributed) == 2
    results = [json.loads(hub.files(REPO)[name]) for name in contributed]
    assert results[0]["top1"] == results[1]["top1"], "the same protocol on the same machine"

    carol = Person(tmp_path / "carol")
    shown = carol.runs(*FADRM_HF, "reproduce", REPO, "--revision", "v1.0", "--num_seeds", "2")
    assert published in shown

    hub.corrupt(REPO, LABELS, within_logits(run / LABELS, epoch=2))
    dora = Person(tmp_path / "dora")
    shown = dora.runs(*FADRM_HF, "verify", REPO, code=1)
    assert re.search(rf"{re.escape(LABELS)}, epoch 2, (step \d+, )?row", shown), shown


def test_a_published_recipe_repeats_the_run(finished, hub, tmp_path):
    run = copy_run(finished, tmp_path)
    hub.put(REPO, files_of(run))
    reader = Person(tmp_path / "reader")
    reader.runs(*FADRM_HF, "distill", "--config", f"hf://datasets/{REPO}/recipe.yaml")
    again = files_of(reader.home / "runs" / run.name)
    before = files_of(run)
    tables = [name for name in before if name.endswith((".parquet", ".safetensors", ".yaml"))]
    assert len(tables) == 4
    assert [name for name in tables if again[name] != before[name]] == []
