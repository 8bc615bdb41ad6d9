import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fixtures.artifacts import BATCH, make_artifact, make_manifest, relabel
from huggingface_hub import DatasetCard
from PIL import Image

from fadrm_hf.artifact import read_images, read_soft_labels
from fadrm_hf.artifact.manifest import SourceRecord, TableBytes, TeacherRecord, refresh_files
from fadrm_hf.card import read_results, render_card, write_card
from fadrm_hf.errors import ArtifactError
from fadrm_hf.files import write_json
from fadrm_hf.verify import verify_artifact
from fadrm_hf.views import LabelViews, render_views

EXPECTED = Path(__file__).parent / "fixtures/card.md"
ROWS = ('{"image": <PNG of 268 bytes>,\n "label": 0}', '{"epoch": 0,\n "image": 4}')


def result(images, labels, top1, num_seeds=3):
    def summary(mean):
        return {"mean": mean, "std": 0.0123, "values": [mean] * num_seeds}

    return {
        "protocol": "fadrm",
        "student": "timm/resnet18",
        "images": images,
        "labels": labels,
        "epochs": 3,
        "num_seeds": num_seeds,
        "top1": summary(top1),
        "top5": summary(0.987),
        "best_epoch_top1": summary(top1 + 0.01) if labels == "soft" else None,
    }


RESULTS = [
    result("whole", "hard", 0.99, 1),
    result("random_real", "hard", 0.5312),
    result("distilled", "soft", 0.7184),
]


@pytest.fixture
def artifact(tmp_path):
    folder = make_artifact(tmp_path / "fadrm-trees-ipc2")
    (folder / "results/fadrm-resnet18.json").unlink()
    (folder / "assets/grid.png").unlink()
    return folder


def render(manifest, results=(), pictures=()):
    return render_card(manifest, results, ROWS, pictures, "org/fadrm-trees-ipc2")


def test_full_text():
    """The whole card. To accept a change, write the new text to the file and read the difference."""
    manifest = replace(make_manifest(), bytes=TableBytes(4_539, 8_078_000))
    assert render(manifest, RESULTS, ["accuracy", "grid", "recovery"]) == EXPECTED.read_text("utf-8")


def test_what_is_absent_is_said_to_be_not_measured():
    teacher = TeacherRecord("timm/resnet18.tv_in1k", "ab" * 32)
    text = render(replace(make_manifest(), teachers=(teacher,), machine={}, stages={}))
    assert text.count("| not measured |") == 5 + 1  # kinds of evaluation, and the teacher's accuracy
    assert "| timm/resnet18.tv_in1k | – | not measured | by name |" in text
    assert "| machine | not recorded |" in text
    assert "import fadrm_hf" not in text
    assert "![" not in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceRecord("digits", "ab", None, "cc-by-4.0", None), {"license": "cc-by-4.0"}),
        (SourceRecord("digits", "ab"), {"license": "unknown"}),
        (
            SourceRecord("ILSVRC/imagenet-1k", "ab", "c0ffee", "other", "https://image-net.org/download"),
            {
                "license": "other",
                "license_name": "terms-of-ilsvrc-imagenet-1k",
                "license_link": "https://image-net.org/download",
                "source_datasets": ["ILSVRC/imagenet-1k"],
            },
        ),
        (
            SourceRecord("/home/ada/photos", "ab", None, "My Licence 2"),
            {"license": "other", "license_name": "my-licence-2"},
        ),
    ],
)
def test_licence_and_source_in_the_header(source, expected):
    data = DatasetCard(render(replace(make_manifest(), source=source))).data.to_dict()
    keys = ("license", "license_name", "license_link", "source_datasets")
    assert {key: data[key] for key in keys if key in data} == expected


def test_a_local_path_is_not_made_public():
    source = SourceRecord("/home/ada/photos", "ab")
    text = render(replace(make_manifest(), source=source))
    assert "photos" in text
    assert "/home" not in text


def test_hostile_names_stay_in_their_cells():
    teacher = TeacherRecord("a|b`\n<script>", "ab" * 32)
    manifest = replace(make_manifest(), teachers=(teacher,), config={"method": {"name": "{{ 7 * 7 }} | x"}})
    text = render(manifest)
    assert r"| a\|b' &lt;script> | – |" in text
    assert r"| `method.name` | {{ 7 * 7 }} \| x |" in text


def test_a_random_real_baseline_is_not_called_distilled():
    text = render(replace(make_manifest(), method="random_real"))
    assert "chosen at random from example/trees" in text
    assert "distilled from" not in text


def test_the_card_and_its_pictures_are_written_and_verified(artifact):
    work = artifact.with_name(artifact.name + ".work")
    lines = [{"stage": "recover", "iteration": i, "ce": 5 / i, "bn": 9 / i} for i in range(1, 9)]
    (work / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"stage": "relabel"}]))
    for index, one in enumerate(RESULTS):
        write_json(artifact / f"results/{index}.json", one)
    card = DatasetCard.load(write_card(artifact, make_manifest(), work))
    refresh_files(artifact)
    assert verify_artifact(artifact, 4, relabel) == []
    assert {file.name for file in (artifact / "assets").iterdir()} == {"grid.png", "accuracy.png", "recovery.png"}
    assert all(f"assets/{name}.png" in card.text for name in ("grid", "accuracy", "recovery"))
    assert 'load_dataset("fadrm-trees-ipc2", "soft_labels"' in card.text
    assert card.data.configs[1]["config_name"] == "soft_labels"
    with Image.open(artifact / "assets/grid.png") as grid:
        assert grid.width > grid.height


def test_pictures_are_the_same_bytes_each_time(artifact):
    work = artifact.with_name(artifact.name + ".work")
    write_json(artifact / "results/0.json", RESULTS[-1])
    write_card(artifact, make_manifest(), work)
    first = {file.name: file.read_bytes() for file in (artifact / "assets").iterdir()}
    write_card(artifact, make_manifest(), work)
    assert {file.name: file.read_bytes() for file in (artifact / "assets").iterdir()} == first


def test_the_cards_code_runs_and_draws_the_stored_views(artifact, tmp_path, monkeypatch):
    write_card(artifact, make_manifest())
    monkeypatch.chdir(tmp_path)
    loading, replaying = re.findall(r"```python\n(.*?)```", (artifact / "README.md").read_text(), re.DOTALL)
    names = {"student": lambda images: images.flatten(1)[:, :4]}
    cache = f'split="train", cache_dir={str(tmp_path / "cache")!r}'
    exec(loading.replace('split="train"', cache), names)
    exec(replaying, names)
    rows = {name: torch.from_numpy(column[:BATCH]) for name, column in read_soft_labels(artifact, 0).items()}
    pixels = render_views(read_images(artifact)[0], LabelViews.from_columns(rows))
    drawn = torch.stack([names["draw"](row) for row in names["rows"]])
    assert (drawn - (pixels / 255 - 0.5)).abs().max() <= 1.01 / 255
    target, logits = rows["logits"] / 20, names["logits"] / 20
    assert torch.isclose(names["loss"], F.kl_div(logits.log_softmax(1), target.softmax(1), reduction="batchmean"))


@pytest.mark.parametrize("content", ["", "[]", '{"images": "distilled"}', '{"top1": 3}'])
def test_a_damaged_result_is_named(artifact, content):
    (artifact / "results").mkdir(exist_ok=True)
    (artifact / "results/bad.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"results/bad\.json is not an evaluation.*train-student"):
        read_results(artifact)
