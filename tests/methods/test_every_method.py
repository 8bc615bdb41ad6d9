"""The contract of every method in the registry: one command takes digits to an artifact that readers can trust."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from fixtures.runs import IMAGES, LABELS, identities, lasting, run_and_die, work_of

from fadrm_hf.cli import main
from fadrm_hf.config.datasets import PRESETS, resolve_source
from fadrm_hf.methods import METHODS, find_method
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.publishing.verify import verify_location
from fadrm_hf.training.loader import load_distilled

pytestmark = pytest.mark.numerical

# A pool of two, one of which has no BatchNorm.
RECIPE = (
    "--source.name=digits", "--ipc=2", "--teachers.names=[squeeze/resnet10_narrow,squeeze/convnet3_narrow]",
    "--teachers.min_accuracy=0", "--teachers.gate_images=20", "--squeeze.epochs=2", "--patches.pool=20",
    "--patches.grid=1", "--patches.crops_per_image=2", "--statistics.images_per_class=10", "--recover.batch_size=8",
    "--relabel.epochs=3", "--relabel.batch_size=10", "--relabel.accumulation=1", "--relabel.shuffle_tiles=1",
    "--student.student=timm/resnet10_narrow", "--student.epochs=3", "--student.num_seeds=1",
)  # fmt: skip
OWN = {
    "fadrm": ["--method.sizes=[12,16,12,16]"],
    "fadrm_plus": ["--method.sizes=[12,16,12,16]"],
    "psm": ["--method.sizes=[12,16,12,16]"],
    "delt": ["--method.round_iterations=3"],
    "lpld": ["--relabel.stored_epochs=3"],
    "cv_dd": ["--method.vote_ipc=1", "--method.vote_iterations=2", "--method.vote_epochs=2",
              "--method.vote_student=timm/resnet10_narrow"],
}  # fmt: skip


def command(name: str, output: Path) -> list[str]:
    iterations = ["--method.iterations=6"] if "iterations" in find_method(name).__dataclass_fields__ else []
    return ["distill", f"--method={name}", *RECIPE, *iterations, *OWN.get(name, []), f"--output={output}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs share their teachers and what was measured of these."""
    return tmp_path_factory.mktemp("methods")


@pytest.fixture(scope="module", params=sorted(METHODS))
def artifact(request: pytest.FixtureRequest, place: Path) -> Path:
    """A finished run of each method."""
    folder = place / request.param / "run"
    for shared in ("teachers", "statistics"):
        (place / shared).mkdir(exist_ok=True)
        folder.parent.mkdir(exist_ok=True)
        (folder.parent / shared).symlink_to(place / shared)
    assert main(command(request.param, folder)) == 0
    return folder


def test_images_and_labels_are_what_the_format_promises(artifact):
    images = load_dataset(str(artifact), split="train")
    assert len(images) == 20 and {image.size for image in images["image"]} == {(16, 16)}
    assert images["label"] == [*range(10)] * 2 and images["ipc_index"] == [0] * 10 + [1] * 10
    labels = pq.read_table(artifact / LABELS)
    assert labels["epoch"].to_pylist() == [epoch for epoch in range(3) for _ in range(20)]
    distilled = load_distilled(artifact)
    with distilled.batches(range(1)) as batches:
        logits = torch.cat([batch.logits for batch in batches])
    assert logits.shape == (20, 10) and bool(torch.isfinite(logits).all())
    pixels = distilled.images
    assert pixels.dtype == torch.uint8 and pixels.float().std() > 10, "neither black nor flat"


def test_the_artifact_is_sound_and_its_card_cites_the_paper(artifact):
    assert verify_location(load_distilled(artifact).location) == []
    card, method = (artifact / "README.md").read_text(), find_method(artifact.parent.name)
    assert method.title.lower() in card.lower()
    if method.paper is not None:
        assert method.paper.title in card and method.paper.bibtex.strip() in card
    manifest = json.loads((artifact / "fadrm.json").read_text())
    assert manifest["method"] == method.name and len(manifest["teachers"]) == 2


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bits(artifact, tmp_path):
    (tmp_path / "teachers").symlink_to(artifact.parent / "teachers")
    (tmp_path / "statistics").symlink_to(artifact.parent / "statistics")
    again = command(artifact.parent.name, tmp_path / "run")
    assert run_and_die(again, f"{work_of(tmp_path / 'run')}/recovered/*.safetensors", count=2) == -9
    before = identities(work_of(tmp_path / "run"))
    assert not (tmp_path / "run" / "fadrm.json").exists() and any(name.startswith("recovered/") for name in before)
    assert main(again) == 0
    after = identities(work_of(tmp_path / "run"))
    assert {name: after[name] for name in before} == before, "what was finished is not made again"
    assert lasting(tmp_path / "run") == lasting(artifact)
    assert (tmp_path / "run" / IMAGES).read_bytes() == (artifact / IMAGES).read_bytes()


@pytest.mark.parametrize("dataset", [None, *PRESETS])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_published_settings_are_settings_of_a_run(name, dataset):
    """Every value a method publishes for a dataset is one that the command line takes, and is what it gives."""
    words = [f"--method={name}", f"--source.name={dataset or 'own/dataset'}"]
    for ipc in (1, 10, 50) if dataset == "cifar100" else (10,):
        run = parse_run([*words, f"--ipc={ipc}"])
        size = resolve_source(run.source).size
        assert size is not None
        published = find_method(name).published(dataset, size, ipc)
        for section, values in published.items():
            given = {key: getattr(getattr(run, section), key) for key in values}
            assert given == values, section
        assert len(run.teachers.names) >= run.method.min_teachers


def test_how_many_teachers_label_is_said_of_the_published_ones():
    words = ["--method=edc", "--source.name=imagenet1k"]
    assert parse_run(words).relabel.num_teachers == 4
    others = parse_run([*words, "--teachers.names=[squeeze/resnet18,squeeze/convnet3]"])
    assert others.relabel.num_teachers is None


def test_what_is_given_wins_over_what_is_published():
    run = parse_run(["--method=sre2l", "--source.name=tiny_imagenet", "--recover.lr=0.3", "--ipc=50"])
    assert (run.recover.lr, run.recover.statistics_weight, run.recover.symmetric_roll) == (0.3, 1.0, True)
