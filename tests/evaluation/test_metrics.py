"""The scores as `evaluate` loads them: by their folders, from an installation, without a network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import torch
from PIL import Image

from fadrm_hf.errors import ScoreError
from fadrm_hf.evaluation import metrics, scores
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.training.accuracy import summarise, topk_accuracy

pytestmark = pytest.mark.numerical

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parent.parent.parent
N, C = 40, 7


def load(name):
    return evaluate.load(metrics.path(name))


def classes(*key):
    """Of each test image, by labels or by a student: (n,) int64."""
    return torch.randint(0, C, (N,), generator=generator(0, *key))


LABELS = classes("labels")


def student(name, right):
    """A student that names the right class for about this share of the images."""
    knows = torch.rand(N, generator=generator(0, "knows", name)) < right
    return torch.where(knows, LABELS, classes("guess", name))


def accuracy(named):
    return (named == LABELS).double().mean().item()


DISTILLED, RANDOM, HARD, WHOLE = (
    student(n, r) for n, r in (("soft", 0.7), ("random", 0.5), ("hard", 0.3), ("w", 0.9))
)
PLAIN, PLAIN_RANDOM = student("plain", 0.5), student("plain random", 0.4)
HLR = scores.hard_label_recovery(accuracy(WHOLE), accuracy(HARD))
IOR = scores.improvement_over_random(accuracy(DISTILLED), accuracy(RANDOM))
PLAIN_IOR = scores.improvement_over_random(accuracy(PLAIN), accuracy(PLAIN_RANDOM))

STUDENTS = {
    "hard_label_recovery": ({"predictions": HARD, "whole": WHOLE}, {}, HLR),
    "improvement_over_random": ({"predictions": DISTILLED, "random": RANDOM}, {}, IOR),
    "label_robust_score": (
        {"predictions": DISTILLED, "random": RANDOM, "hard": HARD, "whole": WHOLE},
        {"weight": 0.3},
        scores.label_robust_score(IOR, HLR, 0.3),
    ),
    "augmentation_robust_score": (
        {"predictions": DISTILLED, "random": RANDOM, "unaugmented": PLAIN, "random_unaugmented": PLAIN_RANDOM},
        {"weight": 0.8},
        scores.augmentation_robust_score(IOR, PLAIN_IOR, 0.8),
    ),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_what_students_name_gives_the_same_as_the_function(name):
    """Fed at once, and batch by batch."""
    columns, options, expected = STUDENTS[name]
    metric = load(name)
    assert metric.compute(references=LABELS, **columns, **options) == {name: pytest.approx(expected, abs=1e-12)}
    for rows in torch.arange(N).split(16):
        metric.add_batch(references=LABELS[rows], **{column: named[rows] for column, named in columns.items()})
    assert metric.compute(**options) == {name: pytest.approx(expected, abs=1e-12)}


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_accuracy_of_the_likeliest_classes(k):
    logits = torch.randn((N, C), generator=generator(0, "logits"))
    found = load("top_k_accuracy").compute(predictions=logits.topk(5).indices, references=LABELS, k=k)
    assert found == {f"top_{k}_accuracy": topk_accuracy(logits, LABELS, k)}


def test_sizes_are_exact_beyond_what_float32_holds():
    found = load("compression_ratio").compute(predictions=[3_000_000_001, 2], references=[2**40 + 1, 5])
    assert found == {"compression_ratio": scores.compression_ratio(2**40 + 6, 3_000_000_003)}


@pytest.mark.parametrize("as_pictures", [True, False])
def test_pixel_entropy_of_pictures_and_of_arrays(as_pictures):
    images = torch.randint(0, 200, (5, 3, 12, 10), generator=generator(0, "images"), dtype=torch.uint8)
    arrays = list(images.permute(0, 2, 3, 1).numpy())
    found = load("pixel_entropy").compute(
        predictions=[*map(Image.fromarray, arrays)] if as_pictures else arrays, bins=64
    )
    expected = summarise(scores.pixel_entropy(images, 64).tolist())
    assert found == {"pixel_entropy": pytest.approx(expected["mean"]), "std": pytest.approx(expected["std"])}


def test_features_keep_their_digits():
    features = torch.rand((N, 6), generator=generator(0, "features"), dtype=torch.float64)
    found = load("feature_entropy").compute(predictions=features)
    expected = summarise(scores.feature_entropy(features).tolist())
    assert found == {"feature_entropy": expected["mean"], "std": expected["std"]}
    found = load("feature_diversity").compute(predictions=features, references=LABELS)
    assert found == {
        "cosine_distance": scores.cosine_distance(features, LABELS),
        "effective_number": scores.effective_number(features, LABELS),
    }


def test_a_column_that_is_missing_or_short_is_named():
    metric = load("hard_label_recovery")
    with pytest.raises(ValueError, match="whole"):
        metric.compute(predictions=HARD, references=LABELS)
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(40\) and whole \(39\)"):
        metric.compute(predictions=HARD, references=LABELS, whole=WHOLE[1:])
    with pytest.raises(ScoreError, match="k is 6, expected 1 to 2"):
        load("top_k_accuracy").compute(predictions=[[1, 2]], references=[1], k=6)
    with pytest.raises(ScoreError, match="'hard_label_recovery'"):
        metrics.path("hard_label")


def test_the_page_names_every_metric_and_its_code_runs(capsys):
    page = (ROOT / "docs/scores.md").read_text("utf-8")
    assert [name for name in metrics.NAMES if f"`{name}`" not in page] == []
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert eval(capsys.readouterr().out) == {"improvement_over_random": pytest.approx(1 / 3)}


FRESH = """
import json, sys
import evaluate
import fadrm_hf
from fadrm_hf.evaluation import metrics, scores

loaded = {name: evaluate.load(metrics.path(name)) for name in metrics.NAMES}
hlr = loaded["hard_label_recovery"].compute(predictions=[0, 1], references=[0, 2], whole=[0, 2])
print(json.dumps({"file": fadrm_hf.__file__, "hlr": hlr, "described": [m.description for m in loaded.values()]}))
"""


def installed(place):
    """The files that an installation has, where and as pyproject.toml names them."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    mapped, data = tool["package-dir"], tool["package-data"]
    for package in tool["packages"]:
        held = ROOT / mapped.get(package, package.replace(".", "/"))
        wanted = ["*.py", *data["*"], *data.get(package, [])]
        for file in {file for pattern in wanted for file in held.glob(pattern)}:
            copy = place / package.replace(".", "/") / file.relative_to(held)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return place


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is younger")
def test_an_installation_holds_every_metric_and_needs_no_network(tmp_path):
    """Used by a process that has only that and an empty cache."""
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment = os.environ | nowhere | {"PYTHONPATH": str(installed(tmp_path / "lib"))}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"] == str(tmp_path / "lib/fadrm_hf/__init__.py")
    assert found["hlr"] == {"hard_label_recovery": 0.5}
    assert len(found["described"]) == len(metrics.NAMES) == 9 and all(found["described"])
