"""docs/trainers.md: each of its programs trains a student from an artifact and measures it."""

import re
import runpy
import sys
from types import ModuleType

import pytest
import torch
from fixtures.documents import blocks
from fixtures.runs import copy_artifact

PROGRAMS = [block for block in blocks() if block.page == "docs/trainers.md" and block.language == "python"]


class LightningModule(torch.nn.Module):
    """What Lightning's module offers to the page's."""

    current_epoch = 0

    def log(self, name, value):
        assert name == "loss" and value.isfinite()


class LightningTrainer:
    """Lightning's calls in its order: a loader for every epoch, the transfer of each batch, the step, the update."""

    def __init__(self, max_epochs, reload_dataloaders_every_n_epochs):
        assert reload_dataloaders_every_n_epochs == 1
        self.max_epochs = max_epochs

    def fit(self, module):
        optimiser = module.configure_optimizers()
        module.train()
        for module.current_epoch in range(self.max_epochs):
            loader = module.train_dataloader()
            num_batches, seen = len(loader), 0
            for index, batch in enumerate(loader):
                moved = batch.to(torch.device("cpu"))  # whatever has `to` is moved by it
                optimiser.zero_grad()
                module.training_step(moved, index).backward()
                optimiser.step()
                seen += 1
            assert seen == num_batches > 0


@pytest.fixture
def desk(finished, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    copy_artifact(finished, tmp_path / "runs").rename(tmp_path / "runs/fadrm-digits-ipc10")
    monkeypatch.chdir(tmp_path)
    lightning = ModuleType("lightning")
    lightning.LightningModule, lightning.Trainer = LightningModule, LightningTrainer
    monkeypatch.setitem(sys.modules, "lightning", lightning)
    return tmp_path


def test_there_is_a_program_for_every_trainer():
    assert len(PROGRAMS) == 5
    for trainer in ("resnet18", "Accelerator", "create_scheduler_v2", "TrainingArguments", "LightningModule"):
        assert sum(trainer in block.text for block in PROGRAMS) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_a_program_trains_and_measures(block, desk, capsys):
    (desk / "program.py").write_text(block.text)
    runpy.run_path(str(desk / "program.py"), run_name="__main__")
    found = re.findall(r"top-1 ([\d.]+) %, top-5 [\d.]+ % of 500 test images", capsys.readouterr().out)
    assert len(found) == 1 and 0 <= float(found[0]) <= 100
