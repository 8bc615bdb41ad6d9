"""Students and labels on a GPU: what each step and each block of views asks of it, and what the host waits for."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fixtures.artifacts import make_artifact
from fixtures.small import digits, small_teacher
from fixtures.tables import train_longer

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import RelabelConfig, StudentConfig, filled
from fadrm_hf.config.protocols import student_defaults
from fadrm_hf.data.views import LabelViews
from fadrm_hf.labels.drawing import split_sizes
from fadrm_hf.labels.relabel import Labeller
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.training.accuracy import predict
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.one_student import StudentTraining
from fadrm_hf.training.student_step import measure_statistics
from fadrm_hf.training.testing import TestImages as HeldOutImages
from no_op_device.running import NoOpDevice
from no_op_device.watching import watch

KINDS: dict[str, dict[str, Any]] = {
    "soft": {},
    "hard": {"labels": "hard"},
    "bf16": {"precision": "bf16"},
    "averaged": {"ema": 0.9, "ema_buffers": "copy"},
}
MOST = {
    "soft": (4, 220),
    "hard": (4, 230),
    "bf16": (4, 330),
    "averaged": (6, 220),
}  # kernels per epoch, nodes per step
SHORT, LONG, STEPS_PER_EPOCH = 6, 16, 2
CUDA = torch.device("cuda")


def train(folder: str, epochs: int, settings: dict[str, Any]) -> dict[str, int]:
    """Count what a whole training causes."""
    distilled = load_distilled(folder)
    asked = StudentConfig(student="timm/resnet10_narrow", epochs=epochs, **settings)
    config = filled(asked, **student_defaults(asked.name, None, asked.student, distilled.manifest.ipc))
    training = StudentTraining(distilled, HeldOutImages(digits(8), CUDA), config, seed=0, device=CUDA)
    checkpoint = Path(folder).with_name(f"{epochs}-{len(settings)}.safetensors")
    checkpoint.unlink(missing_ok=True)
    with watch() as seen:
        training.run(checkpoint, Task("test", epochs), num_checkpoints=1)
    checkpoint.unlink()
    return seen.counts


def epochs_of_students(folder: str) -> dict[str, dict[str, float]]:
    """Count what an epoch of each kind of training causes: two trainings differ in nothing else."""
    train(folder, 1, {})  # constants are sent once in a process
    found = {}
    for kind, settings in KINDS.items():
        short, long = (train(folder, epochs, settings) for epochs in (SHORT, LONG))
        found[kind] = {name: (long[name] - short[name]) / (LONG - SHORT) for name in long if long[name] != short[name]}
    return found


def batches_of_workers(folder: str) -> list[bool]:
    """Say of each batch that a worker rendered whether a GPU can fetch it by itself."""
    with load_distilled(folder).batches(range(1), num_workers=1, device=CUDA) as batches:
        return [column.is_pinned() for batch in batches for column in batch[:2]]


def evaluations() -> dict[str, dict[str, float]]:
    """Count what testing a student causes, and measuring the statistics of averaged weights."""
    student = timm.create_model("resnet10_narrow", num_classes=10).to(CUDA)
    test = HeldOutImages(digits(8), CUDA)
    views = torch.zeros((5, 4, 3, 8, 8), device=CUDA)
    predict(student, test.batches())
    with watch() as tested:
        predict(student, test.batches())
    with watch() as measured:
        measure_statistics(student, views)
    return {"tested": tested.per(1), "measured": measured.per(1)}


def blocks_of_labels(num_blocks: int, batch_statistics: bool) -> dict[str, int]:
    """Count what labelling some blocks of 128 views of 64 px causes, on a device of 2 GiB, by two teachers."""
    source = digits(64)
    config = RelabelConfig(flip_probability=0.5, batch_statistics=batch_statistics)
    teachers = [small_teacher(source, seed, steps=1) for seed in range(2)]
    labeller = Labeller(teachers, config, source.config.mean, source.config.std, CUDA)
    num = 128 * num_blocks
    images = torch.zeros((num, 3, 64, 64), dtype=torch.uint8, device=CUDA)
    views = LabelViews.draw(torch.arange(num), 64, (0.08, 1.0), 0.5, True, generator(0, "views"))
    with watch() as seen:
        blocks = list(labeller.label_steps(images, views, split_sizes(num, 16)))
    assert [len(block) for block in blocks] == [128] * num_blocks
    return seen.counts


def labels_where_memory_lacks() -> list[int]:
    """Label a block of 128 views of 64 px, of which 16 at a time fit; return the sizes of the passes that did."""
    source = digits(64)
    teacher, passes = small_teacher(source, steps=1), []
    config = RelabelConfig(flip_probability=0.5)
    labeller = Labeller([teacher], config, source.config.mean, source.config.std, CUDA)

    def use_memory(layer: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        torch.empty(len(given[0]) * (100 << 20), dtype=torch.uint8, device=CUDA)
        passes.append(len(given[0]))

    labeller._networks[0]._module.register_forward_pre_hook(use_memory)
    views = LabelViews.draw(torch.arange(128), 64, (0.08, 1.0), 0.5, True, generator(0, "views"))
    labels = labeller.label(torch.zeros((128, 3, 64, 64), dtype=torch.uint8, device=CUDA), views)
    assert labels.shape == (128, 10)
    return passes


def measure(folder: str) -> dict[str, Any]:
    """Measure all of these in one process."""
    found: dict[str, Any] = {"epochs": epochs_of_students(folder), "workers": batches_of_workers(folder)}
    for name, batch_statistics in (("batch", True), ("running", False)):
        few, many = (blocks_of_labels(num, batch_statistics) for num in (2, 5))
        found[name] = {kind: (many[kind] - few[kind]) / 3 for kind in many if many[kind] != few[kind]}
    return found | evaluations() | {"halved": labels_where_memory_lacks()}


@pytest.fixture(scope="module")
def found(no_op_device: NoOpDevice, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was measured."""
    folder = train_longer(make_artifact(tmp_path_factory.mktemp("students") / "run"), LONG)
    return dict(no_op_device.run(measure, str(folder), NO_OP_BYTES=str(2 << 30)))


