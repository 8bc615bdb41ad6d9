"""Students trained on everything: the recipe of Table 7, its table, what is made again and what is refused."""

import csv
import json

import pytest
import timm
import torch
from fixtures.mistakes import names_all, refused
from fixtures.runs import files_of

from fadrm_hf.cli import main
from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.sources import load_source

WORDS = ("whole-dataset", "--source.name=digits", "--num_seeds=1", "--squeeze.epochs=1", "--squeeze.batch_size=64")
RESULT = "runs/whole-digits/whole-hard-squeeze-timm_resnet10_narrow.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which one student has been trained on all digits."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        assert main([*WORDS, "--students=[resnet10_narrow]"]) == 0
    return folder


@pytest.fixture
def there(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def test_the_recipe_is_that_of_table_7(trained):
    result = json.loads((trained / RESULT).read_text())
    settings = result["settings"]
    assert result["source"] == {"name": "digits", "revision": None, "preset": "digits", "size": 16, "classes": None}
    table = {"lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9, "crop": "resized", "cutmix": True}
    asked = {"epochs": 1, "batch_size": 64}
    own = {"flip_probability": 0.0}  # digits are not mirrored
    ours = {"implementation": "released", "optimiser": "sgd", "schedule": "cosine", "warmup_epochs": 0}
    assert settings == table | asked | own | ours | {"padding": 4, "num_workers": 0}


def test_the_accuracy_is_that_of_the_network_that_is_kept(trained):
    (folder,) = (trained / "runs/teachers").glob("whole-resnet10_narrow-*")
    source = load_source(resolve_source(SourceConfig(name="digits")))
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        images = source.normalise(source.pixels("test", range(500)))
        guesses = torch.cat([network(part).argmax(1) for part in images.split(100)])
    accuracy = (guesses == torch.as_tensor(source.labels("test"))).double().mean().item()
    result = json.loads((trained / RESULT).read_text())
    assert result["top1"]["values"] == [round(accuracy, 6)]
    assert (result["num_images"], result["num_test_images"], result["num_seeds"]) == (1297, 500, 1)


def test_the_table_is_read_by_people_and_programs(trained):
    result = json.loads((trained / RESULT).read_text())
    with open(trained / "runs/whole-digits.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["top1_mean"]) == pytest.approx(result["top1"]["mean"], abs=1e-6)
    assert (row["title"], row["setting"], row["best_epoch_top1_mean"]) == (
        "ResNet-10, narrow", "SGD 0.1, batch 64, CutMix", "",
    )  # fmt: skip
    text = (trained / "runs/whole-digits.md").read_text()
    assert f"| {100 * result['top1']['mean']:.1f} |" in text and "fadrm-hf whole-dataset --source" in text


def test_what_is_there_is_used_and_another_recipe_is_another_training(there, capsys):
    before = files_of(there)
    assert main([*WORDS, "--students=[timm/resnet10_narrow]"]) == 0
    after = files_of(there)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {f"runs/whole-digits.{suffix}" for suffix in ("json", "md")}, "the command was typed otherwise"
    assert "its result is there" in capsys.readouterr().err
    words = [*WORDS, "--students=[resnet10_narrow]", "--squeeze.cutmix=false", "--output=runs/plain"]
    assert main(words) == 0
    assert len(list((there / "runs/teachers").glob("whole-resnet10_narrow-*"))) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--students=[]"], ["students must be a list of students"]),
        (["--students=[resnet18,timm/resnet18]"], ["without repetitions"]),
        (["--students=[timm/resnet19,convnet3]"], ["timm/resnet19: unknown student", "set --students"]),
        (["--students=[torchvision/shufflenet_v2_x1_5]"], ["none of timm's", "--students"]),
        (["--num_seeds=0"], ["num_seeds must be at least 1"]),
        (["--squeeze.lr=0"], ["squeeze.lr must be positive"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(place, capsys, words, expected):
    names_all(refused(capsys, place, *WORDS, *words), *expected)
