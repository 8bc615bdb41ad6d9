"""Batches go where trainers send them, and a pass that is left early ends quietly with its program."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import find_batch_size, send_to_device
from fixtures import artifacts
from torch.utils.data import DataLoader

from fadrm_hf import load_distilled
from fadrm_hf.errors import StudentError
from fadrm_hf.training.batch import Batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return artifacts.make_artifact(tmp_path_factory.mktemp("batches") / "run")


@pytest.fixture(scope="module")
def distilled(folder):
    return load_distilled(folder)


def same(found, expected):
    assert len(found) == len(expected)
    for batch, other in zip(found, expected, strict=True):
        assert isinstance(batch, Batch) and all(map(torch.equal, batch, other))


def lightnings_transfer(data, function, moves_itself):
    """Apply a function to what can be moved, and rebuild named tuples around it, as Lightning did and does."""
    if isinstance(data, torch.Tensor) or (moves_itself and hasattr(data, "to")):
        return function(data)
    return type(data)(*(lightnings_transfer(part, function, moves_itself) for part in data))


def test_accelerate_and_lightning_move_every_tensor(distilled):
    batch = next(distilled.batches(range(1)))
    for moved in (
        send_to_device(batch, "meta"),
        batch.to("meta"),
        lightnings_transfer(batch, lambda data: data.to("meta"), moves_itself=True),
        lightnings_transfer(batch, lambda data: data.to("meta"), moves_itself=False),
    ):
        assert {tensor.device.type for tensor in moved} == {"meta"}
        assert [tensor.shape for tensor in moved] == [tensor.shape for tensor in batch]
    assert isinstance(send_to_device(batch, "meta"), Batch) and find_batch_size(batch) == len(batch.labels)
    assert batch.logits is batch[2] and batch._asdict().keys() == set(Batch._fields)


def test_a_plain_dataloader_passes_the_batches_on(distilled):
    expected = list(distilled.batches(range(2)))
    loader = DataLoader(distilled.batches(range(2)), batch_size=None)
    assert len(loader) == len(expected) == 4
    same(list(loader), expected)
    prepared = Accelerator(cpu=True).prepare(DataLoader(distilled.batches(range(2)), batch_size=None))
    same(list(prepared), expected)
    with pytest.raises(StudentError, match=r"rendered by their own workers.*num_workers"):
        next(iter(DataLoader(distilled.batches(range(1)), batch_size=None, num_workers=1)))


def test_a_pass_has_the_length_of_what_is_left_of_it(distilled):
    batches = distilled.batches(range(3))
    assert len(batches) == 6 == len(list(batches))
    assert len(batches) == 6, "the length of a pass is that of where it began"
    resumed = distilled.batches(range(3), state={"epoch": 1, "step": 1})
    assert len(resumed) == 3 == len(list(resumed))


LEFT_EARLY = """
from fadrm_hf import load_distilled

distilled = load_distilled({folder!r})
batches = distilled.batches(range(3), num_workers={num_workers})
for batch in batches:
    break
"""


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "held = [batches]; held.append(held); del batches"])
def test_a_loop_that_is_left_early_ends_without_a_word(folder, num_workers, ending):
    program = LEFT_EARLY.format(folder=str(folder), num_workers=num_workers) + ending
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ended.stdout == ""


def test_a_labeller_labels_what_is_shown(distilled):
    batches = distilled.batches(range(1), labels="none")
    batches._labeller = SimpleNamespace(label_rendered=lambda images: images.flatten(1)[:, :4])
    batch = next(batches)
    assert torch.equal(batch.logits, batch.images.flatten(1)[:, :4])