@pytest.mark.parametrize(("kind", "kernels", "nodes"), [(name, *most) for name, most in MOST.items()])
def test_steps_are_launched_whole_and_wait_for_nothing(
    found: dict[str, Any], kind: str, kernels: int, nodes: int
) -> None:
    """An epoch reads its loss at the end; views of all its steps are drawn together, and come in one copy."""
    epoch = found["epochs"][kind]
    assert epoch.pop("kernels") <= kernels and epoch.pop("graph_nodes") <= STEPS_PER_EPOCH * nodes
    assert epoch == {"waits": 1, "to_host": 1, "graph_launches": STEPS_PER_EPOCH}


def test_what_workers_render_is_fetched_without_a_wait(found: dict[str, Any]) -> None:
    assert found["workers"] == [True] * 2 * STEPS_PER_EPOCH


def test_students_are_tested_in_one_go(found: dict[str, Any]) -> None:
    assert found["tested"].pop("kernels") < 100 and found["tested"] == {"waits": 1, "to_host": 1}
    assert found["measured"].keys() == {"kernels"}, "statistics of averaged weights are measured without a wait"


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_a_block_of_labels_waits_once(found: dict[str, Any], statistics: str) -> None:
    """Views come in one copy; labels, and whether they are finite, are read while the next block is under way."""
    block = found[statistics]
    assert block.pop("kernels") <= 200  # of two teachers with two convolutions each, and of 60 that draw views
    assert block == {"waits": 1, "to_device": 1, "to_host": 2}


def test_labels_by_batch_statistics_are_halved_where_memory_lacks(found: dict[str, Any]) -> None:
    assert found["halved"] == [16] * 8
